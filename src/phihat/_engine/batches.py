"""How a step gets its batch: full data, minibatches, a shorter last one.

Example:
  >>> import jax.numpy as jnp
  >>> from phihat._engine import batches as _feed
  >>> feed = _feed.make_feed(None, jnp.arange(3), None)
  >>> print(feed.steps_per_epoch, feed.use_fn(0, jnp.sum))
  1 3
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PyTree

from phihat._core import tree as _tree
from phihat._core.types import Batch, RandomKey
from phihat._engine.step import subkey
from phihat.sampling import Batches

__all__ = ["Feed", "make_feed"]


BatchFn = Callable[[Int[Array, ""]], Batch]
"""`step -> batch`, of that absolute step."""


class Feed(NamedTuple):
    """How a step gets its batch.

    Attributes:
      steps_per_epoch: steps in one pass over the data.
      use_fn: `(step, fn) -> fn(batch)`, with the batch of that absolute step.
      batch_fn: `step -> batch`, of full size.
      last_batch_fn: `step -> batch`, the shorter one at the end of an epoch; None where
        all batches have one shape.
      draw_fn: `step -> (batch_fn, last_batch_fn)`, for that step and the next ones, so
        many in all as `num_drawn`; None where nothing is drawn.
      num_drawn: steps whose rows are drawn at once.
    """

    steps_per_epoch: int
    use_fn: Callable[[Int[Array, ""], Callable[[Batch], Any]], Any]
    batch_fn: BatchFn
    last_batch_fn: BatchFn | None = None
    draw_fn: Callable[[Int[Array, ""]], tuple[BatchFn, BatchFn]] | None = None
    num_drawn: int = 16


def make_feed(sampler: Any, data: Batch, key: RandomKey | None) -> Feed:
    """Return the feed of a sampler; without one, all data at every step.

    Raises:
      ValueError: the sampler needs a key, and there is none.
    """
    if sampler is None:
        return Feed(
            steps_per_epoch=1,
            use_fn=lambda step, fn: fn(data),  # noqa: ARG005
            batch_fn=lambda step: data,  # noqa: ARG005
        )
    batches: Batches = sampler(data)
    if batches.needs_key and key is None:
        raise ValueError(
            "fit: `key` is needed to shuffle the rows: pass `key=jax.random.key(0)`, "
            "or a sampler that does not shuffle."
        )
    key = None if key is None else subkey(key, "sampling")
    feed = Feed(
        steps_per_epoch=batches.steps_per_epoch,
        use_fn=lambda step, fn: fn(batches.batch_fn(key, step)),
        batch_fn=lambda step: batches.batch_fn(key, step),
    )
    if batches.rows_fn is not None and batches.take_fn is not None:
        draw_fn = functools.partial(_draw, batches, key, feed.num_drawn)
        feed = feed._replace(draw_fn=draw_fn)
    last_fn = batches.last_batch_fn
    if last_fn is None:
        return feed
    return feed._replace(
        use_fn=functools.partial(_use_either, batches, key),
        last_batch_fn=lambda step: last_fn(key, step),
    )


def _draw(
    batches: Batches, key: RandomKey | None, num_steps: int, first: Int[Array, ""]
) -> tuple[BatchFn, BatchFn]:
    """Draw the rows of some steps at once: one pass, where each would start anew."""
    rows_fn, take_fn = batches.rows_fn, batches.take_fn
    assert rows_fn is not None
    assert take_fn is not None
    rows = jax.vmap(lambda ahead: rows_fn(key, first + ahead))(
        jnp.arange(num_steps, dtype=jnp.int32)
    )

    def rows_of(step: Int[Array, ""]) -> Int[Array, "B"]:
        return jax.lax.dynamic_index_in_dim(
            rows, step - first, keepdims=False, allow_negative_indices=False
        )

    return (
        lambda step: take_fn(rows_of(step)),
        lambda step: take_fn(rows_of(step)[: batches.last_size]),
    )


def _use_either(
    batches: Batches,
    key: RandomKey | None,
    step: Int[Array, ""],
    fn: Callable[[Batch], Any],
) -> Any:
    """Return `fn` of the full or of the short batch, whichever is due."""
    last_fn, rows_fn, take_fn = batches.last_batch_fn, batches.rows_fn, batches.take_fn
    assert last_fn is not None
    on_full = lambda: fn(batches.batch_fn(key, step))  # noqa: E731
    on_last = lambda: fn(last_fn(key, step))  # noqa: E731
    if rows_fn is not None and take_fn is not None:  # then drawn once for both
        rows = rows_fn(key, step)
        on_full = lambda: fn(take_fn(rows))  # noqa: E731
        on_last = lambda: fn(take_fn(rows[: batches.last_size]))  # noqa: E731
    _check_same_shapes(jax.eval_shape(on_full), jax.eval_shape(on_last))
    is_last = step % batches.steps_per_epoch == batches.steps_per_epoch - 1
    return jax.lax.cond(is_last, on_last, on_full)


def _check_same_shapes(full: PyTree, last: PyTree) -> None:
    unlike = _tree.unlike_leaf(full, last)
    if unlike is not None:
        path, shape, short_shape = unlike
        raise ValueError(
            f"fit: the loss's `aux` has the length of the batch, {shape} and "
            f"{short_shape} for the short last one ({path}): reduce it, or drop the "
            "remainder, `sampler=minibatches(size, drop_remainder=True)`."
        )
