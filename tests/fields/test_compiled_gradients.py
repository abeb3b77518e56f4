"""Compiled gradients in float32 against those of plain PyTorch in float64."""

import itertools
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from phantoms import blobs, smooth_field
from torch import Tensor

from voxwarp.fields import compiled, field, losses

pytestmark = pytest.mark.skipif(not compiled.enabled(), reason="kernels are off or not installed")

SHAPES = {
    "odd": (11, 14, 17),
    "longer than the pieces of rows": (4, 5, 131),
    "two voxels thick": (2, 9, 12),
    "two voxels wide": (9, 2, 12),
    "two voxels high": (19, 12, 2),
    "smallest": (2, 2, 2),
}
Function = Callable[..., Tensor]


@pytest.fixture(params=SHAPES.values(), ids=SHAPES.keys())
def shape(request: pytest.FixtureRequest) -> tuple[int, int, int]:
    return request.param


def random(shape: tuple[int, ...], channels: int, *, seed: int = 0, size: float = 1) -> Tensor:
    """A batch of two, float32."""
    generator = torch.Generator().manual_seed(seed)
    return size * torch.randn(2, channels, *shape, generator=generator)


def answers(function: Function, inputs: list[Tensor]) -> list[Tensor]:
    """The result, and the gradients of a weighted sum of it."""
    inputs = [x.detach().requires_grad_() for x in inputs]
    out = function(*inputs)
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(9)).to(out.dtype)
    return [out.detach(), *torch.autograd.grad((weights * out).sum(), inputs)]


def check(
    function: Function, *inputs: Tensor, monkeypatch: pytest.MonkeyPatch, rtol: float = 1e-5
) -> None:
    """As exact as float32 can be, relative to the largest value."""
    found = answers(function, list(inputs))
    with monkeypatch.context() as patch:
        patch.setattr(compiled, "enabled", lambda: False)
        expected = answers(function, [x.double() for x in inputs])
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == torch.float32
        scale = other.abs().max().clamp(min=1e-30)
        torch.testing.assert_close(one.double() / scale, other / scale, atol=rtol, rtol=0)


# ---------------------------------------------------------------------------------- sampling


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [0.4, 30.0])
@pytest.mark.parametrize("padding", ["zeros", "border"])
def test_warping(shape, channels, size, padding, monkeypatch) -> None:
    """Also where most points are far outside."""
    volume, u = random(shape, channels), random(shape, 3, seed=1, size=size)
    check(
        lambda v, d: field.warp(v, d, padding=padding), volume, u, monkeypatch=monkeypatch
    )  # fmt: skip


@pytest.mark.parametrize("padding", ["zeros", "border"])
def test_sampling_at_points_of_another_grid(padding, monkeypatch) -> None:
    volume = random((7, 9, 8), 2)
    at = 4 + random((12, 5, 6), 3, seed=1, size=4.0)
    check(lambda v, p: field.sample(v, p, padding=padding), volume, at, monkeypatch=monkeypatch)


@pytest.mark.parametrize("padding", ["zeros", "border"])
@pytest.mark.parametrize("shift", [-2.0, -1.0, 0.0, 1.0, 2.0])
def test_warping_by_whole_voxels(padding, shift, monkeypatch) -> None:
    """Where slopes jump, and points lie on the border or one voxel outside, the side is the same.

    Onto voxels of another grid, so that float64 comes to the same whole numbers.
    """
    volume = random((5, 3, 9), 1)
    u = torch.full((2, 3, 5, 3, 9), shift)
    check(lambda v, d: field.warp(v, d, padding=padding), volume, u, monkeypatch=monkeypatch)


@pytest.mark.parametrize("padding", ["zeros", "border"])
def test_points_ever_so_close_to_voxels_have_the_slope_of_their_side(padding, monkeypatch) -> None:
    """As a training begins: coordinates of float32 would be rounded onto the voxels."""
    volume, u = random((11, 14, 131), 1), random((11, 14, 131), 3, seed=1, size=1e-9)
    check(lambda v, d: field.warp(v, d, padding=padding), volume, u, monkeypatch=monkeypatch)


def test_only_what_is_needed_is_computed() -> None:
    volume, u = random((6, 7, 8), 1), random((6, 7, 8), 3, seed=1).requires_grad_()
    whole = answers(field.warp, [volume, u])
    (by_points,) = torch.autograd.grad(
        (field.warp(volume, u) * torch.randn(2, 1, 6, 7, 8, generator=_generator())).sum(), u
    )
    assert torch.equal(by_points, whole[2])
    assert volume.grad is None


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(9)


# ------------------------------------------------------------------------------------ fields


def test_the_exponential(shape, monkeypatch) -> None:
    check(lambda v: field.exponentiate(v, steps=5), random(shape, 3), monkeypatch=monkeypatch)


def test_composition(shape, monkeypatch) -> None:
    u, w = random(shape, 3), random(shape, 3, seed=1)
    check(field.compose, u, w, monkeypatch=monkeypatch)


def test_upsampling(shape, monkeypatch) -> None:
    check(field.upsample, random(shape, 3), monkeypatch=monkeypatch)


def test_diffusion(shape, monkeypatch) -> None:
    check(losses.diffusion, random(shape, 3), monkeypatch=monkeypatch)


def test_a_flat_field_has_no_roughness_and_no_gradient() -> None:
    loss, gradient = answers(losses.diffusion, [torch.full((1, 3, 4, 5, 6), 0.3)])
    assert loss == 0
    assert not gradient.any()


# ------------------------------------------------------------------------------- correlation


@pytest.mark.parametrize("window", [3, 5, 7, 9])
def test_local_correlation(shape, window, monkeypatch) -> None:
    """Of two channels, with windows wider than the images, and by both images."""
    generator = torch.Generator().manual_seed(0)
    fixed, other = (torch.rand(2, 2, *shape, generator=generator) for _ in range(2))
    check(
        lambda f, m: losses.local_ncc_map(fixed=f, moved=m, window=window),
        fixed, 0.6 * fixed + 0.4 * other, monkeypatch=monkeypatch,
    )  # fmt: skip


def test_local_correlation_where_images_are_flat_or_bright(monkeypatch) -> None:
    generator = torch.Generator().manual_seed(0)
    fixed, other = (torch.rand(1, 1, 30, 12, 13, generator=generator) for _ in range(2))
    fixed[:, :, 10:] = 0.7
    moved = 0.9 + 0.01 * (0.6 * fixed + 0.4 * other)
    moved[:, :, 20:] = 0.95
    check(
        lambda m: losses.local_ncc_map(fixed=fixed.to(m.dtype), moved=m),
        moved, monkeypatch=monkeypatch, rtol=1e-4,
    )  # fmt: skip
    gradient = answers(lambda m: losses.local_ncc_map(fixed=fixed, moved=m), [moved])[1]
    assert gradient[:, :, 24:].abs().max() < 1e-6 * gradient.abs().max()


def test_an_image_of_zeros_has_no_gradient() -> None:
    zeros = torch.zeros(1, 1, 9, 9, 9)
    cc, by_fixed, by_moved = answers(
        lambda f, m: losses.local_ncc_map(fixed=f, moved=m), [zeros, zeros]
    )
    assert not cc.any()
    assert not by_fixed.any()
    assert not by_moved.any()


# -------------------------------------------------------------------------------- everything


def test_a_training_step(monkeypatch) -> None:
    """Flow of a velocity at half resolution, warp, correlation and smoothness."""
    shape = (20, 18, 22)
    moving, fixed = (torch.from_numpy(blobs(s, shape))[None, None] for s in (1, 2))

    def step(velocity: Tensor) -> Tensor:
        u = field.upsample(field.exponentiate(velocity, steps=5))
        moved = field.warp(moving.to(velocity.dtype), u)
        similarity = losses.local_ncc(moved=moved, fixed=fixed.to(velocity.dtype))
        return similarity + 0.5 * losses.diffusion(velocity)

    velocity = smooth_field(3, [n // 2 for n in shape], pinned=False).float()
    check(step, velocity, monkeypatch=monkeypatch, rtol=2e-5)


CASES: dict[str, tuple[Function, list[Tensor]]] = {
    "warp": (field.warp, [random((13, 9, 10), 2), random((13, 9, 10), 3, seed=1, size=3.0)]),
    "exponential": (field.exponentiate, [random((13, 9, 10), 3)]),
    "upsample": (field.upsample, [random((13, 9, 10), 3)]),
    "correlation": (
        lambda f, m: losses.local_ncc_map(fixed=f, moved=m),
        [random((21, 9, 10), 1), random((21, 9, 10), 1, seed=1)],
    ),
    "diffusion": (losses.diffusion, [random((13, 9, 10), 3)]),
}


@pytest.mark.parametrize("case", CASES)
def test_any_number_of_threads_gives_the_same_bytes(case: str) -> None:
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 7, 16):
            torch.set_num_threads(threads)
            found.append(answers(*CASES[case]))
    finally:
        torch.set_num_threads(before)
    for one, other in itertools.product(found[:1], found[1:]):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("case", CASES)
def test_axes_may_lie_in_any_order_in_memory(case: str) -> None:
    """Also those of the incoming gradient."""
    function, inputs = CASES[case]
    views = [x.movedim(1, -1).contiguous().movedim(-1, 1) for x in inputs]
    assert not all(x.is_contiguous() for x in views) or inputs[0].shape[1] == 1
    for one, other in zip(answers(function, views), answers(function, inputs), strict=True):
        assert torch.equal(one, other)
    wide = [x[..., None].expand(*x.shape, 2).contiguous()[..., 0] for x in inputs]
    for one, other in zip(answers(function, wide), answers(function, inputs), strict=True):
        assert torch.equal(one, other)
    leaves = [x.clone().requires_grad_() for x in inputs]
    out = function(*leaves)
    even = torch.autograd.grad(out, leaves, torch.full((), 0.5).expand_as(out), retain_graph=True)
    whole = torch.autograd.grad(out, leaves, torch.full_like(out, 0.5))
    assert all(torch.equal(a, b) for a, b in zip(even, whole, strict=True))


@pytest.mark.parametrize("case", CASES)
def test_second_derivatives_are_refused(case: str) -> None:
    function, inputs = CASES[case]
    leaves = [x.clone().requires_grad_() for x in inputs]
    gradients = torch.autograd.grad(function(*leaves).square().sum(), leaves, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        sum(g.square().sum() for g in gradients).backward()  # type: ignore[union-attr]


@pytest.mark.parametrize("case", CASES)
def test_float64_goes_the_plain_way(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str, *_: object) -> None:
        raise AssertionError(f"kernel {name}")

    monkeypatch.setattr(compiled, "run", refuse)
    function, inputs = CASES[case]
    assert all(x.dtype == torch.float64 for x in answers(function, [x.double() for x in inputs]))
    with pytest.raises(AssertionError, match="kernel"):
        answers(function, inputs)


def test_what_is_not_a_number_stays_near() -> None:
    """One NaN in a displacement reaches its own voxel, and in gradients those it may depend on."""
    volume, u = random((8, 9, 10), 1), torch.full((2, 3, 8, 9, 10), 0.25)
    u[0, 1, 2, 3, 4] = torch.nan
    for padding in ("zeros", "border"):
        warped = field.warp(volume, u, padding=padding)
        assert warped.isnan().nonzero().tolist() == [[0, 0, 2, 3, 4]]
    volume[1, 0, 4, 4, 4] = torch.nan
    warped = field.warp(volume, torch.full_like(u, 50.0))
    assert not warped.any()
    _, by_volume, by_points = answers(field.warp, [volume, u])
    assert by_volume.isfinite()[1].all()
    assert by_points.isfinite()[0, :, 5:].all()


def test_upsampling_has_the_gradient_of_interpolation() -> None:
    volume = random((3, 4, 5), 2)
    found = answers(field.upsample, [volume])
    expected = answers(
        lambda x: 2 * F.interpolate(x, scale_factor=2, mode="trilinear"), [volume.double()]
    )
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.double(), other, atol=2e-6, rtol=0)
