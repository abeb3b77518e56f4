"""Two scans of one subject, read back from what was drawn."""

from result_rows import cohort

from voxwarp.evaluation.figures.rescans import rescans
from voxwarp.evaluation.results import Results
from voxwarp.evaluation.tables import table


def test_rescans_beside_two_subjects() -> None:
    results = cohort("a", "b")
    drawing = rescans(results)
    assert drawing is not None
    (axes,) = drawing.figure.axes
    discs = {
        line.get_ydata()[0]: line.get_xdata()[0]
        for line in axes.lines
        if line.get_marker() == "o" and len(line.get_xdata())
    }
    squares = {
        line.get_ydata()[0]: line.get_xdata()[0]
        for line in axes.lines
        if line.get_marker() == "s" and len(line.get_xdata())
    }
    for kind, means_drawn in (("inter", discs), ("retest", squares)):
        means = [line["dice"] for line in table(results, kind)]
        assert [means_drawn[height] for height in sorted(means_drawn, reverse=True)] == means
    assert "6 pairs of two scans of one subject, 3 subjects in all" in drawing.caption
    inter = Results([row for row in results.pairs if row["kind"] == "inter"], [])
    assert rescans(inter) is None
