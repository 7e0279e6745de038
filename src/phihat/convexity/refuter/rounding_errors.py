r"""How far rounding may take a program's value: a running error analysis.

Each value is an interval that holds both the real number that the program denotes and
what the user's own floats hold. Through each equation it goes by the rule of values,
and the rounding of its own dtype is added,
$|\mathrm{fl}(x \circ y) - x \circ y| \le u\,|x \circ y|$, or some ulps for a
function that XLA computes less well. So a sum of large numbers that cancel has a large
bound, though its value is small. What no rule bounds raises `Unbounded`.

References:
  Higham, *Accuracy and Stability of Numerical Algorithms*, 2002, section 3.3.
"""

import math
import time
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from phihat.convexity.numbers import dtypes
from phihat.convexity.numbers.extended import Extended, extended, from_constant, kind_of
from phihat.convexity.numbers.intervals import Interval
from phihat.convexity.primitives.evaluation import (
    Undefined,
    Unreadable,
    applied,
    evaluate,
)
from phihat.convexity.primitives.registry import record
from phihat.convexity.program.form import Equation, Program

__all__ = ["Unbounded", "value_and_error"]


class Unbounded(Exception):
    """No bound on the rounding of some equation is known."""


def value_and_error(
    program: Program,
    params: Sequence[Any],
    data: Sequence[Any],
    deadline: float = math.inf,
) -> tuple[float, float]:
    """Evaluate a program at a point, with a bound on the rounding in its own dtypes.

    Args:
      program: the program.
      params: the leaves of params, exact in their own dtypes.
      data: the leaves of data.
      deadline: of `time.monotonic`; a long loop is analysed round by round.

    Returns:
      The value in float64, and how far the user's floats may be from the real value.

    Raises:
      Unbounded: an equation has no rule, its value may overflow or not exist, or time
        ran out.
    """

    def step(*args: Any) -> list[Interval]:
        if time.monotonic() > deadline:
            raise Unbounded("a program of too many steps")
        return _rounded(*args)

    numbers, leaves = (*program.params, *program.data), (*params, *data)
    given = {
        n: from_constant(leaf)
        for n, leaf in zip(numbers, leaves, strict=True)
        if dtypes.is_readable(program.dtypes[n]) and leaf is not None
    }
    try:
        (found,) = evaluate(program, given, step=step).values()
    except (Undefined, Unreadable) as error:
        raise Unbounded(str(error)) from None
    found = _cast(found, program.narrowed.get(program.output))
    return float(found.middle), float(found.width)


def _rounded(
    program: Program, equation: Equation, inputs: list[Interval]
) -> list[Interval]:
    """Apply an equation, with the rounding of its dtype."""
    casts = map(program.narrowed.get, equation.inputs)
    inputs = list(map(_cast, inputs, casts))
    if any(map(dtypes.is_integer, equation.dtypes)) and equation.bind is not None:
        exact = _bound(equation, inputs)
        if exact is not None:
            return exact
    with np.errstate(all="ignore"):
        results = applied(equation, inputs)
        return [
            _with_rounding(equation, inputs, x, dtype)
            for x, dtype in zip(results, equation.dtypes, strict=True)
        ]


def _bound(equation: Equation, inputs: list[Interval]) -> list[Interval] | None:
    """Bind the equation itself on numbers that rounding cannot change."""
    if not all(type(x) is not Extended and x.is_point for x in inputs):
        return None
    arrays = [
        jnp.asarray(x.low.astype(dtype))
        for x, dtype in zip(inputs, equation.input_dtypes, strict=True)
    ]
    assert equation.bind is not None
    results = equation.bind(*arrays, **equation.params)
    results = results if isinstance(results, (list, tuple)) else [results]
    return [from_constant(np.asarray(result)) for result in results]


def _with_rounding(
    equation: Equation, inputs: list[Interval], x: Interval, dtype: Any
) -> Interval:
    if not dtypes.is_float(dtype):
        if dtypes.is_integer(dtype) and not np.array_equal(x.low, x.high):
            raise Unbounded("an integer that rounding may change")
        return x
    rounding = record(equation.primitive).rounding
    if rounding is None:
        raise Unbounded(f"`{equation.primitive}` has no bound")
    kind = jnp.finfo(dtype)
    bound = (
        rounding(equation, inputs, x)
        if callable(rounding)
        else (rounding * x.magnitude)
    )
    return _widened(x, bound * float(kind.eps) + 2 * float(kind.tiny), kind)


def _cast(x: Interval, dtype: Any) -> Interval:
    """Add the rounding of a cast that the program reads as the identity."""
    if dtype is None:
        return x
    kind = jnp.finfo(dtype)
    return _widened(x, x.magnitude * float(kind.eps) + float(kind.tiny), kind)


def _widened(x: Interval, room: Any, kind: Any) -> Interval:
    """Widen by what rounding may move; refuse what may overflow."""
    marks = kind_of(x)
    is_open = ~np.isfinite(x.magnitude + room)
    room = np.where(is_open, 0.0, room)
    wide = Interval(x.low - room, x.high + room)
    is_large = is_open | (wide.magnitude > float(kind.max) / 2)
    if (is_large if marks is None else is_large & (marks == 0)).any():
        raise Unbounded("a value that overflows")
    return extended(wide, marks)
