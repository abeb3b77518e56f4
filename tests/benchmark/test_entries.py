"""Words for methods."""

from pathlib import Path

import pytest

from voxwarp.benchmark.entries import USUAL, Entry, entries
from voxwarp.errors import InputError
from voxwarp.networks.model import Model


def test_methods_are_understood(no_greedy, tiny_model: Path, tmp_path, monkeypatch):
    monkeypatch.setenv("VOXWARP_MODELS", str(tmp_path))
    Model.load(tiny_model).save(tmp_path / "shelved")
    monkeypatch.chdir(tiny_model.parent)
    words = ["affine", "greedy", "elastix", "shelved", "vm1-authors", "ours=tiny"]
    words += ["fn=methods:shift", "again=shelved", "shelved+refine", "more=tiny+refine"]
    found, skipped = entries(words)
    assert found == [
        Entry("affine", "affine"),
        Entry("elastix", "elastix"),
        Entry("shelved", "network", str(tmp_path / "shelved")),
        Entry("ours", "network", str(tiny_model)),
        Entry("fn", "methods:shift"),
        Entry("again", "network", str(tmp_path / "shelved")),
        Entry("shelved+refine", "refined", str(tmp_path / "shelved")),
        Entry("more", "refined", str(tiny_model)),
    ]
    assert skipped == {
        "greedy": "picsl-greedy is not installed: pip install 'voxwarp[benchmark]'",
        "vm1-authors": "its weights are not here: vm1-authors=FILE.h5",
    }


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("gredy", "there is no 'gredy'; there are affine, ants-syn, "),
        ("network", "there is no 'network'"),
        ("refined", "there is no 'refined'"),
        ("gone+refine", "there is no 'gone+refine'"),
        ("x=gone+refine", "'gone'"),
        ("affine affine", "affine is there twice"),
        ("x=methods:shift x=methods:raises", "x is there twice"),
        ("=methods:shift", "a name of its own"),
        ("runs/mine", "a name of its own"),
        ("..=methods:shift", "a name of its own"),
        (".=methods:shift", "a name of its own"),
        ("a/b=methods:shift", "a name of its own"),
        (r"a\b=methods:shift", "a name of its own"),
        (f"{'x' * 200}=methods:shift", "a name of its own"),
        ("greedy=methods:shift", "a name of its own"),
        ("x=methods:gone", "'methods:gone'"),
        ("x=/no/such/folder", "/no/such/folder"),
        ("x=gone.h5", "gone.h5"),
    ],
)
def test_methods_are_refused(words: str, said: str):
    with pytest.raises(InputError) as refusal:
        entries(words.split())
    assert said in str(refusal.value)
    assert len(str(refusal.value).splitlines()) == 1


def test_usual_methods_have_no_hour_long_ones():
    found, skipped = entries(USUAL)
    assert {entry.name for entry in found} | skipped.keys() == {*USUAL}
    assert "ants-syncc" not in USUAL
