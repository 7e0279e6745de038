# ruff: noqa: ARG001 - rules of one table share a signature
"""The kernel's theorems on exponentials, logarithms and other smooth functions."""

from collections.abc import Callable
from fractions import Fraction
from typing import Any

from phihat.convexity.kernel.arithmetic import (
    minus,
    negative,
    plus,
    power,
    product,
    times,
)
from phihat.convexity.kernel.facts import (
    INF,
    NOTHING,
    ONE,
    Q0,
    ZERO,
    Ask,
    Known,
    Refused,
    normal,
    number,
    of_range,
)
from phihat.convexity.kernel.smooth import SMOOTH
from phihat.convexity.numbers import intervals as iv
from phihat.convexity.numbers.intervals import Interval

__all__ = ["FUNCTIONS", "x_log_x_over_y", "z_log_z"]


def _pow(ask: Ask, x: Known, y: Known) -> Known:
    """z^a for one exact a, integral floats too; c^z = exp(z log c) for c > 0."""
    if y.constant and y.is_point:
        return power(ask, x, Fraction(y.low))
    if x.constant and x.sign > 0:
        return _exp(ask, times(ask, _log(ask, x), y))
    raise Refused("a power whose exponent is not one known number")


def _exp(ask: Ask, x: Known) -> Known:
    """Log exp z = z."""
    if x.infinite:
        return ZERO if x.low < 0.0 else NOTHING._replace(constant=True)
    r = iv.exp(x.range)
    return normal(
        Known(
            max(float(r.low), 0.0),
            float(r.high),
            p=Q0 if x.convex else None,
            q=Q0 if x.concave else None,
            sign=1,
            total=x.total,
            constant=x.constant,
        )
    )


_LOG_2 = number(0.693147180559945, 0.693147180559946)


def _expm1(ask: Ask, x: Known) -> Known:
    """exp(z) - 1 has the sign of z."""
    k = minus(ask, _exp(ask, x), ONE)
    low = max(k.low, 0.0) if x.low >= 0.0 else k.low
    return normal(k._replace(low=low, sign=x.sign))


def _log(ask: Ask, x: Known) -> Known:
    """Concave where q is known, convex where p = 0, by definition; z > 0."""
    if x.constant and x.is_point and x.low == 0.0:
        return number(-INF)
    if x.sign <= 0:
        x = ask.require(x, True, "a logarithm")
    if x.infinite:
        return NOTHING
    r = iv.log(x.range) if x.low < x.high or x.low > 0.0 else iv.entire()
    sign = 1 if x.low > 1.0 else -1 if x.high < 1.0 else 0
    return of_range(
        r,
        convex=x.p == 0,
        concave=x.q is not None,
        sign=sign,
        total=x.total,
        constant=x.constant,
    )


def _log1p(ask: Ask, x: Known) -> Known:
    """log(1 + z) has the sign of z."""
    k = _log(ask, plus(ask, ONE, x))
    low = max(k.low, 0.0) if x.low >= 0.0 else k.low
    return normal(k._replace(low=low, sign=k.sign or x.sign))


def _logaddexp(ask: Ask, x: Known, y: Known) -> Known:
    """Convex and nondecreasing in both; above their maximum."""
    for one, other in ((x, y), (y, x)):
        if one.infinite:
            return other if one.low < 0.0 else NOTHING
    return of_range(
        iv.logaddexp(x.range, y.range),
        convex=x.convex and y.convex,
        sign=1 if x.low >= 0.0 or y.low >= 0.0 else 0,
        total=x.total and y.total,
        constant=x.constant and y.constant,
    )


def _compose(x: Known, value: Any, slope: Any, bend: Any, **known: Any) -> Known:
    """f(z) for enclosures of f, f', f'' on the range of z."""
    up, down = slope.low >= 0.0, slope.high <= 0.0
    convex = x.affine or (x.convex and up) or (x.concave and down)
    concave = x.affine or (x.concave and up) or (x.convex and down)
    return of_range(
        value,
        convex=bool(bend.low >= 0.0 and convex),
        concave=bool(bend.high <= 0.0 and concave),
        total=x.total,
        constant=x.constant,
        **known,
    )


def _smooth(name: str, odd: bool = False) -> Callable[[Ask, Known], Known]:
    """Make the theorem of a function of one variable from its own derivatives."""

    def rule(ask: Ask, x: Known) -> Known:
        one = Interval(1.0, 1.0)
        found = SMOOTH[name]({"positive": x.sign > 0}, (x.range, one, 0.0 * one))
        return _compose(x, *found, sign=x.sign if odd else 0)

    return rule


def _logistic(ask: Ask, x: Known) -> Known:
    """Log s is concave and rises."""
    if x.infinite:
        return ZERO if x.low < 0.0 else ONE
    q = Q0 if x.concave else None
    return normal(_smooth("logistic")(ask, x)._replace(sign=1, q=q))


def _erfc(ask: Ask, x: Known) -> Known:
    """1 - erf; log-concave, as tails of log-concave densities are (Prekopa)."""
    k = _smooth("erfc")(ask, x)
    low, high = max(k.low, 0.0), max(k.high, 0.0)
    q = Q0 if x.convex else None
    return normal(k._replace(low=low, high=high, sign=1, q=q))


def _cosh(ask: Ask, x: Known) -> Known:
    """(log cosh)'' = cosh^-2 > 0."""
    log_convex = x.affine or (x.convex and x.low >= 0.0) or (x.concave and x.high <= 0)
    return normal(
        _smooth("cosh")(ask, x)._replace(p=Q0 if log_convex else None, sign=1)
    )


def _xlogy(ask: Ask, x: Known, y: Known) -> Known:
    """C log y for y > 0, or for a constant c that is not 0; 0 log y is 0."""
    if x.is_point and x.low == 0.0 and y.total:
        return ZERO
    if y.sign <= 0 and not (x.constant and x.sign):
        raise Refused("the second argument of xlogy is not known to be positive")
    return product(ask, x, _log(ask, y))


def z_log_z(ask: Ask, z: Known) -> Known:
    """Convex for an affine z > 0: f'' = 1/z; at least -1/e > -0.36788."""
    if not z.affine:
        raise Refused("z log z of a z that is not affine")
    total = z.sign > 0 and z.total
    if z.sign <= 0:
        ask.require(z, True, "a logarithm")
    return normal(Known(low=-0.36788, convex=True, total=total))


def x_log_x_over_y(ask: Ask, x: Known, y: Known) -> Known:
    """The perspective of -log: jointly convex for affine x, y > 0."""
    if not (x.affine and y.affine):
        raise Refused("a relative entropy of arguments that are not affine")
    for z in (x, y):
        if z.sign <= 0:
            ask.require(z, True, "a relative entropy")
    total = x.sign > 0 and y.sign > 0 and x.total and y.total
    return Known(convex=True, total=total)


FUNCTIONS: dict[str, Callable[..., Known]] = {
    "asinh": _smooth("asinh"),
    "atan": _smooth("atan"),
    "cos": _smooth("cos"),
    "cosh": _cosh,
    "digamma": _smooth("digamma"),
    "entr": lambda ask, x: negative(ask, z_log_z(ask, x)),
    "erf": _smooth("erf", odd=True),
    "erfc": _erfc,
    "exp": _exp,
    "exp2": lambda ask, x: _exp(ask, times(ask, _LOG_2, x)),
    "expm1": _expm1,
    "kl_div": lambda ask, x, y: normal(x_log_x_over_y(ask, x, y)._replace(low=0.0)),
    "lgamma": _smooth("lgamma"),
    "log": _log,
    "log1p": _log1p,
    "log_ndtr": lambda ask, x: normal(_smooth("log_ndtr")(ask, x)._replace(sign=-1)),
    "logaddexp": _logaddexp,
    "logistic": _logistic,
    "pow": _pow,
    "rel_entr": x_log_x_over_y,
    "sin": _smooth("sin"),
    "sinh": _smooth("sinh", odd=True),
    "tanh": _smooth("tanh", odd=True),
    "xlog1py": lambda ask, x, y: _xlogy(ask, x, plus(ask, ONE, y)),
    "xlogy": _xlogy,
}
