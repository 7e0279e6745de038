"""The compiled parts of a long fit: its beginning, a chunk of steps, its end.

A chunk is a segment of `fit`'s own loop. How many steps it has is a run-time number, so
that chunks of any length are one program; only the room for their rows is fixed.

Example:
  >>> from phihat.training import chunks
  >>> chunks.own({"a": 1.0})
  {'a': Array(1., dtype=float32, weak_type=True)}
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.tree_util import Partial
from jaxtyping import Array, Int, PyTree

from phihat import fitting
from phihat._core import placement as _placement
from phihat._core import tree as _tree
from phihat._core.types import Batch, Params, Status
from phihat._engine import recorders as _records
from phihat._engine.batches import Feed, make_feed
from phihat._engine.loops import Plan, Segment
from phihat._engine.step import bind_loss, project
from phihat.optimizers import eval_params
from phihat.results import FitResult, FitState

__all__ = [
    "Carry",
    "Options",
    "Report",
    "advance",
    "begin",
    "evaluate",
    "evaluation_params",
    "finish",
    "optimizer_numbers",
    "optimizer_of",
    "own",
    "row_shapes",
    "tell",
    "with_numbers",
    "with_optimizer",
]


class Options(NamedTuple):
    """What shapes a chunk's program beside its code.

    Attributes:
      num_rows: room for rows of the history.
      record_every: steps per row.
      is_stream: the data are a batch, or a group of batches.
      is_group: they are a group, `[G, ...]`.
      functions: of the code: jax hashes a structure without those inside it.
      shardings: of the carry's leaves, which stay where they are; None on one device.
    """

    num_rows: int
    record_every: int
    is_stream: bool
    is_group: bool
    functions: tuple[Any, ...]
    shardings: tuple[NamedSharding | None, ...] | None = None


class Carry(NamedTuple):
    """What a chunk hands to the next."""

    state: FitState
    recorder_states: PyTree


class Report(NamedTuple):
    """What the host reads of a chunk.

    Attributes:
      step: the absolute number of updates made, int32 [].
      status: RUNNING, or how the fit ended, int32 [].
      loss: as the last step measured it, [].
      nonfinite_leaf: the leaf that was not finite, or -1, int32 [].
      rows: of the history; where a chunk begins within a stride, the first is void.
    """

    step: Int[Array, ""]
    status: Int[Array, ""]
    loss: Array
    nonfinite_leaf: Int[Array, ""]
    rows: dict[str, Any]


def own(tree: PyTree) -> PyTree:
    """Copy all leaves, so that they can be given away."""

    def copy(leaf: Any) -> Any:
        if _tree.is_key(leaf):
            data = jnp.array(jax.random.key_data(leaf), copy=True)
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
        return jnp.array(leaf, copy=True)

    return jax.tree.map(copy, tree)


def begin(code: Any, options: Options, is_eager: bool, state: FitState) -> PyTree:
    """Return the states of the recorders before the first step."""
    del options, is_eager
    step_fn, _, entries, _ = code
    recorders = _records.resolve(entries, step_fn.args[0], step_fn.args[2])
    return {name: recorder.begin(state) for name, recorder in recorders.items()}


def advance(
    code: Any,
    options: Options,
    is_eager: bool,
    carry: Carry,
    data: Batch,
    begin: Int[Array, ""],
    end: Int[Array, ""],
    position: Int[Array, ""],
) -> tuple[Carry, Report]:
    """Take a chunk of steps.

    Args:
      code: the step, the sampler, what to record, the tolerance.
      options: what else shapes the program.
      is_eager: whether a single fit runs on its own.
      carry: from the chunk before; given away.
      data: all of them, or a group of batches `[G, ...]`.
      begin: how far into its row the chunk begins, below `record_every`.
      end: where it ends, counted from the same row.
      position: the number in the group of the chunk's first batch.
    """
    step_fn, sampler, entries, tolerance = code
    state = carry.state
    if options.is_stream:
        feed = stream_feed(data, options.is_group, state.step - position)
    else:
        feed = make_feed(sampler, data, state.key)
    ran = fitting.run_steps(
        step_fn,
        entries,
        tolerance,
        feed,
        state,
        Plan(options.num_rows * options.record_every, options.record_every),
        is_eager=is_eager,
        segment=Segment(begin, end, carry.recorder_states),
    )
    # Copies: what the host reads must not be given away with the carry.
    report = Report(
        step=jnp.copy(ran.state.step),
        status=jnp.copy(ran.state.status),
        loss=jnp.copy(ran.state.loss),
        nonfinite_leaf=ran.nonfinite_leaf,
        rows=ran.history,
    )
    after = Carry(ran.state, ran.recorder_states)
    if options.shardings is not None:
        after = _placement.keep(options.shardings, after)
    return after, report


def row_shapes(
    code: Any, options: Options, carry: Carry, data: Batch
) -> dict[str, Any]:
    """Return shapes and classes of the history's rows, without taking a step."""
    number = jax.ShapeDtypeStruct((), jnp.int32)
    advance_fn = functools.partial(advance, code, options, True)
    _, report = jax.eval_shape(advance_fn, carry, data, number, number, number)
    return report.rows


def stream_feed(data: Batch, is_group: bool, first_step: Int[Array, ""]) -> Feed:
    """Return the feed of one batch, or of a group whose first belongs to a step."""

    def batch_fn(step: Int[Array, ""]) -> Batch:
        if not is_group:
            return data
        return jax.tree.map(
            lambda leaf: jax.lax.dynamic_index_in_dim(
                leaf, step - first_step, keepdims=False
            ),
            data,
        )

    return Feed(
        steps_per_epoch=1,
        use_fn=lambda step, fn: fn(batch_fn(step)),
        batch_fn=batch_fn,
    )


def evaluate(
    code: Any, options: Options, is_eager: bool, state: FitState, data: Batch
) -> tuple[Array, Params]:
    """Return the loss on held-out data, and the params that have it."""
    del options, is_eager
    step_fn = code[0]
    loss_fn = step_fn.args[0]
    params = evaluation_params(code, state)
    value_fn = bind_loss(loss_fn, data, state, step_fn.keywords["has_aux"].value)
    return value_fn(params)[0], jax.tree.map(jnp.copy, params)


def evaluation_params(code: Any, state: FitState) -> Params:
    """Return the params to evaluate of a state, eagerly."""
    projection = code[0].args[2]
    return project(projection, eval_params(state.opt_state, state.params))


def finish(
    code: Any,
    options: Options,
    is_eager: bool,
    state: FitState,
    data: Batch,
    leaf: Int[Array, ""],
    position: Int[Array, ""],
    params: Params | None,
) -> FitResult:
    """Return the result, with no history yet.

    Args:
      code: as in `advance`, like the arguments up to `data`.
      options: of the chunks.
      is_eager: whether a single fit ran on its own.
      state: the last one, with its status.
      data: all of them, or the group with the last batch.
      leaf: the leaf that was not finite, or -1.
      position: of that batch in the group.
      params: those to return instead of the last ones, or None.
    """
    del is_eager
    step_fn, sampler = code[:2]
    if not options.is_stream:
        feed = make_feed(sampler, data, state.key)
        return fitting.conclude(step_fn, feed, state, leaf, data, params)
    failed = state.status >= Status.NONFINITE_LOSS
    last = jnp.where(failed, state.step, jnp.maximum(state.step - 1, 0))
    feed = stream_feed(data, options.is_group, last - position)
    return fitting.conclude(step_fn, feed, state, leaf, feed.batch_fn(last), params)


def with_optimizer(code: Any, optimizer: Any) -> Any:
    """Return the code of a fit with another optimizer."""
    step_fn, *rest = code
    loss_fn, _, projection = step_fn.args
    step_fn = Partial(step_fn.func, loss_fn, optimizer, projection, **step_fn.keywords)
    return (step_fn, *rest)


def optimizer_of(code: Any) -> Any:
    """Return the optimizer of a fit."""
    return code[0].args[1]


def optimizer_numbers(code: Any) -> dict[str, Any]:
    """Return the numbers of a fit's optimizer by their paths."""
    leaves = jax.tree_util.tree_flatten_with_path(optimizer_of(code))[0]
    return {
        jax.tree_util.keystr(path): leaf
        for path, leaf in leaves
        if _tree.is_number(leaf)
    }


def with_numbers(code: Any, numbers: dict[str, Any]) -> Any:
    """Return the optimizer of a fit with other numbers, as `optimizer_numbers` gave."""

    def put(path: Any, leaf: Any) -> Any:
        found = numbers.get(jax.tree_util.keystr(path))
        if found is None:
            return leaf
        return float(found) if type(leaf) is float else found

    return jax.tree_util.tree_map_with_path(put, optimizer_of(code))


def tell(
    code: Any, options: Options, is_eager: bool, recorder_states: PyTree
) -> dict[str, Any]:
    """Return what recorders with a final value have to tell."""
    del options, is_eager
    step_fn, _, entries, _ = code
    return fitting.final_values(step_fn, entries, recorder_states)
