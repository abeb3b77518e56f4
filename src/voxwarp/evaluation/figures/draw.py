"""All tables and figures of a comparison, as files."""

import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ..._files import write_bytes
from ...errors import InputError
from ..captions import speed_caption, table_caption
from ..markdown import markdown
from ..results import Results, check_method
from ..rows import Row, read_rows, to_csv
from ..tables import table
from ..times import speed
from .boxplots import figure5
from .dice_against_time import dice_against_time
from .rescans import rescans
from .style import Drawing, styled
from .trainings import LEARNING_COLUMNS, learning_curves, smoothness, training_set


class _Item(NamedTuple):
    caption: str
    files: dict[str, bytes]  # by their ending


def draw(
    folders: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    learning: str | os.PathLike[str] | None = None,
    reference: str | None = None,
) -> list[Path]:
    """Make every table and figure for which there are rows.

    Tables are written as CSV and Markdown, figures as PNG and SVG, captions as ``captions.md``.
    The same rows give the same bytes. If labels were resampled linearly, the file names say so:
    ``table1-linear.md``.

    Args:
        folders: folders of results, which are merged (see ``Results.load``); may be empty.
        out: folder for the files.
        learning: rows of trainings, as in benchmarks/learning.csv.
        reference: the method that others are compared with; by default the first that deforms.

    Returns:
        The files in the order of ``captions.md``, which comes last.

    Raises:
        InputError: there is nothing to draw, a file of rows is wrong, the reference has no rows,
            matplotlib is not installed, or a file cannot be written.
    """
    items = dict(_items(folders, learning, reference))
    if not items:
        if not folders and learning is None:
            raise InputError(
                "rows: nothing to draw; give folders of evaluate or benchmark, or `learning`"
            )
        where = ", ".join(map(str, filter(None, (*folders, learning))))
        raise InputError(
            f"rows {where}: nothing to draw, because no pair has the status ok and no training has "
            "a row"
        )
    captions = "\n\n".join(f"**{name}.** {item.caption}" for name, item in items.items())
    files = {f"{n}.{end}": payload for n, i in items.items() for end, payload in i.files.items()}
    files["captions.md"] = f"# Captions\n\n{captions}\n".encode()
    for name, payload in files.items():  # written only once all were made without an error
        write_bytes(Path(out) / name, payload)
    return [Path(out) / name for name in files]


def _items(
    folders: Sequence[str | os.PathLike[str]],
    learning: str | os.PathLike[str] | None,
    reference: str | None,
) -> Iterator[tuple[str, _Item]]:
    results = Results.load(folders)
    if folders and reference is not None:
        check_method(results, reference)
    for labels in results.labels:
        part, ending = results.with_labels(labels), "" if labels == "nearest" else f"-{labels}"
        for name, item in _of_results(part, reference if reference in part.methods else None):
            yield name + ending, item
    if learning is not None:
        rows = read_rows(learning, LEARNING_COLUMNS, text=("experiment", "network", "subjects"))
        yield from _drawn("smoothness", smoothness(rows)).items()
        yield from _drawn("training_set", training_set(rows)).items()
        yield from _drawn("learning", learning_curves(rows)).items()


def _of_results(results: Results, reference: str | None) -> Iterator[tuple[str, _Item]]:
    for name, kind in (("table1", "inter"), ("retest", "retest")):
        if rows := table(results, kind, reference=reference):
            yield name, _tabled(rows, table_caption(results, kind, reference=reference))
    if rows := speed(results, reference=reference):
        yield "speed", _tabled(rows, speed_caption(rows))
    yield from _drawn("figure5", figure5(results, reference=reference)).items()
    yield from _drawn("dice_against_time", dice_against_time(results)).items()
    yield from _drawn("rescans", rescans(results)).items()


def _tabled(rows: Sequence[Row], caption: str) -> _Item:
    written = f"{caption}\n\n{markdown(rows)}".encode()
    return _Item(caption, {"csv": to_csv(tuple(rows[0]), rows), "md": written})


@styled()
def _drawn(name: str, drawing: Drawing | None) -> dict[str, _Item]:
    if drawing is None:
        return {}
    files = {}
    for ending, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
        stream = io.BytesIO()
        drawing.figure.savefig(stream, format=ending, dpi=150, metadata=metadata)
        files[ending] = stream.getvalue()
    return {name: _Item(drawing.caption, files)}
