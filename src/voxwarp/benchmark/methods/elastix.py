"""elastix: a B-spline transform."""

from typing import TYPE_CHECKING, Any

import numpy as np

from ..._layout import AFFINE
from ..job import AFFINE_ELASTIX, Run

if TYPE_CHECKING:
    from ...space.transform import Warp


def elastix(run: Run) -> None:
    """The default B-spline of elastix: mutual information, control points every 10 mm."""
    import itk

    job = run.job
    with run.meter.stage("read"):
        fixed, moving = (itk.imread(path, itk.F) for path in (job.fixed, job.moving))
        parameters = itk.ParameterObject.New()
        settings = parameters.GetDefaultParameterMap("bspline")
        settings["WriteResultImage"] = ("false",)  # voxwarp resamples for all methods
        parameters.AddParameterMap(settings)

    def stage() -> Any:
        # Environment variables set the threads: number_of_threads= crashes (itk-elastix 0.25.4).
        _, transform = itk.elastix_registration_method(
            fixed,
            moving,
            parameter_object=parameters,
            initial_transform_parameter_file_name=str(job.path / AFFINE_ELASTIX),
            log_to_console=False,
        )
        return itk.array_from_image(itk.transformix_deformation_field(moving, transform))

    run.write(_residual(run, run.deform(stage)))


def _residual(run: Run, displacement: "np.ndarray") -> "Warp":
    """W of the map x ↦ A(W(x)), given by elastix as displacements (Z, Y, X, 3) in LPS mm."""
    from ...space.formats import lps, read_affine
    from ...space.transform import Warp
    from ...space.volume import read_volume

    grid, start = read_volume(run.job.fixed).grid, read_affine(run.job.path / AFFINE)
    nodes = grid.nodes()
    moved = start.inverse().map(nodes + lps(np.moveaxis(displacement, (0, 1, 2), (2, 1, 0))))
    return Warp(np.ascontiguousarray(np.moveaxis(moved - nodes, -1, 0), np.float32), grid)
