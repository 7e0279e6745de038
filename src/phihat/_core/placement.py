"""Where arrays lie: the shardings that a fit keeps, read from what it is given.

A compiler that is free to choose would let replicated params take the sharding of the
data, and draw minibatches that every device computes in full. So a fit says what is
meant: gradients, and all that follows from them, lie as their params do, and a batch
is divided as its data are.
"""

import functools
import math
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.core
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from phihat._core import tree as _tree
from phihat._core.types import Batch

__all__ = [
    "Placement",
    "keep",
    "keep_like",
    "keep_rows",
    "machine_memory",
    "placement_of",
    "settle",
    "to_host",
]


class Placement(NamedTuple):
    """How the leaves of params and data lie on the devices, hashable.

    Attributes:
      params: for each leaf its sharding; None where it is not known to a mesh.
      data: likewise; None too where the rows are not divided.
    """

    params: tuple[NamedSharding | None, ...]
    data: tuple[NamedSharding | None, ...]


def placement_of(
    call: str, *, params: PyTree, data: Batch = None, **others: PyTree
) -> Placement | None:
    """Return how params and data lie, where some of them lie on several devices.

    Params that are on no device by choice are replicated, beside data that are divided.
    """
    placed = [leaf for leaf in jax.tree.leaves((params, data, others)) if _is_put(leaf)]
    if not placed:
        return None
    devices = placed[0].sharding.device_set
    if any(leaf.sharding.device_set != devices for leaf in placed):
        _refuse(call, {"params": params, "data": data, **others})
    shardings = [leaf.sharding for leaf in placed if len(devices) > 1]
    meshes = [s.mesh for s in shardings if isinstance(s, NamedSharding)]
    meshes = [mesh for mesh in meshes if _is_automatic(mesh)]
    if not meshes:
        return None
    whole = NamedSharding(meshes[0], PartitionSpec())
    placement = Placement(
        params=tuple(_sharding(leaf, whole) for leaf in jax.tree.leaves(params)),
        data=tuple(_divided(_sharding(leaf, None)) for leaf in jax.tree.leaves(data)),
    )
    return placement if any((*placement.params, *placement.data)) else None


def keep(shardings: Sequence[NamedSharding | None], tree: PyTree) -> PyTree:
    """Let the leaves of a tree lie as told; inside a trace."""
    leaves, structure = jax.tree.flatten(tree)
    kept = [
        leaf if sharding is None else jax.lax.with_sharding_constraint(leaf, sharding)
        for leaf, sharding in zip(leaves, shardings, strict=True)
    ]
    return jax.tree.unflatten(structure, kept)


def keep_like(
    shardings: Sequence[NamedSharding | None], params: PyTree, tree: PyTree
) -> PyTree:
    """Let the parts of a tree that look like the params, as moments do, lie as they."""
    structure = jax.tree.structure(params)
    shapes = [leaf.shape for leaf in jax.tree.leaves(params)]

    def is_like(node: Any) -> bool:
        return jax.tree.structure(node) == structure and shapes == [
            np.shape(leaf) for leaf in jax.tree.leaves(node)
        ]

    return jax.tree.map(
        lambda node: keep(shardings, node) if is_like(node) else node,
        tree,
        is_leaf=is_like,
    )


def keep_rows(shardings: Sequence[NamedSharding | None], batch: Batch) -> Batch:
    """Divide the rows of a batch as those of its data, where their number allows it."""
    leaves = jax.tree.leaves(batch)
    if len(leaves) != len(shardings):  # a sampler that returns something else
        return batch
    return keep(
        [
            sharding if sharding is not None and _divides(sharding, leaf) else None
            for leaf, sharding in zip(leaves, shardings, strict=True)
        ],
        batch,
    )


def settle(placement: Placement | None, tree: PyTree) -> PyTree:
    """Replicate the leaves that lie on one device, beside those that are divided."""
    if placement is None:
        return tree
    known = (*placement.params, *placement.data)
    mesh = next(sharding.mesh for sharding in known if sharding is not None)
    whole = NamedSharding(mesh, PartitionSpec())

    def put(leaf: Any) -> Any:
        if len(leaf.sharding.device_set) == mesh.size:
            return leaf
        local, rewrap = to_host(leaf)
        return rewrap(jax.make_array_from_process_local_data(whole, local, local.shape))

    return jax.tree.map(put, tree)


def to_host(leaf: Any) -> tuple[np.ndarray, Callable[[Any], Any]]:
    """Return a leaf as NumPy's, and what makes keys of it again where it held keys."""
    if not _tree.is_key(leaf):
        return np.asarray(leaf), lambda array: array
    rewrap = functools.partial(jax.random.wrap_key_data, impl=jax.random.key_impl(leaf))
    return np.asarray(jax.random.key_data(leaf)), rewrap


# -------------------------------------------------------------------- private helpers


def _is_put(leaf: Any) -> bool:
    is_array = isinstance(leaf, jax.Array) and not isinstance(leaf, jax.core.Tracer)
    return is_array and leaf.committed


def _is_automatic(mesh: Any) -> bool:
    return isinstance(mesh, Mesh) and set(mesh.axis_types) == {AxisType.Auto}


def _sharding(leaf: Any, otherwise: NamedSharding | None) -> NamedSharding | None:
    if isinstance(leaf, jax.core.Tracer):
        return None
    if not _is_put(leaf):
        return otherwise
    sharding = leaf.sharding
    is_named = isinstance(sharding, NamedSharding) and _is_automatic(sharding.mesh)
    return sharding if is_named else None


def _divided(sharding: NamedSharding | None) -> NamedSharding | None:
    return sharding if sharding is not None and _row_axes(sharding) else None


def _row_axes(sharding: NamedSharding) -> tuple[Any, ...]:
    """Return the axes of the mesh among which the leading axis is divided."""
    axes = sharding.spec[0] if len(sharding.spec) else None
    return axes if isinstance(axes, tuple) else () if axes is None else (axes,)


def _divides(sharding: NamedSharding, leaf: Any) -> bool:
    parts = math.prod(sharding.mesh.shape[axis] for axis in _row_axes(sharding))
    return leaf.ndim >= len(sharding.spec) and leaf.shape[0] % parts == 0


def machine_memory() -> int:
    """Return the bytes of memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _refuse(call: str, named: dict[str, PyTree]) -> None:
    found: dict[Any, str] = {}
    for name, tree in named.items():
        for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
            if _is_put(leaf):
                devices = frozenset(leaf.sharding.device_set)
                found.setdefault(devices, f"`{name}{jax.tree_util.keystr(path)}`")
    (one, first), (two, second) = list(found.items())[:2]
    raise ValueError(
        f"{call}: {first} was put on {_brief(one)} but {second} on {_brief(two)}; put "
        "both on one mesh, for example by `sharding.replicate(params, mesh)`."
    )


def _brief(devices: frozenset[Any]) -> str:
    if len(devices) == 1:
        return str(next(iter(devices)))
    return f"{len(devices)} devices"
