"""Commands on files that may be anything: each ends in a result, or in one sentence."""

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import SearchStrategy

# Bytes that a command may allocate beside a multiple of what its files hold, in all their forms.
BESIDE, MULTIPLE = 96e6, 60


def both(strategy: SearchStrategy, fast: int, slow: int) -> Callable[[Callable[..., None]], Any]:
    """Two tests of a property: on a few cases always, and on many with --slow.

    The property takes fixtures, and the case as ``case``. All runs have the same cases.
    """

    def decorate(check: Callable[..., None]) -> Any:
        few, many = (_cases(number)(given(case=strategy)(check)) for number in (fast, slow))
        return few, pytest.mark.slow(many)

    return decorate


def _cases(number: int) -> Any:
    return settings(
        max_examples=number,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


class Attempt:
    """A command, and what came of it.

    Args:
        cli: the fixture.
        folder: with its inputs; results may only be new files in it.
        words: of the command line.
        size: bytes of what its files hold.
    """

    is_list = False  # a report and all errors and warnings, as a check of many files gives them

    def __init__(self, cli: Callable[..., Any], folder: Path, *words: object, size: float):
        before = _contents(folder)
        tracemalloc.start()
        self.outcome = cli(*words)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        after = _contents(folder)
        self.new = sorted(after.keys() - before.keys())
        assert {path: after.get(path) for path in before} == before, "an input changed"
        assert peak < BESIDE + MULTIPLE * size, f"{peak / 1e6:.0f} MB"

    @property
    def done(self) -> bool:
        """Whether there is a result; otherwise it was refused as the contract says."""
        code, lines = self.outcome.code, self.outcome.err.splitlines()
        if code in (0, 3):
            assert all(line.startswith("voxwarp: ") for line in lines), lines
            return True
        assert code == 2, self.outcome
        assert lines[-1].startswith("voxwarp: error: "), lines
        said = ("voxwarp: error: ", "voxwarp: warning: ")
        assert all(line.startswith(said) for line in lines), lines
        assert len(lines) == 1 or self.is_list, lines
        assert self.is_list or self.outcome.out == ""
        assert self.new == [], "it left something behind"
        return False


def _contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
