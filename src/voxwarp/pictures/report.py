"""The report of one registration: a page with pictures, numbers and settings."""

from collections.abc import Mapping
from typing import Any

from .pages import DASH, fragment, jpeg, number, page, png
from .panels import Panel, Picture, comparison, panels
from .scene import Scene, SlicedScene
from .thumbnails import thumbnail

SCRIPT = "report.js"
MAX_BYTES = 5_000_000  # size of a report; set by hand
QUALITIES = 85, 60, 30  # JPEG qualities: the first that keeps the report below this size is used
THUMBNAIL = "thumbnail"  # id of the picture that an overview takes from a report

#: The order of the slices from left to right, and the orientation of each.
_DIRECTIONS = {
    "axial": ("from bottom to top", "Left is left (neurological), front is up"),
    "coronal": ("from back to front", "Left is left (neurological), top of the head is up"),
    "sagittal": ("from left to right", "Front is right, top of the head is up"),
}


def report(scene: Scene, metrics: Mapping[str, Any], *, name: str = "") -> str:
    """Write a self-contained HTML page on a registration.

    It opens from disk and loads nothing. It is complete without its script, which handles keys and
    the automatic flicker.

    Args:
        scene: the data that the pictures show.
        metrics: the contents of ``metrics.json``.
        name: of the result, such as the name of its folder.
    """
    sliced = SlicedScene(scene)
    shown, small = list(panels(sliced)), thumbnail(sliced)
    for quality in QUALITIES:
        text = page(
            "report.html",
            SCRIPT,
            name=name,
            panels=[described_panel(panel, quality) for panel in shown],
            thumbnail=jpeg(small, quality),
            thumbnail_id=THUMBNAIL,
            **template_values(metrics),
        )
        if len(text) < MAX_BYTES:
            break
    return text


def mosaic(scene: Scene, metrics: Mapping[str, Any]) -> str:
    """The picture for notebooks: the moved scan, and the fixed scan under the mouse."""
    panel = described_panel(comparison(SlicedScene(scene)), QUALITIES[0])
    return fragment("mosaic.html", panel=panel, **template_values(metrics))


def template_values(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a record for the templates; a record may come from anywhere and lack parts."""
    seconds = _seconds(metrics)
    return {
        "metrics": metrics,
        "title": _title(metrics),
        "warnings": recorded_warnings(metrics),
        "dice": _dice(metrics),
        "seconds": seconds,
        "total_seconds": sum(spent for stage, spent, _ in seconds if stage != "write"),
    }


def _title(metrics: Mapping[str, Any]) -> str:
    """The file names of the two scans, as far as the record has them."""
    inputs = metrics.get("inputs")
    inputs = inputs if isinstance(inputs, Mapping) else {}
    names = [_file_name(inputs.get(role), role) for role in ("moving", "fixed")]
    return f"{names[0]} → {names[1]}"


def _file_name(origin: Any, role: str) -> str:
    """The file or template that an input came from."""
    origin = origin if isinstance(origin, Mapping) else {}
    path = str(origin.get("path") or origin.get("template") or f"the {role} scan")
    return path.replace("\\", "/").rsplit("/", 1)[-1]


def recorded_warnings(metrics: Mapping[str, Any]) -> list[str]:
    """The warnings in a record."""
    warnings = metrics.get("warnings")
    return [str(warning) for warning in warnings] if isinstance(warnings, list) else []


def _dice(metrics: Mapping[str, Any]) -> list[tuple[str, float]]:
    """Labels and their Dice, the lowest first."""
    dice = metrics.get("dice")
    each = dice.get("per_label") if isinstance(dice, Mapping) else None
    return sorted(_numbers(each), key=lambda pair: pair[1])


def _seconds(metrics: Mapping[str, Any]) -> list[tuple[str, float, float]]:
    """Stages, their seconds, and these in percent of the longest stage."""
    seconds = _numbers(metrics.get("seconds"))
    longest = max((spent for _, spent in seconds), default=0) or 1.0
    return [(stage, spent, 100 * spent / longest) for stage, spent in seconds]


def _numbers(values: Any) -> list[tuple[str, float]]:
    """The entries of a record that are numbers."""
    if not isinstance(values, Mapping):
        return []
    numbers = [(str(name), value) for name, value in values.items() if number(value) != DASH]
    return [(name, float(value)) for name, value in numbers]


def described_panel(panel: Panel, quality: int) -> dict[str, Any]:
    """A panel as values for the macro in ``panel.html``; ``quality`` is that of the JPEGs."""
    return {
        "key": panel.key,
        "title": panel.title,
        "caption": panel.caption,
        "switch": len(panel.pictures) > 1 and not panel.show_all,
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
    """A picture as values for the template."""
    planes = []
    for plane in picture.mosaic:
        image, overlay = picture.mosaic[plane], picture.overlay
        order, orientation = _DIRECTIONS[plane]
        planes.append(
            {
                "name": plane,
                "orientation": orientation,
                "alt": f"{title}: {picture.name}, {columns[plane]} {plane} slices {order}",
                "width": image.shape[1],
                "height": image.shape[0],
                "image": jpeg(image, quality),
                "overlay": overlay and png(overlay.mosaic[plane], overlay.colours),
            }
        )
    return {"name": picture.name, "planes": planes}
