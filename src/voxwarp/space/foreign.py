"""Transforms in formats that cannot be read: what they are, and how to convert them."""

import re
from pathlib import Path
from typing import NamedTuple

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_ROW = rf"[ \t]*{_NUMBER}(?:[ \t,]+{_NUMBER}){{3}}[ \t]*\n"


class _Kind(NamedTuple):
    """Transforms of one tool: how their files are recognised, and what helps; {0} is the file."""

    endings: tuple[str, ...]
    beginning: str
    help: str


_KINDS = (
    _Kind(
        (),
        r"\x89HDF",
        "this is a file in HDF5: if it is a transform of ITK, give it a name that ends in .h5",
    ),
    _Kind(
        (".lta",),
        r"(?s).*^type\s+=\s+\d",
        "this is a transform of FreeSurfer: convert it by lta_convert --inlta {0} --outitk "
        "FILE.txt",
    ),
    _Kind(
        (".xfm",),
        r"MNI Transform File",
        "this is a transform of MINC: convert it by lta_convert --inmni {0} --outitk FILE.txt",
    ),
    _Kind(
        (),
        r"(?s).*^\(TransformParameters ",
        "these are parameters of elastix: run it with "
        '(ITKTransformOutputFileNameExtension "tfm") and give that file',
    ),
    _Kind(
        (),
        rf"(?:{_ROW}){{3,4}}\s*\Z",
        "this is a bare matrix: convert one of FSL's FLIRT by c3d_affine_tool -ref FIXED -src "
        "MOVING {0} -fsl2ras -oitk FILE.txt, and one of greedy by c3d_affine_tool {0} -oitk "
        "FILE.txt",
    ),
)


def conversion_of(path: Path) -> str | None:
    """How to convert a transform of another tool; None if it is not recognised."""
    try:
        with open(path, "rb") as stream:
            text = stream.read(4096).decode("latin-1").replace("\r\n", "\n") + "\n"
    except OSError:
        return None
    for kind in _KINDS:
        if path.name.lower().endswith(kind.endings) or re.match(kind.beginning, text, re.MULTILINE):
            return kind.help.format(path)
    return None
