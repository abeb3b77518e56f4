"""Web pages from templates: all values are escaped, and nothing is loaded from elsewhere."""

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
DASH = "–"  # in place of a missing number
MAX_NUMBER = 1e15  # larger numbers are shown as a dash


def page(template: str, script: str, *, images_beside: bool = False, **values: Any) -> str:
    """Render a self-contained page: it includes its style and script, and no other script can run.

    Args:
        template, script: names of files in ``templates``.
        images_beside: whether it shows image files, too.
        values: for the template; all text in them is escaped.
    """
    return fragment(
        template,
        style=(TEMPLATES / "style.css").read_text(encoding="utf-8"),
        script=(TEMPLATES / script).read_text(encoding="utf-8"),
        policy=policy(script, images_beside),
        version=version("voxwarp"),
        **values,
    )


def policy(script: str, images_beside: bool = False) -> str:
    """The content security policy of a page: show its contents, and run this script alone.

    Args:
        script: file of the script.
        images_beside: show image files, too, those beside the page.
    """
    images = "data: 'self' file:" if images_beside else "data:"
    code = (TEMPLATES / script).read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    return (
        f"default-src 'none'; img-src {images}; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )


def is_generated(path: Path) -> bool:
    """Whether voxwarp wrote this page, so that it may be replaced without asking."""
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return '<meta name="generator" content="voxwarp ' in stream.read(4096)
    except OSError:
        return False


def fragment(template: str, **values: Any) -> str:
    """Render a template; characters that cannot be encoded, as in some file names, become ?."""
    text = _environment().get_template(template).render(**values)
    return text.encode("utf-8", "replace").decode("utf-8")


@cache
def _environment() -> Environment:
    # Records of other versions may lack entries; the page then leaves them out.
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
    """Format a number with ``digits`` decimals; anything else becomes a dash."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return DASH
    if not abs(value) < MAX_NUMBER:  # nor is NaN
        return DASH
    return f"{value:,.{digits}f}".replace(",", "\N{THIN SPACE}").replace("-", "−")


def entries(value: Any, name: str = "") -> list[tuple[str, str]]:
    """Flatten a nested record to rows (name, text) of a table; a list becomes one line."""
    if isinstance(value, Mapping):
        return [
            pair
            for key, inner in value.items()
            for pair in entries(inner, f"{name}.{key}" if name else str(key))
        ]
    if isinstance(value, (list, tuple)):
        return [(name, ", ".join(_text(part) for part in value))]
    return [(name, _text(value))]


def _text(value: Any) -> str:
    """A single value as text."""
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_text(part) for part in value)}]"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or value == "":
        return DASH
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def jpeg(image: np.ndarray, quality: int = 85) -> str:
    """Encode an image, uint8, grey (height, width) or RGB (height, width, 3), as a data URI."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "jpeg", quality=quality, subsampling=0)
    return _uri("image/jpeg", stream.getvalue())


def png(indices: np.ndarray, colours: tuple[tuple[int, int, int], ...]) -> str:
    """Encode indices (height, width) into ``colours`` as a data URI.

    Index 0 is transparent, index 1 is the first colour.
    """
    image = Image.fromarray(indices.astype(np.uint8), "P")
    image.putpalette([0, 0, 0, *(part for colour in colours for part in colour)])
    stream = io.BytesIO()
    image.save(stream, "png", transparency=0, bits=2)
    return _uri("image/png", stream.getvalue())


def _uri(kind: str, payload: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(payload).decode()}"
