"""Steps in unguarded blocks; one that went wrong is run again, up to that step.

Example:
  >>> from phihat import fit, gradient_descent
  >>> result = fit(lambda x: x**4, 9.0, gradient_descent(1.0), num_steps=9)
  >>> print(result.num_steps, bool(result.loss > 1e9))
  2 True
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from phihat._core import tree as _tree
from phihat._core.types import Batch, Status
from phihat._engine.batches import Feed
from phihat._engine.loops.parts import (
    STRETCH,
    Carry,
    Plan,
    Ran,
    Segment,
    ask_recorders,
    blank_rows,
    divide,
    first_step,
    keep_seen,
    start_loop,
    write,
)
from phihat._engine.recorders import Recorder
from phihat._engine.step import diagnose
from phihat.results import FitState, StepInfo

__all__ = ["is_repeatable", "run_blocks"]

_BLOCK = 2**14
"""Steps of a block: its bookkeeping is forgotten, and a fit that fails takes at most
twice the time of its steps."""

_SMALL_BUFFER = 512
"""Bytes up to which XLA calls a buffer small."""

_FEW_ROWS = 16
"""Rows of a page below which turning pages costs more than it saves."""

_REPEATABLE_ENTRIES = 2**17
"""Entries of the state above which a copy of it costs more than a choice per step."""


class _Blocks(NamedTuple):
    """What `run_blocks` carries from block to block.

    `begin` is where the block begins at step `offset`; the run ends at step `target`.
    """

    begin: Carry
    offset: Int[Array, ""]
    target: Int[Array, ""]
    status: Int[Array, ""]
    nonfinite_leaf: Int[Array, ""]
    grad: PyTree | None
    history: dict[str, Any]


class _Steps(NamedTuple):
    """What a block carries from step to step: no more than it must, in time for each.

    `flaw` is 0, or NaN as soon as something was not finite; `grad` tells afterwards
    what. `status` and `nonfinite_leaf` are there where a step itself may ask for the
    end. `rows` are those of the history from the row `first` on.
    """

    carry: Carry
    offset: Int[Array, ""]
    flaw: Float[Array, ""] | None
    grad: PyTree | None
    status: Int[Array, ""] | None
    nonfinite_leaf: Int[Array, ""] | None
    first: Int[Array, ""]
    rows: dict[str, Any]


def run_blocks(
    propose_fn: Callable[..., tuple[FitState, StepInfo]],
    feed: Feed,
    state: FitState,
    recorders: dict[str, Recorder],
    plan: Plan,
    *,
    asks_later: bool,
    may_stop: bool,
    segment: Segment | None = None,
) -> Ran:
    """Run steps in unguarded blocks, repeating one in which a step may not be taken.

    Args:
      propose_fn: as in `run_guarded`, like the four that follow.
      feed: where its batches come from.
      state: a running state.
      recorders: what to put on record.
      plan: how many steps, how many rows.
      asks_later: the step does not look for what is not finite; it is done here.
      may_stop: the step's own status may be another than RUNNING.
      segment: run this part alone, with at most `plan.num_rows` rows.

    Returns:
      As `run_guarded`; the loop always ends where the fit stops.
    """
    start, stride = first_step(state, segment), plan.record_every
    row_recorders, watchers = divide(recorders)
    repeats = is_repeatable(state)
    nobody = jnp.asarray(-1, jnp.int32)
    running = jnp.asarray(Status.RUNNING, jnp.int32)
    carry = start_loop(state, recorders, segment)
    row = _row_shape(propose_fn, feed, recorders, carry)
    page = _rows_of_a_page(row, stride)
    length = STRETCH if may_stop else _BLOCK

    def row_of(offset: Array) -> Array:
        return offset if stride == 1 else offset // stride

    def goes_on(steps: _Steps, limit: Array) -> Array:
        answer = steps.offset < limit
        if steps.flaw is not None:
            answer &= steps.flaw == 0
        if steps.status is not None:
            answer &= steps.status == Status.RUNNING
        return answer

    def take_step(batch_fn: Callable[[Array], Batch], steps: _Steps) -> _Steps:
        step = start + steps.offset
        carry = steps.carry._replace(state=steps.carry.state._replace(step=step))
        proposal, info = propose_fn(carry.state, batch_fn(step))
        place = row_of(steps.offset) - steps.first

        def ask() -> tuple[PyTree, dict[str, Any]]:
            states, new = ask_recorders(
                row_recorders, carry, info, lambda: feed.batch_fn(step)
            )
            return states, _as_rows(new)

        if stride == 1:
            seen, new = ask()
        else:
            is_due = steps.offset % stride == 0
            old = {name: carry.recorder_states[name] for name in row_recorders}
            keep = lambda: (old, _read(steps.rows, place, 1))  # noqa: E731
            seen, new = jax.lax.cond(is_due, ask, keep)
        if watchers:
            seen |= ask_recorders(watchers, carry, info, lambda: feed.batch_fn(step))[0]
        recorder_states = carry.recorder_states | seen
        flaw = steps.flaw
        if flaw is not None:
            flaw += _tree.flaw((info.loss, info.grad, proposal.params))
        if not repeats:
            is_taken = info.status == Status.RUNNING
            proposal = _tree.select(is_taken, proposal, carry.state)
            recorder_states = keep_seen(carry, seen, is_taken).recorder_states
        # The step is not carried: it is start + offset, and each number costs time.
        return _Steps(
            carry=Carry(proposal._replace(step=None), recorder_states),
            offset=steps.offset + 1,
            flaw=flaw,
            grad=info.grad if asks_later else None,
            status=info.status if may_stop else None,
            nonfinite_leaf=info.nonfinite_leaf if may_stop else None,
            first=steps.first,
            rows=write(steps.rows, new, place),
        )

    def take_steps(batch_fn: Any, steps: _Steps, limit: Array) -> _Steps:
        return jax.lax.while_loop(
            lambda steps: goes_on(steps, limit),
            functools.partial(take_step, batch_fn),
            steps,
        )

    def turn_page(steps: _Steps, limit: Array) -> _Steps:
        """Run to the end of a page, of what is drawn, or of the epoch."""
        begin, first, history = steps.offset, steps.first, steps.rows
        if page:
            first = row_of(begin)
            limit = jnp.minimum(limit, (first + page) * stride)
            steps = steps._replace(first=first, rows=_read(history, first, page))
        batch_fn, last_batch_fn = feed.batch_fn, feed.last_batch_fn
        if feed.draw_fn is not None:
            batch_fn, drawn_last_fn = feed.draw_fn(start + begin)
            last_batch_fn = None if last_batch_fn is None else drawn_last_fn
            limit = jnp.minimum(limit, begin + feed.num_drawn)
        if last_batch_fn is None:
            end = take_steps(batch_fn, steps, limit)
        else:
            turn = (start + begin) % feed.steps_per_epoch
            last = begin + feed.steps_per_epoch - 1 - turn
            end = take_steps(batch_fn, steps, jnp.minimum(limit, last))
            end = take_steps(last_batch_fn, end, jnp.minimum(limit, last + 1))
        if page:
            end = end._replace(rows=write(history, end.rows, first))
        return end

    def take_block(blocks: _Blocks) -> _Blocks:
        offset = blocks.offset
        limit = jnp.minimum(offset + length, blocks.target)
        steps = _Steps(
            carry=blocks.begin,
            offset=offset,
            flaw=jnp.zeros((), _tree.default_float()) if asks_later else None,
            grad=blocks.grad,
            status=running if may_stop else None,
            nonfinite_leaf=nobody if may_stop else None,
            first=jnp.zeros((), jnp.int32),
            rows=blocks.history,
        )
        if page or feed.draw_fn is not None or feed.last_batch_fn is not None:
            end = jax.lax.while_loop(
                lambda steps: goes_on(steps, limit),
                lambda steps: turn_page(steps, limit),
                steps,
            )
        else:
            end = take_steps(feed.batch_fn, steps, limit)
        status = running if end.status is None else end.status
        leaf = nobody if end.nonfinite_leaf is None else end.nonfinite_leaf
        if end.flaw is not None:
            bad = end.carry.state
            found, found_leaf = diagnose(bad.loss, end.grad, bad.params)
            # Where the fit has converged, the params of the next step do not matter.
            is_flawed = (end.flaw != 0) & (status != Status.CONVERGED)
            status = jnp.where(is_flawed, found, status)
            leaf = jnp.where(is_flawed, found_leaf, leaf)
        failed = status != Status.RUNNING
        reached = end.offset - failed.astype(jnp.int32)
        begin, next_offset = end.carry, reached
        if repeats:
            begin = _tree.select(failed, blocks.begin, end.carry)
            next_offset = jnp.where(failed, offset, reached)
        return _Blocks(
            begin=begin,
            offset=next_offset,
            target=jnp.where(failed, reached, blocks.target),
            status=jnp.where(failed, status, blocks.status),
            nonfinite_leaf=jnp.where(failed, leaf, blocks.nonfinite_leaf),
            grad=end.grad,
            history=end.rows,
        )

    begin, target = jnp.zeros((), jnp.int32), jnp.asarray(plan.num_steps, jnp.int32)
    status = running
    if segment is not None:  # which may follow one that stopped
        begin, status = segment.begin, state.status
        target = jnp.where(status == Status.RUNNING, segment.end, begin)
    end = jax.lax.while_loop(
        lambda blocks: blocks.offset < blocks.target,
        take_block,
        _Blocks(
            begin=carry._replace(state=state._replace(step=None)),
            offset=begin,
            target=target,
            status=status,
            nonfinite_leaf=nobody,
            grad=jax.tree.map(jnp.zeros_like, state.params) if asks_later else None,
            history=blank_rows(row, plan.num_rows + max(page - 1, 0)),
        ),
    )
    history = jax.tree.map(lambda leaf: leaf[: plan.num_rows], end.history)
    final = end.begin.state._replace(status=end.status, step=start + end.offset)
    return Ran(final, end.nonfinite_leaf, history, end.begin.recorder_states)


def _rows_of_a_page(row: PyTree, stride: int) -> int:
    """Return how many rows are kept apart while steps run, or 0 for none.

    XLA runs the kernels of a loop's body one after the other, at half the cost of
    handing them round, where they are few or none of their buffers exceeds 512 bytes.
    The whole history would exceed it.
    """
    sizes = [leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(row)]
    rows = _SMALL_BUFFER // max([*sizes, 1])
    is_worth_it = sizes and rows >= _FEW_ROWS
    return max(1, min(rows, _BLOCK // stride)) if is_worth_it else 0


def is_repeatable(state: FitState) -> bool:
    """Tell whether `run_blocks` repeats steps of this state rather than guard each."""
    entries = sum(
        leaf.size for leaf in jax.tree.leaves((state.params, state.opt_state))
    )
    return entries <= _REPEATABLE_ENTRIES


def _row_shape(
    propose_fn: Callable[..., tuple[FitState, StepInfo]],
    feed: Feed,
    recorders: dict[str, Recorder],
    carry: Carry,
) -> PyTree:
    """Return the shapes of one row of the history."""
    row_recorders, _ = divide(recorders)

    def measure(carry: Carry) -> PyTree:
        step = carry.state.step
        _, info = feed.use_fn(step, lambda batch: propose_fn(carry.state, batch))
        return ask_recorders(row_recorders, carry, info, lambda: feed.batch_fn(step))[1]

    return jax.eval_shape(measure, carry)


def _as_rows(row: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: leaf[None], row)


def _read(history: PyTree, at: Any, rows: int) -> PyTree:
    def read(buffer: Array) -> Array:
        return jax.lax.dynamic_slice_in_dim(
            buffer, at, rows, axis=0, allow_negative_indices=False
        )

    return jax.tree.map(read, history)
