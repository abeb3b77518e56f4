"""Whether a training can start in a folder, or continue the one in it."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from runs import about_checkpoint, logged, run, state_of
from safetensors.torch import load_file, save_file

from training import tree_of, write_config
from voxwarp.errors import InputError
from voxwarp.training.checkpoint import NAME
from voxwarp.training.config import read_config

pytestmark = pytest.mark.usefixtures("memory_suffices")


@pytest.fixture
def started(subjects, tmp_path, tmp_path_factory) -> tuple[Path, Path, Path]:
    """A table of subjects of this test alone, a started run with them, its configuration."""
    folder = shutil.copytree(subjects, tmp_path_factory.mktemp("own") / "crops")
    config = write_config(tmp_path / "config.yaml", tree_of(folder))
    run(read_config(config), tmp_path / "run", minutes=0)
    return folder / "scans.csv", tmp_path / "run", config


def test_a_folder_that_holds_a_training_is_refused(held, refuses) -> None:
    line = refuses("train", held[1], "-o", held[0])
    assert "--resume" in line
    assert "--overwrite" in line


def test_so_is_one_that_holds_a_model(held, refuses) -> None:
    (held[0] / NAME).unlink()
    assert "--overwrite" in refuses("train", held[1], "-o", held[0])


def test_a_model_without_a_checkpoint_cannot_be_resumed(held, refuses) -> None:
    (held[0] / NAME).unlink()
    line = refuses("train", held[1], "-o", held[0], "--resume")
    assert f"no {NAME} to continue from" in line


def test_resume_and_overwrite_exclude_each_other(held, refuses, tmp_path) -> None:
    for out in (held[0], tmp_path / "new"):
        assert "give only one of them" in refuses(
            "train", held[1], "-o", out, "--resume", "--overwrite"
        )


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
def test_other_scans_or_splits_are_not_resumed(started, old, new) -> None:
    """Not the second time either; put back, they are."""
    table, out, config = started
    shutil.copy(table.parent / "t1/p2.nii.gz", table.parent / "t1/p9.nii.gz")
    before = table.read_text()
    assert before.count(old) == 1
    table.write_text(before.replace(old, new))
    held = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    for _ in range(2):
        with pytest.raises(
            InputError, match=r"have changed since the training started; .*start_from"
        ):
            run(read_config(config), out, resume=True)
        assert held == {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    header, *rows = before.splitlines()
    table.write_text("\n".join([header, *rows[::-1]]) + "\n")  # their order says nothing
    assert state_of(out).step == 1
    assert run(read_config(config), out, resume=True).step == 4


def test_another_number_of_processes_cannot_resume(started, refuses) -> None:
    _, out, config = started
    about = about_checkpoint(out)
    about["progress"]["processes"] = 2
    save_file(load_file(out / NAME), out / NAME, metadata={"voxwarp": json.dumps(about)})
    for _ in range(2):
        line = refuses("train", config, "-o", out, "--resume", "--device", "cpu")
        assert "started with 2 processes, but now there are 1" in line


@pytest.mark.parametrize(
    ("override", "name"),
    [
        ("optimiser.learning_rate=0.1", "optimiser.learning_rate"),
        ("phases.0.steps=6", "phases.0.steps"),
        ("network.channels=[4,8]", "network.channels"),
        ("losses={mse: {}}", "losses"),
        ("data.subjects=2", "data.subjects"),
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


def test_a_folder_that_cannot_be_written_is_refused_at_once(held, refuses) -> None:
    assert str(held[1]) in refuses("train", held[1], "-o", held[1] / "run")


def test_a_damaged_checkpoint_is_refused(held, refuses) -> None:
    whole = (held[0] / NAME).read_bytes()
    (held[0] / NAME).write_bytes(whole[: len(whole) // 2])
    assert NAME in refuses("train", held[1], "-o", held[0], "--resume")


# ---------------------------------------------------------------------------- Earlier versions


def test_a_run_of_an_earlier_version_resumes_to_the_same_weights(started, brief) -> None:
    """Its table, configuration, log and checkpoint have the names of that version."""
    table, out, config = started
    header, *rows = table.read_text().splitlines()
    lines = [f"{header},person", *(f"{row},p{row.partition(',')[0]}" for row in rows)]
    table.write_text("\n".join(lines) + "\n")
    about = about_checkpoint(out)
    about["config"]["costs"] = about["config"].pop("losses")
    about["config"]["data"]["people"] = about["config"]["data"].pop("subjects")
    for scores in (about["progress"]["best"], about["progress"]["start"]):
        if "val_loss" in scores:
            scores["val_cost"] = scores.pop("val_loss")
    save_file(load_file(out / NAME), out / NAME, metadata={"voxwarp": json.dumps(about)})
    for path in (config, out / "config.yaml"):
        text = path.read_text()
        assert text.count("losses:") == 1
        path.write_text(text.replace("losses:", "costs:").replace("subjects:", "people:"))
    log = (out / "log.csv").read_text()
    assert log.count("val_loss") == 1
    (out / "log.csv").write_text(log.replace("val_loss", "val_cost"))

    assert run(read_config(config), out, resume=True).step == 4
    for name in (NAME, "weights.safetensors", "last/weights.safetensors"):
        tensors, expected = load_file(out / name), load_file(brief / name)
        assert tensors.keys() == expected.keys()
        assert all(torch.equal(tensors[key], expected[key]) for key in expected)
    assert read_config(out / "config.yaml").losses == read_config(config).losses
    assert logged(out) == logged(brief)
