"""The transforms in a folder of register or antsRegistration: which files they are, and why not."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from .._files import check_readable
from .._layout import (
    AFFINE,
    COMPOSITE,
    INVERSE_COMPOSITE,
    INVERSE_WARP,
    METRICS,
    PREPROCESSED,
    WARP,
)
from .._lock import WAITING
from ..errors import InputError
from ..space.composite import is_composite_name
from .record import is_linear, read_record

# Without an affine, antsRegistration numbers its only deformation 0.
_FIRST_WARP, _FIRST_INVERSE = (name.replace("1", "0") for name in (WARP, INVERSE_WARP))
# Files that hold, or may hold, a deformation; one that is overlooked would be a wrong result.
_DEFORMATION = re.compile(
    r".*(warp|field|displacement)\.(nii(\.gz)?|mha|nrrd)|.*\.h5", re.IGNORECASE
)
_STAGE = re.compile(r"\d+(DerivedInitial\w+|Translation|Rigid|Similarity|Affine)\.mat")


@dataclass(frozen=True)
class TransformFiles:
    """The files of a transform.

    Args:
        affine: its linear part; None if it has none.
        warp: its deformation; None if it is linear.
        inverse_warp: the inverse of the deformation, if there is a file of it.
        composite: both parts in one file, if they are there in no other way.
        inverse_composite: the inverse of that.
    """

    affine: Path | None
    warp: Path | None
    inverse_warp: Path | None
    composite: Path | None = None
    inverse_composite: Path | None = None


def transform_files(folder: Path) -> TransformFiles:
    """Find the transforms in a folder of ``register`` or antsRegistration, with any one prefix.

    A folder without a deformation is that of a linear registration (``antsRegistration -t a``),
    unless it has a record that says otherwise.

    Raises:
        InputError: files are missing, there are several of a kind, or nothing is understood; the
            message says what would do.
    """
    try:
        names = sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except OSError as error:
        raise InputError(
            f"transform {folder}: cannot be read: {error.strerror or error}"
        ) from error
    if METRICS not in names and (folder / WAITING).exists():  # the record is moved last
        raise InputError(
            f"transform {folder}: a command is moving its files here, or was killed while it did, "
            f"so they may not belong together; run it again with `overwrite`"
        )
    composite = _composites(folder, names)
    if composite is not None and not _ending(names, AFFINE) + _ending(names, _FIRST_WARP):
        return composite
    if METRICS in names:
        check_readable(folder / METRICS, "transform")
        if is_linear(read_record(folder)):
            return TransformFiles(_file(folder, names, AFFINE), None, None)
    deformations = [name for name in names if _DEFORMATION.fullmatch(name)]
    if _ending(names, _FIRST_WARP) and not _ending(names, AFFINE):
        return TransformFiles(None, *_warps(folder, names, _FIRST_WARP, _FIRST_INVERSE))
    affine = _file(folder, names, AFFINE)
    if METRICS not in names and not deformations:
        return TransformFiles(affine, None, None)
    return TransformFiles(affine, *_warps(folder, names, WARP, INVERSE_WARP))


def _composites(folder: Path, names: list[str]) -> TransformFiles | None:
    """The composites of a folder, which antsRegistration writes in place of the other files."""
    inverse = _ending(names, INVERSE_COMPOSITE)
    forward = [name for name in _ending(names, COMPOSITE) if name not in inverse]
    if len(forward) != 1 or len(inverse) > 1:
        return None
    return TransformFiles(
        None, None, None, folder / forward[0], folder / inverse[0] if inverse else None
    )


def _warps(folder: Path, names: list[str], warp: str, inverse: str) -> tuple[Path, Path | None]:
    has_inverse = bool(_ending(names, inverse))
    return _file(folder, names, warp), _file(folder, names, inverse) if has_inverse else None


def _ending(names: list[str], name: str) -> list[str]:
    """The name, or else those that end in it; warps may be unzipped."""
    wanted = (name.lower(), name.lower().removesuffix(".gz"))
    same = [n for n in names if n.lower() in wanted]
    return same or [n for n in names if n.lower().endswith(wanted)]


def _file(folder: Path, names: list[str], name: str) -> Path:
    """The file of that name, or else the only one whose name ends in it."""
    files = _ending(names, name)
    if not files:
        raise InputError(
            f"transform {folder}: {name} is missing; give a folder with the transforms of "
            f"register, preprocess or antsRegistration{_nearest(folder, names)}"
        )
    if len(files) > 1:
        raise InputError(
            f"transform {folder}: {len(files)} files end in {name} ({', '.join(files)}); give the "
            f"files of one of them in place of the folder, the affine before the warp"
        )
    return folder / files[0]


def _nearest(folder: Path, names: list[str]) -> str:
    """What is in a folder that would do, to be added to a message."""
    linear = [str(folder / n) for n in names if n.lower().endswith((".mat", ".tfm"))]
    if any(_STAGE.fullmatch(name) for name in names):
        return (
            f"; these are the single stages of antsRegistration, which writes {AFFINE} and {WARP} "
            f"with --collapse-output-transforms 1 (its default); without the deformation, give the "
            f"files: -t {' -t '.join(linear)}"
        )
    if composites := [str(folder / n) for n in names if is_composite_name(n)]:
        return f", or a composite transform such as {composites[0]}"
    if linear:
        return f", or a single linear transform such as {linear[0]}"
    inside = [n for n in names if any((folder / n / f).is_file() for f in (AFFINE, PREPROCESSED))]
    return f", such as {folder / inside[0]}" if inside else ""
