"""The host's side of a long fit: chunk after chunk, and what happens between them."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from phihat._core import programs as _programs
from phihat._core.types import Status
from phihat._engine.recorders import are_scalars, blank
from phihat._engine.spec import FitSpec
from phihat.results import FitResult, FitState, with_parts
from phihat.training import chunk_programs, multihost
from phihat.training.streams import Stream, StreamBatches, StreamFailure, StreamPosition

__all__ = [
    "ChunkBatches",
    "ChunkedRun",
    "first_buffer_rows",
    "join_rows",
    "steps_until",
]

_CHUNK_SECONDS = 0.2
"""How long a chunk should last: host work of a millisecond is then below 1 %."""

_SECONDS_PER_BYTE, _MOST_SECONDS = 2e-8, 2.0
"""On the CPU a chunk copies its carry, for a step that must be undone; a new page of
memory takes a nanosecond a byte. Twenty times that hides it, up to so many seconds."""

_FEW_ROWS, _MANY_ROWS = 2**10, 2**18
"""Two sizes of the buffer for rows, hence two programs at most."""

_BUFFER_BYTES = 2**25
"""A large buffer for rows takes at most so many bytes."""

_STREAM_SECONDS = 0.1
"""As long for a chunk of a stream, since several of them are on their way at once."""

_GROWTH = 8
"""A chunk has at most so many times the steps of the one before: steps differ."""

_IN_FLIGHT = 4
"""Chunks of a stream that may be on their way before the host looks at one."""

_PATIENT_SECONDS = 0.4
"""What lasts longer is waited for in naps, in which a signal is heard."""


def first_buffer_rows(entries: Any, state: FitState) -> int:
    """Return the rows that a buffer holds, before it is known how large they are."""
    if are_scalars(entries):
        return _FEW_ROWS
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(state.params))
    return min(_FEW_ROWS, max(4, _BUFFER_BYTES // max(size, 1)))


def steps_until(step: int, every: int) -> int:
    """Return how many steps remain until the next multiple of `every`."""
    return every - step % every


class ChunkBatches(NamedTuple):
    """Data for some steps.

    Attributes:
      num_steps: how many steps they serve.
      position: the number in the source of the first batch.
      source: of a stream's batches, or None where the data are arrays.
    """

    num_steps: int
    position: int = 0
    source: StreamBatches | None = None


class _Pending(NamedTuple):
    report: chunk_programs.Report
    batches: ChunkBatches
    begin: int


class ChunkedRun:
    """One fit, driven from the host.

    Args:
      spec: of the fit.
      options: of the chunks' programs.
      carry: its own buffers: they are given away.
      data: arrays, or None where `stream` is given.
      stream: batches to come.
      start_step: the absolute step at which the run began.
      num_steps: its budget, or None.
      chunk: steps per chunk, or None to choose.
      is_shared: several processes run it together.
    """

    def __init__(
        self,
        spec: FitSpec,
        options: chunk_programs.ChunkOptions,
        carry: chunk_programs.ChunkCarry,
        *,
        data: PyTree,
        stream: Stream | None,
        start_step: int,
        num_steps: int | None,
        chunk: int | None,
        is_shared: bool = False,
    ) -> None:
        """Begin where the carry stands."""
        # Its budget is the host's business, and shapes no program.
        self.spec = dataclasses.replace(spec, num_steps=None, num_epochs=None)
        self.carry = carry
        self.start_step = start_step
        self.num_steps = num_steps
        self.status = Status(int(carry.state.status))
        self.is_stopped = False
        self.step = self.launched = int(carry.state.step)
        self.loss = float(carry.state.loss)
        self.history: list[dict[str, Any]] = []
        self.num_rows = 0
        self.stream = stream
        self.stream_ended = False
        self.failure: StreamFailure | None = None
        self.options = options
        self.chunk = chunk
        self.is_shared = is_shared
        self.step_seconds: float | None = None
        self.ended_by = ""
        self.new_numbers: dict[str, Any] | None = None
        self._num_measured = 0
        self._longest = 1
        self._data = data
        self._source: StreamBatches | None = None
        self._used = 0
        self._last: tuple[ChunkBatches, int] | None = None
        self._place = None if stream is None else stream.place
        self._records = bool(spec.record)
        self._pending: list[_Pending] = []
        self._programs: dict[Any, Callable[..., Any]] = {}
        self._buffer_rows = options.num_rows
        self._chunk_seconds = _length_of_chunks(carry, stream)
        self._stride = spec.record_every

    # ------------------------------------------------------------------- one chunk

    @property
    def done(self) -> int:
        """Steps launched in this run."""
        return self.launched - self.start_step

    def next_batches(self, limit: int) -> ChunkBatches | None:
        """Return data for at most `limit` steps, or None where none are left now."""
        if self.num_steps is not None:
            limit = min(limit, self.num_steps - self.done)
        if self.chunk is not None:
            limit = min(limit, steps_until(self.done, self.chunk))
        free = self._buffer_rows * self._stride - self.done % self._stride
        limit = min(limit, free, self._affordable())
        if self.stream is None:
            return ChunkBatches(limit)
        if self._source is None or self._used == self._source.num_batches:
            try:
                # Who shares a fit waits for the batch: all then do the same.
                timeout = None if self.is_shared else 0.1
                self._source, self._used = self.stream.read(timeout=timeout), 0
            except StreamFailure as failure:
                self.failure = failure
                self._source = None
            if self._source is None:
                self.stream_ended = True
                return None
        count = min(limit, self._source.num_batches - self._used)
        return ChunkBatches(count, self._used, self._source)

    @property
    def is_measured(self) -> bool:
        """Whether it is known how long a step takes: the first one was compiled."""
        return self._num_measured > 1

    def _affordable(self) -> int:
        """Return how many steps a chunk should have: one, until that is measured."""
        if not self.is_measured or self.step_seconds is None:
            return 1
        if self.options.is_single:
            return 1
        count = int(self._chunk_seconds / self.step_seconds)
        return max(1, min(count, self._longest * _GROWTH))

    def mark_running(self) -> None:
        """Run again where an earlier call was stopped from outside."""
        self.status = Status.RUNNING
        running = jnp.asarray(Status.RUNNING, jnp.int32)
        state = self.carry.state._replace(status=running)
        self.carry = self.carry._replace(state=state)

    @property
    def is_settled(self) -> bool:
        """Whether the carry is where the host knows it to be."""
        leaves = jax.tree.leaves(self.carry)
        return not self._pending and not any(leaf.is_deleted() for leaf in leaves)

    def launch(self, batches: ChunkBatches) -> None:
        """Start a chunk of steps on these batches."""
        is_group = batches.source is not None and batches.source.is_stacked
        options = self.options._replace(num_rows=self._buffer_rows, is_group=is_group)
        program = self._programs.get(options)
        if program is None:
            program = _programs.bind(
                chunk_programs.advance,
                self.spec,
                options,
                params=self.carry.state,
                donates=True,
            )
            self._programs[options] = program
        begin = self.done % self._stride
        numbers = (begin, begin + batches.num_steps, batches.position)
        data = self._data if batches.source is None else batches.source.data
        self.carry, report = program(
            self.carry, data, *(np.int32(number) for number in numbers)
        )
        self._pending.append(_Pending(report, batches, begin))
        self.launched += batches.num_steps
        self._longest = max(batches.num_steps, self._longest)
        if batches.source is not None:
            self._used += batches.num_steps
        if batches.source is not None and len(self._pending) > _IN_FLIGHT:
            self._release(self._pending[-_IN_FLIGHT - 1])

    def _release(self, pending: _Pending) -> None:
        """Wait for a chunk; once it went well, its batches are needed no more."""
        batches = pending.batches
        went_well = not bool(pending.report.is_stopped)
        if batches.source is None or not went_well:
            return
        if batches.position + batches.num_steps == batches.source.num_batches:
            batches.source.data = None

    def drain(self) -> dict[str, Any]:
        """Wait for what was launched; return the rows of the history that it wrote."""
        new: list[dict[str, Any]] = []
        before = self.num_rows
        for pending in self._pending:
            report = pending.report
            step, self.is_stopped = int(report.step), bool(report.is_stopped)
            made = step - self.step
            # The step at which a fit stops is measured, and not taken.
            is_refused = made < pending.batches.num_steps
            measured = pending.begin + made + is_refused
            skipped, written = int(pending.begin > 0), -(-measured // self._stride)
            if measured > pending.begin:
                self._last = pending.batches, self.step
                new.append(_take_rows(report.rows, skipped, written))
                self.num_rows += written - skipped
            self.step = step
            self.loss = float(report.loss)
            if self.is_stopped:
                break
        self._pending.clear()
        self.launched = self.step
        if self.num_rows == before or not self._records:
            return {}
        rows = join_rows(new)
        self.history.append(rows)
        return rows | {"step": self._steps(before, self.num_rows)}

    def _steps(self, begin: int, end: int) -> np.ndarray:
        rows = np.arange(begin, end, dtype=np.int32)
        return self.start_step + rows * np.int32(self._stride)

    def wait(self) -> None:
        """Wait until what was launched is done; Ctrl-C is heard while it takes long."""
        report = self._pending[-1].report
        expected = self._pending[-1].batches.num_steps * (self.step_seconds or np.inf)
        nap = 1e-4
        while expected > _PATIENT_SECONDS and not _is_ready(report):
            time.sleep(nap)
            nap = min(2 * nap, 0.02)
        jax.block_until_ready(report)

    def learn(self, seconds: float, steps: int) -> None:
        """Take note of how long a chunk took, and choose how many rows a buffer holds.

        A larger buffer is another program, and pays only where steps are very short.
        """
        if self.is_shared:
            seconds = multihost.first_of(seconds)
        self.step_seconds = max(seconds / steps, 1e-9)
        self._num_measured += 1
        self._longest = max(steps, self._longest)
        is_full = self._buffer_rows >= _MANY_ROWS or steps * _GROWTH < self._buffer_rows
        if not self.is_measured or is_full or self.chunk is not None:
            return
        if self._buffer_rows * self._stride * self.step_seconds < _CHUNK_SECONDS / 4:
            leaves = jax.tree.leaves(self._pending[-1].report.rows)
            row_bytes = sum(leaf.nbytes for leaf in leaves) // self._buffer_rows
            rows = min(_MANY_ROWS, _BUFFER_BYTES // max(row_bytes, 1))
            self._buffer_rows = max(self._buffer_rows, rows)

    def learn_from_stream(self, seconds: float, steps: int) -> None:
        """Take note of how long steps of a stream took at most: it may have waited."""
        if self.stream is None or self.is_shared or not self.is_measured or not steps:
            return
        known = self.step_seconds or seconds
        self.step_seconds = max(min(known, seconds / steps), 1e-9)

    def change_optimizer(self, optimizer: Any) -> None:
        """Go on with an optimizer of the same code and other numbers."""
        self.spec = chunk_programs.with_optimizer(self.spec, optimizer)
        self.new_numbers = chunk_programs.optimizer_numbers(self.spec)
        self._programs.clear()  # they are bound to the numbers before

    @property
    def place(self) -> StreamPosition | None:
        """Where the stream stood after the batches used, or None."""
        if self._last is None or self._last[0].source is None:
            return self._place
        batches, first_step = self._last
        assert batches.source is not None
        used = batches.position + self.step - first_step
        return batches.source.places[used - 1] if used > 0 else self._place

    # ------------------------------------------------------------------- the end

    @property
    def has_evidence(self) -> bool:
        """Whether a batch is at hand on which a result can be measured."""
        return self.stream is None or self._last is not None

    def finish(self, params: PyTree | None, model_state: PyTree) -> FitResult:
        """Return the result, with no rows yet; of other params where they are given."""
        data, position, options = self._data, 0, self.options
        # An optimizer that ends itself exactly with the budget refused no step.
        is_refused = self.is_stopped and self.done != self.num_steps
        if self.stream is not None:
            assert self._last is not None  # who has made no step has no result
            batches, first_step = self._last
            last = self.step if is_refused else max(self.step - 1, 0)
            assert batches.source is not None
            data, position = batches.source.data, batches.position + last - first_step
            position = min(position, batches.position + batches.num_steps - 1)
            options = options._replace(is_group=batches.source.is_stacked)
        program = _programs.bind(
            chunk_programs.finish, self.spec, options, params=self.carry.state
        )
        result = program(
            self.carry,
            data,
            np.bool_(is_refused),
            np.int32(position),
            params,
            model_state,
        )
        status = self.status
        if status in (Status.RUNNING, Status.COMPLETED) or self.is_stopped:
            status = Status(int(vars(result)["status"]))
        self.status = status
        code = jnp.asarray(status, jnp.int32)
        return with_parts(
            result,
            status=code,
            state=result.state._replace(status=code),
            ended_by=self.ended_by,
        )

    def final_values(self) -> dict[str, Any]:
        """Return what recorders with a final value have to tell."""
        program = _programs.bind(chunk_programs.final_values, self.spec, self.options)
        return program(self.carry.recorder_states)

    def join_history(self) -> dict[str, Any]:
        """Return the rows so far, as one."""
        self.history = [join_rows(self.history)] if self.history else []
        return self.history[0] if self.history else {}

    def complete_history(self, final: PyTree) -> dict[str, Any]:
        """Return the whole history in the form of `fit`."""
        if not self._records:
            return {}
        rows = dict(self.join_history())
        length = self.num_rows
        if self.num_steps is not None:
            length = -(-self.num_steps // self._stride)
        missing = length - self.num_rows
        if missing and rows:
            shapes = jax.tree.map(
                lambda leaf: jax.ShapeDtypeStruct(
                    (missing, *leaf.shape[1:]), leaf.dtype
                ),
                rows,
            )
            rows = join_rows([rows, jax.tree.map(np.asarray, blank(shapes))])
        step = self._steps(0, length)
        if "params" in rows:
            rows["params"] = jax.tree.map(
                lambda leaf, last: _repeat_last(
                    leaf, np.arange(length) < self.num_rows, np.asarray(last)
                ),
                rows["params"],
                final,
            )
        return jax.device_put(rows | {"step": step})  # `jnp.asarray` compiles to do so


def _length_of_chunks(carry: chunk_programs.ChunkCarry, stream: Stream | None) -> float:
    """Return how many seconds a chunk should last."""
    seconds = _CHUNK_SECONDS if stream is None else _STREAM_SECONDS
    if jax.default_backend() != "cpu":
        return seconds
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(carry))
    return min(max(seconds, size * _SECONDS_PER_BYTE), _MOST_SECONDS)


def _is_ready(report: chunk_programs.Report) -> bool:
    return all(leaf.is_ready() for leaf in jax.tree.leaves(report))


def _repeat_last(
    rows: np.ndarray, measured: np.ndarray, last: np.ndarray
) -> np.ndarray:
    whole = np.concatenate([rows, last[None]])
    whole[:-1][~measured] = last
    return whole


def _take_rows(rows: PyTree, begin: int, end: int) -> PyTree:
    return jax.tree.map(lambda leaf: np.array(np.asarray(leaf)[begin:end]), rows)


def join_rows(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Join rows of the history, one part after the other."""
    if not parts:
        return {}
    if len(parts) == 1:
        return parts[0]
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
