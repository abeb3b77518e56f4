"""Metrics against counting, closed forms, and other implementations."""

import itertools
import warnings
from types import ModuleType

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from phantoms import (
    blobs,
    homogeneous,
    indices,
    label_map,
    linear_field,
    near_identity,
    oblique_grid,
    smooth_field,
)

from voxwarp.fields import field
from voxwarp.measures.metrics import (
    bounding_box,
    dice,
    inverse_error,
    jacobian_statistics,
    nondiffeomorphic_volume,
    similarity,
    surface_distances,
    target_registration_errors,
)
from voxwarp.space.grid import Grid
from voxwarp.space.transform import Affine, Chain, Warp

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


def as_itk(array: np.ndarray, spacing: tuple[float, ...] = (1.0, 1.0, 1.0)) -> sitk.Image:
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.T))
    image.SetSpacing(spacing)
    return image


def from_itk(image: sitk.Image) -> np.ndarray:
    return sitk.GetArrayFromImage(image).T


@pytest.fixture(scope="module")
def monai() -> ModuleType:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what it imports
        return pytest.importorskip("monai.metrics")


def moved_labels(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Ellipsoids, and the same after an uneven shift of a voxel or two."""
    labels = label_map(seed, (30, 32, 34))
    moved = np.roll(labels, (2, -1, 1), axis=(0, 1, 2))
    moved[:15] = np.roll(labels, (1, 1, 0), axis=(0, 1, 2))[:15]
    return moved, labels


@pytest.mark.parametrize("seed", range(3))
def test_dice_is_that_of_itk(seed: int) -> None:
    a, b = moved_labels(seed)
    theirs = sitk.LabelOverlapMeasuresImageFilter()
    theirs.Execute(as_itk(b), as_itk(a))
    expected = {v: theirs.GetDiceCoefficient(v) for v in (4, 10, 11, 49)}
    assert dice(a, b) == pytest.approx(expected)
    assert 0.3 < min(expected.values()) < max(expected.values()) < 0.95


@pytest.mark.parametrize("seed", range(3))
def test_dice_is_that_of_monai(seed: int, monai: ModuleType) -> None:
    a, b = moved_labels(seed)
    values = (4, 10, 11, 49)
    one_hot = [torch.from_numpy(np.stack([x == v for v in values]))[None] for x in (a, b)]
    theirs = monai.compute_dice(*one_hot, include_background=True)[0].tolist()
    assert dice(a, b) == pytest.approx(dict(zip(values, theirs, strict=True)))


# -------------------------------------------------------------------------------- surfaces

SPACINGS = [(1.0, 1.0, 1.0), (1.5, 1.0, 2.5), (0.8, 2.0, 1.2)]


def box_of(low: tuple[int, ...], size: tuple[int, ...], shape: tuple[int, ...]) -> np.ndarray:
    mask = np.zeros(shape, int)
    mask[tuple(slice(i, i + n) for i, n in zip(low, size, strict=True))] = 1
    return mask


def hausdorff_of_itk(a: np.ndarray, b: np.ndarray, spacing: tuple[float, ...]) -> float:
    theirs = sitk.HausdorffDistanceImageFilter()
    theirs.Execute(*(as_itk(mask.astype(np.uint8), spacing) for mask in (a, b)))
    return theirs.GetHausdorffDistance()


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("axis", range(3))
def test_a_shifted_box_is_off_by_the_shift(axis: int, spacing: tuple[float, ...]) -> None:
    """Its leading face, which is more than 5 % of it, is as far off as anything is."""
    size, steps = [12, 14, 16], [0, 0, 0]
    size[axis], steps[axis] = 8, 3
    a, b = box_of((4, 4, 4), size, (26, 26, 28)), box_of(np.add(4, steps), size, (26, 26, 28))
    got = surface_distances(b, a, spacing, [1])[1]
    assert got.hausdorff_95 == pytest.approx(3 * spacing[axis])
    assert got.hausdorff_95 == pytest.approx(hausdorff_of_itk(a, b, spacing))
    assert 0 < got.mean < got.hausdorff_95


@pytest.mark.parametrize("spacing", SPACINGS)
def test_shifted_plates_are_off_by_the_shift_and_half_a_thickness_less(
    spacing: tuple[float, ...],
) -> None:
    """Of a plate 2 voxels thick, 6 further on: one side is off by 6, the other by 4."""
    a, b = (box_of((2, 2, low), (60, 61, 2), (64, 65, 20)) for low in (4, 10))
    got = surface_distances(a, b, spacing, [1])[1]
    assert got.hausdorff_95 == pytest.approx(6 * spacing[2])
    assert got.mean == pytest.approx(5 * spacing[2], rel=0.01)


@pytest.mark.parametrize("spacing", SPACINGS)
def test_concentric_balls_are_off_by_the_difference_of_their_radii(
    spacing: tuple[float, ...],
) -> None:
    """Less half a voxel: of a slanted surface, blocks on either side of it count."""
    shape = tuple(int(34 / s) + 3 for s in spacing)
    radius = np.linalg.norm((indices(shape) - (np.array(shape) - 1) / 2) * spacing, axis=-1)
    got = surface_distances((radius <= 15) * 7, (radius <= 10) * 7, spacing, [7])[7]
    voxel = np.cbrt(np.prod(spacing))
    assert got.mean == pytest.approx(5 - voxel / 2, abs=0.1 * voxel)
    assert got.hausdorff_95 == pytest.approx(5, abs=0.5 * voxel)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("seed", range(2))
def test_surface_distances_are_the_librarys(seed: int, spacing: tuple[float, ...]) -> None:
    import surface_distance as library

    a, b = moved_labels(seed)
    got = surface_distances(a, b, spacing, (4, 10, 11, 49))
    assert len(got) == 4
    for value, ours in got.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # SciPy's, of names it gives up
            found = library.compute_surface_distances(a == value, b == value, spacing)
        of_a, of_b = found["surfel_areas_gt"], found["surfel_areas_pred"]
        mean = found["distances_gt_to_pred"] @ of_a + found["distances_pred_to_gt"] @ of_b
        assert ours.hausdorff_95 == pytest.approx(library.compute_robust_hausdorff(found, 95))
        assert ours.mean == pytest.approx(mean / (of_a.sum() + of_b.sum()))


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("seed", range(2))
def test_surface_distances_are_near_those_of_voxels_at_the_boundary(
    seed: int, spacing: tuple[float, ...]
) -> None:
    """By ITK's contours and distance maps: larger, by less than a voxel's longest side."""
    a, b = moved_labels(seed)
    for value, ours in surface_distances(a, b, spacing, (4, 10, 11, 49)).items():
        contours = [sitk.LabelContour(as_itk((x == value) * 1, spacing)) for x in (a, b)]
        away = [
            np.abs(from_itk(sitk.SignedMaurerDistanceMap(c, False, False, True))) for c in contours
        ]
        on_a, on_b = (from_itk(c) > 0 for c in contours)
        directed = away[1][on_a], away[0][on_b]
        mean = np.concatenate(directed).mean()
        robust = max(np.percentile(d, 95) for d in directed)
        assert 0 < mean - ours.mean < 0.5 * max(spacing)
        assert -1e-6 < robust - ours.hausdorff_95 < max(spacing)
        assert ours.hausdorff_95 < hausdorff_of_itk(a == value, b == value, spacing) + max(spacing)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_surface_distances_are_near_those_of_monai(
    spacing: tuple[float, ...], monai: ModuleType
) -> None:
    """Which are the same as ITK's above: larger, by less than a voxel's longest side."""
    a, b = moved_labels(0)
    for value, ours in surface_distances(a, b, spacing, (4, 10, 11, 49)).items():
        masks = [torch.from_numpy(x == value)[None, None] for x in (a, b)]
        options = {"include_background": True, "spacing": spacing}
        robust = float(monai.compute_hausdorff_distance(*masks, percentile=95, **options))
        mean = float(monai.compute_average_surface_distance(*masks, symmetric=True, **options))
        assert 0 < mean - ours.mean < 0.5 * max(spacing)
        assert -1e-6 < robust - ours.hausdorff_95 < max(spacing)


def test_surface_distances_are_symmetric_and_nothing_between_equal_maps() -> None:
    a, b = moved_labels(1)
    numbers = (4, 10, 11, 49)
    there, back = (
        surface_distances(a, b, SPACINGS[1], numbers),
        surface_distances(b, a, SPACINGS[1], numbers),
    )
    assert {n: tuple(d) for n, d in there.items()} == {
        n: pytest.approx(tuple(d)) for n, d in back.items()
    }
    assert surface_distances(a, a, SPACINGS[1], numbers) == dict.fromkeys(numbers, (0.0, 0.0))


def test_surface_distances_do_not_depend_on_what_is_around() -> None:
    """What touches the border of the array has a surface there, as if nothing came after it."""
    a, b = moved_labels(2)
    box = bounding_box((a > 0) | (b > 0), margin=0)
    assert (a[box][0] > 0).any() or (b[box][0] > 0).any()
    tight = surface_distances(a[box], b[box], SPACINGS[2], (4, 49))
    assert tight == surface_distances(np.pad(a, 9), np.pad(b, 9), SPACINGS[2], (4, 49))


def test_structures_of_one_map_have_no_distance_and_of_neither_are_left_out() -> None:
    a, b = moved_labels(0)
    a[a == 10], b[b == 49] = 0, 0
    got = surface_distances(a, b, SPACINGS[0], iter([4, 10, 49, 50]))
    assert list(got) == [4, 10, 49]
    assert np.isfinite(got[4]).all()
    assert np.isnan([got[10], got[49]]).all()
    nothing = np.zeros_like(a)
    assert surface_distances(nothing, nothing, SPACINGS[0], [4]) == {}


def test_surface_distances_want_maps_of_one_shape() -> None:
    with pytest.raises(ValueError, match=r"moved must have the shape of fixed, \(4, 4, 4\), got"):
        surface_distances(np.ones((4, 4, 5)), np.ones((4, 4, 4)), (1, 1, 1), [1])


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


# --------------------------------------------------------------- volume that is turned over


def voxels(shape: tuple[int, int, int] = SHAPE) -> Grid:
    return Grid(shape, np.eye(4))


def turned_cells(u: np.ndarray) -> float:
    """Voxels turned over, of u (3, X, Y, Z) that is zero on the border: cell by cell.

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
def test_the_volume_that_is_turned_over_is_that_of_tetrahedra(seed: int) -> None:
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


def test_a_linear_warp_turns_over_all_or_nothing() -> None:
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
def test_the_volume_that_is_turned_over_is_what_its_authors_found(
    amplitude: float, in_brain: tuple[float, float], everywhere: tuple[float, float]
) -> None:
    """Numbers of ``ndv`` in digital-diffeomorphism 1.1.1."""
    warp, brain = Warp(waves(amplitude), voxels()), ellipsoid()
    assert nondiffeomorphic_volume(warp, brain) == pytest.approx(in_brain, rel=1e-5)
    for all_of_it in (np.ones(SHAPE, bool), np.zeros(SHAPE, bool)):
        assert nondiffeomorphic_volume(warp, all_of_it) == pytest.approx(everywhere, rel=1e-5)


@pytest.mark.parametrize("scale", [0.3, 1, 3])
@pytest.mark.parametrize("seed", range(2))
def test_the_volume_that_is_turned_over_is_that_of_its_authors(seed: int, scale: float) -> None:
    theirs = pytest.importorskip("digital_diffeomorphism")
    rng = np.random.default_rng(seed)
    u = rng.normal(scale=scale, size=(3, *SHAPE)).astype(np.float32)
    brain = rng.random(SHAPE) < 0.4
    volume, percent, *_ = theirs.ndv(np.moveaxis(u, 0, -1).copy(), brain, is_disp=True)
    assert volume > 0
    assert nondiffeomorphic_volume(Warp(u, voxels()), brain) == pytest.approx(
        (float(volume), float(percent)), rel=1e-5
    )


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


# ------------------------------------------------------------------------- points, both ways


def shift(*mm: float) -> Affine:
    return Affine(homogeneous(np.eye(3), mm))


def test_the_inverse_of_a_translation_is_off_by_what_it_is_off_by() -> None:
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


def test_the_inverse_error_wants_a_brain_on_the_grid() -> None:
    grid, same = oblique_grid(1, SHAPE), Chain([])
    with pytest.raises(ValueError, match=r"brain must have the shape of grid, \(12, 13, 14\)"):
        inverse_error(same, same, grid, np.ones((12, 13, 15), bool))
    odd = np.zeros(SHAPE, bool)
    odd[1::2] = True
    with pytest.raises(ValueError, match="brain must have voxels at multiples of 2"):
        inverse_error(same, same, grid, odd)
    assert inverse_error(same, same, grid, odd, every=1)["max"] == 0


def test_landmarks_are_off_by_their_distance_after_the_transform() -> None:
    fixed = np.array([[0.0, 0, 0], [10, 0, 0], [0, 20, -5]])
    quarter = homogeneous([[0, -1, 0], [1, 0, 0], [0, 0, 1]], (1, 2, 3))  # (x, y, z) ↦ (−y, x, z)
    there = np.array([[1.0, 2, 3], [1, 12, 3], [-19, 2, -2]])
    off = np.array([[0, 0, 0], [3, 4, 0], [-1, 2, 2]])
    errors = target_registration_errors(Affine(quarter), fixed, there + off)
    np.testing.assert_allclose(errors, [0, 5, 3], atol=1e-12)
    none = np.empty((0, 3))
    assert target_registration_errors(Affine(quarter), none, none).shape == (0,)


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
        target_registration_errors(Chain([]), np.zeros(fixed), np.zeros(moving))


# ------------------------------------------------------------------------------ bounding_box


def test_the_bounding_box_holds_the_mask_and_its_margin_and_no_more() -> None:
    mask = np.zeros((10, 11, 12), bool)
    mask[3, 5, 2], mask[6, 5, 11] = True, True
    assert bounding_box(mask, margin=0) == (slice(3, 7), slice(5, 6), slice(2, 12))
    assert bounding_box(mask, margin=2) == (slice(1, 9), slice(3, 8), slice(0, 12))
    everything = (slice(0, 10), slice(0, 11), slice(0, 12))
    assert bounding_box(np.zeros_like(mask)) == everything
