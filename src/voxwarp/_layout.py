"""File names in result folders, as users of ANTs know them."""

import os
from pathlib import Path

from .errors import InputError

AFFINE, WARP, INVERSE_WARP = "0GenericAffine.mat", "1Warp.nii.gz", "1InverseWarp.nii.gz"
WARPED, INVERSE_WARPED, WARPED_LABELS = (
    "Warped.nii.gz",
    "InverseWarped.nii.gz",
    "WarpedLabels.nii.gz",
)
MOVING_MASK, FIXED_MASK, WARPED_MASK = (
    "MovingBrainMask.nii.gz",
    "FixedBrainMask.nii.gz",
    "WarpedBrainMask.nii.gz",
)
WARPED_LESION = "WarpedLesionMask.nii.gz"
#: Both of the above in one file of ITK each, as antsRegistration names them.
COMPOSITE, INVERSE_COMPOSITE = "Composite.h5", "InverseComposite.h5"
REPORT = "report.html"
#: The records of ``register`` and ``preprocess``; the record shows whose result a folder holds.
METRICS, PREPROCESSED = "metrics.json", "preprocess.json"

#: The files that ``register`` writes, its record last.
REGISTERED = (
    *(AFFINE, WARP, INVERSE_WARP, COMPOSITE, INVERSE_COMPOSITE),
    *(WARPED, INVERSE_WARPED, WARPED_LABELS),
    *(MOVING_MASK, FIXED_MASK, WARPED_MASK, WARPED_LESION, REPORT, METRICS),
)


def check_other_record(folder: Path, record: str) -> None:
    """Refuse to write into a result folder of another command, because both write an affine.

    Args:
        folder: the output folder.
        record: the record of the other command.

    Raises:
        InputError: the folder has that record.
    """
    if os.path.lexists(folder / record):
        raise InputError(
            f"output {folder}: the folder holds results of another command ({record}); "
            f"choose another folder"
        )
