"""Runtime: threads are what was asked for within, and what they were afterwards."""

import pytest
import torch

from voxwarp.errors import InputError
from voxwarp.runtime import Runtime


@pytest.mark.parametrize("before", [1, 2])
@pytest.mark.parametrize("threads", [None, 1, 3])
def test_threads_are_restored(before: int, threads: int | None) -> None:
    usual = torch.get_num_threads()
    torch.set_num_threads(before)
    try:
        with Runtime(threads=threads).with_threads():
            assert torch.get_num_threads() == (threads or before)
        assert torch.get_num_threads() == before
        with pytest.raises(KeyError), Runtime(threads=threads).with_threads():
            raise KeyError
        assert torch.get_num_threads() == before
    finally:
        torch.set_num_threads(usual)


def test_the_device_is_that_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for has, expected in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda has=has: has)
        assert Runtime().torch_device() == torch.device(expected)
        assert Runtime("cpu").torch_device() == torch.device("cpu")
    with pytest.raises(InputError, match="no CUDA device"):
        Runtime("cuda").torch_device()


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"device": "tpu"}, "device must be auto, cpu or cuda, got 'tpu'"),
        ({"threads": 0}, "threads must be 1 or more, got 0"),
        ({"threads": -2}, "got -2"),
    ],
)
def test_invalid_settings_are_refused(asked: dict, said: str) -> None:
    with pytest.raises(InputError, match=said):
        Runtime(**asked)
