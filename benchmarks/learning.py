"""Train the paper's two networks: Dice against steps, λ and the number of subjects.

    python benchmarks/learning.py RUNS ROWS.csv [experiment ...]
    voxwarp figures --learning ROWS.csv -o FOLDER

Each training is a ``voxwarp train`` of a configuration in configs/, in the folder RUNS. It has a
higher learning rate and far fewer steps than in the paper, goes from coarse to fine, and uses NCC
windows of 5 voxels. Interrupted trainings continue. The rows are the validations: Dice-30 and folds
of the ordered pairs of the val subjects on the working grid of 1 mm (labels by nearest neighbour),
with steps and seconds. Labels are used only for the validation.
"""

import csv
import subprocess
import sys
from pathlib import Path

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
SHORT = [
    *("optimiser.learning_rate=1e-3", "optimiser.final=0.1", "optimiser.warm_up=20"),
    *("optimiser.clip=1", "losses.ncc.window=5", "augmentation.flip=0.5"),
]
COARSE = [
    "phases=[{steps: 700, downsample: 4}, {steps: 150, downsample: 2}]",
    "validation.every=50",
]
LAMBDAS = 0.1, 0.3, 1.0, 3.0, 10.0
SUBJECTS = 5, 10, 20
COLUMNS = [
    *("experiment", "network", "smoothness", "subjects", "step", "seconds"),
    *("val_dice", "val_folds_percent", "val_loss"),
]


def trainings() -> list[dict]:
    """Every training: its columns in the rows, and the changes to its configuration."""
    every = []
    for weight in LAMBDAS:
        every.append(
            {"experiment": "lambda", "network": "vm1", "smoothness": weight, "subjects": "all"}
            | {"changes": [*COARSE, f"losses.diffusion.weight={weight}"]}
        )
    for subjects in SUBJECTS:  # the training with all subjects is λ = 1 above
        every.append(
            {"experiment": "subjects", "network": "vm1", "smoothness": 1.0, "subjects": subjects}
            | {"changes": [*COARSE, f"data.subjects={subjects}"]}
        )
    for network, fine in (("vm1", 100), ("vm2", 60)):
        coarse = "{steps: 700, downsample: 4}, {steps: 300, downsample: 2}"
        phases = f"phases=[{coarse}, {{steps: {fine}}}]"
        every.append(
            {"experiment": "networks", "network": network, "smoothness": 1.0, "subjects": "all"}
            | {"changes": [phases, "validation.every=50"]}
        )
    return every


def main() -> None:
    runs, out, experiments = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]
    rows = []
    for training in trainings():
        if not experiments or training["experiment"] in experiments:
            run(training, folder(training, runs))
    for training in trainings():
        rows += rows_of(training, folder(training, runs))
        with open(out, "w", newline="") as stream:
            writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


def folder(training: dict, runs: Path) -> Path:
    name = "-".join(str(training[k]) for k in ("experiment", "network", "smoothness", "subjects"))
    return runs / name


def run(training: dict, folder: Path) -> None:
    config = CONFIGS / f"{training['network']}-pairwise.yaml"
    options = [config, *SHORT, *training["changes"], "log.tensorboard=false", "-o", folder]
    command = [sys.executable, "-m", "voxwarp", "train", *map(str, options), "--resume"]
    print(*command, flush=True)
    subprocess.run(command, check=True)


def rows_of(training: dict, folder: Path) -> list[dict]:
    if not (folder / "log.csv").exists():
        return []
    with open(folder / "log.csv", newline="") as stream:
        log = [row for row in csv.DictReader(stream) if row["val_dice"]]
    about = {k: v for k, v in training.items() if k != "changes"}
    return [about | {k: row[k] for k in COLUMNS if k in row} for row in log]


if __name__ == "__main__":
    main()
