"""What the panels show, for scenes of which every pixel is known."""

import numpy as np
import pytest
from scenes import BALL, CENTRE, CORE, GRID, ball, distance, image, scene

from voxwarp.pictures.colours import COLD_HOT, FOLDS, PURPLE_GREEN
from voxwarp.pictures.contours import FINER
from voxwarp.pictures.panels import (
    LINES,
    Overlay,
    Picture,
    checkerboard,
    comparison,
    deformed_grid,
    differences,
    extraction,
    jacobian,
    label_contours,
    panels,
    rendered,
)
from voxwarp.pictures.scene import SlicedScene
from voxwarp.pictures.slices import PLANES
from voxwarp.space.grid import Grid
from voxwarp.space.transform import Affine, Warp
from voxwarp.space.volume import Volume


def test_the_comparison_of_equal_scans():
    """The three pictures are equal, also if an affine map corrects a shift of the header."""
    shift = Affine(np.array([[1, 0, 0, 6], [0, 1, 0, -4], [0, 0, 1, 8], [0, 0, 0, 1.0]]))
    other = Volume(image().data, Grid(GRID.shape, shift.matrix @ GRID.affine))
    panel = comparison(SlicedScene(scene(moving=other, affine=shift)))
    assert [p.name for p in panel.pictures] == [
        *("Moved", "Fixed", "Moving after the affine alignment")
    ]
    for plane in PLANES:
        after, fixed, before = (p.mosaic[plane].astype(int) for p in panel.pictures)
        assert fixed.max() > 200
        assert np.abs(fixed - after).max() <= 1
        np.testing.assert_array_equal(after, before)


def test_only_the_moved_scan_is_deformed():
    """A warp that shifts by 8 mm is not in the picture after the affine alignment."""
    field = np.zeros((3, *GRID.shape), np.float32)
    field[0] = 8.0
    shown = comparison(SlicedScene(scene(warp=Warp(field, GRID)))).pictures
    plane = "axial"
    grid = SlicedScene(scene()).slices.grids[plane]
    pixels = round(8.0 / grid.spacing[0])
    after, fixed, before = (p.mosaic[plane][:, : grid.shape[0]].astype(int) for p in shown)
    assert np.abs(fixed - before).max() <= 1
    assert np.abs(fixed[:, pixels:] - after[:, :-pixels]).mean() < 2  # moved(x) = moving(x + 8)
    assert np.abs(fixed - after).mean() > 5


def test_differences_are_on_one_scale_and_vanish_where_scans_agree():
    same = differences(SlicedScene(scene()))
    black = np.array(COLD_HOT[len(COLD_HOT) // 2])
    for picture in same.pictures:
        assert all((m == black).all() for m in picture.mosaic.values())
    field = np.zeros((3, *GRID.shape), np.float32)
    field[1] = 6.0
    # The affine map is off by 6 mm, and the deformation corrects this.
    off = np.eye(4)
    off[1, 3] = -6.0
    panel = differences(SlicedScene(scene(affine=Affine(off), warp=Warp(field, GRID))))
    before, after = (
        np.concatenate([m.reshape(-1, 3) for m in p.mosaic.values()]).astype(int)
        for p in panel.pictures
    )
    assert (before.max(axis=1) > 150).mean() > 0.02
    assert after.max() < 12
    assert panel.scale is not None
    assert panel.scale[0][2] == "0"


def test_differences_do_not_depend_on_brightness():
    """A scan with twice the intensities and an offset counts as the same scan."""
    brighter = Volume(image().data * 2 + 30 * ball(BALL), GRID)
    sliced = SlicedScene(scene(moving=brighter))
    for picture in differences(sliced).pictures:
        for plane in PLANES:
            inner = distance(sliced, plane) < BALL - 5  # the edge of the offset is a difference
            assert picture.mosaic[plane][inner].max() < 90


def test_the_checkerboard_shows_both_scans():
    other = Volume(np.where(ball(BALL), 50.0, 0).astype(np.float32), GRID)
    sliced = SlicedScene(scene(moving=other))
    mixed = checkerboard(sliced).pictures[0].mosaic
    moved, fixed, _ = (p.mosaic for p in comparison(sliced).pictures)
    for plane in PLANES:
        is_fixed, is_moved = mixed[plane] == fixed[plane], mixed[plane] == moved[plane]
        assert (is_fixed | is_moved).all()
        differing = fixed[plane] != moved[plane]
        assert 0.3 < is_fixed[differing].mean() < 0.7


def test_without_deformation_the_grid_is_straight_and_regular():
    sliced = SlicedScene(scene())
    lines = deformed_grid(sliced).pictures[0].mosaic
    for plane, plane_grid in sliced.slices.grids.items():
        right, up, _ = PLANES[plane]
        first = lines[plane][:, : plane_grid.shape[0]]
        at = plane_grid.to_world([[i, 0, 0] for i in range(plane_grid.shape[0])])[:, right]
        crossing = np.abs((at + LINES / 2) % LINES - LINES / 2) <= 0.5 * plane_grid.spacing[0]
        assert crossing.sum() >= 5
        assert (first[:, crossing] > 90).all()
        between = np.abs((at + LINES / 2) % LINES - LINES / 2) > 1.2 * plane_grid.spacing[0]
        height = plane_grid.to_world([[0, j, 0] for j in range(plane_grid.shape[1])])[::-1, up]
        empty = np.abs((height + LINES / 2) % LINES - LINES / 2) > 1.2 * plane_grid.spacing[0]
        assert first[np.ix_(empty, between)][0].max() == 0  # outside the ball, between the lines


@pytest.mark.parametrize(("scale", "index"), [(0.25 ** (1 / 3), 0), (1.0, 2), (4 ** (1 / 3), 4)])
def test_colours_of_the_jacobian(scale, index):
    """A warp that scales space has the same determinant everywhere."""
    displacement = (scale - 1) * np.moveaxis(GRID.nodes() - CENTRE, -1, 0)
    panel = jacobian(SlicedScene(scene(warp=Warp(displacement.astype(np.float32), GRID))))
    picture = panel.pictures[0]
    assert picture.overlay is None
    assert "no folds" in panel.title
    sliced = SlicedScene(scene())
    for plane in PLANES:
        inside = distance(sliced, plane) < BALL - 4
        colour = np.array(PURPLE_GREEN[index])
        assert np.abs(picture.mosaic[plane][inside].astype(int) - colour).max() <= 3
        outside = distance(sliced, plane) > BALL + 4
        assert not picture.mosaic[plane][outside].any()


def test_folds_are_red_in_every_plane_and_counted():
    """One folded voxel, far from the middle of any slice."""
    field = np.zeros((3, *GRID.shape), np.float32)
    voxel = (20, 25, 22)
    field[0, voxel[0] - 1, voxel[1], voxel[2]] = 6.0
    field[0, voxel[0] + 1, voxel[1], voxel[2]] = -6.0
    shown = scene(warp=Warp(field, GRID))
    panel = jacobian(SlicedScene(shown))
    overlay = panel.pictures[0].overlay
    assert overlay is not None
    assert overlay.colours == (FOLDS,)
    assert "1 folded voxel" in panel.caption
    assert "no folds" not in panel.title
    sliced = SlicedScene(shown)
    place = GRID.to_world(np.array(voxel))
    for plane, grid in sliced.slices.grids.items():
        marked = np.argwhere(overlay.mosaic[plane])
        assert 1 <= len(marked) <= 9
        row, column = marked.mean(axis=0)
        at = grid.to_world([column % grid.shape[0], grid.shape[1] - 1 - row, 0])
        for axis in PLANES[plane][:2]:
            assert abs(at[axis] - place[axis]) <= grid.spacing[0]


@pytest.mark.parametrize("half", [(40, 8, 20), (8, 40, 20), (20, 40, 6)])
def test_thin_regions_have_all_panels(half):
    """Also with labels, whose pixels are finer."""
    away = np.abs(GRID.nodes() - CENTRE)
    brain = (away <= half).all(axis=-1)
    labels = Volume(brain.astype(np.uint8), GRID)
    data = Volume(brain * np.float32(50), GRID)
    shown = scene(fixed=data, moving=data, brain=brain, labels=labels, fixed_labels=labels)
    assert len(list(panels(SlicedScene(shown)))) == 8


def test_label_borders_agree_where_labels_do():
    labels = Volume((ball(BALL).astype(np.int16) * 3 + ball(CORE) * 40000).astype(np.int32), GRID)
    same = label_contours(SlicedScene(scene()), labels, labels).pictures[0]
    assert same.overlay is not None
    for plane in PLANES:
        assert set(np.unique(same.overlay.mosaic[plane])) == {0, 3}  # both
    smaller = Volume(ball(CORE).astype(np.uint8), GRID)
    both = label_contours(SlicedScene(scene()), smaller, labels).pictures[0]
    assert both.overlay is not None
    sliced = SlicedScene(scene())
    for plane in PLANES:
        drawn, away = both.overlay.mosaic[plane], distance(sliced, plane, FINER)
        assert np.abs(away[drawn == 1] - BALL).max() < 4
        assert np.abs(away[drawn == 3] - CORE).max() < 4


def test_extraction_draws_the_mask_on_the_scan():
    mask = Volume(ball(BALL).astype(np.uint8), GRID)
    panel = extraction(scene(masks={"moving": mask, "fixed": None}), "moving")
    overlay = panel.pictures[0].overlay
    assert overlay is not None
    assert sum(m.sum() for m in overlay.mosaic.values()) > 100
    alone = extraction(scene(), "moving")
    assert alone.pictures[0].overlay is None
    assert "no brain was extracted" in alone.caption


def test_panels_depend_on_the_data():
    plain_keys = [panel.key for panel in panels(SlicedScene(scene()))]
    assert plain_keys == [
        *("comparison", "contours", "checkerboard", "difference", "grid", "jacobian"),
        "moving_brain",
    ]
    labels = Volume(ball(CORE).astype(np.uint8), GRID)
    mask = Volume(ball(BALL).astype(np.uint8), GRID)
    full = scene(labels=labels, fixed_labels=labels, masks={"moving": mask, "fixed": mask})
    keys = [panel.key for panel in panels(SlicedScene(full))]
    assert set(keys) - set(plain_keys) == {"labels", "fixed_brain"}


@pytest.mark.parametrize(
    "strange",
    [
        {"brain": np.zeros(GRID.shape, bool)},
        {"moving": Volume(np.full(GRID.shape, 7, np.uint8), GRID)},
        {"moving": Volume(-image().data.astype(np.float64), GRID)},
        {"moving": Volume((image().data * 1000).astype(np.int64), GRID)},
        {"moving": Volume(image().data > 50, GRID)},
        {"affine": Affine(np.diag([1, 1, 1, 1.0]) + np.array([[0, 0, 0, 1e4]] + [[0] * 4] * 3))},
    ],
    ids=["no brain", "constant", "negative", "int64", "bool", "far away"],
)
def test_unusual_scenes_are_shown(strange):
    for panel in panels(SlicedScene(scene(**strange))):
        for picture in panel.pictures:
            for mosaic in picture.mosaic.values():
                assert mosaic.dtype == np.uint8


def test_rendering_paints_the_overlay():
    grey = np.full((2, 3), 9, np.uint8)
    lines = np.zeros((4, 6), np.uint8)
    lines[3, 5] = 2
    overlay = Overlay({"axial": lines}, ((1, 2, 3), (4, 5, 6)))
    painted = rendered(Picture("", {"axial": grey}, overlay), "axial")
    assert painted[1, 2].tolist() == [4, 5, 6]
    assert (painted.reshape(-1, 3)[:-1] == 9).all()
