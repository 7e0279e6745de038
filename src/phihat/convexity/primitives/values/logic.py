"""Rules of rounding, casts, comparisons, and the logic of what is true.

A truth is a number: 1 where it is certain, 0 where its contrary is, else in [0, 1].
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from phihat.convexity.numbers import intervals as iv
from phihat.convexity.numbers.dtypes import cast_ends, is_boolean, is_float, is_integer
from phihat.convexity.numbers.extended import (
    FINITE,
    UNKNOWN,
    Extended,
    elementwise,
    kind_of,
    unknown,
)
from phihat.convexity.numbers.intervals import Interval
from phihat.convexity.primitives.values.rule_builders import (
    Rule,
    anything,
    function,
    holds_zero,
    is_known,
    is_same,
)
from phihat.convexity.program.form import Equation

__all__ = [
    "cast",
    "clamp",
    "comparison",
    "invert",
    "is_finite",
    "logic",
    "rounded",
    "shift",
    "total_order",
]

_BITS = {"and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor}


def rounded(equation: Equation, inputs: list[Interval]) -> list[Interval]:
    """To even, or away from zero."""
    to_even = int(equation.params["rounding_method"]) == 1
    rounded = iv.round_half_even if to_even else iv.round_half_away
    return function(rounded, np.rint)(equation, inputs)


def clamp(equation: Equation, inputs: list[Interval]) -> list[Interval]:
    """Min(max(x, low), high)."""
    del equation
    low, x, high = inputs
    raised = elementwise(iv.maximum, np.maximum, [low, x])
    return [elementwise(iv.minimum, np.minimum, [raised, high])]


def cast(equation: Equation, inputs: list[Interval]) -> list[Interval] | None:
    """Cast: to integers by truncation, to booleans by `!= 0`.

    To floats integers are rounded where they are too large; floats stay as they are.
    """
    (x,), dtype = inputs, equation.params["new_dtype"]
    if is_boolean(dtype):
        zero = iv.from_array(0.0)
        return [_truth(elementwise(_compared(iv.ne), np.not_equal, [x, zero]))]
    if is_integer(dtype):
        if isinstance(x, Extended):
            return [anything(x.shape, dtype)]
        return [iv.truncate(x)]
    if not is_float(dtype):
        return None
    if isinstance(x, Extended) or not any(map(is_integer, equation.input_dtypes)):
        return [x]
    ends = cast_ends(x.low, x.high, dtype)
    return [x if ends[0] is x.low else Interval(*ends)]


def _compared(
    compare: Callable[..., tuple[np.ndarray, np.ndarray]],
) -> Callable[..., Interval]:
    """Make truth a number: 1 where it holds for certain, 0 where certainly not."""

    def enclose(x: Interval, y: Interval) -> Interval:
        holds, fails = compare(x, y)
        low = np.asarray(holds, np.float64)
        if np.all(holds | fails):
            return Interval(low, low)
        return Interval(low, 1.0 - fails)

    return enclose


def _truth(x: Interval) -> Interval:
    """Bound what is not known: a comparison is true or false, whatever is compared."""
    kind = kind_of(x)
    if kind is None:
        return x
    return Interval(np.where(kind, 0.0, x.low), np.where(kind, 1.0, x.high))


def comparison(
    compare: Callable[..., Any], ieee: Callable[..., Any], reflexive: bool
) -> Rule:
    """Make the rule of a comparison; `reflexive`: whether x holds to itself."""
    enclose = _compared(compare)

    def rule(equation: Equation, inputs: list[Interval]) -> list[Interval]:
        if is_same(equation, inputs):  # a finite number equals itself
            return [iv.from_array(np.broadcast_to(float(reflexive), inputs[0].shape))]
        return [_truth(elementwise(enclose, lambda *x: ieee(*x) * 1.0, inputs))]

    return rule


def total_order(compare: Callable[..., Any], ieee: Callable[..., Any]) -> Rule:
    """Make the rule of a comparison that tells -0 from 0, which intervals do not.

    It also finds a place for NaN, which is not known here.
    """

    def apart(x: Interval, y: Interval) -> tuple[np.ndarray, np.ndarray]:
        holds, fails = compare(x, y)
        may_be_zeros = holds_zero(x) & holds_zero(y)
        return holds & ~may_be_zeros, fails & ~may_be_zeros

    def in_floats(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.where(np.isnan(x) | np.isnan(y), np.nan, ieee(x, y))

    return comparison(apart, in_floats, ieee(0.0, 0.0))


def is_finite(equation: Equation, inputs: list[Interval]) -> list[Interval]:
    """Certain where the marks are."""
    del equation
    kind = kind_of(inputs[0])
    if kind is None:
        return [iv.from_array(np.broadcast_to(1.0, inputs[0].shape))]
    low = (kind == FINITE).astype(np.float64)
    return [Interval(low, ((kind == FINITE) | (kind == UNKNOWN)).astype(np.float64))]


def invert(equation: Equation, inputs: list[Interval]) -> list[Interval]:
    """Invert: 1 - x for booleans, and -1 - x for integers."""
    if equation.dtype is None:
        return [unknown(inputs[0].shape)]
    if is_boolean(equation.dtype):
        return [iv.sub(1.0, inputs[0])]
    if np.dtype(equation.dtype).kind == "u":
        return [iv.sub(iv.from_rational(int(np.iinfo(equation.dtype).max)), inputs[0])]
    return [iv.sub(-1.0, inputs[0])]


def logic(name: str) -> Rule:
    """Make the rule of a logical function; on integers, bit by bit."""
    monotone = {"and": iv.minimum, "or": iv.maximum}.get(name)

    def rule(equation: Equation, inputs: list[Interval]) -> list[Interval]:
        x, y = inputs
        if monotone is not None and is_boolean(equation.dtype):
            return [monotone(x, y)]
        if is_known(x) and is_known(y):
            dtype = np.int64 if equation.dtype is None else equation.dtype
            bits = _BITS[name](x.low.astype(dtype), y.low.astype(dtype))
            return [iv.from_array(bits)]
        shape = np.broadcast_shapes(x.shape, y.shape)
        if is_boolean(equation.dtype):
            decided = (x.low == x.high) & (y.low == y.high)
            differ = (x.low != y.low).astype(np.float64)
            return [
                Interval(np.where(decided, differ, 0.0), np.where(decided, differ, 1.0))
            ]
        return [anything(shape, equation.dtype)]

    return rule


def shift(equation: Equation, inputs: list[Interval]) -> list[Interval]:
    """Shift known integers; of others nothing but the dtype is told."""
    x, y = inputs
    shape = np.broadcast_shapes(x.shape, y.shape)
    return [anything(shape, equation.dtype)]
