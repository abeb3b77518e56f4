"""``voxwarp benchmark``: other registration tools and voxwarp on the same pairs."""

import os
from typing import Annotated

import typer

from ..errors import InputError
from . import options, pair_options
from .console import echo, warn
from .options import COMPUTING, OUTPUT
from .pair_options import pairs_of, print_summary, protocol_for, warn_of_headers


def benchmark(
    pairs: pair_options.Pairs,
    *,
    methods: Annotated[
        str | None,
        typer.Option(
            help="Methods, separated by commas: affine, ants-syn, ants-syncc, "
            "ants-syncc-100x70x50x20, greedy, elastix, convexadam, syntx; names of models; "
            "NAME=WEIGHTS (folder of a model, or Keras weights); NAME=MODULE:FUNCTION. "
            "MODEL+refine refines the results of a model.",
            metavar="LIST",
            show_default="affine, ants-syn, greedy, elastix, convexadam, default",
            rich_help_panel="Methods",
        ),
    ] = None,
    limit: Annotated[
        float,
        typer.Option(
            help="Stop a method that takes longer than this for a pair.",
            metavar="SECONDS",
            min=1,
            rich_help_panel="Methods",
        ),
    ] = 3600.0,
    split: pair_options.Split = "test",
    kind: pair_options.Kind = "all",
    scan: pair_options.ScanPattern = None,
    labels: pair_options.LabelsPattern = None,
    first: pair_options.First = None,
    structures: pair_options.Structures = None,
    regions: pair_options.Regions = None,
    resampling: pair_options.Resampling = pair_options.ResamplingName.nearest,
    out: pair_options.OutFolder,
    keep: Annotated[
        bool,
        typer.Option(
            "--keep", help="Keep the warps: 60 MB per pair and method.", rich_help_panel=OUTPUT
        ),
    ] = False,
    retry: pair_options.Retry = False,
    overwrite: pair_options.Overwrite = False,
    device: options.Device = options.DeviceName.cpu,
    threads: Annotated[
        int,
        typer.Option(
            help="Number of CPU threads of each method; 0 for all cores of this process.",
            metavar="N",
            min=0,
            rich_help_panel=COMPUTING,
        ),
    ] = 0,
    busy: Annotated[
        bool,
        typer.Option(
            "--busy",
            help="Other work is running on this machine: keep times out of tables and figures.",
            rich_help_panel=COMPUTING,
        ),
    ] = False,
) -> int:
    """Run voxwarp and other registration tools on the same pairs, from the same affine alignment.

    Methods run one at a time, each in its own process. A method that is not installed is skipped
    with a warning (pip install 'voxwarp[benchmark]' installs them); one that fails leaves a row
    that says why, and the exit code is 3. Results are in pairs.csv and structures.csv; voxwarp
    figures draws them.

    Examples:
    voxwarp benchmark pairs.csv -o bench --methods affine,ants-syn,default
    voxwarp benchmark pairs.csv -o bench --methods greedy,mine=runs/my,default
    voxwarp figures bench -o figures
    """
    from ..benchmark.run import RunOptions
    from ..benchmark.run import benchmark as run
    from ..benchmark.selection import DEFAULT_METHODS, select_methods

    names = [name.strip() for name in methods.split(",")] if methods else list(DEFAULT_METHODS)
    available, skipped = select_methods(names)
    warn([f"method {name} is skipped: {reason}" for name, reason in skipped.items()])
    if not available:
        raise InputError("methods: none of them can run here; the warnings say what is missing")
    chosen = pairs_of(pairs, split, scan, labels, kind, first)
    warn_of_headers(chosen)
    rows = run(
        chosen,
        available,
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
        progress=echo,
    )
    return print_summary(rows, out)


def _cores() -> int:
    """The cores that this process may use; on shared machines that can be some of them."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
