"""The kernel on linear systems with a constant matrix, solved over fractions.

A factorisation is PA = LU, so that solving with L and then with U what P has permuted
gives A^-1 b. Each unknown in between is a variable of its own, which is sound wherever
it shows: it is affine in the params.
"""

import itertools
from fractions import Fraction
from typing import Any

import numpy as np

from phihat.convexity.kernel.facts import Refused
from phihat.convexity.numbers.polynomials import Polynomial, plus
from phihat.convexity.program.form import Equation

__all__ = ["Pivots", "solution", "triangle"]

_MOST = 24


def solution(matrix: list[list[Fraction]], given: list[Polynomial]) -> list[Polynomial]:
    """Solve by eliminating one unknown after the other; a zero column is refused."""
    if not matrix:
        return []
    k = next((k for k, row in enumerate(matrix) if row[0]), None)
    if k is None:
        raise Refused("a singular system")
    pivot, right = matrix[k], given[k]
    rows, rest = [], []
    others = zip(matrix[:k] + matrix[k + 1 :], given[:k] + given[k + 1 :], strict=True)
    for row, b in others:
        factor = row[0] / pivot[0]
        rows.append([c - factor * d for c, d in zip(row[1:], pivot[1:], strict=True)])
        rest.append(plus(b, right, -factor))
    known = solution(rows, rest)
    for c, x in zip(pivot[1:], known, strict=True):
        right = plus(right, x, -c)
    return [plus({}, right, 1 / pivot[0]), *known]


def triangle(point: Any, params: Any) -> list[list[Fraction]]:
    """Return the matrix that a triangular system means: the triangle that is read."""
    if point is None or point.ndim != 2 or len(point) > _MOST:
        raise Refused("a triangle that is not known exactly, or too large")
    size = len(point)
    rows = [[Fraction(0)] * size for _ in range(size)]
    for i, j in itertools.product(range(size), repeat=2):
        if i == j:
            rows[i][j] = Fraction(1 if params["unit_diagonal"] else float(point[i, j]))
        elif (i > j) == params["lower"]:
            rows[i][j] = Fraction(float(point[i, j]))
    return [list(c) for c in zip(*rows, strict=True)] if params["transpose_a"] else rows


class Pivots:
    """The right-hand sides of one expansion that a factorisation has permuted."""

    def __init__(self, checker: Any) -> None:
        """Start without any."""
        self.checker = checker
        self.meaning: dict[int, tuple[int, str, int, int]] = {}
        self.sides: list[list[Polynomial]] = []

    def _new_symbol(self, *meaning: Any) -> Polynomial:
        n = -1 - len(self.meaning)
        self.meaning[n] = meaning
        return {(n,): Fraction(1)}

    def permuted(self, equation: Equation, given: np.ndarray) -> np.ndarray:
        """Name the rows of P b, where the places are the pivots of a factorisation."""
        places = equation.inputs[1]
        dims, sizes = equation.params["dimension_numbers"], equation.params
        if len(dims.start_index_map) != 1 or any(
            len(p) > 1 for e in given.reshape(-1) for p in e
        ):
            raise Refused("rows that are not permuted, or not affine")
        axis = int(dims.start_index_map[0])
        size = given.shape[axis]
        if sizes["slice_sizes"][axis] != 1 or self.checker.values[places].size != size:
            raise Refused("rows that are not permuted")
        factors = self._factors(places)
        lines = np.moveaxis(given, axis, 0).reshape(size, -1)
        names = np.empty_like(lines)
        for j in range(lines.shape[1]):
            for i in range(size):
                names[i, j] = self._new_symbol(factors, "Pb", len(self.sides), i)
            self.sides.append(list(lines[:, j]))
        shape = np.moveaxis(given, axis, 0).shape
        named = np.moveaxis(names.reshape(shape), 0, axis).reshape(-1)
        order = np.arange(size).reshape(self.checker.values[places].shape)
        numbers = np.arange(given.size).reshape(given.shape)
        taken = np.asarray(equation.bind(numbers, order, **equation.params))  # type: ignore
        if taken.size != given.size or (np.sort(taken, None) != numbers.ravel()).any():
            raise Refused("some rows are left out")
        return named[taken.reshape(-1)].reshape(taken.shape)

    def _factors(self, n: int) -> int:
        """Return the factors to which a permutation belongs, read element by element.

        jax adds the length to places below 0, of which there are none.
        """
        checker = self.checker
        for _ in range(16):
            writer = checker.writers.get(n)
            if writer is None:
                break
            if writer.primitive == "lu":
                if n == writer.outputs[2]:
                    return writer.outputs[0]
                break
            if writer.primitive == "select_n" and len(writer.inputs) == 3:
                which = checker.values[writer.inputs[0]].known
                if not which.is_point or which.low not in (0.0, 1.0):
                    break
                before = writer.inputs[1 + int(which.low)]
            elif writer.primitive in ("broadcast_in_dim", "reshape", "expand_dims"):
                (before,) = writer.inputs
            else:
                break
            if checker.values[before].size != checker.values[n].size:
                break
            n = before
        raise Refused("places that are not those of pivots")

    def solved(self, equation: Equation, given: np.ndarray) -> np.ndarray:
        """Solve a triangle, or one factor of a factorisation."""
        params, n = equation.params, equation.inputs[0]
        if given.ndim != 2 or not params["left_side"] or len(given) > _MOST:
            raise Refused("a system that is not solved over fractions")
        writer, values = self.checker.writers.get(n), self.checker.values
        result = np.empty(given.shape, object)
        if writer is None or writer.primitive != "lu":
            rows = triangle(values[n].point, params)
            for j, column in enumerate(given.T):
                result[:, j] = solution(rows, list(column))
            return result
        how = (params["lower"], params["unit_diagonal"], params["transpose_a"])
        if how not in ((True, True, False), (False, False, False)):
            raise Refused("not a factor of a factorisation")
        step = "Pb" if params["lower"] else "L^-1 Pb"
        for j, column in enumerate(given.T):
            side = self._right_hand_side(writer.outputs[0], step, list(column))
            if params["lower"]:
                result[:, j] = [
                    self._new_symbol(writer.outputs[0], "L^-1 Pb", side, i)
                    for i in range(len(column))
                ]
            else:
                point = values[writer.inputs[0]].point
                if point is None or point.shape != (len(column),) * 2:
                    raise Refused("a matrix that is not known exactly")
                rows = [list(map(Fraction, map(float, row))) for row in point]
                result[:, j] = solution(rows, self.sides[side])
        return result

    def _right_hand_side(
        self, factors: int, step: str, column: list[Polynomial]
    ) -> int:
        """Return which right-hand side a column is, complete and in its order."""
        found = set()
        for i, entry in enumerate(column):
            ((monomial, c),) = entry.items() if len(entry) == 1 else (((), 0),)
            named = self.meaning.get(monomial[0]) if len(monomial) == 1 else None
            if c != 1 or named is None or named != (factors, step, named[2], i):
                raise Refused("not what was permuted")
            found.add(named[2])
        if len(found) != 1:
            raise Refused("rows of several right-hand sides")
        return found.pop()
