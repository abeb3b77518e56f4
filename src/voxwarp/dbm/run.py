"""A morphometry from beginning to end: maps and volumes of all people, tables, and a report."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from .._files import check_readable, check_writable, sha256_of, without_extension, write_bytes
from .._json import read_json
from .._lock import check_ours, lock_folder
from .._provenance import version_of
from ..cohort import engine
from ..cohort.cluster import Cluster
from ..cohort.derivatives import write_json
from ..cohort.pages import NOT_KNOWN, number_text
from ..data.folders import label_maps_of
from ..data.label_names import read_label_names
from ..errors import InputError
from ..space.grid import Grid
from ..space.volume import Volume, read_labels, read_placement, read_series, write_volume
from ..templates.averages import mean_and_spread
from .job import ABSOLUTE, ANNUAL, CHANGE, RELATIVE, MorphometryJob, do_job, label_of_width
from .page import MapSummary, morphometry_page
from .results import GroupResult, find_results, pairs_of
from .settings import MorphometrySettings
from .times import read_times, years_between

RECORD, REPORT, MASK = "morphometry.json", "morphometry.html", "mask.nii.gz"
NATIVE_TABLE, TEMPLATE_TABLE = "volumes_native.tsv", "volumes_template.tsv"
MAPS_TABLE, CHANGES_TABLE = "maps.tsv", "changes.tsv"
MEMORY = 1.0e9  # bytes of a worker that makes maps; measured on MNI152, 0.7 GB
MEMORY_LONGITUDINAL = 3.0e9
RESULTS = 1  # raise it when a change of the code changes what is written

Progress = Callable[[str], object]


@dataclass(frozen=True)
class MorphometryRequest:
    """The results, and what is measured of them.

    Args:
        results: folder of voxwarp cohort or voxwarp template.
        out: folder of the maps and tables.
        settings: what is measured.
        cluster: where.
        run: the UUID of the run.
    """

    results: Path
    out: Path
    settings: MorphometrySettings = field(default_factory=MorphometrySettings)
    cluster: Cluster = field(default_factory=Cluster)
    run: str = ""


@dataclass(frozen=True)
class Morphometry:
    """What was measured.

    Args:
        out: the folder.
        tables: the tables.
        report: the report.
        failed: why scans could not be measured, by key.
    """

    out: Path
    tables: tuple[Path, ...]
    report: Path
    failed: Mapping[str, str]


def measure_group(
    request: MorphometryRequest, progress: Progress = lambda text: None
) -> Morphometry:
    """Measure all results of a folder.

    Maps that are there and follow from the same results are kept.

    Raises:
        InputError: the request cannot be met.
    """
    check_writable(request.out)
    if os.path.realpath(request.out) == os.path.realpath(request.results):
        raise InputError(f"output {request.out}: these are the results; choose another folder")
    check_ours(request.out, RECORD, MASK)
    found = find_results(request.results)
    with lock_folder(request.out):
        return _Measuring(request, found, progress).measure()


@dataclass
class _Measuring:
    """One run.

    Args:
        request: the request.
        results: all results.
        progress: see ``measure_group``.
    """

    request: MorphometryRequest
    results: list[GroupResult]
    progress: Progress
    _hashes: dict[Path, str] = field(default_factory=dict)

    def measure(self) -> Morphometry:
        settings, self.out = self.request.settings, self.request.out.absolute()
        self.space = self.results[0].space
        self.grid = self._grid()
        names = self._atlas_names()
        self._write_mask()
        jobs = [self._job((one,), names) for one in self.results]
        changes: list[MorphometryJob] = []
        if settings.longitudinal:
            times = None if settings.times is None else read_times(settings.times)
            for pair in pairs_of(self.results, times):
                self.progress(f"change from {pair[0].key} to {pair[1].key}")
                years = None if times is None else years_between(*pair, times)
                changes.append(self._job(pair, names, years))
        failed = self._run([*jobs, *changes])
        done = [read_json(job.record) for job in jobs if job.key not in failed]
        changed = [read_json(job.record) for job in changes if f"{job.key} change" not in failed]
        if not done:
            raise InputError(
                f"results {self.request.results}: none could be measured; the first problem: "
                f"{next(iter(failed.values()))}"
            )
        tables = self._tables(done, names)
        if settings.longitudinal:
            tables.append(self._changes_table(changed, names))
        summaries = self._summaries(done, changed)
        text = morphometry_page(self.space, summaries, self._mask(), len(done), failed)
        write_bytes(self.out / REPORT, text.encode())
        records = [*done, *changed]
        maps = [name for one in records for name in one["outputs"]]
        logs = [job.record.relative_to(self.out).as_posix() for job in (*jobs, *changes)]
        self._write_record(failed, [*maps, *logs, *(path.name for path in tables)])
        return Morphometry(self.out, tuple(tables), self.out / REPORT, failed)

    # -------------------------------------------------------------------------------- Space

    def _grid(self) -> Grid:
        """The grid of the template, which all masks in the space are on."""
        first: Grid | None = None
        for one in self.results:
            grid = read_placement(one.mask_in_space, "brain mask").grid
            first = first or grid
            if not grid.matches(first):
                raise InputError(
                    f"results {self.request.results}: {one.key} and {self.results[0].key} are not "
                    f"on one grid, though both are in the space {self.space}"
                )
        assert first is not None
        return first

    def _write_mask(self) -> None:
        """Write the mask of the group: where at least half of the people have brain."""
        total = np.zeros(self.grid.shape, np.int32)
        for one in self.results:
            total += read_series(one.mask_in_space, "brain mask").data != 0
        mask = (2 * total >= len(self.results)).astype(np.uint8)
        volume = Volume(mask, self.grid, is_label_file=True)
        write_volume(volume, self.out / MASK)

    def _mask(self) -> Volume:
        return read_series(self.out / MASK, "mask")

    def _atlas(self) -> Path | None:
        """The atlas: that of the settings, or the vote of the template's labels."""
        if self.request.settings.atlas is not None:
            return self.request.settings.atlas.absolute()
        found = sorted(self.request.results.glob("tpl-*/**/*_dseg.nii.gz"))
        if len(found) > 1:
            raise InputError(
                f"atlas must be chosen, because {self.request.results} has several: "
                f"{', '.join(path.name for path in found)}"
            )
        return found[0].absolute() if found else None

    def _atlas_names(self) -> dict[int, str]:
        """The regions of the atlas and their names; empty without an atlas."""
        path = self._atlas()
        if path is None:
            return {}
        image = read_series(path, "atlas")
        labels = [int(x) for x in np.unique(read_labels(image, image, "atlas").data) if x != 0]
        names = {label: f"label-{label}" for label in labels}
        table = path.with_name(f"{without_extension(path.name)}.tsv")
        if table.exists():
            own = read_label_names(table)
            names = {label: own.get(label, name) for label, name in names.items()}
        return names

    # --------------------------------------------------------------------------------- Jobs

    def _job(
        self,
        results: tuple[GroupResult, ...],
        names: Mapping[int, str],
        years: float | None = None,
    ) -> MorphometryJob:
        settings, atlas = self.request.settings, self._atlas()
        given = {
            "grid": self.grid.described(),
            "mask": str(self.out / MASK),
            "atlas": None if atlas is None else str(atlas),
            "labels": list(names),
            "modulate": self._to_modulate.get(results[0].key),
            "years": years,
        }
        basis = {
            "voxwarp": version_of("voxwarp"),
            "results": RESULTS,
            "settings": {k: v for k, v in settings.as_json().items() if k != "threads"},
            "given": given,
            "files": {str(path): self._hash(path) for path in self._inputs(results, given)},
        }
        text = json.dumps(basis, sort_keys=True)
        given = {**given, "basis": hashlib.sha256(text.encode()).hexdigest()}
        return MorphometryJob(results, self.out, settings, given, self.request.run)

    def _inputs(self, results: tuple[GroupResult, ...], given: Mapping[str, Any]) -> Iterator[Path]:
        """The files that the maps and volumes of a job follow from."""
        yield self.out / MASK
        for one in results:
            yield one.to_scan
            yield one.scan if len(results) > 1 else one.mask
        for name in ("atlas", "modulate"):
            if given[name] is not None:
                yield Path(given[name])

    def _hash(self, path: Path) -> str:
        if path not in self._hashes:
            check_readable(path, "file")
            self._hashes[path] = sha256_of(path)
        return self._hashes[path]

    @cached_property
    def _to_modulate(self) -> dict[str, str]:
        """The file to modulate of each scan."""
        pattern = self.request.settings.modulate
        if pattern is None:
            return {}
        scans = {one.key: one.scan.absolute() for one in self.results}
        root = Path(os.path.commonpath([path.parent for path in scans.values()]))
        try:
            maps = label_maps_of(scans.values(), root, pattern)
        except InputError as error:
            text = str(error).replace("labels of", "modulate: maps of", 1)
            raise InputError(text.replace("label map", "map")) from error
        for key, path in scans.items():
            if path not in maps:
                raise InputError(f"modulate: {key} has no map, but others have")
        return {key: str(maps[path]) for key, path in scans.items()}

    def _run(self, jobs: Sequence[MorphometryJob]) -> dict[str, str]:
        """Do what is not done; why jobs failed, by their keys."""
        todo, failed = [job for job in jobs if not _is_done(job)], dict[str, str]()
        if not todo:
            self.progress("nothing to measure: all maps are up to date")
            return failed
        engine.check_installed()
        settings = self.request.settings
        need = MEMORY_LONGITUDINAL if settings.longitudinal else MEMORY
        resources = self.request.cluster.resources(
            settings.threads, need=need, number=len(todo), work=None
        )
        self.progress(f"measuring {len(todo)} of {len(jobs)}")
        with self.request.cluster.running(resources) as workers:
            for job, outcome in workers.run(
                do_job, todo, tick=lambda running: None, say=self.progress
            ):
                if outcome.state == "failed":
                    suffix = " change" if len(job.results) > 1 else ""
                    failed[f"{job.key}{suffix}"] = outcome.error
        return failed

    # ------------------------------------------------------------------------------- Tables

    def _tables(self, done: Sequence[Mapping[str, Any]], names: Mapping[int, str]) -> list[Path]:
        paths = [self._maps_table(done)]
        columns = ["participant_id", "session_id", "brain_ml", "tiv_ml", "affine_scale"]
        for file, key in ((NATIVE_TABLE, "native_ml"), (TEMPLATE_TABLE, "template_ml")):
            if key == "template_ml" and not names:
                continue
            lines = ["\t".join([*columns, *names.values()])]
            for one in done:
                volumes = one["volumes"]
                numbers = [*(volumes[column] for column in columns[2:]), *volumes.get(key, ())]
                lines.append("\t".join([*_ids(one), *map(number_text, numbers)]))
            paths.append(self._write_table(file, lines))
        return paths

    def _maps_table(self, done: Sequence[Mapping[str, Any]]) -> Path:
        """The files of the maps, a column for each kind, as nilearn's second level takes them."""
        kinds = [kind for kind, _ in self._kinds(done[0])]
        lines = ["\t".join(["participant_id", "session_id", *kinds])]
        for one in done:
            files = dict(self._kinds(one))
            lines.append("\t".join([*_ids(one), *(files.get(kind, NOT_KNOWN) for kind in kinds)]))
        return self._write_table(MAPS_TABLE, lines)

    def _kinds(self, record: Mapping[str, Any]) -> list[tuple[str, str]]:
        """The kinds of a person's maps, by their descriptions, and their files."""
        found = []
        for file in record["outputs"]:
            if file.endswith(".nii.gz"):
                desc = file.partition("_desc-")[2].partition("_")[0]
                found.append((desc, file))
        return sorted(found)

    def _changes_table(
        self, changed: Sequence[Mapping[str, Any]], names: Mapping[int, str]
    ) -> Path:
        columns = ["participant_id", "first_session", "last_session", "years", "brain_percent"]
        lines = ["\t".join([*columns, *names.values()])]
        for one in changed:
            sessions = [NOT_KNOWN if s is None else f"ses-{s}" for s in one["sessions"]]
            numbers = [one["years"], one["brain_percent"], *one.get("labels_percent", ())]
            cells = [f"sub-{one['subject']}", *sessions, *map(number_text, numbers)]
            lines.append("\t".join(cells))
        return self._write_table(CHANGES_TABLE, lines)

    def _write_table(self, name: str, lines: Sequence[str]) -> Path:
        path = self.out / name
        write_bytes(path, "\n".join([*lines, ""]).encode())
        return path

    # ------------------------------------------------------------------------------- Report

    def _summaries(
        self, done: Sequence[Mapping[str, Any]], changed: Sequence[Mapping[str, Any]]
    ) -> list[MapSummary]:
        """Mean and spread of the maps over people."""
        groups = [(RELATIVE, done), (ABSOLUTE, done)]
        if changed:
            kind = ANNUAL if changed[0]["years"] is not None else CHANGE
            groups.append((kind, changed))
        width = self.request.settings.fwhm[0] if self.request.settings.fwhm else None
        smooth = "" if width is None else label_of_width(width)
        summaries = []
        for kind, records in groups:
            files = [dict(self._kinds(one))[f"{kind}{smooth}"] for one in records]
            maps = (read_series(self.out / file, "map").data for file in files)
            mean, spread = (Volume(values, self.grid) for values in mean_and_spread(maps))
            summaries.append(MapSummary(kind, len(records), mean, spread, width))
        return summaries

    def _write_record(self, failed: Mapping[str, str], outputs: Sequence[str]) -> None:
        """Write the record; files of an earlier one that are not made any more are removed."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            for name in set(read_json(self.out / RECORD)["outputs"]) - set(outputs):
                (self.out / name).unlink(missing_ok=True)
        record = {
            "results": str(self.request.results.absolute()),
            "space": self.space,
            "sign": "positive log Jacobians: the region is larger in the person than in the "
            "template",
            "settings": self.request.settings.as_json(),
            "scans": [one.key for one in self.results],
            "failed": dict(failed),
            "outputs": sorted(outputs),
            "version": version_of("voxwarp"),
            "run": self.request.run,
        }
        write_json(record, self.out / RECORD)


def _ids(record: Mapping[str, Any]) -> list[str]:
    session = record["session"]
    return [f"sub-{record['subject']}", NOT_KNOWN if session is None else f"ses-{session}"]


def _is_done(job: MorphometryJob) -> bool:
    """Whether the maps are there, whole, and follow from the same."""
    try:
        record = read_json(job.record)
        return bool(record["basis"] == job.given["basis"]) and all(
            (job.out / name).stat().st_size == size for name, size in record["outputs"].items()
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False
