"""Thousands of odd image files against every command: a right result, or one sentence.

What an image holds is known from its bytes (``odd_files``), without any reader of NIfTI.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from attempts import Attempt, both
from hypothesis import strategies as st
from odd_files import TYPES, OddFile, odd_files

from voxwarp.space.placement import LARGEST, SMALLEST
from voxwarp.space.volume import read_series


@pytest.fixture(autouse=True)
def _everything_is_imported(cli: Callable[..., Any], tmp_path: Path) -> None:
    """So that no case is charged for it."""
    scan = OddFile().write(tmp_path)
    words = ("apply", scan, "-t", identity(tmp_path), "-r", scan, "-o", tmp_path / "o.nii")
    assert cli(*words).code == 0


def identity(folder: Path, name: str = "identity.tfm") -> Path:
    path = folder / name
    sitk.WriteTransform(sitk.AffineTransform(3), str(path))
    return path


def is_intact(odd: OddFile) -> bool:
    """Whether the damage is where nobody needs to read."""
    extension = odd.damage == "size of the extension" and odd.extension and not odd.is_nifti2
    return odd.damage in ("", "one byte more") or bool(extension)


def is_sound(odd: OddFile) -> bool:
    """Whether a file is one that must be read."""
    if len(odd.shape) < 3 or min(odd.shape[:3]) < 2 or min(odd.shape) < 1:
        return False
    sides = np.array(odd.shape[:3]) * np.linalg.norm(odd.affine_in_mm[:3, :3], axis=0)
    return (
        odd.damage == ""
        and TYPES[odd.code] is not None
        and all(n == 1 for n in odd.shape[4:])
        and SMALLEST * 1.01 < max(sides) < LARGEST * 0.99
        and not (odd.ending == ".nii.bz2" and odd.disguised)
        and not (odd.code in (1024, 1280) and np.abs(odd.values).max(initial=0) >= 2**31)
    )


def expected_values(path: Path, odd: OddFile) -> np.ndarray:
    """By its bytes if they are intact, else as nibabel reads it; without axes of length one."""
    if is_intact(odd):
        values = odd.values.astype(np.float64)
    else:
        values = np.asarray(read_series(path).data, np.float64)
    while values.ndim > 3 and values.shape[-1] == 1:
        values = values[..., 0]
    return values


def is_sheared(odd: OddFile) -> bool:
    axes = odd.affine[:3, :3] / np.linalg.norm(odd.affine[:3, :3], axis=0)
    return not np.allclose(axes.T @ axes, np.eye(3), atol=1e-3)


def check_place(image: nib.Nifti1Image, odd: OddFile, said: str) -> None:
    if not is_intact(odd):
        return
    if odd.is_placed:
        if odd.sform_code <= 0 and is_sheared(odd):  # which a quaternion cannot express
            return
        np.testing.assert_allclose(image.affine, odd.affine_in_mm, rtol=1e-4, atol=1e-3)
    else:
        assert "left and right" in said


def image_of_apply(
    cli: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory, case: OddFile
) -> None:
    """Through the identity onto its own grid, values and places stay as they are."""
    folder = tmp_path_factory.mktemp("case")
    path, out = case.write(folder), folder / "out" / "moved.nii.gz"
    words = ("apply", "-t", identity(folder), "-r", path, "-o", out, "--", path)
    attempt = Attempt(
        cli, folder, *words[:1], "--interpolation", "nearest", *words[1:], size=8 * case.stored.size
    )
    if not attempt.done:
        assert not is_sound(case), attempt.outcome.err
        return
    assert attempt.new == [out]
    moved = nib.load(out)
    expected = expected_values(path, case)
    largest = np.abs(expected[np.isfinite(expected)]).max(initial=0)
    found = np.asarray(moved.dataobj, np.float64)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * largest)
    assert moved.get_data_dtype().str[1:] not in ("i8", "u8", "f16")
    check_place(moved, case, attempt.outcome.err)


def reference_of_apply(
    cli: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory, case: OddFile
) -> None:
    """The result lies on its grid, whatever its voxels are."""
    folder = tmp_path_factory.mktemp("case")
    good, path = OddFile(stem="good").write(folder), case.write(folder)
    out, size = folder / "moved.nii", 8 * case.stored.size
    words = ("apply", good, "-t", identity(folder), "-r", path, "-o", out)
    attempt = Attempt(cli, folder, *words, size=size)
    if not attempt.done:
        assert not is_sound(case), attempt.outcome.err
        return
    moved = nib.load(out)
    if is_intact(case):
        assert moved.shape == case.shape[:3]
    check_place(moved, case, attempt.outcome.err)


odd_fields = st.builds(
    lambda odd, code: replace(odd, shape=(*odd.shape[:3], 1, 3), code=code, ending=".nii.gz"),
    odd_files.filter(lambda odd: len(odd.shape) >= 3),
    st.sampled_from([16, 64, 4]),
)


def field_of_points(
    cli: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory, case: OddFile
) -> None:
    """A point at a voxel moves by the vector there, in the frame that the intent says."""
    folder = tmp_path_factory.mktemp("case")
    identity(folder, "0GenericAffine.mat")
    field = case.write(folder)
    field.rename(folder / "1Warp.nii.gz")
    (folder / "p.csv").write_text("x,y,z\n{},{},{}\n".format(*case.affine_in_mm[:3] @ [1, 1, 1, 1]))
    words = ("points", folder / "p.csv", "-t", folder, "--inverse", "-o", folder / "q.csv")
    attempt = Attempt(cli, folder, *words, size=8 * case.stored.size)
    sound = is_sound(replace(case, shape=case.shape[:3])) and case.intent in (1006, 1007)
    if not attempt.done:
        assert not (sound and np.isfinite(case.values).all()), attempt.outcome.err
        return
    if not sound or not case.is_placed:
        return
    vector = case.values[1, 1, 1, 0] * ([1, 1, 1] if case.intent == 1006 else [-1, -1, 1])
    point = case.affine_in_mm[:3] @ [1, 1, 1, 1]
    moved = np.array((folder / "q.csv").read_text().split()[1].split(","), float)
    np.testing.assert_allclose(moved, point + vector, rtol=1e-4, atol=1e-2)


def scan_of_other_commands(
    cli: Callable[..., Any],
    tiny_model: Path,
    tmp_path_factory: pytest.TempPathFactory,
    case: tuple[OddFile, str],
) -> None:
    """What is registered, prepared, trained on or scored is refused or done, and nothing else."""
    odd, command = case
    folder = tmp_path_factory.mktemp("case")
    path = odd.write(folder).rename(folder / f"scan{odd.ending}")
    name = path.name
    (folder / "pairs.csv").write_text(f"moving,fixed\n{name},{name}\n")
    (folder / "train.yaml").write_text(
        f"data:\n  sources:\n    - folder: {folder}\n      split: train\n  cache: {folder}/cache\n"
        f"network: {{name: pyramid}}\nphases: [{{steps: 1}}]\n"
    )
    no_brain = ("--brain-extract", "no", "--no-bias", "--no-affine", "--no-cache")
    words: tuple[object, ...] = {
        "register": (
            "register",
            path,
            path,
            "-o",
            folder / "out",
            "--model",
            tiny_model,
            *no_brain,
        ),
        "rigid": ("register", path, path, "-o", folder / "out", "--transform", "rigid", *no_brain),
        "labels": ("register", path, path, "--labels", path, "-o", folder / "out", *no_brain),
        "preprocess": ("preprocess", path, "-o", folder / "out", *no_brain[:3]),
        "evaluate": (
            *("evaluate", folder / "pairs.csv", "--model", tiny_model, "-o", folder / "out"),
            *no_brain[:4],
        ),
        "train": ("train", folder / "train.yaml", "--check"),
        "points": ("points", path, "-t", folder, "-o", folder / "out.csv"),
        "transform": ("apply", path, "-t", path, "-o", folder / "out.nii"),
        "report": ("report", path),
    }[command]
    attempt = Attempt(cli, folder, *words, size=max(8 * odd.stored.size, 80 * 96 * 112 * 16))
    attempt.is_list = command in ("train", "evaluate")
    if attempt.done and is_intact(odd):
        assert TYPES[odd.code] is not None


others = st.tuples(
    odd_files,
    st.sampled_from(
        ["register", "rigid", "labels", "preprocess", "evaluate", "train", "points", "transform",
         "report"]
    ),
)  # fmt: skip

test_images_of_apply, test_many_images_of_apply = both(odd_files, 60, 1000)(image_of_apply)
test_references, test_many_references = both(odd_files, 40, 400)(reference_of_apply)
test_fields, test_many_fields = both(odd_fields, 40, 400)(field_of_points)
test_other_commands, test_many_other_commands = both(others, 30, 300)(scan_of_other_commands)
