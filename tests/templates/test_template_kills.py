"""Templates built by worker processes, killed at random and run again: always the same bytes."""

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from bids_data import head, write_quick_model, write_scan
from processes import PATIENCE, is_gone

pytest.importorskip("distributed")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals"),
]

KILLS = 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("template")
    for number in range(1, 5):
        write_scan(folder / "in" / f"P{number}.nii.gz", head(number))
    write_quick_model(folder / "model")
    return folder


def command(folder: Path, out: Path) -> list[str]:
    words = [sys.executable, "-m", "voxwarp", "template", folder / "in", "-o", out, "--model"]
    words += [folder / "model", "--brain-extract", "no", "--rounds", "2", "--spacing", "8"]
    return [*map(str, words), "--nprocs", "2"]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def state(out: Path) -> dict[str, str]:
    """The results, without logs, and without the run's own name and memory in the record."""
    found = {}
    for path in out.rglob("*"):
        name = path.relative_to(out).as_posix()
        if (
            path.is_file()
            and not name.startswith(("logs/", ".voxwarp/"))
            and name != "template.json"
        ):
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


@pytest.fixture(scope="module")
def undisturbed(folder) -> tuple[dict[str, str], float]:
    """The results of a run, and its seconds when kernels are compiled."""
    states = []
    for name in ("first", "second"):
        begun = time.monotonic()
        done = subprocess.run(
            command(folder, folder / name), capture_output=True, text=True, env=environment()
        )
        assert done.returncode == 0, done.stderr
        took = time.monotonic() - begun
        states.append(state(folder / name))
    assert states[0] == states[1]
    return states[1], took


@pytest.mark.parametrize("number", range(KILLS))
def test_the_template_is_that_of_an_undisturbed_run(folder, undisturbed, tmp_path, number) -> None:
    expected, took = undisturbed
    out, rng = tmp_path / "out", random.Random(number)
    process = subprocess.Popen(
        command(folder, out),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env=environment(),
    )
    time.sleep(rng.uniform(0.3, 0.95) * took)
    alive = []
    if process.poll() is None:
        alive = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
        for one in alive:
            try:
                one.send_signal(signal.SIGKILL)
            except psutil.NoSuchProcess:
                continue
    process.wait()
    until = time.monotonic() + PATIENCE
    while not all(is_gone(one.pid) for one in alive) and time.monotonic() < until:
        time.sleep(0.1)
    done = subprocess.run(command(folder, out), capture_output=True, text=True, env=environment())
    assert done.returncode == 0, done.stderr
    assert state(out) == expected
