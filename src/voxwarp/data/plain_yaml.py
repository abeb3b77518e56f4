"""YAML restricted to what JSON has: strings, numbers, true and false, null, lists, dictionaries.

Keys are unique. Aliases are refused because one line of them can expand to terabytes. 1e-3 is a
number; yes, no, on, off and dates are strings.
"""

import re
from typing import Any

import yaml

from .messages import short

DEEPEST = 64  # nested nodes; set by hand, above what settings may have

_PLAIN = tuple(f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float"))
_FLOATS = (
    re.compile(r"^([-+]?(\d+\.\d*|\.\d+)|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$", re.ASCII),
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$", re.ASCII),
)


def parse(text: str) -> Any:
    """Read values from YAML text.

    Raises:
        ValueError: the text is not YAML, or not in the restricted form.
    """
    try:
        return yaml.load(text, _Loader)
    # LookupError: !!int or !!bool before something else.
    except (yaml.YAMLError, LookupError) as error:
        raise ValueError(str(error)) from error


def dump(tree: Any) -> str:
    """Write values as YAML text, in their order."""
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def dump_inline(value: Any) -> str:
    """Write a value on one line, in the form that ``key=value`` takes on the command line."""
    text = yaml.dump(value, Dumper=_Dumper, default_flow_style=True, sort_keys=False, width=10**6)
    return text.removesuffix("\n").removesuffix("\n...")


class _Loader(yaml.SafeLoader):
    """Reads plain values only."""

    yaml_constructors = {  # noqa: RUF012
        tag: yaml.SafeLoader.yaml_constructors[tag]
        for tag in (*_PLAIN, "tag:yaml.org,2002:str", "tag:yaml.org,2002:seq", None)
    }
    yaml_implicit_resolvers: dict = {}  # noqa: RUF012
    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Refuse aliases, ``*name``, and what is nested more deeply than any setting."""
        if self.depth > DEEPEST:
            raise ValueError("lists and dictionaries are nested too deeply")
        if self.check_event(yaml.AliasEvent):
            line = self.peek_event().start_mark.line + 1
            raise ValueError(
                f"line {line}: aliases are not allowed; put words that begin with * in quotes"
            )
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


class _Dumper(yaml.SafeDumper):
    """Quotes strings that ``_Loader`` would read as something else."""


for _tag, _pattern in (
    ("null", re.compile(r"^(~|null|Null|NULL|)$")),
    ("bool", re.compile(r"^(true|True|TRUE|false|False|FALSE)$")),
    ("int", re.compile(r"^[-+]?(0|[1-9]\d*)$", re.ASCII)),
    *(("float", pattern) for pattern in _FLOATS),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", _pattern, None)
for _pattern in _FLOATS:
    _Dumper.add_implicit_resolver("tag:yaml.org,2002:float", _pattern, None)


def _mapping(loader: _Loader, node: yaml.Node) -> dict:
    if not isinstance(node, yaml.MappingNode):  # the tag !!map before something else
        raise ValueError(f"line {node.start_mark.line + 1}: expected keys with values")
    made: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        line = key_node.start_mark.line + 1
        if not isinstance(key, str):
            raise ValueError(f"line {line}: key {short(key)} must be a string")
        if key in made:
            raise ValueError(f"line {line}: key {short(key)} occurs twice")
        made[key] = loader.construct_object(value_node, deep=True)
    return made


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)
