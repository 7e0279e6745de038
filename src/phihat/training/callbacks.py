"""What happens between the chunks of a long fit, and in which order.

After every chunk: the bar, the log, held-out data, the callbacks, a checkpoint where
one is due. Before every chunk: whether the fit shall go on.

Example:
  >>> from phihat.training import callbacks
  >>> import datetime
  >>> callbacks.as_seconds("train", "time_limit", datetime.timedelta(minutes=2))
  120.0
"""

import datetime
import queue
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from phihat._core import checks as _checks
from phihat._core import tree as _tree
from phihat._core.types import Status
from phihat.results import FitState
from phihat.training import multihost
from phihat.training.checkpointing import Held, Keeper
from phihat.training.chunks import own
from phihat.training.driver import Piece, Run, steps_until
from phihat.training.logging import Log, Progress, as_lines
from phihat.training.signals import Watcher

__all__ = ["Between", "Conductor", "as_seconds"]

_STEPS_BETWEEN_LOOKS = 16
"""Batches of a shared stream after which the processes agree to go on."""


def as_seconds(call: str, argument: str, value: Any) -> float | None:
    """Return a duration in seconds.

    Raises:
      TypeError: it is neither a number nor a timedelta.
      ValueError: it is not positive.
    """
    if value is None:
        return None
    if isinstance(value, datetime.timedelta):
        value = value.total_seconds()
    value = _tree.as_number(value, call, argument)
    _checks.check_range(call, argument, value, 0.0, include_low=False)
    return float(value)


class Between(NamedTuple):
    """What is asked for between chunks; None where it is not."""

    watcher: Watcher
    callbacks: Sequence[Callable[[FitState, dict[str, Any]], Any]] = ()
    keeper: Keeper | None = None
    held: Held | None = None
    progress: Progress | None = None
    log: Log | None = None
    deadline: float | None = None


class Conductor:
    """Runs a fit to its end.

    Args:
      run: where it stands.
      between: what to do between chunks.
    """

    def __init__(self, run: Run, between: Between) -> None:
        """Start the clock."""
        self.run = run
        self.between = between
        self._drained_at = time.monotonic()
        self._host_seconds = 0.0

    def run_to_end(self) -> None:
        """Take chunks until the fit ends; the run's status tells how."""
        run = self.run
        while True:
            reason = self._reason_to_end()
            if reason is not None:
                break
            piece = self._next_piece()
            if piece is not None:
                began = time.monotonic()
                run.launch(piece)
                if piece.group is None:
                    run.wait()
                    run.learn(time.monotonic() - began, piece.num_steps)
            if piece is None or piece.group is None or self._is_due():
                self._drain()
        self._drain()
        if run.status == Status.RUNNING:
            run.status = reason
        if self.between.held is not None and run.step > run.start_step:
            self.between.held.look(run)

    # ------------------------------------------------------------- before a chunk

    def _reason_to_end(self) -> Status | None:
        run, between = self.run, self.between
        if run.status != Status.RUNNING:
            return run.status
        if run.num_steps is not None and run.done >= run.num_steps:
            return Status.COMPLETED
        if run.failure is not None:
            return Status.INTERRUPTED
        if run.stream_ended:
            return Status.COMPLETED if run.num_steps is None else Status.STOPPED
        if between.held is not None and between.held.is_over:
            return Status.STOPPED
        return self._outer_reason()

    def _outer_reason(self) -> Status | None:
        """Return what a signal or the clock asks for, of this process or of any."""
        run, between = self.run, self.between
        reason = Status.RUNNING
        if between.watcher.received is not None:
            reason = Status.INTERRUPTED
        elif between.deadline is not None and time.monotonic() >= between.deadline:
            reason = Status.TIME_LIMIT
        if run.is_shared:
            if run.stream is not None and run.done % _STEPS_BETWEEN_LOOKS:
                return None
            reason = Status(multihost.largest_of(reason))
        return None if reason == Status.RUNNING else reason

    def _next_piece(self) -> Piece | None:
        """Return data for the steps until the next event, or None if none came yet."""
        run, between = self.run, self.between
        limit = 2**30
        if between.held is not None:
            limit = min(limit, steps_until(run.done, between.held.every))
        if between.keeper is not None:
            limit = min(limit, between.keeper.steps_until_due(run.done))
        if between.deadline is not None and run.step_seconds:
            left = max(0.0, between.deadline - time.monotonic())
            left = multihost.first_of(left) if run.is_shared else left
            limit = min(limit, max(1, int(left / run.step_seconds)))
        try:
            return run.piece(limit)
        except queue.Empty:
            return None

    def _is_due(self) -> bool:
        """Tell whether the host should look at what was launched of a stream."""
        run, between = self.run, self.between
        if run.chunk is not None and run.done % run.chunk == 0:
            return True
        if between.held is not None and run.done % between.held.every == 0:
            return True
        keeper = between.keeper
        if run.is_shared:  # a clock would not do: all must look at the same steps
            if run.done % _STEPS_BETWEEN_LOOKS == 0:
                return True
            return (
                keeper is not None and keeper.counts_steps and keeper.is_due(run.done)
            )
        if keeper is not None and keeper.is_due(run.done):
            return True
        wait = max(0.1, 100 * self._host_seconds)
        return time.monotonic() - self._drained_at > wait

    # -------------------------------------------------------------- after a chunk

    def _drain(self) -> None:
        run, between = self.run, self.between
        before = run.step
        rows = run.drain()
        began = time.monotonic()
        if run.step == before and run.status == Status.RUNNING:
            return
        if between.progress is not None:
            between.progress.update(run.step - run.start_step, run.loss, rows)
        if between.log is not None:
            between.log.write(as_lines(rows))
        if run.status == Status.RUNNING:
            if between.held is not None and run.done % between.held.every == 0:
                between.held.look(run)
            if between.callbacks:
                self._call_back(rows)
            keeper = None if run.done == run.num_steps else between.keeper
            # At the end of the budget there is none: what ends is saved anyway.
            if keeper is not None and self._agree(keeper.is_due(run.done)):
                keeper.save(run, between.held, None)
        self._drained_at = time.monotonic()
        self._host_seconds = self._drained_at - began

    def _call_back(self, rows: dict[str, Any]) -> None:
        state = own(self.run.carry.state)
        asked = [callback(state, rows) for callback in self.between.callbacks]
        if self._agree(any(asked)) and self.run.done != self.run.num_steps:
            self.run.status = Status.STOPPED

    def _agree(self, wish: bool) -> bool:
        """Tell whether any of the processes that share the fit has the wish."""
        return bool(multihost.largest_of(wish)) if self.run.is_shared else wish
