"""``voxwarp register`` as a command: what it writes and says, and what it refuses."""

import errno
import json
import os
import re
import subprocess
import sys
import time

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from bad_files import BAD_SCANS
from webpages import Parsed

IMAGES = ("1Warp.nii.gz", "1InverseWarp.nii.gz", "Warped.nii.gz", "InverseWarped.nii.gz")


FILES = {"0GenericAffine.mat", *IMAGES, "report.html", "metrics.json"}


@pytest.fixture
def command(scans, tiny_model, quick_affine) -> list[object]:
    """A request that is in order but for ``-o``."""
    return ["register", scans.moving, scans.fixed, "--model", tiny_model]


def test_command_writes_all_files_and_says_so(cli, command, scans, tmp_path, label_values):
    out = tmp_path / "new" / "out"
    outcome = cli(*command, "-o", out, "--labels", scans.moving_labels)
    assert outcome.code == 0, outcome.err
    assert {path.name for path in out.iterdir()} == FILES | {"WarpedLabels.nii.gz"}
    for path in out.iterdir():
        assert str(path) in outcome.out
    assert all(line.startswith("voxwarp: warning: ") for line in outcome.err.splitlines())
    labels = nib.load(out / "WarpedLabels.nii.gz")
    assert set(np.unique(np.asarray(labels.dataobj))) == label_values
    assert nib.load(out / "Warped.nii.gz").get_data_dtype() == np.int16


def test_same_request_gives_the_same_bytes(cli, command, scans, tmp_path):
    """Also with another seed: nothing is random."""
    for name, seed in (("one", ()), ("two", ("--seed", 3))):
        options = ["--labels", scans.moving_labels, *seed]
        assert cli(*command, "-o", tmp_path / name, *options).code == 0
    names = (FILES | {"WarpedLabels.nii.gz"}) - {"metrics.json", "report.html"}  # times differ
    for name in sorted(names):
        one, two = ((tmp_path / run / name).read_bytes() for run in ("one", "two"))
        assert one == two, name
    one, two = (json.loads((tmp_path / run / "metrics.json").read_text()) for run in ("one", "two"))
    assert one.pop("seconds").keys() == two.pop("seconds").keys()
    assert one == two


def test_command_does_what_the_function_does(cli, command, result, scans, tmp_path):
    options = ["--labels", scans.moving_labels, "--fixed-labels", scans.fixed_labels]
    outcome = cli(*command, "-o", tmp_path / "out", *options)
    result.save(tmp_path / "again")
    for name in IMAGES:
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert found["dice"]["mean"] == pytest.approx(result.metrics["dice"]["mean"])
    assert f"{found['dice']['mean']:.3f}" in outcome.out


def test_no_affine_on_the_command_line(cli, command, tmp_path):
    assert cli(*command, "-o", tmp_path / "out", "--no-affine").code == 0
    transform = sitk.ReadTransform(str(tmp_path / "out" / "0GenericAffine.mat"))
    np.testing.assert_allclose(transform.TransformPoint((10.0, 20.0, 30.0)), (10, 20, 30))


def test_warning_of_the_result_is_a_line_on_stderr(
    cli, phantoms, make_grid, scans, tiny_model, tmp_path
):
    grid = make_grid(spacing=5, shear=0.1)
    image = nib.Nifti1Image(phantoms.values(grid), None)
    image.set_sform(grid.affine, code=1)
    nib.save(image, tmp_path / "sheared.nii.gz")
    outcome = cli(
        *("register", tmp_path / "sheared.nii.gz", scans.fixed, "--model", tiny_model),
        *("--no-affine", "-o", tmp_path / "out"),
    )
    assert outcome.code == 0
    lines = [line for line in outcome.err.splitlines() if "shear" in line]
    assert len(lines) == 1
    assert lines[0].startswith("voxwarp: warning: ")
    assert "sheared.nii.gz" in lines[0]


def test_strict_is_exit_code_3_where_there_are_warnings(cli, command, scans, tmp_path):
    image = nib.load(scans.moving)
    shifted = image.affine.copy()
    shifted[0, 3] += 10
    image.set_sform(image.affine, code=4)
    image.set_qform(shifted, code=1)
    nib.save(image, tmp_path / "doubtful.nii.gz")
    _, _, fixed, *rest = command
    doubtful = ["register", tmp_path / "doubtful.nii.gz", fixed, *rest]
    outcomes = {
        name: cli(*words, "-o", tmp_path / name, *strict)
        for name, words, strict in (
            ("lenient", doubtful, []),
            ("strict", doubtful, ["--strict"]),
            ("clean", command, ["--strict"]),
        )
    }
    assert {name: outcome.code for name, outcome in outcomes.items()} == {
        **{"lenient": 0, "strict": 3, "clean": 0}
    }
    assert outcomes["clean"].err == ""
    assert outcomes["strict"].err == outcomes["lenient"].err
    assert "qform and sform differ; the sform was used" in outcomes["strict"].err
    for name in outcomes:
        assert {path.name for path in (tmp_path / name).iterdir()} == FILES


def test_a_report_that_fails_is_a_warning_on_stderr(cli, command, monkeypatch, tmp_path):
    """The registration is good without; with --strict, the exit code says so."""

    def failing(*_: object, **__: object) -> str:
        raise MemoryError("no room")

    monkeypatch.setattr("voxwarp.registration.result.render_report", failing)
    for name, strict, code in (("lenient", [], 0), ("strict", ["--strict"], 3)):
        outcome = cli(*command, "-o", tmp_path / name, *strict)
        assert outcome.code == code
        assert (
            "voxwarp: warning: report.html was not written: MemoryError: no room"
            in outcome.err.splitlines()
        )
        assert {path.name for path in (tmp_path / name).iterdir()} == FILES - {"report.html"}
    assert "report.html" not in cli(*command, "-o", tmp_path / "without", "--no-report").err


def test_cache_changes_nothing_but_the_time(cli, command, monkeypatch, tmp_path):
    folder = tmp_path / "cache"
    monkeypatch.setenv("VOXWARP_CACHE", str(folder))
    assert cli(*command, "-o", tmp_path / "none", "--no-cache").code == 0
    assert not folder.exists()
    assert cli(*command, "-o", tmp_path / "first").code == 0
    entries = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert len(entries) == 2
    assert cli("cache").out.splitlines()[1].startswith("2 scans, ")

    def again(*_: object, **__: object) -> None:
        raise AssertionError("it is in the cache")

    monkeypatch.setattr("voxwarp.preparation.cache.examine", again)
    assert cli(*command, "-o", tmp_path / "second").code == 0
    for name in FILES - {"metrics.json", "report.html"}:
        written = {(tmp_path / run / name).read_bytes() for run in ("none", "first", "second")}
        assert len(written) == 1, name
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == entries


def test_existing_results_are_refused_or_replaced(cli, refuses, command, scans, tmp_path):
    out = tmp_path / "out"
    command = [*command, "--no-affine", "-o", out]
    assert cli(*command, "--labels", scans.moving_labels).code == 0
    (out / "notes.txt").write_text("mine")
    line = refuses(*command)  # which also makes sure that nothing has changed
    assert str(out) in line
    assert "--overwrite" in line
    (out / "Warped.nii.gz").write_bytes(b"old")
    assert cli(*command, "--overwrite").code == 0
    assert nib.load(out / "Warped.nii.gz").get_fdata().max() > 0
    # Labels of the earlier run do not stand beside results they have nothing to do with.
    assert {path.name for path in out.iterdir()} == FILES | {"notes.txt"}
    assert (out / "notes.txt").read_text() == "mine"


def test_single_file_of_an_earlier_run_is_enough_to_refuse(refuses, command, tmp_path):
    for name in (*sorted(FILES), "WarpedLabels.nii.gz"):
        folder = tmp_path / name.partition(".")[0]
        folder.mkdir()
        (folder / name).write_text("precious")
        assert name in refuses(*command, "-o", folder)


# Bad input


@pytest.mark.parametrize("role", ["moving", "fixed"])
@pytest.mark.parametrize("kind", BAD_SCANS)
def test_bad_scan(refuses, scans, tiny_model, tmp_path, kind: str, role: str):
    write, said = BAD_SCANS[kind]
    path = write(tmp_path, nib.load(scans.moving))
    pair = {"moving": scans.moving, "fixed": scans.fixed, role: path}
    line = refuses(
        *("register", pair["moving"], pair["fixed"], "--no-affine"),
        *("--model", tiny_model, "-o", tmp_path / "out"),
    )
    assert f"{role} image {path}: " in line
    assert re.search(said, line)


@pytest.mark.parametrize("role", ["moving", "fixed"])
def test_missing_scan(refuses, scans, tiny_model, tmp_path, role: str):
    for path, said in ((tmp_path / "nowhere.nii.gz", "no such file"), (scans.folder, "folder")):
        pair = {"moving": scans.moving, "fixed": scans.fixed, role: path}
        line = refuses(
            *("register", pair["moving"], pair["fixed"]),
            *("--model", tiny_model, "-o", tmp_path / "out"),
        )
        assert f"{role} image {path}" in line
        assert said in line


@pytest.mark.parametrize("role", ["moving", "fixed"])
@pytest.mark.parametrize("kind", ["two slices", "metres for millimetres"])
def test_scan_that_cannot_be_aligned(refuses, command, scans, tmp_path, kind, role):
    """Scans of sound headers that the affine stage can do nothing with are no bug of voxwarp."""
    path = tmp_path / "scan.nii"
    image = nib.load(getattr(scans, role))
    if kind == "two slices":
        image = image.slicer[:, :, 20:22]
    else:
        image = nib.Nifti1Image(image.dataobj, np.diag([1e-3, 1e-3, 1e-3, 1]) @ image.affine)
    nib.save(image, path)
    pair = {"moving": command[1], "fixed": command[2], role: path}
    line = refuses("register", pair["moving"], pair["fixed"], *command[3:], "-o", tmp_path / "out")
    assert str(path) in line


def bad_labels(labels: nib.Nifti1Image) -> dict[str, tuple[bytes, str]]:
    data, affine = np.asarray(labels.dataobj), labels.affine
    shifted = affine.copy()
    shifted[0, 3] += 10
    fractions = data.astype(np.float32) + 0.5
    return {
        "empty": (nib.Nifti1Image(np.zeros_like(data), affine).to_bytes(), "empty"),
        "other shape": (nib.Nifti1Image(data[:-1], affine).to_bytes(), "grid"),
        "other place": (nib.Nifti1Image(data, shifted).to_bytes(), "grid"),
        "fractions": (nib.Nifti1Image(fractions, affine).to_bytes(), "whole numbers"),
        "NaN": (nib.Nifti1Image(fractions * np.nan, affine).to_bytes(), "whole numbers"),
        "4-D": (nib.Nifti1Image(np.stack([data] * 2, -1), affine).to_bytes(), "3-D"),
        "no image": (b"1, 2, 3", "not an image"),
    }


@pytest.mark.parametrize("role", ["moving", "fixed"])
@pytest.mark.parametrize(
    "kind", ["empty", "other shape", "other place", "fractions", "NaN", "4-D", "no image"]
)
def test_bad_labels(refuses, command, scans, tmp_path, role: str, kind: str):
    payload, said = bad_labels(nib.load(getattr(scans, f"{role}_labels")))[kind]
    path = tmp_path / "labels.nii"
    path.write_bytes(payload)
    option = "--labels" if role == "moving" else "--fixed-labels"
    line = refuses(*command, option, path, "-o", tmp_path / "out")
    assert str(path) in line
    assert said in line


def test_missing_labels(refuses, command, tmp_path):
    path = tmp_path / "nowhere.nii.gz"
    for option in ("--labels", "--fixed-labels"):
        line = refuses(*command, option, path, "-o", tmp_path / "out")
        assert str(path) in line
        assert "no such file" in line


def test_unknown_or_damaged_model(refuses, scans, tiny_model, tmp_path):
    def said(model: object) -> str:
        return refuses("register", scans.moving, scans.fixed, "--model", model, "-o", out)

    out = tmp_path / "out"
    assert "no-such-model" in said("no-such-model")
    weights = (tiny_model / "weights.safetensors").read_bytes()
    description = (tiny_model / "model.json").read_text()
    for name, payload, text in (
        ("without-weights", None, description),
        ("cut-weights", weights[:1000], description),
        ("other-weights", weights[:-4] + b"\0\0\0\0", description),
        ("no-json", weights, description[:200]),
        ("other-format", weights, description.replace("voxwarp-model-1", "something")),
        ("other-network", weights, description.replace('"pyramid"', '"transformer"')),
        ("list", weights, "[1, 2]"),
    ):
        folder = tmp_path / name
        folder.mkdir()
        if payload is not None:
            (folder / "weights.safetensors").write_bytes(payload)
        (folder / "model.json").write_text(text)
        assert str(folder) in said(folder)


def test_no_cuda(refuses, command, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    assert "cuda" in refuses(*command, "--device", "cuda", "-o", tmp_path / "out")


def test_mask_of_a_fixed_scan_needs_a_fixed_scan(refuses, scans, tiny_model, tmp_path):
    words = "register", scans.moving, "--fixed-mask", scans.fixed_labels, "--model", tiny_model
    assert "--fixed-mask needs a fixed scan" in refuses(*words, "-o", tmp_path / "out")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "MOVING"),
        (("m.nii",), "-o"),
        (("m.nii", "f.nii", "third.nii", "-o", "out"), "m.nii: no such file"),
        (("m.nii", "-o", "out", "--no-such-option"), "--no-such-option"),
        (("m.nii", "-o", "out", "--device", "tpu"), "tpu"),
        (("m.nii", "-o", "out", "--seed", "first"), "--seed"),
        (("m.nii", "-o", "out", "--seed", "-1"), "--seed"),
        (("m.nii", "-o"), "-o"),
    ],
)
def test_wrong_words(refuses, monkeypatch, tmp_path, words, said):
    monkeypatch.chdir(tmp_path)
    assert said in refuses("register", *words)


def test_output_that_cannot_be(refuses, command, tmp_path):
    (tmp_path / "file").write_text("here first")
    for out in (tmp_path / "file", tmp_path / "file" / "out", tmp_path / "file" / "a" / "b"):
        assert str(tmp_path / "file") in refuses(*command, "-o", out)
    assert "/proc" in refuses(*command, "-o", "/proc/nope")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_output_without_permission(refuses, command, tmp_path):
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    assert str(locked) in refuses(*command, "-o", locked / "out")


@pytest.mark.parametrize("out", ["out", "new/out"])
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_disk_that_fills_up(refuses, command, monkeypatch, tmp_path, call: str, out: str):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, full)
    line = refuses(*command, "--no-affine", "-o", tmp_path / out)
    assert "No space left on device" in line
    assert str(tmp_path) in line


def test_disk_that_fills_up_leaves_earlier_results(cli, refuses, command, monkeypatch, tmp_path):
    """``--overwrite`` replaces the old results by whole new ones or not at all."""
    command = [*command, "--no-affine", "-o", tmp_path / "out", "--overwrite"]
    assert cli(*command).code == 0

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    refuses(*command)


def test_stages_of_a_command_begin_with_its_process(command, tmp_path):
    """All of its time but that of the exit belongs to a stage, and is in its last line."""
    began, out = time.monotonic(), tmp_path / "out"
    words = [sys.executable, "-m", "voxwarp", *command, "--no-affine", "-o", out]
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True)
    whole = time.monotonic() - began
    assert done.returncode == 0, done.stderr
    seconds = json.loads((out / "metrics.json").read_text())["seconds"]
    assert list(seconds) == [
        *("start", "read", "prepare", "network", "compose", "resample", "measure", "write")
    ]
    assert seconds["start"] > 0
    assert sum(seconds.values()) <= whole + 0.02  # the start of a process and stages are rounded
    assert done.stdout.splitlines()[-1].endswith(f", {sum(seconds.values()):.1f} s")
    page = Parsed((out / "report.html").read_text())
    shown = sum(seconds.values()) - seconds["write"]
    assert f"{shown:.1f} s" in page.words


def test_a_program_that_calls_the_command_line_has_no_start(cli, command, tmp_path):
    """Its process did other things before."""
    assert cli(*command, "-o", tmp_path / "out").code == 0
    seconds = json.loads((tmp_path / "out" / "metrics.json").read_text())["seconds"]
    assert next(iter(seconds)) == "read"


@pytest.mark.skipif(sys.platform == "win32", reason="needs resource limits")
def test_file_size_limit_in_earnest(scans, tiny_model, tmp_path):
    """The operating system stops the writing, in a process of its own."""
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000));"
        "from voxwarp.cli.main import main; main()"
    )
    command = ("register", scans.moving, scans.fixed, "--model", tiny_model, "--no-affine", "-o")
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, command), str(tmp_path / "out")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "File too large" in done.stderr
    assert list(tmp_path.iterdir()) == []
