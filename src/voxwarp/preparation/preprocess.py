"""Prepare one scan for its own sake: the brain, the aligned brain, and the way back, as files."""

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..files import check_writable, publish, sha256_of, run_in_parallel, staging
from ..layout import AFFINE, METRICS, PREPROCESSED, check_other_record
from ..provenance import versions
from ..space.formats import write_affine
from ..space.grid import Grid
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
    """A scan on its way to the network, step by step.

    Args:
        scan: as it was read.
        found: the brain, the bias field and the place of it.
        conformed: the scan at 1 mm on 256³ voxels, its bias removed if that was estimated.
        aligned: the brain in MNI152 space.
        labels: those of the scan, on the aligned grid.
        record: what ``preprocess.json`` holds.
    """

    scan: Scan
    found: Examination
    conformed: Volume
    aligned: Volume
    labels: Volume | None
    record: dict[str, Any]

    def brain_mask(self, on: Grid) -> Volume:
        """The brain, on any grid in the scan's space: 1 inside, 0 outside, uint8."""
        return self.scan.brain_mask(self.found, on)

    def save(self, folder: str | os.PathLike[str], *, overwrite: bool = False) -> list[Path]:
        """Write all outputs: each whole, ``preprocess.json`` last.

        Returns:
            The files, in a fixed order.

        Raises:
            InputError: a file of one of these names is there and ``overwrite`` is false, or
                the folder cannot be written.
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
            jobs.append(partial(write_affine, self.found.template_to_scan, stage / AFFINE))
            run_in_parallel(jobs)
            self.record["outputs"] = {
                name: sha256_of(stage / name) for name in OUTPUTS if (stage / name).exists()
            }
            (stage / RECORD).write_text(json.dumps(self.record, indent=2) + "\n")
            return publish(stage, folder, OUTPUTS)


def check_output(folder: Path, *, overwrite: bool) -> None:
    """Make sure, before anything costs time, that the outputs can be written to ``folder``.

    Raises:
        InputError: it is no folder, holds outputs already, or cannot be written.
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
    """Conform, correct the bias field, extract the brain, align it with MNI152, crop, scale.

    The aligned brain and labels are interpolated once, from the scan itself.

    Args:
        scan: a head or a brain, of any size, spacing and orientation.
        labels: label map on its grid, carried along by nearest neighbour.
        mask: of the brain, on its grid; then none is extracted.
        preparation: of the steps up to the affine alignment.
        crop: to 160×192×224 around the brain; else 256³ voxels.
        normalise: intensities to [0, 1]; else as they are.
        cache: remember what was found in the scan, and look there first.

    Raises:
        InputError: an input is missing or not usable, or there is no brain in the scan.
    """
    read = Scan.read(scan, labels=labels, mask=mask)
    recipe = Recipe()
    found, was_cached = read.examined_or_cached(recipe, preparation, cache=cache)
    grid = recipe.grid
    if not crop:
        grid = grid.crop([(n - CONFORMED) // 2 for n in grid.shape], (CONFORMED,) * 3)
    standard = from_zero(to_canonical(read.image))
    aligned = found.brain_of(standard, grid, found.template_to_scan)
    white = scale(aligned.data, recipe.percentile)
    if normalise:
        aligned = replace(aligned, data=np.clip(aligned.data / white, 0, 1))
    conformed = unbiased(resample(standard, found.window), found.log_bias)
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
        "found": {**found.described(), "from_cache": was_cached, "white": white},
        "grids": {
            "scan": read.grid.described(),
            "conformed": conformed.grid.described(),
            "aligned": grid.described(),
        },
        "warnings": [*read.warnings(found), *_empty(aligned)],
    }
    carried = read.labels and resample(
        read.labels, grid, found.template_to_scan, interpolation="nearest"
    )
    return Preprocessed(read, found, conformed, aligned, carried, record)


def _empty(aligned: Volume) -> list[str]:
    empty = not aligned.data.any()
    return [f"{aligned.name}: the aligned brain is empty: the scan is not there"] if empty else []
