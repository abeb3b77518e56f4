"""Whether a training may begin in a folder, or go on from what is there."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ..data.scans import ScanRecord
from ..errors import InputError
from ..files import check_writable
from .checkpoint import NAME, TrainingState, saved_config
from .config import Config
from .parallel import World, mean_of

#: What may differ between the runs of one training.
MAY_CHANGE = "log.", "workers", "data.cache", "validation.give_up"


def check_run(config: Config, out: Path, *, resume: bool, overwrite: bool) -> None:
    """Make sure, before anything costs time, that a training can be written to ``out``.

    Raises:
        InputError: it holds another training, or cannot be written.
    """
    check_writable(out)
    if resume and overwrite:
        raise InputError("resume goes on, overwrite begins anew: just one of them is wanted")
    held = [name for name in (NAME, "model.json") if (out / name).exists()]
    if held and not (resume or overwrite):
        raise InputError(
            f"output {out}: it holds a training ({held[0]}); --resume goes on with it, "
            f"--overwrite begins anew"
        )
    if not held and not overwrite and (out / "README.md").exists():
        raise InputError(f"output {out}: a README.md is there, which the model's would replace")
    if resume and held and NAME not in held:
        raise InputError(
            f"output {out}: it holds a model, and no {NAME} to go on from; take another folder, "
            f"or --overwrite"
        )
    if not resume or not held:
        return
    before, now = (_flat(c) for c in (saved_config(out), config.model_dump(mode="json")))
    for name in sorted(before.keys() | now.keys()):
        if before.get(name) != now.get(name) and not name.startswith(MAY_CHANGE):
            raise InputError(
                f"output {out}: its training has {name} = {before.get(name)!r}, and not "
                f"{now.get(name)!r}; resume it as it is, or begin another with start_from={out}"
            )


def check_same(progress: TrainingState, scans: Sequence[ScanRecord], among: World) -> None:
    """Make sure that a training goes on with what it began with.

    Raises:
        InputError: there were more or fewer processes, and so other pairs in a step; or other
            scans, so that subjects who were learnt from may be validated on.
    """
    if progress.processes != among.size:
        raise InputError(
            f"the training was begun by {progress.processes} processes, and these are "
            f"{among.size}: resume it with as many, or begin another with start_from"
        )
    if progress.scans != hash_of(scans):
        raise InputError(
            "the scans, their labels or their splits are not those that the training began with: "
            "put them back, or begin another with start_from"
        )


def check_together(progress: TrainingState, among: World, device: torch.device) -> None:
    """Make sure that all processes found the same checkpoint.

    Raises:
        InputError: the folder of the run is not shared by their machines.
    """
    (mean,) = mean_of([float(progress.step)], among, device)
    if mean != progress.step:
        raise InputError("the processes find different checkpoints: the folder must be shared")


def hash_of(scans: Sequence[ScanRecord]) -> str:
    """Of the scans' names and of what each is for."""
    about = sorted(
        (s.dataset, s.subject, s.split, s.path.name, s.labels is not None) for s in scans
    )
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()


def _flat(tree: Any, before: str = "") -> dict[str, Any]:
    """Nested dictionaries and lists as one dictionary of dotted names."""
    inside = tree.items() if isinstance(tree, dict) else enumerate(tree)
    flat = {}
    for key, value in inside:
        name = f"{before}{key}"
        if isinstance(value, (dict, list)) and value:
            flat.update(_flat(value, f"{name}."))
        else:
            flat[name] = value
    return flat
