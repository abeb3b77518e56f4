"""A user's own function, named as ``module:function`` in an option or a configuration."""

from collections.abc import Callable, Iterable
from pkgutil import resolve_name
from typing import Any

from .errors import InputError


def function_named(name: str, what: str, known: Iterable[str]) -> Callable[..., Any]:
    """The function behind ``module:function``, or ``module:class.function``.

    Args:
        what: it is to the user, such as "extractor".
        known: names that would have done, too, for the message.

    Raises:
        InputError: the module cannot be imported, or there is no such function in it.
    """
    module, _, function = name.partition(":")
    if not function or not all(part.isidentifier() for part in module.split(".")):
        raise InputError(f"{what} {name!r}: wanted one of {', '.join(known)}, or module:function")
    try:
        found = resolve_name(name)
    except (Exception, SystemExit) as error:  # whatever the user's module does when imported
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"{what} {name!r}: it cannot be imported ({reason})") from error
    if not callable(found):
        raise InputError(f"{what} {name!r}: that is no function")
    return found
