"""Label maps for scans that have none: those of other people, registered and fused by a vote.

    python benchmarks/label_fusion.py DATA/oasis-malf FOLDER SCAN... [--model default]

Each train scan of OASIS (an atlas) is registered to each SCAN (skull-stripped, or a head), and its
label map is transformed. In each voxel, an atlas votes with the weight 1 / d², where d is the mean
squared difference of both images around the voxel; where the winner has less than half of all
votes (``--agreement``), the voxel gets 255, so that a training can ignore it
(``data.structures.ignore``). FOLDER gets one label map for each scan, with its name and grid.

With ``--truth FOLDER``, label maps of the scans by a rater, the Dice of the fused ones is printed.
Heckemann et al., doi:10.1016/j.neuroimage.2006.05.061 (vote); Artaechevarria et al.,
doi:10.1109/TMI.2009.2014372 (weights).
"""

import argparse
import csv
from pathlib import Path

import numpy as np
import torch

from voxwarp.fields import field
from voxwarp.fields.filters import gaussian
from voxwarp.measures.overlap import dice
from voxwarp.networks.model import Model
from voxwarp.preparation.scan import Scan
from voxwarp.space.resample import resample
from voxwarp.space.volume import Volume, write_volume

IGNORED = 255  # no structure of OASIS has this value
WIDTH = 1.5  # mm, sigma of the window in which images are compared
FLOOR = 1e-3  # added to the mean squared difference of images in [0, 1]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("oasis", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("scans", type=Path, nargs="+", metavar="SCAN")
    parser.add_argument("--model", default="default")
    parser.add_argument("--agreement", type=float, default=0.5)
    parser.add_argument("--truth", type=Path)
    options = parser.parse_args()
    model = Model.load(options.model)
    atlases = [Atlas(path, options.oasis, model) for path in train_scans(options.oasis)]
    options.out.mkdir(parents=True, exist_ok=True)
    for path in options.scans:
        scan = Scan.read(path)
        prepared = prepared_for(model, scan)
        fused, share = vote(atlases, model, prepared.image)
        fused[share < options.agreement] = IGNORED
        to_template = prepared.template_to_scan.inverse()
        volume = Volume(fused.astype(np.uint8), model.recipe.grid)
        own = resample(volume, scan.grid, to_template, interpolation="nearest")
        write_volume(own, options.out / path.name)
        brain = prepared.image[0, 0].numpy() > 0
        ignored = np.mean(fused[brain] == IGNORED)
        score = "" if options.truth is None else mean_dice(own.data, options.truth / path.name)
        print(path.name, f"ignored {ignored:.3f}", score, flush=True)


def train_scans(oasis: Path) -> list[Path]:
    with open(oasis / "subjects.csv", newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["split"] == "train"]
    return [oasis / "t1" / f"{row['id']}.nii.gz" for row in rows]


def prepared_for(model, scan):
    examination = scan.examined(model.recipe)
    return scan.prepared(model.recipe, examination)


class Atlas:
    """A scan on the working grid with its label map."""

    def __init__(self, path: Path, oasis: Path, model):
        scan = Scan.read(path, labels=oasis / "labels" / path.name)
        prepared = prepared_for(model, scan)
        self.image = prepared.image
        labels = resample(
            scan.labels, model.recipe.grid, prepared.template_to_scan, interpolation="nearest"
        )
        self.labels = torch.from_numpy(labels.data.astype(np.int16)).float()[None, None]


@torch.no_grad()
def vote(atlases, model, image):
    """The label with the most votes in each voxel, and its share of all votes: (X, Y, Z)."""
    brain = image[0, 0] > 0
    maps, weights = [], []
    for atlas in atlases:
        warp = model.deform(moving=atlas.image, fixed=image).displacement
        difference = (field.warp(atlas.image, warp) - image).square()
        weights.append((gaussian(difference, WIDTH)[0, 0, brain] + FLOOR).pow(-2))
        labels = field.warp(atlas.labels, warp, nearest=True)
        maps.append(labels[0, 0, brain].to(torch.int16))
    most, first = torch.zeros_like(weights[0]), torch.zeros_like(maps[0])
    for label in maps:
        votes = sum(w * (other == label) for w, other in zip(weights, maps, strict=True))
        better = votes > most
        most[better], first[better] = votes[better], label[better]
    winner, share = torch.zeros(image.shape[2:]), torch.ones(image.shape[2:])
    winner[brain], share[brain] = first.float(), most / sum(weights)
    return winner.numpy(), share.numpy()


def mean_dice(fused: np.ndarray, truth: Path) -> str:
    """Mean Dice of the structures of a rater, over the voxels that are labelled."""
    true, known = Scan.read(truth).image.data.astype(int), fused != IGNORED
    scores = dice(fused[known].astype(int), true[known])
    return f"Dice {np.mean([scores[value] for value in np.unique(true[known]) if value]):.4f}"


if __name__ == "__main__":
    main()
