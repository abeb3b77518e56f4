"""What is changed while Sphinx reads: signatures and docstrings, links to types, wide tables."""

import inspect
import re
import sys
from typing import Any

from api import ALIASES, OTHER_TYPES, is_public
from docutils import nodes
from sphinx.util.typing import stringify_annotation

import voxwarp

_SHORT = {stringify_annotation(type_, "smart"): name for name, type_ in ALIASES.items()}


def setup(app: Any) -> None:
    """Take part in what Sphinx does with docstrings and with links to types."""
    app.connect("autodoc-process-signature", _signature)
    app.connect("autodoc-process-docstring", _docstring)
    app.connect("doctree-read", _without_dashes)
    app.connect("doctree-read", _marked_by_length)
    app.connect("missing-reference", _home)


def _signature(
    app: Any, what: str, name: str, thing: Any, options: Any, text: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """A signature that one can read: the names of long unions, and defaults as one writes them."""
    if name in OTHER_TYPES:
        return "", None  # nobody calls them
    if text is None:
        return text, returns
    for long, short in _SHORT.items():
        text = text.replace(long, short)
        returns = returns and returns.replace(long, short)
    text = re.sub(r" ?= ?<factory>", " = ...", text)
    text = re.sub(r", _\w+: .*?= \.\.\.(?=[,)])", "", text)  # private fields of data classes
    text = re.sub(r"= ([A-Z_]+)\b", lambda match: f"= {_written(match[1], thing)}", text)
    return text.replace("= math.inf", "= inf"), returns


def _written(name: str, thing: Any) -> str:
    """A default that is the constant of a module as one would write it."""
    value = getattr(sys.modules[inspect.unwrap(thing).__module__], name)
    is_all_default = not isinstance(value, str | int | float) and value == type(value)()
    return f"{type(value).__name__}()" if is_all_default else repr(value)


def _docstring(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Make links of the public names in a docstring, except for its own."""

    def linked(match: re.Match[str]) -> str:
        first, _, member = match[1].partition(".")
        owner = getattr(voxwarp, first) if first in voxwarp.__all__ else None
        is_known = owner is not None and (not member or hasattr(owner, member))
        is_own = f"voxwarp.{match[1]}" == name
        return f":py:obj:`~voxwarp.{match[1]}`" if is_known and not is_own else match[0]

    lines[:] = [re.sub(r"``([A-Za-z]\w*(?:\.\w+)?)``", linked, line) for line in lines]


def _without_dashes(app: Any, tree: nodes.document) -> None:
    """Put a colon between a parameter or an error and its description, as the docstrings do."""
    for text in list(tree.findall(nodes.Text)):
        field = text.parent.parent if isinstance(text.parent, nodes.paragraph) else None
        if text.startswith(" -- ") and isinstance(field, nodes.list_item | nodes.field_body):
            text.parent.replace(text, nodes.Text(f": {text[4:]}"))


def _marked_by_length(app: Any, tree: nodes.document) -> None:
    """Mark short words of code, which do not break, and wide tables, which are small on paper."""
    for literal in tree.findall(nodes.literal):
        if max(map(len, literal.astext().split()), default=0) <= 24:
            literal["classes"].append("short")
    for table in tree.findall(nodes.tgroup):
        if table["cols"] > 8:
            table.parent["classes"].append("wide")


def _home(app: Any, env: Any, node: Any, content: Any) -> Any:
    """The entry of a public name, for a link to the module that it is in; that of an alias."""
    target = node.get("reftarget", "")
    module, _, name = target.rpartition(".")
    if is_public(module, name):
        target = f"voxwarp.{name}"
    elif target not in ALIASES:
        return None
    domain, page = env.get_domain("py"), node["refdoc"]
    return domain.resolve_xref(env, page, app.builder, "obj", target, node, content)
