"""Progress of a training: a bar or lines in the terminal, log.csv, TensorBoard."""

import csv
import io
import math
import os
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import numpy as np

from .._files import write_bytes
from ..errors import InputError
from .checkpoint import TrainingState
from .config import Config

LOG = "log.csv"
T = TypeVar("T")


class Monitor:
    """Reports the progress of a training, in the terminal and in files.

    Args:
        out: folder of the run.
        config: configuration: how often to report, and the losses.
        show: write to the terminal: a progress bar, or lines if the output is not a terminal.
        write: write files; with several processes, only the first one does.
    """

    def __init__(self, out: Path, config: Config, *, show: bool, write: bool = True):
        self.out, self.config, self.show, self.write = out, config, show, write
        self.columns = [
            *("step", "seconds", "rate", "loss", *config.losses, "gradient_norm", "skipped"),
            *("val_loss", "val_dice", "val_folds_percent", "val_motion"),
        ]
        self._recent: deque[Mapping[str, float]] = deque(maxlen=config.log.every)
        self._board: Any = None
        self._bar: Any = None
        self._task: Any = None
        self._first = TrainingState()
        self._counted = 0

    def __enter__(self) -> "Monitor":
        if self.show and sys.stderr.isatty():
            self._bar = _bar()
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        if self._board is not None:
            with suppress(OSError):  # a full disk has been reported before
                self._board.close()

    def preparing(self, done: int, total: int) -> None:
        """Show how many scans are prepared."""
        self._advance("preparing scans", done, total)
        if self._bar is None and total and done % max(1, total // 10) == 0:
            self.say(f"prepared {done} of {total} scans")

    def begin(self, state: TrainingState) -> None:
        """Start or continue the log; rows of later steps, from an interrupted run, are removed."""
        self._first = TrainingState(**vars(state))
        self._counted = state.skipped
        if not self.write:
            return
        rows = [r for r in read_log(self.out) if int(r["step"]) <= state.step]
        self._write_rows(rows)
        if self.config.log.tensorboard:
            self._board = self._tensorboard(state.step)

    def _tensorboard(self, step: int) -> Any:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            self.say(
                "TensorBoard is not installed, so there are no curves and pictures; for them, run "
                "pip install 'voxwarp[tensorboard]'"
            )
            return None
        folder, purge = str(self.out / "tensorboard"), step + 1 if step else None
        return self._guarded(lambda: SummaryWriter(folder, purge_step=purge))

    def step(self, state: TrainingState, values: Mapping[str, float], rate: float) -> None:
        """Report a step: its losses, gradient norm and learning rate."""
        self._recent.append(values)
        description = f"loss {values['loss']:.4f}"
        if state.best:
            description += "".join(
                f", best {key.removeprefix('val_')} {state.best[key]:.4f}"
                for key in ("val_dice", "val_loss")
                if key in state.best
            )
        self._advance(description, state.step, self.config.steps)
        if state.step % self.config.log.every and state.step != self.config.steps:
            return
        means = {name: float(np.mean([r[name] for r in self._recent])) for name in self._recent[-1]}
        row = {"seconds": round(state.seconds, 1), "rate": rate, **means}
        self._row(state, {**row, "skipped": state.skipped})
        self.say(self._line(state, means), unless_bar=True)

    def _line(self, state: TrainingState, means: Mapping[str, float]) -> str:
        parts = ", ".join(f"{n} {v:.5g}" for n, v in means.items() if n != "gradient_norm")
        steps = max(1, state.step - self._first.step)
        pace = (state.seconds - self._first.seconds) / steps
        remaining = pace * (self.config.steps - state.step)
        return (
            f"step {state.step} of {self.config.steps}: {parts}; {pace:.2f} s per step, "
            f"{_clock(remaining)} left"
        )

    def validated(
        self,
        state: TrainingState,
        scores: Mapping[str, float],
        picture: Callable[[], np.ndarray | None],
    ) -> None:
        """Report the scores of the validation pairs, with a picture of the first pair."""
        if not scores:
            return
        self._row(state, {"seconds": round(state.seconds, 1), **scores})
        self.say(
            f"step {state.step}: "
            + ", ".join(f"{name} {value:.4g}" for name, value in scores.items())
        )
        image = picture() if self._board is not None else None
        if image is not None:
            title = "fixed, moving, moved, grid, difference before, after"
            self._guarded(lambda: self._board.add_image(title, image, state.step, dataformats="HW"))

    def skipped(self, messages: Sequence[str]) -> int:
        """Warn of files that could not be read; returns their number."""
        for message in messages:
            self._counted += 1
            self.say(f"warning: {message} (skipped; {self._counted} so far)")
        return len(messages)

    def warn(self, messages: Sequence[str]) -> None:
        """Print warnings."""
        for message in messages:
            self.say(f"warning: {message}")

    def say(self, message: str, *, unless_bar: bool = False) -> None:
        """Print a line in the terminal."""
        if not self.show or (unless_bar and self._bar is not None):
            return
        if self._bar is not None:
            self._bar.console.print(message, markup=False, highlight=False)
        else:
            print(message, file=sys.stderr, flush=True)

    def _advance(self, description: str, done: int, total: int) -> None:
        if self._bar is None:
            return
        if self._task is None or self._bar.tasks[self._task].total != total:
            if self._task is not None:
                self._bar.remove_task(self._task)
            self._task = self._bar.add_task(description, total=total, completed=done)
        self._bar.update(self._task, description=description, completed=done)

    def _row(self, state: TrainingState, values: Mapping[str, Any]) -> None:
        if not self.write:
            return
        stream = io.StringIO()
        row = {"step": state.step, **values}
        csv.DictWriter(stream, self.columns, lineterminator="\n").writerow(row)
        self._guarded(lambda: _append(self.out / LOG, stream.getvalue()))
        if self._board is not None:
            self._guarded(lambda: self._scalars(state.step, values))

    def _scalars(self, step: int, values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            if isinstance(value, (int, float)) and math.isfinite(value):
                group = "validation" if name.startswith("val_") else "training"
                self._board.add_scalar(f"{group}/{name}", value, step)
        self._board.flush()

    def _write_rows(self, rows: Sequence[Mapping[str, str]]) -> None:
        stream = io.StringIO()
        writer = csv.DictWriter(stream, self.columns, lineterminator="\n", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
        write_bytes(self.out / LOG, stream.getvalue().encode())

    def _guarded(self, write: Callable[[], T]) -> T:
        try:
            return write()
        except OSError as error:
            raise InputError(
                f"cannot write to {self.out}: {error.strerror or error}; make room, then continue "
                f"with `resume`"
            ) from error


#: The current name of each column that had another one in an earlier version.
_FORMER_COLUMNS = {"val_cost": "val_loss", "recognition": "segmentation"}


def read_log(out: Path) -> list[dict[str, str]]:
    """Read the complete rows of a run's log.csv."""
    try:
        text = (out / LOG).read_bytes().decode("utf-8", "replace")
    except FileNotFoundError:
        return []
    lines = (
        text[: text.rfind("\n") + 1].replace("\0", "").splitlines()
    )  # the last line may be incomplete
    header = [_FORMER_COLUMNS.get(name, name) for name in next(csv.reader(lines[:1]), [])]
    return [
        row
        for row in csv.DictReader(lines[1:], header)
        if (row.get("step") or "").isdecimal() and None not in row and None not in row.values()
    ]


def _append(path: Path, text: str) -> None:
    with open(path, "a", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"


def _bar() -> Any:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    class Rate(TextColumn):
        """Steps per second, or seconds per step."""

        def render(self, task: Any) -> Any:
            from rich.text import Text

            speed = task.speed
            if not speed:
                return Text("")
            return Text(f"{speed:.1f} steps/s" if speed > 1 else f"{1 / speed:.1f} s/step")

    return Progress(
        *(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()),
        *(Rate(""), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn()),
        console=Console(stderr=True),
    )
