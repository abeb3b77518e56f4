"""The scans of a cohort: of a BIDS data set, a table or a folder, and what belongs to each."""

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from .._files import check_readable
from .._json import read_json
from ..data.scans import scans_of
from ..data.sources import Data
from ..data.tables import read_table
from ..errors import InputError
from .bids_names import LONG_NAMES, BidsName, label_of, without_prefix

Reference = Literal["first-lex", "sessionwise", "unbiased"]
#: Values of a filter: one label or several; None, if the entity must be absent; * for any.
Filters = Mapping[str, Mapping[str, str | int | Sequence[str | int] | None]]

T1W = "T1w"
LESION = {"label": "lesion", "suffix": "roi"}
_DATATYPES = "anat", "func", "dwi", "perf", "pet", "fmap"
_IMAGES = ".nii", ".nii.gz"


@dataclass(frozen=True)
class CohortScan:
    """A scan that is to be registered, and what goes with it.

    Args:
        key: of the person, or the session if there are sessions, such as sub-01 or sub-01_ses-a;
            logs and reports have it as their names.
        name: of the scan in BIDS.
        path: of the scan.
        folder: of its results, relative to the derivatives.
        also: other images in its space that take the same way, by their names in BIDS.
        lesions: masks of lesions in its space.
        choice: why this scan was taken, if there were others; else empty.
    """

    key: str
    name: BidsName
    path: Path
    folder: Path
    also: tuple[tuple[BidsName, Path], ...] = ()
    lesions: tuple[Path, ...] = ()
    choice: str = ""

    @property
    def subject(self) -> str:
        """The label of the person."""
        return self.name.entities["sub"]

    @property
    def inputs(self) -> list[Path]:
        """All files that its results depend on."""
        return [self.path, *(path for _, path in self.also), *self.lesions]

    def as_json(self) -> dict[str, Any]:
        """The scan as plain values, with absolute paths."""
        return {
            "key": self.key,
            "name": asdict(self.name),
            "path": str(self.path.absolute()),
            "folder": str(self.folder),
            "also": [[asdict(name), str(path.absolute())] for name, path in self.also],
            "lesions": [str(path.absolute()) for path in self.lesions],
            "choice": self.choice,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "CohortScan":
        """The scan from ``as_json``."""
        return cls(
            key=values["key"],
            name=BidsName(**values["name"]),
            path=Path(values["path"]),
            folder=Path(values["folder"]),
            also=tuple((BidsName(**name), Path(path)) for name, path in values["also"]),
            lesions=tuple(map(Path, values["lesions"])),
            choice=values["choice"],
        )


@dataclass(frozen=True)
class Selection:
    """Which scans of a data set are meant.

    Args:
        participants, sessions: labels, with or without sub- and ses-; none means all.
        filters: by query (t1w, or a suffix in lower case) the values that entities must have, as in
            the filter files of fMRIPrep.
        reference: which scan stands for a person or a session if there are several.
        also: suffixes of further images, such as T2w, dseg or bold.
        lesion: whether masks of lesions (label-lesion_roi) belong to the scans.
        scan, labels: of a table or a folder, the patterns of the paths of scans and label maps, see
            ``data.sources.ScanSource``.
        split: of a table, the split of the scans; None means all.
    """

    participants: Sequence[str] = ()
    sessions: Sequence[str] = ()
    filters: Filters = field(default_factory=dict)
    reference: Reference = "first-lex"
    also: Sequence[str] = ()
    lesion: bool = False
    scan: str | None = None
    labels: str | None = None
    split: str | None = None

    def __post_init__(self) -> None:
        if self.reference not in get_args(Reference):
            raise InputError(
                f"subject_anatomical_reference must be {', '.join(get_args(Reference))}, got "
                f"{self.reference!r}"
            )
        if self.reference == "unbiased":
            raise InputError(
                "subject_anatomical_reference: a cohort does not build unbiased templates of "
                "persons; use first-lex or sessionwise, or build them with voxwarp template"
            )


@dataclass(frozen=True)
class CohortScans:
    """What was found.

    Args:
        root: the folder of the data set; of a table, the folder that it is in.
        scans: in the order of their keys.
        skipped: by the key of a person without a scan, why; a sentence each.
        is_bids: whether the scans lie in a BIDS data set.
    """

    root: Path
    scans: tuple[CohortScan, ...]
    skipped: Mapping[str, str]
    is_bids: bool


def find_scans(source: Path, selection: Selection) -> CohortScans:
    """Find the scans of a BIDS data set, a table (see ``training``) or a folder of images.

    Args:
        source: the folder of the data set or of the images, or the file of the table.
        selection: which scans are meant.

    Raises:
        InputError: there is no such data set, no scan in it, or a label that was asked for is not
            there.
    """
    check_readable(source, "bids_dir")
    subjects = _folders(source, "sub") if source.is_dir() else []
    if subjects:
        for option in ("scan", "split"):
            if getattr(selection, option) is not None:
                raise InputError(
                    f"{option} needs a table of scans, but {source} is a BIDS data set"
                )
        return _of_bids(source, subjects, selection)
    return _of_list(source, selection)


def read_filters(path: Path) -> Filters:
    """Read a filter file of fMRIPrep: JSON with entities and their values, by query.

    Raises:
        InputError: the file cannot be read, or is not one.
    """
    check_readable(path, "bids_filter_file")
    try:
        contents = read_json(path)
    except (OSError, ValueError) as error:
        raise InputError(f"bids_filter_file {path}: this is not a JSON file ({error})") from error
    is_right = isinstance(contents, dict) and all(isinstance(v, dict) for v in contents.values())
    if not is_right:
        raise InputError(
            f'bids_filter_file {path}: expected an object of objects, such as {{"t1w": '
            f'{{"session": "01"}}}}'
        )
    return {
        query.lower(): {_short(entity): _value(path, value) for entity, value in wanted.items()}
        for query, wanted in contents.items()
    }


def _short(entity: str) -> str:
    return LONG_NAMES.get(entity, entity)


_WORDS: dict[str, Any] = {
    "Query.ANY": "*",
    "Query.REQUIRED": "*",
    "Query.NONE": None,
    "Query.OPTIONAL": [],
}


def _value(path: Path, value: Any) -> Any:
    """A value of a filter; PyBIDS' words for present and absent are * and None."""
    if isinstance(value, str) and value in _WORDS:
        return _WORDS[value]
    if isinstance(value, list):
        return [_value(path, one) for one in value]
    if value is None or isinstance(value, str | int):
        return value
    raise InputError(
        f"bids_filter_file {path}: a value must be a label, a list of labels or null, got {value!r}"
    )


# ---------------------------------------------------------------------------------------- BIDS


@dataclass(frozen=True)
class _Session:
    """A folder of scans: that of a session, or of a person without sessions."""

    folder: Path
    label: str | None
    files: tuple[tuple[BidsName, Path], ...]

    def matching(self, suffix: str, filters: Filters) -> list[tuple[BidsName, Path]]:
        wanted = {"suffix": suffix, **filters.get(suffix.lower(), {})}
        return [(name, path) for name, path in self.files if _passes(name, path, wanted)]


def _of_bids(root: Path, subjects: list[Path], selection: Selection) -> CohortScans:
    chosen = _asked_for(subjects, selection.participants, root)
    scans, skipped = list[CohortScan](), dict[str, str]()
    for folder in chosen:
        found = _scans_of_subject(root, folder, selection)
        scans.extend(found)
        if not found:
            skipped[folder.name] = f"{folder}: there is no T1w scan{_of_sessions(selection)}"
    if not scans:
        first = next(iter(skipped.values()), f"{root}: there is no T1w scan")
        raise InputError(f"bids_dir {first}")
    return CohortScans(root, tuple(scans), skipped, True)


def _of_sessions(selection: Selection) -> str:
    parts = []
    if selection.sessions:
        parts.append(f"of session {', '.join(selection.sessions)}")
    if selection.filters.get(T1W.lower()):
        parts.append("that passes the filters")
    return f" {' and '.join(parts)}" if parts else ""


def _asked_for(subjects: list[Path], labels: Sequence[str], root: Path) -> list[Path]:
    """The folders of the persons that were asked for, all by default."""
    if not labels:
        return subjects
    by_label = {folder.name.removeprefix("sub-"): folder for folder in subjects}
    wanted = list(dict.fromkeys(without_prefix(label, "sub") for label in labels))
    missing = [label for label in wanted if label not in by_label]
    if missing:
        raise InputError(
            f"participant_label: there is no sub-{missing[0]} in {root}; there are "
            f"{len(by_label)}: {_some(by_label)}"
        )
    return [by_label[label] for label in sorted(wanted)]


def _some(labels: Collection[str]) -> str:
    shown = ", ".join(list(labels)[:10])
    return f"{shown}, ..." if len(labels) > 10 else shown


def _scans_of_subject(root: Path, folder: Path, selection: Selection) -> list[CohortScan]:
    sessions = _sessions(folder, selection.sessions)
    candidates = {s.label: sorted(s.matching(T1W, selection.filters), key=_path) for s in sessions}
    if selection.reference == "sessionwise":
        groups = [[session] for session in sessions if candidates[session.label]]
    else:
        with_scans = [session for session in sessions if candidates[session.label]]
        groups = [with_scans] if with_scans else []
    found = []
    for group in groups:
        first, of_group = group[0], [one for s in group for one in candidates[s.label]]
        name, path = of_group[0]
        key = folder.name if first.label is None else f"{folder.name}_ses-{first.label}"
        found.append(
            CohortScan(
                key=key,
                name=name,
                path=path,
                folder=path.parent.relative_to(root),
                also=tuple(_others(first, selection, path)),
                lesions=tuple(_lesions(first, selection)),
                choice=_choice([one for _, one in of_group], root),
            )
        )
    return found


def _choice(paths: list[Path], root: Path) -> str:
    if len(paths) < 2:
        return ""
    others = ", ".join(str(path.relative_to(root)) for path in paths[1:])
    return (
        f"took {paths[0].relative_to(root)}, the first of {len(paths)} by name (not used: {others})"
    )


def _others(
    session: _Session, selection: Selection, taken: Path
) -> Iterable[tuple[BidsName, Path]]:
    for suffix in selection.also:
        for name, path in sorted(session.matching(suffix, selection.filters), key=_path):
            if path != taken and "space" not in name.entities:
                yield name, path


def _lesions(session: _Session, selection: Selection) -> Iterable[Path]:
    if selection.lesion:
        for name, path in sorted(session.files, key=_path):
            if (name.suffix, name.entities.get("label")) == (LESION["suffix"], LESION["label"]):
                yield path


def _path(file: tuple[BidsName, Path]) -> Path:
    return file[1]


def _sessions(folder: Path, labels: Sequence[str]) -> list[_Session]:
    """The sessions of a person; the person's own folder, if there are none."""
    subject = folder.name.removeprefix("sub-")
    wanted = {without_prefix(label, "ses") for label in labels}
    folders = _folders(folder, "ses")
    if not folders:
        return [] if wanted else [_Session(folder, None, tuple(_images(folder, subject)))]
    of_label = {inner.name.removeprefix("ses-"): inner for inner in folders}
    return [
        _Session(inner, label, tuple(_images(inner, subject)))
        for label, inner in of_label.items()
        if not wanted or label in wanted
    ]


def _folders(place: Path, entity: str) -> list[Path]:
    try:
        with os.scandir(place) as entries:
            names = [e.name for e in entries if e.name.startswith(f"{entity}-") and e.is_dir()]
    except OSError as error:
        raise InputError(f"bids_dir {place}: cannot be read: {error.strerror or error}") from error
    return [place / name for name in sorted(names)]


def _images(folder: Path, subject: str) -> Iterable[tuple[BidsName, Path]]:
    for datatype in _DATATYPES:
        try:
            names = sorted(os.listdir(folder / datatype))
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise InputError(
                f"bids_dir {folder / datatype}: cannot be read: {error.strerror or error}"
            ) from error
        for file in names:
            name = BidsName.of(file)
            if name is None or name.extension not in _IMAGES or file.startswith("."):
                continue
            if name.entities.get("sub") == subject:  # another's would be a mistake
                yield name, folder / datatype / file


def _passes(name: BidsName, path: Path, wanted: Mapping[str, Any]) -> bool:
    """Whether a file has the entities that a filter wants."""
    actual = {
        **name.entities,
        "datatype": path.parent.name,
        "suffix": name.suffix,
        "extension": name.extension,
    }
    for entity, value in wanted.items():
        label = actual.get(entity)
        if value == []:
            continue
        options = value if isinstance(value, list) else [value]
        if not any(
            (option == "*" and label is not None) or _same(label, option, entity)
            for option in options
        ):
            return False
    return True


def _same(label: str | None, wanted: str | int | None, entity: str) -> bool:
    if label is None or wanted is None:
        return label is None and wanted is None
    if isinstance(wanted, int):
        return label.isdigit() and int(label) == wanted
    return label == without_prefix(wanted, entity)


# ---------------------------------------------------------------------------- Tables and folders


def _of_list(source: Path, selection: Selection) -> CohortScans:
    """The scans of a table or of a folder of images; each is a person, or a run of one."""
    if selection.sessions:
        raise InputError(f"session_label needs a BIDS data set, but {source} has no folder sub-*")
    if selection.filters:
        raise InputError(
            f"bids_filter_file needs a BIDS data set, but {source} has no folder sub-*"
        )
    if selection.split is not None and (source.is_dir() or "split" not in read_table(source)[1]):
        raise InputError(f"split needs a table with the column split, but {source} has none")
    if selection.also:
        raise InputError(
            f"also needs a BIDS data set, in which names say what belongs together, but {source} "
            f"is none"
        )
    kind = "folder" if source.is_dir() else "table"
    place = {kind: str(source.absolute()), "scan": selection.scan, "labels": selection.labels}
    data = Data.model_validate({"sources": [place]})
    records = scans_of(data, seed=0)
    if selection.split is not None:
        records = [record for record in records if record.split == selection.split]
        if not records:
            raise InputError(f"split: no scan of {source} is in split {selection.split}")
    wanted = {label_of(without_prefix(label, "sub")) for label in selection.participants}
    runs = dict[str, list[Any]]()
    for record in records:
        label = label_of(record.subject.removeprefix("sub-"))
        if not label:
            raise InputError(
                f"{record.where}: the subject {record.subject!r} has no letter or digit, which the "
                f"names of BIDS need"
            )
        others = runs.setdefault(label, [])
        if others and others[0].subject != record.subject:
            raise InputError(
                f"{record.where}: the subjects {others[0].subject!r} and {record.subject!r} would "
                f"both be sub-{label} in BIDS; give them other names"
            )
        others.append(record)
    if missing := wanted - runs.keys():
        raise InputError(
            f"participant_label: there is no {sorted(missing)[0]} in {source}; there are "
            f"{len(runs)}: {_some(runs)}"
        )
    scans = []
    for label in sorted(wanted or runs):
        for number, record in enumerate(runs[label], 1):
            entities = {"sub": label, **({"run": str(number)} if len(runs[label]) > 1 else {})}
            name = BidsName(entities, T1W, ".nii.gz")
            key = str(name).removesuffix(f"_{T1W}.nii.gz")
            labels = BidsName(entities, "dseg", ".nii.gz")
            also = () if record.labels is None else ((labels, record.labels),)
            folder = Path(f"sub-{label}", "anat")
            scans.append(CohortScan(key, name, record.path, folder, also))
    root = source if source.is_dir() else source.absolute().parent
    return CohortScans(root, tuple(scans), {}, False)
