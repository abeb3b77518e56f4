"""Outputs that can be chosen: each file is that of a full save, and what lacks one still loads."""

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from image_files import brain_points

import voxwarp
from voxwarp._layout import (
    AFFINE,
    COMPOSITE,
    FIXED_MASK,
    INVERSE_COMPOSITE,
    INVERSE_WARP,
    INVERSE_WARPED,
    METRICS,
    MOVING_MASK,
    REGISTERED,
    REPORT,
    WARP,
    WARPED,
    WARPED_LABELS,
    WARPED_LESION,
    WARPED_MASK,
)
from voxwarp.errors import InputError
from voxwarp.networks.refine import Refinement
from voxwarp.registration.loading import load
from voxwarp.registration.outputs import OUTPUTS, files_of
from voxwarp.registration.result import Registration, check_output, write_registration
from voxwarp.registration.saved_transform import load_transform


@pytest.fixture(scope="module")
def full(scans, register_quickly, tmp_path_factory) -> Registration:
    """A registration that has every output: label maps, masks of both scans, a lesion."""
    folder, options = tmp_path_factory.mktemp("masks"), {}
    for role, name, level in (
        ("moving", "mask", 160),
        ("fixed", "fixed_mask", 160),
        ("moving", "lesion_mask", 230),
    ):
        image = nib.load(getattr(scans, role))
        mask = (np.asarray(image.dataobj) > level).astype(np.uint8)
        options[name] = folder / f"{name}.nii.gz"
        nib.save(nib.Nifti1Image(mask, image.affine), options[name])
    labels = {"labels": scans.moving_labels, "fixed_labels": scans.fixed_labels}
    # Only a descent leaves lesions out, so two steps of one follow the tiny model.
    return register_quickly(scans.moving, scans.fixed, refine=Refinement(2), **labels, **options)


@pytest.fixture(scope="module")
def everything(full, tmp_path_factory) -> Path:
    """The folder of all outputs."""
    folder = tmp_path_factory.mktemp("full") / "out"
    full.save(folder, save="all,composite")
    assert {path.name for path in folder.iterdir()} == set(REGISTERED)
    return folder


def assert_same_files(folder: Path, everything: Path) -> None:
    """Each file has the bytes of the full save, except for times."""
    for path in folder.iterdir():
        if path.name == METRICS:
            ours, theirs = (json.loads((f / METRICS).read_text()) for f in (folder, everything))
            assert ours.pop("seconds").keys() == theirs.pop("seconds").keys()
            assert ours == theirs
        elif path.name != REPORT:
            assert path.read_bytes() == (everything / path.name).read_bytes(), path.name


FILES = {
    "transforms": {AFFINE, WARP},
    "inverse": {INVERSE_WARP},
    "composite": {COMPOSITE, INVERSE_COMPOSITE},
    "warped": {WARPED},
    "inverse-warped": {INVERSE_WARPED},
    "labels": {WARPED_LABELS},
    "masks": {MOVING_MASK, FIXED_MASK, WARPED_MASK, WARPED_LESION},
    "report": {REPORT},
}


def test_outputs_are_these_and_make_up_all_files() -> None:
    assert {name: set(files) for name, files in OUTPUTS.items()} == FILES
    assert files_of("all,composite") == set(REGISTERED)
    assert files_of("all") == set(REGISTERED) - FILES["composite"]
    assert files_of([]) == {METRICS}


@pytest.mark.parametrize(
    ("save", "names"),
    [
        *((name, {name}) for name in FILES),
        ("transforms,warped", {"transforms", "warped"}),
        (" warped , labels ", {"warped", "labels"}),
        (["inverse", "masks"], {"inverse", "masks"}),
        (iter(("report", "inverse-warped")), {"report", "inverse-warped"}),
        ("labels,all", set(FILES) - {"composite"}),
        ("all,composite", set(FILES)),
        ((), set()),
    ],
)
def test_the_outputs_that_were_chosen_are_written(full, everything, tmp_path, save, names):
    files = full.save(tmp_path / "out", save=save)
    expected = {METRICS}.union(*(FILES[name] for name in names))
    assert {path.name for path in (tmp_path / "out").iterdir()} == expected
    assert [path.name for path in files] == [name for name in REGISTERED if name in expected]
    assert_same_files(tmp_path / "out", everything)


def test_composites_are_the_other_files_in_one(full, everything, tmp_path):
    """Read as a folder without the others, too."""
    full.save(tmp_path / "out", save="composite")
    points = np.random.default_rng(0).uniform(-40, 40, (20, 3))
    separate, single = load_transform(everything), load_transform(tmp_path / "out")
    for way in ("transform", "inverse"):
        ours, theirs = (getattr(x, way).map(points) for x in (single, separate))
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
    assert single.fixed_grid == separate.fixed_grid
    assert single.moving_grid == separate.moving_grid


def test_no_report_is_stronger(full, tmp_path):
    files = full.save(tmp_path / "out", save="report,warped", report=False)
    assert [path.name for path in files] == [WARPED, METRICS]


def test_an_output_that_a_result_does_not_have_is_left_out(scans, register_quickly, tmp_path):
    plain = register_quickly(scans.moving, scans.fixed)
    assert [path.name for path in plain.save(tmp_path / "a", save="labels,masks")] == [METRICS]
    rigid = register_quickly(scans.moving, scans.fixed, transform="rigid")
    files = rigid.save(tmp_path / "b", save="transforms,inverse")
    assert [path.name for path in files] == [AFFINE, METRICS]
    assert load(tmp_path / "b").is_linear
    points = brain_points(scans.fixed)
    saved = voxwarp.load_transform(tmp_path / "b")
    np.testing.assert_allclose(saved.transform.map(points), rigid.transform.map(points), atol=1e-9)


@pytest.mark.parametrize("save", ["wraped", "", "warped,", "warped;labels", ["warped", "mask"]])
def test_an_unknown_output_is_refused_before_anything_is_written(full, tmp_path, save):
    for refused in (
        lambda: full.save(tmp_path / "out", save=save),
        lambda: check_output(tmp_path / "out", save=save, overwrite=False),
    ):
        with pytest.raises(InputError, match=r"save must be all, or some of transforms, .*, got '"):
            refused()
    assert not (tmp_path / "out").exists()


def test_files_of_an_earlier_result_do_not_stay(full, everything, tmp_path):
    """They would be taken for those of the new one."""
    folder = tmp_path / "out"
    shutil.copytree(everything, folder)
    (folder / "notes.txt").write_text("mine")
    full.save(folder, save="transforms", overwrite=True)
    assert {path.name for path in folder.iterdir()} == {AFFINE, WARP, METRICS, "notes.txt"}
    with pytest.raises(InputError, match=AFFINE):
        full.save(folder, save="warped")


# On the command line


@pytest.fixture
def command(scans, tiny_model, quick_affine) -> list[object]:
    return ["register", scans.moving, scans.fixed, "--model", tiny_model]


def test_the_command_writes_what_save_names(cli, command, tmp_path):
    assert cli(*command, "-o", tmp_path / "all").code == 0
    outcome = cli(*command, "-o", tmp_path / "out", "--save", "transforms,warped,report")
    assert outcome.code == 0, outcome.err
    names = [AFFINE, WARP, WARPED, REPORT, METRICS]
    assert outcome.out.splitlines()[:5] == [str(tmp_path / "out" / name) for name in names]
    assert {path.name for path in (tmp_path / "out").iterdir()} == set(names)
    assert_same_files(tmp_path / "out", tmp_path / "all")
    words = "--save", "all", "--no-report", "--overwrite"
    assert cli(*command, "-o", tmp_path / "out", *words).code == 0
    plain = {AFFINE, WARP, INVERSE_WARP, WARPED, INVERSE_WARPED, METRICS}
    assert {path.name for path in (tmp_path / "out").iterdir()} == plain


def test_the_command_refuses_unknown_outputs_before_it_computes(refuses, tmp_path):
    line = refuses("register", "nowhere.nii", "-o", tmp_path / "out", "--save", "warped,wraped")
    assert "--save must be all, or some of transforms, inverse, composite, warped" in line
    assert line.endswith("got 'wraped'")


# What lacks files


def without(everything: Path, folder: Path, *names: str) -> Path:
    shutil.copytree(everything, folder)
    for name in names:
        (folder / name).unlink()
    return folder


def test_a_result_of_the_transforms_alone_loads(full, everything, scans, tmp_path):
    full.save(tmp_path / "out", save="transforms")
    loaded, points = load(tmp_path / "out"), brain_points(scans.fixed)
    np.testing.assert_allclose(
        loaded.transform.map(points), full.transform.map(points), rtol=0, atol=1e-4
    )
    np.testing.assert_array_equal(loaded.warped.data, full.warped.data)
    np.testing.assert_array_equal(loaded.warped_labels.data, full.warped_labels.data)
    # And what can be made of it is what a full save has.
    loaded.save(tmp_path / "again", save="transforms,warped,labels")
    assert_same_files(tmp_path / "again", everything)


def test_what_needs_the_missing_inverse_names_it(full, scans, tmp_path):
    out = tmp_path / "out"
    full.save(out, save="transforms")
    loaded, points = load(out), brain_points(scans.moving)
    expected = rf"transform {out}: {INVERSE_WARP} is missing"
    for needs_it in (
        lambda: loaded.inverse.map(points),
        lambda: loaded.inverse_warped,
        lambda: voxwarp.apply_to_image(scans.fixed, out, inverse=True),
        lambda: voxwarp.apply_to_points(points, [out, out]),
        lambda: loaded.save(tmp_path / "again", save="inverse"),
        lambda: loaded.save(tmp_path / "again", save="inverse-warped"),
    ):
        with pytest.raises(InputError, match=expected):
            needs_it()
    assert not (tmp_path / "again").exists()
    assert voxwarp.apply_to_image(scans.moving, [out, out]).data.any()


def test_pictures_need_the_mask_of_a_head(full, everything, tmp_path):
    """Without it, all of a head would be taken for its brain."""
    loaded = load(without(everything, tmp_path / "out", FIXED_MASK))
    assert loaded.brain is None
    with pytest.raises(InputError, match=f"{FIXED_MASK} was missing"):
        loaded.plot()
    written = write_registration(loaded, tmp_path / "again")
    missing = {FIXED_MASK, REPORT, *FILES["composite"]}
    assert {path.name for path in written.files} == set(REGISTERED) - missing
    assert any(FIXED_MASK in warning for warning in written.metrics["warnings"])
    np.testing.assert_array_equal(load(everything).brain.data, full.brain.data)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ((AFFINE,), f"{AFFINE} is missing"),
        ((WARP,), f"{WARP} is missing"),
        ((AFFINE, WARP), f"{AFFINE} and {WARP} are missing"),
    ],
)
def test_a_result_without_transforms_does_not_load(everything, tmp_path, names, words):
    folder = without(everything, tmp_path / "out", *names)
    with pytest.raises(InputError, match=f"result {folder}: {words}; register again"):
        load(folder)


@pytest.mark.parametrize(
    ("save", "name"), [("warped", AFFINE), ("inverse,report", AFFINE), ("labels", AFFINE)]
)
def test_apply_names_the_file_that_is_missing(full, scans, refuses, tmp_path, save, name):
    full.save(tmp_path / "out", save=save)
    line = refuses("apply", scans.moving, "-t", tmp_path / "out", "-o", tmp_path / "x.nii.gz")
    assert f"transform {tmp_path / 'out'}: {name} is missing; give a folder" in line


def test_a_deformable_result_without_warps_is_not_taken_for_an_affine(
    everything, scans, refuses, tmp_path
):
    """Its record says that it is deformable."""
    folder = without(everything, tmp_path / "out", WARP, INVERSE_WARP)
    line = refuses("apply", scans.moving, "-t", folder, "-o", tmp_path / "x.nii.gz")
    assert f"transform {folder}: {WARP} is missing; give a folder" in line
