"""A model on every pair of a list: rows of numbers, and a record of where they come from."""

import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..data.pairs import Pair, Subject, couples
from ..device import torch_device
from ..errors import InputError
from ..files import check_readable, check_writable, write_bytes
from ..meter import Meter
from ..networks.model import Model
from ..provenance import machine, origin, versions
from ..registration.registration import Registration, check_adjustable, check_smoothness, register
from .rows import (
    PAIR_COLUMNS,
    PAIRS,
    REFINE,
    STRUCTURE_COLUMNS,
    STRUCTURES,
    WORDS,
    Row,
    read_rows,
    write_rows,
)
from .scoring import Found, Protocol, measure, read_case
from .statistics import mean

EVALUATE, LOCK = "evaluate.json", ".lock"

_COUNTS = "folds", "folds_any", "threads"  # whole numbers, that is
_BLANK = {column: "" if column in WORDS else math.nan for column in PAIR_COLUMNS}

Progress = Callable[[str], None]


# ----------------------------------------------------------------------------------------- Rows


@dataclass
class Sheet:
    """The two files of rows in a folder; what is there already is kept and added to."""

    folder: Path
    pairs: list[Row] = field(default_factory=list)
    structures: list[Row] = field(default_factory=list)

    @classmethod
    def open(cls, folder: Path) -> "Sheet":
        """With the rows that the folder holds; structures of no pair are what a crash left."""
        if not (folder / PAIRS).exists():
            return cls(folder)
        pairs = [_counted(row) for row in read_rows(folder / PAIRS, PAIR_COLUMNS)]
        there = {_key(row) for row in pairs}
        structures = read_rows(folder / STRUCTURES, STRUCTURE_COLUMNS)
        return cls(folder, pairs, [row for row in structures if _key(row) in there])

    def holds(self, method: str, pair: Pair) -> bool:
        """Whether there is a row of this method and pair."""
        return any(_key(row) == (method, *pair.key) for row in self.pairs)

    def add(self, method: str, row: Row, structures: Iterable[Row] = ()) -> None:
        """Add the rows of a pair and write both files, that of the pairs last."""
        self.pairs.append(_BLANK | {"method": method} | row)
        self.structures += [{"method": method} | structure for structure in structures]
        self.write()

    def forget_failures(self, method: str, pairs: Iterable[Pair]) -> None:
        """Drop a method's rows of these pairs that are not "ok"."""
        keys = {(method, *pair.key) for pair in pairs}
        self.pairs = [r for r in self.pairs if r["status"] == "ok" or _key(r) not in keys]

    def write(self) -> None:
        """Write both files, that of the pairs, which is the record, last."""
        write_rows(self.folder / STRUCTURES, STRUCTURE_COLUMNS, self.structures)
        write_rows(self.folder / PAIRS, PAIR_COLUMNS, self.pairs)


def _counted(row: Row) -> Row:
    """A row that was read, with counts as they were before they were written."""
    return row | {c: int(row[c]) for c in _COUNTS if math.isfinite(row[c])}


def _key(row: Row) -> tuple[str, str, str]:
    return row["method"], row["moving"], row["fixed"]


def failure(pair: Pair, status: str, reason: str, labels: str) -> Row:
    """The row of a pair that a method could not do."""
    return {
        "kind": pair.kind,
        "moving": pair.moving.name,
        "fixed": pair.fixed.name,
        "moving_person": pair.moving.person,
        "fixed_person": pair.fixed.person,
        "status": status,
        "reason": " ".join(reason.split())[:200],
        "labels": labels,
    }


def write_record(path: Path, record: dict[str, Any]) -> None:
    """Write JSON with NaN as null, whole or not at all."""
    write_bytes(path, (json.dumps(_finite(record), indent=2) + "\n").encode())


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def inputs_of(pairs: Sequence[Pair]) -> dict[str, Any]:
    """Paths and SHA-256 of all scans, label maps and landmarks, by name of the scan.

    Raises:
        InputError: one of them is not there or cannot be read, or two scans have one name.
    """
    subjects: dict[str, Subject] = {}
    for subject in (s for pair in pairs for s in (pair.moving, pair.fixed)):
        if subjects.setdefault(subject.name, subject) != subject:
            raise InputError(f"pairs: {subject.name!r} stands for two scans, or two of their files")
    files = {
        name: {"image": s.path, "labels": s.labels}
        | ({} if s.landmarks is None else {"landmarks": s.landmarks})
        for name, s in subjects.items()
    }
    for what, path in (item for of_scan in files.values() for item in of_scan.items()):
        if path is not None:
            check_readable(path, "label map" if what == "labels" else what)
    try:
        return {name: {k: origin(p) for k, p in of.items()} for name, of in files.items()}
    except OSError as error:
        raise InputError(f"{error.filename}: cannot be read: {error.strerror}") from error


# ---------------------------------------------------------------------------------------- Model


def evaluate(
    pairs: Sequence[Pair],
    model: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    protocol: Protocol,
    refine: bool | int = False,
    smoothness: float | None = None,
    device: str = "auto",
    cache: bool = True,
    overwrite: bool = False,
    retry: bool = False,
    progress: Progress | None = None,
) -> list[Row]:
    """Register every pair with a model, as ``register`` does, and write its numbers.

    Its seconds are those of ``register``'s stages inside one process, which are no process of
    their own as a benchmark's are: rows say that they are not ``timed``, and no table has them.

    The folder gets ``pairs.csv``, ``structures.csv`` and ``evaluate.json`` with where they come
    from. An evaluation that was interrupted goes on with the pairs that are missing.

    Args:
        pairs: from ``pairs.read_pairs``.
        model: name of an installed model, or a model's folder.
        out: folder of the results.
        protocol: what is counted.
        refine: see ``register``; the method is called MODEL+refine then.
        smoothness: see ``register``.
        device: see ``register``.
        cache: see ``register``; the time of what comes from the cache is that of its finding,
            and that of the whole is left out.
        overwrite: begin anew.
        retry: try again what failed.
        progress: called with a line for every pair.

    Returns:
        The rows of the pairs.

    Raises:
        InputError: an input is missing, or the folder holds rows of another evaluation.
    """
    out, loaded, target = Path(out), Model.load(model), torch_device(device)
    check_smoothness(smoothness)
    check_adjustable(loaded, smoothness, refined=bool(refine))
    knobs: dict[str, Any] = {"refine": refine} if refine else {}
    knobs |= {} if smoothness is None else {"smoothness": smoothness}
    name = loaded.name + (REFINE if refine else "")
    settings: dict[str, Any] = {
        "model": {"name": loaded.name, "weights_sha256": loaded.sha256, "card": loaded.card},
        "protocol": protocol.described(),
        "inputs": inputs_of(pairs),
        "versions": versions(),
        **knobs,
    }
    with alone_in(out):
        sheet = begin(out, EVALUATE, settings, overwrite=overwrite)
        record = settings | _so_far(out / EVALUATE, sheet)
        if retry:
            sheet.forget_failures(name, pairs)
        if not sheet.pairs:
            write_record(out / EVALUATE, record)  # rows without it would be anybody's
        options: dict[str, Any] = {"model": model, "device": device, "cache": cache}
        options |= knobs
        on = {
            "device": "cpu" if target.type == "cpu" else torch.cuda.get_device_name(target),
            "threads": torch.get_num_threads(),
            "timed": "no",
        }
        warm_up = math.nan
        for couple in couples(pairs):
            todo = [pair for pair in couple if not sheet.holds(name, pair)]
            if not todo:
                continue
            if math.isnan(warm_up):  # the first run of a network takes longer than the others
                record["warm_up_s"] = warm_up = _warm_up(todo[0], options)
            for pair, row, structures, meter in _scores(couple, todo, protocol, options):
                record["stages"]["_to_".join(pair.key)] = {
                    "seconds": meter.seconds,
                    "memory_mb": meter.memory_mb,
                }
                sheet.add(name, row | on, structures)
                write_record(out / EVALUATE, record | {"pairs": sheet.pairs})
                if progress:
                    progress(line(sheet.pairs[-1]))
        return sheet.pairs


def _so_far(path: Path, sheet: Sheet) -> dict[str, Any]:
    """What a record tells of the rows that are there, and of this machine."""
    before = _read_record(path) if sheet.pairs else {}
    here, last = machine(), before.get("machine")
    earlier = [m for m in [*before.get("earlier_machines", []), last] if m and m != _finite(here)]
    return {
        "machine": here,
        **({"earlier_machines": earlier} if earlier else {}),
        "warm_up_s": before.get("warm_up_s"),
        "stages": before.get("stages", {}),
        "pairs": sheet.pairs,
    }


def _warm_up(pair: Pair, options: dict[str, Any]) -> float:
    """Seconds of a registration that is thrown away; NaN where it fails."""
    result, meter = _registered(pair, options)
    return sum(meter.seconds.values()) if isinstance(result, Registration) else math.nan


def _scores(
    couple: Sequence[Pair], todo: Iterable[Pair], protocol: Protocol, options: dict[str, Any]
) -> Iterator[tuple[Pair, Row, list[Row], Meter]]:
    """Rows of the pairs of a couple, and what their stages took; with the end, all is let go."""
    done = {pair.key: _registered(pair, options) for pair in couple}
    for pair in todo:
        result, meter = done[pair.key]
        other, _ = done.get(pair.swapped_key, (None, None))
        row, structures = _scored(pair, result, other, protocol)
        if isinstance(result, Registration) and row["status"] == "ok":
            row |= _times(result, meter, options["cache"])
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
        found = Found(result.transform, result.warp, result.inverse)
        swapped = other.transform if isinstance(other, Registration) else None
        return measure(case, found, protocol, swapped)
    except Exception as error:  # of labels or landmarks, say
        return failure(pair, "failed", _reason(error), protocol.labels), []


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"


def _registered(pair: Pair, options: dict[str, Any]) -> tuple[Registration | str, Meter]:
    """The registration, or why there is none, and what its stages took."""
    meter = Meter()
    try:
        return register(pair.moving.path, pair.fixed.path, progress=meter.start, **options), meter
    except Exception as error:  # one pair's trouble is not the others'
        return _reason(error), meter
    finally:
        meter.stop()


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


@contextmanager
def alone_in(out: Path) -> Iterator[None]:
    """Keep a second command out of a folder of results: each would write over the other's rows.

    Raises:
        InputError: another one is at work in it, or it cannot be written.
    """
    check_writable(out)
    out.mkdir(parents=True, exist_ok=True)
    with open(out / LOCK, "wb") as stream:
        try:
            import fcntl

            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f"output {out}: another command is at work in it") from error
        except (ImportError, OSError):  # a system or a file system without locks
            pass
        try:
            yield
        finally:
            (out / LOCK).unlink(missing_ok=True)


def begin(out: Path, name: str, settings: dict[str, Any], *, overwrite: bool) -> Sheet:
    """The rows that a folder holds, if they were made with the same settings.

    Args:
        out: folder of the results.
        name: of the record in it.
        settings: that rows in one file have to share; as the record has them.
        overwrite: drop the rows that are there.

    Raises:
        InputError: it holds rows that were made otherwise, or cannot be written.
    """
    check_writable(out)
    if (out / PAIRS).exists() and not (out / name).exists():
        raise InputError(f"output {out}: it holds rows of another command: use another folder")
    if overwrite:
        for there in (PAIRS, STRUCTURES, name):
            (out / there).unlink(missing_ok=True)
    if (out / name).exists():
        before = _read_record(out / name)
        other = [k for k, v in _finite(settings).items() if before.get(k) != v]
        if other:
            raise InputError(
                f"output {out}: its rows were made with other {' and '.join(other)}: use "
                f"--overwrite to begin anew, or another folder"
            )
    return Sheet.open(out)


def _read_record(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"record {path}: cannot be read ({error})") from error
    if not isinstance(record, dict):
        raise InputError(f"record {path}: a JSON object is wanted")
    return record


def line(row: Row) -> str:
    """A row in a few words."""
    words = f"{row['method']}: {row['moving']} -> {row['fixed']}"
    if row["status"] != "ok":
        return f"{words}: {row['status']} ({row['reason']})"
    parts = [
        f"Dice {row['dice']:.3f}" if not math.isnan(row.get("dice", math.nan)) else "",
        f"folds {row['folds']}",
        f"local NCC {row['local_ncc']:.3f}",
        f"{row['deform_s']:.2f} s" if not math.isnan(row.get("deform_s", math.nan)) else "",
    ]
    return f"{words}: {', '.join(filter(None, parts))}"


def summary(rows: Sequence[Row]) -> list[str]:
    """A line of means for every method and kind of pairs."""
    lines = []
    for method, kind in dict.fromkeys((row["method"], row["kind"]) for row in rows):
        all_of = [row for row in rows if (row["method"], row["kind"]) == (method, kind)]
        done = [row for row in all_of if row["status"] == "ok"]
        parts = [f"{len(done)} of {len(all_of)} pairs"]
        for column, words in _SUMMARY.items():
            if not math.isnan(value := mean(done, column)):
                parts.append(words.format(value))
        lines.append(f"{method}, {kind}: {', '.join(parts)}")
    return lines


_SUMMARY = {
    "dice": "Dice {:.4f}",
    "dice_regions": "Dice-regions {:.4f}",
    "hd95_mm": "HD95 {:.2f} mm",
    "tre_mm": "TRE {:.2f} mm",
    "folds": "folds {:.1f}",
    "local_ncc": "local NCC {:.3f}",
    "deform_s": "deformable stage {:.2f} s",
    "memory_mb": "{:.0f} MB",
}
