"""What a loss is made of: its residuals, its weights, how it is reduced."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Float

from phihat._core import calls as _calls
from phihat._core import tree as _tree
from phihat._core.types import Batch, LossFn
from phihat.losses.factories import (
    penalized,
    penalized_keyed,
    penalized_residuals,
    reduced,
    reduced_keyed,
    residuals,
)
from phihat.losses.row_terms import squares

__all__ = ["Traits", "residual_fn", "traits", "weights_of"]


@_calls.public
def residual_fn(loss_fn: LossFn) -> Callable[..., Float[Array, " N"]]:
    r"""Return the residuals whose sum of squares is the loss.

    Least squares give $\sqrt{w_i}\,(f - y)$, times $\sqrt{1/I}$ for a mean; a penalty
    appends $\sqrt\lambda\,\phi$.

    Args:
      loss_fn: from `least_squares`, perhaps in `with_l2`.

    Returns:
      `(params, batch) -> [N]`, without the batch where the loss has it bound: the
      residuals flattened row by row, then the penalty's, leaf by leaf.

    Raises:
      ValueError: another loss, or a model that takes a key: neither has residuals that
        are a function of the params.

    Example:
      >>> from phihat.losses import least_squares, with_l2
      >>> loss_fn = with_l2(least_squares(lambda params, x: params * x), 4.0)
      >>> batch = (jnp.array([1.0, 2.0]), jnp.array([0.0, 0.0]))
      >>> residual_fn(loss_fn)(jnp.array(3.0), batch).tolist()
      [3.0, 6.0, 6.0]
    """
    loss_fn = _tree.as_partial(loss_fn, "residual_fn", "loss_fn")
    name = getattr(loss_fn.func, "__name__", type(loss_fn.func).__name__)
    if loss_fn.func is penalized:
        inner, weight = loss_fn.args
        return Partial(penalized_residuals, residual_fn(inner), weight)
    if loss_fn.func is reduced:
        call, terms, *rest = loss_fn.args
        if terms.func is squares:
            return Partial(residuals, *rest, **loss_fn.keywords)
        name = call.value
    if loss_fn.func in (reduced_keyed, penalized_keyed):
        name = "a loss whose model takes a `key`"
    raise ValueError(
        "residual_fn: `loss_fn` must come from `least_squares`, perhaps in `with_l2`, "
        f"got {name}: it is not a sum of squared residuals."
    )


class Traits(NamedTuple):
    """What a loss is made of.

    Attributes:
      name: the function here that made it, or None.
      reduction: "sum" or "mean", or None where it is not known.
      is_penalized: whether `with_l2` is around it.
    """

    name: str | None
    reduction: str | None
    is_penalized: bool


@_calls.public
def traits(loss_fn: LossFn) -> Traits:
    """Tell what a loss is made of, as far as it comes from here.

    Args:
      loss_fn: any loss.

    Example:
      >>> from phihat.losses import least_squares, with_l2
      >>> loss_fn = least_squares(lambda params, x: params * x, reduction="mean")
      >>> traits(with_l2(loss_fn, 0.1))
      Traits(name='least_squares', reduction='mean', is_penalized=True)
      >>> traits(lambda params: params**2)
      Traits(name=None, reduction=None, is_penalized=False)
    """
    loss_fn = _tree.as_partial(loss_fn, "traits", "loss_fn")
    if loss_fn.func in (penalized, penalized_keyed):
        return traits(loss_fn.args[0])._replace(is_penalized=True)
    if loss_fn.func in (reduced, reduced_keyed):
        call, _, _, reduction, *_ = loss_fn.args
        return Traits(call.value, reduction.value, False)
    return Traits(None, None, False)


@_calls.public
def weights_of(loss_fn: LossFn, data: Batch = None) -> Array | None:
    """Return the weights of the rows, from the loss or from the data.

    Args:
      loss_fn: any loss.
      data: what it is called with.

    Returns:
      [I], or None where there are none, or the loss is not one of these.

    Example:
      >>> from phihat.losses import least_squares
      >>> loss_fn = least_squares(lambda params, x: params * x, weights=[1.0, 2.0])
      >>> weights_of(loss_fn).tolist()
      [1.0, 2.0]
    """
    loss_fn = _tree.as_partial(loss_fn, "weights_of", "loss_fn")
    if loss_fn.func in (penalized, penalized_keyed):
        return weights_of(loss_fn.args[0], data)
    if loss_fn.func not in (reduced, reduced_keyed):
        return None
    *_, weights = loss_fn.args
    if weights is None and isinstance(data, (tuple, list)) and len(data) == 3:
        weights = data[2]
    return None if weights is None else jnp.asarray(weights)
