"""The pairs of an evaluation: what lists of pairs and tables of scans stand for."""

import itertools
import json
from pathlib import Path

import pytest
from cohorts import table
from hypothesis import given, settings
from hypothesis import strategies as st

from voxwarp.data.pairs import Pair, PairScan, group_swaps, read_pairs
from voxwarp.data.scans import scans_of
from voxwarp.data.sources import read_training_data
from voxwarp.errors import InputError


def keys(pairs: list[Pair]) -> list[tuple[str, str]]:
    return [pair.key for pair in pairs]


def scan(name: str, subject: str = "") -> PairScan:
    return PairScan(name, Path("/scans") / name, subject=subject)


# -------------------------------------------------------------------------------------- A pair


@pytest.mark.parametrize(
    ("subjects", "kind"),
    [
        (("ann", "bob"), "inter"),
        (("ann", "ann"), "retest"),
        (("", ""), "inter"),
        (("", "a"), "inter"),
    ],
)
def test_kind_of_a_pair(subjects, kind):
    """Subjects without a name are different subjects."""
    assert Pair(scan("1", subjects[0]), scan("2", subjects[1])).kind == kind


@given(
    st.lists(
        st.tuples(st.sampled_from("abcdefg"), st.sampled_from("abcdefg")).filter(
            lambda key: key[0] != key[1]
        ),
        unique=True,
    )
)
def test_each_pair_stands_beside_its_swap(wanted):
    order = keys(group_swaps(Pair(scan(a), scan(b)) for a, b in wanted))
    assert sorted(order) == sorted(wanted)
    for key in wanted:
        if key[::-1] in wanted:
            assert abs(order.index(key) - order.index(key[::-1])) == 1
    assert without_second_ways(order) == without_second_ways(wanted)


def without_second_ways(order: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [key for i, key in enumerate(order) if key[::-1] not in order[:i]]


# --------------------------------------------------------------------------------------- Lists


def test_a_list_of_pairs(tmp_path):
    """Paths are those from the folder of the list; what is not said is not there."""
    path = table(
        tmp_path / "study" / "pairs.csv",
        "moving,fixed,moving_subject,fixed_subject,moving_labels,fixed_labels,"
        "moving_landmarks,fixed_landmarks,fixed_name,site\n"
        "t1/a.nii.gz,../b.mgz,ann,bob,seg/a.nii,seg/b.nii,a.csv,b.csv,bee,x\n"
        "/abs/c.nii,t1/./a.nii.gz,,ann,,,,,,y\n",
    )
    folder = tmp_path / "study"
    a = PairScan("a", folder / "t1/a.nii.gz", folder / "seg/a.nii", "ann", folder / "a.csv")
    b = PairScan("bee", tmp_path / "b.mgz", folder / "seg/b.nii", "bob", folder / "b.csv")
    c = PairScan("c", Path("/abs/c.nii"), None, "/abs/c.nii", None)
    assert read_pairs(path) == [Pair(a, b), Pair(c, a)]


def test_lists_in_other_forms(tmp_path):
    rows = [
        {"moving": "a.nii", "fixed": "b.nii", "moving_subject": 1, "fixed_subject": 1},
        {"moving": "a.nii", "fixed": "c.nii", "moving_labels": None, "fixed_subject": "2"},
    ]
    as_json = "\n".join(json.dumps(row) for row in rows)
    as_tabs = (
        "moving\tfixed\tmoving_subject\tfixed_subject\na.nii\tb.nii\t1\t1\na.nii\tc.nii\t\t2\n"
    )
    found = [
        read_pairs(table(tmp_path / name, text))
        for name, text in (("p.jsonl", as_json), ("p.json", as_json), ("p.tsv", as_tabs))
    ]
    assert found[0] == found[1] == found[2]
    assert [pair.kind for pair in found[0]] == ["retest", "inter"]


def test_a_value_for_a_scan_counts_in_all_rows(tmp_path):
    """Else the pair and the one the other way round would not know of each other."""
    text = (
        "moving,fixed,moving_name,moving_subject,moving_labels,fixed_labels\n"
        "a.nii,b.nii,one,ann,a_seg.nii,b_seg.nii\n"
        "b.nii,a.nii,,bob,,\n"
        "again.nii,a.nii,,ann,,\n"
    )
    pairs = read_pairs(table(tmp_path / "p.csv", text))
    assert keys(pairs) == [("one", "b"), ("b", "one"), ("again", "one")]
    assert pairs[0].moving == pairs[1].fixed == pairs[2].fixed
    assert pairs[1].moving.labels == tmp_path / "b_seg.nii"
    assert [pair.kind for pair in pairs] == ["inter", "inter", "retest"]


def test_a_table_of_an_earlier_version_is_read(tmp_path):
    text = "moving,fixed,moving_{0},fixed_{0}\na,b,ann,ann\nc,b,bob,\n"
    former, today = (
        read_pairs(table(tmp_path / f"{name}.csv", text.format(name)))
        for name in ("person", "subject")
    )
    assert former == today
    assert [pair.kind for pair in former] == ["retest", "inter"]


def test_a_list_is_put_in_order(tmp_path):
    text = "moving,fixed\na,b\nc,d\nb,a\nd,e\nd,c\n"
    found = keys(read_pairs(table(tmp_path / "p.csv", text)))
    assert found == [("a", "b"), ("b", "a"), ("c", "d"), ("d", "c"), ("d", "e")]


def test_files_of_one_name_get_different_names(tmp_path):
    """By as much of their paths as differs; where all names differ they stand alone."""
    text = "moving,fixed\nx/01/T1.nii.gz,x/02/T1.nii.gz\nx/03/T1.mgz,x/o.nii\n"
    names = keys(read_pairs(table(tmp_path / "p.csv", text)))
    assert names == [("01-T1", "02-T1"), ("03-T1", "o")]
    text = "moving,fixed\nx/01/T1.nii.gz,y/T2.nii.gz\n"
    assert keys(read_pairs(table(tmp_path / "q.csv", text))) == [("T1", "T2")]


WRONG_LISTS = {
    "moving\na.nii\n": r"no column 'fixed'; its columns are moving",
    "fixed,subject\na.nii,x\n": r"no column 'moving'; its columns are fixed, subject",
    "moving,fixed\n": "it has no rows",
    "moving,fixed\na,b\n,c\n": r"p\.csv row 3: the column moving is empty, in .*p\.csv",
    "moving,fixed,x\na,b,1\nc,,2\n": r"row 3: the column fixed is empty",
    "moving,fixed\na,b\nb,a\na,b\n": r"row 4: an earlier row has this pair already",
    "moving,fixed\na,b\nx/../a,./b\n": r"row 3: an earlier row has this pair already",
    "moving,fixed\nx/a.nii,./x/a.nii\n": r"row 2: moving and fixed are the same scan",
    "moving,fixed\na,b,c\n": r"row 2: it has 3 values, but the first row has 2 column names",
    "moving,fixed\na,b\nb,b\n": r"row 3: moving and fixed are the same scan",
    "moving,fixed,moving_name\na,b,b\n": r"scan .*/b: its name 'b' is also the name of .*/a;",
    "moving,fixed,fixed_name\na,b,n\na,c,n\n": r"scan .*/c: its name 'n' is also the name of .*/b;",
    "moving,fixed\nx/T1.nii,x/T1.mgz\n": r"x/T1\.mgz: its name 'T1' is also .*/x/T1\.nii;",
    'moving,fixed,fixed_name\na,b,"x\ny"\n': r"scan .*/b: its name 'x\\ny' must be one line",
    "moving,fixed,fixed_subject\na,b,ann\nc,b,bob\n": r"row 3: fixed_subject is 'bob', .* 'ann'",
    "moving,fixed,fixed_labels,moving_labels\na,b,s,\nb,a,,t\n": (
        r"row 3: moving_labels is 't', but another row has 's'"
    ),
    "moving,fixed,fixed_landmarks\na,b,s\nc,b,t\n": r"row 3: fixed_landmarks is 't'",
    "moving,fixed\na\0b,c\n": "not a CSV, TSV or JSON-lines table",
    "moving,fixed,fixed_labels\na,b,c\0\n": "not a CSV, TSV or JSON-lines table",
}


@pytest.mark.parametrize("text", WRONG_LISTS)
def test_a_wrong_list_is_refused(tmp_path, text):
    with pytest.raises(InputError, match=WRONG_LISTS[text]) as caught:
        read_pairs(table(tmp_path / "p.csv", text))
    assert "\n" not in str(caught.value)


def test_a_wrong_line_of_json_is_refused(tmp_path):
    path = table(tmp_path / "p.jsonl", '{"moving": "a", "fixed": "b"}\n\n{"moving": "a"}\n')
    with pytest.raises(InputError, match=r"p\.jsonl row 3: the column fixed is empty"):
        read_pairs(path)


def test_a_name_that_no_path_can_have_is_refused(tmp_path):
    lines = '{"moving": "a\\u0000b", "fixed": "c"}\n', '{"moving": "a", "fixed": "c\\u0000"}\n'
    for line, name in zip(lines, (r"a\\x00b", r"c\\x00"), strict=True):
        with pytest.raises(InputError, match=rf"p\.jsonl: '{name}' is not a valid path"):
            read_pairs(table(tmp_path / "p.jsonl", line))


# ------------------------------------------------------------------------------ Tables of scans

SPLIT = """id,subject,split
1,ann,test
2,bob,test
3,ann,test
4,cleo,val
5,dan,train
6,eve,
7,cleo,
"""


def read_split(folder: Path, text: str = SPLIT, **more) -> list[Pair]:
    return read_pairs(table(folder / "set" / "t.csv", text), scan="t1/{id}.nii.gz", **more)


def test_every_ordered_pair_of_a_split(tmp_path):
    pairs = read_split(tmp_path, labels="seg/{id}.mgz")
    assert keys(pairs) == [
        *(("1", "2"), ("2", "1"), ("1", "3"), ("3", "1"), ("2", "3"), ("3", "2")),
    ]
    one = PairScan("1", tmp_path / "set/t1/1.nii.gz", tmp_path / "set/seg/1.mgz", "set/ann")
    assert pairs[0].moving == one
    assert [pair.kind for pair in pairs] == [*["inter"] * 2, *["retest"] * 2, *["inter"] * 2]


def test_kinds(tmp_path):
    assert keys(read_split(tmp_path, kind="retest")) == [("1", "3"), ("3", "1")]
    inter = keys(read_split(tmp_path, kind="inter"))
    assert inter == [("1", "2"), ("2", "1"), ("2", "3"), ("3", "2")]
    assert sorted([*inter, ("1", "3"), ("3", "1")]) == sorted(keys(read_split(tmp_path)))


def test_subjects_without_a_split_are_never_test(tmp_path):
    """They may have been trained on: where a table names some splits, they count as train.

    Who has one in another row has it in all.
    """
    scans = {
        split: {s.name for pair in read_split(tmp_path, split=split) for s in (pair.moving,)}
        for split in ("train", "val", "test", "all")
    }
    assert scans == {
        "train": {"5", "6"},
        "val": {"4", "7"},
        "test": {"1", "2", "3"},
        "all": {"1", "2", "3", "4", "5", "6", "7"},
    }


@pytest.mark.parametrize("split", ["train", "val", "test", "all"])
@pytest.mark.parametrize("text", ["id\n1\n2\n3\n", "id,split\n1,\n2,\n3,\n"])
def test_a_table_without_splits_is_taken_whole(tmp_path, text, split):
    found = keys(read_split(tmp_path, text, split=split))
    assert sorted(found) == sorted(itertools.permutations("123", 2))


@settings(max_examples=30, deadline=None)
@given(subjects=st.lists(st.sampled_from(["ann", "bob", "cleo"]), min_size=2, max_size=7))
def test_every_ordered_pair_just_once(tmp_path_factory, subjects):
    """As many as there are, each beside its swap, of two subjects or of one."""
    text = "id,subject\n" + "".join(f"{i},{subject}\n" for i, subject in enumerate(subjects))
    pairs = read_split(tmp_path_factory.mktemp("pairs"), text)
    names = [str(i) for i in range(len(subjects))]
    assert sorted(keys(pairs)) == sorted(itertools.permutations(names, 2))
    assert all(a.key == b.swapped_key for a, b in zip(pairs[::2], pairs[1::2], strict=True))
    for pair in pairs:
        same = subjects[int(pair.moving.name)] == subjects[int(pair.fixed.name)]
        assert pair.kind == ("retest" if same else "inter")


def test_subjects_of_two_data_sets_are_two(tmp_path):
    text = "scan,subject,dataset\na.nii,01,one\nb.nii,01,two\nc.nii,01,two\n"
    pairs = read_pairs(table(tmp_path / "t.csv", text))
    assert {frozenset(p.key): p.kind for p in pairs} == {
        frozenset("ab"): "inter",
        frozenset("ac"): "inter",
        frozenset("bc"): "retest",
    }


def test_scans_of_one_name_do_not_vanish(tmp_path):
    """Two files in one folder cannot get different names, files in two folders can."""
    path = table(tmp_path / "t.csv", "scan\n01/T1.nii.gz\n02/T1.nii.gz\nT2.nii\n")
    assert sorted(keys(read_pairs(path))) == sorted(
        itertools.permutations(["01-T1", "02-T1", "T2"], 2)
    )
    path = table(tmp_path / "t.csv", "scan\nx/T1.nii.gz\nx/T1.mgz\n")
    with pytest.raises(
        InputError, match=r"x/T1\.mgz: its name 'T1' is also the name of .*x/T1\.nii\.gz;"
    ):
        read_pairs(path)
    path = table(tmp_path / "t.csv", "scan\na-b/T1.nii\na/b-T1.nii\na/T1.nii\n")
    with pytest.raises(InputError, match="its name 'a-b-T1' is also the name of"):
        read_pairs(path)


def test_a_configuration_stands_for_the_pairs_of_its_training(tmp_path):
    """Those whom the lots of its seed put into the split."""
    rows = "".join(f"{i}.nii,p{i // 2},{i}_seg.nii\n" for i in range(24))
    table(tmp_path / "data" / "t.csv", "scan,subject,labels\n" + rows)
    for seed in (1, 2):
        config = table(
            tmp_path / "train.yaml",
            f"seed: {seed}\ndata:\n  sources: [{{table: data/t.csv}}]\n"
            "  fractions: {train: 0.5, val: 0.25, test: 0.25}\n",
        )
        known = read_training_data(config)
        for split in ("val", "test"):
            wanted = [s for s in scans_of(known.data, seed) if s.split == split]
            pairs = read_pairs(config, split=split)
            assert len(wanted) == 6
            assert sorted(keys(pairs)) == sorted(
                itertools.permutations([scan.path.name[:-4] for scan in wanted], 2)
            )
            assert {pair.moving.labels for pair in pairs} == {scan.labels for scan in wanted}
            assert sum(pair.kind == "retest" for pair in pairs) == 6
    assert len(read_pairs(config, split="all")) == 24 * 23


def test_only_what_a_configuration_says_of_scans_is_read(tmp_path):
    """It need not be one that this version could train: the network may be of another."""
    scans = "data: {sources: [{table: t.csv}], fractions: {train: 1}}\nseed: 3\n"
    table(tmp_path / "t.csv", "scan\na.nii\nb.nii\n")
    other = table(tmp_path / "a.yaml", scans + "network: {name: of-tomorrow}\nlayers: 3\n")
    assert read_pairs(other, split="train") == read_pairs(
        table(tmp_path / "b.yaml", scans), split="train"
    )
    for wrong in ("seed: x\n", "seed: 1\nseed: 2\n", "data: {sources: []}\n"):
        path = table(tmp_path / "c.yaml", wrong if "data" in wrong else scans[:-8] + wrong)
        with pytest.raises(InputError, match=r"^config .*c\.yaml"):
            read_pairs(path)


# ------------------------------------------------------------------------------------ Refusals


def test_words_that_are_none(tmp_path):
    with pytest.raises(InputError, match=r"^split must be train, val, test or all, got 'tests'"):
        read_split(tmp_path, split="tests")
    with pytest.raises(InputError, match=r"^kind must be inter, retest or all, got 'both'"):
        read_split(tmp_path, kind="both")
    with pytest.raises(InputError, match=r"no column 'name', which \{name\}\.nii needs"):
        read_split(tmp_path, labels="{name}.nii")


def test_no_pairs_are_refused(tmp_path):
    """With the split in words where there is one."""
    for more, message in (
        ({"split": "val", "kind": "inter"}, r"t\.csv: there is no pair of kind inter in split val"),
        ({"text": "id,split\n1,val\n", "split": "val"}, "no pair in split val"),
        ({"text": "id,split\n1,val\n"}, "no pair in split test"),
        ({"text": "id\n1\n2\n", "kind": "retest", "split": "all"}, r"no pair of kind retest$"),
    ):
        with pytest.raises(InputError, match=message):
            read_split(tmp_path, **more)
    path = table(tmp_path / "p.csv", "moving,fixed\na,b\n")
    with pytest.raises(InputError, match=r"p\.csv: there is no pair of kind retest$"):
        read_pairs(path, kind="retest")


def test_patterns_that_would_not_be_looked_at_are_refused(tmp_path):
    paths = [
        table(tmp_path / "p.csv", "moving,fixed\na,b\n"),
        table(tmp_path / "c.yaml", "data: {sources: [{table: t.csv}]}\n"),
    ]
    table(tmp_path / "t.csv", "scan\na\nb\n")
    for path, word in itertools.product(paths, ("scan", "labels")):
        with pytest.raises(InputError, match="`scan` and `labels` are for tables of scans"):
            read_pairs(path, split="all", **{word: "{id}.nii"})


def test_files_that_are_no_tables(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "image.nii").write_bytes(b"\xff\xfe\x00\xff")
    table(tmp_path / "bad.yaml", "data: {source: x}\n")
    for name, message in (
        ("none.csv", r"pairs .*none\.csv: no such file"),
        ("folder", "this is a folder"),
        ("image.nii", "not a CSV, TSV or JSON-lines table"),
        ("bad.yaml", r"bad\.yaml"),
    ):
        with pytest.raises(InputError, match=message):
            read_pairs(tmp_path / name)


@pytest.mark.data
def test_the_pairs_of_the_real_test_split(data):
    """3 subjects with 2 scans each: 24 pairs of two subjects, 6 of one."""
    pairs = read_pairs(
        data / "oasis-malf" / "subjects.csv", scan="t1/{id}.nii.gz", labels="labels/{id}.nii.gz"
    )
    assert [sum(p.kind == kind for p in pairs) for kind in ("inter", "retest")] == [24, 6]
    assert all(s.path.is_file() and s.labels.is_file() for p in pairs for s in (p.moving, p.fixed))
