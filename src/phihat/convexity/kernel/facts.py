r"""What the kernel knows of one element, as a function of the params.

This is the second, independent copy of the calculus: it shares no code with the prover,
so that a mistake there is not repeated here. With u = log z on every line, `p` says
$u'' \ge -p\,u'^2$ and `q` says $u'' \le -q\,u'^2$; both are exact.
"""

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any, NamedTuple

from phihat.convexity.numbers.intervals import Interval

__all__ = [
    "INF",
    "NOTHING",
    "ONE",
    "Q0",
    "READABLE",
    "ZERO",
    "Ask",
    "Known",
    "Refused",
    "either",
    "meet",
    "normal",
    "number",
    "of_range",
]

INF = math.inf

Q0, Q1 = Fraction(0), Fraction(1)


class Refused(Exception):
    """The kernel cannot follow; the sentence says why."""


class Known(NamedTuple):
    """What is known of one element, for all params of the domain.

    Attributes:
      low: a lower bound.
      high: an upper bound.
      convex: whether it is convex in the params.
      concave: whether it is concave.
      p: power-convexity, in [0, inf).
      q: power-concavity, in [0, inf].
      sign: 1 where it is > 0, -1 where it is < 0, else 0.
      total: whether it is a finite number everywhere in the domain.
      constant: whether it is the same for all params.
    """

    low: float = -INF
    high: float = INF
    convex: bool = False
    concave: bool = False
    p: Fraction | None = None
    q: Fraction | float | None = None
    sign: int = 0
    total: bool = True
    constant: bool = False

    @property
    def affine(self) -> bool:
        """Convex and concave."""
        return self.convex and self.concave

    @property
    def is_point(self) -> bool:
        """Whether it is one finite number."""
        return self.low == self.high and math.isfinite(self.low)

    @property
    def infinite(self) -> bool:
        """Whether it is the literal inf or -inf."""
        return self.low == self.high and math.isinf(self.low)

    @property
    def range(self) -> Interval:
        """The bounds as an interval."""
        return Interval(-INF, INF) if self.infinite else Interval(self.low, self.high)


NOTHING = Known(total=False)


def normal(k: Known) -> Known:
    """Add what follows by definition; drop what lacks its premise.

    z >= 0 convex is p = 1, concave is q = 1, and p <= 1 or q >= 1 give them back. p = 0
    and q = 0 speak of z > 0. A positive constant has p = 0 and q = inf.
    """
    low, high, convex, concave, p, q, sign, total, constant = k
    sign = 1 if low > 0.0 else -1 if high < 0.0 else sign
    low = max(low, 0.0) if sign > 0 else low
    high = min(high, 0.0) if sign < 0 else high
    if constant:
        convex = concave = True
        p, q = (Q0, INF) if sign > 0 else (None, None)
    if low < 0.0:
        return Known(low, high, convex, concave, None, None, sign, total, constant)
    p = Q1 if p == 0 and sign <= 0 else p
    q = None if q == 0 and sign <= 0 else q
    p = Q1 if convex and (p is None or p > 1) else p
    q = Q1 if concave and (q is None or q < 1) else q
    convex = convex or (p is not None and p <= 1)
    concave = concave or (q is not None and q >= 1)
    return Known(low, high, convex, concave, p, q, sign, total, constant)


def number(low: float, high: float | None = None) -> Known:
    """Return a constant; an infinite or undefined one is not a number."""
    high = low if high is None else high
    if math.isnan(low) or math.isnan(high):
        return NOTHING._replace(constant=True)
    if low == high and math.isinf(low):
        return Known(low, high, total=False, constant=True)
    return normal(Known(float(low), float(high), constant=True))


ZERO, ONE = number(0.0), number(1.0)


def of_range(r: Any, **known: Any) -> Known:
    """Return facts with the range of an interval."""
    return normal(Known(float(r.low), float(r.high), **known))


def either(x: Known, y: Known) -> Known:
    """What holds of both: the value is one of them, the same for all params."""
    if x == y:
        return x
    return normal(
        Known(
            min(x.low, y.low),
            max(x.high, y.high),
            x.convex and y.convex,
            x.concave and y.concave,
            None if x.p is None or y.p is None else max(x.p, y.p),
            None if x.q is None or y.q is None else min(x.q, y.q),
            x.sign if x.sign == y.sign else 0,
            x.total and y.total,
            x.constant and y.constant,
        )
    )


def meet(x: Known, y: Known) -> Known:
    """What is known when x and y describe the same value."""
    low, high = max(x.low, y.low), min(x.high, y.high)
    if low > high:
        low, high = x.low, x.high
    p = [k.p for k in (x, y) if k.p is not None]
    q = [k.q for k in (x, y) if k.q is not None]
    return normal(
        Known(
            low,
            high,
            x.convex or y.convex,
            x.concave or y.concave,
            min(p) if p else None,
            max(q) if q else None,
            x.sign or y.sign,
            x.total and y.total,
            x.constant or y.constant,
        )
    )


class Ask:
    """The parameters of an equation, and the conditions on the domain so far."""

    def __init__(self, params: Mapping[str, Any], conditions: Any = None) -> None:
        """Start with an empty list of conditions, or share one."""
        self.params = params
        self.conditions: list[str] = [] if conditions is None else conditions

    def require(self, x: Known, strictly: bool, where: str) -> Known:
        """Restrict the domain to {x > 0}, or >= 0, which is convex for a concave x."""
        if x.high < 0.0 or (strictly and x.high <= 0.0) or x.constant or not x.concave:
            raise Refused(f"the argument of {where} is not known to be positive")
        self.conditions.append(
            f"the argument of {where} is {'>' if strictly else '>='} 0"
        )
        low, high = max(x.low, 0.0), max(x.high, 0.0)
        return normal(
            x._replace(low=low, high=high, sign=1 if strictly else x.sign, total=False)
        )


READABLE = {"float64", "float32", "float16", "bfloat16"}
"""The floats that are read as real numbers."""
