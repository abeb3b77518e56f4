"""The optimiser of linear maps."""

import subprocess
import sys

import torch

from voxwarp.preparation.optimiser import minimise


def test_the_minimum_of_rosenbrocks_valley_is_found() -> None:
    x = torch.tensor([-1.2, 1.0], dtype=torch.float64, requires_grad=True)

    def loss() -> torch.Tensor:
        return (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2

    minimise(loss, x, iterations=100, tolerance=1e-12)
    torch.testing.assert_close(x.detach(), torch.ones(2, dtype=torch.float64))


def test_it_does_what_the_optimiser_of_pytorch_does() -> None:
    """Evaluation by evaluation, and the optimiser stays as it was for others."""
    matrix = torch.randn(6, 6, generator=torch.Generator().manual_seed(0))
    ours, theirs = (torch.zeros(6, requires_grad=True) for _ in range(2))

    def loss(x: torch.Tensor) -> torch.Tensor:
        return (matrix @ x - 1).square().sum() + x.sin().sum()

    minimise(lambda: loss(ours), ours, iterations=5, tolerance=1e-9)
    optimizer = torch.optim.LBFGS(
        [theirs],
        max_iter=5,
        max_eval=6,
        line_search_fn="strong_wolfe",
        tolerance_change=1e-9,
    )

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        value = loss(theirs)
        value.backward()
        return value

    optimizer.step(closure)
    assert torch.equal(ours.detach(), theirs.detach())


def test_the_compiler_of_pytorch_is_not_imported() -> None:
    code = (
        "import sys, torch\n"
        "from voxwarp.preparation.optimiser import minimise\n"
        "x = torch.zeros(1, requires_grad=True)\n"
        "minimise(lambda: (x - 1).square().sum(), x, iterations=3, tolerance=1e-9)\n"
        "assert 'torch._dynamo' not in sys.modules\n"
        "torch.optim.LBFGS([x])\n"
        "assert 'torch._dynamo' in sys.modules  # others get what they would without us\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
