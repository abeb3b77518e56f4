"""Brain masks and affine alignment of heads of other contrasts, against those of their T1 scans.

    python benchmarks/other_contrast_heads.py DATA/ds000011 OUT.csv

For each person, the head of the in-plane T2 scan and the T1 head with its contrast inverted are
examined alone, and with the T1 scan as companion. The reference is the T1 scan's own examination,
taken to the T2 scan by the rigid map between the two (that of the companion: the headers of these
T2 scans do not say how the slices were tilted).

- ``mask_dice``: of the brain mask and the reference, within the field of view of the scan;
- ``affine_mm``: mean distance over the template's brain between where the two affine maps lead;
- ``companion_ncc``: mean squared local correlation of T1 and T2 after the rigid map;
- ``header_mm``: mean distance in the brain between the rigid map and the headers'.
"""

import argparse
import csv
from dataclasses import replace
from pathlib import Path

import numpy as np

from voxwarp.errors import InputError
from voxwarp.preparation.companion import prepared_by_companion
from voxwarp.preparation.examination import Examination
from voxwarp.preparation.masking import mask_on
from voxwarp.preparation.recipe import Recipe
from voxwarp.preparation.scan import Scan
from voxwarp.preparation.settings import DEFAULTS
from voxwarp.preparation.template import mni152

COLUMNS = "person", "contrast", "way", "mask_dice", "affine_mm", "companion_ncc", "header_mm"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("bids", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    recipe = Recipe()
    with options.out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for folder in sorted(options.bids.glob("sub-*")):
            t1 = Scan.read(folder / "anat" / f"{folder.name}_T1w.nii.gz")
            t2 = Scan.read(folder / "anat" / f"{folder.name}_inplaneT2.nii.gz")
            for contrast, scan in (("T2", t2), ("inverted T1", inverted(t1))):
                known = prepared_by_companion(scan, t1, recipe, DEFAULTS, cache=False).examination
                for way in ("companion", "alone"):
                    row = {"person": folder.name, "contrast": contrast, "way": way}
                    try:
                        found = known if way == "companion" else scan.examined(recipe, cache=False)
                        row |= compared(scan, found, known, against=t1.examined(recipe))
                    except InputError as error:
                        row["mask_dice"] = "refused"
                        print(error)
                    writer.writerow(row)
                    file.flush()
                    print(row)


def inverted(scan: Scan) -> Scan:
    """A head with bright and dark exchanged, where there is tissue."""
    data = scan.image.data.astype(np.float32)
    bright = np.percentile(data[data > 0], 99)
    tissue = data > 0.1 * bright
    changed = np.where(tissue, np.clip(1.1 * bright - data, 0, None), 0.3 * data)
    return Scan(replace(scan.image, data=changed.astype(np.float32)))


def compared(
    scan: Scan, found: Examination, known: Examination, *, against: Examination
) -> dict[str, str]:
    masks = [mask_on(x.mask, scan.grid) if x.mask else scan.image.data > 0 for x in (found, known)]
    dice = 2 * (masks[0] & masks[1]).sum() / (masks[0].sum() + masks[1].sum())
    template = mni152().image
    points = template.grid.to_world(np.argwhere(template.data > 0)[::97])
    away = found.template_to_scan.map(points) - known.template_to_scan.map(points)
    row = {
        "mask_dice": f"{dice:.4f}",
        "affine_mm": f"{np.linalg.norm(away, axis=1).mean():.2f}",
    }
    if found.companion is not None:
        brain = against.template_to_scan.map(points)
        moved = found.companion.to_scan.map(brain) - brain
        row["companion_ncc"] = f"{found.companion.local_ncc:.3f}"
        row["header_mm"] = f"{np.linalg.norm(moved, axis=1).mean():.2f}"
    return row


if __name__ == "__main__":
    main()
