"""Bounds of params, those that are held, and the start within them."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from phihat._core import checks as _checks
from phihat._core.types import Box
from phihat.curves.arrays import as_array
from phihat.curves.param_names import Layout, entries_of, one_tree

__all__ = ["Bounds", "as_bounds", "as_free", "check_start"]


class Bounds(NamedTuple):
    """The bounds of all params, infinite where there is none.

    Each [P], or [N, P] where every curve has its own.
    """

    low: np.ndarray
    high: np.ndarray

    @property
    def are_open(self) -> bool:
        """Whether there is no bound at all."""
        return bool(np.isinf(self.low).all() and np.isinf(self.high).all())

    @property
    def are_own(self) -> bool:
        """Whether every curve has its own."""
        return self.low.ndim == 2

    def of(self, curves: Any) -> "Bounds":
        """Return those of some curves."""
        return Bounds(self.low[curves], self.high[curves]) if self.are_own else self

    def box(self, places: np.ndarray, dtype: Any) -> Box:
        """Return those of some params, as the box of a fit."""
        return Box(*(end[..., places].astype(dtype) for end in self))


def as_bounds(
    call: str, layout: Layout, bounds: Any, num_lanes: int | None = None
) -> Bounds:
    """Return the bounds of all params, from a Box, a dict or a pair."""
    lanes = 1 if num_lanes is None else num_lanes
    low = np.full((lanes, layout.size), -np.inf)
    high = np.full((lanes, layout.size), np.inf)
    for place, name, ends in _given(call, layout, bounds, num_lanes):
        for side, end in zip((low, high), ends, strict=True):
            if end is None:
                continue
            number = as_array(call, "bounds", end)
            if number.shape not in ((), (num_lanes,)):
                each = "" if num_lanes is None else f", or one for each of {num_lanes}"
                raise ValueError(
                    f"{call}: `bounds` of {name!r} must be two numbers{each}, got "
                    f"{_checks.brief(end)}."
                )
            side[:, place] = number
        _check_order(call, name, low[:, place], high[:, place])
    is_shared = (low == low[0]).all() and (high == high[0]).all()
    return Bounds(low[0], high[0]) if is_shared else Bounds(low, high)


def as_free(call: str, layout: Layout, fixed: Any, bounds: Bounds) -> Layout:
    """Return the layout without what is fixed, by name or by bounds that agree."""
    agree = np.atleast_2d(bounds.low == bounds.high)
    held = agree.all(0)
    if fixed is not None:
        held |= _fixed_places(call, layout, fixed)
    some = agree.any(0) & ~held
    if some.any():
        name = layout.names[int(np.flatnonzero(some)[0])]
        raise ValueError(
            f"{call}: the `bounds` of {name!r} agree in some curves, which fixes it, "
            "and not in others; fit those curves separately."
        )
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
    outside = np.atleast_2d((values < bounds.low) | (values > bounds.high))
    if outside.any():
        lane, place = np.argwhere(outside)[0]
        worst, low, high = (
            np.broadcast_to(array, outside.shape)[lane, place]
            for array in (values, *bounds)
        )
        where = f" in curve {lane}" if len(outside) > 1 else ""
        raise ValueError(
            f"{call}: `start` has {layout.names[place]} = {worst:g}{where}, outside "
            f"of its bounds ({low:g}, {high:g}); start inside them."
        )
    return values


# ------------------------------------------------------------------------- private


def _given(
    call: str, layout: Layout, bounds: Any, num_lanes: int | None
) -> Iterator[tuple[int, Any, Any]]:
    """Yield the place, the name and the two ends of every param that was named."""
    if bounds is None:
        return
    if isinstance(bounds, Mapping):
        for name, pair in bounds.items():
            places = entries_of(call, "bounds", layout, name)
            pair = (None, None) if pair is None else pair
            if not isinstance(pair, (list, tuple, np.ndarray)) or len(pair) != 2:
                raise ValueError(
                    f"{call}: `bounds` of {name!r} must be a pair (low, high), with "
                    f"None for an open side, got {_checks.brief(pair)}."
                )
            yield from ((place, name, tuple(pair)) for place in places)
        return
    if not isinstance(bounds, Box) and not _is_pair(bounds):
        raise TypeError(
            f"{call}: `bounds` must be a dict such as {{'rate': (0, None)}} or a "
            f"Box, got {_checks.brief(bounds)}."
        )
    ends = (bounds.low, bounds.high) if isinstance(bounds, Box) else tuple(bounds)
    cure = f"; write `bounds={{{layout.names[0]!r}: (low, high), ...}}`"
    columns = [
        one_tree(call, "bounds", layout, end, cure=cure, num_lanes=num_lanes)
        for end in ends
    ]
    yield from zip(
        range(layout.size), layout.names, zip(*columns, strict=True), strict=True
    )


def _is_pair(bounds: Any) -> bool:
    return isinstance(bounds, (list, tuple)) and len(bounds) == 2


def _check_order(call: str, name: Any, low: np.ndarray, high: np.ndarray) -> None:
    bad = ~(low <= high) | np.isposinf(low) | np.isneginf(high)
    if bad.any():
        lane = int(np.flatnonzero(bad)[0])
        is_number = np.isfinite([low[lane], high[lane]]).all()
        cure = "swap them" if is_number else "an open side is None"
        raise ValueError(
            f"{call}: `bounds` of {name!r} must be (low, high) with low <= high, got "
            f"({low[lane]:g}, {high[lane]:g}); {cure}."
        )


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
    leaves = jax.tree.leaves(fixed)
    if not all(np.asarray(flag).dtype.kind == "b" for flag in leaves):
        raise TypeError(
            f"{call}: `fixed` must be names, such as {[layout.names[-1]]}, or a "
            f"tree of bools like `start`, got {_checks.brief(fixed)}; the value that a "
            "param is fixed at is the one in `start`."
        )
    return np.array(one_tree(call, "fixed", layout, fixed), bool)
