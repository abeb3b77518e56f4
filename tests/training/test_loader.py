"""Batches of many processes, of damaged files, and of none."""

from typing import Any

import pytest
import torch
from runs import EVERYTHING, cohort_of, run
from safetensors.torch import load_file

from training import config_of, read_rows, write_subjects
from voxwarp.errors import InputError
from voxwarp.networks.model import Model
from voxwarp.training.checkpoint import NAME, TrainingState
from voxwarp.training.cohort import Cohort
from voxwarp.training.config import Config
from voxwarp.training.monitor import Monitor
from voxwarp.training.train import Learner, train

pytestmark = pytest.mark.usefixtures("memory_suffices")


def test_two_workers_read_what_none_would(subjects, unbroken, tmp_path) -> None:
    out = tmp_path / "run"
    run(config_of(subjects, **EVERYTHING, workers=2), out)
    for name in (NAME, "last/weights.safetensors"):
        first, second = load_file(unbroken / name), load_file(out / name)
        for key, value in first.items():
            torch.testing.assert_close(second[key], value, rtol=0, atol=0)


def test_a_prepared_scan_that_is_damaged_meanwhile_is_skipped_and_counted(
    tmp_path, monkeypatch, capsys
) -> None:
    folder = write_subjects(tmp_path / "crops")
    config = config_of(folder, phases=[{"steps": 8}], validation={"every": 8})
    cohort, step = cohort_of(config), Monitor.step
    damaged = cohort.files[cohort.indices("train")[0]][0]

    def damage(self: Monitor, state: TrainingState, *more: Any) -> None:
        damaged.write_bytes(damaged.read_bytes()[:1000])
        step(self, state, *more)

    monkeypatch.setattr(Monitor, "step", damage)
    state = train(config, tmp_path / "run", device="cpu")
    assert state.step == 8
    assert state.skipped > 0
    said = [line for line in capsys.readouterr().err.splitlines() if "skipped;" in line]
    assert len(said) == state.skipped
    assert all(str(damaged) in line for line in said)
    assert Model.load(tmp_path / "run" / "last").card["samples_skipped"] == state.skipped
    assert [int(row["skipped"]) for row in read_rows(tmp_path / "run") if row["loss"]][-1] == len(
        said
    )


@pytest.mark.parametrize("workers", [0, 1])
def test_a_cache_that_is_gone_meanwhile_ends_the_training_in_one_line(
    tmp_path, monkeypatch, workers
) -> None:
    folder = write_subjects(tmp_path / "crops")
    config, before = config_of(folder, workers=workers), Learner.begin

    def lose(config: Config, cohort: Cohort, *more: Any) -> Learner:
        for number in cohort.indices("train"):
            cohort.files[number][0].unlink()
        return before(config, cohort, *more)

    monkeypatch.setattr(Learner, "begin", lose)
    with pytest.raises(InputError, match=r"^10 pairs in a row cannot be read") as caught:
        run(config, tmp_path / "run")
    assert "\n" not in str(caught.value)
