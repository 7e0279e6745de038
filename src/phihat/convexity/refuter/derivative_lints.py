"""Places where automatic differentiation and the value of a loss disagree.

`stop_gradient` and custom derivative rules make `jax.hessian` tell of another function
than the one that is minimized, and of a kink it tells nothing. Differences of values
along a few lines through the params show both.
"""

import math
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from phihat.convexity.program.floating import function_of
from phihat.convexity.program.problem import Problem
from phihat.convexity.refuter import chords

__all__ = ["lints"]

_NUM_LINES = 4
_REACH = 4.0
_NUM_CELLS = 64
_WIDTH = 1e-2
_BATCH = 64
_ROUNDING = 1e-14
"""What differences of values may owe to rounding, relative to the values."""

_SAY = "AD curvature is not the curvature of the value"

_OnLines = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Of the parameters t of points, and of the lines that they lie on."""


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
    sentences: list[str] = []
    if time.monotonic() >= deadline or not problem.size:
        return ()
    with chords.in_float64(), np.errstate(all="ignore"):
        try:
            value, with_rules, low, high = _lines(problem)
            rules = problem.program.rules_of_ad
            if rules and _differs_where_smooth(value, with_rules, low, high):
                sentences.append(f"{_SAY}: {', '.join(rules)}")
            kink = None
            if time.monotonic() < deadline:
                kink = _concave_kink(value, low, high)
            if kink is not None:
                sentences.append(
                    f"{_SAY}: within {_REACH:g} of the params {kink}, where AD sees no "
                    "curvature"
                )
        except Exception:  # a lint is a service: what AD cannot do is not its concern
            return ()
    return tuple(sentences)


def _lines(problem: Problem) -> tuple[_OnLines, _OnLines, np.ndarray, np.ndarray]:
    """Draw the line of all ones and three at random, in what varies.

    Returns:
      The value of the flat program in float64 on these lines; AD's second derivative of
      the jaxpr in its own dtypes; where each line enters the domain, at -4 or later,
      and where it leaves, at 4 or sooner `[4]`.
    """
    space = chords.space_of(problem)
    drawn = np.random.default_rng(0).normal(size=(_NUM_LINES, len(space.start)))
    drawn[0] = 1.0
    directions = drawn * (space.low < space.high) / problem.size**0.5
    stacked, flat = jnp.asarray(directions), function_of(problem.program)
    data = [None if leaf is None else leaf.low for leaf in problem.data]

    def point(t: Any, line: Any) -> list[Any]:
        return problem.cut(space.start + t * stacked[line])

    def with_rules(t: Any, line: Any) -> Any:
        return problem.loss(point(t, line)).astype(jnp.float64)

    ends = [(end - space.start) / directions for end in (space.low, space.high)]
    moves = directions != 0
    above = np.where(moves, np.maximum(*ends), np.inf).min(axis=1)
    below = np.where(moves, np.minimum(*ends), -np.inf).max(axis=1)
    return (
        _in_batches(lambda t, line: flat(point(t, line), data)),
        _in_batches(jax.grad(jax.grad(with_rules))),
        np.maximum(below, -_REACH),
        np.minimum(above, _REACH),
    )


def _differs_where_smooth(
    value: _OnLines, with_rules: _OnLines, low: np.ndarray, high: np.ndarray
) -> bool:
    """Tell whether AD misses differences that agree with each other at two widths."""
    middle, half = (low + high) / 2, (high - low) / 2
    width = np.minimum(_WIDTH, half / 8)[:, None]
    places = middle[:, None] + half[:, None] * np.linspace(-0.8, 0.8, 16)
    line = np.broadcast_to(np.arange(_NUM_LINES)[:, None], places.shape)
    offsets = np.array([0.0, -1.0, 1.0, -0.25, 0.25])[:, None, None]
    values = value(places + offsets * width, line)
    here, *sides = values
    wide = (sides[0] + sides[1] - 2 * here) / width**2
    narrow = (sides[2] + sides[3] - 2 * here) / (width / 4) ** 2
    noise = _ROUNDING * np.abs(values).max(axis=0) / (width / 4) ** 2
    told = with_rules(places, line)
    size = np.abs(told) + np.abs(narrow)
    is_smooth = np.abs(wide - narrow) <= 0.01 * size + noise
    differs = np.abs(told - narrow) > 0.05 * size + noise
    return int((is_smooth & differs).sum()) >= 2


def _concave_kink(value: _OnLines, low: np.ndarray, high: np.ndarray) -> str | None:
    """Say whether the slope falls at once somewhere on the lines, or the value jumps.

    On each line two cells are looked into: the one over which the slope falls most, and
    the one that most exceeds its neighbours in that. They are halved until they are 256
    times narrower: across a kink the fall of the slope stays, at a jump it grows, and
    elsewhere it shrinks.
    """
    spread = np.linspace(0.0, 1.0, _NUM_CELLS + 1)
    places = low[:, None] + (high - low)[:, None] * spread
    row = np.arange(_NUM_LINES)
    values = value(places, row[:, None])
    bends = np.diff(values, 2, axis=1)
    bends = np.where(np.isfinite(bends), bends, np.inf)
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
        left, middle, right = value(ends, row[None, :, None])
        bends = left - 2 * middle + right
        best = np.argmin(bends, axis=1)
        chosen = np.arange(len(row))
        place, fall = centres[chosen, best], -bends[chosen, best] / width
    # What is smooth has lost a factor of 256; of a kink all is left.
    seen = (fall > steepest / 16) & (fall > 100 * _ROUNDING * size / width)
    if not seen.any():
        return None
    is_kink = seen & (fall < 16 * steepest)
    return "the slope falls at a concave kink" if is_kink.any() else "the value jumps"


def _in_batches(function: Callable[[Any, Any], Any]) -> _OnLines:
    """Evaluate many points, in batches of one size: the function is compiled once."""
    mapped = chords.compiled(jax.vmap(function), is_small=True)

    def values(t: np.ndarray, line: np.ndarray) -> np.ndarray:
        line, places = np.broadcast_to(line, t.shape).reshape(-1), t.reshape(-1)
        count = -(-len(places) // _BATCH) * _BATCH
        rows = np.arange(count).reshape(-1, _BATCH) % len(places)
        found = [np.asarray(mapped(places[part], line[part])) for part in rows]
        return np.concatenate(found)[: len(places)].reshape(t.shape)

    return values
