"""Read the VoxelMorph weights that the authors of CVPR 2018 published as Keras files."""

import os
from pathlib import Path

import numpy as np
import torch

from .._files import check_readable
from ..errors import InputError
from ..preparation.recipe import Recipe
from .model import Model
from .voxelmorph import VoxelMorph

_ENCODER = [16, 32, 32, 32]
_DECODERS = {10: [32, 32, 32, 32, 8, 8], 11: [32, 32, 32, 32, 32, 16, 16]}


def import_keras(path: str | os.PathLike[str]) -> Model:
    """Import VoxelMorph-1 or -2 from a Keras HDF5 file.

    Keras stores kernels as (x, y, z, in, out), PyTorch as (out, in, x, y, z). The authors' flow has
    its first two components exchanged ('xy' order); this is corrected in the last layer.

    Raises:
        InputError: the file does not exist, is no HDF5 file, or has other layers than VoxelMorph.
    """
    layers = _layers(Path(path))
    decoder = _DECODERS.get(len(layers) - 1)
    if decoder is None:
        raise InputError(
            f"weights {path}: VoxelMorph has 11 or 12 convolution layers (with the flow), but this "
            f"file has {len(layers)}"
        )
    architecture = {"name": "voxelmorph", "encoder": _ENCODER, "decoder": decoder}
    network = VoxelMorph(_ENCODER, decoder)
    unet = network.unet
    for layer, (kernel, bias) in zip([*unet.down, *unet.up, unet.flow], layers, strict=True):
        weight = torch.from_numpy(np.moveaxis(kernel, (-1, -2), (0, 1)).copy())
        if weight.shape != layer.weight.shape or bias.shape != (layer.out_channels,):
            raise InputError(
                f"weights {path}: a convolution has a kernel of shape {tuple(weight.shape)}, where "
                f"VoxelMorph has {tuple(layer.weight.shape)}; only VoxelMorph-1 and -2 of the "
                f"paper can be imported"
            )
        layer.load_state_dict({"weight": weight, "bias": torch.from_numpy(bias)})
    swapped = {key: value[[1, 0, 2]] for key, value in unet.flow.state_dict().items()}
    unet.flow.load_state_dict(swapped)
    card = {
        "origin": f"imported from {Path(path).name}",
        "licence": "that of the file's authors",
    }
    return Model(network, architecture, Recipe(), card, name=Path(path).stem)


def _layers(path: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """Kernel and bias of each convolution, in the order in which they run; the flow is last."""
    import h5py

    check_readable(path, "weights")
    try:
        with h5py.File(path) as file:
            weights = file.get("model_weights", file)
            names = [name for name in weights if name.startswith("conv3d")]
            names.sort(key=lambda name: int(name.rpartition("_")[2]) if "_" in name else 0)
            groups = [weights[name][name] for name in [*names, "flow"]]
            return [(np.asarray(g["kernel:0"]), np.asarray(g["bias:0"])) for g in groups]
    except (OSError, KeyError, ValueError) as error:
        raise InputError(
            f"weights {path}: not a Keras file of VoxelMorph, or damaged ({error})"
        ) from error
