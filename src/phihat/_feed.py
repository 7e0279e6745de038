"""How a step gets its batch: full data, minibatches, a shorter last one.

Example:
  >>> import jax.numpy as jnp
  >>> from phihat import _feed
  >>> feed = _feed.make_feed(None, jnp.arange(3), None)
  >>> print(feed.steps_per_epoch, feed.use_fn(0, jnp.sum))
  1 3
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Int, PyTree

from phihat import _tree
from phihat._step import subkey
from phihat._types import Batch, RandomKey
from phihat.sampling import Batches

__all__ = ["Feed", "make_feed"]


class Feed(NamedTuple):
    """How a step gets its batch.

    Attributes:
      steps_per_epoch: steps in one pass over the data.
      use_fn: `(step, fn) -> fn(batch)`, with the batch of that absolute step.
      batch_fn: `step -> batch`, of full size, for recorders.
    """

    steps_per_epoch: int
    use_fn: Callable[[Int[Array, ""], Callable[[Batch], Any]], Any]
    batch_fn: Callable[[Int[Array, ""]], Batch]


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

    def use(step: Int[Array, ""], fn: Callable[[Batch], Any]) -> Any:
        if batches.last_batch_fn is None:
            return fn(batches.batch_fn(key, step))
        full, last = _batches_of(batches, key, step)
        return _choose(batches, step, lambda: fn(full()), lambda: fn(last()))

    return Feed(
        steps_per_epoch=batches.steps_per_epoch,
        use_fn=use,
        batch_fn=lambda step: batches.batch_fn(key, step),
    )


def _batches_of(
    batches: Batches, key: RandomKey | None, step: Int[Array, ""]
) -> tuple[Callable[[], Batch], Callable[[], Batch]]:
    """Return the full and the short batch; where they share their rows, drawn once."""
    rows_fn, take_fn, last_fn = batches.rows_fn, batches.take_fn, batches.last_batch_fn
    assert last_fn is not None
    if rows_fn is None or take_fn is None:
        return lambda: batches.batch_fn(key, step), lambda: last_fn(key, step)
    rows = rows_fn(key, step)
    return lambda: take_fn(rows), lambda: take_fn(rows[: batches.last_size])


def _choose(
    batches: Batches,
    step: Int[Array, ""],
    on_full: Callable[[], Any],
    on_last: Callable[[], Any],
) -> Any:
    """Return one of the two, where the last batch of an epoch may be shorter."""
    if batches.last_batch_fn is None:
        return on_full()
    _check_same_shapes(jax.eval_shape(on_full), jax.eval_shape(on_last))
    is_last = step % batches.steps_per_epoch == batches.steps_per_epoch - 1
    return jax.lax.cond(is_last, on_last, on_full)


def _check_same_shapes(full: PyTree, last: PyTree) -> None:
    paths = _tree.leaf_paths(full)
    leaves = zip(paths, jax.tree.leaves(full), jax.tree.leaves(last), strict=True)
    for path, one, other in leaves:
        if one.shape != other.shape:
            raise ValueError(
                f"fit: the loss's `aux` has the length of the batch, {list(one.shape)} "
                f"and {list(other.shape)} for the short last one ({path}): reduce it, "
                "or drop the remainder, "
                "`sampler=minibatches(size, drop_remainder=True)`."
            )
