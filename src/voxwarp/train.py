"""The training loop of the shipped model: one visible file, no labels, resumable.

    python -m voxwarp.train PREPARED.npz OUT [--minutes 90] [--device cpu|cuda]

``PREPARED.npz`` is written by ``benchmarks/prepare_training_set.py``: ``images`` (N, X, Y, Z)
uint8, scans affinely aligned to MNI152 on one grid, and ``train``, ``val`` index arrays; for
scoring, ``labels`` (M, X, Y, Z) of the structures 1..30 of the ``val`` scans.
"""

import argparse
import itertools
import json
import math
import os
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from . import field
from .grid import Grid
from .losses import diffusion, local_ncc
from .model import Model, Recipe, bfloat16_convolutions, channels_last
from .network import VelocityPyramid

# Every knob. λ is in the paper's normalisation: mean −NCC + λ · mean squared neighbour difference.
ARCHITECTURE: dict[str, Any] = {"name": "pyramid", "channels": [8, 16, 32, 32, 32], "steps": 6}
PHASES = [(700, 1), (450, 0)]  # steps, and how many of the finest levels to leave out in them
LEARNING_RATE = 1e-3
WARM_UP = 50  # steps
SMOOTHNESS = 0.5  # λ
WINDOW = 5  # voxels of the level, edge of the NCC window: 10 mm in the end
CLIP = 1.0  # gradient norm
GAMMA = 0.3  # log-range of the random contrast change that the network, not the cost, sees
VALIDATE_EVERY = 150  # steps


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description="Train the shipped registration network.")
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop (resumably) after")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    train(**vars(parser.parse_args()))


def train(data: Path, out: Path, *, minutes: float, device: str, seed: int) -> None:
    """Minimise −NCC(f, m∘exp(v)) − NCC(m, f∘exp(−v)) + λ‖∇v‖² over random pairs of scans."""
    started = time.monotonic()
    prepared = np.load(data)
    scans = torch.from_numpy(prepared["images"]).to(device)
    grid = Grid(scans.shape[1:], prepared["affine"])
    torch.manual_seed(seed)
    model = Model.build(ARCHITECTURE, Recipe(grid), card={"seed": seed, "smoothness": SMOOTHNESS})
    network = cast(VelocityPyramid, channels_last(model.network.to(device)))
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=1e-4)
    schedule = LambdaLR(optimizer, rate)
    first = resume(out, network, optimizer, schedule)
    steps = sum(length for length, _ in PHASES)
    recent: deque[tuple[Tensor, Tensor]] = deque(maxlen=50)
    for step in range(first, steps):
        # Seeded by step, not by history: a resumed run sees what an unbroken one would have.
        draw = np.random.default_rng((seed, step))
        moving, fixed = pair(scans, prepared["train"], draw)
        finest = phase(step)
        with bfloat16_convolutions(torch.device(device)):
            velocity = network.velocity(
                recontrast(moving, draw), recontrast(fixed, draw), finest=finest
            )
        similarity = cost(moving, fixed, velocity, ARCHITECTURE["steps"])
        roughness = diffusion(velocity)
        optimizer.zero_grad(set_to_none=True)
        (similarity + SMOOTHNESS * roughness).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), CLIP)
        optimizer.step()
        schedule.step()
        recent.append((similarity.detach(), roughness.detach()))
        done = step + 1
        late = time.monotonic() - started > 60 * minutes
        if done % 25 == 0 or late:
            ncc, rough = torch.tensor(recent).mean(0).tolist()
            pace = (time.monotonic() - started) / (done - first)
            print(f"{done} ncc {ncc:.4f} rough {rough:.5f} {pace:.3f} s/step", flush=True)
        if done % VALIDATE_EVERY == 0 or done == steps or late:
            model.card.update(steps=done, of_steps=steps, **validate(model, prepared, scans))
            print(json.dumps(model.card), flush=True)
            model.save(out)
            state = {
                "step": done,
                "optimizer": optimizer.state_dict(),
                "schedule": schedule.state_dict(),
            }
            torch.save(state, out / "training.pt.part")
            os.replace(out / "training.pt.part", out / "training.pt")
        if late:
            return


def phase(step: int) -> int:
    """How many of the finest levels are left out at this step."""
    for length, finest in PHASES:
        if step < length:
            return finest
        step -= length
    return PHASES[-1][1]


def rate(step: int) -> float:
    """Learning rate over its peak: a warm-up in each phase, one cosine to 1 % over all of them."""
    steps, start = sum(length for length, _ in PHASES), 0
    for length, _ in PHASES:
        if start <= step < start + WARM_UP:
            return (step - start + 1) / WARM_UP
        start += length
    return 0.01 + 0.99 * (1 + math.cos(math.pi * step / steps)) / 2


def pair(scans: Tensor, people: np.ndarray, draw: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Two different scans, (1, 1, X, Y, Z) in [0, 1], mirrored left to right half of the time."""
    moving, fixed = (
        scans[i][None, None].float() / 255 for i in draw.choice(people, 2, replace=False)
    )
    return (moving.flip(2), fixed.flip(2)) if draw.random() < 0.5 else (moving, fixed)


def recontrast(scan: Tensor, draw: np.random.Generator) -> Tensor:
    """The scan with a random gamma, so that the network does not learn one scanner's contrast."""
    return scan ** math.exp(draw.uniform(-GAMMA, GAMMA))


def cost(moving: Tensor, fixed: Tensor, velocity: Tensor, steps: int) -> Tensor:
    """−NCC, in both directions, of the images averaged down to the velocity's resolution."""
    both = torch.cat([moving, fixed])
    small = F.avg_pool3d(both, both.shape[2] // velocity.shape[2])
    moved = field.warp(small, field.exponentiate(torch.cat([velocity, -velocity]), steps=steps))
    return local_ncc(small.flip(0), moved, window=WINDOW)


def resume(
    out: Path, network: nn.Module, optimizer: torch.optim.Optimizer, schedule: LambdaLR
) -> int:
    """Load the last checkpoint of ``out``, if there is one; returns the step to go on with."""
    if not (out / "training.pt").exists():
        return 0
    network.load_state_dict(Model.load(out).network.state_dict())
    state = torch.load(out / "training.pt", weights_only=True, map_location="cpu")
    optimizer.load_state_dict(state["optimizer"])
    schedule.load_state_dict(state["schedule"])
    return state["step"]


def validate(model: Model, prepared: Mapping[str, np.ndarray], scans: Tensor) -> dict[str, float]:
    """Mean Dice of the 30 structures and % of folded voxels over the ordered pairs of ``val``."""
    scores, folds = [], []
    labels = torch.from_numpy(prepared["labels"]).to(scans.device)
    for (a, moving), (b, fixed) in itertools.permutations(enumerate(prepared["val"]), 2):
        images = (scans[i][None, None].float() / 255 for i in (moving, fixed))
        displacement = model.deform(*images).displacement
        moved = field.warp(labels[a][None, None], displacement, nearest=True)[0, 0]
        scores.append(mean_dice(moved, labels[b]))
        inside = scans[fixed] > 0
        folds.append(
            (field.jacobian_determinant(displacement)[0][inside] <= 0).float().mean().item()
        )
    model.network.train()
    return {"val_dice": float(np.mean(scores)), "val_folds_percent": 100 * float(np.mean(folds))}


def mean_dice(a: Tensor, b: Tensor, structures: int = 30) -> float:
    """Mean over the structures 1..N of 2|A∩B| / (|A| + |B|)."""
    same = torch.bincount(a[a == b].flatten().long(), minlength=structures + 1)
    count_a, count_b = (
        torch.bincount(x.flatten().long(), minlength=structures + 1) for x in (a, b)
    )
    return (2 * same[1:].double() / (count_a + count_b)[1:]).nanmean().item()


if __name__ == "__main__":
    main()
