"""``voxwarp preprocess``: scans on their way to the network, each into a folder of its name."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import InputError
from ..files import without_ending
from .console import DONE, REFUSED, say, stages, warn
from .options import (
    BiasOption,
    BrainExtractOption,
    CacheOption,
    ExtractorOption,
    OverwriteOption,
    StrictOption,
    ThreadsOption,
    preparation_of,
    runtime_of,
)


def preprocess(
    scans: Annotated[list[Path], typer.Argument(help="Heads or brains.", metavar="SCAN...")],
    *,
    out: Annotated[
        Path, typer.Option("-o", "--out", help="Folder; each scan gets a folder of its name in it.")
    ],
    labels: Annotated[
        list[Path] | None,
        typer.Option(help="Label map of the scan, to be carried along; once for each scan."),
    ] = None,
    mask: Annotated[
        list[Path] | None,
        typer.Option(help="Brain mask of the scan; none is extracted then; once for each scan."),
    ] = None,
    conform: Annotated[
        bool | None,
        typer.Option(
            "--conform/--no-conform",
            help="Work at 1 mm on 256 x 256 x 256 voxels.",
            show_default="conform",
        ),
    ] = None,
    bias: BiasOption = None,
    brain_extract: BrainExtractOption = None,
    extractor: ExtractorOption = None,
    affine: Annotated[
        bool | None,
        typer.Option(
            "--affine/--no-affine", help="Align with the MNI152 template.", show_default="affine"
        ),
    ] = None,
    crop: Annotated[bool, typer.Option(help="Crop to 160 x 192 x 224 around the brain.")] = True,
    normalise: Annotated[bool, typer.Option(help="Scale intensities to [0, 1].")] = True,
    cache: CacheOption = None,
    threads: ThreadsOption = None,
    strict: StrictOption = False,
    overwrite: OverwriteOption = False,
) -> int:
    """Conform, correct, extract the brain, align, crop and scale; with the way back."""
    from ..preparation.preprocess import check_output
    from ..preparation.preprocess import preprocess as run

    preparation = preparation_of(brain_extract, extractor, bias, affine, conform)
    runtime = runtime_of(cache=cache, threads=threads)
    jobs = list(
        zip(
            scans,
            _folders(scans, out),
            _one_each(labels, scans, "--labels"),
            _one_each(mask, scans, "--mask"),
            strict=True,
        )
    )
    for _, folder, _, _ in jobs:
        check_output(folder, overwrite=overwrite)
    code = DONE
    for scan, folder, segmentation, brain_mask in jobs:
        try:
            with stages() as progress, runtime.with_threads():
                progress(scan.name)
                result = run(
                    scan,
                    labels=segmentation,
                    mask=brain_mask,
                    preparation=preparation,
                    crop=crop,
                    normalise=normalise,
                    cache=runtime.cache,
                )
                files = result.save(folder, overwrite=overwrite)
        except InputError as error:  # the other scans can be done all the same
            say(f"error: {error}")
            code = REFUSED
            continue
        for file in files:
            typer.echo(file)
        typer.echo(_seen(result.record["found"]))
        warned = warn(result.record["warnings"], strict)
        code = code or warned
    return code


def _folders(scans: list[Path], out: Path) -> list[Path]:
    """A folder of each scan's name."""
    names = [without_ending(scan.name) for scan in scans]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"output {out / name}: two of the scans have this name")
    return [out / name for name in names]


def _one_each(given: list[Path] | None, scans: list[Path], option: str) -> list[Path | None]:
    """The files of an option that is there once for each scan, or not at all."""
    if not given:
        return [None] * len(scans)
    if len(given) != len(scans):
        raise InputError(f"{option}: {len(given)} files for {len(scans)} scans; one each is wanted")
    return list(given)


def _seen(found: Mapping[str, Any]) -> str:
    parts = [f"a {found['seen_as']}"]
    if found["brain_mask_ml"] is not None:
        parts.append(f"brain of {found['brain_mask_ml']:.0f} mL")
    if found["agreement_with_template"]:
        fit = found["agreement_with_template"]
        parts.append(f"overlap with MNI152 {fit['overlap']:.3f}, local NCC {fit['local_ncc']:.3f}")
    parts.append(
        "from the cache" if found["from_cache"] else f"{sum(found['seconds'].values()):.1f} s"
    )
    return ", ".join(parts)
