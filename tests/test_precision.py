"""Models in narrow numbers: what stays wide, and where the loss must be scaled."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.tree_util import Partial

import phihat
from phihat import losses, models

KEY = jax.random.key(0)
PARAMS = {"weight": jnp.asarray([0.3, -0.7]), "bias": jnp.asarray(0.1)}
X = jax.random.normal(KEY, (32, 2))


def seen(dtypes, params, x):
    dtypes.update(jnp.result_type(leaf).name for leaf in jax.tree.leaves((params, x)))
    return models.linear(params, x)


@pytest.mark.parametrize("narrow", ["bfloat16", "float16", jnp.float32])
def test_the_model_is_narrow_and_all_else_wide(narrow):
    dtypes = set()
    model = models.mixed_precision(lambda p, x: seen(dtypes, p, x), narrow)
    loss_fn = losses.least_squares(model, reduction="mean")
    optimizer = phihat.adam(0.1)
    result = phihat.fit(loss_fn, PARAMS, optimizer, (X, X[:, 0]), num_steps=5)
    assert dtypes == {jnp.dtype(narrow).name}
    leaves = jax.tree.leaves((result.params, result.state.opt_state, result.history))
    floats = {leaf.dtype.name for leaf in leaves if leaf.dtype.kind not in "iu"}
    assert floats == {"float64"}


def test_predictions_are_rounded_once_per_operation():
    """Within 3 eps of bfloat16 times the terms' size: a cast, a product, a sum."""
    prediction = models.mixed_precision(models.linear)(PARAMS, X)
    exact = models.linear(PARAMS, X)
    size = jnp.abs(X) @ jnp.abs(PARAMS["weight"]) + jnp.abs(PARAMS["bias"])
    assert prediction.dtype == exact.dtype
    assert jnp.any(prediction != exact)
    assert jnp.all(jnp.abs(prediction - exact) <= 4 * 2.0**-8 * size)


def test_numbers_of_the_model_stay_data_and_keys_are_handed_on():
    model = models.mixed_precision(Partial(models.gabor, envelope_width=4.0))
    assert jax.tree.leaves(model) == [4.0]
    start = jnp.asarray([0.0, 16.6], jnp.float32)
    assert model(start, jnp.arange(4)).dtype == jnp.float32

    def noisy(params, x, *, key):
        return models.linear(params, x) + jax.random.normal(key, (), x.dtype)

    keyed = models.mixed_precision(noisy)
    plain = models.mixed_precision(models.linear)(PARAMS, X)
    assert np.ptp(keyed(PARAMS, X, key=KEY) - plain) < 0.1
    loss_fn = losses.least_squares(keyed)
    optimizer = phihat.adam(0.1)
    phihat.fit(loss_fn, PARAMS, optimizer, (X, X[:, 0]), num_steps=2, key=KEY)


def scaled(loss_fn, scale, params, batch):
    loss = loss_fn(params, batch)
    return scale * loss, loss


def test_a_scaled_loss_trains_where_float16_alone_does_not():
    x = jax.random.uniform(KEY, (1024, 2), jnp.float32, minval=-1.0)
    data = (x, 1e-5 * x[:, 0])
    start = jax.tree.map(lambda leaf: jnp.zeros_like(leaf, jnp.float32), PARAMS)
    model = models.mixed_precision(models.linear, jnp.float16)
    plain = losses.least_squares(model, reduction="mean")

    def run(scale):
        chain = optax.chain(optax.scale(1 / scale), phihat.gradient_descent(0.1))
        return phihat.fit(
            Partial(scaled, plain, scale),
            start,
            optax.apply_if_finite(chain, max_consecutive_errors=1000),
            data,
            num_steps=200,
            has_aux=True,
            record=("aux",),
            nonfinite="continue",
        )

    alone, good, infinite = run(1.0), run(2.0**24), run(2.0**60)
    assert float(jnp.abs(alone.params["weight"]).max()) == 0.0
    found = good.params["weight"]
    np.testing.assert_allclose(found, [1e-5, 0.0], rtol=0.02, atol=2e-7)
    assert int(good.state.opt_state.total_notfinite) == 0
    assert int(infinite.state.opt_state.total_notfinite) == 200
    assert float(jnp.abs(infinite.params["weight"]).max()) == 0.0


@pytest.mark.parametrize("dtype", ["int8", "narrow", None, jnp.complex64])
def test_wrong_dtype(dtype):
    text = "mixed_precision: `compute_dtype` must be a floating dtype, such as"
    with pytest.raises(TypeError, match=re.escape(text)):
        models.mixed_precision(models.linear, dtype)


def test_wrong_model():
    text = "mixed_precision: `model` must be a function, got"
    with pytest.raises(TypeError, match=re.escape(text)):
        models.mixed_precision("linear")
