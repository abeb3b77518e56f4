"""Captions of tables."""

from voxwarp.evaluation.captions import table_caption
from voxwarp.evaluation.results import Results


def test_the_caption_of_a_table(small: Results) -> None:
    caption = table_caption(small, "inter", reference="theirs")
    assert caption.startswith(
        "3 methods on 6 ordered pairs of different subjects, 3 subjects in all; labels resampled "
        "once, by nearest neighbour. "
    )
    assert "Dice minus that of theirs" in caption
    assert "(too narrow, with only 3 subjects)" in caption
    assert "Times: median of the 2 pairs that ran alone, on a CPU with 2 threads." in caption
    untimed = Results([row | {"timed": "no"} for row in small.pairs], [])
    assert "No times: no pair ran alone on the machine." in table_caption(untimed, "inter")
