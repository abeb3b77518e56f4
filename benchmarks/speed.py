"""Seconds and memory of whole commands and of their stages, beside greedy and antspyx.

    python benchmarks/speed.py FOLDER MOVING FIXED [--head HEAD] [--second-head HEAD]
                               [--repeats 5] [--threads 2] [--no-amx] [--only NAME...] [--busy]

It writes ``commands.csv`` and ``stages.csv`` to FOLDER, and prints tables with the ratios to the
other tools: below 1, they are faster. MOVING and FIXED should be skull-stripped brains, because the
other tools extract none. HEAD is registered to the second head and to MNI152.

Each command is a process of its own, as a user starts it, and runs once to warm up; then all of
them take turns. Each of ours starts with an empty cache of examinations, as a new scan does, and
with the kernels compiled. ``second scan`` finds the fixed scan examined, but not the moving one.
``greedy`` is what ``many_pairs.py`` runs: the affine and the deformable registration, the inverse,
and the moved image. ``antspyx`` is its ``SyN`` with defaults, and both moved images written.

- ``seconds`` are medians, of the wall clock; ``warm_up_s`` is that of the first run.
- ``peak_mb`` is the largest memory of the process (ru_maxrss, 10⁶ bytes), the median too.
- ``load_before`` is the largest load average of a minute before a run, to which this script itself
  adds. ``busy_cores`` is the largest number of cores that worked in the second before a run, while
  it waits: above 0.5, the row is not ``quiet``. If the load average is above 0.5 at the start, the
  script refuses to measure, unless ``--busy`` is given.
- ``floor_s`` of a stage is explained in ``floors.py``. ``start`` and all stages up to ``write`` are
  those of metrics.json; ``exit`` is what the wall clock has beyond them. The command ``core`` is
  the stages ``network`` and ``refine`` alone, in a process that has done them before.

``--no-amx`` keeps oneDNN from using AMX, as on processors without it.
"""

import argparse
import csv
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import date
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from floors import Work, floor, uncompressed, work_of_stages
from many_pairs import greedy as greedy_commands

QUIET = 0.5  # cores that may be busy with something else
CONSTRAINED = {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16"}
IMPORTS, OTHERS = "import torch, nibabel, numpy", ("greedy", "antspyx")
MODELS = "default", "fast", "pyramid", "none"
PAIRS = *MODELS, "default --refine"  # of what the other tools do, too
PACKAGES = "voxwarp", "torch", "numba", "picsl-greedy", "antspyx"

Words = list[str]
Commands = dict[str, Callable[[Path], list[Words]]]

ANTSPYX = """
import sys, ants
moving, fixed, out = sys.argv[1:]
images = [ants.image_read(path) for path in (fixed, moving)]
result = ants.registration(*images, type_of_transform="SyN", outprefix=f"{out}/")
for name in ("warpedmovout", "warpedfixout"):
    ants.image_write(result[name], f"{out}/{name}.nii.gz")
"""


def main() -> None:
    options = parsed()
    load = os.getloadavg()[0]
    if load > QUIET and not options.busy:
        raise SystemExit(f"the load average is {load:.2f}: wait until it is below {QUIET}")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        rows, stages = measured(options, folder)
    options.rows.mkdir(parents=True, exist_ok=True)
    for name, table in (("commands", rows), ("stages", stages)):
        with open(options.rows / f"{name}.csv", "w", newline="") as stream:
            writer = csv.DictWriter(stream, list(table[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(table)
    show(rows, "command seconds seconds_min seconds_max cpu_s peak_mb greedy_ratio antspyx_ratio")
    show(stages, "command stage seconds floor_s ratio bound")
    loud = [row["command"] for row in rows if row["quiet"] == "no"]
    if loud:
        print(f"Other work was running, so that these are not to be reported: {', '.join(loud)}")


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("rows", type=Path, metavar="FOLDER")
    parser.add_argument("moving", type=Path)
    parser.add_argument("fixed", type=Path)
    parser.add_argument("--head", type=Path)
    parser.add_argument("--second-head", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--no-amx", action="store_true")
    parser.add_argument("--only", nargs="+", help="names of commands, as in the table")
    parser.add_argument("--busy", action="store_true", help="measure beside other work, too")
    options = parser.parse_args()
    for name in ("moving", "fixed", "head", "second_head"):
        path = getattr(options, name)
        setattr(options, name, path and path.absolute())
    return options


def measured(options: argparse.Namespace, folder: Path) -> tuple[list[dict], list[dict]]:
    """The rows of commands and of stages."""
    runs = all_runs(options, folder)
    pair, warp = [options.moving, options.fixed], folder / "kept" / "out" / "1Warp.nii.gz"
    facts = from_process(options, folder, "rates", [warp, options.fixed])
    cores = {}
    for name in {"default": 0} | dict.fromkeys(name for name in runs if name in PAIRS):
        model, *refine = name.split()
        more = "--model", model, "--repeats", options.repeats, *refine
        cores[name] = from_process(options, folder, "core", pair, *more)
    rates = Work(*facts["rates"])
    about = about_machine(options, facts, rates)
    rows = with_ratios([row_of(name, runs[name]) for name in runs if len(runs[name]) > 1])
    imports = next(row["seconds"] for row in rows if row["command"] == IMPORTS)
    stages = []
    for name, (_, *timed) in runs.items():
        if timed and "metrics" in timed[0]:
            core, first = cores.get(name, cores["default"]), timed[0]
            sizes = first["metrics"], first["written"], core, imports, facts["deepbet"]
            stages += stage_rows(name, timed, work_of_stages(*sizes), rates)
    for name, core in cores.items():
        for stage, seconds in core["seconds"].items():
            work = Work(*core["work"][stage])
            stages.append(stage_row(f"core {name}", stage, seconds, work, rates))
    return [row | about for row in rows], [row | about for row in stages]


def all_runs(options: argparse.Namespace, folder: Path) -> dict[str, list[dict]]:
    """Each command once to warm up, then all in turn; the first result of ``default`` is kept."""
    known = commands(options, folder / "kept")
    chosen = [name for name in known if not options.only or name in options.only or name == IMPORTS]
    if unknown := set(options.only or ()) - known.keys():
        raise SystemExit(f"unknown: {', '.join(unknown)}; there are: {', '.join(known)}")
    runs = {name: list[dict]() for name in known if name in chosen or name == "default"}
    for repetition in range(options.repeats + 1):
        for name in chosen if repetition else runs:
            keep = name == "default" and not repetition
            place = folder / ("kept" if keep else "run")
            place.mkdir()
            runs[name].append(run(known[name](place), environment(options, folder, place)))
            print(repetition, name, runs[name][-1]["seconds"], flush=True)
            if not keep:
                shutil.rmtree(place)
    return runs


# ------------------------------------------------------------------------------------- Commands


def commands(options: argparse.Namespace, kept: Path) -> Commands:
    """For each name, what is run in a new folder: the last is measured, those before are not."""
    python, moving, fixed = sys.executable, str(options.moving), str(options.fixed)
    voxwarp = [python, "-m", "voxwarp"]

    def register(*words: object) -> Callable[[Path], list[Words]]:
        given = ["register", "--threads", str(options.threads), *map(str, words)]
        return lambda place: [[*voxwarp, *given, "-o", str(place / "out")]]

    pair, apply = register(moving, fixed), [*voxwarp, "apply", moving, "-t", str(kept / "out")]
    examine = [*voxwarp, "preprocess", "--threads", str(options.threads), fixed, "-o"]
    known: Commands = {model: register(moving, fixed, "--model", model) for model in MODELS}
    known["default --refine"] = register(moving, fixed, "--refine")
    known["second scan"] = lambda place: [[*examine, str(place / "fixed")], *pair(place)]
    if options.head and options.second_head:
        known["two heads"] = register(options.head, options.second_head)
    if options.head:
        known["head to MNI152"] = register(options.head)
    known["apply"] = lambda place: [[*apply, "-o", str(place / "moved.nii.gz")]]
    known["import voxwarp"] = lambda place: [[python, "-c", "import voxwarp"]]
    known["voxwarp --help"] = lambda place: [[*voxwarp, "--help"]]
    known[IMPORTS] = lambda place: [[python, "-c", IMPORTS]]
    if find_spec("picsl_greedy"):
        known["greedy"] = lambda place: list(greedy_commands(options, place, [options.moving]))
    if find_spec("ants"):
        known["antspyx"] = lambda place: [[python, "-c", ANTSPYX, moving, fixed, str(place)]]
    return known


def environment(options: argparse.Namespace, folder: Path, place: Path) -> dict[str, str]:
    own = {
        "OMP_NUM_THREADS": str(options.threads),
        "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": str(options.threads),
        "NUMBA_CACHE_DIR": str(folder / "kernels"),
        "VOXWARP_CACHE": str(place / "cache"),
    }
    return {**os.environ, **own, **(CONSTRAINED if options.no_amx else {})}


def run(words: list[Words], environment: Mapping[str, str]) -> dict:
    """Run commands; time, memory and the record of the last one."""
    *before, last = words
    for command in before:
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    load, busy = os.getloadavg()[0], busy_cores()
    with tempfile.TemporaryFile() as said:
        start = time.perf_counter()
        process = subprocess.Popen(last, env=environment, stdout=subprocess.DEVNULL, stderr=said)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            said.seek(0)
            raise SystemExit(f"{' '.join(last)}:\n{said.read().decode()}")
    unit = 1 if sys.platform == "darwin" else 1024
    found = {
        "seconds": round(seconds, 3),
        "cpu_s": round(usage.ru_utime + usage.ru_stime, 2),
        "peak_mb": round(usage.ru_maxrss * unit / 1e6),
        "load_before": round(load, 2),
        "busy_cores": round(busy, 2),
        "quiet": "no" if busy > QUIET else "yes",
    }
    out = Path(last[last.index("-o") + 1]) if "register" in last else None
    if out is not None:
        found["metrics"] = json.loads((out / "metrics.json").read_text())
        found["written"] = sum(map(uncompressed, out.glob("*.nii.gz")))
    return found


def busy_cores(seconds: float = 1.0) -> float:
    """How many cores are busy while this process waits; NaN where the system does not say."""

    def ticks() -> tuple[int, int]:
        values = list(map(int, Path("/proc/stat").read_text().splitlines()[0].split()[1:9]))
        return sum(values), values[3] + values[4]  # all; idle, and waiting for a disk

    try:
        all_before, idle_before = ticks()
        time.sleep(seconds)
        all_after, idle_after = ticks()
    except OSError:
        return float("nan")
    idle = (idle_after - idle_before) / max(all_after - all_before, 1)
    return (1 - idle) * (os.cpu_count() or 1)


def from_process(
    options: argparse.Namespace, folder: Path, what: str, files: Iterable[Path], *more: object
) -> dict:
    """What ``floors.py`` says in a process of its own, so that this one stays small."""
    script = Path(__file__).with_name("floors.py")
    command = [sys.executable, str(script), what, *map(str, (*files, *more))]
    own = environment(options, folder, folder / "kept")
    done = subprocess.run(command, env=own, check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout)


# ------------------------------------------------------------------------------------- Rows


def summary(seconds: list[float]) -> dict[str, float]:
    middle = statistics.median(seconds)
    values = {"seconds": middle, "seconds_min": min(seconds), "seconds_max": max(seconds)}
    return {name: round(value, 3) for name, value in values.items()}


def row_of(name: str, runs: list[dict]) -> dict:
    """The row of a command, from its runs; the first is the warm-up."""
    first, *timed = runs
    return {
        "command": name,
        **summary([one["seconds"] for one in timed]),
        "repeats": len(timed),
        "warm_up_s": first["seconds"],
        "cpu_s": statistics.median(one["cpu_s"] for one in timed),
        "peak_mb": round(statistics.median(one["peak_mb"] for one in timed)),
        "load_before": max(one["load_before"] for one in timed),
        "busy_cores": max(one["busy_cores"] for one in timed),
        "quiet": "yes" if all(one["quiet"] == "yes" for one in timed) else "no",
    }


def with_ratios(rows: list[dict]) -> list[dict]:
    """How many times longer the other tools take for a pair."""
    seconds = {row["command"]: row["seconds"] for row in rows}
    for row in rows:
        for other in OTHERS:
            known = row["command"] in PAIRS and other in seconds
            ratio = round(seconds[other] / row["seconds"], 2) if known else ""
            row[f"{other}_ratio"] = ratio
    return rows


def stage_rows(name: str, runs: list[dict], work: Mapping[str, Work], rates: Work) -> list[dict]:
    """The rows of the stages of a command; ``exit`` is what no other stage has."""
    seconds = defaultdict(list)
    for one in runs:
        stages = one["metrics"]["seconds"]
        for stage, spent in (*stages.items(), ("exit", one["seconds"] - sum(stages.values()))):
            seconds[stage].append(spent)
    return [stage_row(name, stage, spent, work[stage], rates) for stage, spent in seconds.items()]


def stage_row(name: str, stage: str, seconds: list[float], work: Work, rates: Work) -> dict:
    least, bound = floor(work, rates)
    row = {"command": name, "stage": stage, **summary(seconds), "repeats": len(seconds)}
    return row | {
        "floor_s": round(least, 3),
        "ratio": round(row["seconds"] / least, 1) if least else "",
        "bound": bound,
        "moved_mb": round(work.moved / 1e6),
        "gflop": round(work.flops / 1e9, 1),
        "inflated_mb": round(work.inflated / 1e6),
        "deflated_mb": round(work.deflated / 1e6),
    }


def about_machine(options: argparse.Namespace, facts: Mapping, rates: Work) -> dict:
    """The columns that all rows share."""
    here = facts["machine"]
    with suppress(OSError):
        flags = Path("/proc/cpuinfo").read_text()
        here |= {flag: "yes" if flag in flags else "no" for flag in ("amx_bf16", "avx512_bf16")}
    return {
        "processor": here["processor"],
        "cores": here["cores"],
        "memory_gb": here["memory_gb"],
        "system": here["system"],
        "amx_bf16": here.get("amx_bf16", ""),
        "avx512_bf16": here.get("avx512_bf16", ""),
        "amx_kept_away": "yes" if options.no_amx else "no",
        "precision": facts["precision"],
        "threads": options.threads,
        "moved_gb_s": round(rates.moved / 1e9, 1),
        "gflop_s": round(rates.flops / 1e9),
        "inflated_mb_s": round(rates.inflated / 1e6),
        "deflated_mb_s": round(rates.deflated / 1e6),
        "date": date.today().isoformat(),
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in PACKAGES if is_installed(name)},
    }


def is_installed(package: str) -> bool:
    with suppress(metadata.PackageNotFoundError):
        return bool(metadata.version(package))
    return False


def show(rows: list[dict], columns: str) -> None:
    """Print some columns as a table."""
    names = columns.split()
    lines = [names, *([str(row[name]) for name in names] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)))
    print()


if __name__ == "__main__":
    main()
