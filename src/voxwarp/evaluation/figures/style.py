"""How figures look: grey, with hatches and markers, to be read in print and by everybody."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from ...errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


DARK = "0.35"
FILLS = (  # face, hatch: boxes that differ in print; the reference is the dark one
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
    "text.parse_math": False,  # a method's name may hold a $
    "svg.fonttype": "none",  # words stay words: to be searched, and edited for print
    "figure.constrained_layout.w_pad": 0.08,
    "figure.constrained_layout.h_pad": 0.06,
    "svg.hashsalt": "voxwarp",  # the same rows give the same bytes
}


class Drawing(NamedTuple):
    """A figure, and what has to be said under it."""

    figure: "Figure"
    caption: str


@contextmanager
def styled() -> Iterator[None]:
    """Our look, whatever the user's matplotlibrc says; also a decorator."""
    try:
        import matplotlib.style
    except ImportError as error:
        raise InputError("figures need matplotlib: pip install 'voxwarp[benchmark]'") from error
    with matplotlib.style.context(["default", STYLE]):
        yield


def new_axes(width: float, height: float) -> tuple["Figure", "Axes"]:
    """A figure of so many inches that belongs to no window."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def log_axis(axes: "Axes") -> None:
    """Make the horizontal axis logarithmic, with plain numbers."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
