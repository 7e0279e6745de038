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

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import Partial
from jaxtyping import Array, Bool, PyTree

from phihat._core import checks as _checks
from phihat._core import programs as _programs
from phihat._core import tree as _tree
from phihat._core.types import Batch, Box, LossFn, Params, RandomKey, Status
from phihat._engine import recorders as _records
from phihat._engine.batches import Feed, make_feed
from phihat._engine.loops import (
    Plan,
    Ran,
    Segment,
    is_repeatable,
    run_blocks,
    run_guarded,
)
from phihat._engine.spec import (
    Options,
    as_optimizer,
    as_options,
    as_sampler,
    as_step,
    as_tolerance,
    check_opt_state,
    check_start,
)
from phihat._engine.step import (
    Tolerance,
    as_proposal,
    bind_loss,
    diagnose,
    guarded_step,
    may_stall,
    place,
    project,
    propose_until,
)
from phihat.optimizers import eval_params
from phihat.results import FitResult, FitState, StepInfo

__all__ = ["Tolerance", "fit", "init", "make_step", "run"]


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
    remat: bool = False,
) -> FitResult:
    r"""Minimise a loss: $\hat\phi = \operatorname{argmin}_\phi L[\phi]$.

    Called eagerly it runs one compiled program, remembered for this code: another
    learning rate, penalty or start compiles nothing. Under `jax.jit`, `jax.vmap` or
    `jax.grad` it is a pure function; with `tolerance=None` it can be differentiated in
    reverse. A `lambda` written anew at each call is new code, and compiles each time.

    Args:
      loss_fn: `(params, batch) -> []`, or `(params) -> []` where there are neither data
        nor a sampler. If it has a parameter named `key`, it is given one, folded from
        the fit's key and the step.
      params: the start, any pytree of floats or floating-point arrays; with `state`
        only its structure matters, and None is allowed.
      optimizer: one of phihat, or any of optax.
      data: a pytree of arrays, `(x [I, ...], y [I, ...])` for the losses of phihat.
      num_steps: the budget of updates; either this or `num_epochs`.
      num_epochs: the budget in passes over the data.
      batch_size: rows per minibatch, shuffled anew each epoch; None is the full batch.
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
      nonfinite: "stop" ends the fit before the step that would go wrong; "continue"
        goes on, for loss scaling and `optax.apply_if_finite`.
      state: goes on from there: the `.state` of an earlier result.
      remat: in reverse differentiation keep the states of about $\sqrt{T}$ of the T
        steps only, and compute the others anew: one more pass for much less memory.

    Returns:
      A `FitResult`; how the fit ended is its `.status`, never an exception.

    Raises:
      TypeError: an argument is of the wrong kind.
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
    step_fn = as_step("fit", loss_fn, optimizer, has_aux, projection, nonfinite)
    sampler = as_sampler("fit", data, batch_size, sampler)
    functions = (step_fn.args[0].func, step_fn.args[1].update.func)
    options = as_options("fit", num_steps, num_epochs, record_every, record, functions)
    if remat:
        options = options._replace(remat=True)
        if tolerance is not None:
            raise ValueError(
                "fit: `remat` serves reverse differentiation, which `tolerance` rules "
                "out; give a number of steps alone, or differentiate implicitly, by "
                "`sweeps.implicit_fit`."
            )
    entries = _records.normalise("fit", record)
    tolerance = as_tolerance("fit", tolerance)
    _checks.check_key("fit", key)
    check_start("fit", params, state, projection)
    start = params if state is None else state.params
    step_fn = place(step_fn, "fit", params=start, data=data, state=state, key=key)
    code = (step_fn, sampler, entries, tolerance)
    return _programs.call(_fit, code, options, params, data, key, state)


def init(
    params: Params,
    optimizer: optax.GradientTransformation,
    *,
    key: RandomKey | None = None,
) -> FitState:
    """Return the state before the first step.

    Args:
      params: the start, any pytree of floats or floating-point arrays.
      optimizer: one of phihat, or any of optax.
      key: a typed key, where something in the fit is random.

    Returns:
      A `FitState` whose leaves are arrays, no two of them one buffer.

    Raises:
      TypeError: a leaf of `params` is not floating-point, or `optimizer` is no pair.

    Example:
      >>> from phihat import adam, fitting
      >>> state = fitting.init({"w": 1.0}, adam(0.1))
      >>> print(state.step, state.params)
      0 {'w': Array(1., dtype=float32)}
    """
    _checks.check_float_leaves("init", "params", params)
    _checks.check_key("init", key)
    optimizer = as_optimizer("init", optimizer)
    copied = jax.tree.map(
        lambda leaf: jnp.array(leaf, dtype=jnp.result_type(leaf), copy=True), params
    )
    # Some optimizers keep the params themselves: a copy, so each leaf can be donated.
    opt_state = jax.tree.map(
        lambda leaf: (
            jnp.array(leaf, dtype=jnp.result_type(leaf), copy=True)
            if hasattr(leaf, "dtype") and not _tree.is_key(leaf)
            else leaf
        ),
        optimizer.init(copied),
    )
    return FitState(
        step=jnp.zeros((), jnp.int32),
        params=copied,
        opt_state=_tree.strong(opt_state),
        key=key,
        status=jnp.asarray(Status.RUNNING, jnp.int32),
        loss=jnp.asarray(jnp.nan, _tree.default_float()),
    )


def make_step(
    loss_fn: LossFn,
    optimizer: optax.GradientTransformation,
    *,
    has_aux: bool = False,
    projection: Callable[[Params], Params] | Box | None = None,
    nonfinite: str = "stop",
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

    Returns:
      A Partial, whose numbers are leaves.

    Raises:
      TypeError: an argument is of the wrong kind.
      ValueError: `nonfinite` is another word.

    Example:
      >>> from phihat import fitting, gradient_descent
      >>> optimizer = gradient_descent(0.25)
      >>> step_fn = fitting.make_step(lambda x: x**2, optimizer)
      >>> state, info = step_fn(fitting.init(1.0, optimizer), None)
      >>> print(state.params, info.loss, info.grad)
      0.5 1.0 2.0
    """
    return as_step("make_step", loss_fn, optimizer, has_aux, projection, nonfinite)


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
      TypeError: an argument is of the wrong kind.
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
    sampler = as_sampler("run", data, batch_size, sampler)
    step_fn = _tree.as_partial(step_fn, "run", "step_fn")
    functions = (step_fn.func,)
    options = as_options("run", num_steps, num_epochs, record_every, record, functions)
    code = (
        step_fn,
        sampler,
        _records.normalise("run", record),
        as_tolerance("run", tolerance),
    )
    if not isinstance(state, FitState):
        raise TypeError(
            f"run: `state` must be a FitState, as `init` returns it, got "
            f"{_checks.brief(state)}."
        )
    if step_fn.func is guarded_step:
        placed = place(step_fn, "run", params=state.params, data=data, state=state)
        code = (placed, *code[1:])
    return _programs.call(_run, code, options, state, data)


# -------------------------------------------------------------------- the two programs


def _fit(
    code: Any,
    options: Options,
    is_eager: bool,
    params: Params,
    data: Batch,
    key: RandomKey | None,
    state: FitState | None,
) -> FitResult:
    step_fn, sampler, entries, tolerance = code
    optimizer = step_fn.args[1]
    if state is None:
        state = init(params, optimizer, key=key)
    elif key is not None:
        state = state._replace(key=key)
    check_opt_state(optimizer, state)
    end = _loop(step_fn, sampler, entries, tolerance, options, is_eager, state, data)
    result = conclude(step_fn, end.feed, end.state, end.nonfinite_leaf, data)
    return dataclasses.replace(
        result, history=end.history, num_steps=end.state.step - state.step
    )


def conclude(
    step_fn: Partial,
    feed: Feed,
    state: FitState,
    leaf: Array,
    data: Batch,
    final: Params | None = None,
) -> FitResult:
    """Return the result of a run that has ended, with no history yet."""
    if final is None:
        projection = step_fn.args[2]
        final = project(projection, eval_params(state.opt_state, state.params))
    loss, grad = _evaluate(step_fn, feed, state, final)
    status = state.status
    if step_fn.keywords["nonfinite"].value == "stop":
        found, found_leaf = diagnose(loss, grad)
        surprised = (status == Status.COMPLETED) & (found != Status.RUNNING)
        status = jnp.where(surprised, found, status)
        leaf = jnp.where(surprised, found_leaf, leaf)
    return FitResult(
        params=final,
        loss=loss,
        grad_norm=_tree.global_norm(grad),
        history={},
        status=status,
        num_steps=state.step,
        state=state._replace(status=status),
        nonfinite_leaf=leaf,
        nonfinite_data_leaf=_inspect_data(data, status),
        data_paths=tuple(_tree.leaf_paths(data)),
    )


def _run(
    code: Any, options: Options, is_eager: bool, state: FitState, data: Batch
) -> tuple[FitState, dict[str, Any]]:
    step_fn, sampler, entries, tolerance = code
    end = _loop(step_fn, sampler, entries, tolerance, options, is_eager, state, data)
    return end.state, end.history


def _inspect_data(data: Batch, status: Array) -> Array:
    """Return the number of the first data leaf that is not finite, where one failed."""
    leaves = jax.tree.leaves(data)
    is_float = [jnp.issubdtype(jnp.result_type(leaf), jnp.inexact) for leaf in leaves]
    nothing = jnp.asarray(-1, jnp.int32)

    def inspect_leaves() -> Array:
        finite_or_zero = [
            leaf if inexact else jnp.zeros(())
            for leaf, inexact in zip(leaves, is_float, strict=True)
        ]
        return _tree.first_nonfinite(finite_or_zero)

    if not any(is_float):
        return nothing
    return jax.lax.cond(
        status >= Status.NONFINITE_LOSS, inspect_leaves, lambda: nothing
    )


class _End(NamedTuple):
    state: FitState
    nonfinite_leaf: Array
    history: dict[str, Any]
    feed: Feed


def _loop(
    step_fn: Any,
    sampler: Any,
    entries: Any,
    tolerance: Tolerance | None,
    options: Options,
    is_eager: bool,
    state: FitState,
    data: Batch,
) -> _End:
    """Run the steps and complete the history; inside a trace."""
    feed = make_feed(sampler, data, state.key)
    num_steps = options.num_steps
    if num_steps is None:
        num_steps = (options.num_epochs or 0) * feed.steps_per_epoch
    plan = Plan(num_steps=num_steps, record_every=options.record_every)
    start = state._replace(status=jnp.asarray(Status.RUNNING, jnp.int32))
    ran = run_steps(
        step_fn,
        entries,
        tolerance,
        feed,
        start,
        plan,
        is_eager=is_eager,
        remat=options.remat,
    )
    last, leaf, history = ran.state, ran.nonfinite_leaf, ran.history
    finished = last.status == Status.RUNNING
    last = last._replace(
        status=jnp.where(
            finished, jnp.asarray(Status.COMPLETED, jnp.int32), last.status
        )
    )
    offsets = jnp.arange(plan.num_rows, dtype=jnp.int32) * plan.record_every
    if "params" in history:
        projection = _own_parts(step_fn)[1]
        final = project(projection, eval_params(last.opt_state, last.params))
        measured = offsets <= last.step - start.step
        history["params"] = _complete(history["params"], measured, final)
    if options.records:
        history["step"] = start.step + offsets
    history |= final_values(step_fn, entries, ran.recorder_states)
    return _End(state=last, nonfinite_leaf=leaf, history=history, feed=feed)


def run_steps(
    step_fn: Any,
    entries: Any,
    tolerance: Tolerance | None,
    feed: Feed,
    state: FitState,
    plan: Plan,
    *,
    is_eager: bool,
    remat: bool = False,
    segment: Segment | None = None,
) -> Ran:
    """Run the steps of a plan, or a segment of them, by the loop that suits."""
    loss_fn, projection = _own_parts(step_fn)
    is_single = is_eager and jax.default_backend() == "cpu"
    propose, asks_later, may_stop = step_fn, False, True
    if loss_fn is not None:
        stops = step_fn.keywords["nonfinite"].value == "stop"
        asks_later = is_single and stops and is_repeatable(state)
        propose = as_proposal(step_fn, asks_later=asks_later)
        may_stop = tolerance is not None or may_stall(state.opt_state)
        may_stop |= stops and not asks_later
    if tolerance is not None:
        propose = functools.partial(propose_until, propose, tolerance, projection)
    recorders = _records.resolve(entries, loss_fn, projection)
    if is_single:
        return run_blocks(
            propose,
            feed,
            state,
            recorders,
            plan,
            asks_later=asks_later,
            may_stop=may_stop,
            segment=segment,
        )
    return run_guarded(
        propose,
        feed,
        state,
        recorders,
        plan,
        stops_early=tolerance is not None and segment is None,
        remat=remat,
        segment=segment,
    )


def final_values(
    step_fn: Any, entries: Any, recorder_states: dict[str, PyTree]
) -> dict[str, PyTree]:
    """Return what recorders with a final value have to tell."""
    recorders = _records.resolve(entries, *_own_parts(step_fn))
    return _records.final_values(recorders, recorder_states)


def _own_parts(step_fn: Any) -> tuple[Any, Any]:
    """Return the loss and the projection of a step made here, else None and None."""
    is_ours = isinstance(step_fn, Partial) and step_fn.func is guarded_step
    return (step_fn.args[0], step_fn.args[2]) if is_ours else (None, None)


def _evaluate(
    step_fn: Any, feed: Feed, state: FitState, params: Params
) -> tuple[Array, Params]:
    """Return loss and gradient on the last batch, or on the batch that failed."""
    loss_fn, has_aux = step_fn.args[0], step_fn.keywords["has_aux"].value
    placement = step_fn.keywords.get("placement")
    failed = state.status >= Status.NONFINITE_LOSS
    step = jnp.where(failed, state.step, jnp.maximum(state.step - 1, 0))
    here = state._replace(step=step)

    def measure(batch: Batch) -> tuple[Array, Params]:
        value_fn = bind_loss(loss_fn, batch, here, has_aux, placement)
        (loss, _), grad = jax.value_and_grad(value_fn, has_aux=True)(params)
        return loss, grad

    return feed.use_fn(step, measure)


def _complete(rows: PyTree, measured: Bool[Array, " R"], final: Params) -> PyTree:
    """Repeat the final params after a stop, and append them as the last row."""

    def complete(rows: Array, last: Array) -> Array:
        shape = (-1,) + (1,) * last.ndim
        rows = jnp.where(measured.reshape(shape), rows, last[None])
        return jnp.concatenate([rows, last[None]])

    return jax.tree.map(complete, rows, final)
