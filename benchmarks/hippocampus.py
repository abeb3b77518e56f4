"""Score a model of configs/hippocampus.yaml on its test subjects, and greedy on the same pairs.

    voxwarp train configs/hippocampus.yaml -o RUN
    python benchmarks/hippocampus.py RUN ROWS.csv

30 ordered pairs of test subjects, evenly chosen; Dice of the anterior and the posterior part, with
moving labels resampled once by nearest neighbour. All methods start with the middles of the crops
on each other; `none` stops there. greedy has the settings used for brains (NCC 2x2x2, 100x50x10)
and runs with and without its affine stage.
"""

import csv
import itertools
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import picsl_greedy

import voxwarp
from voxwarp.measures.deformation import jacobian_statistics
from voxwarp.measures.overlap import dice
from voxwarp.space.formats import read_warp
from voxwarp.space.resample import resample
from voxwarp.space.transform import Affine, Chain, Transform, Warp
from voxwarp.space.volume import Volume, read_labels, read_volume

PAIRS = 30
LABELS = {1: "anterior", 2: "posterior"}


def main() -> None:
    run, out = Path(sys.argv[1]), Path(sys.argv[2])
    test = json.loads((run / "data.json").read_text())["scans"]["test"]
    pairs = list(itertools.permutations(test, 2))
    chosen = [pairs[k * len(pairs) // PAIRS] for k in range(min(PAIRS, len(pairs)))]
    rows = [row for moving, fixed in chosen for row in score(moving, fixed, run)]
    with open(out, "w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    for method in dict.fromkeys(r["method"] for r in rows):
        chosen_rows = [r for r in rows if r["method"] == method]
        means = {
            k: np.mean([r[k] for r in chosen_rows]) for k in (*LABELS.values(), "folds", "seconds")
        }
        print(method, len(chosen_rows), {k: round(float(v), 4) for k, v in means.items()})


def score(moving: dict, fixed: dict, run: Path) -> list[dict[str, object]]:
    image, target = (read_volume(s["path"]) for s in (moving, fixed))
    labels, target_labels = (
        read_labels(s["labels"], v) for s, v in ((moving, image), (fixed, target))
    )
    rows = []
    for method, register in METHODS.items():
        start = time.perf_counter()
        transform, warp = register(moving["path"], fixed["path"], image, target, run)
        seconds = time.perf_counter() - start
        moved = resample(labels, target.grid, transform, interpolation="nearest").data
        each = dice(moved, target_labels.data)
        everywhere = np.ones(target.grid.shape, dtype=bool)
        folds = jacobian_statistics(warp, everywhere)["folds"] if warp else 0
        rows.append(
            {
                "method": method,
                "moving": Path(moving["path"]).name,
                "fixed": Path(fixed["path"]).name,
            }
            | {name: round(each.get(value, 0.0), 5) for value, name in LABELS.items()}
            | {"folds": folds, "seconds": round(seconds, 3)}
        )
    return rows


Result = tuple[Transform, Warp | None]


def centred(moving: Volume, fixed: Volume) -> Affine:
    """The shift from the fixed to the moving scan that puts their middles on each other."""
    middles = [v.grid.to_world((np.asarray(v.grid.shape) - 1) / 2) for v in (moving, fixed)]
    matrix = np.eye(4)
    matrix[:3, 3] = middles[0] - middles[1]
    return Affine(matrix)


def none(_m: str, _f: str, moving: Volume, fixed: Volume, _run: Path) -> Result:
    return centred(moving, fixed), None


def ours(m: str, f: str, _moving: Volume, _fixed: Volume, run: Path) -> Result:
    result = voxwarp.register(m, f, run)
    return result.transform, result.warp


def greedy(*, affine: bool):
    def register(m: str, f: str, moving: Volume, fixed: Volume, _run: Path) -> Result:
        with tempfile.TemporaryDirectory() as folder:
            matrix = f"{folder}/start.mat"
            np.savetxt(matrix, centred(moving, fixed).matrix)
            tool = picsl_greedy.Greedy3D()
            if affine:
                tool.execute(
                    f"-d 3 -a -dof 12 -m NCC 2x2x2 -n 100x50x10 -i {f} {m} -o {folder}/affine.mat "
                    f"-ia {matrix}"
                )
                matrix = f"{folder}/affine.mat"
            tool.execute(
                f"-d 3 -m NCC 2x2x2 -n 100x50x10 -i {f} {m} -it {matrix} -o {folder}/warp.nii.gz"
            )
            warp = read_warp(f"{folder}/warp.nii.gz")
            return Chain([warp, Affine(np.loadtxt(matrix))]), warp

    return register


METHODS = {
    "none": none,
    "voxwarp": ours,
    "greedy, deformable": greedy(affine=False),
    "greedy, affine and deformable": greedy(affine=True),
}

if __name__ == "__main__":
    main()
