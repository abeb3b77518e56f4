"""Two phantoms in files, and where each point of the one is in the other."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from brains import CENTER, Pose
from scipy.spatial.transform import Rotation

from voxwarp.benchmark.job import Job
from voxwarp.measures.overlap import dice
from voxwarp.space.resample import resample_labels
from voxwarp.space.transform import Affine, Transform
from voxwarp.space.volume import read_labels, read_volume

# Both heads lie far from the template and from each other, so that a transform that is taken in
# the wrong direction or order is centimetres off; the second is bent as well.
TURNED = Pose(turn=(-10, 8, 15), zoom=0.95, shift=(8, 5, -6))
BENT = Pose(turn=(14, -12, -18), zoom=1.06, shift=(-7, 6, 9), bend=5.0)


def affine_of(pose: Pose) -> Affine:
    """The pose without its bend: from the scan to the template."""
    matrix = np.eye(4)
    turn = Rotation.from_euler("xyz", pose.turn, degrees=True).as_matrix()
    matrix[:3, :3] = pose.zoom * turn
    matrix[:3, 3] = CENTER + pose.shift - matrix[:3, :3] @ CENTER
    return Affine(matrix)


def unposed(pose: Pose, points: np.ndarray) -> np.ndarray:
    """The points of the scan that a pose takes to ``points`` of the template."""
    straight = affine_of(pose).inverse().map(points)
    found = straight
    for _ in range(100):  # the bend is gentle: a contraction
        waves = np.sin(np.roll(found, 1, axis=-1) / 23 + np.array([0.3, 1.1, 2.0]))
        found = straight - pose.bend * waves
    np.testing.assert_allclose(pose(found), points, atol=1e-6)
    return found


@dataclass(frozen=True)
class Case:
    """Two phantoms in files, and where each point of the fixed one is in the moving one."""

    folder: Path
    brain: np.ndarray  # points of it, RAS mm

    def job(self, method: str, folder: Path, **more: object) -> Job:
        poses = (affine_of(pose).inverse().matrix.tolist() for pose in (TURNED, BENT))
        scans = (str(self.folder / f"{side}.nii.gz") for side in ("fixed", "moving"))
        return Job(method, *scans, *poses, str(folder), 1, **{"repeat": False, **more})

    @property
    def start(self) -> Affine:
        return affine_of(BENT).inverse().after(affine_of(TURNED))

    def home(self, points: np.ndarray) -> np.ndarray:
        return unposed(BENT, TURNED(points))

    def error(self, transform: Transform) -> float:
        """Mean distance from the truth, mm."""
        found = transform.map(self.brain)
        return float(np.linalg.norm(found - self.home(self.brain), axis=-1).mean())

    def overlap(self, transform: Transform) -> float:
        """Mean Dice of the octants, each eroded and so with all its border in the brain."""
        fixed, moving = (
            read_labels(path, read_volume(str(path).replace("-labels", "")))
            for path in (self.folder / f"{side}-labels.nii.gz" for side in ("fixed", "moving"))
        )
        values = dice(resample_labels(moving, fixed.grid, transform).data, fixed.data)
        return float(np.mean(list(values.values())))
