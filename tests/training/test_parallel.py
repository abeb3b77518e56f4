"""Two processes that learn together do what one does with all their pairs."""

import os
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from training import build_config, read_rows, tree_of, write_config, write_subjects
from voxwarp.data.scans import gather
from voxwarp.networks.model import Model
from voxwarp.training.cohort import prepare_cohort
from voxwarp.training.config import Config, read_config
from voxwarp.training.monitor import Monitor
from voxwarp.training.parallel import (
    World,
    any_of,
    average_gradients,
    join_world,
    mean_of,
    run_first_then_others,
)
from voxwarp.training.schedule import phase_at
from voxwarp.training.train import Learner, _batches, train

CPU = torch.device("cpu")
STEPS = 3
VELOCITY = {"both_directions": True, "compare_at": "velocity"}
CASES: dict[str, dict[str, Any]] = {
    "images": {"losses": {"ncc": {"window": 5}, "diffusion": {"weight": 0.1}}},
    "some have labels": {
        "losses": {"mse": {}, "dice": {}, "diffusion": {"weight": 0.1}},
        "seed": 4,  # of the first two pairs, one has labels
        "optimiser": {"learning_rate": 1e-7},
    },
    "all": {
        "losses": {"ncc": {"window": 5}, "dice": {"weight": 0.5}, "diffusion": {"weight": 0.1}},
        "augmentation": {"flip": 0.5, "gamma": 0.3, "rotation": 5.0},
        "sampling": {"structures": 2},
        # Small beside the fresh weights of the last layer, 1e-5: those whose gradient is nothing
        # but rounding come apart by whole steps of Adam.
        "optimiser": {"accumulate": 2, "ema": 0.5, "learning_rate": 1e-7},
        "phases": [{"steps": 2, "downsample": 2}, {"steps": 2}],
        **VELOCITY,
    },
    "a level rests": {
        **VELOCITY,
        "phases": [{"steps": 2, "leave_out": 1}, {"steps": 2}],
        "optimiser": {"learning_rate": 1e-7},
    },
}

#: Learns from every configuration, then trains with a time limit that only one process has.
TOGETHER = """
import os, sys
from pathlib import Path
import torch
import test_parallel as ours
from voxwarp.training.config import read_config
from voxwarp.training.parallel import join_world
from voxwarp.training.train import train

folder, second_port, rank = Path(sys.argv[1]), sys.argv[2], os.environ["RANK"]
with join_world(torch.device("cpu")) as world:
    assert (str(world.rank), world.size, world.is_first) == (rank, 2, rank == "0")
    ours.check_functions(world)
    for path in sorted(folder.glob("*.yaml")):
        steps = [*ours.steps_of(read_config(path), world)]
        torch.save(steps, folder / f"{path.stem}.{rank}.pt")
os.environ["MASTER_PORT"] = second_port
minutes = 0 if rank == "1" else float("inf")
config = read_config(folder / "images.yaml")
done = train(config, folder / f"run{rank}", device="cpu", minutes=minutes, show=False)
print(done.step, end="")
"""


def steps_of(config: Config, world: World) -> Iterator[dict[str, Any]]:
    """What each of the first steps gave: gradients, weights, values, names of the pairs."""
    cohort = prepare_cohort(config, gather(config.data, config.seed))
    learner = Learner.begin(config, cohort, CPU, world)
    batches = list(_first(config, learner, cohort))
    again, monitor = iter(batches), Monitor(Path("no"), config, show=False, write=False)
    for step in range(STEPS):
        values = learner.update(step, phase_at(config, step), again, monitor)
        gradients = {n: p.grad for n, p in learner.network.named_parameters()}
        yield {
            "values": values,
            "gradients": {n: g.clone() for n, g in gradients.items() if g is not None},
            "weights": {k: v.clone() for k, v in learner.network.state_dict().items()},
            "kept": {k: v.clone() for k, v in learner.kept.state_dict().items()},
            "pairs": [name for batch in batches for name in batch.numbers],
            "labelled": [bool(batch.labelled) for batch in batches],
        }


def _first(config: Config, learner: Learner, cohort: Any) -> Iterator[Any]:
    every = _batches(learner, cohort, None)
    for _ in range(STEPS * config.optimiser.accumulate):
        yield next(every)
    every.close()


def check_functions(world: World) -> None:
    """Of two processes; each has numbers of its own."""
    assert mean_of([1.0 + world.rank, 5.0], world, CPU) == [1.5, 5.0]
    assert any_of(world.rank == 1, world, CPU)
    assert any_of(world.rank == 0, world, CPU)
    assert not any_of(False, world, CPU)
    network = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 1))
    for number, p in enumerate(network[0].parameters()):
        p.grad = torch.full_like(p, 10.0 * number + world.rank)
    average_gradients(network, world)
    assert [float(p.grad.mean()) for p in network[0].parameters()] == [0.5, 10.5]
    assert all(p.grad is None for p in network[1].parameters())
    mark = Path(os.environ["MARK"])
    if world.is_first:
        run_first_then_others(world, lambda: mark.write_text("done"))
    else:
        assert run_first_then_others(world, mark.read_text) == "done"


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


@pytest.fixture(scope="module")
def subjects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four subjects to learn from, of whom one has no labels."""
    splits = (*("train",) * 4, "val", "val")
    return write_subjects(
        tmp_path_factory.mktemp("subjects") / "crops", splits=splits, unlabelled=(0,)
    )


@pytest.fixture(scope="module")
def together(subjects: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that two processes have left, of one pair each in a pass."""
    folder, port, second = tmp_path_factory.mktemp("two"), free_port(), free_port()
    for name, changes in CASES.items():
        write_config(folder / f"{name}.yaml", tree_of(subjects, **changes))
    about = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    about |= {"OMP_NUM_THREADS": "1", "MARK": str(folder / "mark"), "GLOO_SOCKET_IFNAME": "lo"}
    about["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    command = [sys.executable, "-c", textwrap.dedent(TOGETHER), str(folder), second]
    processes = [
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **about, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(2)
    ]
    try:
        printed = [process.communicate(timeout=180) for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, (_, err) in zip(processes, printed, strict=True):
        assert process.returncode == 0, err
    (folder / "steps done").write_text(" ".join(out for out, _ in printed))
    return folder


@pytest.mark.parametrize("case", CASES)
def test_two_processes_of_one_pair_are_one_of_two(together, case) -> None:
    one, other = (
        torch.load(together / f"{case}.{rank}.pt", weights_only=True) for rank in range(2)
    )
    config = read_config(together / f"{case}.yaml", ["optimiser.batch=2"])
    is_significant: dict[str, Any] = {}
    for step, alone in enumerate(steps_of(config, World())):
        # The processes agree to the bit, and have shared out the pairs.
        for what in ("gradients", "weights", "kept"):
            for name, value in one[step][what].items():
                torch.testing.assert_close(other[step][what][name], value, rtol=0, atol=0)
        assert one[step]["values"] == other[step]["values"]
        shared = [
            p for pairs in zip(one[step]["pairs"], other[step]["pairs"], strict=True) for p in pairs
        ]
        assert shared == alone["pairs"]
        # What one process has from all pairs is what each of them has.
        assert one[step]["gradients"].keys() == alone["gradients"].keys()
        largest = max(float(g.abs().max()) for g in alone["gradients"].values())
        for name, gradient in alone["gradients"].items():
            # The weights have come apart a little: only the first step is as good as exact.
            tolerance = 1e-5 if step == 0 else 1e-3
            found = one[step]["gradients"][name]
            torch.testing.assert_close(found, gradient, rtol=tolerance, atol=tolerance * largest)
            # Adam makes a whole step of a gradient that is nothing but rounding.
            chosen = is_significant[name] = is_significant.get(name, True) & (
                gradient.abs() > 1e-3 * largest
            )
            for what in ("weights", "kept"):
                two, all_ = one[step][what][name][chosen], alone[what][name][chosen]
                torch.testing.assert_close(two, all_, rtol=1e-4, atol=1e-4)
        assert one[step]["values"] == pytest.approx(alone["values"], rel=1e-3, abs=1e-6)


def test_that_pairs_with_and_without_labels_were_among_them(together) -> None:
    """Or else the test above would not say what it seems to."""
    one, other = (
        torch.load(together / f"some have labels.{rank}.pt", weights_only=True) for rank in range(2)
    )
    assert any(a != b for a, b in zip(one[0]["labelled"], other[0]["labelled"], strict=True))


def test_they_stop_together_and_only_the_first_writes(together) -> None:
    """The time of the second is up after a step; that of the first never."""
    assert (together / "steps done").read_text() == "1 1"
    assert (together / "run0" / "checkpoint.safetensors").exists()
    assert not (together / "run1").exists()


def test_alone_nothing_is_asked_of_others() -> None:
    with join_world(CPU) as world:
        assert world == World(rank=0, size=1)
        assert world.is_first
    assert mean_of([2.0], World(), CPU) == [2.0]
    assert run_first_then_others(World(), lambda: 5) == 5


@pytest.mark.slow
def test_torchrun_trains_what_one_process_would(subjects, tmp_path) -> None:
    tree = tree_of(subjects, **CASES["all"])
    config, out = write_config(tmp_path / "config.yaml", tree), tmp_path / "run"
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port"]
    command = [sys.executable, *launcher, free_port(), "-m", "voxwarp", "train", str(config)]
    done = subprocess.run(
        [*command, "-o", str(out), "--device", "cpu"],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("model.json") == 1
    tree["optimiser"] = {**tree["optimiser"], "batch": 2}
    train(build_config(tree), tmp_path / "alone", device="cpu", show=False)
    rows = [read_rows(tmp_path / name) for name in ("run", "alone")]
    for found, expected in zip(*rows, strict=True):
        for key in expected.keys() - {"seconds"}:
            numbers = [float(row[key] or "nan") for row in (found, expected)]
            assert numbers[0] == pytest.approx(numbers[1], rel=2e-3, abs=1e-5, nan_ok=True), key
    moving, fixed = torch.rand(2, 1, 1, 24, 24, 24, generator=torch.Generator().manual_seed(1))
    two, one = (Model.load(tmp_path / n / "last") for n in ("run", "alone"))
    found, expected = (each.deform(moving=moving, fixed=fixed).displacement for each in (two, one))
    assert (found - expected).abs().max() < 0.1 * expected.abs().max()
