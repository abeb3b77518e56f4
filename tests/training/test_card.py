"""The model card: training data, recipe and scores."""

import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import voxwarp
from voxwarp.data.scans import ScanRecord
from voxwarp.networks.model import Model
from voxwarp.preparation.recipe import Recipe
from voxwarp.space.grid import Grid
from voxwarp.training import card as module
from voxwarp.training.card import card_of, commit, readme
from voxwarp.training.checkpoint import TrainingState
from voxwarp.training.cohort import Cohort
from voxwarp.training.config import Config, build_config

BEFORE, AFTER = {"val_dice": 1 / 3}, {"val_dice": 0.654321987, "val_loss": -0.25}
PROGRESS = TrainingState(7, skipped=2, seconds=1800.0, start=BEFORE)
GRID = Grid((16, 16, 16), np.eye(4))


def config_of(**more: Any) -> Config:
    sources = [
        {"folder": "/a", "licence": "CC0", "credit": ["by A"]},
        {"folder": "/b", "licence": "CC BY 4.0", "credit": ["by B", "and C"]},
        {"folder": "/c"},
        {"folder": "/d", "licence": "CC0"},
    ]
    tree = {"data": {"sources": sources}, "phases": [{"steps": 4}, {"steps": 6}], "seed": 5}
    losses = {"ncc": {"window": 5}, "diffusion": {"weight": 0.5}}
    return build_config({**tree, "losses": losses, "task": "a task", **more})


def cohort_of() -> Cohort:
    """Data set b: subject p thrice, labelled once, and q; a: one subject in each split."""
    named = [
        ("p", "b", "train", True, "CC BY 4.0"), ("p", "b", "train", False, "CC BY 4.0"),
        ("q", "b", "train", True, "CC BY 4.0"), ("p", "a", "val", True, None),
        ("r", "a", "train", False, None), ("s", "a", "test", False, None),
    ]  # fmt: skip
    scans, files = [], []
    for subject, dataset, split, labelled, licence in named:
        path = Path(f"/{dataset}/{subject}.nii")
        labels = path.with_suffix(".labels") if labelled else None
        scans.append(ScanRecord(path, labels, subject, dataset, split, "row", licence))  # type: ignore[arg-type]
        files.append((path, labels))
    return Cohort(scans, Recipe(GRID), [], np.zeros(1), [], files)


@pytest.fixture
def card() -> dict[str, Any]:
    return card_of(config_of(limits="adults only"), cohort_of(), PROGRESS, AFTER)


def test_the_card_lists_each_data_set_and_split(card) -> None:
    assert card["data"] == [
        "a, train: 1 scans of 1 subjects, 0 with labels",
        "a, val: 1 scans of 1 subjects, 1 with labels",
        "a, test: 1 scans of 1 subjects, 0 with labels",
        "b, train: 3 scans of 2 subjects, 2 with labels (CC BY 4.0)",
    ]


def test_licences_are_joined_and_credit_is_kept(card) -> None:
    assert card["licence"] == "CC BY 4.0; CC0"
    assert card["credit"] == ["by A", "by B", "and C"]
    plain = config_of(data={"sources": [{"folder": "/a"}]})
    assert "not stated" in card_of(plain, cohort_of(), PROGRESS, {})["licence"]


def test_the_recipe_of_the_card_makes_the_same_configuration(card) -> None:
    assert build_config(card["recipe"]) == config_of(limits="adults only")
    facts = {name: card[name] for name in ("steps", "of_steps", "hours", "samples_skipped", "seed")}
    assert facts == {"steps": 7, "of_steps": 10, "hours": 0.5, "samples_skipped": 2, "seed": 5}
    assert card["voxwarp"] == voxwarp.__version__


def test_scores_are_there_before_and_after(card) -> None:
    assert card["scores"] == {
        "validation": {"val_dice": 0.65432, "val_loss": -0.25},
        "validation_before": {"val_dice": 0.33333},
    }


def test_the_readme_shows_scores_data_and_duties(card) -> None:
    text = readme("runs/mine", card)
    lines = text.splitlines()
    assert lines[0] == "# runs/mine"
    assert "voxwarp register moving.nii.gz fixed.nii.gz -o out --model runs/mine" in lines
    assert "| dice | 0.3333 | 0.6543 |" in lines
    assert "| loss |  | -0.25 |" in lines
    assert "- losses: ncc × 1.0, diffusion × 0.5" in lines
    assert {f"- {line}" for line in [*card["data"], *card["credit"]]} <= set(lines)
    assert {"A task.", "CC BY 4.0; CC0.", "adults only"} <= set(lines)
    assert text.endswith("adults only\n")
    assert text.index("## Licence") < text.index("- by B") < text.index("## Limits")


def test_the_command_in_the_readme_can_be_pasted(card) -> None:
    (line,) = (li for li in readme("my runs/it's", card).splitlines() if "register" in li)
    words = shlex.split(line)
    assert words[words.index("--model") + 1] == "my runs/it's"


def test_the_readme_of_a_training_without_val_subjects_says_so() -> None:
    text = readme("x", card_of(config_of(), cohort_of(), TrainingState(1), {}))
    assert "| not scored: no two val scans form a pair | | |" in text
    assert "## Limits" not in text


def test_a_model_gives_its_card_back(card, tmp_path: Path) -> None:
    model = Model.build({"name": "pyramid", "channels": [2, 2]}, Recipe(GRID), card=card)
    model.save(tmp_path / "m")
    assert Model.load(tmp_path / "m").card == card


# ----------------------------------------------------------------------------------------- Commit


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch) -> Path:
    """A repository with a copy of the module; ``commit`` looks at it."""
    if shutil.which("git") is None:
        pytest.skip("no git")
    folder = tmp_path / "repository"
    folder.mkdir()
    monkeypatch.setattr(module, "__file__", str(folder / "card.py"))
    (folder / "card.py").write_text("a = 1\n")
    git(folder, "init", "-q")
    return folder


def git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=x", "-c", "user.email=x@y", "-c", "commit.gpgsign=false"]
    done = subprocess.run(
        ["git", *who, *words], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_the_commit_is_that_of_the_checkout(checkout: Path) -> None:
    assert commit() is None  # nothing is committed yet
    git(checkout, "add", "card.py")
    git(checkout, "commit", "-q", "-m", "x")
    git(checkout, "tag", "-a", "v1", "-m", "x")
    head = git(checkout, "rev-parse", "HEAD")
    assert commit() == head[:12]
    (checkout / "card.py").write_text("a = 2\n")
    assert commit() == head[:12] + "+"


def test_a_package_installed_inside_of_another_repository_has_no_commit(
    checkout: Path, monkeypatch
) -> None:
    (checkout / "theirs").write_text("x")
    git(checkout, "add", "theirs")
    git(checkout, "commit", "-q", "-m", "x")
    assert commit() is None


def test_outside_of_a_repository_and_without_git_there_is_no_commit(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.setattr(module, "__file__", str(tmp_path / "card.py"))
    assert commit() is None
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent / "nowhere"))
    assert commit() is None
