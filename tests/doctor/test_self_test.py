"""The self-test: its known map, and that it finds a registration that went wrong."""

from types import SimpleNamespace

import numpy as np
import pytest

from voxwarp.doctor import self_test
from voxwarp.doctor.self_test import KnownMap, Outcome


@pytest.fixture(scope="module")
def points() -> np.ndarray:
    return np.random.default_rng(0).uniform(-90, 90, (500, 3))


def test_the_known_map_has_no_folds(points):
    """By central differences: the determinant is near that of the affine part."""
    step = 1e-3
    columns = [
        (KnownMap().map(points + step * e) - KnownMap().map(points - step * e)) / (2 * step)
        for e in np.eye(3)
    ]
    determinants = np.linalg.det(np.stack(columns, axis=-1))
    affine = np.linalg.det(KnownMap().matrix)
    assert determinants.min() > 0.5 * affine
    assert determinants.max() < 1.5 * affine
    assert determinants.std() > 0.001  # it is more than an affine map


def test_the_shipped_model_passes():
    outcome = self_test.run()
    assert outcome.problem == ""
    assert outcome.folds == 0
    assert outcome.mean_error_mm < outcome.error_before_mm / 5


class Same:
    """Maps every point to itself, times a factor."""

    def __init__(self, factor: float):
        self.factor = factor

    def map(self, points: np.ndarray) -> np.ndarray:
        return self.factor * points


@pytest.mark.parametrize("factor", [1.0, np.nan], ids=["nothing moved", "not a number"])
def test_a_wrong_registration_is_found(monkeypatch, factor):
    def register(*args: object, **options: object) -> SimpleNamespace:
        return SimpleNamespace(transform=Same(factor), metrics={"jacobian": {"folds": 0}})

    monkeypatch.setattr(self_test, "register", register)
    assert "off by" in self_test.run().problem


def test_the_exact_answer_has_no_error(monkeypatch):
    class Answer:
        def map(self, points: np.ndarray) -> np.ndarray:
            """Solve ψ(y) = x by fixed-point iteration."""
            truth = KnownMap()
            inverse = np.linalg.inv(truth.matrix).T
            y = points
            for _ in range(60):
                y = y - (truth.map(y) - points) @ inverse
            return y

    def register(*args: object, **options: object) -> SimpleNamespace:
        return SimpleNamespace(transform=Answer(), metrics={"jacobian": {"folds": 0}})

    monkeypatch.setattr(self_test, "register", register)
    outcome = self_test.run()
    assert outcome.mean_error_mm < 1e-6
    assert outcome.error_before_mm > 5


def test_folds_are_a_problem():
    assert "3 folded voxels" in Outcome(0.5, 11.0, 3, 1.0).problem
    assert Outcome(0.5, 11.0, 0, 1.0).problem == ""
