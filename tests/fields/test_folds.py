"""Folds are removed, and nothing else changes."""

import pytest
import torch
from phantoms import smooth_field
from torch import Tensor

from voxwarp.fields import compiled, field, folds
from voxwarp.fields.folds import remove_folds


def smallest(displacement: Tensor) -> Tensor:
    """The smallest determinant of each voxel."""
    return field.jacobian_determinants(displacement)[1]


def test_the_smallest_determinant_is_that_of_three_kinds_of_differences() -> None:
    displacement = smooth_field(1, periods=3.0, amplitude=2.0, pinned=False)
    kinds = ("central", "forward", "backward")
    each = torch.stack([field.jacobian_determinant(displacement, differences=k) for k in kinds])
    assert set(each.argmin(dim=0).unique().tolist()) == {0, 1, 2}
    assert torch.equal(smallest(displacement), each.amin(dim=0))


def test_a_fold_is_removed_and_the_rest_stays_to_the_bit() -> None:
    displacement = smooth_field(2, (48, 50, 52), amplitude=1.0).float()
    unchanged = remove_folds(displacement, min_determinant=0.02)  # it has no folds
    assert torch.equal(unchanged, displacement)
    bumpy = displacement.clone()
    bumpy[0, :, 24:26, 20, 30] += torch.tensor([3.0, -2.0, 1.0])[:, None]
    before = bumpy.clone()
    assert smallest(bumpy).min() < -1
    got = remove_folds(bumpy, min_determinant=0.02)
    assert smallest(got).min() >= 0.02
    x = torch.stack(torch.meshgrid(*map(torch.arange, (48, 50, 52)), indexing="ij"))
    far = (x - torch.tensor([24, 20, 30]).view(3, 1, 1, 1)).abs().amax(dim=0) > 12
    assert torch.equal(got[0, :, far], displacement[0, :, far])
    assert torch.equal(bumpy, before)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("shape", "periods", "amplitude"), [((20, 22, 24), 2.0, 8.0), ((40, 36, 34), 4.0, 6.0)]
)
def test_folds_are_removed_at_the_border_and_across_blocks(
    shape: tuple[int, ...], periods: float, amplitude: float, seed: int
) -> None:
    waves = smooth_field(seed, shape, amplitude=amplitude, periods=periods, pinned=False).float()
    assert (smallest(waves) < 0).sum() > 100
    assert smallest(remove_folds(waves, min_determinant=0.02)).min() >= 0.02


def test_only_the_sample_with_folds_changes() -> None:
    still = smooth_field(1, amplitude=1.0).float()
    folding = smooth_field(3, amplitude=5.0, periods=2.0).float()
    got = remove_folds(torch.cat([still, folding]), min_determinant=0.02)
    assert torch.equal(got[:1], still)
    assert torch.equal(got[1:], remove_folds(folding, min_determinant=0.02))
    assert smallest(folding).min() < 0 < smallest(got).min()


WAVES = smooth_field(2, (90, 50, 44), amplitude=7.0, periods=3.0).float()


def test_compiled_rounds_are_those_of_plain_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    """With one thread and with three, and with regions that overlap."""
    if not compiled.enabled():
        pytest.skip("kernels are off or not installed")
    folded = smallest(WAVES)[0] < 0.02
    assert 1 < len(folds._groups(folds._regions(folded))) < len(folds._regions(folded))
    before, got = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            got.append(remove_folds(WAVES, min_determinant=0.02))
    finally:
        torch.set_num_threads(before)
    monkeypatch.setattr(compiled, "enabled", lambda: False)
    torch.testing.assert_close(got[0], remove_folds(WAVES, min_determinant=0.02), atol=1e-5, rtol=0)
    assert torch.equal(*got)


def test_regions_of_a_group_lie_apart_and_those_that_overlap_keep_their_order() -> None:
    regions = folds._regions(smallest(WAVES)[0] < 0.02)
    boxes = [[range(*ends) for ends in region] for region in regions.tolist()]
    order = [region for group in folds._groups(regions) for region in group.tolist()]
    assert sorted(order) == sorted(regions.tolist())

    def overlap(one: list[range], other: list[range]) -> bool:
        return all(set(a) & set(b) for a, b in zip(one, other, strict=True))

    for group in folds._groups(regions):
        inside = [[range(*ends) for ends in region] for region in group.tolist()]
        assert not any(overlap(a, b) for i, a in enumerate(inside) for b in inside[:i])
    place = {str(region): number for number, region in enumerate(order)}
    ranks = [place[str(region)] for region in regions.tolist()]
    pairs = [(i, j) for i in range(len(boxes)) for j in range(i) if overlap(boxes[i], boxes[j])]
    assert pairs
    assert all(ranks[j] < ranks[i] for i, j in pairs)
