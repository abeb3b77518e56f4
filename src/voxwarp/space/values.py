"""What the values of an image are: labels or intensities, whole numbers, the background."""

from typing import NamedTuple

import numpy as np

from ..errors import InputError

# All limits are set by hand (docs/thresholds.md).
FEW_VALUES = 32  # segmentations have few labels, and an 8-bit scan uses most of its 256 values
FLAT = 0.5  # share of pairs of neighbours that are equal
CLOSE_CALL = (0.25, 0.65)  # of that share
AIR = 16  # values; so many of the commonest may be those of the air around a head
WHOLE = 1e-6  # relative to the value, and at least to 1: slopes and values have 32 bits
BORDER = 0.9  # share of the outer voxels that have one value
FAR_FROM_ZERO = 0.05  # of the range of an image

_NEIGHBOURS = slice(None, -1), slice(1, None)


def whole_numbers(data: np.ndarray) -> np.ndarray | None:
    """Values of any type as integers, int32 or wider; None if they are not all whole numbers.

    Rounding is forgiven (one part in a million), as it comes from a scaling of 1.0000001; but not
    that all of the values of an image become zero.
    """
    if data.dtype.kind in "iub":
        return data
    if not _are_whole(data.ravel(order="K")[:: max(1, data.size // 4096)]) or not _are_whole(data):
        return None
    rounded = np.rint(data)
    if data.any() and not rounded.any():
        return None
    largest = np.abs(rounded).max(initial=0)
    return None if largest >= 2**63 else rounded.astype(np.int64 if largest >= 2**31 else np.int32)


def _are_whole(data: np.ndarray) -> bool:
    with np.errstate(invalid="ignore"):  # infinite values
        error = np.abs(data - np.rint(data))
        return bool((error <= WHOLE * np.maximum(1, np.abs(data))).all())


class LabelEvidence(NamedTuple):
    """Whether the values of an image are labels.

    Args:
        holds_labels: whether they are taken for labels.
        is_doubtful: whether it is a close call.
    """

    holds_labels: bool
    is_doubtful: bool


def label_evidence(frame: np.ndarray) -> LabelEvidence:
    """Tell labels from intensities by the values, (X, Y, Z) of any type.

    Intensities are often stored as integers, and labels as floats. Integers are labels if there
    are at most ``FEW_VALUES`` of them; whole numbers in any type are, if they come in flat
    patches: at least half of the pairs of neighbouring voxels, apart from those of the commonest
    value, are equal. NaN and infinite voxels do not count.

    The air around a head has few values, many of them beside their equals. So what is flat by
    its ``AIR`` commonest values alone is intensities, without a doubt.
    """
    numbers = whole_numbers(_without_infinite(frame))
    if numbers is None:
        return LabelEvidence(False, False)
    values, counts = np.unique(numbers, return_counts=True)
    is_few = len(values) <= FEW_VALUES
    # The commonest value is the background, which is flat in scans too. It need not be zero.
    common = values[np.argsort(-counts, kind="stable")]
    share = _equal_neighbours(numbers, common[:1])
    low, high = CLOSE_CALL
    if is_few and frame.dtype.kind != "f":
        return LabelEvidence(True, len(values) > 2 and share < low)  # two: a mask
    if is_few or not low <= share < FLAT:
        return LabelEvidence(share >= FLAT, share < FLAT if is_few else low <= share < high)
    return LabelEvidence(False, _equal_neighbours(numbers, common[:AIR]) >= low)


def _without_infinite(frame: np.ndarray) -> np.ndarray:
    """The frame with 0 in place of NaN and infinity."""
    if frame.dtype.kind != "f" or np.isfinite(frame).all():
        return frame
    return np.where(np.isfinite(frame), frame, 0)


def _equal_neighbours(frame: np.ndarray, background: np.ndarray) -> float:
    """The share of pairs of neighbours that are equal, of those without values of the background.

    0 if there are no such pairs.
    """
    inside = ~np.isin(frame, background)
    pairs, equal = 0, 0
    for axis in range(3):
        first, second = (np.moveaxis(frame, axis, 0)[part] for part in _NEIGHBOURS)
        one, other = (np.moveaxis(inside, axis, 0)[part] for part in _NEIGHBOURS)
        foreground = one & other
        pairs += int(foreground.sum())
        equal += int((first == second)[foreground].sum())
    return equal / pairs if pairs else 0.0


class Background(NamedTuple):
    """What is outside of an image, by its outer voxels.

    Args:
        value: what is written there.
        doubt: why it may be wrong, the end of a sentence; "" if it is right.
    """

    value: float
    doubt: str = ""


def background_of(frame: np.ndarray) -> Background:
    """The background of an image (X, Y, Z): the value that its outer voxels have, or else 0.

    Air is −1024 in CT, and below 0 in z-scored images; SPM writes NaN outside of the brain. At
    least ``BORDER`` of the outer voxels must have the value; a constant image has no background.
    If they have no such value, and all are far from 0, 0 may be wrong.
    """
    border = _border(frame)
    values, counts = np.unique(border, return_counts=True)
    if counts.max() >= BORDER * border.size:
        value = values[counts.argmax()]
        has_none = np.isinf(value) or (frame == value).all()
        return Background(0.0 if has_none else float(value))
    finite = border[np.isfinite(border)]
    if not finite.size:
        return Background(0.0)
    low, high = float(finite.min()), float(finite.max())
    if low <= 0 <= high:
        return Background(0.0)
    values = frame[np.isfinite(frame)]
    extent = float(values.max()) - float(values.min())
    if max(low, -high) > FAR_FROM_ZERO * extent:
        return Background(0.0, f"0 was written there, but its outer voxels are {low:g} to {high:g}")
    return Background(0.0)


def _border(frame: np.ndarray) -> np.ndarray:
    """The outer voxels, (N,)."""
    inner = np.zeros(frame.shape, bool)
    inner[1:-1, 1:-1, 1:-1] = True
    return frame[~inner]


# Types that FSL and SPM do not read, or nibabel does not write.
_STORED = {"b1": np.uint8, "f2": np.float32, "f16": np.float64, "i8": np.int32, "u8": np.int32}


def storable(data: np.ndarray, name: str = "image") -> np.ndarray:
    """Values in a type that all tools read: FSL and SPM know no integers of 64 bits.

    Raises:
        InputError: an integer does not fit into 32 bits.
    """
    dtype = _STORED.get(f"{data.dtype.kind}{data.dtype.itemsize}")
    if dtype is None:
        return data
    if dtype is np.int32:
        limits = np.iinfo(np.int32)
        for value in (int(data.min(initial=0)), int(data.max(initial=0))):
            if not limits.min <= value <= limits.max:
                raise InputError(
                    f"{name}: the value {value} does not fit into 32 bits, and FSL and SPM read "
                    f"no integers of 64 bits; convert the image to float64, or its labels to "
                    f"smaller numbers"
                )
    return data.astype(dtype)
