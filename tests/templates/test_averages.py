"""Averages against NumPy and SciPy; votes against counting."""

from collections import Counter

import numpy as np
import pytest
from scipy import stats

from voxwarp.errors import InputError
from voxwarp.templates import averages
from voxwarp.templates.averages import (
    Votes,
    averaged,
    check_average,
    mean_and_spread,
    sharpened,
    sharpness,
)

SHAPE = 6, 5, 4


def images(number: int) -> list[np.ndarray]:
    return list(np.random.default_rng(0).random((number, *SHAPE)).astype(np.float32))


def each(number: int) -> list[list[int]]:
    return [[i] for i in range(number)]


@pytest.mark.parametrize("number", [2, 5, 20, 21])
@pytest.mark.parametrize("planes", [1, 2, 100])
def test_averages_are_those_of_numpy_and_scipy(
    number: int, planes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(averages, "PLANES_BYTES", planes * number * 20 * 4)
    made = images(number)
    expected = {
        "mean": np.mean(made, axis=0),
        "median": np.median(made, axis=0),
        "trimmed": stats.trim_mean(made, 0.1, axis=0),
    }
    for name, values in expected.items():
        found = averaged(made, each(number), name)  # type: ignore[arg-type]
        np.testing.assert_allclose(found, values, rtol=1e-6)


@pytest.mark.parametrize("name", ["mean", "median", "trimmed"])
def test_symmetric_average_is_that_with_the_mirror_images(name: str) -> None:
    made = images(5)
    found = averaged(made, each(5), name, symmetric=True)  # type: ignore[arg-type]
    both = [*made, *(one[::-1] for one in made)]
    np.testing.assert_allclose(found, averaged(both, each(10), name), rtol=1e-6)  # type: ignore[arg-type]
    np.testing.assert_array_equal(found, found[::-1])


@pytest.mark.parametrize("name", ["mean", "median", "trimmed"])
def test_every_person_counts_once(name: str) -> None:
    made = images(4)
    found = averaged(made, [[0, 1, 2], [3]], name)  # type: ignore[arg-type]
    expected = (np.mean(made[:3], axis=0) + made[3]) / 2
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_mean_and_spread_are_numpys() -> None:
    made = images(5)
    mean, spread = mean_and_spread(iter(made))
    np.testing.assert_allclose(mean, np.mean(made, axis=0), rtol=1e-6)
    np.testing.assert_allclose(spread, np.std(made, axis=0), atol=1e-6)


def test_other_averages_are_refused() -> None:
    with pytest.raises(InputError, match="average must be mean, median, trimmed, got 'mode'"):
        check_average("mode")


def test_votes_count_people() -> None:
    rng = np.random.default_rng(0)
    maps = [rng.integers(0, 4, SHAPE).astype(np.uint16) * 1000 for _ in range(7)]
    votes = Votes(maps, each(7))
    best, most = (votes.volume(values) for values in votes.winners())
    for index in np.ndindex(SHAPE):
        counts = Counter(int(one[index]) for one in maps)
        top = max(counts.values())
        expected = min(label for label, count in counts.items() if count == top)
        assert best[index] == expected
        if any(counts.keys() - {0}):
            assert most[index] == pytest.approx(top / 7)
        for label in votes.labels:
            share = votes.volume(votes.share(label))[index]
            assert share == pytest.approx(counts[label] / 7)
    assert votes.labels == [1000, 2000, 3000]


def test_two_scans_of_a_person_share_her_vote() -> None:
    first, second = np.full(SHAPE, 1, np.uint8), np.full(SHAPE, 2, np.uint8)
    votes = Votes([first, first, first, second, second], [[0, 1, 2], [3], [4]])
    best, most = votes.winners()
    assert (best == 2).all()
    np.testing.assert_allclose(most, 2 / 3, rtol=1e-6)


def test_sharpness_of_a_slope_is_its_gradient() -> None:
    slope = np.broadcast_to(np.arange(1.0, 11.0)[:, None, None], (10, 6, 6))
    inside = np.ones(slope.shape, bool)
    assert sharpness(slope, inside, (2.0, 1.0, 1.0)) == pytest.approx(0.5 / 5.5, rel=1e-6)


def test_sharpening_steepens_an_edge_within_its_range() -> None:
    step = np.full((24, 8, 8), 50.0, np.float32)
    step[:8], step[16:] = 0, 100
    step = np.where(np.arange(24)[:, None, None] < 4, 0, np.maximum(step, 20))
    sharp = sharpened(step)
    inside = step > 0
    assert sharpness(sharp, inside, (1, 1, 1)) > sharpness(step, inside, (1, 1, 1))
    assert sharp.max() <= 100
    assert (sharp[~inside] == 0).all()
    assert sharp[inside].min() >= 20
