r"""Newton's method by products with the Hessian, which is never formed."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float, Int, PyTree

from phihat._core import calls as _calls
from phihat._core import checks as _checks
from phihat._core import tree as _tree
from phihat._core.types import Box, Params
from phihat._linalg import small as _small
from phihat._linalg.lanczos import ritz
from phihat.optimizers import Optimizer
from phihat.second_order import flat_params as _flat_params
from phihat.second_order import negative_curvature as _negative_curvature
from phihat.second_order import quadratic_model as _quadratic_model
from phihat.second_order import trust_region as _trust_region
from phihat.second_order.negative_curvature import Curvature
from phihat.second_order.quadratic_model import Model, Point, ScaledHessian
from phihat.second_order.subproblem import Bounds, Proposal, meet_bounds
from phihat.second_order.trust_region import Method

__all__ = ["newton_cg"]

Vector = Float[Array, " P"]
Scalar = Float[Array, ""]
Flag = Bool[Array, ""]
Product = Callable[[Vector], Vector]

_CALL = "newton_cg"

_LANCZOS_STEPS = 30
"""Products that look for negative curvature where a fit would end."""

_MAX_SEARCHES = 20
"""Searches along the bounds in one step."""


@_calls.public
def newton_cg(*, initial_radius: float = 1.0, max_iterations: int = 250) -> Optimizer:
    r"""Newton's method without the Hessian: conjugate gradients in a trust region.

    The model is minimized along conjugate directions, each for one Hessian-vector
    product, until the edge of the region, negative curvature, or a residual of
    $\min(0.1, \sqrt{\|g\| / \|g_0\|})\,\|g\|$, with $g_0$ the first gradient, and far
    less near the end. Where a fit would end, 30 Lanczos steps look for negative
    curvature; beyond 30 params this is an estimate.

    With a `Box`, conjugate gradients run over the params that are free; where their
    step meets bounds, those params are held there and the others are searched again.

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
      Lin and More, *Newton's method for large bound-constrained optimization
      problems*, SIAM J. Optim. 1999.
    """
    radius = _tree.as_number(initial_radius, _CALL, "initial_radius")
    _checks.check_range(_CALL, "initial_radius", radius, 0.0, include_low=False)
    limit = _checks.check_count(_CALL, "max_iterations", max_iterations)
    return Optimizer(
        Partial(_trust_region.init, _tree.Static(_CALL), _tree.Static(False)),
        Partial(
            _newton_cg_update, initial_radius=radius, max_iterations=_tree.Static(limit)
        ),
    )


def _newton_cg_update(
    updates: PyTree,
    state: _trust_region.TrustRegionState,
    params: Params | None = None,
    *,
    initial_radius: Any,
    max_iterations: _tree.Static,
    value_fn: Callable[[Params], Any] | None = None,
    box: Box | None = None,
    tolerance: Any = None,
    **extra: Any,
) -> tuple[PyTree, _trust_region.TrustRegionState]:
    del updates, extra
    loss_fn = _checks.check_extra(_CALL, "value_fn", value_fn, "params -> loss")
    space = _flat_params.locate(_CALL, params, box)
    flat_fn = _flat_params.flat_value_fn(loss_fn, space)
    method = Method(
        measure=partial(_measure, flat_fn),
        rescale=_rescale,
        scale_hessian=partial(_scale_hessian, flat_fn),
        search=partial(_search, max_iterations.value),
        first_radius=lambda model: jnp.ones_like(model.noise),
        relative_gradient=_quadratic_model.relative_gradient,
        rounding_sensitivity=lambda model: jnp.sqrt(
            jnp.abs(model.point * model.hessian.multiply(model.point))
        ),
        check_curvature=_check_curvature,
        max_escapes=20,
        is_exact=False,
    )
    return _trust_region.advance(
        method, space, state, initial_radius=initial_radius, tolerance=tolerance
    )


def _measure(flat_fn: Any, point: Vector) -> tuple[Point, float]:
    (value, own), gradient = jax.value_and_grad(flat_fn, has_aux=True)(point)
    eps = _flat_params.spacing(value, own)
    return Point(value, gradient / 2, jnp.zeros((0, 0), point.dtype)), eps


def _rescale(last: Vector, found: Point, point: Vector) -> Vector:
    """Keep the units of the params."""
    del found, point
    return jnp.ones_like(last)


def _scale_hessian(
    flat_fn: Any,
    here: Point,
    point: Vector,
    scale: Vector,
    free: Any,
) -> ScaledHessian:
    del scale
    grad_fn = jax.grad(lambda vector: flat_fn(vector)[0])
    push = jax.linearize(grad_fn, point)[1]
    multiply = lambda vector: push(vector) / 2  # noqa: E731
    return ScaledHessian(
        multiply, _effective_diagonal(here, point, free, multiply), None
    )


def _effective_diagonal(
    here: Point, point: Vector, free: Any, multiply: Product
) -> Vector:
    r"""Return what stands for the diagonal of A where only products are known.

    So that $b_i^2$ over it is the fall $(b^\top v)^2 / v^\top A v$ along the gradient,
    or along the gradient by the relative params where that is more: params of small
    curvature are seen in units of their own alone.
    """
    slopes = here.half_gradient
    if free is not None:
        slopes = jnp.where(free, slopes, 0.0)
    relative = slopes * jnp.square(point)
    largest = jnp.max(jnp.abs(relative))
    relative = relative / jnp.where(largest > 0, largest, 1.0)
    directions = jnp.stack([slopes, relative])
    bends = jnp.abs(jnp.sum(directions * jax.vmap(multiply)(directions), axis=1))
    rates = jnp.square(jnp.sum(directions * slopes[None, :], axis=1))
    tiny = float(jnp.finfo(slopes.dtype).tiny)
    falls = jnp.max(jnp.where(rates > 0, rates / jnp.maximum(bends, tiny), 0.0))
    return jnp.square(slopes) / jnp.where(falls > 0, falls, 1.0)


def _check_curvature(is_due: Flag, model: Model) -> Curvature:
    free = jnp.ones(model.slopes.shape, bool) if model.free is None else model.free

    def measure() -> Curvature:
        start = jax.random.normal(jax.random.key(0), free.shape, model.slopes.dtype)
        found = ritz(
            lambda vector: jnp.where(
                free, model.hessian.multiply(jnp.where(free, vector, 0.0)), 0.0
            ),
            jnp.where(free, start, 0.0),
            min(_LANCZOS_STEPS, free.size),
        )
        own_size = jnp.maximum(jnp.abs(model.point), 1.0)
        return _negative_curvature.judge_curvature(
            model,
            lowest=found.values[0],
            direction=found.coefficients[:, 0] @ found.basis,
            largest=jnp.max(jnp.abs(found.values)),
            own_size=own_size,
        )

    return _negative_curvature.check_if_due(
        _negative_curvature.if_any_lane(is_due), measure, model
    )


# ------------------------------------------------------------------------- the search


def _search(
    max_iterations: int, model: Model, radius: Scalar, forcing: Scalar
) -> Proposal:
    """Search over the free params; hold those that meet a bound; search again."""
    multiply, slopes = model.hessian.multiply, model.slopes
    goal = forcing * _small.norm(slopes)
    is_tight = forcing <= float(jnp.finfo(goal.dtype).eps) ** 0.5
    limit = min(max_iterations, 2 * slopes.shape[0])
    if model.free is None or model.step_bounds is None:
        found = _conjugate_gradients(
            multiply, slopes, jnp.zeros_like(slopes), radius, goal, limit
        )
        return Proposal(found.step, None, found.step, found.is_inside & is_tight)
    zero, yes = jnp.zeros_like(slopes), jnp.ones((), bool)
    none = jnp.zeros((), jnp.int32)
    end = jax.lax.while_loop(
        lambda at: at.goes_on,
        partial(_advance_by_cg, model, model.step_bounds, radius, goal, limit),
        _BoundedCG(zero, zero, model.free, zero, yes, none, yes),
    )
    low, high = model.step_bounds
    is_low, is_high = end.step <= low, end.step >= high
    sides = is_high.astype(jnp.int8) - is_low.astype(jnp.int8)
    sides = jnp.where(model.free, sides, 0)
    return Proposal(end.step, sides, end.undamped, end.is_inside & is_tight)


class _BoundedCG(NamedTuple):
    """How far a search between bounds has come; params that met one are not free."""

    step: Vector
    product: Vector
    free: Bool[Array, " P"]
    undamped: Vector
    is_inside: Flag
    round: Int[Array, ""]
    goes_on: Flag


def _advance_by_cg(
    model: Model,
    step_bounds: Bounds,
    radius: Scalar,
    goal: Scalar,
    limit: int,
    at: _BoundedCG,
) -> _BoundedCG:
    """Search over the free params, and go as far as the bounds allow."""
    multiply, slopes = model.hessian.multiply, model.slopes
    found = _conjugate_gradients(
        lambda vector: jnp.where(at.free, multiply(vector), 0.0),
        jnp.where(at.free, slopes + at.product, 0.0),
        jnp.where(at.free, at.step, 0.0),
        radius,
        goal,
        limit,
    )
    move = found.step - jnp.where(at.free, at.step, 0.0)
    target = at.step + move
    met = meet_bounds(step_bounds, at.step, move, target, at.free)
    # To the first bound the model falls for certain; beyond, many bounds may be met
    # at once.
    near = jnp.where(met.share <= met.first, met.end, at.step + met.first * move)
    far = jnp.clip(target, step_bounds.low, step_bounds.high)
    falls = []
    for step in (near, far):
        product = multiply(step)
        falls.append((jnp.sum(step * (2 * slopes + product)), step, product))
    is_far = falls[1][0] <= falls[0][0]
    step = jnp.where(is_far, falls[1][1], falls[0][1])
    meets = at.free & (step == met.end) & (move != 0)
    free = at.free & ~meets
    is_first = at.round == 0
    return _BoundedCG(
        step=step,
        product=jnp.where(is_far, falls[1][2], falls[0][2]),
        free=free,
        undamped=jnp.where(is_first, found.step, at.undamped),
        is_inside=jnp.where(is_first, found.is_inside, at.is_inside),
        round=at.round + 1,
        goes_on=jnp.any(meets) & jnp.any(free) & (at.round < _MAX_SEARCHES),
    )


class _Found(NamedTuple):
    """Where conjugate gradients ended, and whether inside the region at the minimum."""

    step: Vector
    is_inside: Flag


def _conjugate_gradients(
    multiply: Product,
    slopes: Vector,
    start: Vector,
    radius: Scalar,
    goal: Scalar,
    limit: int,
) -> _Found:
    """Minimize along conjugate directions, up to the edge (Steihaug, Toint).

    Args:
      multiply: the product with A.
      slopes: b + A start, the slope at the start.
      start: the step to begin with, within the region.
      radius: the edge.
      goal: the residual that is small enough.
      limit: products at most.
    """

    class State(NamedTuple):
        step: Vector
        residual: Vector
        direction: Vector
        is_inside: Flag
        goes_on: Flag
        round: Int[Array, ""]

    def advance(at: State) -> State:
        step, direction = at.step, at.direction
        product = multiply(direction)
        curvature = jnp.sum(direction * product)
        square = jnp.sum(at.residual * at.residual)
        is_negative = curvature <= 0
        length = square / jnp.where(is_negative, 1.0, curvature)
        # Go to the edge where the model bends down, or where the next step passes it.
        a, b = jnp.sum(direction * direction), jnp.sum(step * direction)
        rest = jnp.maximum(radius * radius - jnp.sum(step * step), 0.0)
        root = jnp.sqrt(jnp.maximum(b * b + a * rest, 0.0))
        to_edge = jnp.where(b > 0, rest / (b + root), (root - b) / a)
        leaves = is_negative | ~(length < to_edge)
        length = jnp.where(leaves, to_edge, length)
        residual = at.residual + length * product
        new_square = jnp.sum(residual * residual)
        is_done = leaves | (jnp.sqrt(new_square) <= goal)
        return State(
            step=step + length * direction,
            residual=residual,
            direction=-residual + (new_square / square) * direction,
            is_inside=~leaves,
            goes_on=~is_done & (at.round + 1 < limit),
            round=at.round + 1,
        )

    first = State(
        step=start,
        residual=slopes,
        direction=-slopes,
        is_inside=jnp.ones((), bool),
        goes_on=_small.norm(slopes) > 0,
        round=jnp.zeros((), jnp.int32),
    )
    end = jax.lax.while_loop(lambda at: at.goes_on, advance, first)
    return _Found(end.step, end.is_inside)
