"""The ledger of a cohort: what was done with which inputs, and the hashes of files.

Several processes may write to it at a time. It is an SQLite database with a write-ahead log (WAL),
where readers and writers do not wait for each other. WAL needs memory that all processes share, so
it does not work on file systems of a network (https://sqlite.org/wal.html); there, every process
appends lines of JSON to a file of its own, and readers join all of them. A line that a killed
process left unfinished is ignored.
"""

import contextlib
import json
import os
import platform
import re
import sqlite3
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Protocol

from .._files import sha256_of
from ..errors import InputError

DATABASE, LINES = "ledger.sqlite", "ledger-*.jsonl"
PATIENCE = 60.0  # s to wait for another process that writes; set by hand
# File systems whose files are on other computers, by their names in /proc/mounts.
_NETWORK = (
    *("nfs", "cifs", "smb", "lustre", "gpfs", "beegfs", "ceph", "afs", "9p", "fuse", "glusterfs"),
    *("panfs", "orangefs", "pvfs", "virtiofs", "wekafs", "dvs", "gfs2", "ocfs2"),
)
_ESCAPE = re.compile(rb"\\([0-7]{3})")  # of spaces and the like in /proc/mounts


@dataclass(frozen=True)
class Entry:
    """What became of a scan.

    Args:
        key: of the scan.
        state: "done" or "failed".
        name: of the scan in BIDS.
        basis: what the result follows from, by topic: hashes of the inputs, settings, version.
        outputs: the files of the result, relative to the derivatives, and their sizes in bytes.
        error: why it failed, a sentence.
        seconds: that it took.
        peak_mb: of memory in the worker.
        attempts: how often it was tried.
        at: when, in seconds since 1970.
        run: the UUID of the run.
    """

    key: str
    state: str
    name: str = ""
    basis: dict[str, Any] = field(default_factory=dict)
    outputs: dict[str, int] = field(default_factory=dict)
    error: str = ""
    seconds: float = 0.0
    peak_mb: float = 0.0
    attempts: int = 1
    at: float = 0.0
    run: str = ""


class _Store(Protocol):
    """Where a ledger keeps its entries: rows of a kind, each with a key; the last one counts."""

    def rows(self, kind: str) -> Iterator[tuple[str, float, Any]]: ...

    def add(self, kind: str, rows: Iterable[tuple[str, float, Any]]) -> None: ...

    def close(self) -> None: ...


class Ledger:
    """The ledger in a folder.

    Args:
        folder: it is made when something is written.

    Raises:
        InputError: the ledger cannot be read or written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kind = "JSON lines" if is_on_network(folder) else "SQLite"
        self._store: _Store | None = None
        self._hashes = self._read("files")
        self._new_hashes: dict[str, Any] = {}

    def entries(self) -> dict[str, Entry]:
        """The last entry of each scan."""
        known = {each.name for each in fields(Entry)}  # newer versions may write more
        return {
            key: Entry(**{name: x for name, x in value.items() if name in known})
            for key, value in self._read("scans").items()
        }

    def add(self, entry: Entry) -> None:
        """Write an entry; it is on the disk when this returns."""
        at = entry.at or time.time()
        self._writing().add("scans", [(entry.key, at, {**asdict(entry), "at": at})])

    def sha256(self, path: Path) -> str:
        """The SHA-256 of a file; it is read only if its size or its time has changed."""
        status, name = path.stat(), os.path.abspath(path)
        stamp = [status.st_size, status.st_mtime_ns]
        known = self._hashes.get(name)
        if known is None or known[:2] != stamp:
            known = self._hashes[name] = [*stamp, sha256_of(path)]
            self._new_hashes[name] = known
        return str(known[2])

    @contextlib.contextmanager
    def remembering_hashes(self, store: bool = True) -> Iterator[None]:
        """Store the hashes of the files that are read in a ``with`` statement.

        Args:
            store: whether to; a dry run writes nothing.
        """
        self._new_hashes.clear()
        yield
        if self._new_hashes and store:
            now = time.time()
            rows = [(name, now, value) for name, value in self._new_hashes.items()]
            self._writing().add("files", rows)

    def close(self) -> None:
        """Close the file."""
        if self._store is not None:
            self._store.close()
            self._store = None

    def _read(self, kind: str) -> dict[str, Any]:
        """All rows of a kind, whoever wrote them, and on whichever file system."""
        stores: list[_Store] = []
        if (self.folder / DATABASE).exists():
            stores.append(_Database(self.folder / DATABASE, read_only=True))
        stores.extend(_Lines(path) for path in sorted(self.folder.glob(LINES)))
        latest: dict[str, tuple[float, Any]] = {}
        for store in stores:
            with contextlib.closing(store):
                for key, at, value in store.rows(kind):
                    if key not in latest or at >= latest[key][0]:
                        latest[key] = at, value
        return {key: value for key, (_, value) in latest.items()}

    def _writing(self) -> _Store:
        if self._store is None:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                self._store = self._opened()
            except OSError as error:
                raise InputError(
                    f"output {self.folder}: cannot be written: {error.strerror or error}"
                ) from error
        return self._store

    def _opened(self) -> _Store:
        if self.kind == "SQLite":
            with contextlib.suppress(InputError):
                return _Database(self.folder / DATABASE)
            self.kind = "JSON lines"  # the file system cannot do what WAL needs
        host = platform.node().split(".")[0] or "host"
        return _Lines(self.folder / LINES.replace("*", f"{host}-{os.getpid()}"))


class _Database:
    """Rows in an SQLite database."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self.path = path
        try:
            if read_only:
                self.connection = _connect_to_read(path)
                return
            # None: every statement is a transaction of its own
            self.connection = sqlite3.connect(
                path, timeout=PATIENCE, isolation_level=None, check_same_thread=False
            )
            mode = self.connection.execute("PRAGMA journal_mode=WAL").fetchone()[0]
            if mode != "wal":
                raise sqlite3.OperationalError(f"its journal is {mode}")
            self.connection.execute(
                "CREATE TABLE IF NOT EXISTS rows (kind TEXT, key TEXT, at REAL, value TEXT, "
                "PRIMARY KEY (kind, key))"
            )
        except sqlite3.Error as error:
            raise _damaged(path, error) from error

    def rows(self, kind: str) -> Iterator[tuple[str, float, Any]]:
        try:
            found = self.connection.execute(
                "SELECT key, at, value FROM rows WHERE kind = ?", (kind,)
            ).fetchall()
            for key, at, value in found:
                yield key, at, json.loads(value)
        except (sqlite3.Error, ValueError) as error:
            if "no such table" not in str(error):  # another process is making it
                raise _damaged(self.path, error) from error

    def add(self, kind: str, rows: Iterable[tuple[str, float, Any]]) -> None:
        values = [(kind, key, at, json.dumps(value)) for key, at, value in rows]
        try:
            self.connection.execute("BEGIN IMMEDIATE")
            self.connection.executemany(
                "INSERT INTO rows VALUES (?, ?, ?, ?) ON CONFLICT (kind, key) DO UPDATE SET "
                "at = excluded.at, value = excluded.value WHERE excluded.at >= at",
                values,
            )
            self.connection.execute("COMMIT")
        except sqlite3.Error as error:
            with contextlib.suppress(sqlite3.Error):
                self.connection.execute("ROLLBACK")
            raise InputError(f"cannot write {self.path}: {error}") from error

    def close(self) -> None:
        self.connection.close()


def _connect_to_read(path: Path) -> sqlite3.Connection:
    """Connect to a database that is there; where nothing may be written, as it was last closed.

    A connection that may not write could not remove the files of the log when it is closed.
    """
    may_write = os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)
    options = "mode=rw" if may_write and not is_on_network(path) else "mode=ro&immutable=1"
    address = f"{path.absolute().as_uri()}?{options}"
    return sqlite3.connect(address, uri=True, timeout=PATIENCE, check_same_thread=False)


class _Lines:
    """Rows as lines of JSON in a file of one process."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def rows(self, kind: str) -> Iterator[tuple[str, float, Any]]:
        try:
            text = self.path.read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            raise InputError(f"{self.path}: cannot be read: {error.strerror or error}") from error
        for line in text.splitlines():
            with contextlib.suppress(ValueError):  # cut off by a kill
                own, key, at, value = json.loads(line)
                if own == kind:
                    yield key, at, value

    def add(self, kind: str, rows: Iterable[tuple[str, float, Any]]) -> None:
        lines = "".join(json.dumps([kind, *row]) + "\n" for row in rows)
        try:
            with open(self.path, "a+b") as stream:
                if stream.tell():  # what a process of the same number may have left unfinished
                    stream.seek(-1, os.SEEK_END)
                    lines = lines if stream.read(1) == b"\n" else f"\n{lines}"
                stream.write(lines.encode())
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            raise InputError(f"cannot write {self.path}: {error.strerror or error}") from error

    def close(self) -> None:
        pass


def _damaged(path: Path, error: Exception) -> InputError:
    return InputError(
        f"ledger {path}: cannot be used ({error}); if it is damaged, remove it: the results that "
        f"are there will be recognised by their own records"
    )


def is_on_network(folder: Path, mounts: Path = Path("/proc/mounts")) -> bool:
    """Whether a folder, which need not exist, is on a file system of another computer.

    False where that cannot be told (systems other than Linux).
    """
    try:
        lines = [line.split() for line in mounts.read_bytes().splitlines()]
    except OSError:
        return False
    place, holding, kind = os.fsencode(os.path.realpath(folder)), b"", ""
    for _, mount, name, *_ in lines:
        mount = _ESCAPE.sub(lambda match: bytes([int(match[1], 8)]), mount).rstrip(b"/")
        is_around = place == mount or place.startswith(mount + b"/")
        if is_around and len(mount) >= len(holding):  # of equal ones, the last is on top
            holding, kind = mount, name.decode("ascii", "replace")
    return kind.startswith(_NETWORK)
