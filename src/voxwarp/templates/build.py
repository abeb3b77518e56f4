"""A template from beginning to end: an unbiased mean of scans, by rounds of registration to it.

The scans are aligned by rigid maps first, those of the alignment with the model's own template, and
averaged; so no person is the first template. Rounds of affine alignment with the mean follow, of
whose maps the mean stretch is taken out, and then rounds of deformable registration. After each of
these, the template takes the mean shape of all scans (``shape``), and each scan is resampled once
onto it, from its original voxels.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .._files import check_writable, free_space, write_bytes, write_file
from .._json import read_json
from .._lock import check_ours, lock_folder
from .._provenance import version_of
from ..cohort import engine
from ..cohort.cluster import Cluster
from ..cohort.dataset import CohortScan, Selection
from ..cohort.job import HIDDEN
from ..cohort.ledger import Ledger
from ..cohort.outcome import Outcome
from ..cohort.settings import model_hashes
from ..data.label_names import read_label_names
from ..errors import InputError
from ..networks.catalogue import ARCHITECTURES
from ..networks.installed import MODEL, find
from ..preparation.recipe import Recipe
from ..preparation.rigid import rigid_part
from ..registration.contrast import KNOWN
from ..registration.memory import Volumes, predicted_memory
from ..space.grid import ALIGNED, Grid
from ..space.resample import resample
from ..space.transform import Affine
from ..space.volume import Volume, read_placement, read_volume, write_volume
from . import shape
from .averages import averaged, sharpened, sharpness
from .checks import check_enough, check_labels, unlike
from .job import FIELD, FULL, IMAGE, MASK, SMALL, TemplateJob, array_path, do_job
from .linear import mean_stretch
from .outputs import Outputs, Person, brain_path, publish
from .scans import FEWEST, TemplateScans, find_template_scans, labels_of, persons_of
from .settings import AFFINE_ROUNDS, TemplateSettings
from .state import ROUNDS, Round, Store

RECORD = "template.json"  # written last: what the template was made of, and how
TOLD = 30.0  # s between two lines of progress within a round, at least
BEGUN = "template"  # says that the hidden folder is that of a template
RESULTS = 1  # raise it when a change of the code changes what is computed or written
#: Bytes for each scan: displacements on the working grid, and averages in the making.
_FIELD_BYTES, _IMAGE_BYTES = 24, 5

Progress = Callable[[str], object]


@dataclass(frozen=True)
class TemplateRequest:
    """The scans, and what is to become of them.

    Args:
        sources: image files; or one table, folder or BIDS data set.
        out: the folder of the template.
        selection: which scans of a data set, and what goes with them.
        settings: how the template is built.
        cluster: where.
        work: folder for caches and scratch files; None is the user's cache.
        run: the UUID of the run.
        label_names: table with the names of the labels, see ``data.label_names``; None: they have
            none.
    """

    sources: Sequence[Path]
    out: Path
    selection: Selection = field(default_factory=Selection)
    settings: TemplateSettings = field(default_factory=TemplateSettings)
    cluster: Cluster = field(default_factory=Cluster)
    work: Path | None = None
    run: str = ""
    label_names: Path | None = None


@dataclass(frozen=True)
class BuiltTemplate:
    """A template that was built.

    Args:
        out: its folder.
        image: the file of the template.
        mask: the file of its brain mask.
        files: all files that were written for the group, in no order.
        left_out: why scans were left out, by key.
        record: the contents of ``template.json``.
        was_there: whether it was built before, and nothing was done.
    """

    out: Path
    image: Path
    mask: Path
    files: tuple[Path, ...]
    left_out: Mapping[str, str]
    record: Mapping[str, Any]
    was_there: bool = False


def build(request: TemplateRequest, progress: Progress = lambda text: None) -> BuiltTemplate:
    """Build a template, or go on with one that was begun.

    Args:
        request: the scans, and how.
        progress: called with lines of text.

    Raises:
        InputError: the request cannot be met; or a part of the work failed, and can be tried again
            by the same request.
    """
    check_writable(request.out)
    scans = find_template_scans(
        request.sources, request.selection, longitudinal=request.settings.longitudinal
    )
    check_ours(request.out, RECORD, f"{HIDDEN}/{BEGUN}")
    names = {} if request.label_names is None else read_label_names(request.label_names)
    if names and all(labels_of(scan) is None for scan in scans.scans):
        raise InputError("label_names needs `labels`, but none were given")
    for scan in scans.scans:
        if scan.choice:
            progress(f"{scan.key}: {scan.choice}")
    model = _check_model(request.settings)
    if request.settings.symmetric:
        shape.check_mirror(model.grid)
    with lock_folder(request.out):
        write_bytes(request.out / HIDDEN / BEGUN, b"a template is built here\n")
        basis = {**_basis(request, scans), "label_names": sorted(names.items())}
        if (there := _built(request.out, basis)) is not None:
            _remove_work(request.out)
            progress("nothing to do: the template is up to date")
            return there
        with ExitStack() as stack:
            return _Builder(request, scans, model, basis, names, progress, stack).build()


def _check_model(settings: TemplateSettings) -> Recipe:
    """The recipe of the model, read without its weights."""
    folder = find(settings.model)
    try:
        about = read_json(folder / MODEL)
        capabilities = ARCHITECTURES[about["architecture"]["name"]].capabilities
        recipe = Recipe.from_record(about["preparation"], folder)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"model {folder}: its {MODEL} cannot be read ({error})") from error
    if settings.smoothness is not None and not capabilities.has_smoothness:
        raise InputError(
            f"smoothness has no effect on model {settings.model}, which learned its smoothness in "
            f"training; use another model"
        )
    return recipe


def _basis(request: TemplateRequest, scans: TemplateScans) -> dict[str, Any]:
    """What the template follows from, by topic."""
    ledger, inputs = Ledger(request.out / HIDDEN), dict[str, dict[str, str]]()
    try:
        with ledger.remembering_hashes():
            for scan in scans.scans:
                own = inputs[scan.key] = {}
                for role, path in ((scan.name, scan.path), *scan.also):
                    try:
                        own[str(role)] = ledger.sha256(path)
                    except OSError:
                        own[str(role)] = "unreadable"
            model = model_hashes(find(request.settings.model), ledger)
    finally:
        ledger.close()
    settings = request.settings.as_json()
    for name in ("threads", "model"):
        del settings[name]
    return {
        "version": {"voxwarp": version_of("voxwarp"), "results": RESULTS},
        "model": model,
        "settings": settings,
        "inputs": inputs,
    }


def _built(out: Path, basis: Mapping[str, Any]) -> BuiltTemplate | None:
    """The template of this basis that is there already, and whole."""
    try:
        record = read_json(out / RECORD)
        whole = all((out / name).stat().st_size == size for name, size in record["outputs"].items())
        if not whole or record["basis"] != json.loads(json.dumps(basis)):
            return None
        return built_of(out, record, was_there=True)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def built_of(out: Path, record: Mapping[str, Any], *, was_there: bool) -> BuiltTemplate:
    """The template that a record describes."""
    return BuiltTemplate(
        out,
        out / record["image"],
        out / record["mask"],
        tuple(out / name for name in record["group_outputs"]),
        dict(record["left_out"]),
        record,
        was_there,
    )


@dataclass
class _Builder:
    """One run.

    Args:
        request: the request.
        scans: all that were found.
        recipe: of the model.
        basis: what the template follows from.
        names: of the labels.
        progress: see ``build``.
        stack: closes the cluster at the end.
    """

    request: TemplateRequest
    scans: TemplateScans
    recipe: Recipe
    basis: dict[str, Any]
    names: dict[int, str]
    progress: Progress
    stack: ExitStack
    settings: TemplateSettings = field(init=False)
    left_out: dict[str, str] = field(default_factory=dict)
    used: list[CohortScan] = field(default_factory=list)
    peak_mb: float = 0.0
    _engine: engine.Engine | None = None

    def __post_init__(self) -> None:
        self.settings = self.request.settings
        self.left_out |= self.scans.skipped
        self.out = self.request.out.absolute()
        name = _digest(self.basis)
        self.work = self.out / HIDDEN / name
        _remove_work(self.out, but=name)

    def build(self) -> BuiltTemplate:
        self._check_disk()
        found = self._examined()
        store = Store(self.work / _digest([scan.key for scan in self.used]))
        self.store, self.persons = store, persons_of(self.used)
        self.is_rigid = len(self.persons) == 1
        if self.is_rigid:  # her scans are what is averaged
            self.persons = [[number] for number in range(len(self.used))]
        check_enough(self.settings, len(self.persons))
        self.weights = np.empty(len(self.used))
        for own in self.persons:
            self.weights[own] = 1 / (len(self.persons) * len(own))
        keys = [scan.key for scan in self.used]
        alignments = {key: Affine(np.array(found[key]["alignment"])) for key in keys}
        stretch = self._stretch(list(alignments.values()))
        self.grid = self._grid(stretch)
        rounds = [self._rigid(alignments)]
        for number in range(1, 1 + (AFFINE_ROUNDS if self.is_aligned else 0)):
            start = {key: one.after(stretch.inverse()) for key, one in alignments.items()}
            working = stretch
            if number > 1:
                start, working = dict(rounds[-1].placements), rounds[-1].working
            rounds.append(self._affine(number, start, working, rounds[-1]))
        for number in range(1, self.settings.rounds + 1):
            rounds.append(self._deformable(number, rounds[-1]))
        return self._finished(rounds, found)

    # ------------------------------------------------------------------------------- Rounds

    @property
    def is_aligned(self) -> bool:
        """Whether the scans are aligned with a template, so that affine rounds make sense."""
        return self.recipe.template is not None

    def _stretch(self, affines: Sequence[Affine]) -> Affine:
        """The mean stretch of affine maps; none, if there is one person, or no template."""
        if not self.is_aligned:
            return Affine(np.eye(4))
        return mean_stretch(affines, list(self.weights), symmetric=self.settings.symmetric)

    def _grid(self, stretch: Affine) -> Grid:
        """The grid of the template: the field of view of the model's own, in the mean size."""
        template, spacing = self.recipe.template, self.settings.spacing
        view = self.recipe.grid if template is None else template.grid
        corners = stretch.map(view.to_world(view.corners()))
        half = np.abs(corners[:, 0]).max() if template is not None else None
        low, high = corners.min(axis=0), corners.max(axis=0)
        if half is not None:  # a voxel centre at x = 0: mirrored voxels are voxels
            low[0], high[0] = -half, half
        first = np.floor(low / spacing) * spacing
        shape = np.round((np.ceil(high / spacing) * spacing - first) / spacing).astype(int) + 1
        affine = np.diag([spacing, spacing, spacing, 1.0])
        affine[:3, 3] = first
        return Grid(shape.tolist(), affine, ALIGNED)

    def _rigid(self, alignments: Mapping[str, Affine]) -> Round:
        centre = np.zeros(3)
        if self.recipe.template is not None:
            inside = np.argwhere(self.recipe.template.image.data > 0).mean(axis=0)
            centre = self.recipe.template.grid.to_world(inside)
        placements = {key: rigid_part(one, centre) for key, one in alignments.items()}
        if not self.is_aligned:
            placements = dict(alignments)
        return self._round("rigid", placements, Affine(np.eye(4)))

    def _affine(
        self, number: int, start: Mapping[str, Affine], working: Affine, before: Round
    ) -> Round:
        name = f"affine {number}"
        if (done := self.store.read(name, self.out)) is not None:
            return self._told(done)
        if self.is_rigid:  # the working space still has the size of MNI152
            start = {key: rigid_part(one, np.zeros(3)) for key, one in start.items()}

        def given(scan: CohortScan) -> dict[str, Any]:
            return {
                "placement": start[scan.key].matrix.tolist(),
                "template": str(self.out / before.image),
                "rigid": self.is_rigid,
            }

        found = self._run(f"{name} aligned", "align", given)
        aligned = {key: Affine(np.array(one["placement"])) for key, one in found.items()}
        rest = Affine(np.eye(4)) if self.is_rigid else self._stretch(list(aligned.values()))
        placements = {key: one.after(rest.inverse()) for key, one in aligned.items()}
        return self._round(name, placements, rest.after(working), before)

    def _deformable(self, number: int, before: Round) -> Round:
        name = f"round {number}"
        if (done := self.store.read(name, self.out)) is not None:
            return self._told(done)
        registered = f"{name} registered"
        if number > 1 and not any("start" in self._placed(scan, before) for scan in self.used):
            shutil.rmtree(self.store.folder, ignore_errors=True)
            raise InputError(
                f"output {self.out}: the average of {name} was removed while the template was "
                f"being built; run the same command again, and it begins anew"
            )
        found = self._run(registered, "register", lambda scan: self._placed(scan, before))
        folder = self.store.stage(registered)
        mean = self._mean_displacement(folder)
        update = self.work / "update.npy"
        values = shape.update(mean)[0].numpy()
        write_file(update, lambda stream: np.save(stream, values))
        measures = {**_similarity(found), **self._size_of(mean, before)}

        def given(scan: CohortScan) -> dict[str, Any]:
            return {
                "field": str(array_path(folder, scan.key, FIELD)),
                "update": str(update),
                "working": before.working.matrix.tolist(),
            }

        done = self._round(name, before.placements, before.working, before, given, measures)
        self.store.drop(registered)
        self.store.drop(f"{before.name} averaged")
        return done

    def _placed(self, scan: CohortScan, before: Round) -> dict[str, Any]:
        """What a worker needs to register a scan to the average of a round."""
        start = array_path(self.store.stage(f"{before.name} averaged"), scan.key, FIELD)
        return {
            "placement": before.placements[scan.key].matrix.tolist(),
            "working": before.working.matrix.tolist(),
            "template": str(self.out / before.image),
            **({"start": str(start)} if start.is_file() else {}),
        }

    def _round(
        self,
        name: str,
        placements: Mapping[str, Affine],
        working: Affine,
        before: Round | None = None,
        more: Callable[[CohortScan], dict[str, Any]] = lambda scan: {},
        measures: Mapping[str, float] = {},
    ) -> Round:
        """Average the scans where they lie now."""
        if (done := self.store.read(name, self.out)) is not None:
            return self._told(done)

        def given(scan: CohortScan) -> dict[str, Any]:
            return {
                "placement": placements[scan.key].matrix.tolist(),
                "grid": self.grid.described(),
                **more(scan),
            }

        stage = f"{name} averaged"
        self._run(stage, "average", given)
        image, prior = self._averages(self.store.stage(stage))
        inside = prior >= 0.5
        files = [self._keep(name, image), self._keep(f"{name} mask", inside)]
        told = {"sharpness": sharpness(image, inside, self.grid.spacing), **measures}
        if before is not None:
            earlier = read_volume(self.out / before.image, "template").data
            told["change_percent"] = _change(image, earlier, inside)
        done = Round(name, files[0], files[1], placements, working, told)
        self.store.write(done)
        for scan in self.used:  # the displacements are kept for the next round
            for array in (IMAGE, MASK):
                array_path(self.store.stage(stage), scan.key, array).unlink(missing_ok=True)
        return self._told(done)

    def _told(self, done: Round) -> Round:
        self.progress(f"{done.name}: {_measures_text(done.measures)}")
        return done

    def _keep(self, name: str, data: np.ndarray) -> str:
        """Write an average of a round among those that are kept; its path in the folder."""
        file = f"{ROUNDS}/{name.replace(' ', '-')}_{self.scans.suffix}.nii.gz"
        if data.dtype == bool:
            file = file.replace(f"_{self.scans.suffix}", "")
            volume = Volume(data.astype(np.uint8), self.grid, is_label_file=True)
        else:
            volume = Volume(data, self.grid)
        write_volume(volume, self.out / file)
        return file

    def _averages(self, folder: Path, name: str = IMAGE) -> tuple[np.ndarray, np.ndarray]:
        """The average of the images of a stage, zero outside the mean brain, and the mean mask."""
        symmetric = self.settings.symmetric
        image = averaged(
            self._arrays(folder, name), self.persons, self.settings.average, symmetric=symmetric
        )
        prior = averaged(self._arrays(folder, MASK), self.persons, symmetric=symmetric) / FULL
        return np.where(prior >= 0.5, image, 0), prior

    def _arrays(self, folder: Path, name: str) -> list[np.ndarray]:
        paths = (array_path(folder, scan.key, name) for scan in self.used)
        return [np.load(path, mmap_mode="r") for path in paths]

    def _mean_displacement(self, folder: Path) -> torch.Tensor:
        return shape.mean_displacement(
            self._arrays(folder, FIELD), list(self.weights), symmetric=self.settings.symmetric
        )

    def _size_of(self, displacement: torch.Tensor, at: Round) -> dict[str, float]:
        """The size of a mean displacement in the brain of a template, mm."""
        matrix = at.working.matrix[:3, :3] @ self.recipe.grid.affine[:3, :3]
        vectors = np.tensordot(matrix, displacement[0].numpy(), axes=1)
        size = np.sqrt(np.square(vectors).sum(axis=0))
        mask = read_volume(self.out / at.mask, "mask")
        inside = resample(mask, self.recipe.grid, at.working, interpolation="nearest").data != 0
        return {
            "mean_displacement_mm": float(size[inside].mean()),
            "largest_mean_displacement_mm": float(size[inside].max()),
        }

    # ------------------------------------------------------------------------------ Workers

    def _examined(self) -> dict[str, Any]:
        """Examine all scans, and decide which are used, and by which model."""
        self.used = list(self.scans.scans)
        folder = self.work / "examined"
        found = self._run("examined", "examine", lambda scan: {}, folder, may_fail=True)
        good = [scan for scan in self.scans.scans if scan.key in found]
        if len(good) >= FEWEST:
            images = [np.load(array_path(folder, scan.key, SMALL)) for scan in good]
            unsure = [found[scan.key]["unsure"] for scan in good]
            known = [share is None or share <= KNOWN for share in unsure]
            for number in unlike([scan.key for scan in good], images, known):
                self.left_out[good[number].key] = "it is not like the other scans"
            if 2 * sum(known) < len(known):
                self._take_other_model()
        self.used = [scan for scan in good if scan.key not in self.left_out]
        for key, reason in self.left_out.items():
            self.progress(f"left out: {key}: {reason}")
        if len(self.used) < FEWEST:
            first = next(iter(self.left_out.values()))
            raise InputError(
                f"scans: a template needs at least {FEWEST} scans, but only {len(self.used)} of "
                f"{len(self.scans.scans)} can be used; the first problem: {first}"
            )
        labels = {s.key: found[s.key]["labels"] for s in self.used if labels_of(s) is not None}
        for warning in check_labels(labels):
            self.progress(f"warning: {warning}")
        for scan in self.used:
            for warning in found[scan.key]["warnings"]:
                self.progress(f"warning: {warning}")
        return found

    def _take_other_model(self) -> None:
        """Leave scans of a contrast that the model does not know to the one that takes any."""
        other = read_json(find(self.settings.model) / MODEL).get("other_contrasts")
        if other is not None:
            self.progress(
                f"model {self.settings.model} does not know the contrast of these scans; they are "
                f"registered by {other}"
            )
            self.settings = replace(self.settings, model=other)

    def _run(
        self,
        name: str,
        task: str,
        given: Callable[[CohortScan], Mapping[str, Any]],
        folder: Path | None = None,
        *,
        may_fail: bool = False,
    ) -> dict[str, Any]:
        """Do a task for all scans that it is not done for.

        Returns:
            The records by key.

        Raises:
            InputError: it failed for a scan, and must not.
        """
        folder = folder or self.store.stage(name)
        jobs = [
            TemplateJob(
                task,
                scan,
                self.scans.root,
                self.out,
                folder,
                self.settings,
                given(scan),
                self.request.run,
                work=self.request.work,
            )
            for scan in self.used
        ]
        todo, failed = [job for job in jobs if not _is_done(job)], dict[str, Outcome]()
        if todo:
            self.progress(f"{name}: {len(todo)} scans")
            told = time.monotonic()
            outcomes = self._workers(len(todo)).run(
                do_job, todo, tick=lambda running: None, say=self.progress
            )
            for done, (job, outcome) in enumerate(outcomes, 1):
                self.peak_mb = max(self.peak_mb, outcome.peak_mb)
                if time.monotonic() - told > TOLD:
                    told = time.monotonic()
                    self.progress(f"{name}: {done} of {len(todo)}")
                if outcome.state == "failed":
                    failed[job.key] = outcome
        for key, outcome in failed.items():
            is_of_scan = outcome.is_final and not outcome.is_death and not outcome.trace
            if not may_fail or outcome.is_full or not is_of_scan:
                raise InputError(
                    f"{key}: {outcome.error}; run the same command again, and it goes on from here"
                )
            self.left_out[key] = outcome.error
        return {job.key: read_json(job.record) for job in jobs if job.key not in failed}

    def _workers(self, number: int) -> engine.Engine:
        if self._engine is None:
            engine.check_installed()
            cluster, threads = self.request.cluster, self.settings.threads
            resources = cluster.resources(
                threads, need=self._needed_memory(), number=number, work=self.request.work
            )
            self._engine = self.stack.enter_context(cluster.running(resources))
        return self._engine

    def _needed_memory(self) -> float:
        """Bytes that a worker needs at most, as predicted from the headers of the scans."""
        voxels = [_voxels(scan.path) for scan in self.scans.scans]
        template = self.recipe.template
        view = self.recipe.grid if template is None else template.grid
        fixed = int(np.prod(view.shape) * np.prod(view.spacing) / self.settings.spacing**3)
        moving = max(voxels)
        sizes = Volumes(
            fixed=fixed,
            moving=moving,
            stored=4 * (fixed + moving),
            working=int(np.prod(self.recipe.grid.shape)),
            heads=1,
        )
        return float(predicted_memory(sizes))

    def _check_disk(self) -> None:
        working = float(np.prod(self.recipe.grid.shape))
        images = working / self.settings.spacing**3
        need = len(self.scans.scans) * (_FIELD_BYTES * working + 2 * _IMAGE_BYTES * images)
        if (free := free_space(self.out)) < need:
            raise InputError(
                f"output {self.out}: building takes about {need / 1e9:.1f} GB for "
                f"{len(self.scans.scans)} scans, but only {free / 1e9:.1f} GB of the disk are free"
            )

    # ------------------------------------------------------------------------------- Result

    def _finished(self, rounds: list[Round], found: Mapping[str, Any]) -> BuiltTemplate:
        """Write the scans in the last average, and everything else."""
        last = rounds[-1]
        image = read_volume(self.out / last.image, "template")
        if self.settings.sharpen:
            image = replace(image, data=sharpened(image.data))
        template = self.work / f"finished_{self.scans.suffix}.nii.gz"
        write_volume(image, template)
        stage = self.work / "stage"
        heads = all(found[scan.key]["seen_as"] == "head" for scan in self.used)
        basis = {"template": _digest([self.basis, [scan.key for scan in self.used]])}

        def given(scan: CohortScan) -> dict[str, Any]:
            return {
                **self._placed(scan, last),
                "template": str(template),
                "grid": self.grid.described(),
                "basis": basis,
                "stage": str(stage),
                "heads": heads,
                "published": brain_path(self.settings, self.scans.suffix, heads).as_posix(),
            }

        records = self._run("finished", "finish", given)
        folder = self.store.stage("finished")
        mean = self._mean_displacement(folder)
        final = {**_similarity(records), **self._size_of(mean, last)}
        self.progress(f"finished: {_measures_text(final)}")
        matrix = last.working.matrix[:3, :3] @ self.recipe.grid.affine[:3, :3]
        outputs = Outputs(
            suffix=self.scans.suffix,
            settings=self.settings,
            grid=self.grid,
            people=[Person(scan, folder, records[scan.key], found[scan.key]) for scan in self.used],
            persons=self.persons,
            heads=heads,
            contrasts=self.scans.contrasts,
            label_names=self.names,
            template=image,
            rounds=rounds,
            final=final,
            field_matrix=matrix,
            working_grid=self.recipe.grid,
            working=last.working,
        )
        record = publish(
            outputs,
            out=self.out,
            stage=stage,
            root=self.scans.root,
            record={
                "basis": self.basis,
                "model": self.settings.model,
                "left_out": self.left_out,
                "peak_mb": self.peak_mb,
                "run": self.request.run,
            },
            name=RECORD,
        )
        shutil.rmtree(self.work, ignore_errors=True)
        return built_of(self.out, record, was_there=False)


def _remove_work(out: Path, but: str = "") -> None:
    """Remove what is left of other requests, or of a run that was killed when all was done."""
    for other in (out / HIDDEN).glob("*"):
        if other.is_dir() and other.name != but:
            shutil.rmtree(other, ignore_errors=True)


def _is_done(job: TemplateJob) -> bool:
    """Whether the job's record is there; damaged ones are not."""
    try:
        read_json(job.record)
    except (OSError, ValueError):
        return False
    return True


def _voxels(path: Path) -> int:
    try:
        return int(np.prod(read_placement(path).grid.shape))
    except InputError:  # the worker says why
        return 256**3


def _digest(values: Any) -> str:
    text = json.dumps(values, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _similarity(records: Mapping[str, Any]) -> dict[str, float]:
    values = [one["similarity"]["local_ncc"] for one in records.values()]
    return {"local_ncc": float(np.mean(values)), "least_local_ncc": float(np.min(values))}


def _change(image: np.ndarray, earlier: np.ndarray, inside: np.ndarray) -> float:
    """The mean change of an average in the brain, percent of its mean intensity."""
    return float(100 * np.abs(image - earlier)[inside].mean() / image[inside].mean())


_TEXTS = {
    "sharpness": "mean gradient {:.4f}/mm",
    "change_percent": "changed by {:.2f} %",
    "local_ncc": "local NCC {:.3f}",
    "mean_displacement_mm": "mean displacement {:.3f} mm",
    "largest_mean_displacement_mm": "at most {:.3f} mm",
}


def _measures_text(measures: Mapping[str, float]) -> str:
    parts = [text.format(measures[name]) for name, text in _TEXTS.items() if name in measures]
    return ", ".join(parts)
