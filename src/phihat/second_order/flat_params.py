"""Params as one vector, with their box and the spacing of their numbers."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, PyTree

from phihat import products
from phihat._core import checks as _checks
from phihat._core.types import Box, Params
from phihat.second_order.subproblem import Bounds

__all__ = ["Space", "flat_value_fn", "locate", "spacing"]

Vector = Float[Array, " P"]
Scalar = Float[Array, ""]
Flag = Bool[Array, ""]


class Space(NamedTuple):
    """The params as a vector, the way back, and the box.

    Attributes:
      vector: the params, [P].
      unflatten: from a vector to params.
      bounds: the ends of the box, or None.
      eps: the spacing of each param's numbers, a float or [P].
      is_mixed: whether leaves have less precise dtypes than the vector.
    """

    vector: Vector
    unflatten: Callable[[Vector], Params]
    bounds: Bounds | None
    eps: Any
    is_mixed: bool

    def round(self, point: Vector) -> Vector:
        """Round to the dtypes of the leaves, so that the params hold it exactly."""
        return products.flatten(self.unflatten(point))[0] if self.is_mixed else point

    def clip(self, point: Vector) -> Vector:
        """Move into the box."""
        return point if self.bounds is None else jnp.clip(point, *self.bounds)

    def free(self, point: Vector, half_gradient: Vector) -> Any:
        """Tell which params may move; those at a bound may not leave the box."""
        if self.bounds is None:
            return None
        low, high = self.bounds
        is_held = (point <= low) & (half_gradient > 0)
        is_held |= (point >= high) & (half_gradient < 0)
        return ~(is_held | (low >= high))

    def is_same(self, point: Vector, other: Vector) -> Flag:
        """Tell whether two points are equal but for rounding."""
        return jnp.all(jnp.abs(point - other) <= 2 * self.eps * jnp.abs(other))


def locate(call: str, params: Params | None, box: Box | None) -> Space:
    """Lay the params and their bounds out as vectors."""
    params = _checks.check_extra(call, "params", params, "the point to step from")
    is_hidden = lambda node: isinstance(node, optax.MaskedNode)  # noqa: E731
    if any(is_hidden(node) for node in jax.tree.leaves(params, is_leaf=is_hidden)):
        raise ValueError(
            f"{call}: `optax.masked` or `optax.partition` hides some of the params, "
            "without which the loss cannot be evaluated; give it all params and hold "
            "those that must not move by a Box with low == high."
        )
    leaves = jax.tree.leaves(params)
    if not leaves:
        raise ValueError(
            f"{call}: `params` has no leaves, got {_checks.brief(params)}: there is "
            "nothing to fit."
        )
    vector, unflatten = products.flatten(params)
    dtypes = [jnp.result_type(leaf) for leaf in leaves]
    spacings = [float(jnp.finfo(dtype).eps) for dtype in dtypes]
    eps: Any = spacings[0]
    if len(set(spacings)) > 1:
        sizes = [jnp.size(leaf) for leaf in leaves]
        eps = jnp.asarray(np.repeat(spacings, sizes), vector.dtype)
    return Space(
        vector=vector,
        unflatten=unflatten,
        bounds=None if box is None else _flat_bounds(box, params, vector.dtype),
        eps=eps,
        is_mixed=any(dtype != vector.dtype for dtype in dtypes),
    )


def _flat_bounds(box: Box, params: Params, dtype: Any) -> Bounds:
    def flat(end: PyTree) -> Vector:
        if jax.tree_util.all_leaves([end]) and jnp.ndim(end) == 0:
            end = jax.tree.map(lambda _: end, params)
        full = jax.tree.map(
            lambda leaf, bound: jnp.broadcast_to(
                jnp.asarray(bound).astype(jnp.result_type(leaf)), jnp.shape(leaf)
            ),
            params,
            end,
        )
        return products.flatten(full)[0].astype(dtype)

    return Bounds(flat(box.low), flat(box.high))


def flat_value_fn(
    loss_fn: Callable[[Params], Any], space: Space
) -> Callable[[Vector], tuple[Scalar, Array]]:
    """Return the loss of a vector, in the dtype of the vector and in its own."""

    def flat_fn(vector: Vector) -> tuple[Scalar, Array]:
        value = jnp.asarray(loss_fn(space.unflatten(vector)))
        return value.astype(vector.dtype), value

    return flat_fn


def spacing(*arrays: Array) -> float:
    """Return the spacing of the coarsest of these numbers."""
    return max(float(jnp.finfo(array.dtype).eps) for array in arrays)
