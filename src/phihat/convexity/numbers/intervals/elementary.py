r"""Elementary functions: one table of monotone functions, one evaluator."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from phihat.convexity.numbers.intervals import rounding, trusted
from phihat.convexity.numbers.intervals.core import (
    Interval,
    add,
    as_interval,
    blockwise,
    div,
    neg,
    sub,
)
from phihat.convexity.numbers.intervals.order import absolute, maximum, where

__all__ = [
    "MONOTONE",
    "Monotone",
    "acos",
    "acosh",
    "asin",
    "asinh",
    "atan",
    "atanh",
    "cbrt",
    "cosh",
    "exp",
    "exp2",
    "expm1",
    "from_ends",
    "log",
    "log1p",
    "logaddexp",
    "logistic",
    "sinh",
    "softplus",
    "tanh",
]

_LINE = (-np.inf, np.inf)


class Monotone(NamedTuple):
    """A function that grows, or falls, on the whole of its domain.

    Attributes:
      domain: the closed hull of the numbers at which it is defined.
      range: the closed hull of its values, to which its bounds are clipped.
      exact: arguments and their results, where both are floats: they bound the values
        on either side, and so keep signs.
      is_increasing: else it falls.
    """

    domain: tuple[float, float] = _LINE
    range: tuple[float, float] = _LINE
    exact: tuple[tuple[float, float], ...] = ((0.0, 0.0),)
    is_increasing: bool = True


MONOTONE = {
    "exp": Monotone(range=(0.0, np.inf), exact=((0.0, 1.0),)),
    "exp2": Monotone(range=(0.0, np.inf), exact=((-1.0, 0.5), (0.0, 1.0), (1.0, 2.0))),
    "expm1": Monotone(range=(-1.0, np.inf)),
    "log": Monotone(domain=(0.0, np.inf), exact=((1.0, 0.0),)),
    "log1p": Monotone(domain=(-1.0, np.inf)),
    "cbrt": Monotone(exact=((-1.0, -1.0), (0.0, 0.0), (1.0, 1.0))),
    "sinh": Monotone(),
    "cosh": Monotone(domain=(0.0, np.inf), range=(1.0, np.inf), exact=((0.0, 1.0),)),
    "tanh": Monotone(range=(-1.0, 1.0)),
    "arcsinh": Monotone(),
    "arccosh": Monotone(domain=(1.0, np.inf), range=(0.0, np.inf), exact=((1.0, 0.0),)),
    "arctanh": Monotone(domain=(-1.0, 1.0)),
    "arcsin": Monotone(domain=(-1.0, 1.0)),
    "arccos": Monotone(
        domain=(-1.0, 1.0),
        range=(0.0, np.inf),
        exact=((1.0, 0.0),),
        is_increasing=False,
    ),
    "arctan": Monotone(),
}
"""By NumPy's names; `trusted.ULPS` bounds the errors."""


def _monotone(name: str, x: Any) -> Interval:
    """Enclose a function of the table: its values at the ends bound all between.

    Of an argument that leaves the domain the part inside counts; where nothing is
    inside, the result is the whole range.
    """
    entry = MONOTONE[name]
    x = as_interval(x)

    def at(end: Any) -> tuple[Any, Any]:
        if entry.domain != _LINE:
            end = np.minimum(np.maximum(end, entry.domain[0]), entry.domain[1])
        low, high = trusted.enclose(name, end)
        if entry.range != _LINE:
            low = np.maximum(low, entry.range[0])
            high = np.minimum(high, entry.range[1])
        for argument, value in entry.exact:
            above, below = end >= argument, end <= argument
            if not entry.is_increasing:
                above, below = below, above
            low = rounding.choose(above, np.maximum(low, value), low)
            high = rounding.choose(below, np.minimum(high, value), high)
        return low, high

    def between(least: Any, most: Any) -> tuple[Any, Any]:
        first, last = (least, most) if entry.is_increasing else (most, least)
        return at(first)[0], at(last)[1]

    if x.is_point:
        low, high = rounding.in_blocks(at, x.low)
    else:
        low, high = rounding.in_blocks(between, x.low, x.high)
    if entry.domain != _LINE:
        outside = (x.high < entry.domain[0]) | (x.low > entry.domain[1])
        low = np.where(outside, entry.range[0], low)
        high = np.where(outside, entry.range[1], high)
    return Interval(low, high)


def cosh(x: Any) -> Interval:
    """Take the hyperbolic cosine: it grows with |x|, and is at least 1."""
    return _monotone("cosh", absolute(x))


# Open ends are not attained, though bounds may be 0.0, -1.0 or 1.0.
(
    exp,
    exp2,
    expm1,
    log,
    log1p,
    cbrt,
    sinh,
    tanh,
    asinh,
    acosh,
    atanh,
    asin,
    acos,
    atan,
) = (functools.partial(_monotone, name) for name in MONOTONE if name != "cosh")
"""The functions of the table."""


# ---------------------------------------------------------------------- combinations


@blockwise
def logistic(x: Any) -> Interval:
    """Take 1 / (1 + exp(-x)), which grows; it never attains 0 or 1."""
    return from_ends(_logistic_at, x, range=(0.0, 1.0))


@blockwise
def softplus(x: Any) -> Interval:
    """Take log(1 + exp(x)), which grows; it never attains 0."""
    return from_ends(_softplus_at, x, range=(0.0, np.inf))


@blockwise
def logaddexp(x: Any, y: Any) -> Interval:
    """Take log(exp(x) + exp(y)), which grows with x and with y."""
    return from_ends(_logaddexp_at, x, y)


def _logistic_at(x: Interval) -> Interval:
    """Take 1 / (1 + t) or t / (1 + t), with t = exp(-|x|) <= 1."""
    small = exp(neg(absolute(x)))
    total = add(1.0, small)
    return div(where(x.low >= 0, 1.0, small), total)


def _softplus_at(x: Interval) -> Interval:
    """Take max(x, 0) + log1p(exp(-|x|)), where nothing cancels."""
    return add(maximum(x, 0.0), log1p(exp(neg(absolute(x)))))


def _logaddexp_at(x: Interval, y: Interval) -> Interval:
    """Take max(x, y) + log1p(exp(-|x - y|))."""
    return add(maximum(x, y), log1p(exp(neg(absolute(sub(x, y))))))


def from_ends(
    enclose: Callable[..., Interval],
    *xs: Any,
    range: tuple[float, float] = _LINE,
    is_increasing: bool = True,
) -> Interval:
    """Lift an enclosure at finite points to intervals, for a function monotone in each.

    Bounds are clipped to `range`, the closed hull of the values; one that would be
    taken at infinite ends is that of the range: for several arguments a low bound needs
    all of them infinite and a high bound any, as in `logaddexp`. A function that falls
    has one argument.
    """
    xs = tuple(as_interval(x) for x in xs)
    low_open = functools.reduce(np.logical_and, (np.isinf(x.low) for x in xs))
    high_open = functools.reduce(np.logical_or, (np.isinf(x.high) for x in xs))
    ends = [[_finite(x.low) for x in xs]]
    if not all(x.is_point for x in xs):
        ends.append([_finite(x.high) for x in xs])
    if not is_increasing:
        ends.reverse()
        low_open, high_open = high_open, low_open
    bounds = [enclose(*points) for points in ends]
    low = np.maximum(bounds[0].low, range[0])
    high = np.minimum(bounds[-1].high, range[1])
    return Interval(
        np.where(low_open, range[0], low), np.where(high_open, range[1], high)
    )


def _finite(end: Any) -> Interval:
    end = np.clip(end, -rounding.LARGEST, rounding.LARGEST)
    return Interval(end, end)
