"""What a container demands, without an engine: no network, no home, nothing to write to.

``confined.sh`` makes such surroundings; the packages are those that run this test. It can run the
image's own root file system, too: ``docs/how-to/container.md`` says what was tried.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import voxwarp
from voxwarp.fields import compiled
from voxwarp.preparation.template import mni152
from voxwarp.space.volume import write_volume

HERE = Path(__file__).parent
USER = 54321  # as in confined.sh
SYSTEM = [folder for folder in ("/usr", "/bin", "/lib", "/lib64") if os.path.exists(folder)]

pytestmark = pytest.mark.slow


def may_confine() -> str:
    """Why a command cannot be confined here; empty if it can."""
    if sys.platform != "linux":
        return "only Linux has namespaces"
    if os.geteuid() != 0:
        return "only the superuser may mount"
    words = "unshare", "--mount", "--net", "--pid", "--ipc", "--fork", "mount", "-t", "tmpfs"
    done = subprocess.run([*words, "tmpfs", "/mnt"], capture_output=True, text=True)
    return "" if done.returncode == 0 else f"mounting is not allowed here: {done.stderr.strip()}"


@pytest.fixture(scope="module", autouse=True)
def _possible() -> None:
    if reason := may_confine():
        pytest.skip(reason)


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As ``container/install.sh`` makes them."""
    folder = tmp_path_factory.mktemp("ready")
    if compiled.enabled():
        subprocess.run([sys.executable, "-m", "voxwarp.networks.ahead", folder], check=True)
    return folder


class Confined:
    """Commands of voxwarp's in a container of its own for each.

    Args:
        folder: with the folders ``out`` and ``tmp``, which can be written to.
        kernels: that are compiled already.
    """

    def __init__(self, folder: Path, kernels: Path):
        self.out, self.tmp = folder / "out", folder / "tmp"
        for path in (self.out, self.tmp):
            path.mkdir()
            path.chmod(0o777)
        self.kernels = kernels
        paths = {os.path.realpath(path) for path in (*sys.path, sys.prefix, sys.base_prefix)}
        self.packages = sorted(
            path
            for path in paths
            if os.path.isdir(path) and not path.startswith(("/usr/", "/bin/", "/lib", "/tmp"))
        )
        self.environment = {
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": str(Path(voxwarp.__file__).parents[1]),
            "PYTHONDONTWRITEBYTECODE": "1",
            "VOXWARP_READY_KERNELS": "/kernels",
        }

    def run(
        self, *words: object, inputs: Path, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run ``voxwarp WORDS``, which may read the folder ``inputs`` as /in."""
        variables = {**self.environment, **environment}
        python = os.path.join(os.path.realpath(sys.prefix), "bin", "python")
        return subprocess.run(
            [
                *("sh", HERE / "confined.sh", "-", self.out, self.tmp, *SYSTEM, *self.packages),
                *(f"{self.kernels}:/kernels", f"{inputs}:/in", "--"),
                *(python, "-m", "voxwarp", *map(str, words)),
            ],
            capture_output=True,
            text=True,
            env={
                "PATH": os.environ["PATH"],
                "CONFINED_ENV": " ".join(f"{name}={value}" for name, value in variables.items()),
            },
        )


@pytest.fixture
def confined(tmp_path: Path, kernels: Path) -> Confined:
    return Confined(tmp_path, kernels)


def contents(folder: Path) -> dict[str, int]:
    """The files in a folder, and whose they are."""
    return {
        path.relative_to(folder).as_posix(): path.stat().st_uid
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("home", [None, "/"])
def test_a_brain_is_registered(confined: Confined, tmp_path: Path, home: str | None) -> None:
    """The template to itself, so the answer is known. / is the home that docker gives."""
    inputs = tmp_path / "in"
    inputs.mkdir()
    write_volume(mni152().image, inputs / "brain.nii.gz")
    variables = {} if home is None else {"HOME": home}
    done = confined.run(
        "register", "/in/brain.nii.gz", "-o", "/out/result", inputs=inputs, **variables
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    metrics = json.loads((confined.out / "result" / "metrics.json").read_text())
    assert metrics["warnings"] == []
    warped = nib.load(confined.out / "result" / "Warped.nii.gz").get_fdata()
    template = mni152().image.data
    assert np.corrcoef(warped.ravel(), np.asarray(template).ravel())[0, 1] > 0.99
    assert set(contents(confined.out).values()) == {USER}
    assert (confined.out / "result" / "report.html").is_file()
    assert contents(confined.tmp) == {}


@pytest.mark.data
def test_a_head_is_registered_and_the_result_is_applied(
    confined: Confined, data: Path, tmp_path: Path
) -> None:
    """With brain extraction."""
    scans = data / "ds000011" / "sub-01" / "anat"
    head = "/in/sub-01_T1w.nii.gz"
    done = confined.run("register", head, "-o", "/out/result", inputs=scans)
    assert done.returncode == 0, done.stderr
    metrics = json.loads((confined.out / "result" / "metrics.json").read_text())
    assert metrics["warnings"] == []
    words = "apply", head, "-t", "/out/result", "-o", "/out/again.nii.gz"
    done = confined.run(*words, inputs=scans)
    assert done.returncode == 0, done.stderr
    again, before = (
        nib.load(confined.out / name).get_fdata()
        for name in ("again.nii.gz", "result/Warped.nii.gz")
    )
    assert np.corrcoef(again.ravel(), before.ravel())[0, 1] > 0.99
    assert contents(confined.tmp) == {}


def test_models_are_listed_and_version_is_told(confined: Confined, tmp_path: Path) -> None:
    for words in (["--version"], ["models", "list"]):
        done = confined.run(*words, inputs=tmp_path)
        assert (done.returncode, done.stderr) == (0, ""), words
        assert done.stdout
