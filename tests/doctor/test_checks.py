"""Each check finds what it is there for."""

import json
import shutil
from importlib import metadata, resources
from pathlib import Path

import pytest

from voxwarp.doctor import checks
from voxwarp.doctor.checks import Finding
from voxwarp.doctor.examination import Examination, examine


def test_all_is_well_here():
    found = examine(with_self_test=False)
    assert found.problems == []
    assert list(found.lines())[-1] == "no problem was found"
    assert json.loads(json.dumps(found.record()))["software"]["voxwarp"]


def test_versions_are_those_of_the_installed_packages():
    facts = checks.software().facts
    for name in ("torch", "numpy", "nibabel", "nilearn"):
        assert facts[name] == metadata.version(name)
    assert "antspyx" not in facts  # of an extra


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        ("numpy>=1000", "voxwarp needs >=1000: pip install 'numpy>=1000'"),
        ("no-such-package>=1", "no-such-package is not installed"),
        ("numpy>=1", ""),
        ("numpy>=1000; extra == 'test'", ""),
        ("numpy>=1000; python_version < '3'", ""),
    ],
)
def test_a_package_that_does_not_fit_is_a_problem(monkeypatch, asked, problem):
    monkeypatch.setattr(metadata, "requires", lambda name: [asked])
    problems = checks.software().problems
    assert len(problems) == bool(problem)
    assert all(problem in text for text in problems)


@pytest.fixture
def own_models(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setenv("VOXWARP_MODELS", str(tmp_path))
    shipped = Path(str(resources.files("voxwarp"))) / "models" / "vm1"
    shutil.copytree(shipped, tmp_path / "mine")
    return tmp_path


def test_a_model_of_the_user_is_a_note(own_models):
    found = checks.models()
    assert not found.problems
    assert found.notes == [f"model mine is your own, in {own_models / 'mine'}"]
    assert found.facts["mine"] == found.facts["vm1"]


def test_a_changed_byte_of_weights_is_a_problem(own_models):
    weights = own_models / "mine" / "weights.safetensors"
    payload = bytearray(weights.read_bytes())
    payload[-1] ^= 1
    weights.write_bytes(payload)
    found = checks.models()
    assert found.facts["mine"] is None
    assert len(found.problems) == 1
    assert "SHA-256" in found.problems[0]


def test_a_folder_that_cannot_be_used_is_a_problem_if_it_was_asked_for(monkeypatch, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("VOXWARP_CACHE", str(blocked / "cache"))
    problems = checks.folders().problems
    assert len(problems) == 1
    assert "VOXWARP_CACHE" in problems[0]


def test_a_wrong_size_of_the_cache_is_a_problem(monkeypatch):
    monkeypatch.setenv("VOXWARP_CACHE_SIZE", "plenty")
    assert "'plenty'" in checks.folders().problems[0]


def test_kernels_that_are_off_are_a_note(monkeypatch):
    from voxwarp.fields import compiled

    monkeypatch.setattr(compiled, "enabled", lambda: False)
    found = checks.kernels()
    assert found.facts == {"used": False}
    assert not found.problems
    assert "off" in found.notes[0]


def test_environment_shows_what_matters(monkeypatch):
    monkeypatch.setenv("VOXWARP_KERNELS", "on")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setenv("MY_SECRET", "x")
    facts = checks.environment().facts
    assert facts["VOXWARP_KERNELS"] == "on"
    assert facts["OMP_NUM_THREADS"] == "7"
    assert "MY_SECRET" not in facts


def test_lines_show_every_fact_note_and_problem():
    found = Examination(
        [
            Finding("one", {"a": None, "long name": True}, ["it is broken"]),
            Finding("empty", {}),
            Finding("two", {"list": [], "full": ["x", "y"]}, notes=["slow"]),
        ]
    )
    assert list(found.lines()) == [
        "one",
        "  a          missing",
        "  long name  yes",
        "two",
        "  list  none",
        "  full  x, y",
        "note: slow",
        "problem: it is broken",
    ]
