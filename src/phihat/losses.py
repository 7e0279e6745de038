r"""Losses: from a model $f$ to `loss_fn(params, batch) -> []`.

A batch is `(x, y)`, or `(x, y, weights)` with a weight for every row. Each loss is the
sum over the rows of a batch, $L = \sum_i w_i\, \ell(f(\phi, x_i), y_i)$, as the deck
has it, or with `reduction="mean"` that sum divided by the number of rows I: outputs of
a row are always summed. Weights thus multiply the terms of their rows and never rescale
the rest, so that minibatches stay unbiased.

Predictions are reduced in at least float32, and the loss has that dtype.

A model with a parameter named `key` (dropout) makes a loss with a parameter named
`key`, which is handed on; a fit gives one, folded from its own key and the step.

Example:
  >>> import jax.numpy as jnp
  >>> from phihat import losses, models
  >>> loss_fn = losses.least_squares(models.linear)
  >>> batch = (jnp.array([0.0, 1.0]), jnp.array([1.0, 1.0]))
  >>> float(loss_fn({"weight": 2.0, "bias": 0.0}, batch))
  2.0
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float, Int, Num

from phihat._core import checks as _checks
from phihat._core import tree as _tree
from phihat._core.types import Batch, LossFn, ModelFn, Params, RandomKey

__all__ = [
    "Traits",
    "binary_cross_entropy",
    "check_batch",
    "gaussian_negative_log_likelihood",
    "least_squares",
    "multiclass_cross_entropy",
    "residual_fn",
    "traits",
    "weights_of",
    "with_l2",
]

_LEAST_SQUARES = "least_squares"
_BINARY = "binary_cross_entropy"
_CROSS_ENTROPY = "multiclass_cross_entropy"
_GAUSSIAN = "gaussian_negative_log_likelihood"


def least_squares(
    model: ModelFn, *, reduction: str = "sum", weights: Any = None
) -> LossFn:
    r"""Sum the squares of the residuals.

    $\ell = \|f(\phi, x_i) - y_i\|^2$, without a factor of one half.

    Args:
      model: `(params, x) -> [I]` or `[I, K]`, the shape of y.
      reduction: "sum" over the rows, or "mean".
      weights: $w$ [I] >= 0, one for each row of a full batch. Rows that are drawn in
        minibatches bring theirs as the third member of the batch.

    Returns:
      `loss_fn(params, batch) -> []`; `residual_fn` gives its residuals.

    Raises:
      TypeError: the model is no function.
      ValueError: unknown reduction, negative weights; when called, shapes that differ.

    Example:
      >>> loss_fn = least_squares(lambda params, x: params * x, reduction="mean")
      >>> float(loss_fn(2.0, (jnp.array([1.0, 2.0]), jnp.array([1.0, 2.0]))))
      2.5
    """
    terms = Partial(_squares)
    return _loss(_LEAST_SQUARES, terms, model, reduction, weights)


def binary_cross_entropy(
    model: ModelFn, *, reduction: str = "sum", weights: Any = None
) -> LossFn:
    r"""Score logits against labels in {0, 1}.

    $\ell = -y \log \sigma(z) - (1 - y) \log(1 - \sigma(z))$, with the logit
    $z = f(\phi, x_i)$ and the sigmoid $\sigma$; accurate for any z.

    Args:
      model: `(params, x) -> ` logits [I] or [I, K], the shape of y.
      reduction: "sum" over the rows, or "mean".
      weights: as in `least_squares`.

    Returns:
      `loss_fn(params, batch) -> []`; y may be of any real dtype, or bool, and may lie
      between 0 and 1 (a probability).

    Raises:
      TypeError: the model is no function.
      ValueError: unknown reduction, negative weights; when called, shapes that differ.

    Example:
      >>> loss_fn = binary_cross_entropy(lambda params, x: params * x)
      >>> print(f"{loss_fn(0.0, (jnp.ones(2), jnp.array([0, 1]))):.4f}")  # 2 log 2
      1.3863
    """
    terms = Partial(_binary_cross_entropies)
    return _loss(_BINARY, terms, model, reduction, weights)


def multiclass_cross_entropy(
    model: ModelFn, *, reduction: str = "sum", weights: Any = None
) -> LossFn:
    r"""Score logits against integer class labels.

    $\ell = \log \sum_k \exp z_k - z_y$, with the logits $z = f(\phi, x_i)$.

    Args:
      model: `(params, x) -> ` logits [I, K].
      reduction: "sum" over the rows, or "mean".
      weights: as in `least_squares`.

    Returns:
      `loss_fn(params, batch) -> []`; y [I] are integers in [0, K). A label outside
      makes the loss NaN.

    Raises:
      TypeError: the model is no function; when called, labels that are no integers.
      ValueError: unknown reduction, negative weights; when called, shapes that do not
        fit.

    Example:
      >>> loss_fn = multiclass_cross_entropy(lambda params, x: x * params)
      >>> print(f"{loss_fn(0.0, (jnp.ones([1, 3]), jnp.array([2]))):.4f}")  # log 3
      1.0986
    """
    terms = Partial(_multiclass_cross_entropies)
    return _loss(_CROSS_ENTROPY, terms, model, reduction, weights)


def gaussian_negative_log_likelihood(
    model: ModelFn, *, sigma: Any = 1.0, reduction: str = "sum", weights: Any = None
) -> LossFn:
    r"""Score a mean, and if wanted a spread, against Gaussian observations.

    $\ell = \frac12 \log 2\pi + \log s + (y - \mu)^2 / (2 s^2)$, with $s = \sigma$ for a
    model that returns $\mu$ alone, and $s = \sigma \exp(\lambda)$ for one that returns
    the pair $(\mu, \lambda)$. So a model with $\lambda$ among its params learns one
    spread, one that computes it from x a spread for every row, and known errors
    `sigma` times a learned factor are a pair as well.

    Args:
      model: `(params, x) -> ` mean [I] or [I, K], the shape of y, or the tuple
        (mean, log_sigma).
      sigma: $\sigma$ > 0, a number, an array [K] (one per output), or one of the shape
        of y. log_sigma has one of the same shapes.
      reduction: "sum" over the rows, or "mean".
      weights: as in `least_squares`.

    Returns:
      `loss_fn(params, batch) -> []`; `sigma` is a number of it.

    Raises:
      TypeError: the model is no function, or sigma no number.
      ValueError: sigma <= 0, unknown reduction, negative weights; when called, shapes
        that do not fit.

    Example:
      >>> loss_fn = gaussian_negative_log_likelihood(lambda mu, x: mu * x, sigma=0.5)
      >>> print(f"{loss_fn(1.0, (jnp.ones(1), jnp.ones(1))):.4f}")
      0.2258
    """
    sigma = _tree.as_number(sigma, _GAUSSIAN, "sigma")
    _checks.check_range(_GAUSSIAN, "sigma", sigma, 0.0, include_low=False)
    terms = Partial(_gaussian_terms, sigma)
    return _loss(_GAUSSIAN, terms, model, reduction, weights)


def with_l2(loss_fn: LossFn, weight: Any) -> LossFn:
    r"""Add an L2 penalty on all params to any loss.

    $L(\phi) + \lambda \|\phi\|^2$, over every entry of every leaf, biases too.

    Args:
      loss_fn: `(params, batch) -> []` or `(params) -> []`; with a parameter `key`, or
        returning `(loss, aux)`, it keeps them.
      weight: $\lambda$ >= 0, a number of the loss: a new one needs no new program.

    Returns:
      A loss of the same form.

    Raises:
      TypeError: the loss is no function, or the weight no number.
      ValueError: the weight is negative.

    Example:
      >>> loss_fn = with_l2(lambda params: 0.0 * params["a"][0], 0.5)
      >>> float(loss_fn({"a": jnp.array([1.0, 3.0])}))
      5.0
    """
    loss_fn = _tree.as_partial(loss_fn, "with_l2", "loss_fn")
    weight = _tree.as_number(weight, "with_l2", "weight")
    _checks.check_range("with_l2", "weight", weight, 0.0)
    keyed = _checks.takes_argument(loss_fn, "key")
    return Partial(_penalized_keyed if keyed else _penalized, loss_fn, weight)


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
      >>> loss_fn = with_l2(least_squares(lambda params, x: params * x), 4.0)
      >>> batch = (jnp.array([1.0, 2.0]), jnp.array([0.0, 0.0]))
      >>> residual_fn(loss_fn)(jnp.array(3.0), batch).tolist()
      [3.0, 6.0, 6.0]
    """
    loss_fn = _tree.as_partial(loss_fn, "residual_fn", "loss_fn")
    name = getattr(loss_fn.func, "__name__", type(loss_fn.func).__name__)
    if loss_fn.func is _penalized:
        inner, weight = loss_fn.args
        return Partial(_penalized_residuals, residual_fn(inner), weight)
    if loss_fn.func is _reduced:
        call, terms, *rest = loss_fn.args
        if terms.func is _squares:
            return Partial(_residuals, *rest, **loss_fn.keywords)
        name = call.value
    if loss_fn.func in (_reduced_keyed, _penalized_keyed):
        name = "a loss whose model takes a `key`"
    raise ValueError(
        "residual_fn: `loss_fn` must come from `least_squares`, perhaps in `with_l2`, "
        f"got {name}: it is no sum of squares of residuals."
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


def traits(loss_fn: LossFn) -> Traits:
    """Tell what a loss is made of, as far as it comes from here.

    Args:
      loss_fn: any loss.

    Example:
      >>> loss_fn = least_squares(lambda params, x: params * x, reduction="mean")
      >>> traits(with_l2(loss_fn, 0.1))
      Traits(name='least_squares', reduction='mean', is_penalized=True)
      >>> traits(lambda params: params**2)
      Traits(name=None, reduction=None, is_penalized=False)
    """
    loss_fn = _tree.as_partial(loss_fn, "traits", "loss_fn")
    if loss_fn.func in (_penalized, _penalized_keyed):
        return traits(loss_fn.args[0])._replace(is_penalized=True)
    if loss_fn.func in (_reduced, _reduced_keyed):
        call, _, _, reduction, *_ = loss_fn.args
        return Traits(call.value, reduction.value, False)
    return Traits(None, None, False)


def weights_of(loss_fn: LossFn, data: Batch = None) -> Array | None:
    """Return the weights of the rows, from the loss or from the data.

    Args:
      loss_fn: any loss.
      data: what it is called with.

    Returns:
      [I], or None where there are none, or the loss is not one of these.

    Example:
      >>> loss_fn = least_squares(lambda params, x: params * x, weights=[1.0, 2.0])
      >>> weights_of(loss_fn).tolist()
      [1.0, 2.0]
    """
    loss_fn = _tree.as_partial(loss_fn, "weights_of", "loss_fn")
    if loss_fn.func in (_penalized, _penalized_keyed):
        return weights_of(loss_fn.args[0], data)
    if loss_fn.func not in (_reduced, _reduced_keyed):
        return None
    *_, weights = loss_fn.args
    if weights is None and isinstance(data, (tuple, list)) and len(data) == 3:
        weights = data[2]
    return None if weights is None else jnp.asarray(weights)


# ------------------------------------------------------------------ the terms of a row


def _squares(call: str, prediction: Any, y: Array) -> Float[Array, "..."]:
    residual = _difference(call, prediction, y)
    return residual * residual


def _difference(call: str, prediction: Any, y: Array) -> Float[Array, "..."]:
    wide = _widen(call, prediction)
    for name, values in (("y", y), ("the prediction", wide)):
        if jnp.iscomplexobj(values):
            raise TypeError(
                f"{call}: {name} is complex ({values.dtype}), and its imaginary part "
                "would be dropped; fit real and imaginary parts as two columns, "
                "`jnp.stack([y.real, y.imag], -1)`, or use `fit_curve`."
            )
    _check_same_shape(call, wide, y)
    return wide - y.astype(wide.dtype)


def _binary_cross_entropies(
    call: str, prediction: Any, y: Array
) -> Float[Array, "..."]:
    logits = _widen(call, prediction)
    _check_same_shape(call, logits, y)
    y = y.astype(logits.dtype)
    # Two terms >= 0 where one with -y z would cancel when the fit is good.
    return y * jax.nn.softplus(-logits) + (1.0 - y) * jax.nn.softplus(logits)


def _multiclass_cross_entropies(
    call: str, prediction: Any, y: Int[Array, " I"]
) -> Float[Array, " I"]:
    logits = _widen(call, prediction)
    if not jnp.issubdtype(y.dtype, jnp.integer):
        raise TypeError(
            f"{call}: y must hold integer class labels [I], got {_checks.brief(y)}."
        )
    if logits.shape[:-1] != y.shape or logits.ndim == 0:
        raise ValueError(
            f"{call}: logits [I, K] and labels [I] must have the same rows, but the "
            f"prediction has shape {list(logits.shape)} and y {list(y.shape)}."
        )
    # A negative label would count from the end; beyond the end it is read as NaN.
    labels = y.astype(jnp.int32)[..., None]
    labels = jnp.where(labels < 0, logits.shape[-1], labels)
    chosen = jnp.take_along_axis(logits, labels, axis=-1, mode="fill")
    return jax.nn.logsumexp(logits, axis=-1) - chosen[..., 0]


def _gaussian_terms(
    sigma: Any, call: str, prediction: Any, y: Array
) -> Float[Array, "..."]:
    learned = isinstance(prediction, tuple)
    if learned and len(prediction) != 2:
        raise ValueError(
            f"{call}: the model must return the mean or the pair (mean, log_sigma), "
            f"got a tuple of {len(prediction)}."
        )
    mean, log_factor = prediction if learned else (prediction, None)
    error = _difference(call, mean, y)
    spread = _per_entry(call, "sigma", sigma, error)
    log_spread = jnp.log(spread)
    scaled = error / spread
    if learned:
        log_factor = _per_entry(call, "log_sigma", log_factor, error)
        log_spread = log_spread + log_factor
        scaled = scaled * jnp.exp(-log_factor)
    return 0.5 * math.log(2.0 * math.pi) + log_spread + 0.5 * scaled * scaled


def _per_entry(
    call: str, name: str, value: Any, like: Float[Array, "..."]
) -> Float[Array, "..."]:
    """Give `value` the shape and dtype of `like`: a number, one per output, or all."""
    value = jnp.asarray(value)
    if value.shape not in ((), like.shape[1:], like.shape):
        raise ValueError(
            f"{call}: `{name}` must be a number, one per output or one per entry of y "
            f"{list(like.shape)}, got shape {list(value.shape)}; in minibatches, let "
            "the model return (mean, log_sigma)."
        )
    return jnp.broadcast_to(value.astype(like.dtype), like.shape)


# ---------------------------------------------------------------- from terms to a loss


def _loss(
    call: str, terms: Partial, model: ModelFn, reduction: str, weights: Any
) -> LossFn:
    model = _tree.as_partial(model, call, "model")
    _checks.check_choice(call, "reduction", reduction, ("sum", "mean"))
    if weights is not None:
        weights = _as_weights(call, weights)
    keyed = _checks.takes_argument(model, "key")
    function = _reduced_keyed if keyed else _reduced
    static = _tree.Static
    return Partial(function, static(call), terms, model, static(reduction), weights)


def _as_weights(call: str, weights: Any) -> Any:
    """Return weights as an array or a number; a Series or a list becomes an array."""
    if isinstance(weights, np.ma.MaskedArray):
        raise TypeError(
            f"{call}: `weights` is a masked array; pass `weights.filled(0.0)`, so that "
            "what is masked does not count."
        )
    if isinstance(weights, (list, tuple)) or hasattr(weights, "to_numpy"):
        weights = np.asarray(weights)
    weights = _tree.as_number(weights, call, "weights")
    _check_weights(call, "weights", weights)
    return weights


def _check_weights(call: str, name: str, weights: Any) -> None:
    """Check concrete weights: a negative one makes a loss without a least value."""
    _checks.check_range(call, name, weights, 0.0)
    _checks.check_range(call, name, weights, high=np.inf, include_high=False)


def _reduced(
    call: _tree.Static,
    terms: Partial,
    model: ModelFn,
    reduction: _tree.Static,
    weights: Any,
    params: Params,
    batch: Batch,
) -> Float[Array, ""]:
    x, y, weights = _unpack(call.value, batch, weights)
    if call.value in (_LEAST_SQUARES, _GAUSSIAN):
        x = _float_x(model, params, x)
    return _reduce(
        call.value, terms(call.value, model(params, x), y), reduction.value, weights
    )


def _reduced_keyed(
    call: _tree.Static,
    terms: Partial,
    model: ModelFn,
    reduction: _tree.Static,
    weights: Any,
    params: Params,
    batch: Batch,
    *,
    key: RandomKey,
) -> Float[Array, ""]:
    """Reduce likewise, for a model that takes a key: the signature tells the fit."""
    keyed_model = functools.partial(model, key=key)
    return _reduced(call, terms, keyed_model, reduction, weights, params, batch)


def _reduce(
    call: str, terms: Float[Array, "..."], reduction: str, weights: Array | None
) -> Float[Array, ""]:
    if weights is not None:
        terms = _per_row(call, weights, terms) * terms
    total = jnp.sum(terms)
    return total / _num_rows(terms) if reduction == "mean" else total


def _num_rows(terms: Float[Array, "..."]) -> int:
    return terms.shape[0] if terms.ndim else 1


def _per_row(
    call: str, weights: Array, terms: Float[Array, "..."]
) -> Float[Array, "..."]:
    """Give the weights the shape and dtype of the terms of their rows."""
    if weights.shape != terms.shape[:1]:
        raise ValueError(
            f"{call}: `weights` must have shape {list(terms.shape[:1])}, one for each "
            f"row of the batch, got {list(weights.shape)}; rows that are drawn in "
            "minibatches bring their weights in the data, as (x, y, weights)."
        )
    columns = weights.reshape(weights.shape + (1,) * (terms.ndim - weights.ndim))
    return jnp.broadcast_to(columns.astype(terms.dtype), terms.shape)


def _residuals(
    model: ModelFn, reduction: _tree.Static, weights: Any, params: Params, batch: Batch
) -> Float[Array, " N"]:
    call = _LEAST_SQUARES
    x, y, weights = _unpack(call, batch, weights)
    x = _float_x(model, params, x)
    residual = _difference(call, model(params, x), y)
    if weights is not None:
        residual = _root(_per_row(call, weights, residual)) * residual
    if reduction.value == "mean":
        residual = residual / math.sqrt(_num_rows(residual))
    return residual.reshape(-1)


def _root(value: Float[Array, "..."]) -> Float[Array, "..."]:
    """Take the square root, with derivative zero where the value is zero."""
    positive = value > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, value, 1.0)), 0.0)


# ------------------------------------------------------------------ the penalty


def _penalized(loss_fn: LossFn, weight: Any, params: Params, *batch: Batch) -> Any:
    return _add_penalty(loss_fn(params, *batch), weight, params)


def _penalized_keyed(
    loss_fn: LossFn, weight: Any, params: Params, *batch: Batch, key: RandomKey
) -> Any:
    return _add_penalty(loss_fn(params, *batch, key=key), weight, params)


def _add_penalty(result: Any, weight: Any, params: Params) -> Any:
    value, *aux = result if isinstance(result, tuple) else (result,)
    dtype = _tree.accumulator_dtype(value)
    penalty = jnp.zeros((), dtype)
    for leaf in jax.tree.leaves(params):
        wide = jnp.asarray(leaf).astype(_tree.accumulator_dtype(leaf))
        penalty = penalty + jnp.sum(wide * wide).astype(dtype)
    value = jnp.asarray(value).astype(dtype)
    total = value + jnp.asarray(weight).astype(dtype) * penalty
    return (total, *aux) if isinstance(result, tuple) else total


def _penalized_residuals(
    inner: Callable[..., Array], weight: Any, params: Params, *batch: Batch
) -> Float[Array, " N"]:
    residual = inner(params, *batch)
    root = _root(jnp.asarray(weight).astype(residual.dtype))
    flat = [
        root * jnp.asarray(leaf).astype(residual.dtype).reshape(-1)
        for leaf in jax.tree.leaves(params)
    ]
    return jnp.concatenate([residual, *flat])


# ------------------------------------------------------------------ checks


def check_batch(call: str, loss_fn: Any, params: Params, data: Any) -> None:
    """Check concrete labels and weights of a batch of one of these losses.

    Args:
      call: the public function, for the message.
      loss_fn: any loss; one that is not from here is not looked into.
      params: what the model is called with, for its number of classes.
      data: the whole data.

    Raises:
      TypeError: masked weights.
      ValueError: labels that are none; weights that are negative, not finite or of
        another length than the rows.

    Example:
      >>> import numpy as np
      >>> loss_fn = binary_cross_entropy(lambda params, x: params * x)
      >>> data = (np.ones(2), np.array([-1, 1]))
      >>> check_batch("fit", loss_fn, 0.0, data)
      Traceback (most recent call last):
      ValueError: fit: `binary_cross_entropy` takes labels 0 and 1, ...
    """
    loss_fn = _tree.as_partial(loss_fn, call, "loss_fn")
    if loss_fn.func in (_penalized, _penalized_keyed):
        return check_batch(call, loss_fn.args[0], params, data)
    is_ours = loss_fn.func in (_reduced, _reduced_keyed)
    if not (is_ours and isinstance(data, (tuple, list)) and len(data) in (2, 3)):
        return None
    name = loss_fn.args[0].value
    weights = data[2] if len(data) == 3 else None
    if weights is not None and _is_here(weights):
        _check_weights(call, "data[2], the weights,", weights)
        if np.shape(weights) != np.shape(data[1])[:1]:
            raise ValueError(
                f"{call}: the weights, data[2], must be one for each row of y, "
                f"{list(np.shape(data[1])[:1])}, got shape {list(np.shape(weights))}."
            )
    if name in (_BINARY, _CROSS_ENTROPY) and _is_here(data[1]):
        labels = np.asarray(data[1])
        if labels.size and labels.dtype.kind in "biuf":
            check = _check_binary if name == _BINARY else _check_classes
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
        f"{call}: `{_BINARY}` takes labels 0 and 1, or probabilities between, got "
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
        f"{call}: `{_CROSS_ENTROPY}` takes labels >= 0{known}, got labels from {low} "
        f"to {high}{cure}."
    )


def _num_classes(loss_fn: Partial, params: Any, x: Any) -> int | None:
    """Return the number of logits, or None where the model cannot be asked."""
    model = loss_fn.args[2]
    if loss_fn.func is _reduced_keyed:
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


def _float_x(model: Any, params: Params, x: Any) -> Any:
    """Turn integers of x into floats, where the model takes them.

    Whole numbers in x are measurements: `x**5` of integers wraps. A model that counts
    with them, as one that looks up `table[x]`, refuses floats and keeps its integers.
    """
    leaves, structure = jax.tree.flatten(x)
    is_integer = [jnp.issubdtype(jnp.result_type(leaf), jnp.integer) for leaf in leaves]
    if not any(is_integer):
        return x
    dtypes = [jnp.result_type(leaf) for leaf in jax.tree.leaves(params)]
    with jax.numpy_dtype_promotion("standard"):
        dtype = jnp.result_type(*dtypes) if dtypes else _tree.default_float()
    if not jnp.issubdtype(dtype, jnp.floating):
        return x
    floats = jax.tree.unflatten(
        structure,
        [
            jnp.asarray(leaf).astype(dtype) if wanted else leaf
            for leaf, wanted in zip(leaves, is_integer, strict=True)
        ],
    )
    try:
        before = jax.eval_shape(model, params, x)
    except Exception:
        return x
    try:
        after = jax.eval_shape(model, params, floats)
    except Exception:
        return x
    same = jax.tree.map(np.shape, before) == jax.tree.map(np.shape, after)
    return floats if same else x


def _unpack(
    call: str, batch: Any, weights: Any
) -> tuple[Any, Num[Array, "..."], Array | None]:
    """Return x, y and the weights, from the batch or bound to the loss."""
    fits = isinstance(batch, (tuple, list)) and len(batch) in (2, 3)
    if not fits or not all(_is_array(part) for part in batch[1:]):
        raise ValueError(
            f"{call}: the batch must be (x, y) or (x, y, weights) with y and weights "
            f"arrays, got {_describe(batch)}."
        )
    if len(batch) == 3 and weights is not None:
        raise ValueError(
            f"{call}: weights are both bound to the loss and the third member of the "
            "batch; keep one of them."
        )
    bound = batch[2] if len(batch) == 3 else weights
    bound = None if bound is None else jnp.asarray(bound)
    return batch[0], jnp.asarray(batch[1]), bound


def _is_array(part: Any) -> bool:
    return isinstance(part, (jax.Array, np.ndarray, np.generic, float, int))


def _describe(batch: Any) -> str:
    if isinstance(batch, (tuple, list)):
        kinds = ", ".join(type(part).__name__ for part in batch[:4])
        more = ", ..." if len(batch) > 4 else ""
        return f"a {type(batch).__name__} of {len(batch)} ({kinds}{more})"
    if isinstance(batch, dict):
        return f"a dict with the keys {sorted(map(str, batch))}"
    return _checks.brief(batch)


def _widen(call: str, prediction: Any) -> Float[Array, "..."]:
    """Return the prediction in at least float32."""
    if isinstance(prediction, (tuple, list, dict)) or prediction is None:
        raise ValueError(
            f"{call}: the model must return one array, got {_describe(prediction)}."
        )
    return jnp.asarray(prediction).astype(_tree.accumulator_dtype(prediction))


def _check_same_shape(call: str, prediction: Array, y: Array) -> None:
    if prediction.shape == y.shape:
        return
    cure = ""
    if prediction.size == y.size:
        cure = "; add or drop an axis, for example y[:, None] or prediction[:, 0]"
    raise ValueError(
        f"{call}: the prediction must have the shape of y, got "
        f"{list(prediction.shape)} against {list(y.shape)}{cure}."
    )
