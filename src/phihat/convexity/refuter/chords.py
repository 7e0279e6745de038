"""Chords to try: triples of points whose middle is exact in floats.

A chord is a middle m and a step s, in each coordinate on one dyadic grid: so m - s,
m + s and their mean m are floats without any rounding. Chords keep to the domain, and
leaves that are held do not move.
"""

import contextlib
import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from phihat._core.jaxprs import quick_start_options
from phihat.convexity.program.problem import Problem

__all__ = [
    "Space",
    "compiled",
    "dense",
    "evolved",
    "first",
    "in_float64",
    "random",
    "snapped",
    "space_of",
]


class Space(NamedTuple):
    """Where chords may lie.

    Attributes:
      start: the params that were given, flat `[N]`.
      low: the lower ends of the domain `[N]`; equal to `high` where held.
      high: the upper ends `[N]`.
      leaves: which coordinates belong together.
    """

    start: np.ndarray
    low: np.ndarray
    high: np.ndarray
    leaves: tuple[slice, ...]

    @property
    def free(self) -> np.ndarray:
        """The coordinates that may vary."""
        return np.nonzero(self.low < self.high)[0]


def space_of(problem: Problem) -> Space:
    """Return where the chords of a question lie."""
    start, low, high = (
        np.concatenate([np.ravel(part) for part in parts])
        for parts in (
            problem.start,
            [interval.low for interval in problem.domain],
            [interval.high for interval in problem.domain],
        )
    )
    ends = itertools.accumulate((leaf.size for leaf in problem.start), initial=0)
    return Space(
        start, low, high, tuple(itertools.starmap(slice, itertools.pairwise(ends)))
    )


_BITS = 10
"""A step is a whole number of at most about 2^10 grid points."""


@contextlib.contextmanager
def in_float64() -> Iterator[None]:
    """Compute in float64, and let the user's loss promote as it does by default."""
    with (
        jax.enable_x64(True),
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
    ):
        yield


def compiled(function: Callable[..., Any], *, is_small: bool) -> Callable[..., Any]:
    """Compile a function that is called a few times; a small one without optimizing."""
    options = quick_start_options(runs_briefly=True) if is_small else None
    return jax.jit(function, compiler_options=options)


def snapped(
    space: Space, middle: np.ndarray, step: np.ndarray, *, precision: int = 53
) -> tuple[np.ndarray, np.ndarray]:
    """Move chords onto dyadic grids within the domain.

    Args:
      space: the domain.
      middle: middles `[B, N]`.
      step: steps `[B, N]`.
      precision: the bits of the dtype that is to hold the points exactly.

    Returns:
      Middles and steps; coordinates that cannot move have the step 0.
    """
    low, high = space.low, space.high
    with np.errstate(over="ignore"):
        widest = (high - low) / 2
    step = np.clip(step, -widest, widest)
    middle = np.clip(middle, low + np.abs(step), high - np.abs(step))
    # Whole numbers of grid points stay below 2^(precision - 3), so sums are exact.
    size = np.abs(step)
    reach = np.abs(middle) + size
    bits = _exponent(size) - min(_BITS, precision - 5)
    bits = np.maximum(bits, _exponent(reach) - (precision - 5))
    grid = np.ldexp(1.0, np.clip(bits, -900, 900))
    on_grid = np.rint(middle / grid) * grid
    on_grid = np.where(on_grid < low, on_grid + grid, on_grid)
    on_grid = np.where(on_grid > high, on_grid - grid, on_grid)
    step = np.rint(step / grid) * grid
    room = np.floor(np.minimum(on_grid - low, high - on_grid) / grid) * grid
    step = np.clip(step, -np.maximum(room, 0.0), np.maximum(room, 0.0))
    below, above = on_grid - np.abs(step), on_grid + np.abs(step)
    moves = (step != 0) & (below >= low) & (above <= high)
    return np.where(moves, on_grid, middle), np.where(moves, step, 0.0)


def first(space: Space, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return chords along coordinates through the start, at several lengths."""
    free = space.free
    chosen = free[np.linspace(0, len(free) - 1, min(len(free), 64)).astype(int)]
    lengths = np.array([1.0, 0.1, 10.0, 3.0, 0.3, 100.0, 0.01])
    length, axis = (np.repeat(lengths, len(chosen)), np.tile(chosen, len(lengths)))
    length, axis = length[:count], axis[:count]
    step = np.zeros((len(axis), len(space.start)))
    step[np.arange(len(axis)), axis] = length
    return np.broadcast_to(space.start, step.shape), step


def random(
    space: Space, rng: np.random.Generator, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draw chords: middles near and far, steps in all kinds of directions."""
    return _middles(space, rng, count), _steps(space, rng, count)


def dense(
    space: Space, rng: np.random.Generator, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draw chords: middles near and far, steps along all coordinates at once."""
    step = rng.normal(size=(count, len(space.start))) * (space.low < space.high)
    return _middles(space, rng, count), _at_many_scales(step, rng)


def evolved(
    rng: np.random.Generator,
    middle: np.ndarray,
    step: np.ndarray,
    count: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Vary the best chords: shifted along themselves and aside, turned, rescaled."""
    parents = rng.integers(len(middle), size=count)
    middle, step = middle[parents], step[parents]
    size = np.abs(step).max(axis=1, keepdims=True)
    along = rng.normal(size=(count, 1)) * rng.choice([0.0, 1.0], size=(count, 1))
    aside = rng.normal(size=step.shape) * rng.choice([0.0, 0.3, 1.0], size=(count, 1))
    turn = rng.normal(size=step.shape) * rng.choice([0.0, 0.1, 0.5], size=(count, 1))
    # Turning and shifting keep to few coordinates where there are many.
    mask = rng.uniform(size=step.shape) < rng.choice([0.1, 1.0], size=(count, 1))
    scale = np.exp(rng.normal(size=(count, 1)))
    return (
        middle + along * step + aside * mask * size,
        (step + turn * mask * size) * scale,
    )


def _middles(space: Space, rng: np.random.Generator, count: int) -> np.ndarray:
    start, low, high = space.start, space.low, space.high
    shape = (count, len(start))
    spread = 10.0 ** rng.uniform(-2.0, 1.5, size=(count, 1))
    near = start + spread * rng.normal(size=shape)
    away = spread * rng.normal(size=shape)
    # In a box: uniform between two finite ends, inside a single one by the spread.
    has_low, has_high = np.isfinite(low), np.isfinite(high)
    floor, roof = np.where(has_low, low, 0.0), np.where(has_high, high, 0.0)
    uniform = floor + (roof - floor) * rng.uniform(size=shape)
    inner = np.select(
        [has_low & has_high, has_low, has_high],
        [uniform, floor + np.abs(away), roof - np.abs(away)],
        default=away,
    )
    kind = rng.integers(8, size=(count, 1))
    middle = np.where(kind < 4, near, inner)
    middle = np.where(kind == 0, start, middle)
    return np.where(kind == 7, away, middle)


def _steps(space: Space, rng: np.random.Generator, count: int) -> np.ndarray:
    free, size = space.free, len(space.start)
    dense = rng.normal(size=(count, size))
    step = np.zeros((count, size))
    members = [np.intersect1d(np.arange(size)[leaf], free) for leaf in space.leaves]
    members = [leaf for leaf in members if len(leaf)]
    for row, kind in enumerate(rng.integers(6, size=count)):
        if kind == 0 or len(free) == 1:
            chosen = rng.choice(free, 1)
        elif kind in (1, 2):
            chosen = rng.choice(free, min(2, len(free)), replace=False)
        elif kind == 3:
            chosen = members[rng.integers(len(members))]
        elif kind == 4:
            chosen = np.concatenate(
                [members[i] for i in rng.integers(len(members), size=2)]
            )
        else:
            chosen = free
        step[row, chosen] = dense[row, chosen]
    return _at_many_scales(step, rng)


def _at_many_scales(step: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Give steps lengths from 1e-3 to 1e3."""
    step = step / np.maximum(np.linalg.norm(step, axis=1, keepdims=True), 1e-300)
    return step * 10.0 ** rng.uniform(-3.0, 3.0, size=(len(step), 1))


def _exponent(x: np.ndarray) -> np.ndarray:
    """Return e with |x| < 2^e."""
    return np.frexp(x)[1]
