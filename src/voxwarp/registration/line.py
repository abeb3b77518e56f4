"""A line of scans: one is prepared, one registered and one written at the same time."""

import logging
import threading
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from .._meter import Meter
from ..preparation.scan import Prepared
from ..space.transform import Affine
from ..space.volume import ImageLike
from .register import NO_COMPANIONS, Companions, RegistrationTask, scan_of
from .result import Registration, WrittenRegistration

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class RegisteredScan:
    """What became of one of many scans.

    Args:
        moving: the scan.
        folder: of its result.
        metrics: the contents of ``metrics.json``; empty if the scan could not be registered.
        error: why not; None if it was registered.

    Example:
        >>> import voxwarp
        >>> done = voxwarp.register_many(["moving.nii.gz"], "fixed.nii.gz", out="results")
        >>> [scan.metrics["jacobian"]["folds"] for scan in done if scan.error is None]
        [0]
    """

    moving: Path
    folder: Path
    metrics: dict[str, Any] = field(default_factory=dict)
    error: Exception | None = None


@dataclass(frozen=True, eq=False)
class Moving:
    """A moving scan, what belongs to it, and the folder of its result."""

    path: Path
    folder: Path
    labels: ImageLike | None
    mask: ImageLike | None
    lesion_mask: ImageLike | None
    companion: ImageLike | None
    initial: Affine | None


@dataclass(eq=False)
class _Work:
    """A scan on its way along the line: each station adds something, or why it failed."""

    moving: Moving
    meter: Meter = field(default_factory=partial(Meter, memory=False))
    task: RegistrationTask | None = None
    prepared: list[Prepared] = field(default_factory=list)
    result: Registration | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    error: Exception | None = None

    @contextmanager
    def keeping_errors(self) -> Iterator[None]:
        """Keep an error of a ``with`` statement, and nothing else: the other scans go on."""
        try:
            yield
        except Exception as error:
            _log.info("%s cannot be registered", self.moving.path, exc_info=True)
            self.error, self.task, self.prepared, self.result = error, None, [], None
            cause: BaseException | None = error
            while cause is not None:  # the variables of its frames hold images
                traceback.clear_frames(cause.__traceback__)
                cause = cause.__cause__ or cause.__context__
        finally:
            self.meter.stop()


@dataclass(frozen=True, eq=False)
class Line:
    """A line of three stations: one scan is prepared, one registered and one written at a time.

    PyTorch, SimpleITK, the kernels and gzip release the interpreter lock, so a station uses the
    cores that the others leave idle.

    Args:
        task: makes the task of a moving scan.
        write: writes a result to a folder.
        device, cache: see ``RegistrationTask.run``.
        companions: that of the fixed scan.
    """

    task: Callable[..., RegistrationTask]
    write: Callable[[Registration, Path], WrittenRegistration]
    device: torch.device
    cache: bool
    companions: Companions = NO_COMPANIONS
    stopped: threading.Event = field(default_factory=threading.Event)

    def run(self, scans: Sequence[Moving]) -> Generator[RegisteredScan, None, None]:
        """Register scans, and give the record of each when it is written, in their order.

        When it is closed early, what is being written is finished.
        """
        with ThreadPoolExecutor(1) as preparing, ThreadPoolExecutor(1) as writing:
            try:
                upcoming = preparing.submit(self._prepare, scans[0])
                previous: Future[RegisteredScan] | None = None
                for following in (*scans[1:], None):
                    work = upcoming.result()
                    if following is not None:
                        upcoming = preparing.submit(self._prepare, following)
                    self._register(work)
                    if previous is not None:
                        yield previous.result()
                    previous = writing.submit(self._write, work)
                    del work  # or its images stay until the next scan is prepared
                assert previous is not None
                yield previous.result()
            finally:
                self.stopped.set()

    def _prepare(self, moving: Moving) -> _Work:
        """First station: read and prepare."""
        work = _Work(moving)
        with work.keeping_errors():
            work.meter.start("read")
            scan = scan_of(moving.path, "moving", moving.labels, moving.mask, moving.lesion_mask)
            companion = None
            if moving.companion is not None:
                companion = scan_of(moving.companion, "companion", None, None)
            companions = self.companions._replace(moving=companion)
            work.task = self.task(moving=scan, initial=moving.initial, companions=companions)
            if not self.stopped.is_set():
                work.meter.start("prepare")
                work.prepared = work.task.prepared(self.cache)
        return work

    def _register(self, work: _Work) -> None:
        """Second station: compute."""
        if work.task is not None:
            with work.keeping_errors():
                moving, fixed = work.prepared
                work.result = work.task.computed(moving, fixed, self.device, work.meter)
                work.prepared = []

    def _write(self, work: _Work) -> RegisteredScan:
        """Last station: compress, draw the report and write."""
        if work.result is not None:
            with work.keeping_errors():
                work.metrics = self.write(work.result, work.moving.folder).metrics
        return RegisteredScan(work.moving.path, work.moving.folder, work.metrics, work.error)
