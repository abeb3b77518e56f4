"""The methods of voxwarp: the affine map alone, and models."""

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
    identity = run.deform(lambda: Warp(np.zeros((3, *grid.shape), np.float32), grid))
    run.write(identity, identity)


def network(run: Run) -> None:
    """A model of voxwarp, or the weights that the paper's authors published."""
    _register(run, None)


def refined(run: Run) -> None:
    """A model of voxwarp, then a refinement for the pair, as in ``register --refine``."""
    from ...networks.refine import Refinement

    _register(run, Refinement())


def _register(run: Run, refinement: "Refinement | None") -> None:
    import torch

    from ..._device import device_name, torch_device
    from ...preparation.examination import Examination
    from ...preparation.scan import Scan, prepare_scans
    from ...registration.deform import compute_deformation, inverted, on_fixed_grid, without_folds
    from ...space.transform import Affine, Warp
    from ...space.volume import read_volume

    job = run.job
    torch.set_num_threads(job.threads)
    device = torch_device(job.device)
    with run.meter.stage("read"):
        model = load_model(str(job.weights))
        for part, before, now in (
            ("weights", job.weights_sha256, model.sha256),
            ("settings", job.settings_sha256, model.settings_sha256),
        ):
            if before not in ("", now):
                raise InputError(
                    f"model {job.weights}: its {part} have changed since the benchmark started; if "
                    "a training still writes to the folder, give a copy of it"
                )
        model.network.to(device)
        images = read_volume(job.fixed), read_volume(job.moving)
    brain = images[0].data != 0
    matrices = job.template_to_fixed, job.template_to_moving
    affines = [Affine(np.array(matrix)) for matrix in matrices]

    def stage() -> list[Warp]:
        # New scans for each repetition, because a scan caches what was computed from it.
        scans = [Scan(image) for image in images]
        examinations = [
            Examination("brain", image.grid, affine)
            for image, affine in zip(images, affines, strict=True)
        ]
        f, m = prepare_scans(model.recipe, *zip(scans, examinations, strict=True))
        answer = compute_deformation(model, moving=m, fixed=f, device=device, refinement=refinement)
        warp = on_fixed_grid(answer.displacement, model, f, images[0].grid)
        if refinement or model.capabilities.is_descent:
            warp = without_folds(warp, brain)
        return [warp, inverted(warp)]

    run.device = device_name(device)
    run.write(*run.deform(stage))
