"""Compiled kernels for volumes on the processor: who may use them, and how threads share them.

$VOXWARP_KERNELS=off turns them off. Whatever they cannot take (a GPU, other types, an axis of one
voxel) goes the way of plain PyTorch. So does what autograd follows, except where the gradient is
compiled, too: sampling, squaring and upsampling of fields, local correlation and diffusion.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def can_take(*tensors: Tensor) -> bool:
    """Whether the kernels can work on these (B, C, X, Y, Z) tensors: never if autograd follows."""
    followed = torch.is_grad_enabled() and any(x.requires_grad for x in tensors)
    return not followed and can_differentiate(*tensors)


def can_differentiate(*tensors: Tensor) -> bool:
    """As ``can_take``, also for tensors whose gradients are wanted."""
    return all(_suits(x) for x in tensors) and enabled()


def _suits(x: Tensor) -> bool:
    return (
        type(x) is Tensor  # subclasses, such as those without data, have no array
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and x.ndim == 5
        and min(x.shape[2:]) > 1
        and x.shape[2:].numel() < 2**32
    )


@lru_cache(maxsize=1)
def enabled() -> bool:
    """Whether kernels are wanted and Numba is there."""
    if os.environ.get("VOXWARP_KERNELS", "").lower() in ("off", "0", "no", "false"):
        return False
    return _kernels() is not None


_MODULES = (
    *("classes", "extents", "flow", "folds", "forces", "inversion"),
    *("jacobian", "resampling", "roughness", "sampling", "smoothing", "windows"),
)


@lru_cache(maxsize=1)
def _kernels() -> dict[str, Callable[..., None]] | None:
    """The kernels by name; None if Numba is not installed."""
    try:
        modules = [import_module(f".kernels.{name}", __package__) for name in _MODULES]
    except ImportError:
        return None
    return {name: k for m in modules for name, k in vars(m).items()}


def not_compiled_yet() -> bool:
    """Whether the kernels have to be compiled first, which takes up to half a minute."""
    if not enabled():
        return False
    from .kernels.jit import is_first_use

    return is_first_use()


@lru_cache(maxsize=1)
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    """Threads of this process: those of the one that it was forked from do not run in it."""
    return ThreadPoolExecutor(threads, thread_name_prefix="voxwarp-kernel")


def run(name: str, planes: int, *arguments: Any) -> None:
    """A kernel on all planes, shared by as many threads as PyTorch has.

    What is written to has to be contiguous; what is read is made so.
    """
    function = (_kernels() or {})[name]
    threads = torch.get_num_threads()
    parts = min(threads, planes)
    values = [_array(x) if isinstance(x, Tensor) else x for x in arguments]
    if parts == 1:
        function(*values, 0, planes)
        return
    ends = [planes * p // parts for p in range(parts + 1)]
    pool = _pool(threads, os.getpid())
    jobs = [pool.submit(function, *values, a, b) for a, b in zip(ends, ends[1:], strict=False)]
    for job in jobs:
        job.result()


def _array(x: Tensor) -> np.ndarray:
    return x.detach().contiguous().numpy()


def warp(volume: Tensor, u: Tensor) -> Tensor:
    """volume(x + u(x)) with the border's value outside; see ``field.warp``."""
    out = volume.new_empty(*volume.shape[:2], *u.shape[2:])
    for v, d, o in zip(volume, u, out, strict=True):
        run("warp", u.shape[2], v, d, o)
    return out


def sample(volume: Tensor, at: Tensor, *, relative: bool, zeros: bool) -> Tensor:
    """volume(at(x)), or volume(x + at(x)); see ``interpolation``."""
    if relative and not zeros:
        return warp(volume, at)
    out = volume.new_empty(*volume.shape[:2], *at.shape[2:])
    for v, a, o in zip(volume, at, out, strict=True):
        run("sample", at.shape[2], v, a, relative, zeros, o)
    return out


def gradient_by_points(
    volume: Tensor, at: Tensor, incoming: Tensor, *, relative: bool, zeros: bool
) -> Tensor:
    """The gradient of ``sample`` by the points."""
    out = _like(at)
    for v, a, g, o in zip(volume, at, incoming, out, strict=True):
        run("gradient_by_points", at.shape[2], v, a, relative, zeros, g, False, o)
    return out


def gradient_by_volume(
    volume: Tensor, at: Tensor, incoming: Tensor, *, relative: bool, zeros: bool
) -> Tensor:
    """The gradient of ``sample`` by the volume."""
    out = _like(volume)
    for a, g, o in zip(at, incoming, out, strict=True):
        reached = _planes_reached(a, volume.shape[2], relative, zeros)
        run("gradient_by_volume", o.shape[1], g, a, relative, zeros, reached, False, o)
    return out


def gradient_of_squaring(u: Tensor, incoming: Tensor, out: Tensor | None = None) -> Tensor:
    """The gradient of u(x) + u(x + u(x)) by u; written into ``out`` if given."""
    out = _like(u) if out is None else out
    for v, g, o in zip(u, incoming.contiguous(), out, strict=True):
        run("gradient_by_points", v.shape[1], v, v, True, False, g, True, o)
        reached = _planes_reached(v, v.shape[1], True, False)
        run("gradient_by_volume", v.shape[1], g, v, True, False, reached, True, o)
    return out


def _planes_reached(at: Tensor, planes: int, relative: bool, zeros: bool) -> np.ndarray:
    reached = np.empty((at.shape[1], 2), np.int64)
    run("planes_reached", len(reached), at, relative, zeros, planes, reached)
    return reached


def compose(outer: Tensor, inner: Tensor) -> Tensor:
    """See ``field.compose``."""
    out = _like(inner)
    for a, b, o in zip(outer, inner, out, strict=True):
        run("compose", inner.shape[2], a, b, o)
    return out


def take_step(
    u: Tensor,
    force: "SmoothedForce",
    length: float,
    direction: Tensor | None = None,
    momentum: float = 0.0,
) -> Tensor:
    """The displacement of φ ∘ (Id + δ), δ = length · (F / (|F| + 3 mean |F|) + momentum · d).

    Args:
        u: the displacement of φ, (1, 3, X, Y, Z).
        force: F.
        length: voxels.
        direction: d, δ / length of the step before, (1, 3, X, Y, Z), zero outside the extents of
            the force; it gets that of this step. None: 0.
        momentum: its share.
    """
    kept = NO_DISPLACEMENT if direction is None else direction[0]
    out, settings = _like(u), map(np.float32, (momentum, length, force.mean))
    run("take_step", u.shape[2], u[0], force.force[0], force.extents, kept, *settings, out[0])
    return out


# A voxel whose first step was below so many times the tolerance needs no second one. Set by hand;
# more leaves more voxels above the tolerance, and takes less time.
FAR = 20


def invert(u: Tensor, w: Tensor, tolerance: float, *, longest: float, most: int) -> None:
    """Improve an approximate inverse in place, see ``field.invert``.

    Here all steps are with the Jacobian of Id + u.

    Args:
        u: (B, 3, X, Y, Z).
        w: its approximate inverse, of the same shape, contiguous.
        tolerance: see there.
        longest: change in a step along an axis, voxels.
        most: steps of a voxel after the first.
    """
    settings = [np.float32(x) for x in (tolerance, FAR * tolerance, longest)]
    for displacement, inverse in zip(u, w, strict=True):
        run("invert", u.shape[2], displacement, inverse, *settings, most)


@lru_cache(maxsize=64)
def gaussian_weights(sigma: float) -> np.ndarray:
    """Weights of the voxels up to four sigma on either side, as in SciPy; float64, of sum 1."""
    reach = int(4 * sigma + 0.5)
    offsets = np.arange(-reach, reach + 1, dtype=np.float64)
    weights = np.exp(-(offsets**2) / (2 * sigma**2))
    normalised: np.ndarray = weights / weights.sum()
    return normalised


def gaussian(volume: Tensor, sigma: float) -> Tensor:
    """The volume smoothed, see ``filters.gaussian``."""
    out, weights = _like(volume), gaussian_weights(sigma).astype(np.float32)
    everywhere = np.full((*volume.shape[2:4], 2), (0, volume.shape[4]), np.int32)
    for v, o in zip(volume, out, strict=True):
        run("gaussian", v.shape[1], v, everywhere, weights, o, np.empty(0))
    return out


class SmoothedForce(NamedTuple):
    """A force on a grid, smoothed.

    Args:
        force: (1, 3, X, Y, Z).
        extents: where its rows are not zero, see ``extents``.
        mean: the mean of its length.
    """

    force: Tensor
    extents: np.ndarray
    mean: float

    def joined(self, extents: np.ndarray | None) -> "SmoothedForce":
        """The same, with extents that hold others as well."""
        if extents is None:
            return self
        (first, last), (begin, end) = (np.moveaxis(x, -1, 0) for x in (self.extents, extents))
        both = np.stack([np.minimum(first, begin), np.maximum(last, end)], axis=-1)
        return self._replace(extents=both)


def smooth_force(force: Tensor, sigma: float) -> SmoothedForce:
    """A force (1, 3, X, Y, Z) smoothed; where it is zero, as outside the brain, costs no time."""
    out, planes = _like(force), force.shape[2]
    weights, norms = gaussian_weights(sigma).astype(np.float32), np.empty(planes)
    within, reach = extents(force[0]), len(weights) // 2
    run("gaussian", planes, force[0], within, weights, out[0], norms)
    wider = widened(within, (reach, reach, reach), force.shape[4])
    return SmoothedForce(out, wider, float(norms.sum() / force[0, 0].numel()))


def extents(volume: Tensor) -> np.ndarray:
    """Where each row of (C, X, Y, Z) is not zero: (X, Y, 2) int32, the first voxel, one past last.

    Rows of zeros have (Z, 0).
    """
    out = np.empty((*volume.shape[1:3], 2), np.int32)
    run("extents", len(out), volume, out)
    return out


def widened(extents: np.ndarray, by: tuple[int, int, int], length: int) -> np.ndarray:
    """Extents of rows of a ``length``, with all voxels up to so many planes, rows, voxels away."""
    out = np.empty_like(extents)
    run("widened", len(out), extents, *by, length, out)
    return out


def window_moments(image: Tensor, window: int) -> tuple[Tensor, Tensor]:
    """The mean and the variance in the ``window``³ voxels around each voxel, (B, 1, X, Y, Z)."""
    mean, variance = _like(image), _like(image)
    for x, m, v in zip(image[:, 0], mean[:, 0], variance[:, 0], strict=True):
        run("window_moments", len(x), x, window, m, v)
    return mean, variance


def class_maps(
    embedded: Tensor,
    inside: Tensor,
    *,
    normalise: bool,
    directions: Tensor,
    bias: Tensor,
    projection: Tensor,
) -> Tensor:
    """Σ over classes of projection · softmax(directions · e + bias), of embeddings e.

    Args:
        embedded: e, (C, X, Y, Z) in any type and order.
        inside: where to classify, (X, Y, Z); elsewhere all voxels are of class 0.
        normalise: make the embeddings one long first.
        directions: (K, C).
        bias: (K,).
        projection: (K, M).

    Returns:
        (M, X, Y, Z), float32.
    """
    out = torch.empty(projection.shape[1], *inside.shape)
    kind, shift = (torch.int16, 16) if embedded.dtype == torch.bfloat16 else (torch.int32, 0)
    if not shift:
        embedded = embedded.float()
    channels = -embedded.shape[0] % 4  # to a multiple of four, with zeros
    bits = F.pad(embedded.movedim(0, -1), (0, channels)).contiguous().view(kind).numpy()
    run(
        *("class_maps", inside.shape[0]),
        *(bits.view(f"u{bits.itemsize}"), np.uint32(shift), inside.flatten(), normalise),
        *(F.pad(directions.float(), (0, channels)), bias.float(), projection.float()),
        *(projection[0].float(), out),
    )
    return out


def determinants(u: Tensor) -> tuple[Tensor, Tensor]:
    """det(I + ∇u), (B, X, Y, Z): by central differences, and the smallest by any."""
    central, smallest = (u.new_empty(len(u), *u.shape[2:]) for _ in range(2))
    for d, c, s in zip(u, central, smallest, strict=True):
        run("determinants", u.shape[2], d, c, s)
    return central, smallest


def smooth_folds(
    u: Tensor, folded: Tensor, regions: Tensor, *, widening: int, sigma: float, bound: float
) -> None:
    """A round of ``folds.remove_folds``, which changes its two first arguments.

    Args:
        u: (3, X, Y, Z), contiguous.
        folded: where the smallest determinant is below the bound, (X, Y, Z), boolean, contiguous.
        regions: where to smooth, (N, 3, 2); no two of them overlap.
        widening: voxels around folded ones that are smoothed fully.
        sigma: of the Gaussian, voxels.
        bound: of the determinant.
    """
    weights = gaussian_weights(sigma).astype(np.float32)
    run("smooth_folds", len(regions), u, folded, regions, widening, weights, np.float32(bound))


def upsample(volume: Tensor, scale: float, onto: Tensor | None = None) -> Tensor:
    """``scale`` times the volume on a grid of twice the sides; added into ``onto`` if given."""
    shape = (*volume.shape[:2], *(2 * n for n in volume.shape[2:]))
    out = volume.new_empty(shape) if onto is None else onto
    for v, o in zip(volume, out, strict=True):
        run("upsample", shape[2], v, np.float32(scale), o, onto is not None)
    return out


def upsample_adjoint(volume: Tensor, scale: float) -> Tensor:
    """The gradient of ``upsample``, of an incoming one."""
    out = volume.new_empty(*volume.shape[:2], *(n // 2 for n in volume.shape[2:]))
    for v, o in zip(volume, out, strict=True):
        run("upsample_adjoint", out.shape[2], v, np.float32(scale), o)
    return out


def average(volume: Tensor, scale: float = 1.0) -> Tensor:
    """``scale`` times the mean of blocks of 2³ voxels."""
    out = volume.new_empty(*volume.shape[:2], *(n // 2 for n in volume.shape[2:]))
    for v, o in zip(volume, out, strict=True):
        run("average", out.shape[2], v, np.float32(scale), o)
    return out


def squared_correlation(
    fixed: Tensor, moved: Tensor, window: int, guard: float, *, slopes: bool
) -> tuple[Tensor, Tensor]:
    """The map of ``correlation`` and, if wanted, its slopes for the moved images: (N, X, Y, Z)."""
    cc = _like(moved)
    kept = moved.new_empty(len(moved), 3, *(moved.shape[1:] if slopes else (0, 0, 0)))
    for f, m, o, s in zip(fixed, moved, cc, kept, strict=True):
        run("squared_correlation", _blocks(m), f, m, *_centres(f, m), window, guard, o, s)
    return cc, kept


def correlation_gradient(
    fixed: Tensor, moved: Tensor, slopes: Tensor, incoming: Tensor, window: int
) -> Tensor:
    """The gradient by the moved images, (N, X, Y, Z), of the slopes and the incoming one."""
    out = _like(moved)
    for f, m, s, g, o in zip(fixed, moved, slopes, incoming, out, strict=True):
        run("correlation_gradient", _blocks(m), f, m, *_centres(f, m), s, g, window, o)
    return out


def _blocks(x: Tensor) -> int:
    """The number of blocks of planes of (X, Y, Z) that ``kernels.windows`` works on."""
    from .kernels.windows import PLANES

    return -(-x.shape[0] // PLANES)


def _centres(*images: Tensor) -> list[float]:
    """About the means of images: centred, bright and flat ones have small squares, too."""
    return [float(x[::4, ::4, ::4].numpy().mean(dtype=np.float64)) for x in images]


def diffusion(field: Tensor, weights: Sequence[float], *, slopes: bool) -> tuple[float, Tensor]:
    """Σ weight · (difference along an axis)² over a (B, C, X, Y, Z) field, and its gradient."""
    fields = field.flatten(0, 1)
    gradient = field.new_empty(fields.shape if slopes else (len(fields), 0, 0, 0))
    totals = np.empty(fields.shape[1])
    run("diffusion", len(totals), fields, tuple(map(np.float32, weights)), gradient, totals)
    return float(totals.sum()), gradient.view(field.shape) if slopes else gradient


def _like(x: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


NO_DISPLACEMENT = np.empty((3, 0, 0, 0), np.float32)


class GridMap(NamedTuple):
    """Where each voxel of a grid goes: i ↦ M (i, 1) + A w(i).

    Args:
        matrix: M, (4, 4).
        displacement: w, (3, X, Y, Z) float32 on the grid, or ``NO_DISPLACEMENT``.
        axes: A, (3, 3).
    """

    matrix: np.ndarray
    displacement: np.ndarray
    axes: np.ndarray

    @classmethod
    def of(cls, matrix: np.ndarray) -> "GridMap":
        """The map i ↦ M (i, 1)."""
        return cls(matrix, NO_DISPLACEMENT, np.eye(3))

    def then(self, affine: np.ndarray) -> "GridMap":
        """This map, and after it the (4, 4) matrix."""
        return GridMap(affine @ self.matrix, self.displacement, affine[:3, :3] @ self.axes)

    @property
    def _arguments(self) -> tuple[np.ndarray, ...]:
        matrix, axes = (np.ascontiguousarray(m, np.float64) for m in (self.matrix[:3], self.axes))
        return matrix, np.ascontiguousarray(self.displacement, np.float32), axes


def resample(
    volume: np.ndarray, shape: Sequence[int], to_voxels: GridMap, *, extend: bool = False
) -> np.ndarray:
    """A float32 volume at where the voxels of a grid go, by trilinear interpolation.

    Outside the volume it is zero, or its border's value (``extend``).
    """
    out = np.empty(tuple(shape), np.float32)
    run("resample", shape[0], volume, *to_voxels._arguments, extend, out)
    return out


def resample_field(
    field: np.ndarray,
    shape: Sequence[int],
    to_voxels: GridMap,
    *,
    extend: bool,
    turn: np.ndarray | None = None,
) -> np.ndarray:
    """As ``resample``, of (3, X, Y, Z), whose border's value continues outside.

    Args:
        field: the field.
        shape: of the result.
        to_voxels: where its voxels go.
        extend: continue the border's value everywhere, not for half a voxel only.
        turn: a (3, 3) matrix that is applied to the vectors.
    """
    out = np.empty((3, *shape), np.float32)
    turn = np.ascontiguousarray(np.eye(3) if turn is None else turn, np.float32)
    field = np.ascontiguousarray(field, np.float32)
    run("resample_field", shape[0], field, *to_voxels._arguments, turn, extend, out)
    return out


def nearest_voxels(
    volume_shape: Sequence[int], shape: Sequence[int], to_voxels: GridMap
) -> np.ndarray:
    """Index in the flat volume of the voxel nearest to where each voxel goes; −1 outside."""
    out = np.empty(tuple(shape), np.int64)
    run("nearest_voxels", shape[0], tuple(volume_shape), *to_voxels._arguments, out)
    return out


def copied(values: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """The values (N,) of any type at indices (X, Y, Z) of uint32."""
    out = np.empty(indices.shape, values.dtype)
    bits = f"u{values.itemsize}"  # one kernel for all types of a size
    run("copied", len(indices), values.view(bits), indices, out.view(bits))
    return out
