"""What stages take: seconds of sleeps, and memory that is held and given back."""

import mmap
import resource
import sys
import time

import numpy as np
import pytest

from voxwarp import meter as meters
from voxwarp.meter import Meter, forget_peak, peak_mb

MB = 200  # of the array that a stage holds: far more than what else comes and goes


def fill(mb: int) -> np.ndarray:
    """An array that is resident, of pages of its own: none that an earlier test has freed."""
    array = np.frombuffer(mmap.mmap(-1, mb * 1_000_000), np.uint8)
    array[:] = 1
    return array


def nap(seconds: float) -> float:
    """Sleep; how long it took, which on a busy machine is more."""
    began = time.perf_counter()
    time.sleep(seconds)
    return time.perf_counter() - began


def test_seconds_of_stages():
    """Each has its own; one that runs again adds up; what is between stages belongs to none."""
    meter, began = Meter(), time.perf_counter()
    meter.start("a")
    first = nap(0.05)
    meter.start("b")
    second = nap(0.02)
    meter.stop()
    between = nap(0.1)
    meter.start("a")
    first += nap(0.05)
    meter.stop()
    whole = time.perf_counter() - began
    assert list(meter.seconds) == list(meter.memory_mb) == ["a", "b"]
    assert meter.seconds["a"] >= first
    assert meter.seconds["b"] >= second
    assert sum(meter.seconds.values()) <= whole - between


def test_a_block_is_a_stage():
    meter, began = Meter(), time.perf_counter()
    with meter.stage("a"):
        inside = nap(0.02)
    outside = nap(0.1)
    with meter.stage("b"):
        pass
    outside += nap(0.02)
    meter.stop()  # nothing is running
    assert inside <= meter.seconds["a"] <= time.perf_counter() - began - outside
    assert 0 <= meter.seconds["b"] <= time.perf_counter() - began - outside - inside


def test_a_stage_that_fails_is_measured_too():
    meter, began = Meter(), time.perf_counter()

    def trouble() -> None:
        with meter.stage("a"):
            nap(0.02)
            raise RuntimeError("trouble")

    with pytest.raises(RuntimeError, match="trouble"):
        trouble()
    outside = nap(0.1)
    meter.stop()
    assert 0.02 <= meter.seconds["a"] <= time.perf_counter() - began - outside
    assert meter.memory_mb["a"] > 0


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
