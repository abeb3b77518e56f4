"""A training loads what it uses, and nothing of what a user looks at afterwards."""

import subprocess
import sys

NOT_OURS = "jinja2", "matplotlib", "nilearn"
BELOW = "pictures", "registration", "review", "evaluation", "benchmark", "cli"


def test_a_training_loads_no_pictures_and_no_registration() -> None:
    code = "import voxwarp.training.train, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "voxwarp.training.train" in loaded
    unwanted = (*NOT_OURS, *(f"voxwarp.{package}" for package in BELOW))
    assert not [name for name in loaded if name.startswith(unwanted)]


def test_what_is_listed_is_listed_without_images_and_networks() -> None:
    """Tables, pairs and configurations of scans: no voxel is looked at for them."""
    code = "import voxwarp.data.pairs, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "voxwarp.data.pairs" in loaded
    assert not loaded & {"torch", "nibabel", "scipy", "voxwarp.networks", "voxwarp.training"}
