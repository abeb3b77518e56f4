"""Structures: which label values they are, their numbers, and left and right."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import InputError
from .sources import Split, Structures
from .tables import check_columns, read_table


@dataclass(frozen=True)
class Table:
    """The structures of a training or an evaluation.

    Args:
        names: names of the structures 1..K; K may be 0.
        numbers: structure number 1..K by label value; several values may be one structure.
        ignored: label value of voxels that are not labelled; their number is K+1.
    """

    names: list[str]
    numbers: dict[int, int]
    ignored: int | None = None

    @property
    def largest(self) -> int:
        """The largest number: K, or K+1 if a value is ignored."""
        return len(self.names) + (self.ignored is not None)

    @property
    def dtype(self) -> np.dtype:
        """The smallest type that holds all numbers."""
        return np.dtype(np.uint8 if self.largest < 256 else np.uint16)

    @property
    def mirror(self) -> np.ndarray:
        """The number of the structure on the other side for each number, see ``mirror_of``."""
        unlabelled = [self.largest] if self.ignored is not None else []
        return np.array([*mirror_of(self.names), *unlabelled], self.dtype)

    def numbered(self, labels: np.ndarray) -> np.ndarray:
        """Replace label values by structure numbers; other values become 0."""
        all_numbers = dict(self.numbers)
        if self.ignored is not None:
            all_numbers[self.ignored] = self.largest
        values = np.array(sorted(all_numbers) or [0])
        numbers = np.array([all_numbers.get(value, 0) for value in values.tolist()], self.dtype)
        at = np.searchsorted(values, labels := labels.astype(np.int64))
        at = np.minimum(at, len(values) - 1)
        return np.where(values[at] == labels, numbers[at], 0).astype(self.dtype)

    def missing(self, values: Iterable[int]) -> list[str]:
        """Names of the structures that have none of the label values."""
        present = {self.numbers[value] for value in values if value in self.numbers}
        return [name for number, name in enumerate(self.names, 1) if number not in present]


def mirror_of(structures: Sequence[str]) -> np.ndarray:
    """The number of the structure on the other side, for each number: (K+1,); 0 is background.

    Two names are a pair if they differ only in a separate word left/right, L/R or lh/rh, as in
    ``cortex_L``, ``Left Hippocampus`` and ``ctx-lh-insula``. Any other structure is its own
    mirror image.
    """
    number = {name: i for i, name in enumerate(structures, 1)}
    other = [number.get(_other_side(name), i) for name, i in number.items()]
    return np.array([0, *other], np.uint8 if len(structures) < 256 else np.uint16)


_SIDES = {"left": "right", "lh": "rh", "l": "r"}
_SIDES |= {right: left for left, right in _SIDES.items()}


def _other_side(name: str) -> str:
    """A name with left and right exchanged."""

    def swapped(match: re.Match) -> str:
        word, other = match[0], _SIDES[match[0].lower()]
        return other.upper() if word.isupper() else other.title() if word.istitle() else other

    sides = rf"(?<![^\W_])({'|'.join(_SIDES)})(?![^\W_])"
    return re.sub(sides, swapped, name, flags=re.IGNORECASE)


def structures_of(settings: Structures, values: Callable[[Split], set[int]]) -> Table:
    """List the structures of a configuration.

    If the configuration names none, these are the label values of the train scans, or of the val
    scans if no train scan has labels (labels then serve for the scores alone).

    Args:
        settings: the section ``data.structures``.
        values: function that returns the label values of a split; called only if needed.

    Raises:
        InputError: the table is missing or wrong, or there are too many label values.
    """
    if settings.table is not None:
        names_by_value = _read_names(settings, Path(settings.table))
        names = sorted(set(names_by_value.values()))
        numbers = {value: names.index(name) + 1 for value, name in names_by_value.items()}
        if settings.ignore in numbers:
            raise InputError(
                f"data.structures.ignore must not be the value of a structure, got "
                f"{settings.ignore}, which is {names_by_value[settings.ignore]!r} in "
                f"{settings.table}"
            )
        return Table(names, numbers, settings.ignore)
    listed = None if settings.values is None else set(settings.values)
    found = listed or values("train") or values("val")
    in_order = sorted(found - {settings.ignore})
    largest = np.iinfo(np.uint16).max
    if len(in_order) > largest:
        raise InputError(
            f"data.structures: the label maps hold {len(in_order)} different values, more than "
            f"{largest}; name the structures with data.structures.values or a table"
        )
    return Table(
        [str(v) for v in in_order], {v: i for i, v in enumerate(in_order, 1)}, settings.ignore
    )


def _read_names(settings: Structures, table: Path) -> dict[int, str]:
    """Names by label value; rows without a name are left out."""
    records, columns = read_table(table)
    for column in (settings.value, settings.name):
        check_columns(f"{{{column}}}", columns, table)
    names: dict[int, str] = {}
    for where, values in records:
        value, name = values.get(settings.value, ""), values.get(settings.name, "")
        if not name:
            continue
        if not re.fullmatch("0*[1-9][0-9]{0,8}", value):
            raise InputError(
                f"{where}: a label value must be a whole number from 1 to 999999999, got "
                f"{value!r}, in {table}"
            )
        first = names.setdefault(int(value), name)
        if first != name:
            raise InputError(
                f"{where}: label value {value} is named {name!r}, but an earlier row names it "
                f"{first!r}, in {table}"
            )
    if not names:
        raise InputError(f"table {table}: the column {settings.name} is empty in every row")
    return names


def label_values(labels: np.ndarray) -> set[int]:
    """The label values of an array, from 1 on; empty if it holds fractions, so no labels."""
    labels = labels[labels > 0]
    if labels.dtype.kind == "f" and not (labels % 1 == 0).all():
        return set()
    if labels.size and labels.max() < 1 << 20:  # the usual case, without sorting millions
        return set(np.flatnonzero(np.bincount(labels.astype(np.int64))).tolist())
    return {int(value) for value in np.unique(labels)}
