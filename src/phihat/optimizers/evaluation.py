"""The params to evaluate, where an optimizer carries others."""

from typing import Any

import jax
import optax
from jaxtyping import PyTree

from phihat._core import calls as _calls
from phihat._core import tree as _tree
from phihat._core.types import Params
from phihat.optimizers.updates import NesterovState

__all__ = ["eval_params"]


@_calls.public
def eval_params(opt_state: PyTree, params: Params) -> Params:
    """Return the params to use, where the optimizer's loop carries others.

    Nesterov's method carries look-ahead points, and optax's schedule-free methods carry
    points between two averages. For every other optimizer the params are returned as
    they are. Chains and wrappers (masked, multi_transform, MultiSteps, ...) are
    searched.

    Args:
      opt_state: the state of any optimizer.
      params: the params that the loop carries.

    Returns:
      A pytree like `params`.

    Example:
      >>> import jax.numpy as jnp
      >>> from phihat import eval_params, nesterov
      >>> optimizer, params = nesterov(1.0, decay=0.5), jnp.asarray(0.0)
      >>> updates, state = optimizer.update(params + 1, optimizer.init(params), params)
      >>> print(updates, eval_params(state, params + updates))
      -0.75 -0.5
    """
    nodes = jax.tree.leaves(opt_state, is_leaf=_moves_params)
    for node in nodes:
        if isinstance(node, NesterovState):
            params = _undo_lookahead(node, params)
        elif _is_schedule_free(node):
            params = optax.contrib.schedule_free_eval_params(node, params)
        elif _is_averaged(node):
            params = node.averaged_params(params)
    return params


def _is_schedule_free(node: Any) -> bool:
    return {"b1", "z", "base_optimizer_state"} <= set(getattr(node, "_fields", ()))


def _moves_params(node: Any) -> bool:
    if isinstance(node, NesterovState) or _is_averaged(node):
        return True
    return _is_schedule_free(node)


def _is_averaged(node: Any) -> bool:
    """Tell the state of an optimizer whose params are evaluated by their average."""
    return hasattr(type(node), "averaged_params")


def _undo_lookahead(state: NesterovState, params: Params) -> Params:
    def undo(mean: Any, leaf: Any) -> Any:
        if isinstance(mean, optax.MaskedNode):
            return leaf
        ahead = _tree.cast(state.lookahead_rate, mean.dtype) * mean
        return (leaf.astype(mean.dtype) + ahead).astype(leaf.dtype)

    is_masked = lambda node: isinstance(node, optax.MaskedNode)  # noqa: E731
    return jax.tree.map(undo, state.momentum, params, is_leaf=is_masked)
