"""The question on a box: posed at its middle."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from phihat._core import checks as _checks
from phihat._core import tree as _tree
from phihat._core.types import Box
from phihat.convexity.box.hessians import Blocked
from phihat.convexity.numbers.sizes import TooLarge
from phihat.convexity.primitives.evaluation import Undefined, Unreadable
from phihat.convexity.program.problem import Problem, pose
from phihat.convexity.program.trace import Untraceable
from phihat.convexity.report import Blame

__all__ = ["UNREADABLE", "check_budget", "ends", "posed"]

UNREADABLE = (Blocked, TooLarge, Undefined, Unreadable, Untraceable)
"""What stops the reading of a loss: nothing is then known of its curvature."""


def posed(
    call: str, loss_fn: Callable[..., Any], box: Box, data: PyTree
) -> tuple[Problem | None, Blame | None]:
    """Pose the question at the middle of the box; None with the blame if unreadable."""
    if not isinstance(box, Box):
        raise TypeError(
            f"{call}: `box` must be a `phihat.Box(low, high)`, got a "
            f"{type(box).__name__}."
        )
    lows, tree = jax.tree.flatten(box.low)
    highs = [np.asarray(high, np.float64) for high in jax.tree.leaves(box.high)]
    lows = [np.asarray(low, np.float64) for low in lows]
    for label, low, high in zip(_tree.leaf_paths(box.low), lows, highs, strict=True):
        at = f" at leaf {label}" if label else ""
        if low.shape != high.shape:
            raise ValueError(
                f"{call}: both ends of `box` must have the shape of params, got "
                f"{list(low.shape)} and {list(high.shape)}{at}."
            )
        if not (np.isfinite(low).all() and np.isfinite(high).all()):
            raise ValueError(
                f"{call}: `box` must be bounded, got low={low} and high={high}{at}; "
                "prove_convexity asks about unbounded domains."
            )
        if not np.all(low <= high):
            raise ValueError(
                f"{call}: `box` must not be empty, got low={low} above high={high}{at}."
            )
    middles = [low / 2 + high / 2 for low, high in zip(lows, highs, strict=True)]
    domain = Box(jax.tree.unflatten(tree, lows), jax.tree.unflatten(tree, highs))
    middle = jax.tree.unflatten(tree, middles)
    like = jax.tree.map(_prototype, box.low, box.high)
    try:
        return pose(call, loss_fn, middle, data, domain=domain, like=like), None
    except Untraceable as error:
        return None, Blame("", "", str(error))


def ends(problem: Problem) -> tuple[np.ndarray, np.ndarray]:
    """Return the ends of the domain, flat in the coordinates that vary."""
    ranges = [
        interval
        for interval, varies in zip(problem.domain, problem.varied, strict=True)
        if varies
    ]
    low = np.concatenate([interval.low.reshape(-1) for interval in ranges])
    return low, np.concatenate([interval.high.reshape(-1) for interval in ranges])


def check_budget(call: str, budget: float) -> None:
    """Refuse a budget that is negative or not a number."""
    _checks.check_range(call, "budget", budget, 0.0, np.inf)


def _prototype(low: Any, high: Any) -> jax.ShapeDtypeStruct:
    """Return the params that a box stands for: of its dtype, or the default float."""
    shape = np.shape(low)
    with jax.numpy_dtype_promotion("standard"):
        dtype = jnp.result_type(low, high)
    if not jnp.issubdtype(dtype, jnp.floating):
        low, high, dtype = 0.0, 0.0, jnp.result_type(float)
    weak = all(jax.typeof(end).weak_type for end in (low, high))
    return jax.ShapeDtypeStruct(shape, dtype, weak_type=weak)
