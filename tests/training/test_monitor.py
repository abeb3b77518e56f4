"""What a training shows: rows of log.csv that are whole, TensorBoard's curves, and one picture."""

import builtins
import csv
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from voxwarp.errors import InputError
from voxwarp.training import monitor as module
from voxwarp.training.checkpoint import TrainingState
from voxwarp.training.config import Config, build_config
from voxwarp.training.monitor import LOG, Monitor, read_log

COLUMNS = (
    "step,seconds,rate,loss,ncc,diffusion,gradient_norm,skipped,"
    "val_loss,val_dice,val_folds_percent,val_motion"
)
SCORES = {"val_loss": -0.5, "val_dice": 0.75, "val_folds_percent": 0.0, "val_motion": 1.5}


def config_of(*, every: int = 2, steps: int = 10, tensorboard: bool = False) -> Config:
    return build_config(
        {
            "data": {"sources": [{"folder": "/x"}]},
            "phases": [{"steps": steps}],
            "log": {"every": every, "tensorboard": tensorboard},
        }
    )


def values(step: int) -> dict[str, float]:
    """Losses of a step, which differ from step to step."""
    return {"loss": step / 4, "ncc": -step, "diffusion": 2.0 * step, "gradient_norm": 1.0}


def go(monitor: Monitor, first: int, last: int, validate: int = 0) -> None:
    """Steps, of two seconds each, after ``first``."""
    for step in range(first + 1, last + 1):
        state = TrainingState(step, skipped=step // 3, seconds=2.0 * step)
        monitor.step(state, values(step), rate=1e-3 / step)
        if validate and step % validate == 0:
            monitor.validated(state, SCORES, lambda: None)


def rows(out: Path) -> list[dict[str, str]]:
    with open(out / LOG, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


# --------------------------------------------------------------------------------------- log.csv


def test_rows_are_means_since_the_last_and_scores(tmp_path: Path) -> None:
    with Monitor(tmp_path, config_of(every=4), show=False) as monitor:
        monitor.begin(TrainingState())
        go(monitor, 0, 10, validate=8)
    assert (tmp_path / LOG).read_text().splitlines()[0] == COLUMNS
    found = rows(tmp_path)
    assert [row["step"] for row in found] == ["4", "8", "8", "10"]
    means = [2.5, 6.5, 8.5]  # of 1 to 4, of 5 to 8; of 7 to 10, the last four, at the end
    trained = [row for row in found if row["loss"]]
    for row, step, mean in zip(trained, (4, 8, 10), means, strict=True):
        assert float(row["loss"]) == mean / 4
        assert float(row["ncc"]) == -mean
        assert float(row["diffusion"]) == 2 * mean
        assert float(row["rate"]) == 1e-3 / step
        assert (float(row["seconds"]), int(row["skipped"])) == (2 * step, step // 3)
        assert row["val_dice"] == ""
    (scored,) = (row for row in found if not row["loss"])
    assert {name: float(scored[name]) for name in SCORES} == SCORES


def test_a_resumed_log_is_that_of_an_unbroken_run(tmp_path: Path) -> None:
    """What came after the checkpoint is forgotten; it is trained again."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for out, stops in ((whole, [(0, 10)]), (broken, [(0, 8), (4, 9), (6, 10)])):
        for first, last in stops:
            with Monitor(out, config_of(), show=False) as monitor:
                monitor.begin(TrainingState(first))
                go(monitor, first, last, validate=2)
    assert (broken / LOG).read_text() == (whole / LOG).read_text()


@pytest.mark.parametrize("torn", range(1, 60, 3))
def test_a_torn_last_line_is_dropped(tmp_path: Path, torn: int) -> None:
    with Monitor(tmp_path, config_of(), show=False) as monitor:
        monitor.begin(TrainingState())
        go(monitor, 0, 4, validate=4)
    path, before = tmp_path / LOG, rows(tmp_path)
    last = len(path.read_bytes().splitlines(keepends=True)[-1])
    path.write_bytes(path.read_bytes()[: -min(torn, last)])
    assert read_log(tmp_path) == before[:-1]
    with Monitor(tmp_path, config_of(), show=False) as monitor:
        monitor.begin(TrainingState(4))
    assert rows(tmp_path) == before[:-1]
    assert path.read_bytes().endswith(b"\n")


@pytest.mark.parametrize(
    "junk", [b"\0\0\0\0\n", b"\xff\xfe\n", b"nonsense\n", b"7,1\n", b",,,\n", b"x" + b",1" * 11]
)
def test_lines_that_are_no_rows_are_dropped(tmp_path: Path, junk: bytes) -> None:
    with Monitor(tmp_path, config_of(), show=False) as monitor:
        monitor.begin(TrainingState())
        go(monitor, 0, 4)
    before = rows(tmp_path)
    with open(tmp_path / LOG, "ab") as stream:
        stream.write(junk)
    assert read_log(tmp_path) == before


def test_a_log_of_an_earlier_version_is_continued(tmp_path: Path) -> None:
    with Monitor(tmp_path, config_of(), show=False) as monitor:
        monitor.begin(TrainingState())
        go(monitor, 0, 4, validate=2)
    before, path = rows(tmp_path), tmp_path / LOG
    assert any(row["val_loss"] for row in before)
    path.write_text(path.read_text().replace("val_loss", "val_cost"))
    with Monitor(tmp_path, config_of(), show=False) as monitor:
        monitor.begin(TrainingState(4))
    assert rows(tmp_path) == before
    path.write_text("step,recognition,val_cost\n2,0.5,0.25\n")
    assert read_log(tmp_path) == [{"step": "2", "segmentation": "0.5", "val_loss": "0.25"}]


def test_a_run_that_starts_again_forgets_the_log(tmp_path: Path) -> None:
    for _ in range(2):
        with Monitor(tmp_path, config_of(), show=False) as monitor:
            monitor.begin(TrainingState())
            go(monitor, 0, 4)
    assert [row["step"] for row in rows(tmp_path)] == ["2", "4"]


def test_other_processes_write_nothing(tmp_path: Path, capsys) -> None:
    with Monitor(tmp_path, config_of(tensorboard=True), show=False, write=False) as monitor:
        monitor.begin(TrainingState())
        go(monitor, 0, 4, validate=2)
        monitor.warn(["left out"])
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr() == ("", "")


# -------------------------------------------------------------------------------------- Terminal


def test_lines_tell_what_is_left(tmp_path: Path, capsys) -> None:
    with Monitor(tmp_path, config_of(every=5, steps=2005), show=True) as monitor:
        monitor.begin(TrainingState())
        go(monitor, 0, 5)
        monitor.validated(TrainingState(5), SCORES, lambda: None)
        monitor.validated(TrainingState(5), {}, lambda: None)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "step 5 of 2005: loss 0.75, ncc -3, diffusion 6; 2.00 s per step, 1:06:40 left",
        "step 5: val_loss -0.5, val_dice 0.75, val_folds_percent 0, val_motion 1.5",
    ]


def test_the_pace_is_that_of_this_run(tmp_path: Path, capsys) -> None:
    """100 steps of a slow machine before it are not counted."""
    with Monitor(tmp_path, config_of(every=5, steps=205), show=True) as monitor:
        monitor.begin(TrainingState(100, seconds=1e6))
        monitor.step(TrainingState(105, seconds=1e6 + 10), values(1), 1.0)
    assert "; 2.00 s per step, 0:03:20 left" in capsys.readouterr().err


def test_skipped_files_are_counted(tmp_path: Path, capsys) -> None:
    monitor = Monitor(tmp_path, config_of(), show=True, write=False)
    monitor.begin(TrainingState(3, skipped=5))
    assert monitor.skipped([]) == 0
    assert monitor.skipped(["a is gone", "b is gone"]) == 2
    assert monitor.skipped(["c is gone"]) == 1
    assert capsys.readouterr().err.splitlines() == [
        "warning: a is gone (skipped; 6 so far)",
        "warning: b is gone (skipped; 7 so far)",
        "warning: c is gone (skipped; 8 so far)",
    ]


# ------------------------------------------------------------------------------------ A full disk


class Full:
    """A disk on which nothing can be opened for writing."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.opened, self.full = builtins.open, False
        monkeypatch.setattr(module, "open", self, raising=False)

    def __call__(self, *arguments: Any, **more: Any) -> Any:
        if self.full:
            raise OSError(28, os.strerror(28))
        return self.opened(*arguments, **more)


def test_a_full_disk_ends_the_run_with_advice(tmp_path: Path, monkeypatch) -> None:
    disk = Full(monkeypatch)
    monitor = Monitor(tmp_path, config_of(), show=False)
    monitor.begin(TrainingState())
    go(monitor, 0, 2)
    disk.full = True
    with pytest.raises(
        InputError, match="No space left on device; make room, then continue with `re"
    ):
        go(monitor, 2, 4)
    disk.full = False
    monitor.begin(TrainingState(2))
    assert [row["step"] for row in rows(tmp_path)] == ["2"]


@pytest.mark.parametrize("broken", ["add_scalar", "flush", "add_image"])
def test_a_full_disk_is_reported_by_tensorboard_too(tmp_path: Path, broken: str) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(28, os.strerror(28))

    methods = ("add_scalar", "flush", "add_image", "close")
    board = SimpleNamespace(**dict.fromkeys(methods, lambda *_, **__: None))
    setattr(board, broken, fail)
    board.close = fail
    with Monitor(tmp_path, config_of(), show=False) as monitor:
        monitor.begin(TrainingState())
        monitor._board = board
        with pytest.raises(InputError, match="No space left on device"):
            monitor.validated(TrainingState(1), SCORES, lambda: np.zeros((4, 4)))


# ------------------------------------------------------------------------------------ TensorBoard


def test_the_board_has_curves_and_a_picture(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    picture = np.zeros((30, 60))
    picture[:15, :20] = 1  # bright in the upper left
    state = TrainingState(2, seconds=1.0)
    with Monitor(tmp_path, config_of(tensorboard=True), show=False) as monitor:
        monitor.begin(TrainingState())
        go(monitor, 0, 2)
        monitor.validated(state, {**SCORES, "val_motion": float("nan")}, lambda: picture)
        go(monitor, 2, 4)
    found = EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    tags = found.Tags()
    trained = {"loss", "ncc", "diffusion", "rate", "gradient_norm", "skipped"}
    assert {f"training/{name}" for name in trained} <= set(tags["scalars"])
    assert {f"validation/{name}" for name in SCORES if name != "val_motion"} <= set(tags["scalars"])
    assert "validation/val_motion" not in tags["scalars"]
    losses = [(event.step, event.value) for event in found.Scalars("training/loss")]
    assert losses == [(2, 0.375), (4, 0.875)]
    (tag,) = tags["images"]
    assert all(word in tag for word in ("fixed", "moving", "moved", "grid", "difference"))
    (image,) = found.Images(tag)
    assert (image.step, image.width, image.height) == (2, 60, 30)
    shown = decoded(image.encoded_image_string)
    np.testing.assert_array_equal(shown, 255 * picture)


def decoded(png: bytes) -> np.ndarray:
    import io

    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(png)).convert("L"))


def test_steps_after_the_checkpoint_are_purged_from_the_board(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for first, last in ((0, 8), (4, 6)):
        with Monitor(tmp_path, config_of(tensorboard=True), show=False) as monitor:
            monitor.begin(TrainingState(first))
            go(monitor, first, last)
    found = EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    assert [event.step for event in found.Scalars("training/loss")] == [2, 4, 6]


def test_without_tensorboard_there_is_one_notice(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    asked = []
    with Monitor(tmp_path, config_of(tensorboard=True), show=True) as monitor:
        monitor.begin(TrainingState())
        go(monitor, 0, 4)
        monitor.validated(TrainingState(4), SCORES, lambda: asked.append("picture"))
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if "pip install" in line] == [
        "TensorBoard is not installed, so there are no curves and pictures; for them, run "
        "pip install 'voxwarp[tensorboard]'"
    ]
    assert asked == []
    assert [path.name for path in tmp_path.iterdir()] == [LOG]
    assert [row["step"] for row in rows(tmp_path)] == ["2", "4", "4"]
