"""Templates: do they converge, do they serve, and what do they take?

    python benchmarks/templates.py rounds TEMPLATE... --to benchmarks/templates/rounds.csv
    python benchmarks/templates.py through DATA/oasis-malf TEMPLATE... \\
        --to benchmarks/templates/through.csv
    python benchmarks/templates.py order SCAN... --to benchmarks/templates/order.csv
    python benchmarks/templates.py peers DATA/oasis-malf --to benchmarks/templates/peers.csv

TEMPLATE is a folder of ``voxwarp template``.

- ``rounds`` puts the measures of all rounds of templates into one table, with the seconds and the
  memory that their logs tell (``--seconds``, ``--peak-mb`` of ``/usr/bin/time -v``).
- ``through`` registers the two val people to each template and to MNI152, brings the labels of one
  through the template to the other, and scores them there; beside the registration of the two to
  each other.
- ``order`` builds the template of the scans twice, under names that sort in another order, and
  measures how far the two templates are apart.
- ``peers`` builds a template of the first four train scans in two rounds with ``voxwarp template``
  and with ``build_template`` of antspyx, registers the four to each by ``default``, and scores the
  overlap of their labels there, each with each other's.
"""

import argparse
import csv
import itertools
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lesions import VAL, structure_numbers

import voxwarp
from voxwarp._json import read_json
from voxwarp.measures.overlap import dice
from voxwarp.networks.model import Model
from voxwarp.space.volume import Volume, read_labels, read_series, read_volume
from voxwarp.templates.averages import sharpness

NOT_REGIONS = {42, 43, 46, 63, 64, 69, 74}
PEERS, PEER_ROUNDS = 4, 2
ORDER_ROUNDS = 2


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["rounds", "through", "order", "peers"])
    parser.add_argument("paths", type=Path, nargs="+")
    parser.add_argument("--to", type=Path, required=True)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--peak-mb", type=float)
    options = parser.parse_args()
    made = {"rounds": rounds, "through": through, "order": order, "peers": peers}[options.what]
    write(options.to, list(made(options)))


def write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write the rows in the place of earlier ones of the same templates and methods."""
    kept: list[dict[str, Any]] = []
    if path.exists():
        with path.open(encoding="utf-8") as file:
            new = {row.get("template") for row in rows}
            kept = [row for row in csv.DictReader(file) if row.get("template") not in new]
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = list(dict.fromkeys(name for row in (*kept, *rows) for name in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows([*kept, *rows])
    for row in rows:
        print(*row.values())


def rounds(options: argparse.Namespace) -> Iterable[dict[str, Any]]:
    for folder in options.paths:
        record = read_json(folder / "template.json")
        known = {"template": record["name"], "scans": len(record["placements"])}
        for one in (*record["rounds"], {"name": "finished", **record["final"]}):
            measures = {k: f"{v:.5f}" for k, v in one.items() if k != "name"}
            yield {**known, "round": one["name"], **measures}
        if options.seconds is not None:
            yield {
                **known,
                "round": "all",
                "seconds": round(options.seconds),
                "peak_mb": round(options.peak_mb),
                "workers_peak_mb": round(record["peak_mb"]),
            }


def through(options: argparse.Namespace) -> Iterable[dict[str, Any]]:
    oasis, *folders = options.paths
    model = Model.load("default")
    numbers = structure_numbers(oasis / "labels.csv")
    scans = {
        name: voxwarp.Scan.read(
            oasis / "t1" / f"{name}.nii.gz", labels=oasis / "labels" / f"{name}.nii.gz"
        )
        for name in VAL
    }
    targets: dict[str, Any] = {"MNI152": None}
    for folder in folders:
        record = read_json(folder / "template.json")
        targets[record["name"]] = voxwarp.Scan.read(folder / record["image"])
    for target, fixed in targets.items():
        results = {name: voxwarp.register(scan, fixed, model) for name, scan in scans.items()}
        for pair in (VAL, VAL[::-1]):
            moving, other = (results[name] for name in pair)
            chain = voxwarp.Chain([*other.inverse.transforms, *moving.transform.transforms])
            moved = voxwarp.space.resample.resample_labels(
                scans[pair[0]].labels, scans[pair[1]].grid, chain
            )
            scores = scored(moved, scans[pair[1]].labels, scans[pair[0]].labels, numbers)
            yield {"template": target, "pair": " to ".join(pair), **scores}
    for pair in (VAL, VAL[::-1]):
        found = voxwarp.register(scans[pair[0]], scans[pair[1]], model)
        fixed = scans[pair[1]].labels
        scores = scored(found.warped_labels, fixed, scans[pair[0]].labels, numbers)
        yield {"template": "none", "pair": " to ".join(pair), **scores}


def scored(moved: Volume, fixed: Volume, moving: Volume, numbers: np.ndarray) -> dict[str, str]:
    """Dice-30 and Dice-regions."""
    overlap = dice(numbers[moved.data], numbers[fixed.data])
    regions = dice(moved.data, fixed.data)
    large = {
        value
        for value in range(4, 208)
        if min((x.data == value).sum() for x in (fixed, moving)) >= 50
    }
    return {
        "dice": f"{np.mean(list(overlap.values())):.4f}",
        "regions": f"{np.mean([regions[v] for v in large - NOT_REGIONS]):.4f}",
    }


def order(options: argparse.Namespace) -> Iterable[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as scratch:
        built = []
        for name, scans in (("a", options.paths), ("b", options.paths[::-1])):
            folder = Path(scratch, name)
            folder.mkdir()
            links = [folder / f"P{number:03d}.nii.gz" for number in range(len(scans))]
            for link, scan in zip(links, scans, strict=True):
                link.symlink_to(scan.absolute())
            settings = voxwarp.TemplateSettings(rounds=ORDER_ROUNDS)
            built.append(voxwarp.build_template(links, folder / "out", settings=settings))
        images = [read_volume(one.image) for one in built]
        inside = read_series(built[0].mask).data != 0
        difference = np.abs(images[0].data - images[1].data)[inside]
        warp = voxwarp.register(images[0], images[1], "none").warp.displacement
        size = np.linalg.norm(warp, axis=0)[inside]
        yield {
            "template": f"{len(options.paths)} scans of {options.paths[0].parents[1].name}",
            "rounds": ORDER_ROUNDS,
            "mean_shift_mm": f"{size.mean():.5f}",
            "largest_shift_mm": f"{size.max():.5f}",
            "mean_difference_percent": f"{difference.mean():.6f}",
            "largest_difference_percent": f"{difference.max():.5f}",
        }


ANTSPYX = """
import sys, ants
out, *paths = sys.argv[1:]
images = [ants.image_read(path) for path in paths]
built = ants.build_template(image_list=images, iterations=int(ROUNDS), type_of_transform="SyN")
ants.image_write(built, out)
"""


def peers(options: argparse.Namespace) -> Iterable[dict[str, Any]]:
    (oasis,) = options.paths
    with (oasis / "subjects.csv").open(encoding="utf-8") as file:
        names = [row["id"] for row in csv.DictReader(file) if row["split"] == "train"][:PEERS]
    paths = [oasis / "t1" / f"{name}.nii.gz" for name in names]
    numbers = structure_numbers(oasis / "labels.csv")
    with tempfile.TemporaryDirectory() as scratch:
        out, theirs = Path(scratch, "ours"), Path(scratch, "theirs.nii.gz")
        command = [sys.executable, "-m", "voxwarp", "template", *paths, "-o", out]
        seconds = {"voxwarp": timed([*command, "--rounds", PEER_ROUNDS])}
        code = ANTSPYX.replace("ROUNDS", str(PEER_ROUNDS))
        seconds["antspyx"] = timed([sys.executable, "-c", code, theirs, *paths])
        images = {"voxwarp": out / read_json(out / "template.json")["image"], "antspyx": theirs}
        for method, image in images.items():
            yield {
                "template": f"{PEERS} scans, {PEER_ROUNDS} rounds, {method}",
                "seconds": round(seconds[method][0]),
                "peak_mb": round(seconds[method][1]),
                **served(image, names, oasis, numbers),
            }


def timed(command: Sequence[object]) -> tuple[float, float]:
    """Seconds of a command, and the memory of its largest process, 10⁶ bytes."""
    began = time.monotonic()
    subprocess.run([*map(str, command)], check=True, env={**os.environ})
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e6
    return time.monotonic() - began, peak


def served(image: Path, names: list[str], oasis: Path, numbers: np.ndarray) -> dict[str, str]:
    """How well the labels of people agree on a template that they are registered to."""
    model, target = Model.load("default"), voxwarp.Scan.read(image)
    moved = []
    for name in names:
        found = voxwarp.register(oasis / "t1" / f"{name}.nii.gz", target, model)
        labels = oasis / "labels" / f"{name}.nii.gz"
        source = read_labels(labels, read_series(labels))
        moved.append(voxwarp.apply_to_image(source, found, interpolation="nearest"))
    scores = [
        scored(first, second, first, numbers) for first, second in itertools.combinations(moved, 2)
    ]
    data = target.image.data
    inside = data > 0
    return {
        "dice": f"{np.mean([float(one['dice']) for one in scores]):.4f}",
        "regions": f"{np.mean([float(one['regions']) for one in scores]):.4f}",
        "sharpness": f"{sharpness(data, inside, target.grid.spacing):.4f}",
    }


if __name__ == "__main__":
    main()
