"""Folders and files of transforms as people hand them over, and links to what is not there."""

import gzip
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from voxwarp._lock import WAITING
from voxwarp.errors import InputError
from voxwarp.registration.points import apply_to_points
from voxwarp.registration.saved_transform import load_transform
from voxwarp.space.composite import write_composite
from voxwarp.space.formats import write_warp
from voxwarp.space.grid import Grid
from voxwarp.space.transform import Affine, Warp

POINTS = np.random.default_rng(0).uniform(10, 70, (20, 3))
GRID = Grid((10, 11, 12), np.diag([8.0, 8, 8, 1]))
FLIP = np.array([-1, -1, 1])
SHIFT = np.array([2, 3, 4], np.float32)  # of the warps, mm, RAS


@pytest.fixture
def itk() -> sitk.AffineTransform:
    transform = sitk.AffineTransform(3)
    transform.SetMatrix([1.1, 0.1, 0, -0.2, 0.9, 0.05, 0, 0.1, 1.05])
    transform.SetTranslation([1.0, 2.0, 3.0])
    return transform


@pytest.fixture
def folder(tmp_path: Path, itk: sitk.AffineTransform) -> Callable[..., Path]:
    """A folder with files of these names: linear transforms, or warps of 2, 3, 4 mm (RAS)."""

    def make(*names: str) -> Path:
        out = tmp_path / "transforms"
        out.mkdir()
        for name in names:
            if "warp" in name.lower():
                shift = SHIFT * (-1 if "Inverse" in name else 1)
                field = np.tile(shift[:, None, None, None], (1, *GRID.shape))
                write_warp(Warp(field, GRID), out / "a.nii.gz")
                zipped = (out / "a.nii.gz").read_bytes()
                unzip = gzip.decompress if name.endswith(".nii") else bytes
                (out / "a.nii.gz").unlink()
                (out / name).write_bytes(unzip(zipped))
            else:
                sitk.WriteTransform(itk, str(out / "a.mat"))
                (out / "a.mat").rename(out / name)
        return out

    return make


@pytest.fixture
def image(tmp_path: Path) -> Path:
    data = np.random.default_rng(1).random(GRID.shape).astype(np.float32)
    nib.save(nib.Nifti1Image(data, GRID.affine), tmp_path / "image.nii.gz")
    return tmp_path / "image.nii.gz"


def linear(itk: sitk.Transform, points: np.ndarray) -> np.ndarray:
    return np.array([itk.TransformPoint(p) for p in (points * FLIP).tolist()]) * FLIP


@pytest.mark.parametrize(
    "name", ["0GenericAffine.mat", "sub-01_0GenericAffine.mat", "x0GENERICAFFINE.MAT"]
)
def test_a_folder_of_a_linear_registration_of_ants(cli, refuses, folder, image, itk, name) -> None:
    """As ``antsRegistration -t a`` writes it: one file; it tells no grid."""
    out = folder(name)
    moved = apply_to_points(POINTS, out, inverse=True)
    np.testing.assert_allclose(moved, linear(itk, POINTS), atol=1e-9)
    target = image.with_name("moved.nii.gz")
    line = refuses("apply", image, "-t", out, "-o", target)
    assert "--reference is needed" in line
    assert "a single .mat or a folder without 1Warp.nii.gz, does not tell it" in line
    assert cli("apply", image, "-t", out, "-r", image, "-o", target).code == 0


def test_files_of_a_command_that_was_killed_are_not_mixed(folder: Callable[..., Path]) -> None:
    """Its lock stays if it is killed while it moves them; the record is the last."""
    out = folder("0GenericAffine.mat", "1Warp.nii.gz")
    load_transform(out)
    (out / WAITING).touch()
    with pytest.raises(InputError, match=r"killed while it did.*may not belong together"):
        load_transform(out)


@pytest.mark.parametrize(
    "names", [("a0GenericAffine.mat", "a1Warp.nii.gz"), ("A0GenericAffine.mat", "A1WARP.NII.GZ")]
)
def test_a_deformation_without_its_inverse_serves_forward(
    cli, refuses, folder, image, itk, names
) -> None:
    out = folder(*names)
    moved = apply_to_points(POINTS, out, inverse=True)  # by the fixed-to-moving map
    np.testing.assert_allclose(moved, linear(itk, POINTS + SHIFT), atol=1e-5)
    target = image.with_name("moved.nii.gz")
    (image.parent / "p.csv").write_text("x,y,z\n20,30,40\n")
    words = "points", image.parent / "p.csv", "-t", out, "-o", image.parent / "out.csv"
    assert "1InverseWarp.nii.gz is missing" in refuses(*words)
    assert cli("apply", image, "-t", out, "-o", target).code == 0
    assert cli(*words, "--inverse").code == 0


def test_a_deformation_without_an_affine(folder) -> None:
    """As antsRegistration writes it with one stage, SyN: it is number 0."""
    out = folder("x0Warp.nii.gz", "x0InverseWarp.nii.gz")
    np.testing.assert_allclose(
        apply_to_points(POINTS, out, inverse=True), POINTS + SHIFT, atol=1e-5
    )
    np.testing.assert_allclose(apply_to_points(POINTS, out), POINTS - SHIFT, atol=1e-5)
    assert load_transform(out).fixed_grid == GRID


def test_an_unzipped_deformation_is_not_overlooked(folder, itk) -> None:
    moved = apply_to_points(POINTS, folder("0GenericAffine.mat", "1Warp.nii"), inverse=True)
    np.testing.assert_allclose(moved, linear(itk, POINTS + SHIFT), atol=1e-5)


STAGES = "0DerivedInitialMovingTranslation.mat", "1Rigid.mat", "2Affine.mat"


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ((*STAGES, "3Warp.nii.gz"), "single stages of antsRegistration, which writes 0Generic"),
        ((*STAGES, "3Warp.nii.gz"), "/1Rigid.mat -t "),
        (("0GenericAffine.mat", "xWarp.nii.gz"), "1Warp.nii.gz is missing"),
        (("0GenericAffine.mat", "2Warp.nii.gz"), "1Warp.nii.gz is missing"),
        (("0GenericAffine.mat", "xComposite.h5"), "1Warp.nii.gz is missing"),
        (("xfm.h5",), ", or a composite transform such as"),
        (("aComposite.h5", "bComposite.h5"), ", or a composite transform such as"),
        (("sub-01_xfm.mat",), "or a single linear transform such as"),
        (("sub-01_xfm.mat",), "/sub-01_xfm.mat"),
        (("a0GenericAffine.mat", "b0GenericAffine.mat"), "2 files end in 0GenericAffine.mat"),
    ],
)
def test_what_is_not_understood_is_refused_with_what_would_do(
    refuses, folder, image, names, said
) -> None:
    line = refuses("apply", image, "-t", folder(*names), "-r", image, "-o", image.parent / "o.nii")
    assert said in line


def test_a_folder_of_results_names_one_of_them(refuses, folder, image, tmp_path) -> None:
    folder("0GenericAffine.mat").rename(tmp_path / "sub-01")
    (tmp_path / "results").mkdir()
    shutil.move(tmp_path / "sub-01", tmp_path / "results" / "sub-01")
    line = refuses("apply", image, "-t", tmp_path / "results", "-o", tmp_path / "o.nii")
    assert f", such as {tmp_path / 'results' / 'sub-01'}" in line


def test_files_of_a_macintosh_beside_the_transforms_do_not_count(folder, itk) -> None:
    out = folder("0GenericAffine.mat")
    (out / "._0GenericAffine.mat").write_bytes(b"x")
    (out / "._1Warp.nii.gz").write_bytes(b"x")
    moved = apply_to_points(POINTS, out, inverse=True)
    np.testing.assert_allclose(moved, linear(itk, POINTS), atol=1e-9)


def test_brackets_are_those_of_ants(folder, itk) -> None:
    out = folder("0GenericAffine.mat")
    forward = apply_to_points(POINTS, f"[{out},0]", inverse=True)
    np.testing.assert_allclose(forward, linear(itk, POINTS), atol=1e-9)
    back = apply_to_points(POINTS, f"[ {out}/0GenericAffine.mat , 1 ]", inverse=True)
    np.testing.assert_allclose(back, linear(itk.GetInverse(), POINTS), atol=1e-9)


# Single displacement fields, and the parts of a registration of ANTs


def test_a_displacement_field_alone_serves_in_its_own_direction(
    cli, refuses, folder, image
) -> None:
    field = folder("moved_warp.nii") / "moved_warp.nii"
    assert load_transform(field).fixed_grid == GRID
    moved = apply_to_points(POINTS, [field], inverse=True)
    np.testing.assert_allclose(moved, POINTS + SHIFT, atol=1e-5)
    assert cli("apply", image, "-t", field, "-o", image.parent / "o.nii.gz").code == 0
    for way in ("-t", f"[{field},1]"), ("--inverse", "-t", field):
        line = refuses("apply", image, *way, "-r", image, "-o", image.parent / "x.nii")
        assert f"{field}: a displacement field holds one direction, and the other" in line


def test_the_parts_of_ants_are_chained_as_the_image_travels(folder, itk) -> None:
    """Also if the results of several people are in one folder."""
    names = [f"{p}_{n}" for p in "ab" for n in ("0GenericAffine.mat", "1Warp.nii.gz")]
    out = folder(*names, "a_1InverseWarp.nii.gz")
    forward = [out / "a_0GenericAffine.mat", out / "a_1Warp.nii.gz"]
    there = linear(itk, POINTS + SHIFT)
    np.testing.assert_allclose(apply_to_points(POINTS, forward, inverse=True), there, atol=1e-5)
    backward = [out / "a_1InverseWarp.nii.gz", f"[{out}/a_0GenericAffine.mat,1]"]
    np.testing.assert_allclose(apply_to_points(there, backward, inverse=True), POINTS, atol=1e-5)
    other = folder_of_one(out.parent / "other", out / "b_1Warp.nii.gz")
    chained = apply_to_points(POINTS, [*forward, other], inverse=True)
    np.testing.assert_allclose(chained, linear(itk, POINTS + 2 * SHIFT), atol=1e-5)


def folder_of_one(folder: Path, field: Path) -> Path:
    """A copy of a field in a folder of its own, where no affine is beside it."""
    folder.mkdir()
    return Path(shutil.copy(field, folder / field.name))


@pytest.mark.parametrize(
    "words",
    [
        ("{}/a_1Warp.nii.gz",),
        ("{}/a_1Warp.nii.gz", "{}/a_0GenericAffine.mat"),  # the order of ANTs
        ("{}/b_0GenericAffine.mat", "{}/a_1Warp.nii.gz"),
        ("[{}/a_0GenericAffine.mat,1]", "{}/a_1Warp.nii.gz"),
        ("[{}/a_0GenericAffine.mat,1]", "{}/a_1InverseWarp.nii.gz"),  # the order of ANTs
        ("{}/a_1InverseWarp.nii.gz", "{}/a_0GenericAffine.mat"),
        ("{}/a_1InverseWarp.nii.gz",),
    ],
)
def test_parts_of_ants_in_its_order_or_alone_are_refused(refuses, folder, image, words) -> None:
    names = "a_0GenericAffine.mat", "a_1Warp.nii.gz", "a_1InverseWarp.nii.gz"
    out = folder(*names, "b_0GenericAffine.mat")
    options = [word for path in words for word in ("-t", path.format(out))]
    line = refuses("apply", image, *options, "-r", image, "-o", image.parent / "o.nii")
    order = (
        f"{out}/a_1InverseWarp.nii.gz, then [{out}/a_0GenericAffine.mat,1]"
        if "Inverse" in "".join(words)
        else f"{out}/a_0GenericAffine.mat, then {out}/a_1Warp.nii.gz"
    )
    assert f"give their folder, or {order}: the order in which an image travels" in line


# Composites


@pytest.fixture
def warp() -> Warp:
    return Warp(np.tile(SHIFT[:, None, None, None], (1, *GRID.shape)), GRID)


@pytest.fixture
def affine(itk) -> Affine:
    matrix = np.eye(4)
    corner = linear(itk, np.zeros((1, 3)))
    matrix[:3, :3] = (linear(itk, np.eye(3)) - corner).T
    matrix[:3, 3] = corner[0]
    return Affine(matrix)


def composites(folder: Path, names: tuple[str, str], warp: Warp, affine: Affine) -> list[Path]:
    """As antsRegistration writes them with ``--write-composite-transform 1``."""
    backward = Warp(-warp.displacement, warp.grid)
    write_composite([warp, affine], folder / names[0])
    write_composite([affine.inverse(), backward], folder / names[1])
    return [folder / name for name in names]


@pytest.mark.parametrize(
    "names",
    [
        ("Composite.h5", "InverseComposite.h5"),
        ("sub-01_Composite.h5", "sub-01_InverseComposite.h5"),
        (
            "sub-01_from-T1w_to-MNI152NLin2009cAsym+1_mode-image_xfm.h5",
            "sub-01_from-MNI152NLin2009cAsym+1_to-T1w_mode-image_xfm.h5",
        ),
    ],
)
def test_a_composite_is_used_with_the_file_of_its_inverse(
    names, warp, affine, itk, tmp_path
) -> None:
    forward, backward = composites(tmp_path, names, warp, affine)
    there = linear(itk, POINTS + SHIFT)
    np.testing.assert_allclose(apply_to_points(POINTS, forward, inverse=True), there, atol=1e-5)
    np.testing.assert_allclose(apply_to_points(there, forward), POINTS, atol=1e-5)
    np.testing.assert_allclose(apply_to_points(POINTS, backward), there, atol=1e-5)
    np.testing.assert_allclose(
        apply_to_points(there, f"[{forward},1]", inverse=True), POINTS, atol=1e-5
    )
    assert load_transform(forward).fixed_grid == GRID
    if "Composite.h5" in names[0]:  # as a folder, too
        np.testing.assert_allclose(apply_to_points(there, tmp_path), POINTS, atol=1e-5)


def test_a_composite_alone_serves_in_its_own_direction(warp, affine, itk, tmp_path) -> None:
    forward, _ = composites(tmp_path, ("a.h5", "b.h5"), warp, affine)
    moved = apply_to_points(POINTS, forward, inverse=True)
    np.testing.assert_allclose(moved, linear(itk, POINTS + SHIFT), atol=1e-5)
    with pytest.raises(InputError, match=r"a\.h5: the file holds one direction, and the other is"):
        apply_to_points(POINTS, forward)


def test_a_file_of_another_registration_is_no_inverse(warp, affine, tmp_path) -> None:
    names = ("Composite.h5", "InverseComposite.h5")
    forward, backward = composites(tmp_path, names, warp, affine)
    write_composite([affine.inverse(), warp], backward)
    with pytest.raises(InputError, match=r"InverseComposite\.h5 beside it is not its inverse"):
        load_transform(forward)


def test_linear_composites_need_no_second_file(affine, itk, refuses, image, tmp_path) -> None:
    write_composite([affine], tmp_path / "a.h5")
    moved = apply_to_points(POINTS, tmp_path / "a.h5", inverse=True)
    np.testing.assert_allclose(moved, linear(itk, POINTS), atol=1e-9)
    back = apply_to_points(moved, tmp_path / "a.h5")
    np.testing.assert_allclose(back, POINTS, atol=1e-9)
    line = refuses("apply", image, "-t", tmp_path / "a.h5", "-o", tmp_path / "o.nii")
    assert "--reference is needed" in line


LTA = "type      = 1 # LINEAR_RAS_TO_RAS\nnxforms   = 1\n1 4 4\n1 0 0 0\n"
MATRIX = "1 0 0 2.5\n0 1 0 -1e-2\n0 0 1 .5\n0 0 0 1\n"


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.h5", b"\x89HDF\r\n\x1a\n", "not a composite transform of ITK that can be read"),
        ("a.mat", b"\x89HDF\r\n\x1a\n", "give it a name that ends in .h5"),
        ("a.lta", LTA.encode(), "lta_convert --inlta {} --outitk FILE.txt"),
        ("a.txt", LTA.encode(), "lta_convert --inlta {} "),
        ("a.xfm", b"MNI Transform File\n", "lta_convert --inmni {}"),
        ("a.mat", MATRIX.encode(), "c3d_affine_tool -ref FIXED -src MOVING {} -fsl2ras"),
        ("a.MAT", MATRIX.replace("\n", "  \r\n").encode(), "c3d_affine_tool {} -oitk"),
        ("a.txt", b'(Transform "AffineTransform")\n(TransformParameters 1 0)\n', "elastix"),
        ("a.mat", b"nothing", "expected one linear 3-D transform in a .mat, .txt or .tfm file"),
    ],
)
def test_transforms_of_other_tools_are_refused_with_how_to_convert_them(
    refuses, image, tmp_path, name: str, text: bytes, said: str
) -> None:
    path = tmp_path / name
    path.write_bytes(text)
    words = "apply", image, "-t", path, "-r", image, "-o", tmp_path / "o.nii"
    assert said.format(path) in refuses(*words)


def test_the_start_of_a_registration_is_a_file(refuses, folder, image, tmp_path) -> None:
    out = folder("0GenericAffine.mat")
    words = "register", image, image, "--initial", out, "-o", tmp_path / "o"
    assert f"such as {out / '0GenericAffine.mat'}" in refuses(*words)


# Content that git-annex or DataLad has not fetched

NOT_FETCHED = "the content of this file was not fetched"


def unfetched(path: Path) -> None:
    """Replace a file by a link as git-annex makes it."""
    path.unlink(missing_ok=True)
    path.symlink_to(".git/annex/objects/x")


@pytest.mark.parametrize("name", ["0GenericAffine.mat", "1Warp.nii.gz", "metrics.json"])
def test_folders_whose_content_was_not_fetched(refuses, saved, tmp_path, name: str) -> None:
    """They are not taken for folders without that file."""
    out = shutil.copytree(saved.out, tmp_path / "out")
    unfetched(out / name)
    line = refuses("apply", saved.moving, "-t", out, "-o", tmp_path / "o.nii.gz")
    assert f"{out / name}: {NOT_FETCHED}" in line
    words = ["view", "--no-browser"] if name == "metrics.json" else ["report", "--overwrite"]
    assert NOT_FETCHED in refuses(*words, out)


def test_a_prepared_scan_whose_record_was_not_fetched(refuses, folder, image, tmp_path) -> None:
    out = folder("0GenericAffine.mat")
    unfetched(out / "preprocess.json")
    unfetched(out / "0GenericAffine.mat")
    line = refuses("apply", image, "-t", out, "-o", tmp_path / "o.nii.gz")
    assert NOT_FETCHED in line


@pytest.mark.parametrize("option", ["", "--labels", "--mask", "--fixed", "--initial"])
def test_inputs_of_register_that_were_not_fetched(refuses, image, tmp_path, option: str) -> None:
    unfetched(tmp_path / "dead.nii.gz")
    given = [option, tmp_path / "dead.nii.gz"] if option else [tmp_path / "dead.nii.gz", image]
    line = refuses("register", *([image] if option else []), *given, "-o", tmp_path / "o")
    assert f"{tmp_path / 'dead.nii.gz'}: {NOT_FETCHED}" in line


def test_other_inputs_that_were_not_fetched(refuses, image, folder, tmp_path) -> None:
    out, dead = folder("0GenericAffine.mat"), tmp_path / "dead"
    unfetched(dead)
    target = tmp_path / "o.nii.gz"
    for words in (
        ("preprocess", dead, "-o", tmp_path / "o"),
        ("apply", dead, "-t", out, "-r", image, "-o", target),
        ("apply", image, "-t", out, "-r", dead, "-o", target),
        ("apply", image, "-t", dead, "-r", image, "-o", target),
        ("points", dead, "-t", out, "-o", tmp_path / "o.csv"),
        ("evaluate", dead, "-o", tmp_path / "o"),
        ("train", dead, "-o", tmp_path / "o"),
        ("models", "import", dead, "-o", tmp_path / "o"),
    ):
        assert NOT_FETCHED in refuses(*words), words


def test_a_model_whose_files_were_not_fetched(refuses, tiny_model, tmp_path) -> None:
    for name in ("model.json", "weights.safetensors"):
        model = shutil.copytree(tiny_model, tmp_path / name.partition(".")[0])
        unfetched(model / name)
        line = refuses("register", "a.nii", "b.nii", "--model", model, "-o", tmp_path / "o")
        assert NOT_FETCHED in line or "no such file" in line
        if name == "model.json":
            assert NOT_FETCHED in refuses("models", "show", model)


@pytest.mark.parametrize("name", ["Warped.nii.gz", "metrics.json", "report.html"])
def test_dead_links_in_the_place_of_outputs_are_left(refuses, image, tmp_path, name: str) -> None:
    (tmp_path / "o").mkdir()
    unfetched(tmp_path / "o" / name)
    line = refuses("register", image, image, "-o", tmp_path / "o")
    assert "a link to .git/annex/objects/x, which does not exist, is here already" in line
    assert (tmp_path / "o" / name).is_symlink()


def test_a_link_is_replaced_and_not_what_it_leads_to(cli, folder, image, tmp_path) -> None:
    """With --overwrite; as of git-annex, whose objects nobody may write."""
    (tmp_path / "object").write_bytes(b"precious")
    (tmp_path / "object").chmod(0o444)
    target = tmp_path / "o.nii.gz"
    target.symlink_to("object")
    words = "apply", image, "-t", folder("0GenericAffine.mat"), "-r", image, "-o", target
    assert cli(*words).code == 2
    assert target.is_symlink()
    assert cli(*words, "--overwrite").code == 0
    assert not target.is_symlink()
    assert (tmp_path / "object").read_bytes() == b"precious"


def test_rows_that_were_not_fetched_are_not_replaced(refuses, tmp_path, image) -> None:
    other = shutil.copy(image, tmp_path / "other.nii.gz")
    (tmp_path / "pairs.csv").write_text(f"moving,fixed\n{image},{other}\n")
    (tmp_path / "o").mkdir()
    for name in ("pairs.csv", "evaluate.json"):
        unfetched(tmp_path / "o" / name)
    line = refuses("evaluate", tmp_path / "pairs.csv", "-o", tmp_path / "o")
    assert NOT_FETCHED in line
    assert (tmp_path / "o" / "pairs.csv").is_symlink()
