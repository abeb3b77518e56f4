"""Sections of a configuration: settings with their types; unknown settings are refused."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from ..errors import InputError
from .messages import one_line, short, suggestion


def _no_boolean(value: Any) -> Any:
    """Refuse true and false: pydantic would read true as 1."""
    if isinstance(value, bool):
        raise ValueError(f"must be a number, got {str(value).lower()}")
    return value


Number = BeforeValidator(_no_boolean)
Fraction = Annotated[float, Field(ge=0, le=1), Number]
BelowOne = Annotated[float, Field(ge=0, lt=1), Number]
NotNegative = Annotated[float, Field(ge=0), Number]
Positive = Annotated[float, Field(gt=0), Number]
Count = Annotated[int, Field(ge=1, lt=1 << 31), Number]
WholeNumber = Annotated[int, Field(ge=0, lt=1 << 31), Number]


@dataclass(frozen=True)
class IsPath:
    """Marks a setting as a path; a relative path starts at the folder of its file.

    Args:
        unless: tells whether a value is the name of something, not a path.
    """

    unless: Callable[[str], bool] = lambda word: False


class Section(BaseModel):
    """A group of settings. Numbers are finite, unknown settings are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    #: Whether a file that extends another replaces this section as a whole.
    is_whole: ClassVar[bool] = False

    #: The current key for each key of an earlier version, so that old files can be read.
    former_keys: ClassVar[Mapping[str, str]] = {}


S = TypeVar("S", bound=Section)


def build(model: type[S], tree: Mapping[str, Any], what: str) -> S:
    """Build a section from nested dictionaries.

    Args:
        model: class of the section.
        tree: its settings; sections in it are dictionaries.
        what: what is built, for messages.

    Raises:
        InputError: a setting or value is not valid; the message names it.
    """
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        problems = [_explain(model, problem) for problem in error.errors()]
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise InputError(one_line(f"{what}: {problems[0]}{more}")) from None
    except RecursionError:
        raise InputError(f"{what}: lists and dictionaries are nested too deeply") from None


def with_current_keys(model: type[Section], tree: Mapping[str, Any]) -> dict[str, Any]:
    """Replace the keys of earlier versions in a section's settings."""
    renamed: dict[str, Any] = {}
    for key, value in tree.items():
        current = model.former_keys.get(key, key)
        name = key if current in tree else current
        inner = section_under(model, name)
        is_section = inner is not None and isinstance(value, dict)
        renamed[name] = with_current_keys(inner, value) if inner and is_section else value
    return renamed


def section_in(annotation: Any) -> type[Section] | None:
    """The section that an annotation is, or that it is a list of."""
    if inspect.isclass(annotation) and issubclass(annotation, Section):
        return annotation
    sections = (section_in(inner) for inner in getattr(annotation, "__args__", ()))
    return next((section for section in sections if section), None)


def section_under(section: type[Section] | None, key: str) -> type[Section] | None:
    """The section that a setting of a section holds, or None."""
    info = section.model_fields.get(key) if section else None
    return section_in(info.annotation) if info else None


def section_at(model: type[Section], place: Sequence[str | int]) -> type[Section] | None:
    """The section that a path of keys and list indices leads to, from the outermost one."""
    section: type[Section] | None = model
    for key in place:
        if isinstance(key, str) and not key.isdecimal():
            section = section_under(section, key)
    return section


def path_mark(section: type[Section] | None, key: str) -> IsPath | None:
    """The mark of a setting that is a path, or None."""
    info = section.model_fields.get(key) if section else None
    marks = info.metadata if info else []
    return next((mark for mark in marks if isinstance(mark, IsPath)), None)


def _explain(model: type[Section], problem: Any) -> str:
    """A sentence about what is wrong with a setting."""
    place = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        section = section_at(model, problem["loc"][:-1]) or model
        return f"unknown key {place!r}{suggestion(str(problem['loc'][-1]), section.model_fields)}"
    if problem["type"] == "missing":
        return f"{place} is missing"
    if problem["type"] in ("model_type", "dict_type"):
        return f"{place} must have keys with values, got {short(problem['input'])}"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] != "value_error":  # a message of pydantic's, which does not show the value
        message = message.replace("Input should", "must").replace("List should", "must")
        message = f"{message.replace(' after validation', '')}, got {short(problem['input'])}"
    separator = " " if message.startswith("must ") else ": "
    return f"{place}{separator}{message}" if place else message
