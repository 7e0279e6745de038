"""What a batch of a stream must be: arrays of numbers, like the first batch."""

from typing import Any

import jax
import numpy as np

from phihat._core import checks as _checks
from phihat._core import tree as _tree

__all__ = ["BadBatch", "BatchChecks"]


class BadBatch(Exception):
    """Wraps the exception that says what is wrong with a batch."""


class BatchChecks:
    """Compares every batch with the first.

    Attributes:
      structure: that of every batch, once there was one.
    """

    def __init__(self, call: str) -> None:
        """No batch was seen, so far."""
        self.structure: Any = None
        self._call = call
        self._spec: list[tuple[str, tuple[int, ...], Any]] | None = None
        self._short: int | None = None

    def check(self, batch: Any, number: int) -> list[Any]:
        """Return the leaves of a batch as arrays, if they are like those before."""
        try:
            return self._compare(batch)
        except _Wrong as wrong:
            text = f"{self._call}: batch {number} of `data` {wrong.args[0]}"
            raise BadBatch(wrong.kind(text)) from wrong.__cause__

    def _compare(self, batch: Any) -> list[Any]:
        try:
            found, structure = jax.tree_util.tree_flatten_with_path(batch)
        except (TypeError, ValueError) as error:
            raise _Wrong(
                TypeError, f"is not a pytree of arrays: {str(error).rstrip('.')}."
            ) from error
        if not found:
            raise _Wrong(ValueError, f"has no arrays in it: {_checks.brief(batch)}.")
        leaves, spec = [], []
        for path, leaf in found:
            name = jax.tree_util.keystr(path)
            leaf = _as_array(leaf, f" at {name}" if name else "")
            leaves.append(leaf)
            spec.append((name, leaf.shape, leaf.dtype))
        if self._spec is None:
            _check_first(spec)
            self.structure, self._spec = structure, spec
            return leaves
        if structure != self.structure:
            raise _Wrong(
                TypeError,
                f"has the structure {_checks.in_words(structure)}, but the first has "
                f"{_checks.in_words(self.structure)}.",
            )
        rows = {}
        for (name, shape, dtype), (_, first, wanted) in zip(
            spec, self._spec, strict=True
        ):
            _compare_leaf(name, shape, dtype, first, wanted)
            if shape:
                rows.setdefault(shape[0] - first[0], (name, shape[0]))
        if len(rows) > 1:
            (one, many), (other, few) = list(rows.values())[:2]
            raise _Wrong(ValueError, f"has {many} rows at {one} and {few} at {other}.")
        for missing, (_, count) in rows.items():
            if missing and self._short not in (None, count):
                raise _Wrong(
                    ValueError,
                    f"has {count} rows, but a stream may have one shorter size only, "
                    f"that of the last batch of a pass, and {self._short} was it; pad "
                    "the others, or drop them.",
                )
            self._short = count if missing else self._short
        return leaves


class _Wrong(Exception):
    """What is wrong with a batch, and the class of the exception to raise."""

    def __init__(self, kind: type[Exception], text: str) -> None:
        super().__init__(text)
        self.kind = kind


def _check_first(spec: list[tuple[str, tuple[int, ...], Any]]) -> None:
    for name, shape, _ in spec:
        if shape and shape[0] == 0:
            at = f" at {name}" if name else ""
            raise _Wrong(ValueError, f"has no rows{at}: its shape is {list(shape)}.")


def _compare_leaf(
    name: str, shape: tuple[int, ...], dtype: Any, first: tuple[int, ...], wanted: Any
) -> None:
    """Refuse what differs from the first batch by more than fewer rows."""
    at = f" at {name}" if name else ""
    if dtype != wanted:
        raise _Wrong(
            TypeError,
            f"has dtype {dtype}{at}, but the first has {wanted}; convert it with "
            f"`.astype({str(wanted)!r})`.",
        )
    is_shorter = bool(shape and first) and shape[1:] == first[1:]
    if shape != first and not (is_shorter and 0 < shape[0] < first[0]):
        raise _Wrong(
            ValueError,
            f"has shape {list(shape)}{at}, but the first has {list(first)}; only a "
            "last batch may have fewer rows.",
        )


def _as_array(leaf: Any, at: str) -> Any:
    """Return a leaf as an array of numbers, without a copy where that can be."""
    if isinstance(leaf, jax.Array):
        if leaf.is_deleted():
            raise _Wrong(ValueError, f"holds an array{at} that has been deleted.")
        return leaf
    if isinstance(leaf, np.ma.MaskedArray):
        raise _Wrong(
            TypeError,
            f"holds a masked array{at}; fill it, for example with `.filled(0.0)`.",
        )
    if isinstance(leaf, (str, bytes)) or hasattr(leaf, "columns"):
        raise _Wrong(
            TypeError, f"holds {_checks.brief(leaf)}{at}, which is not an array."
        )
    try:
        array = np.asarray(leaf)
    except Exception as error:
        raise _Wrong(
            TypeError, f"holds {_checks.brief(leaf)}{at}, which is not an array."
        ) from error
    if not _tree.is_number(array) or array.dtype.names is not None:
        raise _Wrong(
            TypeError,
            f"has dtype {array.dtype}{at}, which is not numeric; convert it with "
            "`.astype(float)`.",
        )
    _check_integers(array, at)
    return array


def _check_integers(array: np.ndarray, at: str) -> None:
    """Refuse integers that would wrap on the device, where they have 32 bits."""
    if array.dtype not in (np.int64, np.uint64) or array.size == 0:
        return
    narrow = jax.dtypes.canonicalize_dtype(array.dtype)
    if narrow == array.dtype:
        return
    low, high = int(array.min()), int(array.max())
    info = np.iinfo(narrow)
    if low < info.min or high > info.max:
        raise _Wrong(
            ValueError,
            f"has integers from {low} to {high}{at}, which do not fit into {narrow}; "
            "scale them, or convert them with `.astype(float)`.",
        )
