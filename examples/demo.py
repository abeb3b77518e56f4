"""Register one brain scan to the MNI152 template, save the result and print how good it is.

    python examples/demo.py [--out demo]

The scan is subject 22 of OpenNeuro ds002748 (T1, skull-stripped, CC0): a local copy if there is
one, otherwise a download of 4 MB. Without a network it is a phantom: the template warped by a known
transform, so that the error of the registration can be computed in mm.
"""

import argparse
import hashlib
import os
import urllib.request
from http.client import HTTPException
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from scipy.ndimage import gaussian_filter

import voxwarp
from voxwarp._files import write_bytes
from voxwarp.fields import field
from voxwarp.preparation.template import mni152
from voxwarp.space.resample import resample
from voxwarp.space.transform import Affine, Chain, Transform, Warp

DATA = Path(os.environ.get("VOXWARP_DATA") or Path(__file__).parents[1] / "../shared/data")
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "voxwarp"

# One fixed version of the file; size and MD5 are its git-annex key in the data set's repository,
# MD5E-s3669129--008a3cb753f0c105c0ca81822e41249f.nii.gz.
URL = (
    "https://s3.amazonaws.com/openneuro.org/ds002748/sub-22/anat/sub-22_T1w.nii.gz"
    "?versionId=Z8u66WKLaLYZF_AB.zH5fQqwjU6UeeYA"
)
SIZE, MD5 = 3_669_129, "008a3cb753f0c105c0ca81822e41249f"

# The moving image, and the true transform from the template to it if it is known.
Scan = tuple[str | nib.Nifti1Image, Transform | None]


def main(out: Path) -> None:
    moving, truth = find_scan()
    result = voxwarp.register(moving)  # to the MNI152 template, as no fixed scan is given
    for file in result.save(out, overwrite=True):
        print(file)
    before, after = (result.metrics["similarity"][when] for when in ("before", "after"))
    print(f"Similarity (local NCC): {before['local_ncc']:.3f} -> {after['local_ncc']:.3f}")
    print(f"Folded voxels in the brain: {result.metrics['jacobian']['folds']}")
    print(f"Time: {sum(result.metrics['seconds'].values()):.1f} s")
    if truth:
        print("Mean distance to the true transform in the brain:")
        print(f"  before registration  {error_mm(Chain([]), truth):.2f} mm")
        print(f"  affine part alone    {error_mm(result.affine, truth):.2f} mm")
        print(f"  whole transform      {error_mm(result.transform, truth):.2f} mm")


def find_scan() -> Scan:
    """Take the first source with a scan; VOXWARP_DEMO_SCAN=data|download|phantom selects one."""
    sources = {"data": local_scan, "download": downloaded_scan, "phantom": phantom}
    names = os.environ.get("VOXWARP_DEMO_SCAN") or " ".join(sources)
    for name in names.split():
        if name not in sources:
            raise SystemExit(f"VOXWARP_DEMO_SCAN must be {' or '.join(sources)}, got {name!r}")
        if scan := sources[name]():
            return scan
    raise SystemExit(f"no scan from {names} (VOXWARP_DEMO_SCAN); the source phantom needs none")


def local_scan() -> Scan | None:
    path = (DATA / "ds002748" / "t1" / "sub-22_T1w.nii.gz").resolve()
    if not path.is_file():
        return None
    print(f"Scan: {path}")
    return str(path), None


def downloaded_scan() -> Scan | None:
    path = CACHE / "ds002748_sub-22_T1w.nii.gz"
    if path.is_file() and not is_genuine(path.read_bytes(), path):
        path.unlink()
    if not path.is_file():
        try:
            with urllib.request.urlopen(URL, timeout=10) as stream:
                payload = stream.read(SIZE + 1)
        except (OSError, HTTPException) as problem:
            print(f"The scan could not be downloaded: {problem}")
            return None
        if not is_genuine(payload, URL):
            return None
        write_bytes(path, payload)
    print(f"Scan: {path} (OpenNeuro ds002748, CC0)")
    return str(path), None


def is_genuine(payload: bytes, origin: Path | str) -> bool:
    digest = hashlib.md5(payload, usedforsecurity=False).hexdigest()
    if len(payload) == SIZE and digest == MD5:
        return True
    print(f"Not used: {origin}, because its size or checksum differs from the expected file.")
    return False


def phantom() -> Scan:
    """The template warped by a known affine and a known random diffeomorphism exp(v)."""
    print("Scan: a phantom, the MNI152 template warped by a known transform")
    fixed = mni152().image
    affine = Affine(
        np.array([[1.04, 0.05, 0, 3], [-0.06, 0.97, 0.03, -4], [0, -0.04, 1.02, 5], [0, 0, 0, 1]])
    )
    velocity = smooth_velocity(fixed.grid.shape)
    warp, inverse_warp = (
        Warp.from_voxels(field.exponentiate(v)[0], fixed.grid) for v in (velocity, -velocity)
    )
    moving = resample(fixed, fixed.grid, Chain([affine, warp]))
    truth = Chain([inverse_warp, affine.inverse()])
    return nib.Nifti1Image(moving.data, moving.grid.affine), truth


def smooth_velocity(shape: tuple[int, int, int], rms: float = 4.0) -> torch.Tensor:
    """Seeded noise, low-passed at a quarter of the resolution; ``rms`` is its length in voxels."""
    noise = np.random.default_rng(22).standard_normal((3, *(n // 4 for n in shape)))
    smooth = gaussian_filter(noise, sigma=(0, 4, 4, 4)).astype(np.float32)
    velocity = field.resize(torch.from_numpy(smooth)[None], shape)
    return velocity * (rms / velocity.square().sum(dim=1).mean().sqrt())


def error_mm(transform: Transform, truth: Transform) -> float:
    """Mean over the template's brain of |transform(x) - truth(x)|, in mm."""
    brain = mni152().image
    points = brain.grid.to_world(np.argwhere(brain.data > 0)[::50])
    return float(np.linalg.norm(transform.map(points) - truth.map(points), axis=1).mean())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder for the results")
    main(parser.parse_args().out)
