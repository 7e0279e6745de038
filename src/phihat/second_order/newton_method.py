r"""Newton's method with the dense Hessian."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Float, PyTree

from phihat._core import calls as _calls
from phihat._core import checks as _checks
from phihat._core import tree as _tree
from phihat._core.types import Box, Params
from phihat._linalg import dense_hessian as _dense
from phihat._linalg import small as _small
from phihat.optimizers import Optimizer
from phihat.second_order import flat_params as _flat_params
from phihat.second_order import negative_curvature as _negative_curvature
from phihat.second_order import quadratic_model as _quadratic_model
from phihat.second_order import trust_region as _trust_region
from phihat.second_order.negative_curvature import Curvature
from phihat.second_order.quadratic_model import Model, Point
from phihat.second_order.subproblem import ABSOLUTE_SPECTRUM
from phihat.second_order.trust_region import Method

__all__ = ["newton"]

Vector = Float[Array, " P"]
Scalar = Float[Array, ""]

_CALL = "newton"


@_calls.public
def newton(*, initial_radius: float | None = None) -> Optimizer:
    r"""Step to the minimum of the quadratic model within a trust region.

    $p = \arg\min\ g^\top p + \tfrac12 p^\top |H| p$ over $\|D p\| \le \Delta$, by an
    eigendecomposition of the dense Hessian, with absolute eigenvalues: along negative
    curvature the step goes down as well. $D$ is one over the size of the params, so
    that their units do not matter. Where a fit would end although the curvature is
    negative, even where $g = 0$, it moves along the lowest curvature.

    The fit ends by tests that do not depend on units: CONVERGED at the precision of the
    numbers, or earlier as `tolerance` allows, whose `gradient` is read as the relative
    gradient $\max_i |g_i| |\phi_i| / |L|$ of Dennis and Schnabel. A `Box` holds inside
    the step, to the last bit.

    For up to a few thousand params: a step costs P gradients and $P^3$.

    Args:
      initial_radius: $\Delta > 0$ of the first step, as a relative change of the
        params. None chooses it from the gradient and the Hessian.

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
      Dennis and Schnabel, *Numerical methods for unconstrained optimization and
      nonlinear equations*, 1983.
      Conn, Gould and Toint, *Trust-region methods*, 2000.
    """
    radius = _trust_region.as_radius(_CALL, initial_radius)
    return Optimizer(
        Partial(_trust_region.init, _tree.Static(_CALL), _tree.Static(True)),
        Partial(_newton_update, initial_radius=radius),
    )


def _newton_update(
    updates: PyTree,
    state: _trust_region.TrustRegionState,
    params: Params | None = None,
    *,
    initial_radius: Any,
    value_fn: Callable[[Params], Any] | None = None,
    box: Box | None = None,
    tolerance: Any = None,
    **extra: Any,
) -> tuple[PyTree, _trust_region.TrustRegionState]:
    del updates, extra
    loss_fn = _checks.check_extra(_CALL, "value_fn", value_fn, "params -> loss")
    space = _flat_params.locate(_CALL, params, box)
    method = Method(
        measure=partial(_measure, _flat_params.flat_value_fn(loss_fn, space)),
        rescale=_rescale,
        scale_hessian=partial(_quadratic_model.scale_dense_hessian, ABSOLUTE_SPECTRUM),
        search=partial(_quadratic_model.search_dense, ABSOLUTE_SPECTRUM),
        first_radius=_first_radius,
        relative_gradient=_quadratic_model.relative_gradient,
        rounding_sensitivity=_rounding_sensitivity,
        check_curvature=_check_curvature,
        max_escapes=20,
    )
    return _trust_region.advance(
        method, space, state, initial_radius=initial_radius, tolerance=tolerance
    )


def _measure(flat_fn: Any, point: Vector) -> tuple[Point, float]:
    """Return value, gradient and Hessian from one linearization."""
    value_and_grad = jax.value_and_grad(flat_fn, has_aux=True)
    ((value, own), gradient), push = jax.linearize(value_and_grad, point)
    hessian = _dense.columns(lambda tangent: push(tangent)[1], point)
    # Without a Hessian the model is the slope alone.
    hessian = jnp.where(jnp.all(jnp.isfinite(hessian)), hessian, 0.0)
    half_hessian = (hessian + hessian.T) / 4
    return Point(value, gradient / 2, half_hessian), _flat_params.spacing(value, own)


def _rescale(last: Vector, found: Point, point: Vector) -> Vector:
    """Measure params by their own size, and none much smaller than the others.

    Sizes of different params are compared by what they do to the loss, so that units
    do not matter.
    """
    curvatures = jnp.sqrt(jnp.abs(_small.diagonal(found.half_hessian)))
    curvatures = jnp.where(curvatures > 0, curvatures, 1.0)
    weights = curvatures * point
    typical = jnp.sqrt(jnp.mean(jnp.square(weights))) / curvatures
    size = jnp.maximum(jnp.abs(point), 1e-3 * typical)
    scale = 1.0 / jnp.where(size > 0, size, 1.0)
    # A region that forgets its scale at once jumps out to where the loss is flat.
    return jnp.maximum(scale, 0.2 * last)


def _first_radius(model: Model) -> Scalar:
    curvatures, basis = model.hessian.factors[1]
    slopes = jnp.abs(_small.matmul(basis.T, model.slopes))
    sizes = jnp.abs(curvatures)
    lengths = jnp.where(
        slopes > 0,
        slopes / jnp.where(sizes > 0, sizes, jnp.finfo(sizes.dtype).tiny),
        0.0,
    )
    root = float(slopes.shape[0]) ** 0.5
    return jnp.clip(jnp.max(lengths), 0.01 * root, 0.3 * root)


def _rounding_sensitivity(model: Model) -> Vector:
    curvatures = jnp.abs(_small.diagonal(model.here.half_hessian))
    return jnp.sqrt(curvatures) * model.point


def _check_curvature(is_due: Any, model: Model) -> Curvature:
    return _negative_curvature.check_if_due(
        _negative_curvature.if_any_lane(is_due),
        lambda: _negative_curvature.lowest_curvature(model.here.half_hessian, model),
        model,
    )
