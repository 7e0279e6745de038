"""The arguments of `fit_curves`, brought to one form or refused by one sentence."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from phihat._core import checks as _checks
from phihat._core import tree as _tree
from phihat.curves import missing, model_checks
from phihat.curves.arrays import as_array, as_tree, refuse_traces
from phihat.curves.bounds import Bounds, as_bounds, as_free, check_start
from phihat.curves.options import Options
from phihat.curves.param_names import Layout, describe
from phihat.curves.problem import Problem
from phihat.curves.residuals import Inputs, Target
from phihat.curves.row_labels import start_by_label
from phihat.curves.weights import check_sigma, check_squares

__all__ = ["ManyProblems", "prepare_many"]


@dataclasses.dataclass(frozen=True)
class ManyProblems:
    """Many curves of one model.

    Attributes:
      model: `(params, x) -> prediction`; None where a pickle has lost it.
      layout: how the params of one curve lie in a vector.
      bounds: of all params, of every curve or of each.
      target: the structure of one y.
      start: all params, [N, P].
      inputs: the numbers; what is each curve's own has a leading axis N.
      is_own: of every leaf of `inputs`, whether it is each curve's own.
      y: the data, [N, ...].
      sigma: as `inputs` has one over it, or None.
      labels: of the curves, or None.
      options: what else was asked.
    """

    model: Any
    layout: Layout
    bounds: Bounds
    target: Target
    start: np.ndarray
    inputs: Inputs
    is_own: tuple[bool, ...]
    y: np.ndarray
    sigma: Any
    labels: Any
    options: Options

    @property
    def num_curves(self) -> int:
        """N."""
        return len(self.start)

    @property
    def num_points(self) -> np.ndarray:
        """How many real numbers of each y count, [N]."""
        mask = self.inputs.mask
        if mask is None:
            return np.full(self.num_curves, self.target.size)
        return np.sum(mask, axis=1)

    def rows(self, lanes: Any) -> list[Any]:
        """Return the leaves of `inputs` for some of the curves."""
        leaves = jax.tree.leaves(self.inputs)
        return [
            leaf[lanes] if own else leaf
            for leaf, own in zip(leaves, self.is_own, strict=True)
        ]

    def one(self, k: int) -> Problem:
        """Return the problem of one curve."""
        inputs = jax.tree.unflatten(jax.tree.structure(self.inputs), self.rows(k))
        sigma = self.sigma
        if isinstance(sigma, np.ndarray) and sigma.shape[:1] == (self.num_curves,):
            sigma = sigma[k] if sigma.ndim == self.y.ndim else sigma
        mask = inputs.mask
        y = self.y[k]
        if mask is not None:
            counts = self.target.unflatten(mask.astype(float)) != 0
            y = np.where(counts, y, np.nan)
        return Problem(
            model=self.model,
            layout=self.layout,
            bounds=self.bounds.of(k),
            target=self.target,
            start=self.start[k],
            inputs=inputs,
            x=inputs.x,
            y=y,
            sigma=sigma,
            options=dataclasses.replace(
                self.options,
                nan_policy="raise" if mask is None else "omit",
            ),
        )


def prepare_many(
    call: str,
    model: Any,
    x: Any,
    y: Any,
    start: Any,
    options: Options,
    *,
    mask: Any = None,
    sigma: Any = None,
    bounds: Any = None,
    fixed: Any = None,
) -> ManyProblems:
    """Check the arguments of `fit_curves` and return the problems that they make."""
    for name, value in (("start", start), ("x", x), ("y", y), ("mask", mask)):
        refuse_traces(call, name, value)
    if isinstance(model, (dict, list, tuple)):
        raise TypeError(
            f"{call}: `model` must be one function (params, x) for all curves; several "
            "data sets with shared params are for `fit_curve`."
        )
    model_checks.check_signature(call, model)
    model = _tree.as_partial(model, call, "model")
    if isinstance(sigma, bool):
        raise TypeError(f"{call}: `sigma` must be numbers, got {sigma}.")
    x, y, mask, sigma, labels = _align(call, x, y, mask, sigma)
    num_curves = len(y)
    start = _one_start(call, start_by_label(call, start, labels), num_curves)
    layout, values = describe(call, start, num_lanes=num_curves)
    box = as_bounds(call, layout, bounds, num_curves)
    layout = as_free(call, layout, fixed, box)
    values = check_start(call, layout, values, box)
    target = Target.of(y[0])
    inputs, is_own, sigma = _as_inputs(call, x, y, values, mask, sigma, options)
    many = ManyProblems(
        model=model,
        layout=layout,
        bounds=box,
        target=target,
        start=values,
        inputs=inputs,
        is_own=is_own,
        y=y,
        sigma=sigma,
        labels=labels,
        options=options,
    )
    layout.check_count(call, target.size, "points in each curve")
    model_checks.check_model(
        call,
        model,
        layout,
        target,
        many.one(0).inputs,
        options.dtype,
        num_curves=num_curves,
    )
    return many


# ------------------------------------------------------------------------- private


def _as_inputs(
    call: str,
    x: Any,
    y: np.ndarray,
    values: np.ndarray,
    mask: np.ndarray | None,
    sigma: Any,
    options: Options,
) -> tuple[Inputs, tuple[bool, ...], Any]:
    """Return the numbers, which of them are each curve's own, and sigma."""
    x, x_is_own = _own_x(call, x, y)
    flat = _flat(y)
    mask = _clean_mask(call, x, x_is_own, y, mask, options.nan_policy)
    if mask is not None:
        counts = mask
        x = jax.tree.map(lambda leaf, own: _filled(leaf, own, counts), x, x_is_own)
        repeat = 2 if np.iscomplexobj(y) else 1
        mask = np.concatenate([mask.reshape(len(y), -1)] * repeat, axis=1)
        flat = np.where(mask, flat, 0.0)
    sigma, scale, scale_is_own = _scale(call, sigma, y, mask)
    check_squares(call, flat, scale, options.dtype)
    one_x = jax.tree.map(lambda leaf, own: leaf[0] if own else leaf, x, x_is_own)
    model_checks.check_rounding(call, one_x, options.dtype)
    is_robust = options.loss != "linear"
    inputs = Inputs(
        x=x,
        y=flat,
        fixed=values,
        mask=mask,
        scale=scale,
        f_scale=np.asarray(options.f_scale) if is_robust else None,
    )
    is_own = Inputs(
        x=x_is_own,
        y=True,
        fixed=True,
        mask=None if mask is None else True,
        scale=None if scale is None else scale_is_own,
        f_scale=False if is_robust else None,
    )
    return inputs.cast(options.dtype), tuple(jax.tree.leaves(is_own)), sigma


def _one_start(call: str, start: Any, num_curves: int) -> Any:
    """Return a start for each curve, given as a list, as one tree."""
    is_list = isinstance(start, list) and all(isinstance(s, Mapping) for s in start)
    if not is_list or not start:
        return start
    if len({jax.tree.structure(entry) for entry in start}) > 1 or (
        len(start) != num_curves
    ):
        raise ValueError(
            f"{call}: `start` is a list of {len(start)} starts for {num_curves} "
            "curves; give one, or one for each with the same names in all."
        )
    stacked = jax.tree.map(lambda *rows: np.stack(rows), *start)
    return {name: stacked[name] for name in start[0]}


def _align(
    call: str, x: Any, y: Any, mask: Any, sigma: Any
) -> tuple[Any, np.ndarray, np.ndarray | None, Any, Any]:
    """Return x, y [N, I, ...], the mask, sigma and labels; pad curves of any length."""
    labels = None
    if isinstance(y, Mapping):
        labels = list(y)
        x, sigma = (
            [each[label] for label in labels]
            if isinstance(each, Mapping) and set(each) == set(y)
            else each
            for each in (x, sigma)
        )
        y = [y[label] for label in labels]
    elif hasattr(y, "columns") and hasattr(y, "index"):
        labels = list(y.index)
        y = y.to_numpy()
        if hasattr(x, "columns") and x.shape == y.shape:
            x = x.to_numpy()
    x, y = _with_empty_curves(x, y)
    is_list = isinstance(y, (list, tuple)) and all(np.ndim(row) == 1 for row in y)
    if is_list and len({len(row) for row in y}) > 1:
        x, y, mask, sigma = _pad(call, x, y, mask, sigma)
    elif isinstance(x, list) and x and all(np.ndim(row) >= 1 for row in x):
        x = as_array(call, "x", x)
    y = as_array(call, "y", y, allows_complex=True, copies=False)
    if y.size == 0:
        raise ValueError(
            f"{call}: `y` is empty, its shape is {list(y.shape)}: there is nothing to "
            "fit."
        )
    if y.ndim < 2:
        raise ValueError(
            f"{call}: `y` must be [N, I], a row for each curve, got shape "
            f"{list(y.shape)}; one curve is for `fit_curve`."
        )
    if mask is not None:
        mask = np.asarray(mask)
        if mask.dtype.kind != "b" or mask.shape not in (y.shape, y.shape[:2]):
            raise ValueError(
                f"{call}: `mask` must be bools of the shape of y, {list(y.shape)}, "
                f"True where a point counts, got {_checks.brief(mask)}."
            )
        mask = np.broadcast_to(
            mask.reshape(mask.shape + (1,) * (y.ndim - mask.ndim)), y.shape
        )
    return x, y, mask, sigma, labels


def _with_empty_curves(x: Any, y: Any) -> tuple[Any, Any]:
    """Let None and empty rows be curves without points, each with an x like it."""
    if not isinstance(y, (list, tuple)) or not all(
        row is None or np.ndim(row) >= 1 for row in y
    ):
        return x, y
    is_empty = [row is None or np.size(row) == 0 for row in y]
    if not any(is_empty) or all(is_empty):
        return x, y
    nothing = np.zeros(0)
    y = [nothing if empty else row for row, empty in zip(y, is_empty, strict=True)]
    if isinstance(x, Mapping) or not hasattr(x, "__len__"):
        return x, y
    is_own = len(x) == len(y) and any(np.ndim(row) for row in x if row is not None)
    x = list(x) if is_own else [x] * len(y)
    x = [nothing if empty else row for row, empty in zip(x, is_empty, strict=True)]
    return x, y


def _pad(
    call: str, x: Any, y: Any, mask: Any, sigma: Any
) -> tuple[Any, np.ndarray, np.ndarray, Any]:
    if mask is not None:
        raise ValueError(
            f"{call}: `mask` and curves of several lengths do not go together: the "
            "lengths tell what counts."
        )
    lengths = [len(row) for row in y]
    if not _has_lengths(x, lengths):
        raise ValueError(
            f"{call}: `y` has curves of {min(lengths)} to {max(lengths)} points "
            f"({min(lengths)} in curve {lengths.index(min(lengths))}), so `x` must be "
            "a list too, with one x of the same length for each."
        )
    longest = max(lengths)
    counts = np.arange(longest)[None] < np.array(lengths)[:, None]

    def pad(name: str, rows: Any, **kinds: bool) -> np.ndarray:
        arrays = [
            as_array(call, f"{name}[{k}]", row, **kinds) for k, row in enumerate(rows)
        ]
        mode = lambda row: "edge" if row.size else "constant"  # noqa: E731
        padded = [
            np.pad(row, (0, longest - row.size), mode=mode(row)) for row in arrays
        ]
        return np.stack(padded)

    if _has_lengths(sigma, lengths):
        sigma = pad("sigma", sigma)
    return pad("x", x), pad("y", y, allows_complex=True), counts, sigma


def _has_lengths(rows: Any, lengths: list[int]) -> bool:
    is_list = isinstance(rows, (list, tuple)) and len(rows) == len(lengths)
    return is_list and [np.size(row) for row in rows] == lengths


def _own_x(call: str, x: Any, y: np.ndarray) -> tuple[PyTree, PyTree]:
    """Return x as a tree, and which of its leaves are each curve's own."""
    x = as_tree(call, "x", x)
    own = jax.tree.map(lambda leaf: leaf.shape[:2] == y.shape[:2], x)
    if isinstance(x, np.ndarray) and not own and y.shape[1] not in x.shape:
        transposed = y.ndim == 2 and y.shape[0] in x.shape
        cure = "; curves are the rows of y, so pass `y.T`" if transposed else ""
        raise ValueError(
            f"{call}: `x` has shape {list(x.shape)}, but each row of y "
            f"{list(y.shape)} has {y.shape[1]} points{cure}."
        )
    return x, own


def _flat(y: np.ndarray) -> np.ndarray:
    rows = y.reshape(len(y), -1)
    if np.iscomplexobj(rows):
        return np.concatenate([np.real(rows), np.imag(rows)], axis=1)
    return rows


def _clean_mask(
    call: str,
    x: PyTree,
    is_own: PyTree,
    y: np.ndarray,
    mask: np.ndarray | None,
    policy: str,
) -> np.ndarray | None:
    """Return which entries of y count, [N, I, ...], or None where all do."""
    if policy == "propagate":
        return mask
    counted = y if mask is None else np.where(mask, y, 0.0)
    own = jax.tree.leaves(is_own)
    leaves = jax.tree.leaves(x)
    shown = [
        leaf
        if mask is None or not is_each
        else np.where(_rows_of(mask, leaf), leaf, 0.0)
        for leaf, is_each in zip(leaves, own, strict=True)
    ]
    missing.check_finite(call, "y", counted, allows_nan=policy == "omit")
    for leaf in shown:
        missing.check_finite(call, "x", leaf, allows_nan=policy == "omit")
    counts = np.array(~np.isnan(counted))
    if mask is not None:
        counts &= mask
    for leaf, is_each in zip(shown, own, strict=True):
        if not np.isnan(leaf).any():
            continue
        if not is_each and leaf.shape[0] != y.shape[1]:
            raise ValueError(
                f"{call}: `x` holds NaN, but its shape {list(leaf.shape)} does not "
                "tell which points they belong to; leave those out yourself."
            )
        axis = 2 if is_each else 1
        bad = np.isnan(leaf).reshape((*leaf.shape[:axis], -1)).any(-1)
        bad = np.broadcast_to(bad, y.shape[:2])
        counts &= ~bad.reshape(bad.shape + (1,) * (y.ndim - 2))
    return None if counts.all() else counts


def _rows_of(mask: np.ndarray, leaf: np.ndarray) -> np.ndarray:
    rows: Any = mask.reshape((*mask.shape[:2], -1)).any(-1)
    return rows.reshape(rows.shape + (1,) * (leaf.ndim - 2))


def _filled(leaf: np.ndarray, is_own: bool, mask: np.ndarray) -> np.ndarray:
    """Replace those x that do not count by a neighbour that does."""
    if not is_own:
        bad = np.isnan(leaf)
        if not bad.any():
            return leaf
        rows: Any = bad.reshape(len(leaf), -1).any(1)
        return missing.fill(leaf, rows, 0) if not rows.all() else leaf
    rows: Any = mask.reshape((*mask.shape[:2], -1)).any(-1)
    filled = leaf.copy()
    for k in np.flatnonzero(~rows.all(1) & rows.any(1)):
        filled[k] = missing.fill(leaf[k], ~rows[k], 0)
    return filled


def _scale(
    call: str, sigma: Any, y: np.ndarray, mask: np.ndarray | None
) -> tuple[Any, np.ndarray | None, bool]:
    """Return sigma, one over it, and whether it is each curve's own."""
    if sigma is None:
        return None, None, False
    sigma = as_array(call, "sigma", sigma)
    if sigma.ndim == 0:
        check_sigma(call, sigma, None)
        return sigma, 1.0 / sigma, False
    repeat = 2 if np.iscomplexobj(y) else 1
    if sigma.shape in (y.shape[1:2], y.shape[1:]) and sigma.shape != y.shape:
        check_sigma(call, sigma, None)
        columns = sigma.reshape(sigma.shape + (1,) * (y.ndim - 1 - sigma.ndim))
        flat = np.broadcast_to(columns, y.shape[1:]).ravel()
        return sigma, 1.0 / np.concatenate([flat] * repeat), False
    per_curve = sigma.ndim == 2 and sigma.shape == (len(y), 1)
    if sigma.shape not in (y.shape, y.shape[:2]) and not per_curve:
        raise ValueError(
            f"{call}: `sigma` must be one number, [I] for all curves, [N, 1] or "
            f"[N, I], where y is {list(y.shape)}, got shape {list(sigma.shape)}."
        )
    columns = sigma.reshape(sigma.shape + (1,) * (y.ndim - sigma.ndim))
    full = np.broadcast_to(columns, y.shape)
    flat = np.concatenate([full.reshape(len(y), -1)] * repeat, axis=1)
    check_sigma(call, flat.ravel(), None if mask is None else mask.ravel())
    counts = True if mask is None else mask
    return full, np.where(counts, 1.0 / np.where(counts, flat, 1.0), 0.0), True
