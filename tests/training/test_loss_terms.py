"""Losses by name: each is given what its arguments are called, ours and those of a user."""

import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from phantoms import smooth_field
from torch import Tensor
from torch._subclasses import FakeTensorMode

from voxwarp.errors import InputError
from voxwarp.fields import losses
from voxwarp.training.config import Config, build_config
from voxwarp.training.loss_terms import (
    INPUTS,
    LOSSES,
    LossTerm,
    build_terms,
    loss_function,
    options_of,
)


@pytest.fixture(scope="module")
def given() -> dict[str, Tensor]:
    """Another random tensor for each name."""
    draw = torch.Generator().manual_seed(1)
    images = {name: torch.rand(2, 1, 6, 7, 8, generator=draw) for name in ("fixed", "moved")}
    labels = {
        name: torch.rand(2, 3, 6, 7, 8, generator=draw) for name in ("fixed_labels", "moved_labels")
    }
    fields = {
        name: smooth_field(i, (6, 7, 8)).float().repeat(2, 1, 1, 1, 1)
        for i, name in enumerate(("displacement", "inverse", "regularity"))
    }
    voxels = {
        "log_odds": torch.randn(20, 4, generator=draw),
        "labels": torch.randint(4, (20, 8), generator=draw),
    }
    return {**images, **labels, **fields, **voxels}


@pytest.fixture
def module(tmp_path: Path, monkeypatch) -> Callable[[str], None]:
    """Make a module ``own_losses`` of a text, importable for one test."""

    def write(text: str) -> None:
        (tmp_path / "own_losses.py").write_text(textwrap.dedent(text))
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "own_losses", raising=False)

    yield write
    sys.modules.pop("own_losses", None)


def only(name: str, **options: object) -> LossTerm:
    (term,) = build_terms({name: options})
    return term


def config(losses: dict) -> Config:
    return build_config({"data": {"sources": [{"folder": "/x"}]}, "losses": losses})


def refusal(losses: dict) -> str:
    with pytest.raises(InputError) as caught:
        config(losses)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("ncc", {}, lambda g: losses.local_ncc(moved=g["moved"], fixed=g["fixed"])),
        (
            "ncc",
            {"window": 3},
            lambda g: losses.local_ncc(moved=g["moved"], fixed=g["fixed"], window=3),
        ),
        ("mse", {}, lambda g: losses.mse(moved=g["moved"], fixed=g["fixed"])),
        (
            "mutual_information",
            {"bins": 8},
            lambda g: losses.mutual_information(moved=g["moved"], fixed=g["fixed"], bins=8),
        ),
        ("diffusion", {}, lambda g: losses.diffusion(g["regularity"])),
        ("bending", {}, lambda g: losses.bending(g["regularity"])),
        ("dice", {}, lambda g: losses.soft_dice(moved=g["moved_labels"], fixed=g["fixed_labels"])),
        (
            "inverse_consistency",
            {},
            lambda g: losses.inverse_consistency(g["displacement"], g["inverse"]),
        ),
        (
            "segmentation",
            {"eps": 2.0},
            lambda g: losses.segmentation(g["log_odds"], g["labels"], eps=2.0),
        ),
    ],
)
def test_each_name_is_the_loss_of_what_it_is_called_with(name, options, expected, given) -> None:
    term = only(name, weight=3, **options)
    assert float(term(given)) == float(expected(given))
    assert term.weight == 3
    assert set(term.inputs) <= set(INPUTS)


def test_all_losses_are_tested_above() -> None:
    mark = test_each_name_is_the_loss_of_what_it_is_called_with.pytestmark[0]
    assert {case[0] for case in mark.args[1]} == set(LOSSES)


def test_a_weight_of_zero_drops_a_loss_and_one_is_the_default() -> None:
    made = build_terms({"ncc": {"weight": 0}, "mse": {}, "diffusion": {"weight": 0.25}})
    assert [(term.name, term.weight) for term in made] == [("mse", 1.0), ("diffusion", 0.25)]


def test_options_are_the_keyword_only_arguments() -> None:
    assert options_of(loss_function("ncc")) == {"window": 9, "eps": 1e-5}
    assert options_of(loss_function("diffusion")) == {}


# -------------------------------------------------------------------------------- A user's own

OWN = """
    def loss(inverse, moved, *, power: int = 2, gain=1.0, how="mean", twice=False, any=None):
        value = (inverse.abs() ** power).mean() + gain * moved.mean()
        return 2 * value if twice else value

    class Scaled:
        def __call__(self, fixed, *, by):
            return by * fixed.mean()

    scaled = Scaled()
    number = 5
    def stray(fixed, image): return fixed.mean()
    def many(*fixed): return fixed[0].mean()
    def anything(fixed, **more): return fixed.mean()
    def unnamed(fixed, /): return fixed.mean()
    def batch(fixed): return fixed.mean(dim=(1, 2, 3, 4))
    def plain(fixed): return 1.5
"""


def test_a_users_function_is_given_what_its_arguments_are_called(module, given) -> None:
    module(OWN)
    inverse, moved = given["inverse"], given["moved"]
    assert float(only("own_losses:loss")(given)) == float((inverse**2).mean() + moved.mean())
    options = {"power": 3, "gain": 2, "twice": True}
    expected = 2 * ((inverse.abs() ** 3).mean() + 2 * moved.mean())
    losses = config({"own_losses:loss": {"weight": 0.5, **options}}).losses
    (term,) = build_terms(losses)
    assert (float(term(given)), term.weight) == (float(expected), 0.5)
    assert float(only("own_losses:scaled", by=2.0)(given)) == float(2 * given["fixed"].mean())


def test_whole_numbers_of_ours_are_bounded_and_a_users_are_not(module) -> None:
    """A window of 5000 voxels is a mistake; an option of a user may be any number."""
    module(OWN)
    for power in (5000, -(10**15)):
        losses = config({"own_losses:loss": {"power": power}}).losses
        assert losses["own_losses:loss"]["power"] == power
    assert "'mutual_information': bins" in refusal({"mutual_information": {"bins": 5000}})
    assert "'ncc': window" in refusal({"ncc": {"window": 5001}})


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("own_losses:gone", {}, "it cannot be imported (AttributeError"),
        ("own_losses:number", {}, "this is not a function"),
        ("own_losses:stray", {}, "its parameter 'image' is not one of the inputs fixed, moved"),
        ("own_losses:many", {}, "its parameter 'fixed' is not one of"),
        ("own_losses:anything", {}, "its parameter 'more' is not one of"),
        ("own_losses:unnamed", {}, "its parameter 'fixed' is not one of"),
        ("own_losses:loss", {"powr": 3}, "has no option 'powr'; did you mean 'power'"),
        ("own_losses:loss", {"fixed": 3}, "has no option 'fixed'"),
        ("own_losses:loss", {"power": 2.5}, "power must be a value such as 2"),
        ("own_losses:loss", {"power": True}, "power must be a value such as 2"),
        ("own_losses:loss", {"gain": "much"}, "gain must be a value such as 1.0"),
        ("own_losses:loss", {"gain": float("inf")}, "gain must be a value such as 1.0"),
        ("own_losses:loss", {"how": 3}, "how must be a value such as 'mean'"),
        ("own_losses:loss", {"twice": 1}, "twice must be a value such as False"),
        ("own_losses:scaled", {}, "its option by has no default"),
    ],
)
def test_a_users_function_that_cannot_be_used_is_refused(name, options, words, module) -> None:
    module(OWN)
    message = refusal({name: options})
    assert words in message
    assert name in message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("def loss(", "SyntaxError"),
        ("raise RuntimeError('two\\nlines')", "RuntimeError: two lines"),
    ],
)
def test_a_module_that_cannot_be_imported_is_refused(text, words, module) -> None:
    module(text)
    assert words in refusal({"own_losses:loss": {}})


@pytest.mark.parametrize(
    ("name", "got"), [("own_losses:batch", "shape (2,)"), ("own_losses:plain", "float")]
)
def test_a_users_function_has_to_return_a_scalar(name, got, module, given) -> None:
    module(OWN)
    with pytest.raises(InputError, match="must return a tensor without axes, got ") as caught:
        only(name)(given)
    assert got in str(caught.value)


def test_what_is_written_in_c_cannot_tell_its_arguments() -> None:
    assert "builtins:max" in refusal({"builtins:max": {}})


# -------------------------------------------------------------------------------- Segmentation


def odds_and_labels(count: int, classes: int, behind: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Log-odds of random voxels, and labels of which the last class is never one."""
    draw = torch.Generator().manual_seed(seed)
    odds = torch.randn(count, classes, generator=draw, dtype=torch.float64)
    return odds, torch.randint(classes - 1, (count, behind), generator=draw)


def test_segmentation_is_cross_entropy_and_dice_written_out() -> None:
    odds, labels = odds_and_labels(50, 5, 8)
    p = np.exp(odds.numpy())
    p /= p.sum(axis=1, keepdims=True)
    truth = np.stack([(labels.numpy() == c).mean(axis=1) for c in range(5)], axis=1)
    entropy = -(truth * np.log(p)).sum(axis=1).mean()
    dice = [(2 * (p * truth)[:, c].sum() + 1) / (p[:, c].sum() + truth[:, c].sum() + 1)
            for c in range(4)]  # fmt: skip
    assert float(losses.segmentation(odds, labels)) == pytest.approx(entropy + 1 - np.mean(dice))


def test_the_loss_of_a_certain_and_correct_segmentation_is_zero() -> None:
    _, labels = odds_and_labels(50, 5, 1)
    sure = 100 * F.one_hot(labels[:, 0], 5).double()
    assert float(losses.segmentation(sure, labels)) == pytest.approx(0, abs=1e-6)
    assert float(losses.segmentation(-sure, labels)) > 50


def test_segmentation_has_the_derivatives_of_differences() -> None:
    odds, labels = odds_and_labels(12, 4, 8)
    assert torch.autograd.gradcheck(lambda z: losses.segmentation(z, labels), odds.requires_grad_())


def test_voxels_without_a_label_do_not_count_in_the_loss_of_a_segmentation() -> None:
    """A voxel of the network is left out if any voxel behind it is not labelled."""
    generator = torch.Generator().manual_seed(0)
    odds = torch.randn(60, 4, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 4, (60, 8), generator=generator)
    unlabelled = labels.clone()
    unlabelled[:20] = 4
    unlabelled[20:40, 3] = 4
    expected = losses.segmentation(odds[40:], labels[40:])
    assert float(losses.segmentation(odds, unlabelled)) == pytest.approx(float(expected))
    odds.requires_grad_()
    losses.segmentation(odds, torch.full_like(labels, 4)).backward()
    assert not odds.grad.any()


def test_the_loss_of_a_segmentation_can_be_predicted_without_contents() -> None:
    """The memory of a step is predicted with such tensors; a loss that fails would count as 0."""
    with FakeTensorMode():
        odds, labels = torch.empty(60, 4, requires_grad=True), torch.empty(60, 8, dtype=torch.uint8)
        assert losses.segmentation(odds, labels).requires_grad
