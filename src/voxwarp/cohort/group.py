"""The group level: one table of all metrics, and the mean and spread of the scans in the space."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .._files import write_bytes
from .._json import read_json
from ..errors import InputError
from .dataset import CohortScan
from .derivatives import record_path, result_name, warped_path, write_json
from .pages import Pages, names_of, number_text

TABLE = "group_T1w.tsv"
FOLDER = "group"
# The parts of a record whose numbers are columns.
_PARTS = ("quality", "similarity", "jacobian", "dice", "preparation.moving", "unsure_share")
_LEFT_OUT = "template_to_scan"


def write_group(scans: Sequence[CohortScan], out: Path, space: str, pages: Pages) -> list[Path]:
    """Write the table of all metrics, and the mean and standard deviation of the warped scans.

    The intensities of each scan are divided by their median in the brain first, because those of
    MRI have no unit.

    Args:
        scans: with results.
        out: the folder of the derivatives.
        space: the name of the space.
        pages: of the folder, for the flags.

    Returns:
        The files.

    Raises:
        InputError: a file is damaged, or cannot be written.
    """
    table = out / TABLE
    write_bytes(table, _table(scans, out, space, pages).encode())
    return [table, *_write_images(scans, out, space)]


def _table(scans: Sequence[CohortScan], out: Path, space: str, pages: Pages) -> str:
    rows = [_numbers(read_json(out / record_path(scan, space))) for scan in scans]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    names, flags = ("bids_name", "participant_id", "session_id"), pages.flags()
    lines = ["\t".join([*names, *columns, "flags"])]
    for scan, row in zip(scans, rows, strict=True):
        cells = [number_text(row.get(column)) for column in columns]
        lines.append("\t".join([*names_of(scan), *cells, ",".join(flags[scan.key]) or "n/a"]))
    return "\n".join([*lines, ""])


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


def _write_images(scans: Sequence[CohortScan], out: Path, space: str) -> list[Path]:
    from ..space.volume import Volume, read_series, write_volume

    mean = spread = grid = None
    for number, scan in enumerate(scans, 1):
        image = read_series(out / warped_path(scan, space), "warped scan")
        mask = read_series(
            out / result_name(scan, "mask", ".nii.gz", space=space, desc="brain"), "mask"
        )
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
    deviation = np.sqrt(spread / max(1, len(scans) - 1))
    sources = [f"bids::{warped_path(scan, space).as_posix()}" for scan in scans]
    for desc, data in (("mean", mean), ("std", deviation)):
        path = out / FOLDER / f"space-{space}_desc-{desc}_T1w.nii.gz"
        write_volume(Volume(data, grid, str(path)), path)
        about = {
            "Description": f"{desc} over {len(scans)} scans, each divided by its median in the "
            f"brain",
            "Sources": sources,
            "SpatialReference": space,
        }
        write_json(about, path.with_name(path.name.replace(".nii.gz", ".json")))
        files.append(path)
    return files
