"""One step: loss, gradient, update, projection, and whether it may be taken."""

import contextlib
import dataclasses
import inspect
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from phihat import losses
from phihat._core import placement as _placement
from phihat._core import reductions as _reductions
from phihat._core import tree as _tree
from phihat._core.types import Batch, Box, Params, Status
from phihat._engine.bound_loss import UseBatch, bind_loss
from phihat._engine.endings import diagnose, is_running, measures_itself, status_of
from phihat._engine.tolerance import (
    Tolerance,
    is_converged,
    largest_change,
    moving_leaves,
)
from phihat.optimizers import Optimizer
from phihat.results import FitState, StepInfo

__all__ = [
    "STATIC",
    "Attempt",
    "Step",
    "apply_update",
    "attempt",
    "project",
    "step_info",
]

STATIC = {"static": True}
"""Metadata of a field that shapes the program."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Step:
    """What a step is made of: its numbers are leaves, its flags shape the program.

    Called as `step(state, batch) -> (state, info)` it takes one step, unless the state
    has stopped or the step must not be taken.

    Attributes:
      loss_fn: a Partial.
      optimizer: a pair of Partials.
      projection: a Box, a Partial, or None.
      has_aux: the loss returns more than its value.
      has_model_state: the loss takes a model state, and returns the new one.
      stops: a step that is not finite is refused, and ends the fit.
      caller: the public function in whose name errors speak.
      placement: how params and data lie on the devices, or None.
    """

    loss_fn: Any
    optimizer: Optimizer
    projection: Any
    has_aux: bool = dataclasses.field(metadata=STATIC)
    has_model_state: bool = dataclasses.field(metadata=STATIC)
    stops: bool = dataclasses.field(metadata=STATIC)
    caller: str = dataclasses.field(metadata=STATIC)
    placement: _placement.Placement | None = dataclasses.field(metadata=STATIC)

    def __call__(self, state: FitState, batch: Batch) -> tuple[FitState, StepInfo]:
        """Take a step unless the state has stopped, or the step must not be taken."""
        active = (state.status == Status.RUNNING) & is_running(state.opt_state)
        tried = attempt(self, state, lambda fn: fn(batch))
        info = tried.info
        if self.stops and not measures_itself(state.opt_state):
            status, leaf = diagnose(info.loss, info.grad, tried.state.params)
            info = info._replace(status=status, nonfinite_leaf=leaf)
        goes_on = active & (info.status == Status.RUNNING)
        after = _tree.select(goes_on, tried.state, state)
        status = jnp.where(active, info.status, state.status)
        status = jnp.where(status == Status.RUNNING, status_of(after.opt_state), status)
        return after._replace(status=status), info


class Attempt(NamedTuple):
    """A step that was tried.

    Attributes:
      state: the one after it.
      info: what it measured.
      refusal: 0, or NaN where the step must not be taken; None where it always may.
    """

    state: FitState
    info: StepInfo
    refusal: Float[Array, ""] | None


def attempt(
    step: Any, state: FitState, use: UseBatch, tolerance: Tolerance | None = None
) -> Attempt:
    """Try a step from a state."""
    if not isinstance(step, Step):
        return _attempt_step_fn(step, state, use, tolerance)
    if measures_itself(state.opt_state):
        return _attempt_measuring(step, state, use, tolerance)
    state = _keep_in_place(step.placement, state)
    value_fn = bind_loss(step, state, use)
    (loss, (model_state, aux)), grad = jax.value_and_grad(value_fn, has_aux=True)(
        state.params
    )
    if jax.default_backend() != "cpu":
        # Else an accelerator computes them anew in every kernel that reads them.
        loss, grad = jax.lax.optimization_barrier((loss, grad))
    proposal, updates, rate = apply_update(step, state, use, loss, grad)
    proposal = proposal._replace(model_state=model_state)
    info = step_info(loss, grad, updates, aux, rate)
    refusal = _refusal(step, state, proposal, info, tolerance)
    if tolerance is not None and tolerance.loss is not None:
        # A loss that is measured again at the same params is no sign of convergence.
        is_moved = largest_change(state.params, proposal.params) > 0
        unknown = jnp.full_like(proposal.loss, jnp.nan)
        proposal = proposal._replace(loss=jnp.where(is_moved, proposal.loss, unknown))
    return Attempt(_keep_in_place(step.placement, proposal), info, refusal)


def apply_update(
    step: Step, state: FitState, use: UseBatch, loss: Array, grad: Params
) -> tuple[FitState, Params, Array | None]:
    """Return the state after the optimizer's update, the updates, and the rate."""
    optimizer = step.optimizer
    value_fn = bind_loss(step, state, use)
    scalar_fn = lambda params: value_fn(params)[0]  # noqa: E731
    grad_fn = jax.grad(scalar_fn)
    offered = {
        "value": loss,
        "grad": grad,
        "value_fn": _ignore_extra_args(scalar_fn),
        # optax's opaque SAM calls it as grad_fn(params, i)
        "grad_fn": lambda params, *_: grad_fn(params),
        "obj_fn": scalar_fn,
        "box": _full_box(step.projection, state.params),
    }
    extras = _extras(optimizer.update, offered, lambda: _bind_residuals(step, use))
    updates, opt_state = optimizer.update(grad, state.opt_state, state.params, **extras)
    _check_updates(step.caller, updates, state.params)
    opt_state = _same_types(step.caller, opt_state, state.opt_state)
    params = project(step.projection, optax.apply_updates(state.params, updates))
    proposal = state._replace(
        step=state.step + 1,
        params=_same_types(step.caller, params, state.params),
        opt_state=opt_state,
        loss=loss.astype(state.loss.dtype),
    )
    return proposal, updates, _learning_rate(optimizer, state.opt_state, opt_state)


def _attempt_measuring(
    step: Step, state: FitState, use: UseBatch, tolerance: Tolerance | None
) -> Attempt:
    """Try a step of an optimizer that keeps loss and gradient of the params itself."""
    value_fn = bind_loss(step, state, use)
    before = state.opt_state
    offered = {
        "value_fn": _ignore_extra_args(lambda params: value_fn(params)[0]),
        "box": _full_box(step.projection, state.params),
        "tolerance": tolerance,
    }
    update = step.optimizer.update
    extras = _extras(update, offered, lambda: _bind_residuals(step, use))
    _, after = update(before.gradient, before, state.params, **extras)
    after = _same_types(step.caller, after, before)
    params = after.accepted(state.params)
    updates = jax.tree.map(jnp.subtract, params, state.params)
    proposal = state._replace(
        step=state.step + 1,
        params=_same_types(step.caller, params, state.params),
        opt_state=after,
        loss=before.value.astype(state.loss.dtype),
    )
    aux = value_fn(state.params)[1][1] if step.has_aux else None
    info = step_info(before.value, before.gradient, updates, aux)
    return Attempt(proposal, info, None)


def _attempt_step_fn(
    step: Any, state: FitState, use: UseBatch, tolerance: Tolerance | None
) -> Attempt:
    proposal, info = use(lambda batch: step(state, batch))
    refused = info.status != Status.RUNNING
    if tolerance is not None:
        refused |= is_converged(tolerance, None, state, proposal, info)
    zero = jnp.zeros((), _tree.default_float())
    refusal = jnp.where(refused, jnp.asarray(jnp.nan, zero.dtype), zero)
    return Attempt(proposal, info, refusal)


def step_info(
    loss: Array,
    grad: Params,
    updates: Params,
    aux: PyTree = None,
    rate: Array | None = None,
) -> StepInfo:
    """Return what a step measured."""
    return StepInfo(
        loss=loss,
        grad=grad,
        updates=updates,
        aux=aux,
        learning_rate=rate,
        status=jnp.asarray(Status.RUNNING, jnp.int32),
        nonfinite_leaf=jnp.asarray(-1, jnp.int32),
    )


# ------------------------------------------------------------- whether it may be taken


def _refusal(
    step: Step,
    state: FitState,
    proposal: FitState,
    info: StepInfo,
    tolerance: Tolerance | None,
) -> Float[Array, ""] | None:
    """Return 0, or NaN where something is not finite or the tolerance is met."""
    if not step.stops and tolerance is None:
        return None
    total = jnp.zeros((), _tree.default_float())
    if step.stops:
        total += _reductions.zero_or_nan((info.loss, info.grad, proposal.params))
    if tolerance is not None:
        moving = moving_leaves(step.optimizer, state)
        stops = is_converged(tolerance, step.projection, state, proposal, info, moving)
        total += jnp.where(stops, jnp.asarray(jnp.nan, total.dtype), total * 0)
    return total


# -------------------------------------------------------------------- its surroundings


def _keep_in_place(placement: _placement.Placement | None, state: FitState) -> FitState:
    if placement is None:
        return state
    shardings, params = placement.params, state.params
    return state._replace(
        params=_placement.keep(shardings, params),
        opt_state=_placement.keep_like(shardings, params, state.opt_state),
    )


def _learning_rate(optimizer: Optimizer, before: PyTree, after: PyTree) -> Array | None:
    """Return the rate in force, where the optimizer tells exactly one."""
    own = [_rate_at(update, before) for update in _own_updates(optimizer.update)]
    if not own:
        told = optax.tree_utils.tree_get_all_with_path(after, "learning_rate")
        own = [value for _, value in told if isinstance(value, jax.Array)]
    if len(own) != 1 or own[0] is None or jnp.ndim(own[0]) != 0:
        return None
    return _tree.cast(own[0], _tree.default_float())


def _own_updates(update: Any, depth: int = 0) -> list[Any]:
    """Return the updates with a rate of their own inside one, through what wraps them.

    `optax.chain` and masks keep what they wrap in closures, `MultiSteps` in attributes.
    """
    if depth > 8:
        return []
    keywords = getattr(update, "keywords", None)
    if isinstance(keywords, dict) and keywords.get("learning_rate") is not None:
        return [update]
    inside = list(_cell_contents(getattr(update, "__closure__", None) or ()))
    inside += [getattr(update, "func", None)] * hasattr(update, "keywords")
    inside += list(getattr(update, "args", ()))
    inside += list(getattr(getattr(update, "__self__", None), "__dict__", {}).values())
    found = []
    for value in jax.tree.leaves(inside, is_leaf=callable):
        value = getattr(value, "update", value)
        found += _own_updates(value, depth + 1) if callable(value) else []
    return list({id(one): one for one in found}.values())


def _cell_contents(cells: Any) -> Iterator[Any]:
    for cell in cells:
        with contextlib.suppress(ValueError):  # not filled yet
            yield cell.cell_contents


def _rate_at(update: Any, state: PyTree) -> Any:
    """Return the rate of an update of ours at the step that its state counts."""
    rate = update.keywords["learning_rate"]
    if not callable(rate):
        return rate
    has_step = lambda node: "step" in getattr(node, "_fields", ())  # noqa: E731
    nodes = jax.tree.leaves(state, is_leaf=has_step)
    steps = [node.step for node in nodes if has_step(node)]
    return rate(steps[0]) if len(steps) == 1 else None


def _ignore_extra_args(value_fn: Callable[[Params], Array]) -> Callable[..., Array]:
    """Let it take the other extra arguments too, and ignore them.

    A chain hands every argument to all of its members, and optax's line searches
    refuse those that their `value_fn` does not take.
    """

    def value_of(
        params: Params,
        grad_fn: Any = None,
        obj_fn: Any = None,
        box: Any = None,
        residual_fn: Any = None,
    ) -> Array:
        del grad_fn, obj_fn, box, residual_fn
        return value_fn(params)

    return value_of


def _check_updates(caller: str, updates: PyTree, params: Params) -> None:
    """Refuse updates of another shape: to add them would broadcast in silence."""

    def check(path: Any, param: Array, update: Any) -> None:
        if jnp.shape(update) != jnp.shape(param):
            raise ValueError(
                f"{caller}: the optimizer's `update` returns an update of shape "
                f"{list(jnp.shape(update))} for params of shape "
                f"{list(jnp.shape(param))} at "
                f"{jax.tree_util.keystr(path) or 'the only leaf'}; one that takes a "
                "gradient for each row (`optax.contrib.dpsgd`) cannot run here."
            )

    jax.tree_util.tree_map_with_path(check, params, updates)


def _same_types(caller: str, after: PyTree, before: PyTree) -> PyTree:
    """Give every leaf the dtype that it had, as a loop must; refuse other shapes."""
    found = _tree.difference(before, after)
    if found is not None:
        what, old, new = found
        raise TypeError(
            f"{caller}: the optimizer's `update` returns another {what} than its "
            f"`init`, so no compiled loop can carry it: {old} became {new}."
        )
    return _tree.cast_like(after, before)


def project(projection: Any, params: Params) -> Params:
    """Return the params nearest by in a projection's set; None is no projection."""
    if projection is None:
        return params
    return (
        projection.clip(params) if isinstance(projection, Box) else projection(params)
    )


def _full_box(projection: Any, params: Params) -> Box | None:
    """Return a box whose ends are shaped as the params are."""
    if not isinstance(projection, Box):
        return None
    low, high = projection.ends_like(params)
    full = lambda end: jax.tree.map(  # noqa: E731
        lambda leaf, bound: jnp.broadcast_to(
            jnp.asarray(bound, leaf.dtype), leaf.shape
        ),
        params,
        end,
    )
    return jax.tree.unflatten(
        jax.tree.structure(Box(0.0, 0.0)), [full(low), full(high)]
    )


def _bind_residuals(step: Step, use: UseBatch) -> Callable[[Params], PyTree]:
    residual_fn = losses.residual_fn(step.loss_fn)
    return lambda params: use(lambda batch: residual_fn(params, batch))


def _extras(
    update_fn: Callable[..., Any],
    offered: dict[str, Any],
    residual_fn: Callable[[], Callable[..., Any]],
) -> dict[str, Any]:
    """Return those extra arguments that the signature of `update` takes."""
    # The first three are given by position, whatever they are called.
    parameters = list(inspect.signature(update_fn).parameters.values())
    named = {parameter.name for parameter in parameters[3:]}
    takes_any = any(one.kind is one.VAR_KEYWORD for one in parameters)
    if takes_any:
        named |= set(offered)
    chosen = {name: value for name, value in offered.items() if name in named}
    if "residual_fn" in named:
        chosen["residual_fn"] = residual_fn()
    elif takes_any:  # a wrapper hands on what the optimizer inside it may need
        with contextlib.suppress(ValueError):
            chosen["residual_fn"] = residual_fn()
    return chosen
