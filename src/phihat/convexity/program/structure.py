"""Primitives that only move elements about: reshape, slice, gather, scatter, stack, ...

They share one rule: whatever is known of the elements, they hand it on. `move` applies
such a primitive to NumPy arrays of anything (numbers, indices, classes, objects);
broadcasts, slices and transposes are views, so that a uniform array costs nothing.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from phihat.convexity.program.form import Equation

__all__ = ["INDEXED", "STRUCTURAL", "Unknown", "group_of_updates", "move"]


class Unknown(Exception):
    """Where the elements go cannot be told; the sentence says why."""


INDEXED: dict[str, Callable[[int], range]] = {
    "gather": lambda _: range(1, 2),
    "scatter": lambda _: range(1, 2),
    "dynamic_slice": lambda num_inputs: range(1, num_inputs),
    "dynamic_update_slice": lambda num_inputs: range(2, num_inputs),
}
"""The inputs that say where elements go, of those primitives that have such."""


def move(equation: Equation, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Apply a structural primitive to arrays of anything.

    Args:
      equation: its primitive is a key of `STRUCTURAL`.
      arrays: one array for each input; those named by `INDEXED` hold integers.

    Returns:
      One array for each output; views wherever possible.

    Raises:
      Unknown: an index lies out of range, two updates meet in one place, or the old
        elements are not replaced but changed.
    """
    result = STRUCTURAL[equation.primitive](equation, *arrays)
    return list(result) if isinstance(result, (list, tuple)) else [result]


def group_of_updates(
    equation: Equation, shape: tuple[int, ...], indices: np.ndarray, updates: Any
) -> np.ndarray:
    """Return where `scatter-add` adds each update: flat positions, -1 if dropped.

    Args:
      equation: a scatter-like primitive.
      shape: the shape of what is scattered into.
      indices: the indices.
      updates: the shape of the updates.
    """
    # A scatter is linear in the updates, and its transpose reads, for each update, the
    # place where it goes: so hand the transpose the numbers of the places.
    places = np.arange(1.0, 1.0 + np.prod(shape, dtype=int)).reshape(shape)
    dimension_numbers = equation.params["dimension_numbers"]
    mode = equation.params["mode"]
    with jax.enable_x64(True):

        def scattered(values: Any) -> Any:
            return jax.lax.scatter_add(
                jax.numpy.zeros(shape),
                jax.numpy.asarray(indices),
                values,
                dimension_numbers,
                mode=mode,
            )

        zeros = jax.numpy.zeros(updates)
        (read,) = jax.linear_transpose(scattered, zeros)(jax.numpy.asarray(places))
    return np.asarray(read).astype(np.int64) - 1


def _broadcast_in_dim(equation: Equation, array: np.ndarray, *_: Any) -> np.ndarray:
    shape = equation.params["shape"]
    spread = [1] * len(shape)
    for axis, place in enumerate(equation.params["broadcast_dimensions"]):
        spread[place] = array.shape[axis]
    return np.broadcast_to(array.reshape(spread), shape)


def _reshape(equation: Equation, array: np.ndarray, *_: Any) -> np.ndarray:
    return array.reshape(equation.params["new_sizes"])


def _transpose(equation: Equation, array: np.ndarray) -> np.ndarray:
    return array.transpose(equation.params["permutation"])


def _squeeze(equation: Equation, array: np.ndarray) -> np.ndarray:
    return np.squeeze(array, axis=tuple(equation.params["dimensions"]))


def _expand_dims(equation: Equation, array: np.ndarray) -> np.ndarray:
    return np.expand_dims(array, tuple(equation.params["dimensions"]))


def _rev(equation: Equation, array: np.ndarray) -> np.ndarray:
    return np.flip(array, equation.params["dimensions"])


def _slice(equation: Equation, array: np.ndarray) -> np.ndarray:
    starts = equation.params["start_indices"]
    stops = equation.params["limit_indices"]
    strides = equation.params["strides"] or (1,) * len(starts)
    return array[tuple(map(slice, starts, stops, strides))]


def _row(equation: Equation, array: np.ndarray) -> np.ndarray:
    return array[equation.params["row"], ...]  # an array, also of one element


def _concatenate(equation: Equation, *arrays: np.ndarray) -> np.ndarray:
    return np.concatenate(arrays, equation.params["dimension"])


def _stack(equation: Equation, *arrays: np.ndarray) -> np.ndarray:
    return np.stack(arrays, equation.params["axis"])


def _unstack(equation: Equation, array: np.ndarray) -> list[np.ndarray]:
    rows = np.moveaxis(array, equation.params["axis"], 0)
    return [rows[k, ...] for k in range(len(rows))]


def _tile(equation: Equation, array: np.ndarray) -> np.ndarray:
    return np.tile(array, equation.params["reps"])


def _split(equation: Equation, array: np.ndarray) -> list[np.ndarray]:
    ends = np.cumsum(equation.params["sizes"])[:-1]
    return np.split(array, ends, equation.params["axis"])


def _pad(equation: Equation, array: np.ndarray, value: np.ndarray) -> np.ndarray:
    config = equation.params["padding_config"]
    shape = tuple(
        low + high + size + max(size - 1, 0) * inner
        for size, (low, high, inner) in zip(array.shape, config, strict=True)
    )
    padded = np.empty(shape, array.dtype)
    padded[...] = value
    inside = []
    source = []
    for size, (low, _, inner), total in zip(array.shape, config, shape, strict=True):
        places = low + np.arange(size) * (inner + 1)
        kept = (places >= 0) & (places < total)
        inside.append(places[kept])
        source.append(np.arange(size)[kept])
    padded[np.ix_(*inside)] = array[np.ix_(*source)]
    return padded


def _starts(array: np.ndarray, sizes: Sequence[int], indices: Any) -> list[slice]:
    """Clamp as XLA does, so that the window lies within the array."""
    starts = [
        int(np.clip(int(index), 0, total - size))
        for index, size, total in zip(indices, sizes, array.shape, strict=True)
    ]
    return [slice(s, s + size) for s, size in zip(starts, sizes, strict=True)]


def _dynamic_slice(
    equation: Equation, array: np.ndarray, *indices: np.ndarray
) -> np.ndarray:
    return array[tuple(_starts(array, equation.params["slice_sizes"], indices))]


def _dynamic_update_slice(
    equation: Equation, array: np.ndarray, update: np.ndarray, *indices: np.ndarray
) -> np.ndarray:
    del equation
    result = np.array(array)
    result[tuple(_starts(array, update.shape, indices))] = update
    return result


def _gather(
    equation: Equation, array: np.ndarray, indices: np.ndarray, *_: Any
) -> np.ndarray:
    params = equation.params
    places = np.arange(array.size).reshape(array.shape)
    filled = "FILL" in str(params["mode"])
    with jax.enable_x64(True):
        read = np.asarray(
            jax.lax.gather(
                jax.numpy.asarray(places),
                jax.numpy.asarray(indices),
                params["dimension_numbers"],
                params["slice_sizes"],
                mode="fill" if filled else "clip",
                fill_value=-1 if filled else None,
            )
        )
    if (read < 0).any():
        fill = str(params["fill_value"]).replace("None", "NaN").replace("nan", "NaN")
        raise Unknown(f"an index lies out of range, where gather gives {fill}")
    return array.reshape(-1)[read.reshape(-1)].reshape(read.shape)


def _scatter(
    equation: Equation, array: np.ndarray, indices: np.ndarray, updates: np.ndarray
) -> np.ndarray:
    update = equation.params["update_jaxpr"]
    if update is not None and (update.eqns or update.outvars[0] != update.invars[-1]):
        raise Unknown("a scatter that applies a function to what it meets")
    targets = group_of_updates(equation, array.shape, indices, updates.shape)
    kept = targets.reshape(-1) >= 0
    places = targets.reshape(-1)[kept]
    if len(np.unique(places)) < len(places):
        raise Unknown("two updates of a scatter meet in one place")
    result = np.array(array).reshape(-1)
    result[places] = updates.reshape(-1)[kept]
    return result.reshape(array.shape)


STRUCTURAL: dict[str, Callable[..., Any]] = {
    "broadcast_in_dim": _broadcast_in_dim,
    "concatenate": _concatenate,
    "dynamic_slice": _dynamic_slice,
    "dynamic_update_slice": _dynamic_update_slice,
    "expand_dims": _expand_dims,
    "gather": _gather,
    "pad": _pad,
    "reshape": _reshape,
    "rev": _rev,
    "row": _row,
    "scatter": _scatter,
    "slice": _slice,
    "split": _split,
    "squeeze": _squeeze,
    "stack": _stack,
    "tile": _tile,
    "transpose": _transpose,
    "unstack": _unstack,
}
"""The structural primitives, by name."""
