"""Data that are missing: NaN in y or x, found, named, and left out where asked."""

from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import PyTree

from phihat.curves.residuals import Target

__all__ = ["Clean", "check_finite", "check_rows", "fill", "remove"]


class Clean(NamedTuple):
    """Data without what is missing.

    Attributes:
      x: with the rows that do not count replaced by one that does.
      y: flat, [n], zero where it does not count.
      mask: which entries count, [n], or None for all.
    """

    x: PyTree
    y: np.ndarray
    mask: np.ndarray | None


def check_rows(call: str, x: PyTree, y: PyTree) -> None:
    """Check that a plain x is as long as a plain y."""
    if not (isinstance(x, np.ndarray) and isinstance(y, np.ndarray)):
        return
    if x.ndim == 0 or y.ndim == 0:
        name, given = ("x", x) if x.ndim == 0 else ("y", y)
        raise ValueError(
            f"{call}: `{name}` is one number, {given:g}; a curve needs rows."
        )
    if y.shape[0] not in x.shape and x.size:
        cure = ""
        if call == "fit_curve" and y.ndim == 2 and y.shape[1] == len(x):
            cure = f"; {len(y)} curves over one x are for `fit_curves(model, x, y, "
            cure += "start)`"
        raise ValueError(
            f"{call}: `x` has {x.shape[0]} rows but `y` has {y.shape[0]}; every point "
            f"needs both{cure}."
        )


def remove(call: str, x: PyTree, y: PyTree, policy: str) -> Clean:
    """Look for missing data, and do what the policy says."""
    target = Target.of(y)
    flat = target.flatten(y)
    if policy == "propagate":
        return Clean(x, flat, None)
    for name, tree in (("x", x), ("y", y)):
        check_finite(call, name, tree, allows_nan=policy == "omit")
    counts = [~np.isnan(leaf) for leaf in jax.tree.leaves(y)]
    x, counts = _omit_rows(call, x, y, counts)
    if all(part.all() for part in counts):
        return Clean(x, flat, None)
    if not any(part.any() for part in counts):
        raise ValueError(f"{call}: every row of `y` or `x` is NaN: nothing is left.")
    vectors = []
    for part, is_complex in zip(counts, target.complexes, strict=True):
        vectors += [part.ravel()] * (1 + is_complex)
    mask = np.concatenate(vectors)
    return Clean(x, np.where(mask, flat, 0.0), mask)


def check_finite(call: str, name: str, tree: PyTree, *, allows_nan: bool) -> None:
    """Name the first number that is not finite, and how many there are."""
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        bad = np.isinf(leaf) if allows_nan else ~np.isfinite(leaf)
        if not bad.any():
            continue
        first = np.argwhere(bad)[0]
        number = int(bad.sum())
        kind = "NaN" if np.isnan(leaf[tuple(first)]) else "infinite"
        plural = "values are" if number > 1 else "value is"
        cure = "leave it out" if number == 1 else "leave them out"
        how = (
            f"pass nan_policy='omit' to {cure}"
            if kind == "NaN"
            else f"set it to NaN and pass nan_policy='omit' to {cure}"
        )
        raise ValueError(
            f"{call}: {number} {plural} not finite in "
            f"`{name}{jax.tree_util.keystr(path)}`, the first in row {first[0]} "
            f"({kind}); {how}."
        )


def fill(leaf: np.ndarray, bad: np.ndarray, axis: int) -> np.ndarray:
    """Replace rows by the nearest good one before, or else after, along an axis."""
    good = np.flatnonzero(~bad)
    nearest = np.searchsorted(good, np.arange(len(bad)), side="right") - 1
    return np.take(leaf, good[np.maximum(nearest, 0)], axis=axis)


# ------------------------------------------------------------------------- private


def _omit_rows(
    call: str, x: PyTree, y: PyTree, counts: list[np.ndarray]
) -> tuple[PyTree, list[np.ndarray]]:
    """Let rows of y whose x is missing not count, and fill those x."""
    leaves, structure = jax.tree.flatten(x)
    if not any(np.isnan(leaf).any() for leaf in leaves):
        return x, counts
    is_paired = jax.tree.structure(y) == structure and len(leaves) == len(counts)
    filled, counts = list(leaves), list(counts)
    for k, leaf in enumerate(leaves):
        if not np.isnan(leaf).any():
            continue
        owners = [k] if is_paired else range(len(counts))
        for owner in owners:
            length = counts[owner].shape[0]
            axis = _row_axis(call, leaf, length)
            others = tuple(a for a in range(leaf.ndim) if a != axis)
            bad = np.isnan(leaf).any(axis=others)
            rows = bad.reshape((-1,) + (1,) * (counts[owner].ndim - 1))
            counts[owner] = counts[owner] & ~rows
            if not bad.all():
                filled[k] = fill(leaf, bad, axis)
    return jax.tree.unflatten(structure, filled), counts


def _row_axis(call: str, leaf: np.ndarray, length: int) -> int:
    for axis in (0, leaf.ndim - 1):
        if leaf.ndim and leaf.shape[axis] == length:
            return axis
    raise ValueError(
        f"{call}: `x` holds NaN, but its shape {list(leaf.shape)} does not tell to "
        f"which of the {length} rows of y they belong; leave those rows out yourself."
    )
