"""ConvexAdam: MIND features, a coupled convex optimisation, then Adam."""

import numpy as np

from ..._layout import AFFINE
from ..job import Run


def convexadam(run: Run) -> None:
    """ConvexAdam with MIND features and its defaults, on the affinely moved scan."""
    import torch
    from convexAdam.convex_adam_MIND import convex_adam_pt

    from ...preparation.intensity import from_zero, scaled
    from ...space.formats import read_affine
    from ...space.resample import resample
    from ...space.transform import Warp
    from ...space.volume import read_volume

    job = run.job
    torch.set_num_threads(job.threads)
    with run.meter.stage("read"):
        fixed, moving = (from_zero(read_volume(path)) for path in (job.fixed, job.moving))
    start, grid = read_affine(job.path / AFFINE), fixed.grid

    def stage() -> Warp:
        moved = resample(moving, grid, start)
        images = (255 * scaled(x.data, 99.5).astype(np.float32) for x in (fixed, moved))
        field = convex_adam_pt(*images, dtype=torch.float32, device=torch.device("cpu"))
        return Warp.from_voxels(torch.from_numpy(np.moveaxis(field, -1, 0).copy()).float(), grid)

    # The field resamples the moved scan, which is moving ∘ A, so x + u(x) is W itself.
    run.write(run.deform(stage))
