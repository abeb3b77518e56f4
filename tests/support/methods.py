"""Methods of a user, named ``methods:function``: some work, others fail in every way.

Each imports only what it needs, so most of them take a few tenths of a second.
"""

import atexit
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

SHIFT = (2.0, -1.0, 3.0)  # mm, RAS


def count(run: Any) -> int:
    """Record that the method runs; return how often it has run on this pair."""
    path = run.job.path.parent / "count.txt"
    with open(path, "a") as stream:
        print(run.job.path.name, file=stream)
    return path.read_text().split().count(run.job.path.name)


def shift(run: Any) -> None:
    """Move every point by ``SHIFT``."""
    from voxwarp.space.transform import Warp
    from voxwarp.space.volume import read_volume

    count(run)
    grid = read_volume(run.job.fixed).grid
    field = np.broadcast_to(np.float32(SHIFT), (*grid.shape, 3)).transpose(3, 0, 1, 2)
    run.deform(lambda: time.sleep(0.02))
    run.write(Warp(field.copy(), grid), Warp(-field, grid))


def write_shift(run: Any, of: float = 1.0, name: str = "1Warp.nii.gz") -> None:
    """The same as an ITK field, by nibabel alone, which starts faster."""
    import nibabel as nib

    fixed = nib.load(run.job.fixed)
    field = np.zeros((*fixed.shape, 1, 3), np.float32)
    field[:] = of * np.array(SHIFT) * (-1, -1, 1)
    image = nib.Nifti1Image(field, fixed.affine)
    image.header.set_intent("vector")
    nib.save(image, run.job.path / name)


def quick_shift(run: Any) -> None:
    """``shift`` without an inverse, and without a moved image."""
    count(run)
    run.deform(lambda: write_shift(run))


def waits_once(run: Any) -> None:
    """``quick_shift``, but on the second pair it hangs the first time, with a child process."""
    number = count(run)
    if len(list(run.job.path.parent.glob("*/job.json"))) == 2 and number == 1:
        sleeps(run)
    run.deform(lambda: write_shift(run))


def reports(run: Any) -> None:
    """Write its surroundings to ``surroundings.json``, and text to both streams."""
    names = "OMP_NUM_THREADS", "MKL_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"
    surroundings = {
        "threads": [os.environ[name] for name in names],
        "exist": [Path(run.job.fixed).exists(), Path(run.job.moving).exists()],
        "folder": str(Path.cwd()),
        "path": str(run.job.path),
        "stdin": sys.stdin.read(),
        "python_path": os.environ.get("PYTHONPATH"),
    }
    (run.job.path / "surroundings.json").write_text(json.dumps(surroundings))
    print("to stdout")
    print("to stderr", file=sys.stderr)
    run.deform(lambda: None)


def raises(run: Any) -> None:
    """Fail with a message of several lines."""
    count(run)
    raise RuntimeError("itkFilter.cxx:12:\nITK ERROR: no overlap")


def raises_and_greets(run: Any) -> None:
    """As ``raises``, but text follows the traceback, as some libraries print it."""
    atexit.register(print, "goodbye", file=sys.stderr)
    raises(run)


def raises_once(run: Any) -> None:
    """Fail the first time, then work as ``quick_shift``."""
    if count(run) == 1:
        raise RuntimeError("not yet")
    run.deform(lambda: write_shift(run))


def exits(run: Any) -> None:
    """End with a message and an exit code, as scripts do."""
    print("no licence found", file=sys.stderr)
    sys.exit(3)


def stops_early(run: Any) -> None:
    """End with exit code 0, but without a result."""
    sys.exit(0)


def crashes(run: Any) -> None:
    """Crash as native code does."""
    count(run)
    os.kill(os.getpid(), signal.SIGSEGV)
    time.sleep(60)


def sleeps(run: Any) -> None:
    """Sleep for ever, with a child process that does too."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    (run.job.path / "pids.json").write_text(json.dumps([os.getpid(), child.pid]))
    time.sleep(600)


def half_file(run: Any) -> None:
    """Write an incomplete field, as on a full disk."""
    count(run)
    run.deform(lambda: write_shift(run))
    path = run.job.path / "1Warp.nii.gz"
    path.write_bytes(path.read_bytes()[:200])


def half_file_one_way(run: Any) -> None:
    """``half_file`` for the pair whose moving scan is called b, ``quick_shift`` for others."""
    (half_file if run.job.path.name.startswith("b_") else quick_shift)(run)


def leaves_nan(run: Any) -> None:
    """Write a field of NaN."""
    run.deform(lambda: write_shift(run, of=np.nan))


def leaves_nothing(run: Any) -> None:
    """End without an error and without a field."""
    run.deform(lambda: None)


def inverse_at_first(run: Any) -> None:
    """Write a field, and the first time an inverse too."""
    if count(run) == 1:
        write_shift(run, -1.0, "1InverseWarp.nii.gz")
    run.deform(lambda: write_shift(run))
