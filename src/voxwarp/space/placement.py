"""Where the header of an image says that its voxels are, and what is doubtful about it.

Formats differ in what their headers can say, and tools in how they read it. Where the other tools
agree, so does voxwarp, even where nibabel does not; where they differ, or all of them guess, there
is a warning.
"""

import io
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
from nibabel.brikhead import AFNIImage
from nibabel.spatialimages import HeaderDataError, SpatialImage
from scipy.io import whosmat

from ..errors import InputError
from .grid import ALIGNED, MNI, OTHER_TEMPLATE, SCANNER, SPACE_CODES, TALAIRACH, Grid
from .nifti_header import qform, stored_header

# The longest side of a field of view, mm. Below and above, the header has another unit than it
# says, or none of a head. Set by hand: crops and phantoms are smaller than heads, and no bed of a
# scanner is longer.
SMALLEST, LARGEST = 2.0, 2500.0


@dataclass(frozen=True, eq=False)
class Placement:
    """Where the voxels of an image are.

    Args:
        grid: where they are, in mm.
        warnings: what a user must know of how the header says it, in at most one sentence.
    """

    grid: Grid
    warnings: tuple[str, ...] = ()


def placement_of(image: SpatialImage, which: str) -> Placement:
    """Where the voxels of an image are, by its header; no voxel is read.

    Args:
        image: an image of three or more dimensions.
        which: role and path of the image, the first words of messages.

    Raises:
        InputError: the header has no valid geometry, or a size that no head has.
    """
    try:
        with np.errstate(all="ignore"):  # numbers that are too large are not finite, or no size
            stated = next(read(image) for kind, read in _FORMATS if isinstance(image, kind))
            grid = Grid(image.shape[:3], stated.affine, stated.space_code)
    except (ValueError, TypeError, HeaderDataError) as error:
        reason = (str(error).splitlines() or [""])[0]
        raise InputError(
            f"{which}: the header has no valid geometry ({reason}); correct its dimensions, sform "
            f"or qform"
        ) from error
    _check_size(grid, stated.unit, which)
    problems = "; ".join(stated.problems(grid))
    return Placement(grid, (f"{which}: {problems}",) if problems else ())


class _Rival(NamedTuple):
    """A placement in the header that is not used, and what to say if it is another one."""

    affine: np.ndarray
    problem: str


@dataclass(frozen=True)
class _Stated:
    """What a header says.

    Args:
        affine: (4, 4) matrix from voxel indices to RAS mm.
        space_code: see ``Grid``.
        guess: why left and right are a guess; empty if they are not.
        rivals: further placements.
        further: other problems.
        unit: the unit of length and where it is stated, for messages.
    """

    affine: np.ndarray
    space_code: int = SCANNER
    guess: str = ""
    rivals: tuple[_Rival, ...] = ()
    further: tuple[str, ...] = ()
    unit: str = "millimetres, as always in this format"

    def problems(self, grid: Grid) -> Iterator[str]:
        """What a user must know, for an image on this grid."""
        if self.guess:
            yield (
                f"its header does not say where left and right are ({self.guess}), so they are a "
                f"guess: its axes were taken as {grid.axes}, and other tools may mirror it; "
                f"correct its header"
            )
        yield from (rival.problem for rival in self.rivals if not _is_same(grid, rival.affine))
        yield from self.further


def _is_same(grid: Grid, affine: np.ndarray) -> bool:
    try:
        return grid.matches(Grid(grid.shape, affine))
    except ValueError:
        return False


def _check_size(grid: Grid, unit: str, which: str) -> None:
    """Refuse a field of view that no head has, before anything of its size is computed."""
    extent = [n * s for n, s in zip(grid.shape, grid.spacing, strict=True)]
    if not SMALLEST <= max(extent) <= LARGEST:
        raise InputError(
            f"{which}: this cannot be a head: by its header it measures {_by(extent)} mm "
            f"({_by(grid.shape)} voxels of {_by(grid.spacing)} mm; the unit is {unit}); correct "
            f"the voxel size or its unit in the header"
        )


def _by(numbers: Any) -> str:
    """Numbers of about four digits, with × between them."""
    return "×".join(f"{x:.0f}" if abs(x) >= 1000 else f"{x:.4g}" for x in map(float, numbers))


# --------------------------------------------------------------------------------------- NIfTI

# Of the last three bits of xyzt_units: the name of the unit, and mm.
_UNITS = {1: ("metres", 1e3), 2: ("millimetres", 1.0), 3: ("micrometres", 1e-3)}


def _nifti(image: nib.Nifti1Pair) -> _Stated:
    """A NIfTI header, as ITK 5.4 reads its units, codes and quaternions."""
    header = stored_header(image)
    unit, millimetres = _unit(int(header["xyzt_units"]))
    affine, rivals = _forms(header)
    if image.header is header and image.affine is not None:  # in memory, where it may be newer
        affine = image.affine
    codes = {name: int(header[name]) for name in ("sform_code", "qform_code")}
    used = next((name for name, code in codes.items() if code > 0), None)
    return _Stated(
        affine=_scaled(affine, millimetres),
        space_code=codes[used] if used and codes[used] in SPACE_CODES else ALIGNED,
        guess="" if used else "qform_code and sform_code are 0",
        rivals=tuple(_Rival(_scaled(x, millimetres), text) for x, text in rivals),
        further=tuple(
            f"its {name} is {code}, which NIfTI does not define; it was taken as 2, aligned"
            for name, code in codes.items()
            if name == used and code not in SPACE_CODES
        ),
        unit=unit,
    )


def _unit(xyzt_units: int) -> tuple[str, float]:
    """The unit of length as messages name it, and how many mm it has."""
    code = xyzt_units & 7
    if code in _UNITS:
        name, millimetres = _UNITS[code]
        return f"{name} by its xyzt_units", millimetres
    return "not stated in its xyzt_units, so it was taken as millimetres", 1.0


def _scaled(affine: np.ndarray, millimetres: float) -> np.ndarray:
    return affine if millimetres == 1 else np.diag([millimetres] * 3 + [1.0]) @ affine


def _forms(header: nib.Nifti1Header) -> tuple[np.ndarray, list[_Rival]]:
    """The affine in the unit of the header: of the sform before that of the qform; and others."""
    has_sform, has_qform = (int(header[name]) > 0 for name in ("sform_code", "qform_code"))
    if not has_sform:
        return (qform(header) if has_qform else header.get_base_affine()), []
    if has_qform:
        rival = _Rival(
            _qform_or_nothing(header),
            "qform and sform differ; the sform was used. Other tools may use the qform",
        )
    else:
        rival = _Rival(
            _with_spacing(header.get_sform(), header["pixdim"][1:4]),
            "pixdim and sform have voxels of different sizes; those of the sform were used. Other "
            "tools may use those of pixdim",
        )
    return header.get_sform(), [rival]


def _qform_or_nothing(header: nib.Nifti1Header) -> np.ndarray:
    """The qform; zeros, which are no affine, if it is damaged."""
    with suppress(ValueError, HeaderDataError):
        return qform(header)
    return np.zeros((4, 4))


def _with_spacing(affine: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """An affine with the same axes and first voxel, and columns of these lengths."""
    affine = affine.copy()
    with np.errstate(divide="ignore", invalid="ignore"):  # an affine without axes is refused
        affine[:3, :3] *= spacing / np.linalg.norm(affine[:3, :3], axis=0)
    return affine


# ------------------------------------------------------------------------------- Other formats


def _mgh(image: nib.MGHImage) -> _Stated:
    """FreeSurfer's format, in which a flag says whether the placement is valid.

    nibabel sets the flag while it reads, so it is read again from the file.
    """
    flag, source = int(image.header["goodRASFlag"]), image.file_map["image"]
    if source.filename is not None or source.fileobj is not None:
        with suppress(OSError, EOFError), source.get_prepare_fileobj("rb") as stream:
            flag = int.from_bytes(stream.read(30)[28:], "big")
    guess = "" if flag else "its goodRASFlag is 0, so the size of its voxels is not stated either"
    return _Stated(image.affine, SCANNER if flag else ALIGNED, guess)


def _analyze(image: nib.AnalyzeImage) -> _Stated:
    """Analyze 7.5, whose header has no place for the axes; SPM kept them in a .mat file beside."""
    if not any(holder.filename for holder in image.file_map.values()):  # made in memory
        return _Stated(_or_base(image), ALIGNED, "" if image.affine is not None else _NO_PLACE)
    return _Stated(image.affine, ALIGNED, _NO_PLACE if "mat" not in _names_in_mat(image) else "")


_NO_PLACE = "Analyze 7.5 has no place for it"


def _names_in_mat(image: nib.AnalyzeImage) -> list[str]:
    """The variables in the .mat file of an image: ``mat`` includes any flip, ``M`` does not."""
    holder = image.file_map.get("mat")
    with suppress(OSError):
        if holder is not None:
            with holder.get_prepare_fileobj("rb") as stream:
                contents = stream.read()
            return [name for name, *_ in whosmat(io.BytesIO(contents))] if contents else []
    return []


def _minc(image: nib.Minc1Image) -> _Stated:
    """MINC, whose axes are named for world axes; step and start of each are optional."""
    file = getattr(image.dataobj, "minc_file", None)
    if file is None:  # made in memory
        return _Stated(_or_base(image))
    axes = {name: file._dims[file._dim_names.index(name)] for name in file._spatial_dims}
    missing = [
        f"{name} has no {what}"
        for name, axis in axes.items()
        for what in ("step", "start")
        if not hasattr(axis, what)
    ]
    if missing:
        return _Stated(image.affine, ALIGNED, ", ".join(missing))
    is_talairach = any("talairach" in str(getattr(axis, "spacetype", "")) for axis in axes.values())
    return _Stated(image.affine, TALAIRACH if is_talairach else SCANNER)


# AFNI's own rule for the NIfTI files that it writes: names of spaces, and views by their numbers.
_AFNI_SPACES = {"ORIG": SCANNER, "ACPC": ALIGNED, "TLRC": TALAIRACH, "TT_N27": TALAIRACH}
_AFNI_VIEWS = (SCANNER, ALIGNED, TALAIRACH)


def _afni(image: AFNIImage) -> _Stated:
    info = image.header.info
    space = str(info.get("TEMPLATE_SPACE", ""))
    if space:
        code = MNI if space.startswith("MNI") else _AFNI_SPACES.get(space, OTHER_TEMPLATE)
        return _Stated(image.affine, code)
    view = np.ravel(info.get("SCENE_DATA", 0))[0]
    return _Stated(image.affine, _AFNI_VIEWS[int(view)] if view in range(3) else SCANNER)


def _other(image: SpatialImage) -> _Stated:
    return _Stated(_or_base(image))


def _or_base(image: SpatialImage) -> np.ndarray:
    """The affine of an image in memory; if it has none, the one that nibabel would write."""
    return image.header.get_base_affine() if image.affine is None else image.affine


_FORMATS: tuple[tuple[type, Callable[[Any], _Stated]], ...] = (
    (nib.Nifti1Pair, _nifti),
    (nib.AnalyzeImage, _analyze),  # of which NIfTI is a kind, too
    (nib.MGHImage, _mgh),
    (nib.Minc1Image, _minc),
    (AFNIImage, _afni),
    (SpatialImage, _other),
)
