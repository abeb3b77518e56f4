"""Files as other tools leave them, of phantoms, by those tools' conventions: for the how-to pages.

Each is written by nibabel, SimpleITK or NumPy alone, none by voxwarp.
"""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from brains import OTHER, UPRIGHT, Phantoms, make_grid

from voxwarp.space.grid import Grid

FLIP = np.array([-1.0, -1.0, 1.0])


def fsl_from_voxels(image: nib.Nifti1Image) -> np.ndarray:
    """(4, 4): voxel indices to FSL's millimetres, by FSL's documentation of its coordinates."""
    sizes = nib.affines.voxel_sizes(image.affine)
    matrix = np.diag([*sizes, 1.0])
    if np.linalg.det(image.affine[:3, :3]) > 0:
        matrix[0, 0], matrix[0, 3] = -sizes[0], (image.shape[0] - 1) * sizes[0]
    return matrix


def shifted(points: np.ndarray) -> np.ndarray:
    """A smooth map of points (..., 3), RAS mm: the deformations of all files of this module."""
    return points + 2 + 3 * np.sin(np.roll(points, 1, axis=-1) / 25)


def write_all(folder: Path, phantoms: Phantoms) -> None:
    """The files that the how-to pages name."""
    moving, fixed = make_grid(spacing=4.5), make_grid(spacing=5)
    head = phantoms.image(moving, OTHER)
    brain = (np.asarray(head.dataobj) > 0).astype(np.uint8)
    _write_fsl(folder, head, brain, phantoms, fixed)
    _write_spm(folder, head, brain, fixed)
    _write_freesurfer(folder, phantoms)
    _write_fmriprep(folder / "fmriprep" / "sub-01", phantoms, moving, fixed)
    _write_ants(folder / "ants", head, fixed)
    _write_voxelmorph(folder, fixed)
    _write_slicer(folder)


def _write_fsl(
    folder: Path, head: nib.Nifti1Image, brain: np.ndarray, phantoms: Phantoms, fixed: Grid
) -> None:
    for name in ("T1", "T1_brain"):
        nib.save(head, folder / f"{name}.nii.gz")
    nib.save(nib.Nifti1Image(brain, head.affine), folder / "T1_brain_mask.nii.gz")
    moving = make_grid(spacing=4.5)
    nib.save(phantoms.labels(moving, OTHER), folder / "T1_brain_seg.nii.gz")
    frames = make_grid(spacing=5.5)
    func = phantoms.image(frames, OTHER)
    series = np.stack([np.asarray(func.dataobj)] * 2, axis=-1)
    nib.save(nib.Nifti1Image(series, func.affine), folder / "func.nii.gz")
    to_head = fsl_from_voxels(head) @ np.linalg.inv(head.affine)
    from_func = func.affine @ np.linalg.inv(fsl_from_voxels(func))
    np.savetxt(folder / "func2T1.mat", to_head @ from_func)  # they lie in their places
    here = fixed.nodes()
    target = nib.Nifti1Image(np.zeros(fixed.shape, np.uint8), fixed.affine)
    warp = _mapped(head, shifted(here)) - _mapped(target, here)
    nib.save(nib.Nifti1Image(warp.astype(np.float32), fixed.affine), folder / "fnirt_warp.nii.gz")


def _mapped(image: nib.Nifti1Image, points: np.ndarray) -> np.ndarray:
    matrix = fsl_from_voxels(image) @ np.linalg.inv(image.affine)
    return nib.affines.apply_affine(matrix, points)


def _write_spm(folder: Path, head: nib.Nifti1Image, brain: np.ndarray, fixed: Grid) -> None:
    nib.save(head, folder / "T1.nii")
    for number, share in enumerate((0.5, 0.3, 0.2), 1):
        tissue = (share * brain).astype(np.float32)
        nib.save(nib.Nifti1Image(tissue, head.affine), folder / f"c{number}T1.nii")
    places = shifted(fixed.nodes()).astype(np.float32)[:, :, :, None, :]
    image = nib.Nifti1Image(places, fixed.affine)
    image.header.set_intent("vector", name="Mapping")
    nib.save(image, folder / "y_T1.nii")


def _write_freesurfer(folder: Path, phantoms: Phantoms) -> None:
    """A subject ``bert``: LIA volumes, a surface in the coordinates of its own, an LTA."""
    grid = make_grid("LIA", 4.5)
    image, labels = phantoms.image(grid, OTHER), phantoms.labels(grid, OTHER)
    for name in ("mri", "surf"):
        (folder / "bert" / name).mkdir(parents=True)
    values = np.asarray(image.dataobj)
    volumes = {
        **dict.fromkeys(("norm", "brain", "T1", "brainmask"), values.astype(np.uint8)),
        **dict.fromkeys(("aseg", "aparc+aseg"), np.asarray(labels.dataobj).astype(np.int32)),
    }
    for name, data in volumes.items():
        nib.save(nib.MGHImage(data, grid.affine), folder / "bert" / "mri" / f"{name}.mgz")
    mgh = nib.MGHImage(values.astype(np.uint8), grid.affine)
    voxels = np.argwhere(values > 100)[::97][:60].astype(float)
    vertices = nib.affines.apply_affine(mgh.header.get_vox2ras_tkr(), voxels)
    faces = np.array([(n, n + 1, n + 2) for n in range(len(voxels) - 2)])
    nib.freesurfer.write_geometry(str(folder / "bert" / "surf" / "lh.white"), vertices, faces)
    lta(folder / "func_to_T1.lta", phantoms.image(make_grid(spacing=5.5), OTHER), image, np.eye(4))


def lta(path: Path, moving: nib.Nifti1Image, fixed: nib.Nifti1Image, matrix: np.ndarray) -> None:
    """A linear transform of FreeSurfer: from the source, moving, to the target, fixed, RAS mm."""
    lines = ["type      = 1", "nxforms   = 1", "mean      = 0.0 0.0 0.0", "sigma     = 1.0"]
    lines += ["1 4 4", *(" ".join(f"{x:.15e}" for x in row) for row in matrix)]
    for title, image in (("src", moving), ("dst", fixed)):
        sizes = nib.affines.voxel_sizes(image.affine)
        directions = image.affine[:3, :3] / sizes
        shape = np.array(image.shape[:3])
        middle = nib.affines.apply_affine(image.affine, shape / 2)
        lines += [f"{title} volume info", "valid = 1  # volume info valid", "filename = none"]
        lines += ["volume = " + " ".join(map(str, shape)), "voxelsize = " + _numbers(sizes)]
        lines += [f"{a}ras   = {_numbers(d)}" for a, d in zip("xyz", directions.T, strict=True)]
        lines += [f"cras   = {_numbers(middle)}"]
    path.write_text("\n".join([*lines, ""]))


def _numbers(values: np.ndarray) -> str:
    return " ".join(f"{x:.15e}" for x in values)


def _write_fmriprep(folder: Path, phantoms: Phantoms, moving: Grid, fixed: Grid) -> None:
    for name in ("anat", "func"):
        (folder / name).mkdir(parents=True)
    head, anat, func = phantoms.image(moving, OTHER), folder / "anat", folder / "func"
    nib.save(head, anat / "sub-01_desc-preproc_T1w.nii.gz")
    brain = (np.asarray(head.dataobj) > 0).astype(np.uint8)
    nib.save(nib.Nifti1Image(brain, head.affine), anat / "sub-01_desc-brain_mask.nii.gz")
    nib.save(phantoms.labels(moving, OTHER), anat / "sub-01_desc-aseg_dseg.nii.gz")
    for there, back, through, grid in (
        ("T1w", "MNI152NLin2009cAsym", shifted, fixed),
        ("MNI152NLin2009cAsym", "T1w", unshifted, moving),
    ):
        field = sitk.DisplacementFieldTransform(itk_field(grid, through))
        composite = sitk.CompositeTransform([sitk.AffineTransform(3), field])
        name = f"sub-01_from-{there}_to-{back}_mode-image_xfm.h5"
        sitk.WriteTransform(composite, str(anat / name))
    frames = make_grid(spacing=5.5)
    one = phantoms.image(frames, OTHER)
    series = nib.Nifti1Image(np.stack([np.asarray(one.dataobj)] * 2, axis=-1), one.affine)
    for space in ("", "_space-T1w"):
        nib.save(series, func / f"sub-01_task-rest{space}_desc-preproc_bold.nii.gz")
    nib.save(one, func / "sub-01_task-rest_desc-coreg_boldref.nii.gz")
    linear = func / "sub-01_task-rest_from-boldref_to-T1w_mode-image_desc-coreg_xfm.txt"
    sitk.WriteTransform(sitk.AffineTransform(3), str(linear))
    description = {"Name": "fMRIPrep", "BIDSVersion": "1.4.0", "DatasetType": "derivative"}
    (folder.parent / "dataset_description.json").write_text(json.dumps(description))
    nib.save(phantoms.image(fixed, UPRIGHT), folder.parents[1] / "template_brain.nii.gz")


def unshifted(points: np.ndarray) -> np.ndarray:
    """The inverse of ``shifted``, by iteration."""
    found = points
    for _ in range(60):
        found = points - (shifted(found) - found)
    return found


def itk_field(grid: Grid, through) -> sitk.Image:
    """A displacement field of SimpleITK, LPS mm, whose file nibabel has not seen."""
    vectors = ((through(grid.nodes()) - grid.nodes()) * FLIP).transpose(2, 1, 0, 3)
    image = sitk.GetImageFromArray(np.ascontiguousarray(vectors), isVector=True)
    image.SetSpacing(grid.spacing)
    image.SetOrigin((grid.affine[:3, 3] * FLIP).tolist())
    image.SetDirection((FLIP[:, None] * grid.direction).ravel().tolist())
    return image


def _write_ants(folder: Path, head: nib.Nifti1Image, fixed: Grid) -> None:
    """Results of two people in one folder, as antsRegistration writes them with prefixes."""
    folder.mkdir()
    inside = (np.asarray(head.dataobj) > 0).astype(np.uint8)
    nib.save(head, folder / "BrainExtractionBrain.nii.gz")
    nib.save(nib.Nifti1Image(inside, head.affine), folder / "BrainExtractionMask.nii.gz")
    for prefix in ("sub-01_", "sub-02_"):
        linear = sitk.AffineTransform(3)
        linear.SetTranslation((2.0, -1.0, 3.0))
        sitk.WriteTransform(linear, str(folder / "a.mat"))
        (folder / "a.mat").rename(folder / f"{prefix}0GenericAffine.mat")
        for name, through in (("1Warp", shifted), ("1InverseWarp", unshifted)):
            field = sitk.Cast(itk_field(fixed, through), sitk.sitkVectorFloat32)
            sitk.WriteImage(field, str(folder / f"{prefix}{name}.nii.gz"))


def _write_voxelmorph(folder: Path, grid: Grid) -> None:
    """A warp as VoxelMorph's register.py saves it: voxels of the fixed image, X×Y×Z×3."""
    shift = 2 * np.sin(np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), -1) / 7)
    nib.save(nib.Nifti1Image(shift.astype(np.float32), grid.affine), folder / "vxm_warp.nii.gz")


def _write_slicer(folder: Path) -> None:
    control = {"id": "1", "label": "F-1", "position": [0.0, 18.0, 4.0], "positionStatus": "defined"}
    markup = {"type": "Fiducial", "coordinateSystem": "LPS", "controlPoints": [control]}
    (folder / "fiducials.mrk.json").write_text(json.dumps({"markups": [markup]}))
    linear = sitk.AffineTransform(3)
    linear.SetTranslation((2.0, -1.0, 3.0))
    sitk.WriteTransform(linear, str(folder / "linear.tfm"))
