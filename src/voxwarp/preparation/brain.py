"""Brain extraction: tell heads from skull-stripped brains, and find the brain mask of a head."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from importlib import import_module
from threading import Lock, Thread

import nibabel as nib
import numpy as np

from .._named import function_named
from ..errors import InputError
from ..space.volume import Volume

#: A function from a head, with axes near R, A, S, to its brain mask: a boolean array of its shape.
Extractor = Callable[[Volume], np.ndarray]

# Volume of a brain with its meninges, mL: less than half of a newborn's, more than the largest on
# record.
SMALLEST, LARGEST = 150.0, 2300.0
LEEWAY = 300.0  # mL by which a mask may be larger, because some tools keep the meninges; by hand

_FILTERS = Lock()  # the filters of warnings belong to the process, and two threads prepare scans


def is_extracted(scan: Volume) -> bool:
    """Whether a scan is skull-stripped, rather than a head.

    Around a skull-stripped brain all voxels have one value: the border of the image has that value,
    and what differs from it is not larger than a brain. A head fills at least 2500 mL, and its neck
    or the noise of the air reaches the border. The limits are set by hand; all skull-stripped scans
    of benchmarks/extraction.csv pass.
    """
    sides = [np.take(scan.data, i, axis).ravel() for axis in range(3) for i in (0, -1)]
    values, counts = np.unique(np.concatenate(sides), return_counts=True)
    if counts.max() <= 0.97 * counts.sum():
        return False
    # A brain that was resampled with splines rings faintly into the background.
    contrast = np.abs(scan.data.astype(np.float32) - np.float32(values[counts.argmax()]))
    bright = np.percentile(contrast[contrast > 0], 99) if contrast.any() else 0.0
    return millilitres(contrast > 0.02 * bright, scan) < LARGEST


def millilitres(mask: np.ndarray, volume: Volume) -> float:
    """Return the volume of a mask, mL, with the voxel size of ``volume``."""
    return float(mask.sum() * abs(np.linalg.det(volume.grid.affine[:3, :3])) / 1000)


def extractor(name: str) -> Extractor:
    """Return an extractor by its name in ``EXTRACTORS``, or a function by ``module:function``.

    Raises:
        InputError: it does not exist.
    """
    if name in EXTRACTORS:
        return EXTRACTORS[name]
    return function_named(name, "extractor", EXTRACTORS)


def load_in_background(name: str) -> None:
    """Begin to load an extractor, so that it is there when the head has been made ready for it."""

    def load() -> None:
        with suppress(Exception), _without_deprecations():  # raised when the extractor is used
            import_module(name)

    if name == "deepbet":
        Thread(target=load, daemon=True).start()


def extract(head: Volume, name: str) -> np.ndarray:
    """Extract the brain of a head.

    Args:
        head: voxels of about 1 mm, axes near R, A, S.
        name: see ``extractor``.

    Returns:
        The brain mask: a boolean array of the head's shape.

    Raises:
        InputError: the extractor fails, or its mask is empty, too small or too large.
    """
    function = extractor(name)
    if name in EXTRACTORS:
        mask = np.asarray(function(head), dtype=bool)
    else:
        try:
            mask = np.asarray(function(replace(head, data=head.data.copy())), dtype=bool)
        except InputError:
            raise
        except Exception as error:  # the user's own code may raise anything
            raise InputError(
                f"extractor {name!r} failed on {head.name}: {type(error).__name__}: {error}"
            ) from error
    if mask.shape != head.data.shape:
        raise InputError(
            f"extractor {name!r} must return a mask of the shape of the head, {head.data.shape}, "
            f"got {mask.shape}"
        )
    if problem := wrong_size(mask, head):
        raise InputError(
            f"no brain found in {head.name}: the extracted mask {problem}; give a brain mask with "
            f"`mask`"
        )
    return mask


def wrong_size(mask: np.ndarray, volume: Volume) -> str | None:
    """Say what is wrong with the volume of a brain mask; None if it can be a brain.

    Args:
        mask: boolean.
        volume: whose voxel size counts.
    """
    size = millilitres(mask, volume)
    if SMALLEST <= size <= LARGEST + LEEWAY:
        return None
    expected = f"a brain has {SMALLEST:.0f} to {LARGEST + LEEWAY:.0f} mL"
    return f"has {size:.0f} mL, {expected}" if size else f"is empty, {expected}"


@contextmanager
def _without_deprecations() -> Iterator[None]:
    """Ignore warnings that torch.jit is deprecated, with which deepbet's network was saved."""
    with _FILTERS, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)  # what it is from PyTorch 2.14 on
        yield


def deepbet_loads() -> None:
    """Load deepbet and its network; whatever is wrong with them is raised."""
    with _without_deprecations():
        from deepbet import BrainExtraction

        BrainExtraction(no_gpu=True)


def deepbet(head: Volume) -> np.ndarray:
    """Extract the brain with deepbet (Fisch et al., 2024, doi:10.1016/j.compbiomed.2024.108845).

    It was trained on T1-weighted heads; check its masks of other contrasts.
    """
    with _without_deprecations():
        from deepbet import BrainExtraction

        network = BrainExtraction(no_gpu=True)  # a new one each time: it has state while it runs
    try:
        _, mask, _ = network.run(nib.Nifti1Image(head.data.astype(np.float32), np.eye(4)))
    except (AssertionError, ValueError) as error:
        if "Not enough foreground" in str(error) or "empty sequence" in str(error):
            return np.zeros(head.data.shape, dtype=bool)  # it found no foreground at all
        raise
    return np.asarray(mask.dataobj) > 0


EXTRACTORS: dict[str, Extractor] = {"deepbet": deepbet}
