"""A scan with its label map and brain mask, examined and prepared once."""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from nibabel.spatialimages import SpatialImage

from .._provenance import origin
from ..errors import InputError
from ..space.grid import Grid
from ..space.resample import resample
from ..space.transform import Affine
from ..space.volume import (
    ImageLike,
    Volume,
    read_labels,
    read_series,
    read_volume,
    refusal,
    to_canonical,
)
from .cache import examined
from .examination import Examination, placed_as_template, placed_by_header
from .intensity import from_zero, scaled
from .masking import brain_mask, lesion_on
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
        lesion: (1, 1, X, Y, Z) float32, 1 in lesions and 0 elsewhere; None if it has none.
    """

    image: torch.Tensor
    examination: Examination
    lesion: torch.Tensor | None = None

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
        lesion: mask of lesions, resections or other tissue that must not count; every value except
            0 is lesion.
        origins: path and SHA-256 of image, labels, mask and lesion masks, see
            ``provenance.origin``, and what their headers leave in doubt (``header_warnings``).

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
    lesion: Volume | None = None
    origins: Mapping[str, Any] = field(default_factory=dict)
    _examined: dict[Any, tuple[Examination, bool]] = field(default_factory=dict, repr=False)
    _prepared: dict[tuple[int, Recipe], Prepared] = field(default_factory=dict, repr=False)

    @classmethod
    def read(
        cls,
        image: ImageLike,
        *,
        labels: ImageLike | None = None,
        mask: ImageLike | None = None,
        lesion_mask: ImageLike | Sequence[ImageLike] | None = None,
        role: str = "",
    ) -> "Scan":
        """Read a scan, its labels, its brain mask and the masks of its lesions.

        Args:
            image, labels, mask: paths, nibabel images or volumes; all on one grid.
            lesion_mask: mask of lesions, or several, which are united; in the world space of the
                scan, on any grid.
            role: of the scan, such as "moving", for messages; may be empty.

        Raises:
            InputError: a file is missing or cannot be used, or the grids differ.
        """
        role = f"{role} " if role else ""
        volume = read_volume(image, f"{role}image")
        label_map = None if labels is None else read_labels(labels, volume, f"{role}label map")
        brain = None if mask is None else read_labels(mask, volume, f"{role}mask")
        files = several(lesion_mask)
        lesions = [_read_lesion(file, volume, f"{role}lesion mask") for file in files]
        lesion = _united(lesions)
        origins: dict[str, Any] = {
            "image": _origin(image, volume),
            "labels": _origin(labels, label_map),
            "mask": _origin(mask, brain),
        }
        if lesions:
            pairs = zip(files, lesions, strict=True)
            origins["lesion_masks"] = [_origin(file, one) for file, one in pairs]
        if not volume.grid.is_sheared():
            return cls(volume, label_map, brain, lesion, origins)
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
        label_map, brain, lesion = (
            x and resample(x, grid, interpolation="nearest") for x in (label_map, brain, lesion)
        )
        return cls(straight, label_map, brain, lesion, origins)

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
            template.image,
            label_map,
            origins={"image": about, "labels": _origin(labels, label_map)},
        )

    @property
    def grid(self) -> Grid:
        """The grid of the voxels."""
        return self.image.grid

    @property
    def name(self) -> str:
        """The name of the scan in messages, its path."""
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
                self._examined[key] = (
                    placed_by_header(self.image, recipe, self.mask, self.lesion),
                    False,
                )
            elif self.image is recipe.template.image:
                self._examined[key] = placed_as_template(recipe.template), False
            else:
                try:
                    self._examined[key] = examined(
                        self.image,
                        preparation,
                        self.mask,
                        recipe.template,
                        self.lesion,
                        use=cache,
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
        volumes = (self.image, self.labels, self.mask, self.lesion)
        return tuple(text for x in volumes if x is not None for text in x.header_warnings)


def several(lesion_mask: ImageLike | Sequence[ImageLike] | None) -> list[ImageLike]:
    """Lesion masks as a list: none, one, or several."""
    if lesion_mask is None:
        return []
    if isinstance(lesion_mask, (str, os.PathLike, SpatialImage, Volume)):
        return [lesion_mask]
    return list(lesion_mask)


def _read_lesion(source: ImageLike, image: Volume, what: str) -> Volume:
    """Read a mask of lesions, 1 inside, and bring it onto the grid of its scan.

    Raises:
        InputError: it cannot be read, its values are not whole numbers, or it lies elsewhere.
    """
    volume = read_series(source, what)
    if volume.data.ndim == 3 and not volume.data.any():
        warning = f"{what} {volume.name}: the mask is empty (all zero), so there is no lesion"
        nothing = np.zeros(image.grid.shape, np.uint8)
        return Volume(nothing, image.grid, volume.name, header_warnings=(warning,))
    own = read_labels(volume, volume, what)
    mask = replace(own, data=(own.data != 0).astype(np.uint8))
    if own.grid.matches(image.grid):
        return mask
    mask = resample(mask, image.grid, interpolation="nearest")
    if not mask.data.any():
        raise refusal(
            f"{what} {volume.name}: it does not overlap with {image.name} in world space; a mask "
            f"must be in the space of its scan",
            volume,
            image,
        )
    return mask


def _united(masks: Sequence[Volume]) -> Volume | None:
    """The union of masks on one grid, uint8; None without masks."""
    if not masks:
        return None
    inside = np.logical_or.reduce([mask.data != 0 for mask in masks])
    warnings = tuple(dict.fromkeys(text for mask in masks for text in mask.header_warnings))
    return replace(masks[0], data=inside.astype(np.uint8), header_warnings=warnings)


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
    lesion = lesion_on(recipe.grid, examination.lesion, examination.template_to_scan)
    marked = None if lesion is None else torch.from_numpy(lesion.data)[None, None]
    return Prepared(image[None, None], examination, marked)


def prepare_scans(recipe: Recipe, *scans: tuple[Scan, Examination]) -> list[Prepared]:
    """Resample the brains of scans onto the working grid of a recipe, two at a time.

    Args:
        recipe: of a model.
        scans: each with its examination.
    """
    with ThreadPoolExecutor(min(2, torch.get_num_threads())) as pool:
        return list(pool.map(lambda item: item[0].prepared(recipe, item[1]), scans))
