"""Facts of smooth functions of one value, and of entropies."""

import math
from fractions import Fraction
from typing import Any

from phihat.convexity.numbers import intervals
from phihat.convexity.numbers.intervals import Interval
from phihat.convexity.primitives.facts.arithmetic import add, multiply, negative
from phihat.convexity.primitives.facts.call import Call, Undecided
from phihat.convexity.primitives.facts.facts import (
    ONE,
    ZERO,
    Facts,
    closed,
    ranged,
)
from phihat.convexity.primitives.facts.powers import above_zero, logarithm

__all__ = [
    "arc_tangent",
    "complementary_error_function",
    "cosine",
    "digamma",
    "divergence",
    "entropy",
    "error_function",
    "hyperbolic_cosine",
    "hyperbolic_sine",
    "hyperbolic_tangent",
    "inverse_hyperbolic_sine",
    "log_gamma",
    "log_normal_distribution",
    "logistic",
    "relative_entropy",
    "sine",
    "x_log_one_plus_y",
    "x_log_y",
    "z_log_z",
]

_INF = math.inf


def _composed(
    x: Facts,
    value: Interval,
    slope: Interval,
    bend: Interval,
    **known: Any,
) -> Facts:
    """Compose f with z, given enclosures of f, f' and f'' on the range of z."""
    rising, falling = slope.low >= 0.0, slope.high <= 0.0
    convex = bend.low >= 0.0 and (
        x.affine or (x.convex and rising) or (x.concave and falling)
    )
    concave = bend.high <= 0.0 and (
        x.affine or (x.concave and rising) or (x.convex and falling)
    )
    return ranged(
        value,
        convex=bool(convex),
        concave=bool(concave),
        total=x.total,
        constant=x.constant,
        **known,
    )


def logistic(call: Call, x: Facts) -> Facts:
    """S' = s (1 - s), s'' = s' (1 - 2 s); log s is concave and nondecreasing: q = 0."""
    del call
    if x.is_infinite:
        return ZERO if x.low < 0 else ONE
    value = intervals.intersect(intervals.logistic(x.range), Interval(0.0, 1.0))
    rest = intervals.intersect(intervals.logistic(-x.range), Interval(0.0, 1.0))
    slope = value * rest
    return _composed(
        x,
        value,
        slope,
        slope * (1.0 - 2.0 * value),
        positive=True,
        q=Fraction(0) if x.concave else None,
    )


def hyperbolic_tangent(call: Call, x: Facts) -> Facts:
    """T' = 1 - t^2, t'' = -2 t (1 - t^2): concave above 0, convex below."""
    del call
    value = intervals.tanh(x.range)
    slope = above_zero(1.0 - intervals.square(value))
    return _composed(
        x,
        value,
        slope,
        -2.0 * (value * slope),
        positive=x.positive,
        negative=x.negative,
    )


def error_function(call: Call, x: Facts) -> Facts:
    """F' > 0 and f'' = -2 x f' has the sign of -x."""
    del call
    slope = Interval(0.0, 2.0)
    return _composed(
        x,
        intervals.erf(x.range),
        slope,
        -2.0 * (x.range * slope),
        positive=x.positive,
        negative=x.negative,
    )


def complementary_error_function(call: Call, x: Facts) -> Facts:
    """Falls; f'' has the sign of x; log erfc is concave and falls: q = 0, z convex.

    erfc is a tail of the normal density, which is log-concave, and tails of log-concave
    densities are so (Prekopa).
    """
    del call
    slope = Interval(-2.0, 0.0)
    return _composed(
        x,
        above_zero(intervals.erfc(x.range)),
        slope,
        -2.0 * (x.range * slope),
        positive=True,
        q=Fraction(0) if x.convex else None,
    )


def log_normal_distribution(call: Call, x: Facts) -> Facts:
    """Log Phi is concave and rises, as Phi is log-concave (Prekopa); it is < 0."""
    del call
    return ranged(
        intervals.log_ndtr(x.range),
        concave=x.concave,
        negative=True,
        total=x.total,
        constant=x.constant,
    )


def hyperbolic_cosine(call: Call, x: Facts) -> Facts:
    """Convex, rises above 0; (log cosh)'' = 1 / cosh^2 > 0 and log cosh rises there."""
    del call
    log_convex = (
        x.affine or (x.convex and x.nonnegative) or (x.concave and x.nonpositive)
    )
    return _composed(
        x,
        intervals.cosh(x.range),
        intervals.sinh(x.range),
        intervals.cosh(x.range),
        positive=True,
        p=Fraction(0) if log_convex else None,
    )


def hyperbolic_sine(call: Call, x: Facts) -> Facts:
    """Rises; f'' = sinh has the sign of z."""
    del call
    value = intervals.sinh(x.range)
    return _composed(
        x,
        value,
        intervals.cosh(x.range),
        value,
        positive=x.positive,
        negative=x.negative,
    )


def sine(call: Call, x: Facts) -> Facts:
    """F' = cos, f'' = -sin, on the range."""
    del call
    value = intervals.sin(x.range)
    return _composed(x, value, intervals.cos(x.range), -value)


def cosine(call: Call, x: Facts) -> Facts:
    """F' = -sin, f'' = -cos, on the range."""
    del call
    value = intervals.cos(x.range)
    return _composed(x, value, -intervals.sin(x.range), -value)


def arc_tangent(call: Call, x: Facts) -> Facts:
    """F' = 1 / (1 + z^2) > 0, f'' has the sign of -z."""
    del call
    slope = Interval(0.0, 1.0)
    return _composed(x, intervals.atan(x.range), slope, -2.0 * (x.range * slope))


def inverse_hyperbolic_sine(call: Call, x: Facts) -> Facts:
    """F' = (1 + z^2)^(-1/2) > 0, f'' has the sign of -z."""
    del call
    slope = Interval(0.0, 1.0)
    return _composed(x, intervals.asinh(x.range), slope, -(x.range * slope))


def log_gamma(call: Call, x: Facts) -> Facts:
    """Convex for z > 0, which must be proved: no domain is implied, it has poles.

    (log Gamma)'' is the sum of 1 / (z + k)^2 > 0 (Bohr-Mollerup); it rises above
    1.4616322, where its least value lies above -0.1215.
    """
    del call
    if not x.positive:
        raise Undecided("the argument of lgamma is not proved positive")
    value = intervals.lgamma(x.range) if x.low > 0.0 else Interval(-0.1215, _INF)
    slope = Interval(0.0 if x.low >= 1.4616322 else -_INF, _INF)
    return _composed(x, value, slope, Interval(0.0, _INF))


def digamma(call: Call, x: Facts) -> Facts:
    """Concave and rises for z > 0, which must be proved; f'' = -2 sum (z + k)^-3."""
    del call
    if not x.positive:
        raise Undecided("the argument of digamma is not proved positive")
    value = intervals.digamma(x.range) if x.low > 0.0 else intervals.entire()
    return _composed(x, value, Interval(0.0, _INF), Interval(-_INF, 0.0))


def x_log_y(call: Call, x: Facts, y: Facts) -> Facts:
    """C log y for a constant c; y > 0 must be proved, as xlogy(0, -1) is finite."""
    if not y.positive and not (x.constant and (x.positive or x.negative)):
        raise Undecided("the second argument of xlogy is not proved positive")
    return multiply(call, x, logarithm(call, y))


def x_log_one_plus_y(call: Call, x: Facts, y: Facts) -> Facts:
    """X log(1 + y); see `x_log_y`."""
    return x_log_y(call, x, add(call, ONE, y))


def z_log_z(call: Call, z: Facts) -> Facts:
    """Z log z is convex for an affine z >= 0: its second derivative is 1/z > 0.

    Its least value is -1/e > -0.36788, at z = 1/e.
    """
    if not z.affine:
        raise Undecided("z log z of a z that is not affine")
    if not z.positive:
        call.require(z, "> 0", "a logarithm")
    return closed(Facts(low=-0.36788, convex=True, total=z.positive and z.total))


def entropy(call: Call, x: Facts) -> Facts:
    """-z log z for z >= 0 and -inf below: concave for an affine z."""
    return negative(call, z_log_z(call, x))


def relative_entropy(call: Call, x: Facts, y: Facts) -> Facts:
    """X log(x / y) is jointly convex for affine x, y > 0: the perspective of -log."""
    if not (x.affine and y.affine):
        raise Undecided("a relative entropy of arguments that are not affine")
    for z in (x, y):
        if not z.positive:
            call.require(z, "> 0", "a relative entropy")
    total = x.positive and y.positive and x.total and y.total
    return closed(Facts(convex=True, total=total))


def divergence(call: Call, x: Facts, y: Facts) -> Facts:
    """X log(x / y) - x + y, which is >= 0: t - 1 - log t >= 0 at t = y / x."""
    known = relative_entropy(call, x, y)
    return closed(known.replace(low=0.0))
