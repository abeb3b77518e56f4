"""Mean stretches of affine maps: the rigid parts leave no trace."""

import numpy as np
import pytest
from scipy.linalg import expm, logm, polar
from scipy.spatial.transform import Rotation

from voxwarp.space.transform import Affine
from voxwarp.templates.linear import MIRROR, log_stretch, mean_stretch, stretch


def affine(linear: np.ndarray, shift: tuple[float, float, float] = (0, 0, 0)) -> Affine:
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = linear, shift
    return Affine(matrix)


def random_affines(number: int, seed: int = 0) -> list[Affine]:
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(number):
        symmetric = rng.normal(0, 0.1, (3, 3))
        rotation = Rotation.from_rotvec(rng.normal(0, 0.7, 3)).as_matrix()
        linear = rotation @ expm((symmetric + symmetric.T) / 2)
        made.append(affine(linear, tuple(rng.normal(0, 20, 3))))
    return made


def test_stretch_is_the_polar_factor() -> None:
    for one in random_affines(4):
        _, expected = polar(one.matrix[:3, :3])
        np.testing.assert_allclose(stretch(one), expected, atol=1e-12)
        np.testing.assert_allclose(log_stretch(one), logm(expected), atol=1e-10)


def test_mean_of_scalings_is_their_geometric_mean() -> None:
    maps = [affine(np.diag(scales)) for scales in ([1.0, 2.0, 4.0], [4.0, 2.0, 1.0])]
    found = mean_stretch(maps, [0.5, 0.5])
    np.testing.assert_allclose(found.matrix[:3, :3], np.diag([2.0, 2.0, 2.0]), atol=1e-12)
    weighted = mean_stretch(maps, [0.25, 0.75])
    expected = np.diag([4**0.75, 2.0, 4**0.25])
    np.testing.assert_allclose(weighted.matrix[:3, :3], expected, atol=1e-12)


def test_nothing_is_left_of_the_stretches_on_average() -> None:
    maps = random_affines(7)
    weights = np.random.default_rng(1).dirichlet(np.ones(7))
    mean = mean_stretch(maps, list(weights))
    back = mean.inverse()
    rest = sum(w * log_stretch(one.after(back)) for w, one in zip(weights, maps, strict=True))
    np.testing.assert_allclose(rest, np.zeros((3, 3)), atol=1e-10)
    np.testing.assert_allclose(mean.matrix[:3, 3], 0)


def test_rigid_parts_do_not_count() -> None:
    maps, turned = random_affines(5), []
    for number, one in enumerate(maps):
        rotation = Rotation.from_rotvec([0.3 * number, -1.0, 0.5]).as_matrix()
        turned.append(affine(rotation, (number, 3.0, -8.0)).after(one))
    equal = [0.2] * 5
    found, expected = mean_stretch(turned, equal), mean_stretch(maps, equal)
    np.testing.assert_allclose(found.matrix, expected.matrix, atol=1e-10)


def test_symmetric_mean_is_its_own_mirror_image() -> None:
    maps, equal = random_affines(5), [0.2] * 5
    mean = mean_stretch(maps, equal, symmetric=True).matrix[:3, :3]
    np.testing.assert_allclose(MIRROR @ mean @ MIRROR, mean, atol=1e-12)
    plain = mean_stretch(maps, equal).matrix[:3, :3]
    assert np.abs(MIRROR @ plain @ MIRROR - plain).max() > 1e-3
    mirror = np.diag([-1.0, 1.0, 1.0, 1.0])
    both = maps + [Affine(mirror @ one.matrix @ mirror) for one in maps]
    doubled = mean_stretch(both, [0.1] * 10).matrix[:3, :3]
    np.testing.assert_allclose(mean, doubled, atol=1e-12)


def test_order_does_not_matter() -> None:
    maps = random_affines(6)
    found = mean_stretch(maps[::-1], [1 / 6] * 6).matrix
    assert found == pytest.approx(mean_stretch(maps, [1 / 6] * 6).matrix, abs=1e-12)
