r"""Symmetric systems of few unknowns, solved without LAPACK so that lanes map well.

`solve` solves $(M + \lambda I)\, x = y$ for a positive semidefinite $M$. Up to 8
unknowns it is written out entry by entry: under `jax.vmap` every entry is a vector over
the lanes. Up to 32 it loops over the pivots; beyond it calls LAPACK.
"""

import functools
import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import cho_factor, cho_solve
from jaxtyping import Array, Float

__all__ = ["diagonal", "identity", "matmul", "norm", "solve"]

Vector = Float[Array, " P"]
Matrix = Float[Array, "P P"]
Scalar = Float[Array, ""]

UNROLLED = 8
"""Up to here systems are written out entry by entry."""

LOOPED = 32
"""Up to here the pivots are eliminated in a loop."""


def solve(matrix: Matrix, right: Vector, damping: Any) -> tuple[Vector, Scalar]:
    r"""Solve $(M + \lambda I)\, x = y$; an unknown without a pivot of its own is 0.

    A pivot of at most P eps of its original diagonal entry counts as zero: that unknown
    depends on those before it. (Beyond 32 unknowns P eps of the identity is added
    instead.)

    Args:
      matrix: M [P, P], symmetric, positive semidefinite, with a diagonal of about one.
      right: y [P].
      damping: $\lambda \ge 0$, [].

    Returns:
      x [P], and the scalar $x^\top (M + \lambda I)^{-1} x$.
    """
    size = right.shape[0]
    if size <= UNROLLED:
        return _solve_unrolled(matrix, right, damping)
    if size <= LOOPED:
        inverse = _invert(matrix + damping * identity(size, matrix.dtype))
        solution = matmul(inverse, right)
        return solution, jnp.sum(solution * matmul(inverse, solution))
    shift = jnp.maximum(damping, size * float(jnp.finfo(matrix.dtype).eps))
    factor = cho_factor(matrix + shift * identity(size, matrix.dtype))
    solution = cho_solve(factor, right)
    return solution, jnp.sum(solution * cho_solve(factor, solution))


def matmul(matrix: Matrix, vector: Vector) -> Vector:
    """Multiply; as a sum of products where few, which lanes share better than a dot."""
    if vector.shape[0] <= LOOPED:
        return jnp.sum(matrix * vector[None, :], axis=1)
    return jnp.matmul(matrix, vector, precision=jax.lax.Precision.HIGHEST)


def identity(size: int, dtype: Any) -> Matrix:
    """Return the identity; where it is small a constant, and not computed each time."""
    if size <= LOOPED:
        return jnp.asarray(np.eye(size), dtype)
    return jnp.eye(size, dtype=dtype)


def diagonal(matrix: Matrix) -> Vector:
    """Return the diagonal of a square matrix, as a slice with a stride."""
    return matrix.reshape(-1)[:: matrix.shape[0] + 1]


def norm(vector: Vector) -> Scalar:
    """Return the Euclidean norm."""
    return jnp.sqrt(jnp.sum(vector * vector))


# ------------------------------------------------------------------------- private


def _solve_unrolled(
    matrix: Matrix, right: Vector, damping: Any
) -> tuple[Vector, Scalar]:
    """Factor L D L' with a unit lower L, and substitute, all in scalars."""
    size = right.shape[0]
    smallest = size * float(jnp.finfo(matrix.dtype).eps)
    lower: list[list[Any]] = [[None] * size for _ in range(size)]
    scaled: list[list[Any]] = [[None] * size for _ in range(size)]  # L D
    inverses: list[Any] = [None] * size
    for j in range(size):
        original = matrix[j, j] + damping
        pivot = original
        for k in range(j):
            pivot = pivot - scaled[j][k] * lower[j][k]
        # The inverse of infinity is zero, and so is the column of such an unknown.
        inverses[j] = 1.0 / jnp.where(pivot > smallest * original, pivot, jnp.inf)
        for i in range(j + 1, size):
            entry = matrix[i, j]
            for k in range(j):
                entry = entry - scaled[i][k] * lower[j][k]
            scaled[i][j] = entry
            lower[i][j] = entry * inverses[j]

    def forward(entries: list[Any]) -> list[Any]:
        found: list[Any] = []
        for i in range(size):
            entry = entries[i]
            for k in range(i):
                entry = entry - lower[i][k] * found[k]
            found.append(entry)
        return found

    halfway = forward([right[i] for i in range(size)])
    solution: list[Any] = [None] * size
    for i in reversed(range(size)):
        entry = halfway[i] * inverses[i]
        for k in range(i + 1, size):
            entry = entry - lower[k][i] * solution[k]
        solution[i] = entry
    again = forward(solution)
    squares = [again[i] * again[i] * inverses[i] for i in range(size)]
    return jnp.stack(solution), functools.reduce(operator.add, squares)


def _invert(matrix: Matrix) -> Matrix:
    """Sweep out every pivot in turn (Goodnight 1979); rows without one become zero."""
    size = matrix.shape[0]
    smallest = size * float(jnp.finfo(matrix.dtype).eps) * diagonal(matrix)
    places = jnp.arange(size)

    def sweep(k: Any, carry: tuple[Matrix, Array]) -> tuple[Matrix, Array]:
        swept, is_done = carry
        pivot = swept[k, k]
        is_own = pivot > smallest[k]
        inverse = 1.0 / jnp.where(is_own, pivot, 1.0)
        is_k = places == k
        column = jnp.where(is_k, -1.0, swept[:, k])
        row = jnp.where(is_k, 1.0, swept[k]) * inverse
        rest = jnp.where(is_k[:, None] | is_k[None, :], 0.0, swept)
        rest = rest - column[:, None] * row[None, :]
        return jnp.where(is_own, rest, swept), is_done | (is_k & is_own)

    # After all sweeps the array holds the inverse among the pivots that were swept.
    swept, is_done = jax.lax.fori_loop(0, size, sweep, (matrix, jnp.zeros(size, bool)))
    return jnp.where(is_done[:, None] & is_done[None, :], swept, 0.0)
