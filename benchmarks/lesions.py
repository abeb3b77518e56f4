"""What lesions do to registrations, with and without their masks.

    python benchmarks/lesions.py DATA/oasis-malf OUT.csv [--model default]

Lesions are put into the moving scan of the two val pairs: a ball of 12 mm radius and an uneven
region of about 40 mm across, in the white matter of the right frontal lobe; dark (like old
infarcts), bright, or missing (zero, like a resection). Each pair is registered untouched, with the
lesion and its mask, and with the lesion and no mask.

- ``dice``: of the 30 structures, voxels apart that the lesion covers after the transform of the
  untouched pair, the same voxels in all rows of a pair.
- ``ring_mm``: mean distance from the truth in the ring of 10 mm around the lesion. The truth is
  known for the rows of the pair "1104 bent": the fixed scan is the moving scan itself, bent by a
  smooth displacement of a few millimetres.
- ``untouched_mm``: mean distance in that ring from the registration of the untouched pair.
- ``folds``: voxels of the fixed brain where the determinant is not positive, by any differences.
- ``change``: by which share the deformation changes the volume of the lesion.
"""

import argparse
import csv
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy import ndimage

import voxwarp
from voxwarp.measures.overlap import dice
from voxwarp.networks.model import Model
from voxwarp.preparation.scan import Scan
from voxwarp.space.resample import resample
from voxwarp.space.transform import Warp
from voxwarp.space.volume import Volume

COLUMNS = "pair", "shape", "content", "way", "dice", "ring_mm", "untouched_mm", "folds", "change"
VAL = "1104", "1125"
CENTRE = np.array([28.0, 30.0, 22.0])  # mm in the space of MNI152
RING = 10.0  # mm


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("oasis", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", default="default")
    options = parser.parse_args()
    model = Model.load(options.model)
    numbers = structure_numbers(options.oasis / "labels.csv")
    scans = {
        number: Scan.read(
            options.oasis / "t1" / f"{number}.nii.gz",
            labels=options.oasis / "labels" / f"{number}.nii.gz",
        )
        for number in VAL
    }
    with options.out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for row in rows(scans, model, numbers):
            writer.writerow(row)
            file.flush()
            print(*row.values(), flush=True)


def structure_numbers(table: Path) -> np.ndarray:
    """The number of the structure of each label value; 0 for values of none."""
    with table.open(encoding="utf-8") as file:
        named = {int(row["value"]): row["structure"] for row in csv.DictReader(file)}
    structures = sorted({name for name in named.values() if name})
    numbers = np.zeros(max(named) + 1, np.uint8)
    for value, name in named.items():
        numbers[value] = structures.index(name) + 1 if name else 0
    return numbers


def rows(scans: dict[str, Scan], model: Model, numbers: np.ndarray) -> Iterator[dict[str, object]]:
    a, b = (scans[number] for number in VAL)
    bent, truth = bend(a)
    cases = [
        ("1104 to 1125", a, b, None),
        ("1125 to 1104", b, a, None),
        ("1104 bent", a, bent, truth),
    ]
    for name, moving, fixed, known in cases:
        untouched = voxwarp.register(moving, fixed, model)
        for shape in ("ball", "uneven"):
            lesion = lesion_of(moving, model, shape)
            common = {"pair": name, "shape": shape}
            seen = seen_by(untouched, lesion)
            yield {
                **common,
                "content": "none",
                "way": "untouched",
                **scores(untouched, untouched, seen, known, numbers),
            }
            for content in ("dark", "bright", "missing"):
                hurt = replace(filled_with(moving, lesion, content), _examined={}, _prepared={})
                marked = replace(hurt, lesion=lesion, _examined={}, _prepared={})
                for way, scan in (("mask", marked), ("no mask", hurt)):
                    found = voxwarp.register(scan, fixed, model)
                    yield {
                        **common,
                        "content": content,
                        "way": way,
                        **scores(found, untouched, seen, known, numbers),
                        "change": (found.metrics["lesions"] or {})
                        .get("moving", {})
                        .get("change", ""),
                    }


def bend(scan: Scan) -> tuple[Scan, Warp]:
    """The scan bent by a smooth displacement, and the map from the bent scan to the scan."""
    grid = scan.grid
    points = np.moveaxis(grid.nodes(), -1, 0)
    waves = [
        np.sin(points[(i + 1) % 3] / 17 + i) * np.cos(points[(i + 2) % 3] / 23) for i in range(3)
    ]
    warp = Warp((2.5 * np.stack(waves)).astype(np.float32), grid)
    image = resample(scan.image, grid, warp)
    assert scan.labels is not None
    labels = resample(scan.labels, grid, warp, interpolation="nearest")
    return Scan(replace(image, name=f"{scan.name}, bent"), labels), warp


def lesion_of(scan: Scan, model: Model, shape: str) -> Volume:
    """A mask on the grid of the scan, around the same place of the template."""
    to_scan = scan.examined(model.recipe).template_to_scan
    middle = to_scan.map(CENTRE[None])[0]
    away = scan.grid.nodes() - middle
    radius = 12.0
    if shape == "uneven":
        draw = np.random.default_rng(7).uniform(-1, 1, (9, 9, 9))
        size = np.array(scan.grid.shape) / 9
        radius = 19 * (1 + 0.6 * ndimage.zoom(draw, size, order=1))
    inside = (np.linalg.norm(away, axis=-1) < radius) & (scan.image.data > 0)
    return Volume(inside.astype(np.uint8), scan.grid, "lesion")


def filled_with(scan: Scan, lesion: Volume, content: str) -> Scan:
    data = scan.image.data.astype(np.float32)
    white = np.percentile(data[data > 0], 95)
    value = {"dark": 0.2 * white, "bright": 1.3 * white, "missing": 0.0}[content]
    noise = 0.05 * white * np.random.default_rng(0).standard_normal(data.shape)
    inside = lesion.data > 0
    data[inside] = np.where(content == "missing", 0, np.maximum(value + noise, 1))[inside]
    return replace(scan, image=replace(scan.image, data=data))


def seen_by(untouched: voxwarp.Registration, lesion: Volume) -> tuple[np.ndarray, np.ndarray]:
    """Where the lesion is on the fixed grid, and the ring around it, within the brain."""
    inside = (
        resample(lesion, untouched.fixed_grid, untouched.transform, interpolation="nearest").data
        > 0
    )
    distance = ndimage.distance_transform_edt(~inside, sampling=untouched.fixed_grid.spacing)
    brain = untouched.fixed.image.data > 0
    return inside, (distance > 0) & (distance < RING) & brain


def scores(
    found: voxwarp.Registration,
    untouched: voxwarp.Registration,
    seen: tuple[np.ndarray, np.ndarray],
    known: Warp | None,
    numbers: np.ndarray,
) -> dict[str, object]:
    inside, ring = seen
    assert untouched.warped_labels is not None
    assert found.warped_labels is not None
    assert found.fixed.labels is not None
    moved, fixed = (np.where(inside, 0, x.data) for x in (found.warped_labels, found.fixed.labels))
    overlap = dice(numbers[moved], numbers[fixed])
    points = found.fixed_grid.to_world(np.argwhere(ring)[::5])
    where = found.transform.map(points)
    row: dict[str, object] = {
        "dice": f"{np.mean(list(overlap.values())):.4f}",
        "untouched_mm": f"{_mean_distance(where, untouched.transform.map(points)):.3f}",
        "folds": found.metrics["jacobian"]["folds_any_difference"],
    }
    if known is not None:
        row["ring_mm"] = f"{_mean_distance(where, known.map(points)):.3f}"
    return row


def _mean_distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a - b, axis=1).mean())


if __name__ == "__main__":
    main()
