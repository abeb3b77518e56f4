"""Brain extraction forced on skull-stripped brains: how much of each brain does it keep?

    python benchmarks/extraction.py DATA/oasis-malf ROWS.csv

The extractor is forced on each of the 27 scans and compared with the mask of the expert labels
(label > 0). The columns: Dice of the two masks; `kept`, the share of the labelled voxels that the
extractor keeps (it includes the outer cerebrospinal fluid, which the labels do not); `of_nonzero`,
the share of the nonzero voxels that it keeps; and what `--brain-extract auto` takes the scan for.
"""

import csv
import sys
from pathlib import Path

import numpy as np

from voxwarp.preparation.brain import is_extracted
from voxwarp.preparation.recipe import Recipe
from voxwarp.preparation.scan import Scan
from voxwarp.preparation.settings import Preparation


def main() -> None:
    oasis, out = Path(sys.argv[1]), Path(sys.argv[2])
    rows, forced = [], Preparation(brain_extract="yes", affine=False)
    for path in sorted((oasis / "t1").glob("*.nii.gz")):
        scan = Scan.read(path, labels=oasis / "labels" / path.name)
        assert scan.labels is not None
        examination = scan.examined(Recipe(), forced, cache=False)
        mask = scan.brain_mask(examination).data > 0
        truth = scan.labels.data > 0
        shared = (mask & truth).sum()
        dice, kept = 2 * shared / (mask.sum() + truth.sum()), shared / truth.sum()
        row = {"scan": path.name.removesuffix(".nii.gz"), "dice": dice, "kept": kept}
        row["of_nonzero"] = mask[scan.image.data > 0].mean()
        rows.append({k: v if isinstance(v, str) else round(float(v), 4) for k, v in row.items()})
        rows[-1]["auto"] = "brain" if is_extracted(scan.image) else "head"
        print(*rows[-1].values(), flush=True)
    with open(out, "w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    for column in ("dice", "kept", "of_nonzero"):
        values = [r[column] for r in rows]
        print(f"{column}: mean {np.mean(values):.4f}, least {min(values):.4f}")


if __name__ == "__main__":
    main()
