"""ITK's files and images: the only place where LPS millimetres exist.

ITK (ANTs, SimpleITK, 3D Slicer) has x to the Left and y to the Posterior; nibabel and all of
voxwarp have R and A. The change is D = diag(−1, −1, 1), its own inverse.
"""

import os
import re
import warnings
from collections.abc import Callable, Sequence
from functools import reduce
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from scipy.io import loadmat, savemat, whosmat
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
    matrix = _FLIP @ affine.matrix @ _FLIP
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
    matrix = _FLIP @ affine.matrix @ _FLIP
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
    """Read a linear transform of ITK's: MATLAB ``.mat``, or text ``.txt`` or ``.tfm``.

    Any linear kind (affine, rigid, similarity, scaling, translation), about any centre; in a text
    also a composite of such.

    Raises:
        InputError: the file is missing, or not one linear transform of three dimensions.
    """
    path = Path(path)
    check_readable(path, "transform")
    if path.name.endswith((".nii", ".nii.gz")):
        raise InputError(
            f"transform {path}: not an ITK affine; of a registration, name the whole folder"
        )
    try:
        records = _read_mat(path) if path.suffix == ".mat" else _read_text(path)
        matrices = [_matrix(_made(*record)) for record in records]
        return Affine(_FLIP @ reduce(np.matmul, matrices) @ _FLIP)  # the last is applied first
    except (*_NO_AFFINE, MatReadError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"transform {path}: not an ITK affine transform ({reason})") from error


_NO_AFFINE = (
    *(KeyError, ValueError, TypeError, OSError, IndexError),
    *(NotImplementedError, OverflowError, RuntimeError, MemoryError, UserWarning),
)

# By their names in files; what the numbers of each mean, SimpleITK knows. It reads such files, too
# (ReadTransform), but not safely: without a line of fixed parameters it takes the identity, of two
# transforms the first, both without an error; it prints to stderr, and after some files of kinds
# that it does not know the process crashes at its end.
_KINDS: dict[str, Callable[[], sitk.Transform]] = {
    "AffineTransform": lambda: sitk.AffineTransform(3),
    "MatrixOffsetTransformBase": lambda: sitk.AffineTransform(3),  # of ANTs and c3d
    "ComposeScaleSkewVersor3DTransform": sitk.ComposeScaleSkewVersor3DTransform,
    "Euler3DTransform": sitk.Euler3DTransform,
    "IdentityTransform": lambda: sitk.Transform(3, sitk.sitkIdentity),
    "ScaleSkewVersor3DTransform": sitk.ScaleSkewVersor3DTransform,
    "ScaleTransform": lambda: sitk.ScaleTransform(3),
    "ScaleVersor3DTransform": sitk.ScaleVersor3DTransform,
    "Similarity3DTransform": sitk.Similarity3DTransform,
    "TranslationTransform": lambda: sitk.TranslationTransform(3),
    "VersorRigid3DTransform": sitk.VersorRigid3DTransform,
    "VersorTransform": sitk.VersorTransform,
}
_Record = tuple[str, Sequence[float], Sequence[float]]  # kind, parameters, fixed parameters


def _read_mat(path: Path) -> list[_Record]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of numbers that may be read wrong
        names = [name for name, *_ in whosmat(path)]
        kinds = [name for name in names if name != "fixed"]
        if len(kinds) != 1 or len(names) != 2:
            raise ValueError(f"it holds {', '.join(names) or 'nothing'}")
        contents = loadmat(path)
    values = [contents[name].ravel() for name in (kinds[0], "fixed")]
    if any(np.iscomplexobj(v) for v in values):
        raise ValueError("real numbers are wanted")
    parameters, fixed = (v.astype(np.float64).tolist() for v in values)
    return [(kinds[0], parameters, fixed)]


def _read_text(path: Path) -> list[_Record]:
    """The transforms of a file, those of a composite in their order."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ValueError("neither text nor MATLAB's") from None
    found: list[dict[str, str]] = []
    for line in text.splitlines():
        key, colon, value = (part.strip() for part in line.partition(":"))
        if colon and key == "Transform":
            found.append({key: value})
        elif colon and found:
            found[-1][key] = value
    kinds = [one["Transform"] for one in found]
    if kinds and kinds[0].startswith("CompositeTransform_"):
        del found[0]
    elif len(kinds) > 1:
        found = []
    if not found:
        raise ValueError(f"it holds {', '.join(kinds) or 'no transform'}")
    return [
        (one["Transform"], _numbers(one, "Parameters"), _numbers(one, "FixedParameters"))
        for one in found
    ]


def _numbers(record: dict[str, str], key: str) -> list[float]:
    if key not in record:
        raise ValueError(f"it has no line {key}")
    return [float(word) for word in record[key].split()]


def _made(kind: str, parameters: Sequence[float], fixed: Sequence[float]) -> sitk.Transform:
    """One linear transform from its numbers, by SimpleITK."""
    named = re.fullmatch(r"(\w+)_(?:double|float)_3_3", kind)
    if named is None or named[1] not in _KINDS:
        raise ValueError(f"it holds {kind}")
    if named[1] == "Euler3DTransform" and len(fixed) == 3:
        fixed = [*fixed, 0.0]  # files from before the order of the axes could be chosen
    transform = _KINDS[named[1]]()
    wanted = len(transform.GetParameters()), len(transform.GetFixedParameters())
    if wanted != (len(parameters), len(fixed)):
        raise ValueError(
            f"{wanted[0]} + {wanted[1]} numbers are wanted, found {len(parameters)} + {len(fixed)}"
        )
    transform.SetFixedParameters(list(fixed))
    transform.SetParameters(list(parameters))
    return transform


def _matrix(transform: Any) -> np.ndarray:
    """(4, 4) matrix, LPS mm, of a linear transform of SimpleITK's: x ↦ A x + t + c − A c."""
    matrix = np.eye(4)
    if not hasattr(transform, "GetMatrix"):  # a translation, or nothing
        matrix[:3, 3] = transform.TransformPoint((0.0, 0.0, 0.0))
        return matrix
    matrix[:3, :3] = np.reshape(transform.GetMatrix(), (3, 3))
    center = np.array(transform.GetCenter())
    shift = transform.GetTranslation() if hasattr(transform, "GetTranslation") else np.zeros(3)
    matrix[:3, 3] = shift + center - matrix[:3, :3] @ center
    return matrix


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
