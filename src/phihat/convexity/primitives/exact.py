"""What primitives make of piecewise polynomials of one variable, over fractions."""

from fractions import Fraction
from typing import Any

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

_MINUS = Fraction(-1)


def add(_: Equation, x: Piecewise, y: Piecewise) -> Piecewise:
    """Piece by piece."""
    return piecewise.combine(piecewise.add, x, y)


def subtract(equation: Equation, x: Piecewise, y: Piecewise) -> Piecewise:
    """X + (-1) y."""
    return add(equation, x, piecewise.scaled(_MINUS, y))


def multiply(_: Equation, x: Piecewise, y: Piecewise) -> Piecewise:
    """Piece by piece."""
    return piecewise.combine(piecewise.multiply, x, y)


def divide(_: Equation, x: Piecewise, y: Piecewise) -> Piecewise:
    """Division by one number."""
    if y.breaks or len(y.pieces[0]) != 1:
        raise Unsupported
    return piecewise.scaled(1 / y.pieces[0][0], x)


def negative(_: Equation, x: Piecewise) -> Piecewise:
    """(-1) x."""
    return piecewise.scaled(_MINUS, x)


def maximum(_: Equation, x: Piecewise, y: Piecewise) -> Piecewise:
    """Pieces are cut where the two cross."""
    return piecewise.maximum(x, y)


def minimum(equation: Equation, x: Piecewise, y: Piecewise) -> Piecewise:
    """-max(-x, -y)."""
    return negative(
        equation, maximum(equation, negative(equation, x), negative(equation, y))
    )


def absolute(equation: Equation, x: Piecewise) -> Piecewise:
    """Max(x, -x)."""
    return maximum(equation, x, negative(equation, x))


def clamp(equation: Equation, low: Any, x: Any, high: Any) -> Piecewise:
    """Min(max(x, low), high)."""
    return minimum(equation, maximum(equation, x, low), high)


def power(equation: Equation, x: Piecewise) -> Piecewise:
    """A whole power that is not negative."""
    exponent = equation.params.get("y", 2)
    if exponent < 0:
        raise Unsupported
    return piecewise.power(x, exponent)


def general_power(_: Equation, x: Piecewise, y: Piecewise) -> Piecewise:
    """A power whose exponent is one whole number."""
    if y.breaks:
        raise Unsupported
    exponent = y.pieces[0][0] if y.pieces[0] else Fraction(0)
    if len(y.pieces[0]) > 1 or exponent.denominator != 1 or exponent < 0:
        raise Unsupported
    return piecewise.power(x, int(exponent))


def select_n(_: Equation, which: Piecewise, *cases: Piecewise) -> Piecewise:
    """Each piece of the condition names its case."""
    return piecewise.select(which, cases)


def invert(equation: Equation, x: Piecewise) -> Piecewise:
    """1 - x of a boolean."""
    return subtract(equation, piecewise.constant(Fraction(1)), x)


def cast(equation: Equation, x: Piecewise) -> Piecewise:
    """To booleans: != 0; from booleans to floats: 0 or 1."""
    if equation.params["new_dtype"] == np.bool_:
        return piecewise.compare("ne", x, piecewise.constant(Fraction(0)))
    return x


def sign(equation: Equation, x: Piecewise) -> Piecewise:
    """(x > 0) - (x < 0)."""
    zero = piecewise.constant(Fraction(0))
    above, below = piecewise.compare("gt", x, zero), piecewise.compare("lt", x, zero)
    return subtract(equation, above, below)


def compared(equation: Equation, x: Piecewise, y: Piecewise) -> Piecewise:
    """Pieces are cut where the two cross."""
    return piecewise.compare(equation.primitive, x, y)
