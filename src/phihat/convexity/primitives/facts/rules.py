r"""The rules of the prover: what is known of a value from what is known of its inputs.

Each rule is a function from the `Facts` of the inputs of one primitive to the `Facts`
of its output, element by element, registered under the primitive's name. Its docstring
is its proof, with its range. Where a rule needs more than it is told, it says less;
where the value may not exist, it raises `Undecided`.

To compose $f(z)$: f convex and nondecreasing on an interval that holds the range of z,
z convex, gives a convex f(z); nonincreasing and z concave likewise; z affine needs f
convex only (Boyd & Vandenberghe, *Convex Optimization*, 2004, section 3.2.4).

Example:
  >>> from phihat.convexity.primitives.facts.facts import Facts
  >>> print(RULES["exp"](Call(), Facts(convex=True, concave=True)))
  convex [0.0, inf] positive p=0 q=0
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any

from phihat.convexity.numbers import intervals
from phihat.convexity.numbers.intervals import Interval
from phihat.convexity.primitives.facts.facts import (
    ONE,
    TOP,
    ZERO,
    Facts,
    closed,
    constant,
    infinite,
    join,
    ranged,
)

__all__ = ["RULES", "Call", "Undecided", "power", "rule", "square", "weighted_sum"]

_INF = math.inf


class Undecided(Exception):
    """The value may not exist somewhere in the domain, or cannot be read."""


@dataclasses.dataclass
class Call:
    """What a rule may ask for besides the facts of its inputs.

    Attributes:
      params: what the primitive was bound with.
      constraints: conditions that the value implies, as pairs (relation, reason).
    """

    params: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    constraints: list[str] = dataclasses.field(default_factory=list)

    def require(self, x: Facts, relation: str, where: str) -> None:
        """Restrict the domain to where `x > 0` (or `>= 0`), which must be convex.

        The set where a concave function is positive is convex, so that the domain
        stays so. Nothing else is excused, nor a condition on the data, nor one that
        holds nowhere: the whole verdict is then undecided.
        """
        if x.high < 0.0 or (relation == "> 0" and x.high <= 0.0):
            raise Undecided(f"the argument of {where} is nowhere {relation}")
        if x.constant:
            raise Undecided(f"for some data the argument of {where} is not {relation}")
        if not x.concave:
            raise Undecided(
                f"the argument of {where} is not proved {relation}, nor proved "
                "concave, so the domain may not be convex"
            )
        self.constraints.append(f"the argument of {where} is {relation}")


Rule = Callable[..., Facts]
RULES: dict[str, Rule] = {}
"""The rules, by the name of the primitive or of the atom."""


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register a rule under the names of its primitives."""

    def register(function: Rule) -> Rule:
        for name in names:
            RULES[name] = function
        return function

    return register


# -------------------------------------------------------------------- arithmetic


@rule("neg")
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


@rule("add", "add_any")
def add(call: Call, x: Facts, y: Facts) -> Facts:
    """See `weighted_sum`."""
    del call
    return weighted_sum([(x, 1), (y, 1)])


@rule("sub")
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
        return _where_defined(ZERO, z)
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


def _where_defined(c: Facts, z: Facts) -> Facts:
    """Return a number that there is only where z is: elsewhere 0 z is no constant."""
    return c.replace(total=z.total, constant=z.total or z.constant)


@rule("mul")
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


@rule("square")
def square(call: Call, x: Facts) -> Facts:
    """z^2; see `power`."""
    return power(call, x, Fraction(2))


@rule("div")
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


# -------------------------------------------------------------------------- powers


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
        return _where_defined(ONE, x)
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
            intervals.integer_power(x.range, int(a)),
            total=x.total,
            constant=x.constant,
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
        _above_zero(total),
        p=p,
        q=q,
        positive=x.positive,
        total=x.total,
        constant=x.constant,
    )


def _above_zero(range_: Interval) -> Interval:
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


@rule("integer_pow")
def integer_power(call: Call, x: Facts) -> Facts:
    """z^n; see `power`."""
    return power(call, x, Fraction(call.params["y"]))


@rule("pow")
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


@rule("sqrt")
def square_root(call: Call, x: Facts) -> Facts:
    """z^(1/2); see `power`."""
    return power(call, x, Fraction(1, 2))


@rule("rsqrt")
def reciprocal_square_root(call: Call, x: Facts) -> Facts:
    """z^(-1/2); see `power`."""
    return power(call, x, Fraction(-1, 2))


@rule("cbrt")
def cube_root(call: Call, x: Facts) -> Facts:
    """z^(1/3) for z >= 0, odd: concave above 0, convex below."""
    if x.nonnegative:
        return _power_of_nonnegative(x, Fraction(1, 3))
    if x.nonpositive:
        return negative(call, _power_of_nonnegative(negative(call, x), Fraction(1, 3)))
    return ranged(intervals.cbrt(x.range), total=x.total, constant=x.constant)


# ------------------------------------------------------------- kinks and choices


@rule("abs")
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


@rule("max")
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


@rule("min")
def minimum(call: Call, x: Facts, y: Facts) -> Facts:
    """-max(-z, -w); q: min(z, w)^q = min(z^q, w^q) for z, w >= 0."""
    turned = negative(call, maximum(call, negative(call, x), negative(call, y)))
    if not (x.nonnegative and y.nonnegative):
        return turned
    moving = [z for z in (x, y) if not z.constant]
    qs = [z.q for z in moving if z.q is not None]
    if not moving or len(qs) < len(moving) or turned.is_infinite:
        return turned
    q = min(qs)
    if turned.q is not None:
        q = max(q, turned.q)
    return closed(turned.replace(q=q, positive=x.positive and y.positive))


@rule("clamp")
def clamp(call: Call, low: Facts, x: Facts, high: Facts) -> Facts:
    """min(max(x, low), high)."""
    return minimum(call, maximum(call, x, low), high)


# --------------------------------------------------------- exponentials, logarithms


@rule("exp")
def exponential(call: Call, x: Facts) -> Facts:
    """Log exp z = z: p = 0 where z is convex, q = 0 where z is concave."""
    del call
    if x.is_infinite:
        return ZERO if x.low < 0 else TOP
    return ranged(
        _above_zero(intervals.exp(x.range)),
        p=Fraction(0) if x.convex else None,
        q=Fraction(0) if x.concave else None,
        positive=True,
        total=x.total,
        constant=x.constant,
    )


@rule("exp2")
def exponential_of_two(call: Call, x: Facts) -> Facts:
    """2^z = exp(z log 2) with log 2 > 0."""
    return exponential(call, scaled(call, _LOG_2, x))


@rule("expm1")
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


@rule("log")
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
        else intervals.everything()
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


@rule("log1p")
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


@rule("logaddexp")
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


# ------------------------------------------------------------ smooth, one argument


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


@rule("logistic")
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


@rule("tanh")
def hyperbolic_tangent(call: Call, x: Facts) -> Facts:
    """T' = 1 - t^2, t'' = -2 t (1 - t^2): concave above 0, convex below."""
    del call
    value = intervals.tanh(x.range)
    slope = _above_zero(1.0 - intervals.square(value))
    return _composed(
        x,
        value,
        slope,
        -2.0 * (value * slope),
        positive=x.positive,
        negative=x.negative,
    )


@rule("erf")
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


@rule("erfc")
def complementary_error_function(call: Call, x: Facts) -> Facts:
    """Falls; f'' has the sign of x; log erfc is concave and falls: q = 0, z convex.

    erfc is a tail of the normal density, which is log-concave, and tails of log-concave
    densities are so (Prekopa).
    """
    del call
    slope = Interval(-2.0, 0.0)
    return _composed(
        x,
        _above_zero(intervals.erfc(x.range)),
        slope,
        -2.0 * (x.range * slope),
        positive=True,
        q=Fraction(0) if x.convex else None,
    )


@rule("log_ndtr")
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


@rule("cosh")
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


@rule("sinh")
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


@rule("sin")
def sine(call: Call, x: Facts) -> Facts:
    """F' = cos, f'' = -sin, on the range."""
    del call
    value = intervals.sin(x.range)
    return _composed(x, value, intervals.cos(x.range), -value)


@rule("cos")
def cosine(call: Call, x: Facts) -> Facts:
    """F' = -sin, f'' = -cos, on the range."""
    del call
    value = intervals.cos(x.range)
    return _composed(x, value, -intervals.sin(x.range), -value)


@rule("atan")
def arc_tangent(call: Call, x: Facts) -> Facts:
    """F' = 1 / (1 + z^2) > 0, f'' has the sign of -z."""
    del call
    slope = Interval(0.0, 1.0)
    return _composed(x, intervals.atan(x.range), slope, -2.0 * (x.range * slope))


@rule("asinh")
def inverse_hyperbolic_sine(call: Call, x: Facts) -> Facts:
    """F' = (1 + z^2)^(-1/2) > 0, f'' has the sign of -z."""
    del call
    slope = Interval(0.0, 1.0)
    return _composed(x, intervals.asinh(x.range), slope, -(x.range * slope))


@rule("lgamma")
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


@rule("digamma")
def digamma(call: Call, x: Facts) -> Facts:
    """Concave and rises for z > 0, which must be proved; f'' = -2 sum (z + k)^-3."""
    del call
    if not x.positive:
        raise Undecided("the argument of digamma is not proved positive")
    value = intervals.digamma(x.range) if x.low > 0.0 else intervals.everything()
    return _composed(x, value, Interval(0.0, _INF), Interval(-_INF, 0.0))


# ------------------------------------------------------------------ entropies


@rule("xlogy")
def x_log_y(call: Call, x: Facts, y: Facts) -> Facts:
    """C log y for a constant c; y > 0 must be proved, as xlogy(0, -1) is finite."""
    if not y.positive and not (x.constant and (x.positive or x.negative)):
        raise Undecided("the second argument of xlogy is not proved positive")
    return multiply(call, x, logarithm(call, y))


@rule("xlog1py")
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


@rule("entr")
def entropy(call: Call, x: Facts) -> Facts:
    """-z log z for z >= 0 and -inf below: concave for an affine z."""
    return negative(call, z_log_z(call, x))


@rule("rel_entr")
def relative_entropy(call: Call, x: Facts, y: Facts) -> Facts:
    """X log(x / y) is jointly convex for affine x, y > 0: the perspective of -log."""
    if not (x.affine and y.affine):
        raise Undecided("a relative entropy of arguments that are not affine")
    for z in (x, y):
        if not z.positive:
            call.require(z, "> 0", "a relative entropy")
    total = x.positive and y.positive and x.total and y.total
    return closed(Facts(convex=True, total=total))


@rule("kl_div")
def divergence(call: Call, x: Facts, y: Facts) -> Facts:
    """X log(x / y) - x + y, which is >= 0: t - 1 - log t >= 0 at t = y / x."""
    known = relative_entropy(call, x, y)
    return closed(known.replace(low=0.0))


# ------------------------------------------------- comparisons, logic and staircases


def _truth(x: Facts) -> bool | None:
    return bool(x.low) if x.is_point else None


def _boolean(value: bool | None, *inputs: Facts) -> Facts:
    """A decided boolean is a constant; an open one is so only if its inputs are."""
    if value is not None:
        return constant(float(value))
    for x in inputs:
        if not x.total and not x.constant:
            raise Undecided(
                "a value that is not defined everywhere flows into a comparison"
            )
    return closed(Facts(0.0, 1.0, constant=all(x.constant for x in inputs)))


def _compared(certainly: bool, never: bool, x: Facts, y: Facts) -> Facts:
    decided = True if certainly else False if never else None
    if not all(z.total or z.is_infinite for z in (x, y)):
        decided = None  # a NaN compares as false
    return _boolean(decided, x, y)


def _below(x: Facts, y: Facts) -> bool:
    """Whether x < y wherever both are defined; a literal inf is above all reals."""
    if x.is_infinite or y.is_infinite:
        return (
            x.low < y.low
            if x.is_infinite and y.is_infinite
            else ((x.is_infinite and x.low < 0) or (y.is_infinite and y.low > 0))
        )
    return (
        x.high < y.low
        or (x.negative and y.nonnegative)
        or (x.nonpositive and y.positive)
    )


@rule("lt")
def less(call: Call, x: Facts, y: Facts) -> Facts:
    """Decided where the ranges do not meet."""
    del call
    certainly = _below(x, y)
    return _compared(certainly, not certainly and x.low >= y.high, x, y)


@rule("le")
def less_or_equal(call: Call, x: Facts, y: Facts) -> Facts:
    """Decided where the ranges do not meet."""
    del call
    never = _below(y, x)
    return _compared(not never and x.high <= y.low, never, x, y)


@rule("gt")
def greater(call: Call, x: Facts, y: Facts) -> Facts:
    """Y < x."""
    return less(call, y, x)


@rule("ge")
def greater_or_equal(call: Call, x: Facts, y: Facts) -> Facts:
    """Y <= x."""
    return less_or_equal(call, y, x)


def _apart(x: Facts, y: Facts) -> bool:
    return _below(x, y) or _below(y, x)


@rule("eq")
def equal(call: Call, x: Facts, y: Facts) -> Facts:
    """False where the ranges do not meet, true for equal points."""
    del call
    same = x.low == x.high == y.low == y.high
    return _compared(same, _apart(x, y), x, y)


@rule("ne")
def not_equal(call: Call, x: Facts, y: Facts) -> Facts:
    """Not `eq`."""
    return logical_not(call, equal(call, x, y))


@rule("is_finite")
def is_finite(call: Call, x: Facts) -> Facts:
    """True where the value is proved to be a number; else undecided."""
    del call
    if x.is_infinite:
        return ZERO
    if not x.total:
        raise Undecided("a value that is not defined everywhere flows into is_finite")
    return ONE


@rule("not")
def logical_not(call: Call, x: Facts) -> Facts:
    """Of a boolean."""
    del call
    truth = _truth(x)
    return _boolean(None if truth is None else not truth, x)


@rule("and")
def logical_and(call: Call, x: Facts, y: Facts) -> Facts:
    """Of booleans: false if either is."""
    del call
    truths = _truth(x), _truth(y)
    if False in truths:
        return ZERO
    return ONE if truths == (True, True) else _boolean(None, x, y)


@rule("or")
def logical_or(call: Call, x: Facts, y: Facts) -> Facts:
    """Of booleans: true if either is."""
    return logical_not(
        call, logical_and(call, logical_not(call, x), logical_not(call, y))
    )


@rule("xor")
def exclusive_or(call: Call, x: Facts, y: Facts) -> Facts:
    """Of booleans."""
    del call
    one, other = _truth(x), _truth(y)
    return _boolean(None if None in (one, other) else one != other, x, y)


def choose(which: Facts, cases: Sequence[Facts]) -> Facts:
    """select_n: one case, where it is known which or the same for all params.

    A choice that depends on the params may jump, so only the range is known of it.
    """
    if which.is_point:
        return cases[min(max(int(which.low), 0), len(cases) - 1)]
    result = cases[0]
    for case in cases[1:]:
        result = join(result, case)
    if which.constant:
        return result
    if any(not case.total for case in cases):
        raise Undecided("a value that is not defined everywhere flows into a choice")
    if result.is_point:
        return result
    return Facts(result.low, result.high)


def _stairs(function: Callable[[Interval], Interval]) -> Rule:
    def step(call: Call, x: Facts) -> Facts:
        """A staircase has jumps: only its range is known, unless it is one step."""
        del call
        if not x.total:
            raise Undecided("a value that is not defined everywhere is rounded")
        end = function(x.range)
        if float(end.low) == float(end.high):
            return constant(float(end.low))
        return closed(Facts(float(end.low), float(end.high), constant=x.constant))

    return step


for _name, _function in {
    "sign": intervals.sign,
    "floor": intervals.floor,
    "ceil": intervals.ceil,
}.items():
    rule(_name)(_stairs(_function))


@rule("round")
def rounded(call: Call, x: Facts) -> Facts:
    """A staircase; half a step more than any rounding covers both ties."""
    return _stairs(lambda r: intervals.add(r, Interval(-0.5, 0.5)))(call, x).replace(
        constant=x.constant
    )


@rule("convert_element_type")
def cast(call: Call, x: Facts) -> Facts:
    """To an integer: a staircase; to a boolean: z != 0; of integers: the number itself.

    Floats become other floats in `trace.py`, where that is read as the identity.
    """
    kind = call.params["new_dtype"]
    if str(kind) == "bool":
        return not_equal(call, x, ZERO)
    if call.params.get("from_integers") and str(kind) in _READABLE:
        return x
    if "int" not in str(kind):
        raise Undecided(f"a cast to {kind}")
    return _stairs(intervals.truncate)(call, x)


_READABLE = {"float64", "float32", "float16", "bfloat16"}


_LOG_2 = constant(0.693147180559945, 0.693147180559946)
