"""The predicted memory of a registration, against the peaks of whole commands."""

import csv
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from processes import peak_of

from voxwarp.cli import main as command_line
from voxwarp.errors import InputError
from voxwarp.preparation.recipe import Recipe
from voxwarp.preparation.scan import Scan
from voxwarp.preparation.settings import Preparation
from voxwarp.preparation.template import mni152
from voxwarp.registration import memory
from voxwarp.registration.memory import PROGRAM, Volumes, check_memory, predicted_memory
from voxwarp.space.grid import Grid
from voxwarp.space.resample import resample
from voxwarp.space.transform import Affine
from voxwarp.space.volume import Volume, write_volume

MM, WORKING = 5_000_000, 160 * 192 * 224
PAIR = Volumes(fixed=MM, moving=MM, stored=4 * MM, working=WORKING)


def test_brains_of_1_mm_take_less_than_2_gb_and_of_half_a_mm_less_than_8() -> None:
    assert 1.5e9 < predicted_memory(PAIR) < 2e9
    half = 400 * 500 * 400
    large = replace(PAIR, fixed=half, moving=half, stored=4 * half)
    assert 4.5e9 < predicted_memory(large) < 8e9
    assert 2.0e9 < predicted_memory(replace(PAIR, refined=True)) < 2.2e9
    assert predicted_memory(replace(PAIR, deformable=False)) < 1.3e9


def test_large_scans_take_memory_by_their_voxels() -> None:
    large = replace(PAIR, fixed=10**9, moving=10**8)
    written = predicted_memory(large) - PROGRAM - 4 * MM - 95 * WORKING
    assert written == 40 * 10**9 + 7 * 10**8
    labelled = replace(large, stored=4 * MM + 10**8)
    assert predicted_memory(labelled) - predicted_memory(large) == 10**8


def test_heads_take_more_if_their_brain_is_extracted() -> None:
    one, two = (predicted_memory(replace(PAIR, heads=n)) for n in (1, 2))
    assert predicted_memory(PAIR) < one + 0.2e9 < two
    assert two < 3e9


# ----------------------------------------------------------------------------- Whole commands

ROWS = Path(__file__).parents[2] / "benchmarks" / "memory.csv"


@pytest.mark.parametrize("row", list(csv.DictReader(ROWS.read_text().splitlines())), ids=str)
def test_the_prediction_is_near_the_peaks_on_record(row: dict[str, str]) -> None:
    sizes = Volumes(
        fixed=int(row["fixed"]),
        moving=int(row["moving"]),
        stored=1_000_000 * int(row["stored_mb"]),
        working=WORKING,
        heads=int(row["heads"]),
        brains=int(row["brains"]),
        deformable="affine" not in row["options"],
        refined="refine" in row["options"],
    )
    ratio = predicted_memory(sizes) / 1e6 / int(row["peak_mb"])
    assert 0.85 < ratio < (1.4 if "model" in row["options"] else 1.15)
    assert int(row["predicted_mb"]) == pytest.approx(predicted_memory(sizes) / 1e6, rel=0.01)


def brain(folder: Path, spacing: float, turned: float) -> Path:
    """The template's brain with voxels of a spacing, in the box of the template, a bit larger."""
    image = mni152().image
    grid, matrix = image.grid, np.diag([turned, 1.0, 2 - turned, 1.0])
    step = spacing / np.asarray(grid.spacing)
    shape = tuple(int(n / s) for n, s in zip(grid.shape, step, strict=True))
    affine = grid.affine @ np.diag([*step, 1.0])
    moved = resample(image, Grid(shape, affine), Affine(matrix))
    data = np.rint(moved.data * (4000 / moved.data.max())).astype(np.int16)
    path = folder / f"brain_{spacing}_{turned}.nii.gz"
    write_volume(replace(moved, data=data), path)
    return path


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is counted in other ways elsewhere")
@pytest.mark.parametrize("spacings", [(1.0, 1.0), (0.7, 1.0), (1.0, 0.7), (0.7, 0.7), (0.5, 0.5)])
def test_the_prediction_is_near_the_peak_of_the_command(
    spacings: tuple[float, float], tmp_path: Path
) -> None:
    moving, fixed = (brain(tmp_path, s, t) for s, t in zip(spacings, (1.03, 0.99), strict=True))
    options = ["-o", tmp_path / "out", "--no-cache", "--threads", "2"]
    peak = peak_of("register", moving, fixed, *options)
    scans = [Scan.read(path) for path in (moving, fixed)]
    sizes = Volumes(
        fixed=scans[1].image.data.size,
        moving=scans[0].image.data.size,
        stored=sum(scan.image.data.nbytes for scan in scans),
        working=WORKING,
    )
    assert predicted_memory(sizes) == pytest.approx(peak, rel=0.15)


# ------------------------------------------------------------------------------ What is refused


def scan(shape: tuple[int, int, int] = (40, 50, 60), *, is_head: bool = False) -> Scan:
    data = np.zeros(shape, np.float32)
    data[10:-10, 10:-10, 10:-10] = 1
    noise = np.random.default_rng(0).random(shape).astype(np.float32)
    grid = Grid(shape, np.diag([3.0, 3.0, 3.0, 1.0]))
    return Scan(Volume(data + noise if is_head else data, grid, "scan.nii.gz"))


def check(moving: Scan, fixed: Scan, preparation: Preparation | None = None) -> None:
    settings = preparation or Preparation()
    check_memory(moving, fixed, Recipe(), settings, deformable=True, refined=False)


def free(monkeypatch: pytest.MonkeyPatch, number: float) -> None:
    monkeypatch.setattr(memory, "own_memory", lambda: 10**6)
    monkeypatch.setattr(memory, "free_memory", lambda: int(number) - 10**6)


def test_too_little_memory_is_reported_with_both_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    free(monkeypatch, 1.2e9)
    with pytest.raises(
        InputError, match=r"40×50×60 voxels.*takes about 1\.5 GB.*only 1\.2 GB are free; resample"
    ):
        check(scan(), scan())
    free(monkeypatch, 2e9)
    check(scan(), scan())


def test_room_for_the_extraction_is_needed_only_for_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    free(monkeypatch, 2e9)
    head = scan(is_head=True)
    check(scan(), head)  # one fits
    with pytest.raises(InputError, match=r"2\.9 GB"):
        check(head, head)
    masked = replace(head, mask=Volume(np.ones(head.grid.shape, np.uint8), head.grid))
    check(head, masked)
    check(head, head, Preparation(brain_extract="no"))
    with pytest.raises(InputError, match=r"2\.9 GB"):
        check(scan(), scan(), Preparation(brain_extract="yes"))
    check(head, Scan.of_template(mni152()), Preparation(brain_extract="yes"))


def test_the_command_ends_with_one_sentence_before_anything_is_computed(
    scans, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    free(monkeypatch, 1e9)
    monkeypatch.setattr(Scan, "examined", lambda *_, **__: pytest.fail("it is examined"))
    arguments = ["voxwarp", "register", scans.moving, scans.fixed, "-o", tmp_path / "out"]
    monkeypatch.setattr(sys, "argv", [str(argument) for argument in arguments])
    with pytest.raises(SystemExit) as ended:
        command_line.main()
    assert ended.value.code == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert f"moving image {scans.moving}" in said[0]
    assert "only 1.0 GB are free" in said[0]
