"""Kernels that a second process compiles."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from compile_log import LISTEN

from voxwarp.fields import compiled
from voxwarp.fields.kernels.forces import difference_force
from voxwarp.networks import ahead
from voxwarp.networks.forces import DifferenceForce

pytestmark = pytest.mark.skipif(not compiled.enabled(), reason="kernels are off or not installed")

# Of a whole registration: a pair of brains in memory, by the model without a network.
REGISTER = f"""{LISTEN}
import numpy as np, voxwarp
x, y, z = (np.indices((48, 52, 50)) - 25.0) / 20
grid = voxwarp.Grid((48, 52, 50), np.diag([3.0, 3, 3, 1]))
def brain(scale):
    inside = (x / scale) ** 2 + y**2 + z**2 < 1
    data = inside * (2 + np.sin(9 * x / scale) * np.cos(7 * y) + np.sin(8 * z))
    return voxwarp.Volume(data.astype(np.float32), grid, "brain")
voxwarp.register(brain(1.0), brain(0.9), "none", runtime=voxwarp.Runtime(cache=False))
print(*Compiled.names)
"""


@pytest.mark.slow
def test_a_registration_finds_all_kernels_compiled(tmp_path: Path) -> None:
    env = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "kernels")}
    subprocess.run([sys.executable, "-m", "voxwarp.networks.ahead"], check=True, env=env)
    done = subprocess.run(
        [sys.executable, "-c", REGISTER], capture_output=True, text=True, env=env, check=True
    )
    assert done.stdout.split() == []


@pytest.mark.slow
def test_a_registration_finds_all_kernels_in_a_folder_for_many_processors(tmp_path: Path) -> None:
    """As in a container, where nothing else can be written to."""
    ready = str(tmp_path / "ready")
    subprocess.run([sys.executable, "-m", "voxwarp.networks.ahead", ready], check=True)
    places = {"NUMBA_CACHE_DIR": "/dev/null/kernels", "VOXWARP_READY_KERNELS": ready}
    done = subprocess.run(
        [sys.executable, "-c", REGISTER],
        capture_output=True,
        text=True,
        env={**os.environ, **places},
        check=True,
    )
    assert done.stdout.split() == []


def test_the_kernel_of_maps_is_compiled_once_for_any_number_of_maps() -> None:
    displacement = torch.zeros(1, 3, 4, 4, 4)
    signatures = []
    for number in (1, 6):
        maps = torch.rand(1, number, 4, 4, 4)
        with torch.no_grad():
            DifferenceForce(moving=maps, fixed=maps, weight=1.0, ratio=1)(displacement)
        signatures.append(list(difference_force.signatures))
    assert signatures[0] == signatures[1]


@pytest.mark.parametrize(("kept", "threads"), [(True, 2), (False, 2), (True, 1)])
def test_it_starts_only_where_it_helps(monkeypatch, kept: bool, threads: int) -> None:
    """Not where its code is lost to others, nor where it takes the only thread."""
    started: list[list[str]] = []
    monkeypatch.setattr(ahead, "keeps_code", lambda: kept)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(ahead, "_started", [])
    monkeypatch.setattr(
        subprocess, "Popen", lambda command, **_: started.append(command[1:]) or command
    )
    ahead.start()
    ahead.start()
    assert started == ([["-m", "voxwarp.networks.ahead"]] if kept and threads > 1 else [])
