"""The state of a training in one file, whole or not there: safetensors with JSON in its header.

Weights, their moving average and the optimiser's moments are tensors; the step, the best score
so far and the configuration are JSON. There is no generator to be kept: everything random is
drawn from the seed and the number of the step.
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

from ..errors import InputError
from ..files import write_bytes
from ..networks.catalogue import with_current_names

NAME = "checkpoint.safetensors"
FORMAT = "voxwarp-checkpoint-1"
_FORMER_LOSSES = {"recognition": "segmentation"}


@dataclass
class TrainingState:
    """How far a training has come.

    Args:
        step: updates of the weights that are done.
        best: score and step of the best validation so far, if there was one.
        skipped: samples that were drawn anew because a file could not be read.
        seconds: of all runs together.
        start: scores of the validation pairs before anything was learned.
        processes: that share the pairs.
        scans: a hash of who is trained on and who is not.
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
    progress: TrainingState,
    config: dict[str, Any],
    optimizer: torch.optim.Optimizer,
    **networks: nn.Module,
) -> None:
    """Write ``checkpoint.safetensors`` into ``folder``, in place of the one before.

    Raises:
        InputError: the disk is full or the folder not writable; the former file is as it was.
    """
    tensors = dict(_moments(optimizer))
    for name, network in networks.items():
        for key, value in network.state_dict().items():
            tensors[f"{name}/{key}"] = value
    about = {"format": FORMAT, "progress": vars(progress), "config": config}
    whole = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    write_bytes(folder / NAME, save(whole, metadata={"voxwarp": json.dumps(about)}))


def load_checkpoint(
    folder: Path, optimizer: torch.optim.Optimizer, **networks: nn.Module
) -> TrainingState:
    """Put networks and optimiser into the state that was saved.

    Raises:
        InputError: the file is missing, damaged, or of other networks.
    """
    try:
        with safe_open(folder / NAME, "pt") as stored:
            progress = TrainingState(**_about(stored)["progress"])
            tensors = {key: stored.get_tensor(key) for key in stored.keys()}  # noqa: SIM118
        for name, network in networks.items():
            network.load_state_dict(with_current_names(_inside(tensors, name)))
        _restore(optimizer, tensors)
    except (OSError, LookupError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"checkpoint {folder / NAME}: it cannot be used ({reason})") from error
    return progress


def saved_config(folder: Path) -> dict[str, Any]:
    """The configuration of the training whose checkpoint is in ``folder``.

    Raises:
        InputError: there is no checkpoint that can be read.
    """
    try:
        with safe_open(folder / NAME, "pt") as stored:
            return _about(stored)["config"]
    except (OSError, LookupError, TypeError, ValueError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"checkpoint {folder / NAME}: it cannot be used ({reason})") from error


def _about(stored: Any) -> dict[str, Any]:
    """What the header of an open file says beside the tensors."""
    about = json.loads(stored.metadata()["voxwarp"])
    if about["format"] != FORMAT:
        raise ValueError(f"format {about['format']!r}, wanted {FORMAT!r}")
    return _with_todays_keys(about)


def _with_todays_keys(about: dict[str, Any]) -> dict[str, Any]:
    """The header of a checkpoint of any version, with the keys of today."""
    config, data = about["config"], about["config"].get("data") or {}
    if "costs" in config:
        losses = config.pop("costs")
        config["losses"] = {_FORMER_LOSSES.get(name, name): o for name, o in losses.items()}
    if "people" in data:
        data["subjects"] = data.pop("people")
    for scores in (about["progress"]["best"], about["progress"]["start"]):
        if "val_cost" in scores:
            scores["val_loss"] = scores.pop("val_cost")
    return about


def _moments(optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, Tensor]]:
    for number, state in optimizer.state_dict()["state"].items():
        for key, value in state.items():
            yield f"optimizer/{number}/{key}", torch.as_tensor(value)


def _restore(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """The rates and the like stay as they are: they follow from the step."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in _inside(tensors, "optimizer").items():
        number, name = key.split("/")
        state.setdefault(int(number), {})[name] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _inside(tensors: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """Tensors whose keys begin with ``name/``, by the rest of the key."""
    return {
        key.removeprefix(f"{name}/"): value
        for key, value in tensors.items()
        if key.startswith(f"{name}/")
    }
