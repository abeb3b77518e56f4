"""Forces by compiled kernels against those by plain PyTorch."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from voxwarp.fields import compiled, field, filters
from voxwarp.networks import descent
from voxwarp.networks.forces import CorrelationForce, DifferenceForce

pytestmark = pytest.mark.skipif(not compiled.enabled(), reason="kernels are off or not installed")

SHAPE = (12, 10, 14)
STAGE = descent.Stage(1, 1, smoothing=0.35, step_length=0.4)
Force = CorrelationForce | DifferenceForce


@pytest.fixture(autouse=True)
def _without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def image(seed: int, channels: int = 1, shape: tuple[int, ...] = SHAPE) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, channels, *(n // 2 for n in shape), generator=generator)
    return field.F.interpolate(coarse, size=shape, mode="trilinear")


def flat(channels: int = 1) -> Tensor:
    return torch.full((1, channels, *SHAPE), 0.5)


def brain(seed: int, channels: int = 1, *, background: float = 0.0) -> Tensor:
    """An image with a background of one value around a part that reaches one border."""
    out = torch.full((1, channels, *SHAPE), background)
    part = (..., slice(3, 9), slice(0, 6), slice(4, 11))
    out[part] = image(seed, channels)[part]
    return out


def maps_of_brains(fixed_background: float) -> DifferenceForce:
    moving, fixed = brain(4, 5, background=0.3), brain(5, 5, background=fixed_background)
    return DifferenceForce(moving=moving, fixed=fixed.roll(2, dims=4), weight=3.0, ratio=1)


def maps(coarse: int) -> DifferenceForce:
    shape = tuple(n // coarse for n in SHAPE)
    return DifferenceForce(
        moving=image(4, 5, shape), fixed=image(5, 5, shape), weight=3.0, ratio=coarse
    )


FORCES: dict[str, Callable[[], Force]] = {
    "correlation in windows of 3": lambda: CorrelationForce(
        moving=image(1), fixed=image(2), window=3
    ),
    "correlation in windows of 5": lambda: CorrelationForce(
        moving=image(1), fixed=image(2), window=5
    ),
    "correlation, windows wider than the image": lambda: CorrelationForce(
        moving=image(1), fixed=image(2), window=25
    ),
    "correlation of flat images": lambda: CorrelationForce(moving=flat(), fixed=flat(), window=3),
    "correlation with a flat image": lambda: CorrelationForce(
        moving=flat(), fixed=image(2), window=3
    ),
    "correlation of brains": lambda: CorrelationForce(moving=brain(1), fixed=brain(2), window=3),
    "correlation of brains, wide windows": lambda: CorrelationForce(
        moving=brain(1), fixed=brain(2), window=7
    ),
    "maps of brains": lambda: maps_of_brains(0.3),
    "maps with other backgrounds": lambda: maps_of_brains(0.2),
    "maps on the same grid": lambda: maps(1),
    "maps of half the resolution": lambda: maps(2),
}


@pytest.mark.parametrize("name", FORCES)
@pytest.mark.parametrize("added", [False, True])
def test_kernels_pull_as_plain_pytorch_does(name: str, added: bool, monkeypatch) -> None:
    u = 1.5 * (image(7, 3) - 0.5)
    onto = image(8, 3) if added else None
    force = FORCES[name]()
    got, likeness = force(u, None if onto is None else onto.clone())
    monkeypatch.setattr(compiled, "enabled", lambda: False)
    expected, of_plain = FORCES[name]()(u, onto)
    torch.testing.assert_close(got, expected, atol=2e-4, rtol=1e-4)  # of forces of size 1
    assert likeness == pytest.approx(of_plain, abs=1e-6, rel=1e-5)


def test_a_step_follows_the_levelled_force(monkeypatch) -> None:
    u, force = image(7, 3) - 0.5, image(8, 3) - 0.5
    force[:, :, :4] = 0
    got = descent.take_step(u, force, STAGE)
    monkeypatch.setattr(compiled, "enabled", lambda: False)
    torch.testing.assert_close(got, descent.take_step(u, force, STAGE), atol=1e-5, rtol=0)


def test_steps_with_momentum_are_those_of_plain_pytorch(monkeypatch) -> None:
    """The force of the second step is zero in other places than that of the first."""
    u, forces = image(7, 3) - 0.5, [image(8, 3) - 0.5, image(9, 3) - 0.5]
    forces[0][:, :, :6], forces[1][..., 6:] = 0, 0

    def moved() -> Tensor:
        displacement, momentum = u, descent.Momentum(0.5)
        for force in forces:
            displacement = descent.take_step(displacement, force, STAGE, momentum)
        return displacement

    got = moved()
    monkeypatch.setattr(compiled, "enabled", lambda: False)
    torch.testing.assert_close(got, moved(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.8])
@pytest.mark.parametrize("is_compiled", [True, False])
def test_directions_add_up_as_a_geometric_series(share, is_compiled, monkeypatch) -> None:
    """Under a force that is 1 everywhere, the n-th step is Σ share^k, k < n, of the first."""
    if not is_compiled:
        monkeypatch.setattr(compiled, "enabled", lambda: False)
    force = torch.zeros(1, 3, 8, 9, 10)
    force[:, 0] = 1
    momentum, u, moves = descent.Momentum(share), torch.zeros_like(force), []
    for _ in range(5):
        before, u = u, descent.take_step(u, force, STAGE, momentum)
        moves.append(u - before)
    first = STAGE.step_length / 4  # its length is the mean: L · F / (F + 3 F)
    for number, move in enumerate(moves):
        expected = first * sum(share**k for k in range(number + 1))
        torch.testing.assert_close(move[:, 0], torch.full_like(move[:, 0], expected))
        assert not move[:, 1:].any()


def test_without_a_force_nothing_moves() -> None:
    u = image(7, 3) - 0.5
    assert torch.equal(descent.take_step(u, torch.zeros_like(u), STAGE), filters.gaussian(u, 0.35))


def test_a_descent_ends_where_plain_pytorch_ends(monkeypatch) -> None:
    """Many steps, three stages: 0.02 voxels at the 99.9th percentile."""
    moving, fixed = image(1, shape=(32, 24, 40)), image(2, shape=(32, 24, 40))
    features = descent.Features(image(4, 5, (16, 12, 20)), image(5, 5, (16, 12, 20)), 3.0)
    plan = descent.DescentSettings([descent.Stage(4, 8), descent.Stage(2, 8), descent.Stage(1, 4)])

    def both() -> tuple[Tensor, Tensor]:
        return descent.descend(plan, moving=moving, fixed=fixed, features=features)

    got = both()
    monkeypatch.setattr(compiled, "enabled", lambda: False)
    for ours, plain in zip(got, both(), strict=True):
        assert plain.abs().max() > 1
        assert (ours - plain).abs().flatten().quantile(0.999) < 0.02
