"""The pairs of scans that an evaluation runs over: listed, or all of a split with each other."""

import itertools
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from ..errors import InputError
from ..files import check_readable, without_extension
from .scans import ScanRecord, scans_of
from .sources import SPLITS, Data, ScanSource, read_training_data
from .tables import Record, check_pattern, read_table

Kind = Literal["inter", "retest"]
_SIDES = "moving", "fixed"
_FACTS = "_name", "_subject", "_labels", "_landmarks"  # behind "moving" and "fixed"


@dataclass(frozen=True)
class PairScan:
    """A scan in an evaluation.

    Args:
        name: stands in the rows; no two scans share one.
        path: of the image.
        labels: its label map, if it has one.
        subject: whose scan it is, data set included.
        landmarks: CSV file of points in it, if there are any; columns x, y, z in RAS mm.
    """

    name: str
    path: Path
    labels: Path | None = None
    subject: str = ""
    landmarks: Path | None = None


@dataclass(frozen=True)
class Pair:
    """A scan to be moved and one to stay."""

    moving: PairScan
    fixed: PairScan

    @property
    def kind(self) -> Kind:
        """Two subjects, or two scans of one; who has no name is nobody else."""
        same = self.moving.subject == self.fixed.subject != ""
        return "retest" if same else "inter"

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
            perhaps ``moving_subject``, ``moving_labels``, ``moving_landmarks``, ``moving_name`` and
            the same of ``fixed``, where what one row says of a scan counts in all; or a table of
            scans as ``voxwarp train`` reads them, or the YAML configuration of a training, of which
            ``data`` and ``seed`` are read: then every ordered pair of a split's scans.
        split: whose scans. "all": everybody's. Those of a table that names no split are all
            taken; where it names some, subjects without one count as train.
        scan, labels: patterns of the paths in a table of scans, such as ``t1/{id}.nii.gz``.
        kind: "inter" (two subjects), "retest" (two scans of one subject) or "all".

    Raises:
        InputError: the file cannot be read, is wrong in a row, or gives no such pair.
    """
    if split not in (*SPLITS, "all"):
        raise InputError(f"split {split!r}: one of {', '.join(SPLITS)} and all is wanted")
    if kind not in (*get_args(Kind), "all"):
        raise InputError(f"kind {kind!r}: inter, retest or all is wanted")
    check_readable(table, "pairs")
    is_yaml = table.suffix.lower() in (".yaml", ".yml")
    is_list = not is_yaml and _lists_pairs(table)
    if (is_yaml or is_list) and (scan or labels):
        raise InputError(f"pairs {table}: patterns of scans and labels are for tables of scans")
    if is_list:
        pairs = _listed(table)
    else:
        scans = _configured(table) if is_yaml else _tabled(table, split, scan, labels)
        pairs = _of_scans([one for one in scans if split in ("all", one.split)])
    chosen = [pair for pair in pairs if kind in ("all", pair.kind)]
    if not chosen:
        of = "" if is_list or split == "all" else f" in split {split}"
        raise InputError(f"pairs {table}: there is no pair{of} (kind {kind})")
    return beside_their_swaps(chosen)


def beside_their_swaps(pairs: Iterable[Pair]) -> list[Pair]:
    """The pairs, each followed by the one the other way round where that is among them."""
    return [pair for couple in couples(pairs) for pair in couple]


def couples(pairs: Iterable[Pair]) -> list[list[Pair]]:
    """Pairs with the ones the other way round, which are compared with each other."""
    joined: dict[frozenset[str], list[Pair]] = {}
    for pair in pairs:
        joined.setdefault(frozenset(pair.key), []).append(pair)
    return list(joined.values())


# --------------------------------------------------------------------------------------- Scans


def _configured(config: Path) -> list[ScanRecord]:
    training = read_training_data(config)
    return scans_of(training.data, training.seed)


def _tabled(table: Path, split: str, scan: str | None, labels: str | None) -> list[ScanRecord]:
    """Who has no split where others have one may have been trained on, and is left to train."""
    records, _ = read_table(table)
    named = any(record.words.get("split") for record in records)
    taken = None if named else "test" if split == "all" else split
    source = ScanSource(table=str(table.absolute()), scan=scan, labels=labels, split=taken)  # type: ignore[arg-type]
    return scans_of(Data(sources=[source], fractions={"train": 1.0}), 0)


def _of_scans(scans: Sequence[ScanRecord]) -> list[Pair]:
    names = _names([scan.path for scan in scans])
    sides = [
        PairScan(names[scan.path], scan.path, scan.labels, f"{scan.dataset}/{scan.subject}")
        for scan in scans
    ]
    _check_names(sides)
    return [Pair(a, b) for a, b in itertools.permutations(sides, 2)]


def _check_names(scans: Iterable[PairScan]) -> None:
    """Rows are told apart by the names of their scans."""
    named: dict[str, Path] = {}
    for scan in scans:
        if len(scan.name.splitlines()) != 1:
            raise InputError(f"scan {scan.path}: {scan.name!r} is no name for it")
        if named.setdefault(scan.name, scan.path) != scan.path:
            raise InputError(f"scan {scan.path}: {named[scan.name]} is called {scan.name!r}, too")


def _names(paths: Sequence[Path]) -> dict[Path, str]:
    """The files' names without their endings; where they are the same, what tells them apart."""
    stems = {path: without_extension(path.name) for path in paths}
    counts = Counter(stems.values())
    if max(counts.values(), default=1) == 1:
        return stems
    common = os.path.commonpath([path.parent for path in stems])
    return {p: without_extension(os.path.relpath(p, common)).replace(os.sep, "-") for p in stems}


# --------------------------------------------------------------------------------------- Lists


def _lists_pairs(table: Path) -> bool:
    _, columns = read_table(table)
    return not {*_SIDES}.isdisjoint(columns)


def _listed(table: Path) -> list[Pair]:
    records, columns = read_table(table)
    check_pattern("{moving}{fixed}", columns, f"table {table}")
    scans, pairs = _scans(table, records), dict[tuple[str, str], Pair]()
    for record in records:
        pair = Pair(*(scans[_scan(table, record, side)] for side in _SIDES))
        if pair.key in pairs or pair.moving == pair.fixed:
            what = "a scan with itself" if pair.moving == pair.fixed else "there already"
            raise InputError(f"{record.where}: this pair is {what}, in {table}")
        pairs[pair.key] = pair
    return list(pairs.values())


def _scans(table: Path, records: Sequence[Record]) -> dict[Path, PairScan]:
    """The scans in a list, by path, each with what all rows say of it."""
    known: dict[Path, dict[str, str]] = {}
    for record, side in itertools.product(records, _SIDES):
        facts = known.setdefault(_scan(table, record, side), {})
        for fact in _FACTS:
            word = record.words.get(side + fact, "") or (
                record.words.get(f"{side}_person", "") if fact == "_subject" else ""
            )
            if word and facts.setdefault(fact, word) != word:
                raise InputError(
                    f"{record.where}: {side}{fact} {word!r}: another row has {facts[fact]!r} for "
                    f"this scan, in {table}"
                )
    names = _names(list(known))
    scans = {
        path: PairScan(
            facts.get("_name", names[path]),
            path,
            _path(table, facts["_labels"]) if "_labels" in facts else None,
            # Scans of which nothing is said are of different subjects.
            facts.get("_subject", str(path)),
            _path(table, facts["_landmarks"]) if "_landmarks" in facts else None,
        )
        for path, facts in known.items()
    }
    _check_names(scans.values())
    return scans


def _scan(table: Path, record: Record, side: str) -> Path:
    word = record.words.get(side, "")
    if not word:
        raise InputError(f"{record.where}: it names no {side} scan, in {table}")
    return _path(table, word)


def _path(table: Path, name: str) -> Path:
    if "\0" in name:
        raise InputError(f"table {table}: {name!r} is no path")
    return Path(os.path.normpath(table.absolute().parent / name))
