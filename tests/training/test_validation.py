"""Scores of a network on subjects it has not learnt from, against fields made by hand."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from phantoms import label_map, smooth_field
from torch import Tensor, nn

from voxwarp.data.scans import ScanRecord
from voxwarp.errors import InputError
from voxwarp.fields import losses
from voxwarp.measures.deformation import jacobian_statistics
from voxwarp.measures.overlap import dice as dice_of
from voxwarp.networks.deformation import Deformation
from voxwarp.networks.model import Model
from voxwarp.preparation.recipe import Recipe
from voxwarp.space.grid import Grid
from voxwarp.space.transform import Warp
from voxwarp.training.cohort import Cohort
from voxwarp.training.config import Config, Phase, build_config
from voxwarp.training.objective import Objective
from voxwarp.training.validation import Validator, is_better, mean_dice

SHAPE = (12, 16, 20)
CPU = torch.device("cpu")
FULL = Phase(steps=1)


@pytest.fixture
def make_cohort(tmp_path: Path) -> Callable[..., Cohort]:
    """A cohort of one-letter subjects; capital ones have labels, 1 to 3."""

    def make(subjects: str, val: str | None = None, empty: str = "") -> Cohort:
        scans, files = [], []
        for i, subject in enumerate(subjects):
            image = np.random.default_rng(i).integers(1, 256, SHAPE, dtype=np.uint8)
            image[:, :, : 2 + i % 3] = 0
            labels = label_map(i, SHAPE, (1, 2, 3)).astype(np.uint8) * (subject not in empty)
            paths = tmp_path / f"{i}.npy", tmp_path / f"{i}.labels.npy"
            np.save(paths[0], image)
            np.save(paths[1], labels)
            split = "val" if val is None or subject in val else "train"
            scans.append(ScanRecord(paths[0], None, subject.lower(), "set", split, f"row {i}"))
            files.append((paths[0], paths[1] if subject.isupper() else None))
        grid = Grid(SHAPE, np.eye(4))
        return Cohort(scans, Recipe(grid), ["a", "b", "c"], np.arange(4), [], files)

    return make


class Moves(nn.Module):
    """A network that always answers with one displacement, (1, 3, X, Y, Z) or three numbers."""

    def __init__(self, displacement: Tensor | tuple[float, float, float]):
        super().__init__()
        self.displacement = torch.as_tensor(displacement).float()

    def forward(self, moving: Tensor, fixed: Tensor) -> Deformation:
        u = self.displacement
        if u.ndim == 1:
            u = u.view(1, 3, 1, 1, 1).expand(len(moving), 3, *moving.shape[2:]).contiguous()
        return Deformation(u, u)


def model_of(displacement: Any) -> Model:
    return Model(Moves(displacement), {"name": "voxelmorph"}, Recipe(Grid(SHAPE, np.eye(4))))


def config_of(pairs: int = 100, **more: Any) -> Config:
    tree = {"data": {"sources": [{"folder": "/x"}]}, "validation": {"pairs": pairs}}
    losses = {"mse": {"weight": 2}, "diffusion": {}}
    return build_config({**tree, "losses": losses, "precision": "float32", **more})


def validator_of(cohort: Cohort, config: Config | None = None, **more: Any) -> Validator:
    config = config or config_of()
    return Validator(config, cohort, CPU, Objective(config, 3), **more)


def shifted(array: np.ndarray, shift: tuple[int, ...]) -> np.ndarray:
    """array(x + shift), zero outside."""
    out = np.zeros_like(array)
    here = tuple(slice(max(0, -s), n - max(0, s)) for s, n in zip(shift, array.shape, strict=True))
    there = tuple(slice(max(0, s), n - max(0, -s)) for s, n in zip(shift, array.shape, strict=True))
    out[here] = array[there]
    return out


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.mean(list(dice_of(a, b).values())))


# ---------------------------------------------------------------------------------------- Pairs


def test_pairs_are_all_ordered_ones_of_different_subjects_of_val(make_cohort) -> None:
    pairs = validator_of(make_cohort("aabcdx", val="abc")).pairs
    expected = {(i, j) for i, j in itertools.product(range(4), repeat=2) if i != j}
    assert set(pairs) == expected - {(0, 1), (1, 0)}
    assert len(set(pairs)) == len(pairs)


@pytest.mark.parametrize("number", [1, 2, 6, 7, 19, 20, 21])
def test_so_many_pairs_are_evenly_chosen(make_cohort, number: int) -> None:
    cohort = make_cohort("abcde")
    every = validator_of(cohort).pairs
    pairs = validator_of(cohort, config_of(number)).pairs
    assert len(set(pairs)) == len(pairs) == min(number, 20)
    places = [every.index(pair) for pair in pairs]
    steps = np.diff([*places, places[0] + 20])
    assert steps.max() - steps.min() <= 1


def test_without_subjects_of_val_there_are_no_scores(make_cohort) -> None:
    for cohort in (make_cohort("abc", val=""), make_cohort("aab", val="a")):
        validator = validator_of(cohort)
        assert validator(model_of((1, 0, 0)), FULL) == {}
        assert validator.scores_before() == {}
        assert validator.pictures(model_of((1, 0, 0)), FULL) is None


def test_with_an_atlas_each_scan_moves_onto_it(make_cohort) -> None:
    cohort = make_cohort("ABx", val="AB")
    image = torch.rand(1, *SHAPE)
    numbers = torch.from_numpy(label_map(9, SHAPE, (1, 2, 3)).astype(np.uint8))
    settings = {"mode": "atlas", "atlas": "/atlas.nii"}
    validator = validator_of(cohort, config_of(sampling=settings), atlas=(image, numbers))
    assert validator.pairs == [(0, None), (1, None)]
    scores = validator(model_of((0, 0, 0)), FULL)
    found = [overlap(np.asarray(cohort.labels(i)), numbers.numpy()) for i in (0, 1)]
    assert scores["val_dice"] == pytest.approx(np.mean(found), abs=1e-6)
    assert validator.scores_before() == {"val_dice": pytest.approx(np.mean(found), abs=1e-6)}
    moving = [torch.from_numpy(cohort.image(i) / np.float32(255)) for i in (0, 1)]
    expected = 2 * np.mean([float(losses.mse(moved=m, fixed=image[0])) for m in moving])
    assert scores["val_loss"] == pytest.approx(expected, rel=1e-5)


# ---------------------------------------------------------------------------------------- Scores


def test_scores_of_a_shift(make_cohort) -> None:
    """By shifting arrays: nearest neighbours of labels, no folds, the length of the shift."""
    cohort, shift = make_cohort("AB"), (1, 0, -2)
    validator = validator_of(cohort)
    scores = validator(model_of(shift), FULL)
    labels = [np.asarray(cohort.labels(i)) for i in (0, 1)]
    images = [cohort.image(i) / np.float32(255) for i in (0, 1)]
    dice = [overlap(shifted(labels[i], shift), labels[j]) for i, j in ((0, 1), (1, 0))]
    errors = [np.mean((shifted(images[i], shift) - images[j]) ** 2) for i, j in ((0, 1), (1, 0))]
    assert scores["val_dice"] == pytest.approx(np.mean(dice), abs=1e-6)
    assert scores["val_loss"] == pytest.approx(2 * np.mean(errors), rel=1e-5)
    assert scores["val_motion"] == pytest.approx(5**0.5, rel=1e-6)
    assert scores["val_folds_percent"] == 0
    assert set(scores) == {"val_dice", "val_loss", "val_motion", "val_folds_percent"}
    before = np.mean([overlap(*labels), overlap(*reversed(labels))])
    assert validator.scores_before() == {"val_dice": pytest.approx(before, abs=1e-6)}
    assert abs(before - scores["val_dice"]) > 1e-3


def test_folds_and_motion_count_where_the_fixed_image_is(make_cohort) -> None:
    cohort = make_cohort("ab")
    u = smooth_field(1, SHAPE, amplitude=9).float()
    scores = validator_of(cohort)(model_of(u), FULL)
    expected, motion = [], []
    field_of = Warp.from_voxels(u[0], cohort.recipe.grid)
    for fixed in (1, 0):
        brain = cohort.image(fixed) > 0
        expected.append(jacobian_statistics(field_of, brain)["folds_percent"])
        motion.append(np.linalg.norm(u[0].numpy(), axis=0)[brain].mean())
    assert expected[0] != expected[1]
    assert scores["val_folds_percent"] > 1
    assert scores["val_folds_percent"] == pytest.approx(np.mean(expected), rel=1e-4)
    assert scores["val_motion"] == pytest.approx(np.mean(motion), rel=1e-5)
    assert "val_dice" not in scores


@pytest.mark.parametrize("factor", [2, 4])
def test_a_coarse_phase_is_scored_on_the_working_grid(make_cohort, factor: int) -> None:
    """A voxel of the phase is ``factor`` of the scans'."""
    cohort, shift = make_cohort("AB"), (1, 0, -1)
    validator, phase = validator_of(cohort), Phase(steps=1, downsample=factor)
    scores = validator(model_of(shift), phase)
    labels = [np.asarray(cohort.labels(i)) for i in (0, 1)]
    far = tuple(factor * s for s in shift)
    dice = [overlap(shifted(labels[i], far), labels[j]) for i, j in ((0, 1), (1, 0))]
    assert scores["val_dice"] == pytest.approx(np.mean(dice), abs=1e-6)
    assert scores["val_motion"] == pytest.approx(2**0.5, rel=1e-6)


def test_dice_is_of_the_pairs_with_labels(make_cohort) -> None:
    cohort = make_cohort("ABc")
    validator = validator_of(cohort)
    labels = [np.asarray(cohort.labels(i)) for i in (0, 1)]
    scores = validator(model_of((0, 0, 0)), FULL)
    assert scores["val_dice"] == pytest.approx(overlap(*labels), abs=1e-6)
    assert validator.scores_before()["val_dice"] == pytest.approx(overlap(*labels), abs=1e-6)


def test_maps_without_structures_have_no_dice(make_cohort) -> None:
    """Of three subjects, two with empty maps: their pair does not count."""
    cohort = make_cohort("ABC", empty="BC")
    validator = validator_of(cohort)
    assert validator.scores_before() == {"val_dice": 0.0}
    assert validator(model_of((0, 0, 0)), FULL)["val_dice"] == 0
    empty = validator_of(make_cohort("AB", empty="AB"))
    assert empty.scores_before() == {}
    assert "val_dice" not in empty(model_of((0, 0, 0)), FULL)


def test_a_missing_scan_is_skipped_and_reported(make_cohort) -> None:
    """The others count as if it had never been there."""
    expected = validator_of(make_cohort("AB"))(model_of((1, 0, -2)), FULL)
    cohort = make_cohort("ABC")
    validator = validator_of(cohort)
    whole = validator(model_of((1, 0, -2)), FULL)
    assert validator.skipped == []
    gone = cohort.files[2][0]
    content = gone.read_bytes()
    gone.unlink()
    assert validator(model_of((1, 0, -2)), FULL) == expected != whole
    assert len(validator.skipped) == 4  # of six pairs
    assert all(str(gone) in line for line in validator.skipped)
    gone.write_bytes(content[:300])  # its header is whole
    assert validator(model_of((1, 0, -2)), FULL) == expected
    gone.write_bytes(content)
    assert validator(model_of((1, 0, -2)), FULL) == whole
    assert validator.skipped == []


def test_the_picture_is_of_the_first_pair_that_can_be_read(make_cohort) -> None:
    cohort = make_cohort("abc")
    cohort.files[0][0].unlink()
    ny = SHAPE[1]
    picture = validator_of(cohort).pictures(model_of((0, 0, 0)), FULL)
    for column, i in enumerate((2, 1)):  # fixed, moving
        plane = cohort.image(i)[SHAPE[0] // 2].T[::-1] / np.float32(255)
        found = picture[: SHAPE[2], column * ny : (column + 1) * ny]
        np.testing.assert_allclose(found, plane, atol=1e-6)
    cohort.files[1][0].unlink()
    assert validator_of(cohort).pictures(model_of((0, 0, 0)), FULL) is None


def test_the_same_structures_are_drawn_each_time(make_cohort) -> None:
    config = config_of(losses={"dice": {}}, sampling={"structures": 1})
    validator = validator_of(make_cohort("AB"), config)
    losses = []
    for seed in range(6):
        torch.manual_seed(seed)
        losses.append(validator(model_of((0, 0, 0)), FULL)["val_loss"])
    assert len(set(losses)) == 1


def test_mean_dice_is_that_of_the_metric() -> None:
    a, b = (torch.from_numpy(label_map(i, SHAPE, (1, 2, 3))) for i in (1, 2))
    assert mean_dice(a, b) == pytest.approx(overlap(a.numpy(), b.numpy()))
    assert mean_dice(torch.zeros(3, 3, 3), torch.zeros(3, 3, 3)) is None


# --------------------------------------------------------------------------------------- Picture


def test_the_picture_has_a_column_for_each_image_and_a_row_for_each_plane(make_cohort) -> None:
    cohort, shift = make_cohort("ab"), (1, 0, 2)
    picture = validator_of(cohort).pictures(model_of(shift), FULL)
    nx, ny, nz = SHAPE
    assert picture.shape == (nz + nz + ny + 3 * 2, 6 * max(nx, ny))
    moving, fixed = (cohort.image(i) / np.float32(255) for i in (0, 1))
    moved = shifted(moving, shift)
    volumes = [fixed, moving, moved, None, np.abs(moving - fixed), np.abs(moved - fixed)]
    top = 0
    for axis, (width, height) in enumerate(((ny, nz), (nx, nz), (nx, ny))):
        middle = tuple(n // 2 if a == axis else slice(None) for a, n in enumerate(SHAPE))
        for column, volume in enumerate(volumes):
            found = picture[top : top + height, column * width : (column + 1) * width][::-1].T
            if volume is not None:
                np.testing.assert_allclose(found, volume[middle], atol=1e-5)
                continue
            u, v = (s for a, s in enumerate(shift) if a != axis)
            grid = np.zeros((width, height))
            grid[::8], grid[:, ::8] = 1, 1
            seen = found[: width - u, : height - v]  # beyond, the border continues
            np.testing.assert_allclose(seen, grid[u:, v:], atol=1e-4)
        assert (picture[top : top + height, 6 * width :] == 0).all()
        assert (picture[top + height : top + height + 2] == 0).all()
        top += height + 2


# ------------------------------------------------------------------------------------- Decisions


def test_a_network_that_moves_nothing_ends_the_run(make_cohort) -> None:
    config = config_of(validation={"give_up": 100})
    validator = validator_of(make_cohort("ab"), config)
    still, moving = (validator(model_of((x, 0, 0)), FULL) for x in (0.0199, 0.0201))
    for done, scores in ((99, still), (100, moving), (1000, {})):
        validator.check_progress(done, scores)
    with pytest.raises(InputError, match=r"after 100 steps, .* by only 0\.0199 voxels") as caught:
        validator.check_progress(100, still)
    advice = ("diffusion", "optimiser.learning_rate", "validation.give_up=0")
    assert all(word in str(caught.value) for word in advice)
    never = validator_of(make_cohort("ab"), config_of(validation={"give_up": 0}))
    never.check_progress(10**6, still)


@pytest.mark.parametrize(
    ("scores", "best", "expected"),
    [
        ({"val_dice": 0.5, "val_loss": 9}, {}, True),
        ({}, {}, True),
        ({"val_dice": 0.6, "val_loss": 9}, {"val_dice": 0.5, "val_loss": 1}, True),
        ({"val_dice": 0.4, "val_loss": 0}, {"val_dice": 0.5, "val_loss": 1}, False),
        ({"val_dice": 0.5, "val_loss": 0}, {"val_dice": 0.5, "val_loss": 1}, False),
        ({"val_loss": 0.9}, {"val_loss": 1}, True),
        ({"val_loss": 1.1}, {"val_loss": 1}, False),
        ({}, {"step": 3}, True),  # nothing to tell by: the last one
        ({}, {"val_loss": 1, "step": 3}, False),  # no pair could be read
    ],
)
def test_the_better_one_has_the_higher_dice_or_else_the_lower_loss(scores, best, expected) -> None:
    assert is_better(scores, best) is expected
