"""A run from its first step to its result; what `fit`, `run` and `train` share."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jaxtyping import Array, Bool, Int, PyTree

from phihat._core import checks as _checks
from phihat._core import placement as _placement
from phihat._core import tree as _tree
from phihat._core.programs import Mode
from phihat._core.types import Batch, Params, Status
from phihat._engine import recorders as _recorders
from phihat._engine.batches import BatchSource
from phihat._engine.bound_loss import bind_loss
from phihat._engine.endings import diagnose, holds_status, measures_itself, status_of
from phihat._engine.loop import LoopPlan, LoopResult, Measured, run_loop
from phihat._engine.spec import FitSpec, check_optimizer
from phihat._engine.step import Step, apply_update, attempt, project, step_info
from phihat._engine.tolerance import is_converged, moving_leaves
from phihat.optimizers import eval_params
from phihat.results import FitState

__all__ = [
    "Ending",
    "check_history",
    "conclude",
    "final_values",
    "num_steps_of",
    "reason_to_stop",
    "recorders_of",
    "run_spec",
]


class Ending(NamedTuple):
    """How a run ended.

    Attributes:
      state: where it stopped, its status telling how.
      params: those to evaluate: the last whose loss was finite.
      loss: of those, on the last batch.
      grad: the gradient there.
      nonfinite_leaf: the number of the params leaf that failed, or -1.
    """

    state: FitState
    params: Params
    loss: Array
    grad: Params
    nonfinite_leaf: Int[Array, ""]


def run_spec(
    spec: FitSpec,
    make_source: Callable[[Any, Batch, Any], BatchSource],
    state: FitState,
    data: Batch,
    mode: Mode,
    *,
    begin: Any = 0,
    end: Any = None,
    num_rows: int | None = None,
    is_single: bool = False,
    recorder_states: PyTree = None,
    last_finite_params: Params | None = None,
) -> LoopResult:
    """Run the steps of a fit, or a part of them, by the loop that suits.

    Args:
      spec: of the fit.
      make_source: `(spec, data, key) -> BatchSource`.
      state: where to begin.
      data: the data.
      mode: how the program is run.
      begin: for a part, how far into its row of the history it begins.
      end: for a part, where it ends, counted likewise.
      num_rows: for a part, room for rows.
      is_single: the part is one step, without a loop round it.
      recorder_states: of the part before.
      last_finite_params: likewise.
    """
    source = make_source(spec, data, state.key)
    check_optimizer(spec, state.opt_state, is_fixed=source.is_fixed)
    is_part = end is not None
    if end is None:
        end = num_steps_of(spec, source)
        num_rows = -(-end // spec.record_every)
    assert num_rows is not None
    if measures_itself(state.opt_state) and not is_part:
        state = state._replace(opt_state=state.opt_state.stale())
    # One that ends by itself inside a wrapper leaves no step over to measure the end.
    stops = measures_itself(state.opt_state)
    is_wrapped = not stops and holds_status(state.opt_state)
    is_ended = stops or is_wrapped
    can_stop = is_ended or is_part or spec.tolerance is not None
    measures = isinstance(spec.step, Step) and not is_ended
    plan = LoopPlan(
        begin=begin,
        end=end,
        num_rows=num_rows,
        record_every=spec.record_every,
        selects=True,
        stops_early=can_stop and not is_single,
        num_measurements=_num_measurements(state.opt_state, is_part),
        keeps_last=measures,
        measures_end=measures and not is_part,
        is_single=is_single,
        remat=spec.remat,
    )

    # A tolerance is the usual end: nothing is to be repeated for it.
    can_replay = stops or spec.tolerance is None
    can_replay &= not (is_single or is_wrapped)
    can_replay &= jax.default_backend() == "cpu" and not spec.remat
    run = functools.partial(_run_plan, make_source, plan)
    rest = (begin, end, plan.num_measurements, recorder_states, last_finite_params)
    if can_replay and mode.is_eager:
        return run(False, spec, state, data, rest)
    if can_replay and mode.hides_no_tracers and not is_part:
        return _plain_or_transformed(run, spec, state, data, rest)
    return run(True, spec, state, data, rest)


def _run_plan(
    make_source: Callable[[Any, Batch, Any], BatchSource],
    plan: LoopPlan,
    selects: bool,
    spec: FitSpec,
    state: FitState,
    data: Batch,
    rest: Any,
) -> LoopResult:
    """Run a plan; all of it that may be traced is in `rest`."""
    begin, end, num_measurements, recorder_states, last_finite_params = rest
    return run_loop(
        functools.partial(attempt, spec.step, tolerance=spec.tolerance),
        make_source(spec, data, state.key),
        state,
        recorders_of(spec),
        plan._replace(
            begin=begin, end=end, num_measurements=num_measurements, selects=selects
        ),
        evaluate_fn=_evaluate_fn(spec.step),
        recorder_states=recorder_states,
        last_finite_params=last_finite_params,
    )


def _num_measurements(opt_state: PyTree, is_part: bool) -> Any:
    """Return how often an optimizer measures itself before the first step."""
    if not measures_itself(opt_state):
        return 0
    return 1 - opt_state.is_measured.astype(jnp.int32) if is_part else 1


def num_steps_of(spec: FitSpec, source: BatchSource) -> int:
    """Return the budget in steps."""
    num_steps = spec.num_steps
    if num_steps is None:
        num_steps = (spec.num_epochs or 0) * source.steps_per_epoch
    if num_steps > _checks.MOST:
        raise ValueError(
            f"{spec.caller}: `num_epochs` must make at most {_checks.MOST:,} steps, "
            f"got {num_steps:,}."
        )
    check_history(spec, num_steps)
    return num_steps


def check_history(spec: FitSpec, num_steps: int) -> None:
    """Refuse a history that no machine like this one holds, before it is asked for."""
    num_rows = -(-num_steps // spec.record_every)
    size = 4 * num_rows * (len(spec.record) + 1)
    if spec.record and size > _placement.machine_memory():
        raise ValueError(
            f"{spec.caller}: `record` asks for {num_rows:,} rows of the history, "
            f"{size / 1e9:.1f} GB or more, which this machine cannot hold; give a "
            "larger `record_every`, or `record=()`."
        )


def recorders_of(spec: FitSpec) -> dict[str, _recorders.Recorder]:
    """Return the recorders of a fit; inside a trace."""
    step = spec.step
    loss_fn = step.loss_fn if isinstance(step, Step) else None
    projection = step.projection if isinstance(step, Step) else None
    if loss_fn is not None and step.has_model_state:
        loss_fn = None  # it takes more than params and a batch
    return _recorders.make_recorders(spec.caller, spec.record, loss_fn, projection)


def final_values(spec: FitSpec, recorder_states: PyTree) -> dict[str, PyTree]:
    """Return what recorders with a final value have to tell."""
    return _recorders.final_values(recorders_of(spec), recorder_states)


def _evaluate_fn(step: Any) -> Callable[[PyTree, Params], Params] | None:
    """Return how to get the params to evaluate, where earlier ones are kept."""
    if not isinstance(step, Step) or not step.stops:
        return None
    return lambda opt_state, params: (
        None
        if measures_itself(opt_state)
        else project(step.projection, eval_params(opt_state, params))
    )


def _plain_or_transformed(run: Callable[..., Any], spec: FitSpec, *arrays: Any) -> Any:
    """Run by replay, but select where the program is mapped or differentiated.

    A rule for derivatives outside and one for batches inside: the other way round jax
    finds the rule for batches only after it has differentiated.
    """
    key, numbers = _tree.split(spec)
    leaves, structure = jax.tree.flatten((numbers, arrays))
    is_static = [isinstance(leaf, int) for leaf in leaves]
    statics = [
        leaf if fixed else None for leaf, fixed in zip(leaves, is_static, strict=True)
    ]
    moving = [leaf for leaf, fixed in zip(leaves, is_static, strict=True) if not fixed]

    def call(selects: bool, *moving: Any) -> Any:
        rest = iter(moving)
        merged = [
            static if fixed else next(rest)
            for static, fixed in zip(statics, is_static, strict=True)
        ]
        numbers, arrays = jax.tree.unflatten(structure, merged)
        ran = run(selects, _tree.merge(key, numbers), *arrays)
        if ran.last is None:
            return ran
        return ran._replace(last=ran.last._replace(proposal=None))

    @custom_vmap
    def plain(*moving: Any) -> Any:
        return call(False, *moving)

    @plain.def_vmap
    def mapped(axis_size: int, in_batched: list[bool], *moving: Any) -> Any:
        axes = [0 if batched else None for batched in in_batched]
        out = jax.vmap(
            functools.partial(call, True), in_axes=axes, axis_size=axis_size
        )(*moving)
        return out, jax.tree.map(lambda _: True, out)

    @jax.custom_jvp
    def either(*moving: Any) -> Any:
        return plain(*moving)

    @either.defjvp
    def differentiated(primals: Any, tangents: Any) -> Any:
        return jax.jvp(functools.partial(call, True), primals, tangents)

    return either(*moving)


# --------------------------------------------------------------------------- the ending


def conclude(
    spec: FitSpec,
    source: BatchSource,
    state: FitState,
    *,
    is_stopped: Bool[Array, ""],
    last: Measured | None,
    last_finite_params: Params | None,
) -> Ending:
    """Find out how a run ended, and with which params."""
    step = spec.step
    if measures_itself(state.opt_state):
        return _conclude_measuring(state)
    here = state._replace(
        step=jnp.where(is_stopped, state.step, jnp.maximum(state.step - 1, 0))
    )
    if last is None:
        last = Measured(*_measure(step, source, here, state.params))
    params = eval_params(state.opt_state, state.params)
    final = project(step.projection, params)
    loss, grad = last.loss, last.grad
    status, leaf = _reason(spec, source, here, last)
    is_ended = is_stopped
    if step.stops:  # the last params may be bad though all steps were taken
        is_ended |= (status >= Status.NONFINITE_LOSS) & (
            status != Status.NONFINITE_PARAMS
        )
    status = jnp.where(is_ended, status, jnp.asarray(Status.COMPLETED, jnp.int32))
    leaf = jnp.where(is_ended, leaf, jnp.asarray(-1, jnp.int32))
    if params is not state.params:
        loss, grad = _measure(step, source, here, final)
    if last_finite_params is not None:
        final, loss = _last_finite(status, state, last_finite_params, final, loss)
    return Ending(state._replace(status=status), final, loss, grad, leaf)


def _last_finite(
    status: Array,
    state: FitState,
    last_finite_params: Params,
    final: Params,
    loss: Array,
) -> tuple[Params, Array]:
    """Return the last params whose loss was finite, and that loss."""
    # A branch compiles to copies, where choices would compile one by one.
    return jax.lax.cond(
        (status == Status.NONFINITE_LOSS) & jnp.isfinite(state.loss),
        lambda: (last_finite_params, state.loss.astype(loss.dtype)),
        lambda: (final, loss),
    )


def reason_to_stop(
    spec: FitSpec,
    source: BatchSource,
    state: FitState,
    *,
    is_stopped: Bool[Array, ""],
    last: Measured | None,
) -> tuple[Array, Array]:
    """Return the status of a run that has stopped, and the leaf that was not finite."""
    nothing = jnp.asarray(-1, jnp.int32)
    if not isinstance(spec.step, Step):
        _, info = source.use_fn(state.step, lambda batch: spec.step(state, batch))
        converged = jnp.asarray(Status.CONVERGED, jnp.int32)
        is_met = info.status == Status.RUNNING
        status, leaf = jnp.where(is_met, converged, info.status), info.nonfinite_leaf
    elif measures_itself(state.opt_state):
        ending = _conclude_measuring(state)
        return ending.state.status, ending.nonfinite_leaf
    else:
        if last is None:
            last = Measured(*_measure(spec.step, source, state, state.params))
        status, leaf = _reason(spec, source, state, last)
    completed = jnp.asarray(Status.COMPLETED, jnp.int32)
    return jnp.where(is_stopped, status, completed), jnp.where(
        is_stopped, leaf, nothing
    )


def _conclude_measuring(state: FitState) -> Ending:
    status = status_of(state.opt_state)
    status = jnp.where(
        status == Status.RUNNING, jnp.asarray(Status.COMPLETED, jnp.int32), status
    )
    loss, grad = state.opt_state.value, state.opt_state.gradient
    found, leaf = diagnose(loss, grad)
    status = jnp.where(found == Status.RUNNING, status, found)
    return Ending(state._replace(status=status), state.params, loss, grad, leaf)


def _measure(
    step: Step, source: BatchSource, state: FitState, params: Params
) -> tuple[Array, Params]:
    """Return loss and gradient at some params, on the batch of a step."""
    value_fn = bind_loss(step, state, functools.partial(source.use_fn, state.step))
    (loss, _), grad = jax.value_and_grad(value_fn, has_aux=True)(params)
    return loss, grad


def _reason(
    spec: FitSpec, source: BatchSource, state: FitState, last: Measured
) -> tuple[Array, Array]:
    """Return why a step was refused, and the leaf that was not finite."""
    step, tolerance = spec.step, spec.tolerance
    own = status_of(state.opt_state)
    nothing = jnp.asarray(-1, jnp.int32)
    if not step.stops and tolerance is None:
        return own, nothing
    converged = jnp.asarray(Status.CONVERGED, jnp.int32)
    loss, grad, proposal = last
    if not step.stops:
        status, leaf = converged, nothing
    elif tolerance is None and proposal is not None:
        status, leaf = diagnose(loss, grad, proposal)
    else:
        use = functools.partial(source.use_fn, state.step)
        after, updates, _ = apply_update(step, state, use, loss, grad)
        status, leaf = diagnose(loss, grad, after.params)
        if tolerance is not None:
            # Where the point is good enough, the next one does not matter.
            info = step_info(loss, grad, updates)
            moving = moving_leaves(step.optimizer, state)
            projection = step.projection
            is_met = is_converged(tolerance, projection, state, after, info, moving)
            is_met &= status == Status.NONFINITE_PARAMS
            status = jnp.where(is_met, converged, status)
            leaf = jnp.where(is_met, nothing, leaf)
    if tolerance is not None:
        status = jnp.where(status == Status.RUNNING, converged, status)
    return jnp.where(own == Status.RUNNING, status, own), leaf
