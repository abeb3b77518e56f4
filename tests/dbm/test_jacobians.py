"""Log Jacobians, modulated maps and volumes against closed forms."""

import numpy as np
import pytest

from voxwarp.dbm.jacobians import label_volumes, log_jacobians, modulated, smoothed
from voxwarp.errors import InputError
from voxwarp.space.grid import Grid
from voxwarp.space.transform import Affine, Warp
from voxwarp.space.volume import Volume

SPACING = 1.5
SHAPE = 48, 44, 40


def grid() -> Grid:
    affine = np.diag([SPACING, SPACING, SPACING, 1.0])
    affine[:3, 3] = -SPACING * (np.array(SHAPE) - 1) / 2
    return Grid(SHAPE, affine)


def nodes() -> np.ndarray:
    """World coordinates, (3, X, Y, Z)."""
    return np.moveaxis(grid().nodes(), -1, 0)


def radial_growth(factor: float, radius: float, edge: float) -> tuple[np.ndarray, np.ndarray]:
    """A ball grows: x ↦ x s(r), where s falls from ``factor`` to 1 beyond ``radius``.

    Returns:
        The displacement, mm, and the logarithm of its determinant: s² (s + r s').
    """
    points = nodes()
    r = np.sqrt((points**2).sum(axis=0))
    fall = np.clip((r - radius) / edge, 0, 1)
    s = 1 + (factor - 1) * (0.5 + 0.5 * np.cos(np.pi * fall))
    slope = -(factor - 1) * 0.5 * np.pi / edge * np.sin(np.pi * fall) * (fall > 0) * (fall < 1)
    return points * (s - 1), np.log(s**2 * (s + r * slope))


def affine(scale: float) -> Affine:
    return Affine(np.diag([scale, scale, scale, 1.0]))


def test_log_jacobians_are_the_analytic_ones() -> None:
    displacement, expected = radial_growth(1.1, 8.0, 20.0)
    warp = Warp(displacement.astype(np.float32), grid())
    found = log_jacobians([warp, affine(0.9)], grid())
    inner = (slice(2, -2),) * 3
    assert np.abs(found.relative - expected)[inner].max() < 0.02
    assert found.of_affine == pytest.approx(3 * np.log(0.9))
    np.testing.assert_allclose(found.absolute, found.relative + 3 * np.log(0.9), rtol=1e-5)
    # The sign: the ball is larger in the person.
    middle = tuple(n // 2 for n in SHAPE)
    assert found.relative[middle] == pytest.approx(3 * np.log(1.1), abs=0.01)


def test_without_a_warp_only_the_affine_map_counts() -> None:
    found = log_jacobians([affine(1.1), affine(2.0)], grid())
    assert not found.relative.any()
    assert found.of_affine == pytest.approx(3 * np.log(2.2))


def test_other_chains_are_refused() -> None:
    warp = Warp(np.zeros((3, *SHAPE), np.float32), grid())
    with pytest.raises(InputError, match=r"one displacement field .* found Affine, Warp"):
        log_jacobians([affine(1.0), warp], grid())
    with pytest.raises(InputError, match="not on the grid"):
        log_jacobians([warp], Grid((8, 8, 8), np.eye(4)))


def test_modulation_keeps_the_amount_of_tissue() -> None:
    displacement, _ = radial_growth(1.25, 10.0, 14.0)
    jacobians = log_jacobians([Warp(displacement.astype(np.float32), grid()), affine(0.95)], grid())
    r = np.sqrt((nodes() ** 2).sum(axis=0))
    tissue = Volume((1 / (1 + np.exp((r - 16) / 2))).astype(np.float32), grid())
    total = tissue.data.sum(dtype=float)
    found = modulated(tissue, jacobians)
    assert found.sum(dtype=float) == pytest.approx(total, rel=0.005)
    relative = modulated(tissue, jacobians, with_affine=False)
    assert relative.sum(dtype=float) == pytest.approx(total / 0.95**3, rel=0.005)


def test_a_planted_growth_is_found_in_its_region_alone() -> None:
    """10 % more volume in a ball, nothing beyond its surroundings."""
    factor = 1.1 ** (1 / 3)
    displacement, _ = radial_growth(factor, 12.0, 6.0)
    jacobians = log_jacobians([Warp(displacement.astype(np.float32), grid())], grid())
    r = np.sqrt((nodes() ** 2).sum(axis=0))
    atlas = np.zeros(SHAPE, np.int32)
    atlas[r < 11] = 17
    atlas[(r > 20) & (r < 28)] = 3
    voxel_ml = SPACING**3 / 1000
    grown, still, missing = label_volumes(atlas, [17, 3, 99], jacobians.absolute, voxel_ml)
    assert grown / ((atlas == 17).sum() * voxel_ml) == pytest.approx(1.1, abs=0.005)
    assert still / ((atlas == 3).sum() * voxel_ml) == pytest.approx(1.0, abs=0.001)
    assert missing == 0
    assert np.abs(jacobians.relative[r > 20]).max() < 0.005
    assert jacobians.relative[r < 10].min() > 0.08


def test_smoothing_has_the_width_that_it_is_given() -> None:
    point = np.zeros((41, 41, 41))
    point[20, 20, 20] = 1
    found = smoothed(point, 6.0, (1.0, 1.5, 2.0))
    assert found.sum() == pytest.approx(1, rel=1e-6)
    for axis, spacing in enumerate((1.0, 1.5, 2.0)):
        at = [20, 20, 20]
        at[axis] += int(3 / spacing)  # 3 mm, half of the full width
        profile = found[tuple(at)] / found[20, 20, 20]
        distance = int(3 / spacing) * spacing
        assert profile == pytest.approx(0.5 ** ((distance / 3) ** 2), rel=0.01)
