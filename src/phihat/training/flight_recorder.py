"""The flight recorder: the last states of a fit, and its bad step once more."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial
from jaxtyping import Array, Int

from phihat._core import calls as _calls
from phihat._core import checks as _checks
from phihat._core import tree as _tree
from phihat._core.types import Batch, Box, LossFn, Params, Status
from phihat._engine.bound_loss import bind_loss, subkey
from phihat._engine.endings import diagnose
from phihat._engine.recorders import Recorder
from phihat._engine.spec import check_opt_state, prepare
from phihat._engine.step import Step, attempt
from phihat.results import FitResult, FitState, StepInfo

__all__ = ["Replay", "flight_recorder", "replay"]


class Replay(NamedTuple):
    """A step that went wrong, repeated.

    Attributes:
      step: its absolute number.
      status: what is wrong with it, as the fit reported it; RUNNING where the step
        cannot be made to fail again.
      quantity: "loss", "gradient" or "params", the first that was not finite, or None.
      path: the path of the first leaf of it that was not finite, or None.
      rows: the numbers of the batch's rows in the data, [B], or None where the batch is
        all of the data.
      batch: the batch itself.
      state: the state before the step.
      info: what the step measures; its updates are None without an optimizer.
      params: the params after it; None without an optimizer.
    """

    step: int
    status: Status
    quantity: str | None
    path: str | None
    rows: Int[Array, "B"] | None
    batch: Batch
    state: FitState
    info: StepInfo
    params: Params | None


@_calls.public
def flight_recorder(num_states: int = 8) -> Recorder:
    """Record the last states of a fit; you can continue from each of them.

    With `record={"flight": flight_recorder(8)}` the history holds a `FitState` whose
    leaves are `[K, ...]`: the states before the last K steps that were taken, oldest
    first, whatever `record_every` says. Where fewer steps were taken, the first ones
    are the start, with `step` -1. One of them is gone on from by
    `fit(..., state=jax.tree.map(lambda leaf: leaf[i], states))`.
    The state before a bad step, which was not taken, is `result.state`.

    Args:
      num_states: K, at least 1. A step writes one state, and the fit carries K.

    Returns:
      A recorder, for `fit` and `train`; under `jax.vmap` each lane has its own.

    Raises:
      ValueError: `num_states` is below 1.

    Example:
      >>> import phihat
      >>> result = phihat.fit(
      ...     lambda x: x**2,
      ...     1.0,
      ...     phihat.gradient_descent(0.25),
      ...     num_steps=5,
      ...     record={"flight": flight_recorder(3)},
      ... )
      >>> print(result.history["flight"].step, result.history["flight"].params)
      [2 3 4] [0.25   0.125  0.0625]
    """
    count = _checks.check_count("flight_recorder", "num_states", num_states)
    return Recorder(
        init_fn=Partial(_init_buffer, count=_tree.Static(count)),
        update_fn=Partial(_write),
        final_fn=Partial(_unroll),
    )


def _init_buffer(state: FitState, *, count: _tree.Static) -> tuple[FitState, Array]:
    states = jax.tree.map(
        lambda leaf: jnp.broadcast_to(leaf, (count.value, *leaf.shape)), state
    )
    nobody = jnp.full((count.value,), -1, jnp.int32)
    return states._replace(step=nobody), jnp.zeros((), jnp.int32)


def _write(
    kept: tuple[FitState, Array], state: FitState, info: StepInfo, batch: Batch
) -> tuple[tuple[FitState, Array], None]:
    del info, batch
    states, written = kept
    place = written % states.step.shape[0]
    states = jax.tree.map(
        lambda buffer, leaf: jax.lax.dynamic_update_index_in_dim(
            buffer, leaf, place, axis=0
        ),
        states,
        state,
    )
    return (states, written + 1), None


def _unroll(kept: tuple[FitState, Array]) -> FitState:
    states, written = kept
    return jax.tree.map(lambda buffer: jnp.roll(buffer, -written, axis=0), states)


@_calls.public
def replay(
    result: FitResult,
    loss_fn: LossFn,
    data: Batch = None,
    *,
    optimizer: optax.GradientTransformation | None = None,
    batch_size: int | None = None,
    sampler: Callable[..., Any] | None = None,
    has_aux: bool = False,
    projection: Callable[[Params], Params] | Box | None = None,
    lane: int | tuple[int, ...] | None = None,
) -> Replay:
    """Repeat the step at which a fit stopped, and tell what went wrong.

    The state before it is in the result, and its batch follows from the key and the
    step, so nothing need have been recorded.

    Args:
      result: of a fit with an infinite or NaN number in it; of many lanes too.
      loss_fn: as it was given to the fit, like the arguments up to `projection`.
      data: those of the fit; for a stream, its batch number `result.num_steps`.
      optimizer: needed where the update went wrong; gives the params after the step.
      batch_size: rows per minibatch.
      sampler: how batches were drawn instead.
      has_aux: the loss returns `(value, aux)`.
      projection: applied to the params after the update.
      lane: which lane; None is the first that failed.

    Returns:
      A `Replay`.

    Raises:
      ValueError: no number was infinite or NaN, or the optimizer is needed.
      TypeError: an argument has the wrong type; the message says what to pass.

    Example:
      >>> import phihat
      >>> x, y = phihat.datasets.linear_regression()
      >>> y = y.at[7].set(jnp.nan)
      >>> loss_fn = phihat.losses.least_squares(phihat.models.linear)
      >>> result = phihat.fit(
      ...     loss_fn,
      ...     {"weight": 0.0, "bias": 0.0},
      ...     phihat.adam(0.1),
      ...     (x, y),
      ...     num_steps=9,
      ...     batch_size=3,
      ...     key=jax.random.key(0),
      ... )
      >>> again = replay(result, loss_fn, (x, y), batch_size=3)
      >>> print(again.quantity, 7 in again.rows)
      loss True
    """
    if not isinstance(result, FitResult):
        raise TypeError(
            f"replay: `result` must be a FitResult, got {_checks.brief(result)}."
        )
    state, status = _pick_lane(result, lane)
    spec = prepare(
        "replay",
        loss_fn,
        None,
        optimizer or optax.identity(),
        data,
        num_steps=1,
        batch_size=batch_size,
        sampler=sampler,
        has_aux=has_aux,
        projection=projection,
        state=state,
    )
    if optimizer is None and status == Status.NONFINITE_PARAMS:
        raise ValueError(
            "replay: the params went wrong in the update; pass the `optimizer` of the "
            "fit."
        )
    batch, rows = _draw(spec.sampler, data, state)
    if optimizer is None:
        info, params = jax.jit(_measure)(spec.step, state, batch), None
    else:
        check_opt_state("replay", spec.step.optimizer, state)
        params, info = jax.jit(_propose)(spec.step, state, batch)
    found = Status(int(info.status))
    leaf = int(info.nonfinite_leaf)
    paths = _tree.leaf_paths(state.params)
    return Replay(
        step=int(state.step),
        status=found,
        quantity=_QUANTITIES.get(found),
        path=(paths[leaf] or "the only leaf") if leaf >= 0 else None,
        rows=rows,
        batch=batch,
        state=state,
        info=info,
        params=params,
    )


_QUANTITIES = {
    Status.NONFINITE_LOSS: "loss",
    Status.NONFINITE_GRADIENT: "gradient",
    Status.NONFINITE_PARAMS: "params",
}


def _pick_lane(result: FitResult, lane: Any) -> tuple[FitState, Status]:
    """Return the state and the status of one lane, running again."""
    status = np.asarray(result.status)
    failed = np.argwhere(status >= Status.NONFINITE_LOSS)
    if len(failed) == 0:
        raise ValueError(
            "replay: `result` has no infinite or NaN number; its status is "
            f"{Status(int(status.flat[0])).name}."
        )
    place = tuple(failed[0]) if lane is None else np.index_exp[lane]
    if len(place) != status.ndim:
        raise ValueError(
            f"replay: `lane` must have {status.ndim} numbers, got {lane!r}."
        )
    state = jax.tree.map(lambda leaf: leaf[place] if place else leaf, result.state)
    code = Status(int(status[place]))
    if code < Status.NONFINITE_LOSS:
        raise ValueError(f"replay: lane {lane} ended with {code.name}.")
    return state._replace(status=jnp.asarray(Status.RUNNING, jnp.int32)), code


def _draw(sampler: Any, data: Batch, state: FitState) -> tuple[Batch, Any]:
    """Return the batch of a state's step, and the numbers of its rows."""
    if sampler is None:
        return data, None
    batches = sampler(data)
    key = None if state.key is None else subkey(state.key, "sampling")
    is_last = int(state.step) % batches.steps_per_epoch == batches.steps_per_epoch - 1
    batch_fn, last_size = batches.batch_fn, None
    if is_last and batches.last_batch_fn is not None:
        batch_fn, last_size = batches.last_batch_fn, batches.last_size
    rows = None
    if batches.rows_fn is not None:
        rows = batches.rows_fn(key, state.step)[:last_size]
    return batch_fn(key, state.step), rows


def _propose(step: Step, state: FitState, batch: Batch) -> tuple[Params, StepInfo]:
    """Return the params after a step, and what it measures."""
    tried = attempt(step, state, lambda fn: fn(batch))
    status, leaf = diagnose(tried.info.loss, tried.info.grad, tried.state.params)
    info = tried.info._replace(status=status, nonfinite_leaf=leaf)
    return tried.state.params, info


def _measure(step: Step, state: FitState, batch: Batch) -> StepInfo:
    """Return what can be told of a step without its optimizer."""
    value_fn = bind_loss(step, state, lambda fn: fn(batch))
    (loss, (_, aux)), grad = jax.value_and_grad(value_fn, has_aux=True)(state.params)
    status, leaf = diagnose(loss, grad)
    return StepInfo(loss, grad, None, aux, None, status, leaf)
