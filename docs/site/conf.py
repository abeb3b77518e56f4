"""Sphinx's configuration of the site; ``build.py`` calls Sphinx with the pages it staged."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import hooks

import voxwarp

project = "voxwarp"
author = "The voxwarp developers"
copyright = author
version = release = voxwarp.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
root_doc = "index"
nitpicky = True
smartquotes = False  # they make a dash of the two hyphens of an option

html_theme = "furo"
html_title = f"voxwarp {release}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False

myst_heading_anchors = 4
copybutton_exclude = ".linenos, .gp, .go"  # neither prompts nor outputs of Python

autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_member_order = "bysource"
napoleon_use_param = False  # it knows no "moving, fixed: ..."
napoleon_numpy_docstring = False
maximum_signature_line_length = 80

# The pages are built without the internet, so without the indices of other packages.
nitpick_ignore_regex = [
    ("py:.*", r"(collections|nibabel|numpy|os|pathlib|torch|typing)\..*"),
    ("py:class", "Figure"),  # matplotlib's, which is imported only where it is needed
]

setup = hooks.setup
