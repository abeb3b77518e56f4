"""The slow change of brightness across a scan that the coil makes, and its removal (N4)."""

from dataclasses import replace

import numpy as np
import SimpleITK as sitk

from ..errors import InputError
from ..space.formats import to_sitk
from ..space.volume import Volume
from .coarse import Coarse

FITTED, KEPT = 6.0, 8.0  # mm: the field is that smooth
ITERATIONS = (50, 50, 30)


def estimate(head: Volume) -> Volume:
    """Logarithm of the multiplicative bias field, by N4 (doi:10.1109/TMI.2010.2046908).

    Args:
        head: intensities from zero; what Otsu's threshold finds dark is left out of the fit.

    Raises:
        InputError: the scan has too few voxels along an axis.

    Returns:
        float32 on a lattice of about 8 mm that covers the head's grid but for half a voxel of 6 mm.
    """
    coarse = Coarse.of(head, FITTED)
    image = to_sitk(Volume(coarse.image[0, 0].numpy(), coarse.grid))
    filter_ = sitk.N4BiasFieldCorrectionImageFilter()
    filter_.SetNumberOfWorkUnits(1)  # the sums, and so the last bits, depend on their number
    filter_.SetMaximumNumberOfIterations(list(ITERATIONS))
    filter_.SetConvergenceThreshold(1e-3)
    try:
        filter_.Execute(image, sitk.OtsuThreshold(image, 0, 1, 200))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise InputError(f"{head.name}: no bias field can be fitted to it ({reason})") from error
    # The filter spreads what it fitted over the extent of its reference, wherever that lies.
    fitted = coarse.grid
    shape = [max(2, round(n * s / KEPT)) for n, s in zip(fitted.shape, fitted.spacing, strict=True)]
    lattice = Volume(np.zeros(shape, np.float32), fitted.resized(shape))
    log = filter_.GetLogBiasFieldAsImage(to_sitk(lattice))
    return replace(lattice, data=sitk.GetArrayFromImage(log).T.astype(np.float32))
