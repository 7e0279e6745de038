"""Squares, roots and powers."""

import functools
from typing import Any

import numpy as np

from phihat.convexity.numbers.intervals import ends, rounding, trusted
from phihat.convexity.numbers.intervals.core import Interval, as_interval, div, mul
from phihat.convexity.numbers.intervals.order import absolute

__all__ = ["integer_power", "power", "power_is_defined", "rsqrt", "sqrt", "square"]


def square(x: Any) -> Interval:
    """Square: it grows with |x|, so that the square of a straddling x is tight."""
    x = absolute(x)
    if x.is_point:
        return mul(x, x)
    return Interval(*rounding.in_blocks(ends.square_between, x.low, x.high))


def integer_power(x: Any, n: int) -> Interval:
    """Raise to a whole power: it grows with x for odd n > 0, with |x| for even n.

    The ends are raised by repeated squaring, each step rounded outward. A negative
    power is the reciprocal of the positive one, as `div` takes it at zero.
    """
    x = as_interval(x)
    if n < 0:
        return div(1.0, integer_power(x, -n))
    if n == 0:
        one = np.ones(x.shape)
        return Interval(one, one)
    x = x if n % 2 else absolute(x)
    if x.is_point:
        return _multiplied_out(x, n)
    low, high = (_multiplied_out(_finite(end), n) for end in x)
    return Interval(
        np.where(np.isinf(x.low), -np.inf, low.low),
        np.where(np.isinf(x.high), np.inf, high.high),
    )


def _multiplied_out(x: Interval, n: int) -> Interval:
    """Multiply the powers x, x^2, x^4, ... that n is made of."""
    factors = []
    while n:
        if n % 2:
            factors.append(x)
        n //= 2
        if n:
            x = square(x)
    return functools.reduce(mul, factors)


def _finite(end: np.ndarray) -> Interval:
    end = np.where(np.isinf(end), 0.0, end)
    return Interval(end, end)


def sqrt(x: Any) -> Interval:
    """Take the square root: rounded outward by the sign of the remainder x - s^2.

    Where all of x is negative the result is [0, inf].
    """
    x = as_interval(x)
    if x.is_point and (x.low >= 0).all():
        return Interval(*rounding.in_blocks(ends.root_of_points, x.low))
    low, high = rounding.in_blocks(
        ends.root_between, np.maximum(x.low, 0.0), np.maximum(x.high, 0.0)
    )
    return Interval(low, np.where(x.high < 0, np.inf, high))


def rsqrt(x: Any) -> Interval:
    """Take 1 / sqrt(x), for x > 0; it never attains 0."""
    root = sqrt(x)
    low, high = div(1.0, root)
    return Interval(np.maximum(low, 0.0), high)


def power(x: Any, y: Any) -> Interval:
    """Take x^y for x >= 0, where 0^0 is 1: extremal at a corner of the box.

    In x it grows or falls with the sign of y, in y with that of log x. For whole y and
    x of any sign see `integer_power`. Where all of x is negative: [0, inf].
    """
    x, y = as_interval(x), as_interval(y)
    bases = [np.abs(np.maximum(end, 0.0)) for end in _distinct(x)]  # no negative zero
    corners = [
        rounding.in_blocks(_power_at, base, exponent)
        for base in bases
        for exponent in _distinct(y)
    ]
    low = functools.reduce(np.minimum, (corner[0] for corner in corners))
    high = functools.reduce(np.maximum, (corner[1] for corner in corners))
    return Interval(np.maximum(low, 0.0), np.where(x.high < 0, np.inf, high))


def power_is_defined(x: Any, y: Any) -> np.ndarray:
    """Tell where x > 0, or x >= 0 and y >= 0."""
    x, y = as_interval(x), as_interval(y)
    return (x.low > 0) | ((x.low >= 0) & (y.low >= 0))


def _power_at(x: Any, y: Any) -> tuple[Any, Any]:
    low, high = trusted.enclose("power", x, y)
    is_base, is_one = y == 1, (x == 1) | (y == 0)
    is_exact = is_base | is_one | ((x == 0) & (y > 0))  # a power of zero is its base
    value = np.where(is_one, 1.0, x)
    return np.where(is_exact, value, low), np.where(is_exact, value, high)


def _distinct(x: Interval) -> list[np.ndarray]:
    return [x.low] if x.is_point else [x.low, x.high]
