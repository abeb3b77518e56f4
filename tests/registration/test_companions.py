"""Companions: a scan of another contrast follows a T1-weighted scan of the same person."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

import voxwarp
from voxwarp.errors import InputError
from voxwarp.networks.model import Model
from voxwarp.preparation.companion import prepared_by_companion
from voxwarp.preparation.examination import LEAST_SIMILARITY, CompanionFit
from voxwarp.preparation.recipe import Recipe
from voxwarp.preparation.scan import Scan
from voxwarp.preparation.settings import DEFAULTS, Preparation
from voxwarp.space.grid import Grid
from voxwarp.space.transform import Affine
from voxwarp.space.volume import Volume

SHAKEN = Affine(np.eye(4))
#: From the companion's space to the scan's: as between two sessions.
MOTION = Affine(
    np.block(
        [
            [
                Rotation.from_euler("xyz", (7, -5, 9), degrees=True).as_matrix(),
                np.array([[12.0], [-9.0], [17.0]]),
            ],
            [np.zeros((1, 3)), np.ones((1, 1))],
        ]
    )
)
RECIPE = Recipe(Recipe().grid.resized((40, 48, 56)))


@pytest.fixture
def person(phantoms, make_grid, monkeypatch) -> tuple[Scan, Scan]:
    """A T1 brain, and the same brain inverted, elsewhere, with something bright around it."""
    phantoms.stand_in_for_mni152(monkeypatch)
    t1 = Volume(phantoms.values(make_grid(spacing=(3, 3, 3))), make_grid(spacing=(3, 3, 3)), "t1")
    other = phantoms.moved(MOTION, spacing=3.0, inverted=True)
    around = np.random.default_rng(0).uniform(20, 120, other.data.shape).astype(np.float32)
    head = replace(other, data=np.where(other.data > 0, other.data, around), name="t2")
    return Scan(head), Scan(t1)


def test_the_rigid_map_is_found_without_extracting_a_brain(person, phantoms):
    scan, t1 = person
    prepared = prepared_by_companion(scan, t1, RECIPE, DEFAULTS, cache=False)
    fit = prepared.examination.companion
    points = phantoms.corners
    away = fit.to_scan.map(points) - MOTION.map(points)
    assert np.linalg.norm(away, axis=1).max() < 0.5
    assert fit.local_ncc > 0.5
    assert not fit.warnings("scan")


def test_a_scan_that_is_turned_is_examined_by_itself(person, phantoms, monkeypatch):
    """Its own examination, a few degrees off, is the start."""
    scan, t1 = person
    turned = Rotation.from_euler("xyz", (100, 20, -60), degrees=True)
    far = Affine(np.block([[turned.as_matrix(), np.full((3, 1), 60.0)], [0, 0, 0, 1]]))
    head = Scan(replace(scan.image, grid=Grid(scan.grid.shape, far.matrix @ scan.grid.affine)))
    own = t1.examined(RECIPE, cache=False)
    truth = far.after(MOTION)
    slightly = np.eye(4)
    slightly[:3, :3] = Rotation.from_euler("x", 4, degrees=True).as_matrix()
    known = replace(own, template_to_scan=truth.after(Affine(slightly)).after(own.template_to_scan))
    examined = Scan.examined
    monkeypatch.setattr(
        Scan, "examined", lambda one, *a, **b: known if one is head else examined(one, *a, **b)
    )
    fit = prepared_by_companion(head, t1, RECIPE, DEFAULTS, cache=False).examination.companion
    points = phantoms.corners
    away = np.linalg.norm(fit.to_scan.map(points) - truth.map(points), axis=1)
    assert away.max() < 0.5
    assert fit.local_ncc > 0.5


def test_everything_else_is_that_of_the_companion(person, phantoms):
    scan, t1 = person
    prepared = prepared_by_companion(scan, t1, RECIPE, DEFAULTS, cache=False)
    own = t1.examined(RECIPE, cache=False)
    assert np.array_equal(prepared.image, t1.prepared(RECIPE, own).image)
    found = prepared.examination
    expected = found.companion.to_scan.after(own.template_to_scan)
    np.testing.assert_allclose(found.template_to_scan.matrix, expected.matrix)
    brain = scan.brain_mask(found).data > 0
    inside = phantoms.values(scan.grid, MOTION.inverse().map) > 0
    assert 2 * (brain & inside).sum() / (brain.sum() + inside.sum()) > 0.95


def test_a_registration_carries_both(person, phantoms, make_grid):
    """The transform of the scan is that of its companion, after the rigid map."""
    scan, t1 = person
    fixed = Scan(Volume(phantoms.values(make_grid()), make_grid(), "fixed"))
    model = Model.load("none")
    brain = Preparation(brain_extract="no")
    by_companion = voxwarp.register(scan, fixed, model, companion=t1, preparation=brain)
    alone = voxwarp.register(t1, fixed, model, preparation=brain)
    points = phantoms.corners
    expected = MOTION.map(alone.transform.map(points))
    assert np.linalg.norm(by_companion.transform.map(points) - expected, axis=1).max() < 0.6
    assert np.array_equal(by_companion.warp.displacement, alone.warp.displacement)
    assert by_companion.moving is scan
    assert by_companion.moving_mask.grid == scan.grid
    found = by_companion.metrics["preparation"]["moving"]["companion"]
    np.testing.assert_allclose(
        found["companion_to_scan"], MOTION.matrix, atol=0.3
    )  # mm; the rotation is far closer
    assert alone.metrics["preparation"]["moving"]["companion"] is None


def test_a_companion_of_the_fixed_scan(person, phantoms, make_grid):
    scan, t1 = person
    moving = Scan(Volume(phantoms.values(make_grid()), make_grid(), "moving"))
    model, brain = Model.load("none"), Preparation(brain_extract="no")
    found = voxwarp.register(moving, scan, model, fixed_companion=t1, preparation=brain)
    points = MOTION.map(phantoms.corners)
    expected = phantoms.corners
    away = found.transform.map(points) - expected
    assert np.linalg.norm(away, axis=1).mean() < 1.5
    assert found.fixed_grid == scan.grid


def test_the_lesion_of_a_scan_is_left_out_of_its_companion(person):
    scan, t1 = person
    lesion = np.zeros(scan.grid.shape, np.uint8)
    middle = tuple(n // 2 for n in lesion.shape)
    lesion[tuple(slice(m - 4, m + 4) for m in middle)] = 1
    marked = replace(scan, lesion=Volume(lesion, scan.grid, "lesion"))
    prepared = prepared_by_companion(marked, t1, RECIPE, DEFAULTS, cache=False)
    assert prepared.lesion is not None
    where = np.argwhere(prepared.lesion[0, 0].numpy() > 0).mean(axis=0)
    found = prepared.examination.template_to_scan.map(RECIPE.grid.to_world(where))
    expected = scan.grid.to_world(np.argwhere(lesion).mean(axis=0))
    assert np.linalg.norm(found - expected) < 2


def test_someone_else_is_noticed():
    fit = CompanionFit("t1.nii", SHAKEN, LEAST_SIMILARITY - 0.01)
    (text,) = fit.warnings("t2.nii")
    assert text.startswith("t2.nii: its companion t1.nii is not very similar after the rigid")


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ({"initial": SHAKEN}, "`initial` cannot be given as well"),
        ({"preparation": Preparation(affine=False)}, "`affine=False` cannot be given as well"),
    ],
)
def test_what_contradicts_a_companion_is_refused(person, more, problem):
    scan, t1 = person
    with pytest.raises(InputError, match=problem):
        voxwarp.register(scan, model=Model.load("none"), companion=t1, **more)


def test_a_mask_beside_a_companion_is_refused(person):
    scan, t1 = person
    mask = Volume(np.ones(scan.grid.shape, np.uint8), scan.grid, "mask")
    with pytest.raises(InputError, match="either the mask or the companion"):
        voxwarp.register(scan.image, model=Model.load("none"), companion=t1, mask=mask)


def test_a_companion_of_no_fixed_scan_is_refused(person):
    scan, t1 = person
    with pytest.raises(InputError, match=r"^fixed_companion needs a fixed scan"):
        voxwarp.register(scan, model=Model.load("none"), fixed_companion=t1)
