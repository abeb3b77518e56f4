"""YAML that is as simple as JSON: words, numbers, true and false, null, lists, dictionaries.

No key stands twice, and there are no aliases, which can make terabytes of a line. 1e-3 is a
number; yes, no, on, off and dates are words.
"""

import re
from typing import Any

import yaml

from .messages import short

_PLAIN = tuple(f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float"))
_FLOATS = (
    re.compile(r"^([-+]?(\d+\.\d*|\.\d+)|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$", re.ASCII),
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$", re.ASCII),
)


def parsed(text: str) -> Any:
    """The values in a text.

    Raises:
        ValueError: it is no YAML, or not as simple as that.
    """
    try:
        return yaml.load(text, _Loader)
    # The tags !!int and !!bool make the last two of words that are neither.
    except (yaml.YAMLError, RecursionError, LookupError) as error:
        raise ValueError(str(error)) from error


def written(tree: Any) -> str:
    """Values as a text of many lines, in the order that they are in."""
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def written_in_line(value: Any) -> str:
    """A value in one line, as it can stand after ``key=`` on the command line."""
    text = yaml.dump(value, Dumper=_Dumper, default_flow_style=True, sort_keys=False, width=10**6)
    return text.removesuffix("\n").removesuffix("\n...")


class _Loader(yaml.SafeLoader):
    """Knows the tags of plain values alone."""

    yaml_constructors = {  # noqa: RUF012
        tag: yaml.SafeLoader.yaml_constructors[tag]
        for tag in (*_PLAIN, "tag:yaml.org,2002:str", "tag:yaml.org,2002:seq", None)
    }
    yaml_implicit_resolvers: dict = {}  # noqa: RUF012

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Refuse aliases, ``*name``."""
        if self.check_event(yaml.AliasEvent):
            line = self.peek_event().start_mark.line + 1
            raise ValueError(f"line {line}: there are no aliases here (a * at a word's beginning)")
        return super().compose_node(parent, index)


class _Dumper(yaml.SafeDumper):
    """Puts words in quotes where ``_Loader`` would take them for something else."""


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
    if not isinstance(node, yaml.MappingNode):  # of the tag !!map
        raise ValueError(f"line {node.start_mark.line + 1}: keys and values are wanted")
    made: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        line = key_node.start_mark.line + 1
        if not isinstance(key, str):
            raise ValueError(f"line {line}: key {short(key)} is not a word")
        if key in made:
            raise ValueError(f"line {line}: {short(key)} stands there twice")
        made[key] = loader.construct_object(value_node, deep=True)
    return made


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)
