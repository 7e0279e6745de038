"""What primitives make of polynomials of one variable on a piece, over fractions.

A rule takes the equation, the piece, and the polynomials that its inputs are there.
"""

import operator
from fractions import Fraction

import numpy as np

from phihat.convexity.numbers import piecewise
from phihat.convexity.numbers.piecewise import Coefficients, Piece, Unsupported
from phihat.convexity.program.form import Equation

__all__ = ["RULES"]


def _truth(value: bool) -> Coefficients:
    return (Fraction(1),) if value else ()


def _larger(piece: Piece, x: Coefficients, y: Coefficients) -> Coefficients:
    return x if piece.sign(piecewise.add(x, y, -1)) >= 0 else y


def _smaller(piece: Piece, x: Coefficients, y: Coefficients) -> Coefficients:
    return y if piece.sign(piecewise.add(x, y, -1)) >= 0 else x


def _number(x: Coefficients) -> Fraction:
    """Return the one number that a polynomial is."""
    if len(x) > 1:
        raise Unsupported
    return sum(x, Fraction(0))


def _quotient(x: Coefficients, y: Coefficients) -> Coefficients:
    if not _number(y):
        raise Unsupported
    return piecewise.scaled(1 / y[0], x)


def _select(which: Coefficients, *cases: Coefficients) -> Coefficients:
    return cases[min(max(int(_number(which)), 0), len(cases) - 1)]


def _cast(equation: Equation, piece: Piece, x: Coefficients) -> Coefficients:
    """To booleans: != 0; from booleans to floats: 0 or 1."""
    if equation.params["new_dtype"] == np.bool_:
        return _truth(piece.sign(x) != 0)
    return x


_COMPARED = {
    "eq": operator.eq,
    "ge": operator.ge,
    "gt": operator.gt,
    "le": operator.le,
    "lt": operator.lt,
    "ne": operator.ne,
}

RULES = {
    "abs": lambda _, on, x: _larger(on, x, piecewise.scaled(-1, x)),
    "add": lambda _, __, x, y: piecewise.add(x, y),
    "add_any": lambda _, __, x, y: piecewise.add(x, y),
    "and": lambda _, __, x, y: piecewise.multiply(x, y),
    "clamp": lambda _, on, low, x, high: _smaller(on, _larger(on, x, low), high),
    "convert_element_type": _cast,
    "div": lambda _, __, x, y: _quotient(x, y),
    "integer_pow": lambda equation, _, x: piecewise.power(x, equation.params["y"]),
    "max": lambda _, on, x, y: _larger(on, x, y),
    "min": lambda _, on, x, y: _smaller(on, x, y),
    "mul": lambda _, __, x, y: piecewise.multiply(x, y),
    "neg": lambda _, __, x: piecewise.scaled(-1, x),
    "not": lambda _, __, x: piecewise.add((Fraction(1),), x, -1),
    "or": lambda _, on, x, y: _larger(on, x, y),
    "pow": lambda _, __, x, y: piecewise.power(x, _number(y)),
    "select_n": lambda _, __, which, *cases: _select(which, *cases),
    "sign": lambda _, on, x: piecewise.trimmed([Fraction(on.sign(x))]),
    "square": lambda _, __, x: piecewise.multiply(x, x),
    "sub": lambda _, __, x, y: piecewise.add(x, y, -1),
    **{
        name: lambda _, on, x, y, test=test: _truth(
            test(on.sign(piecewise.add(x, y, -1)), 0)
        )
        for name, test in _COMPARED.items()
    },
}
"""By the name of the primitive."""
