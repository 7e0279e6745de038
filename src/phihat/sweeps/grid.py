"""A pure function over the product of named axes, in chunks of compiled lanes."""

import collections
import inspect
import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from phihat._core import calls as _calls
from phihat._core import checks as _checks
from phihat._core import jaxprs as _jaxprs
from phihat._core import tree as _tree
from phihat._core import user_code as _user_code
from phihat._core.types import PyTree
from phihat.sweeps import memory
from phihat.sweeps.axes import Axis, Group, as_axes
from phihat.sweeps.execution import LaneProgram, lane_program
from phihat.sweeps.result import SweepResult

__all__ = ["sweep"]


@_calls.public
def sweep(
    function: Callable[..., PyTree],
    axes: Mapping[str | tuple[str, ...], Any],
    *,
    max_bytes: int | None = None,
    mesh: Mesh | None = None,
    progress: bool = False,
) -> SweepResult:
    """Map a pure function over the cartesian product of named axes.

    `function(**{name: row})` is traced once, and runs for all rows side by side. These
    lanes do not affect one another: if one meets NaN, or stops, the others still give
    the same bits.

    Args:
      function: a pure function of keyword arguments, one for each name; returns a
        pytree of arrays, such as a number, a tuple or a `FitResult`.
      axes: for each name its values: an array, keys, or stacked params, whose rows are
        those of the leading axis of all arrays; an optimizer or a loss with arrays for
        numbers, such as `adam(rates)`; or a list of optimizers, functions or texts,
        which are alternatives: those of one structure share a program. Numbers without
        an axis are shared. A key `("a", "b")` with a tuple of two values zips them.
      max_bytes: what chunks and results may take together, planned from shapes before
        anything runs; a quarter of the memory by default. On an accelerator results
        go to the host and do not count.
      mesh: devices among which lanes are divided; all local ones by default.
      progress: show a bar, advanced with every chunk.

    Returns:
      A `SweepResult`, whose values are NumPy arrays `[axis sizes..., ...]`.

    Raises:
      TypeError: an axis is none of these; the function takes other names, is not
        traceable (the message says which value it asked for), or returns no arrays;
        the call is itself under jit, vmap or grad.
      ValueError: an axis is empty, lengths differ, alternatives return different
        structures, or `max_bytes` does not suffice for one lane.

    Example:
      >>> import jax.numpy as jnp
      >>> import phihat
      >>> def final_loss(optimizer, start):
      ...     square = lambda x: x**2
      ...     return phihat.fit(square, start, optimizer, num_steps=20).loss
      >>> rates = jnp.asarray([0.1, 0.25, 0.5, 1.1])
      >>> axes = {"optimizer": phihat.gradient_descent(rates), "start": jnp.ones(2)}
      >>> result = phihat.sweep(final_loss, axes)
      >>> print(result.best().position)
      {'optimizer': 2, 'start': 0}
    """
    call = "sweep"
    refuse_tracing(call)
    parsed = as_axes(call, axes)
    function = _tree.as_partial(function, call, "function")
    _check_names(call, function, [name for axis in parsed for name in axis.names])
    max_bytes = _checks.check_max_bytes(call, max_bytes)
    mesh = as_mesh(call, mesh)
    parts = [
        _part(call, function, parsed, groups)
        for groups in itertools.product(*(axis.groups for axis in parsed))
    ]
    _check_same(call, parsed, parts)
    num_lanes = math.prod(axis.size for axis in parsed)
    num_devices = 1 if mesh is None else mesh.size
    limit = memory.default_max_bytes() if max_bytes is None else max_bytes
    plans = [_plan(call, part, num_lanes, num_devices, limit) for part in parts]

    store = _Store(parts[0].program.results, num_lanes)
    with _bar(num_lanes, progress) as bar:
        for part, plan in zip(parts, plans, strict=True):
            for flat, leaves in _run(part, parsed, plan, mesh, num_devices):
                store.write(flat, leaves)
                bar.update(len(flat))
    return SweepResult(parsed, store.values(tuple(axis.size for axis in parsed)))


def refuse_tracing(call: str) -> None:
    """Refuse to run under a transformation: chunks are the host's affair."""
    if _jaxprs.is_tracing():
        raise TypeError(
            f"{call}: it cannot run under jit, vmap or grad, since it plans chunks on "
            "the host; call it outside, or map with `jax.vmap(function, "
            "in_axes=sweeps.axes_of(...))`."
        )


def as_mesh(call: str, mesh: Any) -> Mesh | None:
    """Return the mesh to use: the one given, one of all local devices, or None."""
    if mesh is None:
        devices = jax.local_devices()
        return Mesh(np.asarray(devices), ("lanes",)) if len(devices) > 1 else None
    if not isinstance(mesh, Mesh):
        raise TypeError(
            f"{call}: `mesh` must be a `jax.sharding.Mesh`, got {_checks.brief(mesh)}."
        )
    return mesh


# -------------------------------------------------------------------- private helpers


class _Part(NamedTuple):
    """The lanes that one program serves."""

    groups: tuple[Group, ...]
    program: LaneProgram

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(len(group.positions) for group in self.groups)


def _part(
    call: str, function: Any, axes: tuple[Axis, ...], groups: tuple[Group, ...]
) -> _Part:
    arguments = {
        name: member.tree
        for axis, group in zip(axes, groups, strict=True)
        for name, member in zip(axis.names, group.members, strict=True)
    }
    return _Part(groups, lane_program(call, function, arguments))


def _plan(
    call: str, part: _Part, num_lanes: int, num_devices: int, max_bytes: int
) -> memory.Plan:
    # The results of all parts are kept, the chunks are those of one.
    need = part.program.need
    own = math.prod(part.sizes)
    kept = need.result * (num_lanes - own) if jax.default_backend() == "cpu" else 0
    return memory.plan_chunks(call, need, own, num_devices, max_bytes - kept)


def _run(
    part: _Part,
    axes: tuple[Axis, ...],
    plan: memory.Plan,
    mesh: Mesh | None,
    num_devices: int,
) -> Iterator[tuple[np.ndarray, list[Any]]]:
    """Yield, chunk by chunk, which lanes were run and the leaves of their results."""
    own, step = math.prod(part.sizes), plan.chunk * num_devices
    sizes = [axis.size for axis in axes]
    started: collections.deque[Any] = collections.deque()
    for begin in range(0, own, step):
        # The last chunk repeats its last lane, so that it needs no program of its own.
        numbers = np.minimum(np.arange(begin, begin + step), own - 1)
        places = np.unravel_index(numbers, part.sizes)
        rows = [
            member.rows[place]
            for group, place in zip(part.groups, places, strict=True)
            for member in group.members
        ]
        positions = [
            group.positions[place]
            for group, place in zip(part.groups, places, strict=True)
        ]
        flat = np.ravel_multi_index(positions, sizes)[: own - begin]
        started.append((flat, part.program.run(rows, mesh)))
        if len(started) > 1:
            yield started.popleft()
    yield from started


class _Store:
    """The results of all lanes, on the host."""

    def __init__(self, shapes: PyTree, num_lanes: int) -> None:
        self._structure = jax.tree.structure(shapes)
        self._num_lanes = num_lanes
        self._impls: list[Any] = []
        self._arrays: list[np.ndarray] | None = None

    def write(self, flat: np.ndarray, leaves: list[Any]) -> None:
        blocks = [
            np.asarray(jax.random.key_data(leaf) if _tree.is_key(leaf) else leaf)
            for leaf in leaves
        ]
        if self._arrays is None:
            self._impls = [
                jax.random.key_impl(leaf) if _tree.is_key(leaf) else None
                for leaf in leaves
            ]
            self._arrays = [
                np.empty((self._num_lanes, *block.shape[1:]), block.dtype)
                for block in blocks
            ]
        is_run = flat[-1] - flat[0] == len(flat) - 1
        where = slice(flat[0], flat[-1] + 1) if is_run else flat
        for array, block in zip(self._arrays, blocks, strict=True):
            array[where] = block[: len(flat)]

    def values(self, sizes: tuple[int, ...]) -> PyTree:
        leaves = [
            array.reshape(*sizes, *array.shape[1:]) for array in self._arrays or []
        ]
        whole = [
            leaf
            if impl is None
            else jax.random.wrap_key_data(jnp.asarray(leaf), impl=impl)
            for leaf, impl in zip(leaves, self._impls, strict=True)
        ]
        return jax.tree.unflatten(self._structure, whole)


def _bar(total: int, progress: bool) -> Any:
    from tqdm.auto import tqdm

    hidden = not progress or jax.process_index() > 0
    return tqdm(total=total, unit="lanes", disable=hidden)


def _check_names(call: str, function: Any, names: list[str]) -> None:
    try:
        signature = inspect.signature(function)
        signature.bind(**dict.fromkeys(names))
    except ValueError:  # a builtin without a signature
        return
    except TypeError as error:
        raise TypeError(
            f"{call}: `function` is called with the names of the axes, "
            f"{', '.join(names)}, but its signature is "
            f"{_user_code.plain_signature(function)}: {error}."
        ) from error


def _check_same(call: str, axes: tuple[Axis, ...], parts: list[_Part]) -> None:
    """Refuse alternatives whose results cannot be joined."""
    first = parts[0].program.results
    for part in parts[1:]:
        other = part.program.results
        one, two = jax.tree.structure(first), jax.tree.structure(other)
        shapes = [
            [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(tree)]
            for tree in (first, other)
        ]
        if one == two and shapes[0] == shapes[1]:
            continue
        named = ", ".join(
            f"{axis.label}={axis.coordinates[0][group.positions[0]]}"
            for axis, group in zip(axes, part.groups, strict=True)
            if len(axis.groups) > 1
        )
        raise ValueError(
            f"{call}: `function` returns another structure for {named} than for the "
            "first alternatives, so their results cannot be joined: return what they "
            "share, such as `result.loss` and `result.status` of a fit."
        )
