"""What ``voxwarp cohort`` shows while it runs: a live table, or a line for each scan."""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..cohort.outcome import LOGS, Outcome
from .console import echo, is_quiet, say

if TYPE_CHECKING:
    from ..cohort.dataset import CohortScans
    from ..cohort.engine import Engine
    from ..cohort.plan import Task
    from ..cohort.run import Cohort

RECENT = 50  # scans from which the rate is computed
REDRAWN = 0.5  # s
SHOWN = 20  # persons with several scans that are listed


@contextmanager
def watcher(request: "Cohort") -> Iterator["Watch"]:
    """What shows a run, until the end of a ``with`` statement."""
    log = request.out / LOGS / f"run-{request.run}.log"
    if is_quiet() or not is_terminal():
        yield Watch(log)
        return
    from rich.console import Console
    from rich.live import Live

    with Live(console=Console(stderr=True), auto_refresh=False, transient=True) as live:
        yield Watch(log, live)


@dataclass
class Watch:
    """Counts scans, and shows them.

    Args:
        log: file with a line for each scan.
        live: the live table of a terminal; None elsewhere.
    """

    log: Path
    live: Any = None
    number: int = 0
    done: int = 0
    failed: int = 0
    workers: int = 0
    dashboard: str = ""
    peak_mb: float = 0.0
    started_at: float = 0.0
    running: dict[str, float] = field(default_factory=dict)
    ends: list[float] = field(default_factory=list)
    last: list[str] = field(default_factory=list)
    drawn: float = 0.0

    def found(self, scans: "CohortScans", tasks: "Sequence[Task]") -> None:
        """Say what was found."""
        for line in summary_of(scans, tasks):
            self._log(line)
            if self.live is None:
                echo(line)
            else:
                self.live.console.print(line, markup=False, highlight=False)
        for reason in scans.skipped.values():
            self.say(reason)

    def started(self, engine: "Engine", number: int) -> None:
        """Begin to count."""
        self.number, self.dashboard = number, engine.dashboard
        self.started_at = time.monotonic()
        if engine.dashboard:
            self._line(f"dashboard: {engine.dashboard}")

    def finished(self, task: "Task", outcome: Outcome) -> None:
        """Count a scan."""
        now = time.monotonic()
        self.ends = [*self.ends, now][-RECENT:]
        self.peak_mb = max(self.peak_mb, outcome.peak_mb)
        if outcome.state == "done":
            self.done += 1
        else:
            self.failed += 1
        count = self.done + self.failed
        left = self.time_left()
        remaining = f", {timedelta(seconds=round(left))} left" if left is not None else ""
        self._line(
            f"{count}/{self.number} {task.scan.key}: {_fate(outcome)}; "
            f"{self.per_hour():.0f} an hour{remaining}"
        )

    def tick(self, running: list[str], workers: int) -> None:
        """Redraw the table."""
        now = time.monotonic()
        self.workers = workers
        self.running = {key: self.running.get(key, now) for key in running}
        if self.live is not None and now - self.drawn >= REDRAWN:
            self.drawn = now
            self.live.update(self._table(), refresh=True)

    def say(self, message: str) -> None:
        """Say what a user must know."""
        self._log(f"warning: {message}")
        if self.live is not None:
            self.live.console.print(f"voxwarp: warning: {message}", markup=False, highlight=False)
        else:
            say(f"warning: {message}")

    def per_hour(self) -> float:
        """Scans an hour, of late."""
        if not self.ends:
            return 0.0
        begin = self.started_at if len(self.ends) < RECENT else self.ends[0]
        number = len(self.ends) if len(self.ends) < RECENT else RECENT - 1
        return 3600 * number / max(1e-3, self.ends[-1] - begin)

    def time_left(self) -> float | None:
        """Seconds until all are done, by the rate of late."""
        left, rate = self.number - self.done - self.failed, self.per_hour()
        return 3600 * left / rate if rate and left else None

    def _line(self, text: str) -> None:
        self._log(text)
        if self.live is None:
            echo(text)
        else:
            self.last = [*self.last, text][-5:]

    def _log(self, text: str) -> None:
        with suppress(OSError):
            self.log.parent.mkdir(parents=True, exist_ok=True)
            with open(self.log, "a", encoding="utf-8") as stream:
                stream.write(f"{datetime.now():%Y-%m-%d %H:%M:%S} {text}\n")

    def _table(self) -> Any:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        left = self.time_left()
        table = Table(box=None, pad_edge=False)
        values = {
            "done": f"{self.done}/{self.number}",
            "running": str(min(len(self.running), self.workers or len(self.running))),
            "failed": str(self.failed),
            "scans an hour": f"{self.per_hour():.0f}",
            "time left": "?" if left is None else str(timedelta(seconds=round(left))),
            "workers": str(self.workers),
            "peak of a worker": f"{self.peak_mb / 1e3:.1f} GB" if self.peak_mb else "?",
        }
        for name in values:
            table.add_column(name, justify="right")
        table.add_row(*values.values())
        now = time.monotonic()
        begun = sorted(self.running.items(), key=lambda item: item[1])[:8]
        running = ", ".join(f"{key} ({now - begin:.0f} s)" for key, begin in begun)
        return Group(table, Text(f"now: {running}"), *(Text(line) for line in self.last))


def is_terminal() -> bool:
    """Whether a live table can be shown."""
    return sys.stderr.isatty()


def summary_of(scans: "CohortScans", tasks: "Sequence[Task]") -> list[str]:
    """What was found, a line each."""
    todo = sum(bool(task.reason) for task in tasks)
    lines = [f"{len(tasks)} scan{'s' * (len(tasks) != 1)} found, {todo} to register"]
    choices = [task.scan for task in tasks if task.scan.choice]
    lines += [f"{scan.key}: {scan.choice}" for scan in choices[:SHOWN]]
    if len(choices) > SHOWN:
        lines.append(f"{len(choices) - SHOWN} more persons have several scans; see their logs")
    return lines


def _fate(outcome: Outcome) -> str:
    """What became of a scan; the reason of a failure comes last, because it may be long."""
    number = len(outcome.warnings)
    warned = f", {number} warning{'s' if number > 1 else ''}" if number else ""
    if outcome.state == "done":
        return f"done in {outcome.seconds:.1f} s{warned}"
    return f"failed after {outcome.seconds:.1f} s{warned}: {outcome.error}"
