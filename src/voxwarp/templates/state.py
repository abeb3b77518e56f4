"""The rounds of a template: what each made, as it is kept from one run of the command to the next.

A round whose state is there is not done again, so a killed command goes on where it was.
"""

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .._json import read_json
from ..cohort.derivatives import write_json
from ..space.transform import Affine

ROUNDS = "rounds"  # the folder of the averages


@dataclass(frozen=True)
class Round:
    """A round.

    Args:
        name: such as "affine 1".
        image, mask: files of the average and of its brain, relative to the template's folder.
        placements: by the key of a scan, the affine map from the template to it, RAS mm.
        working: the affine map from the working space of the model to the template.
        measures: what is shown of it.
    """

    name: str
    image: str
    mask: str
    placements: Mapping[str, Affine]
    working: Affine
    measures: Mapping[str, float] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The round as plain values."""
        matrices = {key: affine.matrix.tolist() for key, affine in self.placements.items()}
        return {
            **asdict(self),
            "placements": matrices,
            "working": self.working.matrix.tolist(),
            "measures": dict(self.measures),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Round":
        """The round from ``as_json``."""
        placements = {key: Affine(np.array(x)) for key, x in values["placements"].items()}
        working = Affine(np.array(values["working"]))
        return cls(**{**values, "placements": placements, "working": working})


@dataclass(frozen=True)
class Store:
    """Where the rounds are kept.

    Args:
        folder: of the states, and of the arrays of the workers.
    """

    folder: Path

    def path(self, name: str) -> Path:
        """The file of a round's state."""
        return self.folder / f"{name.replace(' ', '-')}.json"

    def read(self, name: str, out: Path) -> Round | None:
        """A round that is done, with its files in the template's folder; else None."""
        try:
            found = Round.from_json(read_json(self.path(name)))
        except (OSError, ValueError, KeyError, TypeError):
            return None
        whole = all((out / file).is_file() for file in (found.image, found.mask))
        return found if whole else None

    def write(self, done: Round) -> None:
        """Keep a round; its files must be there."""
        write_json(done.as_json(), self.path(done.name))

    def stage(self, name: str) -> Path:
        """The folder of the workers' results in a part of a round."""
        return self.folder / name.replace(" ", "-")

    def drop(self, name: str) -> None:
        """Remove the workers' results of a part of a round."""
        shutil.rmtree(self.stage(name), ignore_errors=True)
