"""Files are complete or absent; those of an earlier run are replaced or removed."""

import hashlib
import os
from pathlib import Path

import pytest

from voxwarp._files import publish, sha256_of, without_extension, write_bytes


def test_an_interrupted_write_leaves_no_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_bytes(tmp_path / "metrics.json", b"{}")
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_replaced_only_by_a_whole_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the moment of the renaming the old file is there and the new one is complete."""
    path, seen, replace = tmp_path / "out.bin", [], os.replace
    path.write_bytes(b"old")

    def watched(part: os.PathLike[str], target: os.PathLike[str]) -> None:
        seen.append((Path(part).read_bytes(), Path(target).read_bytes()))
        replace(part, target)

    monkeypatch.setattr(os, "replace", watched)
    write_bytes(path, b"new" * 10000)
    assert seen == [(b"new" * 10000, b"old")]
    assert path.read_bytes() == b"new" * 10000
    assert list(tmp_path.iterdir()) == [path]


def test_a_part_that_cannot_be_removed_is_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What is raised is what went wrong first."""

    def fail(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    monkeypatch.setattr(Path, "unlink", fail)
    caplog.set_level("INFO")
    with pytest.raises(KeyboardInterrupt):
        write_bytes(tmp_path / "metrics.json", b"{}")
    (part,) = tmp_path.iterdir()
    assert caplog.messages == [f"cannot remove the unfinished file {part}: Permission denied"]


def test_published_files_replace_those_of_an_earlier_run_and_what_is_gone_is_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stage, folder = tmp_path / "stage", tmp_path / "out"
    names = ("warped", "labels", "absent", "record")
    for place, files in ((stage, ("warped", "record")), (folder, ("warped", "labels", "record"))):
        place.mkdir()
        for name in files:
            (place / name).write_text(place.name)
    caplog.set_level("INFO")
    assert publish(stage, folder, names) == [folder / "warped", folder / "record"]
    assert {p.name: p.read_text() for p in folder.iterdir()} == {
        "warped": "stage",
        "record": "stage",
    }
    assert caplog.messages == [
        f"removed {folder / 'labels'}: it was of an earlier run, and this run has none"
    ]


def test_while_files_are_published_there_is_no_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is there belongs to the files beside it, also where publishing ends half way."""
    stage, folder = tmp_path / "stage", tmp_path / "out"
    for place in (stage, folder):
        place.mkdir()
        for name in ("warped", "record"):
            (place / name).write_text(place.name)

    def fail(*_: object) -> None:
        raise OSError("full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="full"):
        publish(stage, folder, ("warped", "record"))
    assert not (folder / "record").exists()


def test_the_hash_is_that_of_all_bytes(tmp_path: Path) -> None:
    payload = bytes(range(256)) * 70_000  # more than is read at a time
    (tmp_path / "file").write_bytes(payload)
    assert sha256_of(tmp_path / "file") == hashlib.sha256(payload).hexdigest()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        *(("a.nii.gz", "a"), ("a.nii", "a"), ("a.mgz", "a"), ("a.mgh", "a")),
        *(("a.b.nii.gz", "a.b"), ("a.img", "a.img"), ("a", "a")),
    ],
)
def test_names_without_the_ending_of_an_image(name: str, expected: str) -> None:
    assert without_extension(name) == expected
