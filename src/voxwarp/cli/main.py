"""The command line. Heavy imports stand inside the commands, so that --help is instant."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import InputError
from ..files import check_writable, without_ending, write_bytes

app = typer.Typer(
    help="Learning-based deformable registration of 3-D brain scans.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
models_app = typer.Typer(help="List, show and import models.", no_args_is_help=True)
app.add_typer(models_app, name="models")
cache_app = typer.Typer(help="Show and clear what is kept of scans.", invoke_without_command=True)
app.add_typer(cache_app, name="cache")


class Device(str, Enum):
    """Where the network runs."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class BrainExtract(str, Enum):
    """Whether brains are extracted."""

    auto = "auto"
    yes = "yes"
    no = "no"


class InterpolationName(str, Enum):
    """How values between voxels are found."""

    linear = "linear"
    nearest = "nearest"
    cubic = "cubic"


class Resampling(str, Enum):
    """How label maps are resampled."""

    nearest = "nearest"
    linear = "linear"


# Older versions of typer stand on the click package, newer ones carry their own: either way,
# this is its ClickException, the base of every complaint about the command line's words.
_UsageProblem: type[typer.BadParameter] = typer.BadParameter.__mro__[2]


def main() -> None:
    """Run a command; a wrong request is one line on stderr and exit code 2, a bug is 1."""
    try:
        code = app(with_refine_steps(sys.argv[1:]), standalone_mode=False)
    except InputError as error:
        _fail(str(error))
    except _UsageProblem as error:
        # Without any arguments the help has been shown and there is nothing to add.
        _fail(error.format_message()) if error.format_message() else sys.exit(2)
    except (typer.Abort, KeyboardInterrupt):
        _fail("interrupted", code=130)
    sys.exit(code if isinstance(code, int) else 0)


REFINE_STEPS = 16  # as in refine.py, which takes PyTorch to import


def with_refine_steps(words: list[str]) -> list[str]:
    """The words with the number that ``--refine`` stands for where none follows it."""
    given: list[str] = []
    for word, following in zip(words, [*words[1:], ""], strict=False):
        if word == "--refine" and not following.isdigit():
            word = f"--refine={REFINE_STEPS}"
        given.append("--refine=0" if word == "--no-refine" else word)
    return given


# Options that several commands share.
BrainExtractOption = Annotated[
    BrainExtract,
    typer.Option(help="Extract the brain; auto tells heads from brains and says which it saw."),
]
ExtractorOption = Annotated[
    str, typer.Option(help="What extracts it: deepbet, or a function as module:function.")
]
BiasOption = Annotated[
    bool | None,
    typer.Option(
        "--bias/--no-bias",
        help="Correct the bias field (N4) [default: of heads]",
        show_default=False,
    ),
]
StrictOption = Annotated[
    bool, typer.Option("--strict", help="Exit with code 3 where there is any warning.")
]
CacheOption = Annotated[
    bool,
    typer.Option("--cache/--no-cache", help="Remember what was found in each scan."),
]
RefineOption = Annotated[
    int | None,
    typer.Option(
        metavar="[N]",
        min=0,
        max=1000,
        help="Go on from the network's answer for this pair, in N steps, or 16; --no-refine: not.",
        show_default=False,
    ),
]
RefineSecondsOption = Annotated[
    float | None, typer.Option(help="Time that the refinement may take.", metavar="SECONDS")
]
SmoothnessOption = Annotated[
    float | None,
    typer.Option(
        help="How smooth a refined deformation is, or that of default and none: 2 is smoother.",
        metavar="FACTOR",
    ),
]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace results that exist.")]


@app.callback(invoke_without_command=True)
def voxwarp(
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> None:
    """Learning-based deformable registration of 3-D brain scans."""
    if version:
        from .. import __version__

        typer.echo(f"voxwarp {__version__}")
        raise typer.Exit


@app.command()
def register(
    moving: Annotated[Path, typer.Argument(help="Scan to be moved.", metavar="MOVING")],
    fixed: Annotated[
        Path | None,
        typer.Argument(
            help="Scan to align it with; the MNI152 template if left out.", metavar="FIXED"
        ),
    ] = None,
    *,
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the results.")],
    model: Annotated[str, typer.Option(help="Name of a model, or its folder.")] = "default",
    labels: Annotated[
        Path | None,
        typer.Option(help="Label map of the moving scan, to be carried along."),
    ] = None,
    fixed_labels: Annotated[
        Path | None,
        typer.Option(help="Label map of the fixed scan; gives Dice in metrics.json."),
    ] = None,
    mask: Annotated[
        Path | None, typer.Option(help="Brain mask of the moving scan; none is extracted then.")
    ] = None,
    fixed_mask: Annotated[
        Path | None, typer.Option(help="Brain mask of the fixed scan; none is extracted then.")
    ] = None,
    brain_extract: BrainExtractOption = BrainExtract.auto,
    extractor: ExtractorOption = "deepbet",
    bias: BiasOption = None,
    affine: Annotated[bool, typer.Option(help="Align linearly first.")] = True,
    refine: RefineOption = None,
    refine_seconds: RefineSecondsOption = None,
    smoothness: SmoothnessOption = None,
    device: Annotated[Device, typer.Option(help="Where the network runs.")] = Device.auto,
    seed: Annotated[
        int,
        typer.Option(help="Of what is random; nothing is so far.", min=0, max=2**31 - 2),
    ] = 0,
    cache: CacheOption = True,
    report: Annotated[bool, typer.Option(help="Write report.html, a page to look at.")] = True,
    strict: StrictOption = False,
    overwrite: OverwriteOption = False,
) -> int:
    """Align MOVING with FIXED, heads or brains; write images, ITK transforms, metrics to OUT."""
    from ..registration.registration import check_output
    from ..registration.registration import register as run

    check_output(out, overwrite=overwrite)
    with _stages() as progress:
        result = run(
            moving,
            fixed,
            model,
            labels=labels,
            fixed_labels=fixed_labels,
            mask=mask,
            fixed_mask=fixed_mask,
            brain_extract=brain_extract.value,
            extractor=extractor,
            bias=bias,
            affine=affine,
            refine=False if refine is None else refine,
            refine_seconds=refine_seconds,
            smoothness=smoothness,
            device=device.value,
            seed=seed,
            cache=cache,
            progress=progress,
        )
        progress("write")
        files = result.save(out, overwrite=overwrite, report=report)
    for file in files:
        typer.echo(file)
    seen = result.metrics["preparation"]
    typer.echo(f"moving: a {seen['moving']['seen_as']}, fixed: a {seen['fixed']['seen_as']}")
    typer.echo(_summary(result.metrics))
    return _warn(result.metrics["warnings"], strict)


@app.command()
def view(
    folder: Annotated[Path, typer.Argument(help="Folder that register wrote.", metavar="OUT")],
    *,
    fixed: Annotated[
        Path | None, typer.Option(help="The fixed scan, where it is at its place no more.")
    ] = None,
    port: Annotated[int, typer.Option(help="0: any that is free.", min=0, max=65535)] = 0,
    browser: Annotated[bool, typer.Option(help="Open the page; else its address is told.")] = True,
) -> None:
    """Show a result in the browser: fixed and moved in layers, with linked cross-hairs."""
    import threading
    import webbrowser

    from ..review.viewer import view as run

    viewer = run(folder, fixed, port=port)
    typer.echo(viewer.url)
    _say("Ctrl-C ends it")
    sys.stdout.flush()
    serving = threading.Thread(target=viewer.serve, daemon=True)
    serving.start()
    with suppress(KeyboardInterrupt):
        if browser:  # some return only when they are closed
            webbrowser.open(viewer.url)
        while serving.is_alive():
            serving.join(1)


@app.command()
def report(
    folders: Annotated[
        list[Path],
        typer.Argument(help="Folders that register wrote, or that hold such.", metavar="DIR..."),
    ],
    *,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="The page; else index.html in the folder of them all."),
    ] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Write an index of many results, outliers first; of a single one, its report anew."""
    from ..layout import METRICS, REPORT

    if len(folders) == 1 and out is None and (folders[0] / METRICS).is_file():
        from ..pictures.pages import is_ours

        ours = is_ours(folders[0] / REPORT)
        check_writable(folders[0], (REPORT,), overwrite=overwrite or ours)
        from ..pictures.report import report as render
        from ..registration.saved import load_registration

        result = load_registration(folders[0])
        page = render(result.scene, result.metrics, name=folders[0].resolve().name)
        write_bytes(folders[0] / REPORT, page.encode())
        typer.echo(folders[0] / REPORT)
        return
    from ..review.overview import write_overview

    typer.echo(write_overview(folders, out, overwrite=overwrite))


@app.command()
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
    conform: Annotated[bool, typer.Option(help="Work at 1 mm on 256 x 256 x 256 voxels.")] = True,
    bias: BiasOption = None,
    brain_extract: BrainExtractOption = BrainExtract.auto,
    extractor: ExtractorOption = "deepbet",
    affine: Annotated[bool, typer.Option(help="Align with the MNI152 template.")] = True,
    crop: Annotated[bool, typer.Option(help="Crop to 160 x 192 x 224 around the brain.")] = True,
    normalise: Annotated[bool, typer.Option(help="Scale intensities to [0, 1].")] = True,
    cache: CacheOption = True,
    strict: StrictOption = False,
    overwrite: OverwriteOption = False,
) -> int:
    """Conform, correct, extract the brain, align, crop and scale; with the way back."""
    from ..preparation.prepare import Settings
    from ..preparation.preprocessing import check_output
    from ..preparation.preprocessing import preprocess as run

    settings = Settings(brain_extract.value, extractor, bias, affine, conform)
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
    code = 0
    for scan, folder, segmentation, brain_mask in jobs:
        try:
            with _stages() as progress:
                progress(scan.name)
                result = run(
                    scan,
                    labels=segmentation,
                    mask=brain_mask,
                    settings=settings,
                    crop=crop,
                    normalise=normalise,
                    cache=cache,
                )
                files = result.save(folder, overwrite=overwrite)
        except InputError as error:  # the other scans can be done all the same
            _say(f"error: {error}")
            code = 2
            continue
        for file in files:
            typer.echo(file)
        typer.echo(_seen(result.record["found"]))
        warned = _warn(result.record["warnings"], strict)
        code = code or warned
    return code


@app.command()
def apply(
    images: Annotated[
        list[Path], typer.Argument(help="Images, label maps or 4-D series.", metavar="IMAGE...")
    ],
    *,
    transform: Annotated[
        Path,
        typer.Option("--transform", "-t", help="Folder that register wrote, or an ITK affine."),
    ],
    out: Annotated[
        Path, typer.Option("-o", "--out", help="Output file; a folder for several images.")
    ],
    reference: Annotated[
        Path | None,
        typer.Option(
            "--reference",
            "-r",
            help="Image whose grid the result gets [default: the other scan's].",
        ),
    ] = None,
    inverse: Annotated[
        bool, typer.Option("--inverse", help="From the fixed scan to the moving scan.")
    ] = False,
    interpolation: Annotated[
        InterpolationName | None, typer.Option(help="[default: nearest for labels, else linear]")
    ] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Carry images from the moving scan's space to the fixed scan's, resampled once."""
    from ..files import staging
    from ..registration.apply import apply_to_image, load_transform
    from ..space.volume import write_volume

    targets = _targets(images, out, overwrite)
    saved = load_transform(transform)
    method: Any = interpolation.value if interpolation else None
    with staging(targets[0].parent) as stage:  # all of them or none
        used = []
        for image, target in zip(images, targets, strict=True):
            volume, how = apply_to_image(
                image, saved, reference=reference, inverse=inverse, interpolation=method
            )
            write_volume(volume, stage / target.name)
            used.append(how)
        for target in targets:
            os.replace(stage / target.name, target)
    for target, how in zip(targets, used, strict=True):
        typer.echo(f"{target}  ({how})")


@app.command()
def points(
    source: Annotated[
        Path, typer.Argument(help="CSV file with columns x, y, z in mm.", metavar="FILE.csv")
    ],
    *,
    transform: Annotated[
        Path,
        typer.Option("--transform", "-t", help="Folder that register wrote, or an ITK affine."),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="Output CSV file.")],
    inverse: Annotated[
        bool, typer.Option("--inverse", help="From the fixed scan to the moving scan.")
    ] = False,
    lps: Annotated[
        bool, typer.Option("--lps", help="Coordinates are LPS (ANTs, ITK), not RAS.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a file that exists.")
    ] = False,
) -> None:
    """Carry points of the moving scan to the fixed scan, as apply carries its images."""
    from ..registration.apply import apply_to_csv, load_transform

    check_writable(out.parent, (out.name,), overwrite=overwrite)
    number = apply_to_csv(source, out, load_transform(transform), inverse=inverse, is_lps=lps)
    typer.echo(f"{out}  ({number} points)")


@app.command()
def train(
    config: Annotated[
        Path | None, typer.Argument(help="YAML file; --knobs lists what it may say.")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="In place of values of the file.", metavar="[KEY=VALUE]..."),
    ] = None,
    *,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="Folder of the model [default: runs/NAME of the file]."),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Read everything, train nothing, tell what is wrong.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the training that is in the folder.")
    ] = False,
    minutes: Annotated[
        float | None, typer.Option(help="Stop after as many, to be resumed.", min=0)
    ] = None,
    device: Annotated[Device, typer.Option(help="Where the network learns.")] = Device.auto,
    overwrite: OverwriteOption = False,
    knobs: Annotated[
        bool, typer.Option("--knobs", help="Print every key, its default and what it does.")
    ] = False,
) -> int:
    """Train a model on your own scans; register --model takes the folder."""
    from ..training.config import knobs as all_knobs
    from ..training.config import read_config

    if knobs:
        for name, default, meaning in all_knobs():
            typer.echo(f"{name}{f' = {default}' if default else ''}\n    {meaning}")
        return 0
    if config is None:
        raise InputError("a configuration is wanted: voxwarp train CONFIG.yaml")
    settings = read_config(config, overrides or [])
    if check:
        return _check_training(settings, device.value)
    from ..training.train import train as run

    folder = out or Path("runs") / config.stem
    done = run(
        settings,
        folder,
        resume=resume,
        overwrite=overwrite,
        device=device.value,
        minutes=float("inf") if minutes is None else minutes,
    )
    if os.environ.get("RANK", "0") != "0":
        return 0
    if done.step < settings.steps:
        typer.echo(f"{folder}: {done.step} of {settings.steps} steps; --resume goes on")
        return 0
    typer.echo(folder / "model.json")
    typer.echo(f"{settings.steps} steps in {done.seconds / 60:.1f} min{_scores(done)}")
    return 0


def _check_training(settings: Any, device: str) -> int:
    """Tell what a training would find; 2 where something is wrong."""
    from ..data.manifest import gather
    from ..device import torch_device
    from ..training.inspection import check
    from ..training.train import check_beforehand

    scans = gather(settings.data, settings.seed)
    with _stages() as progress:
        progress(f"read {len(scans)} scans")
        report = check(settings, scans)
    for dataset, splits in report.counts.items():
        for split, count in splits.items():
            if count.scans:
                people = f"{count.scans} scans of {count.people} people"
                typer.echo(f"{dataset}, {split}: {people}, {count.labelled} with labels")
    typer.echo(f"{len(report.structures)} structures")
    size = f"{report.bytes_needed / 1e9:.2f} GB of {report.bytes_free / 1e9:.2f} GB that are free"
    typer.echo(f"to be prepared in {report.folder}: {size}")
    for doubt in report.doubts:
        _say(f"warning: {doubt}")
    problems = list(report.problems)
    try:
        check_beforehand(settings, scans, torch_device(device))
    except InputError as error:
        problems += [str(error)] if str(error) not in problems else []
    for problem in problems:
        _say(f"error: {problem}")
    return 2 if problems else 0


def _scores(done: Any) -> str:
    best, start = done.best, done.start
    if "val_dice" in best:
        return (
            f", validation Dice {start.get('val_dice', 0):.3f} -> {best['val_dice']:.3f}, folds "
            f"{best['val_folds_percent']:.4f} % (step {best['step']})"
        )
    return f", validation cost {best['val_cost']:.4f}" if "val_cost" in best else ""


PairsArgument = Annotated[
    Path,
    typer.Argument(
        help="Table of pairs (columns moving, fixed), table of scans, or a training's YAML file: "
        "then all ordered pairs of a split.",
        metavar="PAIRS",
    ),
]
SplitOption = Annotated[
    str, typer.Option(help="Whose scans: train, val, test or all; of a table that names splits.")
]
KindOption = Annotated[
    str, typer.Option(help="Pairs of two people (inter), scans of one (retest), or all.")
]
ScanOption = Annotated[
    str | None, typer.Option(help="Paths in a table of scans, such as t1/{id}.nii.gz.")
]
ScanLabelsOption = Annotated[
    str | None, typer.Option(help="Of their label maps, such as labels/{id}.nii.gz.")
]
StructuresOption = Annotated[
    Path | None,
    typer.Option(
        help="CSV table with columns value and structure; without it every value is a structure."
    ),
]
RegionsOption = Annotated[
    str | None, typer.Option(help="Label values of Dice-regions, such as 4-41,44,47-62 [all].")
]
ResamplingOption = Annotated[
    Resampling, typer.Option(help="How labels are resampled: linear is one value at a time.")
]
RetryOption = Annotated[bool, typer.Option("--retry", help="Try again what failed.")]
FirstOption = Annotated[int | None, typer.Option(help="Only so many pairs.", min=1)]


@app.command()
def evaluate(
    pairs: PairsArgument,
    *,
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the rows.")],
    model: Annotated[str, typer.Option(help="Name of a model, or its folder.")] = "default",
    split: SplitOption = "test",
    kind: KindOption = "all",
    scan: ScanOption = None,
    labels: ScanLabelsOption = None,
    structures: StructuresOption = None,
    regions: RegionsOption = None,
    resampling: ResamplingOption = Resampling.nearest,
    first: FirstOption = None,
    refine: RefineOption = None,
    smoothness: SmoothnessOption = None,
    device: Annotated[Device, typer.Option(help="Where the network runs.")] = Device.auto,
    cache: CacheOption = True,
    retry: RetryOption = False,
    overwrite: OverwriteOption = False,
) -> int:
    """Score a model on pairs of scans: overlap, distances, folds, time and memory."""
    from ..evaluation.evaluation import evaluate as run

    chosen = _pairs(pairs, split, scan, labels, kind, first)
    rows = run(
        chosen,
        model,
        out,
        protocol=_protocol(pairs, chosen, structures, regions, resampling.value),
        refine=refine or False,
        smoothness=smoothness,
        device=device.value,
        cache=cache,
        overwrite=overwrite,
        retry=retry,
        progress=typer.echo,
    )
    return _rows_summary(rows, out)


@app.command()
def benchmark(
    pairs: PairsArgument,
    *,
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the rows.")],
    methods: Annotated[
        str | None,
        typer.Option(
            help="With commas: affine, ants-syn, ants-syncc, greedy, elastix, convexadam, names "
            "of models, NAME=WEIGHTS, NAME=MODULE:FUNCTION; +refine behind a model refines its "
            "answers [the first ones but ants-syncc, which takes an hour a pair, and default]."
        ),
    ] = None,
    threads: Annotated[int, typer.Option(help="That each method may use [cores].", min=0)] = 0,
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
    from ..benchmark.benchmark import USUAL, Terms, entries
    from ..benchmark.benchmark import benchmark as run

    words = [w.strip() for w in methods.split(",")] if methods else list(USUAL)
    found, skipped = entries(words)
    for name, why in skipped.items():
        _say(f"warning: {name} is skipped: {why}")
    if not found:
        raise InputError("methods: none of them can be run here")
    chosen = _pairs(pairs, split, scan, labels, kind, first)
    terms = Terms(
        threads=threads or _cores(),
        limit=limit,
        alone=not busy,
        device=device.value,
        keep=keep,
    )
    rows = run(
        chosen,
        found,
        out,
        protocol=_protocol(pairs, chosen, structures, regions, resampling.value),
        terms=terms,
        overwrite=overwrite,
        retry=retry,
        progress=typer.echo,
    )
    return _rows_summary(rows, out)


@app.command()
def figures(
    rows: Annotated[
        list[Path] | None,
        typer.Argument(help="Folders of evaluate or benchmark.", metavar="[ROWS]..."),
    ] = None,
    *,
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for tables and figures.")],
    learning: Annotated[
        Path | None,
        typer.Option(help="Rows of benchmarks/learning.py: sweep of λ, number of people."),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(help="Method that the others are compared with [the first that deforms]."),
    ] = None,
) -> None:
    """Make tables and figures (PNG, SVG) from the rows of evaluations and benchmarks."""
    from ..evaluation.figures import draw

    for path in draw(rows or [], out, learning=learning, reference=reference):
        typer.echo(path)


def _pairs(
    table: Path,
    split: str,
    scan: str | None,
    labels: str | None,
    kind: str,
    first: int | None,
) -> list:
    from ..data.pairs import read_pairs

    return read_pairs(table, split=split, scan=scan, labels=labels, kind=kind)[:first]


def _protocol(
    table: Path, pairs: list, structures: Path | None, regions: str | None, labels: Any
) -> Any:
    """The protocol; of a training, its structures count unless others are named."""
    from ..evaluation.scoring import protocol_of
    from ..training.config import read_config

    is_training = table.suffix.lower() in (".yaml", ".yml") and structures is None
    wanted = read_config(table).data.structures if is_training else structures
    return protocol_of(pairs, structures=wanted, regions=regions, labels=labels)


def _rows_summary(rows: list[dict], out: Path) -> int:
    """The mean of each method; 3 where a pair could not be done."""
    from ..evaluation.evaluation import summary

    for words in summary(rows):
        typer.echo(words)
    typer.echo(out / "pairs.csv")
    return 3 if any(row["status"] != "ok" for row in rows) else 0


@cache_app.callback()
def cache(context: typer.Context) -> None:
    """What was found in scans, kept for the next time; shows it without a further word."""
    if context.invoked_subcommand is None:
        cache_show()


@cache_app.command("show")
def cache_show() -> None:
    """Folder, entries and size."""
    from ..preparation.cache import contents

    held = contents()
    typer.echo(held.folder)
    size = f"{held.size / 1e6:.1f} MB of at most {held.limit / 1e6:.0f} MB"
    typer.echo(f"{held.entries} scans, {size}")


@cache_app.command("clear")
def cache_clear() -> None:
    """Forget them all."""
    from ..preparation.cache import clear, folder

    typer.echo(f"{folder()}: {clear()} scans removed")


@models_app.command("list")
def models_list() -> None:
    """Names and folders of the installed models."""
    from ..networks.model import installed

    for name, folder in installed().items():
        typer.echo(f"{name}\t{folder}")


@models_app.command("show")
def models_show(
    model: Annotated[str, typer.Argument(help="Name of a model, or its folder.", metavar="MODEL")],
) -> None:
    """What a model is and was trained on."""
    from ..networks.model import find

    typer.echo((find(model) / "model.json").read_text(encoding="utf-8").rstrip())


@models_app.command("import")
def models_import(
    weights: Annotated[
        Path, typer.Argument(help="Keras HDF5 weights of VoxelMorph-1 or -2.", metavar="FILE.h5")
    ],
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="Folder of the model [default: among the user's models]."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a model that exists.")
    ] = False,
) -> None:
    """Convert published VoxelMorph weights into a model that register --model takes."""
    from ..networks.keras import import_keras
    from ..networks.model import user_folder

    model = import_keras(weights)
    folder = out or user_folder() / model.name
    check_writable(folder, ("model.json", "weights.safetensors"), overwrite=overwrite)
    model.save(folder)
    typer.echo(f"{model.name}\t{folder}")


def _cores() -> int:
    """Those that this process may use, which on shared machines are not all."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def _stages() -> Iterator[Callable[[str], None]]:
    """Show the running stage on stderr when it is a terminal."""
    if not sys.stderr.isatty():
        yield lambda stage: None
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True)) as progress:
        tasks: list = []

        def show(stage: str) -> None:
            if tasks:
                progress.update(tasks[-1], total=1, completed=1)
            tasks.append(progress.add_task(stage, total=None))

        yield show


def _targets(images: list[Path], out: Path, overwrite: bool) -> list[Path]:
    """Where each image goes: ``out`` itself, or files of the images' names in it."""
    from ..space.volume import check_nifti_name

    if len(images) == 1 and not out.is_dir():
        targets = [out]
    else:
        names = [_nifti_name(image) for image in images]
        if len(set(names)) < len(names):
            raise InputError(f"output {out}: two of the images have the same name")
        targets = [out / name for name in names]
    for target in targets:
        check_nifti_name(target)
    check_writable(targets[0].parent, tuple(t.name for t in targets), overwrite=overwrite)
    return targets


def _nifti_name(image: Path) -> str:
    return f"{without_ending(image.name)}.nii.gz"


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


def _seen(found: dict) -> str:
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


def _warn(warnings: list[str], strict: bool) -> int:
    """Tell them; the exit code that they mean."""
    for warning in warnings:
        _say(f"warning: {warning}")
    return 3 if warnings and strict else 0


def _summary(metrics: dict) -> str:
    similarity = metrics["similarity"]
    before, after = (similarity[when]["local_ncc"] for when in ("before", "after"))
    parts = [
        f"local NCC {before:.3f} -> {after:.3f}",
        f"folds {metrics['jacobian']['folds']}",
        f"{sum(metrics['seconds'].values()):.1f} s",
    ]
    if metrics["dice"]:
        parts.insert(1, f"mean Dice {metrics['dice']['mean']:.3f}")
    return ", ".join(parts)


def _say(message: str) -> None:
    print(f"voxwarp: {' '.join(message.split())}", file=sys.stderr)


def _fail(message: str, code: int = 2) -> None:
    _say(f"error: {message}")
    sys.exit(code)
