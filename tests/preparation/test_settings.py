"""Settings of the preparation."""

import pytest

from voxwarp.errors import InputError
from voxwarp.preparation.settings import Preparation


def test_unknown_values_are_refused():
    with pytest.raises(InputError, match=r"^brain_extract must be auto, yes or no, got 'perhaps'"):
        Preparation(brain_extract="perhaps")
    with pytest.raises(InputError, match=r"^extractor must be deepbet .*, got 'nope'"):
        Preparation(extractor="nope")
