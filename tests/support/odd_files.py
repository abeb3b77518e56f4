"""Image files byte by byte, odd in one or more ways, and what they hold by plain arithmetic.

Written without nibabel, so that its way of reading headers can be compared.
"""

import bz2
import gzip
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

# NIfTI's codes of types, with their NumPy types; those that no scan has are None.
TYPES: dict[int, str | None] = {
    2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8",
    1280: "u8", 32: None, 128: None, 1792: None, 2304: None, 1: None, 0: None, 77: None,
}  # fmt: skip
UNUSABLE_BITS = {32: 64, 128: 24, 1792: 128, 2304: 32, 1: 1, 0: 0, 77: 16}
ENDINGS = (".nii", ".nii.gz", ".NII", ".Nii.GZ", ".nii.bz2")


@dataclass(frozen=True)
class OddFile:
    """A NIfTI file.

    Args:
        shape: of the voxels, as in ``dim``.
        code: of the type.
        byte_order: "<" or ">".
        is_nifti2: the version.
        affine: (4, 4), voxels to the unit of the header.
        sform_code, qform_code: of the two forms; both are this affine, if it has no shear.
        units: ``xyzt_units``.
        slope, intercept: the scaling.
        intent: its code.
        extension: bytes of an extension.
        ending: of the name, and whether the file is compressed by it.
        disguised: whether it is compressed against its name.
        stem: of the name.
        special: a value that is not finite, in one voxel of a float image; 0 for none.
        damage: what is wrong with the bytes; "" for nothing.
        seed: of the values.
    """

    shape: tuple[int, ...] = (5, 6, 7)
    code: int = 4
    byte_order: str = "<"
    is_nifti2: bool = False
    affine: Any = field(default_factory=lambda: np.diag([3.0, 3, 3, 1]))
    sform_code: int = 1
    qform_code: int = 0
    units: int = 2
    slope: float = 0.0
    intercept: float = 0.0
    intent: int = 0
    extension: bytes = b""
    ending: str = ".nii"
    disguised: bool = False
    stem: str = "scan"
    special: float = 0.0
    damage: str = ""
    seed: int = 0

    @property
    def stored(self) -> np.ndarray:
        """The numbers in the file, without what is not finite."""
        rng, dtype = np.random.default_rng(self.seed), TYPES[self.code]
        shape = tuple(max(n, 0) for n in self.shape)
        if dtype is None:
            bits = UNUSABLE_BITS[self.code]
            return rng.integers(0, 99, (*shape, max(1, bits // 8)), np.uint8)
        if np.dtype(dtype).kind == "f":
            values = rng.normal(0, 100, shape).astype(dtype)
            if self.special and values.size:
                values.reshape(-1)[values.size // 2] = self.special
            return values
        info = np.iinfo(dtype)
        return rng.integers(max(info.min, -30000), min(info.max, 30000), shape, dtype)

    @property
    def values(self) -> np.ndarray:
        """The voxels by NIfTI's rule: scaled, unless the slope is 0."""
        stored = self.stored
        if not self.is_scaled:
            return stored
        return stored * np.float64(np.float32(self.slope)) + np.float64(np.float32(self.intercept))

    @property
    def is_scaled(self) -> bool:
        return self.slope != 0 and (self.slope, self.intercept) != (1, 0)

    @property
    def affine_in_mm(self) -> np.ndarray:
        """Where the voxels are, if a form says so."""
        factor = {1: 1000.0, 3: 0.001}.get(self.units & 7, 1.0)
        return np.diag([factor, factor, factor, 1]) @ self.affine

    @property
    def is_placed(self) -> bool:
        return self.sform_code > 0 or self.qform_code > 0

    def write(self, folder: Path) -> Path:
        """Write the file."""
        payload = self._header() + self._voxels()
        payload = _DAMAGES[self.damage](payload)
        ending = self.ending.lower()
        is_zipped = ending.endswith((".gz", ".bz2")) != self.disguised
        if is_zipped:
            zip_ = bz2.compress if ending.endswith(".bz2") else _gzip
            payload = zip_(payload)
        if self.damage == "cut after compression":
            payload = payload[: len(payload) // 2]
        path = folder / f"{self.stem}{self.ending}"
        path.write_bytes(payload)
        return path

    def _voxels(self) -> bytes:
        stored = self.stored
        if TYPES[self.code] is None:
            return stored.tobytes()
        return stored.astype(stored.dtype.newbyteorder(self.byte_order)).tobytes(order="F")

    def _header(self) -> bytes:
        offset = (544 if self.is_nifti2 else 352) + len(self.extension)
        dtype = TYPES[self.code]
        bits = UNUSABLE_BITS[self.code] if dtype is None else 8 * np.dtype(dtype).itemsize
        dim = [len(self.shape), *self.shape, *[1] * (7 - len(self.shape))]
        spacing = np.linalg.norm(self.affine[:3, :3], axis=0)
        qfac, quaternion = _quaternion(self.affine[:3, :3] / spacing)
        pixdim = [qfac, *spacing, 2.0, 1.0, 1.0, 1.0]
        q = [*quaternion, *self.affine[:3, 3]]
        rows = self.affine[:3].ravel()
        order = self.byte_order
        if self.is_nifti2:
            head = struct.pack(f"{order}i8s", 540, b"n+2\0\r\n\x1a\n")
            head += struct.pack(f"{order}hh8q", self.code, bits, *dim)
            head += struct.pack(f"{order}3d8d", 0, 0, 0, *pixdim)
            head += struct.pack(f"{order}q2d4d2q", offset, self.slope, self.intercept, *[0] * 6)
            head += bytes(104)
            head += struct.pack(f"{order}2i18d", self.qform_code, self.sform_code, *q, *rows)
            head += struct.pack(f"{order}iii16s", 0, self.units, self.intent, b"")
            head += bytes(1) + bytes(15)
        else:
            head = struct.pack(f"{order}i", 348) + bytes(35) + bytes(1)
            head += struct.pack(f"{order}8h3f", *dim, 0, 0, 0)
            head += struct.pack(f"{order}4h8f", self.intent, self.code, bits, 0, *pixdim)
            head += struct.pack(
                f"{order}3fhBB", offset, self.slope, self.intercept, 0, 0, self.units
            )
            head += bytes(24 + 80 + 24)
            head += struct.pack(f"{order}2h18f", self.qform_code, self.sform_code, *q, *rows)
            head += bytes(16) + b"n+1\0"
        assert len(head) == (540 if self.is_nifti2 else 348)
        if not self.extension:
            return head + bytes(4)
        return head + b"\1\0\0\0" + self.extension


def _gzip(payload: bytes) -> bytes:
    return gzip.compress(payload, 1, mtime=0)


def _quaternion(rotation: np.ndarray) -> tuple[float, np.ndarray]:
    """qfac and b, c, d of the rotation nearest to a matrix."""
    from scipy.spatial.transform import Rotation

    u, _, v = np.linalg.svd(rotation)
    nearest = u @ v
    qfac = float(np.sign(np.linalg.det(nearest)))
    nearest = nearest * [1, 1, qfac]
    x, y, z, w = Rotation.from_matrix(nearest).as_quat()
    return qfac, np.array([x, y, z]) * (1 if w >= 0 else -1)


def _patched(offset: int, code: str, *values: float) -> Any:
    def patch(payload: bytes) -> bytes:
        raw = bytearray(payload)
        struct.pack_into(code, raw, offset, *values)
        return bytes(raw)

    return patch


# Of NIfTI-1 in little-endian bytes; of others they are damaged somewhere else.
_DAMAGES: dict[str, Any] = {
    "": lambda payload: payload,
    "cut after compression": lambda payload: payload,
    "cut in the voxels": lambda payload: payload[: 352 + (len(payload) - 352) // 2],
    "cut in the header": lambda payload: payload[:200],
    "empty": lambda payload: b"",
    "zeros": lambda payload: bytes(len(payload)),
    "one byte more": lambda payload: payload + b"x",
    "another magic": _patched(344, "<4s", b"abcd"),
    "another sizeof_hdr": _patched(0, "<i", 347),
    "huge dimensions": _patched(42, "<3h", 32767, 32767, 32767),
    "negative dimensions": _patched(42, "<3h", -5, 6, 7),
    "eight dimensions": _patched(40, "<h", 8),
    "vox_offset in the header": _patched(108, "<f", 100),
    "vox_offset beyond the file": _patched(108, "<f", 1e9),
    "vox_offset not finite": _patched(108, "<f", float("nan")),
    "spacing zero": _patched(80, "<3f", 0, 0, 0),
    "spacing not finite": _patched(80, "<3f", float("nan"), 1, 1),
    "sform zero": _patched(280, "<12f", *[0] * 12),
    "sform not finite": _patched(280, "<12f", *[float("inf")] * 12),
    "slope infinite": _patched(112, "<2f", float("inf"), 0),
    "intercept not finite": _patched(112, "<2f", 2, float("nan")),
    "quaternion too long": _patched(256, "<3f", 0.8, 0.7, 0.6),
    "quaternion not finite": _patched(256, "<3f", float("nan"), 0, 0),
    "bitpix of another type": _patched(72, "<h", 24),
    "size of the extension": _patched(348, "<4Bii", 1, 0, 0, 0, 7, 99),
}
DAMAGES = tuple(_DAMAGES)

_finite = st.floats(-1e4, 1e4, allow_nan=False, width=32)


@st.composite
def affines(draw: st.DrawFn) -> np.ndarray:
    """Turned, flipped, permuted, sometimes sheared or far away; sides of 0.3 to 9 mm."""
    from scipy.spatial.transform import Rotation

    turn = draw(st.sampled_from([(0, 0, 0), (3, -2, 5), (90, 0, 0), (40, 70, -120), (180, 0, 0)]))
    spacing = draw(st.tuples(*[st.sampled_from([0.3, 0.9765625, 1.0, 2.5, 9.0])] * 3))
    signs = draw(st.tuples(*[st.sampled_from([-1, 1])] * 3))
    order = draw(st.permutations(range(3)))
    matrix = Rotation.from_euler("xyz", turn, degrees=True).as_matrix()[:, order]
    if draw(st.integers(0, 9)) == 0:
        matrix = matrix + 0.2 * np.eye(3)[:, [1, 2, 0]]
    affine = np.eye(4)
    affine[:3, :3] = matrix * signs * spacing
    affine[:3, 3] = draw(st.tuples(*[st.sampled_from([0.0, -90.5, 127.25, 12000.0])] * 3))
    return affine


_SHAPES = st.one_of(
    st.tuples(*[st.integers(2, 9)] * 3),
    st.tuples(*[st.integers(2, 6)] * 3, st.integers(1, 3)),
    st.sampled_from(
        [(5, 6), (5,), (1, 6, 7), (0, 6, 7), (5, 6, 7, 1, 1), (5, 6, 7, 1, 3), (5, 6, 7, 0),
         (4, 4, 4, 2, 2), (64, 3, 3), (2, 2, 2)]
    ),
)  # fmt: skip

odd_files = st.builds(
    OddFile,
    shape=_SHAPES,
    code=st.one_of(st.sampled_from([2, 4, 16]), st.sampled_from(list(TYPES))),
    byte_order=st.sampled_from("<>"),
    is_nifti2=st.booleans(),
    affine=affines(),
    sform_code=st.sampled_from([1, 1, 2, 4, 0, -1, 6, 99]),
    qform_code=st.sampled_from([0, 0, 1, 3, 5, -2, 7]),
    units=st.sampled_from([2, 2, 10, 0, 1, 3, 4, 255]),
    slope=st.sampled_from([0.0, 1.0, 1.0000001, 0.5, -2.0, 1e-3, 1e30]),
    intercept=st.sampled_from([0.0, 0.0, 1e-7, -3.5, 1000.0]),
    intent=st.sampled_from([0, 0, 1002, 1005, 1006, 1007, 1011, 9999, -1]),
    extension=st.sampled_from([b"", b"", struct.pack("<ii", 16, 6) + b"comments"]),
    ending=st.sampled_from(ENDINGS),
    disguised=st.integers(0, 7).map(lambda n: n == 0),
    stem=st.sampled_from(["scan", "a b", "ünï", "-x", "sub-01.v2", "$(touch y)", "scan.nii"]),
    special=st.sampled_from([0.0, 0.0, 0.0, float("nan"), float("inf")]),
    damage=st.one_of(st.just(""), st.sampled_from(DAMAGES)),
    seed=st.integers(0, 3),
)
