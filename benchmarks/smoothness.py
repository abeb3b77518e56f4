"""What the smoothness knob does: overlap against regularity, on the val people.

    python benchmarks/smoothness.py DATA/oasis-malf ROWS.csv FIGURE

``voxwarp evaluate --smoothness`` for every factor, as it is and with ``--refine``; the rows are
means over the ordered pairs of the val people. FIGURE gets .png and .svg.
"""

import csv
import sys
import tempfile
from pathlib import Path

import numpy as np

from voxwarp.evaluation import evaluate
from voxwarp.pairs import read_pairs
from voxwarp.scoring import Protocol, ranges
from voxwarp.structures import structures_of

FACTORS = 0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0
METHODS = {"none": ("none", False), "default": ("default", False), "--refine": ("default", True)}
MEASURES = ("dice", "dice_regions", "std_log_jacobian", "minimum_determinant", "folds_any")


def main() -> None:
    oasis, out, figure = (Path(word) for word in sys.argv[1:4])
    rows = measured(oasis)
    with open(out, "w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    draw(rows, figure)


def measured(oasis: Path) -> list[dict]:
    from voxwarp.config import Structures

    pairs = read_pairs(
        oasis / "subjects.csv", scan="t1/{id}.nii.gz", labels="labels/{id}.nii.gz", split="val"
    )
    table = structures_of(Structures(table=str(oasis / "labels.csv")), lambda split: set())
    protocol = Protocol(table, ranges("4-41,44-45,47-62,65-68,70-73,75-207"))
    rows = []
    for name, (model, refine) in METHODS.items():
        for factor in FACTORS:
            with tempfile.TemporaryDirectory() as folder:
                found = evaluate(
                    *(pairs, model, folder),
                    **{"protocol": protocol, "refine": refine, "smoothness": factor},
                )
            means = {m: float(f"{np.mean([row[m] for row in found]):.4g}") for m in MEASURES}
            rows.append({"method": name, "smoothness": factor, "pairs": len(found), **means})
            print(*rows[-1].values(), flush=True)
    return rows


def draw(rows: list[dict], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(5.2, 3.4), layout="constrained")
    styles = {"none": ("^:", "0.6"), "default": ("o-", "black"), "--refine": ("s--", "white")}
    for name, (style, face) in styles.items():
        curve = [row for row in rows if row["method"] == name]
        spread = [row["std_log_jacobian"] for row in curve]
        label = {"--refine": "default --refine"}.get(name, name)
        axes.plot(spread, [r["dice"] for r in curve], style, color="k", mfc=face, ms=5, label=label)
        if name != "none":
            for row, x in zip(curve, spread, strict=True):
                axes.annotate(
                    f"{row['smoothness']:g}", (x, row["dice"]), (0, -11), fontsize=7,
                    textcoords="offset points", ha="center",
                )  # fmt: skip
    axes.set(xlabel="spread of log det ∇φ in the brain", ylabel="Dice (mean)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower right")
    for suffix, more in ((".png", {"dpi": 200}), (".svg", {"metadata": {"Date": None}})):
        figure.savefig(path.with_suffix(suffix), **more)


if __name__ == "__main__":
    main()
