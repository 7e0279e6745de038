"""From the end of a fit to the minimum beside it, by Newton's method.

A fit ends where its gradient is small, which in a flat valley is far from the minimum,
so ends alone do not tell which of them belong together.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import PyTree

from phihat import products
from phihat._core import checks as _checks
from phihat._core import tree as _tree
from phihat._core.types import Batch, Params
from phihat._linalg.dense_hessian import dense_hessian
from phihat.sweeps.execution import lane_program

__all__ = ["polish"]

_STEPS = 8
_CHUNK = 384

_NEAR = 0.25
"""Of the box's width: a minimum farther than this is not the one beside it."""


def polish(
    call: str,
    loss_fn: Any,
    ends: PyTree,
    losses: np.ndarray,
    data: Batch,
    width: np.ndarray,
) -> tuple[PyTree, np.ndarray]:
    """Return the minima beside these ends, or the ends where there is none."""
    loss_fn = _tree.as_partial(loss_fn, call, "loss_fn")
    if _checks.takes_key(loss_fn):
        return ends, losses
    function = Partial(_polish, loss_fn=loss_fn, data=data, width=jnp.asarray(width))
    try:
        program = lane_program(call, function, {"end": ends})
    except TypeError:  # a loss that has no second derivative
        return ends, losses
    blocks = []
    for begin in range(0, len(losses), _CHUNK):
        rows = np.minimum(np.arange(begin, begin + _CHUNK), len(losses) - 1)
        blocks.append(program.run([rows]))
    leaves = [
        np.concatenate([np.asarray(part) for part in parts])[: len(losses)]
        for parts in zip(*blocks, strict=True)
    ]
    return jax.tree.unflatten(jax.tree.structure(program.results), leaves)


def _polish(end: Params, *, loss_fn: Any, data: Batch, width: Any) -> Any:
    scalar_fn = products.bind(loss_fn, end, data, call="multistart")
    flat, unflatten = products.flatten(end)
    value_fn = lambda vector: scalar_fn(unflatten(vector))  # noqa: E731
    gradient_fn = jax.grad(value_fn)

    def step(place: Any, _: None) -> tuple[Any, None]:
        gradient = gradient_fn(place)
        factor = jnp.linalg.cholesky(dense_hessian(gradient_fn, place))
        move = jax.scipy.linalg.cho_solve((factor, True), gradient)
        # Cholesky's factor is NaN where the Hessian is not positive definite.
        return place - jnp.where(jnp.all(jnp.isfinite(move)), move, 0.0), None

    moved, _ = jax.lax.scan(step, flat, None, length=_STEPS)
    is_near = jnp.all(jnp.abs(moved - flat) <= _NEAR * width.astype(flat.dtype))
    loss, found = value_fn(flat), value_fn(moved)
    is_better = is_near & (found <= loss + 1e-6 * jnp.abs(loss))
    place = jnp.where(is_better, moved, flat)
    return unflatten(place), jnp.where(is_better, found, loss)
