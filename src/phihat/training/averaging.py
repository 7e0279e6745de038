"""Averages of the params over a fit, which are evaluated instead of the last."""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import Partial
from jaxtyping import Array, Int, PyTree

from phihat._core import calls as _calls
from phihat._core import checks as _checks
from phihat._core import tree as _tree
from phihat._core.types import Params
from phihat._engine.endings import measures_itself
from phihat._engine.spec import as_optimizer
from phihat.optimizers import Optimizer, eval_params

__all__ = ["AveragedParamsState", "with_averaged_params"]


class AveragedParamsState(NamedTuple):
    """What the average of params carries.

    Attributes:
      inner_state: of the optimizer whose params are averaged.
      average: of its params to evaluate, in at least float32.
      num_averaged: how many there were, int32 [].
    """

    inner_state: PyTree
    average: Params
    num_averaged: Int[Array, ""]

    def averaged_params(self, params: Params) -> Params:
        """Return the average, in the dtypes of the params."""
        return jax.tree.map(
            lambda mean, leaf: mean.astype(jnp.result_type(leaf)), self.average, params
        )


@_calls.public
def with_averaged_params(
    optimizer: optax.GradientTransformation, decay: float = 0.999
) -> Optimizer:
    r"""Let an optimizer's params be evaluated by their exponential moving average.

    After step $t = 0, 1, \ldots$ the average becomes $d\,\bar\phi + (1 - d)\,\phi$ with
    $d = \min(\mathrm{decay}, t / (t + 1))$: at first the plain mean of all steps, so
    that the start has no weight. The steps themselves are those of the optimizer. `fit`
    and `train` return the average as `result.params`, record it as "params" and look at
    held-out data with it; `result.state.params` are the last ones.

    Args:
      optimizer: one of phihat, or any of optax; the outermost may be averaged.
      decay: in [0, 1); 0.999 averages over about a thousand steps.

    Returns:
      An optimizer; another `decay` compiles nothing.

    Raises:
      TypeError: `optimizer` is no (init, update) pair, or `decay` no number.
      ValueError: `decay` is out of range, or the optimizer measures its steps itself,
        as `newton` does.

    Example:
      >>> import phihat
      >>> from phihat.training import with_averaged_params
      >>> optimizer = with_averaged_params(phihat.adam(0.1), decay=0.9)
      >>> params = jnp.ones(2)
      >>> state = optimizer.init(params)
      >>> updates, state = optimizer.update(params, state, params)
      >>> print(phihat.eval_params(state, params + updates))
      [0.9 0.9]
    """
    inner = as_optimizer("with_averaged_params", optimizer)
    decay = _tree.as_number(decay, "with_averaged_params", "decay")
    _checks.check_range(
        "with_averaged_params", "decay", decay, 0.0, 1.0, include_high=False
    )
    return Optimizer(
        Partial(_init, inner.init), Partial(_update, inner.update, decay=decay)
    )


def _init(init_fn: Callable[..., Any], params: Params) -> AveragedParamsState:
    inner_state = init_fn(params)
    if measures_itself(inner_state):
        raise ValueError(
            "with_averaged_params: this optimizer measures its steps itself and keeps "
            "the best params; average those of a first-order optimizer, such as `adam`."
        )
    return AveragedParamsState(
        inner_state=inner_state,
        average=jax.tree.map(_widen, eval_params(inner_state, params)),
        num_averaged=jnp.zeros((), jnp.int32),
    )


def _update(
    update_fn: Callable[..., Any],
    updates: PyTree,
    state: AveragedParamsState,
    params: Params | None = None,
    *,
    decay: Any,
    **extra: Any,
) -> tuple[PyTree, AveragedParamsState]:
    known: Any = _checks.check_extra(
        "with_averaged_params", "params", params, "the params"
    )
    extra = _accepted(update_fn, extra)
    updates, inner_state = update_fn(updates, state.inner_state, known, **extra)
    point = eval_params(inner_state, optax.apply_updates(known, updates))
    count = state.num_averaged.astype(_tree.default_float())
    if jnp.ndim(decay):
        raise ValueError(
            "with_averaged_params: `decay` must be a scalar in one fit, got the shape "
            f"{list(jnp.shape(decay))}; map over the optimizer for many."
        )
    weight = jnp.minimum(_tree.cast(decay, count.dtype), count / (count + 1))

    def mix(mean: Array, leaf: Array) -> Array:
        share = weight.astype(mean.dtype)
        return share * mean + (1 - share) * leaf.astype(mean.dtype)

    return updates, AveragedParamsState(
        inner_state=inner_state,
        average=jax.tree.map(mix, state.average, point),
        num_averaged=state.num_averaged + 1,
    )


def _widen(leaf: Any) -> Array:
    return jnp.array(leaf, dtype=_tree.accumulator_dtype(leaf), copy=True)


def _accepted(update_fn: Callable[..., Any], extra: dict[str, Any]) -> dict[str, Any]:
    """Return those extra arguments that an `update` takes."""
    parameters = inspect.signature(update_fn).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return extra
    names = {parameter.name for parameter in parameters}
    return {name: value for name, value in extra.items() if name in names}
