"""Provenance of results: versions, input files with their hashes, the machine."""

import math
import os
import platform
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ._files import sha256_of

#: Packages on which results depend.
PACKAGES = "voxwarp", "torch", "numpy", "nibabel", "SimpleITK", "nilearn", "deepbet"


def versions() -> dict[str, str]:
    """Versions of Python, voxwarp and the packages on which results depend."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def version_of(name: str) -> str | None:
    """Version of a package, or None if it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def origin(source: Any) -> dict[str, str | None] | None:
    """Path and SHA-256 of an input; for an image in memory, its file name if it has one.

    Args:
        source: a path, a nibabel image, a volume, or None.
    """
    if source is None:
        return None
    if isinstance(source, (str, os.PathLike)):
        return {"path": str(Path(source).absolute()), "sha256": sha256_of(source)}
    get_filename = getattr(source, "get_filename", None)
    return {"path": get_filename() if get_filename else None, "sha256": None}


def machine() -> dict[str, Any]:
    """The processor, its number of cores, the memory and the operating system."""
    import torch

    from ._device import has_bfloat16

    name = platform.processor() or platform.machine()
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(x for x in lines if x.startswith("model name")).partition(":")[2].strip()
    memory = math.nan
    with suppress(ValueError, OSError, AttributeError):
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return {
        "processor": name,
        "cores": os.cpu_count(),
        "memory_gb": round(memory, 1),
        "system": platform.platform(),
        "bfloat16_instructions": has_bfloat16(torch.device("cpu")),
    }
