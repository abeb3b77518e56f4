"""Where each brain lies in MNI152 space: the affine map that all methods start from."""

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..data.pairs import Pair, PairScan
from ..errors import InputError
from ..evaluation.record import write_record
from ..meter import Meter
from ..preparation.examination import examine
from ..provenance import origin
from ..runtime import Runtime
from ..space.volume import read_volume


def places_of(pairs: Sequence[Pair], folder: Path, *, threads: int, alone: bool) -> dict[str, Any]:
    """Where each brain lies in MNI152 space, and the seconds it took to find out.

    What was found before stays; under other terms it is found again for the time it takes.

    Args:
        pairs: whose brains.
        folder: where what was found is kept, a file for each scan.
        threads: that the affine stage may use.
        alone: nothing else runs on the machine, so that its time counts.

    Returns:
        By the name of the scan: ``template_to_scan`` ((4, 4), RAS mm), ``seconds``, and the
        terms that these were taken under.

    Raises:
        InputError: one of them is a head.
    """
    scans = {s.name: s for pair in pairs for s in (pair.moving, pair.fixed)}
    places, warm = {}, False
    for name, scan in scans.items():
        path, known = folder / f"{name}.json", dict[str, Any]()
        with suppress(OSError, ValueError):
            known = json.loads(path.read_text(encoding="utf-8"))
        digest = (origin(scan.path) or {})["sha256"]
        now = {"sha256": digest, "threads": threads, "alone": alone}
        if not now.items() <= known.items():
            if not warm:
                _place(scan, threads)
                warm = True
            is_it = "template_to_scan" in known and known.get("sha256", digest) == digest
            pose = {"template_to_scan": known["template_to_scan"]} if is_it else {}
            known = _place(scan, threads) | pose | now
            write_record(path, known)
        places[name] = known
    return places


def _place(scan: PairScan, threads: int) -> dict[str, Any]:
    with Runtime(threads=threads).with_threads(), (meter := Meter(memory=False)).stage("affine"):
        found = examine(read_volume(scan.path))
    if found.kind == "head":
        raise InputError(
            f"image {scan.path}: this is a head, and the other methods want brains: extract "
            f"it first (voxwarp preprocess)"
        )
    matrix = found.template_to_scan.matrix.tolist()
    return {"template_to_scan": matrix, "seconds": meter.seconds["affine"]}
