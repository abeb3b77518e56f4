"""Intervals and tests, compared with all possible draws, SciPy and simulated studies."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from scipy import stats

from voxwarp.errors import InputError
from voxwarp.evaluation.results import Results, reference_of
from voxwarp.evaluation.rows import Row
from voxwarp.evaluation.statistics import bootstrap_over_subjects, compare, wilcoxon

SUBJECTS = ("1003", "1005", "1018")
INTER = [*itertools.permutations(SUBJECTS, 2)]
RETEST = [(subject, subject) for subject in SUBJECTS for _ in range(2)]


def bootstrap(values: Sequence[float], pairs: Sequence[tuple[str, str]], **more: Any) -> tuple:
    moving, fixed = zip(*pairs, strict=True)
    return bootstrap_over_subjects(values, moving, fixed, **more)


def every_draw(values: Sequence[float], pairs: Sequence[tuple[str, str]]) -> list[float]:
    """Sorted means of all draws of the subjects that leave a pair, by loops."""
    subjects = sorted({subject for pair in pairs for subject in pair})
    means = []
    for drawn in itertools.product(subjects, repeat=len(subjects)):
        total = weight = 0.0
        for value, (i, j) in zip(values, pairs, strict=True):
            times = drawn.count(i) if i == j else drawn.count(i) * drawn.count(j)
            total, weight = total + times * value, weight + times
        if weight:
            means.append(total / weight)
    return sorted(means)


@pytest.mark.parametrize(
    ("pairs", "draws", "tails"),
    [
        (INTER, 24, (0.025, 1.5 / 24, 4.5 / 24, 7.5 / 24)),  # 27, less the 3 of one subject
        (RETEST, 27, (0.02, 2 / 27, 5.5 / 27)),
        (INTER + RETEST[:3], 26, (0.02, 2.5 / 26)),  # one subject has no other scan
        (INTER[:2] + INTER[3:], 24, (0.025, 1.5 / 24)),
    ],
    ids=["inter", "retest", "results", "without one pair"],
)
def test_three_subjects_against_all_their_draws(
    pairs: list[tuple[str, str]], draws: int, tails: tuple[float, ...]
) -> None:
    values = np.random.default_rng(2).normal(0.7, 0.1, len(pairs))
    means = every_draw(values, pairs)
    assert len(means) == draws
    for tail in tails:  # each in the middle of a step of the exact distribution
        exact = np.quantile(means, [tail, 1 - tail], method="inverted_cdf")
        mean, *interval = bootstrap(values, pairs, level=1 - 2 * tail)
        assert mean == pytest.approx(values.mean(), abs=1e-14)
        np.testing.assert_allclose(interval, exact, rtol=0, atol=1e-12)


def test_the_distribution_of_the_draws() -> None:
    """Not only its ends: nine deciles, with four subjects and some missing pairs."""
    pairs = [*itertools.permutations("abcd", 2), ("b", "b"), ("c", "c")][2:]
    values = np.random.default_rng(3).normal(size=len(pairs))
    exact = np.array(every_draw(values, pairs))
    for level in np.arange(0.1, 1, 0.1):
        _, low, high = bootstrap(values, pairs, level=level, draws=20_000)
        below, above = (exact <= low + 1e-9).mean(), (exact < high - 1e-9).mean()
        assert below > (1 - level) / 2 - 0.01
        assert above < (1 + level) / 2 + 0.01
        assert (exact < low - 1e-9).mean() < (1 - level) / 2 + 0.01
        assert (exact <= high + 1e-9).mean() > (1 + level) / 2 - 0.01


def test_one_pair_a_subject_is_the_ordinary_bootstrap() -> None:
    values = np.random.default_rng(5).gamma(2.0, size=15)
    _, *comparison = bootstrap(values, [(f"{i:02}",) * 2 for i in range(15)], draws=40_000)
    drawn = np.random.default_rng(1).choice(values, (40_000, 15)).mean(axis=1)
    expected = np.quantile(drawn, [0.025, 0.975])
    np.testing.assert_allclose(comparison, expected, rtol=0, atol=0.02 * np.ptp(expected))


def test_the_order_of_the_pairs_and_the_names_of_subjects_do_not_matter() -> None:
    values = np.random.default_rng(7).normal(size=6).tolist()
    expected = bootstrap(values, INTER)
    for order in itertools.islice(itertools.permutations(range(6)), 0, 720, 97):
        assert bootstrap([values[i] for i in order], [INTER[i] for i in order]) == expected
    renamed = [(f"sub-{i}", f"sub-{j}") for i, j in INTER]
    assert bootstrap(values, renamed) == expected


def test_a_shift_and_a_scale_go_through() -> None:
    values = np.random.default_rng(8).normal(size=6)
    mean, low, high = bootstrap(values, INTER)
    np.testing.assert_allclose(
        bootstrap(3 * values + 100, INTER), 3 * np.array([mean, low, high]) + 100
    )
    np.testing.assert_allclose(bootstrap(-values, INTER), (-mean, -high, -low), atol=0.02)
    assert bootstrap([0.5] * 6, INTER) == (0.5, 0.5, 0.5)


def test_nan_is_left_out() -> None:
    values = [0.1, math.nan, 0.2, 0.4, math.nan, 0.3]
    known = [i for i in range(6) if not math.isnan(values[i])]
    expected = bootstrap([values[i] for i in known], [INTER[i] for i in known])
    assert bootstrap(values, INTER) == expected


def test_too_few_subjects_to_say() -> None:
    comparison = bootstrap([0.4, 0.6], [("a", "b"), ("b", "a")])
    assert comparison.mean == 0.5
    assert math.isnan(comparison.low)
    assert math.isnan(comparison.high)
    lost = bootstrap([0.4, math.nan], [("a", "b"), ("b", "c")])  # c has no value
    assert lost.mean == 0.4
    assert math.isnan(lost.low)
    assert all(map(math.isnan, bootstrap_over_subjects([], [], [])))
    assert all(map(math.isnan, bootstrap([math.nan], [("a", "b")])))
    with pytest.raises(ValueError, match="zip"):
        bootstrap_over_subjects([1.0], ["a", "b"], ["b", "a"])


def test_subjects_not_pairs_make_intervals_that_hold() -> None:
    """Simulated studies of 12 subjects whose brains differ: 95 % should hold, few do by pairs."""
    random, studies = np.random.default_rng(11), 300
    pairs = [*itertools.permutations(range(12), 2)]
    names = [(f"{i:02}", f"{j:02}") for i, j in pairs]
    held = by_pairs = 0
    for study in range(studies):
        one, other = random.normal(size=(2, 12))
        values = np.array([one[i] + other[j] for i, j in pairs]) + random.normal(0, 0.5, len(pairs))
        _, low, high = bootstrap(values, names, draws=400, seed=study)
        held += low < 0 < high
        by_pairs += abs(values.mean()) < 1.96 * values.std() / math.sqrt(len(values))
    assert 0.84 < held / studies < 0.99
    assert by_pairs / studies < 0.6


@pytest.mark.parametrize("n", [3, 6, 10])
def test_wilcoxon_of_one_sign(n: int) -> None:
    """All ranks on one side: 2 of the 2^n signs are as extreme."""
    assert wilcoxon(np.arange(1, n + 1) / 100) == pytest.approx(2 / 2**n)


def test_wilcoxon_by_all_signs() -> None:
    differences = np.array([0.3, -0.1, 0.7, 0.2, -0.5, 1.1, 0.4])
    ranks = stats.rankdata(np.abs(differences))
    observed = abs(ranks @ np.sign(differences))
    extreme = [
        abs(ranks @ signs) >= observed for signs in itertools.product((-1, 1), repeat=len(ranks))
    ]
    assert wilcoxon([*differences, math.nan]) == pytest.approx(np.mean(extreme))


def test_wilcoxon_is_scipy_s() -> None:
    differences = np.random.default_rng(3).normal(0.2, 1, 40).round(1)  # ties and zeros
    assert wilcoxon(differences) == stats.wilcoxon(differences).pvalue


def test_wilcoxon_without_differences() -> None:
    assert wilcoxon([0.0, 0.0, 0.0]) == 1
    assert math.isnan(wilcoxon([]))
    assert math.isnan(wilcoxon([math.nan]))
    assert wilcoxon([0.0, 0.1]) == 1  # one of two signs; no warning of few pairs


def rows(method: str, dice: Sequence[float], **more: Any) -> list[Row]:
    about = {"method": method, "kind": "inter", "status": "ok", "labels": "nearest", "timed": "no"}
    return [
        {**about, "moving": f"s{i}", "fixed": f"s{j}", "moving_subject": i, "fixed_subject": j}
        | {"dice": value, "folds": 10 * value, **more}
        for value, (i, j) in zip(dice, INTER, strict=False)
    ]


def test_a_comparison_by_hand() -> None:
    ours = rows("ours", [0.8, 0.7, 0.9, math.nan, 0.6, 0.9])
    theirs = rows("theirs", [0.7, 0.5, 0.6, 0.1, 0.1])  # one pair less
    theirs[4]["status"] = "failed"
    comparison = compare(Results(ours + theirs[::-1], []), "ours", "theirs")
    assert (comparison.method, comparison.reference, comparison.pairs) == ("ours", "theirs", 3)
    assert comparison.difference.mean == pytest.approx(0.2)  # of 0.1, 0.2, 0.3
    assert comparison.p == pytest.approx(2 / 8)
    expected = bootstrap([0.1, 0.2, 0.3], INTER[:3])
    np.testing.assert_allclose(comparison.difference, expected, atol=1e-12)


def test_the_other_way_round() -> None:
    random = np.random.default_rng(1)
    results = Results(rows("a", random.random(6)) + rows("b", random.random(6)), [])
    one, other = compare(results, "a", "b"), compare(results, "b", "a")
    assert one.p == other.p
    assert one.difference.mean == pytest.approx(-other.difference.mean)
    folds = compare(results, "a", "b", "folds")
    np.testing.assert_allclose(folds.difference, 10 * np.array(one.difference))


def test_kinds_do_not_mix() -> None:
    inter = rows("a", [0.5] * 6) + rows("b", [0.4] * 6)
    others = rows("a", [0.9, 0.9], kind="retest") + rows("b", [0.2, 0.4], kind="retest")
    results = Results(inter + others, [])
    assert compare(results, "a", "b").difference == pytest.approx((0.1, 0.1, 0.1))
    assert compare(results, "a", "b", kind="retest").difference.mean == pytest.approx(0.6)


def test_no_common_pairs() -> None:
    ours, theirs = rows("a", [0.5] * 6)[:3], rows("b", [0.5] * 6)[3:]
    comparison = compare(Results(ours + theirs, []), "a", "b")
    assert comparison.pairs == 0
    assert math.isnan(comparison.p)
    assert all(map(math.isnan, comparison.difference))


def test_comparisons_that_are_refused() -> None:
    results = Results(rows("a", [0.5] * 6) + rows("b", [0.5] * 6), [])
    with pytest.raises(
        InputError, match="method 'c': has no rows; the methods with rows are: a, b"
    ):
        compare(results, "a", "c")
    with pytest.raises(InputError, match=r"value must be one of dice, .*got 'device'"):
        compare(results, "a", "b", "device")
    mixed = Results(rows("a", [0.5] * 6) + rows("a", [0.5] * 6, labels="linear"), [])
    with pytest.raises(InputError, match=r"two ways \(nearest and linear\)"):
        compare(mixed, "a", "a")
    with pytest.raises(InputError, match="has no rows; the methods with rows are: none"):
        reference_of(Results([], []), None)
