"""Volumes: an array and its grid, read from any image that nibabel reads."""

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property

import nibabel as nib
import numpy as np
from nibabel.spatialimages import SpatialImage

from ..errors import InputError
from .grid import Grid, canonical_axes
from .image_file import (
    LABEL,
    frame_spacing,
    image_name,
    intent,
    load_image,
    native,
    nifti,
    open_image,
    scaling,
    shape_text,
    write_nifti,
)
from .placement import Placement, placement_of
from .values import (
    Background,
    LabelEvidence,
    background_of,
    label_evidence,
    storable,
    whole_numbers,
)


@dataclass(frozen=True, eq=False)
class Volume:
    """A 3-D image, or a series of 3-D images on one grid.

    Args:
        data: (X, Y, Z) or (X, Y, Z, T) array, axes as nibabel returns them, in the file's own
            type if the file stores no scaling, else as floats with the scaling applied.
        grid: where the voxels are.
        name: the path of the file, or another name for messages.
        is_label_file: whether the header says that the values are labels (NIfTI intent 1002).
        frame_spacing: time between the frames of a series, seconds.
        header_warnings: problems of the header that a user must know of, one sentence each.

    Example:
        >>> import numpy as np
        >>> import voxwarp
        >>> grid = voxwarp.Grid((4, 5, 6), np.eye(4))
        >>> volume = voxwarp.Volume(np.zeros((4, 5, 6), np.float32), grid)
        >>> volume.to_nibabel().shape
        (4, 5, 6)
    """

    data: np.ndarray = field(repr=False)  # printing a volume says where it is, not its voxels
    grid: Grid
    name: str = "image"
    is_label_file: bool = False
    frame_spacing: float = 1.0
    header_warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.data.shape[:3] != self.grid.shape:
            raise ValueError(
                f"data must have the shape of grid, {self.grid.shape}, got {self.data.shape}"
            )

    def to_nibabel(self) -> nib.Nifti1Image:
        """The same as a nibabel image; labels are marked as such (intent 1002)."""
        image = nifti(storable(self.data, self.name), self.grid)
        image.header.set_intent("label" if self.is_label_file else "none")
        if self.data.ndim == 4:
            image.header.set_zooms((*self.grid.spacing, self.frame_spacing))
        return image

    def holds_labels(self) -> bool:
        """Whether the values are labels rather than intensities.

        A volume is a label map if its header says so, or by its values, see
        ``values.label_evidence``. Of a series, the first frame is examined.
        """
        return self.label_evidence.holds_labels

    @cached_property
    def label_evidence(self) -> LabelEvidence:
        """Whether the values are labels, and whether that is a close call."""
        return LabelEvidence(True, False) if self.is_label_file else label_evidence(self._frame)

    @cached_property
    def background(self) -> Background:
        """The value outside of the image, as its outer voxels show it; 0 for label maps."""
        background = background_of(self._frame)
        is_zero = background == Background(0.0)
        return Background(0.0) if not is_zero and self.holds_labels() else background

    @property
    def _frame(self) -> np.ndarray:
        """The image, or the first frame of a series."""
        return self.data.reshape(*self.data.shape[:3], -1)[..., 0]


#: Ways to pass an image: a path, a nibabel image or a ``Volume``.
ImageLike = str | os.PathLike[str] | SpatialImage | Volume


def read_volume(source: ImageLike, what: str = "image") -> Volume:
    """Read a 3-D scan for registration.

    Args:
        source: a path, a nibabel image or a volume.
        what: the role of the file ("moving image"), the first words of messages.

    Returns:
        The volume; trailing axes of length one are dropped.

    Raises:
        InputError: the file is missing, is no image, is damaged, is not 3-D, is not finite, is
            constant, or its header has no valid geometry.

    Example:
        >>> import voxwarp
        >>> volume = voxwarp.read_volume("moving.nii.gz")
        >>> volume.data.shape == volume.grid.shape
        True
    """
    volume = read_series(source, what)
    if volume.data.ndim != 3:
        raise InputError(
            f"{what} {volume.name}: expected one 3-D image, but this is a series of shape "
            f"{shape_text(volume.data)}; extract or average frames first"
        )
    _check_values(volume, what)
    return volume


def read_labels(source: ImageLike, image: Volume, what: str = "label map") -> Volume:
    """Read a label map that lies on the grid of ``image``.

    Args:
        source: a path, a nibabel image or a volume, of whole numbers in any type.
        image: the scan to which the labels belong.
        what: the role of the file, the first words of messages.

    Raises:
        InputError: as ``read_volume``; also if values are not whole numbers, all are zero, or
            the grid is not that of the image.
    """
    volume = read_series(source, what)
    if volume.data.ndim != 3:
        raise InputError(
            f"{what} {volume.name}: expected a 3-D label map, got {shape_text(volume.data)}"
        )
    if not volume.grid.matches(image.grid):
        raise refusal(
            f"{what} {volume.name}: its grid ({_grid_text(volume.grid)}) is not that of "
            f"{image.name} ({_grid_text(image.grid)}); resample it onto that grid with nearest "
            f"neighbour",
            volume,
            image,
        )
    data = volume.data
    if data.dtype.kind == "f":
        numbers = whole_numbers(data)
        if numbers is None:
            raise InputError(
                f"{what} {volume.name}: label maps must hold whole numbers, but this one holds "
                f"{_no_label(data):g}{_scaling_text(source, what)}; if it was resampled, use "
                f"nearest neighbour"
            )
        data = numbers
    if not data.any():
        kind = "mask" if what.endswith("mask") else "label map"
        raise InputError(f"{what} {volume.name}: the {kind} is empty (all zero)")
    return replace(volume, data=data, is_label_file=True)


def read_series(source: ImageLike, what: str = "image") -> Volume:
    """Read a 3-D image or a 4-D series without checking its values.

    Args:
        source: a path, a nibabel image or a volume.
        what: the role of the file, the first words of messages.

    Raises:
        InputError: the file is missing, is no image, is damaged, has fewer than three dimensions
            or more than four, holds something other than real numbers, or its header has no
            valid geometry.
    """
    if isinstance(source, Volume):
        return source
    image, data, placement = load_image(source, what)
    name = image_name(source)
    return volume_of(image, data.reshape(series_shape(image, what, name)), placement, name)


def series_shape(image: SpatialImage, what: str, name: str) -> tuple[int, ...]:
    """The shape of a 3-D image or a series, without trailing axes of length one.

    Raises:
        InputError: it is neither.
    """
    shape = image.shape
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) > 4 or min(shape) < 2:
        raise InputError(f"{what} {name}: expected a 3-D image, got {shape_text(image)}")
    return shape


def volume_of(image: SpatialImage, data: np.ndarray, placement: Placement, name: str) -> Volume:
    """The voxels of an image, or a frame of them, with what its header says."""
    return Volume(
        native(data, image),
        placement.grid,
        name,
        is_label_file=intent(image).code == LABEL,
        frame_spacing=frame_spacing(image),
        header_warnings=placement.warnings,
    )


def read_placement(source: ImageLike, what: str = "image") -> Placement:
    """Read where the voxels of an image are, and what is doubtful about it; no voxel is read.

    Args:
        source: a path, a nibabel image or a volume.
        what: the role of the file, the first words of messages.

    Raises:
        InputError: the file is missing, is no image, has fewer than three dimensions, or its
            header has no valid geometry or a size that no head has.
    """
    if isinstance(source, Volume):
        return Placement(source.grid, source.header_warnings)
    image = open_image(source, what, header_only=True)
    series_shape(image, what, image_name(source))
    return placement_of(image, f"{what} {image_name(source)}")


def header_warnings(
    paths: Iterable[str | os.PathLike[str] | None], what: str = "image"
) -> list[str]:
    """What the headers of files leave in doubt, one sentence each.

    Args:
        paths: the files; each is read once. None, and files that cannot be read, are left out,
            because whoever reads their voxels reports them.
        what: the role of the files, the first words of the sentences.
    """
    warnings = list[str]()
    for path in dict.fromkeys(path for path in paths if path is not None):
        with suppress(InputError):
            warnings.extend(read_placement(path, what).warnings)
    return warnings


def refusal(message: str, *volumes: Volume) -> InputError:
    """The error that refuses volumes, with what is doubtful in their headers: it may be why."""
    doubts = [text for volume in volumes for text in volume.header_warnings if text not in message]
    return InputError("; ".join([message, *doubts]))


def to_canonical(volume: Volume) -> Volume:
    """Permute and flip the axes so that they run R, A, S as nearly as they can.

    Nothing is interpolated. All 48 ways of storing one scan give the same bytes here, so that
    everything computed from them is the same too.
    """
    order = np.argsort(canonical_axes(volume.grid.affine))
    affine = volume.grid.affine[:, [*order, 3]].copy()
    data = volume.data.transpose(*order, *range(3, volume.data.ndim))
    for axis in range(3):
        if affine[axis, axis] < 0:
            affine[:3, 3] += affine[:3, axis] * (data.shape[axis] - 1)
            affine[:, axis] *= -1
            data = np.flip(data, axis)
    # + 0.0: negative zeros would be other bytes
    grid = Grid(data.shape[:3], affine + 0.0, volume.grid.space_code)
    return replace(volume, data=np.ascontiguousarray(data), grid=grid)


def write_volume(volume: Volume, path: str | os.PathLike[str]) -> None:
    """Write NIfTI-1 (``.nii`` or ``.nii.gz``) atomically, with one placement and its space.

    The bytes depend only on the data and the grid: no time and no file name is stored. Labels
    are marked as such (intent 1002).

    Raises:
        InputError: the name does not end in .nii or .nii.gz, or the file cannot be written.

    Example:
        >>> import voxwarp
        >>> volume = voxwarp.read_volume("moving.nii.gz")
        >>> voxwarp.write_volume(volume, "copy.nii.gz")
        >>> voxwarp.read_volume("copy.nii.gz").grid.matches(volume.grid)
        True
    """
    write_nifti(volume.to_nibabel(), path)


def _check_values(volume: Volume, what: str) -> None:
    data = volume.data
    if data.dtype.kind == "f" and not np.isfinite(data).all():
        bad = int(data.size - np.isfinite(data).sum())
        voxels = "1 voxel is" if bad == 1 else f"{bad} voxels are"
        raise InputError(
            f"{what} {volume.name}: {voxels} NaN or infinite; replace these values, in the "
            f"background by 0"
        )
    low, high = data.min(), data.max()
    if low == high:
        kind = "all zero" if high == 0 else f"constant ({high})"
        raise InputError(f"{what} {volume.name}: the image is {kind}, so there is nothing to align")


def _no_label(data: np.ndarray) -> float:
    """A value of a map that is no label."""
    wrong = data[~np.isfinite(data) | (data != np.rint(data))]
    return float(wrong[0] if wrong.size else np.abs(data).max())


def _scaling_text(source: ImageLike, what: str) -> str:
    """How the header scales the stored numbers, for messages; "" if it does not."""
    if isinstance(source, Volume):
        return ""
    scaled = scaling(open_image(source, what, header_only=True))
    if scaled in (None, (1, 0)):
        return ""
    slope, intercept = scaled
    return f" (its header scales the stored numbers: scl_slope {slope:g}, scl_inter {intercept:g})"


def _grid_text(grid: Grid) -> str:
    """A grid for messages: all that can differ between two grids."""
    spacing = "×".join(f"{s:.3g}" for s in grid.spacing)
    x, y, z = grid.affine[:3, 3]
    return (
        f"{'×'.join(map(str, grid.shape))} voxels of {spacing} mm, axes {grid.axes}, "
        f"first voxel at {x:.4g}, {y:.4g}, {z:.4g} mm"
    )
