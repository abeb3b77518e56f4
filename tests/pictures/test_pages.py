"""The parts of pages: numbers, tables of records, images as data URIs."""

import base64
import io

import numpy as np
from PIL import Image

from voxwarp.pictures.pages import entries, jpeg, number, png


def test_numbers_and_entries():
    assert number(1234.5678, 1) == "1\N{THIN SPACE}234.6"
    assert number(-0.5) == "−0.500"
    assert [number(x) for x in (None, True, "1", float("nan"), float("inf"), [1])] == ["–"] * 6
    nested = {"a": {"b": 1.5, "c": [1, [2, 3]]}, "d": None, "e": True}
    assert entries(nested) == [("a.b", "1.5"), ("a.c", "1, [2, 3]"), ("d", "–"), ("e", "yes")]


def decoded(uri: str, kind: str) -> Image.Image:
    head, payload = uri.split(",")
    assert head == f"data:image/{kind};base64"
    return Image.open(io.BytesIO(base64.b64decode(payload)))


def test_lines_have_their_colours_on_a_transparent_background():
    indices, colours = np.array([[0, 1, 2], [3, 0, 1]]), ((0, 229, 255), (255, 158, 0), (9, 9, 9))
    shown = np.asarray(decoded(png(indices, colours), "png").convert("RGBA"))
    assert (shown[..., 3] == np.where(indices, 255, 0)).all()
    for index, colour in enumerate(colours, 1):
        assert (shown[indices == index, :3] == colour).all()


def test_jpegs_are_close_to_the_original():
    x, y = np.indices((40, 50))
    grey = (128 + 100 * np.sin(x / 9) * np.cos(y / 7)).astype(np.uint8)
    for image in (grey, np.stack([grey, grey.T[:40, :].repeat(2, axis=1)[:, :50], grey], axis=-1)):
        shown = np.asarray(decoded(jpeg(image), "jpeg")).astype(int)
        assert shown.shape == image.shape
        assert np.abs(shown - image).mean() < 3
