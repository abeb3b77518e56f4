"""Seconds and memory of a training step, compared with voxelmorph, at two sizes in one run.

    python benchmarks/training_step.py ROWS.csv [--voxelmorph PYTHON] [--steps 5] [--threads N]
                                                [--shapes 80x96x112 160x192x224]

A step is forward pass, loss, backward pass and Adam. Each row comes from a process of its own: one
step to warm up, then the median of the timed steps, and the peak memory of the process (ru_maxrss,
in 2**20 bytes, including about 300 for the imports). PYTHON is an interpreter with voxelmorph from
PyPI.

All variants share the pair (smooth noise with fixed seeds), the loss (−mean squared local
correlation in windows of 9³ + 1 · mean squared difference of neighbouring velocities), Adam, the
threads, a U-Net of four levels with 16 channels, and five squarings. They differ in:

- voxelmorph is ``VxmPairwise`` with ``NCC`` and ``SpatialGradient`` of neurite. Its U-Net
  downsamples by max-pooling after a convolution at each level, voxwarp's by convolutions of stride
  two; it upsamples linearly, voxwarp's by nearest neighbour. It convolves 2 to 16 and 32 to 16
  channels at full resolution, and predicts, integrates and smooths the velocity there.
- voxwarp, ``half``, predicts and integrates the velocity at half the resolution, as its models and
  those of the papers do, and has no convolution at full resolution.
- voxwarp, ``full``, goes up to full resolution (18 to 16 and 16 to 16 channels there) and
  integrates there.
- ``bfloat16`` is autocast around the network for both; voxwarp keeps the rest in float32.
- Windows of the correlation see zeros outside the image in voxelmorph, and end at its border in
  voxwarp.
"""

import argparse
import csv
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from importlib import metadata
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FEATURES, LEVELS, SQUARINGS, WINDOW, SMOOTHNESS = 16, 4, 5, 9, 1.0
VARIANTS = [  # tool, resolution of the velocity, precision
    ("voxelmorph", "full", "float32"),
    ("voxelmorph", "full", "bfloat16"),
    ("voxwarp", "full", "float32"),
    ("voxwarp", "full", "bfloat16"),
    ("voxwarp", "half", "float32"),
    ("voxwarp", "half", "bfloat16"),
]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument(
        "--voxelmorph", default=sys.executable, help="Python interpreter with voxelmorph"
    )
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--shapes", nargs="+", default=["80x96x112", "160x192x224"])
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)  # measure one row, in a process
    options = parser.parse_args()
    if options.one:
        torch.set_num_threads(options.threads)
        options.out.write_text(json.dumps(row(*options.one, options.shapes[0], options.steps)))
        return
    rows = []
    for shape in options.shapes:
        for variant in VARIANTS:
            rows.append(in_a_process(variant, shape, options))
            print(*rows[-1].values(), flush=True)
    with open(options.out, "w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    for shape in options.shapes:
        first, *others = (r for r in rows if r["shape"] == shape)
        for r in others:
            times = first["seconds"] / r["seconds"], first["peak_mb"] / r["peak_mb"]
            name = f"{r['tool']}, {r['velocity']}, {r['precision']}"
            print(f"{shape}: {name}: {times[0]:.1f} times faster, {times[1]:.1f} times less memory")


def in_a_process(variant: tuple[str, str, str], shape: str, options) -> dict:
    python = options.voxelmorph if variant[0] == "voxelmorph" else sys.executable
    answer = options.out.with_suffix(".part")
    command = [python, __file__, str(answer), "--one", *variant, "--shapes", shape]
    command += ["--steps", str(options.steps), "--threads", str(options.threads)]
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": str(options.threads)})
    measured = json.loads(answer.read_text())
    answer.unlink()
    return measured


def row(tool: str, velocity: str, precision: str, shape: str, steps: int) -> dict:
    torch.manual_seed(0)
    sides = tuple(int(n) for n in shape.split("x"))
    network, loss = {"voxelmorph": voxelmorph, "voxwarp": voxwarp}[tool](velocity, precision)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)
    moving, fixed = image(sides, 1), image(sides, 2)

    def step() -> float:
        start = time.perf_counter()
        optimizer.zero_grad()
        loss(moving, fixed).backward()
        optimizer.step()
        return time.perf_counter() - start

    step()
    seconds = [step() for _ in range(steps)]
    return {
        "tool": tool,
        "version": metadata.version(tool),
        "torch": torch.__version__,
        "velocity": velocity,
        "precision": precision,
        "shape": shape,
        "threads": torch.get_num_threads(),
        "parameters": sum(p.numel() for p in network.parameters()),
        "seconds": round(statistics.median(seconds), 3),
        "seconds_min": round(min(seconds), 3),
        "seconds_max": round(max(seconds), 3),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10),
    }


def image(shape: tuple[int, ...], seed: int) -> Tensor:
    """Smooth noise in [0, 1], (1, 1, X, Y, Z)."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 1, *(n // 8 for n in shape), generator=generator)
    return F.interpolate(coarse, size=shape, mode="trilinear", align_corners=True)


Loss = Callable[[Tensor, Tensor], Tensor]


def voxelmorph(velocity: str, precision: str) -> tuple[nn.Module, Loss]:
    import neurite
    from voxelmorph.nn.models import VxmPairwise

    network = VxmPairwise(3, 1, 1, nb_features=(FEATURES,) * LEVELS, integration_steps=SQUARINGS)
    similarity = neurite.nn.modules.NCC(WINDOW)
    roughness = neurite.nn.modules.SpatialGradient("l2")

    def loss(moving: Tensor, fixed: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bfloat16"):
            v, moved = network(
                moving, fixed, return_warped_source=True, return_field_type="velocity"
            )
        return -similarity(fixed, moved.float()).mean() + SMOOTHNESS * roughness(v.float())

    return network, loss


def voxwarp(velocity: str, precision: str) -> tuple[nn.Module, Loss]:
    from voxwarp._device import bfloat16_convolutions, channels_last
    from voxwarp.fields import field, losses
    from voxwarp.networks.unet import UNet

    full = velocity == "full"
    decoder = (FEATURES,) * (LEVELS + 1 + full)
    network = channels_last(UNet((FEATURES,) * LEVELS, decoder, full_resolution=full))
    device = torch.device("cpu")

    def loss(moving: Tensor, fixed: Tensor) -> Tensor:
        with bfloat16_convolutions(device) if precision == "bfloat16" else nullcontext():
            v = network(torch.cat([moving, fixed], dim=1)).float()
        flow = field.exponentiate(v, steps=SQUARINGS)
        moved = field.warp(moving, flow if full else field.upsample(flow))
        similarity = losses.local_ncc(moved=moved, fixed=fixed, window=WINDOW)
        return similarity + SMOOTHNESS * losses.diffusion(v)

    return network, loss


if __name__ == "__main__":
    main()
