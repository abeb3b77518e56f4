"""Read a section of settings from a YAML file: ``extends``, variables, paths, overrides.

Overrides such as ``optimiser.batch=2`` replace values of the file. The class of the section
defines which settings exist and which of them are paths.
"""

import copy
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .._files import check_readable
from ..errors import InputError
from . import plain_yaml
from .messages import one_line, short
from .section import S, Section, build, path_mark, section_at, section_under, with_current_keys

DEEPEST = 32  # nested dictionaries and lists; set by hand, ours have five levels


def read_section(model: type[S], path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> S:
    """Read a section from a YAML file.

    Args:
        model: class of the section.
        path: path of the file. Relative paths in it start at its folder. Under ``extends``, it
            may name another file whose values it changes.
        overrides: settings in the form ``section.key=value``, with the value in YAML. Relative
            paths in them start at the working directory.

    Raises:
        InputError: the file cannot be read, or a setting or value is not valid.
    """
    path = Path(path)
    tree = _read(model, path, seen=())
    for override in overrides:
        first, _, rest = override.partition("=")[0].strip().partition(".")
        default = model.model_fields[first].default if first in model.model_fields else None
        if rest and first not in tree and isinstance(default, dict):
            # The file does not have this dictionary: the other entries keep their defaults.
            tree[first] = copy.deepcopy(default)
        _set(model, tree, override)
    return build(model, tree, f"config {path}")


def _read(model: type[Section], path: Path, seen: tuple[str, ...]) -> dict[str, Any]:
    """The values of a file, over those of the file that it ``extends``."""
    what = f"config {path}"
    try:
        place = os.path.realpath(path)
        if place in seen:
            raise InputError(f"{what}: it extends itself, directly or through other files")
        if os.path.lexists(path):
            check_readable(path, "config")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(one_line(f"{what}: {error.strerror or error}")) from error
    except InputError:
        raise
    except ValueError as error:  # not text, or not a valid path
        raise InputError(one_line(f"{what}: cannot be read: {error}")) from error
    tree = _parse(text, what)
    if not isinstance(tree, dict):
        raise InputError(one_line(f"{what}: it must hold keys with values, such as seed: 1"))
    tree = with_current_keys(model, _without_empty(model, tree))
    tree = _with_absolute_paths(model, tree, path.parent.absolute(), what)
    base = tree.pop("extends", None)
    if base is None:
        return tree
    if not isinstance(base, str):
        raise InputError(f"{what}: extends must be the path of another file, got {short(base)}")
    return _merged(model, _read(model, path.parent / base, (*seen, place)), tree)


def _without_empty(model: type[Section], tree: dict[str, Any]) -> dict[str, Any]:
    """The tree without sections in which everything is commented out."""
    return {k: v for k, v in tree.items() if v is not None or not section_under(model, k)}


def _merged(section: type[Section], base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Put ``over`` over ``base``: section by section, anything else as a whole."""
    out = dict(base)
    for key, value in over.items():
        inner = section_under(section, key)
        are_dicts = isinstance(value, dict) and isinstance(out.get(key), dict)
        merges = are_dicts and inner is not None and not inner.is_whole
        out[key] = _merged(inner, out[key], value) if inner and merges else value
    return out


# ------------------------------------------------------------------------------------ Overrides


def _set(model: type[Section], tree: dict, override: str) -> None:
    """Set ``a.b.0.c=value`` in nested dictionaries and lists."""
    key, equals, text = override.partition("=")
    what = f"override {short(override)}"
    if not equals or not key.strip():
        raise InputError(f"{what}: write it as key=value, such as optimiser.batch=2")
    *path, last = _split_key(key.strip())
    section = section_at(model, path)
    value = _with_absolute_paths(section, {last: _parse(text, what)}, Path.cwd(), what)[last]
    place: Any = tree
    for part in path:
        slot = _slot(place, part, what)
        if isinstance(place, dict) and place.get(slot) is None:
            place[slot] = {}
        place = place[slot]
    place[_slot(place, last, what)] = value


def _split_key(key: str) -> list[str]:
    """The parts of a dotted key; a module:function after the first may have dots itself."""
    first, _, rest = key.partition(".")
    if ":" in rest:
        module, _, function = rest.partition(":")
        name, _, option = function.partition(".")
        return [first, f"{module}:{name}", *([option] if option else [])]
    return key.split(".")


def _slot(place: Any, part: str, what: str) -> Any:
    """The key or index in a dictionary or list that a part of a dotted key stands for."""
    if isinstance(place, dict):
        return part
    if not isinstance(place, list):
        raise InputError(f"{what}: {short(place)} is a single value and has no key {short(part)}")
    if not part.isdecimal() or len(part) > 9 or int(part) >= len(place):
        raise InputError(
            f"{what}: {short(part)} must be a position in a list of {len(place)}, counted from 0"
        )
    return int(part)


# --------------------------------------------------------------------------------------- Values


def _parse(text: str, what: str) -> Any:
    """Read values from YAML and insert environment variables.

    Raises:
        InputError: the text is not YAML, or a variable is not set.
    """
    try:
        tree = plain_yaml.parse(text)
    except ValueError as error:
        raise InputError(one_line(f"{what}: this is not valid YAML: {error}")) from error
    return _insert_variables(tree, what)


def _insert_variables(tree: Any, what: str, depth: int = 0) -> Any:
    """Replace ``${NAME}`` and ``${NAME:-default}`` in strings by environment variables."""
    if depth > DEEPEST:
        raise InputError(one_line(f"{what}: lists and dictionaries are nested too deeply"))
    if isinstance(tree, dict):
        return {key: _insert_variables(value, what, depth + 1) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_insert_variables(value, what, depth + 1) for value in tree]
    if not isinstance(tree, str):
        return tree

    def value_of(match: re.Match) -> str:
        value = os.environ.get(match[1]) or match[3]
        if value is None:
            raise InputError(
                one_line(
                    f"{what}: the environment variable {match[1]} is not set; set it, or write a "
                    f"default as in ${{{match[1]}:-/data}}"
                )
            )
        return value

    return re.sub(r"\$\{([A-Za-z_]\w*)(:-([^}]*))?\}", value_of, tree, flags=re.ASCII)


def _with_absolute_paths(section: type[Section] | None, tree: Any, folder: Path, what: str) -> Any:
    """Make relative paths absolute; they start at a folder."""
    if isinstance(tree, list):
        return [_with_absolute_paths(section, value, folder, what) for value in tree]
    if not isinstance(tree, dict):
        return tree
    out = {}
    for key, value in tree.items():
        mark = path_mark(section, key)
        if mark and isinstance(value, str) and not mark.unless(value):
            try:
                out[key] = os.path.normpath(folder / Path(value).expanduser())
            except RuntimeError as error:  # ~ of an unknown user
                raise InputError(one_line(f"{what}: {key}: {value}: {error}")) from error
        else:
            inner = section_under(section, key)
            out[key] = _with_absolute_paths(inner, value, folder, what)
    return out
