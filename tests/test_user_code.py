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


LABELS = ["a", "b", "c"]
SQUARES = losses.least_squares(line)
CLASSES = losses.multiclass_cross_entropy(lambda params, x: params[0] * x)


def by_name(params, batch):
    return own([params["a"], params["b"]], batch)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (
            lambda: phihat.sharpness(START, own, (X, Y)),
            "sharpness: `loss_fn` and `params` are exchanged; the order is "
            "sharpness(loss_fn, params, data).",
        ),
        (
            lambda: phihat.fit(own, phihat.adam(0.1), START, (X, Y), num_steps=1),
            "fit: `optimizer` and `params` are exchanged; the order is",
        ),
        (
            lambda: phihat.fit(SQUARES, (X, Y), phihat.adam(0.1), START, num_steps=1),
            "fit: `params` holds arrays with the same number of rows, as data do",
        ),
        (lambda: fit(optimizer="adam"), "got 'adam'; pass the optimizer itself"),
        (
            lambda: phihat.fit(
                by_name, {"a": 1.0}, phihat.adam(1), (X, Y), num_steps=1
            ),
            "asks for 'b', but `params` has ['a'].",
        ),
        (
            lambda: fit(by_name),
            "asks for an entry by its name, but `params` is an array",
        ),
        (
            lambda: fit(data=(X, Y[:2])),
            "fit: `return jnp.sum((params[0] + params[1] * x - y) ** 2)` (line",
        ),
        (
            lambda: fit(data=(X, Y[:2])),
            "called with params [2], data[0] [3], data[1] [2].",
        ),
        (
            lambda: fit(losses.least_squares(phihat.models.linear), (X, Y)),
            'linear: `params` must be {"weight": array, "bias": array}, got ',
        ),
        (lambda: fit(sampler=lambda: 0), "got the function `<lambda>`."),
        (
            lambda: fit(sampler=phihat.minibatches),
            "such as `minibatches(32)`, got the function `minibatches`, which was not",
        ),
        (lambda: fit(CLASSES, (X, LABELS)), "`np.unique(labels, return_inverse=True)"),
        (lambda: CLASSES(X, (np.eye(3), np.eye(3))), "pass `y.argmax(axis=-1)`."),
        (lambda: CLASSES(X, (np.eye(3), np.eye(3, dtype=int))), "`y.argmax(axis=-1)`."),
        (
            lambda: SQUARES(START, X, Y),
            "least_squares: the loss is called as `loss_fn(",
        ),
        (lambda: SQUARES(START, X, Y), "got 3 arguments; put the data into one tuple."),
        (lambda: losses.with_l2(SQUARES, 0.1)(START), "and one batch, got 1 argument."),
        (
            lambda: phihat.adam(0.1).update(START, None),
            "update: `state` must be what `optimizer.init(params)` or the last",
        ),
        (
            lambda: phihat.hvp(own, START, {"a": START}, (X, Y)),
            "must be a pytree like `params`, one array, got {'a': *}.",
        ),
        (
            lambda: fit(state=phihat.fitting.init(START, phihat.momentum(0.1))),
            "the structure MomentumState, but this fit needs AdamState.",
        ),
    ],
)
def test_the_message_names_the_call_and_the_cure(call, sentence):
    with pytest.raises((TypeError, ValueError)) as error:
        call()
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)
    assert "Tracer" not in str(error.value)


def steps(step):
    yield step


@pytest.mark.parametrize("search", [phihat.bracketing(), phihat.backtracking()])
@pytest.mark.parametrize(
    ("fn", "sentence"),
    [
        (lambda step: math.cos(step), "asks Python for a number"),
        (lambda step: step if step > 0 else -step, "`jnp.where(condition, a, b)`"),
        (lambda step: None, "`fn` must return a real number, got None."),
        (lambda step: "a", "`fn` must return a real number, got 'a'."),
        (lambda step: (step, step), "`fn` must return a real number, got (float"),
        (lambda step: step * jnp.ones(3), "got shape [3]; take its sum or mean."),
        (
            lambda step: jax.lax.complex(step, step),
            "got complex128; take its real part",
        ),
        (lambda step, rest: step, "is called as (step), but its signature is (step, r"),
        (3.0, "`fn` must be a function, got 3.0."),
    ],
)
def test_a_function_that_cannot_be_searched(search, fn, sentence):
    name = search.func.__name__
    with pytest.raises((TypeError, ValueError)) as error:
        search(fn, -1.0)
    assert str(error.value).startswith(f"{name}: ")
    assert sentence in str(error.value)


def test_a_generator_function_is_to_be_called():
    with pytest.raises(TypeError, match=r"call it, `steps\(\)`, to make a stream"):
        phihat.train(own, START, phihat.adam(0.1), steps, num_steps=1)


def test_tensors_of_pytorch_are_told_how_to_convert():
    torch = pytest.importorskip("torch")
    data = (torch.ones(3), torch.ones(3))
    for call in (
        lambda: fit(data=data),
        lambda: phihat.hessian(own, START, data),
        lambda: phihat.hessian(own, {"a": torch.ones(2)}, (X, Y)),
        lambda: SQUARES(START, data),
    ):
        with pytest.raises((TypeError, ValueError), match=r"`tensor.detach\(\).cpu"):
            call()


def test_a_loss_that_takes_all_pairs_is_told_of():
    def predict(params, batch):
        return jnp.mean((batch[0] @ params - batch[1]) ** 2)

    def kernel(params, batch):
        distances = (batch[0] - batch[1][None]) ** 2
        return jnp.sum(params**2) * jnp.mean(distances)

    def run(loss_fn, columns):
        data = (np.ones((3, 2)) if loss_fn is predict else X[:, None], Y)
        params = jnp.zeros((2, columns)) if columns else jnp.zeros(2)
        phihat.fit(loss_fn, params, phihat.adam(0.1), data, num_steps=1)

    with jax.numpy_rank_promotion("allow"):
        told = r"of shapes \[3\] and \[3, 1\] into all pairs, \[3, 3\]"
        with pytest.warns(UserWarning, match=told):
            run(predict, 1)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            run(predict, 0)
            run(kernel, 0)  # pairs of data alone are meant


def test_an_error_of_ones_own_is_left_alone():
    def refuses(params, batch):
        raise LookupError("no such table")

    with pytest.raises(LookupError, match="no such table"):
        fit(refuses)


def test_large_integers_that_a_loss_multiplies_are_told_of():
    big = np.array([50_000, 60_000, 70_000], np.int32)
    y = Y.astype(np.float32)
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"):
        with pytest.warns(UserWarning, match=r"`data\[0\]` holds int32 up to 70,000"):
            fit(lambda params, batch: own(params, (batch[0] ** 2, batch[1])), (big, y))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            fit(own, (big.astype(np.float32), y))
            fit(lambda p, b: own(p, (1e-5 * b[0], b[1])), (big, y))  # as floats
            fit(lambda p, b: own(p, (b[0] // 2, b[1])), (big // 7, y))
            # Indices into a table are large, and nobody multiplies them.
            table = jnp.ones(100_000)
            fit(lambda p, b: own(p, (table[b[0]], b[1])), (big, y))


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
