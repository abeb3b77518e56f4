"""The pages of the commands, from what ``voxwarp COMMAND --help`` shows."""

import enum
import inspect
import re
from collections.abc import Iterator
from typing import Any

import typer
from rst import code, escaped, indented, sidebar, title

from voxwarp.cli.command import EXAMPLES
from voxwarp.cli.commands import app
from voxwarp.cli.options import OTHER

#: Pages that explain a command.
GUIDES = {
    "register": "register",
    "apply": "transforms",
    "points": "transforms",
    "report": "look",
    "view": "look",
    "cohort": "cohort",
    "template": "templates",
    "morphometry": "morphometry",
    "preprocess": "preparation",
    "train": "training",
    "evaluate": "evaluation",
    "benchmark": "evaluation",
    "figures": "evaluation",
    "models": "models",
    "cache": "preparation",
    "doctor": "command-line",
}
_OPTION = re.compile(r"(?<![\w-])(--?[a-z][\w-]*)")


def pages() -> dict[str, str]:
    """The page of every command, and one that lists them, by their files."""
    program = typer.main.get_command(app)
    found = {"commands/index.rst": _overview(program)}
    for name, command in program.commands.items():
        words = ["voxwarp", name]
        text = _page(words, command)
        for inner, one in getattr(command, "commands", {}).items():
            text += _page([*words, inner], one, "-")
        found[f"commands/{name}.rst"] = text
    return found


def _overview(program: Any) -> str:
    text = title("Commands") + _paragraphs(program) + "\n"
    panels: dict[str, list[str]] = {}
    for name, command in program.commands.items():
        first = _help(command)[0].partition("\n\n")[0]
        line = f":doc:`voxwarp {name} <{name}>`\n{indented(_marked(' '.join(first.split()), {}))}"
        panels.setdefault(command.rich_help_panel, []).append(line)
    for panel, lines in panels.items():
        text += title(panel, "-") + "\n".join(lines) + "\n"
    context = program.make_context("voxwarp", [], resilient_parsing=True)
    options = "".join(_option(param, {}) for param in program.get_params(context))
    text += title("Options of voxwarp itself", "-") + ".. program:: voxwarp\n\n" + options
    return text + sidebar([f"voxwarp {name} <{name}>" for name in program.commands])


def _page(words: list[str], command: Any, line: str = "=") -> str:
    """A command; the commands of a group are sections of its page."""
    below = {"=": "-", "-": "~"}[line]
    context = command.make_context(" ".join(words), [], resilient_parsing=True)
    text = title(" ".join(words), line) + code(_usage(words, command), "text")
    text += f".. program:: {' '.join(words)}\n\n{_paragraphs(command)}"
    if line == "=":
        text += f"Guide: :doc:`/{GUIDES[words[1]]}`.\n\n"
    own = {name: param for param in command.params for name in _names(param)}
    for panel, params in _panels(command, context).items():
        options = "".join(_option(param, own) for param in params)
        text += title(panel, below) + options
    examples = _help(command)[1]
    return text + (title("Examples", below) + code(examples) if examples else "")


def _help(command: Any) -> tuple[str, str]:
    """The text of a command's help, and its examples."""
    text, _, examples = (command.help or "").partition(f"\n\n{EXAMPLES}\n")
    return text, inspect.cleandoc(examples)


def _paragraphs(command: Any) -> str:
    own = {name: param for param in command.params for name in _names(param)}
    paragraphs = _help(command)[0].split("\n\n")
    return "".join(f"{_marked(' '.join(text.split()), own)}\n\n" for text in paragraphs)


def _usage(words: list[str], command: Any) -> str:
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    names = [_written(one)[0] if one.required else f"[{_written(one)[0]}]" for one in arguments]
    group = ["COMMAND"] if hasattr(command, "commands") else []
    return " ".join([*words, *group, "[OPTIONS]", *names])


def _panels(command: Any, context: Any) -> dict[str, list[Any]]:
    """The arguments and options of a command, by the panels of its help."""
    panels: dict[str, list[Any]] = {}
    for param in command.get_params(context):
        is_argument = param.param_type_name == "argument"
        other = "Arguments" if is_argument else OTHER
        panels.setdefault(getattr(param, "rich_help_panel", None) or other, []).append(param)
    return panels


def _names(param: Any) -> list[str]:
    """How a parameter may be written: its long names first."""
    if param.param_type_name == "argument":
        return [param.metavar or param.name.upper()]
    return sorted([*param.opts, *param.secondary_opts], key=len, reverse=True)


def _option(param: Any, own: dict[str, Any]) -> str:
    """A parameter, with what it takes, what it does, and its default."""
    takes_value = param.param_type_name == "option" and not getattr(param, "is_flag", False)
    value = f" {param.metavar}" if takes_value else ""
    names = ", ".join(name + value for name in _written(param))
    facts = "\n\n".join([_marked(param.help or "", own), *_facts(param, own)])
    return f".. option:: {names}\n\n{indented(facts)}\n"


def _written(param: Any) -> list[str]:
    if param.param_type_name == "argument":
        return [_names(param)[0] + ("..." if param.nargs != 1 else "")]
    long = sorted(param.opts, key=len, reverse=True)
    return [*long, *param.secondary_opts]


def _facts(param: Any, own: dict[str, Any]) -> Iterator[str]:
    """Sentences about the values of a parameter."""
    if param.required:
        yield "Required."
    kind = getattr(param, "type", param)  # of older versions of typer
    least, most = (getattr(kind, name, None) for name in ("min", "max"))
    if least is not None and most is not None:
        yield f"From {least} to {most}."
    elif least is not None:
        yield f"{least} or more."
    if default := default_of(param):
        is_text = isinstance(param.show_default, str)
        yield f"Default: {_marked(default, own) if is_text else f'``{default}``'}."


def default_of(param: Any) -> str:
    """The default of a parameter, as the help shows it; empty if it shows none."""
    if isinstance(param.show_default, str):
        return param.show_default
    value = param.default
    if value is None or param.required or not param.show_default:
        return ""
    if isinstance(value, bool):
        names = param.opts if value else param.secondary_opts
        return max(names, key=len).removeprefix("--") if param.secondary_opts else ""
    return str(value.value if isinstance(value, enum.Enum) else value)


def _marked(text: str, own: dict[str, Any]) -> str:
    """A text of the help, with the options in it as links, or as code if they are another's."""
    parts = _OPTION.split(text)
    return "".join(
        (f":option:`{part}`" if part in own else f"``{part}``") if number % 2 else escaped(part)
        for number, part in enumerate(parts)
    )
