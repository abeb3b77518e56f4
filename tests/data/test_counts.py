"""How many scans, subjects and label maps there are."""

from pathlib import Path

from voxwarp.data.counts import Counts, count_scans
from voxwarp.data.scans import ScanRecord
from voxwarp.data.sources import Split


def scan(dataset: str, subject: str, split: Split, labels: Path | None = None) -> ScanRecord:
    return ScanRecord(Path(f"{subject}.nii"), labels, subject, dataset, split, "a row")


def test_scans_subjects_and_labels_are_counted_by_data_set_and_split() -> None:
    mapped = Path("labels.nii")
    scans = [
        *(scan("a", "ann", "train", mapped), scan("a", "ann", "train"), scan("a", "bob", "train")),
        *(scan("a", "cleo", "test"), scan("b", "ann", "val", mapped)),
    ]
    none = Counts(0, 0, 0)
    assert count_scans(scans) == {
        "a": {"train": Counts(3, 2, 1), "val": none, "test": Counts(1, 1, 0)},
        "b": {"train": none, "val": Counts(1, 1, 1), "test": none},
    }
