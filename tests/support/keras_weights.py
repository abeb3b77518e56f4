"""Weights as Keras wrote them, read and run without voxwarp: what importing is measured by."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

PUBLISHED = "vm1_cc", "vm2_cc"


def published(name: str, data: Path) -> Path:
    """The authors' file of one of the two networks; skips where it is not there."""
    path = data.parent / "peers" / "voxelmorph-cvpr2018" / f"{name}.h5"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    return path


def keras_layers(path: Path) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Kernels as PyTorch has them and biases, in the order the file itself names the layers."""
    import h5py

    with h5py.File(path) as file:
        group = file.get("model_weights", file)
        layers = {}
        for name in (n.decode() if isinstance(n, bytes) else n for n in group.attrs["layer_names"]):
            found: dict[str, np.ndarray] = {}
            group[name].visititems(
                lambda key, item, found=found: (
                    found.update({key.rpartition("/")[2]: np.asarray(item)})
                    if isinstance(item, h5py.Dataset)
                    else None
                )
            )
            if found:
                kernel = torch.from_numpy(found["kernel:0"]).permute(4, 3, 0, 1, 2).contiguous()
                layers[name] = kernel, torch.from_numpy(found["bias:0"])
    return layers


def keras_voxelmorph(path: Path, moving: torch.Tensor, fixed: torch.Tensor) -> torch.Tensor:
    """VoxelMorph of CVPR 2018 as its README describes it, layer by layer: flow in 'xy' order."""
    layers = keras_layers(path)
    *names, flow = layers
    assert flow == "flow"
    rest = iter(names)

    def block(x: torch.Tensor, *, stride: int = 1) -> torch.Tensor:
        # 'same' in Keras: with stride 2 and even sides one zero, behind; with stride 1 both sides.
        x = F.pad(x, (0, 1) * 3 if stride == 2 else (1, 1) * 3)
        kernel, bias = layers[next(rest)]
        return F.leaky_relu(F.conv3d(x, kernel, bias, stride=stride), 0.2)

    def up(x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        for axis in (2, 3, 4):
            x = x.repeat_interleave(2, dim=axis)
        return torch.cat([x, skip], dim=1)

    pair = torch.cat([moving, fixed], dim=1)
    half = block(pair, stride=2)
    quarter = block(half, stride=2)
    eighth = block(quarter, stride=2)
    x = block(block(eighth, stride=2))
    x = block(up(x, eighth))
    x = block(up(x, quarter))
    x = block(block(up(x, half)))
    x = block(up(x, pair))
    for _ in range(len(names) - 10):
        x = block(x)
    assert next(rest, None) is None
    kernel, bias = layers[flow]
    return F.conv3d(x, kernel, bias, padding=1)
