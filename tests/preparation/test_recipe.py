"""Recipes: records are read as they were written, and nothing else is read."""

import json
from dataclasses import replace

import numpy as np
import pytest

from voxwarp.errors import InputError
from voxwarp.networks.model import Model
from voxwarp.preparation.agreement import FitThresholds
from voxwarp.preparation.recipe import Recipe, alignment_named
from voxwarp.preparation.template import Template, mni152
from voxwarp.registration.register import register
from voxwarp.space.grid import Grid
from voxwarp.space.volume import Volume, read_volume, write_volume

GRID = Grid((6, 6, 6), np.diag([2.0, 2.0, 2.0, 1.0]))
THRESHOLDS = FitThresholds(good_overlap=0.85, certain_ncc=0.5)


def brain() -> Volume:
    data = np.zeros((6, 6, 6), np.float32)
    data[1:5, 1:5, 1:5] = 5
    data[2, 2, 2] = 6
    return Volume(data, GRID)


@pytest.fixture
def own() -> Template:
    """No value is a default."""
    return Template("Mine", brain(), title="mine, of mice", space_code=3, thresholds=THRESHOLDS)


def test_alignments_by_name(tmp_path):
    assert [alignment_named(word) for word in ("centre", "header")] == ["centre", "header"]
    assert alignment_named("mni152") is mni152()
    write_volume(brain(), tmp_path / "mice.nii.gz")
    assert alignment_named(str(tmp_path / "mice.nii.gz")).path == tmp_path / "mice.nii.gz"
    with pytest.raises(
        ValueError, match=r"^alignment must be centre, header, mni152 or .*talairach"
    ):
        alignment_named("talairach")


@pytest.mark.parametrize("alignment", ["centre", "header", "mni152"])
def test_recipes_come_back_from_their_record(tmp_path, alignment):
    recipe = Recipe(GRID, 98.0, alignment_named(alignment))
    record = json.loads(json.dumps(recipe.described()))
    assert record["alignment"] == recipe.alignment_name == alignment
    assert Recipe.from_record(record, tmp_path) == recipe
    assert recipe.template is (mni152() if alignment == "mni152" else None)


def test_records_without_an_alignment_are_of_mni152(tmp_path):
    record = Recipe(GRID).described()
    del record["alignment"]
    assert Recipe.from_record(record, tmp_path) == Recipe(GRID)


def test_a_template_of_its_own_is_read_from_record_and_folder(tmp_path, own):
    write_volume(own.image, tmp_path / "template.nii.gz")
    record = json.loads(json.dumps(Recipe(GRID, 98.0, own).described()))
    found = Recipe.from_record(record, tmp_path)
    assert (found.grid, found.percentile, found.alignment_name) == (GRID, 98.0, "template")
    assert found.described() == record
    template = found.template
    assert (template.name, template.title, template.space_code) == ("Mine", "mine, of mice", 3)
    assert template.thresholds == THRESHOLDS
    np.testing.assert_array_equal(template.image.data, own.image.data)
    assert template.grid == GRID


def test_thresholds_are_the_usual_ones_if_a_record_has_none(tmp_path, own):
    write_volume(own.image, tmp_path / "template.nii.gz")
    record = Recipe(GRID, alignment=own).described()
    del record["template"]["thresholds"]
    assert Recipe.from_record(record, tmp_path).template.thresholds == FitThresholds()


@pytest.mark.parametrize("wrong", [{"good_overlap": "much"}, {"best": 1.0}, [1], "usual", None])
def test_invalid_thresholds_are_refused(tmp_path, own, wrong):
    write_volume(own.image, tmp_path / "template.nii.gz")
    record = Recipe(GRID, alignment=own).described()
    record["template"]["thresholds"] = wrong
    with pytest.raises((ValueError, TypeError)):
        Recipe.from_record(record, tmp_path)


def test_a_model_keeps_the_template_of_its_own(tmp_path, own):
    """If the template is a head with a mask, the model gets the skull-stripped brain."""
    write_volume(replace(brain(), data=brain().data + 3), tmp_path / "head.nii.gz")
    write_volume(Volume((brain().data > 0).astype(np.uint8), GRID), tmp_path / "mask.nii.gz")
    masked = replace(own, source=tmp_path / "head.nii.gz", mask=tmp_path / "mask.nii.gz")
    for name, template in (("memory", own), ("files", masked)):
        model = Model.build({"name": "descent", "steps": [1]}, Recipe(GRID, 99.0, template))
        model.save(tmp_path / name)
        back = Model.load(tmp_path / name).recipe
        assert (back.template.name, back.template.title) == ("Mine", "mine, of mice")
        assert (back.template.space_code, back.template.thresholds) == (3, THRESHOLDS)
        assert back.template.path == tmp_path / name / "template.nii.gz"
        np.testing.assert_array_equal(back.template.image.data, template.image.data)
        assert (back.grid, back.percentile) == (GRID, 99.0)
    assert (masked.image.data == 0).sum() == 6**3 - 4**3
    (tmp_path / "memory" / "template.nii.gz").unlink()
    with pytest.raises(InputError, match=r"its template template\.nii\.gz is missing"):
        Model.load(tmp_path / "memory")


@pytest.mark.parametrize("path", ["/etc/passwd", "../own.nii.gz", "own.nii.gz", "{folder}"])
def test_a_record_cannot_point_to_another_file(tmp_path, path):
    """Even if the image exists; a configuration could name it."""
    folder = tmp_path / "model"
    folder.mkdir()
    for place in (tmp_path, folder):
        write_volume(brain(), place / "own.nii.gz")
    path = path.format(folder=folder / "own.nii.gz")
    record = Recipe(GRID).described() | {"alignment": path}
    with pytest.raises(ValueError, match="alignment"):
        Recipe.from_record(record, folder)


@pytest.mark.parametrize("path", ["/etc/passwd", "../own.nii.gz", "own.nii.gz"])
def test_the_file_of_a_template_is_always_that_in_the_folder(tmp_path, own, path):
    folder = tmp_path / "model"
    folder.mkdir()
    for place in (tmp_path, folder):
        write_volume(brain(), place / "own.nii.gz")
    record = Recipe(GRID, alignment=own).described()
    record["template"]["file"] = path
    with pytest.raises(InputError, match=r"template\.nii\.gz is missing"):
        Recipe.from_record(record, folder)
    write_volume(brain(), folder / "template.nii.gz")
    assert Recipe.from_record(record, folder).template.path == folder / "template.nii.gz"


def test_a_model_that_was_read_registers_to_the_template_in_its_folder(
    phantoms, poses, tiny_model, make_grid, tmp_path
):
    """It lies elsewhere than MNI152: the warped scan is on its grid and on its brain."""
    grid = Grid(phantoms.template.grid.shape, shifted(phantoms.template.grid.affine))
    template = Template("Ours", Volume(phantoms.template.data, grid), title="Our 30 children")
    model = Model.load(tiny_model)
    working_grid = Grid(model.recipe.grid.shape, shifted(model.recipe.grid.affine))
    replace(model, recipe=Recipe(working_grid, alignment=template)).save(tmp_path / "mine")
    found = register(phantoms.image(make_grid(), poses.moving), model=tmp_path / "mine")
    (path, name) = (tmp_path / "mine" / "template.nii.gz", "Our 30 children")
    assert found.metrics["inputs"]["fixed"]["template"] == name
    assert found.fixed.image.name == str(path)
    np.testing.assert_array_equal(found.fixed.image.data, read_volume(path).data)
    assert found.warped.grid == found.fixed.grid == grid
    one, other = found.warped.data > 20, template.image.data > 20
    assert 2 * (one & other).sum() / (one.sum() + other.sum()) > 0.9


def shifted(affine: np.ndarray) -> np.ndarray:
    """A grid's affine after a shift of the world by (120, -80, 200) mm."""
    moved = affine.copy()
    moved[:3, 3] += 120, -80, 200
    return moved
