"""Rules of linear algebra on constants: what is certain of factors and of solutions."""

import numpy as np

from phihat.convexity.numbers import intervals as iv
from phihat.convexity.numbers.eigenvalue_bounds import smallest_eigenvalue
from phihat.convexity.numbers.extended import Extended
from phihat.convexity.numbers.intervals import Interval
from phihat.convexity.primitives.values.rule_builders import is_known
from phihat.convexity.program.form import Equation

__all__ = ["cholesky", "lu", "triangular_solve"]

_MAX_SIZE = 512
"""Larger matrices are not bounded."""


def _is_readable(x: Interval) -> bool:
    return not isinstance(x, Extended) and 0 < x.shape[-1] <= _MAX_SIZE


def cholesky(equation: Equation, inputs: list[Interval]) -> list[Interval] | None:
    r"""Bound the factor L of a matrix that is proved positive definite.

    $\sum_j L_{ij}^2 = A_{ii}$ bounds each entry of row i, and $L_{jj}^2$, a Schur
    complement's entry, is at least the least eigenvalue. The primitive reads the lower
    triangle alone, and what it writes above the diagonal means nothing.
    """
    del equation
    (x,) = inputs
    if not _is_readable(x):
        return None

    def mirrored(end: np.ndarray) -> np.ndarray:
        below = np.tril(end, -1)
        return np.tril(end) + np.swapaxes(below, -1, -2)

    matrix = iv.rearrange(mirrored, x)
    least = np.asarray(smallest_eigenvalue(matrix))
    if not np.all(least > 0):
        return None
    size = x.shape[-1]
    floor = iv.sqrt(iv.from_array(least)).low[..., None]
    diagonal = np.diagonal(x.high, axis1=-2, axis2=-1)
    reach = iv.sqrt(iv.from_array(diagonal)).high
    below = np.tril(np.ones((size, size)), -1)
    low, high = -below * reach[..., :, None], below * reach[..., :, None]
    eye = np.eye(size)
    above = np.triu(np.ones((size, size), bool), 1)
    low = np.where(above, -np.inf, low + eye * floor[..., None])
    high = np.where(above, np.inf, high + eye * reach[..., :, None])
    return [Interval(low, high)]


def lu(equation: Equation, inputs: list[Interval]) -> list[Interval] | None:
    """Say that the factors of a matrix proved nonsingular exist, and where pivots lie.

    $A'A$ positive definite means that A is nonsingular, hence PA = LU with U_ii != 0,
    whatever pivots were chosen.
    """
    del equation
    (x,) = inputs
    if not _is_readable(x) or not is_known(x) or x.shape[-1] != x.shape[-2]:
        return None
    gram = iv.matmul(iv.rearrange(lambda end: np.swapaxes(end, -1, -2), x), x)
    if not np.all(np.asarray(smallest_eigenvalue(gram)) > 0):
        return None
    size = x.shape[-1]
    places = Interval(np.zeros(x.shape[:-1]), np.full(x.shape[:-1], size - 1.0))
    return [iv.entire(x.shape), places, places]


def triangular_solve(
    equation: Equation, inputs: list[Interval]
) -> list[Interval] | None:
    """Say that the solution exists where no pivot is zero."""
    matrix, given = inputs
    if isinstance(matrix, Extended) or isinstance(given, Extended):
        return None
    if not equation.params["unit_diagonal"]:
        low, high = (np.diagonal(end, axis1=-2, axis2=-1) for end in matrix)
        if not np.all((low > 0) | (high < 0)):
            return None
    return [iv.entire(given.shape)]


def slogdet(equation: Equation, inputs: list[Interval]) -> list[Interval] | None:
    """Say that log |det A| is a number where A is proved nonsingular."""
    factors = lu(equation, inputs)
    if factors is None:
        return None
    shape = inputs[0].shape[:-2]
    if equation.primitive == "slogdet":
        return [iv.entire(shape)]
    return [Interval(np.full(shape, -1.0), np.full(shape, 1.0))]
