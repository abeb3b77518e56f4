"""What stages take: seconds by a clock of ours, and memory that is held and given back."""

import mmap
import resource
import sys
import time

import numpy as np
import pytest

from voxwarp import _meter as meters
from voxwarp._meter import Meter, forget_peak, peak_mb

MB = 200  # of the array that a stage holds: far more than what else comes and goes


def fill(mb: int) -> np.ndarray:
    """An array that is resident, of pages of its own: none that an earlier test has freed."""
    array = np.frombuffer(mmap.mmap(-1, mb * 1_000_000), np.uint8)
    array[:] = 1
    return array


class Clock:
    """Stands in for ``time.perf_counter``."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def run(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Time runs when the test says so."""
    clock = Clock()
    monkeypatch.setattr("time.perf_counter", clock)
    return clock


def test_seconds_of_stages(clock):
    """Each has its own; one that runs again adds up; what is between stages belongs to none."""
    meter = Meter()
    clock.run(1)
    meter.start("a")
    clock.run(2)
    meter.start("b")
    clock.run(4)
    meter.stop()
    clock.run(8)
    meter.start("a")
    clock.run(16)
    meter.stop()
    assert list(meter.seconds.items()) == [("a", 18), ("b", 4)]
    assert list(meter.memory_mb) == ["a", "b"]


def test_a_block_is_a_stage(clock):
    meter = Meter()
    with meter.stage("a"):
        clock.run(1)
    clock.run(2)
    with meter.stage("b"):
        pass
    clock.run(4)
    meter.stop()  # nothing is running
    assert meter.seconds == {"a": 1, "b": 0}


def test_a_stage_that_fails_is_measured_too(clock):
    meter = Meter()

    def trouble() -> None:
        with meter.stage("a"):
            clock.run(1)
            raise RuntimeError("trouble")

    with pytest.raises(RuntimeError, match="trouble"):
        trouble()
    clock.run(2)
    meter.stop()
    assert meter.seconds == {"a": 1}
    assert meter.memory_mb["a"] > 0


def test_seconds_are_those_of_the_wall():
    """By the real clock, which a sleep does not stop, and which only a stage's end reads."""
    meter, began = Meter(memory=False), time.perf_counter()
    with meter.stage("a"):
        inner = time.perf_counter()
        time.sleep(0.02)
        inner = time.perf_counter() - inner
    whole = time.perf_counter() - began
    assert 0.02 <= inner <= meter.seconds["a"] <= whole


def test_stages_are_announced_as_they_begin(clock):
    """Before their work, whichever way they are begun; what ends them says nothing."""
    announced = []
    meter = Meter(announce=lambda stage: announced.append((stage, clock.now)))
    with meter.stage("a"):
        clock.run(1)
        assert announced == [("a", 1000)]
    clock.run(1)
    meter.start("b")
    meter.start("a")
    meter.stop()
    assert announced == [("a", 1000), ("b", 1002), ("a", 1002)]


def test_a_stage_whose_announcement_fails_is_ended(clock):
    """An announcement may be what ends a command, as an exception in the user's function."""

    def interrupt(stage: str) -> None:
        clock.run(1)
        raise KeyboardInterrupt

    meter = Meter(announce=interrupt)
    with pytest.raises(KeyboardInterrupt):
        meter.start("a")
    meter.stop()
    clock.run(2)
    meter.stop()
    assert meter.seconds == {"a": 1}


def test_memory_is_left_alone(monkeypatch):
    """Without ``memory`` no peak is reset, and none is read."""
    for name in ("peak_mb", "forget_peak"):
        monkeypatch.setattr(meters, name, lambda name=name: pytest.fail(f"{name} was called"))
    with (meter := Meter(memory=False)).stage("a"):
        pass
    assert (list(meter.seconds), meter.memory_mb) == (["a"], {})


def test_seconds_for_records(clock):
    """To a millisecond; those that go on adding up are not touched."""
    meter = Meter(memory=False)
    with meter.stage("a"):
        clock.run(1 / 3)
    with meter.stage("b"):
        clock.run(0.0004)
    assert meter.rounded() == {"a": 0.333, "b": 0}
    assert meter.seconds["a"] == pytest.approx(1 / 3)


def test_nothing_was_measured():
    meter = Meter()
    meter.stop()
    assert meter.seconds == meter.memory_mb == {}


def can_forget() -> bool:
    before = peak_mb()
    del (held := [fill(50)])[:]
    assert held == []
    forget_peak()
    return peak_mb() < before + 25


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can forget a peak")
def test_memory_of_a_stage_is_not_the_next_ones():
    """In its stage and not in the next; the most of a stage that runs twice."""
    if not can_forget():
        pytest.skip("this Linux does not let a process forget its peak")
    meter = Meter()
    meter.start("before")
    meter.start("fill")
    held = fill(MB)
    del held
    meter.start("after")
    meter.start("fill")
    meter.stop()
    before, peak, after = (meter.memory_mb[stage] for stage in ("before", "fill", "after"))
    assert peak - before == pytest.approx(MB, abs=0.1 * MB)
    assert after - before == pytest.approx(0, abs=0.1 * MB)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can forget a peak")
def test_memory_held_before_counts():
    """It is what the process needs, not what the stage added."""
    if not can_forget():
        pytest.skip("this Linux does not let a process forget its peak")
    meter = Meter()
    meter.start("empty")
    meter.stop()
    held = fill(MB)
    meter.start("full")
    meter.stop()
    assert held.sum() == MB * 1_000_000
    more = meter.memory_mb["full"] - meter.memory_mb["empty"]
    assert more == pytest.approx(MB, abs=0.1 * MB)


def test_megabytes_are_what_the_system_says():
    """10⁶ bytes, by the kernel's other count, which never forgets."""
    forget_peak()
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    bytes_ = most if sys.platform == "darwin" else most * 1024
    assert 1 < peak_mb() <= 1.02 * bytes_ / 1e6


def test_without_linux(monkeypatch, tmp_path):
    """Where there is no /proc, the most so far; nothing fails."""
    monkeypatch.setattr(meters, "_STATUS", tmp_path / "none" / "status")
    monkeypatch.setattr(meters, "_CLEAR", tmp_path / "none" / "clear_refs")
    usage = resource.getrusage(resource.RUSAGE_SELF)
    for platform, mb in (
        ("linux", usage.ru_maxrss * 1024 / 1e6),
        ("darwin", usage.ru_maxrss / 1e6),
    ):
        monkeypatch.setattr(sys, "platform", platform)
        with (meter := Meter()).stage("a"):
            pass
        assert meter.memory_mb["a"] == pytest.approx(mb, rel=0.01)
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "status").write_text("VmRSS:\t 7 kB\n")  # of a system that counts no peak
    monkeypatch.setattr(sys, "platform", "linux")
    assert peak_mb() == pytest.approx(usage.ru_maxrss * 1024 / 1e6, rel=0.01)
    (tmp_path / "none" / "status").write_text("VmPeak:\t 9 kB\nVmHWM:\t    2000 kB\n")
    assert peak_mb() == 2.048
