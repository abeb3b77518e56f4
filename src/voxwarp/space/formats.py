"""ITK's files and images: the only place where LPS millimetres exist.

ITK (ANTs, SimpleITK, 3D Slicer) has x to the Left and y to the Posterior; nibabel and all of
voxwarp have R and A. The change is D = diag(−1, −1, 1), its own inverse.
"""

import os
import re
from io import BytesIO
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from scipy.io import loadmat, savemat
from scipy.io.matlab import MatReadError

from ..errors import InputError
from ..files import check_readable, write_bytes
from .transform import Affine, Warp
from .volume import Volume, image_grid, load_image, nifti, write_nifti

_FLIP = np.diag([-1.0, -1.0, 1.0, 1.0])
_SIGNS = np.array([-1.0, -1.0, 1.0], dtype=np.float32)


def lps(points: np.ndarray) -> np.ndarray:
    """RAS mm (..., 3) to LPS mm, or back: the same change."""
    return points * _SIGNS.astype(np.float64)


def write_affine(affine: Affine, path: str | os.PathLike[str]) -> None:
    """Write ``0GenericAffine.mat``: MATLAB v4, double, zero centre, as ANTs does.

    Raises:
        InputError: the file cannot be written.
    """
    matrix = _FLIP @ affine.fixed_to_moving @ _FLIP
    parameters = np.concatenate([matrix[:3, :3].ravel(), matrix[:3, 3]])
    stream = BytesIO()
    contents = {"AffineTransform_double_3_3": parameters[:, None], "fixed": np.zeros((3, 1))}
    savemat(stream, contents, format="4")
    write_bytes(path, stream.getvalue())


def write_elastix_affine(affine: Affine, path: str | os.PathLike[str]) -> None:
    """Write the map as elastix's ``TransformParameters`` text, to be its initial transform.

    Raises:
        InputError: the file cannot be written.
    """
    matrix = _FLIP @ affine.fixed_to_moving @ _FLIP
    numbers = " ".join(repr(float(x)) for x in (*matrix[:3, :3].ravel(), *matrix[:3, 3]))
    lines = [
        '(Transform "AffineTransform")',
        "(NumberOfParameters 12)",
        f"(TransformParameters {numbers})",
        '(InitialTransformParametersFileName "NoInitialTransform")',
        '(HowToCombineTransforms "Compose")',
        "(FixedImageDimension 3)",
        "(MovingImageDimension 3)",
        "(CenterOfRotationPoint 0 0 0)",
    ]
    write_bytes(path, "\n".join([*lines, ""]).encode())


def read_affine(path: str | os.PathLike[str]) -> Affine:
    """Read an ITK affine: MATLAB v4 ``.mat``, or text ``.txt`` or ``.tfm``, any centre.

    Raises:
        InputError: the file is missing or no ITK affine of three dimensions.
    """
    path = Path(path)
    check_readable(path, "transform")
    if path.name.endswith((".nii", ".nii.gz")):
        raise InputError(
            f"transform {path}: not an ITK affine; of a registration, name the whole folder"
        )
    try:
        parameters, center = _read_mat(path) if path.suffix == ".mat" else _read_text(path)
        if parameters.size != 12 or center.size != 3:
            raise ValueError(f"12 + 3 numbers are wanted, found {parameters.size} + {center.size}")
        matrix = np.eye(4)
        matrix[:3, :3] = parameters[:9].reshape(3, 3)
        matrix[:3, 3] = parameters[9:12] + center - matrix[:3, :3] @ center
        return Affine(_FLIP @ matrix @ _FLIP)
    except (*_NO_AFFINE, MatReadError) as error:
        raise InputError(f"transform {path}: not an ITK affine transform ({error})") from error


_NO_AFFINE = (KeyError, ValueError, TypeError, OSError, IndexError, NotImplementedError)
_AFFINES = r"\s*(AffineTransform|MatrixOffsetTransformBase)_(double|float)_3_3\s*"


def _read_mat(path: Path) -> tuple[np.ndarray, np.ndarray]:
    contents = loadmat(path)
    kinds = [name for name in contents if re.fullmatch(_AFFINES, name)]
    if len(kinds) != 1:
        raise ValueError(f"it holds {', '.join(n for n in contents if n[0] != '_') or 'nothing'}")
    return contents[kinds[0]].ravel().astype(np.float64), contents["fixed"].ravel().astype(float)


def _read_text(path: Path) -> tuple[np.ndarray, np.ndarray]:
    pairs = [line.split(":", 1) for line in path.read_text().splitlines() if ":" in line]
    kinds = [value.strip() for key, value in pairs if key.strip() == "Transform"]
    if len(kinds) != 1 or not re.fullmatch(_AFFINES, kinds[0]):
        raise ValueError(f"it holds {', '.join(kinds) or 'no transform'}")
    lines = {key.strip(): np.array(value.split(), dtype=object) for key, value in pairs}
    return lines["Parameters"].astype(np.float64), lines["FixedParameters"].astype(np.float64)


def write_warp(warp: Warp, path: str | os.PathLike[str]) -> None:
    """Write an ITK displacement field: (X, Y, Z, 1, 3) float32, LPS mm, intent 1007 (vector).

    Intent 1006 is avoided: ITK 5.4 takes such files as RAS, older ones do not.

    Raises:
        ValueError: the grid is sheared, which ITK cannot hold.
        InputError: the file cannot be written.
    """
    if warp.grid.is_sheared():
        raise ValueError("an ITK field needs a grid with orthogonal axes; see Grid.unsheared")
    vectors = np.moveaxis(warp.displacement, 0, -1)[:, :, :, None, :] * _SIGNS
    image = nifti(vectors.astype(np.float32, copy=False), warp.grid)
    image.header.set_intent("vector")
    write_nifti(image, path)


def read_warp(path: str | os.PathLike[str]) -> Warp:
    """Read an ITK displacement field as ``write_warp``, ANTs or greedy write it.

    Raises:
        InputError: the file is missing, damaged, or no such field.
    """
    image, data = load_image(path, "transform")
    if data.ndim != 5 or data.shape[3:] != (1, 3):
        raise InputError(
            f"transform {path}: a field of shape X×Y×Z×1×3 is wanted, got {data.shape}"
        )
    if not np.isfinite(data).all():
        raise InputError(f"transform {path}: some displacements are NaN or infinite")
    vectors = np.moveaxis(data[:, :, :, 0, :], -1, 0) * _SIGNS[:, None, None, None]
    return Warp(np.ascontiguousarray(vectors, np.float32), image_grid(image, path, "transform"))


def to_sitk(volume: Volume) -> sitk.Image:
    """A SimpleITK image of float32 with the same voxels in the same places."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(volume.data.T, dtype=np.float32))
    image.SetSpacing(volume.grid.spacing)
    image.SetOrigin(lps(volume.grid.affine[:3, 3]).tolist())
    image.SetDirection((_FLIP[:3, :3] @ volume.grid.direction).ravel().tolist())
    return image


def from_sitk_affine(transform: sitk.Transform) -> Affine:
    """An affine of SimpleITK's, in RAS: its value at the origin and at the unit vectors."""
    origin = np.array(transform.TransformPoint((0.0, 0.0, 0.0)))
    matrix = np.eye(4)
    for axis, unit in enumerate(np.eye(3)):
        matrix[:3, axis] = np.array(transform.TransformPoint(unit.tolist())) - origin
    matrix[:3, 3] = origin
    return Affine(_FLIP @ matrix @ _FLIP)
