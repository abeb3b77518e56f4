"""A planted growth of 10 %: is it found, of the right size, and nothing elsewhere?

    python benchmarks/growth.py DATA --to benchmarks/templates/growth.csv

Of five people whom no model was trained on (two of oasis-malf, three of ds000011), the scan is
changed by a known deformation: a ball around the right putamen, or around the left hippocampus, is
enlarged by 10 % of its volume, evenly, and what is around it makes room within 15 mm. The structure
lies in the ball.

- ``two registrations``: both scans are registered to MNI152 by ``default``, each alone, and the
  volumes of the structure by their Jacobians are compared.
- ``midpoint``: the change between the two scans, as ``voxwarp morphometry --longitudinal`` has it.

``found_percent`` is the change of the structure's volume; ``elsewhere_percent`` the mean absolute
change of volume of the voxels of the brain more than 25 mm beyond the ball, and ``bias_percent``
their mean change. Noise of 1 % of the brain's mean intensity is added to each scan, or the two
would be too much alike. With ``planted_percent`` 0, only the noise differs.
"""

import argparse
import csv
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import voxwarp
from voxwarp.dbm.jacobians import label_volumes, log_jacobians
from voxwarp.dbm.midpoint import change
from voxwarp.networks.model import Model
from voxwarp.preparation.scan import Scan
from voxwarp.space.resample import resample
from voxwarp.space.transform import Chain, Warp
from voxwarp.space.volume import Volume

OASIS, SILVER = ("1104", "1125"), ("sub-01", "sub-02", "sub-03")
# Values of OASIS and of the silver labels, which have left and right together; the side, x in RAS.
STRUCTURES = {"right putamen": (57, 9, 1), "left hippocampus": (48, 14, -1)}
PERCENT, FALL, FAR, NOISE = (10.0, 0.0), 15.0, 25.0, 0.01


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("--to", type=Path, required=True)
    options = parser.parse_args()
    model, rows = Model.load("default"), []
    for person, scan, column in people(options.data):
        for structure, values in STRUCTURES.items():
            for percent in PERCENT if structure == "right putamen" else PERCENT[:1]:
                for row in measured(scan, values[column], values[2], percent, model):
                    known = {"person": person, "structure": structure, "planted_percent": percent}
                    rows.append({**known, **row})
                    print(*rows[-1].values(), flush=True)
    options.to.parent.mkdir(parents=True, exist_ok=True)
    with options.to.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def people(data: Path) -> Iterator[tuple[str, Scan, int]]:
    """Each with the column of its label values."""
    for name in OASIS:
        folder = data / "oasis-malf"
        labels = folder / "labels" / f"{name}.nii.gz"
        yield name, Scan.read(folder / "t1" / f"{name}.nii.gz", labels=labels), 0
    for name in SILVER:
        stem = data / "ds000011-silver" / name
        labels = f"{stem}_labels18.nii.gz"
        yield name, Scan.read(f"{stem}_brain.nii.gz", labels=labels), 1


def measured(
    scan: Scan, value: int, side: int, percent: float, model: Model
) -> Iterator[dict[str, Any]]:
    assert scan.labels is not None
    points = scan.grid.nodes()
    middle = points[scan.image.data > 0][:, 0].mean()  # headers need not be centred
    inside = (scan.labels.data == value) & (side * (points[..., 0] - middle) > 0)
    centre = points[inside].mean(axis=0)
    distance = np.linalg.norm(points - centre, axis=-1)
    radius = float(distance[inside].max()) + 2
    brain = scan.image.data > 0
    far = brain & (distance > radius + FAR)
    first = noisy(scan.image, 1)
    second = noisy(grown(scan.image, centre, radius, percent), 2)
    scans = [Scan(first), Scan(second)]
    yield {"method": "two registrations", **crossed(scans, inside, far, model)}
    yield {"method": "midpoint", **midpoint(scans, inside, far, model)}


def grown(image: Volume, centre: np.ndarray, radius: float, percent: float) -> Volume:
    """The image after the growth: where each of its points comes from is known in closed form."""
    points = image.grid.nodes()
    away = points - centre
    r = np.linalg.norm(away, axis=-1)
    factor = (1 + percent / 100) ** (1 / 3)  # of lengths in the ball
    reach = factor * radius  # of the ball after it has grown
    fall = np.clip((r - reach) / FALL, 0, 1)
    # How far a point at r was moved, times r: (factor − 1) / factor in the ball, none far away.
    share = (1 - 1 / factor) * (0.5 + 0.5 * np.cos(np.pi * fall))
    displacement = np.moveaxis(-away * share[..., None], -1, 0).astype(np.float32)
    return resample(as_floats(image), image.grid, Warp(displacement, image.grid))


def noisy(image: Volume, seed: int) -> Volume:
    image = as_floats(image)
    brain = image.data > 0
    noise = np.random.default_rng(seed).normal(0, NOISE * image.data[brain].mean(), brain.shape)
    return replace(image, data=np.where(brain, np.maximum(image.data + noise, 1e-3), 0))


def as_floats(image: Volume) -> Volume:
    return replace(image, data=image.data.astype(np.float32))


def crossed(scans: list[Scan], inside: np.ndarray, far: np.ndarray, model: Model) -> dict[str, str]:
    """Two registrations to MNI152."""
    maps, where = [], None
    for scan in scans:
        found = voxwarp.register(scan, None, model)
        steps = [found.warp, found.affine]
        maps.append(log_jacobians(steps, found.fixed_grid).absolute)
        if where is None:
            where = found
    assert where is not None
    region, beyond = (
        resample(
            Volume(x.astype(np.uint8), scans[0].grid),
            where.fixed_grid,
            where.transform,
            interpolation="nearest",
        ).data
        for x in (inside, far)
    )
    volumes = [label_volumes(region, [1], one, 1.0)[0] for one in maps]
    ratio = np.exp(maps[1] - maps[0])[beyond != 0] - 1
    return said(100 * (volumes[1] / volumes[0] - 1), ratio)


def midpoint(
    scans: list[Scan], inside: np.ndarray, far: np.ndarray, model: Model
) -> dict[str, str]:
    """The change at the midpoint, brought back to the first scan."""
    found = change(scans[0], scans[1], model.recipe)
    back = resample(found.log_jacobian, scans[0].grid, Chain([found.to_midpoint[0]]))
    ratio = np.exp(back.data) - 1
    return said(100 * ratio[inside].mean(), ratio[far])


def said(percent: float, elsewhere: np.ndarray) -> dict[str, str]:
    return {
        "found_percent": f"{percent:.2f}",
        "elsewhere_percent": f"{100 * np.abs(elsewhere).mean():.2f}",
        "bias_percent": f"{100 * elsewhere.mean():.3f}",
    }


if __name__ == "__main__":
    main()
