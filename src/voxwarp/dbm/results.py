"""The results of ``voxwarp cohort`` or ``voxwarp template`` that are measured."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .._files import check_readable
from .._json import read_json
from ..cohort.bids_names import BidsName
from ..cohort.derivatives import records
from ..errors import InputError

FEWEST = 1


@dataclass(frozen=True)
class GroupResult:
    """A scan that was registered to the space of the group.

    Args:
        key: of the scan, such as sub-01.
        name: of the scan in BIDS, its space left out.
        space: the name of the space.
        folder: of its derivatives.
        scan: the file of the scan itself.
        preparation: brain_extract, extractor and bias, as it was prepared.
    """

    key: str
    name: BidsName
    space: str
    folder: Path
    scan: Path
    preparation: Mapping[str, Any] = field(default_factory=dict)

    @property
    def subject(self) -> str:
        """The label of the person."""
        return self.name.entities["sub"]

    @property
    def session(self) -> str | None:
        """The label of the session, if there are sessions."""
        return self.name.entities.get("ses")

    def file(self, suffix: str, extension: str, **labels: str) -> Path:
        """A file of the result."""
        name = replace(self.name, suffix=suffix, extension=extension).with_entities(**labels)
        return self.folder / str(name)

    @property
    def to_scan(self) -> Path:
        """The map from points of the space to points of the scan."""
        own = self.name.suffix
        return self.file("xfm", ".h5", **{"from": own, "to": self.space, "mode": "image"})

    @property
    def mask(self) -> Path:
        """The brain mask on the grid of the scan."""
        return self.file("mask", ".nii.gz", desc="brain")

    @property
    def mask_in_space(self) -> Path:
        """The brain mask in the space."""
        return self.file("mask", ".nii.gz", space=self.space, desc="brain")

    def as_json(self) -> dict[str, Any]:
        """The result as plain values."""
        return {
            "key": self.key,
            "name": [dict(self.name.entities), self.name.suffix],
            "space": self.space,
            "folder": str(self.folder.absolute()),
            "scan": str(self.scan.absolute()),
            "preparation": dict(self.preparation),
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "GroupResult":
        """The result from ``as_json``."""
        entities, suffix = values["name"]
        return cls(
            values["key"],
            BidsName(entities, suffix, ".nii.gz"),
            values["space"],
            Path(values["folder"]),
            Path(values["scan"]),
            values["preparation"],
        )


def find_results(folder: Path) -> list[GroupResult]:
    """Find the results in a folder, in the order of their keys.

    Raises:
        InputError: there are none, a record is damaged, or they are in several spaces.
    """
    check_readable(folder, "results")
    found = [_result(path) for path in records(folder)] if folder.is_dir() else []
    if len(found) < FEWEST:
        raise InputError(
            f"results {folder}: there is no result of voxwarp cohort or voxwarp template"
        )
    spaces = sorted({one.space for one in found})
    if len(spaces) > 1:
        raise InputError(
            f"results {folder}: they are in several spaces ({', '.join(spaces)}); measure each "
            f"alone"
        )
    return sorted(found, key=lambda one: one.key)


def _result(path: Path) -> GroupResult:
    name = BidsName.of(path)
    try:
        record = read_json(path)
        key, scan = record["cohort"]["key"], record["inputs"]["moving"]["path"]
        preparation = {x: record["settings"][x] for x in ("brain_extract", "extractor", "bias")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"result {path}: its record cannot be read ({error})") from error
    if name is None or "space" not in name.entities:
        raise InputError(f"result {path}: its name has no space")
    suffix = _suffix(path, name)
    own = replace(name, suffix=suffix).with_entities(space=None, desc=None)
    return GroupResult(str(key), own, name.entities["space"], path.parent, Path(scan), preparation)


def _suffix(path: Path, name: BidsName) -> str:
    """The suffix of the scan, T1w but for templates of other contrasts."""
    entities = {**name.entities, "desc": "preproc"}
    stem = str(replace(name, entities=entities, suffix="X", extension="")).removesuffix("X")
    warped = sorted(path.parent.glob(f"{stem}*.nii.gz"))
    names = [found.suffix for file in warped if (found := BidsName.of(file)) is not None]
    return names[0] if names and "T1w" not in names else "T1w"


def pairs_of(
    results: Sequence[GroupResult], times: Mapping[tuple[str, str], float] | None = None
) -> list[tuple[GroupResult, GroupResult]]:
    """The first and the last scan of each person who has several.

    Args:
        results: of the scans.
        times: years by person and session; without them, the sessions are in the order of their
            labels, numbers in them by their size.

    Raises:
        InputError: nobody has several, or a time is missing.
    """
    by_person = defaultdict[str, list[GroupResult]](list)
    for one in results:
        by_person[one.subject].append(one)
    pairs = []
    for own in by_person.values():
        if len(own) > 1:
            if times is None:
                ordered = sorted(own, key=_natural)
            else:
                ordered = sorted(own, key=lambda one: time_of(one, times))
            pairs.append((ordered[0], ordered[-1]))
    if not pairs:
        raise InputError(
            "longitudinal: no person has results of two scans; register each session, with "
            "`subject_anatomical_reference=sessionwise` of voxwarp cohort"
        )
    return pairs


def time_of(result: GroupResult, times: Mapping[tuple[str, str], float]) -> float:
    """When a scan was made, years.

    Raises:
        InputError: the table of times does not say.
    """
    key = result.subject, result.session or ""
    if key not in times:
        raise InputError(f"times: there is no time of sub-{key[0]}, ses-{key[1]}")
    return times[key]


def _natural(result: GroupResult) -> list[tuple[int, str]]:
    """A key by which 2 comes before 10."""
    parts = re.findall(r"\d+|\D+", result.session or result.key)
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]
