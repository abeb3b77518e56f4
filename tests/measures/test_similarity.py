"""Similarity of images against counting and closed forms."""

import numpy as np
import pytest
import torch
from phantoms import (
    blobs,
)

from voxwarp.measures.similarity import similarity

SHAPE = (12, 13, 14)


def image(seed: int, shape: tuple[int, int, int] = (30, 32, 34)) -> torch.Tensor:
    """A textured ball of radius 10 in [0, 1] on zero."""
    x = np.stack(np.indices(shape), axis=-1) - (np.asarray(shape) - 1) / 2
    rng = np.random.default_rng(seed)
    texture = 0.3 + 0.5 * blobs(seed, shape) + 0.2 * rng.uniform(size=shape)
    return torch.from_numpy((texture * ((x**2).sum(-1) < 100)).astype(np.float32))


def test_the_similarity_of_identical_images_is_one() -> None:
    got = similarity(moved=image(1), fixed=image(1))
    assert got == {"local_ncc": pytest.approx(1, abs=1e-3), "correlation": pytest.approx(1)}


def test_similarity_is_that_of_2_mm_blocks_of_the_brain() -> None:
    fixed, moved = image(1), 0.2 * image(1) + 0.8 * image(2)
    f, m = (
        x.numpy().astype(np.float64).reshape(15, 2, 16, 2, 17, 2).mean(axis=(1, 3, 5))
        for x in (fixed, moved)
    )
    brain = f > 0
    local = []
    for p in np.argwhere(brain):
        box = tuple(slice(max(0, i - 2), i + 3) for i in p)
        a, b = f[box] - f[box].mean(), m[box] - m[box].mean()
        local.append((a * b).sum() ** 2 / ((a * a).sum() * (b * b).sum() + 1e-5))
    got = similarity(moved=moved, fixed=fixed)
    assert 0.1 < got["local_ncc"] < 0.9
    assert got["local_ncc"] == pytest.approx(np.mean(local), abs=1e-3)
    assert got["correlation"] == pytest.approx(np.corrcoef(f[brain], m[brain])[0, 1], abs=1e-4)


def test_a_negative_is_similar_locally_and_not_overall() -> None:
    fixed = image(1)
    got = similarity(moved=torch.where(fixed > 0, 1 - fixed, fixed.new_zeros(())), fixed=fixed)
    assert got["correlation"] < 0.5
    inverted = similarity(moved=1 - fixed, fixed=fixed)
    assert inverted["correlation"] == pytest.approx(-1, abs=1e-4)
    assert inverted["local_ncc"] == pytest.approx(1, abs=1e-3)


def test_the_background_does_not_count() -> None:
    fixed, moved = image(1), image(2)
    around = torch.zeros(46, 48, 50)
    wide = [around.clone() for _ in range(2)]
    for out, inner in zip(wide, (fixed, moved), strict=True):
        out[8:38, 8:40, 8:42] = inner
    got = similarity(moved=wide[1], fixed=wide[0])
    assert got == pytest.approx(similarity(moved=moved, fixed=fixed), abs=1e-4)


def test_the_similarity_is_zero_without_a_brain_or_contrast() -> None:
    none = {"local_ncc": 0.0, "correlation": 0.0}
    assert similarity(moved=torch.rand(16, 16, 16), fixed=torch.zeros(16, 16, 16)) == none
    assert similarity(moved=torch.zeros(30, 32, 34), fixed=image(1)) == pytest.approx(
        none, abs=1e-6
    )
