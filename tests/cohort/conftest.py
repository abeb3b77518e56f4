"""Small cohorts for all tests of the command."""

from collections.abc import Callable

import pytest
from bids_data import head, write_bids, write_quick_model, write_scan
from small_cohorts import SmallCohort

pytest.importorskip("distributed")


@pytest.fixture(scope="session")
def make_cohort(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., SmallCohort]:
    """A new data set of so many persons."""

    def make(persons: int, name: str = "cohort", extra=None) -> SmallCohort:
        folder = tmp_path_factory.mktemp("cohorts") / name
        write_bids(folder / "bids", persons, extra)
        write_quick_model(folder / "model")
        write_scan(folder / "template.nii.gz", head(99))
        return SmallCohort(folder)

    return make
