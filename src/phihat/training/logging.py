"""What a long fit tells while it runs: a bar on the terminal, lines in a file."""

import contextlib
import json
import math
import os
import sys
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from phihat._core import checks as _checks
from phihat._core import folders as _folders

__all__ = ["Log", "Progress", "as_lines", "speed"]


class Progress:
    """A bar with the steps, their speed, the time left and the loss."""

    def __init__(self, total: int | None, done: int) -> None:
        """Open the bar, on a terminal or in a notebook; elsewhere there is none."""
        is_notebook = _is_notebook()
        self._bar: Any = None
        if not is_notebook and not _is_terminal(sys.stderr):
            return
        self._bar = _make_bar(is_notebook)(
            total=total,
            initial=done,
            dynamic_ncols=True,
            bar_format=(
                "{l_bar}{bar}| {n_fmt}/{total_fmt} steps [{elapsed}<{remaining}"
                "{postfix}]"
            ),
        )
        self._began: float | None = None
        self._first = done

    def update(self, step: int, loss: float, rows: Mapping[str, Any]) -> None:
        """Show where the fit stands."""
        if self._bar is None:
            return
        now = time.monotonic()
        told = []
        if self._began is None:  # what came before was compiling
            self._began, self._first = now, step
            self._bar.unpause()
        elif now > self._began:
            told.append(speed((step - self._first) / (now - self._began)))
        told.append(f"loss={loss:.4g}")
        if len(rows.get("learning_rate", ())):
            told.append(f"rate={float(rows['learning_rate'][-1]):.3g}")
        self._bar.set_postfix_str(", ".join(told), refresh=False)
        self._bar.update(step - self._bar.n)

    def close(self) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            self._bar.close()


def speed(steps_per_second: float) -> str:
    """Return a speed in a unit that can be read."""
    if steps_per_second < 1.0:
        return f"{1.0 / max(steps_per_second, 1e-9):.3g} s/step"
    for unit, letter in ((1e6, "M"), (1e3, "k")):
        if steps_per_second >= unit:
            return f"{steps_per_second / unit:.3g}{letter} steps/s"
    return f"{steps_per_second:.3g} steps/s"


def _is_terminal(stream: Any) -> bool:
    with contextlib.suppress(Exception):  # a stand-in for the terminal, or none
        return bool(stream.isatty())
    return False


def _is_notebook() -> bool:
    """Tell whether a kernel of Jupyter runs this."""
    shell = sys.modules.get("IPython")
    with contextlib.suppress(Exception):
        return "IPKernelApp" in shell.get_ipython().config  # type: ignore[union-attr]
    return False


def _make_bar(is_notebook: bool) -> Any:
    """Return tqdm's bar for a notebook, if it can be drawn, or the one of text."""
    from tqdm.std import tqdm

    if not is_notebook:
        return tqdm
    with contextlib.suppress(Exception), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import ipywidgets  # noqa: F401  # type: ignore[import-not-found]
        from tqdm.notebook import tqdm_notebook

        return tqdm_notebook
    return tqdm


class Log:
    """A file of JSON lines: one per row of the history, and one per event.

    Args:
      path: appended to; where a fit goes on, rows from its step on are dropped first.
      step: the step from which this run writes, or None to drop nothing.
    """

    def __init__(self, path: str | os.PathLike[str], step: int | None) -> None:
        """Open the file, which must be writable."""
        self._path = _folders.as_path("train", "log_to", path)
        self._file: Any = None
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            if step is not None and self._path.exists():
                _drop_rows(self._path, step)
            self._open()
        except OSError as error:
            raise type(error)(
                f"train: the log {self._path} cannot be written ({error.strerror}); "
                "choose another `log_to`."
            ) from error

    def _open(self) -> None:
        self._file = self._path.open("ab", buffering=0)

    def write(self, text: str) -> None:
        """Write lines; a disk that fails ends the log and not the fit."""
        if self._file is None or not text:
            return
        try:
            self._reopen_if_gone()
            rest = memoryview(f"{text}\n".encode())
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            self.close()
            _checks.warn(
                f"train: the log {self._path} can no longer be written "
                f"({error.strerror or error}); the fit continues without it."
            )

    def _reopen_if_gone(self) -> None:
        """Begin the file anew where someone removed it, or put another in its place."""
        try:
            here, mine = os.stat(self._path), os.fstat(self._file.fileno())
            if (here.st_dev, here.st_ino) == (mine.st_dev, mine.st_ino):
                return
        except FileNotFoundError:
            pass
        self._file.close()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._open()

    def note(self, event: str, **details: Any) -> None:
        """Write one event."""
        self.write(json.dumps({"event": event, **details}))

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
            self._file = None


def as_lines(rows: Mapping[str, Any]) -> str:
    """Return rows of a history as JSON lines; what is not finite is null."""
    scalars = {name: np.asarray(rows[name]) for name in rows if _is_column(rows[name])}
    count = len(scalars["step"]) if "step" in scalars else 0
    return "\n".join(
        json.dumps({name: _plain(column[row]) for name, column in scalars.items()})
        for row in range(count)
    )


def _is_column(value: Any) -> bool:
    return not isinstance(value, (dict, tuple)) and np.ndim(value) == 1


def _plain(value: Any) -> Any:
    number = value.item()
    if isinstance(number, complex):
        return repr(number)
    return None if isinstance(number, float) and not math.isfinite(number) else number


def _drop_rows(path: Path, step: int) -> None:
    """Drop the rows from a step on; what other programs wrote stays as it is.

    A last line that a crash cut short goes too.
    """
    lines = path.read_bytes().split(b"\n")
    cut_short = lines.pop()
    kept = [line for line in lines if not _is_row_from(line, step)]
    if cut_short and _is_whole(cut_short) and not _is_row_from(cut_short, step):
        kept.append(cut_short)
    scratch = path.with_name(f".{path.name}.{_folders.new_token()}.writing")
    try:
        scratch.write_bytes(b"".join(line + b"\n" for line in kept))
        scratch.replace(path)
    finally:
        with contextlib.suppress(OSError):
            scratch.unlink()


def _is_whole(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _is_row_from(line: bytes, step: int) -> bool:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return False
    if not isinstance(entry, dict) or "event" in entry:
        return False
    found = entry.get("step")
    return isinstance(found, (int, float)) and found >= step
