"""The record beside rows: where they come from, as JSON."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..data.pairs import Pair, PairScan
from ..errors import InputError
from ..files import check_readable, write_bytes
from ..provenance import origin

EVALUATE, BENCHMARK = "evaluate.json", "benchmark.json"
RECORDS = BENCHMARK, EVALUATE


def write_record(path: Path, record: dict[str, Any]) -> None:
    """Write JSON with NaN as null, whole or not at all."""
    write_bytes(path, (json.dumps(finite(record), indent=2) + "\n").encode())


def read_record(path: Path) -> dict[str, Any]:
    """The record in a file.

    Raises:
        InputError: it cannot be read, or is no JSON object.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"record {path}: cannot be read ({error})") from error
    if not isinstance(record, dict):
        raise InputError(f"record {path}: a JSON object is wanted")
    return record


def finite(value: Any) -> Any:
    """A value as JSON has it: null for what is no finite number, words for keys."""
    if isinstance(value, dict):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def inputs_of(pairs: Sequence[Pair]) -> dict[str, Any]:
    """Paths and SHA-256 of all scans, label maps and landmarks, by name of the scan.

    Raises:
        InputError: one of them is not there or cannot be read, or two scans have one name.
    """
    scans: dict[str, PairScan] = {}
    for scan in (s for pair in pairs for s in (pair.moving, pair.fixed)):
        if scans.setdefault(scan.name, scan) != scan:
            raise InputError(f"pairs: {scan.name!r} stands for two scans, or two of their files")
    files = {
        name: {"image": s.path, "labels": s.labels}
        | ({} if s.landmarks is None else {"landmarks": s.landmarks})
        for name, s in scans.items()
    }
    for what, path in (item for of_scan in files.values() for item in of_scan.items()):
        if path is not None:
            check_readable(path, "label map" if what == "labels" else what)
    try:
        return {name: {k: origin(p) for k, p in of.items()} for name, of in files.items()}
    except OSError as error:
        raise InputError(f"{error.filename}: cannot be read: {error.strerror}") from error


def earlier_machines(before: dict[str, Any], here: dict[str, Any]) -> dict[str, Any]:
    """The machines that rows were made on before this one, as an item of a record, or none.

    Args:
        before: the record that is there.
        here: this machine.
    """
    machines = [*before.get("earlier_machines", []), before.get("machine")]
    others = [machine for machine in machines if machine and machine != finite(here)]
    return {"earlier_machines": others} if others else {}
