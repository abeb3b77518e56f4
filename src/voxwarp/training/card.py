"""The model card: training data, recipe, scores and licence of a trained model."""

import shlex
import subprocess
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..data.sources import SPLITS, Split
from .checkpoint import TrainingState
from .cohort import Cohort
from .config import Config


def card_of(
    config: Config, cohort: Cohort, state: TrainingState, scores: dict[str, float]
) -> dict[str, Any]:
    """Build the card, for ``model.json``.

    Args:
        config: configuration of the training.
        cohort: its scans.
        state: how far the training has come.
        scores: scores of this model on the validation pairs.
    """
    sources = config.data.sources
    licences = sorted({s.licence for s in sources if s.licence})
    return {
        "task": config.task,
        "data": _data(cohort),
        "recipe": config.model_dump(mode="json"),
        "seed": config.seed,
        "voxwarp": version("voxwarp"),
        "commit": commit(),
        "steps": state.step,
        "of_steps": config.steps,
        "hours": round(state.seconds / 3600, 3),
        "samples_skipped": state.skipped,
        "scores": {
            "validation": {name: round(value, 5) for name, value in scores.items()},
            "validation_before": {n: round(v, 5) for n, v in state.start.items()},
        },
        "licence": "; ".join(licences) or "not stated; the licence of the training scans applies",
        "credit": [line for source in sources for line in source.credit],
        "limits": config.limits,
    }


def _data(cohort: Cohort) -> list[str]:
    """A line for each data set and split."""
    lines = []
    each = Counter((scan.dataset, scan.split) for scan in cohort.scans)
    for (dataset, split), scans in sorted(each.items(), key=_order):
        chosen = [i for i, s in enumerate(cohort.scans) if (s.dataset, s.split) == (dataset, split)]
        subjects = len({cohort.subjects[i] for i in chosen})
        labelled = sum(cohort.is_labelled(i) for i in chosen)
        licence = next((cohort.scans[i].licence for i in chosen if cohort.scans[i].licence), None)
        lines.append(
            f"{dataset}, {split}: {scans} scans of {subjects} subjects, {labelled} with labels"
            + (f" ({licence})" if licence else "")
        )
    return lines


def _order(item: tuple[tuple[str, Split], int]) -> tuple[str, int]:
    (dataset, split), _ = item
    return dataset, SPLITS.index(split)


def commit() -> str | None:
    """The git commit that voxwarp runs from, with a + if files were changed; None if unknown."""
    folder = Path(__file__).parent
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
        tracked = subprocess.run(
            ["git", "ls-files", "--error-unmatch", Path(__file__).name],
            cwd=folder,
            capture_output=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip() if tracked.returncode == 0 else None


def readme(name: str, card: dict[str, Any]) -> str:
    """Write the card as the text of a README.md."""
    scores = card["scores"]
    lines = [f"# {name}", "", card["task"][:1].upper() + card["task"][1:] + ".", ""]
    lines += [
        "```bash",
        f"voxwarp register moving.nii.gz fixed.nii.gz -o out --model {shlex.quote(name)}",
        "```",
    ]
    lines += ["", "## Data", "", *(f"- {line}" for line in card["data"]), ""]
    lines += ["## Training", ""]
    lines += [
        f"- {card['steps']} of {card['of_steps']} steps in {card['hours']:.2f} hours, "
        f"seed {card['seed']}, voxwarp {card['voxwarp']}, commit {card['commit'] or 'unknown'}",
        "- losses: "
        + ", ".join(f"{n} × {o.get('weight', 1.0)}" for n, o in card["recipe"]["losses"].items()),
        "- every setting is in `config.yaml` and `model.json`",
        "",
        "## Scores on the validation pairs",
        "",
        "| | before | after |",
        "|---|---|---|",
    ]
    before = scores["validation_before"]
    for score, value in scores["validation"].items():
        shown = f"{before[score]:.4g}" if score in before else ""
        lines.append(f"| {score.removeprefix('val_')} | {shown} | {value:.4g} |")
    if not scores["validation"]:
        lines.append("| not scored: no two val scans form a pair | | |")
    lines += ["", "## Licence", "", card["licence"] + ".", ""]
    lines += [f"- {line}" for line in card["credit"]]
    if card["limits"]:
        lines += ["", "## Limits", "", card["limits"]]
    return "\n".join(lines).rstrip() + "\n"
