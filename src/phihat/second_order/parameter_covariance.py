"""The covariance of fitted params, from the curvature of the loss."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from phihat import losses, products
from phihat._core import calls as _calls
from phihat._core import checks as _checks
from phihat._core.types import Batch, LossFn
from phihat._linalg.dense_hessian import dense_hessian, dense_jacobian
from phihat._linalg.pseudo_inverse import PseudoInverse, invert
from phihat._linalg.pseudo_inverse import covariance as _covariance

__all__ = ["Decomposition", "covariance", "decompose"]


class Decomposition(NamedTuple):
    """The singular values of a Jacobian with columns of length one.

    Attributes:
      singular: the singular values, from the largest on, [P].
      right: their directions among the params, in rows, [P, P].
      inverse_gram: the inverse of J'J, over the params that it determines.
    """

    singular: Float[Array, " P"]
    right: Float[Array, "P P"]
    inverse_gram: PseudoInverse


@_calls.public
def covariance(
    loss_fn: LossFn,
    result: Any,
    data: Batch = None,
    *,
    absolute_sigma: bool = False,
) -> Float[Array, "P P"]:
    r"""Return the covariance of fitted params, from the curvature of the loss.

    For a sum of squares (`losses.least_squares`, weights $w = 1/\sigma^2$ included) it
    is $s^2 (J^\top J)^{-1}$ with $s^2 = \sum r^2 / (n - P)$, as
    `scipy.optimize.curve_fit` defines it, over $n$ residuals. Any other loss counts as
    a negative log-likelihood, summed and not averaged over the data: $H^{-1}$.

    Args:
      loss_fn: the loss that was minimized, `(params, data) -> []`.
      result: a `FitResult`, or the params themselves, at a minimum.
      data: handed to `loss_fn`.
      absolute_sigma: the weights are true $1/\sigma^2$, and the loss is a sum, no
        mean: $s^2 = 1$.

    Returns:
      [P, P], in the order of the leaves, each flattened. Infinite for the params that
      the data do not determine, which a singular $J$ or $H$ leaves open alone or in
      combination; the others keep their errors (SciPy makes all infinite). Infinite
      throughout with too few residuals, or an $H$ with a negative eigenvalue.

    Raises:
      TypeError: params that are not floats.

    Example:
      >>> from phihat import losses
      >>> loss_fn = losses.least_squares(lambda mean, x: mean + 0.0 * x)
      >>> data = (jnp.zeros(4), jnp.array([1.0, 2.0, 3.0, 4.0]))
      >>> found = covariance(loss_fn, jnp.array(2.5), data)
      >>> print(found.shape, round(float(found[0, 0]), 4))
      (1, 1) 0.4167
    """
    params = result.params if hasattr(result, "status") else result
    _checks.check_float_leaves("covariance", "params", params)
    arguments = () if data is None else (data,)
    point, unflatten = products.flatten(params)
    try:
        residual_fn = losses.residual_fn(loss_fn)
    except ValueError:  # no sum of squares
        scalar_fn = products.bind(loss_fn, params, data, call="covariance")
        hessian = dense_hessian(
            jax.grad(lambda vector: scalar_fn(unflatten(vector))), point
        )
        return _inverse_hessian(hessian)
    flat_fn = lambda vector: residual_fn(unflatten(vector), *arguments)  # noqa: E731
    residuals, jacobian = flat_fn(point), dense_jacobian(flat_fn, point)
    spare = residuals.size - point.size
    inverse = decompose(jacobian).inverse_gram
    if spare <= 0 and not absolute_sigma:
        return jnp.full_like(inverse.matrix, jnp.inf)
    return _scaled(residuals, inverse, None if absolute_sigma else spare)


@jax.jit
def decompose(jacobian: Float[Array, "N P"]) -> Decomposition:
    """Return the singular values of a Jacobian with columns of length one."""
    num_rows, size = jacobian.shape
    norms = jnp.linalg.norm(jacobian, axis=0)
    norms = jnp.where(norms > 0, norms, 1.0)
    # With too few rows, rows of zeros: the direction that is left open is then found.
    missing = jnp.zeros((max(size - num_rows, 0), size), jacobian.dtype)
    scaled = jnp.concatenate([jacobian / norms[None, :], missing])
    _, singular, right = jnp.linalg.svd(scaled, full_matrices=False)
    eps = float(jnp.finfo(jacobian.dtype).eps)
    is_null = singular <= eps * max(num_rows, size) * singular[0]
    inverse = invert(singular * singular, right.T, is_null, jnp)
    outer = norms[:, None] * norms[None, :]
    return Decomposition(
        singular, right, inverse._replace(matrix=inverse.matrix / outer)
    )


@functools.partial(jax.jit, static_argnames="spare")
def _scaled(
    residuals: Float[Array, " N"], inverse: PseudoInverse, spare: int | None
) -> Float[Array, "P P"]:
    """Return the covariance, with the variance of residuals where it is not known."""
    variance = 1.0 if spare is None else residuals @ residuals / spare
    return _covariance(variance, inverse, jnp)


@jax.jit
def _inverse_hessian(hessian: Float[Array, "P P"]) -> Float[Array, "P P"]:
    scale = jnp.sqrt(jnp.abs(jnp.diagonal(hessian)))
    scale = jnp.where(scale > 0, scale, 1.0)
    outer = scale[:, None] * scale[None, :]
    values, vectors = jnp.linalg.eigh(hessian / outer)
    zero = float(jnp.finfo(hessian.dtype).eps) * values.size * values[-1]
    inverse = invert(values, vectors, values <= zero, jnp)
    found = _covariance(1.0, inverse, jnp) / outer
    return jnp.where(values[0] < -zero, jnp.inf, found)
