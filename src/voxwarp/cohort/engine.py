"""Jobs on a cluster of dask: an embedded one, one at an address, or one that a file describes.

What dask leaves to its users is done here. A job that raises an error is over; a job whose worker
died is not, because most workers die of something else: of their walltime, or of a neighbour that
took all memory. It is tried again, and after a second death alone, when nothing else of ours runs:
a worker that dies twice then is the scan's own fault.
"""

import importlib
import importlib.util
import logging
import os
import queue
import time
import uuid
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from .._files import check_readable
from ..errors import InputError
from .outcome import Outcome

if TYPE_CHECKING:
    from distributed import Client, Future

NO_WORKERS = 60.0  # s without a worker until that is said, and between two such messages
CONNECT = 30.0  # s to wait for a scheduler
IN_FLIGHT = 1000  # jobs at a scheduler of others at a time, so that it can plan for many workers
DEATHS_TOGETHER = 2  # of a job's workers, beside other jobs, until it runs alone
DEATHS_ALONE = 2  # until it is given up
RETRIES = 1  # further attempts after an error that may not come again
_TICK = 0.5  # s
_TASK = "register"  # the kind of our tasks

_log = logging.getLogger(__name__)


class Job(Protocol):
    """A job: a frozen dataclass with what a worker needs to know."""

    @property
    def key(self) -> str:
        """Of the scan, for messages."""
        ...

    @property
    def attempt(self) -> int:
        """How often it was tried with this one."""
        ...

    def as_json(self) -> dict[str, Any]:
        """The job as plain values, which any version of Python and of dask can send."""
        ...


J = TypeVar("J", bound=Job)

#: What a worker does with a job's plain values: it returns an ``Outcome`` as plain values.
Function = Callable[[Mapping[str, Any]], dict[str, Any]]


@dataclass(frozen=True)
class Resources:
    """Workers of the embedded cluster.

    Args:
        workers: number of processes, each with one scan at a time.
        threads: of each.
        scratch: folder for what dask writes; None is that for temporary files.
    """

    workers: int
    threads: int
    scratch: Path | None = None


def check_installed() -> None:
    """Check that dask is there.

    Raises:
        InputError: it is not.
    """
    try:
        importlib.import_module("distributed")
    except ModuleNotFoundError as error:
        raise InputError(
            "cohorts need dask.distributed, which is not installed: pip install 'voxwarp[cohort]'"
        ) from error


@contextmanager
def embedded(resources: Resources) -> Iterator["Engine"]:
    """A cluster of processes of this machine, which end with the ``with`` statement."""
    from distributed import Client, LocalCluster

    _configure()
    environment = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(resources.threads))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about ports and dashboards
        cluster = LocalCluster(
            n_workers=resources.workers,
            threads_per_worker=1,
            processes=True,
            memory_limit=0,  # jobs check what they need before they allocate it
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0" if _has_dashboard() else None,
            local_directory=None if resources.scratch is None else str(resources.scratch),
            silence_logs=logging.CRITICAL,
            env=environment,
        )
    client = Client(cluster)
    try:
        yield Engine(client, "", _dashboard(client), resources.workers)
    finally:
        _close(client, cluster)


@contextmanager
def at_address(address: str) -> Iterator["Engine"]:
    """The cluster of a scheduler that runs already.

    Args:
        address: such as tcp://node01:8786, or a file of ``dask scheduler --scheduler-file``.

    Raises:
        InputError: there is no scheduler.
    """
    from distributed import Client

    _configure()
    is_file = "://" not in address and (os.sep in address or address.endswith(".json"))
    where = {"scheduler_file" if is_file else "address": address}
    until = time.monotonic() + CONNECT  # a scheduler that was just started has no file yet
    while is_file and not os.path.exists(address) and time.monotonic() < until:
        time.sleep(_TICK)
    try:
        client = Client(**where, timeout=CONNECT)
    except (OSError, ValueError, TimeoutError) as error:
        raise InputError(
            f"dask_scheduler {address}: no scheduler of dask answers there "
            f"({' '.join(str(error).split())[:200]}); start one by: dask scheduler"
        ) from error
    try:
        yield Engine(client, address, _dashboard(client), IN_FLIGHT)
    finally:
        _close(client, None)


@contextmanager
def described(path: Path) -> Iterator["Engine"]:
    """The cluster that a file describes, such as one of SLURM (dask-jobqueue).

    Args:
        path: YAML or JSON with ``cluster``, the class, such as dask_jobqueue.SLURMCluster;
            ``options``, its arguments; and ``scale`` or ``adapt``, those of the method.

    Raises:
        InputError: the file is none, or the cluster cannot be started.
    """
    from distributed import Client

    _configure()
    settings = read_description(path)
    module, _, name = str(settings["cluster"]).rpartition(".")
    try:
        kind = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(
            f"dask_config {path}: there is no cluster {settings['cluster']} ({error}); install its "
            f"package, such as dask-jobqueue"
        ) from error
    try:
        cluster = kind(**settings.get("options", {}))
        for method in ("scale", "adapt"):
            if method in settings:
                getattr(cluster, method)(**settings[method])
        client = Client(cluster)
    except Exception as error:  # batch systems raise anything
        raise InputError(
            f"dask_config {path}: the cluster cannot be started ({type(error).__name__}: {error})"
        ) from error
    try:
        yield Engine(client, str(settings["cluster"]), _dashboard(client), IN_FLIGHT)
    finally:
        _close(client, cluster)


def read_description(path: Path) -> dict[str, Any]:
    """The description of a cluster.

    Raises:
        InputError: the file cannot be read, or is none.
    """
    import yaml

    check_readable(path, "dask_config")
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(
            f"dask_config {path}: this is not a YAML file ({' '.join(str(error).split())})"
        ) from error
    known = "cluster", "options", "scale", "adapt"
    is_right = isinstance(settings, dict) and isinstance(settings.get("cluster"), str)
    if not is_right or not all(isinstance(settings.get(name, {}), dict) for name in known[1:]):
        raise InputError(
            f"dask_config {path}: expected `cluster`, the name of a class such as "
            f"dask_jobqueue.SLURMCluster, and its arguments in `options`, `scale` and `adapt`"
        )
    if unknown := [name for name in settings if name not in known]:
        raise InputError(
            f"dask_config {path}: unknown key {unknown[0]!r}; known are {', '.join(known)}"
        )
    return settings


def _configure() -> None:
    import dask

    dask.config.set(
        {
            # a death is told at once, and counted here
            "distributed.scheduler.allowed-failures": 0,
            # so that clusters that adapt know how many workers are worth starting
            "distributed.scheduler.default-task-durations": {_TASK: "30s"},
            "distributed.scheduler.work-stealing": False,
            "distributed.scheduler.worker-saturation": 1.0,
            # what happened in the past, of which a run of weeks has much
            "distributed.admin.log-length": 1000,
            "distributed.comm.timeouts.connect": f"{CONNECT:.0f}s",
            "distributed.admin.log-format": "%(asctime)s %(name)s %(levelname)s %(message)s",
        }
    )
    import distributed  # it sets the levels of its loggers when it is imported

    for name in ("distributed", *logging.root.manager.loggerDict):
        if name.startswith(distributed.__name__):
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)


def _has_dashboard() -> bool:
    return importlib.util.find_spec("bokeh") is not None


def _dashboard(client: "Client") -> str:
    """The address of the dashboard; empty if the scheduler has none, as without bokeh."""
    with suppress(Exception):
        if _has_dashboard() and client.scheduler_info()["services"].get("dashboard"):
            return str(client.dashboard_link)
    return ""


def _close(client: "Client", cluster: Any) -> None:
    """Close within seconds, whatever state they are in."""
    with suppress(Exception):
        client.close(timeout=5)
    if cluster is not None:
        with suppress(Exception):
            cluster.close(timeout=5)


def _workers_of(client: "Client") -> Mapping[str, Any]:
    """All workers that a client knows of; newer versions of dask show a few unless asked."""
    try:
        return client.scheduler_info(n_workers=-1)["workers"]
    except TypeError:
        return client.scheduler_info()["workers"]


@dataclass
class _Try(Generic[J]):
    """A job on its way."""

    job: J
    submissions: int = 0
    failures: int = 0
    deaths: int = 0
    deaths_alone: int = 0
    is_alone: bool = False


@dataclass
class Engine:
    """Runs jobs on a cluster.

    Args:
        client: of dask.
        address: of the scheduler, or the kind of the cluster; empty for the embedded one.
        dashboard: address of the dashboard; empty if there is none.
        most: jobs in flight at a time.
    """

    client: "Client"
    address: str
    dashboard: str
    most: int
    workers: int = 0
    stopping: bool = False
    submitted: int = 0
    group: str = field(default_factory=lambda: f"{_TASK}-{uuid.uuid4().hex}")
    _arrived: "queue.Queue[Future]" = field(default_factory=queue.Queue)
    _warned: bool = False

    def stop(self) -> None:
        """Begin no further jobs; what runs is not waited for."""
        self.stopping = True

    def run(
        self,
        function: Function,
        jobs: Sequence[J],
        *,
        tick: Callable[[list[str]], object],
        say: Callable[[str], object],
    ) -> Iterator[tuple[J, Outcome]]:
        """Run jobs, and give the outcome of each when it is there.

        Args:
            function: what a worker does with each; it is found by its module and its name.
            jobs: the jobs.
            tick: called about twice a second with the keys of the scans in flight.
            say: called with what a user must know while it runs.

        Raises:
            InputError: the scheduler is gone, or workers cannot run jobs of ours.
        """
        waiting, alone = deque(_Try(job) for job in jobs), deque[_Try[J]]()
        flying: dict[Future, _Try[J]] = {}
        seen = time.monotonic()
        try:
            while (waiting or alone or flying) and not self.stopping:
                while waiting and len(flying) < self.most:
                    self._submit(function, waiting.popleft(), flying)
                if not waiting and not flying and alone:
                    suspect = alone.popleft()
                    suspect.is_alone = True
                    self._submit(function, suspect, flying)
                seen = self._watch(seen, say)
                tick([one.job.key for one in flying.values()])
                try:
                    future = self._arrived.get(timeout=_TICK)
                except queue.Empty:
                    continue
                trial = flying.pop(future, None)
                if trial is None:
                    continue
                deaths, outcome = trial.deaths, self._outcome(future, trial, say)
                trial.is_alone = False
                if outcome is None:  # its worker died, or else the result was lost on its way
                    is_suspect = trial.deaths > deaths and trial.deaths >= DEATHS_TOGETHER
                    (alone if is_suspect else waiting).append(trial)
                elif outcome.state == "failed" and self._is_tried_again(trial, outcome):
                    say(f"{outcome.key}: {outcome.error}; it is tried again at the end")
                    alone.append(trial)
                else:
                    yield trial.job, outcome
        finally:
            with suppress(Exception):
                self.client.cancel(list(flying))

    @staticmethod
    def _is_tried_again(trial: _Try[J], outcome: Outcome) -> bool:
        trial.failures += not outcome.is_final
        return not outcome.is_final and trial.failures <= RETRIES

    def _submit(self, function: Function, trial: _Try[J], flying: "dict[Future, _Try[J]]") -> None:
        self.submitted += 1
        trial.submissions += 1
        trial.job = replace(trial.job, attempt=trial.submissions)  # type: ignore[type-var]
        future = self.client.submit(
            function,
            trial.job.as_json(),
            key=(self.group, self.submitted),  # dask knows the kind of a task by its group
            pure=False,
            retries=0,
        )
        flying[future] = trial
        future.add_done_callback(self._arrived.put)

    def _outcome(
        self, future: "Future", trial: _Try[J], say: Callable[[str], object]
    ) -> Outcome | None:
        """What became of a job; None if it is to be tried again: its worker died, or the result."""
        from distributed import KilledWorker
        from distributed import TimeoutError as LostError

        try:
            values = future.result(timeout=CONNECT)
            return Outcome(**{**values, "warnings": tuple(values["warnings"])})
        except LostError:  # the worker that had the result is gone
            return None
        except KilledWorker:
            return self._after_death(trial, say)
        except Exception as error:
            if isinstance(error, CancelledError) or "Cancelled" in type(error).__name__:
                raise self._gone() from error
            self._check_scheduler()
            raise InputError(
                f"workers of {self.address or 'the embedded cluster'} cannot run a job "
                f"({type(error).__name__}: {error}); they need the same version of voxwarp as this "
                f"command, and the same folders"
            ) from error

    def _after_death(self, trial: _Try[J], say: Callable[[str], object]) -> Outcome | None:
        key = trial.job.key
        trial.deaths += 1
        trial.deaths_alone += trial.is_alone
        if trial.deaths_alone < DEATHS_ALONE:
            plan = "alone, when all others are done" if trial.deaths >= DEATHS_TOGETHER else "again"
            say(
                f"{key}: its worker died (killed from outside, out of memory, or at its walltime); "
                f"it is tried {plan}"
            )
            return None
        text = (
            f"its worker died {trial.deaths} times, twice while nothing else was running, most "
            f"likely because there was not enough memory; give the workers more, or resample the "
            f"scan to larger voxels"
        )
        return Outcome(key, "failed", {}, text, is_death=True)

    def _watch(self, seen: float, say: Callable[[str], object]) -> float:
        """Look whether there are workers; when they were last seen, or last missed aloud."""
        self._check_scheduler()
        now = time.monotonic()
        with suppress(Exception):
            found = _workers_of(self.client)
            self.workers = len(found)
            if not self._warned and any(one.get("nthreads", 1) > 1 for one in found.values()):
                self._warned = True
                say(
                    "some workers have several threads, so that they register several scans in one "
                    "process; start them with --nthreads 1"
                )
        if self.workers:
            return now
        if now - seen < NO_WORKERS:
            return seen
        place = self.address or "the embedded cluster"
        say(
            f"no worker of {place} has come up for {NO_WORKERS:.0f} s; look at the log of its jobs "
            f"(queue, account, modules), and whether nodes reach the scheduler; still waiting"
        )
        return now

    def _check_scheduler(self) -> None:
        if self.client.status in ("closed", "closing") or not self.client.scheduler:
            raise self._gone()

    def _gone(self) -> InputError:
        return InputError(
            f"the scheduler of {self.address or 'the embedded cluster'} is gone; run this command "
            f"again: it goes on with what is missing"
        )
