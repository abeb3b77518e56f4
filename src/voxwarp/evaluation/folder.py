"""A folder of results, whose rows share their settings."""

import os
from pathlib import Path
from typing import Any

from .._files import check_readable, check_writable
from ..errors import InputError
from .record import finite, read_record
from .result_files import ResultFiles
from .rows import PAIRS, STRUCTURES


def open_results(out: Path, name: str, settings: dict[str, Any], *, overwrite: bool) -> ResultFiles:
    """Open the result files of a folder, if its rows were made with the same settings.

    Args:
        out: folder of the results.
        name: file name of the record in it.
        settings: what all rows of a folder must share, as in the record.
        overwrite: delete earlier rows.

    Raises:
        InputError: the folder holds rows made by another command or with other settings, or it
            cannot be written.
    """
    check_writable(out)
    if (out / PAIRS).exists() and not (out / name).exists():
        raise InputError(
            f"output {out}: holds {PAIRS} but no {name}, so another command wrote it; use another "
            "folder"
        )
    for file in (PAIRS, STRUCTURES, name):
        if overwrite:
            (out / file).unlink(missing_ok=True)
        elif os.path.lexists(out / file):  # what a dead link stands for would be replaced
            check_readable(out / file, "output")
    if (out / name).exists():
        before = read_record(out / name)
        changed = [key for key, value in finite(settings).items() if before.get(key) != value]
        if changed:
            raise InputError(
                f"output {out}: holds rows made with different {' and '.join(changed)}; start "
                "again with `overwrite`, or use another folder"
            )
    return ResultFiles.open(out)
