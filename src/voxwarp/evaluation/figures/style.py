"""The style of figures: grey, with hatches and markers, readable in print and when colour-blind."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from ...errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


DARK = "0.35"
FILLS = (  # face and hatch of boxes, distinguishable in print; the reference is the dark one
    *((DARK, ""), ("white", ""), ("0.82", ""), ("0.6", "")),
    *(("white", "//////"), ("white", "||||||")),
)
MARKERS = "osD^vP*Xp<"
STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "hatch.linewidth": 0.5,
    "legend.frameon": False,
    "text.parse_math": False,  # the name of a method may contain a $
    "svg.fonttype": "none",  # text stays text, so that it can be searched and edited
    "figure.constrained_layout.w_pad": 0.08,
    "figure.constrained_layout.h_pad": 0.06,
    "svg.hashsalt": "voxwarp",  # the same rows give the same bytes
}


class Drawing(NamedTuple):
    """A figure and its caption."""

    figure: "Figure"
    caption: str


@contextmanager
def styled() -> Iterator[None]:
    """Use our style, whatever the user's matplotlibrc says; also works as a decorator."""
    try:
        import matplotlib.style
    except ImportError as error:
        raise InputError(
            "figures need matplotlib, which is not installed: pip install 'voxwarp[benchmark]'"
        ) from error
    with matplotlib.style.context(["default", STYLE]):
        yield


def new_axes(width: float, height: float) -> tuple["Figure", "Axes"]:
    """A figure of this size in inches and its axes, without a window."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def log_axis(axes: "Axes") -> None:
    """Make the horizontal axis logarithmic, with plain numbers."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
