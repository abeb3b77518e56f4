"""Runs of small trainings: started, killed, resumed, compared to the bit."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from training import build_config, read_rows, tree_of
from voxwarp.data.scans import gather
from voxwarp.training.checkpoint import NAME, TrainingState
from voxwarp.training.cohort import Cohort, prepare_cohort
from voxwarp.training.config import Config
from voxwarp.training.monitor import Monitor
from voxwarp.training.parallel import World
from voxwarp.training.schedule import phase_at
from voxwarp.training.train import Learner, _batches, train

CPU = torch.device("cpu")

#: Everything random, everything stored: what a resumed run has to reproduce.
EVERYTHING: dict[str, Any] = {
    "augmentation": {
        **{"flip": 0.5, "rotation": 10.0, "scaling": 0.1, "shift": 2.0, "bending": 1.0},
        **{"gamma": 0.3, "bias": 0.3, "noise": 0.05},
    },
    "sampling": {"labelled": 0.5, "structures": 2},
    "losses": {"ncc": {"window": 5}, "diffusion": {"weight": 0.1}, "dice": {"weight": 0.5}},
    "optimiser": {"accumulate": 2, "ema": 0.9, "weight_decay": 1e-3},
    "phases": [{"steps": 2, "downsample": 2}, {"steps": 2}],
}


PYRAMID = {"name": "pyramid", "channels": [4, 8, 8], "steps": 4}


DIFFEOMORPHIC = {"name": "diffeomorphic", "encoder": [8, 16], "decoder": [16, 16], "steps": 4}


VOXELMORPH = {"name": "voxelmorph", "encoder": [8, 16], "decoder": [16, 16, 16, 8]}


MODEL = {"model.json", "weights.safetensors", "README.md"}


def run(config: Config, out: Path, **more: Any) -> TrainingState:
    return train(config, out, device="cpu", show=False, **more)


def assert_same_weights(one: Path, other: Path) -> None:
    """Compare the models, checkpoints and cards of two runs, to the bit."""
    for name in (NAME, "weights.safetensors", "last/weights.safetensors"):
        first, second = load_file(one / name), load_file(other / name)
        assert first.keys() == second.keys()
        for key, value in first.items():
            torch.testing.assert_close(second[key], value, rtol=0, atol=0)
    for name in ("model.json", "last/model.json"):
        about = [json.loads((run / name).read_text()) for run in (one, other)]
        for each in about:
            del each["card"]["hours"], each["card"]["commit"]  # others may work in the checkout
        assert about[0] == about[1]


def logged(out: Path) -> list[dict[str, str]]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in read_rows(out)]


def state_of(out: Path) -> TrainingState:
    """The state in the checkpoint of a folder."""
    return TrainingState(**about_checkpoint(out)["progress"])


def about_checkpoint(out: Path) -> dict[str, Any]:
    with safe_open(out / NAME, "pt") as stored:
        return json.loads(stored.metadata()["voxwarp"])


def late_of(subjects: Path, **more: Any) -> Config:
    """A configuration that saves nothing before the end."""
    tree = tree_of(subjects, validation={"every": 100}, **more)
    tree["log"] = {**tree["log"], "checkpoint": 100}
    return build_config(tree)


def cohort_of(config: Config) -> Cohort:
    return prepare_cohort(config, gather(config.data, config.seed))


def steps_of(config: Config, number: int) -> Iterator[tuple[Learner, dict[str, float]]]:
    """A learner after each of its first steps, with the values that the step returned."""
    cohort = cohort_of(config)
    learner = Learner.begin(config, cohort, CPU, World())
    batches = _batches(learner, cohort, None)
    for step in range(number):
        yield learner, learner.update(step, phase_at(config, step), batches, Silent(config))


class Silent(Monitor):
    """Shows and writes nothing."""

    def __init__(self, config: Config):
        super().__init__(Path("nowhere"), config, show=False, write=False)


def gradient_of(learner: Learner) -> torch.Tensor:
    gradients = [p.grad for p in learner.network.parameters()]
    return torch.cat([g.flatten() for g in gradients if g is not None])


def weights_of(network: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten().clone() for p in network.parameters()])


class Crash(BaseException):
    """As if the power had failed."""


def crash_at(monkeypatch: pytest.MonkeyPatch, last: int) -> None:
    """Let the power fail in a step."""
    update = Learner.update

    def crashes(self: Learner, step: int, *more: Any) -> dict[str, float]:
        if step == last:
            raise Crash
        return update(self, step, *more)

    monkeypatch.setattr(Learner, "update", crashes)


def start(config: Path, out: Path, *more: str) -> subprocess.Popen:
    """The command line, as a user starts it."""
    return subprocess.Popen(
        [sys.executable, "-m", "voxwarp", "train", str(config), "-o", str(out), *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def finish(process: subprocess.Popen) -> str:
    """Wait for a process; returns what it printed to stdout."""
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    return out


def await_change(process: subprocess.Popen, path: Path) -> None:
    """Wait until a file is replaced, or the process has ended."""
    before = path.stat().st_ino if path.exists() else None
    while process.poll() is None:
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_ino != before:
                return
        time.sleep(0.01)


def forget_memory(patch: pytest.MonkeyPatch) -> None:
    """Skip the check of the memory."""
    for module in ("train", "inspection"):
        patch.setattr(f"voxwarp.training.{module}.check_memory", lambda *_: 0)
