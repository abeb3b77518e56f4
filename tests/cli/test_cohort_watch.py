"""The line that ``voxwarp cohort`` prints for each scan."""

import re
from types import SimpleNamespace

import pytest

from voxwarp.cli.cohort_watch import Watch
from voxwarp.cohort.outcome import Outcome


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"state": "done"}, "sub-01: done in 61.5 s;"),
        ({"state": "done", "warnings": ("a",)}, "sub-01: done in 61.5 s, 1 warning;"),
        ({"state": "done", "warnings": ("a", "b")}, "sub-01: done in 61.5 s, 2 warnings;"),
        (
            {"state": "failed", "error": "the scan is cut off; copy it again"},
            "sub-01: failed after 61.5 s: the scan is cut off; copy it again;",
        ),
    ],
)
def test_a_line_says_what_became_of_the_scan(more, said, tmp_path, capsys) -> None:
    watch = Watch(tmp_path / "logs" / "run.log")
    watch.started(SimpleNamespace(dashboard=""), 2)
    task = SimpleNamespace(scan=SimpleNamespace(key="sub-01"))
    watch.finished(task, Outcome("sub-01", outputs={}, seconds=61.5, **more))
    line = capsys.readouterr().out
    assert line.startswith(f"1/2 {said} "), line
    assert re.fullmatch(r"\d+ an hour, \d+:\d\d:\d\d left\n", line.removeprefix(f"1/2 {said} "))
