"""What is to be done in a cohort, and why: what is missing, or follows from something else now."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .._json import read_json
from .dataset import CohortScan
from .derivatives import record_path
from .ledger import Entry


@dataclass(frozen=True)
class Task:
    """A scan, and whether it must be registered.

    Args:
        scan: the scan.
        basis: what its result follows from.
        reason: why it must be registered; empty if its result is there.
        before: the entry of the ledger, if there is one.
        is_lost: the ledger has no such entry; it was made of the record of the result.
    """

    scan: CohortScan
    basis: dict[str, Any]
    reason: str
    before: Entry | None = None
    is_lost: bool = False


def plan(
    scans: Iterable[tuple[CohortScan, dict[str, Any]]],
    out: Path,
    space: str,
    entries: Mapping[str, Entry],
) -> list[Task]:
    """Compare what is wanted with what is there.

    A result whose entry in the ledger was lost, because the command was killed between the two, is
    recognised by its own record.

    Args:
        scans: each with what its result follows from, see ``settings.basis_of``.
        out: the folder of the derivatives.
        space: the name of the space.
        entries: of the ledger.
    """
    tasks = []
    for scan, basis in scans:
        entry = entries.get(scan.key)
        reason, is_lost = _reason(entry, basis, out), False
        if entry is None or entry.state != "done":
            found = _recorded(out, record_path(scan, space), scan.key)
            if found is not None:
                changed = _reason(found, basis, out)
                reason = changed if entry is None or not changed else reason
                entry, is_lost = found, True
        tasks.append(Task(scan, basis, reason, entry, is_lost))
    return tasks


def _recorded(out: Path, record: Path, key: str) -> Entry | None:
    """The entry that the record of a result stands for."""
    try:
        about = read_json(out / record)["cohort"]
        outputs = {**about["outputs"], record.as_posix(): (out / record).stat().st_size}
        return Entry(key, "done", basis=dict(about["basis"]), outputs=outputs)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _reason(entry: Entry | None, basis: Mapping[str, Any], out: Path) -> str:
    """Why a scan must be registered; empty if its result is there."""
    if entry is None:
        return "new"
    if entry.state != "done":
        return f"failed before: {entry.error}"
    for topic in basis:
        if entry.basis.get(topic) != basis[topic]:
            return _difference(topic, entry.basis.get(topic), basis[topic])
    for name, size in entry.outputs.items():
        try:
            if os.stat(out / name).st_size != size:
                return f"{name} has changed"
        except OSError:
            return f"{name} is missing"
    return ""


def _difference(topic: str, before: Any, now: Any) -> str:
    """What has changed, in a few words."""
    before = before if isinstance(before, dict) else {}
    names = [name for name in (*now, *before) if before.get(name) != now.get(name)]
    names = list(dict.fromkeys(names))
    if topic == "inputs":
        return f"{names[0]} {_how(names[0], before, now)}"
    if topic == "settings":
        changes = (f"{name}: {before.get(name)} -> {now.get(name)}" for name in names)
        return f"settings changed ({', '.join(changes)})"
    if topic == "version":
        return f"another version of voxwarp ({before.get('voxwarp')} -> {now.get('voxwarp')})"
    return f"another {topic}"


def _how(name: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    if name not in before:
        return "is new"
    return "has changed" if name in now else "is no longer wanted"
