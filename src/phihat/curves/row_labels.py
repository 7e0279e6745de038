"""Rows that bear labels: those of pandas are paired by label, or a word is said.

Example:
  >>> import pandas as pd
  >>> from phihat.curves import row_labels
  >>> centre = pd.Series({"b": 2.0, "a": 1.0})
  >>> row_labels.by_label("fit_curves", "start['centre']", centre, ["a", "b"])
  array([1., 2.])
"""

from typing import Any

from phihat._core import checks as _checks

__all__ = ["by_label", "start_by_label", "warn_of_other_rows"]


def by_label(call: str, name: str, rows: Any, labels: list[Any] | None) -> Any:
    """Return a Series or a DataFrame in the order of the curves' labels, as arrays.

    Rows without labels of their own, as those of polars or numbered from 0, are taken
    in their order, and so are all rows where the curves have no other labels.

    Raises:
      ValueError: its labels are not those of the curves.
    """
    own = list(rows.index) if _has_labels(rows) else list(range(len(rows)))
    if labels is not None and own != labels:
        if set(own) == set(labels) and len(own) == len(labels):
            rows = rows.loc[labels] if _has_labels(rows) else rows
        elif not (_is_count(own) or _is_count(labels)):
            odd = next(iter(set(own).symmetric_difference(labels)), own[0])
            raise ValueError(
                f"{call}: `{name}` must have a row for each curve, with the labels of "
                f"`y`, but {odd!r} is in one of the two alone."
            )
    if hasattr(rows, "columns"):
        return {column: rows[column].to_numpy() for column in rows.columns}
    return rows.to_numpy()


def start_by_label(call: str, start: Any, labels: list[Any] | None) -> Any:
    """Return a start with arrays in the place of columns and tables."""
    if hasattr(start, "columns") and hasattr(start, "to_numpy"):
        return by_label(call, "start", start, labels)
    if not isinstance(start, dict):
        return start
    return {
        name: by_label(call, f"start[{name!r}]", entry, labels)
        if _has_labels(entry)
        else entry
        for name, entry in start.items()
    }


def warn_of_other_rows(call: str, **columns: Any) -> None:
    """Warn where two columns of pandas with different row labels are paired."""
    rows = {name: each for name, each in columns.items() if _has_labels(each)}
    if len(rows) < 2:
        return
    (first, one), *others = rows.items()
    for name, other in others:
        if len(one) == len(other) and not one.index.equals(other.index):
            _checks.warn(
                f"{call}: the rows of `{first}` and `{name}` have different labels, "
                "and are paired by their order; sort both alike, or pass arrays "
                "(`.to_numpy()`)."
            )
            return


def _has_labels(value: Any) -> bool:
    return hasattr(value, "to_numpy") and hasattr(value, "index")


def _is_count(labels: list[Any]) -> bool:
    return labels == list(range(len(labels)))
