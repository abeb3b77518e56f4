"""Names of the files in the folders of results, as users of ANTs know them."""

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
REPORT = "report.html"
#: The records of ``register`` and ``preprocess``: a folder that has one holds that result.
METRICS, PREPROCESSED = "metrics.json", "preprocess.json"

#: What ``register`` writes, its record last.
REGISTERED = (
    *(AFFINE, WARP, INVERSE_WARP, WARPED, INVERSE_WARPED, WARPED_LABELS),
    *(MOVING_MASK, FIXED_MASK, WARPED_MASK, REPORT, METRICS),
)


def check_other_record(folder: Path, record: str) -> None:
    """Refuse a folder with the results of another command, since both write an affine.

    Raises:
        InputError: that command's record is there.
    """
    if (folder / record).exists():
        raise InputError(
            f"output {folder}: it holds results of another command ({record}): use another folder"
        )
