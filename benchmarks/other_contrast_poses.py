"""From how many poses heads and brains of other contrasts are aligned with MNI152.

    python benchmarks/other_contrast_poses.py DATA ROWS.csv

Poses and criterion are those of ``robustness.py``, which has ten poses of another T2 head: here
the in-plane T2 head of ds000011 (slices of 5 mm) and a val brain with its contrast inverted.
"""

import csv
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from robustness import POSES, compare, moved, random_motion, voxwarp
from voxwarp.errors import InputError
from voxwarp.space.volume import Volume, read_volume

COLUMNS = ["scan", "pose", "degrees", "shift_mm", "dice", "farthest_mm"]
HEAD, BRAIN = "ds000011/sub-01/anat/sub-01_inplaneT2.nii.gz", "oasis-malf/t1/1104.nii.gz"


def main() -> None:
    data, out = Path(sys.argv[1]), Path(sys.argv[2])
    scans = {
        f"{BRAIN}, inverted": inverted(read_volume(data / BRAIN)),
        HEAD: read_volume(data / HEAD),
    }
    with out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for number, (name, scan) in enumerate(scans.items()):
            original = voxwarp(scan, scan)
            for pose in range(POSES):
                motion, degrees, shift = random_motion(scan, 1000 + 100 * number + pose)
                try:
                    dice, far = compare(*original, *voxwarp(moved(scan, motion), scan), motion)
                except InputError as error:
                    print(error)
                    dice, far = 0.0, float("inf")
                values = [name, pose, *(round(x, 3) for x in (degrees, shift, dice, far))]
                writer.writerow(dict(zip(COLUMNS, values, strict=True)))
                file.flush()
                print(*values, flush=True)


def inverted(brain: Volume) -> Volume:
    bright = np.percentile(brain.data[brain.data > 0], 99.5)
    data = brain.data.astype(np.float32)
    return replace(brain, data=np.where(data > 0, np.clip(1.02 * bright - data, 1, None), 0))


if __name__ == "__main__":
    main()
