"""Blocks of steps, and the small buffers in which their rows of the history are kept.

These take a few hundred bytes, and are written into the history once a block: on the
CPU a loop whose buffers are all small runs as one kernel.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from phihat._engine.batches import BatchSource
from phihat._engine.loop_records import Context, LoopPlan
from phihat._engine.recorders import blank

__all__ = [
    "blank_rows",
    "block_end",
    "block_length",
    "block_source",
    "num_buffer_rows",
    "read_rows",
    "rows_per_block",
    "write_rows",
]

_BLOCK = 100
"""Steps of a block where their rows set no limit."""

_SMALL_BUFFER = 512
"""Bytes up to which XLA calls a buffer small."""

_FEW_ROWS = 16
"""Rows below which a small buffer is not worth its copying."""


def block_length(row: PyTree, plan: LoopPlan) -> int:
    """Return the steps of a block, whole rows of the history."""
    if plan.is_single:
        return plan.record_every
    sizes = [leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(row)]
    rows = _BLOCK
    if sizes and _SMALL_BUFFER // max(*sizes, 1) >= _FEW_ROWS:
        rows = min(rows, _SMALL_BUFFER // max(*sizes, 1))
    length = max(1, rows // plan.record_every) * plan.record_every
    if plan.stops_early or not plan.selects:
        return min(length, plan.num_rows * plan.record_every)
    if plan.remat:
        length = math.isqrt(max(plan.last - 1, 0)) + 1
    # Blocks of one length, with little left over.
    num_blocks = -(-plan.last // length)
    length = -(-plan.last // num_blocks)
    return -(-length // plan.record_every) * plan.record_every


def rows_per_block(context: Context) -> int:
    return -(-context.block // context.plan.record_every)


def num_buffer_rows(context: Context) -> int:
    """Return the rows of the history with room for the last block."""
    if context.is_flat:
        return context.plan.num_rows + 1
    return context.plan.num_rows + rows_per_block(context)


def block_end(context: Context, first: Array) -> Array:
    """Return the step before which a block ends, at the end of a row."""
    stride = context.plan.record_every
    return context.row_of(first) * stride + context.block


def block_source(context: Context, first: Array) -> BatchSource:
    plan = context.plan
    first = context.offset(first)
    if plan.measures_end:
        first = jnp.minimum(first, plan.end - 1)
    step = context.first_step + first
    return context.source.draw_ahead(step, context.block)


def blank_rows(row: PyTree, num_rows: int) -> PyTree:
    return blank(
        jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct((num_rows, *leaf.shape), leaf.dtype), row
        )
    )


def read_rows(history: PyTree, at: Any, rows: int) -> PyTree:
    def read(buffer: Array) -> Array:
        return jax.lax.dynamic_slice_in_dim(
            buffer, at, rows, axis=0, allow_negative_indices=False
        )

    return jax.tree.map(read, history)


def write_rows(history: PyTree, rows: PyTree, at: Any) -> PyTree:
    def write(buffer: Array, value: Array) -> Array:
        return jax.lax.dynamic_update_slice_in_dim(
            buffer, value, at, axis=0, allow_negative_indices=False
        )

    return jax.tree.map(write, history, rows)
