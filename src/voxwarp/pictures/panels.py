"""The pictures of a registration, as arrays: what a report, a notebook and a figure show."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy import ndimage

from ..fields import field as fields
from ..space.grid import Grid
from ..space.region import bounding_box
from ..space.transform import Affine, Chain, Transform, Warp
from ..space.volume import Volume
from .slices import PLANES, Mosaic, Seen, Slices, side_by_side

FINER = 2  # pixels of outlines to one of the picture below
CHECK = 20.0  # mm, of a checkerboard's squares
LAYERS = 32  # of a field, worked on at a time
LINES = 10.0  # mm between the lines of a grid
CONTOURS, MOVED_CONTOURS, BOTH = (0, 229, 255), (255, 158, 0), (255, 255, 255)
FOLDS = (255, 0, 0)

# Through black, as differences are shown in this field; through white, so that red is left.
COLD_HOT = [(190, 255, 255), (0, 130, 255), (0, 0, 0), (255, 90, 0), (255, 255, 190)]
PURPLE_GREEN = [(84, 20, 120), (170, 130, 200), (247, 247, 247), (110, 190, 110), (0, 90, 40)]
LARGEST_LOG = float(np.log(4.0))  # of the Jacobian's colours: a quarter to four times the volume


@dataclass(frozen=True, eq=False)
class Scene:
    """What is to be seen of a registration.

    Args:
        fixed, moving: the scans.
        affine, warp: the fixed space to the moving space, see ``Registration``.
        brain: (X, Y, Z) boolean, the fixed brain on the fixed grid.
        masks: brains that were extracted or given, by role; None where the scan is a brain.
        labels, fixed_labels: label maps on the scans' grids, if they were given.
    """

    fixed: Volume
    moving: Volume
    affine: Affine
    warp: Warp
    brain: np.ndarray
    masks: Mapping[str, Volume | None]
    labels: Volume | None = None
    fixed_labels: Volume | None = None


@dataclass(frozen=True)
class Overlay:
    """Lines or points on a picture.

    Args:
        mosaic: of each plane, indices (height, width) into ``colours``, or 0 for nothing; of as
            many pixels as the picture has, or a multiple.
        colours: red, green, blue of index 1, 2, …
    """

    mosaic: Mosaic
    colours: tuple[tuple[int, int, int], ...]


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


@dataclass(frozen=True)
class Panel:
    """Pictures that belong together: of several one is shown at a time, in the same place.

    Args:
        key: short name, of letters.
        title, caption: plain text.
        pictures: one or more, all of the same slices.
        beside: show them all, one below the other.
        scale: what the colours mean: values at equal distances, and their colours.
        columns: number of slices of each plane.
    """

    key: str
    title: str
    caption: str
    pictures: tuple[Picture, ...]
    columns: Mapping[str, int]
    beside: bool = False
    scale: tuple[tuple[str, ...], tuple[tuple[int, int, int], ...]] | None = None


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


def plain(volume: Volume) -> np.ndarray:
    """The middle slice of each plane of a volume, side by side, grey."""
    volume = _floats(volume)
    slices = Slices.through(volume.grid, volume.data > _least_shown(volume.data), columns=1)
    return _in_a_row(list(_grey(_windowed(slices.of(volume))).values()))


class Pictures:
    """All pictures of one scene; what several of them need is computed once.

    Args:
        scene: what is to be seen.
    """

    def __init__(self, scene: Scene):
        self.scene = scene
        self.slices = Slices.through(scene.fixed.grid, scene.brain)
        self._warp = Seen(scene.warp, self.slices)
        self._transform = Chain([self._warp, scene.affine])

    def panels(self) -> Iterator[Panel]:
        """Every panel there is something for, in the order to be looked at."""
        yield self.comparison()
        yield self.contours()
        if self.scene.labels is not None and self.scene.fixed_labels is not None:
            yield self.label_contours()
        yield self.checkerboard()
        yield self.differences()
        yield self.grid()
        yield self.jacobian()
        yield self.extraction("moving")
        if self.scene.masks["fixed"]:
            yield self.extraction("fixed")

    def comparison(self) -> Panel:
        """Moved, fixed, and moving after the affine stage, one in place of the other."""
        shown = (self._moved, self._fixed, self._before)
        names = "Moved", "Fixed", "Moving after the affine stage"
        return self._panel(
            *("comparison", "Fixed and moved"),
            "What does not move between the pictures is aligned.",
            *(Picture(name, _grey(image)) for name, image in zip(names, shown, strict=True)),
        )

    def contours(self) -> Panel:
        """Boundaries of the fixed brain's tissues on the moved scan."""
        return self._panel(
            *("contours", "Contours of the fixed scan on the moved scan"),
            "Outline of the fixed brain and of its brighter tissue (white matter, in a T1 scan): "
            "they should follow the same edges in the moved scan.",
            Picture("Moved", _grey(self._moved), self.outlines),
        )

    def label_contours(self) -> Panel:
        """Borders of the fixed labels and of the carried ones on the fixed scan."""
        scene = self.scene
        assert scene.labels is not None
        assert scene.fixed_labels is not None
        fixed, moved = (
            _borders(self.slices.of(labels, through, interpolation="nearest", finer=FINER))
            for labels, through in ((scene.fixed_labels, None), (scene.labels, self._transform))
        )
        drawn = {p: (1 * fixed[p] + 2 * moved[p]).astype(np.uint8) for p in PLANES}
        return self._panel(
            *("labels", "Borders of labels"),
            "Cyan: of the fixed labels; orange: of the moving ones, carried along; white: of both.",
            Picture("Fixed", _grey(self._fixed), Overlay(drawn, (CONTOURS, MOVED_CONTOURS, BOTH))),
        )

    def checkerboard(self) -> Panel:
        """Squares of the fixed and the moved scan in turn."""
        mixed = {}
        for plane, grid in self.slices.grids.items():
            across = max(1, round(CHECK / grid.spacing[0]))
            u, v = np.indices(grid.shape[:2]) // across
            odd = np.repeat(((u + v) % 2 == 1)[..., None], grid.shape[2], axis=2)
            mixed[plane] = np.where(side_by_side(odd), self._moved[plane], self._fixed[plane])
        return self._panel(
            *("checkerboard", "Checkerboard of fixed and moved"),
            f"Squares of {CHECK:.0f} mm in turn: edges should run on from square to square.",
            Picture("Fixed and moved in turn", _grey(mixed)),
        )

    def differences(self) -> Panel:
        """Moved less fixed, before and after, in the fixed brain, on one scale."""
        before, after = (self._difference(image) for image in (self._before, self._moved))
        values = np.abs(_values(before, self._inside))
        largest = max(0.02, float(np.percentile(values, 99)) if values.size else 0.0)
        return self._panel(
            *("difference", "Difference from the fixed scan"),
            "Moving less fixed in the fixed brain, intensities matched there by a line; both on "
            "one scale. Black: no difference. Scans of two contrasts differ wherever they are.",
            *(
                Picture(name, {p: _coloured(d / largest, COLD_HOT) for p, d in shown.items()})
                for name, shown in (("Before (affine)", before), ("After", after))
            ),
            beside=True,
            scale=(_ticks(largest), tuple(COLD_HOT)),
        )

    def grid(self) -> Panel:
        """Lines of a regular grid in the moving space, as they are bent in the fixed one."""
        lines = {p: _grid_lines(self._warp, g) for p, g in self.slices.grids.items()}
        drawn = {p: np.maximum(0.4 * self._moved[p], lines[p]) for p in PLANES}
        return self._panel(
            *("grid", "The deformed grid"),
            f"Lines of {LINES:.0f} mm on the moving scan after the affine stage, as the "
            "deformation bends them, over the moved scan.",
            Picture("Deformed grid", _grey(drawn)),
        )

    def jacobian(self) -> Panel:
        """How the deformation changes volumes, and each voxel of the brain where it folds."""
        grid = self.scene.fixed.grid
        brain = self.scene.brain if self.scene.brain.any() else np.ones(grid.shape, bool)
        box = bounding_box(brain)
        part = Volume(_determinant(self.scene.warp, box), grid.crop(*_start_and_shape(box)))
        shown = self.slices.of(part, beyond="border")
        logs = {p: np.log(np.maximum(image, 1e-3)) for p, image in shown.items()}
        colours = {p: _coloured(log / LARGEST_LOG, PURPLE_GREEN) for p, log in logs.items()}
        for plane, picture in colours.items():
            picture[~self._inside[plane]] = 0
        folded = np.argwhere((part.data <= 0) & brain[box])
        count = len(folded)
        told = (
            f"Red: {count} folded voxel{'s' * (count > 1)} of the brain, each on the nearest slice."
            if count
            else "There are no folds in the brain."
        )
        overlay = Overlay(self._points(folded, part.grid), (FOLDS,)) if count else None
        return self._panel(
            *("jacobian", "Change of volume" if count else "Change of volume: no folds"),
            "Logarithm of the Jacobian determinant of the deformable part (the affine stage is "
            f"not in it). {told}",
            Picture("Logarithm of the Jacobian determinant", colours, overlay),
            scale=(("¼ of the volume", "½", "same", "2", "4 times"), tuple(PURPLE_GREEN)),
        )

    def extraction(self, role: str) -> Panel:
        """A scan as it was read, with the outline of what was taken for its brain."""
        scan = _floats(getattr(self.scene, role))
        mask = self.scene.masks[role]
        slices = Slices.through(scan.grid, scan.data > _least_shown(scan.data))
        if mask is None:
            told, overlay = "It was used as it is: no brain was extracted from it.", None
        else:
            told = "The line is the border of what was taken for its brain."
            soft = Volume((mask.data != 0).astype(np.float32), mask.grid)
            outline = _outline(_finer(slices.of(soft)), 0.5)
            overlay = Overlay(outline, (CONTOURS,))
        return Panel(
            f"{role}_brain",
            f"The {role} scan" + (" and its brain" if mask else ""),
            told,
            (Picture(f"The {role} scan", _grey(_windowed(slices.of(scan))), overlay),),
            _columns(slices),
        )

    def thumbnail(self) -> Picture:
        """The middle slice of each plane, side by side: the moved scan, and fixed outlines."""
        whole, images = Picture("", _grey(self._moved), self.outlines), []
        for plane, grid in self.slices.grids.items():
            first = grid.shape[2] // 2 * grid.shape[0]
            images.append(composed(whole, plane)[:, first : first + grid.shape[0]])
        return Picture("Moved, with outlines of the fixed scan", {"middle": _in_a_row(images)})

    def _panel(
        self,
        key: str,
        title: str,
        caption: str,
        *pictures: Picture,
        beside: bool = False,
        scale: tuple[tuple[str, ...], tuple[tuple[int, int, int], ...]] | None = None,
    ) -> Panel:
        return Panel(key, title, caption, pictures, _columns(self.slices), beside, scale)

    @cached_property
    def _inside(self) -> Mosaic:
        brain = Volume(self.scene.brain.astype(np.uint8), self.scene.fixed.grid)
        return {p: m != 0 for p, m in self.slices.of(brain, interpolation="nearest").items()}

    @cached_property
    def _fixed(self) -> Mosaic:
        return _windowed(self._read(self.scene.fixed), self._inside)

    @cached_property
    def _moved_and_before(self) -> tuple[Mosaic, Mosaic]:
        """On one scale, that of the moved scan."""
        scene = self.scene
        moved = self._read(scene.moving, self._transform)
        before = self._read(scene.moving, scene.affine)
        window = _window(moved, self._inside)
        return _windowed(moved, window=window), _windowed(before, window=window)

    @property
    def _moved(self) -> Mosaic:
        return self._moved_and_before[0]

    @property
    def _before(self) -> Mosaic:
        return self._moved_and_before[1]

    def _read(self, volume: Volume, through: Transform | None = None) -> Mosaic:
        return self.slices.of(_floats(volume), through)

    @cached_property
    def outlines(self) -> Overlay:
        """Of the fixed brain and of its brighter tissue."""
        scene = self.scene
        soft = Volume(scene.brain.astype(np.float32), scene.fixed.grid)
        brain = _outline(_finer(self.slices.of(soft)), 0.5)
        level = _brighter_half(_values(self._fixed, self._inside))
        smooth = {p: ndimage.gaussian_filter(m, 0.6) for p, m in self._fixed.items()}
        tissue = _outline(_finer(smooth), level)
        inside = {p: _enlarged(m, FINER) for p, m in self._inside.items()}
        lines = {p: (brain[p] | (tissue[p] & inside[p])).astype(np.uint8) for p in PLANES}
        return Overlay(lines, (CONTOURS,))

    def _difference(self, image: Mosaic) -> Mosaic:
        fixed, moved = (_values(m, self._inside) for m in (self._fixed, self._moved))
        slope, offset = _line(moved, fixed)
        return {
            p: np.where(self._inside[p], slope * image[p] + offset - self._fixed[p], 0)
            for p in PLANES
        }

    def _points(self, voxels: np.ndarray, grid: Grid) -> Mosaic:
        """Voxels of a grid, each on the nearest slice of each plane, enlarged."""
        points = grid.to_world(voxels)
        marked = {}
        for plane, pixels in self.slices.grids.items():
            last = np.asarray(pixels.shape) - 1
            at = np.clip(np.rint(pixels.to_voxel(points)), 0, last).astype(int)
            hit = np.zeros(pixels.shape, bool)
            hit[tuple(at.T)] = True
            wide = ndimage.binary_dilation(hit, np.ones((3, 3, 1), bool))
            marked[plane] = side_by_side(wide).astype(np.uint8)
        return marked


def _in_a_row(images: list[np.ndarray]) -> np.ndarray:
    """Pictures side by side, in the middle of a row as high as the highest."""
    height = max(image.shape[0] for image in images)
    padded = []
    for image in images:
        above = (height - image.shape[0]) // 2
        below = height - image.shape[0] - above
        padded.append(np.pad(image, ((above, below), (0, 0), (0, 0))[: image.ndim]))
    return np.concatenate(padded, axis=1)


def _columns(slices: Slices) -> dict[str, int]:
    return {plane: grid.shape[2] for plane, grid in slices.grids.items()}


def _values(mosaic: Mosaic, inside: Mosaic) -> np.ndarray:
    """All values inside, of all planes."""
    return np.concatenate([mosaic[p][inside[p]] for p in PLANES])


def _window(mosaic: Mosaic, inside: Mosaic | None = None) -> tuple[float, float]:
    """The values to be shown black and white: what lies inside, but for its extremes."""
    values = (
        _values(mosaic, inside) if inside else np.concatenate([m.ravel() for m in mosaic.values()])
    )
    values = values[values != 0]
    if not values.size:
        return 0.0, 1.0
    low, high = (float(v) for v in np.percentile(values, (0.5, 99.5)))
    low = 0.0 if low >= 0 else low
    return low, max(high + 0.1 * (high - low), low + 1e-6 * max(1.0, abs(low)))


def _windowed(
    mosaic: Mosaic, inside: Mosaic | None = None, window: tuple[float, float] | None = None
) -> Mosaic:
    """From 0, black, to 1, white."""
    low, high = window or _window(mosaic, inside)
    return {p: np.clip((m - low) / (high - low), 0, 1) for p, m in mosaic.items()}


def _grey(mosaic: Mosaic) -> Mosaic:
    return {plane: np.rint(255 * image).astype(np.uint8) for plane, image in mosaic.items()}


def _coloured(values: np.ndarray, colours: list[tuple[int, int, int]]) -> np.ndarray:
    """Values from −1 to 1 in colours that lie at equal distances."""
    at = np.linspace(-1, 1, len(colours))
    parts = [np.interp(values, at, [colour[i] for colour in colours]) for i in range(3)]
    return np.rint(np.stack(parts, axis=-1)).astype(np.uint8)


def _ticks(largest: float) -> tuple[str, ...]:
    """Of a scale of intensities, in hundredths of white."""
    return tuple(f"{100 * x * largest:+.0f} %" if x else "0" for x in (-1, -0.5, 0, 0.5, 1))


def _floats(volume: Volume) -> Volume:
    """In a type to be interpolated and shown; whole numbers of 16 bits are fine enough."""
    if volume.data.dtype in (np.float32, np.int16, np.uint16):
        return volume
    return Volume(volume.data.astype(np.float32), volume.grid)


def _determinant(warp: Warp, box: tuple[slice, slice, slice]) -> np.ndarray:
    """Det J of a warp in a block of its grid, a few layers at a time: fields are large."""
    first, last = box[0].start, box[0].stop
    end, found = warp.grid.shape[0], []
    around = tuple(
        slice(max(0, side.start - 1), min(n, side.stop + 1))
        for side, n in zip(box[1:], warp.grid.shape[1:], strict=True)
    )
    for low in range(first, last, LAYERS):
        high = min(low + LAYERS, last)
        wide = slice(max(0, low - 1), min(end, high + 1))
        part = np.ascontiguousarray(warp.displacement[:, wide, around[0], around[1]])
        start, shape = _start_and_shape((wide, *around))
        slab = Warp(part, warp.grid.crop(start, shape)).in_voxels()
        determinant = fields.jacobian_determinant(slab[None])[0].numpy()
        inner = (
            slice(side.start - wider.start, side.stop - wider.start)
            for side, wider in zip((slice(low, high), *box[1:]), (wide, *around), strict=True)
        )
        found.append(determinant[tuple(inner)])
    return np.concatenate(found)


def _start_and_shape(box: Sequence[slice]) -> tuple[list[int], list[int]]:
    return [side.start for side in box], [side.stop - side.start for side in box]


def _line(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Slope and offset of the line from x to y by least squares; of no points, the identity."""
    if not x.size:
        return 1.0, 0.0
    variance = float(x.var())
    slope = float(((x - x.mean()) * (y - y.mean())).mean()) / variance if variance > 0 else 0.0
    return slope, float(y.mean()) - slope * float(x.mean())


def _brighter_half(values: np.ndarray) -> float:
    """The threshold between the brightest of three classes of values and the rest (k-means)."""
    if not values.size:
        return 0.0
    centres = np.percentile(values, (10, 50, 90))
    for _ in range(20):
        edges = (centres[:-1] + centres[1:]) / 2
        classes = np.digitize(values, edges)
        counts = np.bincount(classes, minlength=3)
        sums = np.bincount(classes, values, minlength=3)
        centres = np.sort(np.where(counts > 0, sums / np.maximum(counts, 1), centres))
    return float((centres[1] + centres[2]) / 2)


def _outline(mosaic: Mosaic, level: float) -> Mosaic:
    """Pixels at or above a level that touch one below."""
    return _borders({p: (m >= level).astype(np.uint8) for p, m in mosaic.items()}, inner=True)


def _borders(mosaic: Mosaic, *, inner: bool = False) -> Mosaic:
    """Pixels whose right or lower neighbour has another value; with ``inner``, that are not 0."""
    borders = {}
    for plane, image in mosaic.items():
        edge = np.zeros(image.shape, bool)
        across, down = image[:, 1:] != image[:, :-1], image[1:] != image[:-1]
        edge[:, :-1] |= across
        edge[:-1] |= down
        if inner:
            edge[:, 1:] |= across
            edge[1:] |= down
            edge &= image != 0
        borders[plane] = edge
    return borders


def _finer(mosaic: Mosaic) -> Mosaic:
    """Interpolated at the pixels of outlines."""
    return {
        plane: torch.nn.functional.interpolate(
            torch.from_numpy(image)[None, None].float(), scale_factor=FINER, mode="bilinear"
        )[0, 0].numpy()
        for plane, image in mosaic.items()
    }


def _enlarged(image: np.ndarray, times: int) -> np.ndarray:
    return image.repeat(times, axis=0).repeat(times, axis=1)


def _least_shown(data: np.ndarray) -> float:
    """A tenth of what is bright: above it lies the head, below it the air."""
    sample = data[::4, ::4, ::4]
    return 0.1 * float(np.percentile(sample, 99))


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
