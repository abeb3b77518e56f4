"""Fill in the card of the shipped model: data, recipe, scores from the rows, licence.

python benchmarks/write_card.py src/voxwarp/models/default benchmarks/default_pairs.csv
"""

import csv
import json
import sys
from pathlib import Path
from statistics import mean

CARD = {
    "task": "deformable registration of brain-extracted T1-weighted scans",
    "network": "VelocityPyramid: coarse to fine, one stream an image, stationary velocity at 2 mm",
    "data": [
        "19 T1 scans of 19 people, OASIS project, as prepared for the MICCAI 2012 workshop on "
        "multi-atlas labeling (CC BY-NC)",
        "25 T1 scans of OpenNeuro ds002748 v1.0.5, Bezmaternykh et al., "
        "doi:10.18112/openneuro.ds002748.v1.0.5 (CC0)",
    ],
    "recipe": {
        "script": "src/voxwarp/train.py",
        "commit": "a3aacfe",
        "supervision": "none: local NCC (windows of 5 voxels), both directions; lambda 0.5",
        "steps": "700 without the finest level, then 450 with all, batch of one pair",
        "note": "cosine laid out over 1300 steps for the first 700, over 1150 for the rest",
        "seed": 0,
        "machine": "2 CPU cores, bf16 convolutions, about 95 minutes next to other work",
    },
    "licence": "CC BY-NC 4.0",
    "credit": [
        "The OASIS scans originate from the OASIS project.",
        "The labels that validate and test the model were provided by Neuromorphometrics, Inc. "
        "(http://Neuromorphometrics.com/) under academic subscription.",
    ],
    "limits": "adults, T1-weighted, brain-extracted; not tested on other contrasts or on lesions",
}


def main() -> None:
    path = Path(sys.argv[1]) / "model.json"
    with open(sys.argv[2], newline="") as stream:
        rows = list(csv.DictReader(stream))
    scores = {
        f"{split}, {method}": {
            "pairs": len(chosen),
            "dice_30": round(mean(float(r["dice_30"]) for r in chosen), 4),
            "dice_regions": round(mean(float(r["dice_regions"]) for r in chosen), 4),
            "folded_voxels": sum(int(r["folds"]) for r in chosen),
        }
        for split, method in dict.fromkeys((r["split"], r["method"]) for r in rows)
        for chosen in [[r for r in rows if (r["split"], r["method"]) == (split, method)]]
    }
    model = json.loads(path.read_text(encoding="utf-8"))
    model["card"] = {**CARD, "scores": scores}
    path.write_text(json.dumps(model, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
