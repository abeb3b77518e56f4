"""The box around the brains: it holds them, and what is taken out of it can be put back."""

import numpy as np
import pytest
import torch

from voxwarp.fields.box import Box

WHOLE = (30, 41, 52)


def image(low: tuple[int, ...], high: tuple[int, ...], whole: tuple[int, ...] = WHOLE):
    """Ones from ``low`` to below ``high``, zeros around: (1, 1, X, Y, Z)."""
    out = torch.zeros(1, 1, *whole)
    out[(..., *map(slice, low, high))] = 1
    return out


def axes(box: Box) -> list[set[int]]:
    return [set(range(f, f + s)) for f, s in zip(box.first, box.shape, strict=True)]


@pytest.mark.parametrize("multiple", [1, 2, 8, 16])
@pytest.mark.parametrize("margin", [0, 4])
@pytest.mark.parametrize(
    ("one", "other"),
    [
        (((10, 12, 20), (18, 15, 22)), ((12, 20, 5), (13, 22, 9))),  # in the middle
        (((0, 0, 0), (5, 6, 7)), ((3, 3, 3), (4, 4, 4))),  # at the first corner
        (((25, 30, 40), WHOLE), ((24, 24, 39), (26, 30, 45))),  # at the last corner
        (((0, 0, 0), WHOLE), ((3, 3, 3), (4, 4, 4))),  # all of it
    ],
)
def test_the_box_holds_what_is_not_zero_in_any_image_and_the_margin_in_the_lattice(
    one: tuple[tuple[int, ...], ...],
    other: tuple[tuple[int, ...], ...],
    margin: int,
    multiple: int,
) -> None:
    box = Box.around(image(*one), image(*other), multiple=multiple, margin=margin)
    assert box.whole == WHOLE
    for axis, inside in enumerate(axes(box)):
        low = max(min(one[0][axis], other[0][axis]) - margin, 0)
        high = min(max(one[1][axis], other[1][axis]) + margin, WHOLE[axis])
        assert set(range(low, high)) <= inside
        assert len(inside) % multiple == 0
        assert len(inside) < high - low + multiple
        if len(inside) <= WHOLE[axis]:
            assert inside <= set(range(WHOLE[axis])), "the box fits into the volume"


def test_the_box_holds_every_sample_of_a_batch() -> None:
    batch = torch.cat([image((5, 6, 7), (6, 7, 8)), image((20, 30, 40), (21, 31, 41))])
    inside = axes(Box.around(batch, torch.zeros_like(batch), multiple=2, margin=1))
    assert all({a, b} <= i for i, a, b in zip(inside, (5, 6, 7), (20, 30, 40), strict=True))


def test_negative_intensities_are_held_too() -> None:
    box = Box.around(-image((5, 6, 7), (9, 9, 9)), multiple=1, margin=0)
    assert (box.first, box.shape) == ((5, 6, 7), (4, 3, 2))


def test_kernels_find_the_same_box() -> None:
    """Float64 is left to plain PyTorch."""
    for seed in range(5):
        images = [(torch.rand(2, 1, *WHOLE) > 0.9999) * 1.0 for _ in range(2)]
        found = Box.around(*images, multiple=4, margin=1)
        assert found == Box.around(*(x.double() for x in images), multiple=4, margin=1), seed


def test_of_images_of_nothing_the_box_is_the_lattice() -> None:
    box = Box.around(torch.zeros(1, 1, *WHOLE), torch.zeros(1, 1, *WHOLE), multiple=1)
    assert (box.first, box.shape) == ((0, 0, 0), WHOLE)
    wider = Box.around(torch.zeros(1, 1, *WHOLE), multiple=16)
    assert wider.shape == (32, 48, 64)
    assert all(set(range(n)) <= i for n, i in zip(WHOLE, axes(wider), strict=True))


# Inside the volume; beyond it on all sides; beyond it on some sides.
BOXES = [((3, 4, 5), (8, 16, 24)), ((-1, -3, -6), (32, 48, 64)), ((-2, 30, 10), (16, 16, 42))]


def padded(volume: np.ndarray, box: Box, mode: str) -> np.ndarray:
    """NumPy's padding of a volume by 20 voxels, and the box cut out of it."""
    around = np.pad(volume, [(0, 0), (0, 0), *[(20, 20)] * 3], mode=mode)
    corner = [slice(20 + f, 20 + f + s) for f, s in zip(box.first, box.shape, strict=True)]
    return around[(..., *corner)]


@pytest.mark.parametrize(("first", "shape"), BOXES)
@pytest.mark.parametrize(("border", "mode"), [(False, "constant"), (True, "edge")])
def test_beyond_the_lattice_are_zeros_or_the_value_at_the_border(
    first: tuple[int, ...], shape: tuple[int, ...], border: bool, mode: str
) -> None:
    box, volume = Box(first, shape, WHOLE), torch.rand(2, 3, *WHOLE)
    expected = padded(volume.numpy(), box, mode)
    np.testing.assert_array_equal(box.crop(volume, border=border).numpy(), expected)


@pytest.mark.parametrize(("first", "shape"), BOXES)
def test_what_is_put_back_is_itself_in_the_box_and_its_border_value_around(
    first: tuple[int, ...], shape: tuple[int, ...]
) -> None:
    box, field = Box(first, shape, WHOLE), torch.rand(2, 3, *shape)
    nearest = [
        (torch.arange(n) - f).clamp(0, s - 1) for n, f, s in zip(WHOLE, first, shape, strict=True)
    ]
    got = box.put_back(field)
    for axis, index in enumerate(nearest, start=2):
        field = field.index_select(axis, index)
    assert torch.equal(got, field)


@pytest.mark.parametrize(("first", "shape"), BOXES)
def test_taking_and_putting_back_changes_nothing_in_the_box(
    first: tuple[int, ...], shape: tuple[int, ...]
) -> None:
    box, field = Box(first, shape, WHOLE), torch.rand(1, 3, *WHOLE)
    inside = tuple(
        slice(max(f, 0), min(f + s, n)) for f, s, n in zip(first, shape, WHOLE, strict=True)
    )
    back = box.put_back(box.crop(field, border=True))
    assert back.shape == field.shape
    assert torch.equal(back[(..., *inside)], field[(..., *inside)])
