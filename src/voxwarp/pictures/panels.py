"""The panels of a report, a function each: a new one is a function here, named in ``panels``."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..measures.deformation import jacobian_determinant
from ..space.grid import Grid
from ..space.region import bounding_box, start_and_shape
from ..space.transform import Transform
from ..space.volume import Volume
from .colours import (
    BOTH,
    COLD_HOT,
    CONTOURS,
    FOLDS,
    MOVED_CONTOURS,
    PURPLE_GREEN,
    Colour,
    coloured,
    grey,
    window,
    windowed,
)
from .contours import FINER, borders, interpolated, outline
from .scene import Scene, SlicedScene
from .slices import PLANES, Mosaic, Slices, interpolable, side_by_side, values_inside

SQUARES = 20.0  # mm, of a checkerboard
LINES = 10.0  # mm between the lines of a grid
LARGEST_LOG = float(np.log(4.0))  # of the Jacobian's colours: a quarter to four times the volume


@dataclass(frozen=True)
class Overlay:
    """Lines or points on a picture.

    Args:
        mosaic: of each plane, indices (height, width) into ``colours``, or 0 for nothing; of as
            many pixels as the picture has, or a multiple.
        colours: of index 1, 2, …
    """

    mosaic: Mosaic
    colours: tuple[Colour, ...]


@dataclass(frozen=True)
class Picture:
    """Slices that can be shown.

    Args:
        name: what they show.
        mosaic: of each plane uint8, grey (height, width) or colours (height, width, 3).
        overlay: what is drawn on them.
    """

    name: str
    mosaic: Mosaic
    overlay: Overlay | None = None


class Scale(NamedTuple):
    """What colours mean.

    Args:
        ticks: values at equal distances.
        colours: the same.
    """

    ticks: tuple[str, ...]
    colours: tuple[Colour, ...]


@dataclass(frozen=True)
class Panel:
    """Pictures that belong together: of several one is shown at a time, in the same place.

    Args:
        key: short name, of letters.
        title, caption: plain text.
        pictures: one or more, all of the same slices.
        columns: number of slices of each plane.
        beside: show them all, one below the other.
        scale: of the colours, if they mean values.
    """

    key: str
    title: str
    caption: str
    pictures: tuple[Picture, ...]
    columns: Mapping[str, int]
    beside: bool = False
    scale: Scale | None = None


def composed(picture: Picture, plane: str) -> np.ndarray:
    """(height, width, 3) uint8: the mosaic of a plane with what is drawn on it."""
    image = picture.mosaic[plane]
    image = np.repeat(image[..., None], 3, axis=2) if image.ndim == 2 else image.copy()
    if picture.overlay:
        drawn = picture.overlay.mosaic[plane]
        times = drawn.shape[0] // image.shape[0]
        blocks = drawn.reshape(image.shape[0], times, image.shape[1], times).max(axis=(1, 3))
        for index, colour in enumerate(picture.overlay.colours, 1):
            image[blocks == index] = colour
    return image


def panels(sliced: SlicedScene) -> Iterator[Panel]:
    """Every panel there is something for, in the order to be looked at."""
    scene = sliced.scene
    yield comparison(sliced)
    yield contours(sliced)
    if scene.labels is not None and scene.fixed_labels is not None:
        yield label_contours(sliced, scene.labels, scene.fixed_labels)
    yield checkerboard(sliced)
    yield differences(sliced)
    yield deformed_grid(sliced)
    yield jacobian(sliced)
    yield extraction(scene, "moving")
    if scene.masks["fixed"]:
        yield extraction(scene, "fixed")


def comparison(sliced: SlicedScene) -> Panel:
    """Moved, fixed, and moving after the affine stage, one in place of the other."""
    return Panel(
        "comparison",
        "Fixed and moved",
        "What does not move between the pictures is aligned.",
        (
            Picture("Moved", grey(sliced.moved)),
            Picture("Fixed", grey(sliced.fixed)),
            Picture("Moving after the affine stage", grey(sliced.before)),
        ),
        sliced.slices.columns,
    )


def contours(sliced: SlicedScene) -> Panel:
    """Boundaries of the fixed brain's tissues on the moved scan."""
    return Panel(
        "contours",
        "Contours of the fixed scan on the moved scan",
        "Outline of the fixed brain and of its brighter tissue (white matter, in a T1 scan): "
        "they should follow the same edges in the moved scan.",
        (Picture("Moved", grey(sliced.moved), Overlay(sliced.outlines, (CONTOURS,))),),
        sliced.slices.columns,
    )


def label_contours(sliced: SlicedScene, labels: Volume, fixed_labels: Volume) -> Panel:
    """Borders of the fixed labels and of the carried ones on the fixed scan."""
    fixed, moved = (
        borders(sliced.slices.of(volume, through, interpolation="nearest", finer=FINER))
        for volume, through in ((fixed_labels, None), (labels, sliced.transform))
    )
    drawn = {p: (1 * fixed[p] + 2 * moved[p]).astype(np.uint8) for p in PLANES}
    overlay = Overlay(drawn, (CONTOURS, MOVED_CONTOURS, BOTH))
    return Panel(
        "labels",
        "Borders of labels",
        "Cyan: of the fixed labels; orange: of the moving ones, carried along; white: of both.",
        (Picture("Fixed", grey(sliced.fixed), overlay),),
        sliced.slices.columns,
    )


def checkerboard(sliced: SlicedScene) -> Panel:
    """Squares of the fixed and the moved scan in turn."""
    mixed = {}
    for plane, grid in sliced.slices.grids.items():
        across = max(1, round(SQUARES / grid.spacing[0]))
        u, v = np.indices(grid.shape[:2]) // across
        odd = np.repeat(((u + v) % 2 == 1)[..., None], grid.shape[2], axis=2)
        mixed[plane] = np.where(side_by_side(odd), sliced.moved[plane], sliced.fixed[plane])
    return Panel(
        "checkerboard",
        "Checkerboard of fixed and moved",
        f"Squares of {SQUARES:.0f} mm in turn: edges should run on from square to square.",
        (Picture("Fixed and moved in turn", grey(mixed)),),
        sliced.slices.columns,
    )


def differences(sliced: SlicedScene) -> Panel:
    """Moved less fixed, before and after, in the fixed brain, on one scale."""
    line = _line(*(values_inside(m, sliced.inside) for m in (sliced.moved, sliced.fixed)))
    before, after = (_difference(sliced, m, *line) for m in (sliced.before, sliced.moved))
    values = np.abs(values_inside(before, sliced.inside))
    largest = max(0.02, float(np.percentile(values, 99)) if values.size else 0.0)
    return Panel(
        "difference",
        "Difference from the fixed scan",
        "Moving less fixed in the fixed brain, intensities matched there by a line; both on "
        "one scale. Black: no difference. Scans of two contrasts differ wherever they are.",
        tuple(
            Picture(name, {p: coloured(d / largest, COLD_HOT) for p, d in shown.items()})
            for name, shown in (("Before (affine)", before), ("After", after))
        ),
        sliced.slices.columns,
        beside=True,
        scale=Scale(_percentages(largest), tuple(COLD_HOT)),
    )


def deformed_grid(sliced: SlicedScene) -> Panel:
    """Lines of a regular grid in the moving space, as they are bent in the fixed one."""
    lines = {p: _grid_lines(sliced.warp, g) for p, g in sliced.slices.grids.items()}
    drawn = {p: np.maximum(0.4 * sliced.moved[p], lines[p]) for p in PLANES}
    return Panel(
        "grid",
        "The deformed grid",
        f"Lines of {LINES:.0f} mm on the moving scan after the affine stage, as the "
        "deformation bends them, over the moved scan.",
        (Picture("Deformed grid", grey(drawn)),),
        sliced.slices.columns,
    )


def jacobian(sliced: SlicedScene) -> Panel:
    """How the deformation changes volumes, and each voxel of the brain where it folds."""
    grid, brain = sliced.scene.fixed.grid, sliced.scene.brain
    brain = brain if brain.any() else np.ones(grid.shape, bool)
    box = bounding_box(brain)
    determinant = jacobian_determinant(sliced.scene.warp, box)
    part = Volume(determinant, grid.crop(*start_and_shape(box)))
    folded = np.argwhere((part.data <= 0) & brain[box])
    count = len(folded)
    told = (
        f"Red: {count} folded voxel{'s' * (count > 1)} of the brain, each on the nearest slice."
        if count
        else "There are no folds in the brain."
    )
    marked = sliced.slices.marked(part.grid.to_world(folded)) if count else None
    overlay = Overlay(marked, (FOLDS,)) if marked else None
    return Panel(
        "jacobian",
        "Change of volume" if count else "Change of volume: no folds",
        "Logarithm of the Jacobian determinant of the deformable part (the affine stage is "
        f"not in it). {told}",
        (Picture("Logarithm of the Jacobian determinant", _of_volume(sliced, part), overlay),),
        sliced.slices.columns,
        scale=Scale(("¼ of the volume", "½", "same", "2", "4 times"), tuple(PURPLE_GREEN)),
    )


def extraction(scene: Scene, role: str) -> Panel:
    """A scan as it was read, with the outline of what was taken for its brain."""
    scan, mask = interpolable(getattr(scene, role)), scene.masks[role]
    slices = Slices.through_head(scan)
    if mask is None:
        told, overlay = "It was used as it is: no brain was extracted from it.", None
    else:
        told = "The line is the border of what was taken for its brain."
        soft = Volume((mask.data != 0).astype(np.float32), mask.grid)
        overlay = Overlay(outline(interpolated(slices.of(soft)), 0.5), (CONTOURS,))
    shown = slices.of(scan)
    return Panel(
        f"{role}_brain",
        f"The {role} scan" + (" and its brain" if mask else ""),
        told,
        (Picture(f"The {role} scan", grey(windowed(shown, window(shown))), overlay),),
        slices.columns,
    )


def _line(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Slope and offset of the line from x to y by least squares; of no points, the identity."""
    if not x.size:
        return 1.0, 0.0
    variance = float(x.var())
    slope = float(((x - x.mean()) * (y - y.mean())).mean()) / variance if variance > 0 else 0.0
    return slope, float(y.mean()) - slope * float(x.mean())


def _difference(sliced: SlicedScene, image: Mosaic, slope: float, offset: float) -> Mosaic:
    """Of an image, its intensities matched by a line, from the fixed scan; 0 outside its brain."""
    return {
        p: np.where(sliced.inside[p], slope * image[p] + offset - sliced.fixed[p], 0)
        for p in PLANES
    }


def _percentages(largest: float) -> tuple[str, ...]:
    """Of a scale of intensities, in hundredths of white."""
    return tuple(f"{100 * x * largest:+.0f} %" if x else "0" for x in (-1, -0.5, 0, 0.5, 1))


def _grid_lines(warp: Transform, plane: Grid) -> np.ndarray:
    """How strongly lines of the moving space are seen in a plane's pixels, 0 to 1."""
    moved = warp.map_nodes(plane, 0, plane.shape[0])
    strength = np.zeros(plane.shape)
    for direction in (plane.direction[:, 0], plane.direction[:, 1]):
        along = moved @ direction
        slope = np.hypot(*np.gradient(along, plane.spacing[0], axis=(0, 1)))
        off = np.abs((along + LINES / 2) % LINES - LINES / 2) / np.maximum(slope, 1e-3)
        strength = np.maximum(strength, np.clip(0.9 - off / plane.spacing[0], 0, 0.8))
    return side_by_side(strength)


def _of_volume(sliced: SlicedScene, determinant: Volume) -> Mosaic:
    """Colours of its logarithm; black outside of the fixed brain."""
    shown = sliced.slices.of(determinant, beyond="border")
    logs = {p: np.log(np.maximum(image, 1e-3)) for p, image in shown.items()}
    colours = {p: coloured(log / LARGEST_LOG, PURPLE_GREEN) for p, log in logs.items()}
    for plane, picture in colours.items():
        picture[~sliced.inside[plane]] = 0
    return colours
