"""Scans an hour and peak memory of many scans registered to one, beside loops of single commands.

    python benchmarks/many_pairs.py ROWS.csv FIXED MOVING... [--threads 2] [--repeats 1]
                                    [--methods many loop greedy] [--options "--refine"]

One row for each method and repetition, all on the same scans and from the same number of threads:

- `many`: one command, `voxwarp register MOVING... --fixed FIXED -o DIR`.
- `loop`: a command for each scan, as a loop of the shell would run them.
- `greedy`: a process for each scan, with the affine registration, the deformable one with its
  inverse, and the moved image (picsl-greedy from PyPI; local correlation in windows of 5³ voxels,
  100x50x10 iterations). The scans should be skull-stripped, because greedy extracts no brains.

The kernels are compiled before. Each row starts from an empty cache of examinations, so the loop,
too, examines the fixed scan once. `peak_mb` adds up the peaks of the processes that run at the
same time, 10⁶ bytes, and reads them ten times a second; of a process that is alone, it is the
peak (Linux). `cpu_s` is the time of all threads.
"""

import argparse
import csv
import os
import re
import resource
import shlex
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from voxwarp._provenance import machine

METHODS = "many", "loop", "greedy"
ITERATIONS = "-m NCC 2x2x2 -n 100x50x10"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("fixed", type=Path)
    parser.add_argument("movings", type=Path, nargs="+", metavar="MOVING")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--options", default="", help="more options of voxwarp register")
    options = parser.parse_args()
    options.fixed = options.fixed.absolute()
    options.movings = [path.absolute() for path in options.movings]
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if {"many", "loop"} & set(options.methods):
            for command in loop(options, folder / "warm-up", options.movings[:1]):
                subprocess.run(command, check=True, env=environment(options, folder, "warm-up"))
        for repetition in range(options.repeats):
            for method in options.methods:
                name = f"{method}-{repetition}"
                (folder / name).mkdir()
                commands = {"many": many, "loop": loop, "greedy": greedy}[method]
                measured = measure(
                    commands(options, folder / name, options.movings),
                    environment(options, folder, name),
                )
                rows.append(about(method, options) | measured)
                rows[-1]["scans_an_hour"] = round(3600 * len(options.movings) / measured["wall_s"])
                print(*rows[-1].values(), flush=True)
    with open(options.out, "w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def environment(options, folder: Path, name: str) -> dict[str, str]:
    own = {
        "OMP_NUM_THREADS": str(options.threads),
        "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": str(options.threads),
        "NUMBA_CACHE_DIR": str(folder / "kernels"),
        "VOXWARP_CACHE": str(folder / f"cache-{name}"),
    }
    return {**os.environ, **own}


def about(method: str, options) -> dict:
    here = machine()
    tool = "picsl-greedy" if method == "greedy" else "voxwarp"
    return {
        "method": method,
        "version": metadata.version(tool),
        "options": "" if method == "greedy" else options.options,
        "scans": len(options.movings),
        "threads": options.threads,
        "processor": here["processor"],
        "cores": here["cores"],
        "bfloat16_instructions": here["bfloat16_instructions"],
    }


# ------------------------------------------------------------------------------------- Methods

Command = list[str]


def many(options, out: Path, movings: list[Path]) -> Iterator[Command]:
    yield [*register(options), *map(str, movings), "--fixed", str(options.fixed), "-o", str(out)]


def loop(options, out: Path, movings: list[Path]) -> Iterator[Command]:
    for number, moving in enumerate(movings):
        result = str(out / str(number))
        yield [*register(options), str(moving), str(options.fixed), "-o", result]


def register(options) -> Command:
    words = [sys.executable, "-m", "voxwarp", "register", "--threads", str(options.threads)]
    return [*words, *shlex.split(options.options)]


def greedy(options, out: Path, movings: list[Path]) -> Iterator[Command]:
    fixed = escaped(options.fixed)
    for number, moving in enumerate(movings):
        result, scan = escaped(out / str(number)), escaped(moving)
        steps = (
            f"-a -dof 12 {ITERATIONS} -ia-image-centers -i {fixed} {scan} -o {result}-affine.mat",
            f"{ITERATIONS} -i {fixed} {scan} -it {result}-affine.mat -o {result}-warp.nii.gz "
            f"-oinv {result}-inverse.nii.gz",
            f"-rf {fixed} -rm {scan} {result}-warped.nii.gz "
            f"-r {result}-warp.nii.gz {result}-affine.mat",
        )
        calls = (f"tool.execute({f'-d 3 -threads {options.threads} {step}'!r})" for step in steps)
        code = "; ".join(["import picsl_greedy", "tool = picsl_greedy.Greedy3D()", *calls])
        yield [sys.executable, "-c", code]


def escaped(path: Path) -> str:
    """A path with its special characters escaped, as one word of greedy's command line."""
    return re.sub(r"([^\w/.-])", r"\\\1", str(path))


# ------------------------------------------------------------------------------------- Measure


def measure(commands: Iterator[Command], environment: dict[str, str]) -> dict:
    """Wall-clock time, processor time and peak memory of commands, one after the other."""
    before, began, peak = processor_seconds(), time.perf_counter(), 0.0
    for command in commands:
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        with Watch(process.pid) as watch:
            if process.wait() != 0:
                raise SystemExit(f"exit code {process.returncode}: {shlex.join(command)}")
        peak = max(peak, watch.peak_mb)
    return {
        "wall_s": round(time.perf_counter() - began, 2),
        "cpu_s": round(processor_seconds() - before, 2),
        "peak_mb": round(peak),
    }


def processor_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


class Watch:
    """Reads the peak memory of a process and those that it started, while it runs."""

    def __init__(self, pid: int):
        self.peak_mb = 0.0
        self._pid, self._done = pid, threading.Event()
        self._thread = threading.Thread(target=self._read)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _read(self) -> None:
        while not self._done.wait(0.1):
            kilobytes = sum(map(peak_kb, tree(self._pid)))
            self.peak_mb = max(self.peak_mb, kilobytes * 1024 / 1e6)


def tree(pid: int) -> Iterator[int]:
    """A process and all that it started, and they started."""
    yield pid
    for children in read(Path(f"/proc/{pid}/task"), "*/children"):
        for child in children.split():
            yield from tree(int(child))


def peak_kb(pid: int) -> int:
    for status in read(Path(f"/proc/{pid}"), "status"):
        if found := re.search(r"^VmHWM:\s+(\d+) kB", status, flags=re.MULTILINE):
            return int(found[1])
    return 0


def read(folder: Path, pattern: str) -> Iterator[str]:
    try:
        paths = list(folder.glob(pattern))
    except OSError:  # it has ended
        return
    for path in paths:
        try:
            yield path.read_text()
        except OSError:
            continue


if __name__ == "__main__":
    main()
