"""Dense Hessians and Jacobians of functions of a vector, and their lowest eigenpair."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from phihat._linalg import small as _small

__all__ = ["check_size", "columns", "dense_hessian", "dense_jacobian", "eigh"]

Vector = Float[Array, " P"]
Scalar = Float[Array, ""]

_MAX_BYTES = 2**30
"""The largest Hessian or Jacobian that is formed."""

_FEW = 256
"""Columns that are computed at once."""

_BLOCK = 64
"""Columns at once where there are more: each holds a network's activations."""


def dense_hessian(
    gradient_fn: Callable[[Vector], Vector], point: Vector
) -> Float[Array, "P P"]:
    """Return the Hessian, the symmetric Jacobian of a gradient."""
    matrix = columns(jax.linearize(gradient_fn, point)[1], point)
    return 0.5 * (matrix + matrix.T)


def columns(product_fn: Callable[[Vector], Any], point: Vector) -> Any:
    """Return the products of a linear function with every unit vector, stacked."""
    size, dtype = point.size, point.dtype
    if size <= _FEW:
        return jax.vmap(product_fn)(_small.identity(size, dtype))
    places = jnp.arange(size)
    column = lambda place: product_fn((places == place).astype(dtype))  # noqa: E731
    return jax.lax.map(column, places, batch_size=_BLOCK)


def eigh(matrix: Float[Array, "P P"]) -> tuple[Vector, Float[Array, "P P"]]:
    """Decompose a symmetric matrix; all NaN where an entry is infinite or NaN."""
    # LAPACK promises nothing about such entries, not even that it ends.
    is_finite = jnp.all(jnp.isfinite(matrix))
    values, vectors = jnp.linalg.eigh(jnp.where(is_finite, matrix, 0.0))
    blank = jnp.where(is_finite, 0.0, jnp.nan).astype(matrix.dtype)
    return values + blank, vectors + blank


def dense_jacobian(
    flat_fn: Callable[[Vector], Float[Array, " N"]], point: Vector
) -> Float[Array, "N P"]:
    """Return the Jacobian, by the mode that needs fewer passes."""
    num_residuals = jax.eval_shape(flat_fn, point).size
    jacobian = jax.jacfwd if point.size <= num_residuals else jax.jacrev
    return jacobian(flat_fn)(point)


def check_size(call: str, matrix: str, num_rows: int, point: Vector) -> None:
    """Refuse a matrix that is too large to be formed."""
    num_bytes = num_rows * point.size * point.dtype.itemsize
    if num_bytes > _MAX_BYTES:
        raise ValueError(
            f"{call}: a dense {matrix} of {point.size} params takes "
            f"{num_bytes:,} bytes, more than {_MAX_BYTES:,}; use `newton_cg`, which "
            "needs only products with the Hessian."
        )
