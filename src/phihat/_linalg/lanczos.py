"""Lanczos' method on flat vectors: a few products stand for a large symmetric matrix.

After K products A is known on a Krylov space: `A Q' = Q' T + beta r e_K'`, with
orthonormal rows Q [K, P] and a tridiagonal T [K, K], whose eigenvalues (Ritz values)
settle first at both ends of the spectrum of A.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from phihat._linalg.dense_hessian import eigh

__all__ = ["Ritz", "ritz"]

Vector = Float[Array, " P"]


class Ritz(NamedTuple):
    """What K products tell of a symmetric matrix.

    Attributes:
      values: Ritz values [K], ascending.
      coefficients: their vectors in the basis, columns of [K, K].
      basis: orthonormal rows [K, P]; the first is the normalised start.
      errors: [K]: within this distance of each Ritz value lies an eigenvalue, apart
        from rounding.
    """

    values: Float[Array, " K"]
    coefficients: Float[Array, "K K"]
    basis: Float[Array, "K P"]
    errors: Float[Array, " K"]


def ritz(
    product_fn: Callable[[Vector], Vector], start: Vector, num_iterations: int
) -> Ritz:
    """Run Lanczos' method with full reorthogonalisation, twice per product.

    Where the Krylov space is exhausted early (few distinct eigenvalues; a zero matrix)
    it goes on with a fresh direction, so every Ritz value is genuine.

    Args:
      product_fn: `v -> A v`, A [P, P] symmetric.
      start: any vector but zero [P].
      num_iterations: K, at most P.
    """
    num_params, dtype = start.shape[0], start.dtype
    tiny = 10 * float(jnp.finfo(dtype).eps) * num_params**0.5

    def clean(basis: Array, vector: Vector) -> Vector:
        return vector - (basis @ vector) @ basis

    def step(
        carry: tuple[Array, Vector, Array], position: Array
    ) -> tuple[tuple[Array, Vector, Array], tuple[Array, Array]]:
        basis, vector, scale = carry
        basis = basis.at[position].set(vector)
        image = product_fn(vector)
        alpha = vector @ image
        rest = clean(basis, image)
        scale = jnp.maximum(scale, jnp.linalg.norm(image))
        is_exhausted = jnp.linalg.norm(rest) <= tiny * scale
        # A rolled copy of the start is as good as a new random vector, and free.
        rest = jnp.where(is_exhausted, jnp.roll(start, position + 1), rest)
        rest = clean(basis, clean(basis, rest))
        length = jnp.linalg.norm(rest)
        beta = jnp.where(is_exhausted, 0.0, length)
        # The last round of a full basis leaves no direction at all.
        vector = rest / jnp.where(length > 0, length, 1.0)
        return (basis, vector, scale), (alpha, beta)

    basis = jnp.zeros((num_iterations, num_params), dtype)
    init = basis, start / jnp.linalg.norm(start), jnp.zeros((), dtype)
    positions = jnp.arange(num_iterations)
    (basis, _, _), (alpha, beta) = jax.lax.scan(step, init, positions)
    tridiagonal = jnp.diag(alpha) + jnp.diag(beta[:-1], 1) + jnp.diag(beta[:-1], -1)
    values, coefficients = eigh(tridiagonal)
    return Ritz(
        values=values,
        coefficients=coefficients,
        basis=basis,
        errors=jnp.abs(beta[-1] * coefficients[-1]),
    )
