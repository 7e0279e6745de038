"""Where a long fit's batches come from: arrays in memory, or a stream read ahead.

A stream is any iterable of batches. A thread reads it, checks every batch against the
first, stacks a few of them and sends them to the device while earlier ones are used.
"""

import copy
import queue
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from phihat.training.stream_checks import BadBatch, BatchChecks

__all__ = ["Stream", "StreamBatches", "StreamFailure", "StreamPosition", "is_stream"]

_GROUP_BYTES = 2**20
_MAX_GROUP = 64
"""Batches stacked: enough that their work outweighs the start of a program."""

_GROUPS_AHEAD = 2


def is_stream(data: Any) -> bool:
    """Tell whether data are an iterable of batches, one foreign leaf to jax."""
    if isinstance(data, Iterator):  # jax would warn of it
        return True
    leaves = jax.tree.leaves(data)
    if len(leaves) != 1 or leaves[0] is not data:
        return False
    if hasattr(data, "dtype") or hasattr(data, "columns") or hasattr(data, "to_numpy"):
        return False
    return isinstance(data, Iterable) and not isinstance(data, (str, bytes))


class StreamPosition(NamedTuple):
    """Where a stream stands.

    Attributes:
      passes: how many passes were read to their end.
      batches: how many batches of the present one were used.
      own_state: what the stream itself says, or None.
    """

    passes: int
    batches: int
    own_state: Any = None


class StreamFailure(Exception):
    """A batch is wrong, or reading it raised.

    Attributes:
      error: what was raised.
      explained: the exception to raise instead, which names the batch.
    """

    def __init__(self, error: BaseException, explained: Exception) -> None:
        """Keep both."""
        super().__init__(str(explained))
        self.error = error
        self.explained = explained


class StreamBatches:
    """Batches of one shape, stacked on the device.

    Attributes:
      data: leaves `[G, ...]`, of which the first rows are batches, and the rest zero;
        where batches are large, or arrays of jax, the only batch itself.
      is_stacked: whether it has the leading axis.
      places: where the stream stands after each batch.
    """

    def __init__(
        self, data: Any, is_stacked: bool, places: list[StreamPosition]
    ) -> None:
        """Keep the parts."""
        self.data = data
        self.is_stacked = is_stacked
        self.places = places

    @property
    def num_batches(self) -> int:
        """How many there are."""
        return len(self.places)


class _Buffer:
    """Copies of batches of one shape, until there are enough of them.

    A stream may refill the arrays that it gave, so a batch is copied as it is read.
    """

    def __init__(self, leaves: list[Any]) -> None:
        self.shape = leaves[0].shape
        self.capacity = _capacity(leaves)
        self.places: list[StreamPosition] = []
        self._leaves = [
            leaf
            if isinstance(leaf, jax.Array)
            else np.zeros((self.capacity, *leaf.shape), leaf.dtype)
            for leaf in leaves
        ]

    def add(self, leaves: list[Any], place: StreamPosition) -> None:
        for buffer, leaf in zip(self._leaves, leaves, strict=True):
            if not isinstance(buffer, jax.Array):
                buffer[len(self.places)] = leaf
        self.places.append(place)

    @property
    def is_full(self) -> bool:
        return len(self.places) == self.capacity

    def send(self, structure: Any) -> StreamBatches:
        """Send the batches to the device; arrays of jax stay where they are."""
        is_stacked = self.capacity > 1
        leaves = [
            leaf
            if isinstance(leaf, jax.Array)
            else jax.device_put(leaf if is_stacked else leaf[0])
            for leaf in self._leaves
        ]
        data = jax.tree.unflatten(structure, leaves)
        return StreamBatches(data, is_stacked, self.places)


def _capacity(leaves: list[Any]) -> int:
    """Return how many batches are stacked: a function of their size alone."""
    if any(isinstance(leaf, jax.Array) for leaf in leaves):
        return 1
    size = max(1, sum(leaf.nbytes for leaf in leaves))
    count = max(1, min(_MAX_GROUP, _GROUP_BYTES // size))
    return 1 << (count.bit_length() - 1)


class Stream:
    """Read an iterable of batches ahead, in a thread of its own.

    Args:
      call: the public function, for messages.
      data: the iterable; where `iter` begins anew, it may be read in several passes.
      passes: how often to read it, or None for as often as batches are asked for.
      asks_state: ask the stream for its state after every batch.
    """

    def __init__(
        self, call: str, data: Any, *, passes: int | None, asks_state: bool = False
    ) -> None:
        """Start nothing yet."""
        self.place = StreamPosition(0, 0)
        self._call = call
        self._data = data
        self._passes = passes
        self._asks_state = asks_state
        self._number = 0
        self._checks = BatchChecks(call)
        self._queue: queue.Queue[Any] = queue.Queue(_GROUPS_AHEAD)
        self._lock = threading.Lock()
        self._buffer: _Buffer | None = None
        self._end: StreamFailure | _Ended | None = None
        self._stopped = threading.Event()
        self._is_awaited = threading.Event()
        self._thread: threading.Thread | None = None
        # Such settings of jax hold for one thread: the reader's are those of the fit.
        self._x64 = jax.dtypes.canonicalize_dtype(float) == np.float64
        self._device = getattr(jax.config, "jax_default_device", None)

    def seek(self, place: StreamPosition) -> None:
        """Begin there; where the stream did not tell, at the beginning of its pass."""
        self.place = (
            place if place.own_state is not None else StreamPosition(place.passes, 0)
        )

    # ------------------------------------------------------------ the reader's side

    def read(self, timeout: float | None = None) -> StreamBatches | None:
        """Return the next batches, or None where the stream has ended."""
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._work, name="phihat-stream", daemon=True
            )
            self._thread.start()
        if self._end is None:
            self._is_awaited.set()
            item = self._next(timeout)
            self._is_awaited.clear()
            if isinstance(item, StreamBatches):
                return item
            self._end = item  # the end is the end, however often one asks
        if isinstance(self._end, StreamFailure):
            raise self._end
        return None

    def _next(self, timeout: float | None) -> Any:
        begin = time.monotonic()
        while True:
            try:
                return self._queue.get(timeout=0.05)
            except queue.Empty:
                # A slow stream may hold a few batches back: use them now.
                with self._lock:
                    if self._queue.empty() and self._buffer is not None:
                        return self._take()
                if not self._is_reading() and self._queue.empty():
                    return self._explain_death()
                if timeout is not None and time.monotonic() - begin >= timeout:
                    raise

    def _is_reading(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _explain_death(self) -> StreamFailure:
        text = (
            f"{self._call}: the thread that reads `data` ended without a word, after "
            f"{self._number} batches; a fork of the process ends it too."
        )
        return StreamFailure(RuntimeError(text), RuntimeError(text))

    def close(self) -> None:
        """Stop reading."""
        self._stopped.set()
        while True:
            try:
                self._queue.get_nowait()
            except queue.Empty:
                break
        if self._thread is not None:
            self._thread.join(timeout=1.0)

    # ------------------------------------------------------------ the thread's side

    def _put(self, item: Any) -> None:
        while not self._stopped.is_set():
            try:
                return self._queue.put(item, timeout=0.1)
            except queue.Full:
                continue
        return None

    def _work(self) -> None:
        """Read to the end; whatever is raised is handed to the fit, and ends it."""
        try:
            with jax.enable_x64(self._x64), jax.default_device(self._device):
                self._read_passes()
            end: StreamFailure | _Ended = _Ended()
        except BaseException as error:
            end = self._explain(error)
        self._put(end)

    def _read_passes(self) -> None:
        place = self.place
        while not self._stopped.is_set() and place.passes != self._passes:
            iterator = iter(self._data)
            if place.own_state is not None:
                set_position(iterator, self._data, place.own_state)
            found = self._read_pass(iterator, place)
            if not found and place.batches == 0:
                break
            place = StreamPosition(place.passes + 1, 0)

    def _explain(self, error: BaseException) -> StreamFailure:
        if isinstance(error, BadBatch):
            return StreamFailure(error.__cause__ or error, error.args[0])
        try:
            said = " ".join(str(error).split()).removesuffix(".")
        except Exception:  # an exception that cannot be printed is told without a text
            said = ""
        text = (
            f"{self._call}: `data` raised {type(error).__name__} at batch "
            f"{self._number}{': ' if said else ''}{said}."
        )
        return StreamFailure(error, RuntimeError(text))

    def _read_pass(self, iterator: Iterator[Any], place: StreamPosition) -> bool:
        """Hand on the batches of a pass; tell whether there were any."""
        begin = place.batches
        try:
            for batch in iterator:
                if self._stopped.is_set():
                    break
                leaves = self._checks.check(batch, self._number)
                told = get_position(iterator, self._data) if self._asks_state else None
                place = StreamPosition(place.passes, place.batches + 1, told)
                with self._lock:
                    self._keep(leaves, place)
        finally:
            with self._lock:
                if self._buffer is not None:
                    self._put(self._take())
        return place.batches > begin

    def _keep(self, leaves: list[Any], place: StreamPosition) -> None:
        """Copy a batch, and hand on what is enough or awaited; under the lock."""
        if self._buffer is not None and self._buffer.shape != leaves[0].shape:
            self._put(self._take())
        if self._buffer is None:
            self._buffer = _Buffer(leaves)
        self._buffer.add(leaves, place)
        self._number += 1
        is_awaited = self._is_awaited.is_set() and self._queue.empty()
        if self._buffer.is_full or is_awaited:
            self._put(self._take())

    def _take(self) -> StreamBatches:
        """Send the batches that are held, under the lock."""
        assert self._buffer is not None
        buffer, self._buffer = self._buffer, None
        return buffer.send(self._checks.structure)


class _Ended:
    """The last thing in the queue of a stream that came to its end."""


# -------------------------------------------------------------- where a stream stands


def get_position(iterator: Any, data: Any) -> Any:
    """Return the state of a stream that can tell it, else None."""
    for holder in (iterator, data):
        for name in ("get_state", "state_dict"):
            if hasattr(holder, name):
                # A copy: a stream may change the object that it hands out.
                return copy.deepcopy(getattr(holder, name)())
    return None


def set_position(iterator: Any, data: Any, position: Any) -> None:
    """Bring a stream to where it was."""
    for holder in (iterator, data):
        for name in ("set_state", "load_state_dict"):
            if hasattr(holder, name):
                getattr(holder, name)(position)
                return
