"""Comparing optimizers: the same budget for each, and judged on other seeds."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh

import phihat
from phihat.sweeps.comparison import quantiles

ONE = Mesh(np.asarray(jax.devices()[:1]), ("lanes",))
LOSS = phihat.losses.least_squares(phihat.models.linear)
DATA = phihat.datasets.linear_regression()
START = {"weight": 0.0, "bias": 0.0}
MOMENTUM = (phihat.momentum, {"learning_rate": (1e-3, 0.1), "decay": (0.1, 0.9)})


def draw(key):
    names = ("weight", "bias")
    keys = jax.random.split(key)
    return {n: jax.random.normal(k) for n, k in zip(names, keys, strict=True)}


@pytest.fixture(scope="module")
def table():
    return phihat.compare(
        LOSS,
        draw,
        {"gd": phihat.gradient_descent, "momentum": MOMENTUM, "adam": phihat.adam},
        DATA,
        num_steps=40,
        num_trials=8,
        num_seeds=4,
        key=jax.random.key(0),
        mesh=ONE,
    )


def test_every_entry_is_the_fit_that_it_says(table):
    factories = {"gd": phihat.gradient_descent, "adam": phihat.adam}
    factories["momentum"] = phihat.momentum
    judges = jax.random.split(jax.random.split(jax.random.key(0))[1], 4)
    for name, entry in table.entries.items():
        assert entry.trial_loss.shape == (8, 4)
        assert entry.loss.shape == (4, 40)
        optimizer = factories[name](**entry.hyperparameters)
        for seed, final in zip(judges, entry.final, strict=True):
            start = draw(jax.random.split(seed)[0])
            alone = phihat.fit(LOSS, start, optimizer, DATA, num_steps=40)
            np.testing.assert_allclose(final, alone.loss, rtol=1e-6)


def test_the_best_trial_is_taken_and_failures_lose(table):
    entry = table.entries["gd"]
    # Rates of 2 / 50 and more diverge; they are among the trials.
    rates = entry.trials["learning_rate"]
    unstable = rates > 2 / 50.03
    assert unstable.any()
    assert (entry.trial_loss[unstable] > entry.trial_loss[~unstable].max()).all()
    best = np.argmin(np.quantile(entry.trial_loss, 0.5, axis=1, method="nearest"))
    assert entry.hyperparameters["learning_rate"] == rates[best]
    medians = [entry.quartiles[1] for entry in table.entries.values()]
    assert medians == sorted(medians)
    assert entry.num_gradients == 40
    assert entry.num_values == 0
    assert entry.seconds > 0


def test_repr(table):
    lines = repr(table).splitlines()
    assert lines[0] == "Comparison: 8 trials, 4 seeds, 40 steps each"
    assert {line.split()[0] for line in lines[2:]} == {"gd", "momentum", "adam"}
    assert "decay=" in next(line for line in lines if "momentum" in line)


def searching(learning_rate):
    search = phihat.bracketing(max_step=learning_rate)
    return phihat.steepest_descent(search)


def test_minibatches_and_the_values_of_line_searches():
    table = phihat.compare(
        LOSS,
        START,
        {"search": searching, "gd": phihat.gradient_descent},
        DATA,
        num_steps=10,
        num_trials=2,
        num_seeds=3,
        batch_size=4,
        key=jax.random.key(0),
        mesh=ONE,
    )
    assert table.entries["search"].num_values > 10 * 4
    entry = table.entries["gd"]
    assert len(set(entry.final)) == 3  # the seeds shuffle
    assert (entry.final >= 0.19).all()  # on all data: the minimum is 0.1999


def test_an_optimizer_is_tuned_like_its_factory():
    """What is not tuned stays as the optimizer has it."""
    calls = [phihat.momentum(0.3, decay=0.5), partial(phihat.momentum, decay=0.5)]
    tables = [
        phihat.compare(
            LOSS,
            {"weight": 0.0, "bias": 0.0},
            {"a": call},
            DATA,
            num_steps=10,
            num_trials=4,
            num_seeds=2,
        )
        for call in calls
    ]
    own, made = (table.entries["a"] for table in tables)
    assert own.hyperparameters == made.hyperparameters
    np.testing.assert_allclose(own.final, made.final, rtol=1e-12)


@pytest.mark.parametrize(
    ("optimizers", "kind", "message"),
    [
        ({}, TypeError, "`optimizers` must map names to optimizers"),
        (
            {"a": optax.adam(0.1)},
            TypeError,
            r"`optimizers\['a'\]` must be an optimizer of phihat, such as",
        ),
        (
            {"a": (phihat.adam(0.1), {"decay": (0.1, 0.9)})},
            TypeError,
            r"`optimizers\['a'\]` has no hyperparameter `decay`: adam\(",
        ),
        ({"a": (phihat.adam, {})}, TypeError, "the space of 'a' must map arguments"),
        (
            {"a": (phihat.adam, {"rate": (0.1, 1.0)})},
            TypeError,
            r"cannot be called with rate",
        ),
        (
            {"a": (phihat.adam, {"learning_rate": (0.0, 1.0)})},
            ValueError,
            r"must be \(low, high\) with 0 < low <= high",
        ),
    ],
)
def test_wrong_calls(optimizers, kind, message):
    with pytest.raises(kind, match=message):
        phihat.compare(
            LOSS, {"weight": 0.0, "bias": 0.0}, optimizers, DATA, num_steps=3
        )


def test_random_fits_ask_for_a_key():
    options = {"num_steps": 2, "num_trials": 1, "num_seeds": 1, "mesh": ONE}
    with pytest.warns(
        FutureWarning, match="the next release will need a `key`"
    ) as told:
        without = phihat.compare(LOSS, draw, {"a": phihat.adam}, DATA, **options)
    assert told[0].filename == __file__
    options["key"] = jax.random.key(0)
    given = phihat.compare(LOSS, draw, {"a": phihat.adam}, DATA, **options)
    np.testing.assert_array_equal(without.entries["a"].final, given.entries["a"].final)


def test_wrong_numbers():
    with pytest.raises(ValueError, match="`num_trials` must be >= 1, got 0"):
        phihat.compare(
            lambda x: jnp.sum(x**2), 1.0, {"a": phihat.adam}, num_steps=3, num_trials=0
        )


@pytest.mark.parametrize("count", [1, 2, 4, 5, 8])
def test_quantiles_are_those_of_numpy(count):
    values = np.random.RandomState(count).normal(size=(3, count))
    levels = (0.0, 0.25, 0.5, 0.8, 1.0)
    np.testing.assert_array_equal(
        quantiles(values, levels), np.quantile(values, levels, axis=-1)
    )


def test_between_a_number_and_infinity_lies_infinity():
    found = quantiles([1.0, np.inf, np.inf, 2.0], (0.0, 1 / 3, 0.5, 1.0))
    np.testing.assert_allclose(found, [1.0, 2.0, np.inf, np.inf])


def test_the_median_of_an_even_number_of_seeds_is_numpys(table):
    for name, entry in table.entries.items():
        assert entry.quartiles[1] == pytest.approx(np.median(entry.final)), name
