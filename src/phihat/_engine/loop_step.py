"""One step of the loop: it is tried, put on record, and taken or not."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from phihat._core import tree as _tree
from phihat._engine import history_buffer as _buffer
from phihat._engine.batches import BatchSource
from phihat._engine.endings import is_running, measures_itself
from phihat._engine.loop_records import Carry, Context, LoopState, Measured
from phihat._engine.recorders import Recorder, blank
from phihat._engine.step import Attempt
from phihat.results import FitState, StepInfo

__all__ = ["first_loop_state", "is_alive", "take_step", "try_first"]


def first_loop_state(context: Context, carry: Carry) -> LoopState:
    plan = context.plan
    begin = jnp.asarray(plan.begin, jnp.int32)
    index = begin - jnp.asarray(plan.num_measurements, jnp.int32)
    refusal = None
    if not plan.selects and not measures_itself(carry.opt_state):
        refusal = jnp.zeros((), _tree.default_float())
    return LoopState(index, carry, begin, refusal, {})


def is_alive(context: Context, loop: LoopState) -> Array:
    offset = context.offset(loop.index)
    return (loop.taken == offset) & is_running(loop.carry.opt_state)


def state_before(context: Context, carry: Carry, offset: Any) -> FitState:
    """Return the state before a step, as attempts and recorders see it."""
    return context.state._replace(
        step=context.first_step + offset,
        params=carry.params,
        opt_state=carry.opt_state,
        model_state=carry.model_state,
        loss=carry.loss,
    )


def take_step(
    context: Context, source: BatchSource, block: Array, loop: LoopState
) -> LoopState:
    """Take the step of this index, or leave all as it is where it must not be taken."""
    plan, before = context.plan, loop.carry
    # The step's number comes from the loop and not from the state: under vmap it stays
    # one number for all lanes, and so does the choice of the batch's shape.
    offset = context.offset(loop.index)
    # The step that is only measured sees the batch of the last one that was taken.
    seen = jnp.minimum(offset, plan.end - 1) if plan.measures_end else offset
    state = state_before(context, before, seen)
    use = functools.partial(source.use_fn, state.step)
    tried = context.attempt_fn(state, use)
    after, info = tried.state, tried.info
    is_counted = (loop.index >= plan.begin) & (loop.index < plan.end)
    alive, ok, taken = None, None, loop.taken
    if plan.selects:
        alive = is_alive(context, loop)
        ok = _is_taken(alive, tried)
        if plan.measures_end:
            ok &= loop.index < plan.end
        taken = taken + (ok & is_counted).astype(jnp.int32)
    recorder_states, block_rows = _record(
        context, source, block, loop, info, alive, ok, is_counted
    )
    last = Measured(info.loss, info.grad) if plan.keeps_last else None
    last_finite = None
    if context.evaluate_fn is not None:
        last_finite = context.evaluate_fn(before.opt_state, before.params)
    carry = Carry(
        params=after.params,
        opt_state=after.opt_state,
        model_state=after.model_state,
        loss=after.loss,
        last=last,
        last_finite_params=last_finite,
        recorder_states={},
    )
    if ok is not None and alive is not None:
        carry = _tree.select(ok, carry, before._replace(recorder_states={}, last=last))
        carry = carry._replace(last=_tree.select(alive, last, before.last))
    refusal = loop.refusal
    if refusal is not None and tried.refusal is not None:
        refusal = tried.refusal
    return LoopState(
        index=loop.index + 1,
        carry=carry._replace(recorder_states=recorder_states),
        taken=taken,
        refusal=refusal,
        block_rows=block_rows,
    )


def _is_taken(alive: Array, tried: Attempt) -> Array:
    """Tell whether a step is taken."""
    if tried.refusal is None:
        return alive
    # XLA's CPU compiler copies what a value is computed from into all who read it: a
    # sum over all leaves into a choice for each leaf. A product of matrices is never
    # copied, so that the program grows as the leaves do, and not as their square.
    square = jnp.full((2, 2), tried.refusal)
    return alive & ((square @ square)[0, 0] == 0)


# -------------------------------------------------------------------------- the records


def _record(
    context: Context,
    source: BatchSource,
    block: Array,
    loop: LoopState,
    info: StepInfo,
    alive: Array | None,
    ok: Array | None,
    is_counted: Array,
) -> tuple[dict[str, PyTree], dict[str, Any]]:
    """Return the recorders' states and the rows of the block after a step."""
    plan, old = context.plan, loop.carry.recorder_states
    offset = context.offset(loop.index)
    writers, watchers = _split_recorders(context.recorders)
    state = state_before(context, loop.carry, offset)
    batch_fn = lambda: source.batch_fn(state.step)  # noqa: E731

    def ask(recorders: dict[str, Recorder]) -> tuple[Any, Any]:
        return _update_recorders(recorders, old, state, info, batch_fn)

    first_row = context.row_of(block)
    place = context.row_of(loop.index) - first_row
    old_states = {name: old[name] for name in writers}

    def write() -> tuple[Any, Any]:
        states, row = ask(writers)
        if alive is not None:
            row = _tree.select(alive, row, blank(row))
        rows = jax.tree.map(lambda leaf: leaf[None], row)
        return states, _buffer.write_rows(loop.block_rows, rows, place)

    seen, block_rows = old_states, loop.block_rows
    if writers and plan.record_every == 1:
        seen, block_rows = write()
    elif writers:
        is_due = offset % plan.record_every == 0
        seen, block_rows = jax.lax.cond(
            is_due, write, lambda: (old_states, loop.block_rows)
        )
    if watchers:
        seen |= ask(watchers)[0]
    # A stopped fit asks no more: what its recorders keep stays as it was.
    keeps = ok
    if measures_itself(loop.carry.opt_state):
        keeps = is_counted if ok is None else ok & is_counted
    if keeps is not None:
        seen = _tree.select(keeps, seen, {name: old[name] for name in seen})
    return seen, block_rows


def try_first(context: Context, carry: Carry) -> tuple[PyTree, Measured]:
    """Return a row of the history and what a step measures; for their shapes."""
    state = state_before(context, carry, context.plan.begin)
    use = functools.partial(context.source.use_fn, state.step)
    info = context.attempt_fn(state, use).info
    writers, _ = _split_recorders(context.recorders)
    batch_fn = lambda: context.source.batch_fn(state.step)  # noqa: E731
    row = _update_recorders(writers, carry.recorder_states, state, info, batch_fn)[1]
    return row, Measured(info.loss, info.grad)


def _split_recorders(
    recorders: dict[str, Recorder],
) -> tuple[dict[str, Recorder], dict[str, Recorder]]:
    """Return those that write rows, and those that watch every step."""
    watchers = {name: one for name, one in recorders.items() if one.final_fn}
    return {k: v for k, v in recorders.items() if k not in watchers}, watchers


def _update_recorders(
    recorders: dict[str, Recorder],
    recorder_states: PyTree,
    state: FitState,
    info: StepInfo,
    batch_fn: Callable[[], PyTree],
) -> tuple[dict[str, PyTree], dict[str, Any]]:
    """Return the recorders' new states and the row that they measured."""
    states, row = {}, {}
    for name, recorder in recorders.items():
        before = recorder_states[name]
        # A recorder without a state does not look at the batch: none is gathered.
        batch = None if before is None else batch_fn()
        after, value = recorder.update_fn(before, state, info, batch)
        states[name] = _tree.strong(after)
        row[name] = _tree.strong(value)
    return states, row
