"""The architectures by name: how each network is built, and what it declares that it can do."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from .diffeomorphic import DiffeomorphicVoxelMorph
from .pair_descent import Pace, PairDescent
from .pyramid import VelocityPyramid
from .segmentation import StructureMaps
from .voxelmorph import VoxelMorph


@dataclass(frozen=True)
class Capabilities:
    """What a network can do, for whoever uses it.

    Args:
        learns_from: "images" (pairs, by how alike they become), "labels" (scans with label maps,
            by what is segmented in them), or "nothing": it has no weights.
        has_velocity: it predicts a stationary velocity at half the resolution.
        has_levels: its finest levels can rest in a first phase of training.
        is_descent: it is a ``PairDescent``: the smoothness of its answers can be chosen, it makes
            no folds, and it can go on from any answer.
        further_inputs: names of what ``forward`` is given beside the images, such as
            "fixed_mask"; see ``preparation.scan.Prepared.further``.
    """

    learns_from: Literal["images", "labels", "nothing"] = "images"
    has_velocity: bool = False
    has_levels: bool = False
    is_descent: bool = False
    further_inputs: tuple[str, ...] = ()

    @property
    def obeys_smoothness(self) -> bool:
        """Whether the smoothness of its deformations can be chosen."""
        return self.is_descent


@dataclass(frozen=True)
class Architecture:
    """A kind of network.

    Args:
        build: makes one with fresh weights; its keyword arguments are the architecture's.
        capabilities: what it can do.
    """

    build: Callable[..., nn.Module]
    capabilities: Capabilities

    @property
    def parameters(self) -> Mapping[str, inspect.Parameter]:
        """The arguments of ``build`` and their defaults."""
        return inspect.signature(self.build).parameters


def descent(*, steps: Sequence[int] = (16, 20, 20), full_steps: int = 0) -> PairDescent:
    """A descent on the images alone; see ``PairDescent``."""
    return PairDescent(steps=steps, full_steps=full_steps)


def anatomy(
    structures: int = 30,
    channels: Sequence[int] = (16, 32, 48, 48, 48),
    *,
    steps: Sequence[int] = (10, 12, 8),
    full_steps: int = 2,
    maps: int = 6,
    weight: int = 3,
    factor: int = 2,
) -> PairDescent:
    """A descent on the images and on what a U-Net segments in them.

    Args:
        structures, channels, maps, weight: of the segmentation, see ``StructureMaps``.
        steps, full_steps, factor: of the descent, see ``PairDescent``.
    """
    return PairDescent(
        steps=steps,
        full_steps=full_steps,
        pace=Pace(length=0.4, smoothing=0.35),  # what is segmented lets steps be longer, and fewer
        segmentation=StructureMaps(structures, channels, maps=maps, weight=weight),
        factor=factor,
    )


ARCHITECTURES: dict[str, Architecture] = {
    "voxelmorph": Architecture(VoxelMorph, Capabilities()),
    "diffeomorphic": Architecture(DiffeomorphicVoxelMorph, Capabilities(has_velocity=True)),
    "pyramid": Architecture(VelocityPyramid, Capabilities(has_velocity=True, has_levels=True)),
    "descent": Architecture(descent, Capabilities(learns_from="nothing", is_descent=True)),
    "anatomy": Architecture(anatomy, Capabilities(learns_from="labels", is_descent=True)),
}


def build(architecture: Mapping[str, Any]) -> nn.Module:
    """A network with fresh weights.

    Args:
        architecture: its name, and the arguments of its ``build``.

    Raises:
        KeyError, TypeError, ValueError: there is no such network, or it takes no such arguments.
    """
    arguments = {key: value for key, value in architecture.items() if key != "name"}
    return ARCHITECTURES[architecture["name"]].build(**arguments)


#: Beginnings of names of weights that files of earlier versions have, and today's.
_FORMER_NAMES = {
    "recogniser.": "segmentation.network.",
    "projection": "segmentation.projection",
}


def with_todays_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A network's weights as files of any version have them, under the names of today.

    Raises:
        ValueError: a weight is there under both its names.
    """
    renamed = dict[str, Tensor]()
    for name, value in weights.items():
        former = next((one for one in _FORMER_NAMES if name.startswith(one)), None)
        if former is not None:
            name = _FORMER_NAMES[former] + name.removeprefix(former)
        if name in renamed:
            raise ValueError(f"weights {name}: they are there twice")
        renamed[name] = value
    return renamed
