"""FreeSurfer's linear transforms and surfaces, against its documented coordinates."""

import nibabel as nib
import numpy as np
import pytest
from other_tools import lta


def test_an_lta_becomes_a_transform_of_itk(pair, run, cli, pulled, assert_alike, tmp_path) -> None:
    """An LTA leads from the source to the target; we resample the source."""
    pytest.importorskip("nitransforms")
    moving, fixed, out = pair.image("moving"), pair.image("fixed"), tmp_path / "o.nii.gz"
    matrix = np.linalg.inv(pair.rigid.affine.matrix)
    matrix[:3, 3] += 1, -2, 3
    lta(pair.folder / "func_to_T1.lta", moving, fixed, matrix)
    run("freesurfer.md", "func_to_T1.lta")
    words = "moving.nii.gz", "-t", "func_to_T1.txt", "-r", "fixed.nii.gz", "-o", out
    assert cli("apply", *words).code == 0
    voxels = np.linalg.inv(moving.affine) @ np.linalg.inv(matrix) @ fixed.affine
    at = nib.affines.apply_affine(voxels, np.moveaxis(np.indices(fixed.shape), 0, -1))
    assert_alike(
        pulled(pair.values("moving"), at), np.asarray(nib.load(out).dataobj), at, moving.shape
    )


def test_a_text_file_for_lta_convert(pair, run) -> None:
    """It wants double precision and a centre of zero."""
    pair.rigid.save("bold_to_t1")
    run("freesurfer.md", "bold_to_t1.txt")
    lines = (pair.folder / "bold_to_t1.txt").read_text().splitlines()
    assert "Transform: AffineTransform_double_3_3" in lines
    assert "FixedParameters: 0 0 0" in lines
    numbers = next(line for line in lines if line.startswith("Parameters:")).split()[1:]
    flip = np.diag([-1.0, -1, 1, 1])
    expected = flip @ pair.rigid.affine.matrix @ flip
    values = np.array(numbers, float)
    np.testing.assert_allclose(values[:9].reshape(3, 3), expected[:3, :3], atol=1e-9)
    np.testing.assert_allclose(values[9:], expected[:3, 3], atol=1e-6)


def test_surfaces_move_with_their_volume(
    phantoms, poses, make_grid, register_quickly, tmp_path, monkeypatch, run
) -> None:
    """Vertices in the scanner's RAS are those in surface RAS plus c_ras, on a conformed volume."""
    monkeypatch.chdir(tmp_path)
    for name in ("mri", "surf"):
        (tmp_path / "bert" / name).mkdir(parents=True)
    image = phantoms.image(make_grid("LIA", 4.5), poses.moving, np.uint8)
    volume = nib.MGHImage(np.asarray(image.dataobj), image.affine)
    nib.save(volume, "bert/mri/norm.mgz")
    nib.save(phantoms.image(make_grid(spacing=5)), "fixed.nii.gz")
    result = register_quickly("bert/mri/norm.mgz", "fixed.nii.gz")
    result.save("bert_mni")
    vertices = np.random.default_rng(0).uniform(-40, 40, (30, 3))
    faces = np.arange(30).reshape(10, 3)
    nib.freesurfer.write_geometry("bert/surf/lh.white", vertices, faces)
    run("freesurfer.md", "lh.white_mni.surf.gii")
    moved, triangles = (a.data for a in nib.load("lh.white_mni.surf.gii").darrays)
    c_ras = volume.header["Pxyz_c"]
    assert abs(c_ras).max() > 1
    expected = result.inverse.map(vertices + c_ras)
    np.testing.assert_allclose(moved, expected, atol=1e-3)
    np.testing.assert_array_equal(triangles, faces)
