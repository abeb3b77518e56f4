"""One scan of a cohort, from its file to its derivatives, in a worker process.

A job is a pure function of an ``Order``, whoever runs it and where. Its files are written to a
hidden folder and moved to their places when all are there, the record last.
"""

import json
import logging
import os
import platform
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._json import read_json
from .._lock import locked
from ..errors import InputError
from ..networks.installed import WEIGHTS
from .dataset import CohortScan
from .derivatives import Derivatives, record_path, write_json
from .outcome import LOGS, check_version, outcome_of
from .settings import CohortSettings

if TYPE_CHECKING:
    from ..networks.model import Model
    from ..preparation.scan import Scan
    from ..registration.result import Registration

HIDDEN = ".voxwarp"  # what is not a result, in the folder of the derivatives
# s until unfinished files of another machine count as left by a killed worker; set by hand
ABANDONED = 86400.0

_log = logging.getLogger("voxwarp")


@dataclass(frozen=True)
class Order:
    """What a worker needs to know to register a scan.

    Args:
        scan: the scan.
        source: the folder of the data set.
        out: the folder of the derivatives.
        settings: how it is registered.
        basis: what the result follows from, for its record.
        earlier: files of an earlier result, relative to the derivatives, that this one replaces.
        run: the UUID of the run.
        attempt: how often it was tried with this one, by any worker.
        work: folder for what later runs can use; None is the cache of the worker's user.
    """

    scan: CohortScan
    source: Path
    out: Path
    settings: CohortSettings
    basis: Mapping[str, Any]
    earlier: tuple[str, ...] = ()
    run: str = ""
    attempt: int = 1
    work: Path | None = None

    @property
    def key(self) -> str:
        """That of the scan."""
        return self.scan.key

    def as_json(self) -> dict[str, Any]:
        """The order as plain values, which any version of Python and of dask can send."""
        return {
            "scan": self.scan.as_json(),
            "source": str(self.source.absolute()),
            "out": str(self.out.absolute()),
            "settings": self.settings.with_absolute_paths().as_json(),
            "basis": dict(self.basis),
            "earlier": list(self.earlier),
            "run": self.run,
            "attempt": self.attempt,
            "work": None if self.work is None else str(self.work.absolute()),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Order":
        """The order from ``as_json``."""
        return cls(
            scan=CohortScan.from_json(values["scan"]),
            source=Path(values["source"]),
            out=Path(values["out"]),
            settings=CohortSettings.from_json(values["settings"]),
            basis=values["basis"],
            earlier=tuple(values["earlier"]),
            run=values["run"],
            attempt=values["attempt"],
            work=None if values["work"] is None else Path(values["work"]),
        )


def register_scan(values: Mapping[str, Any]) -> dict[str, Any]:
    """Register a scan and write its derivatives.

    Args:
        values: an ``Order``, by ``as_json``.

    Returns:
        An ``Outcome`` as plain values; errors of the program are among them, so that only the death
        of a worker is an error of the engine.

    Raises:
        RuntimeError: this is another version of voxwarp than that of the command.
    """
    order = Order.from_json(values)
    check_version(order.basis.get("version", {}).get("voxwarp"))
    if order.work is not None:
        os.environ["VOXWARP_CACHE"] = str(order.work / "cache")
    key = order.key
    return outcome_of(
        key,
        partial(_registered, order),
        order.out / LOGS / f"{key}.log",
        attempt=order.attempt,
        about=f"run {order.run}, attempt {order.attempt}, process {os.getpid()}: {order.scan.path}",
    )


def _registered(order: Order) -> tuple[dict[str, int], list[str]]:
    """Register, write and publish: the outputs with their sizes, and the warnings."""
    hidden, key = order.out / HIDDEN, order.scan.key
    with _writing_to(order.out):
        hidden.mkdir(parents=True, exist_ok=True)
    with locked(hidden / f"{key}.lock"):
        record = order.out / record_path(order.scan, order.settings.space)
        if (there := _finished(record, order)) is not None:
            _log.info("another command has finished this scan in the meantime")
            return there, []
        with _writing_to(order.out):
            stage = hidden / stage_name(key)
            stage.mkdir()
        try:
            outputs, warnings = _write(order, stage)
            with _writing_to(order.out):
                return _publish(order, stage, outputs), warnings
        finally:
            shutil.rmtree(stage, ignore_errors=True)


@contextmanager
def _writing_to(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"cannot write to {out}: {error.strerror or error}") from error


def stage_name(key: str) -> str:
    """A name for a folder of unfinished files, which says whose it is: machine and process."""
    return f"{key}.{platform.node().partition('.')[0]}.{os.getpid()}.{uuid.uuid4().hex[:8]}"


def is_abandoned(stage: Path) -> bool:
    """Whether the process of a folder of unfinished files is gone."""
    *_, host, process, _ = f"....{stage.name}".split(".")
    try:
        if host == platform.node().partition(".")[0] and process.isdigit():
            os.kill(int(process), 0)
            return False
        return time.time() - stage.stat().st_mtime > ABANDONED
    except ProcessLookupError:
        return True
    except OSError:  # it is another user's, or has been removed
        return False


def _finished(record: Path, order: Order) -> dict[str, int] | None:
    """The outputs of a result on this basis that is there already, and whole."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        about = read_json(record)["cohort"]
        outputs = {str(name): int(size) for name, size in about["outputs"].items()}
        whole = all((order.out / name).stat().st_size == size for name, size in outputs.items())
        if whole and about["basis"] == dict(order.basis):
            return {**outputs, str(record.relative_to(order.out)): record.stat().st_size}
    return None


def _write(order: Order, stage: Path) -> tuple[dict[str, int], list[str]]:
    """Register the scan, and write all files of the result to the stage, the record last.

    Returns:
        The files with their sizes, and the warnings.
    """
    from .._meter import Meter
    from ..registration.register import RegistrationTask, scan_of
    from ..runtime import Runtime

    settings, scan = order.settings, order.scan
    if scan.choice:
        _log.info("%s", scan.choice)
    runtime = Runtime(device="cpu", threads=settings.threads)
    with runtime.with_threads():
        model, fixed = _loaded(settings, order.basis)
        task = RegistrationTask(
            moving=scan_of(scan.path, "moving", None, None, scan.lesions),
            fixed=fixed,
            model=model,
            preparation=_preparation(settings),
            refinement=_refinement(settings),
            smoothness=settings.smoothness,
        )
        meter = Meter(memory=False, announce=lambda stage: _log.info("%s", stage))
        result = task.run(runtime.torch_device(), runtime.cache, meter)
        _check_unchanged(order, result.metrics)
        written = write_result(
            result,
            scan,
            space=settings.space,
            source=order.source,
            stage=stage,
            basis=order.basis,
        )
    _log.info("seconds: %s", result.metrics["seconds"])
    return written


def write_result(
    result: "Registration",
    scan: CohortScan,
    *,
    space: str,
    source: Path,
    stage: Path,
    basis: Mapping[str, Any],
) -> tuple[dict[str, int], list[str]]:
    """Write all files of a result at their paths relative to the derivatives, the record last.

    Args:
        result: the registration of the scan.
        scan: the scan.
        space: the name of the space.
        source: the folder of the data set, in which the scans lie.
        stage: in place of the folder of the derivatives.
        basis: what the result follows from.

    Returns:
        The files with their sizes, and the warnings.
    """
    result = result.with_metrics(_reproducible(result.metrics))
    derivatives = Derivatives(scan, result, space, source, stage)
    derivatives.write()
    names = sorted(name.as_posix() for name in derivatives.names)
    outputs = {name: (stage / name).stat().st_size for name in names}
    mask, brain = derivatives.masks()[1].data != 0, result.brain
    record = {
        **result.metrics,
        "quality": {"mask_overlap": _dice(mask, mask if brain is None else brain.data != 0)},
        "choice": scan.choice or None,
        "cohort": {"key": scan.key, "basis": dict(basis), "outputs": outputs},
    }
    name = record_path(scan, space).as_posix()
    write_json(record, stage / name)
    return {**outputs, name: (stage / name).stat().st_size}, list(record["warnings"])


def _reproducible(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """A record without times: the same scan gives the same bytes."""
    record = {name: value for name, value in metrics.items() if name != "seconds"}
    record["preparation"] = {
        role: {name: value for name, value in about.items() if name != "seconds"}
        for role, about in metrics["preparation"].items()
    }
    return record


def _dice(a: Any, b: Any) -> float:
    return round(2 * float((a & b).sum()) / max(1, int(a.sum() + b.sum())), 6)


def _check_unchanged(order: Order, metrics: Mapping[str, Any]) -> None:
    read, planned = (
        metrics["inputs"]["moving"]["sha256"],
        order.basis["inputs"].get(str(order.scan.name)),
    )
    if planned not in (read, "unreadable"):
        raise InputError(
            f"moving image {order.scan.path}: it has changed since this command began; run it again"
        )


def _publish(order: Order, stage: Path, outputs: dict[str, int]) -> dict[str, int]:
    """Move the files from the stage to their places; the old record goes first, the new one last.

    So a record is there only with all files that it names.
    """
    record, out = record_path(order.scan, order.settings.space).as_posix(), order.out
    (out / record).unlink(missing_ok=True)
    for name in order.earlier:
        if name not in outputs:
            (out / name).unlink(missing_ok=True)
    for name in (*(name for name in outputs if name != record), record):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        os.replace(stage / name, out / name)
    return outputs


# --------------------------------------------------------------------- What a worker keeps


def _loaded(settings: CohortSettings, basis: Mapping[str, Any]) -> "tuple[Model, Scan]":
    """The model and the fixed scan, which a worker loads and prepares once.

    Raises:
        RuntimeError: this worker sees other files than the command.
    """
    import torch

    files = json.dumps([basis.get("model"), basis.get("template")], sort_keys=True)
    model, fixed = _load(settings, torch.get_num_threads(), files)
    weights, image = (basis.get(topic, {}) for topic in ("model", "template"))
    found = {"weights": model.sha256, "template": (fixed.origins.get("image") or {}).get("sha256")}
    wanted = {"weights": weights.get(WEIGHTS), "template": image.get("image")}
    for name, hash_ in wanted.items():
        if hash_ not in (None, found[name]):
            raise RuntimeError(f"this worker sees other {name} than the command")
    return model, fixed


@lru_cache(maxsize=1)
def _load(settings: CohortSettings, threads: int, files: str) -> "tuple[Model, Scan]":
    from .._allocation import share_freed_memory
    from ..networks.model import Model
    from ..registration.register import scan_of, template_of

    share_freed_memory()
    model = Model.load(settings.model)
    if settings.fixed is None:
        return model, template_of(model, None)
    return model, scan_of(settings.fixed, "fixed", None, settings.fixed_mask)


def _preparation(settings: CohortSettings) -> Any:
    from ..preparation.settings import Preparation

    return Preparation(settings.brain_extract, settings.extractor, settings.bias)


def _refinement(settings: CohortSettings) -> Any:
    from ..networks.refine import Refinement

    return Refinement.from_value(settings.refine)
