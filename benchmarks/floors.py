"""What each stage of a registration has to do at least, and how fast this machine can do that.

``speed.py`` runs this file in processes of their own, which print JSON:

    python benchmarks/floors.py rates WARP.nii.gz SCAN.nii.gz
    python benchmarks/floors.py core MOVING FIXED --model default [--repeats 5] [--refine]

A stage's floor is the longest of what it has to do, each at the rate that is measured for it:

| Rate | How it is measured (best of several) |
|---|---|
| ``moved`` | bytes read and written by a copy of 256 MB of float32, with all threads |
| ``flops`` | a 3³ convolution of 32 to 32 channels on 64³ voxels, in voxwarp's precision |
| ``inflated`` | bytes of a scan, unpacked by ISA-L, a stream for each thread |
| ``deflated`` | bytes of a warp, packed by ISA-L at level 1, a stream for each thread |
| ``seconds`` | ``python -c "import torch, nibabel, numpy"``, measured by ``speed.py`` |

A product and its sum are two operations.

What the stages have to do. F, M, W are the voxels of the fixed scan, the moving scan and the
working grid, B those of the box around both brains; a volume is moved once in each direction, and
a number has 4 bytes:

| Stage | Bytes moved | Otherwise |
|---|---|---|
| start | | importing PyTorch, nibabel and NumPy |
| read | | inflating the input files |
| prepare | M + F read, 2 W written | convolutions of deepbet, if a scan is a head |
| network | steps, or a velocity (below) | convolutions, products of classification |
| refine | steps (below) | as network, where it looks at mirrored scans |
| compose | 3 W read, 3 F written; for the inverse 3 F read, 3 F written | |
| resample | M + F and two warps (6 F) read, M + F written | |
| measure | both images and the displacement, 5 W read | |
| write | | deflating the written images |
| exit | | nothing |

A step, on its grid: displacement (3), both images (2) and their maps read, 3 written for the next.
The steps are those that were taken, and the displacement is written, 3 W. A velocity: 2 W read, and
each squaring, at half the resolution: 3 volumes read, 3 written; the field is written, 3 W.

Floors are below what is possible: no arithmetic of a step is counted, only the convolutions of a
network are, and nothing of an affine registration but its input and output.
"""

import argparse
import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from math import prod
from pathlib import Path
from typing import NamedTuple

FLOAT = 4  # bytes
STEP = 8  # volumes moved by a step, without maps


class Work(NamedTuple):
    """What has to be done, or how much of it a second can take."""

    moved: float = 0.0
    flops: float = 0.0
    inflated: float = 0.0
    deflated: float = 0.0
    seconds: float = 0.0


def floor(work: Work, rates: Work) -> tuple[float, str]:
    """The seconds that the work takes at least, and what takes them; ``rates.seconds`` is 1."""
    times = {name: getattr(work, name) / getattr(rates, name) for name in Work._fields}
    longest = max(times, key=lambda name: times[name])
    return times[longest], longest if times[longest] else ""


def uncompressed(path: Path) -> int:
    """Bytes of a file without its gzip compression (RFC 1952: its last four bytes)."""
    if path.suffix != ".gz":
        return path.stat().st_size
    with open(path, "rb") as stream:
        stream.seek(-4, 2)
        return int.from_bytes(stream.read(), "little")


# ------------------------------------------------------------------------------- Work of stages


def work_of_stages(
    metrics: Mapping, written: float, core: Mapping, imports: float, deepbet: float
) -> dict[str, Work]:
    """The work of each stage of a command.

    Args:
        metrics: the contents of its ``metrics.json``.
        written: bytes of the images that it wrote, uncompressed.
        core: what ``core`` says of its model.
        imports: seconds of importing PyTorch, nibabel and NumPy.
        deepbet: operations of an extraction.
    """
    fixed, moving = (prod(metrics["grids"][role]["shape"]) for role in ("fixed", "moving"))
    whole = prod(core["working"])
    paths = [Path(one["path"]) for one in metrics["inputs"].values() if one and one.get("path")]
    heads = sum(scan["seen_as"] == "head" for scan in metrics["preparation"].values())
    return {
        "start": Work(seconds=imports),
        "read": Work(inflated=sum(map(uncompressed, paths))),
        "prepare": Work(moved=FLOAT * (moving + fixed + 2 * whole), flops=heads * deepbet),
        **{name: Work(*core["work"][name]) for name in core["work"]},
        "compose": Work(moved=FLOAT * (3 * whole + 9 * fixed)),
        "resample": Work(moved=FLOAT * (2 * (moving + fixed) + 6 * fixed)),
        "measure": Work(moved=FLOAT * 5 * whole),
        "write": Work(deflated=written),
        "exit": Work(),
    }


def moved_by_steps(
    steps: Mapping[int, int], box: Sequence[int], whole: Sequence[int], maps: tuple[int, int]
) -> float:
    """Bytes that a descent moves.

    Args:
        steps: the number of steps by the factor of their grid.
        box, whole: voxels of the box and of the working grid along each axis.
        maps: the number of maps of each image, and the factor of their grid.
    """
    volumes = 0.0  # of the box
    for factor, number in steps.items():
        each = STEP + 2 * maps[0] * (factor / max(factor, maps[1])) ** 3
        volumes += number * each / factor**3
    return FLOAT * (volumes * prod(box) + 3 * prod(whole))


def moved_by_velocity(squarings: int, whole: Sequence[int]) -> float:
    """Bytes that integrating a velocity at half the resolution moves."""
    return FLOAT * prod(whole) * (2 + 3 + squarings * 6 / 8)


def flops(run: Callable[[], object]) -> float:
    """Operations of the convolutions and matrix products that a function calls."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        run()
    return float(counter.get_total_flops())


def deepbet_flops() -> float:
    """Operations of deepbet's networks on 128³ and 256³ voxels, from those on 64³."""
    import torch
    from deepbet import BrainExtraction

    both, scan = BrainExtraction(no_gpu=True), torch.rand(1, 1, 64, 64, 64)
    with torch.no_grad():
        return 8 * flops(lambda: both.bbox_model(scan)) + 64 * flops(lambda: both.model(scan))


# ------------------------------------------------------------------------------------- Processes


def best_rate(amount: float, run: Callable[[], object], repeats: int = 5) -> float:
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return amount / min(seconds)


def rates(warp: Path, scan: Path) -> dict:
    """The rates of this machine, the machine itself, and the operations of deepbet."""
    import torch
    from isal import igzip

    from voxwarp._device import bfloat16_convolutions, channels_last
    from voxwarp._provenance import machine

    source = torch.ones(64 << 20)
    target = torch.empty_like(source)
    layer = channels_last(torch.nn.Conv3d(32, 32, 3, padding=1))
    volume = torch.rand(1, 32, 64, 64, 64).contiguous(memory_format=torch.channels_last_3d)
    with torch.inference_mode(), bfloat16_convolutions(torch.device("cpu")):
        kind = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else volume.dtype
        volume = volume.to(kind)
        operations = best_rate(flops(lambda: layer(volume)), lambda: layer(volume))
    threads, plain = torch.get_num_threads(), igzip.decompress(warp.read_bytes())
    read = igzip.decompress(scan.read_bytes()) if scan.suffix == ".gz" else scan.read_bytes()
    zipped = igzip.compress(read, 1)

    def in_threads(function: Callable[[], object]) -> Callable[[], object]:
        return lambda: list(pool.map(lambda _: function(), range(threads)))

    with ThreadPoolExecutor(threads) as pool:
        inflate = in_threads(lambda: igzip.decompress(zipped))
        deflate = in_threads(lambda: igzip.compress(plain, 1))
        measured = Work(
            moved=best_rate(2 * FLOAT * source.numel(), lambda: target.copy_(source)),
            flops=operations,
            inflated=best_rate(threads * len(read), inflate),
            deflated=best_rate(threads * len(plain), deflate),
            seconds=1.0,
        )
    precision = str(kind).removeprefix("torch.")
    about = {"machine": machine(), "precision": precision, "deepbet": deepbet_flops()}
    return about | {"rates": measured}


def core(moving: Path, fixed: Path, name: str, repeats: int, refine: bool) -> dict:
    """Seconds of the stages network and refine, warm, and their work."""
    import torch

    from voxwarp import Model, Refinement, Scan
    from voxwarp._allocation import keep_freed_memory
    from voxwarp._meter import Meter
    from voxwarp.networks import descent
    from voxwarp.preparation.scan import prepare_scans
    from voxwarp.registration.deform import compute_deformation

    model = Model.load(name)
    scans = [Scan.read(path) for path in (moving, fixed)]
    ready = prepare_scans(model.recipe, *((scan, scan.examined(model.recipe)) for scan in scans))
    images = dict(zip(("moving", "fixed"), ready, strict=True))
    steps, seconds, work = Counter[int](), list[dict[str, float]](), {}
    take_step = descent.take_step

    def counting(*words):
        steps[words[2].factor] += 1  # words[2] is the stage
        return take_step(*words)

    def run(refinement: Refinement | None) -> dict[str, float]:
        meter = Meter(memory=False)
        compute_deformation(
            model, **images, device=torch.device("cpu"), refinement=refinement, meter=meter
        )
        meter.stop()
        return meter.seconds

    descent.take_step = counting
    convolutions, products = flops(lambda: run(None)), classification(model, **images)
    operations = convolutions + products
    factor = getattr(model.network, "factor", 1)
    work["network"] = Work(moved_by_network(model, steps, factor, **images), operations)
    if refine:
        before = Counter(steps)
        steps.clear()
        more = flops(lambda: run(Refinement())) - convolutions  # of mirrored scans
        steps.subtract(before)
        moved = moved_by_network(model, +steps, 2, **images)
        work["refine"] = Work(moved, more + products if more else 0.0)
    descent.take_step = take_step
    with keep_freed_memory():
        for _ in range(repeats + 1):
            seconds.append(run(Refinement() if refine else None))
    found = {stage: [one[stage] for one in seconds[1:]] for stage in work}
    return {"working": model.recipe.grid.shape, "work": work, "seconds": found}


def moved_by_network(model, steps: Mapping[int, int], factor: int, *, moving, fixed) -> float:
    """Bytes that a model moves, from the steps that it took; its maps are on 1/factor."""
    whole = model.recipe.grid.shape
    if not model.capabilities.is_descent:
        return moved_by_velocity(model.architecture["steps"], whole)
    network, maps = model.network, (0, 1)
    if network.segmentation is not None:
        maps = network.segmentation.projection.shape[1], factor
    return moved_by_steps(steps, box_of(network, moving, fixed).shape, whole, maps)


def classification(model, *, moving, fixed) -> float:
    """Operations that turn embeddings into maps, in a kernel that PyTorch does not see."""
    import torch.nn.functional as F

    network = model.network if model.capabilities.is_descent else None
    if network is None or network.segmentation is None:
        return 0.0
    box = box_of(network, moving, fixed)
    inside = [F.max_pool3d(box.crop(scan.image), network.factor) > 0 for scan in (moving, fixed)]
    classes, channels = network.segmentation.network.classes.weight.shape
    maps = network.segmentation.projection.shape[1]
    return 2.0 * sum(int(x.sum()) for x in inside) * classes * (channels + maps)


def box_of(network, moving, fixed):
    from voxwarp.fields.box import Box

    return Box.around(moving.image, fixed.image, multiple=network.multiple)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("rates", "core"))
    parser.add_argument("files", type=Path, nargs=2)
    parser.add_argument("--model", default="default")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--refine", action="store_true")
    options = parser.parse_args()
    if options.what == "rates":
        print(json.dumps(rates(*options.files)))
    else:
        print(json.dumps(core(*options.files, options.model, options.repeats, options.refine)))


if __name__ == "__main__":
    main()
