"""Checkpoints: a training continues to the last bit, and a damaged file is refused as a whole."""

import json
import os
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from voxwarp import _files
from voxwarp.errors import InputError
from voxwarp.networks.catalogue import build
from voxwarp.networks.diffeomorphic import DiffeomorphicVoxelMorph
from voxwarp.networks.pyramid import VelocityPyramid
from voxwarp.training.checkpoint import (
    FORMAT,
    NAME,
    TrainingState,
    load_checkpoint,
    save_checkpoint,
    saved_config,
)

CONFIG = {"seed": 3, "task": "ä\n", "rates": [1e-3, None]}
PROGRESS = TrainingState(7, {"val_dice": 1 / 3, "step": 5}, 2, 0.1, {"val_dice": 0.2})


def small(seed: int, channels: tuple[int, ...] = (2, 3)) -> nn.Module:
    torch.manual_seed(seed)
    return VelocityPyramid(channels, steps=2)


def adam(network: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(network.parameters(), lr=1e-2, weight_decay=0.1)


def learn(network: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    """Steps down a slope that each weight has."""
    for step in range(steps):
        optimizer.zero_grad()
        values = torch.cat([p.flatten() for p in network.parameters()])
        (values - torch.linspace(-1, 1, len(values))).square().sum().mul(step + 1).backward()
        optimizer.step()


def weights(network: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in network.parameters()])


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """Folder of a checkpoint after three steps, with another network beside."""
    network = small(1)
    optimizer = adam(network)
    learn(network, optimizer, 3)
    save_checkpoint(tmp_path, PROGRESS, CONFIG, optimizer, network=network, kept=small(2))
    return tmp_path


def test_a_training_goes_on_to_the_last_bit(saved: Path) -> None:
    unbroken = small(1)
    first = adam(unbroken)
    learn(unbroken, first, 3)
    network, kept = small(8), small(9)
    optimizer = adam(network)
    learn(network, optimizer, 1)  # moments of its own, which have to go
    state = load_checkpoint(saved, optimizer, network=network, kept=kept)
    assert state == PROGRESS
    assert torch.equal(weights(network), weights(unbroken))
    assert torch.equal(weights(kept), weights(small(2)))
    for _ in range(3):
        learn(network, optimizer, 1)
        learn(unbroken, first, 1)
        assert torch.equal(weights(network), weights(unbroken))
    # The moments matter: without them it goes elsewhere.
    fresh = small(1)
    learn(fresh, adam(fresh), 3)
    learn(fresh, adam(fresh), 3)
    assert not torch.equal(weights(fresh), weights(unbroken))


def test_the_rate_of_the_step_is_left_alone(saved: Path) -> None:
    network = small(1)
    optimizer = adam(network)
    optimizer.param_groups[0]["lr"] = 0.5
    load_checkpoint(saved, optimizer, network=network, kept=small(1))
    assert optimizer.param_groups[0]["lr"] == 0.5


def test_an_optimiser_without_moments_can_be_kept(tmp_path: Path) -> None:
    network = small(1)
    save_checkpoint(tmp_path, TrainingState(), {}, adam(network), network=network)
    other = small(2)
    assert load_checkpoint(tmp_path, adam(other), network=other) == TrainingState()
    assert torch.equal(weights(other), weights(network))


def test_the_configuration_is_found_again(saved: Path) -> None:
    assert saved_config(saved) == CONFIG


def test_the_file_is_safetensors_and_json_and_no_pickle(saved: Path) -> None:
    content = (saved / NAME).read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    about = json.loads(header.pop("__metadata__")["voxwarp"])
    assert about == {"format": FORMAT, "progress": vars(PROGRESS), "config": CONFIG}
    # All that follows the header is numbers, each byte of which the header has a name for.
    ends = sorted(entry["data_offsets"] for entry in header.values())
    assert ends[0][0] == 0
    assert all(a[1] == b[0] for a, b in zip(ends, ends[1:], strict=False))
    assert ends[-1][1] == len(content) - 8 - length
    assert {key.split("/")[0] for key in header} == {"network", "kept", "optimizer"}


# -------------------------------------------------------------------------------------- Damage


def refusal(folder: Path, **networks: nn.Module) -> str:
    network = networks.pop("network", None) or small(1)
    with pytest.raises(InputError) as caught:
        load_checkpoint(folder, adam(network), network=network, **networks)
    message = str(caught.value)
    assert message.startswith(f"checkpoint {folder / NAME}: ")
    assert len(message.splitlines()) == 1
    return message


@pytest.mark.parametrize("share", [0.0, 0.0001, 0.01, 0.5, 0.999])
def test_a_truncated_file_is_refused(saved: Path, share: float) -> None:
    path = saved / NAME
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    refusal(saved)
    with pytest.raises(InputError, match="it cannot be read"):
        saved_config(saved)


@pytest.mark.parametrize(
    "content", [b"PK\x03\x04", b"\xff" * 100, struct.pack("<Q", 2) + b"{}", b"\0" * 64]
)
def test_another_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / NAME).write_bytes(content)
    refusal(tmp_path)
    with pytest.raises(InputError, match="it cannot be read"):
        saved_config(tmp_path)


@pytest.mark.parametrize(
    "about",
    ["", "[]", "{}", "3", '{"format": "voxwarp-checkpoint-1", "progress": {"stop": 3}}',
     '{"format": "voxwarp-checkpoint-9", "progress": {}, "config": {}}'],
)  # fmt: skip
def test_a_header_of_something_else_is_refused(tmp_path: Path, about: str) -> None:
    tensors = {f"network/{k}": v for k, v in small(1).state_dict().items()}
    save_file(tensors, tmp_path / NAME, metadata={"voxwarp": about})
    refusal(tmp_path)
    with pytest.raises(InputError, match="it cannot be read"):
        saved_config(tmp_path)


def test_no_file_is_refused(tmp_path: Path) -> None:
    assert "it cannot be read" in refusal(tmp_path)


@pytest.mark.parametrize(
    "network", [small(1, (2, 4)), small(1, (2, 3, 3)), DiffeomorphicVoxelMorph([2], [2])]
)
def test_a_checkpoint_of_another_network_is_refused(saved: Path, network: nn.Module) -> None:
    refusal(saved, network=network)


def test_a_checkpoint_without_the_average_is_refused(tmp_path: Path) -> None:
    network = small(1)
    save_checkpoint(tmp_path, TrainingState(), {}, adam(network), network=network)
    refusal(tmp_path, kept=small(1))


# ------------------------------------------------------------------------------------ Atomicity


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_the_former_file_stays_where_writing_fails(saved: Path, broken: str, monkeypatch) -> None:
    before = (saved / NAME).read_bytes()

    def fail(*_: Any) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(_files.os, broken, fail)
    network = small(5)
    with pytest.raises(InputError, match="No space left"):
        save_checkpoint(saved, TrainingState(8), {}, adam(network), network=network)
    assert (saved / NAME).read_bytes() == before
    assert [path.name for path in saved.iterdir()] == [NAME]


def test_an_interruption_leaves_the_former_file(saved: Path, monkeypatch) -> None:
    before = (saved / NAME).read_bytes()

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(_files.os, "fsync", interrupted)
    network = small(5)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(saved, TrainingState(8), {}, adam(network), network=network)
    assert (saved / NAME).read_bytes() == before
    assert [path.name for path in saved.iterdir()] == [NAME]


# --------------------------------------------------------------------------- Earlier versions


def test_a_network_whose_weights_had_other_names_goes_on(tmp_path: Path) -> None:
    """Of anatomy, which has a segmentation today and was one with it before."""

    def anatomy(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return build({"name": "anatomy", "structures": 2, "channels": [2, 3]})

    network = anatomy(1)
    optimizer = adam(network)
    learn(network, optimizer, 2)
    save_checkpoint(tmp_path, PROGRESS, CONFIG, optimizer, network=network)
    tensors = load_file(tmp_path / NAME)
    about = {"format": FORMAT, "progress": vars(PROGRESS), "config": CONFIG}
    former = {
        key.replace("segmentation.network.", "recogniser.").replace("segmentation.", ""): value
        for key, value in tensors.items()
    }
    assert {"network/projection", "network/recogniser.log_scale"} <= former.keys()
    save_file(former, tmp_path / NAME, metadata={"voxwarp": json.dumps(about)})
    other = anatomy(5)
    rates = adam(other)
    assert load_checkpoint(tmp_path, rates, network=other) == PROGRESS
    learn(network, optimizer, 1)
    learn(other, rates, 1)
    assert torch.equal(weights(other), weights(network))


def test_a_header_of_an_earlier_version_is_read(saved: Path) -> None:
    """Losses were costs, a segmentation a recognition, and subjects people."""
    config = {"costs": {"recognition": {"weight": 2}, "ncc": {}}, "data": {"people": 3}, "seed": 1}
    progress = vars(PROGRESS) | {
        "best": {"val_cost": 0.5, "step": 5},
        "start": {"val_dice": 0.2, "val_cost": 0.7},
    }
    about = {"format": FORMAT, "progress": progress, "config": config}
    save_file(load_file(saved / NAME), saved / NAME, metadata={"voxwarp": json.dumps(about)})
    assert saved_config(saved) == {
        "losses": {"segmentation": {"weight": 2}, "ncc": {}},
        "data": {"subjects": 3},
        "seed": 1,
    }
    network, kept = small(8), small(9)
    state = load_checkpoint(saved, adam(network), network=network, kept=kept)
    assert state.best == {"val_loss": 0.5, "step": 5}
    assert state.start == {"val_dice": 0.2, "val_loss": 0.7}
    assert torch.equal(weights(kept), weights(small(2)))
