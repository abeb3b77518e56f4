"""Score a model on oasis-malf: Dice and folds of pairs of subjects, between their native scans.

    python benchmarks/evaluate_pairs.py DATA/oasis-malf MODEL ROWS.csv [split ...]

The protocol: every ordered pair of different subjects of a split; moving labels resampled once
onto the grid of the fixed scan by nearest neighbour. Dice-30 is the mean over the 30 structures of
labels.csv; Dice-regions is the mean over the label values from 4 to 207 with at least 50 voxels in
both maps (without 42, 43, 46, 63, 64, 69, 74). The affine map of each scan is computed once.

``voxwarp evaluate`` grew from this script; tests compare the two.
"""

import csv
import itertools
import sys
from pathlib import Path

import numpy as np
import torch

from voxwarp.data.sources import Structures
from voxwarp.data.structures import Table, structures_of
from voxwarp.measures.deformation import jacobian_statistics
from voxwarp.measures.overlap import dice
from voxwarp.networks.model import Model
from voxwarp.preparation.scan import Prepared, Scan
from voxwarp.registration.deform import compute_deformation, on_fixed_grid
from voxwarp.space.resample import resample
from voxwarp.space.transform import Chain
from voxwarp.space.volume import Volume

NOT_REGIONS = {42, 43, 46, 63, 64, 69, 74}
COLUMNS = [
    "split",
    "moving",
    "fixed",
    "method",
    "dice_30",
    "dice_regions",
    "folds",
    "folds_percent",
]


def main() -> None:
    oasis, name, out = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    model, table = Model.load(name), structures(oasis / "labels.csv")
    rows = []
    for split in sys.argv[4:] or ["val", "test"]:
        subjects = {
            r["id"]: r.get("subject") or r["person"]  # "person" in older copies of the data
            for r in read_table(oasis / "subjects.csv")
            if r["split"] == split
        }
        scans = {i: load(oasis, i, model) for i in subjects}
        pairs = [p for p in itertools.permutations(subjects, 2) if subjects[p[0]] != subjects[p[1]]]
        for moving, fixed in pairs:
            for row in score(scans[moving], scans[fixed], model, table):
                rows.append({"split": split, "moving": moving, "fixed": fixed, **row})
                print(*rows[-1].values(), flush=True)
    with open(out, "w", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    summary(rows)


def read_table(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as stream:
        return list(csv.DictReader(stream))


def structures(path: Path) -> Table:
    """The 30 structures, numbered in alphabetical order, and the label values of each."""
    return structures_of(Structures(table=str(path)), lambda split: set())


def load(oasis: Path, scan: str, model: Model) -> tuple[Volume, Volume, Prepared]:
    image, labels = (oasis / kind / f"{scan}.nii.gz" for kind in ("t1", "labels"))
    read = Scan.read(image, labels=labels)
    assert read.labels is not None
    examination = read.examined(model.recipe, cache=False)
    return read.image, read.labels, read.prepared(model.recipe, examination)


def score(moving, fixed, model: Model, table: Table) -> list[dict[str, object]]:
    """Rows of the affine map alone and of the model, for scans from ``load``."""
    image, labels, f = fixed
    affine = moving[2].template_to_scan.after(f.template_to_scan.inverse())
    answer = compute_deformation(model, moving=moving[2], fixed=f, device=torch.device("cpu"))
    warp = on_fixed_grid(answer.displacement, model, f, image.grid)
    folds = jacobian_statistics(warp, image.data != 0)
    regions = large_regions(moving[1].data, labels.data)
    rows = []
    for method, chain in (("affine", Chain([affine])), (model.name, Chain([warp, affine]))):
        moved = resample(moving[1], image.grid, chain, interpolation="nearest").data
        rows.append(
            {
                "method": method,
                "dice_30": round(dice_30(moved, labels.data, table), 5),
                "dice_regions": round(dice_regions(moved, labels.data, regions), 5),
                "folds": 0 if method == "affine" else folds["folds"],
                "folds_percent": 0.0 if method == "affine" else round(folds["folds_percent"], 5),
            }
        )
    return rows


def dice_30(moved: np.ndarray, fixed: np.ndarray, table: Table) -> float:
    return float(np.mean(list(dice(table.numbered(moved), table.numbered(fixed)).values())))


def dice_regions(moved: np.ndarray, fixed: np.ndarray, regions: list[int]) -> float:
    of_values = dice(moved, fixed)
    return float(np.mean([of_values[value] for value in regions]))


def large_regions(moving: np.ndarray, fixed: np.ndarray) -> list[int]:
    """The values from 4 to 207 with at least 50 voxels in both maps, before any warping."""
    sizes = [np.bincount(x.ravel(), minlength=208) for x in (moving, fixed)]
    values = (v for v in range(4, 208) if v not in NOT_REGIONS)
    return [v for v in values if min(size[v] for size in sizes) >= 50]


def summary(rows: list[dict]) -> None:
    for split, method in dict.fromkeys((r["split"], r["method"]) for r in rows):
        chosen = [r for r in rows if (r["split"], r["method"]) == (split, method)]
        means = {c: np.mean([r[c] for r in chosen]) for c in COLUMNS[4:]}
        print(
            f"{split} {method}: {len(chosen)} pairs, Dice-30 {means['dice_30']:.4f}, "
            f"Dice-regions {means['dice_regions']:.4f}, folds {means['folds_percent']:.5f} %"
        )


if __name__ == "__main__":
    main()
