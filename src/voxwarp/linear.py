"""Affine registration: SimpleITK's, driven for brains."""

import SimpleITK as sitk

from .errors import InputError
from .formats import from_sitk_affine, to_sitk
from .transform import Affine
from .volume import Volume


def register_affine(fixed: Volume, moving: Volume, *, seed: int = 0) -> Affine:
    """The affine map from ``fixed`` to ``moving`` of largest Mattes mutual information.

    Starts from the centres of mass, so the scans should be brain-extracted; two resolutions.

    Args:
        fixed, moving: 3-D volumes on any orthogonal grids.
        seed: of the random voxels that the metric looks at.

    Returns:
        fixed → moving, RAS mm.

    Raises:
        InputError: SimpleITK finds nothing to align, in a scan of too few voxels for example.
    """
    f, m = _halved(fixed), _halved(moving)
    method = sitk.ImageRegistrationMethod()
    # One work unit: the result depends, by some hundredths of a mm, on how many there are.
    method.SetNumberOfWorkUnits(1)
    method.SetMetricAsMattesMutualInformation(32)
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentagePerLevel([0.2, 0.05], seed=seed + 1)  # 0 means the clock
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=1.0, minStep=1e-3, numberOfIterations=150, gradientMagnitudeTolerance=1e-6
    )
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([2, 1])  # 4 and 2 mm
    method.SetSmoothingSigmasPerLevel([2, 1])
    moments = sitk.CenteredTransformInitializerFilter.MOMENTS
    try:
        start = sitk.CenteredTransformInitializer(f, m, sitk.AffineTransform(3), moments)
        method.SetInitialTransform(start, inPlace=False)
        return from_sitk_affine(method.Execute(f, m))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise InputError(
            f"{moving.name}: no affine alignment with {fixed.name} ({reason})"
        ) from error


def _halved(volume: Volume) -> sitk.Image:
    """The volume averaged down to about 2 mm: smoothing 1 mm images would cost half of the time."""
    image = to_sitk(volume)
    factors = [max(1, round(2 / spacing)) for spacing in image.GetSpacing()]
    # The metric needs a few voxels along each axis to take gradients from.
    enough = [max(1, size // 4) for size in image.GetSize()]
    return sitk.BinShrink(image, [min(pair) for pair in zip(factors, enough, strict=True)])
