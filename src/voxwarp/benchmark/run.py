"""Run every method on every pair, one run at a time, each in a process of its own."""

import logging
import math
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from .._device import torch_device
from .._json import read_json
from .._layout import AFFINE, INVERSE_WARP, WARP
from .._lock import lock_folder
from ..data.pairs import Pair, couples
from ..errors import InputError
from ..evaluation.folder import open_results
from ..evaluation.landmarks import read_landmarks
from ..evaluation.loaded_pair import label_values_in, load_pair
from ..evaluation.protocol import Protocol
from ..evaluation.record import BENCHMARK, inputs_of, write_record
from ..evaluation.result_files import failed_row
from ..evaluation.rows import Row
from ..evaluation.scoring import ScoredTransform, score_registration
from ..evaluation.summary import format_row
from ..runtime import ProgressCallback
from ..space.formats import read_affine, read_warp
from ..space.transform import Chain, Transform
from .affine_start import align_scans
from .job import JOB, RECORD, Job
from .process import execute, remove_images
from .record import merge_records, provenance
from .selection import SelectedMethod, is_file_name

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunOptions:
    """How all methods are run.

    Args:
        threads: number of threads that each may use.
        limit: seconds after which a run is stopped.
        alone: nothing else runs on the machine, so that times count; quick methods then run
            several times.
        device: device of networks.
        keep: keep the warps.
    """

    threads: int
    limit: float = 3600.0
    alone: bool = True
    device: str = "cpu"
    keep: bool = False


def benchmark(
    pairs: Sequence[Pair],
    methods: Sequence[SelectedMethod],
    out: Path,
    *,
    protocol: Protocol,
    options: RunOptions,
    overwrite: bool = False,
    retry: bool = False,
    progress: ProgressCallback | None = None,
) -> list[Row]:
    """Run every method on every pair, from the same affine map, and write the scores.

    The folder gets ``pairs.csv``, ``structures.csv``, ``benchmark.json`` and, for every run,
    ``transforms/METHOD/PAIR/run.json`` and its log. An interrupted benchmark continues where it
    stopped, and methods and pairs can be added later. A method that fails on a pair, or takes too
    long, gets a row that says so. Kept warps whose rows are missing are scored again; threads
    and times then come from their run.json.

    Args:
        pairs: pairs of skull-stripped brains, from ``read_pairs``.
        methods: the methods, from ``select_methods``.
        out: folder for the results.
        protocol: which structures count, and how labels are resampled.
        options: how the methods are run.
        overwrite: delete earlier rows; failed and stopped runs are repeated.
        retry: repeat failed and stopped runs.
        progress: called with one line per pair.

    Returns:
        The rows of all pairs in the folder.

    Raises:
        InputError: an input is missing or is a head, the folder holds rows made in another way,
            or another benchmark is using it.
    """
    _check(pairs)
    if any(method.weights for method in methods):
        torch_device(options.device)
    with lock_folder(out):
        # Everything that can raise an error comes before rows are deleted.
        record = {"protocol": protocol.described()} | provenance(pairs, methods)
        starts = align_scans(pairs, out / "scans", threads=options.threads, alone=options.alone)
        results = open_results(
            out, BENCHMARK, {"protocol": protocol.described()}, overwrite=overwrite
        )
        record = merge_records(record, out, results)
        write_record(out / BENCHMARK, record)
        for method in methods:
            about = record["methods"][method.name]
            jobs = {pair.key: _job(pair, method, about, out, starts, options) for pair in pairs}
            if retry:
                results.drop_failures(method.name, pairs)
            for couple in couples(pairs):
                todo = [pair for pair in couple if not results.has(method.name, pair)]
                if not todo:
                    continue
                # For the consistency of both directions, a finished pair counts if it was kept.
                needed = [p for p in couple if p in todo or (jobs[p.key].path / WARP).exists()]
                runs = {p.key: _run(jobs[p.key], options, retry or overwrite) for p in needed}
                for pair in todo:
                    row, structures = _score(pair, runs, protocol)
                    affine = sum(starts[s.name]["seconds"] for s in (pair.fixed, pair.moving))
                    row |= _times(affine, runs[pair.key].record, options)
                    results.add(method.name, row, structures)
                    if progress:
                        progress(format_row(results.pairs[-1]))
                if not options.keep:
                    for run in runs.values():
                        remove_images(run.job.path)
        return results.pairs


def _check(pairs: Sequence[Pair]) -> None:
    """Find errors now that would otherwise stop the benchmark after hours.

    Raises:
        InputError: a scan's name cannot be a file's, or labels or landmarks cannot be read.
    """
    inputs_of(pairs)
    for scan in {s for pair in pairs for s in (pair.moving, pair.fixed)}:
        if not is_file_name(scan.name):
            raise InputError(
                f"pairs: the scan name {scan.name!r} cannot name a folder of results; give the "
                "scan a shorter name without slashes"
            )
        if scan.landmarks is not None:
            read_landmarks(scan.landmarks)
    if len({"_to_".join(pair.key) for pair in pairs}) < len(pairs):
        raise InputError(
            "pairs: the names of two pairs give the same folder MOVING_to_FIXED; rename the scans"
        )
    label_values_in(pairs)


class FinishedRun(NamedTuple):
    """A job and its run.json."""

    job: Job
    record: dict[str, Any]


def _job(
    pair: Pair,
    method: SelectedMethod,
    about: dict[str, Any],
    out: Path,
    starts: dict[str, Any],
    options: RunOptions,
) -> Job:
    return Job(
        method=method.method,
        fixed=str(pair.fixed.path.absolute()),
        moving=str(pair.moving.path.absolute()),
        template_to_fixed=starts[pair.fixed.name]["template_to_scan"],
        template_to_moving=starts[pair.moving.name]["template_to_scan"],
        folder=str((out / "transforms" / method.name / "_to_".join(pair.key)).absolute()),
        threads=options.threads,
        weights=method.weights,
        device=options.device,
        repeat=options.alone,
        limit=options.limit,
        weights_sha256=about.get("weights_sha256", ""),
        settings_sha256=about.get("settings_sha256", ""),
        package=about.get("package", ""),
    )


def _run(job: Job, options: RunOptions, retry: bool) -> FinishedRun:
    """Run a job, or take the result of an earlier run."""
    with suppress(OSError, ValueError):
        record = read_json(job.path / RECORD)
        complete = record.get("status") == "ok" and (job.path / WARP).exists()
        failed = record.get("status", "ok") != "ok" and not retry
        if (complete or failed) and _is_result_of(job):
            _log.info("%s: using the result of an earlier run", job.path)
            return FinishedRun(job, record)
    return FinishedRun(job, execute(job, limit=options.limit, alone=options.alone))


def _is_result_of(job: Job) -> bool:
    """Whether the files in a job's folder come from this method, affine map and weights."""
    now, before = asdict(job), read_json(job.path / JOB)
    same = ("method", "template_to_fixed", "template_to_moving")
    same_if_recorded = ("weights_sha256", "settings_sha256", "package")
    return all(before.get(key) == now[key] for key in same) and all(
        before.get(key, "") in ("", now[key]) for key in same_if_recorded
    )


def _score(
    pair: Pair, runs: dict[tuple[str, str], FinishedRun], protocol: Protocol
) -> tuple[Row, list[Row]]:
    """Score a pair; if its files cannot be used, its run.json then says that it failed."""
    job, record = runs[pair.key]
    if record["status"] == "ok":
        try:
            reverse = _reverse_transform(runs.get(pair.swapped_key))
            return score_registration(load_pair(pair), _result(job), protocol, reverse=reverse)
        except Exception as error:  # for example, of a field that is incomplete
            _log.info("%s: the result cannot be scored", job.path, exc_info=True)
            kind = "" if isinstance(error, InputError) else f"{type(error).__name__}: "
            reason = f"{kind}{error}".replace(f"{job.path}{os.sep}", "")
            record |= {"status": "failed", "reason": reason}
            write_record(job.path / RECORD, record)
    return failed_row(pair, record["status"], record["reason"], protocol.labels), []


def _reverse_transform(run: FinishedRun | None) -> Transform | None:
    """The transform of the pair in the other direction; None if it failed or cannot be read."""
    with suppress(InputError, ValueError):
        return _result(run.job).transform if run and run.record["status"] == "ok" else None
    return None


def _times(affine: float, run: dict[str, Any], options: RunOptions) -> Row:
    """The columns of time, memory and device; ``whole_s`` does not include repetitions.

    The result of an earlier run counts as timed if it and the affine stage ran alone, with the
    same number of threads.
    """
    is_timed = (run["alone"], run["threads"]) == (True, options.threads) and options.alone
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
        "timed": "yes" if is_timed else "no",
    }


def _result(job: Job) -> ScoredTransform:
    """Read the result of a method from its folder."""
    affine, warp = read_affine(job.path / AFFINE), read_warp(job.path / WARP)
    inverse = None
    if (job.path / INVERSE_WARP).exists():
        inverse = Chain([affine.inverse(), read_warp(job.path / INVERSE_WARP)])
    return ScoredTransform(Chain([warp, affine]), warp, inverse)
