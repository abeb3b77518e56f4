"""The record of a benchmark: where its rows come from.

Rows of another version of a method or scan under the same name are refused.
"""

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .._json import read_json
from .._provenance import machine, versions
from ..data.pairs import Pair
from ..errors import InputError
from ..evaluation.record import BENCHMARK, earlier_machines, inputs_of
from ..evaluation.result_files import ResultFiles
from .catalogue import METHODS, find_method
from .selection import SelectedMethod
from .weights import load_model


def provenance(pairs: Sequence[Pair], methods: Sequence[SelectedMethod]) -> dict[str, Any]:
    """The scans, versions, machine and methods, for the record.

    Raises:
        InputError: a scan, label map, file of landmarks or of weights cannot be read.
    """
    packages = {METHODS[e.method].package for e in methods if e.method in METHODS} - {None}
    return {
        "inputs": inputs_of(pairs),
        "versions": versions() | {p: version(p) for p in sorted(filter(None, packages))},
        "machine": machine(),
        "methods": {e.name: _described(e) for e in methods},
    }


def _described(entry: SelectedMethod) -> dict[str, Any]:
    about = {"what": (find_method(entry.method).__doc__ or "").strip()}
    if entry.weights is not None:
        model = load_model(entry.weights)
        hashes = {"weights_sha256": model.sha256, "settings_sha256": model.settings_sha256}
        return about | {"weights": entry.weights, **hashes}
    package = METHODS[entry.method].package if entry.method in METHODS else None
    return about | ({"package": f"{package} {version(package)}"} if package else {})


def merge_records(record: dict[str, Any], out: Path, results: ResultFiles) -> dict[str, Any]:
    """Add the methods and scans of earlier calls, from the record in the folder.

    Raises:
        InputError: the folder has rows of another method or scan with the same name.
    """
    if not results.pairs:
        return record
    before = read_json(out / BENCHMARK)
    named = {row[column] for row in results.pairs for column in ("method", "moving", "fixed")}
    for part in ("methods", "inputs"):
        earlier = before.get(part, {})
        for name in named & earlier.keys() & record[part].keys():
            _check_same(out, name, earlier[name], record[part][name])
        record[part] = earlier | record[part]
    record["versions"] = before.get("versions", {}) | record["versions"]
    return record | earlier_machines(before, record["machine"])


def _check_same(out: Path, name: str, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Compare weights and package of a method, or the files of a scan; paths may have changed."""
    for key in ("weights_sha256", "settings_sha256", "package", "image", "labels", "landmarks"):
        old, new = (
            x.get(key, {}).get("sha256") if isinstance(x.get(key), dict) else x.get(key)
            for x in (before, now)
        )
        if key in before and key in now and old != new:
            part = key.partition("_")[0]
            raise InputError(
                f"output {out}: holds rows of {name} made with different {part} ({str(old)[:24]}, "
                f"now {str(new)[:24]}); start again with `overwrite`, or use another folder"
            )
