"""Imported weights of the paper's authors compute what their network does."""

from pathlib import Path

import pytest
import torch
from keras_weights import PUBLISHED, keras_voxelmorph, published

from voxwarp.networks.keras import import_keras


@pytest.mark.data
@pytest.mark.parametrize("name", PUBLISHED)
def test_imported_weights_compute_what_the_authors_network_does(data: Path, name: str):
    weights = published(name, data)
    generator = torch.Generator().manual_seed(5)
    moving, fixed = torch.rand((2, 1, 1, 32, 48, 16), generator=generator)
    model = import_keras(weights)
    with torch.no_grad():
        expected = keras_voxelmorph(weights, moving, fixed)
        ours = model.network(moving=moving, fixed=fixed).displacement
    # Component 0 of the file's flow moves along the second axis, 1 along the first.
    expected = expected[:, [1, 0, 2]]
    assert expected.abs().max() > 0.1
    assert not torch.allclose(expected[:, 0], expected[:, 1], atol=0.05)
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-4)
