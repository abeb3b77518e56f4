"""Heads and skull-stripped brains, and the checks of the masks that extractors return."""

import warnings

import nibabel as nib
import numpy as np
import pytest

from voxwarp.errors import InputError
from voxwarp.preparation import brain
from voxwarp.preparation.template import mni152
from voxwarp.space.grid import Grid
from voxwarp.space.volume import Volume, read_volume

TYPES = [np.uint8, np.int16, np.float32, np.float64]


@pytest.fixture(scope="module")
def grid(make_grid) -> Grid:
    return make_grid(room=25)


@pytest.fixture(scope="module")
def inside(phantoms, grid) -> np.ndarray:
    """The brain of the head."""
    return phantoms.values(grid) > 0


@pytest.fixture(scope="module")
def head(phantoms, grid) -> Volume:
    return read_volume(phantoms.head(grid, noise=4))


def block(millilitres: float) -> tuple[np.ndarray, Volume]:
    """A mask of that volume on a head of 8 mL voxels."""
    mask = np.zeros(8000, dtype=bool)
    mask[: round(millilitres / 8)] = True
    grid = Grid((20, 20, 20), np.diag([20.0, -20, 20, 1]))
    return mask.reshape(grid.shape), Volume(np.ones(grid.shape), grid, "head.nii")


# ------------------------------------------------------------------------------- Head or brain


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("noise", [0, 6])
def test_a_head_is_a_head(phantoms, grid, dtype, noise):
    assert not brain.is_extracted(read_volume(phantoms.head(grid, dtype=dtype, noise=noise)))


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("room", [0, 25])
def test_a_brain_is_a_brain(phantoms, make_grid, dtype, room):
    assert brain.is_extracted(read_volume(phantoms.image(make_grid(room=room), dtype=dtype)))


def test_a_head_whose_air_was_set_to_zero_is_a_head(phantoms, grid, inside):
    """Also without a neck, so that nothing but zeros is at the border: it is too large."""
    scan = np.asarray(phantoms.head(grid).dataobj)
    scan[:, :, :4] = 0
    outer = [scan[[0, -1]], scan[:, [0, -1]], scan[..., [0, -1]]]
    assert max(abs(side).max() for side in outer) == 0
    assert not brain.is_extracted(Volume(scan, grid))
    assert brain.is_extracted(Volume(np.where(inside, scan, 0), grid))


def test_a_head_with_a_tight_field_of_view_is_a_head(phantoms, make_grid):
    """Cut so close that what is left is no larger than a brain."""
    grid = make_grid()
    scan = np.asarray(phantoms.head(grid).dataobj)[12:28, 14:36, 12:32]
    volume = Volume(scan, Grid(scan.shape, grid.affine))
    assert brain.millilitres(scan > 0, volume) < brain.LARGEST
    assert not brain.is_extracted(volume)


@pytest.mark.parametrize("background", [-1000, 17, 3000])
def test_the_background_of_a_brain_may_be_any_value(phantoms, grid, inside, background):
    """Scaled intensities, or z-scores, have another one than zero."""
    scan = np.where(inside, phantoms.values(grid), background)
    assert brain.is_extracted(Volume(scan, grid))


def test_a_brain_may_ring_faintly(phantoms, grid):
    """As after resampling by splines: nowhere exactly zero near the brain."""
    values = phantoms.values(grid)
    ripple = np.random.default_rng(0).normal(0, 0.5, grid.shape)
    ripple[[0, -1]] = ripple[:, [0, -1]] = ripple[..., [0, -1]] = 0
    ripple[:2] = 0
    scan = np.where(values > 0, values, ripple * (np.abs(ripple) < 1))
    assert (scan != 0).mean() > 0.8
    assert brain.is_extracted(Volume(scan, grid))


def test_a_loud_noise_around_a_brain_is_no_background(phantoms, grid):
    noise = np.abs(np.random.default_rng(0).normal(0, 20, grid.shape))
    assert not brain.is_extracted(Volume(phantoms.values(grid) + noise, grid))


def test_a_constant_scan_is_no_error():
    assert brain.is_extracted(Volume(np.full((5, 6, 7), 3), Grid((5, 6, 7), np.eye(4))))


def test_millilitres_of_a_mask_on_an_oblique_grid(make_grid):
    grid = make_grid("ASR", (2, 3, 5), turn=(10, 20, 30), shear=0.2)
    mask = np.zeros(grid.shape, dtype=bool)
    mask[3:13, 4:14, 2:12] = True  # 1000 voxels; a shear along an axis changes no volume
    assert brain.millilitres(mask, Volume(mask, grid)) == pytest.approx(30)


# ---------------------------------------------------------------------------------- Extractors


def test_an_unknown_extractor_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match=r"^extractor must be deepbet or .*, got 'nope'"):
        brain.extractor("nope")


def test_an_extractor_may_be_any_function(tmp_path, monkeypatch, head):
    code = "def bright(head):\n    return head.data > 40\n"
    (tmp_path / "ours_to_extract.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(brain, "LARGEST", 1e6)
    mask = brain.extract(head, "ours_to_extract:bright")
    np.testing.assert_array_equal(mask, head.data > 40)


@pytest.mark.parametrize(
    ("name", "reason"),
    [("no_such_module_here:f", "no_such_module_here"), ("json:no_such_function", "no_such_func")],
)
def test_a_missing_extractor_is_refused_by_its_name(name, reason):
    with pytest.raises(InputError, match=rf"extractor '{name}'.*{reason}"):
        brain.extractor(name)


@pytest.mark.parametrize(
    "name", [":", ":function", "json:", ".json:loads", "json:no.such", "json:__doc__"]
)
def test_a_name_that_means_no_function_is_refused(name):
    with pytest.raises(InputError, match="extractor"):
        brain.extractor(name)


def test_a_mask_of_another_shape_is_refused(monkeypatch, head):
    monkeypatch.setitem(brain.EXTRACTORS, "odd", lambda head: np.ones((3, 4, 5)))
    with pytest.raises(InputError, match=r"'odd' must return a mask .*, got \(3, 4, 5\)"):
        brain.extract(head, "odd")


@pytest.mark.parametrize(
    ("size", "problem"), [(0, "is empty"), (144, "has 144 mL"), (2608, "has 2608 mL")]
)
def test_a_mask_of_the_wrong_size_is_refused(monkeypatch, size, problem):
    mask, volume = block(size)
    monkeypatch.setitem(brain.EXTRACTORS, "stub", lambda _: mask)
    with pytest.raises(InputError, match=rf"^no brain found in head\.nii: .* {problem}, a brain"):
        brain.extract(volume, "stub")


@pytest.mark.parametrize("size", [152, 1200, 2600])
@pytest.mark.parametrize("dtype", [bool, np.uint8, np.float32])
def test_a_mask_of_a_brain_is_taken_as_it_is(monkeypatch, size, dtype):
    mask, volume = block(size)
    monkeypatch.setitem(brain.EXTRACTORS, "stub", lambda _: mask.astype(dtype))
    got = brain.extract(volume, "stub")
    assert got.dtype == bool
    np.testing.assert_array_equal(got, mask)


# ------------------------------------------------------------------------------------- Deepbet


def test_deepbet_finds_the_brain_of_a_head(head, inside):
    mask = brain.deepbet(head)
    assert 2 * (mask & inside).sum() / (mask.sum() + inside.sum()) > 0.95


def test_deepbet_does_not_eat_a_bare_brain():
    """Where a brain is taken for a head: next to nothing of the template is lost."""
    mask = brain.deepbet(mni152().image)
    assert mask[mni152().image.data > 0].mean() > 0.97


def test_deepbet_finds_nothing_where_there_is_nothing():
    """No error either: that is for ``extract`` to say."""
    void = np.zeros((40, 44, 42), np.float32)
    void[20, 20, 20] = 1
    assert not brain.deepbet(Volume(void, Grid(void.shape, np.diag([5.0, 5, 5, 1])))).any()


def test_an_error_in_the_users_extractor_is_reported_in_a_sentence(tmp_path, monkeypatch):
    code = "def find(head):\n    head.data[:] = 0\n    raise OSError('no weights')\n"
    (tmp_path / "voxwarp_test_failing.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    head = Volume(np.ones((4, 4, 4), np.float32), Grid((4, 4, 4), np.diag([40.0, 40, 40, 1])))
    with pytest.raises(InputError, match=r"failing:find' failed on .*: OSError: no weights"):
        brain.extract(head, "voxwarp_test_failing:find")
    assert head.data.all()


@pytest.mark.parametrize("category", [DeprecationWarning, FutureWarning])
def test_a_warning_that_its_format_is_old_is_not_the_users_business(
    monkeypatch: pytest.MonkeyPatch, category: type[Warning]
) -> None:
    """Of PyTorch, about the file of deepbet's network; the category depends on the version."""

    class Old:
        def __init__(self, **_: object) -> None:
            warnings.warn("torch.jit.load is deprecated", category, stacklevel=2)

        def run(self, image: nib.Nifti1Image) -> tuple[None, nib.Nifti1Image, None]:
            return None, image, None

    monkeypatch.setattr("deepbet.BrainExtraction", Old)
    _, head = block(8)
    assert brain.deepbet(head).all()
