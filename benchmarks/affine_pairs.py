"""Overlap of labels after the affine stage alone, and its time, compared with antspyx and greedy.

    python benchmarks/affine_pairs.py DATA/oasis-malf ROWS.csv [ants greedy]

Ten pairs of subjects of the train split (each subject with the seventh after it) and the two pairs
of val; nothing is trained here, and the test split is not used. The brains are skull-stripped and
on their native grids; the methods run one after the other on each pair. `voxwarp` aligns the pair
directly; `voxwarp, both to MNI152` aligns both scans with the template, as register does, and
combines one map with the inverse of the other.
"""

import csv
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from evaluate_pairs import dice_30, dice_regions, large_regions, read_table, structures

from voxwarp.preparation.affine import register_affine
from voxwarp.preparation.template import mni152
from voxwarp.space.formats import read_affine
from voxwarp.space.resample import resample
from voxwarp.space.transform import Affine
from voxwarp.space.volume import read_labels, read_volume, to_canonical


def main() -> None:
    oasis, out = Path(sys.argv[1]), Path(sys.argv[2])
    table = structures(oasis / "labels.csv")
    methods = {"voxwarp": direct, "voxwarp, both to MNI152": by_template}
    methods |= {name: PEERS[name] for name in sys.argv[3:]}
    pairs = chosen_pairs(oasis)
    for method in methods.values():  # to warm up, not timed
        method(*pairs[0], oasis)
    rows = []
    for moving, fixed in pairs:
        scans = [read_volume(oasis / "t1" / f"{i}.nii.gz") for i in (moving, fixed)]
        m, f = (
            read_labels(oasis / "labels" / f"{i}.nii.gz", scan)
            for i, scan in zip((moving, fixed), scans, strict=True)
        )
        for name, method in methods.items():
            start = time.perf_counter()
            affine = method(moving, fixed, oasis)
            seconds = time.perf_counter() - start
            moved = resample(m, f.grid, affine, interpolation="nearest").data
            row = {"moving": moving, "fixed": fixed, "method": name}
            row["dice_30"] = round(dice_30(moved, f.data, table), 4)
            row["dice_regions"] = round(
                dice_regions(moved, f.data, large_regions(m.data, f.data)), 4
            )
            rows.append({**row, "seconds": round(seconds, 2)})
            print(*rows[-1].values(), flush=True)
    with open(out, "w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    for name in methods:
        chosen = [r for r in rows if r["method"] == name]
        means = [np.mean([r[c] for r in chosen]) for c in ("dice_30", "dice_regions", "seconds")]
        print(f"{name}: Dice-30 {means[0]:.4f}, Dice-regions {means[1]:.4f}, {means[2]:.1f} s")


def chosen_pairs(oasis: Path) -> list[tuple[str, str]]:
    rows = read_table(oasis / "subjects.csv")
    train, val = ([r["id"] for r in rows if r["split"] == split] for split in ("train", "val"))
    return [(train[i], train[(i + 7) % len(train)]) for i in range(10)] + [
        (val[0], val[1]),
        (val[1], val[0]),
    ]


def direct(moving: str, fixed: str, oasis: Path) -> Affine:
    m, f = (to_canonical(read_volume(oasis / "t1" / f"{i}.nii.gz")) for i in (moving, fixed))
    return register_affine(moving=m, fixed=f)


def by_template(moving: str, fixed: str, oasis: Path) -> Affine:
    m, f = (to_canonical(read_volume(oasis / "t1" / f"{i}.nii.gz")) for i in (moving, fixed))
    template = mni152().image
    return register_affine(moving=m, fixed=template).after(
        register_affine(moving=f, fixed=template).inverse()
    )


def ants(moving: str, fixed: str, oasis: Path) -> Affine:
    """The affine map of antspyx, with its defaults."""
    import ants as antspy

    images = [antspy.image_read(str(oasis / "t1" / f"{i}.nii.gz")) for i in (fixed, moving)]
    return read_affine(antspy.registration(*images, type_of_transform="Affine")["fwdtransforms"][0])


def greedy(moving: str, fixed: str, oasis: Path) -> Affine:
    """The affine map of greedy: NCC, starting from the centres of the images."""
    import picsl_greedy

    with tempfile.TemporaryDirectory() as folder:
        picsl_greedy.Greedy3D().execute(
            f"-d 3 -a -dof 12 -m NCC 2x2x2 -n 100x50x10 -ia-image-centers -o {folder}/affine.mat "
            f"-i {oasis}/t1/{fixed}.nii.gz {oasis}/t1/{moving}.nii.gz"
        )
        return Affine(np.loadtxt(f"{folder}/affine.mat"))


PEERS: dict[str, Callable[[str, str, Path], Affine]] = {"ants": ants, "greedy": greedy}

if __name__ == "__main__":
    main()
