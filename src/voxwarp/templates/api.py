"""Templates from Python."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from ..cohort.cluster import Cluster
from ..cohort.dataset import Selection
from ..cohort.run import new_run
from .build import BuiltTemplate, TemplateRequest, build
from .settings import TemplateSettings

AnyPath = str | os.PathLike[str]


def build_template(
    scans: AnyPath | Sequence[AnyPath],
    out: AnyPath,
    *,
    settings: TemplateSettings | None = None,
    labels: str | None = None,
    label_names: AnyPath | None = None,
    scan: str | None = None,
    also: Sequence[str] = (),
    split: str | None = None,
    participants: Sequence[str] = (),
    processors: int | None = None,
    memory: float | None = None,
    progress: Callable[[str], object] | None = None,
) -> BuiltTemplate:
    """Build an unbiased template of scans: their mean in shape and in intensity.

    The scans are aligned by rigid maps and averaged, then by affine maps, then by rounds of
    deformable registration to the mean. After each round, the template takes the mean shape of all
    scans, so that their mean displacement from it vanishes. A call that was interrupted goes on
    where it was when it is repeated.

    Args:
        scans: image files of one contrast; or one table of scans, folder or BIDS data set.
        out: folder of the template, which is new, or has an earlier one.
        settings: name, rounds, average, spacing and more; None for those by default.
        labels: pattern of the paths of label maps: with columns of the table in braces; else with
            {folder}, {stem} and {name} of each scan.
        label_names: table with the names of the labels: a column index or value, and a column name
            or structure.
        scan: pattern of the paths of the scans of a table, or of their names in a folder.
        also: suffixes of other contrasts of a BIDS data set, such as T2w, that follow the scans.
        split: only the scans of a table that are in it.
        participants: labels of the persons of a BIDS data set or a table; all by default.
        processors: to use; all by default.
        memory: to use, bytes; what is free by default.
        progress: called with lines of text.

    Returns:
        The template's files, and which scans were left out.

    Raises:
        InputError: the request cannot be met: there are fewer than two scans, two of one person
            (unless ``settings.longitudinal``), different contrasts or label maps.

    Example:
        >>> import voxwarp
        >>> settings = voxwarp.TemplateSettings(name="Ours", average="trimmed")
        >>> settings.rounds
        4
    """
    sources = [scans] if isinstance(scans, (str, os.PathLike)) else list(scans)
    request = TemplateRequest(
        sources=[Path(one) for one in sources],
        out=Path(out),
        selection=Selection(
            participants=tuple(participants),
            also=tuple(also),
            scan=scan,
            labels=labels,
            split=split,
        ),
        settings=settings or TemplateSettings(),
        cluster=Cluster(processors=processors, memory=memory),
        run=new_run(),
        label_names=None if label_names is None else Path(label_names),
    )
    return build(request, progress or (lambda text: None))
