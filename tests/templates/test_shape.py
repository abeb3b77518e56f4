"""The shape update brings the mean displacement to zero."""

import numpy as np
import pytest
import torch

from voxwarp.errors import InputError
from voxwarp.fields import field
from voxwarp.preparation.recipe import WORKING_GRID
from voxwarp.space.grid import Grid
from voxwarp.templates.shape import (
    check_mirror,
    mean_displacement,
    mirrored,
    update,
    updated,
)

SHAPE = 24, 28, 20


def smooth_field(seed: int, size: float = 1.5) -> np.ndarray:
    """A smooth displacement of at most ``size`` voxels that vanishes at the border."""
    rng = np.random.default_rng(seed)
    axes = [np.linspace(0, np.pi, n) for n in SHAPE]
    grids = np.meshgrid(*axes, indexing="ij")
    window = np.prod([np.sin(g) ** 2 for g in grids], axis=0)
    waves = []
    for _ in range(3):
        k = rng.integers(1, 3, 3)
        phase = rng.uniform(0, 2 * np.pi, 3)
        waves.append(
            np.prod([np.cos(n * g + p) for n, g, p in zip(k, grids, phase, strict=True)], axis=0)
        )
    found = np.stack(waves) * window
    return (size * found / np.abs(found).max()).astype(np.float32)


def inner(displacement: torch.Tensor) -> torch.Tensor:
    return displacement[..., 3:-3, 3:-3, 3:-3]


def test_mean_is_zero_after_the_update() -> None:
    fields = [smooth_field(seed) + smooth_field(99) for seed in range(4)]
    weights = [0.1, 0.2, 0.3, 0.4]
    mean = mean_displacement(fields, weights)
    assert inner(mean).norm(dim=1).max() > 1
    moved = [updated(torch.from_numpy(one)[None], update(mean)) for one in fields]
    after = mean_displacement([one[0].numpy() for one in moved], weights)
    # Only the linear interpolation of the fields keeps it from being exactly zero.
    assert inner(after).norm(dim=1).max() < 0.02
    assert inner(after).norm(dim=1).mean() < 0.002


def test_update_is_the_inverse_of_the_mean() -> None:
    mean = torch.from_numpy(smooth_field(3))[None]
    back_and_forth = field.compose(mean, update(mean))
    assert inner(back_and_forth).abs().max() < 2e-3


def test_a_common_shift_of_all_people_is_taken_out() -> None:
    shift = np.zeros((3, *SHAPE), np.float32)
    shift[1] = 1.25
    found = updated(torch.from_numpy(shift)[None], update(mean_displacement([shift], [1.0])))
    assert inner(found).abs().max() < 1e-4


def test_mirrored_is_conjugation_by_the_flip() -> None:
    one = torch.from_numpy(smooth_field(5))[None]
    image = torch.from_numpy(np.random.default_rng(0).random((1, 1, *SHAPE), np.float32))
    expected = field.warp(image, one).flip(2)
    found = field.warp(image.flip(2), mirrored(one))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(mirrored(mirrored(one)), one)


def test_symmetric_mean_is_that_with_all_mirror_images() -> None:
    fields = [smooth_field(seed) for seed in range(3)]
    found = mean_displacement(fields, [1 / 3] * 3, symmetric=True)
    others = [mirrored(torch.from_numpy(one)[None])[0].numpy() for one in fields]
    expected = mean_displacement([*fields, *others], [1 / 6] * 6)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(mirrored(found), found, atol=1e-6, rtol=0)


def test_only_symmetric_grids_can_be_mirrored() -> None:
    check_mirror(WORKING_GRID)
    shifted = WORKING_GRID.affine.copy()
    shifted[0, 3] += 1
    with pytest.raises(InputError, match="symmetric"):
        check_mirror(Grid(WORKING_GRID.shape, shifted))
