"""Templates, and the recipes that name them: what is written is read, and nothing else is."""

import json
import pickle

import numpy as np
import pytest

from voxwarp.errors import InputError
from voxwarp.networks.model import Model
from voxwarp.preparation.recipe import Recipe, alignment_named
from voxwarp.preparation.template import MNI, Template, mni152, template_named
from voxwarp.space.grid import Grid
from voxwarp.space.volume import Volume, write_volume

GRID = Grid((6, 6, 6), np.diag([2.0, 2.0, 2.0, 1.0]))


def brain(value: float = 5) -> Volume:
    data = np.zeros((6, 6, 6), np.float32)
    data[1:5, 1:5, 1:5] = value
    data[2, 2, 2] += 1
    return Volume(data, GRID)


def test_that_of_nilearn():
    assert mni152() is template_named("mni152")
    assert mni152().space_code == MNI == 4
    assert mni152().short_name == "MNI152"
    assert mni152().path.name.startswith("mni_icbm152_t1")


def test_one_of_the_users_own_with_a_mask(tmp_path):
    data = brain().data + 3  # a head: nowhere zero
    write_volume(Volume(data, GRID), tmp_path / "own.nii.gz")
    write_volume(Volume((brain().data > 0).astype(np.uint8), GRID), tmp_path / "mask.nii.gz")
    named = template_named(str(tmp_path / "own.nii.gz"))
    assert (named.name, named.space_code) == ("own", 2)
    np.testing.assert_array_equal(named.image.data, data)
    masked = Template("own", tmp_path / "own.nii.gz", tmp_path / "mask.nii.gz")
    np.testing.assert_array_equal(masked.image.data, np.where(brain().data > 0, data, 0))
    assert masked.sha256 != named.sha256
    with pytest.raises(InputError, match="nowhere"):
        template_named(str(tmp_path / "nowhere.nii.gz"))


def test_identity_is_that_of_the_contents():
    one, same, other = (Template("T", brain(value)) for value in (5, 5, 6))
    assert one.identity == same.identity != other.identity
    shifted = Volume(
        brain().data, Grid(GRID.shape, GRID.affine @ np.diag([1.0, 1, 1, 1]) + np.eye(4, k=3))
    )
    assert Template("T", shifted).identity != one.identity


def test_in_another_process_it_is_the_same(tmp_path):
    assert pickle.loads(pickle.dumps(Recipe())).template is mni152()
    write_volume(brain(), tmp_path / "own.nii.gz")
    own = template_named(str(tmp_path / "own.nii.gz"))
    _ = own.image
    there = pickle.loads(payload := pickle.dumps(own))
    assert len(payload) < 1000, "its voxels stay in the file"
    assert there.identity == own.identity


@pytest.mark.parametrize("alignment", ["centre", "header", "mni152"])
def test_recipes_come_back_from_their_record(tmp_path, alignment):
    recipe = Recipe(GRID, 98.0, alignment_named(alignment))
    record = json.loads(json.dumps(recipe.described()))
    assert record["alignment"] == alignment
    assert Recipe.from_record(record, tmp_path) == recipe
    assert (recipe.template is None) == (alignment != "mni152")


def test_a_model_keeps_the_template_of_its_own(tmp_path):
    own = Template("Mine", brain(), title="mine, of mice", space_code=3)
    model = Model.build({"name": "descent", "steps": [1]}, Recipe(GRID, 99.0, own))
    model.save(tmp_path / "model")
    back = Model.load(tmp_path / "model").recipe
    assert (back.template.name, back.template.title, back.template.space_code) == (
        *("Mine", "mine, of mice", 3),
    )
    np.testing.assert_array_equal(back.template.image.data, own.image.data)
    assert (back.grid, back.percentile) == (GRID, 99.0)
    (tmp_path / "model" / "template.nii.gz").unlink()
    with pytest.raises(InputError, match="its template"):
        Model.load(tmp_path / "model")


@pytest.mark.parametrize("path", ["/etc/passwd", "../x.nii.gz", "own.nii.gz"])
def test_a_record_names_no_other_file(tmp_path, path):
    write_volume(brain(), tmp_path / "own.nii.gz")
    record = Recipe(GRID).described() | {"alignment": path}
    with pytest.raises(ValueError, match="alignment"):
        Recipe.from_record(record, tmp_path)
