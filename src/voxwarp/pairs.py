"""The pairs of scans that an evaluation runs over: listed, or all of a split with each other."""

import itertools
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from .config import SPLITS, Data, Source, read_config
from .errors import InputError
from .files import check_readable
from .manifest import Record, Scan, check_pattern, records_of, scans_of

Kind = Literal["inter", "retest"]
_COLUMNS = ("", "_name", "_person", "_labels", "_landmarks")  # behind "moving" and "fixed"


@dataclass(frozen=True)
class Subject:
    """A scan in an evaluation.

    Args:
        name: stands in the rows; no two scans share one.
        path: of the image.
        labels: its label map, if it has one.
        person: whose scan it is, data set included.
        landmarks: CSV file of points in it, if there are any; columns x, y, z in RAS mm.
    """

    name: str
    path: Path
    labels: Path | None = None
    person: str = ""
    landmarks: Path | None = None


@dataclass(frozen=True)
class Pair:
    """A scan to be moved and one to stay."""

    moving: Subject
    fixed: Subject

    @property
    def kind(self) -> Kind:
        """Two people, or two scans of one."""
        return "retest" if self.moving.person == self.fixed.person else "inter"

    @property
    def key(self) -> tuple[str, str]:
        """Names of the moving and the fixed scan."""
        return self.moving.name, self.fixed.name

    @property
    def swapped_key(self) -> tuple[str, str]:
        """The key of the pair the other way round."""
        return self.fixed.name, self.moving.name


def read_pairs(
    table: Path,
    *,
    split: str = "test",
    scan: str | None = None,
    labels: str | None = None,
    kind: str = "all",
) -> list[Pair]:
    """The pairs that a file stands for; each next to the one the other way round.

    Args:
        table: a table of pairs, with columns ``moving`` and ``fixed`` (paths from its folder) and
            perhaps ``moving_person``, ``moving_labels``, ``moving_landmarks``, ``moving_name`` and
            the same of ``fixed``; or a table of scans as ``voxwarp train`` reads them, or the
            YAML configuration of a training: then every ordered pair of a split's scans.
        split: whose scans; those of a table that names none are all taken. "all": everybody.
        scan, labels: patterns of the paths in a table of scans, such as ``t1/{id}.nii.gz``.
        kind: "inter" (two people), "retest" (two scans of one person) or "all".

    Raises:
        InputError: the file cannot be read, is wrong in a row, or gives no such pair.
    """
    if split not in (*SPLITS, "all"):
        raise InputError(f"split {split!r}: one of {', '.join(SPLITS)} and all is wanted")
    if kind not in (*get_args(Kind), "all"):
        raise InputError(f"kind {kind!r}: inter, retest or all is wanted")
    check_readable(table, "pairs")
    if table.suffix.lower() not in (".yaml", ".yml") and _lists_pairs(table):
        pairs = _listed(table)
    else:
        pairs = _of_scans(_scans(table, split, scan, labels))
    chosen = [pair for pair in pairs if kind in ("all", pair.kind)]
    if not chosen:
        of = "" if split == "all" else f" in split {split}"
        raise InputError(f"pairs {table}: there is no pair{of} (kind {kind})")
    return beside_their_swaps(chosen)


def beside_their_swaps(pairs: Iterable[Pair]) -> list[Pair]:
    """The pairs, each followed by the one the other way round where that is among them."""
    waiting = {pair.key: pair for pair in pairs}
    order: list[Pair] = []
    while waiting:
        pair = waiting.pop(next(iter(waiting)))
        order += [pair, *filter(None, [waiting.pop(pair.swapped_key, None)])]
    return order


# --------------------------------------------------------------------------------------- Scans


def _scans(table: Path, split: str, scan: str | None, labels: str | None) -> list[Scan]:
    if table.suffix.lower() in (".yaml", ".yml"):
        config = read_config(table)
        scans = scans_of(config.data, config.seed)
    else:
        source = Source(
            table=str(table.absolute()),
            scan=scan,
            labels=labels,
            split="test" if split == "all" else split,  # type: ignore[arg-type]
        )
        scans = scans_of(Data(sources=[source]), 0)
    return [scan for scan in scans if split in ("all", scan.split)]


def _of_scans(scans: Sequence[Scan]) -> list[Pair]:
    names = _names([scan.path for scan in scans])
    subjects = [
        Subject(names[scan.path], scan.path, scan.labels, f"{scan.dataset}/{scan.person}")
        for scan in scans
    ]
    return [Pair(a, b) for a, b in itertools.permutations(subjects, 2)]


def _names(paths: Sequence[Path]) -> dict[Path, str]:
    """The files' names without their endings; where they are the same, what tells them apart."""
    stems = {path: _stem(path.name) for path in paths}
    counts = Counter(stems.values())
    if max(counts.values(), default=0) == 1:
        return stems
    common = os.path.commonpath([path.parent for path in stems])
    return {p: _stem(os.path.relpath(p, common)).replace(os.sep, "-") for p in stems}


def _stem(name: str) -> str:
    for ending in (".gz", ".nii", ".mgz", ".mgh"):
        name = name.removesuffix(ending)
    return name


# --------------------------------------------------------------------------------------- Lists


def _lists_pairs(table: Path) -> bool:
    _, columns = records_of(table)
    return {"moving", "fixed"} <= set(columns)


def _listed(table: Path) -> list[Pair]:
    records, columns = records_of(table)
    check_pattern("{moving}{fixed}", columns, f"table {table}")
    sides = [[_side(table, record, side) for side in ("moving", "fixed")] for record in records]
    paths = list(dict.fromkeys(path for both in sides for path, _ in both))
    names, named = _names(paths), dict[str, Path]()
    pairs: dict[tuple[str, str], Pair] = {}
    for record, both in zip(records, sides, strict=True):
        moving, fixed = (_subject(table, names[path], path, words) for path, words in both)
        for subject in (moving, fixed):
            if named.setdefault(subject.name, subject.path) != subject.path:
                raise InputError(f"{record.where}: another scan is called {subject.name!r} already")
        pair = Pair(moving, fixed)
        if pair.key in pairs or moving.path == fixed.path:
            what = "a scan with itself" if moving.path == fixed.path else "there already"
            raise InputError(f"{record.where}: this pair is {what}, in {table}")
        pairs[pair.key] = pair
    return list(pairs.values())


def _side(table: Path, record: Record, side: str) -> tuple[Path, dict[str, str]]:
    words = {column: record.words.get(f"{side}{column}", "") for column in _COLUMNS}
    if not words[""]:
        raise InputError(f"{record.where}: it names no {side} scan, in {table}")
    return _path(table, words[""]), words


def _subject(table: Path, name: str, path: Path, words: dict[str, str]) -> Subject:
    labels, landmarks = (
        _path(table, words[c]) if words[c] else None for c in ("_labels", "_landmarks")
    )
    # Scans of which nothing is said are of different people.
    person = words["_person"] or str(path)
    return Subject(words["_name"] or name, path, labels, person, landmarks)


def _path(table: Path, name: str) -> Path:
    return Path(os.path.normpath(table.absolute().parent / name))
