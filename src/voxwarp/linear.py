"""Affine registration: SimpleITK's, driven for brains."""

import SimpleITK as sitk

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
    """
    f, m = to_sitk(fixed), to_sitk(moving)
    start = sitk.CenteredTransformInitializer(
        f, m, sitk.AffineTransform(3), sitk.CenteredTransformInitializerFilter.MOMENTS
    )
    method = sitk.ImageRegistrationMethod()
    # One work unit: with several, sums are added in the order threads finish, and bytes differ.
    method.SetNumberOfWorkUnits(1)
    method.SetMetricAsMattesMutualInformation(32)
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentagePerLevel([0.2, 0.05], seed=seed + 1)  # 0 means the clock
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=1.0, minStep=1e-4, numberOfIterations=150, gradientMagnitudeTolerance=1e-6
    )
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([4, 2])
    method.SetSmoothingSigmasPerLevel([2, 1])
    method.SetInitialTransform(start, inPlace=False)
    return from_sitk_affine(method.Execute(f, m))
