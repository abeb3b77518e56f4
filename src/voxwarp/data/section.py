"""Sections of a configuration: knobs with their types; what is none of them is refused by name."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, TypeVar, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from ..errors import InputError
from .messages import nearest, one_line, short


def _no_boolean(value: Any) -> Any:
    """Pydantic would take true for 1."""
    if isinstance(value, bool):
        raise ValueError("a number is wanted, and not true or false")
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
    """Marks a knob that is a path: a relative one starts at the folder of its file.

    Args:
        unless: whether a word is no path, but the name of something.
    """

    unless: Callable[[str], bool] = lambda word: False


class Section(BaseModel):
    """Knobs that belong together. Numbers are finite, words are known."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    #: A file that extends another replaces such a section instead of changing words in it.
    is_whole: ClassVar[bool] = False


S = TypeVar("S", bound=Section)


def build(model: type[S], tree: Mapping[str, Any], what: str) -> S:
    """A section from nested dictionaries.

    Args:
        model: the section.
        tree: its knobs; other sections are dictionaries.
        what: is built, for messages.

    Raises:
        InputError: a knob or value is not known; the message names it.
    """
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        problems = [_explained(model, problem) for problem in error.errors()]
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise InputError(one_line(f"{what}: {problems[0]}{more}")) from None
    except RecursionError:
        raise InputError(f"{what}: nested too deeply") from None


def section_in(annotation: Any) -> type[Section] | None:
    """The section that an annotation is, or is a list of."""
    # Python 3.10 takes list[int] for a class.
    is_class = inspect.isclass(annotation) and get_origin(annotation) is None
    if is_class and issubclass(annotation, Section):
        return annotation
    found = (section_in(inner) for inner in getattr(annotation, "__args__", ()))
    return next((section for section in found if section), None)


def section_under(section: type[Section] | None, key: str) -> type[Section] | None:
    """The section that a knob of a section holds, if it holds one."""
    info = section.model_fields.get(key) if section else None
    return section_in(info.annotation) if info else None


def section_at(model: type[Section], place: Sequence[str | int]) -> type[Section] | None:
    """The section that keys lead to from the outermost one, numbers in lists among them."""
    section: type[Section] | None = model
    for key in place:
        if isinstance(key, str) and not key.isdecimal():
            section = section_under(section, key)
    return section


def path_mark(section: type[Section] | None, key: str) -> IsPath | None:
    """The mark of a knob that is a path."""
    info = section.model_fields.get(key) if section else None
    marks = info.metadata if info else []
    return next((mark for mark in marks if isinstance(mark, IsPath)), None)


def _explained(model: type[Section], problem: Any) -> str:
    """What is wrong with a knob, in a few words."""
    place = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        section = section_at(model, problem["loc"][:-1]) or model
        return f"unknown key {place!r}{nearest(str(problem['loc'][-1]), section.model_fields)}"
    if problem["type"] == "missing":
        return f"{place} is missing"
    if problem["type"] in ("model_type", "dict_type"):
        return f"{place}: keys and values are wanted, got {short(problem['input'])}"
    message = problem["msg"].removeprefix("Value error, ")
    return f"{place}: {message}" if place else message
