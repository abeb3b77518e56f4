"""Dice by structure: left and right are joined if both exist."""

import csv
import math
from pathlib import Path

from result_rows import pair

from voxwarp.evaluation.by_structure import dice_by_structure, join_sides
from voxwarp.evaluation.results import Results


def test_left_and_right_are_joined() -> None:
    assert join_sides(
        [
            *("cortex_L", "cortex_R", "brain_stem", "Left-Hippocampus", "Right-Hippocampus"),
            *("ctx-lh-insula", "ctx-rh-insula", "ventral dc (left)", "ventral dc (right)"),
            *("R", "L", "5th_l", "Right vessel", "roar", "x", "left_x", "right_x", "cerebellum_R"),
        ]
    ) == {
        "cortex_L": "cortex",
        "cortex_R": "cortex",
        "brain_stem": "brain_stem",
        "Left-Hippocampus": "Hippocampus",
        "Right-Hippocampus": "Hippocampus",
        "ctx-lh-insula": "ctx-insula",
        "ctx-rh-insula": "ctx-insula",
        "ventral dc (left)": "ventral dc",
        "ventral dc (right)": "ventral dc",
        "R": "R",
        "L": "L",
        "5th_l": "5th_l",  # no other side
        "Right vessel": "Right vessel",
        "roar": "roar",
        "x": "x",
        "left_x": "left_x",  # the name is taken
        "right_x": "right_x",
        "cerebellum_R": "cerebellum_R",
    }


def test_the_30_structures_become_17(data: Path) -> None:
    with open(data / "oasis-malf" / "labels.csv", newline="", encoding="utf-8") as stream:
        names = {row["structure"] for row in csv.DictReader(stream)} - {""}
    joined = set(join_sides(sorted(names)).values())
    assert (len(names), len(joined)) == (30, 17)
    assert {"cortex", "brain_stem", "3rd_ventricle", "vermis"} < joined


def test_dice_of_both_sides_is_their_mean() -> None:
    done, failed = pair("a", "p", "q"), pair("a", "q", "p")
    failed["status"] = "failed"
    of_structures = [
        {c: row[c] for c in ("method", "moving", "fixed")} | {"structure": name, "dice": value}
        for row, name, value in [
            *((done, "cortex_L", 0.5), (done, "cortex_R", 0.7), (done, "stem", math.nan)),
            *((done, "hip_L", 0.1), (done, "hip_R", math.nan), (failed, "stem", 0.3)),
        ]
    ]
    dice = dice_by_structure(Results([done, failed], of_structures))
    assert dice == {"a": {"cortex": [0.6], "hip": [0.1]}}
