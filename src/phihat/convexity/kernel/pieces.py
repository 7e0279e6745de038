# ruff: noqa: ARG005 - rules of one table share a signature
"""The kernel on expressions of one value that are polynomials between knots.

The knots are where a comparison changes, found exactly; each choice is held against
both sides, and against the value at the knot itself.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import jax.numpy as jnp
import numpy as np

from phihat.convexity.kernel.facts import Known, Refused

__all__ = ["PIECES", "Expression", "shape_of_pieces"]


Line = tuple[Fraction, ...]
"""A polynomial of one variable, by rising powers, without zeros at the end."""


class _Knot(Exception):
    """A comparison changes at these points; start again with them as knots."""

    def __init__(self, points: Sequence[Fraction]) -> None:
        super().__init__()
        self.points = points


def _trim(x: Sequence[Fraction]) -> Line:
    n = len(x)
    while n and not x[n - 1]:
        n -= 1
    return tuple(x[:n])


def _at(x: Line, t: Fraction) -> Fraction:
    total = Fraction(0)
    for c in reversed(x):
        total = total * t + c
    return total


def _add(x: Line, y: Line, sign: int = 1) -> Line:
    pairs = itertools.zip_longest(x, y, fillvalue=Fraction(0))
    return _trim([a + sign * b for a, b in pairs])


def _mul(x: Line, y: Line) -> Line:
    if len(x) + len(y) > 12:
        raise Refused("a polynomial of too high a degree")
    total = [Fraction(0)] * max(len(x) + len(y) - 1, 0)
    for (i, a), (j, b) in itertools.product(enumerate(x), enumerate(y)):
        total[i + j] += a * b
    return _trim(total)


def _slope(x: Line) -> Line:
    return _trim([k * c for k, c in enumerate(x)][1:])


def _root(c: Fraction) -> Fraction:
    top, below = math.isqrt(c.numerator), math.isqrt(c.denominator)
    if top * top != c.numerator or below * below != c.denominator:
        raise Refused("a knot that is not a fraction")
    return Fraction(top, below)


def _roots(x: Line) -> list[Fraction]:
    if len(x) <= 1:
        return []
    if len(x) == 2:
        return [-x[0] / x[1]]
    if len(x) == 3:
        d = x[1] * x[1] - 4 * x[0] * x[2]
        if d < 0:
            return []
        r = _root(d)
        return [(-x[1] - r) / (2 * x[2]), (-x[1] + r) / (2 * x[2])]
    if not x[0]:
        return [Fraction(0), *_roots(x[1:])]
    raise Refused("the roots of a cubic")


class _Piece:
    """One open interval between knots, or one knot: signs there are constant."""

    def __init__(self, low: Any, high: Any) -> None:
        self.low, self.high = low, high

    def middle(self) -> Fraction:
        low, high = self.low, self.high
        if low == -math.inf:
            return Fraction(0) if high == math.inf else Fraction(high) - 1
        return (
            Fraction(low) + 1
            if high == math.inf
            else (Fraction(low) + Fraction(high)) / 2
        )

    def sign(self, x: Line) -> int:
        if self.low != self.high:
            inside = [r for r in _roots(x) if self.low < r < self.high]
            if inside:
                raise _Knot(inside)
        value = _at(x, self.middle())
        return (value > 0) - (value < 0)


def _case(piece: _Piece, which: Line, *cases: Line) -> Line:
    k = min(max(int(_at(which, piece.middle())), 0), len(cases) - 1)
    return cases[k]


def _truth(value: bool) -> Line:
    return (Fraction(1),) if value else ()


def _bigger(piece: _Piece, x: Line, y: Line) -> Line:
    return x if piece.sign(_add(x, y, -1)) >= 0 else y


def _smaller(piece: _Piece, x: Line, y: Line) -> Line:
    return y if piece.sign(_add(x, y, -1)) >= 0 else x


def _whole_power(x: Line, n: Any) -> Line:
    if n != int(n) or n < 0:
        raise Refused("not a polynomial")
    result: Line = (Fraction(1),)
    for _ in range(int(n)):
        result = _mul(result, x)
    return result


def _divided(x: Line, y: Line) -> Line:
    if len(y) != 1:
        raise Refused("a quotient")
    return _trim([c / y[0] for c in x])


def _cast(piece: _Piece, params: Any, x: Line) -> Line:
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


PIECES: dict[str, Callable[..., Line]] = {
    "abs": lambda q, p, x: _bigger(q, x, _add((), x, -1)),
    "add": lambda q, p, x, y: _add(x, y),
    "add_any": lambda q, p, x, y: _add(x, y),
    "and": lambda q, p, x, y: _mul(x, y),
    "clamp": lambda q, p, a, x, b: _smaller(q, _bigger(q, x, a), b),
    "convert_element_type": _cast,
    "div": lambda q, p, x, y: _divided(x, y),
    "integer_pow": lambda q, p, x: _whole_power(x, p["y"]),
    "max": lambda q, p, x, y: _bigger(q, x, y),
    "min": lambda q, p, x, y: _smaller(q, x, y),
    "mul": lambda q, p, x, y: _mul(x, y),
    "neg": lambda q, p, x: _add((), x, -1),
    "not": lambda q, p, x: _truth(not x),
    "or": lambda q, p, x, y: _truth(bool(x or y)),
    "pow": lambda q, p, x, y: _whole_power(
        x, y[0] if len(y) == 1 else 0 if not y else -1
    ),
    "select_n": lambda q, p, which, *cases: _case(q, which, *cases),
    "sign": lambda q, p, x: _trim([Fraction(q.sign(x))]),
    "square": lambda q, p, x: _mul(x, x),
    "sub": lambda q, p, x, y: _add(x, y, -1),
    **{
        name: lambda q, p, x, y, test=test: _truth(test(q.sign(_add(x, y, -1))))
        for name, test in _COMPARED.items()
    },
}


class Expression:
    """The equations between one value and an output, with the constants they read."""

    def __init__(self, inside: Any, root: int, n: int, constants: Any) -> None:
        """Keep the equations, the value, the output and the exact constants."""
        self.inside, self.root, self.n, self.constants = inside, root, n, constants

    def on(self, piece: _Piece) -> Line:
        """Return the polynomial that the expression is there."""
        values: dict[int, Line] = {
            k: _trim([Fraction(c)]) for k, c in self.constants.items()
        }
        values[self.root] = (Fraction(0), Fraction(1))
        if piece.low == piece.high:
            values[self.root] = _trim([Fraction(piece.low)])
        for e in self.inside:
            if e.primitive not in PIECES:
                raise Refused("not piecewise polynomial")
            inputs = [values[k] for k in e.inputs]
            values[e.outputs[0]] = PIECES[e.primitive](piece, e.params, *inputs)
        return values[self.n]

    def pieces(self, low: float, high: float) -> tuple[list[Fraction], list[Line]]:
        """Return the knots inside a range, and the polynomial between each two."""
        knots: set[Fraction] = set()
        for _ in range(64):
            inner = sorted(k for k in knots if low < k < high)
            ends = [low, *inner, high]
            try:
                lines = [self.on(_Piece(a, b)) for a, b in itertools.pairwise(ends)]
                for k in [*inner, *(e for e in (low, high) if math.isfinite(e))]:
                    at = Fraction(k)
                    value = _at(self.on(_Piece(at, at)), at)
                    place = inner.index(at) if at in inner else 0 if k == low else -2
                    sides = (
                        lines[place : place + 2]
                        if at in inner
                        else [lines[0 if k == low else -1]]
                    )
                    if any(_at(line, at) != value for line in sides):
                        raise Refused("a jump")
                return inner, lines
            except _Knot as more:
                knots.update(more.points)
        raise Refused("too many knots")


def _signs(line: Line, low: float, high: float) -> tuple[bool, bool]:
    """Whether a polynomial is >= 0, and <= 0, on an interval."""
    marks = [low, *sorted(r for r in _roots(line) if low < r < high), high]
    values = [_at(line, _Piece(a, b).middle()) for a, b in itertools.pairwise(marks)]
    return all(v >= 0 for v in values), all(v <= 0 for v in values)


def shape_of_pieces(e: Expression, z: Known) -> Any:
    """Return (convex, concave, rises, falls, lowest) on the range of z."""
    knots, lines = e.pieces(z.low, z.high)
    ends = [z.low, *knots, z.high]
    parts = list(zip(lines, itertools.pairwise(ends), strict=True))
    bends = [_signs(_slope(_slope(line)), *pair) for line, pair in parts]
    slopes = [_signs(_slope(line), *pair) for line, pair in parts]
    jumps = [
        _at(_slope(after), k) - _at(_slope(before), k)
        for k, (before, after) in zip(knots, itertools.pairwise(lines), strict=True)
    ]
    convex = all(b[0] for b in bends) and all(j >= 0 for j in jumps)
    concave = all(b[1] for b in bends) and all(j <= 0 for j in jumps)
    rises, falls = all(s[0] for s in slopes), all(s[1] for s in slopes)
    lowest = [_lowest(line, *pair) for line, pair in parts]
    found = [value for value in lowest if value is not None]
    low = min(found) if len(found) == len(lowest) else None
    return convex, concave, rises, falls, low


def _lowest(line: Line, low: float, high: float) -> Fraction | None:
    """The least value of a piece, where it is bounded below."""
    if len(line) <= 1:
        return line[0] if line else Fraction(0)
    marks = [r for r in _roots(_slope(line)) if low < r < high]
    for end, sign in ((low, -1), (high, 1)):
        if math.isfinite(end):
            marks.append(Fraction(end))
        elif line[-1] * (sign ** (len(line) - 1)) < 0:
            return None
    return min(_at(line, m) for m in marks) if marks else None
