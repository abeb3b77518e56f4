"""The training loop: resumable to the bit, seeded by step, and it learns."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from phantoms import smooth_field
from voxwarp import field, metrics, train
from voxwarp.model import Model

SHAPE = (32, 32, 32)


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    """Four phantom scans of one 'anatomy' in four shapes, the last two labelled."""
    noise = np.random.default_rng(0).standard_normal(SHAPE)
    texture = gaussian_filter(noise, 2.5)
    base = torch.from_numpy((texture - texture.min()) / np.ptp(texture) * 255).float()[None, None]
    regions = (base // 64).to(torch.uint8)
    fields = [smooth_field(seed, SHAPE, amplitude=3).float() for seed in range(4)]
    scans = [field.warp(base, u, padding="border")[0, 0].to(torch.uint8) for u in fields]
    labels = [field.warp(regions, u, nearest=True, padding="border")[0, 0] for u in fields[2:]]
    path = tmp_path / "prepared.npz"
    np.savez(
        path,
        images=np.stack(scans),
        labels=np.stack(labels),
        train=np.arange(4),
        val=np.array([2, 3]),
        affine=np.eye(4),
    )
    return path


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, prepared: Path) -> Callable[..., None]:
    architecture = {"name": "pyramid", "channels": [4, 8, 8], "steps": 4}
    monkeypatch.setattr(train, "ARCHITECTURE", architecture)
    monkeypatch.setattr(train, "WARM_UP", 1)
    monkeypatch.setattr(train, "VALIDATE_EVERY", 2)

    def start(out: Path, phases: list[tuple[int, int]], minutes: float = 9.0) -> None:
        monkeypatch.setattr(train, "PHASES", phases)
        train.train(prepared, out, minutes=minutes, device="cpu", seed=3)

    return start


def test_a_resumed_run_reaches_the_weights_of_an_unbroken_one(run, tmp_path, capsys) -> None:
    phases = [(2, 1), (2, 0)]
    run(tmp_path / "whole", phases)
    run(tmp_path / "broken", phases, minutes=0)  # stops after one step
    while "of_steps" not in capsys.readouterr().out or not finished(tmp_path / "broken", 4):
        run(tmp_path / "broken", phases, minutes=0)
    whole, broken = (weights(tmp_path / name) for name in ("whole", "broken"))
    for name, value in whole.items():
        torch.testing.assert_close(broken[name], value, rtol=0, atol=0)


def test_it_learns(run, tmp_path, capsys) -> None:
    run(tmp_path / "first", [(1, 0)])
    before = Model.load(tmp_path / "first").card["val_dice"]
    run(tmp_path / "out", [(20, 1), (30, 0)])
    card = Model.load(tmp_path / "out").card
    assert 1 - card["val_dice"] < 0.8 * (1 - before)  # of the missing overlap, at least a fifth
    assert card["val_folds_percent"] == 0


def test_the_phases_follow_each_other(monkeypatch) -> None:
    monkeypatch.setattr(train, "PHASES", [(3, 2), (2, 0)])
    assert [train.phase(step) for step in range(6)] == [2, 2, 2, 0, 0, 0]


def test_the_rate_warms_up_in_each_phase_and_ends_at_one_percent(monkeypatch) -> None:
    monkeypatch.setattr(train, "PHASES", [(100, 1), (100, 0)])
    monkeypatch.setattr(train, "WARM_UP", 10)
    assert [train.rate(s) for s in (0, 4, 9)] == [0.1, 0.5, 1.0]
    assert train.rate(50) == pytest.approx(0.01 + 0.99 * (1 + np.cos(np.pi / 4)) / 2)
    assert train.rate(100) == 0.1
    assert train.rate(200) == pytest.approx(0.01)


def test_a_pair_is_of_two_people_and_mirrored_together() -> None:
    scans = torch.arange(3, dtype=torch.uint8).view(3, 1, 1, 1) * 10 + torch.arange(4).view(4, 1, 1)
    seen = set()
    for step in range(60):
        moving, fixed = train.pair(scans.byte(), np.array([0, 2]), np.random.default_rng(step))
        rows = [(255 * x).round().flatten().int().tolist() for x in (moving, fixed)]
        seen.add(tuple(tuple(row) for row in rows))
    low, high = (0, 1, 2, 3), (20, 21, 22, 23)
    there = {(low, high), (high, low)}
    assert seen == there | {(a[::-1], b[::-1]) for a, b in there}


def test_mean_dice_agrees_with_the_metric() -> None:
    draw = np.random.default_rng(1)
    a, b = (draw.integers(0, 5, (6, 7, 8)) for _ in range(2))
    expected = np.mean(list(metrics.dice(a, b).values()))
    found = train.mean_dice(torch.from_numpy(a), torch.from_numpy(b), structures=30)
    assert found == pytest.approx(expected)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(Model.load(folder).network.state_dict())


def finished(folder: Path, steps: int) -> bool:
    return Model.load(folder).card["steps"] == steps
