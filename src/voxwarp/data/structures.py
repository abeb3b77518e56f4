"""The structures of a training: which label values count, how they are numbered and mirrored."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import InputError
from .sources import Split, Structures
from .tables import check_pattern, read_table


@dataclass(frozen=True)
class Table:
    """The structures that count.

    Args:
        names: of the structures 1..K; K may be 0.
        numbers: 1..K by label value; several values may stand for one structure.
    """

    names: list[str]
    numbers: dict[int, int]

    @property
    def dtype(self) -> np.dtype:
        """The smallest that holds the numbers 0..K."""
        return np.dtype(np.uint8 if len(self.names) < 256 else np.uint16)

    def numbered(self, labels: np.ndarray) -> np.ndarray:
        """Structure numbers in place of label values; 0 for those that do not count."""
        values = np.array(sorted(self.numbers) or [0])
        numbers = np.array([self.numbers.get(value, 0) for value in values.tolist()], self.dtype)
        at = np.searchsorted(values, labels := labels.astype(np.int64))
        at = np.minimum(at, len(values) - 1)
        return np.where(values[at] == labels, numbers[at], 0).astype(self.dtype)

    def missing(self, values: Iterable[int]) -> list[str]:
        """Names of the structures that none of the label values belongs to."""
        there = {self.numbers[value] for value in values if value in self.numbers}
        return [name for number, name in enumerate(self.names, 1) if number not in there]


def mirror_of(structures: Sequence[str]) -> np.ndarray:
    """(K+1,) number of the structure on the other side, for each number; 0 is the background.

    Names belong together that differ in left and right, L and R or lh and rh alone, as words of
    their own: ``cortex_L``, ``Left Hippocampus``, ``ctx-lh-insula``. All others are their own.
    """
    number = {name: i for i, name in enumerate(structures, 1)}
    other = [number.get(_other_side(name), i) for name, i in number.items()]
    return np.array([0, *other], np.uint8 if len(structures) < 256 else np.uint16)


_SIDES = {"left": "right", "lh": "rh", "l": "r"}
_SIDES |= {right: left for left, right in _SIDES.items()}


def _other_side(name: str) -> str:
    def swapped(match: re.Match) -> str:
        word, other = match[0], _SIDES[match[0].lower()]
        return other.upper() if word.isupper() else other.title() if word.istitle() else other

    sides = rf"(?<![^\W_])({'|'.join(_SIDES)})(?![^\W_])"
    return re.sub(sides, swapped, name, flags=re.IGNORECASE)


def structures_of(wanted: Structures, values: Callable[[Split], set[int]]) -> Table:
    """The structures that the configuration names; else the label values of a split.

    That is train, or val where there are labels for nothing but the scores.

    Args:
        wanted: the configuration's.
        values: the label values of a split; asked for where the configuration names none.

    Raises:
        InputError: the table is missing or wrong, or there are too many label values.
    """
    if wanted.table is not None:
        named = _named(wanted, Path(wanted.table))
        names = sorted(set(named.values()))
        return Table(names, {value: names.index(name) + 1 for value, name in named.items()})
    given = None if wanted.values is None else set(wanted.values)
    numbers = sorted(given or values("train") or values("val"))
    if len(numbers) > np.iinfo(np.uint16).max:
        raise InputError(f"data.structures: {len(numbers)} label values are no structures")
    return Table([str(v) for v in numbers], {v: i for i, v in enumerate(numbers, 1)})


def _named(wanted: Structures, table: Path) -> dict[int, str]:
    """Names by label value, of the rows that have one."""
    records, columns = read_table(table)
    for column in (wanted.value, wanted.name):
        check_pattern(f"{{{column}}}", columns, f"table {table}")
    named: dict[int, str] = {}
    for where, words in records:
        value, name = words.get(wanted.value, ""), words.get(wanted.name, "")
        if not name:
            continue
        if not re.fullmatch("0*[1-9][0-9]{0,8}", value):
            raise InputError(f"{where}: {value!r}: a label value from 1 is wanted in {table}")
        if named.setdefault(int(value), name) != name:
            raise InputError(f"{where}: value {value} has another name already in {table}")
    if not named:
        raise InputError(f"table {table}: no row has a {wanted.name}")
    return named


def label_values(labels: np.ndarray) -> set[int]:
    """The label values from 1 in an array; none where they are no labels but fractions."""
    labels = labels[labels > 0]
    if labels.dtype.kind == "f" and not (labels % 1 == 0).all():
        return set()
    if labels.size and labels.max() < 1 << 20:  # the usual case, without sorting millions
        return set(np.flatnonzero(np.bincount(labels.astype(np.int64))).tolist())
    return {int(value) for value in np.unique(labels)}
