"""What `--smoothness` does: overlap against regularity, on the val subjects.

    python benchmarks/smoothness.py DATA/oasis-malf ROWS.csv FIGURE

The model `default` is evaluated with every factor of ``voxwarp evaluate --smoothness``; the rows
are means over the ordered pairs of the val subjects. The figure is written as FIGURE.png and .svg.
"""

import csv
import sys
import tempfile
from pathlib import Path

import numpy as np

from voxwarp.data.pairs import read_pairs
from voxwarp.evaluation.evaluate import evaluate
from voxwarp.evaluation.protocol import protocol_of

FACTORS = 0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0
MEASURES = ("dice", "dice_regions", "std_log_jacobian", "minimum_determinant", "folds_any")


def main() -> None:
    oasis, out, figure = map(Path, sys.argv[1:4])
    rows = measured(oasis)
    with open(out, "w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    draw(rows, figure)


def measured(oasis: Path) -> list[dict]:
    pairs = read_pairs(
        oasis / "subjects.csv", scan="t1/{id}.nii.gz", labels="labels/{id}.nii.gz", split="val"
    )
    regions = "4-41,44-45,47-62,65-68,70-73,75-207"
    protocol = protocol_of(pairs, structures=oasis / "labels.csv", regions=regions)
    rows = []
    for factor in FACTORS:
        with tempfile.TemporaryDirectory() as folder:
            scores = evaluate(pairs, "default", folder, protocol=protocol, smoothness=factor)
        means = {m: float(f"{np.mean([row[m] for row in scores]):.4g}") for m in MEASURES}
        rows.append({"smoothness": factor, "pairs": len(scores), **means})
        print(*rows[-1].values(), flush=True)
    return rows


def draw(rows: list[dict], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(5.2, 3.4), layout="constrained")
    spread = [row["std_log_jacobian"] for row in rows]
    for measure, style, label in (
        ("dice", "o-", "30 structures"),
        ("dice_regions", "s--", "regions"),
    ):
        face = "black" if measure == "dice" else "white"
        axes.plot(spread, [r[measure] for r in rows], style, color="k", mfc=face, ms=5, label=label)
    for row, x in zip(rows, spread, strict=True):
        axes.annotate(
            f"{row['smoothness']:g}", (x, row["dice"]), (0, 6), fontsize=8,
            textcoords="offset points", ha="center",
        )  # fmt: skip
    axes.set(xlabel="spread of log det ∇φ in the brain", ylabel="Dice (mean)")
    axes.margins(y=0.1)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="center right")
    for suffix, more in ((".png", {"dpi": 200}), (".svg", {"metadata": {"Date": None}})):
        figure.savefig(path.with_suffix(suffix), **more)


if __name__ == "__main__":
    main()
