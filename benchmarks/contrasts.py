"""Scans of other contrasts, made from T1-weighted scans with label maps, as pairs to register.

    python benchmarks/contrasts.py DATA/oasis-malf OUT [--split val] [--first N]
    for c in T1 inverted T2 FLAIR PD T2-5mm; do
        voxwarp benchmark OUT/pairs-$c.csv -o OUT/rows-$c --structures DATA/oasis-malf/labels.csv \\
            --regions 4-41,44-45,47-62,65-68,70-73,75-207 --methods greedy-nmi,none,default --busy
    done
    python benchmarks/contrasts.py --collect ROWS.csv OUT [--split val]

Of each scan of the split, OUT/CONTRAST gets an image of each contrast on the same grid; the label
maps stay where they are. OUT/pairs-CONTRAST.csv holds the pairs of different people, each with its
moving scan in that contrast and its fixed scan in T1, for ``voxwarp benchmark``.

``--collect`` puts the scores of all of them into one table; rows of other splits in it stay.

- ``inverted``: bright and dark exchanged within the brain.
- ``T2``, ``FLAIR``, ``PD``: each tissue has an intensity (``TISSUES``); the tissue of a voxel is
  that of its label, or CSF if it has none and is dark in T1. The map is blurred (partial volume),
  multiplied by a smooth bias of up to 15 %, and noise of 3 % of white is added.
- ``T2-5mm``: the T2 image averaged in axial slices of 5 mm, interpolated back to the grid.

The intensities are neither those of one scanner nor fitted to anything.
"""

import argparse
import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy import ndimage

from voxwarp.space.volume import Volume, read_labels, read_volume, write_volume

# Of white matter, cortex, deep grey matter, CSF, and pallidum and other iron-rich nuclei.
TISSUES = {
    "T2": (0.36, 0.52, 0.48, 1.0, 0.3),
    "FLAIR": (0.55, 0.75, 0.7, 0.1, 0.5),
    "PD": (0.66, 0.82, 0.8, 0.95, 0.6),
}
WHITE, CORTEX, DEEP, CSF, IRON = range(5)
OF_LABEL = {
    **dict.fromkeys((40, 41, 44, 45, 35, 61, 62), WHITE),
    **dict.fromkeys((36, 37, 57, 58, 59, 60, 23, 30, 31, 32, 47, 48, 75, 76), DEEP),
    **dict.fromkeys((4, 11, 15, 46, 49, 50, 51, 52), CSF),
    **dict.fromkeys((55, 56), IRON),
}  # all others are cortex
DARK = 0.35  # of the 99.5th percentile: below, what has no label counts as CSF
BLUR = 0.6  # mm, sigma
SCORES = "dice", "dice_regions", "folds_any"
BIAS, NOISE, THICK = 0.15, 0.03, 5.0


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("oasis", type=Path, nargs="?")
    parser.add_argument("out", type=Path)
    parser.add_argument("--split", default="val")
    parser.add_argument("--first", type=int)
    parser.add_argument("--collect", type=Path)
    options = parser.parse_args()
    if options.collect:
        collect(options.out, options.split, options.collect)
    else:
        make_scans(options)


def collect(folder: Path, split: str, table: Path) -> None:
    """Write the scores of a split to the table, in the place of earlier ones."""
    rows = []
    if table.exists():
        with table.open(encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if row["split"] != split]
    for contrast in ("T1", *CONTRASTS):
        with (folder / f"rows-{contrast}" / "pairs.csv").open(encoding="utf-8") as file:
            for row in csv.DictReader(file):
                names = {side: Path(row[side]).name[-4:] for side in ("moving", "fixed")}
                scores = {name: row[name] for name in SCORES}
                known = {"split": split, "contrast": contrast, "method": row["method"]}
                rows.append({**known, **names, "status": row["status"], **scores})
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def make_scans(options: argparse.Namespace) -> None:
    """Write the images, and the tables of pairs."""
    with (options.oasis / "subjects.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == options.split]
    pairs = [(a, b) for a in rows for b in rows if a["person"] != b["person"]]
    pairs = sorted(pairs, key=lambda pair: sum(map(int, (pair[0]["id"], pair[1]["id"]))))
    pairs = pairs[: options.first]
    for name, make in CONTRASTS.items():
        folder = options.out / name
        folder.mkdir(parents=True, exist_ok=True)
        for number in sorted({moving["id"] for moving, _ in pairs}):
            scan = read_volume(options.oasis / "t1" / f"{number}.nii.gz")
            labels = read_labels(options.oasis / "labels" / f"{number}.nii.gz", scan)
            changed = make(scan, labels, np.random.default_rng(int(number)))
            data = np.rint(1000 * changed).astype(np.int16)
            write_volume(replace(scan, data=data), folder / f"{number}.nii.gz")
        _write_pairs(options, name, pairs)
    _write_pairs(options, "T1", pairs)


def _write_pairs(options: argparse.Namespace, contrast: str, pairs: list) -> None:
    oasis, out = options.oasis.absolute(), options.out.absolute()
    with (out / f"pairs-{contrast}.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["moving", "fixed", "moving_labels", "fixed_labels"])
        for moving, fixed in pairs:
            folder = oasis / "t1" if contrast == "T1" else out / contrast
            names = [f"{one['id']}.nii.gz" for one in (moving, fixed)]
            scans = folder / names[0], oasis / "t1" / names[1]
            writer.writerow([*scans, *(oasis / "labels" / name for name in names)])


def _from_zero_to_one(scan: Volume) -> np.ndarray:
    data = scan.data.astype(np.float32)
    return np.clip(data / np.percentile(data[data > 0], 99.5), 0, 1)


def inverted(scan: Volume, labels: Volume, draw: np.random.Generator) -> np.ndarray:
    image = _from_zero_to_one(scan)
    return np.where(image > 0, 1.02 - image, 0)


def of_tissues(contrast: str) -> Callable[[Volume, Volume, np.random.Generator], np.ndarray]:
    def make(scan: Volume, labels: Volume, draw: np.random.Generator) -> np.ndarray:
        image, numbers = _from_zero_to_one(scan), labels.data.astype(int)
        inside = image > 0
        tissue = np.full(256 if numbers.max() < 256 else numbers.max() + 1, CORTEX)
        for label, kind in OF_LABEL.items():
            tissue[label] = kind
        kinds = np.where(numbers > 0, tissue[numbers], np.where(image < DARK, CSF, CORTEX))
        values = np.asarray(TISSUES[contrast], np.float32)[kinds]
        sigma = BLUR / np.asarray(scan.grid.spacing)
        weight = ndimage.gaussian_filter(inside.astype(np.float32), sigma)
        blurred = ndimage.gaussian_filter(np.where(inside, values, 0), sigma)
        smooth = ndimage.zoom(draw.uniform(-1, 1, (3, 3, 3)), np.array(inside.shape) / 3, order=1)
        noise = NOISE * draw.standard_normal(inside.shape)
        changed = blurred / np.maximum(weight, 1e-3) * np.exp(BIAS * smooth) + noise
        return np.where(inside, np.clip(changed, 0.005, 2), 0)

    return make


def thick(scan: Volume, labels: Volume, draw: np.random.Generator) -> np.ndarray:
    image = of_tissues("T2")(scan, labels, draw)
    axis = int(np.abs(scan.grid.direction[2]).argmax())  # nearest to superior
    size = round(THICK / scan.grid.spacing[axis])
    moved = np.moveaxis(image, axis, 0)
    count = len(moved) // size
    slices = moved[: count * size].reshape(count, size, *moved.shape[1:]).mean(axis=1)
    at = (np.arange(len(moved)) + 0.5) / size - 0.5
    back = ndimage.map_coordinates(
        slices,
        np.meshgrid(at, *(np.arange(n) for n in moved.shape[1:]), indexing="ij"),
        order=1,
        mode="nearest",
    )
    return np.where(image > 0, np.moveaxis(back, 0, axis), 0)


CONTRASTS = {
    "inverted": inverted,
    **{name: of_tissues(name) for name in TISSUES},
    "T2-5mm": thick,
}

if __name__ == "__main__":
    main()
