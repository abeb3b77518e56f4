"""How a command runs: device, threads, cache and progress."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .errors import InputError

if TYPE_CHECKING:
    import torch

#: Called with the name of each stage when it starts.
ProgressCallback = Callable[[str], None]


@dataclass(frozen=True)
class Runtime:
    """Settings of the computation; they change a result only by rounding.

    Args:
        device: where networks run: "auto", "cpu" or "cuda"; "auto" is a GPU if PyTorch finds one.
        cache: use results of earlier examinations of a scan from the cache, and store new ones.
        progress: called with the name of each stage when it starts.
        threads: number of CPU threads; None leaves it to PyTorch.

    Raises:
        InputError: the device or the number of threads is not one of these.

    Example:
        >>> import voxwarp
        >>> runtime = voxwarp.Runtime(device="cpu", threads=1)
        >>> result = voxwarp.register("moving.nii.gz", "fixed.nii.gz", runtime=runtime)
        >>> result.metrics["settings"]["threads"]
        1
    """

    device: str = "auto"
    cache: bool = True
    progress: ProgressCallback | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.device not in ("auto", "cpu", "cuda"):
            raise InputError(f"device must be auto, cpu or cuda, got {self.device!r}")
        if self.threads is not None and self.threads < 1:
            raise InputError(f"threads must be 1 or more, got {self.threads}")

    def torch_device(self) -> "torch.device":
        """The PyTorch device.

        Raises:
            InputError: PyTorch finds no CUDA device.
        """
        from ._device import torch_device

        return torch_device(self.device)

    @contextmanager
    def with_threads(self) -> Iterator[None]:
        """Run the body of a ``with`` statement with this number of threads in PyTorch."""
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
