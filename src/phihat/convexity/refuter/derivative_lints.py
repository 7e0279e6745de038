"""Places where automatic differentiation and the value of a loss disagree.

`stop_gradient` and custom derivative rules make `jax.hessian` tell of another function
than the one that is minimized, and of a kink it tells nothing. Differences of values
along a few lines through the params show both.
"""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from phihat.convexity.program.floating import function_of
from phihat.convexity.program.problem import Problem

__all__ = ["lints"]

_NUM_LINES = 4
_REACH = 4.0
_NUM_CELLS = 64
_WIDTH = 1e-2
_BATCH = 64
_ROUNDING = 1e-14
"""What differences of values may owe to rounding, relative to the values."""

_SAY = "AD curvature is not the curvature of the value"


class _Lines(NamedTuple):
    """Lines through the params: `value(t, k)` at parameter t of line k, AD's, and room.

    Attributes:
      value: the flat program in float64.
      curvature: the second derivative of the jaxpr by AD, in its own dtypes; None where
        AD follows the value.
      low: where each line enters the domain, at -4 or later `[K]`.
      high: where it leaves, at 4 or sooner `[K]`.
    """

    value: Callable[[Any, Any], Any]
    curvature: Callable[[Any, Any], Any] | None
    low: np.ndarray
    high: np.ndarray


def lints(problem: Problem, deadline: float = math.inf) -> tuple[str, ...]:
    """Compare AD's curvature with differences of values near the params.

    Args:
      problem: the question that was asked.
      deadline: when not to begin any more, by `time.monotonic`: values and AD are
        compiled, which takes a second and is not interrupted.

    Returns:
      Sentences, with the lines where a derivative rule takes the value's place; none
      where AD and the value agree, or where either cannot be evaluated.
    """
    with (
        jax.enable_x64(True),
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
    ):
        sentences: list[str] = []
        if time.monotonic() >= deadline:
            return ()
        try:
            lines = _lines(problem)
            if _differs_where_smooth(lines):
                rules = problem.program.rules_of_ad
                sentences.append(f"{_SAY}: {', '.join(rules)}")
            if time.monotonic() < deadline and _has_concave_kink(lines):
                sentences.append(
                    f"{_SAY}: near the params the slope falls at a concave kink, "
                    "where AD sees no curvature"
                )
        except Exception:  # a lint is a service: what AD cannot do is not its concern
            return ()
    return tuple(sentences)


def _lines(problem: Problem) -> _Lines:
    """Draw the line of all ones and three at random; what is held does not move."""
    rng = np.random.default_rng(0)
    scale = 1.0 / max(problem.size, 1) ** 0.5
    directions = [
        np.concatenate([np.ones((1, *leaf.shape)), rng.normal(size=(3, *leaf.shape))])
        * (scale * varies)
        for leaf, varies in zip(problem.start, problem.varied, strict=True)
    ]
    stacked = list(map(jnp.asarray, directions))

    def point(t: Any, line: Any) -> list[Any]:
        return [a + t * v[line] for a, v in zip(problem.start, stacked, strict=True)]

    flat = function_of(problem.program)
    data = [None if leaf is None else leaf.low for leaf in problem.data]

    def value(t: Any, line: Any) -> Any:
        return flat(point(t, line), data)

    def with_rules(t: Any, line: Any) -> Any:
        return problem.loss(point(t, line)).astype(jnp.float64)

    return _Lines(
        jax.jit(jax.vmap(value)),
        _curvature(with_rules) if problem.program.rules_of_ad else None,
        *_reach(problem, directions),
    )


def _curvature(value: Callable[..., Any]) -> Callable[[Any, Any], Any]:
    """Differentiate twice, forward; in reverse where a rule only knows that mode."""

    def forward(t: Any, line: Any) -> Any:
        def slope(t: Any) -> Any:
            return jax.jvp(lambda t: value(t, line), (t,), (1.0,))[1]

        return jax.jvp(slope, (t,), (1.0,))[1]

    forwards = jax.jit(jax.vmap(forward))
    backwards = jax.jit(jax.vmap(jax.grad(jax.grad(value))))
    try:
        forwards(jnp.zeros(_BATCH), jnp.zeros(_BATCH, int))
    except Exception:
        return backwards
    return forwards


def _reach(
    problem: Problem, directions: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Return how far each line stays within the domain, both ways."""
    low, high = np.full(_NUM_LINES, -_REACH), np.full(_NUM_LINES, _REACH)
    for leaf, interval, direction in zip(
        problem.start, problem.domain, directions, strict=True
    ):
        with np.errstate(all="ignore"):
            ends = [(end - leaf) / direction for end in interval]
        moves = (direction != 0) & np.isfinite(direction)
        above = np.where(moves, np.maximum(*ends), np.inf).reshape(_NUM_LINES, -1)
        below = np.where(moves, np.minimum(*ends), -np.inf).reshape(_NUM_LINES, -1)
        high = np.minimum(high, above.min(axis=1, initial=np.inf))
        low = np.maximum(low, below.max(axis=1, initial=-np.inf))
    return low, high


def _differs_where_smooth(lines: _Lines) -> bool:
    """Tell whether AD misses differences that agree with each other at two widths."""
    if lines.curvature is None:
        return False
    middle, half = (lines.low + lines.high) / 2, (lines.high - lines.low) / 2
    width = np.minimum(_WIDTH, half / 8)[:, None]
    places = middle[:, None] + half[:, None] * np.linspace(-0.8, 0.8, 16)
    line = np.broadcast_to(np.arange(_NUM_LINES)[:, None], places.shape)
    offsets = np.array([0.0, -1.0, 1.0, -0.25, 0.25])[:, None, None]
    values = _at(lines.value, places + offsets * width, line)
    here, *sides = values
    wide = (sides[0] + sides[1] - 2 * here) / width**2
    narrow = (sides[2] + sides[3] - 2 * here) / (width / 4) ** 2
    noise = _ROUNDING * np.abs(values).max(axis=0) / (width / 4) ** 2
    told = _at(lines.curvature, places, line)
    size = np.abs(told) + np.abs(narrow)
    is_smooth = np.abs(wide - narrow) <= 0.01 * size + noise
    differs = np.abs(told - narrow) > 0.05 * size + noise
    return int((is_smooth & differs).sum()) >= 2


def _has_concave_kink(lines: _Lines) -> bool:
    """Tell whether the slope falls at once somewhere on the lines.

    On each line two cells are looked into: the one over which the slope falls most, and
    the one that most exceeds its neighbours in that. They are halved until they are 256
    times narrower: across a kink the fall of the slope stays, elsewhere it shrinks.
    """
    if not (lines.high > lines.low).any():
        return False  # a domain of one point
    spread = np.linspace(0.0, 1.0, _NUM_CELLS + 1)
    places = lines.low[:, None] + (lines.high - lines.low)[:, None] * spread
    row = np.arange(_NUM_LINES)
    values = _at(lines.value, places, row[:, None])
    bends = np.diff(values, 2, axis=1)
    bends = np.where(np.isfinite(bends), bends, np.inf)
    with np.errstate(invalid="ignore"):
        excess = bends[:, 1:-1] - (bends[:, 2:] + bends[:, :-2]) / 2
    excess = np.where(np.isnan(excess), np.inf, excess)
    cells = np.concatenate([bends.argmin(axis=1), excess.argmin(axis=1) + 1])
    row = np.tile(row, 2)
    width = (places[:, 1] - places[:, 0])[row]
    place = places[row, cells + 1]
    steepest = np.abs(np.where(np.isfinite(bends), bends, 0.0)).max(axis=1)[row] / width
    size = np.abs(np.where(np.isfinite(values), values, 0.0)).max(axis=1)[row]
    for _ in range(8):
        width = width / 2
        centres = place[:, None] + width[:, None] * np.linspace(-1.0, 1.0, 5)
        ends = np.stack([centres - width[:, None], centres, centres + width[:, None]])
        left, middle, right = _at(lines.value, ends, row[None, :, None])
        bends = left - 2 * middle + right
        best = np.argmin(bends, axis=1)
        chosen = np.arange(len(row))
        place, fall = centres[chosen, best], -bends[chosen, best] / width
    # What is smooth has lost a factor of 256; of a kink all is left.
    return bool(
        ((fall > steepest / 16) & (fall > 100 * _ROUNDING * size / width)).any()
    )


def _at(fn: Callable[[Any, Any], Any], t: np.ndarray, line: Any) -> np.ndarray:
    """Evaluate in batches of one size, so that each function is compiled once."""
    line = np.broadcast_to(line, t.shape).reshape(-1)
    places = t.reshape(-1)
    count = -(-len(places) // _BATCH) * _BATCH
    rows = np.arange(count).reshape(-1, _BATCH) % len(places)
    values = [np.asarray(fn(places[part], line[part])) for part in rows]
    return np.concatenate(values)[: len(places)].reshape(t.shape)
