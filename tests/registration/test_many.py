"""Many scans in one process: the results of separate registrations, and what goes wrong."""

import json
import threading
import types
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

import voxwarp
from voxwarp.errors import InputError
from voxwarp.registration import line
from voxwarp.registration.register import RegistrationTask, register
from voxwarp.registration.result import write_registration

TIMES = {"metrics.json", "report.html"}  # the files that hold times


@pytest.fixture(scope="module")
def study(scans, phantoms, poses, make_grid, tmp_path_factory) -> types.SimpleNamespace:
    """Three moving scans of other poses, the first two of one name, with labels; a fixed scan."""
    folder = tmp_path_factory.mktemp("study")
    for number, spacing in ((1, 5.0), (2, 4.5)):
        (folder / f"sub-0{number}").mkdir()
        grid = make_grid("RAS", (spacing, 5, 4.5), turn=(4 * number, 3, -5))
        for name, image in (
            ("T1w", phantoms.image(grid, poses.moving, np.int16)),
            ("seg", phantoms.labels(grid, poses.moving)),
        ):
            nib.save(image, folder / f"sub-0{number}" / f"{name}.nii.gz")
    movings = [folder / f"sub-0{n}" / "T1w.nii.gz" for n in (1, 2)]
    labels = [folder / f"sub-0{n}" / "seg.nii.gz" for n in (1, 2)]
    return types.SimpleNamespace(
        movings=[*movings, scans.moving],
        labels=[*labels, scans.moving_labels],
        names=["sub-01_T1w", "sub-02_T1w", "moving"],
        fixed=scans.fixed,
        fixed_labels=scans.fixed_labels,
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name not in TIMES}


def lesion_of(labels: Path) -> Path:
    """A mask of one structure, as a lesion."""
    image, path = nib.load(labels), labels.with_name(f"lesion_{labels.name}")
    data = np.asarray(image.dataobj)
    inside = (data == np.unique(data)[1]).astype(np.uint8)
    nib.save(nib.Nifti1Image(inside, image.affine), path)
    return path


def record(folder: Path) -> dict:
    found = json.loads((folder / "metrics.json").read_text())
    found["seconds"] = sorted(found["seconds"])
    for scan in found["preparation"].values():
        scan["seconds"] = sorted(scan["seconds"])
    return found


@pytest.mark.parametrize(
    "kind",
    ["labels", "template", "rigid", "initial", "no affine", "refined", "lesions", "companions"],
)
def test_same_bytes_as_separate_registrations(
    study, tiny_model, quick_affine, tmp_path, kind: str
) -> None:
    fixed = None if kind == "template" else study.fixed
    options: dict = {
        "labels": {"fixed_labels": study.fixed_labels},
        "rigid": {"transform": "rigid"},
        "no affine": {"preparation": voxwarp.Preparation(affine=False)},
        "refined": {"refine": voxwarp.Refinement(steps=2)},
        "lesions": {"refine": voxwarp.Refinement(steps=2)},
        "companions": {"fixed_companion": study.fixed},
    }.get(kind, {})
    of_each: list[dict] = [{} for _ in study.movings]
    if kind == "labels":
        of_each = [{"labels": path} for path in study.labels]
    elif kind == "lesions":
        of_each = [{"lesion_mask": lesion_of(path)} for path in study.labels]
    elif kind == "companions":
        of_each = [{"companion": path} for path in study.movings]
    elif kind == "initial":
        shifts = [voxwarp.Affine(np.eye(4) + 2.0 * n * np.eye(4, k=3)) for n in range(3)]
        of_each = [{"initial": shift} for shift in shifts]
    together = {name: [one[name] for one in of_each] for name in of_each[0]}
    done = voxwarp.register_many(
        study.movings, fixed, tiny_model, out=tmp_path / "many", **together, **options
    )
    assert [scan.folder for scan in done] == [tmp_path / "many" / name for name in study.names]
    assert [scan.moving for scan in done] == study.movings
    for moving, scan, more in zip(study.movings, done, of_each, strict=True):
        alone = tmp_path / "alone" / scan.folder.name
        result = register(moving, fixed, tiny_model, **more, **options)
        write_registration(result, alone)
        assert contents(scan.folder) == contents(alone)
        assert record(scan.folder) == record(alone)
        assert (scan.folder / "report.html").is_file()
        written = json.loads((scan.folder / "metrics.json").read_text())
        assert json.loads(json.dumps(scan.metrics)) == written


def test_model_and_fixed_scan_are_prepared_once(
    study, tiny_model, quick_affine, monkeypatch, tmp_path
) -> None:
    calls: list[str] = []

    def counting(module: str, name: str, label) -> None:
        owner = __import__(module, fromlist=["_"])
        real = getattr(owner, name)

        def counted(*words, **options):
            calls.append(label(*words))
            return real(*words, **options)

        monkeypatch.setattr(f"{module}.{name}", counted)

    counting("voxwarp.preparation.scan", "examined", lambda image, *_: Path(image.name).parent.name)
    counting("voxwarp.preparation.scan", "prepare", lambda image, *_: Path(image.name).name)
    counting("voxwarp.networks.model", "load", lambda *_: "weights")
    voxwarp.register_many(study.movings, study.fixed, tiny_model, out=tmp_path / "out")
    expected = ["T1w.nii.gz", "T1w.nii.gz", "moving.nii.gz", "fixed.nii.gz"]
    expected += ["weights", "sub-01", "sub-02", *[study.fixed.parent.name] * 2]
    assert sorted(calls) == sorted(expected)


def test_failing_scans_do_not_stop_the_others(
    study, tiny_model, quick_affine, monkeypatch, tmp_path
) -> None:
    """Whether one fails while it is read, registered or written: the others are the same."""
    compute = RegistrationTask.computed
    write = write_registration

    def computed(task: RegistrationTask, *words):
        if task.moving.name.endswith("computing.nii.gz"):
            raise MemoryError("no room")
        return compute(task, *words)

    def written(result, folder, **options):
        if folder.name == "writing":
            raise InputError(f"cannot write {folder}: no space left")
        return write(result, folder, **options)

    monkeypatch.setattr(RegistrationTask, "computed", computed)
    monkeypatch.setattr("voxwarp.registration.many.write_registration", written)
    movings = [study.movings[0], *(tmp_path / f"{n}.nii.gz" for n in ("computing", "writing"))]
    for path in movings[1:]:
        path.write_bytes(study.movings[1].read_bytes())
    for name, payload in (("broken", b"not an image"), ("empty", b"")):
        movings.append(tmp_path / f"{name}.nii.gz")
        movings[-1].write_bytes(payload)
    movings.append(study.movings[2])
    lines: list[str] = []
    done = voxwarp.register_many(
        movings,
        study.fixed,
        tiny_model,
        out=tmp_path / "out",
        runtime=voxwarp.Runtime(progress=lines.append),
    )
    assert [type(scan.error) for scan in done] == [
        *(type(None), MemoryError, InputError, InputError, InputError, type(None))
    ]
    assert all(str(scan.moving) in str(scan.error) for scan in done[3:5])
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["T1w", "moving"]
    assert all(scan.metrics == {} for scan in done if scan.error)
    assert [text.endswith("failed") for text in lines] == [scan.error is not None for scan in done]
    assert [text.split()[0] for text in lines] == [f"{n}/6" for n in range(1, 7)]
    for scan in (done[0], done[-1]):
        register(scan.moving, study.fixed, tiny_model).save(tmp_path / "alone", overwrite=True)
        assert contents(scan.folder) == contents(tmp_path / "alone")


def test_memory_of_scans_that_are_done_is_free(study, tiny_model, quick_affine, tmp_path) -> None:
    """Of three scans at most, the images are in memory; and of none that failed."""
    import gc
    import weakref

    alive: list = []
    most = 0
    made = line.scan_of

    def watched(path, *words):
        nonlocal most
        scan = made(path, *words)
        alive.append(weakref.ref(scan))
        most = max(most, sum(ref() is not None for ref in alive))
        if Path(path).name.startswith("bad"):
            raise InputError("bad scan")
        return scan

    movings = []
    for number in range(8):
        movings.append(tmp_path / f"{'bad' if number % 3 == 1 else 'good'}-{number}.nii.gz")
        movings[-1].write_bytes(study.movings[0].read_bytes())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(line, "scan_of", watched)
        done = voxwarp.register_many(
            movings, study.fixed, tiny_model, out=tmp_path / "out", save="warped"
        )
    gc.collect()
    assert len(alive) == 8
    assert most <= 3
    assert not any(ref() is not None for ref in alive)
    assert [scan.error is not None for scan in done] == [n % 3 == 1 for n in range(8)]


@pytest.mark.parametrize("how", ["progress", "computing"])
def test_interruption_leaves_whole_results(
    study, tiny_model, quick_affine, monkeypatch, tmp_path, how: str
) -> None:
    """Ctrl-C ends the threads, and each folder that is there is complete."""
    compute = RegistrationTask.computed
    numbers = iter(range(9))

    def interrupted(*_: object, **__: object):
        if how == "progress" or next(numbers) == 2:
            raise KeyboardInterrupt
        return compute(*_, **__)

    if how == "computing":
        monkeypatch.setattr(RegistrationTask, "computed", interrupted)
    progress = interrupted if how == "progress" else None
    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        voxwarp.register_many(
            *(study.movings, study.fixed, tiny_model),
            out=tmp_path / "out",
            runtime=voxwarp.Runtime(progress=progress),
        )
    assert threading.active_count() <= before + torch.get_num_threads()  # those of the kernels
    folders = sorted((tmp_path / "out").iterdir())
    assert [path.name for path in folders] in (["sub-01_T1w"], ["sub-01_T1w", "sub-02_T1w"])
    for folder in folders:
        voxwarp.load(folder)
        assert not list(folder.glob(".*"))


def test_wrong_requests_are_refused_before_anything_is_done(
    study, tiny_model, quick_affine, tmp_path
) -> None:
    out = tmp_path / "out"

    def said(match: str, movings=study.movings, fixed=study.fixed, **options) -> None:
        with pytest.raises(InputError, match=match):
            voxwarp.register_many(movings, fixed, tiny_model, **{"out": out, **options})

    said("movings must hold at least one scan", [])
    said("two of the scans", [study.movings[0], study.movings[0]])
    said("labels must be given once for each scan", labels=study.labels[:2])
    said("moving image .*: no such file", [*study.movings, tmp_path / "nowhere.nii.gz"])
    said("fixed image .*: no such file", fixed=tmp_path / "nowhere.nii.gz")
    said("fixed_mask needs a fixed scan", fixed=None, fixed_mask=study.fixed_labels)
    said("smoothness has no effect", smoothness=2.0)
    said("save must be all", save="everything")
    assert not out.exists()
    (out / study.names[1]).mkdir(parents=True)
    (out / study.names[1] / "metrics.json").write_text("precious")
    said(f"{study.names[1]}.*exists already")
    assert [path.name for path in out.iterdir()] == [study.names[1]]


def test_a_single_path_is_one_scan(study, tiny_model, quick_affine, tmp_path) -> None:
    for moving in (study.movings[0], str(study.movings[0])):
        options = {"out": tmp_path / "out", "save": "warped", "overwrite": True}
        (scan,) = voxwarp.register_many(moving, study.fixed, tiny_model, **options)
        assert scan.folder == tmp_path / "out" / "T1w"
        assert {path.name for path in scan.folder.iterdir()} == {"Warped.nii.gz", "metrics.json"}
