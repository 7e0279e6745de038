"""Solutions of linear systems with a constant matrix, as exact polynomials.

A triangular system is solved over fractions. A full one comes as an LU factorisation:
the rows of the right-hand side are permuted, then a unit lower and an upper triangle
are solved. PA = LU whatever pivots were chosen, so U^-1 L^-1 P b is A^-1 b, and this is
what the last of the three steps gives. In between nothing is known of an element but
which row of which step it is.
"""

from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from phihat.convexity.numbers.polynomials import plus
from phihat.convexity.program.form import Equation
from phihat.convexity.program.structure import Unknown, move

__all__ = ["LinearSystems", "Row"]

_MAX_ORDER = 24
"""Larger matrices are not inverted over fractions."""

_KEPT_IN_ORDER = {
    *("broadcast_in_dim", "convert_element_type", "expand_dims", "reshape", "squeeze"),
}


class Row(NamedTuple):
    """An element of P b, or of L^-1 P b where `is_halfway`.

    Attributes:
      factors: the number of the value that holds L and U.
      is_halfway: whether L is solved already.
      column: which b it is, of those that were permuted.
      place: the row.
    """

    factors: int
    is_halfway: bool
    column: int
    place: int


class LinearSystems:
    """Follows right-hand sides to the solutions of their systems."""

    def __init__(self, interpreter: Any) -> None:
        """Belong to an interpreter, whose values and producers are read."""
        self.interpreter = interpreter
        self.columns: list[np.ndarray] = []
        self.inverses: dict[int, list[list[Fraction]]] = {}

    def permuted(self, equation: Equation, entries: np.ndarray) -> np.ndarray:
        """Name the rows of a right-hand side that a factorisation has permuted.

        Raises:
          Unknown: the rows are not taken in the order of the pivots.
        """
        params, factored = equation.params, self._pivoted(equation.inputs[1])
        (axis, *more) = params["dimension_numbers"].start_index_map
        order = self.interpreter.values[equation.inputs[1]].size
        if more or params["slice_sizes"][axis] != 1 or entries.shape[axis] != order:
            raise Unknown("rows that are not those of a permuted right-hand side")
        identity = np.arange(order).reshape(
            self.interpreter.values[equation.inputs[1]].shape
        )
        numbers = np.arange(entries.size).reshape(entries.shape)
        (taken,) = move(equation, [numbers, identity])
        by_row = np.moveaxis(numbers, axis, 0).reshape(order, -1)
        rows = np.empty(entries.size, object)
        for (place, column), number in np.ndenumerate(by_row):
            at = len(self.columns) + column
            rows[number] = Row(factored.outputs[0], False, at, place)
        flat = entries.reshape(-1)
        self.columns += [flat[column] for column in by_row.T]
        return rows[taken]

    def _pivoted(self, number: int) -> Equation:
        """Return the factorisation whose permutation a value is, element by element."""
        values, producers = self.interpreter.values, self.interpreter.producers
        while number in producers:
            equation = producers[number]
            if equation.primitive == "lu" and number == equation.outputs[2]:
                return equation
            if equation.primitive == "select_n":
                point = values[equation.inputs[0]].point
                if point is None or not point.size or (point != point.flat[0]).any():
                    break
                following = equation.inputs[1 + int(point.flat[0])]
            elif equation.primitive in _KEPT_IN_ORDER:
                following = equation.inputs[0]
            else:
                break
            if values[following].size != values[number].size:
                break
            number = following
        raise Unknown("places that are no permutation of an LU factorisation")

    def solved(self, equation: Equation, entries: np.ndarray) -> np.ndarray:
        """Return the solution of a triangular system.

        Raises:
          Unknown: the matrix is not known, singular or too large.
        """
        params, matrix = equation.params, equation.inputs[0]
        if entries.ndim != 2 or len(entries) > _MAX_ORDER or not params["left_side"]:
            raise Unknown("a system that is not solved over fractions")
        writer = self.interpreter.producers.get(matrix)
        if writer is not None and writer.primitive == "lu":
            return self._by_factors(equation, writer, entries)
        point = self.interpreter.values[matrix].point
        if point is None:
            raise Unknown("a matrix that is not known exactly")
        rows = [list(map(Fraction, map(float, row))) for row in point]
        is_lower = params["lower"]
        if params["transpose_a"]:
            rows, is_lower = list(map(list, zip(*rows, strict=True))), not is_lower
        if params["unit_diagonal"]:
            for k, row in enumerate(rows):
                row[k] = Fraction(1)
        if not all(row[k] for k, row in enumerate(rows)):
            raise Unknown("a triangle with a zero on its diagonal")
        result = np.empty(entries.shape, object)
        order = range(len(rows)) if is_lower else reversed(range(len(rows)))
        done: list[int] = []
        for k in order:
            for column in range(entries.shape[1]):
                total = entries[k, column]
                for j in done:
                    total = plus(total, result[j, column], -rows[k][j])
                result[k, column] = plus({}, total, 1 / rows[k][k])
            done.append(k)
        return result

    def _by_factors(
        self, equation: Equation, writer: Equation, entries: np.ndarray
    ) -> np.ndarray:
        """Solve L, which names rows, or U, which gives A^-1 b."""
        params, (factors, *_) = equation.params, writer.outputs
        is_second = not params["lower"]
        if params["transpose_a"] or params["unit_diagonal"] is is_second:
            raise Unknown("a triangle that is not a factor")
        result = np.empty(entries.shape, object)
        for k, column in enumerate(entries.T):
            at = column[0].column if isinstance(column[0], Row) else -1
            wanted = [Row(factors, is_second, at, j) for j in range(len(column))]
            if list(column) != wanted:
                raise Unknown("a right-hand side that is not permuted")
            if is_second:
                result[:, k] = self._product(writer, self.columns[at])
            else:
                result[:, k] = [row._replace(is_halfway=True) for row in wanted]
        return result

    def _product(self, writer: Equation, column: np.ndarray) -> list[Any]:
        """Multiply a right-hand side by the inverse of what was factored."""
        factors, matrix = writer.outputs[0], writer.inputs[0]
        if factors not in self.inverses:
            point = self.interpreter.values[matrix].point
            if point is None:
                raise Unknown("a matrix that is not known exactly")
            self.inverses[factors] = _inverse(point)
        result = []
        for row in self.inverses[factors]:
            total: Any = {}
            for factor, entry in zip(row, column, strict=True):
                total = plus(total, entry, factor)
            result.append(total)
        return result


def _inverse(matrix: np.ndarray) -> list[list[Fraction]]:
    """Invert exactly, by elimination with any pivot that is not zero."""
    size = len(matrix)
    rows = [
        [*map(Fraction, map(float, row)), *(Fraction(j == k) for j in range(size))]
        for k, row in enumerate(matrix)
    ]
    for k in range(size):
        pivot = next((j for j in range(k, size) if rows[j][k]), None)
        if pivot is None:
            raise Unknown("a singular matrix")
        rows[k], rows[pivot] = rows[pivot], rows[k]
        rows[k] = [entry / rows[k][k] for entry in rows[k]]
        for j, row in enumerate(rows):
            if j != k and row[k]:
                factor = row[k]
                rows[j] = [a - factor * b for a, b in zip(row, rows[k], strict=True)]
    return [row[size:] for row in rows]
