r"""Smooth functions of one variable: enclosures of $\varphi, \varphi', \varphi''$.

Each entry of `SMOOTH` takes an interval x that lies in the function's *open* domain
(`is_inside`), and returns enclosures of the function and its first two derivatives on
it. There the function is twice continuously differentiable, with no kink and no jump
even at the ends of x: at the edge of a domain (the root at 0) nothing is claimed.
"""

from collections.abc import Callable

import numpy as np

from phihat.convexity.numbers import intervals as iv
from phihat.convexity.numbers.intervals import Interval, square

__all__ = ["SMOOTH", "Derivatives", "is_inside", "power", "whole_power"]

Derivatives = tuple[Interval, Interval, Interval]
"""Enclosures of a function, of its first and of its second derivative."""


def is_inside(name: str, x: Interval) -> np.ndarray:
    """Tell where x lies in the open domain of a function of the table."""
    if name == "tan":
        return np.asarray(iv.tan_is_defined(x))
    if name == "cbrt":
        return (x.low > 0) | (x.high < 0)
    low, high = _OPEN_DOMAINS.get(name, (-np.inf, np.inf))
    below = True if low == -np.inf else x.low > low
    return np.broadcast_to(below & (True if high == np.inf else x.high < high), x.shape)


SAFE = {"acosh": 2.0}
"""A point inside the open domain; 0.5 for the others."""


def whole_power(x: Interval, n: int) -> Derivatives:
    """Take x^n, n x^(n-1) and n (n-1) x^(n-2); x holds no zero if n < 0."""
    zero = iv.as_interval(np.broadcast_to(np.float64(0.0), x.shape))
    first = float(n) * _whole(x, n - 1) if n else zero
    second = zero if n in (0, 1) else float(n * (n - 1)) * _whole(x, n - 2)
    return _whole(x, n), first, second


def power(x: Interval, exponent: Interval) -> Derivatives:
    """Take x^y, y x^(y-1) and y (y-1) x^(y-2) in x > 0, for a constant y."""
    lower = exponent - 1.0
    second = exponent * lower * iv.power(x, exponent - 2.0)
    return iv.power(x, exponent), exponent * iv.power(x, lower), second


def _whole(x: Interval, n: int) -> Interval:
    return square(x) if n == 2 else iv.integer_power(x, n)


def _positive(x: Interval, greatest: float = np.inf) -> Interval:
    """Clip an enclosure of numbers that are known to lie in [0, greatest]."""
    return Interval(np.clip(x.low, 0.0, greatest), np.clip(x.high, 0.0, greatest))


def _sigmoid_slope(x: Interval) -> Interval:
    """Take s(x) s(-x) <= 1/4, which falls with |x|."""
    near, far = (np.minimum(end, 1e300) for end in iv.absolute(x))
    high, low = (
        _positive(iv.logistic(point) * iv.logistic(-point), 0.25)
        for point in (Interval(near, near), Interval(far, far))
    )
    return Interval(low.low, high.high)


def _hazard_slope(x: Interval, h: Interval) -> Interval:
    """Take -h (h + x), h = f / F of the normal distribution: between -1 and 0."""
    bend = -(h * (h + x))
    return Interval(np.clip(bend.low, -1.0, 0.0), np.clip(bend.high, -1.0, 0.0))


def _cubed(x: Interval) -> Interval:
    return iv.integer_power(x, 3)


def _inverse_root(x: Interval) -> Interval:
    return 1.0 / iv.sqrt(x)


def _of(
    value: Callable[[Interval], Interval],
    slope: Callable[[Interval, Interval], Interval],
    bend: Callable[[Interval, Interval, Interval], Interval],
) -> Callable[[Interval], Derivatives]:
    """Make an entry: f of x, f' of x and f, f'' of x, f and f'."""

    def derivatives(x: Interval) -> Derivatives:
        f = value(x)
        d = slope(x, f)
        return f, d, bend(x, f, d)

    return derivatives


_TWO_OVER_ROOT_PI = iv.from_decimal("1.12837916709551257389615890312154517168")
_LOG_TWO = iv.log(2.0)

_OPEN_DOMAINS = {
    "acosh": (1.0, np.inf),
    **dict.fromkeys(("acos", "asin", "atanh"), (-1.0, 1.0)),
    "log1p": (-1.0, np.inf),
    **dict.fromkeys(("digamma", "entr", "lgamma", "log", "rsqrt", "sqrt"), (0, np.inf)),
}

SMOOTH: dict[str, Callable[[Interval], Derivatives]] = {
    "acos": _of(
        iv.acos,
        lambda x, _: -_inverse_root((1.0 - x) * (1.0 + x)),
        lambda x, _, d: x * _cubed(d),
    ),
    "acosh": _of(
        iv.acosh,
        lambda x, _: _inverse_root((x - 1.0) * (x + 1.0)),
        lambda x, _, d: -(x * _cubed(d)),
    ),
    "asin": _of(
        iv.asin,
        lambda x, _: _inverse_root((1.0 - x) * (1.0 + x)),
        lambda x, _, d: x * _cubed(d),
    ),
    "asinh": _of(
        iv.asinh,
        lambda x, _: _inverse_root(1.0 + square(x)),
        lambda x, _, d: -(x * _cubed(d)),
    ),
    "atan": _of(
        iv.atan,
        lambda x, _: 1.0 / (1.0 + square(x)),
        lambda x, _, d: -2.0 * x * square(d),
    ),
    "atanh": _of(
        iv.atanh,
        lambda x, _: 1.0 / ((1.0 - x) * (1.0 + x)),
        lambda x, _, d: 2.0 * x * square(d),
    ),
    "cbrt": _of(
        iv.cbrt,
        lambda _, f: 1.0 / square(f) / 3.0,
        lambda x, _, d: iv.div(-2.0, 3.0) * (d / x),
    ),
    "cos": _of(iv.cos, lambda x, _: -iv.sin(x), lambda _, f, __: -f),
    "cosh": _of(iv.cosh, lambda x, _: iv.sinh(x), lambda _, f, __: f),
    "digamma": _of(
        iv.digamma, lambda x, _: iv.polygamma(1, x), lambda x, _, __: iv.polygamma(2, x)
    ),
    "entr": _of(
        lambda x: -(x * iv.log(x)),
        lambda x, _: -(iv.log(x) + 1.0),
        lambda x, _, __: -(1.0 / x),
    ),
    "erf": _of(
        iv.erf,
        lambda x, _: _TWO_OVER_ROOT_PI * iv.exp(-square(x)),
        lambda x, _, d: -2.0 * x * d,
    ),
    "erfc": _of(
        iv.erfc,
        lambda x, _: -(_TWO_OVER_ROOT_PI * iv.exp(-square(x))),
        lambda x, _, d: -2.0 * x * d,
    ),
    "exp": _of(iv.exp, lambda _, f: f, lambda _, f, __: f),
    "exp2": _of(iv.exp2, lambda _, f: f * _LOG_TWO, lambda _, __, d: d * _LOG_TWO),
    "expm1": _of(iv.expm1, lambda x, _: iv.exp(x), lambda _, __, d: d),
    "lgamma": _of(
        iv.lgamma, lambda x, _: iv.digamma(x), lambda x, _, __: iv.polygamma(1, x)
    ),
    "log": _of(iv.log, lambda x, _: 1.0 / x, lambda _, __, d: -square(d)),
    "log1p": _of(iv.log1p, lambda x, _: 1.0 / (1.0 + x), lambda _, __, d: -square(d)),
    "log_ndtr": _of(
        iv.log_ndtr,
        lambda x, _: _positive(1.0 / iv.mills_ratio(-x)),
        lambda x, _, d: _hazard_slope(x, d),
    ),
    "logistic": _of(
        iv.logistic,
        lambda x, _: _sigmoid_slope(x),
        lambda _, f, d: d * (1.0 - 2.0 * f),  # 1 - s(x) = s(-x)
    ),
    "rsqrt": _of(iv.rsqrt, lambda x, f: -0.5 * (f / x), lambda x, _, d: -1.5 * (d / x)),
    "sin": _of(iv.sin, lambda x, _: iv.cos(x), lambda _, f, __: -f),
    "sinh": _of(iv.sinh, lambda x, _: iv.cosh(x), lambda _, f, __: f),
    "softplus": _of(
        iv.softplus, lambda x, _: iv.logistic(x), lambda x, _, __: _sigmoid_slope(x)
    ),
    "sqrt": _of(iv.sqrt, lambda _, f: 0.5 / f, lambda x, _, d: -(0.5 * d / x)),
    "square": lambda x: whole_power(x, 2),
    "tan": _of(iv.tan, lambda _, f: 1.0 + square(f), lambda _, f, d: 2.0 * f * d),
    "tanh": _of(
        iv.tanh,
        lambda x, _: 4.0 * _sigmoid_slope(2.0 * x),  # loses nothing at the ends
        lambda _, f, d: -2.0 * f * d,
    ),
}
"""The smooth functions, by the name of the primitive or atom."""
