"""When scans were made, for changes per year."""

import math
from collections.abc import Mapping
from datetime import date, datetime
from pathlib import Path

from ..data.tables import read_table
from ..errors import InputError
from .results import GroupResult, time_of

DAYS_PER_YEAR = 365.25
COLUMNS = "age", "years", "date", "acq_time"


def read_times(path: Path) -> dict[tuple[str, str], float]:
    """Read a table of times, in years.

    Args:
        path: CSV or TSV with participant_id, session_id, and one of age, years (numbers), date and
            acq_time (as 2026-11-29).

    Returns:
        Years by person and session, without sub- and ses-.

    Raises:
        InputError: the table cannot be read, or a row is wrong.
    """
    rows, columns = read_table(path)
    kind = next((name for name in COLUMNS if name in columns), None)
    missing = [name for name in ("participant_id", "session_id") if name not in columns]
    if kind is None or missing:
        wanted = missing[0] if missing else f"one of {', '.join(COLUMNS)}"
        raise InputError(
            f"times {path}: it has no column {wanted}; found {', '.join(columns) or 'none'}"
        )
    times = {}
    for row in rows:
        person, session = (
            row.values.get(name, "").removeprefix(prefix)
            for name, prefix in (("participant_id", "sub-"), ("session_id", "ses-"))
        )
        text = row.values.get(kind, "")
        if text not in ("", "n/a"):  # asked for only if the scan is among the results
            times[person, session] = _years(text, kind, row.where)
    return times


def _years(text: str, kind: str, where: str) -> float:
    try:
        if kind in ("age", "years"):
            years = float(text)
            if not math.isfinite(years):
                raise ValueError
            return years
        day = datetime.fromisoformat(text).date() if "T" in text else date.fromisoformat(text)
    except ValueError as error:
        expected = "a number" if kind in ("age", "years") else "a date such as 2026-11-29"
        raise InputError(f"times {where}: {kind} must be {expected}, got {text!r}") from error
    return day.toordinal() / DAYS_PER_YEAR


def years_between(
    first: GroupResult, last: GroupResult, times: Mapping[tuple[str, str], float]
) -> float:
    """The time between two scans of a person, years.

    Raises:
        InputError: a time is missing, or the last scan is not later.
    """
    at = [time_of(one, times) for one in (first, last)]
    if at[1] <= at[0]:
        raise InputError(
            f"times: {last.key} must be later than {first.key}, got {at[1]:.2f} and {at[0]:.2f} "
            f"years"
        )
    return at[1] - at[0]
