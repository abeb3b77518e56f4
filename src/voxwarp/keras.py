"""Read VoxelMorph weights that Keras saved, as the authors of CVPR 2018 published them."""

import os
from pathlib import Path

import numpy as np
import torch

from .errors import InputError
from .grid import Grid
from .model import Model, Recipe

# As FreeSurfer conforms scans, axes L, I, A at 1 mm, cropped around an affinely aligned brain.
_GRID = Grid((160, 192, 224), [[-1, 0, 0, 79.5], [0, 0, 1, -128], [0, -1, 0, 101], [0, 0, 0, 1]])
_DECODERS = {10: [32, 32, 32, 32, 8, 8], 11: [32, 32, 32, 32, 32, 16, 16]}


def import_keras(path: str | os.PathLike[str]) -> Model:
    """The VoxelMorph-1 or -2 whose weights a Keras HDF5 file holds.

    Keras stores kernels as (x, y, z, in, out) and PyTorch as (out, in, x, y, z). The authors'
    flow has its first two components exchanged ('xy' order); the last layer is put right here.

    Raises:
        InputError: the file is missing, no HDF5, or its layers are not VoxelMorph's.
    """
    layers = _layers(Path(path))
    decoder = _DECODERS.get(len(layers) - 1)
    if decoder is None:
        raise InputError(
            f"weights {path}: VoxelMorph has 10 or 11 convolutions and a flow, found {len(layers)}"
        )
    architecture = {"name": "voxelmorph", "encoder": [16, 32, 32, 32], "decoder": decoder}
    model = Model.build(architecture, Recipe(_GRID), name=Path(path).stem)
    unet = model.network.unet
    for layer, (kernel, bias) in zip([*unet.down, *unet.up, unet.flow], layers, strict=True):
        weight = torch.from_numpy(kernel.transpose(4, 3, 0, 1, 2).copy())
        if weight.shape != layer.weight.shape or bias.shape != tuple(layer.bias.shape):
            raise InputError(
                f"weights {path}: a convolution of shape {tuple(weight.shape)} is not VoxelMorph's, "
                f"which has {tuple(layer.weight.shape)} there"
            )
        layer.weight.data.copy_(weight)
        layer.bias.data.copy_(torch.from_numpy(bias))
    swap = [1, 0, 2]
    unet.flow.weight.data.copy_(unet.flow.weight.data[swap].clone())
    unet.flow.bias.data.copy_(unet.flow.bias.data[swap].clone())
    model.card = {
        "origin": f"imported from {Path(path).name}",
        "licence": "see the weights' origin",
    }
    return model


def _layers(path: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """Kernel and bias of the convolutions in the order they run, the flow last."""
    if not path.is_file():
        raise InputError(f"weights {path}: no such file")
    try:
        import h5py
    except ModuleNotFoundError as error:
        raise InputError(
            "reading Keras weights needs h5py: pip install 'voxwarp[keras]'"
        ) from error
    try:
        with h5py.File(path) as file:
            weights = file["model_weights"] if "model_weights" in file else file
            names = [name for name in weights if name.startswith("conv3d")]
            names.sort(key=lambda name: int(name.rpartition("_")[2]) if "_" in name else 0)
            groups = [weights[name][name] for name in [*names, "flow"]]
            return [(np.asarray(g["kernel:0"]), np.asarray(g["bias:0"])) for g in groups]
    except (OSError, KeyError, ValueError) as error:
        raise InputError(f"weights {path}: no Keras file of VoxelMorph ({error})") from error
