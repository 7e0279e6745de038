"""The loop: steps, their guard and the history, in two shapes of the same meaning.

Both run `num_steps` steps, stop at the first step that may not be taken (its `status`
says why) and leave the state as it was before that step. They differ in what they cost.

- `run_blocks`, for one fit on the CPU. Choosing between the old and the new state at
  every step costs a tiny fit as much as the step itself. So a block of steps runs
  unguarded until a sum over all it meets is no longer finite; where one is not, the
  block is run again from its start up to that step, by the same compiled body, hence
  to the same bits. Trip counts are run-time numbers and the rows of the history are
  written to a page of fixed size, so the body compiles the same whatever the number of
  steps, and n steps then m are n + m to the bit.
- `run_guarded`, for everything else: under `vmap` the choice costs a few per cent, on
  an accelerator nothing, and its `scan` can be differentiated in reverse.

Example:
  >>> from phihat import _loop
  >>> _loop.Plan(num_steps=100, record_every=30).num_rows
  4
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from phihat import _tree
from phihat._feed import Feed
from phihat._records import Recorder, blank
from phihat._step import diagnose
from phihat._types import Batch, Status
from phihat.results import FitState, StepInfo

__all__ = ["Plan", "Ran", "Segment", "is_repeatable", "run_blocks", "run_guarded"]

_BLOCK = 2**14
"""Steps of a block: its bookkeeping is forgotten, and a fit that fails takes at most
twice the time of its steps."""

_STRETCH = 128
"""Steps of a block where a stop is the usual end: repeated, or run for nothing."""

_SMALL_BUFFER = 512
"""Bytes up to which XLA calls a buffer small."""

_FEW_ROWS = 16
"""Rows of a page below which turning pages costs more than it saves."""

_REPEATABLE_ENTRIES = 2**17
"""Entries of the state above which a copy of it costs more than a choice per step."""


class Plan(NamedTuple):
    """The static shape of a run.

    Attributes:
      num_steps: the budget.
      record_every: steps per row of the history.
    """

    num_steps: int
    record_every: int

    @property
    def num_rows(self) -> int:
        """Rows of the history: those of an unfinished stride count."""
        return -(-self.num_steps // self.record_every)


class Segment(NamedTuple):
    """A part of a run whose other parts run by themselves; steps are its numbers.

    Steps count from the row that was begun last: `begin` is below `record_every`, and
    where it is not zero, the first row of the segment's history was written before.

    Attributes:
      begin: the first step, int32 [].
      end: the step before which the segment ends, int32 [].
      recorder_states: of the segment before, or None to begin with.
    """

    begin: Int[Array, ""]
    end: Int[Array, ""]
    recorder_states: PyTree


class Ran(NamedTuple):
    """What a loop returns.

    Attributes:
      state: the last one, its status RUNNING where the budget was used.
      nonfinite_leaf: the number of the leaf that was not finite, or -1.
      history: blank after a stop.
      recorder_states: those after the last step taken.
    """

    state: FitState
    nonfinite_leaf: Int[Array, ""]
    history: dict[str, Any]
    recorder_states: PyTree


class _Carry(NamedTuple):
    """What both loops carry from step to step."""

    state: FitState
    recorder_states: PyTree


_Guarded = tuple[_Carry, Int[Array, ""]]
"""What the guarded loop carries, with the number of the leaf that was not finite."""


# ----------------------------------------------------------------- guarded, everywhere


def run_guarded(
    propose_fn: Callable[..., tuple[FitState, StepInfo]],
    feed: Feed,
    state: FitState,
    recorders: dict[str, Recorder],
    plan: Plan,
    *,
    stops_early: bool,
    remat: bool = False,
    segment: Segment | None = None,
) -> Ran:
    """Run steps, each guarded by a choice between the old and the new state.

    Args:
      propose_fn: `(state, batch) -> (state, info)`, the step, unguarded.
      feed: where its batches come from.
      state: a running state.
      recorders: what to put on record.
      plan: how many steps, how many rows.
      stops_early: end the loop once the fit has stopped, at the price of reverse
        differentiation; else the remaining steps run and change nothing.
      remat: cut the run into segments that reverse differentiation computes anew.
      segment: run this part alone, of at most `plan.num_steps` steps.

    Returns:
      The last state, the leaf that was not finite, and the history.
    """
    start, stride = _first_step(state, segment), plan.record_every
    row_recorders, watchers = _divide(recorders)
    blocks, rows = _split_rows(plan, stops_early, remat)
    is_padded = blocks * rows * stride > plan.num_steps

    def take(loop: _Guarded, offset: Any) -> tuple[_Guarded, Any]:
        # The step's number comes from the loop and not from the state: under vmap it
        # stays one number for all lanes, and so does the choice of the batch's shape.
        carry, leaf = loop
        before = carry.state
        active = before.status == Status.RUNNING
        if segment is not None:
            active &= (offset >= segment.begin) & (offset < segment.end)
        elif is_padded:
            active &= offset < plan.num_steps
        proposal, info = feed.use_fn(
            start + offset, lambda batch: propose_fn(before, batch)
        )
        goes_on = active & (info.status == Status.RUNNING)
        after = _tree.select(goes_on, proposal, before)
        status = jnp.where(active, info.status, before.status)
        leaf = jnp.where(active, info.nonfinite_leaf, leaf)
        after = _Carry(after._replace(status=status), carry.recorder_states)
        if watchers:
            asked = lambda: feed.batch_fn(start + offset)  # noqa: E731
            seen, _ = _ask(watchers, carry, info, asked)
            after = _keep(after, seen, goes_on)
        return (after, leaf), (active, info, goes_on)

    def take_silently(loop: _Guarded, offset: Any) -> tuple[_Guarded, None]:
        return take(loop, offset)[0], None

    def take_row(loop: _Guarded, offsets: Any) -> tuple[_Guarded, dict[str, Any]]:
        (after, leaf), (active, info, goes_on) = take(loop, offsets[0])
        batch_fn = lambda: feed.batch_fn(start + offsets[0])  # noqa: E731
        seen, row = _ask(row_recorders, loop[0], info, batch_fn)
        # A stopped fit asks no more: what its recorders keep stays as it was.
        loop = (_keep(after, seen, goes_on), leaf)
        if stride > 1:
            loop, _ = jax.lax.scan(take_silently, loop, offsets[1:])
        return loop, _tree.select(active, row, blank(row))

    def take_block(loop: _Guarded, block: Any) -> tuple[_Guarded, dict[str, Any]]:
        offsets = block * (rows * stride) + jnp.arange(rows * stride, dtype=jnp.int32)
        return jax.lax.scan(take_row, loop, offsets.reshape(rows, stride))

    loop = (_start(state, recorders, segment), jnp.asarray(-1, jnp.int32))
    if stops_early:
        loop, history = _scan_until_stopped(take_block, loop, blocks, rows)
    elif remat:
        # A scan does not merge a segment with its repetition, so nothing prevents it.
        part = jax.checkpoint(take_block, prevent_cse=False)
        loop, history = jax.lax.scan(part, loop, jnp.arange(blocks, dtype=jnp.int32))
        history = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), history)
    else:
        loop, history = take_block(loop, 0)
    history = jax.tree.map(lambda leaf: leaf[: plan.num_rows], history)
    carry, leaf = loop
    return Ran(carry.state, leaf, history, carry.recorder_states)


def _split_rows(plan: Plan, stops_early: bool, remat: bool) -> tuple[int, int]:
    """Return the number of blocks and the rows of each, with little left over."""
    limit = plan.num_rows
    if stops_early:
        limit = max(1, _STRETCH // plan.record_every)
    elif remat:
        limit = math.isqrt(plan.num_rows - 1) + 1
    blocks = -(-plan.num_rows // limit)
    return blocks, -(-plan.num_rows // blocks)


def _scan_until_stopped(
    take_block: Callable[..., Any], loop: Any, blocks: int, rows: int
) -> tuple[Any, dict[str, Any]]:
    """Run blocks while the fit runs; the history is written once a block."""

    def is_running(whole: Any) -> Array:
        block, (carry, _), _ = whole
        return (block < blocks) & (carry.state.status == Status.RUNNING)

    def advance(whole: Any) -> Any:
        block, loop, history = whole
        loop, written = take_block(loop, block)
        return block + 1, loop, _write(history, written, block * rows)

    first = jnp.zeros((), jnp.int32)
    written = jax.eval_shape(take_block, loop, first)[1]
    row = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), written
    )
    history = _blank_rows(row, blocks * rows)
    _, loop, history = jax.lax.while_loop(is_running, advance, (first, loop, history))
    return loop, history


# -------------------------------------------------------------- blocks, for one CPU fit


class _Blocks(NamedTuple):
    """What `run_blocks` carries from block to block.

    `begin` is where the block begins at step `offset`; the run ends at step `target`.
    """

    begin: _Carry
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

    carry: _Carry
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
    start, stride = _first_step(state, segment), plan.record_every
    row_recorders, watchers = _divide(recorders)
    repeats = is_repeatable(state)
    nobody = jnp.asarray(-1, jnp.int32)
    running = jnp.asarray(Status.RUNNING, jnp.int32)
    carry = _start(state, recorders, segment)
    row = _row_shape(propose_fn, feed, recorders, carry)
    page = _rows_of_a_page(row, stride)
    length = _STRETCH if may_stop else _BLOCK

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
            states, new = _ask(row_recorders, carry, info, lambda: feed.batch_fn(step))
            return states, _as_rows(new)

        if stride == 1:
            seen, new = ask()
        else:
            is_due = steps.offset % stride == 0
            old = {name: carry.recorder_states[name] for name in row_recorders}
            keep = lambda: (old, _read(steps.rows, place, 1))  # noqa: E731
            seen, new = jax.lax.cond(is_due, ask, keep)
        if watchers:
            seen |= _ask(watchers, carry, info, lambda: feed.batch_fn(step))[0]
        recorder_states = carry.recorder_states | seen
        flaw = steps.flaw
        if flaw is not None:
            flaw += _tree.flaw((info.loss, info.grad, proposal.params))
        if not repeats:
            is_taken = info.status == Status.RUNNING
            proposal = _tree.select(is_taken, proposal, carry.state)
            recorder_states = _keep(carry, seen, is_taken).recorder_states
        # The step is not carried: it is start + offset, and each number costs time.
        return _Steps(
            carry=_Carry(proposal._replace(step=None), recorder_states),
            offset=steps.offset + 1,
            flaw=flaw,
            grad=info.grad if asks_later else None,
            status=info.status if may_stop else None,
            nonfinite_leaf=info.nonfinite_leaf if may_stop else None,
            first=steps.first,
            rows=_write(steps.rows, new, place),
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
            end = end._replace(rows=_write(history, end.rows, first))
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
            history=_blank_rows(row, plan.num_rows + max(page - 1, 0)),
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


# -------------------------------------------------------------------- private helpers


def _first_step(state: FitState, segment: Segment | None) -> Int[Array, ""]:
    """Return the step from which offsets count."""
    return state.step if segment is None else state.step - segment.begin


def _start(
    state: FitState, recorders: dict[str, Recorder], segment: Segment | None
) -> _Carry:
    if segment is not None and segment.recorder_states is not None:
        return _Carry(state, segment.recorder_states)
    recorder_states = {
        name: recorder.begin(state) for name, recorder in recorders.items()
    }
    return _Carry(state, recorder_states)


def _divide(
    recorders: dict[str, Recorder],
) -> tuple[dict[str, Recorder], dict[str, Recorder]]:
    """Return those that write rows, and those that watch every step."""
    watchers = {name: one for name, one in recorders.items() if one.final_fn}
    return {k: v for k, v in recorders.items() if k not in watchers}, watchers


def _keep(carry: _Carry, seen: dict[str, PyTree], goes_on: Array) -> _Carry:
    """Let recorders keep what they saw, if the step was taken."""
    old = {name: carry.recorder_states[name] for name in seen}
    chosen = _tree.select(goes_on, seen, old)
    return carry._replace(recorder_states=carry.recorder_states | chosen)


def _row_shape(
    propose_fn: Callable[..., tuple[FitState, StepInfo]],
    feed: Feed,
    recorders: dict[str, Recorder],
    carry: _Carry,
) -> PyTree:
    """Return the shapes of one row of the history."""
    row_recorders, _ = _divide(recorders)

    def measure(carry: _Carry) -> PyTree:
        step = carry.state.step
        _, info = feed.use_fn(step, lambda batch: propose_fn(carry.state, batch))
        return _ask(row_recorders, carry, info, lambda: feed.batch_fn(step))[1]

    return jax.eval_shape(measure, carry)


def _ask(
    recorders: dict[str, Recorder],
    carry: _Carry,
    info: StepInfo,
    batch_fn: Callable[[], PyTree],
) -> tuple[PyTree, dict[str, Any]]:
    """Return the recorders' new states and the row that they measured."""
    states, row = {}, {}
    for name, recorder in recorders.items():
        # A recorder without a state does not look at the batch: none is gathered.
        batch = None if carry.recorder_states[name] is None else batch_fn()
        state, value = recorder.update_fn(
            carry.recorder_states[name], carry.state, info, batch
        )
        states[name] = _tree.strong(state)
        row[name] = _tree.strong(value)
    return states, row


def _blank_rows(row: PyTree, num_rows: int) -> PyTree:
    return blank(
        jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct((num_rows, *leaf.shape), leaf.dtype), row
        )
    )


def _as_rows(row: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: leaf[None], row)


def _read(history: PyTree, at: Any, rows: int) -> PyTree:
    def read(buffer: Array) -> Array:
        return jax.lax.dynamic_slice_in_dim(
            buffer, at, rows, axis=0, allow_negative_indices=False
        )

    return jax.tree.map(read, history)


def _write(history: PyTree, rows: PyTree, at: Any) -> PyTree:
    def write(buffer: Array, value: Array) -> Array:
        return jax.lax.dynamic_update_slice_in_dim(
            buffer, value, at, axis=0, allow_negative_indices=False
        )

    return jax.tree.map(write, history, rows)
