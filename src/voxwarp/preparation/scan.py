"""A scan from reading to report: image, labels and masks, and what is found in it, found once."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from ..provenance import origin
from ..space.grid import Grid
from ..space.resample import resample
from ..space.transform import Affine
from ..space.volume import ImageLike, Volume, read_labels, read_volume, to_canonical
from .cache import examined
from .examination import Examination, placed_by_header, template_itself
from .intensity import from_zero, scaled
from .masking import brain_mask
from .recipe import Recipe
from .settings import DEFAULTS, Preparation
from .template import Template, mni152

Origin = Mapping[str, Any] | None


@dataclass(frozen=True, eq=False)
class Prepared:
    """A scan on a working grid.

    Args:
        image: (1, 1, X, Y, Z) float32 in [0, 1], as networks take it.
        found: what led there.
    """

    image: torch.Tensor
    found: Examination

    @property
    def template_to_scan(self) -> Affine:
        """From the common space to the scan's own, RAS mm."""
        return self.found.template_to_scan

    def further(self, what: str) -> torch.Tensor:
        """What networks can be given beside the image: "mask", 1 in the brain, (1, 1, X, Y, Z).

        Raises:
            ValueError: there is no such input.
        """
        if what != "mask":
            raise ValueError(f"further input: mask is wanted, got {what!r}")
        return (self.image > 0).float()


@dataclass(frozen=True, eq=False)
class Scan:
    """A scan with what belongs to it, all on one grid with orthogonal axes.

    Made by ``Scan.read`` from files, or by ``Scan.of_template``.

    What is found in it and its image on a working grid are made when first asked for, and kept
    as long as the scan is: one that is registered to many others is prepared once.

    Args:
        image: the scan.
        labels: its label map, if it has one.
        mask: of its brain, if that is known; other than 0 is brain.
        origins: path and SHA-256 of image, labels and mask, see ``provenance.origin``.
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
            image, labels, mask: paths, or images of nibabel's.
            role: what the scan is to the user, such as "moving", for messages; may be empty.

        Raises:
            InputError: a file is missing or not usable, or the grids differ.
        """
        role = f"{role} " if role else ""
        volume = read_volume(image, f"{role}image")
        mapped = None if labels is None else read_labels(labels, volume, f"{role}label map")
        masked = None if mask is None else read_labels(mask, volume, f"{role}mask")
        origins = {"image": origin(image), "labels": origin(labels), "mask": origin(mask)}
        if not volume.grid.is_sheared():
            return cls(volume, mapped, masked, origins)
        warning = (
            f"{role}image {volume.name}: its axes are sheared, which ITK files cannot say; it was "
            f"resampled onto an orthogonal grid, and the outputs refer to that"
        )
        grid = volume.grid.unsheared()
        straight = replace(
            resample(volume, grid), header_warnings=(*volume.header_warnings, warning)
        )
        mapped, masked = (
            x and resample(x, grid, interpolation="nearest") for x in (mapped, masked)
        )
        return cls(straight, mapped, masked, origins)

    @classmethod
    def of_template(cls, template: Template, labels: ImageLike | None = None) -> "Scan":
        """A template as a scan, perhaps with a label map on its grid."""
        mapped = None if labels is None else read_labels(labels, template.image, "fixed label map")
        about = {"template": template.title}
        if template is not mni152():
            about |= {"name": template.name, "sha256": template.sha256}
        return cls(template.image, mapped, None, {"image": about, "labels": origin(labels)})

    @property
    def grid(self) -> Grid:
        """Where the voxels are."""
        return self.image.grid

    @property
    def name(self) -> str:
        """What to call the scan in messages: its path."""
        return self.image.name

    def examined(
        self,
        recipe: Recipe,
        preparation: Preparation = DEFAULTS,
        *,
        cache: bool = True,
    ) -> Examination:
        """What is found in the scan on the way to a model's input.

        Args:
            recipe: the model's.
            preparation: which steps are taken.
            cache: look into the cache, and add to it.

        Raises:
            InputError: there is no brain in it.
        """
        return self.examined_or_cached(recipe, preparation, cache=cache)[0]

    def examined_or_cached(
        self, recipe: Recipe, preparation: Preparation, *, cache: bool
    ) -> tuple[Examination, bool]:
        """The same, and whether it was in the cache."""
        key = recipe.alignment if recipe.template is None else (recipe.template, preparation)
        if key not in self._examined:
            if recipe.template is None:
                self._examined[key] = placed_by_header(self.image, recipe, self.mask), False
            elif self.image is recipe.template.image:
                self._examined[key] = template_itself(recipe.template), False
            else:
                self._examined[key] = examined(
                    self.image, preparation, self.mask, recipe.template, use=cache
                )
        return self._examined[key]

    def prepared(self, recipe: Recipe, found: Examination) -> Prepared:
        """The scan's brain on a working grid, its intensities in [0, 1].

        Args:
            recipe: the model's.
            found: what was found in the scan.
        """
        if all(found is not kept for kept, _ in self._examined.values()):
            return prepare(self.image, recipe, found)  # not one of its own: nobody asks again
        key = id(found), recipe
        if key not in self._prepared:
            self._prepared[key] = prepare(self.image, recipe, found)
        return self._prepared[key]

    def brain(self, found: Examination) -> Volume:
        """The brain on the scan's own voxels, its bias removed, zero elsewhere, float32."""
        standard = from_zero(to_canonical(self.image))
        return found.brain_of(standard, standard.grid)

    def brain_mask(self, found: Examination, grid: Grid | None = None) -> Volume:
        """The brain on the scan's own grid, or another: 1 inside, 0 outside, uint8."""
        return brain_mask(self.image, grid or self.grid, found.mask)

    def warnings(self, found: Examination, role: str = "") -> list[str]:
        """What is odd about the file, and about what was found, a sentence each."""
        name = f"{role} image {self.name}" if role else self.name
        return [*self.image.header_warnings, *found.warnings(name)]


def prepare(scan: Volume, recipe: Recipe, found: Examination) -> Prepared:
    """Put a scan's brain on the working grid and scale it to [0, 1].

    Args:
        scan: any grid.
        recipe: the model's.
        found: what ``examine`` found in the scan.
    """
    aligned = found.brain_of(from_zero(to_canonical(scan)), recipe.grid, found.template_to_scan)
    image = torch.from_numpy(scaled(aligned.data, recipe.percentile))
    return Prepared(image[None, None], found)


def prepare_both(recipe: Recipe, *scans: tuple[Scan, Examination]) -> list[Prepared]:
    """Put scans on the working grid, two at a time."""
    with ThreadPoolExecutor(min(2, torch.get_num_threads())) as pool:
        return list(pool.map(lambda pair: pair[0].prepared(recipe, pair[1]), scans))
