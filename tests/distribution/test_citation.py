"""What says how to cite voxwarp agrees with what is released."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

import voxwarp

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CODE, WEIGHTS = PROJECT["license"].split(" AND ")


def read(name: str) -> dict[str, Any]:
    text = (ROOT / name).read_text(encoding="utf-8")
    return yaml.safe_load(text) if name.endswith(".cff") else json.loads(text)


CFF, CODEMETA, ZENODO = map(read, ("CITATION.cff", "codemeta.json", ".zenodo.json"))
ALL = pytest.mark.parametrize("record", [CFF, CODEMETA, ZENODO], ids=["cff", "codemeta", "zenodo"])


@ALL
def test_version_and_keywords(record: dict[str, Any]) -> None:
    assert record["version"] == PROJECT["version"] == voxwarp.__version__
    assert record["keywords"] == PROJECT["keywords"]


def test_name_and_title() -> None:
    title = f"{PROJECT['name']}: {PROJECT['description']}".lower()
    assert CFF["title"] == ZENODO["title"]
    assert CFF["title"].lower() == title
    assert CODEMETA["name"] == PROJECT["name"]
    assert CODEMETA["description"] == PROJECT["description"]
    assert PROJECT["description"] in ZENODO["description"]


def test_licences() -> None:
    """The first is that of the code; two of the formats have no place for a second one but text."""
    assert (CODE, WEIGHTS) == ("Apache-2.0", "CC-BY-NC-4.0")
    assert CFF["license"] == ZENODO["license"] == CODE
    assert WEIGHTS in CFF["abstract"]
    assert WEIGHTS in ZENODO["notes"]
    assert CODEMETA["license"] == [f"https://spdx.org/licenses/{x}" for x in (CODE, WEIGHTS)]
    for name in ("Dockerfile", "voxwarp.def"):
        text = (ROOT / name).read_text(encoding="utf-8")
        assert PROJECT["license"] in text
        assert f'image.version="{PROJECT["version"]}"' in text.replace(
            f"image.version {PROJECT['version']}", f'image.version="{PROJECT["version"]}"'
        )


def test_authors_and_paper() -> None:
    (author,) = PROJECT["authors"]
    assert CFF["authors"] == ZENODO["creators"] == [author]
    assert [x["name"] for x in CODEMETA["author"]] == [author["name"]]
    doi = CFF["preferred-citation"]["doi"]
    assert ZENODO["related_identifiers"][0]["identifier"] == doi
    assert CODEMETA["referencePublication"]["identifier"] == f"https://doi.org/{doi}"
    assert CODEMETA["referencePublication"]["name"] == CFF["preferred-citation"]["title"]
