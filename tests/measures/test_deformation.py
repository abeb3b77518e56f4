"""Folds, inverses, landmarks against closed forms, and other implementations."""

import itertools

import numpy as np
import pytest
import torch
from phantoms import (
    homogeneous,
    indices,
    label_map,
    linear_field,
    near_identity,
    oblique_grid,
    smooth_field,
)
from scipy import ndimage

from voxwarp.fields import field
from voxwarp.measures import deformation
from voxwarp.measures.deformation import (
    inverse_error,
    jacobian_determinant,
    jacobian_statistics,
    nondiffeomorphic_volume,
    target_registration_errors,
)
from voxwarp.space.grid import Grid
from voxwarp.space.transform import Affine, Chain, Warp

SHAPE = (12, 13, 14)


# ---------------------------------------------------------------------------------- Jacobians


def warp_of(u: torch.Tensor, grid: Grid) -> Warp:
    return Warp.from_voxels(u[0].float(), grid)


def test_determinants_of_a_block_are_those_of_the_whole() -> None:
    """In slabs, with neighbours beyond the block's edge and one-sided only at the grid's."""
    grid, rng = Grid((48, 56, 52), np.diag([2.0, 2, 2, 1])), np.random.default_rng(5)
    smooth = ndimage.gaussian_filter(rng.normal(size=(3, *grid.shape)), (0, 3, 3, 3))
    warp = Warp((80 * smooth).astype(np.float32), grid)
    whole = field.jacobian_determinant(warp.in_voxels()[None])[0].numpy()
    for box in (np.s_[0:48, 0:56, 0:52], np.s_[3:44, 0:20, 30:52], np.s_[5:6, 7:8, 9:10]):
        part = jacobian_determinant(warp, box)
        np.testing.assert_allclose(part, whole[box], rtol=1e-4, atol=1e-4)


def test_statistics_of_a_linear_warp_are_its_determinant() -> None:
    matrix = np.array([[0.2, 0.1, 0], [0, -0.1, 0.05], [0.1, 0, 0.3]])
    expected = np.linalg.det(np.eye(3) + matrix)
    brain = label_map(1, SHAPE) > 0
    got = jacobian_statistics(warp_of(linear_field(matrix, SHAPE), oblique_grid(1, SHAPE)), brain)
    for name in ("minimum", "maximum", "mean"):
        assert got[name] == pytest.approx(expected, abs=1e-4)
    assert got["std_log"] == pytest.approx(0, abs=1e-4)
    assert got["voxels"] == brain.sum()
    assert (got["folds"], got["folds_percent"], got["folds_any_difference"]) == (0, 0, 0)


def test_statistics_look_at_the_brain_alone_and_at_all_of_it() -> None:
    """The brain's own box is worked on, with neighbours around it: as from the whole field."""
    u = smooth_field(3, SHAPE, amplitude=2.5, periods=2, pinned=False)
    brain = label_map(2, SHAPE) > 0
    determinant = {
        kind: field.jacobian_determinant(u, differences=kind)[0].numpy()[brain]
        for kind in ("central", "forward", "backward")
    }
    values = determinant["central"]
    got = jacobian_statistics(warp_of(u, oblique_grid(3, SHAPE)), brain)
    assert got["minimum"] == pytest.approx(values.min(), abs=1e-3)
    assert got["maximum"] == pytest.approx(values.max(), abs=1e-3)
    assert got["mean"] == pytest.approx(values.mean(), abs=1e-4)
    assert got["std_log"] == pytest.approx(np.log(values[values > 0]).std(ddof=1), rel=1e-2)
    assert got["folds"] == (values <= 0).sum() > 0
    assert got["folds_percent"] == pytest.approx(100 * (values <= 0).mean())
    anywhere = np.any([d <= 0 for d in determinant.values()], axis=0)
    assert got["folds_any_difference"] == anywhere.sum() > got["folds"]


def test_statistics_do_not_depend_on_the_planes_that_are_taken_at_a_time(monkeypatch) -> None:
    u = smooth_field(3, SHAPE, amplitude=2.5, periods=2, pinned=False)
    warp, brain = warp_of(u, oblique_grid(3, SHAPE)), label_map(2, SHAPE) > 0
    whole = jacobian_statistics(warp, brain)
    for planes in (1, 3):
        monkeypatch.setattr(deformation, "_LAYERS", planes)
        assert jacobian_statistics(warp, brain) == pytest.approx(whole, rel=1e-5)


def folding(*positions: float) -> torch.Tensor:
    """Planes x = 0, 1, … go to the given places along the first axis."""
    u = torch.zeros(1, 3, len(positions), 5, 5)
    u[0, 0] = (torch.tensor(positions) - torch.arange(len(positions))).view(-1, 1, 1)
    return u


@pytest.mark.parametrize(
    ("positions", "central", "anywhere"),
    [
        # (φ(x + 1) − φ(x − 1)) / 2 at the planes, then also φ(x + 1) − φ(x) on either side.
        pytest.param((0, 1, 2, 3, 4, 5, 6, 7), 0, 0, id="identity"),
        pytest.param((0, 1, 2, 1.8, 3, 4, 5, 6), 0, 2, id="between neighbours"),
        pytest.param((0, 1, 4, 3, 2, 5, 6, 7), 1, 3, id="three planes reversed"),
        pytest.param((0, 1, 2, 2, 3, 4, 5, 6), 0, 2, id="two planes on one place"),
        pytest.param((7, 6, 5, 4, 3, 2, 1, 0), 8, 8, id="mirrored"),
    ],
)
def test_folds_are_counted(positions: tuple[float, ...], central: int, anywhere: int) -> None:
    u = folding(*positions)
    grid = Grid(tuple(u.shape[2:]), np.diag([2.0, 1.5, 1.0, 1.0]))
    brain = np.ones(grid.shape, bool)
    got = jacobian_statistics(warp_of(u, grid), brain)
    assert got["folds"] == 25 * central
    assert got["folds_any_difference"] == 25 * anywhere
    assert got["folds_percent"] == pytest.approx(100 * central / 8)
    # Of a part of it those planes count that are in it.
    brain[:, 1:] = False
    assert jacobian_statistics(warp_of(u, grid), brain)["folds"] == 5 * central


# ----------------------------------------------------------------- volume that is turned inside out


def voxels(shape: tuple[int, int, int] = SHAPE) -> Grid:
    return Grid(shape, np.eye(4))


def turned_cells(u: np.ndarray) -> float:
    """Volume in voxels turned inside out by u (3, X, Y, Z), zero on the border, cell by cell.

    Every cell is cut into five tetrahedra, one of four corners that share no edge and four
    around it, in both ways.
    """
    place = indices(u.shape[1:]) + np.moveaxis(u, 0, -1)
    corners = list(itertools.product((0, 1), repeat=3))
    ends = [slice(None, -1), slice(1, None)]
    at = {c: place[tuple(ends[i] for i in c)] for c in corners}
    total = 0.0
    for parity in (0, 1):
        middle = [c for c in corners if sum(c) % 2 == parity]
        around = [[c, *(m for m in middle if np.abs(np.subtract(m, c)).sum() == 1)]
                  for c in corners if c not in middle]  # fmt: skip
        for tetrahedron in (middle, *around):
            rest, moved = (
                np.linalg.det(np.stack([np.subtract(p, ps[0]) for p in ps[1:]], axis=-2))
                for ps in (tetrahedron, [at[c] for c in tetrahedron])
            )
            total += np.clip(-moved * np.sign(rest), 0, None).sum() / 6
    return total / 2


@pytest.mark.parametrize("seed", range(3))
def test_the_volume_that_is_turned_inside_out_is_that_of_tetrahedra(seed: int) -> None:
    u = smooth_field(seed, SHAPE, amplitude=5, periods=2)
    u[:, :, 1:-1, 1:-1, 1:-1] += torch.from_numpy(
        np.random.default_rng(seed).normal(scale=0.2, size=(1, 3, 10, 11, 12))
    )
    grid = oblique_grid(seed, SHAPE)
    got = nondiffeomorphic_volume(warp_of(u, grid), np.ones(SHAPE, bool))
    expected = turned_cells(u[0].numpy())
    assert expected > 10
    assert got.volume_mm3 == pytest.approx(expected * np.prod(grid.spacing), rel=1e-4)
    assert got.percent == pytest.approx(100 * expected / np.prod(SHAPE), rel=1e-4)


def test_a_linear_warp_folds_everything_or_nothing() -> None:
    grid, brain = oblique_grid(1, SHAPE), np.zeros(SHAPE, bool)
    brain[2:-2, 3:-3, 4:-4] = True
    matrix = np.array([[-0.8, 0.1, 0], [0.1, 0.7, 0.2], [0, -0.3, 1.2]])
    volume = brain.sum() * abs(np.linalg.det(grid.affine[:3, :3]))
    for flip, share in ((np.eye(3), abs(np.linalg.det(matrix))), (np.diag([-1, 1, 1]), 0)):
        u = linear_field(flip @ matrix - np.eye(3), SHAPE)
        got = nondiffeomorphic_volume(warp_of(u, grid), brain)
        assert got == pytest.approx((share * volume, 100 * share), rel=1e-4)


def test_a_fold_that_central_differences_miss_is_seen() -> None:
    u = torch.zeros(1, 3, *SHAPE)
    u[0, 0, 5, 6, 7] = 3
    warp, brain = warp_of(u, voxels()), np.zeros(SHAPE, bool)
    brain[5, 6, 7] = True
    assert jacobian_statistics(warp, brain)["minimum"] == 1
    # Of its own ten, the four forward corners become 1 − 3 times what they were, and the middle
    # of the cell above, which is twice as large, 2 − 3 halves. Its neighbours have others.
    alone = nondiffeomorphic_volume(warp, brain).volume_mm3
    assert alone == pytest.approx((4 * 2 + 1) / 12)
    everywhere = nondiffeomorphic_volume(warp, np.ones(SHAPE, bool)).volume_mm3
    assert everywhere == pytest.approx(turned_cells(u[0].numpy()))
    assert everywhere > alone


def waves(amplitude: float) -> np.ndarray:
    """(3, X, Y, Z) displacement in voxels, not zero on the border."""
    x, y, z = np.indices(SHAPE).astype(float)
    u = [np.sin(1.7 * y + 0.4 * z), np.cos(1.3 * z - 0.8 * x), np.sin(0.9 * x + 1.1 * y + 0.5)]
    return (amplitude * np.stack(u)).astype(np.float32)


def ellipsoid() -> np.ndarray:
    x = indices(SHAPE) - (np.array(SHAPE) - 1) / 2
    return ((x / (4.5, 5.5, 7.5)) ** 2).sum(-1) <= 1


@pytest.mark.parametrize(
    ("amplitude", "in_brain", "everywhere"),
    [
        (0.5, (0.0, 0.0), (0.0, 0.0)),
        (0.8, (10.215197, 1.3096406), (20.704533, 0.9480097)),
        (1.2, (156.77097, 20.09884), (361.89136, 16.570116)),
        (2.5, (2230.6973, 285.98682), (5365.3213, 245.66489)),
    ],
)
def test_the_volume_that_is_turned_inside_out_equals_numbers_of_its_authors(
    amplitude: float, in_brain: tuple[float, float], everywhere: tuple[float, float]
) -> None:
    """Numbers of ``ndv`` in digital-diffeomorphism 1.1.1."""
    warp, brain = Warp(waves(amplitude), voxels()), ellipsoid()
    assert nondiffeomorphic_volume(warp, brain) == pytest.approx(in_brain, rel=1e-5)
    for all_of_it in (np.ones(SHAPE, bool), np.zeros(SHAPE, bool)):
        assert nondiffeomorphic_volume(warp, all_of_it) == pytest.approx(everywhere, rel=1e-5)


@pytest.mark.parametrize("scale", [0.3, 1, 3])
@pytest.mark.parametrize("seed", range(2))
def test_the_volume_that_is_turned_inside_out_equals_that_of_its_authors(
    seed: int, scale: float
) -> None:
    theirs = pytest.importorskip("digital_diffeomorphism")
    rng = np.random.default_rng(seed)
    u = rng.normal(scale=scale, size=(3, *SHAPE)).astype(np.float32)
    brain = rng.random(SHAPE) < 0.4
    volume, percent, *_ = theirs.ndv(np.moveaxis(u, 0, -1).copy(), brain, is_disp=True)
    assert volume > 0
    assert nondiffeomorphic_volume(Warp(u, voxels()), brain) == pytest.approx(
        (float(volume), float(percent)), rel=1e-5
    )


# -------------------------------------------------------------------------- points, both ways


def shift(*mm: float) -> Affine:
    return Affine(homogeneous(np.eye(3), mm))


def test_the_inverse_error_of_a_translation_is_its_length() -> None:
    grid = oblique_grid(1, SHAPE)
    got = inverse_error(shift(3, -4, 5), shift(-3, 4.3, -5.4), grid, np.ones(SHAPE, bool))
    assert got == pytest.approx(dict.fromkeys(("mean", "p95", "max"), 0.5))


@pytest.mark.parametrize("seed", range(3))
def test_an_affine_and_its_inverse_have_no_error(seed: int) -> None:
    forward, grid = Affine(near_identity(seed)), oblique_grid(seed, SHAPE)
    got = inverse_error(forward, forward.inverse(), grid, np.ones(SHAPE, bool))
    assert max(got.values()) < 1e-10


@pytest.mark.parametrize("every", [1, 2, 3])
def test_the_inverse_error_is_that_of_every_nth_voxel_of_the_brain(every: int) -> None:
    """x ↦ 1.1 x without an inverse is off by |x| / 10."""
    grid, brain = oblique_grid(2, SHAPE), label_map(2, SHAPE) > 0
    scaling = Affine(homogeneous(1.1 * np.eye(3)))
    looked_at = np.zeros(SHAPE, bool)
    looked_at[::every, ::every, ::every] = True
    error = 0.1 * np.linalg.norm(grid.nodes()[looked_at & brain], axis=-1)
    assert len(error) > 5
    expected = {"mean": error.mean(), "p95": np.percentile(error, 95), "max": error.max()}
    got = inverse_error(scaling, Chain([]), grid, brain, every=every)
    assert got == pytest.approx(expected)
    assert inverse_error(Chain([]), scaling, grid, brain, every=every) == pytest.approx(expected)


def test_the_inverse_error_is_of_backward_after_forward() -> None:
    """Doubling and then shifting by one is not shifting and then doubling."""
    double, back = Affine(np.diag([2.0, 2, 2, 1])), Affine(np.diag([0.5, 0.5, 0.5, 1]))
    grid, brain = oblique_grid(1, SHAPE), np.ones(SHAPE, bool)
    got = inverse_error(double, Chain([shift(1, 0, 0), back]), grid, brain)
    assert got["max"] == pytest.approx(0.5)


def test_the_inverse_error_needs_a_brain_on_the_grid() -> None:
    grid, same = oblique_grid(1, SHAPE), Chain([])
    with pytest.raises(ValueError, match=r"brain must have the shape of grid, \(12, 13, 14\)"):
        inverse_error(same, same, grid, np.ones((12, 13, 15), bool))
    odd = np.zeros(SHAPE, bool)
    odd[1::2] = True
    with pytest.raises(ValueError, match="brain must have voxels with indices at multiples of 2"):
        inverse_error(same, same, grid, odd)
    assert inverse_error(same, same, grid, odd, every=1)["max"] == 0


def test_landmarks_are_off_by_their_distance_after_the_transform() -> None:
    fixed = np.array([[0.0, 0, 0], [10, 0, 0], [0, 20, -5]])
    quarter = homogeneous([[0, -1, 0], [1, 0, 0], [0, 0, 1]], (1, 2, 3))  # (x, y, z) ↦ (−y, x, z)
    there = np.array([[1.0, 2, 3], [1, 12, 3], [-19, 2, -2]])
    off = np.array([[0, 0, 0], [3, 4, 0], [-1, 2, 2]])
    errors = target_registration_errors(Affine(quarter), moving=there + off, fixed=fixed)
    np.testing.assert_allclose(errors, [0, 5, 3], atol=1e-12)
    none = np.empty((0, 3))
    assert target_registration_errors(Affine(quarter), moving=none, fixed=none).shape == (0,)


@pytest.mark.parametrize(
    ("fixed", "moving", "message"),
    [
        ((4, 2), (4, 3), r"fixed must be \(N, 3\), got \(4, 2\)"),
        ((4, 3), (3,), r"moving must be \(N, 3\), got \(3,\)"),
        ((4, 3), (1, 3), "moving must have as many points as fixed, 4, got 1"),
    ],
)
def test_landmarks_must_be_pairs_of_points(
    fixed: tuple[int, ...], moving: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        target_registration_errors(Chain([]), moving=np.zeros(moving), fixed=np.zeros(fixed))
