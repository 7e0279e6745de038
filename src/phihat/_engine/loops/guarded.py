"""Every step guarded by a choice between the old and the new state.

Example:
  >>> from phihat import fit, gradient_descent
  >>> import jax
  >>> losses = jax.vmap(lambda rate: fit(
  ...     lambda x: x**2, 1.0, gradient_descent(rate), num_steps=1
  ... ).loss)(jax.numpy.array([0.25, 0.5]))
  >>> print(losses)
  [0.25 0.  ]
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from phihat._core import tree as _tree
from phihat._core.types import Status
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
from phihat._engine.recorders import Recorder, blank
from phihat.results import FitState, StepInfo

__all__ = ["run_guarded"]

_Guarded = tuple[Carry, Int[Array, ""]]
"""What the guarded loop carries, with the number of the leaf that was not finite."""


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
    start, stride = first_step(state, segment), plan.record_every
    row_recorders, watchers = divide(recorders)
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
        after = Carry(after._replace(status=status), carry.recorder_states)
        if watchers:
            asked = lambda: feed.batch_fn(start + offset)  # noqa: E731
            seen, _ = ask_recorders(watchers, carry, info, asked)
            after = keep_seen(after, seen, goes_on)
        return (after, leaf), (active, info, goes_on)

    def take_silently(loop: _Guarded, offset: Any) -> tuple[_Guarded, None]:
        return take(loop, offset)[0], None

    def take_row(loop: _Guarded, offsets: Any) -> tuple[_Guarded, dict[str, Any]]:
        (after, leaf), (active, info, goes_on) = take(loop, offsets[0])
        batch_fn = lambda: feed.batch_fn(start + offsets[0])  # noqa: E731
        seen, row = ask_recorders(row_recorders, loop[0], info, batch_fn)
        # A stopped fit asks no more: what its recorders keep stays as it was.
        loop = (keep_seen(after, seen, goes_on), leaf)
        if stride > 1:
            loop, _ = jax.lax.scan(take_silently, loop, offsets[1:])
        return loop, _tree.select(active, row, blank(row))

    def take_block(loop: _Guarded, block: Any) -> tuple[_Guarded, dict[str, Any]]:
        offsets = block * (rows * stride) + jnp.arange(rows * stride, dtype=jnp.int32)
        return jax.lax.scan(take_row, loop, offsets.reshape(rows, stride))

    loop = (start_loop(state, recorders, segment), jnp.asarray(-1, jnp.int32))
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
        limit = max(1, STRETCH // plan.record_every)
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
        return block + 1, loop, write(history, written, block * rows)

    first = jnp.zeros((), jnp.int32)
    written = jax.eval_shape(take_block, loop, first)[1]
    row = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), written
    )
    history = blank_rows(row, blocks * rows)
    _, loop, history = jax.lax.while_loop(is_running, advance, (first, loop, history))
    return loop, history
