"""What primitives make of piecewise polynomials of one variable, over fractions."""

import functools
from collections.abc import Callable
from fractions import Fraction

import numpy as np

from phihat.convexity.numbers import piecewise
from phihat.convexity.numbers.piecewise import Piecewise, Unsupported
from phihat.convexity.program.form import Equation

__all__ = [
    "absolute",
    "add",
    "cast",
    "clamp",
    "compared",
    "divide",
    "general_power",
    "invert",
    "maximum",
    "minimum",
    "multiply",
    "negative",
    "power",
    "select_n",
    "sign",
    "subtract",
]

_ZERO, _ONE = (piecewise.constant(Fraction(c)) for c in (0, 1))
_plus = functools.partial(piecewise.combine, piecewise.add)
_turned = functools.partial(piecewise.scaled, Fraction(-1))
_larger = piecewise.maximum


def _minus(x: Piecewise, y: Piecewise) -> Piecewise:
    return _plus(x, _turned(y))


def _smaller(x: Piecewise, y: Piecewise) -> Piecewise:
    return _turned(_larger(_turned(x), _turned(y)))


def _quotient(x: Piecewise, y: Piecewise) -> Piecewise:
    """Divide by one number."""
    if y.breaks or len(y.pieces[0]) != 1:
        raise Unsupported
    return piecewise.scaled(1 / y.pieces[0][0], x)


def _raised(x: Piecewise, exponent: Fraction) -> Piecewise:
    if exponent.denominator != 1 or exponent < 0:
        raise Unsupported
    return piecewise.power(x, int(exponent))


def _of(function: Callable[..., Piecewise]) -> Callable[..., Piecewise]:
    """Make a rule of what depends on the pieces alone."""
    return lambda _, *pieces: function(*pieces)


absolute = _of(lambda x: _larger(x, _turned(x)))
add = _of(_plus)
clamp = _of(lambda low, x, high: _smaller(_larger(x, low), high))
divide = _of(_quotient)
invert = _of(lambda x: _minus(_ONE, x))
maximum = _of(_larger)
minimum = _of(_smaller)
multiply = _of(functools.partial(piecewise.combine, piecewise.multiply))
negative = _of(_turned)
select_n = _of(lambda which, *cases: piecewise.select(which, cases))
sign = _of(
    lambda x: _minus(
        piecewise.compare("gt", x, _ZERO), piecewise.compare("lt", x, _ZERO)
    )
)
subtract = _of(_minus)


def power(equation: Equation, x: Piecewise) -> Piecewise:
    """A whole power that is not negative."""
    return _raised(x, Fraction(equation.params.get("y", 2)))


def general_power(_: Equation, x: Piecewise, y: Piecewise) -> Piecewise:
    """A power whose exponent is one whole number."""
    if y.breaks or len(y.pieces[0]) > 1:
        raise Unsupported
    return _raised(x, y.pieces[0][0] if y.pieces[0] else Fraction(0))


def cast(equation: Equation, x: Piecewise) -> Piecewise:
    """To booleans: != 0; from booleans to floats: 0 or 1."""
    if equation.params["new_dtype"] == np.bool_:
        return piecewise.compare("ne", x, _ZERO)
    return x


def compared(equation: Equation, x: Piecewise, y: Piecewise) -> Piecewise:
    """Pieces are cut where the two cross."""
    return piecewise.compare(equation.primitive, x, y)
