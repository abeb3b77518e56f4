"""Register many scans to one fixed scan, each result in a folder of its own."""

import os
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

from .._files import check_readable
from .._several import folders_of, one_per_scan
from ..errors import InputError
from ..networks.model import Model
from ..networks.refine import Refinement
from ..preparation.scan import Scan
from ..preparation.settings import DEFAULTS, Preparation
from ..runtime import DEFAULT_RUNTIME, Runtime
from ..space.composite import read_linear
from ..space.transform import Affine
from ..space.volume import ImageLike
from .deform import check_lesions_count, check_smoothness, check_smoothness_applies
from .line import Line, Moving, RegisteredScan
from .outputs import ALL
from .register import (
    NO_COMPANIONS,
    AnyLinear,
    Companions,
    RegistrationTask,
    TransformKind,
    check_fixed_inputs,
    check_transform_kind,
    scan_of,
    template_of,
)
from .result import check_output, write_registration

_PATH = str, os.PathLike


def register_many(
    movings: Sequence[str | os.PathLike[str]],
    fixed: ImageLike | Scan | None = None,
    model: str | os.PathLike[str] | Model = "default",
    *,
    out: str | os.PathLike[str],
    labels: Sequence[ImageLike] | None = None,
    fixed_labels: ImageLike | None = None,
    mask: Sequence[ImageLike] | None = None,
    fixed_mask: ImageLike | None = None,
    lesion_mask: Sequence[ImageLike] | None = None,
    fixed_lesion_mask: ImageLike | Sequence[ImageLike] | None = None,
    companion: Sequence[ImageLike] | None = None,
    fixed_companion: ImageLike | Scan | None = None,
    preparation: Preparation = DEFAULTS,
    transform: TransformKind = "deformable",
    initial: Sequence[AnyLinear] | None = None,
    refine: bool | Refinement = False,
    smoothness: float | None = None,
    save: str | Sequence[str] = ALL,
    report: bool = True,
    overwrite: bool = False,
    runtime: Runtime = DEFAULT_RUNTIME,
) -> list[RegisteredScan]:
    """Register many scans to one fixed scan, and write each result to a folder of its own.

    The results are those of ``register`` and ``Registration.save``, to the byte. It takes less
    time, because the model is loaded and the fixed scan is prepared once, and because the next
    scan is prepared and the previous result is written while a scan is registered. Memory holds
    three scans at a time, however many there are.

    If a scan cannot be registered, the others are, and ``error`` of its record says why. Only a
    file that does not exist is an error at once.

    Args:
        movings: paths of the scans.
        fixed, model, fixed_labels, fixed_mask, fixed_lesion_mask, fixed_companion: see
            ``register``.
        out: each result goes to the folder in it that has the name of the scan. Scans of the same
            name get the names of the folders above them in front: ``sub-01_T1w`` for
            ``sub-01/anat/T1w.nii.gz``.
        labels, mask, lesion_mask, companion, initial: see ``register``; one for each scan, in their
            order, or None.
        preparation, transform, refine, smoothness: see ``register``.
        save, report: which files are written, see ``Registration.save``.
        overwrite: replace results of earlier registrations.
        runtime: see ``register``; its progress callback gets a line for each scan that is done.

    Returns:
        A record of each scan, in their order.

    Raises:
        InputError: a file does not exist; the fixed scan, the model, the device or an option
            cannot be used; there are results in a folder and ``overwrite`` is false; or two scans
            would have one folder. Nothing has been registered then.

    Example:
        >>> import voxwarp
        >>> done = voxwarp.register_many(
        ...     ["moving.nii.gz", "bold.nii.gz"], "fixed.nii.gz", out="registered"
        ... )
        >>> [scan.folder.name for scan in done]
        ['moving', 'bold']
    """
    paths = [Path(path) for path in ([movings] if isinstance(movings, _PATH) else movings)]
    scans = _moving_scans(
        paths,
        Path(out),
        labels=labels,
        mask=mask,
        lesion_mask=lesion_mask,
        companion=companion,
        initial=initial,
    )
    save = save if isinstance(save, str) else list(save)
    for scan in scans:
        check_readable(scan.path, "moving image")
        check_output(scan.folder, save=save, overwrite=overwrite)
    refinement = Refinement.from_value(refine)
    check_smoothness(smoothness)
    check_transform_kind(transform, refinement, smoothness)
    device = runtime.torch_device()
    check_fixed_inputs(
        fixed,
        fixed_mask=fixed_mask,
        fixed_lesion_mask=fixed_lesion_mask,
        fixed_companion=fixed_companion,
    )
    with runtime.with_threads():
        fixed_scan = None
        if fixed is not None:
            fixed_scan = scan_of(fixed, "fixed", fixed_labels, fixed_mask, fixed_lesion_mask)
        loaded = model if isinstance(model, Model) else Model.load(model, device)
        loaded.network.to(device)
        fixed_scan = fixed_scan or template_of(loaded, fixed_labels)
        check_smoothness_applies(loaded, smoothness, refined=refinement is not None)
        if transform == "deformable":
            has_lesions = fixed_scan.lesion is not None or lesion_mask is not None
            check_lesions_count(loaded, has_lesions, refined=refinement is not None)
        companions = NO_COMPANIONS
        if fixed_companion is not None:
            own = scan_of(fixed_companion, "fixed companion", None, None)
            companions = Companions(fixed=own)
        else:
            _prepare_fixed(fixed_scan, loaded, preparation, runtime.cache)
        task = partial(
            RegistrationTask,
            fixed=fixed_scan,
            model=loaded,
            preparation=preparation,
            refinement=refinement,
            smoothness=smoothness,
            kind=transform,
        )
        write = partial(write_registration, save=save, overwrite=overwrite, report=report)
        return _all_of(
            Line(task, write, device, runtime.cache, companions), scans, runtime.progress
        )


def _all_of(
    line: Line, scans: Sequence[Moving], progress: Callable[[str], object] | None
) -> list[RegisteredScan]:
    """The records of all scans; each is announced when it is done."""
    done = list[RegisteredScan]()
    with closing(line.run(scans)) as registered:
        for scan in registered:
            done.append(scan)
            if progress:
                progress(f"{len(done)}/{len(scans)} {format_scan(scan)}")
    return done


def format_scan(scan: RegisteredScan) -> str:
    """What became of a scan, in one line."""
    if scan.error is not None:
        return f"{scan.folder}: failed"
    similarity = scan.metrics["similarity"]
    before, after = (similarity[when]["local_ncc"] for when in ("before", "after"))
    parts = [
        f"a {scan.metrics['preparation']['moving']['seen_as']}",
        f"local NCC {before:.3f} -> {after:.3f}",
        f"folds {scan.metrics['jacobian']['folds']}",
    ]
    if scan.metrics["dice"]:
        parts.insert(2, f"mean Dice {scan.metrics['dice']['mean']:.3f}")
    return f"{scan.folder}: {', '.join(parts)}"


def _prepare_fixed(fixed: Scan, model: Model, preparation: Preparation, cache: bool) -> None:
    """Prepare the fixed scan before the first moving scan; it keeps what was found in it."""
    examination = fixed.examined(model.recipe, replace(preparation, affine=True), cache=cache)
    fixed.prepared(model.recipe, examination)


def _moving_scans(
    paths: Sequence[Path],
    out: Path,
    *,
    labels: Sequence[ImageLike] | None,
    mask: Sequence[ImageLike] | None,
    lesion_mask: Sequence[ImageLike] | None,
    companion: Sequence[ImageLike] | None,
    initial: Sequence[AnyLinear] | None,
) -> list[Moving]:
    """What there is of each moving scan; the scans themselves are read later."""
    if not paths:
        raise InputError("movings must hold at least one scan, but it is empty")
    starts = [
        start if isinstance(start, Affine | None) else read_linear(start)
        for start in one_per_scan(initial, paths, "initial")
    ]
    of_each = (
        paths,
        folders_of(paths, out),
        one_per_scan(labels, paths, "labels"),
        one_per_scan(mask, paths, "mask"),
        one_per_scan(lesion_mask, paths, "lesion_mask"),
        one_per_scan(companion, paths, "companion"),
        starts,
    )
    return [Moving(*given) for given in zip(*of_each, strict=True)]
