"""The call that drives a long fit: its arguments, its beginning and its end."""

import contextlib
import datetime
import functools
import inspect
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding

from phihat import fitting
from phihat._core import calls as _calls
from phihat._core import checks as _checks
from phihat._core import data_checks as _data_checks
from phihat._core import jaxprs as _jaxprs
from phihat._core import placement as _placement
from phihat._core import programs as _programs
from phihat._core import tree as _tree
from phihat._core.types import Batch, Box, LossFn, Params, PyTree, RandomKey, Status
from phihat._engine import run as _run
from phihat._engine.endings import measures_itself
from phihat._engine.spec import FitSpec, prepare
from phihat._engine.tolerance import Tolerance
from phihat.checkpoint import Checkpoints
from phihat.results import FitResult, FitState, with_parts
from phihat.training import chunk_programs, fingerprint, multihost
from phihat.training.arguments import check_devices, check_rest, check_stream
from phihat.training.callbacks import as_seconds
from phihat.training.checkpointing import CheckpointManager
from phihat.training.chunked_run import ChunkedRun, first_buffer_rows
from phihat.training.logging import Log, Progress
from phihat.training.restoring import RestoredRun, check_budget, is_final
from phihat.training.signals import tell_user, watch
from phihat.training.streams import Stream, is_stream
from phihat.training.train_loop import Hooks, TrainLoop
from phihat.training.validation import Validation, Validator

__all__ = ["train"]


@_calls.public
def train(
    loss_fn: LossFn,
    params: Params,
    optimizer: optax.GradientTransformation,
    data: Batch | Iterable[Batch] = None,
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
    progress: bool = False,
    checkpoint: Checkpoints | None = None,
    time_limit: float | datetime.timedelta | None = None,
    callbacks: Sequence[Callable[[FitState, dict[str, Any]], Any]] = (),
    log_to: str | os.PathLike[str] | None = None,
    validation: Validation | None = None,
    steps_per_chunk: int | None = None,
) -> FitResult:
    r"""Minimize a loss as `fit` does, in chunks of compiled steps.

    The steps and the numbers are those of `fit`, whatever the length of the chunks. (On
    the CPU the steps of a network with convolutions run one by one, which is faster
    there; its numbers agree with those of `fit` up to rounding.) Ctrl-C, SIGTERM, the
    time limit, a callback or patience end the fit between two chunks. It then returns
    a complete result, and writes a checkpoint if `checkpoint` is given. The same call
    continues from the newest complete checkpoint.

    Args:
      loss_fn: as in `fit`, like all arguments up to `model_state`.
      params: the start.
      optimizer: one of phihat, or any of optax.
      data: a pytree of arrays as in `fit`; or a stream, which is any iterable of
        batches of one shape (the last one may be shorter): a generator, a loader of
        grain or PyTorch. A thread reads ahead and sends the batches to the device.
      num_steps: the budget of updates; either this or `num_epochs`. A stream that ends
        is read again, if `iter` starts it again; else the fit ends with the status
        STOPPED.
      num_epochs: the budget in passes over the data.
      batch_size: rows per minibatch; not for a stream.
      sampler: how batches are drawn instead; not for a stream.
      key: a typed key, needed where something is random.
      tolerance: when the fit has converged.
      record: what goes on record.
      record_every: steps per row of the history.
      has_aux: the loss returns `(value, aux)`.
      projection: applied to the params after every update.
      nonfinite: "stop" or "continue".
      state: where to continue.
      model_state: what the loss takes and returns beside its value.
      progress: show a bar with the loss, the speed and the time left, if the output is
        a terminal or a notebook.
      checkpoint: where and how often to write checkpoints, from which the same call
        resumes; they are written while the steps continue, from a copy.
      time_limit: seconds, or a timedelta, for this call.
      callbacks: functions called between chunks as `callback(state, rows)`, with the
        `FitState` and copies of the new rows of the history. It returns None to
        continue, True to end the fit, or the fit's optimizer with other numbers, such
        as another learning rate, to continue with that; checkpoints keep it.
      log_to: a file to which JSON lines are appended, one for each new row and each
        event. Every call begins with the line of an event "begin".
      validation: held-out data, how often to evaluate them, by which metric, and after
        how many evaluations without improvement to stop. The result's params are then
        those that did best on them, and its history has "validation_loss" and
        "validation_step" (and "validation_metric"), one entry per evaluation.
      steps_per_chunk: steps between two calls of the callbacks, and between two writes
        of the log. With None a chunk lasts a fraction of a second, or up to two seconds
        where the state is large.

    Returns:
      A `FitResult`, as `fit` returns it; its state is the last one.

    Raises:
      TypeError: an argument or a batch has the wrong type.
      ValueError: an argument or a batch has a wrong value, a stream is empty, or the
        newest checkpoint belongs to another fit.
      RuntimeError: reading the stream raised, whatever it raised; the exception
        carries the result so far as its attribute `result`. Or another fit uses the
        folder of the checkpoints.

    Example:
      >>> import numpy as np
      >>> import phihat
      >>> def batches():
      ...     rng = np.random.default_rng(0)
      ...     while True:
      ...         x = rng.normal(size=32).astype(np.float32)
      ...         yield x, 3 * x - 1
      >>> result = phihat.train(
      ...     phihat.losses.least_squares(phihat.models.linear, reduction="mean"),
      ...     {"weight": 0.0, "bias": 0.0},
      ...     phihat.adam(0.1),
      ...     batches(),
      ...     num_steps=300,
      ... )
      >>> print({name: round(float(leaf), 3) for name, leaf in result.params.items()})
      {'bias': -1.0, 'weight': 3.0}
    """
    arguments = dict(locals())
    seconds = as_seconds("train", "time_limit", time_limit)
    deadline = None if seconds is None else time.monotonic() + seconds
    if _jaxprs.is_tracing():
        raise TypeError(
            "train: it is driven from the host and cannot be traced; under jax.jit, "
            "jax.vmap or jax.grad use `fit`."
        )
    is_streamed = is_stream(data)
    if is_streamed:
        check_stream(data, num_epochs, batch_size, sampler)
    else:
        data = _data_checks.columns_as_arrays(data)
    of_fit = {name: arguments[name] for name in _ARGUMENTS_OF_FIT}
    of_fit["data"] = data
    spec = prepare("train", **of_fit, is_streamed=is_streamed)
    start = params if state is None else state.params
    is_shared = multihost.spans(start, None if is_streamed else data)
    if is_streamed:
        check_devices(start)
        _run.check_history(spec, spec.num_steps or 0)
    callbacks = check_rest(progress, checkpoint, callbacks, validation, steps_per_chunk)
    state = _first_state(spec, params, key, state, model_state)
    with contextlib.ExitStack() as stack:
        hooks = Hooks(
            watcher=stack.enter_context(watch()),
            callbacks=callbacks,
            manager=None,
            validator=None if validation is None else Validator(validation),
            deadline=deadline,
        )
        run, hooks, result = _open_run(
            stack, spec, state, data, hooks, checkpoint, steps_per_chunk, is_shared
        )
        if result is not None:
            return _complete(run, hooks.validator, result)
        if not is_shared or jax.process_index() == 0:  # one of them writes
            hooks = _open_reports(stack, run, hooks, log_to, progress)
        return _run_to_end(run, hooks)


_ARGUMENTS_OF_FIT = tuple(
    name for name in inspect.signature(fitting.fit).parameters if name != "remat"
)
"""The arguments that `train` hands on as `fit` does; it is not differentiated."""


def _open_run(
    stack: contextlib.ExitStack,
    spec: FitSpec,
    state: FitState,
    data: Any,
    hooks: Hooks,
    checkpoint: Checkpoints | None,
    steps_per_chunk: int | None,
    is_shared: bool,
) -> tuple[ChunkedRun, Hooks, FitResult | None]:
    """Return the run, where its checkpoint left it, and the result if it is done."""
    stream, is_streamed, num_steps = None, is_stream(data), spec.num_steps
    options = chunk_programs.ChunkOptions(
        num_rows=first_buffer_rows(spec.record, state),
        is_stream=is_streamed,
        is_group=False,
    )
    carry = chunk_programs.copy_leaves(
        _programs.bind(chunk_programs.begin, spec, options, params=state)(state)
    )
    placement = spec.step.placement
    carry = _placement.settle(placement, carry)
    if placement is not None:
        options = options._replace(shardings=_shardings(carry))
    if is_streamed:
        is_kept = checkpoint is not None
        stream = Stream("train", data, passes=spec.num_epochs, asks_state=is_kept)
        stack.callback(stream.close)
    else:
        data = jax.tree.map(_on_device, data)
        num_steps = _run.num_steps_of(spec, fitting.source_of(spec, data, state.key))
        if chunk_programs.is_faster_alone(spec, state, data):
            options = options._replace(is_single=True)
    manager = restored = None
    if checkpoint is not None:
        manager = _open_manager(stack, spec, state, data, hooks.validator, checkpoint)
        rows_like = functools.partial(
            chunk_programs.row_shapes, spec, options, carry, data
        )
        restored = manager.load(
            carry, hooks.validator, None if is_streamed else rows_like
        )
    run = ChunkedRun(
        spec,
        options,
        carry if restored is None else _placement.settle(placement, restored.carry),
        data=None if is_streamed else data,
        stream=stream,
        start_step=int(state.step) if restored is None else restored.start_step,
        num_steps=num_steps,
        chunk=steps_per_chunk,
        is_shared=is_shared,
    )
    hooks = hooks._replace(manager=manager)
    if restored is not None:
        _resume(run, restored)
        if restored.result is not None and is_final(restored, num_steps):
            return run, hooks, restored.result
        run.mark_running()
    return run, hooks, None


def _open_manager(
    stack: contextlib.ExitStack,
    spec: FitSpec,
    state: FitState,
    data: Any,
    validator: Validator | None,
    checkpoint: Checkpoints,
) -> CheckpointManager:
    """Claim the folder of the checkpoints for this fit."""
    validation = validator and validator.validation
    configuration = fingerprint.describe_fit(
        spec, state, data, validation, is_stream=is_stream(data)
    )
    manager = CheckpointManager(checkpoint, configuration)
    manager.open()
    stack.callback(manager.close)
    return manager


def _open_reports(
    stack: contextlib.ExitStack,
    run: ChunkedRun,
    hooks: Hooks,
    log_to: Any,
    progress: bool,
) -> Hooks:
    """Open the log and the bar."""
    manager = hooks.manager
    if log_to is not None:
        # Where checkpoints are kept, no row of theirs is written a second time.
        log = Log(log_to, None if manager is None else run.step)
        stack.callback(log.close)
        now = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
        log.note("begin", at=run.step, time=now)
        if manager is not None:
            manager.log = log
        hooks = hooks._replace(log=log)
    if progress:
        bar = Progress(run.num_steps, run.done)
        stack.callback(bar.close)
        hooks = hooks._replace(progress=bar)
    return hooks


def _run_to_end(run: ChunkedRun, hooks: Hooks) -> FitResult:
    """Run a fit to its end, and keep what there is however it ends."""
    validator, manager = hooks.validator, hooks.manager
    try:
        TrainLoop(run, hooks).run_to_end()
    except BaseException as error:
        # A callback that raised, a second Ctrl-C: what was reached is not lost.
        if manager is not None and run.is_settled:
            run.status = Status.INTERRUPTED
            manager.save(run, validator, None)
            error.add_note(f"train: {manager.describe_saved()}")
        raise
    if run.stream is not None and not run.has_evidence:
        cause = None if run.failure is None else run.failure.error
        raise _no_batches_error(run) from cause
    best = (None, None) if validator is None else validator.best_point
    result = run.finish(*best)
    run.carry = run.carry._replace(state=result.state)
    if manager is not None:
        manager.save(run, validator, result)
    if hooks.log is not None:
        reason = {"by": run.ended_by} if run.ended_by else {}
        hooks.log.note("end", at=run.step, status=run.status.name, **reason)
    result = _complete(run, validator, result)
    if run.failure is not None:
        raise _stream_error(run, manager, result) from run.failure.error
    if hooks.watcher.received is not None and run.status == Status.INTERRUPTED:
        _say_how_to_go_on(run, manager)
    if run.stream_ended and run.status == Status.STOPPED:
        _checks.warn(
            f"train: `data` ended after {run.done} batches, before the "
            f"{run.num_steps} steps asked for; the result is that of {run.done} steps."
        )
    return result


def _say_how_to_go_on(run: ChunkedRun, manager: CheckpointManager | None) -> None:
    cure = "to go on, call it with `state=result.state`"
    if manager is not None:
        cure = f"{manager.describe_saved()}; to go on, make the same call again"
    tell_user(f"train: interrupted after {run.done} steps; {cure}.")


def _complete(
    run: ChunkedRun, validator: Validator | None, result: FitResult
) -> FitResult:
    """Add the history, and count the steps from the start of the run."""
    parts = vars(result)
    last = parts["params"]
    if validator is not None:
        last = chunk_programs.evaluation_params(run.spec, result.state)
    history = run.complete_history(last) | run.final_values()
    if validator is not None:
        history |= validator.history(parts["loss"].dtype)
    num_steps = jnp.asarray(run.step - run.start_step, jnp.int32)
    return with_parts(result, history=history, num_steps=num_steps)


# -------------------------------------------------------------------- private helpers


def _first_state(
    spec: FitSpec, params: Params, key: Any, state: Any, model_state: Any
) -> FitState:
    """Return the state to begin with, in buffers that can be given away."""
    is_new = state is None
    state = fitting.first_state(spec, params, key, state, model_state)
    if not is_new and measures_itself(state.opt_state):
        state = state._replace(opt_state=state.opt_state.stale())
    running = jnp.asarray(Status.RUNNING, jnp.int32)
    return chunk_programs.copy_leaves(state._replace(status=running))


def _resume(run: ChunkedRun, restored: RestoredRun) -> None:
    """Bring a run to where its checkpoint was written."""
    check_budget(restored, run.num_steps)
    if run.stream is not None:
        _seek(run.stream, restored)
    run.history, run.num_rows = [restored.history], restored.num_rows
    if restored.numbers is not None:
        run.change_optimizer(chunk_programs.with_numbers(run.spec, restored.numbers))


def _shardings(carry: chunk_programs.ChunkCarry) -> tuple[NamedSharding | None, ...]:
    """Return where the leaves of a carry lie; keys are left to the compiler."""
    return tuple(
        leaf.sharding
        if isinstance(leaf.sharding, NamedSharding) and not _tree.is_key(leaf)
        else None
        for leaf in jax.tree.leaves(carry)
    )


def _on_device(leaf: Any) -> Any:
    """Send arrays once; numbers stay weakly typed, as `fit` takes them."""
    if not isinstance(leaf, (np.ndarray, np.generic)):
        return leaf
    return jax.device_put(leaf, may_alias=False)  # `jnp.asarray` compiles to do so


def _seek(stream: Stream, restored: RestoredRun) -> None:
    """Bring a stream to where it was, or say what repeats."""
    place = restored.place
    if place is None:
        return
    stream.seek(place)
    if place.own_state is None and place.batches:
        _checks.warn(
            "train: `data` cannot tell where it was (it has no `get_state`, or one "
            "that JSON cannot hold), so it is read again from the start: the first "
            f"{place.batches} batches are used again."
        )


def _no_batches_error(run: ChunkedRun) -> Exception:
    if run.failure is not None:
        return run.failure.explained
    if run.status in (Status.INTERRUPTED, Status.TIME_LIMIT):
        return RuntimeError(
            f"train: it ended, {run.status.name}, before the first batch of `data` "
            "came; nothing was fitted."
        )
    return ValueError(
        "train: `data` is an empty stream: it gave no batch at all. A generator can be "
        "read once; make a new one for each call."
    )


def _stream_error(
    run: ChunkedRun, manager: CheckpointManager | None, result: FitResult
) -> Exception:
    """Return the exception of a stream that failed, with the result so far."""
    assert run.failure is not None
    error = run.failure.explained
    saved = (
        "no checkpoint was asked for" if manager is None else manager.describe_saved()
    )
    error.args = (
        f"{error.args[0]} The fit had made {run.done} steps; the result so far is this "
        f"exception's `result`, and {saved}.",
    )
    error.result = result  # type: ignore[attr-defined]
    return error
