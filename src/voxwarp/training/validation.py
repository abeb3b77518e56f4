"""Score a network on pairs of val subjects during the training."""

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

STILL = 0.02  # voxels; a smaller mean displacement counts as no motion; set by hand
GRID_STEP = 8  # voxels between the lines of the grid in the picture


class Validator:
    """Scores of a model on ordered pairs of val subjects.

    Args:
        config: configuration of the training.
        cohort: prepared scans; without val scans, there are no scores.
        device: device of the network.
        objective: the losses, whose sum is one of the scores.
        atlas: image and structure numbers (or None) of the atlas, the fixed scan of every pair;
            None for pairs of two subjects.
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
        self.skipped: list[str] = []  # messages about pairs that could not be read the last time
        self.pairs = self._pairs()

    def _pairs(self) -> list[tuple[int, int | None]]:
        """Numbers of moving and fixed scans, spread evenly over all pairs; None is the atlas."""
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
        number = min(self.config.validation.pairs, len(every))
        return [every[k * len(every) // number] for k in range(number)]

    def __call__(self, model: Model, phase: Phase) -> dict[str, float]:
        """Score a model.

        Returns:
            Means over the pairs; empty without val subjects. ``val_loss``: the objective.
            ``val_dice``: Dice of the structures, if there are labels (resampled by nearest
            neighbour on the working grid). ``val_folds_percent``: share of folds (det J ≤ 0)
            where the fixed image is not 0. ``val_motion``: mean displacement there, in voxels
            of the phase.
        """
        torch.manual_seed(self.config.seed)  # a loss draws the same structures each time
        scores = [self._score(model, phase, sample) for sample in self._samples()]
        names = dict.fromkeys(name for pair in scores for name in pair)
        means = {}
        for name in names:
            values = [pair[name] for pair in scores if name in pair]
            means[name] = float(np.mean(values))
        return means

    def _samples(self) -> Iterator[Sample]:
        """The pairs that can be read; ``skipped`` gets messages about the others."""
        self.skipped.clear()
        for pair in self.pairs:
            try:
                sample = self._sample(*pair)
            except (InputError, OSError, ValueError) as error:  # a file is missing in the cache
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
            overlap = self._overlap(moved, batch.fixed_labels[0])
            scores |= {} if overlap is None else {"val_dice": overlap}
        return scores

    def displacement(self, model: Model, phase: Phase, batch: Batch) -> Tensor:
        """The displacement on the working grid, in its voxels: (1, 3, X, Y, Z)."""
        moving, fixed = (averaged(x, phase.downsample) for x in (batch.moving, batch.fixed))
        with torch.inference_mode(), convolutions(self.config.precision, self.device):
            displacement = model.network(moving=moving, fixed=fixed).displacement
        for _ in range(phase.downsample.bit_length() - 1):
            displacement = field.upsample(displacement)
        return displacement

    def _loss(self, model: Model, phase: Phase, batch: Batch) -> float:
        with torch.no_grad():
            return float(self.objective(model.network, batch, phase)["loss"])

    def scores_before(self) -> dict[str, float]:
        """Mean Dice of the pairs before any deformation; empty without labels."""
        scores = []
        for moving, fixed in self.pairs:
            labels, other = self._read(moving)[1], self._read(fixed)[1]
            if labels is not None and other is not None:
                scores.append(self._overlap(labels, other))
        known = [score for score in scores if score is not None]
        return {"val_dice": float(np.mean(known))} if known else {}

    def _overlap(self, labels: Tensor, other: Tensor) -> float | None:
        """Mean Dice of the structures, without the number of voxels that are not labelled."""
        count = len(self.cohort.structures)
        return mean_dice(*(x.masked_fill(x > count, 0) for x in (labels, other)))

    def pictures(self, model: Model, phase: Phase) -> np.ndarray | None:
        """Picture of the first pair that can be read: (H, W) in [0, 1].

        Columns: fixed, moving, moved, deformed grid, differences before and after. Rows: the
        three planes through the middle.
        """
        sample = next(self._samples(), None)
        if sample is None:
            return None
        batch = collate([sample]).to(self.device)
        displacement = self.displacement(model, phase, batch)
        moved = field.warp(batch.moving, displacement)
        lines = field.warp(_grid_lines(batch.moving), displacement, padding="border")
        differences = [(x - batch.fixed).abs() for x in (batch.moving, moved)]
        panels = [x.expand_as(lines) for x in (batch.fixed, batch.moving, moved)]
        panels += [lines, *(x.expand_as(lines) for x in differences)]
        return _tiled([panel[0].cpu().numpy() for panel in panels])

    def check_progress(self, done: int, scores: dict[str, float]) -> None:
        """Stop a training that does not learn.

        Raises:
            InputError: after ``validation.give_up`` steps, the network still moves nothing.
        """
        patience = self.config.validation.give_up
        if patience and done >= patience and scores.get("val_motion", STILL) < STILL:
            raise InputError(
                f"the network does not learn: after {done} steps, it moves the validation pairs by "
                f"only {scores['val_motion']:.4f} voxels on average; reduce the weight of "
                f"diffusion or bending, raise optimiser.learning_rate, or check the scans in the "
                f"pictures of TensorBoard (validation.give_up=0 continues anyway)"
            )


def is_better(scores: dict[str, float], best: dict[str, float]) -> bool:
    """Whether scores are better than the best so far: by Dice, or by the loss without labels."""
    if not best:
        return True
    if "val_dice" in scores and "val_dice" in best:
        return scores["val_dice"] > best["val_dice"]
    if "val_loss" in scores and "val_loss" in best:
        return scores["val_loss"] < best["val_loss"]
    return "val_loss" not in best  # a model without scores is not better than one with scores


def mean_dice(a: Tensor, b: Tensor) -> float | None:
    """Mean Dice of the structures in either of two maps of numbers; None if there are none."""
    by_structure = dice(a.cpu().numpy(), b.cpu().numpy())
    return float(np.mean(list(by_structure.values()))) if by_structure else None


def _grid_lines(like: Tensor) -> Tensor:
    """Images of grid lines, (B, 3, X, Y, Z): one image for the planes across each axis."""
    lines = like.new_zeros((len(like), 3, *like.shape[2:]))
    for axis in range(3):
        at = torch.arange(0, like.shape[2 + axis], GRID_STEP, device=like.device)
        for view in {0, 1, 2} - {axis}:
            lines[:, view].index_fill_(1 + axis, at, 1)
    return lines


def _tiled(panels: list[np.ndarray]) -> np.ndarray:
    """Tile the middle planes of volumes, (3, X, Y, Z) with one image for each axis.

    Columns are volumes, rows are the axes that the planes cut.
    """
    rows = []
    for axis in range(3):
        planes = [panel[axis].take(panel.shape[1 + axis] // 2, axis) for panel in panels]
        rows.append(np.concatenate([plane.T[::-1] for plane in planes], axis=1))
    width = max(row.shape[1] for row in rows)
    padded = [np.pad(row, ((0, 2), (0, width - row.shape[1]))) for row in rows]
    return np.clip(np.concatenate(padded), 0, 1)
