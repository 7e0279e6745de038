r"""Smooth functions of one variable: enclosures of $\varphi, \varphi', \varphi''$.

Each entry of `SMOOTH` takes an interval x that lies in the function's *open* domain
(`is_inside`), and returns enclosures of the function and its first two derivatives on
it. There the function is twice continuously differentiable, with no kink and no jump
even at the ends of x: at the edge of a domain (the root at 0) nothing is claimed.
"""

from collections.abc import Callable

import numpy as np

from phihat.convexity.numbers import intervals as iv
from phihat.convexity.numbers.intervals import Interval, add, div, mul, neg, square, sub

__all__ = ["SMOOTH", "Derivatives", "is_inside", "power", "whole_power"]

Derivatives = tuple[Interval, Interval, Interval]
"""Enclosures of a function, of its first and of its second derivative."""


def is_inside(name: str, x: Interval) -> np.ndarray:
    """Tell where x lies in the open domain of a function of the table."""
    low, high = _OPEN_DOMAINS.get(name, (-np.inf, np.inf))
    if name == "tan":
        return np.asarray(iv.tan_is_defined(x))
    if name in _POLES_AT_ZERO:
        return (x.low > 0) | (x.high < 0)
    inside = np.ones(x.shape, bool)
    if low > -np.inf:
        inside = inside & (x.low > low)
    return inside & (x.high < high) if high < np.inf else inside


SAFE = {"acosh": 2.0}
"""A point inside the open domain; 0.5 for the others."""


def whole_power(x: Interval, exponent: int) -> Derivatives:
    """Take x^n, n x^(n-1) and n (n-1) x^(n-2); x holds no zero if n < 0."""
    n = exponent
    first = mul(float(n), _whole(x, n - 1)) if n else _like(x, 0.0)
    second = mul(float(n * (n - 1)), _whole(x, n - 2)) if n not in (0, 1) else None
    return _whole(x, n), first, _like(x, 0.0) if second is None else second


def power(x: Interval, exponent: Interval) -> Derivatives:
    """Take x^y, y x^(y-1) and y (y-1) x^(y-2) in x > 0, for a constant y."""
    lower = sub(exponent, 1.0)
    return (
        iv.power(x, exponent),
        mul(exponent, iv.power(x, lower)),
        mul(mul(exponent, lower), iv.power(x, sub(exponent, 2.0))),
    )


def _whole(x: Interval, n: int) -> Interval:
    return square(x) if n == 2 else iv.integer_power(x, n)


def _like(x: Interval, value: float) -> Interval:
    return iv.as_interval(np.broadcast_to(np.float64(value), x.shape))


def _positive(x: Interval, greatest: float = np.inf) -> Interval:
    """Clip an enclosure of numbers that are known to lie in [0, greatest]."""
    return Interval(np.clip(x.low, 0.0, greatest), np.clip(x.high, 0.0, greatest))


# --------------------------------------------------------------- exponentials, logs


def _exp(x: Interval) -> Derivatives:
    value = iv.exp(x)
    return value, value, value


def _exp2(x: Interval) -> Derivatives:
    value, rate = iv.exp2(x), iv.log(2.0)
    first = mul(value, rate)
    return value, first, mul(first, rate)


def _expm1(x: Interval) -> Derivatives:
    slope = iv.exp(x)
    return iv.expm1(x), slope, slope


def _log(x: Interval) -> Derivatives:
    slope = div(1.0, x)
    return iv.log(x), slope, neg(square(slope))


def _log1p(x: Interval) -> Derivatives:
    slope = div(1.0, add(1.0, x))
    return iv.log1p(x), slope, neg(square(slope))


def _logistic(x: Interval) -> Derivatives:
    """Take s, s (1 - s) and s (1 - s) (1 - 2 s), where 1 - s(x) = s(-x)."""
    value = iv.logistic(x)
    slope = _sigmoid_slope(x)
    return value, slope, mul(slope, sub(1.0, mul(2.0, value)))


def _softplus(x: Interval) -> Derivatives:
    slope = iv.logistic(x)
    return iv.softplus(x), slope, _sigmoid_slope(x)


def _sigmoid_slope(x: Interval) -> Interval:
    """Take s(x) s(-x) <= 1/4, which falls with |x|."""
    near, far = (np.minimum(end, 1e300) for end in iv.absolute(x))
    high, low = (
        _positive(mul(iv.logistic(point), iv.logistic(neg(point))), 0.25)
        for point in (Interval(near, near), Interval(far, far))
    )
    return Interval(low.low, high.high)


# ------------------------------------------------------------- waves and hyperbolas


def _sin(x: Interval) -> Derivatives:
    value = iv.sin(x)
    return value, iv.cos(x), neg(value)


def _cos(x: Interval) -> Derivatives:
    value = iv.cos(x)
    return value, neg(iv.sin(x)), neg(value)


def _tan(x: Interval) -> Derivatives:
    value = iv.tan(x)
    slope = add(1.0, square(value))
    return value, slope, mul(mul(2.0, value), slope)


def _sinh(x: Interval) -> Derivatives:
    value = iv.sinh(x)
    return value, iv.cosh(x), value


def _cosh(x: Interval) -> Derivatives:
    value = iv.cosh(x)
    return value, iv.sinh(x), value


def _tanh(x: Interval) -> Derivatives:
    """Take t, 1 - t^2 = 4 s(2x) s(-2x), which loses nothing at the ends, and -2t t'."""
    value, twice = iv.tanh(x), mul(2.0, x)
    slope = mul(4.0, _sigmoid_slope(twice))
    return value, slope, mul(mul(-2.0, value), slope)


def _asinh(x: Interval) -> Derivatives:
    slope = div(1.0, iv.sqrt(add(1.0, square(x))))
    return iv.asinh(x), slope, neg(mul(x, iv.integer_power(slope, 3)))


def _acosh(x: Interval) -> Derivatives:
    slope = div(1.0, iv.sqrt(mul(sub(x, 1.0), add(x, 1.0))))
    return iv.acosh(x), slope, neg(mul(x, iv.integer_power(slope, 3)))


def _atanh(x: Interval) -> Derivatives:
    slope = div(1.0, mul(sub(1.0, x), add(1.0, x)))
    return iv.atanh(x), slope, mul(mul(2.0, x), square(slope))


def _asin(x: Interval) -> Derivatives:
    slope = div(1.0, iv.sqrt(mul(sub(1.0, x), add(1.0, x))))
    return iv.asin(x), slope, mul(x, iv.integer_power(slope, 3))


def _acos(x: Interval) -> Derivatives:
    value = iv.acos(x)
    _, slope, bend = _asin(x)
    return value, neg(slope), neg(bend)


def _atan(x: Interval) -> Derivatives:
    slope = div(1.0, add(1.0, square(x)))
    return iv.atan(x), slope, mul(mul(-2.0, x), square(slope))


# ------------------------------------------------------ roots, and special functions


def _sqrt(x: Interval) -> Derivatives:
    value = iv.sqrt(x)
    slope = div(0.5, value)
    return value, slope, neg(div(mul(0.5, slope), x))


def _rsqrt(x: Interval) -> Derivatives:
    value = iv.rsqrt(x)
    slope = mul(-0.5, div(value, x))
    return value, slope, mul(-1.5, div(slope, x))


def _cbrt(x: Interval) -> Derivatives:
    value = iv.cbrt(x)
    slope = div(div(1.0, square(value)), 3.0)
    return value, slope, mul(div(-2.0, 3.0), div(slope, x))


def _erf(x: Interval) -> Derivatives:
    slope = mul(_TWO_OVER_ROOT_PI, iv.exp(neg(square(x))))
    return iv.erf(x), slope, mul(mul(-2.0, x), slope)


def _erfc(x: Interval) -> Derivatives:
    _, slope, bend = _erf(x)
    return iv.erfc(x), neg(slope), neg(bend)


def _log_ndtr(x: Interval) -> Derivatives:
    """Take log F, h = f / F and -h (h + x): h falls, and -1 < -h (h + x) < 0."""
    hazard = _positive(div(1.0, iv.mills_ratio(neg(x))))
    bend = neg(mul(hazard, add(hazard, x)))
    bend = Interval(np.clip(bend.low, -1.0, 0.0), np.clip(bend.high, -1.0, 0.0))
    return iv.log_ndtr(x), hazard, bend


def _lgamma(x: Interval) -> Derivatives:
    return iv.lgamma(x), iv.digamma(x), iv.polygamma(1, x)


def _digamma(x: Interval) -> Derivatives:
    return iv.digamma(x), iv.polygamma(1, x), iv.polygamma(2, x)


def _entr(x: Interval) -> Derivatives:
    value, inverse, _ = _log(x)
    return neg(mul(x, value)), neg(add(value, 1.0)), neg(inverse)


_TWO_OVER_ROOT_PI = iv.from_decimal("1.12837916709551257389615890312154517168")

_POLES_AT_ZERO = {"cbrt"}

_OPEN_DOMAINS = {
    "acosh": (1.0, np.inf),
    "acos": (-1.0, 1.0),
    "asin": (-1.0, 1.0),
    "atanh": (-1.0, 1.0),
    "digamma": (0.0, np.inf),
    "entr": (0.0, np.inf),
    "lgamma": (0.0, np.inf),
    "log": (0.0, np.inf),
    "log1p": (-1.0, np.inf),
    "rsqrt": (0.0, np.inf),
    "sqrt": (0.0, np.inf),
}

SMOOTH: dict[str, Callable[[Interval], Derivatives]] = {
    "acos": _acos,
    "acosh": _acosh,
    "asin": _asin,
    "asinh": _asinh,
    "atan": _atan,
    "atanh": _atanh,
    "cbrt": _cbrt,
    "cos": _cos,
    "cosh": _cosh,
    "digamma": _digamma,
    "entr": _entr,
    "erf": _erf,
    "erfc": _erfc,
    "exp": _exp,
    "exp2": _exp2,
    "expm1": _expm1,
    "lgamma": _lgamma,
    "log": _log,
    "log1p": _log1p,
    "log_ndtr": _log_ndtr,
    "logistic": _logistic,
    "rsqrt": _rsqrt,
    "sin": _sin,
    "sinh": _sinh,
    "softplus": _softplus,
    "sqrt": _sqrt,
    "square": lambda x: whole_power(x, 2),
    "tan": _tan,
    "tanh": _tanh,
}
"""The smooth functions, by the name of the primitive or atom."""
