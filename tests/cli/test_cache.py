"""``voxwarp cache``: what is kept of scans, shown and cleared."""

import pytest


def test_cache_is_shown_and_cleared_but_for_what_is_not_its_own(cli, monkeypatch, tmp_path):
    folder = tmp_path / "cache"
    monkeypatch.setenv("VOXWARP_CACHE", str(folder))
    monkeypatch.setenv("VOXWARP_CACHE_SIZE", "250")
    assert cli("cache").out.splitlines() == [str(folder), "0 scans, 0.0 MB of at most 250 MB"]
    folder.mkdir()
    for name in "ab":
        (folder / f"{name}.findings.npz").write_bytes(bytes(1_500_000))
    (folder / "sub-22_T1w.nii.gz").write_bytes(b"of the demo")
    shown = cli("cache", "show")
    assert (shown.code, shown.out) == (0, f"{folder}\n2 scans, 3.0 MB of at most 250 MB\n")
    assert cli("cache").out == shown.out
    assert "2 scans removed" in cli("cache", "clear").out
    assert [path.name for path in folder.iterdir()] == ["sub-22_T1w.nii.gz"]


@pytest.mark.parametrize("words", [["cache"], ["cache", "show"], ["cache", "clear"]], ids=" ".join)
def test_without_a_home_the_cache_says_that_there_is_none(cli, homeless, words):
    outcome = cli(*words)
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out == (
        "there is no cache: you have no home folder; set the environment variable VOXWARP_CACHE "
        "to a folder that you can write to\n"
    )


def test_cache_size_that_is_no_number(refuses, monkeypatch):
    monkeypatch.setenv("VOXWARP_CACHE_SIZE", "plenty")
    assert "'plenty'" in refuses("cache")
