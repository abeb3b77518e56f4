"""Contrasts that a model does not know: noticed, registered by another model, and adapted.

A pair of which the model that was asked for does not know a contrast is registered by another one
first. If one of the scans is known, the other then gets its contrast: what lies on each other tells
which intensity stands for which (adaptive intensity correction, Guimond et al.,
doi:10.1109/42.906425). If the first model knows the adapted image, it registers the pair.
"""

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from ..fields import field as fields
from ..networks.deformation import Deformation
from ..networks.model import Model
from ..networks.pair_descent import MapCache
from ..preparation.intensity import DARKEST, scaled

# A model does not know the contrast of a scan if it is unsure of the structures in a larger share
# of the brain. T1-weighted brains of five sites have 0.02 to 0.03, other contrasts 0.05 and more
# (benchmarks/recognition.csv).
KNOWN = 0.045
# The curve from one contrast to another has a node for each of these quantiles, if it has so many
# voxels. Set by hand.
QUANTILES, FEWEST = 48, 200
SIDES = "moving", "fixed"

Images = dict[str, torch.Tensor]  # by side, (1, 1, X, Y, Z)


@dataclass(frozen=True, eq=False)
class Choice:
    """The model for a pair, and the images that it gets.

    Args:
        asked: the model that was asked for.
        model: that registers the pair.
        images: of the pair; that of one scan may have been adapted.
        map_cache: segmentations of the images by the model, if it has made any.
        unsure: by scan, the share of voxels of which the model that was asked for is unsure; None
            if that does not leave other contrasts to another.
        adapted: the scan that was adapted, and the share of which the model is unsure then.
    """

    asked: Model
    model: Model
    images: Images
    map_cache: MapCache = field(default_factory=dict)
    unsure: dict[str, float] | None = None
    adapted: tuple[str, float] | None = None

    @property
    def known(self) -> dict[str, bool]:
        """By scan, whether the model that was asked for knows its contrast."""
        return {side: share <= KNOWN for side, share in (self.unsure or {}).items()}

    @property
    def contrasts_may_differ(self) -> bool:
        """Whether a scan has a contrast that the model does not know, or may have any."""
        return self.asked.takes_any_contrast or not all(self.known.values())

    def described(self) -> dict[str, Any] | None:
        """The entry ``contrast`` of ``metrics.json``."""
        if self.unsure is None:
            return None
        adapted = self.adapted and {"scan": self.adapted[0], "unsure_share": self.adapted[1]}
        return {
            "asked_model": self.asked.name,
            "unsure_share": self.unsure,
            "known": self.known,
            "adapted": adapted,
        }


def choose_model(asked: Model, images: Images, device: torch.device) -> Choice:
    """Choose the model that registers a pair, by how well the one asked for knows the scans.

    Args:
        asked: the model that was asked for, on ``device``.
        images: of the pair, on ``device``.
        device: where the networks run.
    """
    plain = Choice(asked, asked, images)
    if asked.other_contrasts is None:
        return plain
    shares = asked.unsure(**images, map_cache=plain.map_cache)
    if shares is None:
        return plain
    unsure = dict(zip(SIDES, shares.tolist(), strict=True))
    known = Choice(asked, asked, images, plain.map_cache, unsure)
    if all(known.known.values()):
        return known
    return Choice(asked, _loaded(asked.other_contrasts, device), images, {}, unsure)


def adapt(choice: Choice, deformation: Deformation) -> Choice | None:
    """Give the scan of unknown contrast that of the other, for the model that was asked for.

    Args:
        choice: with another model than the one asked for.
        deformation: by that model.

    Returns:
        The choice of the model that was asked for; None if it knows neither scan, or not the
        adapted one either.
    """
    unknown = [side for side, is_known in choice.known.items() if not is_known]
    if choice.model is choice.asked or len(unknown) != 1:
        return None
    (side,) = unknown
    other = SIDES[1 - SIDES.index(side)]
    to_other = deformation.displacement
    if side == "moving":
        to_other = fields.invert(to_other)
    like = fields.warp(choice.images[other], to_other)
    changed = with_contrast(choice.images[side], like, choice.asked.recipe.percentile)
    images = {**choice.images, side: changed}
    map_cache: MapCache = {}
    shares = choice.asked.unsure(**images, map_cache=map_cache)
    assert shares is not None  # it was unsure before
    share = float(shares[SIDES.index(side)])
    if share > KNOWN:
        return None
    return Choice(choice.asked, choice.asked, images, map_cache, choice.unsure, (side, share))


def with_contrast(image: torch.Tensor, like: torch.Tensor, percentile: float) -> torch.Tensor:
    """Map the intensities of an image to those of another that lies on it.

    Between quantiles of the image, the new intensity is the median of what the other shows there;
    a curve connects them. Medians, because the images do not lie on each other exactly.

    Args:
        image: (1, 1, X, Y, Z) in [0, 1], 0 outside the brain.
        like: the other, on the same grid.
        percentile: of the new intensities, becomes 1, see ``Recipe``.
    """
    values, others = (x[0, 0].cpu().numpy() for x in (image, like))
    both = (values > 0) & (others > 0)
    own, target = values[both], others[both]
    if own.size < FEWEST:
        return image
    edges = np.unique(np.quantile(own, np.linspace(0, 1, QUANTILES + 1)))
    bins = np.clip(np.searchsorted(edges, own, side="right") - 1, 0, max(len(edges) - 2, 0))
    order = np.argsort(bins, kind="stable")
    parts = np.split(order, np.searchsorted(bins[order], np.arange(1, bins.max() + 1)))
    nodes = [
        (np.median(own[part]), np.median(target[part])) for part in parts if len(part) >= FEWEST
    ]
    if not nodes:
        return image
    x, y = np.array(nodes).T
    changed = np.where(values > 0, np.clip(np.interp(values, x, y), DARKEST, 1), 0)
    changed = scaled(changed, percentile).astype(np.float32)
    return torch.from_numpy(changed)[None, None].to(image.device)


@lru_cache(maxsize=2)
def _loaded(name: str, device: torch.device) -> Model:
    """An installed model, loaded once for all pairs of a process."""
    return Model.load(name, device)
