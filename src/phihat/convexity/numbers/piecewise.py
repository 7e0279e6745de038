"""Piecewise polynomials of one variable, exactly: Huber by min, pinball by where, ...

A loss written with `where`, `min` or comparisons has pieces whose rules, one at a time,
say nothing. As a function of one affine value it is a piecewise polynomial, with
breakpoints, coefficients and the values *at* the breakpoints kept as fractions. It is
convex if and only if it is continuous at each breakpoint, each piece is convex, and the
slopes do not decrease across a breakpoint.

The breakpoints are found where they matter: an expression is evaluated on a `Piece`, on
which it must be a polynomial, and what asks for a sign that changes there raises
`Breaks`, which `read` takes as further breakpoints.
"""

import itertools
import math
import operator
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

__all__ = [
    "Coefficients",
    "Piece",
    "Piecewise",
    "Shape",
    "Unsupported",
    "add",
    "curvature",
    "derivative",
    "limit",
    "multiply",
    "power",
    "read",
    "roots",
    "scaled",
    "small_jump",
    "trimmed",
]

Coefficients = tuple[Fraction, ...]
"""Of a polynomial, constant term first, no zero last; a truth is 0 or 1."""

_MAX_DEGREE = 6
_MAX_PIECES = 64
_LARGEST = Fraction(2) ** 1000
"""A least value beyond this has no float."""


class Unsupported(Exception):
    """A breakpoint would be irrational, or the function is no piecewise polynomial."""


class Breaks(Exception):
    """A sign changes at these points: they are to be breakpoints."""

    def __init__(self, points: Sequence[Fraction]) -> None:
        """Keep the points."""
        super().__init__()
        self.points = points


class Piece(NamedTuple):
    """An open interval between two breakpoints, or one breakpoint."""

    low: Any
    high: Any

    @property
    def inside(self) -> Fraction:
        """A point of it."""
        low, high = self
        if _is_far(low):
            return Fraction(0) if _is_far(high) else high - 1
        return low + 1 if _is_far(high) else (low + high) / 2

    def sign(self, x: Coefficients) -> int:
        """Return the sign of a polynomial, which must be the same on the piece."""
        if self.low != self.high:
            found = [root for root in roots(x) if self.low < root < self.high]
            if found:
                raise Breaks(found)
        value = limit(x, self.inside)
        return (value > 0) - (value < 0)


class Piecewise(NamedTuple):
    """A function of one variable on an interval.

    Attributes:
      breaks: its ends, perhaps infinite, and the breakpoints between, increasing.
      pieces: the polynomial between each two.
      values: the value at each; None at infinity.
    """

    breaks: tuple[Any, ...]
    pieces: tuple[Coefficients, ...]
    values: tuple[Any, ...]

    def parts(self) -> list[tuple[Coefficients, Any, Any]]:
        """Return each polynomial with its two ends."""
        return list(zip(self.pieces, self.breaks, self.breaks[1:], strict=False))

    def limits(self) -> list[tuple[Any, list[Any]]]:
        """Return each finite breakpoint with its value, and what pieces make of it."""
        found = []
        for k, (mark, value) in enumerate(zip(self.breaks, self.values, strict=True)):
            if value is not None:
                beside = self.pieces[max(k - 1, 0) : k + 1]
                found.append((mark, [value, *(limit(piece, mark) for piece in beside)]))
        return found


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


def read(
    on: Callable[[Piece], Coefficients], low: float = -math.inf, high: float = math.inf
) -> Piecewise:
    """Read a function on an interval, of which `on` tells the polynomial on a piece."""
    ends = (end if math.isinf(end) else Fraction(end) for end in (low, high))
    first, last = ends
    breaks: set[Fraction] = set()
    known: dict[Piece, Coefficients] = {}
    while len(breaks) <= _MAX_PIECES:
        marks = (first, *sorted(breaks), last)
        pieces = [Piece(*pair) for pair in itertools.pairwise(marks)]
        try:
            for piece in pieces:
                if piece not in known:
                    known[piece] = on(piece)
        except Breaks as more:
            breaks.update(more.points)
            continue
        values = (None if _is_far(m) else limit(on(Piece(m, m)), m) for m in marks)
        return Piecewise(marks, tuple(known[p] for p in pieces), tuple(values))
    raise Unsupported


# ---------------------------------------------------------------------- polynomials


def trimmed(x: Sequence[Fraction]) -> Coefficients:
    """Drop the zeros at the end."""
    size = len(x)
    while size and not x[size - 1]:
        size -= 1
    return tuple(x[:size])


def limit(x: Coefficients, point: Any) -> Any:
    """Return the value at a point, or at infinity what it tends to."""
    if _is_far(point):
        far = point if len(x) % 2 == 0 else math.inf
        return (far if x[-1] > 0 else -far) if len(x) > 1 else sum(x, Fraction(0))
    total = Fraction(0)
    for coefficient in reversed(x):
        total = total * point + coefficient
    return total


def _is_far(point: Any) -> bool:
    """Tell whether an end is infinite; all others are fractions."""
    return isinstance(point, float)


def add(x: Coefficients, y: Coefficients, c: Fraction | int = 1) -> Coefficients:
    """Return x + c y."""
    if c != 1:
        y = tuple(-b if c == -1 else c * b for b in y)
    size = min(len(x), len(y))
    return trimmed([*map(operator.add, x, y), *x[size:], *y[size:]])


def scaled(c: Fraction | int, x: Coefficients) -> Coefficients:
    """Return c x."""
    return add((), x, c)


def multiply(x: Coefficients, y: Coefficients) -> Coefficients:
    """Return x y."""
    if len(x) + len(y) - 2 > _MAX_DEGREE:
        raise Unsupported
    total = [Fraction(0)] * max(len(x) + len(y) - 1, 0)
    for (i, a), (j, b) in itertools.product(enumerate(x), enumerate(y)):
        total[i + j] += a * b
    return trimmed(total)


def power(x: Coefficients, exponent: Fraction | int) -> Coefficients:
    """Return x^exponent for a whole exponent >= 0."""
    if exponent != int(exponent) or exponent < 0:
        raise Unsupported
    result: Coefficients = (Fraction(1),)
    for _ in range(int(exponent)):
        result = multiply(result, x)
    return result


def derivative(x: Coefficients) -> Coefficients:
    """Return the slope."""
    return trimmed([k * a for k, a in enumerate(x)][1:])


def roots(x: Coefficients) -> list[Fraction]:
    """Return the real roots, which must be rational; of a quadratic at most."""
    if len(x) <= 1:
        return []
    if len(x) == 2:
        return [-x[0] / x[1]]
    if len(x) > 3:
        if not x[0]:
            return [Fraction(0), *roots(x[1:])]
        raise Unsupported
    square = x[1] * x[1] - 4 * x[0] * x[2]
    if square < 0:
        return []
    root = Fraction(math.isqrt(square.numerator), math.isqrt(square.denominator))
    if root * root != square:
        raise Unsupported
    return [(-x[1] - root) / (2 * x[2]), (-x[1] + root) / (2 * x[2])]


# ------------------------------------------------------------------------- curvature


def curvature(x: Piecewise) -> Shape:
    """Decide the shape of a function on its interval."""
    turned = Piecewise(x.breaks, tuple(scaled(-1, p) for p in x.pieces), x.values)
    is_continuous = all(len(set(sides)) == 1 for _, sides in x.limits())
    convex = is_continuous and _bends_up(x)
    concave = is_continuous and _bends_up(turned)
    slopes = [
        limit(derivative(x.pieces[k]), x.breaks[k])
        for k in ((0, -1) if convex else (-1, 0))
    ]
    curved = convex or concave
    return Shape(
        convex,
        concave,
        rising=curved and slopes[0] >= 0,
        falling=curved and slopes[1] <= 0,
        lowest=_lowest(x) if convex else None,
    )


def small_jump(x: Piecewise) -> tuple[float, float] | None:
    """Return where pieces that ought to meet do not, and by how little; or None.

    A constant that is rounded, as d^2 / 2 of d = 0.1, leaves a jump of an ulp or so.
    """
    found = []
    for mark, sides in x.limits():
        gap, size = max(sides) - min(sides), max(map(abs, sides))
        if 0 < gap <= size / 100_000:
            found.append((float(mark), float(gap)))
    return max(found, key=lambda entry: entry[1], default=None)


def _bends_up(x: Piecewise) -> bool:
    """Tell whether no piece bends down, and no slope falls across a breakpoint."""
    for piece, low, high in x.parts():
        bend = derivative(derivative(piece))
        if len(bend) > 3:
            raise Unsupported
        if any(limit(bend, point) < 0 for point in _lowest_points(bend, low, high)):
            return False
    slopes = map(derivative, x.pieces)
    pairs = zip(x.breaks[1:-1], itertools.pairwise(slopes), strict=True)
    return all(limit(one, mark) <= limit(other, mark) for mark, (one, other) in pairs)


def _lowest_points(x: Coefficients, low: Any, high: Any) -> list[Any]:
    """Return where a polynomial of degree <= 2 is least: at an end or its vertex."""
    inside = [r for r in roots(derivative(x)) if low < r < high]
    return [low, high, *inside]


def _lowest(x: Piecewise) -> Fraction | None:
    """Return the least value of a convex function."""
    if any(len(piece) > 3 for piece in x.pieces):
        return None
    lowest = min(
        limit(piece, point)
        for piece, low, high in x.parts()
        for point in _lowest_points(piece, low, high)
    )
    return lowest if abs(lowest) < _LARGEST else None
