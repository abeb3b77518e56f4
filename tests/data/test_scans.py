"""Lists of scans: from tables and other sources, with one split for each subject."""

from collections import Counter
from pathlib import Path

import pytest
from cohorts import table
from hypothesis import given, settings
from hypothesis import strategies as st

from voxwarp.data.scans import ScanRecord, gather, scans_of
from voxwarp.data.sources import Data
from voxwarp.data.splits import split_sizes
from voxwarp.errors import InputError

FRACTIONS = {"train": 0.8, "val": 0.1, "test": 0.1}


def table_data(path: Path, **more) -> Data:
    fractions = more.pop("fractions", FRACTIONS)
    subjects = more.pop("subjects", None)
    return Data(sources=[{"table": str(path), **more}], fractions=fractions, subjects=subjects)


# -------------------------------------------------------------------------------------- Tables

ROWS = """scan,labels,subject,dataset,split
t1/a.nii.gz,seg/a.nii.gz,ann,,train
t1/b.nii,,bob,other,val
/abs/c.mgz,,,, test
"""


def test_a_table_names_scans(tmp_path):
    path = table(tmp_path / "study" / "scans.csv", ROWS)
    assert gather(table_data(path, licence="CC0"), 0) == [
        ScanRecord(
            *(path.parent / "t1/a.nii.gz", path.parent / "seg/a.nii.gz", "ann", "study", "train"),
            *("scans.csv row 2", "CC0"),
        ),
        ScanRecord(path.parent / "t1/b.nii", None, "bob", "other", "val", "scans.csv row 3", "CC0"),
        ScanRecord(Path("/abs/c.mgz"), None, "c", "study", "test", "scans.csv row 4", "CC0"),
    ]


def test_patterns_are_filled_from_columns(tmp_path):
    path = table(tmp_path / "set" / "t.csv", "id,site,map\n1,x,m1\n2,y,\n")
    found = gather(
        table_data(path, scan="../{site}/{id}.nii.gz", labels="{map}.nii", split="train"), 0
    )
    assert [(s.path, s.labels, s.subject, s.split) for s in found] == [
        (tmp_path / "x/1.nii.gz", tmp_path / "set/m1.nii", "1", "train"),
        (tmp_path / "y/2.nii.gz", None, "2", "train"),
    ]


def test_a_table_of_an_earlier_version_is_read(tmp_path):
    """The column of the subjects had another name; the new one counts where both are filled."""
    text = "scan,person,subject\na.nii,ann,\nb.nii,x,ann\nc.nii,,\n"
    found = gather(table_data(table(tmp_path / "t.csv", text), split="train"), 0)
    assert [s.subject for s in found] == ["ann", "ann", "c"]


def test_numbers_in_json_are_names(tmp_path):
    text = '{"id": 7, "subject": 3}\n\n{"id": 8, "subject": "3"}\n'
    found = gather(table_data(table(tmp_path / "t.jsonl", text), scan="{id}.nii", split="train"), 0)
    assert [(s.path.name, s.subject, s.where) for s in found] == [
        ("7.nii", "3", "t.jsonl row 1"),
        ("8.nii", "3", "t.jsonl row 3"),
    ]


def test_scans_of_one_name_in_several_folders_are_several_subjects(tmp_path):
    path = table(tmp_path / "t.csv", "scan\n01/T1.nii.gz\n02/T1.nii.gz\nx/other.nii.gz\n")
    found = gather(table_data(path, split="train"), 0)
    assert [s.subject for s in found] == ["01/T1", "02/T1", "other"]


WRONG_TABLES = {
    "": "it has no rows",
    "scan\n": "it has no rows",
    "scan,subject\na.nii\n,bob\n": r"t\.csv row 3: .* \{scan\} needs is empty, in .*t\.csv",
    "scan\na.nii,b\n": r"row 2: it has 2 values, but the first row has 1",
    "scan,scan\na.nii,b\n": "two columns have the same name",
    "image\na.nii\n": r"no column 'scan'; its columns are image",
    "scan,split\na.nii,training\n": r"row 2: split must be train, val, test or empty, got 'train",
    "scan,split\na.nii,val\n": "none of the 1 scans is in split train",
    "scan,split\na.nii,train\nb.nii,train\nx/../a.nii,train\n": r"row 4: scan .*row 2\)",
    "scan,subject,split\na.nii,ann,train\nb.nii,bob,\nc.nii,ann,val\n": (
        r"subject 'ann' of .* two splits: train \(t\.csv row 2, a\.nii\) and val \(t\.csv row 4"
    ),
    'scan\n"a.nii\n': "not a CSV, TSV or JSON-lines table",
    "scan\n/\n": "row 2: '/' is not a valid path",
    "scan\na\0b.nii\n": r"table in UTF-8 \(line contains NUL\)",
}


@pytest.mark.parametrize("text", WRONG_TABLES)
def test_a_wrong_table_is_refused(tmp_path, text):
    path = table(tmp_path / "t.csv", text)
    with pytest.raises(InputError, match=WRONG_TABLES[text]) as caught:
        gather(table_data(path), 0)
    assert "\n" not in str(caught.value)


def test_a_pattern_of_unknown_columns_is_refused(tmp_path):
    path = table(tmp_path / "t.csv", "id,age\n1,30\n")
    for patterns in ({"scan": "{idd}.nii"}, {"scan": "{id}.nii", "labels": "{idd}.nii"}):
        with pytest.raises(
            InputError, match=r"no column 'idd', which .* needs; its columns are id, age"
        ):
            gather(table_data(path, **patterns), 0)


def test_a_name_that_no_path_can_have_is_refused(tmp_path):
    for word in ("null", '"a\\u0000b.nii"'):
        path = table(tmp_path / "t.jsonl", f'{{"scan": {word}, "subject": "x"}}\n')
        with pytest.raises(
            InputError, match=r"t\.jsonl row 1: .*(needs is empty|is not a valid path)"
        ):
            gather(table_data(path), 0)


def test_sources_that_are_not_there_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_bytes(b"\xff\xfe\xff")
    sources = {
        "no such file or folder": [{kind: "none"} for kind in ("table", "folder", "bids")],
        "a folder, but it must be a file": [{"table": "empty"}],
        "a file, but it must be a folder": [{"folder": "file"}, {"bids": "file"}],
        "no file in it matches": [
            *({"folder": "empty"}, {"bids": "empty"}),
            {"folder": "empty", "scan": ""},  # an empty word is none
        ],
        "not a CSV, TSV or JSON-lines table": [{"table": "file"}],
        "is not a valid file pattern": [{"folder": "empty", "scan": "/x"}],
    }
    for message, wrong in sources.items():
        for source in wrong:
            located = {k: v if k == "scan" else str(tmp_path / v) for k, v in source.items()}
            with pytest.raises(InputError, match=message):
                gather(Data(sources=[located]), 0)


def test_subjects_of_two_data_sets_are_not_one(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name / "t1").mkdir(parents=True)
        (tmp_path / name / "t1" / "01.nii.gz").touch()
    sources = [
        {"folder": str(tmp_path / "one/t1"), "split": "train"},
        {"folder": str(tmp_path / "two/t1"), "split": "val"},
    ]
    with pytest.raises(InputError, match=r"one/t1 and .*two/t1 would both be the data set 't1'"):
        gather(Data(sources=sources), 0)
    sources[1]["dataset"] = "second"
    found = gather(Data(sources=sources), 0)
    assert [(s.key, s.split) for s in found] == [
        (("t1", "01"), "train"),
        (("second", "01"), "val"),
    ]


# -------------------------------------------------------------------------------------- Splits


@st.composite
def subjects_with_scans(draw) -> list[tuple[str, int]]:
    """Rows of a table: subjects, some with several scans, in any order."""
    numbers = draw(st.lists(st.integers(1, 3), min_size=3, max_size=30))
    rows = [(f"p{i}", scan) for i, number in enumerate(numbers) for scan in range(number)]
    return draw(st.permutations(rows))


def split_of_subjects(folder: Path, rows, seed=0, **more) -> dict[str, str]:
    text = "scan,subject\n" + "".join(f"{p}-{n}.nii,{p}\n" for p, n in rows)
    scans = gather(table_data(table(folder / "t.csv", text), **more), seed)
    splits = {}
    for scan in scans:
        assert splits.setdefault(scan.subject, scan.split) == scan.split
    return splits


@settings(max_examples=40, deadline=None)
@given(rows=subjects_with_scans(), seed=st.integers(0, 3), order=st.randoms())
def test_splits_are_of_subjects_and_do_not_depend_on_rows(tmp_path_factory, rows, seed, order):
    folder = tmp_path_factory.mktemp("splits")
    splits = split_of_subjects(folder, rows, seed)
    subjects = {subject for subject, _ in rows}
    assert splits.keys() == subjects
    assert Counter(splits.values()) == dict(split_sizes(len(subjects), FRACTIONS))
    shuffled = list(rows)
    order.shuffle(shuffled)
    more = [*shuffled, (rows[0][0], 99)]  # another scan of a subject moves no subject
    assert split_of_subjects(folder, more, seed) == splits


def test_a_given_split_counts_for_all_scans_of_a_subject(tmp_path):
    """And the others are divided as if the given ones were not there."""
    lines = ["scan,subject,split", *(f"{i}.nii,p{i}," for i in range(10))]
    lines += ["again.nii,p3,test", "x.nii,new,val"]
    found = gather(table_data(table(tmp_path / "t.csv", "\n".join(lines))), 0)
    splits = {scan.subject: scan.split for scan in found}
    assert (splits.pop("p3"), splits.pop("new")) == ("test", "val")
    assert [s.split for s in found if s.subject == "p3"] == ["test", "test"]
    assert Counter(splits.values()) == {k: n for k, n in split_sizes(9, FRACTIONS).items() if n}


def test_fewer_subjects_are_the_first_of_more(tmp_path):
    rows = [(f"p{i}", n) for i in range(40) for n in range(2)]
    whole = split_of_subjects(tmp_path, rows)
    before: set[str] = set()
    for number in (5, 10, 20, 32):
        splits = split_of_subjects(tmp_path, rows, subjects=number)
        assert splits == split_of_subjects(tmp_path, rows[::-1], subjects=number)
        train = {subject for subject, split in splits.items() if split == "train"}
        assert len(train) == number
        assert before < train
        assert splits.items() <= whole.items()
        assert {p for p, s in whole.items() if s != "train"} == splits.keys() - train
        before = train
    with pytest.raises(InputError, match=r"data\.subjects must be at most 32, .* got 33"):
        split_of_subjects(tmp_path, rows, subjects=33)
    chosen = [
        split_of_subjects(tmp_path, rows, seed, split="train", subjects=5) for seed in range(6)
    ]
    assert len({tuple(sorted(subjects)) for subjects in chosen}) == 6


def test_all_scans_of_a_data_set_without_train_subjects(tmp_path):
    """``gather`` needs train subjects, ``scans_of`` does not."""
    path = table(tmp_path / "t.csv", "scan,subject,split\na.nii,x,val\nb.nii,x,\nc.nii,y,test\n")
    found = scans_of(table_data(path), 0)
    assert [(s.path.name, s.subject, s.split) for s in found] == [
        *(("a.nii", "x", "val"), ("b.nii", "x", "val"), ("c.nii", "y", "test")),
    ]
    with pytest.raises(InputError, match="none of the 3 scans is in split train"):
        gather(table_data(path), 0)


@settings(max_examples=20, deadline=None)
@given(rows=subjects_with_scans(), seed=st.integers(0, 3), subjects=st.integers(1, 3))
def test_a_training_on_fewer_subjects_takes_from_all_scans(tmp_path_factory, rows, seed, subjects):
    """As they are and where they are: only subjects of train are left out."""
    text = "scan,subject\n" + "".join(f"{p}-{n}.nii,{p}\n" for p, n in rows)
    path = table(tmp_path_factory.mktemp("all") / "t.csv", text)
    everything = scans_of(table_data(path, subjects=subjects), seed)
    assert [scan.path.name for scan in everything] == [f"{p}-{n}.nii" for p, n in rows]
    assert everything == scans_of(table_data(path), seed) == gather(table_data(path), seed)
    train = {scan.key for scan in everything if scan.split == "train"}
    if subjects > len(train):
        return
    some = gather(table_data(path, subjects=subjects), seed)
    chosen = {scan.key for scan in some if scan.split == "train"}
    assert len(chosen) == subjects
    assert some == [s for s in everything if s.split != "train" or s.key in chosen]


@pytest.mark.parametrize(
    "text", [text for text, m in WRONG_TABLES.items() if "none of the" not in m]
)
def test_scans_of_a_wrong_table_are_refused(tmp_path, text):
    path = table(tmp_path / "t.csv", text)
    with pytest.raises(InputError, match=WRONG_TABLES[text]):
        scans_of(table_data(path), 0)


@pytest.mark.data
def test_the_real_data_sets(data):
    oasis = data / "oasis-malf"
    source = {"table": str(oasis / "subjects.csv"), "scan": "t1/{id}.nii.gz"}
    sources = [
        {**source, "labels": "labels/{id}.nii.gz"},
        {"bids": str(data / "ds000011"), "split": "train"},
    ]
    found = gather(Data(sources=sources, structures={"table": str(oasis / "labels.csv")}), 0)
    assert all(s.path.is_file() and (s.labels is None or s.labels.is_file()) for s in found)
    of = {name: [s for s in found if s.dataset == name] for name in ("oasis-malf", "ds000011")}
    assert Counter(s.split for s in of["oasis-malf"]) == {"train": 19, "val": 2, "test": 6}
    assert [s.subject for s in of["ds000011"]] == [f"sub-0{i}" for i in range(1, 7)]
    undecided = table_data(oasis / "subjects.csv", scan="t1/{id}.nii.gz")
    assert len({s.subject for s in found}) == 24 + 6
    assert Counter(s.subject for s in gather(undecided, 0))["1003"] == 2
