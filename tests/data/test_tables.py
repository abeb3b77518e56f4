"""Tables of text: the same rows from CSV, TSV and JSON lines, each with its place; what is none."""

import json
from pathlib import Path

import pytest
from cohorts import table
from hypothesis import given, settings
from hypothesis import strategies as st

from voxwarp.data.tables import Record, check_columns, fill_pattern, read_table
from voxwarp.errors import InputError

AS_CSV = """scan,labels,subject
t1/a.nii.gz, seg/a.nii.gz ,ann
"t1/b, old.nii",,bob
"""
AS_TSV = AS_CSV.replace(",", "\t").replace("b\t old", "b, old")
AS_JSON = [
    {"scan": "t1/a.nii.gz", "labels": "seg/a.nii.gz", "subject": "ann"},
    {"scan": "t1/b, old.nii", "labels": None, "subject": "bob"},
]
TEXTS = {
    "t.csv": AS_CSV,
    "of a spreadsheet.csv": "\ufeff" + AS_CSV.replace("\n", "\r\n") + ",,\r\n",
    "t.tsv": AS_TSV,
    "tabbed.csv": AS_TSV,
    "t.jsonl": "".join(json.dumps(row) + "\n" for row in AS_JSON),
}


@pytest.mark.parametrize("name", TEXTS)
def test_a_table_is_read(tmp_path, name):
    """The same rows in every form; a spreadsheet puts a mark first and CRLF last."""
    path = tmp_path / name
    path.write_bytes(TEXTS[name].encode())
    records, columns = read_table(path)
    first = 1 if name == "t.jsonl" else 2
    assert columns == ["scan", "labels", "subject"]
    assert records == [
        Record(
            f"{name} row {first}",
            {"scan": "t1/a.nii.gz", "labels": "seg/a.nii.gz", "subject": "ann"},
        ),
        Record(
            f"{name} row {first + 1}", {"scan": "t1/b, old.nii", "labels": "", "subject": "bob"}
        ),
    ]


def test_rows_are_counted_as_lines(tmp_path):
    """As editors do: blank rows and line breaks inside of quotes count, too."""
    path = table(tmp_path / "t.csv", 'a,b\n\n1,"x\ny"\n,\n2\n')
    records, _ = read_table(path)
    assert records == [
        Record("t.csv row 4", {"a": "1", "b": "x\ny"}),
        Record("t.csv row 6", {"a": "2", "b": ""}),
    ]


def test_numbers_in_json_are_words_and_rows_may_have_columns_of_their_own(tmp_path):
    path = table(tmp_path / "t.jsonl", '{"id": 7, "age": 3.5}\n\n{"id": "8", "sex": "f"}\n')
    records, columns = read_table(path)
    assert records == [
        Record("t.jsonl row 1", {"id": "7", "age": "3.5"}),
        Record("t.jsonl row 3", {"id": "8", "sex": "f"}),
    ]
    assert columns == ["id", "age", "sex"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it has no rows"),
        ("a,b\n", "it has no rows"),
        ("a\n1,2\n", r"t\.csv row 2: it has 2 values, but the first row has 1 .*, in .*t\.csv$"),
        ("a,a\n1,2\n", r"two columns have the same name \(a, a\)"),
        ('a\n"1\n', "not a CSV, TSV or JSON-lines table"),
        ("a\n1\0\n", r"table in UTF-8 \(line contains NUL\)"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path, text, message):
    with pytest.raises(InputError, match=message) as caught:
        read_table(table(tmp_path / "t.csv", text))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"scan": "a.nii"', "row 2: the line is not JSON"),
        ("[" * 100_000, "row 2: the line is not JSON"),
        ('["a.nii"]', "row 2: the line must be a JSON object"),
        ('{"scan": ["a.nii"]}', 'row 2: scan must be a string or a number, got (true|."a.nii)'),
        ('{"scan": true}', 'row 2: scan must be a string or a number, got (true|."a.nii)'),
    ],
)
def test_a_wrong_line_of_json_is_refused(tmp_path, line, message):
    path = table(tmp_path / "t.jsonl", '{"scan": "first.nii"}\n' + line + "\n")
    with pytest.raises(InputError, match=message):
        read_table(path)


def test_files_that_are_none_are_refused(tmp_path):
    (tmp_path / "image.nii").write_bytes(b"\xff\xfe\xff")
    for name, message in (
        ("gone.csv", "no such file or folder"),
        (".", "a folder, but it must be a file"),
        ("image.nii", "not a CSV, TSV or JSON-lines table"),
    ):
        with pytest.raises(InputError, match=message):
            read_table(tmp_path / name)


WORDS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=6).map(str.strip)


@settings(deadline=None)
@given(st.lists(st.lists(WORDS, min_size=2, max_size=2), min_size=1, max_size=4))
def test_what_is_written_is_read(tmp_path_factory, rows):
    """Whatever the words, commas and quotes among them."""
    path = tmp_path_factory.mktemp("tables") / "t.csv"
    quoted = [",".join('"' + word.replace('"', '""') + '"' for word in row) for row in rows]
    path.write_text("a,b\n" + "\n".join(quoted) + "\n", encoding="utf-8")
    if not any(any(row) for row in rows):
        with pytest.raises(InputError, match="it has no rows"):
            read_table(path)
        return
    records, _ = read_table(path)
    assert [list(record.values.values()) for record in records] == [row for row in rows if any(row)]


def test_patterns_are_filled_with_words():
    words = {"id": "7", "site": "{id}", "none": ""}
    assert fill_pattern("{site}/{id}.nii", words) == "{id}/7.nii"
    assert fill_pattern("t1.nii", words) == "t1.nii"
    assert fill_pattern("{id}{none}", words) is None
    check_columns("{site}/{id}", list(words), Path("t.csv"))
    with pytest.raises(
        InputError,
        match=r"^table t\.csv: it has no column 'idd', which x\{idd\} needs; .* are id, age",
    ):
        check_columns("x{idd}", ["id", "age"], Path("t.csv"))
