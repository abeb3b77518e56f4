"""Result files while rows are added: rows are kept, added and dropped."""

from pathlib import Path

from result_rows import plain_row as row_of

from voxwarp.data.pairs import Pair, PairScan
from voxwarp.evaluation.result_files import ResultFiles


def test_structures_without_a_pair_are_dropped(tmp_path):
    """The rows of pairs are written last: without one, the pair was not finished."""
    files = ResultFiles(tmp_path)
    files.add("m", row_of(folds=2_345_678), [{"structure": "s", "moving": "a", "fixed": "b"}])
    files.structures.append({"method": "m", "structure": "t", "moving": "b", "fixed": "a"})
    files.write()
    again = ResultFiles.open(tmp_path)
    assert [s["structure"] for s in again.structures] == ["s"]
    before = (tmp_path / "pairs.csv").read_bytes()
    again.write()
    assert (tmp_path / "pairs.csv").read_bytes() == before
    assert b"2345678" in before
    pair = Pair(PairScan("a", Path("a")), PairScan("b", Path("b")))
    assert again.has("m", pair)
    assert not again.has("n", pair)
    assert not again.has("m", Pair(pair.fixed, pair.moving))


def test_failures_are_dropped(tmp_path):
    files = ResultFiles(tmp_path)
    for method, fixed, status in (("m", "b", "ok"), ("m", "c", "failed"), ("n", "c", "failed")):
        about = {"moving": "a", "fixed": fixed}
        row = row_of(**about, status=status, method=method)
        files.add(method, row, [{"structure": "s", **about}])
    a, b, c = (PairScan(name, tmp_path / name) for name in "abc")
    files.drop_failures("m", [Pair(a, b)])
    assert [(r["method"], r["fixed"]) for r in files.pairs] == [("m", "b"), ("m", "c"), ("n", "c")]
    files.drop_failures("m", [Pair(a, b), Pair(a, c)])
    assert [(r["method"], r["fixed"]) for r in files.pairs] == [("m", "b"), ("n", "c")]
