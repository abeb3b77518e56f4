"""Rows of methods on a few subjects, for tables and figures."""

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np

from voxwarp.data.pairs import Pair, PairScan
from voxwarp.evaluation.result_files import failed_row
from voxwarp.evaluation.results import Results
from voxwarp.evaluation.rows import PAIR_COLUMNS, STRUCTURE_COLUMNS, Row, write_rows

SUBJECTS = ("p", "q", "r")
PAIRS = [*itertools.permutations(SUBJECTS, 2)]
STRUCTURES = ("cortex_L", "cortex_R", "brain_stem", "3rd_ventricle")


def pair(method: str, moving: str, fixed: str, **more: Any) -> Row:
    """An "ok" row; a scan has the name of its subject, or is "p2", the second scan of p."""
    subjects = moving[0], fixed[0]
    row: Row = dict.fromkeys(PAIR_COLUMNS, math.nan)
    row |= {"method": method, "moving": moving, "fixed": fixed, "status": "ok", "reason": ""}
    row |= {"moving_subject": subjects[0], "fixed_subject": subjects[1], "labels": "nearest"}
    row |= {"kind": "inter" if len({*subjects}) == 2 else "retest", "device": "cpu", "timed": "no"}
    return row | {"threads": 2.0} | more


def structures(row: Row, dice: dict[str, float]) -> list[Row]:
    about = {c: row[c] for c in STRUCTURE_COLUMNS if c in PAIR_COLUMNS}
    return [about | {"structure": name, "dice": value} for name, value in dice.items()]


def save(results: Results, folder: Path) -> Path:
    """A folder of results."""
    write_rows(folder / "pairs.csv", PAIR_COLUMNS, results.pairs)
    write_rows(folder / "structures.csv", STRUCTURE_COLUMNS, results.structures)
    return folder


def cohort(*methods: str, seed: int = 0, **more: Any) -> Results:
    """Methods on every ordered pair of three subjects and on the two scans of each, all timed."""
    random = np.random.default_rng(seed)
    scans = PAIRS + [pair for p in SUBJECTS for pair in ((p, f"{p}2"), (f"{p}2", p))]
    pairs, of_structures = [], []
    for i, method in enumerate(methods):
        for moving, fixed in scans:
            seconds = 0 if method == "affine" else 2.0 * 3**i + random.random()
            row = pair(method, moving, fixed, deform_s=seconds, whole_s=seconds + 5, timed="yes")
            dice = dict(zip(STRUCTURES, random.uniform(0.4, 0.9, 4), strict=True))
            pairs.append(row | {"dice": float(np.mean([*dice.values()]))} | more)
            of_structures += structures(pairs[-1], dice)
    return Results(pairs, of_structures)


def timed(method: str, number: int, deform: float, whole: float, **more: Any) -> Row:
    """The row of a timed pair."""
    return pair(method, *PAIRS[number], deform_s=deform, whole_s=whole, timed="yes") | more


def stopped(method: str, number: int, limit: str, **more: Any) -> Row:
    """The row of a timed pair that was stopped at its time limit."""
    reason = f"stopped after {limit} s"
    return (
        timed(method, number, math.nan, math.nan)
        | {"status": "time limit", "reason": reason}
        | more
    )


def plain_row(**more: Any) -> Row:
    """A row of the pair a, b without a method's own columns, with the numbers that are printed."""
    row = failed_row(Pair(PairScan("a", Path("a")), PairScan("b", Path("b"))), "ok", "", "nearest")
    return {**row, "method": "m", "folds": 31, "local_ncc": 0.5, **more}
