"""Optimizers that use curvature, and the covariance that it gives."""

from typing import Any

import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Float

from phihat import losses, products
from phihat._core import checks as _checks
from phihat._core import tree as _tree
from phihat._core.types import Batch, LossFn
from phihat.optimizers import Optimizer
from phihat.second_order import newton_steps as _newton_steps
from phihat.second_order.newton_steps import dense_hessian, dense_jacobian
from phihat.second_order.trust_region import TrustRegionState

__all__ = [
    "TrustRegionState",
    "covariance",
    "levenberg_marquardt",
    "newton",
    "newton_cg",
]


# --------------------------------------------------------------------- the factories


def newton(*, initial_radius: float | None = None) -> Optimizer:
    r"""Step to the minimum of the quadratic model within a trust region.

    $p = \arg\min\ g^\top p + \tfrac12 p^\top H p$ over $\|D p\| \le \Delta$, exactly,
    by an eigendecomposition of the dense Hessian, indefinite ones and the hard case
    included. $D$ equilibrates $H$, so that the units of the params do not matter. At a
    saddle, even where $g = 0$, it moves along the lowest curvature.

    For up to a few thousand params: a step costs P gradients and $P^3$.

    Args:
      initial_radius: $\Delta > 0$ of the first step, in the scale of $D$, that is, of
        the square root of the loss. None chooses it from the gradient and the params.

    Returns:
      An optax transformation; `update` needs `value_fn`, which `fit` passes. Its state
      is a `TrustRegionState`. It cannot be differentiated in reverse.

    Raises:
      ValueError: `initial_radius` is not positive; in use: a Hessian beyond 1 GiB.

    Example:
      >>> from phihat import fit
      >>> result = fit(lambda x: x**4 - x**2, 0.0, newton(), num_steps=20)
      >>> print(round(abs(float(result.params)), 4))
      0.7071

    References:
      More and Sorensen, *Computing a trust region step*, SIAM J. Sci. Stat. Comput.
      1983.
      Conn, Gould and Toint, *Trust-region methods*, 2000.
    """
    radius = _radius_argument("newton", initial_radius)
    return Optimizer(
        Partial(_newton_steps.init, _tree.Static("newton")),
        Partial(_newton_steps.newton_update, initial_radius=radius),
    )


def newton_cg(*, initial_radius: float = 1.0, max_iterations: int = 250) -> Optimizer:
    r"""Newton's method without the Hessian: conjugate gradients in a trust region.

    The model is minimized along conjugate directions, each for one Hessian-vector
    product, until the edge of the region, negative curvature, or a residual of
    $\min(0.1, \sqrt{\|g\|})\,\|g\|$. Where that shows no negative curvature, 30 Lanczos
    steps look for it; beyond 30 params this is an estimate.

    Args:
      initial_radius: $\Delta > 0$ of the first step, in the units of the params.
      max_iterations: products per step at most, >= 1.

    Returns:
      An optax transformation; `update` needs `value_fn`, which `fit` passes. Its state
      is a `TrustRegionState`. It cannot be differentiated in reverse.

    Raises:
      ValueError: an argument lies outside its range.

    Example:
      >>> import jax.numpy as jnp
      >>> from phihat import fit
      >>> loss_fn = lambda w: jnp.sum((w**2 - 1) ** 2)
      >>> result = fit(loss_fn, jnp.full(1000, 0.5), newton_cg(), num_steps=20)
      >>> print(jnp.round(jnp.max(jnp.abs(result.params - 1)), 4))
      0.0

    References:
      Steihaug, *The conjugate gradient method and trust regions in large scale
      optimization*, SIAM J. Numer. Anal. 1983.
    """
    radius = _tree.as_number(initial_radius, "newton_cg", "initial_radius")
    _checks.check_range("newton_cg", "initial_radius", radius, 0.0, include_low=False)
    return Optimizer(
        Partial(_newton_steps.init, _tree.Static("newton_cg")),
        Partial(
            _newton_steps.newton_cg_update,
            initial_radius=radius,
            max_iterations=_tree.Static(
                _checks.check_count("newton_cg", "max_iterations", max_iterations)
            ),
        ),
    )


def levenberg_marquardt(*, initial_radius: float | None = None) -> Optimizer:
    r"""Fit curves: step to the minimum of the linearised residuals in a trust region.

    $p = \arg\min \|r + J p\|^2$ over $\|D p\| \le \Delta$, with $D$ the largest norms
    so far of the columns of $J$ (More's scaling: units of params do not matter), by a
    singular value decomposition of $J D^{-1}$ and never by $J^\top J$, which would
    square its condition.

    Where the step promises little, the curvature of the loss itself is looked at: at a
    saddle or a maximum it moves along the lowest curvature.

    Args:
      initial_radius: $\Delta > 0$ of the first step, in the scale of $D$, that is, of
        the residuals. None chooses it from the gradient and the params.

    Returns:
      An optax transformation. `update` needs `residual_fn`, `params -> residuals` (any
      pytree) whose sum of squares is the loss; `fit` passes that of a
      `losses.least_squares`, weights and penalty included. Its state is a
      `TrustRegionState`. It cannot be differentiated in reverse.

    Raises:
      ValueError: `initial_radius` is not positive; in use: a Jacobian beyond 1 GiB.

    Example:
      >>> import jax.numpy as jnp
      >>> from phihat import fit, losses
      >>> curve = lambda params, x: params[0] * jnp.exp(-params[1] * x)
      >>> x = jnp.linspace(0.0, 1.0, 9)
      >>> data = (x, curve(jnp.array([2.0, 3.0]), x))
      >>> loss_fn = losses.least_squares(curve)
      >>> result = fit(loss_fn, jnp.ones(2), levenberg_marquardt(), data, num_steps=20)
      >>> print(jnp.round(result.params, 4))
      [2. 3.]

    References:
      More, *The Levenberg-Marquardt algorithm: implementation and theory*, 1978.
    """
    radius = _radius_argument("levenberg_marquardt", initial_radius)
    return Optimizer(
        Partial(_newton_steps.init, _tree.Static("levenberg_marquardt")),
        Partial(_newton_steps.levenberg_marquardt_update, initial_radius=radius),
    )


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
      [P, P], in the order of the leaves, each flattened. Infinite where it is not
      determined: with too few residuals, a singular $J$, or an $H$ that is not positive
      definite.

    Raises:
      TypeError: params that are no floats.

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
        hessian = dense_hessian(lambda vector: scalar_fn(unflatten(vector)), point)
        return _inverse_hessian(hessian)
    flat_fn = lambda vector: residual_fn(unflatten(vector), *arguments)  # noqa: E731
    residuals, jacobian = flat_fn(point), dense_jacobian(flat_fn, point)
    spare = residuals.size - point.size
    inverse = _inverse_gram(jacobian)
    if absolute_sigma:
        return inverse
    variance = residuals @ residuals / spare if spare > 0 else jnp.inf
    return jnp.where(spare > 0, variance * inverse, jnp.inf)


# -------------------------------------------------------------------- private helpers


def _radius_argument(call: str, initial_radius: Any) -> Any:
    if initial_radius is None:
        return None
    radius = _tree.as_number(initial_radius, call, "initial_radius")
    _checks.check_range(call, "initial_radius", radius, low=0.0, include_low=False)
    return radius


def _inverse_gram(jacobian: Float[Array, "N P"]) -> Float[Array, "P P"]:
    """Return the inverse of J'J by singular values of J with columns of length one."""
    norms = jnp.linalg.norm(jacobian, axis=0)
    norms = jnp.where(norms > 0, norms, 1.0)
    _, singular, right = jnp.linalg.svd(jacobian / norms[None, :], full_matrices=False)
    eps = float(jnp.finfo(jacobian.dtype).eps)
    is_full = jacobian.shape[0] >= jacobian.shape[1]
    is_full &= jnp.all(singular > eps * max(jacobian.shape) * singular[0])
    half = right.T / jnp.where(singular > 0, singular, 1.0)[None, :]
    inverse = (half @ half.T) / (norms[:, None] * norms[None, :])
    return jnp.where(is_full, inverse, jnp.inf)


def _inverse_hessian(hessian: Float[Array, "P P"]) -> Float[Array, "P P"]:
    scale = jnp.sqrt(jnp.abs(jnp.diagonal(hessian)))
    scale = jnp.where(scale > 0, scale, 1.0)
    outer = scale[:, None] * scale[None, :]
    values, vectors = jnp.linalg.eigh(hessian / outer)
    eps = float(jnp.finfo(hessian.dtype).eps)
    is_definite = values[0] > eps * values.size * values[-1]
    half = vectors / jnp.sqrt(jnp.where(values > 0, values, 1.0))[None, :]
    return jnp.where(is_definite, (half @ half.T) / outer, jnp.inf)
