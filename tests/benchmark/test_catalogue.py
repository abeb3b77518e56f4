"""Methods by name."""

import methods
import pytest

from voxwarp.benchmark.catalogue import METHODS, find_method, missing_package
from voxwarp.errors import InputError


def test_methods_by_name():
    for name, method in METHODS.items():
        assert find_method(name) is method.run
        assert method.run.__doc__
    assert find_method("methods:shift") is methods.shift


@pytest.mark.parametrize("name", ["gredy", "methods:gone", "no_such_module:f", "methods:SHIFT"])
def test_no_such_method(name: str):
    with pytest.raises(InputError, match=name.partition(":")[0]):
        find_method(name)


def test_missing_package(no_greedy):
    assert missing_package("greedy") == "picsl-greedy"
    assert missing_package("elastix") is None
    assert missing_package("affine") is None
