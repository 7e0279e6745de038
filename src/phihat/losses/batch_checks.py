"""Labels and weights that a loss cannot mean, found in concrete data."""

import functools
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from phihat._core import calls as _calls
from phihat._core import tree as _tree
from phihat._core import user_code as _user_code
from phihat._core.types import Params
from phihat.losses.factories import (
    check_weights,
    penalized,
    penalized_keyed,
    reduced,
    reduced_keyed,
)
from phihat.losses.row_terms import BINARY, CROSS_ENTROPY

__all__ = ["check_batch"]


@_calls.public
def check_batch(call: str, loss_fn: Any, params: Params, data: Any) -> None:
    """Check concrete labels and weights of a batch of one of these losses.

    Of another loss only the integers in its data are looked at: see whether they wrap.

    Args:
      call: the public function, for the message.
      loss_fn: any loss.
      params: what the model is called with, for its number of classes.
      data: the whole data.

    Raises:
      TypeError: masked weights.
      ValueError: labels that are none; weights that are negative, not finite or of
        another length than the rows.

    Example:
      >>> import numpy as np
      >>> from phihat import losses
      >>> loss_fn = losses.binary_cross_entropy(lambda params, x: params * x)
      >>> data = (np.ones(2), np.array([-1, 1]))
      >>> check_batch("fit", loss_fn, 0.0, data)
      Traceback (most recent call last):
      ValueError: fit: `binary_cross_entropy` takes labels 0 and 1, ...
    """
    loss_fn = _tree.as_partial(loss_fn, call, "loss_fn")
    if loss_fn.func in (penalized, penalized_keyed):
        return check_batch(call, loss_fn.args[0], params, data)
    is_ours = loss_fn.func in (reduced, reduced_keyed)
    if not is_ours and data is not None:
        _user_code.warn_of_wrapping(call, loss_fn, params, data)
        _user_code.warn_of_pairs(call, loss_fn, params, data)
    if not (is_ours and isinstance(data, (tuple, list)) and len(data) in (2, 3)):
        return None
    name = loss_fn.args[0].value
    weights = data[2] if len(data) == 3 else None
    if weights is not None and _is_here(weights):
        check_weights(call, "data[2], the weights,", weights)
        if np.shape(weights) != np.shape(data[1])[:1]:
            raise ValueError(
                f"{call}: the weights, data[2], must be one for each row of y, "
                f"{list(np.shape(data[1])[:1])}, got shape {list(np.shape(weights))}."
            )
    if name in (BINARY, CROSS_ENTROPY) and _is_here(data[1]):
        labels = np.asarray(data[1])
        if labels.size and labels.dtype.kind in "biuf":
            check = _check_binary if name == BINARY else _check_classes
            check(call, labels, loss_fn, params, data[0])
    return None


_MAX_COPIED = 2**20
"""Labels on an accelerator are copied here to be looked at, if they are few."""


def _is_here(values: Any) -> bool:
    """Tell whether values can be looked at without waiting for long."""
    if isinstance(values, jax.core.Tracer):
        return False
    if isinstance(values, jax.Array):
        is_host = all(device.platform == "cpu" for device in values.devices())
        return values.is_fully_addressable and (is_host or values.size <= _MAX_COPIED)
    return isinstance(values, (np.ndarray, np.generic, float, int))


def _check_binary(
    call: str, labels: np.ndarray, loss_fn: Partial, params: Any, x: Any
) -> None:
    del loss_fn, params, x
    low, high = float(labels.min()), float(labels.max())
    if low >= 0 and high <= 1:
        return
    cure = "; bring them into [0, 1]"
    if {low, high} <= {-1.0, 1.0}:
        cure = "; map -1 and 1 to them by `(y + 1) / 2`"
    elif np.isnan(labels).any():
        cure = f"; {int(np.isnan(labels).sum())} of them are NaN: leave those rows out"
    raise ValueError(
        f"{call}: `{BINARY}` takes labels 0 and 1, or probabilities between, got "
        f"labels from {low:g} to {high:g}{cure}."
    )


def _check_classes(
    call: str, labels: np.ndarray, loss_fn: Partial, params: Any, x: Any
) -> None:
    if labels.dtype.kind not in "iu":
        return  # the loss itself says that labels are integers
    low, high = int(labels.min()), int(labels.max())
    num_classes = _num_classes(loss_fn, params, x)
    if low >= 0 and (num_classes is None or high < num_classes):
        return
    known = "" if num_classes is None else f" below {num_classes}, the number of logits"
    cure = "; classes count from 0"
    if num_classes is not None and low >= 1 and high - 1 < num_classes:
        cure = "; classes count from 0: subtract 1"
    raise ValueError(
        f"{call}: `{CROSS_ENTROPY}` takes labels >= 0{known}, got labels from {low} "
        f"to {high}{cure}."
    )


def _num_classes(loss_fn: Partial, params: Any, x: Any) -> int | None:
    """Return the number of logits, or None where the model cannot be asked."""
    model = loss_fn.args[2]
    if loss_fn.func is reduced_keyed:
        model = functools.partial(model, key=jax.random.key(0))
    try:
        leaves, structure = jax.tree.flatten((model, params, x))
        shapes = tuple(
            jax.ShapeDtypeStruct(np.shape(leaf), jnp.result_type(leaf))
            for leaf in leaves
        )
        return _last_axis(structure, shapes)
    except Exception:  # the fit itself will say what is wrong with the model
        return None


@functools.lru_cache(maxsize=64)
def _last_axis(structure: Any, shapes: tuple[Any, ...]) -> int | None:
    def call(leaves: Any) -> Any:
        model, params, x = jax.tree.unflatten(structure, leaves)
        return model(params, x)

    shape = jax.eval_shape(call, list(shapes)).shape
    return shape[-1] if shape else None
