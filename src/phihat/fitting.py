r"""Fitting: $\hat\phi = \operatorname{argmin} L[\phi]$ as one compiled program.

Three layers of use, in the same words: `fit` is `init`, `make_step`, `run` and
`eval_params`, each of them public. `fit` is a pure function: it can be jitted, mapped
over hyperparameters, starts and keys, and differentiated.

Example:
  >>> import jax.numpy as jnp
  >>> import phihat
  >>> x, y = phihat.datasets.linear_regression()
  >>> loss_fn = phihat.losses.least_squares(phihat.models.linear)
  >>> start = {"weight": 0.0, "bias": 0.0}
  >>> result = phihat.fit(loss_fn, start, phihat.adam(0.1), (x, y), num_steps=500)
  >>> print({name: round(float(leaf), 3) for name, leaf in result.params.items()})
  {'bias': 0.826, 'weight': 0.522}
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from phihat._core import calls as _calls
from phihat._core import checks as _checks
from phihat._core import data_checks as _data_checks
from phihat._core import programs as _programs
from phihat._core import tree as _tree
from phihat._core.data_checks import SeenData
from phihat._core.programs import Mode
from phihat._core.types import Batch, Box, LossFn, Params, PyTree, RandomKey, Status
from phihat._engine import result as _result
from phihat._engine import run as _run
from phihat._engine import spec as _spec
from phihat._engine.batches import BatchSource, make_source
from phihat._engine.loop import LoopResult
from phihat._engine.spec import FitSpec
from phihat._engine.step import Step, project
from phihat._engine.tolerance import Tolerance
from phihat.optimizers import eval_params
from phihat.results import FitResult, FitState, StepInfo, remember_data

__all__ = ["Tolerance", "fit", "init", "make_step", "run"]


@_calls.public
def fit(
    loss_fn: LossFn,
    params: Params,
    optimizer: optax.GradientTransformation,
    data: Batch = None,
    *,
    num_steps: int | None = None,
    num_epochs: int | None = None,
    batch_size: int | None = None,
    sampler: Callable[..., Any] | None = None,
    key: RandomKey | None = None,
    tolerance: float | Tolerance | None = None,
    record: Sequence[Any] | Mapping[str, Any] = ("loss",),
    record_every: int = 1,
    has_aux: bool = False,
    projection: Callable[[Params], Params] | Box | None = None,
    nonfinite: str = "stop",
    state: FitState | None = None,
    model_state: PyTree = None,
    remat: bool = False,
) -> FitResult:
    r"""Minimize a loss: $\hat\phi = \operatorname{argmin}_\phi L[\phi]$.

    A call runs one compiled program, which is kept: another learning rate, penalty or
    start does not compile again. Under `jax.jit`, `jax.vmap` or `jax.grad` it is a pure
    function; with `tolerance=None` it can be differentiated in reverse mode.

    Args:
      loss_fn: `(params, batch) -> []`, or `(params) -> []` where there are neither data
        nor a sampler. If it has a parameter named `key`, it is given one, folded from
        the fit's key and the step.
      params: the start, any pytree of floats or floating-point arrays; with `state`
        only its structure matters, and None is allowed.
      optimizer: one of phihat's, or any of optax's.
      data: a pytree of arrays, `(x [I, ...], y [I, ...])` for the losses of phihat.
      num_steps: the budget of updates; either this or `num_epochs`.
      num_epochs: the budget in passes over the data.
      batch_size: rows per minibatch, reshuffled in each epoch; None is the full batch.
      sampler: how batches are drawn instead, from `phihat.sampling`.
      key: a typed key, needed where something is random: shuffling, a keyed loss.
      tolerance: the largest absolute gradient entry at which the fit has converged, or
        a `Tolerance`; checked at every step, before the update.
      record: names among "loss", "params", "grad_norm", "learning_rate", "aux" and
        "sharpness"; `{name: fn(state, info)}`; `{name: Recorder}`; or `()`.
      record_every: steps per row of the history.
      has_aux: the loss returns `(value, aux)`.
      projection: applied to the params after every update, such as those of
        `optax.projections`; a `Box` clips to it.
      nonfinite: "stop" ends the fit before a step that leads to an infinite or NaN
        number; "continue" does not, for loss scaling and `optax.apply_if_finite`.
      state: where to continue: the `.state` of an earlier result.
      model_state: what the loss carries from step to step beside the params, such as
        the statistics of batch normalization; any pytree of arrays. Then the loss is
        called as `(params, batch, model_state)` and returns `(loss, new_model_state)`,
        or `(loss, new_model_state, aux)` with `has_aux`.
      remat: in reverse differentiation keep the states of only about $\sqrt{T}$ of the
        T steps, and compute the others again: one more pass, but much less memory.

    Returns:
      A `FitResult`; how the fit ended is its `.status`, never an exception.

    Raises:
      TypeError: an argument has the wrong type; the message says what to pass.
      ValueError: an argument has a wrong value. Both are raised before the loss is
        called, and name the argument, what was given and the cure.

    Example:
      >>> import phihat
      >>> loss_fn = phihat.losses.least_squares(phihat.models.linear)
      >>> result = phihat.fit(
      ...     loss_fn,
      ...     {"weight": -0.5, "bias": 1.6},
      ...     phihat.gradient_descent(0.02),
      ...     phihat.datasets.linear_regression(),
      ...     num_steps=100,
      ... )
      >>> print(phihat.Status(int(result.status)).name, round(float(result.loss), 4))
      COMPLETED 0.1999
    """
    return fit_as("fit", **locals())


def fit_as(
    caller: str,
    loss_fn: LossFn,
    params: Params,
    optimizer: optax.GradientTransformation,
    data: Batch = None,
    *,
    key: RandomKey | None = None,
    state: FitState | None = None,
    model_state: PyTree = None,
    runs_briefly: bool = False,
    **others: Any,
) -> FitResult:
    """Fit for another public function, in whose name errors then speak."""
    data = _data_checks.columns_as_arrays(data)
    spec = _spec.prepare(
        caller,
        loss_fn,
        params,
        optimizer,
        data,
        key=key,
        state=state,
        model_state=model_state,
        **others,
    )
    if params is None and state is not None:  # how to compile is told by the params
        params = state.params
    arrays = (_tree.as_arrays(params), data, key, state, model_state)
    result = _programs.call(_fit, spec, (), *arrays, runs_briefly=runs_briefly)
    return remember_data(result, SeenData(data))


@_calls.public
def init(
    params: Params,
    optimizer: optax.GradientTransformation,
    *,
    key: RandomKey | None = None,
    model_state: PyTree = None,
) -> FitState:
    """Return the state before the first step.

    Args:
      params: the start, any pytree of floats or floating-point arrays.
      optimizer: one of phihat, or any of optax.
      key: a typed key, where something in the fit is random.
      model_state: as in `fit`.

    Returns:
      A `FitState` whose leaves are arrays, no two of them one buffer.

    Raises:
      TypeError: a leaf of `params` is not floating-point, or `optimizer` is not a pair.

    Example:
      >>> from phihat import adam, fitting
      >>> state = fitting.init({"w": 1.0}, adam(0.1))
      >>> print(state.step, state.params)
      0 {'w': Array(1., dtype=float32)}
    """
    if params is None:
        raise TypeError(
            "init: `params` must be the start, a pytree of floats, got "
            f"{_checks.brief(params)}."
        )
    _checks.check_float_leaves("init", "params", params)
    _checks.check_key("init", key)
    optimizer = _spec.as_optimizer("init", optimizer)
    copied = jax.tree.map(_copy, params)
    # Some optimizers keep the params themselves: a copy, so each leaf can be donated.
    return FitState(
        step=jnp.zeros((), jnp.int32),
        params=copied,
        opt_state=_tree.strong(jax.tree.map(_copy, optimizer.init(copied))),
        key=key,
        status=jnp.asarray(Status.RUNNING, jnp.int32),
        loss=jnp.asarray(jnp.nan, _tree.default_float()),
        model_state=_tree.strong(jax.tree.map(_copy, model_state)),
    )


def _copy(leaf: Any) -> Any:
    is_plain = isinstance(leaf, (float, int)) or hasattr(leaf, "dtype")
    if not is_plain or _tree.is_key(leaf):
        return leaf
    return jnp.array(leaf, dtype=jnp.result_type(leaf), copy=True)


@_calls.public
def make_step(
    loss_fn: LossFn,
    optimizer: optax.GradientTransformation,
    *,
    has_aux: bool = False,
    projection: Callable[[Params], Params] | Box | None = None,
    nonfinite: str = "stop",
    model_state: PyTree = None,
) -> Callable[[FitState, Batch], tuple[FitState, StepInfo]]:
    """Return the step: `step_fn(state, batch) -> (state, info)`, pure and unjitted.

    A state whose status is not RUNNING is returned as it is. With a batch of None the
    loss is called as `loss_fn(params)`.

    Args:
      loss_fn: as in `fit`.
      optimizer: as in `fit`.
      has_aux: the loss returns `(value, aux)`.
      projection: applied to the params after the update.
      nonfinite: "stop" refuses a step with an infinite or NaN loss, gradient or new
        params, and says so in the state's status; "continue" takes it.
      model_state: an example of it, where the loss takes one; the state from
        `init(..., model_state=...)` holds its values.

    Returns:
      The step, a pytree whose numbers are leaves.

    Raises:
      TypeError: an argument has the wrong type; the message says what to pass.
      ValueError: `nonfinite` is another word.

    Example:
      >>> from phihat import fitting, gradient_descent
      >>> optimizer = gradient_descent(0.25)
      >>> step_fn = fitting.make_step(lambda x: x**2, optimizer)
      >>> state, info = step_fn(fitting.init(1.0, optimizer), None)
      >>> print(state.params, info.loss, info.grad)
      0.5 1.0 2.0
    """
    return _spec.make_step(
        "make_step", loss_fn, optimizer, has_aux, projection, nonfinite, model_state
    )


@_calls.public
def run(
    step_fn: Callable[[FitState, Batch], tuple[FitState, StepInfo]],
    state: FitState,
    data: Batch = None,
    *,
    num_steps: int | None = None,
    num_epochs: int | None = None,
    batch_size: int | None = None,
    sampler: Callable[..., Any] | None = None,
    tolerance: float | Tolerance | None = None,
    record: Sequence[Any] | Mapping[str, Any] = ("loss",),
    record_every: int = 1,
) -> tuple[FitState, dict[str, Any]]:
    """Repeat a step: the loop of `fit`, on its own.

    Args:
      step_fn: from `make_step`, or any pure `(state, batch) -> (FitState, StepInfo)`;
        where the status in its info is not RUNNING, the step is not taken.
      state: from `init`, or from an earlier run.
      data: as in `fit`, like all that follow.
      num_steps: the budget of updates; either this or `num_epochs`.
      num_epochs: the budget in passes over the data.
      batch_size: rows per minibatch.
      sampler: how batches are drawn instead.
      tolerance: when the fit has converged.
      record: what goes on record.
      record_every: steps per row of the history.

    Returns:
      The last state, its status telling how the run ended, and the history.

    Raises:
      TypeError: an argument has the wrong type; the message says what to pass.
      ValueError: an argument has a wrong value.

    Example:
      >>> from phihat import fitting, gradient_descent
      >>> optimizer = gradient_descent(0.25)
      >>> step_fn = fitting.make_step(lambda x: x**2, optimizer)
      >>> state = fitting.init(1.0, optimizer)
      >>> state, history = fitting.run(step_fn, state, num_steps=3)
      >>> print(state.params, history["loss"])
      0.125 [1.     0.25   0.0625]
    """
    data = _data_checks.columns_as_arrays(data)
    spec = _spec.prepare_run(
        step_fn,
        state,
        data,
        batch_size=batch_size,
        sampler=sampler,
        tolerance=tolerance,
        num_steps=num_steps,
        num_epochs=num_epochs,
        record=record,
        record_every=record_every,
    )
    return _programs.call(_run_steps, spec, (), state, data)


# -------------------------------------------------------------------- the two programs


def _fit(
    spec: FitSpec,
    options: Any,
    mode: Mode,
    params: Params,
    data: Batch,
    key: RandomKey | None,
    state: FitState | None,
    model_state: PyTree,
) -> FitResult:
    del options
    state = first_state(spec, params, key, state, model_state)
    source, ran = _loop(spec, state, data, mode)
    ending = _run.conclude(
        spec,
        source,
        ran.state,
        is_stopped=_is_stopped(spec, source, ran),
        last=ran.last,
        last_finite_params=ran.last_finite_params,
    )
    history = _result.complete_history(spec, ran, state, ending.params)
    draws = not source.is_fixed
    return _result.as_result(
        ending, history, ran.num_taken, data, is_of_minibatch=draws
    )


def first_state(
    spec: FitSpec,
    params: Params,
    key: RandomKey | None,
    state: FitState | None,
    model_state: PyTree,
) -> FitState:
    """Return the state from which a fit starts: a new one, or the one given."""
    optimizer = spec.step.optimizer
    if state is None:
        state = init(params, optimizer, key=key, model_state=model_state)
    else:
        state = state if key is None else state._replace(key=key)
        if model_state is not None:
            state = state._replace(model_state=model_state)
    _spec.check_opt_state(spec.caller, optimizer, state)
    return state


def _run_steps(
    spec: FitSpec, options: Any, mode: Mode, state: FitState, data: Batch
) -> tuple[FitState, dict[str, Any]]:
    del options
    source, ran = _loop(spec, state, data, mode)
    status, _ = _run.reason_to_stop(
        spec,
        source,
        ran.state,
        is_stopped=_is_stopped(spec, source, ran),
        last=ran.last,
    )
    final = eval_params(ran.state.opt_state, ran.state.params)
    if isinstance(spec.step, Step):
        final = project(spec.step.projection, final)
    history = _result.complete_history(spec, ran, state, final)
    return ran.state._replace(status=status), history


def _loop(
    spec: FitSpec, state: FitState, data: Batch, mode: Mode
) -> tuple[BatchSource, LoopResult]:
    state = state._replace(status=jnp.asarray(Status.RUNNING, jnp.int32))
    source = source_of(spec, data, state.key)
    return source, _run.run_spec(spec, source_of, state, data, mode)


def source_of(spec: FitSpec, data: Batch, key: RandomKey | None) -> BatchSource:
    """Return where the steps of a fit get their batches."""
    return make_source(spec.caller, spec.sampler, data, key)


def _is_stopped(spec: FitSpec, source: BatchSource, ran: LoopResult) -> Array:
    return ran.num_taken < _run.num_steps_of(spec, source)
