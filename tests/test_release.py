"""What the files for archives and indexes say of a release is the same everywhere, and true."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from claims import CLAIMS

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
CODEMETA = json.loads((ROOT / "codemeta.json").read_text(encoding="utf-8"))
ZENODO = json.loads((ROOT / ".zenodo.json").read_text(encoding="utf-8"))
TEMPLATES = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
PAPER = (ROOT / "paper" / "paper.md").read_text(encoding="utf-8")


def test_versions_agree():
    versions = {PROJECT["version"], CITATION["version"], CODEMETA["version"], ZENODO["version"]}
    assert len(versions) == 1


def test_names_and_titles_agree():
    assert CODEMETA["name"] == PROJECT["name"]
    assert CODEMETA["description"] == PROJECT["description"]
    assert CITATION["title"] == ZENODO["title"]
    assert CITATION["title"].lower() == f"{PROJECT['name']}: {PROJECT['description']}".lower()


def test_the_licence_of_the_code_is_the_same():
    assert CITATION["license"] == "Apache-2.0"
    assert CODEMETA["license"].endswith(CITATION["license"])
    assert ZENODO["license"] == CITATION["license"].lower()
    assert PROJECT["license"].split(" AND ")[0] == CITATION["license"]


def test_authors_and_keywords_agree():
    names = {one["name"] for one in PROJECT["authors"]}
    assert names == {one["name"] for one in CITATION["authors"]}
    assert names == {one["name"] for one in CODEMETA["author"]}
    assert names == {one["name"] for one in ZENODO["creators"]}
    for keywords in (CODEMETA["keywords"], CITATION["keywords"], ZENODO["keywords"]):
        assert keywords == PROJECT["keywords"]


def test_the_paper_cited_is_the_same():
    doi = CITATION["preferred-citation"]["doi"]
    assert CODEMETA["referencePublication"].endswith(doi)
    assert doi in {one["identifier"] for one in ZENODO["related_identifiers"]}


def test_the_version_of_python_is_the_same():
    (oldest,) = re.findall(r">=\s*([\d.]+)", PROJECT["requires-python"])
    assert CODEMETA["runtimePlatform"] == f"Python {oldest} or newer"


@pytest.mark.parametrize("path", [p for p in TEMPLATES if p.name != "config.yml"], ids=str)
def test_issue_templates_are_forms(path: Path):
    form: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert {"name", "description", "body"} <= form.keys()
    fields = [one for one in form["body"] if one["type"] != "markdown"]
    assert len({one["id"] for one in fields}) == len(fields)
    assert all(one["attributes"]["label"] for one in fields)


def test_reports_of_problems_ask_for_doctor():
    for name in ("bug.yml", "accuracy.yml"):
        text = (ROOT / ".github" / "ISSUE_TEMPLATE" / name).read_text(encoding="utf-8")
        assert "voxwarp doctor" in text


def test_all_that_the_paper_cites_is_in_its_bibliography():
    entries = set(re.findall(r"^@\w+\{(\w+),", (ROOT / "paper" / "paper.bib").read_text(), re.M))
    cited = set(re.findall(r"@(\w+)", PAPER.partition("# Summary")[2]))
    assert cited == entries


def test_results_in_the_paper_are_those_of_the_readme():
    results = set(re.findall(r"\b0\.\d{3}\b", PAPER))
    known = set(re.findall(r"\b0\.\d{3}\b", " ".join(CLAIMS["README.md"]())))
    assert results
    assert results <= known


@pytest.mark.parametrize("name", ["Dockerfile", "voxwarp.def"])
def test_labels_of_containers_are_those_of_the_package(name: str):
    text = (ROOT / name).read_text(encoding="utf-8")
    labels = dict(re.findall(r"org\.opencontainers\.image\.(\w+)[ =]\"?([^\"\n\\]+)", text))
    assert (labels["version"], labels["licenses"]) == (PROJECT["version"], PROJECT["license"])


def test_the_licence_of_the_weights_is_named():
    weights = PROJECT["license"].split(" AND ")[1]
    assert weights in CITATION["abstract"]
    assert weights in ZENODO["notes"]
