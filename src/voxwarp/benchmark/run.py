"""Methods side by side: each on every pair, one at a time, in a process of its own."""

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ..data.pairs import Pair, Subject, couples
from ..device import torch_device
from ..errors import InputError
from ..evaluation.evaluation import (
    Progress,
    Sheet,
    alone_in,
    begin,
    failure,
    inputs_of,
    line,
    write_record,
)
from ..evaluation.rows import REFINE, Row
from ..evaluation.scoring import Found, Protocol, measure, read_case, read_landmarks, values_of
from ..networks.model import installed
from ..preparation.prepare import examine
from ..provenance import machine, origin, versions
from ..space.formats import read_affine, read_warp
from ..space.transform import Chain, Transform
from ..space.volume import read_volume
from .baselines import (
    AFFINE,
    INVERSE,
    JOB,
    METHODS,
    OF_MODELS,
    RECORD,
    WARP,
    Job,
    located,
    method_of,
    missing,
    model_of,
)

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
            folder or a Keras file of the paper's authors, or NAME=MODULE:FUNCTION. Behind a
            model, ``+refine`` has its answers refined.

    Raises:
        InputError: a word is none of these, two have one name, or weights cannot be read.
    """
    found, skipped = dict[str, Entry](), dict[str, str]()
    for word in words:
        name, _, weights = word.partition("=")
        if name in found or name in skipped:
            raise InputError(f"methods: {name} is there twice")
        if not _names_a_file(name) or (weights and name in METHODS):
            raise InputError(f"methods: {word!r}: give it a name of its own, as NAME=WEIGHTS")
        if weights:
            found[name] = _own(name, weights)
        elif name in METHODS and name not in OF_MODELS:
            package = missing(name)
            if package:
                skipped[name] = f"{package} is not installed: pip install 'voxwarp[benchmark]'"
            else:
                found[name] = Entry(name, name)
        elif name.removesuffix(REFINE) in installed():
            found[name] = _of_model(name, name)
        elif name in AUTHORS:
            skipped[name] = f"its weights are not here: {name}=FILE.h5"
        else:
            known = ", ".join([*(m for m in METHODS if m not in OF_MODELS), *installed()])
            raise InputError(f"methods: there is no {name!r}; there are {known}, and NAME=WEIGHTS")
    return list(found.values()), skipped


def _own(name: str, source: str) -> Entry:
    """A method of the user's: weights, or a function."""
    if ":" in source and not Path(source).exists():
        method_of(source)
        return Entry(name, source)
    return _of_model(name, source)


def _of_model(name: str, source: str) -> Entry:
    """A model, and whether its answers are refined."""
    weights = source.removesuffix(REFINE)
    model_of(weights)
    return Entry(name, "network" if weights == source else "refined", located(weights))


def _names_a_file(name: str) -> bool:
    """Whether a file can have this name, beside another in one name, and is not hidden then."""
    return bool(re.fullmatch(r"[^\s./\\][^/\\\0\r\n]*", name)) and len(name.encode()) <= 120


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
    takes too long, leaves a row that says so. Transforms that were kept are measured again where
    their rows are gone, and stand for what their run.json says, threads and times included.

    Args:
        pairs: brains, from ``pairs.read_pairs``.
        methods: from ``entries``.
        out: folder of the results.
        protocol: what is counted.
        terms: what each method gets.
        overwrite: drop the rows that are there; what failed or took too long is run again.
        retry: run again what failed or took too long.
        progress: called with a line for every pair.

    Returns:
        The rows of the pairs.

    Raises:
        InputError: an input is missing or is no brain, the folder holds rows that were made
            otherwise, or another benchmark is at work in it.
    """
    _check(pairs)
    if any(entry.weights for entry in methods):
        torch_device(terms.device)
    with alone_in(out):
        # All that may be refused comes before rows are dropped.
        record = {"protocol": protocol.described()} | _provenance(pairs, methods)
        places = _places(pairs, out, terms)
        sheet = begin(out, BENCHMARK, {"protocol": protocol.described()}, overwrite=overwrite)
        record = _joined(record, out, sheet)
        write_record(out / BENCHMARK, record)
        for entry in methods:
            about = record["methods"][entry.name]
            jobs = {pair.key: _job(pair, entry, about, out, places, terms) for pair in pairs}
            if retry:
                sheet.forget_failures(entry.name, pairs)
            for couple in couples(pairs):
                todo = [pair for pair in couple if not sheet.holds(entry.name, pair)]
                if not todo:
                    continue
                # One that has its row is there to be compared with, if its files still are.
                needed = [p for p in couple if p in todo or (jobs[p.key].place / WARP).exists()]
                runs = {p.key: _run(jobs[p.key], terms, retry or overwrite) for p in needed}
                for pair in todo:
                    row, structures = _measured(pair, runs, protocol)
                    affine = sum(places[s.name]["seconds"] for s in (pair.fixed, pair.moving))
                    row |= _times(affine, runs[pair.key].record, terms)
                    sheet.add(entry.name, row, structures)
                    if progress:
                        progress(line(sheet.pairs[-1]))
                if not terms.keep:
                    for run in runs.values():
                        _clear(run.job.place)
        return sheet.pairs


class Done(NamedTuple):
    """A job and what its run.json says."""

    job: Job
    record: dict[str, Any]


def _job(
    pair: Pair,
    entry: Entry,
    about: dict[str, Any],
    out: Path,
    places: dict[str, Any],
    terms: Terms,
) -> Job:
    return Job(
        method=entry.method,
        fixed=str(pair.fixed.path.absolute()),
        moving=str(pair.moving.path.absolute()),
        template_to_fixed=places[pair.fixed.name]["template_to_scan"],
        template_to_moving=places[pair.moving.name]["template_to_scan"],
        folder=str((out / "transforms" / entry.name / "_to_".join(pair.key)).absolute()),
        threads=terms.threads,
        weights=entry.weights,
        device=terms.device,
        repeat=terms.alone,
        limit=terms.limit,
        weights_sha256=about.get("weights_sha256", ""),
        package=about.get("package", ""),
    )


def _run(job: Job, terms: Terms, retry: bool) -> Done:
    """A job that is done, now or before."""
    with suppress(OSError, ValueError):
        record = json.loads((job.place / RECORD).read_text(encoding="utf-8"))
        whole = record.get("status") == "ok" and (job.place / WARP).exists()
        failed = record.get("status", "ok") != "ok" and not retry
        if (whole or failed) and _is_of(job):
            return Done(job, record)
    return Done(job, execute(job, limit=terms.limit, alone=terms.alone))


def _is_of(job: Job) -> bool:
    """Whether the files in a job's folder are its own: of this method, start and weights."""
    wanted, there = asdict(job), json.loads((job.place / JOB).read_text(encoding="utf-8"))
    same = ("method", "template_to_fixed", "template_to_moving")
    known = ("weights_sha256", "package")  # where they were written down
    return all(there.get(key) == wanted[key] for key in same) and all(
        there.get(key, "") in ("", wanted[key]) for key in known
    )


def _measured(
    pair: Pair, runs: dict[tuple[str, str], Done], protocol: Protocol
) -> tuple[Row, list[Row]]:
    """The numbers of a pair; where its files are of no use, its run.json says so from now on."""
    job, record = runs[pair.key]
    if record["status"] == "ok":
        try:
            back = _there(runs.get(pair.swapped_key))
            return measure(read_case(pair), _found(job), protocol, back)
        except Exception as error:  # a file that a method left half-written, say
            kind = "" if isinstance(error, InputError) else f"{type(error).__name__}: "
            words = f"{kind}{error}".replace(f"{job.place}{os.sep}", "")
            record |= {"status": "failed", "reason": words}
            write_record(job.place / RECORD, record)
    return failure(pair, record["status"], record["reason"], protocol.labels), []


def _there(run: Done | None) -> Transform | None:
    """What was found for the pair the other way round; none if that is of no use."""
    with suppress(InputError, ValueError):
        return _found(run.job).transform if run and run.record["status"] == "ok" else None
    return None


def _times(affine: float, run: dict[str, Any], terms: Terms) -> Row:
    """Columns of a run: ``whole_s`` is that of one without repetitions.

    Kept files of another run are timed if the affine stage was measured as they were.
    """
    alike = (run["alone"], run["threads"]) == (True, terms.threads) and terms.alone
    seconds = run.get("seconds", {})
    whole = affine + run["process_s"] - run.get("repeated_s", 0.0)
    return {
        "affine_s": affine,
        "deform_s": seconds.get("deform", math.nan),
        "first_s": run.get("first_s", math.nan),
        "whole_s": whole if run["status"] == "ok" else math.nan,
        "memory_mb": run.get("memory_mb", {}).get("deform", math.nan),
        "device": run.get("device", "cpu"),
        "threads": run["threads"],
        "timed": "yes" if alike else "no",
    }


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


def _check(pairs: Sequence[Pair]) -> None:
    """What would come up after hours: names that are no files', labels that do not fit.

    Raises:
        InputError: there is such a thing, or a label map or landmarks cannot be read.
    """
    inputs_of(pairs)
    for subject in {s for pair in pairs for s in (pair.moving, pair.fixed)}:
        if not _names_a_file(subject.name):
            raise InputError(f"pairs: scan {subject.name!r}: that cannot be a file's name")
        if subject.landmarks is not None:
            read_landmarks(subject.landmarks)
    if len({"_to_".join(pair.key) for pair in pairs}) < len(pairs):
        raise InputError("pairs: two of them would have one folder: give the scans other names")
    values_of(pairs)


def _places(pairs: Sequence[Pair], out: Path, terms: Terms) -> dict[str, Any]:
    """Where each brain lies in MNI152 space, and the seconds it took to find out.

    What was found before stays; under other terms it is found again for the time it takes.

    Raises:
        InputError: one of them is a head.
    """
    subjects = {s.name: s for pair in pairs for s in (pair.moving, pair.fixed)}
    places, warm = {}, False
    for name, subject in subjects.items():
        path, known = out / "scans" / f"{name}.json", dict[str, Any]()
        with suppress(OSError, ValueError):
            known = json.loads(path.read_text(encoding="utf-8"))
        digest = (origin(subject.path) or {})["sha256"]
        now = {"sha256": digest, "threads": terms.threads, "alone": terms.alone}
        if not now.items() <= known.items():
            if not warm:
                _place(subject, terms.threads)
                warm = True
            is_it = "template_to_scan" in known and known.get("sha256", digest) == digest
            pose = {"template_to_scan": known["template_to_scan"]} if is_it else {}
            known = _place(subject, terms.threads) | pose | now
            write_record(path, known)
        places[name] = known
    return places


def _place(subject: Subject, threads: int) -> dict[str, Any]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return _examined(subject)
    finally:
        torch.set_num_threads(before)


def _examined(subject: Subject) -> dict[str, Any]:
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
    if entry.weights is not None:
        model = model_of(entry.weights)
        return about | {"weights": entry.weights, "weights_sha256": model.sha256}
    package = METHODS[entry.method].package if entry.method in METHODS else None
    return about | ({"package": f"{package} {version(package)}"} if package else {})


def _joined(record: dict[str, Any], out: Path, sheet: Sheet) -> dict[str, Any]:
    """The record with what the one in the folder says of methods and scans of earlier calls.

    Raises:
        InputError: there are rows of a method or a scan of that name that was another one.
    """
    if not sheet.pairs:
        return record
    before = json.loads((out / BENCHMARK).read_text(encoding="utf-8"))
    named = {row[column] for row in sheet.pairs for column in ("method", "moving", "fixed")}
    for part in ("methods", "inputs"):
        earlier = before.get(part, {})
        for name in named & earlier.keys() & record[part].keys():
            _check_same(f"output {out}: its rows of {name}", earlier[name], record[part][name])
        record[part] = earlier | record[part]
    machines = [*before.get("earlier_machines", []), before.get("machine")]
    others = [m for m in machines if m and m != record["machine"]]
    record["versions"] = before.get("versions", {}) | record["versions"]
    return record | ({"earlier_machines": others} if others else {})


def _check_same(rows: str, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Compare weights and package of a method, or the files of a scan; paths may have changed."""
    for key in ("weights_sha256", "package", "image", "labels", "landmarks"):
        was, is_ = (
            x.get(key, {}).get("sha256") if isinstance(x.get(key), dict) else x.get(key)
            for x in (before, now)
        )
        if key in before and key in now and was != is_:
            what = key.partition("_")[0]
            raise InputError(
                f"{rows} were made with another {what} ({str(was)[:24]}; now {str(is_)[:24]}): use "
                f"--overwrite to begin anew, or another folder"
            )


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
    _clear(job.place)  # of an earlier run, which is not to be taken for what this one finds
    path = os.pathsep.join(os.path.abspath(folder) for folder in sys.path)
    words = [sys.executable, "-u", "-c", _WORKER, str(job.save()), str(os.getpid()), path]
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
    said: dict[str, Any] = {}
    with suppress(OSError, ValueError):
        said = json.loads((job.place / RECORD).read_text())
    if code is None:
        record: dict[str, Any] = {
            "status": "time limit",
            "reason": f"stopped after {limit:g} s",
        }
    elif code != 0 or "seconds" not in said:
        record = {"status": "failed", "reason": said.get("reason") or _last_words(log, code)}
    else:
        record = {"status": "ok", "reason": ""} | said
    record |= {"process_s": took, "threads": job.threads, "alone": alone}
    write_record(job.place / RECORD, record)
    return record


# Modules are where they are for us, also those of the user in the folder that we are in; in
# PYTHONPATH that would reach the interpreters of other tools.
_WORKER = (
    "import os, sys; sys.path[:] = sys.argv.pop().split(os.pathsep); "
    "from voxwarp.benchmark.baselines import main; main()"
)


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
        return _signal(-code)
    if code == 0:
        return "it ended without an error before it was done"
    lines = log.read_text(errors="replace").strip().splitlines() or [f"exit code {code}"]
    return " ".join(lines[-1].split())[:200]


def _signal(number: int) -> str:
    known = {one.value: one.name for one in signal.Signals}
    killed = " (by the system, where memory runs out)" if number == signal.SIGKILL else ""
    return f"ended by signal {known.get(number, number)}{killed}"
