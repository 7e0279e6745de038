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
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from phihat.convexity.program.structure import INDEXED, STRUCTURAL, Unknown, move
from phihat.convexity.prover.linear_systems import LinearSystems, Row

__all__ = [
    "EXPANDED",
    "Expander",
    "Polynomial",
    "TooLarge",
    "add",
    "degree",
    "is_convex",
    "is_semidefinite",
    "is_sum_of_squares",
    "multiply",
    "scaled",
    "variable",
]

Monomial = tuple[int, ...]
Polynomial = Mapping[Monomial, Fraction]
"""Coefficients by monomial; x0^2 x3 is (0, 0, 3)."""

_MAX_DEGREE = 4
_MAX_TERMS = 400_000
"""Products of coefficients that one program may cost."""

_MAX_VARIABLES = 64
_MAX_GRAM = 60


class TooLarge(Exception):
    """The polynomial has too many terms, or is none."""


# --------------------------------------------------------------------- arithmetic


def variable(number: int) -> Polynomial:
    """Return the polynomial x_number."""
    return {(number,): Fraction(1)}


def add(x: Polynomial, y: Polynomial) -> Polynomial:
    """Return x + y."""
    total = dict(x)
    for monomial, coefficient in y.items():
        value = total.get(monomial, Fraction(0)) + coefficient
        if value:
            total[monomial] = value
        else:
            total.pop(monomial, None)
    return total


def scaled(c: Fraction, x: Polynomial) -> Polynomial:
    """Return c x."""
    return {monomial: c * value for monomial, value in x.items()} if c else {}


def multiply(x: Polynomial, y: Polynomial) -> Polynomial:
    """Return x y."""
    total: dict[Monomial, Fraction] = {}
    for (m, a), (n, b) in itertools.product(x.items(), y.items()):
        monomial = tuple(sorted(m + n))
        total[monomial] = total.get(monomial, Fraction(0)) + a * b
    return {monomial: value for monomial, value in total.items() if value}


def degree(x: Polynomial) -> int:
    """Return the degree; 0 for constants."""
    return max(map(len, x), default=0)


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


class Expander:
    """Writes values of a program as polynomials of the params."""

    def __init__(self, interpreter: Any) -> None:
        """Number the elements of the params that vary."""
        self.interpreter = interpreter
        self.known: dict[int, np.ndarray | None] = {}
        self.cost = 0
        self.num_variables = 0
        self.systems = LinearSystems(interpreter, add, scaled)

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
        except (TooLarge, Unknown):
            return None

    def _value(self, number: int) -> np.ndarray:
        if number not in self.known:
            try:
                self.known[number] = self._new_value(number)
            except (TooLarge, Unknown):
                self.known[number] = None
        value = self.known[number]
        if value is None:
            raise TooLarge
        return value

    def _new_value(self, number: int) -> np.ndarray:
        array = self.interpreter.values[number]
        self._count_terms(array.size)
        point = array.point
        if point is not None:
            return _mapped(
                lambda c: scaled(Fraction(float(c)), {(): Fraction(1)}), point
            )
        equation = self.interpreter.producers.get(number)
        if equation is None:
            if array.is_constant or not all(f.affine for f in array.classes):
                raise TooLarge  # a range of data, or the carry of a loop
            start = self.num_variables
            self.num_variables += array.size
            numbers = np.arange(start, self.num_variables).reshape(array.shape)
            return _mapped(lambda k: variable(int(k)), numbers)
        return self._equation(equation, number)

    def _equation(self, equation: Any, number: int) -> np.ndarray:
        name, params = equation.primitive, equation.params
        if name in STRUCTURAL:
            return self._moved(equation, number)
        if name == "select_n":
            return self._chosen(equation)
        if name == "triangular_solve":
            given = self._value(equation.inputs[1])
            self._count_terms(given.size * len(given))
            return self.systems.solved(equation, given)
        if name not in EXPANDED:
            raise TooLarge
        inputs = [_without_rows(self._value(n)) for n in equation.inputs]
        if name in ("add", "add_any"):
            return _paired(add, *inputs)
        if name == "sub":
            return _paired(lambda x, y: add(x, scaled(Fraction(-1), y)), *inputs)
        if name == "neg":
            return _mapped(lambda x: scaled(Fraction(-1), x), inputs[0])
        if name == "mul":
            return _paired(self._product, *inputs)
        if name == "div":
            return _paired(self._quotient, *inputs)
        if name in ("square", "integer_pow"):
            exponent = 2 if name == "square" else params["y"]
            return _mapped(lambda x: self._power(x, exponent), inputs[0])
        if name == "reduce_sum":
            return _summed(inputs[0], tuple(params["axes"]))
        return self._dot(equation, *inputs)

    def _chosen(self, equation: Any) -> np.ndarray:
        """Take the entries that a known predicate names, of two cases."""
        which, *cases = equation.inputs
        taken = self.interpreter.values[which].point
        if taken is None or len(cases) != 2:
            raise TooLarge
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
                    raise TooLarge
                arrays.append(point.astype(np.int64))
            else:
                arrays.append(self._value(n))
        return move(equation, arrays)[equation.outputs.index(number)]

    def _count_terms(self, amount: int) -> None:
        self.cost += amount
        if self.cost > _MAX_TERMS:
            raise TooLarge

    def _product(self, x: Polynomial, y: Polynomial) -> Polynomial:
        self._count_terms(len(x) * len(y))
        if degree(x) + degree(y) > _MAX_DEGREE:
            raise TooLarge
        return multiply(x, y)

    def _quotient(self, x: Polynomial, y: Polynomial) -> Polynomial:
        if degree(y) > 0 or not y:
            raise TooLarge
        return scaled(1 / y[()], x)

    def _power(self, x: Polynomial, exponent: int) -> Polynomial:
        if exponent < 0 or degree(x) * exponent > _MAX_DEGREE:
            raise TooLarge
        result: Polynomial = {(): Fraction(1)}
        for _ in range(exponent):
            result = self._product(result, x)
        return result

    def _dot(self, equation: Any, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        (contract_x, contract_y), (batch_x, batch_y) = equation.params[
            "dimension_numbers"
        ]
        if batch_x or batch_y:
            raise TooLarge
        left = np.moveaxis(x, contract_x, range(-len(contract_x), 0))
        right = np.moveaxis(y, contract_y, range(-len(contract_y), 0))
        depth = int(np.prod([x.shape[k] for k in contract_x], dtype=int))
        shape = (
            *left.shape[: left.ndim - len(contract_x)],
            *right.shape[: right.ndim - len(contract_y)],
        )
        left, right = left.reshape(-1, depth), right.reshape(-1, depth)
        result = np.empty((len(left), len(right)), object)
        for i, row in enumerate(left):
            for j, column in enumerate(right):
                total: Polynomial = {}
                for a, b in zip(row, column, strict=True):
                    if a and b:
                        total = add(total, self._product(a, b))
                result[i, j] = total
        return result.reshape(shape)


EXPANDED = {
    "add",
    "add_any",
    "div",
    "dot_general",
    "integer_pow",
    "mul",
    "neg",
    "reduce_sum",
    "square",
    "sub",
}
"""The primitives that keep polynomials, beside the structural ones."""


def _without_rows(entries: np.ndarray) -> np.ndarray:
    """Refuse elements that are not polynomials yet."""
    if any(isinstance(entry, Row) for entry in entries.reshape(-1)):
        raise TooLarge
    return entries


def _mapped(function: Any, array: np.ndarray) -> np.ndarray:
    result = np.empty(array.shape, object)
    flat = result.reshape(-1)
    for k, entry in enumerate(array.reshape(-1)):
        flat[k] = function(entry)
    return flat.reshape(array.shape)


def _paired(function: Any, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    spread = np.broadcast_arrays(x, y)
    result = np.empty(spread[0].size, object)
    for k, (a, b) in enumerate(
        zip(spread[0].reshape(-1), spread[1].reshape(-1), strict=True)
    ):
        result[k] = function(a, b)
    return result.reshape(spread[0].shape)


def _summed(x: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    kept = [n for k, n in enumerate(x.shape) if k not in axes]
    moved = np.moveaxis(x, axes, range(-len(axes), 0)) if axes else x
    members = int(np.prod([x.shape[k] for k in axes], dtype=int))
    rows = moved.reshape(int(np.prod(kept, dtype=int)), members)
    result = np.empty(len(rows), object)
    for k, row in enumerate(rows):
        total: Polynomial = {}
        for entry in row:
            total = add(total, entry)
        result[k] = total
    return result.reshape(kept)
