"""The loop of a fit: one body, run in blocks, in every context.

A block is about a hundred steps, and one page of the history (`pages`). What one step
does is in `loop_step`.

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
from phihat._engine import pages as _pages
from phihat._engine.batches import BatchSource
from phihat._engine.endings import is_running
from phihat._engine.loop_records import (
    AttemptFn,
    Carry,
    Context,
    LoopPlan,
    LoopResult,
    Measured,
    Steps,
)
from phihat._engine.loop_step import first_steps, is_alive, take_step, try_first
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
    sound_params: Params | None = None,
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
      sound_params: likewise.
    """
    if recorder_states is None:
        recorder_states = begin_recorders(recorders, state)
    if evaluate_fn is not None and sound_params is None:
        sound_params = evaluate_fn(state.opt_state, state.params)
    carry = Carry(
        params=state.params,
        opt_state=state.opt_state,
        model_state=state.model_state,
        loss=state.loss,
        last=None,
        sound_params=sound_params,
        recorder_states=recorder_states,
    )
    if source.is_fixed:
        attempt_fn = _traced_once(attempt_fn, source)
    context = Context(attempt_fn, source, state, recorders, plan, evaluate_fn, {}, 1)
    row, last = {}, None
    if recorders or plan.keeps_last:  # else nobody needs the shapes of a step
        row, last = jax.eval_shape(functools.partial(try_first, context), carry)
    if plan.keeps_last:
        carry = carry._replace(last=blank(last))
    num_leaves = len(jax.tree.leaves((state.params, state.opt_state)))
    is_flat = num_leaves > _MANY_LEAVES and (plan.stops_early or not plan.selects)
    block = _pages.block_length(row, plan)
    context = context._replace(row=row, block=block, is_flat=is_flat)
    history = _pages.blank_rows(row, _pages.room(context))
    run = _run_selecting if plan.selects else _run_replaying
    if plan.selects and not plan.stops_early:
        run = _run_scanning
    if plan.is_single:
        run = _run_once
    steps, history = run(context, carry, history)
    last = steps.carry
    return LoopResult(
        state=state._replace(
            step=context.first_step + steps.taken,
            params=last.params,
            opt_state=last.opt_state,
            model_state=last.model_state,
            loss=last.loss,
        ),
        num_taken=steps.taken,
        last=last.last,
        sound_params=last.sound_params,
        history=jax.tree.map(lambda leaf: leaf[: plan.num_rows], history),
        recorder_states=last.recorder_states,
    )


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
) -> tuple[Steps, PyTree]:
    """Run all blocks, each of them whole; reverse differentiation can follow."""
    plan, block = context.plan, context.block

    def run_block(whole: tuple[Steps, PyTree], _: None) -> tuple[Any, None]:
        steps, history = whole
        first = steps.index
        source = _pages.draw(context, first)
        steps = steps._replace(
            page=_pages.blank_rows(context.row, _pages.page_rows(context))
        )
        steps, _ = jax.lax.scan(
            lambda steps, _: (take_step(context, source, first, steps), None),
            steps,
            length=block,
        )
        history = _pages.write(history, steps.page, context.row_of(first))
        return (steps._replace(page={}), history), None

    if plan.remat:
        # A scan does not merge a block with its repetition, so nothing prevents it.
        run_block = jax.checkpoint(run_block, prevent_cse=False)
    start = first_steps(context, carry)
    num_blocks = -(-plan.last // block)
    (steps, history), _ = jax.lax.scan(run_block, (start, history), length=num_blocks)
    return steps, history


def _run_once(context: Context, carry: Carry, history: PyTree) -> tuple[Steps, PyTree]:
    """Take one step by itself.

    XLA's CPU compiler gives convolutions their fast form only outside of loops.
    """
    steps = first_steps(context, carry)
    first, row = steps.index, context.row_of(steps.index)
    steps = steps._replace(page=_pages.read(history, row, 1))
    steps = take_step(context, context.source, first, steps)
    return steps._replace(page={}), _pages.write(history, steps.page, row)


def _run_selecting(
    context: Context, carry: Carry, history: PyTree
) -> tuple[Steps, PyTree]:
    """Run blocks while a step is alive, in this fit or in any other lane."""
    end = jnp.asarray(context.plan.last, jnp.int32)

    def goes_on(steps: Steps, limit: Array) -> Array:
        alive = any_lane(is_alive(context, steps))
        return (steps.index < limit) & alive

    begun = first_steps(context, carry)
    return _run_blocks(context, begun, history, end, goes_on)


def _run_replaying(
    context: Context, carry: Carry, history: PyTree
) -> tuple[Steps, PyTree]:
    """Run blocks without a choice, and again those up to a step that was refused.

    Blocks are run in long segments, so that what a repetition needs is rarely kept.
    The last segment tries one step more, keeps what it measured, and does not take it.
    """
    plan = context.plan
    end = jnp.asarray(plan.end, jnp.int32)

    def goes_on(steps: Steps, limit: Array) -> Array:
        answer = (steps.index < limit) & is_running(steps.carry.opt_state)
        return answer if steps.refusal is None else answer & (steps.refusal == 0)

    def run_segment(whole: Any) -> Any:
        begun, target, measured, history = whole
        is_last = begun.index >= target
        limit = jnp.minimum(begun.index + _SEGMENT_LENGTH, target)
        limit = jnp.where(is_last, begun.index + 1, limit)
        ended, history = _run_blocks(context, begun, history, limit, goes_on)
        steps = ended
        if ended.refusal is not None:
            is_refused = ended.refusal != 0
            target = jnp.where(is_refused, ended.index - 1, target)
            steps = _choose(is_refused | is_last, begun, ended)
            steps = steps._replace(refusal=jnp.zeros_like(ended.refusal))
        if plan.measures_end:
            measured = _known(ended.carry.last)._replace(proposal=ended.carry.params)
            target = jnp.where(is_last, -1, target)
        return steps, target, measured, history

    def is_open(whole: Any) -> Array:
        steps, target, _, _ = whole
        if plan.measures_end:
            return steps.index <= target
        return (steps.index < target) & is_running(steps.carry.opt_state)

    begun = first_steps(context, carry)
    measured = None
    if plan.measures_end:
        measured = _known(carry.last)._replace(proposal=carry.params)
    whole = (begun, end, measured, history)
    steps, _, measured, history = jax.lax.while_loop(is_open, run_segment, whole)
    carry = steps.carry._replace(last=measured)
    return steps._replace(carry=carry, taken=context.offset(steps.index)), history


def _run_blocks(
    context: Context,
    steps: Steps,
    history: PyTree,
    limit: Array,
    goes_on: Callable[[Steps, Array], Array],
) -> tuple[Steps, PyTree]:
    """Run blocks up to a limit, or until their steps do not go on."""
    if context.is_flat:
        return _run_flat(context, steps, history, limit, goes_on)

    def run_block(whole: tuple[Steps, PyTree]) -> tuple[Steps, PyTree]:
        steps, history = whole
        end = jnp.minimum(_pages.block_end(context, steps.index), limit)
        return _run_block(context, steps, history, end, goes_on)

    return jax.lax.while_loop(
        lambda whole: goes_on(whole[0], limit), run_block, (steps, history)
    )


def _run_flat(
    context: Context,
    steps: Steps,
    history: PyTree,
    limit: Array,
    goes_on: Callable[[Steps, Array], Array],
) -> tuple[Steps, PyTree]:
    """Run steps in one loop that carries the whole history."""
    start = jnp.zeros((), jnp.int32)
    steps = jax.lax.while_loop(
        lambda steps: goes_on(steps, limit),
        functools.partial(take_step, context, context.source, start),
        steps._replace(page=history),
    )
    return steps._replace(page={}), steps.page


def _run_block(
    context: Context,
    steps: Steps,
    history: PyTree,
    limit: Array,
    goes_on: Callable[[Steps, Array], Array],
) -> tuple[Steps, PyTree]:
    """Run steps up to a limit, or until they do not go on; write their page."""
    first = steps.index
    source = _pages.draw(context, first)
    row = context.row_of(first)
    page = _pages.blank_rows(context.row, _pages.page_rows(context))
    if context.plan.record_every > 1:  # the block may begin within a row
        page = _pages.read(history, row, _pages.page_rows(context))
    steps = steps._replace(page=page)
    steps = jax.lax.while_loop(
        lambda steps: goes_on(steps, limit),
        functools.partial(take_step, context, source, first),
        steps,
    )
    return steps._replace(page={}), _pages.write(history, steps.page, row)


def _known(measured: Measured | None) -> Measured:
    assert measured is not None
    return measured


def _choose(condition: Array, if_true: Any, if_false: Any) -> Any:
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
