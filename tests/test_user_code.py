"""Losses, models and data of a user's own that fail: the sentence with the cure."""

import math
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import phihat
from phihat import losses

X, Y = np.array([1.0, 2.0, 3.0]), np.array([2.0, 3.0, 4.0])
START = np.zeros(2)


def own(params, batch):
    x, y = batch
    return jnp.sum((params[0] + params[1] * x - y) ** 2)


def line(params, x):
    return params[0] + params[1] * x


def branches(params, batch):
    if params[0] > 0:
        return own(params, batch)
    return own(-params, batch)


def counts(params, batch):
    return own(params, batch) + math.cos(params[0])


def converts(params, batch):
    return own(params, batch) + np.cos(params).sum()


def fit(loss_fn=own, data=(X, Y), optimizer=None, **options):
    optimizer = optimizer or phihat.adam(0.1)
    return phihat.fit(loss_fn, START, optimizer, data, num_steps=2, **options)


def sharpness_of_branches():
    return phihat.sharpness(branches, START, (X, Y))


NOT_KNOWN = "asks Python for a number that is known only when the compiled program runs"


@pytest.mark.parametrize(
    ("call", "parts"),
    [
        (
            lambda: fit(branches),
            ["fit: `if params[0] > 0:` (line", NOT_KNOWN, "`jnp.where(condition"],
        ),
        (sharpness_of_branches, ["sharpness: `if params[0] > 0:`", NOT_KNOWN]),
        (
            lambda: fit(losses.least_squares(lambda params, x: 1.0 if x > 0 else x)),
            ["fit: ", NOT_KNOWN, "`jnp.where(condition, a, b)`"],
        ),
        (lambda: fit(counts), ["math.cos(params[0])` (line", "`jnp.cos` for `math."]),
        (lambda: fit(converts), [NOT_KNOWN, "`jax.numpy` instead of `numpy`"]),
        (
            lambda: phihat.sharpness(line, START, (X, Y)),
            ["sharpness: `loss_fn` takes (params, x), as a model does;"],
        ),
        (
            lambda: phihat.sharpness(line, (X, Y)),
            ["sharpness: `loss_fn` takes (params, x)", "and pass the data `(x, y)`."],
        ),
        (
            lambda: fit(data=([1.0, 2.0], [2.0, 3.0])),
            ["fit: `data[0]` is a list of 2 numbers", "`np.asarray(values)`"],
        ),
        (
            lambda: phihat.hessian(own, START, ([1.0, 2.0], [2.0, 3.0])),
            ["hessian: `data[0]` is a list of 2 numbers"],
        ),
        (
            lambda: fit(data=[(1.0, 2.0), (2.0, 3.0), (3.0, 4.0)]),
            ["fit: `data` is a list of 3 tuples of 2 numbers", "`x, y = np.asarray("],
        ),
        (
            lambda: fit(data=[[1.0, 2.0, 5.0], [2.0, 3.0, 6.0]]),
            ["a list of 2 lists of 3 numbers", "`x, y = map(np.asarray, data)`"],
        ),
        (
            lambda: phihat.bracketing(max_steps=1.0),  # type: ignore[call-arg]
            ["there is no argument `max_steps`; did you mean `max_step`?"],
        ),
        (
            lambda: fit(optimizer=phihat.bracketing()),
            ["make an optimizer of the search, `steepest_descent(search)`."],
        ),
        (
            lambda: phihat.steepest_descent(phihat.bracketing),
            ["such as `bracketing()`, got the function `bracketing`, which was not"],
        ),
    ],
)
def test_the_sentence_names_the_cure(call, parts):
    with pytest.raises(TypeError) as error:
        call()
    for part in parts:
        assert part in str(error.value)


def test_an_error_of_ones_own_is_left_alone():
    def refuses(params, batch):
        raise LookupError("no such table")

    with pytest.raises(LookupError, match="no such table"):
        fit(refuses)


def test_large_integers_that_a_loss_multiplies_are_told_of():
    big = np.array([50_000, 60_000, 70_000], np.int32)
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"):
        with pytest.warns(UserWarning, match=r"`data\[0\]` holds int32 up to 70,000"):
            fit(lambda params, batch: own(params, (batch[0] ** 2, batch[1])), (big, Y))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            fit(own, (big.astype(np.float32), Y))
            fit(lambda p, b: own(p, (1e-5 * b[0], b[1])), (big, Y))  # as floats
            fit(lambda p, b: own(p, (b[0] // 2, b[1])), (big // 7, Y))
            # Indices into a table are large, and nobody multiplies them.
            table = jnp.ones(100_000)
            fit(lambda p, b: own(p, (table[b[0]], b[1])), (big, Y))


def test_columns_of_a_frame_are_data_everywhere():
    frame = pd.DataFrame({"x": X, "y": Y, "names": ["a", "b", "c"]})
    columns = (frame["x"], frame["y"])
    np.testing.assert_array_equal(fit(data=columns).params, fit().params)
    trained = phihat.train(own, START, phihat.adam(0.1), columns, num_steps=2)
    np.testing.assert_array_equal(trained.params, fit().params)
    assert np.asarray(phihat.hessian(own, START, columns)).shape == (2, 2)
    assert phihat.check_convexity(own, START, data=columns).verdict.is_convex
    with pytest.raises(TypeError, match="fit: `data` must be a pytree of arrays"):
        fit(data=(frame["x"], frame["names"]))


@pytest.mark.parametrize(
    "optimizer",
    [
        phihat.gradient_descent(0.1),
        phihat.momentum(0.1),
        phihat.nesterov(0.1),
        phihat.normalized_gradient(0.1),
        phihat.adam(0.1),
    ],
)
def test_update_takes_numbers_and_lists_of_them(optimizer):
    as_array = np.array([1.0, -2.0])
    updates, _ = optimizer.update(as_array, optimizer.init(as_array), as_array)
    state = optimizer.init([1.0, -2.0])
    np.testing.assert_array_equal(optimizer.update([1.0, -2.0], state)[0], updates)
    state = optimizer.init([1.0, -2.0])
    np.testing.assert_array_equal(optimizer.update([1, -2], state)[0], updates)
