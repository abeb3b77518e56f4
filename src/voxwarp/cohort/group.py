"""The group level: one table of all metrics, and the mean and spread of the scans in the space."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from .._files import write_bytes
from .._json import read_json
from ..errors import InputError
from .bids_names import BidsName
from .derivatives import write_json
from .pages import NOT_KNOWN, Pages, Row, number_text

TABLE = "group_T1w.tsv"
FOLDER = "group"
# The parts of a record whose numbers are columns.
_PARTS = ("quality", "similarity", "jacobian", "dice", "preparation.moving", "unsure_share")
_LEFT_OUT = "template_to_scan"


def write_group(rows: Sequence[Row], out: Path, pages: Pages) -> list[Path]:
    """Write the table of all metrics, and the mean and standard deviation of the warped scans.

    The intensities of each scan are divided by their median in the brain first, because those of
    MRI have no unit.

    Args:
        rows: of the scans; those that failed are left out.
        out: the folder of the derivatives.
        pages: of the folder, for the flags.

    Returns:
        The files.

    Raises:
        InputError: a file is damaged, or cannot be written; or the results are in several spaces.
    """
    table, done = out / TABLE, [row for row in rows if row.record is not None]
    write_bytes(table, _table(done, pages).encode())
    return [table, *_write_images(done, out, _space_of(done, out))]


def _space_of(rows: Sequence[Row], out: Path) -> str:
    spaces = sorted({row.space for row in rows})
    if len(spaces) != 1:
        raise InputError(f"output {out}: its results are in several spaces ({', '.join(spaces)})")
    return spaces[0]


def _table(rows: Sequence[Row], pages: Pages) -> str:
    numbers = [_numbers(_read(row.record)) for row in rows if row.record is not None]
    columns = list(dict.fromkeys(name for own in numbers for name in own))
    names, flags = ("bids_name", "participant_id", "session_id"), pages.flags()
    lines = ["\t".join([*names, *columns, "flags"])]
    for row, own in zip(rows, numbers, strict=True):
        cells = [number_text(own.get(column)) for column in columns]
        flagged = ",".join(flags[row.result.name]) or NOT_KNOWN
        lines.append("\t".join([*row.names, *cells, flagged]))
    return "\n".join([*lines, ""])


def _read(path: Path) -> Mapping[str, Any]:
    try:
        record = read_json(path)
    except (OSError, ValueError) as error:
        raise InputError(f"result {path}: its record cannot be read ({error})") from error
    return record if isinstance(record, dict) else {}


def _numbers(record: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a record, by names such as jacobian_folds."""
    found: dict[str, float] = {}
    for part in _PARTS:
        value: Any = record
        for name in part.split("."):
            value = value.get(name) if isinstance(value, Mapping) else None
        found.update(_leaves(value, part.rpartition(".")[2]))
    found["warnings"] = len(record.get("warnings") or ())
    return found


def _leaves(value: Any, name: str) -> Iterator[tuple[str, float]]:
    if isinstance(value, Mapping):
        for inner, part in value.items():
            if inner != _LEFT_OUT:
                yield from _leaves(part, f"{name}_{inner}")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield name, float(value)


def _beside(row: Row, suffix: str, desc: str) -> Path:
    """An image in the space, in the folder of the record."""
    assert row.record is not None
    name = BidsName.of(row.record)
    assert name is not None
    name = replace(name, suffix=suffix, extension=".nii.gz").with_entities(desc=desc)
    return row.record.with_name(str(name))


def _write_images(rows: Sequence[Row], out: Path, space: str) -> list[Path]:
    from ..space.volume import Volume, read_series, write_volume

    mean = spread = grid = None
    warped = [_beside(row, "T1w", "preproc") for row in rows]
    for number, (row, path) in enumerate(zip(rows, warped, strict=True), 1):
        image = read_series(path, "warped scan")
        mask = read_series(_beside(row, "mask", "brain"), "mask")
        if mean is None or spread is None or grid is None:
            grid = image.grid
            mean, spread = (np.zeros(grid.shape, np.float32) for _ in range(2))
        if image.grid != grid:
            raise InputError(
                f"warped scan {image.name}: it is on another grid than the first one; register the "
                f"cohort again"
            )
        inside = image.data[mask.data != 0]
        scaled = (image.data / max(float(np.median(inside)) if inside.size else 1.0, 1e-6)).astype(
            np.float32
        )
        # Welford, doi:10.1080/00401706.1962.10490022: one scan in memory at a time
        difference = scaled - mean
        mean += difference / np.float32(number)
        spread += difference * (scaled - mean)
    if mean is None or spread is None or grid is None:
        return []
    files = []
    deviation = np.sqrt(spread / max(1, len(rows) - 1))
    sources = [f"bids::{path.relative_to(out).as_posix()}" for path in warped]
    for desc, data in (("mean", mean), ("std", deviation)):
        path = out / FOLDER / f"space-{space}_desc-{desc}_T1w.nii.gz"
        write_volume(Volume(data, grid, str(path)), path)
        about = {
            "Description": f"{desc} over {len(rows)} scans, each divided by its median in the "
            f"brain",
            "Sources": sources,
            "SpatialReference": space,
        }
        write_json(about, path.with_name(path.name.replace(".nii.gz", ".json")))
        files.append(path)
    return files
