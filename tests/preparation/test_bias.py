"""Known bias fields of a phantom are estimated and removed."""

import math

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

from voxwarp.errors import InputError
from voxwarp.preparation import bias
from voxwarp.preparation.coarse import Coarse
from voxwarp.space.formats import to_sitk
from voxwarp.space.grid import Grid
from voxwarp.space.volume import Volume

STRENGTH = 0.2  # standard deviation of the field's logarithm


def quadratic(grid: Grid, inside: np.ndarray) -> np.ndarray:
    """A polynomial of second order in the world coordinates, as coils make them."""
    x, y, z = np.moveaxis((grid.nodes() - grid.nodes()[inside].mean(axis=0)) / 80, -1, 0)
    log = 0.5 * x - 0.7 * y + 0.8 * z + 0.4 * x * y - 0.6 * z * z + 0.5 * y * z - 0.3 * x * x
    return STRENGTH * (log - log[inside].mean()) / log[inside].std()


def on(grid: Grid, field: Volume) -> np.ndarray:
    """The field at the voxels of a grid, by SciPy; outside its grid the border value."""
    at = np.moveaxis(field.grid.to_voxel(grid.nodes()), -1, 0)
    return ndimage.map_coordinates(field.data, at, order=1, mode="nearest")


def variation(values: np.ndarray) -> float:
    return float(values.std() / values.mean())


@pytest.mark.parametrize("what", ["head", "brain"])
def test_a_known_field_is_found_and_removed(phantoms, make_grid, what):
    """What N4 finds in the phantom as it was, contrast that is as smooth, is no error."""
    grid = make_grid("LSP" if what == "head" else "RAS", (4, 4.5, 4), turn=(6, 9, -4), room=20)
    values = phantoms.values(grid)
    clean = np.asarray(phantoms.head(grid).dataobj) if what == "head" else values
    brain, bright = values > 0, clean > 40
    log = quadratic(grid, bright)
    dirty = (clean * np.exp(log)).astype(np.float32)

    field = bias.estimate(Volume(dirty, grid))
    found = on(grid, field)
    assert np.corrcoef(found[bright], log[bright])[0, 1] > 0.9
    assert (found - log)[brain].std() < 0.5 * log[brain].std()
    before, after = variation(dirty[brain]), variation((dirty / np.exp(found))[brain])
    assert variation(clean[brain]) == pytest.approx(after, rel=0.03)
    assert before > after

    # The grid of the field has voxels of about 8 mm.
    np.testing.assert_allclose(field.grid.spacing, 8, atol=0.5)
    assert field.data.dtype == np.float32


def test_the_field_lies_where_it_was_fitted(phantoms, make_grid):
    """The filter's own field, on the voxels that it was fitted to."""
    grid = make_grid("RAS", (2, 2, 2), room=7)
    values = phantoms.values(grid)
    log = quadratic(grid, values > 40)
    dirty = Volume((values * np.exp(log)).astype(np.float32), grid)
    coarse = Coarse.of(dirty, bias.FITTED)
    image = to_sitk(Volume(coarse.image[0, 0].numpy(), coarse.grid))
    n4 = sitk.N4BiasFieldCorrectionImageFilter()
    n4.SetMaximumNumberOfIterations(list(bias.ITERATIONS))
    n4.SetConvergenceThreshold(1e-3)
    n4.Execute(image, sitk.OtsuThreshold(image, 0, 1, 200))
    theirs = sitk.GetArrayFromImage(n4.GetLogBiasFieldAsImage(image)).T
    ours = on(coarse.grid, bias.estimate(dirty))
    inner = (slice(2, -2),) * 3
    np.testing.assert_allclose(ours[inner], theirs[inner], atol=0.01)
    assert np.ptp(theirs[inner]) > 0.2


def test_the_brightness_of_a_scan_changes_the_field_by_a_constant_at_most(phantoms):
    """Nothing depends on the unit of the intensities."""
    scan = phantoms.template
    field, brighter = (bias.estimate(Volume(unit * scan.data, scan.grid)).data for unit in (1, 10))
    assert np.ptp(field) > 0.1
    assert np.ptp(brighter - field) < 0.05 * np.ptp(field)


@pytest.mark.parametrize("spacing", [4.0, 12.0])
def test_the_field_is_fitted_to_a_bounded_number_of_voxels(phantoms, monkeypatch, spacing):
    """However large the header says that a scan is; the field has its grid nevertheless."""
    monkeypatch.setattr(bias, "MOST_FITTED", 8_000)
    fitted = []
    monkeypatch.setattr(bias, "to_sitk", lambda volume: fitted.append(volume) or to_sitk(volume))
    grid = phantoms.template.grid
    large = Grid(grid.shape, grid.affine @ np.diag([spacing / 4] * 3 + [1]))
    field = bias.estimate(Volume(phantoms.template.data, large))
    voxels = np.array([math.prod(x.grid.shape) for x in fitted])
    assert math.prod(grid.shape) > 10 * 8_000
    assert voxels[0] <= 8_000
    np.testing.assert_allclose(field.grid.spacing, 8, atol=0.5)


def test_the_same_twice_to_the_last_bit(phantoms):
    once, twice = (bias.estimate(phantoms.template).data for _ in range(2))
    assert once.std() > 0.001
    np.testing.assert_array_equal(once, twice)


@pytest.mark.parametrize("axis", range(3))
def test_a_scan_too_thin_for_a_field_is_refused_in_a_sentence(phantoms, axis):
    data = np.take(phantoms.template.data, [20, 21], axis)
    thin = Volume(data, Grid(data.shape, phantoms.template.grid.affine), "thin.nii")
    with pytest.raises(InputError, match=r"^thin\.nii: N4 cannot fit a bias field") as refusal:
        bias.estimate(thin)
    assert "\n" not in str(refusal.value)
