"""The record of an evaluation or benchmark: where its rows come from, as JSON."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .._files import check_readable, write_bytes
from .._json import read_json
from .._provenance import origin
from ..data.pairs import Pair, PairScan
from ..errors import InputError

EVALUATE, BENCHMARK = "evaluate.json", "benchmark.json"
RECORDS = BENCHMARK, EVALUATE


def write_record(path: Path, record: dict[str, Any]) -> None:
    """Write a record as JSON, with NaN as null; the file is complete or does not exist."""
    write_bytes(path, (json.dumps(finite(record), indent=2) + "\n").encode())


def read_record(path: Path) -> dict[str, Any]:
    """Read a record.

    Raises:
        InputError: the file cannot be read, or is not a JSON object.
    """
    check_readable(path, "record")
    try:
        record = read_json(path)
    except (OSError, ValueError) as error:
        raise InputError(f"record {path}: cannot be read as JSON ({error})") from error
    if not isinstance(record, dict):
        raise InputError(f"record {path}: must be a JSON object, not a {type(record).__name__}")
    return record


def finite(value: Any) -> Any:
    """The value as JSON allows it: None for NaN and infinity, strings as keys."""
    if isinstance(value, dict):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def inputs_of(pairs: Sequence[Pair]) -> dict[str, Any]:
    """Paths and SHA-256 of all scans, label maps and landmarks, by name of the scan.

    Raises:
        InputError: a file does not exist or cannot be read, or two scans share a name.
    """
    scans: dict[str, PairScan] = {}
    for scan in (s for pair in pairs for s in (pair.moving, pair.fixed)):
        if scans.setdefault(scan.name, scan) != scan:
            raise InputError(
                f"pairs: two scans, or one scan with different labels or landmarks, have the name "
                f"{scan.name!r}; give each its own name"
            )
    files = {
        name: {"image": s.path, "labels": s.labels}
        | ({} if s.landmarks is None else {"landmarks": s.landmarks})
        for name, s in scans.items()
    }
    for role, path in (item for of_scan in files.values() for item in of_scan.items()):
        if path is not None:
            check_readable(path, "label map" if role == "labels" else role)
    try:
        return {name: {k: origin(p) for k, p in of.items()} for name, of in files.items()}
    except OSError as error:
        raise InputError(f"file {error.filename}: cannot be read ({error.strerror})") from error


def earlier_machines(before: dict[str, Any], here: dict[str, Any]) -> dict[str, Any]:
    """An item of a record with the other machines that made earlier rows; empty if none did.

    Args:
        before: the record that exists.
        here: this machine.
    """
    machines = [*before.get("earlier_machines", []), before.get("machine")]
    others = [machine for machine in machines if machine and machine != finite(here)]
    return {"earlier_machines": others} if others else {}
