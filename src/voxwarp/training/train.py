"""The training of a registration function: one visible loop. θ ← argmin Σ loss(f, m∘φ, φ).

    voxwarp train CONFIG.yaml [key=value ...] -o RUN
    torchrun --nproc-per-node 4 -m voxwarp train CONFIG.yaml -o RUN

Balakrishnan et al., CVPR 2018, equations 1 to 3. All that is random follows from the seed and
the number of the step, so that a run which was killed goes on as if nothing had happened.
"""

import copy
import math
import time
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from ..allocation import release_free_memory
from ..data.scans import gather
from ..device import channels_last, torch_device
from ..errors import InputError
from ..networks.model import Model
from ..preparation.recipe import Recipe
from . import loader, run_folder
from .batch import Batch
from .checkpoint import NAME, TrainingState, load_checkpoint, save_checkpoint
from .cohort import Cohort, prepare_atlas, prepare_cohort
from .config import Config, Phase
from .inspection import check_beforehand
from .memory import check_memory
from .monitor import Monitor
from .objective import Objective
from .parallel import World, any_of, average_gradients, first_then_others, mean_of, world
from .resume import check_run, check_same, check_together, hash_of
from .sampling import PairDataset
from .schedule import learning_rate, phase_at
from .signals import stop_signals
from .start import network_to_start_from
from .validation import Validator


def train(
    config: Config,
    out: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    device: str = "auto",
    minutes: float = math.inf,
    show: bool = True,
) -> TrainingState:
    """Train a model, and leave it in ``out``, which ``register --model`` takes.

    Args:
        config: every knob.
        out: folder of the model that validated best (``model.json``, ``weights.safetensors``,
            ``README.md``), of the last one (``last/``), of ``config.yaml``, ``data.json``,
            ``log.csv``, ``checkpoint.safetensors`` and ``tensorboard/``.
        resume: go on from the checkpoint that is there, or begin if there is none.
        overwrite: begin anew where there is one.
        device: "auto", "cpu" or "cuda".
        minutes: stop, to be resumed, after as many.
        show: tell the terminal how it goes.

    Returns:
        How far the training came.

    Raises:
        InputError: the data cannot be used, memory does not suffice, or there is no sense in
            going on; the message says what to do.
    """
    until = time.monotonic() + 60 * minutes
    where = torch_device(device)
    check_run(config, out, resume=resume, overwrite=overwrite)
    with (
        world(where) as among,
        Monitor(out, config, show=show and among.is_first, write=among.is_first) as monitor,
    ):
        scans = gather(config.data, config.seed)
        check_beforehand(config, scans, where)
        cohort = first_then_others(
            among, lambda: prepare_cohort(config, scans, progress=monitor.preparing)
        )
        monitor.warn(cohort.skipped)
        learner = Learner.begin(config, cohort, where, among)
        if resume and (out / NAME).exists():
            learner.restore(out)
            check_same(learner.progress, scans, among)
        check_together(learner.progress, among, where)
        learner.progress.processes, learner.progress.scans = among.size, hash_of(scans)
        if among.is_first:
            run_folder.clear(out, fresh=not resume)
            if not (out / NAME).exists():  # before there is any model: --resume tells a run by it
                learner.checkpoint(out)
            run_folder.describe(config, cohort, out)
        monitor.begin(learner.progress)
        _loop(learner, cohort, out, monitor, until)
        return learner.progress


def _loop(learner: "Learner", cohort: Cohort, out: Path, monitor: Monitor, until: float) -> None:
    """Take the steps that are left, or as many as there is time for."""
    config, progress, among = learner.config, learner.progress, learner.among
    began = time.monotonic() - progress.seconds
    atlas = prepare_atlas(config, cohort)
    validator = Validator(config, cohort, learner.device, learner.objective, atlas)
    progress.start = validator.before()
    if not validator.pairs:
        monitor.warn(["there are no two scans of val subjects: nothing is validated"])
    with closing(_batches(learner, cohort, atlas)) as batches, stop_signals() as asked_to_stop:
        for step in range(progress.step, config.steps):
            phase, scores = phase_at(config, step), dict[str, float]()
            try:
                values = learner.update(step, phase, batches, monitor)
            except InputError:  # what was learnt until now is good
                if among.is_first:
                    learner.checkpoint(out)
                raise
            release_free_memory()
            progress.step = done = step + 1
            progress.seconds = time.monotonic() - began
            monitor.step(progress, values, learning_rate(config, step))
            is_due = done == config.steps or done % config.validation.every == 0
            if is_due:
                scores = _validate(learner, validator, phase, cohort, out, monitor)
            stop = asked_to_stop() or time.monotonic() > until
            stop = any_of(stop, among, learner.device)  # or the others would wait for us
            if among.is_first and (stop or is_due or done % config.log.checkpoint == 0):
                learner.checkpoint(out)
            validator.check_progress(done, scores)
            if stop:
                break


def _validate(
    learner: "Learner",
    validator: Validator,
    phase: Phase,
    cohort: Cohort,
    out: Path,
    monitor: Monitor,
) -> dict[str, float]:
    """Score what has been learnt so far, show and save it."""
    model, progress = learner.model(cohort.recipe, phase), learner.progress
    scores = validator(model, phase)
    progress.skipped += monitor.skipped(validator.skipped)
    monitor.validated(progress, scores, lambda: validator.pictures(model, phase))
    if learner.among.is_first:
        run_folder.keep(model, learner.config, cohort, out, progress, scores)
    return scores


def _batches(
    learner: "Learner", cohort: Cohort, atlas: tuple[Tensor, Tensor | None] | None
) -> Generator[Batch, None, None]:
    """Batches from the next step on."""
    config, among, first = learner.config, learner.among, learner.progress.step
    labels = any(name.endswith("labels") for name in learner.objective.wants)
    knobs = config.sampling, config.augmentation
    pairs = PairDataset(cohort, *knobs, seed=config.seed, atlas=atlas, labels=labels)
    return loader.batches(pairs, config, among, first)


@dataclass
class Learner:
    """A network that learns, and what it needs to go on learning.

    Args:
        network: the one whose weights are updated.
        kept: the one that is validated and saved: the same, or the average of its past.
    """

    config: Config
    objective: Objective
    network: nn.Module
    kept: nn.Module
    optimizer: torch.optim.Optimizer
    device: torch.device
    among: World
    progress: TrainingState = field(default_factory=TrainingState)

    @classmethod
    def begin(cls, config: Config, cohort: Cohort, device: torch.device, among: World) -> "Learner":
        """With fresh weights, or those of ``config.start_from``.

        Raises:
            InputError: the memory that is free will not do.
        """
        objective = Objective(config, len(cohort.structures))
        check_classes(config, cohort)
        torch.manual_seed(config.seed)
        network = Model.build(config.network, cohort.recipe).network
        if config.start_from:
            network.load_state_dict(network_to_start_from(config).state_dict())
        check_memory(config, cohort.recipe.grid.shape, len(cohort.structures), device)
        network = channels_last(network.to(device))
        kept = copy.deepcopy(network).requires_grad_(False) if config.optimiser.ema else network
        optimizer = torch.optim.AdamW(
            network.parameters(), weight_decay=config.optimiser.weight_decay
        )
        return cls(config, objective, network, kept, optimizer, device, among)

    def update(
        self, step: int, phase: Phase, batches: Iterator[Batch], monitor: Monitor
    ) -> dict[str, float]:
        """One step; returns the loss, each loss, and the norm of the gradient.

        Raises:
            InputError: one of them is not a finite number; the weights are as before.
        """
        passes, skipped = self.config.optimiser.accumulate, 0
        sums: dict[str, float] = {}
        torch.manual_seed(self.config.seed * 2**31 + step)  # for what a loss may draw
        self.optimizer.zero_grad(set_to_none=True)
        for _ in range(passes):
            batch = next(batches).to(self.device)
            skipped += monitor.skipped(batch.skipped)
            losses = self.objective(self.network, batch, phase)
            (losses["loss"] / passes).backward()
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + float(value.detach()) / passes
        average_gradients(self.network, self.among)
        clip = self.config.optimiser.clip or math.inf
        norm = float(nn.utils.clip_grad_norm_(self.network.parameters(), clip))
        *means, mean = mean_of([*sums.values(), skipped], self.among, self.device)
        self.progress.skipped += round(mean * self.among.size)
        values = {**dict(zip(sums, means, strict=True)), "gradient_norm": norm}
        check_finite(values, step)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.config, step)
        self.optimizer.step()
        if self.kept is not self.network:
            average_weights(self.kept, self.network, self.config.optimiser.ema, step)
        return values

    def model(self, recipe: Recipe, phase: Phase) -> Model:
        """What has been learnt, as a model of the lattice that the phase works on."""
        recipe = replace(recipe, grid=recipe.grid.averaged(phase.downsample))
        return Model(self.kept, self.config.network, recipe)

    def checkpoint(self, out: Path) -> None:
        """Write the state from which ``restore`` goes on."""
        config = self.config.model_dump(mode="json")
        save_checkpoint(out, self.progress, config, self.optimizer, **self._networks())

    def restore(self, out: Path) -> None:
        """Go on from the checkpoint in ``out``."""
        self.progress = load_checkpoint(out, self.optimizer, **self._networks())

    def _networks(self) -> dict[str, nn.Module]:
        both = {"network": self.network, "kept": self.kept}
        return both if self.kept is not self.network else {"network": self.network}


def check_classes(config: Config, cohort: Cohort) -> None:
    """Make sure that a network that recognises structures has a class for each.

    Raises:
        InputError: it has another number of them.
    """
    there = len(cohort.structures)
    learns = config.capabilities.learns_from
    if learns == "labels" and config.network.get("structures") != there:
        raise InputError(f"network.structures: {there} are wanted, as the label maps have")


def average_weights(kept: nn.Module, network: nn.Module, decay: float, step: int) -> None:
    """The average becomes decay · average + (1 − decay) · weights; at first quicker than that."""
    decay = min(decay, (1 + step) / (10 + step))
    with torch.no_grad():
        for average, value in zip(kept.parameters(), network.parameters(), strict=True):
            average.lerp_(value, 1 - decay)


def check_finite(values: dict[str, float], step: int) -> None:
    """Make sure that there is sense in a step.

    Raises:
        InputError: a loss or the gradient is infinite or not a number.
    """
    bad = [name for name, value in values.items() if not math.isfinite(value)]
    if bad:
        raise InputError(
            f"step {step + 1}: {', '.join(bad)} is not a finite number; the state before it is "
            f"saved; begin another training with a lower optimiser.learning_rate or "
            f"optimiser.clip, or in precision=float32 (start_from takes the model there is)"
        )
