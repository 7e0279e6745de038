# ruff: noqa: ARG001, ARG005 - rules of one table share a signature
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
from phihat.convexity.program.form import Equation

__all__ = ["entries_of", "is_semidefinite", "of_a_sum", "polynomial"]


Poly = dict[tuple[int, ...], Fraction]


_MAX_TERMS = 400_000


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


def _judged(poly: Poly) -> Known:
    negated = {m: -c for m, c in poly.items()}
    square, below = (
        _degree(poly) <= 2 and is_semidefinite(_matrix(one, True))
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


def _degree(poly: Poly) -> int:
    return max(map(len, poly), default=0)


def _matrix(poly: Poly, bordered: bool) -> list[list[Fraction]]:
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


def _is_convex(poly: Poly) -> bool:
    """Degree 2 by its matrix; degree 4 by a Gram matrix of v' H(x) v."""
    degree = _degree(poly)
    if degree <= 1:
        return True
    quadratic = is_semidefinite(
        _matrix({m: c for m, c in poly.items() if len(m) == 2}, False)
    )
    if degree == 2 or not quadratic:
        return quadratic
    if degree != 4 or any(len(m) == 3 for m in poly):
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


class _Expansion:
    """Values of the program as polynomials of the elements of params."""

    def __init__(self, checker: Any) -> None:
        self.checker = checker
        self.known: dict[int, np.ndarray] = {}
        self.cost = 0
        self.pivots = Pivots(checker)

    def value(self, n: int, equation: Equation | None = None) -> np.ndarray:
        if n not in self.known:
            self.known[n] = self._new(n, equation or self.checker.writers.get(n))
        return self.known[n]

    def _new(self, n: int, equation: Equation | None) -> np.ndarray:
        program, values = self.checker.program, self.checker.values
        if n in values and values[n].constant:
            point = values[n].point
            if point is not None:
                return _each(lambda c: {(): Fraction(float(c))} if c else {}, point)
        if equation is None:
            if n not in program.params or values[n].constant:
                raise Refused("not a polynomial of params")
            start = n << 24
            numbers = np.arange(start, start + values[n].size).reshape(values[n].shape)
            return _each(lambda k: {(int(k),): Fraction(1)}, numbers)
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

    def product(self, x: Poly, y: Poly) -> Poly:
        self.cost += len(x) * len(y)
        if self.cost > _MAX_TERMS or _degree(x) + _degree(y) > 4:
            raise Refused("a polynomial with too many terms")
        total: Poly = {}
        for (m, a), (k, b) in itertools.product(x.items(), y.items()):
            key = tuple(sorted(m + k))
            total[key] = total.get(key, Fraction(0)) + a * b
        return {m: c for m, c in total.items() if c}

    def power(self, x: Poly, n: int) -> Poly:
        if n < 0:
            raise Refused("a negative power")
        result: Poly = {(): Fraction(1)}
        for _ in range(n):
            result = self.product(result, x)
        return result


def _plus(x: Poly, y: Poly, sign: int = 1) -> Poly:
    total = dict(x)
    for m, c in y.items():
        total[m] = total.get(m, Fraction(0)) + sign * c
    return {m: c for m, c in total.items() if c}


def _each(function: Callable[..., Any], *xs: np.ndarray) -> np.ndarray:
    spread = np.broadcast_arrays(*xs)
    result = np.empty(spread[0].size, object)
    for k, entries in enumerate(zip(*(s.reshape(-1) for s in spread), strict=True)):
        result[k] = function(*entries)
    return result.reshape(spread[0].shape)


def _quotient(x: Poly, y: Poly) -> Poly:
    if set(y) != {()}:
        raise Refused("a quotient")
    return {m: c / y[()] for m, c in x.items()}


def _total(entries: np.ndarray) -> Poly:
    total: Poly = {}
    for e in entries:
        total = _plus(total, e)
    return total


def _reduce_sum(e: _Expansion, params: Any, x: np.ndarray) -> np.ndarray:
    axes = tuple(params["axes"])
    kept = [n for k, n in enumerate(x.shape) if k not in axes]
    rows = np.moveaxis(x, axes, range(-len(axes), 0)) if axes else x
    rows = rows.reshape(math.prod(kept), -1 if x.size else 0)
    result = np.empty(len(rows), object)
    for k, row in enumerate(rows):
        result[k] = _total(row)
    return result.reshape(kept)


def _dot(e: _Expansion, params: Any, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    (cx, cy), (bx, by) = params["dimension_numbers"]
    if bx or by:
        raise Refused("a batch of products")
    left = np.moveaxis(x, cx, range(-len(cx), 0))
    right = np.moveaxis(y, cy, range(-len(cy), 0))
    depth = math.prod(x.shape[k] for k in cx)
    shape = (*left.shape[: left.ndim - len(cx)], *right.shape[: right.ndim - len(cy)])
    result = np.empty(math.prod(shape), object)
    pairs = itertools.product(left.reshape(-1, depth), right.reshape(-1, depth))
    for k, (row, column) in enumerate(pairs):
        products = np.empty(depth, object)
        for i, (a, b) in enumerate(zip(row, column, strict=True)):
            products[i] = e.product(a, b)
        result[k] = _total(products)
    return result.reshape(shape)


_POLYNOMIAL: dict[str, Callable[..., np.ndarray]] = {
    "add": lambda e, p, x, y: _each(_plus, x, y),
    "add_any": lambda e, p, x, y: _each(_plus, x, y),
    "div": lambda e, p, x, y: _each(_quotient, x, y),
    "dot_general": _dot,
    "integer_pow": lambda e, p, x: _each(lambda a: e.power(a, p["y"]), x),
    "mul": lambda e, p, x, y: _each(e.product, x, y),
    "neg": lambda e, p, x: _each(lambda a: _plus({}, a, -1), x),
    "reduce_sum": _reduce_sum,
    "square": lambda e, p, x: _each(lambda a: e.power(a, 2), x),
    "sub": lambda e, p, x, y: _each(lambda a, b: _plus(a, b, -1), x, y),
}


def of_a_sum(checker: Any, equation: Equation, output: Value) -> Value | None:
    """Add up the summands of a scalar: polynomials exactly, the others by facts."""
    if output.shape != ():
        return None
    expansion = _Expansion(checker)
    total: Poly = {}
    rest: list[tuple[Known, int]] = []
    for c, n, writer in _summands(checker, equation.outputs[0], equation, Fraction(1)):
        try:
            (poly,) = expansion.value(n, writer).reshape(-1)
            total = _plus(total, {m: c * value for m, value in poly.items()})
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
