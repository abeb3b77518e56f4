"""A section of knobs read from a YAML file: what it extends, variables, paths, changed values.

Values given as ``key.of.it=value``, such as those on the command line, take the place of those
in the file. Which knobs there are and which of them are paths is told by the section.
"""

import copy
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError
from . import plain_yaml
from .messages import one_line, short
from .section import S, Section, build, path_mark, section_at, section_under

DEEPEST = 32  # dictionaries and lists inside of each other


def read_section(model: type[S], path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> S:
    """A section from a YAML file.

    Args:
        model: the section.
        path: of the file. Its relative paths are taken from its folder. Under ``extends`` it
            may name another file, which it changes.
        overrides: ``key.of.it=value`` each, the value in YAML; relative paths in them are taken
            from the working directory.

    Raises:
        InputError: the file cannot be read, or a knob or value in it is not known.
    """
    path = Path(path)
    tree = _read(model, path, seen=())
    for override in overrides:
        first, _, rest = override.partition("=")[0].strip().partition(".")
        default = model.model_fields[first].default if first in model.model_fields else None
        if rest and first not in tree and isinstance(default, dict):
            # Part of a dictionary that is not in the file: the rest of it is the default.
            tree[first] = copy.deepcopy(default)
        _set(model, tree, override)
    return build(model, tree, f"config {path}")


def _read(model: type[Section], path: Path, seen: tuple[str, ...]) -> dict[str, Any]:
    """What a file says, put over what the file says that it ``extends``."""
    what = f"config {path}"
    try:
        place = os.path.realpath(path)
        if place in seen:
            raise InputError(f"{what}: it extends itself")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(one_line(f"{what}: {error.strerror or error}")) from error
    except InputError:
        raise
    except ValueError as error:  # no text, or no path
        raise InputError(one_line(f"{what}: cannot be read: {error}")) from error
    tree = _parsed(text, what)
    if not isinstance(tree, dict):
        raise InputError(one_line(f"{what}: keys and values are wanted at its top"))
    tree = _located(model, _without_empty(model, tree), path.parent.absolute(), what)
    base = tree.pop("extends", None)
    if base is None:
        return tree
    if not isinstance(base, str):
        raise InputError(f"{what}: extends: the name of another file is wanted")
    return _merged(model, _read(model, path.parent / base, (*seen, place)), tree)


def _without_empty(model: type[Section], tree: dict[str, Any]) -> dict[str, Any]:
    """Sections in which everything is commented out say nothing."""
    return {k: v for k, v in tree.items() if v is not None or not section_under(model, k)}


def _merged(section: type[Section], base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """``over`` in the place of ``base``, section by section; all else as a whole."""
    out = dict(base)
    for key, value in over.items():
        inner = section_under(section, key)
        both = isinstance(value, dict) and isinstance(out.get(key), dict)
        is_changed = both and inner is not None and not inner.is_whole
        out[key] = _merged(inner, out[key], value) if inner and is_changed else value
    return out


# ------------------------------------------------------------------------------------ Overrides


def _set(model: type[Section], tree: dict, override: str) -> None:
    """Put the value of ``a.b.0.c=value`` into nested dictionaries and lists."""
    key, equals, text = override.partition("=")
    what = f"override {short(override)}"
    if not equals or not key.strip():
        raise InputError(f"{what}: key=value is wanted")
    *path, last = _words(key.strip())
    section = section_at(model, path)
    value = _located(section, {last: _parsed(text, what)}, Path.cwd(), what)[last]
    place: Any = tree
    for word in path:
        at = _slot(place, word, what)
        if isinstance(place, dict) and place.get(at) is None:
            place[at] = {}
        place = place[at]
    place[_slot(place, last, what)] = value


def _words(key: str) -> list[str]:
    """The parts of a dotted key. After the first may come a module:function with dots."""
    first, _, rest = key.partition(".")
    if ":" in rest:
        module, _, function = rest.partition(":")
        name, _, option = function.partition(".")
        return [first, f"{module}:{name}", *([option] if option else [])]
    return key.split(".")


def _slot(place: Any, word: str, what: str) -> Any:
    """Where in a dictionary or list a word leads to."""
    if isinstance(place, dict):
        return word
    if not isinstance(place, list):
        raise InputError(f"{what}: there is nothing inside of {short(place)}")
    if not word.isdecimal() or len(word) > 9 or int(word) >= len(place):
        raise InputError(f"{what}: there is no {short(word)} in a list of {len(place)}, from 0 on")
    return int(word)


# --------------------------------------------------------------------------------------- Values


def _parsed(text: str, what: str) -> Any:
    """Values from YAML, with environment variables put in.

    Raises:
        InputError: it is no YAML, or a variable is not set.
    """
    try:
        tree = plain_yaml.parsed(text)
    except ValueError as error:
        raise InputError(one_line(f"{what}: not YAML: {error}")) from error
    return _expanded(tree, what)


def _expanded(tree: Any, what: str, depth: int = 0) -> Any:
    """``${NAME}`` and ``${NAME:-default}`` in words give way to environment variables."""
    if depth > DEEPEST:
        raise InputError(one_line(f"{what}: nested too deeply"))
    if isinstance(tree, dict):
        return {key: _expanded(value, what, depth + 1) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_expanded(value, what, depth + 1) for value in tree]
    if not isinstance(tree, str):
        return tree

    def value_of(match: re.Match) -> str:
        value = os.environ.get(match[1]) or match[3]
        if value is None:
            raise InputError(one_line(f"{what}: the environment variable {match[1]} is not set"))
        return value

    return re.sub(r"\$\{([A-Za-z_]\w*)(:-([^}]*))?\}", value_of, tree, flags=re.ASCII)


def _located(section: type[Section] | None, tree: Any, folder: Path, what: str) -> Any:
    """Relative paths from the folder of the file that they stand in."""
    if isinstance(tree, list):
        return [_located(section, value, folder, what) for value in tree]
    if not isinstance(tree, dict):
        return tree
    out = {}
    for key, value in tree.items():
        mark = path_mark(section, key)
        if mark and isinstance(value, str) and not mark.unless(value):
            try:
                out[key] = os.path.normpath(folder / Path(value).expanduser())
            except RuntimeError as error:  # ~ of nobody
                raise InputError(one_line(f"{what}: {key}: {value}: {error}")) from error
        else:
            out[key] = _located(section_under(section, key), value, folder, what)
    return out
