"""Peak memory of whole commands ``voxwarp register``, beside the predicted one.

    python benchmarks/memory.py benchmarks/memory.csv MOVING FIXED [--refine | --model fast | ...]

adds a row. Scans of other voxel sizes are made from one of 1 mm with
``resample(volume, grid)``. The peak is the largest resident memory of the command's process, as
the system counts it. FIXED may be ``template``.
"""

import csv
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from voxwarp.preparation.brain import is_extracted
from voxwarp.preparation.recipe import Recipe
from voxwarp.preparation.scan import Scan
from voxwarp.preparation.template import mni152
from voxwarp.registration.memory import Volumes, predicted_memory

COLUMNS = ["moving", "fixed", "stored_mb", "heads", "brains", "options", "peak_mb", "predicted_mb"]


def peak(moving: str, fixed: str, options: list[str]) -> int:
    """Bytes of a command at its peak."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "voxwarp", "register", moving, "--fixed", fixed]
        command += ["-o", folder, "--overwrite", "--no-cache", *options]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit("the command failed")
    return usage.ru_maxrss * 1024


def sizes(moving: str, fixed: str, options: list[str]) -> Volumes:
    """What the memory of the command depends on."""
    template = Scan.of_template(mni152()) if fixed == "template" else None
    scans = [Scan.read(moving), template or Scan.read(fixed)]
    heads = sum(scan is not template and not is_extracted(scan.image) for scan in scans)
    return Volumes(
        fixed=math.prod(scans[1].grid.shape),
        moving=math.prod(scans[0].grid.shape),
        stored=sum(scan.image.data.nbytes for scan in scans),
        working=math.prod(Recipe().grid.shape),
        heads=heads,
        brains=len(scans) - (template is not None) - heads,
        deformable="affine" not in options,
        refined="--refine" in options,
    )


def main() -> None:
    """Run a command and add its row."""
    rows, moving, fixed, *options = sys.argv[1:]
    known, taken = sizes(moving, fixed, options), peak(moving, fixed, options)
    new = not Path(rows).exists()
    with open(rows, "a", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        if new:
            writer.writerow(COLUMNS)
        writer.writerow(
            [
                *(known.moving, known.fixed, round(known.stored / 1e6)),
                *(
                    known.heads,
                    known.brains,
                    " ".join(options),
                    round(taken / 1e6),
                    round(predicted_memory(known) / 1e6),
                ),
            ]
        )


if __name__ == "__main__":
    main()
