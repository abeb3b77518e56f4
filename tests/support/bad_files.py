"""Files that are no scan, each a good one but for one thing, and what is to be said of each."""

import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np

Write = Callable[[Path, nib.Nifti1Image], Path]  # into a folder, from a good scan; the file

# Offsets in the NIfTI-1 header.
PIXDIM, SLOPE, INTER, QFORM_CODE, SFORM_CODE, SROW = 76, 112, 116, 252, 254, 280

Patch = tuple[int, str, tuple[float, ...]]  # offset, format of struct, values


def patched(path: Path, *patches: Patch) -> Path:
    """``path`` with values packed over the bytes at the given offsets."""
    raw = bytearray(path.read_bytes())
    for offset, code, values in patches:
        struct.pack_into(code, raw, offset, *values)
    path.write_bytes(raw)
    return path


def values_of(good: nib.Nifti1Image) -> np.ndarray:
    """The scan's values, to be spoiled."""
    return np.asarray(good.dataobj).copy()


def _file(name: str, payload: bytes | None) -> Write:
    """A file of these bytes; of None, a folder."""

    def write(folder: Path, good: nib.Nifti1Image) -> Path:
        path = folder / name
        if payload is None:
            path.mkdir()
        else:
            path.write_bytes(payload)
        return path

    return write


def _bytes(ending: str, spoil: Callable[[bytes], bytes]) -> Write:
    """The good scan's own bytes, spoiled."""

    def write(folder: Path, good: nib.Nifti1Image) -> Path:
        raw = good.to_bytes()
        path = folder / f"bad{ending}"
        path.write_bytes(spoil(gzip.compress(raw, mtime=0) if ending.endswith(".gz") else raw))
        return path

    return write


def _holed(raw: bytes) -> bytes:
    middle = len(raw) // 2
    return raw[:middle] + bytes(200) + raw[middle + 200 :]


def _mgz_cut(folder: Path, good: nib.Nifti1Image) -> Path:
    path = folder / "bad.mgz"
    nib.save(nib.MGHImage(values_of(good).astype(np.float32), good.affine), path)
    path.write_bytes(path.read_bytes()[:2000])
    return path


def _values(change: Callable[[np.ndarray], np.ndarray]) -> Write:
    """A sound file of other values."""

    def write(folder: Path, good: nib.Nifti1Image) -> Path:
        nib.save(nib.Nifti1Image(change(values_of(good)), good.affine), folder / "bad.nii.gz")
        return folder / "bad.nii.gz"

    return write


def _with(value: float) -> Write:
    def change(data: np.ndarray) -> np.ndarray:
        data = data.astype(np.float32)
        data[tuple(n // 2 for n in data.shape)] = value
        return data

    return _values(change)


def _header(*patches: Patch) -> Write:
    def write(folder: Path, good: nib.Nifti1Image) -> Path:
        nib.save(nib.Nifti1Image(values_of(good), good.affine), folder / "bad.nii")
        return patched(folder / "bad.nii", *patches)

    return write


def _sform(*rows: float) -> Write:
    """Another sform matrix, and no qform."""
    return _header((QFORM_CODE, "<h", (0,)), (SFORM_CODE, "<h", (1,)), (SROW, "<12f", rows))


def _pair_of_zero_spacing(folder: Path, good: nib.Nifti1Image) -> Path:
    nib.save(nib.Nifti1Pair(values_of(good), good.affine), folder / "bad.img")
    patched(folder / "bad.hdr", (PIXDIM + 8, "<f", (0.0,)))
    return folder / "bad.img"


def _slice(data: np.ndarray) -> np.ndarray:
    return data[:, :, data.shape[2] // 2]


def _three(data: np.ndarray) -> np.ndarray:
    return np.stack([data] * 3, axis=-1)


_NOISE = np.random.default_rng(0).bytes(5000)
_NAN = float("nan")
_RGB = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])

#: How each is written, and a pattern that the message matches.
BAD_SCANS: dict[str, tuple[Write, str]] = {
    "missing file": (lambda folder, _: folder / "nowhere.nii.gz", "no such file"),
    "folder": (_file("bad.nii.gz", None), "folder"),
    "text": (_file("bad.nii.gz", b"subject,age\n1,30\n"), "not an image"),
    "text, unknown ending": (_file("bad.docx", b"subject,age\n1,30\n"), "not an image"),
    "noise": (_file("bad.nii", _NOISE), "not an image"),
    "empty file": (_file("bad.nii", b""), "not an image"),
    "empty gzip": (_file("bad.nii.gz", b""), "not an image"),
    "nii cut in the header": (_bytes(".nii", lambda raw: raw[:200]), "not an image"),
    "nii cut after the header": (_bytes(".nii", lambda raw: raw[:352]), "damaged or cut off"),
    "nii cut in the data": (
        _bytes(".nii", lambda raw: raw[: len(raw) // 2]),
        "damaged or cut off",
    ),
    "gzip cut in the header": (_bytes(".nii.gz", lambda raw: raw[:40]), "damaged or cut off"),
    "gzip cut in the data": (
        _bytes(".nii.gz", lambda raw: raw[: len(raw) // 2]),
        "damaged or cut off",
    ),
    "gzip cut near its end": (_bytes(".nii.gz", lambda raw: raw[:-9]), "damaged or cut off"),
    "gzip with a hole": (_bytes(".nii.gz", _holed), "damaged or cut off"),
    "mgz cut": (_mgz_cut, "damaged or cut off"),
    "2-D": (_values(_slice), "3-D"),
    "one slice": (_values(lambda data: _slice(data)[..., None]), "3-D"),
    "4-D": (_values(_three), r"3-D .* series of shape \d+×\d+×\d+×3"),
    "5-D": (_values(lambda data: _three(data)[..., None, :]), r"3-D .* got \d+×\d+×\d+×1×3"),
    "all zero": (_values(np.zeros_like), "all zero"),
    "constant": (_values(lambda data: np.full_like(data, 7)), r"constant \(7"),
    "NaN": (_with(np.nan), "1 voxel is NaN or infinite"),
    "infinite": (_with(np.inf), "1 voxel is NaN or infinite"),
    "minus infinite": (_with(-np.inf), "1 voxel is NaN or infinite"),
    "zero spacing": (_header((PIXDIM + 8, "<f", (0.0,))), "spacing must be positive"),
    "negative spacing": (_header((PIXDIM + 4, "<f", (-1.5,))), "spacing must be positive"),
    "NaN spacing": (_header((PIXDIM + 12, "<f", (_NAN,))), "spacing must be positive"),
    "zero spacing of a pair": (_pair_of_zero_spacing, "spacing must be positive"),
    "singular affine": (_sform(*(1, 2, 3, 4) * 3), "no valid geometry"),
    "flat affine": (_sform(4, 0, 4, 0, 0, 4, 0, 0, 4, 0, 4, 0), "no valid geometry"),
    "zero affine": (_sform(*(0,) * 12), "no valid geometry"),
    "NaN affine": (_sform(*(_NAN,) * 12), "no valid geometry"),
    "NaN in the affine": (_header((SROW + 4, "<f", (_NAN,))), "no valid geometry"),
    "colours": (_values(lambda data: np.ones(data.shape, _RGB)), "voxels must be real numbers"),
    "complex": (_values(lambda data: data.astype(np.complex64)), "voxels must be real numbers"),
}
