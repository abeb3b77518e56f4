"""Temporary: names that other packages still use; goes at the end of the move."""

from .catalogue import ARCHITECTURES
from .deformation import Deformation  # noqa: F401
from .diffeomorphic import DiffeomorphicVoxelMorph  # noqa: F401
from .pair_descent import PairDescent  # noqa: F401
from .pyramid import VelocityPyramid  # noqa: F401
from .unet import UNet  # noqa: F401
from .voxelmorph import VoxelMorph  # noqa: F401

NETWORKS = {name: one.build for name, one in ARCHITECTURES.items()}
