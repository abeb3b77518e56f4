"""The command line around the verbs: help, version, imports, exit codes, models."""

import json
import os
import re
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
import torch.nn.functional as F

import voxwarp
from voxwarp.cli.main import main as command_line
from voxwarp.networks.keras import import_keras
from voxwarp.networks.model import Model
from voxwarp.networks.refine import STEPS, Refinement
from voxwarp.registration.registration import _refinement

COMMANDS = [
    *([], ["register"], ["preprocess"], ["apply"], ["points"], ["cache"], ["models"]),
    *(["cache", name] for name in ("show", "clear")),
    *(["models", name] for name in ("list", "show", "import")),
]
HEAVY = ("torch", "scipy", "nibabel", "SimpleITK", "nilearn", "deepbet", "h5py", "pandas")


def python(code: str, **more: str) -> subprocess.CompletedProcess:
    """Run code in an interpreter of its own."""
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **more}
    )


# Imports


def test_import_is_light():
    done = python(
        f"import voxwarp, sys; assert not set({HEAVY}) & set(sys.modules), sys.modules.keys();"
        "print(voxwarp.__version__)"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == version("voxwarp")


def test_help_is_light_and_quick():
    """Tenths of a second; the bound leaves room for a busy machine."""
    code = (
        "import sys; sys.argv = ['voxwarp', '--help']\n"
        "from voxwarp.cli.main import main\n"
        "try: main()\n"
        "except SystemExit as stop: assert not stop.code\n"
        f"heavy = set({HEAVY}) & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    started = time.perf_counter()
    done = python(code)
    seconds = time.perf_counter() - started
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "register" in done.stdout
    assert seconds < 5


def test_public_names_are_there():
    for name in voxwarp.__all__:
        assert getattr(voxwarp, name) is not None
    assert set(voxwarp.__all__) <= set(dir(voxwarp))
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = voxwarp.no_such_name


# Words of the command line


def plain(text: str) -> str:
    """Without colours and frames."""
    return re.sub(r"\x1b\[[0-9;]*m|[│╭╮╰╯─]", " ", text)


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: " ".join(words) or "voxwarp")
def test_help(cli, words: list[str]):
    outcome = cli(*words, "--help")
    assert outcome.code == 0
    assert outcome.err == ""
    assert "Usage: " in outcome.out


def test_help_names_the_contract(cli):
    """Names that users and scripts rely on."""
    promised = {
        "register": "MOVING FIXED -o --model --labels --fixed-labels --affine --no-affine --device "
        "--seed --overwrite --mask --fixed-mask --brain-extract auto yes no --extractor --bias "
        "--no-bias --cache --no-cache --strict --refine --refine-seconds --smoothness",
        "preprocess": "SCAN -o --labels --mask --conform --no-conform --bias --no-bias "
        "--brain-extract --extractor --affine --no-affine --crop --no-crop --normalise "
        "--no-normalise --cache --no-cache --strict --overwrite",
        "apply": "IMAGE --transform -t --reference -r -o --inverse --interpolation linear nearest "
        "cubic --overwrite",
        "points": "FILE.csv --transform -t -o --inverse --lps --overwrite",
    }
    for command, names in promised.items():
        text = plain(cli(command, "--help").out)
        assert [name for name in names.split() if name not in text] == []
    text = plain(cli("--help").out)
    verbs = "register", "preprocess", "apply", "points", "cache", "models"
    assert all(name in text for name in (*verbs, "--version"))


def test_version(cli):
    outcome = cli("--version")
    assert (outcome.code, outcome.out, outcome.err) == (0, f"voxwarp {version('voxwarp')}\n", "")


@pytest.mark.parametrize("words", [[], ["models"]], ids=["voxwarp", "models"])
def test_no_words_give_the_help(cli, words: list[str]):
    outcome = cli(*words)
    assert outcome.code in (0, 2)
    assert "Usage: " in outcome.out + outcome.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["regsiter"], "regsiter"),
        (["--no-such-option"], "--no-such-option"),
        (["models", "delete"], "delete"),
        (["cache", "fill"], "fill"),
        (["preprocess"], "SCAN"),
        (["preprocess", "a.nii"], "--out"),
        (["preprocess", "a.nii", "-o", "out", "--fixed-mask", "b.nii"], "--fixed-mask"),
        (["preprocess", "a.nii", "-o", "out", "--brain-extract", "maybe"], "maybe"),
        (["models", "show"], "MODEL"),
        (["models", "import"], "FILE.h5"),
        (["apply"], "IMAGE"),
        (["apply", "a.nii", "-o", "b.nii"], "--transform"),
        (["apply", "a.nii", "-t", "out"], "--out"),
        (["points", "-t", "out", "-o", "b.csv"], "FILE.csv"),
    ],
)
def test_wrong_words(refuses, monkeypatch, tmp_path, words: list[str], said: str):
    monkeypatch.chdir(tmp_path)
    assert said in refuses(*words)


REQUEST = ["register", "m.nii", "f.nii", "-o", "out"]


@pytest.mark.parametrize(
    ("words", "steps"),
    [
        ([*REQUEST], 0),
        ([*REQUEST, "--refine"], STEPS),
        ([*REQUEST, "--refine", "5"], 5),
        ([*REQUEST, "--refine=5"], 5),
        ([*REQUEST, "--refine", "0"], 0),
        ([*REQUEST, "--no-refine"], 0),
        (["register", "m.nii", "--refine", "f.nii", "-o", "out"], STEPS),
        (["register", "--refine", "12", "m.nii", "f.nii", "-o", "out"], 12),
        ([*REQUEST, "--refine", "--strict"], STEPS),
        ([*REQUEST, "--refine", "--no-refine"], 0),  # the last one counts, as of all options
        ([*REQUEST, "--no-refine", "--refine", "3"], 3),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, list) else None,
)
def test_refine_has_a_number_or_none(cli, monkeypatch, tmp_path, words: list[str], steps: int):
    asked = registered_with(cli, monkeypatch, tmp_path, words)
    assert asked["scans"] == ("m.nii", "f.nii")
    assert int(asked["refine"]) == steps
    assert asked["refine_seconds"] is asked["smoothness"] is None


def test_refine_seconds_alone_ask_for_refinement(cli, monkeypatch, tmp_path):
    """As in Python: there, too, the number of steps is the usual one then."""
    asked = registered_with(cli, monkeypatch, tmp_path, [*REQUEST, "--refine-seconds", "2.5"])
    assert _refinement(asked["refine"], asked["refine_seconds"]) == Refinement(STEPS, 2.5)


def test_smoothness_is_passed_on(cli, monkeypatch, tmp_path):
    asked = registered_with(
        cli, monkeypatch, tmp_path, [*REQUEST, "--refine", "--smoothness", "1.5"]
    )
    assert (asked["refine"], asked["smoothness"]) == (STEPS, 1.5)


def registered_with(cli, monkeypatch, tmp_path, words: list[str]) -> dict[str, object]:
    """The arguments that a command line makes of ``register``, which does nothing here."""
    asked: dict[str, object] = {}

    def noted(moving: Path, fixed: Path | None, _model: str, **options: object) -> None:
        asked.update(options, scans=(str(moving), str(fixed)))
        raise voxwarp.InputError("enough")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("voxwarp.registration.registration.register", noted)
    assert cli(*words).err == "voxwarp: error: enough\n"
    return asked


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--refine", "x"], "x"),
        (["--refine=x"], "--refine"),
        (["--refine="], "--refine"),
        (["--refine=-1"], "--refine"),
        (["--refine", "1001"], "--refine"),
        (["--refine", "2.5"], "2.5"),
        (["--no-refine=3"], "--no-refine"),
        (["--refine-seconds", "soon"], "--refine-seconds"),
        (["--refine-seconds", "0"], "refine_seconds 0"),
        (["--refine", "--refine-seconds", "nan"], "refine_seconds nan"),
        (["--smoothness"], "--smoothness"),
        (["--smoothness", "very"], "--smoothness"),
        (["--refine", "--smoothness", "9"], "smoothness 9"),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, list) else None,
)
def test_wrong_words_of_refinement(refuses, monkeypatch, tmp_path, words: list[str], said: str):
    monkeypatch.chdir(tmp_path)
    assert said in refuses(*REQUEST, *words)


def test_bug_is_exit_code_1_with_a_traceback(tmp_path):
    """Not a request's fault: the traceback is wanted then."""
    done = python(
        "import sys, voxwarp.registration.apply\n"
        "def broken(*_): raise ZeroDivisionError('a bug')\n"
        "voxwarp.registration.apply.load_transform = broken\n"
        f"sys.argv = ['voxwarp', 'apply', 'a.nii', '-t', 'b', '-o', {str(tmp_path / 'c.nii')!r}]\n"
        "from voxwarp.cli.main import main; main()"
    )
    assert done.returncode == 1
    assert "ZeroDivisionError: a bug" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_interruption_shows_no_traceback(cli, monkeypatch, tmp_path):
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("voxwarp.registration.apply.load_transform", interrupt)
    outcome = cli("apply", tmp_path / "a.nii", "-t", tmp_path, "-o", tmp_path / "b.nii")
    assert outcome.code == 130
    assert len(outcome.err.splitlines()) <= 1


def test_message_of_several_lines_is_put_on_one(cli, monkeypatch, tmp_path):
    def refuse(*_: object, **__: object) -> None:
        raise voxwarp.InputError("one\ntwo\n   three")

    monkeypatch.setattr("voxwarp.registration.apply.load_transform", refuse)
    outcome = cli("apply", tmp_path / "a.nii", "-t", tmp_path, "-o", tmp_path / "b.nii")
    assert (outcome.code, outcome.err) == (2, "voxwarp: error: one two three\n")


def test_installed_script(tmp_path):
    """The console script, from a folder that is not the repository."""
    script = Path(sys.executable).parent / "voxwarp"
    if not script.exists():
        pytest.skip("the console script is not installed beside this Python")
    done = subprocess.run(
        [script, "register", "gone.nii"], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "-o" in done.stderr


# The cache


def test_cache_is_shown_and_cleared_but_for_what_is_not_its_own(cli, monkeypatch, tmp_path):
    folder = tmp_path / "cache"
    monkeypatch.setenv("VOXWARP_CACHE", str(folder))
    monkeypatch.setenv("VOXWARP_CACHE_SIZE", "250")
    assert cli("cache").out.splitlines() == [str(folder), "0 scans, 0.0 MB of at most 250 MB"]
    folder.mkdir()
    for name in "ab":
        (folder / f"{name}.findings.npz").write_bytes(bytes(1_500_000))
    (folder / "sub-22_T1w.nii.gz").write_bytes(b"of the demo")
    shown = cli("cache", "show")
    assert (shown.code, shown.out) == (0, f"{folder}\n2 scans, 3.0 MB of at most 250 MB\n")
    assert cli("cache").out == shown.out
    assert "2 scans removed" in cli("cache", "clear").out
    assert [path.name for path in folder.iterdir()] == ["sub-22_T1w.nii.gz"]


def test_cache_size_that_is_no_number(refuses, monkeypatch):
    monkeypatch.setenv("VOXWARP_CACHE_SIZE", "plenty")
    assert "'plenty'" in refuses("cache")


# Models


@pytest.fixture
def shelf(monkeypatch, tmp_path) -> Path:
    """An empty folder for the user's models."""
    folder = tmp_path / "shelf"
    monkeypatch.setenv("VOXWARP_MODELS", str(folder))
    return folder


def listed(cli) -> dict[str, str]:
    outcome = cli("models", "list")
    assert outcome.code == 0
    return dict(line.split("\t") for line in outcome.out.splitlines())


def copy_of(model: Path, folder: Path) -> Path:
    Model.load(model).save(folder)
    return folder


def test_models_list_and_show(cli, shelf, tiny_model):
    before = listed(cli)
    folder = copy_of(tiny_model, shelf / "mine")
    (shelf / "not-a-model").mkdir()
    assert listed(cli) == {**before, "mine": str(folder)}
    for name in ("mine", folder):
        outcome = cli("models", "show", name)
        assert outcome.code == 0
        shown = json.loads(outcome.out)
        assert shown["architecture"]["name"] == "pyramid"
        assert shown["preparation"]["shape"] == [40, 48, 56]
        assert shown["card"]["licence"] == "none: random weights"


def test_model_of_the_user_is_used_by_name(cli, shelf, tiny_model, phantoms, make_grid, tmp_path):
    copy_of(tiny_model, shelf / "mine")
    scan = tmp_path / "scan.nii.gz"
    nib.save(phantoms.image(make_grid(spacing=6)), scan)
    words = "register", scan, scan, "--no-affine", "--model", "mine", "-o", tmp_path / "out"
    assert cli(*words).code == 0
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["model"]["name"] == "mine"


def test_unknown_model_is_told_what_there_is(refuses, shelf, tiny_model):
    copy_of(tiny_model, shelf / "mine")
    line = refuses("models", "show", "yours")
    assert "'yours'" in line
    assert "mine" in line


# The weights of the paper's authors


@pytest.fixture(params=["vm1_cc", "vm2_cc"])
def weights(request: pytest.FixtureRequest, data: Path) -> Path:
    pytest.importorskip("h5py")
    path = data.parent / "peers" / "voxelmorph-cvpr2018" / f"{request.param}.h5"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    return path


def keras_layers(path: Path) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Kernels as PyTorch has them and biases, in the order the file itself names the layers."""
    import h5py

    with h5py.File(path) as file:
        group = file.get("model_weights", file)
        layers = {}
        for name in (n.decode() if isinstance(n, bytes) else n for n in group.attrs["layer_names"]):
            found: dict[str, np.ndarray] = {}
            group[name].visititems(
                lambda key, item, found=found: (
                    found.update({key.rpartition("/")[2]: np.asarray(item)})
                    if isinstance(item, h5py.Dataset)
                    else None
                )
            )
            if found:
                kernel = torch.from_numpy(found["kernel:0"]).permute(4, 3, 0, 1, 2).contiguous()
                layers[name] = kernel, torch.from_numpy(found["bias:0"])
    return layers


def keras_voxelmorph(path: Path, moving: torch.Tensor, fixed: torch.Tensor) -> torch.Tensor:
    """VoxelMorph of CVPR 2018 as its README describes it, layer by layer: flow in 'xy' order."""
    layers = keras_layers(path)
    *names, flow = layers
    assert flow == "flow"
    rest = iter(names)

    def block(x: torch.Tensor, *, stride: int = 1) -> torch.Tensor:
        # 'same' in Keras: with stride 2 and even sides one zero, behind; with stride 1 both sides.
        x = F.pad(x, (0, 1) * 3 if stride == 2 else (1, 1) * 3)
        kernel, bias = layers[next(rest)]
        return F.leaky_relu(F.conv3d(x, kernel, bias, stride=stride), 0.2)

    def up(x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        for axis in (2, 3, 4):
            x = x.repeat_interleave(2, dim=axis)
        return torch.cat([x, skip], dim=1)

    pair = torch.cat([moving, fixed], dim=1)
    half = block(pair, stride=2)
    quarter = block(half, stride=2)
    eighth = block(quarter, stride=2)
    x = block(block(eighth, stride=2))
    x = block(up(x, eighth))
    x = block(up(x, quarter))
    x = block(block(up(x, half)))
    x = block(up(x, pair))
    for _ in range(len(names) - 10):
        x = block(x)
    assert next(rest, None) is None
    kernel, bias = layers[flow]
    return F.conv3d(x, kernel, bias, padding=1)


@pytest.mark.data
def test_imported_weights_compute_what_the_authors_network_does(weights: Path):
    generator = torch.Generator().manual_seed(5)
    moving, fixed = torch.rand((2, 1, 1, 32, 48, 16), generator=generator)
    model = import_keras(weights)
    with torch.no_grad():
        expected = keras_voxelmorph(weights, moving, fixed)
        ours = model.network(moving, fixed).displacement
    # Component 0 of the file's flow moves along the second axis, 1 along the first.
    expected = expected[:, [1, 0, 2]]
    assert expected.abs().max() > 0.1
    assert not torch.allclose(expected[:, 0], expected[:, 1], atol=0.05)
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.data
def test_models_import(cli, refuses, shelf, weights: Path):
    name = weights.stem
    outcome = cli("models", "import", weights)
    assert outcome.code == 0, outcome.err
    folder = shelf / name
    assert outcome.out == f"{name}\t{folder}\n"
    assert listed(cli)[name] == str(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["model.json", "weights.safetensors"]

    model = Model.load(name)
    layers = keras_layers(weights)
    ours = [p for n, p in model.network.named_parameters() if n.endswith("weight")]
    assert sorted(tuple(p.shape) for p in ours) == sorted(
        tuple(k.shape) for k, _ in layers.values()
    )
    assert sum(p.numel() for p in model.network.parameters()) == sum(
        k.numel() + b.numel() for k, b in layers.values()
    )
    assert model.recipe.grid.shape == (160, 192, 224)
    assert model.recipe.grid.axes == "LIA"

    assert "--overwrite" in refuses("models", "import", weights)
    assert cli("models", "import", weights, "--overwrite").code == 0
    assert cli("models", "import", weights, "-o", shelf / "other").code == 0
    assert set(listed(cli)) >= {name, "other"}


@pytest.mark.parametrize(
    "kind", ["missing", "folder", "no HDF5", "empty HDF5", "other layers", "one layer changed"]
)
def test_models_import_refuses_other_files(refuses, shelf, tmp_path, kind: str):
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "weights.h5"
    if kind == "folder":
        path.mkdir()
    elif kind == "no HDF5":
        path.write_bytes(b"no HDF5" * 100)
    elif kind != "missing":
        shapes = {"other layers": [(3, 3, 3, 2, 4), (3, 3, 3, 4, 3)], "empty HDF5": []}.get(
            kind, [(3, 3, 3, 2, 16), *[(3, 3, 3, 7, 5)] * 9, (3, 3, 3, 8, 3)]
        )
        with h5py.File(path, "w") as file:
            for number, shape in enumerate(shapes, 1):
                name = "flow" if number == len(shapes) else f"conv3d_{number}"
                file[f"{name}/{name}/kernel:0"] = np.zeros(shape, np.float32)
                file[f"{name}/{name}/bias:0"] = np.zeros(shape[-1], np.float32)
    assert str(path) in refuses("models", "import", path)


def test_main_is_the_entry_point():
    """``pyproject.toml`` names it."""
    assert callable(command_line.main)
