"""``voxwarp register`` with many scans: what it writes and says, and its exit codes."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import pytest

import voxwarp
from voxwarp.registration.register import RegistrationTask

TIMES = {"metrics.json", "report.html"}


@pytest.fixture
def trio(scans, tmp_path) -> list[Path]:
    """Three moving scans: copies of one, in folders of their own names."""
    paths = [tmp_path / "in" / name / "T1w.nii.gz" for name in ("sub-01", "sub-02", "sub-03")]
    for path in paths:
        path.parent.mkdir(parents=True)
        path.write_bytes(scans.moving.read_bytes())
    return paths


@pytest.fixture
def quickly(tiny_model, quick_affine) -> list[object]:
    return ["--model", tiny_model]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name not in TIMES}


def test_each_scan_gets_the_files_of_a_command_of_its_own(
    cli, scans, trio, quickly, tmp_path
) -> None:
    label_words = [word for _ in trio for word in ("--labels", scans.moving_labels)]
    shared = ["--fixed-labels", scans.fixed_labels, *quickly]
    outcome = cli(
        *("register", *trio, "--fixed", scans.fixed, "-o", tmp_path / "many"),
        *(*label_words, *shared),
    )
    assert outcome.code == 0, outcome.err
    alone = tmp_path / "alone"
    words = "register", trio[0], scans.fixed, "--labels", scans.moving_labels, *shared
    assert cli(*words, "-o", alone).code == 0
    *lines, summary = outcome.out.splitlines()
    assert len(lines) == 3
    for number, line in enumerate(lines, start=1):
        folder = tmp_path / "many" / f"sub-0{number}_T1w"
        assert line.startswith(f"{number}/3 {folder}: a brain, local NCC ")
        assert "mean Dice" in line
        assert contents(folder) == contents(alone)
        assert {path.name for path in folder.iterdir()} == {path.name for path in alone.iterdir()}
    assert summary.startswith("3 of 3 scans registered in ")
    assert summary.endswith(" an hour")
    assert sorted(path.name for path in (tmp_path / "many").iterdir()) == [
        *("sub-01_T1w", "sub-02_T1w", "sub-03_T1w")
    ]


def test_which_scan_is_fixed(cli, scans, trio, quickly, tmp_path) -> None:
    """Of two the second, unless --fixed says otherwise; of three none."""

    def fixed_of(folder: Path) -> Path | None:
        about = json.loads((folder / "metrics.json").read_text())["inputs"]["fixed"]
        return None if "template" in about else Path(about["path"])

    few = [*quickly, "--save", "warped"]
    for words, folder, fixed in (
        ([trio[0], "--fixed", scans.fixed], "", scans.fixed),
        ([trio[0], "--fixed", "template"], "", None),
        (trio[:2], "", trio[1]),
        ([*trio[:2], "--fixed", scans.fixed], "sub-02_T1w", scans.fixed),
        ([*trio[:2], "--fixed", "template"], "sub-02_T1w", None),
        (trio, "sub-03_T1w", None),
    ):
        out = tmp_path / "out" / str(len(list(tmp_path.glob("out/*"))))
        assert cli("register", *words, "-o", out, *few).code == 0
        assert fixed_of(out / folder) == fixed


def test_scans_that_fail_are_reported_at_the_end(cli, scans, trio, quickly, tmp_path) -> None:
    trio[1].write_bytes(b"not an image")
    flat = tmp_path / "in" / "flat.nii.gz"
    image = nib.load(scans.moving)
    nib.save(image.slicer[:, :, 20:22], flat)
    outcome = cli(
        *("register", trio[0], flat, *trio[1:], "--fixed", scans.fixed),
        *("-o", tmp_path / "out", *quickly),
    )
    assert outcome.code == 2
    lines = outcome.out.splitlines()
    assert [line.endswith(": failed") for line in lines] == [False, True, True, False, False]
    assert lines[-1].startswith("2 of 4 scans registered in ")
    first, second = outcome.err.splitlines()
    assert first.startswith(f"voxwarp: error: {flat}: ")
    assert second.startswith(f"voxwarp: error: moving image {trio[1]}: ")
    folders = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert folders == ["sub-01_T1w", "sub-03_T1w"]


def test_a_bug_ends_with_its_traceback_after_the_others(
    scans, trio, quickly, monkeypatch, tmp_path, capfd
) -> None:
    """Exit code 1 is Python's own, as for a single scan."""
    compute = RegistrationTask.computed

    def computed(task: RegistrationTask, *words):
        if "sub-01" in task.moving.name:
            raise ZeroDivisionError("a bug")
        return compute(task, *words)

    monkeypatch.setattr(RegistrationTask, "computed", computed)
    words = ["register", *trio, "--fixed", scans.fixed, "-o", tmp_path / "out", *quickly]
    monkeypatch.setattr(sys, "argv", ["voxwarp", *map(str, words)])
    from voxwarp.cli.main import main

    with pytest.raises(ZeroDivisionError, match="a bug"):
        main()
    out, err = capfd.readouterr()
    assert f"voxwarp: error: {trio[0]}: ZeroDivisionError: a bug" in err.splitlines()
    assert out.splitlines()[-1].startswith("2 of 3 scans registered")


def test_warnings_name_their_scan_and_shared_ones_come_once(
    cli, scans, trio, quickly, tmp_path
) -> None:
    doubtful, fixed = tmp_path / "doubtful.nii.gz", tmp_path / "fixed.nii.gz"
    for source, path in ((scans.moving, doubtful), (scans.fixed, fixed)):
        image = nib.load(source)
        shifted = image.affine.copy()
        shifted[0, 3] += 10
        image.set_sform(image.affine, code=4)
        image.set_qform(shifted, code=1)
        nib.save(image, path)
    words = ["register", *trio[:2], doubtful, "--fixed", fixed, *quickly, "--save", "warped"]
    for strict, code in (([], 0), (["--strict"], 3)):
        outcome = cli(*words, "-o", tmp_path / f"out{code}", *strict)
        assert outcome.code == code, outcome.err
        first, second = outcome.err.splitlines()
        assert first.startswith(f"voxwarp: warning: fixed image {fixed}: ")
        assert second.startswith(f"voxwarp: warning: moving image {doubtful}: ")


def test_wrong_requests(refuses, cli, scans, trio, quickly, tmp_path) -> None:
    out = ["-o", tmp_path / "out", *quickly]
    for option in ("--labels", "--mask"):
        line = refuses("register", *trio, option, scans.moving_labels, *out)
        assert f"{option} must be given once for each scan" in line
        assert "1 file for 3 scans" in line
    twice = ["--labels", scans.moving_labels] * 2
    assert "2 files for 1 scan" in refuses("register", trio[0], scans.fixed, *twice, *out)
    assert "two of the scans" in refuses("register", *trio, trio[0], *out)
    stray = refuses("register", *trio[:2], "--refine", "45", *out)
    assert stray == "voxwarp: error: moving image 45: no such file or folder"
    assert "fixed image" in refuses("register", *trio, "--fixed", tmp_path / "none.nii", *out)
    assert "--fixed-mask needs" in refuses("register", *trio, "--fixed-mask", trio[0], *out)
    assert "--labels" in refuses("register", *trio, "--save", "labels", *out)
    (tmp_path / "out" / "sub-03_T1w").mkdir(parents=True)
    (tmp_path / "out" / "sub-03_T1w" / "metrics.json").write_text("precious")
    assert "--overwrite" in refuses("register", *trio, "--fixed", scans.fixed, *out)
    assert cli("register", *trio, "--fixed", scans.fixed, *out, "--overwrite").code == 0


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_ctrl_c_leaves_whole_results(scans, tiny_model, tmp_path) -> None:
    """In earnest: a process is interrupted once its first results are there."""
    movings = [tmp_path / f"m{number}.nii.gz" for number in range(30)]
    for path in movings:
        path.write_bytes(scans.moving.read_bytes())
    out = tmp_path / "out"
    code = (  # a shell may have started the tests with interruptions ignored
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "from voxwarp.cli.main import main; main()"
    )
    command = [sys.executable, "-c", code, "register", *movings, "--fixed", scans.fixed]
    process = subprocess.Popen(
        list(map(str, [*command, "-o", out, "--model", tiny_model, "--no-affine"])),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        while process.poll() is None and len(list(out.glob("*/metrics.json"))) < 2:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        printed, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, err
    assert err == "voxwarp: error: interrupted\n"
    folders = sorted(out.iterdir())
    assert 2 <= len(folders) < len(movings)
    assert len(printed.splitlines()) <= len(folders)
    for folder in folders:
        voxwarp.load(folder)
        assert not [path for path in folder.iterdir() if path.name.startswith(".")]
