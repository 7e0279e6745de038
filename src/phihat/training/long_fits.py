"""The call that drives a long fit: its arguments, its beginning and its end.

Example:
  >>> from phihat.training import Validation
  >>> Validation(data=[1.0], every=100).patience is None
  True
"""

import contextlib
import dataclasses
import datetime
import os
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding

from phihat import fitting
from phihat._core import checks as _checks
from phihat._core import placement as _placement
from phihat._core import programs as _programs
from phihat._core import tree as _tree
from phihat._core.types import Batch, Box, LossFn, Params, RandomKey, Status
from phihat._engine import recorders as _records
from phihat._engine.batches import make_feed
from phihat._engine.spec import (
    as_options,
    as_sampler,
    as_step,
    as_tolerance,
    check_opt_state,
    check_start,
)
from phihat._engine.step import Tolerance, place
from phihat.checkpoint import Checkpoints
from phihat.results import FitResult, FitState
from phihat.training import chunks, fingerprint, multihost
from phihat.training.callbacks import Between, Conductor, as_seconds
from phihat.training.checkpointing import Held, Keeper, Kept
from phihat.training.driver import Run, first_room
from phihat.training.logging import Log, Progress
from phihat.training.signals import watch
from phihat.training.streams import Stream, is_stream

__all__ = ["Validation", "train"]


@dataclasses.dataclass(frozen=True)
class Validation:
    """Held-out data: the `validation=` of `train`.

    Args:
      data: as the loss takes them, in one batch.
      every: steps between two looks.
      patience: after so many looks in a row without a better loss the fit ends, with
        the status STOPPED; None never ends it.

    Raises:
      TypeError: `data` are no arrays, or a count is no whole number.
      ValueError: a count is below 1.

    Example:
      >>> import phihat
      >>> x, y = phihat.datasets.linear_regression()
      >>> result = phihat.train(
      ...     phihat.losses.least_squares(phihat.models.linear),
      ...     {"weight": 0.0, "bias": 0.0},
      ...     phihat.adam(0.1),
      ...     (x[:8], y[:8]),
      ...     num_steps=300,
      ...     validation=phihat.training.Validation((x[8:], y[8:]), every=100),
      ... )
      >>> print(result.history["validation_step"])
      [100 200 300]
    """

    data: Batch
    every: int
    patience: int | None = None

    def __post_init__(self) -> None:
        """Check the arguments."""
        _checks.check_data("Validation", self.data)
        if self.data is None:
            raise TypeError("Validation: `data` must be held-out data, got None.")
        _checks.check_count("Validation", "every", self.every)
        if self.patience is not None:
            _checks.check_count("Validation", "patience", self.patience)


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
    progress: bool = False,
    checkpoint: Checkpoints | None = None,
    time_limit: float | datetime.timedelta | None = None,
    callbacks: Sequence[Callable[[FitState, dict[str, Any]], Any]] = (),
    log_to: str | os.PathLike[str] | None = None,
    validation: Validation | None = None,
    steps_per_chunk: int | None = None,
) -> FitResult:
    r"""Minimise a loss as `fit` does, in chunks of compiled steps.

    The step is that of `fit` and so are the numbers, whatever the chunks. Ctrl-C,
    SIGTERM, the time limit, a callback or patience end it between two chunks, with a
    complete result so far and a checkpoint written. Calling the same line again goes on
    from the newest complete checkpoint.

    Args:
      loss_fn: as in `fit`, like all arguments up to `state`.
      params: the start.
      optimizer: one of phihat, or any of optax.
      data: a pytree of arrays as in `fit`; or a stream, which is any iterable of
        batches of one shape (the last one may be shorter): a generator, a loader of
        grain or PyTorch. A thread reads it ahead and sends it to the device.
      num_steps: the budget of updates; either this or `num_epochs`. A stream that ends
        is read anew, if `iter` begins anew; else the fit ends, with the status STOPPED.
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
      state: goes on from there.
      progress: show a bar with the loss, the speed and the time left, where the output
        is a terminal.
      checkpoint: where to keep what a crash must not destroy, and how often.
      time_limit: seconds, or a timedelta, for this call.
      callbacks: functions called between chunks as `callback(state, rows)`, with the
        `FitState` and the new rows of the history; a true value ends the fit.
      log_to: a file of JSON lines: the new rows, and what happened.
      validation: held-out data, how often to look at them, and for how long in vain.
        The result's params are then those that did best on them, and its history has
        "validation_loss" and "validation_step", one entry per look.
      steps_per_chunk: None lets a chunk last a fraction of a second, so that work on
        the host takes less than one per cent.

    Returns:
      A `FitResult`, as `fit` returns it; its state is the last one.

    Raises:
      TypeError: an argument or a batch is of the wrong kind.
      ValueError: an argument or a batch has a wrong value, a stream is empty, or the
        newest checkpoint belongs to another fit.
      RuntimeError: reading the stream raised. An exception that ends a fit under way
        carries the result so far as its attribute `result`.

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
    seconds = as_seconds("train", "time_limit", time_limit)
    deadline = None if seconds is None else time.monotonic() + seconds
    if _programs.is_tracing():
        raise TypeError(
            "train: it is driven from the host and cannot be traced; under jax.jit, "
            "jax.vmap or jax.grad use `fit`."
        )
    step_fn = as_step("train", loss_fn, optimizer, has_aux, projection, nonfinite)
    is_streamed = is_stream(data)
    if is_streamed:
        _check_stream(data, num_epochs, batch_size, sampler)
    else:
        sampler = as_sampler("train", data, batch_size, sampler)
    functions = (step_fn.args[0].func, step_fn.args[1].update.func)
    budget = as_options("train", num_steps, num_epochs, record_every, record, functions)
    entries = _records.normalise("train", record)
    tolerance = as_tolerance("train", tolerance)
    _checks.check_key("train", key)
    check_start("train", params, state, projection)
    arrays = None if is_streamed else data
    start = params if state is None else state.params
    step_fn = place(step_fn, "train", params=start, data=arrays, state=state, key=key)
    is_shared = multihost.spans(start, arrays)
    if is_streamed:
        _check_devices(start)
    code = (step_fn, sampler, entries, tolerance)
    callbacks = _check_rest(checkpoint, callbacks, validation, steps_per_chunk)

    state = _begin(params, step_fn.args[1], key, state)
    options = chunks.Options(
        num_rows=first_room(entries, state),
        record_every=budget.record_every,
        is_stream=is_streamed,
        is_group=False,
        functions=functions,
    )
    recorder_states = _programs.bind(chunks.begin, code, options)(state)
    placement = _read_placement(step_fn)
    carry = chunks.Carry(state, chunks.own(recorder_states))
    carry = _placement.settle(placement, carry)
    if placement is not None:
        options = options._replace(shardings=_shardings(carry))
    if not is_streamed:
        data = jax.tree.map(_on_device, data)
        epoch = make_feed(sampler, data, state.key).steps_per_epoch
        num_steps = budget.num_steps or epoch * (budget.num_epochs or 0)

    with contextlib.ExitStack() as stack:
        watcher = stack.enter_context(watch())
        held = keeper = kept = None
        if validation is not None:
            held = Held(validation.data, validation.every, validation.patience)
        if checkpoint is not None:
            configuration = _describe(code, options, state, data)
            keeper = Keeper(checkpoint, configuration)
            kept = keeper.load(carry, held)
        start_step = int(state.step)
        stream = None
        if is_streamed:
            stream = Stream("train", data, passes=num_epochs, tells=keeper is not None)
            stack.callback(stream.close)
        if kept is not None:
            start_step = kept.start_step
            _check_budget(kept, num_steps)
            if stream is not None:
                _go_to(stream, kept)
            carry = _placement.settle(placement, kept.carry)
        run = Run(
            code,
            options,
            carry,
            data=None if is_streamed else data,
            stream=stream,
            start_step=start_step,
            num_steps=num_steps,
            chunk=steps_per_chunk,
            records=budget.records,
            is_shared=is_shared,
        )
        if kept is not None:
            run.history, run.num_rows = [kept.history], kept.num_rows
            if kept.result is not None and _is_final(kept, num_steps):
                return _complete(run, held, kept.result)
            run.go_on()
        between = Between(watcher, callbacks, keeper, held, deadline=deadline)
        is_told = not is_shared or jax.process_index() == 0  # one of them writes
        if log_to is not None and is_told:
            log = Log(log_to, None if kept is None else run.step)
            stack.callback(log.close)
            log.note("begin", at=run.step)
            if keeper is not None:
                keeper.log = log
            between = between._replace(log=log)
        if progress and is_told:
            bar = Progress(num_steps, run.done)
            stack.callback(bar.close)
            between = between._replace(progress=bar)
        return _conduct(run, between)


def _conduct(run: Run, between: Between) -> FitResult:
    """Run a fit to its end, and keep what there is however it ends."""
    held, keeper = between.held, between.keeper
    try:
        Conductor(run, between).run_to_end()
    except BaseException as error:
        # A callback that raised, a second Ctrl-C: what was reached is not lost.
        if keeper is not None and run.is_settled:
            run.status = Status.INTERRUPTED
            keeper.save(run, held, None)
            error.add_note(f"train: {keeper.tell()}")
        raise
    if run.stream is not None and not run.has_evidence:
        raise _explain_nothing(run)
    best = None if held is None else held.best_params
    result = run.finish(run.status, best)
    run.carry = run.carry._replace(state=result.state)
    run.status = Status(int(result.status))
    if keeper is not None:
        keeper.save(run, held, result)
    if between.log is not None:
        between.log.note("end", at=run.step, status=run.status.name)
    result = _complete(run, held, result)
    if run.failure is not None:
        raise _explain(run, keeper, result) from run.failure.error
    if run.stream_ended and run.status == Status.STOPPED:
        warnings.warn(
            f"train: `data` ended after {run.done} batches, before the "
            f"{run.num_steps} steps asked for; the result is that of {run.done} steps.",
            stacklevel=3,
        )
    return result


def _complete(run: Run, held: Held | None, result: FitResult) -> FitResult:
    """Add the history, and count the steps from the start of the run."""
    state = result.state
    last = result.params
    if held is not None:
        last = chunks.evaluation_params(run.code, state)
    history = run.complete_history(last) | run.tell()
    if held is not None:
        history["validation_loss"] = jnp.asarray(held.losses, result.loss.dtype)
        history["validation_step"] = jnp.asarray(held.steps, jnp.int32)
    num_steps = jnp.asarray(run.step - run.start_step, jnp.int32)
    return dataclasses.replace(result, history=history, num_steps=num_steps)


# -------------------------------------------------------------------- private helpers


def _begin(params: Params, optimizer: Any, key: Any, state: Any) -> FitState:
    """Return the state to begin with, in buffers that can be given away."""
    if state is None:
        state = fitting.init(params, optimizer, key=key)
    elif key is not None:
        state = state._replace(key=key)
    check_opt_state(optimizer, state)
    running = jnp.asarray(Status.RUNNING, jnp.int32)
    return chunks.own(state._replace(status=running))


def _check_stream(data: Any, num_epochs: Any, batch_size: Any, sampler: Any) -> None:
    for name, value in (("batch_size", batch_size), ("sampler", sampler)):
        if value is not None:
            raise ValueError(
                f"train: `{name}` draws rows from arrays, but `data` is a stream, "
                "whose batches are used as they come; batch them in the stream."
            )
    if num_epochs not in (None, 1) and iter(data) is data:
        raise ValueError(
            f"train: `num_epochs` is {num_epochs}, but `data` is an iterator, which "
            "can be read once; pass an object whose `iter` begins anew, such as a "
            "loader, or give `num_steps`."
        )


def _read_placement(step_fn: Any) -> _placement.Placement | None:
    placement = step_fn.keywords.get("placement")
    return None if placement is None else placement.value


def _shardings(carry: chunks.Carry) -> tuple[NamedSharding | None, ...]:
    """Return where the leaves of a carry lie; keys are left to the compiler."""
    return tuple(
        leaf.sharding
        if isinstance(leaf.sharding, NamedSharding) and not _tree.is_key(leaf)
        else None
        for leaf in jax.tree.leaves(carry)
    )


def _check_devices(params: Params) -> None:
    """Let the params tell whether processes share a fit: a stream cannot yet."""
    leaves = jax.tree.leaves(params)
    is_put = any(isinstance(leaf, jax.Array) and leaf.committed for leaf in leaves)
    if jax.process_count() > 1 and not is_put:
        raise ValueError(
            "train: with several processes and a stream, `params` must tell the "
            "devices: `sharding.replicate(params, mesh)`, and let the stream give "
            "`sharding.shard_batch(batch, mesh)`."
        )


def _check_rest(
    checkpoint: Any, callbacks: Any, validation: Any, steps_per_chunk: Any
) -> tuple[Callable[..., Any], ...]:
    if checkpoint is not None and not isinstance(checkpoint, Checkpoints):
        raise TypeError(
            "train: `checkpoint` must be `Checkpoints(path, every=...)`, got "
            f"{_checks.brief(checkpoint)}."
        )
    if validation is not None and not isinstance(validation, Validation):
        raise TypeError(
            "train: `validation` must be `training.Validation(data, every=...)`, got "
            f"{_checks.brief(validation)}."
        )
    if callable(callbacks):
        callbacks = (callbacks,)
    if not isinstance(callbacks, Iterable):
        raise TypeError(
            "train: `callbacks` must be functions `(state, rows)`, got "
            f"{_checks.brief(callbacks)}."
        )
    callbacks = tuple(callbacks)
    for callback in callbacks:
        if not callable(callback):
            raise TypeError(
                "train: `callbacks` must be functions `(state, rows)`, got "
                f"{_checks.brief(callback)}."
            )
    if steps_per_chunk is not None:
        _checks.check_count("train", "steps_per_chunk", steps_per_chunk)
    return callbacks


def _on_device(leaf: Any) -> Any:
    """Send arrays once; numbers stay weakly typed, as `fit` takes them."""
    return jnp.asarray(leaf) if isinstance(leaf, (np.ndarray, np.generic)) else leaf


def _describe(
    code: Any, options: chunks.Options, state: FitState, data: Batch
) -> dict[str, Any]:
    """Return what a fit is made of, as its checkpoints remember it."""
    step_fn, sampler, entries, tolerance = code
    loss_fn, optimizer, projection = step_fn.args
    key = state.key
    described = {
        "options": {
            "has_aux": str(step_fn.keywords["has_aux"].value),
            "key": "None" if key is None else str(jax.random.key_data(key).tolist()),
            "nonfinite": step_fn.keywords["nonfinite"].value,
            "record": fingerprint.describe_code(entries),
            "record_every": str(options.record_every),
            "tolerance": repr(tolerance),
        },
        "params": fingerprint.describe_shapes(state.params),
        "data": "a stream" if options.is_stream else fingerprint.describe_shapes(data),
        "versions": fingerprint.versions(),
    }
    parts = {
        "loss": loss_fn,
        "optimizer": optimizer,
        "projection": projection,
        "sampler": sampler,
    }
    for name, part in parts.items():
        described[name] = fingerprint.describe_code(part)
        described[f"{name} numbers"] = fingerprint.describe_numbers(part)
    return described


def _check_budget(kept: Kept, num_steps: int | None) -> None:
    done = int(kept.carry.state.step) - kept.start_step
    if num_steps is not None and done > num_steps:
        raise ValueError(
            f"train: {kept.folder} holds {done} steps, more than the {num_steps} asked "
            "for; raise `num_steps`, or choose another folder."
        )


def _is_final(kept: Kept, num_steps: int | None) -> bool:
    """Tell whether a checkpoint holds a fit that needs no more steps."""
    if kept.status == Status.COMPLETED:
        done = int(kept.carry.state.step) - kept.start_step
        return num_steps is None or done == num_steps
    return kept.status not in (Status.RUNNING, Status.INTERRUPTED, Status.TIME_LIMIT)


def _go_to(stream: Stream, kept: Kept) -> None:
    """Bring a stream to where it was, or say what repeats."""
    place = kept.place
    if place is None:
        return
    stream.go_to(place)
    if place.told is None and place.batches:
        warnings.warn(
            "train: `data` cannot tell where it was (it has no `get_state`), so its "
            f"pass begins anew: the first {place.batches} batches are used again.",
            stacklevel=4,
        )


def _explain_nothing(run: Run) -> Exception:
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


def _explain(run: Run, keeper: Keeper | None, result: FitResult) -> Exception:
    """Return the exception of a stream that failed, with the result so far."""
    assert run.failure is not None
    error = run.failure.explained
    saved = "no checkpoint was asked for" if keeper is None else keeper.tell()
    error.args = (
        f"{error.args[0]} The fit had made {run.done} steps; the result so far is this "
        f"exception's `result`, and {saved}.",
    )
    error.result = result  # type: ignore[attr-defined]
    return error
