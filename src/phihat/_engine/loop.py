"""The loop of a fit: one body, run in blocks, in every context.

A block is about a hundred steps, whose rows have a small buffer (`history_buffer`).
What one step does is in `loop_step`.

A step that must not be taken (something was not finite, the tolerance is met) is told
by one number, the attempt's `refusal`. There are two ways to heed it:

- *select*: every step chooses between the old and the new values. `taken` counts the
  steps that were taken, and step i is alive only if all before it were. It works under
  `vmap`, and in its scanned form under reverse differentiation.
- *replay*: steps are taken without a choice until one is refused. Then the block is
  run again from its beginning, up to that step: the same body, hence the same bits.
  It costs nothing while all goes well, but a mapped or a differentiated program cannot
  do it.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jaxtyping import Array, Bool, PyTree

from phihat._core.types import Params
from phihat._engine import history_buffer as _buffer
from phihat._engine.batches import BatchSource
from phihat._engine.endings import is_running
from phihat._engine.loop_records import (
    AttemptFn,
    Carry,
    Context,
    LoopPlan,
    LoopResult,
    LoopState,
    Measured,
)
from phihat._engine.loop_step import first_loop_state, is_alive, take_step, try_first
from phihat._engine.recorders import Recorder, blank
from phihat.results import FitState

__all__ = ["LoopPlan", "LoopResult", "Measured", "begin_recorders", "run_loop"]

_SEGMENT_LENGTH = 2**14
"""Steps after which a repetition need not go back further."""

_MANY_LEAVES = 32
"""Leaves above which XLA takes long to compile each loop round another."""


def run_loop(
    attempt_fn: AttemptFn,
    source: BatchSource,
    state: FitState,
    recorders: dict[str, Recorder],
    plan: LoopPlan,
    *,
    evaluate_fn: Callable[[PyTree, Params], Params] | None = None,
    recorder_states: PyTree = None,
    last_finite_params: Params | None = None,
) -> LoopResult:
    """Run the steps of a plan.

    Args:
      attempt_fn: tries a step.
      source: where its batches come from.
      state: where to begin.
      recorders: what to put on record.
      plan: how much, and how.
      evaluate_fn: `(opt_state, params) -> params` to evaluate; then those of the last
        finite loss are kept.
      recorder_states: of the run before, or None to begin with.
      last_finite_params: likewise.
    """
    if recorder_states is None:
        recorder_states = begin_recorders(recorders, state)
    if evaluate_fn is not None and last_finite_params is None:
        last_finite_params = evaluate_fn(state.opt_state, state.params)
    carry = Carry(
        params=state.params,
        opt_state=state.opt_state,
        model_state=state.model_state,
        loss=state.loss,
        last=None,
        last_finite_params=last_finite_params,
        recorder_states=recorder_states,
    )
    if source.is_fixed:
        attempt_fn = _traced_once(attempt_fn, source)
    context = Context(attempt_fn, source, state, recorders, plan, evaluate_fn, {}, 1)
    context, carry = _with_shapes(context, carry)
    history = _buffer.blank_rows(context.row, _buffer.num_buffer_rows(context))
    run = _run_selecting if plan.selects else _run_replaying
    if plan.selects and not plan.stops_early:
        run = _run_scanning
    if plan.is_single:
        run = _run_once
    loop, history = run(context, carry, history)
    last = loop.carry
    return LoopResult(
        state=state._replace(
            step=context.first_step + loop.taken,
            params=last.params,
            opt_state=last.opt_state,
            model_state=last.model_state,
            loss=last.loss,
        ),
        num_taken=loop.taken,
        last=last.last,
        last_finite_params=last.last_finite_params,
        history=jax.tree.map(lambda leaf: leaf[: plan.num_rows], history),
        recorder_states=last.recorder_states,
    )


def _with_shapes(context: Context, carry: Carry) -> tuple[Context, Carry]:
    """Find out what a step measures, and so how long a block is."""
    plan, row, last = context.plan, {}, None
    if context.recorders or plan.keeps_last:  # else nobody needs the shapes of a step
        row, last = jax.eval_shape(functools.partial(try_first, context), carry)
    if plan.keeps_last:
        carry = carry._replace(last=blank(last))
    num_leaves = len(jax.tree.leaves((carry.params, carry.opt_state)))
    is_flat = num_leaves > _MANY_LEAVES and (plan.stops_early or not plan.selects)
    block = _buffer.block_length(row, plan)
    return context._replace(row=row, block=block, is_flat=is_flat), carry


def _traced_once(attempt_fn: AttemptFn, source: BatchSource) -> AttemptFn:
    """Return the attempt with the batch that every step has.

    It is traced for the shapes of what it measures, and then in the loop, where jit
    remembers the first trace.
    """
    try_step = jax.jit(
        lambda state: attempt_fn(state, functools.partial(source.use_fn, state.step))
    )
    return lambda state, use: try_step(state)  # noqa: ARG005


def begin_recorders(recorders: dict[str, Recorder], state: FitState) -> PyTree:
    """Return the states of recorders before the first step of a run."""
    return {name: recorder.begin(state) for name, recorder in recorders.items()}


# ------------------------------------------------------------------- how blocks are run


def _run_scanning(
    context: Context, carry: Carry, history: PyTree
) -> tuple[LoopState, PyTree]:
    """Run all blocks, each of them whole; reverse differentiation can follow."""
    plan, block = context.plan, context.block

    def run_block(whole: tuple[LoopState, PyTree], _: None) -> tuple[Any, None]:
        loop, history = whole
        first = loop.index
        source = _buffer.block_source(context, first)
        loop = loop._replace(
            block_rows=_buffer.blank_rows(context.row, _buffer.rows_per_block(context))
        )
        loop, _ = jax.lax.scan(
            lambda loop, _: (take_step(context, source, first, loop), None),
            loop,
            length=block,
        )
        history = _buffer.write_rows(history, loop.block_rows, context.row_of(first))
        return (loop._replace(block_rows={}), history), None

    if plan.remat:
        # A scan does not merge a block with its repetition, so nothing prevents it.
        run_block = jax.checkpoint(run_block, prevent_cse=False)
    start = first_loop_state(context, carry)
    num_blocks = -(-plan.last // block)
    (loop, history), _ = jax.lax.scan(run_block, (start, history), length=num_blocks)
    return loop, history


def _run_once(
    context: Context, carry: Carry, history: PyTree
) -> tuple[LoopState, PyTree]:
    """Take one step by itself.

    XLA's CPU compiler gives convolutions their fast form only outside of loops.
    """
    loop = first_loop_state(context, carry)
    first, row = loop.index, context.row_of(loop.index)
    loop = loop._replace(block_rows=_buffer.read_rows(history, row, 1))
    loop = take_step(context, context.source, first, loop)
    return loop._replace(block_rows={}), _buffer.write_rows(
        history, loop.block_rows, row
    )


def _run_selecting(
    context: Context, carry: Carry, history: PyTree
) -> tuple[LoopState, PyTree]:
    """Run blocks while a step is alive, in this fit or in any other lane."""
    end = jnp.asarray(context.plan.last, jnp.int32)

    def goes_on(loop: LoopState, limit: Array) -> Array:
        alive = any_lane(is_alive(context, loop))
        return (loop.index < limit) & alive

    begun = first_loop_state(context, carry)
    return _run_blocks(context, begun, history, end, goes_on)


def _run_replaying(
    context: Context, carry: Carry, history: PyTree
) -> tuple[LoopState, PyTree]:
    """Run blocks without a choice, and again those up to a step that was refused.

    Blocks are run in long segments, so that what a repetition needs is rarely kept.
    The last segment tries one step more, keeps what it measured, and does not take it.
    """
    plan = context.plan
    end = jnp.asarray(plan.end, jnp.int32)

    def goes_on(loop: LoopState, limit: Array) -> Array:
        answer = (loop.index < limit) & is_running(loop.carry.opt_state)
        return answer if loop.refusal is None else answer & (loop.refusal == 0)

    def run_segment(whole: Any) -> Any:
        begun, target, measured, history = whole
        is_last = begun.index >= target
        limit = jnp.minimum(begun.index + _SEGMENT_LENGTH, target)
        limit = jnp.where(is_last, begun.index + 1, limit)
        ended, history = _run_blocks(context, begun, history, limit, goes_on)
        loop = ended
        if ended.refusal is not None:
            is_refused = ended.refusal != 0
            target = jnp.where(is_refused, ended.index - 1, target)
            loop = _branch(is_refused | is_last, begun, ended)
            loop = loop._replace(refusal=jnp.zeros_like(ended.refusal))
        if plan.measures_end:
            measured = _not_none(ended.carry.last)._replace(proposal=ended.carry.params)
            target = jnp.where(is_last, -1, target)
        return loop, target, measured, history

    def is_open(whole: Any) -> Array:
        loop, target, _, _ = whole
        if plan.measures_end:
            return loop.index <= target
        return (loop.index < target) & is_running(loop.carry.opt_state)

    begun = first_loop_state(context, carry)
    measured = None
    if plan.measures_end:
        measured = _not_none(carry.last)._replace(proposal=carry.params)
    whole = (begun, end, measured, history)
    loop, _, measured, history = jax.lax.while_loop(is_open, run_segment, whole)
    carry = loop.carry._replace(last=measured)
    return loop._replace(carry=carry, taken=context.offset(loop.index)), history


def _run_blocks(
    context: Context,
    loop: LoopState,
    history: PyTree,
    limit: Array,
    goes_on: Callable[[LoopState, Array], Array],
) -> tuple[LoopState, PyTree]:
    """Run blocks up to a limit, or until their steps do not go on."""
    if context.is_flat:
        return _run_flat(context, loop, history, limit, goes_on)

    def run_block(whole: tuple[LoopState, PyTree]) -> tuple[LoopState, PyTree]:
        loop, history = whole
        end = jnp.minimum(_buffer.block_end(context, loop.index), limit)
        return _run_block(context, loop, history, end, goes_on)

    return jax.lax.while_loop(
        lambda whole: goes_on(whole[0], limit), run_block, (loop, history)
    )


def _run_flat(
    context: Context,
    loop: LoopState,
    history: PyTree,
    limit: Array,
    goes_on: Callable[[LoopState, Array], Array],
) -> tuple[LoopState, PyTree]:
    """Run steps in one loop that carries the whole history."""
    start = jnp.zeros((), jnp.int32)
    loop = jax.lax.while_loop(
        lambda loop: goes_on(loop, limit),
        functools.partial(take_step, context, context.source, start),
        loop._replace(block_rows=history),
    )
    return loop._replace(block_rows={}), loop.block_rows


def _run_block(
    context: Context,
    loop: LoopState,
    history: PyTree,
    limit: Array,
    goes_on: Callable[[LoopState, Array], Array],
) -> tuple[LoopState, PyTree]:
    """Run steps up to a limit, or until they do not go on; write their rows."""
    first = loop.index
    source = _buffer.block_source(context, first)
    row = context.row_of(first)
    block_rows = _buffer.blank_rows(context.row, _buffer.rows_per_block(context))
    if context.plan.record_every > 1:  # the block may begin within a row
        block_rows = _buffer.read_rows(history, row, _buffer.rows_per_block(context))
    loop = loop._replace(block_rows=block_rows)
    loop = jax.lax.while_loop(
        lambda loop: goes_on(loop, limit),
        functools.partial(take_step, context, source, first),
        loop,
    )
    return loop._replace(block_rows={}), _buffer.write_rows(
        history, loop.block_rows, row
    )


def _not_none(measured: Measured | None) -> Measured:
    assert measured is not None
    return measured


def _branch(condition: Array, if_true: Any, if_false: Any) -> Any:
    """Choose by a branch, which compiles to copies and not to kernels."""
    return jax.lax.cond(condition, lambda: if_true, lambda: if_false)


@custom_vmap
def any_lane(is_alive: Bool[Array, ""]) -> Bool[Array, ""]:
    """Tell whether it is so in any lane, as one value for all lanes.

    A loop whose condition is not mapped needs no choice between old and new history.
    """
    return is_alive


@any_lane.def_vmap
def _any_of_lanes(axis_size: int, in_batched: list[bool], is_alive: Array) -> Any:
    del axis_size
    return any_lane(jnp.any(is_alive) if in_batched[0] else is_alive), False
