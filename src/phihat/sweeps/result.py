"""What a sweep returns: values over named axes, the best of them, tables."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from phihat._core import checks as _checks
from phihat._core import pictures as _pictures
from phihat._core import tables as _tables
from phihat._core import tree as _tree
from phihat._core.types import PyTree, Status
from phihat._result_text import count_statuses
from phihat.results import FitResult
from phihat.sweeps.axes import Axis

__all__ = ["Lane", "SweepResult"]


class Lane(NamedTuple):
    """One lane of a sweep.

    Attributes:
      position: where it is on each axis.
      axes: what the function was called with, by name.
      values: what it returned.
    """

    position: dict[str, int]
    axes: dict[str, Any]
    values: PyTree


class SweepResult:
    """The values of a sweep over its axes.

    Attributes:
      values: what the function returned, leaves `[axis sizes..., ...]`, NumPy arrays.

    Example:
      >>> import jax.numpy as jnp
      >>> from phihat import sweep
      >>> axes = {"x": jnp.arange(3.0), "y": jnp.arange(2.0)}
      >>> print(sweep(lambda x, y: x - y, axes))
      SweepResult: 3 x * 2 y = 6 lanes
        value   -1 to 2, median 0.5, best at x=0, y=1
    """

    def __init__(self, axes: tuple[Axis, ...], values: PyTree) -> None:
        """Join parsed axes and values; `sweep` does so."""
        self._axes = axes
        self.values = values

    @property
    def axes(self) -> dict[str, np.ndarray]:
        """Coordinates by name, as numbers, texts for alternatives, else positions."""
        return {
            name: values
            for axis in self._axes
            for name, values in zip(axis.names, axis.coordinates, strict=True)
        }

    @property
    def sizes(self) -> dict[str, int]:
        """The length of each axis; one that zips names is called by all of them."""
        return {axis.label: axis.size for axis in self._axes}

    @property
    def shape(self) -> tuple[int, ...]:
        """The lengths of the axes, in order."""
        return tuple(axis.size for axis in self._axes)

    def best(
        self, by: str | Callable[[PyTree], Any] | None = None, *, largest: bool = False
    ) -> Lane:
        """Return the lane with the smallest value.

        NaN never wins, nor does a fit that failed, nor a lane whose own numbers hold a
        NaN, such as a rate.

        Args:
          by: the name of a value with one number per lane, such as "loss"; or a
            function from `values` to an array of the axes' shape. None where there is
            only one such value.
          largest: look for the largest instead.

        Raises:
          ValueError: no such value, more than one number per lane, or no lane has a
            finite one.

        Example:
          >>> import jax.numpy as jnp
          >>> from phihat import sweep
          >>> result = sweep(lambda x: 1.0 / x, {"x": jnp.asarray([0.0, 1.0, 4.0])})
          >>> print(result.best().axes["x"], result.best(largest=True).axes["x"])
          4.0 1.0
        """
        scores = self.scores_for("best", by)
        failed = _failed(self.values)
        finite = (
            np.isfinite(scores) if failed is None else np.isfinite(scores) & ~failed
        )
        finite &= ~self._is_nan()
        if not finite.any():
            raise ValueError("best: no lane has a finite value; look at the statuses.")
        bound = -np.inf if largest else np.inf
        ranked = np.where(finite, scores, bound)
        flat = int(np.argmax(ranked) if largest else np.argmin(ranked))
        place = tuple(int(i) for i in np.unravel_index(flat, self.shape))
        rows: dict[str, Any] = {}
        for axis, position in zip(self._axes, place, strict=True):
            rows |= axis.row(position)
        return Lane(
            position=dict(zip(self.sizes, place, strict=True)),
            axes=rows,
            values=jax.tree.map(lambda leaf: leaf[place], self.values),
        )

    def _is_nan(self) -> np.ndarray:
        """Tell which lanes have a NaN among the numbers of their axes."""
        found = np.zeros(self.shape, bool)
        for number, axis in enumerate(self._axes):
            rows = [axis.row(place) for place in range(self.shape[number])]
            is_nan = np.array(
                [any(map(_has_nan, jax.tree.leaves(row))) for row in rows]
            )
            shape = [1] * len(self.shape)
            shape[number] = -1
            found |= is_nan.reshape(shape)
        return found

    def scores(self, by: str | Callable[[PyTree], Any] | None = None) -> np.ndarray:
        """Return one number per lane, of the shape of the axes.

        Args:
          by: as in `best`.

        Raises:
          ValueError: no such value, or more than one number per lane.

        Example:
          >>> import jax.numpy as jnp
          >>> from phihat import sweep
          >>> print(sweep(lambda x: x * x, {"x": jnp.arange(3.0)}).scores())
          [0. 1. 4.]
        """
        return self.scores_for("scores", by)

    def scores_for(self, call: str, by: Any) -> np.ndarray:
        """Return `scores(by)` for another public function, which errors then name."""
        if callable(by):
            scores = np.asarray(by(self.values))
        else:
            leaves = dict(self._leaves())
            if by is None:
                named = [n for n, leaf in leaves.items() if leaf.shape == self.shape]
                if len(named) != 1:
                    raise ValueError(
                        f"{call}: name the value to compare `by`: one of "
                        f"{sorted(named)}."
                    )
                by = named[0]
            _checks.check_choice(call, "by", by, leaves)
            scores = leaves[by]
        if scores.shape != self.shape:
            raise ValueError(
                f"{call}: `by` must give one number per lane, shape "
                f"{list(self.shape)}, got shape {list(scores.shape)}."
            )
        return scores.astype(float)

    def select(self, **chosen: Any) -> "SweepResult":
        """Return the part of the sweep at these coordinates.

        Args:
          **chosen: by name, a coordinate, which drops the axis, or a function from
            coordinates to true or false, which keeps it.

        Raises:
          ValueError: there is no such axis, or no such coordinate on it.

        Example:
          >>> import jax.numpy as jnp
          >>> from phihat import sweep
          >>> axes = {"x": jnp.arange(3.0), "y": jnp.arange(2.0)}
          >>> part = sweep(lambda x, y: x - y, axes).select(x=lambda x: x > 0, y=1.0)
          >>> print(part.axes, part.values)
          {'x': array([1., 2.], dtype=float32)} [0. 1.]
        """
        axes, values = list(self._axes), self.values
        for name, wanted in chosen.items():
            _checks.check_choice("select", "name", name, self._names(axes))
            number = next(k for k, axis in enumerate(axes) if name in axis.names)
            axis = axes[number]
            coordinate = axis.coordinates[axis.names.index(name)]
            if callable(wanted):
                kept = np.flatnonzero([bool(wanted(entry)) for entry in coordinate])
                if not kept.size:
                    raise ValueError(f"select: no coordinate of {name!r} is chosen.")
                axes[number] = axis.take([int(place) for place in kept])
                values = _take(values, kept, number)
            else:
                values = _take(values, _find(name, coordinate, wanted), number)
                del axes[number]
        return SweepResult(tuple(axes), values)

    def plot(self, by: Any = None, *, axes: Any = None) -> Any:
        """Draw a value: over two axes a map, else slices along the longest axis.

        Args:
          by: as in `best`.
          axes: where to draw; a new figure by default.

        Returns:
          The axes, from `phihat.plot.sweep_map` or `phihat.plot.sweep_slices`.

        Raises:
          ImportError: matplotlib is missing.
          ValueError: no such value, or more than one number per lane.
        """
        self.scores_for("plot", by)
        name = "sweep_map" if len(self.shape) == 2 else "sweep_slices"
        return _pictures.draw(name, self, by, axes=axes)

    def to_xarray(self) -> Any:
        """Return an `xarray.Dataset`: a variable per leaf, named by its path.

        Raises:
          ImportError: xarray is not installed.
        """
        xarray = _checks.require("to_xarray", "xarray")
        variables = {}
        for name, leaf in self._leaves():
            inner = [f"{name}_{k}" for k in range(leaf.ndim - len(self.shape))]
            variables[name] = ([*self.sizes, *inner], leaf)
        coordinates = {
            name: (axis.label, values)
            for axis in self._axes
            for name, values in zip(axis.names, axis.coordinates, strict=True)
        }
        return xarray.Dataset(variables, coordinates)

    def to_pandas(self) -> Any:
        """Return a `pandas.DataFrame`: a row per lane, a column per name and number.

        Values with more than one number per lane are left out.

        Raises:
          ImportError: pandas is not installed.
        """
        pandas = _checks.require("to_pandas", "pandas")
        columns = {}
        places = np.unravel_index(np.arange(int(np.prod(self.shape))), self.shape)
        for axis, place in zip(self._axes, places, strict=True):
            for name, values in zip(axis.names, axis.coordinates, strict=True):
                columns[name] = values[place]
        for name, leaf in self._leaves():
            if leaf.shape == self.shape:
                columns[name] = leaf.ravel()
        return pandas.DataFrame(columns)

    def __repr__(self) -> str:
        """Show the axes, how the fits ended, and the range of each number."""
        product = " * ".join(f"{size} {name}" for name, size in self.sizes.items())
        lines = [f"SweepResult: {product or 'one'} = {np.prod(self.shape):g} lanes"]
        status = _statuses(self.values)
        if status is not None:
            lines.append(f"  status  {count_statuses(status)}")
        for name, leaf in self._leaves():
            if leaf.shape == self.shape and np.issubdtype(leaf.dtype, np.floating):
                lines.append(f"  {name:7} {self._range(name, leaf)}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """Show the report in a notebook."""
        return _tables.from_report(repr(self))

    def _range(self, name: str, leaf: np.ndarray) -> str:
        finite = leaf[np.isfinite(leaf)].astype(float)
        if not finite.size:
            return "never finite"
        low, middle, high = np.quantile(finite, [0.0, 0.5, 1.0])
        text = f"{low:.6g} to {high:.6g}, median {middle:.6g}"
        if finite.size < leaf.size:
            text += f", {leaf.size - finite.size} not finite"
        if not self._axes:
            return text
        try:
            best = self.best(name).position
        except ValueError:
            return text
        where = ", ".join(
            f"{one}={_tables.short(values[best[axis.label]])}"
            for axis in self._axes
            for one, values in zip(axis.names, axis.coordinates, strict=True)
        )
        return f"{text}, best at {where}"

    def _leaves(self) -> list[tuple[str, np.ndarray]]:
        """Return the leaves by name, such as `loss` or `history.loss`; no keys."""
        paths = jax.tree_util.tree_flatten_with_path(self.values)[0]
        return [
            (_name(path), np.asarray(leaf))
            for path, leaf in paths
            if not _tree.is_key(leaf)
        ]

    def _names(self, axes: Sequence[Axis]) -> list[str]:
        return [name for axis in axes for name in axis.names]


# -------------------------------------------------------------------- private helpers


def _name(path: Any) -> str:
    parts = []
    for entry in path:
        for attribute in ("key", "name", "idx"):
            if hasattr(entry, attribute):
                parts.append(str(getattr(entry, attribute)))
                break
    return ".".join(parts) or "value"


def _find(name: str, coordinate: np.ndarray, wanted: Any) -> int:
    (equal,) = np.nonzero(coordinate == wanted)
    if not equal.size and coordinate.dtype.kind == "f" and np.ndim(wanted) == 0:
        # A float32 coordinate is asked for by a float64.
        close = np.isclose(coordinate.astype(float), float(wanted), rtol=1e-6, atol=0.0)
        (equal,) = np.nonzero(close)
    if not equal.size:
        shown = ", ".join(str(entry) for entry in coordinate[:8])
        more = ", ..." if len(coordinate) > 8 else ""
        raise ValueError(
            f"select: {name!r} has no coordinate {wanted!r}; it has {shown}{more}."
        )
    return int(equal[0])


def _take(values: PyTree, places: Any, number: int) -> PyTree:
    before = (slice(None),) * number
    return jax.tree.map(lambda leaf: leaf[(*before, places)], values)


def _fits(values: PyTree) -> list[FitResult]:
    is_fit = lambda node: isinstance(node, FitResult)  # noqa: E731
    return [node for node in jax.tree.leaves(values, is_leaf=is_fit) if is_fit(node)]


def _statuses(values: PyTree) -> np.ndarray | None:
    """Return the statuses of the only fit in the values, or those under that name."""
    fits = _fits(values)
    if len(fits) == 1:
        return np.asarray(fits[0].status)
    if isinstance(values, dict) and "status" in values:
        status = np.asarray(values["status"])
        return status if status.dtype.kind == "i" else None
    return None


def _failed(values: PyTree) -> np.ndarray | np.bool_:
    status = _statuses(values)
    return np.False_ if status is None else status >= Status.NONFINITE_LOSS


def _has_nan(leaf: Any) -> bool:
    is_float = isinstance(leaf, float) or (
        hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.inexact)
    )
    return is_float and bool(np.isnan(np.asarray(leaf, float)).any())
