"""Evaluations of a model: rows and their record, complete or interrupted."""

import hashlib
import math
import platform
import weakref
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from cohorts import cut, table, write_scan
from crop_study import FILES, PROTOCOL, TIMES, bytes_of, differing, pairs_of, record_of, same
from earlier_protocol import OF_REGIONS, evaluate_pairs
from phantoms import homogeneous

from voxwarp._meter import Meter
from voxwarp._provenance import machine
from voxwarp.data.pairs import Pair, PairScan, couples, read_pairs
from voxwarp.data.sources import Structures
from voxwarp.data.structures import Table, structures_of
from voxwarp.errors import InputError
from voxwarp.evaluation import evaluate as evaluate_module
from voxwarp.evaluation.evaluate import evaluate
from voxwarp.evaluation.protocol import Protocol, parse_ranges
from voxwarp.evaluation.result_files import ResultFiles
from voxwarp.evaluation.rows import PAIR_COLUMNS, STRUCTURE_COLUMNS, read_rows
from voxwarp.evaluation.summary import format_row, summary
from voxwarp.measures.deformation import jacobian_statistics
from voxwarp.networks.model import Model
from voxwarp.registration.register import register
from voxwarp.runtime import Runtime
from voxwarp.space.volume import read_volume


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """The names of the registered files, in order."""
    registered: list[tuple[str, str]] = []

    def counted(moving: Path, fixed: Path, **more: Any) -> Any:
        registered.append((moving.name[:2], fixed.name[:2]))
        return register(moving, fixed, **more)

    monkeypatch.setattr(evaluate_module, "register", counted)
    return registered


class StopError(Exception):
    """Stops a run, as a signal would."""


def stop_after(number: int) -> Callable[[str], None]:
    lines: list[str] = []

    def progress(text: str) -> None:
        lines.append(text)
        if len(lines) == number:
            raise StopError

    return progress


@pytest.fixture(scope="module")
def brains(phantoms, poses, unlike_grids, tmp_path_factory) -> Path:
    """Two phantom brains on unlike grids and their labels, as oasis-malf is laid out."""
    folder = tmp_path_factory.mktemp("brains")
    for name, role in (("a", "moving"), ("b", "fixed")):
        grid, pose = unlike_grids[role], getattr(poses, role)
        for kind, image in (
            ("t1", phantoms.image(grid, pose, np.int16)),
            ("labels", phantoms.labels(grid, pose)),
        ):
            (folder / kind).mkdir(exist_ok=True)
            nib.save(image, folder / kind / f"{name}.nii.gz")
    rows = "2,west\n7,west\n17,west\n53,west\n1003,east\n2035,east\n12144,east\n40000,\n"
    table(folder / "labels.csv", "value,structure\n" + rows)
    table(folder / "scans.csv", "id,split\na,test\nb,test\n")
    return folder


def test_brains_from_end_to_end(brains, tiny_model, quick_affine, tmp_path):
    """Dice and folds equal those of benchmarks/evaluate_pairs.py and of register."""
    script = evaluate_pairs()
    pairs = read_pairs(brains / "scans.csv", scan="t1/{id}.nii.gz", labels="labels/{id}.nii.gz")
    named = structures_of(Structures(table=str(brains / "labels.csv")), lambda split: set())
    lines: list[str] = []
    rows = evaluate(
        pairs,
        tiny_model,
        tmp_path / "out",
        protocol=Protocol(named, parse_ranges(OF_REGIONS)),
        runtime=Runtime(progress=lines.append),
    )
    assert [(row["moving"], row["fixed"]) for row in rows] == [("a", "b"), ("b", "a")]
    model = Model.load(tiny_model)
    loaded = {name: script.load(brains, name, model) for name in "ab"}
    for row, text in zip(rows, lines, strict=True):
        _, expected = script.score(loaded[row["moving"]], loaded[row["fixed"]], model, named)
        assert row["dice"] == pytest.approx(expected["dice_30"], abs=1e-4)
        assert row["dice_regions"] == pytest.approx(expected["dice_regions"], abs=1e-4)
        assert row["folds"] == expected["folds"] == 0
        assert 0.6 < row["dice"] < 1
        assert 0 < row["hd95_mm"] < 30
        assert row["inverse_error_mm"] < 0.5
        assert row["nondiffeomorphic_percent"] == 0
        assert text.startswith(f"tiny: {row['moving']} -> {row['fixed']}: Dice {row['dice']:.3f}")
        assert row["affine_s"] > 0
        assert row["deform_s"] > 0
        assert math.isnan(row["whole_s"])  # affine maps come from the cache
        assert row["memory_mb"] > 10
    written = read_rows(tmp_path / "out" / "structures.csv", STRUCTURE_COLUMNS)
    assert [part["structure"] for part in written] == ["east", "west"] * 2
    for row, parts in zip(rows, (written[:2], written[2:]), strict=True):
        assert row["dice"] == pytest.approx(np.mean([p["dice"] for p in parts]), abs=1e-5)


def test_times(monkeypatch):
    """With a cache, scans may have been examined before, so the whole time is unknown."""
    meter = Meter()
    meter.seconds = {"read": 1, "prepare": 2, "network": 4, "compose": 8, "measure": 16}
    meter.memory_mb = {"read": 99, "prepare": 99, "network": 5, "compose": 6, "measure": 99}
    for seconds, cache, whole in (
        ({"affine": 1.5, "extract": 2}, False, 15),
        ({"affine": 1.5, "extract": 2}, True, math.nan),
        ({}, True, 15),  # nothing is looked for where the header places scans
    ):
        sides = {"moving": {"seconds": seconds}, "fixed": {"seconds": {"affine": 0.5}}}
        sides["fixed"]["seconds"] = {"affine": 0.5} if seconds else {}
        result = SimpleNamespace(metrics={"preparation": sides})
        times = {"affine_s": 4.0 if seconds else 0, "deform_s": 12, "memory_mb": 6}
        columns = evaluate_module._times(result, meter, cache)
        assert columns == pytest.approx(times | {"whole_s": whole}, nan_ok=True)


def test_a_head_is_scored_within_its_brain(run, study, small_model, monkeypatch):
    """If register extracted the brain, folds and similarity are those inside it."""
    image = read_volume(pairs_of(study)[0].fixed.path)
    mask = np.zeros((24, 24, 24), np.uint8)
    mask[4:20, 5:19, 6:18] = 1

    def with_mask(moving: Path, fixed: Path, **more: Any) -> Any:
        return replace(register(moving, fixed, **more), fixed_mask=replace(image, data=mask))

    (plain,) = run("plain", pairs=pairs_of(study)[:1])
    monkeypatch.setattr(evaluate_module, "register", with_mask)
    (row,) = run(pairs=pairs_of(study)[:1])
    pair = pairs_of(study)[0]
    result = register(pair.moving.path, pair.fixed.path, small_model)
    inside = jacobian_statistics(result.warp, mask > 0)
    assert row["minimum_determinant"] == inside["minimum"] > plain["minimum_determinant"]
    assert row["dice"] == plain["dice"]
    assert row["correlation"] != plain["correlation"]


def test_a_sheared_scan_is_scored(run, study):
    """On the grid that register made of it."""
    pair = pairs_of(study)[0]
    for path in (pair.fixed.path, pair.fixed.labels):
        data = np.asarray(nib.load(path).dataobj)
        write_scan(path, data, homogeneous(np.eye(3) + 0.05 * np.eye(3, k=1)))
    for row in run(pairs=pairs_of(study)[:2]):
        assert (row["status"], row["reason"]) == ("ok", "")
        assert 0 < row["dice"] < 1


def test_rows_are_complete_and_read_back(run, tmp_path):
    """The returned rows are those of the files, to six digits; no value is missing."""
    lines: list[str] = []
    rows = run(progress=lines.append)
    keys = [("p0", "p1"), ("p1", "p0"), ("p0", "p2"), ("p2", "p0"), ("p1", "p2"), ("p2", "p1")]
    assert [(row["moving"], row["fixed"]) for row in rows] == keys
    assert all(list(row) == list(PAIR_COLUMNS) for row in rows)
    without = {"reason", "tre_mm", "first_s"}
    for row in rows:
        assert {c for c in row if row[c] == "" or same(row[c], math.nan)} == without
    subjects = {"p0": "study/ann", "p1": "study/bob", "p2": "study/ann"}
    for row in rows:
        assert (row["method"], row["status"], row["labels"]) == ("small", "ok", "nearest")
        sides = [subjects[row[side]] for side in ("moving", "fixed")]
        assert [row["moving_subject"], row["fixed_subject"]] == sides
        assert row["kind"] == ("retest" if sides[0] == sides[1] else "inter")
        assert (row["device"], row["threads"], row["timed"]) == ("cpu", 1, "no")
    read = read_rows(tmp_path / "out" / "pairs.csv", PAIR_COLUMNS)
    for row, again in zip(rows, read, strict=True):
        for column, value in row.items():
            expected = (
                value if isinstance(value, str) else pytest.approx(value, rel=1e-5, nan_ok=True)
            )
            assert again[column] == expected, column
    structures = read_rows(tmp_path / "out" / "structures.csv", STRUCTURE_COLUMNS)
    assert [(s["moving"], s["fixed"], s["structure"]) for s in structures] == [
        (*key, name) for key in keys for name in "ab"
    ]
    assert lines == [format_row(row) for row in rows]
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES
    assert rows[0]["consistency_mm"] != rows[1]["consistency_mm"]


def test_the_record_says_where_rows_come_from(run, study, small_model, tmp_path):
    pairs = pairs_of(study)
    rows = run()
    record = record_of(tmp_path / "out")
    weights = (small_model / "weights.safetensors").read_bytes()
    assert record["model"] == {
        "name": "small",
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
        "settings_sha256": Model.load(small_model).settings_sha256,
        "card": {},
    }
    assert record["protocol"] == PROTOCOL.described()
    scans = {s.name: s for pair in pairs for s in (pair.moving, pair.fixed)}
    assert record["inputs"] == {
        name: {
            kind: {"path": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
            for kind, path in (("image", s.path), ("labels", s.labels))
        }
        for name, s in scans.items()
    }
    assert record["versions"]["voxwarp"] == version("voxwarp")
    assert record["versions"]["torch"] == version("torch")
    assert record["versions"]["python"] == platform.python_version()
    assert record["machine"] == machine()
    assert record["machine"]["cores"] > 0
    assert record["machine"]["memory_gb"] > 0.1
    assert "earlier_machines" not in record
    assert record["warm_up_s"] > 0
    assert set(record["stages"]) == {f"{row['moving']}_to_{row['fixed']}" for row in rows}
    for row, took in zip(rows, record["stages"].values(), strict=True):
        seconds = took["seconds"]
        assert set(seconds) == set(took["memory_mb"])
        assert {"read", "prepare", "network", "compose", "resample", "measure"} == set(seconds)
        assert row["deform_s"] == pytest.approx(seconds["network"] + seconds["compose"])
        assert row["whole_s"] == pytest.approx(sum(seconds.values()) - seconds["measure"])
        assert row["memory_mb"] in (took["memory_mb"][s] for s in ("network", "compose"))
    assert [row["dice"] for row in record["pairs"]] == [row["dice"] for row in rows]
    assert {row["tre_mm"] for row in record["pairs"]} == {None}  # NaN is no JSON


def test_threads_of_a_registration(run, study, monkeypatch):
    """As requested, in the row and in the registration; afterwards they are as before."""
    before, threads = torch.get_num_threads(), []

    def counted(*paths: Path, **more: Any) -> Any:
        result = register(*paths, **more)
        threads.append(result.metrics["settings"]["threads"])
        return result

    monkeypatch.setattr(evaluate_module, "register", counted)
    (row,) = run(pairs=pairs_of(study)[:1], runtime=Runtime(threads=before + 1))
    assert (row["threads"], {*threads}) == (before + 1, {before + 1})
    assert torch.get_num_threads() == before


def test_consistency_is_that_of_both_ways(run, study, small_model):
    """Mean over every second voxel of the fixed brain, by hand."""
    pairs = pairs_of(study)[:2]
    rows = run(pairs=pairs)
    results = [register(pair.moving.path, pair.fixed.path, small_model) for pair in pairs]
    for row, result, reverse in zip(rows, results, results[::-1], strict=True):
        voxels = 2 * np.argwhere(result.fixed.image.data[::2, ::2, ::2] > 0)
        points = result.fixed.grid.to_world(voxels)
        error = np.linalg.norm(reverse.transform.map(result.transform.map(points)) - points, axis=1)
        assert row["consistency_mm"] == pytest.approx(error.mean())
    assert math.isnan(run("alone", pairs=pairs[:1])[0]["consistency_mm"])


def test_landmarks_are_in_the_row_and_in_the_record(run, study, small_model, tmp_path):
    names = {name: table(study / f"{name}.csv", "x,y,z\n12,13,14\n") for name in ("p0", "p1")}
    text = "moving,fixed,moving_landmarks,fixed_landmarks\n"
    text += "t1/p0.nii.gz,t1/p1.nii.gz,p0.csv,p1.csv\n"
    pairs = read_pairs(table(study / "list.csv", text))
    (row,) = run(pairs=pairs)
    point = np.array([[12.0, 13, 14]])
    transform = register(pairs[0].moving.path, pairs[0].fixed.path, small_model).transform
    assert row["tre_mm"] == pytest.approx(np.linalg.norm(transform.map(point) - point))
    inputs = record_of(tmp_path / "out")["inputs"]
    digest = hashlib.sha256(names["p1"].read_bytes()).hexdigest()
    assert inputs["p1"]["landmarks"] == {"path": str(names["p1"]), "sha256": digest}
    table(names["p1"], "x,y,z\n12,13,15\n")
    with pytest.raises(InputError, match="with different inputs"):
        run(pairs=pairs)
    names["p0"].unlink()
    with pytest.raises(InputError, match=r"landmarks .*p0\.csv: no such file"):
        run("new", pairs=pairs)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("number", [1, 2, 3, 5])
def test_an_interrupted_evaluation_continues(run, whole, tmp_path, calls, number):
    """The rows equal those of an uninterrupted one; only a half-finished couple runs again."""
    with pytest.raises(StopError):
        run(progress=stop_after(number))
    first = len(calls)
    done = read_rows(tmp_path / "out" / "pairs.csv", PAIR_COLUMNS)
    assert len(done) == len(record_of(tmp_path / "out")["pairs"]) == number
    before = record_of(tmp_path / "out")["stages"]
    lines: list[str] = []
    rows = run(progress=lines.append)
    assert len(lines) == 6 - number
    assert first == 1 + 2 * math.ceil(number / 2)
    assert len(calls) - first == 1 + 2 * (3 - number // 2)
    read = [read_rows(out / "pairs.csv", PAIR_COLUMNS) for out in (whole, tmp_path / "out")]
    assert differing(*read) <= TIMES
    assert differing(read[1][:number], done) == set()
    assert differing(rows[:number], done) == set()
    structures = [out / "structures.csv" for out in (whole, tmp_path / "out")]
    assert structures[0].read_bytes() == structures[1].read_bytes()
    record, expected = record_of(tmp_path / "out"), record_of(whole)
    assert list(record["stages"]) == list(expected["stages"])
    assert before == {key: record["stages"][key] for key in before}
    assert [list(row) for row in record["pairs"]] == [list(row) for row in expected["pairs"]]
    for row, other in zip(record["pairs"], expected["pairs"], strict=True):
        counts = [(r["folds"], r["folds_any"], r["threads"]) for r in (row, other)]
        assert counts[0] == counts[1]
        assert {type(count) for both in counts for count in both} == {int}


def test_a_finished_evaluation_is_left_as_it_is(run, tmp_path, calls):
    run()
    assert len(calls) == 7  # one of them to warm up
    before = bytes_of(tmp_path / "out")
    del calls[:]
    rows = run()
    assert calls == []
    assert bytes_of(tmp_path / "out") == before
    assert len(rows) == 6


def test_more_pairs_of_the_same_scans_are_added(run, study, whole, tmp_path):
    """Some of the six pairs, then all of them."""
    pairs = pairs_of(study)
    run(pairs=[pair for pair in pairs if pair.moving.name == "p1"])
    rows = run()
    assert sorted((r["moving"], r["fixed"]) for r in rows) == sorted(pair.key for pair in pairs)
    by_pair = [
        sorted(read_rows(out / "pairs.csv", PAIR_COLUMNS), key=lambda r: (r["moving"], r["fixed"]))
        for out in (tmp_path / "out", whole)
    ]
    # A pair that was registered without its reverse has no consistency.
    assert differing(*by_pair) <= TIMES | {"consistency_mm"}


def test_it_is_interrupted_before_the_first_row(run, study, tmp_path, monkeypatch):
    """The record is written before the rows: without it, nobody knows whose rows they are."""

    def failing(*arguments: Any) -> None:
        raise StopError

    with monkeypatch.context() as patch:
        patch.setattr(ResultFiles, "add", failing)
        with pytest.raises(StopError):
            run(pairs=pairs_of(study)[:2])
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"evaluate.json"}
    assert len(run(pairs=pairs_of(study)[:2])) == 2


def test_rows_whose_record_was_not_written_are_not_lost(run, study, tmp_path, monkeypatch):
    """Killed between the row and the record of it."""
    write = evaluate_module.write_record
    written: list[Path] = []

    def failing(path: Path, record: dict[str, Any]) -> None:
        written.append(path)
        if len(written) == 2:
            raise StopError
        write(path, record)

    with monkeypatch.context() as patch:
        patch.setattr(evaluate_module, "write_record", failing)
        with pytest.raises(StopError):
            run(pairs=pairs_of(study)[:2])
    assert len(read_rows(tmp_path / "out" / "pairs.csv", PAIR_COLUMNS)) == 1
    assert len(run(pairs=pairs_of(study)[:2])) == 2
    assert len(record_of(tmp_path / "out")["pairs"]) == 2


def test_another_machine_continues(run, tmp_path, monkeypatch):
    """Its times differ, so the record names both machines."""
    with pytest.raises(StopError):
        run(progress=stop_after(2))
    here = machine()
    other = here | {"processor": "another"}
    with monkeypatch.context() as patch:
        patch.setattr(evaluate_module, "machine", lambda: other)
        with pytest.raises(StopError):
            run(progress=stop_after(2))
        record = record_of(tmp_path / "out")
        assert (record["machine"], record["earlier_machines"]) == (other, [here])
        run()
        assert record_of(tmp_path / "out")["earlier_machines"] == [here]


def test_another_evaluation_in_the_same_folder_is_refused(
    run, study, small_model, tmp_path, monkeypatch
):
    """The message names what differs; nothing changes, and --overwrite starts again."""
    pairs = pairs_of(study)
    first = run(pairs=pairs[:2])
    before = bytes_of(tmp_path / "out")
    other_model = Model.load(small_model)
    other_model.network.residual[0][-1].weight.data += 0.01
    other_model.save(tmp_path / "other" / "small")
    linear = Protocol(PROTOCOL.structures, None, "linear")
    some = Protocol(PROTOCOL.structures, [(1, 2)])
    cases = [
        ({"protocol": linear}, "protocol"),
        ({"protocol": some}, "protocol"),
        ({"protocol": Protocol(Table(["a"], {1: 1}))}, "protocol"),
        ({"pairs": pairs[2:4]}, "inputs"),
        ({"pairs": pairs[2:4], "protocol": linear}, "protocol and inputs"),
    ]
    for more, changed in cases:
        with pytest.raises(
            InputError, match=f"holds rows made with different {changed}; start again"
        ):
            run(**{"pairs": pairs[:2], **more})
    with pytest.raises(InputError, match="holds rows made with different model;"):
        evaluate(pairs[:2], tmp_path / "other" / "small", tmp_path / "out", protocol=PROTOCOL)
    with monkeypatch.context() as patch:
        patch.setattr(evaluate_module, "versions", lambda: {"torch": "9"})
        with pytest.raises(InputError, match="holds rows made with different versions;"):
            run(pairs=pairs[:2])
    path = pairs[0].moving.labels
    write_scan(path, np.roll(np.asarray(nib.load(path).dataobj), 1, 0))
    with pytest.raises(InputError, match="holds rows made with different inputs;"):
        run(pairs=pairs[:2])
    assert bytes_of(tmp_path / "out") == before
    rows = run(pairs=pairs[:2], protocol=linear, overwrite=True)
    assert [row["labels"] for row in rows] == ["linear"] * 2
    assert rows[0]["dice"] != pytest.approx(first[0]["dice"], rel=1e-5)
    assert len(record_of(tmp_path / "out")["stages"]) == 2


def test_the_rows_of_another_command_stay(run, tmp_path):
    """Also with overwrite: they do not belong to this command."""
    for name in ("pairs.csv", "structures.csv", "benchmark.json"):
        table(tmp_path / "out" / name, "dear")
    for overwrite in (False, True):
        with pytest.raises(
            InputError, match=r"holds pairs\.csv but no evaluate\.json, so another command wrote it"
        ):
            run(overwrite=overwrite)
    assert set(bytes_of(tmp_path / "out").values()) == {b"dear"}


def test_earlier_rows_survive_a_wrong_request(run, tmp_path, study, monkeypatch):
    """With --overwrite too: nothing is deleted before all arguments are checked."""
    run()
    before = bytes_of(tmp_path / "out")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="device cuda"):
        run(overwrite=True, device="cuda")
    pairs = pairs_of(study)
    pairs[0].moving.path.unlink()
    with pytest.raises(InputError, match=r"image .*p0\.nii\.gz: no such file"):
        run(overwrite=True, pairs=pairs)
    with pytest.raises(InputError, match="unknown model"):
        evaluate(pairs, tmp_path / "none", tmp_path / "out", protocol=PROTOCOL, overwrite=True)
    assert bytes_of(tmp_path / "out") == before


def test_missing_inputs_are_reported_first(run, study, calls, tmp_path):
    """Before anything is computed or written, whichever pair they belong to."""
    pairs = pairs_of(study)
    last = pairs[-1].fixed
    for path, message in ((last.labels, "label map"), (last.path, "image")):
        kept = path.read_bytes()
        path.unlink()
        with pytest.raises(InputError, match=rf"{message} .*{path.name}: no such file"):
            run(pairs=pairs)
        path.mkdir()
        with pytest.raises(InputError, match=rf"{path.name}: cannot be read"):
            run(pairs=pairs)
        path.rmdir()
        path.write_bytes(kept)
    assert calls == []
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("evaluate.json", "{", r"record .*evaluate\.json: cannot be read"),
        ("evaluate.json", "[]", r"record .*evaluate\.json: must be a JSON object, not a list"),
        ("pairs.csv", "method\nx\n", r"rows .*pairs\.csv: no column"),
        ("structures.csv", None, r"rows .*structures\.csv: no such file"),
    ],
)
def test_damaged_results_are_refused(run, study, tmp_path, name, text, message):
    run(pairs=pairs_of(study)[:2])
    path = tmp_path / "out" / name
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(InputError, match=message):
        run(pairs=pairs_of(study)[:2])


def test_an_output_that_cannot_be(run, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="this is a file, but it must be a folder"):
        run("file")


def test_one_pairs_trouble_is_not_the_others(run, study, tmp_path, monkeypatch):
    """A scan that is all zero, a scan that is cut off after it was hashed, labels of another grid.

    All other pairs are registered, and failed pairs have no times.
    """
    pairs = pairs_of(study)
    zero = pairs[0].moving.path  # p0
    write_scan(zero, np.zeros((24, 24, 24), np.int16))
    lines: list[str] = []
    rows = {(row["moving"], row["fixed"]): row for row in run(progress=lines.append)}
    failed = {key for key, row in rows.items() if row["status"] == "failed"}
    assert failed == {key for key in rows if "p0" in key}
    for key in failed:
        side = "moving" if key[0] == "p0" else "fixed"
        reason = f"{side} image {zero}: the image is all zero, so there is nothing to align"[:200]
        assert rows[key]["reason"] == reason
        assert all(math.isnan(rows[key][c]) for c in (*TIMES, "dice", "folds", "local_ncc"))
        assert f"small: {key[0]} -> {key[1]}: failed ({reason})" in lines
    assert {r["status"] for key, r in rows.items() if key not in failed} == {"ok"}
    structures = read_rows(tmp_path / "out" / "structures.csv", STRUCTURE_COLUMNS)
    assert {(s["moving"], s["fixed"]) for s in structures} == rows.keys() - failed
    record = record_of(tmp_path / "out")
    assert record["warm_up_s"] > 0
    assert [row["dice"] for row in record["pairs"]].count(None) == 4
    assert summary(list(rows.values()))[1:] == ["small, retest: 0 of 2 pairs"]
    again = run()
    assert [row["status"] for row in again] == [row["status"] for row in rows.values()]


def test_a_scan_that_is_cut_off_meanwhile(run, study, monkeypatch):
    hashed = evaluate_module.inputs_of

    def then_cut(pairs: list[Pair]) -> dict[str, Any]:
        inputs = hashed(pairs)
        cut(study / "t1" / "p1.nii.gz")
        return inputs

    monkeypatch.setattr(evaluate_module, "inputs_of", then_cut)
    rows = run()
    assert [r["status"] for r in rows] == ["failed", "failed", "ok", "ok", "failed", "failed"]
    assert all("cut off" in r["reason"] for r in rows if r["status"] == "failed")


def test_labels_that_do_not_fit(run, study):
    """The registration succeeds, but its overlap cannot be computed."""
    path = study / "labels" / "p2.nii.gz"
    write_scan(path, np.ones((5, 5, 5), np.int16))
    rows = run()
    assert [r["status"] for r in rows] == ["ok", "ok", *["failed"] * 4]
    assert all("p2.nii.gz: its grid" in r["reason"] for r in rows[2:])
    assert all(math.isnan(r["deform_s"]) for r in rows[2:])


def test_a_bug_is_reported_with_its_type(run, study, monkeypatch, caplog):
    """In the row; the log has the traceback."""

    def broken(*arguments: Any, **more: Any) -> None:
        raise RuntimeError("out of\nmemory " + 300 * "x")

    monkeypatch.setattr(evaluate_module, "register", broken)
    caplog.set_level("INFO")
    rows = run(pairs=pairs_of(study)[:2])
    assert "p0 -> p1 failed\nTraceback" in caplog.text
    assert 'raise RuntimeError("out of' in caplog.text
    assert [row["reason"][:29] for row in rows] == ["RuntimeError: out of memory x"[:29]] * 2
    assert {len(row["reason"]) for row in rows} == {200}


def test_the_other_way_fails(run, study, small_model, monkeypatch):
    """The pair is scored without the consistency of both directions."""

    def one_way(moving: Path, fixed: Path, **more: Any) -> Any:
        if moving.name == "p1.nii.gz":
            raise InputError("no")
        return register(moving, fixed, **more)

    monkeypatch.setattr(evaluate_module, "register", one_way)
    first, second = run(pairs=pairs_of(study)[:2])
    assert (first["status"], second["status"], second["reason"]) == ("ok", "failed", "no")
    assert math.isnan(first["consistency_mm"])
    assert first["inverse_error_mm"] > 0


def test_registrations_are_freed(run, monkeypatch):
    """Two per couple are needed, with some hundred MB each; earlier ones are freed."""
    alive: list[weakref.ref] = []
    most = []

    def watched(*paths: Path, **more: Any) -> Any:
        most.append(sum(reference() is not None for reference in alive))
        alive.append(weakref.ref(result := register(*paths, **more)))
        return result

    monkeypatch.setattr(evaluate_module, "register", watched)
    run()
    assert most == [0, 0, 1, 0, 1, 0, 1]


def test_couples():
    a, b, c = (PairScan(name, Path(name)) for name in "abc")
    pairs = [Pair(a, b), Pair(b, c), Pair(b, a), Pair(c, a)]
    assert couples(pairs) == [[pairs[0], pairs[2]], [pairs[1]], [pairs[3]]]
