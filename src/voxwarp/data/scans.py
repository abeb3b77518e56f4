"""The scans of tables, folders and BIDS data sets, each with its split."""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from .._files import check_readable, without_extension
from ..errors import InputError
from .folders import images_in_bids, images_in_folder, label_maps_of
from .sources import SPLITS, Data, ScanSource, Split
from .splits import SubjectKey, draw_splits, first_subjects
from .tables import Record, check_columns, fill_pattern, read_table


@dataclass(frozen=True)
class ScanRecord:
    """A scan in a list, before its file is read.

    Args:
        path: file of the image.
        labels: file of its label map, or None.
        subject: name of the subject in the data set.
        dataset: name of the data set.
        split: split of the subject: train, val or test.
        where: the place that lists the scan, such as "subjects.csv row 3", for messages.
        licence: licence of the scan, or None.
    """

    path: Path
    labels: Path | None
    subject: str
    dataset: str
    split: Split
    where: str
    licence: str | None = None

    @property
    def key(self) -> SubjectKey:
        """Data set and name, which together identify the subject."""
        return self.dataset, self.subject


class _Row(NamedTuple):
    """A ``ScanRecord`` whose split may still be open."""

    path: Path
    labels: Path | None
    subject: str
    dataset: str
    split: Split | None
    where: str
    licence: str | None

    @property
    def key(self) -> SubjectKey:
        return self.dataset, self.subject


def gather(data: Data, seed: int) -> list[ScanRecord]:
    """List the scans of a training: ``scans_of`` all sources, limited to ``data.subjects``.

    Args:
        data: the ``data`` section of a configuration, with absolute paths.
        seed: seed of the splits.

    Raises:
        InputError: see ``scans_of``; or no scan is in split train.
    """
    scans = scans_of(data, seed)
    train = {scan.key for scan in scans if scan.split == "train"}
    if not train:
        raise InputError(
            f"data: none of the {len(scans)} scans is in split train; check the column split of "
            f"the tables and data.fractions"
        )
    if data.subjects is None:
        return scans
    chosen = first_subjects(train, data.subjects, seed)
    return [scan for scan in scans if scan.split != "train" or scan.key in chosen]


def scans_of(data: Data, seed: int) -> list[ScanRecord]:
    """List the scans of all sources; all scans of a subject are in one split.

    Subjects without a split get one at random, from the seed and their names. So the order of
    the rows does not matter, nor does a further scan of a known subject.

    Args:
        data: the ``data`` section of a configuration, with absolute paths.
        seed: seed of the splits.

    Raises:
        InputError: a source is missing or empty, a row is wrong, a scan is listed twice, or a
            subject is in two splits.
    """
    _check_names(data.sources)
    rows = [row for source in data.sources for row in _rows(source)]
    _check_duplicates(rows)
    splits = _listed_splits(rows)
    splits |= draw_splits({r.key for r in rows if r.key not in splits}, data.fractions, seed)
    return [ScanRecord(**{**row._asdict(), "split": splits[row.key]}) for row in rows]


def _listed_splits(rows: Iterable[_Row]) -> dict[SubjectKey, Split]:
    """The splits that the rows name; all rows of a subject must agree."""
    splits: dict[SubjectKey, Split] = {}
    first_rows: dict[SubjectKey, _Row] = {}
    for row in rows:
        if row.split is None:
            continue
        first = first_rows.setdefault(row.key, row)
        if first.split != row.split:
            raise InputError(
                f"subject {row.subject!r} of {row.dataset} is in two splits: {first.split} "
                f"({first.where}, {first.path.name}) and {row.split} ({row.where}, "
                f"{row.path.name}); put all scans of a subject into one split"
            )
        splits[row.key] = row.split
    return splits


def _check_names(sources: Iterable[ScanSource]) -> None:
    """Refuse two folders of one name: equal subject names in them would count as one subject."""
    folders: dict[str, Path] = {}
    for source in sources:
        folder = _folder(source)
        if source.dataset is None and folders.setdefault(folder.name, folder) != folder:
            raise InputError(
                f"data.sources: {folders[folder.name]} and {folder} would both be the data set "
                f"{folder.name!r}; name one of them with dataset"
            )


def _check_duplicates(rows: Iterable[_Row]) -> None:
    rows_by_path: dict[str, _Row] = {}
    for row in rows:
        first = rows_by_path.setdefault(os.path.realpath(row.path), row)
        if first is not row:
            raise InputError(
                f"{row.where}: scan {row.path} is listed already ({first.where}); list each scan "
                f"once"
            )


def _folder(source: ScanSource) -> Path:
    """The folder that the paths of a source are relative to."""
    if source.table is not None:
        return Path(source.table).absolute().parent
    return Path(source.folder or source.bids or "").absolute()


# ------------------------------------------------------------------------------------- Sources


def _rows(source: ScanSource) -> list[_Row]:
    if source.table is not None:
        return _rows_of_table(source, Path(source.table))
    folder = _folder(source)
    what = "folder" if source.folder is not None else "BIDS data set"
    check_readable(folder, what)
    if not folder.is_dir():
        raise InputError(f"{what} {folder}: this is a file, but it must be a folder")
    try:
        return _rows_of_folder(source, folder, what)
    except OSError as error:
        raise InputError(f"{what} {folder}: cannot be read: {error.strerror or error}") from error


def _rows_of_folder(source: ScanSource, folder: Path, what: str) -> list[_Row]:
    """Rows for the files in a folder or BIDS data set."""
    if source.folder is not None:
        pattern = source.scan or "*.nii.gz"
        subjects = images_in_folder(folder, pattern)
    else:
        pattern = f"sub-*/[ses-*/]anat/*_{source.suffix}.nii[.gz]"
        subjects = images_in_bids(folder, source.suffix)
    if not subjects:
        raise InputError(f"{what} {folder}: no file in it matches {pattern}")
    labels = {} if source.labels is None else label_maps_of(subjects, folder, source.labels)
    maps = set(labels.values())  # they may be among the scans and match their pattern
    dataset, where = source.dataset or folder.name, folder.name
    return [
        _Row(path, labels.get(path), subject, dataset, source.split, where, source.licence)
        for path, subject in subjects.items()
        if path not in maps
    ]


def _rows_of_table(source: ScanSource, table: Path) -> list[_Row]:
    """Rows for the scans that a table lists."""
    records, columns = read_table(table)
    scan = source.scan or "{scan}"
    labels = source.labels or ("{labels}" if "labels" in columns else "")
    for pattern in (scan, labels):
        check_columns(pattern, columns, table)
    paths = [_path_in(table, scan, record) for record in records]
    names = _names(table, paths)
    return [
        _Row(
            path,
            _path_in(table, labels, record)
            if labels and fill_pattern(labels, record.values)
            else None,
            # "person" is the former name of the column.
            record.values.get("subject") or record.values.get("person") or name,
            record.values.get("dataset") or source.dataset or _folder(source).name,
            _split_of(record) or source.split,
            record.where,
            source.licence,
        )
        for record, path, name in zip(records, paths, names, strict=True)
    ]


def _names(table: Path, paths: Sequence[Path]) -> list[str]:
    """Names for subjects that the table does not name: those of their scans."""
    stems = [without_extension(path.name) for path in paths]
    counts = Counter(stems)
    return [
        # File names may be equal, as in 01/T1.nii.gz and 02/T1.nii.gz.
        without_extension(os.path.relpath(path, table.parent)) if counts[stem] > 1 else stem
        for path, stem in zip(paths, stems, strict=True)
    ]


def _path_in(table: Path, pattern: str, record: Record) -> Path:
    name = fill_pattern(pattern, record.values)
    path = Path(os.path.normpath(table.absolute().parent / (name or "/")))
    if not path.name or "\0" in str(path):
        problem = (
            f"a column that {pattern} needs is empty"
            if name is None
            else f"{name!r} is not a valid path"
        )
        raise InputError(f"{record.where}: {problem}, in {table}")
    return path


def _split_of(record: Record) -> Split | None:
    name = record.values.get("split", "").lower()
    if not name:
        return None
    for split in SPLITS:
        if name == split:
            return split
    raise InputError(f"{record.where}: split must be {', '.join(SPLITS)} or empty, got {name!r}")
