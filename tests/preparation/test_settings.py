"""Which steps are taken: what is asked for is there."""

import pytest

from voxwarp.errors import InputError
from voxwarp.preparation.settings import Preparation


def test_a_choice_that_there_is_not_is_refused():
    with pytest.raises(InputError, match="wanted auto, yes or no"):
        Preparation(brain_extract="perhaps")
    with pytest.raises(InputError, match="extractor 'nope'"):
        Preparation(extractor="nope")
