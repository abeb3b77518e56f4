"""Score a model on a list of pairs: rows of numbers, and a record of where they come from."""

import logging
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from .._device import device_name
from .._lock import lock_folder
from .._meter import Meter
from .._provenance import machine, versions
from ..data.pairs import Pair, couples
from ..errors import InputError
from ..networks.model import Model
from ..networks.refine import Refinement
from ..preparation.settings import DEFAULTS, Preparation
from ..registration.deform import check_smoothness, check_smoothness_applies
from ..registration.register import register
from ..registration.result import Registration
from ..runtime import DEFAULT_RUNTIME, Runtime
from .folder import open_results
from .loaded_pair import load_pair
from .protocol import Protocol
from .record import EVALUATE, earlier_machines, inputs_of, read_record, write_record
from .result_files import ResultFiles, failed_row
from .rows import REFINE, Row
from .scoring import ScoredTransform, score_registration
from .summary import format_row

_log = logging.getLogger(__name__)


def evaluate(
    pairs: Sequence[Pair],
    model: str | os.PathLike[str] | Model,
    out: str | os.PathLike[str],
    *,
    protocol: Protocol,
    preparation: Preparation = DEFAULTS,
    refine: bool | Refinement = False,
    smoothness: float | None = None,
    runtime: Runtime = DEFAULT_RUNTIME,
    overwrite: bool = False,
    retry: bool = False,
) -> list[Row]:
    """Register every pair with a model, as ``register`` does, and write the scores.

    The folder gets ``pairs.csv`` (one row per pair), ``structures.csv`` (one row per pair and
    structure) and ``evaluate.json``, the record of inputs, weights, versions and settings. An
    interrupted evaluation continues with the missing pairs.

    Times are those of the stages of ``register`` within one process. They cannot be compared
    with those of a benchmark, which starts a process for each run, so the rows are marked as not
    ``timed`` and tables leave their times out.

    Args:
        pairs: the pairs, from ``read_pairs``.
        model: name of an installed model, a model's folder, or a loaded model.
        out: folder for the results.
        protocol: which structures count, and how labels are resampled.
        preparation, smoothness: see ``register``.
        refine: see ``register``; the method is then called MODEL+refine in the rows.
        runtime: its progress callback gets one line per pair. With a cache, ``affine_s`` is the
            time of the examination that filled it, and ``whole_s`` is unknown.
        overwrite: delete earlier rows and start again.
        retry: register failed pairs again.

    Returns:
        The rows of all pairs in the folder.

    Raises:
        InputError: an input is missing, or the folder holds the rows of another evaluation.
    """
    target, out = runtime.torch_device(), Path(out)
    loaded = model if isinstance(model, Model) else Model.load(model, target)
    method = _Method(loaded, preparation, Refinement.from_value(refine), smoothness, runtime)
    check_smoothness(smoothness)
    check_smoothness_applies(loaded, smoothness, refined=method.refinement is not None)
    settings: dict[str, Any] = {
        "model": {
            "name": loaded.name,
            "weights_sha256": loaded.sha256,
            "settings_sha256": loaded.settings_sha256,
            "card": loaded.card,
        },
        "protocol": protocol.described(),
        "inputs": inputs_of(pairs),
        "versions": versions(),
        **method.settings(),
    }
    threads = runtime.threads or torch.get_num_threads()
    device_columns = {"device": device_name(target), "threads": threads, "timed": "no"}
    with lock_folder(out):
        results = open_results(out, EVALUATE, settings, overwrite=overwrite)
        record = settings | _earlier_record(out / EVALUATE, results)
        if retry:
            results.drop_failures(method.name, pairs)
        if not results.pairs:
            # Before the first row: without a record, nobody knows which command wrote the rows.
            write_record(out / EVALUATE, record)
        warm_up = math.nan
        for couple in couples(pairs):
            todo = [pair for pair in couple if not results.has(method.name, pair)]
            if not todo:
                continue
            if math.isnan(warm_up):  # the first run of a network takes longer than later ones
                record["warm_up_s"] = warm_up = method.warm_up_seconds(todo[0])
            for pair, row, structures, meter in _scores(couple, todo, protocol, method):
                stages = {"seconds": meter.seconds, "memory_mb": meter.memory_mb}
                record["stages"]["_to_".join(pair.key)] = stages
                results.add(method.name, row | device_columns, structures)
                write_record(out / EVALUATE, record | {"pairs": results.pairs})
                if runtime.progress:
                    runtime.progress(format_row(results.pairs[-1]))
        return results.pairs


@dataclass(frozen=True, eq=False)
class _Method:
    """A model and the settings with which it registers pairs."""

    model: Model
    preparation: Preparation
    refinement: Refinement | None
    smoothness: float | None
    runtime: Runtime

    @property
    def name(self) -> str:
        """The method's name in rows."""
        return self.model.name + (REFINE if self.refinement else "")

    def settings(self) -> dict[str, Any]:
        """The settings that differ from the defaults, for the record."""
        changed: dict[str, Any] = {"refine": asdict(self.refinement)} if self.refinement else {}
        changed |= {} if self.smoothness is None else {"smoothness": self.smoothness}
        if self.preparation != DEFAULTS:
            changed["preparation"] = asdict(self.preparation)
        return changed

    def register(self, pair: Pair) -> tuple[Registration | str, Meter]:
        """The registration, or the reason why it failed; time and memory of its stages."""
        meter = Meter()
        try:
            result = register(
                pair.moving.path,
                pair.fixed.path,
                model=self.model,
                preparation=self.preparation,
                refine=self.refinement or False,
                smoothness=self.smoothness,
                runtime=replace(self.runtime, progress=meter.start),
            )
            return result, meter
        except Exception as error:  # the other pairs still run
            _log.info("%s -> %s failed", *pair.key, exc_info=True)
            return _reason(error), meter
        finally:
            meter.stop()

    def warm_up_seconds(self, pair: Pair) -> float:
        """Seconds of a registration whose result is not used; NaN if it fails."""
        result, meter = self.register(pair)
        return sum(meter.seconds.values()) if isinstance(result, Registration) else math.nan


def _earlier_record(path: Path, results: ResultFiles) -> dict[str, Any]:
    """The parts of the record that belong to the earlier rows, and this machine."""
    before = read_record(path) if results.pairs else {}
    here = machine()
    return {
        "machine": here,
        **earlier_machines(before, here),
        "warm_up_s": before.get("warm_up_s"),
        "stages": before.get("stages", {}),
        "pairs": results.pairs,
    }


def _scores(
    couple: Sequence[Pair], todo: Iterable[Pair], protocol: Protocol, method: _Method
) -> Iterator[tuple[Pair, Row, list[Row], Meter]]:
    """Rows of a pair and its reverse; a generator, so that registrations are freed at its end."""
    registrations = {pair.key: method.register(pair) for pair in couple}
    for pair in todo:
        result, meter = registrations[pair.key]
        reverse, _ = registrations.get(pair.swapped_key, (None, None))
        row, structures = _score(pair, result, reverse, protocol)
        if isinstance(result, Registration) and row["status"] == "ok":
            row |= _times(result, meter, method.runtime.cache)
        yield pair, row, structures, meter


def _score(
    pair: Pair, result: Registration | str, reverse: Registration | str | None, protocol: Protocol
) -> tuple[Row, list[Row]]:
    """The scores of a registration, or the row of a failed one."""
    if isinstance(result, str):
        return failed_row(pair, "failed", result, protocol.labels), []
    try:
        mask = result.fixed_mask
        loaded = load_pair(pair, None if mask is None else mask.data != 0)
        scored = ScoredTransform(result.transform, result.warp, result.inverse)
        back = reverse.transform if isinstance(reverse, Registration) else None
        return score_registration(loaded, scored, protocol, reverse=back)
    except Exception as error:  # for example, of labels or landmarks
        _log.info("%s -> %s cannot be scored", *pair.key, exc_info=True)
        return failed_row(pair, "failed", _reason(error), protocol.labels), []


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"


def _times(result: Registration, meter: Meter, cache: bool) -> Row:
    """The columns of time and memory; a user does not wait for the stage "measure"."""
    seconds = {stage: value for stage, value in meter.seconds.items() if stage != "measure"}
    sides = [result.metrics["preparation"][side] for side in ("moving", "fixed")]
    affine = sum(sum(side["seconds"].values()) for side in sides)
    return {
        "affine_s": affine,
        "deform_s": sum(seconds.get(stage, 0.0) for stage in _DEFORMABLE),
        # With a cache the scans may have been examined before, which is then missing in the sum.
        "whole_s": math.nan if cache and affine else sum(seconds.values()),
        "memory_mb": max(meter.memory_mb.get(stage, 0.0) for stage in _DEFORMABLE),
    }


_DEFORMABLE = "network", "refine", "compose"  # stages of ``register``
