"""The library's messages name parameters; here the options of the running command replace them.

``split must be ...`` becomes ``--split must be ...``, and `` `brain_extract="no"` `` becomes
``--brain-extract no``.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Option:
    """How a parameter is written on the command line.

    Args:
        on: its option, such as ``--bias``; of an argument its name in the help, such as MOVING.
        off: the option that turns it off, such as ``--no-bias``.
        is_flag: the option takes no value.
        is_argument: it is an argument, not an option.
    """

    on: str
    off: str | None = None
    is_flag: bool = False
    is_argument: bool = False


_options: dict[str, Option] = {}  # of the running command; a process runs one at a time

_QUOTED = re.compile(r"`([^`\n]+)`")
_PARAMETER = re.compile(r"(?:[a-z_]+\.)*([a-z_]+)(?:=(.+))?")
# A name with an underscore is a parameter. One without can be an ordinary word, as in "labels
# x.nii.gz: ...", so what follows decides.
_BEGINNING = re.compile(
    r"[a-z]+(?:_[a-z]+)+\b|[a-z]+(?=[:,] | (?:must|cannot|needs?|requires?|has|is|and|or)\b)"
)


def options_of(params: Iterable[Any]) -> dict[str, Option]:
    """The options and arguments of a command, by the names of its parameters."""
    return {param.name: _option(param) for param in params}


def use(options: dict[str, Option]) -> None:
    """From now on, messages get these options."""
    _options.clear()
    _options.update(options)


def as_options(message: str) -> str:
    """A message with options in place of parameters.

    A parameter at the beginning of the message becomes its option, and so does every parameter
    in backquotes. Other words in backquotes lose them.
    """
    message = _QUOTED.sub(lambda match: _written(match[1]), message)
    beginning = _BEGINNING.match(message)
    option = _options.get(beginning[0]) if beginning else None
    if beginning and option and not option.is_argument:
        return option.on + message[beginning.end() :]
    return message


def _written(code: str) -> str:
    """``mask`` or ``bias=False`` as it is written on the command line."""
    match = _PARAMETER.fullmatch(code)
    option = _options.get(match[1]) if match else None
    if not match or not option:
        return code
    value = match[2]
    if value is None or option.is_argument:
        return option.on
    if option.is_flag:
        return option.off if option.off and value == "False" else option.on
    return f"{option.on} {value.strip(chr(34) + chr(39))}"


def _option(param: Any) -> Option:
    if param.param_type_name == "argument":
        return Option(param.metavar or param.name.upper(), is_argument=True)
    off = max(param.secondary_opts, key=len, default=None)
    is_flag = bool(getattr(param, "is_flag", False))
    return Option(max(param.opts, key=len), off, is_flag)
