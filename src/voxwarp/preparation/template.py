"""A template: the brain that scans are aligned with, the name of its space, and what fits it."""

import hashlib
import importlib.util
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..files import sha256_of
from ..space.grid import Grid
from ..space.volume import Volume, read_labels, read_volume
from .agreement import FitThresholds

ALIGNED, MNI = 2, 4  # NIfTI's codes of spaces: that of another image, that of MNI152


@dataclass(frozen=True, eq=False)
class Template:
    """A brain in a space of its own, which models and scans are aligned with.

    It is part of a model's ``Recipe``; to register with its image, hand over
    ``Scan.of_template(template)``.

    Args:
        name: of its space, as TemplateFlow has it where it is one of theirs.
        source: the brain-extracted image: a file, or a volume in memory.
        mask: file of a brain mask, of an image that shows a head.
        title: in words, for records.
        space_code: NIfTI's xform code for images in its space: 4 for MNI152, 2 for others.
        thresholds: how well a brain has to lie on it to be in place.
    """

    name: str
    source: Path | Volume
    mask: Path | None = None
    title: str = ""
    space_code: int = ALIGNED
    thresholds: FitThresholds = field(default_factory=FitThresholds)

    @cached_property
    def image(self) -> Volume:
        """The brain, zero outside.

        Raises:
            InputError: the file cannot be read.
        """
        image = self.source
        if not isinstance(image, Volume):
            image = read_volume(image, "template")
        if self.mask is None:
            return image
        inside = read_labels(self.mask, image, "template's mask").data != 0
        return replace(image, data=np.where(inside, image.data, 0))

    @property
    def grid(self) -> Grid:
        """Grid of the image."""
        return self.image.grid

    @property
    def short_name(self) -> str:
        """The template in a word of a sentence: MNI152, whatever its version."""
        return "MNI152" if self.space_code == MNI else self.name

    @property
    def path(self) -> Path:
        """The file of the image.

        Raises:
            InputError: it is in memory alone.
        """
        if isinstance(self.source, Volume):
            raise InputError(f"template {self.name}: it is no file")
        return self.source

    @cached_property
    def sha256(self) -> str:
        """Hash of its file and its mask's, or of its values and where they are."""
        if not isinstance(self.source, Volume):
            digests = [sha256_of(path) for path in (self.source, self.mask) if path is not None]
            return digests[0] if len(digests) == 1 else _sha256("".join(digests).encode())
        data = np.ascontiguousarray(self.image.data)  # within its mask, if it has one
        about = f"{data.dtype.str}{data.shape}".encode()
        return _sha256(about + data.tobytes() + self.image.grid.affine.tobytes())

    def __reduce__(self) -> Any:
        """A template that has a name in ``TEMPLATES`` is the same one in every process."""
        for name, make in TEMPLATES.items():
            if make() is self:
                return template_named, (name,)
        own = (self.name, self.source, self.mask, self.title, self.space_code, self.thresholds)
        return type(self), own

    @property
    def identity(self) -> dict[str, Any]:
        """What decides where it leads scans to: part of the keys of caches."""
        return {"name": self.name, "sha256": self.sha256, "thresholds": asdict(self.thresholds)}


def _sha256(payload: bytes) -> str:
    return hashlib.sha256(payload).hexdigest()


@cache
def mni152() -> Template:
    """The brain-extracted ICBM 152 2009a symmetric T1 average, 1 mm, that nilearn ships."""
    return Template(
        "MNI152NLin2009aSym",
        _inside_nilearn("mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"),
        title="MNI152, ICBM 2009a symmetric",
        space_code=MNI,
    )


def _inside_nilearn(name: str) -> Path:
    """A file of nilearn's, which is found but, being slow, not imported."""
    spec = importlib.util.find_spec("nilearn")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("nilearn, which ships the MNI152 template, is not installed")
    return Path(spec.origin).parent / "datasets" / "data" / name


#: Templates that models and configurations can name.
TEMPLATES: dict[str, Callable[[], Template]] = {"mni152": mni152}


def template_named(name: str) -> Template:
    """A template by its name in ``TEMPLATES``, or the user's own by the path of its image.

    Raises:
        InputError: it is neither.
    """
    if name in TEMPLATES:
        return TEMPLATES[name]()
    path = Path(name)
    if not path.is_file():
        raise InputError(f"template {name!r}: wanted {', '.join(TEMPLATES)}, or an image's path")
    return Template(path.name.partition(".")[0], path, title=str(path))
