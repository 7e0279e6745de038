"""Models: pure functions `f(params, x)`, and an init where params must be drawn.

Any pure function of this form serves in a loss; these are the field's first ones. The
input is cast to the dtype of the params, integers too, so that params decide the
precision of the computation.

Example:
  >>> import jax.numpy as jnp
  >>> from phihat import models
  >>> models.linear({"weight": 0.5, "bias": 1.0}, jnp.array([0.0, 2.0])).tolist()
  [1.0, 2.0]
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float, PyTree

from phihat._core import calls as _calls
from phihat._core import checks as _checks
from phihat._core import tree as _tree
from phihat._core.types import ModelFn, Params, RandomKey

__all__ = [
    "gabor",
    "init_multilayer_perceptron",
    "linear",
    "mixed_precision",
    "multilayer_perceptron",
    "polynomial",
]


@_calls.public
def linear(params: Params, x: Any) -> Float[Array, "..."]:
    r"""Predict by a line, or by an affine map of the features.

    $f = x W + b$, for a scalar input $f = b + w x$.

    Args:
      params: `{"weight": W, "bias": b}`; W [] with b [], W [D] with b [], or W [D, K]
        with b [K].
      x: inputs, numeric. [I] (or any shape) for a scalar weight, else [I, D] (any
        leading axes).

    Returns:
      [I] for W [] and W [D], [I, K] for W [D, K]; in the dtype of W.

    Raises:
      ValueError: the shapes of weight, bias and x do not fit.

    Example:
      >>> params = {"weight": jnp.ones([2, 3]), "bias": jnp.zeros(3)}
      >>> linear(params, jnp.ones([4, 2])).shape
      (4, 3)
    """
    return _affine("linear", "params", params, x)


@_calls.public
def polynomial(params: Params, x: Any) -> Float[Array, "..."]:
    r"""Predict by a polynomial in one variable, evaluated by Horner's rule.

    $f = \phi_0 + \phi_1 x + \dots + \phi_d x^d$.

    Args:
      params: the coefficients $\phi$ [d + 1], the constant first (as
        `numpy.polynomial` has them, and not as `numpy.polyval`).
      x: inputs [I], or any shape, numeric.

    Returns:
      The shape of x, in the dtype of params.

    Raises:
      ValueError: params are not a vector, or an empty one.

    Example:
      >>> polynomial(jnp.array([5.0, -4.0, 1.0]), jnp.array([2.0, 3.0])).tolist()
      [1.0, 2.0]
    """
    coefficients = _as_vector("polynomial", params)
    if coefficients.ndim != 1 or coefficients.size == 0:
        raise ValueError(
            "polynomial: `params` must be the coefficients [degree + 1], got shape "
            f"{list(coefficients.shape)}."
        )
    x = jnp.asarray(x).astype(coefficients.dtype)
    value = jnp.broadcast_to(coefficients[-1], x.shape)
    for degree in reversed(range(coefficients.size - 1)):
        value = value * x + coefficients[degree]
    return value


@_calls.public
def gabor(params: Params, x: Any, *, envelope_width: Any = 2.0) -> Float[Array, "..."]:
    r"""Predict by the Gabor model: a sine under a Gaussian envelope.

    $f = \sin(u) \exp(-u^2 / (2 w^2))$ with $u = \phi_0 + 0.06\, \phi_1 x$.

    Args:
      params: $\phi$ [2], the offset and the frequency.
      x: inputs [I], or any shape, numeric.
      envelope_width: $w$ > 0. 2.0 gives the denominator 8 of the slides, 4.0 the
        denominator 32 of the book and of its data. Bound by a `Partial` it is a
        number of the loss, which changes without a new program.

    Returns:
      The shape of x, in the dtype of params.

    Raises:
      ValueError: params are not two numbers, or the width is not positive.

    Example:
      >>> gabor(jnp.array([0.0, 16.6]), jnp.zeros(3)).tolist()
      [0.0, 0.0, 0.0]

    References:
      Prince, *Understanding Deep Learning*, 2023, section 6.1.2.
    """
    phi = _as_vector("gabor", params)
    if phi.shape != (2,):
        raise ValueError(f"gabor: `params` must have shape [2], got {list(phi.shape)}.")
    envelope_width = _tree.as_number(envelope_width, "gabor", "envelope_width")
    _checks.check_range(
        "gabor", "envelope_width", envelope_width, 0.0, include_low=False
    )
    width = jnp.asarray(envelope_width).astype(phi.dtype)
    x = jnp.asarray(x).astype(phi.dtype)
    u = phi[0] + 0.06 * phi[1] * x
    return jnp.sin(u) * jnp.exp(-(u * u) / (2.0 * width * width))


@_calls.public
def multilayer_perceptron(
    params: Params, x: Any, *, activation: Callable[[Array], Array] = jax.nn.relu
) -> Float[Array, "..."]:
    r"""Predict by a fully connected network; no activation after the last layer.

    $h_0 = x$, $h_{l+1} = a(h_l W_l + b_l)$, $f = h_L W_L + b_L$.

    Args:
      params: one `{"weight": [D, K], "bias": [K]}` per layer, in order, as
        `init_multilayer_perceptron` draws them. A last layer of weight [D] and bias []
        gives one number per row.
      x: inputs [I, D] (any leading axes), numeric.
      activation: $a$, elementwise.

    Returns:
      [I, K], in the dtype of the last layer.

    Raises:
      ValueError: there are no layers, or shapes do not fit; the message names the leaf.

    Example:
      >>> params = init_multilayer_perceptron(jax.random.key(0), (64, 32, 10))
      >>> multilayer_perceptron(params, jnp.ones([5, 64])).shape
      (5, 10)
    """
    if not isinstance(params, (list, tuple)):
        raise TypeError(
            "multilayer_perceptron: `params` must be a list of layers, as "
            f"`init_multilayer_perceptron` makes it, got {_checks.brief(params)}."
        )
    if len(params) == 0:
        raise ValueError(
            "multilayer_perceptron: `params` must have at least one layer."
        )
    hidden = x
    for depth, layer in enumerate(params[:-1]):
        name = f"params[{depth}]"
        hidden = activation(_affine("multilayer_perceptron", name, layer, hidden))
    name = f"params[{len(params) - 1}]"
    return _affine("multilayer_perceptron", name, params[-1], hidden)


@_calls.public
def init_multilayer_perceptron(
    key: RandomKey, sizes: Sequence[int]
) -> list[dict[str, Float[Array, "..."]]]:
    r"""Draw the params of a perceptron: He's normal weights, zero biases.

    $W \sim N(0, 2 / D)$ for a layer with D inputs, which keeps the scale of the
    activations of a ReLU network from layer to layer.

    Args:
      key: a typed key.
      sizes: the widths of input, hidden layers and output, at least two, each >= 1.

    Returns:
      One `{"weight": [D, K], "bias": [K]}` per layer, in the default float dtype.

    Raises:
      TypeError: no typed key, or a size that is not an integer.
      ValueError: fewer than two sizes, or one below 1.

    Example:
      >>> params = init_multilayer_perceptron(jax.random.key(0), (64, 32, 10))
      >>> jax.tree.map(jnp.shape, params[1])
      {'bias': (10,), 'weight': (32, 10)}

    References:
      He, Zhang, Ren, Sun, *Delving deep into rectifiers*, ICCV 2015.
    """
    call = "init_multilayer_perceptron"
    _checks.check_key(call, key, required=True)
    widths = [_checks.check_count(call, "sizes", size) for size in sizes]
    if len(widths) < 2:
        raise ValueError(
            f"{call}: `sizes` must hold the widths of input and output at least, got "
            f"{list(sizes)}."
        )
    layer_keys = jax.random.split(key, len(widths) - 1)
    dtype = _tree.default_float()
    return [
        {
            # Drawn flat: XLA compiles narrow random matrices several times as slowly.
            "weight": jax.random.normal(layer_key, (inputs * outputs,), dtype).reshape(
                inputs, outputs
            )
            * (2.0 / inputs) ** 0.5,
            "bias": jnp.zeros(outputs, dtype),
        }
        for layer_key, inputs, outputs in zip(
            layer_keys, widths[:-1], widths[1:], strict=True
        )
    ]


@_calls.public
def mixed_precision(model: ModelFn, compute_dtype: Any = jnp.bfloat16) -> ModelFn:
    r"""Compute a model in a narrow dtype, while its params stay wide.

    Params and inputs are cast to the narrow dtype on entry, predictions to the dtype of
    the params on return: the loss, the gradients that reach the optimizer, its state
    and the updates are wide.

    Args:
      model: `(params, x) -> prediction`; one with a parameter `key` is given it.
      compute_dtype: a floating dtype. In float16 gradients below 6e-8 are lost, so that
        the loss must be scaled; bfloat16 has the range of float32.

    Returns:
      A model, whose numbers are leaves as they were.

    Raises:
      TypeError: `model` is not a function, or `compute_dtype` is not a floating dtype.

    Example:
      >>> narrow = mixed_precision(linear)
      >>> params = {"weight": jnp.float32(1.0), "bias": jnp.float32(0.0)}
      >>> prediction = narrow(params, jnp.array([1.0, 1.001, 1.01]))
      >>> print(prediction.dtype, prediction)
      float32 [1.        1.        1.0078125]
    """
    call = "mixed_precision"
    model = _tree.as_partial(model, call, "model")
    try:
        dtype = None if compute_dtype is None else jnp.dtype(compute_dtype)
    except (TypeError, ValueError):
        dtype = None
    if dtype is None or not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(
            f"{call}: `compute_dtype` must be a floating dtype, such as "
            f"`jnp.bfloat16`, got {_checks.brief(compute_dtype)}."
        )
    keyed = _checks.takes_key(model)
    function = _mixed_keyed if keyed else _mixed
    return Partial(function, model, compute_dtype=_tree.Static(dtype))


def _as_vector(call: str, params: Params) -> Array:
    """Return params as one array; a list of numbers is one too."""
    is_array = isinstance(params, (float, jax.Array, np.ndarray))
    is_list = isinstance(params, (list, tuple)) and all(
        np.ndim(entry) == 0 and isinstance(entry, (float, jax.Array, np.generic))
        for entry in params
    )
    if not is_array and not is_list:
        raise TypeError(
            f"{call}: `params` must be an array of numbers, got "
            f"{_checks.brief(params)}."
        )
    return jnp.asarray(params)


def _mixed(
    model: ModelFn, params: Params, x: PyTree, *, compute_dtype: _tree.Static
) -> PyTree:
    narrow = compute_dtype.value
    prediction = model(_cast_floats(params, narrow), _cast_floats(x, narrow))
    with jax.numpy_dtype_promotion("standard"):  # wide is the widest of them
        wide = jnp.result_type(jnp.float32, *jax.tree.leaves(params))
    return _cast_floats(prediction, wide)


def _mixed_keyed(
    model: ModelFn,
    params: Params,
    x: PyTree,
    *,
    key: RandomKey,
    compute_dtype: _tree.Static,
) -> PyTree:
    """Compute likewise, for a model that takes a key: the signature tells the fit."""
    keyed_model = functools.partial(model, key=key)
    return _mixed(keyed_model, params, x, compute_dtype=compute_dtype)


def _cast_floats(tree: PyTree, dtype: Any) -> PyTree:
    def cast(leaf: Any) -> Any:
        is_float = jnp.issubdtype(jnp.result_type(leaf), jnp.floating)
        return jnp.asarray(leaf).astype(dtype) if is_float else leaf

    return jax.tree.map(cast, tree)


def _affine(call: str, name: str, layer: Any, x: Any) -> Float[Array, "..."]:
    """Return x W + b, or say which leaf does not fit."""
    try:
        weight, bias = jnp.asarray(layer["weight"]), jnp.asarray(layer["bias"])
    except (TypeError, KeyError, IndexError) as error:
        raise TypeError(
            f'{call}: `{name}` must be {{"weight": array, "bias": array}}, got '
            f"{_checks.brief(layer)}."
        ) from error
    x = jnp.asarray(x)
    _check_affine(call, name, weight, bias, x)
    x, bias = x.astype(weight.dtype), bias.astype(weight.dtype)
    if weight.ndim == 0:
        return x * weight + bias
    product = x @ weight
    return product + jnp.broadcast_to(bias, product.shape)


def _check_affine(call: str, name: str, weight: Array, bias: Array, x: Array) -> None:
    if weight.ndim > 2:
        raise ValueError(
            f"{call}: `{name}['weight']` must have shape [], [D] or [D, K], got "
            f"{list(weight.shape)}."
        )
    if bias.shape != weight.shape[1:]:
        raise ValueError(
            f"{call}: `{name}['bias']` must have shape {list(weight.shape[1:])} beside "
            f"a weight of shape {list(weight.shape)}, got {list(bias.shape)}."
        )
    if weight.ndim and (x.ndim < 2 or x.shape[-1] != weight.shape[0]):
        cure = "; give a single feature as `x[:, None]`" if x.ndim == 1 else ""
        raise ValueError(
            f"{call}: `{name}['weight']` has shape {list(weight.shape)}, so its input "
            f"must have shape [I, {weight.shape[0]}], got {list(x.shape)}{cure}."
        )
