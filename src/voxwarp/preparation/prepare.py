"""Temporary: names that other packages still use; goes at the end of the move."""

from pathlib import Path
from typing import Any

from ..space.volume import Volume
from .examination import Examination as Findings  # noqa: F401
from .examination import examine  # noqa: F401
from .intensity import from_zero, scale, scaled  # noqa: F401
from .masking import brain_mask as _brain_mask
from .scan import Prepared, Scan, prepare  # noqa: F401
from .settings import DEFAULTS  # noqa: F401
from .template import mni152


def read_scan(scan: Any, role: str, labels: Any = None, mask: Any = None) -> Any:
    """Old."""
    got = Scan.read(scan, role=role, labels=labels, mask=mask)
    return got.image, got.labels, got.mask


def template_path() -> Path:
    """Old."""
    return mni152().path


def template() -> Volume:
    """Old."""
    return mni152().image


def brain_mask(found: Any, scan: Volume, grid: Any) -> Volume:
    """Old."""
    return _brain_mask(scan, grid, found.mask)
