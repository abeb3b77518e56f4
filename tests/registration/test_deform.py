"""From an answer to warps on the fixed grid: each the other's inverse, whole, folds or none."""

from pathlib import Path

import numpy as np
import pytest
import torch
from phantoms import apply_affine, near_identity, oblique_grid, smooth_field, texture
from torch import Tensor

from voxwarp._layout import INVERSE_WARP, WARP
from voxwarp._meter import Meter
from voxwarp.errors import InputError
from voxwarp.fields import field
from voxwarp.measures.deformation import jacobian_statistics
from voxwarp.networks.model import Model
from voxwarp.networks.refine import Refinement
from voxwarp.networks.segmentation import StructureMaps
from voxwarp.preparation.examination import Examination
from voxwarp.preparation.recipe import Recipe
from voxwarp.preparation.scan import Prepared
from voxwarp.registration import register as verb
from voxwarp.registration.deform import (
    check_smoothness,
    check_smoothness_applies,
    compute_deformation,
    inverted,
    on_fixed_grid,
    without_folds,
)
from voxwarp.space.formats import read_warp
from voxwarp.space.grid import Grid
from voxwarp.space.transform import Affine, Warp

SHAPE = (40, 42, 44)
BRAIN = np.zeros(SHAPE, bool)
BRAIN[4:-4, 4:-4, 4:-4] = True


def left(outer: Warp, inner: Warp, margin: int = 6) -> np.ndarray:
    """Lengths of what the one leaves of the other, voxels; not near the border."""
    composed = field.compose(outer.in_voxels()[None], inner.in_voxels()[None])[0].norm(dim=0)
    return composed[(slice(margin, -margin),) * 3].numpy()


def folding(warp: Warp, brain: np.ndarray) -> int:
    return int(jacobian_statistics(warp, brain)["folds_any_difference"])


# ------------------------------------------------------------------------------- without folds


def with_folds(seed: int) -> tuple[Warp, Warp]:
    """A warp on an oblique grid, torn at five places, and the inverse of the one that is not."""
    grid, rng = oblique_grid(seed, SHAPE), np.random.default_rng(seed)
    displacement = smooth_field(seed, SHAPE, amplitude=3.0).float()
    inverse = field.invert(displacement, tolerance=1e-4)
    for x, y, z in rng.integers(12, 28, (5, 3)):
        push = torch.from_numpy(rng.choice([-2.5, 2.5], 3)).float()
        displacement[0, :, x : x + 2, y, z] += push[:, None]
    return Warp.from_voxels(displacement[0], grid), Warp.from_voxels(inverse[0], grid)


@pytest.mark.parametrize("seed", range(3))
def test_the_inverse_is_that_of_the_warp_without_folds(seed: int) -> None:
    torn, former = with_folds(seed)
    assert folding(torn, BRAIN) > 20
    assert left(torn, former).max() > 1
    warp = without_folds(torn, BRAIN)
    assert folding(warp, BRAIN) == 0
    inverse = inverted(warp)
    assert left(warp, inverse).max() < 0.06
    assert left(warp, inverse).mean() < 1e-3  # rounded to 2⁻¹⁰ mm
    assert left(inverse, warp).max() < 0.35  # between its nodes a peak is not what it is on them
    # The inverse of the smooth warp would not do, although it does everywhere else.
    assert left(warp, former).max() > 0.4
    assert left(inverse, warp).max() < 0.6 * left(former, warp).max()


def test_what_is_without_folds_is_left_alone() -> None:
    torn, _ = with_folds(0)
    elsewhere = np.zeros(SHAPE, bool)
    elsewhere[30:36, 30:38, 30:40] = True
    before = torn.displacement.copy()
    assert without_folds(torn, elsewhere) is torn
    without_folds(torn, BRAIN)
    np.testing.assert_array_equal(torn.displacement, before)


def test_what_is_written_is_free_of_folds_and_each_other_s_inverse(
    scans, quick_affine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """From end to end: carrying the warp to the fixed grid tears it, as it now and then does."""
    recipe = Recipe(Recipe().grid.resized((40, 48, 56)))
    model = Model.build({"name": "descent", "steps": [8, 8]}, recipe)
    warps: list[Warp] = []

    def tearing(*arguments: object) -> Warp:
        warp = on_fixed_grid(*arguments)
        warps.append(inverted(warp))
        x, y, z = (n // 2 for n in warp.grid.shape)
        warp.displacement[:, x : x + 2, y, z] += 15  # mm
        warps.append(Warp(warp.displacement.copy(), warp.grid))
        return warp

    whole = verb.register(scans.moving, scans.fixed, model)
    monkeypatch.setattr(verb, "on_fixed_grid", tearing)
    result = verb.register(scans.moving, scans.fixed, model)
    (former, torn), brain = warps, result.brain.data != 0
    assert folding(torn, brain) > 2
    assert folding(whole.warp, brain) == folding(result.warp, brain) == 0
    assert result.metrics["jacobian"]["folds_any_difference"] == 0
    assert left(result.warp, former)[brain[6:-6, 6:-6, 6:-6]].max() > 0.4
    result.save(tmp_path / "out", report=False)
    warp, inverse = (read_warp(tmp_path / "out" / name) for name in (WARP, INVERSE_WARP))
    remainder = left(warp, inverse)[brain[6:-6, 6:-6, 6:-6]]
    assert remainder.max() < 0.1
    assert remainder.mean() < 0.005
    # The images are those of the written warp, not of the torn one.
    np.testing.assert_array_equal(result.warp.displacement, warp.displacement)
    middle = tuple(n // 2 for n in brain.shape)
    point = result.transform.map(result.fixed_grid.nodes()[middle])
    assert result.warped.data[middle] == pytest.approx(value_at(result.moving.image, point), abs=1)


def value_at(image, point: np.ndarray) -> float:
    at = torch.from_numpy(image.grid.to_voxel(point)).float().view(1, 3, 1, 1, 1)
    return float(field.sample(torch.from_numpy(image.data).float()[None, None], at))


# ---------------------------------------------------------------------------- on the fixed grid


def prepared(image: Tensor, template_to_scan: np.ndarray | None = None) -> Prepared:
    affine = Affine(np.eye(4) if template_to_scan is None else template_to_scan)
    return Prepared(image, Examination("scan", Grid((4, 4, 4), np.eye(4)), affine, template=None))


def model_on(grid: Grid) -> Model:
    return Model.build({"name": "descent", "steps": [4, 4]}, Recipe(grid, alignment="header"))


def test_warps_of_the_working_grid_are_the_same_motion_in_the_fixed_scans_space() -> None:
    """T W T⁻¹ with T from the common space to the scan: of a linear W, all is known exactly."""
    working, fixed = oblique_grid(1, (30, 32, 34)), oblique_grid(2, (12, 11, 10))
    matrix, to_scan = near_identity(3, strength=0.1, shift=1.0), near_identity(4)
    nodes = working.nodes()
    motion = Warp(
        np.moveaxis(apply_affine(matrix, nodes) - nodes, -1, 0).astype(np.float32), working
    )
    scan = prepared(torch.zeros(1, 1, *working.shape), to_scan)
    warp = on_fixed_grid(motion.in_voxels()[None], model_on(working), scan, fixed)
    assert warp.grid == fixed
    expected = (
        apply_affine(to_scan @ matrix @ np.linalg.inv(to_scan), fixed.nodes()) - fixed.nodes()
    )
    at = working.to_voxel(apply_affine(np.linalg.inv(to_scan), fixed.nodes()))
    inside = ((at > 0) & (at < np.array(working.shape) - 1)).all(axis=-1)
    assert inside.mean() > 0.3
    found = np.moveaxis(warp.displacement, 0, -1)
    np.testing.assert_allclose(found[inside], expected[inside], atol=2e-3)
    # In steps of 2⁻¹⁰ mm, so that files are small.
    np.testing.assert_array_equal(warp.displacement * 1024, np.rint(warp.displacement * 1024))


def test_the_inverse_of_a_linear_warp_is_that_of_its_matrix() -> None:
    grid, matrix = oblique_grid(3, (24, 22, 26)), near_identity(5, strength=0.1, shift=1.0)
    nodes = grid.nodes()

    def motion(by: np.ndarray) -> np.ndarray:
        return np.moveaxis(apply_affine(by, nodes) - nodes, -1, 0).astype(np.float32)

    rounded = np.rint(motion(matrix) * 1024) / 1024
    warp = Warp(rounded.copy(), grid)
    found = inverted(warp)
    np.testing.assert_array_equal(warp.displacement, rounded)
    assert found.grid == grid
    at = grid.to_voxel(apply_affine(np.linalg.inv(matrix), nodes))
    inside = ((at > 0) & (at < np.array(grid.shape) - 1)).all(axis=-1)
    assert inside.mean() > 0.3
    expected = motion(np.linalg.inv(matrix))
    np.testing.assert_allclose(found.displacement[:, inside], expected[:, inside], atol=2e-2)
    np.testing.assert_array_equal(found.displacement * 1024, np.rint(found.displacement * 1024))


# -------------------------------------------------------------------------------- the answer

PAIR = tuple(torch.from_numpy(texture(seed, (24, 28, 32)))[None, None] for seed in (1, 2))
GRID = Grid((24, 28, 32), np.eye(4))
CPU = torch.device("cpu")


def of_model(name: str, **arguments: object) -> Model:
    torch.manual_seed(0)
    return Model.build({"name": name, **arguments}, Recipe(GRID, alignment="header"))


@pytest.fixture
def segmented(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The images that are segmented, one by one."""
    seen: list[Tensor] = []
    forward = StructureMaps.forward

    def noted(maps: StructureMaps, images: Tensor, factor: int) -> Tensor:
        seen.extend(images)
        return forward(maps, images, factor)

    monkeypatch.setattr(StructureMaps, "forward", noted)
    return seen


def test_network_and_refinement_segment_each_image_once(segmented: list[Tensor]) -> None:
    model = of_model("anatomy", structures=4, channels=[6, 8], steps=[3, 3], full_steps=1)
    pair = [prepared(image) for image in PAIR]
    answer = compute_deformation(
        model, moving=pair[0], fixed=pair[1], device=CPU, refinement=Refinement(3)
    )
    assert len(segmented) == 2
    apart = model.refine(
        model.deform(moving=PAIR[0], fixed=PAIR[1]), Refinement(3), moving=PAIR[0], fixed=PAIR[1]
    )
    assert len(segmented) == 6
    for name in ("displacement", "unsure"):
        assert torch.equal(getattr(answer, name), getattr(apart, name))


def test_the_meter_takes_the_stages_that_there_are() -> None:
    model, pair = of_model("descent", steps=[2, 2]), [prepared(image) for image in PAIR]
    for refinement, stages in ((None, ["network"]), (Refinement(1), ["network", "refine"])):
        announced: list[str] = []
        meter = Meter(memory=False, announce=announced.append)
        compute_deformation(
            model, moving=pair[0], fixed=pair[1], device=CPU, refinement=refinement, meter=meter
        )
        assert announced == stages


def test_smoothness_changes_descents_and_refinements_alone() -> None:
    """A network that learned its smoothness gives the same deformation."""
    pair = [prepared(image) for image in PAIR]
    stubborn = of_model("diffeomorphic", encoder=[4, 8], decoder=[8, 8, 8])
    plain, asked = (
        compute_deformation(stubborn, moving=pair[0], fixed=pair[1], device=CPU, smoothness=s)
        for s in (None, 4.0)
    )
    assert torch.equal(plain.displacement, asked.displacement)
    for model, refinement in ((stubborn, Refinement(8)), (of_model("descent", steps=[6, 6]), None)):
        rough, smooth = (
            compute_deformation(
                model,
                moving=pair[0],
                fixed=pair[1],
                device=CPU,
                refinement=refinement,
                smoothness=s,
            )
            for s in (0.5, 4.0)
        )
        spreads = [
            float(field.jacobian_determinant(answer.displacement).log().std())
            for answer in (rough, smooth)
        ]
        assert spreads[1] < 0.7 * spreads[0]


# --------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize("factor", [0, 0.1, 0.49, 8.01, 9, -1, np.nan, np.inf])
def test_a_smoothness_beyond_the_limits_is_refused(factor: float) -> None:
    with pytest.raises(InputError, match=rf"smoothness must be between 0\.5 and 8, got {factor}"):
        check_smoothness(factor)


@pytest.mark.parametrize("factor", [None, 0.5, 1, 8])
def test_a_smoothness_within_the_limits_is_not_refused(factor: float | None) -> None:
    check_smoothness(factor)


@pytest.mark.parametrize(
    ("name", "smoothness", "refined", "said"),
    [
        ("descent", 2.0, False, None),
        ("anatomy", 2.0, False, None),
        ("pyramid", None, False, None),
        ("pyramid", 2.0, True, None),
        ("pyramid", 2.0, False, "smoothness has no effect on model unnamed"),
        ("voxelmorph", 2.0, False, "smoothness has no effect on model unnamed"),
    ],
)
def test_a_smoothness_without_effect_is_refused(
    name: str, smoothness: float | None, refined: bool, said: str | None
) -> None:
    if said is None:
        check_smoothness_applies(of_model(name), smoothness, refined=refined)
        return
    with pytest.raises(InputError, match=said):
        check_smoothness_applies(of_model(name), smoothness, refined=refined)
