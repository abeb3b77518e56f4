"""syntx: symmetric normalisation in PyTorch, by an author of ANTs (Apache-2.0)."""

import sys
from types import ModuleType

from ..._layout import AFFINE
from ..job import Run

# Factors of the fixed scan's voxels, and steps at each. At its default levels, 4, 2 and 1, syntx
# did not finish a pair of 1 mm within half an hour on two cores.
LEVELS, STEPS = (8, 4, 2), (100, 100, 50)


def syntx(run: Run) -> None:
    """The ``syn`` of syntx: its defaults (CC, radius 2, 100x100x50 steps), at half resolution."""
    # syntx 5.4 imports antstorch, which is not on PyPI, for functions that are not used here.
    sys.modules.setdefault("antstorch", ModuleType("antstorch"))
    import ants
    import syntx as package
    import torch

    job = run.job
    torch.set_num_threads(job.threads)
    with run.meter.stage("read"):
        fixed, moving = (ants.image_read(path) for path in (job.fixed, job.moving))
    run.deform(
        lambda: package.registration(
            fixed,
            moving,
            type_of_transform="SyN",
            initial_transform=[str(job.path / AFFINE)],
            levels=list(LEVELS),
            reg_iterations=list(STEPS),
            outprefix=f"{job.path}/",
        )
    )
    run.write()
