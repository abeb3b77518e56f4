"""A registration as derivatives of BIDS: names, sidecars, figures and the report."""

import base64
import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .._files import run_in_parallel, write_bytes
from .._provenance import version_of
from ..errors import InputError
from .bids_names import BidsName
from .dataset import CohortScan

if TYPE_CHECKING:
    from ..registration.result import Registration
    from ..space.grid import Grid
    from ..space.volume import Volume

BIDS_VERSION = "1.11.1"
RAW = "raw"  # the name by which URIs of BIDS refer to the data set
DESCRIPTION = "dataset_description.json"
#: What a validator of BIDS does not know: BEP014 (transforms) is not part of BIDS yet.
IGNORED = (
    *("*.html", "quality.tsv", "group_T1w.tsv", "logs", "group", "figures", "*_xfm.*"),
    *("*_metrics.json", "*_roi.*", ".voxwarp"),
)
LABELS = "dseg", "mask", "roi"  # suffixes of label maps

_MASK = {"Description": "Brain: 1 inside, 0 outside", "Type": "Brain"}
FIGURES, THUMBNAIL = "figures", "thumbnail"  # the folder of pictures, and the small one
_CONTOURS = "contours"


def result_name(scan: CohortScan, suffix: str, extension: str, **labels: str) -> Path:
    """A file of a result, relative to the derivatives."""
    name = replace(scan.name, suffix=suffix, extension=extension).with_entities(**labels)
    return scan.folder / str(name)


RECORD = "registration"  # the description of a record in its name


def record_path(scan: CohortScan, space: str) -> Path:
    """The record of a result, relative to the derivatives; it is written last."""
    return result_name(scan, "metrics", ".json", space=space, desc=RECORD)


def records(out: Path) -> Iterator[Path]:
    """The records of all results in a folder of derivatives, in no order."""
    for folder in sorted(out.glob("sub-*")):
        for place, inner, files in os.walk(folder):
            inner[:] = [name for name in inner if name != FIGURES]
            for file in files:
                if file.endswith(f"_desc-{RECORD}_metrics.json"):
                    yield Path(place, file)


def warped_path(scan: CohortScan, space: str) -> Path:
    """The scan in the space, relative to the derivatives."""
    return result_name(scan, scan.name.suffix, ".nii.gz", space=space, desc="preproc")


def transform_path(scan: CohortScan, start: str, end: str) -> Path:
    """The transform by which images go from one space to the other, relative to the derivatives."""
    return result_name(scan, "xfm", ".h5", **{"from": start, "to": end, "mode": "image"})


def thumbnail_path(scan: CohortScan, space: str) -> Path:
    """A small picture of a result, relative to the derivatives."""
    return _figure(scan, space, THUMBNAIL)


def report_path(scan: CohortScan) -> Path:
    """The report on a result, relative to the derivatives."""
    return Path(f"{scan.key}.html")


def _figure(scan: CohortScan, space: str, desc: str) -> Path:
    name = replace(scan.name, extension=".jpg").with_entities(space=space, desc=desc)
    return Path(f"sub-{scan.subject}", FIGURES, str(name))


def dataset_description(source: Path, name: str) -> dict[str, Any]:
    """The contents of ``dataset_description.json`` of the derivatives.

    Args:
        source: the folder of the data set.
        name: of the data set.
    """
    uri = source.absolute().as_uri()
    return {
        "Name": f"voxwarp: registrations of {name}",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "voxwarp", "Version": version_of("voxwarp")}],
        "SourceDatasets": [{"URL": uri}],
        "DatasetLinks": {RAW: uri},
    }


def write_json(contents: Mapping[str, Any], path: Path) -> None:
    """Write a JSON file, always with the same bytes for the same contents."""
    write_bytes(path, (json.dumps(contents, indent=2, ensure_ascii=False) + "\n").encode())


@dataclass(frozen=True, eq=False)
class Derivatives:
    """Writes the files of one result.

    Args:
        scan: the scan.
        result: its registration.
        space: the name of the space.
        source: the folder of the data set, in which the scans lie.
        stage: where the files are written, at their paths relative to the derivatives.
        names: of the files that were written.
    """

    scan: CohortScan
    result: "Registration"
    space: str
    source: Path
    stage: Path
    names: set[Path] = field(default_factory=set)
    _naming: threading.Lock = field(default_factory=threading.Lock)

    def write(self) -> None:
        """Write all files but the record."""
        jobs: list[Callable[[], object]] = [
            self._write_report,
            lambda: self._write_transform(self.own_space, self.space),
            lambda: self._write_transform(self.space, self.own_space),
            self._write_images,
        ]
        run_in_parallel(jobs)
        for name, path in self.scan.also:
            self._write_other(name, path)
        for path in self.scan.lesions:
            if (lesion := BidsName.of(path)) is not None:
                self._write_other(lesion, path)

    @property
    def own_space(self) -> str:
        """The name of the scan's own space, which is its suffix: T1w."""
        return self.scan.name.suffix

    def _write_images(self) -> None:
        from ..space.volume import write_volume

        result, scan, space = self.result, self.scan, self.space
        seen_as = result.metrics["preparation"]["moving"]["seen_as"]
        transform = transform_path(scan, self.own_space, space)
        warped = warped_path(scan, space)
        self._file(warped, lambda path: write_volume(result.warped, path))
        about = {
            "Description": f"The {self.own_space} scan in the space, its own intensities, "
            "resampled once",
            "SkullStripped": seen_as == "brain",
        }
        self._sidecar(warped, [scan.path], [transform], about, in_space=True)
        own = result_name(scan, "mask", ".nii.gz", desc="brain")
        moved = result_name(scan, "mask", ".nii.gz", space=space, desc="brain")
        mask, moved_mask = self.masks()
        self._file(own, lambda path: write_volume(mask, path))
        self._file(moved, lambda path: write_volume(moved_mask, path))
        reference = {"SpatialReference": self.uri(scan.path)}
        self._sidecar(own, [scan.path], [], {**_MASK, **reference})
        self._sidecar(moved, [], [own, transform], _MASK, in_space=True)

    def masks(self) -> "tuple[Volume, Volume]":
        """The brain mask on the scan's own grid, and on that of the space."""
        from ..preparation.masking import brain_mask
        from ..space.resample import resample

        result = self.result
        mask, moved = result.moving_mask, result.warped_mask
        if mask is None or moved is None:  # a skull-stripped scan: what is not zero
            mask = brain_mask(result.moving.image, result.moving_grid)
            moved = resample(mask, result.fixed_grid, result.transform, interpolation="nearest")
        return mask, moved

    def _write_transform(self, start: str, end: str) -> None:
        from ..space.composite import write_composite

        path = transform_path(self.scan, start, end)
        chain = self.result.transform if start == self.own_space else self.result.inverse
        self._file(path, lambda target: write_composite(list(chain.transforms), target))  # type: ignore[arg-type]
        spaces = {"FromSpace": start, "ToSpace": end, "Type": "ITK composite transform"}
        self._sidecar(path, [self.scan.path], [], spaces)

    def _write_other(self, name: BidsName, path: Path) -> None:
        """Write another image in the space: labels by nearest neighbour, all others linearly."""
        from ..registration.apply import apply_to_file

        is_labels = name.suffix in LABELS
        desc = name.entities.get("desc") if is_labels else "preproc"
        moved = replace(name, extension=".nii.gz").with_entities(space=self.space, desc=desc)
        folder = self.scan.folder.parent / _datatype(path)
        target, reference = folder / str(moved), self._reference(path)
        if reference is not None:
            target = folder / str(moved.with_entities(res="native"))
        self._file(
            target,
            lambda file: apply_to_file(
                path,
                file,
                self.result,
                reference=reference,
                interpolation="nearest" if is_labels else None,
            ),
        )
        transform = transform_path(self.scan, self.own_space, self.space)
        about: dict[str, Any] = {"Description": "The image in the space, resampled once"}
        if not is_labels:
            about["SkullStripped"] = False
        if reference is not None:
            about["Resolution"] = "that of the image itself, on the field of view of the space"
        self._sidecar(target, [path], [transform], about, in_space=True)

    def _reference(self, path: Path) -> "Volume | None":
        """Of a series, the grid of the space with the voxel size of the series; else None."""
        from ..space.image_file import open_image
        from ..space.volume import Volume, read_placement

        image = open_image(path, "image", header_only=True)
        if len(image.shape) < 4 or image.shape[3] == 1:
            return None
        size = float(np.exp(np.mean(np.log(read_placement(path).grid.spacing))))
        grid = with_voxel_size(self.result.fixed_grid, size)
        return Volume(np.broadcast_to(np.uint8(0), grid.shape), grid, f"space {self.space}")

    def _write_report(self) -> None:
        from ..pictures.panels import contours, rendered
        from ..pictures.report import report
        from ..pictures.scene import SlicedScene
        from ..pictures.thumbnails import thumbnail

        text = report(self.result.scene, self.result.metrics, name=self.scan.key)
        self._file(report_path(self.scan), lambda path: write_bytes(path, text.encode()))
        sliced = SlicedScene(self.result.scene)
        picture = contours(sliced).pictures[0]
        planes = [rendered(picture, plane) for plane in picture.mosaic]
        self._picture(_figure(self.scan, self.space, _CONTOURS), _stacked(planes))
        self._picture(thumbnail_path(self.scan, self.space), thumbnail(sliced))

    def _picture(self, name: Path, image: np.ndarray) -> None:
        from ..pictures.pages import jpeg

        contents = base64.b64decode(jpeg(image).partition(",")[2])
        self._file(name, lambda path: write_bytes(path, contents))

    def _file(self, name: Path, write: Callable[[Path], object]) -> None:
        with self._naming:
            if name in self.names:
                raise InputError(
                    f"two files of {self.scan.key} would have the name {name.name}; leave one of "
                    f"the images out of `also`"
                )
            self.names.add(name)
        path = self.stage / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path)

    def _sidecar(
        self,
        name: Path,
        raw: list[Path],
        derived: list[Path],
        about: Mapping[str, Any],
        *,
        in_space: bool = False,
    ) -> None:
        """The JSON file beside an image or a transform."""
        sources = [self.uri(path) for path in raw] + [f"bids::{p.as_posix()}" for p in derived]
        space = {"SpatialReference": self.space} if in_space else {}
        stem = str(name).removesuffix(".gz").removesuffix(".nii").removesuffix(".h5")
        contents = {"Sources": sources, **space, **about}
        self._file(Path(f"{stem}.json"), lambda path: write_json(contents, path))

    def uri(self, path: Path) -> str:
        """The address of an input: relative to the data set, if it is in that."""
        try:
            return f"bids:{RAW}:{path.relative_to(self.source).as_posix()}"
        except ValueError:
            return path.absolute().as_uri()


def with_voxel_size(grid: "Grid", size: float) -> "Grid":
    """The grid of cubic voxels of a size, in mm, over the same field of view."""
    from ..space.grid import Grid

    spacing = np.asarray(grid.spacing)
    shape = np.maximum(2, np.ceil(np.asarray(grid.shape) * spacing / size - 1e-3)).astype(int)
    affine = grid.affine @ np.diag([*(size / spacing), 1.0])
    middle = grid.to_world((np.asarray(grid.shape) - 1) / 2)
    affine[:3, 3] = middle - affine[:3, :3] @ ((shape - 1) / 2)
    return Grid(shape.tolist(), affine, grid.space_code)


def _datatype(path: Path) -> str:
    """The folder of an image's type, such as anat or func."""
    return path.parent.name if path.parent.name in ("func", "dwi", "perf", "pet") else "anat"


def _stacked(images: list[np.ndarray]) -> np.ndarray:
    """Pictures one below the other, (height, width, 3) uint8."""
    width = max(image.shape[1] for image in images)
    padded = [np.pad(image, ((0, 4), (0, width - image.shape[1]), (0, 0))) for image in images]
    return np.concatenate(padded)
