"""How results are shown: short texts, and HTML tables for notebooks."""

import html
import re
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.core
import numpy as np

__all__ = ["from_report", "short", "short_fields", "table"]


def table(
    title: str,
    rows: Iterable[Sequence[object]],
    head: Sequence[str] = (),
    notes: Iterable[str] = (),
) -> str:
    """Write a title, a table whose first column names the rows, and notes below it."""
    say = lambda cell: html.escape(str(cell))  # noqa: E731
    lines = []
    if head:
        cells = "".join(f"<th>{say(name)}</th>" for name in head)
        lines.append(f"<thead><tr>{cells}</tr></thead>")
    for name, *values in rows:
        cells = "".join(f"<td>{say(value)}</td>" for value in values)
        lines.append(f"<tr><th>{say(name)}</th>{cells}</tr>")
    listed = "".join(f"<li>{say(note)}</li>" for note in notes)
    below = f"<ul>{listed}</ul>" if listed else ""
    return f"<div><b>{say(title)}</b><table>{''.join(lines)}</table>{below}</div>"


def from_report(report: str) -> str:
    """Write a report of a headline and of lines `  name  value` as a table.

    A line that is indented further continues the one before it. A name of several words
    ends with two blanks, and `name = value` is one row as well.
    """
    head, *lines = re.sub(r"\n {4,}", " ", report).split("\n")
    rows = [_row(line.strip()) for line in lines]
    return table(re.sub(r"  +", ": ", head), rows)


def _row(line: str) -> list[str]:
    for mark in (r"^(\S+) = ", r"^(.+?)  +", r"^(\S+) "):
        if found := re.match(mark, line):
            return [found[1], re.sub(r"  +", ", ", line[found.end() :])]
    return [line, ""]


def short(value: Any) -> str:
    """Write a number with six digits, and an array by its dtype and shape."""
    if value is None or isinstance(value, (str, bool)):
        return str(value)
    if not isinstance(value, jax.core.Tracer) and np.ndim(value) == 0:
        is_float = np.issubdtype(np.asarray(value).dtype, np.floating)
        return f"{float(value):.6g}" if is_float else str(value)
    return f"{value.dtype}[{','.join(map(str, np.shape(value)))}]"


def short_fields(record: Any) -> str:
    """Write a NamedTuple, with its numbers and arrays short."""
    fields = ", ".join(
        f"{name}={short(value) if hasattr(value, 'dtype') else repr(value)}"
        for name, value in zip(record._fields, record, strict=True)
    )
    return f"{type(record).__name__}({fields})"
