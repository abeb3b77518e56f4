"""A training that starts from the weights of another model."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from runs import CPU, DIFFEOMORPHIC, PYRAMID, VOXELMORPH, cohort_of, run, weights_of

from training import config_of
from voxwarp.data.scans import gather
from voxwarp.errors import InputError
from voxwarp.networks.model import Model
from voxwarp.preparation.recipe import Recipe
from voxwarp.space.grid import Grid
from voxwarp.training.config import read_config
from voxwarp.training.inspection import check_beforehand
from voxwarp.training.parallel import World
from voxwarp.training.start import read_start
from voxwarp.training.train import Learner

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.usefixtures("memory_suffices")


def test_it_goes_on_from_the_weights_of_another_model(subjects, brief) -> None:
    config = config_of(subjects, start_from=str(brief))
    learner = Learner.begin(config, cohort_of(config), CPU, World())
    expected = weights_of(Model.load(brief).network)
    torch.testing.assert_close(weights_of(learner.network), expected, rtol=0, atol=0)
    other = Learner.begin(config_of(subjects), cohort_of(config), CPU, World())
    assert not torch.equal(weights_of(other.network), expected)


def test_another_architecture_cannot_be_gone_on_from(subjects, brief, tmp_path) -> None:
    config = config_of(subjects, start_from=str(brief), network={**PYRAMID, "channels": [4, 8]})
    with pytest.raises(InputError, match=r"start_from .*\[4, 8, 8\].*\[4, 8\]"):
        run(config, tmp_path / "run")
    with pytest.raises(InputError, match="unknown model"):
        run(config_of(subjects, start_from=str(tmp_path / "none")), tmp_path / "run")


@pytest.mark.parametrize("name", ["any", "default-fused"])
def test_ready_configurations_fit_the_models_that_they_start_from(name: str) -> None:
    config = read_config(ROOT / "configs" / f"{name}.yaml")
    assert read_start(config).spacing == 1


@pytest.mark.parametrize(
    ("theirs", "ours", "fits"),
    [
        ({"name": "pyramid"}, {"name": "pyramid", "channels": [8, 16, 32, 32, 32]}, True),
        (PYRAMID, {**PYRAMID, "steps": 5}, True),
        (PYRAMID, {"name": "pyramid", "channels": [4, 8, 8]}, True),
        (
            {"name": "voxelmorph", "encoder": [16, 32, 32, 32]},
            {"name": "voxelmorph", "decoder": [32, 32, 32, 32, 8, 8]},
            True,
        ),
        (PYRAMID, {**PYRAMID, "channels": [4, 8, 16]}, False),
        ({"name": "pyramid"}, PYRAMID, False),
        (DIFFEOMORPHIC, {**VOXELMORPH, "decoder": [16] * 4}, False),
    ],
)
def test_weights_fit_where_networks_differ_in_words_alone(
    subjects, tmp_path, theirs, ours, fits
) -> None:
    """In defaults that are spelt out, and in the steps of the exponential, which has no weights."""
    torch.manual_seed(1)
    made = Model.build(theirs, Recipe(Grid((24, 24, 24), np.eye(4))))
    made.save(tmp_path / "made")
    config = config_of(subjects, network=ours, start_from=str(tmp_path / "made"))
    scans = gather(config.data, config.seed)
    if not fits:
        with pytest.raises(InputError, match="its network is"):
            check_beforehand(config, scans, CPU)
        return
    check_beforehand(config, scans, CPU)
    cohort = cohort_of(config)
    learner = Learner.begin(config, cohort, CPU, World())
    torch.testing.assert_close(weights_of(learner.network), weights_of(made.network))
    assert learner.model(cohort, config.phases[0]).architecture == config.network


@pytest.mark.parametrize(("before", "after"), [(2.0, 1.0), (1.0, 1.0), (0.75, 1.5)])
def test_displacements_keep_their_length_on_another_grid(subjects, tmp_path, before, after) -> None:
    """A displacement of one voxel of 2 mm is one of two voxels of 1 mm."""
    torch.manual_seed(1)
    made = Model.build(VOXELMORPH, Recipe(Grid((24, 24, 24), np.diag([*[before] * 3, 1]))))
    torch.nn.init.normal_(made.network.unet.flow.weight)
    made.save(tmp_path / "made")
    config = config_of(subjects, network=VOXELMORPH, start_from=str(tmp_path / "made"))
    cohort = cohort_of(config)
    recipe = replace(cohort.recipe, grid=Grid((24, 24, 24), np.diag([*[after] * 3, 1])))
    learner = Learner.begin(config, replace(cohort, recipe=recipe), CPU, World())
    pair = {"moving": torch.rand(1, 1, 16, 16, 16), "fixed": torch.rand(1, 1, 16, 16, 16)}
    with torch.no_grad():
        found, expected = learner.network(**pair), made.network(**pair)
    voxels = expected.displacement * (before / after)
    assert voxels.abs().max() > 0.1
    torch.testing.assert_close(found.displacement, voxels)


@pytest.mark.parametrize("network", [VOXELMORPH, DIFFEOMORPHIC, PYRAMID], ids=lambda n: n["name"])
def test_displacements_keep_their_length_in_a_finer_phase(subjects, tmp_path, network) -> None:
    phases = [{"steps": 1, "downsample": 2}, {"steps": 1}]
    still = {"learning_rate": 1e-12, "weight_decay": 0.0, "ema": 0.5}
    config = config_of(subjects, network=network, phases=phases, optimiser=still)
    first = Learner.begin(config, cohort_of(config), CPU, World()).network
    run(config, tmp_path / "run")
    last = Model.load(tmp_path / "run" / "last").network
    layers = zip(first.last_layers, last.last_layers, strict=True)
    for before, after in layers:
        torch.testing.assert_close(after.weight, 2 * before.weight, rtol=1e-4, atol=1e-9)
    assert len(first.last_layers) == len(network.get("channels", [0]))
