"""What voxwarp does itself: the affine map alone, and networks."""

from typing import TYPE_CHECKING

import numpy as np

from ...errors import InputError
from ..job import Run
from ..weights import model_of

if TYPE_CHECKING:
    from ...networks.refine import Refinement


def affine(run: Run) -> None:
    """The affine map alone: a field of zeros."""
    from ...space.transform import Warp
    from ...space.volume import read_volume

    grid = read_volume(run.job.fixed).grid
    still = run.deform(lambda: Warp(np.zeros((3, *grid.shape), np.float32), grid))
    run.write(still, still)


def network(run: Run) -> None:
    """A model of voxwarp's, or weights of the paper's authors; an inverse where it has one."""
    _answer(run, None)


def refined(run: Run) -> None:
    """A model of voxwarp's, then its answer refined for the pair, as ``register --refine`` does."""
    from ...networks.refine import Refinement

    _answer(run, Refinement())


def _answer(run: Run, refinement: "Refinement | None") -> None:
    import torch

    from ...device import described, torch_device
    from ...preparation.prepare import Findings
    from ...registration.registration import images_of, on_fixed_grid, prepare_both, without_folds
    from ...space.transform import Affine, Warp
    from ...space.volume import read_volume

    job = run.job
    torch.set_num_threads(job.threads)
    device = torch_device(job.device)
    with run.meter.stage("read"):
        model = model_of(str(job.weights))
        if job.weights_sha256 not in ("", model.sha256):
            raise InputError(f"model {job.weights}: its weights have changed meanwhile")
        model.network.to(device)
        scans = read_volume(job.fixed), read_volume(job.moving)
    poses = [Affine(np.array(pose)) for pose in (job.template_to_fixed, job.template_to_moving)]
    found = [Findings("brain", scan.grid, pose) for scan, pose in zip(scans, poses, strict=True)]

    def stage() -> list[Warp]:
        f, m = prepare_both(model.recipe, *zip(scans, found, strict=True))
        images = images_of(m, f, device)
        deformation = model.deform(*images)
        if refinement:
            deformation = model.refine(*images, deformation, refinement)
        both = deformation.displacement, deformation.inverse
        fields = [u[0].cpu() for u in both if u is not None]
        warp, *inverse = on_fixed_grid(fields, model, f, scans[0].grid)
        if refinement or model.adjustable:
            warp = without_folds(warp, scans[0].data != 0)
        return [warp, *inverse]

    run.device = described(device)
    run.write(*run.deform(stage))
