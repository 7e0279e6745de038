# ruff: noqa: ARG005 - rules of one table share a signature
"""Exact polynomials of the params, where rules for one step at a time see too little.

x'Qx with a singular Q, (x + y)^2 multiplied out, x^4 + 6 x^2 y^2 + y^4: the curvature
of a polynomial is decided on its coefficients, which are kept as fractions.

- Degree 2: convex if and only if its matrix is positive semidefinite, by an exact
  L D L' (a zero pivot needs a zero column). If the matrix bordered by the linear and
  constant terms is so too, the polynomial is a sum of squares of affine functions, and
  its square root, a norm, is convex: p = 1/2.
- Degree 4: convex if v' H(x) v, as a polynomial of v and x, is a sum of squares, for
  which a positive semidefinite Gram matrix is a proof.
"""

import itertools
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from phihat.convexity.numbers.polynomials import (
    NotPolynomial,
    Polynomial,
    Products,
    degree,
    each,
    plus,
    summed,
)
from phihat.convexity.program.structure import INDEXED, STRUCTURAL, Unknown, move
from phihat.convexity.prover.linear_systems import LinearSystems, Row

__all__ = ["EXPANDED", "Expander", "is_convex", "is_semidefinite", "is_sum_of_squares"]

_MAX_VARIABLES = 64
_MAX_GRAM = 60


# -------------------------------------------------------------------------- curvature


def is_convex(x: Polynomial) -> bool:
    """Prove a polynomial of degree <= 2, or an SOS-convex one of degree 4, convex."""
    if degree(x) <= 1:
        return True
    variables = sorted({v for monomial in x for v in monomial})
    if degree(x) == 2:
        return is_semidefinite(_matrix(x, variables))
    return degree(x) == 4 and _is_sos_convex(x, variables)


def is_sum_of_squares(x: Polynomial) -> bool:
    """Prove a polynomial of degree <= 2 a sum of squares of affine functions."""
    if degree(x) > 2:
        return False
    variables = sorted({v for monomial in x for v in monomial})
    return is_semidefinite(_matrix(x, variables, bordered=True))


def _matrix(
    x: Polynomial, variables: Sequence[int], *, bordered: bool = False
) -> list[list[Fraction]]:
    """Return the symmetric matrix of a quadratic; bordered, of (1, x) instead of x."""
    place = {v: k + bordered for k, v in enumerate(variables)}
    size = len(variables) + bordered
    matrix = [[Fraction(0)] * size for _ in range(size)]
    for monomial, coefficient in x.items():
        if len(monomial) == 2:
            rows = place[monomial[0]], place[monomial[1]]
        elif bordered:
            rows = (0, place[monomial[0]] if monomial else 0)
        else:
            continue
        matrix[rows[0]][rows[1]] += coefficient / 2
        matrix[rows[1]][rows[0]] += coefficient / 2
    return matrix


def is_semidefinite(matrix: Sequence[Sequence[Fraction]]) -> bool:
    """Decide, exactly, whether a symmetric matrix is positive semidefinite.

    Symmetric elimination keeps the property; a pivot must be >= 0, and a zero pivot
    needs a zero column, since [[0, b], [b, c]] has the determinant -b^2.
    """
    rest = [list(row) for row in matrix]
    while rest:
        pivot, column = rest[0][0], [row[0] for row in rest[1:]]
        if pivot < 0 or (pivot == 0 and any(column)):
            return False
        below = [row[1:] for row in rest[1:]]
        if pivot:
            for row, c in zip(below, column, strict=True):
                if c:
                    factor = c / pivot
                    for k, d in enumerate(column):
                        if d:
                            row[k] -= factor * d
        rest = below
    return True


def _is_sos_convex(x: Polynomial, variables: Sequence[int]) -> bool:
    """Look for a semidefinite Gram matrix of v' H v, each term split evenly.

    v' H(x) v = sum of c x_i x_j v_k v_l; over the basis x_i v_k a term stands in up to
    four entries. Any split is a Gram matrix, so that a semidefinite one is a proof.
    """
    if any(len(monomial) % 2 for monomial in x if len(monomial) > 1):
        return False
    quartic = {m: c for m, c in x.items() if len(m) == 4}
    quadratic = {m: c for m, c in x.items() if len(m) == 2}
    basis = [(i, k) for i in variables for k in variables]
    if len(basis) > _MAX_GRAM or not is_semidefinite(_matrix(quadratic, variables)):
        return False
    place = {pair: row for row, pair in enumerate(basis)}
    gram = [[Fraction(0)] * len(basis) for _ in basis]
    for monomial, coefficient in quartic.items():
        for a, b in itertools.permutations(range(4), 2):
            i, j = (monomial[c] for c in range(4) if c not in (a, b))
            k, l = monomial[a], monomial[b]  # noqa: E741 - the second index of v
            for first, second in (((i, k), (j, l)), ((i, l), (j, k))):
                row, column = place[first], place[second]
                gram[row][column] += coefficient / 4
                gram[column][row] += coefficient / 4
    return is_semidefinite(gram)


# -------------------------------------------------------------------------- expansion


class Expander(Products):
    """Writes values of a program as polynomials of the params."""

    def __init__(self, interpreter: Any) -> None:
        """Number the elements of the params that vary."""
        super().__init__()
        self.interpreter = interpreter
        self.known: dict[int, np.ndarray | None] = {}
        self.num_variables = 0
        self.systems = LinearSystems(interpreter)

    def expand(self, number: int) -> np.ndarray | None:
        """Return an array of polynomials, or None where it is none, or too large."""
        program = self.interpreter.program
        variables = sum(
            self.interpreter.values[n].size
            for n in program.params
            if n in self.interpreter.values
            and not self.interpreter.values[n].is_constant
        )
        if variables > _MAX_VARIABLES:
            return None
        try:
            return _without_rows(self._value(number))
        except (NotPolynomial, Unknown):
            return None

    def _value(self, number: int) -> np.ndarray:
        if number not in self.known:
            try:
                self.known[number] = self._new_value(number)
            except (NotPolynomial, Unknown):
                self.known[number] = None
        value = self.known[number]
        if value is None:
            raise NotPolynomial
        return value

    def _new_value(self, number: int) -> np.ndarray:
        array = self.interpreter.values[number]
        self.charge(array.size)
        point = array.point
        if point is not None:
            return each(lambda c: {(): Fraction(float(c))} if c else {}, point)
        equation = self.interpreter.producers.get(number)
        if equation is None:
            if array.is_constant or not all(f.affine for f in array.classes):
                raise NotPolynomial  # a range of data, or the carry of a loop
            start = self.num_variables
            self.num_variables += array.size
            numbers = np.arange(start, self.num_variables).reshape(array.shape)
            return each(lambda k: {(int(k),): Fraction(1)}, numbers)
        return self._equation(equation, number)

    def _equation(self, equation: Any, number: int) -> np.ndarray:
        name, params = equation.primitive, equation.params
        if name in STRUCTURAL:
            return self._moved(equation, number)
        if name == "select_n":
            return self._chosen(equation)
        if name == "triangular_solve":
            given = self._value(equation.inputs[1])
            self.charge(given.size * len(given))
            return self.systems.solved(equation, given)
        if name not in _RULES:
            raise NotPolynomial
        inputs = [_without_rows(self._value(n)) for n in equation.inputs]
        return _RULES[name](self, params, *inputs)

    def _chosen(self, equation: Any) -> np.ndarray:
        """Take the entries that a known predicate names, of two cases."""
        which, *cases = equation.inputs
        taken = self.interpreter.values[which].point
        if taken is None or len(cases) != 2:
            raise NotPolynomial
        no, yes = (_without_rows(self._value(n)) for n in cases)
        return np.where(np.broadcast_to(taken != 0, no.shape), yes, no)

    def _moved(self, equation: Any, number: int) -> np.ndarray:
        where = INDEXED.get(equation.primitive, lambda _: range(0))
        indexed = set(where(len(equation.inputs)))
        arrays = []
        for k, n in enumerate(equation.inputs):
            if k in indexed:
                point = self.interpreter.values[n].point
                if point is None and equation.primitive == "gather":
                    return self.systems.permuted(equation, arrays[0])
                if point is None:
                    raise NotPolynomial
                arrays.append(point.astype(np.int64))
            else:
                arrays.append(self._value(n))
        return move(equation, arrays)[equation.outputs.index(number)]


_RULES: dict[str, Callable[..., np.ndarray]] = {
    "add": lambda e, _, x, y: each(plus, x, y),
    "add_any": lambda e, _, x, y: each(plus, x, y),
    "div": lambda e, _, x, y: each(e.quotient, x, y),
    "dot_general": lambda e, p, x, y: e.contracted(x, y, p["dimension_numbers"]),
    "integer_pow": lambda e, p, x: each(lambda z: e.power(z, p["y"]), x),
    "mul": lambda e, _, x, y: each(e.product, x, y),
    "neg": lambda e, _, x: each(lambda z: plus({}, z, -1), x),
    "reduce_sum": lambda e, p, x: summed(x, tuple(p["axes"])),
    "square": lambda e, _, x: each(lambda z: e.power(z, 2), x),
    "sub": lambda e, _, x, y: each(lambda z, w: plus(z, w, -1), x, y),
}
EXPANDED = frozenset(_RULES)
"""The primitives that keep polynomials, beside the structural ones."""


def _without_rows(entries: np.ndarray) -> np.ndarray:
    """Refuse elements that are not polynomials yet."""
    if any(isinstance(entry, Row) for entry in entries.reshape(-1)):
        raise NotPolynomial
    return entries
