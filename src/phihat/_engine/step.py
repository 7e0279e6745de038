"""One step: loss, gradient, update, projection, and whether it may be taken.

Example:
  >>> from phihat import fitting, gradient_descent
  >>> optimizer = gradient_descent(0.5)
  >>> step_fn = fitting.make_step(lambda x: 1.0 / x, optimizer)
  >>> state, info = step_fn(fitting.init(0.0, optimizer), None)
  >>> from phihat import Status
  >>> Status(int(state.status)).name, float(state.params)
  ('NONFINITE_LOSS', 0.0)
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import Partial
from jaxtyping import Array, PyTree

from phihat import losses
from phihat._core import checks as _checks
from phihat._core import placement as _placement
from phihat._core import tree as _tree
from phihat._core.types import Batch, Params, RandomKey, Status
from phihat.optimizers import Optimizer
from phihat.results import FitState, StepInfo

__all__ = [
    "Tolerance",
    "as_proposal",
    "bind_loss",
    "diagnose",
    "guarded_step",
    "may_stall",
    "place",
    "project",
    "propose",
    "propose_until",
    "subkey",
]


class Tolerance(NamedTuple):
    r"""When a fit has converged: as soon as one of the criteria that are given is met.

    Attributes:
      gradient: the largest absolute gradient entry is at most this; with a projection
        $P$, the largest entry of $P(\phi - g) - \phi$.
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
    """

    gradient: float | None = None
    loss: float | None = None
    params: float | None = None
    relative: float = 0.0


def guarded_step(
    loss_fn: Any,
    optimizer: Optimizer,
    projection: Any,
    state: FitState,
    batch: Batch,
    **flags: _tree.Static,
) -> tuple[FitState, StepInfo]:
    """Take a step unless the state has stopped, or the step must not be taken."""
    proposal, info = propose(loss_fn, optimizer, projection, state, batch, **flags)
    active = state.status == Status.RUNNING
    goes_on = active & (info.status == Status.RUNNING)
    after = _tree.select(goes_on, proposal, state)
    return after._replace(status=jnp.where(active, info.status, state.status)), info


def propose(
    loss_fn: Any,
    optimizer: Optimizer,
    projection: Any,
    state: FitState,
    batch: Batch,
    *,
    has_aux: _tree.Static,
    nonfinite: _tree.Static,
    placement: _tree.Static | None = None,
) -> tuple[FitState, StepInfo]:
    """Return the state after a step, and in the info whether it may be taken."""
    state = _keep_in_place(placement, state)
    value_fn = bind_loss(loss_fn, batch, state, has_aux.value, placement)
    scalar_fn = lambda params: value_fn(params)[0]  # noqa: E731
    grad_fn = jax.grad(scalar_fn)
    (loss, aux), grad = jax.value_and_grad(value_fn, has_aux=True)(state.params)
    if jax.default_backend() != "cpu":
        # Else an accelerator computes them anew in every kernel that reads them.
        loss, grad = jax.lax.optimization_barrier((loss, grad))
    extras = _extras(
        optimizer.update,
        {
            "value": loss,
            "grad": grad,
            "value_fn": _deaf(scalar_fn),
            # optax's opaque SAM calls it as grad_fn(params, i)
            "grad_fn": lambda params, *_: grad_fn(params),
            "obj_fn": scalar_fn,
        },
        lambda: _bind_residuals(loss_fn, batch),
    )
    updates, opt_state = optimizer.update(grad, state.opt_state, state.params, **extras)
    _check_updates(updates, state.params)
    opt_state = _same_types(opt_state, state.opt_state)
    params = project(projection, optax.apply_updates(state.params, updates))
    params = _same_types(params, state.params)
    status = jnp.asarray(Status.RUNNING, jnp.int32)
    leaf = jnp.asarray(-1, jnp.int32)
    if nonfinite.value == "stop":
        status, leaf = diagnose(loss, grad, params)
    for stalled in _signals(opt_state, "is_stalled"):
        halts = stalled & (status == Status.RUNNING)
        status = jnp.where(halts, jnp.asarray(Status.STALLED, jnp.int32), status)
    info = StepInfo(
        loss=loss,
        grad=grad,
        updates=updates,
        aux=aux,
        learning_rate=_learning_rate(optimizer, state.opt_state, opt_state),
        status=status,
        nonfinite_leaf=leaf,
    )
    proposal = FitState(
        step=state.step + 1,
        params=params,
        opt_state=opt_state,
        key=state.key,
        status=state.status,
        loss=loss.astype(state.loss.dtype),
    )
    return _keep_in_place(placement, proposal), info


def place(step_fn: Partial, call: str, *, params: Params, **others: PyTree) -> Partial:
    """Let a step that `make_step` made keep its params and batches where they lie.

    Args:
      step_fn: the step.
      call: the public function on whose behalf it is placed, for the message.
      params: those of the start.
      **others: by name what else the step will meet, `data` among them.

    Raises:
      ValueError: arrays were put on different sets of devices.
    """
    placement = _placement.placement_of(call, params=params, **others)
    if placement is None:
        return step_fn
    keywords = {**step_fn.keywords, "placement": _tree.Static(placement)}
    return Partial(step_fn.func, *step_fn.args, **keywords)


def _keep_in_place(placement: _tree.Static | None, state: FitState) -> FitState:
    if placement is None:
        return state
    shardings, params = placement.value.params, state.params
    return state._replace(
        params=_placement.keep(shardings, params),
        opt_state=_placement.keep_like(shardings, params, state.opt_state),
    )


def as_proposal(step_fn: Partial, *, asks_later: bool) -> Partial:
    """Return the unguarded step of one that `make_step` made.

    One who asks later looks himself for what is not finite.
    """
    keywords = dict(step_fn.keywords)
    if asks_later:
        keywords["nonfinite"] = _tree.Static("continue")
    return Partial(propose, *step_fn.args, **keywords)


def may_stall(opt_state: PyTree) -> bool:
    """Tell whether an optimizer may say that it can make no further progress."""
    return bool(_signals(opt_state, "is_stalled"))


def propose_until(
    propose: Callable[..., tuple[FitState, StepInfo]],
    tolerance: Tolerance,
    projection: Any,
    state: FitState,
    batch: Batch,
) -> tuple[FitState, StepInfo]:
    """Propose a step, and stop before it where the tolerance is met."""
    proposal, info = propose(state, batch)
    converged = jnp.asarray(False)
    if tolerance.gradient is not None:
        residual = info.grad
        if projection is not None:
            moved = jax.tree.map(jnp.subtract, state.params, info.grad)
            residual = jax.tree.map(
                jnp.subtract, project(projection, moved), state.params
            )
        converged |= _at_most(_tree.max_abs(residual), tolerance.gradient)
    if tolerance.loss is not None:
        change = jnp.abs(info.loss.astype(state.loss.dtype) - state.loss)
        scale = jnp.abs(info.loss)
        converged |= _within(change, tolerance.loss, tolerance.relative, scale)
    if tolerance.params is not None:
        moved = jax.tree.map(jnp.subtract, proposal.params, state.params)
        change, scale = _tree.max_abs(moved), _tree.max_abs(state.params)
        converged |= _within(change, tolerance.params, tolerance.relative, scale)
    for negative in _signals(proposal.opt_state, "negative_curvature"):
        converged &= ~negative
    # Where the point is good enough, it does not matter that the next one is not.
    is_sound = jnp.isfinite(info.loss) & _tree.all_finite(info.grad)
    status = jnp.where(
        converged & is_sound, jnp.asarray(Status.CONVERGED, jnp.int32), info.status
    )
    return proposal, info._replace(status=status)


def _within(change: Array, absolute: Any, relative: Any, scale: Array) -> Array:
    wide = _tree.default_float()
    bound = _tree.cast(absolute, wide) + _tree.cast(relative, wide) * _tree.cast(
        scale, wide
    )
    return _tree.cast(change, wide) <= bound


def _at_most(value: Array, bound: Any) -> Array:
    return value <= _tree.cast(bound, value.dtype)


def diagnose(loss: Array, *trees: PyTree) -> tuple[Array, Array]:
    """Return the status, and the first leaf that is not finite, gradients first."""
    status = jnp.asarray(Status.RUNNING, jnp.int32)
    leaf = jnp.asarray(-1, jnp.int32)
    codes = (Status.NONFINITE_GRADIENT, Status.NONFINITE_PARAMS)
    for tree, code in reversed(list(zip(trees, codes, strict=False))):
        found = _tree.first_nonfinite(tree)
        leaf = jnp.where(found >= 0, found, leaf)
        status = jnp.where(found >= 0, jnp.asarray(code, jnp.int32), status)
    failed = jnp.asarray(Status.NONFINITE_LOSS, jnp.int32)
    return jnp.where(jnp.isfinite(loss), status, failed), leaf


def _signals(opt_state: PyTree, field: str) -> list[Array]:
    """Return the values of a field, wherever a node of the state has it."""
    has_field = lambda node: field in getattr(node, "_fields", ())  # noqa: E731
    nodes = jax.tree.leaves(opt_state, is_leaf=has_field)
    return [getattr(node, field) for node in nodes if has_field(node)]


def _learning_rate(optimizer: Optimizer, before: PyTree, after: PyTree) -> Array | None:
    """Return the rate in force, where the optimizer tells it."""
    keywords = getattr(optimizer.update, "keywords", {})
    rate: Any = keywords.get("learning_rate")
    if callable(rate):
        rate = rate(before.step) if hasattr(before, "step") else None
    if rate is None:
        told = optax.tree_utils.tree_get_all_with_path(after, "learning_rate")
        rates = [value for _, value in told if isinstance(value, jax.Array)]
        rate = rates[0] if len(rates) == 1 else None
    if rate is None or callable(rate) or jnp.ndim(rate) != 0:
        return None
    return _tree.cast(rate, _tree.default_float())


def _deaf(value_fn: Callable[[Params], Array]) -> Callable[..., Array]:
    """Let it take the other extra arguments too, and ignore them.

    A chain hands every argument to all of its members, and optax's line searches
    refuse those that their `value_fn` does not take.
    """

    def value_of(params: Params, grad_fn: Any = None, obj_fn: Any = None) -> Array:
        del grad_fn, obj_fn
        return value_fn(params)

    return value_of


def _check_updates(updates: PyTree, params: Params) -> None:
    """Refuse updates of another shape: to add them would broadcast in silence."""

    def check(path: Any, param: Array, update: Any) -> None:
        if jnp.shape(update) != jnp.shape(param):
            raise ValueError(
                "fit: the optimizer's `update` returns an update of shape "
                f"{list(jnp.shape(update))} for params of shape "
                f"{list(jnp.shape(param))} at "
                f"{jax.tree_util.keystr(path) or 'the only leaf'}; one that takes a "
                "gradient for each row (`optax.contrib.dpsgd`) cannot run here."
            )

    jax.tree_util.tree_map_with_path(check, params, updates)


def _same_types(after: PyTree, before: PyTree) -> PyTree:
    """Give every leaf the dtype that it had, as a loop must; refuse other shapes."""
    old, new = jax.tree.structure(before), jax.tree.structure(after)
    if old != new:
        raise TypeError(
            "fit: the optimizer's `update` returns a state of another structure than "
            f"its `init`, so no compiled loop can carry it: {old} became {new}."
        )
    unlike = _tree.unlike_leaf(before, after)
    if unlike is not None:
        path, old_shape, new_shape = unlike
        raise TypeError(
            "fit: the optimizer's `update` changes the shape of "
            f"{path or 'a leaf'} from {old_shape} to {new_shape}, so no compiled loop "
            "can carry it."
        )
    return jax.tree.map(
        lambda one, other: other if _tree.is_key(one) else _tree.cast(other, one.dtype),
        before,
        after,
    )


# --------------------------------------------------------------------------- the loss


def bind_loss(
    loss_fn: Any,
    batch: Batch,
    state: FitState,
    has_aux: bool,
    placement: _tree.Static | None = None,
) -> Callable[[Params], tuple[Array, PyTree]]:
    """Return `params -> (loss, aux)` on a batch, checked where it is traced.

    Where a placement is given, params, gradients and the batch lie as it says: the
    transpose of keeping params in place keeps their gradients there.
    """
    keep = lambda params: params  # noqa: E731
    if placement is not None:
        keep = functools.partial(_placement.keep, placement.value.params)
        batch = _placement.keep_rows(placement.value.data, batch)
    arguments = () if batch is None else (batch,)
    extra = {}
    if _checks.takes_argument(loss_fn, "key"):
        if state.key is None:
            raise ValueError(
                "fit: `loss_fn` takes a key, so `key` is needed: pass "
                "`key=jax.random.key(0)`."
            )
        extra["key"] = jax.random.fold_in(subkey(state.key, "loss"), state.step)
    _check_signature(loss_fn, len(arguments), extra)

    def value_fn(params: Params) -> tuple[Array, PyTree]:
        return _split_aux(loss_fn(keep(params), *arguments, **extra), has_aux)

    return value_fn


def _check_signature(loss_fn: Any, num_batches: int, extra: dict[str, Any]) -> None:
    try:
        signature = inspect.signature(loss_fn)
    except (TypeError, ValueError):
        return
    try:
        signature.bind(*(None,) * (1 + num_batches), **extra)
    except TypeError as error:
        called = "(params, batch)" if num_batches else "(params)"
        cure = (
            "make one array or tuple of its data, or bind the rest with "
            "`jax.tree_util.Partial`"
            if num_batches
            else "pass the data to the fit"
        )
        raise TypeError(
            f"fit: `loss_fn` is called as {called}, but its signature is {signature}; "
            f"{cure}."
        ) from error


def _split_aux(output: Any, has_aux: bool) -> tuple[Array, PyTree]:
    if has_aux and not (isinstance(output, tuple) and len(output) == 2):
        raise TypeError(
            "fit: with `has_aux=True`, `loss_fn` must return `(loss, aux)`, got "
            f"{_checks.brief(output)}."
        )
    loss, aux = output if has_aux else (output, None)
    if isinstance(loss, (tuple, list, dict)) or loss is None:
        raise TypeError(
            f"fit: `loss_fn` must return a scalar, got a {type(loss).__name__}; for "
            "`(loss, aux)` pass `has_aux=True`."
        )
    if jnp.ndim(loss) != 0:
        raise ValueError(
            f"fit: `loss_fn` must return a scalar, got shape {list(jnp.shape(loss))}; "
            "take its sum or mean."
        )
    if not jnp.issubdtype(jnp.result_type(loss), jnp.floating):
        raise TypeError(
            "fit: `loss_fn` must return a floating-point scalar, got "
            f"{jnp.result_type(loss)}."
        )
    return jnp.asarray(loss), aux


def _bind_residuals(loss_fn: Any, batch: Batch) -> Callable[[Params], PyTree]:
    residual_fn = losses.residual_fn(loss_fn)
    return lambda params: residual_fn(params, batch)


def _extras(
    update_fn: Callable[..., Any],
    offered: dict[str, Any],
    residual_fn: Callable[[], Callable[..., Any]],
) -> dict[str, Any]:
    """Return those extra arguments that the signature of `update` takes."""
    parameters = inspect.signature(update_fn).parameters.values()
    named = {parameter.name for parameter in parameters}
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        named |= set(offered)
    chosen = {name: value for name, value in offered.items() if name in named}
    if "residual_fn" in named:
        chosen["residual_fn"] = residual_fn()
    return chosen


_STREAMS = {"sampling": 0, "loss": 1}
"""The fit's key is split once, into one key for each use."""


def subkey(key: RandomKey, stream: str) -> RandomKey:
    return jax.random.fold_in(key, _STREAMS[stream])


def project(projection: Any, params: Params) -> Params:
    return params if projection is None else projection(params)
