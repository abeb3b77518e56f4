"""The optimiser of linear maps: L-BFGS of PyTorch, without what it imports and does not need."""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

_lock = threading.Lock()


def minimise(
    loss: Callable[[], torch.Tensor],
    parameters: torch.Tensor,
    *,
    iterations: int,
    tolerance: float,
) -> None:
    """Change parameters by L-BFGS with a strong Wolfe line search so that a loss becomes small.

    Args:
        loss: computes the loss from the parameters, a scalar that has a gradient.
        parameters: a tensor that requires gradients; changed in place.
        iterations: at most this many, with at most a quarter more evaluations of the loss.
        tolerance: it ends when parameters and loss change by less than this.
    """
    with _without_compiler():
        optimizer = torch.optim.LBFGS(
            [parameters],
            max_iter=iterations,
            max_eval=iterations + iterations // 4,
            line_search_fn="strong_wolfe",
            tolerance_change=tolerance,
        )

    def closure() -> torch.Tensor:
        parameters.grad = None
        value = loss()
        value.backward()
        return value

    optimizer.step(closure)


@contextmanager
def _without_compiler() -> Iterator[None]:
    """Make an optimiser within a ``with`` statement without importing ``torch._dynamo``.

    PyTorch imports its compiler, which takes more than a second, only to tell it to leave the
    method alone that adds parameters to an optimiser. Here the method is marked as if that had
    been done. Versions of PyTorch that do this in another way import it, and are slower.
    """
    with _lock:
        method = getattr(torch.optim.Optimizer.add_param_group, "__wrapped__", None)
        mark = "__dynamo_disable"
        if method is None or "torch._dynamo" in sys.modules or hasattr(method, mark):
            yield
            return
        setattr(method, mark, method)
        try:
            yield
        finally:
            delattr(method, mark)
