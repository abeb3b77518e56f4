"""Kernels that were compiled before, for a class of processors, in a folder that is only read."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numba
import pytest
from compile_log import LISTEN

import voxwarp
from voxwarp.fields import compiled
from voxwarp.fields.kernels import processor

pytestmark = pytest.mark.skipif(not compiled.enabled(), reason="kernels are off or not installed")

# Calls a kernel, and prints what was compiled for it.
CALL = f"""{LISTEN}
import numpy as np
from voxwarp.fields import compiled
points = compiled.GridMap.of(np.eye(4))
assert (compiled.nearest_voxels((2, 2, 2), (2, 2, 2), points).ravel() == range(8)).all()
print(*Compiled.names)
"""
NOWHERE = "/dev/null/kernels"  # no folder can be made there


def compiled_by(source: Path, **environment: str) -> list[str]:
    """The kernels that a process compiles, which takes voxwarp from ``source``."""
    own = {"PYTHONPATH": str(source), "VOXWARP_READY_KERNELS": ""}
    done = subprocess.run(
        [sys.executable, "-c", CALL],
        env={**os.environ, **own, **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.fixture(scope="module")
def source() -> Path:
    return Path(voxwarp.__file__).parents[1]


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory, source: Path) -> Path:
    """A folder with the code of one kernel."""
    folder = tmp_path_factory.mktemp("ready")
    names = compiled_by(source, NUMBA_CACHE_DIR=str(folder), **processor.environment())
    assert "nearest_voxels" in names
    (version,) = folder.iterdir()
    processor.write(version)
    return folder


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_code_is_taken_from_a_folder_that_is_only_read(
    ready: Path, source: Path, tmp_path: Path
) -> None:
    """Where no other folder can be written to; nothing is left in the one for temporary files."""
    before = contents(ready)
    places = {"NUMBA_CACHE_DIR": NOWHERE, "TMPDIR": str(tmp_path)}
    assert compiled_by(source, VOXWARP_READY_KERNELS=str(ready), **places) == []
    assert contents(ready) == before
    assert list(tmp_path.iterdir()) == []
    assert "nearest_voxels" in compiled_by(source, **places)


def test_code_is_taken_also_where_times_and_place_of_the_source_differ(
    ready: Path, source: Path, tmp_path: Path
) -> None:
    """A container's layers keep times in whole seconds, or not at all."""
    moved = tmp_path / "elsewhere"
    shutil.copytree(
        source / "voxwarp",
        moved / "voxwarp",
        ignore=shutil.ignore_patterns("models", "__pycache__"),
    )
    for path in (moved / "voxwarp" / "fields" / "kernels").glob("*.py"):
        os.utime(path, (1e9, 1e9))
    shutil.copytree(ready, tmp_path / "ready")
    places = {"NUMBA_CACHE_DIR": NOWHERE, "VOXWARP_READY_KERNELS": str(tmp_path / "ready")}
    assert compiled_by(moved, **places) == []
    changed = moved / "voxwarp" / "fields" / "kernels" / "rows.py"  # which that kernel does not use
    changed.write_text(changed.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    assert "nearest_voxels" in compiled_by(moved, **places)


def test_ready_code_comes_second_and_is_not_copied(
    ready: Path, source: Path, tmp_path: Path
) -> None:
    own = {"NUMBA_CACHE_DIR": str(tmp_path / "own"), "VOXWARP_READY_KERNELS": str(ready)}
    assert compiled_by(source, **own) == []
    assert not list((tmp_path / "own").rglob("*.nbc"))


@pytest.mark.parametrize("file", ["code", "index"])
def test_damaged_code_is_compiled(ready: Path, source: Path, tmp_path: Path, file: str) -> None:
    shutil.copytree(ready, tmp_path / "damaged")
    for path in (tmp_path / "damaged").rglob("*.nbc" if file == "code" else "*.nbi"):
        path.write_bytes(b"no code")
    places = {"NUMBA_CACHE_DIR": NOWHERE, "VOXWARP_READY_KERNELS": str(tmp_path / "damaged")}
    assert "nearest_voxels" in compiled_by(source, **places)


# ------------------------------------------------------------------------------- the processor


@pytest.fixture(autouse=True)
def _processor_of_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not changed for the other tests."""
    for name in ("CPU_NAME", "CPU_FEATURES"):
        monkeypatch.setattr(numba.config, name, getattr(numba.config, name))
    monkeypatch.delenv("NUMBA_CPU_NAME", raising=False)


def test_a_processor_that_lacks_a_feature_does_not_run_the_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    processor.write(tmp_path)
    needed = set(json.loads((tmp_path / "processor.json").read_text())["features"])
    before = numba.config.CPU_NAME
    for lacking in needed:
        monkeypatch.setattr(processor, "_features", lambda lacking=lacking: needed - {lacking})
        assert not processor.use(tmp_path)
        assert before == numba.config.CPU_NAME
    monkeypatch.setattr(processor, "_features", lambda: needed | {"more"})
    assert processor.use(tmp_path)
    assert processor.environment() == {
        "NUMBA_CPU_NAME": numba.config.CPU_NAME,
        "NUMBA_CPU_FEATURES": numba.config.CPU_FEATURES,
    }


@pytest.mark.parametrize(
    "text",
    [
        *('{"machine": "riscv64", "name": "generic", "features": []}', "{}", "[]", "", "\0"),
        '{"machine": null, "name": "generic", "features": 3}',
    ],
)
def test_a_folder_for_other_machines_is_not_used(tmp_path: Path, text: str) -> None:
    (tmp_path / "processor.json").write_text(text)
    assert not processor.use(tmp_path)


def test_a_folder_that_does_not_say_is_for_the_processor_that_numba_finds(tmp_path: Path) -> None:
    before = numba.config.CPU_NAME
    assert processor.use(tmp_path)
    assert before == numba.config.CPU_NAME


def test_a_processor_in_the_environment_remains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    processor.write(tmp_path)
    needed = set(json.loads((tmp_path / "processor.json").read_text())["features"])
    monkeypatch.setattr(processor, "_features", lambda: needed)
    monkeypatch.setenv("NUMBA_CPU_NAME", "mine")
    before = numba.config.CPU_NAME
    assert processor.use(tmp_path)
    assert before == numba.config.CPU_NAME


def test_this_processor_is_asked() -> None:
    """The flags that Linux shows, where there is Linux, under its own names."""
    flags = Path("/proc/cpuinfo")
    if not flags.is_file() or "\nflags" not in (text := flags.read_text()):
        pytest.skip("this system does not show the flags of its processor")
    shown = set(next(x for x in text.splitlines() if x.startswith("flags")).split())
    for name in ("avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe", "popcnt"):
        assert (name in shown) == (name.removesuffix("1") in processor._features())
