"""A model on every pair of a list: rows of numbers, and a record of where they come from."""

import logging
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ..data.pairs import Pair, couples
from ..device import described
from ..errors import InputError
from ..meter import Meter
from ..networks.model import Model
from ..networks.refine import Refinement
from ..preparation.settings import DEFAULTS, Preparation
from ..provenance import machine, versions
from ..registration.deform import check_obeyed, check_smoothness
from ..registration.register import register
from ..registration.result import Registration
from ..runtime import DEFAULT_RUNTIME, Runtime
from .case import read_case
from .folder import alone_in, begin
from .protocol import Protocol
from .record import EVALUATE, earlier_machines, inputs_of, read_record, write_record
from .rows import REFINE, Row
from .scoring import ScoredTransform, measure
from .sheet import Sheet, failure
from .summary import line

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
    """Register every pair with a model, as ``register`` does, and write its numbers.

    Its seconds are those of ``register``'s stages inside one process, which are no process of
    their own as a benchmark's are: rows say that they are not ``timed``, and no table has them.

    The folder gets ``pairs.csv``, ``structures.csv`` and ``evaluate.json`` with where they come
    from. An evaluation that was interrupted goes on with the pairs that are missing.

    Args:
        pairs: from ``pairs.read_pairs``.
        model: name of an installed model, a model's folder, or a model.
        out: folder of the results.
        protocol: what is counted.
        preparation, smoothness: see ``register``.
        refine: see ``register``; the method is called MODEL+refine then.
        runtime: its progress is called with a line for every pair. With a cache, the time of
            what comes from there is that of its finding, and that of the whole is left out.
        overwrite: begin anew.
        retry: try again what failed.

    Returns:
        The rows of the pairs.

    Raises:
        InputError: an input is missing, or the folder holds rows of another evaluation.
    """
    target, out = runtime.torch_device(), Path(out)
    loaded = model if isinstance(model, Model) else Model.load(model, target)
    way = _Way(loaded, preparation, Refinement.of(refine), smoothness, runtime)
    check_smoothness(smoothness)
    check_obeyed(loaded, smoothness, refined=way.refinement is not None)
    settings: dict[str, Any] = {
        "model": {"name": loaded.name, "weights_sha256": loaded.sha256, "card": loaded.card},
        "protocol": protocol.described(),
        "inputs": inputs_of(pairs),
        "versions": versions(),
        **way.described(),
    }
    threads = runtime.threads or torch.get_num_threads()
    on = {"device": described(target), "threads": threads, "timed": "no"}
    with alone_in(out):
        sheet = begin(out, EVALUATE, settings, overwrite=overwrite)
        record = settings | _so_far(out / EVALUATE, sheet)
        if retry:
            sheet.forget_failures(way.name, pairs)
        if not sheet.pairs:
            write_record(out / EVALUATE, record)  # rows without it would be anybody's
        warm_up = math.nan
        for couple in couples(pairs):
            todo = [pair for pair in couple if not sheet.holds(way.name, pair)]
            if not todo:
                continue
            if math.isnan(warm_up):  # the first run of a network takes longer than the others
                record["warm_up_s"] = warm_up = way.seconds(todo[0])
            for pair, row, structures, meter in _scores(couple, todo, protocol, way):
                took = {"seconds": meter.seconds, "memory_mb": meter.memory_mb}
                record["stages"]["_to_".join(pair.key)] = took
                sheet.add(way.name, row | on, structures)
                write_record(out / EVALUATE, record | {"pairs": sheet.pairs})
                if runtime.progress:
                    runtime.progress(line(sheet.pairs[-1]))
        return sheet.pairs


@dataclass(frozen=True, eq=False)
class _Way:
    """How pairs are registered."""

    model: Model
    preparation: Preparation
    refinement: Refinement | None
    smoothness: float | None
    runtime: Runtime

    @property
    def name(self) -> str:
        """Of the method, in rows."""
        return self.model.name + (REFINE if self.refinement else "")

    def described(self) -> dict[str, Any]:
        """What is not as it is by default, for the record."""
        knobs: dict[str, Any] = {"refine": asdict(self.refinement)} if self.refinement else {}
        knobs |= {} if self.smoothness is None else {"smoothness": self.smoothness}
        if self.preparation != DEFAULTS:
            knobs["preparation"] = asdict(self.preparation)
        return knobs

    def registered(self, pair: Pair) -> tuple[Registration | str, Meter]:
        """The registration, or why there is none, and what its stages took."""
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
        except Exception as error:  # one pair's trouble is not the others'
            _log.info("%s -> %s failed", *pair.key, exc_info=True)
            return _reason(error), meter
        finally:
            meter.stop()

    def seconds(self, pair: Pair) -> float:
        """Of a registration that is thrown away; NaN where it fails."""
        result, meter = self.registered(pair)
        return sum(meter.seconds.values()) if isinstance(result, Registration) else math.nan


def _so_far(path: Path, sheet: Sheet) -> dict[str, Any]:
    """What a record tells of the rows that are there, and of this machine."""
    before = read_record(path) if sheet.pairs else {}
    here = machine()
    return {
        "machine": here,
        **earlier_machines(before, here),
        "warm_up_s": before.get("warm_up_s"),
        "stages": before.get("stages", {}),
        "pairs": sheet.pairs,
    }


def _scores(
    couple: Sequence[Pair], todo: Iterable[Pair], protocol: Protocol, way: _Way
) -> Iterator[tuple[Pair, Row, list[Row], Meter]]:
    """Rows of the pairs of a couple, and what their stages took; with the end, all is let go."""
    done = {pair.key: way.registered(pair) for pair in couple}
    for pair in todo:
        result, meter = done[pair.key]
        other, _ = done.get(pair.swapped_key, (None, None))
        row, structures = _scored(pair, result, other, protocol)
        if isinstance(result, Registration) and row["status"] == "ok":
            row |= _times(result, meter, way.runtime.cache)
        yield pair, row, structures, meter


def _scored(
    pair: Pair, result: Registration | str, other: Registration | str | None, protocol: Protocol
) -> tuple[Row, list[Row]]:
    """The numbers of a registration, or why there are none; ``other`` is the other way round."""
    if isinstance(result, str):
        return failure(pair, "failed", result, protocol.labels), []
    try:
        mask = result.fixed_mask
        case = read_case(pair, None if mask is None else mask.data != 0)
        found = ScoredTransform(result.transform, result.warp, result.inverse)
        swapped = other.transform if isinstance(other, Registration) else None
        return measure(case, found, protocol, swapped)
    except Exception as error:  # of labels or landmarks, say
        _log.info("%s -> %s cannot be scored", *pair.key, exc_info=True)
        return failure(pair, "failed", _reason(error), protocol.labels), []


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"


def _times(result: Registration, meter: Meter, cache: bool) -> Row:
    """Of the stages of ``register``; measuring is no part of what a user waits for."""
    seconds = {name: took for name, took in meter.seconds.items() if name != "measure"}
    sides = [result.metrics["preparation"][side] for side in ("moving", "fixed")]
    affine = sum(sum(side["seconds"].values()) for side in sides)
    return {
        "affine_s": affine,
        "deform_s": sum(seconds.get(stage, 0.0) for stage in _DEFORMABLE),
        # Of scans that were examined before, perhaps, the whole is not known.
        "whole_s": math.nan if cache and affine else sum(seconds.values()),
        "memory_mb": max(meter.memory_mb.get(stage, 0.0) for stage in _DEFORMABLE),
    }


_DEFORMABLE = "network", "refine", "compose"  # stages of ``register``
