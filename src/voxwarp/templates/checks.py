"""Whether scans can make one template: of one contrast, and with label maps of one kind."""

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.sparse.csgraph import connected_components

from ..errors import InputError
from .averages import enough_to_trim
from .settings import TemplateSettings

# Pearson's correlation of two brains that are aligned by affine maps, at 4 mm, from which they are
# alike. T1-weighted brains of three sites have 0.41 to 0.74 with each other, with T2-weighted ones
# -0.35 or less. Set by hand.
ALIKE = 0.2
# Share of the labels that a map must have in common with those that most maps have. Set by hand.
COMMON_LABELS = 0.5


def correlations(images: Sequence[np.ndarray]) -> np.ndarray:
    """Pearson's correlation of each two images, where either has a brain.

    Args:
        images: (X, Y, Z) each, zero outside the brain.

    Returns:
        (N, N).
    """
    number = len(images)
    out = np.eye(number)
    for i in range(number):
        for j in range(i):
            inside = (images[i] > 0) & (images[j] > 0)
            pair = images[i][inside], images[j][inside]
            flat = not inside.any() or min(values.std() for values in pair) == 0
            out[i, j] = out[j, i] = 0.0 if flat else np.corrcoef(*pair)[0, 1]
    return out


def unlike(names: Sequence[str], images: Sequence[np.ndarray], known: Sequence[bool]) -> list[int]:
    """The scans that look like no other, and are to be left out.

    Two scans are alike from a correlation of ``ALIKE`` on, and those that a chain of such pairs
    joins are a group.

    Args:
        names: of the scans, for messages.
        images: of the brains, aligned by affine maps.
        known: whether the model knows the contrast of each.

    Returns:
        Their numbers.

    Raises:
        InputError: there are two groups, or a scan of another contrast.
    """
    values = correlations(images)
    _, groups = connected_components(values >= ALIKE, directed=False)
    largest = np.bincount(groups).argmax()
    main = [i for i, group in enumerate(groups) if group == largest]
    others = [i for i, group in enumerate(groups) if group != largest]
    if not others:
        return []
    is_known = np.mean([known[i] for i in main]) >= 0.5
    of_another = [i for i in others if known[i] != is_known]
    several = [i for i in others if np.sum(groups == groups[i]) > 1]
    wrong = of_another or several or (others if len(main) < 2 else [])
    if wrong:
        shown = ", ".join(names[i] for i in wrong[:5]) + (", ..." if len(wrong) > 5 else "")
        most = max(values[i, j] for i in wrong for j in main)
        rest = f"{names[main[0]]}{' and others like it' if len(main) > 1 else ''}"
        raise InputError(
            f"scans: they seem to be of different contrasts: the correlation of {shown} with "
            f"{rest} is {most:.2f} at most after affine alignment, expected at least {ALIKE}; make "
            f"a template of one contrast, and let others follow it with `also`"
        )
    return others


def check_enough(settings: TemplateSettings, persons: int) -> None:
    """Check that the average does what its name says.

    Raises:
        InputError: there are too few persons for a trimmed mean.
    """
    least = enough_to_trim(settings.symmetric)
    if settings.average == "trimmed" and persons < least:
        raise InputError(
            f"average=trimmed leaves out nobody of {persons} persons, it needs at least {least}; "
            f"use mean or median"
        )


def check_labels(labels: Mapping[str, Sequence[int]]) -> list[str]:
    """Check that label maps have the same labels, and say which lack some.

    Args:
        labels: the values of each map, by the name of its scan.

    Returns:
        A warning for each map that lacks a label that most have.

    Raises:
        InputError: a map has other labels.
    """
    counts: dict[int, int] = {}
    for values in labels.values():
        for value in values:
            counts[value] = counts.get(value, 0) + 1
    usual = {value for value, number in counts.items() if value and 2 * number > len(labels)}
    for name, values in labels.items():
        own = set(values) - {0}
        if len(own & usual) < COMMON_LABELS * max(len(own), len(usual), 1):
            raise InputError(
                f"labels of {name}: only {len(own & usual)} of its {len(own)} labels are among the "
                f"{len(usual)} that most maps have ({_some(own - usual)} are not); give label maps "
                f"of one kind"
            )
    return [
        f"labels of {name}: of the labels that most maps have, {len(missing)} "
        f"{'is' if len(missing) == 1 else 'are'} missing ({_some(missing)})"
        for name, values in labels.items()
        if (missing := usual - set(values))
    ]


def _some(values: set[int]) -> str:
    shown = ", ".join(map(str, sorted(values)[:5]))
    return f"{shown}, ..." if len(values) > 5 else shown
