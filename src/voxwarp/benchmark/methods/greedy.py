"""Greedy, by the authors of ITK-SNAP."""

import re
from pathlib import Path
from typing import Any

from ..job import AFFINE_TEXT, Run


def greedy(run: Run) -> None:
    """Greedy with local correlation in windows of 5³ voxels, 100x50x10 iterations."""
    _register(run, "NCC 2x2x2")


def greedy_nmi(run: Run) -> None:
    """Greedy with normalised mutual information, for two contrasts, 100x50x10 iterations."""
    _register(run, "NMI")


def _register(run: Run, metric: str) -> None:
    import picsl_greedy

    job, folder = run.job, run.job.path
    tool = picsl_greedy.Greedy3D()
    common = f"-d 3 -threads {job.threads}"
    run.deform(
        lambda: tool.execute(
            f"{common} -m {metric} -n 100x50x10 -i {_escaped(job.fixed)} {_escaped(job.moving)} "
            f"-it {_escaped(folder / AFFINE_TEXT)} -o {_escaped(folder / 'warp.nii')}"
        )
    )
    with run.meter.stage("inverse"):
        tool.execute(
            f"{common} -iw {_escaped(folder / 'warp.nii')} {_escaped(folder / 'inverse.nii')}"
        )
    warp, inverse = _take_warps(folder / "warp.nii", folder / "inverse.nii")
    run.write(warp, inverse)


def _escaped(path: str | Path) -> str:
    """A path with its special characters escaped, as one word of greedy's command line."""
    return re.sub(r"([^\w/.-])", r"\\\1", str(path))


def _take_warps(*paths: Path) -> list[Any]:
    """Read warps and delete their files, which are not part of the results."""
    from ...space.formats import read_warp

    warps = [read_warp(path) for path in paths]
    for path in paths:
        path.unlink()
    return warps
