"""One scan of a cohort, from its file to its derivatives, in a worker process.

A job is a pure function of an ``Order``, whoever runs it and where. Its files are written to a
hidden folder and moved to their places when all are there, the record last.
"""

import errno
import json
import logging
import os
import platform
import resource
import shutil
import sys
import time
import traceback
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._json import read_json
from .._lock import locked
from .._provenance import version_of
from ..errors import InputError, NotEnoughMemoryError, NotEnoughSpaceError
from ..networks.installed import WEIGHTS
from .bids_names import BidsName
from .dataset import CohortScan
from .derivatives import Derivatives, record_path, write_json
from .settings import CohortSettings

if TYPE_CHECKING:
    from ..networks.model import Model
    from ..preparation.scan import Scan

HIDDEN = ".voxwarp"  # what is not a result, in the folder of the derivatives
LOGS = "logs"
# s until unfinished files of another machine count as left by a killed worker; set by hand
ABANDONED = 86400.0

_FULL = errno.ENOSPC, errno.EDQUOT
_PASSING = (
    *(errno.EIO, errno.ESTALE, errno.EAGAIN, errno.ETIMEDOUT, errno.ENOTCONN, errno.EBUSY),
    *(errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH, errno.ECONNRESET),
)
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

    def as_json(self) -> dict[str, Any]:
        """The order as plain values, which any version of Python and of dask can send."""
        scan = self.scan
        return {
            "scan": {
                "key": scan.key,
                "name": asdict(scan.name),
                "path": str(scan.path.absolute()),
                "folder": str(scan.folder),
                "also": [[asdict(name), str(path.absolute())] for name, path in scan.also],
                "lesions": [str(path.absolute()) for path in scan.lesions],
                "choice": scan.choice,
            },
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
        scan = values["scan"]
        return cls(
            scan=CohortScan(
                key=scan["key"],
                name=BidsName(**scan["name"]),
                path=Path(scan["path"]),
                folder=Path(scan["folder"]),
                also=tuple((BidsName(**name), Path(path)) for name, path in scan["also"]),
                lesions=tuple(map(Path, scan["lesions"])),
                choice=scan["choice"],
            ),
            source=Path(values["source"]),
            out=Path(values["out"]),
            settings=CohortSettings.from_json(values["settings"]),
            basis=values["basis"],
            earlier=tuple(values["earlier"]),
            run=values["run"],
            attempt=values["attempt"],
            work=None if values["work"] is None else Path(values["work"]),
        )


@dataclass(frozen=True)
class Outcome:
    """What became of a job.

    Args:
        key: of the scan.
        state: "done" or "failed".
        outputs: the files of the result, relative to the derivatives, and their sizes in bytes.
        error: why it failed, a sentence.
        trace: the traceback, if the error is in voxwarp itself.
        is_full: it failed because the disk or a quota is full, as all others would.
        is_final: another attempt would fail for the same reason.
        warnings: about the scan and its result.
        seconds, peak_mb: that it took, and the largest memory of the worker so far.
    """

    key: str
    state: str
    outputs: Mapping[str, int]
    error: str = ""
    trace: str = ""
    is_full: bool = False
    is_final: bool = True
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0
    peak_mb: float = 0.0


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
    order, started = Order.from_json(values), time.monotonic()
    _check_version(order)
    if order.work is not None:
        os.environ["VOXWARP_CACHE"] = str(order.work / "cache")
    with _log_file(order):
        outcome = _outcome(order)
    seconds = round(time.monotonic() - started, 3)
    return {**outcome, "seconds": seconds, "peak_mb": round(_peak_memory() / 1e6, 1)}


def _check_version(order: Order) -> None:
    wanted, own = order.basis.get("version", {}).get("voxwarp"), version_of("voxwarp")
    if wanted not in (None, own):
        raise RuntimeError(f"this worker has voxwarp {own}, not {wanted}")


def _outcome(order: Order) -> dict[str, Any]:
    key = order.scan.key
    try:
        outputs, warnings = _registered(order)
        return asdict(Outcome(key, "done", outputs, warnings=tuple(warnings)))
    except InputError as error:
        _log.error("%s", error)
        full, passing = _is_full(error), _is_passing(error)
        return asdict(
            Outcome(key, "failed", {}, str(error), is_full=full, is_final=full or not passing)
        )
    except MemoryError:
        _log.exception("there is not enough memory")
        text = (
            "there was not enough memory for this scan; give each worker more (`mem_gb` with fewer "
            "`nprocs`), or resample the scan to larger voxels"
        )
        return asdict(Outcome(key, "failed", {}, text, traceback.format_exc(), is_final=False))
    except Exception as error:
        _log.exception("a bug, or a fault of the machine")
        text, trace = f"{type(error).__name__}: {error}", traceback.format_exc()
        full = _is_full(error)
        return asdict(Outcome(key, "failed", {}, text, trace, is_full=full, is_final=full))


def _is_full(error: BaseException) -> bool:
    """Whether a full disk or quota is behind an error."""
    return any(
        isinstance(one, NotEnoughSpaceError) or getattr(one, "errno", None) in _FULL
        for one in _causes(error)
    )


def _is_passing(error: BaseException) -> bool:
    """Whether a fault is behind an error that may be gone later: memory, or the network."""
    return any(
        isinstance(one, NotEnoughMemoryError) or getattr(one, "errno", None) in _PASSING
        for one in _causes(error)
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


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
        derivatives = Derivatives(
            scan,
            result.with_metrics(_reproducible(result.metrics)),
            settings.space,
            order.source,
            stage,
        )
        derivatives.write()
        names = sorted(name.as_posix() for name in derivatives.names)
        outputs = {name: (stage / name).stat().st_size for name in names}
        mask = derivatives.masks()[1].data != 0
        brain = result.brain
        record = {
            **derivatives.result.metrics,
            "quality": {"mask_overlap": _dice(mask, mask if brain is None else brain.data != 0)},
            "choice": scan.choice or None,
            "cohort": {
                "key": scan.key,
                "basis": dict(order.basis),
                "outputs": outputs,
            },
        }
    name = record_path(scan, settings.space).as_posix()
    write_json(record, stage / name)
    _log.info("seconds: %s", result.metrics["seconds"])
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


def _peak_memory() -> int:
    """The largest memory of this process so far, bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


@contextmanager
def _log_file(order: Order) -> Iterator[None]:
    """Write what the library logs to the log of the scan."""
    path = order.out / LOGS / f"{order.scan.key}.log"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(path, "w" if order.attempt == 1 else "a", encoding="utf-8")
    except OSError:  # the result will say why
        yield
        return
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    level = _log.level
    _log.setLevel(logging.INFO)
    _log.addHandler(handler)
    try:
        _log.info(
            "run %s, attempt %d, process %d: %s",
            order.run,
            order.attempt,
            os.getpid(),
            order.scan.path,
        )
        yield
    finally:
        _log.removeHandler(handler)
        with suppress(OSError):
            handler.close()
        _log.setLevel(level)
