"""The report on a template: the template, its rounds side by side, and where people differ."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..pictures.colours import CONTOURS, HEAT, coloured, grey, window, windowed
from ..pictures.contours import outline
from ..pictures.pages import page
from ..pictures.panels import Overlay, Panel, Picture, Scale
from ..pictures.report import described_panel
from ..pictures.slices import Mosaic, Slices
from ..space.volume import Volume, read_volume
from .settings import TemplateSettings
from .state import Round

QUALITY = 85


@dataclass(frozen=True)
class Shown:
    """What the report shows.

    Args:
        name: of the template.
        template: the template.
        rounds: all rounds.
        final: measures of the registrations to the template.
        spread: standard deviation of the intensities, zero outside the brain.
        displacement: how far people lie from the template, mm, zero outside the brain.
        scans: how many it was made of.
        left_out: why scans were left out, by key.
        settings: how it was built.
    """

    name: str
    template: Volume
    rounds: Sequence[Round]
    final: Mapping[str, float]
    spread: Volume
    displacement: Volume
    scans: int
    left_out: Mapping[str, str]
    settings: TemplateSettings


def template_page(shown: Shown, out: Path) -> str:
    """The report as a page of HTML.

    Args:
        shown: what it shows.
        out: the folder of the template, with the averages of its rounds.
    """
    return page(
        "template.html",
        "index.js",
        shown=shown,
        rows=[*((one.name, one.measures) for one in shown.rounds), ("finished", shown.final)],
        panels=[described_panel(panel, QUALITY) for panel in _panels(shown, out)],
    )


def _panels(shown: Shown, out: Path) -> Iterator[Panel]:
    template = shown.template
    slices = Slices.through(template.grid, template.data > 0)
    mosaic = slices.sample(template)
    whole = window(mosaic)
    mask = Volume((template.data > 0).astype(np.float32), template.grid)
    outlines = outline(slices.sample(mask, finer=2), 0.5)
    pictures = (
        Picture("template", grey(windowed(mosaic, whole))),
        Picture("with its mask", grey(windowed(mosaic, whole)), Overlay(outlines, (CONTOURS,))),
    )
    yield Panel(
        "template",
        "Template",
        "The average of all scans, each resampled once from its own voxels. 100 is the mean "
        "intensity of the brain.",
        pictures,
        slices.columns,
    )
    yield _rounds_panel(shown, out, whole)
    yield _heat(
        "spread",
        "Where intensities differ",
        "Standard deviation of the people's intensities on the template, in percent of the mean "
        "intensity of the brain: bright where the alignment is not exact, or anatomy differs.",
        slices.sample(shown.spread),
        slices,
        "{:.0f} %",
    )
    yield _heat(
        "displacement",
        "Where shapes differ",
        "How far people lie from the template after the affine alignment: root of the mean squared "
        "displacement.",
        slices.sample(shown.displacement),
        slices,
        "{:.1f} mm",
    )


def _rounds_panel(shown: Shown, out: Path, whole: tuple[float, float]) -> Panel:
    """The middle slices of all rounds, side by side."""
    slices = Slices.through(shown.template.grid, shown.template.data > 0, columns=1)
    mosaics = [slices.sample(read_volume(out / one.image, "template")) for one in shown.rounds]
    joined = {plane: np.concatenate([m[plane] for m in mosaics], axis=1) for plane in mosaics[0]}
    names = ", ".join(one.name for one in shown.rounds)
    return Panel(
        "rounds",
        "Rounds",
        f"The average after each round, in the same grey values; from left to right: {names}.",
        (Picture("rounds", grey(windowed(joined, whole))),),
        dict.fromkeys(joined, len(mosaics)),
    )


def _heat(key: str, title: str, caption: str, mosaic: Mosaic, slices: Slices, tick: str) -> Panel:
    values = np.concatenate([image.ravel() for image in mosaic.values()])
    positive = values[values > 0]
    most = float(np.percentile(positive, 99.5)) if positive.size else 1.0
    images = {
        plane: coloured(2 * np.clip(image / most, 0, 1) - 1, HEAT)
        for plane, image in mosaic.items()
    }
    ticks = tuple(tick.format(most * part) for part in (0, 0.25, 0.5, 0.75, 1))
    picture = Picture(title, images)
    return Panel(key, title, caption, (picture,), slices.columns, scale=Scale(ticks, tuple(HEAT)))
