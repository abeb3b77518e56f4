"""Make the compact training set of the shipped model: aligned scans of two sites in one .npz.

    python benchmarks/prepare_training_set.py DATA PREPARED.npz

DATA holds ``oasis-malf/`` (T1 scans, expert labels, a split by person) and ``ds002748/t1/``.
Images become 64 grey levels, which compresses 46 brains to some 50 MB; test scans stay out.
"""

import csv
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from voxwarp.model import WORKING_GRID, Recipe
from voxwarp.prepare import prepare
from voxwarp.resample import resample
from voxwarp.volume import Volume, read_labels, read_volume


def main() -> None:
    data, out = Path(sys.argv[1]), Path(sys.argv[2])
    oasis = data / "oasis-malf"
    rows = read_table(oasis / "subjects.csv")
    split = {s: [r["id"] for r in rows if r["split"] == s] for s in ("train", "val")}
    train = [oasis / "t1" / f"{i}.nii.gz" for i in split["train"]]
    train += sorted((data / "ds002748" / "t1").glob("*.nii.gz"))
    val = [oasis / "t1" / f"{i}.nii.gz" for i in split["val"]]
    table = structures(oasis / "labels.csv")
    with ProcessPoolExecutor(2) as pool:
        images = list(pool.map(image, train))
        pairs = list(pool.map(labelled, val, [table] * len(val)))
    np.savez_compressed(
        out,
        images=np.stack(images + [p[0] for p in pairs]),
        labels=np.stack([p[1] for p in pairs]),
        train=np.arange(len(train)),
        val=np.arange(len(train), len(train) + len(val)),
        affine=WORKING_GRID.affine,
        names=np.array([p.name for p in train + val]),
    )


def read_table(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as stream:
        return list(csv.DictReader(stream))


def structures(path: Path) -> np.ndarray:
    """Lookup from label value to the structure's number, 1..30 in alphabetical order, else 0."""
    rows = [r for r in read_table(path) if r["structure"]]
    names = sorted({r["structure"] for r in rows})
    table = np.zeros(1000, dtype=np.uint8)
    for row in rows:
        table[int(row["value"])] = names.index(row["structure"]) + 1
    return table


def image(path: Path) -> np.ndarray:
    """The prepared scan, uint8, 64 grey levels."""
    prepared = prepare(read_volume(path), Recipe())
    return quantised(prepared.image.numpy())


def labelled(path: Path, table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The prepared scan and its structures on the same grid."""
    scan = read_volume(path)
    prepared = prepare(scan, Recipe())
    labels = read_labels(path.parents[1] / "labels" / path.name, scan)
    numbers = Volume(table[labels.data], labels.grid)
    moved = resample(numbers, WORKING_GRID, prepared.template_to_scan, interpolation="nearest")
    return quantised(prepared.image.numpy()), moved.data


def quantised(image: np.ndarray) -> np.ndarray:
    return (np.rint(image * 63) * 4).astype(np.uint8)


if __name__ == "__main__":
    main()
