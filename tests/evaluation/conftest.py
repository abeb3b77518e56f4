"""A small model, a study and its evaluation; rows of a comparison."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from crop_study import PROTOCOL, pairs_of, write_study
from result_rows import PAIRS, pair

from voxwarp.data.pairs import Pair
from voxwarp.evaluation.evaluate import evaluate
from voxwarp.evaluation.results import Results
from voxwarp.evaluation.rows import Row
from voxwarp.networks.model import Model, Recipe
from voxwarp.runtime import ProgressCallback, Runtime
from voxwarp.space.grid import Grid


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pyramid of random weights for crops that the header places: a registration in 60 ms."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        recipe = Recipe(Grid((24, 24, 24), np.eye(4)), 100, "header")
        model = Model.build({"name": "pyramid", "channels": [4, 8]}, recipe)
        for level, scale in enumerate((0.01, 0.1)):
            torch.nn.init.normal_(model.network.residual[level][-1].weight, std=scale)
    folder = tmp_path_factory.mktemp("models") / "small"
    model.save(folder)
    return folder


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Three labelled crops of two subjects: three couples of pairs, one of them a retest."""
    return write_study(tmp_path)


@pytest.fixture(scope="module")
def whole(small_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an evaluation of the study that was not interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    evaluate(pairs_of(write_study(folder)), small_model, folder / "out", protocol=PROTOCOL)
    return folder / "out"


@pytest.fixture
def run(study: Path, small_model: Path, tmp_path: Path) -> Callable[..., list[Row]]:
    """``evaluate`` of the study with the small model, into a folder by name."""

    def evaluated(
        out: str = "out",
        pairs: list[Pair] | None = None,
        progress: ProgressCallback | None = None,
        device: str = "auto",
        **more: Any,
    ) -> list[Row]:
        pairs = pairs_of(study) if pairs is None else pairs
        given = {"protocol": PROTOCOL, "runtime": Runtime(device, progress=progress)} | more
        return evaluate(pairs, small_model, tmp_path / out, **given)

    return evaluated


@pytest.fixture
def small() -> Results:
    """Two methods by hand: one timed twice, one that failed once; and one that never ended."""
    dice = [0.7, 0.8, 0.9, 0.6, 0.7, 0.8]
    ours = [
        pair("ours", *ij, dice=d, dice_regions=d - 0.2, hd95_mm=2.0, folds=i, memory_mb=100 + i)
        | {"folds_percent": 0.0001, "deform_s": 9.0, "whole_s": 20.0}
        for i, (ij, d) in enumerate(zip(PAIRS, dice, strict=True))
    ]
    for row, seconds in zip(ours, (1.0, 4.0), strict=False):
        row |= {"timed": "yes", "deform_s": seconds, "whole_s": 10 * seconds}
    theirs = [pair("theirs", *ij, dice=d - 0.1) for ij, d in zip(PAIRS, dice, strict=True)]
    theirs[5] |= {"status": "failed", "reason": "out of memory", "dice": math.nan}
    slow = [pair("slow", "p", "q", status="time limit", reason="stopped after 1800 s")]
    return Results(ours + theirs + slow, [])
