"""Facts of powers, quotients, exponentials and logarithms."""

import math
from fractions import Fraction

from phihat.convexity.numbers import intervals
from phihat.convexity.numbers.intervals import Interval
from phihat.convexity.primitives.facts.arithmetic import (
    absolute,
    add,
    negative,
    scaled,
    subtract,
    where_defined,
)
from phihat.convexity.primitives.facts.call import Call, Undecided
from phihat.convexity.primitives.facts.facts import (
    ONE,
    TOP,
    ZERO,
    Facts,
    closed,
    constant,
    ranged,
)

__all__ = [
    "above_zero",
    "cube_root",
    "divide",
    "exponential",
    "exponential_minus_one",
    "exponential_of_two",
    "general_power",
    "integer_power",
    "log_add_exp",
    "logarithm",
    "logarithm_of_one_plus",
    "power",
    "reciprocal_square_root",
    "square",
    "square_root",
]

_INF = math.inf


def square(call: Call, x: Facts) -> Facts:
    """z^2; see `power`."""
    return power(call, x, Fraction(2))


def divide(call: Call, x: Facts, y: Facts) -> Facts:
    """X / y for y of one sign, which is proved or the verdict is undecided.

    With u = log x, v = log y, x >= 0, y > 0: if u'' >= -p u'^2 and v'' <= -q v'^2 with
    q > p, then (u - v)'' >= -r (u' - v')^2 for 1/r = 1/p - 1/q, since the quadratic
    form (r - p) a^2 - 2 r a b + (q + r) b^2 has a determinant of 0; p = 0 gives 0,
    q = inf gives p. If u'' <= 0 and v'' >= 0 then (u - v)'' <= 0.
    """
    if y.constant and (y.positive or y.negative):
        return scaled(call, _reciprocal_of_constant(y), x)
    if y.negative:
        return negative(call, divide(call, x, negative(call, y)))
    if not y.positive:
        raise Undecided("the divisor is not proved to be of one sign")
    if x.constant:
        return scaled(call, x, power(call, y, Fraction(-1)))
    if x.nonpositive and not x.nonnegative:
        return negative(call, divide(call, negative(call, x), y))
    p = q = None
    if x.nonnegative:
        if x.p is not None and y.q is not None:
            p = _difference(x.p, y.q)
        if x.q is not None and y.p == 0 and x.positive:
            q = Fraction(0)
    return ranged(
        intervals.div(x.range, y.range),
        p=p,
        q=q,
        positive=x.positive,
        total=x.total and y.total,
    )


def _difference(p: Fraction, q: Fraction | float) -> Fraction | None:
    """1 / (1/p - 1/q) for q > p, with p = 0 and q = inf by their limits."""
    if q == _INF or p == 0:
        return p
    return 1 / (1 / p - 1 / Fraction(q)) if q > p else None


def _reciprocal_of_constant(y: Facts) -> Facts:
    end = intervals.div(1.0, y.range)
    facts = constant(float(end.low), float(end.high))
    return closed(facts.replace(positive=y.positive, negative=y.negative))


def power(call: Call, x: Facts, a: Fraction) -> Facts:
    """z^a for an exactly known a: log z^a = a log z, so p and q are divided by a.

    For a > 0 and z >= 0: p / a and q / a. For a < 0 and z > 0: log-convex from
    v'' <= 0 (q known), log-concave from v'' >= 0 (p = 0), as a v'' turns its sign. An
    even power is that of |z|; an odd power of z <= 0 is -(-z)^a. Only a power that is
    no integer implies z >= 0; a negative integer power needs z of one sign, proved.
    """
    if x.is_infinite:
        return TOP
    if a == 0:
        return where_defined(ONE, x)
    if a == 1:
        return x
    if a.denominator == 1:
        if a < 0 and not (x.positive or x.negative):
            raise Undecided("the base of a negative power is not proved to be nonzero")
        if a % 2 == 0:
            return _power_of_nonnegative(absolute(call, x), a)
        if x.nonnegative:
            return _power_of_nonnegative(x, a)
        if x.nonpositive:
            return negative(call, _power_of_nonnegative(negative(call, x), a))
        return ranged(
            intervals.integer_power(x.range, int(a)), total=x.total, constant=x.constant
        )
    if a > 0 and not x.nonnegative:
        call.require(x, ">= 0", "a fractional power")
        x = _restricted(x, positive=False)
    elif a < 0 and not x.positive:
        call.require(x, "> 0", "a negative fractional power")
        x = _restricted(x, positive=True)
    return _power_of_nonnegative(x, a)


def _power_of_nonnegative(x: Facts, a: Fraction) -> Facts:
    p = q = None
    if a > 0:
        p = None if x.p is None else x.p / a
        q = None if x.q is None else x.q / a
    elif x.positive:
        p = None if x.q is None else Fraction(0)
        q = Fraction(0) if x.p == 0 else None
    if a.denominator == 1:
        total = intervals.integer_power(x.range, int(a))
    else:
        exponent = intervals.from_rational(a)
        if x.nonnegative and (a > 0 or x.low > 0):
            total = intervals.power(x.range, exponent)
        else:
            total = Interval(0.0, _INF)
    return ranged(
        above_zero(total),
        p=p,
        q=q,
        positive=x.positive,
        total=x.total,
        constant=x.constant,
    )


def above_zero(range_: Interval) -> Interval:
    """Cut a range at zero."""
    low = max(float(range_.low), 0.0)
    return Interval(low, max(float(range_.high), low))


def _restricted(x: Facts, *, positive: bool) -> Facts:
    """Restrict a concave z to where it is >= 0 (or > 0): there it has q = 1."""
    return closed(
        x.replace(
            low=max(x.low, 0.0),
            high=max(x.high, 0.0),
            positive=positive or x.positive,
            total=False,
        )
    )


def integer_power(call: Call, x: Facts) -> Facts:
    """z^n; see `power`."""
    return power(call, x, Fraction(call.params["y"]))


def general_power(call: Call, x: Facts, y: Facts) -> Facts:
    """z^a for an exact constant a, see `power`; c^z = exp(z log c) for c > 0.

    A float exponent that is an integer (`x**3.0`) is finite for negative z, and is
    read as the integer power.
    """
    if y.constant and y.is_point:
        return power(call, x, y.exact)
    if x.constant and x.positive:
        return exponential(call, scaled(call, logarithm(call, x), y))
    raise Undecided("a power whose exponent is not one known number")


def square_root(call: Call, x: Facts) -> Facts:
    """z^(1/2); see `power`."""
    return power(call, x, Fraction(1, 2))


def reciprocal_square_root(call: Call, x: Facts) -> Facts:
    """z^(-1/2); see `power`."""
    return power(call, x, Fraction(-1, 2))


def cube_root(call: Call, x: Facts) -> Facts:
    """z^(1/3) for z >= 0, odd: concave above 0, convex below."""
    if x.nonnegative:
        return _power_of_nonnegative(x, Fraction(1, 3))
    if x.nonpositive:
        return negative(call, _power_of_nonnegative(negative(call, x), Fraction(1, 3)))
    return ranged(intervals.cbrt(x.range), total=x.total, constant=x.constant)


def exponential(call: Call, x: Facts) -> Facts:
    """Log exp z = z: p = 0 where z is convex, q = 0 where z is concave."""
    del call
    if x.is_infinite:
        return ZERO if x.low < 0 else TOP
    return ranged(
        above_zero(intervals.exp(x.range)),
        p=Fraction(0) if x.convex else None,
        q=Fraction(0) if x.concave else None,
        positive=True,
        total=x.total,
        constant=x.constant,
    )


def exponential_of_two(call: Call, x: Facts) -> Facts:
    """2^z = exp(z log 2) with log 2 > 0."""
    return exponential(call, scaled(call, _LOG_2, x))


def exponential_minus_one(call: Call, x: Facts) -> Facts:
    """exp(z) - 1, of the sign of z."""
    known = subtract(call, exponential(call, x), ONE)
    return closed(
        known.replace(
            low=max(known.low, 0.0) if x.nonnegative else known.low,
            positive=x.positive,
            negative=x.negative,
        )
    )


def logarithm(call: Call, x: Facts) -> Facts:
    """By definition convex where p = 0 and concave where q is known; z > 0.

    q'' <= -q u'^2 <= 0. Where z > 0 is not proved, a concave z restricts the domain to
    a convex set, on which z has q = 1.
    """
    if not x.positive:
        call.require(x, "> 0", "a logarithm")
        x = _restricted(x, positive=True)
    low = max(x.low, 0.0)
    total = (
        intervals.log(Interval(low, x.high) if low < x.high else x.range)
        if x.high > 0.0
        else intervals.entire()
    )
    return ranged(
        total,
        convex=x.p == 0,
        concave=x.q is not None,
        positive=x.low > 1.0,
        negative=x.high < 1.0,
        total=x.total,
        constant=x.constant,
    )


def logarithm_of_one_plus(call: Call, x: Facts) -> Facts:
    """log(1 + z); of the sign of z."""
    known = logarithm(call, add(call, ONE, x))
    return closed(
        known.replace(
            low=max(known.low, 0.0) if x.nonnegative else known.low,
            positive=known.positive or x.positive,
            negative=known.negative or x.negative,
        )
    )


def log_add_exp(call: Call, x: Facts, y: Facts) -> Facts:
    """log(e^x + e^y) is convex and nondecreasing in both; it is > max(x, y)."""
    del call
    for one, other in ((x, y), (y, x)):
        if one.is_infinite:
            return other if one.low < 0 else TOP
    return ranged(
        intervals.logaddexp(x.range, y.range),
        convex=x.convex and y.convex,
        positive=x.nonnegative or y.nonnegative,
        total=x.total and y.total,
        constant=x.constant and y.constant,
    )


_LOG_2 = constant(0.693147180559945, 0.693147180559946)
