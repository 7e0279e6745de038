# ruff: noqa: ARG001 - rules of one table share a signature
"""The kernel's theorems on sums, products, powers, maxima and choices."""

from collections.abc import Callable, Iterable
from fractions import Fraction

from phihat.convexity.kernel.facts import (
    INF,
    NOTHING,
    ONE,
    Q0,
    ZERO,
    Ask,
    Known,
    Refused,
    either,
    normal,
    number,
    of_range,
)
from phihat.convexity.numbers import intervals as iv
from phihat.convexity.numbers.intervals import Interval

__all__ = [
    "ARITHMETIC",
    "add_up",
    "minus",
    "negative",
    "plus",
    "power",
    "product",
    "times",
]


def negative(ask: Ask, x: Known) -> Known:
    """-z is concave where z is convex."""
    if x.infinite:
        return number(-x.low)
    return normal(
        Known(-x.high, -x.low, x.concave, x.convex, None, None, -x.sign, *x[7:])
    )


def add_up(terms: Iterable[tuple[Known, int]]) -> Known:
    """Sums keep curvature; p <= 1 and q >= 1 by Minkowski's two inequalities."""
    terms = [(z, n) for z, n in terms if n]
    if not terms:
        return ZERO
    zs = [z for z, _ in terms]
    if any(z.infinite for z in zs):
        ends = {z.low for z in zs if z.infinite}
        ok = len(ends) == 1 and all(z.total or z.infinite for z in zs)
        return number(ends.pop()) if ok else NOTHING
    total = None
    for z, n in terms:
        part = z.range if n == 1 else iv.mul(float(n), z.range)
        total = part if total is None else iv.add(total, part)
    moving = [z for z in zs if not z.constant]
    p = q = None
    nonnegative = all(z.low >= 0.0 for z in zs)
    if nonnegative and moving:
        if all(z.p is not None and z.p <= 1 for z in moving):
            p = max(z.p for z in moving if z.p is not None)
        if all(z.q is not None and z.q >= 1 for z in moving):
            q = min(z.q for z in moving if z.q is not None)
    sign = 0
    if nonnegative and any(z.sign > 0 for z in zs):
        sign = 1
    elif all(z.high <= 0.0 for z in zs) and any(z.sign < 0 for z in zs):
        sign = -1
    return of_range(
        total,
        convex=all(z.convex for z in zs),
        concave=all(z.concave for z in zs),
        p=p,
        q=q,
        sign=sign,
        total=all(z.total for z in zs),
        constant=not moving,
    )


def plus(ask: Ask, x: Known, y: Known) -> Known:
    """See `add_up`."""
    return add_up([(x, 1), (y, 1)])


def minus(ask: Ask, x: Known, y: Known) -> Known:
    """X + (-y)."""
    return add_up([(x, 1), (negative(ask, y), 1)])


def times(ask: Ask, c: Known, z: Known) -> Known:
    """C z: a factor >= 0 keeps curvature, one > 0 keeps p and q, as log c is added."""
    if not c.affine and not c.infinite:
        return NOTHING._replace(constant=c.constant and z.constant)
    if c.is_point and c.low == 0.0:
        if z.infinite:
            return NOTHING
        return ZERO._replace(total=z.total, constant=z.total or z.constant)
    if z.infinite:
        return number(z.low * c.sign) if c.sign else NOTHING
    if c.infinite:
        return NOTHING
    if c.high <= 0.0:
        return negative(ask, times(ask, negative(ask, c), z))
    r, rest = iv.mul(c.range, z.range), {"total": c.total and z.total}
    rest["constant"] = z.constant
    if c.low < 0.0:
        return of_range(r, convex=z.affine, concave=z.affine, **rest)
    kept = {"p": z.p, "q": z.q, "sign": z.sign} if c.sign > 0 else {}
    return of_range(r, convex=z.convex, concave=z.concave, **kept, **rest)


def product(ask: Ask, x: Known, y: Known) -> Known:
    """Log-convex factors multiply; 1/q = 1/q1 + 1/q2 by Cauchy's inequality."""
    if x.constant:
        return times(ask, x, y)
    if y.constant:
        return times(ask, y, x)
    if x.high <= 0.0 and x.low < 0.0:
        return negative(ask, product(ask, negative(ask, x), y))
    if y.high <= 0.0 and y.low < 0.0:
        return negative(ask, product(ask, x, negative(ask, y)))
    p = q = None
    if x.low >= 0.0 and y.low >= 0.0:
        p = Q0 if x.p == 0 and y.p == 0 else None
        if x.q is not None and y.q is not None:
            zero = x.q == 0 or y.q == 0
            q = y.q if x.q == INF else x.q if y.q == INF else None
            q = Q0 if zero else q if q is not None else 1 / (1 / x.q + 1 / y.q)
    both = x.total and y.total
    return of_range(
        iv.mul(x.range, y.range), p=p, q=q, sign=x.sign * y.sign, total=both
    )


def _div(ask: Ask, x: Known, y: Known) -> Known:
    """X / y, y of one sign: (r - p) a^2 - 2 r a b + (q + r) b^2 has determinant 0."""
    if not y.sign or y.infinite:
        raise Refused("the divisor is not known to be of one sign")
    if y.constant:
        one = number(*map(float, iv.div(1.0, y.range)))
        return times(ask, normal(one._replace(sign=y.sign)), x)
    if y.sign < 0:
        return negative(ask, _div(ask, x, negative(ask, y)))
    if x.constant:
        return times(ask, x, power(ask, y, Fraction(-1)))
    if x.high <= 0.0 and x.low < 0.0:
        return negative(ask, _div(ask, negative(ask, x), y))
    p = q = None
    if x.low >= 0.0:
        if x.p is not None and y.q is not None:
            if y.q == INF or x.p == 0:
                p = x.p
            elif y.q > x.p:
                p = 1 / (1 / x.p - 1 / Fraction(y.q))
        if x.sign > 0 and x.q is not None and y.p == 0:
            q = Q0
    sign, both = max(x.sign, 0), x.total and y.total
    return of_range(iv.div(x.range, y.range), p=p, q=q, sign=sign, total=both)


def power(ask: Ask, x: Known, a: Fraction) -> Known:
    """Log z^a = a log z; even powers are of |z|, odd ones odd; roots need z >= 0."""
    if x.infinite:
        return NOTHING._replace(constant=True)
    if a == 0:
        return ONE._replace(total=x.total, constant=x.total or x.constant)
    if a == 1:
        return x
    if a.denominator == 1:
        if a < 0 and not x.sign:
            raise Refused("the base of a negative power is not known to be nonzero")
        if a % 2 == 0:
            return _power_above(_abs(ask, x), a)
        if x.low >= 0.0:
            return _power_above(x, a)
        if x.high <= 0.0:
            return negative(ask, _power_above(negative(ask, x), a))
        r = iv.integer_power(x.range, int(a))
        return of_range(r, total=x.total, constant=x.constant)
    if a > 0 and x.low < 0.0:
        x = ask.require(x, False, "a fractional power")
    elif a < 0 and x.sign <= 0:
        x = ask.require(x, True, "a negative fractional power")
    return _power_above(x, a)


def _power_above(x: Known, a: Fraction) -> Known:
    p = q = None
    if a > 0:
        p = None if x.p is None else x.p / a
        q = None if x.q is None else x.q / a
    elif x.sign > 0:
        p = Q0 if x.q is not None else None
        q = Q0 if x.p == 0 else None
    r = Interval(0.0, INF)
    if a.denominator == 1:
        r = iv.integer_power(x.range, int(a))
    elif a > 0 or x.low > 0.0:
        r = iv.power(x.range, iv.from_rational(a))
    low = max(float(r.low), 0.0)
    return normal(
        Known(
            low,
            max(float(r.high), low),
            p=p,
            q=q,
            sign=max(x.sign, 0),
            total=x.total,
            constant=x.constant,
        )
    )


def _cbrt(ask: Ask, x: Known) -> Known:
    """Odd, and the power 1/3 of z >= 0."""
    if x.low >= 0.0:
        return _power_above(x, Fraction(1, 3))
    if x.high <= 0.0:
        return negative(ask, _power_above(negative(ask, x), Fraction(1, 3)))
    return of_range(iv.cbrt(x.range), total=x.total, constant=x.constant)


def _abs(ask: Ask, x: Known) -> Known:
    """The larger of z and -z."""
    if x.infinite:
        return number(INF)
    if x.low >= 0.0:
        return x
    if x.high <= 0.0:
        return negative(ask, x)
    r = iv.absolute(x.range)
    sign = 1 if x.sign else 0
    return of_range(r, convex=x.affine, sign=sign, total=x.total, constant=x.constant)


def _max(ask: Ask, x: Known, y: Known) -> Known:
    """A maximum of convex functions is convex, and so are its increasing powers."""
    for one, other in ((x, y), (y, x)):
        if one.infinite:
            return other if one.low < 0.0 else one if other.total else NOTHING
        if one.low >= other.high and other.total:
            return one
    moving = [z for z in (x, y) if not z.constant]
    p = None
    known = [z.p for z in moving if z.p is not None]
    if x.low >= 0.0 and y.low >= 0.0 and moving and len(known) == len(moving):
        p = max(known)
    sign = 1 if 1 in (x.sign, y.sign) else -1 if x.sign == y.sign == -1 else 0
    return of_range(
        iv.maximum(x.range, y.range),
        convex=x.convex and y.convex,
        p=p,
        sign=sign,
        total=x.total and y.total,
        constant=not moving,
    )


def _min(ask: Ask, x: Known, y: Known) -> Known:
    """-max(-z, -w); of z, w >= 0 the power q is the smaller of both powers."""
    least = negative(ask, _max(ask, negative(ask, x), negative(ask, y)))
    moving = [z for z in (x, y) if not z.constant]
    if x.low < 0.0 or y.low < 0.0 or not moving or least.infinite:
        return least
    sign = 1 if x.sign > 0 and y.sign > 0 else least.sign
    if all(z.q is not None for z in moving):
        q = min(z.q for z in moving if z.q is not None)
        q = q if least.q is None else max(q, least.q)
        return normal(least._replace(q=q, sign=sign))
    return normal(least._replace(sign=sign))


def _clamp(ask: Ask, low: Known, x: Known, high: Known) -> Known:
    """min(max(z, low), high)."""
    return _min(ask, _max(ask, x, low), high)


def _select(ask: Ask, which: Known, *cases: Known) -> Known:
    """One case; which, known or the same for all params; else only a range is left."""
    if which.is_point:
        return cases[min(max(int(which.low), 0), len(cases) - 1)]
    result = cases[0]
    for case in cases[1:]:
        result = either(result, case)
    if which.constant:
        return result
    if not all(case.total for case in cases):
        raise Refused("what is not defined everywhere flows into a choice")
    return result if result.is_point else Known(result.low, result.high)


ARITHMETIC: dict[str, Callable[..., Known]] = {
    "abs": _abs,
    "add": plus,
    "add_any": plus,
    "cbrt": _cbrt,
    "clamp": _clamp,
    "div": _div,
    "integer_pow": lambda ask, x: power(ask, x, Fraction(ask.params["y"])),
    "max": _max,
    "min": _min,
    "mul": product,
    "neg": negative,
    "rsqrt": lambda ask, x: power(ask, x, Fraction(-1, 2)),
    "select_n": _select,
    "sqrt": lambda ask, x: power(ask, x, Fraction(1, 2)),
    "square": lambda ask, x: power(ask, x, Fraction(2)),
    "sub": minus,
}
