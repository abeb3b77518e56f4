"""Images of other contrasts: of the scan's anatomy, of no other, and to the bit from the seed."""

import numpy as np
import pytest
import torch
from phantom_cohort import ATLAS_MODE, MIRROR, Cohort, blank, pairs
from phantoms import blobs
from scipy import ndimage

from voxwarp.training.batch import ATLAS
from voxwarp.training.config import Augmentation, Synthesis
from voxwarp.training.synthesis import Synthesiser

SHAPE = (40, 36, 44)
PLAIN = {"share": 1, "structures": 0, "flatness": 0, "blur": 0, "thickness": 1, "lesions": 0}


def made(
    image: torch.Tensor,
    labels: torch.Tensor | None = None,
    seed: int = 0,
    spacing: tuple[float, ...] = (1, 1, 1),
    **settings,
) -> torch.Tensor:
    synthesis = Synthesis(**{**PLAIN, **settings})
    make = Synthesiser(synthesis, spacing, 99.5, MIRROR)
    return make(image, labels, np.random.default_rng(seed))


@pytest.fixture(scope="module")
def image() -> torch.Tensor:
    data = blobs(5, SHAPE).astype(np.float32)
    data[:6] = 0
    return torch.from_numpy((data / data.max()).clip(0, 1))[None]


def bands() -> torch.Tensor:
    """Structures 1, 2 and 3 side by side, and no label in the last quarter."""
    labels = torch.zeros(SHAPE, dtype=torch.uint8)
    for number in (1, 2, 3):
        labels[:, :, 11 * (number - 1) : 11 * number] = number
    return labels


def test_without_a_share_the_scan_itself_is_shown(image):
    assert made(image, share=0) is image
    half = [made(image, seed=seed, share=0.5) is image for seed in range(200)]
    assert 70 < sum(half) < 130


@pytest.mark.parametrize("seed", range(8))
def test_background_stays_zero_and_brain_stays_above(image, seed):
    whole = {"structures": 0.4, "flatness": 1, "blur": 1.5, "thickness": 6, "lesions": 1}
    changed = made(image, bands(), seed, **whole)
    assert changed.shape == image.shape
    assert changed.dtype == torch.float32
    assert not changed[image == 0].any()
    assert (changed[image > 0] > 0).all()
    assert changed.max() <= 1
    assert not torch.equal(changed, image)


def test_the_contrast_is_a_function_of_the_intensity(image):
    """Without structures, equal intensities stay equal: a curve through six nodes."""
    levels = (image * 10).ceil() / 10
    changed = made(levels, seed=4)
    values = [changed[levels == level].unique() for level in levels.unique()]
    assert all(len(value) == 1 for value in values)
    new = torch.cat(values[1:])
    assert (new.diff() < 0).any()  # of this seed: the order of intensities changes
    assert len(new.unique()) > 5


def test_a_structure_and_its_mirror_get_the_same_offset():
    flat = torch.full((1, *SHAPE), 0.5)
    labels = bands()
    found = set()
    for seed in range(6):
        changed = made(flat, labels, seed, structures=0.3)[0]
        values = [changed[labels == number].unique() for number in range(4)]
        assert all(len(value) == 1 for value in values)
        nothing, left, right, middle = (float(value) for value in values)
        assert left == right  # structures 1 and 2, by MIRROR
        found.add(left != middle and left != nothing)
    assert found == {True}


def test_structures_become_flat_by_as_much_as_is_allowed(image):
    """What differs within structures shrinks; what has no label keeps its texture."""
    labels = bands()
    inside = image[0] > 0

    def spread(flatness: float, seed: int) -> float:
        changed = made(image, labels, seed, flatness=flatness)[0]
        return float(changed[(labels == 1) & inside].std())

    # The share is drawn evenly from 0 to 1, so the differences shrink to a half in the mean.
    ratios = [spread(1, seed) / spread(0, seed) for seed in range(16)]
    # Each image is also scaled so that its white is 1, so single ratios may be above 1.
    assert 0.3 < np.mean(ratios) < 0.8
    assert min(ratios) < 0.2
    unlabelled = labels == 0
    plain, flat = (made(image, labels, 2, flatness=f)[0] for f in (0, 1))
    ratio = flat[unlabelled & inside] / plain[unlabelled & inside]
    # Only the scale of the whole image may differ.
    assert float(ratio[plain[unlabelled & inside] < 0.99].std()) < 0.02


def test_lesions_are_one_blob_of_at_most_two_radii(image):
    for seed in range(5):
        plain, hurt = (made(image, None, seed, lesions=lesions)[0] for lesions in (0, 1))
        scale = (hurt / plain.clamp(min=1e-3))[plain > 0.2].median()
        changed = ((hurt - scale * plain).abs() > 0.02).numpy()
        pieces, count = ndimage.label(changed, np.ones((3, 3, 3)))
        sizes = np.bincount(pieces.ravel())[1:] if count else np.zeros(1)
        assert sizes.max() > 0.8 * changed.sum() or changed.sum() < 30


def test_thick_slices_are_straight_lines_between_their_middles():
    """Along one axis, most second differences vanish; along the others they do not."""
    noise = torch.rand(1, *SHAPE, generator=torch.Generator().manual_seed(0)) * 0.9 + 0.1
    for seed in range(12):
        changed = made(noise, seed=seed, thickness=8)[0]
        straight = [
            float((changed.diff(n=2, dim=axis).abs() < 1e-5).float().mean()) for axis in range(3)
        ]
        if max(straight) > 0.05:  # half of the images have thick slices
            assert sorted(straight)[1] < 0.02
            return
    pytest.fail("no seed made thick slices")


def test_blurring_smooths(image):
    def roughness(x: torch.Tensor) -> float:
        inner = x[0, 8:, 2:-2, 2:-2]
        return float(inner.diff(dim=1).abs().mean() / inner.std())

    rough = [roughness(made(image, seed=seed, blur=b)) for seed in range(6) for b in (0, 3)]
    assert sum(rough[1::2]) < 0.8 * sum(rough[::2])


# ------------------------------------------------------------------------------ In the training


def test_pairs_are_determined_by_seed_and_number():
    cohort = Cohort(list("abz"), frozenset({0, 1}))
    all_changes = Synthesis(share=0.7, lesions=0.5)
    one, other = (pairs(cohort, synthesis=all_changes) for _ in range(2))
    for n in range(6):
        for a, b in zip(vars(one[n]).values(), vars(other[n]).values(), strict=True):
            assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
    assert not torch.equal(one[0].moving_input, one[2].moving_input)


def test_the_network_sees_other_contrasts_and_the_losses_do_not():
    cohort = Cohort(list("abz"), frozenset({0, 1}))
    plain, shown = pairs(cohort), pairs(cohort, synthesis=Synthesis(share=1))
    for n in range(4):
        assert torch.equal(plain[n].moving, shown[n].moving)
        assert torch.equal(plain[n].fixed, shown[n].fixed)
        assert torch.equal(plain[n].moving_labels, shown[n].moving_labels)
        assert not torch.equal(shown[n].moving_input, shown[n].moving)
        assert not torch.equal(shown[n].fixed_input, shown[n].fixed)


def test_no_other_draw_changes():
    """The recolouring that follows is the same as without."""
    cohort = Cohort(list("abz"), frozenset({0, 1}))
    noisy = Augmentation(noise=0.1, rotation=5, bending=1)
    plain, shown = (pairs(cohort, noisy, synthesis=Synthesis(share=s)) for s in (0, 1))
    for n in range(4):
        assert torch.equal(plain[n].moving, shown[n].moving)
        assert plain[n].numbers == shown[n].numbers


def test_the_atlas_keeps_its_contrast():
    cohort = Cohort(list("abz"), frozenset({0, 1}))
    atlas = torch.from_numpy(cohort.image(2).astype(np.float32) / 255)[None], None
    shown = pairs(cohort, sampling=ATLAS_MODE, atlas=atlas, synthesis=Synthesis(share=1))
    for sample in (shown[n] for n in range(4)):
        assert sample.numbers[1] == ATLAS
        assert torch.equal(sample.fixed_input, sample.fixed)
        assert not torch.equal(sample.moving_input, sample.moving)


def test_a_scan_of_one_voxel_is_no_problem():
    shown = pairs(blank("abz"), synthesis=Synthesis(share=1, lesions=1))
    assert float(shown[0].moving_input) > 0
