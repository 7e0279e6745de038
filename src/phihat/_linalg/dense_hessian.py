"""Dense Hessians and Jacobians of functions of a vector, and their lowest eigenpair."""

from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array, Float

from phihat._linalg import small as _small

__all__ = ["check_size", "columns", "dense_hessian", "dense_jacobian"]

Vector = Float[Array, " P"]
Scalar = Float[Array, ""]

_MAX_BYTES = 2**30
"""The largest Hessian or Jacobian that is formed."""

_BLOCK = 256
"""Columns that are computed at once."""


def dense_hessian(
    flat_fn: Callable[[Vector], Scalar], point: Vector
) -> Float[Array, "P P"]:
    """Return the Hessian, some columns at a time: all tangents at once may not fit."""
    return columns(jax.linearize(jax.grad(flat_fn), point)[1], point)


def columns(product_fn: Callable[[Vector], Any], point: Vector) -> Any:
    """Return the products of a linear function with every unit vector, stacked."""
    units = _small.identity(point.size, point.dtype)
    if point.size <= _BLOCK:
        return jax.vmap(product_fn)(units)
    return jax.lax.map(product_fn, units, batch_size=_BLOCK)


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
