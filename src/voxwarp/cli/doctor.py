"""``voxwarp doctor``: whether the installation works."""

from typing import Annotated

import typer

from ..errors import InputError
from .console import DONE, answer, stages


def doctor(
    self_test: Annotated[
        bool,
        typer.Option(
            "--self-test/--no-self-test",
            help="Register an image whose deformation is known, which takes some ten seconds.",
        ),
    ] = True,
) -> int:
    """Check the installation, and print what a report of a problem should include.

    Versions, processor, GPUs, compiled kernels, folders, models and their hashes, and a
    registration with a known answer. The exit code is 2 if something is wrong.

    Examples:
    voxwarp doctor
    voxwarp doctor --no-self-test --json
    """
    from ..doctor.examination import examine

    with stages() as progress:
        found = examine(with_self_test=self_test, progress=progress)
    answer(found.lines(), found.record())
    if found.problems:
        number = len(found.problems)
        raise InputError(
            f"{number} problem{'s were' if number > 1 else ' was'} found: {found.problems[0]}"
        )
    return DONE
