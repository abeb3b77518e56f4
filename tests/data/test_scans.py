"""The scans of a training: what tables, folders and BIDS data sets name, who is in which split."""

import json
from collections import Counter
from pathlib import Path

import pytest
from cohorts import table
from hypothesis import given, settings
from hypothesis import strategies as st

from voxwarp.data.scans import ScanRecord, gather, scans_of
from voxwarp.data.sources import Data
from voxwarp.data.splits import shares
from voxwarp.errors import InputError


def table_data(path: Path, **more) -> Data:
    fractions = more.pop("fractions", {"train": 0.8, "val": 0.1, "test": 0.1})
    people = more.pop("people", None)
    return Data(sources=[{"table": str(path), **more}], fractions=fractions, people=people)


# -------------------------------------------------------------------------------------- Tables

ROWS = """scan,labels,person,dataset,split
t1/a.nii.gz,seg/a.nii.gz,ann,,train
t1/b.nii,,bob,other,val
/abs/c.mgz,,,, test
"""
AS_JSON = [
    {"scan": "t1/a.nii.gz", "labels": "seg/a.nii.gz", "person": "ann", "split": "train"},
    {"scan": "t1/b.nii", "labels": None, "person": "bob", "dataset": "other", "split": "val"},
    {"scan": "/abs/c.mgz", "split": "test"},
]


@pytest.mark.parametrize("kind", ["csv", "excel", "tsv", "tabbed csv", "jsonl"])
def test_a_table_is_read(tmp_path, kind):
    """The same scans in every form; a spreadsheet puts a mark first and CRLF last."""
    folder = tmp_path / "study"
    text, name = ROWS, "scans.csv"
    if kind == "excel":
        text = "\ufeff" + ROWS.replace("\n", "\r\n") + ",,,,\r\n"
    elif kind in ("tsv", "tabbed csv"):
        text, name = ROWS.replace(",", "\t"), "scans.tsv" if kind == "tsv" else name
    elif kind == "jsonl":
        text, name = "".join(json.dumps(row) + "\n" for row in AS_JSON), "scans.jsonl"
    folder.mkdir()
    (folder / name).write_bytes(text.encode())
    first = 1 if kind == "jsonl" else 2
    assert gather(table_data(folder / name, licence="CC0"), 0) == [
        ScanRecord(
            folder / "t1/a.nii.gz",
            folder / "seg/a.nii.gz",
            "ann",
            "study",
            "train",
            f"{name} row {first}",
            "CC0",
        ),
        ScanRecord(
            folder / "t1/b.nii", None, "bob", "other", "val", f"{name} row {first + 1}", "CC0"
        ),
        ScanRecord(
            Path("/abs/c.mgz"), None, "c", "study", "test", f"{name} row {first + 2}", "CC0"
        ),
    ]


def test_patterns_are_filled_from_columns(tmp_path):
    path = table(tmp_path / "set" / "t.csv", "id,site,map\n1,x,m1\n2,y,\n")
    found = gather(
        table_data(path, scan="../{site}/{id}.nii.gz", labels="{map}.nii", split="train"), 0
    )
    assert [(s.path, s.labels, s.person, s.split) for s in found] == [
        (tmp_path / "x/1.nii.gz", tmp_path / "set/m1.nii", "1", "train"),
        (tmp_path / "y/2.nii.gz", None, "2", "train"),
    ]


def test_numbers_in_json_are_names(tmp_path):
    text = '{"id": 7, "person": 3}\n\n{"id": 8, "person": "3"}\n'
    found = gather(table_data(table(tmp_path / "t.jsonl", text), scan="{id}.nii", split="train"), 0)
    assert [(s.path.name, s.person, s.where) for s in found] == [
        ("7.nii", "3", "t.jsonl row 1"),
        ("8.nii", "3", "t.jsonl row 3"),
    ]


def test_scans_of_one_name_in_several_folders_are_several_people(tmp_path):
    path = table(tmp_path / "t.csv", "scan\n01/T1.nii.gz\n02/T1.nii.gz\nx/other.nii.gz\n")
    found = gather(table_data(path, split="train"), 0)
    assert [s.person for s in found] == ["01/T1", "02/T1", "other"]


WRONG_TABLES = {
    "": "there are no rows",
    "scan\n": "there are no rows",
    "scan,person\na.nii\n,bob\n": r"t\.csv row 3: it names no scan",
    "scan\na.nii,b\n": r"row 2: it has 2 fields",
    "scan,scan\na.nii,b\n": "two columns have the same name",
    "image\na.nii\n": r"no 'scan' for '\{scan\}'; there are image",
    "scan,split\na.nii,training\n": r"row 2: split 'training': one of train, val, test",
    "scan,split\na.nii,val\n": "none of the 1 scans is in split train",
    "scan,split\na.nii,train\nb.nii,train\nx/../a.nii,train\n": r"row 4: scan .*row 2\)",
    "scan,person,split\na.nii,ann,train\nb.nii,bob,\nc.nii,ann,val\n": (
        r"person 'ann' of .* two splits: train \(t\.csv row 2, a\.nii\) and val \(t\.csv row 4"
    ),
    'scan\n"a.nii\n': "no table of UTF-8 text",
    "scan\n/\n": "row 2: it names no scan",
    "scan\na\0b.nii\n": r"t\.csv|names no scan",
}


@pytest.mark.parametrize("text", WRONG_TABLES)
def test_a_wrong_table_is_refused(tmp_path, text):
    path = table(tmp_path / "t.csv", text)
    with pytest.raises(InputError, match=WRONG_TABLES[text]) as caught:
        gather(table_data(path), 0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"scan": "a.nii"', "row 2: it is not JSON"),
        ('["a.nii"]', "row 2: a JSON object is wanted"),
        ('{"scan": ["a.nii"]}', "row 2: scan: a word or a number is wanted"),
        ('{"scan": true}', "row 2: scan: a word or a number is wanted"),
        ('{"scan": null, "person": "x"}', "row 2: it names no scan"),
    ],
)
def test_a_wrong_line_of_json_is_refused(tmp_path, line, message):
    path = table(tmp_path / "t.jsonl", '{"scan": "first.nii"}\n' + line + "\n")
    with pytest.raises(InputError, match=message):
        gather(table_data(path), 0)


def test_a_pattern_of_unknown_columns_is_refused(tmp_path):
    path = table(tmp_path / "t.csv", "id,age\n1,30\n")
    for patterns in ({"scan": "{idd}.nii"}, {"scan": "{id}.nii", "labels": "{idd}.nii"}):
        with pytest.raises(InputError, match=r"no 'idd' for .*; there are id, age"):
            gather(table_data(path, **patterns), 0)


def test_sources_that_are_not_there_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_bytes(b"\xff\xfe\xff")
    sources = {
        "no such file or folder": [{kind: "none"} for kind in ("table", "folder", "bids")],
        "a folder, a file is wanted": [{"table": "empty"}],
        "a file, a folder is wanted": [{"folder": "file"}, {"bids": "file"}],
        "there is no file": [{"folder": "empty"}, {"bids": "empty"}],
        "no table of UTF-8": [{"table": "file"}],
        "is no pattern": [{"folder": "empty", "scan": "/x"}, {"folder": "empty", "scan": ""}],
    }
    for message, wrong in sources.items():
        for source in wrong:
            located = {k: v if k == "scan" else str(tmp_path / v) for k, v in source.items()}
            if message == "is no pattern" and source["scan"] == "":
                message = "there is no file"  # an empty word is none
            with pytest.raises(InputError, match=message):
                gather(Data(sources=[located]), 0)


# --------------------------------------------------------------------------- Folders and BIDS


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_a_folder_of_scans(tmp_path):
    """Label maps that lie beside their scans are no scans; what has none is unlabelled."""
    folder = tmp_path / "set"
    touch(folder, "a.nii.gz", "a_seg.nii.gz", "b.c.nii.gz", ".hidden.nii.gz", "note.txt")
    (folder / "lost.nii.gz").symlink_to("nowhere")
    data = Data(sources=[{"folder": str(folder), "labels": "{stem}_seg.nii.gz", "split": "train"}])
    found = gather(data, 0)
    assert [(s.path.name, s.labels and s.labels.name, s.person) for s in found] == [
        ("a.nii.gz", "a_seg.nii.gz", "a"),
        ("b.c.nii.gz", None, "b.c"),
        ("lost.nii.gz", None, "lost"),
    ]
    assert {(s.dataset, s.where) for s in found} == {("set", "set")}


def test_a_folder_with_folders(tmp_path):
    touch(tmp_path / "scans", "1/T1.nii", "2/T1.nii", "2/T2.nii")
    touch(tmp_path / "maps", "1/T1.nii")
    source = {"folder": str(tmp_path / "scans"), "scan": "*/T1.nii"}
    found = gather(Data(sources=[{**source, "labels": "../maps/{folder}/{name}"}]), 0)
    assert [(s.person, s.labels) for s in found] == [
        ("1/T1", tmp_path / "maps/1/T1.nii"),
        ("2/T1", None),
    ]
    for pattern, message in (
        ("../map/{folder}/{name}", r"no scan has any; there is no .*map/1/T1\.nii"),
        ("{id}", "no 'id' for '{id}'; there are name, stem, folder"),
    ):
        with pytest.raises(InputError, match=message):
            gather(Data(sources=[{**source, "labels": pattern}]), 0)


def test_a_bids_data_set(tmp_path):
    """Sessions and runs are scans of one person; derivatives and other suffixes are not taken."""
    root = tmp_path / "ds1"
    touch(
        root,
        "sub-01/anat/sub-01_T1w.nii.gz",
        "sub-02/ses-a/anat/sub-02_ses-a_T1w.nii.gz",
        "sub-02/ses-b/anat/sub-02_ses-b_run-1_T1w.nii",
        "sub-02/ses-b/anat/sub-02_ses-b_run-2_T1w.nii.gz",
        "sub-02/ses-b/anat/sub-02_ses-b_run-2_T1w.json",
        "sub-02/ses-b/anat/sub-02_ses-b_T2w.nii.gz",
        "sub-02/ses-b/func/sub-02_ses-b_T1w.nii.gz",
        "derivatives/tool/sub-01/anat/sub-01_T1w.nii.gz",
        "sub-03/anat/sub-03_desc-brain_mask.nii.gz",
        "masks/sub-01/anat/sub-01_T1w_dseg.nii.gz",
        "participants.tsv",
    )
    source = {"bids": str(root), "labels": "masks/{folder}/{stem}_dseg.nii.gz"}
    found = gather(Data(sources=[source], fractions={"train": 1}), 0)
    assert [(s.person, s.path.name.partition("_")[2]) for s in found] == [
        ("sub-01", "T1w.nii.gz"),
        ("sub-02", "ses-a_T1w.nii.gz"),
        ("sub-02", "ses-b_run-1_T1w.nii"),
        ("sub-02", "ses-b_run-2_T1w.nii.gz"),
    ]
    assert [s.labels is not None for s in found] == [True, False, False, False]
    assert {s.dataset for s in found} == {"ds1"}
    (other,) = gather(Data(sources=[{"bids": str(root), "suffix": "T2w", "split": "train"}]), 0)
    assert other.path.name == "sub-02_ses-b_T2w.nii.gz"


def test_people_of_two_data_sets_are_not_one(tmp_path):
    for name in ("one", "two"):
        touch(tmp_path / name / "t1", "01.nii.gz")
    sources = [
        {"folder": str(tmp_path / "one/t1"), "split": "train"},
        {"folder": str(tmp_path / "two/t1"), "split": "val"},
    ]
    with pytest.raises(InputError, match=r"one/t1 and .*two/t1 would both be called 't1'"):
        gather(Data(sources=sources), 0)
    sources[1]["dataset"] = "second"
    found = gather(Data(sources=sources), 0)
    assert [(s.key, s.split) for s in found] == [
        (("t1", "01"), "train"),
        (("second", "01"), "val"),
    ]


# -------------------------------------------------------------------------------------- Splits


@st.composite
def people_with_scans(draw) -> list[tuple[str, int]]:
    """Rows of a table: people, some with several scans, in any order."""
    numbers = draw(st.lists(st.integers(1, 3), min_size=3, max_size=30))
    rows = [(f"p{i}", scan) for i, number in enumerate(numbers) for scan in range(number)]
    return draw(st.permutations(rows))


def split_of_people(folder: Path, rows, seed=0, **more) -> dict[str, str]:
    text = "scan,person\n" + "".join(f"{p}-{n}.nii,{p}\n" for p, n in rows)
    scans = gather(table_data(table(folder / "t.csv", text), **more), seed)
    splits = {}
    for scan in scans:
        assert splits.setdefault(scan.person, scan.split) == scan.split
    return splits


@settings(max_examples=40, deadline=None)
@given(rows=people_with_scans(), seed=st.integers(0, 3), order=st.randoms())
def test_splits_are_of_people_and_do_not_depend_on_rows(tmp_path_factory, rows, seed, order):
    folder = tmp_path_factory.mktemp("splits")
    splits = split_of_people(folder, rows, seed)
    people = {person for person, _ in rows}
    assert splits.keys() == people
    assert Counter(splits.values()) == dict(shares(len(people), FRACTIONS))
    shuffled = list(rows)
    order.shuffle(shuffled)
    more = [*shuffled, (rows[0][0], 99)]  # another scan of somebody moves nobody
    assert split_of_people(folder, more, seed) == splits


FRACTIONS = {"train": 0.8, "val": 0.1, "test": 0.1}


@given(
    number=st.integers(0, 500),
    parts=st.tuples(st.integers(1, 20), st.integers(0, 20), st.integers(0, 20)),
)
def test_shares_are_near_the_fractions(number, parts):
    fractions = {split: part / sum(parts) for split, part in zip(FRACTIONS, parts, strict=True)}
    sizes = shares(number, fractions)
    assert sum(sizes.values()) == number
    for split, fraction in fractions.items():
        if number >= 3 and fraction > 0:
            assert sizes[split] >= 1
        if all(number * f >= 1 or f == 0 for f in fractions.values()):
            assert abs(sizes[split] - number * fraction) < 1
        assert fraction > 0 or sizes[split] == 0


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        *[(1, (1, 0, 0)), (2, (2, 0, 0)), (3, (1, 1, 1)), (10, (8, 1, 1)), (20, (16, 2, 2))],
        *[(15, (12, 2, 1)), (100, (80, 10, 10)), (27, (21, 3, 3)), (30, (24, 3, 3))],
    ],
)
def test_shares_of_round_numbers(number, expected):
    assert tuple(shares(number, FRACTIONS).values()) == expected


def test_the_seed_and_the_name_decide(tmp_path):
    rows = [(f"p{i}", 0) for i in range(40)]
    splits = [tuple(sorted(split_of_people(tmp_path, rows, seed).items())) for seed in range(8)]
    assert len(set(splits)) == 8
    ever = {person for each in splits for person, split in each if split == "test"}
    assert len(ever) > 15  # of 32 draws from 40


def test_a_given_split_counts_for_all_scans_of_a_person(tmp_path):
    """And the others are divided as if the given ones were not there."""
    lines = ["scan,person,split", *(f"{i}.nii,p{i}," for i in range(10))]
    lines += ["again.nii,p3,test", "x.nii,new,val"]
    found = gather(table_data(table(tmp_path / "t.csv", "\n".join(lines))), 0)
    splits = {scan.person: scan.split for scan in found}
    assert (splits.pop("p3"), splits.pop("new")) == ("test", "val")
    assert [s.split for s in found if s.person == "p3"] == ["test", "test"]
    assert Counter(splits.values()) == {k: n for k, n in shares(9, FRACTIONS).items() if n}


def test_fewer_people_are_the_first_of_more(tmp_path):
    rows = [(f"p{i}", n) for i in range(40) for n in range(2)]
    whole = split_of_people(tmp_path, rows)
    before: set[str] = set()
    for number in (5, 10, 20, 32):
        splits = split_of_people(tmp_path, rows, people=number)
        assert splits == split_of_people(tmp_path, rows[::-1], people=number)
        train = {person for person, split in splits.items() if split == "train"}
        assert len(train) == number
        assert before < train
        assert splits.items() <= whole.items()
        assert {p for p, s in whole.items() if s != "train"} == splits.keys() - train
        before = train
    with pytest.raises(InputError, match=r"data\.people: 33 are wanted, there are 32"):
        split_of_people(tmp_path, rows, people=33)
    chosen = [split_of_people(tmp_path, rows, seed, split="train", people=5) for seed in range(6)]
    assert len({tuple(sorted(people)) for people in chosen}) == 6


def test_all_scans_of_a_data_set_that_nobody_is_trained_on(tmp_path):
    """``gather`` wants somebody to train on, ``scans_of`` does not."""
    path = table(tmp_path / "t.csv", "scan,person,split\na.nii,x,val\nb.nii,x,\nc.nii,y,test\n")
    found = scans_of(table_data(path), 0)
    assert [(s.path.name, s.person, s.split) for s in found] == [
        *(("a.nii", "x", "val"), ("b.nii", "x", "val"), ("c.nii", "y", "test")),
    ]
    with pytest.raises(InputError, match="none of the 3 scans is in split train"):
        gather(table_data(path), 0)


@settings(max_examples=20, deadline=None)
@given(rows=people_with_scans(), seed=st.integers(0, 3), people=st.integers(1, 3))
def test_a_training_on_fewer_people_takes_from_all_scans(tmp_path_factory, rows, seed, people):
    """As they are and where they are: only people of train are left out."""
    text = "scan,person\n" + "".join(f"{p}-{n}.nii,{p}\n" for p, n in rows)
    path = table(tmp_path_factory.mktemp("all") / "t.csv", text)
    everybody = scans_of(table_data(path, people=people), seed)
    assert [scan.path.name for scan in everybody] == [f"{p}-{n}.nii" for p, n in rows]
    assert everybody == scans_of(table_data(path), seed) == gather(table_data(path), seed)
    train = {scan.key for scan in everybody if scan.split == "train"}
    if people > len(train):
        return
    some = gather(table_data(path, people=people), seed)
    chosen = {scan.key for scan in some if scan.split == "train"}
    assert len(chosen) == people
    assert some == [s for s in everybody if s.split != "train" or s.key in chosen]


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
    assert [s.person for s in of["ds000011"]] == [f"sub-0{i}" for i in range(1, 7)]
    undecided = table_data(oasis / "subjects.csv", scan="t1/{id}.nii.gz")
    assert len({s.person for s in found}) == 24 + 6
    assert Counter(s.person for s in gather(undecided, 0))["1003"] == 2
