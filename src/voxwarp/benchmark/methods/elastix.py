"""elastix: a B-spline transform."""

from typing import TYPE_CHECKING, Any

import numpy as np

from ...layout import AFFINE
from ..job import AFFINE_ELASTIX, Run

if TYPE_CHECKING:
    from ...space.transform import Warp


def elastix(run: Run) -> None:
    """Elastix's default B-spline: mutual information, control points every 10 mm, no inverse."""
    import itk

    job, place = run.job, run.job.place
    with run.meter.stage("read"):
        fixed, moving = (itk.imread(path, itk.F) for path in (job.fixed, job.moving))
        parameters = itk.ParameterObject.New()
        settings = parameters.GetDefaultParameterMap("bspline")
        settings["WriteResultImage"] = ("false",)  # the moved image, which everybody makes alike
        parameters.AddParameterMap(settings)

    def stage() -> Any:
        # Threads are those of the environment: number_of_threads= is a segmentation fault (0.25.4).
        _, found = itk.elastix_registration_method(
            fixed,
            moving,
            parameter_object=parameters,
            initial_transform_parameter_file_name=str(place / AFFINE_ELASTIX),
            log_to_console=False,
        )
        return itk.array_from_image(itk.transformix_deformation_field(moving, found))

    run.write(_residual(run, run.deform(stage)))


def _residual(run: Run, whole: "np.ndarray") -> "Warp":
    """W of the map x ↦ A(W(x)) whose displacements (Z, Y, X, 3), LPS mm, elastix tells."""
    from ...space.formats import lps, read_affine
    from ...space.transform import Warp
    from ...space.volume import read_volume

    grid, start = read_volume(run.job.fixed).grid, read_affine(run.job.place / AFFINE)
    nodes = grid.nodes()
    moved = start.inverse().map(nodes + lps(np.moveaxis(whole, (0, 1, 2), (2, 1, 0))))
    return Warp(np.ascontiguousarray(np.moveaxis(moved - nodes, -1, 0), np.float32), grid)
