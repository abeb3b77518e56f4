"""Thousands of odd image files against every command: a right result, or one sentence.

What an image holds is known from its bytes (``odd_files``), without any reader of NIfTI.
"""

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, Phase, given, settings
from odd_files import TYPES, OddFile, odd_files

from voxwarp.space.placement import LARGEST, SMALLEST
from voxwarp.space.volume import read_series

# Bytes that a command may allocate beside a multiple of what the image has, in all its forms.
BESIDE, MULTIPLE = 96e6, 60


def cases(number: int) -> Any:
    """The same cases in every run."""
    return settings(
        max_examples=number,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


def both(fast: int, slow: int) -> Callable[[Callable[..., None]], Any]:
    """Run a property on a few cases always, and on many with --slow."""

    def decorate(check: Callable[..., None]) -> Any:
        few = cases(fast)(given(odd=odd_files)(check))
        many = cases(slow)(given(odd=odd_files)(check))
        return few, pytest.mark.slow(many)

    return decorate


@pytest.fixture(autouse=True)
def _everything_is_imported(cli: Callable[..., Any], tmp_path: Path) -> None:
    """So that no case is charged for it."""
    sitk.WriteTransform(sitk.AffineTransform(3), str(tmp_path / "identity.tfm"))
    scan = OddFile().write(tmp_path)
    words = ("apply", scan, "-t", tmp_path / "identity.tfm", "-r", scan, "-o", tmp_path / "o.nii")
    assert cli(*words).code == 0


class Attempt:
    """A command on an odd file in a folder of its own, and what came of it."""

    def __init__(self, cli: Callable[..., Any], folder: Path, *words: object):
        before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        tracemalloc.start()
        self.outcome = cli(*words)
        self.peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        after = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        self.new = sorted(after.keys() - before.keys())
        assert {path: after.get(path) for path in before} == before, "an input changed"

    @property
    def done(self) -> bool:
        """Whether there is a result; otherwise it was refused as the contract says."""
        code, lines = self.outcome.code, self.outcome.err.splitlines()
        if code == 0:
            assert all(line.startswith("voxwarp: warning: ") for line in lines), lines
            return True
        assert code == 2, self.outcome
        assert len(lines) == 1, lines
        assert lines[0].startswith("voxwarp: error: "), lines
        assert self.outcome.out == ""
        assert self.new == [], "it left something behind"
        return False


def is_sound(odd: OddFile) -> bool:
    """Whether a file is one that must be read."""
    side = (
        max(
            n * s
            for n, s in zip(
                odd.shape[:3], np.linalg.norm(odd.affine_in_mm[:3, :3], axis=0), strict=False
            )
        )
        if odd.shape
        else 0
    )
    trailing = [n for n in odd.shape[3:] if n != 1]
    return (
        odd.damage in ("", "one byte more")
        and TYPES[odd.code] is not None
        and len(odd.shape) >= 3
        and min(odd.shape) >= 1
        and min(odd.shape[:3]) >= 2
        and len(trailing) <= 1
        and (not trailing or len(odd.shape) == 4)
        and (odd.damage == "" or not odd.is_nifti2 or odd.ending == ".nii")
        and SMALLEST * 1.01 < side < LARGEST * 0.99
        and not (odd.ending == ".nii.bz2" and odd.disguised)
    )


def check_image_of_apply(cli, tmp_path_factory, odd: OddFile) -> None:
    """Through the identity onto its own grid, values and places stay as they are."""
    folder = tmp_path_factory.mktemp("case")
    sitk.WriteTransform(sitk.AffineTransform(3), str(folder / "identity.tfm"))
    path, out = odd.write(folder), folder / "out" / "moved.nii.gz"
    words = ("apply", "-t", folder / "identity.tfm", "-r", path, "-o", out)
    attempt = Attempt(cli, folder, *words, "--interpolation", "nearest", "--", path)
    size = odd.stored.size * 8 + 1
    assert attempt.peak < BESIDE + MULTIPLE * size, f"{attempt.peak / 1e6:.0f} MB"
    if not attempt.done:
        assert not is_sound(odd) or _does_not_fit(odd), attempt.outcome.err
        return
    assert attempt.new == [out]
    moved = nib.load(out)
    expected = _expected(path, odd)
    np.testing.assert_allclose(
        np.asarray(moved.dataobj, np.float64),
        expected,
        rtol=1e-5,
        atol=1e-5 * np.abs(expected[np.isfinite(expected)]).max(initial=0),
    )
    assert moved.get_data_dtype().kind != "i" or moved.get_data_dtype().itemsize <= 4
    if odd.is_placed and odd.damage in ("", "one byte more"):
        np.testing.assert_allclose(moved.affine, odd.affine_in_mm, rtol=1e-4, atol=1e-3)
    if not odd.is_placed:
        assert "left and right" in attempt.outcome.err


def _expected(path: Path, odd: OddFile) -> np.ndarray:
    """By its bytes if they are sound, else as nibabel reads it."""
    if odd.damage in ("", "one byte more"):
        values = odd.values.astype(np.float64)
    else:
        values = np.asarray(read_series(path).data, np.float64)
    while values.ndim > 3 and values.shape[-1] == 1:
        values = values[..., 0]
    return values


def _does_not_fit(odd: OddFile) -> bool:
    return odd.code in (1024, 1280) and np.abs(odd.values).max(initial=0) >= 2**31


test_an_image_of_apply, test_many_images_of_apply = both(60, 1500)(check_image_of_apply)
