# ruff: noqa: ARG005 - rules of one table share a signature
"""The kernel on expressions of one value that are polynomials between knots.

Each choice is held against both sides, and against the value at the knot itself.
"""

import itertools
import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import jax.numpy as jnp
import numpy as np

from phihat.convexity.kernel.facts import Known, Refused
from phihat.convexity.numbers.piecewise import (
    Coefficients,
    Piece,
    Unsupported,
    add,
    derivative,
    limit,
    multiply,
    power,
    read,
    roots,
    trimmed,
)

__all__ = ["PIECES", "Expression", "shape_of_pieces"]

_ONE = (Fraction(1),)


def _truth(value: bool) -> Coefficients:
    return _ONE if value else ()


def _bigger(piece: Piece, x: Coefficients, y: Coefficients) -> Coefficients:
    return x if piece.sign(add(x, y, -1)) >= 0 else y


def _case(piece: Piece, which: Coefficients, *cases: Coefficients) -> Coefficients:
    k = int(limit(which, piece.inside))
    return cases[min(max(k, 0), len(cases) - 1)]


def _divided(x: Coefficients, y: Coefficients) -> Coefficients:
    if len(y) != 1:
        raise Refused("a quotient")
    return trimmed([c / y[0] for c in x])


def _raised(x: Coefficients, y: Coefficients) -> Coefficients:
    if len(y) > 1:
        raise Refused("an exponent that varies")
    return power(x, y[0] if y else 0)


def _cast(piece: Piece, params: Any, x: Coefficients) -> Coefficients:
    new = np.dtype(params["new_dtype"])
    if new == np.bool_:
        return _truth(piece.sign(x) != 0)
    if jnp.issubdtype(new, jnp.integer):
        raise Refused("a staircase")
    return x


_COMPARED: dict[str, Callable[[int], bool]] = {
    "eq": lambda s: s == 0,
    "ge": lambda s: s >= 0,
    "gt": lambda s: s > 0,
    "le": lambda s: s <= 0,
    "lt": lambda s: s < 0,
    "ne": lambda s: s != 0,
}

PIECES: dict[str, Callable[..., Coefficients]] = {
    "abs": lambda q, p, x: _bigger(q, x, add((), x, -1)),
    "add": lambda q, p, x, y: add(x, y),
    "add_any": lambda q, p, x, y: add(x, y),
    "and": lambda q, p, x, y: multiply(x, y),
    "clamp": lambda q, p, a, x, b: PIECES["min"](q, p, _bigger(q, x, a), b),
    "convert_element_type": _cast,
    "div": lambda q, p, x, y: _divided(x, y),
    "integer_pow": lambda q, p, x: power(x, p["y"]),
    "max": lambda q, p, x, y: _bigger(q, x, y),
    "min": lambda q, p, x, y: y if _bigger(q, x, y) is x else x,
    "mul": lambda q, p, x, y: multiply(x, y),
    "neg": lambda q, p, x: add((), x, -1),
    "not": lambda q, p, x: _truth(not x),
    "or": lambda q, p, x, y: _truth(bool(x or y)),
    "pow": lambda q, p, x, y: _raised(x, y),
    "select_n": lambda q, p, which, *cases: _case(q, which, *cases),
    "sign": lambda q, p, x: trimmed([Fraction(q.sign(x))]),
    "square": lambda q, p, x: multiply(x, x),
    "sub": lambda q, p, x, y: add(x, y, -1),
    **{
        name: lambda q, p, x, y, test=test: _truth(test(q.sign(add(x, y, -1))))
        for name, test in _COMPARED.items()
    },
}


class Expression:
    """The equations between one value and an output, with the constants they read."""

    def __init__(self, inside: Any, root: int, n: int, constants: Any) -> None:
        """Keep the equations, the value, the output and the exact constants."""
        self.inside, self.root, self.n, self.constants = inside, root, n, constants

    def on(self, piece: Piece) -> Coefficients:
        """Return the polynomial that the expression is there."""
        values: dict[int, Coefficients] = {
            k: trimmed([Fraction(c)]) for k, c in self.constants.items()
        }
        values[self.root] = (Fraction(0), Fraction(1))
        if piece.low == piece.high:
            values[self.root] = trimmed([Fraction(piece.low)])
        for e in self.inside:
            if e.primitive not in PIECES:
                raise Refused("not piecewise polynomial")
            inputs = [values[k] for k in e.inputs]
            values[e.outputs[0]] = PIECES[e.primitive](piece, e.params, *inputs)
        return values[self.n]


def _signs(line: Coefficients, low: float, high: float) -> tuple[bool, bool]:
    """Whether a polynomial is >= 0, and <= 0, on an interval."""
    marks = [low, *sorted(r for r in roots(line) if low < r < high), high]
    points = [Piece(a, b).inside for a, b in itertools.pairwise(marks)]
    values = [limit(line, point) for point in points]
    return all(v >= 0 for v in values), all(v <= 0 for v in values)


def shape_of_pieces(e: Expression, z: Known) -> Any:
    """Return (convex, concave, rises, falls, lowest) on the range of z."""
    try:
        return _shape(e, z)
    except Unsupported:
        raise Refused("not a polynomial between knots that are fractions") from None


def _shape(e: Expression, z: Known) -> Any:
    function = read(e.on, z.low, z.high)
    if any(side != value for _, (value, *sides) in function.limits() for side in sides):
        raise Refused("a jump")
    lines, ends = function.pieces, function.breaks
    parts = list(zip(lines, itertools.pairwise(ends), strict=True))
    bends = [_signs(derivative(derivative(line)), *pair) for line, pair in parts]
    slopes = [_signs(derivative(line), *pair) for line, pair in parts]
    jumps = [
        limit(derivative(after), k) - limit(derivative(before), k)
        for k, (before, after) in zip(
            ends[1:-1], itertools.pairwise(lines), strict=True
        )
    ]
    convex = all(b[0] for b in bends) and all(j >= 0 for j in jumps)
    concave = all(b[1] for b in bends) and all(j <= 0 for j in jumps)
    rises, falls = all(s[0] for s in slopes), all(s[1] for s in slopes)
    lowest = [_lowest(line, *pair) for line, pair in parts]
    found = [value for value in lowest if value is not None]
    low = min(found) if len(found) == len(lowest) else None
    return convex, concave, rises, falls, low


def _lowest(line: Coefficients, low: float, high: float) -> Fraction | None:
    """The least value of a piece, where it is bounded below."""
    marks = [low, *(r for r in roots(derivative(line)) if low < r < high), high]
    least = min(limit(line, mark) for mark in marks)
    return None if math.isinf(least) else least
