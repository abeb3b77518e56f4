"""The training of a registration function: one visible loop. θ ← argmin Σ cost(f, m∘φ, φ).

    voxwarp train CONFIG.yaml [key=value ...] -o RUN
    torchrun --nproc-per-node 4 -m voxwarp train CONFIG.yaml -o RUN

Balakrishnan et al., CVPR 2018, equations 1 to 3. All that is random follows from the seed and
the number of the step, so that a run which was killed goes on as if nothing had happened.
"""

import copy
import hashlib
import inspect
import json
import math
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ..allocation import freed_memory_kept, give_back
from ..data.scans import Scan, gather
from ..device import channels_last, torch_device
from ..errors import InputError
from ..files import check_writable, write_bytes
from ..networks.model import Model, Recipe
from ..networks.network import NETWORKS
from .card import card_of, readme
from .checkpoint import NAME, Progress, load_checkpoint, save_checkpoint, saved_config
from .config import Config, Phase, to_yaml
from .cohort import Cohort, described, prepare_atlas, prepare_cohort, recipe_of
from .memory import check_memory
from .monitor import Monitor
from .objective import Objective
from .parallel import World, any_of, average_gradients, first_then_others, mean_of, world
from .sampling import Batch, Pairs, collate
from .validation import Validator, better

_OF_A_MODEL = "model.json", "weights.safetensors", "README.md"

#: What may differ between the runs of one training.
MAY_CHANGE = "log.", "workers", "data.cache", "validation.give_up"


def train(
    config: Config,
    out: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    device: str = "auto",
    minutes: float = math.inf,
    show: bool = True,
) -> Progress:
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
            _check_same(learner.progress, scans, among)
        _check_together(learner.progress, among, where)
        learner.progress.processes, learner.progress.scans = among.size, _hash_of(scans)
        if among.is_first:
            _open_run(learner, cohort, out, fresh=not resume)
        monitor.begin(learner.progress)
        _loop(learner, cohort, out, monitor, until)
        return learner.progress


@freed_memory_kept()
def _loop(learner: "Learner", cohort: Cohort, out: Path, monitor: Monitor, until: float) -> None:
    """Take the steps that are left, or as many as there is time for."""
    config, progress, among = learner.config, learner.progress, learner.among
    began = time.monotonic() - progress.seconds
    atlas = prepare_atlas(config, cohort)
    validator = Validator(config, cohort, learner.device, learner.objective, atlas)
    progress.start = validator.before()
    if not validator.pairs:
        monitor.warn(["there are no two scans of val people: nothing is validated"])
    with closing(_batches(learner, cohort, atlas)) as batches, _stop_signals() as asked_to_stop:
        for step in range(progress.step, config.steps):
            phase, scores = phase_at(config, step), dict[str, float]()
            try:
                values = learner.update(step, phase, batches, monitor)
            except InputError:  # what was learnt until now is good
                if among.is_first:
                    learner.checkpoint(out)
                raise
            give_back()
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
        _keep(model, learner.config, cohort, out, progress, scores)
    return scores


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
    progress: Progress = field(default_factory=Progress)

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
            network.load_state_dict(_weights_of(config).state_dict())
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
        """One step; returns the loss, each cost, and the norm of the gradient.

        Raises:
            InputError: one of them is not a finite number; the weights are as before.
        """
        passes, skipped = self.config.optimiser.accumulate, 0
        sums: dict[str, float] = {}
        torch.manual_seed(self.config.seed * 2**31 + step)  # for what a cost may draw
        self.optimizer.zero_grad(set_to_none=True)
        for _ in range(passes):
            batch = next(batches).to(self.device)
            skipped += monitor.skipped(batch.skipped)
            costs = self.objective(self.network, batch, phase)
            (costs["loss"] / passes).backward()
            for name, value in costs.items():
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
        grid = recipe.grid.averaged(phase.downsample)
        recipe = Recipe(grid, recipe.percentile, recipe.alignment)
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
    if config.network["name"] == "anatomy" and config.network.get("structures") != there:
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
        InputError: a cost or the gradient is infinite or not a number.
    """
    bad = [name for name, value in values.items() if not math.isfinite(value)]
    if bad:
        raise InputError(
            f"step {step + 1}: {', '.join(bad)} is not a finite number; the state before it is "
            f"saved; begin another training with a lower optimiser.learning_rate or "
            f"optimiser.clip, or in precision=float32 (start_from takes the model there is)"
        )


def phase_at(config: Config, step: int) -> Phase:
    """The phase that a step belongs to."""
    for phase in config.phases:
        if step < phase.steps:
            return phase
        step -= phase.steps
    return config.phases[-1]


def learning_rate(config: Config, step: int) -> float:
    """A warm-up in each phase; one cosine over all of them, from the peak to ``final`` of it."""
    knobs, start = config.optimiser, 0
    for phase in config.phases:
        if start <= step < start + min(knobs.warm_up, phase.steps):
            break
        start += phase.steps
    else:
        start = -knobs.warm_up  # long ago
    warmth = min(1.0, (step - start + 1) / max(1, knobs.warm_up))
    cosine = (1 + math.cos(math.pi * step / config.steps)) / 2
    return knobs.learning_rate * warmth * (knobs.final + (1 - knobs.final) * cosine)


def check_run(config: Config, out: Path, *, resume: bool, overwrite: bool) -> None:
    """Make sure, before anything costs time, that a training can be written to ``out``.

    Raises:
        InputError: it holds another training, or cannot be written.
    """
    check_writable(out)
    if resume and overwrite:
        raise InputError("resume goes on, overwrite begins anew: just one of them is wanted")
    held = [name for name in (NAME, "model.json") if (out / name).exists()]
    if held and not (resume or overwrite):
        raise InputError(
            f"output {out}: it holds a training ({held[0]}); --resume goes on with it, "
            f"--overwrite begins anew"
        )
    if not held and not overwrite and (out / "README.md").exists():
        raise InputError(f"output {out}: a README.md is there, which the model's would replace")
    if resume and held and NAME not in held:
        raise InputError(
            f"output {out}: it holds a model, and no {NAME} to go on from; take another folder, "
            f"or --overwrite"
        )
    if not resume or not held:
        return
    before, now = (_flat(c) for c in (saved_config(out), config.model_dump(mode="json")))
    for name in sorted(before.keys() | now.keys()):
        if before.get(name) != now.get(name) and not name.startswith(MAY_CHANGE):
            raise InputError(
                f"output {out}: its training has {name} = {before.get(name)!r}, and not "
                f"{now.get(name)!r}; resume it as it is, or begin another with start_from={out}"
            )


def check_beforehand(config: Config, scans: Sequence[Scan], device: torch.device) -> None:
    """Make sure of what can be known before scans are prepared, which takes time.

    Raises:
        InputError: memory will not do, or the weights to start from do not fit.
    """
    if config.start_from:
        _weights_of(config)
    # How many structures there are may be known later; Learner.begin looks again.
    structures = int(config.network.get("structures", 0))
    check_memory(config, recipe_of(config, scans).grid.shape, structures, device)


def _check_same(progress: Progress, scans: Sequence[Scan], among: World) -> None:
    """Make sure that a training goes on with what it began with.

    Raises:
        InputError: there were more or fewer processes, and so other pairs in a step; or other
            scans, so that people who were learnt from may be validated on.
    """
    if progress.processes != among.size:
        raise InputError(
            f"the training was begun by {progress.processes} processes, and these are "
            f"{among.size}: resume it with as many, or begin another with start_from"
        )
    if progress.scans != _hash_of(scans):
        raise InputError(
            "the scans, their labels or their splits are not those that the training began with: "
            "put them back, or begin another with start_from"
        )


def _check_together(progress: Progress, among: World, device: torch.device) -> None:
    """Make sure that all processes found the same checkpoint.

    Raises:
        InputError: the folder of the run is not shared by their machines.
    """
    (mean,) = mean_of([float(progress.step)], among, device)
    if mean != progress.step:
        raise InputError("the processes find different checkpoints: the folder must be shared")


def _hash_of(scans: Sequence[Scan]) -> str:
    """Of the scans' names and of what each is for."""
    about = sorted((s.dataset, s.person, s.split, s.path.name, s.labels is not None) for s in scans)
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()


def _flat(tree: Any, before: str = "") -> dict[str, Any]:
    """Nested dictionaries and lists as one dictionary of dotted names."""
    inside = tree.items() if isinstance(tree, dict) else enumerate(tree)
    flat = {}
    for key, value in inside:
        name = f"{before}{key}"
        if isinstance(value, (dict, list)) and value:
            flat.update(_flat(value, f"{name}."))
        else:
            flat[name] = value
    return flat


def _open_run(learner: "Learner", cohort: Cohort, out: Path, *, fresh: bool) -> None:
    """Write what is known beforehand; what an earlier training left goes only now."""
    for part in (*out.glob(".*.part"), *out.glob("last/.*.part")):  # of a run that was killed
        part.unlink()
    if fresh:
        old = [folder / name for folder in (out, out / "last") for name in _OF_A_MODEL]
        for path in (*old, out / NAME, *out.glob("tensorboard/events.*")):
            path.unlink(missing_ok=True)
    if not (out / NAME).exists():  # before there is any model: --resume tells a run by it
        learner.checkpoint(out)
    write_bytes(out / "config.yaml", to_yaml(learner.config).encode())
    _write_json(out / "data.json", described(cohort))


def _batches(
    learner: "Learner", cohort: Cohort, atlas: tuple[Tensor, Tensor | None] | None
) -> Generator[Batch, None, None]:
    """Batches from the next step on.

    Raises:
        InputError: scan after scan cannot be read, or a process that reads them was killed.
    """
    config = learner.config
    labels = any(name.endswith("labels") for name in learner.objective.wants)
    knobs = config.sampling, config.augmentation
    pairs = Pairs(cohort, *knobs, seed=config.seed, atlas=atlas, labels=labels)
    try:
        loader = _loader(pairs, config, learner.among, learner.progress.step)
        with _interrupts_ignored():  # by the workers that start now, from their first moment
            batches = iter(loader)
        yield from batches
        return
    except InputError as error:  # that of a worker has its whole traceback in front
        problem = str(error).rpartition("InputError: ")[2].strip()
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        problem = (
            "a process that read scans was killed; if memory ran out, take fewer workers, and go "
            "on with --resume"
        )
    # Here, and not where it was caught: an error that is held keeps the workers alive.
    raise InputError(problem)


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _loader(pairs: Pairs, config: Config, among: World, first: int) -> DataLoader:
    """Batches from step ``first`` on. The processes share out the numbers of the samples."""
    size, passes = config.optimiser.batch, config.optimiser.accumulate
    mine = range(among.rank * size, (among.rank + 1) * size)
    numbers = [
        [number * among.size * size + i for i in mine]
        for number in range(first * passes, config.steps * passes)
    ]
    return DataLoader(
        pairs,
        batch_sampler=numbers,
        collate_fn=collate,
        num_workers=config.workers,
        multiprocessing_context="spawn" if config.workers else None,
        worker_init_fn=_ignore_signals,
        generator=torch.Generator(),  # it draws a seed, which must not be one of a cost's numbers
    )


def _ignore_signals(worker: int) -> None:
    """Ctrl-C and schedulers tell all processes, but the step in hand wants its scans.

    The second SIGTERM is meant: it is that of the training, which ends.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))


def _weights_of(config: Config) -> nn.Module:
    model = Model.load(str(config.start_from))
    theirs, ours = (_with_defaults(network) for network in (model.architecture, config.network))
    if theirs != ours:
        raise InputError(f"start_from {config.start_from}: its network is {theirs}, and not {ours}")
    return model.network


def _with_defaults(network: dict[str, Any]) -> dict[str, Any]:
    """What decides the shapes of a network's weights."""
    known = inspect.signature(NETWORKS[network["name"]]).parameters
    defaults = {name: p.default for name, p in known.items()}
    whole = {**{k: list(v) if isinstance(v, tuple) else v for k, v in defaults.items()}, **network}
    return {key: value for key, value in whole.items() if key != "steps"}


def _keep(
    model: Model,
    config: Config,
    cohort: Cohort,
    out: Path,
    progress: Progress,
    scores: dict[str, float],
) -> None:
    """Save the model as the last one, and as the best one if it is that."""
    folders = [out / "last"]
    if _is_best(config, progress, scores):
        progress.best = {**scores, "step": progress.step}
        folders.append(out)
    model.card = card_of(config, cohort, progress, scores)
    for folder in folders:
        model.save(folder)
        write_bytes(folder / "README.md", readme(str(folder), model.card).encode())


def _is_best(config: Config, progress: Progress, scores: dict[str, float]) -> bool:
    """Whether no model before was as good; costs compare within a phase only."""
    then, now = (
        (phase.downsample, phase.leave_out)
        for phase in (
            phase_at(config, int(progress.best.get("step", progress.step)) - 1),
            phase_at(config, progress.step - 1),
        )
    )
    return better(scores, progress.best) or ("val_dice" not in scores and then != now)


@contextmanager
def _stop_signals() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C or a scheduler's SIGTERM has come: the step is finished and saved first."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    before = {
        number: signal.signal(number, lambda *_: asked.set())
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield asked.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _write_json(path: Path, content: Any) -> None:
    write_bytes(path, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())
