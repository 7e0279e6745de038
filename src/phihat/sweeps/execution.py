"""The program of one lane, traced once, and its chunks, compiled once per size."""

import functools
import linecache
import traceback
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, PyTree

from phihat._core import tree as _tree
from phihat.sweeps import memory, vectorize
from phihat.sweeps.axes import functions_of, has_axis

__all__ = ["LaneProgram", "lane_program"]

_MAX_PROGRAMS = 64

_CONCRETE = (
    jax.errors.ConcretizationTypeError,  # the base of the errors about bools and ints
    jax.errors.TracerArrayConversionError,
    jax.errors.NonConcreteBooleanIndexError,
)


class LaneProgram:
    """A function of one lane with its numbers, to be run for many rows of them.

    Attributes:
      need: what one lane needs, as `memory.Bytes`.
      results: the shapes of what one lane returns, a pytree.
    """

    def __init__(self, code: "_Code", numbers: list[Any]) -> None:
        """Bind numbers to a traced function."""
        self._code = code
        self._numbers = [
            jnp.asarray(number) if isinstance(number, np.ndarray) else number
            for number in numbers
        ]
        self.need: memory.Bytes = code.need
        self.results: PyTree = code.results

    def run(self, rows: Sequence[np.ndarray], mesh: Mesh | None = None) -> list[Array]:
        """Start one chunk, without waiting for it.

        Args:
          rows: for each argument, which row of its arrays every lane takes [lanes].
          mesh: devices among which the lanes are divided.

        Returns:
          The leaves of the results, each `[lanes, ...]`.
        """
        program = self._code.chunk_program(mesh)
        return program(1.0, self._numbers, [np.asarray(row, np.int32) for row in rows])


def lane_program(call: str, function: Any, arguments: dict[str, PyTree]) -> LaneProgram:
    """Trace `function(**row)` for one lane, or find it traced before."""
    names = tuple(arguments)
    trees = tuple(arguments.values())
    key, numbers = _tree.split((function, trees))
    # Which argument each number comes from, or -1 where all lanes share it.
    marks = [(leaf, -1) for leaf in jax.tree.leaves(function)]
    for source, tree in enumerate(trees):
        leaves = jax.tree.leaves(tree)
        marks += [(leaf, source if has_axis(leaf) else -1) for leaf in leaves]
    owners = tuple(source for leaf, source in marks if _tree.is_number(leaf))
    functions = tuple(functions_of((function, trees)))
    avals = tuple(
        _row_shape(n, owner) for n, owner in zip(numbers, owners, strict=True)
    )
    code = _trace(call, key, names, owners, avals, functions, _flags())
    return LaneProgram(code, numbers)


def _row_shape(number: Any, owner: int) -> Hashable:
    if type(number) is float:
        return float
    shape = np.shape(number)[1:] if owner >= 0 else np.shape(number)
    dtype = (
        jax.dtypes.canonicalize_dtype(number.dtype)
        if not _tree.is_key(number)
        else number.dtype
    )
    return jax.ShapeDtypeStruct(shape, dtype)


def _flags() -> Hashable:
    """Return the settings of jax under which a trace is valid."""
    names = ("enable_x64", "numpy_dtype_promotion", "numpy_rank_promotion")
    names += ("default_matmul_precision", "debug_nans", "default_prng_impl")
    return tuple(getattr(jax.config, f"jax_{name}") for name in names)


class _Code:
    """One lane's jaxpr, and the jitted program of a chunk for each mesh."""

    def __init__(self, traced: Any, owners: tuple[int, ...]) -> None:
        self._closed = traced.jaxpr
        self._owners = owners
        self.results = traced.out_info
        is_mapped = [owner >= 0 for owner in owners]
        self.need = memory.bytes_per_lane(self._closed, is_mapped)
        self._is_last = self.need.loop <= _SMALL_LANE and vectorize.prefers_lanes_last(
            self._closed, is_mapped
        )
        self.chunk_program = functools.cache(self._chunk_program)

    def _chunk_program(self, mesh: Mesh | None) -> Callable[..., list[Array]]:
        chunk = self._run_last if self._is_last else self._run_first
        if mesh is not None:
            whole, split = PartitionSpec(), PartitionSpec(mesh.axis_names)
            chunk = jax.shard_map(
                chunk,
                mesh=mesh,
                in_specs=(whole, whole, split),
                out_specs=split,
                check_vma=False,
            )
            if mesh.is_multi_process:  # let every process see all results
                return jax.jit(chunk, out_shardings=NamedSharding(mesh, whole))
        return jax.jit(chunk)

    def _take(self, numbers: list[Any], rows: list[Array]) -> list[Any]:
        return [
            number if owner < 0 else number[rows[owner]]
            for number, owner in zip(numbers, self._owners, strict=True)
        ]

    def _run_first(self, one: Any, numbers: list[Any], rows: list[Array]) -> list[Any]:
        del one
        from jax.extend.core import jaxpr_as_fun  # slow to import

        in_axes = [0 if owner >= 0 else None for owner in self._owners]
        lane = jaxpr_as_fun(self._closed)
        return list(
            jax.vmap(lambda *row: tuple(lane(*row)), in_axes, axis_size=len(rows[0]))(
                *self._take(numbers, rows)
            )
        )

    def _run_last(self, one: Any, numbers: list[Any], rows: list[Array]) -> list[Any]:
        is_mapped = [owner >= 0 for owner in self._owners]
        taken = [
            jnp.moveaxis(array, 0, -1) if mapped else array
            for array, mapped in zip(self._take(numbers, rows), is_mapped, strict=True)
        ]
        results = vectorize.evaluate_lanes_last(
            self._closed, taken, is_mapped, len(rows[0]), one
        )
        return [jnp.moveaxis(result, -1, 0) for result in results]


_SMALL_LANE = 2**16
"""Bytes in the inner loop above which a lane fills vectors by itself."""


@functools.lru_cache(maxsize=_MAX_PROGRAMS)
def _trace(
    call: str,
    key: Any,
    names: tuple[str, ...],
    owners: tuple[int, ...],
    avals: tuple[Any, ...],
    functions: tuple[Any, ...],
    flags: Hashable,
) -> _Code:
    del functions, flags  # they tell traces apart

    def lane(*numbers: Any) -> Any:
        function, trees = _tree.merge(key, numbers)
        return function(**dict(zip(names, trees, strict=True)))

    shapes = [1.0 if aval is float else aval for aval in avals]
    try:
        traced = jax.jit(lane).trace(*shapes)
    except _CONCRETE as error:
        guilty = _find_guilty(lane, shapes, names, owners)
        raise TypeError(
            f"{call}: `function` needs the value of {guilty} while it is traced, at "
            f"{_place(error)}; use `jnp.where` or `jax.lax.cond`, or bind the value "
            "with `functools.partial` and sweep in a Python loop where it shapes the "
            "program."
        ) from error
    except TypeError as error:
        if "not a valid JAX type" not in str(error):
            raise
        raise TypeError(
            f"{call}: `function` must return a pytree of arrays and numbers: {error}"
        ) from error
    return _Code(traced, owners)


def _find_guilty(
    lane: Callable[..., Any],
    shapes: list[Any],
    names: tuple[str, ...],
    owners: tuple[int, ...],
) -> str:
    """Tell which axis must be known: trace each alone, with numbers for the others."""

    def concrete(shape: Any) -> Any:
        if isinstance(shape, float):
            return shape
        if jnp.issubdtype(shape.dtype, jax.dtypes.prng_key):
            return jax.random.split(jax.random.key(0), shape.shape)
        return jnp.ones(shape.shape, shape.dtype)

    known = [concrete(shape) for shape in shapes]
    for source, name in enumerate(names):
        chosen = [owner == source for owner in owners]

        def alone(*given: Any, chosen: list[bool] = chosen) -> Any:
            rest = iter(given)
            return lane(
                *(
                    next(rest) if mapped else value
                    for mapped, value in zip(chosen, known, strict=True)
                )
            )

        given = [s for s, mapped in zip(shapes, chosen, strict=True) if mapped]
        try:
            jax.eval_shape(alone, *given)
        except _CONCRETE:
            return f"`{name}`"
        except Exception:
            continue
    return "a number that depends on `" + "`, `".join(names) + "`"


def _place(error: BaseException) -> str:
    """Return the user's line that asked for the value."""
    frames = traceback.extract_tb(error.__traceback__)
    own = __file__.rsplit("sweeps", 1)[0]
    foreign = ("site-packages/jax/", "site-packages\\jax\\")
    outside = [
        frame
        for frame in frames
        if not frame.filename.startswith(own)
        and not any(part in frame.filename for part in foreign)
        and linecache.getline(frame.filename, frame.lineno or 0).strip()
    ]
    if not outside:
        return str(error).splitlines()[0]
    frame = outside[-1]
    return f'"{frame.line}" ({frame.filename}, line {frame.lineno})'
