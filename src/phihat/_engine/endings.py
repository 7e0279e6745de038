"""Why a fit ends: numbers that are not finite, or an optimizer at its end."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from phihat._core import reductions as _reductions
from phihat._core.types import Status

__all__ = [
    "diagnose",
    "holds_status",
    "is_running",
    "measures_itself",
    "status_of",
]


def diagnose(loss: Array, *trees: PyTree) -> tuple[Array, Array]:
    """Return the status, and the first leaf that is not finite, gradients first."""
    status = jnp.asarray(Status.RUNNING, jnp.int32)
    leaf = jnp.asarray(-1, jnp.int32)
    codes = (Status.NONFINITE_GRADIENT, Status.NONFINITE_PARAMS)
    for tree, code in reversed(list(zip(trees, codes, strict=False))):
        found = _reductions.first_nonfinite(tree)
        leaf = jnp.where(found >= 0, found, leaf)
        status = jnp.where(found >= 0, jnp.asarray(code, jnp.int32), status)
    failed = jnp.asarray(Status.NONFINITE_LOSS, jnp.int32)
    is_lost = ~jnp.isfinite(loss)
    nothing = jnp.asarray(-1, jnp.int32)
    return jnp.where(is_lost, failed, status), jnp.where(is_lost, nothing, leaf)


def measures_itself(opt_state: PyTree) -> bool:
    """Tell whether an optimizer keeps loss, gradient and status of the params."""
    return getattr(type(opt_state), "measures_itself", False)


def status_of(opt_state: PyTree) -> Array:
    """Return the status of an optimizer that has one, wherever it is wrapped."""
    nodes = jax.tree.leaves(opt_state, is_leaf=measures_itself)
    found = [node.status for node in nodes if measures_itself(node)]
    if not found:
        return jnp.asarray(Status.RUNNING, jnp.int32)
    status = found[0]
    for other in found[1:]:
        status = jnp.where(status == Status.RUNNING, other, status)
    return status


def holds_status(opt_state: PyTree) -> bool:
    """Tell whether an optimizer that can end by itself is in a state, or wrapped."""
    return any(
        map(measures_itself, jax.tree.leaves(opt_state, is_leaf=measures_itself))
    )


def is_running(opt_state: PyTree) -> Array:
    """Tell whether no optimizer in a state has come to its end."""
    return status_of(opt_state) == Status.RUNNING
