"""The words that the rest of the library is written in."""

import enum
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from phihat._core import calls as _calls
from phihat._core import checks as _checks
from phihat._core import tables as _tables

__all__ = [
    "Batch",
    "Box",
    "LossFn",
    "ModelFn",
    "Params",
    "PyTree",
    "RandomKey",
    "Schedule",
    "Status",
]

if TYPE_CHECKING:  # to strict checkers jaxtyping's PyTree is an unknown type
    PyTree: TypeAlias = Any
else:
    from jaxtyping import PyTree

Params: TypeAlias = PyTree
"""Any pytree whose leaves are floating-point arrays or Python floats."""

Batch: TypeAlias = PyTree
"""`(x [I, ...], y [I, ...])` for the losses of phihat, else any pytree of arrays."""

ModelFn = Callable[..., Any]
"""`(params, x) -> prediction`, a pure function."""

LossFn = Callable[..., Any]
"""`(params, batch) -> []`, or `(params) -> []` where there are no data."""

Schedule = Callable[..., Any]
"""`step -> rate`, a pure function of the number of updates made so far."""

RandomKey = Key[Array, ""]
"""A typed key, as `jax.random.key(seed)` makes it."""


class Status(enum.IntEnum):
    """How a fit ended; compiled code returns it as an int32 and never raises.

    The statuses from `NONFINITE_LOSS` on mean that the fit failed.

    Example:
      >>> [status.name for status in Status if status >= Status.NONFINITE_LOSS]
      ['NONFINITE_LOSS', 'NONFINITE_GRADIENT', 'NONFINITE_PARAMS']
    """

    RUNNING = 0
    """Steps are left."""
    COMPLETED = 1
    """The budget of steps was used."""
    CONVERGED = 2
    """The tolerance was met."""
    STALLED = 3
    """The optimizer can make no further progress."""
    STOPPED = 4
    """A callback asked for the end, patience ran out, or a stream ended early."""
    INTERRUPTED = 5
    """Ctrl-C or a signal."""
    TIME_LIMIT = 6
    """The time limit was reached."""
    NONFINITE_LOSS = 7
    """The loss was infinite or NaN."""
    NONFINITE_GRADIENT = 8
    """A gradient entry was infinite or NaN."""
    NONFINITE_PARAMS = 9
    """The update would have made a parameter infinite or NaN."""


def _as_bounds(name: str, tree: PyTree) -> PyTree:
    """Turn lists of numbers into arrays, at any depth."""

    def is_list(node: Any) -> bool:
        return isinstance(node, list) and not any(
            isinstance(entry, (list, tuple, dict)) for entry in node
        )

    def convert(node: Any) -> Any:
        return _checks.as_floats("Box", name, node) if isinstance(node, list) else node

    return jax.tree.map(convert, tree, is_leaf=is_list)


@_calls.public
@jax.tree_util.register_pytree_with_keys_class
class Box:
    """A box in parameter or data space: every leaf lies between `low` and `high`.

    Args:
      low: the lower ends, a pytree like the thing it bounds; a scalar serves a whole
        leaf, and a list of numbers is one array. `-inf` leaves an end open.
      high: the upper ends, likewise; no entry may lie below that of `low`.

    Raises:
      ValueError: an entry of `low` lies above that of `high`, or is NaN; the
        shapes of two leaves differ.

    Example:
      >>> Box([-10.0, 2.5], [10.0, 22.5])
      Box(low=array([-10. ,   2.5]), high=array([10. , 22.5]))
    """

    low: PyTree
    high: PyTree

    def __init__(self, low: PyTree, high: PyTree) -> None:
        """Check and keep the two ends; lists of numbers become arrays."""
        self.low = _as_bounds("low", low)
        self.high = _as_bounds("high", high)
        self._check()

    def _check(self) -> None:
        low_leaves, low_tree = jax.tree_util.tree_flatten_with_path(self.low)
        high_leaves, high_tree = jax.tree_util.tree_flatten_with_path(self.high)
        if low_tree != high_tree:
            raise ValueError(
                "Box: `low` and `high` must be pytrees of the same structure, got "
                f"{low_tree} and {high_tree}."
            )
        for name, leaves in (("low", low_leaves), ("high", high_leaves)):
            for path, leaf in leaves:
                dtype = getattr(leaf, "dtype", None) or np.asarray(leaf).dtype
                is_real = jnp.issubdtype(dtype, jnp.floating)
                if not is_real and not jnp.issubdtype(dtype, jnp.integer):
                    where = jax.tree_util.keystr(path)
                    raise TypeError(
                        f"Box: `{name}{where}` must be a number or an array of "
                        f"numbers, got {_checks.brief(leaf)}."
                    )
        for (path, low), (_, high) in zip(low_leaves, high_leaves, strict=True):
            leaf = jax.tree_util.keystr(path)
            where = f" at leaf {leaf}" if leaf else ""
            try:
                np.broadcast_shapes(np.shape(low), np.shape(high))
            except ValueError:
                raise ValueError(
                    "Box: `low` and `high` must have the same shape, or one of them "
                    f"must be a number, got {list(np.shape(low))} and "
                    f"{list(np.shape(high))}{where}."
                ) from None
            if isinstance(low, jax.core.Tracer) or isinstance(high, jax.core.Tracer):
                continue
            if not np.all(np.asarray(low) <= np.asarray(high)):
                is_nan = np.isnan(low).any() or np.isnan(high).any()
                cure = "an open side is -inf or inf" if is_nan else "swap them"
                raise ValueError(
                    f"Box: `low` must not {'be NaN' if is_nan else 'lie above `high`'}"
                    f"{where}, got low={low} and high={high}; {cure}."
                )

    def __repr__(self) -> str:
        """Show both ends."""
        return f"Box(low={self.low!r}, high={self.high!r})"

    def _repr_html_(self) -> str:
        """Show a row for each leaf in a notebook."""
        lows = jax.tree_util.tree_flatten_with_path(self.low)[0]
        highs = jax.tree.leaves(self.high)
        rows = [
            (jax.tree_util.keystr(path), low, high)
            for (path, low), high in zip(lows, highs, strict=True)
        ]
        return _tables.table("Box", rows, ("", "low", "high"))

    def tree_flatten_with_keys(self) -> tuple[tuple[Any, Any], None]:
        """Flatten for jax; the ends are the children."""
        get = jax.tree_util.GetAttrKey
        return ((get("low"), self.low), (get("high"), self.high)), None

    @classmethod
    def tree_unflatten(cls, aux: None, children: tuple[PyTree, PyTree]) -> "Box":
        """Rebuild without checks: jax unflattens with tracers and placeholders."""
        del aux
        box = object.__new__(cls)
        box.low, box.high = children
        return box

    def clip(self, params: Params) -> Params:
        """Project `params` onto the box: each entry to the nearest inside.

        Example:
          >>> float(Box(0.0, 1.0).clip(jnp.asarray(3.0)))
          1.0
        """
        low, high = self.ends_like(params)
        return jax.tree.map(
            lambda leaf, low, high: jnp.clip(
                leaf, jnp.asarray(low, leaf.dtype), jnp.asarray(high, leaf.dtype)
            ),
            params,
            low,
            high,
        )

    def ends_like(self, params: Params) -> tuple[PyTree, PyTree]:
        """Return both ends with the structure of the params.

        Example:
          >>> Box(0.0, 1.0).ends_like({"a": 0.5, "b": 0.5})
          ({'a': 0.0, 'b': 0.0}, {'a': 1.0, 'b': 1.0})
        """
        return _spread(self.low, params), _spread(self.high, params)


def _spread(end: PyTree, params: Params) -> PyTree:
    """Let one scalar serve every leaf."""
    if jax.tree_util.all_leaves([end]) and jnp.ndim(end) == 0:
        return jax.tree.map(lambda _: end, params)
    return end
