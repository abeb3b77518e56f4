"""The ledger: several writers, lines cut off, file systems of networks, hashes of files."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from voxwarp.cohort import ledger
from voxwarp.cohort.ledger import DATABASE, Entry, Ledger, is_on_network
from voxwarp.errors import InputError


@pytest.fixture(params=["SQLite", "JSON lines"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(ledger, "is_on_network", lambda folder: request.param == "JSON lines")
    return request.param


WRITER = """
import sys
from pathlib import Path
from voxwarp.cohort import ledger
folder, kind, writer = sys.argv[1:]
ledger.is_on_network = lambda folder: kind == "JSON lines"
book = ledger.Ledger(Path(folder))
for n in range(40):
    book.add(ledger.Entry(f"sub-{writer}x{n}", "done", outputs={"a": n}))
    book.add(ledger.Entry("sub-all", "failed", error=f"{writer} {n}"))
book.close()
"""


def test_what_was_entered_is_read(kind: str, tmp_path: Path) -> None:
    book = Ledger(tmp_path / "x")
    assert book.entries() == {}
    first = Entry("sub-1", "failed", "n", {"a": {"b": "ü"}}, {"f": 3}, "why", 1.5, 2.5, 2, 7.0, "r")
    book.add(first)
    book.add(Entry("sub-2", "done"))
    assert book.entries()["sub-1"] == first
    book.add(Entry("sub-1", "done", at=8.0))
    book.close()
    assert Ledger(tmp_path / "x").entries()["sub-1"].state == "done"
    assert book.kind == kind
    assert (tmp_path / "x" / DATABASE).exists() == (kind == "SQLite")


def test_several_processes_write_at_a_time(kind: str, tmp_path: Path) -> None:
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), kind, str(writer)])
        for writer in range(3)
    ]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    entries = Ledger(tmp_path).entries()
    assert entries.keys() == {"sub-all", *(f"sub-{w}x{n}" for w in range(3) for n in range(40))}
    assert all(entries[f"sub-{w}x{n}"].outputs == {"a": n} for w in range(3) for n in range(40))
    assert entries["sub-all"].error.endswith(" 39")


def test_a_line_that_was_cut_off_is_left_out(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(ledger, "is_on_network", lambda folder: True)
    book = Ledger(tmp_path)
    book.add(Entry("sub-1", "done"))
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole + whole[:length])
        assert list(Ledger(tmp_path).entries()) == ["sub-1"]
        book.add(Entry("sub-2", "done"))  # after a line that a process of the same number left
        assert list(Ledger(tmp_path).entries()) == ["sub-1", "sub-2"]
        path.write_bytes(whole)


def test_both_kinds_are_read_together(monkeypatch, tmp_path: Path) -> None:
    """As after a folder was moved from one file system to another."""
    for number, on_network in enumerate((False, True, False)):
        monkeypatch.setattr(ledger, "is_on_network", lambda folder, now=on_network: now)
        book = Ledger(tmp_path)
        book.add(Entry(f"sub-{number}", "done", at=1.0))
        book.add(Entry("sub-all", "failed", error=str(number), at=1.0 + number))
        book.close()
    entries = Ledger(tmp_path).entries()
    assert entries.keys() == {"sub-0", "sub-1", "sub-2", "sub-all"}
    assert entries["sub-all"].error == "2"


def test_a_file_system_without_wal_gets_lines(monkeypatch, tmp_path: Path) -> None:
    def refuse(path: Path, *, read_only: bool = False) -> None:
        raise InputError("no WAL")

    monkeypatch.setattr(ledger, "_Database", refuse)
    book = Ledger(tmp_path)
    book.add(Entry("sub-1", "done"))
    assert book.kind == "JSON lines"
    assert list(Ledger(tmp_path).entries()) == ["sub-1"]


def test_a_damaged_database_is_told(tmp_path: Path) -> None:
    (tmp_path / DATABASE).write_bytes(b"no database" * 100)
    with pytest.raises(InputError, match=r"cannot be used .*remove it: the results"):
        Ledger(tmp_path)


MOUNTS = """/dev/sda1 / ext4 rw 0 0
server:/home /home nfs4 rw 0 0
/dev/sdb1 /home/local xfs rw 0 0
fs /scratch lustre rw 0 0
//nas/data /mnt/my\\040data cifs rw 0 0
sshfs /mnt/ssh fuse.sshfs rw 0 0
systemd-1 /auto autofs rw 0 0
server:/auto /auto nfs4 rw 0 0
server:/x /mnt/données nfs4 rw 0 0
"""


@pytest.mark.parametrize(
    ("folder", "on_network"),
    [
        ("/data/x", False),
        ("/home/me/out", True),
        ("/home", True),
        ("/home/local/x", False),
        ("/homely", False),
        ("/scratch/a", True),
        ("/mnt/my data/out", True),
        ("/mnt/ssh/out", True),
        ("/auto/out", True),
        ("/mnt/données/out", True),
    ],
)
def test_file_systems_of_networks_are_known(tmp_path: Path, folder: str, on_network: bool) -> None:
    (tmp_path / "mounts").write_text(MOUNTS)
    assert is_on_network(Path(folder), tmp_path / "mounts") == on_network
    assert not is_on_network(Path(folder), tmp_path / "nothing")


def test_a_file_is_read_again_only_if_it_changed(kind: str, monkeypatch, tmp_path: Path) -> None:
    path, read = tmp_path / "scan", []

    def sha256_of(path: Path) -> str:
        read.append(path)
        return hashlib.sha256(path.read_bytes()).hexdigest()

    monkeypatch.setattr(ledger, "sha256_of", sha256_of)
    path.write_bytes(b"one")
    book = Ledger(tmp_path / "x")
    with book.remembering_hashes():
        assert book.sha256(path) == hashlib.sha256(b"one").hexdigest()
        book.sha256(path)
    book.close()
    again = Ledger(tmp_path / "x")
    assert again.sha256(path) == hashlib.sha256(b"one").hexdigest()
    assert len(read) == 1
    path.write_bytes(b"two")
    os.utime(path, ns=(1, 1))
    assert again.sha256(path) == hashlib.sha256(b"two").hexdigest()
    assert len(read) == 2
