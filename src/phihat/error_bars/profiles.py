"""Where the profile of a loss rises to a level: the ends of an interval.

The profile of one param is the least loss that the others can reach while it is held.
All is in units of the interval that a parabola would give: on one, both ends are at 1.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from phihat._core.types import Box, Status
from phihat.fitting import fit
from phihat.second_order import newton

__all__ = ["Profile", "profile"]

Scalar = Float[Array, ""]
Vector = Float[Array, " P"]

_FARTHEST = 1000.0
"""Where the search gives up: the data do not bound the param on that side."""

_MAX_ROUNDS = 60
_MAX_STEPS = 50
_LANES = 64
"""Ends that are looked for at once: each holds a Hessian."""


class Profile(NamedTuple):
    """The ends of the intervals.

    Attributes:
      low: the lower ends, negative, -inf where the profile never rises to the level.
      high: the upper ends, likewise.
      lowest: the lowest value met, 0 or more where the origin is the minimum.
    """

    low: Vector
    high: Vector
    lowest: Scalar


class _Search(NamedTuple):
    """A bracket of the root, each end with its excess over the level."""

    low: Scalar
    low_excess: Scalar
    high: Scalar
    high_excess: Scalar
    at: Scalar
    excess: Scalar
    shares: Vector
    lowest: Scalar
    num_rounds: Int[Array, ""]


def profile(
    rise_fn: Callable[[Vector], Scalar],
    paths: Float[Array, "P P"],
    bounds: Float[Array, "2 P"] | None = None,
) -> Profile:
    """Find, for each param and side, where the profile is 1.

    Args:
      rise_fn: `offset [P] -> []`, 0 at the origin, which should be its minimum.
      paths: row j is how all params move with one unit of param j, on a parabola.
      bounds: the lowest and highest offsets allowed, 0 or less and 0 or more; an
        interval ends at its bound where the profile is below 1 there.
    """
    size = paths.shape[0]
    others = jnp.asarray([[k for k in range(size) if k != j] for j in range(size)], int)
    sides = jnp.repeat(jnp.asarray([-1.0, 1.0], paths.dtype), size)
    entries = jnp.tile(jnp.arange(size), 2)

    def search(lane: tuple[Array, Array]) -> tuple[Scalar, Scalar]:
        entry, side = lane
        free = others[entry].reshape(size - 1)

        def place(shares: Vector, at: Scalar) -> Vector:
            """Put one param at a distance, the others at shares of that distance."""
            offset = jnp.zeros(size, paths.dtype).at[free].set(shares)
            return side * at * offset.at[entry].set(1.0)

        rise = lambda shares, at: rise_fn(place(shares, at))  # noqa: E731
        if bounds is None:
            return _search_end(rise, paths[entry][free], None, jnp.inf)
        # Seen from the other side the bounds change places.
        low, high = jnp.where(side > 0, bounds, -bounds[::-1])
        box = Box(low[free], high[free])
        return _search_end(rise, paths[entry][free], box, high[entry])

    ends, lowest = jax.lax.map(search, (entries, sides), batch_size=_LANES)
    low, high = -ends[:size], ends[size:]
    return Profile(low, high, jnp.min(lowest, initial=0.0))


# ------------------------------------------------------------------------- private


def _search_end(
    rise_fn: Callable[[Vector, Scalar], Scalar],
    shares: Vector,
    box: Box | None,
    farthest: Any,
) -> tuple[Scalar, Scalar]:
    """Return the distance at which the least rise is 1, and the lowest rise met.

    Args:
      rise_fn: `(shares, distance) -> []`.
      shares: of the distance by which the other params move on a parabola.
      box: the offsets of the other params that are allowed, or None.
      farthest: the distance to the bound, where the search ends.
    """
    eps = float(jnp.finfo(shares.dtype).eps)
    number = lambda value: jnp.asarray(value, shares.dtype)  # noqa: E731

    def measure(shares: Vector, at: Scalar) -> tuple[Vector, Scalar]:
        if shares.size == 0:
            return shares, rise_fn(shares, at)
        result = fit(
            lambda free: rise_fn(free, at),
            shares,
            newton(),
            projection=None if box is None else jax.tree.map(lambda end: end / at, box),
            num_steps=_MAX_STEPS,
            tolerance=0.1 * eps**0.25,  # the rise is then known to a share of root eps
            record=(),
        )
        failed = result.status >= Status.NONFINITE_LOSS
        return result.params, jnp.where(failed, jnp.inf, result.loss)

    def body(search: _Search) -> _Search:
        bracket = _narrow(search, *measure(search.shares, search.at))
        return bracket._replace(at=jnp.minimum(_next(bracket), farthest))

    def is_open(search: _Search) -> Array:
        is_narrow = search.high * (1.0 - eps) <= search.low
        is_found = (jnp.abs(search.excess) <= eps**0.5) | is_narrow
        is_beyond = (search.low > _FARTHEST) | (search.low >= farthest)
        return ~is_found & ~is_beyond & (search.num_rounds < _MAX_ROUNDS)

    start = _Search(
        low=number(0.0),
        low_excess=number(-1.0),
        high=number(jnp.inf),
        high_excess=number(jnp.inf),
        at=number(jnp.minimum(1.0, farthest)),
        excess=number(jnp.nan),
        shares=shares,
        lowest=number(0.0),
        num_rounds=jnp.asarray(0, jnp.int32),
    )
    end = jax.lax.while_loop(is_open, body, start)
    last = jnp.where(end.excess < 0, end.low, end.high)
    last = jnp.where(end.low > _FARTHEST, jnp.inf, last)
    return jnp.where(end.low >= farthest, farthest, last), end.lowest


def _narrow(search: _Search, found: Vector, rise: Scalar) -> _Search:
    """Return the bracket after the rise at `search.at` was measured."""
    is_sound = jnp.isfinite(rise)
    # The root of the rise is nearly straight where the rise is nearly a parabola.
    excess = jnp.where(is_sound, jnp.sqrt(jnp.maximum(rise, 0.0)) - 1.0, jnp.inf)
    is_low = excess < 0
    # Illinois: the end that stays twice weighs half.
    again = (is_low == (search.excess < 0)) & (search.num_rounds > 0)
    weight = jnp.where(again, 0.5, 1.0)
    return search._replace(
        low=jnp.where(is_low, search.at, search.low),
        low_excess=jnp.where(is_low, excess, search.low_excess * weight),
        high=jnp.where(is_low, search.high, search.at),
        high_excess=jnp.where(is_low, search.high_excess * weight, excess),
        excess=excess,
        shares=jnp.where(is_sound, found, search.shares),
        lowest=jnp.where(is_sound, jnp.minimum(search.lowest, rise), search.lowest),
        num_rounds=search.num_rounds + 1,
    )


def _next(search: _Search) -> Scalar:
    """Return where to measure next: farther out, or within the bracket."""
    farther = search.low * jnp.clip(1.0 / (1.0 + search.excess), 1.5, 4.0)
    middle = 0.5 * (search.low + search.high)
    fall = search.high_excess - search.low_excess
    secant = search.high - search.high_excess * (search.high - search.low) / fall
    is_inside = (secant > search.low) & (secant < search.high)
    within = jnp.where(is_inside, secant, middle)
    return jnp.where(jnp.isinf(search.high), farther, within)
