"""Rows of trainings."""

import pytest

from voxwarp.evaluation.rows import Row


@pytest.fixture
def learning() -> list[Row]:
    """Rows of trainings; only the last of each counts in the sweeps."""
    rows = []
    for experiment, network, weight, subjects, dice in [
        *(("lambda", "vm1", weight, "all", 0.6 + weight / 100) for weight in (10.0, 0.1, 1.0)),
        *(
            ("subjects", "vm1", 1.0, subjects, 0.5 + int(subjects) / 100)
            for subjects in ("20", "5")
        ),
        *(("networks", network, 1.0, "all", 0.7) for network in ("vm1", "vm2")),
    ]:
        for step in (50, 750):
            row = {"experiment": experiment, "network": network, "smoothness": weight}
            row |= {"subjects": subjects, "step": step, "seconds": 2.0 * step}
            rows.append(row | {"val_dice": dice * step / 750, "val_folds_percent": 1 / weight})
    return rows
