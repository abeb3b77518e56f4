"""Compiled kernels against the plain PyTorch that says what they compute."""

import os
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from voxwarp.fields import compiled, field, filters

pytestmark = pytest.mark.skipif(not compiled.enabled(), reason="kernels are off or not installed")

SHAPES = {
    "odd": (11, 14, 17),
    "two voxels thick": (2, 9, 12),
    "two voxels wide": (9, 2, 12),
    "two voxels high": (9, 12, 2),
    "smallest": (2, 2, 2),
}


# Where a force acts in a grid of 15×12×20 voxels.
ACTS: dict[str, tuple[slice | int, ...]] = {
    "voxel": (..., 7, 2, 11),
    "rows": (..., slice(3, 5), slice(6, 9), slice(None)),
    "brain": (..., slice(4, 10), slice(3, 8), slice(6, 15)),
    "border": (..., slice(0, 2), slice(10, 12), slice(17, 20)),
    "none": (..., slice(0, 0)),
    "all": (...,),
}
BESIDE = [(7, 15), (2, 12), (11, 20)]  # the voxel, and the number of voxels along each axis


@pytest.fixture(autouse=True)
def _without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture(params=SHAPES.values(), ids=SHAPES.keys())
def shape(request: pytest.FixtureRequest) -> tuple[int, int, int]:
    return request.param


def random(shape: tuple[int, int, int], channels: int, *, seed: int = 0, size: float = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return size * torch.randn(1, channels, *shape, generator=generator)


def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on, nothing is compiled."""
    monkeypatch.setattr(compiled, "enabled", lambda: False)


@pytest.mark.parametrize("channels", [1, 3, 6])
@pytest.mark.parametrize("size", [0.0, 0.4, 30.0])
def test_a_volume_is_warped(shape, channels, size, monkeypatch) -> None:
    """Also far beyond the border, whose value holds there."""
    volume, u = random(shape, channels), random(shape, 3, seed=1, size=size)
    got = compiled.warp(volume, u)
    plain(monkeypatch)
    torch.testing.assert_close(got, field.warp(volume, u, padding="border"), atol=3e-5, rtol=0)


def test_the_identity_changes_no_bit(shape) -> None:
    volume = random(shape, 2)
    assert torch.equal(compiled.warp(volume, torch.zeros(1, 3, *shape)), volume)


def test_a_field_on_another_grid_may_warp(monkeypatch) -> None:
    """The displacement says how large the result is."""
    volume, u = random((7, 9, 8), 2), random((12, 5, 6), 3, seed=1)
    got = compiled.warp(volume, u)
    plain(monkeypatch)
    torch.testing.assert_close(got, field.warp(volume, u, padding="border"), atol=3e-5, rtol=0)


def test_fields_are_composed(shape, monkeypatch) -> None:
    outer, inner = random(shape, 3, size=0.7), random(shape, 3, seed=1)
    got = compiled.compose(outer, inner)
    plain(monkeypatch)
    torch.testing.assert_close(got, field.compose(outer, inner), atol=1e-5, rtol=0)


def test_a_field_is_inverted(shape, monkeypatch) -> None:
    """From a start that is far in some voxels and near in others; where it stretches, too."""
    u, start = random(shape, 3, size=0.3), random(shape, 3, seed=1, size=0.3)
    u = filters.gaussian(u, 1.0)
    got = field.invert(u, start=start)
    assert field.compose(u, got).abs().max() < 0.03
    got = field.invert(u, start=start, tolerance=1e-5)
    plain(monkeypatch)
    expected = field.invert(u, start=start, tolerance=1e-6)
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("sigma", [0.1, 0.35, 1.3, 3.0])
def test_a_field_is_smoothed(shape, sigma, monkeypatch) -> None:
    """Also where the Gaussian is wider than the volume."""
    u = random(shape, 3)
    got = compiled.gaussian(u, sigma)
    plain(monkeypatch)
    torch.testing.assert_close(got, filters.gaussian(u, sigma), atol=2e-6, rtol=0)


@pytest.mark.parametrize("sigma", [0.1, 0.42, 1.3, 3.0])
@pytest.mark.parametrize("ones", ["voxel", "rows", "brain", "border", "none", "all"])
def test_a_force_is_smoothed_where_it_acts(ones: str, sigma: float, monkeypatch) -> None:
    force = random((15, 12, 20), 3)
    where = torch.zeros(1, 1, 15, 12, 20)
    where[ACTS[ones]] = 1
    got, extents, mean = compiled.smooth_force(force * where, sigma)
    plain(monkeypatch)
    expected = filters.gaussian(force * where, sigma)
    torch.testing.assert_close(got, expected, atol=2e-6, rtol=0)
    assert mean == pytest.approx(float(expected.square().sum(1).sqrt().mean()), rel=1e-5)
    k = np.arange(20)
    outside = (k < extents[..., :1]) | (k >= extents[..., 1:])
    assert not expected[0].abs().amax(dim=0).numpy()[outside].any()
    if ones == "voxel":
        assert outside.sum() == 15 * 12 * 20 - np.prod(
            [1 + sum(min(int(4 * sigma + 0.5), d) for d in (at, n - 1 - at)) for at, n in BESIDE]
        )


def test_the_least_determinant_is_found(shape, monkeypatch) -> None:
    u = random(shape, 3)
    central, got = compiled.determinants(u)
    plain(monkeypatch)
    torch.testing.assert_close(got, field.jacobian_determinants(u)[1], atol=2e-5, rtol=1e-5)
    expected = field.jacobian_determinant(u)
    torch.testing.assert_close(central, expected, atol=2e-5, rtol=1e-5)


def test_fields_change_their_grid(shape) -> None:
    """By PyTorch's interpolation and its mean of blocks."""
    small = random(shape, 3)
    large = F.interpolate(small, scale_factor=2, mode="trilinear")
    torch.testing.assert_close(compiled.upsample(small, 2.0), 2 * large, atol=1e-5, rtol=0)
    onto = random(tuple(2 * n for n in shape), 3, seed=1)
    expected = onto + 0.5 * large
    torch.testing.assert_close(compiled.upsample(small, 0.5, onto), expected, atol=1e-5, rtol=0)
    blocks = F.avg_pool3d(onto, 2)
    torch.testing.assert_close(compiled.average(onto, 0.5), 0.5 * blocks, atol=1e-6, rtol=0)


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
def test_any_number_of_threads_gives_the_same_bytes(threads) -> None:
    u, w = random((13, 10, 12), 3), random((13, 10, 12), 3, seed=1)
    whole = field.invert(u, start=w), *compiled.smooth_force(u, 1.3)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        again = field.invert(u, start=w), *compiled.smooth_force(u, 1.3)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(whole[0], again[0])
    assert torch.equal(whole[1], again[1])
    assert whole[3] == again[3]


def test_arrays_in_any_order_are_taken() -> None:
    """Axes of a view that lie otherwise in memory."""
    u = random((12, 10, 11), 3).permute(0, 1, 4, 2, 3)
    expected = compiled.compose(u.contiguous(), u.contiguous())
    assert torch.equal(compiled.compose(u, u), expected)


def test_what_is_not_a_number_stays_where_it_is() -> None:
    """A NaN in a volume reaches its neighbours only, one in a displacement its own voxel."""
    volume, still = random((8, 9, 10), 1), torch.full((1, 3, 8, 9, 10), 0.25)
    volume[0, 0, 4, 4, 4] = torch.nan
    assert int(compiled.warp(volume, still).isnan().sum()) == 8
    volume, torn = random((8, 9, 10), 1), still.clone()
    torn[0, 1, 2, 3, 4] = torch.nan
    assert compiled.warp(volume, torn).isnan().nonzero().tolist() == [[0, 0, 2, 3, 4]]
    torn[0, 1, 2, 3, 4] = torch.inf
    assert not compiled.warp(volume, torn).isnan().any()


def test_what_kernels_cannot_take_goes_the_plain_way() -> None:
    fine = random((4, 5, 6), 3)
    assert compiled.can_take(fine)
    for other in (
        fine.double(),
        fine[:, :, :1],
        fine[0],
        fine.to("meta"),
    ):
        assert not compiled.can_take(other)
    with torch.enable_grad():
        assert not compiled.can_take(fine.clone().requires_grad_())


def test_they_can_be_turned_off(monkeypatch) -> None:
    compiled.enabled.cache_clear()
    monkeypatch.setenv("VOXWARP_KERNELS", "off")
    try:
        assert not compiled.enabled()
    finally:
        monkeypatch.undo()
        compiled.enabled.cache_clear()
    assert compiled.enabled()


def test_memory_is_never_shared_with_the_input() -> None:
    """A result that is changed afterwards leaves what it was made of as it was."""
    u = random((6, 5, 7), 3)
    before = u.clone()
    for made in (compiled.compose(u, u), compiled.gaussian(u, 0.5)[0], compiled.warp(u, u)):
        made.zero_()
    assert torch.equal(u, before)
    assert np.isfinite(u.numpy()).all()


@pytest.mark.parametrize("channels", [3, 4, 10])
@pytest.mark.parametrize("classes", [1, 2, 33, 145])
def test_classes_are_those_of_a_softmax(channels: int, classes: int) -> None:
    """Of embeddings in bf16 and channels-last, as a network gives them, in float64."""
    e = random((5, 6, 7), channels)[0].bfloat16()
    directions, bias, projection = (
        random((classes, n, 1), 1, seed=n, size=3)[0, 0, :, :, 0] for n in (channels, 1, 6)
    )
    inside = random((5, 6, 7), 1)[0, 0] > 0
    last = e.to(memory_format=torch.preserve_format).movedim(0, -1).contiguous().movedim(-1, 0)
    for normalise in (False, True):
        got = compiled.class_maps(
            last,
            inside,
            normalise=normalise,
            directions=directions,
            bias=bias[:, 0],
            projection=projection,
        )
        vectors = e.double().movedim(0, -1)
        vectors = F.normalize(vectors, dim=-1) if normalise else vectors
        odds = vectors @ directions.double().T + bias[:, 0].double()
        expected = (odds.softmax(dim=-1) @ projection.double()).movedim(-1, 0).float()
        expected[:, ~inside] = projection[0][:, None]
        torch.testing.assert_close(got, expected, atol=3e-5, rtol=0)


KEPT = """
import sys
from pathlib import Path
import numpy as np
import numba.core.caching as caching
from voxwarp.fields import compiled

def full(*_):
    raise OSError(28, "No space left on device")

if sys.argv[1] == "full":
    caching.IndexDataCacheFile._save_data = full
points = compiled.GridMap.of(np.eye(4))
assert (compiled.nearest_voxels((2, 2, 2), (2, 2, 2), points).ravel() == range(8)).all()
if sys.argv[1] == "spoil":
    for path in Path(sys.argv[2]).rglob("*.nbi"):
        path.write_bytes(b"")
"""


def test_code_that_cannot_be_kept_or_is_damaged_is_compiled_again(tmp_path) -> None:
    """The cache of compiled code on a full disk, and after a power failure."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    for what in ("full", "spoil", "again"):
        words = [sys.executable, "-c", KEPT, what, str(tmp_path)]
        done = subprocess.run(words, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
