"""Networks with a velocity: it integrates to the deformation, and exchanged images negate it."""

import pytest
import torch
from small_networks import WITH_VELOCITY, built
from torch import Tensor

from voxwarp.fields import field


@pytest.mark.parametrize("name", WITH_VELOCITY)
@pytest.mark.parametrize("shape", [(24, 16, 32), (19, 23, 17)])
def test_exchanging_the_images_negates_the_velocity(name: str, shape: tuple[int, ...]) -> None:
    network, moving, fixed = built(name, *shape)
    with torch.inference_mode():
        one = network(moving=moving, fixed=fixed)
        exchanged = network(moving=fixed, fixed=moving)
    assert one.regularity.abs().max() > 0.5
    torch.testing.assert_close(one.regularity, -exchanged.regularity, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", WITH_VELOCITY)
def test_an_image_registered_to_itself_does_not_move(name: str) -> None:
    network, moving, fixed = built(name, 24, 16, 32)
    with torch.inference_mode():
        still = network(moving=moving, fixed=moving.clone())
        assert network(moving=moving, fixed=fixed).displacement.abs().max() > 0.5
    assert still.displacement.abs().max() < 1e-5


@pytest.mark.parametrize("name", WITH_VELOCITY)
def test_both_directions_undo_each_other(name: str) -> None:
    network, moving, fixed = built(name, 24, 32, 32, size=0.8)
    with torch.inference_mode():
        displacement = network(moving=moving, fixed=fixed).displacement
        inverse = network(moving=fixed, fixed=moving).displacement

    def left(outer: Tensor, inner: Tensor) -> Tensor:
        """The composition of two fields, without three voxels at the border."""
        return field.compose(outer, inner)[(..., *(slice(3, -3),) * 3)]

    assert displacement.abs().max() > 1
    for outer, inner in ((displacement, inverse), (inverse, displacement)):
        remainder, size = left(outer, inner), inner.square().mean().sqrt()
        assert remainder.abs().max() < 0.15 * inner.abs().max()
        assert remainder.square().mean().sqrt() < 0.06 * size
        # The negative displacement is a much worse inverse.
        negated = left(-inner, inner).square().mean().sqrt()
        assert remainder.square().mean().sqrt() < 0.35 * negated
    assert field.jacobian_determinant(displacement).min() > 0


@pytest.mark.parametrize("name", WITH_VELOCITY)
def test_the_velocity_is_integrated_at_half_resolution(name: str) -> None:
    network, moving, fixed = built(name, 24, 16, 32)
    with torch.inference_mode():
        deformation = network(moving=moving, fixed=fixed)
    velocity = deformation.regularity
    assert velocity.shape == (1, 3, 12, 8, 16)
    expected = field.upsample(field.exponentiate(velocity, steps=7))
    torch.testing.assert_close(deformation.displacement, expected, atol=1e-5, rtol=0)
