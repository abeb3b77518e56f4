"""The script that scored pairs before ``voxwarp evaluate`` did: an oracle."""

import importlib.util
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]
OF_REGIONS = "4-41,44-45,47-62,65-68,70-73,75-207"


def evaluate_pairs() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "evaluate_pairs", ROOT / "benchmarks" / "evaluate_pairs.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
