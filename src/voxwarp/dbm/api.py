"""Morphometry from Python."""

import os
from collections.abc import Callable
from pathlib import Path

from ..cohort.cluster import Cluster
from ..cohort.run import new_run
from .run import Morphometry, MorphometryRequest, measure_group
from .settings import MorphometrySettings


def morphometry(
    results: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    settings: MorphometrySettings | None = None,
    processors: int | None = None,
    memory: float | None = None,
    progress: Callable[[str], object] | None = None,
) -> Morphometry:
    """Measure where the people of a group differ in shape and size.

    For each scan, maps of the logarithm of the Jacobian determinant of the map from the template to
    the person are written, without the affine map ("relative") and with it ("absolute"); positive
    where the region is larger in the person than in the template. Tables hold the volumes.

    Args:
        results: folder of ``voxwarp cohort`` or of ``build_template``.
        out: folder of the maps and tables; what is there and up to date is kept.
        settings: smoothing, atlas and more; None for those by default.
        processors: to use; all by default.
        memory: to use, bytes; what is free by default.
        progress: called with lines of text.

    Returns:
        The tables, the report, and what could not be measured.

    Raises:
        InputError: the request cannot be met.

    Example:
        >>> import voxwarp
        >>> settings = voxwarp.MorphometrySettings(fwhm=(6.0,))
        >>> settings.fwhm
        (6.0,)
    """
    request = MorphometryRequest(
        results=Path(results),
        out=Path(out),
        settings=settings or MorphometrySettings(),
        cluster=Cluster(processors=processors, memory=memory),
        run=new_run(),
    )
    return measure_group(request, progress or (lambda text: None))
