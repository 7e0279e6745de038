"""From what people hold their numbers in to NumPy arrays of float64, or a refusal."""

import decimal
import numbers
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from phihat._core import checks as _checks

__all__ = ["as_array", "as_tree", "is_one_array", "refuse_traces"]


def as_array(
    call: str,
    name: str,
    value: Any,
    *,
    allows_complex: bool = False,
    copies: bool = True,
) -> np.ndarray:
    """Return `value` as an array of float64, or of complex128 where that is allowed.

    It is a copy, so that what the caller does to his array later changes no result;
    or, where it is too large for that and `copies` is False, may be the array itself.
    """
    refuse_traces(call, name, value)
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(
            f"{call}: `{name}` is a masked array; pass `{name}.filled(np.nan)` and "
            'nan_policy="omit", so that its masked entries are left out.'
        )
    array = _plain_array(call, name, value)
    if array.dtype.kind == "c":
        if allows_complex:
            return array.astype(np.complex128)
        raise TypeError(
            f"{call}: `{name}` is complex, but only `y` may be; pass its real part, or "
            "its real and imaginary parts as two arrays."
        )
    if array.dtype.kind in "biuf":
        return array.astype(np.float64, copy=copies)
    raise TypeError(
        f"{call}: `{name}` must hold numbers, got {_checks.brief(value)}; "
        f"{_cure(value, array, name)}."
    )


def as_tree(call: str, name: str, value: Any, *, allows_complex: bool = False) -> Any:
    """Return a pytree of arrays: a dict or a tuple of arrays keeps its structure.

    A DataFrame becomes a dict of its columns; a list is one array.
    """
    if hasattr(value, "columns") and hasattr(value, "to_numpy"):
        value = {str(column): value[column] for column in value.columns}
    if isinstance(value, Mapping):
        return {
            key: as_tree(call, f"{name}[{key!r}]", entry, allows_complex=allows_complex)
            for key, entry in value.items()
        }
    if isinstance(value, tuple) and not is_one_array(value):
        return tuple(
            as_tree(call, f"{name}[{k}]", entry, allows_complex=allows_complex)
            for k, entry in enumerate(value)
        )
    return as_array(call, name, value, allows_complex=allows_complex)


def is_one_array(value: Any) -> bool:
    """Tell a list or a tuple of numbers, which is one array, from one of arrays."""
    return isinstance(value, (list, tuple)) and all(
        isinstance(entry, numbers.Number)
        or (not isinstance(entry, (dict, list, tuple)) and np.ndim(entry) == 0)
        for entry in value
    )


def refuse_traces(call: str, name: str, value: Any) -> None:
    """Refuse values that a transformation of jax is tracing."""
    try:
        leaves = jax.tree.leaves(value)
    except ValueError as error:  # keys that have no order
        raise ValueError(
            f"{call}: the names in `{name}` are of different kinds, such as 0 and "
            "'rate'; make all of them text."
        ) from error
    if any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
        raise TypeError(
            f"{call}: `{name}` is being traced; {call} returns NumPy and works outside "
            "of jit, vmap and grad: inside them call `phihat.fit` with "
            "`levenberg_marquardt()` and `losses.least_squares(model)`."
        )


# ------------------------------------------------------------------------- private


def _plain_array(call: str, name: str, value: Any) -> np.ndarray:
    dtype = str(getattr(value, "dtype", "")).lower()
    is_nullable = hasattr(value, "to_numpy") and dtype.startswith(
        ("int", "uint", "float", "bool")
    )
    if is_nullable and type(value).__module__.startswith("pandas"):
        return value.to_numpy(dtype=np.float64, na_value=np.nan)
    try:
        array = np.asarray(value)
    except ValueError:
        raise ValueError(
            f"{call}: `{name}` has rows of different lengths; give each of them its "
            "own entry of a dict, or pad them with NaN and pass "
            'nan_policy="omit".'
        ) from None
    if array.dtype.kind == "V" and jnp.issubdtype(array.dtype, jnp.floating):
        return array.astype(np.float32)
    if array.dtype.kind == "O" and array.ndim:
        return _from_objects(array)
    return array


def _from_objects(array: np.ndarray) -> np.ndarray:
    """Return Python numbers of any kind as floats; None and NA among them as NaN."""
    is_number = np.array(
        [isinstance(entry, (numbers.Real, decimal.Decimal)) for entry in array.flat],
        bool,
    )
    is_missing = np.array(
        [entry is None or type(entry).__name__ == "NAType" for entry in array.flat],
        bool,
    )
    if not is_number.any() or not (is_number | is_missing).all():
        return array
    found = np.full(array.size, np.nan)
    found[is_number] = [float(entry) for entry in array.flat[is_number]]
    return found.reshape(array.shape)


def _cure(value: Any, array: np.ndarray, name: str) -> str:
    if isinstance(value, Iterator):
        return f"an iterator can be read only once: pass `list({name})`"
    if value is None:
        what = "number the rows by `np.arange(len(y))`" if name == "x" else "pass them"
        return f"without them there is nothing to fit: {what}"
    if array.dtype.kind in "US":
        return "it is text: convert it, for example with `pandas.to_numeric`"
    if array.dtype.kind in "Mm":
        return (
            "turn times into numbers first, for example "
            f"`({name} - {name}[0]) / np.timedelta64(1, 's')`"
        )
    if array.dtype.kind == "O":
        return (
            "it holds objects, such as text: convert it with `.astype(float)` or "
            "`pandas.to_numeric`"
        )
    return "convert it with `np.asarray(..., float)`"
