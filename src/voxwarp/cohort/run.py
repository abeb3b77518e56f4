"""A cohort from beginning to end: find, plan, register what is missing, and sum up."""

import os
import platform
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from .._files import check_writable, free_space, write_bytes
from .._json import read_json
from .._lock import remove_abandoned
from .._provenance import version_of
from ..errors import InputError
from . import engine
from .bids_names import label_of, without_prefix
from .cluster import Cluster
from .dataset import CohortScans, Selection, find_scans
from .derivatives import DESCRIPTION, IGNORED, dataset_description, record_path, write_json
from .job import HIDDEN, Order, is_abandoned, register_scan
from .ledger import Entry, Ledger
from .outcome import LOGS, Outcome
from .pages import Pages, Row, crash_path
from .plan import Task, plan
from .settings import CohortSettings, basis_of, common_basis

BIDSIGNORE = ".bidsignore"
# Bytes of a result for each voxel of the space: two fields, the scan and masks; measured on one
# scan in MNI152, 7.5.
DISK = 10
UNFINISHED = 60.0  # s until a page that is not finished is left by a killed command; set by hand
SAMPLED = 20  # scans whose headers predict the memory of all; set by hand
DEFAULT_NEED = 3.2e9  # bytes of a worker, if the sizes of the scans are not known


class Watcher(Protocol):
    """Shows what happens."""

    def found(self, scans: CohortScans, tasks: Sequence[Task]) -> None:
        """The scans were found, and what is to be done is known."""

    def started(self, engine: "engine.Engine", number: int) -> None:
        """The workers are there, and this many scans are to be done."""

    def finished(self, task: Task, outcome: Outcome) -> None:
        """A scan is done, or has failed."""

    def tick(self, running: list[str], workers: int) -> None:
        """These scans are in flight; called about twice a second."""

    def say(self, message: str) -> None:
        """Something that a user must know."""


@dataclass(frozen=True)
class Cohort:
    """A data set, and what is to become of it.

    Args:
        source: the data set, see ``dataset.find_scans``.
        out: the folder of the derivatives.
        selection: which scans.
        settings: how they are registered.
        cluster: where.
        work: folder for caches and scratch files; None is the user's cache.
        stop_on_first_crash: begin no further scans after one has failed.
        run: the UUID of the run.
    """

    source: Path
    out: Path
    selection: Selection = field(default_factory=Selection)
    settings: CohortSettings = field(default_factory=CohortSettings)
    cluster: Cluster = field(default_factory=Cluster)
    work: Path | None = None
    stop_on_first_crash: bool = False
    run: str = ""


@dataclass(frozen=True)
class Summary:
    """What a run did.

    Args:
        tasks: all scans.
        outcomes: of those that were run, by key.
        stopped: why the run ended early; empty if it did not.
    """

    tasks: tuple[Task, ...]
    outcomes: dict[str, Outcome]
    stopped: str = ""

    @property
    def failed(self) -> dict[str, Outcome]:
        """The scans that failed."""
        return {key: o for key, o in self.outcomes.items() if o.state == "failed"}

    @property
    def left(self) -> list[str]:
        """The scans that were not begun, or not finished."""
        return [t.scan.key for t in self.tasks if t.reason and t.scan.key not in self.outcomes]


def new_run() -> str:
    """The UUID of a run, as fMRIPrep makes it: the time, and a random part."""
    return f"{datetime.now():%Y%m%d-%H%M%S}_{uuid.uuid4()}"


def survey(cohort: Cohort, ledger: Ledger, *, write: bool = True) -> tuple[CohortScans, list[Task]]:
    """Find the scans, and what is to be done.

    Args:
        cohort: the cohort.
        ledger: of its folder.
        write: whether to write the hashes of files to the ledger; a dry run does not.

    Raises:
        InputError: see ``dataset.find_scans`` and ``settings.common_basis``; or the folder holds
            results in another space.
    """
    scans = find_scans(cohort.source, cohort.selection)
    with ledger.remembering_hashes(write):
        common, entries = common_basis(cohort.settings, ledger), ledger.entries()
        _check_space(entries, cohort)
        pairs = [(scan, basis_of(scan, common, ledger)) for scan in scans.scans]
    tasks = plan(pairs, cohort.out, cohort.settings.space, entries)
    for task in tasks:
        if write and task.is_lost and task.before is not None and not task.reason:
            ledger.add(task.before)
    return scans, tasks


def register_cohort(cohort: Cohort, watcher: Watcher) -> Summary:
    """Register all scans whose results are missing, or follow from something else now.

    Raises:
        InputError: the request cannot be met; a scan that cannot be registered is no error.
    """
    check_writable(cohort.out)
    _check_places(cohort)
    _clean_up(cohort.out)
    ledger = Ledger(cohort.out / HIDDEN)
    try:
        scans, tasks = survey(cohort, ledger)
        watcher.found(scans, tasks)
        _write_description(cohort, scans, watcher)
        pages = pages_of(cohort)
        _check_others(cohort, tasks, pages, watcher)
        todo = [task for task in tasks if task.reason]
        for task in tasks:
            if not task.reason:  # the command may have been killed before it removed this
                (cohort.out / crash_path(task.scan.key)).unlink(missing_ok=True)
        if not todo:
            pages.write()
            return Summary(tuple(tasks), {})
        return _register(cohort, tasks, todo, pages, ledger, watcher)
    finally:
        ledger.close()
        _clean_up(cohort.out)


def _register(
    cohort: Cohort,
    tasks: list[Task],
    todo: list[Task],
    pages: Pages,
    ledger: Ledger,
    watcher: Watcher,
) -> Summary:
    engine.check_installed()
    need = needed_memory(cohort, todo)
    resources = cohort.cluster.resources(
        cohort.settings.threads, need=need, number=len(todo), work=cohort.work
    )
    one = DISK * _voxels_of_space(cohort.settings)
    _check_disk(cohort.out, one, len(todo), watcher)
    orders = [_order(cohort, task) for task in todo]
    of_key, outcomes, stopped = {t.scan.key: t for t in todo}, dict[str, Outcome](), ""
    with cohort.cluster.running(resources) as workers:
        watcher.started(workers, len(todo))

        def tick(running: list[str]) -> None:
            watcher.tick(running, workers.workers)
            with _tolerating(watcher):
                pages.write_sometimes()

        for order, outcome in workers.run(register_scan, orders, tick=tick, say=watcher.say):
            key = order.scan.key
            outcomes[key] = outcome
            with _tolerating(watcher):
                ledger.add(_entry(order, outcome))
                _note(cohort, order, outcome, pages)
            watcher.finished(of_key[key], outcome)
            stopped = _reason_to_stop(cohort, outcome, one if len(outcomes) < len(todo) else 0)
            if stopped:
                workers.stop()
                break
    with _tolerating(watcher):
        pages_of(cohort).write()  # other commands may have written results, too
    return Summary(tuple(tasks), outcomes, stopped)


def _reason_to_stop(cohort: Cohort, outcome: Outcome, needed: float) -> str:
    """Why no further scan is begun; empty if there is no reason, or no further scan."""
    if not needed:
        return ""
    if outcome.is_full or free_space(cohort.out) < needed:
        return (
            f"the disk of {cohort.out}, or a quota on it, is full; no further scan was begun: make "
            f"room, and run the same command again"
        )
    if outcome.state == "failed" and cohort.stop_on_first_crash:
        return f"{outcome.key} failed, and stop_on_first_crash was given"
    return ""


@contextmanager
def _tolerating(watcher: Watcher) -> Iterator[None]:
    """Go on if the ledger or a page cannot be written: results have records of their own."""
    try:
        yield
    except InputError as error:
        watcher.say(f"{error}; the registrations go on")


def _order(cohort: Cohort, task: Task) -> Order:
    return Order(
        scan=task.scan,
        source=cohort.source.absolute(),
        out=cohort.out.absolute(),
        settings=cohort.settings,
        basis=task.basis,
        earlier=() if task.before is None else tuple(task.before.outputs),
        run=cohort.run,
        work=cohort.work,
    )


def _entry(order: Order, outcome: Outcome) -> Entry:
    return Entry(
        key=order.scan.key,
        state=outcome.state,
        name=str(order.scan.name),
        basis=dict(order.basis),
        # a failed scan keeps what an earlier run wrote, so that a later one can remove it
        outputs=dict(outcome.outputs) or dict.fromkeys(order.earlier, -1),
        error=outcome.error,
        seconds=outcome.seconds,
        peak_mb=outcome.peak_mb,
        attempts=order.attempt,
        at=time.time(),
        run=order.run,
    )


def _note(cohort: Cohort, order: Order, outcome: Outcome, pages: Pages) -> None:
    """Add the outcome to the pages, and write or remove the crash file."""
    path = cohort.out / crash_path(order.scan.key)
    if outcome.state == "done":
        pages.done(cohort.out / record_path(order.scan, cohort.settings.space))
        path.unlink(missing_ok=True)
        return
    pages.failed(order.scan.key, str(order.scan.name), outcome.error)
    text = [
        f"{order.scan.key} could not be registered.",
        "",
        f"Scan:    {order.scan.path}",
        f"Error:   {outcome.error}",
        f"Log:     {cohort.out / LOGS / f'{order.scan.key}.log'}",
        f"Run:     {order.run}, attempt {order.attempt}",
        f"Machine: {platform.node()}, voxwarp {version_of('voxwarp')}",
        "",
        outcome.trace,
    ]
    with suppress(InputError):  # as on a full disk
        write_bytes(path, "\n".join(text).encode())


def sum_up(cohort: Cohort) -> list[Path]:
    """The group level: the pages, and what ``group.write_group`` writes, of all results.

    Args:
        cohort: if it selects participants or sessions, the group is that of these alone.

    Returns:
        The files.

    Raises:
        InputError: there is no result, or one is damaged.
    """
    from .group import write_group

    pages = pages_of(cohort)
    group = [row for _, row in sorted(pages.rows.items()) if _is_selected(row, cohort.selection)]
    if not any(row.record for row in group):
        raise InputError(
            f"output {cohort.out}: there is no result to sum up; run the level participant first"
        )
    return [*pages.write(), *write_group(group, cohort.out, pages)]


def _is_selected(row: Row, selection: Selection) -> bool:
    wanted = {"sub": selection.participants, "ses": selection.sessions}
    return all(
        not labels
        or row.scan.entities.get(entity)
        in [label_of(without_prefix(label, entity)) for label in labels]
        for entity, labels in wanted.items()
    )


def pages_of(cohort: Cohort) -> Pages:
    """The pages of a folder, with the results and the failures that are known."""
    ledger = Ledger(cohort.out / HIDDEN)
    try:
        entries = ledger.entries()
    finally:
        ledger.close()
    failed = {key: entry for key, entry in entries.items() if entry.state == "failed"}
    return Pages.of(cohort.out, failed)


# ------------------------------------------------------------------------------------- Checks


def _check_places(cohort: Cohort) -> None:
    """Refuse to write into the data set itself, or into one of something else."""
    source, out = (Path(os.path.realpath(p)) for p in (cohort.source, cohort.out))
    if source == out:
        raise InputError(f"output {cohort.out}: this is the data set itself; choose another folder")
    path, found = cohort.out / DESCRIPTION, None
    if os.path.lexists(path):
        with suppress(OSError, ValueError):
            found = read_json(path)
        if not _is_ours(found):
            raise InputError(
                f"output {cohort.out}: it is a data set of something else ({path.name} does not "
                f"name voxwarp); choose another folder"
            )


def _check_space(entries: Mapping[str, Entry], cohort: Cohort) -> None:
    """Refuse to mix results in two spaces: their reports and tables would replace each other."""
    for entry in entries.values():
        space = (entry.basis.get("template") or {}).get("space")
        if entry.state == "done" and space not in (None, cohort.settings.space):
            raise InputError(
                f"output {cohort.out}: it holds results in the space {space}, not "
                f"{cohort.settings.space}; choose another folder for each space"
            )


def _write_description(cohort: Cohort, scans: CohortScans, watcher: Watcher) -> None:
    """Write what makes a folder a data set of BIDS derivatives, unless it is there."""
    name, path = cohort.source.absolute().name, cohort.out / DESCRIPTION
    with suppress(OSError, ValueError, AttributeError, KeyError, TypeError):
        name = str(read_json(cohort.source / DESCRIPTION)["Name"])
    wanted, found = dataset_description(scans.root, name), None
    with suppress(OSError, ValueError):
        found = read_json(path)
    if found is not None and found.get("DatasetLinks") != wanted["DatasetLinks"]:
        watcher.say(
            f"{cohort.out} holds results of another data set ({found.get('DatasetLinks')}); those "
            f"of persons with the same labels are replaced"
        )
    if found != wanted:
        write_json(wanted, path)
        write_bytes(cohort.out / BIDSIGNORE, "\n".join([*IGNORED, ""]).encode())


def _is_ours(description: Any) -> bool:
    try:
        return description["GeneratedBy"][0]["Name"] == "voxwarp"
    except (KeyError, IndexError, TypeError):
        return False


def _check_others(cohort: Cohort, tasks: Sequence[Task], pages: Pages, watcher: Watcher) -> None:
    """Say which results belong to no scan of the data set."""
    selection = cohort.selection
    if selection.participants or selection.sessions or selection.filters:
        return
    keys = {task.scan.key for task in tasks}
    others = [key for key, row in sorted(pages.rows.items()) if key not in keys and row.record]
    if others:
        shown = ", ".join(others[:5]) + (", ..." if len(others) > 5 else "")
        watcher.say(
            f"{cohort.out} holds {len(others)} results of scans that {cohort.source} does not have "
            f"({shown}); they count in its tables: remove them if they should not"
        )


def _check_disk(out: Path, one: float, number: int, watcher: Watcher) -> None:
    free = free_space(out)
    if free < one:
        raise InputError(
            f"output {out}: a result takes about {one / 1e6:.0f} MB, but only {free / 1e6:.0f} MB "
            f"of the disk are free"
        )
    if free < one * number:
        watcher.say(
            f"{number} results take about {one * number / 1e9:.1f} GB, but only {free / 1e9:.1f} "
            f"GB of the disk of {out} are free; the run will stop before it is full"
        )


def _voxels_of_space(settings: CohortSettings) -> int:
    from ..preparation.template import mni152
    from ..space.volume import read_placement

    if settings.fixed is None:
        shape = mni152().grid.shape
    else:
        shape = read_placement(settings.fixed, "fixed image").grid.shape
    return int(shape[0] * shape[1] * shape[2])


def needed_memory(cohort: Cohort, tasks: Sequence[Task]) -> float:
    """Bytes that a worker needs at most, as predicted from the headers of some scans."""
    from ..registration.memory import Volumes, predicted_memory
    from ..space.volume import read_placement

    step = max(1, len(tasks) // SAMPLED)
    voxels = []
    for task in tasks[::step]:
        with suppress(InputError):
            shape = read_placement(task.scan.path).grid.shape
            voxels.append(shape[0] * shape[1] * shape[2])
    if not voxels:
        return DEFAULT_NEED
    fixed = _voxels_of_space(cohort.settings)
    sizes = Volumes(
        fixed=fixed,
        moving=max(voxels),
        stored=4 * (fixed + max(voxels)),
        working=160 * 192 * 224,
        heads=1,
        refined=cohort.settings.refine,
    )
    return float(predicted_memory(sizes))


def _clean_up(out: Path) -> None:
    """Remove what killed processes left, except what is in use."""
    hidden = out / HIDDEN
    with suppress(OSError):
        for stage in hidden.glob("sub-*.*"):
            if stage.is_dir() and is_abandoned(stage):
                shutil.rmtree(stage, ignore_errors=True)
        for lock in hidden.glob("*.lock"):
            remove_abandoned(lock)
        for part in out.glob(".*.part"):  # of a page, see ``write_file``
            if time.time() - part.stat().st_mtime > UNFINISHED:
                part.unlink()
    with suppress(OSError):
        hidden.rmdir()  # if nothing is in it
