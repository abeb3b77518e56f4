"""Which model registers a pair: scans of a contrast that a model does not know go to another."""

from functools import lru_cache
from typing import Any, NamedTuple

import torch

from ..networks.model import Model
from ..networks.pair_descent import MapCache
from ..preparation.scan import Prepared

# A model does not know the contrast of a scan if it is unsure of the structures in a larger share
# of the brain. T1-weighted brains of five sites have 0.02 to 0.03, other contrasts 0.05 and more
# (benchmarks/recognition.csv).
KNOWN = 0.045


class Choice(NamedTuple):
    """The model for a pair.

    Args:
        model: that registers it.
        map_cache: segmentations of the pair by this model, if it has made any.
        unsure: by scan, the share of voxels of which the model that was asked for is unsure; None
            if that model does not leave other contrasts to another.
    """

    model: Model
    map_cache: MapCache
    unsure: dict[str, float] | None = None

    def described(self, asked: Model) -> dict[str, Any] | None:
        """The entry ``contrast`` of ``metrics.json``: which scans the model knows the contrast of.

        Args:
            asked: the model that was asked for.
        """
        if self.unsure is None:
            return None
        return {
            "asked_model": asked.name,
            "unsure_share": self.unsure,
            "known": {name: share <= KNOWN for name, share in self.unsure.items()},
        }


def choose_model(
    asked: Model, *, moving: Prepared, fixed: Prepared, device: torch.device
) -> Choice:
    """Choose the model that registers a pair, by how well the one asked for knows the scans.

    Args:
        asked: the model that was asked for, on ``device``.
        moving, fixed: the scans on its working grid.
        device: where the networks run.
    """
    map_cache: MapCache = {}
    if asked.other_contrasts is None:
        return Choice(asked, map_cache)
    images = {"moving": moving.image.to(device), "fixed": fixed.image.to(device)}
    shares = asked.unsure(**images, map_cache=map_cache)
    if shares is None:
        return Choice(asked, map_cache)
    unsure = dict(zip(images, shares.tolist(), strict=True))
    if max(unsure.values()) <= KNOWN:
        return Choice(asked, map_cache, unsure)
    return Choice(_loaded(asked.other_contrasts, device), {}, unsure)


@lru_cache(maxsize=2)
def _loaded(name: str, device: torch.device) -> Model:
    """An installed model, loaded once for all pairs of a process."""
    return Model.load(name, device)
