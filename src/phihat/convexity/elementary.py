r"""Elementary functions of intervals: one table of monotone functions, one evaluator.

NumPy's own loops are trusted to err by no more than the table says, in units of the
last place (ulps); the tests measure them against 200-bit arithmetic. All else follows
from the table by interval arithmetic, so nothing else is trusted.

Example:
  >>> from phihat.convexity import elementary
  >>> from phihat.convexity.intervals import Interval
  >>> elementary.exp(Interval(-np.inf, 0.0))
  Interval(low=0.0, high=1.0)
  >>> elementary.log_is_defined(Interval(0.0, 1.0)).item()
  False
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from phihat.convexity import _rounding
from phihat.convexity.intervals import (
    Interval,
    absolute,
    add,
    as_interval,
    div,
    from_decimal,
    maximum,
    mul,
    neg,
    sub,
    where,
)

__all__ = [
    "MONOTONE",
    "PI",
    "Monotone",
    "acos",
    "acosh",
    "acosh_is_defined",
    "asin",
    "asin_is_defined",
    "asinh",
    "atan",
    "atan2",
    "atan2_is_defined",
    "atanh",
    "atanh_is_defined",
    "cbrt",
    "cos",
    "cosh",
    "exp",
    "exp2",
    "expm1",
    "from_ends",
    "log",
    "log1p",
    "log1p_is_defined",
    "log2",
    "log_is_defined",
    "logaddexp",
    "logistic",
    "power",
    "power_is_defined",
    "rsqrt",
    "sin",
    "sinh",
    "softplus",
    "sqrt",
    "sqrt_is_defined",
    "tan",
    "tan_is_defined",
    "tanh",
]

PI = from_decimal("3.14159265358979323846264338327950288419")
r"""The two floats around $\pi$."""

_silent = np.errstate(all="ignore")


class Monotone(NamedTuple):
    """A monotone function of one real number, and how far NumPy's may be trusted.

    Attributes:
      function: NumPy's, from float64 to float64.
      ulps: a bound on its error, in units of the last place of the result.
      domain: the closed hull of the numbers at which it is defined.
      range: the closed hull of its values, to which its bounds are clipped.
      exact: arguments and results that are exact.
      is_increasing: else it falls.
    """

    function: Callable[[Any], Any]
    ulps: float
    domain: tuple[float, float] = (-np.inf, np.inf)
    range: tuple[float, float] = (-np.inf, np.inf)
    exact: tuple[tuple[float, float], ...] = ((0.0, 0.0),)
    is_increasing: bool = True


# NumPy builds these from three sources: Intel's SVML (AVX-512, Linux), which documents
# at most 4 ulps; its own vector loops, for which NumPy sets itself the same limit;
# and the platform's C library, where glibc documents 1 to 2 ulps for each of them
# but for those marked. One ulp of margin is added to the larger, four where the C
# libraries of other platforms are known to be worse.
MONOTONE = {
    "exp": Monotone(np.exp, 5, range=(0.0, np.inf), exact=((0.0, 1.0),)),
    "exp2": Monotone(
        np.exp2, 5, range=(0.0, np.inf), exact=((-1.0, 0.5), (0.0, 1.0), (1.0, 2.0))
    ),
    "expm1": Monotone(np.expm1, 5, range=(-1.0, np.inf)),
    "log": Monotone(np.log, 5, domain=(0.0, np.inf), exact=((1.0, 0.0),)),
    "log2": Monotone(
        np.log2, 5, domain=(0.0, np.inf), exact=((0.5, -1.0), (1.0, 0.0), (2.0, 1.0))
    ),
    "log1p": Monotone(np.log1p, 5, domain=(-1.0, np.inf)),
    "cbrt": Monotone(np.cbrt, 5, exact=((-1.0, -1.0), (0.0, 0.0), (1.0, 1.0))),
    "sinh": Monotone(np.sinh, 8),  # by expm1 in some libraries
    "cosh": Monotone(  # of |x|
        np.cosh, 8, domain=(0.0, np.inf), range=(1.0, np.inf), exact=((0.0, 1.0),)
    ),
    "tanh": Monotone(np.tanh, 8, range=(-1.0, 1.0)),  # by expm1 in some libraries
    "asinh": Monotone(np.arcsinh, 8),  # by log1p in some libraries
    "acosh": Monotone(
        np.arccosh, 8, domain=(1.0, np.inf), range=(0.0, np.inf), exact=((1.0, 0.0),)
    ),
    "atanh": Monotone(np.arctanh, 8, domain=(-1.0, 1.0)),
    "asin": Monotone(np.arcsin, 5, domain=(-1.0, 1.0)),
    "acos": Monotone(
        np.arccos,
        5,
        domain=(-1.0, 1.0),
        range=(0.0, np.inf),
        exact=((1.0, 0.0),),
        is_increasing=False,
    ),
    "atan": Monotone(np.arctan, 5),
}


@_silent
def _at(entry: Monotone, x: Any) -> tuple[Any, Any]:
    """Enclose the function at floats: the result, widened, clipped, exact if known."""
    low, high = _rounding.inflate(entry.function(x), entry.ulps)
    low = np.maximum(low, entry.range[0])
    high = np.minimum(high, entry.range[1])
    for argument, value in entry.exact:
        low, high = (np.where(x == argument, value, end) for end in (low, high))
    return low, high


def _monotone(name: str, x: Any) -> Interval:
    """Enclose a function of the table: its values at the ends bound all between.

    Of an argument that leaves the domain the part inside counts; where nothing is
    inside, the whole range is returned.
    """
    entry = MONOTONE[name]
    x = as_interval(x)
    inside = [np.clip(end, *entry.domain)[()] for end in x]
    if not entry.is_increasing:
        inside.reverse()
    if x.is_point:
        low, high = _at(entry, inside[0])
    else:
        low, high = _at(entry, inside[0])[0], _at(entry, inside[1])[1]
    if entry.domain != (-np.inf, np.inf):
        outside = (x.high < entry.domain[0]) | (x.low > entry.domain[1])
        low = np.where(outside, entry.range[0], low)
        high = np.where(outside, entry.range[1], high)
    return Interval(low, high)


def exp(x: Any) -> Interval:
    """Take the exponential; it never attains 0, though `low` may be 0.0."""
    return _monotone("exp", x)


def exp2(x: Any) -> Interval:
    """Raise 2 to the power x; 0 is never attained, though `low` may be 0.0."""
    return _monotone("exp2", x)


def expm1(x: Any) -> Interval:
    """Take exp(x) - 1; it never attains -1, though `low` may be -1.0."""
    return _monotone("expm1", x)


def log(x: Any) -> Interval:
    """Take the natural logarithm."""
    return _monotone("log", x)


def log_is_defined(x: Any) -> np.ndarray:
    """Tell where x > 0, for `log`, `log2` and `rsqrt`."""
    return as_interval(x).low > 0


def log2(x: Any) -> Interval:
    """Take the logarithm to the base 2, defined as `log` is."""
    return _monotone("log2", x)


def log1p(x: Any) -> Interval:
    """Take log(1 + x)."""
    return _monotone("log1p", x)


def log1p_is_defined(x: Any) -> np.ndarray:
    """Tell where x > -1."""
    return as_interval(x).low > -1


def cbrt(x: Any) -> Interval:
    """Take the real cube root."""
    return _monotone("cbrt", x)


def sinh(x: Any) -> Interval:
    """Take the hyperbolic sine."""
    return _monotone("sinh", x)


def cosh(x: Any) -> Interval:
    """Take the hyperbolic cosine: monotone in |x|, and at least 1."""
    return _monotone("cosh", absolute(x))


def tanh(x: Any) -> Interval:
    """Take the hyperbolic tangent; it never attains -1 or 1."""
    return _monotone("tanh", x)


def asinh(x: Any) -> Interval:
    """Take the inverse of sinh."""
    return _monotone("asinh", x)


def acosh(x: Any) -> Interval:
    """Take the inverse of cosh on [0, inf]."""
    return _monotone("acosh", x)


def acosh_is_defined(x: Any) -> np.ndarray:
    """Tell where x >= 1."""
    return as_interval(x).low >= 1


def atanh(x: Any) -> Interval:
    """Take the inverse of tanh."""
    return _monotone("atanh", x)


def atanh_is_defined(x: Any) -> np.ndarray:
    """Tell where -1 < x < 1."""
    x = as_interval(x)
    return (x.low > -1) & (x.high < 1)


def asin(x: Any) -> Interval:
    """Take the inverse of sin on [-pi/2, pi/2]."""
    return _monotone("asin", x)


def asin_is_defined(x: Any) -> np.ndarray:
    """Tell where -1 <= x <= 1, for `asin` and `acos`."""
    x = as_interval(x)
    return (x.low >= -1) & (x.high <= 1)


def acos(x: Any) -> Interval:
    """Take the inverse of cos on [0, pi]: it falls. Defined as `asin` is."""
    return _monotone("acos", x)


def atan(x: Any) -> Interval:
    """Take the inverse of tan on [-pi/2, pi/2], whose ends it never attains."""
    return _monotone("atan", x)


# -------------------------------------------------------------------- roots and powers


@_silent
def sqrt(x: Any) -> Interval:
    """Take the square root: rounded outward by the sign of the remainder x - s^2."""
    x = as_interval(x)
    low, high = (np.maximum(end, 0.0)[()] for end in x)
    root, error = _rounding.two_root(low)
    if x.is_point and not np.any(error) and (x.low >= 0).all():
        return Interval(root, root)
    upper = _rounding.round_up(*_rounding.two_root(high))
    return Interval(
        np.maximum(_rounding.round_down(root, error), 0.0),
        np.where(x.high < 0, np.inf, upper),
    )


def sqrt_is_defined(x: Any) -> np.ndarray:
    """Tell where x >= 0."""
    return as_interval(x).low >= 0


def rsqrt(x: Any) -> Interval:
    """Take 1 / sqrt(x), defined as `log` is; 0 is never attained."""
    return div(1.0, sqrt(x))


@_silent
def power(x: Any, y: Any) -> Interval:
    """Take x^y for x >= 0: extremal at a corner, monotone in x as in y.

    In x it grows or falls with the sign of y, in y with that of log x; so on a box the
    extremes are at corners. 0^0 is 1. NumPy's power is trusted to 5 ulps as in the
    table. For whole y and x of any sign see `integer_power`.
    """
    x, y = as_interval(x), as_interval(y)
    below = x.high < 0
    x_ends, y_ends = (
        [np.abs(np.maximum(end, 0.0)) for end in _distinct(x)],  # no negative zero
        _distinct(y),
    )
    corners = [_power_at(a, b) for a in x_ends for b in y_ends]
    low = np.minimum.reduce([corner[0] for corner in corners])
    high = np.maximum.reduce([corner[1] for corner in corners])
    return Interval(np.maximum(low, 0.0), np.where(below, np.inf, high))


def power_is_defined(x: Any, y: Any) -> np.ndarray:
    """Tell where x > 0, or x >= 0 and y >= 0."""
    x, y = as_interval(x), as_interval(y)
    return (x.low > 0) | ((x.low >= 0) & (y.low >= 0))


def _power_at(x: Any, y: Any) -> tuple[Any, Any]:
    low, high = _rounding.inflate(np.power(x, y), 5)
    is_exact = (x == 1) | (y == 0) | ((x == 0) & (y > 0)) | (y == 1)
    exact = np.where(y == 0, 1.0, x)
    return np.where(is_exact, exact, low), np.where(is_exact, exact, high)


def _distinct(x: Interval) -> list[np.ndarray]:
    return [x.low] if x.is_point else [x.low, x.high]


# --------------------------------------------------- logistic and its integral


def logistic(x: Any) -> Interval:
    """Take 1 / (1 + exp(-x)), which grows; it never attains 0 or 1."""
    return from_ends(_logistic_at, x, range=(0.0, 1.0))


def softplus(x: Any) -> Interval:
    """Take log(1 + exp(x)), which grows; it never attains 0."""
    return from_ends(_softplus_at, x, range=(0.0, np.inf))


def logaddexp(x: Any, y: Any) -> Interval:
    """Take log(exp(x) + exp(y)), which grows with x and with y."""
    return from_ends(_logaddexp_at, x, y)


def _logistic_at(x: Interval) -> Interval:
    """Enclose at points: 1 / (1 + t), or t / (1 + t), with t = exp(-|x|) <= 1."""
    small = exp(neg(absolute(x)))
    above = add(1.0, small)
    return where(x.low >= 0, div(1.0, above), div(small, above))


def _softplus_at(x: Interval) -> Interval:
    """Enclose at points: max(x, 0) + log1p(exp(-|x|)), where nothing cancels."""
    return add(maximum(x, 0.0), log1p(exp(neg(absolute(x)))))


def _logaddexp_at(x: Interval, y: Interval) -> Interval:
    """Enclose at points: max(x, y) + log1p(exp(-|x - y|))."""
    return add(maximum(x, y), log1p(exp(neg(absolute(sub(x, y))))))


def from_ends(
    enclose: Callable[..., Interval],
    *xs: Any,
    range: tuple[float, float] = (-np.inf, np.inf),
    is_increasing: bool = True,
) -> Interval:
    """Lift an enclosure at points to intervals, for a function monotone in each.

    Args:
      enclose: takes points, all finite, and encloses the function there.
      xs: the arguments.
      range: the hull of the values; what is bounded only by an infinite end is bounded
        by the range alone, and all bounds are clipped to it.
      is_increasing: in each argument; else it falls in each.

    Returns:
      The bounds at the low ends and at the high ends.
    """
    xs = tuple(as_interval(x) for x in xs)
    lows, highs = _finite([x.low for x in xs]), _finite([x.high for x in xs])
    if not is_increasing:
        lows, highs = highs, lows
    least = enclose(*lows)
    greatest = least if all(x.is_point for x in xs) else enclose(*highs)
    low, high = np.maximum(least.low, range[0]), np.minimum(greatest.high, range[1])
    opened_low = np.logical_and.reduce([np.isinf(x.low) for x in xs])
    opened_high = np.logical_or.reduce([np.isinf(x.high) for x in xs])
    if not is_increasing:
        opened_low, opened_high = opened_high, opened_low
    return Interval(
        np.where(opened_low, range[0], low), np.where(opened_high, range[1], high)
    )


def _finite(ends: list[np.ndarray]) -> list[Interval]:
    clipped = [np.clip(end, -_rounding.LARGEST, _rounding.LARGEST) for end in ends]
    return [Interval(end, end) for end in clipped]


# ---------------------------------------------------------------------- trigonometry


def sin(x: Any) -> Interval:
    """Take the sine: 1 where x holds some (2k + 1/2) pi, -1 at (2k - 1/2) pi."""
    return _wave(_sin_at, x, 0.5)


def cos(x: Any) -> Interval:
    """Take the cosine: 1 where x holds some 2k pi, -1 at (2k + 1) pi."""
    return _wave(_cos_at, x, 0.0)


def tan(x: Any) -> Interval:
    """Take the tangent: it grows between poles, and is sin / cos at the ends.

    Where x may hold a pole the result is [-inf, inf].
    """
    x = as_interval(x)
    ends = (Interval(end, end) for end in _bounded(x))
    low, high = (div(_wave(_sin_at, p, 0.5), _wave(_cos_at, p, 0.0)) for p in ends)
    is_defined = tan_is_defined(x)
    return Interval(
        np.where(is_defined, low.low, -np.inf), np.where(is_defined, high.high, np.inf)
    )


def tan_is_defined(x: Any) -> np.ndarray:
    """Tell where x certainly holds no pole, an odd multiple of pi / 2."""
    return ~_may_hold_whole(sub(div(as_interval(x), PI), 0.5))


_FARTHEST = 2.0**20


def _wave(at: Callable[[Any], tuple[Any, Any]], x: Any, peak: float) -> Interval:
    """Bound a wave by its ends, and by 1 or -1 where a peak or a trough may lie inside.

    Peaks are at (2k + peak) pi, troughs half a turn on. Beyond 2^20 a rounded argument
    has lost its phase to whoever wrote it, and the bound is [-1, 1].
    """
    x = as_interval(x)
    low_end, high_end = _bounded(x)
    low, high = at(low_end)
    if not x.is_point:
        other = at(high_end)
        low, high = np.minimum(low, other[0]), np.maximum(high, other[1])
    turns = div(x, PI)
    is_far = x.magnitude > _FARTHEST
    has_peak = _may_hold_whole(mul(sub(turns, peak), 0.5)) | is_far
    has_trough = _may_hold_whole(mul(sub(turns, peak + 1.0), 0.5)) | is_far
    return Interval(
        np.where(has_trough, -1.0, np.maximum(low, -1.0)),
        np.where(has_peak, 1.0, np.minimum(high, 1.0)),
    )


def _bounded(x: Interval) -> list[np.ndarray]:
    return [np.clip(end, -_FARTHEST, _FARTHEST) for end in x]


def _may_hold_whole(x: Interval) -> np.ndarray:
    return np.floor(x.high) >= np.ceil(x.low)


def _sin_at(x: Any) -> tuple[Any, Any]:
    """Enclose at floats: like `MONOTONE` up to 1, beyond to 5 ulps of 1.

    Reducing a larger argument loses relative accuracy at the zeros of the sine, so
    there the error is bounded in absolute terms.
    """
    low, high = _rounding.inflate(np.sin(x), 5)
    slack = np.where(np.abs(x) <= 1.0, 0.0, _WAVE_ERROR)
    return np.where(x == 0, 0.0, low - slack), np.where(x == 0, 0.0, high + slack)


def _cos_at(x: Any) -> tuple[Any, Any]:
    """Enclose at floats: to 5 ulps of 1, as its zeros are far from zero."""
    value = np.cos(x)
    is_zero = x == 0
    low, high = value - _WAVE_ERROR, value + _WAVE_ERROR
    return np.where(is_zero, 1.0, low), np.where(is_zero, 1.0, high)


_WAVE_ERROR = 6 * 2.0**-52  # 5 ulps of 1, and the rounding of the bound


@_silent
def atan2(y: Any, x: Any) -> Interval:
    """Take the angle of (x, y): extremal at a corner, since its level sets are rays.

    A box across the cut, the negative x axis, is given [-pi, pi].
    """
    y, x = as_interval(y), as_interval(x)
    # Adding zero turns a negative zero, which is below the cut, into one on it.
    corners = [
        _rounding.inflate(np.arctan2(b + 0.0, a + 0.0), 5)
        for a in _distinct(x)
        for b in _distinct(y)
    ]
    low = np.minimum.reduce([corner[0] for corner in corners])
    high = np.maximum.reduce([corner[1] for corner in corners])
    crosses = (y.low < 0) & (y.high >= 0) & (x.low < 0)
    low = np.where(crosses, -PI.high, np.maximum(low, -PI.high))
    high = np.where(crosses, PI.high, np.minimum(high, PI.high))
    return Interval(np.where(y.low >= 0, np.maximum(low, 0.0), low), high)


def atan2_is_defined(y: Any, x: Any) -> np.ndarray:
    """Tell where the origin certainly lies outside."""
    y, x = as_interval(y), as_interval(x)
    return ~((y.low <= 0) & (y.high >= 0) & (x.low <= 0) & (x.high >= 0))
