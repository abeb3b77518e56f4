"""The files of ``voxwarp preprocess``: brain mask, aligned brain, and the affine map between."""

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .._files import check_writable, run_in_parallel, sha256_of, staging
from .._layout import AFFINE, METRICS, PREPROCESSED, check_other_record
from .._provenance import versions
from .._publish import publish
from ..space.formats import write_affine
from ..space.grid import MNI, Grid
from ..space.resample import resample
from ..space.volume import ImageLike, Volume, to_canonical, write_volume
from .examination import Examination
from .intensity import from_zero, scale
from .masking import unbiased
from .recipe import Recipe
from .scan import Scan
from .settings import DEFAULTS, Preparation
from .views import CONFORMED

HEAD, HEAD_MASK = "Conformed.nii.gz", "ConformedBrainMask.nii.gz"
MASK = "BrainMask.nii.gz"
ALIGNED, ALIGNED_LABELS = "Aligned.nii.gz", "AlignedLabels.nii.gz"
RECORD = PREPROCESSED
OUTPUTS = (HEAD, HEAD_MASK, MASK, ALIGNED, ALIGNED_LABELS, AFFINE, RECORD)


@dataclass(frozen=True, eq=False)
class Preprocessed:
    """A prepared scan with all intermediate results.

    Args:
        scan: the scan as it was read.
        examination: of the scan.
        conformed: the scan at 1 mm on 256³ voxels; bias field removed if it was estimated.
        aligned: the brain in MNI152 space.
        labels: the label map of the scan on the grid of ``aligned``.
        record: the content of ``preprocess.json``.
    """

    scan: Scan
    examination: Examination
    conformed: Volume
    aligned: Volume
    labels: Volume | None
    record: dict[str, Any]

    def brain_mask(self, grid: Grid) -> Volume:
        """Return the brain mask on any grid in the scan's space: 1 inside, 0 outside, uint8."""
        return self.scan.brain_mask(self.examination, grid)

    def save(self, folder: str | os.PathLike[str], *, overwrite: bool = False) -> list[Path]:
        """Write all outputs, ``preprocess.json`` last.

        Args:
            folder: for the files; it is created if needed.
            overwrite: whether to replace outputs that exist.

        Returns:
            The files, in a fixed order.

        Raises:
            InputError: outputs exist and ``overwrite`` is false, or the folder cannot be written.
        """
        folder = Path(folder)
        check_output(folder, overwrite=overwrite)
        with staging(folder) as stage:
            volumes = {
                HEAD: self.conformed,
                HEAD_MASK: self.brain_mask(self.conformed.grid),
                MASK: self.brain_mask(self.scan.grid),
                ALIGNED: self.aligned,
                ALIGNED_LABELS: self.labels,
            }
            jobs: list[Callable[[], None]] = [
                partial(write_volume, volume, stage / name)
                for name, volume in volumes.items()
                if volume is not None
            ]
            jobs.append(partial(write_affine, self.examination.template_to_scan, stage / AFFINE))
            run_in_parallel(jobs)
            self.record["outputs"] = {
                name: sha256_of(stage / name) for name in OUTPUTS if (stage / name).exists()
            }
            (stage / RECORD).write_text(json.dumps(self.record, indent=2) + "\n")
            return publish(stage, folder, OUTPUTS, overwrite=overwrite)


def check_output(folder: Path, *, overwrite: bool) -> None:
    """Check that the outputs can be written to a folder, before anything is computed.

    Raises:
        InputError: it is not a folder, contains outputs already, or cannot be written.
    """
    check_writable(folder, OUTPUTS, overwrite=overwrite)
    check_other_record(folder, METRICS)


def preprocess(
    scan: ImageLike,
    *,
    labels: ImageLike | None = None,
    mask: ImageLike | None = None,
    preparation: Preparation = DEFAULTS,
    crop: bool = True,
    normalise: bool = True,
    cache: bool = True,
) -> Preprocessed:
    """Conform a scan, correct its bias field, extract and align its brain, crop and scale it.

    The aligned brain and label map are interpolated once, from the scan itself.

    Args:
        scan: a head or a skull-stripped brain, of any size, spacing and orientation.
        labels: label map on the grid of the scan; resampled by nearest neighbour.
        mask: brain mask on the grid of the scan; then no brain is extracted.
        preparation: which steps are taken, up to the affine alignment with MNI152.
        crop: whether to crop to 160×192×224 voxels around the brain; otherwise 256³ voxels.
        normalise: whether to scale the intensities to [0, 1].
        cache: whether to read and write the cache of examinations.

    Raises:
        InputError: an input is missing or cannot be used, or no brain is found in the scan.

    Example:
        >>> import voxwarp
        >>> prepared = voxwarp.preprocess("moving.nii.gz")
        >>> prepared.aligned.grid.shape  # the brain in MNI152 space
        (160, 192, 224)
        >>> prepared.record["found"]["seen_as"]
        'brain'
    """
    read = Scan.read(scan, labels=labels, mask=mask)
    recipe = Recipe()
    examination, was_cached = read.examined_or_cached(recipe, preparation, cache=cache)
    grid = recipe.grid.in_space(MNI)
    if not crop:
        grid = grid.crop([(n - CONFORMED) // 2 for n in grid.shape], (CONFORMED,) * 3)
    standard = from_zero(to_canonical(read.image))
    aligned = examination.brain_of(standard, grid, examination.template_to_scan)
    white = scale(aligned.data, recipe.percentile)
    if normalise:
        aligned = replace(aligned, data=np.clip(aligned.data / white, 0, 1))
    # What is found in a scan does not depend on the code of its space, so it does not have it.
    conformed_grid = examination.conformed_grid.in_space(read.grid.space_code)
    conformed = unbiased(resample(standard, conformed_grid), examination.log_bias)
    record = {
        "versions": versions(),
        "inputs": {
            "scan": read.origins["image"],
            "labels": read.origins["labels"],
            "mask": read.origins["mask"],
        },
        "settings": {
            **asdict(preparation),
            **{"crop": crop, "normalise": normalise, "white_percentile": recipe.percentile},
        },
        "found": {**examination.described(), "from_cache": was_cached, "white": white},
        "grids": {
            "scan": read.grid.described(),
            "conformed": conformed.grid.described(),
            "aligned": grid.described(),
        },
        "warnings": [*read.warnings(examination), *_empty(aligned)],
    }
    aligned_labels = read.labels and resample(
        read.labels, grid, examination.template_to_scan, interpolation="nearest"
    )
    return Preprocessed(read, examination, conformed, aligned, aligned_labels, record)


def _empty(aligned: Volume) -> list[str]:
    if aligned.data.any():
        return []
    return [
        f"{aligned.name}: the aligned brain is empty, because the scan lies elsewhere than MNI152 "
        f"space; align it with `affine=True`, or check the affine in its header"
    ]
