"""Rows while they come: kept, added to, forgotten."""

from pathlib import Path

from result_rows import plain_row as row_of

from voxwarp.data.pairs import Pair, PairScan
from voxwarp.evaluation.sheet import Sheet


def test_a_sheet_drops_structures_of_no_pair(tmp_path):
    """The rows of the pairs are written last: without one, a pair was not done."""
    sheet = Sheet(tmp_path)
    sheet.add("m", row_of(folds=2_345_678), [{"structure": "s", "moving": "a", "fixed": "b"}])
    sheet.structures.append({"method": "m", "structure": "t", "moving": "b", "fixed": "a"})
    sheet.write()
    again = Sheet.open(tmp_path)
    assert [s["structure"] for s in again.structures] == ["s"]
    before = (tmp_path / "pairs.csv").read_bytes()
    again.write()
    assert (tmp_path / "pairs.csv").read_bytes() == before
    assert b"2345678" in before
    pair = Pair(PairScan("a", Path("a")), PairScan("b", Path("b")))
    assert again.holds("m", pair)
    assert not again.holds("n", pair)
    assert not again.holds("m", Pair(pair.fixed, pair.moving))


def test_a_sheet_forgets(tmp_path):
    sheet = Sheet(tmp_path)
    for method, fixed, status in (("m", "b", "ok"), ("m", "c", "failed"), ("n", "c", "failed")):
        about = {"moving": "a", "fixed": fixed}
        row = row_of(**about, status=status, method=method)
        sheet.add(method, row, [{"structure": "s", **about}])
    a, b, c = (PairScan(name, tmp_path / name) for name in "abc")
    sheet.forget_failures("m", [Pair(a, b)])
    assert [(r["method"], r["fixed"]) for r in sheet.pairs] == [("m", "b"), ("m", "c"), ("n", "c")]
    sheet.forget_failures("m", [Pair(a, b), Pair(a, c)])
    assert [(r["method"], r["fixed"]) for r in sheet.pairs] == [("m", "b"), ("n", "c")]
