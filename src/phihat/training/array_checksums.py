"""Checksums of arrays, by which other data are told from the same."""

import zlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from phihat._core import tree as _tree

__all__ = ["checksums", "describe_number"]

_WHOLE_BYTES = 2**24
_SAMPLES, _SAMPLE_BYTES = 256, 2**16
"""An array above the first size is known by so many pieces of it."""


def checksums(tree: PyTree) -> dict[str, str]:
    """Return a checksum of the content of every leaf, by its path.

    A large array is known by pieces spread evenly over it, the first and the last among
    them; one that lies on several processes by its shape alone.
    """
    leaves = zip(_tree.leaf_paths(tree), jax.tree.leaves(tree), strict=True)
    found = {}
    for path, leaf in leaves:
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            continue
        array = jax.random.key_data(leaf) if _tree.is_key(leaf) else leaf
        found[path or "the only leaf"] = _checksum(array)
    return found


def _checksum(array: Any) -> str:
    """Return the checksum of an array of NumPy or jax."""
    size = int(np.size(array)) * np.dtype(jnp.result_type(array)).itemsize
    found = 0
    for piece in _pieces(array, size):
        found = zlib.crc32(np.ascontiguousarray(piece).tobytes(), found)
    return f"{found:08x}"


def _pieces(array: Any, size: int) -> Iterator[np.ndarray]:
    if size <= _WHOLE_BYTES or np.ndim(array) == 0:
        yield np.array(array)  # a copy: a view could keep a buffer from its donation
        return
    rows = np.shape(array)[0]
    row_bytes = max(1, size // rows)
    count = max(1, _SAMPLE_BYTES // row_bytes)
    starts = np.unique(np.linspace(0, max(0, rows - count), _SAMPLES).astype(int))
    for start in starts:
        piece = np.array(array[int(start) : int(start) + count])
        yield piece if piece.nbytes <= 2 * _SAMPLE_BYTES else _thin(piece)


def _thin(piece: np.ndarray) -> np.ndarray:
    flat = piece.reshape(-1)
    return flat[:: max(1, piece.nbytes // _SAMPLE_BYTES)]


def describe_number(leaf: Any) -> str:
    """Return a number as text, and an array by its checksum."""
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        return f"{leaf.dtype}{leaf.shape} of several processes"
    array = np.asarray(jax.random.key_data(leaf) if _tree.is_key(leaf) else leaf)
    if array.ndim == 0:
        return repr(array.item())
    return f"{array.dtype}{array.shape} of checksum {_checksum(array)}"
