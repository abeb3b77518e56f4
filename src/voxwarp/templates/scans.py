"""The scans that a template is built from: files, a table, a folder, or a BIDS data set."""

import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from .._files import check_readable, without_extension
from ..cohort.bids_names import BidsName, label_of
from ..cohort.dataset import CohortScan, CohortScans, Selection, find_scans
from ..cohort.derivatives import LABELS
from ..data.folders import label_maps_of
from ..errors import InputError

DSEG = "dseg"
IMAGES = ".nii", ".nii.gz", ".mgz", ".mgh", ".img", ".hdr"
FEWEST = 2


@dataclass(frozen=True)
class TemplateScans:
    """The scans of a template, in the order of their keys.

    Args:
        root: the folder that they lie in.
        scans: each with its label map and its other contrasts in ``also``.
        skipped: persons without a scan, and why.
    """

    root: Path
    scans: tuple[CohortScan, ...]
    skipped: dict[str, str]

    @property
    def contrasts(self) -> list[str]:
        """The suffixes of the other contrasts that the scans have."""
        names = (name.suffix for scan in self.scans for name, _ in scan.also)
        return sorted({suffix for suffix in names if suffix not in LABELS})

    @property
    def suffix(self) -> str:
        """The suffix of the scans, such as T1w."""
        return self.scans[0].name.suffix


def find_template_scans(
    sources: Sequence[Path], selection: Selection, *, longitudinal: bool = False
) -> TemplateScans:
    """Find the scans, and check that a template can be made of them.

    Args:
        sources: image files; or one table, folder or BIDS data set.
        selection: which scans, and what goes with them.
        longitudinal: whether there may be several scans of one person.

    Raises:
        InputError: there are fewer than two scans, or two of one person; or see
            ``cohort.dataset.find_scans``.
    """
    if longitudinal:
        selection = replace(selection, reference="sessionwise")
    if len(sources) == 1 and not _is_image(sources[0]):
        found = _of_source(sources[0], selection)
    else:
        found = _of_files(sources, selection)
    scans = sorted(found.scans, key=lambda scan: scan.key)
    if len(scans) < FEWEST:
        raise InputError(
            f"scans: a template needs at least {FEWEST} scans, found {len(scans)} "
            f"({scans[0].path if scans else found.root})"
        )
    _check_suffixes(scans)
    _check_persons(scans, longitudinal)
    _check_others(scans, selection)
    return TemplateScans(found.root, tuple(scans), dict(found.skipped))


def persons_of(scans: Sequence[CohortScan]) -> list[list[int]]:
    """The numbers of the scans of each person, in the order of the scans."""
    persons = defaultdict[str, list[int]](list)
    for number, scan in enumerate(scans):
        persons[scan.subject].append(number)
    return list(persons.values())


def labels_of(scan: CohortScan) -> Path | None:
    """The label map of a scan, if it has one."""
    return next((path for name, path in scan.also if name.suffix == DSEG), None)


def _is_image(path: Path) -> bool:
    return not path.is_dir() and path.name.lower().endswith(IMAGES)


def _of_source(source: Path, selection: Selection) -> CohortScans:
    found = find_scans(source, selection)
    if not found.is_bids or selection.labels is None:
        return found
    maps = label_maps_of([scan.path for scan in found.scans], found.root, selection.labels)
    return replace(found, scans=tuple(_with_labels(s, maps.get(s.path)) for s in found.scans))


def _of_files(paths: Sequence[Path], selection: Selection) -> CohortScans:
    """The scans of a list of files; names of BIDS say who is who, all others are persons."""
    if not paths:
        raise InputError(f"scans: a template needs at least {FEWEST} scans, none were given")
    for path in paths:
        check_readable(path, "scan")
        if path.is_dir():
            raise InputError(f"scan {path}: this is a folder; give one folder, or files alone")
    twice = [path for path, n in Counter(map(os.path.realpath, paths)).items() if n > 1]
    if twice:
        raise InputError(f"scan {twice[0]}: it is given twice; give each scan once")
    wanted = {
        "participant_label": selection.participants,
        "bids_filter_file": selection.filters,
        "also": selection.also,
        "scan": selection.scan,
        "split": selection.split,
    }
    if given := [option for option, value in wanted.items() if value]:
        needed = "table" if given[0] in ("scan", "split") else "BIDS data set"
        raise InputError(f"{given[0]} needs a {needed}, but files were given")
    root = Path(os.path.commonpath([path.absolute().parent for path in paths]))
    maps = {}
    if selection.labels is not None:
        maps = label_maps_of([path.absolute() for path in paths], root, selection.labels)
    scans = []
    stems = Counter(without_extension(path.name) for path in paths)
    for path in (path.absolute() for path in paths):
        name = BidsName.of(path)
        if name is not None and "sub" in name.entities:
            name = replace(name, extension=".nii.gz").with_entities(space=None, desc=None)
        else:
            stem = without_extension(path.name)
            unique = stem if stems[stem] == 1 else str(path.relative_to(root))
            label = label_of(without_extension(unique))
            if not label:
                raise InputError(
                    f"scan {path}: its name has no letter or digit, which names of BIDS need"
                )
            name = BidsName({"sub": label}, "T1w", ".nii.gz")
        session = name.entities.get("ses")
        folder = Path(f"sub-{name.entities['sub']}", *([f"ses-{session}"] if session else ()))
        key = str(name).removesuffix(f"_{name.suffix}.nii.gz")
        scan = CohortScan(key, name, path, folder / "anat")
        scans.append(_with_labels(scan, maps.get(path)))
    keys = Counter(scan.key for scan in scans)
    if doubles := [scan for scan in scans if keys[scan.key] > 1]:
        raise InputError(
            f"scans {doubles[0].path} and {doubles[1].path}: both would be {doubles[0].key} in "
            f"BIDS; give them other names"
        )
    return CohortScans(root, tuple(scans), {}, False)


def _with_labels(scan: CohortScan, labels: Path | None) -> CohortScan:
    if labels is None:
        return scan
    entities = dict(scan.name.entities)
    also = [(name, path) for name, path in scan.also if name.suffix != DSEG]
    return replace(scan, also=(*also, (BidsName(entities, DSEG, ".nii.gz"), labels)))


def _check_suffixes(scans: Sequence[CohortScan]) -> None:
    first = scans[0]
    other = next((scan for scan in scans if scan.name.suffix != first.name.suffix), None)
    if other is not None:
        raise InputError(
            f"scans {first.path} and {other.path}: their names say {first.name.suffix} and "
            f"{other.name.suffix}; a template is made of one contrast, and other contrasts follow "
            f"it with `also`"
        )


def _check_persons(scans: Sequence[CohortScan], longitudinal: bool) -> None:
    by_person = defaultdict[str, list[CohortScan]](list)
    for scan in scans:
        by_person[scan.subject].append(scan)
    several = next((own for own in by_person.values() if len(own) > 1), None)
    if several is not None and not longitudinal:
        raise InputError(
            f"scans {several[0].path} and {several[1].path}: both are of sub-{several[0].subject}, "
            f"who would count twice; give one scan of each person, or `longitudinal`"
        )


def _check_others(scans: Sequence[CohortScan], selection: Selection) -> None:
    """All scans must have what was asked for, or the averages would be of other people."""
    has_labels = any(labels_of(scan) is not None for scan in scans)
    wanted = [*selection.also, *([DSEG] if has_labels else [])]
    for suffix in dict.fromkeys(wanted):
        for scan in scans:
            own = [path for name, path in scan.also if name.suffix == suffix]
            if not own:
                what = "label map" if suffix == DSEG else f"{suffix} image"
                raise InputError(f"scan {scan.path}: it has no {what}, but others have")
            if len(own) > 1:
                raise InputError(
                    f"scan {scan.path}: it has {len(own)} images {suffix} ({own[0].name}, "
                    f"{own[1].name}); choose one with a filter file"
                )
