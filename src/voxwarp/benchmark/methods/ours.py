"""What voxwarp does itself: the affine map alone, and networks."""

from typing import TYPE_CHECKING

import numpy as np

from ...errors import InputError
from ..job import Run
from ..weights import load_model

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

    from ...device import device_name, torch_device
    from ...preparation.examination import Examination
    from ...preparation.scan import Scan, prepare_scans
    from ...registration.deform import compute_deformation, on_fixed_grid, without_folds
    from ...space.transform import Affine, Warp
    from ...space.volume import read_volume

    job = run.job
    torch.set_num_threads(job.threads)
    device = torch_device(job.device)
    with run.meter.stage("read"):
        model = load_model(str(job.weights))
        if job.weights_sha256 not in ("", model.sha256):
            raise InputError(f"model {job.weights}: its weights have changed meanwhile")
        model.network.to(device)
        images = read_volume(job.fixed), read_volume(job.moving)
    brain = images[0].data != 0
    poses = [Affine(np.array(pose)) for pose in (job.template_to_fixed, job.template_to_moving)]

    def stage() -> list[Warp | None]:
        # Scans of their own each time: what one remembers would cost nothing the second time.
        scans = [Scan(image) for image in images]
        found = [
            Examination("brain", image.grid, pose)
            for image, pose in zip(images, poses, strict=True)
        ]
        f, m = prepare_scans(model.recipe, *zip(scans, found, strict=True))
        answer = compute_deformation(
            model, moving=m, fixed=f, device=device, refinement=refinement, invert=False
        )
        ways = (u for u in (answer.displacement, answer.inverse) if u is not None)
        warp, *inverse = on_fixed_grid(ways, model, f, images[0].grid)
        back = inverse[0] if inverse else None
        if refinement or model.capabilities.is_descent:
            warp, back = without_folds(warp, back, brain)
        return [warp, back]

    run.device = device_name(device)
    run.write(*run.deform(stage))
