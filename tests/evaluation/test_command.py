"""``voxwarp evaluate``: its options, output and exit codes."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from cohorts import table, write_scan
from crop_study import FILES, TIMES, differing, record_of
from odd_headers import TWO, of_two_minds

from voxwarp.evaluation.rows import PAIR_COLUMNS, STRUCTURE_COLUMNS, read_rows
from voxwarp.networks.refine import Refinement


@pytest.fixture
def command(study: Path, small_model: Path, tmp_path: Path) -> list[object]:
    """The command for the study."""
    named = table(study / "s.csv", "value,structure\n1,a\n2,a\n3,b\n4,\n")
    return [
        *("evaluate", study / "subjects.csv", "--scan", "t1/p{id}.nii.gz"),
        *("--labels", "labels/p{id}.nii.gz", "--structures", named, "--model", small_model),
        *("-o", tmp_path / "out"),
    ]


def test_what_headers_leave_in_doubt_is_said_once(cli, command, study):
    """Though the scan and its labels are in four pairs."""
    for kind in ("t1", "labels"):
        path = study / kind / "p0.nii.gz"
        of_two_minds(path, path)
    done = cli(*command, "--first", "2")
    assert done.code == 0
    assert [line.split(":")[:3] for line in done.err.splitlines()] == [
        ["voxwarp", " warning", f" image {study}/t1/p0.nii.gz"],
        ["voxwarp", " warning", f" label map {study}/labels/p0.nii.gz"],
    ]
    assert done.err.count(TWO) == 2


def test_the_command(cli, command, whole, tmp_path):
    """Prints a line for each pair and the means; the rows are those of the function."""
    done = cli(*command)
    rows = read_rows(whole / "pairs.csv", PAIR_COLUMNS)
    assert (done.code, done.err) == (0, "")
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES
    lines = done.out.splitlines()
    assert [x.partition(": Dice")[0] for x in lines[:6]] == [
        f"small: {row['moving']} -> {row['fixed']}" for row in rows
    ]
    inter, retest = (
        np.mean([r["dice"] for r in rows if r["kind"] == kind]) for kind in ("inter", "retest")
    )
    assert lines[6].startswith(f"small, inter: 4 of 4 pairs, Dice {inter:.4f}, Dice-regions ")
    assert lines[7].startswith(f"small, retest: 2 of 2 pairs, Dice {retest:.4f}, ")
    assert lines[8:] == [str(tmp_path / "out" / "pairs.csv")]
    assert differing(read_rows(tmp_path / "out" / "pairs.csv", PAIR_COLUMNS), rows) <= TIMES
    again = cli(*command)
    assert (again.code, again.out.splitlines()) == (0, lines[6:])
    record = json.loads(cli(*command, "--json").out)
    assert record["table"] == str(tmp_path / "out" / "pairs.csv")
    by_kind = {means["kind"]: means for means in record["methods"]}
    assert by_kind["inter"]["dice"] == pytest.approx(inter, abs=1e-6)
    assert (by_kind["inter"]["pairs"], by_kind["retest"]["scored"]) == (4, 2)


def test_options_of_the_command(cli, command, study, tmp_path):
    """Their effect on the rows and the record."""
    chosen = "--kind", "inter", "--first", "3", "--resampling", "linear", "--regions", "2-3"
    done = cli(*command, *chosen, "--no-cache", "--device", "cpu", "--split", "val")
    assert (done.code, done.err) == (0, "")
    rows = read_rows(tmp_path / "out" / "pairs.csv", PAIR_COLUMNS)
    assert [(r["moving"], r["fixed"]) for r in rows] == [("p0", "p1"), ("p1", "p0"), ("p1", "p2")]
    assert {(r["labels"], r["timed"], r["kind"]) for r in rows} == {("linear", "no", "inter")}
    assert [math.isnan(r["consistency_mm"]) for r in rows] == [False, False, True]
    protocol = record_of(tmp_path / "out")["protocol"]
    assert protocol == {"structures": ["a", "b"], "regions": [[2, 3]], "labels": "linear"}
    without = [w for w in command if w not in ("--structures", study / "s.csv")]
    done = cli(*without, "--first", "2", "--overwrite")
    assert done.code == 0
    assert record_of(tmp_path / "out")["protocol"]["structures"] == ["1", "2", "3", "4"]
    structures = read_rows(tmp_path / "out" / "structures.csv", STRUCTURE_COLUMNS)
    assert len(structures) == 8


def test_answers_are_refined(cli, command, run, tmp_path):
    plain, refined = run("plain"), run("refined", refine=Refinement(6))
    assert {row["method"] for row in refined} == {"small+refine"}
    assert record_of(tmp_path / "refined")["refine"] == {"steps": 6, "seconds": None}
    for before, after in zip(plain, refined, strict=True):
        assert after["local_ncc"] > before["local_ncc"] + 0.01
    done = cli(*command, "--refine-steps", "6")
    assert done.code == 0
    both = [read_rows(tmp_path / name / "pairs.csv", PAIR_COLUMNS) for name in ("out", "refined")]
    assert differing(*both) <= TIMES


def test_deformations_are_smoothed(cli, command, run, tmp_path):
    """With refinement; other models are refused before anything is written."""
    rough, smooth = (run(f"s{s}", refine=Refinement(6), smoothness=s) for s in (1.0, 3.0))
    assert record_of(tmp_path / "s3.0")["smoothness"] == 3
    for one, other in zip(rough, smooth, strict=True):
        assert other["std_log_jacobian"] < 0.9 * one["std_log_jacobian"]
    assert cli(*command, "--refine-steps", "6", "--smoothness", "3").code == 0
    both = [read_rows(tmp_path / name / "pairs.csv", PAIR_COLUMNS) for name in ("out", "s3.0")]
    assert differing(*both) <= TIMES
    refused = cli(*command, "--smoothness", "3", "--overwrite")
    assert refused.code == 2
    assert "no effect on model small" in refused.err
    assert read_rows(tmp_path / "out" / "pairs.csv", PAIR_COLUMNS) == both[0]


def test_a_failed_pair_is_exit_code_3(cli, command, study, tmp_path):
    """Also when the command only reports earlier rows."""
    write_scan(study / "t1" / "p0.nii.gz", np.zeros((24, 24, 24), np.int16))
    for _ in range(2):
        done = cli(*command)
        assert (done.code, done.err) == (3, "")
        assert "small, inter: 2 of 4 pairs, Dice" in done.out
        assert "small, retest: 0 of 2 pairs" in done.out.splitlines()
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--split", "tests"], "--split must be train, val, test or all, got 'tests'"),
        (["--kind", "both"], "--kind must be inter, retest or all, got 'both'"),
        (
            ["--regions", "4-x"],
            "--regions must be label values and ranges such as 4-41,44,47-62, got '4-x'",
        ),
        (["--regions", "5-4"], "got '5-4'"),
        (["--first", "0"], "--first"),
        (["--resampling", "cubic"], "cubic"),
        (["--device", "tpu"], "tpu"),
        (["--model", "no-such-model"], "unknown model 'no-such-model'"),
        (["--structures", "none.csv"], "none.csv: no such file"),
        (["--scan", "{scan}"], "no column 'scan'"),
        (["--labels", "labels/{id}.nii.gz"], "labels/0.nii.gz: no such file"),
        (["--no-such-option"], "--no-such-option"),
    ],
)
def test_wrong_words(refuses, command, more, message):
    assert message in refuses(*command, *more)


def test_wrong_tables(refuses, command, study, tmp_path):
    command = [w for w in command if not isinstance(w, str) or "{id}" not in w]
    command = [w for w in command if w not in ("--scan", "--labels")]
    for text, message in (
        ("moving,fixed\nt1/p0.nii.gz,\n", "list.csv row 2: the column fixed is empty"),
        ("moving,fixed\nt1/p0.nii.gz,t1/none.nii\n", "t1/none.nii: no such file"),
        ("moving\nt1/p0.nii.gz\n", "no column 'fixed'"),
        ("scan,split\nt1/p0.nii.gz,train\n", "there is no pair in split test"),
    ):
        command[1] = table(study / "list.csv", text)
        assert message in refuses(*command)
    command[1] = tmp_path / "nothing.csv"
    assert f"pairs {tmp_path / 'nothing.csv'}: no such file or folder" in refuses(*command)


def test_the_command_does_not_mix_rows(cli, refuses, command, tmp_path):
    assert cli(*command, "--first", "2").code == 0
    message = refuses(*command, "--first", "2", "--resampling", "linear")
    assert "made with different protocol; start again with --overwrite" in message
    assert "made with different inputs; start again with --overwrite" in refuses(
        *command, "--first", "3"
    )
    assert cli(*command, "--first", "3", "--overwrite").code == 0
    assert len(read_rows(tmp_path / "out" / "pairs.csv", PAIR_COLUMNS)) == 3


def test_help_names_the_options(cli):
    text = cli("evaluate", "--help").out
    promised = "PAIRS -o --model --split --kind --scan --labels --structures --regions --resampling"
    promised += " --first --refine --refine-steps --smoothness --device --threads --cache"
    promised += " --no-cache --retry --overwrite"
    assert [name for name in promised.split() if name not in text] == []
