"""Segmentation: embeddings, log-odds, and maps that are projected probabilities."""

from typing import Any

import numpy as np
import pytest
import torch
from phantoms import blobs
from torch import Tensor

from voxwarp.fields.field import averaged
from voxwarp.networks.catalogue import anatomy
from voxwarp.networks.pair_descent import PairDescent
from voxwarp.networks.segmentation import Mirror, Segmentation, SegmentationNetwork, StructureMaps

SHAPE = (16, 24, 32)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(1)


def image(seed: int) -> Tensor:
    """(1, 1, X, Y, Z), not zero anywhere."""
    return torch.from_numpy(blobs(seed, SHAPE))[None, None] + 0.01


def maps_of(structures: int = 4, **more: Any) -> StructureMaps:
    return StructureMaps(structures, (6, 8, 8), **{"maps": 6, "weight": 3, **more})


def test_embeddings_have_length_one_and_do_not_depend_on_the_batch() -> None:
    network, images = SegmentationNetwork((6, 8, 8), 5), torch.cat([image(s) for s in (1, 2)])
    with torch.inference_mode():
        embedded = network(images)
        torch.testing.assert_close(network(images[1:]), embedded[1:], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(embedded.norm(dim=1), torch.ones(2, 8, 12, 16))


def test_the_finest_voxels_reach_the_network() -> None:
    """Images whose blocks have the same averages, but whose embeddings differ."""
    network = SegmentationNetwork((6, 8, 8), 5)
    checkers = (torch.arange(16).view(-1, 1, 1) + torch.arange(24).view(-1, 1)) % 2 * 0.2 - 0.1
    with torch.inference_mode():
        assert (network(image(1)) - network(image(1) + checkers)).abs().max() > 0.01


def test_log_odds_are_scaled_cosines() -> None:
    network = SegmentationNetwork((6, 8), 5)
    torch.nn.init.normal_(network.classes.bias)
    embedded = torch.nn.functional.normalize(torch.randn(7, 6), dim=1)
    with torch.inference_mode():
        found = network.classify(embedded).numpy()
    vectors, bias = (p.detach().numpy() for p in (network.classes.weight, network.classes.bias))
    cosines = embedded.numpy() @ (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).T
    np.testing.assert_allclose(found, np.exp(2.5) * cosines + bias, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("factor", [2, 4])
def test_maps_are_the_projected_probabilities(factor: int) -> None:
    """At a larger factor, those of averaged embeddings."""
    maps, images = maps_of(), torch.cat([image(s) for s in (1, 51)])
    with torch.inference_mode():
        (found, unsure), embedded = maps(images, factor), maps.network(images)
        shown = embedded[..., 2::4, 2::4, 2::4].movedim(1, -1).flatten(1, 3)
        if factor == 4:
            embedded = embedded.unflatten(2, (4, 2)).unflatten(4, (6, 2)).unflatten(6, (8, 2))
            embedded = embedded.mean(dim=(3, 5, 7))
        for projected, sample in zip(found, embedded, strict=True):
            p = maps.network.classify(sample.flatten(1).T).softmax(dim=1)
            expected = (p @ maps.projection).T.view(-1, *sample.shape[1:])
            torch.testing.assert_close(projected, expected, atol=1e-4, rtol=1e-3)
        largest = [maps.network.classify(sample).softmax(dim=1).max(dim=1)[0] for sample in shown]
    assert unsure.tolist() == [pytest.approx(float((x < 0.5).float().mean())) for x in largest]


SWAPPED = [0, 2, 1, 4, 3]  # the classes on the other side


def mirroring(axis: int) -> StructureMaps:
    """Each map is the probability of a class, so that classes can be exchanged in the maps."""
    network = maps_of(maps=5, mirror=Mirror(axis, SWAPPED))
    network.projection.copy_(torch.eye(5))
    return network


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("factor", [2, 4])
def test_mirrored_images_have_the_mirrored_segmentation(axis: int, factor: int) -> None:
    """Exactly so with both looks, but not with one; each voxel has all probabilities."""
    network, images = mirroring(axis), torch.cat([image(s) for s in (1, 51)])
    turned = images.flip(2 + axis)
    with torch.inference_mode():
        once = [network(x, factor) for x in (images, turned)]
        twice = [
            network.with_mirrored(s, x, factor) for s, x in zip(once, (images, turned), strict=True)
        ]
    for found in (once, twice):
        back = found[1].maps.flip(2 + axis)[:, SWAPPED]
        assert (float((back - found[0].maps).abs().max()) < 1e-5) == (found is twice)
    torch.testing.assert_close(twice[0].maps.sum(dim=1), torch.ones_like(twice[0].maps[:, 0]))
    mean = (once[0].unsure + once[1].unsure) / 2
    torch.testing.assert_close(twice[0].unsure, mean)


def test_without_a_mirror_there_is_one_look() -> None:
    network = maps_of()
    with torch.inference_mode():
        found = network(image(1), 2)
        assert network.with_mirrored(found, image(1), 2) is found


@pytest.mark.parametrize("classes", [[0, 2, 1], [0, 1, 2, 3, 3], [1, 2, 3, 4, 5]])
def test_each_class_has_one_on_the_other_side(classes: list[int]) -> None:
    with pytest.raises(ValueError, match="must hold each class once"):
        maps_of(mirror=Mirror(0, classes))


def test_a_refinement_looks_at_the_mirrored_images_too() -> None:
    """So it treats the left as the right, which the segmentation alone does not."""
    mirror = {"axis": 0, "classes": SWAPPED}
    network = anatomy(4, (6, 8), steps=(4, 4), weight=50, trust=(1, 2), mirror=mirror)
    projection = network.segmentation.projection  # a class has the maps of its mirror image
    projection.copy_(projection + projection[SWAPPED])
    images = {"moving": image(1), "fixed": image(2)}
    turned = {side: x.flip(2) for side, x in images.items()}
    start = torch.zeros(1, 3, *SHAPE)
    sign = torch.tensor([-1.0, 1, 1]).view(3, 1, 1, 1)
    apart = {}
    for mirrored in (False, True):
        with torch.inference_mode():
            u, v = (
                network.descend(
                    network.settings, **pair, start=start, mirrored=mirrored
                ).displacement
                for pair in (images, turned)
            )
        apart[mirrored] = float((v.flip(2) * sign - u).abs().max())
    assert apart[True] < 0.02 < 0.1 < apart[False]


def test_an_image_without_brain_is_unsure() -> None:
    with torch.inference_mode():
        assert maps_of()(torch.zeros(1, 1, 16, 16, 16), 2).unsure.tolist() == [1]


@pytest.mark.parametrize("factor", [2, 4])
def test_outside_the_brain_is_the_background(factor: int) -> None:
    maps, cut = maps_of(), image(1)
    cut[:, :, :7] = 0  # the last voxel of the first 8 is still inside
    with torch.inference_mode():
        found = maps(cut, factor).maps[0]
    outside = found[:, : 8 // factor - 1].flatten(1)
    torch.testing.assert_close(outside, maps.projection[0][:, None].expand_as(outside))
    assert (found[:, 8 // factor - 1].flatten(1) - maps.projection[0][:, None]).abs().min() > 0


def test_the_projection_keeps_distances_and_is_always_the_same() -> None:
    a, b = (maps_of(144, maps=12).projection for _ in range(2))
    assert a.equal(b)
    distances = torch.cdist(a, a)[~torch.eye(145, dtype=torch.bool)]  # √2 between certain classes
    assert float(distances.mean()) == pytest.approx(2**0.5, rel=0.05)
    assert float(distances.min()) > 0.3


@pytest.mark.parametrize(("unsure", "share"), [(0, 1), (0.06, 1), (0.0675, 0.75), (0.0825, 0.25)])
def test_maps_count_less_where_the_network_is_unsure(unsure: float, share: float) -> None:
    """The more unsure of both images counts; the weight is that of the architecture."""
    network, cache = anatomy(4, (6, 8), steps=(1,), weight=5), {}
    network(moving=image(1), fixed=image(2), map_cache=cache)
    (found,) = cache.values()
    for shares in ([0.01, unsure], [unsure, 0.01]):
        features = network._features(found._replace(unsure=torch.tensor(shares)))
        assert features.weight == pytest.approx(5 * share)
        assert features.moving.equal(found.maps[:1])
        assert features.fixed.equal(found.maps[1:])


def test_where_nothing_is_sure_the_images_alone_are_aligned() -> None:
    network = anatomy(4, (6, 8), steps=(4, 4), weight=5)
    with torch.no_grad():
        network.segmentation.network.log_scale.fill_(-9)  # all structures are as likely
    pair = {"moving": image(1), "fixed": image(2)}
    same = {name: getattr(network, name) for name in ("steps", "full_steps", "step_settings")}
    found, alone = network(**pair), PairDescent(**same)(**pair)
    assert found.unsure.tolist() == [[1, 1]]
    assert alone.unsure is None
    assert found.displacement.equal(alone.displacement)
    assert found.displacement.abs().max() > 0.1


class Oracle(StructureMaps):
    """Segments a structure that is barely brighter than the rest."""

    def forward(self, images: Tensor, factor: int) -> Segmentation:
        return Segmentation(averaged((images > 0.505).float(), factor), torch.zeros(len(images)))


def test_structures_align_what_intensities_cannot() -> None:
    """Two flat images with a structure, 3 voxels apart, that only the segmentation shows."""
    moving, fixed = torch.zeros(2, 1, 1, 48, 48, 48)
    moving[..., 4:-4, 4:-4, 4:-4] = fixed[..., 4:-4, 4:-4, 4:-4] = 0.5
    moving[..., 18:30, 18:30, 18:30], fixed[..., 21:33, 18:30, 18:30] = 0.51, 0.51
    inside = fixed[0, 0] > 0.505
    oracle = Oracle(4, (6, 8), maps=6, weight=3)
    guided = PairDescent(steps=(20, 20), segmentation=oracle)
    displacement = guided(moving=moving, fixed=fixed).displacement
    assert float(displacement[0, 0][inside].mean()) == pytest.approx(-3, abs=0.8)
    assert float(displacement[0, 1:, inside].mean()) == pytest.approx(0, abs=0.2)
    alone = PairDescent(steps=(20, 20))(moving=moving, fixed=fixed).displacement
    assert abs(float(alone[0, 0][inside].mean())) < 1.5
