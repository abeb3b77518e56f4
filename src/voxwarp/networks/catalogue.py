"""The architectures by name: how each network is built, and what it can do."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from .diffeomorphic import DiffeomorphicVoxelMorph
from .pair_descent import DEFAULT_TRUST, PairDescent, StepSettings, Trust
from .pyramid import VelocityPyramid
from .segmentation import Mirror, StructureMaps
from .voxelmorph import VoxelMorph


@dataclass(frozen=True)
class Capabilities:
    """What a network can do.

    Args:
        learns_from: "images" (pairs of images, by their similarity after registration), "labels"
            (single scans with label maps), or "nothing" (it has no weights).
        has_velocity: it predicts a stationary velocity at half resolution.
        has_levels: its finest levels can be left out in the first phase of a training.
        is_descent: it is a ``PairDescent``: its smoothness can be chosen, its deformations have no
            folds, and it can continue from any deformation.
        further_inputs: names of the inputs of ``forward`` beside the images, such as
            "fixed_mask"; see ``preparation.scan.Prepared.further``.
    """

    learns_from: Literal["images", "labels", "nothing"] = "images"
    has_velocity: bool = False
    has_levels: bool = False
    is_descent: bool = False
    further_inputs: tuple[str, ...] = ()

    @property
    def has_smoothness(self) -> bool:
        """Whether the smoothness of the deformations can be chosen."""
        return self.is_descent


@dataclass(frozen=True)
class Architecture:
    """A kind of network.

    Args:
        build: makes a network with random weights; its keyword arguments are those that a
            configuration or a ``model.json`` may hold.
        capabilities: what the network can do.
    """

    build: Callable[..., nn.Module]
    capabilities: Capabilities

    @property
    def parameters(self) -> Mapping[str, inspect.Parameter]:
        """The arguments of ``build``, with their defaults."""
        return inspect.signature(self.build).parameters


def descent(*, steps: Sequence[int] = (16, 20, 20), full_steps: int = 0) -> PairDescent:
    """A descent on the images alone, see ``PairDescent``."""
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
    step_length: float = 0.4,
    smoothing: float = 0.35,
    momentum: float = 0.0,
    force_smoothing: Sequence[float] = (1.3,),
    trust: Sequence[float] = DEFAULT_TRUST,
    mirror: Mapping[str, Any] | None = None,
) -> PairDescent:
    """A descent on the images and on their segmentations by a U-Net.

    Args:
        structures, channels, maps, weight: of the segmentation, see ``StructureMaps``.
        mirror: arguments of ``Mirror``; a training with ``augmentation.flip`` adds them.
        steps, full_steps, factor, trust: of the descent, see ``PairDescent``.
        step_length, smoothing, momentum, force_smoothing: see ``StepSettings``.
    """
    # Compared on val subjects in benchmarks/tries.csv. weight: 3 is the best of 0.8, 1.5, 3 and 6;
    # maps: 6 are nearly as good as 12. Length of a step: with a segmentation, fewer and longer
    # steps are enough; 0.4 is the best of 0.3, 0.4 and 0.5 voxels. Smoothing: 0.35 is better than
    # 0.42; with 0.28, which gains 0.001 more, the deformation is rougher.
    return PairDescent(
        steps=steps,
        full_steps=full_steps,
        step_settings=StepSettings(step_length, smoothing, momentum, force_smoothing),
        segmentation=StructureMaps(
            structures,
            channels,
            maps=maps,
            weight=weight,
            mirror=None if mirror is None else Mirror(**mirror),
        ),
        factor=factor,
        trust=Trust(*trust),
    )


ARCHITECTURES: dict[str, Architecture] = {
    "voxelmorph": Architecture(VoxelMorph, Capabilities()),
    "diffeomorphic": Architecture(DiffeomorphicVoxelMorph, Capabilities(has_velocity=True)),
    "pyramid": Architecture(VelocityPyramid, Capabilities(has_velocity=True, has_levels=True)),
    "descent": Architecture(descent, Capabilities(learns_from="nothing", is_descent=True)),
    "anatomy": Architecture(anatomy, Capabilities(learns_from="labels", is_descent=True)),
}


def build(architecture: Mapping[str, Any]) -> nn.Module:
    """Build a network with random weights.

    Args:
        architecture: the name, and the arguments of ``Architecture.build``.

    Raises:
        KeyError: no architecture has this name.
        TypeError, ValueError: the architecture does not take these arguments.
    """
    arguments = {key: value for key, value in architecture.items() if key != "name"}
    return ARCHITECTURES[architecture["name"]].build(**arguments)


#: How names of weights began in files of earlier versions, and how they begin now.
_FORMER_NAMES = {
    "recogniser.": "segmentation.network.",
    "projection": "segmentation.projection",
}


def with_current_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the weights of a file of any version to the names that networks have now.

    Raises:
        ValueError: the file holds a weight under its old name and under its current one.
    """
    renamed = dict[str, Tensor]()
    for name, value in weights.items():
        former = next((start for start in _FORMER_NAMES if name.startswith(start)), None)
        if former is not None:
            name = _FORMER_NAMES[former] + name.removeprefix(former)
        if name in renamed:
            raise ValueError(f"the file holds {name} twice, once under an old name")
        renamed[name] = value
    return renamed
