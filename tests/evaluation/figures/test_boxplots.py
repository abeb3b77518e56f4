"""Box plots, read back from what was drawn."""

import numpy as np
from result_rows import cohort

from voxwarp.evaluation.by_structure import dice_by_structure
from voxwarp.evaluation.figures.boxplots import figure5


def test_the_boxes_are_the_quartiles() -> None:
    results = cohort("affine", "a", "b")
    drawing = figure5(results, reference="b")
    assert drawing is not None
    expected = dice_by_structure(results)
    by_reference = sorted(expected["b"], key=lambda s: -np.median(expected["b"][s]))
    (axes,) = drawing.figure.axes
    shown = [label.get_text() for label in axes.get_xticklabels()]
    assert shown == [name.replace("_", " ") for name in by_reference]
    boxes = [patch.get_path().get_extents() for patch in axes.patches]
    medians = [line for line in axes.lines if line.get_linewidth() == 1.3]
    drawn = [(method, name) for method in results.methods for name in by_reference]
    for (method, name), box, median in zip(drawn, boxes, medians, strict=True):
        drawn_quartiles = box.y0, median.get_ydata()[0], box.y1
        quartiles = np.quantile(expected[method][name], [0.25, 0.5, 0.75])
        np.testing.assert_allclose(drawn_quartiles, quartiles, atol=1e-12)
        assert abs(np.mean(median.get_xdata()) - by_reference.index(name)) < 0.5
        assert (median.get_color() == "white") == (method == "b")  # on dark: the reference


def test_at_most_six_methods_and_the_reference_and_affine_among_them() -> None:
    names = ["affine", *"abcdefg"]
    results = cohort(*names)
    for rank, method in enumerate("bcdefga"):  # b is the best, a the worst
        for row in results.rows_of(method, "inter"):
            row["dice"] = 0.9 - 0.1 * rank
    drawing = figure5(results, reference="a")
    assert drawing is not None
    shown = [text.get_text() for text in drawing.figure.legends[0].get_texts()]
    assert shown == ["affine", "a", "b", "c", "d", "e"]
    assert "Not shown: f and g." in drawing.caption
