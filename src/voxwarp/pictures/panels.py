"""The panels of a report, one function each; ``panels`` lists them."""

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
    COLD_HOT,
    CONTOURS,
    FOLDS,
    MOVED_CONTOURS,
    PURPLE_GREEN,
    SHARED_CONTOURS,
    Colour,
    coloured,
    grey,
    window,
    windowed,
)
from .contours import FINER, borders, interpolated, outline
from .scene import Scene, SlicedScene
from .slices import PLANES, Mosaic, Slices, interpolable, side_by_side, values_inside

# Set by hand.
SQUARES = 20.0  # mm, edge of the squares of the checkerboard
LINES = 10.0  # mm between the lines of the deformed grid
LARGEST_LOG = float(np.log(4.0))  # colours of the Jacobian: from a quarter to four times the volume


@dataclass(frozen=True)
class Overlay:
    """Lines or points that are drawn on a picture.

    Args:
        mosaic: for each plane, indices (height, width) into ``colours``, or 0 for nothing; it has
            as many pixels as the picture, or a multiple.
        colours: the colours of the indices 1, 2, ...
    """

    mosaic: Mosaic
    colours: tuple[Colour, ...]


@dataclass(frozen=True)
class Picture:
    """Slices as a picture.

    Args:
        name: what the picture shows, such as "Moved".
        mosaic: for each plane uint8, grey (height, width) or RGB (height, width, 3).
        overlay: lines or points on the picture.
    """

    name: str
    mosaic: Mosaic
    overlay: Overlay | None = None


class Scale(NamedTuple):
    """The scale of a picture's colours.

    Args:
        ticks: labels at equal distances.
        colours: colours at equal distances.
    """

    ticks: tuple[str, ...]
    colours: tuple[Colour, ...]


@dataclass(frozen=True)
class Panel:
    """Pictures of the same slices that belong together.

    Args:
        key: short name, letters and underscores only.
        title, caption: plain text.
        pictures: one or more; of several, the report shows one at a time, in the same place.
        columns: number of slices in each plane.
        show_all: show all pictures, one below the other.
        scale: of the colours, if they stand for values.
    """

    key: str
    title: str
    caption: str
    pictures: tuple[Picture, ...]
    columns: Mapping[str, int]
    show_all: bool = False
    scale: Scale | None = None


def rendered(picture: Picture, plane: str) -> np.ndarray:
    """The mosaic of a plane with its overlay, (height, width, 3) uint8."""
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
    """All panels for which there are data, in the order in which they should be looked at."""
    scene = sliced.scene
    yield comparison(sliced)
    yield contours(sliced)
    if scene.labels is not None and scene.fixed_labels is not None:
        yield label_contours(sliced, scene.labels, scene.fixed_labels)
    if any(lesion is not None for lesion in scene.lesions.values()):
        yield lesion_outlines(sliced)
    yield checkerboard(sliced)
    yield differences(sliced)
    yield deformed_grid(sliced)
    yield jacobian(sliced)
    yield extraction(scene, "moving")
    if scene.masks["fixed"]:
        yield extraction(scene, "fixed")


def comparison(sliced: SlicedScene) -> Panel:
    """The moved scan, the fixed scan, and the moving scan after the affine alignment alone."""
    return Panel(
        "comparison",
        "Fixed and moved",
        "Switch between the pictures: structures that stay in place are aligned.",
        (
            Picture("Moved", grey(sliced.moved)),
            Picture("Fixed", grey(sliced.fixed)),
            Picture("Moving after the affine alignment", grey(sliced.before)),
        ),
        sliced.slices.columns,
    )


def contours(sliced: SlicedScene) -> Panel:
    """Outlines of the fixed brain and its brightest tissue on the moved scan."""
    return Panel(
        "contours",
        "Contours of the fixed scan on the moved scan",
        "The lines are the outlines of the fixed brain and of its brightest tissue (white matter "
        "in a T1-weighted scan). They should follow the same edges in the moved scan.",
        (Picture("Moved", grey(sliced.moved), Overlay(sliced.outlines, (CONTOURS,))),),
        sliced.slices.columns,
    )


def label_contours(sliced: SlicedScene, labels: Volume, fixed_labels: Volume) -> Panel:
    """Borders of the fixed and of the moved labels on the fixed scan."""
    fixed, moved = (
        borders(sliced.slices.sample(volume, transform, interpolation="nearest", finer=FINER))
        for volume, transform in ((fixed_labels, None), (labels, sliced.transform))
    )
    drawn = {p: (1 * fixed[p] + 2 * moved[p]).astype(np.uint8) for p in PLANES}
    overlay = Overlay(drawn, (CONTOURS, MOVED_CONTOURS, SHARED_CONTOURS))
    return Panel(
        "labels",
        "Borders of the labels",
        "Cyan: labels of the fixed scan. Orange: labels of the moving scan, resampled onto the "
        "fixed scan. White: both at the same place.",
        (Picture("Fixed", grey(sliced.fixed), overlay),),
        sliced.slices.columns,
    )


def lesion_outlines(sliced: SlicedScene) -> Panel:
    """Outlines of the lesions of both scans on the fixed and on the moved scan."""
    lines = {}
    for role, transform in (("fixed", None), ("moving", sliced.transform)):
        lesion = sliced.scene.lesions.get(role)
        if lesion is None:
            lines[role] = {p: np.zeros_like(m) for p, m in sliced.outlines.items()}
        else:
            shown = sliced.slices.sample(lesion, transform, interpolation="nearest", finer=FINER)
            lines[role] = borders(shown, inner=True)
    drawn = {p: (1 * lines["fixed"][p] + 2 * lines["moving"][p]).astype(np.uint8) for p in PLANES}
    overlay = Overlay(drawn, (CONTOURS, MOVED_CONTOURS, SHARED_CONTOURS))
    return Panel(
        "lesions",
        "Outlines of the lesions",
        "Cyan: the lesion of the fixed scan. Orange: the lesion of the moving scan, after the "
        "whole transform. Nothing inside of them pulls: the deformation continues smoothly "
        "through them.",
        (
            Picture("Moved", grey(sliced.moved), overlay),
            Picture("Fixed", grey(sliced.fixed), overlay),
        ),
        sliced.slices.columns,
    )


def checkerboard(sliced: SlicedScene) -> Panel:
    """Alternating squares of the fixed and the moved scan."""
    mixed = {}
    for plane, grid in sliced.slices.grids.items():
        across = max(1, round(SQUARES / grid.spacing[0]))
        u, v = np.indices(grid.shape[:2]) // across
        odd = np.repeat(((u + v) % 2 == 1)[..., None], grid.shape[2], axis=2)
        mixed[plane] = np.where(side_by_side(odd), sliced.moved[plane], sliced.fixed[plane])
    return Panel(
        "checkerboard",
        "Checkerboard of fixed and moved",
        f"Squares of {SQUARES:.0f} mm show the fixed and the moved scan in turn. Edges should "
        "continue from one square to the next.",
        (Picture("Fixed and moved in turn", grey(mixed)),),
        sliced.slices.columns,
    )


def differences(sliced: SlicedScene) -> Panel:
    """Moved minus fixed in the fixed brain, before and after the deformation, on one scale."""
    line = _line(*(values_inside(m, sliced.inside) for m in (sliced.moved, sliced.fixed)))
    before, after = (_difference(sliced, m, *line) for m in (sliced.before, sliced.moved))
    values = np.abs(values_inside(before, sliced.inside))
    largest = max(0.02, float(np.percentile(values, 99)) if values.size else 0.0)
    return Panel(
        "difference",
        "Difference from the fixed scan",
        "Moved minus fixed in the fixed brain, after a linear fit of the intensities, in percent "
        "of white; both pictures have the same scale. Black: no difference. Scans of different "
        "contrasts differ even where they are aligned.",
        tuple(
            Picture(name, {p: coloured(d / largest, COLD_HOT) for p, d in shown.items()})
            for name, shown in (
                ("Before the deformation", before),
                ("After the deformation", after),
            )
        ),
        sliced.slices.columns,
        show_all=True,
        scale=Scale(_percentages(largest), tuple(COLD_HOT)),
    )


def deformed_grid(sliced: SlicedScene) -> Panel:
    """A regular grid on the moving scan, deformed like the scan."""
    lines = {p: _grid_lines(sliced.warp, g) for p, g in sliced.slices.grids.items()}
    drawn = {p: np.maximum(0.4 * sliced.moved[p], lines[p]) for p in PLANES}
    return Panel(
        "grid",
        "The deformed grid",
        f"A regular grid on the moving scan after the affine alignment (lines every {LINES:.0f} "
        "mm), deformed together with the scan.",
        (Picture("Deformed grid", grey(drawn)),),
        sliced.slices.columns,
    )


def jacobian(sliced: SlicedScene) -> Panel:
    """How the deformation changes volumes, with all voxels of the brain where it folds."""
    grid, brain = sliced.scene.fixed.grid, sliced.scene.brain
    brain = brain if brain.any() else np.ones(grid.shape, bool)
    box = bounding_box(brain)
    determinant = jacobian_determinant(sliced.scene.warp, box)
    part = Volume(determinant, grid.crop(*start_and_shape(box)))
    folded = np.argwhere((part.data <= 0) & brain[box])
    count = len(folded)
    folds = (
        f"Red: {count} folded voxel{'s' * (count > 1)} of the brain (determinant of 0 or less), on "
        "the nearest slices."
        if count
        else "The deformation has no folds in the brain."
    )
    marked = sliced.slices.mark(part.grid.to_world(folded)) if count else None
    overlay = Overlay(marked, (FOLDS,)) if marked else None
    return Panel(
        "jacobian",
        "Change of volume" if count else "Change of volume: no folds",
        "Volume of each region in the moving scan after the affine alignment, relative to its "
        "volume in the fixed scan (the Jacobian determinant of the deformation, on a logarithmic "
        f"scale). {folds}",
        (Picture("Logarithm of the Jacobian determinant", _of_volume(sliced, part), overlay),),
        sliced.slices.columns,
        scale=Scale(("× ¼", "× ½", "same volume", "× 2", "× 4"), tuple(PURPLE_GREEN)),
    )


def extraction(scene: Scene, role: str) -> Panel:
    """A scan as it was read, with the outline of its brain mask."""
    scan, mask = interpolable(getattr(scene, role)), scene.masks[role]
    slices = Slices.through_head(scan)
    if mask is None:
        caption, overlay = "This scan was used as it is: no brain was extracted.", None
    else:
        caption = "The line is the border of the brain mask."
        soft = Volume((mask.data != 0).astype(np.float32), mask.grid)
        overlay = Overlay(outline(interpolated(slices.sample(soft)), 0.5), (CONTOURS,))
    shown = slices.sample(scan)
    return Panel(
        f"{role}_brain",
        f"The {role} scan" + (" and its brain mask" if mask else ""),
        caption,
        (Picture(f"The {role} scan", grey(windowed(shown, window(shown))), overlay),),
        slices.columns,
    )


def _line(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Slope and offset of the line that maps x to y by least squares; without points 1 and 0."""
    if not x.size:
        return 1.0, 0.0
    variance = float(x.var())
    slope = float(((x - x.mean()) * (y - y.mean())).mean()) / variance if variance > 0 else 0.0
    return slope, float(y.mean()) - slope * float(x.mean())


def _difference(sliced: SlicedScene, image: Mosaic, slope: float, offset: float) -> Mosaic:
    """An image with fitted intensities minus the fixed scan; 0 outside the fixed brain."""
    return {
        p: np.where(sliced.inside[p], slope * image[p] + offset - sliced.fixed[p], 0)
        for p in PLANES
    }


def _percentages(largest: float) -> tuple[str, ...]:
    """The ticks of a scale of intensities, in percent of white."""
    return tuple(f"{100 * x * largest:+.0f} %" if x else "0" for x in (-1, -0.5, 0, 0.5, 1))


def _grid_lines(warp: Transform, plane: Grid) -> np.ndarray:
    """Brightness of the lines of a grid in the moving space at a plane's pixels, 0 to 1."""
    moved = warp.map_nodes(plane, 0, plane.shape[0])
    strength = np.zeros(plane.shape)
    for direction in (plane.direction[:, 0], plane.direction[:, 1]):
        along = moved @ direction
        slope = np.hypot(*np.gradient(along, plane.spacing[0], axis=(0, 1)))
        off = np.abs((along + LINES / 2) % LINES - LINES / 2) / np.maximum(slope, 1e-3)
        strength = np.maximum(strength, np.clip(0.9 - off / plane.spacing[0], 0, 0.8))
    return side_by_side(strength)


def _of_volume(sliced: SlicedScene, determinant: Volume) -> Mosaic:
    """Colours of the logarithm of a determinant; black outside the fixed brain."""
    shown = sliced.slices.sample(determinant, padding="border")
    logs = {p: np.log(np.maximum(image, 1e-3)) for p, image in shown.items()}
    colours = {p: coloured(log / LARGEST_LOG, PURPLE_GREEN) for p, log in logs.items()}
    for plane, picture in colours.items():
        picture[~sliced.inside[plane]] = 0
    return colours
