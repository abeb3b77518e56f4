"""The network that recognises structures: what it learns from, what it tells, what comes of it."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from phantoms import blobs
from torch import Tensor

from training import config_of, tree_of, write_people
from voxwarp.errors import InputError
from voxwarp.fields import losses
from voxwarp.fields.field import averaged, blocks
from voxwarp.networks.catalogue import build
from voxwarp.networks.model import Model
from voxwarp.networks.pair_descent import PairDescent
from voxwarp.networks.segmentation import SegmentationNetwork, StructureMaps
from voxwarp.preparation.recipe import Recipe
from voxwarp.training.batch import Sample, collate
from voxwarp.training.config import Phase, build_config
from voxwarp.training.objective import Objective
from voxwarp.training.train import train

SHAPE = (16, 24, 32)
SMALL = {"name": "anatomy", "structures": 4, "channels": [6, 8, 8]}


def drawn(count: int, classes: int, behind: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Log-odds of random voxels, and labels of which the last class is never one."""
    draw = torch.Generator().manual_seed(seed)
    odds = torch.randn(count, classes, generator=draw, dtype=torch.float64)
    return odds, torch.randint(classes - 1, (count, behind), generator=draw)


# ---------------------------------------------------------------------------------------- Cost


def test_recognition_is_cross_entropy_and_dice_written_out() -> None:
    odds, labels = drawn(50, 5, 8)
    p = np.exp(odds.numpy())
    p /= p.sum(axis=1, keepdims=True)
    truth = np.stack([(labels.numpy() == c).mean(axis=1) for c in range(5)], axis=1)
    entropy = -(truth * np.log(p)).sum(axis=1).mean()
    dice = [(2 * (p * truth)[:, c].sum() + 1) / (p[:, c].sum() + truth[:, c].sum() + 1)
            for c in range(4)]  # fmt: skip
    assert float(losses.recognition(odds, labels)) == pytest.approx(entropy + 1 - np.mean(dice))


def test_recognition_of_what_is_sure_and_right_is_zero() -> None:
    _, labels = drawn(50, 5, 1)
    sure = 100 * F.one_hot(labels[:, 0], 5).double()
    assert float(losses.recognition(sure, labels)) == pytest.approx(0, abs=1e-6)
    assert float(losses.recognition(-sure, labels)) > 50


def test_recognition_has_the_derivatives_of_differences() -> None:
    odds, labels = drawn(12, 4, 8)
    assert torch.autograd.gradcheck(lambda z: losses.recognition(z, labels), odds.requires_grad_())


# ----------------------------------------------------------------------------------- Objective


def test_blocks_are_the_voxels_behind_those_of_the_averaged_lattice() -> None:
    labels = torch.arange(2 * 4 * 6 * 8).view(2, 4, 6, 8)
    got = blocks(labels, 2).flatten(0, 3)
    means = averaged(labels[:, None].double(), 2).flatten()
    torch.testing.assert_close(got.double().mean(dim=1), means)
    assert got.flatten().sort().values.equal(labels.flatten())


def sample(seed: int) -> Sample:
    pair = [torch.from_numpy(blobs(s, SHAPE)).float()[None] for s in (seed, seed + 50)]
    labels = [(4 * image[0]).clamp(max=4).to(torch.uint8) for image in pair]
    return Sample(*pair, *pair, *labels, (seed, seed + 50), [])


def config(**sampling: object) -> object:
    return build_config(
        {
            "data": {"sources": [{"folder": "/x"}]},
            "network": SMALL,
            "costs": {"recognition": {"weight": 2.0}},
            "sampling": {"labelled": 1.0, **sampling},
            "precision": "float32",
        }
    )


def network(seed: int = 1) -> PairDescent:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build({**SMALL, "steps": [4, 4]})


def test_the_objective_looks_at_both_scans_of_every_pair() -> None:
    batch, learner = collate([sample(1), sample(2)]), network()
    values = Objective(config(), 4)(learner, batch, Phase(steps=1))
    parts = []
    for images, labels in ((batch.moving, batch.moving_labels), (batch.fixed, batch.fixed_labels)):
        for image, of_image in zip(images, labels, strict=True):
            segmentation = learner.segmentation.network
            embedded = segmentation(image[None])[0].flatten(1).T
            truth = blocks(of_image[None], 2).flatten(0, 3)
            parts.append((segmentation.classify(embedded), truth))
    odds, truth = (torch.cat(x) for x in zip(*parts, strict=True))
    torch.testing.assert_close(values["recognition"], losses.recognition(odds, truth))
    torch.testing.assert_close(values["loss"], 2 * values["recognition"])


def test_drawn_voxels_cost_what_all_do_in_the_mean() -> None:
    batch, learner = collate([sample(1)]), network()
    everything = Objective(config(), 4)(learner, batch, Phase(steps=1))["recognition"]
    torch.manual_seed(0)
    few = Objective(config(voxels=500), 4)
    with torch.no_grad():
        values = [float(few(learner, batch, Phase(steps=1))["recognition"]) for _ in range(10)]
    assert np.mean(values) == pytest.approx(float(everything.detach()), rel=0.03)
    assert np.std(values) > 0


# ------------------------------------------------------------------------------------- Network


def test_embeddings_have_length_one_and_do_not_depend_on_the_batch() -> None:
    segmentation = SegmentationNetwork((6, 8, 8), 5)
    images = torch.stack([sample(s).moving for s in (1, 2)])
    embedded = segmentation(images)
    torch.testing.assert_close(embedded.norm(dim=1), torch.ones(2, 8, 12, 16))
    torch.testing.assert_close(segmentation(images[1:]), embedded[1:], atol=1e-4, rtol=1e-4)


def test_the_finest_voxels_reach_the_network() -> None:
    """The average of each block is the same, and yet the answer is another."""
    segmentation, image = SegmentationNetwork((6, 8, 8), 5), sample(1).moving[None]
    checkers = (torch.arange(16).view(-1, 1, 1) + torch.arange(24).view(-1, 1)) % 2 * 0.2 - 0.1
    assert (segmentation(image) - segmentation(image + checkers)).abs().max() > 0.01


@pytest.mark.parametrize("factor", [2, 4])
def test_maps_are_the_projected_probabilities(factor: int) -> None:
    """On a coarser lattice, those of the mean of what was seen."""
    maps, image = network().segmentation, sample(1).fixed[None]
    embedded = maps.network(image)
    if factor == 4:
        embedded = embedded.unflatten(2, (4, 2)).unflatten(4, (6, 2)).unflatten(6, (8, 2))
        embedded = embedded.mean(dim=(3, 5, 7))
    p = maps.network.classify(embedded[0].flatten(1).T).softmax(dim=1)
    expected = (p @ maps.projection).T.view(1, -1, *embedded.shape[2:])
    torch.testing.assert_close(maps(image, factor), expected, atol=1e-4, rtol=1e-3)
    assert maps.weight == 3


def test_the_projection_keeps_distances_and_is_always_the_same() -> None:
    a, b = (StructureMaps(144, (6, 8), maps=12, weight=3).projection for _ in range(2))
    assert a.equal(b)
    distances = torch.cdist(a, a)[~torch.eye(145, dtype=torch.bool)]  # of sure classes: √2
    assert float(distances.mean()) == pytest.approx(2**0.5, rel=0.05)
    assert float(distances.min()) > 0.3


def test_what_is_recognised_aligns_what_intensities_cannot() -> None:
    """Two flat images, in which a network would know a structure, 3 voxels apart."""
    moving, fixed = torch.zeros(2, 1, 1, 48, 48, 48)
    moving[..., 4:-4, 4:-4, 4:-4] = fixed[..., 4:-4, 4:-4, 4:-4] = 0.5
    moving[..., 18:30, 18:30, 18:30], fixed[..., 21:33, 18:30, 18:30] = 0.51, 0.51

    class Knowing(StructureMaps):
        def forward(self, images: Tensor, factor: int) -> Tensor:
            return averaged((images > 0.505).float(), factor)

    knowing = build({"name": "anatomy", "structures": 4, "channels": [6, 8], "steps": [20, 20]})
    knowing.segmentation = Knowing(4, (6, 8), maps=1, weight=3)
    answer = knowing(moving, fixed).displacement
    inside = fixed[0, 0] > 0.505
    assert float(answer[0, 0][inside].mean()) == pytest.approx(-3, abs=0.8)
    assert float(answer[0, 1:, inside].mean()) == pytest.approx(0, abs=0.2)


def test_weights_are_saved_and_loaded_with_the_projection(tmp_path: Path) -> None:
    model = Model.build({**SMALL, "steps": [4, 4]}, Recipe())
    model.save(tmp_path / "m")
    again = Model.load(tmp_path / "m")
    pair = sample(1)
    images = pair.moving[None], pair.fixed[None]
    expected = model.deform(*images).displacement
    torch.testing.assert_close(again.deform(*images).displacement, expected, atol=1e-3, rtol=0)
    assert again.capabilities.obeys_smoothness


# --------------------------------------------------------------------------------------- Config


def refusal(**changes: object) -> str:
    tree = {
        "data": {"sources": [{"folder": "/x"}]},
        "network": SMALL,
        "costs": {"recognition": {}},
        "sampling": {"labelled": 1.0},
    }
    with pytest.raises(InputError) as caught:
        build_config({**tree, **changes})
    return str(caught.value)


def test_what_learns_to_recognise_learns_nothing_else() -> None:
    assert "cost recognition alone" in refusal(costs={"ncc": {}})
    assert "cost recognition alone" in refusal(costs={"ncc": {}, "recognition": {}})
    assert "recognition is for network anatomy" in refusal(network={"name": "pyramid"})
    assert "labelled: " in refusal(sampling={})
    assert "predicts no velocity" in refusal(compare_at="velocity")


def test_descent_has_nothing_to_learn() -> None:
    assert "no weights" in refusal(network={"name": "descent"}, costs={"ncc": {}})


# -------------------------------------------------------------------------------------- Training


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_people(tmp_path_factory.mktemp("people"))


TRAINING = {
    "network": {**SMALL, "steps": [4, 4]},
    "costs": {"recognition": {}},
    "sampling": {"labelled": 1.0, "voxels": 1000},
}


def test_a_network_learns_to_recognise(people: Path, tmp_path: Path) -> None:
    changed = {"phases": [{"steps": 40}], "validation": {"every": 40}}
    progress = train(config_of(people, **TRAINING, **changed), tmp_path / "run", show=False)
    learnt = Model.load(tmp_path / "run")
    fresh = train(
        config_of(people, **TRAINING, phases=[{"steps": 1}]), tmp_path / "fresh", show=False
    )
    assert progress.best["val_cost"] < 0.7 * fresh.best["val_cost"]
    assert isinstance(learnt.network, PairDescent)


def test_the_classes_are_those_of_the_labels(people: Path, tmp_path: Path) -> None:
    wrong = {**TRAINING, "network": {**SMALL, "structures": 7}}
    with pytest.raises(InputError, match="structures: 4 are wanted"):
        train(build_config(tree_of(people, **wrong)), tmp_path / "run", show=False)


def test_label_maps_are_wanted(tmp_path: Path) -> None:
    folder = write_people(tmp_path / "people", unlabelled=(0, 1, 2, 3, 4))
    with pytest.raises(InputError, match="label"):
        train(config_of(folder, **TRAINING), tmp_path / "run", show=False)
