"""What a template leaves behind: images, priors, tables and records, in the names of TemplateFlow.

Everything is written to a folder beside, moved to its place when all is there, and the record of
the template comes last.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .._files import run_in_parallel, write_bytes
from .._json import read_json
from .._provenance import machine, version_of, versions
from ..cohort.bids_names import BidsName
from ..cohort.dataset import CohortScan
from ..cohort.derivatives import BIDS_VERSION, DESCRIPTION, IGNORED, dataset_description, write_json
from ..cohort.job import HIDDEN
from ..cohort.pages import NOT_KNOWN, Pages, number_text
from ..errors import InputError
from ..space.grid import Grid
from ..space.transform import Affine
from ..space.volume import Volume, write_volume
from .averages import Votes, averaged, mean_and_spread
from .job import DSEG, FIELD, FULL, HEAD, IMAGE, MASK, array_path
from .linear import log_stretch
from .page import Shown, template_page
from .settings import TemplateSettings
from .state import Round

EARLIER = "earlier.json"  # files of an earlier template, until they are replaced or removed
REPORT, PARTICIPANTS, ROUNDS_TABLE = "template.html", "participants.tsv", "rounds.tsv"
_RESOLUTION = "01"


@dataclass(frozen=True)
class Person:
    """A scan in the finished template.

    Args:
        scan: the scan.
        folder: of the arrays of its last registration.
        record: of its last registration.
        examined: record of its examination.
    """

    scan: CohortScan
    folder: Path
    record: Mapping[str, Any]
    examined: Mapping[str, Any]

    def array(self, name: str) -> np.ndarray:
        """An array of the last registration, mapped from its file."""
        return np.load(array_path(self.folder, self.scan.key, name), mmap_mode="r")


@dataclass(frozen=True)
class Outputs:
    """What the files are made of.

    Args:
        suffix: of the scans, such as T1w.
        settings: how the template was built.
        grid: of the template.
        people: the scans that it was made of.
        persons: the numbers of the scans of each person.
        heads: whether all scans are heads.
        contrasts: suffixes of the other contrasts.
        label_names: by label, as far as it has one.
        template: the last average, which all scans were registered to.
        rounds: all rounds.
        final: measures of the last registrations.
        field_matrix: from voxels of the working grid to mm of the template, (3, 3).
        working_grid: the working grid.
        working: the affine map from the working space to the template.
    """

    suffix: str
    settings: TemplateSettings
    grid: Grid
    people: Sequence[Person]
    persons: Sequence[Sequence[int]]
    heads: bool
    contrasts: Sequence[str]
    label_names: Mapping[int, str]
    template: Volume
    rounds: Sequence[Round]
    final: Mapping[str, float]
    field_matrix: np.ndarray
    working_grid: Grid
    working: Affine

    def arrays(self, name: str) -> list[np.ndarray]:
        """An array of all scans."""
        return [person.array(name) for person in self.people]

    def average(self, name: str) -> np.ndarray:
        """The average of an array over persons."""
        return averaged(
            self.arrays(name),
            self.persons,
            self.settings.average,
            symmetric=self.settings.symmetric,
        )


def template_folder(settings: TemplateSettings) -> Path:
    """The folder of the template, as in TemplateFlow, relative to that of all results."""
    folder = Path(f"tpl-{settings.name}")
    return folder if settings.cohort is None else folder / f"cohort-{settings.cohort}"


def template_name(settings: TemplateSettings, suffix: str, extension: str, **labels: str) -> Path:
    """A file of the template, relative to the folder of all results."""
    entities = {"tpl": settings.name}
    if settings.cohort is not None:
        entities["cohort"] = settings.cohort
    name = BidsName({**entities, "res": _RESOLUTION, **labels}, suffix, extension)
    return template_folder(settings) / str(name)


def brain_path(settings: TemplateSettings, suffix: str, heads: bool) -> Path:
    """The brain that all scans were registered to, relative to the folder of all results."""
    labels = {"desc": "brain"} if heads else {}
    return template_name(settings, suffix, ".nii.gz", **labels)


def publish(
    outputs: Outputs,
    *,
    out: Path,
    stage: Path,
    root: Path,
    record: Mapping[str, Any],
    name: str,
) -> dict[str, Any]:
    """Write all files, and move them to their places.

    Args:
        outputs: what they are made of.
        out: the folder of the results.
        stage: a folder beside, with the derivatives of all scans.
        root: the folder of the scans.
        record: what is known beside.
        name: of the file of the record.

    Returns:
        The record.

    Raises:
        InputError: a file cannot be written.
    """
    writer = _Writer(outputs, stage)
    writer.write(root, record["left_out"])
    group = sorted(writer.names)
    sizes = {file: (stage / file).stat().st_size for file in group}
    for person in outputs.people:
        sizes.update(person.record["outputs"])
    files = list(sizes)
    for one in outputs.rounds:
        for file in (one.image, one.mask):
            sizes[file] = (out / file).stat().st_size
    whole = {
        "name": outputs.settings.name,
        "image": writer.image.as_posix(),
        "mask": writer.mask.as_posix(),
        "settings": outputs.settings.as_json(),
        "rounds": [{"name": one.name, **one.measures} for one in outputs.rounds],
        "final": dict(outputs.final),
        "working_to_template": outputs.working.matrix.tolist(),
        "placements": {k: a.matrix.tolist() for k, a in outputs.rounds[-1].placements.items()},
        "versions": versions(),
        "machine": machine(),
        **record,
        "group_outputs": group,
        "outputs": sizes,
    }
    _move(stage, out, files, {*sizes}, name)
    Pages.of(out, {}).write()
    write_json(whole, out / name)
    (out / HIDDEN / EARLIER).unlink(missing_ok=True)
    return whole


def _move(stage: Path, out: Path, files: Sequence[str], kept: set[str], record: str) -> None:
    """Move files to their places; those of an earlier template go first, its record before all.

    Their names are kept until all is done, for a run after a kill.
    """
    earlier, names = set[str](), out / HIDDEN / EARLIER
    with suppress(OSError, ValueError, KeyError, TypeError):
        earlier |= set(read_json(names)["outputs"])
    with suppress(OSError, ValueError, KeyError, TypeError):
        earlier |= set(read_json(out / record)["outputs"])
    try:
        write_json({"outputs": sorted(earlier)}, names)
        (out / record).unlink(missing_ok=True)
        for file in earlier - kept:
            (out / file).unlink(missing_ok=True)
        for file in files:
            if (stage / file).exists():  # else a run that was killed has moved it
                (out / file).parent.mkdir(parents=True, exist_ok=True)
                os.replace(stage / file, out / file)
    except OSError as error:
        raise InputError(f"cannot write to {out}: {error.strerror or error}") from error


@dataclass
class _Writer:
    """Writes the files of the group to the stage."""

    outputs: Outputs
    stage: Path
    names: set[str] = field(default_factory=set)

    @property
    def image(self) -> Path:
        """The file of the brain that all scans were registered to."""
        made = self.outputs
        return brain_path(made.settings, made.suffix, made.heads)

    @property
    def mask(self) -> Path:
        """The file of its mask."""
        return self._name("mask", desc="brain")

    def _name(self, suffix: str, extension: str = ".nii.gz", **labels: str) -> Path:
        return template_name(self.outputs.settings, suffix, extension, **labels)

    def write(self, root: Path, left_out: Mapping[str, str]) -> None:
        """Write all files but the record."""
        made = self.outputs
        prior = averaged(made.arrays(MASK), made.persons, symmetric=made.settings.symmetric) / FULL
        inside = made.template.data > 0
        spread = self._spread(inside)
        shift = self._displacements()
        about = self._about()
        jobs: list[Callable[[], object]] = [
            lambda: self._image(self.image, made.template.data, {**about, "SkullStripped": True}),
            lambda: self._image(
                self._name("probseg", label="brain"),
                prior.astype(np.float32),
                {"Description": "Share of the people whose brain is here"},
            ),
            lambda: self._labels(self.mask, inside, {"Type": "Brain", "Description": "1 inside"}),
            lambda: self._image(
                self._name(made.suffix, stat="std"),
                spread,
                {"Description": "Standard deviation of the people's intensities"},
            ),
            lambda: self._image(
                self._name("displacement", stat="rms"),
                shift,
                {
                    "Description": "How far people lie from the template after the affine "
                    "alignment: root of the mean squared displacement",
                    "Units": "mm",
                },
            ),
        ]
        if made.heads:
            head = {**about, "SkullStripped": False}
            whole = self._name(made.suffix)
            jobs.append(lambda: self._image(whole, made.average(HEAD), head))
        for suffix in made.contrasts:
            jobs.append(
                lambda suffix=suffix: self._image(  # type: ignore[misc]
                    self._name(suffix), made.average(suffix), {**about, "SkullStripped": False}
                )
            )
        run_in_parallel(jobs)
        if any(name.suffix == DSEG for name, _ in made.people[0].scan.also):
            self._votes()
        self._tables(left_out)
        self._descriptions(root)
        self._page(spread, shift, left_out)

    def _about(self) -> dict[str, Any]:
        settings = self.outputs.settings
        return {
            "Description": f"Unbiased {settings.average} of {len(self.outputs.people)} scans after "
            f"{settings.rounds} rounds of deformable registration",
            "Units": "arbitrary: 100 is the mean in the brain",
            "Sources": [person.scan.path.name for person in self.outputs.people],
        }

    def _spread(self, inside: np.ndarray) -> np.ndarray:
        """The standard deviation over scans, zero outside the brain."""
        return np.where(inside, mean_and_spread(self.outputs.arrays(IMAGE))[1], 0)

    def _displacements(self) -> np.ndarray:
        """The root of the mean squared displacement on the template, mm."""
        from ..space.resample import resample

        made = self.outputs
        total = np.zeros(made.working_grid.shape)
        for displacement in made.arrays(FIELD):
            total += np.square(np.tensordot(made.field_matrix, displacement, axes=1)).sum(axis=0)
        size = np.sqrt(total / len(made.people)).astype(np.float32)
        volume = Volume(size, made.working_grid)
        moved = resample(volume, made.grid, made.working.inverse(), padding="border")
        return moved.data

    def _votes(self) -> None:
        """The label of each voxel by majority, how many agree, and the share of each label."""
        made = self.outputs
        votes = Votes(made.arrays(DSEG), made.persons)
        best, most = votes.winners()
        about = {"Description": "The label that most people have here", "Manual": False}
        self._labels(self._name(DSEG), votes.volume(best), about)
        agree = {"Description": "Share of the people who have the label that most have"}
        self._image(self._name("probseg", desc="agreement"), votes.volume(most), agree)
        for label in votes.labels:
            about_label = {"Description": f"Share of the people who have the label {label} here"}
            self._image(
                self._name("probseg", label=str(label)),
                votes.volume(votes.share(label)),
                about_label,
            )
        names = {label: made.label_names.get(label, f"label-{label}") for label in votes.labels}
        lines = ["index\tname", *(f"{label}\t{name}" for label, name in names.items()), ""]
        self._text(self._name(DSEG, ".tsv"), "\n".join(lines))

    def _tables(self, left_out: Mapping[str, str]) -> None:
        columns = ["participant_id", "scan", "used", "scale", "local_ncc", "least_determinant"]
        lines = ["\t".join([*columns, "reason"])]
        placements = self.outputs.rounds[-1].placements
        for person in self.outputs.people:
            key = person.scan.key
            numbers = (
                float(np.exp(np.trace(log_stretch(placements[key])) / 3)),
                person.record["similarity"]["local_ncc"],
                person.record["jacobian"]["minimum"],
            )
            cells = [f"sub-{person.scan.subject}", key, "yes", *map(number_text, numbers)]
            lines.append("\t".join([*cells, NOT_KNOWN]))
        for key, reason in sorted(left_out.items()):
            cells = [key.partition("_")[0], key, "no", *[NOT_KNOWN] * 3, reason]
            lines.append("\t".join(cells))
        self._text(Path(PARTICIPANTS), "\n".join([*lines, ""]))
        names = list(dict.fromkeys(name for one in self.outputs.rounds for name in one.measures))
        names = list(dict.fromkeys([*names, *self.outputs.final]))
        rows = [(one.name, one.measures) for one in self.outputs.rounds]
        rows.append(("finished", self.outputs.final))
        table = ["\t".join(["round", *names])]
        for name, measures in rows:
            table.append("\t".join([name, *(number_text(measures.get(key)) for key in names)]))
        self._text(Path(ROUNDS_TABLE), "\n".join([*table, ""]))

    def _descriptions(self, root: Path) -> None:
        settings, grid = self.outputs.settings, self.outputs.grid
        spacing = [round(size, 6) for size in grid.spacing]
        about = {
            "Name": settings.name,
            "Identifier": settings.name,
            "BIDSVersion": BIDS_VERSION,
            "Authors": [],
            "GeneratedBy": [{"Name": "voxwarp", "Version": version_of("voxwarp")}],
            "res": {
                _RESOLUTION: {
                    "origin": grid.affine[:3, 3].tolist(),
                    "shape": list(grid.shape),
                    "zooms": spacing,
                }
            },
        }
        self._json(Path(f"tpl-{settings.name}", "template_description.json"), about)
        self._json(Path(DESCRIPTION), dataset_description(root, f"{settings.name}, a template"))
        ignored = [*IGNORED, "rounds", "tpl-*", "*.tsv", "template.json"]
        self._text(Path(".bidsignore"), "\n".join([*ignored, ""]))

    def _page(self, spread: np.ndarray, shift: np.ndarray, left_out: Mapping[str, str]) -> None:
        made = self.outputs
        shown = Shown(
            name=made.settings.name,
            template=made.template,
            rounds=made.rounds,
            final=made.final,
            spread=Volume(spread, made.grid),
            displacement=Volume(np.where(made.template.data > 0, shift, 0), made.grid),
            scans=len(made.people),
            left_out=left_out,
            settings=made.settings,
        )
        # The averages of the rounds are in their places already.
        self._text(Path(REPORT), template_page(shown, self.stage.parents[2]))

    # ------------------------------------------------------------------------------- Files

    def _image(self, name: Path, data: np.ndarray, about: Mapping[str, Any]) -> None:
        self._volume(name, Volume(data.astype(np.float32), self.outputs.grid), about)

    def _labels(self, name: Path, data: np.ndarray, about: Mapping[str, Any]) -> None:
        data = data.astype(np.uint8) if data.dtype == bool else data
        self._volume(name, Volume(data, self.outputs.grid, is_label_file=True), about)

    def _volume(self, name: Path, volume: Volume, about: Mapping[str, Any]) -> None:
        self._add(name)
        write_volume(volume, self.stage / name)
        sidecar = name.with_name(name.name.replace(".nii.gz", ".json"))
        self._json(sidecar, {**about, "SpatialReference": self.outputs.settings.name})

    def _json(self, name: Path, contents: Mapping[str, Any]) -> None:
        self._add(name)
        write_json(contents, self.stage / name)

    def _text(self, name: Path, text: str) -> None:
        self._add(name)
        write_bytes(self.stage / name, text.encode())

    def _add(self, name: Path) -> None:
        self.names.add(name.as_posix())
        (self.stage / name).parent.mkdir(parents=True, exist_ok=True)
