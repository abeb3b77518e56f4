"""The bias field: the slow change of brightness that the coil causes, estimated with N4."""

import math
from dataclasses import replace

import numpy as np
import SimpleITK as sitk

from ..errors import InputError
from ..space.formats import to_sitk
from ..space.volume import Volume
from .coarse import Coarse

# Spacing, mm, at which the field is fitted, and at which it is kept. Set by hand: it is smooth.
FITTED, KEPT = 6.0, 8.0
# Voxels on which it is fitted at most: a head has a tenth of them. Set by hand, because the time
# grows with them, and a scan may be as long as its header says.
MOST_FITTED = 1_000_000
ITERATIONS = (50, 50, 30)  # of N4, at each of its levels; set by hand


def estimate(head: Volume) -> Volume:
    """Estimate the logarithm of the multiplicative bias field (N4, doi:10.1109/TMI.2010.2046908).

    Args:
        head: intensities that start at zero; voxels below Otsu's threshold are left out of the fit.

    Raises:
        InputError: the scan has too few voxels along an axis.

    Returns:
        float32 on a grid of about 8 mm that covers the head, except for up to half a voxel of 6 mm
        at each side.
    """
    coarse = _averaged(head)
    image = to_sitk(Volume(coarse.image[0, 0].numpy(), coarse.grid))
    filter_ = sitk.N4BiasFieldCorrectionImageFilter()
    filter_.SetNumberOfWorkUnits(1)  # the last bits depend on the number of threads
    filter_.SetMaximumNumberOfIterations(list(ITERATIONS))
    filter_.SetConvergenceThreshold(1e-3)
    try:
        filter_.Execute(image, sitk.OtsuThreshold(image, 0, 1, 200))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise InputError(
            f"{head.name}: N4 cannot fit a bias field to it ({reason}); leave the correction "
            f"out with `bias=False`"
        ) from error
    # N4 stretches the field over the extent of the reference image, so that must be the fitted one.
    fitted = coarse.grid
    shape = [max(2, round(n * s / KEPT)) for n, s in zip(fitted.shape, fitted.spacing, strict=True)]
    reference = Volume(np.zeros(shape, np.float32), fitted.resized(shape))
    log = filter_.GetLogBiasFieldAsImage(to_sitk(reference))
    return replace(reference, data=sitk.GetArrayFromImage(log).T.astype(np.float32))


def _averaged(head: Volume) -> Coarse:
    """The head averaged down to ``FITTED``, or further if there are too many voxels."""
    coarse = Coarse.of(head, FITTED)
    too_many = coarse.image.numel() / MOST_FITTED
    if too_many <= 1:
        return coarse
    return Coarse.of(head, math.ceil(too_many ** (1 / 3)) * max(FITTED, *head.grid.spacing))
