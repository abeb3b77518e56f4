"""Scans an hour of ``voxwarp cohort`` beside loops of single commands, and what a thousand cost.

    python benchmarks/cohort.py throughput ROWS.csv BIDS [--loop-scans 2]
    python benchmarks/cohort.py thousand ROWS.csv [--persons 1000]

`throughput` registers the T1w scans of a BIDS data set to MNI152, from an empty cache, with
kernels that were compiled before:

- `cohort`: one command for all of them.
- `loop`: `voxwarp register --composite` for each of the first scans, one after the other.
- `ants-syn`: antspyx for each of the first scans: N4, SyN to the same template with its default
  steps, the warped scan written. The heads are registered as they are, because antspyx extracts
  no brains without further packages.

The scans an hour of loops are those of a few scans, extrapolated.

`thousand` registers tiny phantoms (20x24x18 voxels) with a model of a few steps, so that what is
left is the work of the command itself: seconds until the first scan is begun and done, memory of
the command (not of its workers) after a tenth of the scans and at the end, and the seconds of the
command's own processor time for each scan. The ledger is measured apart, with as many entries.
"""

import argparse
import csv
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from voxwarp._provenance import machine

ROOT = Path(__file__).parents[1]
ANTS = """
import sys, ants
fixed, moving, out = sys.argv[1:]
fixed, moving = ants.image_read(fixed), ants.image_read(moving)
moving = ants.n4_bias_field_correction(moving)
result = ants.registration(fixed, moving, "SyN")
ants.image_write(result["warpedmovout"], out)
"""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["throughput", "thousand"])
    parser.add_argument("out", type=Path)
    parser.add_argument("bids", type=Path, nargs="?")
    parser.add_argument("--loop-scans", type=int, default=2)
    parser.add_argument("--persons", type=int, default=1000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        rows = {"throughput": throughput, "thousand": thousand}[options.what](
            options, Path(scratch)
        )
    here = machine()
    about = {"processor": here["processor"], "cores": here["cores"]}
    is_new = not options.out.exists()
    with open(options.out, "a", newline="") as stream:
        writer = csv.DictWriter(stream, [*rows[0], *about], lineterminator="\n")
        if is_new:
            writer.writeheader()
        for row in rows:
            print(*row.values(), flush=True)
            writer.writerow({**row, **about})


def row(measure: str, value: float, scans: int) -> dict:
    return {"measure": measure, "value": round(value, 4), "scans": scans}


# ------------------------------------------------------------------------------- Scans an hour


def throughput(options, scratch: Path) -> list[dict]:
    scans = sorted(options.bids.glob("sub-*/anat/*_T1w.nii.gz"))
    few = scans[: options.loop_scans]
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(scratch / "kernels")}

    def timed(commands: list[list[str]], name: str) -> float:
        own = {**environment, "VOXWARP_CACHE": str(scratch / f"cache-{name}")}
        began = time.perf_counter()
        for command in commands:
            subprocess.run(command, env=own, check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - began

    voxwarp = [sys.executable, "-m", "voxwarp"]
    timed([[*voxwarp, "register", str(few[0]), "-o", str(scratch / "warm-up")]], "warm-up")
    seconds = timed(
        [[*voxwarp, "cohort", str(options.bids), str(scratch / "cohort"), "participant"]], "cohort"
    )
    rows = [row("scans an hour, cohort", 3600 * len(scans) / seconds, len(scans))]
    seconds = timed(
        [
            [*voxwarp, "register", str(scan), "-o", str(scratch / scan.name), "--composite"]
            for scan in few
        ],
        "loop",
    )
    rows.append(row("scans an hour, loop of register", 3600 * len(few) / seconds, len(few)))
    template = write_template(scratch / "template.nii.gz")
    seconds = timed(
        [
            [sys.executable, "-c", ANTS, str(template), str(scan), str(scratch / f"{n}.nii.gz")]
            for n, scan in enumerate(few)
        ],
        "ants",
    )
    rows.append(row("scans an hour, loop of ants-syn", 3600 * len(few) / seconds, len(few)))
    return rows


def write_template(path: Path) -> Path:
    from voxwarp.preparation.template import mni152
    from voxwarp.space.volume import write_volume

    write_volume(mni152().image, path)
    return path


# ---------------------------------------------------------------------------------- A thousand


def thousand(options, scratch: Path) -> list[dict]:
    sys.path.insert(0, str(ROOT / "tests" / "support"))
    from bids_data import head, write_bids, write_quick_model, write_scan

    write_bids(scratch / "bids", options.persons)
    write_quick_model(scratch / "model")
    template = write_scan(scratch / "template.nii.gz", head(options.persons + 1))
    command = [sys.executable, "-m", "voxwarp", "cohort", scratch / "bids", scratch / "out"]
    command += ["participant", "--fixed", template, "--model", scratch / "model"]
    command += ["--brain-extract", "no"]
    first_done, memory = {}, {}
    began = time.perf_counter()
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True)
    manager = psutil.Process(process.pid)
    done = 0
    assert process.stdout is not None
    for line in process.stdout:
        if ": done in" in line:
            done += 1
            first_done.setdefault("seconds", time.perf_counter() - began)
            if done in (max(1, options.persons // 10), options.persons):
                memory[done] = manager.memory_info().rss
                used = manager.cpu_times()
    assert process.wait() == 0
    seconds = time.perf_counter() - began
    logs = sorted((scratch / "out" / "logs").glob("sub-*.log"), key=lambda p: p.stat().st_mtime)
    second_began = time.perf_counter()
    subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL)
    second = time.perf_counter() - second_began
    early, late = memory.values()
    number = options.persons
    assert len(logs) == number
    return [
        row("s until the first scan is done", first_done["seconds"], number),
        row("s for all", seconds, number),
        row("MB of the command after a tenth", early / 1e6, number),
        row("MB of the command at the end", late / 1e6, number),
        row("ms of the command's processor time a scan", 1e3 * sum(used[:2]) / number, number),
        row("s of a second run", second, number),
        *ledger(number, scratch),
    ]


def ledger(number: int, scratch: Path) -> list[dict]:
    from voxwarp.cohort import ledger as module
    from voxwarp.cohort.ledger import Entry, Ledger

    rows, basis = [], {"inputs": {"T1w": "0" * 64}}
    outputs = {f"sub-1/anat/file-{n}_T1w.nii.gz": n for n in range(15)}
    for kind, on_network in (("SQLite", False), ("JSON lines", True)):
        module.is_on_network = lambda folder, now=on_network: now
        book = Ledger(scratch / kind)
        began = time.perf_counter()
        for n in range(number):
            book.add(Entry(f"sub-{n}", "done", basis=basis, outputs=outputs))
        milliseconds = 1e3 * (time.perf_counter() - began) / number
        book.close()
        began = time.perf_counter()
        assert len(Ledger(scratch / kind).entries()) == number
        rows.append(row(f"ms of the ledger a scan, {kind}", milliseconds, number))
        rows.append(row(f"s to read the ledger, {kind}", time.perf_counter() - began, number))
    return rows


if __name__ == "__main__":
    main()
