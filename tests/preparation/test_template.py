"""Templates: their image, their names, and their identity."""

import pickle
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from voxwarp.errors import InputError
from voxwarp.preparation.agreement import FitThresholds
from voxwarp.preparation.recipe import Recipe
from voxwarp.preparation.template import MNI, Template, mni152, template_named
from voxwarp.space.grid import Grid
from voxwarp.space.volume import Volume, write_volume

GRID = Grid((6, 6, 6), np.diag([2.0, 2.0, 2.0, 1.0]))


def brain(value: float = 5) -> Volume:
    data = np.zeros((6, 6, 6), np.float32)
    data[1:5, 1:5, 1:5] = value
    data[2, 2, 2] += 1
    return Volume(data, GRID)


@pytest.fixture
def files(tmp_path):
    """A head, nowhere zero; masks of its brain and of another; the same head once more."""
    head = Volume(brain().data + 3, GRID)
    write_volume(head, tmp_path / "head.nii.gz")
    write_volume(head, tmp_path / "again.nii.gz")
    write_volume(Volume((brain().data > 0).astype(np.uint8), GRID), tmp_path / "mask.nii.gz")
    write_volume(Volume((brain().data > 5).astype(np.uint8), GRID), tmp_path / "less.nii.gz")
    return tmp_path


def test_mni152_is_that_of_nilearn():
    assert mni152() is template_named("mni152")
    assert mni152().space_code == MNI == 4
    assert mni152().short_name == "MNI152"
    assert mni152().path.name.startswith("mni_icbm152_t1")
    assert mni152().thresholds == FitThresholds()
    image = nib.load(mni152().path)
    assert mni152().grid == Grid(image.shape, image.affine)
    np.testing.assert_array_equal(mni152().image.data, np.asarray(image.dataobj))


def test_the_users_template_is_named_by_its_path(files):
    named = template_named(str(files / "head.nii.gz"))
    assert (named.name, named.short_name, named.space_code) == ("head", "head", 2)
    assert named.path == files / "head.nii.gz"
    np.testing.assert_array_equal(named.image.data, brain().data + 3)
    with pytest.raises(InputError, match=r"must be mni152 or the path of an image, got .*nowhere"):
        template_named(str(files / "nowhere.nii.gz"))


@pytest.mark.parametrize(
    ("stated", "in_file", "code"),
    [(2, 1, 2), (2, 2, 2), (2, 4, 4), (2, 5, 5), (4, 1, 4), (4, 2, 4), (3, 4, 3)],
)
def test_the_image_has_the_code_of_its_space(tmp_path, stated: int, in_file: int, code: int):
    """The template's own, unless that says less than the header."""
    write_volume(Volume(brain().data, GRID.in_space(in_file)), tmp_path / "own.nii.gz")
    template = Template("own", tmp_path / "own.nii.gz", space_code=stated)
    assert template.grid.space_code == template.image.grid.space_code == code
    assert replace(template, source=brain()).grid.space_code == stated


def test_images_of_mni152_have_its_code():
    """nilearn's file has that of an aligned image."""
    assert nib.load(mni152().path).header["sform_code"] == 2
    assert mni152().grid.space_code == MNI


def test_a_head_is_masked(files):
    masked = Template("own", files / "head.nii.gz", files / "mask.nii.gz")
    expected = np.where(brain().data > 0, brain().data + 3, 0)
    np.testing.assert_array_equal(masked.image.data, expected)
    in_memory = replace(masked, source=Volume(brain().data + 3, GRID))
    np.testing.assert_array_equal(in_memory.image.data, expected)


def test_a_mask_on_another_grid_is_refused(files):
    elsewhere = Volume(np.ones((5, 6, 6), np.uint8), Grid((5, 6, 6), GRID.affine))
    write_volume(elsewhere, files / "elsewhere.nii.gz")
    template = Template("own", files / "head.nii.gz", files / "elsewhere.nii.gz")
    with pytest.raises(InputError, match=r"template's mask .*elsewhere\.nii\.gz: its grid"):
        _ = template.image


def test_a_file_that_is_not_an_image_is_refused_when_it_is_read(tmp_path):
    (tmp_path / "own.nii.gz").write_bytes(b"no image")
    template = template_named(str(tmp_path / "own.nii.gz"))
    with pytest.raises(InputError, match=r"template .*own\.nii\.gz"):
        _ = template.image


def test_a_template_in_memory_has_no_path():
    with pytest.raises(InputError, match="template own: it exists only in memory"):
        _ = Template("own", brain()).path


def test_the_identity_depends_on_the_contents(files):
    """Not on the names of files and volumes."""
    shifted = Grid(GRID.shape, GRID.affine + np.eye(4, k=3))
    wide = Volume(np.zeros((2, 3, 4), np.float32), Grid((2, 3, 4), np.eye(4)))
    tall = Volume(np.zeros((4, 3, 2), np.float32), Grid((4, 3, 2), np.eye(4)))
    pairs = {
        "values": (brain(5), brain(6)),
        "place": (brain(), replace(brain(), grid=shifted)),
        "shape": (wide, tall),
        "type": (wide, replace(wide, data=wide.data.view(np.int32))),
    }
    for what, (one, other) in pairs.items():
        again = replace(one, data=one.data.copy(), name="another name")
        assert Template("T", one).identity == Template("T", again).identity, what
        assert Template("T", one).identity != Template("T", other).identity, what
    head, again, mask, less = (files / f"{x}.nii.gz" for x in ("head", "again", "mask", "less"))
    assert Template("T", head).identity == Template("T", again).identity
    assert Template("T", head, mask).identity == Template("T", again, mask).identity
    for source in (head, Volume(brain().data + 3, GRID)):
        digests = [Template("T", source, m).sha256 for m in (None, mask, less)]
        assert len(set(digests)) == 3, "the mask is part of it"


def test_thresholds_are_part_of_the_identity():
    """They decide which poses and views are tried."""
    one, other = (
        Template("T", brain(), thresholds=FitThresholds(good_ncc=value)) for value in (0.3, 0.4)
    )
    assert one.identity != other.identity
    assert one.sha256 == other.sha256


def test_templates_are_the_same_in_another_process(files):
    assert pickle.loads(pickle.dumps(Recipe())).template is mni152()
    head, mask = files / "head.nii.gz", files / "mask.nii.gz"
    own = Template("T", head, mask, "mine", 3, FitThresholds(0.8))
    _ = own.image
    copy = pickle.loads(payload := pickle.dumps(own))
    assert len(payload) < 1000, "its voxels stay in the file"
    for name in ("name", "source", "mask", "title", "space_code", "thresholds", "identity"):
        assert getattr(copy, name) == getattr(own, name)
