"""The compiled parts of a long fit: its beginning, a chunk of steps, its end.

A chunk is a part of `fit`'s own loop. How many steps it has is a run-time number, so
that chunks of any length are one program; only the size of the buffer for their rows is
fixed. What `train` asks of the engine it asks here.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jaxtyping import Array, Bool, Int, PyTree

from phihat import fitting
from phihat._core import jaxprs as _jaxprs
from phihat._core import placement as _placement
from phihat._core import tree as _tree
from phihat._core.programs import Mode
from phihat._core.types import Batch, Params, RandomKey, Status
from phihat._engine import result as _result
from phihat._engine import run as _run
from phihat._engine.batches import BatchSource, stream_source
from phihat._engine.bound_loss import bind_loss
from phihat._engine.endings import is_running, measures_itself
from phihat._engine.loop import begin_recorders
from phihat._engine.spec import FitSpec
from phihat._engine.step import project
from phihat.optimizers import eval_params
from phihat.results import FitResult, FitState, with_parts

__all__ = [
    "ChunkCarry",
    "ChunkOptions",
    "Report",
    "advance",
    "begin",
    "copy_leaves",
    "evaluate",
    "evaluation_params",
    "final_values",
    "finish",
    "is_faster_alone",
    "optimizer_numbers",
    "row_shapes",
    "with_numbers",
    "with_optimizer",
]


class ChunkOptions(NamedTuple):
    """What shapes a chunk's program beside its code.

    Attributes:
      num_rows: of the history that its buffer holds.
      is_stream: the data are a batch, or a group of batches.
      is_group: they are a group, `[G, ...]`.
      is_single: a chunk is one step, without a loop round it.
      shardings: of the carry's leaves, which stay where they are; None on one device.
    """

    num_rows: int
    is_stream: bool
    is_group: bool
    is_single: bool = False
    shardings: tuple[NamedSharding | None, ...] | None = None


class ChunkCarry(NamedTuple):
    """What a chunk hands to the next.

    Attributes:
      state: where the fit stands.
      recorder_states: those of the recorders.
      last_finite_params: the params to evaluate before the last step, whose loss was
        finite, or None where they are not kept.
    """

    state: FitState
    recorder_states: PyTree
    last_finite_params: Params | None


class Report(NamedTuple):
    """What the host reads of a chunk.

    Attributes:
      step: the absolute number of updates made, int32 [].
      is_stopped: a step was refused, or the optimizer has come to its end, [].
      loss: as the last step measured it, [].
      rows: of the history; where a chunk begins within a stride, the first is void.
    """

    step: Int[Array, ""]
    is_stopped: Bool[Array, ""]
    loss: Array
    rows: dict[str, Any]


def copy_leaves(tree: PyTree) -> PyTree:
    """Copy all leaves, so that they can be given away."""

    def copy(leaf: Any) -> Any:
        if _tree.is_key(leaf):
            data = jnp.array(jax.random.key_data(leaf), copy=True)
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
        return jnp.array(leaf, copy=True)

    return jax.tree.map(copy, tree)


def begin(
    spec: FitSpec, options: ChunkOptions, mode: Mode, state: FitState
) -> ChunkCarry:
    """Return what the first chunk begins with."""
    del options, mode
    recorder_states = begin_recorders(_run.recorders_of(spec), state)
    last_finite_params = None
    if spec.step.stops and not measures_itself(state.opt_state):
        last_finite_params = evaluation_params(spec, state)
    return ChunkCarry(state, recorder_states, last_finite_params)


def advance(
    spec: FitSpec,
    options: ChunkOptions,
    mode: Mode,
    carry: ChunkCarry,
    data: Batch,
    begin: Int[Array, ""],
    end: Int[Array, ""],
    position: Int[Array, ""],
) -> tuple[ChunkCarry, Report]:
    """Take a chunk of steps; one that follows a stop takes none.

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
    end = jnp.where(state.status == Status.RUNNING, end, begin)
    ran = _run.run_spec(
        spec,
        _source_maker(options, state.step - position),
        state,
        data,
        mode,
        begin=begin,
        end=end,
        num_rows=options.num_rows,
        is_single=options.is_single,
        recorder_states=carry.recorder_states,
        last_finite_params=carry.last_finite_params,
    )
    is_stopped = (ran.num_taken < end) | ~is_running(ran.state.opt_state)
    is_stopped |= state.status != Status.RUNNING
    stopped = jnp.asarray(Status.STALLED, jnp.int32)  # why, it is found out at the end
    after = ran.state._replace(status=jnp.where(is_stopped, stopped, state.status))
    # Copies: what the host reads must not be given away with the carry.
    report = Report(
        step=jnp.copy(after.step),
        is_stopped=jnp.copy(is_stopped),
        loss=jnp.copy(after.loss),
        rows=ran.history,
    )
    handed_on = ChunkCarry(after, ran.recorder_states, ran.last_finite_params)
    if options.shardings is not None:
        handed_on = _placement.keep(options.shardings, handed_on)
    return handed_on, report


def is_faster_alone(spec: FitSpec, state: FitState, data: Batch) -> bool:
    """Tell whether steps are faster one by one than in a compiled loop.

    So it is on the CPU where the loss has convolutions: a compiled loop leaves their
    gradients in a slow form.
    """
    is_measuring = measures_itself(state.opt_state)
    if jax.default_backend() != "cpu" or is_measuring:
        return False

    def loss(state: FitState, data: Batch) -> Array:
        source = fitting.source_of(spec, data, state.key)
        return source.use_fn(
            state.step,
            lambda batch: bind_loss(spec.step, state, lambda fn: fn(batch))(
                state.params
            )[0],
        )

    return _jaxprs.holds(jax.make_jaxpr(loss)(state, data), "conv_general_dilated")


def row_shapes(
    spec: FitSpec, options: ChunkOptions, carry: ChunkCarry, data: Batch
) -> dict[str, Any]:
    """Return shapes and classes of the history's rows, without taking a step."""
    number = jax.ShapeDtypeStruct((), jnp.int32)
    advance_fn = functools.partial(advance, spec, options, Mode(True, True))
    _, report = jax.eval_shape(advance_fn, carry, data, number, number, number)
    return report.rows


def _source_maker(options: ChunkOptions, first_step: Any) -> Any:
    if not options.is_stream:
        return fitting.source_of

    def make_source(spec: FitSpec, data: Batch, key: RandomKey | None) -> BatchSource:
        del spec, key
        # The next batch is another, though the program sees but one.
        source = stream_source(data, options.is_group, first_step)
        return source._replace(is_fixed=False)

    return make_source


# ------------------------------------------------------------------------ held-out data


def evaluate(
    spec: FitSpec, options: ChunkOptions, mode: Mode, state: FitState, data: Batch
) -> tuple[Array, Params, PyTree]:
    """Return the loss on held-out data, the params that have it, and their state."""
    del options, mode
    params = evaluation_params(spec, state)
    # Held-out rows lie as they are given, and not as those of the fit do.
    step = dataclasses.replace(spec.step, placement=None)
    value_fn = bind_loss(step, state, lambda fn: fn(data))
    kept = jax.tree.map(jnp.copy, (params, state.model_state))
    return value_fn(params)[0], *kept


def evaluation_params(spec: FitSpec, state: FitState) -> Params:
    """Return the params to evaluate of a state."""
    params = eval_params(state.opt_state, state.params)
    return project(spec.step.projection, params)


# --------------------------------------------------------------------------- the end


def finish(
    spec: FitSpec,
    options: ChunkOptions,
    mode: Mode,
    carry: ChunkCarry,
    data: Batch,
    is_stopped: Bool[Array, ""],
    position: Int[Array, ""],
    params: Params | None,
    model_state: PyTree,
) -> FitResult:
    """Return the result, with no history yet.

    Args:
      spec: of the fit, like the arguments up to `data` as in `advance`.
      options: of the chunks.
      mode: how it is run.
      carry: from the last chunk.
      data: all of them, or the group with the last batch.
      is_stopped: a step was refused, or the optimizer has come to its end.
      position: in the group, of the batch that was refused or else used last.
      params: those to return instead of the last ones, or None.
      model_state: that belongs to them.
    """
    del mode
    state = carry.state
    last = jnp.where(is_stopped, state.step, jnp.maximum(state.step - 1, 0))
    source = _source_maker(options, last - position)(spec, data, state.key)
    ending = _run.conclude(
        spec,
        source,
        state,
        is_stopped=is_stopped,
        last=None,
        last_finite_params=carry.last_finite_params,
    )
    if params is not None:
        use = functools.partial(source.use_fn, last)
        there = state._replace(step=last)
        if model_state is not None:  # an older checkpoint kept none
            there = there._replace(model_state=model_state)
        value_fn = bind_loss(spec.step, there, use)
        (loss, _), grad = jax.value_and_grad(value_fn, has_aux=True)(params)
        ending = ending._replace(params=params, loss=loss, grad=grad)
    batch = source.batch_fn(last) if options.is_stream else data
    draws = options.is_stream or not source.is_fixed
    result = _result.as_result(ending, {}, state.step, batch, is_of_minibatch=draws)
    return with_parts(result, best_model_state=model_state)


def final_values(
    spec: FitSpec, options: ChunkOptions, mode: Mode, recorder_states: PyTree
) -> dict[str, Any]:
    """Return what recorders with a final value have to tell."""
    del options, mode
    return _run.final_values(spec, recorder_states)


# ------------------------------------------------------------- an optimizer's numbers


def with_optimizer(spec: FitSpec, optimizer: Any) -> FitSpec:
    """Return what a fit is made of, with another optimizer."""
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
