"""Params as one vector: their names, in the order in which the user wrote them."""

import dataclasses
import difflib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from phihat._core import checks as _checks
from phihat._core.types import Params
from phihat.curves.arrays import as_array, is_one_array

__all__ = ["Layout", "describe", "entries_of", "one_tree"]


@dataclasses.dataclass(frozen=True)
class Layout:
    """How the params of a model lie in one vector of P numbers.

    Attributes:
      structure: the tree of the params.
      shapes: the shape of every leaf, in the order of jax.
      places: of every leaf, where its numbers lie in the vector.
      names: the name of every number, in the order of the vector.
      paths: of every number, the names under which it may be spoken of.
      orders: the keys of every dict in the tree, as the user ordered them.
      free: of every number, whether it is fitted.
    """

    structure: Any
    shapes: tuple[tuple[int, ...], ...]
    places: tuple[tuple[int, ...], ...]
    names: tuple[str, ...]
    paths: tuple[tuple[str, ...], ...]
    orders: Any
    free: tuple[bool, ...]

    @property
    def size(self) -> int:
        """P, the number of params, fixed ones included."""
        return len(self.names)

    @property
    def free_places(self) -> np.ndarray:
        """Where in the vector the numbers lie that are fitted."""
        return np.flatnonzero(self.free)

    @property
    def free_names(self) -> list[str]:
        """Their names."""
        return [self.names[place] for place in self.free_places]

    def with_free(self, free: Any) -> "Layout":
        """Return the layout with another set of free params."""
        return dataclasses.replace(self, free=tuple(bool(entry) for entry in free))

    def check_count(self, call: str, count: int, points: str) -> None:
        """Refuse fewer points than free params."""
        names = self.free_names
        if count < len(names):
            raise ValueError(
                f"{call}: {count} {points} cannot fit {len(names)} params "
                f"({', '.join(names)}); measure more, or fix some by `fixed=`."
            )

    def merge(self, free: Float[Array, " F"], fixed: Float[Array, " P"]) -> Params:
        """Return the tree that a model is called with; for use inside a program."""
        position = {int(place): k for k, place in enumerate(self.free_places)}

        def number(place: int) -> Array:
            return free[position[place]] if place in position else fixed[place]

        leaves = []
        for shape, places in zip(self.shapes, self.places, strict=True):
            if not shape:
                leaves.append(number(places[0]))
                continue
            taken = [position.get(place) for place in places]
            first = taken[0] if taken else None
            if first is not None and taken == list(range(first, first + len(taken))):
                flat = free[first : first + len(taken)]
            else:
                flat = jnp.stack([number(place) for place in places])
            leaves.append(flat.reshape(shape))
        return jax.tree.unflatten(self.structure, leaves)

    def as_tree(self, vector: Any) -> PyTree:
        """Return numbers [P], or [N, P], as the user's tree, with his order of keys."""
        vector = np.asarray(vector)
        lanes = vector.shape[:-1]
        leaves = []
        for shape, places in zip(self.shapes, self.places, strict=True):
            leaf = vector[..., list(places)].reshape(lanes + shape)
            leaves.append(float(leaf) if leaf.ndim == 0 else leaf)
        return _reorder(jax.tree.unflatten(self.structure, leaves), self.orders)


def describe(
    call: str, start: Any, *, num_lanes: int | None = None
) -> tuple[Layout, np.ndarray]:
    """Return the layout of a start, all its params free, and its numbers.

    Args:
      call: the public function, for the messages.
      start: a pytree of numbers and arrays; a list of numbers is one array.
      num_lanes: N, where every curve may have its own start.

    Returns:
      The layout and the values [P], or [N, P].
    """
    tree = _numbers(call, "start", start)
    if not sum(np.size(leaf) for leaf in jax.tree.leaves(tree)):
        raise ValueError(
            f"{call}: `start` has no params; give every param a first guess, such as "
            '{"height": 1.0, "rate": 0.5}.'
        )
    lanes = () if num_lanes is None else (num_lanes,)
    found, structure = jax.tree_util.tree_flatten_with_path(tree)
    is_alone = len(found) == 1 and not found[0][0]
    shapes = [_own_shape(leaf, num_lanes, is_alone) for _, leaf in found]
    indexed = jax.tree.unflatten(structure, list(range(len(found))))
    order = list(_in_order(tree, indexed))
    places, names, paths, columns = {}, [], [], []
    for index in order:
        path, leaf = found[index]
        shape = shapes[index]
        columns.append(np.broadcast_to(leaf, lanes + shape).reshape((*lanes, -1)))
        prefixes = list(_prefixes(path))
        places[index] = tuple(range(len(names), len(names) + int(np.prod(shape))))
        for inner in np.ndindex(shape):
            end = f"[{', '.join(map(str, inner))}]" if shape else ""
            names.append((prefixes[-1] if prefixes else "p") + end)
            paths.append((*prefixes, names[-1]))
    values = np.concatenate(columns, axis=-1)
    layout = Layout(
        structure=structure,
        shapes=tuple(shapes),
        places=tuple(places[index] for index in range(len(found))),
        names=tuple(names),
        paths=tuple(paths),
        orders=_orders(tree),
        free=(True,) * len(names),
    )
    bad = ~np.isfinite(values).reshape(-1, len(names)).all(0)
    if bad.any():
        name = names[int(np.flatnonzero(bad)[0])]
        raise ValueError(
            f"{call}: `start` is not finite at {name!r}; a first guess must be a "
            "finite number."
        )
    return layout, np.array(values)


def entries_of(call: str, argument: str, layout: Layout, name: Any) -> list[int]:
    """Return the places of the params that a name speaks of."""
    wanted = str(name)
    found = [k for k, paths in enumerate(layout.paths) if wanted in paths]
    if found:
        return found
    known = list(dict.fromkeys(path for paths in layout.paths for path in paths))
    near = difflib.get_close_matches(wanted, known, n=1, cutoff=0.4)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    raise ValueError(
        f"{call}: `{argument}` names {wanted!r}, but the params are "
        f"{list(layout.names)}{hint}"
    )


def one_tree(
    call: str,
    argument: str,
    layout: Layout,
    tree: Any,
    *,
    cure: str = "",
    num_lanes: int | None = None,
) -> list[Any]:
    """Return a tree like the params as P numbers; a scalar serves a whole leaf.

    Where there are lanes a leaf may have a leading axis N, and they are arrays [N].
    """
    tree = [tree] if np.ndim(tree) == 0 and not isinstance(tree, Mapping) else tree
    tree = np.asarray(tree, dtype=object) if is_one_array(tree) else tree
    is_scalar = isinstance(tree, np.ndarray) and tree.shape == (1,)
    leaves, structure = jax.tree.flatten(tree)
    if is_scalar:
        leaves = [tree[0]] * len(layout.shapes)
    elif structure != layout.structure:
        raise ValueError(
            f"{call}: `{argument}` must be a tree like `start`, whose params are "
            f"{list(layout.names)}, got the structure "
            f"{_checks.in_words(structure)}{cure}."
        )
    numbers: list[Any] = [None] * layout.size
    for leaf, shape, places in zip(leaves, layout.shapes, layout.places, strict=True):
        given = np.asarray(leaf)
        if given.shape not in ((), shape, (num_lanes, *shape)):
            raise ValueError(
                f"{call}: `{argument}` has a leaf of shape {list(given.shape)} "
                f"where the params have {list(shape)}."
            )
        is_each = given.shape not in ((), shape)
        full = given if is_each else np.broadcast_to(given, shape)
        flat = full.reshape((*full.shape[:is_each], -1))
        for k, place in enumerate(places):
            entry = flat[..., k]
            numbers[place] = entry if entry.ndim else entry.item()
    return numbers


# ------------------------------------------------------------------------- private


def _numbers(call: str, name: str, node: Any) -> Any:
    """Turn the leaves of a start into arrays of float64, lists of numbers included."""
    if node is None:
        raise ValueError(
            f"{call}: `{name}` is None; give every param a first guess, such as "
            '{"height": 1.0, "rate": 0.5}.'
        )
    if isinstance(node, dict):
        return {
            key: _numbers(call, f"{name}[{key!r}]", entry)
            for key, entry in node.items()
        }
    fields = getattr(node, "_fields", None)
    if isinstance(node, tuple) and fields is not None:
        return type(node)(
            *(
                _numbers(call, f"{name}.{key}", entry)
                for key, entry in zip(fields, node, strict=True)
            )
        )
    if isinstance(node, (list, tuple)) and not is_one_array(node):
        return type(node)(
            _numbers(call, f"{name}[{k}]", entry) for k, entry in enumerate(node)
        )
    is_leaf = jax.tree_util.all_leaves([node])
    if is_leaf or isinstance(node, (list, tuple)):
        return as_array(call, name, node)
    return jax.tree.map(lambda leaf: as_array(call, name, leaf), node)


def _own_shape(
    leaf: np.ndarray, num_lanes: int | None, is_alone: bool
) -> tuple[int, ...]:
    """Return the shape of a leaf of one curve's params."""
    is_each = num_lanes is not None and leaf.ndim >= 1 and leaf.shape[0] == num_lanes
    if is_alone and leaf.ndim == 1:
        is_each = False  # one array is the params of all curves
    return leaf.shape[1:] if is_each else leaf.shape


def _in_order(tree: Any, indexed: Any) -> Iterator[int]:
    """Yield the numbers of the leaves in the order in which they were written."""
    if isinstance(tree, dict):
        for key in tree:
            yield from _in_order(tree[key], indexed[key])
    elif isinstance(tree, (list, tuple)):
        for node, numbers in zip(tree, indexed, strict=True):
            yield from _in_order(node, numbers)
    else:
        yield from jax.tree.leaves(indexed)


def _orders(tree: Any) -> Any:
    if isinstance(tree, dict):
        return tuple((key, _orders(entry)) for key, entry in tree.items())
    if isinstance(tree, (list, tuple)):
        return tuple(_orders(entry) for entry in tree)
    return None


def _reorder(tree: Any, orders: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _reorder(tree[key], inner) for key, inner in orders}
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*(map(_reorder, tree, orders)))
    if isinstance(tree, (list, tuple)):
        return type(tree)(map(_reorder, tree, orders))
    return tree


def _prefixes(path: Any) -> Iterator[str]:
    name = ""
    for key in path:
        plain = getattr(key, "key", getattr(key, "name", None))
        if isinstance(key, jax.tree_util.SequenceKey):
            name = f"{name or 'p'}[{key.idx}]"
        else:
            name = f"{name}.{plain}" if name else str(plain)
        yield name
