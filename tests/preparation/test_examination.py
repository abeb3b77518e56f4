"""Examinations of heads, of skull-stripped brains, and of scans that are neither."""

import itertools
from dataclasses import replace

import extractors
import nibabel as nib
import numpy as np
import pytest
from phantoms import homogeneous
from scipy.spatial.transform import Rotation

from voxwarp.errors import InputError
from voxwarp.preparation import brain, examination
from voxwarp.preparation.agreement import Agreement, FitThresholds, agreement
from voxwarp.preparation.examination import (
    Examination,
    examine,
    placed_as_template,
    placed_at,
    placed_by_header,
)
from voxwarp.preparation.intensity import from_zero
from voxwarp.preparation.masking import brain_mask
from voxwarp.preparation.recipe import Recipe
from voxwarp.preparation.settings import Preparation
from voxwarp.preparation.template import Template, mni152
from voxwarp.space.grid import Grid
from voxwarp.space.transform import Affine
from voxwarp.space.volume import Volume, read_volume, to_canonical

IDENTITY = Affine(np.eye(4))
QUICK = Preparation(extractor="deepbet", bias=False, conform=False)


def lying(poses):
    """The pose of a head that is turned by 80° about the axis through its ears."""
    return type(poses.fixed)(turn=(80, 0, 0), shift=(0, 5, -8))


@pytest.fixture(scope="module", autouse=True)
def _known_brains(phantoms, poses):
    """Extractors that take no time, and a small template."""
    with pytest.MonkeyPatch.context() as patch:
        known = extractors.knowing(
            phantoms, moving=poses.moving, fixed=poses.fixed, lying=lying(poses)
        )
        patch.setitem(brain.EXTRACTORS, "knowing", known)
        patch.setitem(brain.EXTRACTORS, "never", extractors.never)
        phantoms.stand_in_for_mni152(patch)
        yield


@pytest.fixture(scope="module")
def scan(phantoms, make_grid, poses):
    """A volume of a phantom by the name of its pose, a head or a brain."""

    def make(name: str, what: str = "head", grid: Grid | None = None, **more: object) -> Volume:
        grid = grid or make_grid("LPI", (4, 4.5, 4), turn=(5, -4, 8), room=25)
        pose = lying(poses) if name == "lying" else getattr(poses, name)
        return replace(read_volume(getattr(phantoms, what)(grid, pose, **more)), name=name)

    return make


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def truth(phantoms, pose, volume: Volume) -> np.ndarray:
    """The known brain on a scan's own grid."""
    return phantoms.values(volume.grid, pose) > 0


# ------------------------------------------------------------------------------------- Examine


def test_a_skull_stripped_brain_needs_no_mask(phantoms, scan, poses):
    volume = scan("moving", "image")
    found = examine(volume, replace(QUICK, extractor="never"))
    assert (found.kind, found.mask, found.log_bias) == ("brain", None, None)
    whole = brain_mask(volume, volume.grid, found.mask).data
    np.testing.assert_array_equal(whole, volume.data > 0)
    brain_of_the_template = phantoms.template.grid.nodes()[phantoms.template.data > 60]
    mapped = poses.moving(found.template_to_scan.map(brain_of_the_template))
    # It is bent by 3 mm: no affine map does better by much.
    assert np.linalg.norm(mapped - brain_of_the_template, axis=1).mean() < 3
    assert FitThresholds().is_certain(found.agreement)


@pytest.mark.parametrize("conform", [True, False])
def test_the_mask_of_a_head_comes_back_on_its_own_grid(phantoms, scan, poses, conform):
    volume = scan("moving")
    found = examine(volume, replace(QUICK, extractor="knowing", conform=conform))
    mask = brain_mask(volume, volume.grid, found.mask)
    assert found.kind == "head"
    assert mask.grid == volume.grid
    assert mask.data.dtype == np.uint8
    assert mask.holds_labels()
    assert dice(mask.data > 0, truth(phantoms, poses.moving, volume)) > 0.97
    size = brain.millilitres(truth(phantoms, poses.moving, volume), volume)
    assert found.described()["brain_mask_ml"] == pytest.approx(size, rel=0.03)


@pytest.mark.parametrize("spacing", [3.0, (2.0, 2.0, 6.0)])
def test_voxels_may_be_large_or_long(phantoms, scan, poses, make_grid, spacing):
    volume = scan("fixed", grid=make_grid("PSR", spacing, room=25))
    found = examine(volume, replace(QUICK, extractor="knowing", conform=True))
    mask = brain_mask(volume, volume.grid, found.mask).data > 0
    assert dice(mask, truth(phantoms, poses.fixed, volume)) > 0.97
    assert FitThresholds().is_certain(found.agreement)


@pytest.mark.slow
def test_deepbet_finds_the_brain_of_one_who_lies_on_the_side_of_the_header(
    phantoms, scan, poses, make_grid
):
    """The nose points up, by 80°; the second extraction gets an upright head."""
    volume = scan("lying", grid=make_grid("RSA", spacing=4, turn=(-80, 0, 0), room=30))
    pose = lying(poses)
    found = examine(volume, replace(QUICK, conform=True))
    mask = brain_mask(volume, volume.grid, found.mask).data > 0
    assert dice(mask, truth(phantoms, pose, volume)) > 0.9
    centre = phantoms.corners.mean(axis=0)
    assert np.linalg.norm(pose(found.template_to_scan.map(centre)) - centre) < 5


def test_a_tilted_head_is_extracted_again_upright(phantoms, scan, make_grid, monkeypatch):
    """The second head that the extractor gets is oriented as the template."""
    views_extracted = []
    knowing = brain.EXTRACTORS["knowing"]
    monkeypatch.setitem(
        brain.EXTRACTORS, "spy", lambda head: views_extracted.append(head.grid) or knowing(head)
    )
    volume = scan("lying", grid=make_grid(turn=(-80, 0, 0), room=25))
    found = examine(volume, replace(QUICK, extractor="spy", conform=True))
    assert len(views_extracted) == 2
    np.testing.assert_allclose(views_extracted[0].direction, np.eye(3), atol=1e-9)
    linear = found.template_to_scan.matrix[:3, :3]
    upright = views_extracted[1].direction.T @ linear  # what is left to turn
    np.testing.assert_allclose(upright / np.cbrt(np.linalg.det(upright)), np.eye(3), atol=0.1)
    np.testing.assert_allclose(views_extracted[1].spacing, 1)


def test_without_affine_alignment_a_scan_stays_where_its_header_says(scan):
    found = examine(scan("moving"), replace(QUICK, extractor="knowing", affine=False))
    np.testing.assert_array_equal(found.template_to_scan.matrix, np.eye(4))
    # The moving phantom is turned and bent: it does not lie on the template, hence the warning.
    assert 0.8 < found.agreement.overlap < 0.93
    assert found.agreement.largest_scale == found.agreement.smallest_scale == 1
    assert "does not fit the MNI152 template well" in found.warnings("it")[0]


def test_a_given_mask_is_taken_and_nothing_extracted(phantoms, scan, poses, make_grid):
    """It may lie on another grid than the scan."""
    volume = scan("moving")
    other = make_grid(spacing=3, turn=(0, 9, 0), room=10)
    mask = Volume((phantoms.values(other, poses.moving) > 0).astype(np.uint8), other)
    found = examine(volume, replace(QUICK, extractor="never"), mask)
    assert found.kind == "head"
    assert FitThresholds().is_certain(found.agreement)
    inside = brain_mask(volume, volume.grid, found.mask).data > 0
    assert dice(inside, truth(phantoms, poses.moving, volume)) > 0.96


def test_the_values_of_a_mask_do_not_matter(phantoms, scan, poses):
    """255 for true, or a segmentation: where it is not zero is the brain."""
    volume = scan("moving")
    inside = truth(phantoms, poses.moving, volume)
    size = brain.millilitres(inside, volume)
    for data in (inside.astype(np.uint8) * 255, inside * np.int16(3)):
        mask = Volume(data, volume.grid)
        found = examine(volume, replace(QUICK, affine=False), mask)
        assert (brain_mask(volume, volume.grid, found.mask).data == inside).all()
        assert found.described()["brain_mask_ml"] == pytest.approx(size, abs=0.1)


def test_a_mask_too_small_for_a_brain_is_refused_by_its_name(scan):
    volume = scan("moving")
    data = np.zeros(volume.grid.shape, np.uint8)
    data[20:24, 20:24, 20:24] = 1
    with pytest.raises(InputError, match=r"^brain mask mask: it has \d+ mL, a brain has"):
        examine(volume, QUICK, Volume(data, volume.grid, "mask"))


@pytest.mark.parametrize(
    ("what", "masked", "bias", "corrected"),
    [
        ("image", False, None, False),
        ("image", False, True, True),
        ("image", False, False, False),
        ("head", False, None, True),
        ("head", False, False, False),
        ("head", True, None, True),
        ("head", True, False, False),
    ],
)
def test_by_default_heads_are_bias_corrected_and_brains_are_not(
    phantoms, scan, poses, monkeypatch, what, masked, bias, corrected
):
    """With a made-up field in place of N4."""
    volume = scan("moving", what)
    field = Volume(np.full((2, 2, 2), 0.5, np.float32), volume.grid.resized((2, 2, 2)))
    monkeypatch.setattr("voxwarp.preparation.bias.estimate", lambda _: field)
    mask = Volume(truth(phantoms, poses.moving, volume), volume.grid) if masked else None
    settings = Preparation(extractor="knowing", bias=bias, conform=False, affine=False)
    found = examine(volume, settings, mask)
    assert found.log_bias is (field if corrected else None)
    assert found.described()["bias_corrected"] is corrected
    stripped = found.brain_of(volume, volume.grid).data
    inside = truth(phantoms, poses.moving, volume)
    faded = np.exp(-0.5) if corrected else 1.0
    np.testing.assert_allclose(stripped[inside], faded * volume.data[inside], rtol=1e-5)


@pytest.mark.parametrize(("choice", "kind"), [("yes", "head"), ("no", "brain")])
def test_brain_extract_decides_between_head_and_brain(scan, choice, kind):
    settings = replace(QUICK, extractor="knowing", brain_extract=choice, affine=False)
    assert {examine(scan("fixed", what), settings).kind for what in ("image", "head")} == {kind}


def test_the_type_that_a_scan_is_stored_in_does_not_matter(phantoms, make_grid):
    """The same whole numbers in four types, and scaled ones: the same to the last bit."""
    grid = make_grid(spacing=5, room=25)
    data = np.asarray(phantoms.head(grid, dtype=np.uint8).dataobj)
    halves = nib.Nifti1Image(data.astype(np.int16), grid.affine)
    halves.header.set_slope_inter(0.5, 0)
    halves = nib.Nifti1Image.from_bytes(halves.to_bytes())
    scans = [Volume(data.astype(t), grid) for t in (np.uint8, np.int16, np.float32, np.float64)]
    scans.append(read_volume(halves))
    first, *others = [
        examine(replace(s, name="fixed"), replace(QUICK, extractor="knowing")) for s in scans
    ]
    assert FitThresholds().is_certain(first.agreement)
    for found in others:
        matrices = (f.template_to_scan.matrix for f in (found, first))
        np.testing.assert_allclose(*matrices, atol=1e-3 if found is others[-1] else 0)
        np.testing.assert_array_equal(found.mask.data, first.mask.data)


@pytest.mark.parametrize("background", [-1000.0, -0.7, 17.0])
def test_a_brain_may_lie_on_any_even_background(phantoms, scan, background):
    """As in z-scored scans, where the air is what it happens to be."""
    volume = scan("fixed", "image")
    inside = volume.data > 0
    brighter = np.where(inside, volume.data / 50 + background + 0.5, background)
    found = examine(replace(volume, data=brighter), replace(QUICK, extractor="never"))
    assert found.kind == "brain"
    assert FitThresholds().is_good(found.agreement)


def ball(at: np.ndarray, radius: float) -> np.ndarray:
    return (np.linalg.norm(at, axis=-1) < radius) * 100.0


def leg(at: np.ndarray) -> np.ndarray:
    """Bone in flesh in skin."""
    across = np.hypot(at[..., 0], at[..., 1])
    return np.select([across < 12, across < 45, across < 50], [20.0, 90, 200]) * (
        np.abs(at[..., 2]) < 95
    )


def centred(grid: Grid) -> np.ndarray:
    """Where the voxels are, from the middle of the grid."""
    return grid.nodes() - grid.nodes().mean(axis=(0, 1, 2))


@pytest.mark.parametrize("what", ["leg", pytest.param("balls", marks=pytest.mark.slow)])
def test_scans_without_a_brain_are_refused_in_one_sentence(make_grid, what):
    grid, apart = make_grid(spacing=5, room=15), np.array([55, 0, 0])
    at = centred(grid)
    data = leg(at) if what == "leg" else ball(at - apart, 45) + 0.5 * ball(at + apart, 45)
    with pytest.raises(InputError, match=r"^no brain found in what\.nii: ") as refusal:
        examine(Volume(data, grid, "what.nii"), replace(QUICK, extractor="never"))
    assert "\n" not in str(refusal.value)


@pytest.mark.slow
def test_noise_is_refused(make_grid, monkeypatch):
    """Of which the extractor takes a ball, no less, for the brain."""
    grid = make_grid(spacing=5, room=15)
    monkeypatch.setitem(brain.EXTRACTORS, "ball", lambda head: ball(centred(head.grid), 60) > 0)
    noise = Volume(np.random.default_rng(2).normal(100, 20, grid.shape), grid, "what.nii")
    with pytest.raises(InputError, match=r"^no brain found in what\.nii: .* the MNI152 template"):
        examine(noise, replace(QUICK, extractor="ball"))


def test_with_brain_extract_no_a_bad_fit_is_a_warning(make_grid, monkeypatch):
    """Then there is only a warning. The affine map of a leg does not matter: here, the identity."""
    monkeypatch.setattr("voxwarp.preparation.examination.register_affine", lambda **_: IDENTITY)
    grid = make_grid(spacing=5, room=15)
    data = leg(centred(grid))
    found = examine(Volume(data, grid), replace(QUICK, brain_extract="no"))
    (warning,) = found.warnings("leg.nii")
    assert warning.startswith("leg.nii: the brain does not fit the MNI152 template well")


# ------------------------------------------------------------------------------ Conformed grids


def test_the_conformed_grid_is_that_of_freesurfer(scan, make_grid):
    """256³ voxels of 1 mm, axes to the left, down and to the front, around the scan's middle."""
    volume = scan("moving", "image", grid=make_grid("ASR", (4, 3, 5), turn=(12, -7, 9)))
    window = examine(volume, replace(QUICK, conform=True, affine=False)).conformed_grid
    assert window.shape == (256, 256, 256)
    np.testing.assert_allclose(window.spacing, 1)
    assert window.axes == "LIA"
    np.testing.assert_array_equal(np.abs(window.direction).sum(axis=0), 1)
    middle = (np.asarray(volume.grid.shape) - 1) / 2
    np.testing.assert_allclose(
        window.to_world(np.full(3, 127.5)), volume.grid.to_world(middle), atol=1e-3
    )


@pytest.mark.parametrize("what", ["image", "head"])
def test_the_conformed_grid_of_a_large_scan_is_around_the_brain(
    phantoms, scan, make_grid, poses, what
):
    big = make_grid(spacing=5, room=90)
    assert (np.asarray(big.shape) * 5).min() > 256
    shifted = Grid(big.shape, homogeneous(np.eye(3), (12, -25, -40)) @ big.affine)
    volume = scan("fixed", what, grid=shifted)
    settings = replace(QUICK, extractor="knowing", conform=True, affine=False)
    found = examine(volume, settings)
    np.testing.assert_allclose(found.conformed_grid.spacing, 1)
    inside = volume.grid.nodes()[truth(phantoms, poses.fixed, volume)]
    middle = (inside.min(axis=0) + inside.max(axis=0)) / 2
    np.testing.assert_allclose(found.conformed_grid.to_world(np.full(3, 127.5)), middle, atol=5)
    at = found.conformed_grid.to_voxel(inside)
    assert at.min() > 0
    assert at.max() < 255


def test_without_conforming_the_grid_is_that_of_the_scan(scan):
    volume = scan("moving", "image")
    window = examine(volume, replace(QUICK, affine=False)).conformed_grid
    corners = [grid.to_world(grid.corners()) for grid in (window, volume.grid)]
    # In another order, as the axes are canonical.
    assert {tuple(c) for c in corners[0].round(3)} == {tuple(c) for c in corners[1].round(3)}


# -------------------------------------------------------------------------------------- Times


@pytest.mark.parametrize(
    ("first", "affine"), [("without a brain", 2.0), ("with a brain that does not fit", 3.0)]
)
def test_the_time_of_rejected_views_is_recorded(phantoms, make_grid, monkeypatch, first, affine):
    """Two views of a large scan, the second with the brain, which is extracted again upright.

    The clock advances by one second each time that it is read.
    """
    seconds = itertools.count()
    monkeypatch.setattr("voxwarp._meter.time.perf_counter", lambda: float(next(seconds)))
    grid = make_grid(room=25)
    field = Volume(np.zeros((2, 2, 2), np.float32), grid.resized((2, 2, 2)))
    monkeypatch.setattr("voxwarp.preparation.bias.estimate", lambda _: field)
    views_extracted = []

    def extract(head: Volume, name: str) -> np.ndarray:
        views_extracted.append(head.grid)
        if len(views_extracted) > 1:
            return phantoms.values(head.grid) > 0
        if first == "without a brain":
            raise InputError("no brain in this view")
        return ball(head.grid.nodes() - (40, -20, -30), 45) > 0

    views = [grid, grid.crop((0, 0, 0), grid.shape)]
    upright = make_grid(spacing=5, room=25)
    monkeypatch.setattr("voxwarp.preparation.examination.views_of", lambda _: views)
    monkeypatch.setattr("voxwarp.preparation.examination.upright_view", lambda *_: upright)
    monkeypatch.setattr("voxwarp.preparation.examination.register_affine", lambda **_: IDENTITY)
    monkeypatch.setattr(brain, "extract", extract)
    head = read_volume(phantoms.head(grid))
    found = examine(head, Preparation(brain_extract="yes"))
    assert views_extracted == [*views, upright]
    assert FitThresholds().is_good(found.agreement)
    assert found.seconds == {"conform": 3.0, "bias": 2.0, "extract": 3.0, "affine": affine}
    assert found.described()["seconds"] == found.seconds


# ---------------------------------------------------------------------------------- Templates


def shifted(template: Volume, by: tuple[float, float, float]) -> Volume:
    """The same brain elsewhere, mm."""
    matrix = homogeneous(np.eye(3), by)
    return replace(template, grid=Grid(template.grid.shape, matrix @ template.grid.affine))


def test_a_scan_is_aligned_with_the_given_template(phantoms, scan):
    """A shifted copy of the usual template: the map differs by that shift."""
    volume = scan("moving", "image")
    usual = examine(volume, QUICK)
    own = Template("Ours", shifted(phantoms.template, (50, -40, 30)))
    found = examine(volume, QUICK, template=own)
    assert (usual.template, found.template) == (mni152(), own)
    points = phantoms.corners
    np.testing.assert_allclose(
        found.template_to_scan.map(points + np.array([50, -40, 30])),
        usual.template_to_scan.map(points),
        atol=0.05,
    )
    assert FitThresholds().is_certain(found.agreement)


def test_the_thresholds_are_those_of_the_template(phantoms, scan, monkeypatch):
    """The affine map is always that of the usual template."""
    volume = replace(scan("moving", "image"), name="it")
    usual, asked = examine(volume, QUICK), []
    fit = usual.agreement
    monkeypatch.setattr(
        "voxwarp.preparation.examination.register_affine",
        lambda thresholds, **_: asked.append(thresholds) or usual.template_to_scan,
    )
    above = {"overlap": fit.overlap + 1e-3, "ncc": fit.local_ncc + 1e-3}
    for number, value in above.items():
        strict = FitThresholds(**{f"good_{number}": value})
        doubted = Template("Ours", phantoms.template, thresholds=strict)
        (warning,) = examine(volume, QUICK, template=doubted).warnings("it")
        assert warning.startswith("it: the brain does not fit the Ours template well")
        strict = FitThresholds(**{f"hopeless_{number}": value})
        with pytest.raises(InputError, match="does not fit the Ours template"):
            examine(volume, QUICK, template=replace(doubted, thresholds=strict))
    small = FitThresholds(largest_scale=fit.largest_scale - 1e-3)
    scaled_up = Template("Ours", phantoms.template, thresholds=small)
    (warning,) = examine(volume, QUICK, template=scaled_up).warnings("it")
    assert warning.startswith("it: the affine alignment scales Ours by ")
    assert len(asked) == 5
    assert asked[-1] is small


def test_a_template_is_a_brain_in_place(phantoms):
    own = Template("Ours", shifted(phantoms.template, (50, -40, 30)))
    found = placed_as_template(own)
    assert (found.kind, found.conformed_grid, found.mask) == ("brain", own.grid, None)
    assert found.template is own
    np.testing.assert_array_equal(found.template_to_scan.matrix, np.eye(4))
    assert found.warnings("it") == []
    stripped = found.brain_of(own.image, own.grid, found.template_to_scan)
    np.testing.assert_allclose(stripped.data, own.image.data, atol=1e-3)


def test_a_given_affine_map_is_used_and_its_agreement_measured(phantoms, scan):
    """All else stays; the agreement is that of the masked brain with the template."""
    volume = scan("moving")
    own = Template("Ours", shifted(phantoms.template, (50, -40, 30)))
    found = examine(volume, replace(QUICK, extractor="knowing"), template=own)
    given = found.template_to_scan.after(Affine(homogeneous(np.eye(3), (9, 0, 0))))
    placed = placed_at(found, volume, given)
    assert placed.template_to_scan is given
    kept = ("kind", "conformed_grid", "mask", "log_bias", "seconds", "template")
    assert all(getattr(placed, name) is getattr(found, name) for name in kept)
    standard = from_zero(to_canonical(volume))
    stripped = found.brain_of(standard, standard.grid)
    assert placed.agreement == agreement(given, moving=stripped, fixed=own.image)
    assert placed.agreement.overlap < found.agreement.overlap - 0.02
    again = placed_at(placed, volume, found.template_to_scan)
    assert again.agreement.overlap == pytest.approx(found.agreement.overlap, abs=5e-3)


@pytest.mark.parametrize(("alignment", "middle"), [("centre", (0, 0, 0)), ("header", None)])
def test_without_a_template_a_scan_is_placed_by_its_header(make_grid, alignment, middle):
    """Any scan: whether it shows a brain is not examined."""
    grid = make_grid("ASR", (4, 4.5, 5), turn=(12, -7, 9))
    volume = Volume(np.zeros(grid.shape, np.float32), grid)
    mask = Volume(np.ones(grid.shape, np.uint8), grid)
    found = placed_by_header(volume, Recipe(alignment=alignment), mask)
    assert (found.kind, found.conformed_grid, found.template) == ("scan", grid, None)
    assert found.mask is mask
    assert found.warnings("it") == []
    centre = grid.to_world((np.asarray(grid.shape) - 1) / 2)
    back = found.template_to_scan.inverse().map(centre)
    np.testing.assert_allclose(back, centre if middle is None else middle, atol=1e-9)
    np.testing.assert_array_equal(found.template_to_scan.matrix[:3, :3], np.eye(3))


# ------------------------------------------------------------------------------------ Warnings


@pytest.mark.parametrize(
    ("agreement", "said"),
    [
        (Agreement(0.96, 0.6, 0.02, 1.1, 0.9), []),
        (Agreement(0.85, 0.6, 0.0, 1.1, 0.9), ["overlap 0.85"]),
        (Agreement(0.96, 0.2, 0.0, 1.1, 0.9), ["local NCC 0.20"]),
        (
            Agreement(0.96, 0.6, 0.25, 1.1, 0.9),
            ["25 % of the brain lies outside"],
        ),
        (Agreement(0.85, 0.2, 0.4, 1.1, 0.9), ["overlap 0.85", "40 %"]),
    ],
)
def test_each_warning_is_one_sentence(agreement, said):
    found = Examination("head", Grid((2, 2, 2), np.eye(4)), IDENTITY, agreement=agreement)
    warnings = found.warnings("scan.nii")
    assert len(warnings) == len(said)
    for warning, words in zip(warnings, said, strict=True):
        assert warning.startswith("scan.nii: ")
        assert words in warning
        assert "\n" not in warning


@pytest.mark.parametrize(
    ("axis", "degrees", "is_warned"),
    [("x", 20, False), ("y", 55, False), ("z", 65, True), ("x", 180, True)],
)
def test_a_head_that_its_header_turns_far_is_in_doubt(axis, degrees, is_warned):
    """Whatever the scaling; no head lies so in a scanner."""
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler(axis, degrees, degrees=True).as_matrix() * [0.9, 1, 1.1]
    fit = Agreement(0.96, 0.6, 0.0, 1.1, 0.9)
    found = Examination("head", Grid((2, 2, 2), np.eye(4)), Affine(matrix), agreement=fit)
    warnings = found.warnings("scan.nii")
    assert len(warnings) == is_warned
    assert all(f"turned by {degrees} degrees" in warning for warning in warnings)


def test_a_field_of_view_that_cuts_the_brain_causes_a_warning(phantoms, scan, make_grid):
    """A quarter of the brain is missing below; the rest is aligned."""
    whole = make_grid()
    cut = whole.crop((0, 0, 14), (*whole.shape[:2], whole.shape[2] - 14))
    found = examine(scan("fixed", "image", grid=cut), replace(QUICK, extractor="knowing"))
    lost = phantoms.values(whole)[:, :, :14] > 0
    share = lost.sum() / (phantoms.values(whole) > 0).sum()
    assert 0.1 < share < 0.4
    (warning,) = found.warnings("x")
    percent = f"{100 * found.agreement.outside:.0f} %"
    assert warning.startswith(f"x: {percent} of the brain lies outside the field of view")
    assert found.agreement.outside == pytest.approx(share, abs=0.05)


def test_a_scan_of_huge_voxels_is_refused_at_once(phantoms, monkeypatch):
    """By their size and unit, before anything is resampled to it."""
    monkeypatch.setattr(examination, "_Examiner", None)
    grid = phantoms.template.grid
    scan = Volume(phantoms.template.data, Grid(grid.shape, grid.affine @ np.diag([4, 4, 4, 1])))
    with pytest.raises(InputError, match=r"^no brain found in .* up to 16 mm.* its unit in the"):
        examine(scan)
