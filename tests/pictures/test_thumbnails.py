"""Thumbnails show the middle of a scan."""

from scenes import image, scene

from voxwarp.pictures.scene import SlicedScene
from voxwarp.pictures.thumbnails import middle_slices, thumbnail


def test_thumbnails_show_the_middle():
    outlined = thumbnail(SlicedScene(scene()))
    alone = middle_slices(image())
    assert outlined.shape[2] == 3
    assert alone.ndim == 2
    for shown in (outlined[..., 0], alone):
        assert shown.max() > 200
        assert 0.1 < (shown > 60).mean() < 0.9
