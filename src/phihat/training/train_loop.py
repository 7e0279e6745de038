"""What happens between the chunks of a long fit, and in which order.

After every chunk the bar is drawn and the clock and the signals are looked at. Where
something is due there follow the log, held-out data, the callbacks, and a checkpoint.
"""

import queue
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from phihat._core.types import Status
from phihat.training import callbacks as _callbacks
from phihat.training import multihost
from phihat.training.checkpointing import CheckpointManager
from phihat.training.chunk_programs import copy_leaves
from phihat.training.chunked_run import ChunkBatches, ChunkedRun, join_rows, steps_until
from phihat.training.logging import Log, Progress, as_lines
from phihat.training.signals import Watcher
from phihat.training.validation import Validator

__all__ = ["Hooks", "TrainLoop"]

_STEPS_BETWEEN_LOOKS = 16
"""Batches of a shared stream after which the processes agree to go on."""


class Hooks(NamedTuple):
    """What is asked for between chunks; None where it is not."""

    watcher: Watcher
    callbacks: Sequence[_callbacks.Callback] = ()
    manager: CheckpointManager | None = None
    validator: Validator | None = None
    progress: Progress | None = None
    log: Log | None = None
    deadline: float | None = None


class TrainLoop:
    """Runs a fit to its end."""

    def __init__(self, run: ChunkedRun, hooks: Hooks) -> None:
        """Start the clock."""
        self.run = run
        self.hooks = hooks
        self._rows: list[dict[str, Any]] = []
        self._told_step = run.step
        self._drained_at = time.monotonic()
        self._host_seconds = 0.0

    def run_to_end(self) -> None:
        """Take chunks until the fit ends; the run's status tells how."""
        run = self.run
        while True:
            reason = self._reason_to_end()
            if reason is not None:
                break
            batches = self._next_batches()
            if batches is not None:
                self._take(batches)
            if batches is None or batches.source is None or self._is_due():
                self._drain()
        self._drain()
        self._tell()
        if run.status == Status.RUNNING:
            run.status = reason
        if self.hooks.validator is not None and run.step > run.start_step:
            self.hooks.validator.look(run)

    def _take(self, batches: ChunkBatches) -> None:
        """Start a chunk; wait for it where it must be known how long it takes."""
        run = self.run
        began = time.monotonic()
        run.launch(batches)
        if batches.source is None or not run.is_measured:
            run.wait()
            run.learn(time.monotonic() - began, batches.num_steps)

    # ------------------------------------------------------------- before a chunk

    def _reason_to_end(self) -> Status | None:
        run, hooks = self.run, self.hooks
        if run.status != Status.RUNNING:
            return run.status
        if run.is_stopped:
            return Status.STALLED  # why, is found out at the end
        if run.num_steps is not None and run.done >= run.num_steps:
            return Status.COMPLETED
        if run.failure is not None:
            return Status.INTERRUPTED
        if run.stream_ended:
            if run.num_steps is None:
                return Status.COMPLETED
            run.ended_by = "the end of the stream"
            return Status.STOPPED
        if hooks.validator is not None and hooks.validator.is_over:
            looks = hooks.validator.waited
            run.ended_by = f"patience: {looks} looks at held-out data were no better"
            return Status.STOPPED
        return self._outer_reason()

    def _outer_reason(self) -> Status | None:
        """Return what a signal or the clock asks for, of this process or of any."""
        run, hooks = self.run, self.hooks
        reason = Status.RUNNING
        if hooks.watcher.received is not None:
            reason = Status.INTERRUPTED
        elif hooks.deadline is not None and time.monotonic() >= hooks.deadline:
            reason = Status.TIME_LIMIT
        if run.is_shared:
            if run.stream is not None and run.done % _STEPS_BETWEEN_LOOKS:
                return None
            reason = Status(multihost.largest_of(reason))
        return None if reason == Status.RUNNING else reason

    def _next_batches(self) -> ChunkBatches | None:
        """Return data for the steps until the next event, or None if none came yet."""
        run, hooks = self.run, self.hooks
        limit = 2**30
        if hooks.validator is not None:
            limit = min(limit, steps_until(run.done, hooks.validator.every))
        if hooks.manager is not None:
            limit = min(limit, hooks.manager.steps_until_due(run.done))
        if hooks.deadline is not None and run.step_seconds:
            left = max(0.0, hooks.deadline - time.monotonic())
            left = multihost.first_of(left) if run.is_shared else left
            limit = min(limit, max(1, int(left / run.step_seconds)))
        try:
            return run.next_batches(limit)
        except queue.Empty:
            return None

    def _is_due(self) -> bool:
        """Tell whether the host should look at what was launched of a stream."""
        run, manager = self.run, self.hooks.manager
        if self._is_event(run.done):
            return True
        if run.is_shared:  # a clock would not do: all must look at the same steps
            return run.done % _STEPS_BETWEEN_LOOKS == 0
        if manager is not None and manager.is_due(run.done):
            return True
        wait = max(0.1, 100 * self._host_seconds)
        return time.monotonic() - self._drained_at > wait

    def _is_event(self, done: int) -> bool:
        """Tell whether something is due by the number of steps."""
        run, hooks = self.run, self.hooks
        if run.chunk is not None and done % run.chunk == 0:
            return True
        if hooks.validator is not None and done % hooks.validator.every == 0:
            return True
        manager = hooks.manager
        return manager is not None and manager.counts_steps and manager.is_due(done)

    # -------------------------------------------------------------- after a chunk

    def _drain(self) -> None:
        """Wait for what was launched, and tell of it where that is due."""
        run, hooks = self.run, self.hooks
        if hooks.manager is not None:
            hooks.manager.poll()
        before = run.step
        rows = run.drain()
        began = time.monotonic()
        if run.step == before and not run.is_stopped:
            return
        run.learn_from_stream(began - self._drained_at, run.step - before)
        if rows:
            self._rows.append(rows)
        if hooks.progress is not None:
            hooks.progress.update(run.step - run.start_step, run.loss, rows)
        if run.chunk is None or self._is_pause():
            self._tell()
        self._drained_at = time.monotonic()
        self._host_seconds = self._drained_at - began

    def _is_pause(self) -> bool:
        """Tell whether a chunk as the user asked for it has ended, or something is due.

        A long chunk is taken in pieces, so that signals and the clock are looked at.
        """
        run, manager = self.run, self.hooks.manager
        if run.done == run.num_steps or run.is_stopped:
            return True
        is_late = manager is not None and self._agree(manager.is_due(run.done))
        return is_late or self._is_event(run.done)

    def _tell(self) -> None:
        """Hand the new rows on, and do what is due."""
        run, hooks = self.run, self.hooks
        if run.step == self._told_step and not self._rows:
            return
        self._told_step = run.step
        rows, self._rows = join_rows(self._rows), []
        if hooks.log is not None:
            hooks.log.write(as_lines(rows))
        if run.is_stopped:
            return
        if hooks.validator is not None and run.done % hooks.validator.every == 0:
            hooks.validator.look(run)
        if hooks.callbacks:
            self._call_back(rows)
        manager = None if run.done == run.num_steps else hooks.manager
        # At the end of the budget there is none: what ends is saved anyway.
        if manager is not None and self._agree(manager.is_due(run.done)):
            manager.save(run, hooks.validator, None, waits=False)

    def _call_back(self, rows: dict[str, Any]) -> None:
        state = copy_leaves(self.run.carry.state)
        for callback in self.hooks.callbacks:
            asks_to_end, optimizer = _callbacks.call(
                callback, state, rows, self.run.spec
            )
            if optimizer is not None:
                self.run.change_optimizer(optimizer)
            if asks_to_end and not self.run.ended_by:
                self.run.ended_by = f"the callback `{_callbacks.name_of(callback)}`"
        if not self._agree(bool(self.run.ended_by)):
            return
        if self.run.done == self.run.num_steps:
            self.run.ended_by = ""  # the budget is used, as it would have been
        else:
            self.run.ended_by = self.run.ended_by or "a callback of another process"
            self.run.status = Status.STOPPED

    def _agree(self, wish: bool) -> bool:
        """Tell whether any of the processes that share the fit has the wish."""
        return bool(multihost.largest_of(wish)) if self.run.is_shared else wish
