"""Signals: the step in hand is finished, and saved."""

import os
import signal
import subprocess
import sys
from typing import Any

import pytest
from runs import EVERYTHING, await_change, run

import training
from training import read_rows, tree_of, write_config
from voxwarp.training.checkpoint import NAME
from voxwarp.training.train import Learner

pytestmark = pytest.mark.usefixtures("memory_suffices")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_the_step_be_finished_and_saved(
    subjects, unbroken, tmp_path, monkeypatch, number
) -> None:
    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    tree = tree_of(subjects, **EVERYTHING)
    tree["log"] = {**tree["log"], "checkpoint": 100}
    tree["validation"] = {**tree["validation"], "every": 100}
    config, out = training.build_config(tree), tmp_path / "run"
    update = Learner.update

    def interrupted(self: Learner, step: int, *more: Any) -> dict[str, float]:
        if step == 2:
            signal.raise_signal(number)
        return update(self, step, *more)

    with monkeypatch.context() as patch:
        patch.setattr(Learner, "update", interrupted)
        assert run(config, out).step == 3
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert run(config, out, resume=True).step == 4
    last = "last/weights.safetensors"
    assert (out / last).read_bytes() == (unbroken / last).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_command_in_order(subjects, tmp_path, number, workers) -> None:
    """To the whole group of processes, as terminals and schedulers send it."""
    tree = tree_of(subjects, phases=[{"steps": 2000}], validation={"every": 2000}, workers=workers)
    config, out = write_config(tmp_path / "config.yaml", tree), tmp_path / "run"
    command = [sys.executable, "-m", "voxwarp", "train", str(config), "-o", str(out)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, start_new_session=True, **pipes)
    await_change(process, out / NAME)  # before the first step
    await_change(process, out / NAME)
    os.killpg(process.pid, number)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr
    assert "--resume continues" in stdout
    assert "Traceback" not in stderr
    done = len(read_rows(out))
    assert 0 < done < 2000
    longer = training.build_config({**tree, "phases": [{"steps": 2000}]})
    assert run(longer, out, resume=True, minutes=0).step == done + 1
