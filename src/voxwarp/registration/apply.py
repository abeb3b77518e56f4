"""Apply registrations: transform images, label maps and series through one or a chain of them."""

import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, get_args

import numpy as np
from nibabel.spatialimages import SpatialImage

from .._layout import METRICS, PREPROCESSED, WARP
from ..errors import InputError
from ..space.grid import Grid
from ..space.image_file import image_name
from ..space.resample import Interpolation, border_warning, frame_resampler
from ..space.series import Series, open_series, write_series
from ..space.transform import Chain
from ..space.volume import ImageLike, Volume, read_placement, write_volume
from .apply_memory import check_apply_memory, check_disk
from .saved_transform import AnyTransform, chain_of, one_of_each


def apply_to_image(
    image: ImageLike,
    transforms: AnyTransform | Sequence[AnyTransform],
    *,
    reference: ImageLike | None = None,
    inverse: bool = False,
    interpolation: Interpolation | None = None,
    background: float | None = None,
) -> Volume:
    """Transform an image, a label map or a 4-D series, and resample it once.

    Args:
        image: an image in the space of the moving scan (with ``inverse``, of the fixed scan).
        transforms: a registration, or several in the order in which the image travels through
            them, see ``chain_of``.
        reference: an image whose grid the result gets; by default the last fixed scan (with
            ``inverse``, the first moving scan).
        inverse: go from the fixed space to the moving space.
        interpolation: "linear", "nearest" or "cubic"; by default nearest for label maps, and linear
            for all others.
        background: the value outside of the image; by default that of its outer voxels, if nearly
            all have the same, else 0 (``Volume.background``).

    Returns:
        The result, in the data type of the image. ``to_nibabel()`` makes a nibabel image of it.
        Its ``header_warnings`` say what the files that were used leave in doubt.

    Raises:
        InputError: an image or transform cannot be read, the interpolation is unknown, the grid
            of the result is not known, or the type of the image does not hold the background.

    Example:
        >>> import voxwarp
        >>> result = voxwarp.register("moving.nii.gz", "fixed.nii.gz")
        >>> labels = voxwarp.apply_to_image("moving_labels.nii.gz", result)
        >>> labels.grid == result.fixed_grid
        True
        >>> labels.to_nibabel().header.get_intent()[0]
        'label'
    """
    task = _task(image, transforms, reference, inverse, interpolation, background)
    first, length = task.series.first, task.series.length
    check_apply_memory(first, task.grid, task.interpolation, frames=length or 1)
    frames = task.frames()
    if length is None:
        return replace(first, data=next(frames), grid=task.grid)
    # The order of a file, in which each frame is in one piece.
    data = np.empty((*task.grid.shape, length), first.data.dtype, order="F")
    for t, frame in enumerate(frames):
        data[..., t] = frame
    return replace(first, data=data, grid=task.grid)


class Moved(NamedTuple):
    """What became of an image that was transformed.

    Args:
        interpolation: how it was interpolated.
        warnings: what the headers of all files that were used leave in doubt, a sentence each.
    """

    interpolation: Interpolation
    warnings: tuple[str, ...]


def apply_to_file(
    image: ImageLike,
    target: str | os.PathLike[str],
    transforms: AnyTransform | Sequence[AnyTransform],
    *,
    reference: ImageLike | None = None,
    inverse: bool = False,
    interpolation: Interpolation | None = None,
    background: float | None = None,
) -> Moved:
    """Transform an image as ``apply_to_image`` does, and write the result to a file.

    Of a series, a few frames are in memory at a time, however long it is.

    Args:
        image, transforms, reference, inverse, interpolation, background: see ``apply_to_image``.
        target: the file, .nii or .nii.gz; it is replaced if it exists.

    Raises:
        InputError: see ``apply_to_image``; or the result does not fit into memory or on the disk.
    """
    task = _task(image, transforms, reference, inverse, interpolation, background)
    first, length = task.series.first, task.series.length
    check_apply_memory(first, task.grid, task.interpolation, frames=1)
    frames = task.frames()
    first = replace(first, data=next(frames), grid=task.grid)
    check_disk(Path(target), first, length or 1)
    if length is None:
        write_volume(first, target)
    else:
        write_series(first, length, frames, target)
    return Moved(task.interpolation, first.header_warnings)


@dataclass(frozen=True, eq=False)
class _Task:
    """An image to transform: the series, the way to go, the grid, how, and what is outside.

    The first frame of the series is marked as labels if it holds labels, and has all warnings.
    """

    series: Series
    transform: Chain
    grid: Grid
    interpolation: Interpolation
    background: float

    def frames(self) -> Iterator[np.ndarray]:
        """The frames of the result, each made when it is asked for."""
        first = self.series.first
        many = self.series.length is not None
        moved = frame_resampler(
            first,
            self.grid,
            self.transform,
            interpolation=self.interpolation,
            background=self.background,
            many=many,
        )
        return map(moved, itertools.chain([first.data], self.series.following))


def _task(
    image: ImageLike,
    transforms: AnyTransform | Sequence[AnyTransform],
    reference: ImageLike | None,
    inverse: bool,
    interpolation: Interpolation | None,
    background: float | None,
) -> _Task:
    """Open the image and load the transforms."""
    if interpolation not in (None, *get_args(Interpolation)):
        names = ", ".join(get_args(Interpolation))
        raise InputError(f"interpolation must be one of {names}, got {interpolation!r}")
    series, chain = open_series(image), chain_of(transforms)
    chain = chain.inverted() if inverse else chain
    onto = None if reference is None else read_placement(reference, "reference")
    grid = chain.fixed_grid if onto is None else onto.grid
    if grid is None:
        side = "moving" if inverse else "fixed"
        raise InputError(
            f"reference is needed, because the grid of the {side} scan is not known "
            f"({_UNKNOWN[side]}): give an image that is on the grid of the result"
        )
    warnings = {**chain.header_warnings, _key(image): series.first.header_warnings}
    if reference is not None and onto is not None:
        if _key(reference) != _key(image):
            warnings[_key(reference)] = onto.warnings
        warnings["result"] = _sheared(onto.grid, reference)
    first = series.first
    method = interpolation or interpolation_of(first)
    if interpolation is None:
        warnings["kind"] = _doubtful_kind(first)
    if background is None:
        background = first.background.value
        warnings["background"] = _doubtful_background(first, grid, chain.transform)
    else:
        _check_background(first, background)
    first = replace(
        first, is_label_file=first.holds_labels(), header_warnings=one_of_each(warnings)
    )
    return _Task(replace(series, first=first), chain.transform, grid, method, background)


def _doubtful_kind(image: Volume) -> tuple[str, ...]:
    """A warning if it is a close call whether an image holds labels."""
    evidence = image.label_evidence
    if not evidence.is_doubtful:
        return ()
    kind, other, method = (
        ("labels", "intensities", "linear")
        if evidence.holds_labels
        else ("intensities", "labels", "nearest")
    )
    return (
        f"image {image.name}: its values were taken for {kind}, but that is a close call; if they "
        f"are {other}, use `interpolation={method}`",
    )


def _doubtful_background(image: Volume, grid: Grid, transform: Chain) -> tuple[str, ...]:
    warning = border_warning(image, "image", grid, transform)
    return (f"{warning}; give the value of its background with `background`",) if warning else ()


def _check_background(image: Volume, background: float) -> None:
    dtype = image.data.dtype
    if dtype.kind == "f":
        return
    limits = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    if not (limits[0] <= background <= limits[1] and background == int(background)):
        raise InputError(
            f"background must be a whole number from {limits[0]} to {limits[1]} for image "
            f"{image.name}, whose type is {dtype}, got {background:g}"
        )


def _sheared(grid: Grid, reference: ImageLike) -> tuple[str, ...]:
    if not grid.is_sheared():
        return ()
    return (
        f"reference {_name(reference)}: its axes are sheared, and so are those of the result, "
        f"which ITK (ANTs, SimpleITK, 3D Slicer) does not read; give a reference with axes at "
        f"right angles",
    )


_UNKNOWN = {
    "fixed": f"a linear transform alone, such as a single .mat or a folder without {WARP}, does "
    f"not tell it",
    "moving": f"only {METRICS} of register, or {PREPROCESSED}, tells it",
}


def interpolation_of(volume: Volume) -> Interpolation:
    """Return "nearest" for label maps (see ``Volume.holds_labels``), "linear" for all others."""
    return "nearest" if volume.holds_labels() else "linear"


def _key(image: ImageLike) -> str:
    """The absolute path of an image, by which warnings about one file are recognised."""
    if isinstance(image, SpatialImage) and not image.get_filename():
        return f"<{id(image)}>"
    return os.path.abspath(_name(image))


def _name(image: ImageLike) -> str:
    return image.name if isinstance(image, Volume) else image_name(image)
