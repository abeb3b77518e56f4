"""A study of three labelled crops of two subjects, and what its evaluation leaves."""

import json
from pathlib import Path
from typing import Any

from cohorts import table

from training import write_subjects
from voxwarp.data.pairs import Pair, read_pairs
from voxwarp.data.structures import Table
from voxwarp.evaluation.protocol import Protocol
from voxwarp.evaluation.rows import Row

PROTOCOL = Protocol(Table(["a", "b"], {1: 1, 2: 1, 3: 2}))
TIMES = {"affine_s", "deform_s", "whole_s", "memory_mb"}
FILES = {"pairs.csv", "structures.csv", "evaluate.json"}


def write_study(folder: Path) -> Path:
    study = write_subjects(folder / "study", splits=("test",) * 3, spread=0)
    table(study / "subjects.csv", "id,subject\n0,ann\n1,bob\n2,ann\n")
    return study


def pairs_of(study: Path) -> list[Pair]:
    return read_pairs(
        study / "subjects.csv", scan="t1/p{id}.nii.gz", labels="labels/p{id}.nii.gz", split="all"
    )


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def record_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "evaluate.json").read_text(encoding="utf-8"))


def same(a: Any, b: Any) -> bool:
    return a == b or (a != a and b != b)


def differing(first: list[Row], second: list[Row]) -> set[str]:
    """The columns in which rows differ; their order counts."""
    assert [row["fixed"] for row in first] == [row["fixed"] for row in second]
    return {c for a, b in zip(first, second, strict=True) for c in a if not same(a[c], b[c])}
