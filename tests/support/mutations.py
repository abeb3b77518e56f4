"""Bytes and JSON with mistakes in them, as damage and hostile people make them."""

import copy
import json
from typing import Any

import numpy as np

# What stands in place of a value of JSON.
STRANGE: tuple[Any, ...] = (
    *(None, True, 0, -1, 3, 2.5, 1e308, 10**40, float("nan"), float("inf")),
    *("", "x", "../../../etc/passwd", "/dev/zero", "<script>alert(1)</script>", "\0", "ü" * 5000),
    *([], [1], [[[]]], ["x"] * 50, {}, {"x": {"y": []}}, {"__class__": "os.system"}),
)


def mutated(payload: bytes, seed: int) -> bytes:
    """The bytes with one to five places changed, or cut, or lengthened."""
    rng = np.random.default_rng(seed)
    raw = bytearray(payload)
    for _ in range(rng.integers(1, 6)):
        # Headers are at the beginning, and matter most.
        reach = len(raw) if rng.random() < 0.3 else min(len(raw), 400)
        at = int(rng.integers(0, max(1, reach)))
        match rng.integers(0, 6):
            case 0:
                raw[at : at + 1] = rng.bytes(1)
            case 1:
                raw[at : at + 4] = rng.bytes(4)
            case 2:
                raw[at : at + 4] = bytes([rng.choice([0, 255, 127])]) * 4
            case 3:
                del raw[at : at + int(rng.integers(1, 40))]
            case 4:
                raw[at:at] = rng.bytes(int(rng.integers(1, 40)))
            case _:
                if rng.random() < 0.3:
                    del raw[at:]
    return bytes(raw)


def mutated_json(value: Any, seed: int) -> str:
    """JSON with one to three values exchanged, left out or nested; sometimes it is not JSON."""
    rng = np.random.default_rng(seed)
    value = copy.deepcopy(value)
    for _ in range(rng.integers(1, 4)):
        places = list(_places(value))
        if not places:
            break
        holder, key = places[rng.integers(0, len(places))]
        match rng.integers(0, 5):
            case 0:
                del holder[key]
            case 1:
                holder[key] = [holder[key]]
            case _:
                holder[key] = copy.deepcopy(STRANGE[rng.integers(0, len(STRANGE))])
    text = json.dumps(value)
    match rng.integers(0, 12):
        case 0:
            return text[: len(text) // 2]
        case 1:
            return "[" * 100_000
        case 2:
            return json.dumps(STRANGE[rng.integers(0, len(STRANGE))])
    return text


def _places(value: Any) -> Any:
    """All (container, key) within a value."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in list(items):
        yield value, key
        if isinstance(inner, dict | list):
            yield from _places(inner)
