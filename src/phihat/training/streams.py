"""Where a long fit's batches come from: arrays in memory, or a stream read ahead.

A stream is any iterable of batches. A thread reads it, checks every batch against the
first, stacks a few of them and sends them to the device while earlier ones are used.

Example:
  >>> import numpy as np
  >>> from phihat.training import streams
  >>> source = streams.Stream("train", [np.ones(3), np.ones(3)], passes=1)
  >>> sum(group.num_batches for group in source)
  2
"""

import queue
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from phihat._core import checks as _checks
from phihat._core import tree as _tree

__all__ = ["Group", "Place", "Stream", "StreamFailure", "is_stream"]

_GROUP_BYTES = 2**20
_MAX_GROUP = 64
"""Batches of a group: enough that a group's work outweighs the start of a program."""

_GROUPS_AHEAD = 2


def is_stream(data: Any) -> bool:
    """Tell whether data are an iterable of batches: what jax sees as one foreign leaf.

    Example:
      >>> is_stream(iter([1.0])), is_stream([1.0]), is_stream(None)
      (True, False, False)
    """
    if isinstance(data, Iterator):  # jax would warn of it
        return True
    leaves = jax.tree.leaves(data)
    if len(leaves) != 1 or leaves[0] is not data:
        return False
    if hasattr(data, "dtype") or hasattr(data, "columns") or hasattr(data, "to_numpy"):
        return False
    return isinstance(data, Iterable) and not isinstance(data, (str, bytes))


class Place(NamedTuple):
    """Where a stream stands.

    Attributes:
      passes: how many passes were read to their end.
      batches: how many batches of the present one were used.
      told: what the stream itself says, or None.
    """

    passes: int
    batches: int
    told: Any = None


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


class Group:
    """Batches of one shape, stacked on the device.

    Attributes:
      data: leaves `[G, ...]`, of which the first rows are batches, and the rest zero;
        where batches are large, or arrays of jax, the only batch itself.
      is_stacked: whether it has the leading axis.
      places: where the stream stands after each batch.
      is_used_up: whether each batch has been used; then the data may be let go.
    """

    def __init__(self, data: Any, is_stacked: bool, places: list[Place]) -> None:
        """Keep the parts."""
        self.data = data
        self.is_stacked = is_stacked
        self.places = places
        self.is_used_up = False

    @property
    def num_batches(self) -> int:
        """How many there are."""
        return len(self.places)


class Stream:
    """Read an iterable of batches ahead, in a thread of its own.

    Args:
      call: the public function, for messages.
      data: the iterable; where `iter` begins anew, it may be read in several passes.
      passes: how often to read it, or None for as often as batches are asked for.
      tells: ask the stream for its state after every batch.
    """

    def __init__(
        self, call: str, data: Any, *, passes: int | None, tells: bool = False
    ) -> None:
        """Start nothing yet."""
        self.place = Place(0, 0)
        self._call = call
        self._data = data
        self._passes = passes
        self._tells = tells
        self._number = 0
        self._spec: tuple[Any, list[tuple[str, tuple[int, ...], Any]]] | None = None
        self._short: int | None = None
        self._queue: queue.Queue[Any] = queue.Queue(_GROUPS_AHEAD)
        self._lock = threading.Lock()
        self._batches: list[list[Any]] = []
        self._places: list[Place] = []
        self._stopped = threading.Event()
        self._hungry = threading.Event()
        self._thread: threading.Thread | None = None

    def go_to(self, place: Place) -> None:
        """Begin there; where the stream did not tell, at the beginning of its pass."""
        self.place = place if place.told is not None else Place(place.passes, 0)

    # ------------------------------------------------------------ the reader's side

    def __iter__(self) -> Iterator[Group]:
        """Yield groups until the stream ends."""
        while True:
            group = self.read()
            if group is None:
                return
            yield group

    def read(self, timeout: float | None = None) -> Group | None:
        """Return the next group, or None where the stream has ended.

        Raises:
          StreamFailure: a batch is wrong, or reading it raised.
          queue.Empty: nothing came within the timeout.
        """
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, daemon=True)
            self._thread.start()
        self._hungry.set()
        item = self._next(timeout)
        self._hungry.clear()
        if item is None or isinstance(item, StreamFailure):
            self._queue.put(item)  # the end is the end, however often one asks
        if isinstance(item, StreamFailure):
            raise item
        return item

    def _next(self, timeout: float | None) -> Any:
        begin = time.monotonic()
        while True:
            try:
                return self._queue.get(timeout=0.05)
            except queue.Empty:
                # A slow stream may hold a few batches of a group back: use them now.
                with self._lock:
                    if self._queue.empty() and self._batches:
                        return self._take()
                if timeout is not None and time.monotonic() - begin >= timeout:
                    raise

    def close(self) -> None:
        """Stop reading."""
        self._stopped.set()
        while not self._queue.empty():
            self._queue.get_nowait()
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
        try:
            place = self.place
            while not self._stopped.is_set() and place.passes != self._passes:
                iterator = iter(self._data)
                if place.told is not None:
                    set_position(iterator, self._data, place.told)
                found = self._read_pass(iterator, place)
                if not found and place.batches == 0:
                    break
                place = Place(place.passes + 1, 0)
            self._put(None)
        except Exception as error:  # told to the reader, whatever it is
            self._put(self._explain(error))

    def _explain(self, error: Exception) -> StreamFailure:
        if isinstance(error, _BadBatch):
            return StreamFailure(error.__cause__ or error, error.args[0])
        text = (
            f"{self._call}: `data` raised {type(error).__name__} at batch "
            f"{self._number}: {error}."
        )
        return StreamFailure(error, RuntimeError(text))

    def _read_pass(self, iterator: Iterator[Any], place: Place) -> bool:
        """Put the batches of a pass into groups; tell whether there were any."""
        begin = place.batches
        try:
            for batch in iterator:
                if self._stopped.is_set():
                    break
                leaves = self._check(batch)
                told = get_position(iterator, self._data) if self._tells else None
                place = Place(place.passes, place.batches + 1, told)
                with self._lock:
                    held = self._batches
                    if held and leaves[0].shape != held[0][0].shape:
                        self._put(self._take())
                    self._batches.append(leaves)
                    self._places.append(place)
                    self._number += 1
                    is_full = len(self._batches) == self._capacity(leaves)
                    if is_full or (self._hungry.is_set() and self._queue.empty()):
                        self._put(self._take())
        finally:
            with self._lock:
                if self._batches:
                    self._put(self._take())
        return place.batches > begin

    def _take(self) -> Group:
        """Make a group of the batches held, under the lock."""
        batches, places = self._batches, self._places
        self._batches, self._places = [], []
        return self._group(batches, places)

    def _capacity(self, leaves: list[np.ndarray]) -> int:
        """Return how many batches a group has: a function of their size alone."""
        if any(isinstance(leaf, jax.Array) for leaf in leaves):
            return 1
        size = max(1, sum(leaf.nbytes for leaf in leaves))
        return min(_MAX_GROUP, max(1, 1 << (_GROUP_BYTES // size).bit_length() - 1))

    def _group(self, batches: list[list[Any]], places: list[Place]) -> Group:
        assert self._spec is not None
        capacity = self._capacity(batches[0])
        leaves = batches[0]
        if capacity > 1:
            leaves = [_stack(column, capacity) for column in zip(*batches, strict=True)]
        # Arrays of jax stay where they are, on one device or on many.
        leaves = [
            leaf if isinstance(leaf, jax.Array) else jax.device_put(leaf)
            for leaf in leaves
        ]
        return Group(jax.tree.unflatten(self._spec[0], leaves), capacity > 1, places)

    # ------------------------------------------------------------------- the checks

    def _check(self, batch: Any) -> list[Any]:
        """Return the leaves of a batch as arrays, if they are like those before."""
        try:
            return self._compare(batch)
        except (TypeError, ValueError) as error:
            kind, text = type(error), error.args[0]
            number = f"batch {self._number} of `data`"
            raise _BadBatch(kind(f"{self._call}: {number} {text}")) from error

    def _compare(self, batch: Any) -> list[Any]:
        found, structure = jax.tree_util.tree_flatten_with_path(batch)
        if not found:
            raise ValueError(f"has no arrays in it: {_checks.brief(batch)}.")
        leaves, spec = [], []
        for path, leaf in found:
            name = jax.tree_util.keystr(path)
            leaf = _as_array(leaf, f" at {name}" if name else "")
            leaves.append(leaf)
            spec.append((name, leaf.shape, leaf.dtype))
        if self._spec is None:
            self._spec = (structure, spec)
            return leaves
        if structure != self._spec[0]:
            raise TypeError(
                f"has the structure {structure}, but the first has {self._spec[0]}."
            )
        rows = {}
        for (name, shape, dtype), (_, first, wanted) in zip(
            spec, self._spec[1], strict=True
        ):
            _compare_leaf(name, shape, dtype, first, wanted)
            if shape:
                rows.setdefault(shape[0] - first[0], (name, shape[0]))
        if len(rows) > 1:
            (one, many), (other, few) = list(rows.values())[:2]
            raise ValueError(f"has {many} rows at {one} and {few} at {other}.")
        for missing, (_, count) in rows.items():
            if missing and self._short not in (None, count):
                raise ValueError(
                    f"has {count} rows, but a stream may have one shorter size only, "
                    f"that of the last batch of a pass, and {self._short} was it; pad "
                    "the others, or drop them."
                )
            self._short = count if missing else self._short
        return leaves


def _stack(leaves: Sequence[np.ndarray], capacity: int) -> np.ndarray:
    whole = np.zeros((capacity, *leaves[0].shape), leaves[0].dtype)
    for row, leaf in enumerate(leaves):
        whole[row] = leaf
    return whole


class _BadBatch(Exception):
    """Wraps the exception that says what is wrong with a batch."""


def _compare_leaf(
    name: str, shape: tuple[int, ...], dtype: Any, first: tuple[int, ...], wanted: Any
) -> None:
    """Refuse what differs from the first batch by more than fewer rows."""
    at = f" at {name}" if name else ""
    if dtype != wanted:
        raise TypeError(
            f"has dtype {dtype}{at}, but the first has {wanted}; convert it with "
            f"`.astype({str(wanted)!r})`."
        )
    is_shorter = bool(shape and first) and shape[1:] == first[1:]
    if shape != first and not (is_shorter and 0 < shape[0] < first[0]):
        raise ValueError(
            f"has shape {list(shape)}{at}, but the first has {list(first)}; only a "
            "last batch may have fewer rows."
        )


def _as_array(leaf: Any, at: str) -> Any:
    if isinstance(leaf, jax.Array):
        return leaf
    if isinstance(leaf, (str, bytes)) or hasattr(leaf, "columns"):
        raise TypeError(f"holds {_checks.brief(leaf)}{at}, which is no array.")
    try:
        array = np.asarray(leaf)
    except Exception as error:
        raise TypeError(
            f"holds {_checks.brief(leaf)}{at}, which is no array."
        ) from error
    if not _tree.is_number(array):
        raise TypeError(
            f"has dtype {array.dtype}{at}, which is not numeric; convert it with "
            "`.astype(float)`."
        )
    return array


# -------------------------------------------------------------- where a stream stands


def get_position(iterator: Any, data: Any) -> Any:
    """Return the state of a stream that can tell it, else None.

    Example:
      >>> get_position(iter([]), []) is None
      True
    """
    for holder in (iterator, data):
        for name in ("get_state", "state_dict"):
            if hasattr(holder, name):
                return getattr(holder, name)()
    return None


def set_position(iterator: Any, data: Any, position: Any) -> None:
    """Bring a stream to where it was."""
    for holder in (iterator, data):
        for name in ("set_state", "load_state_dict"):
            if hasattr(holder, name):
                getattr(holder, name)(position)
                return
