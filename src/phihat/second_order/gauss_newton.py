r"""Levenberg and Marquardt's method: least squares by the Jacobian of residuals."""

import functools
import operator
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float, PyTree

from phihat._core import calls as _calls
from phihat._core import checks as _checks
from phihat._core import tree as _tree
from phihat._core.types import Box, Params
from phihat._linalg import small as _small
from phihat.optimizers import Optimizer
from phihat.second_order import flat_params as _flat_params
from phihat.second_order import negative_curvature as _negative_curvature
from phihat.second_order import quadratic_model as _quadratic_model
from phihat.second_order import trust_region as _trust_region
from phihat.second_order.flat_params import Space
from phihat.second_order.negative_curvature import Curvature
from phihat.second_order.quadratic_model import Model, Point, positive
from phihat.second_order.subproblem import CHOLESKY
from phihat.second_order.trust_region import Method

__all__ = ["levenberg_marquardt"]

Vector = Float[Array, " P"]
Scalar = Float[Array, ""]

_CALL = "levenberg_marquardt"


@_calls.public
def levenberg_marquardt(*, initial_radius: float | None = None) -> Optimizer:
    r"""Fit curves: step to the minimum of the linearised residuals in a trust region.

    $p = \arg\min \|r + J p\|^2$ over $\|D p\| \le \Delta$, with $D$ the largest norms
    so far of the columns of $J$ (More's scaling: units of params do not matter), by the
    normal equations of $J D^{-1}$ without LAPACK for up to 32 params, so that thousands
    of fits share one program under `jax.vmap`. $J^\top r$ is exact, so a poor factor
    costs steps and not digits.

    The fit ends by tests that do not depend on units: CONVERGED at the precision of the
    numbers, or earlier as `tolerance` allows, whose `gradient` is read as the largest
    cosine between the residuals and a column of $J$. A `Box` holds inside the step, to
    the last bit.

    Where a fit would end, one Hessian of the loss tells a saddle from a minimum; at a
    saddle it continues along the lowest curvature. Under `jax.vmap`
    this is not checked, and `curvature_checked` in the state says so.

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
    radius = _trust_region.as_radius(_CALL, initial_radius)
    return Optimizer(
        Partial(_trust_region.init, _tree.Static(_CALL), _tree.Static(True)),
        Partial(_levenberg_marquardt_update, initial_radius=radius),
    )


def _levenberg_marquardt_update(
    updates: PyTree,
    state: _trust_region.TrustRegionState,
    params: Params | None = None,
    *,
    initial_radius: Any,
    residual_fn: Callable[[Params], PyTree] | None = None,
    box: Box | None = None,
    tolerance: Any = None,
    **extra: Any,
) -> tuple[PyTree, _trust_region.TrustRegionState]:
    del updates, extra
    tree_fn = _checks.check_extra(
        _CALL, "residual_fn", residual_fn, "params -> residuals"
    )
    space = _flat_params.locate(_CALL, params, box)
    method = Method(
        measure=lambda point: _measure(tree_fn, space, point),
        rescale=_rescale,
        scale_hessian=partial(_quadratic_model.scale_dense_hessian, CHOLESKY),
        search=partial(_quadratic_model.search_dense, CHOLESKY),
        first_radius=_first_radius,
        relative_gradient=_cosines,
        rounding_sensitivity=lambda model: model.scale * model.point,
        check_curvature=lambda is_due, model: _check_curvature(
            tree_fn, space, is_due, model
        ),
        max_escapes=3,
    )
    return _trust_region.advance(
        method, space, state, initial_radius=initial_radius, tolerance=tolerance
    )


def _measure(
    tree_fn: Callable[[Params], PyTree], space: Space, point: Vector
) -> tuple[Point, float]:
    """Return f = r'r, b = J'r and A = J'J from one linearization."""
    residual_fn = lambda vector: tree_fn(space.unflatten(vector))  # noqa: E731
    size, dtype = point.shape[0], point.dtype

    def flat(tree: PyTree, lead: tuple[int, ...]) -> Float[Array, "..."]:
        return jnp.concatenate(
            [leaf.reshape(*lead, -1).astype(dtype) for leaf in jax.tree.leaves(tree)],
            axis=-1,
        )

    residuals, push = jax.linearize(residual_fn, point)
    eps = _flat_params.spacing(point, *jax.tree.leaves(residuals))
    vector = flat(residuals, ())
    num_residuals = vector.shape[0]
    if size <= num_residuals:
        jacobian = flat(jax.vmap(push)(_small.identity(size, dtype)), (size,))
    else:
        pull = jax.linear_transpose(lambda tangent: flat(push(tangent), ()), point)
        jacobian = jax.vmap(pull)(_small.identity(num_residuals, dtype))[0].T
    rows = jnp.concatenate([jacobian, vector[None, :]])
    gram = jnp.matmul(rows, rows.T, precision=jax.lax.Precision.HIGHEST)
    return Point(gram[size, size], gram[:size, size], gram[:size, :size]), eps


def _rescale(last: Vector, found: Point, point: Vector) -> Vector:
    del point
    return jnp.maximum(last, jnp.sqrt(_small.diagonal(found.half_hessian)))


def _first_radius(model: Model) -> Scalar:
    """Return 10 times the slope, but at least a tenth of the params and at most all."""
    own_size = model.scale * jnp.where(model.point != 0, model.point, 1.0)
    length = _small.norm(own_size)
    return jnp.clip(10 * model.slope, 0.1 * length, length)


def _cosines(model: Model) -> Vector:
    """Return the cosines between the residuals and the columns of their Jacobian."""
    lengths = jnp.sqrt(_small.diagonal(model.here.half_hessian) * model.here.value)
    slopes = jnp.abs(model.here.half_gradient)
    # Where there is no length there is no slope either.
    return slopes / positive(lengths)


def _check_curvature(
    tree_fn: Callable[[Params], PyTree], space: Space, is_due: Any, model: Model
) -> Curvature:
    """Look for negative curvature by one Hessian, where a fit would end.

    Not under vmap, where every lane would compute it in every step.
    """

    def measure() -> Curvature:
        bend = _residual_curvature(tree_fn, space, model.point)
        return _negative_curvature.lowest_curvature(
            model.here.half_hessian + bend, model
        )

    is_due = _negative_curvature.if_not_mapped(is_due)
    return _negative_curvature.check_if_due(is_due, measure, model)


def _residual_curvature(
    tree_fn: Callable[[Params], PyTree], space: Space, point: Vector
) -> Float[Array, "P P"]:
    """Return the sum of every residual times its Hessian, which J'J leaves out."""
    residual_fn = lambda vector: tree_fn(space.unflatten(vector))  # noqa: E731

    def entry(one: Vector, other: Vector) -> Scalar:
        slopes_fn = lambda vector: jax.jvp(residual_fn, (vector,), (one,))  # noqa: E731
        (residuals, _), (_, bends) = jax.jvp(slopes_fn, (point,), (other,))
        products = jax.tree.map(
            lambda a, b: jnp.sum(a.astype(point.dtype) * b.astype(point.dtype)),
            residuals,
            bends,
        )
        return functools.reduce(operator.add, jax.tree.leaves(products))

    size = point.size
    if size <= _small.UNROLLED:
        rows, columns = np.indices((size, size)).reshape(2, -1)
        pairs = (jnp.asarray(np.eye(size)[i], point.dtype) for i in (rows, columns))
        return jax.vmap(entry)(*pairs).reshape(size, size)
    units = _small.identity(size, point.dtype)
    row = lambda one: jax.vmap(lambda other: entry(one, other))(units)  # noqa: E731
    return jax.lax.map(row, units)
