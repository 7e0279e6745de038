"""What a test problem is, and how one is put together."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from phihat._core import tree as _tree
from phihat._core.types import Box, LossFn, Params

__all__ = ["Problem", "bind", "cube", "plane", "point", "vectors"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Problem:
    """A test problem: a loss whose minima and convexity are known.

    Args:
      name: the function here that makes it.
      loss_fn: `(params) -> []`, importable, its constants as leaves.
      start: params to begin at, in the default float dtype.
      minimum: a global minimum (another may exist), or None where there is none.
      minimum_value: the infimum of the loss.
      is_convex: whether the loss is convex on the whole space.
      box: the region that is usually shown; it holds the start and the minimum.
    """

    name: str
    loss_fn: LossFn
    start: Params
    minimum: Params | None
    minimum_value: float
    is_convex: bool
    box: Box


def plane(
    name: str,
    function: Any,
    *,
    start: Sequence[float],
    minimum: Sequence[float] | None,
    box: Box,
    minimum_value: float = 0.0,
    is_convex: bool = False,
) -> Problem:
    """Make a problem whose params are one array."""
    return Problem(
        name=name,
        loss_fn=_tree.as_partial(function, name, "loss_fn"),
        start=point(start),
        minimum=None if minimum is None else point(minimum),
        minimum_value=minimum_value,
        is_convex=is_convex,
        box=box,
    )


def bind(loss_fn: LossFn, data: Any) -> LossFn:
    """Return the loss of the params alone; the data are numbers of it."""
    bound = functools.partial(loss_fn, batch=data)
    return _tree.as_partial(bound, "problems", "loss_fn")


def point(values: Any) -> Float[Array, "..."]:
    """Return params in the default float dtype."""
    return jnp.asarray(values, _tree.default_float())


def vectors(*tables: Any) -> tuple[Float[Array, "..."], ...]:
    """Return tables of constants as arrays, which are then numbers of a loss."""
    return tuple(point(table) for table in tables)


def cube(low: float, high: float, dim: int) -> Box:
    """Return a box that is alike in all params."""
    return Box([low] * dim, [high] * dim)
