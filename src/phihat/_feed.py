"""How a step gets its batch: full data, minibatches, a shorter last one.

Example:
  >>> import jax.numpy as jnp
  >>> from phihat import _feed
  >>> feed, steps_per_epoch = _feed.make_feed(
  ...     lambda state, batch: (state, batch), None, jnp.arange(3), None
  ... )
  >>> print(steps_per_epoch, feed.batch_fn(0, None))
  1 [0 1 2]
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PyTree

from phihat import _tree
from phihat._step import bind_loss, subkey
from phihat._types import Batch, Params, RandomKey, Status
from phihat.results import FitState, StepInfo

__all__ = ["Feed", "evaluate", "make_feed"]


class Feed(NamedTuple):
    """How a step gets its batch.

    Attributes:
      prepare_fn: `steps [...] -> rows`, computed for many steps at once, or None.
      step_fn: `(state, step, rows) -> (state, info)`: a step on that step's batch.
      batch_fn: `(step, rows) -> batch`, for recorders.
      num_entries: numbers in the rows of one step.
    """

    prepare_fn: Callable[[Int[Array, "..."]], PyTree] | None
    step_fn: Callable[..., tuple[FitState, StepInfo]]
    batch_fn: Callable[..., PyTree]
    num_entries: int

    def prepare(self, steps: Int[Array, "..."]) -> PyTree:
        """Return the rows of these steps' batches, or None."""
        return None if self.prepare_fn is None else self.prepare_fn(steps)


def make_feed(
    propose: Callable[..., tuple[FitState, StepInfo]],
    sampler: Any,
    data: Batch,
    key: RandomKey | None,
) -> tuple[Feed, int]:
    """Return how a step gets its batch, and the steps per epoch."""
    if sampler is None:
        return (
            Feed(
                prepare_fn=None,
                step_fn=lambda state, step, fed: propose(state, data),  # noqa: ARG005
                batch_fn=lambda step, fed: data,  # noqa: ARG005
                num_entries=0,
            ),
            1,
        )
    batches = sampler(data)
    if batches.needs_key and key is None:
        raise ValueError(
            "fit: `key` is needed to shuffle the rows: pass `key=jax.random.key(0)`, "
            "or a sampler that does not shuffle."
        )
    sampling_key = None if key is None else subkey(key, "sampling")
    rows_fn, take_fn = batches.rows_fn, batches.take_fn
    splits = rows_fn is not None and take_fn is not None

    def prepare(steps: Array) -> PyTree:
        rows = jax.vmap(lambda step: rows_fn(sampling_key, step))(steps.ravel())
        return jax.tree.map(
            lambda leaf: leaf.reshape(*steps.shape, *leaf.shape[1:]), rows
        )

    def full_batch(step: Array, fed: PyTree) -> Batch:
        return take_fn(fed) if splits else batches.batch_fn(sampling_key, step)

    def step_fn(state: FitState, step: Array, fed: PyTree) -> Any:
        return _with_batch(
            batches, sampling_key, step, full_batch, fed, lambda b: propose(state, b)
        )

    num_entries = 0
    if splits:
        rows = jax.eval_shape(lambda: rows_fn(sampling_key, jnp.zeros((), jnp.int32)))
        num_entries = sum(leaf.size for leaf in jax.tree.leaves(rows))
    feed = Feed(
        prepare_fn=prepare if splits else None,
        step_fn=step_fn,
        batch_fn=full_batch,
        num_entries=num_entries,
    )
    return feed, batches.steps_per_epoch


def _with_batch(
    batches: Any,
    key: RandomKey | None,
    step: Array,
    full_batch: Callable[[Array, PyTree], Batch],
    fed: PyTree,
    use: Callable[[Batch], Any],
) -> Any:
    """Return `use(batch)`, where the last batch of an epoch may be shorter."""
    if batches.last_batch_fn is None:
        return use(full_batch(step, fed))
    on_full = lambda: use(full_batch(step, fed))  # noqa: E731
    on_last = lambda: use(batches.last_batch_fn(key, step))  # noqa: E731
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


def evaluate(
    step_fn: Any, sampler: Any, state: FitState, params: Params, data: Batch
) -> tuple[Array, Params]:
    """Return loss and gradient on the last batch, or on the batch that failed."""
    loss_fn, has_aux = step_fn.args[0], step_fn.keywords["has_aux"].value
    failed = state.status >= Status.NONFINITE_LOSS
    step = jnp.where(failed, state.step, jnp.maximum(state.step - 1, 0))
    here = state._replace(step=step)

    def use(batch: Batch) -> tuple[Array, Params]:
        value_fn = bind_loss(loss_fn, batch, here, has_aux)
        (loss, _), grad = jax.value_and_grad(value_fn, has_aux=True)(params)
        return loss, grad

    if sampler is None:
        return use(data)
    batches = sampler(data)
    key = None if state.key is None else subkey(state.key, "sampling")
    return _with_batch(
        batches, key, step, lambda step, _: batches.batch_fn(key, step), None, use
    )
