"""The working grid of a training: around a template, or as large as the scans; not too large."""

from pathlib import Path

import numpy as np
import pytest
from cohorts import crop, write_scan
from phantoms import oblique_affine

from voxwarp.data.scans import ScanRecord
from voxwarp.errors import InputError
from voxwarp.preparation.recipe import WORKING_GRID, Recipe
from voxwarp.space.volume import write_volume
from voxwarp.training.config import Config, build_config
from voxwarp.training.working_grid import recipe_of


def preparation(**more) -> Config:
    data = {"sources": [{"folder": "/nowhere"}]}
    return build_config({"data": data, "preparation": more})


def test_the_usual_grid_is_that_of_mni152():
    assert recipe_of(preparation(), []) == Recipe()
    assert recipe_of(preparation(percentile=98), []).percentile == 98


@pytest.mark.parametrize("factor", [2, 4])
def test_a_coarser_grid_averages_the_usual_one(factor):
    """Its voxels are blocks of the fine ones, to the last."""
    grid = recipe_of(preparation(spacing=factor), []).grid
    fine = WORKING_GRID.nodes().reshape(
        *(x for n in WORKING_GRID.shape for x in (n // factor, factor)), 3
    )
    np.testing.assert_allclose(grid.nodes(), fine.mean(axis=(1, 3, 5)), atol=1e-9)


@pytest.mark.parametrize("more", [{"spacing": 1.5}, {"shape": [192, 192, 64]}, {"spacing": 0.7}])
def test_other_grids_lie_around_the_same_point(more):
    grid = recipe_of(preparation(**more), []).grid
    for each in (grid, WORKING_GRID):
        middle = each.to_world((np.array(each.shape) - 1) / 2)
        np.testing.assert_allclose(middle, [0, -16.5, 5.5], atol=1e-9)
    assert grid.axes == WORKING_GRID.axes
    if "shape" in more:
        assert grid.shape == (192, 192, 64)
    else:
        spare = np.array(grid.shape) * more["spacing"] - WORKING_GRID.shape
        assert ((spare >= 0) & (spare < more["spacing"])).all()


@pytest.mark.parametrize(
    ("spacing", "downsample", "shape"),
    [(3, 2, (54, 64, 76)), (3, 8, (56, 64, 80)), (1.5, 4, (108, 128, 152)), (3, 1, (54, 64, 75))],
)
def test_an_odd_spacing_leaves_whole_blocks_for_every_phase(spacing, downsample, shape):
    """As few as cover the working grid, in multiples of what a phase averages."""
    phases = [{"steps": 1, "downsample": downsample}, {"steps": 1}]
    data = {"sources": [{"folder": "/nowhere"}]}
    tree = {"data": data, "preparation": {"spacing": spacing}, "phases": phases}
    grid = recipe_of(build_config(tree), []).grid
    assert grid.shape == shape
    assert grid.averaged(downsample).shape == tuple(n // downsample for n in shape)
    middle = grid.to_world((np.array(grid.shape) - 1) / 2)
    np.testing.assert_allclose(middle, [0, -16.5, 5.5], atol=1e-9)
    np.testing.assert_allclose(grid.spacing, spacing)


def scans_on(folder: Path, *grids: tuple[tuple[int, int, int], np.ndarray]) -> list[ScanRecord]:
    paths = [
        write_scan(folder / f"{i}.nii", crop(i, shape), affine)
        for i, (shape, affine) in enumerate(grids)
    ]
    return [ScanRecord(path, None, path.stem, "set", "train", "set") for path in paths]


def faces(shape: tuple[int, int, int], affine: np.ndarray) -> np.ndarray:
    """World coordinates of all corners of all voxels."""
    at = np.indices(np.array(shape) + 1).reshape(3, -1).T - 0.5
    return at @ affine[:3, :3].T + affine[:3, 3]


def test_a_centred_grid_holds_the_largest_scan_along_each_axis(tmp_path):
    turned = oblique_affine(5)
    scans = scans_on(tmp_path, ((30, 6, 5), np.diag([1.2, 1.2, 3, 1])), ((12, 14, 19), turned))
    extents = np.array([36, 7.2, 15]), np.ptp(faces((12, 14, 19), turned), axis=0)
    grid = recipe_of(preparation(alignment="centre", spacing=1.2), scans).grid
    expected = np.ceil(np.max(extents, axis=0) / 1.2 / 16 - 1e-3) * 16
    assert grid.shape == tuple(expected)
    assert grid.axes == "RAS"
    np.testing.assert_allclose(grid.to_world((expected - 1) / 2), 0, atol=1e-9)
    np.testing.assert_allclose(grid.spacing, 1.2)
    # Where the shape is given, no scan is read.
    given = recipe_of(preparation(alignment="centre", shape=[9, 10, 11]), []).grid
    np.testing.assert_array_equal(given.affine[:3, 3], [-4, -4.5, -5])


def test_a_grid_by_headers_covers_all_scans_and_keeps_their_voxels(tmp_path):
    first, second = np.eye(4), np.eye(4)
    first[:3, 3], second[:3, 3] = (-20, 3, 7), (-9, 1, 11)
    scans = scans_on(tmp_path, ((9, 9, 9), first), ((12, 11, 10), second))
    grid = recipe_of(preparation(alignment="header"), scans).grid
    assert grid.shape == (32, 16, 16)  # of 23, 11 and 14
    points = np.concatenate([faces((9, 9, 9), first), faces((12, 11, 10), second)])
    voxels = grid.to_voxel(points) + 0.5
    assert (voxels >= 0).all()
    assert (voxels <= grid.shape).all()
    np.testing.assert_array_equal(voxels, np.rint(voxels))  # nothing is interpolated
    room = voxels.min(axis=0), (grid.shape - voxels.max(axis=0))
    assert np.abs(room[0] - room[1]).max() <= 1
    cropped = recipe_of(preparation(alignment="header", shape=[8, 9, 10]), scans).grid
    np.testing.assert_array_equal(cropped.affine[:3, 3], [-12, 2, 9])


def test_the_atlas_has_its_place_on_the_grid(tmp_path):
    """It is larger than the only scan, and lies to the right of it."""
    shifted = np.eye(4)
    shifted[0, 3] = 10
    scan, atlas = scans_on(tmp_path, ((20, 12, 9), np.eye(4)), ((30, 12, 9), shifted))
    sampling = {"mode": "atlas", "atlas": str(atlas.path)}
    data = {"sources": [{"folder": "/nowhere"}]}
    for alignment, shape in (("header", (48, 16, 16)), ("centre", (32, 16, 16))):
        tree = {"data": data, "preparation": {"alignment": alignment}, "sampling": sampling}
        grid = recipe_of(build_config(tree), [scan]).grid
        assert grid.shape == shape
        assert recipe_of(preparation(alignment=alignment), [scan]).grid.shape == (32, 16, 16)
        both = faces((20, 12, 9), np.eye(4)), faces((30, 12, 9), shifted)
        for points in both:
            if alignment == "centre":
                points = points - points.mean(axis=0)
            voxels = grid.to_voxel(points) + 0.5
            assert (voxels >= 0).all()
            assert (voxels <= grid.shape).all()
    template = {"mode": "atlas", "atlas": "template"}
    tree = {"data": data, "preparation": {"alignment": "header"}, "sampling": template}
    assert recipe_of(build_config(tree), [scan]).grid.shape == (32, 16, 16)


def test_a_grid_that_is_too_large_is_refused(tmp_path):
    far = np.eye(4)
    far[0, 3] = 9e8
    scans = scans_on(tmp_path, ((9, 9, 9), np.eye(4)), ((9, 9, 9), far))
    with pytest.raises(InputError, match=r"set preparation.shape or a larger preparation.spacing"):
        recipe_of(preparation(alignment="header"), scans)
    (tmp_path / "0.nii").write_text("no image")
    with pytest.raises(InputError, match="none of their headers can be read"):
        recipe_of(preparation(alignment="centre"), scans[:1])


@pytest.mark.parametrize(
    "more", [{"spacing": 4}, {"spacing": 5}, {"spacing": 4, "shape": [32] * 3}]
)
def test_the_grid_of_a_users_template_is_around_its_brain(phantoms, tmp_path, more) -> None:
    """Without a shape, it holds the whole brain and little more."""
    path = tmp_path / "template.nii.gz"
    write_volume(phantoms.template, path)
    recipe = recipe_of(preparation(alignment=str(path), **more), [])
    assert recipe.template is not None
    assert recipe.template.path == path
    inside = np.argwhere(phantoms.template.data > 0)
    ends = phantoms.template.grid.to_world(np.array([inside.min(0) - 0.5, inside.max(0) + 0.5]))
    low, high = ends.min(axis=0), ends.max(axis=0)
    grid = recipe.grid
    middle = grid.to_world((np.array(grid.shape) - 1) / 2)
    np.testing.assert_allclose(middle, (low + high) / 2, atol=1e-5)
    np.testing.assert_allclose(grid.spacing, more["spacing"])
    assert grid.axes == "RAS"
    extent = np.array(grid.shape) * more["spacing"]
    if "shape" in more:
        assert grid.shape == (32, 32, 32)
    else:
        assert ((extent >= high - low) & (extent < high - low + 16 * more["spacing"])).all()
        assert all(n % 16 == 0 for n in grid.shape)
