"""Three small scans, their pairs, and the files of a benchmark of them."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from brains import Pose

from voxwarp.benchmark.run import RunOptions
from voxwarp.data.pairs import Pair
from voxwarp.evaluation.rows import PAIR_COLUMNS, read_rows
from voxwarp.space.transform import Affine

POSES = {
    "a": Pose(turn=(-4, 3, 6), zoom=0.97, shift=(2, 5, -3)),
    "b": Pose(turn=(6, -5, -7), zoom=1.05, shift=(-4, 1, 4)),
    "c": Pose(turn=(3, 8, 2), shift=(1, -6, 2)),
}
TIMES = "affine_s", "deform_s", "first_s", "whole_s", "memory_mb"
OPTIONS = RunOptions(threads=1, limit=60, alone=False)


def affine_of(pose: Pose) -> Affine:
    """The affine map from the template to the scan."""
    matrix = np.eye(4)
    matrix[:3, 3] = pose(np.zeros(3))
    matrix[:3, :3] = (pose(np.eye(3)) - matrix[:3, 3]).T
    return Affine(matrix).inverse()


def listed(path: Path, keys: list[tuple[str, str]]) -> Path:
    """A table of pairs."""
    facts = "", "_labels", "_landmarks"
    endings = ".nii.gz", "-labels.nii.gz", ".csv"
    lines = [",".join(side + fact for side in ("moving", "fixed") for fact in facts)]
    lines += [",".join(name + ending for name in key for ending in endings) for key in keys]
    path.write_text("\n".join(lines) + "\n")
    return path


def chosen(cohort: SimpleNamespace, *keys: tuple[str, str]) -> list[Pair]:
    return [pair for pair in cohort.pairs if pair.key in keys]


def both_ways(cohort: SimpleNamespace) -> list[Pair]:
    return chosen(cohort, ("a", "b"), ("b", "a"))


Bench = Callable[..., list[dict[str, Any]]]


def count_of(out: Path, method: str) -> list[str]:
    """The pairs on which a method ran, in order."""
    return (out / "transforms" / method / "count.txt").read_text().split()


def untimed(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k not in TIMES} for row in rows]


def in_file(out: Path) -> list[dict[str, Any]]:
    return read_rows(out / "pairs.csv", PAIR_COLUMNS)


def statuses(rows: list[dict[str, Any]]) -> dict[tuple[str, str], str]:
    return {(row["moving"], row["fixed"]): row["status"] for row in rows}
