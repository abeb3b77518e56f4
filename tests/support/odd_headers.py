"""Headers that say oddly where voxels are, in every format, and how SimpleITK reads them."""

import struct
from pathlib import Path
from typing import Any

import h5py
import nibabel as nib
import numpy as np
import SimpleITK as sitk
from scipy.io import netcdf_file, savemat

# What warnings say of a file without placement, and of one with two.
GUESS = "does not say where left and right are"
TWO = "qform and sform differ; the sform was used"

FLIP = np.diag([-1.0, -1.0, 1.0, 1.0])

# Offsets and formats of fields in the header of NIfTI-1.
FIELDS = {
    "pixdim0": (76, "<f"),
    "pixdim": (80, "<3f"),
    "xyzt_units": (123, "<B"),
    "qform_code": (252, "<h"),
    "sform_code": (254, "<h"),
    "quatern": (256, "<3f"),
    "intent_code": (68, "<h"),
}


def nifti_file(
    path: Path,
    data: np.ndarray,
    sform: np.ndarray,
    *,
    qform: np.ndarray | None = None,
    **fields: Any,
) -> Path:
    """A NIfTI-1 file (.nii) with both forms, and then these fields as they are.

    Args:
        path: of the file.
        data: the voxels.
        sform: (4, 4), with code 1.
        qform: (4, 4), with code 1; by default the sform.
        fields: of ``FIELDS``, numbers or sequences of numbers.
    """
    image = nib.Nifti1Image(data, None, dtype=data.dtype)
    image.set_sform(sform, code=1)
    image.set_qform(sform if qform is None else qform, code=1)
    image.header.set_xyzt_units("mm", "sec")
    nib.save(image, path)
    raw = bytearray(path.read_bytes())
    for name, value in fields.items():
        offset, code = FIELDS[name]
        struct.pack_into(code, raw, offset, *np.ravel(value).tolist())
    path.write_bytes(raw)
    return path


def coded(source: Path, target: Path, sform: int, qform: int | None = None) -> Path:
    """A scan with these codes; the qform is the sform."""
    image = nib.load(source)
    affine = image.affine
    image.set_qform(affine, code=sform if qform is None else qform)
    image.set_sform(affine, code=sform)
    nib.save(image, target)
    return target


def of_two_minds(source: Path, target: Path) -> Path:
    """A scan whose qform is 10 mm from its sform."""
    image = nib.load(source)
    affine, shifted = image.affine, image.affine.copy()
    shifted[0, 3] += 10
    image.set_qform(shifted, code=1)
    image.set_sform(affine, code=1)
    nib.save(image, target)
    return target


def affine_by_itk(path: Path) -> np.ndarray:
    """(4, 4): from voxel indices to RAS mm, as SimpleITK reads the file."""
    image = sitk.ReadImage(str(path))
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * np.array(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    return FLIP @ affine


def analyze_file(
    path: Path, data: np.ndarray, affine: np.ndarray, matrices: tuple[str, ...] = ()
) -> Path:
    """An Analyze pair (.img), and a .mat file with these of SPM's matrices, or none."""
    nib.save(nib.Spm99AnalyzeImage(data, affine), path)
    from_one = np.eye(4)
    from_one[:3, 3] = -1  # MATLAB counts from one
    path.with_suffix(".mat").unlink()
    if matrices:
        savemat(path.with_suffix(".mat"), dict.fromkeys(matrices, affine @ from_one))
    return path


def minc1_file(path: Path, data: np.ndarray, *, largest: float = 1000.0, **attributes: Any) -> Path:
    """A MINC-1 file (netCDF) of int16, axes z, y, x; attributes of the three dimensions.

    The stored 1000 stands for the value ``largest``.
    """
    with netcdf_file(path, "w") as file:
        for name, length in zip("zyx", data.shape, strict=True):
            file.createDimension(f"{name}space", length)
            variable = file.createVariable(f"{name}space", "d", ())
            variable.spacing = b"regular__"
            for key, value in attributes.items():
                setattr(variable, key, value)
        image = file.createVariable("image", "h", ("zspace", "yspace", "xspace"))
        image[:] = data.astype(np.int16)
        image.signtype = b"signed__"
        image.valid_range = np.array([0.0, 1000.0])
        for name, value in (("image-max", largest), ("image-min", 0.0)):
            file.createVariable(name, "d", ())[...] = value
    return path


def minc2_file(path: Path, data: np.ndarray, *, largest: float = 1000.0, **attributes: Any) -> Path:
    """A MINC-2 file (HDF5), like ``minc1_file``."""
    with h5py.File(path, "w") as file:
        root = file.create_group("minc-2.0")
        for name, length in zip("zyx", data.shape, strict=True):
            dimension = root.create_dataset(f"dimensions/{name}space", data=0.0)
            dimension.attrs["length"] = np.int32(length)
            dimension.attrs["spacing"] = np.bytes_("regular__")
            for key, value in attributes.items():
                dimension.attrs[key] = value
        image = root.create_dataset("image/0/image", data=data.astype(np.int16))
        image.attrs["dimorder"] = np.bytes_("zspace,yspace,xspace")
        image.attrs["valid_range"] = np.array([0.0, 1000.0])
        root.create_dataset("image/0/image-max", data=largest)
        root.create_dataset("image/0/image-min", data=0.0)
    return path


def afni_file(
    path: Path, data: np.ndarray, affine: np.ndarray, *, factor: float | None = None, **texts: str
) -> Path:
    """An AFNI data set (.HEAD and .BRIK), with further attributes that are texts.

    Its values are float32, or with a factor int16 that it scales.
    """
    numbers: dict[str, tuple[str, np.ndarray]] = {
        "DATASET_RANK": ("integer", np.array([3, 1, 0, 0, 0, 0, 0, 0])),
        "DATASET_DIMENSIONS": ("integer", np.array([*data.shape, 0, 0])),
        "BRICK_TYPES": ("integer", np.array([3 if factor is None else 1])),
        "BRICK_FLOAT_FACS": ("float", np.array([factor or 0.0])),
        "DELTA": ("float", np.linalg.norm(affine[:3, :3], axis=0)),
        "SCENE_DATA": ("integer", np.array([0, 0, 0, 0, 0, 0, 0, 0])),
        "IJK_TO_DICOM_REAL": ("float", (FLIP @ affine)[:3].ravel()),
    }
    blocks = [
        f"type = {kind}-attribute\nname = {name}\ncount = {len(values)}\n"
        f"{' '.join(str(x) for x in values.tolist())}"
        for name, (kind, values) in numbers.items()
    ]
    blocks += [
        f"type = string-attribute\nname = {name}\ncount = {len(text) + 1}\n'{text}~"
        for name, text in {"BYTEORDER_STRING": "LSB_FIRST", **texts}.items()
    ]
    path.write_text("\n" + "\n\n".join(blocks) + "\n")
    stored = data.astype("<f4" if factor is None else "<i2")
    path.with_suffix(".BRIK").write_bytes(stored.tobytes(order="F"))
    return path
