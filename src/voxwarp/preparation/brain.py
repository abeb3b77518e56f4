"""Brain extraction: tell a head from a brain, find the brain's mask in a head."""

import warnings
from collections.abc import Callable
from dataclasses import replace
from threading import Lock

import nibabel as nib
import numpy as np

from ..errors import InputError
from ..named import function_named
from ..space.volume import Volume

#: From a head, on a grid with axes near R, A, S, to a boolean mask of its shape.
Extractor = Callable[[Volume], np.ndarray]

# A brain with its meninges, mL: less than a newborn's half, more than the largest on record.
SMALLEST, LARGEST = 150.0, 2300.0
LEEWAY = 300.0  # mL: masks of tools that keep the meninges are larger

_FILTERS = Lock()  # of warnings, which are the process's, while two scans are prepared


def is_extracted(scan: Volume) -> bool:
    """Whether a scan shows a brain alone, the rest set to one value, rather than a head.

    Then the border of the image is of that one value and what remains is no larger than a brain.
    A head fills 2500 mL and more, and its neck or the noise of the air reach the border.
    """
    sides = [np.take(scan.data, i, axis).ravel() for axis in range(3) for i in (0, -1)]
    values, counts = np.unique(np.concatenate(sides), return_counts=True)
    if counts.max() <= 0.97 * counts.sum():
        return False
    # Resampled by splines, a brain rings faintly into the background: that is not foreground.
    contrast = np.abs(scan.data.astype(np.float32) - np.float32(values[counts.argmax()]))
    bright = np.percentile(contrast[contrast > 0], 99) if contrast.any() else 0.0
    return millilitres(contrast > 0.02 * bright, scan) < LARGEST


def millilitres(mask: np.ndarray, on: Volume) -> float:
    """Volume of a mask on the grid of ``on``, mL."""
    return float(mask.sum() * abs(np.linalg.det(on.grid.affine[:3, :3])) / 1000)


def extractor(name: str) -> Extractor:
    """The extractor of that name, or any function named as ``module:function``.

    Raises:
        InputError: there is none.
    """
    if name in EXTRACTORS:
        return EXTRACTORS[name]
    return function_named(name, "extractor", EXTRACTORS)


def extract(head: Volume, name: str) -> np.ndarray:
    """Mask of the brain in a head, on the head's grid.

    Args:
        head: about 1 mm, axes near R, A, S.
        name: see ``extractor``.

    Raises:
        InputError: no brain is found, or what is found has not the size of a brain.
    """
    find = extractor(name)
    if name in EXTRACTORS:
        mask = np.asarray(find(head), dtype=bool)
    else:
        try:
            mask = np.asarray(find(replace(head, data=head.data.copy())), dtype=bool)
        except InputError:
            raise
        except Exception as error:  # the user's code, the user's matter
            raise InputError(f"extractor {name!r}: {type(error).__name__}: {error}") from error
    if mask.shape != head.data.shape:
        raise InputError(
            f"extractor {name!r}: a mask of shape {head.data.shape} is wanted, got {mask.shape}"
        )
    check_size(mask, head)
    return mask


def check_size(mask: np.ndarray, head: Volume) -> None:
    """Refuse a mask that cannot be a brain's.

    Raises:
        InputError: it is empty, too small or too large.
    """
    size = millilitres(mask, head)
    if not SMALLEST <= size <= LARGEST + LEEWAY:
        found = f"{size:.0f} mL were found" if size else "nothing was found"
        raise InputError(
            f"{head.name}: no brain in it, {found} ({SMALLEST:.0f} to {LARGEST + LEEWAY:.0f} mL "
            f"are wanted); a mask of the brain can be given"
        )


def deepbet(head: Volume) -> np.ndarray:
    """Deepbet's mask (Fisch et al., 2024, doi:10.1016/j.compbiomed.2024.108845).

    Trained on T1-weighted heads; what it makes of other contrasts is worth a look.
    """
    with _FILTERS, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of torch.jit, which it is saved by
        from deepbet import BrainExtraction

        network = BrainExtraction(no_gpu=True)  # anew each time: it keeps state while it runs
    try:
        _, mask, _ = network.run(nib.Nifti1Image(head.data.astype(np.float32), np.eye(4)))
    except (AssertionError, ValueError) as error:
        if "Not enough foreground" in str(error) or "empty sequence" in str(error):
            return np.zeros(head.data.shape, dtype=bool)  # nothing to draw a box around
        raise
    return np.asarray(mask.dataobj) > 0


EXTRACTORS: dict[str, Extractor] = {"deepbet": deepbet}
