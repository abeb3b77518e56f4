"""Whether scans can make one template."""

import numpy as np
import pytest

from voxwarp.errors import InputError
from voxwarp.templates.checks import check_labels, correlations, unlike

SHAPE = 12, 14, 10


def brain(seed: int, noise: float = 0.3, sign: float = 1.0) -> np.ndarray:
    """Brains of one seed of their contrast share their pattern; noise makes them differ."""
    pattern = np.random.default_rng(0).random(SHAPE)
    own = np.random.default_rng(seed).random(SHAPE)
    return 1 + sign * pattern + noise * own


def names(number: int) -> list[str]:
    return [f"sub-{i}" for i in range(number)]


def test_correlations_are_numpys_inside_both_brains() -> None:
    first, second = brain(1), brain(2)
    second[:4] = 0
    inside = second > 0
    expected = np.corrcoef(first[inside], second[inside])[0, 1]
    assert correlations([first, second])[0, 1] == pytest.approx(expected)


def test_one_contrast_is_fine() -> None:
    assert unlike(names(4), [brain(i) for i in range(4)], [True] * 4) == []


def test_a_scan_of_another_contrast_is_refused() -> None:
    images = [*(brain(i) for i in range(3)), brain(3, sign=-1)]
    with pytest.raises(
        InputError, match=r"different contrasts: the correlation of sub-3 with sub-0"
    ):
        unlike(names(4), images, [True, True, True, False])


def test_two_groups_are_refused_although_the_model_knows_neither() -> None:
    images = [brain(0), brain(1), brain(2), brain(3, sign=-1), brain(4, sign=-1)]
    with pytest.raises(InputError, match="different contrasts"):
        unlike(names(5), images, [False] * 5)


def test_a_single_odd_scan_of_a_known_contrast_is_left_out() -> None:
    noise = 1 + np.random.default_rng(5).random(SHAPE)
    images = [*(brain(i) for i in range(3)), noise]
    assert unlike(names(4), images, [True] * 4) == [3]


def test_of_two_unlike_scans_neither_is_right() -> None:
    with pytest.raises(InputError, match="different contrasts"):
        unlike(names(2), [brain(0), brain(1, sign=-1)], [True, True])


def test_maps_of_other_labels_are_refused() -> None:
    maps = {"a": [0, 1, 2, 3], "b": [0, 1, 2, 3], "c": [0, 10, 20, 30, 3]}
    with pytest.raises(InputError, match=r"labels of c: only 1 of its 4 labels .* \(10, 20, 30"):
        check_labels(maps)


def test_missing_labels_are_told() -> None:
    maps = {"a": [0, 1, 2, 3], "b": [0, 1, 2, 3], "c": [0, 1, 2]}
    assert check_labels(maps) == [
        "labels of c: of the labels that most maps have, 1 is missing (3)"
    ]
    assert check_labels({}) == []
