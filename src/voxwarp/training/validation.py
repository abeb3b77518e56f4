"""How well a network does on subjects it has not learnt from, while it is being trained."""

import itertools
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..fields import field
from ..fields.field import averaged
from ..measures.overlap import dice
from ..networks.model import Model
from .batch import ATLAS, Batch, Sample, collate, label_tensor
from .cohort import Cohort, intensities
from .config import Config, Phase
from .objective import Objective, convolutions

STILL = 0.02  # voxels: a mean displacement below this is none
GRID_STEP = 8  # voxels between the lines of the pictured grid


class Validator:
    """Scores of a model on ordered pairs of the subjects of ``val``.

    Args:
        cohort: with its ``val`` scans; without any there are no scores.
        device: where the network is.
        objective: its value is a score, too.
        atlas: in place of one scan of each pair, and its structures.
    """

    def __init__(
        self,
        config: Config,
        cohort: Cohort,
        device: torch.device,
        objective: Objective,
        atlas: tuple[Tensor, Tensor | None] | None = None,
    ):
        self.config, self.cohort, self.device, self.objective = config, cohort, device, objective
        self.atlas = atlas
        self.skipped: list[str] = []  # what could not be read the last time
        self.pairs = self._pairs()

    def _pairs(self) -> list[tuple[int, int | None]]:
        """Moving and fixed scan; None is the atlas. Evenly chosen among all that there are."""
        scans = self.cohort.indices("val")
        every: list[tuple[int, int | None]] = (
            [(i, None) for i in scans]
            if self.atlas
            else [
                (i, j)
                for i, j in itertools.permutations(scans, 2)
                if self.cohort.subjects[i] != self.cohort.subjects[j]
            ]
        )
        wanted = min(self.config.validation.pairs, len(every))
        return [every[k * len(every) // wanted] for k in range(wanted)]

    def __call__(self, model: Model, phase: Phase) -> dict[str, float]:
        """Means over the pairs.

        Returns:
            ``val_loss``, the objective; ``val_dice`` of the structures, where there are labels
            (nearest neighbour, at the lattice of the cohort); ``val_folds_percent`` of the
            voxels where the fixed image is not 0 with det J ≤ 0; ``val_motion``, the mean
            displacement there, voxels of the phase. Nothing without val subjects.
        """
        torch.manual_seed(self.config.seed)  # the structures that a loss draws: always the same
        each = [self._score(model, phase, sample) for sample in self._samples()]
        names = dict.fromkeys(name for scores in each for name in scores)
        means = {}
        for name in names:
            values = [scores[name] for scores in each if name in scores]
            means[name] = float(np.mean(values))
        return means

    def _samples(self) -> Iterator[Sample]:
        """The pairs that can be read; why the others cannot is in ``skipped`` then."""
        self.skipped.clear()
        for pair in self.pairs:
            try:
                sample = self._sample(*pair)
            except (InputError, OSError, ValueError) as error:  # its file in the cache is gone
                self.skipped.append(str(error))
                continue
            yield sample

    def _sample(self, moving: int, fixed: int | None) -> Sample:
        image, labels = self._read(moving)
        other, other_labels = self._read(fixed)
        if labels is None or other_labels is None:
            labels = other_labels = None
        numbers = moving, ATLAS if fixed is None else fixed
        return Sample(image, other, image, other, labels, other_labels, numbers, [])

    def _read(self, scan: int | None) -> tuple[Tensor, Tensor | None]:
        if scan is None:
            assert self.atlas is not None
            return self.atlas
        image = intensities(self.cohort.image(scan))
        labels = self.cohort.labels(scan)
        return image, None if labels is None else label_tensor(labels, len(self.cohort.mirror))

    def _score(self, model: Model, phase: Phase, sample: Sample) -> dict[str, float]:
        batch = collate([sample]).to(self.device)
        displacement = self.displacement(model, phase, batch)
        fixed = batch.fixed[0, 0]
        inside = fixed > 0 if (fixed > 0).any() else torch.ones_like(fixed, dtype=torch.bool)
        determinant = field.jacobian_determinant(displacement)[0]
        motion = displacement[0].square().sum(dim=0).sqrt()[inside].mean()
        scores = {
            "val_loss": self._loss(model, phase, batch),
            "val_folds_percent": 100 * float((determinant[inside] <= 0).float().mean()),
            "val_motion": float(motion) / phase.downsample,
        }
        if batch.moving_labels is not None and batch.fixed_labels is not None:
            moved = field.warp(batch.moving_labels[None], displacement, nearest=True)[0, 0]
            overlap = mean_dice(moved, batch.fixed_labels[0])
            scores |= {} if overlap is None else {"val_dice": overlap}
        return scores

    def displacement(self, model: Model, phase: Phase, batch: Batch) -> Tensor:
        """(1, 3, X, Y, Z) on the lattice of the cohort, in its voxels."""
        moving, fixed = (averaged(x, phase.downsample) for x in (batch.moving, batch.fixed))
        with torch.inference_mode(), convolutions(self.config.precision, self.device):
            displacement = model.network(moving=moving, fixed=fixed).displacement
        for _ in range(phase.downsample.bit_length() - 1):
            displacement = field.upsample(displacement)
        return displacement

    def _loss(self, model: Model, phase: Phase, batch: Batch) -> float:
        with torch.no_grad():
            return float(self.objective(model.network, batch, phase)["loss"])

    def before(self) -> dict[str, float]:
        """Mean Dice of the pairs as they are, before any deformation; nothing without labels."""
        scores = []
        for moving, fixed in self.pairs:
            labels, other = self._read(moving)[1], self._read(fixed)[1]
            if labels is not None and other is not None:
                scores.append(mean_dice(labels, other))
        known = [score for score in scores if score is not None]
        return {"val_dice": float(np.mean(known))} if known else {}

    def pictures(self, model: Model, phase: Phase) -> np.ndarray | None:
        """(H, W) in [0, 1]: fixed, moving, moved, deformed grid, differences before and after.

        A row for each plane through the middle of the first pair that can be read.
        """
        sample = next(self._samples(), None)
        if sample is None:
            return None
        batch = collate([sample]).to(self.device)
        displacement = self.displacement(model, phase, batch)
        moved = field.warp(batch.moving, displacement)
        lines = field.warp(_lines(batch.moving), displacement, padding="border")
        differences = [(x - batch.fixed).abs() for x in (batch.moving, moved)]
        panels = [x.expand_as(lines) for x in (batch.fixed, batch.moving, moved)]
        panels += [lines, *(x.expand_as(lines) for x in differences)]
        return _tiled([panel[0].cpu().numpy() for panel in panels])

    def check_progress(self, done: int, scores: dict[str, float]) -> None:
        """Stop a training in which nothing is learnt.

        Raises:
            InputError: after so many steps the network still moves nothing.
        """
        patience = self.config.validation.give_up
        if patience and done >= patience and scores.get("val_motion", STILL) < STILL:
            raise InputError(
                f"nothing is learnt: after {done} steps the network moves the validation pairs by "
                f"{scores['val_motion']:.4f} voxels on average; lower the weight of the "
                f"smoothness, raise optimiser.learning_rate, or see in TensorBoard's pictures "
                f"whether the scans are what they should be (validation.give_up=0 goes on)"
            )


def better(scores: dict[str, float], best: dict[str, float]) -> bool:
    """Whether scores beat the best so far: by Dice where there are labels, else by the loss."""
    if not best:
        return True
    if "val_dice" in scores and "val_dice" in best:
        return scores["val_dice"] > best["val_dice"]
    if "val_loss" in scores and "val_loss" in best:
        return scores["val_loss"] < best["val_loss"]
    return "val_loss" not in best  # one that could not be scored is not better than one that was


def mean_dice(a: Tensor, b: Tensor) -> float | None:
    """Mean Dice of the structures that are in either of two maps of numbers; None without any."""
    each = dice(a.cpu().numpy(), b.cpu().numpy())
    return float(np.mean(list(each.values()))) if each else None


def _lines(like: Tensor) -> Tensor:
    """Images of grid lines, (B, 3, X, Y, Z): those that are seen in planes across each axis."""
    lines = like.new_zeros((len(like), 3, *like.shape[2:]))
    for axis in range(3):
        at = torch.arange(0, like.shape[2 + axis], GRID_STEP, device=like.device)
        for view in {0, 1, 2} - {axis}:
            lines[:, view].index_fill_(1 + axis, at, 1)
    return lines


def _tiled(panels: list[np.ndarray]) -> np.ndarray:
    """The middle planes of volumes (3, X, Y, Z), one for each axis that they may be cut across.

    A column for each volume, a row for each axis.
    """
    rows = []
    for axis in range(3):
        planes = [panel[axis].take(panel.shape[1 + axis] // 2, axis) for panel in panels]
        rows.append(np.concatenate([plane.T[::-1] for plane in planes], axis=1))
    width = max(row.shape[1] for row in rows)
    padded = [np.pad(row, ((0, 2), (0, width - row.shape[1]))) for row in rows]
    return np.clip(np.concatenate(padded), 0, 1)
