"""What is exact: absolute values, the larger and the smaller, whole numbers, sets."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from phihat.convexity.numbers.intervals.core import Interval, as_interval, rearrange

__all__ = [
    "absolute",
    "ceil",
    "eq",
    "floor",
    "ge",
    "gt",
    "hull",
    "intersect",
    "le",
    "lt",
    "maximum",
    "minimum",
    "ne",
    "overlaps",
    "reduce_max",
    "reduce_min",
    "round_half_away",
    "round_half_even",
    "sign",
    "truncate",
    "where",
]


def absolute(x: Any) -> Interval:
    """Take the absolute value: exact; zero is the least where x holds it."""
    x = as_interval(x)
    if x.is_point:
        return rearrange(np.abs, x)
    return Interval(np.maximum(np.maximum(x.low, -x.high), 0.0), x.magnitude)


maximum = functools.partial(rearrange, np.maximum)
minimum = functools.partial(rearrange, np.minimum)
sign = functools.partial(rearrange, np.sign)
floor = functools.partial(rearrange, np.floor)
ceil = functools.partial(rearrange, np.ceil)
truncate = functools.partial(rearrange, np.trunc)
"""To the next integer towards zero, as a cast does."""
round_half_even = functools.partial(rearrange, np.rint)
"""Exact, all of them, and monotone in each argument."""


def round_half_away(x: Any) -> Interval:
    """Round to the nearest integer, halves away from zero: exact and monotone.

    A number and its fraction are split exactly; to add 0.5 first would round.
    """

    def nearest(end: Any) -> Any:
        fraction, whole = np.modf(end)
        return whole + np.sign(end) * (np.abs(fraction) >= 0.5)

    return rearrange(nearest, x)


def reduce_max(x: Any, axes: int | Sequence[int] | None = None) -> Interval:
    """Take the largest over axes, all if None: exact, and monotone in each entry."""
    return rearrange(lambda end: np.max(end, axis=_as_axis(axes)), x)


def reduce_min(x: Any, axes: int | Sequence[int] | None = None) -> Interval:
    """Take the smallest over axes, all if None: exact, and monotone in each entry."""
    return rearrange(lambda end: np.min(end, axis=_as_axis(axes)), x)


def _as_axis(axes: int | Sequence[int] | None) -> int | tuple[int, ...] | None:
    return axes if axes is None or isinstance(axes, int) else tuple(axes)


# ---------------------------------------------------------------------- sets


def hull(x: Any, y: Any) -> Interval:
    """Return the smallest interval that holds both, numbers or intervals: exact."""
    x, y = as_interval(x), as_interval(y)
    return Interval(np.minimum(x.low, y.low), np.maximum(x.high, y.high))


def overlaps(x: Any, y: Any) -> np.ndarray:
    """Tell where the two have a number in common."""
    x, y = as_interval(x), as_interval(y)
    return (x.low <= y.high) & (y.low <= x.high)


def intersect(x: Any, y: Any) -> Interval:
    """Return what two enclosures of the same numbers have in common."""
    x, y = as_interval(x), as_interval(y)
    if not overlaps(x, y).all():
        raise ValueError("intersect: `x` and `y` have nothing in common.")
    return Interval(np.maximum(x.low, y.low), np.minimum(x.high, y.high))


def where(condition: Any, x: Any, y: Any) -> Interval:
    """Choose x where the condition, an array of bools, holds, and y elsewhere."""
    return rearrange(lambda a, b: np.where(condition, a, b), x, y)


# ---------------------------------------------------------------------- comparisons


def lt(x: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
    """Tell where x < y certainly holds, and where it certainly does not."""
    x, y = as_interval(x), as_interval(y)
    return x.high < y.low, x.low >= y.high


def le(x: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
    """Tell where x <= y certainly holds, and where it certainly does not."""
    x, y = as_interval(x), as_interval(y)
    return x.high <= y.low, x.low > y.high


def gt(x: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
    """Tell where x > y certainly holds, and where it certainly does not."""
    return lt(y, x)


def ge(x: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
    """Tell where x >= y certainly holds, and where it certainly does not."""
    return le(y, x)


def eq(x: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
    """Tell where x = y certainly holds (equal points), and where certainly not."""
    x, y = as_interval(x), as_interval(y)
    is_certain = (x.low == x.high) & (y.low == y.high) & (x.low == y.low)
    return is_certain, ~overlaps(x, y)


def ne(x: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
    """Tell where x differs from y certainly, and where certainly not."""
    equal, different = eq(x, y)
    return different, equal
