"""Several scans in one command: a result folder for each, and files given once for each."""

import os
from collections import Counter
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TypeVar

from ._files import without_extension
from .errors import InputError

T = TypeVar("T")


def folders_of(scans: Sequence[Path], out: Path) -> list[Path]:
    """A folder in ``out`` for each scan, of its name without the extension.

    Scans that share a name get the names of those folders above them in front that tell them
    apart: ``sub-01/anat/T1w.nii.gz`` and ``sub-02/anat/T1w.nii.gz`` become ``sub-01_T1w`` and
    ``sub-02_T1w``.

    Raises:
        InputError: the folders above them do not tell them apart.
    """
    names = [without_extension(scan.name) for scan in scans]
    namesakes: dict[str, list[int]] = {}
    for number, name in enumerate(names):
        namesakes.setdefault(name, []).append(number)
    for numbers in namesakes.values():
        folders = _distinctive_folders([scans[number] for number in numbers])
        for number, above in zip(numbers, folders, strict=True):
            names[number] = "_".join([*above, names[number]])
    name = max(names, key=Counter(names).__getitem__)
    if names.count(name) > 1:
        raise InputError(
            f"output {out / name}: two of the scans would have this folder, because neither their "
            f"names nor those of the folders above them differ; give each a command and an output "
            f"folder of its own"
        )
    return [out / name for name in names]


def _distinctive_folders(scans: Sequence[Path]) -> list[list[str]]:
    """The folders above each scan that are not the same for all of them, from the top."""
    paths = [Path(os.path.abspath(scan)).parts[:-1] for scan in scans]
    common = 0
    for level in zip(*paths, strict=False):
        if len(set(level)) > 1:
            break
        common += 1
    paths = [path[common:][::-1] for path in paths]
    levels = list(zip_longest(*paths))  # counted from the scans
    differ = [len(set(level)) > 1 for level in levels]
    return [[name for name, d in zip(path, differ, strict=False) if d][::-1] for path in paths]


def one_per_scan(files: Sequence[T] | None, scans: Sequence[object], name: str) -> list[T | None]:
    """The files of an option that is given once for each scan, or not at all.

    Args:
        files: in the order of the scans.
        scans: the scans.
        name: of the option's parameter.

    Raises:
        InputError: there is not one for each scan.
    """
    if not files:
        return [None] * len(scans)
    if len(files) != len(scans):
        raise InputError(
            f"{name} must be given once for each scan, in the order of the scans: got "
            f"{len(files)} file{'s' * (len(files) != 1)} for {len(scans)} "
            f"scan{'s' * (len(scans) != 1)}"
        )
    return list(files)
