"""Methods by name."""

import methods
import pytest

from voxwarp.benchmark.catalogue import METHODS, method_of, missing
from voxwarp.errors import InputError


def test_methods_by_name():
    for name, method in METHODS.items():
        assert method_of(name) is method.run
        assert method.run.__doc__
    assert method_of("methods:shift") is methods.shift


@pytest.mark.parametrize("name", ["gredy", "methods:gone", "no_such_module:f", "methods:SHIFT"])
def test_no_such_method(name: str):
    with pytest.raises(InputError, match=name.partition(":")[0]):
        method_of(name)


def test_missing_package(no_greedy):
    assert missing("greedy") == "picsl-greedy"
    assert missing("elastix") is None
    assert missing("affine") is None
