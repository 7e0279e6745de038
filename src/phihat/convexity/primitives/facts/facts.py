r"""What can be known of one value: its range, its curvature, its power-convexity.

`Facts` describe a real function z of the params on a convex domain. Besides its range,
and whether it is convex or concave, they hold the relation that atoms hide, *power-
convexity*. With u = log z on every line,

- `p` says $u'' \ge -p\, u'^2$: for p > 0 that is z >= 0 and z^p convex, p = 0 is
  log-convexity and asks for z > 0;
- `q` says $u'' \le -q\, u'^2$: for q > 0 that is z >= 0 and z^q concave, q = 0 is
  log-concavity and asks for z > 0.

A larger p and a smaller q say less. Both are exact (`Fraction`, or `inf` for the q of a
positive constant), for 1.4 >= 0.4 + 1 holds in floats and is false.
"""

import dataclasses
import math
from fractions import Fraction
from typing import Any

import numpy as np

from phihat.convexity.numbers.intervals import Interval

__all__ = [
    "ONE",
    "TOP",
    "ZERO",
    "Facts",
    "closed",
    "constant",
    "infinite",
    "join",
    "meet",
    "ranged",
]

_INF = math.inf


@dataclasses.dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a value for all params in the domain.

    Attributes:
      low: a lower bound; -inf is never attained.
      high: an upper bound; inf is never attained.
      convex: whether it is known to be convex in the params.
      concave: whether it is known to be concave; with convex, affine.
      p: power-convexity in [0, inf), or None where unknown.
      q: power-concavity in [0, inf], or None where unknown.
      positive: whether it is known to be > 0.
      negative: whether it is known to be < 0.
      total: whether it is known to be a finite number for all params in the domain,
        without a condition that a logarithm or a root implies.
      constant: whether it is the same number for all params.
    """

    low: float = -_INF
    high: float = _INF
    convex: bool = False
    concave: bool = False
    p: Fraction | None = None
    q: Fraction | float | None = None
    positive: bool = False
    negative: bool = False
    total: bool = True
    constant: bool = False

    @property
    def affine(self) -> bool:
        """Convex and concave at once."""
        return self.convex and self.concave

    @property
    def curved(self) -> bool:
        """Whether any curvature is known."""
        return self.convex or self.concave

    @property
    def nonnegative(self) -> bool:
        """Whether it is known to be >= 0."""
        return self.low >= 0.0

    @property
    def nonpositive(self) -> bool:
        """Whether it is known to be <= 0."""
        return self.high <= 0.0

    @property
    def is_point(self) -> bool:
        """Whether it is one known finite number."""
        return self.low == self.high and math.isfinite(self.low)

    @property
    def is_infinite(self) -> bool:
        """Whether it is the literal inf or -inf, which is no real number."""
        return self.low == self.high and math.isinf(self.low)

    @property
    def exact(self) -> Fraction:
        """The number itself, where it is a point."""
        return Fraction(self.low)

    @property
    def range(self) -> Interval:
        """The range as an interval; of a literal inf, which has none, all reals."""
        if self.is_infinite:
            return Interval(np.float64(-_INF), np.float64(_INF))
        low = np.float64(self.low)
        return Interval(low, low if self.low == self.high else np.float64(self.high))

    def replace(self, **changes: Any) -> "Facts":
        """Return a copy with changes."""
        return dataclasses.replace(self, **changes)

    def __str__(self) -> str:
        """Show as `convex >=0 p=1/2`; the form that certificates hold."""
        if self.constant:
            value = (
                repr(self.low)
                if self.low == self.high
                else (f"[{self.low!r}, {self.high!r}]")
            )
            return f"constant {value}"
        words = [
            "affine"
            if self.affine
            else "convex"
            if self.convex
            else "concave"
            if self.concave
            else "uncurved"
        ]
        if self.low != -_INF or self.high != _INF:
            words.append(f"[{self.low!r}, {self.high!r}]")
        for name in ("positive", "negative"):
            if getattr(self, name):
                words.append(name)
        if self.p is not None:
            words.append(f"p={self.p}")
        if self.q is not None:
            words.append(f"q={self.q}")
        if not self.total:
            words.append("where defined")
        return " ".join(words)


TOP = Facts(total=False)
"""Nothing is known, not even that it is a number."""


def closed(facts: Facts) -> Facts:
    """Add what follows by definition, and drop what lacks its premise.

    z >= 0 and convex is p = 1 (z itself is convex); z >= 0 and concave is q = 1;
    p <= 1 makes z = (z^p)^(1/p) convex, a convex nondecreasing function of a convex
    one (p = 0: exp of a convex one); q >= 1 makes z concave likewise. p and q speak of
    z >= 0 only, p = 0 and q = 0 of z > 0 only. A constant c > 0 has p = 0, q = inf.
    """
    low, high = facts.low, facts.high
    positive = facts.positive or low > 0.0
    negative = facts.negative or high < 0.0
    low = max(low, 0.0) if positive else low
    high = min(high, 0.0) if negative else high
    convex, concave, p, q = facts.convex, facts.concave, facts.p, facts.q
    if facts.constant:
        convex = concave = True
        p, q = (Fraction(0), _INF) if positive else (None, None)
    if low < 0.0:
        p = q = None
    if p == 0 and not positive:
        p = Fraction(1)  # a larger p says less
    if q == 0 and not positive:
        q = None
    if low >= 0.0:
        if convex and (p is None or p > 1):
            p = Fraction(1)
        if concave and (q is None or q < 1):
            q = Fraction(1)
        convex = convex or (p is not None and p <= 1)
        concave = concave or (q is not None and q >= 1)
    return Facts(
        low,
        high,
        convex,
        concave,
        p,
        q,
        positive,
        negative,
        facts.total,
        facts.constant,
    )


def constant(low: float, high: float | None = None) -> Facts:
    """Return the facts of a number that is the same for all params."""
    high = low if high is None else high
    if math.isinf(low) and low == high:
        return infinite(low)
    return closed(Facts(float(low), float(high), constant=True))


def infinite(sign: float) -> Facts:
    """Return the facts of a literal inf or -inf, which no rule may treat as real."""
    end = math.copysign(_INF, sign)
    return Facts(end, end, total=False, constant=True)


ZERO = constant(0.0)
ONE = constant(1.0)


def ranged(interval: Interval, **known: Any) -> Facts:
    """Return closed facts with the range of a scalar interval."""
    return closed(Facts(float(interval.low), float(interval.high), **known))


def join(x: Facts, y: Facts) -> Facts:
    """Return what holds of x and of y: for a value that is one of the two, fixed."""
    if x == y:
        return x
    p = None if x.p is None or y.p is None else max(x.p, y.p)
    q = None if x.q is None or y.q is None else min(x.q, y.q)
    return closed(
        Facts(
            min(x.low, y.low),
            max(x.high, y.high),
            x.convex and y.convex,
            x.concave and y.concave,
            p,
            q,
            x.positive and y.positive,
            x.negative and y.negative,
            x.total and y.total,
            x.constant and y.constant,
        )
    )


def meet(x: Facts, y: Facts) -> Facts:
    """Return what is known when both describe one value."""
    if x == y:
        return x
    p = x.p if y.p is None else y.p if x.p is None else min(x.p, y.p)
    q = x.q if y.q is None else y.q if x.q is None else max(x.q, y.q)
    low, high = max(x.low, y.low), min(x.high, y.high)
    if low > high:  # rounding only: both are right, so keep one
        low, high = x.low, x.high
    return closed(
        Facts(
            low,
            high,
            x.convex or y.convex,
            x.concave or y.concave,
            p,
            q,
            x.positive or y.positive,
            x.negative or y.negative,
            x.total or y.total,
            x.constant or y.constant,
        )
    )
