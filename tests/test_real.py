"""Real scans at full size: what other tools make of our files, overlap, folds, determinism."""

import csv
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from image_files import nodes, taken
from nibabel.affines import apply_affine
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from scipy.ndimage import binary_erosion

from voxwarp._layout import METRICS, REGISTERED, REPORT, WARPED_LABELS
from voxwarp.measures.overlap import dice
from voxwarp.preparation.examination import examine
from voxwarp.preparation.scan import Scan
from voxwarp.preparation.settings import Preparation
from voxwarp.registration.register import register
from voxwarp.registration.result import Registration
from voxwarp.runtime import Runtime

pytestmark = [pytest.mark.data, pytest.mark.slow]

MOVING, FIXED = "1104", "1125"  # the two subjects of the validation split


@pytest.fixture(scope="module")
def oasis(data: Path) -> Path:
    return data / "oasis-malf"


@pytest.fixture(scope="module")
def dice_30(oasis: Path) -> Callable[[np.ndarray, np.ndarray], float]:
    """Mean Dice over the 30 structures that labels.csv groups the labels into."""
    with open(oasis / "labels.csv", newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["structure"]]
    names = sorted({row["structure"] for row in rows})
    assert len(names) == 30
    table = np.zeros(1000, dtype=int)
    for row in rows:
        table[int(row["value"])] = 1 + names.index(row["structure"])
    return lambda a, b: float(np.mean(list(dice(table[a], table[b]).values())))


def run(oasis: Path, moving: str, fixed: str, model: str = "default") -> Registration:
    return register(
        oasis / "t1" / f"{moving}.nii.gz",
        oasis / "t1" / f"{fixed}.nii.gz",
        model,
        labels=oasis / "labels" / f"{moving}.nii.gz",
        fixed_labels=oasis / "labels" / f"{fixed}.nii.gz",
    )


@pytest.fixture(scope="module")
def result(oasis: Path) -> Registration:
    return run(oasis, MOVING, FIXED)


@pytest.fixture(scope="module")
def saved(result: Registration, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("real") / "out"
    result.save(folder)
    return folder


def labels(oasis: Path, subject: str) -> np.ndarray:
    return np.asarray(nib.load(oasis / "labels" / f"{subject}.nii.gz").dataobj).astype(int)


def test_the_inverse_leads_back_to_every_voxel(result: Registration, saved: Path) -> None:
    """By SimpleITK, from voxels of the brain by the inverse warp, and then by the warp."""
    images = [
        sitk.ReadImage(str(saved / name), sitk.sitkVectorFloat64)
        for name in ("1InverseWarp.nii.gz", "1Warp.nii.gz")
    ]
    voxels = np.argwhere(result.brain.data != 0)[::97].tolist()
    points = [images[0].TransformIndexToPhysicalPoint(voxel) for voxel in voxels]
    back, forth = map(sitk.DisplacementFieldTransform, images)  # this empties the images
    returned = [forth.TransformPoint(back.TransformPoint(point)) for point in points]
    left = np.linalg.norm(np.array(returned) - points, axis=1)
    assert len(left) > 10_000
    assert left.mean() < 0.01
    assert np.quantile(left, 0.99) < 0.08


def test_overlap_and_folds_of_the_shipped_model(oasis, result, dice_30) -> None:
    results = {(MOVING, FIXED): result, (FIXED, MOVING): run(oasis, FIXED, MOVING)}
    scores = []
    for (_, fixed), found in results.items():
        scores.append(dice_30(found.warped_labels.data, labels(oasis, fixed)))
        assert found.metrics["jacobian"]["folds_any_difference"] == 0
        assert found.warnings == []
    assert min(scores) > 0.827  # they are 0.838 and 0.838; affine alone 0.598 and 0.597


def test_default_model_beats_the_affine_on_real_scans(data: Path):
    """Mean Dice of the 30 structures between the two validation scans."""
    folder = data / "oasis-malf"
    with open(folder / "subjects.csv", newline="") as stream:
        moving, fixed = [row["id"] for row in csv.DictReader(stream) if row["split"] == "val"][:2]
    with open(folder / "labels.csv", newline="") as stream:
        structure = {int(r["value"]): r["structure"] for r in csv.DictReader(stream)}
    names = sorted(set(structure.values()) - {""})
    assert len(names) == 30

    def mean_dice(a: np.ndarray, b: np.ndarray) -> float:
        scores = []
        for name in names:
            values = [value for value, of in structure.items() if of == name]
            one, two = np.isin(a, values), np.isin(b, values)
            scores.append(2 * (one & two).sum() / (one.sum() + two.sum()))
        return float(np.nanmean(scores))

    result = register(
        folder / "t1" / f"{moving}.nii.gz",
        folder / "t1" / f"{fixed}.nii.gz",
        labels=folder / "labels" / f"{moving}.nii.gz",
    )
    target = nib.load(folder / "labels" / f"{fixed}.nii.gz")
    linear, _ = taken(
        nib.load(folder / "labels" / f"{moving}.nii.gz"), result.affine.map(nodes(target)), order=0
    )
    expected = np.asarray(target.dataobj)
    before, after = mean_dice(linear, expected), mean_dice(result.warped_labels.data, expected)
    assert after > 0.828  # it is 0.838
    assert after > before + 0.23  # it was 0.598
    assert result.metrics["jacobian"]["folds_any_difference"] == 0


@pytest.mark.parametrize(
    ("name", "measured"),
    [("fast", 0.822), ("none", 0.832), ("pyramid", 0.781), ("vm1", 0.728), ("vm2", 0.768)],
)
def test_overlap_of_the_other_models(oasis, dice_30, name: str, measured: float) -> None:
    result = run(oasis, MOVING, FIXED, name)
    assert dice_30(result.warped_labels.data, labels(oasis, FIXED)) > measured - 0.01


@pytest.mark.parametrize("backward", [False, True])
def test_simpleitk_and_ants_make_the_same_of_the_files(oasis, saved, backward: bool) -> None:
    ants = pytest.importorskip("ants")
    moving, fixed = (oasis / "t1" / f"{name}.nii.gz" for name in (MOVING, FIXED))
    image, grid = (fixed, moving) if backward else (moving, fixed)
    file = "InverseWarped.nii.gz" if backward else "Warped.nii.gz"
    ours = np.asarray(nib.load(saved / file).dataobj).astype(float)
    affine = sitk.AffineTransform(sitk.ReadTransform(str(saved / "0GenericAffine.mat")))
    name = "1InverseWarp.nii.gz" if backward else "1Warp.nii.gz"
    warp = sitk.DisplacementFieldTransform(
        sitk.ReadImage(str(saved / name), sitk.sitkVectorFloat64)
    )
    # A composite applies the transform that was added last first.
    chain = [warp, affine.GetInverse()] if backward else [affine, warp]
    source = sitk.ReadImage(str(image), sitk.sitkFloat32)
    by_itk = sitk.Resample(source, sitk.ReadImage(str(grid)), sitk.CompositeTransform(chain))
    inside = sitk.GetArrayFromImage(by_itk).T
    steps = [str(saved / "0GenericAffine.mat"), str(saved / name)]
    by_ants = ants.apply_transforms(
        ants.image_read(str(grid)),
        ants.image_read(str(image)),
        steps if backward else steps[::-1],
        whichtoinvert=[True, False] if backward else [False, False],
    ).numpy()
    span = inside.max() - inside.min()
    for theirs in (inside, by_ants):
        # Integer scans are rounded in our file: half a unit, on top of a thousandth of the range.
        off = np.abs(theirs - ours) > 1e-3 * span + 0.5
        border = ~binary_erosion(np.ones(ours.shape, bool), iterations=3)
        assert off[~border].mean() < 1e-5
        assert np.median(np.abs(theirs - ours)[ours > 0]) < 0.5


def test_a_scan_and_its_copy_in_another_order_do_not_move(oasis, tmp_path) -> None:
    image = nib.load(oasis / "t1" / f"{MOVING}.nii.gz")
    order = ornt_transform(io_orientation(image.affine), axcodes2ornt("PIR"))
    nib.save(image.as_reoriented(order), tmp_path / "copy.nii.gz")
    result = register(tmp_path / "copy.nii.gz", oasis / "t1" / f"{MOVING}.nii.gz")
    points = apply_affine(image.affine, np.argwhere(np.asarray(image.dataobj) > 0)[::50])
    moved = np.linalg.norm(result.transform.map(points) - points, axis=1)
    assert moved.max() < 0.01  # mm; it is 0


def test_the_same_command_writes_the_same_bytes(oasis, tmp_path) -> None:
    scans = [str(oasis / "t1" / f"{name}.nii.gz") for name in (MOVING, FIXED)]
    for name in ("a", "b"):
        command = [sys.executable, "-m", "voxwarp", "register", *scans, "-o", str(tmp_path / name)]
        command.append("--composite")
        subprocess.run(command, check=True, capture_output=True)
    masks = {name for name in REGISTERED if name.endswith("Mask.nii.gz")}  # those are of heads
    for file in set(REGISTERED) - masks - {METRICS, REPORT, WARPED_LABELS}:  # they tell times
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file


@pytest.mark.parametrize(("name", "least"), [("vm1_cc", 0.70), ("vm2_cc", 0.724)])
def test_the_authors_weights_align_real_subjects(
    oasis, data, dice_30, tmp_path, name, least
) -> None:
    weights = data.parent / "peers" / "voxelmorph-cvpr2018" / f"{name}.h5"
    if not weights.is_file():
        pytest.skip(f"no weights: {weights} does not exist")
    from voxwarp.networks.keras import import_keras

    import_keras(weights).save(tmp_path / name)
    result = run(oasis, MOVING, FIXED, str(tmp_path / name))
    assert dice_30(result.warped_labels.data, labels(oasis, FIXED)) > least  # 0.710 and 0.735


# Heads


@pytest.fixture(scope="module")
def head(data: Path) -> Path:
    return data / "ds000011" / "sub-01" / "anat" / "sub-01_T1w.nii.gz"


@pytest.fixture(scope="module")
def of_head(head: Path) -> Registration:
    return register(head, runtime=Runtime(cache=False))


def test_head_lies_on_the_template(of_head) -> None:
    found = of_head.metrics
    assert found["preparation"]["moving"]["seen_as"] == "head"
    assert found["similarity"]["before"]["local_ncc"] < 0.39  # it is 0.379
    assert found["similarity"]["after"]["local_ncc"] > 0.821  # it is 0.831
    assert found["jacobian"]["folds_any_difference"] == 0
    assert of_head.warnings == []
    brain = of_head.fixed.image.data > 0
    assert dice(of_head.warped_mask.data, brain.astype(np.uint8))[1] > 0.982  # it is 0.992


@pytest.mark.parametrize(("axes", "same_header"), [("SLA", True), ("PIR", False)])
def test_head_stored_in_another_order_gives_the_same(
    head, of_head, tmp_path, axes: str, same_header: bool
) -> None:
    """The same map to the bit, unless a flip rounds the offsets in the header (3e-6 mm here)."""
    image = nib.load(head)
    order = ornt_transform(io_orientation(image.affine), axcodes2ornt(axes))
    nib.save(image.as_reoriented(order), tmp_path / "copy.nii.gz")
    again = register(tmp_path / "copy.nii.gz", runtime=Runtime(cache=False))
    if same_header:
        np.testing.assert_array_equal(again.affine.matrix, of_head.affine.matrix)
        np.testing.assert_array_equal(again.warp.displacement, of_head.warp.displacement)
    apart = np.linalg.norm(again.warp.displacement - of_head.warp.displacement, axis=0)
    brain = of_head.fixed.image.data > 0
    # Steps amplify what bf16 makes of the rounded header: here and there to two millimetres.
    assert apart[brain].mean() < 0.03  # it is 0.012
    assert np.quantile(apart[brain], 0.999) < 0.6  # it is 0.30
    assert apart.max() < 4  # it is 2.0
    # The scan itself is read along its own axes: halves may be rounded up here and down there.
    off = np.abs(again.warped.data.astype(int) - of_head.warped.data)
    assert np.corrcoef(again.warped.data.ravel(), of_head.warped.data.ravel())[0, 1] > 0.999
    if same_header:
        assert off.max() <= 1
        assert (off > 0).mean() < 1e-4


def test_extraction_leaves_an_extracted_brain_whole(oasis) -> None:
    """Deepbet is to keep the voxels that experts labelled."""
    scan = Scan.read(
        oasis / "t1" / f"{MOVING}.nii.gz", labels=oasis / "labels" / f"{MOVING}.nii.gz"
    )
    settings = Preparation(brain_extract="yes", affine=False)
    mask = scan.brain_mask(examine(scan.image, settings))
    kept = mask.data[scan.labels.data > 0].mean()
    assert kept > 0.988  # it is 0.998
    # It is no mask of everything: 0.013.
    assert (mask.data[scan.image.data == 0] > 0).mean() < 0.023


def afids(path: Path) -> np.ndarray:
    """RAS mm of the 32 fiducials but for 29 and 30, see the README beside them."""
    with open(path, newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if int(row["afid"]) not in (29, 30)]
    points = np.array([[float(row[axis]) for axis in "xyz"] for row in rows])
    assert points.shape == (30, 3)
    return points


def test_landmarks_of_colin_come_near_those_of_the_template(data) -> None:
    """Mean target registration error; of ANTs SyN 2.26 mm, given the brain."""
    result = register(data / "heads" / "colin27_t1.nii.gz")
    in_colin = afids(data / "landmarks" / "colin27.csv")
    in_template = afids(data / "landmarks" / "mni152_2009_sym.csv")
    linear, whole = (
        np.linalg.norm(through.map(in_template) - in_colin, axis=1).mean()
        for through in (result.affine, result.transform)
    )
    assert linear < 2.83  # it is 2.80
    assert whole < 2.45  # it is 2.42
    assert result.warnings == []
