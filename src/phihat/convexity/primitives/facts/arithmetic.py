r"""The rules of the prover: what is known of a value from what is known of its inputs.

Each rule is a function from the `Facts` of the inputs of one primitive to the `Facts`
of its output, element by element, named by the record of the primitive. Its docstring
is its proof, with its range. Where a rule needs more than it is told, it says less;
where the value may not exist, it raises `Undecided`.

To compose $f(z)$: f convex and nondecreasing on an interval that holds the range of z,
z convex, gives a convex f(z); nonincreasing and z concave likewise; z affine needs f
convex only (Boyd & Vandenberghe, *Convex Optimization*, 2004, section 3.2.4).
"""

import math
from collections.abc import Sequence
from fractions import Fraction

from phihat.convexity.numbers import intervals
from phihat.convexity.numbers.intervals import Interval
from phihat.convexity.primitives.facts.call import Call
from phihat.convexity.primitives.facts.facts import (
    TOP,
    ZERO,
    Facts,
    closed,
    infinite,
    ranged,
)

__all__ = [
    "absolute",
    "add",
    "clamp",
    "maximum",
    "minimum",
    "multiply",
    "negative",
    "scaled",
    "subtract",
    "weighted_sum",
    "where_defined",
]

_INF = math.inf


def negative(call: Call, x: Facts) -> Facts:
    """-z is convex where z is concave, and the other way round."""
    del call
    if x.is_infinite:
        return infinite(-x.low)
    return closed(
        Facts(
            -x.high,
            -x.low,
            x.concave,
            x.convex,
            None,
            None,
            x.negative,
            x.positive,
            x.total,
            x.constant,
        )
    )


def weighted_sum(terms: Sequence[tuple[Facts, int]]) -> Facts:
    """A sum of convex functions is convex, of concave ones concave.

    p: for z_i >= 0 with p_i <= p <= 1, (sum z_i)^p = ||(z_i^p)||_{1/p} is a norm of
    convex nonnegative functions, nondecreasing in each (Minkowski); p = 0 is
    log-sum-exp. q: for z_i >= 0 with q_i >= q >= 1 the reverse inequality of Minkowski
    makes (sum z_i)^q concave. Beyond p <= 1 or q >= 1 neither holds: sqrt(x) has p = 2,
    (sqrt(x) + sqrt(1 - x))^2 is concave. A constant >= 0 is z_i^p for every p.
    """
    known = [(z, n) for z, n in terms if n]
    if not known:
        return ZERO
    facts = [z for z, _ in known]
    if any(z.is_infinite for z in facts):
        ends = {z.low for z in facts if z.is_infinite}
        others = (z for z in facts if not z.is_infinite)
        if len(ends) == 1 and all(z.total for z in others):
            return infinite(ends.pop())
        return TOP
    total = _scaled_range(*known[0])
    for term in known[1:]:
        total = intervals.add(total, _scaled_range(*term))
    nonnegative = all(z.nonnegative for z in facts)
    moving = [z for z in facts if not z.constant]
    p = q = None
    if nonnegative and moving:
        ps = [z.p for z in moving if z.p is not None and z.p <= 1]
        qs = [z.q for z in moving if z.q is not None and z.q >= 1]
        p = max(ps) if len(ps) == len(moving) else None
        q = min(qs) if len(qs) == len(moving) else None
    return ranged(
        total,
        convex=all(z.convex for z in facts),
        concave=all(z.concave for z in facts),
        p=p,
        q=q,
        positive=nonnegative and any(z.positive for z in facts),
        negative=all(z.nonpositive for z in facts) and any(z.negative for z in facts),
        total=all(z.total for z in facts),
        constant=not moving,
    )


def _scaled_range(z: Facts, n: int) -> Interval:
    return z.range if n == 1 else intervals.mul(intervals.from_rational(n), z.range)


def add(call: Call, x: Facts, y: Facts) -> Facts:
    """See `weighted_sum`."""
    del call
    return weighted_sum([(x, 1), (y, 1)])


def subtract(call: Call, x: Facts, y: Facts) -> Facts:
    """X + (-y)."""
    return weighted_sum([(x, 1), (negative(call, y), 1)])


def scaled(call: Call, c: Facts, z: Facts) -> Facts:
    """C z with c >= 0 keeps the curvature, c <= 0 turns it; affine stays affine.

    log(c z) = log c + log z for c > 0, so that p and q are kept. A constant that may be
    NaN or infinite (it lacks even the curvature of constants) leaves nothing.
    """
    if not c.affine and not c.is_infinite:
        return TOP
    if c.is_point and c.low == 0.0:
        if z.is_infinite:
            return TOP
        return where_defined(ZERO, z)
    if z.is_infinite:
        return (
            infinite(z.low) if c.positive else (infinite(-z.low) if c.negative else TOP)
        )
    if c.is_infinite:
        return TOP
    if c.nonpositive and not c.nonnegative:
        return negative(call, scaled(call, negative(call, c), z))
    known = {"total": c.total and z.total, "constant": z.constant}
    total = intervals.mul(c.range, z.range)
    if not c.nonnegative:
        return ranged(total, convex=z.affine, concave=z.affine, **known)
    kept = {"p": z.p, "q": z.q} if c.positive else {}
    return ranged(
        total,
        convex=z.convex,
        concave=z.concave,
        positive=c.positive and z.positive,
        negative=c.positive and z.negative,
        **kept,
        **known,
    )


def where_defined(c: Facts, z: Facts) -> Facts:
    """Return a number that there is only where z is: elsewhere 0 z is no constant."""
    return c.replace(total=z.total, constant=z.total or z.constant)


def multiply(call: Call, x: Facts, y: Facts) -> Facts:
    """log(x y) = log x + log y: log-convex ones multiply, and concave powers.

    p: u'' >= 0 and v'' >= 0 give (u + v)'' >= 0. q: -q1 a^2 - q2 b^2 <= -q (a + b)^2
    with 1/q = 1/q1 + 1/q2 (Cauchy); q1 or q2 = 0 gives 0. The sign of a factor that is
    known to be <= 0 is taken out first. For z >= 0 that may be 0, q > 0, by continuity
    (z1^a z2^b with a + b = 1 is concave on the closed quadrant).
    """
    if x.constant:
        return scaled(call, x, y)
    if y.constant:
        return scaled(call, y, x)
    if x.nonpositive and not x.nonnegative:
        return negative(call, multiply(call, negative(call, x), y))
    if y.nonpositive and not y.nonnegative:
        return negative(call, multiply(call, x, negative(call, y)))
    p = q = None
    if x.nonnegative and y.nonnegative:
        if x.p == 0 and y.p == 0:
            p = Fraction(0)
        if x.q is not None and y.q is not None:
            q = _harmonic(x.q, y.q)
    return ranged(
        intervals.mul(x.range, y.range),
        p=p,
        q=q,
        positive=(x.positive and y.positive) or (x.negative and y.negative),
        negative=(x.positive and y.negative) or (x.negative and y.positive),
        total=x.total and y.total,
    )


def _harmonic(q1: Fraction | float, q2: Fraction | float) -> Fraction | float:
    """1 / (1/q1 + 1/q2), with 1/0 = inf and 1/inf = 0."""
    if q1 == 0 or q2 == 0:
        return Fraction(0)
    if q1 == _INF:
        return q2
    if q2 == _INF:
        return q1
    return 1 / (1 / q1 + 1 / q2)


def absolute(call: Call, x: Facts) -> Facts:
    """|z| = max(z, -z): of an affine z, convex, and p = 1 as it is >= 0."""
    if x.is_infinite:
        return infinite(1.0)
    if x.nonnegative:
        return x
    if x.nonpositive:
        return negative(call, x)
    return ranged(
        intervals.absolute(x.range),
        convex=x.affine,
        positive=x.positive or x.negative,
        total=x.total,
        constant=x.constant,
    )


def maximum(call: Call, x: Facts, y: Facts) -> Facts:
    """The larger of two convex functions is convex; p: max(z, w)^p = max(z^p, w^p).

    The logarithm, or a power p > 0 of z, w >= 0, is increasing, so it passes the max;
    a constant >= 0 is convex in every power.
    """
    del call
    for one, other in ((x, y), (y, x)):
        if one.is_infinite:
            return other if one.low < 0 else (one if other.total else TOP)
        if one.low >= other.high and other.total:
            return one
    moving = [z for z in (x, y) if not z.constant]
    p = None
    if x.nonnegative and y.nonnegative and moving:
        ps = [z.p for z in moving if z.p is not None]
        p = max(ps) if len(ps) == len(moving) else None
    return ranged(
        intervals.maximum(x.range, y.range),
        convex=x.convex and y.convex,
        p=p,
        positive=x.positive or y.positive,
        negative=x.negative and y.negative,
        total=x.total and y.total,
        constant=not moving,
    )


def minimum(call: Call, x: Facts, y: Facts) -> Facts:
    """-max(-z, -w); q: min(z, w)^q = min(z^q, w^q) for z, w >= 0."""
    least = negative(call, maximum(call, negative(call, x), negative(call, y)))
    if not (x.nonnegative and y.nonnegative):
        return least
    moving = [z for z in (x, y) if not z.constant]
    qs = [z.q for z in moving if z.q is not None]
    if not moving or len(qs) < len(moving) or least.is_infinite:
        return least
    q = min(qs)
    if least.q is not None:
        q = max(q, least.q)
    return closed(least.replace(q=q, positive=x.positive and y.positive))


def clamp(call: Call, low: Facts, x: Facts, high: Facts) -> Facts:
    """min(max(x, low), high)."""
    return minimum(call, maximum(call, x, low), high)
