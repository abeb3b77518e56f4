"""Resampling against SciPy and ITK in voxel space and against values copied node by node."""

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from phantoms import (
    apply_affine,
    blobs,
    homogeneous,
    indices,
    label_map,
    near_identity,
    oblique_affine,
    oblique_grid,
    smooth_field,
)
from scipy.ndimage import map_coordinates

from voxwarp.space import resample as module
from voxwarp.space.grid import Grid
from voxwarp.space.resample import resample, resample_labels
from voxwarp.space.transform import Affine, Chain, Warp
from voxwarp.space.volume import Volume

SHAPE = (9, 10, 11)
FLOATS = [np.float32, np.float64]
INTEGERS = [np.uint8, np.int8, np.int16, np.uint16, np.int32, np.uint32, np.int64]


def facing(volume: Grid, seed: int, shape: tuple[int, int, int]) -> Grid:
    """Another oblique grid with the same middle, that reaches beyond ``volume`` on some sides."""
    affine = oblique_affine(seed)
    middle = volume.to_world((np.asarray(volume.shape) - 1) / 2)
    affine[:3, 3] += middle - apply_affine(affine, (np.asarray(shape) - 1) / 2)
    return Grid(shape, affine)


def setting(seed: int) -> tuple[Grid, Grid, Affine, np.ndarray]:
    """A moving grid, a fixed grid, an affine, and the moving voxel of every fixed node."""
    moving = oblique_grid(seed, SHAPE)
    space = near_identity(seed)
    fixed = facing(moving, seed + 10, (8, 9, 12))
    # One matrix, by hand: fixed voxel → RAS of the fixed → RAS of the moving → moving voxel.
    middle = homogeneous(np.eye(3), fixed.to_world((np.asarray(fixed.shape) - 1) / 2))
    through = middle @ space @ np.linalg.inv(middle)
    voxels = np.linalg.inv(moving.affine) @ through @ fixed.affine
    return moving, fixed, Affine(through), apply_affine(voxels, indices(fixed.shape))


def noise(dtype: type, shape: tuple[int, ...] = SHAPE, seed: int = 0) -> np.ndarray:
    """The whole range of an integer type, or N(0, 100²)."""
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return rng.normal(scale=100, size=shape).astype(dtype)
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max, shape, dtype, endpoint=True)


def inside(voxels: np.ndarray, margin: float = 0.0) -> np.ndarray:
    last = np.asarray(SHAPE) - 1
    return ((voxels >= -margin) & (voxels <= last + margin)).all(axis=-1)


# ------------------------------------------------------------------------------ against SciPy


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 5e-3), (np.float64, 1e-9)])
def test_linear_equals_scipy_with_zero_outside(seed: int, dtype: type, tolerance: float) -> None:
    moving, fixed, through, voxels = setting(seed)
    data = noise(dtype)
    got = resample(Volume(data, moving), fixed, through)
    at = np.moveaxis(voxels, -1, 0)
    expected = map_coordinates(data.astype(np.float64), at, order=1, mode="grid-constant")
    assert 0.2 < inside(voxels).mean() < 0.95
    assert got.grid == fixed
    assert got.data.dtype == dtype
    np.testing.assert_allclose(got.data, expected, atol=tolerance)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("dtype", FLOATS)
def test_cubic_equals_scipy_inside_and_is_zero_outside(seed: int, dtype: type) -> None:
    moving, fixed, through, voxels = setting(seed)
    data = noise(dtype)
    got = resample(Volume(data, moving), fixed, through, interpolation="cubic")
    at = np.moveaxis(voxels, -1, 0)
    expected = map_coordinates(data.astype(np.float64), at, order=3, mode="mirror")
    reached = inside(voxels)
    assert got.data.dtype == dtype
    np.testing.assert_allclose(got.data[reached], expected[reached], atol=1e-3)
    assert (got.data[~inside(voxels, margin=2)] == 0).all()


@pytest.mark.parametrize("background", [-1024.0, 3.0])
@pytest.mark.parametrize("interpolation", ["linear", "nearest", "cubic"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16, np.int32])
def test_outside_is_the_background(dtype: type, interpolation: str, background: float) -> None:
    """What is interpolated fades into it as SciPy has it."""
    moving, fixed, through, voxels = setting(0)
    data = (noise(np.float32) * 10).astype(dtype)
    got = resample(
        Volume(data, moving), fixed, through, interpolation=interpolation, background=background
    )
    plain = resample(Volume(data, moving), fixed, through, interpolation=interpolation)
    assert got.data.dtype == dtype
    assert (got.data[~inside(voxels, margin=2)] == background).all()
    within = inside(voxels)
    np.testing.assert_allclose(got.data[within], plain.data[within], atol=1e-2)
    if interpolation == "linear":
        at = np.moveaxis(voxels, -1, 0)
        expected = map_coordinates(
            data.astype(np.float64), at, order=1, mode="grid-constant", cval=background
        )
        tolerance = 0.51 if np.dtype(dtype).kind == "i" else 1e-2
        np.testing.assert_allclose(got.data, expected, atol=tolerance)
    if interpolation == "nearest":
        assert set(np.unique(got.data)) <= {*np.unique(data), dtype(background)}


def test_frames_of_a_series_have_the_background() -> None:
    moving, fixed, through, voxels = setting(0)
    data = noise(np.int16, (*SHAPE, 3))
    got = resample(Volume(data, moving), fixed, through, background=7)
    for t in range(3):
        one = resample(Volume(data[..., t], moving), fixed, through, background=7)
        np.testing.assert_array_equal(got.data[..., t], one.data)
    assert (got.data[~inside(voxels, margin=2)] == 7).all()


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("interpolation", ["linear", "nearest", "cubic"])
def test_a_voxel_that_is_not_finite_stays_where_it_is(
    dtype: type, value: float, interpolation: str
) -> None:
    """Only what lies in the eight cells around it is not finite, and the rest is as without it."""
    moving, fixed, through, voxels = setting(0)
    data = noise(dtype)
    spoilt, at = data.copy(), np.array([4, 5, 6])
    spoilt[tuple(at)] = value
    got = resample(Volume(spoilt, moving), fixed, through, interpolation=interpolation)
    plain = resample(Volume(data, moving), fixed, through, interpolation=interpolation)
    distance = np.abs(voxels - at).max(axis=-1)
    reach = 0.5 if interpolation == "nearest" else 1.0
    near = np.prod(np.clip(reach - np.abs(voxels - at), 0, None), axis=-1) > 1e-4
    assert near.any()
    assert not np.isfinite(got.data[near]).any()
    assert np.isfinite(got.data[distance > reach + 1e-3]).all()
    far = distance > (6 if interpolation == "cubic" else reach + 1e-3)
    scale = 3 if interpolation == "cubic" else 1e-2  # a spline feels a voxel far away, faintly
    np.testing.assert_allclose(got.data[far], plain.data[far], atol=scale)


@pytest.mark.parametrize("interpolation", ["linear", "nearest", "cubic"])
def test_an_image_of_nan_alone_is_nan_inside(interpolation: str) -> None:
    moving, fixed, through, _ = setting(0)
    data = np.full(SHAPE, np.nan, np.float32)
    got = resample(
        Volume(data, moving), fixed, through, interpolation=interpolation, background=np.nan
    )
    assert np.isnan(got.data).all()


def test_cubic_follows_a_smooth_image_closer_than_linear() -> None:
    """A wave of twelve voxels a period, known at every point."""

    def wave(points: np.ndarray) -> np.ndarray:
        return np.sin(points @ np.array([0.5, 0.3, -0.4]))

    grid = Grid((20, 20, 20), np.eye(4))
    moving = Volume(wave(grid.nodes()), grid)
    fixed = Grid((8, 8, 8), homogeneous(np.eye(3) * 0.9, (6.3, 6.1, 6.6)))
    error = {
        kind: np.abs(resample(moving, fixed, interpolation=kind).data - wave(fixed.nodes())).max()
        for kind in ("linear", "cubic")
    }
    assert error["cubic"] < 5e-3
    assert error["cubic"] < error["linear"] / 10


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("dtype", [*INTEGERS, np.uint64, *FLOATS])
def test_nearest_copies_values_exactly(seed: int, dtype: type) -> None:
    moving, fixed, through, voxels = setting(seed)
    data = noise(dtype)
    got = resample(Volume(data, moving), fixed, through, interpolation="nearest")
    index = np.floor(voxels + 0.5).astype(int)
    reached = ((index >= 0) & (index < SHAPE)).all(axis=-1)
    clipped = np.moveaxis(np.clip(index, 0, np.asarray(SHAPE) - 1), -1, 0)
    expected = np.where(reached, data[tuple(clipped)], 0)
    assert got.data.dtype == dtype
    np.testing.assert_array_equal(got.data, expected)


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.int64])
def test_labels_keep_their_values(dtype: type) -> None:
    moving, fixed, through, _ = setting(1)
    values = (1, 17, 300, np.iinfo(dtype).max)
    labels = label_map(1, SHAPE, (4, 5, 6, 7)).astype(dtype)
    for value, code in zip(values, (4, 5, 6, 7), strict=True):
        labels[labels == code] = value
    source = Volume(labels, moving, is_label_file=True)
    got = resample(source, fixed, through, interpolation="nearest")
    assert got.is_label_file
    assert len(np.unique(got.data)) > 3
    assert set(np.unique(got.data)) <= {0, *values}


@pytest.mark.parametrize("interpolation", ["linear", "cubic"])
@pytest.mark.parametrize("dtype", INTEGERS)
def test_integers_are_rounded_and_kept_in_range(dtype: type, interpolation: str) -> None:
    moving, fixed, through, voxels = setting(2)
    data = noise(dtype)
    if np.dtype(dtype).itemsize == 8:
        data //= 2**30  # float64 holds 53 bits
    data[:, ::2] = data.max()  # edges between the extremes, where a cubic overshoots
    data[:, 1::2, ::3] = data.min()
    got = resample(Volume(data, moving), fixed, through, interpolation=interpolation)
    at = np.moveaxis(voxels, -1, 0)
    order, mode = (1, "grid-constant") if interpolation == "linear" else (3, "mirror")
    exact = map_coordinates(data.astype(np.float64), at, order=order, mode=mode)
    info = np.iinfo(dtype)
    where = inside(voxels) if interpolation == "cubic" else np.ones(fixed.shape, bool)
    assert got.data.dtype == dtype
    gap = got.data[where].astype(np.float64) - np.clip(exact, info.min, info.max)[where]
    assert np.abs(gap).max() <= 0.5 + 1e-6 * min(2.0**16, float(info.max))


@pytest.mark.parametrize("dtype", [np.int32, np.uint32, np.float64])
def test_types_of_more_than_24_bits_keep_them(dtype: type) -> None:
    """Half way between two values near 2³¹ float32 would be off by up to 128."""
    data = np.full((4, 4, 4), 2**31 - 1000, dtype)
    data[1] = 2**31 - 995
    half = Grid((1, 4, 4), homogeneous(np.eye(3), (0.4, 0, 0)))
    got = resample(Volume(data, Grid((4, 4, 4), np.eye(4))), half)
    np.testing.assert_allclose(got.data, 2**31 - 998, atol=1e-6)


# -------------------------------------------------------------------------------- node-exact


@pytest.mark.parametrize("interpolation", ["linear", "nearest", "cubic"])
@pytest.mark.parametrize("seed", range(3))
def test_a_displacement_from_nodes_onto_nodes_copies_values(seed: int, interpolation: str) -> None:
    """Fixed nodes go to nodes of a turned and scaled moving grid, drawn at random, borders too."""
    rng = np.random.default_rng(seed)
    fixed, moving = oblique_grid(seed, SHAPE), oblique_grid(seed + 30, (12, 9, 10))
    target = rng.integers(0, moving.shape, (*SHAPE, 3))
    displacement = moving.to_world(target) - fixed.nodes()
    warp = Warp(np.moveaxis(displacement, -1, 0).astype(np.float32), fixed)
    data = rng.integers(0, 4000, moving.shape).astype(np.int32)
    got = resample(Volume(data, moving), fixed, warp, interpolation=interpolation)
    np.testing.assert_array_equal(got.data, data[tuple(np.moveaxis(target, -1, 0))])


@pytest.mark.parametrize("interpolation", ["linear", "nearest", "cubic"])
@pytest.mark.parametrize("seed", range(6))
def test_resampling_onto_its_own_grid_returns_the_image(seed: int, interpolation: str) -> None:
    grid, data = oblique_grid(seed, SHAPE), noise(np.int16, seed=seed)
    got = resample(Volume(data, grid), grid, interpolation=interpolation)
    np.testing.assert_array_equal(got.data, data)


@pytest.mark.parametrize("interpolation", ["linear", "nearest", "cubic"])
def test_flips_and_transpositions_of_the_fixed_grid_do_those_of_the_image(
    interpolation: str,
) -> None:
    grid, data = oblique_grid(4, SHAPE), noise(np.int16)
    affine = grid.affine[:, [2, 0, 1, 3]].copy()  # axes (k, i, j)
    affine[:3, 3] += affine[:3, 1] * (SHAPE[0] - 1)  # and i backwards
    affine[:, 1] *= -1
    fixed = Grid((SHAPE[2], SHAPE[0], SHAPE[1]), affine)
    got = resample(Volume(data, grid), fixed, interpolation=interpolation)
    np.testing.assert_array_equal(got.data, data.transpose(2, 0, 1)[:, ::-1])


# ------------------------------------------------------------------ chains, series and layout


def test_a_chain_resamples_once_at_the_composed_points() -> None:
    moving, fixed, through, _ = setting(0)
    warp = Warp(smooth_field(1, fixed.shape, pinned=False)[0].float().numpy(), fixed)
    data = noise(np.float64)
    got = resample(Volume(data, moving), fixed, Chain([warp, through])).data
    at = apply_affine(
        np.linalg.inv(moving.affine) @ through.matrix,
        fixed.nodes() + np.moveaxis(warp.displacement, 0, -1),
    )
    expected = map_coordinates(data, np.moveaxis(at, -1, 0), order=1, mode="grid-constant")
    np.testing.assert_allclose(got, expected, atol=1e-9)
    # Two interpolations, one after the other, would blur.
    twice = resample(resample(Volume(data, moving), fixed, through), fixed, warp).data
    assert np.abs(twice - expected).max() > 10


@pytest.mark.parametrize("interpolation", ["linear", "nearest", "cubic"])
@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_a_series_is_resampled_frame_by_frame(dtype: type, interpolation: str) -> None:
    moving, fixed, through, _ = setting(1)
    data = noise(dtype, (*SHAPE, 3))
    series = Volume(data, moving, frame_spacing=2.5)
    got = resample(series, fixed, through, interpolation=interpolation)
    assert got.frame_spacing == 2.5
    for t in range(3):
        frame = Volume(np.ascontiguousarray(data[..., t]), moving)
        alone = resample(frame, fixed, through, interpolation=interpolation)
        np.testing.assert_array_equal(got.data[..., t], alone.data)
    assert (got.data[..., 0] != got.data[..., 1]).any()


@pytest.mark.parametrize("interpolation", ["linear", "nearest", "cubic"])
def test_the_result_does_not_depend_on_the_slabs_it_is_made_in(
    monkeypatch: pytest.MonkeyPatch, interpolation: str
) -> None:
    moving, fixed, through, _ = setting(2)
    volume = Volume(noise(np.int16), moving)
    whole = resample(volume, fixed, through, interpolation=interpolation).data
    for voxels in (1, 9 * 12 * 2, 9 * 12 * 3 + 7):
        monkeypatch.setattr(module, "SLAB_VOXELS", voxels)
        slabs = resample(volume, fixed, through, interpolation=interpolation).data
        np.testing.assert_array_equal(slabs, whole)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("begins_with", ["affine", "own warp", "other warp"])
@pytest.mark.parametrize(
    ("interpolation", "dtype"),
    [("linear", np.int16), ("linear", np.float32), ("nearest", np.int16), ("nearest", bool)],
)
def test_the_result_does_not_depend_on_the_parts_of_a_large_grid(
    interpolation: str,
    dtype: type,
    begins_with: str,
    order: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Up to the rounding of coordinates, which are counted from the first plane of a part."""
    moving, fixed, affine, _ = setting(2)
    grid = moving if begins_with == "other warp" else fixed
    shifts = np.random.default_rng(4).normal(size=(3, *grid.shape)).astype(np.float32)
    warps = [] if begins_with == "affine" else [Warp(shifts, grid)]
    through = Chain([Chain(warps), affine])
    data = noise(np.int16) > 0 if dtype is bool else noise(np.int16).astype(dtype)
    volume = Volume(np.asarray(data, order=order), moving)
    whole = resample(volume, fixed, through, interpolation=interpolation).data
    for planes in (1, 3):
        monkeypatch.setattr(module, "PART_VOXELS", 9 * 12 * planes)
        parts = resample(volume, fixed, through, interpolation=interpolation)
        assert parts.grid == fixed
        assert parts.data.dtype == whole.dtype
        np.testing.assert_allclose(parts.data, whole, atol=1e-2 if dtype == np.float32 else 0)


@pytest.mark.parametrize("interpolation", ["linear", "nearest", "cubic"])
@pytest.mark.parametrize("layout", ["flipped", "fortran", "strided", "read-only", "big-endian"])
def test_the_result_does_not_depend_on_how_the_array_lies_in_memory(
    interpolation: str, layout: str
) -> None:
    moving, fixed, through, _ = setting(0)
    data = noise(np.int16)
    lying = {
        "flipped": np.ascontiguousarray(data[::-1])[::-1],
        "fortran": np.asfortranarray(data),
        "strided": np.repeat(data, 2, axis=1)[:, ::2],
        "read-only": data.copy(),
        "big-endian": data.astype(">i2"),
    }[layout]
    lying.setflags(write=layout != "read-only")
    expected = resample(Volume(data, moving), fixed, through, interpolation=interpolation)
    got = resample(Volume(lying, moving), fixed, through, interpolation=interpolation)
    np.testing.assert_array_equal(got.data, expected.data)


def test_a_mask_of_booleans_keeps_its_size() -> None:
    """Its border is where the interpolated value is one half; otherwise it would dilate."""
    grid = Grid((16, 16, 16), np.eye(4))
    mask = blobs(1, grid.shape) > 0.3
    shifted = Grid(grid.shape, homogeneous(np.eye(3), (0.3, 0.3, 0.3)))
    got = resample(Volume(mask, grid), shifted)
    assert got.data.dtype == bool
    smooth = map_coordinates(
        mask.astype(float), np.moveaxis(shifted.nodes(), -1, 0), order=1, mode="grid-constant"
    )
    clear = np.abs(smooth - 0.5) > 1e-3
    np.testing.assert_array_equal(got.data[clear], (smooth > 0.5)[clear])


def test_the_input_volume_does_not_change() -> None:
    moving, fixed, through, _ = setting(0)
    for interpolation in ("linear", "nearest", "cubic"):
        for dtype in (np.int16, np.float32, np.float64):
            data = noise(dtype)
            resample(Volume(data, moving), fixed, through, interpolation=interpolation)
            np.testing.assert_array_equal(data, noise(dtype))


def test_voxels_outside_the_volume_are_zero() -> None:
    far = Grid((4, 4, 4), homogeneous(np.eye(3), (500, 500, 500)))
    for interpolation in ("linear", "nearest", "cubic"):
        volume = Volume(noise(np.int16), oblique_grid(0, SHAPE))
        assert not resample(volume, far, interpolation=interpolation).data.any()


def test_sub_voxel_shift_of_a_ramp_is_exact() -> None:
    """No half voxel is lost: an image of world x is world x on any grid."""
    grid = oblique_grid(7, (12, 12, 12))
    ramp = Volume(grid.nodes()[..., 0].copy(), grid)
    middle = grid.to_world(np.full(3, 5.5))
    fixed = Grid((5, 5, 5), homogeneous(np.eye(3) * 0.4, middle - 0.8))
    got = resample(ramp, fixed)
    np.testing.assert_allclose(got.data, fixed.nodes()[..., 0], atol=1e-9)
    u = torch.full((3, 5, 5, 5), 0.5)
    shifted = resample(ramp, fixed, Warp.from_voxels(u, fixed))
    np.testing.assert_allclose(shifted.data, fixed.nodes()[..., 0] + 0.2, atol=1e-6)


# ------------------------------------------------------------------------------------ labels

VALUES = np.array([0, 3, 17, 1 << 20, (1 << 20) + 1])


def patches(dtype: type, seed: int = 0) -> np.ndarray:
    """Labels in patches of one or two voxels: the corners of cells differ in all ways."""
    values = VALUES if np.dtype(dtype).itemsize > 2 else VALUES[:3]
    codes = np.random.default_rng(seed).integers(0, len(values), (5, 5, 6))
    return values[codes.repeat(2, 0).repeat(2, 1).repeat(2, 2)[:9, :, :11]].astype(dtype)


def heaviest(weights: dict[float, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The value with the largest weight, and where it is clear that it is the largest."""
    values = sorted(weights)
    stack = np.stack([weights[value] for value in values])
    first, second = np.sort(stack, axis=0)[::-1][:2]
    return np.array(values)[stack.argmax(axis=0)], first - second > 1e-5


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64, np.float32, np.float64])
def test_linear_labels_are_those_of_the_largest_indicator(seed: int, dtype: type) -> None:
    moving, fixed, through, _ = setting(seed)
    labels = patches(dtype, seed)
    warp = Warp(smooth_field(seed, fixed.shape, pinned=False)[0].float().numpy(), fixed)
    got = resample_labels(
        Volume(labels, moving, is_label_file=True),
        *(fixed, Chain([warp, through])),
        interpolation="linear",
    )

    def indicator(mask: np.ndarray) -> np.ndarray:
        volume = Volume(mask.astype(np.float64), moving)
        return resample(volume, fixed, Chain([warp, through])).data

    # Beyond the volume is background: what no other label has.
    weights = {v: indicator(labels == v) for v in np.unique(labels) if v}
    expected, clear = heaviest({0: 1 - indicator(labels != 0), **weights})
    assert clear.mean() > 0.99
    assert len(np.unique(got.data)) == (3 if dtype is np.uint8 else 5)
    assert got.data.dtype == dtype
    assert got.grid == fixed
    assert got.is_label_file
    np.testing.assert_array_equal(got.data[clear], expected[clear])
    # Which is neither the nearest label nor one of a number in between.
    nearest = resample_labels(Volume(labels, moving), fixed, Chain([warp, through])).data
    assert 0.02 < (nearest != got.data).mean() < 0.5


@pytest.mark.parametrize("seed", range(3))
def test_linear_labels_equal_scipy_label_by_label(seed: int) -> None:
    moving, fixed, through, voxels = setting(seed)
    labels = patches(np.int32, seed)
    got = resample_labels(Volume(labels, moving), fixed, through, interpolation="linear")
    at = np.moveaxis(voxels, -1, 0)
    weights = {
        v: map_coordinates((labels == v) * 1.0, at, order=1, mode="grid-constant", cval=v == 0)
        for v in VALUES.tolist()
    }
    expected, clear = heaviest(weights)
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(got.data[clear], expected[clear])


@pytest.mark.skipif(not hasattr(sitk, "sitkLabelLinear"), reason="SimpleITK before 2.4")
def test_linear_labels_equal_itk_inside() -> None:
    labels = patches(np.int32)
    step = np.array([0.83, 0.91, 0.87])
    fixed = Grid((9, 9, 10), homogeneous(np.diag(step), (0.21, 0.13, 0.17)))
    got = resample_labels(Volume(labels, Grid(SHAPE, np.eye(4))), fixed, interpolation="linear")
    theirs = sitk.Resample(
        *(sitk.GetImageFromArray(labels.T), fixed.shape, sitk.Transform(), sitk.sitkLabelLinear),
        *((0.21, 0.13, 0.17), step.tolist()),
    )
    assert inside(fixed.nodes()).all()
    np.testing.assert_array_equal(got.data, sitk.GetArrayFromImage(theirs).T)


@pytest.mark.parametrize("interpolation", ["nearest", "linear"])
@pytest.mark.parametrize("dtype", [bool, *INTEGERS, np.uint64, *FLOATS, ">i4"])
def test_labels_on_their_own_grid_are_the_labels(dtype: type, interpolation: str) -> None:
    grid = oblique_grid(5, SHAPE)
    labels = patches(np.int64).astype(dtype)
    labels[0, 0, 0] = np.iinfo(labels.dtype).max if labels.dtype.kind in "iu" else 1
    got = resample_labels(Volume(labels, grid), grid, interpolation=interpolation)
    assert got.data.dtype == labels.dtype
    np.testing.assert_array_equal(got.data, labels)


@pytest.mark.parametrize("seed", range(3))
def test_labels_are_copied_from_the_nearest_voxel_by_default(seed: int) -> None:
    moving, fixed, through, _ = setting(seed)
    labels = Volume(patches(np.int32, seed), moving)
    expected = resample(labels, fixed, through, interpolation="nearest").data
    np.testing.assert_array_equal(resample_labels(labels, fixed, through).data, expected)


def test_of_labels_that_are_all_different_the_nearest_is_the_heaviest() -> None:
    """990 labels, one a voxel: no two weights are added."""
    grid = Grid(SHAPE, np.eye(4))
    labels = Volume(np.random.default_rng(0).permutation(990).reshape(SHAPE) - 400, grid)
    fixed = Grid((8, 9, 10), homogeneous(0.97 * np.eye(3), (0.31, 0.23, 0.41)))
    got = resample_labels(labels, fixed, interpolation="linear")
    np.testing.assert_array_equal(got.data, resample_labels(labels, fixed).data)


@pytest.mark.parametrize(
    ("row", "at", "expected"),
    [
        ([7, 7, 3, 3], 1.5, 3),  # half and half: the lower
        ([3, 3, 7, 7], 1.5, 3),
        ([7, 7, -3, -3], 1.5, -3),
        ([7, 0, 7, 7], 0.5, 0),
        ([7, 7, 7, 7], 3.5, 0),  # half and half with the background outside
        ([-7, 7, 7, -7], 3.5, -7),
        ([7, 7, 7, 7], 3.49, 7),
        ([7, 7, 7, 7], -0.49, 7),
        ([7, 7, 7, 7], -0.51, 0),
        ([7, 7, 7, 7], 1e6, 0),
        ([7, 3, 3, 3], 0.49, 7),
        ([7, 3, 3, 3], 0.51, 3),
    ],
)
@pytest.mark.parametrize("axis", range(3))
def test_ties_go_to_the_lowest_label(row: list[int], at: float, expected: int, axis: int) -> None:
    """On an oblique grid too, where coordinates are rounded; other axes between voxels."""
    grid = oblique_grid(axis, (4, 4, 4))
    labels = np.broadcast_to(np.reshape(row, [-1 if a == axis else 1 for a in range(3)]), (4, 4, 4))
    points = grid.to_world(np.insert([[1.3, 1.6], [0.7, 1.2]], axis, at, axis=1))
    for point in points:
        one = Grid((1, 1, 1), homogeneous(np.eye(3), point))
        got = resample_labels(Volume(labels, grid), one, interpolation="linear")
        assert got.data.item() == expected


@pytest.mark.parametrize("corner", list(np.ndindex(2, 2, 2)))
def test_seven_corners_outweigh_the_nearest_until_it_is_very_near(
    corner: tuple[int, int, int],
) -> None:
    labels = np.full((2, 2, 2), 5)
    labels[corner] = 2
    volume = Volume(labels, Grid((2, 2, 2), np.eye(4)))
    for away, expected in ((0.25, 5), (0.2, 2)):  # (3/4)³ < 1/2 < (4/5)³
        at = np.abs(np.array(corner) - away)
        one = Grid((1, 1, 1), homogeneous(np.eye(3), at))
        assert resample_labels(volume, one).data.item() == 2
        assert resample_labels(volume, one, interpolation="linear").data.item() == expected


def test_linear_labels_do_not_depend_on_slabs_and_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    moving, fixed, through, _ = setting(2)
    series = np.stack([patches(np.int32, seed) for seed in range(2)], axis=-1)
    whole = resample_labels(Volume(series, moving), fixed, through, interpolation="linear").data
    monkeypatch.setattr(module, "SLAB_VOXELS", 9 * 12 * 3 + 7)
    for t in range(2):
        frame = Volume(np.asfortranarray(series[..., t]), moving)
        alone = resample_labels(frame, fixed, through, interpolation="linear").data
        np.testing.assert_array_equal(whole[..., t], alone)
    assert (whole[..., 0] != whole[..., 1]).any()
