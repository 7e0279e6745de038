"""A store of values by key, bounded in entries and in bytes."""

import collections
import threading
from collections.abc import Hashable
from typing import Any

__all__ = ["Store"]

_MAX_ENTRIES = 256
"""Enough for a notebook's day; a program of a small fit is some hundred kilobytes."""

_MAX_BYTES = 2**27
"""Bytes of the arrays that functions in the keys close over."""


class Store:
    """Values by key, the least recently used dropped first."""

    def __init__(self) -> None:
        """Begin empty."""
        self._entries: collections.OrderedDict[Hashable, tuple[Any, int]] = (
            collections.OrderedDict()
        )
        self._num_bytes = 0
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> Any:
        """Return the value of a key, or None."""
        with self._lock:
            found = self._entries.get(key)
            if found is None:
                return None
            self._entries.move_to_end(key)
            return found[0]

    def put(self, key: Hashable, value: Any, num_bytes: int) -> None:
        """Keep a value, and drop the oldest where they are too many."""
        with self._lock:
            if key not in self._entries:
                self._num_bytes += num_bytes
                self._entries[key] = (value, num_bytes)
            while len(self._entries) > 1 and (
                len(self._entries) > _MAX_ENTRIES or self._num_bytes > _MAX_BYTES
            ):
                self._num_bytes -= self._entries.popitem(last=False)[1][1]

    def clear(self) -> None:
        """Drop all values."""
        with self._lock:
            self._entries.clear()
            self._num_bytes = 0
