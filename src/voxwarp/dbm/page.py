"""The report on a morphometry: mean and spread of the maps, with the meaning of their sign."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..pictures.colours import HEAT, PURPLE_GREEN, Colour, coloured
from ..pictures.pages import page
from ..pictures.panels import Panel, Picture, Scale
from ..pictures.report import described_panel
from ..pictures.slices import Mosaic, Slices
from ..space.volume import Volume

QUALITY = 85
_TITLES = {
    "relative": "Shape: volumes relative to brain size",
    "absolute": "Size: volumes",
    "change": "Change from the first to the last scan",
    "annualchange": "Change per year",
}
_MEANINGS = {
    "relative": "the deformation alone, without the affine map. Positive (green): the region takes "
    "more of the person's brain than of the template",
    "absolute": "the whole map, the affine map included. Positive (green): the region is larger in "
    "the person than in the template",
    "change": "the change between two scans. Positive (green): the region has grown",
    "annualchange": "the change per year. Positive (green): the region has grown",
}

_NOTES = {
    "mean": " On a template of these people, the mean of the displacements is zero, not that of "
    "the logarithms, which is lower the more people vary."
}


@dataclass(frozen=True)
class MapSummary:
    """Mean and spread of maps over people.

    Args:
        kind: a key of the titles, such as "relative".
        number: of maps.
        mean, spread: mean and standard deviation.
        fwhm: of the smoothing, mm; None if there is none.
    """

    kind: str
    number: int
    mean: Volume
    spread: Volume
    fwhm: float | None


def morphometry_page(
    space: str,
    summaries: Sequence[MapSummary],
    mask: Volume,
    scans: int,
    failed: Mapping[str, str],
) -> str:
    """The report as a page of HTML.

    Args:
        space: the name of the space.
        summaries: of the maps.
        mask: of the brain in the space.
        scans: how many were measured.
        failed: why others were not, by key.
    """
    slices = Slices.through(mask.grid, mask.data != 0)
    inside = slices.sample(Volume((mask.data != 0).astype(np.float32), mask.grid))
    panels = [panel for one in summaries for panel in _panels(one, slices, inside)]
    return page(
        "morphometry.html",
        "index.js",
        space=space,
        scans=scans,
        failed=failed,
        panels=[described_panel(panel, QUALITY) for panel in panels],
    )


def _panels(one: MapSummary, slices: Slices, inside: Mosaic) -> Iterator[Panel]:
    of_group = one.kind in ("relative", "absolute")
    smooth = "" if one.fwhm is None else f", smoothed by {one.fwhm:g} mm"
    for name, volume, colours in (
        ("mean", one.mean, PURPLE_GREEN),
        ("standard deviation", one.spread, HEAT),
    ):
        mosaic, note = slices.sample(volume), _NOTES.get(name, "") if of_group else ""
        values = np.concatenate([mosaic[p][inside[p] > 0.5] for p in mosaic])
        most = max(1e-3, float(np.percentile(np.abs(values), 99))) if values.size else 1.0
        yield Panel(
            f"{one.kind}_{name.partition(' ')[0]}",
            f"{_TITLES[one.kind]}: {name}",
            f"{name.capitalize()} over {one.number} of the logarithm of the Jacobian determinant "
            f"of {_MEANINGS[one.kind]}{smooth}.{note}",
            (Picture(name, _shown(mosaic, inside, most, colours)),),
            slices.columns,
            scale=_scale(most, colours),
        )


def _shown(mosaic: Mosaic, inside: Mosaic, most: float, colours: list[Colour]) -> Mosaic:
    images = {}
    for plane, values in mosaic.items():
        at = values / most
        at = np.clip(2 * at - 1 if colours is HEAT else at, -1, 1)
        image = coloured(at, colours)
        image[inside[plane] < 0.5] = 0
        images[plane] = image
    return images


def _scale(most: float, colours: list[Colour]) -> Scale:
    ends = (0.0, 0.5, 1.0) if colours is HEAT else (-1.0, -0.5, 0.0, 0.5, 1.0)
    ticks = tuple(f"{end * most:+.3g}".replace("-", "−") if end else "0" for end in ends)
    return Scale(ticks, tuple(colours))
