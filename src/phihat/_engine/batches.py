"""How a step gets its batch: full data, minibatches, a shorter last one."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PyTree

from phihat import sampling
from phihat._core import tree as _tree
from phihat._core.types import Batch, RandomKey
from phihat._engine.bound_loss import subkey

__all__ = ["BatchSource", "make_source", "stream_source"]

StepNumber = Int[Array, ""]

_MAX_DRAWN = 2**18
"""Row numbers that are drawn ahead at once: a megabyte."""


class BatchSource(NamedTuple):
    """Where a step gets its batch.

    Attributes:
      steps_per_epoch: steps in one pass over the data.
      use_fn: `(step, fn) -> fn(batch)`, with the batch of that absolute step; `fn` is
        traced once for each shape that a batch may have.
      batch_fn: `step -> batch`, of full size.
      is_fixed: every step has the same batch.
      ahead_fn: `(step, count) -> BatchSource` for that step and the next ones, whose
        rows are drawn at once: one pass, where each would start anew. None where
        nothing is drawn.
    """

    steps_per_epoch: int
    use_fn: Callable[[StepNumber, Callable[[Batch], Any]], Any]
    batch_fn: Callable[[StepNumber], Batch]
    is_fixed: bool = False
    ahead_fn: Callable[[StepNumber, int], "BatchSource"] | None = None

    def draw_ahead(self, step: StepNumber, count: int) -> "BatchSource":
        """Return the source for some steps, with what can be drawn for all of them."""
        return self if self.ahead_fn is None else self.ahead_fn(step, count)


def make_source(
    caller: str, sampler: Any, data: Batch, key: RandomKey | None
) -> BatchSource:
    """Return the batches of a sampler; without one, all data at every step."""
    if sampler is None:
        return _fixed(data)
    batches: sampling.Batches = sampler(data)
    if batches.needs_key and key is None:
        raise ValueError(
            f"{caller}: `key` is needed to shuffle the rows: pass "
            "`key=jax.random.key(0)`, or a sampler that does not shuffle."
        )
    key = None if key is None else subkey(key, "sampling")
    if batches.steps_per_epoch == 1 and batches.rows_fn is None:
        return _fixed(batches.batch_fn(key, 0))
    if batches.rows_fn is None or batches.take_fn is None:
        return _foreign_source(caller, batches, key)
    rows_fn = functools.partial(batches.rows_fn, key)
    source = _row_source(caller, batches, rows_fn)
    size = jax.eval_shape(rows_fn, jnp.zeros((), jnp.int32)).size
    most = max(1, _MAX_DRAWN // max(size, 1))
    return source._replace(
        ahead_fn=functools.partial(_draw_rows, caller, batches, rows_fn, most)
    )


def stream_source(data: Batch, is_group: bool, first_step: StepNumber) -> BatchSource:
    """Return the batches of a stream: one, or a group whose first belongs to a step."""
    if not is_group:
        return _fixed(data)

    def batch_fn(step: StepNumber) -> Batch:
        return jax.tree.map(
            lambda leaf: jax.lax.dynamic_index_in_dim(
                leaf, step - first_step, keepdims=False
            ),
            data,
        )

    return BatchSource(1, lambda step, fn: fn(batch_fn(step)), batch_fn)


# -------------------------------------------------------------------- private helpers


def _fixed(batch: Batch) -> BatchSource:
    return BatchSource(
        steps_per_epoch=1,
        use_fn=lambda step, fn: fn(batch),  # noqa: ARG005
        batch_fn=lambda step: batch,  # noqa: ARG005
        is_fixed=True,
    )


def _foreign_source(
    caller: str, batches: sampling.Batches, key: RandomKey | None
) -> BatchSource:
    """Return the batches of a sampler that does not tell which rows it draws."""
    full_fn = functools.partial(batches.batch_fn, key)
    source = BatchSource(
        batches.steps_per_epoch, lambda step, fn: fn(full_fn(step)), full_fn
    )
    last_fn = batches.last_batch_fn
    if last_fn is None:
        return source
    return source._replace(
        use_fn=lambda step, fn: _use_either(
            caller,
            step % batches.steps_per_epoch == batches.steps_per_epoch - 1,
            lambda: fn(full_fn(step)),
            lambda: fn(last_fn(key, step)),
        )
    )


def _row_source(
    caller: str, batches: sampling.Batches, rows_fn: Callable[[StepNumber], Array]
) -> BatchSource:
    """Return the batches that have these rows."""
    take_fn, last_size = batches.take_fn, batches.last_size
    assert take_fn is not None

    def use(step: StepNumber, fn: Callable[[Batch], Any]) -> Any:
        rows = rows_fn(step)
        if not last_size:
            return fn(take_fn(rows))
        return _use_either(
            caller,
            step % batches.steps_per_epoch == batches.steps_per_epoch - 1,
            lambda: fn(take_fn(rows)),
            lambda: fn(take_fn(rows[:last_size])),
        )

    return BatchSource(
        batches.steps_per_epoch, use, lambda step: take_fn(rows_fn(step))
    )


def _draw_rows(
    caller: str,
    batches: sampling.Batches,
    rows_fn: Callable[[StepNumber], Array],
    most: int,
    first: StepNumber,
    count: int,
) -> BatchSource:
    if count > most:  # a table of them all would be too large
        return _row_source(caller, batches, rows_fn)
    rows = jax.vmap(lambda ahead: rows_fn(first + ahead))(
        jnp.arange(count, dtype=jnp.int32)
    )

    def rows_of(step: StepNumber) -> Array:
        return jax.lax.dynamic_index_in_dim(
            rows, step - first, keepdims=False, allow_negative_indices=False
        )

    return _row_source(caller, batches, rows_of)


def _use_either(
    caller: str,
    is_last: Array,
    on_full: Callable[[], Any],
    on_last: Callable[[], Any],
) -> Any:
    """Return what follows from the full or from the short batch, whichever is due."""
    _check_same_shapes(caller, jax.eval_shape(on_full), jax.eval_shape(on_last))
    return jax.lax.cond(is_last, on_last, on_full)


def _check_same_shapes(caller: str, full: PyTree, last: PyTree) -> None:
    unlike = _tree.unlike_leaf(full, last)
    if unlike is not None:
        path, shape, short_shape = unlike
        raise ValueError(
            f"{caller}: the loss's `aux` has the length of the batch, {shape} and "
            f"{short_shape} for the short last one ({path}): reduce it, or drop the "
            "remainder, `sampler=minibatches(size, drop_remainder=True)`."
        )
