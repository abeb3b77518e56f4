"""From a scan as it is stored to the network's input, with the way back.

First a scan is examined: what is the brain, how bright is the coil, where does it lie in MNI152
space. Nothing is resampled for good. Then ``prepare`` takes the scan itself onto the working
grid, once, through all that was found.
"""

import importlib.util
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from ..errors import InputError
from ..networks.model import Recipe
from ..space.grid import Grid
from ..space.resample import resample
from ..space.transform import Affine
from ..space.volume import Source, Volume, read_labels, read_volume, to_canonical
from . import bias, brain
from .linear import Agreement, agreement, register_affine
from .pose import Coarse, rotation_angle

CONFORMED = 256  # voxels of 1 mm along each axis
TURNED = 30.0  # degrees from upright: brains are looked for again in the turned head
_LIA = np.array([[-1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])  # as FreeSurfer conforms

THINNEST = 20.0  # mm along each axis: less of a brain cannot be placed
ROOM = 40.0  # mm around a brain for skull and skin

CHOICES = "auto", "yes", "no"
Kind = Literal["head", "brain", "scan"]


@dataclass(frozen=True)
class Settings:
    """Which steps of preparation are taken.

    Args:
        brain_extract: extract the brain, or take the scan for a brain; "auto" looks.
        extractor: see ``brain.extractor``.
        bias: correct the bias field; None: of heads, not of brains.
        affine: align with MNI152; without it the scan is taken to be there.
        conform: work at 1 mm on 256³ voxels; without it on the scan's own, its axes reordered
            to R, A, S.
    """

    brain_extract: str = "auto"
    extractor: str = "deepbet"
    bias: bool | None = None
    affine: bool = True
    conform: bool = True

    def __post_init__(self) -> None:
        if self.brain_extract not in CHOICES:
            raise InputError(f"brain-extract {self.brain_extract!r}: wanted auto, yes or no")
        brain.extractor(self.extractor)


DEFAULTS = Settings()


@dataclass(frozen=True, eq=False)
class Findings:
    """What an examination finds in a scan.

    Args:
        kind: the scan shows a "head", or a "brain" alone; "scan" where nobody looked.
        window: grid of the conformed scan.
        mask: the brain, where one was extracted or given; of any grid; None: all that is not 0.
        log_bias: logarithm of the bias field on a coarse lattice, if it was estimated.
        template_to_scan: from MNI152 space to the scan's own, RAS mm.
        agreement: with the template, where the affine map was sought.
        seconds: time that each step took.
    """

    kind: Kind
    window: Grid
    template_to_scan: Affine
    mask: Volume | None = None
    log_bias: Volume | None = None
    agreement: Agreement | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    def described(self) -> dict[str, Any]:
        """For records in JSON."""
        return {
            "seen_as": self.kind,
            "brain_mask_ml": self.mask and round(brain.millilitres(self.mask.data, self.mask), 1),
            "bias_corrected": self.log_bias is not None,
            "agreement_with_template": self.agreement and asdict(self.agreement),
            "template_to_scan": self.template_to_scan.fixed_to_moving.tolist(),
            "seconds": self.seconds,
        }

    def doubts(self, name: str) -> list[str]:
        """Reasons to look twice, a sentence each."""
        found, doubts = self.agreement, list[str]()
        if found is None:
            return doubts
        if not found.is_sane:
            doubts.append(
                f"{name}: the affine map to it scales MNI152 by {found.smallest_scale:.2f} to "
                f"{found.largest_scale:.2f}: is the voxel size in its header right?"
            )
        elif not found.is_good:
            doubts.append(
                f"{name}: it hardly fits the MNI152 template (overlap of the brains "
                f"{found.overlap:.2f}, local NCC {found.local_ncc:.2f}; in place over 0.93 and "
                f"0.37): look at the pictures: is it a whole {self.kind}, upright, of the "
                f"right voxel size?"
            )
        if found.outside > 0.1:
            doubts.append(f"{name}: {100 * found.outside:.0f} % of the brain lie outside the scan")
        return doubts


@dataclass(frozen=True, eq=False)
class Prepared:
    """A scan on the working grid.

    Args:
        image: (X, Y, Z) float32 in [0, 1].
        template_to_scan: from MNI152 space to the scan's own, RAS mm.
    """

    image: torch.Tensor
    template_to_scan: Affine


def read_scan(
    scan: Source, role: str, labels: Source | None = None, mask: Source | None = None
) -> tuple[Volume, Volume | None, Volume | None]:
    """A scan, its labels and its brain mask, on one grid with orthogonal axes.

    Args:
        scan, labels, mask: paths, or images of nibabel's.
        role: what the scan is to the user, such as "moving", for messages; may be empty.

    Raises:
        InputError: a file is missing or not usable, or the grids differ.
    """
    role = f"{role} " if role else ""
    volume = read_volume(scan, f"{role}image")
    mapped = None if labels is None else read_labels(labels, volume, f"{role}label map")
    masked = None if mask is None else read_labels(mask, volume, f"{role}mask")
    if not volume.grid.is_sheared():
        return volume, mapped, masked
    doubt = (
        f"{role}image {volume.name}: its axes are sheared, which ITK files cannot say; it was "
        f"resampled onto an orthogonal grid, and the outputs refer to that"
    )
    grid = volume.grid.unsheared()
    straight = replace(resample(volume, grid), doubts=(*volume.doubts, doubt))
    mapped, masked = (x and resample(x, grid, interpolation="nearest") for x in (mapped, masked))
    return straight, mapped, masked


def examine(scan: Volume, settings: Settings = DEFAULTS, mask: Volume | None = None) -> Findings:
    """Find the brain, the bias field and the place of a scan.

    Args:
        scan: a head or a brain, on any grid.
        settings: which steps are taken.
        mask: the brain, if it is known; on any grid.

    Raises:
        InputError: there is no brain in it.
    """
    scan = from_zero(to_canonical(scan))
    thinnest = min(n * s for n, s in zip(scan.grid.shape, scan.grid.spacing, strict=True))
    if thinnest < THINNEST:
        raise InputError(f"{scan.name}: it is {thinnest:.3g} mm thick, too thin for a brain")
    if mask is not None:
        found = _examine_masked(scan, settings, mask)
    elif _is_head(scan, settings):
        found = _examine_head(scan, settings)
    else:
        found = _examine_brain(scan, settings)
    fit = found.agreement
    in_doubt = settings.affine and mask is None and settings.brain_extract != "no"
    if in_doubt and fit is not None and fit.is_hopeless:
        raise InputError(
            f"{scan.name}: no brain in it: what was taken for one does not fit the MNI152 template "
            f"(overlap {fit.overlap:.2f}, local NCC {fit.local_ncc:.2f}); if there is one, give "
            f"its mask, or use --brain-extract no where nothing else is in the scan"
        )
    if settings.conform and max(found.window.spacing) > 1:  # too large for 1 mm: around the brain
        found = replace(found, window=_cube(*_centre_and_reach(brain_only(scan, found, scan.grid))))
    return found


def unaligned(scan: Volume, recipe: Recipe, mask: Volume | None = None) -> Findings:
    """What is to be known of a scan for a model whose scans are not taken to MNI152 space.

    Args:
        scan: of any body part, on any grid.
        recipe: the model's; its alignment is "centre" or "header".
        mask: what counts of the scan, if not all of it.
    """
    shift = np.eye(4)
    if recipe.alignment == "centre":
        middle = (np.asarray(scan.grid.shape) - 1) / 2
        shift[:3, 3] = scan.grid.to_world(middle)
    return Findings("scan", scan.grid, Affine(shift), mask)


def _examine_brain(scan: Volume, settings: Settings) -> Findings:
    found = Findings("brain", _window(scan.grid, settings), Affine(np.eye(4)))
    if settings.brain_extract != "no":
        brain.check_size(scan.data > 0, scan)
    if settings.bias:
        with _timed(found, "bias"):
            found = replace(found, log_bias=bias.estimate(scan))
    return _placed(found, brain_only(scan, found, scan.grid), settings)


def _examine_masked(scan: Volume, settings: Settings, mask: Volume) -> Findings:
    mask = replace(mask, data=mask.data != 0)
    brain.check_size(mask.data, mask)
    kind: Kind = "head" if _is_head(scan, settings) else "brain"
    found = Findings(kind, _window(scan.grid, settings), Affine(np.eye(4)), mask)
    if settings.bias or (settings.bias is None and kind == "head"):
        with _timed(found, "bias"):
            found = replace(found, log_bias=bias.estimate(scan))
    only = brain_only(scan, found, scan.grid)
    if not (only.data > 0).any():
        raise InputError(f"{scan.name}: it is zero wherever the mask {mask.name} is not")
    return _placed(found, only, settings)


def _examine_head(scan: Volume, settings: Settings) -> Findings:
    views = _views(scan) if settings.conform else [scan.grid]
    looks: list[tuple[Findings, Volume]] = []
    for view in views:
        try:
            looks.append(_look(scan, view, settings))
        except InputError:
            if view is views[-1] and not looks:
                raise
            continue
        fit = looks[-1][0].agreement
        if fit is None or fit.is_good or not settings.affine:
            break
    found, only = max(looks, key=_score)
    coarse = max(only.grid.spacing) > 1.01
    if settings.conform and (coarse or rotation_angle(found.template_to_scan) > TURNED):
        # Upright, and at 1 mm where the scan was too large for that: extraction works best so.
        with suppress(InputError):
            again = _look(scan, _upright_view(found, only), settings, found)
            return max((again, (found, only)), key=_score)[0]
    return found


def _score(look: tuple[Findings, Volume]) -> float:
    fit = look[0].agreement
    return fit.score if fit else 0.0


def _look(
    scan: Volume, view: Grid, settings: Settings, before: Findings | None = None
) -> tuple[Findings, Volume]:
    """What a view of a head shows, and the brain in it."""
    found = before or Findings("head", _window(scan.grid, settings), Affine(np.eye(4)))
    with _timed(found, "conform"):
        head = resample(scan, view)
    if before is None and settings.bias is not False:
        with _timed(found, "bias"):
            found = replace(found, log_bias=bias.estimate(head))
    head = unbiased(head, found.log_bias)
    with _timed(found, "extract"):
        mask = brain.extract(head, settings.extractor)
    only = replace(head, data=np.where(mask, head.data, 0))
    return _placed(replace(found, mask=replace(head, data=mask)), only, settings), only


def _is_head(scan: Volume, settings: Settings) -> bool:
    if settings.brain_extract == "auto":
        return not brain.is_extracted(scan)
    return settings.brain_extract == "yes"


def _placed(found: Findings, only: Volume, settings: Settings) -> Findings:
    """With the affine map from the template to a brain, found or given, and how well it fits."""
    with _timed(found, "affine"):
        affine = found.template_to_scan
        if settings.affine:
            affine = register_affine(template(), only)
        agrees = agreement(template(), only, affine)
    return replace(found, template_to_scan=affine, agreement=agrees)


def placed(found: Findings, scan: Volume, template_to_scan: Affine) -> Findings:
    """The findings with an affine map that is known from elsewhere, and how well that fits."""
    standard = from_zero(to_canonical(scan))
    only = brain_only(standard, found, standard.grid)
    agrees = agreement(template(), only, template_to_scan)
    return replace(found, template_to_scan=template_to_scan, agreement=agrees)


def brain_only(scan: Volume, found: Findings, onto: Grid, through: Affine | None = None) -> Volume:
    """The scan's brain, its bias removed, zero elsewhere, interpolated once.

    Args:
        scan: with intensities from zero.
        onto: grid of the result.
        through: from ``onto``'s space to the scan's; the identity by default.
    """
    same = through is None and onto == scan.grid
    moved = scan if same else resample(scan, onto, through)
    moved = unbiased(moved, found.log_bias, through)
    if found.mask is None:
        return moved
    return replace(moved, data=np.where(mask_on(found.mask, onto, through), moved.data, 0))


def unbiased(scan: Volume, log_bias: Volume | None, through: Affine | None = None) -> Volume:
    """The scan over its bias field; ``through`` leads from the scan's space to the field's."""
    if log_bias is None:
        return scan
    # A scan may reach further than the lattice: there the field stays as it is at the border.
    logarithm = resample(log_bias, scan.grid, through, beyond="border").data
    return replace(scan, data=scan.data * np.exp(-logarithm))


def mask_on(mask: Volume, grid: Grid, through: Affine | None = None) -> np.ndarray:
    """A mask on another grid: where its linear interpolation is one half or more."""
    if through is None and grid == mask.grid:
        return mask.data != 0
    soft = replace(mask, data=(mask.data != 0).astype(np.float32))
    return resample(soft, grid, through).data >= 0.5


def brain_mask(found: Findings, scan: Volume, grid: Grid) -> Volume:
    """The brain on any grid in the scan's space: 1 inside, 0 outside, uint8."""
    standard = from_zero(scan)
    mask = found.mask or replace(standard, data=standard.data > 0)
    return Volume(mask_on(mask, grid).astype(np.uint8), grid, scan.name, is_label_file=True)


def prepare(scan: Volume, recipe: Recipe, found: Findings | None = None) -> Prepared:
    """Put a scan's brain on the working grid and scale it to [0, 1].

    Args:
        scan: any grid.
        recipe: the model's.
        found: what ``examine`` found in the scan; done here if left out.
    """
    found = found or examine(scan)
    aligned = brain_only(from_zero(to_canonical(scan)), found, recipe.grid, found.template_to_scan)
    return Prepared(
        torch.from_numpy(scaled(aligned.data, recipe.percentile)), found.template_to_scan
    )


def from_zero(scan: Volume) -> Volume:
    """The scan in float32 with intensities from zero: those of z-scored scans, say, are shifted.

    Voxels that are exactly zero are background and stay so; where no voxel is zero or less, the
    least value is.
    """
    data = scan.data.astype(np.float32)
    if data.min() > 0:
        data = data - data.min()
    if data.min() < 0:
        brain = data != 0
        data = np.where(brain, np.maximum(data - np.percentile(data[brain], 0.5), 0), 0)
    return replace(scan, data=data)


def scaled(image: np.ndarray, percentile: float) -> np.ndarray:
    """Intensities over their ``scale``, clipped to [0, 1]."""
    return np.clip(image / scale(image, percentile), 0, 1)


def scale(image: np.ndarray, percentile: float) -> float:
    """The ``percentile`` of a brain's intensities, of those that are positive; 1 if none is."""
    inside = image[image > 0]
    return float(np.percentile(inside, percentile)) if inside.size else 1.0


@cache
def template() -> Volume:
    """The brain-extracted ICBM 152 2009a symmetric T1 average, 1 mm, that nilearn ships."""
    return read_volume(template_path(), "template")


def template_path() -> Path:
    """The template's file inside nilearn, which is found but, being slow, not imported."""
    spec = importlib.util.find_spec("nilearn")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("nilearn, which ships the MNI152 template, is not installed")
    return (
        Path(spec.origin).parent / "datasets/data/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
    )


def _window(grid: Grid, settings: Settings) -> Grid:
    """The conformed grid: 256³ voxels around a scan; larger ones than 1 mm if need be."""
    if not settings.conform:
        return grid
    corners = grid.to_world(grid.corners())
    low, high = corners.min(axis=0), corners.max(axis=0)
    return _cube((low + high) / 2, float((high - low).max()))


def _cube(centre: np.ndarray, reach: float) -> Grid:
    """256³ voxels around a point; of 1 mm, or more so that a reach (mm) fits in."""
    affine = np.eye(4)
    affine[:3, :3] = max(1.0, reach / (CONFORMED - 1)) * _LIA
    affine[:3, 3] = centre - affine[:3, :3] @ np.full(3, (CONFORMED - 1) / 2)
    return Grid((CONFORMED,) * 3, affine)


def _views(scan: Volume) -> list[Grid]:
    """Where to look for the brain: the whole scan; first the top of one that shows the trunk too.

    World axes, no more than the scan, no more than 256 voxels along an axis: of 1 mm, or larger.
    """
    corners = scan.grid.to_world(scan.grid.corners())
    low, high = corners.min(axis=0), corners.max(axis=0)
    reach = CONFORMED - 1.0
    whole = _block(low, high, max(1.0, float((high - low).max()) / reach), np.eye(3))
    if (high - low).max() <= reach:
        return [whole]
    coarse = Coarse.of(scan, 4.0)
    bright = 0.1 * float(torch.quantile(coarse.image.flatten()[::7], 0.995))
    body = coarse.grid.to_world(torch.nonzero(coarse.image[0, 0] > bright).numpy())
    top = min(high[2], np.percentile(body[:, 2], 99.9) + 10)
    body = body[body[:, 2] > top - reach]
    middle = np.array([*np.median(body[:, :2], axis=0), top - reach / 2])
    low, high = np.maximum(low, middle - reach / 2), np.minimum(high, middle + reach / 2)
    return [_block(low, high, 1.0, np.eye(3)), whole]


def _upright_view(found: Findings, only: Volume) -> Grid:
    """1 mm around the brain with room for the head, turned as the brain lies."""
    u, _, vt = np.linalg.svd(found.template_to_scan.fixed_to_moving[:3, :3])
    rotation = u @ vt
    inside = only.grid.to_world(np.argwhere(only.data > 0)) @ rotation
    return _block(inside.min(axis=0) - ROOM, inside.max(axis=0) + ROOM, 1.0, rotation)


def _block(low: np.ndarray, high: np.ndarray, spacing: float, rotation: np.ndarray) -> Grid:
    """The grid from ``low`` to ``high``, coordinates along turned axes, mm."""
    affine = np.eye(4)
    affine[:3, :3] = spacing * rotation
    affine[:3, 3] = rotation @ low
    return Grid((np.ceil((high - low) / spacing).astype(int) + 1).tolist(), affine)


def _centre_and_reach(only: Volume) -> tuple[np.ndarray, float]:
    """Middle and extent of a brain, mm."""
    coarse = Coarse.of(only, 4.0)
    inside = coarse.grid.to_world(torch.nonzero(coarse.image[0, 0] > 0).numpy())
    low, high = inside.min(axis=0), inside.max(axis=0)
    return (low + high) / 2, float((high - low).max()) + 4


@contextmanager
def _timed(found: Findings, step: str) -> Iterator[None]:
    started, clock = time.perf_counter(), found.seconds
    yield
    clock[step] = round(clock.get(step, 0) + time.perf_counter() - started, 3)
