"""Files are complete or absent; missing ones are named with the reason; names without endings."""

import hashlib
import os
from pathlib import Path

import pytest
from nibabel.imageclasses import all_image_classes

from voxwarp._files import (
    COMPRESSED_ENDINGS,
    IMAGE_ENDINGS,
    LARGEST_POINTER,
    check_readable,
    check_writable,
    sha256_of,
    without_extension,
    write_bytes,
)
from voxwarp.errors import InputError


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


def test_the_hash_is_that_of_all_bytes(tmp_path: Path) -> None:
    payload = bytes(range(256)) * 70_000  # more than is read at a time
    (tmp_path / "file").write_bytes(payload)
    assert sha256_of(tmp_path / "file") == hashlib.sha256(payload).hexdigest()


# Names


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        *(("a.nii.gz", "a"), ("a.nii", "a"), ("a.mgz", "a"), ("a.mgh", "a")),
        *(("a.b.nii.gz", "a.b"), ("a.img", "a"), ("a.img.gz", "a"), ("a.hdr", "a"), ("a", "a")),
        *(("A.NII.GZ", "A"), ("a.Nii.gz", "a"), ("B.MGZ", "B"), ("a.nii.bz2", "a")),
        *(("a+orig.BRIK.gz", "a+orig"), ("a+orig.HEAD", "a+orig"), ("a.PAR", "a"), ("a.mnc", "a")),
        *(
            (".nii.gz", ".nii.gz"),
            ("x/b.c.nii.gz", "x/b.c"),
            ("a.nii.zst", "a"),
            ("a.txt", "a.txt"),
        ),
    ],
)
def test_names_without_the_ending_of_an_image(name: str, expected: str) -> None:
    assert without_extension(name) == expected


@pytest.mark.parametrize("kind", all_image_classes, ids=lambda kind: kind.__name__)
def test_the_endings_are_those_of_nibabel(kind: type) -> None:
    """Of every format, alone and compressed in every way."""
    for ending in kind.valid_exts:
        for compressed in ("", *kind._compressed_suffixes):
            for name in (f"a{ending}{compressed}", f"a{ending}{compressed}".upper()):
                assert without_extension(name).lower() == "a"
    assert set(kind.valid_exts) <= set(IMAGE_ENDINGS)
    assert {ending.lower() for ending in kind._compressed_suffixes} <= set(COMPRESSED_ENDINGS)


# Inputs that are not there


ANNEX = ".git/annex/objects/Gx/1W/MD5E-s8--a.nii.gz/MD5E-s8--a.nii.gz"
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\nsize 12345\n"


def refusal_of(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        check_readable(path, "moving image")
    assert str(caught.value).startswith(f"moving image {path}: ")
    return str(caught.value).removeprefix(f"moving image {path}: ")


def test_a_file_that_does_not_exist(tmp_path: Path) -> None:
    assert refusal_of(tmp_path / "a.nii") == "no such file or folder"
    (tmp_path / "file").touch()
    assert refusal_of(tmp_path / "file" / "a.nii") == "no such file or folder"


def test_a_link_of_git_annex_whose_content_was_not_fetched(tmp_path: Path) -> None:
    for name in ("a.nii.gz", "my scan.nii.gz"):
        (tmp_path / name).symlink_to(ANNEX)
    path = tmp_path / "a.nii.gz"
    assert refusal_of(path) == (
        f"the content of this file was not fetched; get it by: datalad get {path}, or "
        f"git annex get {path}"
    )
    assert f"datalad get '{tmp_path}/my scan.nii.gz'," in refusal_of(tmp_path / "my scan.nii.gz")


def test_other_links_to_what_does_not_exist(tmp_path: Path) -> None:
    (tmp_path / "a.nii").symlink_to("/nowhere/b.nii")
    (tmp_path / "folder").symlink_to("gone")
    said = "is a link to {}, which does not exist; if git-annex or DataLad keeps the file, its"
    assert refusal_of(tmp_path / "a.nii").startswith(f"this {said.format('/nowhere/b.nii')}")
    below = refusal_of(tmp_path / "folder" / "a.nii")
    assert below.startswith(f"{tmp_path / 'folder'} {said.format('gone')}")
    (tmp_path / "round").symlink_to("round")
    assert refusal_of(tmp_path / "round").startswith("cannot be read: ")


def test_files_that_stand_for_content_that_was_not_fetched(tmp_path: Path) -> None:
    """As of git-annex when it is unlocked, and of Git LFS."""
    path = tmp_path / "a.nii.gz"
    path.write_bytes(b"/annex/objects/MD5E-s8--a.nii.gz\n")
    assert f"datalad get {path}" in refusal_of(path)
    path.write_bytes(LFS)
    assert refusal_of(path).endswith(f"git lfs pull --include {path}")
    path.write_bytes(LFS + bytes(LARGEST_POINTER))  # too large for one
    check_readable(path, "moving image")


def test_links_to_what_exists_are_followed(tmp_path: Path) -> None:
    (tmp_path / "objects").mkdir()
    (tmp_path / "objects" / "a").write_bytes(b"")
    (tmp_path / "a.nii").symlink_to("objects/a")
    check_readable(tmp_path / "a.nii", "moving image")
    check_readable(tmp_path / "objects", "result")


# Outputs that are there already


def test_a_dead_link_is_in_the_place_of_an_output(tmp_path: Path) -> None:
    (tmp_path / "out.nii").symlink_to("/nowhere/x")
    message = r"out\.nii: a link to /nowhere/x, which does not exist, is here already; use"
    with pytest.raises(InputError, match=message):
        check_writable(tmp_path, ("out.nii",))
    check_writable(tmp_path, ("out.nii",), overwrite=True)
    assert (tmp_path / "out.nii").is_symlink()
    with pytest.raises(InputError, match="this is a link to what does not exist, but it must be"):
        check_writable(tmp_path / "out.nii", ("a.nii",), overwrite=True)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no such pipes")
def test_a_pipe_is_no_file(tmp_path: Path) -> None:
    """It is refused before it is opened, which would wait for somebody who writes."""
    os.mkfifo(tmp_path / "pipe.nii")
    for path in (tmp_path / "pipe.nii", Path("/dev/zero")):
        with pytest.raises(InputError, match="this is a pipe or a device"):
            check_readable(path, "image")
