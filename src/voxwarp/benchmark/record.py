"""Where the rows of a benchmark come from; those of another method or scan are not mixed in."""

import json
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..data.pairs import Pair
from ..errors import InputError
from ..evaluation.record import BENCHMARK, earlier_machines, inputs_of
from ..evaluation.sheet import Sheet
from ..provenance import machine, versions
from .catalogue import METHODS, method_of
from .entries import Entry
from .weights import model_of


def provenance(pairs: Sequence[Pair], methods: Sequence[Entry]) -> dict[str, Any]:
    """Scans, versions, the machine and the methods, for the record.

    Raises:
        InputError: a scan, label map or landmarks cannot be read, or weights.
    """
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


def joined(record: dict[str, Any], out: Path, sheet: Sheet) -> dict[str, Any]:
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
    record["versions"] = before.get("versions", {}) | record["versions"]
    return record | earlier_machines(before, record["machine"])


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
