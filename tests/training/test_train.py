"""The training loop: resumable to the bit, seeded by step, safe against what goes wrong; it learns.

What it losses and how scans are drawn is tested elsewhere (test_objective, test_sampling).
"""

import errno
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from runs import (
    CPU,
    DIFFEOMORPHIC,
    EVERYTHING,
    MODEL,
    PYRAMID,
    VOXELMORPH,
    Crash,
    Silent,
    assert_same_weights,
    await_change,
    cohort_of,
    crash_at,
    finish,
    gradient_of,
    late_of,
    logged,
    run,
    start,
    state_of,
    steps_of,
    weights_of,
)
from safetensors.torch import load_file

import training
from training import build_config, config_of, read_rows, tree_of, write_config, write_subjects
from voxwarp import _files, register
from voxwarp.errors import InputError
from voxwarp.fields import compiled
from voxwarp.measures.overlap import dice
from voxwarp.networks.model import Model
from voxwarp.preparation.recipe import Recipe
from voxwarp.space.grid import Grid
from voxwarp.space.volume import write_volume
from voxwarp.training.checkpoint import NAME, TrainingState
from voxwarp.training.cohort import Cohort, prepare_atlas, prepare_cohort
from voxwarp.training.config import Config
from voxwarp.training.monitor import Monitor
from voxwarp.training.parallel import World
from voxwarp.training.schedule import phase_at
from voxwarp.training.train import Learner, _batches, average_weights, train

pytestmark = pytest.mark.usefixtures("memory_suffices")


# ---------------------------------------------------------------------------------- Going on


def test_a_resumed_run_reaches_the_weights_of_an_unbroken_one(subjects, unbroken, tmp_path) -> None:
    config, out, steps = config_of(subjects, **EVERYTHING), tmp_path / "broken", []
    while not steps or steps[-1] < config.steps:
        steps.append(run(config, out, resume=True, minutes=0).step)
    assert steps == [1, 2, 3, 4]
    assert_same_weights(unbroken, out)
    assert logged(out) == logged(unbroken)
    assert len(logged(out)) == 4 + 2  # and two validations


def test_another_seed_leads_elsewhere(subjects, unbroken, tmp_path) -> None:
    """Or else the test above would compare nothing."""
    run(config_of(subjects, **EVERYTHING, seed=4), tmp_path / "run")
    with pytest.raises(AssertionError):
        assert_same_weights(unbroken, tmp_path / "run")


def test_a_finished_run_is_left_as_it_is(subjects, unbroken, tmp_path) -> None:
    out = shutil.copytree(unbroken, tmp_path / "run")
    assert run(config_of(subjects, **EVERYTHING), out, resume=True).step == 4
    assert_same_weights(unbroken, out)
    assert logged(out) == logged(unbroken)


def test_rows_beyond_the_checkpoint_are_written_again_once(subjects, unbroken, tmp_path) -> None:
    """As after a kill between two checkpoints: step 3 was logged, and not saved."""
    tree = tree_of(subjects, **EVERYTHING)
    tree["log"] = {**tree["log"], "checkpoint": 100}
    config, out = build_config(tree), tmp_path / "run"
    run(config, out, minutes=0)
    run(config, out, minutes=0, resume=True)
    saved = (out / NAME).read_bytes()
    run(config, out, minutes=0, resume=True)
    (out / NAME).write_bytes(saved)
    with open(out / "log.csv", "a") as log:
        log.write("4,0.1,0.0")  # half a row
    run(config, out, resume=True)
    assert logged(out) == logged(unbroken)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_run_that_is_killed_twenty_times(subjects, tmp_path) -> None:
    """SIGKILL at instants by lots: most a few steps on, some while it reads or begins."""
    changes = {**EVERYTHING, "phases": [{"steps": 30, "downsample": 2}, {"steps": 50}]}
    changes["validation"] = {"every": 3}
    tree = tree_of(subjects, **changes)
    config, lots = write_config(tmp_path / "config.yaml", tree), np.random.default_rng(7)
    out, reached = tmp_path / "killed", [0]
    for kill in range(20):
        process = start(config, out, "--resume")
        if kill % 4:
            await_change(process, out / NAME)
            time.sleep(lots.uniform(0, 0.3))
        else:
            time.sleep(lots.uniform(0, 6))
        assert process.poll() is None, process.communicate()
        process.kill()
        process.communicate()
        if (out / NAME).exists():
            load_file(out / NAME)  # it is whole
        if (out / "log.csv").exists():
            reached.append(len({row["step"] for row in read_rows(out)}))
    assert reached[-1] < 80, "it was done too early for the kills to tell anything"
    finish(start(config, out, "--resume"))
    finish(start(config, tmp_path / "whole"))
    assert_same_weights(tmp_path / "whole", out)
    assert logged(out) == logged(tmp_path / "whole")
    assert not list(out.rglob("*.part"))


# ------------------------------------------------------------------------ What may go wrong


def failing(name: str, error: BaseException) -> Callable:
    """A function of ``os`` or ``open`` that fails on the checkpoint only."""
    real = open if name == "open" else getattr(os, name)

    def is_checkpoint(target: Any) -> bool:
        path = os.readlink(f"/proc/self/fd/{target}") if isinstance(target, int) else str(target)
        return NAME in path

    def fails(target: Any, *more: Any) -> Any:
        if not is_checkpoint(target):
            return real(target, *more)
        if name == "open":
            Path(target).write_bytes(b"half of it")
        raise error

    return fails


def break_writing(patch: pytest.MonkeyPatch, name: str, error: BaseException) -> None:
    if name == "open":
        patch.setattr(_files, "open", failing(name, error), raising=False)
    else:
        patch.setattr(os, name, failing(name, error))


FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    ("name", "error"), [("open", FULL), ("fsync", FULL), ("replace", FULL), ("replace", Crash())]
)
def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(
    subjects, unbroken, tmp_path, monkeypatch, name, error
) -> None:
    config, out = config_of(subjects, **EVERYTHING), tmp_path / "run"
    run(config, out, minutes=0)
    before = (out / NAME).read_bytes()
    with monkeypatch.context() as patch:
        break_writing(patch, name, error)
        with pytest.raises((Crash, InputError)) as caught:
            run(config, out, resume=True)
    if isinstance(error, OSError):
        assert "No space left" in str(caught.value)
        assert NAME in str(caught.value)
    assert (out / NAME).read_bytes() == before
    run(config, out, resume=True)
    assert_same_weights(unbroken, out)
    assert not list(out.rglob("*.part"))


def test_there_is_a_state_to_go_on_from_before_there_is_a_model(
    subjects, tmp_path, monkeypatch
) -> None:
    """A power cut in the first step, and one after the first model but before its checkpoint."""
    tree = tree_of(subjects)
    tree["log"] = {**tree["log"], "checkpoint": 100}
    config, out = build_config(tree), tmp_path / "run"
    with monkeypatch.context() as patch:
        crash_at(patch, 0)
        with pytest.raises(Crash):
            run(config, out)
    assert state_of(out).step == 0
    assert not MODEL & {path.name for path in out.rglob("*")}
    with monkeypatch.context() as patch:
        break_writing(patch, "replace", Crash())
        with pytest.raises(Crash):
            run(config, out, resume=True)
    assert (out / "model.json").exists()
    assert state_of(out).step == 0
    assert run(config, out, resume=True).step == 4
    run(config, tmp_path / "unbroken")
    assert_same_weights(tmp_path / "unbroken", out)


def test_a_loss_that_is_not_a_number_leaves_the_state_before_it(
    subjects, tmp_path, monkeypatch
) -> None:
    config = late_of(subjects, losses={"training:sour": {}, "diffusion": {"weight": 0.1}})
    run(config, tmp_path / "unbroken")
    monkeypatch.setitem(training.calls, "left", 2)
    with pytest.raises(InputError, match=r"^step 3: .* \(the state before this step is saved\)"):
        run(config, tmp_path / "run")
    assert state_of(tmp_path / "run").step == 2
    assert not (tmp_path / "run/model.json").exists()
    monkeypatch.setitem(training.calls, "left", 1 << 30)
    assert run(config, tmp_path / "run", resume=True).step == 4
    assert_same_weights(tmp_path / "unbroken", tmp_path / "run")


def test_scans_that_cannot_be_read_any_more_leave_the_state_before_them(
    subjects, tmp_path, monkeypatch
) -> None:
    config = late_of(subjects, data={"cache": str(tmp_path / "prepared")})
    run(config, tmp_path / "unbroken")
    cohort, step = cohort_of(config), Monitor.step

    def lose(self: Monitor, state: TrainingState, *more: Any) -> None:
        if state.step == 2:
            for number in cohort.indices("train"):
                cohort.files[number][0].unlink()
        step(self, state, *more)

    with monkeypatch.context() as patch:
        patch.setattr(Monitor, "step", lose)
        with pytest.raises(InputError, match=r"^10 pairs in a row cannot be read"):
            run(config, tmp_path / "run")
    assert state_of(tmp_path / "run").step == 2
    assert run(config, tmp_path / "run", resume=True).step == 4
    assert_same_weights(tmp_path / "unbroken", tmp_path / "run")


def test_the_minutes_count_from_the_beginning_of_the_preparation(
    subjects, brief, tmp_path, monkeypatch
) -> None:
    """Ten of them go by while scans are prepared."""
    passed = [0.0]

    def slowly(*given: Any, **more: Any) -> Cohort:
        passed[0] += 600
        return prepare_cohort(*given, **more)

    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + passed[0])
    monkeypatch.setattr("voxwarp.training.train.time", clock)
    monkeypatch.setattr("voxwarp.training.train.prepare_cohort", slowly)
    config = config_of(subjects)
    assert run(config, tmp_path / "enough", minutes=30).step == 4
    assert run(config, tmp_path / "run", minutes=9).step == 1
    assert run(config, tmp_path / "run", minutes=11, resume=True).step == 4
    assert_same_weights(brief, tmp_path / "run")


def test_a_loss_that_is_not_a_number_stops_before_the_weights_are_changed(
    subjects, tmp_path, monkeypatch
) -> None:
    config = config_of(subjects, losses={"training:sour": {}, "diffusion": {"weight": 0.1}})
    run(config, tmp_path / "unbroken")
    monkeypatch.setitem(training.calls, "left", 2)
    with pytest.raises(InputError, match=r"step 3: .*training:sour.* not a finite number"):
        run(config, tmp_path / "run")
    monkeypatch.setitem(training.calls, "left", 1 << 30)
    assert run(config, tmp_path / "run", resume=True).step == 4
    assert_same_weights(tmp_path / "unbroken", tmp_path / "run")


def test_a_network_that_moves_nothing_ends_the_training_unless_give_up_is_0(
    subjects, tmp_path
) -> None:
    changes = {"optimiser": {"learning_rate": 1e-9}, "phases": [{"steps": 3}]}
    stubborn = config_of(subjects, **changes, validation={"give_up": 2})
    with pytest.raises(InputError, match=r"raise optimiser\.learning_rate") as caught:
        run(stubborn, tmp_path / "run")
    assert "after 2 steps" in str(caught.value)
    patient = config_of(subjects, **changes, validation={"give_up": 0})
    assert run(patient, tmp_path / "run", resume=True).step == 3


def test_a_val_scan_that_is_damaged_meanwhile_is_skipped_and_counted(
    subjects, brief, tmp_path, monkeypatch, capsys
) -> None:
    config = config_of(subjects, data={"cache": str(tmp_path / "prepared")})
    cohort, step = cohort_of(config), Monitor.step
    damaged = cohort.files[cohort.indices("val")[0]][0]

    def damage(self: Monitor, state: TrainingState, *more: Any) -> None:
        if state.step == 3:
            damaged.write_bytes(damaged.read_bytes()[:1000])
        step(self, state, *more)

    monkeypatch.setattr(Monitor, "step", damage)
    state = train(config, tmp_path / "run", device="cpu")
    assert (state.step, state.skipped) == (4, 2)  # both pairs of the second validation
    said = [line for line in capsys.readouterr().err.splitlines() if "skipped;" in line]
    assert [str(damaged) in line for line in said] == [True, True]
    assert [row["step"] for row in read_rows(tmp_path / "run") if row["val_loss"]] == ["2"]
    torch.testing.assert_close(  # what is learnt is not changed by it
        load_file(tmp_path / "run/last/weights.safetensors"),
        load_file(brief / "last/weights.safetensors"),
        **{"rtol": 0, "atol": 0},
    )


def test_a_damaged_scan_is_left_out_with_a_warning(tmp_path, capsys) -> None:
    folder = write_subjects(tmp_path / "crops")
    whole = (folder / "t1/p1.nii.gz").read_bytes()
    (folder / "t1/p1.nii.gz").write_bytes(whole[: len(whole) // 2])
    train(config_of(folder), tmp_path / "run", device="cpu")
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    assert len(lines) == 1
    assert "p1.nii.gz" in lines[0]
    data = json.loads((tmp_path / "run" / "data.json").read_text())
    assert ["p1.nii.gz" in reason for reason in data["skipped"]] == [True]
    assert "p1.nii.gz" not in str(data["scans"])


# ------------------------------------------------------------------------------------- Steps


def test_two_passes_of_one_pair_are_one_pass_of_two(tmp_path) -> None:
    """Also of pairs of which some have labels."""
    folder = write_subjects(tmp_path / "crops", unlabelled=(0,))
    losses = {"ncc": {"window": 5}, "dice": {}, "diffusion": {"weight": 0.1}}
    gradients, sums = [], []
    for batch, accumulate in ((1, 2), (2, 1)):
        settings = {"batch": batch, "accumulate": accumulate, "clip": 0.0}
        ((learner, values),) = steps_of(config_of(folder, losses=losses, optimiser=settings), 1)
        gradients.append(gradient_of(learner))
        sums.append([values[name] for name in ("loss", *losses)])
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-7)
    assert sums[1] == pytest.approx(sums[0], rel=1e-5, abs=1e-7)


def test_the_gradient_is_clipped_and_reported_unclipped(subjects) -> None:
    ((free, _),) = steps_of(config_of(subjects, optimiser={"clip": 0.0}), 1)
    ((bound, values),) = steps_of(config_of(subjects, optimiser={"clip": 1e-3}), 1)
    norm = float(gradient_of(free).norm())
    assert norm > 1e-3
    assert values["gradient_norm"] == pytest.approx(norm, rel=1e-5)
    torch.testing.assert_close(gradient_of(bound), gradient_of(free) * 1e-3 / norm)


def test_the_average_of_the_weights_is_the_sum_of_their_past() -> None:
    """k_n = d^n w_0 + (1 − d) Σ d^(n − i) w_i, where it is no longer young."""
    decay, past = 0.75, torch.randn(9, 12, generator=torch.Generator().manual_seed(1))
    network, kept = torch.nn.Linear(4, 3, bias=False), torch.nn.Linear(4, 3, bias=False)
    kept.weight.data = past[0].view(3, 4).clone()
    for number, weights in enumerate(past[1:]):
        network.weight.data = weights.view(3, 4)
        average_weights(kept, network, decay, 1000 + number)
    powers = decay ** torch.arange(7.0, -1, -1)
    expected = decay**8 * past[0] + (1 - decay) * (powers[:, None] * past[1:]).sum(0)
    torch.testing.assert_close(kept.weight.data.flatten(), expected)


def test_what_is_kept_is_the_average_of_the_steps_taken(subjects) -> None:
    config = config_of(subjects, optimiser={"ema": 0.3})  # (1 + s) / (10 + s) is less up to s = 2
    torch.manual_seed(config.seed)
    recipe = Recipe(Grid((24, 24, 24), np.eye(4)))
    expected = weights_of(Model.build(config.network, recipe).network)
    for step, (learner, _) in enumerate(steps_of(config, 4)):
        decay = [1 / 10, 2 / 11, 3 / 12, 0.3][step]
        expected = decay * expected + (1 - decay) * weights_of(learner.network)
        torch.testing.assert_close(weights_of(learner.kept), expected)
        assert not torch.equal(weights_of(learner.network), expected)


def test_an_unlabelled_run_ends_with_a_model_of_the_last_phase(tmp_path) -> None:
    unlabelled = tuple(range(7))
    folder = write_subjects(tmp_path / "crops", unlabelled=unlabelled)
    phases = [{"steps": 2, "downsample": 2}, {"steps": 2}]
    losses = {"ncc": {"window": 3}, "diffusion": {}}  # coarse phantoms are more alike
    state = run(config_of(folder, phases=phases, losses=losses), tmp_path / "run")
    model = Model.load(tmp_path / "run")
    assert model.recipe.grid.shape == (24, 24, 24)
    assert "val_dice" not in state.best


# ---------------------------------------------------------------------------------- Learning


@pytest.mark.parametrize(
    ("loss", "network"),
    [
        *(("mse", PYRAMID), ("ncc", PYRAMID), ("mutual_information", PYRAMID)),
        *(("ncc", DIFFEOMORPHIC), ("ncc", VOXELMORPH)),
    ],
)
def test_each_similarity_grows_in_a_few_steps(pair, loss, network) -> None:
    """With the same two scans in each step."""
    losses = {loss: {}, "diffusion": {"weight": 1e-3}}
    tree = pair("centre", losses=losses, network=network, phases=[{"steps": 20}])
    config = build_config(tree)
    values = [each[loss] for each in atlas_steps(config, 20)]
    assert values[-1] < values[0] - 0.02 * abs(values[0])
    assert values[-1] == min(values)


@pytest.mark.skipif(not compiled.enabled(), reason="kernels are off or not installed")
@pytest.mark.parametrize("network", [PYRAMID, DIFFEOMORPHIC, VOXELMORPH])
def test_compiled_kernels_do_not_change_a_training(pair, network, monkeypatch) -> None:
    """But for rounding, which decides for plain PyTorch which slope a point beside a voxel has."""
    losses = {"ncc": {}, "diffusion": {"weight": 0.1}, "dice": {"weight": 0.5}}
    tree = pair(
        "centre", losses=losses, network=network, precision="float32", phases=[{"steps": 2}]
    )
    config = build_config(tree)
    compiled_steps = list(atlas_steps(config, 2))
    monkeypatch.setattr(compiled, "enabled", lambda: False)
    plain_steps = list(atlas_steps(config, 2))
    for name in ("loss", "ncc", "dice"):
        first, second = (
            [each[name] for each in pair] for pair in zip(compiled_steps, plain_steps, strict=True)
        )
        assert first[0] == pytest.approx(first[1], rel=2e-5)
        assert second[0] == pytest.approx(second[1], rel=0.02)


def atlas_steps(config: Config, number: int) -> Iterator[dict[str, float]]:

    cohort = cohort_of(config)
    learner = Learner.begin(config, cohort, CPU, World())
    batches = _batches(learner, cohort, prepare_atlas(config, cohort))
    for step in range(number):
        yield learner.update(step, phase_at(config, step), batches, Silent(config))


@pytest.fixture
def pair(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """A configuration of one scan and an atlas, to be overfitted."""

    def make(alignment: str, **changes: Any) -> dict[str, Any]:
        spread = 10.0 if alignment == "centre" else 0.0
        subjects = {"splits": ("train", "test"), "spread": spread, "amplitude": 3.5}
        folder = write_subjects(tmp_path / "pair", **subjects)
        rows = (folder / "scans.csv").read_text().splitlines()
        (folder / "scans.csv").write_text("\n".join(rows[:2]) + "\n")
        atlas = {"atlas": str(folder / "t1/p1.nii.gz")}
        atlas["atlas_labels"] = str(folder / "labels/p1.nii.gz")
        tree = tree_of(folder, **{"validation": {"every": 1000}, **changes})
        tree["preparation"]["alignment"] = alignment
        return {**tree, "sampling": {"mode": "atlas", **atlas}}

    return make


def overlap(folder: Path, model: Path | None) -> float:
    """Mean Dice of subject 0 on subject 1, after a registration, or where the middles meet."""
    moving, fixed = (str(folder / f"t1/p{i}.nii.gz") for i in (0, 1))
    labels, other = (str(folder / f"labels/p{i}.nii.gz") for i in (0, 1))
    target = np.asarray(nib.load(other).dataobj).astype(int)
    moved = np.asarray(nib.load(labels).dataobj).astype(int)
    if model is not None:
        moved = np.asarray(register(moving, fixed, model, labels=labels).warped_labels.data)
    return float(np.mean(list(dice(moved.astype(int), target).values())))


@pytest.mark.parametrize(
    ("alignment", "steps", "reached"), [("centre", 40, 0.94), ("header", 15, 0.91)]
)
def test_a_pair_learnt_by_heart_is_registered_as_a_user_would(
    pair, tmp_path, alignment, steps, reached
) -> None:
    """From 0.85; subjects whose headers are apart are brought together by their middles."""
    losses = {"ncc": {"window": 5}, "dice": {}, "diffusion": {"weight": 0.01}}
    settings = {"phases": [{"steps": steps}], "optimiser": {"learning_rate": 1e-2}}
    config, out = build_config(pair(alignment, losses=losses, **settings)), tmp_path / "run"
    run(config, out)
    rows = [row for row in read_rows(out) if row["loss"]]
    before, after = overlap(tmp_path / "pair", None), overlap(tmp_path / "pair", out)
    assert before < 0.86
    assert after > reached
    assert Model.load(out).recipe.alignment_name == alignment
    if alignment == "centre":
        assert float(rows[-1]["ncc"]) < -0.98
        assert float(rows[-1]["dice"]) < 0.09


@pytest.mark.slow
@pytest.mark.parametrize(
    "network",
    [
        {"network": PYRAMID, "both_directions": True, "compare_at": "velocity"},
        {"network": DIFFEOMORPHIC, "both_directions": True, "compare_at": "velocity"},
    ],
    ids=lambda network: network["network"]["name"],
)
def test_without_labels_it_learns_to_register_subjects_it_never_saw(network, tmp_path) -> None:
    """Of the overlap that is missing, a seventh at least; and nothing folds."""
    splits = ("train",) * 12 + ("val",) * 3
    folder = write_subjects(tmp_path / "crops", splits=splits, amplitude=3.5)
    steps = {"phases": [{"steps": 300}], "validation": {"every": 300, "pairs": 6}}
    settings = {"optimiser": {"learning_rate": 2e-3, "warm_up": 20}}
    state = run(config_of(folder, **network, **steps, **settings), tmp_path / "run")
    assert 1 - state.best["val_dice"] < 6 / 7 * (1 - state.start["val_dice"])
    assert state.best["val_folds_percent"] == 0


def test_a_model_of_another_template_keeps_it(brains, phantoms, tmp_path) -> None:
    """And is used without the file that it was trained with."""
    path = tmp_path / "own.nii.gz"
    write_volume(phantoms.template, path)
    tree = tree_of(brains, preparation={"alignment": str(path), "shape": [24] * 3, "spacing": 8})
    rows = "scan,labels,split\n" + "".join(
        f"t1/{name}.nii.gz,labels/{name}.nii.gz,train\n" for name in ("fixed", "moving")
    )
    (brains / "scans.csv").write_text(rows)
    run(build_config({**tree, "phases": [{"steps": 1}]}), tmp_path / "run")
    path.unlink()
    recipe = Model.load(tmp_path / "run").recipe
    assert recipe.template is not None
    np.testing.assert_allclose(recipe.template.image.data, phantoms.template.data, rtol=1e-6)
    assert recipe.grid.shape == (24, 24, 24)


# -------------------------------------------------------------------------------- Recognition

ANATOMY = {
    "network": {"name": "anatomy", "structures": 4, "channels": [6, 8, 8], "steps": [4, 4]},
    "losses": {"segmentation": {}},
    "sampling": {"labelled": 1.0, "voxels": 1000},
}


def test_a_network_learns_to_segment(subjects: Path, tmp_path: Path) -> None:
    changed = {"phases": [{"steps": 40}], "validation": {"every": 40}}
    state = run(config_of(subjects, **ANATOMY, **changed), tmp_path / "run")
    fresh = run(config_of(subjects, **ANATOMY, phases=[{"steps": 1}]), tmp_path / "fresh")
    assert state.best["val_loss"] < 0.7 * fresh.best["val_loss"]
    assert state.best["val_dice"] > state.start["val_dice"] + 0.02
    assert Model.load(tmp_path / "run").architecture == ANATOMY["network"]


def test_a_network_that_learned_from_mirrored_scans_is_told_what_they_show(
    subjects: Path, tmp_path: Path
) -> None:
    changed = {"phases": [{"steps": 1}], "augmentation": {"flip": 0.5}}
    run(config_of(subjects, **ANATOMY, **changed), tmp_path / "run")
    model = Model.load(tmp_path / "run")
    classes = [0, 1, 2, 3, 4]
    assert model.architecture["mirror"] == {"axis": 0, "classes": classes}
    assert model.network.segmentation.mirror == (0, classes)
    run(config_of(subjects, **ANATOMY, start_from=str(tmp_path / "run"), **changed), tmp_path / "2")


def test_the_classes_are_those_of_the_labels(subjects: Path, tmp_path: Path) -> None:
    wrong = {**ANATOMY, "network": {**ANATOMY["network"], "structures": 7}}
    with pytest.raises(InputError, match=r"structures must be 4, .* got 7"):
        run(config_of(subjects, **wrong), tmp_path / "run")


def test_label_maps_are_needed(tmp_path: Path) -> None:
    folder = write_subjects(tmp_path / "subjects", unlabelled=(0, 1, 2, 3, 4))
    with pytest.raises(InputError, match="needs at least 2 train subjects with labels"):
        run(config_of(folder, **ANATOMY), tmp_path / "run")
