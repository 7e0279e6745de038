"""Models against NumPy and closed forms; shapes, dtypes, and sentences for misfits."""

import functools
import re

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from phihat import losses, models

EPS = np.finfo(np.float64).eps
RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("weight", "x"), [((), (5,)), ((), (5, 2)), ((3,), (5, 3)), ((3, 2), (5, 3))]
)
def test_linear_is_the_affine_map(weight, x):
    w, x = RNG.normal(size=weight), RNG.normal(size=x)
    b = RNG.normal(size=weight[1:])
    expected = x * w + b if w.ndim == 0 else x @ w + b
    out = models.linear({"weight": jnp.asarray(w), "bias": jnp.asarray(b)}, x)
    np.testing.assert_allclose(out, expected, rtol=8 * EPS, atol=8 * EPS)


def test_linear_serves_single_rows_under_vmap():
    params = {"weight": jnp.ones([3, 2]), "bias": jnp.zeros(2)}
    x = jnp.asarray(RNG.normal(size=(4, 5, 3)))
    mapped = jax.vmap(models.linear, in_axes=(None, 0))(params, x)
    np.testing.assert_allclose(mapped, models.linear(params, x), rtol=4 * EPS)


def test_polynomial_has_the_constant_first():
    coefficients, x = RNG.normal(size=5), RNG.normal(size=7)
    expected = np.polynomial.polynomial.polyval(x, coefficients)
    out = models.polynomial(jnp.asarray(coefficients), x)
    np.testing.assert_allclose(out, expected, rtol=64 * EPS)
    assert models.polynomial(jnp.ones(1), x).tolist() == [1.0] * 7


@pytest.mark.parametrize("width", [2.0, 4, np.float64(3.0), jnp.float32(2.0)])
def test_gabor_is_a_sine_under_an_envelope(width):
    x = np.linspace(-15, 15, 9)
    u = -1.5 + 0.06 * 8.5 * x
    expected = np.sin(u) * np.exp(-(u**2) / (2 * float(width) ** 2))
    out = models.gabor(jnp.array([-1.5, 8.5]), x, envelope_width=width)
    np.testing.assert_allclose(out, expected, rtol=64 * EPS, atol=4 * EPS)


def test_gabor_defaults_to_the_slides():
    phi, x = jnp.array([0.3, 9.0]), jnp.linspace(-15.0, 15.0, 9)
    slides = models.gabor(phi, x, envelope_width=2.0)
    assert (models.gabor(phi, x) == slides).all()


def test_perceptron_is_its_layers():
    x = RNG.normal(size=(5, 3))
    layers = [
        {"weight": RNG.normal(size=(inputs, outputs)), "bias": RNG.normal(size=outputs)}
        for inputs, outputs in ((3, 8), (8, 4), (4, 2))
    ]
    params = jax.tree.map(jnp.asarray, layers)
    for activation, numpy_activation in (
        (jnp.tanh, np.tanh),
        (jax.nn.relu, lambda h: np.maximum(h, 0.0)),
    ):
        hidden = x
        for layer in layers[:-1]:
            hidden = numpy_activation(hidden @ layer["weight"] + layer["bias"])
        expected = hidden @ layers[-1]["weight"] + layers[-1]["bias"]
        out = models.multilayer_perceptron(params, x, activation=activation)
        np.testing.assert_allclose(out, expected, rtol=64 * EPS, atol=64 * EPS)
    assert (models.multilayer_perceptron(params, x) == out).all()


def test_perceptron_may_end_in_one_number_per_row():
    params = models.init_multilayer_perceptron(jax.random.key(0), (3, 8))
    params = [*params, {"weight": jnp.ones(8), "bias": jnp.zeros(())}]
    assert models.multilayer_perceptron(params, jnp.ones([5, 3])).shape == (5,)


def test_he_keeps_the_scale_of_a_relu_network():
    # The mean square of a ReLU layer's preactivations stays that of its input, twice
    # halved and doubled; the standard error of 400 x 400 draws is about 1 per cent.
    params = models.init_multilayer_perceptron(jax.random.key(1), (400, 400, 400))
    for layer in params:
        np.testing.assert_allclose(layer["weight"].var(), 2 / 400, rtol=0.02)
        assert not layer["bias"].any()
    assert (params[0]["weight"] != params[1]["weight"]).all()


def _cases():
    key = jax.random.key(0)
    return {
        "scalar": (models.linear, {"weight": 0.5, "bias": 1.0}, (4,)),
        "linear": (models.linear, {"weight": np.ones(3), "bias": 1.0}, (4, 3)),
        "polynomial": (models.polynomial, np.ones(3), (4,)),
        "gabor": (models.gabor, np.array([0.1, 9.0]), (4,)),
        "perceptron": (
            models.multilayer_perceptron,
            models.init_multilayer_perceptron(key, (3, 4, 2)),
            (4, 3),
        ),
    }


@pytest.mark.parametrize("name", list(_cases()))
@pytest.mark.parametrize("x_dtype", ["int32", "bool", "float32", "float64"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
def test_params_decide_the_dtype(name, dtype, x_dtype):
    model, params, shape = _cases()[name]
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), params)
    x = np.ones(shape, x_dtype)
    out = jax.eval_shape(lambda params: model(params, x), params)
    assert out.dtype == dtype
    assert not out.weak_type
    total_fn = lambda params: model(params, x).astype("float32").sum()
    grads = jax.eval_shape(jax.grad(total_fn), params)
    assert all(leaf.dtype == dtype for leaf in jax.tree.leaves(grads))


@pytest.mark.usefixtures("float32")
@pytest.mark.parametrize("name", list(_cases()))
def test_models_run_in_float32(name):
    model, params, shape = _cases()[name]
    params = jax.tree.map(jnp.asarray, params)
    assert model(params, np.ones(shape)).dtype == jnp.float32


LAYER = {"weight": jnp.ones([3, 2]), "bias": jnp.zeros(2)}
MISFITS = [
    (
        lambda: models.linear(LAYER, jnp.ones([4, 5])),
        "linear: `params['weight']` has shape [3, 2], so its input must have shape "
        "[I, 3], got [4, 5].",
    ),
    (
        lambda: models.linear(LAYER, jnp.ones(3)),
        "linear: `params['weight']` has shape [3, 2], so its input must have shape "
        "[I, 3], got [3]; give a single feature as `x[:, None]`.",
    ),
    (
        lambda: models.linear({"weight": jnp.ones(3), "bias": jnp.ones(3)}, 1.0),
        "linear: `params['bias']` must have shape [] beside a weight of shape [3], got "
        "[3].",
    ),
    (
        lambda: models.linear({"weight": jnp.ones([1, 2, 3]), "bias": 0.0}, 1.0),
        "linear: `params['weight']` must have shape [], [D] or [D, K], got [1, 2, 3].",
    ),
    (
        lambda: models.polynomial(2.0, 1.0),
        "polynomial: `params` must be the coefficients [degree + 1], got shape [].",
    ),
    (
        lambda: models.gabor(jnp.ones(3), 1.0),
        "gabor: `params` must have shape [2], got [3].",
    ),
    (
        lambda: models.gabor(jnp.ones(2), 1.0, envelope_width=0),
        "gabor: `envelope_width` must be > 0, got 0.",
    ),
    (
        lambda: models.multilayer_perceptron([], jnp.ones([4, 3])),
        "multilayer_perceptron: `params` must have at least one layer.",
    ),
    (
        lambda: models.multilayer_perceptron([LAYER, LAYER], jnp.ones([4, 3])),
        "multilayer_perceptron: `params[1]['weight']` has shape [3, 2], so its input "
        "must have shape [I, 3], got [4, 2].",
    ),
    (
        lambda: models.init_multilayer_perceptron(jax.random.key(0), (3,)),
        "init_multilayer_perceptron: `sizes` must hold the widths of input and output "
        "at least, got [3].",
    ),
    (
        lambda: models.init_multilayer_perceptron(jax.random.key(0), (3, 0)),
        "init_multilayer_perceptron: `sizes` must be >= 1, got 0.",
    ),
]


@pytest.mark.parametrize(("call", "sentence"), MISFITS)
def test_what_does_not_fit_is_one_sentence(call, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        call()


@pytest.mark.parametrize("key", [None, 0, jax.random.PRNGKey(0)])
def test_init_wants_a_typed_key(key):
    with pytest.raises(TypeError, match="`key` must be one typed key"):
        models.init_multilayer_perceptron(key, (3, 2))


def test_linear_wants_a_layer():
    with pytest.raises(TypeError, match=r'`params` must be \{"weight": array'):
        models.linear(jnp.ones(3), jnp.ones([4, 3]))


def _apply(static, params, x):
    return jax.vmap(eqx.combine(params, static))(x)


def _descends(loss_fn, params, batch):
    """One small step along minus the gradient lowers the loss as the gradient says."""
    loss, grad = jax.value_and_grad(loss_fn)(params, batch)
    slope = sum(jnp.vdot(leaf, leaf) for leaf in jax.tree.leaves(grad))
    step = 1e-6 / slope
    moved = jax.tree.map(lambda leaf, g: leaf - step * g, params, grad)
    np.testing.assert_allclose(loss - loss_fn(moved, batch), 1e-6, rtol=1e-3)


BATCH = (jnp.asarray(RNG.normal(size=(6, 3))), jnp.asarray(RNG.normal(size=(6, 2))))


def test_an_equinox_module_serves():
    module = eqx.nn.MLP(3, 2, 4, 1, activation=jnp.tanh, key=jax.random.key(0))
    params, static = eqx.partition(module, eqx.is_inexact_array)
    loss_fn = losses.least_squares(Partial(_apply, static))
    expected = sum(((module(x) - y) ** 2).sum() for x, y in zip(*BATCH, strict=True))
    np.testing.assert_allclose(loss_fn(params, BATCH), expected, rtol=32 * EPS)
    _descends(loss_fn, params, BATCH)


def test_a_flax_apply_serves():
    module = nn.Dense(2, param_dtype=jnp.float64)
    params = module.init(jax.random.key(0), BATCH[0])
    loss_fn = losses.least_squares(module.apply)
    inner = params["params"]
    layer = {"weight": inner["kernel"], "bias": inner["bias"]}
    expected = losses.least_squares(models.linear)(layer, BATCH)
    np.testing.assert_allclose(loss_fn(params, BATCH), expected, rtol=32 * EPS)
    _descends(loss_fn, params, BATCH)


def test_a_partial_of_a_model_is_a_model():
    model = functools.partial(models.multilayer_perceptron, activation=jnp.tanh)
    params = models.init_multilayer_perceptron(jax.random.key(0), (3, 4, 2))
    _descends(losses.least_squares(model), params, BATCH)
