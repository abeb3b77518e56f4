"""``voxwarp template`` from end to end, on phantoms."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from bids_data import grid, head, write_bids, write_quick_model, write_scan
from inline import run_inline
from scipy import ndimage

import voxwarp
from voxwarp.space.volume import read_series

pytest.importorskip("distributed")

QUICK = "--brain-extract", "no", "--rounds", "2", "--spacing", "8"


@pytest.fixture(autouse=True)
def _inline(monkeypatch: pytest.MonkeyPatch) -> None:
    run_inline(monkeypatch)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_quick_model(tmp_path_factory.mktemp("models") / "quick")


@pytest.fixture
def scans(tmp_path: Path) -> list[Path]:
    """Three people; names that are not of BIDS."""
    return [write_scan(tmp_path / "in" / f"P{n}.nii.gz", head(n)) for n in (1, 2, 3)]


def settings(**more: object) -> voxwarp.TemplateSettings:
    quick = {"rounds": 2, "spacing": 8.0, "brain_extract": "no", "name": "Small"}
    return voxwarp.TemplateSettings(**{**quick, **more})  # type: ignore[arg-type]


def table(path: Path) -> list[dict[str, str]]:
    header, *rows = (line.split("\t") for line in path.read_text().splitlines())
    return [dict(zip(header, row, strict=True)) for row in rows]


def test_files_have_the_names_of_templateflow(cli, scans, model, tmp_path) -> None:
    out = tmp_path / "out"
    words = "--model", model, "--name", "Small", "--cohort", "old", *QUICK
    done = cli("template", *scans, "-o", out, *words)
    assert done.code == 0, done.err
    folder = out / "tpl-Small" / "cohort-old"
    stem = "tpl-Small_cohort-old_res-01"
    assert {path.name for path in folder.glob("*.nii.gz")} == {
        f"{stem}_T1w.nii.gz",
        f"{stem}_desc-brain_mask.nii.gz",
        f"{stem}_label-brain_probseg.nii.gz",
        f"{stem}_stat-std_T1w.nii.gz",
        f"{stem}_stat-rms_displacement.nii.gz",
    }
    assert all(
        path.with_name(path.name.replace(".nii.gz", ".json")).is_file()
        for path in folder.glob("*.nii.gz")
    )
    about = json.loads((out / "tpl-Small" / "template_description.json").read_text())
    image = nib.load(folder / f"{stem}_T1w.nii.gz")
    assert about["res"]["01"]["shape"] == list(image.shape)
    assert about["res"]["01"]["zooms"] == [8, 8, 8]
    assert f"template: {folder / stem}_T1w.nii.gz" in done.out
    # The mean of each brain is 100, so that of their mean is.
    mask = nib.load(folder / f"{stem}_desc-brain_mask.nii.gz").get_fdata() != 0
    assert image.get_fdata()[mask].mean() == pytest.approx(100, rel=0.05)
    assert (image.get_fdata()[~mask] == 0).all()
    rounds = sorted(path.name for path in (out / "rounds").iterdir())
    assert [name for name in rounds if "mask" not in name] == [
        "rigid_T1w.nii.gz",
        "round-1_T1w.nii.gz",
        "round-2_T1w.nii.gz",
    ]
    assert [row["round"] for row in table(out / "rounds.tsv")] == [
        "rigid",
        "round 1",
        "round 2",
        "finished",
    ]
    people = table(out / "participants.tsv")
    assert [row["participant_id"] for row in people] == ["sub-P1", "sub-P2", "sub-P3"]
    for name in ("template.html", "index.html", "sub-P1.html"):
        assert (out / name).stat().st_size > 5000
    assert not any((out / ".voxwarp").glob("*/*"))


def test_transforms_bring_scans_to_the_template_in_itk_too(scans, model, tmp_path) -> None:
    built = voxwarp.build_template(scans, tmp_path / "out", settings=settings(model=str(model)))
    folder = tmp_path / "out" / "sub-P2" / "anat"
    transform = sitk.ReadTransform(str(folder / "sub-P2_from-T1w_to-Small_mode-image_xfm.h5"))
    moving = sitk.Cast(sitk.ReadImage(str(scans[1])), sitk.sitkFloat32)
    reference = sitk.ReadImage(str(built.image))
    expected = sitk.GetArrayFromImage(sitk.Resample(moving, reference, transform))
    warped = sitk.ReadImage(str(folder / "sub-P2_space-Small_desc-preproc_T1w.nii.gz"))
    difference = np.abs(sitk.GetArrayFromImage(warped) - expected)
    assert difference.mean() < 0.5
    assert np.corrcoef(expected.ravel(), sitk.GetArrayFromImage(reference).ravel())[0, 1] > 0.95


def test_order_of_scans_does_not_matter(scans, model, tmp_path) -> None:
    images = []
    for name, own in (("a", scans), ("b", scans[::-1])):
        built = voxwarp.build_template(own, tmp_path / name, settings=settings(model=str(model)))
        images.append(built.image.read_bytes())
    assert images[0] == images[1]


def test_template_is_up_to_date_or_built_anew(cli, scans, model, tmp_path) -> None:
    out = tmp_path / "out"
    words = "template", *scans, "-o", out, "--model", model, *QUICK
    assert cli(*words).code == 0
    record = (out / "template.json").read_bytes()
    again = cli(*words)
    assert "nothing to do" in again.out
    assert (out / "template.json").read_bytes() == record
    write_scan(scans[0], head(7))
    changed = cli(*words)
    assert "round 2" in changed.out
    assert (out / "template.json").read_bytes() != record
    fewer = cli(*(word for word in words if word != scans[2]), "--average", "median")
    assert fewer.code == 0, fewer.err
    assert not (out / "sub-P3" / "anat" / "sub-P3_desc-brain_mask.nii.gz").exists()
    (out / "rounds" / "round-1_T1w.nii.gz").unlink()
    assert "round 2" in cli(*(w for w in words if w != scans[2]), "--average", "median").out


def test_interrupted_work_goes_on(scans, model, tmp_path, monkeypatch) -> None:
    """Wherever it stops: after each job of a build, the next call goes on from there."""
    from voxwarp.templates import build as module
    from voxwarp.templates.job import do_job

    whole = voxwarp.build_template(scans, tmp_path / "whole", settings=settings(model=str(model)))
    done: list[str] = []

    def interrupted(values):
        if len(done) == limits[0]:
            raise KeyboardInterrupt
        done.append(f"{values['task']} {values['scan']['key']}")
        return do_job(values)

    monkeypatch.setattr(module, "do_job", interrupted)
    out, calls, limits = tmp_path / "out", 0, [2, 4, 7, 10, 13, 17, 99]
    while limits:
        try:
            built = voxwarp.build_template(scans, out, settings=settings(model=str(model)))
        except KeyboardInterrupt:
            calls += 1
        del limits[0]
    assert calls == 6
    assert len(done) == len(scans) * 7  # examine, average, 2 × (register, average), finish
    assert built.image.read_bytes() == whole.image.read_bytes()
    for path in sorted((tmp_path / "whole").rglob("*.nii.gz")):
        assert (out / path.relative_to(tmp_path / "whole")).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("moves", [0, 1, 20, 35])
def test_a_kill_while_files_are_moved_does_no_harm(
    scans, model, tmp_path, monkeypatch, moves
) -> None:
    import os

    from voxwarp.templates import outputs

    wanted, out = settings(model=str(model)), tmp_path / "out"
    voxwarp.build_template(scans[:2], out, settings=settings(model=str(model), rounds=3))
    whole = voxwarp.build_template(scans[1:], tmp_path / "whole", settings=wanted)
    left = [moves]

    def replace(source, target):
        if "stage" in str(source) and "stage" not in str(target):  # not a file in the making
            if left[0] == 0:
                raise KeyboardInterrupt
            left[0] -= 1
        os.rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(outputs.os, "replace", replace)
        with pytest.raises(KeyboardInterrupt):
            voxwarp.build_template(scans[1:], out, settings=wanted)
    assert not (out / "template.json").exists()
    built = voxwarp.build_template(scans[1:], out, settings=wanted)
    assert built.image.read_bytes() == whole.image.read_bytes()
    kept = {
        path.relative_to(folder).as_posix()
        for folder in (out, tmp_path / "whole")
        for path in folder.rglob("*.nii.gz")
    }
    for name in kept:  # nothing of the earlier template is left: not P1, not its third round
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_changed_scan_counts_though_its_label_map_has_the_same_name(
    scans, model, tmp_path
) -> None:
    for number, path in enumerate(scans, 1):
        labels = (head(number) > 0).astype(np.uint8)
        write_scan(tmp_path / "in" / "labels" / path.name, labels)
    words = {"settings": settings(model=str(model)), "labels": "labels/{name}"}
    first = voxwarp.build_template(scans, tmp_path / "out", **words).image.read_bytes()
    assert voxwarp.build_template(scans, tmp_path / "out", **words).was_there
    write_scan(scans[0], head(8))
    again = voxwarp.build_template(scans, tmp_path / "out", **words)
    assert not again.was_there
    assert again.image.read_bytes() != first


def test_a_bad_scan_is_named_and_left_out(cli, scans, model, tmp_path) -> None:
    bad = tmp_path / "in" / "P9.nii.gz"
    bad.write_bytes(scans[0].read_bytes()[:200])
    out = tmp_path / "out"
    done = cli("template", *scans, bad, "-o", out, "--model", model, *QUICK)
    assert done.code == 3
    assert "voxwarp: left out: sub-P9:" in done.err
    assert "not an image that can be read" in done.err
    (row,) = (row for row in table(out / "participants.tsv") if row["used"] == "no")
    assert row["scan"] == "sub-P9"
    without = voxwarp.build_template(
        scans, tmp_path / "without", settings=settings(model=str(model), name="template")
    )
    image = out / "tpl-template" / "tpl-template_res-01_T1w.nii.gz"
    assert image.read_bytes() == without.image.read_bytes()


def test_symmetric_template_is_its_mirror_image(scans, model, tmp_path) -> None:
    wanted = settings(model=str(model), symmetric=True, average="median")
    built = voxwarp.build_template(scans, tmp_path / "out", settings=wanted)
    data = nib.load(built.image).get_fdata()
    np.testing.assert_array_equal(data, data[::-1])
    affine = nib.load(built.image).affine
    middle = affine @ [(data.shape[0] - 1) / 2, 0, 0, 1]
    assert middle[0] == pytest.approx(0, abs=1e-5)
    record = json.loads((tmp_path / "out" / "template.json").read_text())
    assert record["settings"]["symmetric"]


def test_labels_are_voted_on(cli, scans, model, tmp_path) -> None:
    for number, path in enumerate(scans, 1):
        brain = head(number)
        labels = np.where(brain > 0, 1000 + (brain > 110), 0).astype(np.int16)
        write_scan(path.with_name(path.name.replace(".nii.gz", "_seg.nii.gz")), labels)
    out = tmp_path / "out"
    (tmp_path / "names.csv").write_text("value,name\n1001,bright\n5,other\n")
    words = "--model", model, "--labels", "{stem}_seg.nii.gz", *QUICK
    words += "--label-names", tmp_path / "names.csv"
    done = cli("template", *scans, "-o", out, *words)
    assert done.code == 0, done.err
    folder = out / "tpl-template"
    stem = "tpl-template_res-01"
    voted = nib.load(folder / f"{stem}_dseg.nii.gz").get_fdata()
    shares = {
        label: nib.load(folder / f"{stem}_label-{label}_probseg.nii.gz").get_fdata()
        for label in (1000, 1001)
    }
    people = [
        nib.load(out / f"sub-P{n}" / "anat" / f"sub-P{n}_space-template_dseg.nii.gz").get_fdata()
        for n in (1, 2, 3)
    ]
    total = sum(shares.values())
    assert total.max() == pytest.approx(1)
    inside = total == 1  # all have a label there
    assert (voted[inside] != 0).all()
    assert (voted[shares[1001] > 0.5] == 1001).all()
    assert set(np.unique(voted)) == {0, 1000, 1001}
    # People's own maps are brought by nearest neighbour, the votes by linear interpolation.
    agree = np.mean([(one == voted)[inside].mean() for one in people])
    assert agree > 0.8
    rows = table(folder / f"{stem}_dseg.tsv")
    assert [row["index"] for row in rows] == ["1000", "1001"]
    assert [row["name"] for row in rows] == ["label-1000", "bright"]


def test_other_contrasts_follow(cli, model, tmp_path) -> None:
    def second(folder: Path, label: str) -> None:
        brain = head(int(label))
        write_scan(
            folder / f"sub-{label}_T2w.nii.gz", np.where(brain > 0, 300 - brain, 0).astype(np.int16)
        )

    bids = write_bids(tmp_path / "bids", 3, second)
    out = tmp_path / "out"
    done = cli("template", bids, "-o", out, "--model", model, "--also", "T2w", *QUICK)
    assert done.code == 0, done.err
    folder = out / "tpl-template"
    first, other = (
        nib.load(folder / f"tpl-template_res-01_{suffix}.nii.gz").get_fdata()
        for suffix in ("T1w", "T2w")
    )
    inside = nib.load(folder / "tpl-template_res-01_desc-brain_mask.nii.gz").get_fdata() != 0
    core = ndimage.binary_erosion(inside, iterations=2)
    assert np.corrcoef(first[core], other[core])[0, 1] < -0.8
    assert other[inside].mean() == pytest.approx(100, rel=0.1)
    moved = out / "sub-01" / "anat" / "sub-01_space-template_desc-preproc_T2w.nii.gz"
    assert moved.is_file()


def test_scans_of_one_person_count_once(tmp_path, model) -> None:
    paths = []
    for person, session, seed in (("1", "a", 1), ("1", "b", 1), ("1", "c", 1), ("2", "a", 2)):
        name = f"sub-{person}_ses-{session}_T1w.nii.gz"
        paths.append(write_scan(tmp_path / "in" / name, head(seed)))
    wanted = settings(model=str(model), longitudinal=True)
    built = voxwarp.build_template(paths, tmp_path / "four", settings=wanted)
    two = voxwarp.build_template(
        [paths[0], paths[3]], tmp_path / "two", settings=settings(model=str(model))
    )
    first, second = (nib.load(one.image).get_fdata() for one in (built, two))
    np.testing.assert_allclose(first, second, atol=0.05)
    folder = tmp_path / "four" / "sub-1" / "ses-b" / "anat"
    assert (folder / "sub-1_ses-b_from-T1w_to-Small_mode-image_xfm.h5").is_file()


# --------------------------------------------------------------------------------- Known truth


def test_the_template_behind_people_comes_back(tmp_path, model) -> None:
    """People made of one brain by deformations whose mean is zero: pairs of v and −v."""
    import torch

    from voxwarp.fields import field

    truth = head(5).astype(np.float32)
    image = torch.from_numpy(truth)[None, None]
    generator = torch.Generator().manual_seed(0)
    paths, largest = [], 0.0
    for number in range(4):
        noise = torch.randn(1, 3, *truth.shape, generator=generator)
        smooth = torch.from_numpy(_blurred(noise[0].numpy(), 3.5))[None]
        velocity = 1.2 * smooth / smooth.norm(dim=1).max()
        for sign in (1, -1):
            displacement = field.exponentiate(sign * velocity)
            largest = max(largest, float(displacement.norm(dim=1).max()))
            moved = field.warp(image, displacement)[0, 0].numpy()
            name = f"P{number}{'b' if sign < 0 else 'a'}.nii.gz"
            paths.append(write_scan(tmp_path / "in" / name, moved.astype(np.float32)))
    assert largest > 1
    wanted = settings(model=str(model), rounds=4)
    built = voxwarp.build_template(paths, tmp_path / "out", settings=wanted)
    rigid = read_series(tmp_path / "out" / "rounds" / "rigid_T1w.nii.gz")
    found = read_series(built.image)
    reference = voxwarp.Volume(truth, grid())
    inside = read_series(built.mask).data != 0
    expected = _on(reference, found.grid)
    similar = [np.corrcoef(x.data[inside], expected[inside])[0, 1] for x in (rigid, found)]
    assert similar[1] > 0.98
    assert 1 - similar[1] < 0.5 * (1 - similar[0])
    record = json.loads((tmp_path / "out" / "template.json").read_text())
    shifts = [one.get("mean_displacement_mm") for one in record["rounds"]]
    assert record["final"]["mean_displacement_mm"] < 0.4  # of 8 mm voxels
    assert shifts[-1] < shifts[1] or shifts[1] < 0.4


def _blurred(values: np.ndarray, sigma: float) -> np.ndarray:
    return np.stack([ndimage.gaussian_filter(one, sigma, mode="constant") for one in values])


def _on(volume: voxwarp.Volume, where) -> np.ndarray:
    from voxwarp.space.resample import resample

    return resample(volume, where).data


# ----------------------------------------------------------------------------------- Bad input


def test_one_scan_is_no_group(refuses, scans, tmp_path) -> None:
    line = refuses("template", scans[0], "-o", tmp_path / "out")
    assert "a template needs at least 2 scans, found 1" in line


def test_two_scans_of_a_person_need_longitudinal(refuses, tmp_path) -> None:
    names = [f"sub-1_ses-{s}_T1w.nii.gz" for s in "ab"]
    paths = [write_scan(tmp_path / name, head(1)) for name in names]
    line = refuses("template", *paths, "-o", tmp_path / "out")
    assert "both are of sub-1" in line
    assert "--longitudinal" in line


def test_names_of_two_contrasts_are_refused(refuses, tmp_path) -> None:
    paths = [
        write_scan(tmp_path / name, head(1)) for name in ("sub-1_T1w.nii.gz", "sub-2_T2w.nii.gz")
    ]
    line = refuses("template", *paths, "-o", tmp_path / "out")
    assert "their names say T1w and T2w" in line
    assert "--also" in line


def test_images_of_two_contrasts_are_refused(cli, scans, model, tmp_path) -> None:
    brain = head(1)
    same = [write_scan(path, brain) for path in scans]
    others = [
        write_scan(tmp_path / "in" / f"P{n}.nii.gz", np.where(brain > 0, 300 + n - brain, 0))
        for n in (8, 9)
    ]
    done = cli("template", *same, *others, "-o", tmp_path / "out", "--model", model, *QUICK)
    assert done.code == 2
    assert "different contrasts: the correlation of sub-P8, sub-P9" in done.err


def test_label_maps_with_other_values_are_refused(cli, scans, model, tmp_path) -> None:
    for number, path in enumerate(scans, 1):
        brain = (head(number) > 0).astype(np.int16)
        labels = brain * (1 if number < 3 else 77)
        write_scan(path.with_name(path.name.replace(".nii.gz", "_seg.nii.gz")), labels)
    words = "--model", model, "--labels", "{stem}_seg.nii.gz", *QUICK
    done = cli("template", *scans, "-o", tmp_path / "out", *words)
    assert done.code == 2
    assert "labels of sub-P3: only 0 of its 1 labels" in done.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--rounds", "0"), "--rounds must be from 1 to 20, got 0"),
        (("--spacing", "0.1"), "--spacing must be from 0.3 to 8 mm, got 0.1"),
        (("--name", "a b"), "--name must be of letters and digits"),
        (("--cohort", "a_b"), "--cohort must be of letters and digits"),
        (("--also", "T2w"), "--also needs a BIDS data set, but files were given"),
        (("--labels", "{stem}_x.nii.gz"), "none of the scans has a label map"),
        (("--label-names", __file__), "test_template.py row"),
        (("--split", "train"), "--split needs a table, but files were given"),
    ],
)
def test_bad_options_are_refused(refuses, scans, tmp_path, words, message) -> None:
    assert message in refuses("template", *scans, "-o", tmp_path / "out", *words)


def test_other_contrasts_must_lie_where_the_scans_are(cli, model, tmp_path) -> None:
    def elsewhere(folder: Path, label: str) -> None:
        path = write_scan(folder / f"sub-{label}_T2w.nii.gz", head(int(label)))
        if label == "02":
            image = nib.load(path)
            moved = image.affine.copy()
            moved[:3, 3] += 500
            nib.save(nib.Nifti1Image(np.asarray(image.dataobj), moved), path)

    bids = write_bids(tmp_path / "bids", 3, elsewhere)
    words = "--model", model, "--also", "T2w", *QUICK
    done = cli("template", bids, "-o", tmp_path / "out", *words)
    assert done.code == 3
    assert "left out: sub-02: image" in done.err
    assert "both must share one world space" in done.err


def test_a_trimmed_mean_of_few_is_refused(cli, scans, model, tmp_path) -> None:
    words = "--model", model, "--average", "trimmed", *QUICK
    done = cli("template", *scans, "-o", tmp_path / "out", *words)
    assert done.code == 2
    assert "leaves out nobody of 3 persons, it needs at least 10" in done.err


def test_a_cohort_is_not_overwritten(refuses, scans, tmp_path) -> None:
    (tmp_path / "out" / ".voxwarp").mkdir(parents=True)
    (tmp_path / "out" / "quality.tsv").write_text("of a cohort")
    line = refuses("template", *scans, "-o", tmp_path / "out")
    assert "holds files of something else" in line


def test_a_folder_of_something_else_is_refused(refuses, scans, tmp_path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("all my work")
    line = refuses("template", *scans, "-o", tmp_path / "out")
    assert "holds files of something else (thesis.txt)" in line


def test_a_scan_is_not_given_twice(refuses, scans, tmp_path) -> None:
    line = refuses("template", *scans, scans[0], "-o", tmp_path / "out")
    assert "it is given twice" in line
