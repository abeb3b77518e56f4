"""Which scans of a data set are taken: names, labels, sessions, filters, and tables."""

import json
from pathlib import Path

import numpy as np
import pytest
from bids_data import head, write_bids, write_scan

from voxwarp.cohort.bids_names import ORDER, BidsName
from voxwarp.cohort.dataset import Selection, find_scans, read_filters
from voxwarp.errors import InputError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Person 01 with a scan; 02 with sessions a (two runs, two acquisitions) and b; 03 without."""
    root = write_bids(tmp_path / "bids", 1)
    for session, names in {
        "a": ("acq-hi_run-2_T1w", "acq-hi_run-1_T1w", "acq-lo_T1w", "T2w"),
        "b": ("acq-hi_T1w",),
    }.items():
        for name in names:
            file = f"sub-02_ses-{session}_{name}.nii.gz"
            write_scan(root / "sub-02" / f"ses-{session}" / "anat" / file, head(2))
    (root / "sub-03" / "anat").mkdir(parents=True)
    (root / "sub-03" / "anat" / "sub-03_T2w.nii.gz").write_bytes(b"")
    (root / "sub-02" / "ses-a" / "anat" / "._sub-02_ses-a_T1w.nii.gz").write_bytes(b"x")
    return root


def taken(root: Path, **selection: object) -> dict[str, str]:
    """The scan by key."""
    found = find_scans(root, Selection(**selection))
    return {scan.key: scan.path.name for scan in found.scans}


# Names


def test_a_name_is_read_and_written() -> None:
    name = BidsName.of("sub-01_ses-x_task-rest_run-2_bold.nii.gz")
    assert name == BidsName(
        {"sub": "01", "ses": "x", "task": "rest", "run": "2"}, "bold", ".nii.gz"
    )
    moved = name.with_entities(desc="preproc", space="MNI152NLin6Asym", run=None)
    assert str(moved) == "sub-01_ses-x_task-rest_space-MNI152NLin6Asym_desc-preproc_bold.nii.gz"


@pytest.mark.parametrize(
    "name",
    ["T1w.nii.gz", "sub-01.nii.gz", "sub_01_T1w.nii.gz", "sub-01_T1w", "x-_T1w.nii", "README"],
)
def test_other_names_are_none_of_bids(name: str) -> None:
    assert BidsName.of(name) is None


def test_the_order_of_entities_is_that_of_names_in_use() -> None:
    """Of fMRIPrep, sMRIPrep, TemplateFlow and QSIPrep."""
    for name in (
        "sub-01_ses-02_task-rest_acq-mb_dir-AP_run-01_echo-2_part-mag_bold.nii.gz",
        "sub-01_acq-mprage_ce-gad_rec-norm_run-1_T1w.nii.gz",
        "sub-01_run-1_from-T1w_to-MNI152NLin2009cAsym_mode-image_xfm.h5",
        "sub-01_hemi-L_space-fsLR_den-32k_desc-smooth_midthickness.surf.gii",
        "sub-01_space-MNI152NLin2009cAsym_res-2_label-GM_probseg.nii.gz",
        "tpl-MNI152NLin2009cAsym_cohort-1_atlas-X_seg-7n_scale-2_res-01_desc-y_dseg.nii.gz",
    ):
        entities = [pair.partition("-")[0] for pair in name.partition(".")[0].split("_")[:-1]]
        assert entities == sorted(entities, key=ORDER.index), name


# BIDS


def test_the_first_scan_by_name_stands_for_a_person(root: Path) -> None:
    assert taken(root) == {
        "sub-01": "sub-01_T1w.nii.gz",
        "sub-02_ses-a": "sub-02_ses-a_acq-hi_run-1_T1w.nii.gz",
    }
    found = find_scans(root, Selection())
    assert found.scans[0].choice == ""
    assert "the first of 4 by name" in found.scans[1].choice
    assert "sub-02_ses-b_acq-hi_T1w.nii.gz" in found.scans[1].choice
    assert found.scans[1].folder == Path("sub-02/ses-a/anat")
    assert list(found.skipped) == ["sub-03"]


def test_or_for_each_session(root: Path) -> None:
    assert taken(root, reference="sessionwise") == {
        "sub-01": "sub-01_T1w.nii.gz",
        "sub-02_ses-a": "sub-02_ses-a_acq-hi_run-1_T1w.nii.gz",
        "sub-02_ses-b": "sub-02_ses-b_acq-hi_T1w.nii.gz",
    }


@pytest.mark.parametrize("label", ["02", "sub-02"])
def test_persons_and_sessions_are_chosen_with_and_without_prefix(root: Path, label: str) -> None:
    assert list(taken(root, participants=[label])) == ["sub-02_ses-a"]
    for session in ("b", "ses-b"):
        scans = taken(root, participants=[label], sessions=[session])
        assert scans == {"sub-02_ses-b": "sub-02_ses-b_acq-hi_T1w.nii.gz"}


@pytest.mark.parametrize(
    ("wanted", "name"),
    [
        ({"acquisition": "lo"}, "sub-02_ses-a_acq-lo_T1w.nii.gz"),
        ({"acq": ["lo", "x"]}, "sub-02_ses-a_acq-lo_T1w.nii.gz"),
        ({"run": 2}, "sub-02_ses-a_acq-hi_run-2_T1w.nii.gz"),
        ({"run": "Query.ANY"}, "sub-02_ses-a_acq-hi_run-1_T1w.nii.gz"),
        ({"run": None, "acquisition": "hi"}, "sub-02_ses-b_acq-hi_T1w.nii.gz"),
        ({"run": "Query.NONE"}, "sub-02_ses-a_acq-lo_T1w.nii.gz"),
        ({"run": ["2", None], "acquisition": "hi"}, "sub-02_ses-a_acq-hi_run-2_T1w.nii.gz"),
        ({"acq": "lo", "extension": [".nii", ".nii.gz"]}, "sub-02_ses-a_acq-lo_T1w.nii.gz"),
        ({"session": "b", "datatype": "anat"}, "sub-02_ses-b_acq-hi_T1w.nii.gz"),
    ],
)
def test_filters_are_those_of_fmriprep(root: Path, tmp_path: Path, wanted, name: str) -> None:
    (tmp_path / "f.json").write_text(json.dumps({"t1w": {**wanted, "suffix": ["T1w"]}}))
    filters = read_filters(tmp_path / "f.json")
    assert list(taken(root, participants=["02"], filters=filters).values()) == [name]


def test_what_goes_along_is_of_the_same_session(tmp_path: Path) -> None:
    def more(folder: Path, label: str) -> None:
        for name in ("T2w", "desc-aseg_dseg", "space-MNI_dseg", "label-lesion_roi"):
            write_scan(folder / f"sub-{label}_{name}.nii.gz", head(1))
        func = folder.parent / "func" / f"sub-{label}_task-rest_bold.nii.gz"
        write_scan(func, np.stack([head(1)] * 2, -1))

    root = write_bids(tmp_path / "bids", 1, more)
    (scan,) = find_scans(root, Selection(also=("dseg", "bold"), lesion=True)).scans
    names = [path.name for _, path in scan.also]
    assert names == ["sub-01_desc-aseg_dseg.nii.gz", "sub-01_task-rest_bold.nii.gz"]
    assert [path.name for path in scan.lesions] == ["sub-01_label-lesion_roi.nii.gz"]
    assert len(scan.inputs) == 4
    (plain,) = find_scans(root, Selection()).scans
    assert plain.also == plain.lesions == ()


@pytest.mark.parametrize(
    ("selection", "said"),
    [
        ({"participants": ["99"]}, "there is no sub-99 in .*; there are 3: 01, 02, 03"),
        ({"participants": ["03"]}, "sub-03: there is no T1w scan"),
        ({"sessions": ["z"]}, "there is no T1w scan of session z"),
        ({"filters": {"t1w": {"acq": "no"}}}, "there is no T1w scan that passes the filters"),
        ({"reference": "unbiased"}, "does not build unbiased templates"),
    ],
)
def test_what_is_not_there_is_told(root: Path, selection, said: str) -> None:
    with pytest.raises(InputError, match=said):
        find_scans(root, Selection(**selection))


@pytest.mark.parametrize("text", ["", "[1]", '{"t1w": 3}', '{"t1w": {"run": {"a": 1}}}', "{"])
def test_other_filter_files_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "f.json").write_text(text)
    with pytest.raises(InputError, match=r"bids_filter_file .*f\.json"):
        read_filters(tmp_path / "f.json")


# Tables and folders


def test_a_table_of_scans(tmp_path: Path) -> None:
    write_scan(tmp_path / "x" / "a.nii.gz", head(1))
    lines = "scan,subject,labels", "x/a.nii.gz,P 1,x/a.nii.gz", "x/b.nii.gz,P 1,", "x/c.nii.gz,q,"
    (tmp_path / "t.csv").write_text("\n".join(lines))
    assert taken(tmp_path / "t.csv") == {
        "sub-P1_run-1": "a.nii.gz",
        "sub-P1_run-2": "b.nii.gz",
        "sub-q": "c.nii.gz",
    }
    first = find_scans(tmp_path / "t.csv", Selection()).scans[0]
    assert [str(name) for name, _ in first.also] == ["sub-P1_run-1_dseg.nii.gz"]
    assert list(taken(tmp_path / "t.csv", participants=["q"])) == ["sub-q"]


def test_a_folder_of_images(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_scan(tmp_path / f"{name}.nii.gz", head(1))
    assert taken(tmp_path) == {"sub-one": "one.nii.gz", "sub-two": "two.nii.gz"}


@pytest.mark.parametrize(
    ("rows", "selection", "said"),
    [
        (("a-1", "a1"), {}, "'a-1' and 'a1' would both be sub-a1"),
        (("--", "b"), {}, "has no letter or digit"),
        (("a", "b"), {"participants": ["c"]}, "there is no c in"),
        (("a", "b"), {"sessions": ["1"]}, "session_label needs a BIDS data set"),
    ],
)
def test_tables_that_have_no_names_in_bids(tmp_path: Path, rows, selection, said: str) -> None:
    lines = ["scan,subject", *(f"{n}.nii.gz,{row}" for n, row in enumerate(rows))]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    with pytest.raises(InputError, match=said):
        find_scans(tmp_path / "t.csv", Selection(**selection))
