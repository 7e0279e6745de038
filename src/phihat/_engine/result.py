"""What a run that has ended returns: its result, and its complete history."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from phihat._core import reductions as _reductions
from phihat._core import tree as _tree
from phihat._core.types import Batch, Params, PyTree, Status
from phihat._engine.endings import measures_itself
from phihat._engine.loop import LoopResult
from phihat._engine.run import Ending, final_values
from phihat._engine.spec import FitSpec
from phihat.results import FitResult, FitState

__all__ = ["as_result", "complete_history"]


def as_result(
    ending: Ending,
    history: dict[str, Any],
    num_steps: Any,
    data: Batch,
    *,
    is_of_minibatch: bool,
) -> FitResult:
    """Return the result of a run that has ended."""
    state = ending.state
    return FitResult(
        params=ending.params,
        loss=ending.loss,
        grad_norm=_reductions.global_norm(ending.grad),
        history=history,
        status=state.status,
        num_steps=num_steps,
        state=state,
        nonfinite_leaf=ending.nonfinite_leaf,
        nonfinite_data_leaf=_inspect_data(data, state.status),
        data_paths=tuple(_tree.leaf_paths(data)),
        loss_of="a minibatch" if is_of_minibatch else "all data",
    )


def complete_history(
    spec: FitSpec, ran: LoopResult, start: FitState, final: Params
) -> dict[str, Any]:
    """Return the history with its steps, the last params, and final values."""
    history = dict(ran.history)
    num_rows = -(-(spec.num_steps or 0) // spec.record_every)
    if spec.num_steps is None and history:
        num_rows = len(jax.tree.leaves(history)[0])
    offsets = jnp.arange(num_rows, dtype=jnp.int32) * spec.record_every
    if "params" in history:
        last = ran.num_taken
        if measures_itself(ran.state.opt_state):  # its last point is tried no more
            last = jnp.maximum(last - 1, 0)
        measured = offsets <= last
        history["params"] = _append(history["params"], measured, final)
    if spec.record:
        history["step"] = start.step + offsets
    return history | final_values(spec, ran.recorder_states)


def _inspect_data(data: Batch, status: Array) -> Array:
    """Return the number of the first data leaf that is not finite, where one failed."""
    leaves = jax.tree.leaves(data)
    is_float = [jnp.issubdtype(jnp.result_type(leaf), jnp.inexact) for leaf in leaves]
    nothing = jnp.asarray(-1, jnp.int32)

    def inspect_leaves() -> Array:
        finite_or_zero = [
            leaf if inexact else jnp.zeros(())
            for leaf, inexact in zip(leaves, is_float, strict=True)
        ]
        return _reductions.first_nonfinite(finite_or_zero)

    if not any(is_float):
        return nothing
    return jax.lax.cond(
        status >= Status.NONFINITE_LOSS, inspect_leaves, lambda: nothing
    )


def _append(rows: PyTree, measured: Bool[Array, " R"], final: Params) -> PyTree:
    """Repeat the final params after a stop, and append them as the last row."""

    def append(rows: Array, last: Array) -> Array:
        shape = (-1,) + (1,) * last.ndim
        rows = jnp.where(measured.reshape(shape), rows, last[None])
        return jnp.concatenate([rows, last[None]])

    return jax.tree.map(append, rows, final)
