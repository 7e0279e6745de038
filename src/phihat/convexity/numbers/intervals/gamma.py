r"""The logarithm of the gamma function and its derivatives, for positive arguments.

Stirling's series, which $\Gamma(z+1) = z\Gamma(z)$ brings into reach of its accuracy:
$\log\Gamma(z) = (z - \tfrac12)\log z - z + \tfrac12\log 2\pi + \sum_k B_{2k} /
(2k(2k-1)z^{2k-1})$. Cut anywhere, it and all its derivatives err by less than the first
term left out, and in its direction; so that term encloses the remainder.

References:
  Alzer, *On some inequalities for the gamma and psi functions*, Math. Comp. 1997.
"""

import functools
import math
from fractions import Fraction
from typing import Any

import numpy as np

from phihat.convexity.numbers.intervals import rounding
from phihat.convexity.numbers.intervals.core import (
    Interval,
    add,
    as_interval,
    blockwise,
    div,
    from_decimal,
    from_rational,
    mul,
    neg,
    sub,
)
from phihat.convexity.numbers.intervals.elementary import from_ends, log
from phihat.convexity.numbers.intervals.order import hull, where
from phihat.convexity.numbers.intervals.powers import integer_power, square

__all__ = ["digamma", "lgamma", "polygamma"]

_BERNOULLI = [
    Fraction(*pair)
    for pair in [
        (1, 6),
        (-1, 30),
        (1, 42),
        (-1, 30),
        (5, 66),
        (-691, 2730),
        (7, 6),
        (-3617, 510),
        (43867, 798),
        (-174611, 330),
    ]
]
"""The numbers of Bernoulli B_2, B_4, ...; the last serves as the remainder."""

_HALF_LOG_TAU = from_decimal("0.91893853320467274178032973640561763986")
_ARGMIN = from_decimal("1.46163214496836234126265954232572132846")
_MIN = neg(from_decimal("0.12148629053584960809551455717769158421"))


@blockwise
def lgamma(x: Any) -> Interval:
    """Take log|gamma(x)|: convex for x > 0, with its least value near 1.46.

    Where x reaches below zero the result is [-inf, inf].
    """
    x = as_interval(x)
    ends = (np.clip(end, rounding.TINIEST, rounding.LARGEST) for end in x)
    first, last = (_lgamma_at(Interval(end, end)) for end in ends)
    holds_min = (x.low <= _ARGMIN.high) & (x.high >= _ARGMIN.low)
    low = np.where(holds_min, _MIN.low, np.minimum(first.low, last.low))
    high = np.maximum(first.high, last.high)
    is_open = (x.low <= 0) | np.isinf(x.high)
    return Interval(
        np.where(x.low < 0, -np.inf, np.maximum(low, _MIN.low)),
        np.where(is_open, np.inf, high),
    )


def digamma(x: Any) -> Interval:
    """Take the derivative of lgamma, which grows for x > 0; else [-inf, inf]."""
    return polygamma(0, x)


def polygamma(n: int, x: Any) -> Interval:
    """Take the nth derivative of digamma, n >= 0, for x > 0; else [-inf, inf].

    Its derivatives alternate in sign: so it grows for even n and falls for odd n, and
    has the sign (-1)^(n+1) if n >= 1.
    """
    return blockwise(functools.partial(_polygamma, n))(x)


def _polygamma(n: int, x: Interval) -> Interval:
    inside = Interval(*(np.maximum(end, rounding.TINIEST) for end in x))
    falling = from_ends(
        functools.partial(_falling_at, n),
        inside,
        range=(0.0, np.inf) if n else (-np.inf, np.inf),
        is_increasing=False,
    )
    # At an end below zero the bound above is infinite already: the pole is near.
    falling = Interval(np.where(x.low < 0, -np.inf, falling.low), falling.high)
    return falling if n % 2 else neg(falling)


def _lgamma_at(x: Interval) -> Interval:
    """Take Stirling's series at x or x + 10, less log x and log (x+1)...(x+9)."""
    is_small, z, x = _shifted(x, _SHIFT)
    terms = [b / (2 * k * (2 * k - 1)) for k, b in enumerate(_BERNOULLI, 1)]
    value = add(
        add(sub(mul(sub(z, 0.5), log(z)), z), _HALF_LOG_TAU),
        div(_in_inverse_squares(terms, z), z),
    )
    shifted = sub(value, add(log(x), log(_rising_product(x.low))))
    return where(is_small, shifted, value)


def _rising_product(x: Any) -> Interval:
    """Multiply x + 1, ..., x + 9: all positive, so 17 roundings err by 9 ulps."""
    product = x + 1.0
    for k in range(2, _SHIFT):
        product = product * (x + k)
    return Interval(*rounding.inflate(product, _SHIFT))


def _falling_at(n: int, x: Interval) -> Interval:
    r"""Take $(-1)^{n+1}\psi^{(n)}$, which falls, at x or x + m.

    The m steps back are of $n!/x^{n+1}$ each. The series is $(n-1)!/z^n +
    n!/(2z^{n+1}) + \sum_k B_{2k} (2k+n-1)! / ((2k)! z^{2k+n})$, where for n = 0 the
    first term is $-\log z$.
    """
    shift = _SHIFT + n
    is_small, z, x = _shifted(x, shift)
    first = div(math.factorial(n - 1), integer_power(z, n)) if n else neg(log(z))
    terms = [
        b * Fraction(math.factorial(2 * k + n - 1), math.factorial(2 * k))
        for k, b in enumerate(_BERNOULLI, 1)
    ]
    value = add(
        add(first, div(math.factorial(n), mul(2.0, integer_power(z, n + 1)))),
        div(_in_inverse_squares(terms, z), integer_power(z, n + 2)),
    )
    shifted = value
    for k in reversed(range(shift)):
        step = integer_power(add(x, float(k)), n + 1)
        shifted = add(shifted, div(math.factorial(n), step))
    return where(is_small, shifted, value)


_SHIFT = 10


def _shifted(x: Interval, shift: int) -> tuple[np.ndarray, Interval, Interval]:
    """Return where x < shift; x + shift there, and x elsewhere; x there, and 1."""
    is_small = x.low < shift
    small = where(is_small, x, 1.0)
    return is_small, where(is_small, add(small, float(shift)), x), small


def _in_inverse_squares(terms: list[Fraction], z: Interval) -> Interval:
    """Sum terms[k] / z^(2k) by Horner's rule; the last term is the remainder."""
    inverse = div(1.0, square(z))
    *kept, last = map(from_rational, terms)
    total = hull(0.0, last)
    for term in reversed(kept):
        total = add(term, mul(inverse, total))
    return total
