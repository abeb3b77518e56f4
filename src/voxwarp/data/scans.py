"""The scans that there are: listed from tables, folders and BIDS data sets, each with a split."""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ..errors import InputError
from ..files import check_readable
from .folders import images_in_bids, images_in_folder, label_maps_of, without_suffix
from .sources import SPLITS, Data, ScanSource, Split
from .splits import Subject, drawn_splits, first_subjects
from .tables import Record, check_pattern, filled, read_table


@dataclass(frozen=True)
class ScanRecord:
    """What is known of a scan before it is read.

    Args:
        path: of the image.
        labels: its label map, if it has one.
        subject: as the data set names them.
        dataset: name of the data set.
        split: what the subject is for.
        where: where the scan was named, such as "subjects.csv row 3", for messages.
        licence: of the scan.
    """

    path: Path
    labels: Path | None
    subject: str
    dataset: str
    split: Split
    where: str
    licence: str | None = None

    @property
    def key(self) -> Subject:
        """Who it is: names of subjects are those of their data set."""
        return self.dataset, self.subject


class _Row(NamedTuple):
    """A ``ScanRecord`` whose split may not be decided."""

    path: Path
    labels: Path | None
    subject: str
    dataset: str
    split: Split | None
    where: str
    licence: str | None

    @property
    def key(self) -> Subject:
        return self.dataset, self.subject


def gather(data: Data, seed: int) -> list[ScanRecord]:
    """``scans_of`` a training.

    Raises:
        InputError: see there, or nobody is to be trained on.
    """
    scans = scans_of(data, seed)
    train = {scan.key for scan in scans if scan.split == "train"}
    if not train:
        raise InputError(f"data: none of the {len(scans)} scans is in split train")
    if data.subjects is None:
        return scans
    chosen = first_subjects(train, data.subjects, seed)
    return [scan for scan in scans if scan.split != "train" or scan.key in chosen]


def scans_of(data: Data, seed: int) -> list[ScanRecord]:
    """All scans of the sources, each with a split; those of one subject have the same.

    Subjects without a split are put into one by lots drawn from the seed and their names, so the
    order of the rows does not matter, nor does another scan of somebody who is there already.

    Args:
        data: the configuration's; its paths are absolute.
        seed: of the lots.

    Raises:
        InputError: a source is missing, empty or wrong in a row, a scan is there twice, or a
            subject in two splits.
    """
    _check_names(data.sources)
    rows = [row for source in data.sources for row in _rows(source)]
    _check_duplicates(rows)
    splits = _given_splits(rows)
    splits |= drawn_splits({r.key for r in rows if r.key not in splits}, data.fractions, seed)
    return [ScanRecord(**{**row._asdict(), "split": splits[row.key]}) for row in rows]


def _given_splits(rows: Iterable[_Row]) -> dict[Subject, Split]:
    """The splits that rows give; all rows of a subject agree."""
    splits: dict[Subject, Split] = {}
    given: dict[Subject, _Row] = {}
    for row in rows:
        if row.split is None:
            continue
        first = given.setdefault(row.key, row)
        if first.split != row.split:
            raise InputError(
                f"subject {row.subject!r} of {row.dataset} is in two splits: {first.split} "
                f"({first.where}, {first.path.name}) and {row.split} ({row.where}, "
                f"{row.path.name})"
            )
        splits[row.key] = row.split
    return splits


def _check_names(sources: Iterable[ScanSource]) -> None:
    """Two subjects are one if their names and data sets are: no data set gets a name by chance."""
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


def _place(source: ScanSource) -> Path:
    """The folder that the paths of a source are relative to."""
    if source.table is not None:
        return Path(source.table).absolute().parent
    return Path(source.folder or source.bids or "").absolute()


# ------------------------------------------------------------------------------------- Sources


def _rows(source: ScanSource) -> list[_Row]:
    if source.table is not None:
        return _listed(source, Path(source.table))
    folder = _place(source)
    what = "folder" if source.folder is not None else "BIDS data set"
    check_readable(folder, what)
    if not folder.is_dir():
        raise InputError(f"{what} {folder}: this is a file, a folder is wanted")
    try:
        return _found(source, folder, what)
    except OSError as error:
        raise InputError(f"{what} {folder}: cannot be read: {error.strerror or error}") from error


def _found(source: ScanSource, folder: Path, what: str) -> list[_Row]:
    """Rows of the files in a folder or BIDS data set."""
    if source.folder is not None:
        pattern = source.scan or "*.nii.gz"
        subjects = images_in_folder(folder, pattern)
    else:
        pattern = f"sub-*/[ses-*/]anat/*_{source.suffix}.nii[.gz]"
        subjects = images_in_bids(folder, source.suffix)
    if not subjects:
        raise InputError(f"{what} {folder}: there is no file {pattern} in it")
    labels = {} if source.labels is None else label_maps_of(subjects, folder, source.labels)
    maps = set(labels.values())  # which may lie beside the scans and match their pattern
    dataset, where = source.dataset or folder.name, folder.name
    return [
        _Row(path, labels.get(path), subject, dataset, source.split, where, source.licence)
        for path, subject in subjects.items()
        if path not in maps
    ]


def _listed(source: ScanSource, table: Path) -> list[_Row]:
    """Rows of the scans that a table lists."""
    records, columns = read_table(table)
    scan = source.scan or "{scan}"
    labels = source.labels or ("{labels}" if "labels" in columns else "")
    for pattern in (scan, labels):
        check_pattern(pattern, columns, f"table {table}")
    paths = [_path_in(table, scan, record) for record in records]
    names = _names(table, paths)
    return [
        _Row(
            path,
            _path_in(table, labels, record) if labels and filled(labels, record.words) else None,
            record.words.get("subject") or record.words.get("person") or name,
            record.words.get("dataset") or source.dataset or _place(source).name,
            _split_of(record) or source.split,
            record.where,
            source.licence,
        )
        for record, path, name in zip(records, paths, names, strict=True)
    ]


def _names(table: Path, paths: Sequence[Path]) -> list[str]:
    """What subjects are called who have no name: as their scans are."""
    stems = [without_suffix(Path(path.name)) for path in paths]
    counts = Counter(stems)
    return [
        # As in 01/T1.nii.gz, 02/T1.nii.gz.
        without_suffix(Path(os.path.relpath(path, table.parent))) if counts[stem] > 1 else stem
        for path, stem in zip(paths, stems, strict=True)
    ]


def _path_in(table: Path, pattern: str, record: Record) -> Path:
    name = filled(pattern, record.words)
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
