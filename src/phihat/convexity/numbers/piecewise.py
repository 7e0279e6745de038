"""Piecewise polynomials of one variable, exactly: Huber by min, pinball by where, ...

A loss written with `where`, `min` or comparisons has pieces whose rules, one at a time,
say nothing. As a function of one affine value it is a piecewise polynomial, with
breakpoints, coefficients and the values *at* the breakpoints kept as fractions. It is
convex if and only if it is continuous at each breakpoint, each piece is convex, and the
slopes do not decrease across a breakpoint.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

__all__ = [
    "Piecewise",
    "Shape",
    "Unsupported",
    "combine",
    "compare",
    "constant",
    "curvature",
    "identity",
    "maximum",
    "power",
    "scaled",
    "select",
    "small_jump",
]

Coefficients = tuple[Fraction, ...]
"""Of a polynomial, constant term first; a boolean is the polynomial 0 or 1."""

_MAX_DEGREE = 4
_MAX_PIECES = 64


class Unsupported(Exception):
    """A breakpoint would be irrational, or the function is no piecewise polynomial."""


class Piecewise(NamedTuple):
    """A function of one variable.

    Attributes:
      breaks: the breakpoints, increasing.
      pieces: the polynomial left of the first, between, and right of the last.
      values: the value at each breakpoint.
    """

    breaks: tuple[Fraction, ...]
    pieces: tuple[Coefficients, ...]
    values: tuple[Fraction, ...]


class Shape(NamedTuple):
    """What holds of a function on an interval.

    Attributes:
      convex: whether it is convex.
      concave: whether it is concave.
      rising: whether, being convex or concave, it nowhere falls.
      falling: whether, being convex or concave, it nowhere rises.
      lowest: its least value where that is known, else None.
    """

    convex: bool
    concave: bool
    rising: bool
    falling: bool
    lowest: Fraction | None


def identity() -> Piecewise:
    """Return the variable itself."""
    return Piecewise((), ((Fraction(0), Fraction(1)),), ())


def constant(value: Fraction) -> Piecewise:
    """Return a constant."""
    return Piecewise((), (_trimmed((value,)),), ())


# -------------------------------------------------------------------------- algebra


def combine(
    function: Callable[[Coefficients, Coefficients], Coefficients],
    x: Piecewise,
    y: Piecewise,
) -> Piecewise:
    """Combine two functions piece by piece, by a rule on polynomials."""
    x, y = _aligned(x, y)
    values = tuple(
        _at(function(_trimmed((a,)), _trimmed((b,))), Fraction(0))
        for a, b in zip(x.values, y.values, strict=True)
    )
    pieces = tuple(function(a, b) for a, b in zip(x.pieces, y.pieces, strict=True))
    return _joined(Piecewise(x.breaks, pieces, values))


def scaled(c: Fraction, x: Piecewise) -> Piecewise:
    """Return c x."""
    pieces = tuple(_trimmed(tuple(c * a for a in piece)) for piece in x.pieces)
    return Piecewise(x.breaks, pieces, tuple(c * value for value in x.values))


def add(x: Coefficients, y: Coefficients) -> Coefficients:
    """Add polynomials."""
    size = max(len(x), len(y))
    return _trimmed(
        tuple(
            (x[k] if k < len(x) else 0) + (y[k] if k < len(y) else Fraction(0))
            for k in range(size)
        )
    )


def multiply(x: Coefficients, y: Coefficients) -> Coefficients:
    """Multiply polynomials."""
    if not x or not y:
        return ()
    if len(x) + len(y) - 2 > _MAX_DEGREE:
        raise Unsupported
    total = [Fraction(0)] * (len(x) + len(y) - 1)
    for i, a in enumerate(x):
        for j, b in enumerate(y):
            total[i + j] += a * b
    return _trimmed(tuple(total))


def power(x: Piecewise, exponent: int) -> Piecewise:
    """Return x^exponent for exponent >= 0."""
    result = constant(Fraction(1))
    for _ in range(exponent):
        result = combine(multiply, result, x)
    return result


def compare(name: str, x: Piecewise, y: Piecewise) -> Piecewise:
    """Return 1 where `x name y` holds and 0 elsewhere; name: lt, le, gt, ge, eq, ne."""
    difference = _split_at_roots(combine(add, x, scaled(Fraction(-1), y)))
    holds = _COMPARED[name]
    pieces = tuple(
        _truth(holds(_sign_on(piece, *ends)))
        for piece, ends in zip(difference.pieces, _ends(difference), strict=True)
    )
    values = tuple(Fraction(int(holds(value))) for value in difference.values)
    return _joined(Piecewise(difference.breaks, pieces, values))


_COMPARED: dict[str, Callable[[Any], bool]] = {
    "lt": lambda d: d < 0,
    "le": lambda d: d <= 0,
    "gt": lambda d: d > 0,
    "ge": lambda d: d >= 0,
    "eq": lambda d: d == 0,
    "ne": lambda d: d != 0,
}


def select(which: Piecewise, cases: Sequence[Piecewise]) -> Piecewise:
    """Return the case that `which` names: 0 the first, 1 the second, ..."""
    breaks = sorted({b for function in (which, *cases) for b in function.breaks})
    chosen, *rest = (_refined(function, breaks) for function in (which, *cases))
    last = len(rest) - 1

    def index(value: Fraction) -> int:
        return min(max(int(value), 0), last)

    pieces = []
    for k, piece in enumerate(chosen.pieces):
        if len(piece) > 1:
            raise Unsupported
        pieces.append(rest[index(piece[0] if piece else Fraction(0))].pieces[k])
    values = [rest[index(value)].values[k] for k, value in enumerate(chosen.values)]
    return _joined(Piecewise(tuple(breaks), tuple(pieces), tuple(values)))


def maximum(x: Piecewise, y: Piecewise) -> Piecewise:
    """Return the larger of two functions."""
    return select(compare("lt", x, y), [x, y])


# ------------------------------------------------------------------------- curvature


def curvature(x: Piecewise, low: float, high: float) -> Shape:
    """Decide the shape of a function on the interval from low to high."""
    x = _restricted(x, low, high)
    ends = _ends(x)
    start = _exact(low)
    if start is not None:
        ends[0] = (start, ends[0][1])
    stop = _exact(high)
    if stop is not None:
        ends[-1] = (ends[-1][0], stop)
    convex = _is_convex(x, ends)
    concave = _is_convex(scaled(Fraction(-1), x), ends)
    first = _slope_at(x.pieces[0], ends[0][0], left=True)
    last = _slope_at(x.pieces[-1], ends[-1][1], left=False)
    low_slope, high_slope = (first, last) if convex else (last, first)
    curved = convex or concave
    return Shape(
        convex,
        concave,
        rising=curved and low_slope >= 0,
        falling=curved and high_slope <= 0,
        lowest=_lowest(x, ends) if convex else None,
    )


def small_jump(x: Piecewise) -> tuple[float, float] | None:
    """Return where pieces that ought to meet do not, and by how little; or None.

    A constant that is rounded, as d^2 / 2 of d = 0.1, leaves a jump of an ulp or so.
    """
    found = []
    for k, (at, value) in enumerate(zip(x.breaks, x.values, strict=True)):
        sides = [_at(x.pieces[k], at), value, _at(x.pieces[k + 1], at)]
        gap, size = max(sides) - min(sides), max(map(abs, sides))
        if 0 < gap <= size / 100_000:
            found.append((float(at), float(gap)))
    return max(found, key=lambda entry: entry[1], default=None)


def _is_convex(x: Piecewise, ends: list[tuple[Any, Any]]) -> bool:
    for piece, (left, right) in zip(x.pieces, ends, strict=True):
        bend = _derivative(_derivative(piece))
        if not _is_nonnegative(bend, left, right):
            return False
    for k, (at, value) in enumerate(zip(x.breaks, x.values, strict=True)):
        before, after = x.pieces[k], x.pieces[k + 1]
        if not _at(before, at) == value == _at(after, at):
            return False
        if _at(_derivative(before), at) > _at(_derivative(after), at):
            return False
    return True


def _is_nonnegative(x: Coefficients, left: Any, right: Any) -> bool:
    """Decide whether a polynomial of degree <= 2 is >= 0 between two ends."""
    if len(x) > 3:
        raise Unsupported
    points = [end for end in (left, right) if end is not None]
    if len(x) == 3:
        vertex = -x[1] / (2 * x[2])
        inside = (left is None or left < vertex) and (right is None or vertex < right)
        points += [vertex] if inside else []
    if any(_at(x, point) < 0 for point in points):
        return False
    if left is None and _sign_far_out(x, -1) < 0:
        return False
    return not (right is None and _sign_far_out(x, 1) < 0)


def _sign_far_out(x: Coefficients, side: int) -> Fraction:
    """Return a number with the sign of a polynomial far out on one side."""
    if not x:
        return Fraction(0)
    return x[-1] * (side if (len(x) - 1) % 2 else 1)


def _slope_at(piece: Coefficients, end: Any, *, left: bool) -> Any:
    """Return the slope at an end; at infinity its limit."""
    slope = _derivative(piece)
    if end is not None:
        return _at(slope, end)
    if len(slope) <= 1:
        return slope[0] if slope else Fraction(0)
    far = _sign_far_out(slope, -1 if left else 1)
    return math.inf if far > 0 else -math.inf


def _lowest(x: Piecewise, ends: list[tuple[Any, Any]]) -> Fraction | None:
    """Return the least value of a convex function: at a break, an end or a vertex."""
    found = list(x.values)
    for piece, (left, right) in zip(x.pieces, ends, strict=True):
        if len(piece) > 3:
            return None
        found += [_at(piece, end) for end in (left, right) if end is not None]
        if len(piece) == 3:
            vertex = -piece[1] / (2 * piece[2])
            inside = (left is None or left <= vertex) and (
                right is None or vertex <= right
            )
            found += [_at(piece, vertex)] if inside else []
        elif len(piece) == 2:
            falls_left = left is None and piece[1] > 0
            falls_right = right is None and piece[1] < 0
            if falls_left or falls_right:
                return None
        else:
            found.append(piece[0] if piece else Fraction(0))
    lowest = min(found)
    return lowest if abs(lowest) < _LARGEST else None


# --------------------------------------------------------------------------- helpers

_LARGEST = Fraction(2) ** 1000
"""A least value beyond this has no float."""


def _trimmed(x: Coefficients) -> Coefficients:
    size = len(x)
    while size and x[size - 1] == 0:
        size -= 1
    return tuple(x[:size])


def _truth(value: bool) -> Coefficients:
    return (Fraction(1),) if value else ()


def _at(x: Coefficients, point: Fraction) -> Fraction:
    total = Fraction(0)
    for coefficient in reversed(x):
        total = total * point + coefficient
    return total


def _derivative(x: Coefficients) -> Coefficients:
    return _trimmed(tuple(k * a for k, a in enumerate(x))[1:])


def _exact(end: float) -> Fraction | None:
    return Fraction(end) if math.isfinite(end) else None


def _ends(x: Piecewise) -> list[tuple[Any, Any]]:
    """Return the ends of each piece; None at infinity."""
    marks = [None, *x.breaks, None]
    return list(itertools.pairwise(marks))


def _refined(x: Piecewise, breaks: Sequence[Fraction]) -> Piecewise:
    """Write a function with more breakpoints."""
    if len(breaks) > _MAX_PIECES:
        raise Unsupported
    old = dict(zip(x.breaks, x.values, strict=True))
    pieces = [x.pieces[sum(b <= mark for b in x.breaks)] for mark in breaks]
    values = [
        old[mark] if mark in old else _at(piece, mark)
        for mark, piece in zip(breaks, pieces, strict=True)
    ]
    return Piecewise(tuple(breaks), (x.pieces[0], *pieces), tuple(values))


def _aligned(x: Piecewise, y: Piecewise) -> tuple[Piecewise, Piecewise]:
    breaks = sorted({*x.breaks, *y.breaks})
    return _refined(x, breaks), _refined(y, breaks)


def _joined(x: Piecewise) -> Piecewise:
    """Drop breakpoints at which nothing happens."""
    breaks, pieces, values = [], [x.pieces[0]], []
    for k, (mark, value) in enumerate(zip(x.breaks, x.values, strict=True)):
        if x.pieces[k + 1] == pieces[-1] and _at(pieces[-1], mark) == value:
            continue
        breaks.append(mark)
        pieces.append(x.pieces[k + 1])
        values.append(value)
    return Piecewise(tuple(breaks), tuple(pieces), tuple(values))


def _restricted(x: Piecewise, low: float, high: float) -> Piecewise:
    """Keep the breakpoints strictly inside an interval, and the pieces between.

    A breakpoint on an end belongs to the interval: the function must be continuous
    there from inside.
    """
    for k, (mark, value) in enumerate(zip(x.breaks, x.values, strict=True)):
        if mark == low and _at(x.pieces[k + 1], mark) != value:
            raise Unsupported
        if mark == high and _at(x.pieces[k], mark) != value:
            raise Unsupported
    kept = [k for k, mark in enumerate(x.breaks) if low < mark < high]
    if not kept:
        return Piecewise((), (x.pieces[sum(mark <= low for mark in x.breaks)],), ())
    first, last = kept[0], kept[-1] + 1
    return Piecewise(
        x.breaks[first:last], x.pieces[first : last + 1], x.values[first:last]
    )


def _split_at_roots(x: Piecewise) -> Piecewise:
    """Add the roots of the pieces as breakpoints, so that each piece has one sign."""
    roots = {
        root
        for piece, (left, right) in zip(x.pieces, _ends(x), strict=True)
        for root in _roots(piece)
        if (left is None or left < root) and (right is None or root < right)
    }
    return _refined(x, sorted({*x.breaks, *roots}))


def _roots(x: Coefficients) -> list[Fraction]:
    """Return the real roots of a polynomial of degree <= 2, which must be rational."""
    if len(x) <= 1:
        return []
    if len(x) == 2:
        return [-x[0] / x[1]]
    if len(x) > 3:
        raise Unsupported
    discriminant = x[1] * x[1] - 4 * x[0] * x[2]
    if discriminant < 0:
        return []
    over, under = discriminant.numerator, discriminant.denominator
    roots = math.isqrt(over), math.isqrt(under)
    if roots[0] ** 2 != over or roots[1] ** 2 != under:
        raise Unsupported
    root = Fraction(*roots)
    return [(-x[1] - root) / (2 * x[2]), (-x[1] + root) / (2 * x[2])]


def _sign_on(x: Coefficients, left: Any, right: Any) -> Fraction:
    """Return a number with the sign of a polynomial that has one sign on a piece."""
    if left is None and right is None:
        inside = Fraction(0)
        return _at(x, inside) or _at(x, inside + 1)
    if left is None:
        inside = right - 1
    elif right is None:
        inside = left + 1
    else:
        inside = (left + right) / 2
    return _at(x, inside)
