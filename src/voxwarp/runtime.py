"""How a command runs: on what, with how many threads, with or without the cache."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .errors import InputError

if TYPE_CHECKING:
    import torch

ProgressCallback = Callable[[str], None]


@dataclass(frozen=True)
class Runtime:
    """What decides how a result is computed, and hardly what it is.

    Args:
        device: of networks: "auto", "cpu" or "cuda"; auto takes a GPU where there is one.
        cache: look into the cache for what was found in a scan before, and add to it.
        progress: called with the name of each stage as it begins.
        threads: of the processor; None: as many as PyTorch takes by itself. The last bits of a
            result depend on them.

    Raises:
        InputError: the device or the number of threads is none of these.
    """

    device: str = "auto"
    cache: bool = True
    progress: ProgressCallback | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.device not in ("auto", "cpu", "cuda"):
            raise InputError(f"device {self.device!r}: wanted auto, cpu or cuda")
        if self.threads is not None and self.threads < 1:
            raise InputError(f"threads {self.threads}: a number from 1 is wanted")

    def torch_device(self) -> "torch.device":
        """The device on this machine.

        Raises:
            InputError: CUDA where there is none.
        """
        from .device import torch_device

        return torch_device(self.device)

    @contextmanager
    def with_threads(self) -> Iterator[None]:
        """Within, PyTorch runs with these threads; afterwards with as many as before."""
        if self.threads is None:
            yield
            return
        import torch

        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)


DEFAULT_RUNTIME = Runtime()
