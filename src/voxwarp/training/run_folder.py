"""The files of a training beside the checkpoint: models, configuration, list of scans."""

import json
from pathlib import Path
from typing import Any

from .._files import write_bytes
from ..networks.model import Model
from .card import card_of, readme
from .checkpoint import NAME, TrainingState
from .cohort import Cohort, describe_cohort
from .config import Config, to_yaml
from .schedule import phase_at
from .validation import is_better

_MODEL_FILES = "model.json", "weights.safetensors", "README.md"


def clear(out: Path, *, fresh: bool) -> None:
    """Remove unfinished files of a killed run; with ``fresh``, the whole earlier training."""
    for part in (*out.glob(".*.part"), *out.glob("last/.*.part")):
        part.unlink()
    if fresh:
        old = [folder / name for folder in (out, out / "last") for name in _MODEL_FILES]
        for path in (*old, out / NAME, *out.glob("tensorboard/events.*")):
            path.unlink(missing_ok=True)


def write_description(config: Config, cohort: Cohort, out: Path) -> None:
    """Write ``config.yaml`` and ``data.json``.

    Raises:
        InputError: they cannot be written.
    """
    write_bytes(out / "config.yaml", to_yaml(config).encode())
    _write_json(out / "data.json", describe_cohort(cohort))


def save_model(
    model: Model,
    config: Config,
    cohort: Cohort,
    out: Path,
    state: TrainingState,
    scores: dict[str, float],
) -> None:
    """Save a model in ``last/``, and in the folder itself if it is the best so far."""
    folders = [out / "last"]
    if is_best(config, state, scores):
        state.best = {**scores, "step": state.step}
        folders.append(out)
    model.card = card_of(config, cohort, state, scores)
    for folder in folders:
        model.save(folder)
        write_bytes(folder / "README.md", readme(str(folder), model.card).encode())


def is_best(config: Config, state: TrainingState, scores: dict[str, float]) -> bool:
    """Whether a model is better than all before; losses of different phases do not compare."""
    best_phase, phase = (
        (p.downsample, p.leave_out)
        for p in (
            phase_at(config, int(state.best.get("step", state.step)) - 1),
            phase_at(config, state.step - 1),
        )
    )
    return is_better(scores, state.best) or ("val_dice" not in scores and best_phase != phase)


def _write_json(path: Path, content: Any) -> None:
    write_bytes(path, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())
