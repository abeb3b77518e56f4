"""Commands that are killed at random leave the old results whole, or the new ones."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from voxwarp._lock import WAITING
from voxwarp.errors import InputError
from voxwarp.registration.saved_transform import load_transform

KILLS = 12  # of each command

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals"),
]


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "voxwarp", *map(str, words)]


def without_seconds(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: without_seconds(v) for k, v in value.items() if k != "seconds"}
    return [without_seconds(v) for v in value] if isinstance(value, list) else value


def state(folder: Path) -> dict[str, str]:
    """Names and contents of the results, without what changes between equal runs."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.name.startswith(".") or ".voxwarp-" in str(path):
            continue
        payload = path.read_bytes()
        if path.suffix == ".json":
            payload = json.dumps(without_seconds(json.loads(payload)), sort_keys=True).encode()
        found[str(path.relative_to(folder))] = hashlib.sha256(payload).hexdigest()
    return found


@pytest.fixture
def inputs(phantoms, poses, make_grid, tmp_path: Path) -> dict[str, Path]:
    """Two moving scans, of which the second gives another result, a fixed one and a transform."""
    grid = make_grid()
    moving, fixed = (phantoms.values(grid, pose) for pose in (poses.moving, poses.fixed))
    paths = {"identity": tmp_path / "identity.tfm"}
    for name, data in (("first", moving), ("second", moving**1.1), ("fixed", fixed)):
        paths[name] = tmp_path / name / "scan.nii.gz"
        paths[name].parent.mkdir()
        nib.save(nib.Nifti1Image(data.astype(np.float32), grid.affine), paths[name])
    sitk.WriteTransform(sitk.AffineTransform(3), str(paths["identity"]))
    return paths


@pytest.mark.parametrize("name", ["register", "apply", "preprocess"])
def test_results_are_whole_after_any_kill(inputs, tiny_model, tmp_path: Path, name: str) -> None:
    out = tmp_path / "out"
    prepared = ("--no-bias", "--no-affine", "--brain-extract", "no", "--overwrite")
    words = {
        "register": lambda x: (
            *("register", x, inputs["fixed"], "-o", out, "--model", tiny_model, "--no-report"),
            *("--no-cache", *prepared),
        ),
        "apply": lambda x: (
            *("apply", x, "-t", inputs["identity"], "-r", inputs["fixed"]),
            *("-o", out / "moved.nii.gz", "--overwrite"),
        ),
        "preprocess": lambda x: ("preprocess", x, "-o", out, "--no-cache", *prepared),
    }[name]
    whole = []
    for which in ("second", "first"):
        begun = time.monotonic()
        subprocess.run(command(*words(inputs[which])), check=True, capture_output=True)
        took = time.monotonic() - begun
        whole.append(state(out))
    new, old = whole
    assert new != old
    rng, interrupted = random.Random(0), 0
    for number in range(KILLS):
        process = subprocess.Popen(
            command(*words(inputs["second"])),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        # Half of the kills at the end, where files are written.
        share = rng.random() if number % 2 else 1 - 0.3 * rng.random()
        time.sleep(share * took)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            interrupted += 1
        process.wait()
        found = state(out)
        if found not in (old, new):  # in the moment in which they are moved
            assert not any(name.endswith(".json") for name in found), f"kill {number}"
            (lock,) = out.rglob(WAITING)
            with pytest.raises(InputError, match="may not belong together"):
                load_transform(lock.parent)
            subprocess.run(command(*words(inputs["first"])), check=True, capture_output=True)
            assert state(out) == old
        if state(out) == new:
            subprocess.run(command(*words(inputs["first"])), check=True, capture_output=True)
            assert state(out) == old
    assert interrupted >= KILLS / 4
