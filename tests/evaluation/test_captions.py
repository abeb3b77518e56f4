"""What is said above tables."""

from voxwarp.evaluation.captions import table_caption
from voxwarp.evaluation.results import Results


def test_what_stands_above_a_table(small: Results) -> None:
    told = table_caption(small, "inter", reference="theirs")
    assert told.startswith(
        "3 methods on 6 ordered pairs of different subjects, 3 subjects in all; labels resampled "
        "once, by nearest neighbour. "
    )
    assert "Dice minus that of theirs" in told
    assert "(which 3 subjects make too narrow)" in told
    assert "Times: median of the 2 pairs that ran alone, on a CPU with 2 threads." in told
    untimed = Results([row | {"timed": "no"} for row in small.pairs], [])
    assert "Times are not told: no pair ran alone." in table_caption(untimed, "inter")
