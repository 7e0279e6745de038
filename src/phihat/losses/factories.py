"""The losses, made of a model: the terms of the rows, summed; and the penalty."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float

from phihat._core import calls as _calls
from phihat._core import checks as _checks
from phihat._core import tree as _tree
from phihat._core.types import Batch, LossFn, ModelFn, Params, RandomKey
from phihat.losses.row_terms import (
    BINARY,
    CROSS_ENTROPY,
    GAUSSIAN,
    LEAST_SQUARES,
    binary_cross_entropies,
    difference,
    float_x,
    gaussian_terms,
    multiclass_cross_entropies,
    squares,
    unpack,
)

__all__ = [
    "binary_cross_entropy",
    "check_weights",
    "gaussian_negative_log_likelihood",
    "least_squares",
    "multiclass_cross_entropy",
    "penalized",
    "penalized_keyed",
    "penalized_residuals",
    "reduced",
    "reduced_keyed",
    "residuals",
    "with_l2",
]


@_calls.public
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
      TypeError: the model is not a function.
      ValueError: unknown reduction, negative weights; when called, shapes that differ.

    Example:
      >>> loss_fn = least_squares(lambda params, x: params * x, reduction="mean")
      >>> float(loss_fn(2.0, (jnp.array([1.0, 2.0]), jnp.array([1.0, 2.0]))))
      2.5
    """
    terms = Partial(squares)
    return _loss(LEAST_SQUARES, terms, model, reduction, weights)


@_calls.public
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
      TypeError: the model is not a function.
      ValueError: unknown reduction, negative weights; when called, shapes that differ.

    Example:
      >>> loss_fn = binary_cross_entropy(lambda params, x: params * x)
      >>> print(f"{loss_fn(0.0, (jnp.ones(2), jnp.array([0, 1]))):.4f}")  # 2 log 2
      1.3863
    """
    terms = Partial(binary_cross_entropies)
    return _loss(BINARY, terms, model, reduction, weights)


@_calls.public
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
      TypeError: the model is not a function; when called, labels that are not integers.
      ValueError: unknown reduction, negative weights; when called, shapes that do not
        fit.

    Example:
      >>> loss_fn = multiclass_cross_entropy(lambda params, x: x * params)
      >>> print(f"{loss_fn(0.0, (jnp.ones([1, 3]), jnp.array([2]))):.4f}")  # log 3
      1.0986
    """
    terms = Partial(multiclass_cross_entropies)
    return _loss(CROSS_ENTROPY, terms, model, reduction, weights)


@_calls.public
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
      TypeError: the model is not a function, or sigma is not a number.
      ValueError: sigma <= 0, unknown reduction, negative weights; when called, shapes
        that do not fit.

    Example:
      >>> loss_fn = gaussian_negative_log_likelihood(lambda mu, x: mu * x, sigma=0.5)
      >>> print(f"{loss_fn(1.0, (jnp.ones(1), jnp.ones(1))):.4f}")
      0.2258
    """
    sigma = _tree.as_number(sigma, GAUSSIAN, "sigma")
    _checks.check_range(GAUSSIAN, "sigma", sigma, 0.0, include_low=False)
    terms = Partial(gaussian_terms, sigma)
    return _loss(GAUSSIAN, terms, model, reduction, weights)


@_calls.public
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
      TypeError: the loss is not a function, or the weight is not a number.
      ValueError: the weight is negative.

    Example:
      >>> loss_fn = with_l2(lambda params: 0.0 * params["a"][0], 0.5)
      >>> float(loss_fn({"a": jnp.array([1.0, 3.0])}))
      5.0
    """
    loss_fn = _tree.as_partial(loss_fn, "with_l2", "loss_fn")
    weight = _tree.as_number(weight, "with_l2", "weight")
    _checks.check_range("with_l2", "weight", weight, 0.0)
    keyed = _checks.takes_key(loss_fn)
    return Partial(penalized_keyed if keyed else penalized, loss_fn, weight)


# ---------------------------------------------------------------- from terms to a loss


def _loss(
    call: str, terms: Partial, model: ModelFn, reduction: str, weights: Any
) -> LossFn:
    model = _tree.as_partial(model, call, "model")
    _checks.check_choice(call, "reduction", reduction, ("sum", "mean"))
    if weights is not None:
        weights = _as_weights(call, weights)
    keyed = _checks.takes_key(model)
    function = reduced_keyed if keyed else reduced
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
    check_weights(call, "weights", weights)
    return weights


def check_weights(call: str, name: str, weights: Any) -> None:
    """Check concrete weights: a negative one makes a loss without a least value."""
    _checks.check_range(call, name, weights, 0.0)
    _checks.check_range(call, name, weights, high=np.inf, include_high=False)


def _explain_calls(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let a loss that is called with other arguments say how it is called."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except TypeError as error:
            trace = error.__traceback__
            if trace is None or trace.tb_next is not None:
                raise  # from within the function, which was called as it should be
            given = len(args) + len(kwargs) - _NUM_BOUND
            raise TypeError(
                f"{args[0].value}: the loss is called as `loss_fn(params, (x, y))`, "
                f"with the params and one batch, got {given} "
                f"argument{'s' * (given != 1)}"
                f"{'; put the data into one tuple' if given > 2 else ''}."
            ) from None

    return call


_NUM_BOUND = 5
"""Arguments of `reduced` that a loss brings along."""


@_explain_calls
def reduced(
    call: _tree.Static,
    terms: Partial,
    model: ModelFn,
    reduction: _tree.Static,
    weights: Any,
    params: Params,
    batch: Batch,
) -> Float[Array, ""]:
    """Return the loss of a batch: the terms of its rows, reduced."""
    x, y, weights = unpack(call.value, batch, weights)
    if call.value in (LEAST_SQUARES, GAUSSIAN):
        x = float_x(model, params, x)
    return _reduce(
        call.value, terms(call.value, model(params, x), y), reduction.value, weights
    )


@_explain_calls
def reduced_keyed(
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
    return reduced(call, terms, keyed_model, reduction, weights, params, batch)


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


def residuals(
    model: ModelFn, reduction: _tree.Static, weights: Any, params: Params, batch: Batch
) -> Float[Array, " N"]:
    """Return the residuals of a batch, whose sum of squares is the loss."""
    call = LEAST_SQUARES
    x, y, weights = unpack(call, batch, weights)
    x = float_x(model, params, x)
    residual = difference(call, model(params, x), y)
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


def penalized(loss_fn: LossFn, weight: Any, params: Params, *batch: Batch) -> Any:
    """Return a loss with its penalty."""
    return _add_penalty(loss_fn(params, *batch), weight, params)


def penalized_keyed(
    loss_fn: LossFn, weight: Any, params: Params, *batch: Batch, key: RandomKey
) -> Any:
    """Return a loss that takes a key with its penalty."""
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


def penalized_residuals(
    inner: Callable[..., Array], weight: Any, params: Params, *batch: Batch
) -> Float[Array, " N"]:
    """Return residuals, then those of the penalty."""
    residual = inner(params, *batch)
    root = _root(jnp.asarray(weight).astype(residual.dtype))
    flat = [
        root * jnp.asarray(leaf).astype(residual.dtype).reshape(-1)
        for leaf in jax.tree.leaves(params)
    ]
    return jnp.concatenate([residual, *flat])
