"""The affine start of a benchmark: where each brain lies in MNI152 space."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from .._json import read_json
from .._meter import Meter
from .._provenance import origin
from ..data.pairs import Pair, PairScan
from ..errors import InputError
from ..evaluation.record import write_record
from ..preparation.examination import examine
from ..runtime import Runtime
from ..space.volume import read_volume


def align_scans(
    pairs: Sequence[Pair], folder: Path, *, threads: int, alone: bool
) -> dict[str, Any]:
    """Align each brain with MNI152 and measure the time.

    Earlier results are kept. If they were timed under other conditions, the alignment runs again
    for its time, and the earlier map stays, because all rows start from it.

    Args:
        pairs: the pairs whose brains are aligned.
        folder: folder for the results, one JSON file per scan.
        threads: number of threads of the affine stage.
        alone: nothing else runs on the machine, so that the time counts.

    Returns:
        By the name of the scan: ``template_to_scan`` ((4, 4), RAS mm), ``seconds``, and the
        conditions of the timing.

    Raises:
        InputError: a scan is a head.
    """
    scans = {s.name: s for pair in pairs for s in (pair.moving, pair.fixed)}
    starts, warm = {}, False
    for name, scan in scans.items():
        path, known = folder / f"{name}.json", dict[str, Any]()
        with suppress(OSError, ValueError):
            known = read_json(path)
        digest = (origin(scan.path) or {})["sha256"]
        conditions = {"sha256": digest, "threads": threads, "alone": alone}
        if not conditions.items() <= known.items():
            if not warm:  # the first alignment loads code and data, so its time does not count
                _align(scan, threads)
                warm = True
            same_scan = "template_to_scan" in known and known.get("sha256", digest) == digest
            earlier = {"template_to_scan": known["template_to_scan"]} if same_scan else {}
            known = _align(scan, threads) | earlier | conditions
            write_record(path, known)
        starts[name] = known
    return starts


def _align(scan: PairScan, threads: int) -> dict[str, Any]:
    with Runtime(threads=threads).with_threads(), (meter := Meter(memory=False)).stage("affine"):
        examination = examine(read_volume(scan.path))
    if examination.kind == "head":
        raise InputError(
            f"image {scan.path}: is a head, but a benchmark needs skull-stripped brains, because "
            "other tools do not extract them; run voxwarp preprocess first"
        )
    matrix = examination.template_to_scan.matrix.tolist()
    return {"template_to_scan": matrix, "seconds": meter.seconds["affine"]}
