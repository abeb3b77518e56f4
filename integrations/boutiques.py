"""The Boutiques descriptor of ``voxwarp cohort``, made of its options.

python integrations/boutiques.py > integrations/nipoppy/descriptor.json

A test compares the file with what this makes.
"""

import inspect
import json
import types
import typing
from enum import Enum
from typing import Annotated, Any

from typer.models import OptionInfo

import voxwarp
from voxwarp.cli.cohort import cohort

LEFT_OUT = {"version"}


def descriptor() -> dict[str, Any]:
    """The descriptor as a JSON object."""
    hints = typing.get_type_hints(cohort, include_extras=True)
    parameters = inspect.signature(cohort).parameters
    inputs = [_input(p, hints[name]) for name, p in parameters.items() if name not in LEFT_OUT]
    return {
        "name": "voxwarp cohort",
        "description": "Register the T1w scans of a BIDS data set to a template.",
        "tool-version": voxwarp.__version__,
        "schema-version": "0.5",
        "command-line": " ".join(["voxwarp cohort", *(entry["value-key"] for entry in inputs)]),
        "inputs": inputs,
        "output-files": [
            {
                "id": "derivatives",
                "name": "Derivatives",
                "path-template": "[OUT]",
                "description": "The folder of the derivatives.",
            }
        ],
        "tags": {"domain": ["neuroinformatics", "mri"]},
    }


def _input(parameter: inspect.Parameter, hint: Any) -> dict[str, Any]:
    kind, about = hint.__origin__, hint.__metadata__[0]
    assert typing.get_origin(hint) is Annotated
    is_list, kind = _element(kind)
    is_number, is_flag = kind in (int, float), kind is bool
    entry: dict[str, Any] = {
        "id": parameter.name,
        "name": parameter.name.replace("_", " "),
        "description": about.help,
        "value-key": f"[{parameter.name.upper()}]",
        "type": "Flag" if is_flag else "Number" if is_number else "String",
        "optional": parameter.default is not inspect.Parameter.empty,
    }
    if is_number:
        entry["integer"] = kind is int
    if isinstance(about, OptionInfo):
        entry["command-line-flag"] = f"--{parameter.name.replace('_', '-')}"
    if is_list:
        entry["list"] = True
    if issubclass(kind, Enum):
        entry["value-choices"] = [choice.value for choice in kind]
    return entry


def _element(kind: Any) -> tuple[bool, type]:
    """Whether an annotation is that of a list, and the type of what is in it."""
    if isinstance(kind, types.UnionType):
        kind = next(one for one in typing.get_args(kind) if one is not type(None))
    if typing.get_origin(kind) is list:
        return True, typing.get_args(kind)[0]
    return False, kind


if __name__ == "__main__":
    print(json.dumps(descriptor(), indent=2, ensure_ascii=False))
