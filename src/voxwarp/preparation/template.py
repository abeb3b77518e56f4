"""Templates: the brain image that scans are aligned with, its space and its thresholds."""

import hashlib
import importlib.util
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np

from .._files import sha256_of
from ..errors import InputError
from ..space.grid import ALIGNED, MNI, SCANNER, Grid
from ..space.volume import Volume, read_labels, read_volume
from .agreement import FitThresholds


@dataclass(frozen=True, eq=False)
class Template:
    """A brain image that scans are aligned with, and that defines a space.

    It is part of the ``Recipe`` of a model. ``Scan.of_template(template)`` is its image as a scan.

    Args:
        name: of its space; TemplateFlow's name if it has one.
        source: the skull-stripped image, a file or a volume; or a head, if there is a mask.
        mask: file of the brain mask, if the image shows a head.
        title: a description, for records.
        space_code: xform code of NIfTI for images in its space, see ``Grid``: 4 for MNI152; 2 for
            others, unless the header of the image has that of a template (3 to 5).
        thresholds: how well a brain has to agree with it to be in place.

    Example:
        >>> import voxwarp
        >>> template = voxwarp.Template("Ours", voxwarp.read_volume("fixed.nii.gz"))
        >>> scan = voxwarp.Scan.of_template(template)
        >>> scan.grid == template.grid
        True
    """

    name: str
    source: Path | Volume
    mask: Path | None = None
    title: str = ""
    space_code: int = ALIGNED
    thresholds: FitThresholds = field(default_factory=FitThresholds)

    @cached_property
    def image(self) -> Volume:
        """The skull-stripped brain, zero outside.

        Raises:
            InputError: the file cannot be read.
        """
        image = self.source
        if not isinstance(image, Volume):
            image = read_volume(image, "template")
        image = replace(image, grid=image.grid.in_space(self._code_of(image)))
        if self.mask is None:
            return image
        inside = read_labels(self.mask, image, "template's mask").data != 0
        return replace(image, data=np.where(inside, image.data, 0))

    def _code_of(self, image: Volume) -> int:
        """The space code of the image: what its header says counts if nothing better is known."""
        if self.space_code != ALIGNED or image.grid.space_code == SCANNER:
            return self.space_code
        return image.grid.space_code

    @property
    def grid(self) -> Grid:
        """The grid of the image."""
        return self.image.grid

    @property
    def short_name(self) -> str:
        """The name for use in a sentence, which is MNI152 for all its versions."""
        return "MNI152" if self.space_code == MNI else self.name

    @property
    def path(self) -> Path:
        """The file of the image.

        Raises:
            InputError: the template exists only in memory.
        """
        if isinstance(self.source, Volume):
            raise InputError(f"template {self.name}: it exists only in memory and has no path")
        return self.source

    @cached_property
    def sha256(self) -> str:
        """Hash of the files of image and mask, or of the values and the grid of a volume."""
        if not isinstance(self.source, Volume):
            digests = [sha256_of(path) for path in (self.source, self.mask) if path is not None]
            return digests[0] if len(digests) == 1 else _sha256("".join(digests).encode())
        data = np.ascontiguousarray(self.image.data)  # already masked
        about = f"{data.dtype.str}{data.shape}".encode()
        return _sha256(about + data.tobytes() + self.image.grid.affine.tobytes())

    def __reduce__(self) -> Any:
        """Pickle templates in ``TEMPLATES`` by name: each process has one object of each."""
        for name, make in TEMPLATES.items():
            if make() is self:
                return template_named, (name,)
        own = (self.name, self.source, self.mask, self.title, self.space_code, self.thresholds)
        return type(self), own

    @property
    def identity(self) -> dict[str, Any]:
        """All that decides how scans are aligned with it; part of the keys of caches."""
        return {"name": self.name, "sha256": self.sha256, "thresholds": asdict(self.thresholds)}


def _sha256(payload: bytes) -> str:
    return hashlib.sha256(payload).hexdigest()


@cache
def mni152() -> Template:
    """Return MNI152: the skull-stripped ICBM 152 2009a symmetric T1 average of nilearn, 1 mm."""
    return Template(
        "MNI152NLin2009aSym",
        _file_of_nilearn("mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"),
        title="MNI152, ICBM 2009a symmetric",
        space_code=MNI,
    )


def _file_of_nilearn(name: str) -> Path:
    """A data file of nilearn, found without importing nilearn, which is slow."""
    spec = importlib.util.find_spec("nilearn")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("nilearn is not installed; it contains the MNI152 template")
    return Path(spec.origin).parent / "datasets" / "data" / name


#: Templates that models and configurations can use by name.
TEMPLATES: dict[str, Callable[[], Template]] = {"mni152": mni152}


def template_named(name: str) -> Template:
    """Return a template by its name in ``TEMPLATES``, or by the path of its image.

    Raises:
        InputError: it is neither a name nor an existing file.
    """
    if name in TEMPLATES:
        return TEMPLATES[name]()
    path = Path(name)
    if not path.is_file() and not path.is_symlink():
        names = ", ".join(TEMPLATES)
        raise InputError(f"template must be {names} or the path of an image, got {name!r}")
    return Template(path.name.partition(".")[0], path, title=str(path))
