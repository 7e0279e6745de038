"""Arrays in files, by orbax, and what is written of each beside them."""

import contextlib
import errno
import importlib.util
import os
import re
import shutil
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from phihat._core import checks as _checks
from phihat._core import tree as _tree

__all__ = [
    "brief_reason",
    "check_installed",
    "check_kinds",
    "pack",
    "read_arrays",
    "unpack",
    "write",
]

_LEAVES = (jax.Array, np.ndarray, np.generic, bool, int, float, complex)
_FAULTS = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EROFS, errno.EIO)
_LATE_ERROR_SECONDS = 0.3
_MANY = 200
"""Characters of a reason: orbax tells of a full disk in fifteen hundred lines."""


def pack(
    leaves: list[Any], paths: list[str]
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return a description of every leaf, and the arrays that orbax can write."""
    kinds, arrays = [], {}
    for number, (leaf, path) in enumerate(zip(leaves, paths, strict=True)):
        is_held = not (_checks.is_deleted(leaf) or isinstance(leaf, jax.core.Tracer))
        is_known = isinstance(leaf, _LEAVES) and is_held
        if not is_known or not _tree.is_number(np_or_jax(leaf)):
            raise TypeError(
                f"save: the leaf at {path or 'the root'} must be an array or a number, "
                f"got {_checks.brief(leaf)}."
            )
        key, is_host = None, not isinstance(leaf, jax.Array)
        array: Any = np_or_jax(leaf)
        if _tree.is_key(array):
            key, array = str(jax.random.key_impl(array)), jax.random.key_data(array)
        if not is_host and jax.process_count() > 1 and array.is_fully_addressable:
            array = np.asarray(array)  # each process has it; the first writes it
        kinds.append(
            {
                "path": path,
                "shape": list(array.shape),
                "dtype": str(array.dtype),
                "key": key,
                "host": is_host,
            }
        )
        if array.size:
            arrays[str(number)] = array
    return kinds, arrays


def np_or_jax(leaf: Any) -> Any:
    """Return numbers as arrays of NumPy, and arrays as they are."""
    return leaf if isinstance(leaf, jax.Array) else np.asarray(leaf)


def check_kinds(kinds: Any) -> None:
    """Check what a file says of its leaves."""
    if not isinstance(kinds, list):
        raise ValueError("its leaves are no list")
    for kind in kinds:
        well = isinstance(kind, dict) and {"path", "shape", "dtype", "key", "host"} <= {
            *kind
        }
        if well:
            sizes = kind["shape"]
            well = (
                isinstance(kind["path"], str)
                and isinstance(sizes, list)
                and all(type(size) is int and 0 <= size < 2**62 for size in sizes)
                and isinstance(kind["host"], bool)
                and isinstance(kind["key"], (str, type(None)))
                and _is_dtype(kind["dtype"])
            )
        if not well:
            raise ValueError(f"it describes a leaf as {_checks.brief(kind)}")


def _is_dtype(name: Any) -> bool:
    try:
        return isinstance(name, str) and jnp.dtype(name).kind in "biufcV"
    except TypeError:
        return False


def unpack(kind: dict[str, Any], array: Any) -> Any:
    """Return a leaf as it was saved."""
    if array is None:
        array = np.zeros(kind["shape"], jnp.dtype(kind["dtype"]))
    if list(array.shape) != kind["shape"] or str(array.dtype) != kind["dtype"]:
        raise ValueError(
            f"the array at {kind['path'] or 'the root'} is "
            f"{array.dtype}{list(array.shape)}, where {kind['dtype']}{kind['shape']} "
            "was written"
        )
    if not kind["host"]:
        array = jnp.asarray(array)
    return jax.random.wrap_key_data(array, impl=kind["key"]) if kind["key"] else array


# ---------------------------------------------------------------------- what orbax does


def write(path: Path, arrays: dict[str, Any]) -> None:
    """Write arrays by name into a new folder."""
    orbax = _orbax()
    _check_room(path.parent, arrays)
    with _quiet_logging, _quiet_late_errors():
        writer = orbax.Checkpointer(orbax.PyTreeCheckpointHandler())
        writer.save(path, args=orbax.args.PyTreeSave(arrays))
        writer.close()


def _check_room(folder: Path, arrays: dict[str, Any]) -> None:
    """Leave a disk that is nearly full alone: it may be others' too."""
    if jax.process_count() > 1:
        return
    needed = sum(array.nbytes for array in arrays.values())
    if shutil.disk_usage(folder).free < needed:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def read_arrays(path: Path, shardings: dict[str, Any]) -> dict[str, Any]:
    """Read arrays by name, into a sharding or, where that is None, to the host."""
    orbax = _orbax()
    wanted = {
        name: orbax.RestoreArgs(restore_type=np.ndarray)
        if sharding is None
        else orbax.ArrayRestoreArgs(sharding=sharding)
        for name, sharding in shardings.items()
    }
    with _quiet_logging, _quiet_warnings:  # of files that ours never have
        reader = orbax.Checkpointer(orbax.PyTreeCheckpointHandler())
        return reader.restore(path, args=orbax.args.PyTreeRestore(restore_args=wanted))


def brief_reason(error: BaseException) -> str:
    """Return why something failed in one line, whatever a peer says of it."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    text = " ".join(str(error).split())
    for number in _FAULTS:
        if os.strerror(number) in text:
            return os.strerror(number)
    text = re.sub(r"\s*\[source locations=.*", "", text)
    return text if len(text) <= _MANY else f"{text[:_MANY]}..."


def check_installed() -> None:
    """Find orbax, without importing it."""
    if importlib.util.find_spec("orbax") is None:
        _orbax()


def _orbax() -> Any:
    return _checks.require("Checkpoints", "orbax.checkpoint", '"phihat[checkpoint]"')


class _SharedContext:
    """A context that the first of several threads enters, and the last one leaves.

    What it changes belongs to the whole process: were each thread to put back what it
    found, the last one could put back what another had set.
    """

    def __init__(self, make: Callable[[], contextlib.AbstractContextManager]) -> None:
        self._make, self._lock, self._count = make, threading.Lock(), 0
        self._context: contextlib.AbstractContextManager = contextlib.nullcontext()

    def __enter__(self) -> None:
        with self._lock:
            if self._count == 0:
                self._context = self._make()
                self._context.__enter__()
            self._count += 1

    def __exit__(self, *raised: object) -> None:
        with self._lock:
            self._count -= 1
            if self._count == 0:
                self._context.__exit__(None, None, None)


@contextlib.contextmanager
def _ignore_closed_loops() -> Iterator[None]:
    """Keep to itself what the threads of a writer say that has failed."""
    before = sys.excepthook

    def ignore_closed_loop(kind: Any, error: Any, trace: Any) -> None:
        if "Event loop is closed" not in str(error):
            before(kind, error, trace)

    try:
        sys.excepthook = ignore_closed_loop
        yield
    finally:
        sys.excepthook = before


@contextlib.contextmanager
def _ignore_logs() -> Iterator[None]:
    """Silence the log of orbax, from any thread."""
    from absl import logging

    level = logging.get_verbosity()
    logging.set_verbosity(logging.FATAL)
    try:
        yield
    finally:
        logging.set_verbosity(level)


@contextlib.contextmanager
def _ignore_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


_quiet_loops = _SharedContext(_ignore_closed_loops)
_quiet_logging = _SharedContext(_ignore_logs)
_quiet_warnings = _SharedContext(_ignore_warnings)
"""Only while reading: all threads share the filters, and what writes beside a fit must
leave them alone, or the fit's own warnings would be lost."""


@contextlib.contextmanager
def _quiet_late_errors() -> Iterator[None]:
    """Where a write fails, wait for the others, whose errors would be printed.

    Each of them finds the event loop of the writer closed, and says so in ten lines.
    """
    with _quiet_loops:
        try:
            yield
        except BaseException:
            time.sleep(_LATE_ERROR_SECONDS)
            raise
