"""One write at a time, in a thread beside the steps."""

import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["BackgroundWriter", "WriteResult", "copy_arrays"]


class WriteResult(NamedTuple):
    """What came of a write: a path, or the error that was raised instead."""

    step: int
    path: Any
    error: Exception | None


class BackgroundWriter:
    """Runs one function at a time in a thread, and keeps what came of it."""

    def __init__(self) -> None:
        """Begin with nothing to do."""
        self._thread: threading.Thread | None = None
        self._written: WriteResult | None = None

    def start(self, step: int, write: Callable[[], Any]) -> None:
        """Run `write` beside the caller; whatever ran before must have been taken."""
        assert self._thread is None
        # Not a daemon: an interpreter that ends lets it come to its end.
        self._thread = threading.Thread(
            target=self._run, args=(step, write), name="phihat checkpoint"
        )
        self._thread.start()

    def _run(self, step: int, write: Callable[[], Any]) -> None:
        try:
            self._written = WriteResult(step, write(), None)
        except Exception as error:  # told by whoever takes it
            self._written = WriteResult(step, None, error)

    def poll(self) -> WriteResult | None:
        """Return what came of a write that has ended since, or None."""
        if self._thread is None or self._thread.is_alive():
            return None
        return self.wait()

    def wait(self) -> WriteResult | None:
        """Wait for the write under way; return what came of it, or None without one."""
        if self._thread is None:
            return None
        self._thread.join()
        self._thread = None
        written, self._written = self._written, None
        return written


def copy_arrays(arrays: dict[str, Any]) -> dict[str, Any]:
    """Copy arrays that the next step will overwrite.

    On the CPU the copies are made on the device: a view of NumPy's would keep the
    buffer from being given to the next step. Elsewhere they are made in the memory of
    the host, which is larger.
    """
    is_host = jax.default_backend() == "cpu"
    copied = {
        name: _copy_on_device(array) if is_host else np.array(array)
        for name, array in arrays.items()
    }
    jax.block_until_ready(copied)
    return copied


def _copy_on_device(array: Any) -> Any:
    if isinstance(array, jax.Array):
        return jnp.array(array, copy=True)
    return np.array(array)
