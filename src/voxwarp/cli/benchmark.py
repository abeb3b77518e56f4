"""``voxwarp benchmark``: other tools and ours on the same pairs."""

import os
from typing import Annotated

import typer

from ..errors import InputError
from .console import warn
from .options import Device, OverwriteOption
from .pairs import (
    FirstOption,
    KindOption,
    PairsArgument,
    RegionsOption,
    Resampling,
    ResamplingOption,
    RetryOption,
    RowsOption,
    ScanLabelsOption,
    ScanOption,
    SplitOption,
    StructuresOption,
    pairs_of,
    protocol_for,
    told,
)


def benchmark(
    pairs: PairsArgument,
    *,
    out: RowsOption,
    methods: Annotated[
        str | None,
        typer.Option(
            help="With commas: affine, ants-syn, ants-syncc, greedy, elastix, convexadam, names "
            "of models, NAME=WEIGHTS, NAME=MODULE:FUNCTION; +refine behind a model refines its "
            "answers.",
            show_default="the first ones but ants-syncc, which takes an hour a pair, and default",
        ),
    ] = None,
    threads: Annotated[
        int,
        typer.Option(help="That each method may use; 0: one a core.", min=0),
    ] = 0,
    limit: Annotated[float, typer.Option(help="Seconds for a pair.", min=1)] = 3600.0,
    busy: Annotated[
        bool, typer.Option("--busy", help="Other work is running: leave times out of tables.")
    ] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the warps (60 MB a pair).")] = False,
    retry: RetryOption = False,
    split: SplitOption = "test",
    kind: KindOption = "all",
    scan: ScanOption = None,
    labels: ScanLabelsOption = None,
    structures: StructuresOption = None,
    regions: RegionsOption = None,
    resampling: ResamplingOption = Resampling.nearest,
    first: FirstOption = None,
    device: Annotated[Device, typer.Option(help="Where networks run.")] = Device.cpu,
    overwrite: OverwriteOption = False,
) -> int:
    """Run other registration methods and ours on the same pairs, from the same affine map."""
    from ..benchmark.entries import USUAL, entries
    from ..benchmark.run import RunOptions
    from ..benchmark.run import benchmark as run

    words = [w.strip() for w in methods.split(",")] if methods else list(USUAL)
    found, skipped = entries(words)
    warn([f"{name} is skipped: {why}" for name, why in skipped.items()])
    if not found:
        raise InputError("methods: none of them can be run here")
    chosen = pairs_of(pairs, split, scan, labels, kind, first)
    rows = run(
        chosen,
        found,
        out,
        protocol=protocol_for(pairs, chosen, structures, regions, resampling),
        options=RunOptions(
            threads=threads or _cores(),
            limit=limit,
            alone=not busy,
            device=device.value,
            keep=keep,
        ),
        overwrite=overwrite,
        retry=retry,
        progress=typer.echo,
    )
    return told(rows, out)


def _cores() -> int:
    """Those that this process may use, which on shared machines are not all."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
