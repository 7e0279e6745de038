r"""Sines, cosines, tangents, and the angle of a point."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from phihat.convexity.numbers.intervals import trusted
from phihat.convexity.numbers.intervals.core import (
    Interval,
    as_interval,
    blockwise,
    div,
    from_decimal,
    mul,
    sub,
)

__all__ = ["PI", "atan2", "atan2_is_defined", "cos", "sin", "tan", "tan_is_defined"]

PI = from_decimal("3.14159265358979323846264338327950288419")
r"""The two floats around $\pi$."""


@blockwise
def sin(x: Any) -> Interval:
    """Take the sine: 1 where x may hold some (2k + 1/2) pi, -1 at (2k + 3/2) pi."""
    return _periodic(_sin_at, x, 0.5)


@blockwise
def cos(x: Any) -> Interval:
    """Take the cosine: 1 where x may hold some 2k pi, -1 at (2k + 1) pi."""
    return _periodic(_cos_at, x, 0.0)


def _periodic(at: Callable[..., tuple[Any, Any]], x: Any, peak: float) -> Interval:
    """Bound by the ends, and by 1 or -1 where a peak or a trough may lie between.

    Peaks are at (2k + peak) pi, troughs half a turn on. The turns are counted with
    intervals, so that none is missed. Far out the bound is [-1, 1].
    """
    x = as_interval(x)
    low, high = at(_near(x.low))
    if not x.is_point:
        other_low, other_high = at(_near(x.high))
        low, high = np.minimum(low, other_low), np.maximum(high, other_high)
    turns = sub(mul(div(x, PI), 0.5), peak / 2)
    is_far = x.magnitude > trusted.TRIGONOMETRIC_LIMIT
    has_peak = is_far | _may_hold_whole(turns)
    has_trough = is_far | _may_hold_whole(sub(turns, 0.5))
    return Interval(
        np.where(has_trough, -1.0, np.maximum(low, -1.0)),
        np.where(has_peak, 1.0, np.minimum(high, 1.0)),
    )


def _sin_at(x: Any) -> tuple[Any, Any]:
    low, high = trusted.enclose_sine_or_cosine("sin", x)
    return np.where(x == 0, 0.0, low), np.where(x == 0, 0.0, high)


def _cos_at(x: Any) -> tuple[Any, Any]:
    low, high = trusted.enclose_sine_or_cosine("cos", x)
    return np.where(x == 0, 1.0, low), np.where(x == 0, 1.0, high)


def _near(end: np.ndarray) -> np.ndarray:
    return np.clip(end, -trusted.TRIGONOMETRIC_LIMIT, trusted.TRIGONOMETRIC_LIMIT)


def _may_hold_whole(x: Interval) -> np.ndarray:
    return np.floor(x.high) >= np.ceil(x.low)


@blockwise
def tan(x: Any) -> Interval:
    """Take the tangent: it grows between poles, and is sin / cos at the ends.

    Where x may hold a pole, and far out, the result is [-inf, inf].
    """
    x = as_interval(x)
    ends = (Interval(end, end) for end in map(_near, x))
    low, high = (
        div(_periodic(_sin_at, p, 0.5), _periodic(_cos_at, p, 0.0)) for p in ends
    )
    is_defined = tan_is_defined(x)
    return Interval(
        np.where(is_defined, low.low, -np.inf), np.where(is_defined, high.high, np.inf)
    )


def tan_is_defined(x: Any) -> np.ndarray:
    """Tell where x certainly holds no pole, an odd multiple of pi / 2."""
    x = as_interval(x)
    is_near = x.magnitude <= trusted.TRIGONOMETRIC_LIMIT
    return is_near & ~_may_hold_whole(sub(div(x, PI), 0.5))


@blockwise
def atan2(y: Any, x: Any) -> Interval:
    """Take the angle of (x, y): extremal at a corner, as its level sets are rays.

    A box that touches the cut, the negative x axis, is given [-pi, pi]: there floats
    go by the sign of a zero y, which the real number does not have.
    """
    y, x = as_interval(y), as_interval(x)
    corners = [_angle_at(b, a) for a in x for b in y]
    low = functools.reduce(np.minimum, (corner[0] for corner in corners))
    high = functools.reduce(np.maximum, (corner[1] for corner in corners))
    is_cut = (y.low <= 0) & (y.high >= 0) & (x.low < 0)
    low = np.where(is_cut, -PI.high, np.maximum(low, -PI.high))
    high = np.where(is_cut, PI.high, np.minimum(high, PI.high))
    is_above = (y.low >= 0) & ~is_cut
    return Interval(np.where(is_above, np.maximum(low, 0.0), low), high)


def atan2_is_defined(y: Any, x: Any) -> np.ndarray:
    """Tell where the origin certainly lies outside."""
    y, x = as_interval(y), as_interval(x)
    return (y.low > 0) | (y.high < 0) | (x.low > 0) | (x.high < 0)


def _angle_at(y: Any, x: Any) -> tuple[Any, Any]:
    """Bound the angle; adding 0 lifts a negative zero."""
    low, high = trusted.enclose("arctan2", y + 0.0, x + 0.0)
    is_zero = (y == 0) & (x >= 0)
    return np.where(is_zero, 0.0, low), np.where(is_zero, 0.0, high)
