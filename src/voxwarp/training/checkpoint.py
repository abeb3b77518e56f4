"""The state of a training in one file: safetensors, with JSON in its header.

Weights, their moving average and the optimiser's moments are tensors; the step, the best score
so far and the configuration are JSON. The file holds no state of a random generator, because
everything random is drawn from the seed and the number of the step.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from .._files import write_bytes
from .._json import parse_json
from ..data.section import with_current_keys
from ..errors import InputError
from ..networks.catalogue import with_current_names
from .config import Config
from .loss_terms import with_current_losses

NAME = "checkpoint.safetensors"
FORMAT = "voxwarp-checkpoint-1"


@dataclass
class TrainingState:
    """How far a training has come.

    Args:
        step: number of training steps done.
        best: scores and step of the best validation so far; empty before the first one.
        skipped: number of pairs that were drawn again because a file could not be read.
        seconds: time of all runs together.
        start: scores of the validation pairs before the training.
        processes: number of processes that share the pairs.
        scans: hash of the scans and their splits.
    """

    step: int = 0
    best: dict[str, float] = field(default_factory=dict)
    skipped: int = 0
    seconds: float = 0.0
    start: dict[str, float] = field(default_factory=dict)
    processes: int = 1
    scans: str = ""


def save_checkpoint(
    folder: Path,
    state: TrainingState,
    config: dict[str, Any],
    optimizer: torch.optim.Optimizer,
    **networks: nn.Module,
) -> None:
    """Write ``checkpoint.safetensors`` into a folder; it replaces an earlier one.

    Raises:
        InputError: the disk is full or the folder is not writable; an earlier file is unchanged.
    """
    tensors = dict(_moments(optimizer))
    for name, network in networks.items():
        for key, value in network.state_dict().items():
            tensors[f"{name}/{key}"] = value
    about = {"format": FORMAT, "progress": vars(state), "config": config}
    on_cpu = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    write_bytes(folder / NAME, save(on_cpu, metadata={"voxwarp": json.dumps(about)}))


def load_checkpoint(
    folder: Path, optimizer: torch.optim.Optimizer, **networks: nn.Module
) -> TrainingState:
    """Load a checkpoint into networks and optimiser.

    Raises:
        InputError: the file is missing, damaged, or from other networks.
    """
    try:
        with safe_open(folder / NAME, "pt") as stored:
            state = TrainingState(**_about(stored)["progress"])
            tensors = {key: stored.get_tensor(key) for key in stored.keys()}  # noqa: SIM118
        for name, network in networks.items():
            network.load_state_dict(with_current_names(_inside(tensors, name)))
        _restore(optimizer, tensors)
    except (OSError, LookupError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"checkpoint {folder / NAME}: it cannot be read ({reason})") from error
    return state


def saved_config(folder: Path) -> dict[str, Any]:
    """Read the configuration from the checkpoint in a folder.

    Raises:
        InputError: the checkpoint is missing or damaged.
    """
    try:
        with safe_open(folder / NAME, "pt") as stored:
            return _about(stored)["config"]
    except (OSError, LookupError, TypeError, ValueError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"checkpoint {folder / NAME}: it cannot be read ({reason})") from error


def _about(stored: Any) -> dict[str, Any]:
    """The JSON in the header of an open file."""
    about = parse_json(stored.metadata()["voxwarp"])
    if about["format"] != FORMAT:
        raise ValueError(f"its format is {about['format']!r}, but must be {FORMAT!r}")
    return _with_current_names(about)


def _with_current_names(about: dict[str, Any]) -> dict[str, Any]:
    """The JSON of a checkpoint of any version, with the names of earlier ones replaced."""
    config = with_current_keys(Config, about["config"])
    if "losses" in config:
        config["losses"] = with_current_losses(config["losses"])
    about["config"] = config
    for scores in (about["progress"]["best"], about["progress"]["start"]):
        if "val_cost" in scores:
            scores["val_loss"] = scores.pop("val_cost")
    return about


def _moments(optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, Tensor]]:
    """The optimiser's tensors with their keys in the file."""
    for number, state in optimizer.state_dict()["state"].items():
        for key, value in state.items():
            yield f"optimizer/{number}/{key}", torch.as_tensor(value)


def _restore(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put the saved moments into an optimiser; its rate follows from the step, so it stays."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in _inside(tensors, "optimizer").items():
        number, name = key.split("/")
        state.setdefault(int(number), {})[name] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _inside(tensors: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """The tensors whose keys begin with ``name/``, without that prefix."""
    return {
        key.removeprefix(f"{name}/"): value
        for key, value in tensors.items()
        if key.startswith(f"{name}/")
    }
