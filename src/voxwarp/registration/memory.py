"""Predict the memory of a registration from the sizes of its volumes, before any is allocated."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .._memory import free_memory, own_memory
from ..errors import NotEnoughMemoryError
from ..preparation.brain import is_extracted
from ..preparation.recipe import Recipe
from ..preparation.scan import Scan
from ..preparation.settings import Preparation

# Bytes, fitted to the peaks of whole commands in benchmarks/memory.csv; a test compares the two.
# Other models than ``default`` may need less.
PROGRAM = 450e6  # the interpreter, PyTorch, SimpleITK and the kernels
EXTRACTED = 1.2e9  # for each head whose brain is extracted, which is done on a grid of its own
ALIGNED = 250e6  # for each other scan that is aligned with the template
NETWORK, REFINED = 152, 230  # for each voxel of the working grid, without and with refinement
KEPT = 95  # for each of them afterwards: images, displacement, memory in small pieces
KEPT_LINEAR = 60  # the same, if there is no deformation
PREPARED = 12  # for each voxel of either scan: copies in float32, and the brain alone
WRITTEN = 40  # for each fixed voxel: warp, inverse, moved image; copies for the report
WRITTEN_MOVING = 7  # for each moving voxel: the inverse image; copies for the report


@dataclass(frozen=True)
class Volumes:
    """The sizes that the memory of a registration depends on.

    Args:
        fixed, moving: voxels of the scans.
        stored: bytes of the scans with their label maps and masks, as they were read.
        working: voxels of the working grid.
        heads: number of scans whose brain is extracted.
        brains: number of the other scans that are aligned with the template.
        deformable: whether a deformation is computed, not a linear map alone.
        refined: whether the deformation is refined.
    """

    fixed: int
    moving: int
    stored: int
    working: int
    heads: int = 0
    brains: int = 0
    deformable: bool = True
    refined: bool = False


def predicted_memory(sizes: Volumes) -> int:
    """Predict the peak memory of the process, in bytes.

    That is PROGRAM + stored + the most of what the steps need, for F fixed, M moving and W working
    voxels: 12 (F + M) to prepare the scans, with 1.2 GB for each head and 0.25 GB for each brain;
    152 W for the network or the descent (230 W with refinement); 95 W + 40 F + 7 M to compose,
    invert, resample and write.
    """
    written = WRITTEN * sizes.fixed + WRITTEN_MOVING * sizes.moving
    examined = EXTRACTED * sizes.heads + ALIGNED * sizes.brains
    needs = [
        PREPARED * (sizes.fixed + sizes.moving) + examined,
        (KEPT if sizes.deformable else KEPT_LINEAR) * sizes.working + written,
    ]
    if sizes.deformable:
        needs.append((REFINED if sizes.refined else NETWORK) * sizes.working)
    return int(PROGRAM + sizes.stored + max(needs))


def check_memory(
    moving: Scan,
    fixed: Scan,
    recipe: Recipe,
    preparation: Preparation,
    *,
    deformable: bool,
    refined: bool,
    companions: Sequence[Scan | None] = (None, None),
) -> None:
    """Make sure that there is enough memory to register a pair.

    Args:
        moving, fixed: the scans.
        recipe: of the model.
        preparation: how the scans are prepared.
        deformable, refined: see ``Volumes``.
        companions: of the moving and of the fixed scan, which are examined in their place.

    Raises:
        NotEnoughMemoryError: less is available.
    """
    available, scans = free_memory() + own_memory(), (moving, fixed)
    stand_ins = [companion or scan for companion, scan in zip(companions, scans, strict=True)]
    kept = dict.fromkeys((*scans, *stand_ins))  # each once
    volumes = [v for s in kept for v in (s.image, s.labels, s.mask, s.lesion) if v is not None]
    examined = sum(not _is_template(scan, recipe) for scan in stand_ins)
    for is_head in (_may_be_head, _is_head):  # the second looks at the voxels
        heads = sum(is_head(scan, recipe, preparation) for scan in stand_ins)
        sizes = Volumes(
            fixed=math.prod(fixed.grid.shape),
            moving=math.prod(moving.grid.shape),
            stored=sum(volume.data.nbytes for volume in volumes),
            working=math.prod(recipe.grid.shape),
            heads=heads,
            brains=examined - heads,
            deformable=deformable,
            refined=refined,
        )
        if (need := predicted_memory(sizes)) <= available:
            return
    raise NotEnoughMemoryError(
        f"moving image {moving.name} ({_shape(moving)} voxels) and fixed image {fixed.name} "
        f"({_shape(fixed)}): to register them takes about {need / 1e9:.1f} GB of memory, but only "
        f"{available / 1e9:.1f} GB are free; resample them to larger voxels, such as 1 mm, or "
        f"free some memory"
    )


def _may_be_head(scan: Scan, recipe: Recipe, preparation: Preparation) -> bool:
    """Whether the brain of a scan may have to be extracted."""
    if recipe.template is None or _is_template(scan, recipe) or scan.mask is not None:
        return False
    return preparation.brain_extract != "no"


def _is_template(scan: Scan, recipe: Recipe) -> bool:
    return recipe.template is not None and scan.image is recipe.template.image


def _is_head(scan: Scan, recipe: Recipe, preparation: Preparation) -> bool:
    if not _may_be_head(scan, recipe, preparation):
        return False
    return preparation.brain_extract == "yes" or not is_extracted(scan.image)


def _shape(scan: Scan) -> str:
    return "×".join(map(str, scan.grid.shape))
