"""Fields against SciPy, matrix exponentials and polynomials."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from phantoms import indices, linear_field, smooth_field
from scipy.linalg import expm
from scipy.ndimage import map_coordinates

from voxwarp.fields import field
from voxwarp.fields.folds import remove_folds

SHAPE = (5, 6, 7)


def random_points(shape: tuple[int, ...], count: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """(3, *count) coordinates up to 2.5 voxels outside the volume."""
    low, high = np.full(3, -2.5), np.asarray(shape) + 1.5
    return np.random.default_rng(seed).uniform(low, high, (*count, 3)).transpose(3, 0, 1, 2)


def affine_field(seed: int, shape: tuple[int, ...], strength: float) -> tuple[np.ndarray, ...]:
    """A random matrix M, an offset t and the field of x ↦ M (x − c) + t + c."""
    rng = np.random.default_rng(seed)
    matrix = np.eye(3) + rng.uniform(-strength, strength, (3, 3))
    offset = rng.uniform(-0.5, 0.5, 3)
    return matrix, offset, linear_field(matrix - np.eye(3), shape, offset)


# ------------------------------------------------------------------------------------- sample


@pytest.mark.parametrize(("padding", "mode"), [("zeros", "grid-constant"), ("border", "nearest")])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-5), (torch.float64, 1e-12)])
def test_linear_sampling_is_scipys(
    padding: str, mode: str, dtype: torch.dtype, tolerance: float
) -> None:
    volume = np.random.default_rng(1).normal(size=(2, 3, *SHAPE))
    at = np.stack([random_points(SHAPE, (6, 7, 8), seed) for seed in (2, 3)])
    got = field.sample(torch.tensor(volume, dtype=dtype), torch.tensor(at), padding=padding)
    assert got.dtype == dtype
    for b in range(2):
        for c in range(3):
            expected = map_coordinates(volume[b, c], at[b], order=1, mode=mode)
            np.testing.assert_allclose(got[b, c].numpy(), expected, atol=tolerance)


@pytest.mark.parametrize("padding", ["zeros", "border"])
def test_linear_sampling_at_the_nodes_returns_the_values(padding: str) -> None:
    volume = torch.randn(1, 2, *SHAPE, dtype=torch.float64)
    got = field.sample(volume, field.identity_grid(SHAPE, volume), padding=padding)
    torch.testing.assert_close(got, volume, atol=1e-13, rtol=0)


@pytest.mark.parametrize("padding", ["zeros", "border"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int64, torch.float32])
def test_nearest_sampling_is_index_arithmetic_with_halves_up(
    padding: str, dtype: torch.dtype
) -> None:
    volume = torch.arange(5 * 6 * 7).reshape(1, 1, *SHAPE).to(dtype) + 1
    at = np.concatenate(
        [
            random_points(SHAPE, (8, 8, 8)),
            np.round(2 * random_points(SHAPE, (8, 8, 8), seed=1)) / 2,  # whole and half numbers
        ],
        axis=1,
    )
    got = field.sample(volume, torch.tensor(at)[None], nearest=True, padding=padding)
    index = np.floor(at + 0.5).astype(int)
    size = np.reshape(SHAPE, (3, 1, 1, 1))
    inside = ((index >= 0) & (index < size)).all(axis=0)
    clipped = volume[0, 0].numpy()[tuple(np.clip(index, 0, size - 1))]
    expected = clipped if padding == "border" else np.where(inside, clipped, 0)
    assert 0 < inside.sum() < inside.size
    assert got.dtype == dtype
    np.testing.assert_array_equal(got[0, 0].numpy(), expected)


def test_nearest_sampling_is_exact_for_integers_no_float_holds() -> None:
    volume = 2**60 + torch.arange(5 * 6 * 7).reshape(1, 1, *SHAPE)
    at = field.identity_grid(SHAPE, torch.empty(0)) + 0.25
    assert torch.equal(field.sample(volume, at, nearest=True), volume)


def test_nearest_sampling_outside_is_zero_also_beside_values_that_are_not_finite() -> None:
    """Statistical maps have NaN around the brain; what is outside of the image is still zero."""
    volume = torch.full((1, 1, 3, 3, 3), torch.nan)
    volume[0, 0, 2, 2, 2] = torch.inf
    at = torch.tensor([[-2.0, 0, 0], [5, 5, 5]]).T.reshape(1, 3, 2, 1, 1)
    assert field.sample(volume, at, nearest=True).flatten().tolist() == [0, 0]


def test_sampling_has_the_derivatives_of_differences() -> None:
    generator = torch.Generator().manual_seed(0)
    volume = torch.randn(1, 2, 3, 4, 3, generator=generator, dtype=torch.float64)
    at = 0.1 + 0.8 * torch.rand(1, 3, 2, 2, 2, generator=generator, dtype=torch.float64)
    at = at + torch.randint(0, 2, at.shape, generator=generator)  # inside, away from the kinks
    assert torch.autograd.gradcheck(
        field.sample, (volume.requires_grad_(), at.requires_grad_()), raise_exception=True
    )


def plain_sample(volume: torch.Tensor, at: torch.Tensor, padding: str) -> torch.Tensor:
    """PyTorch's grid_sample of the whole batch, with the gradients that autograd finds."""
    last = torch.tensor(volume.shape[2:]).to(at).sub(1).clamp(min=1)
    unit = (at.movedim(1, -1) * (2 / last) - 1).flip(-1)
    return F.grid_sample(volume, unit, padding_mode=padding, align_corners=True)


def plain_warp(volume: torch.Tensor, u: torch.Tensor, padding: str = "zeros") -> torch.Tensor:
    return plain_sample(volume, field.identity_grid(u.shape[2:], u) + u, padding)


@pytest.fixture(params=[1, 2, 3, 11])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """PyTorch with as many threads, which is into how many parts the points are cut."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("padding", ["zeros", "border"])
@pytest.mark.parametrize("needed", [(True, False), (False, True), (True, True)])
@pytest.mark.parametrize("count", [(5, 6, 7), (1, 1, 5), (9, 1, 1)])  # 5 points for 11 threads
def test_sampling_has_the_gradients_of_grid_sample_with_any_number_of_threads(
    threads: int, padding: str, needed: tuple[bool, bool], count: tuple[int, int, int]
) -> None:
    generator = torch.Generator().manual_seed(0)
    volume = torch.randn(2, 3, *SHAPE, generator=generator, dtype=torch.float64)
    points = np.stack([random_points(SHAPE, count, seed) for seed in (2, 3)])
    inputs = volume.requires_grad_(needed[0]), torch.tensor(points).requires_grad_(needed[1])
    weights = torch.randn(2, 3, *count, generator=generator, dtype=torch.float64)
    differentiated = [x for x, w in zip(inputs, needed, strict=True) if w]
    answers = []
    for sampled in (field.sample(*inputs, padding=padding), plain_sample(*inputs, padding)):
        answers.append((sampled, *torch.autograd.grad((weights * sampled).sum(), differentiated)))
    for got, expected in zip(*answers, strict=True):
        torch.testing.assert_close(got, expected, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("padding", ["zeros", "border"])
def test_warping_has_the_gradients_of_grid_sample(threads: int, padding: str) -> None:
    volume = smooth_field(1, (7, 8, 9), pinned=False).requires_grad_()
    displacement = smooth_field(2, (7, 8, 9), pinned=False).requires_grad_()
    answers = []
    for warp in (field.warp, plain_warp):
        moved = warp(volume, displacement, padding=padding)
        gradients = torch.autograd.grad(moved.square().sum(), (volume, displacement))
        answers.append((moved, *gradients))
    for got, expected in zip(*answers, strict=True):
        torch.testing.assert_close(got, expected, atol=1e-11, rtol=1e-11)


def test_warping_a_single_plane() -> None:
    """A side of one voxel has no scale: its coordinate does not count, and has no gradient."""
    volume = torch.rand(1, 1, 1, 6, 7, dtype=torch.float64)
    displacement = torch.full((1, 3, 1, 6, 7), 0.25, dtype=torch.float64).requires_grad_()
    moved = field.warp(volume, displacement, padding="border")
    torch.testing.assert_close(moved, plain_warp(volume, displacement, "border"))
    moved.sum().backward()
    assert (displacement.grad[:, 0] == 0).all()


@pytest.mark.parametrize("autocast", [False, True])
def test_sampling_of_bfloat16_is_rounded_only_at_the_end(autocast: bool) -> None:
    volume = torch.rand(1, 2, *SHAPE).bfloat16().requires_grad_()
    at = torch.tensor(random_points(SHAPE, (6, 7, 8)))[None].float()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        got = field.sample(volume, at)
    expected = field.sample(volume.detach().double(), at.double())
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got, expected.bfloat16(), atol=0.004, rtol=0)
    got.sum().backward()
    assert volume.grad.dtype == torch.bfloat16


def test_sampling_at_coordinates_of_another_precision_gives_each_its_own_gradient() -> None:
    volume = torch.rand(1, 1, *SHAPE).requires_grad_()
    at = torch.tensor(random_points(SHAPE, (6, 7, 8)))[None].requires_grad_()
    field.sample(volume, at).sum().backward()
    assert (volume.grad.dtype, at.grad.dtype) == (torch.float32, torch.float64)


@pytest.mark.parametrize(
    ("volume", "at"),
    [
        ((1, 5, 6, 7), (1, 3, 2, 2, 2)),
        ((1, 1, 5, 6, 7), (3, 2, 2, 2)),
        ((1, 1, 5, 6, 7), (1, 2, 2, 2, 3)),
        ((2, 1, 5, 6, 7), (1, 3, 2, 2, 2)),
    ],
)
def test_sampling_says_which_shapes_it_wants(volume: tuple[int, ...], at: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"volume must be \(B, C, X, Y, Z\)"):
        field.sample(torch.zeros(volume), torch.zeros(at))


# --------------------------------------------------------------------------- warp and compose


@pytest.mark.parametrize("nearest", [False, True])
def test_warping_by_whole_voxels_moves_them(nearest: bool) -> None:
    volume = torch.randint(-1000, 1000, (1, 1, *SHAPE)).double()
    shift = (1, -2, 3)
    displacement = torch.tensor(shift).double().view(1, 3, 1, 1, 1).expand(1, 3, *SHAPE)
    expected = torch.zeros_like(volume)
    # moved(x) = volume(x + shift), zero where that is outside.
    expected[0, 0, :-1, 2:, :-3] = volume[0, 0, 1:, :-2, 3:]
    got = field.warp(volume, displacement, nearest=nearest)
    torch.testing.assert_close(got, expected, atol=0 if nearest else 1e-10, rtol=0)


def test_warping_pulls_towards_the_axis_the_component_names() -> None:
    """A displacement of +1 in component c brings the next value along axis c."""
    ramp = field.identity_grid(SHAPE, torch.empty(0, dtype=torch.float64))
    for component in range(3):
        displacement = torch.zeros(1, 3, *SHAPE, dtype=torch.float64)
        displacement[:, component] = 0.25
        moved = field.warp(ramp, displacement, padding="border")
        gain = (moved - ramp)[0, :, 2, 2, 2]
        expected = torch.zeros(3, dtype=torch.float64)
        expected[component] = 0.25
        torch.testing.assert_close(gain, expected)


def test_composition_of_affine_fields_is_the_composition_of_the_maps() -> None:
    shape = (15, 16, 17)
    first, t1, inner = affine_field(1, shape, 0.1)
    second, t2, outer = affine_field(2, shape, 0.1)
    x = indices(shape) - (np.asarray(shape) - 1) / 2
    y = x @ first.T + t1
    expected = y @ second.T + t2 - x
    reach = y + (np.asarray(shape) - 1) / 2
    inside = ((reach >= 0) & (reach <= np.asarray(shape) - 1)).all(axis=-1)
    assert inside.mean() > 0.5
    got = np.moveaxis(field.compose(outer, inner)[0].numpy(), 0, -1)
    np.testing.assert_allclose(got[inside], expected[inside], atol=1e-10)


def test_composition_reads_the_outer_field_where_the_inner_one_leads() -> None:
    outer, inner = smooth_field(1, SHAPE, pinned=False), smooth_field(2, SHAPE, pinned=False)
    at = indices(SHAPE) + np.moveaxis(inner[0].numpy(), 0, -1)
    got = field.compose(outer, inner)[0].numpy()
    for c in range(3):
        pulled = map_coordinates(
            outer[0, c].numpy(), np.moveaxis(at, -1, 0), order=1, mode="nearest"
        )
        np.testing.assert_allclose(got[c], inner[0, c].numpy() + pulled, atol=1e-10)


# ------------------------------------------------------------------------------- exponentiate

GENERATOR = np.array([[0.10, -0.25, 0.05], [0.20, -0.05, 0.15], [-0.10, -0.20, 0.08]])


def centre(values: np.ndarray, radius: int = 3) -> np.ndarray:
    """The middle block of (3, X, Y, Z), which the flow keeps within the grid."""
    middle = [n // 2 for n in values.shape[1:]]
    return values[(slice(None), *(slice(m - radius, m + radius + 1) for m in middle))]


def linear_flow(shape: tuple[int, ...], generator: np.ndarray = GENERATOR) -> np.ndarray:
    """The exact displacement of x' = A x around the middle, at time one: (3, X, Y, Z)."""
    return linear_field(expm(generator) - np.eye(3), shape)[0].numpy()


def test_the_exponential_of_a_linear_velocity_is_the_matrix_exponential() -> None:
    shape = (21, 22, 23)
    got = field.exponentiate(linear_field(GENERATOR, shape), steps=14)[0].numpy()
    expected = centre(linear_flow(shape))
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(centre(got), expected, atol=2e-4)


@pytest.mark.parametrize("half", [False, True])
def test_squaring_halves_the_error_each_time(half: bool) -> None:
    """The first step, Id + v/2ⁿ, is of first order: log₂ of the error falls by one a squaring."""
    shape, steps = (22, 24, 26), np.arange(4, 11)
    velocity = linear_field(GENERATOR, [n // 2 for n in shape] if half else shape)
    expected = centre(linear_flow(shape))
    errors = []
    for n in steps.tolist():
        flow = field.exponentiate(velocity, steps=n)
        flow = field.upsample(flow) if half else flow
        errors.append(np.abs(centre(flow[0].numpy()) - expected).max())
    slope = np.polyfit(steps, np.log2(errors), 1)[0]
    assert slope == pytest.approx(-1, abs=0.05)


def test_each_squaring_doubles_the_time_of_the_first_step() -> None:
    shape = (21, 22, 23)
    got = field.exponentiate(linear_field(GENERATOR, shape), steps=5)[0].numpy()
    matrix = np.linalg.matrix_power(np.eye(3) + GENERATOR / 32, 32)
    expected = linear_field(matrix - np.eye(3), shape)[0].numpy()
    np.testing.assert_allclose(centre(got), centre(expected), atol=1e-10)


@pytest.mark.parametrize("half", [(11, 11, 11), (11, 12, 13)])
def test_a_flow_at_half_resolution_is_the_same_motion_after_resizing(half: tuple[int, ...]) -> None:
    """v = A x in half voxels; with X = R x in full voxels the flow is R exp(A) R⁻¹."""
    full = tuple(2 * n for n in half)
    small = field.exponentiate(linear_field(GENERATOR, half), steps=14)
    got = field.resize(small, full)[0].numpy()
    ratio = np.diag([(N - 1) / (n - 1) for N, n in zip(full, half, strict=True)])
    expected = linear_flow(full, ratio @ GENERATOR @ np.linalg.inv(ratio))
    np.testing.assert_allclose(centre(got, 4), centre(expected, 4), atol=4e-4)
    # Where sizes are equal the ratios are too, and the flow is plainly exp(A) in full voxels.
    if len(set(half)) == 1:
        np.testing.assert_allclose(centre(got, 4), centre(linear_flow(full), 4), atol=4e-4)


@pytest.mark.parametrize("half", [(11, 11, 11), (11, 12, 13)])
def test_a_flow_at_half_resolution_is_the_same_motion_after_upsampling(
    half: tuple[int, ...],
) -> None:
    """Voxels are exactly half as large, whatever the size: the flow is exp(A) in full voxels."""
    full = tuple(2 * n for n in half)
    small = field.exponentiate(linear_field(GENERATOR, half), steps=14)
    got = field.upsample(small)[0].numpy()
    np.testing.assert_allclose(centre(got, 4), centre(linear_flow(full), 4), atol=4e-4)


@pytest.mark.parametrize("steps", [0, 1, 7])
def test_a_constant_velocity_integrates_to_itself_also_at_the_border(steps: int) -> None:
    constant = torch.tensor([1.5, -2.25, 3.75], dtype=torch.float64).view(1, 3, 1, 1, 1)
    velocity = constant.expand(1, 3, *SHAPE)
    got = field.exponentiate(velocity, steps=steps)
    torch.testing.assert_close(got, velocity.clone(), atol=1e-12, rtol=0)


def test_the_exponential_has_the_gradient_of_its_compositions(threads: int) -> None:
    def plain(velocity: torch.Tensor) -> torch.Tensor:
        u = velocity / 2**5
        for _ in range(5):
            u = u + plain_warp(u, u, "border")
        return u

    velocity = torch.cat([smooth_field(s, (7, 8, 9), pinned=False) for s in (1, 2)])
    velocity.requires_grad_()
    answers = []
    for flow in (field.exponentiate(velocity, steps=5), plain(velocity)):
        answers.append((flow, *torch.autograd.grad(flow.pow(3).sum(), velocity)))
    for got, expected in zip(*answers, strict=True):
        torch.testing.assert_close(got, expected, atol=1e-10, rtol=1e-10)


def test_the_flow_backwards_undoes_the_flow() -> None:
    velocity = smooth_field(4, amplitude=1.5)
    there, back = field.exponentiate(velocity), field.exponentiate(-velocity)
    assert there.abs().max() > 1.2
    residual = [field.compose(*pair).abs().max() for pair in ((there, back), (back, there))]
    assert max(residual) < 0.05
    # The displacement with its sign turned is far from doing as well.
    assert field.compose(there, -there).abs().max() > 8 * max(residual)


def test_what_the_flow_backwards_leaves_falls_with_the_square_of_the_voxel() -> None:
    """The same motion on a grid twice as fine: linear interpolation is of second order."""

    def residual(scale: int) -> float:
        shape = tuple(scale * (n - 1) + 1 for n in (16, 17, 18))
        velocity = smooth_field(3, shape, amplitude=1.0)
        velocity = velocity * scale / velocity.square().mean().sqrt() * 0.3
        there, back = field.exponentiate(velocity, steps=9), field.exponentiate(-velocity, steps=9)
        return float(field.compose(there, back).square().mean().sqrt()) / scale

    assert residual(2) < 0.35 * residual(1)


def test_the_flow_of_a_batch_is_that_of_each() -> None:
    one, two = smooth_field(1, SHAPE), smooth_field(2, SHAPE)
    both = field.exponentiate(torch.cat([one, two]))
    torch.testing.assert_close(both[:1], field.exponentiate(one))
    torch.testing.assert_close(both[1:], field.exponentiate(two))


# ------------------------------------------------------------------------------------- invert


def test_the_inverse_of_an_affine_field_is_that_of_the_matrix() -> None:
    shape = (17, 18, 19)
    matrix, offset, displacement = affine_field(4, shape, 0.15)
    back = np.linalg.inv(matrix)
    expected = linear_field(back - np.eye(3), shape, -back @ offset)[0].numpy()
    got = field.invert(displacement, tolerance=1e-12)[0].numpy()
    np.testing.assert_allclose(centre(got, 4), centre(expected, 4), atol=1e-8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])  # with kernels, and without
@pytest.mark.parametrize("shape", [(15, 20, 24), (33, 36, 41)])  # without a coarser grid, and with
def test_the_inverse_undoes_a_smooth_displacement_on_either_side(
    shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    displacement = smooth_field(5, shape, amplitude=0.8).to(dtype)
    for tolerance in (0.01, 1e-5):
        inverse = field.invert(displacement, tolerance=tolerance)
        assert field.compose(displacement, inverse).abs().max() < 1.5 * tolerance
    # The other side reads the inverse between its nodes: interpolation error.
    assert field.compose(inverse, displacement).abs().max() < 0.1


def test_the_inverse_of_a_flow_is_the_flow_backwards() -> None:
    velocity = smooth_field(6, amplitude=1.0)
    got = field.invert(field.exponentiate(velocity))
    assert (got - field.exponentiate(-velocity)).abs().max() < 0.03


STRETCH = np.array([[2.0, 0.3, 0.0], [0.0, 0.4, 0.2], [0.1, 0.0, 0.6]])  # by 1 + 2.0 along X


def stretched(share: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """The field of x ↦ (I + A) x around the middle, and ``share`` · (I + A)⁻¹ y as a field."""
    back = share * np.linalg.inv(np.eye(3) + STRETCH)
    return linear_field(STRETCH, (17, 18, 19)), linear_field(back - np.eye(3), (17, 18, 19))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])  # with kernels, and without
def test_the_inverse_of_a_field_that_stretches_by_three(dtype: torch.dtype) -> None:
    """The fixed-point iteration w ← −u(x + w) does not get there."""
    displacement, expected = (x.to(dtype) for x in stretched())
    by_iteration = -displacement
    for _ in range(100):
        by_iteration = -field.warp(displacement, by_iteration, padding="border")
    assert field.compose(displacement, by_iteration).abs().max() > 1
    for start in (None, stretched(1 - 0.3)[1].to(dtype)):
        got = field.invert(displacement, start=start, tolerance=1e-5)
        torch.testing.assert_close(got, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])  # with kernels, and without
@pytest.mark.parametrize("slope", [0.2, 0.4, 0.6, 0.8])
def test_the_inverse_of_a_field_that_squeezes_and_leaves_the_grid(
    slope: float, dtype: torch.dtype
) -> None:
    """x ↦ x − slope · (x − 4) up to x = 4, whose first points lie outside the grid."""
    displacement = torch.zeros(1, 3, 20, 20, 20, dtype=dtype)
    x = torch.arange(20.0)
    displacement[0, 0] = torch.where(x < 4, -slope * (x - 4), 0.0).view(-1, 1, 1)
    inverse = field.invert(displacement)
    assert field.compose(displacement, inverse).abs().max() < 0.015


@pytest.mark.parametrize("seed", [3, 4, 5])
def test_the_inverse_of_a_field_that_nearly_folds(seed: int) -> None:
    rough = smooth_field(seed, (32, 34, 36), amplitude=3, periods=2, pinned=False).float()
    displacement = remove_folds(rough, min_determinant=0.02)
    left = field.compose(displacement, field.invert(displacement)).abs().amax(dim=1)
    assert left.max() < 0.1
    assert (left > 0.02).float().mean() < 0.005


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("slices", [2, 4, 15, 16])
def test_the_inverse_of_large_displacements_on_a_thin_grid(slices: int, dtype: torch.dtype) -> None:
    """x ↦ 3 x around the middle: 39 voxels at the border."""
    displacement = torch.zeros(1, 3, 40, 40, slices, dtype=dtype)
    displacement[0, 0] = (2 * (torch.arange(40.0) - 19.5)).view(-1, 1, 1)
    inverse = field.invert(displacement)
    assert field.compose(displacement, inverse).abs().max() < 0.015


def test_one_slice_is_inverted_in_its_plane() -> None:
    displacement = smooth_field(2, (18, 16, 17), amplitude=1.0)[..., 8:9].clone()
    displacement[:, 2] = 0
    inverse = field.invert(displacement)
    assert (inverse + field.warp(displacement, inverse, padding="border")).abs().max() < 0.015


def test_a_start_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(1, 3, 4, 8, 8\), got \(1, 3, 8, 8, 8\)"):
        field.invert(torch.zeros(1, 3, 4, 8, 8), start=torch.zeros(1, 3, 8, 8, 8))


def test_a_start_is_not_changed() -> None:
    displacement, start = stretched()[0].float(), stretched(0.7)[1].float()
    before = start.clone()
    assert not torch.equal(field.invert(displacement, start=start), start)
    assert torch.equal(start, before)


def test_a_plain_newton_step_squares_the_error_and_is_not_too_long() -> None:
    """Of (1 − ε) (I + A)⁻¹ it makes (1 − ε²) (I + A)⁻¹, exactly: Newton and Schulz."""
    displacement, expected = stretched()
    _, inverse = stretched(1 - 0.1)
    for power in (2, 4, 8):
        inverse = field.newton_step(displacement, inverse)
        torch.testing.assert_close(inverse, stretched(1 - 0.1**power)[1], atol=1e-10, rtol=0)
    far = expected + 5
    change = field.newton_step(displacement, far) - far
    assert float(change.abs().max()) == pytest.approx(field.LONGEST)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_fold_has_no_inverse_and_harms_nothing_around_it(dtype: torch.dtype) -> None:
    displacement = smooth_field(2, (40, 38, 36), amplitude=1.0).to(dtype)
    whole = field.invert(displacement)
    displacement[0, :, 20, 20, 20] += torch.tensor([6.0, -3.0, 2.0], dtype=dtype)
    inverse = field.invert(displacement)
    assert inverse.isfinite().all()
    assert inverse.abs().max() < 12
    far = (field.identity_grid((40, 38, 36), inverse) - 20).abs().amax(dim=1)[0] > 8
    torch.testing.assert_close(inverse[..., far], whole[..., far], atol=0.02, rtol=0)


def test_what_is_not_a_number_stays_where_it_is() -> None:
    displacement = smooth_field(2, (36, 32, 34), amplitude=1.0).float()
    displacement[0, :, 18, 16, 16] = np.nan
    inverse = field.invert(displacement)
    broken = inverse.isnan().any(dim=1)[0].nonzero()
    assert 0 < len(broken) < 64
    assert (broken - torch.tensor([18, 16, 16])).abs().max() < 4


# ------------------------------------------------------------------------------------- resize


@pytest.mark.parametrize("target", [(10, 12, 14), (9, 6, 20), (3, 4, 13), (5, 6, 7)])
def test_resizing_a_linear_field_is_exact(target: tuple[int, ...]) -> None:
    """u(x) = B x + b becomes U(X) = R (B R⁻¹ X + b) for X = R x, R_ii = (N_i − 1)/(n_i − 1)."""
    rng = np.random.default_rng(0)
    matrix, offset = rng.normal(size=(3, 3)), rng.normal(size=3)
    ratio = (np.asarray(target) - 1) / (np.asarray(SHAPE) - 1)
    small = np.moveaxis(indices(SHAPE) @ matrix.T + offset, -1, 0)[None]
    expected = ratio * (indices(target) / ratio @ matrix.T + offset)
    got = field.resize(torch.from_numpy(small.copy()), target)
    np.testing.assert_allclose(np.moveaxis(got[0].numpy(), 0, -1), expected, atol=1e-12)


def test_resizing_keeps_where_a_displacement_leads_in_the_field_of_view() -> None:
    """As fractions of the field of view, points go to the same places at any size."""
    displacement = smooth_field(2, (9, 10, 11), pinned=False)
    target = (17, 28, 21)  # every node of the small grid is one of the large grid: ×2, ×3, ×2
    large = field.resize(displacement, target)[:, :, ::2, ::3, ::2]
    small_last, large_last = (torch.tensor(s).double() - 1 for s in ((9, 10, 11), target))
    torch.testing.assert_close(
        large / large_last.view(1, 3, 1, 1, 1), displacement / small_last.view(1, 3, 1, 1, 1)
    )


# ----------------------------------------------------------------------------------- upsample


def test_upsampling_puts_values_where_averaging_took_them() -> None:
    """Voxel j of the small grid is at 2j + ½ of the large one; beyond its ends it continues."""
    small = smooth_field(2, SHAPE, pinned=False)
    full = tuple(2 * n for n in SHAPE)
    at = np.moveaxis((indices(full) - 0.5) / 2, -1, 0)
    got = field.upsample(small)[0].numpy()
    for c in range(3):
        expected = 2 * map_coordinates(small[0, c].numpy(), at, order=1, mode="nearest")
        np.testing.assert_allclose(got[c], expected, atol=1e-12)


def test_upsampling_undoes_the_averaging_of_a_linear_field() -> None:
    matrix = np.random.default_rng(1).normal(size=(3, 3))
    large = linear_field(matrix, (10, 12, 14), (1, 2, 3))
    small = torch.nn.functional.avg_pool3d(large, 2) / 2  # and in voxels twice as large
    inner = (..., *(slice(1, -1),) * 3)
    torch.testing.assert_close(field.upsample(small)[inner], large[inner])


# ------------------------------------------------------------------- averaged, padded, difference


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_averages_are_those_of_blocks(factor: int) -> None:
    volume = smooth_field(1, (8, 12, 16), pinned=False)
    x, y, z = (n // factor for n in volume.shape[2:])
    blocks = volume[0].numpy().reshape(3, x, factor, y, factor, z, factor)
    expected = blocks.mean(axis=(2, 4, 6))
    np.testing.assert_allclose(field.averaged(volume, factor)[0].numpy(), expected, atol=1e-14)


def test_downsampling_keeps_where_a_displacement_leads() -> None:
    """Of a linear field: the matrix stays, and the offset is of half as many voxels."""
    matrix = np.random.default_rng(1).normal(size=(3, 3))
    full = linear_field(matrix, (8, 10, 12), (1, 2, 3))
    half = linear_field(matrix, (4, 5, 6), (0.5, 1, 1.5))
    torch.testing.assert_close(field.downsample(full), half)


@pytest.mark.parametrize(("border", "mode"), [(False, "constant"), (True, "edge")])
@pytest.mark.parametrize("shape", [(5, 6, 7), (8, 8, 16), (1, 9, 15)])
def test_padding_is_even_around_the_volume_and_the_slices_undo_it(
    shape: tuple[int, ...], border: bool, mode: str
) -> None:
    volume = torch.rand(2, 3, *shape)
    more, crop = field.padded(volume, 8, border=border)
    missing = [-n % 8 for n in shape]
    widths = [(0, 0), (0, 0), *((m // 2, m - m // 2) for m in missing)]
    np.testing.assert_array_equal(more.numpy(), np.pad(volume.numpy(), widths, mode=mode))
    assert torch.equal(more[crop], volume)
    assert crop == field.crop(shape, more.shape[2:])


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_differences_are_numpys(axis: int) -> None:
    values = np.random.default_rng(0).normal(size=(2, 3, *SHAPE))
    central = field.difference(torch.from_numpy(values), axis + 2).numpy()
    np.testing.assert_allclose(central, np.gradient(values, axis=axis + 2), atol=1e-14)
    steps = np.diff(values, axis=axis + 2)
    for differences, repeated in (("forward", (0, 1)), ("backward", (1, 0))):
        widths = [repeated if i == axis + 2 else (0, 0) for i in range(5)]
        got = field.difference(torch.from_numpy(values), axis + 2, differences).numpy()
        np.testing.assert_array_equal(got, np.pad(steps, widths, mode="edge"))


# ------------------------------------------------------------------------ Jacobian determinant


@pytest.mark.parametrize("differences", ["central", "forward", "backward"])
def test_the_determinant_of_a_linear_field_is_exact_everywhere(differences: str) -> None:
    matrix = np.random.default_rng(3).uniform(-0.5, 0.5, (3, 3))
    got = field.jacobian_determinant(linear_field(matrix, SHAPE), differences=differences)
    assert got.shape == (1, *SHAPE)
    expected = np.linalg.det(np.eye(3) + matrix)
    np.testing.assert_allclose(got.numpy(), expected, atol=1e-12)


def quadratic_field(shape: tuple[int, ...]) -> tuple[torch.Tensor, np.ndarray]:
    """u_i(x) = x·Q_i x with symmetric Q_i, and ∇u at every voxel: ∂u_i/∂x_j = (2 Q_i x)_j."""
    q = np.random.default_rng(4).uniform(-0.01, 0.01, (3, 3, 3))
    q = q + q.transpose(0, 2, 1)
    x = indices(shape)
    u = np.einsum("...j,ijk,...k->...i", x, q, x)
    gradient = 2 * np.einsum("ijk,...k->...ij", q, x)
    return torch.from_numpy(np.moveaxis(u, -1, 0)[None].copy()), gradient


def test_central_differences_are_exact_for_quadratic_fields_in_the_interior() -> None:
    displacement, gradient = quadratic_field((7, 8, 9))
    expected = np.linalg.det(np.eye(3) + gradient)
    inner = (slice(1, -1),) * 3
    got = field.jacobian_determinant(displacement)[0].numpy()
    assert np.ptp(expected) > 0.5
    np.testing.assert_allclose(got[inner], expected[inner], atol=1e-12)


@pytest.mark.parametrize(("differences", "half"), [("forward", 0.5), ("backward", -0.5)])
def test_one_sided_differences_are_those_of_the_half_voxel(differences: str, half: float) -> None:
    """For u_c = a_c x_c² the difference to the neighbour is the derivative half way to it."""
    a = np.array([0.02, -0.01, 0.03])
    x = indices((7, 8, 9))
    displacement = torch.from_numpy(np.moveaxis(a * x**2, -1, 0)[None].copy())
    expected = (1 + 2 * a * (x + half)).prod(axis=-1)
    inner = (slice(1, -1),) * 3
    got = field.jacobian_determinant(displacement, differences=differences)[0].numpy()
    np.testing.assert_allclose(got[inner], expected[inner], atol=1e-12)


def test_forward_differences_see_a_fold_that_central_ones_miss() -> None:
    # φ along the first axis: the third node has gone past the fourth.
    positions = torch.tensor([0.0, 1.0, 2.0, 1.8, 3.0, 4.0, 5.0], dtype=torch.float64)
    displacement = torch.zeros(1, 3, 7, 4, 4, dtype=torch.float64)
    displacement[0, 0] = (positions - torch.arange(7)).view(7, 1, 1)
    central = field.jacobian_determinant(displacement)
    forward = field.jacobian_determinant(displacement, differences="forward")
    backward = field.jacobian_determinant(displacement, differences="backward")
    assert (central > 0).all()
    assert (forward[0] <= 0).any(-1).any(-1).nonzero().flatten().tolist() == [2]
    assert (backward[0] <= 0).any(-1).any(-1).nonzero().flatten().tolist() == [3]


def test_the_determinant_of_a_flow_is_positive_and_of_its_inverse_one_over_it() -> None:
    velocity = smooth_field(7, amplitude=1.5)
    there, back = field.exponentiate(velocity), field.exponentiate(-velocity)
    volume = field.jacobian_determinant(there)
    pulled = field.warp(field.jacobian_determinant(back)[:, None], there, padding="border")[:, 0]
    assert volume.min() > 0
    assert volume.max() > 1.2
    inner = (slice(None), *(slice(2, -2),) * 3)
    assert (volume * pulled - 1)[inner].abs().max() < 0.1


# ------------------------------------------------------------------------------------- blocks


@pytest.mark.parametrize("side", [1, 2, 4])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.bfloat16, torch.float32, torch.float64])
def test_blocks_hold_their_voxels_in_order(dtype: torch.dtype, side: int) -> None:
    """Of a volume that begins anywhere in memory and is in any order there."""
    whole = torch.arange(2 * 8 * 12 * 17).reshape(2, 8, 17, 12).to(dtype).transpose(2, 3)
    for volume in (whole[..., 1:], whole[..., :16].contiguous(), whole.flatten()[3:1539]):
        volume = volume.reshape(-1, 8, 12, 16) if volume.ndim == 4 else volume.view(1, 8, 12, 16)
        got = field.blocks(volume, side)
        shifts = [(i, j, k) for i in range(side) for j in range(side) for k in range(side)]
        assert got.shape == (len(volume), 8 // side, 12 // side, 16 // side, len(shifts))
        for n, (i, j, k) in enumerate(shifts):
            assert torch.equal(got[..., n], volume[:, i::side, j::side, k::side])


@pytest.mark.parametrize("shape", [(2, 2, 2), (2, 2, 4), (2, 4, 2), (4, 2, 2)])
def test_blocks_of_small_volumes(shape: tuple[int, ...]) -> None:
    volume = torch.arange(1, 17, dtype=torch.uint8).flatten()[: np.prod(shape)].view(1, *shape)
    got, sides = field.blocks(volume, 2), [range(n // 2) for n in shape]
    for i, j, k in ((i, j, k) for i in sides[0] for j in sides[1] for k in sides[2]):
        block = volume[0, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2, 2 * k : 2 * k + 2]
        assert torch.equal(got[0, i, j, k], block.flatten())


def test_blocks_pass_gradients_on() -> None:
    volume = torch.rand(1, 4, 6, 8, requires_grad=True)
    weights = torch.rand(1, 2, 3, 4, 8)
    (field.blocks(volume, 2) * weights).sum().backward()
    assert volume.grad is not None
    assert torch.equal(field.blocks(volume.grad, 2), weights)
