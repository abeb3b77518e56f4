"""The files for clusters, nipoppy and BABS fit the command."""

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer
import yaml

from voxwarp.cli.commands import app
from voxwarp.cohort.bids_names import BidsName
from voxwarp.cohort.dataset import CohortScan
from voxwarp.cohort.derivatives import record_path
from voxwarp.cohort.engine import read_description

FOLDER = Path(__file__).parents[2] / "integrations"
NIPOPPY = FOLDER / "nipoppy"


def read(name: str) -> dict:
    return json.loads((NIPOPPY / name).read_text())


def options() -> set[str]:
    command = typer.main.get_command(app).commands["cohort"]
    return {name for param in command.params for name in param.opts}


def test_the_descriptor_is_made_of_the_options() -> None:
    assert read("descriptor.json") == runpy.run_path(str(FOLDER / "boutiques.py"))["descriptor"]()
    flags = {entry.get("command-line-flag") for entry in read("descriptor.json")["inputs"]}
    assert flags - {None} <= options()


def test_the_invocation_is_a_command_that_is_understood(cli, tmp_path) -> None:
    """Put together as Boutiques does: every input in the order of the command line."""
    inputs = {entry["id"]: entry for entry in read("descriptor.json")["inputs"]}
    values = read("invocation.json")
    assert values.keys() <= inputs.keys()
    names = {
        "[[NIPOPPY_DPATH_BIDS]]": str(tmp_path / "bids"),
        "[[NIPOPPY_DPATH_PIPELINE_OUTPUT]]": str(tmp_path / "out"),
        "[[NIPOPPY_DPATH_PIPELINE_WORK]]": str(tmp_path / "work"),
        "[[NIPOPPY_PARTICIPANT_ID]]": "01",
        "[[NIPOPPY_SESSION_ID]]": "a",
    }
    folder = tmp_path / "bids" / "sub-01" / "ses-a" / "anat"
    folder.mkdir(parents=True)
    (folder / "sub-01_ses-a_T1w.nii.gz").write_bytes(b"x")
    words: list[str] = []
    for name, entry in inputs.items():
        if name in values:
            several = values[name] if isinstance(values[name], list) else [values[name]]
            words += [entry["command-line-flag"]] if "command-line-flag" in entry else []
            words += [names.get(value, str(value)) for value in several if value is not True]
    outcome = cli("cohort", *words, "--dry-run")
    assert outcome.code == 0, outcome.err
    assert outcome.out.startswith("sub-01_ses-a  new ")


def test_the_tracker_looks_for_the_record() -> None:
    """It is written last, so that it stands for a whole result."""
    name = BidsName({"sub": "01", "ses": "a", "run": "1"}, "T1w", ".nii.gz")
    scan = CohortScan("sub-01_ses-a", name, Path("x"), Path("sub-01/ses-a/anat"))
    (pattern,) = read("tracker.json")["PATHS"]
    pattern = pattern.replace("[[NIPOPPY_BIDS_PARTICIPANT_ID]]", "sub-01")
    pattern = pattern.replace("[[NIPOPPY_BIDS_SESSION_ID]]", "ses-a")
    assert record_path(scan, "MNI152NLin2009aSym").match(pattern)


def test_files_that_the_configuration_names_are_there() -> None:
    (step,) = read("config.json")["STEPS"]
    assert all((NIPOPPY / name).is_file() for name in step.values())


def test_babs_gives_options_that_exist() -> None:
    about = yaml.safe_load((FOLDER / "babs.yaml").read_text())
    arguments = about["bids_app_args"]
    given = {name for name in arguments if name.startswith("-")} | {
        arguments["$SUBJECT_SELECTION_FLAG"]
    }
    assert given <= options()


def test_the_description_of_the_cluster_can_be_read() -> None:
    settings = read_description(FOLDER / "slurm" / "cluster.yaml")
    lifetime, walltime = (
        settings["options"]["worker_extra_args"][1],
        settings["options"]["walltime"],
    )
    hours, minutes, _ = map(int, walltime.split(":"))
    stagger = settings["options"]["worker_extra_args"][3]
    longest = sum(int(re.fullmatch(r"(\d+)m", text)[1]) for text in (lifetime, stagger))
    assert longest < 60 * hours + minutes, "workers must end before they are killed"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_the_job_script_runs_without_slurm(make_cohort, tmp_path) -> None:
    cohort = make_cohort(2)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    out = tmp_path / "out"
    script = ["bash", FOLDER / "slurm" / "cohort.sbatch", cohort.bids, out, *cohort.settings]
    done = subprocess.run(
        list(map(str, script)),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": path, "TMPDIR": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    assert "2 scans: 2 registered" in done.stdout
    assert not list(tmp_path.glob("scheduler-*"))
