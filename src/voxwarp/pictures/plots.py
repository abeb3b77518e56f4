"""The panels of a registration as matplotlib figures, for notebooks and papers."""

import textwrap
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError
from .panels import Panel, Scale, panels, rendered
from .scene import Scene, SlicedScene

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 11.0  # inches


def draw(scene: Scene) -> "dict[str, Figure]":
    """Draw each panel as a figure; the keys are those of the panels.

    Raises:
        InputError: matplotlib is not installed.
    """
    try:
        import matplotlib as _  # noqa: F401
    except ImportError as error:
        raise InputError(
            "figures need matplotlib, which is not installed: pip install 'voxwarp[plot]'"
        ) from error
    return {panel.key: _figure(panel) for panel in panels(SlicedScene(scene))}


def _figure(panel: Panel) -> "Figure":
    from matplotlib.figure import Figure

    rows = [
        (f"{picture.name}, {plane}", rendered(picture, plane))
        for picture in panel.pictures
        for plane in picture.mosaic
    ]
    ratios = [image.shape[0] / image.shape[1] for _, image in rows]
    height = sum(ratios) * WIDTH + 0.25 * len(rows) + 1.1 + 0.6 * (panel.scale is not None)
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    figure.suptitle(panel.title)
    figure.supxlabel("\n".join(textwrap.wrap(panel.caption, 150)), fontsize=8)
    axes = figure.subplots(len(rows), squeeze=False, gridspec_kw={"height_ratios": ratios})[:, 0]
    for (name, image), axis in zip(rows, axes, strict=True):
        axis.imshow(image)
        axis.set_title(name, fontsize=8, loc="left")
        axis.set_axis_off()
    if panel.scale:
        _draw_scale(figure, list(axes), panel.scale)
    return figure


def _draw_scale(figure: "Figure", axes: "list[Axes]", scale: Scale) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LinearSegmentedColormap

    colormap = LinearSegmentedColormap.from_list("scale", np.array(scale.colours) / 255)
    bar = figure.colorbar(
        ScalarMappable(cmap=colormap), ax=axes, location="bottom", shrink=0.4, aspect=40
    )
    bar.set_ticks(list(np.linspace(0, 1, len(scale.ticks))), labels=list(scale.ticks))
