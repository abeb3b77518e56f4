"""What a training leaves in its folder beside the checkpoint: models, and where they are from."""

import json
from pathlib import Path
from typing import Any

from ..files import write_bytes
from ..networks.model import Model
from .card import card_of, readme
from .checkpoint import NAME, TrainingState
from .cohort import Cohort, described
from .config import Config, to_yaml
from .schedule import phase_at
from .validation import better

_OF_A_MODEL = "model.json", "weights.safetensors", "README.md"


def clear(out: Path, *, fresh: bool) -> None:
    """Remove what a run left that was killed; with ``fresh``, all that an earlier training left."""
    for part in (*out.glob(".*.part"), *out.glob("last/.*.part")):
        part.unlink()
    if fresh:
        old = [folder / name for folder in (out, out / "last") for name in _OF_A_MODEL]
        for path in (*old, out / NAME, *out.glob("tensorboard/events.*")):
            path.unlink(missing_ok=True)


def describe(config: Config, cohort: Cohort, out: Path) -> None:
    """Write what is known beforehand: ``config.yaml`` and ``data.json``.

    Raises:
        InputError: they cannot be written.
    """
    write_bytes(out / "config.yaml", to_yaml(config).encode())
    _write_json(out / "data.json", described(cohort))


def keep(
    model: Model,
    config: Config,
    cohort: Cohort,
    out: Path,
    progress: TrainingState,
    scores: dict[str, float],
) -> None:
    """Save the model as the last one, and as the best one if it is that."""
    folders = [out / "last"]
    if is_best(config, progress, scores):
        progress.best = {**scores, "step": progress.step}
        folders.append(out)
    model.card = card_of(config, cohort, progress, scores)
    for folder in folders:
        model.save(folder)
        write_bytes(folder / "README.md", readme(str(folder), model.card).encode())


def is_best(config: Config, progress: TrainingState, scores: dict[str, float]) -> bool:
    """Whether no model before was as good; losses compare within a phase only."""
    then, now = (
        (phase.downsample, phase.leave_out)
        for phase in (
            phase_at(config, int(progress.best.get("step", progress.step)) - 1),
            phase_at(config, progress.step - 1),
        )
    )
    return better(scores, progress.best) or ("val_dice" not in scores and then != now)


def _write_json(path: Path, content: Any) -> None:
    write_bytes(path, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())
