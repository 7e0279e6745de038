"""Both ends of the Hessian's spectrum, from Hessian-vector products alone."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from phihat import products
from phihat._core import calls as _calls
from phihat._core import tables as _tables
from phihat._core import tree as _tree
from phihat._core.programs import Mode
from phihat._core.types import Batch, LossFn, Params, RandomKey
from phihat._linalg.dense_hessian import eigh
from phihat._linalg.lanczos import ritz
from phihat.curvature import _core
from phihat.curvature._core import DENSE_SIZE

__all__ = ["ExtremeEigenvalues", "extreme_eigenvalues", "sharpness"]


class ExtremeEigenvalues(NamedTuple):
    """Both ends of the Hessian's spectrum, with their evidence.

    Attributes:
      smallest: the smallest eigenvalue found.
      largest: the largest.
      smallest_vector: its eigenvector of length 1, a pytree like the params.
      largest_vector: likewise.
      smallest_error: the measured residual `|H v - smallest v|`: an eigenvalue of H
        lies within this distance of it.
      largest_error: likewise.
    """

    smallest: Float[Array, ""]
    largest: Float[Array, ""]
    smallest_vector: Params
    largest_vector: Params
    smallest_error: Float[Array, ""]
    largest_error: Float[Array, ""]

    def __repr__(self) -> str:
        """Show the eigenvalues and their errors; the vectors may be long."""
        return (
            f"ExtremeEigenvalues(smallest={_tables.short(self.smallest)} +- "
            f"{_tables.short(self.smallest_error)}, "
            f"largest={_tables.short(self.largest)} +- "
            f"{_tables.short(self.largest_error)})"
        )


@_calls.public
def sharpness(
    loss_fn: LossFn,
    params: Params,
    data: Batch = None,
    *,
    num_iterations: int = 40,
    dense_size: int = DENSE_SIZE,
    key: RandomKey | None = None,
) -> Float[Array, ""]:
    r"""Return the largest eigenvalue of the Hessian.

    Gradient descent on a quadratic diverges at rates above 2 / sharpness. The result is
    `extreme_eigenvalues(...).largest`; ask that for its residual.

    Args:
      loss_fn: as for `hessian`.
      params: any pytree of float arrays.
      data: handed to `loss_fn`.
      num_iterations: as for `extreme_eigenvalues`.
      dense_size: likewise.
      key: likewise.

    Returns:
      A scalar; NaN where the Hessian is not finite. Its derivative is exact: that of
      the quotient at the eigenvector, which is stationary.

    Raises:
      TypeError: as for `hessian`.
      ValueError: as for `extreme_eigenvalues`.

    Example:
      >>> print(sharpness(lambda p: p[0] ** 2 - 2.0 * p[1] ** 2, jnp.ones(2)))
      2.0
    """
    options = _core.lanczos_options(
        "sharpness", params, num_iterations, dense_size, key
    )
    return _core.run(
        _extreme_eigenvalues, "sharpness", loss_fn, params, data, *options
    ).largest


@_calls.public
def extreme_eigenvalues(
    loss_fn: LossFn,
    params: Params,
    data: Batch = None,
    *,
    num_iterations: int = 40,
    dense_size: int = DENSE_SIZE,
    key: RandomKey | None = None,
) -> ExtremeEigenvalues:
    r"""Return the smallest and the largest eigenvalue of the Hessian, with residuals.

    By Lanczos' method from a random start, fully reorthogonalised: K products and a
    basis of K x P numbers, in one program. Within each reported error of each reported
    value there is an eigenvalue for certain; that it is the extreme one is as good as
    certain for a random start, but not proved.

    Args:
      loss_fn: as for `hessian`.
      params: any pytree of float arrays, at least one number.
      data: handed to `loss_fn`.
      num_iterations: K, >= 1; more where the residuals are too large.
      dense_size: up to this many params the dense Hessian is decomposed instead.
      key: draws the start; `jax.random.key(0)` where it is None.

    Raises:
      TypeError: as for `hessian`.
      ValueError: `num_iterations` below 1, no params at all, or as for `hvp`.

    Example:
      >>> ends = extreme_eigenvalues(lambda p: p[0] ** 2 - 2.0 * p[1] ** 2, jnp.ones(2))
      >>> print(ends.smallest, ends.largest)
      -4.0 2.0

    References:
      Lanczos, *An iteration method for the solution of the eigenvalue problem*, 1950.
    """
    call = "extreme_eigenvalues"
    options = _core.lanczos_options(call, params, num_iterations, dense_size, key)
    return _core.run(_extreme_eigenvalues, call, loss_fn, params, data, *options)


def _extreme_eigenvalues(
    loss_fn: LossFn,
    options: tuple[Any, ...],
    mode: Mode,
    params: Params,
    data: Batch,
    key: RandomKey,
) -> ExtremeEigenvalues:
    call, num_iterations, is_dense = options
    flat, unflatten = products.flatten(params)
    # The quotient is stationary at an eigenvector, so no derivative goes through it.
    # A function among the leaves, such as an activation, is none to stop.
    fixed_fn, point = jax.tree.map(
        lambda leaf: jax.lax.stop_gradient(leaf) if _tree.is_number(leaf) else leaf,
        (loss_fn, params),
    )
    if is_dense:
        matrix = _core.hessian(fixed_fn, options, mode, point, data, ())
        vectors = eigh(matrix)[1].T[jnp.array([0, -1])]
    else:
        product_fn = _core.flat_product(fixed_fn, point, data, call)
        start = jax.random.normal(key, flat.shape, flat.dtype)
        result = ritz(product_fn, start, num_iterations)
        vectors = result.coefficients.T[jnp.array([0, -1])] @ result.basis
    vectors = jax.lax.stop_gradient(vectors)
    images = jax.lax.map(_core.flat_product(loss_fn, params, data, call), vectors)
    values = jnp.sum(vectors * images, axis=1)
    errors = jnp.linalg.norm(images - values[:, None] * vectors, axis=1)
    return ExtremeEigenvalues(
        smallest=values[0],
        largest=values[1],
        smallest_vector=unflatten(vectors[0]),
        largest_vector=unflatten(vectors[1]),
        smallest_error=errors[0],
        largest_error=errors[1],
    )
