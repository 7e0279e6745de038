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
from phihat._core.types import Box, Params, RandomKey
from phihat.curvature.dense import labels

__all__ = ["flat_box", "sobol"]


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


def sobol(size: int, key: RandomKey | None) -> Callable[[int], np.ndarray]:
    """Return how to draw so many points [N, P] that fill the unit cube evenly."""
    from scipy.stats import qmc  # slow to import, and rarely needed

    key = jax.random.key(0) if key is None else key
    shift = np.asarray(jax.random.uniform(key, (size,)), float)
    sequence = qmc.Sobol(size, scramble=False)

    def draw(number: int) -> np.ndarray:
        # Whole powers of two keep the points balanced, from one draw to the next too.
        power = 1 << max(number - 1, 0).bit_length()
        return (sequence.random(power)[:number] + shift) % 1.0

    return draw


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
