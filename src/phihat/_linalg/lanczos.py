"""The lower end of a spectrum by Lanczos's method."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

__all__ = ["Eigenpair", "smallest_eigenpair"]

Vector = Float[Array, " P"]
Scalar = Float[Array, ""]
Product = Callable[[Vector], Vector]


class Eigenpair(NamedTuple):
    """The smallest eigenvalue, its unit eigenvector, and the largest |eigenvalue|."""

    value: Scalar
    vector: Vector
    largest: Scalar


def smallest_eigenpair(product_fn: Product, start: Vector, num_steps: int) -> Eigenpair:
    """Estimate the lower end of a spectrum by Lanczos; exact for `num_steps` = P."""
    dtype = start.dtype
    num_steps = min(num_steps, start.size)

    def advance(step: Any, carry: Any) -> Any:
        basis, diagonal, off_diagonal = carry
        product = product_fn(basis[step])
        diagonal = diagonal.at[step].set(basis[step] @ product)
        for _ in range(2):  # twice is enough
            product = product - basis.T @ (basis @ product)
        norm = jnp.linalg.norm(product)
        # After an invariant subspace zeros follow, whose eigenvalue is zero.
        is_new = norm > 10 * jnp.finfo(dtype).eps * jnp.max(jnp.abs(diagonal))
        unit = jnp.where(is_new, product / jnp.where(is_new, norm, 1.0), 0.0)
        off_diagonal = off_diagonal.at[step].set(jnp.where(is_new, norm, 0.0))
        return basis.at[step + 1].set(unit), diagonal, off_diagonal

    basis = jnp.zeros((num_steps + 1, start.size), dtype)
    basis = basis.at[0].set(start / jnp.linalg.norm(start))
    zeros = jnp.zeros(num_steps, dtype)
    basis, diagonal, off_diagonal = jax.lax.fori_loop(
        0, num_steps, advance, (basis, zeros, zeros)
    )
    tridiagonal = (
        jnp.diag(diagonal)
        + jnp.diag(off_diagonal[:-1], 1)
        + jnp.diag(off_diagonal[:-1], -1)
    )
    values, vectors = jnp.linalg.eigh(tridiagonal)
    vector = basis[:-1].T @ vectors[:, 0]
    norm = jnp.linalg.norm(vector)
    return Eigenpair(
        value=values[0],
        vector=vector / jnp.where(norm > 0, norm, 1.0),
        largest=jnp.max(jnp.abs(values)),
    )
