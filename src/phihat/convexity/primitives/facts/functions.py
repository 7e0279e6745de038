"""Facts of smooth functions of one value, and of entropies."""

import functools
from collections.abc import Callable
from fractions import Fraction
from typing import Any

from phihat.convexity.numbers import derivatives
from phihat.convexity.numbers.intervals import Interval
from phihat.convexity.primitives.facts.arithmetic import add, multiply, negative
from phihat.convexity.primitives.facts.call import Call, Rule, Undecided
from phihat.convexity.primitives.facts.facts import (
    ONE,
    TOP,
    ZERO,
    Facts,
    closed,
    ranged,
)
from phihat.convexity.primitives.facts.powers import logarithm

__all__ = [
    "complementary_error_function",
    "divergence",
    "entropy",
    "logistic",
    "relative_entropy",
    "smooth",
    "x_log_one_plus_y",
    "x_log_y",
    "z_log_z",
]


def _composed(
    x: Facts, value: Interval, slope: Interval, bend: Interval, **known: Any
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


def _known_of_odd(x: Facts) -> dict[str, Any]:
    return {"positive": x.positive, "negative": x.negative}


def _known_of_cosh(x: Facts) -> dict[str, Any]:
    """(log cosh)'' = 1 / cosh^2 > 0, and log cosh rises above 0."""
    log_convex = (
        x.affine or (x.convex and x.nonnegative) or (x.concave and x.nonpositive)
    )
    return {"positive": True, "p": Fraction(0) if log_convex else None}


_KNOWN: dict[str, Callable[[Facts], dict[str, Any]]] = {
    "cosh": _known_of_cosh,
    "erf": _known_of_odd,
    # Tails of the log-concave normal density are log-concave (Prekopa); this one falls.
    "erfc": lambda x: {"positive": True, "q": Fraction(0) if x.convex else None},
    "log_ndtr": lambda _: {"negative": True},
    # log s is concave and rises
    "logistic": lambda x: {"positive": True, "q": Fraction(0) if x.concave else None},
    "sinh": _known_of_odd,
    "tanh": _known_of_odd,
}
"""What is known of a smooth function besides its value and derivatives."""


def smooth(name: str) -> Rule:
    """Make the rule of a function whose derivatives `numbers/derivatives.py` has."""
    known = _KNOWN.get(name, lambda _: {})

    def rule(call: Call, x: Facts) -> Facts:
        """Compose with the signs of the derivatives on the range, which it must hold.

        At an open end of the domain, as 0 for lgamma, the enclosures hold, too.
        """
        del call
        if x.is_infinite:
            return TOP
        if not (derivatives.is_inside(name, x.range) or (x.positive and x.low == 0.0)):
            raise Undecided(f"the argument of {name} is not proved inside its domain")
        r = x.range
        ends = float(r.low).hex(), float(r.high).hex()  # 0 and -0 apart
        return _composed(x, *_derivatives(name, *ends), **known(x))

    return rule


@functools.lru_cache(256)
def _derivatives(name: str, low: str, high: str) -> derivatives.Derivatives:
    """Return a function's derivatives over a range, whose ends are hexadecimal."""
    return derivatives.SMOOTH[name](Interval(*map(float.fromhex, (low, high))))


def logistic(call: Call, x: Facts) -> Facts:
    """See `smooth`; it is 0 and 1 at literal infinities."""
    if x.is_infinite:
        return ZERO if x.low < 0 else ONE
    return _LOGISTIC(call, x)


_LOGISTIC = smooth("logistic")
complementary_error_function = smooth("erfc")


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
