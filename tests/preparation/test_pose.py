"""The search for the pose of a brain: the rotations that are tried, and their score."""

import numpy as np
import pytest
from phantoms import homogeneous
from scipy import ndimage
from scipy.spatial.transform import Rotation

from voxwarp.preparation import pose
from voxwarp.preparation.coarse import Coarse
from voxwarp.space.transform import Affine


def distance(found: Affine, known: Affine, points: np.ndarray) -> float:
    """The largest distance between where two maps lead, mm."""
    return float(np.linalg.norm(found.map(points) - known.map(points), axis=1).max())


def turned(rotation: Rotation, about: np.ndarray, shift: np.ndarray, zoom: float = 1.0) -> Affine:
    """A turn about a point, which is then shifted."""
    matrix = zoom * rotation.as_matrix()
    return Affine(homogeneous(matrix, about + shift - matrix @ about))


# ---------------------------------------------------------------------------------- Rotations


def test_no_rotation_is_far_from_one_that_is_tried():
    """Of 2000 at random the farthest is within the basin of the local search, 25°."""
    tried = pose._all_rotations(pose.GLOBAL).as_quat()
    asked = Rotation.random(2000, random_state=0).as_quat()
    cosines = np.abs(asked @ tried.T).max(axis=1)  # q and -q are one rotation
    gaps = np.degrees(2 * np.arccos(np.clip(cosines, -1, 1)))
    assert gaps.max() < 25
    assert gaps.mean() < 15


def test_the_finer_search_fills_its_ball():
    points = pose._ball(pose.LOCAL, radius=15.0)
    assert np.linalg.norm(points, axis=1).max() <= 15
    np.testing.assert_array_equal(points[0], 0)
    asked = np.random.default_rng(0).uniform(-15, 15, (4000, 3))
    asked = asked[np.linalg.norm(asked, axis=1) < 15]
    gaps = np.linalg.norm(asked[:, None] - points, axis=-1).min(axis=1)
    assert gaps.max() < 10
    assert np.linalg.norm(points.mean(axis=0)) < 1.5


@pytest.mark.parametrize("seed", range(5))
def test_the_angle_of_a_map_is_that_of_its_rotation(seed):
    """Any linear map is a rotation after a stretch, which has no angle."""
    rng = np.random.default_rng(seed)
    rotation = Rotation.random(random_state=seed)
    along = Rotation.random(random_state=seed + 9).as_matrix()
    stretch = along @ np.diag(rng.uniform(0.7, 1.4, 3)) @ along.T
    matrix = homogeneous(rotation.as_matrix() @ stretch, rng.uniform(-90, 90, 3))
    angle = pose.rotation_angle(Affine(matrix))
    assert angle == pytest.approx(np.degrees(rotation.magnitude()), abs=1e-4)


@pytest.mark.parametrize("degrees", [0.0, 180.0])
def test_the_angle_at_its_ends(degrees):
    matrix = Rotation.from_rotvec([degrees, 0, 0], degrees=True).as_matrix()
    assert pose.rotation_angle(Affine(homogeneous(matrix))) == pytest.approx(degrees, abs=1e-4)


# -------------------------------------------------------------------------------------- Score


def test_the_score_is_the_correlation_ratio(phantoms):
    """By SciPy's interpolation and NumPy's groups; the classes are eight of equal size."""
    motion = turned(Rotation.from_rotvec([0.1, 0.2, -0.3]), phantoms.corners.mean(axis=0), 5.0)
    moving = Coarse.of(phantoms.moved(motion), 8.0)
    fixed = Coarse.of(phantoms.template, 8.0)
    rotations = Rotation.random(4, random_state=1)
    scores = pose._correlation_ratios(rotations, moving=moving, fixed=fixed)

    image = fixed.image[0, 0].numpy().ravel()
    edges = np.quantile(image[image > 0], np.linspace(0, 1, 9))[1:-1]
    classes = np.where(image > 0, 1 + np.searchsorted(edges, image), 0)
    (fixed_centre, fixed_volume), (moving_centre, moving_volume) = (
        coarse.centre_and_volume for coarse in (fixed, moving)
    )
    for score, rotation in zip(scores, rotations, strict=True):
        matrix = (moving_volume / fixed_volume) ** (1 / 3) * rotation.as_matrix()
        at = moving.grid.to_voxel((fixed.grid.nodes() - fixed_centre) @ matrix.T + moving_centre)
        values = ndimage.map_coordinates(
            np.pad(moving.image[0, 0].numpy(), 1), np.moveaxis(at, -1, 0) + 1, order=1
        ).ravel()
        means = np.zeros_like(values)
        for one in range(9):
            means[classes == one] = values[classes == one].mean()
        assert float(score) == pytest.approx(means.var() / values.var(), abs=2e-3)


def test_the_score_of_a_brain_on_itself_is_high_in_any_contrast(phantoms):
    fixed = Coarse.of(phantoms.template, 8.0)
    still, away = Rotation.identity(1), Rotation.from_rotvec([[0, 0, np.pi]])
    for inverted in (False, True):
        moving = Coarse.of(phantoms.moved(Affine(np.eye(4)), inverted=inverted), 8.0)
        scores = pose._correlation_ratios(
            Rotation.concatenate([still, away]), moving=moving, fixed=fixed
        )
        assert scores[0] > 0.9 > scores[1]


# ------------------------------------------------------------------------------------- Search


def test_upright_lays_centre_on_centre_at_equal_volume(phantoms):
    """Of a copy that is zoomed and shifted alone, that is the answer."""
    about = phantoms.corners.mean(axis=0)
    motion = turned(Rotation.identity(), about, np.array([90.0, -60, 40]), zoom=0.8)
    found = pose.upright(moving=phantoms.moved(motion), fixed=phantoms.template)
    assert distance(found, motion, phantoms.corners) < 3
    ratio = found.matrix[:3, :3] / found.matrix[0, 0]
    np.testing.assert_allclose(ratio, np.eye(3), atol=1e-12)


ROTATIONS = {
    "head first": Rotation.from_rotvec([np.pi, 0, 0]),
    "back to front": Rotation.from_rotvec([0, 0, np.pi]),
    "about a diagonal": Rotation.from_rotvec(np.pi * np.array([1, 1, 0]) / np.sqrt(2)),
    "any": Rotation.random(random_state=11),
    "another": Rotation.random(random_state=12),
}


@pytest.mark.parametrize("name", ROTATIONS)
def test_search_comes_near_whatever_way_the_brain_lies(phantoms, name):
    """One of the starts is within what the local search brings home, in either contrast."""
    shift = np.random.default_rng(len(name)).choice([-100.0, 100.0], 3)
    motion = turned(ROTATIONS[name], phantoms.corners.mean(axis=0), shift, zoom=0.9)
    inverted = name in ("any", "back to front")
    found = pose.search(moving=phantoms.moved(motion, inverted=inverted), fixed=phantoms.template)
    assert len(found) == 3
    relative = [affine.after(motion.inverse()) for affine in found]
    assert min(pose.rotation_angle(affine) for affine in relative) < 15
    centre = phantoms.corners.mean(axis=0)[None]
    assert min(distance(affine, motion, centre) for affine in found) < 6
    for affine in found:  # all are similarities of the right size
        np.testing.assert_allclose(
            np.linalg.svd(affine.matrix[:3, :3], compute_uv=False), 0.9, atol=0.03
        )


def test_the_best_are_apart(phantoms):
    fixed = Coarse.of(phantoms.template, 8.0)
    best = pose._best(
        pose._all_rotations(pose.GLOBAL), moving=fixed, fixed=fixed, keep=3, apart=30.0
    )
    scores = [score for score, _ in best]
    assert scores == sorted(scores, reverse=True)
    for i, (_, one) in enumerate(best):
        for _, other in best[:i]:
            assert np.degrees((one * other.inv()).magnitude()) >= 30


def test_fewer_starts_may_be_asked_for(phantoms):
    three = pose.search(moving=phantoms.template, fixed=phantoms.template, keep=3)
    one = pose.search(moving=phantoms.template, fixed=phantoms.template, keep=1)
    assert len(one) == 1
    assert distance(one[0], three[0], phantoms.corners) == 0
