"""ANTs: SyN with the defaults of antspyx, as in the paper, and as in antsRegistrationSyN.sh."""

from typing import Any

from ..._layout import AFFINE
from ..job import Run


def ants_syn(run: Run) -> None:
    """ANTs SyN with the defaults of antspyx: mutual information, 40x20x0 iterations, step 0.2."""
    _ants(run)


def ants_syncc(run: Run) -> None:
    """ANTs SyN as in the paper (CVPR 2018): CC, step 0.25, Gaussians 9 and 0.2, 3 × 201."""
    _ants(
        run,
        syn_metric="CC",
        syn_sampling=4,
        reg_iterations=(201, 201, 201),
        grad_step=0.25,
        flow_sigma=9,
        total_sigma=0.2,
    )


def ants_syncc_100x70x50x20(run: Run) -> None:
    """ANTs SyN with CC as in antsRegistrationSyN.sh: step 0.1, Gaussians 3 and 0, 4 levels."""
    _ants(
        run,
        syn_metric="CC",
        syn_sampling=4,
        reg_iterations=(100, 70, 50, 20),
        grad_step=0.1,
        flow_sigma=3,
        total_sigma=0,
    )


def _ants(run: Run, **options: Any) -> None:
    import ants

    folder = run.job.path
    with run.meter.stage("read"):
        fixed, moving = (ants.image_read(path) for path in (run.job.fixed, run.job.moving))
    run.deform(
        lambda: ants.registration(
            fixed,
            moving,
            type_of_transform="SyNOnly",
            initial_transform=[str(folder / AFFINE)],
            outprefix=f"{folder}/",
            random_seed=1,
            **options,
        )
    )
    run.write()
