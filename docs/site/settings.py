"""The page of all settings of a training, from ``voxwarp train --show-settings``."""

import inspect

from rst import escaped, indented, title

from voxwarp.data.section import section_under
from voxwarp.training.config import Config, settings_table

ALONE = "General"
INTRODUCTION = """\
Every setting of the YAML file of ``voxwarp train``, with its default. A dot leads into a section,
and ``[]`` stands for each entry of a list. On the command line, ``optimiser.batch=2`` replaces the
value of the file. :doc:`/training` explains how a training is set up; ``voxwarp train
--show-settings`` prints this list.

"""


def pages() -> dict[str, str]:
    """The page, by its file."""
    sections: dict[str, str] = {}
    for name, default, meaning in settings_table():
        first, dot, _ = name.partition(".")
        section = first.removesuffix("[]") if dot else ALONE
        sections[section] = sections.get(section, "") + _setting(name, default, meaning)
    text = title("Settings of a training") + INTRODUCTION
    for section, settings in sections.items():
        text += title(section, "-") + _about(section) + settings
    return {"settings.rst": text}


def _setting(name: str, default: str, meaning: str) -> str:
    text = escaped(f"{meaning[0].upper()}{meaning[1:]}.")
    text += f"\n\nDefault: ``{default}``." if default else "\n\nRequired."
    return f".. confval:: {name}\n\n{indented(text)}\n"


def _about(section: str) -> str:
    model = section_under(Config, section)
    return f"{escaped(inspect.getdoc(model) or '')}\n\n" if model else ""
