"""Methods side by side: each on every pair, one at a time, in a process of its own."""

import json
import logging
import math
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ..data.pairs import Pair, couples
from ..device import torch_device
from ..errors import InputError
from ..evaluation.case import read_case, values_of
from ..evaluation.folder import alone_in, begin
from ..evaluation.landmarks import read_landmarks
from ..evaluation.protocol import Protocol
from ..evaluation.record import BENCHMARK, inputs_of, write_record
from ..evaluation.rows import Row
from ..evaluation.scoring import ScoredTransform, measure
from ..evaluation.sheet import failure
from ..evaluation.summary import line
from ..layout import AFFINE, INVERSE_WARP, WARP
from ..runtime import ProgressCallback
from ..space.formats import read_affine, read_warp
from ..space.transform import Chain, Transform
from .affine_start import places_of
from .entries import Entry, names_a_file
from .job import JOB, RECORD, Job
from .process import execute, remove_images
from .record import joined, provenance

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunOptions:
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


def benchmark(
    pairs: Sequence[Pair],
    methods: Sequence[Entry],
    out: Path,
    *,
    protocol: Protocol,
    options: RunOptions,
    overwrite: bool = False,
    retry: bool = False,
    progress: ProgressCallback | None = None,
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
        options: what each method gets.
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
        torch_device(options.device)
    with alone_in(out):
        # All that may be refused comes before rows are dropped.
        record = {"protocol": protocol.described()} | provenance(pairs, methods)
        places = places_of(pairs, out / "scans", threads=options.threads, alone=options.alone)
        sheet = begin(out, BENCHMARK, {"protocol": protocol.described()}, overwrite=overwrite)
        record = joined(record, out, sheet)
        write_record(out / BENCHMARK, record)
        for entry in methods:
            about = record["methods"][entry.name]
            jobs = {pair.key: _job(pair, entry, about, out, places, options) for pair in pairs}
            if retry:
                sheet.forget_failures(entry.name, pairs)
            for couple in couples(pairs):
                todo = [pair for pair in couple if not sheet.holds(entry.name, pair)]
                if not todo:
                    continue
                # One that has its row is there to be compared with, if its files still are.
                needed = [p for p in couple if p in todo or (jobs[p.key].place / WARP).exists()]
                runs = {p.key: _run(jobs[p.key], options, retry or overwrite) for p in needed}
                for pair in todo:
                    row, structures = _measured(pair, runs, protocol)
                    affine = sum(places[s.name]["seconds"] for s in (pair.fixed, pair.moving))
                    row |= _times(affine, runs[pair.key].record, options)
                    sheet.add(entry.name, row, structures)
                    if progress:
                        progress(line(sheet.pairs[-1]))
                if not options.keep:
                    for run in runs.values():
                        remove_images(run.job.place)
        return sheet.pairs


def _check(pairs: Sequence[Pair]) -> None:
    """What would come up after hours: names that are no files', labels that do not fit.

    Raises:
        InputError: there is such a thing, or a label map or landmarks cannot be read.
    """
    inputs_of(pairs)
    for scan in {s for pair in pairs for s in (pair.moving, pair.fixed)}:
        if not names_a_file(scan.name):
            raise InputError(f"pairs: scan {scan.name!r}: that cannot be a file's name")
        if scan.landmarks is not None:
            read_landmarks(scan.landmarks)
    if len({"_to_".join(pair.key) for pair in pairs}) < len(pairs):
        raise InputError("pairs: two of them would have one folder: give the scans other names")
    values_of(pairs)


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
    options: RunOptions,
) -> Job:
    return Job(
        method=entry.method,
        fixed=str(pair.fixed.path.absolute()),
        moving=str(pair.moving.path.absolute()),
        template_to_fixed=places[pair.fixed.name]["template_to_scan"],
        template_to_moving=places[pair.moving.name]["template_to_scan"],
        folder=str((out / "transforms" / entry.name / "_to_".join(pair.key)).absolute()),
        threads=options.threads,
        weights=entry.weights,
        device=options.device,
        repeat=options.alone,
        limit=options.limit,
        weights_sha256=about.get("weights_sha256", ""),
        package=about.get("package", ""),
    )


def _run(job: Job, options: RunOptions, retry: bool) -> Done:
    """A job that is done, now or before."""
    with suppress(OSError, ValueError):
        record = json.loads((job.place / RECORD).read_text(encoding="utf-8"))
        whole = record.get("status") == "ok" and (job.place / WARP).exists()
        failed = record.get("status", "ok") != "ok" and not retry
        if (whole or failed) and _is_of(job):
            _log.info("%s: what an earlier run left is taken", job.place)
            return Done(job, record)
    return Done(job, execute(job, limit=options.limit, alone=options.alone))


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
            _log.info("%s: what is there cannot be scored", job.place, exc_info=True)
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


def _times(affine: float, run: dict[str, Any], options: RunOptions) -> Row:
    """Columns of a run: ``whole_s`` is that of one without repetitions.

    Kept files of another run are timed if the affine stage was measured as they were.
    """
    alike = (run["alone"], run["threads"]) == (True, options.threads) and options.alone
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


def _found(job: Job) -> ScoredTransform:
    """What a method left in its folder."""
    affine, warp = read_affine(job.place / AFFINE), read_warp(job.place / WARP)
    inverse = None
    if (job.place / INVERSE_WARP).exists():
        inverse = Chain([affine.inverse(), read_warp(job.place / INVERSE_WARP)])
    return ScoredTransform(Chain([warp, affine]), warp, inverse)
