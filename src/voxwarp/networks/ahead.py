"""Compile the kernels of a registration in a second process, while the first begins its work.

    python -m voxwarp.networks.ahead

It compiles them in the reverse order of their use. So the two processes meet in the middle, and
each takes from the cache folder what the other has compiled. Two threads would not do: the
compiler works on one function at a time.

    python -m voxwarp.networks.ahead FOLDER

writes them, and those of other commands, for a class of processors into a folder that can be read
from everywhere: $VOXWARP_READY_KERNELS. Containers have such a folder.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from .._device import has_bfloat16
from ..fields import compiled, field
from ..fields.folds import remove_folds
from ..fields.kernels import processor
from ..fields.kernels.jit import keeps_code
from ..fields.losses import diffusion, local_ncc, local_ncc_map
from .descent import Momentum, Stage, take_step
from .forces import CorrelationForce, DifferenceForce

_started: list[subprocess.Popen[bytes]] = []  # Python complains about one that is forgotten


def start() -> None:
    """Start the second process, if code is kept for others and there is a processor for it."""
    if _started or not keeps_code() or torch.get_num_threads() < 2:
        return
    quiet = subprocess.DEVNULL
    command = [sys.executable, "-m", __name__]
    _started.append(subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet))


def compile_all(*, others: bool = False) -> None:
    """Compile all kernels of a registration: call each on a few voxels.

    Args:
        others: also those of other commands and other models.
    """
    torch.set_num_threads(1)
    for _ in _calls():
        pass
    if others:
        for _ in _other_calls():
            pass


def _calls() -> Iterator[object]:
    """Call the kernels, those that a registration needs last first."""
    image, field_ = torch.rand(1, 1, 4, 4, 4), torch.zeros(1, 3, 4, 4, 4)
    to_voxels = compiled.GridMap.of(np.eye(4))
    folded = -2 * field.identity_grid((4, 4, 4), image)
    with torch.no_grad():
        yield compiled.resample(image[0, 0].numpy(), (4, 4, 4), to_voxels)
        yield field.invert(field_, start=field_)
        yield compiled.resample_field(field_[0].numpy(), (4, 4, 4), to_voxels, extend=True)
        yield compiled.upsample(field_, 2.0)
        yield remove_folds(folded, min_determinant=0.02, rounds=1)
        yield compiled.determinants(field_)
        yield take_step(field_, field_, Stage(1, 1), Momentum(0.5))
        yield DifferenceForce(moving=image, fixed=image, weight=1.0, ratio=1)(field_)
        yield CorrelationForce(moving=image, fixed=image, window=3)(field_)
        yield compiled.average(field_)
        is_narrow = has_bfloat16(torch.device("cpu"))
        yield _class_maps(torch.bfloat16 if is_narrow else torch.float32)
    points = (field.identity_grid((4, 4, 4), image) + 0.1).requires_grad_()
    moved = field.sample(image, points)
    yield local_ncc_map(moved=moved, fixed=image, window=3).sum().backward()


def _class_maps(dtype: torch.dtype) -> torch.Tensor:
    """The maps of a few embeddings of a type, which is that of the convolutions."""
    return compiled.class_maps(
        torch.rand(4, 4, 4, 4).to(dtype),
        torch.rand(4, 4, 4) > 0.5,
        normalise=True,
        directions=torch.rand(2, 4),
        bias=torch.rand(2),
        projection=torch.rand(2, 1),
    )


def _other_calls() -> Iterator[object]:
    """Call the kernels that only some registrations, other commands and trainings need."""
    image, field_ = torch.rand(1, 1, 4, 4, 4), torch.zeros(1, 3, 4, 4, 4)
    with torch.no_grad():
        yield _class_maps(torch.bfloat16)
        yield _class_maps(torch.float32)
        yield compiled.compose(field_, field_)
        yield compiled.warp(image, field_)
        yield compiled.nearest_voxels((4, 4, 4), (4, 4, 4), compiled.GridMap.of(np.eye(4)))
        indices = np.zeros((4, 4, 4), np.uint32)
        for bits in (8, 16, 32, 64):
            yield compiled.copied(np.zeros(64, f"u{bits // 8}"), indices)
    flow = field_.clone().requires_grad_()
    yield field.upsample(field.exponentiate(flow, steps=3)).sum().backward()
    yield local_ncc(moved=field.warp(image, flow), fixed=image, window=3).backward()
    yield diffusion(flow).backward()


def write_ready(folder: Path) -> None:
    """Compile the kernels for a class of processors into ``folder``, see ``processor``."""
    places = {"NUMBA_CACHE_DIR": str(folder), "VOXWARP_READY_KERNELS": ""}
    command = [sys.executable, "-m", "voxwarp.networks.ahead", _OTHERS_TOO]
    subprocess.run(command, env={**os.environ, **places, **processor.environment()}, check=True)
    for version in folder.iterdir():
        processor.write(version)


_OTHERS_TOO = "--others-too"


if __name__ == "__main__":
    if sys.argv[1:] and sys.argv[1] != _OTHERS_TOO:
        write_ready(Path(sys.argv[1]))
    else:
        compile_all(others=bool(sys.argv[1:]))
