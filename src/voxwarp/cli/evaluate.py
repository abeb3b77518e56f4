"""``voxwarp evaluate``: score a model on pairs of scans."""

from . import options, pair_options
from .console import echo
from .options import preparation_of, refinement_of, runtime_of
from .pair_options import pairs_of, print_summary, protocol_for, warn_of_headers


def evaluate(
    pairs: pair_options.Pairs,
    *,
    split: pair_options.Split = "test",
    kind: pair_options.Kind = "all",
    scan: pair_options.ScanPattern = None,
    labels: pair_options.LabelsPattern = None,
    first: pair_options.First = None,
    structures: pair_options.Structures = None,
    regions: pair_options.Regions = None,
    resampling: pair_options.Resampling = pair_options.ResamplingName.nearest,
    model: options.Model = "default",
    refine: options.Refine = None,
    refine_steps: options.RefineSteps = None,
    refine_seconds: options.RefineSeconds = None,
    smoothness: options.Smoothness = None,
    brain_extract: options.BrainExtract = options.BrainExtractName.auto,
    extractor: options.Extractor = "deepbet",
    bias: options.Bias = None,
    affine: options.Affine = True,
    out: pair_options.OutFolder,
    retry: pair_options.Retry = False,
    overwrite: pair_options.Overwrite = False,
    device: options.Device = options.DeviceName.auto,
    threads: options.Threads = None,
    cache: options.Cache = True,
) -> int:
    """Register every pair of a table with a model, and score the results.

    Dice and surface distances of labels, landmark error, folds, inverse consistency, similarity,
    time and memory; in pairs.csv (one row per pair) and structures.csv (one per structure). Means
    are printed. The exit code is 3 if a pair failed.

    Examples:
    voxwarp evaluate pairs.csv -o scores --structures structures.csv
    voxwarp evaluate my.yaml -o scores --model runs/my --split val
    voxwarp evaluate subjects.csv --scan 't1/{id}.nii.gz' -o scores --first 10
    """
    from ..evaluation.evaluate import evaluate as run

    chosen = pairs_of(pairs, split, scan, labels, kind, first)
    warn_of_headers(chosen)
    rows = run(
        chosen,
        model,
        out,
        protocol=protocol_for(pairs, chosen, structures, regions, resampling),
        preparation=preparation_of(brain_extract, extractor, bias, affine),
        refine=refinement_of(refine, refine_steps, refine_seconds),
        smoothness=smoothness,
        runtime=runtime_of(device=device, cache=cache, threads=threads, progress=echo),
        overwrite=overwrite,
        retry=retry,
    )
    return print_summary(rows, out)
