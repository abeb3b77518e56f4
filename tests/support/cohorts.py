"""Small crops with labels for the tests of what comes before a training, and tables of them."""

from pathlib import Path

import nibabel as nib
import numpy as np

from voxwarp.data.scans import ScanRecord, gather
from voxwarp.training.config import Config, build_config

SHAPES = [(6, 8, 10), (7, 9, 8), (4, 6, 5), (5, 8, 9)]


def write_scan(path: Path, data: np.ndarray, affine: np.ndarray | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(data, np.eye(4) if affine is None else affine), path)
    return path


def crop(seed: int, shape: tuple[int, int, int]) -> np.ndarray:
    """Texture from 0 to 1000, nowhere constant."""
    data = np.random.default_rng(seed).integers(0, 1000, shape).astype(np.int16)
    data[0, 0, 0], data[-1, -1, -1] = 0, 1000
    return data


def crop_labels(seed: int, shape: tuple[int, int, int], values=(3, 40, 2035)) -> np.ndarray:
    data = np.random.default_rng(seed).choice([0, *values], shape).astype(np.int32)
    data.flat[: len(values)] = values
    return data


def write_crops(folder: Path) -> Path:
    """Labelled crops of four subjects, at odd places, with a table of them."""
    splits = ["train", "train", "val", "test"]
    lines = ["id,subject,split"]
    for i, (shape, split) in enumerate(zip(SHAPES, splits, strict=True)):
        affine = np.eye(4)
        affine[:3, 3] = 10.0 * i, -7, 3.5
        write_scan(folder / "t1" / f"{i}.nii.gz", crop(i, shape), affine)
        write_scan(folder / "labels" / f"{i}.nii.gz", crop_labels(i, shape), affine)
        lines.append(f"{i},p{i},{split}")
    (folder / "scans.csv").write_text("\n".join(lines) + "\n")
    return folder


def crops_config(folder: Path, **more) -> Config:
    source = {
        "table": str(folder / "scans.csv"),
        "scan": "t1/{id}.nii.gz",
        "labels": "labels/{id}.nii.gz",
    }
    tree = {
        "data": {"sources": [source], "cache": str(folder.parent / "prepared")},
        "preparation": {"alignment": "centre", "percentile": 100},
    }
    for key, value in more.items():
        tree[key] = {**tree.get(key, {}), **value}
    return build_config(tree)


def gathered(config: Config) -> list[ScanRecord]:
    return gather(config.data, config.seed)


def without_labels(scan: ScanRecord) -> ScanRecord:
    return ScanRecord(**{**vars(scan), "labels": None})


def table(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def cut(path: Path) -> None:
    """As a copy that was broken off: the header is whole, the end is not."""
    path.write_bytes(path.read_bytes()[:-30])


def centred(data: np.ndarray, size: int = 16) -> np.ndarray:
    """In the middle of a cube of zeros; by halves of a voxel, as the mean of two, for odd axes."""
    room = [(size - n + 1) // 2 for n in data.shape]
    out = np.pad(
        data.astype(np.float64),
        [(r, size + 1 - n - r) for r, n in zip(room, data.shape, strict=True)],
    )
    for axis, n in enumerate(data.shape):
        low, high = (np.take(out, np.arange(size) + i, axis) for i in (0, 1))
        out = (low + high) / 2 if n % 2 else low
    return out


def entries(config: Config) -> dict[str, int]:
    """Names and times of what is in the cache."""
    return {p.name: p.stat().st_mtime_ns for p in Path(config.data.cache).iterdir()}
