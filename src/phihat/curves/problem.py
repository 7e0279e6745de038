"""The arguments of `fit_curve`, brought to one form or refused by one sentence.

Example:
  >>> from phihat.curves import problem
  >>> line = lambda params, x: params["slope"] * x
  >>> found = problem.prepare("fit_curve", line, [1, 2], [2, 4], {"slope": 1})
  >>> found.layout.free_names, found.start, found.inputs.y
  (['slope'], array([1.]), array([2., 4.]))
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import scipy.linalg
from jax.tree_util import Partial
from jaxtyping import PyTree

from phihat._core import checks as _checks
from phihat._core import programs as _programs
from phihat._core import tree as _tree
from phihat._core.types import Box
from phihat._engine import spec as _spec
from phihat.curves import missing, model_checks, robust
from phihat.curves.arrays import as_array, as_tree, refuse_traces
from phihat.curves.param_names import Layout, describe, entries_of, one_tree
from phihat.curves.residuals import Inputs, Target, each_model

__all__ = [
    "Bounds",
    "Options",
    "Problem",
    "as_bounds",
    "as_dtype",
    "as_free",
    "as_model",
    "check_options",
    "check_start",
    "prepare",
    "refuse_jit",
]


class Bounds(NamedTuple):
    """The bounds of all params, infinite where there is none, each [P]."""

    low: np.ndarray
    high: np.ndarray

    @property
    def are_open(self) -> bool:
        """Whether there is no bound at all."""
        return bool(np.isinf(self.low).all() and np.isinf(self.high).all())


@dataclasses.dataclass(frozen=True)
class Options:
    """What was asked beside the data.

    Attributes:
      absolute_sigma: sigma is known, and not only up to a factor.
      loss: one of `robust.LOSSES`.
      f_scale: where robust losses begin to bend.
      nan_policy: "raise", "omit" or "propagate".
      tolerance: as in `fit`.
      num_steps: the budget.
      dtype: of the computation.
    """

    absolute_sigma: bool
    loss: str
    f_scale: float
    nan_policy: str
    tolerance: Any
    num_steps: int
    dtype: Any


@dataclasses.dataclass(frozen=True)
class Problem:
    """One curve, its arrays in NumPy.

    Attributes:
      model: `(params, x) -> prediction`.
      layout: how the params lie in a vector.
      bounds: of all params.
      target: the structure of y.
      start: all params, [P].
      inputs: the numbers.
      x: as it was given, in float64.
      y: as it was given, in float64, a tree.
      sigma: as it was given, in float64, or None.
      options: what else was asked.
    """

    model: Partial
    layout: Layout
    bounds: Bounds
    target: Target
    start: np.ndarray
    inputs: Inputs
    x: PyTree
    y: PyTree
    sigma: Any
    options: Options

    @property
    def num_points(self) -> int:
        """How many real numbers of y count."""
        mask = self.inputs.mask
        return self.target.size if mask is None else int(np.sum(mask))


def prepare(
    call: str,
    model: Any,
    x: Any,
    y: Any,
    start: Any,
    *,
    sigma: Any = None,
    absolute_sigma: bool = False,
    bounds: Any = None,
    fixed: Any = None,
    loss: str = "linear",
    f_scale: Any = 1.0,
    nan_policy: str = "raise",
    tolerance: Any = None,
    num_steps: int = 1000,
    dtype: Any = None,
) -> Problem:
    """Check the arguments of `fit_curve` and return the problem that they make."""
    refuse_jit(call)
    options = check_options(
        call,
        absolute_sigma=absolute_sigma,
        loss=loss,
        f_scale=f_scale,
        nan_policy=nan_policy,
        tolerance=tolerance,
        num_steps=num_steps,
        dtype=dtype,
        has_sigma=sigma is not None,
    )
    refuse_traces(call, "start", start)
    layout, values = describe(call, start)
    x, y = as_tree(call, "x", x), as_tree(call, "y", y, allows_complex=True)
    model = as_model(call, model, x, y)
    box = as_bounds(call, layout, bounds)
    layout = as_free(call, layout, fixed, box)
    values = check_start(call, layout, values, box)
    target = Target.of(y)
    if target.size == 0:
        raise ValueError(
            f"{call}: `y` has no rows: there is nothing to fit; look at the filter "
            "that made it."
        )
    missing.check_rows(call, x, y)
    clean = missing.remove(call, x, y, options.nan_policy)
    scale, whitener = _weights(call, sigma, y, target, clean.mask)
    inputs = Inputs(
        x=clean.x,
        y=clean.y,
        fixed=values,
        mask=clean.mask,
        scale=scale,
        whitener=whitener,
        f_scale=None if loss == "linear" else np.asarray(options.f_scale),
    )
    problem = Problem(
        model=model,
        layout=layout,
        bounds=box,
        target=target,
        start=values,
        inputs=_cast(inputs, options.dtype),
        x=x,
        y=y,
        sigma=None if sigma is None else as_tree(call, "sigma", sigma),
        options=options,
    )
    num_free = len(layout.free_names)
    if problem.num_points < num_free:
        raise ValueError(
            f"{call}: {problem.num_points} data points cannot fit {num_free} params "
            f"({', '.join(layout.free_names)}); measure more, or hold some by `fixed=`."
        )
    model_checks.check_model(call, model, layout, target, inputs, options.dtype)
    return problem


def refuse_jit(call: str) -> None:
    """Refuse to work inside a transformation, with the cure."""
    if _programs.is_tracing():
        raise TypeError(
            f"{call}: it returns NumPy and works outside of jit, vmap and grad; "
            "inside them call `phihat.fit` with `levenberg_marquardt()` and "
            "`losses.least_squares(model)`."
        )


def check_options(
    call: str,
    *,
    absolute_sigma: Any,
    loss: Any,
    f_scale: Any,
    nan_policy: Any,
    tolerance: Any,
    num_steps: Any,
    dtype: Any,
    has_sigma: bool,
) -> Options:
    """Check what was asked beside the data."""
    if not isinstance(absolute_sigma, (bool, np.bool_)):
        raise TypeError(
            f"{call}: `absolute_sigma` must be True or False, got "
            f"{_checks.brief(absolute_sigma)}."
        )
    if absolute_sigma and not has_sigma:
        raise ValueError(
            f"{call}: `absolute_sigma` is True but there is no `sigma`; pass the "
            "standard deviations of y, such as `sigma=0.1`."
        )
    _checks.check_choice(call, "loss", loss, robust.LOSSES)
    _checks.check_choice(call, "nan_policy", nan_policy, ("raise", "omit", "propagate"))
    number = as_array(call, "f_scale", f_scale)
    if number.ndim:
        raise ValueError(
            f"{call}: `f_scale` must be one number, got {_checks.brief(number)}."
        )
    _checks.check_range(call, "f_scale", float(number), 0.0, include_low=False)
    if loss == "linear" and float(number) != 1.0:
        raise ValueError(
            f"{call}: `f_scale` has no effect with loss='linear'; choose a robust loss "
            f"among {list(robust.LOSSES[1:])}."
        )
    return Options(
        absolute_sigma=bool(absolute_sigma),
        loss=loss,
        f_scale=float(number),
        nan_policy=nan_policy,
        tolerance=_spec.as_tolerance(call, tolerance),
        num_steps=_checks.check_count(call, "num_steps", num_steps),
        dtype=as_dtype(call, dtype),
    )


def as_dtype(call: str, dtype: Any) -> Any:
    """Return float64 unless float32 is asked for."""
    try:
        found = np.dtype(np.float64 if dtype is None else dtype)
    except (TypeError, ValueError):
        found = None
    # None equals float64, as NumPy compares them.
    if found is None or found not in (np.dtype(np.float64), np.dtype(np.float32)):
        raise ValueError(
            f"{call}: `dtype` must be float64 or float32, got {_checks.brief(dtype)}."
        )
    return found


def as_model(call: str, model: Any, x: PyTree, y: PyTree) -> Partial:
    """Return the model, or one for each of several data sets, as one `Partial`."""
    if not isinstance(model, (dict, list, tuple)):
        model_checks.check_signature(call, model)
        return _tree.as_partial(model, call, "model")
    models = dict(model) if isinstance(model, dict) else tuple(model)
    keys = list(models) if isinstance(models, dict) else range(len(models))
    for key in keys:
        model_checks.check_signature(call, models[key])
    for name, part in (("x", x), ("y", y)):
        fits = isinstance(part, type(models)) and len(part) == len(models)
        if not fits or (isinstance(models, dict) and set(part) != set(models)):
            raise ValueError(
                f"{call}: with a model for each data set, `{name}` must be a "
                f"{type(models).__name__} with the same entries, {list(keys)}."
            )
    wrap = lambda entry: _tree.as_partial(entry, call, "model")  # noqa: E731
    wrapped = (
        {key: wrap(entry) for key, entry in models.items()}
        if isinstance(models, dict)
        else tuple(map(wrap, models))
    )
    return Partial(each_model, wrapped)


def as_bounds(call: str, layout: Layout, bounds: Any) -> Bounds:
    """Return the bounds of all params, from a Box, a dict or a pair."""
    low, high = np.full(layout.size, -np.inf), np.full(layout.size, np.inf)
    if bounds is None:
        return Bounds(low, high)
    if isinstance(bounds, Mapping):
        for name, pair in bounds.items():
            places = entries_of(call, "bounds", layout, name)
            if isinstance(pair, str) or np.shape(pair) != (2,):
                raise ValueError(
                    f"{call}: `bounds` of {name!r} must be a pair (low, high), with "
                    f"None for an open side, got {_checks.brief(pair)}."
                )
            low[places], high[places] = _ends(call, name, *pair)
    else:
        if not isinstance(bounds, Box) and not _is_pair(bounds):
            raise TypeError(
                f"{call}: `bounds` must be a dict such as {{'rate': (0, None)}} or a "
                f"Box, got {_checks.brief(bounds)}."
            )
        is_box = isinstance(bounds, Box)
        ends = (bounds.low, bounds.high) if is_box else tuple(bounds)
        trees = [one_tree(call, "bounds", layout, end) for end in ends]
        for place, name in enumerate(layout.names):
            low[place], high[place] = _ends(
                call, name, *(tree[place] for tree in trees)
            )
    return Bounds(low, high)


def as_free(call: str, layout: Layout, fixed: Any, bounds: Bounds) -> Layout:
    """Return the layout without what is fixed, by name or by bounds that agree."""
    held = bounds.low == bounds.high
    if fixed is not None:
        held |= _fixed_places(call, layout, fixed)
    if held.all():
        raise ValueError(
            f"{call}: all params are fixed ({', '.join(layout.names)}): there is "
            "nothing to fit; call the model itself."
        )
    return layout.with_free(~held)


def check_start(
    call: str, layout: Layout, values: np.ndarray, bounds: Bounds
) -> np.ndarray:
    """Check that the start lies within the bounds; put held params at theirs."""
    agree = bounds.low == bounds.high
    values = np.where(agree, bounds.low, values)
    outside = (values < bounds.low) | (values > bounds.high)
    outside = outside.reshape(-1, layout.size).any(0)
    if outside.any():
        place = int(np.flatnonzero(outside)[0])
        rows = values.reshape(-1, layout.size)[:, place]
        low, high = bounds.low[place], bounds.high[place]
        worst = rows[(rows < low) | (rows > high)][0]
        raise ValueError(
            f"{call}: `start` has {layout.names[place]} = {worst:g}, outside of its "
            f"bounds ({low:g}, {high:g}); start inside them."
        )
    return values


# ------------------------------------------------------------------------- private


def _is_pair(bounds: Any) -> bool:
    return isinstance(bounds, (list, tuple)) and len(bounds) == 2


def _ends(call: str, name: Any, low: Any, high: Any) -> tuple[float, float]:
    ends = []
    for end, missing_end in ((low, -np.inf), (high, np.inf)):
        number = as_array(call, "bounds", missing_end if end is None else end)
        if number.ndim:
            raise ValueError(
                f"{call}: `bounds` of {name!r} must be two numbers, got "
                f"{_checks.brief(end)}."
            )
        ends.append(float(number))
    if not ends[0] <= ends[1] or np.isposinf(ends[0]) or np.isneginf(ends[1]):
        raise ValueError(
            f"{call}: `bounds` of {name!r} must be (low, high) with low <= high, got "
            f"({ends[0]:g}, {ends[1]:g}); swap them."
        )
    return ends[0], ends[1]


def _fixed_places(call: str, layout: Layout, fixed: Any) -> np.ndarray:
    held = np.zeros(layout.size, bool)
    if isinstance(fixed, str):
        fixed = [fixed]
    is_names = isinstance(fixed, (list, tuple, set, frozenset)) and all(
        isinstance(name, str) for name in fixed
    )
    if is_names:
        for name in fixed:
            held[entries_of(call, "fixed", layout, name)] = True
        return held
    if isinstance(fixed, Mapping) and all(
        isinstance(flag, (bool, np.bool_)) for flag in fixed.values()
    ):
        for name, flag in fixed.items():
            held[entries_of(call, "fixed", layout, name)] = flag
        return held
    numbers = one_tree(call, "fixed", layout, fixed)
    if not all(isinstance(flag, (bool, np.bool_)) for flag in numbers):
        raise TypeError(
            f"{call}: `fixed` must be names, such as ['offset'], or a tree of bools "
            f"like `start`, got {_checks.brief(fixed)}; the value that a param is "
            "fixed at is the one in `start`."
        )
    return numbers.astype(bool)


def _weights(
    call: str, sigma: Any, y: PyTree, target: Target, mask: np.ndarray | None
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Return one over sigma, [n] or [], or the whitener of a covariance [n, n]."""
    if sigma is None:
        return None, None
    sigma = as_tree(call, "sigma", sigma, allows_complex=True)
    one_leaf = isinstance(y, np.ndarray) and isinstance(sigma, np.ndarray)
    if one_leaf and sigma.ndim == 2 and sigma.shape == (y.size, y.size) != y.shape:
        return None, _whitener(call, sigma, target, mask)
    if isinstance(sigma, np.ndarray) and sigma.ndim == 0:
        check_sigma(call, sigma, None)
        return 1.0 / np.real(sigma), None
    if jax.tree.structure(sigma) != target.structure:
        raise ValueError(
            f"{call}: `sigma` must be one number or have the structure of y, "
            f"{target.structure}, got {jax.tree.structure(sigma)}."
        )
    spreads = []
    leaves = zip(jax.tree.leaves(sigma), jax.tree.leaves(y), strict=True)
    for spread, data in leaves:
        full = spread_rows(call, spread, data.shape)
        if np.iscomplexobj(data) and not np.iscomplexobj(full):
            full = full + 1j * full
        spreads.append(full)
    flat = target.flatten(jax.tree.unflatten(target.structure, spreads))
    check_sigma(call, flat, mask)
    counts = True if mask is None else mask
    return np.where(counts, 1.0 / np.where(counts, flat, 1.0), 0.0), None


def spread_rows(call: str, sigma: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Give a sigma for each row the shape of y."""
    if sigma.shape not in ((), shape[:1], shape):
        raise ValueError(
            f"{call}: `sigma` must be one number, one per row or one per entry of y "
            f"{list(shape)}, or a covariance, got shape {list(sigma.shape)}."
        )
    columns = sigma.reshape(sigma.shape + (1,) * (len(shape) - sigma.ndim))
    return np.broadcast_to(columns, shape)


def check_sigma(call: str, sigma: np.ndarray, mask: np.ndarray | None) -> None:
    """Check that standard deviations are positive and finite where they count."""
    parts = [np.real(sigma), np.imag(sigma)] if np.iscomplexobj(sigma) else [sigma]
    for part in parts:
        bad = ~((part > 0) & np.isfinite(part))
        if mask is not None:
            bad &= mask
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            value = np.ravel(part)[row]
            at = f" in row {row}" if part.ndim else ""
            raise ValueError(
                f"{call}: `sigma` must be positive and finite, got {value:g}{at}; a "
                "row that should not count is NaN in y, with nan_policy='omit'."
            )


def _whitener(
    call: str, sigma: np.ndarray, target: Target, mask: np.ndarray | None
) -> np.ndarray:
    if any(target.complexes):
        raise ValueError(
            f"{call}: `sigma` as a covariance needs a real y; give one sigma per entry."
        )
    kept = sigma.copy()
    if mask is not None:  # what does not count is independent of the rest
        kept[~mask] = 0.0
        kept[:, ~mask] = 0.0
        kept[~mask, ~mask] = 1.0
    is_good = np.isfinite(kept).all() and np.allclose(kept, kept.T, rtol=1e-8, atol=0)
    try:
        factor = np.linalg.cholesky(kept) if is_good else None
    except np.linalg.LinAlgError:
        factor = None
    if factor is None:
        raise ValueError(
            f"{call}: `sigma` as a covariance {list(sigma.shape)} must be symmetric "
            "and positive definite."
        )
    return scipy.linalg.solve_triangular(factor, np.eye(len(kept)), lower=True)


def _cast(inputs: Inputs, dtype: Any) -> Inputs:
    return jax.tree.map(
        lambda leaf: leaf if leaf.dtype.kind == "b" else np.asarray(leaf).astype(dtype),
        inputs,
    )
