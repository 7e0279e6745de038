r"""What rules of values are made of.

A rule takes an equation and the ranges of its inputs and returns those of its outputs.
Where a function is not defined the element is marked (`extended.py`), never NaN: for
certain where the whole range lies outside of the domain, as unknown where some does.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from phihat.convexity.numbers import intervals as iv
from phihat.convexity.numbers.dtypes import ends, fits, is_boolean, is_integer
from phihat.convexity.numbers.extended import (
    FINITE,
    UNKNOWN,
    Extended,
    elementwise,
    extended,
    kind_of,
    unknown,
)
from phihat.convexity.numbers.intervals import Interval
from phihat.convexity.program.form import Equation

__all__ = [
    "Rule",
    "Total",
    "anything",
    "choose",
    "function",
    "holds_zero",
    "is_known",
    "is_same",
    "is_value",
    "kinds",
    "spread",
    "wrapped",
]

Rule = Callable[[Equation, list[Interval]], list[Interval] | None]
"""`(equation, ranges of the inputs) -> ranges of the outputs`, or None: no rule."""

Total = Callable[[Equation, list[Interval]], list[Interval]]
"""A rule that always tells."""


def function(
    enclose: Callable[..., Interval],
    ieee: Callable[..., Any] | None = None,
    marks: Callable[..., np.ndarray | None] | None = None,
) -> Total:
    """Make a rule of a function of intervals.

    `ieee` is the function of floats, for elements that are infinite; `marks` returns
    the kind of each element of the result, or None if all are finite.
    """

    def marked(*xs: Interval) -> Interval:
        return extended(enclose(*xs), marks(*xs) if marks else None)

    def rule(equation: Equation, inputs: list[Interval]) -> list[Interval]:
        del equation
        return [elementwise(marked, ieee, inputs)]

    return rule


def kinds(*cases: tuple[np.ndarray, int], defined: np.ndarray) -> np.ndarray | None:
    """Choose the first case that holds; finite where defined, else unknown."""
    if defined.all():
        return None
    conditions, kinds = zip(*cases, strict=True) if cases else ((), ())
    return np.select([defined, *conditions], [FINITE, *kinds], default=UNKNOWN).astype(
        np.int8
    )


def wrapped(x: Interval, dtype: Any) -> Interval:
    """Allow for overflow: an integer that may leave its dtype may be any of them."""
    if not (is_integer(dtype) or is_boolean(dtype)):
        return x
    marks = kind_of(x)
    inside = fits(x.low, x.high, dtype)
    if marks is None and np.all(inside):
        return x
    low, high = ends(dtype)
    if marks is not None:  # an integer is a number, whatever it was made of
        inside = inside & (marks == FINITE)
    return Interval(np.where(inside, x.low, low), np.where(inside, x.high, high))


def anything(shape: Sequence[int], dtype: Any) -> Interval:
    """Return elements that may be any number of a dtype, or of none that is known."""
    if is_integer(dtype) or is_boolean(dtype):
        return Interval(*(np.full(tuple(shape), end) for end in ends(dtype)))
    return unknown(shape)


def is_known(x: Interval) -> bool:
    """Tell whether every element is one known finite number."""
    if isinstance(x, Extended):
        return False
    return x.is_point or bool(np.array_equal(x.low, x.high))


def is_value(x: Interval, value: float) -> np.ndarray:
    """Tell which elements are this very number."""
    return (x.low == value) & (x.high == value)


def holds_zero(x: Interval) -> np.ndarray:
    """Tell which elements may be zero."""
    return (x.low <= 0) & (x.high >= 0)


def is_same(equation: Equation, inputs: list[Interval]) -> bool:
    """Tell whether a binary primitive is applied to one value twice."""
    return (
        len(set(equation.inputs)) == 1
        and len(inputs) == 2
        and kind_of(inputs[0]) is None
        and inputs[0].shape == inputs[1].shape
    )


def spread(x: Interval, shape: tuple[int, ...]) -> Interval:
    """Broadcast the ends and the marks."""
    wide = iv.rearrange(lambda end: np.broadcast_to(end, shape), x)
    kind = kind_of(x)
    return extended(wide, None if kind is None else np.broadcast_to(kind, shape))


def choose(condition: np.ndarray, x: Interval, y: Interval) -> Interval:
    """Choose x where the condition holds, and y elsewhere, with their marks."""
    chosen = iv.where(
        condition, *(Interval(*z) if kind_of(z) is not None else z for z in (x, y))
    )
    kinds = [kind_of(z) for z in (x, y)]
    if kinds[0] is None and kinds[1] is None:
        return chosen
    filled = [0 if kind is None else kind for kind in kinds]
    return extended(chosen, np.where(condition, *filled).astype(np.int8))
