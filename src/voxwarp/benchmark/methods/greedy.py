"""Greedy, of the makers of ITK-SNAP."""

import re
from pathlib import Path
from typing import Any

from ..job import AFFINE_TEXT, Run


def greedy(run: Run) -> None:
    """Greedy with local correlation in 5³ windows, 100x50x10 steps."""
    import picsl_greedy

    job, place = run.job, run.job.place
    tool = picsl_greedy.Greedy3D()
    same = f"-d 3 -threads {job.threads}"
    run.deform(
        lambda: tool.execute(
            f"{same} -m NCC 2x2x2 -n 100x50x10 -i {_word(job.fixed)} {_word(job.moving)} "
            f"-it {_word(place / AFFINE_TEXT)} -o {_word(place / 'warp.nii')}"
        )
    )
    with run.meter.stage("inverse"):
        tool.execute(f"{same} -iw {_word(place / 'warp.nii')} {_word(place / 'inverse.nii')}")
    warp, inverse = _itk_fields(place / "warp.nii", place / "inverse.nii")
    run.write(warp, inverse)


def _word(path: str | Path) -> str:
    """A path as one word of greedy's command line, spaces and quotes in it or not."""
    return re.sub(r"([^\w/.-])", r"\\\1", str(path))


def _itk_fields(*paths: Path) -> list[Any]:
    from ...space.formats import read_warp

    warps = [read_warp(path) for path in paths]
    for path in paths:
        path.unlink()
    return warps
