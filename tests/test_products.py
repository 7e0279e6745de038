"""Products against dense Hessians and closed forms, over pytrees of every shape."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from phihat import products

EPS = float(np.finfo(np.float64).eps)


def _network(params, data):
    """A small network with a scalar, a matrix and an empty leaf; sum of squares."""
    x, y = data
    hidden = jnp.tanh(x @ params["weight"] + params["bias"])
    prediction = params["scale"] * jnp.sum(hidden, axis=1)
    return jnp.sum((prediction - y) ** 2) + jnp.sum(params["empty"])


def _residual(params, data):
    x, y = data
    hidden = jnp.tanh(x @ params["weight"] + params["bias"])
    return params["scale"] * jnp.sum(hidden, axis=1) - y


def _case():
    keys = jax.random.split(jax.random.key(0), 5)
    params = {
        "weight": jax.random.normal(keys[0], (3, 4)),
        "bias": jax.random.normal(keys[1], (1, 4)),
        "scale": jnp.asarray(0.7),
        "empty": jnp.zeros((0, 2)),
    }
    data = jax.random.normal(keys[2], (11, 3)), jax.random.normal(keys[3], (11,))
    vector = jax.tree.map(
        lambda leaf: jax.random.normal(keys[4], jnp.shape(leaf)), params
    )
    return params, data, vector


def _dense(fn, params, data):
    flat, unflatten = products.flatten(params)
    return np.asarray(jax.jit(jax.hessian(lambda v: fn(unflatten(v), data)))(flat))


@pytest.mark.parametrize("form", ["hvp", "operator", "jitted"])
def test_hvp_is_the_dense_product(form):
    params, data, vector = _case()
    product = {
        "hvp": lambda: products.hvp(_network, params, vector, data),
        "operator": lambda: products.hessian_operator(_network, params, data)(vector),
        "jitted": lambda: jax.jit(products.hvp, static_argnums=0)(
            _network, params, vector, data
        ),
    }[form]()
    assert jax.tree.structure(product) == jax.tree.structure(params)
    dense = _dense(_network, params, data)
    expected = dense @ np.asarray(products.flatten(vector)[0])
    scale = np.abs(dense).max() * np.linalg.norm(products.flatten(vector)[0])
    error = np.abs(products.flatten(product)[0] - expected).max()
    assert error <= 20 * EPS * scale


def test_hvp_over_lanes_and_through_gradients():
    cube = lambda p: jnp.sum(p**3)
    points, vectors = jnp.arange(6.0).reshape(3, 2), jnp.ones((3, 2))
    lanes = jax.vmap(lambda p, v: products.hvp(cube, p, v))(points, vectors)
    np.testing.assert_allclose(lanes, 6 * points, rtol=2 * EPS)
    slope = jax.grad(lambda p: jnp.sum(products.hvp(cube, p, jnp.ones(2))))
    np.testing.assert_allclose(slope(points[1]), [6.0, 6.0], rtol=2 * EPS)


def test_python_floats_and_mixed_dtypes():
    params = {"a": 1.0, "b": jnp.ones(2, jnp.float32), "c": jnp.ones((), jnp.bfloat16)}
    loss = lambda p: (
        p["a"] ** 2 * jnp.sum(p["b"]).astype(float) + p["c"].astype(float) ** 2
    )
    product = products.hvp(loss, params, {"a": 1, "b": np.zeros(2), "c": 1.0})
    assert [leaf.dtype.name for leaf in jax.tree.leaves(product)] == [
        "float64",
        "float32",
        "bfloat16",
    ]
    assert float(product["a"]) == 4.0
    np.testing.assert_array_equal(product["b"], [2.0, 2.0])
    assert float(product["c"]) == 2.0
    assert products.directional_curvature(loss, params, params) == pytest.approx(
        (2 * 2 + 2 * (2 * 2) + 2) / 4, rel=4 * EPS
    )


def test_gauss_newton_is_twice_the_squared_jacobian():
    params, data, vector = _case()
    product = products.gauss_newton_product(_residual, params, vector, data)
    flat, unflatten = products.flatten(params)
    jacobian = np.asarray(jax.jacobian(lambda v: _residual(unflatten(v), data))(flat))
    expected = 2 * jacobian.T @ (jacobian @ np.asarray(products.flatten(vector)[0]))
    error = np.abs(products.flatten(product)[0] - expected).max()
    assert error <= 50 * EPS * np.abs(expected).max()


def test_gauss_newton_is_the_hessian_of_a_linear_model():
    """With logits linear in the params both matrices agree, whatever the outer loss."""
    keys = jax.random.split(jax.random.key(1), 3)
    x = jax.random.normal(keys[0], (9, 3))
    labels = jax.nn.one_hot(jax.random.randint(keys[1], (9,), 0, 4), 4)
    weight, vector = jax.random.normal(keys[2], (2, 3, 4))

    def model(params, data):
        return data[0] @ params

    def cross_entropy(logits, data):
        return -jnp.sum(data[1] * jax.nn.log_softmax(logits))

    data = (x, labels)
    product = products.gauss_newton_product(
        model, weight, vector, data, outer_fn=cross_entropy
    )
    loss = lambda p, batch: cross_entropy(model(p, batch), batch)
    expected = products.hvp(loss, weight, vector, data)
    np.testing.assert_allclose(
        product, expected, rtol=0, atol=50 * EPS * np.abs(expected).max()
    )


def test_directional_curvature_of_a_quadratic():
    matrix = np.diag([-3.0, 1.0, 5.0])
    loss = lambda p: 0.5 * p @ matrix @ p
    for axis, curvature in enumerate([-3.0, 1.0, 5.0]):
        direction = 7.0 * np.eye(3)[axis]
        value = products.directional_curvature(loss, jnp.ones(3), direction)
        assert float(value) == pytest.approx(curvature, rel=4 * EPS)
    assert np.isnan(products.directional_curvature(loss, jnp.ones(3), jnp.zeros(3)))


@pytest.mark.parametrize("batch_size", [1, 4, 5, 11, 100])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_accumulated_is_the_loss(batch_size, reduction):
    params, data, vector = _case()
    scale = 11 if reduction == "mean" else 1
    divide = (lambda batch: len(batch[1])) if reduction == "mean" else (lambda _: 1)
    loss = lambda p, batch: _network(p, batch) / divide(batch)
    chunked = products.accumulated(loss, batch_size, reduction=reduction)

    def measure(fn):
        product = products.hvp(fn, params, vector, data)
        return fn(params, data), products.flatten(product)[0]

    value, product = jax.jit(measure, static_argnums=0)(chunked)
    whole_value, whole = jax.jit(measure, static_argnums=0)(_network)
    assert float(value) == pytest.approx(float(whole_value) / scale, rel=20 * EPS)
    np.testing.assert_allclose(
        product, whole / scale, rtol=0, atol=50 * EPS * np.abs(whole / scale).max()
    )


def test_accumulated_keeps_numbers_as_leaves():
    loss = Partial(lambda factor, p, x: factor * jnp.sum(p * x), 2.0)
    assert jax.tree.leaves(products.accumulated(loss, 3)) == [2.0]


def test_flatten_round_trip():
    params = {"a": 1.5, "b": jnp.ones((2, 3), jnp.float32), "c": jnp.zeros((0,))}
    flat, unflatten = products.flatten(params)
    assert flat.shape == (7,)
    assert flat.dtype == jnp.float64
    back = unflatten(flat)
    assert back["b"].dtype == jnp.float32
    assert back["b"].shape == (2, 3)
    assert products.flatten({})[1](jnp.zeros(0)) == {}


BAD = [
    (
        lambda: products.hvp(lambda p: p * jnp.ones(3), 1.0, 1.0),
        ValueError,
        r"hvp: `loss_fn` must return a scalar float, got float64 of shape \(3,\)",
    ),
    (
        lambda: products.hvp(lambda p: (p, 1.0), 1.0, 1.0),
        ValueError,
        "hvp: `loss_fn` must return one scalar",
    ),
    (
        lambda: products.hvp(lambda p: p["a"] ** 2, {"a": jnp.arange(3)}, {"a": 1.0}),
        TypeError,
        r"hvp: `params` must have floating-point leaves, .* at \['a'\]",
    ),
    (
        lambda: products.hvp(jnp.sum, jnp.ones(3), jnp.ones(2)),
        ValueError,
        r"`vector` must be a pytree like `params`, \[3\], got \[2\]",
    ),
    (
        lambda: products.hvp(jnp.sum, jnp.ones(3), {"a": jnp.ones(3)}),
        ValueError,
        "`vector` must be a pytree like `params`",
    ),
    (
        lambda: products.hvp(lambda p, key: p * jax.random.uniform(key), 1.0, 1.0),
        TypeError,
        "`loss_fn` takes a `key`",
    ),
    (
        lambda: products.accumulated(jnp.sum, 0),
        ValueError,
        "accumulated: `batch_size` must be >= 1, got 0",
    ),
    (
        lambda: products.accumulated(jnp.sum, 2)(1.0, (np.ones(3), np.ones(4))),
        ValueError,
        r"accumulated: `data\[0\]` has 3 rows but `data\[1\]` has 4",
    ),
]


@pytest.mark.parametrize(("call", "error", "sentence"), BAD)
def test_wrong_calls(call, error, sentence):
    with pytest.raises(error, match=sentence):
        call()


def test_a_bound_key_serves():
    noisy = lambda p, key: p**2 * jax.random.uniform(key)
    assert products.hvp(Partial(noisy, key=jax.random.key(0)), 1.0, 1.0) > 0
