"""What a job says of its failures, and how results are published."""

import errno
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from voxwarp.cohort import job
from voxwarp.cohort.bids_names import BidsName
from voxwarp.cohort.dataset import CohortScan
from voxwarp.cohort.derivatives import record_path, write_json
from voxwarp.cohort.job import Order, register_scan
from voxwarp.cohort.outcome import Outcome
from voxwarp.cohort.settings import CohortSettings, space_of
from voxwarp.errors import InputError, NotEnoughMemoryError, NotEnoughSpaceError


@pytest.fixture
def order(tmp_path: Path) -> Order:
    name = BidsName({"sub": "1"}, "T1w", ".nii.gz")
    scan = CohortScan("sub-1", name, tmp_path / "x.nii.gz", Path("sub-1/anat"))
    return Order(scan, tmp_path, tmp_path / "out", CohortSettings(space="X"), {"a": 1}, run="r")


def outcome(order: Order) -> Outcome:
    values = register_scan(order.as_json())
    return Outcome(**{**values, "warnings": tuple(values["warnings"])})


def test_an_order_is_the_same_after_it_was_sent(order: Order) -> None:
    more = replace(
        order,
        scan=replace(
            order.scan,
            also=((BidsName({"sub": "1"}, "dseg", ".nii"), Path("/y.nii")),),
            lesions=(Path("/z.nii"),),
            choice="took it",
        ),
        settings=replace(order.settings, fixed=Path("/f.nii"), bias=True, smoothness=2.0),
        work=Path("/w"),
        earlier=("a", "b"),
        attempt=2,
    )
    assert Order.from_json(more.as_json()) == more


def raising(error: BaseException):
    def write(order: Order, stage: Path) -> None:
        (stage / "half").write_bytes(b"x")
        raise error

    return write


def quota() -> InputError:
    """As a function that writes a file raises it."""
    try:
        try:
            raise OSError(errno.EDQUOT, "Disk quota exceeded")
        except OSError as error:
            raise InputError("cannot write x") from error
    except InputError as error:
        return error


@pytest.mark.parametrize(
    ("error", "said", "is_full", "is_final", "has_trace"),
    [
        (InputError("wrong"), "wrong", False, True, False),
        (quota(), "cannot write x", True, True, False),
        (NotEnoughSpaceError("no room"), "no room", True, True, False),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left", True, True, True),
        (OSError(errno.ESTALE, "Stale file handle"), "Stale file handle", False, False, True),
        (NotEnoughMemoryError("takes 9 GB"), "takes 9 GB", False, False, False),
        (MemoryError(), "there was not enough memory for this scan", False, False, True),
        (ZeroDivisionError("a bug"), "ZeroDivisionError: a bug", False, False, True),
    ],
)
def test_failures_are_told(
    order, monkeypatch, error, said: str, is_full: bool, is_final: bool, has_trace: bool
) -> None:
    monkeypatch.setattr(job, "_write", raising(error))
    found = outcome(order)
    assert found.state == "failed"
    assert said in found.error
    assert (found.is_full, found.is_final) == (is_full, is_final)
    assert bool(found.trace) == has_trace
    assert "run r, attempt 1" in (order.out / "logs" / "sub-1.log").read_text()
    left = [path for path in order.out.rglob("*") if path.is_file()]
    assert left == [order.out / "logs" / "sub-1.log"]


def test_results_replace_earlier_ones_and_are_whole(order, monkeypatch) -> None:
    record = record_path(order.scan, "X").as_posix()
    for name in ("sub-1/anat/old.nii", "sub-1/anat/kept.nii", record):
        (order.out / name).parent.mkdir(parents=True, exist_ok=True)
        (order.out / name).write_bytes(b"old")
    moved = []

    def write(order: Order, stage: Path) -> tuple[dict[str, int], list[str]]:
        for name in ("sub-1/anat/new.nii", "sub-1.html"):
            (stage / name).parent.mkdir(parents=True, exist_ok=True)
            (stage / name).write_bytes(b"new")
        write_json({}, stage / record)
        return {"sub-1/anat/new.nii": 3, "sub-1.html": 3, record: 3}, ["a warning"]

    def replace_file(source: Path, target: Path) -> None:
        if ".voxwarp" not in str(target):  # not a file that is written to the stage
            assert not (order.out / record).exists(), "the old record is still there"
            moved.append(Path(target).relative_to(order.out).as_posix())
        source.rename(target)

    monkeypatch.setattr(job, "_write", write)
    monkeypatch.setattr(job.os, "replace", replace_file)
    names = ("sub-1/anat/old.nii", "sub-1.html", record)
    found = outcome(replace(order, earlier=names))
    assert found.state == "done", found
    assert found.warnings == ("a warning",)
    assert moved[-1] == record
    assert dict(found.outputs).keys() == {"sub-1/anat/new.nii", "sub-1.html", record}
    assert not (order.out / "sub-1/anat/old.nii").exists()
    assert (order.out / "sub-1/anat/kept.nii").exists()


def test_what_another_command_has_finished_is_not_done_again(order, monkeypatch) -> None:
    """It held the lock of this scan until then."""
    (order.out / "f").parent.mkdir(parents=True)
    (order.out / "f").write_bytes(b"123")
    record = record_path(order.scan, "X")
    write_json({"cohort": {"basis": {"a": 1}, "outputs": {"f": 3}}}, order.out / record)
    monkeypatch.setattr(job, "_write", raising(AssertionError("done again")))
    found = outcome(order)
    assert found.state == "done"
    assert found.outputs == {"f": 3, record.as_posix(): (order.out / record).stat().st_size}
    other = outcome(replace(order, basis={"a": 2}))
    assert "done again" in other.error


@pytest.mark.parametrize(
    ("name", "space"),
    [
        ("tpl-MNI152NLin6Asym_res-01_T1w.nii.gz", "MNI152NLin6Asym"),
        ("sub-1_space-Ours_T1w.nii.gz", "Ours"),
        ("my template.v2.nii.gz", "mytemplate"),
    ],
)
def test_a_space_has_the_name_of_its_template(name: str, space: str) -> None:
    assert space_of(Path(name), "default") == space


def test_the_space_of_the_default_model_is_that_of_templateflow() -> None:
    assert space_of(None, "default") == "MNI152NLin2009aSym"
    with pytest.raises(InputError, match="unknown model 'nowhere'"):
        space_of(None, "nowhere")
    with pytest.raises(InputError, match="give its space a name"):
        space_of(Path("---.nii"), "default")


def test_a_worker_of_another_version_ends_the_run(order) -> None:
    """Its results would count as those of the command's version."""
    other = replace(order, basis={"version": {"voxwarp": "0.0.1"}})
    with pytest.raises(RuntimeError, match=r"this worker has voxwarp .*, not 0\.0\.1"):
        register_scan(other.as_json())


def test_a_stage_is_abandoned_when_its_process_is_gone(tmp_path, monkeypatch) -> None:
    own = tmp_path / job.stage_name("sub-1_ses-a")
    own.mkdir()
    assert not job.is_abandoned(own)
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    key, host, _, end = own.name.split(".")
    gone = tmp_path / f"{key}.{host}.{process.pid}.{end}"
    gone.mkdir()
    assert job.is_abandoned(gone)
    elsewhere = tmp_path / f"{key}.elsewhere.{process.pid}.{end}"
    elsewhere.mkdir()
    assert not job.is_abandoned(elsewhere)
    os.utime(elsewhere, (0, 0))
    assert job.is_abandoned(elsewhere)
    assert not job.is_abandoned(tmp_path / "nothing.here.1.x")
