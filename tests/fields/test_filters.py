"""Filters against SciPy's and against the sums that they stand for."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from voxwarp.fields.filters import gaussian, window_mean

SHAPE = (7, 9, 8)
FILTERS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "gaussian": lambda x: gaussian(x, 1.3),
    "window_mean": lambda x: window_mean(x, 5),
}


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-14)])
@pytest.mark.parametrize("sigma", [0.1, 0.42, 1.0, 1.3, 4.0])  # 4: wider than the volume
def test_the_gaussian_is_scipys(sigma: float, dtype: torch.dtype, tolerance: float) -> None:
    x = noise(1, 1, *SHAPE)
    got = gaussian(x.to(dtype), sigma)
    expected = gaussian_filter(x[0, 0].numpy(), sigma, mode="nearest", truncate=4.0)
    assert got.dtype == dtype
    np.testing.assert_allclose(got[0, 0].numpy(), expected, atol=tolerance)


def test_a_gaussian_of_no_width_changes_nothing() -> None:
    x = noise(2, 3, *SHAPE)
    assert torch.equal(gaussian(x, 0), x)


@pytest.mark.parametrize("window", [1, 3, 5, 11])  # 11: wider than the volume
def test_the_mean_over_a_window_is_that_of_its_voxels_inside(window: int) -> None:
    x = noise(1, 1, *SHAPE)
    got = window_mean(x, window)[0, 0]
    for at in itertools.product(*map(range, SHAPE)):
        around = tuple(slice(max(i - window // 2, 0), i + window // 2 + 1) for i in at)
        assert float(got[at]) == pytest.approx(float(x[0, 0][around].mean()), abs=1e-13)


@pytest.mark.parametrize("name", FILTERS)
def test_a_constant_stays_as_it_is(name: str) -> None:
    x = torch.full((1, 2, *SHAPE), 3.7, dtype=torch.float64)
    torch.testing.assert_close(FILTERS[name](x), x, atol=1e-13, rtol=0)


@pytest.mark.parametrize("name", FILTERS)
def test_each_sample_and_channel_is_filtered_by_itself_however_it_lies_in_memory(name: str) -> None:
    x = noise(2, 3, *SHAPE)
    got = FILTERS[name](x)
    strided = FILTERS[name](x.contiguous(memory_format=torch.channels_last_3d))
    torch.testing.assert_close(strided, got, atol=1e-14, rtol=0)
    for b, c in itertools.product(range(2), range(3)):
        alone = FILTERS[name](x[b : b + 1, c : c + 1])
        torch.testing.assert_close(got[b : b + 1, c : c + 1], alone, atol=1e-14, rtol=0)


@pytest.mark.parametrize("name", FILTERS)
def test_autocast_takes_no_digits_away(name: str) -> None:
    """The convolutions of networks run under it, and variances do not survive bf16."""
    x = noise(1, 1, *SHAPE).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = FILTERS[name](x)
    assert got.dtype == torch.float32
    assert torch.equal(got, FILTERS[name](x))


@pytest.mark.parametrize("name", FILTERS)
def test_the_gradient_is_that_of_differences(name: str) -> None:
    x = noise(1, 1, 3, 4, 3)
    with torch.inference_mode():
        FILTERS[name](x)  # what it keeps of this must not be in the way of a gradient
    assert torch.autograd.gradcheck(FILTERS[name], (x.clone().requires_grad_(),))
