"""The predicted memory of a training step, against the memory that a step takes."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from voxwarp.errors import InputError
from voxwarp.training import memory
from voxwarp.training.config import Config, build_config
from voxwarp.training.memory import PROGRAM, check_memory, predicted_memory

CPU = torch.device("cpu")
NETWORKS: dict[str, dict[str, Any]] = {
    "voxelmorph": {"name": "voxelmorph"},
    "pyramid": {"name": "pyramid", "channels": [8, 16, 16], "steps": 4},
}


def config_of(name: str, **more: Any) -> Config:
    tree = {"data": {"sources": [{"folder": "/x"}]}, "network": NETWORKS[name]}
    return build_config({**tree, "precision": "float32", **more})


def predicted(config: Config, shape: tuple[int, ...] = (32, 48, 32), structures: int = 0) -> float:
    return predicted_memory(config, shape, structures, CPU)


# The peak of the whole process, less what it had before the step.
STEP = """
    import json, sys
    import torch
    from voxwarp.training.config import build_config
    from voxwarp.networks.catalogue import build
    from voxwarp.training.objective import Objective
    from voxwarp.training.batch import Sample, collate

    def memory(name):
        for line in open("/proc/self/status"):
            if line.startswith(name):
                return 1024 * int(line.split()[1])

    torch.set_num_threads(1)
    config = build_config(json.loads(sys.argv[1]))
    shape, structures = json.loads(sys.argv[2]), int(sys.argv[3])
    network = build(config.network)
    optimizer = torch.optim.AdamW(network.parameters())
    objective = Objective(config, structures)

    def step(shape):
        images = [torch.rand(1, *shape) for _ in range(2)]
        labels = [torch.randint(0, structures + 1, shape).byte() for _ in range(2)]
        labels = labels if structures else [None, None]
        batch = collate([Sample(*images, *images, *labels, (0, 1), [])])
        objective(network, batch, config.phases[0])["loss"].backward()
        optimizer.step()

    step([16, 16, 16])  # what libraries need at first is in PROGRAM
    before = memory("VmRSS:")
    step(shape)
    print(memory("VmHWM:") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from /proc")
@pytest.mark.parametrize(
    ("name", "more", "structures"),
    [
        ("voxelmorph", {}, 0),
        ("pyramid", {"both_directions": True, "losses": {"ncc": {}, "dice": {}}}, 4),
    ],
)
def test_the_prediction_is_near_what_a_step_takes(name: str, more: dict, structures: int) -> None:
    config, shape = config_of(name, **more), [64, 80, 64]
    arguments = [config.model_dump_json(), json.dumps(shape), str(structures)]
    command = [sys.executable, "-c", textwrap.dedent(STEP), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    grown = predicted_memory(config, shape, structures, CPU) - PROGRAM
    assert int(done.stdout) > 80e6  # enough for the buffers of libraries not to matter
    assert 0.6 < grown / int(done.stdout) < 1.7


@pytest.mark.parametrize("name", NETWORKS)
def test_it_grows_with_the_voxels_and_with_the_batch(name: str) -> None:
    config = config_of(name, both_directions=True)
    small = predicted(config, (64, 96, 64))
    # Weights do not grow, and there are few of them.
    double = predicted(config, (128, 96, 64))
    assert double - PROGRAM == pytest.approx(2 * (small - PROGRAM), rel=0.1)
    four = config_of(name, both_directions=True, optimiser={"batch": 4})
    assert predicted(four, (64, 96, 64)) - PROGRAM == pytest.approx(4 * (small - PROGRAM), rel=0.1)


def test_passes_in_a_step_take_no_more() -> None:
    config = config_of("pyramid", optimiser={"accumulate": 8})
    assert predicted(config) == predicted(config_of("pyramid"))


def test_the_most_expensive_phase_counts() -> None:
    phases = [{"steps": 1, "downsample": 4}, {"steps": 1}, {"steps": 1, "downsample": 2}]
    one = [{"steps": 1, "downsample": 2}]
    several, full, coarse = (
        predicted(config_of("voxelmorph", **more), (64, 96, 64)) - PROGRAM
        for more in ({"phases": phases}, {}, {"phases": one})
    )
    assert several == full
    assert 5 < several / coarse < 8


def test_levels_that_rest_at_first_come_later() -> None:
    """Phases of one resolution differ in their levels: those that use all of them count."""
    phases = [{"steps": 1, "leave_out": 1}, {"steps": 1}]
    two, one = (
        predicted(config_of("pyramid", compare_at="velocity", phases=p))
        for p in (phases, phases[1:])
    )
    assert two == one


def test_each_structure_takes_its_share() -> None:
    config = config_of("voxelmorph", losses={"dice": {}})
    few, many = (predicted(config, structures=count) for count in (2, 12))
    voxels = 32 * 48 * 32
    assert 10 * voxels * 4 < many - few < 10 * voxels * 4 * 6
    drawn = config_of("voxelmorph", losses={"dice": {}}, sampling={"structures": 2})
    assert predicted(drawn, structures=12) == pytest.approx(few, rel=0.01)


def test_nothing_is_allocated_and_nothing_drawn() -> None:
    """Of half a terabyte, for which there is no machine, not a thousandth."""
    config, state = config_of("voxelmorph", optimiser={"batch": 8}), torch.get_rng_state()
    predicted(config)  # what libraries need at first
    before = resident()
    assert predicted(config, (512, 512, 512)) > 300e9
    assert resident() - before < 300e6
    assert torch.equal(torch.get_rng_state(), state)


def resident() -> int:
    """Bytes of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_too_little_memory_is_reported_with_both_numbers(monkeypatch) -> None:
    config = config_of("pyramid")
    need = predicted(config)
    monkeypatch.setattr(memory, "available_memory", lambda device: need)
    assert check_memory(config, (32, 48, 32), 0, CPU) == need
    monkeypatch.setattr(memory, "available_memory", lambda device: int(0.3e9))
    with pytest.raises(
        InputError, match=rf"{need / 1e9:.1f} GB of memory, but only 0\.3 GB are free"
    ):
        check_memory(config, (32, 48, 32), 0, CPU)


# ------------------------------------------------------------------------------ A user's own loss


def of_the_bright(fixed: Tensor, moved: Tensor) -> Tensor:
    """Looks at values: how many voxels there are depends on them."""
    bright = fixed > 0.5
    if not bright.any():
        return moved.mean()
    return (fixed - moved)[bright].square().mean()


def test_a_loss_that_looks_at_values_is_left_out(monkeypatch) -> None:
    module = ModuleType("own_losses")
    module.of_the_bright = of_the_bright  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "own_losses", module)
    losses = {"mse": {}, "diffusion": {}}

    own = predicted(config_of("voxelmorph", losses={**losses, "own_losses:of_the_bright": {}}))
    assert own == pytest.approx(predicted(config_of("voxelmorph", losses=losses)), rel=0.01)
