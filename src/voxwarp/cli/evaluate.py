"""``voxwarp evaluate``: a model on pairs of scans."""

import typer

from .options import (
    AffineOption,
    BiasOption,
    BrainExtractOption,
    CacheOption,
    DeviceOption,
    ExtractorOption,
    ModelOption,
    OverwriteOption,
    RefineOption,
    RefineSecondsOption,
    RefineStepsOption,
    SmoothnessOption,
    ThreadsOption,
    preparation_of,
    refinement_of,
    runtime_of,
)
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


def evaluate(
    pairs: PairsArgument,
    *,
    out: RowsOption,
    model: ModelOption = "default",
    split: SplitOption = "test",
    kind: KindOption = "all",
    scan: ScanOption = None,
    labels: ScanLabelsOption = None,
    structures: StructuresOption = None,
    regions: RegionsOption = None,
    resampling: ResamplingOption = Resampling.nearest,
    first: FirstOption = None,
    brain_extract: BrainExtractOption = None,
    extractor: ExtractorOption = None,
    bias: BiasOption = None,
    affine: AffineOption = None,
    refine: RefineOption = None,
    refine_steps: RefineStepsOption = None,
    refine_seconds: RefineSecondsOption = None,
    smoothness: SmoothnessOption = None,
    device: DeviceOption = None,
    threads: ThreadsOption = None,
    cache: CacheOption = None,
    retry: RetryOption = False,
    overwrite: OverwriteOption = False,
) -> int:
    """Score a model on pairs of scans: overlap, distances, folds, time and memory."""
    from ..evaluation.evaluate import evaluate as run

    chosen = pairs_of(pairs, split, scan, labels, kind, first)
    rows = run(
        chosen,
        model,
        out,
        protocol=protocol_for(pairs, chosen, structures, regions, resampling),
        preparation=preparation_of(brain_extract, extractor, bias, affine),
        refine=refinement_of(refine, refine_steps, refine_seconds),
        smoothness=smoothness,
        runtime=runtime_of(device=device, cache=cache, threads=threads, progress=typer.echo),
        overwrite=overwrite,
        retry=retry,
    )
    return told(rows, out)
