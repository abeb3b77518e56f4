"""Train a network that registers scans: θ ← argmin Σ loss(f, m∘φ, φ).

    voxwarp train CONFIG.yaml [key=value ...] -o RUN
    torchrun --nproc-per-node 4 -m voxwarp train CONFIG.yaml -o RUN

Balakrishnan et al., CVPR 2018, equations 1 to 3. Everything random depends on the seed and the
number of the step alone. So a run that was killed continues as if it had not been interrupted.
"""

import copy
import math
import time
from collections.abc import Generator, Iterator
from contextlib import closing, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .._allocation import release_free_memory
from .._device import channels_last, torch_device
from .._lock import lock_folder
from ..data.scans import gather
from ..errors import InputError
from ..networks.model import Model
from ..space.volume import header_warnings
from . import loader, run_folder
from .augmentation import left_right_axis
from .batch import Batch
from .checkpoint import NAME, TrainingState, load_checkpoint, save_checkpoint
from .cohort import Cohort, prepare_atlas, prepare_cohort
from .config import Config, Phase
from .inspection import check_beforehand
from .memory import check_memory
from .monitor import Monitor
from .objective import Objective
from .parallel import (
    World,
    any_of,
    average_gradients,
    join_world,
    mean_of,
    run_first_then_others,
)
from .resume import check_run, check_same_checkpoint, check_unchanged, hash_of_scans
from .sampling import PairDataset
from .schedule import learning_rate, phase_at
from .signals import stop_signals
from .start import read_start, scale_output
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
    """Train a model and write it into a folder, for ``register`` with ``model``.

    Args:
        config: configuration, from ``read_config``.
        out: folder for the best model on the validation pairs (``model.json``,
            ``weights.safetensors``, ``README.md``), the last one (``last/``), ``config.yaml``,
            ``data.json``, ``log.csv``, ``checkpoint.safetensors`` and ``tensorboard/``.
        resume: continue from the checkpoint in the folder, or start if there is none.
        overwrite: replace the training in the folder, if there is one.
        device: "auto", "cpu" or "cuda".
        minutes: stop after this time; ``resume`` continues later.
        show: report the progress in the terminal.

    Returns:
        The state at the end, with steps, time and scores.

    Raises:
        InputError: the data cannot be used, the memory is too small, or the training does not
            learn; the message says what to do.
    """
    until = time.monotonic() + 60 * minutes
    processor = torch_device(device)
    check_run(config, out, resume=resume, overwrite=overwrite)
    with (
        join_world(processor) as world,
        lock_folder(out) if world.is_first else nullcontext(),
        Monitor(out, config, show=show and world.is_first, write=world.is_first) as monitor,
    ):
        scans = gather(config.data, config.seed)
        check_beforehand(config, scans, processor)
        cohort = run_first_then_others(
            world, lambda: prepare_cohort(config, scans, progress=monitor.preparing)
        )
        monitor.warn(cohort.skipped)
        monitor.warn(_header_warnings(config, cohort))
        learner = Learner.begin(config, cohort, processor, world)
        if resume and (out / NAME).exists():
            learner.restore(out)
            check_unchanged(learner.state, scans, world)
        check_same_checkpoint(learner.state, world, processor)
        learner.state.processes, learner.state.scans = world.size, hash_of_scans(scans)
        if world.is_first:
            run_folder.clear(out, fresh=not resume)
            if not (out / NAME).exists():  # written at once, because resuming needs a checkpoint
                learner.checkpoint(out)
            run_folder.write_description(config, cohort, out)
        monitor.begin(learner.state)
        _loop(learner, cohort, out, monitor, until)
        return learner.state


def _header_warnings(config: Config, cohort: Cohort) -> list[str]:
    """What the headers of scans, label maps and atlas leave in doubt, once for each file."""
    atlas = config.sampling.atlas if config.sampling.atlas != "template" else None
    return [
        *header_warnings([*(scan.path for scan in cohort.scans), atlas]),
        *header_warnings(
            [*(scan.labels for scan in cohort.scans), config.sampling.atlas_labels], "label map"
        ),
    ]


def _loop(learner: "Learner", cohort: Cohort, out: Path, monitor: Monitor, until: float) -> None:
    """Take the remaining steps, or as many as fit into the time."""
    config, state, world = learner.config, learner.state, learner.world
    began = time.monotonic() - state.seconds
    atlas = prepare_atlas(config, cohort)
    validator = Validator(config, cohort, learner.device, learner.objective, atlas)
    state.start = validator.scores_before()
    if not validator.pairs:
        monitor.warn(
            [
                "data: split val has no pair of scans, so nothing is validated and the last model "
                "counts as the best"
            ]
        )
    with closing(_batches(learner, cohort, atlas)) as batches, stop_signals() as stop_requested:
        for step in range(state.step, config.steps):
            phase, scores = phase_at(config, step), dict[str, float]()
            if step and (before := phase_at(config, step - 1).downsample) != phase.downsample:
                learner.scale_output(before / phase.downsample)
            try:
                values = learner.update(step, phase, batches, monitor)
            except InputError:  # the state before this step is good
                if world.is_first:
                    learner.checkpoint(out)
                raise
            release_free_memory()
            state.step = done = step + 1
            state.seconds = time.monotonic() - began
            monitor.step(state, values, learning_rate(config, step))
            is_due = done == config.steps or done % config.validation.every == 0
            if is_due:
                scores = _validate(learner, validator, phase, cohort, out, monitor)
            stop = stop_requested() or time.monotonic() > until
            stop = any_of(stop, world, learner.device)  # all stop together, or some would wait
            if world.is_first and (stop or is_due or done % config.log.checkpoint == 0):
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
    """Score the current model, report the scores and save it."""
    model, state = learner.model(cohort, phase), learner.state
    scores = validator(model, phase)
    state.skipped += monitor.skipped(validator.skipped)
    monitor.validated(state, scores, lambda: validator.pictures(model, phase))
    if learner.world.is_first:
        run_folder.save_model(model, learner.config, cohort, out, state, scores)
    return scores


def _batches(
    learner: "Learner", cohort: Cohort, atlas: tuple[Tensor, Tensor | None] | None
) -> Generator[Batch, None, None]:
    """Batches from the next step on."""
    config = learner.config
    labels = any(n.endswith("labels") for n in learner.objective.inputs)
    pairs = PairDataset(
        cohort,
        config.sampling,
        config.augmentation,
        seed=config.seed,
        synthesis=config.synthesis,
        atlas=atlas,
        labels=labels or config.synthesis.share > 0,
    )
    return loader.batches(pairs, config, learner.world, learner.state.step)


@dataclass
class Learner:
    """A network in training, with everything that a step needs.

    Args:
        config: configuration of the training.
        objective: the losses.
        network: the network whose weights are updated.
        kept: the network that is validated and saved: the same one, or the moving average.
        optimizer: optimiser of the network's weights.
        device: device of the networks.
        world: the processes of the training.
        state: how far the training has come.
    """

    config: Config
    objective: Objective
    network: nn.Module
    kept: nn.Module
    optimizer: torch.optim.Optimizer
    device: torch.device
    world: World
    state: TrainingState = field(default_factory=TrainingState)

    @classmethod
    def begin(cls, config: Config, cohort: Cohort, device: torch.device, world: World) -> "Learner":
        """Begin with random weights, or with those of ``config.start_from``.

        Raises:
            InputError: the memory is too small, or the network does not fit the structures.
        """
        objective = Objective(config, len(cohort.structures))
        check_classes(config, cohort)
        torch.manual_seed(config.seed)
        network = Model.build(config.network, cohort.recipe).network
        if config.start_from:
            start = read_start(config)
            network.load_state_dict(start.weights)
            grid = cohort.recipe.grid.averaged(config.phases[0].downsample)
            scale_output(network, start.spacing / grid.spacing[0])
        check_memory(config, cohort.recipe.grid.shape, len(cohort.structures), device)
        network = channels_last(network.to(device))
        kept = copy.deepcopy(network).requires_grad_(False) if config.optimiser.ema else network
        optimizer = torch.optim.AdamW(
            network.parameters(), weight_decay=config.optimiser.weight_decay
        )
        return cls(config, objective, network, kept, optimizer, device, world)

    def update(
        self, step: int, phase: Phase, batches: Iterator[Batch], monitor: Monitor
    ) -> dict[str, float]:
        """Take one step.

        Returns:
            The weighted sum of losses, each loss, and the norm of the gradient.

        Raises:
            InputError: one of them is not a finite number; the weights are unchanged.
        """
        passes, skipped = self.config.optimiser.accumulate, 0
        sums: dict[str, float] = {}
        torch.manual_seed(self.config.seed * 2**31 + step)  # for losses that draw random numbers
        self.optimizer.zero_grad(set_to_none=True)
        for _ in range(passes):
            batch = next(batches).to(self.device)
            skipped += monitor.skipped(batch.skipped)
            losses = self.objective(self.network, batch, phase)
            (losses["loss"] / passes).backward()
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + float(value.detach()) / passes
        average_gradients(self.network, self.world)
        clip = self.config.optimiser.clip or math.inf
        norm = float(nn.utils.clip_grad_norm_(self.network.parameters(), clip))
        *means, mean = mean_of([*sums.values(), skipped], self.world, self.device)
        self.state.skipped += round(mean * self.world.size)
        values = {**dict(zip(sums, means, strict=True)), "gradient_norm": norm}
        check_finite(values, step)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.config, step)
        self.optimizer.step()
        if self.kept is not self.network:
            average_weights(self.kept, self.network, self.config.optimiser.ema, step)
        return values

    def scale_output(self, factor: float) -> None:
        """See ``start.scale_output``."""
        for network in {self.network, self.kept}:
            scale_output(network, factor)

    def model(self, cohort: Cohort, phase: Phase) -> Model:
        """The current model, on the working grid of a phase."""
        grid = cohort.recipe.grid.averaged(phase.downsample)
        architecture = {**self.config.network, **self._mirror(cohort)}
        return Model(self.kept, architecture, replace(cohort.recipe, grid=grid))

    def _mirror(self, cohort: Cohort) -> dict[str, Any]:
        """What mirrored images show, for a network that segments and has learned from them."""
        learns_from = self.config.capabilities.learns_from
        if learns_from != "labels" or not self.config.augmentation.flip:
            return {}
        classes = cohort.mirror[: len(cohort.structures) + 1].tolist()
        axis = left_right_axis(cohort.recipe.grid)
        return {"mirror": {"axis": axis, "classes": classes}}

    def checkpoint(self, out: Path) -> None:
        """Write a checkpoint, for ``restore``."""
        config = self.config.model_dump(mode="json")
        save_checkpoint(out, self.state, config, self.optimizer, **self._networks())

    def restore(self, out: Path) -> None:
        """Load the checkpoint in a folder."""
        self.state = load_checkpoint(out, self.optimizer, **self._networks())

    def _networks(self) -> dict[str, nn.Module]:
        if self.kept is self.network:
            return {"network": self.network}
        return {"network": self.network, "kept": self.kept}


def check_classes(config: Config, cohort: Cohort) -> None:
    """Make sure that a network that segments has one class per structure.

    Raises:
        InputError: it has another number of classes.
    """
    count, classes = len(cohort.structures), config.network.get("structures")
    if config.capabilities.learns_from == "labels" and classes != count:
        raise InputError(
            f"network.structures must be {count}, the number of structures in the label maps, got "
            f"{classes}"
        )


def average_weights(kept: nn.Module, network: nn.Module, decay: float, step: int) -> None:
    """Update the moving average: decay · average + (1 − decay) · weights; faster at first."""
    # TensorFlow's ExponentialMovingAverage limits the decay of the first steps the same way.
    decay = min(decay, (1 + step) / (10 + step))
    with torch.no_grad():
        for average, value in zip(kept.parameters(), network.parameters(), strict=True):
            average.lerp_(value, 1 - decay)


def check_finite(values: dict[str, float], step: int) -> None:
    """Make sure that the losses and the gradient of a step are finite numbers.

    Raises:
        InputError: one of them is infinite or not a number.
    """
    bad = [name for name, value in values.items() if not math.isfinite(value)]
    if bad:
        raise InputError(
            f"step {step + 1}: {', '.join(bad)} is not a finite number (the state before this step "
            f"is saved); start another training with a lower optimiser.learning_rate or "
            f"optimiser.clip, or with precision=float32, from this model with start_from"
        )
