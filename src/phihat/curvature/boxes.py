"""A bounded box as two flat vectors, for what searches or maps a whole region."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from phihat import products
from phihat._core import tree as _tree
from phihat._core.types import Box, Params
from phihat.curvature.dense import labels

__all__ = ["flat_box"]


def flat_box(
    call: str, box: Box
) -> tuple[Float[Array, " P"], Float[Array, " P"], Callable[[Any], Params]]:
    """Lay out both ends of a box, and check that it is bounded and has an inside.

    Returns:
      The low ends, the high ends, and the function from a flat vector to params.
    """
    if not isinstance(box, Box):
        raise TypeError(
            f"{call}: `box` must be a `phihat.Box(low, high)`, got a "
            f"{type(box).__name__}."
        )
    float_leaf = lambda leaf: jnp.asarray(leaf, _tree.default_float())  # noqa: E731
    low_tree, high_tree = jax.tree.map(float_leaf, (box.low, box.high))
    low_shapes, high_shapes = (
        [leaf.shape for leaf in jax.tree.leaves(tree)] for tree in (low_tree, high_tree)
    )
    low, unflatten = products.flatten(low_tree)
    high, _ = products.flatten(high_tree)
    if low_shapes != high_shapes or low.size == 0:
        raise ValueError(
            f"{call}: `box` must have low and high ends of equal shapes and at least "
            f"one coordinate, got shapes {low_shapes} and {high_shapes}."
        )
    if not isinstance(low, Tracer) and not isinstance(high, Tracer):
        _check_ends(call, np.asarray(low), np.asarray(high), labels(low_tree))
    return low, high, unflatten


def _check_ends(call: str, low: Any, high: Any, names: list[str]) -> None:
    for name, one, other in zip(names, low, high, strict=True):
        at = f" at {name}" if name else ""
        if not (np.isfinite(one) and np.isfinite(other)):
            raise ValueError(
                f"{call}: `box` must be bounded, got low={one} and high={other}{at}."
            )
        if one >= other:
            raise ValueError(
                f"{call}: `box` must have low < high in every coordinate, got "
                f"low={one} and high={other}{at}."
            )
