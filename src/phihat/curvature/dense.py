"""Exact answers from the dense Hessian, for up to some thousands of params."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from phihat._core import calls as _calls
from phihat._core.types import Batch, LossFn, Params
from phihat._linalg.dense_hessian import eigh
from phihat.curvature import _core

__all__ = [
    "LogDeterminant",
    "condition_number",
    "determinant",
    "eigenvalues",
    "hessian",
    "labels",
    "log_determinant",
]


class LogDeterminant(NamedTuple):
    """A determinant that cannot overflow: `sign * exp(log_abs)`.

    Attributes:
      sign: 1, -1, or 0 where the matrix is singular.
      log_abs: the logarithm of the absolute value; -inf where it is singular.
    """

    sign: Float[Array, ""]
    log_abs: Float[Array, ""]


@_calls.public
def hessian(
    loss_fn: LossFn, params: Params, data: Batch = None, *, max_bytes: int = 2**30
) -> Float[Array, "P P"]:
    r"""Return the dense, symmetric Hessian $\nabla^2 L(\theta)$ over all P params.

    Args:
      loss_fn: $L$, `(params, data) -> []`, or `(params) -> []` where `data` is None;
        twice differentiable.
      params: $\theta$, any pytree of float arrays; `labels(params)` names the rows.
      data: handed to `loss_fn`.
      max_bytes: the largest matrix that will be made, a gigabyte by default.

    Returns:
      [P, P]; NaN where a second derivative is infinite or NaN.

    Raises:
      TypeError: params that are not floats; a loss that still wants a key.
      ValueError: a loss that is not a scalar; a Hessian above `max_bytes`.

    Example:
      >>> print(hessian(lambda p: p["a"] * p["b"] ** 2, {"a": 1.0, "b": 3.0}))
      [[0. 6.]
       [6. 2.]]
    """
    _core.check_dense("hessian", params, max_bytes)
    return _core.run(_core.hessian, "hessian", loss_fn, params, data)


@_calls.public
def labels(params: Params) -> list[str]:
    """Name the entries of the flat vector of all params, by leaf and position.

    Args:
      params: any pytree of arrays.

    Returns:
      P names: the rows and columns of `hessian`, in their order.

    Example:
      >>> labels({"bias": 0.0, "weight": np.zeros([1, 2])})
      ["['bias']", "['weight'][0, 0]", "['weight'][0, 1]"]
    """
    names = []
    for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
        name = jax.tree_util.keystr(path)
        for position in np.ndindex(np.shape(leaf)):
            names.append(name + (str(list(position)) if position else ""))
    return names


@_calls.public
def eigenvalues(
    loss_fn: LossFn, params: Params, data: Batch = None, *, max_bytes: int = 2**30
) -> Float[Array, " P"]:
    """Return all eigenvalues of the dense Hessian, ascending.

    Args:
      loss_fn: as for `hessian`.
      params: any pytree of float arrays.
      data: handed to `loss_fn`.
      max_bytes: as for `hessian`.

    Returns:
      [P]; all NaN where the Hessian is not finite.

    Raises:
      TypeError: as for `hessian`.
      ValueError: as for `hessian`.

    Example:
      >>> print(eigenvalues(lambda p: p[0] ** 2 - 2.0 * p[1] ** 2, jnp.ones(2)))
      [-4.  2.]
    """
    _core.check_dense("eigenvalues", params, max_bytes)
    return _core.run(_eigenvalues, "eigenvalues", loss_fn, params, data)


@_calls.public
def determinant(
    loss_fn: LossFn, params: Params, data: Batch = None, *, max_bytes: int = 2**30
) -> Float[Array, ""]:
    """Return the determinant of the Hessian, the product of its eigenvalues.

    A positive one does not show that the loss is convex: two negative eigenvalues give
    it as well. Decide by `eigenvalues`.

    Args:
      loss_fn: as for `hessian`.
      params: any pytree of float arrays.
      data: handed to `loss_fn`.
      max_bytes: as for `hessian`.

    Returns:
      A scalar, computed from `log_determinant`, so that no intermediate product
      overflows; infinite or zero where the determinant itself does not fit.

    Raises:
      TypeError: as for `hessian`.
      ValueError: as for `hessian`.

    Example:
      >>> round(float(determinant(lambda p: -p[0] ** 2 - p[1] ** 2, jnp.ones(2))), 5)
      4.0
    """
    _core.check_dense("determinant", params, max_bytes)
    sign, log_abs = _core.run(_log_determinant, "determinant", loss_fn, params, data)
    return sign * jnp.exp(log_abs)


@_calls.public
def log_determinant(
    loss_fn: LossFn, params: Params, data: Batch = None, *, max_bytes: int = 2**30
) -> LogDeterminant:
    """Return the sign and the logarithm of the determinant of the Hessian.

    Args:
      loss_fn: as for `hessian`.
      params: any pytree of float arrays.
      data: handed to `loss_fn`.
      max_bytes: as for `hessian`.

    Raises:
      TypeError: as for `hessian`.
      ValueError: as for `hessian`.

    Example:
      >>> result = log_determinant(lambda p: 0.5e3 * jnp.sum(p**2), jnp.ones(200))
      >>> print(result.sign, round(float(result.log_abs / jnp.log(10.0)), 3))
      1.0 600.0
    """
    _core.check_dense("log_determinant", params, max_bytes)
    return _core.run(_log_determinant, "log_determinant", loss_fn, params, data)


@_calls.public
def condition_number(
    loss_fn: LossFn, params: Params, data: Batch = None, *, max_bytes: int = 2**30
) -> Float[Array, ""]:
    r"""Return $\max_i |\lambda_i| / \min_i |\lambda_i|$ over the Hessian's eigenvalues.

    It bounds how slowly gradient descent converges: by $1 - 2/(\kappa + 1)$ a step at
    the best fixed rate, at a minimum with condition number $\kappa$.

    Args:
      loss_fn: as for `hessian`.
      params: any pytree of float arrays.
      data: handed to `loss_fn`.
      max_bytes: as for `hessian`.

    Returns:
      A scalar >= 1; infinite where the Hessian is singular, NaN where it is zero.

    Raises:
      TypeError: as for `hessian`.
      ValueError: as for `hessian`.

    Example:
      >>> print(condition_number(lambda p: p[0] ** 2 - 2.0 * p[1] ** 2, jnp.ones(2)))
      2.0
    """
    _core.check_dense("condition_number", params, max_bytes)
    values = jnp.abs(_core.run(_eigenvalues, "condition_number", loss_fn, params, data))
    return jnp.max(values) / jnp.min(values)


def _eigenvalues(*arguments: Any) -> Float[Array, " P"]:
    return eigh(_core.hessian(*arguments))[0]


def _log_determinant(*arguments: Any) -> LogDeterminant:
    sign, log_abs = jnp.linalg.slogdet(_core.hessian(*arguments))
    return LogDeterminant(sign=sign, log_abs=log_abs)
