"""The compiled parts of a long fit: its beginning, a chunk of steps, its end.

A chunk is a segment of `fit`'s own loop. How many steps it has is a run-time number, so
that chunks of any length are one program; only the room for their rows is fixed.

Example:
  >>> from phihat.training import chunks
  >>> chunks.own({"a": 1.0})
  {'a': Array(1., dtype=float32, weak_type=True)}
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jaxtyping import Array, Int, PyTree

from phihat import fitting
from phihat._core import placement as _placement
from phihat._core import tree as _tree
from phihat._core.programs import Mode
from phihat._core.types import Batch, Params, Status
from phihat._engine import run as _run
from phihat._engine.batches import BatchSource, stream_source
from phihat._engine.loop import begin_recorders
from phihat._engine.spec import FitSpec
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
      is_stream: the data are a batch, or a group of batches.
      is_group: they are a group, `[G, ...]`.
      shardings: of the carry's leaves, which stay where they are; None on one device.
    """

    num_rows: int
    is_stream: bool
    is_group: bool
    shardings: tuple[NamedSharding | None, ...] | None = None


class Carry(NamedTuple):
    """What a chunk hands to the next."""

    state: FitState
    recorder_states: PyTree
    sound_params: Params | None = None


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


def begin(spec: FitSpec, options: Options, mode: Mode, state: FitState) -> PyTree:
    """Return the states of the recorders before the first step."""
    del options, mode
    return begin_recorders(_run.resolve(spec), state)


def advance(
    spec: FitSpec,
    options: Options,
    mode: Mode,
    carry: Carry,
    data: Batch,
    begin: Int[Array, ""],
    end: Int[Array, ""],
    position: Int[Array, ""],
) -> tuple[Carry, Report]:
    """Take a chunk of steps.

    Args:
      spec: of the fit.
      options: what else shapes the program.
      mode: how it is run.
      carry: from the chunk before; given away.
      data: all of them, or a group of batches `[G, ...]`.
      begin: how far into its row the chunk begins, below `record_every`.
      end: where it ends, counted from the same row.
      position: the number in the group of the chunk's first batch.
    """
    state = carry.state
    make_source = _source_maker(options, state.step - position)
    # A chunk may have been sent off before it was known that the one before stopped.
    is_running = state.status == Status.RUNNING
    end = jnp.where(is_running, end, begin)
    ran = _run.run_spec(
        spec,
        make_source,
        state,
        data,
        mode,
        begin=begin,
        end=end,
        num_rows=options.num_rows,
        recorder_states=carry.recorder_states,
        sound_params=carry.sound_params,
    )
    is_stopped = ran.num_taken < end
    source = make_source(spec, data, state.key)
    status, leaf = _run.reason_to_stop(
        spec, source, ran.state, is_stopped=is_stopped, last=ran.last
    )
    running = jnp.asarray(Status.RUNNING, jnp.int32)
    status = jnp.where(status == Status.COMPLETED, running, status)
    status = jnp.where(is_running, status, state.status)
    after = Carry(
        ran.state._replace(status=status), ran.recorder_states, ran.sound_params
    )
    # Copies: what the host reads must not be given away with the carry.
    report = Report(
        step=jnp.copy(ran.state.step),
        status=jnp.copy(status),
        loss=jnp.copy(ran.state.loss),
        nonfinite_leaf=leaf,
        rows=ran.history,
    )
    if options.shardings is not None:
        after = _placement.keep(options.shardings, after)
    return after, report


def _source_maker(options: Options, first_step: Int[Array, ""]) -> Any:
    """Return how a chunk's steps find their batches."""
    if not options.is_stream:
        return fitting.source_of

    def make_source(spec: FitSpec, data: Batch, key: Any) -> BatchSource:
        del spec, key
        return stream_source(data, options.is_group, first_step)

    return make_source


def row_shapes(
    spec: FitSpec, options: Options, carry: Carry, data: Batch
) -> dict[str, Any]:
    """Return shapes and classes of the history's rows, without taking a step."""
    number = jax.ShapeDtypeStruct((), jnp.int32)
    advance_fn = functools.partial(advance, spec, options, Mode(True, True))
    _, report = jax.eval_shape(advance_fn, carry, data, number, number, number)
    return report.rows


def evaluate(
    spec: FitSpec, options: Options, mode: Mode, state: FitState, data: Batch
) -> tuple[Array, Params]:
    """Return the loss on held-out data, and the params that have it."""
    del options, mode
    params = evaluation_params(spec, state)
    value_fn = bind_loss(spec.step, state, lambda fn: fn(data))
    return value_fn(params)[0], jax.tree.map(jnp.copy, params)


def evaluation_params(spec: FitSpec, state: FitState) -> Params:
    """Return the params to evaluate of a state, eagerly."""
    return project(spec.step.projection, eval_params(state.opt_state, state.params))


def finish(
    spec: FitSpec,
    options: Options,
    mode: Mode,
    state: FitState,
    data: Batch,
    leaf: Int[Array, ""],
    position: Int[Array, ""],
    params: Params | None,
    sound_params: Params | None,
) -> FitResult:
    """Return the result, with no history yet.

    Args:
      spec: of the fit, like the arguments up to `data`.
      options: of the chunks.
      mode: how it is run.
      state: the last one, with its status.
      data: all of them, or the group with the last batch.
      leaf: the leaf that was not finite, or -1.
      position: of that batch in the group.
      params: those to return instead of the last ones, or None.
      sound_params: those to evaluate before the last step, or None.
    """
    del mode
    failed = state.status >= Status.NONFINITE_LOSS
    last = jnp.where(failed, state.step, jnp.maximum(state.step - 1, 0))
    source = _source_maker(options, last - position)(spec, data, state.key)
    ending = _run.conclude_part(spec, source, state, params, sound_params)
    known = jnp.where(leaf >= 0, leaf, ending.nonfinite_leaf)
    ending = ending._replace(nonfinite_leaf=known)
    seen = source.batch_fn(last) if options.is_stream else data
    return fitting.as_result(ending, {}, state.step, seen)


def with_optimizer(spec: FitSpec, optimizer: Any) -> FitSpec:
    """Return the spec of a fit with another optimizer."""
    step = dataclasses.replace(spec.step, optimizer=optimizer)
    return dataclasses.replace(spec, step=step)


def optimizer_numbers(spec: FitSpec) -> dict[str, Any]:
    """Return the numbers of a fit's optimizer by their paths."""
    leaves = jax.tree_util.tree_flatten_with_path(spec.step.optimizer)[0]
    return {
        jax.tree_util.keystr(path): leaf
        for path, leaf in leaves
        if _tree.is_number(leaf)
    }


def with_numbers(spec: FitSpec, numbers: dict[str, Any]) -> Any:
    """Return the optimizer of a fit with other numbers, as `optimizer_numbers` gave."""

    def put(path: Any, leaf: Any) -> Any:
        found = numbers.get(jax.tree_util.keystr(path))
        if found is None:
            return leaf
        return float(found) if type(leaf) is float else found

    return jax.tree_util.tree_map_with_path(put, spec.step.optimizer)


def tell(
    spec: FitSpec, options: Options, mode: Mode, recorder_states: PyTree
) -> dict[str, Any]:
    """Return what recorders with a final value have to tell."""
    del options, mode
    return _run.final_values(spec, recorder_states)
