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

__all__ = ["INDEXED", "STRUCTURAL", "VIEWS", "Unknown", "group_of_updates", "move"]


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
    """Apply a structural primitive to arrays of anything, integers where `INDEXED`.

    `Unknown`: an index lies out of range, two updates meet in one place, or the old
    elements are not replaced but changed.
    """
    result = STRUCTURAL[equation.primitive](equation.params, *arrays)
    return list(result) if isinstance(result, (list, tuple)) else [result]


def group_of_updates(
    params: Any, shape: tuple[int, ...], indices: Any, updates: Any
) -> np.ndarray:
    """Return where a scatter of these params puts each update: flat, -1 if dropped."""
    # A scatter is linear in the updates, and its transpose reads, for each update, the
    # place where it goes: so hand the transpose the numbers of the places.
    places = np.arange(1.0, 1.0 + np.prod(shape, dtype=int)).reshape(shape)
    with jax.enable_x64(True):

        def scattered(values: Any) -> Any:
            return jax.lax.scatter_add(
                jax.numpy.zeros(shape),
                jax.numpy.asarray(indices),
                values,
                params["dimension_numbers"],
                mode=params["mode"],
            )

        zeros = jax.numpy.zeros(updates)
        (read,) = jax.linear_transpose(scattered, zeros)(jax.numpy.asarray(places))
    return np.asarray(read).astype(np.int64) - 1


def _broadcast(params: Any, x: np.ndarray) -> np.ndarray:
    spread = [1] * len(params["shape"])
    for axis, place in enumerate(params["broadcast_dimensions"]):
        spread[place] = x.shape[axis]
    return np.broadcast_to(x.reshape(spread), params["shape"])


def _slice(params: Any, x: np.ndarray) -> np.ndarray:
    strides = params["strides"] or (1,) * x.ndim
    ends = params["start_indices"], params["limit_indices"]
    return x[tuple(map(slice, *ends, strides))]


def _unstack(params: Any, x: np.ndarray) -> list[np.ndarray]:
    rows = np.moveaxis(x, params["axis"], 0)
    return [rows[k, ...] for k in range(len(rows))]


VIEWS: dict[str, Callable[..., Any]] = {
    "broadcast_in_dim": _broadcast,
    "concatenate": lambda p, *xs: np.concatenate(xs, p["dimension"]),
    "expand_dims": lambda p, x: np.expand_dims(x, tuple(p["dimensions"])),
    "reshape": lambda p, x, *_: x.reshape(p["new_sizes"]),
    "rev": lambda p, x: np.flip(x, p["dimensions"]),
    "row": lambda p, x: x[p["row"], ...],  # an array, also of one element
    "slice": _slice,
    "split": lambda p, x: np.split(x, np.cumsum(p["sizes"])[:-1], p["axis"]),
    "squeeze": lambda p, x: np.squeeze(x, tuple(p["dimensions"])),
    "stack": lambda p, *xs: np.stack(xs, p["axis"]),
    "tile": lambda p, x: np.tile(x, p["reps"]),
    "transpose": lambda p, x: x.transpose(p["permutation"]),
    "unstack": _unstack,
}
"""Those that know where elements go from their parameters alone, by name."""


def _pad(params: Any, array: np.ndarray, value: np.ndarray) -> np.ndarray:
    config = params["padding_config"]
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


def _dynamic_slice(params: Any, array: np.ndarray, *indices: np.ndarray) -> np.ndarray:
    return array[tuple(_starts(array, params["slice_sizes"], indices))]


def _dynamic_update_slice(
    params: Any, array: np.ndarray, update: np.ndarray, *indices: np.ndarray
) -> np.ndarray:
    del params
    result = np.array(array)
    result[tuple(_starts(array, update.shape, indices))] = update
    return result


def _gather(params: Any, array: np.ndarray, indices: np.ndarray, *_: Any) -> np.ndarray:
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
    params: Any, array: np.ndarray, indices: np.ndarray, updates: np.ndarray
) -> np.ndarray:
    update = params["update_jaxpr"]
    if update is not None and (update.eqns or update.outvars[0] != update.invars[-1]):
        raise Unknown("a scatter that applies a function to what it meets")
    targets = group_of_updates(params, array.shape, indices, updates.shape)
    kept = targets.reshape(-1) >= 0
    places = targets.reshape(-1)[kept]
    if len(np.unique(places)) < len(places):
        raise Unknown("two updates of a scatter meet in one place")
    result = np.array(array).reshape(-1)
    result[places] = updates.reshape(-1)[kept]
    return result.reshape(array.shape)


STRUCTURAL: dict[str, Callable[..., Any]] = {
    **VIEWS,
    "dynamic_slice": _dynamic_slice,
    "dynamic_update_slice": _dynamic_update_slice,
    "gather": _gather,
    "pad": _pad,
    "scatter": _scatter,
}
"""The structural primitives, by name."""
