r"""Second-order enclosures of values on boxes: functions of one scalar, and the rest.

A `Ridge` holds elements $\varphi(u_r)$ that depend on the params through one affine
scalar each: enclosures of $\varphi, \varphi', \varphi''$ on each of K parts of its
range. A `Jet` holds any other elements: value, gradient, and two Loewner bounds. All
are kept for C boxes at once, and for N elements, flat.

What the bounds say of a continuous value v on a closed box: along every segment,
$t \mapsto v(x + td)$ has a second derivative that is a measure, and it lies between
$d'Ld\,dt$ and $d'Ud\,dt$ for some symmetric L and U within `lower` and `upper`. A
convex kink is a positive mass, which L ignores and which leaves U unbounded; a concave
one leaves L unbounded. Unbounded is [-inf, inf] in every entry.
If `lower is upper`, then v is $C^{1,1}$ and its Hessian itself lies within. Bounds hold
on a neighbourhood of the closed box, as ties and kinks that touch it count, so boxes
may be put together at their faces.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from phihat.convexity.numbers import intervals as iv
from phihat.convexity.numbers.intervals import Interval
from phihat.convexity.numbers.intervals.rounding import TINIEST, UNIT
from phihat.convexity.numbers.sizes import check_size

__all__ = [
    "Jet",
    "Ridge",
    "agree",
    "concatenate",
    "constant",
    "hull_of_parts",
    "joined_rows",
    "lift",
    "pair",
    "range_of",
    "select",
    "sum_groups",
]

_MAX_ENTRIES = 3_000_000
"""Hessians of more entries than this, over all boxes and elements, are not made."""


def agree(one: np.ndarray, other: np.ndarray) -> bool:
    """Tell whether elements depend on the same scalars, or on none."""
    return bool(np.all((one == other) | (one < 0) | (other < 0)))


@dataclasses.dataclass(frozen=True, eq=False)
class Ridge:
    """Elements that are functions of one scalar each; constant ones of none.

    Attributes:
      rows: the scalar of each element `[N]`, -1 for a constant; None if all are.
      value: of all elements `[C, N, K]`; C and K are 1 where nothing depends on them.
      first: the first derivatives in the scalar; None if rows is.
      second: bounds of the measures that are the second ones; None if rows is.
    """

    rows: np.ndarray | None
    value: Interval
    first: Interval | None = None
    second: Interval | None = None

    def take(self, places: np.ndarray) -> "Ridge":
        """Pick elements."""
        return self.map(lambda x: x[:, places], lambda rows: rows[places])

    def map(self, fn: Callable[..., Interval], on_rows: Callable[..., Any]) -> "Ridge":
        """Apply a function to the value and both derivatives, another to the rows."""
        if self.rows is None or self.first is None or self.second is None:
            return Ridge(None, fn(self.value))
        return Ridge(
            on_rows(self.rows), *map(fn, (self.value, self.first, self.second))
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Jet:
    """Elements that depend on the params in any way.

    Attributes:
      value: `[C, N]`.
      grad: enclosures of all generalised gradients `[C, N, n]`.
      lower: a Loewner bound of the second derivative from below `[C, N, n, n]`.
      upper: one from above; the same object where both are the Hessian.
      is_convex: whether an element is convex for structural reasons `[C, N]`.
      is_concave: likewise.
    """

    value: Interval
    grad: Interval
    lower: Interval
    upper: Interval
    is_convex: np.ndarray
    is_concave: np.ndarray

    def take(self, places: np.ndarray) -> "Jet":
        """Pick elements."""
        size = self.grad.shape[-1]
        check_size(self.value.shape[0] * len(places) * size**2, _MAX_ENTRIES)
        return self.map(lambda x: x[:, places])

    def map(self, fn: Callable[..., Any], *others: "Jet") -> "Jet":
        """Apply a function to the parts of jets; to Hessians once."""
        jets = (self, *others)
        is_smooth = all(jet.lower is jet.upper for jet in jets)
        parts = {
            field.name: fn(*(getattr(jet, field.name) for jet in jets))
            for field in dataclasses.fields(Jet)
            if not (is_smooth and field.name == "upper")
        }
        return Jet(**{"upper": parts["lower"], **parts})


def constant(value: Interval) -> Ridge:
    """Make constants of their ranges `[C, N]`."""
    return Ridge(None, value.reshape(*value.shape, 1))


def range_of(x: Ridge | Jet) -> Interval:
    """Return the ranges of the values `[C, N]`."""
    return x.value if isinstance(x, Jet) else hull_of_parts(x.value)


def hull_of_parts(x: Interval) -> Interval:
    """Return the hull over the parts: `[C, N, K]` to `[C, N]`."""
    if x.shape[-1] == 1:
        return x[..., 0]
    return Interval(x.low.min(-1), x.high.max(-1))


def pair(
    x: Ridge | Jet, y: Ridge | Jet, slopes: Interval
) -> tuple[Ridge, Ridge] | tuple[Jet, Jet]:
    """Write two values alike: as ridges in the same scalars, or else as jets."""
    if isinstance(x, Jet) or isinstance(y, Jet):
        return lift(x, slopes), lift(y, slopes)
    if x.rows is None or y.rows is None or agree(x.rows, y.rows):
        return x, y
    return lift(x, slopes), lift(y, slopes)


def lift(x: Ridge | Jet, slopes: Interval) -> Jet:
    """Write ridges as jets; the slopes are those of all scalars, the last 0."""
    if isinstance(x, Jet):
        return x
    if x.rows is None:
        count = x.value.shape[1]
        x = Ridge(np.full(count, -1), x.value, *[_zeros((1, count, 1))] * 2)
    return _sum_of_ridges(x, np.arange(x.value.shape[1])[:, None], slopes)


def sum_groups(x: Ridge | Jet, places: np.ndarray, slopes: Interval) -> Ridge | Jet:
    """Add groups of elements `[G, E]`: derivatives add, and so do bounds."""
    if isinstance(x, Ridge):
        if x.rows is None or x.first is None or x.second is None:
            return Ridge(None, _sum(x.value, places))
        rows = x.rows[places]
        if places.shape[1] and agree(rows, rows.max(1, keepdims=True)):
            sums = (_sum(end, places) for end in (x.value, x.first, x.second))
            return Ridge(rows.max(1), *sums)
        return _sum_of_ridges(x, places, slopes)
    size = x.grad.shape[-1]
    check_size(x.value.shape[0] * places.size * size**2, _MAX_ENTRIES)
    return x.map(
        lambda part: (
            _sum(part, places)
            if isinstance(part, Interval)
            else np.asarray(part[:, places].all(2))
        )
    )


def concatenate(items: Sequence[Ridge | Jet], slopes: Interval) -> Ridge | Jet:
    """Put elements in a row."""
    if len(items) == 1:
        return items[0]
    if any(isinstance(item, Jet) for item in items):
        first, *rest = (lift(item, slopes) for item in items)
        return first.map(lambda *parts: _row(parts), *rest)
    ridges = [item for item in items if isinstance(item, Ridge)]
    value = _row([ridge.value for ridge in ridges])
    if all(ridge.rows is None for ridge in ridges):
        return Ridge(None, value)
    rows = [np.full(r.value.shape[1], -1) if r.rows is None else r.rows for r in ridges]
    zeros = [_zeros((1, r.value.shape[1], 1)) for r in ridges]
    first = _row([r.first or zero for r, zero in zip(ridges, zeros, strict=True)])
    second = _row([r.second or zero for r, zero in zip(ridges, zeros, strict=True)])
    return Ridge(np.concatenate(rows), value, first, second)


def select(
    which: np.ndarray, items: Sequence[Ridge | Jet], slopes: Interval
) -> Ridge | Jet:
    """Choose for each box and element `[C or 1, N]` one of several values."""
    if which.shape[0] == 1:
        count = which.shape[1]
        return concatenate(items, slopes).take(which[0] * count + np.arange(count))
    chosen = items[0]
    for position, item in enumerate(items[1:], 1):
        chosen = _choose(which == position, *pair(item, chosen, slopes))
    return chosen


def _choose(here: np.ndarray, one: Any, other: Any) -> Ridge | Jet:
    """Take one value where `here` `[C, N]`, else the other."""

    def chosen(x: Any, y: Any) -> Any:
        condition = here.reshape(*here.shape, *[1] * (x.ndim - 2))
        if isinstance(x, np.ndarray):
            return np.where(condition, x, y)
        return iv.where(condition, x, y)

    if isinstance(one, Jet):
        return one.map(chosen, other)
    value = chosen(one.value, other.value)
    if one.rows is None and other.rows is None:
        return Ridge(None, value)
    zero = _zeros((1, 1, 1))
    return Ridge(
        joined_rows(one, other),
        value,
        chosen(one.first or zero, other.first or zero),
        chosen(one.second or zero, other.second or zero),
    )


def joined_rows(x: Ridge, y: Ridge) -> np.ndarray | None:
    """Return the scalars that elements of two ridges depend on together."""
    if x.rows is None or y.rows is None:
        return y.rows if x.rows is None else x.rows
    return np.maximum(x.rows, y.rows)


# ---------------------------------------------------------------- sums of ridges


def _sum_of_ridges(x: Ridge, places: np.ndarray, slopes: Interval) -> Jet:
    r"""Add groups of ridges, whose Hessian is $\sum \varphi_r'' s_r s_r'$.

    As $ss' \succeq 0$, it lies between the sums with the least and the greatest
    $\varphi_r''$ over the parts.
    """
    assert x.rows is not None
    assert x.first is not None
    assert x.second is not None
    cells = max(part.shape[0] for part in (x.value, x.first, x.second))
    (groups, length), size = places.shape, slopes.shape[-1]
    check_size(cells * groups * size**2, _MAX_ENTRIES)
    check_size(places.size * size)
    reached = slopes[x.rows[places]]
    first, second = (
        iv.rearrange(
            lambda end: np.broadcast_to(end, (cells, *places.shape)),
            hull_of_parts(part)[:, places],
        )
        for part in (x.first, x.second)
    )
    grad = iv.matmul(first.reshape(cells, groups, 1, length), reached)
    value = iv.rearrange(
        lambda end: np.broadcast_to(end, (cells, groups)),
        _sum(hull_of_parts(x.value), places),
    )
    # Where data are a wide range, 0 bounds a positive term better than its entries do.
    spread = (reached.width**2).sum(-1) > 0.01 * (reached.middle**2).sum(-1)
    least = np.where(spread & (second.low > 0), 0.0, second.low)
    most = np.where(spread & (second.high < 0), 0.0, second.high)
    return Jet(
        value,
        grad.reshape(cells, groups, size),
        _gram(reached, least),
        _gram(reached, most),
        np.asarray((second.low >= 0).all(-1)),
        np.asarray((second.high <= 0).all(-1)),
    )


def _gram(slopes: Interval, weights: np.ndarray) -> Interval:
    r"""Enclose $\sum w_e s_e s_e'$; unbounded where a weight is infinite.

    With $s = c + e$, $|e| \le r$ and $b = |c| + r$: in place of the sum of $w c c'$ it
    errs by $\sum |w| (b r' + r b')$, and the computation by $\gamma \sum |w| b b'$ and
    what underflows (Higham, section 3.1).
    """
    count = weights.shape[-1]
    is_bounded = np.asarray(np.isfinite(weights).all(-1))[..., None, None]
    weights = np.where(is_bounded[..., 0], weights, 0.0)[..., None]
    middle = slopes.middle
    reach = np.abs(middle)
    sum_ = _products(weights * middle, middle)
    unit = 2 * (count + 8) * UNIT
    if slopes.is_point:
        radius = _products(np.abs(weights) * reach, reach) * unit
    else:
        spread = np.maximum(slopes.high - middle, middle - slopes.low)
        spread = spread * (1 + 4 * UNIT) + TINIEST
        reach = (reach + spread) * (1 + 4 * UNIT)
        across = _products(np.abs(weights) * reach, spread)
        radius = _products(np.abs(weights) * reach, reach) * unit
        radius = radius + (across + np.swapaxes(across, -1, -2)) * (1 + unit)
    tiny = (1 + np.abs(weights).max((-1, -2), initial=0.0)) * (1 + reach.max(initial=0))
    radius = radius * (1 + unit) + (8 * count * tiny * TINIEST)[..., None, None]
    is_bounded = is_bounded & np.isfinite(sum_) & np.isfinite(radius)
    return Interval(
        np.where(is_bounded, np.nextafter(sum_ - radius, -np.inf), -np.inf),
        np.where(is_bounded, np.nextafter(sum_ + radius, np.inf), np.inf),
    )


def _products(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):  # what overflows counts as unbounded
        return np.matmul(np.swapaxes(x, -1, -2), y)


def _sum(x: Interval, places: np.ndarray) -> Interval:
    return iv.reduce_sum(x[:, places], 2)


def _row(parts: Sequence[Any]) -> Any:
    if isinstance(parts[0], Interval):
        return iv.rearrange(_row_of_arrays, *parts)
    return _row_of_arrays(*parts)


def _row_of_arrays(*parts: np.ndarray) -> np.ndarray:
    """Concatenate along the elements; boxes and parts broadcast."""
    shape = np.broadcast_shapes(*((p.shape[0], *p.shape[2:]) for p in parts))
    wanted = ((shape[0], p.shape[1], *shape[1:]) for p in parts)
    return np.concatenate(
        [np.broadcast_to(p, s) for p, s in zip(parts, wanted, strict=True)], axis=1
    )


def _zeros(shape: Sequence[int]) -> Interval:
    zero = np.zeros(shape)
    return Interval(zero, zero)
