"""How sure the model is of the structures in scans of several contrasts, and what they do to Dice.

    python benchmarks/recognition.py DATA/oasis-malf OUT.csv SCAN... [--model default]

Each SCAN, with the contrast that its name tells (T2 if it has "t2" in it, else T1), gets a row with
the share of unsure voxels. Then the two val scans of OASIS are registered to each other, with the
contrast of the moving one changed, with structures trusted always, never, and as the model does.
The Dice is on the working grid (labels resampled twice), over all structures of both scans.
"""

import argparse
import csv
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch

from voxwarp.fields import field
from voxwarp.measures.overlap import dice
from voxwarp.networks.model import Model
from voxwarp.networks.pair_descent import Trust
from voxwarp.preparation.scan import Scan
from voxwarp.space.resample import resample

COLUMNS = ["scan", "contrast", "unsure_share", "structures", "dice_all"]
VAL = "1104", "1125"
Change = Callable[[torch.Tensor], torch.Tensor]


def inside(change: Change) -> Change:
    return lambda image: change(image) * (image > 0)


CONTRASTS: dict[str, Change] = {
    "as it is": lambda image: image,
    "inverted": inside(lambda image: 1 - image),
    "inverted and squared": inside(lambda image: (1 - image) ** 2),
    "middle dark": inside(lambda image: 4 * (image - 0.5) ** 2 + 0.01),
    "to the power of 0.2": lambda image: image**0.2,
    "to the power of 2.5": lambda image: image**2.5,
}
# The smallest and largest shares between which the structures count less and less.
TRUSTED = {"never": (-2.0, -1.0), "always": (2.0, 3.0), "by share": None}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("oasis", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("scans", type=Path, nargs="+", metavar="SCAN")
    parser.add_argument("--model", default="default")
    options = parser.parse_args()
    model = Model.load(options.model)
    with options.out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for path in options.scans:
            image, _ = on_working_grid(model, Scan.read(path))
            contrast = "T2" if "t2" in path.name.lower() else "T1"
            writer.writerow({"scan": path.name, "contrast": contrast, **share(model, image)})
            file.flush()
        folder = options.oasis
        scans = [
            Scan.read(folder / f"t1/{n}.nii.gz", labels=folder / f"labels/{n}.nii.gz") for n in VAL
        ]
        pairs = [on_working_grid(model, scan) for scan in scans]
        for contrast, change in CONTRASTS.items():
            for structures in TRUSTED:
                for moving, fixed in ((0, 1), (1, 0)):
                    row = {"scan": f"{VAL[moving]} to {VAL[fixed]}", "contrast": contrast}
                    pair = registered(model, pairs[moving], pairs[fixed], change, structures)
                    writer.writerow(row | {"structures": structures} | pair)
                    file.flush()


def on_working_grid(model: Model, scan: Scan) -> tuple[torch.Tensor, np.ndarray | None]:
    """The prepared scan and its labels, both on the working grid."""
    prepared = scan.prepared(model.recipe, scan.examined(model.recipe))
    if scan.labels is None:
        return prepared.image, None
    to_scan = prepared.template_to_scan
    labels = resample(scan.labels, model.recipe.grid, to_scan, interpolation="nearest")
    return prepared.image, labels.data.astype(np.int32)


def share(model: Model, image: torch.Tensor) -> dict[str, float]:
    unsure = model.deform(moving=image, fixed=image).unsure
    assert unsure is not None  # of a model that recognises structures
    return {"unsure_share": round(float(unsure[0, 0]), 4)}


def registered(
    model: Model,
    moving: tuple[torch.Tensor, np.ndarray | None],
    fixed: tuple[torch.Tensor, np.ndarray | None],
    change: Change,
    structures: str,
) -> dict[str, float]:
    """The mean Dice when the contrast of the moving scan is changed."""
    trust = Trust(*(TRUSTED[structures] or model.descent.trust))
    with patch.object(model.network, "trust", trust):
        found = model.deform(moving=change(moving[0]), fixed=fixed[0])
    labels = torch.from_numpy(moving[1])[None, None]
    moved = field.warp(labels, found.displacement, nearest=True)[0, 0].numpy()
    per_label = dice(moved, fixed[1])
    return {
        "unsure_share": round(float(found.unsure.max()), 4),
        "dice_all": round(float(np.mean(list(per_label.values()))), 4),
    }


if __name__ == "__main__":
    main()
