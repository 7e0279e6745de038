"""When a fit has converged."""

from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
from jaxtyping import Array, Bool, PyTree

from phihat._core import calls as _calls
from phihat._core import reductions as _reductions
from phihat._core import tree as _tree
from phihat._core.types import Box, Params
from phihat.optimizers import Optimizer
from phihat.results import FitState, StepInfo

__all__ = ["Tolerance", "is_converged", "largest_change", "moving_leaves"]


@_calls.public
class Tolerance(NamedTuple):
    r"""When a fit has converged: as soon as one of the criteria that are given is met.

    The criteria on loss and params look at steps that moved the params: a step of zero,
    such as the first of a warm-up, is no convergence. Optimizers of second order
    measure themselves: they read `gradient` as they do `relative_gradient`, free of
    units, and end at the precision of the numbers even without a tolerance.

    Attributes:
      gradient: the largest absolute gradient entry is at most this; with a projection
        $P$, the largest entry of $P(\phi - g) - \phi$. Leaves that the optimizer never
        moves (`optax.set_to_zero`, masks) do not count.
      relative_gradient: the same without units: the largest entry of
        $|g_i| \max(|\phi_i|, s) / |L|$ is at most this, with $s$ a thousandth of the
        root mean square of the params.
      loss: two successive losses differ by at most `loss + relative * abs(loss)`.
      params: the step's largest change is at most
        `params + relative * max(abs(params))`.
      relative: the relative share in the two changes.

    Example:
      >>> from phihat import fit, gradient_descent
      >>> from phihat.fitting import Tolerance
      >>> result = fit(
      ...     lambda x: x**2,
      ...     1.0,
      ...     gradient_descent(0.25),
      ...     num_steps=99,
      ...     tolerance=Tolerance(loss=1e-3),
      ... )
      >>> print(result.num_steps)
      6

    References:
      Dennis, Schnabel, *Numerical Methods for Unconstrained Optimization*, 1983.
    """

    gradient: float | None = None
    loss: float | None = None
    params: float | None = None
    relative: float = 0.0
    relative_gradient: float | None = None


def is_converged(
    tolerance: Tolerance,
    projection: Any,
    state: FitState,
    proposal: FitState,
    info: StepInfo,
    moving: tuple[bool, ...] | None = None,
) -> Bool[Array, ""]:
    """Tell whether a criterion is met at the params from which a step was tried.

    Args:
      tolerance: the criteria.
      projection: of the params, a Box, a function or None.
      state: the one before the step; its loss is NaN where the last step was zero.
      proposal: the one after it.
      info: what the step measured.
      moving: for each leaf whether the optimizer ever moves it; None if all do.
    """
    met = jnp.asarray(False)
    grad, params = info.grad, state.params
    if tolerance.gradient is not None or tolerance.relative_gradient is not None:
        residual = _projected_gradient(projection, params, grad)
        residual, params_there = (
            _keep_moving(moving, residual),
            _keep_moving(moving, params),
        )
        if tolerance.gradient is not None:
            met |= _at_most(_reductions.max_abs(residual), tolerance.gradient)
        if tolerance.relative_gradient is not None:
            value = _relative_gradient(residual, params_there, info.loss)
            met |= _at_most(value, tolerance.relative_gradient)
    if tolerance.loss is not None:
        change = jnp.abs(info.loss.astype(state.loss.dtype) - state.loss)
        scale = jnp.abs(info.loss)
        met |= _within(change, tolerance.loss, tolerance.relative, scale)
    if tolerance.params is not None:
        change = largest_change(params, proposal.params)
        scale = _reductions.max_abs(params)
        is_small = _within(change, tolerance.params, tolerance.relative, scale)
        met |= is_small & ((change > 0) | (_reductions.max_abs(grad) == 0))
    is_sound = _reductions.zero_or_nan((info.loss, grad)) == 0
    return met & is_sound


def _projected_gradient(projection: Any, params: Params, grad: Params) -> Params:
    if projection is None:
        return grad
    moved = jax.tree.map(jnp.subtract, params, grad)
    moved = projection.clip(moved) if isinstance(projection, Box) else projection(moved)
    return jax.tree.map(jnp.subtract, moved, params)


def _relative_gradient(grad: Params, params: Params, loss: Array) -> Array:
    """Return the largest slope of the relative loss in the relative params."""
    wide = _tree.default_float()
    leaves = [jnp.ravel(leaf).astype(wide) for leaf in jax.tree.leaves(params)]
    slopes = [jnp.ravel(leaf).astype(wide) for leaf in jax.tree.leaves(grad)]
    if not leaves:
        return jnp.zeros((), wide)
    entries, slope = jnp.concatenate(leaves), jnp.concatenate(slopes)
    floor = 1e-3 * jnp.sqrt(jnp.mean(entries * entries))
    # Where all params are zero nothing tells their units: only a zero gradient counts.
    unknown = jnp.full_like(floor, jnp.inf)
    sizes = jnp.maximum(jnp.abs(entries), jnp.where(floor > 0, floor, unknown))
    sizes = jnp.where(slope == 0, jnp.zeros_like(sizes), sizes)
    largest = jnp.max(jnp.abs(slope) * sizes)
    scale = jnp.abs(loss).astype(wide)
    return jnp.where(largest == 0, jnp.zeros_like(largest), largest / scale)


def largest_change(before: Params, after: Params) -> Array:
    """Return the largest change of an entry."""
    return _reductions.max_abs(jax.tree.map(jnp.subtract, after, before))


def _within(change: Array, absolute: Any, relative: Any, scale: Array) -> Array:
    wide = _tree.default_float()
    bound = _tree.cast(absolute, wide) + _tree.cast(relative, wide) * _tree.cast(
        scale, wide
    )
    return _tree.cast(change, wide) <= bound


def _at_most(value: Array, bound: Any) -> Array:
    return value <= _tree.cast(bound, value.dtype)


# ------------------------------------------------------- leaves that are never moved


def _keep_moving(moving: tuple[bool, ...] | None, tree: PyTree) -> PyTree:
    if moving is None:
        return tree
    return [
        leaf for leaf, moves in zip(jax.tree.leaves(tree), moving, strict=True) if moves
    ]


def moving_leaves(optimizer: Optimizer, state: FitState) -> tuple[bool, ...] | None:
    """Tell for each leaf whether its update is ever other than a literal zero.

    `optax.set_to_zero` and masks around it write a zero into the program; a warm-up
    computes one, and its leaves count.
    """

    def update(grad: Params, opt_state: PyTree, params: Params) -> list[Any]:
        updates, _ = optimizer.update(grad, opt_state, params)
        return jax.tree.leaves(updates)

    try:
        traced = jax.make_jaxpr(update)(state.params, state.opt_state, state.params)
    except Exception:  # it needs more arguments, such as the loss
        return None
    literal = _zero_variables(traced.jaxpr)
    moving = tuple(
        not (_is_zero(variable) or variable in literal)
        for variable in traced.jaxpr.outvars
    )
    return None if all(moving) or not any(moving) else moving


def _zero_variables(jaxpr: Any) -> set[Any]:
    """Return the variables that are zeros spread to a shape, or of a jitted part."""
    zeros: set[Any] = set()
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        if name in ("broadcast_in_dim", "convert_element_type", "copy", "neg"):
            source = equation.invars[0]
            if _is_zero(source) or (_is_variable(source) and source in zeros):
                zeros.update(equation.outvars)
        elif name in ("pjit", "jit") and "jaxpr" in equation.params:
            inner = equation.params["jaxpr"].jaxpr
            inside = _zero_variables(inner)
            for outside, variable in zip(equation.outvars, inner.outvars, strict=True):
                if _is_zero(variable) or variable in inside:
                    zeros.add(outside)
    return zeros


def _is_variable(atom: Any) -> bool:
    return not hasattr(atom, "val")


def _is_zero(atom: Any) -> bool:
    value = getattr(atom, "val", None)
    return value is not None and jnp.ndim(value) == 0 and bool(value == 0)
