"""The report of one registration: a page that shows what it did, to be looked at first."""

from collections.abc import Mapping
from typing import Any

from .pages import NOTHING, fragment, jpeg, number, page, png
from .panels import Panel, Picture, comparison, panels
from .scene import Scene, SlicedScene
from .thumbnails import thumbnail

SCRIPT = "report.js"
LARGEST = 5_000_000  # bytes of a report
QUALITIES = 85, 60, 30  # of its pictures: the first with which it is no larger than that
THUMBNAIL = "thumbnail"  # id of the picture that an overview takes from a report

#: How slices follow each other, left to right, and what is at the sides of each.
_RUN = {
    "axial": ("from bottom to top", "Left is left, front is up"),
    "coronal": ("from back to front", "Left is left, head is up"),
    "sagittal": ("from left to right", "Front is right, head is up"),
}


def report(scene: Scene, metrics: Mapping[str, Any], *, name: str = "") -> str:
    """A self-contained page on a registration.

    It opens from disk, loads nothing, and says everything without its script, which is there
    for keys and automatic flicker.

    Args:
        scene: what its pictures show.
        metrics: what ``metrics.json`` holds.
        name: of the result, such as its folder's.
    """
    sliced = SlicedScene(scene)
    shown, small = list(panels(sliced)), thumbnail(sliced)
    for quality in QUALITIES:
        written = page(
            "report.html",
            SCRIPT,
            name=name,
            panels=[_described(panel, quality) for panel in shown],
            thumbnail=jpeg(small, quality),
            thumbnail_id=THUMBNAIL,
            **told_of(metrics),
        )
        if len(written) < LARGEST:
            break
    return written


def mosaic(scene: Scene, metrics: Mapping[str, Any]) -> str:
    """Part of a page: fixed and moved, one in place of the other under the mouse."""
    panel = _described(comparison(SlicedScene(scene)), QUALITIES[0])
    return fragment("mosaic.html", panel=panel, **told_of(metrics))


def told_of(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """What the templates tell of a record; records may come from anywhere, and lack anything."""
    seconds = _seconds(metrics)
    return {
        "metrics": metrics,
        "title": _title(metrics),
        "warnings": warnings_of(metrics),
        "dice": _dice(metrics),
        "seconds": seconds,
        "total_seconds": sum(spent for stage, spent, _ in seconds if stage != "write"),
    }


def _title(metrics: Mapping[str, Any]) -> str:
    """Names of the two scans, or what is known of them."""
    inputs = metrics.get("inputs")
    inputs = inputs if isinstance(inputs, Mapping) else {}
    names = [_file_name(inputs.get(role), role) for role in ("moving", "fixed")]
    return f"{names[0]} → {names[1]}"


def _file_name(origin: Any, role: str) -> str:
    origin = origin if isinstance(origin, Mapping) else {}
    path = str(origin.get("path") or origin.get("template") or f"the {role} scan")
    return path.replace("\\", "/").rsplit("/", 1)[-1]


def warnings_of(metrics: Mapping[str, Any]) -> list[str]:
    """Those of a record, if it has any."""
    told = metrics.get("warnings")
    return [str(warning) for warning in told] if isinstance(told, list) else []


def _dice(metrics: Mapping[str, Any]) -> list[tuple[str, float]]:
    """Labels and their Dice, the worst first."""
    dice = metrics.get("dice")
    each = dice.get("per_label") if isinstance(dice, Mapping) else None
    return sorted(_numbers(each), key=lambda pair: pair[1])


def _seconds(metrics: Mapping[str, Any]) -> list[tuple[str, float, float]]:
    """Stages, their seconds, and their share of the longest in percent."""
    seconds = _numbers(metrics.get("seconds"))
    longest = max((spent for _, spent in seconds), default=0) or 1.0
    return [(stage, spent, 100 * spent / longest) for stage, spent in seconds]


def _numbers(values: Any) -> list[tuple[str, float]]:
    """Those of a record's entries that are numbers."""
    if not isinstance(values, Mapping):
        return []
    found = [(str(name), value) for name, value in values.items() if number(value) != NOTHING]
    return [(name, float(value)) for name, value in found]


def _described(panel: Panel, quality: int) -> dict[str, Any]:
    """A panel for the template."""
    return {
        "key": panel.key,
        "title": panel.title,
        "caption": panel.caption,
        "switch": len(panel.pictures) > 1 and not panel.beside,
        "pictures": [
            _described_picture(picture, panel.title, panel.columns, quality)
            for picture in panel.pictures
        ],
        "scale": panel.scale
        and {
            "ticks": panel.scale.ticks,
            "colours": ", ".join("rgb({}, {}, {})".format(*c) for c in panel.scale.colours),
        },
    }


def _described_picture(
    picture: Picture, title: str, columns: Mapping[str, int], quality: int
) -> dict[str, Any]:
    planes = []
    for plane in picture.mosaic:
        image, overlay = picture.mosaic[plane], picture.overlay
        run, sides = _RUN[plane]
        planes.append(
            {
                "name": plane,
                "sides": sides,
                "alt": f"{title}: {picture.name}, {columns[plane]} {plane} slices {run}",
                "width": image.shape[1],
                "height": image.shape[0],
                "image": jpeg(image, quality),
                "overlay": overlay and png(overlay.mosaic[plane], overlay.colours),
            }
        )
    return {"name": picture.name, "planes": planes}
