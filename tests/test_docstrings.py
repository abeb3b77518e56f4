"""The examples in the docstrings of public names run, and print what they say."""

import doctest
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import pytest

import voxwarp
from voxwarp.registration.many import register_many
from voxwarp.registration.register import register

#: Those of which users see an example with ``help``.
WITH_EXAMPLE = (
    *("Affine", "Chain", "Grid", "Model", "Preparation", "Refinement", "Registration", "Runtime"),
    *("RegisteredScan", "Scan", "Template", "Volume", "Warp", "apply_to_image", "apply_to_points"),
    *("chain_of", "load", "load_transform", "preprocess", "read_volume", "register"),
    *("build_template", "morphometry", "register_many", "write_volume"),
)


@pytest.fixture(scope="module")
def folder(phantoms, poses, unlike_grids, tmp_path_factory) -> Path:
    """The files that the examples name."""
    folder = tmp_path_factory.mktemp("examples")
    for role, grid in unlike_grids.items():
        pose = getattr(poses, role)
        nib.save(phantoms.image(grid, pose), folder / f"{role}.nii.gz")
        nib.save(phantoms.labels(grid, pose), folder / f"{role}_labels.nii.gz")
    nib.save(phantoms.image(unlike_grids["fixed"], poses.moving), folder / "bold.nii.gz")
    return folder


@pytest.fixture(scope="module")
def stand_ins(phantoms, tiny_model) -> Iterator[None]:
    """A tiny model instead of the default one, and the template at 4 mm."""

    def run(moving: object, fixed: object = None, **more: Any) -> voxwarp.Registration:
        return register(moving, fixed, tiny_model, **more)

    def run_many(movings: object, fixed: object, **more: Any) -> list[voxwarp.RegisteredScan]:
        return register_many(movings, fixed, tiny_model, **more)

    with pytest.MonkeyPatch.context() as patch:
        phantoms.stand_in_for_mni152(patch)
        patch.setattr(voxwarp, "register", run, raising=False)
        patch.setattr(voxwarp, "register_many", run_many, raising=False)
        yield


def examples(documented: Any, name: str) -> doctest.DocTest:
    return doctest.DocTestParser().get_doctest(documented.__doc__ or "", {}, name, None, 0)


@pytest.fixture(scope="module")
def documented() -> Callable[[str], Any]:
    """The public objects, looked up before one of them is replaced."""
    return {name: getattr(voxwarp, name) for name in voxwarp.__all__}.__getitem__


@pytest.mark.parametrize("name", WITH_EXAMPLE)
def test_examples_run(
    documented, name: str, folder: Path, stand_ins: None, monkeypatch, tmp_path: Path
) -> None:
    for path in folder.iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    test, lines = examples(documented(name), name), list[str]()
    assert test.examples, f"{name} has no example"
    assert any("import voxwarp" in example.source for example in test.examples)
    runner = doctest.DocTestRunner(verbose=False)
    runner.run(test, out=lines.append)
    assert runner.failures == 0, "".join(lines)


def test_no_example_is_skipped_or_left_out(documented) -> None:
    for name in set(voxwarp.__all__) - {"__version__"}:
        text = documented(name).__doc__
        assert "SKIP" not in text
        assert (">>>" in text) == (name in WITH_EXAMPLE), name


def test_a_wrong_example_would_be_found() -> None:
    test = doctest.DocTestParser().get_doctest(">>> 1 + 1\n3\n", {}, "wrong", None, 0)
    runner = doctest.DocTestRunner(verbose=False)
    runner.run(test, out=lambda _: None)
    assert runner.failures == 1
