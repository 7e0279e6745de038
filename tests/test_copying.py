"""Results, optimizers and settings survive pickle and deepcopy."""

import copy
import pickle
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import phihat
from phihat import Box, datasets, losses, models, training

LINE = losses.least_squares(models.linear)
ORIGIN = {"weight": 0.0, "bias": 0.0}
DATA = datasets.linear_regression()
X = np.arange(8.0)
Y = 3.0 * np.exp(-X / 2.0) + 0.01 * np.sin(9.0 * X)
START = {"a": 1.0, "b": 1.0}
VALLEY = lambda p: (p["x"] ** 2 - 1.0) ** 2 + p["y"] ** 2
BOX = Box({"x": -2.0, "y": -1.0}, {"x": 2.0, "y": 1.0})


def decay(params, x):
    return params["a"] * jnp.exp(-x / params["b"])


def line_fit(optimizer, **options):
    return phihat.fit(LINE, ORIGIN, optimizer, DATA, num_steps=3, **options)


def last_loss(rate):
    return {"loss": line_fit(phihat.adam(rate)).loss}


RESULTS = {
    "fit": lambda: line_fit(phihat.adam(0.1)),
    "fit of batches": lambda: line_fit(
        phihat.adam(0.1), batch_size=3, key=jax.random.key(0)
    ),
    "curve": lambda: phihat.fit_curve(decay, X, Y, START),
    "curve of a lambda": lambda: phihat.fit_curve(
        lambda p, x: decay(p, x), X, Y, START
    ),
    "curves": lambda: phihat.fit_curves(decay, X, [Y, 2 * Y], START),
    "curves of a lambda": lambda: phihat.fit_curves(
        lambda p, x: decay(p, x), X, [Y, 2 * Y], START
    ),
    "intervals": lambda: phihat.confidence_intervals(
        LINE, line_fit(phihat.newton()), DATA
    ),
    "proof": lambda: phihat.check_convexity(LINE, ORIGIN, DATA),
    "refutation": lambda: phihat.check_convexity(VALLEY, {"x": 1.0, "y": 0.0}),
    "certificate": lambda: phihat.certify_convexity(
        VALLEY, Box({"x": 1.0, "y": 0.0}, {"x": 1.1, "y": 1.0})
    ),
    "sweep": lambda: phihat.sweep(last_loss, {"rate": jnp.array([0.1, 0.2])}),
    "sweep of optimizers": lambda: phihat.sweep(
        lambda optimizer: line_fit(optimizer).loss,
        {"optimizer": phihat.adam(jnp.array([0.1, 0.2]))},
    ),
    "starts": lambda: phihat.multistart(VALLEY, BOX, phihat.adam(0.1), num_starts=4),
    "rates": lambda: phihat.learning_rate_range(
        LINE, ORIGIN, phihat.gradient_descent, DATA
    ),
    "critical points": lambda: phihat.find_critical_points(VALLEY, BOX),
    "search": lambda: phihat.bracketing()(lambda s: (s - 0.03) ** 2),
    "error": lambda: phihat.FitError(3, "gradient", "['w']", "Clip it."),
}


@pytest.mark.parametrize("name", RESULTS)
def test_results_say_the_same_after_pickle_and_deepcopy(name):
    result = RESULTS[name]()
    for again in (pickle.loads(pickle.dumps(result)), copy.deepcopy(result)):
        assert type(again) is type(result)
        assert repr(again) == repr(result)
        leaves = zip(jax.tree.leaves(again), jax.tree.leaves(result), strict=True)
        for leaf, expected in leaves:
            if isinstance(expected, (jax.Array, np.ndarray)):
                assert leaf.dtype == expected.dtype


SETTINGS = {
    "gradient descent": phihat.gradient_descent(0.1),
    "momentum": phihat.momentum(0.1),
    "nesterov": phihat.nesterov(0.1),
    "normalized": phihat.normalized_gradient(0.1),
    "adam": phihat.adam(0.1),
    "newton": phihat.newton(),
    "newton_cg": phihat.newton_cg(),
    "levenberg_marquardt": phihat.levenberg_marquardt(),
    "steepest_descent": phihat.steepest_descent(phihat.bracketing()),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_optimizers_do_the_same_after_pickle_and_deepcopy(name):
    optimizer = SETTINGS[name]
    expected = line_fit(optimizer).params
    for again in (pickle.loads(pickle.dumps(optimizer)), copy.deepcopy(optimizer)):
        assert line_fit(again).params == expected


@pytest.mark.parametrize(
    "value",
    [
        BOX,
        losses.with_l2(LINE, 0.1),
        phihat.minibatches(3),
        phihat.Tolerance(loss=1e-3),
        phihat.Checkpoints("folder", every=3),
        training.Validation(DATA, every=3),
    ],
    ids=lambda value: type(value).__name__,
)
def test_settings_survive_pickle_and_deepcopy(value):
    for again in (pickle.loads(pickle.dumps(value)), copy.deepcopy(value)):
        assert repr(again) == repr(value)


# ------------------------------------------------------------------ curves and models


@pytest.mark.parametrize("make", [copy.copy, copy.deepcopy])
def test_copies_of_curves_keep_their_model(make):
    model = lambda p, x: decay(p, x)
    fit = make(phihat.fit_curve(model, X, Y, START))
    assert fit.predict(2.0).value == fit.predict([2.0]).value[0]
    fits = make(phihat.fit_curves(model, X, [Y, 2 * Y], START))
    assert fits[1].predict(2.0).value > fit.predict(2.0).value


def test_a_deep_copy_has_arrays_of_its_own():
    fit = phihat.fit_curve(decay, X, Y, START)
    other = copy.deepcopy(fit)
    other.residuals[0] = 7.0
    assert fit.residuals[0] != 7.0


def test_a_pickle_finds_a_model_by_its_name():
    fit = phihat.fit_curve(decay, X, Y, START)
    again = pickle.loads(pickle.dumps(fit))
    np.testing.assert_array_equal(again.predict([1.0]).high, fit.predict([1.0]).high)
    assert again.intervals(method="wald") == fit.intervals(method="wald")
    fits = pickle.loads(pickle.dumps(phihat.fit_curves(decay, X, [Y], START)))
    np.testing.assert_allclose(fits[0].values, fit.values)


def test_a_pickle_without_its_model_says_how_to_give_it_back():
    model = lambda p, x: decay(p, x)
    fit = phihat.fit_curve(model, X, Y, START)
    again = pickle.loads(pickle.dumps(fit))
    for call in (again.predict, again.plot, again.intervals):
        with pytest.raises(
            ValueError, match=r"`fit\.with_model\(model\)\.\w+\(\.\.\.\)`"
        ):
            call()
    whole = again.with_model(model)
    np.testing.assert_array_equal(whole.predict([1.0]).high, fit.predict([1.0]).high)
    assert whole.intervals(method="wald") == fit.intervals(method="wald")
    assert repr(pickle.loads(pickle.dumps(again))) == repr(fit)
    with pytest.raises(TypeError, match="with_model"):
        again.with_model(lambda x: x)

    fits = pickle.loads(pickle.dumps(phihat.fit_curves(model, X, [Y, 2 * Y], START)))
    with pytest.raises(ValueError, match=r"`fits\.with_model\(model\)`"):
        fits[0]
    np.testing.assert_allclose(fits.with_model(model)[0].values, fit.values)
    with pytest.raises(TypeError, match="with_model"):
        fits.with_model(lambda x: x)


def test_a_model_that_another_process_lacks_is_lost_but_not_the_fit(monkeypatch):
    """A function of a script is not there where another process reads the pickle."""
    script = types.ModuleType("script_of_a_user")
    vars(script)["jnp"] = jnp
    exec("def model(p, x): return p['a'] * jnp.exp(-x / p['b'])", vars(script))
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "script_of_a_user", script)
        fit = phihat.fit_curve(script.model, X, Y, START)
        text = pickle.dumps(fit)
        assert pickle.loads(text).predict(1.0).value > 0
    again = pickle.loads(text)
    assert repr(again) == repr(fit)
    with pytest.raises(ValueError, match="with_model"):
        again.predict()


def test_an_error_of_lanes_keeps_its_sentence():
    diverged = jax.vmap(lambda rate: line_fit(phihat.gradient_descent(rate)))
    with pytest.raises(phihat.FitError) as caught:
        phihat.raise_for_status(diverged(jnp.array([0.01, 1e200])))
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value)
    assert again.step == caught.value.step
