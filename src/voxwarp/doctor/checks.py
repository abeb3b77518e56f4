"""The parts of an installation, one by one: what is there, and what is wrong with it."""

import hashlib
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement

from .._folders import cache_folder, models_folder
from ..errors import InputError

LITTLE_SPACE = 2e9  # bytes; set by hand: a registration of two heads writes up to 0.2 GB
LITTLE_MEMORY = 4e9  # bytes; set by hand: a registration takes up to 2 GB


@dataclass(frozen=True)
class Finding:
    """What a check found.

    Args:
        topic: what was checked.
        facts: name and value, as they are printed and written as JSON.
        problems: what is wrong, and what to do; registrations may fail or be wrong.
        notes: what is unusual, slower than it could be, or to be known.
    """

    topic: str
    facts: Mapping[str, Any]
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def software() -> Finding:
    """Versions of Python, voxwarp and what it needs, against what it asks for."""
    facts: dict[str, Any] = {"python": platform.python_version(), "executable": sys.executable}
    problems = list[str]()
    facts["voxwarp"] = metadata.version("voxwarp")
    for text in metadata.requires("voxwarp") or []:
        try:
            needed = Requirement(text)
        except InvalidRequirement:
            continue
        if needed.marker and not needed.marker.evaluate({"extra": ""}):
            continue
        try:
            version = metadata.version(needed.name)
        except metadata.PackageNotFoundError:
            facts[needed.name] = None
            problems.append(f"{needed.name} is not installed: pip install '{needed}'")
            continue
        facts[needed.name] = version
        if not needed.specifier.contains(version, prereleases=True):
            problems.append(
                f"{needed.name} is {version}, but voxwarp needs {needed.specifier}: "
                f"pip install '{needed}'"
            )
    return Finding("software", facts, problems)


def machine() -> Finding:
    """Processor, threads, memory and GPUs."""
    import torch

    from .._device import has_bfloat16
    from .._provenance import machine as found

    about = found()
    usable = _usable_cores()
    threads = torch.get_num_threads()
    facts: dict[str, Any] = {
        "system": about["system"],
        "processor": about["processor"],
        "cores": about["cores"],
        "usable cores": usable,
        "threads of PyTorch": threads,
        "instructions": ", ".join(_instructions()) or "unknown",
        "bf16 convolutions": has_bfloat16(torch.device("cpu")),
        "memory (GB)": about["memory_gb"],
        "GPUs": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }
    notes = list[str]()
    if threads < usable:
        notes.append(
            f"PyTorch uses {threads} of {usable} cores: OMP_NUM_THREADS limits it, or a scheduler"
        )
    if not facts["GPUs"] and torch.version.cuda:
        notes.append(
            "PyTorch is built for CUDA but finds no GPU; its CPU build takes much less space"
        )
    if about["memory_gb"] * 1e9 < LITTLE_MEMORY:
        notes.append(f"{about['memory_gb']} GB of memory are little for whole heads")
    return Finding("machine", facts, notes=notes)


def _usable_cores() -> int:
    """Cores on which this process may run."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        return os.cpu_count() or 1


def _instructions() -> list[str]:
    """The instructions for vectors that matter for speed, as Linux names them."""
    try:
        flags = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    except OSError:
        return []
    wanted = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "sve", "bf16")
    return [name for name in wanted if name in flags]


def kernels() -> Finding:
    """The compiled kernels: whether they are used, and where their code is kept."""
    from ..fields import compiled

    facts: dict[str, Any] = {"used": compiled.enabled()}
    if not facts["used"]:
        return Finding(
            "kernels",
            facts,
            notes=["compiled kernels are off: registrations take several times as long"],
        )
    from ..fields.kernels import jit

    kept = jit.folder()
    facts |= {"folder": kept and str(kept), "compiled": not compiled.not_compiled_yet()}
    notes = list[str]()
    if not jit.keeps_code():
        notes.append(
            "there is no folder for compiled code, so that every command compiles it anew, half a "
            "minute each time: set NUMBA_CACHE_DIR to a folder that you can write to"
        )
    return Finding("kernels", facts, notes=notes)


def folders() -> Finding:
    """Cache, models of the user, temporary files: whether they can be used."""
    from ..preparation.cache import limit

    facts: dict[str, Any] = {}
    problems, notes = list[str](), list[str]()
    usual: dict[str, tuple[Callable[[], Path], str]] = {
        "cache": (cache_folder, "VOXWARP_CACHE"),
        "models": (models_folder, "VOXWARP_MODELS"),
    }
    for name, (find, variable) in usual.items():
        try:
            facts[name] = str(find())
        except InputError as error:
            facts[name] = None
            (problems if os.environ.get(variable) else notes).append(str(error))
    try:
        limit()
    except InputError as error:
        problems.append(str(error))
    try:
        facts["temporary files"] = tempfile.gettempdir()
        free = shutil.disk_usage(facts["temporary files"]).free
        facts["free there (GB)"] = round(free / 1e9, 1)
        if free < LITTLE_SPACE:
            notes.append(
                f"{facts['temporary files']} has {free / 1e9:.1f} GB free: set TMPDIR to a folder "
                f"with more"
            )
    except OSError as error:
        facts["temporary files"] = None
        problems.append(f"there is no folder for temporary files ({error}): set TMPDIR to one")
    return Finding("folders", facts, problems, notes)


def environment() -> Finding:
    """Environment variables that change what voxwarp does."""
    names = ("CUDA_VISIBLE_DEVICES", "NUMBA_CACHE_DIR", "OMP_NUM_THREADS", "TMPDIR")
    chosen = {
        name: value
        for name, value in sorted(os.environ.items())
        if name in names or (name.startswith("VOXWARP_") and not name.endswith("_COMPLETE"))
    }
    return Finding("environment", chosen)


def models() -> Finding:
    """The installed models, and whether their files are what they were."""
    from ..networks.installed import installed, shipped
    from ..networks.model import Model

    facts: dict[str, Any] = {}
    problems, notes = list[str](), list[str]()
    for name, folder in installed().items():
        try:
            loaded = Model.load(name)
        except InputError as error:
            facts[name] = None
            problems.append(str(error))
            continue
        facts[name] = loaded.sha256
        if folder not in shipped().values():
            notes.append(f"model {name} is your own, in {folder}")
    if "default" not in facts:
        problems.append("model default is missing: install voxwarp again")
    return Finding("models", facts, problems, notes)


def template() -> Finding:
    """The template of MNI152 that nilearn brings, and deepbet's network."""
    from ..preparation.brain import deepbet_loads
    from ..preparation.template import mni152

    facts: dict[str, Any] = {}
    problems = list[str]()
    try:
        source = mni152()
        facts["MNI152"] = str(source.path)
        facts["SHA-256"] = hashlib.sha256(source.path.read_bytes()).hexdigest()
        _ = source.image
    except (InputError, ModuleNotFoundError, OSError) as error:
        problems.append(f"the MNI152 template cannot be read ({error}): install nilearn again")
    try:
        deepbet_loads()
        facts["deepbet's network"] = "loads"
    except Exception as error:  # whatever its own code raises
        facts["deepbet's network"] = None
        problems.append(
            f"deepbet, which extracts brains, cannot be loaded ({' '.join(str(error).split())}): "
            f"install deepbet again"
        )
    return Finding("template and brain extraction", facts, problems)


#: All checks, in the order in which they are printed.
CHECKS = (software, machine, kernels, folders, environment, models, template)
