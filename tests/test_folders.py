"""Folders: what the environment says comes first, then the custom of the system."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from voxwarp._folders import cache_folder, models_folder
from voxwarp.errors import InputError

VARIABLES = ("VOXWARP_CACHE", "VOXWARP_MODELS", "XDG_CACHE_HOME", "XDG_DATA_HOME")
OURS = [
    pytest.param(cache_folder, "VOXWARP_CACHE", id="cache"),
    pytest.param(models_folder, "VOXWARP_MODELS", id="models"),
]
CUSTOM = [
    pytest.param(cache_folder, "XDG_CACHE_HOME", ".cache", "voxwarp", id="cache"),
    pytest.param(models_folder, "XDG_DATA_HOME", ".local/share", "voxwarp/models", id="models"),
]
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="other systems have other customs")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home, and no variable that says anything else."""
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.mark.parametrize(("folder", "variable"), OURS)
def test_our_own_variable_is_the_folder_itself(
    folder: Callable[[], Path], variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv(variable, str(tmp_path / "ours"))
    assert folder() == tmp_path / "ours"


@on_linux
@pytest.mark.parametrize(("folder", "variable", "usual", "inside"), CUSTOM)
def test_else_it_is_in_the_users_folder(
    folder: Callable[[], Path],
    variable: str,
    usual: str,
    inside: str,
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert folder() == home / usual / inside
    monkeypatch.setenv(variable, str(tmp_path / "xdg"))
    assert folder() == tmp_path / "xdg" / inside


@on_linux
@pytest.mark.parametrize(("folder", "variable", "usual", "inside"), CUSTOM)
def test_an_empty_name_is_no_place(
    folder: Callable[[], Path],
    variable: str,
    usual: str,
    inside: str,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in VARIABLES:
        monkeypatch.setenv(name, "")
    assert folder() == home / usual / inside


@on_linux
@pytest.mark.parametrize("folder", [cache_folder, models_folder])
def test_who_has_no_home_has_no_folder(
    folder: Callable[[], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container, for a user who is on no list; and no folder ``~`` is made."""
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", lambda user: {}[user])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"you have no home folder; set .* VOXWARP_"):
        folder()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(("folder", "variable"), OURS)
def test_a_file_in_the_place_of_a_folder_is_none(
    folder: Callable[[], Path], variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(variable, str(tmp_path / "file" / "ours"))
    with pytest.raises(InputError, match=r"ours cannot be used \(.*file is not a folder\)"):
        folder()


@pytest.mark.parametrize(("folder", "variable"), OURS)
def test_a_folder_that_may_not_be_entered_is_none(
    folder: Callable[[], Path], variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the home of another user. The superuser may enter all, so the refusal is made up."""
    locked, stat = tmp_path / "locked", Path.stat

    def refusing(path: Path, **more: bool) -> os.stat_result:
        if locked in path.parents:
            raise PermissionError(13, "Permission denied")
        return stat(path, **more)

    monkeypatch.setenv(variable, str(locked / "ours"))
    monkeypatch.setattr(Path, "stat", refusing)
    with pytest.raises(InputError, match=r"ours cannot be used \(Permission denied\)"):
        folder()


@pytest.mark.parametrize(("folder", "variable"), OURS)
def test_a_folder_that_cannot_be_made_is_none(
    folder: Callable[[], Path], variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, str(tmp_path / "ours"))
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)
    with pytest.raises(InputError, match=r"ours cannot be made \(Permission denied\)"):
        folder()
    (tmp_path / "ours").mkdir()
    assert folder() == tmp_path / "ours"  # one that can only be read serves, too


@pytest.mark.parametrize("folder", [cache_folder, models_folder])
def test_asking_makes_nothing(folder: Callable[[], Path], home: Path) -> None:
    assert folder().is_absolute()
    assert not home.exists()
