"""Losses against float64 sums over every window, and values worked out by hand."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from phantoms import blobs, indices, linear_field, smooth_field
from torch import Tensor

from voxwarp.fields import field, losses


def texture(seed: int, shape: tuple[int, ...] = (11, 10, 9)) -> torch.Tensor:
    """Noise in [0, 1], (1, 1, X, Y, Z), float64."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(1, 1, *shape, generator=generator, dtype=torch.float64)


def brute_force_ncc(f: np.ndarray, m: np.ndarray, window: int, eps: float) -> np.ndarray:
    """CC of every voxel: sums over each window's voxels inside the image, one window at a time."""
    out, reach = np.empty(f.shape), window // 2
    for p in itertools.product(*map(range, f.shape)):
        box = tuple(slice(max(0, i - reach), i + reach + 1) for i in p)
        a, b = f[box] - f[box].mean(), m[box] - m[box].mean()
        guard = eps * (a.size / window**3) ** 2  # eps is for the sums over a whole window
        out[p] = (a * b).sum() ** 2 / ((a * a).sum() * (b * b).sum() + guard)
    return out


# ---------------------------------------------------------------------------------- local_ncc


@pytest.mark.parametrize("window", [3, 5, 9])
@pytest.mark.parametrize("eps", [1e-5, 1.0])
def test_local_ncc_is_the_sum_over_each_window(window: int, eps: float) -> None:
    fixed = texture(1)
    moved = 0.6 * fixed + 0.4 * texture(2)
    expected = brute_force_ncc(fixed[0, 0].numpy(), moved[0, 0].numpy(), window, eps)
    cc = losses.local_ncc_map(moved=moved, fixed=fixed, window=window, eps=eps)
    np.testing.assert_allclose(cc[0, 0].numpy(), expected, atol=1e-10)
    loss = losses.local_ncc(moved=moved, fixed=fixed, window=window, eps=eps)
    assert float(loss) == pytest.approx(-expected.mean(), abs=1e-10)


def test_local_ncc_of_an_image_thinner_than_the_window() -> None:
    fixed, other = texture(1, (11, 10, 5)), texture(2, (11, 10, 5))
    moved = 0.6 * fixed + 0.4 * other
    expected = brute_force_ncc(fixed[0, 0].numpy(), moved[0, 0].numpy(), 9, 1e-5)
    cc = losses.local_ncc_map(moved=moved, fixed=fixed)
    np.testing.assert_allclose(cc[0, 0].numpy(), expected, atol=1e-10)


def test_local_ncc_in_float32_does_not_cancel_where_images_are_bright() -> None:
    """E[x²] − E[x]² of values near 1 with a spread of 0.003 loses half of float32's digits."""
    fixed = 0.95 + 0.01 * texture(1)
    moved = 0.9 + 0.01 * (0.6 * texture(1) + 0.4 * texture(2))
    expected = brute_force_ncc(fixed[0, 0].numpy(), moved[0, 0].numpy(), 9, 1e-5)
    cc = losses.local_ncc_map(moved=moved.float(), fixed=fixed.float())
    assert 0.1 < expected.mean() < 0.9
    np.testing.assert_allclose(cc[0, 0].numpy(), expected, atol=1e-4)


def test_local_ncc_is_minus_one_for_the_same_image_and_near_zero_for_noise() -> None:
    fixed, other = texture(1, (16, 17, 18)), texture(2, (16, 17, 18))
    assert float(losses.local_ncc(moved=fixed, fixed=fixed)) == pytest.approx(-1, abs=1e-6)
    # The squared correlation of n independent samples has the mean 1/(n − 1).
    assert -0.01 < float(losses.local_ncc(moved=other, fixed=fixed)) < -1 / 9**3 / 2


@pytest.mark.parametrize("seed", range(5))
def test_local_ncc_stays_between_minus_one_and_zero(seed: int) -> None:
    rng = np.random.default_rng(seed)
    images = [torch.from_numpy(blobs(s, (12, 13, 14)))[None, None] for s in (seed, seed + 50)]
    images += [images[0] * rng.uniform(0.5, 2), torch.round(images[0]), torch.ones_like(images[0])]
    for fixed, moved in itertools.product(images, images):
        cc = losses.local_ncc_map(moved=moved, fixed=fixed)
        assert cc.min() >= 0
        assert cc.max() <= 1
        assert -1 <= float(losses.local_ncc(moved=moved, fixed=fixed)) <= 0


@pytest.mark.parametrize(("gain", "offset"), [(2.5, -0.3), (-0.7, 1.0), (0.2, 0.6)])
def test_local_ncc_does_not_see_gain_and_offset(gain: float, offset: float) -> None:
    fixed, moved = texture(1), 0.6 * texture(1) + 0.4 * texture(2)
    before = losses.local_ncc_map(moved=moved, fixed=fixed)
    after = losses.local_ncc_map(moved=gain * moved + offset, fixed=fixed)
    torch.testing.assert_close(after, before, atol=1e-6, rtol=0)


def test_local_ncc_hardly_sees_a_smooth_bias_that_defeats_global_correlation() -> None:
    shape = (24, 24, 24)
    fixed = texture(1, shape)
    ramp = torch.linspace(-1, 1, 24, dtype=torch.float64).view(1, 1, 24, 1, 1)
    moved = fixed * (1 + 0.3 * ramp) + 2 * ramp
    local = float(losses.local_ncc_map(moved=moved, fixed=fixed, window=3).mean())
    overall = float(torch.corrcoef(torch.stack([fixed.flatten(), moved.flatten()]))[0, 1] ** 2)
    assert overall < 0.1
    assert local > 0.7


@pytest.mark.parametrize("value", [0.0, 0.9])
@pytest.mark.parametrize("autocast", [False, True])
def test_local_ncc_of_flat_patches_is_zero_with_finite_gradients(
    value: float, autocast: bool
) -> None:
    fixed = torch.full((1, 1, 24, 12, 12), value)
    fixed[..., :6, :, :] = texture(1, (6, 12, 12)).float()[0, 0]
    moved = fixed.clone().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        cc = losses.local_ncc_map(moved=moved, fixed=fixed)
    (-cc.mean()).backward()
    cc = cc.detach()
    assert float(cc[..., 10:, :, :].max()) < 1e-3  # windows that hold no texture
    assert float(cc[..., :6, :, :].min()) > 0.99
    assert moved.grad.isfinite().all()
    assert moved.grad[..., 14:, :, :].abs().max() < 1e-6


@pytest.mark.parametrize("flat", ["fixed", "moved", "both"])
def test_local_ncc_with_an_image_that_is_flat_all_over(flat: str) -> None:
    fixed, moved = texture(1).float(), texture(2).float()
    if flat in ("fixed", "both"):
        fixed = torch.full_like(fixed, 0.7)
    if flat in ("moved", "both"):
        moved = torch.full_like(moved, 0.7)
    moved.requires_grad_()
    loss = losses.local_ncc(moved=moved, fixed=fixed)
    loss.backward()
    assert -1e-3 < loss.item() <= 0
    assert moved.grad.isfinite().all()


def test_local_ncc_has_the_derivatives_of_differences() -> None:
    fixed, moved = texture(1, (4, 4, 3)), texture(2, (4, 4, 3))
    assert torch.autograd.gradcheck(
        lambda f, m: losses.local_ncc(moved=m, fixed=f, window=3),
        (fixed.requires_grad_(), moved.requires_grad_()),
    )


def plain_ncc_map(f: Tensor, m: Tensor, window: int = 9, eps: float = 1e-5) -> Tensor:
    """The definition by box means, whose gradient autograd finds."""

    def mean(x: Tensor) -> Tensor:
        count = F.conv3d(F.pad(torch.ones_like(x[:1, :1]), (window // 2,) * 6), kernel)
        flat = x.flatten(0, 1)[:, None]
        return (F.conv3d(F.pad(flat, (window // 2,) * 6), kernel) / count).view(x.shape)

    kernel = f.new_ones(1, 1, window, window, window)
    f, m = (x - x.detach().mean(dim=(2, 3, 4), keepdim=True) for x in (f, m))
    cross = mean(f * m) - mean(f) * mean(m)
    variances = [(mean(x * x) - mean(x) ** 2).clamp(min=0) for x in (f, m)]
    return (cross**2 / (variances[0] * variances[1] + eps / window**6)).clamp(max=1)


@pytest.mark.parametrize("window", [3, 5, 7, 9])
@pytest.mark.parametrize("shape", [(35, 7, 6), (16, 10, 11), (3, 4, 12), (17, 2, 1)])
@pytest.mark.parametrize("needed", [(True, False), (False, True), (True, True)])
def test_local_ncc_has_the_gradient_of_its_definition(
    window: int, shape: tuple[int, ...], needed: tuple[bool, bool]
) -> None:
    """Also across the slabs it is worked out in, and where slabs are thinner than windows."""
    images = [torch.cat([texture(s, shape), texture(s + 1, shape)], dim=1) for s in (1, 3, 5, 7)]
    fixed = torch.cat(images[:2]).requires_grad_(needed[0])
    moved = (0.6 * fixed.detach() + 0.4 * torch.cat(images[2:])).requires_grad_(needed[1])
    inputs = [x for x, w in zip((fixed, moved), needed, strict=True) if w]
    weights = torch.randn(fixed.shape, generator=torch.Generator().manual_seed(0)).double()
    answers = []
    for cc in (
        losses.local_ncc_map(moved=moved, fixed=fixed, window=window),
        plain_ncc_map(fixed, moved, window),
    ):
        answers.append((cc, *torch.autograd.grad((weights * cc).sum(), inputs)))
    for got, expected in zip(*answers, strict=True):
        scale = expected.abs().max()
        torch.testing.assert_close(got / scale, expected / scale, atol=1e-10, rtol=0)


@pytest.mark.parametrize("shape", [(4, 3, 2), (1, 4, 5), (2, 1, 6)])
def test_local_ncc_of_thin_images_has_the_derivatives_of_differences(
    shape: tuple[int, ...],
) -> None:
    fixed, moved = texture(1, shape).requires_grad_(), texture(2, shape).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda f, m: losses.local_ncc_map(moved=m, fixed=f, window=3, eps=1e-2), (fixed, moved)
    )


@pytest.mark.parametrize("offset", [0.0, 1.0, 100.0])
def test_local_ncc_in_float32_has_the_gradient_of_float64(offset: float) -> None:
    """Also in the flat background and at its rim, where the noise of a variance beats ε."""
    shape = (20, 21, 22)
    fixed = torch.from_numpy(blobs(1, shape))[None, None]
    moved = torch.from_numpy(blobs(2, shape))[None, None] + 0.2 * texture(1, shape).float()
    moved[..., :9, :, :], fixed[..., 14:, :, :] = 0, 0
    fixed, moved = fixed + offset, moved + offset
    found = []
    for dtype in (torch.float32, torch.float64):
        one = moved.to(dtype).requires_grad_()
        cc = losses.local_ncc_map(moved=one, fixed=fixed.to(dtype), window=5)
        found.append((cc.detach().double(), torch.autograd.grad(cc.mean(), one)[0].double()))
    (cc, gradient), (expected, slope) = found
    torch.testing.assert_close(cc, expected, atol=2e-6, rtol=0)
    assert float((gradient - slope).abs().max() / slope.abs().max()) < 2e-4


def test_the_gradient_of_a_training_step_is_that_of_its_definition() -> None:
    """Flow of a velocity at half resolution, warp, correlation and smoothness, in float64."""

    def warp(volume: Tensor, u: Tensor, padding: str = "zeros") -> Tensor:
        at = field.identity_grid(u.shape[2:], u) + u
        last = torch.tensor(volume.shape[2:]).double() - 1
        unit = (at.movedim(1, -1) * (2 / last) - 1).flip(-1)
        return F.grid_sample(volume, unit, padding_mode=padding, align_corners=True)

    def plain(velocity: Tensor) -> Tensor:
        u = velocity / 2**5
        for _ in range(5):
            u = u + warp(u, u, "border")
        u = 2 * F.interpolate(u, scale_factor=2, mode="trilinear", align_corners=False)
        rough = sum(velocity.diff(dim=axis).square().mean() for axis in (2, 3, 4)) / 3
        return -plain_ncc_map(fixed, warp(moving, u)).mean() + 0.5 * rough

    def ours(velocity: Tensor) -> Tensor:
        u = field.upsample(field.exponentiate(velocity, steps=5))
        similarity = losses.local_ncc(moved=field.warp(moving, u), fixed=fixed)
        return similarity + 0.5 * losses.diffusion(velocity)

    shape = (20, 18, 22)
    moving, fixed = (torch.from_numpy(blobs(s, shape))[None, None].double() for s in (1, 2))
    velocity = smooth_field(3, [n // 2 for n in shape], pinned=False).requires_grad_()
    answers = [(loss := f(velocity), *torch.autograd.grad(loss, velocity)) for f in (ours, plain)]
    for got, expected in zip(*answers, strict=True):
        scale = expected.abs().max()
        torch.testing.assert_close(got / scale, expected / scale, atol=1e-9, rtol=0)


# ---------------------------------------------------------------------------------- every loss

LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "local_ncc": lambda a, b: losses.local_ncc(moved=a, fixed=b),
    "mse": lambda a, b: losses.mse(moved=a, fixed=b),
    "mutual_information": lambda a, b: losses.mutual_information(moved=a, fixed=b),
    "soft_dice": lambda a, b: losses.soft_dice(moved=a, fixed=b),
    "diffusion": lambda u, _: losses.diffusion(u),
    "bending": lambda u, _: losses.bending(u),
    "inverse_consistency": losses.inverse_consistency,
}


@pytest.mark.parametrize("loss", LOSSES)
def test_the_loss_of_a_batch_is_the_mean_of_its_samples_and_so_is_the_gradient(loss: str) -> None:
    """Two processes with one sample each and averaged gradients then do what one with two does."""
    shape = (9, 10, 11)
    first, second = (torch.cat([texture(s + c, shape) for c in range(3)], 1) for s in (1, 4))
    # Very different samples: one bright, one dark.
    left, right = torch.cat([first, 0.1 * second]), torch.cat([first.roll(1, 2), 0.3 * first])
    right.requires_grad_()
    left.requires_grad_()
    whole = LOSSES[loss](left, right)
    halves = [LOSSES[loss](left[i : i + 1], right[i : i + 1]) for i in (0, 1)]
    torch.testing.assert_close(whole, (halves[0] + halves[1]) / 2, atol=1e-13, rtol=1e-13)
    inputs = [left] if loss in ("diffusion", "bending") else [left, right]
    together = torch.autograd.grad(whole, inputs)
    apart = torch.autograd.grad((halves[0] + halves[1]) / 2, inputs)
    for got, expected in zip(together, apart, strict=True):
        torch.testing.assert_close(got, expected, atol=1e-13, rtol=1e-13)


def test_local_ncc_in_float32_does_not_see_the_rest_of_the_batch() -> None:
    """Centring by the mean of a batch would leave a bright image beside a dark one uncentred."""
    fixed, moved = (0.95 + 0.01 * texture(s).float() for s in (1, 2))
    alone = losses.local_ncc_map(moved=moved, fixed=fixed)
    dark = torch.zeros_like(fixed)
    beside = losses.local_ncc_map(moved=torch.cat([moved, dark]), fixed=torch.cat([fixed, dark]))
    assert torch.equal(beside[:1], alone)


def test_losses_keep_float32_under_autocast() -> None:
    fixed, moved = texture(1).float(), (0.6 * texture(1) + 0.4 * texture(2)).float()
    velocity = smooth_field(1, (11, 10, 9)).float()

    def values() -> list[torch.Tensor]:
        return [
            losses.local_ncc(moved=moved, fixed=fixed),
            losses.mse(moved=moved, fixed=fixed),
            losses.soft_dice(moved=moved, fixed=fixed),
            losses.diffusion(velocity),
            losses.bending(velocity),
            losses.mutual_information(moved=moved, fixed=fixed),
            losses.inverse_consistency(velocity, -velocity),
        ]

    plain = values()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = values()
    for before, after in zip(plain, cast, strict=True):
        assert after.dtype == torch.float32
        torch.testing.assert_close(after, before, atol=1e-7, rtol=1e-6)


def test_local_ncc_of_bfloat16_images_is_computed_in_float32() -> None:
    fixed, moved = (0.9 + 0.1 * texture(s) for s in (1, 2))
    fixed, moved = fixed.bfloat16(), (0.5 * fixed + 0.5 * moved).bfloat16()
    expected = losses.local_ncc(moved=moved.double(), fixed=fixed.double())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = losses.local_ncc(moved=moved, fixed=fixed)
    assert float(got) == pytest.approx(float(expected), abs=1e-4)


@pytest.mark.parametrize("window", [2, 8, 1, -3])
def test_local_ncc_wants_an_odd_window(window: int) -> None:
    with pytest.raises(ValueError, match=f"window .* got {window}"):
        losses.local_ncc(moved=texture(2), fixed=texture(1), window=window)


# ------------------------------------------------------------------------------ mse, diffusion


def test_mse_is_the_mean_squared_difference() -> None:
    fixed, moved = texture(1), texture(2)
    expected = np.mean((fixed.numpy() - moved.numpy()) ** 2)
    assert float(losses.mse(moved=moved, fixed=fixed)) == pytest.approx(expected, rel=1e-6)
    assert float(losses.mse(moved=fixed, fixed=fixed)) == 0


@pytest.mark.parametrize("shape", [(6, 7, 8), (5, 12, 3)])
def test_diffusion_of_a_linear_field_is_the_mean_of_its_squared_slopes(
    shape: tuple[int, ...],
) -> None:
    slopes = np.random.default_rng(0).normal(size=(3, 3))
    got = losses.diffusion(linear_field(slopes, shape, (5, 6, 7)))
    assert float(got) == pytest.approx((slopes**2).mean(), rel=1e-10)


def test_diffusion_is_the_mean_over_neighbours_along_each_axis() -> None:
    u = smooth_field(2, (6, 7, 8), pinned=False)
    per_axis = [np.mean(np.diff(u.numpy(), axis=axis) ** 2) for axis in (2, 3, 4)]
    assert float(losses.diffusion(u)) == pytest.approx(np.mean(per_axis), rel=1e-10)


@pytest.mark.parametrize("loss", [losses.diffusion, losses.bending])
@pytest.mark.parametrize("shape", [(3, 4, 5), (6, 3, 3)])
def test_roughness_has_the_derivatives_of_differences(
    loss: Callable[[Tensor], Tensor], shape: tuple[int, ...]
) -> None:
    velocity = torch.cat([smooth_field(s, shape, pinned=False) for s in (1, 2)])
    assert torch.autograd.gradcheck(lambda u: 3 * loss(u), velocity.requires_grad_())


# ------------------------------------------------------------------------------------- bending


def test_bending_of_an_affine_field_is_zero() -> None:
    matrix = np.random.default_rng(0).normal(size=(3, 3))
    assert float(losses.bending(linear_field(matrix, (6, 7, 8), (1, 2, 3)))) < 1e-25


def test_bending_of_a_quadratic_field_is_the_mean_of_its_squared_second_derivatives() -> None:
    """u_c = x·Q_c x with symmetric Q_c has the Hessian 2 Q_c; differences of it are exact."""
    q = np.random.default_rng(1).normal(size=(3, 3, 3))
    q = q + q.transpose(0, 2, 1)
    x = indices((5, 6, 7))
    u = torch.from_numpy(np.einsum("...j,cjk,...k->c...", x, q, x)[None].copy())
    assert float(losses.bending(u)) == pytest.approx(np.mean((2 * q) ** 2), rel=1e-10)


# -------------------------------------------------------------------------- mutual_information


def histogram_information(f: np.ndarray, m: np.ndarray) -> float:
    """Σ p ln (p / p_f p_m) over pairs of values, nats."""
    _, i = np.unique(f, return_inverse=True)
    _, j = np.unique(m, return_inverse=True)
    p = np.zeros((i.max() + 1, j.max() + 1))
    np.add.at(p, (i.ravel(), j.ravel()), 1 / f.size)
    apart = p.sum(1, keepdims=True) * p.sum(0)
    return float((p[p > 0] * np.log(p[p > 0] / apart[p > 0])).sum())


def steps(seed: int, values: int, shape: tuple[int, ...] = (11, 10, 9)) -> Tensor:
    """Some evenly spaced values in [0, 1], ends included, at random."""
    return (texture(seed, shape) * values).floor() / (values - 1)


@pytest.mark.parametrize("beyond", [False, True])
def test_mutual_information_of_few_values_is_that_of_their_histogram(beyond: bool) -> None:
    """With values so far apart that no bin has weights of two, B-splines do not blur anything."""
    fixed = steps(1, 5)
    moved = torch.where(texture(2) < 0.3, steps(3, 5), 1 - fixed)
    expected = histogram_information(fixed.numpy(), moved.numpy())
    if beyond:  # counts as the nearest: the end of the range
        fixed, moved = fixed.where(fixed > 0, -2.0), moved.where(moved < 1, 7.0)
    got = losses.mutual_information(moved=moved, fixed=fixed, bins=23)  # 1 + 20 x: five bins apart
    assert 0.3 < expected < np.log(5)
    assert float(got) == pytest.approx(-expected, abs=1e-10)


def test_mutual_information_of_independent_images_is_near_zero_and_of_a_flat_one_zero() -> None:
    fixed, other = texture(1, (30, 30, 30)), texture(2, (30, 30, 30))
    # The bias of a histogram: (cells − 1)² / 2N, in about 29 independent bins a side.
    assert -(31**2) / 2 / 30**3 < float(losses.mutual_information(moved=other, fixed=fixed)) < 0
    flat = torch.full_like(fixed, 0.37)
    assert float(losses.mutual_information(moved=flat, fixed=fixed)) == pytest.approx(0, abs=1e-12)


def test_mutual_information_does_not_see_an_inverted_contrast() -> None:
    fixed, moved = texture(1), 0.7 * texture(1) + 0.3 * texture(2)
    value = losses.mutual_information(moved=moved, fixed=fixed)
    torch.testing.assert_close(losses.mutual_information(moved=1 - moved, fixed=fixed), value)
    torch.testing.assert_close(losses.mutual_information(moved=fixed, fixed=moved), value)
    assert -np.log(32) < float(value) < -0.5


def test_mutual_information_hardly_sees_a_monotone_contrast() -> None:
    fixed, moved = (
        texture(1, (20, 20, 20)),
        0.7 * texture(1, (20, 20, 20)) + 0.3 * texture(2, (20, 20, 20)),
    )
    value = float(losses.mutual_information(moved=moved, fixed=fixed))
    assert float(losses.mutual_information(moved=(1 - moved) ** 1.5, fixed=fixed)) == pytest.approx(
        value, rel=0.05
    )


@pytest.mark.parametrize("bins", [4, 9])
def test_mutual_information_has_the_derivatives_of_differences(bins: int) -> None:
    fixed, moved = texture(1, (3, 4, 3)), texture(2, (3, 4, 3))
    assert torch.autograd.gradcheck(
        lambda f, m: losses.mutual_information(moved=m, fixed=f, bins=bins),
        (fixed.requires_grad_(), moved.requires_grad_()),
    )


def test_mutual_information_in_parts_is_that_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    fixed, moved = texture(1), texture(2).requires_grad_()
    answers = []
    for voxels in (2**18, 100):
        monkeypatch.setattr(losses, "_VOXELS", voxels)
        value = losses.mutual_information(moved=moved, fixed=fixed)
        answers.append((value, *torch.autograd.grad(value, moved)))
    for whole, parts in zip(*answers, strict=True):
        torch.testing.assert_close(parts, whole, atol=1e-13, rtol=1e-10)


def test_mutual_information_wants_four_bins() -> None:
    with pytest.raises(ValueError, match="bins must be at least 4, got 3"):
        losses.mutual_information(moved=texture(2), fixed=texture(1), bins=3)


# ------------------------------------------------------------------------- inverse_consistency


def test_inverse_consistency_of_translations_by_hand() -> None:
    shift = torch.tensor([1.0, -2.0, 0.5]).view(1, 3, 1, 1, 1).expand(1, 3, 4, 5, 6)
    assert float(losses.inverse_consistency(shift, -shift)) == 0
    assert float(losses.inverse_consistency(shift, 0 * shift)) == pytest.approx(1 + 4 + 0.25)


def test_inverse_consistency_is_the_mean_square_of_both_compositions() -> None:
    u, w = smooth_field(1, (7, 8, 9)), smooth_field(2, (7, 8, 9))
    both = [(field.compose(*pair) ** 2).sum(1).mean() for pair in ((u, w), (w, u))]
    assert float(losses.inverse_consistency(u, w)) == pytest.approx(float(sum(both)) / 2, rel=1e-12)
    torch.testing.assert_close(
        losses.inverse_consistency(u, w), losses.inverse_consistency(w, u), atol=0, rtol=1e-14
    )


def test_inverse_consistency_of_a_flow_is_what_its_integration_leaves() -> None:
    velocity = smooth_field(4, amplitude=1.5)
    there, back = field.exponentiate(velocity), field.exponentiate(-velocity)
    left = float(losses.inverse_consistency(there, back))
    assert left < 1e-4
    # The displacement with its sign turned is far from doing as well.
    assert float(losses.inverse_consistency(there, -there)) > 50 * left


def test_inverse_consistency_has_the_derivatives_of_differences() -> None:
    u, w = (0.3 * smooth_field(s, (3, 4, 3), pinned=False) for s in (1, 2))
    u, w = u + 0.4, w - 0.4  # away from the nodes, where interpolation has a kink
    assert torch.autograd.gradcheck(
        losses.inverse_consistency, (u.requires_grad_(), w.requires_grad_())
    )


# ----------------------------------------------------------------------------------- soft_dice


def channels(*values: list[float]) -> torch.Tensor:
    """(1, C, X, 1, 1), one list a channel."""
    return torch.tensor(values).view(1, len(values), -1, 1, 1)


@pytest.mark.parametrize(
    ("fixed", "moved", "expected"),
    [
        pytest.param([[1, 1, 0, 0.0]], [[1, 1, 0, 0.0]], 0.0, id="same"),
        pytest.param([[1, 1, 0, 0.0]], [[0, 0, 1, 1.0]], 1.0, id="apart"),
        pytest.param([[1, 1, 0, 0.0]], [[1, 0, 1, 0.0]], 1 - 2 / 4, id="one of two"),
        pytest.param([[1, 1, 1, 0.0]], [[1, 0, 0, 0.0]], 1 - 2 / 4, id="part of"),
        pytest.param([[1, 1, 0, 0.0]], [[0.5, 0.5, 0.5, 0.5]], 1 - 2 / 4, id="probabilities"),
        pytest.param([[0, 0, 0, 0.0]], [[0, 0, 0, 0.0]], 0.0, id="empty on both sides"),
        pytest.param([[1, 1, 0, 0.0]], [[0, 0, 0, 0.0]], 1.0, id="empty on one side"),
        pytest.param(
            [[1, 1, 0, 0.0], [0, 0, 0, 0.0]], [[0, 1, 0, 0.0], [0, 0, 0, 0.0]],
            1 - (2 / 3 + 1) / 2, id="mean over channels",
        ),
    ],
)  # fmt: skip
def test_soft_dice_by_hand(
    fixed: list[list[float]], moved: list[list[float]], expected: float
) -> None:
    assert float(losses.soft_dice(moved=channels(*moved), fixed=channels(*fixed))) == pytest.approx(
        expected, abs=1e-5
    )


@pytest.mark.parametrize("dtype", [torch.uint8, torch.bool, torch.bfloat16, torch.float64])
def test_soft_dice_takes_masks_of_any_type(dtype: torch.dtype) -> None:
    """More voxels than bfloat16 can count (256) or uint8 can hold."""
    fixed, moved = (texture(s, (16, 16, 16)) > 0.5 for s in (1, 2))
    expected = 1 - 2 * int((fixed & moved).sum()) / int(fixed.sum() + moved.sum())
    got = losses.soft_dice(moved=moved.to(dtype), fixed=fixed.to(dtype))
    assert got.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert float(got) == pytest.approx(expected, abs=1e-6)


def test_soft_dice_weighs_each_channel_and_each_pair_alike() -> None:
    """A large structure in one pair does not drown a small one in the other."""
    first, second = channels([1] * 8), channels([1] + [0] * 7)
    moved = torch.cat([first, channels([0, 1] + [0] * 6)])
    got = losses.soft_dice(moved=moved.float(), fixed=torch.cat([first, second]).float())
    assert float(got) == pytest.approx(0.5, abs=1e-5)


def test_soft_dice_falls_along_its_gradient_to_perfect_overlap() -> None:
    fixed = (texture(1) > 0.5).float()
    logits = torch.zeros_like(fixed, requires_grad=True)
    for _ in range(50):
        (gradient,) = torch.autograd.grad(
            losses.soft_dice(moved=logits.sigmoid(), fixed=fixed), logits
        )
        logits = (logits - 2000 * gradient).detach().requires_grad_()
    assert losses.soft_dice(moved=logits.sigmoid(), fixed=fixed).item() < 0.02
