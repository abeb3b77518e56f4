"""How many of 60 start poses the affine stage brings home, beside other tools.

    python benchmarks/robustness.py DATA ROWS.csv [voxwarp ants greedy greedy-search ...]

Six scans of DATA, ten poses each: the header is turned by up to 90° about a random axis and
shifted by up to 100 mm. voxwarp gets the scan as it is, heads with their skull, and extracts the
brain anew in each pose. The other tools get the brain that voxwarp extracted in the unperturbed
pose, since they extract none. A pose has landed where the brain mask, brought to the template,
overlaps with that of the same tool's unperturbed result by a Dice of more than 0.9; the stricter
column asks that no point of the brain be more than 10 mm off.
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
        homes: dict[tuple[str, str], tuple[Affine, Volume]] = {}
        # Pose by pose, so that a run that is cut short has seen all scans.
        for pose, (number, name), method in product(range(POSES), enumerate(SCANS), methods):
            if (name, str(pose), method) in done:
                continue
            scan, brain, run = scans[name], brains[name], METHODS[method]
            if (name, method) not in homes:
                homes[name, method] = run(scan, brain)
            motion, degrees, shift = start(scan, 100 * number + pose)
            began = time.perf_counter()
            try:
                found = run(moved(scan, motion), moved(brain, motion))
                dice, far = compare(*homes[name, method], *found, motion)
            except (InputError, RuntimeError):
                dice, far = 0.0, float("inf")
            seconds = time.perf_counter() - began
            values = [name, pose, method, degrees, shift, dice, far, seconds]
            rounded = [round(v, 3) if isinstance(v, float) else v for v in values]
            writer.writerow(dict(zip(COLUMNS, rounded, strict=True)))
            stream.flush()
            print(*rounded, flush=True)
    summary(read(out))


def read(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as stream:
        return list(csv.DictReader(stream))


def start(scan: Volume, seed: int) -> tuple[Affine, float, float]:
    """A rotation about the scan's middle and a shift; degrees; mm."""
    random = np.random.default_rng(seed)
    axis, direction = (x / np.linalg.norm(x) for x in random.normal(size=(2, 3)))
    degrees, shift = random.uniform(0, 90), random.uniform(0, 100)
    middle = scan.grid.to_world((np.array(scan.grid.shape) - 1) / 2)
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_rotvec(np.radians(degrees) * axis).as_matrix()
    matrix[:3, 3] = middle - matrix[:3, :3] @ middle + shift * direction
    return Affine(matrix), degrees, shift


def moved(scan: Volume, motion: Affine) -> Volume:
    """The same voxels, placed elsewhere."""
    affine = motion.matrix @ scan.grid.affine
    return Volume(scan.data, Grid(scan.grid.shape, affine), scan.name)


def extracted(scan: Volume) -> Volume:
    """The scan's brain on the scan's own grid."""
    found = examine(scan)
    standard = from_zero(to_canonical(scan))
    return found.brain_of(standard, standard.grid)


def voxwarp(scan: Volume, brain: Volume) -> tuple[Affine, Volume]:
    found = examine(scan)
    mask = found.mask or Volume(scan.data != 0, scan.grid)
    return found.template_to_scan, mask


def ants(scan: Volume, brain: Volume) -> tuple[Affine, Volume]:
    """Antspyx's default affine."""
    import ants as antspy

    with tempfile.TemporaryDirectory() as folder:
        write_volume(brain, Path(folder) / "brain.nii.gz")
        images = [antspy.image_read(str(p)) for p in (mni152().path, Path(folder, "brain.nii.gz"))]
        found = antspy.registration(*images, type_of_transform="Affine")
        return read_affine(found["fwdtransforms"][0]), Volume(brain.data > 0, brain.grid)


def greedy(scan: Volume, brain: Volume, *more: str) -> tuple[Affine, Volume]:
    """Greedy's affine: 12 parameters, to 2 mm, centres of the images as the start."""
    import picsl_greedy

    with tempfile.TemporaryDirectory() as folder:
        write_volume(brain, Path(folder) / "brain.nii.gz")
        words = f"-d 3 -a -dof 12 -m NCC 2x2x2 -n 100x50x0 -i {mni152().path} "
        words += f"{folder}/brain.nii.gz -o {folder}/affine.mat -ia-image-centers "
        picsl_greedy.Greedy3D().execute(words + " ".join(more))
        # Greedy's text matrix: RAS mm, fixed to moving, as voxwarp has it.
        return Affine(np.loadtxt(f"{folder}/affine.mat")), Volume(brain.data > 0, brain.grid)


def greedy_search(scan: Volume, brain: Volume) -> tuple[Affine, Volume]:
    """The same with greedy's own random search: 400 rigid starts, any rotation, 50 mm."""
    return greedy(scan, brain, "-search", "400", "any", "50")


def compare(
    home: Affine, home_mask: Volume, found: Affine, mask: Volume, motion: Affine
) -> tuple[float, float]:
    """Dice of the two brain masks in template space, and the largest distance of brain points."""
    template = mni152().image
    grid = template.grid
    a, b = mask_on(home_mask, grid, home), mask_on(mask, grid, found)
    points = grid.to_world(np.argwhere(template.data > 0)[::97])
    off = motion.inverse().after(found).map(points) - home.map(points)
    dice = 2 * (a & b).sum() / max(1, a.sum() + b.sum())
    return float(dice), float(np.linalg.norm(off, axis=1).max())


METHODS: dict[str, Method] = {
    "voxwarp": voxwarp,
    "ants": ants,
    "greedy": greedy,
    "greedy-search": greedy_search,
}


def summary(rows: list[dict[str, str]]) -> None:
    for method in dict.fromkeys(r["method"] for r in rows):
        chosen = [r for r in rows if r["method"] == method]
        landed = sum(float(r["dice"]) > 0.9 for r in chosen)
        close = sum(float(r["farthest_mm"]) < 10 for r in chosen)
        seconds = np.median([float(r["seconds"]) for r in chosen])
        print(f"{method}: {landed} of {len(chosen)} landed, {close} within 10 mm, {seconds:.1f} s")


if __name__ == "__main__":
    main()
