"""Ranges of learning rates: what is known of quadratics must be met."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.tree_util import Partial

import phihat


def bowl(curvatures, params):
    return 0.5 * jnp.sum(curvatures * params**2)


@pytest.mark.parametrize("curvatures", [[1.0, 10.0], [0.3, 2.0, 5.0], [2.0, 2.5]])
def test_a_quadratic_meets_its_closed_forms(curvatures):
    curvatures = np.asarray(curvatures)
    found = phihat.learning_rate_range(
        Partial(bowl, jnp.asarray(curvatures)),
        1.0 / jnp.asarray(curvatures),  # the gradient's entries are equal
        phihat.gradient_descent,
        num_steps=1000,
    )
    low, high = curvatures.min(), curvatures.max()
    np.testing.assert_allclose(found.largest_stable, 2 / high, rtol=2e-3)
    np.testing.assert_allclose(found.suggestion, 2 / (low + high), rtol=2e-2)
    assert found.largest_stable < found.rates[~found.is_stable].min()


def test_curves_are_those_of_the_fits():
    loss_fn = phihat.losses.least_squares(phihat.models.linear)
    data = phihat.datasets.linear_regression()
    start = {"weight": 0.0, "bias": 0.0}
    rates = [1e-3, 1e-2, 1e-1, 1.0]
    found = phihat.learning_rate_range(
        loss_fn, start, phihat.adam, data, rates=rates, num_steps=20, refinements=0
    )
    np.testing.assert_array_equal(found.rates, rates)
    for rate, curve in zip(rates, found.loss, strict=True):
        alone = phihat.fit(loss_fn, start, phihat.adam(rate), data, num_steps=20)
        np.testing.assert_allclose(curve, alone.history["loss"], rtol=1e-12)
    exact = phihat.learning_rate_range(
        loss_fn, start, phihat.gradient_descent, data, num_steps=1000
    )
    np.testing.assert_allclose(exact.largest_stable, 2 / 50.03003097587183, rtol=2e-3)


def test_an_optimizer_lends_all_but_its_rate():
    rates = [1e-3, 1e-2, 1e-1, 1.0]
    given = [phihat.adam(0.5, b1=0.5), functools.partial(phihat.adam, b1=0.5)]
    own, made = (
        phihat.learning_rate_range(
            Partial(bowl, jnp.asarray([1.0, 3.0])),
            jnp.ones(2),
            optimizer,
            rates=rates,
            num_steps=20,
            refinements=0,
        )
        for optimizer in given
    )
    np.testing.assert_array_equal(own.loss, made.loss)


def test_minibatches_are_the_same_for_all():
    loss_fn = phihat.losses.least_squares(phihat.models.linear)
    data = phihat.datasets.linear_regression()
    found = phihat.learning_rate_range(
        loss_fn,
        {"weight": 0.0, "bias": 0.0},
        functools.partial(phihat.momentum, decay=0.5),
        data,
        batch_size=4,
        key=jax.random.key(0),
        num_steps=60,
    )
    still = phihat.fit(
        loss_fn,
        {"weight": 0.0, "bias": 0.0},
        phihat.momentum(0.0),
        data,
        batch_size=4,
        key=jax.random.key(0),
        num_steps=60,
    ).history["loss"]
    np.testing.assert_allclose(found.loss[0], still, rtol=1e-2)
    first = found.loss[np.isfinite(found.final), 0]
    np.testing.assert_allclose(first, first[0], rtol=1e-12)
    assert "last tenth" in found.reason
    assert 0 < found.suggestion <= found.largest_stable < 1


def test_an_optimizer_of_optax():
    with jax.numpy_dtype_promotion("standard"):
        found = phihat.learning_rate_range(
            Partial(bowl, jnp.asarray([1.0, 4.0])),
            jnp.ones(2),
            optax.sgd,
            num_steps=500,
        )
    assert found.largest_stable == pytest.approx(0.5, rel=5e-3)


def test_when_all_or_none_are_stable():
    loss_fn = Partial(bowl, jnp.asarray([1.0, 4.0]))
    all_stable = phihat.learning_rate_range(
        loss_fn,
        jnp.ones(2),
        phihat.gradient_descent,
        rates=np.geomspace(1e-3, 0.1, 8),
    )
    assert all_stable.largest_stable == pytest.approx(0.1)
    assert "none was unstable" in all_stable.reason
    none = phihat.learning_rate_range(
        loss_fn, jnp.ones(2), phihat.gradient_descent, rates=[1, 2, 3, 4]
    )
    assert np.isnan(none.largest_stable)
    assert np.isnan(none.suggestion)
    assert "no rate is stable" in repr(none)


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"optimizer": phihat.newton()}, TypeError, "no hyperparameter `learning_rate"),
        ({"optimizer": optax.adam(0.1)}, TypeError, "must be an optimizer of phihat"),
        ({"rates": [0.1, 0.2]}, ValueError, "at least 4 different ones, got 2"),
        ({"rates": [0.0, 1, 2, 3]}, ValueError, r"`rates` must .*got 0\.0"),
        ({"num_steps": 3}, ValueError, "`num_steps` must be >= 10, got 3"),
        ({"params": 1}, TypeError, "`params` must have floating-point leaves"),
        ({"key": 0}, TypeError, "`key` must be one typed key"),
    ],
)
def test_wrong_calls(options, kind, message):
    arguments = {"params": jnp.ones(2), "optimizer": phihat.adam} | options
    params, optimizer = arguments.pop("params"), arguments.pop("optimizer")
    with pytest.raises(kind, match=message):
        phihat.learning_rate_range(
            Partial(bowl, jnp.ones(2)), params, optimizer, **arguments
        )
