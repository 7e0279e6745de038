"""What all leaves of a pytree are together: their norm, and whether they are finite."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from phihat._core import tree as _tree

__all__ = ["first_nonfinite", "global_norm", "max_abs", "safe_sqrt", "zero_or_nan"]

_FEW_ENTRIES = 256
"""Entries of a leaf up to which it is a small one."""

_MANY_LEAVES = 8
"""Small leaves above which they are looked at as one array."""


def global_norm(tree: PyTree) -> Float[Array, ""]:
    """Return the Euclidean norm over all leaves, summed in at least float32.

    The derivative at zero is zero, not NaN.
    """
    packed, rest = _pack(jax.tree.leaves(tree))
    leaves = rest if packed is None else [packed, *rest]
    total = functools.reduce(
        jnp.add,
        (_sum_of_squares(leaf) for leaf in leaves),
        jnp.zeros((), _tree.default_float()),
    )
    return safe_sqrt(total)


@jax.custom_jvp
def safe_sqrt(value: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return the root, with derivative zero at zero: one dead unit would else be NaN.

    A rule of its own and not a choice by `where`: the loop pays for no choice.
    """
    return jnp.sqrt(value)


@safe_sqrt.defjvp
def _safe_sqrt_jvp(
    primals: tuple[Array], tangents: tuple[Array]
) -> tuple[Array, Array]:
    (value,), (tangent,) = primals, tangents
    root = safe_sqrt(value)
    is_zero = value == 0
    slope = 0.5 / jnp.where(is_zero, jnp.ones((), root.dtype), root)
    return root, jnp.where(is_zero, jnp.zeros((), root.dtype), slope) * tangent


def _sum_of_squares(leaf: Any) -> Float[Array, ""]:
    wide = jnp.asarray(leaf).astype(_tree.accumulator_dtype(leaf))
    return jnp.sum(wide * wide).astype(_tree.default_float())


def max_abs(tree: PyTree) -> Float[Array, ""]:
    """Return the largest absolute entry over all leaves; NaN if any entry is NaN."""
    return functools.reduce(
        jnp.maximum,
        (
            jnp.max(jnp.abs(leaf), initial=0.0).astype(_tree.default_float())
            for leaf in jax.tree.leaves(tree)
        ),
        jnp.zeros((), _tree.default_float()),
    )


def zero_or_nan(tree: PyTree) -> Float[Array, ""]:
    """Return 0 if every entry of every leaf is finite, else NaN, for 0 x is one or NaN.

    Half the time of asking whether all are finite, for one who may add them up.
    """
    leaves = []
    for leaf in jax.tree.leaves(tree):
        if jnp.issubdtype(jnp.result_type(leaf), jnp.complexfloating):
            leaves += [leaf.real, leaf.imag]
        elif jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            leaves.append(leaf)
    packed, rest = _pack(leaves)
    terms = [_zero_or_nan(leaf) for leaf in rest]
    if packed is not None:
        terms.append(jnp.zeros(packed.shape, packed.dtype) @ packed)
    wide = _tree.default_float()
    return functools.reduce(
        jnp.add, (term.astype(wide) for term in terms), jnp.zeros((), wide)
    )


def _pack(leaves: Sequence[Any]) -> tuple[Array | None, list[Any]]:
    """Return the small leaves as one array, where they are many, and the others.

    Each leaf that is looked at by itself is a kernel of its own to compile.
    """
    small = [leaf for leaf in leaves if jnp.size(leaf) <= _FEW_ENTRIES]
    if len(small) <= _MANY_LEAVES:
        return None, list(leaves)
    wide = _tree.default_float()
    packed = jnp.concatenate([jnp.ravel(leaf).astype(wide) for leaf in small])
    return packed, [leaf for leaf in leaves if jnp.size(leaf) > _FEW_ENTRIES]


def _zero_or_nan(leaf: Array) -> Float[Array, ""]:
    leaf = jnp.asarray(leaf)
    if leaf.size <= _FEW_ENTRIES:
        return jnp.sum((0 * leaf).astype(_tree.accumulator_dtype(leaf)))
    # A product by zeros sums a matrix's columns side by side, where a sum of all its
    # entries would go one by one.
    matrix = leaf.reshape(-1, leaf.shape[-1]) if leaf.ndim > 1 else leaf.reshape(1, -1)
    row = jnp.zeros(matrix.shape[0], leaf.dtype) @ matrix
    return jnp.zeros(row.shape, row.dtype) @ row


def first_nonfinite(tree: PyTree) -> Int[Array, ""]:
    """Return the number of the first leaf with an infinite or NaN entry, else -1."""
    leaves = jax.tree.leaves(tree)
    if not leaves:
        return jnp.asarray(-1, jnp.int32)
    number = np.int32(len(leaves))
    firsts = []
    small = [
        k
        for k, leaf in enumerate(leaves)
        if jnp.size(leaf) <= _FEW_ENTRIES
        and jnp.issubdtype(jnp.result_type(leaf), jnp.floating)
    ]
    if len(small) > _MANY_LEAVES:  # all of them in one kernel
        packed, _ = _pack([leaves[k] for k in small])
        assert packed is not None
        sizes = [jnp.size(leaves[k]) for k in small]
        owners = np.repeat(np.asarray(small, np.int32), sizes)
        where_not = jnp.where(jnp.isfinite(packed), number, owners)
        firsts.append(jnp.min(where_not, initial=number))
    else:
        small = []
    for k in sorted({*range(len(leaves))} - {*small}):
        finite = jnp.all(jnp.isfinite(leaves[k]))
        firsts.append(jnp.where(finite, number, np.int32(k)))
    first = functools.reduce(jnp.minimum, firsts)
    return jnp.where(first == number, np.int32(-1), first).astype(jnp.int32)
