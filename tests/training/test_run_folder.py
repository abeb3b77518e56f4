"""What a run leaves in its folder: its models, what they were made of; nothing of an older one."""

import pytest
from odd_headers import TWO, of_two_minds
from runs import EVERYTHING, MODEL, Crash, assert_same_weights, crash_at, logged, run, state_of

from training import config_of, tree_of, write_config, write_subjects
from voxwarp.networks.model import Model
from voxwarp.training.checkpoint import NAME, TrainingState
from voxwarp.training.config import read_config
from voxwarp.training.run_folder import is_best

pytestmark = pytest.mark.usefixtures("memory_suffices")


def test_overwriting_starts_again(held, cli, brief) -> None:
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


def test_overwriting_takes_nothing_away_before_it_can_begin(held, refuses, subjects) -> None:
    """``refuses`` looks whether all is as before."""
    source = f"[{{table: {subjects}/missing.csv}}]"
    line = refuses("train", held[1], f"data.sources={source}", "-o", held[0], "--overwrite")
    assert "missing.csv" in line


def test_the_best_is_the_best_of_its_phase_unless_there_are_labels(subjects) -> None:
    """Losses on a coarser and on a finer grid do not compare."""
    config = config_of(subjects, phases=[{"steps": 4, "downsample": 2}, {"steps": 4}])
    best = {"val_loss": -0.9, "step": 4}
    assert not is_best(config, TrainingState(step=4, best={**best, "step": 2}), {"val_loss": -0.5})
    assert is_best(config, TrainingState(step=6, best=best), {"val_loss": -0.5})
    assert not is_best(config, TrainingState(step=8, best={**best, "step": 6}), {"val_loss": -0.5})
    best["val_dice"] = 0.8
    assert not is_best(
        config, TrainingState(step=6, best=best), {"val_loss": -2.0, "val_dice": 0.7}
    )
    assert is_best(config, TrainingState(step=6, best=best), {"val_loss": 0.0, "val_dice": 0.9})


def test_the_card_describes_the_model(subjects, unbroken) -> None:
    card = Model.load(unbroken).card
    config = config_of(subjects, **EVERYTHING)
    assert card["recipe"] == config.model_dump(mode="json")
    assert card["seed"] == 3
    assert card["data"] == [
        "phantoms, train: 3 scans of 3 subjects, 3 with labels",
        "phantoms, val: 2 scans of 2 subjects, 2 with labels",
        "phantoms, test: 2 scans of 2 subjects, 2 with labels",
    ]
    assert {"commit", "voxwarp", "licence", "credit", "samples_skipped"} <= card.keys()
    rows = {row["step"]: row for row in logged(unbroken) if row["val_dice"]}
    logged_dice = float(rows[str(card["steps"])]["val_dice"])
    assert card["scores"]["validation"]["val_dice"] == pytest.approx(logged_dice, abs=1e-5)
    assert logged_dice == max(float(row["val_dice"]) for row in rows.values())
    assert "0.8" in str(card["scores"]["validation_before"]["val_dice"])


def test_the_configuration_reads_again(subjects, unbroken) -> None:
    assert read_config(unbroken / "config.yaml") == config_of(subjects, **EVERYTHING)


def test_a_run_trains_again_from_the_configuration_that_it_left(unbroken, tmp_path) -> None:
    run(read_config(unbroken / "config.yaml"), tmp_path / "again")
    assert_same_weights(unbroken, tmp_path / "again")


def test_what_headers_leave_in_doubt_is_said_once(tmp_path, cli) -> None:
    """Also of scans that are prepared already."""
    subjects = write_subjects(tmp_path / "subjects")
    for kind in ("t1", "labels"):
        path = subjects / kind / "p1.nii.gz"
        of_two_minds(path, path)
    config = write_config(tmp_path / "config.yaml", tree_of(subjects))
    for more in ([], ["--overwrite"]):
        outcome = cli("train", config, "-o", tmp_path / "out", "--device", "cpu", *more)
        assert outcome.code == 0, outcome.err
        lines = [line for line in (outcome.out + outcome.err).splitlines() if TWO in line]
        assert [line.split(":")[:2] for line in lines] == [
            ["warning", f" image {subjects}/t1/p1.nii.gz"],
            ["warning", f" label map {subjects}/labels/p1.nii.gz"],
        ]
