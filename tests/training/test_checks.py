"""Networks and losses that cannot be what is asked for are refused, before anything is built."""

import os
import re
import tracemalloc
from pathlib import Path

import pytest
import torch

from voxwarp.networks.catalogue import ARCHITECTURES, Architecture, Capabilities, build
from voxwarp.training.checks import check_losses, check_network, learning_from, with_defaults


@pytest.mark.parametrize(
    ("network", "words"),
    [
        ({}, "unknown name None; known are voxelmorph, diffeomorphic, pyramid, descent, anatomy"),
        ({"name": "piramid"}, "did you mean 'pyramid'"),
        ({"name": ["pyramid"]}, "unknown name ['pyramid']; did you mean 'pyramid'"),
        ({"name": "pyramid", "chanels": [8]}, "no argument 'chanels'; did you mean 'channels'"),
        ({"name": "pyramid", "encoder": [8]}, "pyramid has no argument 'encoder'"),
        ({"name": "pyramid", "self": 1}, "pyramid has no argument 'self'"),
        ({"name": "pyramid", "channels": 8}, "channels must be a list of whole numbers, got 8"),
        ({"name": "pyramid", "channels": []}, "1 to 16 numbers"),
        ({"name": "pyramid", "channels": [1] * 17}, "1 to 16 numbers"),
        ({"name": "pyramid", "channels": [8, 0]}, "from 1 to 4096"),
        ({"name": "pyramid", "channels": [8, 8.5]}, "from 1 to 4096"),
        ({"name": "pyramid", "channels": [8, True]}, "from 1 to 4096"),
        ({"name": "pyramid", "channels": [8, [8]]}, "from 1 to 4096"),
        ({"name": "pyramid", "channels": {"8": 8}}, "channels must be a list"),
        ({"name": "pyramid", "steps": [7]}, "steps must be a whole number, got [7]"),
        ({"name": "pyramid", "steps": 0}, "from 1 to 16"),
        ({"name": "pyramid", "steps": 17}, "from 1 to 16"),
        (
            {"name": "anatomy", "momentum": "0.5"},
            "momentum must be a number from 0 to 100, got '0.5'",
        ),
        ({"name": "anatomy", "momentum": 1.5}, "momentum must be at least 0 and below 1, got 1.5"),
        ({"name": "anatomy", "momentum": [0.5]}, "momentum must be a number from 0 to 100"),
        ({"name": "anatomy", "smoothing": -0.1}, "from 0 to 100"),
        ({"name": "anatomy", "smoothing": float("nan")}, "from 0 to 100"),
        ({"name": "anatomy", "force_smoothing": 1.3}, "force_smoothing must be a list of numbers"),
        ({"name": "anatomy", "force_smoothing": []}, "force_smoothing must be a list of numbers"),
        ({"name": "anatomy", "steps": [4, 5.5]}, "steps must be a list of whole numbers"),
        ({"name": "pyramid", "steps": 10**5000}, "steps must be a whole number from 1 to 16"),
        ({"name": "voxelmorph", "steps": 7}, "voxelmorph has no argument 'steps'"),
        ({"name": "voxelmorph", "decoder": [8] * 5}, "decoder must have 6 numbers or more"),
        ({"name": "voxelmorph", "encoder": [8] * 5}, "decoder must have 7 numbers or more"),
        ({"name": "diffeomorphic", "decoder": [8] * 3}, "decoder must have 4 numbers or more"),
    ],
)
def test_a_network_that_cannot_be_is_refused(network: dict, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        check_network(network)


def test_a_decoder_that_is_accepted_reaches_the_images() -> None:
    """The least decoders: the displacement has the size of the images, the velocity half of it."""
    moving, fixed = torch.zeros(2, 1, 1, 8, 8, 8)
    for name, least in (("voxelmorph", 4), ("diffeomorphic", 2)):
        network = {"name": name, "encoder": [2, 3], "decoder": [2] * least}
        check_network(network)
        assert build(network)(moving=moving, fixed=fixed).displacement.shape == (1, 3, 8, 8, 8)


def test_a_huge_network_is_refused_before_there_is_memory_for_it() -> None:
    """It would have 50 000 million weights, which are 200 GB."""
    network = {"name": "voxelmorph", "encoder": [4096] * 14, "decoder": [4096] * 16}
    check_network({"name": "voxelmorph"})
    tracemalloc.start()
    before = resident()
    with pytest.raises(ValueError, match="million weights are too many"):
        check_network(network)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20e6
    assert resident() - before < 100e6


def resident() -> int:
    """Bytes of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize(
    ("losses", "words"),
    [
        (
            {"nncc": {}},
            "unknown loss 'nncc' (your own is written module:function); did you mean 'ncc'?",
        ),
        ({"ncc": {"windw": 5}}, "ncc has no option 'windw'; did you mean 'window'"),
        ({"mse": {"window": 5}}, "mse has no option 'window'"),
        ({"ncc": {"wieght": 5}}, "did you mean 'weight'"),
        ({"ncc": {"weight": -1}}, "ncc.weight must be from 0 to 1e12"),
        ({"ncc": {"weight": float("nan")}}, "ncc.weight must be from 0 to 1e12"),
        ({"ncc": {"weight": float("inf")}}, "ncc.weight must be from 0 to 1e12"),
        ({"ncc": {"weight": 10**5000}}, "ncc.weight must be from 0 to 1e12"),
        ({"ncc": {"weight": True}}, "ncc.weight must be a number"),
        ({"ncc": {"weight": "heavy"}}, "ncc.weight must be a number"),
        ({"ncc": {"weight": 0}, "dice": {"weight": 0.0}}, "must have a weight above 0"),
        ({}, "must have a weight above 0"),
        ({"diffusion": {}}, "no loss compares images or labels (diffusion)"),
        ({"bending": {}, "inverse_consistency": {}}, "(bending, inverse_consistency)"),
        ({"ncc": {"weight": 0}, "diffusion": {}}, "no loss compares"),
        ({"ncc": {"window": "five"}}, "'ncc': window must be a value such as 9"),
        ({"ncc": {"window": True}}, "'ncc': window"),
        ({"ncc": {"window": 5.0}}, "'ncc': window"),
        ({"ncc": {"window": 10**9 + 1}}, "'ncc': window"),
        ({"ncc": {"window": 4}}, "window must be an odd number"),
        ({"ncc": {"eps": float("nan")}}, "'ncc': eps"),
        ({"mutual_information": {"bins": 3}}, "bins must be at least 4"),
        ({"nobody:loss": {}}, "it cannot be imported (ModuleNotFoundError"),
        ({"math:pi": {}}, "this is not a function"),
        ({":": {}}, "or module:function"),
    ],
)
def test_a_loss_that_cannot_be_is_refused(losses: dict, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        check_losses(losses)


def test_networks_are_listed_by_what_they_learn_from() -> None:
    assert learning_from("images") == ["voxelmorph", "diffeomorphic", "pyramid"]
    assert learning_from("labels") == ["anatomy"]
    assert learning_from("images", "labels", "nothing") == list(ARCHITECTURES)


def test_defaults_are_lists_as_files_have_them() -> None:
    assert with_defaults({"name": "pyramid", "steps": 3}) == {
        **{"name": "pyramid", "channels": [8, 16, 32, 32, 32], "steps": 3},
    }


def test_a_network_that_wants_more_than_two_images_is_refused(monkeypatch) -> None:
    """Pairs have none of it: better than a failure in the first step."""
    wanting = Architecture(build, Capabilities(further_inputs=("mask", "fixed_mask")))
    monkeypatch.setitem(ARCHITECTURES, "masked", wanting)
    with pytest.raises(ValueError, match="masked needs mask, fixed_mask, which the pairs"):
        check_network({"name": "masked"})
