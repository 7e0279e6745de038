# ruff: noqa: ARG005 - rules of one table share a signature
"""The kernel on polynomials of the params, expanded over fractions.

The matrix of a quadratic, or the Gram matrix of a quartic, is factored as L D L' and
must have D >= 0.
"""

import itertools
import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np

from phihat.convexity.kernel.arithmetic import add_up
from phihat.convexity.kernel.facts import Known, Refused, normal
from phihat.convexity.kernel.linear_systems import Pivots
from phihat.convexity.kernel.moves import MOVES, moved
from phihat.convexity.kernel.values import Value, is_discrete
from phihat.convexity.numbers.polynomials import (
    NotPolynomial,
    Polynomial,
    Products,
    degree,
    each,
    plus,
    summed,
)
from phihat.convexity.program.form import Equation

__all__ = ["entries_of", "is_semidefinite", "of_a_sum", "polynomial"]


def polynomial(checker: Any, equation: Equation, output: Value) -> Value | None:
    """Return what the coefficients of the output say, element by element."""
    entries = _Expansion(checker).value(equation.outputs[0], equation)
    knowns: dict[Known, int] = {}
    places = [knowns.setdefault(_judged(e), len(knowns)) for e in entries.reshape(-1)]
    shaped = np.array(places).reshape(output.shape) if len(knowns) > 1 else None
    return Value(output.shape, tuple(knowns), shaped)


def entries_of(checker: Any, n: int) -> np.ndarray:
    """Return the elements of a value as polynomials of the elements of params."""
    return _Expansion(checker).value(n)


def _judged(poly: Polynomial) -> Known:
    negated = {m: -c for m, c in poly.items()}
    square, below = (
        degree(poly) <= 2 and is_semidefinite(_matrix(one, True))
        for one in (poly, negated)
    )
    return normal(
        Known(
            low=0.0 if square else -math.inf,
            high=0.0 if below else math.inf,
            convex=_is_convex(poly),
            concave=_is_convex(negated),
            p=Fraction(1, 2) if square else None,
        )
    )


def _matrix(poly: Polynomial, bordered: bool) -> list[list[Fraction]]:
    """The matrix of a quadratic form in x, or in (1, x)."""
    names = sorted({v for m in poly for v in m})
    place = {v: k + bordered for k, v in enumerate(names)}
    matrix = [
        [Fraction(0)] * (len(names) + bordered) for _ in range(len(names) + bordered)
    ]
    for m, c in poly.items():
        if len(m) > 2 or (len(m) < 2 and not bordered):
            continue
        i, j = ([0] * (2 - len(m)) + [place[v] for v in m])[:2]
        matrix[i][j] += c / 2
        matrix[j][i] += c / 2
    return matrix


def is_semidefinite(matrix: list[list[Fraction]]) -> bool:
    """Factor as L D L', exactly; D >= 0, and a zero in D needs a zero column."""
    rows = [list(row) for row in matrix]
    for k in range(len(rows)):
        pivot = rows[k][k]
        below = range(k + 1, len(rows))
        if pivot < 0 or (pivot == 0 and any(rows[i][k] for i in below)):
            return False
        for i in below:
            if rows[i][k]:
                factor = rows[i][k] / pivot
                for j in below:
                    rows[i][j] -= factor * rows[k][j]
    return True


def _is_convex(poly: Polynomial) -> bool:
    """Degree 2 by its matrix; degree 4 by a Gram matrix of v' H(x) v."""
    order = degree(poly)
    if order <= 1:
        return True
    quadratic = is_semidefinite(
        _matrix({m: c for m, c in poly.items() if len(m) == 2}, False)
    )
    if order == 2 or not quadratic:
        return quadratic
    if order != 4 or any(len(m) == 3 for m in poly):
        return False
    names = sorted({v for m in poly for v in m})
    basis = {pair: k for k, pair in enumerate(itertools.product(names, names))}
    if len(basis) > 64:
        return False
    gram = [[Fraction(0)] * len(basis) for _ in basis]
    for m, c in poly.items():
        if len(m) != 4:
            continue
        for a, b in itertools.permutations(range(4), 2):  # the places of the two v
            i, j = (m[k] for k in range(4) if k not in (a, b))
            for one, two in (((i, m[a]), (j, m[b])), ((i, m[b]), (j, m[a]))):
                gram[basis[one]][basis[two]] += c / 4
                gram[basis[two]][basis[one]] += c / 4
    return is_semidefinite(gram)


class _Expansion(Products):
    """Values of the program as polynomials of the elements of params."""

    def __init__(self, checker: Any) -> None:
        super().__init__()
        self.checker = checker
        self.known: dict[int, np.ndarray] = {}
        self.pivots = Pivots(checker)

    def value(self, n: int, equation: Equation | None = None) -> np.ndarray:
        if n not in self.known:
            try:
                self.known[n] = self._new(n, equation or self.checker.writers.get(n))
            except NotPolynomial:
                raise Refused("not a polynomial, or one with too many terms") from None
        return self.known[n]

    def _new(self, n: int, equation: Equation | None) -> np.ndarray:
        program, values = self.checker.program, self.checker.values
        if n in values and values[n].constant:
            point = values[n].point
            if point is not None:
                return each(lambda c: {(): Fraction(float(c))} if c else {}, point)
        if equation is None:
            if n not in program.params or values[n].constant:
                raise Refused("not a polynomial of params")
            start = n << 24
            numbers = np.arange(start, start + values[n].size).reshape(values[n].shape)
            return each(lambda k: {(int(k),): Fraction(1)}, numbers)
        if is_discrete(program.dtypes[n]):
            raise Refused("integers wrap")
        name, params = equation.primitive, equation.params
        if name == "triangular_solve":
            return self.pivots.solved(equation, self.value(equation.inputs[1]))
        if name == "gather" and values[equation.inputs[1]].exact is None:
            return self.pivots.permuted(equation, self.value(equation.inputs[0]))
        if name in MOVES:
            return self._moved(equation, n)
        if name == "select_n" and len(equation.inputs) == 3:
            which, *cases = equation.inputs
            taken = values[which].point if values[which].constant else None
            if taken is None:
                raise Refused("a choice that is not known")
            no, yes = (self.value(k) for k in cases)
            return np.where(np.broadcast_to(taken != 0, no.shape), yes, no)
        if name not in _POLYNOMIAL:
            raise Refused(f"`{name}` is not polynomial")
        return _POLYNOMIAL[name](self, params, *map(self.value, equation.inputs))

    def _moved(self, equation: Equation, n: int) -> np.ndarray:
        """Follow the elements by their numbers."""
        values, shapes = self.checker.values, self.checker.program.shapes
        parts, ids, total = [], [], 0
        for k in equation.inputs:
            v = values[k]
            if v.exact is not None and is_discrete(v.exact.dtype):
                ids.append(v)
                continue
            entries = self.value(k).reshape(-1)
            parts.append(entries)
            numbers = np.arange(total, total + entries.size).reshape(v.shape)
            ids.append(Value(v.shape, (Known(),), ids=numbers))
            total += entries.size
        outputs = moved(equation, ids, [shapes[k] for k in equation.outputs])
        where = outputs[equation.outputs.index(n)].ids
        flat = np.concatenate(parts)[where.reshape(-1)]
        return flat.reshape(where.shape)


_POLYNOMIAL: dict[str, Callable[..., np.ndarray]] = {
    "add": lambda e, p, x, y: each(plus, x, y),
    "add_any": lambda e, p, x, y: each(plus, x, y),
    "div": lambda e, p, x, y: each(e.quotient, x, y),
    "dot_general": lambda e, p, x, y: e.contracted(x, y, p["dimension_numbers"]),
    "integer_pow": lambda e, p, x: each(lambda a: e.power(a, p["y"]), x),
    "mul": lambda e, p, x, y: each(e.product, x, y),
    "neg": lambda e, p, x: each(lambda a: plus({}, a, -1), x),
    "reduce_sum": lambda e, p, x: summed(x, tuple(p["axes"])),
    "square": lambda e, p, x: each(lambda a: e.power(a, 2), x),
    "sub": lambda e, p, x, y: each(lambda a, b: plus(a, b, -1), x, y),
}


def of_a_sum(checker: Any, equation: Equation, output: Value) -> Value | None:
    """Add up the summands of a scalar: polynomials exactly, the others by facts."""
    if output.shape != ():
        return None
    expansion = _Expansion(checker)
    total: Polynomial = {}
    rest: list[tuple[Known, int]] = []
    for c, n, writer in _summands(checker, equation.outputs[0], equation, Fraction(1)):
        try:
            (poly,) = expansion.value(n, writer).reshape(-1)
            total = plus(total, poly, c)
        except Refused:
            k = checker.values[n].known if n in checker.values else Known()
            convex, concave = (k.convex, k.concave) if c > 0 else (k.concave, k.convex)
            rest.append((Known(convex=convex, concave=concave, total=k.total), 1))
    k = _judged(total)
    parts = [(Known(convex=k.convex, concave=k.concave), 1), *rest]
    return Value((), (add_up(parts),))


def _summands(checker: Any, n: int, equation: Any, c: Fraction) -> Any:
    """Yield (coefficient, value, its equation); sums and multiples are taken apart."""
    values = checker.values
    name = equation.primitive if equation is not None else ""
    inputs: Any = () if equation is None else equation.inputs
    if any(values[k].shape != () for k in inputs):
        name = ""
    if name in ("add", "add_any", "sub"):
        signs = (c, -c if name == "sub" else c)
        for k, sign in zip(inputs, signs, strict=True):
            yield from _summands(checker, k, checker.writers.get(k), sign)
        return
    if name == "neg":
        (one,) = inputs
        yield from _summands(checker, one, checker.writers.get(one), -c)
        return
    if name in ("mul", "div"):
        one, other = inputs
        for x, factor in [(one, other), (other, one)][: 2 if name == "mul" else 1]:
            point = values[factor].point
            if point is not None and point and not values[x].constant:
                a = Fraction(float(point))
                a = a if name == "mul" else 1 / a
                yield from _summands(checker, x, checker.writers.get(x), c * a)
                return
    yield c, n, equation
