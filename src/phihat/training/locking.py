"""One fit at a time on a folder of checkpoints.

The lock is one of the system's on a file, so it dies with the process that holds it,
however that ends. A forked child lets go of it at once. The file tells who holds it.
"""

import contextlib
import datetime
import json
import os
from pathlib import Path
from typing import Any

from phihat._core import checks as _checks
from phihat._core import folders as _folders

__all__ = ["FolderLock"]

_NAME = ".lock"
_held: set["FolderLock"] = set()


class FolderLock:
    """Held by one fit, of all processes and threads, while it uses a folder."""

    def __init__(self, folder: Path) -> None:
        """Hold nothing yet."""
        self._path = folder / _NAME
        self._descriptor: int | None = None

    def acquire(self, call: str) -> bool:
        """Take the lock, and tell whether it is held; say so where there are none."""
        try:
            import fcntl
        except ImportError:
            return self._go_without("this system has no locks on files")
        while True:
            descriptor = self._open(call)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                text = _read(descriptor)
                os.close(descriptor)
                raise RuntimeError(self._tell_holder(call, text)) from None
            except OSError as error:
                os.close(descriptor)
                return self._go_without(error.strerror or str(error))
            if self._is_current(descriptor):
                break
            os.close(descriptor)  # its holder has just removed the file
        self._descriptor = descriptor
        _held.add(self)
        _write(descriptor)
        return True

    def release(self) -> None:
        """Let go of the lock."""
        if self._descriptor is None:
            return
        with contextlib.suppress(OSError):
            if self._is_current(self._descriptor):
                self._path.unlink()
        self.forget()

    def forget(self) -> None:
        """Close the file and leave the lock to others who have it open."""
        _held.discard(self)
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = None

    def _open(self, call: str) -> int:
        flags = os.O_RDWR | os.O_CREAT
        for name in ("O_CLOEXEC", "O_NOFOLLOW", "O_NONBLOCK"):
            flags |= getattr(os, name, 0)
        try:
            return os.open(self._path, flags, 0o644)
        except OSError as error:
            raise type(error)(
                f"{call}: the file {self._path}, by which a fit claims its folder, "
                f"cannot be opened ({error.strerror}); choose another folder."
            ) from error

    def _is_current(self, descriptor: int) -> bool:
        try:
            found = os.stat(self._path)
        except FileNotFoundError:
            return False
        mine = os.fstat(descriptor)
        return (found.st_dev, found.st_ino) == (mine.st_dev, mine.st_ino)

    def _go_without(self, reason: str) -> bool:
        _checks.warn(
            f"train: the folder {self._path.parent} cannot be locked ({reason}), so "
            "another fit may use it unnoticed; each checkpoint is complete in any case."
        )
        return False

    def _tell_holder(self, call: str, text: str) -> str:
        try:
            holder: Any = json.loads(text)
            who = (
                f"process {holder['pid']} on {holder['host']}, which began at "
                f"{holder['started']}"
            )
        except (ValueError, KeyError, TypeError):
            who = "another process"
        return (
            f"{call}: another fit uses the folder {self._path.parent}: {who}. Wait for "
            "it, end it, or choose another folder."
        )


def _read(descriptor: int) -> str:
    return os.pread(descriptor, 4096, 0).decode("utf-8", "replace")


def _write(descriptor: int) -> None:
    now = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    holder = {"host": _folders.host_name(), "pid": os.getpid(), "started": now}
    with contextlib.suppress(OSError):  # a full disk: the lock holds all the same
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(holder).encode(), 0)


def _forget_all() -> None:
    for lock in list(_held):
        lock.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)
