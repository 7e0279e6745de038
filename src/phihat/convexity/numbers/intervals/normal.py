r"""The normal distribution and the error function, from exp and log alone.

Two expansions of positive terms, in which rounding errors cannot grow, cover the line;
$\varphi$ is the density, $\Phi$ the distribution:

- $\Phi(x) - \tfrac12 = \varphi(x) \sum_k x^{2k+1} / (2k+1)!!$ for $0 \le x < 2$;
- $1 - \Phi(x) = \varphi(x) M(x)$ with Mills' ratio
  $M(x) = 1 / (x + 1 / (x + 2 / (x + \dots)))$, whose convergents bound it from either
  side in turn, for $x \ge 2$.

References:
  Abramowitz, Stegun, *Handbook of Mathematical Functions*, 26.2.11 and 26.2.14.
"""

from typing import Any

import numpy as np

from phihat.convexity.numbers.intervals import rounding
from phihat.convexity.numbers.intervals.core import (
    Interval,
    add,
    blockwise,
    div,
    from_decimal,
    mul,
    neg,
    sub,
)
from phihat.convexity.numbers.intervals.elementary import exp, from_ends, log, log1p
from phihat.convexity.numbers.intervals.order import absolute, where
from phihat.convexity.numbers.intervals.powers import square

__all__ = ["erf", "erfc", "log_ndtr", "mills_ratio", "ndtr"]

_ROOT_TWO = from_decimal("1.41421356237309504880168872420969807856")
_INVERSE_ROOT_TAU = from_decimal("0.39894228040143267793994605993438186847")
_HALF_LOG_TAU = from_decimal("0.91893853320467274178032973640561763986")


@blockwise
def ndtr(x: Any) -> Interval:
    """Take the normal distribution function, which grows; 0 and 1 are not attained."""
    return from_ends(_ndtr_at, x, range=(0.0, 1.0))


@blockwise
def log_ndtr(x: Any) -> Interval:
    """Take the logarithm of the normal distribution function, which grows."""
    return from_ends(_log_ndtr_at, x, range=(-np.inf, 0.0))


@blockwise
def mills_ratio(x: Any) -> Interval:
    r"""Take $(1 - \Phi(x)) / \varphi(x)$, which falls; 0 is not attained.

    So $\log\Phi$ has the derivative $1 / M(-x)$.
    """
    return from_ends(_mills_at, x, range=(0.0, np.inf), is_increasing=False)


@blockwise
def erf(x: Any) -> Interval:
    r"""Take the error function $2\Phi(x\sqrt2) - 1$, which grows."""
    return from_ends(_erf_at, mul(_ROOT_TWO, x), range=(-1.0, 1.0))


@blockwise
def erfc(x: Any) -> Interval:
    r"""Take its complement $2\Phi(-x\sqrt2)$, which falls; 0 is not attained."""
    return mul(2.0, ndtr(neg(mul(_ROOT_TWO, x))))


def _ndtr_at(x: Interval) -> Interval:
    size = absolute(x)
    middle, tail = _middle(size), _tail(size)
    above = where(size.low < 2, add(0.5, middle), sub(1.0, tail))
    below = where(size.low < 2, sub(0.5, middle), tail)
    return where(x.low < 0, below, above)


def _log_ndtr_at(x: Interval) -> Interval:
    r"""Take $\log M - x^2/2 - \tfrac12\log 2\pi$ far down, $\log(1 - \dots)$ far up."""
    size = absolute(x)
    middle, tail = _middle(size), _tail(size)
    above = log1p(neg(where(size.low < 2, sub(0.5, middle), tail)))
    far_below = sub(
        log(_mills_far_up(size)), add(mul(0.5, square(size)), _HALF_LOG_TAU)
    )
    below = where(size.low < 2, log(sub(0.5, middle)), far_below)
    return where(x.low < 0, below, above)


def _mills_at(x: Interval) -> Interval:
    size = absolute(x)
    near = div(_ndtr_at(neg(x)), _density(size))
    return where(x.low >= 2, _mills_far_up(size), near)


def _erf_at(x: Interval) -> Interval:
    """Take the error function at x / sqrt(2): odd, and accurate near zero."""
    size = absolute(x)
    value = where(
        size.low < 2, mul(2.0, _middle(size)), sub(1.0, mul(2.0, _tail(size)))
    )
    return where(x.low < 0, neg(value), value)


def _density(x: Interval) -> Interval:
    return mul(_INVERSE_ROOT_TAU, exp(neg(mul(0.5, square(x)))))


def _middle(x: Interval) -> Interval:
    r"""Enclose $\Phi(x) - 1/2$ at points, meant where $0 \le x < 2$."""
    near = np.minimum(x.low, 2.0)
    series = rounding.in_blocks(_series, near)
    return mul(_density(Interval(near, near)), Interval(*series))


def _tail(x: Interval) -> Interval:
    r"""Enclose $1 - \Phi(x)$ at points, meant where $x \ge 2$."""
    return mul(_density(x), _mills_far_up(x))


_TERMS = 32


def _series(x: Any) -> tuple[Any, Any]:
    r"""Sum $\sum_k x^{2k+1} / (2k+1)!!$ by Horner's rule for $0 \le x \le 2$.

    Terms are positive, so each of the 32 steps adds at most four roundings, two ulps,
    to the relative error, x^2 included. What is left out is less than
    $2^{-60}$ of the sum.
    """
    z = x * x
    total = 1.0
    for k in range(_TERMS, 0, -1):
        total = 1.0 + z * total / (2 * k + 1)
    low, high = rounding.inflate(x * total, 2 * _TERMS + 1)
    return np.where(x == 0, 0.0, low), np.where(x == 0, 0.0, high)


_CONVERGENTS = 64


def _mills_far_up(x: Interval) -> Interval:
    far = np.maximum(x.low, 2.0)
    return Interval(*rounding.in_blocks(_convergents, far))


def _convergents(x: Any) -> tuple[Any, Any]:
    r"""Bound Mills' ratio by two successive convergents for $x \ge 2$.

    Cut off at its end, the fraction falls as what was cut grows, or grows, by the
    number of steps; so 0 and (k + 1) / x, which bound it, give bounds of the whole.
    Terms are positive, so each of the 64 steps adds at most two roundings, one ulp, to
    the relative error; it passes on no more than it is given.
    """
    bounds = []
    for cut in (0.0, (_CONVERGENTS + 1) / x):
        fraction = cut
        for k in range(_CONVERGENTS, 0, -1):
            fraction = k / (x + fraction)
        bounds.append(rounding.inflate(1.0 / (x + fraction), _CONVERGENTS + 2))
    (one_low, one_high), (other_low, other_high) = bounds
    return np.maximum(np.minimum(one_low, other_low), 0.0), np.maximum(
        one_high, other_high
    )
