"""How many of 60 starting poses the affine stage aligns, compared with other tools.

    python benchmarks/robustness.py DATA ROWS.csv [voxwarp ants greedy greedy-search ...]

Six scans of DATA, ten poses each: the header is rotated by up to 90° about a random axis and
shifted by up to 100 mm. voxwarp gets the scan unchanged, heads with their skull, and extracts the
brain again in each pose. The other tools do not extract brains, so they get the brain that voxwarp
extracted in the original pose. A pose counts as aligned if the brain mask, mapped to the template,
overlaps with that of the same tool in the original pose by a Dice of more than 0.9; a stricter
criterion is that no point of the brain is more than 10 mm off.
"""

import csv
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from voxwarp.errors import InputError
from voxwarp.preparation.examination import examine
from voxwarp.preparation.intensity import from_zero
from voxwarp.preparation.masking import mask_on
from voxwarp.preparation.template import mni152
from voxwarp.space.formats import read_affine
from voxwarp.space.grid import Grid
from voxwarp.space.transform import Affine
from voxwarp.space.volume import Volume, read_volume, to_canonical, write_volume

SCANS = [
    "ds000011/sub-01/anat/sub-01_T1w.nii.gz",
    "heads/colin27_t1.nii.gz",
    "heads/t2w_anisotropic_oblique.nii.gz",
    "oasis-malf/t1/1104.nii.gz",
    "oasis-malf/t1/1125.nii.gz",
    "ds002748/t1/sub-03_T1w.nii.gz",
]
POSES = 10
COLUMNS = ["scan", "pose", "method", "degrees", "shift_mm", "dice", "farthest_mm", "seconds"]

Method = Callable[[Volume, Volume], tuple[Affine, Volume]]


def main() -> None:
    data, out = Path(sys.argv[1]), Path(sys.argv[2])
    methods = sys.argv[3:] or ["voxwarp"]
    rows = read(out) if out.exists() else []
    done = {(r["scan"], r["pose"], r["method"]) for r in rows}
    with open(out, "a", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        if not rows:
            writer.writeheader()
        scans = {name: read_volume(data / name) for name in SCANS}
        brains = {name: extracted(scan) for name, scan in scans.items()}
        originals: dict[tuple[str, str], tuple[Affine, Volume]] = {}  # results in the original pose
        # Pose by pose, so that an interrupted run has poses of all scans.
        for pose, (number, name), method in product(range(POSES), enumerate(SCANS), methods):
            if (name, str(pose), method) in done:
                continue
            scan, brain, run = scans[name], brains[name], METHODS[method]
            if (name, method) not in originals:
                originals[name, method] = run(scan, brain)
            motion, degrees, shift = random_motion(scan, 100 * number + pose)
            start = time.perf_counter()
            try:
                result = run(moved(scan, motion), moved(brain, motion))
                dice, far = compare(*originals[name, method], *result, motion)
            except (InputError, RuntimeError):
                dice, far = 0.0, float("inf")
            seconds = time.perf_counter() - start
            values = [name, pose, method, degrees, shift, dice, far, seconds]
            rounded = [round(v, 3) if isinstance(v, float) else v for v in values]
            writer.writerow(dict(zip(COLUMNS, rounded, strict=True)))
            stream.flush()
            print(*rounded, flush=True)
    summary(read(out))


def read(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as stream:
        return list(csv.DictReader(stream))


def random_motion(scan: Volume, seed: int) -> tuple[Affine, float, float]:
    """A random rotation about the middle of the scan and a shift; their size in degrees and mm."""
    random = np.random.default_rng(seed)
    axis, direction = (x / np.linalg.norm(x) for x in random.normal(size=(2, 3)))
    degrees, shift = random.uniform(0, 90), random.uniform(0, 100)
    middle = scan.grid.to_world((np.array(scan.grid.shape) - 1) / 2)
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_rotvec(np.radians(degrees) * axis).as_matrix()
    matrix[:3, 3] = middle - matrix[:3, :3] @ middle + shift * direction
    return Affine(matrix), degrees, shift


def moved(scan: Volume, motion: Affine) -> Volume:
    """The same voxels with a moved header."""
    affine = motion.matrix @ scan.grid.affine
    return Volume(scan.data, Grid(scan.grid.shape, affine), scan.name)


def extracted(scan: Volume) -> Volume:
    """The brain of the scan, on the scan's grid with axes R, A, S."""
    standard = from_zero(to_canonical(scan))
    return examine(scan).brain_of(standard, standard.grid)


def voxwarp(scan: Volume, brain: Volume) -> tuple[Affine, Volume]:
    examination = examine(scan)
    mask = examination.mask or Volume(scan.data != 0, scan.grid)
    return examination.template_to_scan, mask


def ants(scan: Volume, brain: Volume) -> tuple[Affine, Volume]:
    """The affine map of antspyx, with its defaults."""
    import ants as antspy

    with tempfile.TemporaryDirectory() as folder:
        write_volume(brain, Path(folder) / "brain.nii.gz")
        images = [antspy.image_read(str(p)) for p in (mni152().path, Path(folder, "brain.nii.gz"))]
        result = antspy.registration(*images, type_of_transform="Affine")
        return read_affine(result["fwdtransforms"][0]), Volume(brain.data > 0, brain.grid)


def greedy(scan: Volume, brain: Volume, *more: str) -> tuple[Affine, Volume]:
    """The affine map of greedy: 12 parameters, down to 2 mm, starting from the image centres."""
    import picsl_greedy

    with tempfile.TemporaryDirectory() as folder:
        write_volume(brain, Path(folder) / "brain.nii.gz")
        command = f"-d 3 -a -dof 12 -m NCC 2x2x2 -n 100x50x0 -i {mni152().path} "
        command += f"{folder}/brain.nii.gz -o {folder}/affine.mat -ia-image-centers "
        picsl_greedy.Greedy3D().execute(command + " ".join(more))
        # The text matrix of greedy maps fixed to moving points in RAS mm, like an Affine.
        return Affine(np.loadtxt(f"{folder}/affine.mat")), Volume(brain.data > 0, brain.grid)


def greedy_search(scan: Volume, brain: Volume) -> tuple[Affine, Volume]:
    """As ``greedy``, with its random search: 400 rigid starts, any rotation, shifts of 50 mm."""
    return greedy(scan, brain, "-search", "400", "any", "50")


def compare(
    original: Affine, original_mask: Volume, affine: Affine, mask: Volume, motion: Affine
) -> tuple[float, float]:
    """Dice of the two brain masks in template space, and the largest distance of brain points."""
    template = mni152().image
    grid = template.grid
    a, b = mask_on(original_mask, grid, original), mask_on(mask, grid, affine)
    points = grid.to_world(np.argwhere(template.data > 0)[::97])
    errors = motion.inverse().after(affine).map(points) - original.map(points)
    dice = 2 * (a & b).sum() / max(1, a.sum() + b.sum())
    return float(dice), float(np.linalg.norm(errors, axis=1).max())


METHODS: dict[str, Method] = {
    "voxwarp": voxwarp,
    "ants": ants,
    "greedy": greedy,
    "greedy-search": greedy_search,
}


def summary(rows: list[dict[str, str]]) -> None:
    for method in dict.fromkeys(r["method"] for r in rows):
        chosen = [r for r in rows if r["method"] == method]
        aligned = sum(float(r["dice"]) > 0.9 for r in chosen)
        close = sum(float(r["farthest_mm"]) < 10 for r in chosen)
        seconds = np.median([float(r["seconds"]) for r in chosen])
        print(
            f"{method}: {aligned} of {len(chosen)} aligned, {close} within 10 mm, {seconds:.1f} s"
        )


if __name__ == "__main__":
    main()
