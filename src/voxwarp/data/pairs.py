"""Pairs of scans for an evaluation: from a table of pairs, or all pairs of a split."""

import itertools
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from .._files import check_readable, without_extension
from ..errors import InputError
from .scans import ScanRecord, scans_of
from .sources import SPLITS, Data, ScanSource, read_training_data
from .tables import Record, check_columns, read_table

Kind = Literal["inter", "retest"]
_SIDES = "moving", "fixed"
_SUFFIXES = "_name", "_subject", "_labels", "_landmarks"  # of the columns about each side


@dataclass(frozen=True)
class PairScan:
    """A scan in an evaluation.

    Args:
        name: unique name, used in the rows of an evaluation.
        path: file of the image.
        labels: file of its label map, or None.
        subject: its subject, including the data set; "" if unknown.
        landmarks: CSV file of points in the scan, or None; columns x, y, z in RAS mm.
    """

    name: str
    path: Path
    labels: Path | None = None
    subject: str = ""
    landmarks: Path | None = None


@dataclass(frozen=True)
class Pair:
    """A moving and a fixed scan.

    Args:
        moving: the scan that is registered.
        fixed: the scan that it is registered to.
    """

    moving: PairScan
    fixed: PairScan

    @property
    def kind(self) -> Kind:
        """Whether it is "retest", two scans of one known subject, or "inter"."""
        is_same = self.moving.subject == self.fixed.subject != ""
        return "retest" if is_same else "inter"

    @property
    def key(self) -> tuple[str, str]:
        """Names of the moving and of the fixed scan."""
        return self.moving.name, self.fixed.name

    @property
    def swapped_key(self) -> tuple[str, str]:
        """The key of the pair with moving and fixed exchanged."""
        return self.fixed.name, self.moving.name


def read_pairs(
    table: Path,
    *,
    split: str = "test",
    scan: str | None = None,
    labels: str | None = None,
    kind: str = "all",
) -> list[Pair]:
    """Read the pairs of a table or of a training's configuration.

    A pair and its swap (moving and fixed exchanged) stand next to each other.

    Args:
        table: one of three files. A table of pairs, with the columns ``moving`` and ``fixed``
            (paths relative to the folder of the table) and optionally ``moving_subject``,
            ``moving_labels``, ``moving_landmarks``, ``moving_name`` and the same for ``fixed``;
            a value counts in all rows with that scan. Or a table of scans, as ``voxwarp train``
            reads it. Or the YAML configuration of a training, of which ``data`` and ``seed`` are
            read. The last two give every ordered pair of scans of a split.
        split: "train", "val", "test" or "all". If a table of scans names no splits, all its scans
            are taken; if it names some, subjects without a split count as train.
        scan, labels: patterns of the paths in a table of scans, such as ``t1/{id}.nii.gz``.
        kind: "inter" (two subjects), "retest" (two scans of one subject) or "all".

    Returns:
        At least one pair.

    Raises:
        InputError: the file cannot be read, a row is wrong, or there is no such pair.
    """
    if split not in (*SPLITS, "all"):
        raise InputError(f"split must be {', '.join(SPLITS)} or all, got {split!r}")
    if kind not in (*get_args(Kind), "all"):
        raise InputError(f"kind must be {', '.join(get_args(Kind))} or all, got {kind!r}")
    check_readable(table, "pairs")
    is_yaml = table.suffix.lower() in (".yaml", ".yml")
    is_pair_table = not is_yaml and _has_pairs(table)
    if (is_yaml or is_pair_table) and (scan or labels):
        kind_of_file = "a training's configuration" if is_yaml else "a table of pairs"
        raise InputError(
            f"pairs {table}: this is {kind_of_file}, but `scan` and `labels` are for tables of "
            f"scans; leave them out"
        )
    if is_pair_table:
        pairs = _pairs_of_table(table)
    else:
        scans = _scans_of_config(table) if is_yaml else _scans_of_table(table, split, scan, labels)
        pairs = _all_pairs([one for one in scans if split in ("all", one.split)])
    chosen = [pair for pair in pairs if kind in ("all", pair.kind)]
    if not chosen:
        place = "" if is_pair_table or split == "all" else f" in split {split}"
        which = "pair" if kind == "all" else f"pair of kind {kind}"
        raise InputError(f"pairs {table}: there is no {which}{place}")
    return group_swaps(chosen)


def group_swaps(pairs: Iterable[Pair]) -> list[Pair]:
    """Order pairs so that each is followed by its swap, if that is in the list."""
    return [pair for couple in couples(pairs) for pair in couple]


def couples(pairs: Iterable[Pair]) -> list[list[Pair]]:
    """Group each pair with its swap (moving and fixed exchanged), if that is in the list."""
    groups: dict[frozenset[str], list[Pair]] = {}
    for pair in pairs:
        groups.setdefault(frozenset(pair.key), []).append(pair)
    return list(groups.values())


# ------------------------------------------------------------------------------ Tables of scans


def _scans_of_config(config: Path) -> list[ScanRecord]:
    training = read_training_data(config)
    return scans_of(training.data, training.seed)


def _scans_of_table(
    table: Path, split: str, scan: str | None, labels: str | None
) -> list[ScanRecord]:
    """Subjects without a split count as train if others have one: they may be training data."""
    records, _ = read_table(table)
    has_splits = any(record.values.get("split") for record in records)
    default = None if has_splits else "test" if split == "all" else split
    source = ScanSource(table=str(table.absolute()), scan=scan, labels=labels, split=default)  # type: ignore[arg-type]
    return scans_of(Data(sources=[source], fractions={"train": 1.0}), 0)


def _all_pairs(scans: Sequence[ScanRecord]) -> list[Pair]:
    """Every ordered pair."""
    names = _names([scan.path for scan in scans])
    sides = [
        PairScan(names[scan.path], scan.path, scan.labels, f"{scan.dataset}/{scan.subject}")
        for scan in scans
    ]
    _check_names(sides)
    return [Pair(a, b) for a, b in itertools.permutations(sides, 2)]


def _check_names(scans: Iterable[PairScan]) -> None:
    """Make sure that names are unique, because rows identify scans by them."""
    paths: dict[str, Path] = {}
    for scan in scans:
        if len(scan.name.splitlines()) != 1:
            raise InputError(f"scan {scan.path}: its name {scan.name!r} must be one line of text")
        if paths.setdefault(scan.name, scan.path) != scan.path:
            raise InputError(
                f"scan {scan.path}: its name {scan.name!r} is also the name of "
                f"{paths[scan.name]}; give each scan a name of its own (in a table of pairs with "
                f"the columns moving_name and fixed_name)"
            )


def _names(paths: Sequence[Path]) -> dict[Path, str]:
    """File names without extensions; if some are equal, with the folders in which they differ."""
    stems = {path: without_extension(path.name) for path in paths}
    counts = Counter(stems.values())
    if max(counts.values(), default=1) == 1:
        return stems
    common = os.path.commonpath([path.parent for path in stems])
    return {p: without_extension(os.path.relpath(p, common)).replace(os.sep, "-") for p in stems}


# ------------------------------------------------------------------------------ Tables of pairs


def _has_pairs(table: Path) -> bool:
    """Whether a table lists pairs, not scans."""
    _, columns = read_table(table)
    return not {*_SIDES}.isdisjoint(columns)


def _pairs_of_table(table: Path) -> list[Pair]:
    records, columns = read_table(table)
    for side in _SIDES:
        check_columns(f"{{{side}}}", columns, table)
    scans, pairs = _scans_by_path(table, records), dict[tuple[str, str], Pair]()
    for record in records:
        pair = Pair(*(scans[_scan_path(table, record, side)] for side in _SIDES))
        if pair.moving == pair.fixed:
            raise InputError(f"{record.where}: moving and fixed are the same scan, in {table}")
        if pair.key in pairs:
            raise InputError(f"{record.where}: an earlier row has this pair already, in {table}")
        pairs[pair.key] = pair
    return list(pairs.values())


def _scans_by_path(table: Path, records: Sequence[Record]) -> dict[Path, PairScan]:
    """The scans in a table of pairs, each with the values of all its rows."""
    columns: dict[Path, dict[str, str]] = {}
    for record, side in itertools.product(records, _SIDES):
        known = columns.setdefault(_scan_path(table, record, side), {})
        for suffix in _SUFFIXES:
            value = record.values.get(side + suffix, "")
            if suffix == "_subject" and not value:
                value = record.values.get(f"{side}_person", "")  # the column's former name
            if value and known.setdefault(suffix, value) != value:
                raise InputError(
                    f"{record.where}: {side}{suffix} is {value!r}, but another row has "
                    f"{known[suffix]!r} for this scan, in {table}"
                )
    names = _names(list(columns))
    scans = {
        path: PairScan(
            known.get("_name", names[path]),
            path,
            _path(table, known["_labels"]) if "_labels" in known else None,
            # Scans without a subject belong to different subjects.
            known.get("_subject", str(path)),
            _path(table, known["_landmarks"]) if "_landmarks" in known else None,
        )
        for path, known in columns.items()
    }
    _check_names(scans.values())
    return scans


def _scan_path(table: Path, record: Record, side: str) -> Path:
    name = record.values.get(side, "")
    if not name:
        raise InputError(f"{record.where}: the column {side} is empty, in {table}")
    return _path(table, name)


def _path(table: Path, name: str) -> Path:
    if "\0" in name:
        raise InputError(f"table {table}: {name!r} is not a valid path")
    return Path(os.path.normpath(table.absolute().parent / name))
