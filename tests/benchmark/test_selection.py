"""Selected methods."""

from pathlib import Path

import pytest

from voxwarp.benchmark.selection import DEFAULT_METHODS, SelectedMethod, select_methods
from voxwarp.errors import InputError
from voxwarp.networks.model import Model


def test_methods_are_understood(no_greedy, tiny_model: Path, tmp_path, monkeypatch):
    monkeypatch.setenv("VOXWARP_MODELS", str(tmp_path))
    Model.load(tiny_model).save(tmp_path / "shelved")
    monkeypatch.chdir(tiny_model.parent)
    names = ["affine", "greedy", "elastix", "shelved", "vm1-authors", "ours=tiny"]
    names += ["fn=methods:shift", "again=shelved", "shelved+refine", "more=tiny+refine"]
    selected, skipped = select_methods(names)
    assert selected == [
        SelectedMethod("affine", "affine"),
        SelectedMethod("elastix", "elastix"),
        SelectedMethod("shelved", "network", str(tmp_path / "shelved")),
        SelectedMethod("ours", "network", str(tiny_model)),
        SelectedMethod("fn", "methods:shift"),
        SelectedMethod("again", "network", str(tmp_path / "shelved")),
        SelectedMethod("shelved+refine", "refined", str(tmp_path / "shelved")),
        SelectedMethod("more", "refined", str(tiny_model)),
    ]
    assert skipped == {
        "greedy": "picsl-greedy is not installed: pip install 'voxwarp[benchmark]'",
        "vm1-authors": "its weights are not part of voxwarp: give them as vm1-authors=FILE.h5",
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gredy", "unknown method 'gredy'; choose from affine, ants-syn, "),
        ("network", "unknown method 'network'"),
        ("refined", "unknown method 'refined'"),
        ("gone+refine", "unknown method 'gone+refine'"),
        ("x=gone+refine", "'gone'"),
        ("affine affine", "'affine' is listed twice"),
        ("x=methods:shift x=methods:raises", "'x' is listed twice"),
        ("=methods:shift", "cannot name a folder of results"),
        ("runs/mine", "cannot name a folder of results"),
        ("..=methods:shift", "cannot name a folder of results"),
        (".=methods:shift", "cannot name a folder of results"),
        ("a/b=methods:shift", "cannot name a folder of results"),
        (r"a\b=methods:shift", "cannot name a folder of results"),
        (f"{'x' * 200}=methods:shift", "cannot name a folder of results"),
        ("greedy=methods:shift", "'greedy' is the name of a built-in method"),
        ("x=methods:gone", "'methods:gone'"),
        ("x=/no/such/folder", "/no/such/folder"),
        ("x=gone.h5", "gone.h5"),
    ],
)
def test_methods_are_refused(text: str, message: str):
    with pytest.raises(InputError) as refusal:
        select_methods(text.split())
    assert message in str(refusal.value)
    assert len(str(refusal.value).splitlines()) == 1


def test_default_methods_take_no_hours():
    selected, skipped = select_methods(DEFAULT_METHODS)
    assert {entry.name for entry in selected} | skipped.keys() == {*DEFAULT_METHODS}
    assert "ants-syncc" not in DEFAULT_METHODS
