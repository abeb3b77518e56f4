"""Web pages from templates: everything is escaped, nothing is loaded from anywhere."""

import base64
import hashlib
import io
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import ChainableUndefined, Environment, FileSystemLoader
from PIL import Image

TEMPLATES = Path(__file__).parent / "templates"
NOTHING = "–"
LARGEST = 1e15  # of numbers that are shown


def page(template: str, script: str, **values: Any) -> str:
    """A page of its own: style and script are in it, and no other script can run.

    Args:
        template, script: names of files among the templates.
        values: what the template shows; words are escaped, whatever they hold.
    """
    return fragment(
        template,
        style=(TEMPLATES / "style.css").read_text(encoding="utf-8"),
        script=(TEMPLATES / script).read_text(encoding="utf-8"),
        policy=policy(script),
        version=version("voxwarp"),
        **values,
    )


def policy(script: str) -> str:
    """What a page may do: show what is in it, and run this one of our scripts."""
    code = (TEMPLATES / script).read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    return (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )


def is_ours(path: Path) -> bool:
    """Whether a file is a page that this has made: it can be made again."""
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return '<meta name="generator" content="voxwarp ' in stream.read(4096)
    except OSError:
        return False


def fragment(template: str, **values: Any) -> str:
    """What a template makes of values; names that are no text have a ? in place of that."""
    written = _environment().get_template(template).render(**values)
    return written.encode("utf-8", "replace").decode("utf-8")


@cache
def _environment() -> Environment:
    # What a record does not tell is left out: it may come from another version.
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=ChainableUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(number=number, entries=entries)
    return environment


def number(value: Any, digits: int = 3) -> str:
    """A number with so many decimals; a dash for what is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return NOTHING
    if not abs(value) < LARGEST:  # nor what is not finite
        return NOTHING
    return f"{value:,.{digits}f}".replace(",", "\N{THIN SPACE}").replace("-", "−")


def entries(value: Any, name: str = "") -> list[tuple[str, str]]:
    """Names and words of nested records, lists in one line: for a table."""
    if isinstance(value, Mapping):
        return [
            pair
            for key, inner in value.items()
            for pair in entries(inner, f"{name}.{key}" if name else str(key))
        ]
    if isinstance(value, (list, tuple)):
        return [(name, ", ".join(_word(part) for part in value))]
    return [(name, _word(value))]


def _word(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_word(part) for part in value)}]"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or value == "":
        return NOTHING
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def jpeg(image: np.ndarray, quality: int = 85) -> str:
    """Grey (height, width) or colours (height, width, 3), uint8, as the URI of an image."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "jpeg", quality=quality, subsampling=0)
    return _uri("image/jpeg", stream.getvalue())


def png(indices: np.ndarray, colours: tuple[tuple[int, int, int], ...]) -> str:
    """Indices (height, width) into colours from 1 on, 0 transparent, as the URI of an image."""
    image = Image.fromarray(indices.astype(np.uint8), "P")
    image.putpalette([0, 0, 0, *(part for colour in colours for part in colour)])
    stream = io.BytesIO()
    image.save(stream, "png", transparency=0, bits=2)
    return _uri("image/png", stream.getvalue())


def _uri(kind: str, payload: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(payload).decode()}"
