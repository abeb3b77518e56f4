"""The pages of the Python interface: which names are on which page. Sphinx reads the docstrings."""

from numpy.typing import ArrayLike
from rst import indented, sidebar, title

import voxwarp
from voxwarp.registration.register import AnyLinear
from voxwarp.registration.saved_transform import AnyTransform
from voxwarp.space.volume import ImageLike

#: The public names, in the order in which one meets them in ``docs/python.md``.
GROUPS = {
    "Register": (
        *("register", "register_many", "load", "Registration", "RegisteredScan", "Refinement"),
        *("Runtime", "InputError"),
    ),
    "Apply and chain transforms": (
        *("apply_to_image", "apply_to_points", "load_transform", "chain_of", "SavedTransform"),
        *("Affine", "Warp", "Chain"),
    ),
    "Scans and volumes": ("Scan", "Volume", "Grid", "read_volume", "write_volume"),
    "Prepare": ("preprocess", "Preprocessed", "Preparation", "Template"),
    "Templates and morphometry": (
        *("build_template", "TemplateSettings", "morphometry", "MorphometrySettings"),
    ),
    "Evaluate and train": (
        *("read_pairs", "Pair", "protocol_of", "Protocol", "evaluate", "read_config", "train"),
        "Model",
    ),
}
OTHERS = "other-types"
#: Types that these take, hold or return, and that one does not make.
OTHER_TYPES = (
    "voxwarp.data.pairs.PairScan",
    "voxwarp.data.sources.Structures",
    "voxwarp.data.structures.Table",
    "voxwarp.dbm.run.Morphometry",
    "voxwarp.networks.catalogue.Capabilities",
    "voxwarp.networks.deformation.Deformation",
    "voxwarp.networks.descent.DescentSettings",
    "voxwarp.networks.descent.Weights",
    "voxwarp.networks.pair_descent.PairDescent",
    "voxwarp.networks.segmentation.Segmentation",
    "voxwarp.pictures.scene.Scene",
    "voxwarp.preparation.agreement.FitThresholds",
    "voxwarp.preparation.examination.Examination",
    "voxwarp.preparation.recipe.Recipe",
    "voxwarp.preparation.scan.Prepared",
    "voxwarp.registration.outputs.MissingWarp",
    "voxwarp.space.transform.Transform",
    "voxwarp.space.values.Background",
    "voxwarp.space.values.LabelEvidence",
    "voxwarp.templates.build.BuiltTemplate",
    "voxwarp.training.checkpoint.TrainingState",
    "voxwarp.training.config.Config",
)
#: Short names for what several kinds of values may be, in signatures.
ALIASES = {
    "AnyTransform": AnyTransform,
    "AnyLinear": AnyLinear,
    "ImageLike": ImageLike,
    "ArrayLike": ArrayLike,
}
_ALIASES = """\
.. py:data:: ImageLike

   An image: a path, a nibabel image, or a :py:obj:`voxwarp.Volume`.

.. py:data:: AnyTransform

   A transform: a :py:obj:`voxwarp.Registration`, a :py:obj:`voxwarp.SavedTransform`, a
   :py:obj:`voxwarp.Affine`, or the path of a folder or file that
   :py:obj:`voxwarp.load_transform` reads.

.. py:data:: AnyLinear

   A linear transform: a :py:obj:`voxwarp.Affine`, or the path of a file of ITK.

.. py:data:: ArrayLike

   An array of NumPy, or what ``numpy.asarray`` makes one of, such as nested lists.

"""
INTRODUCTION = """\
The public names of ``voxwarp``, from their docstrings. :doc:`/python` shows how they are used
together. What is not listed here is internal and may change in any version.

"""


def pages() -> dict[str, str]:
    """The page of each group, and one that lists all names, by their files."""
    found = {"python/index.rst": _overview()}
    for group, names in GROUPS.items():
        text = title(group) + "".join(map(_directive, names))
        found[f"python/{_file(group)}.rst"] = text
    text = title("Other types") + _ALIASES
    text += "".join(f".. autoclass:: {name}\n\n" for name in OTHER_TYPES)
    return {**found, f"python/{OTHERS}.rst": text}


def is_public(module: str, name: str) -> bool:
    """Whether a name of a module is also one of ``voxwarp`` itself."""
    return f"voxwarp.{voxwarp._HOME.get(name)}" == module


def _overview() -> str:
    text = title("Python functions and classes") + INTRODUCTION
    for group, names in GROUPS.items():
        text += title(group, "-") + "".join(map(_row, names)) + "\n"
    text += title("Version", "-") + ".. py:data:: voxwarp.__version__\n   :type: str\n\n"
    text += indented("The version of the installed package.") + "\n"
    return text + sidebar([*map(_file, GROUPS), OTHERS])


def _file(group: str) -> str:
    return group.lower().replace(" ", "-")


def _row(name: str) -> str:
    first = (getattr(voxwarp, name).__doc__ or "").partition("\n\n")[0]
    return f":py:obj:`voxwarp.{name}`\n{indented(' '.join(first.split()))}\n"


def _directive(name: str) -> str:
    thing = getattr(voxwarp, name)
    if not isinstance(thing, type):
        return f".. autofunction:: voxwarp.{name}\n\n"
    kind = "exception" if issubclass(thing, Exception) else "class"
    return f".. auto{kind}:: voxwarp.{name}\n   :members:\n\n"
