"""Phases follow each other; the rate warms up in each of them, and falls as one cosine."""

import math

import numpy as np
import pytest
from runs import steps_of

from training import config_of
from voxwarp.training.schedule import learning_rate, phase_at

pytestmark = pytest.mark.usefixtures("memory_suffices")


def test_the_phases_follow_each_other(subjects) -> None:
    phases = [{"steps": 3, "downsample": 2}, {"steps": 2}]
    config = config_of(subjects, phases=phases)
    assert [phase_at(config, step).downsample for step in range(6)] == [2, 2, 2, 1, 1, 1]


def test_the_rate_warms_up_in_each_phase_and_falls_as_one_cosine(subjects) -> None:
    settings = {"learning_rate": 0.5, "warm_up": 10, "final": 0.01}
    config = config_of(subjects, optimiser=settings, phases=[{"steps": 100}, {"steps": 100}])

    def cosine(step: int) -> float:
        return 0.01 + 0.99 * (1 + math.cos(math.pi * step / 200)) / 2

    warmth = {0: 0.1, 4: 0.5, 9: 1, 10: 1, 50: 1, 99: 1, 100: 0.1, 109: 1, 150: 1, 199: 1}
    for step, warm in warmth.items():
        assert learning_rate(config, step) == pytest.approx(0.5 * warm * cosine(step))
    assert learning_rate(config, 200) == pytest.approx(0.5 * 0.01)


def test_a_warm_up_longer_than_its_phase_goes_no_further(subjects) -> None:
    settings = {"learning_rate": 1.0, "warm_up": 8, "final": 1.0}
    config = config_of(subjects, optimiser=settings, phases=[{"steps": 4}, {"steps": 20}])
    rates = [learning_rate(config, step) for step in range(14)]
    assert rates == pytest.approx([*np.arange(1, 5) / 8, *np.arange(1, 9) / 8, 1, 1])


def test_the_rate_is_the_optimisers(subjects) -> None:
    config = config_of(subjects, phases=[{"steps": 3}])
    rates = [learner.optimizer.param_groups[0]["lr"] for learner, _ in steps_of(config, 3)]
    assert rates == [learning_rate(config, step) for step in range(3)]
