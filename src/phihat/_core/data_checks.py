"""Whether data mean on the device what they mean here, in the wording of `checks`."""

import inspect
import numbers
import weakref
from collections.abc import Iterator
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from phihat._core import checks as _checks

__all__ = ["SeenData", "check_data", "columns_as_arrays", "warn_of_rounding"]

_KEPT_BYTES = 2**20
"""Data up to this size are kept by who remembers them; larger ones may be freed."""


class SeenData:
    """The data of a fit, to look for the cause where it failed.

    It is forgotten in copies by pickle, and holds no large array in memory.
    """

    def __init__(self, data: Any = ()) -> None:
        """Remember these data."""
        leaves = jax.tree.leaves(data)
        if any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
            leaves = []
        is_small = sum(getattr(leaf, "nbytes", 8) for leaf in leaves) <= _KEPT_BYTES
        self._leaves = [
            weakref.ref(leaf) if hasattr(leaf, "nbytes") and not is_small else leaf
            for leaf in leaves
        ]

    def __reduce__(self) -> Any:
        """Pickle nothing."""
        return SeenData, ()

    def describe_nonfinite(self, number: int, path: str) -> str:
        """Say how many entries of a leaf are not finite, and which row is the first."""
        leaf = self._leaves[number] if number < len(self._leaves) else None
        if isinstance(leaf, weakref.ref):
            leaf = leaf()
        is_here = leaf is not None and not _checks.is_deleted(leaf)
        is_here = is_here and getattr(leaf, "is_fully_addressable", True)
        bad = ~np.isfinite(np.asarray(leaf)) if is_here else np.zeros(0, bool)
        count = int(bad.sum())
        entries = f"{count} infinite or NaN entries"
        if count <= 1:
            entries = "an infinite or NaN entry"
        if count == 0 or bad.ndim == 0:
            return f"{entries} at {path}"
        row = int(np.argwhere(bad)[0][0])
        return f"{entries} at {path}, {'the first ' * (count > 1)}in row {row}"


def columns_as_arrays(data: Any) -> Any:
    """Return data with arrays for columns of numbers, such as a Series of pandas.

    Others, such as a column with text or with missing entries, stay as they are, and
    are refused by `check_data`.
    """
    if not any(
        _is_column(leaf) for leaf in jax.tree.leaves(data, is_leaf=_is_iterator)
    ):
        return data
    return jax.tree.map(_as_array, data, is_leaf=_is_iterator)


def _is_column(leaf: Any) -> bool:
    return hasattr(leaf, "to_numpy") and not hasattr(leaf, "columns")


def _as_array(leaf: Any) -> Any:
    if not _is_column(leaf):
        return leaf
    array = np.asarray(leaf.to_numpy())
    return array if array.dtype.kind in "biuf" else leaf


def check_data(call: str, data: Any) -> None:
    """Check that `data` are arrays that mean on the device what they mean here."""
    if _is_list_of_batches(data):
        if all(isinstance(leaf, numbers.Real) for leaf in jax.tree.leaves(data)):
            _refuse_numbers(call, data)
        raise TypeError(
            f"{call}: `data` is a list of {len(data)} batches; concatenate them into "
            "one batch of arrays and say how to sample (`batch_size=`), or pass a "
            "tuple or a dict if these are the parts of one data set."
        )
    leaves = jax.tree.leaves(data, is_leaf=_is_iterator)
    if not all(_checks.is_numeric(leaf) for leaf in leaves):
        _refuse_leaf(call, data)
    if any(_may_differ(leaf) for leaf in leaves):
        for path, leaf in jax.tree_util.tree_flatten_with_path(data)[0]:
            name = f"`data{jax.tree_util.keystr(path)}`"
            _check_rows_exist(call, name, leaf)
            _check_integers(call, name, leaf)
            warn_of_rounding(call, name, leaf)


def _refuse_numbers(call: str, data: list[Any]) -> None:
    """Refuse a list of lists or pairs of numbers, which is no list of arrays."""
    length, kind = len(data[0]), type(data[0]).__name__
    cure = "`np.asarray(data)`"
    if len(data) == 2:
        cure = "`x, y = map(np.asarray, data)` and pass `(x, y)`"
    elif length == 2:
        cure = "`x, y = np.asarray(data).T` and pass `(x, y)`"
    raise TypeError(
        f"{call}: `data` is a list of {len(data)} {kind}s of {length} numbers; make "
        f"arrays of them, {cure}."
    )


def _refuse_leaf(call: str, data: Any) -> None:
    for path, leaf in jax.tree_util.tree_flatten_with_path(data, _is_iterator)[0]:
        if _checks.is_numeric(leaf):
            continue
        where = jax.tree_util.keystr(path)
        at = f" at {where}" if where else ""
        raise TypeError(
            f"{call}: `data` must be a pytree of arrays, got {_name(leaf)}{at}; "
            f"{_cure_for_data(leaf)}."
        )


def _name(leaf: Any) -> str:
    if _checks.is_deleted(leaf):
        return _checks.brief(leaf)
    return f"a {type(leaf).__name__}"


def _is_iterator(node: Any) -> bool:
    """Tell a stream, of which jax would warn, and which it will refuse."""
    return isinstance(node, Iterator)


def _is_list_of_batches(data: Any) -> bool:
    if type(data) is not list or len(data) < 2:
        return False
    structures = {jax.tree.structure(entry) for entry in data}
    return len(structures) == 1 and not jax.tree_util.treedef_is_leaf(*structures)


_LABELS = "`np.unique(labels, return_inverse=True)[1]`"


def _cure_for_data(leaf: Any) -> str:
    if _checks.is_deleted(leaf):
        return _checks.CURE_FOR_DELETED
    if _checks.is_of_pytorch(leaf):
        return _checks.CURE_FOR_TENSORS
    if isinstance(leaf, str):
        return f"make an array of class labels by {_LABELS}"
    if inspect.isgeneratorfunction(leaf):
        return f"call it, `{leaf.__name__}()`, to make a stream of batches for `train`"
    if callable(leaf):
        return "call it, and pass the arrays that it returns"
    if isinstance(leaf, np.matrix):
        return "convert it with `np.asarray`"
    if isinstance(leaf, int):
        return "it is too large for an integer of the device: write it as a float"
    if isinstance(leaf, np.ma.MaskedArray):
        return (
            "the device knows no masks: leave the masked rows out with "
            "`array[~array.mask]`, in x and y alike, or give them the weight 0"
        )
    if hasattr(leaf, "columns") or hasattr(leaf, "to_numpy"):
        return "convert it with `.to_numpy()`, x and y separately"
    if hasattr(leaf, "dtype"):
        if getattr(leaf.dtype, "kind", "?") in "USO":
            return (
                f"its dtype {leaf.dtype} is not numeric: convert numbers with "
                f"`.astype(float)`, and class labels with {_LABELS}"
            )
        return (
            f"its dtype {leaf.dtype} is not numeric: convert it with `.astype(float)`"
        )
    if hasattr(leaf, "__iter__"):
        return (
            "a stream of batches cannot enter one compiled program: collect it into "
            "arrays first, for example with `np.concatenate`"
        )
    return "convert it with `np.asarray`"


# ------------------------------------------------------- data that lose their meaning

_FEW = 2**20
"""Of a larger array only the first entries are looked at: no call may take long."""

_ROUNDED = 1e-4
"""The share of the span of the data that rounding may take without a word."""


def _may_differ(leaf: Any) -> bool:
    """Tell quickly which leaves need a look: nearly none do."""
    if isinstance(leaf, (np.ndarray, np.generic)):
        return leaf.dtype.itemsize == 8 or leaf.shape[:1] == (0,)
    return isinstance(leaf, int) or jnp.shape(leaf)[:1] == (0,)


def _is_wide() -> bool:
    """Tell whether 64 bits are switched on, in this thread."""
    return bool(jnp.result_type(float) == jnp.float64)


def _check_rows_exist(call: str, name: str, leaf: Any) -> None:
    if jnp.shape(leaf)[:1] == (0,):
        raise ValueError(
            f"{call}: {name} has no rows, its shape is {list(jnp.shape(leaf))}: there "
            "is nothing to fit; look at the filter that made it."
        )


def _check_integers(call: str, name: str, leaf: Any) -> None:
    """Refuse integers that 32 bits would wrap in silence."""
    if _is_wide() or not isinstance(leaf, (np.ndarray, np.generic, int)):
        return
    array = np.asarray(leaf)
    if array.dtype.kind not in "iu" or array.dtype.itemsize < 8 or not array.size:
        return
    low, high = int(array.min()), int(array.max())
    limit = np.iinfo(np.int32 if array.dtype.kind == "i" else np.uint32)
    if low < limit.min or high > limit.max:
        raise ValueError(
            f"{call}: {name} holds {array.dtype} from {low} to {high}, which 32 bits "
            "cannot hold; convert it with `.astype(float)`, in larger units if it must "
            'be exact, or set `jax.config.update("jax_enable_x64", True)`.'
        )


def warn_of_rounding(
    call: str,
    name: str,
    leaf: Any,
    cure: str = 'set `jax.config.update("jax_enable_x64", True)`',
) -> None:
    """Say it where float32 cannot tell the numbers apart that float64 can."""
    is_wide = isinstance(leaf, np.ndarray) and leaf.dtype == np.float64
    if not is_wide or _is_wide() or leaf.ndim == 0:
        return
    rows = leaf.reshape(leaf.shape[0], -1)[: max(_FEW // max(leaf[0].size, 1), 1)]
    low, high = rows.min(0, initial=np.inf), rows.max(0, initial=-np.inf)
    span, largest = high - low, np.maximum(np.abs(low), np.abs(high))
    rounding = largest * 2.0**-24  # at most half the distance of its neighbours
    is_lost = (rounding > _ROUNDED * span) & (span > 0) & np.isfinite(span)
    if is_lost.any():
        column = int(np.flatnonzero(is_lost)[0])
        rounded = rows[:, column].astype(np.float32) != rows[:, column]
        if not rounded.any():
            return
        _checks.warn(
            f"{call}: {name} lies between {low[column]:.10g} and {high[column]:.10g}, "
            f"where float32 resolves steps of {2 * rounding[column]:.2g} only, and is "
            f"rounded to them; subtract an offset first, or {cure}.",
        )
