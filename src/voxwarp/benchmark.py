"""Methods side by side: each on every pair, one at a time, in a process of its own."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from . import baselines
from .baselines import AFFINE, INVERSE, METHODS, RECORD, WARP, Job, method_of, missing, model_of
from .errors import InputError
from .evaluation import (
    Progress,
    begin,
    couples,
    failure,
    inputs_of,
    line,
    machine,
    write_record,
)
from .formats import read_affine, read_warp
from .model import installed
from .pairs import Pair, Subject
from .prepare import examine
from .registration import versions
from .rows import Row
from .scoring import Found, Protocol, measure, read_case
from .transform import Chain
from .volume import read_volume

BENCHMARK = "benchmark.json"
USUAL = "affine", "ants-syn", "greedy", "elastix", "convexadam", "default"
AUTHORS = "vm1-authors", "vm2-authors"  # published weights, which have to be pointed at


class Entry(NamedTuple):
    """A method as it was asked for.

    Args:
        name: in the rows.
        method: see ``baselines.Job``.
        weights: of a network.
    """

    name: str
    method: str
    weights: str | None = None


@dataclass(frozen=True)
class Terms:
    """The terms that all methods get.

    Args:
        threads: that each may use.
        limit: seconds for a pair.
        alone: nothing else runs on the machine, so that times count; quick methods are
            repeated to time them.
        device: of networks.
        keep: leave the transforms where they are.
    """

    threads: int
    limit: float = 3600.0
    alone: bool = True
    device: str = "cpu"
    keep: bool = False


def entries(words: Sequence[str]) -> tuple[list[Entry], dict[str, str]]:
    """The methods that words ask for, and why some of them cannot be had.

    Args:
        words: names of ``METHODS``, names of installed models, NAME=WEIGHTS with a model's
            folder or a Keras file of the paper's authors, or NAME=MODULE:FUNCTION.

    Raises:
        InputError: a word is none of these, two have one name, or weights cannot be read.
    """
    found, skipped = dict[str, Entry](), dict[str, str]()
    for word in words:
        name, _, weights = word.partition("=")
        if name in found or name in skipped:
            raise InputError(f"methods: {name} is there twice")
        if not name or "/" in name:
            raise InputError(f"methods: {word!r}: give it a name, as NAME=WEIGHTS")
        if weights:
            found[name] = _own(name, weights)
        elif name in METHODS and name != "network":
            package = missing(name)
            if package:
                skipped[name] = f"{package} is not installed: pip install 'voxwarp[benchmark]'"
            else:
                found[name] = Entry(name, name)
        elif name in installed():
            found[name] = Entry(name, "network", name)
        elif name in AUTHORS:
            skipped[name] = f"its weights are not here: {name}=FILE.h5"
        else:
            known = ", ".join([*(m for m in METHODS if m != "network"), *installed()])
            raise InputError(f"methods: there is no {name!r}; there are {known}, and NAME=WEIGHTS")
    return list(found.values()), skipped


def _own(name: str, source: str) -> Entry:
    """A method of the user's: weights, or a function."""
    if ":" in source and not Path(source).exists():
        method_of(source)
        return Entry(name, source)
    model_of(source)
    return Entry(name, "network", str(Path(source).absolute()) if Path(source).exists() else source)


def benchmark(
    pairs: Sequence[Pair],
    methods: Sequence[Entry],
    out: Path,
    *,
    protocol: Protocol,
    terms: Terms,
    overwrite: bool = False,
    retry: bool = False,
    progress: Progress | None = None,
) -> list[Row]:
    """Run every method on every pair, from the same affine map, and write its numbers.

    The folder gets ``pairs.csv``, ``structures.csv``, ``benchmark.json`` and, for every run,
    ``transforms/METHOD/PAIR/run.json`` with its log. A benchmark that was interrupted goes on
    where it stopped, and more methods and pairs can be added. A method that fails on a pair, or
    takes too long, leaves a row that says so.

    Args:
        pairs: brains, from ``pairs.read_pairs``.
        methods: from ``entries``.
        out: folder of the results.
        protocol: what is counted.
        terms: what each method gets.
        overwrite: begin anew.
        retry: run again what failed or took too long.
        progress: called with a line for every pair.

    Returns:
        The rows of the pairs.

    Raises:
        InputError: an input is missing or is no brain, or the folder holds rows that were made
            otherwise.
    """
    record: dict[str, Any] = {"protocol": protocol.described()}
    sheet = begin(out, BENCHMARK, record, overwrite=overwrite)
    record |= _provenance(pairs, methods)
    write_record(out / BENCHMARK, record)
    places = _places(pairs, out)
    for entry in methods:
        if retry:
            sheet.forget(entry.name, failed=True)
        for couple in couples(pairs):
            todo = [pair for pair in couple if not sheet.holds(entry.name, pair)]
            if not todo:
                continue
            runs = {pair.key: _run(pair, entry, out, places, terms, retry) for pair in couple}
            for pair in todo:
                row, structures = _measured(pair, runs, protocol)
                sheet.add(entry.name, row, structures)
                if progress:
                    progress(line(sheet.pairs[-1]))
            if not terms.keep:
                for job, _ in runs.values():
                    _clear(job.place)
    return sheet.pairs


Runs = dict[tuple[str, str], tuple[Job, dict[str, Any]]]


def _run(
    pair: Pair, entry: Entry, out: Path, places: dict[str, Any], terms: Terms, retry: bool
) -> tuple[Job, dict[str, Any]]:
    """A method on a pair, unless its files are there already."""
    poses = {side: places[s.name] for side, s in (("fixed", pair.fixed), ("moving", pair.moving))}
    job = Job(
        method=entry.method,
        fixed=str(pair.fixed.path.absolute()),
        moving=str(pair.moving.path.absolute()),
        template_to_fixed=poses["fixed"]["template_to_scan"],
        template_to_moving=poses["moving"]["template_to_scan"],
        folder=str((out / "transforms" / entry.name / "_to_".join(pair.key)).absolute()),
        threads=terms.threads,
        weights=entry.weights,
        device=terms.device,
        repeat=terms.alone,
    )
    with suppress(OSError, ValueError):
        record = json.loads((job.place / RECORD).read_text(encoding="utf-8"))
        whole = record.get("status") == "ok" and (job.place / WARP).exists()
        if whole or (record.get("status", "ok") != "ok" and not retry):
            return job, record
    record = execute(job, limit=terms.limit, alone=terms.alone)
    record["affine_s"] = sum(pose["seconds"] for pose in poses.values())
    write_record(job.place / RECORD, record)
    return job, record


def _measured(pair: Pair, runs: Runs, protocol: Protocol) -> tuple[Row, list[Row]]:
    job, run = runs[pair.key]
    row, structures = failure(pair, run["status"], run["reason"], protocol.labels), list[Row]()
    if run["status"] == "ok":
        try:
            found, swapped = _found(job), runs.get(pair.swapped_key)
            back = (
                _found(swapped[0]).transform if swapped and swapped[1]["status"] == "ok" else None
            )
            row, structures = measure(read_case(pair), found, protocol, back)
        except (InputError, ValueError) as error:  # files that a method left half-written, say
            row = failure(pair, "failed", str(error), protocol.labels)
    affine, seconds = run.get("affine_s", math.nan), run.get("seconds", {})
    whole = affine + run["process_s"] - run.get("repeated_s", 0.0)
    return row | {
        "affine_s": affine,
        "deform_s": seconds.get("deform", math.nan),
        "first_s": run.get("first_s", math.nan),
        "whole_s": whole if run["status"] == "ok" else math.nan,
        "memory_mb": run.get("memory_mb", {}).get("deform", math.nan),
        "device": run.get("device", "cpu"),
        "threads": run["threads"],
        "timed": "yes" if run["alone"] else "no",
    }, structures


def _found(job: Job) -> Found:
    """What a method left in its folder."""
    affine, warp = read_affine(job.place / AFFINE), read_warp(job.place / WARP)
    inverse = None
    if (job.place / INVERSE).exists():
        inverse = Chain([affine.inverse(), read_warp(job.place / INVERSE)])
    return Found(Chain([warp, affine]), warp, inverse)


def _clear(folder: Path) -> None:
    """Remove what is large."""
    for path in folder.glob("*.nii*"):
        path.unlink()


# ---------------------------------------------------------------------------------------- Start


def _places(pairs: Sequence[Pair], out: Path) -> dict[str, Any]:
    """Where each brain lies in MNI152 space, and the seconds it took to find out.

    Raises:
        InputError: one of them is a head.
    """
    subjects = {s.name: s for pair in pairs for s in (pair.moving, pair.fixed)}
    places, warm = {}, False
    for name, subject in subjects.items():
        path = out / "scans" / f"{name}.json"
        if not path.exists():
            if not warm:
                _place(subject)
                warm = True
            write_record(path, _place(subject))
        places[name] = json.loads(path.read_text(encoding="utf-8"))
    return places


def _place(subject: Subject) -> dict[str, Any]:
    began = time.perf_counter()
    found = examine(read_volume(subject.path))
    if found.kind == "head":
        raise InputError(
            f"image {subject.path}: this is a head, and the other methods want brains: extract "
            f"it first (voxwarp preprocess)"
        )
    matrix = found.template_to_scan.fixed_to_moving.tolist()
    return {"template_to_scan": matrix, "seconds": time.perf_counter() - began}


def _provenance(pairs: Sequence[Pair], methods: Sequence[Entry]) -> dict[str, Any]:
    packages = {METHODS[e.method].package for e in methods if e.method in METHODS} - {None}
    return {
        "inputs": inputs_of(pairs),
        "versions": versions() | {p: version(p) for p in sorted(filter(None, packages))},
        "machine": machine(),
        "methods": {e.name: _described(e) for e in methods},
    }


def _described(entry: Entry) -> dict[str, Any]:
    about = {"what": (method_of(entry.method).__doc__ or "").strip()}
    if entry.weights is None:
        return about
    model = model_of(entry.weights)
    return about | {"weights": entry.weights, "weights_sha256": model.sha256}


# -------------------------------------------------------------------------------------- Process


def execute(job: Job, *, limit: float, alone: bool) -> dict[str, Any]:
    """Run a method on a pair, and leave ``run.json`` in its folder, whatever becomes of it.

    Args:
        job: what is to be done; its folder is made.
        limit: seconds after which it is stopped.
        alone: nothing else is running on the machine, so that its times count.

    Returns:
        What run.json says: status ("ok", "failed", "time limit") and reason, seconds and memory.
    """
    job.place.mkdir(parents=True, exist_ok=True)
    (job.place / RECORD).unlink(missing_ok=True)
    words = [sys.executable, "-m", baselines.__name__, str(job.save())]
    log = job.place / "log.txt"
    began = time.perf_counter()
    with open(log, "wb") as stream:
        process = subprocess.Popen(
            words,
            stdout=stream,
            stderr=stream,
            stdin=subprocess.DEVNULL,
            env=os.environ | _threads(job.threads),
            cwd=job.place,  # elastix leaves files where it runs
            start_new_session=True,
        )
        try:
            code: int | None = process.wait(limit)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            _end(process)
    took = time.perf_counter() - began
    record: dict[str, Any] = {"status": "ok", "reason": ""}
    if code is None:
        record = {"status": "time limit", "reason": f"stopped after {limit:.0f} s"}
    elif code != 0:
        record = {"status": "failed", "reason": _last_words(log, code)}
    else:
        record |= json.loads((job.place / RECORD).read_text())
    record |= {"process_s": took, "threads": job.threads, "alone": alone}
    write_record(job.place / RECORD, record)
    return record


def _threads(number: int) -> dict[str, str]:
    names = "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"
    return dict.fromkeys(names, str(number))


def _end(process: subprocess.Popen) -> None:
    """Stop a process and those that it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _last_words(log: Path, code: int) -> str:
    """Why a process failed, in one line: the last of its log, or the signal that ended it."""
    if code < 0:
        return f"ended by signal {signal.Signals(-code).name}"
    lines = log.read_text(errors="replace").strip().splitlines() or [f"exit code {code}"]
    return " ".join(lines[-1].split())[:200]
