"""A scan with its label map and brain mask, examined and prepared once."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from .._provenance import origin
from ..errors import InputError
from ..space.grid import Grid
from ..space.resample import resample
from ..space.transform import Affine
from ..space.volume import (
    ImageLike,
    Volume,
    read_labels,
    read_volume,
    refusal,
    to_canonical,
)
from .cache import examined
from .examination import Examination, placed_as_template, placed_by_header
from .intensity import from_zero, scaled
from .masking import brain_mask
from .recipe import Recipe
from .settings import DEFAULTS, Preparation
from .template import Template, mni152

Origin = Mapping[str, Any] | None


@dataclass(frozen=True, eq=False)
class Prepared:
    """The brain of a scan on a working grid.

    Args:
        image: (1, 1, X, Y, Z) float32 in [0, 1], the input of a network.
        examination: by which it was resampled.
    """

    image: torch.Tensor
    examination: Examination

    @property
    def template_to_scan(self) -> Affine:
        """Maps points of the working space to points of the scan, RAS mm."""
        return self.examination.template_to_scan

    def further(self, name: str) -> torch.Tensor:
        """Return a further input that a network can ask for.

        Args:
            name: "mask", which is 1 in the brain and 0 outside.

        Returns:
            (1, 1, X, Y, Z) float32.

        Raises:
            ValueError: there is no input of this name.
        """
        if name != "mask":
            raise ValueError(f"a network can only ask for mask beside the image, got {name!r}")
        return (self.image > 0).float()


@dataclass(frozen=True, eq=False)
class Scan:
    """A scan with its label map and brain mask, all on one grid with orthogonal axes.

    ``Scan.read`` reads one from files, ``Scan.of_template`` makes one of a template. Examinations
    and images on working grids are computed when they are first needed and kept as long as the
    scan, so a scan that is registered to many others is prepared once.

    Args:
        image: the scan.
        labels: its label map, if it has one.
        mask: its brain mask, if it is known; every value except 0 is brain.
        origins: path and SHA-256 of image, labels and mask, see ``provenance.origin``, and what
            their headers leave in doubt (``header_warnings``).

    Example:
        >>> import voxwarp
        >>> fixed = voxwarp.Scan.read("fixed.nii.gz", labels="fixed_labels.nii.gz")
        >>> results = [voxwarp.register(path, fixed) for path in ("moving.nii.gz", "bold.nii.gz")]
        >>> all(result.fixed is fixed for result in results)
        True
    """

    image: Volume
    labels: Volume | None = None
    mask: Volume | None = None
    origins: Mapping[str, Origin] = field(default_factory=dict)
    _examined: dict[Any, tuple[Examination, bool]] = field(default_factory=dict, repr=False)
    _prepared: dict[tuple[int, Recipe], Prepared] = field(default_factory=dict, repr=False)

    @classmethod
    def read(
        cls,
        image: ImageLike,
        *,
        labels: ImageLike | None = None,
        mask: ImageLike | None = None,
        role: str = "",
    ) -> "Scan":
        """Read a scan, its labels and its brain mask.

        Args:
            image, labels, mask: paths, nibabel images or volumes; all on one grid.
            role: of the scan, such as "moving", for messages; may be empty.

        Raises:
            InputError: a file is missing or cannot be used, or the grids differ.
        """
        role = f"{role} " if role else ""
        volume = read_volume(image, f"{role}image")
        label_map = None if labels is None else read_labels(labels, volume, f"{role}label map")
        brain = None if mask is None else read_labels(mask, volume, f"{role}mask")
        origins = {
            "image": _origin(image, volume),
            "labels": _origin(labels, label_map),
            "mask": _origin(mask, brain),
        }
        if not volume.grid.is_sheared():
            return cls(volume, label_map, brain, origins)
        before = "; ".join(volume.header_warnings)  # one warning for each scan
        warning = (
            f"{f'{before}; ' if before else f'{role}image {volume.name}: '}its axes are sheared, "
            f"which ITK files cannot store; it was resampled onto an orthogonal grid, and the "
            f"outputs refer to that grid"
        )
        grid = volume.grid.unsheared()
        straight = replace(
            resample(volume, grid, background=volume.background.value), header_warnings=(warning,)
        )
        label_map, brain = (
            x and resample(x, grid, interpolation="nearest") for x in (label_map, brain)
        )
        return cls(straight, label_map, brain, origins)

    @classmethod
    def of_template(cls, template: Template, labels: ImageLike | None = None) -> "Scan":
        """Make a scan of a template.

        Args:
            template: the template.
            labels: a label map on its grid, if there is one.

        Raises:
            InputError: a file is missing or cannot be used, or the grids differ.
        """
        label_map = (
            None if labels is None else read_labels(labels, template.image, "fixed label map")
        )
        about = {"template": template.title}
        if template is not mni152():
            about |= {"name": template.name, "sha256": template.sha256}
        return cls(
            template.image, label_map, None, {"image": about, "labels": _origin(labels, label_map)}
        )

    @property
    def grid(self) -> Grid:
        """The grid of the voxels."""
        return self.image.grid

    @property
    def name(self) -> str:
        """The name of the scan in messages: its path."""
        return self.image.name

    def examined(
        self,
        recipe: Recipe,
        preparation: Preparation = DEFAULTS,
        *,
        cache: bool = True,
    ) -> Examination:
        """Examine the scan for a recipe; the result is kept.

        Args:
            recipe: of a model.
            preparation: which steps are taken.
            cache: whether to read and write the cache on disk.

        Raises:
            InputError: no brain is found in it.
        """
        return self.examined_or_cached(recipe, preparation, cache=cache)[0]

    def examined_or_cached(
        self, recipe: Recipe, preparation: Preparation, *, cache: bool
    ) -> tuple[Examination, bool]:
        """Examine the scan, and return whether the result is from the cache on disk."""
        key = recipe.alignment if recipe.template is None else (recipe.template, preparation)
        if key not in self._examined:
            if recipe.template is None:
                self._examined[key] = placed_by_header(self.image, recipe, self.mask), False
            elif self.image is recipe.template.image:
                self._examined[key] = placed_as_template(recipe.template), False
            else:
                try:
                    self._examined[key] = examined(
                        self.image, preparation, self.mask, recipe.template, use=cache
                    )
                except InputError as error:
                    raise refusal(str(error), self.image) from error
        return self._examined[key]

    def prepared(self, recipe: Recipe, examination: Examination) -> Prepared:
        """Resample the brain onto the working grid of a recipe; the result is kept.

        Args:
            recipe: of a model.
            examination: of this scan.
        """
        if all(examination is not own for own, _ in self._examined.values()):
            # An examination from elsewhere belongs to the caller, so nothing is kept for it.
            return prepare(self.image, recipe, examination)
        key = id(examination), recipe
        if key not in self._prepared:
            self._prepared[key] = prepare(self.image, recipe, examination)
        return self._prepared[key]

    def brain(self, examination: Examination) -> Volume:
        """Return the brain on the scan's own voxels: bias field removed, zero outside, float32."""
        standard = from_zero(to_canonical(self.image))
        return examination.brain_of(standard, standard.grid)

    def brain_mask(self, examination: Examination, grid: Grid | None = None) -> Volume:
        """Return the brain mask: 1 inside, 0 outside, uint8.

        Args:
            examination: of this scan.
            grid: of the result; by default the scan's own.
        """
        return brain_mask(self.image, grid or self.grid, examination.mask)

    def warnings(self, examination: Examination, role: str = "") -> list[str]:
        """Return the warnings about the header and about the examination, a sentence each.

        Args:
            examination: of this scan.
            role: of the scan, such as "moving"; may be empty.
        """
        name = f"{role} image {self.name}" if role else self.name
        return [*self.header_warnings, *examination.warnings(name)]

    @property
    def header_warnings(self) -> tuple[str, ...]:
        """What the headers of image, labels and mask leave in doubt, a sentence each."""
        volumes = (self.image, self.labels, self.mask)
        return tuple(text for x in volumes if x is not None for text in x.header_warnings)


def _origin(source: ImageLike | None, volume: Volume | None) -> Origin:
    """``provenance.origin``, with the warnings about the header if there are any."""
    about = origin(source)
    if about is None or volume is None or not volume.header_warnings:
        return about
    return {**about, "header_warnings": list(volume.header_warnings)}


def prepare(scan: Volume, recipe: Recipe, examination: Examination) -> Prepared:
    """Resample the brain of a scan onto the working grid of a recipe and scale it to [0, 1].

    Args:
        scan: on any grid.
        recipe: of a model.
        examination: of the scan.
    """
    standard = from_zero(to_canonical(scan))
    aligned = examination.brain_of(standard, recipe.grid, examination.template_to_scan)
    image = torch.from_numpy(scaled(aligned.data, recipe.percentile))
    return Prepared(image[None, None], examination)


def prepare_scans(recipe: Recipe, *scans: tuple[Scan, Examination]) -> list[Prepared]:
    """Resample the brains of scans onto the working grid of a recipe, two at a time.

    Args:
        recipe: of a model.
        scans: each with its examination.
    """
    with ThreadPoolExecutor(min(2, torch.get_num_threads())) as pool:
        return list(pool.map(lambda item: item[0].prepared(recipe, item[1]), scans))
