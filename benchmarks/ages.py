"""Brains of other sizes and shapes than those of young adults, simulated by known deformations.

    python benchmarks/ages.py DATA/oasis-malf OUT.csv [--model default]

The two val pairs are registered as they are, and with the moving scan changed:

- ``half``: its voxels are smaller, so that the brain has half its volume, as that of a newborn;
- ``half, inverted``: and bright and dark are exchanged, as unmyelinated white matter does it;
- ``ventricles``: space around the middle of each lateral ventricle is stretched smoothly, which
  enlarges them, as in old age;
- ``half, ventricles``: both.

``ventricles`` is by what factor these are enlarged, relative to the brain. ``dice``
and ``regions`` are Dice-30 and Dice-regions of the moved label map, which went through the same
changes. The deformations are closed forms; no real scan of a newborn or patient is among them.
"""

import argparse
import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
from lesions import VAL, structure_numbers

import voxwarp
from voxwarp.measures.overlap import dice
from voxwarp.networks.model import Model
from voxwarp.preparation.scan import Scan
from voxwarp.space.grid import Grid
from voxwarp.space.resample import resample
from voxwarp.space.transform import Warp

COLUMNS = "pair", "change", "ventricles", "model", "dice", "regions", "folds", "warnings"
LATERAL = 51, 52
STRETCH, REACH = 0.6, 20.0  # of space at the middle, and sigma of where, mm
HALF = 0.5 ** (1 / 3)
NOT_REGIONS = {42, 43, 46, 63, 64, 69, 74}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("oasis", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", default="default")
    options = parser.parse_args()
    model = Model.load(options.model)
    numbers = structure_numbers(options.oasis / "labels.csv")
    with options.out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for moving, fixed in (VAL, VAL[::-1]):
            scans = [
                Scan.read(
                    options.oasis / "t1" / f"{number}.nii.gz",
                    labels=options.oasis / "labels" / f"{number}.nii.gz",
                )
                for number in (moving, fixed)
            ]
            for change in ("none", "half", "half, inverted", "ventricles", "half, ventricles"):
                changed = changed_scan(scans[0], change)
                found = voxwarp.register(changed, scans[1], model)
                moved, target = (x.data for x in (found.warped_labels, found.fixed.labels))
                overlap = dice(numbers[moved], numbers[target])
                regions = dice(moved, target)
                large = {v for v in range(4, 208) if (scans[0].labels.data == v).sum() >= 50}
                large &= {v for v in range(4, 208) if (target == v).sum() >= 50}
                row = {
                    "pair": f"{moving} to {fixed}",
                    "change": change,
                    "ventricles": f"{ventricles(changed) / ventricles(scans[0]):.2f}",
                    "model": found.metrics["model"]["name"],
                    "dice": f"{np.mean(list(overlap.values())):.4f}",
                    "regions": f"{np.mean([regions[v] for v in large - NOT_REGIONS]):.4f}",
                    "folds": found.metrics["jacobian"]["folds_any_difference"],
                    "warnings": len(found.warnings),
                }
                writer.writerow(row)
                file.flush()
                print(row, *found.warnings, flush=True)


def changed_scan(scan: Scan, change: str) -> Scan:
    """The scan, and its labels, after a change."""
    image, labels = scan.image, scan.labels
    if "ventricles" in change:
        warp = stretched(scan)
        image = resample(image, image.grid, warp)
        labels = resample(labels, labels.grid, warp, interpolation="nearest")
    if "inverted" in change:
        bright = np.percentile(image.data[image.data > 0], 99.5)
        data = image.data.astype(np.float32)
        image = replace(image, data=np.where(data > 0, np.clip(1.02 * bright - data, 1, None), 0))
    if "half" in change:
        scale = np.diag([HALF, HALF, HALF, 1.0])
        grid = Grid(image.grid.shape, scale @ image.grid.affine)
        image, labels = replace(image, grid=grid), replace(labels, grid=grid)
    return Scan(image, labels)


def stretched(scan: Scan) -> Warp:
    """The map from the changed scan to the scan: towards the middles of the lateral ventricles."""
    points = scan.grid.nodes()
    displacement = np.zeros_like(points)
    for value in LATERAL:
        middle = scan.grid.to_world(np.argwhere(scan.labels.data == value).mean(axis=0))
        away = points - middle
        near = np.exp(-(away**2).sum(axis=-1, keepdims=True) / (2 * REACH**2))
        displacement -= STRETCH * near * away
    return Warp(np.moveaxis(displacement, -1, 0).astype(np.float32), scan.grid)


def ventricles(scan: Scan) -> float:
    """Share of the labelled brain that the lateral ventricles have."""
    return float(np.isin(scan.labels.data, LATERAL).sum() / (scan.labels.data > 0).sum())


if __name__ == "__main__":
    main()
