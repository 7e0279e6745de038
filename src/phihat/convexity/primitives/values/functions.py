r"""Rules of the functions of one number, and of the atoms, which are ideal functions.

Each comes with where it is defined, and with what IEEE makes of an infinite argument.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.special

from phihat.convexity.numbers import intervals as iv
from phihat.convexity.numbers.extended import (
    MINUS_INFINITY,
    NOT_A_NUMBER,
    NOT_FINITE,
    PLUS_INFINITY,
    Extended,
    extended,
    kind_of,
    unknown,
)
from phihat.convexity.numbers.intervals import Interval
from phihat.convexity.primitives.values.rule_builders import (
    holds_zero,
    is_known,
    is_value,
    kinds,
    spread,
)
from phihat.convexity.program.form import Equation

__all__ = [
    "entr",
    "erf_inv",
    "interpolation",
    "kl_div",
    "poles",
    "polygamma",
    "rel_entr",
    "where_defined",
    "within",
    "xlog1py",
    "xlogy",
]


def within(
    low: float, high: float, at_low: int | None = None, at_high: int | None = None
) -> Callable[[Interval], np.ndarray | None]:
    """Mark a function that is NaN outside of an interval.

    An end belongs to the domain, unless it is told what kind the value is there.
    """
    ends = [(low, at_low), (high, at_high)]
    at_ends = [(end, kind) for end, kind in ends if kind is not None]

    def marks(x: Interval) -> np.ndarray | None:
        is_below, is_above = x.high < low, x.low > high
        above = x.low >= low if at_low is None else x.low > low
        below = x.high <= high if at_high is None else x.high < high
        nowhere = is_below if at_low is None else x.high <= low
        beyond = is_above if at_high is None else x.low >= high
        return kinds(
            *((is_value(x, end), kind) for end, kind in at_ends),
            (is_below | is_above, NOT_A_NUMBER),
            (nowhere | beyond, NOT_FINITE),
            defined=above & below,
        )

    return marks


def where_defined(is_defined: Callable[..., Any]) -> Callable[..., np.ndarray | None]:
    """Mark what a test does not find defined."""
    return lambda *xs: kinds(defined=np.asarray(is_defined(*xs)))


def poles(x: Interval) -> np.ndarray | None:
    """Mark the functions with a pole at 0, -1, -2, ..."""
    whole = (x.low == x.high) & (x.low <= 0) & (x.low == np.rint(x.low))
    free = (x.low > 0) | (np.floor(x.high) < np.ceil(x.low))
    return kinds((whole, NOT_FINITE), defined=free)


def erf_inv(x: Interval) -> Interval:
    """Invert erf: a float that erf proves to lie below, and one above."""
    low, high = (np.clip(end, -1.0, 1.0) for end in x)
    return Interval(_erf_inv_bound(low, -1.0), _erf_inv_bound(high, 1.0))


def _erf_inv_bound(value: np.ndarray, side: float) -> np.ndarray:
    guess = np.asarray(scipy.special.erfinv(value))
    bound = np.where(value == 0, 0.0, np.full(guess.shape, side * np.inf))
    for ulps in (0, *(4**k for k in range(1, 24))):
        open_ = np.isinf(bound) & np.isfinite(guess)
        if not open_.any():
            break
        near = guess + side * (np.abs(guess) * ulps * 2.0**-52)
        erf = iv.erf(iv.from_array(np.where(np.isfinite(near), near, 0.0)))
        proved = erf.low >= value if side > 0 else erf.high <= value
        bound = np.where(open_ & proved, near, bound)
    return bound


def polygamma(equation: Equation, inputs: list[Interval]) -> list[Interval]:
    """Take the nth derivative of digamma, for one known n and x > 0."""
    del equation
    order, x = inputs
    shape = np.broadcast_shapes(order.shape, x.shape)
    if not is_known(order) or isinstance(x, Extended) or not order.size:
        return [unknown(shape)]
    n = float(order.low.flat[0])
    if n < 0 or n != int(n) or not (order.low == n).all():
        return [unknown(shape)]
    marks = kinds(defined=np.asarray(x.low > 0))
    return [spread(extended(iv.polygamma(int(n), x), marks), shape)]


def xlogy(x: Interval, y: Interval) -> Interval:
    r"""Take x log y, and 0 where x = 0, whatever y is."""
    product = iv.mul(x, iv.log(y))
    result = iv.where(is_value(x, 0.0), 0.0, product)
    kind = kinds(
        ((y.high < 0) & ~holds_zero(x), NOT_A_NUMBER),
        (is_value(y, 0.0) & (x.low > 0), MINUS_INFINITY),
        (is_value(y, 0.0) & (x.high < 0), PLUS_INFINITY),
        defined=is_value(x, 0.0) | (y.low > 0),
    )
    return extended(result, kind)


def xlog1py(x: Interval, y: Interval) -> Interval:
    r"""Take x log(1 + y), and 0 where x = 0, whatever y is."""
    return xlogy(x, iv.add(1.0, y))


def entr(x: Interval) -> Interval:
    r"""Take -x log x, 0 at 0: it rises up to 1/e at 1/e, then it falls."""
    ends = [_entr_at(np.clip(end, 0.0, None)) for end in x]
    peak = iv.exp(-1.0)
    has_peak = (x.low <= peak.high) & (x.high >= peak.low)
    low = np.minimum(*(end.low for end in ends))
    high = np.maximum(*(end.high for end in ends))
    low = np.where(np.isinf(x.high), -np.inf, low)
    high = np.where(has_peak, np.maximum(high, peak.high), high)
    kind = kinds((x.high < 0, MINUS_INFINITY), defined=x.low >= 0)
    return extended(Interval(low, high), kind)


def _entr_at(x: np.ndarray) -> Interval:
    finite = np.minimum(x, _LARGEST)
    safe = iv.from_array(np.where(finite > 0, finite, 1.0))
    return iv.where(finite > 0, iv.neg(iv.mul(safe, iv.log(safe))), 0.0)


_LARGEST = float(np.finfo(np.float64).max)


def rel_entr(x: Interval, y: Interval) -> Interval:
    r"""Take x log(x / y); 0 where x = 0 <= y, and inf outside of x >= 0, y > 0."""
    zero = is_value(x, 0.0)
    direct = iv.mul(x, iv.log(iv.div(x, y)))
    # x log x - x log y is the tighter where x is near 0, where log(x / y) is unbounded
    entropy = entr(x)
    inner = Interval(*entropy) if kind_of(entropy) is not None else entropy
    apart = iv.sub(iv.neg(inner), iv.mul(x, iv.log(y)))
    result = iv.where(x.low > 0, direct, apart)
    kind = kinds(
        ((x.high < 0) | (y.high < 0) | ((x.low > 0) & (y.high <= 0)), PLUS_INFINITY),
        defined=(zero & (y.low >= 0)) | ((x.low >= 0) & (y.low > 0)),
    )
    return extended(iv.where(zero, 0.0, result), kind)


def kl_div(x: Interval, y: Interval) -> Interval:
    """Take x log(x / y) - x + y, at least 0; inf outside of x >= 0, y > 0."""
    entropy = rel_entr(x, y)
    inner = Interval(*entropy) if kind_of(entropy) is not None else entropy
    # rounded outward, so that cutting at zero leaves the truth inside
    value = iv.maximum(iv.add(iv.sub(inner, x), y), 0.0)
    return extended(value, kind_of(entropy))


def interpolation(equation: Equation, inputs: list[Interval]) -> list[Interval] | None:
    """Interpolate between known knots in order: the hull over the pieces that x meets.

    On each, x is cut to the piece; the first and last go on beyond the knots where the
    interpolation extrapolates, else x is cut to the knots.
    """
    x, knots, heights = inputs
    marked = any(isinstance(array, Extended) for array in inputs)
    if marked or not is_known(knots) or len(knots.low) < 2:
        return None
    marks = knots.low
    if not (np.diff(marks) > _NARROW * (1.0 + np.abs(marks).max())).all():
        return None
    beyond = np.inf if equation.primitive == "interp_extrapolated" else 0.0
    last = len(marks) - 2
    first, final = (
        np.clip(np.searchsorted(marks, end, "right") - 1, 0, last) for end in x
    )
    low, high = np.full(x.shape, np.inf), np.full(x.shape, -np.inf)
    for k in range(int((final - first).max(initial=0)) + 1):
        piece = np.minimum(first + k, final)
        left = marks[piece] - np.where(piece == 0, beyond, 0.0)
        right = marks[piece + 1] + np.where(piece == last, beyond, 0.0)
        within = Interval(np.clip(x.low, left, right), np.clip(x.high, left, right))
        below, above = (
            iv.rearrange(lambda end, at=at: end[at], heights)
            for at in (piece, piece + 1)
        )
        width = iv.sub(marks[piece + 1], marks[piece])
        share = iv.div(iv.sub(within, marks[piece]), width)
        found = iv.add(below, iv.mul(share, iv.sub(above, below)))
        low, high = np.minimum(low, found.low), np.maximum(high, found.high)
    return [Interval(low, high)]


_NARROW = 1e-9
"""Of two knots closer than this, to the largest, jax may make one."""
