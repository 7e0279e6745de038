"""Axes of a sweep: named values, one row of which is what one lane is called with."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import PyTree

from phihat._core import calls as _calls
from phihat._core import checks as _checks
from phihat._core import kinds as _kinds
from phihat._core import tree as _tree

__all__ = [
    "Axis",
    "Group",
    "Member",
    "as_axes",
    "axes_of",
    "functions_of",
    "has_axis",
    "take_row",
]


class Member(NamedTuple):
    """The rows of one name that share their code.

    Attributes:
      tree: the value, its arrays stacked `[R, ...]`; numbers without an axis are
        shared by all rows.
      rows: which of the R rows stands at each position of the group [G].
    """

    tree: PyTree
    rows: np.ndarray


class Group(NamedTuple):
    """The positions of an axis that one program serves.

    Attributes:
      positions: where on the axis they are [G], ascending.
      members: one for each name of the axis.
    """

    positions: np.ndarray
    members: tuple[Member, ...]


class Axis(NamedTuple):
    """An axis of a sweep, of one name or of several that go together.

    Attributes:
      names: the arguments that it sets.
      size: how many positions it has.
      groups: its positions, grouped by code.
      coordinates: what each position is called, one array [size] per name: the numbers
        where there is one per position, texts for alternatives, else 0, 1, ...
    """

    names: tuple[str, ...]
    size: int
    groups: tuple[Group, ...]
    coordinates: tuple[np.ndarray, ...]

    @property
    def label(self) -> str:
        """The names in one word."""
        return "_".join(self.names)

    def row(self, position: int) -> dict[str, Any]:
        """Return what the function is called with at a position."""
        for group in self.groups:
            (found,) = np.nonzero(group.positions == position)
            if found.size:
                members = zip(self.names, group.members, strict=True)
                return {
                    name: take_row(member.tree, int(member.rows[found[0]]))
                    for name, member in members
                }
        raise IndexError(f"The axis {self.label} has no position {position}.")

    def take(self, positions: Sequence[int]) -> "Axis":
        """Return the axis of these positions alone, in this order."""
        chosen = np.asarray(positions)
        groups = []
        for group in self.groups:
            places = {int(old): row for row, old in enumerate(group.positions)}
            kept = np.flatnonzero([int(old) in places for old in chosen])
            if kept.size:
                rows = np.asarray([places[int(chosen[new])] for new in kept])
                members = tuple(
                    member._replace(rows=member.rows[rows]) for member in group.members
                )
                groups.append(Group(kept, members))
        coordinates = tuple(values[chosen] for values in self.coordinates)
        return Axis(self.names, len(chosen), tuple(groups), coordinates)


@_calls.public
def axes_of(tree: PyTree) -> PyTree:
    """Return `in_axes` for `jax.vmap` over the leading axis of all arrays in a tree.

    Args:
      tree: arrays, keys, stacked params, or an optimizer with arrays for numbers.

    Returns:
      A tree like it: 0 for an array with an axis, None for numbers, which are shared.

    Example:
      >>> import jax.numpy as jnp
      >>> axes_of({"weight": jnp.ones((5, 3)), "scale": 2.0})
      {'scale': None, 'weight': 0}
    """
    return jax.tree.map(lambda leaf: 0 if has_axis(leaf) else None, tree)


def as_axes(call: str, axes: Any) -> tuple[Axis, ...]:
    """Bring the axes of a sweep to one form, or refuse them by a sentence."""
    if not isinstance(axes, Mapping):
        raise TypeError(
            f"{call}: `axes` must map names to values, such as "
            f'{{"rate": jnp.geomspace(1e-3, 1.0, 64)}}, got {_checks.brief(axes)}.'
        )
    if not axes:
        raise ValueError(f"{call}: `axes` is empty: name at least one axis.")
    seen: set[str] = set()
    for name in (one for key in axes for one in _names(call, key)):
        if name in seen:
            raise ValueError(f"{call}: `axes` names {name!r} twice.")
        seen.add(name)
    return tuple(_as_axis(call, key, value) for key, value in axes.items())


def take_row(tree: PyTree, row: Any) -> PyTree:
    """Return one row of a tree whose arrays are stacked."""

    def take(leaf: Any) -> Any:
        entry = leaf[row] if has_axis(leaf) else leaf
        # NumPy's scalars are strongly typed and would promote what they meet.
        return float(entry) if isinstance(entry, np.floating) else entry

    return jax.tree.map(take, tree)


def has_axis(leaf: Any) -> bool:
    """Tell whether a leaf is an array with an axis."""
    return isinstance(leaf, (jax.Array, np.ndarray)) and leaf.ndim > 0


def functions_of(tree: PyTree) -> list[Any]:
    """Return the functions in a tree: jax hashes a structure without them."""
    is_partial = lambda node: isinstance(node, Partial)  # noqa: E731
    found = []
    for node in jax.tree.leaves(tree, is_leaf=is_partial):
        if is_partial(node):
            found += [node.func, *functions_of((node.args, node.keywords))]
    return found


# -------------------------------------------------------------------- private helpers


class _Column(NamedTuple):
    """One name's values: for each position its part and the row in that part."""

    parts: list[PyTree]
    part_of: np.ndarray
    row_of: np.ndarray
    coordinate: np.ndarray


def _names(call: str, key: Any) -> tuple[str, ...]:
    names = key if isinstance(key, tuple) else (key,)
    if not names or not all(isinstance(name, str) and name for name in names):
        raise TypeError(
            f"{call}: the keys of `axes` must be names or tuples of names, got {key!r}."
        )
    return names


def _as_axis(call: str, key: Any, value: Any) -> Axis:
    names = _names(call, key)
    values = (value,) if isinstance(key, str) else value
    if not isinstance(values, (tuple, list)) or len(values) != len(names):
        raise ValueError(
            f"{call}: `axes[{key!r}]` zips {len(names)} names, so it must be a tuple "
            f"of {len(names)} values, got {_checks.brief(value)}."
        )
    columns = [
        _as_column(call, name, one) for name, one in zip(names, values, strict=True)
    ]
    sizes = [len(column.part_of) for column in columns]
    if len(set(sizes)) > 1:
        lengths = ", ".join(
            f"{name} has {size}" for name, size in zip(names, sizes, strict=True)
        )
        raise ValueError(
            f"{call}: the values zipped in `axes[{key!r}]` must have one length: "
            f"{lengths}."
        )
    coordinates = tuple(column.coordinate for column in columns)
    return Axis(names, sizes[0], _group(columns), coordinates)


def _group(columns: list[_Column]) -> tuple[Group, ...]:
    """Group the positions by the parts, that is the code, of all names together."""
    parts = [column.part_of for column in columns]
    shape = [len(column.parts) for column in columns]
    combined = np.ravel_multi_index(parts, shape)
    found, first = np.unique(combined, return_index=True)
    groups = []
    for code in found[np.argsort(first)]:  # in the order in which they come
        positions = np.flatnonzero(combined == code)
        members = tuple(
            Member(column.parts[part], column.row_of[positions])
            for column, part in zip(columns, np.unravel_index(code, shape), strict=True)
        )
        groups.append(Group(positions, members))
    return tuple(groups)


def _as_column(call: str, name: str, value: Any) -> _Column:
    if isinstance(value, (list, tuple)) and len(value) == 0:
        raise ValueError(f"{call}: the axis {name!r} is empty.")
    if type(value) in (list, tuple):
        if all(_is_alternative(entry) for entry in value):
            return _alternatives(list(value))
        if all(isinstance(entry, (int, float, np.number)) for entry in value):
            value = np.asarray(value)
    elif isinstance(value, range):
        value = np.asarray(value)
    return _stacked(call, name, value)


def _is_alternative(entry: Any) -> bool:
    return callable(entry) or isinstance(entry, str) or _kinds.is_optimizer(entry)


def _alternatives(values: list[Any]) -> _Column:
    """Stack those alternatives whose code is the same."""
    found: dict[Any, list[int]] = {}
    split = [_tree.split(value) for value in values]
    for position, (key, numbers) in enumerate(split):
        shapes = tuple((np.shape(number), type(number)) for number in numbers)
        functions = tuple(functions_of(values[position]))
        found.setdefault((key, functions, shapes), []).append(position)
    part_of = np.zeros(len(values), int)
    row_of = np.zeros(len(values), int)
    parts = []
    for part, ((key, _, _), positions) in enumerate(found.items()):
        rows = [split[position][1] for position in positions]
        stacked = [_stack(numbers) for numbers in zip(*rows, strict=True)]
        parts.append(_tree.merge(key, stacked))
        part_of[positions] = part
        row_of[positions] = np.arange(len(positions))
    texts = np.asarray([_describe(value) for value in values])
    return _Column(parts, part_of, row_of, texts)


def _stack(numbers: Sequence[Any]) -> Any:
    """Stack numbers, but leave shared what is the same in all."""
    first = numbers[0]
    if type(first) is float:
        if all(number == first for number in numbers):
            return first
        return np.asarray(numbers, _tree.default_float())
    return jnp.stack([jnp.asarray(number) for number in numbers])


def _describe(value: Any) -> str:
    if isinstance(value, str):
        return value
    if callable(value) and not isinstance(value, jax.tree_util.Partial):
        return getattr(value, "__name__", type(value).__name__)
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."


def _stacked(call: str, name: str, value: Any) -> _Column:
    lengths: dict[str, int] = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(value)[0]:
        if has_axis(leaf):
            lengths[jax.tree_util.keystr(path)] = leaf.shape[0]
    if not lengths:
        raise TypeError(
            f"{call}: the axis {name!r} must hold arrays with a leading axis, keys, "
            "stacked params, an optimizer such as `adam(rates)`, or a list of "
            f"optimizers or functions, got {_checks.brief(value)}."
        )
    if len(set(lengths.values())) > 1:
        listed = ", ".join(
            f"{path or 'the leaf'} has {size}" for path, size in lengths.items()
        )
        raise ValueError(
            f"{call}: the arrays of the axis {name!r} must have one length: {listed}."
        )
    size = next(iter(lengths.values()))
    if size == 0:
        raise ValueError(f"{call}: the axis {name!r} is empty.")
    coordinate = _coordinate(value, size)
    return _Column([value], np.zeros(size, int), np.arange(size), coordinate)


def _coordinate(value: Any, size: int) -> np.ndarray:
    mapped = [leaf for leaf in jax.tree.leaves(value) if has_axis(leaf)]
    if len(mapped) == 1 and mapped[0].ndim == 1 and not _tree.is_key(mapped[0]):
        return np.asarray(mapped[0])
    return np.arange(size)
