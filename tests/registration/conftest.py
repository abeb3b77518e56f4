"""Two scans of different grids, registered and saved: most tests of this package look at these."""

import types

import nibabel as nib
import numpy as np
import pytest

from voxwarp.registration.result import Registration


@pytest.fixture(scope="session")
def scans(phantoms, poses, unlike_grids, tmp_path_factory) -> types.SimpleNamespace:
    """Paths of two scans of different grids, as int16 and as floats, and of their labels."""
    folder = tmp_path_factory.mktemp("scans")
    paths = types.SimpleNamespace(folder=folder)
    for role, grid in unlike_grids.items():
        pose = getattr(poses, role)
        for name, image in (
            (role, phantoms.image(grid, pose, np.int16)),
            (f"{role}_float", phantoms.image(grid, pose)),
            (f"{role}_labels", phantoms.labels(grid, pose)),
        ):
            path = folder / f"{name}.nii.gz"
            nib.save(image, path)
            setattr(paths, name, path)
    return paths


@pytest.fixture(scope="session")
def result(scans, register_quickly) -> Registration:
    """The two scans, registered with both label maps."""
    return register_quickly(
        scans.moving, scans.fixed, labels=scans.moving_labels, fixed_labels=scans.fixed_labels
    )


@pytest.fixture(scope="session")
def saved(scans, result, tmp_path_factory) -> types.SimpleNamespace:
    """The registration on disk, in ``out``, with the files it was made of."""
    out = tmp_path_factory.mktemp("saved") / "out"
    result.save(out)
    return types.SimpleNamespace(**vars(scans), out=out, result=result)
