r"""One step of each second-order optimizer: the model, its region, what it learns.

Example:
  >>> import jax.numpy as jnp
  >>> from phihat.second_order import newton_steps as _newton_steps
  >>> bowl = lambda vector: jnp.sum(jnp.array([1.0, 3.0]) * vector**2)
  >>> print(_newton_steps.dense_hessian(bowl, jnp.zeros(2)))
  [[2. 0.]
   [0. 6.]]
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from phihat import products
from phihat._core import checks as _checks
from phihat._core import tree as _tree
from phihat._core.types import Params
from phihat.second_order.trust_region import (
    Outcome,
    Point,
    Proposal,
    TrustRegionState,
    equilibrate,
    is_clearly_negative,
    minimize_model,
    smallest_eigenpair,
    take_step,
    truncated_conjugate_gradient,
)

__all__ = [
    "dense_hessian",
    "dense_jacobian",
    "init",
    "levenberg_marquardt_update",
    "newton_cg_update",
    "newton_update",
]

ValueFn = Callable[[Params], Any]
Vector = Float[Array, " P"]
Scalar = Float[Array, ""]

_MAX_BYTES = 2**30
"""The largest Hessian or Jacobian that is formed."""

_BLOCK = 256
"""Columns of a Hessian computed at once."""

_LANCZOS_STEPS = 30
"""Hessian products that look for negative curvature where a step would not show it."""


# ------------------------------------------------------------------------ the updates


def init(call: _tree.Static, params: Params) -> TrustRegionState:
    point, _ = products.flatten(params)
    if call.value == "newton":
        _check_size("newton", "Hessian", point.size, point)
    return TrustRegionState(
        step=jnp.zeros((), jnp.int32),
        radius=jnp.zeros((), point.dtype),
        scale=None if call.value == "newton_cg" else jnp.zeros_like(point),
        negative_curvature=jnp.asarray(False),
        is_stalled=jnp.asarray(False),
    )


def newton_update(
    updates: PyTree,
    state: TrustRegionState,
    params: Params | None = None,
    *,
    initial_radius: Any,
    value: Any = None,
    grad: PyTree = None,
    value_fn: ValueFn | None = None,
    **extra: Any,
) -> tuple[PyTree, TrustRegionState]:
    del extra
    here, flat_fn, unflatten = _locate(
        "newton", updates, params, value=value, grad=grad, value_fn=value_fn
    )
    hessian = dense_hessian(flat_fn, here.params)
    # Without a Hessian the model is the slope alone: a step along it to the edge.
    hessian = jnp.where(jnp.all(jnp.isfinite(hessian)), hessian, 0.0)
    scale = _remember(state.scale, equilibrate(hessian), share=0.2)
    scaled = hessian / (scale[:, None] * scale[None, :])
    curvatures, basis = jnp.linalg.eigh((scaled + scaled.T) / 2)
    lowest, largest = curvatures[0], jnp.max(jnp.abs(curvatures))
    is_negative = _bends(lowest, largest, here, scale)
    radius = _first_radius(state, initial_radius, here, scale)
    radius = jnp.where(is_negative, _visible(radius, here.value, lowest), radius)
    propose = _spectral_proposal(curvatures, basis, here.gradient / scale, scale)
    outcome = take_step(propose, jax.value_and_grad(flat_fn), here, radius, scale)
    return _finish(outcome, state, unflatten, scale, is_negative)


def newton_cg_update(
    updates: PyTree,
    state: TrustRegionState,
    params: Params | None = None,
    *,
    initial_radius: Any,
    max_iterations: _tree.Static,
    value: Any = None,
    grad: PyTree = None,
    value_fn: ValueFn | None = None,
    **extra: Any,
) -> tuple[PyTree, TrustRegionState]:
    del extra
    here, flat_fn, unflatten = _locate(
        "newton_cg", updates, params, value=value, grad=grad, value_fn=value_fn
    )
    product_fn = jax.linearize(jax.grad(flat_fn), here.params)[1]
    size = here.params.size
    limit = min(max_iterations.value, 2 * size)
    radius = jnp.where(
        state.step == 0, _cast(initial_radius, state.radius.dtype), state.radius
    )

    def conjugate(radius: Scalar) -> tuple[Proposal, Bool[Array, ""]]:
        step, product, is_negative = truncated_conjugate_gradient(
            product_fn, here.gradient, radius, limit
        )
        predicted = -(here.gradient @ step + 0.5 * (step @ product))
        return Proposal(step, jnp.linalg.norm(step), predicted), is_negative

    # A long step over positive curvature from a steep slope needs no second look.
    first, is_negative = conjugate(radius)
    is_long = (first.length >= 0.9 * radius) & ~_is_flat(here)
    scale = jnp.ones_like(here.params)
    bend = _look_for_bend(is_negative | ~is_long, product_fn, here, scale, radius)
    propose = _or_bend(
        lambda radius: conjugate(radius)[0], bend, product_fn, here, scale
    )
    outcome = take_step(propose, jax.value_and_grad(flat_fn), here, bend.radius, scale)
    return _finish(outcome, state, unflatten, None, bend.is_negative)


def levenberg_marquardt_update(
    updates: PyTree,
    state: TrustRegionState,
    params: Params | None = None,
    *,
    initial_radius: Any,
    residual_fn: Callable[[Params], PyTree] | None = None,
) -> tuple[PyTree, TrustRegionState]:
    del updates
    call = "levenberg_marquardt"
    tree_residual_fn = _checks.check_extra(
        call, "residual_fn", residual_fn, "params -> residuals"
    )
    carried = _checks.check_extra(call, "params", params, "where the residuals are")
    point, unflatten = products.flatten(carried)

    def flat_residual_fn(vector: Vector) -> Float[Array, " N"]:
        return products.flatten(tree_residual_fn(unflatten(vector)))[0].astype(
            point.dtype
        )

    def flat_fn(vector: Vector) -> Scalar:
        residuals = flat_residual_fn(vector)
        return residuals @ residuals

    residuals = flat_residual_fn(point)
    _check_size(call, "Jacobian", residuals.size, point)
    jacobian = dense_jacobian(flat_residual_fn, point)
    jacobian = jnp.where(jnp.all(jnp.isfinite(jacobian)), jacobian, 0.0)
    norms = jnp.sqrt(2 * jnp.sum(jacobian * jacobian, axis=0))
    scale = _remember(state.scale, jnp.where(norms > 0, norms, 1.0), share=1.0)
    left, singular, right = jnp.linalg.svd(
        jacobian / scale[None, :], full_matrices=False
    )
    slopes = 2 * singular * (left.T @ residuals)
    measure = jax.value_and_grad(flat_fn)
    here = Point(point, *measure(point))
    # Residuals are straight over longer ways than losses are round.
    radius = _first_radius(state, initial_radius, here, scale, reach=10.0)
    gauss_newton = _spectral_proposal(
        2 * singular * singular, right.T, slopes, scale, is_rotated=True
    )
    product_fn = jax.linearize(jax.grad(flat_fn), point)[1]
    # Squares of residuals hide the curvature of the loss where the slope is small, or
    # where all that they promise is.
    promises_little = gauss_newton(radius).predicted <= 1e-3 * here.value
    is_due = promises_little | _is_flat(here)
    bend = _look_for_bend(is_due, product_fn, here, scale, radius)
    propose = _or_bend(gauss_newton, bend, product_fn, here, scale)
    outcome = take_step(propose, measure, here, bend.radius, scale)
    return _finish(outcome, state, unflatten, scale, bend.is_negative)


# ------------------------------------------------------------------- parts of a step


def _locate(
    call: str,
    updates: PyTree,
    params: Params | None,
    *,
    value: Any,
    grad: PyTree,
    value_fn: ValueFn | None,
) -> tuple[Point, Callable[[Vector], Scalar], Callable[[Vector], Params]]:
    """Return the point as vectors, the loss of a vector, and the way back to a tree."""
    loss_fn = _checks.check_extra(call, "value_fn", value_fn, "params -> loss")
    carried = _checks.check_extra(call, "params", params, "where the gradient is")
    point, unflatten = products.flatten(carried)
    flat_fn = lambda vector: loss_fn(unflatten(vector)).astype(point.dtype)  # noqa: E731
    gradient = products.flatten(updates if grad is None else grad)[0]
    value = flat_fn(point) if value is None else value
    here = Point(point, _cast(value, point.dtype), gradient.astype(point.dtype))
    return here, flat_fn, unflatten


def _spectral_proposal(
    curvatures: Float[Array, " K"],
    basis: Float[Array, "P K"],
    slopes: Array,
    scale: Vector,
    *,
    is_rotated: bool = False,
) -> Callable[[Scalar], Proposal]:
    """Return `radius -> Proposal` for a model known by its spectrum, scaled."""
    # Squares of singular values are exact far below the rounding of eigenvalues.
    rounding = 0.0 if is_rotated else None
    slopes = slopes if is_rotated else basis.T @ slopes

    def propose(radius: Scalar) -> Proposal:
        step = minimize_model(curvatures, slopes, radius, rounding=rounding)
        predicted = -jnp.sum(step * (slopes + 0.5 * curvatures * step))
        return Proposal((basis @ step) / scale, jnp.linalg.norm(step), predicted)

    return propose


class _Bend(NamedTuple):
    """Where the loss bends down.

    Attributes:
      direction: the unit eigenvector of the lowest curvature, scaled, downhill.
      is_negative: whether that curvature is clearly negative.
      radius: the radius, widened where a step along it would be too short to see.
    """

    direction: Vector
    is_negative: Bool[Array, ""]
    radius: Scalar


def _look_for_bend(
    is_due: Bool[Array, ""],
    product_fn: Callable[[Vector], Vector],
    here: Point,
    scale: Vector,
    radius: Scalar,
) -> _Bend:
    """Look for negative curvature where it is due, by products with the Hessian."""
    start = jax.random.normal(jax.random.key(0), scale.shape, scale.dtype)

    def look() -> _Bend:
        lowest, vector, largest = smallest_eigenpair(
            lambda vector: product_fn(vector / scale) / scale, start, _LANCZOS_STEPS
        )
        is_uphill = (here.gradient / scale) @ vector > 0
        is_negative = _bends(lowest, largest, here, scale)
        wide = _visible(radius, here.value, jnp.where(is_negative, lowest, -1.0))
        return _Bend(
            direction=jnp.where(is_uphill, -vector, vector),
            is_negative=is_negative,
            radius=jnp.where(is_negative, wide, radius),
        )

    def skip() -> _Bend:
        return _Bend(jnp.zeros_like(scale), jnp.asarray(False), radius)

    return jax.lax.cond(is_due, look, skip)


def _bends(
    lowest: Scalar, largest: Scalar, here: Point, scale: Vector
) -> Bool[Array, ""]:
    """Tell whether a curvature is negative beyond rounding: its own, and the value's.

    Far out on a plain the Hessian is negative in the 100th digit: that is flat.
    """
    eps = float(jnp.finfo(lowest.dtype).eps)
    fall = -lowest * jnp.sum((scale * jnp.maximum(jnp.abs(here.params), 1.0)) ** 2)
    return is_clearly_negative(lowest, largest) & (fall > eps * jnp.abs(here.value))


def _is_flat(here: Point) -> Bool[Array, ""]:
    """Tell whether a fit might take the point for a minimum, by a wide margin."""
    steepest = jnp.max(jnp.abs(here.gradient), initial=0.0)
    return steepest <= jnp.maximum(1e-3, 1e-2 * jnp.abs(here.value))


def _or_bend(
    propose: Callable[[Scalar], Proposal],
    bend: _Bend,
    product_fn: Callable[[Vector], Vector],
    here: Point,
    scale: Vector,
) -> Callable[[Scalar], Proposal]:
    """Propose a step along negative curvature where that promises more."""

    def propose_either(radius: Scalar) -> Proposal:
        plain = propose(radius)
        step = radius * bend.direction / scale
        fall = -(here.gradient @ step + 0.5 * (step @ product_fn(step)))
        along = Proposal(step, radius, fall)
        bends = bend.is_negative & (fall > plain.predicted)
        return _tree.select(bends, along, plain)

    return propose_either


def _visible(radius: Scalar, value: Scalar, lowest: Scalar) -> Scalar:
    """Return a radius at which a fall along negative curvature is above rounding."""
    eps = float(jnp.finfo(value.dtype).eps)
    return jnp.maximum(radius, jnp.sqrt(20 * eps ** (2 / 3) * jnp.abs(value / lowest)))


def _first_radius(
    state: TrustRegionState,
    initial_radius: Any,
    here: Point,
    scale: Vector,
    *,
    reach: float = 1.0,
) -> Scalar:
    if initial_radius is None:
        # A steepest-descent step where curvatures are one; and some of the params'
        # own size, for a start where the slope is nearly zero.
        own_size = jnp.linalg.norm(
            scale * jnp.where(here.params == 0, 1.0, here.params)
        )
        slope = jnp.linalg.norm(here.gradient / scale)
        first = reach * jnp.maximum(slope, 0.01 * own_size)
    else:
        first = _cast(initial_radius, state.radius.dtype)
    return jnp.where(state.step == 0, first, state.radius)


def _remember(last: Any, scale: Vector, *, share: float) -> Vector:
    """Return the scale, but no less than a share of the last one.

    A region that forgets its scale at once jumps out to where the loss is flat.
    """
    return jnp.maximum(scale, share * last)


def _finish(
    outcome: Outcome,
    state: TrustRegionState,
    unflatten: Callable[[Vector], Params],
    scale: Vector | None,
    is_negative: Bool[Array, ""],
) -> tuple[PyTree, TrustRegionState]:
    return unflatten(outcome.step), TrustRegionState(
        step=state.step + 1,
        radius=outcome.radius,
        scale=scale,
        negative_curvature=is_negative,
        is_stalled=outcome.is_stalled,
    )


# ------------------------------------------------------------------- dense matrices


def dense_hessian(
    flat_fn: Callable[[Vector], Scalar], point: Vector
) -> Float[Array, "P P"]:
    """Return the Hessian, some columns at a time: all tangents at once may not fit."""
    product_fn = jax.linearize(jax.grad(flat_fn), point)[1]
    columns = jnp.eye(point.size, dtype=point.dtype)
    if point.size <= _BLOCK:
        return jax.vmap(product_fn)(columns)
    return jax.lax.map(product_fn, columns, batch_size=_BLOCK)


def dense_jacobian(
    flat_fn: Callable[[Vector], Float[Array, " N"]], point: Vector
) -> Float[Array, "N P"]:
    num_residuals = jax.eval_shape(flat_fn, point).size
    jacobian = jax.jacfwd if point.size <= num_residuals else jax.jacrev
    return jacobian(flat_fn)(point)


def _check_size(call: str, matrix: str, num_rows: int, point: Vector) -> None:
    num_bytes = num_rows * point.size * point.dtype.itemsize
    if num_bytes > _MAX_BYTES:
        raise ValueError(
            f"{call}: a dense {matrix} of {point.size} params takes "
            f"{num_bytes:,} bytes, more than {_MAX_BYTES:,}; use `newton_cg`, which "
            "needs only products with the Hessian."
        )


def _cast(value: Any, dtype: Any) -> Array:
    return jax.lax.convert_element_type(value, dtype)
