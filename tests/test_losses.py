"""Losses against float64 sums over every window, and values worked out by hand."""

import itertools

import numpy as np
import pytest
import torch

from phantoms import blobs, linear_field, smooth_field
from voxwarp import losses


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
    cc = losses.local_ncc_map(fixed, moved, window=window, eps=eps)
    np.testing.assert_allclose(cc[0, 0].numpy(), expected, atol=1e-10)
    loss = losses.local_ncc(fixed, moved, window=window, eps=eps)
    assert float(loss) == pytest.approx(-expected.mean(), abs=1e-10)


def test_local_ncc_of_an_image_thinner_than_the_window() -> None:
    fixed, other = texture(1, (11, 10, 5)), texture(2, (11, 10, 5))
    moved = 0.6 * fixed + 0.4 * other
    expected = brute_force_ncc(fixed[0, 0].numpy(), moved[0, 0].numpy(), 9, 1e-5)
    cc = losses.local_ncc_map(fixed, moved)
    np.testing.assert_allclose(cc[0, 0].numpy(), expected, atol=1e-10)


def test_local_ncc_in_float32_does_not_cancel_where_images_are_bright() -> None:
    """E[x²] − E[x]² of values near 1 with a spread of 0.003 loses half of float32's digits."""
    fixed = 0.95 + 0.01 * texture(1)
    moved = 0.9 + 0.01 * (0.6 * texture(1) + 0.4 * texture(2))
    expected = brute_force_ncc(fixed[0, 0].numpy(), moved[0, 0].numpy(), 9, 1e-5)
    cc = losses.local_ncc_map(fixed.float(), moved.float())
    assert 0.1 < expected.mean() < 0.9
    np.testing.assert_allclose(cc[0, 0].numpy(), expected, atol=2e-3)


def test_local_ncc_is_minus_one_for_the_same_image_and_near_zero_for_noise() -> None:
    fixed, other = texture(1, (16, 17, 18)), texture(2, (16, 17, 18))
    assert float(losses.local_ncc(fixed, fixed)) == pytest.approx(-1, abs=1e-6)
    # The squared correlation of n independent samples has the mean 1/(n − 1).
    assert -0.01 < float(losses.local_ncc(fixed, other)) < -1 / 9**3 / 2


@pytest.mark.parametrize("seed", range(5))
def test_local_ncc_stays_between_minus_one_and_zero(seed: int) -> None:
    rng = np.random.default_rng(seed)
    images = [torch.from_numpy(blobs(s, (12, 13, 14)))[None, None] for s in (seed, seed + 50)]
    images += [images[0] * rng.uniform(0.5, 2), torch.round(images[0]), torch.ones_like(images[0])]
    for fixed, moved in itertools.product(images, images):
        cc = losses.local_ncc_map(fixed, moved)
        assert cc.min() >= 0
        assert cc.max() <= 1
        assert -1 <= float(losses.local_ncc(fixed, moved)) <= 0


@pytest.mark.parametrize(("gain", "offset"), [(2.5, -0.3), (-0.7, 1.0), (0.2, 0.6)])
def test_local_ncc_does_not_see_gain_and_offset(gain: float, offset: float) -> None:
    fixed, moved = texture(1), 0.6 * texture(1) + 0.4 * texture(2)
    before = losses.local_ncc_map(fixed, moved)
    after = losses.local_ncc_map(fixed, gain * moved + offset)
    torch.testing.assert_close(after, before, atol=1e-6, rtol=0)


def test_local_ncc_hardly_sees_a_smooth_bias_that_defeats_global_correlation() -> None:
    shape = (24, 24, 24)
    fixed = texture(1, shape)
    ramp = torch.linspace(-1, 1, 24, dtype=torch.float64).view(1, 1, 24, 1, 1)
    moved = fixed * (1 + 0.3 * ramp) + 2 * ramp
    local = float(losses.local_ncc_map(fixed, moved, window=3).mean())
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
        cc = losses.local_ncc_map(fixed, moved)
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
    loss = losses.local_ncc(fixed, moved)
    loss.backward()
    assert -1e-3 < loss.item() <= 0
    assert moved.grad.isfinite().all()


def test_local_ncc_has_the_derivatives_of_differences() -> None:
    fixed, moved = texture(1, (4, 4, 3)), texture(2, (4, 4, 3))
    assert torch.autograd.gradcheck(
        lambda f, m: losses.local_ncc(f, m, window=3),
        (fixed.requires_grad_(), moved.requires_grad_()),
    )


def test_losses_keep_float32_under_autocast() -> None:
    fixed, moved = texture(1).float(), (0.6 * texture(1) + 0.4 * texture(2)).float()
    velocity = smooth_field(1, (11, 10, 9)).float()

    def values() -> list[torch.Tensor]:
        return [
            losses.local_ncc(fixed, moved),
            losses.mse(fixed, moved),
            losses.soft_dice(fixed, moved),
            losses.diffusion(velocity),
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
    expected = losses.local_ncc(fixed.double(), moved.double())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = losses.local_ncc(fixed, moved)
    assert float(got) == pytest.approx(float(expected), abs=1e-4)


@pytest.mark.parametrize("window", [2, 8, 1, -3])
def test_local_ncc_wants_an_odd_window(window: int) -> None:
    with pytest.raises(ValueError, match=f"window .* got {window}"):
        losses.local_ncc(texture(1), texture(2), window=window)


# ------------------------------------------------------------------------------ mse, diffusion


def test_mse_is_the_mean_squared_difference() -> None:
    fixed, moved = texture(1), texture(2)
    expected = np.mean((fixed.numpy() - moved.numpy()) ** 2)
    assert float(losses.mse(fixed, moved)) == pytest.approx(expected, rel=1e-6)
    assert float(losses.mse(fixed, fixed)) == 0


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
    assert float(losses.soft_dice(channels(*fixed), channels(*moved))) == pytest.approx(
        expected, abs=1e-5
    )


def test_soft_dice_weighs_each_channel_and_each_pair_alike() -> None:
    """A large structure in one pair does not drown a small one in the other."""
    first, second = channels([1] * 8), channels([1] + [0] * 7)
    moved = torch.cat([first, channels([0, 1] + [0] * 6)])
    got = losses.soft_dice(torch.cat([first, second]).float(), moved.float())
    assert float(got) == pytest.approx(0.5, abs=1e-5)


def test_soft_dice_falls_along_its_gradient_to_perfect_overlap() -> None:
    fixed = (texture(1) > 0.5).float()
    logits = torch.zeros_like(fixed, requires_grad=True)
    for _ in range(50):
        (gradient,) = torch.autograd.grad(losses.soft_dice(fixed, logits.sigmoid()), logits)
        logits = (logits - 2000 * gradient).detach().requires_grad_()
    assert losses.soft_dice(fixed, logits.sigmoid()).item() < 0.02
