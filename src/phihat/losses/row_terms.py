"""What one row adds to a loss, and what a batch must be for it."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Num

from phihat._core import checks as _checks
from phihat._core import tree as _tree
from phihat._core.types import Params

__all__ = [
    "BINARY",
    "CROSS_ENTROPY",
    "GAUSSIAN",
    "LEAST_SQUARES",
    "binary_cross_entropies",
    "difference",
    "float_x",
    "gaussian_terms",
    "multiclass_cross_entropies",
    "squares",
    "unpack",
]

LEAST_SQUARES = "least_squares"
BINARY = "binary_cross_entropy"
CROSS_ENTROPY = "multiclass_cross_entropy"
GAUSSIAN = "gaussian_negative_log_likelihood"


def squares(call: str, prediction: Any, y: Array) -> Float[Array, "..."]:
    """Return the squared residuals."""
    residual = difference(call, prediction, y)
    return residual * residual


def difference(call: str, prediction: Any, y: Array) -> Float[Array, "..."]:
    """Return the prediction minus y, both real and of one shape."""
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


def binary_cross_entropies(call: str, prediction: Any, y: Array) -> Float[Array, "..."]:
    """Return the cross-entropy of every logit."""
    logits = _widen(call, prediction)
    _check_same_shape(call, logits, y)
    y = y.astype(logits.dtype)
    # Two terms >= 0 where one with -y z would cancel when the fit is good.
    return y * jax.nn.softplus(-logits) + (1.0 - y) * jax.nn.softplus(logits)


_ONE_HOT = "where y is one-hot, pass `y.argmax(axis=-1)`"


def multiclass_cross_entropies(
    call: str, prediction: Any, y: Int[Array, " I"]
) -> Float[Array, " I"]:
    """Return the cross-entropy of every row of logits."""
    logits = _widen(call, prediction)
    if not jnp.issubdtype(y.dtype, jnp.integer):
        raise TypeError(
            f"{call}: y must hold integer class labels [I], got {_checks.brief(y)}; "
            f"{_ONE_HOT if y.ndim == 2 else 'convert them with `y.astype(int)`'}."
        )
    if logits.shape[:-1] != y.shape or logits.ndim == 0:
        cure = f"; {_ONE_HOT}" if logits.ndim == 2 and logits.shape == y.shape else ""
        raise ValueError(
            f"{call}: logits [I, K] and labels [I] must have the same rows, but the "
            f"prediction has shape {list(logits.shape)} and y {list(y.shape)}{cure}."
        )
    # A negative label would count from the end; beyond the end it is read as NaN.
    labels = y.astype(jnp.int32)[..., None]
    labels = jnp.where(labels < 0, logits.shape[-1], labels)
    chosen = jnp.take_along_axis(logits, labels, axis=-1, mode="fill")
    return jax.nn.logsumexp(logits, axis=-1) - chosen[..., 0]


def gaussian_terms(
    sigma: Any, call: str, prediction: Any, y: Array
) -> Float[Array, "..."]:
    """Return the negative log-likelihood of every entry of y."""
    learned = isinstance(prediction, tuple)
    if learned and len(prediction) != 2:
        raise ValueError(
            f"{call}: the model must return the mean or the pair (mean, log_sigma), "
            f"got a tuple of {len(prediction)}."
        )
    mean, log_factor = prediction if learned else (prediction, None)
    error = difference(call, mean, y)
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


def float_x(model: Any, params: Params, x: Any) -> Any:
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


def unpack(
    call: str, batch: Any, weights: Any
) -> tuple[Any, Num[Array, "..."], Array | None]:
    """Return x, y and the weights, from the batch or bound to the loss."""
    fits = isinstance(batch, (tuple, list)) and len(batch) in (2, 3)
    if not fits or not all(_is_array(part) for part in batch[1:]):
        raise ValueError(
            f"{call}: the batch must be (x, y) or (x, y, weights) with y and weights "
            f"arrays, got {_describe(batch)}; {_cure_for_batch(batch)}."
        )
    if len(batch) == 3 and weights is not None:
        raise ValueError(
            f"{call}: weights are both bound to the loss and the third member of the "
            "batch; keep one of them."
        )
    bound = batch[2] if len(batch) == 3 else weights
    bound = None if bound is None else jnp.asarray(bound)
    return batch[0], jnp.asarray(batch[1]), bound


def _cure_for_batch(batch: Any) -> str:
    if any(map(_checks.is_of_pytorch, jax.tree.leaves(batch))):
        return _checks.CURE_FOR_TENSORS
    return "a loss is called as `loss_fn(params, (x, y))`"


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
