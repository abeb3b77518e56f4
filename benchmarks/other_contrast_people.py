"""T2 scans of one person onto T1 scans of another, against T1 onto T1; silver labels.

    python benchmarks/other_contrast_people.py DATA/ds000011 DATA/ds000011-silver OUT.csv

Every ordered pair of the three people with label maps by an independent network (18 classes, less
the two of the cerebellum, parts of which are missing). The fixed scan is the extracted T1. ``way``:

- ``T1``: the T1 head;
- ``T2 alone``: the in-plane T2 head (slices of 5 mm), its brain extracted;
- ``T2 by companion``: the same with the T1 head as companion.

The label map is that of the T1 scan. For the T2 scan it goes through the rigid map between the two
(that of the companion), and is resampled once, by nearest neighbour. Only voxels of the fixed scan
count that the T2 slices reach in both ways.
"""

import argparse
import csv
import itertools
from pathlib import Path

import numpy as np

import voxwarp
from voxwarp.measures.overlap import dice
from voxwarp.networks.model import Model
from voxwarp.preparation.companion import prepared_by_companion
from voxwarp.preparation.scan import Scan
from voxwarp.preparation.settings import DEFAULTS
from voxwarp.space.resample import resample
from voxwarp.space.transform import Chain
from voxwarp.space.volume import Volume, read_labels, read_volume

COLUMNS = "moving", "fixed", "way", "model", "dice", "folds", "warnings"
PEOPLE = "sub-01", "sub-02", "sub-03"
LEFT_OUT = {5, 6}  # of the 18 classes


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("bids", type=Path)
    parser.add_argument("silver", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    model = Model.load("default")
    heads = {
        (person, kind): Scan.read(options.bids / person / "anat" / f"{person}_{suffix}.nii.gz")
        for person in PEOPLE
        for kind, suffix in (("T1", "T1w"), ("T2", "inplaneT2"))
    }
    brains, labels = {}, {}
    for person in PEOPLE:
        image = read_volume(options.silver / f"{person}_brain.nii.gz")
        labels[person] = read_labels(options.silver / f"{person}_labels18.nii.gz", image)
        brains[person] = Scan(image)
    with options.out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for moving, fixed in itertools.permutations(PEOPLE, 2):
            t1, t2 = heads[moving, "T1"], heads[moving, "T2"]
            by_companion = prepared_by_companion(t2, t1, model.recipe, DEFAULTS, cache=False)
            to_t1 = by_companion.examination.companion.to_scan.inverse()
            ways = {
                "T1": (t1, {}, None),
                "T2 alone": (t2, {}, to_t1),
                "T2 by companion": (t2, {"companion": t1}, to_t1),
            }
            found = {
                way: (voxwarp.register(scan, brains[fixed], model, **more), rigid)
                for way, (scan, more, rigid) in ways.items()
            }
            reached = np.logical_and.reduce(
                [in_view(result, t2) for way, (result, _) in found.items() if way != "T1"]
            )
            target = np.where(reached, labels[fixed].data, 0)
            for way, (result, rigid) in found.items():
                steps = [*result.transform.transforms, *([] if rigid is None else [rigid])]
                moved = resample(
                    labels[moving], result.fixed_grid, Chain(steps), interpolation="nearest"
                )
                overlap = dice(np.where(reached, moved.data, 0), target)
                row = {
                    "moving": moving,
                    "fixed": fixed,
                    "way": way,
                    "model": result.metrics["model"]["name"],
                    "dice": f"{np.mean([v for k, v in overlap.items() if k not in LEFT_OUT]):.4f}",
                    "folds": result.metrics["jacobian"]["folds_any_difference"],
                    "warnings": len(result.warnings),
                }
                writer.writerow(row)
                file.flush()
                print(row, *result.warnings, flush=True)


def in_view(result: voxwarp.Registration, t2: Scan) -> np.ndarray:
    """Where the fixed scan lies within the slices of the T2 scan."""
    ones = Volume(np.ones(t2.grid.shape, np.uint8), t2.grid)
    moved = resample(ones, result.fixed_grid, result.transform, interpolation="nearest")
    return moved.data > 0


if __name__ == "__main__":
    main()
