"""The training loop: resumable to the bit, seeded by step, safe against what goes wrong; it learns.

What it costs and how scans are drawn is tested elsewhere (test_objective, test_sampling).
"""

import contextlib
import errno
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import training
from training import config_of, read_rows, tree_of, write_config, write_people
from voxwarp import files, register
from voxwarp.data.scans import gather
from voxwarp.errors import InputError
from voxwarp.measures.overlap import dice
from voxwarp.networks.model import Model
from voxwarp.preparation.recipe import Recipe
from voxwarp.space.grid import Grid
from voxwarp.training import memory
from voxwarp.training.checkpoint import NAME, Progress
from voxwarp.training.cohort import Cohort, prepare_cohort
from voxwarp.training.config import Config, read_config
from voxwarp.training.inspection import check_beforehand
from voxwarp.training.monitor import Monitor
from voxwarp.training.parallel import World
from voxwarp.training.run_folder import is_best
from voxwarp.training.schedule import learning_rate, phase_at
from voxwarp.training.train import (
    Learner,
    _batches,
    average_weights,
    train,
)

CPU = torch.device("cpu")

#: All that is random, all that is kept: what a resumed run has to get right.
EVERYTHING: dict[str, Any] = {
    "augmentation": {
        **{"flip": 0.5, "rotation": 10.0, "scaling": 0.1, "shift": 2.0},
        **{"gamma": 0.3, "bias": 0.3, "noise": 0.05},
    },
    "sampling": {"labelled": 0.5, "structures": 2},
    "costs": {"ncc": {"window": 5}, "diffusion": {"weight": 0.1}, "dice": {"weight": 0.5}},
    "optimiser": {"accumulate": 2, "ema": 0.9, "weight_decay": 1e-3},
    "phases": [{"steps": 2, "downsample": 2}, {"steps": 2}],
}
PYRAMID = {"name": "pyramid", "channels": [4, 8, 8], "steps": 4}
DIFFEOMORPHIC = {"name": "diffeomorphic", "encoder": [8, 16], "decoder": [16, 16], "steps": 4}
VOXELMORPH = {"name": "voxelmorph", "encoder": [8, 16], "decoder": [16, 16, 16, 8]}


@pytest.fixture(scope="module", autouse=True)
def _memory_suffices() -> Iterator[None]:
    """Its prediction takes longer than these trainings; test_memory has it."""
    with pytest.MonkeyPatch.context() as patch:
        for module in ("train", "inspection"):
            patch.setattr(f"voxwarp.training.{module}.check_memory", lambda *_: 0)
        yield


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three people to learn from, two to validate on, two to test on, all labelled."""
    return write_people(tmp_path_factory.mktemp("people") / "crops")


@pytest.fixture(scope="module")
def unbroken(people: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of EVERYTHING that nothing has stopped."""
    out = tmp_path_factory.mktemp("runs") / "unbroken"
    train(config_of(people, **EVERYTHING), out, device="cpu", show=False)
    return out


@pytest.fixture(scope="module")
def brief(people: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of few steps that is done."""
    out = tmp_path_factory.mktemp("runs") / "brief"
    train(config_of(people), out, device="cpu", show=False)
    return out


def run(config: Config, out: Path, **more: Any) -> Progress:
    return train(config, out, device="cpu", show=False, **more)


def assert_same_weights(one: Path, other: Path) -> None:
    """All that two runs have learnt and go on from, to the bit, and what they say about it."""
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


class Silent(Monitor):
    """Shows and writes nothing."""

    def __init__(self, config: Config):
        super().__init__(Path("nowhere"), config, show=False, write=False)


def cohort_of(config: Config) -> Cohort:
    return prepare_cohort(config, gather(config.data, config.seed))


def steps_of(config: Config, number: int) -> Iterator[tuple[Learner, dict[str, float]]]:
    """A learner after each of its first steps, and what the step returned."""
    cohort = cohort_of(config)
    learner = Learner.begin(config, cohort, CPU, World())
    batches = _batches(learner, cohort, None)
    for step in range(number):
        yield learner, learner.update(step, phase_at(config, step), batches, Silent(config))


def gradient_of(learner: Learner) -> torch.Tensor:
    gradients = [p.grad for p in learner.network.parameters()]
    return torch.cat([g.flatten() for g in gradients if g is not None])


def weights_of(network: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten().clone() for p in network.parameters()])


# ---------------------------------------------------------------------------------- Going on


def test_a_resumed_run_reaches_the_weights_of_an_unbroken_one(people, unbroken, tmp_path) -> None:
    config, out, steps = config_of(people, **EVERYTHING), tmp_path / "broken", []
    while not steps or steps[-1] < config.steps:
        steps.append(run(config, out, resume=True, minutes=0).step)
    assert steps == [1, 2, 3, 4]
    assert_same_weights(unbroken, out)
    assert logged(out) == logged(unbroken)
    assert len(logged(out)) == 4 + 2  # and two validations


def test_another_seed_leads_elsewhere(people, unbroken, tmp_path) -> None:
    """Or else the test above would compare nothing."""
    run(config_of(people, **EVERYTHING, seed=4), tmp_path / "run")
    with pytest.raises(AssertionError):
        assert_same_weights(unbroken, tmp_path / "run")


def test_a_finished_run_is_left_as_it_is(people, unbroken, tmp_path) -> None:
    out = shutil.copytree(unbroken, tmp_path / "run")
    assert run(config_of(people, **EVERYTHING), out, resume=True).step == 4
    assert_same_weights(unbroken, out)
    assert logged(out) == logged(unbroken)


def test_rows_beyond_the_checkpoint_are_written_again_once(people, unbroken, tmp_path) -> None:
    """As after a kill between two checkpoints: step 3 was logged, and not saved."""
    tree = tree_of(people, **EVERYTHING)
    tree["log"] = {**tree["log"], "checkpoint": 100}
    config, out = training.build_config(tree), tmp_path / "run"
    run(config, out, minutes=0)
    run(config, out, minutes=0, resume=True)
    saved = (out / NAME).read_bytes()
    run(config, out, minutes=0, resume=True)
    (out / NAME).write_bytes(saved)
    with open(out / "log.csv", "a") as log:
        log.write("4,0.1,0.0")  # half a row
    run(config, out, resume=True)
    assert logged(out) == logged(unbroken)


def test_two_workers_read_what_none_would(people, unbroken, tmp_path) -> None:
    out = tmp_path / "run"
    run(config_of(people, **EVERYTHING, workers=2), out)
    for name in (NAME, "last/weights.safetensors"):
        first, second = load_file(unbroken / name), load_file(out / name)
        for key, value in first.items():
            torch.testing.assert_close(second[key], value, rtol=0, atol=0)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_run_that_is_killed_twenty_times(people, tmp_path) -> None:
    """SIGKILL at instants by lots: most a few steps on, some while it reads or begins."""
    changes = {**EVERYTHING, "phases": [{"steps": 30, "downsample": 2}, {"steps": 50}]}
    changes["validation"] = {"every": 3}
    tree = tree_of(people, **changes)
    config, lots = write_config(tmp_path / "config.yaml", tree), np.random.default_rng(7)
    out, reached = tmp_path / "killed", [0]
    for kill in range(20):
        process = start(config, out, "--resume")
        if kill % 4:
            await_change(process, out / NAME)
            time.sleep(lots.uniform(0, 0.3))
        else:
            time.sleep(lots.uniform(0, 6))
        assert process.poll() is None, process.communicate()
        process.kill()
        process.communicate()
        if (out / NAME).exists():
            load_file(out / NAME)  # it is whole
        if (out / "log.csv").exists():
            reached.append(len({row["step"] for row in read_rows(out)}))
    assert reached[-1] < 80, "it was done too early for the kills to tell anything"
    finish(start(config, out, "--resume"))
    finish(start(config, tmp_path / "whole"))
    assert_same_weights(tmp_path / "whole", out)
    assert logged(out) == logged(tmp_path / "whole")
    assert not list(out.rglob("*.part"))


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
    """Wait for it; what it printed to stdout."""
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    return out


def await_change(process: subprocess.Popen, path: Path) -> None:
    """Wait until a file is another one than it was, or the process has ended."""
    before = path.stat().st_ino if path.exists() else None
    while process.poll() is None:
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_ino != before:
                return
        time.sleep(0.01)


# ------------------------------------------------------------------------ What may go wrong


class Crash(BaseException):
    """As if the power had failed."""


def failing(name: str, error: BaseException) -> Callable:
    """A function of ``os`` or ``open`` that fails on the checkpoint only."""
    real = open if name == "open" else getattr(os, name)

    def is_checkpoint(target: Any) -> bool:
        path = os.readlink(f"/proc/self/fd/{target}") if isinstance(target, int) else str(target)
        return NAME in path

    def fails(target: Any, *more: Any) -> Any:
        if not is_checkpoint(target):
            return real(target, *more)
        if name == "open":
            Path(target).write_bytes(b"half of it")
        raise error

    return fails


def break_writing(patch: pytest.MonkeyPatch, name: str, error: BaseException) -> None:
    if name == "open":
        patch.setattr(files, "open", failing(name, error), raising=False)
    else:
        patch.setattr(os, name, failing(name, error))


FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    ("name", "error"), [("open", FULL), ("fsync", FULL), ("replace", FULL), ("replace", Crash())]
)
def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(
    people, unbroken, tmp_path, monkeypatch, name, error
) -> None:
    config, out = config_of(people, **EVERYTHING), tmp_path / "run"
    run(config, out, minutes=0)
    before = (out / NAME).read_bytes()
    with monkeypatch.context() as patch:
        break_writing(patch, name, error)
        with pytest.raises((Crash, InputError)) as caught:
            run(config, out, resume=True)
    if isinstance(error, OSError):
        assert "No space left" in str(caught.value)
        assert NAME in str(caught.value)
    assert (out / NAME).read_bytes() == before
    run(config, out, resume=True)
    assert_same_weights(unbroken, out)
    assert not list(out.rglob("*.part"))


def state_of(out: Path) -> Progress:
    """How far the checkpoint in a folder is."""
    return Progress(**about_checkpoint(out)["progress"])


def about_checkpoint(out: Path) -> dict[str, Any]:
    with safe_open(out / NAME, "pt") as stored:
        return json.loads(stored.metadata()["voxwarp"])


MODEL = {"model.json", "weights.safetensors", "README.md"}


def crash_at(monkeypatch: pytest.MonkeyPatch, last: int) -> None:
    """Let the power fail in a step."""
    update = Learner.update

    def crashes(self: Learner, step: int, *more: Any) -> dict[str, float]:
        if step == last:
            raise Crash
        return update(self, step, *more)

    monkeypatch.setattr(Learner, "update", crashes)


def test_there_is_a_state_to_go_on_from_before_there_is_a_model(
    people, tmp_path, monkeypatch
) -> None:
    """A power cut in the first step, and one after the first model but before its checkpoint."""
    tree = tree_of(people)
    tree["log"] = {**tree["log"], "checkpoint": 100}
    config, out = training.build_config(tree), tmp_path / "run"
    with monkeypatch.context() as patch:
        crash_at(patch, 0)
        with pytest.raises(Crash):
            run(config, out)
    assert state_of(out).step == 0
    assert not MODEL & {path.name for path in out.rglob("*")}
    with monkeypatch.context() as patch:
        break_writing(patch, "replace", Crash())
        with pytest.raises(Crash):
            run(config, out, resume=True)
    assert (out / "model.json").exists()
    assert state_of(out).step == 0
    assert run(config, out, resume=True).step == 4
    run(config, tmp_path / "unbroken")
    assert_same_weights(tmp_path / "unbroken", out)


def late_of(people: Path, **more: Any) -> Config:
    """Nothing is saved by itself before the end."""
    tree = tree_of(people, validation={"every": 100}, **more)
    tree["log"] = {**tree["log"], "checkpoint": 100}
    return training.build_config(tree)


def test_a_cost_that_is_not_a_number_leaves_the_state_before_it(
    people, tmp_path, monkeypatch
) -> None:
    config = late_of(people, costs={"training:sour": {}, "diffusion": {"weight": 0.1}})
    run(config, tmp_path / "unbroken")
    monkeypatch.setitem(training.calls, "left", 2)
    with pytest.raises(InputError, match=r"^step 3: .*; the state before it is saved"):
        run(config, tmp_path / "run")
    assert state_of(tmp_path / "run").step == 2
    assert not (tmp_path / "run/model.json").exists()
    monkeypatch.setitem(training.calls, "left", 1 << 30)
    assert run(config, tmp_path / "run", resume=True).step == 4
    assert_same_weights(tmp_path / "unbroken", tmp_path / "run")


def test_scans_that_cannot_be_read_any_more_leave_the_state_before_them(
    people, tmp_path, monkeypatch
) -> None:
    config = late_of(people, data={"cache": str(tmp_path / "prepared")})
    run(config, tmp_path / "unbroken")
    cohort, step = cohort_of(config), Monitor.step

    def lose(self: Monitor, progress: Progress, *more: Any) -> None:
        if progress.step == 2:
            for number in cohort.indices("train"):
                cohort.files[number][0].unlink()
        step(self, progress, *more)

    with monkeypatch.context() as patch:
        patch.setattr(Monitor, "step", lose)
        with pytest.raises(InputError, match=r"^10 pairs in a row cannot be read"):
            run(config, tmp_path / "run")
    assert state_of(tmp_path / "run").step == 2
    assert run(config, tmp_path / "run", resume=True).step == 4
    assert_same_weights(tmp_path / "unbroken", tmp_path / "run")


def test_the_minutes_count_from_the_beginning_of_the_preparation(
    people, brief, tmp_path, monkeypatch
) -> None:
    """Ten of them go by while scans are prepared."""
    passed = [0.0]

    def slowly(*given: Any, **more: Any) -> Cohort:
        passed[0] += 600
        return prepare_cohort(*given, **more)

    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + passed[0])
    monkeypatch.setattr("voxwarp.training.train.time", clock)
    monkeypatch.setattr("voxwarp.training.train.prepare_cohort", slowly)
    config = config_of(people)
    assert run(config, tmp_path / "enough", minutes=30).step == 4
    assert run(config, tmp_path / "run", minutes=9).step == 1
    assert run(config, tmp_path / "run", minutes=11, resume=True).step == 4
    assert_same_weights(brief, tmp_path / "run")


def test_a_cost_that_is_not_a_number_stops_before_the_weights_are_changed(
    people, tmp_path, monkeypatch
) -> None:
    config = config_of(people, costs={"training:sour": {}, "diffusion": {"weight": 0.1}})
    run(config, tmp_path / "unbroken")
    monkeypatch.setitem(training.calls, "left", 2)
    with pytest.raises(InputError, match=r"step 3: .*training:sour.* not a finite number"):
        run(config, tmp_path / "run")
    monkeypatch.setitem(training.calls, "left", 1 << 30)
    assert run(config, tmp_path / "run", resume=True).step == 4
    assert_same_weights(tmp_path / "unbroken", tmp_path / "run")


def test_a_network_that_moves_nothing_is_given_up_until_told_otherwise(people, tmp_path) -> None:
    changes = {"optimiser": {"learning_rate": 1e-9}, "phases": [{"steps": 3}]}
    stubborn = config_of(people, **changes, validation={"give_up": 2})
    with pytest.raises(InputError, match=r"raise optimiser\.learning_rate") as caught:
        run(stubborn, tmp_path / "run")
    assert "after 2 steps" in str(caught.value)
    patient = config_of(people, **changes, validation={"give_up": 0})
    assert run(patient, tmp_path / "run", resume=True).step == 3


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_the_step_be_finished_and_saved(
    people, unbroken, tmp_path, monkeypatch, number
) -> None:
    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    tree = tree_of(people, **EVERYTHING)
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
def test_a_signal_ends_the_command_in_order(people, tmp_path, number, workers) -> None:
    """To the whole group of processes, as terminals and schedulers send it."""
    tree = tree_of(people, phases=[{"steps": 2000}], validation={"every": 2000}, workers=workers)
    config, out = write_config(tmp_path / "config.yaml", tree), tmp_path / "run"
    command = [sys.executable, "-m", "voxwarp", "train", str(config), "-o", str(out)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, start_new_session=True, **pipes)
    await_change(process, out / NAME)  # before the first step
    await_change(process, out / NAME)
    os.killpg(process.pid, number)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr
    assert "--resume goes on" in stdout
    assert "Traceback" not in stderr
    done = len(read_rows(out))
    assert 0 < done < 2000
    longer = training.build_config({**tree, "phases": [{"steps": 2000}]})
    assert run(longer, out, resume=True, minutes=0).step == done + 1


def test_a_prepared_scan_that_is_damaged_meanwhile_is_skipped_and_counted(
    tmp_path, monkeypatch, capsys
) -> None:
    folder = write_people(tmp_path / "crops")
    config = config_of(folder, phases=[{"steps": 8}], validation={"every": 8})
    cohort, step = cohort_of(config), Monitor.step
    damaged = cohort.files[cohort.indices("train")[0]][0]

    def damage(self: Monitor, progress: Progress, *more: Any) -> None:
        damaged.write_bytes(damaged.read_bytes()[:1000])
        step(self, progress, *more)

    monkeypatch.setattr(Monitor, "step", damage)
    progress = train(config, tmp_path / "run", device="cpu")
    assert progress.step == 8
    assert progress.skipped > 0
    said = [line for line in capsys.readouterr().err.splitlines() if "skipped;" in line]
    assert len(said) == progress.skipped
    assert all(str(damaged) in line for line in said)
    assert Model.load(tmp_path / "run" / "last").card["samples_skipped"] == progress.skipped
    assert [int(row["skipped"]) for row in read_rows(tmp_path / "run") if row["loss"]][-1] == len(
        said
    )


def test_a_val_scan_that_is_damaged_meanwhile_is_skipped_and_counted(
    people, brief, tmp_path, monkeypatch, capsys
) -> None:
    config = config_of(people, data={"cache": str(tmp_path / "prepared")})
    cohort, step = cohort_of(config), Monitor.step
    damaged = cohort.files[cohort.indices("val")[0]][0]

    def damage(self: Monitor, progress: Progress, *more: Any) -> None:
        if progress.step == 3:
            damaged.write_bytes(damaged.read_bytes()[:1000])
        step(self, progress, *more)

    monkeypatch.setattr(Monitor, "step", damage)
    progress = train(config, tmp_path / "run", device="cpu")
    assert (progress.step, progress.skipped) == (4, 2)  # both pairs of the second validation
    said = [line for line in capsys.readouterr().err.splitlines() if "skipped;" in line]
    assert [str(damaged) in line for line in said] == [True, True]
    assert [row["step"] for row in read_rows(tmp_path / "run") if row["val_cost"]] == ["2"]
    torch.testing.assert_close(  # what is learnt is not changed by it
        load_file(tmp_path / "run/last/weights.safetensors"),
        load_file(brief / "last/weights.safetensors"),
        **{"rtol": 0, "atol": 0},
    )


@pytest.mark.parametrize("workers", [0, 1])
def test_a_cache_that_is_gone_meanwhile_ends_the_training_in_one_line(
    tmp_path, monkeypatch, workers
) -> None:
    folder = write_people(tmp_path / "crops")
    config, before = config_of(folder, workers=workers), Learner.begin

    def lose(config: Config, cohort: Cohort, *more: Any) -> Learner:
        for number in cohort.indices("train"):
            cohort.files[number][0].unlink()
        return before(config, cohort, *more)

    monkeypatch.setattr(Learner, "begin", lose)
    with pytest.raises(InputError, match=r"^10 pairs in a row cannot be read") as caught:
        run(config, tmp_path / "run")
    assert "\n" not in str(caught.value)


def test_a_damaged_scan_is_left_out_with_a_warning(tmp_path, capsys) -> None:
    folder = write_people(tmp_path / "crops")
    whole = (folder / "t1/p1.nii.gz").read_bytes()
    (folder / "t1/p1.nii.gz").write_bytes(whole[: len(whole) // 2])
    train(config_of(folder), tmp_path / "run", device="cpu")
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    assert len(lines) == 1
    assert "p1.nii.gz" in lines[0]
    data = json.loads((tmp_path / "run" / "data.json").read_text())
    assert ["p1.nii.gz" in reason for reason in data["skipped"]] == [True]
    assert "p1.nii.gz" not in str(data["scans"])


# --------------------------------------------------------------------------------- Refusals


@pytest.fixture
def held(people, brief, tmp_path) -> tuple[Path, Path]:
    """A folder that holds a training, and its configuration."""
    out = shutil.copytree(brief, tmp_path / "run")
    return out, write_config(tmp_path / "config.yaml", tree_of(people))


def test_a_folder_that_holds_a_training_is_refused(held, refuses) -> None:
    line = refuses("train", held[1], "-o", held[0])
    assert "--resume" in line
    assert "--overwrite" in line


def test_so_is_one_that_holds_a_model(held, refuses) -> None:
    (held[0] / NAME).unlink()
    assert "--overwrite" in refuses("train", held[1], "-o", held[0])


def test_a_model_without_a_state_cannot_be_gone_on_with(held, refuses) -> None:
    (held[0] / NAME).unlink()
    line = refuses("train", held[1], "-o", held[0], "--resume")
    assert f"no {NAME} to go on from" in line


def test_going_on_and_beginning_anew_are_not_both_wanted(held, refuses, tmp_path) -> None:
    for out in (held[0], tmp_path / "new"):
        assert "just one" in refuses("train", held[1], "-o", out, "--resume", "--overwrite")


@pytest.fixture
def begun(people, tmp_path, tmp_path_factory) -> tuple[Path, Path, Path]:
    """The table of people of this test alone, a run of theirs to go on, its configuration."""
    folder = shutil.copytree(people, tmp_path_factory.mktemp("own") / "crops")
    config = write_config(tmp_path / "config.yaml", tree_of(folder))
    run(read_config(config), tmp_path / "run", minutes=0)
    return folder / "scans.csv", tmp_path / "run", config


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("3,val", "3,train"),
        ("2,train", "2,val"),
        ("5,test", "5,val"),
        ("2,train,t1/p2.nii.gz,labels/p2.nii.gz\n", ""),
        ("2,train", "9,train,t1/p9.nii.gz,\n2,train"),
        ("2,train,t1/p2.nii.gz,labels/p2.nii.gz", "2,train,t1/p2.nii.gz,"),
        ("2,train,t1/p2.nii.gz", "2,train,t1/p9.nii.gz"),
    ],
    ids=["to train", "to val", "to be tested", "fewer", "more", "unlabelled", "file"],
)
def test_other_scans_or_splits_are_not_resumed(begun, old, new) -> None:
    """Not the second time either; put back, they are."""
    table, out, config = begun
    shutil.copy(table.parent / "t1/p2.nii.gz", table.parent / "t1/p9.nii.gz")
    before = table.read_text()
    assert before.count(old) == 1
    table.write_text(before.replace(old, new))
    held = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    for _ in range(2):
        with pytest.raises(InputError, match=r"not those that .* began with: .*start_from"):
            run(read_config(config), out, resume=True)
        assert held == {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    header, *rows = before.splitlines()
    table.write_text("\n".join([header, *rows[::-1]]) + "\n")  # their order says nothing
    assert state_of(out).step == 1
    assert run(read_config(config), out, resume=True).step == 4


def test_another_number_of_processes_cannot_go_on(begun, refuses) -> None:
    _, out, config = begun
    about = about_checkpoint(out)
    about["progress"]["processes"] = 2
    save_file(load_file(out / NAME), out / NAME, metadata={"voxwarp": json.dumps(about)})
    for _ in range(2):
        line = refuses("train", config, "-o", out, "--resume", "--device", "cpu")
        assert "begun by 2 processes, and these are 1" in line


# ------------------------------------------------------------------- Before anything is prepared


@pytest.fixture
def unprepared(people, tmp_path) -> Path:
    """A configuration of people of whom nobody is in the cache yet."""
    tree = tree_of(people, data={"cache": str(tmp_path / "prepared")})
    return write_config(tmp_path / "config.yaml", tree)


@pytest.mark.parametrize("check", [False, True])
@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ([], " GB of memory and 0.1 GB are free"),
        (
            ["start_from={brief}", "network.channels=[4,8]"],
            "and not {'channels': [4, 8], 'name': 'pyramid'}",
        ),
        (
            ["start_from={brief}", "network={name: voxelmorph}"],
            "and not {'encoder': [16, 32, 32, 32], ",
        ),
        (["start_from={brief}/none"], "unknown model"),
    ],
)
def test_what_is_known_beforehand_is_told_before_scans_are_prepared(
    unprepared, brief, tmp_path, monkeypatch, cli, refuses, overrides, words, check
) -> None:
    """``refuses`` looks whether anything is written."""
    if not overrides:
        monkeypatch.setattr("voxwarp.training.inspection.check_memory", memory.check_memory)
        monkeypatch.setattr(memory, "available_memory", lambda device: int(0.1e9))
    given = [override.replace("{brief}", str(brief)) for override in overrides]
    if not check:
        assert words in refuses("train", unprepared, *given, "-o", tmp_path / "run")
        return
    outcome = cli("train", unprepared, *given, "--check", "--device", "cpu")
    assert outcome.code == 2
    (line,) = (li for li in outcome.err.splitlines() if li.startswith("voxwarp: error: "))
    assert words in line
    assert "phantoms, train: 3 scans" in outcome.out
    assert not (tmp_path / "prepared").exists()


def test_a_problem_is_told_once(unprepared, cli, tmp_path) -> None:
    """Although both the scans and the memory want the lattice."""
    rows = "id,split,scan\n1,train,1.nii\n2,train,2.nii\n"
    (tmp_path / "scans.csv").write_text(rows)
    for i in (1, 2):
        (tmp_path / f"{i}.nii").write_text("no image")
    source = f"data.sources=[{{table: {tmp_path}/scans.csv}}]"
    lattice = "preparation={alignment: header}"
    outcome = cli("train", unprepared, source, lattice, "--check", "--device", "cpu")
    assert outcome.code == 2
    assert outcome.err.count("headers can be read") == 1


@pytest.mark.parametrize(
    ("override", "name"),
    [
        ("optimiser.learning_rate=0.1", "optimiser.learning_rate"),
        ("phases.0.steps=6", "phases.0.steps"),
        ("network.channels=[4,8]", "network.channels"),
        ("costs={mse: {}}", "costs"),
        ("data.people=2", "data.people"),
        ("seed=1", "seed"),
    ],
)
def test_another_configuration_is_not_resumed(held, refuses, override, name) -> None:
    line = refuses("train", held[1], override, "-o", held[0], "--resume")
    assert f"its training has {name}" in line
    assert "start_from" in line


def test_how_often_it_is_logged_and_by_how_many_may_change(held, cli) -> None:
    out, config = held
    changes = "log.every=7", "log.checkpoint=5", "validation.give_up=9"
    outcome = cli("train", config, *changes, "-o", out, "--resume", "--device", "cpu")
    assert outcome.code == 0, outcome.err
    assert read_config(out / "config.yaml").log.every == 7


def test_overwriting_begins_anew(held, cli, brief) -> None:
    out, config = held
    outcome = cli("train", config, "seed=9", "-o", out, "--overwrite", "--device", "cpu")
    assert outcome.code == 0, outcome.err
    assert str(out / "model.json") in outcome.out
    assert len(logged(out)) == len(logged(brief))
    assert Model.load(out).card["seed"] == 9


def test_overwriting_leaves_nothing_of_the_old_training(held, tmp_path, monkeypatch) -> None:
    """Not even where it breaks off in its first step."""
    out, config = held
    (out / "tensorboard").mkdir()
    (out / "tensorboard/events.out.tfevents.1.host.2.0").write_bytes(b"old")
    (out / "mine.txt").write_text("the user's")
    names = {path.name for path in out.rglob("*")}
    assert names >= MODEL | {NAME, "last"}
    with monkeypatch.context() as patch:
        crash_at(patch, 0)
        with pytest.raises(Crash):
            run(read_config(config, ["seed=9"]), out, overwrite=True)
    left = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert left == {NAME, "config.yaml", "data.json", "log.csv", "mine.txt"}
    assert state_of(out).step == 0
    assert logged(out) == []
    assert run(read_config(config, ["seed=9"]), out, resume=True).step == 4


def test_overwriting_takes_nothing_away_before_it_can_begin(held, refuses, people) -> None:
    """``refuses`` looks whether all is as before."""
    source = f"[{{table: {people}/missing.csv}}]"
    line = refuses("train", held[1], f"data.sources={source}", "-o", held[0], "--overwrite")
    assert "missing.csv" in line


def test_a_folder_that_cannot_be_written_is_refused_at_once(held, refuses) -> None:
    assert str(held[1]) in refuses("train", held[1], "-o", held[1] / "run")


def test_a_damaged_checkpoint_is_refused(held, refuses) -> None:
    whole = (held[0] / NAME).read_bytes()
    (held[0] / NAME).write_bytes(whole[: len(whole) // 2])
    assert NAME in refuses("train", held[1], "-o", held[0], "--resume")


# ------------------------------------------------------------------------------------- Steps


def test_the_phases_follow_each_other(people) -> None:
    phases = [{"steps": 3, "downsample": 2}, {"steps": 2}]
    config = config_of(people, phases=phases)
    assert [phase_at(config, step).downsample for step in range(6)] == [2, 2, 2, 1, 1, 1]


def test_the_rate_warms_up_in_each_phase_and_falls_as_one_cosine(people) -> None:
    knobs = {"learning_rate": 0.5, "warm_up": 10, "final": 0.01}
    config = config_of(people, optimiser=knobs, phases=[{"steps": 100}, {"steps": 100}])

    def cosine(step: int) -> float:
        return 0.01 + 0.99 * (1 + math.cos(math.pi * step / 200)) / 2

    warmth = {0: 0.1, 4: 0.5, 9: 1, 10: 1, 50: 1, 99: 1, 100: 0.1, 109: 1, 150: 1, 199: 1}
    for step, warm in warmth.items():
        assert learning_rate(config, step) == pytest.approx(0.5 * warm * cosine(step))
    assert learning_rate(config, 200) == pytest.approx(0.5 * 0.01)


def test_a_warm_up_longer_than_its_phase_goes_no_further(people) -> None:
    knobs = {"learning_rate": 1.0, "warm_up": 8, "final": 1.0}
    config = config_of(people, optimiser=knobs, phases=[{"steps": 4}, {"steps": 20}])
    rates = [learning_rate(config, step) for step in range(14)]
    assert rates == pytest.approx([*np.arange(1, 5) / 8, *np.arange(1, 9) / 8, 1, 1])


def test_the_rate_is_the_optimisers(people) -> None:
    config = config_of(people, phases=[{"steps": 3}])
    rates = [learner.optimizer.param_groups[0]["lr"] for learner, _ in steps_of(config, 3)]
    assert rates == [learning_rate(config, step) for step in range(3)]


def test_two_passes_of_one_pair_are_one_pass_of_two(tmp_path) -> None:
    """Also of pairs of which some have labels."""
    folder = write_people(tmp_path / "crops", unlabelled=(0,))
    costs = {"ncc": {"window": 5}, "dice": {}, "diffusion": {"weight": 0.1}}
    gradients, losses = [], []
    for batch, accumulate in ((1, 2), (2, 1)):
        knobs = {"batch": batch, "accumulate": accumulate, "clip": 0.0}
        ((learner, values),) = steps_of(config_of(folder, costs=costs, optimiser=knobs), 1)
        gradients.append(gradient_of(learner))
        losses.append([values[name] for name in ("loss", *costs)])
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-7)
    assert losses[1] == pytest.approx(losses[0], rel=1e-5, abs=1e-7)


def test_the_gradient_is_clipped_to_its_bound_and_told_as_it_was(people) -> None:
    ((free, _),) = steps_of(config_of(people, optimiser={"clip": 0.0}), 1)
    ((bound, values),) = steps_of(config_of(people, optimiser={"clip": 1e-3}), 1)
    norm = float(gradient_of(free).norm())
    assert norm > 1e-3
    assert values["gradient_norm"] == pytest.approx(norm, rel=1e-5)
    torch.testing.assert_close(gradient_of(bound), gradient_of(free) * 1e-3 / norm)


def test_the_average_of_the_weights_is_the_sum_of_their_past() -> None:
    """k_n = d^n w_0 + (1 − d) Σ d^(n − i) w_i, where it is no longer young."""
    decay, past = 0.75, torch.randn(9, 12, generator=torch.Generator().manual_seed(1))
    network, kept = torch.nn.Linear(4, 3, bias=False), torch.nn.Linear(4, 3, bias=False)
    kept.weight.data = past[0].view(3, 4).clone()
    for number, weights in enumerate(past[1:]):
        network.weight.data = weights.view(3, 4)
        average_weights(kept, network, decay, 1000 + number)
    powers = decay ** torch.arange(7.0, -1, -1)
    expected = decay**8 * past[0] + (1 - decay) * (powers[:, None] * past[1:]).sum(0)
    torch.testing.assert_close(kept.weight.data.flatten(), expected)


def test_what_is_kept_is_the_average_of_the_steps_taken(people) -> None:
    config = config_of(people, optimiser={"ema": 0.3})  # (1 + s) / (10 + s) is less up to s = 2
    torch.manual_seed(config.seed)
    recipe = Recipe(Grid((24, 24, 24), np.eye(4)))
    expected = weights_of(Model.build(config.network, recipe).network)
    for step, (learner, _) in enumerate(steps_of(config, 4)):
        decay = [1 / 10, 2 / 11, 3 / 12, 0.3][step]
        expected = decay * expected + (1 - decay) * weights_of(learner.network)
        torch.testing.assert_close(weights_of(learner.kept), expected)
        assert not torch.equal(weights_of(learner.network), expected)


def test_the_best_is_the_best_of_its_phase_unless_there_are_labels(people) -> None:
    """A cost of a coarser lattice says nothing about one of a finer."""
    config = config_of(people, phases=[{"steps": 4, "downsample": 2}, {"steps": 4}])
    best = {"val_cost": -0.9, "step": 4}
    assert not is_best(config, Progress(step=4, best={**best, "step": 2}), {"val_cost": -0.5})
    assert is_best(config, Progress(step=6, best=best), {"val_cost": -0.5})
    assert not is_best(config, Progress(step=8, best={**best, "step": 6}), {"val_cost": -0.5})
    best["val_dice"] = 0.8
    assert not is_best(config, Progress(step=6, best=best), {"val_cost": -2.0, "val_dice": 0.7})
    assert is_best(config, Progress(step=6, best=best), {"val_cost": 0.0, "val_dice": 0.9})


def test_an_unlabelled_run_ends_with_a_model_of_the_last_phase(tmp_path) -> None:
    everybody = tuple(range(7))
    folder = write_people(tmp_path / "crops", unlabelled=everybody)
    phases = [{"steps": 2, "downsample": 2}, {"steps": 2}]
    costs = {"ncc": {"window": 3}, "diffusion": {}}  # coarse phantoms are more alike
    progress = run(config_of(folder, phases=phases, costs=costs), tmp_path / "run")
    model = Model.load(tmp_path / "run")
    assert model.recipe.grid.shape == (24, 24, 24)
    assert "val_dice" not in progress.best


# ---------------------------------------------------------------------------------- Learning


def test_it_goes_on_from_the_weights_of_another_model(people, brief) -> None:
    config = config_of(people, start_from=str(brief))
    learner = Learner.begin(config, cohort_of(config), CPU, World())
    expected = weights_of(Model.load(brief).network)
    torch.testing.assert_close(weights_of(learner.network), expected, rtol=0, atol=0)
    other = Learner.begin(config_of(people), cohort_of(config), CPU, World())
    assert not torch.equal(weights_of(other.network), expected)


def test_another_architecture_cannot_be_gone_on_from(people, brief, tmp_path) -> None:
    config = config_of(people, start_from=str(brief), network={**PYRAMID, "channels": [4, 8]})
    with pytest.raises(InputError, match=r"start_from .*\[4, 8, 8\].*\[4, 8\]"):
        run(config, tmp_path / "run")
    with pytest.raises(InputError, match="unknown model"):
        run(config_of(people, start_from=str(tmp_path / "none")), tmp_path / "run")


@pytest.mark.parametrize(
    ("theirs", "ours", "fits"),
    [
        ({"name": "pyramid"}, {"name": "pyramid", "channels": [8, 16, 32, 32, 32]}, True),
        (PYRAMID, {**PYRAMID, "steps": 5}, True),
        (PYRAMID, {"name": "pyramid", "channels": [4, 8, 8]}, True),
        (
            {"name": "voxelmorph", "encoder": [16, 32, 32, 32]},
            {"name": "voxelmorph", "decoder": [32, 32, 32, 32, 8, 8]},
            True,
        ),
        (PYRAMID, {**PYRAMID, "channels": [4, 8, 16]}, False),
        ({"name": "pyramid"}, PYRAMID, False),
        (DIFFEOMORPHIC, {**VOXELMORPH, "decoder": [16] * 4}, False),
    ],
)
def test_weights_fit_where_networks_differ_in_words_alone(
    people, tmp_path, theirs, ours, fits
) -> None:
    """In defaults that are spelt out, and in the steps of the exponential, which has no weights."""
    torch.manual_seed(1)
    made = Model.build(theirs, Recipe(Grid((24, 24, 24), np.eye(4))))
    made.save(tmp_path / "made")
    config = config_of(people, network=ours, start_from=str(tmp_path / "made"))
    scans = gather(config.data, config.seed)
    if not fits:
        with pytest.raises(InputError, match="its network is"):
            check_beforehand(config, scans, CPU)
        return
    check_beforehand(config, scans, CPU)
    learner = Learner.begin(config, cohort_of(config), CPU, World())
    torch.testing.assert_close(weights_of(learner.network), weights_of(made.network))
    assert learner.model(made.recipe, config.phases[0]).architecture == config.network


@pytest.mark.parametrize(
    ("cost", "network"),
    [
        *(("mse", PYRAMID), ("ncc", PYRAMID), ("mutual_information", PYRAMID)),
        *(("ncc", DIFFEOMORPHIC), ("ncc", VOXELMORPH)),
    ],
)
def test_each_similarity_grows_in_a_few_steps(pair, cost, network) -> None:
    """With the same two scans in each step."""
    costs = {cost: {}, "diffusion": {"weight": 1e-3}}
    tree = pair("centre", costs=costs, network=network, phases=[{"steps": 10}])
    config = training.build_config(tree)
    values = [each[cost] for each in atlas_steps(config, 10)]
    assert values[-1] < values[0] - 0.02 * abs(values[0])
    assert values[-1] == min(values)


def atlas_steps(config: Config, number: int) -> Iterator[dict[str, float]]:
    from voxwarp.training.cohort import prepare_atlas

    cohort = cohort_of(config)
    learner = Learner.begin(config, cohort, CPU, World())
    batches = _batches(learner, cohort, prepare_atlas(config, cohort))
    for step in range(number):
        yield learner.update(step, phase_at(config, step), batches, Silent(config))


@pytest.fixture
def pair(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """A configuration of one scan and an atlas, to be learnt by heart."""

    def make(alignment: str, **changes: Any) -> dict[str, Any]:
        spread = 10.0 if alignment == "centre" else 0.0
        people = {"splits": ("train", "test"), "spread": spread, "amplitude": 3.5}
        folder = write_people(tmp_path / "pair", **people)
        rows = (folder / "scans.csv").read_text().splitlines()
        (folder / "scans.csv").write_text("\n".join(rows[:2]) + "\n")
        atlas = {"atlas": str(folder / "t1/p1.nii.gz")}
        atlas["atlas_labels"] = str(folder / "labels/p1.nii.gz")
        tree = tree_of(folder, **{"validation": {"every": 1000}, **changes})
        tree["preparation"]["alignment"] = alignment
        return {**tree, "sampling": {"mode": "atlas", **atlas}}

    return make


def overlap(folder: Path, model: Path | None) -> float:
    """Mean Dice of person 0 on person 1, after a registration, or where the middles meet."""
    moving, fixed = (str(folder / f"t1/p{i}.nii.gz") for i in (0, 1))
    labels, other = (str(folder / f"labels/p{i}.nii.gz") for i in (0, 1))
    target = np.asarray(nib.load(other).dataobj).astype(int)
    moved = np.asarray(nib.load(labels).dataobj).astype(int)
    if model is not None:
        moved = np.asarray(register(moving, fixed, model, labels=labels).warped_labels.data)
    return float(np.mean(list(dice(moved.astype(int), target).values())))


@pytest.mark.parametrize(
    ("alignment", "steps", "reached"), [("centre", 40, 0.94), ("header", 15, 0.91)]
)
def test_a_pair_learnt_by_heart_is_registered_as_a_user_would(
    pair, tmp_path, alignment, steps, reached
) -> None:
    """From 0.85; people whose headers are apart are brought together by their middles."""
    costs = {"ncc": {"window": 5}, "dice": {}, "diffusion": {"weight": 0.01}}
    knobs = {"phases": [{"steps": steps}], "optimiser": {"learning_rate": 1e-2}}
    config, out = training.build_config(pair(alignment, costs=costs, **knobs)), tmp_path / "run"
    run(config, out)
    rows = [row for row in read_rows(out) if row["loss"]]
    before, after = overlap(tmp_path / "pair", None), overlap(tmp_path / "pair", out)
    assert before < 0.86
    assert after > reached
    assert Model.load(out).recipe.alignment_name == alignment
    if alignment == "centre":
        assert float(rows[-1]["ncc"]) < -0.98
        assert float(rows[-1]["dice"]) < 0.09


@pytest.mark.slow
@pytest.mark.parametrize(
    "network",
    [
        {"network": PYRAMID, "both_directions": True, "compare_at": "velocity"},
        {"network": DIFFEOMORPHIC, "both_directions": True, "compare_at": "velocity"},
    ],
    ids=lambda network: network["network"]["name"],
)
def test_without_labels_it_learns_to_register_people_it_never_saw(network, tmp_path) -> None:
    """Of the overlap that is missing, a seventh at least; and nothing folds."""
    splits = ("train",) * 12 + ("val",) * 3
    folder = write_people(tmp_path / "crops", splits=splits, amplitude=3.5)
    steps = {"phases": [{"steps": 300}], "validation": {"every": 300, "pairs": 6}}
    knobs = {"optimiser": {"learning_rate": 2e-3, "warm_up": 20}}
    progress = run(config_of(folder, **network, **steps, **knobs), tmp_path / "run")
    assert 1 - progress.best["val_dice"] < 6 / 7 * (1 - progress.start["val_dice"])
    assert progress.best["val_folds_percent"] == 0


# ------------------------------------------------------------------------------------ Result


def test_the_card_tells_what_the_model_is(people, unbroken) -> None:
    card = Model.load(unbroken).card
    config = config_of(people, **EVERYTHING)
    assert card["recipe"] == config.model_dump(mode="json")
    assert card["seed"] == 3
    assert card["data"] == [
        "phantoms, train: 3 scans of 3 people, 3 with labels",
        "phantoms, val: 2 scans of 2 people, 2 with labels",
        "phantoms, test: 2 scans of 2 people, 2 with labels",
    ]
    assert {"commit", "voxwarp", "licence", "credit", "samples_skipped"} <= card.keys()
    rows = {row["step"]: row for row in logged(unbroken) if row["val_dice"]}
    logged_dice = float(rows[str(card["steps"])]["val_dice"])
    assert card["scores"]["validation"]["val_dice"] == pytest.approx(logged_dice, abs=1e-5)
    assert logged_dice == max(float(row["val_dice"]) for row in rows.values())
    assert "0.8" in str(card["scores"]["validation_before"]["val_dice"])


def test_the_configuration_reads_again(people, unbroken) -> None:
    assert read_config(unbroken / "config.yaml") == config_of(people, **EVERYTHING)


def test_a_run_trains_again_from_the_configuration_that_it_left(unbroken, tmp_path) -> None:
    run(read_config(unbroken / "config.yaml"), tmp_path / "again")
    assert_same_weights(unbroken, tmp_path / "again")
