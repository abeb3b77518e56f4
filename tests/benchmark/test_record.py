"""Records of benchmarks; rows of a different method or scan with the same name are refused."""

import hashlib
import json
import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

import methods
import nibabel as nib
import numpy as np
import pytest
from benchmark_cohort import OPTIONS, Bench, both_ways, chosen

from voxwarp.benchmark import record as record_module
from voxwarp.benchmark import run as runner
from voxwarp.benchmark.catalogue import METHODS
from voxwarp.benchmark.job import RECORD, Job
from voxwarp.benchmark.methods import ours
from voxwarp.benchmark.run import benchmark
from voxwarp.benchmark.selection import SelectedMethod, select_methods
from voxwarp.data.pairs import read_pairs
from voxwarp.data.structures import Table
from voxwarp.errors import InputError
from voxwarp.evaluation.protocol import Protocol
from voxwarp.evaluation.record import BENCHMARK, write_record
from voxwarp.networks.model import Model


def test_rows_of_another_scan_or_version_are_refused(
    here, bench: Bench, cohort, tmp_path: Path, monkeypatch
):
    """The name is the same, but not the scan or version: such rows must not be mixed."""
    for path in cohort.folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    pairs = read_pairs(tmp_path / "pairs.csv")
    ab = [pair for pair in pairs if pair.key == ("a", "b")]
    found = [SelectedMethod("plain", "affine")]
    given = {
        "protocol": Protocol(Table(["s"], {2: 1})),
        "options": OPTIONS,
        "out": tmp_path / "out",
    }
    benchmark(ab, found, **given)
    image = nib.load(tmp_path / "b.nii.gz")
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj) * 2, image.affine), tmp_path / "b.nii.gz")
    with pytest.raises(InputError, match=r"holds rows of b made with different image"):
        benchmark(ab, found, **given)
    assert len(benchmark(ab, found, **given, overwrite=True)) == 1

    of_numpy = METHODS["affine"]._replace(package="numpy")
    monkeypatch.setitem(METHODS, "affine", of_numpy)
    benchmark(ab, [SelectedMethod("other", "affine")], **given)
    monkeypatch.setattr(record_module, "version", lambda name: "99.1")
    with pytest.raises(InputError, match=rf"package \(numpy {version('numpy')}, now numpy 99.1\)"):
        benchmark(ab, [SelectedMethod("other", "affine")], **given)


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """The jobs that were run; all of them fail at once."""
    jobs: list[Job] = []

    def canned(job: Job, *, limit: float, alone: bool) -> dict[str, Any]:
        jobs.append(job)
        job.path.mkdir(parents=True, exist_ok=True)
        job.save()
        record = {"status": "failed", "reason": "no", "process_s": 1.0}
        record |= {"threads": job.threads, "alone": alone}
        write_record(job.path / RECORD, record)
        return record

    monkeypatch.setattr(runner, "execute", canned)
    return jobs


def test_rows_of_other_weights_are_refused(
    bench: Bench, cohort, protocol, tiny_model: Path, tmp_path: Path, ran: list[Job]
):
    """A model was trained further in its folder; the record names the weights that were used."""
    folder, model = tmp_path / "run", Model.load(tiny_model)
    model.save(folder)

    pairs, given = chosen(cohort, ("a", "b")), {"protocol": protocol, "options": OPTIONS}
    found, _ = select_methods([f"mine={folder}"])
    benchmark(pairs, found, tmp_path / "out", **given)
    digest = hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest()
    record = json.loads((tmp_path / "out" / BENCHMARK).read_text())
    assert record["methods"]["mine"]["weights_sha256"] == digest == ran[0].weights_sha256
    assert record["methods"]["mine"]["weights"] == str(folder)

    first = next(model.network.parameters())
    first.data += 1e-3
    model.save(folder)
    with pytest.raises(InputError, match="holds rows of mine made with different weights"):
        benchmark(pairs, found, tmp_path / "out", **given)
    assert len(ran) == 1
    benchmark(pairs, found, tmp_path / "out", **given, overwrite=True)
    assert len(ran) == 2, "what the old weights did is not taken for the new ones'"


def test_rows_of_other_settings_of_a_model_are_refused(
    bench: Bench, cohort, protocol, tmp_path: Path, ran: list[Job]
):
    """Of the same weights, with more steps: such as `none`, which has no weights at all."""
    folder, model = tmp_path / "run", Model.load("none")
    model.architecture = {"name": "descent", "steps": [1]}
    model.save(folder)
    pairs, given = chosen(cohort, ("a", "b")), {"protocol": protocol, "options": OPTIONS}
    found, _ = select_methods([f"mine={folder}"])
    benchmark(pairs, found, tmp_path / "out", **given)
    model.architecture = {"name": "descent", "steps": [2]}
    model.save(folder)
    with pytest.raises(InputError, match="holds rows of mine made with different settings"):
        benchmark(pairs, found, tmp_path / "out", **given)
    assert len(ran) == 1


def test_provenance(here, bench: Bench, cohort, protocol, tmp_path: Path):
    benchmark(
        both_ways(cohort),
        [SelectedMethod("still", "affine"), SelectedMethod("mine", "methods:quick_shift")],
        tmp_path / "out",
        protocol=protocol,
        options=OPTIONS,
    )
    record = json.loads((tmp_path / "out" / BENCHMARK).read_text())
    assert record["methods"] == {
        "still": {"what": ours.affine.__doc__},
        "mine": {"what": methods.quick_shift.__doc__},
    }
    assert record["protocol"]["labels"] == "nearest"
    assert record["versions"]["numpy"] == version("numpy")
    assert record["machine"]["cores"] == os.cpu_count()
    for name in "ab":
        for role, ending in (("image", ".nii.gz"), ("labels", "-labels.nii.gz")):
            path = cohort.folder / f"{name}{ending}"
            assert record["inputs"][name][role] == {
                "path": str(path),
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            }


def test_peers_are_named_with_their_versions():
    pytest.importorskip("convexAdam")
    record = record_module.provenance(
        [], [SelectedMethod("convexadam", "convexadam"), SelectedMethod("affine", "affine")]
    )
    known = version("convexAdam")
    assert record["versions"]["convexAdam"] == known
    assert record["methods"]["convexadam"]["package"] == f"convexAdam {known}"
    assert "package" not in record["methods"]["affine"]
