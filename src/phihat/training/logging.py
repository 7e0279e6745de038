"""What a long fit tells while it runs: a bar on the terminal, lines in a file.

Example:
  >>> from phihat.training import logging
  >>> print(logging.as_lines({"step": [0, 1], "loss": [2.0, float("nan")]}))
  {"step": 0, "loss": 2.0}
  {"step": 1, "loss": null}
"""

import json
import math
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["Log", "Progress", "as_lines"]


class Progress:
    """A bar with the steps, their speed, the time left and the loss.

    Args:
      total: the budget, or None where nobody knows it.
      done: steps made before.
    """

    def __init__(self, total: int | None, done: int) -> None:
        """Open the bar; where the output is no terminal there is none."""
        from tqdm.auto import tqdm

        self._bar = tqdm(
            total=total, initial=done, unit=" steps", disable=None, dynamic_ncols=True
        )

    def update(self, step: int, loss: float, rows: Mapping[str, Any]) -> None:
        """Show where the fit stands."""
        if self._bar.disable:
            return
        told = {"loss": f"{loss:.4g}"}
        if len(rows.get("learning_rate", ())):
            told["rate"] = f"{float(rows['learning_rate'][-1]):.3g}"
        self._bar.set_postfix(told, refresh=False)
        self._bar.update(step - self._bar.n)

    def close(self) -> None:
        """Leave the bar as it is."""
        self._bar.close()


class Log:
    """A file of JSON lines: one per row of the history, and one per event.

    Args:
      path: appended to; where a fit goes on, rows from its step on are dropped first.
      step: the step from which this run writes, or None to drop nothing.
    """

    def __init__(self, path: str | os.PathLike[str], step: int | None) -> None:
        """Open the file, which must be writable."""
        self._path = Path(path)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        if step is not None and self._path.exists():
            _drop_rows(self._path, step)
        self._file: Any = self._path.open("a", encoding="utf-8")

    def write(self, text: str) -> None:
        """Write lines; a disk that fails ends the log and not the fit."""
        if self._file is None or not text:
            return
        try:
            self._file.write(text + "\n")
            self._file.flush()
        except OSError as error:
            self._file = None
            warnings.warn(
                f"train: the log {self._path} cannot be written any more ({error}); "
                "the fit goes on without it.",
                stacklevel=2,
            )

    def note(self, event: str, **details: Any) -> None:
        """Write one event."""
        self.write(json.dumps({"event": event, **details}))

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


def as_lines(rows: Mapping[str, Any]) -> str:
    """Return rows of a history as JSON lines: numbers alone, what is not finite null.

    Example:
      >>> as_lines({"step": np.arange(1), "params": {"a": np.ones((1, 9))}})
      '{"step": 0}'
    """
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
    return None if isinstance(number, float) and not math.isfinite(number) else number


def _drop_rows(path: Path, step: int) -> None:
    """Keep the lines before a step; a line cut short by a crash goes too."""
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if entry.get("step", -1) < step:
            kept.append(line + "\n")
    temporary = path.with_name(f".{path.name}.writing")
    temporary.write_text("".join(kept), encoding="utf-8")
    temporary.replace(path)
