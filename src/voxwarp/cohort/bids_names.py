"""File names of BIDS: entities, suffix and extension, read and written in the order of BIDS."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import PurePath

#: The entities in the order in which BIDS writes them (1.11, schema/rules/entities).
ORDER = (
    *("sub", "tpl", "ses", "cohort", "sample", "task", "tracksys", "acq", "nuc", "voi", "ce"),
    *("trc", "stain", "rec", "dir", "run", "mod", "echo", "flip", "inv", "mt", "part", "proc"),
    *("hemi", "space", "split", "recording", "chunk", "atlas", "seg", "scale", "res", "den"),
    *("from", "to", "mode", "label", "stat", "desc"),
)
#: The entities by the long names that filters may use for them, as in PyBIDS.
LONG_NAMES = {
    "subject": "sub",
    "session": "ses",
    "acquisition": "acq",
    "ceagent": "ce",
    "reconstruction": "rec",
    "direction": "dir",
    "inversion": "inv",
    "processing": "proc",
    "hemisphere": "hemi",
    "resolution": "res",
    "density": "den",
    "description": "desc",
    "segmentation": "seg",
}
_PAIR = re.compile(r"([A-Za-z]+)-([A-Za-z0-9+]+)")
_ENDING = re.compile(r"\.[A-Za-z0-9]+(\.gz|\.json)?$")


@dataclass(frozen=True)
class BidsName:
    """The name of a file in a BIDS data set.

    Args:
        entities: labels by entity, such as {"sub": "01"}.
        suffix: such as T1w.
        extension: such as .nii.gz.

    Example:
        >>> name = BidsName.of("sub-01_run-2_T1w.nii.gz")
        >>> str(name.with_entities(space="MNI152NLin2009aSym", desc="preproc"))
        'sub-01_run-2_space-MNI152NLin2009aSym_desc-preproc_T1w.nii.gz'
    """

    entities: Mapping[str, str]
    suffix: str
    extension: str

    @classmethod
    def of(cls, path: str | PurePath) -> "BidsName | None":
        """The parts of a file name; None if it is not one of BIDS."""
        name = PurePath(path).name
        ending = _ENDING.search(name)
        if ending is None:
            return None
        *pairs, suffix = name[: ending.start()].split("_")
        matches = [_PAIR.fullmatch(pair) for pair in pairs]
        if not suffix.isalnum() or not pairs or not all(matches):
            return None
        return cls({m[1]: m[2] for m in matches if m}, suffix, ending[0])

    def with_entities(self, **labels: str | None) -> "BidsName":
        """The same name with further entities, or others; None leaves one out."""
        entities = {**self.entities, **labels}
        return replace(self, entities={k: v for k, v in entities.items() if v is not None})

    def __str__(self) -> str:
        known = [(name, self.entities[name]) for name in ORDER if name in self.entities]
        others = [pair for pair in self.entities.items() if pair[0] not in ORDER]
        pairs = [f"{name}-{label}" for name, label in (*known[:1], *others, *known[1:])]
        return f"{'_'.join([*pairs, self.suffix])}{self.extension}"


def label_of(text: str) -> str:
    """A label of BIDS, letters and digits alone, made of any text."""
    return re.sub(r"[^A-Za-z0-9]", "", text)


def without_prefix(label: str, entity: str) -> str:
    """A label as users give it, with or without its entity: sub-01 and 01 are 01."""
    return label.removeprefix(f"{entity}-")
