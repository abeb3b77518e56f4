"""Check whether a training can start in a folder, or continue the one in it."""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from .._files import check_writable
from ..data.scans import ScanRecord
from ..errors import InputError
from .checkpoint import NAME, TrainingState, saved_config
from .config import Config
from .parallel import World, mean_of

#: Settings that may differ between the runs of one training.
MAY_CHANGE = "log.", "workers", "data.cache", "validation.give_up"


def check_run(config: Config, out: Path, *, resume: bool, overwrite: bool) -> None:
    """Make sure that a training can be written to a folder, before anything takes time.

    Args:
        config: configuration of the training.
        out: folder of the training.
        resume: continue the training in the folder, if there is one.
        overwrite: replace the training in the folder, if there is one.

    Raises:
        InputError: the folder holds another training, or cannot be written.
    """
    check_writable(out)
    if resume and overwrite:
        raise InputError(
            "`resume` continues a training and `overwrite` replaces it; give only one of them"
        )
    held = [name for name in (NAME, "model.json") if os.path.lexists(out / name)]
    if held and not (resume or overwrite):
        raise InputError(
            f"output {out}: the folder holds a training ({held[0]}); continue it with `resume`, or "
            f"replace it with `overwrite`"
        )
    if not held and not overwrite and os.path.lexists(out / "README.md"):
        raise InputError(
            f"output {out}: the folder has a README.md, which the model's would replace; choose "
            f"another folder, or give `overwrite`"
        )
    if resume and held and NAME not in held:
        raise InputError(
            f"output {out}: the folder holds a model but no {NAME} to continue from; choose "
            f"another folder, or replace the model with `overwrite`"
        )
    if not resume or not held:
        return
    before, now = (_flatten(c) for c in (saved_config(out), config.model_dump(mode="json")))
    for name in sorted(before.keys() | now.keys()):
        if before.get(name) != now.get(name) and not name.startswith(MAY_CHANGE):
            raise InputError(
                f"output {out}: its training has {name} = {before.get(name)!r}, but the "
                f"configuration has {now.get(name)!r}; use the same value, or start another "
                f"training with start_from={out}"
            )


def check_unchanged(state: TrainingState, scans: Sequence[ScanRecord], world: World) -> None:
    """Make sure that a training continues with the same processes and scans.

    Raises:
        InputError: the number of processes differs, which would change the pairs of a step; or
            the scans differ, so that subjects of the training might be used for validation.
    """
    if state.processes != world.size:
        raise InputError(
            f"the training was started with {state.processes} processes, but now there are "
            f"{world.size}; use {state.processes}, or start another training with start_from"
        )
    if state.scans != hash_of_scans(scans):
        raise InputError(
            "data: the scans, their labels or their splits have changed since the training "
            "started; restore them, or start another training with start_from"
        )


def check_same_checkpoint(state: TrainingState, world: World, device: torch.device) -> None:
    """Make sure that all processes have read the same checkpoint.

    Raises:
        InputError: they have not, because their computers do not share the folder.
    """
    (mean,) = mean_of([float(state.step)], world, device)
    if mean != state.step:
        raise InputError(
            "the processes have read different checkpoints; put the folder of the training on a "
            "disk that all computers share"
        )


def hash_of_scans(scans: Sequence[ScanRecord]) -> str:
    """Hash of the scans' names, splits and labels (whether they have some)."""
    about = sorted(
        (s.dataset, s.subject, s.split, s.path.name, s.labels is not None) for s in scans
    )
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()


def _flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Turn nested dictionaries and lists into one dictionary with dotted names."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    flat = {}
    for key, value in items:
        name = f"{prefix}{key}"
        if isinstance(value, (dict, list)) and value:
            flat.update(_flatten(value, f"{name}."))
        else:
            flat[name] = value
    return flat
