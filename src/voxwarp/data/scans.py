"""The scans of a training: gathered from tables, folders and BIDS data sets, split by person."""

import csv
import hashlib
import io
import itertools
import json
import math
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from ..errors import InputError
from ..files import check_readable
from ..training.config import SPLITS, Data, Source, Split

JSON_LINES = ".jsonl", ".ndjson", ".json"

Key = tuple[str, str]  # data set and person


@dataclass(frozen=True)
class Scan:
    """A scan of a person in a split.

    Args:
        path: of the image.
        labels: its label map, if it has one.
        person: as the data set names them.
        dataset: name of the data set.
        split: what the person is for.
        where: where the scan was named, such as "subjects.csv row 3", for messages.
        licence: of the scan.
    """

    path: Path
    labels: Path | None
    person: str
    dataset: str
    split: Split
    where: str
    licence: str | None = None

    @property
    def key(self) -> Key:
        """Who it is: names of people are those of their data set."""
        return self.dataset, self.person


class _Row(NamedTuple):
    """A ``Scan`` whose split may not be decided."""

    path: Path
    labels: Path | None
    person: str
    dataset: str
    split: Split | None
    where: str
    licence: str | None

    @property
    def key(self) -> Key:
        return self.dataset, self.person


# -------------------------------------------------------------------------------------- Gather


def gather(data: Data, seed: int) -> list[Scan]:
    """``scans_of`` a training.

    Raises:
        InputError: see there, or nobody is to be trained on.
    """
    scans = scans_of(data, seed)
    if not any(scan.split == "train" for scan in scans):
        raise InputError(f"data: none of the {len(scans)} scans is in split train")
    return scans if data.people is None else _first_people(scans, data.people, seed)


def scans_of(data: Data, seed: int) -> list[Scan]:
    """All scans of the sources, each with a split; those of one person have the same.

    People without a split are put into one by lots drawn from the seed and their names, so the
    order of the rows does not matter, nor does another scan of somebody who is there already.

    Args:
        data: the configuration's; its paths are absolute.
        seed: of the lots.

    Raises:
        InputError: a source is missing, empty or wrong in a row, a scan is there twice, or a
            person in two splits.
    """
    _check_names(data.sources)
    rows = [row for source in data.sources for row in _rows(source)]
    _check_duplicates(rows)
    splits = _splits(rows, data.fractions, seed)
    return [Scan(**{**row._asdict(), "split": splits[row.key]}) for row in rows]


def shares(number: int, fractions: Mapping[Split, float]) -> dict[Split, int]:
    """How many of so many people go into each split: largest remainders get the rest.

    Of three people or more, every split with a fraction gets at least one.
    """
    total = sum(fractions.values())
    exact = {split: number * fractions.get(split, 0.0) / total for split in SPLITS}
    sizes = {split: math.floor(exact[split] + 1e-9) for split in SPLITS}
    by_remainder = sorted(SPLITS, key=lambda split: sizes[split] - exact[split])
    for split in by_remainder[: number - sum(sizes.values())]:
        sizes[split] += 1
    for split in SPLITS:
        if number >= 3 and exact[split] > 0 and not sizes[split]:
            sizes[max(SPLITS, key=lambda other: sizes[other])] -= 1
            sizes[split] = 1
    return sizes


def _splits(rows: Sequence[_Row], fractions: Mapping[Split, float], seed: int) -> dict[Key, Split]:
    """Everybody's split: the one that a row gives, or a lot."""
    splits: dict[Key, Split] = {}
    given: dict[Key, _Row] = {}
    for row in rows:
        if row.split is None:
            continue
        first = given.setdefault(row.key, row)
        if first.split != row.split:
            raise InputError(
                f"person {row.person!r} of {row.dataset} is in two splits: {first.split} "
                f"({first.where}, {first.path.name}) and {row.split} ({row.where}, "
                f"{row.path.name})"
            )
        splits[row.key] = row.split
    undecided = defaultdict(set)
    for row in rows:
        if row.key not in given:
            undecided[row.dataset].add(row.key)
    for people in undecided.values():
        order = iter(sorted(people, key=partial(_lot, seed, "split")))
        for split, size in shares(len(people), fractions).items():
            splits.update(dict.fromkeys(itertools.islice(order, size), split))
    return splits


def _first_people(scans: list[Scan], number: int, seed: int) -> list[Scan]:
    """The scans without those of train people beyond the first, in an order by lots."""
    people = {scan.key for scan in scans if scan.split == "train"}
    if number > len(people):
        raise InputError(f"data.people: {number} are wanted, there are {len(people)} to train on")
    chosen = set(sorted(people, key=partial(_lot, seed, "people"))[:number])
    return [scan for scan in scans if scan.split != "train" or scan.key in chosen]


def _lot(seed: int, purpose: str, key: Key) -> str:
    """A number that depends on nothing but the words: not on who else there is."""
    words = "\0".join((str(seed), purpose, *key))
    return hashlib.sha256(words.encode("utf-8", "surrogateescape")).hexdigest()


def _check_names(sources: Iterable[Source]) -> None:
    """Two people are one if their names and data sets are: no data set gets a name by chance."""
    places: dict[str, Path] = {}
    for source in sources:
        place = _place(source)
        if source.dataset is None and places.setdefault(place.name, place) != place:
            raise InputError(
                f"data.sources: {places[place.name]} and {place} would both be called "
                f"{place.name!r}: give one of them another name with dataset"
            )


def _check_duplicates(rows: Iterable[_Row]) -> None:
    seen: dict[str, _Row] = {}
    for row in rows:
        first = seen.setdefault(os.path.realpath(row.path), row)
        if first is not row:
            raise InputError(
                f"{row.where}: scan {row.path} is there already ({first.where}); each is wanted "
                f"once"
            )


def _place(source: Source) -> Path:
    """The folder that the paths of a source are relative to."""
    if source.table is not None:
        return Path(source.table).absolute().parent
    return Path(source.folder or source.bids or "").absolute()


def _rows(source: Source) -> list[_Row]:
    if source.table is not None:
        return _table_rows(source, Path(source.table))
    folder = _place(source)
    what = "folder" if source.folder is not None else "BIDS data set"
    check_readable(folder, what)
    if not folder.is_dir():
        raise InputError(f"{what} {folder}: this is a file, a folder is wanted")
    try:
        return _found_rows(source, folder, _found(source, folder, what))
    except OSError as error:
        raise InputError(f"{what} {folder}: cannot be read: {error.strerror or error}") from error


def _found(source: Source, folder: Path, what: str) -> dict[Path, str]:
    """The scans in a folder or BIDS data set and their people."""
    if source.folder is not None:
        pattern = source.scan or "*.nii.gz"
        people = {path: _stem(path.relative_to(folder)) for path in _glob(folder, pattern)}
    else:
        pattern = f"sub-*/[ses-*/]anat/*_{source.suffix}.nii[.gz]"
        people = {path: path.relative_to(folder).parts[0] for path in _bids(folder, source.suffix)}
    if not people:
        raise InputError(f"{what} {folder}: there is no file {pattern} in it")
    return people


def _found_rows(source: Source, folder: Path, people: Mapping[Path, str]) -> list[_Row]:
    """Rows of the files that were found in a folder, by their people."""
    pattern, labels = source.labels, dict[Path, Path]()
    if pattern is not None:
        check_pattern(pattern, ("name", "stem", "folder"), f"labels of {folder}")
        named = {path: folder / str(_filled(pattern, _words(path, folder))) for path in people}
        labels = {path: Path(os.path.normpath(place)) for path, place in named.items()}
        labels = {path: place for path, place in labels.items() if os.path.lexists(place)}
        if not labels:
            first = next(iter(named.values()))
            raise InputError(f"labels of {folder}: no scan has any; there is no {first}, say")
    maps = set(labels.values())  # which may lie beside the scans and match their pattern
    dataset, where = source.dataset or folder.name, folder.name
    return [
        _Row(path, labels.get(path), person, dataset, source.split, where, source.licence)
        for path, person in people.items()
        if path not in maps
    ]


def _words(path: Path, folder: Path) -> dict[str, str]:
    """What a pattern of label maps can be filled with."""
    place = str(path.parent.relative_to(folder))
    return {"name": path.name, "stem": _stem(Path(path.name)), "folder": place}


def _glob(folder: Path, pattern: str) -> list[Path]:
    try:
        # Links that lead nowhere are left in: whoever reads them says so.
        found = sorted(path for path in folder.glob(pattern) if not path.is_dir())
    except (ValueError, NotImplementedError) as error:
        raise InputError(f"folder {folder}: {pattern!r} is no pattern of files in it") from error
    return [path for path in found if not path.name.startswith(".")]


def _bids(folder: Path, suffix: str) -> list[Path]:
    """The images of that suffix of all people, sessions and runs, but not the derivatives."""
    places = [*folder.glob("sub-*/anat"), *folder.glob("sub-*/ses-*/anat")]
    name = re.compile(rf"[^.].*_{re.escape(suffix)}\.nii(\.gz)?")
    files = (path for place in places if place.is_dir() for path in place.iterdir())
    return sorted(path for path in files if name.fullmatch(path.name))


def _stem(path: Path) -> str:
    """A path without its ending, ``.nii.gz`` and the like."""
    whole = path.with_name(path.name.removesuffix(".gz") or path.name)
    return str(whole.with_suffix(""))


# -------------------------------------------------------------------------------------- Tables


class Record(NamedTuple):
    """A row of a table.

    Args:
        where: it stands, such as "subjects.csv row 3", for messages.
        words: by column; "" where the row is empty.
    """

    where: str
    words: dict[str, str]


def _table_rows(source: Source, table: Path) -> list[_Row]:
    records, columns = records_of(table)
    scan = source.scan or "{scan}"
    labels = source.labels or ("{labels}" if "labels" in columns else "")
    for pattern in (scan, labels):
        check_pattern(pattern, columns, f"table {table}")
    paths = [_path_in(table, scan, record) for record in records]
    names = Counter(_stem(Path(path.name)) for path in paths)
    rows = []
    for record, path in zip(records, paths, strict=True):
        name = _stem(Path(path.name))
        if names[name] > 1:  # as in 01/T1.nii.gz, 02/T1.nii.gz
            name = _stem(Path(os.path.relpath(path, table.parent)))
        mapped = labels and _filled(labels, record.words)
        rows.append(
            _Row(
                path,
                _path_in(table, labels, record) if mapped else None,
                record.words.get("person") or name,
                record.words.get("dataset") or source.dataset or _place(source).name,
                _split_of(record) or source.split,
                record.where,
                source.licence,
            )
        )
    return rows


def _path_in(table: Path, pattern: str, record: Record) -> Path:
    name = _filled(pattern, record.words)
    path = Path(os.path.normpath(table.absolute().parent / (name or "/")))
    if not path.name or "\0" in str(path):
        raise InputError(f"{record.where}: it names no scan ({pattern} is wanted)")
    return path


def _split_of(record: Record) -> Split | None:
    word = record.words.get("split", "").lower()
    if not word:
        return None
    for split in SPLITS:
        if word == split:
            return split
    raise InputError(f"{record.where}: split {word!r}: one of {', '.join(SPLITS)} is wanted")


def check_pattern(pattern: str, columns: Sequence[str], what: str) -> None:
    """Make sure that there is something for all names in a pattern.

    Args:
        pattern: with names in braces, such as ``t1/{id}.nii.gz``.
        columns: names that there are.
        what: whose columns they are, for messages.

    Raises:
        InputError: a name is none of them.
    """
    for name in re.findall(r"\{([^{}]*)\}", pattern):
        if name not in columns:
            raise InputError(
                f"{what}: there is no {name!r} for {pattern!r}; there are {', '.join(columns)}"
            )


def _filled(pattern: str, words: Mapping[str, str]) -> str | None:
    """The pattern with the words in their places; None where one of them is empty."""
    names = re.findall(r"\{([^{}]*)\}", pattern)
    if not all(words.get(name) for name in names):
        return None
    return re.sub(r"\{([^{}]*)\}", lambda match: words[match[1]], pattern)


def records_of(table: Path) -> tuple[list[Record], list[str]]:
    """The rows of a table that are not blank, and the names of all columns.

    Raises:
        InputError: it cannot be read, is empty, or is no table.
    """
    check_readable(table, "table")
    if table.is_dir():
        raise InputError(f"table {table}: this is a folder, a file is wanted")
    try:
        text = table.read_text(encoding="utf-8-sig")
        read = _json_lines if table.suffix.lower() in JSON_LINES else _csv
        records = [record for record in read(table, text) if any(record.words.values())]
    except OSError as error:
        raise InputError(f"table {table}: cannot be read: {error.strerror or error}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"table {table}: this is no table of UTF-8 text ({error})") from error
    if not records:
        raise InputError(f"table {table}: there are no rows in it")
    return records, list(dict.fromkeys(name for record in records for name in record.words))


def _csv(table: Path, text: str) -> Iterator[Record]:
    """Rows are counted as lines, as editors and spreadsheets do: the first holds the names."""
    top = text.partition("\n")[0]
    is_tabbed = table.suffix.lower() == ".tsv" or ("\t" in top and "," not in top)
    reader = csv.reader(io.StringIO(text), delimiter="\t" if is_tabbed else ",", strict=True)
    columns = [name.strip() for name in next(reader, [])]
    if len(set(columns)) < len(columns):
        raise InputError(f"table {table}: two columns have the same name ({', '.join(columns)})")
    for values in reader:
        where = f"{table.name} row {reader.line_num}"
        if len(values) > len(columns):
            raise InputError(
                f"{where}: it has {len(values)} fields, the first row of {table} {len(columns)}"
            )
        words = [value.strip() for value in values] + [""] * (len(columns) - len(values))
        yield Record(where, dict(zip(columns, words, strict=True)))


def _json_lines(table: Path, text: str) -> Iterator[Record]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        where = f"{table.name} row {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{where}: it is not JSON ({error}) in {table}") from error
        if not isinstance(row, dict):
            raise InputError(f"{where}: a JSON object is wanted, got {line.strip()[:40]}")
        for name, value in row.items():
            if isinstance(value, (bool, list, dict)):
                raise InputError(f"{where}: {name}: a word or a number is wanted, got {value!r}")
        words = {name: "" if value is None else str(value) for name, value in row.items()}
        yield Record(where, {name: word.strip() for name, word in words.items()})
