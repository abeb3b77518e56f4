"""Companions: a scan of another contrast is registered by a T1-weighted scan of the same person.

The companion is aligned with the scan by a rigid map and takes its place in everything that is
computed; the scan itself is what is resampled.
"""

from contextlib import suppress
from dataclasses import replace

import numpy as np
import torch

from ..errors import InputError
from ..fields import field
from ..fields.losses import local_ncc_map
from ..space.transform import Affine
from ..space.volume import Volume, to_canonical
from .agreement import bright_level
from .coarse import Coarse
from .examination import LEAST_SIMILARITY, CompanionFit, Examination
from .intensity import from_zero
from .recipe import Recipe
from .rigid import register_rigid
from .scan import Prepared, Scan
from .settings import Preparation


def prepared_by_companion(
    scan: Scan, companion: Scan, recipe: Recipe, preparation: Preparation, *, cache: bool
) -> Prepared:
    """Prepare the brain of a companion in the place of a scan.

    The two are aligned by a rigid map. Two starts are tried: the same world space, as of scans of
    one session, and the middles of the two scans on each other. The brain of the scan is not
    extracted: only what lies in the brain of the companion counts. If the two are not similar then,
    because one of them is turned, the scan is examined by itself for another start.

    Args:
        scan: of any contrast.
        companion: T1-weighted scan of the same person.
        recipe: of the model.
        preparation: how the companion is prepared.
        cache: whether to read and write the cache of examinations.

    Returns:
        The image of the companion, with an examination of the scan that follows from it: its brain
        mask is that of the companion, and its affine map leads to the scan.

    Raises:
        InputError: no brain is found in the companion.
    """
    found = companion.examined(recipe, preparation, cache=cache)
    brain, head = companion.brain(found), from_zero(to_canonical(scan.image))
    starts = Affine(np.eye(4)), _middles(brain, head)
    to_scan = register_rigid(*starts, moving=head, fixed=brain)
    local_ncc = _similarity(brain, head, to_scan)
    if local_ncc < LEAST_SIMILARITY:
        with suppress(InputError):  # no brain is found in the scan
            alone = scan.examined(recipe, preparation, cache=cache)
            start = alone.template_to_scan.after(found.template_to_scan.inverse())
            other = register_rigid(start, moving=head, fixed=brain)
            if (similarity := _similarity(brain, head, other)) > local_ncc:
                to_scan, local_ncc = other, similarity
    if scan.lesion is not None:
        found = replace(found, lesion=_moved(scan.lesion, to_scan.inverse()))
    own = companion.prepared(recipe, found)
    lesion = None if found.lesion is None else _moved(found.lesion, to_scan)
    examination = Examination(
        kind=found.kind,
        conformed_grid=scan.grid,
        template_to_scan=to_scan.after(found.template_to_scan),
        mask=_moved(companion.brain_mask(found), to_scan),
        agreement=found.agreement,
        seconds=found.seconds,
        lesion=lesion,
        template=found.template,
        companion=CompanionFit(companion.name, to_scan, local_ncc),
    )
    return replace(own, examination=examination)


def _middles(brain: Volume, head: Volume) -> Affine:
    """The shift that puts the middle of a brain on the middle of the scan of a head."""
    centre, _ = Coarse.of(brain, 8.0).centre_and_volume
    middle = head.grid.to_world((np.asarray(head.grid.shape) - 1) / 2)
    shift = np.eye(4)
    shift[:3, 3] = middle - centre
    return Affine(shift)


def _similarity(brain: Volume, head: Volume, to_head: Affine) -> float:
    """Mean squared local correlation in the brain, within the field of view of the head."""
    f, m = Coarse.of(brain, 4.0), Coarse.of(head, 4.0)
    points = f.nodes_in(m, to_head)
    with torch.no_grad():
        ncc = local_ncc_map(
            moved=field.sample(m.image, points) / bright_level(m.image),
            fixed=f.image / bright_level(f.image),
            window=3,
        )
    inside = (f.image > 0) & m.reaches(points)
    return float(ncc[inside].mean()) if inside.any() else 0.0


def _moved(mask: Volume, rigid: Affine) -> Volume:
    """A mask in another space: its voxels stay, their places are mapped."""
    return replace(mask, grid=replace(mask.grid, affine=rigid.matrix @ mask.grid.affine))
