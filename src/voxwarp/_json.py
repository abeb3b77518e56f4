"""JSON from files that may hold anything."""

import json
from pathlib import Path
from typing import Any

LARGEST = 64 << 20  # bytes; the largest record of voxwarp has a few MB; set by hand


def parse_json(text: str | bytes) -> Any:
    """Parse JSON, as ``json.loads`` does, but nesting that is too deep is a ValueError, too.

    Raises:
        ValueError: it is not JSON.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read_json(path: Path) -> Any:
    """Read a JSON file in UTF-8.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not JSON, or larger than ``LARGEST``.
    """
    with open(path, "rb") as stream:
        text = stream.read(LARGEST + 1)
    if len(text) > LARGEST:
        raise ValueError(f"it is larger than {LARGEST >> 20} MB")
    return parse_json(text.decode("utf-8"))
