"""Code that was compiled for a class of processors, and whether this one is of that class.

Numba compiles for the processor at hand, and keeps the code under the processor's name. Code in a
container has to run elsewhere, too: it is compiled for the class ``x86-64-v3`` (Intel since
Haswell, AMD since Excavator) or for all processors of 64-bit Arm.
"""

import json
import os
import platform
from pathlib import Path
from typing import Any

NAME = "processor.json"  # beside the compiled code

#: For each machine, what LLVM calls the class, and the features that its processors have.
CLASSES: dict[str, tuple[str, tuple[str, ...]]] = {
    "x86_64": (
        "x86-64-v3",
        (
            *("avx", "avx2", "bmi", "bmi2", "cx16", "f16c", "fma", "lzcnt", "movbe", "popcnt"),
            *("sse4.1", "sse4.2", "ssse3", "xsave"),
        ),
    ),
    "aarch64": ("generic", ()),
    "arm64": ("generic", ()),
}


def described() -> dict[str, Any]:
    """The class of this machine's processors, for ``write``.

    Raises:
        KeyError: there is none for machines of this kind.
    """
    name, features = CLASSES[platform.machine()]
    return {"machine": platform.machine(), "name": name, "features": list(features)}


def write(folder: Path) -> None:
    """Say in a folder of compiled code which class of processors it is for."""
    (folder / NAME).write_text(json.dumps(described(), indent=2) + "\n", encoding="utf-8")


def environment() -> dict[str, str]:
    """Variables with which Numba compiles for the class."""
    return {"NUMBA_CPU_NAME": described()["name"], "NUMBA_CPU_FEATURES": ""}


def use(folder: Path) -> bool:
    """Let Numba look for the code in a folder, if it runs on this processor.

    Whatever has to be compiled by this process is then for the same class. A name of a processor in
    the environment ($NUMBA_CPU_NAME) remains.

    Returns:
        Whether it runs here. Code in a folder that does not say what it is for is for the processor
        that it was compiled on; Numba compares.
    """
    if not (folder / NAME).is_file():
        return True
    try:
        about = json.loads((folder / NAME).read_text(encoding="utf-8"))
        runs = about["machine"] == platform.machine() and set(about["features"]) <= _features()
        name = str(about["name"])
    except (OSError, ValueError, LookupError, TypeError, RuntimeError):
        return False
    if runs and not os.environ.get("NUMBA_CPU_NAME"):
        import numba

        config: Any = numba.config
        config.CPU_NAME, config.CPU_FEATURES = name, ""
    return runs


def _features() -> set[str]:
    """What this processor can do, in LLVM's names."""
    from llvmlite import binding

    return {name for name, has in binding.get_host_cpu_features().items() if has}
