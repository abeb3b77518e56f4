"""What a configuration says of scans: one kind of source, splits that sum to one, structures."""

from pathlib import Path
from typing import Any

import pytest
from cohorts import table

from voxwarp.data.section import build
from voxwarp.data.sources import Data, ScanSource, Structures, TrainingData, read_training_data
from voxwarp.errors import InputError


def refusal(**data: Any) -> str:
    with pytest.raises(InputError) as caught:
        build(Data, {"sources": [{"folder": "/x"}], **data}, "data")
    return str(caught.value)


@pytest.mark.parametrize(
    "source", [{}, {"folder": "/a", "bids": "/b"}, {"table": "/a", "folder": "/b", "bids": "/c"}]
)
def test_a_source_is_one_thing(source: dict) -> None:
    message = refusal(sources=[{"folder": "/x"}, source])
    assert message == "data: sources.1 must have exactly one of table, folder and bids"


@pytest.mark.parametrize(
    "fractions",
    [{"train": 0.5}, {"val": 1}, {"train": 0, "val": 1}, {"train": 0.9, "val": 0.2}, {},
     {"train": 1, "other": 0}, {"train": True}],
)  # fmt: skip
def test_fractions_sum_to_one_with_some_to_train_on(fractions: dict) -> None:
    assert refusal(fractions=fractions).startswith("data: fractions")


def test_structures_come_from_one_place() -> None:
    message = refusal(structures={"values": [1], "table": "/t.csv"})
    assert message == "data: structures must have values or a table, not both"


def test_the_scans_of_a_training_are_read_without_the_rest(tmp_path: Path) -> None:
    """Paths are from the file's folder, also those of a file that it extends."""
    table(tmp_path / "base.yaml", "data: {sources: [{folder: scans}]}\nnetwork: {name: other}\n")
    text = "extends: ../base.yaml\ndata: {structures: {table: names.csv}}\nseed: 7\ncosts: 5\n"
    path = table(tmp_path / "deep" / "top.yaml", text)
    assert read_training_data(path) == TrainingData(
        data=Data(
            sources=[ScanSource(folder=str(tmp_path / "scans"))],
            structures=Structures(table=str(tmp_path / "deep/names.csv")),
        ),
        seed=7,
    )
    assert read_training_data(tmp_path / "base.yaml").seed == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("seed: 1\n", "data is missing"),
        ("data: {source: x}\n", "data.sources is missing (and 1 more)"),
        ("data: {sources: [{folder: x}], subjects: 0}\n", "data.subjects must be "),
        ("data: {sources: [{folder: x}]}\nseed: -1\n", "seed must be "),
        ("data: [1\n", "this is not valid YAML"),
    ],
)
def test_what_is_wrong_about_scans_is_refused(tmp_path: Path, text: str, words: str) -> None:
    path = table(tmp_path / "config.yaml", text)
    with pytest.raises(InputError) as caught:
        read_training_data(path)
    assert str(caught.value).startswith(f"config {path}: {words}")
