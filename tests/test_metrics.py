"""Metrics against counting, one voxel or one label at a time."""

import numpy as np
import pytest
import torch

from phantoms import blobs, label_map, linear_field, oblique_grid, smooth_field
from voxwarp import field
from voxwarp.grid import Grid
from voxwarp.metrics import bounding_box, dice, jacobian_statistics, similarity
from voxwarp.transform import Warp

SHAPE = (12, 13, 14)


# --------------------------------------------------------------------------------------- dice


def counted_dice(a: np.ndarray, b: np.ndarray) -> dict[int, float]:
    values = {*a.ravel().tolist(), *b.ravel().tolist()} - {0}
    return {
        v: 2 * sum(x == y == v for x, y in zip(a.flat, b.flat, strict=True))
        / (sum(x == v for x in a.flat) + sum(y == v for y in b.flat))
        for v in values
    }  # fmt: skip


@pytest.mark.parametrize("seed", range(3))
def test_dice_is_counted_voxel_by_voxel(seed: int) -> None:
    values = np.array([-3, 0, 1, 2, 1035, 2**40])
    rng = np.random.default_rng(seed)
    a, b = (values[rng.integers(0, 6, (5, 6, 7))] for _ in range(2))
    assert dice(a, b) == pytest.approx(counted_dice(a, b))


def test_dice_of_label_maps_that_overlap() -> None:
    a, b = label_map(1, SHAPE), label_map(1, SHAPE)
    b = np.roll(b, 1, axis=0)
    scores = dice(a, b)
    assert scores == pytest.approx(counted_dice(a, b))
    assert min(scores.values()) < max(scores.values()) < 1
    assert dice(a, a) == dict.fromkeys(scores, 1.0)


def test_dice_of_a_label_in_one_map_is_zero_and_in_neither_is_left_out() -> None:
    a, b = np.zeros((4, 4, 4), int), np.zeros((4, 4, 4), int)
    a[0], b[1], a[2], b[2] = 5, 6, 7, 7
    assert dice(a, b) == {5: 0.0, 6: 0.0, 7: 1.0}
    assert dice(np.zeros_like(a), np.zeros_like(a)) == {}


def test_dice_of_maps_of_different_types() -> None:
    a = label_map(1, SHAPE)
    assert dice(a, a.astype(np.int64)) == dice(a.astype(np.uint8), a)


# -------------------------------------------------------------------------------- Jacobians


def warp_of(u: torch.Tensor, grid: Grid) -> Warp:
    return Warp.from_voxels(u[0].float(), grid)


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


# -------------------------------------------------------------------------------- similarity


def image(seed: int, shape: tuple[int, int, int] = (30, 32, 34)) -> torch.Tensor:
    """A textured ball of radius 10 in [0, 1] on zero."""
    x = np.stack(np.indices(shape), axis=-1) - (np.asarray(shape) - 1) / 2
    rng = np.random.default_rng(seed)
    texture = 0.3 + 0.5 * blobs(seed, shape) + 0.2 * rng.uniform(size=shape)
    return torch.from_numpy((texture * ((x**2).sum(-1) < 100)).astype(np.float32))


def test_identical_images_are_alike_by_one() -> None:
    got = similarity(image(1), image(1))
    assert got == {"local_ncc": pytest.approx(1, abs=1e-3), "correlation": pytest.approx(1)}


def test_similarity_is_that_of_2_mm_blocks_of_the_brain() -> None:
    fixed, moved = image(1), 0.2 * image(1) + 0.8 * image(2)
    f, m = (
        x.numpy().astype(np.float64).reshape(15, 2, 16, 2, 17, 2).mean(axis=(1, 3, 5))
        for x in (fixed, moved)
    )
    brain = f > 0
    local = []
    for p in np.argwhere(brain):
        box = tuple(slice(max(0, i - 2), i + 3) for i in p)
        a, b = f[box] - f[box].mean(), m[box] - m[box].mean()
        local.append((a * b).sum() ** 2 / ((a * a).sum() * (b * b).sum() + 1e-5))
    got = similarity(fixed, moved)
    assert 0.1 < got["local_ncc"] < 0.9
    assert got["local_ncc"] == pytest.approx(np.mean(local), abs=1e-3)
    assert got["correlation"] == pytest.approx(np.corrcoef(f[brain], m[brain])[0, 1], abs=1e-4)


def test_a_negative_is_alike_locally_and_not_overall() -> None:
    fixed = image(1)
    got = similarity(fixed, torch.where(fixed > 0, 1 - fixed, fixed.new_zeros(())))
    assert got["correlation"] < 0.5
    inverted = similarity(fixed, 1 - fixed)
    assert inverted["correlation"] == pytest.approx(-1, abs=1e-4)
    assert inverted["local_ncc"] == pytest.approx(1, abs=1e-3)


def test_the_background_does_not_count() -> None:
    fixed, moved = image(1), image(2)
    around = torch.zeros(46, 48, 50)
    wide = [around.clone() for _ in range(2)]
    for out, inner in zip(wide, (fixed, moved), strict=True):
        out[8:38, 8:40, 8:42] = inner
    got = similarity(*wide)
    assert got == pytest.approx(similarity(fixed, moved), abs=1e-4)


def test_nothing_is_alike_where_there_is_no_brain_or_no_contrast() -> None:
    none = {"local_ncc": 0.0, "correlation": 0.0}
    assert similarity(torch.zeros(16, 16, 16), torch.rand(16, 16, 16)) == none
    assert similarity(image(1), torch.zeros(30, 32, 34)) == pytest.approx(none, abs=1e-6)


# ------------------------------------------------------------------------------ bounding_box


def test_the_bounding_box_holds_the_mask_and_its_margin_and_no_more() -> None:
    mask = np.zeros((10, 11, 12), bool)
    mask[3, 5, 2], mask[6, 5, 11] = True, True
    assert bounding_box(mask, margin=0) == (slice(3, 7), slice(5, 6), slice(2, 12))
    assert bounding_box(mask, margin=2) == (slice(1, 9), slice(3, 8), slice(0, 12))
    everything = (slice(0, 10), slice(0, 11), slice(0, 12))
    assert bounding_box(np.zeros_like(mask)) == everything
