"""The worked example of docs/morphometry.md on the 25 people of ds002748: a group map in nilearn.

    voxwarp template DATA/ds002748/t1/*.nii.gz -o TEMPLATE --name ds2748
    voxwarp morphometry TEMPLATE -o MORPHOMETRY --fwhm 8
    python benchmarks/group_map.py DATA/ds002748/participants.tsv MORPHOMETRY TEMPLATE \\
        --to benchmarks/templates/group_map.csv --picture docs/group-map.png

All 25 people are of the group with depression, so that no groups are compared. For the relative
and the absolute maps, smoothed by 8 mm, and for each of sex and age, the other being in the design:
permutation inference with 1000 permutations, two-sided, and the least p value, corrected for all
voxels of the mask. The picture shows t of age, relative.
"""

import argparse
import csv
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pandas as pd
from nilearn.glm.second_level import SecondLevelModel, non_parametric_inference
from nilearn.plotting import plot_stat_map

from voxwarp._json import read_json

PERMUTATIONS, SMOOTHED = 1000, "s8"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("participants", type=Path)
    parser.add_argument("maps", type=Path)
    parser.add_argument("template", type=Path)
    parser.add_argument("--to", type=Path, required=True)
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    table = pd.read_csv(options.maps / "maps.tsv", sep="\t")
    people = table.merge(pd.read_csv(options.participants, sep="\t"), on="participant_id")
    design = pd.DataFrame(
        {
            "male": (people["gender"] == "m").astype(float),
            "age": (people["age"] - people["age"].mean()) / 10,  # decades
            "intercept": 1.0,
        }
    )
    rows, mask = [], str(options.maps / "mask.nii.gz")
    for kind in ("relative", "absolute"):
        files = [str(options.maps / file) for file in people[f"{kind}{SMOOTHED}"]]
        for contrast in ("male", "age"):
            found = non_parametric_inference(
                files,
                design_matrix=design,
                second_level_contrast=contrast,
                mask=mask,
                n_perm=PERMUTATIONS,
                two_sided_test=True,
                random_state=0,
                n_jobs=2,
            )
            fitted = SecondLevelModel(mask_img=mask).fit(files, design_matrix=design)
            t_map = fitted.compute_contrast(contrast, output_type="stat")
            peak = found.get_fdata()
            t = t_map.get_fdata()
            rows.append(
                {
                    "map": kind,
                    "contrast": contrast,
                    "people": len(people),
                    "male": int(design["male"].sum()),
                    "largest_t": f"{t.max():.2f}",
                    "least_t": f"{t.min():.2f}",
                    "p_voxel": f"{10 ** -peak.max():.4f}",
                }
            )
            print(rows[-1])
            if options.picture and (kind, contrast) == ("relative", "age"):
                record = read_json(options.template / "template.json")
                shown = plot_stat_map(
                    t_map,
                    bg_img=str(options.template / record["image"]),
                    threshold=2.5,
                    display_mode="ortho",
                    cut_coords=(0, -15, 10),
                    title="t of age, relative volume (positive: larger in older people)",
                    cmap="RdBu_r",
                )
                shown.savefig(options.picture, dpi=110)
    options.to.parent.mkdir(parents=True, exist_ok=True)
    with options.to.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    assert np.isfinite(design.to_numpy()).all()


if __name__ == "__main__":
    main()
