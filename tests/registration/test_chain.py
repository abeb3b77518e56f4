"""Chains of registrations: the order in which an image travels, with SimpleITK as the oracle."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from scipy.spatial.transform import Rotation

import voxwarp
from voxwarp.errors import InputError
from voxwarp.registration.apply import apply_to_image
from voxwarp.registration.points import apply_to_points
from voxwarp.registration.saved_transform import chain_of, load_transform
from voxwarp.space.formats import read_affine, write_affine
from voxwarp.space.transform import Affine
from voxwarp.space.volume import read_volume

FLIP = np.array([-1.0, -1.0, 1.0])


@pytest.fixture
def rigid(tmp_path) -> Path:
    """From the space of the moving scan to another one, as of a BOLD image: a rigid ITK affine."""
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", (7, -12, 5), degrees=True).as_matrix()
    matrix[:3, 3] = 4, -6, 9
    write_affine(Affine(matrix), tmp_path / "rigid.mat")
    return tmp_path / "rigid.mat"


def itk_chain(*files: Path) -> sitk.CompositeTransform:
    """Of points: what is named last is applied first, as ANTs and SimpleITK have it."""
    steps = []
    for file in files:
        if file.suffix == ".mat":
            steps.append(sitk.ReadTransform(str(file)))
        else:
            field = sitk.ReadImage(str(file), sitk.sitkVectorFloat64)
            steps.append(sitk.DisplacementFieldTransform(field))
    return sitk.CompositeTransform(steps)


@pytest.fixture
def points() -> np.ndarray:
    return np.random.default_rng(3).uniform((-40, -60, -20), (40, 30, 50), (100, 3))


def test_points_go_as_in_simpleitk(saved, rigid, points):
    """An image goes from BOLD by the rigid map, then by the registration; points come back."""
    pulled = itk_chain(rigid, saved.out / "0GenericAffine.mat", saved.out / "1Warp.nii.gz")
    expected = [FLIP * pulled.TransformPoint((FLIP * point).tolist()) for point in points]
    chain = [rigid, load_transform(saved.out)]
    got = apply_to_points(points, chain, inverse=True)
    np.testing.assert_allclose(got, expected, atol=1e-3)
    there_and_back = apply_to_points(got, chain)
    assert np.linalg.norm(there_and_back - points, axis=1).mean() < 0.3


def test_an_image_is_resampled_once_as_in_simpleitk(saved, rigid, phantoms, make_grid):
    """BOLD → T1 → the fixed scan: one linear interpolation on the last fixed grid."""
    bold = phantoms.image(make_grid("LPS", (5, 4, 6)), dtype=np.float32)
    moved = apply_to_image(bold, [str(rigid), saved.out])
    reference = sitk.ReadImage(str(saved.fixed), sitk.sitkFloat32)
    nib.save(bold, saved.out.parent / "bold.nii.gz")
    pulled = itk_chain(rigid, saved.out / "0GenericAffine.mat", saved.out / "1Warp.nii.gz")
    theirs = sitk.Resample(
        sitk.ReadImage(str(saved.out.parent / "bold.nii.gz"), sitk.sitkFloat32), reference, pulled
    )
    ours, theirs = moved.data, sitk.GetArrayFromImage(theirs).T
    inside = (ours > 30) & (theirs > 30)
    assert inside.mean() > 0.05
    assert np.abs(ours - theirs)[inside].mean() < 0.05
    assert np.percentile(np.abs(ours - theirs)[inside], 99) < 0.5


def test_the_command_takes_several_and_inverses_as_ants_writes_them(cli, saved, rigid, tmp_path):
    out, back = tmp_path / "there.nii.gz", tmp_path / "back.nii.gz"
    words = "-t", rigid, "-t", saved.out, "-r", saved.fixed
    assert cli("apply", saved.moving, *words, "-o", out).code == 0
    expected = apply_to_image(saved.moving, [rigid, saved.out], reference=saved.fixed)
    np.testing.assert_array_equal(np.asarray(nib.load(out).dataobj), expected.data)
    # The inverse of the chain is the chain of the inverses, the other way round.
    inverse = "-t", f"[{saved.out},1]", "-t", f"[{rigid}, 1]", "-r", saved.moving
    assert cli("apply", saved.fixed, *inverse, "-o", back).code == 0
    expected = apply_to_image(saved.fixed, [rigid, saved.out], reference=saved.moving, inverse=True)
    np.testing.assert_array_equal(np.asarray(nib.load(back).dataobj), expected.data)


def test_grids_are_those_of_the_ends(saved, rigid):
    chain = chain_of([load_transform(rigid), load_transform(saved.out)])
    assert chain.fixed_grid.matches(saved.result.fixed_grid)
    assert chain.moving_grid is None
    assert chain.inverted().moving_grid is chain.fixed_grid
    with pytest.raises(InputError, match=r"reference is needed, .* of the moving scan"):
        apply_to_image(saved.fixed, [rigid, saved.out], inverse=True)
    with pytest.raises(InputError, match="transforms must name at least one"):
        chain_of([])


def test_an_affine_in_memory_does_as_well_as_its_file(saved, rigid, points):
    affine = read_affine(rigid)
    for inverse in (False, True):
        ours, theirs = (
            apply_to_points(points, [one, saved.result], inverse=inverse) for one in (affine, rigid)
        )
        np.testing.assert_array_equal(ours, theirs)
    moved = apply_to_image(saved.moving, affine, reference=saved.fixed)
    np.testing.assert_array_equal(
        moved.data, apply_to_image(saved.moving, rigid, reference=saved.fixed).data
    )
    with pytest.raises(InputError, match="reference is needed"):
        apply_to_image(saved.moving, affine)


def test_what_is_in_memory_goes_in_and_comes_out(saved):
    """Paths, nibabel's images and volumes give the same; so do results in memory and on disk."""
    image = nib.load(saved.moving)
    volume = read_volume(saved.moving)
    results = [apply_to_image(x, saved.result) for x in (saved.moving, image, volume)]
    results.append(apply_to_image(volume, saved.out))
    for other in results[1:]:
        np.testing.assert_array_equal(results[0].data, other.data)
    back = results[0].to_nibabel()
    assert isinstance(back, nib.Nifti1Image)
    np.testing.assert_array_equal(np.asarray(back.dataobj), results[0].data)
    np.testing.assert_allclose(back.affine, results[0].grid.affine, atol=1e-5)
    labels = apply_to_image(saved.moving_labels, saved.result).to_nibabel()
    assert labels.header.get_intent()[0] == "label"


def test_a_volume_can_be_registered(saved, register_quickly):
    volume = read_volume(saved.moving)
    ours, theirs = (register_quickly(x, saved.fixed) for x in (volume, saved.moving))
    np.testing.assert_array_equal(ours.warp.displacement, theirs.warp.displacement)
    assert ours.metrics["inputs"]["moving"] == {"path": None, "sha256": None}


def test_the_example_of_help_runs(saved, monkeypatch, tmp_path):
    """``help(voxwarp)`` begins with code, which does what it says."""
    code = voxwarp.__doc__.partition("\n\n")[2].rpartition("\n\nNames are")[0]
    lines = [line.strip() for line in code.splitlines()]
    for name, path in {
        "moving.nii.gz": saved.moving,
        "fixed.nii.gz": saved.fixed,
        "moving_seg.nii.gz": saved.moving_labels,
    }.items():
        (tmp_path / name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(voxwarp, "register", lambda *_: saved.result, raising=False)
    scope: dict = {}
    exec("\n".join(lines), scope)
    assert (tmp_path / "out" / "report.html").is_file()
    assert isinstance(scope["labels"], nib.Nifti1Image)
