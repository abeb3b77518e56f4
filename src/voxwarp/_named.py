"""Functions of the user's own, named ``module:function`` in an option or a configuration."""

from collections.abc import Callable, Iterable
from pkgutil import resolve_name
from typing import Any

from .errors import InputError


def function_named(name: str, what: str, known: Iterable[str]) -> Callable[..., Any]:
    """Import the function named ``module:function``, or ``module:class.function``.

    Args:
        name: the name.
        what: the role of the function, such as "extractor", the first word of messages.
        known: the built-in names that the user could give instead, for the message.

    Raises:
        InputError: the name has another form, the module cannot be imported, or it has no such
            function.
    """
    module, _, function = name.partition(":")
    if not function or not all(part.isidentifier() for part in module.split(".")):
        raise InputError(f"{what} must be {', '.join(known)} or module:function, got {name!r}")
    try:
        function = resolve_name(name)
    except (Exception, SystemExit) as error:  # a user's module can raise anything
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"{what} {name!r}: it cannot be imported ({reason})") from error
    if not callable(function):
        raise InputError(f"{what} {name!r}: this is not a function but a {type(function).__name__}")
    return function
