"""VoxelMorph has the layers of the authors' weights, and takes the images in their order."""

import pytest
import torch
from small_networks import built

from voxwarp.networks.catalogue import build
from voxwarp.networks.voxelmorph import VoxelMorph

VM1 = [32, 32, 32, 32, 8, 8]
VM2 = [32, 32, 32, 32, 32, 16, 16]


# Kernels in the authors' Keras files vm1_cc.h5 and vm2_cc.h5, (input, output) channels, in the
# order in which the layers run, the flow last. Every kernel is 3 × 3 × 3.
PUBLISHED = {
    "VoxelMorph-1": [
        (2, 16), (16, 32), (32, 32), (32, 32), (32, 32),
        (64, 32), (64, 32), (48, 32), (32, 8), (10, 8), (8, 3),
    ],
    "VoxelMorph-2": [
        (2, 16), (16, 32), (32, 32), (32, 32), (32, 32),
        (64, 32), (64, 32), (48, 32), (32, 32), (34, 16), (16, 16), (16, 3),
    ],
}  # fmt: skip


@pytest.mark.parametrize(("decoder", "name"), [(VM1, "VoxelMorph-1"), (VM2, "VoxelMorph-2")])
def test_the_layers_are_those_of_the_authors_weights(decoder: list[int], name: str) -> None:
    parameters = [tuple(p.shape) for p in VoxelMorph(decoder=decoder).parameters()]
    expected = [shape for i, o in PUBLISHED[name] for shape in ((o, i, 3, 3, 3), (o,))]
    assert parameters == expected


def test_the_default_voxelmorph_is_number_one() -> None:
    shapes = [p.shape for p in build({"name": "voxelmorph"}).parameters()]
    assert shapes == [p.shape for p in VoxelMorph(decoder=VM1).parameters()]


def test_voxelmorphs_displacement_is_the_unets_of_moving_and_fixed() -> None:
    """In this order: otherwise the authors' weights would register in the other direction."""
    network, moving, fixed = built("voxelmorph", 16, 20, 24)
    with torch.inference_mode():
        expected = network.unet(torch.cat([moving, fixed], dim=1))
        deformation = network(moving=moving, fixed=fixed)
    torch.testing.assert_close(deformation.displacement, expected, atol=1e-6, rtol=1e-5)
    assert torch.equal(deformation.regularity, deformation.displacement)
