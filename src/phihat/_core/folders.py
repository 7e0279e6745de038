"""Folders that appear whole or not at all, and whose files are known by checksums.

What is to appear is written beside its place, under a name of its own, forced to the
disk, and renamed; what is to vanish is renamed before it is deleted. So a crash leaves
the old or the new, and leftovers that can be told from either.
"""

import contextlib
import ctypes
import itertools
import os
import re
import secrets
import shutil
import socket
import stat
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = [
    "as_path",
    "beside",
    "checksum",
    "clean",
    "files_in",
    "finish_replacements",
    "force_to_disk",
    "host_name",
    "new_token",
    "put_in_place",
    "read_file",
    "remove",
]

_LEFTOVER = re.compile(
    r"\.(?:(?P<long>.+)\.(?P<host>[\w-]+),(?P<pid>\d+),(?P<drawn>[0-9a-f]+)|(?P<step>\d{12}))"
    r"\.(?P<kind>writing|old|removed)",
    re.ASCII,
)
"""Names of scratch folders; those of steps alone are of phihat 0.1.0."""

_process = secrets.token_hex(4)
"""Tells this process from one before it that had the same number."""
_counter = itertools.count()

_DAY = 86_400.0
_MAX_NAME = 100
_EXCHANGE = 2


def as_path(call: str, argument: str, value: Any) -> Path:
    """Return a path made absolute at once: the working folder may change."""
    if not isinstance(value, (str, os.PathLike)) or isinstance(os.fspath(value), bytes):
        raise TypeError(f"{call}: `{argument}` must be a path, got {value!r}.")
    text = os.fspath(value)
    if not text.strip():
        raise ValueError(f"{call}: `{argument}` must be a path, got an empty one.")
    if "\0" in text:
        raise ValueError(f"{call}: `{argument}` has a zero byte in it: {text!r}.")
    if not text.isprintable() and text != text.encode("utf-8", "ignore").decode():
        raise ValueError(f"{call}: `{argument}` cannot be written in UTF-8: {text!r}.")
    return Path(os.path.abspath(text))


# ----------------------------------------------------------------------- other names


def host_name() -> str:
    """Return the name of this machine, of letters, digits and dashes."""
    return re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname())[:40] or "host"


def new_token(number: int | None = None) -> str:
    """Return what tells the scratch names of this process from any other's.

    Args:
      number: one on which several processes have agreed; None draws one.
    """
    if number is not None:
        return f"hosts,0,{number:x}"
    return f"{host_name()},{os.getpid()},{_process}{next(_counter):x}"


def beside(path: Path, kind: str, token: str) -> Path:
    """Return a hidden name beside a path, for what is being written or removed."""
    return path.with_name(f".{_short(path.name)}.{token}.{kind}")


def _short(name: str) -> str:
    """Keep a name within what file systems allow, and apart from others."""
    if len(name.encode()) <= _MAX_NAME:
        return name
    return f"{name[: _MAX_NAME // 4]}-{zlib.crc32(name.encode()):x}"


def clean(folder: Path, name: str | None = None, *, is_locked: bool = False) -> None:
    """Delete what crashes left half written or half deleted.

    Args:
      folder: where to look.
      name: of the path that it was for; None stands for any.
      is_locked: nobody else writes here; else only what is left of processes of this
        machine that have ended, or of others if it is a day old by the clock, which may
        be wrong.
    """
    for entry, match in _leftovers(folder, name):
        if match["kind"] == "old" and not os.path.lexists(folder / _owner(match)):
            continue  # all that there is: see `finish_replacements`
        if is_locked or _is_abandoned(entry, match):
            shutil.rmtree(entry, ignore_errors=True)


def finish_replacements(folder: Path, name: str | None = None) -> None:
    """Rename back what was set aside by a replacement that a crash cut in two."""
    for entry, match in _leftovers(folder, name):
        path = folder / _owner(match)
        if match["kind"] == "old" and not os.path.lexists(path):
            with contextlib.suppress(OSError):
                entry.rename(path)


def _leftovers(folder: Path, name: str | None) -> list[tuple[Path, re.Match[str]]]:
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        return []
    name = None if name is None else _short(name)
    found = []
    for entry in entries:
        match = _LEFTOVER.fullmatch(entry.name)
        if match is None or name not in (None, _owner(match)):
            continue
        if entry.is_dir() and not entry.is_symlink():
            found.append((entry, match))
    return found


def _owner(match: re.Match[str]) -> str:
    """Return the name of the folder for which a scratch folder was made."""
    return match["long"] or match["step"]


def _is_abandoned(entry: Path, match: re.Match[str]) -> bool:
    """Tell whether nobody writes a scratch folder any more.

    Whatever the clock says, a process of this machine that lives may write on.
    """
    if match["host"] == host_name():
        if int(match["pid"]) != os.getpid():
            return not _is_alive(int(match["pid"]))
        if match["drawn"].startswith(_process):
            return False
    try:
        return time.time() - entry.lstat().st_mtime > _DAY
    except OSError:
        return False


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # another user's
        return True
    return True


# ------------------------------------------------------------------------- the change


def put_in_place(scratch: Path, path: Path) -> None:
    """Rename a folder to its place, instead of what was there.

    Where the system can exchange two names, there is no moment without one; elsewhere
    the old folder is set aside first, and `finish_replacements` finds it after a crash.
    """
    token = new_token()
    old = beside(path, "old", token)
    if os.path.lexists(path):
        if _exchange(scratch, path):
            scratch.rename(old)
        else:
            path.rename(old)
            scratch.rename(path)
    else:
        scratch.rename(path)
    _force_names_to_disk(path.parent)
    if old.exists():
        shutil.rmtree(old, ignore_errors=True)


def remove(path: Path) -> None:
    """Delete a folder: first its name, so that no half of it is ever taken for it."""
    gone = beside(path, "removed", new_token())
    path.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two names at once, or return False where the system cannot."""
    try:
        library = ctypes.CDLL(None, use_errno=True)
        names = os.fsencode(one), os.fsencode(other)
        if sys.platform == "darwin":
            return library.renamex_np(*names, _EXCHANGE) == 0
        here = -100  # AT_FDCWD: the names are absolute anyway
        return library.renameat2(here, names[0], here, names[1], _EXCHANGE) == 0
    except (AttributeError, OSError, TypeError):
        return False


def force_to_disk(folder: Path) -> None:
    """Wait until all files of a folder, and their names, are on the disk."""
    for entry in [*folder.rglob("*"), folder]:
        _force_names_to_disk(entry)


def _force_names_to_disk(path: Path) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:
        if path.is_dir():  # some systems open no folders
            return
        raise
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# ------------------------------------------------------------------------- the files


def files_in(folder: Path) -> Iterator[Path]:
    """Yield the files of a folder and of those in it; follow no link."""
    for entry in sorted(folder.iterdir()):
        mode = entry.lstat().st_mode
        if stat.S_ISDIR(mode):
            yield from files_in(entry)
        elif stat.S_ISREG(mode):
            yield entry
        else:
            raise ValueError(
                f"{entry.name} is not a file but a link, a pipe or a device"
            )


def read_file(file: Path) -> bytes:
    """Return the bytes of a plain file; a pipe, which would block, is refused."""
    if not stat.S_ISREG(file.lstat().st_mode):
        raise ValueError(f"{file.name} is not a plain file")
    with file.open("rb") as stream:
        return stream.read()


def checksum(file: Path) -> list[int]:
    """Return the size of a file and a checksum of its bytes."""
    size, found = 0, 0
    with file.open("rb") as stream:
        while part := stream.read(2**22):
            size += len(part)
            found = zlib.crc32(part, found)
    return [size, found]
