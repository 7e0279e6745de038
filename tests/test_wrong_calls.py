"""Every wrong call: one clear sentence, before the loss is ever called."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import phihat
from phihat import Box, Status, fitting
from phihat._core import placement
from phihat.fitting import Tolerance

X, Y = np.linspace(0.0, 1.0, 10), np.linspace(1.0, 2.0, 10)
START = {"w": 0.0, "b": 0.0}
KEY = jax.random.key(0)


def loss_fn(params, batch):
    """A loss that must not be reached by a wrong call."""
    raise AssertionError("the loss was called")


def fit(*, loss=loss_fn, params=START, optimizer=None, data=(X, Y), **options):
    optimizer = phihat.gradient_descent(0.1) if optimizer is None else optimizer
    options = {"num_steps": 3} | options
    return phihat.fit(loss, params, optimizer, data, **options)


class Mixture:
    """An object that holds arrays and code, as an Equinox module does."""

    def __repr__(self):
        return "Mixture()"


class Frame:
    """What a DataFrame looks like from outside."""

    columns = ("x", "y")

    def __repr__(self):
        return "Frame"


def other_state():
    return fitting.init(START, phihat.adam(0.1))


CALLS = {
    "rows of different lengths": (
        lambda: fit(data={"x": X, "y": Y[:7]}, batch_size=2, key=KEY),
        ValueError,
        ["'y'", "10", "7", "rows"],
    ),
    "a scalar among the rows": (
        lambda: fit(data={"x": X, "y": np.float64(1.0)}, batch_size=2, key=KEY),
        ValueError,
        ["'y'"],
    ),
    "batch larger than the data": (
        lambda: fit(batch_size=11, key=KEY),
        ValueError,
        ["batch_size", "11", "10"],
    ),
    "zero batch size": (lambda: fit(batch_size=0), ValueError, ["batch_size", "0"]),
    "zero steps": (
        lambda: fit(num_steps=0),
        ValueError,
        ["fit: `num_steps` must be >= 1, got 0."],
    ),
    "negative steps": (lambda: fit(num_steps=-3), ValueError, ["num_steps", "-3"]),
    "fractional steps": (
        lambda: fit(num_steps=2.5),
        TypeError,
        ["fit: `num_steps` must be a whole number, got 2.5."],
    ),
    "steps as a bool": (lambda: fit(num_steps=True), TypeError, ["num_steps", "True"]),
    "zero epochs": (
        lambda: fit(num_steps=None, num_epochs=0),
        ValueError,
        ["num_epochs", "0"],
    ),
    "both steps and epochs": (
        lambda: fit(num_epochs=2),
        ValueError,
        ["either `num_steps` or `num_epochs`, got both"],
    ),
    "neither steps nor epochs": (
        lambda: fit(num_steps=None),
        ValueError,
        ["either `num_steps` or `num_epochs`, got neither"],
    ),
    "traced steps": (
        lambda: jax.jit(lambda n: fit(num_steps=n))(3),
        TypeError,
        ["num_steps", "static"],
    ),
    "zero stride": (lambda: fit(record_every=0), ValueError, ["record_every", "0"]),
    "batch_size with sampler": (
        lambda: fit(batch_size=2, sampler=phihat.minibatches(2), key=KEY),
        ValueError,
        ["`batch_size`", "`sampler`", "both"],
    ),
    "batch_size without data": (
        lambda: fit(data=None, batch_size=2, key=KEY),
        ValueError,
        ["`batch_size` needs `data`"],
    ),
    "missing key for shuffling": (
        lambda: fit(batch_size=2),
        ValueError,
        ["`key` is needed", "jax.random.key(0)"],
    ),
    "missing key for a keyed loss": (
        lambda: fit(loss=lambda params, batch, *, key: loss_fn(params, batch)),
        ValueError,
        ["`loss_fn` takes a key", "jax.random.key(0)"],
    ),
    "a seed as key": (lambda: fit(key=7), TypeError, ["key", "jax.random.key(7)"]),
    "an old-style key": (
        lambda: fit(key=jax.random.PRNGKey(0)),
        TypeError,
        ["key", "typed", "uint32[2]"],
    ),
    "a vector of losses": (
        lambda: fit(loss=lambda params, batch: params["w"] * batch[0]),
        ValueError,
        ["`loss_fn` must return a scalar", "[10]"],
    ),
    "a pair without has_aux": (
        lambda: fit(loss=lambda params, batch: (params["w"], batch)),
        TypeError,
        ["scalar", "tuple", "has_aux=True"],
    ),
    "has_aux without a pair": (
        lambda: fit(loss=lambda params, batch: params["w"], has_aux=True),
        TypeError,
        ["has_aux", "(loss, aux)"],
    ),
    "an integer loss": (
        lambda: fit(loss=lambda params, batch: jnp.asarray(3)),
        TypeError,
        ["floating-point", "int"],
    ),
    "a loss of other arguments": (
        lambda: fit(loss=lambda params, x, y: params["w"]),
        TypeError,
        ["(params, batch)", "(params, x, y)"],
    ),
    "a loss that wants data, without": (
        lambda: fit(data=None),
        TypeError,
        ["(params)", "(params, batch)", "pass the data"],
    ),
    "a loss without data, with": (
        lambda: fit(loss=lambda params: params["w"]),
        TypeError,
        ["(params, batch)", "(params)"],
    ),
    "a loss that is no function": (
        lambda: fit(loss=3.0),
        TypeError,
        ["fit: `loss_fn` must be a function, got 3.0"],
    ),
    "integer params": (
        lambda: fit(params={"w": jnp.arange(3), "b": 0.0}),
        TypeError,
        ["params", "['w']", "int"],
    ),
    "a Python int among params": (
        lambda: fit(params={"w": 0, "b": 0.0}),
        TypeError,
        ["params", "['w']", "float"],
    ),
    "complex params": (
        lambda: fit(params={"w": jnp.ones(2, complex), "b": 0.0}),
        TypeError,
        ["['w']", "complex", "real and imaginary"],
    ),
    "an object among params": (
        lambda: fit(params={"w": 0.0, "b": Mixture()}),
        TypeError,
        ["['b']", "Mixture()", "eqx.partition"],
    ),
    "params None": (lambda: fit(params=None), TypeError, ["`params`", "None"]),
    "a generator as data": (
        lambda: fit(data=(batch for batch in [(X, Y)])),
        TypeError,
        ["data", "generator", "stream"],
    ),
    "a list of batches as data": (
        lambda: fit(data=[(X, Y), (X, Y), (X, Y)]),
        TypeError,
        ["data", "list of 3 batches", "concatenate"],
    ),
    "a DataFrame as data": (
        lambda: fit(data=Frame()),
        TypeError,
        ["data", "Frame", ".to_numpy()"],
    ),
    "strings as data": (
        lambda: fit(data=(np.array(["a", "b"]), Y)),
        TypeError,
        ["data", "[0]"],
    ),
    "a negative learning rate": (
        lambda: phihat.gradient_descent(-0.1),
        ValueError,
        ["gradient_descent: `learning_rate` must be >= 0, got -0.1."],
    ),
    "a negative rate among many": (
        lambda: phihat.adam(jnp.asarray([0.1, -0.2])),
        ValueError,
        ["adam: `learning_rate`", "-0.2"],
    ),
    "a NaN learning rate": (
        lambda: phihat.adam(float("nan")),
        ValueError,
        ["learning_rate", "nan"],
    ),
    "a learning rate that is a word": (
        lambda: phihat.adam("fast"),
        TypeError,
        ["learning_rate", "'fast'"],
    ),
    "many rates in one fit": (
        lambda: fit(
            loss=lambda params, batch: params["w"] ** 2,
            optimizer=phihat.adam(jnp.ones(3)),
        ),
        ValueError,
        ["scalar", "[3]", "map over the optimizer"],
    ),
    "a decay of one": (
        lambda: phihat.momentum(0.1, decay=1.0),
        ValueError,
        ["momentum: `decay` must lie in [0, 1), got 1.0."],
    ),
    "a negative decay": (
        lambda: phihat.nesterov(0.1, -0.1),
        ValueError,
        ["nesterov: `decay`", "-0.1"],
    ),
    "b2 beyond one": (
        lambda: phihat.adam(0.1, b2=1.5),
        ValueError,
        ["adam: `b2` must lie in [0, 1), got 1.5."],
    ),
    "a negative eps": (
        lambda: phihat.normalized_gradient(0.1, eps=-1e-8),
        ValueError,
        ["normalized_gradient: `eps` must be >= 0, got -1e-08."],
    ),
    "a negative lookahead": (
        lambda: phihat.nesterov(0.1, lookahead=-1.0),
        ValueError,
        ["nesterov: `lookahead`", "-1.0"],
    ),
    "an optimizer that is a number": (
        lambda: fit(optimizer=0.1),
        TypeError,
        ["`optimizer` must be an (init, update) pair", "0.1"],
    ),
    "a factory that was not called": (
        lambda: fit(optimizer=phihat.adam),
        TypeError,
        ["(init, update) pair", "the function `adam`, which was not called"],
    ),
    "a triple of functions": (
        lambda: fit(optimizer=(abs, abs, abs)),
        TypeError,
        ["(init, update) pair"],
    ),
    "a state of another optimizer": (
        lambda: fit(state=other_state()),
        ValueError,
        ["`state` does not fit the optimizer"],
    ),
    "a state of other params": (
        lambda: fit(state=fitting.init({"w": 0.0}, phihat.gradient_descent(0.1))),
        ValueError,
        ["`params`", "`state.params`", "structure"],
    ),
    "a state of params of other shapes": (
        lambda: fit(
            params={"w": jnp.ones(3), "b": 0.0}, state=fitting.init(START, optax.sgd(1))
        ),
        ValueError,
        ["`params`", "`state.params`", "['w']", "[3]", "[]"],
    ),
    "a result as state": (
        lambda: fit(
            state=phihat.fit(
                lambda x: x**2, 1.0, phihat.gradient_descent(0.1), num_steps=1
            )
        ),
        TypeError,
        ["`state` must be a FitState", "result.state"],
    ),
    "an unknown name in record": (
        lambda: fit(record=("los",)),
        ValueError,
        ["record", "'los'", "did you mean 'loss'"],
    ),
    "a number in record": (lambda: fit(record=(3,)), TypeError, ["record", "3"]),
    "a rate that is not told": (
        lambda: fit(
            loss=lambda params, batch: params["w"] ** 2,
            optimizer=optax.sgd(0.1),
            record=("learning_rate",),
        ),
        ValueError,
        ["'learning_rate'", "does not tell", "inject_hyperparams"],
    ),
    "aux that is not returned": (
        lambda: fit(
            loss=lambda params, batch: params["w"] ** 2, record=("loss", "aux")
        ),
        ValueError,
        ["'aux'", "has_aux=True"],
    ),
    "aux of the batch's length": (
        lambda: fit(
            loss=lambda params, batch: (params["w"] ** 2, batch[0]),
            has_aux=True,
            batch_size=3,
            key=KEY,
        ),
        ValueError,
        ["aux", "[3]", "[1]", "drop_remainder"],
    ),
    "a box upside down": (
        lambda: Box([0.0, 2.0], [1.0, 1.0]),
        ValueError,
        ["Box: `low` must not lie above `high`"],
    ),
    "a box of two structures": (
        lambda: Box({"w": 0.0}, {"b": 1.0}),
        ValueError,
        ["Box", "same structure"],
    ),
    "a box for other params": (
        lambda: fit(
            loss=lambda params, batch: params["w"] ** 2,
            projection=Box({"w": 0.0}, {"w": 1.0}),
        ),
        ValueError,
        ["projection", "structure"],
    ),
    "a negative tolerance": (
        lambda: fit(tolerance=-1.0),
        ValueError,
        ["fit: `tolerance` must be >= 0, got -1.0."],
    ),
    "a tolerance without a criterion": (
        lambda: fit(tolerance=Tolerance(relative=1e-3)),
        ValueError,
        ["tolerance", "no criterion"],
    ),
    "an unknown word for nonfinite": (
        lambda: fit(nonfinite="stopp"),
        ValueError,
        ["nonfinite", "'stopp'", "did you mean 'stop'"],
    ),
    "a sampler that is no function": (
        lambda: fit(sampler=32),
        TypeError,
        ["`sampler` must be a function", "32"],
    ),
    "a projection that is no function": (
        lambda: fit(projection=3.0),
        TypeError,
        ["`projection` must be a function", "3.0"],
    ),
    "indices out of range": (
        lambda: fit(sampler=phihat.from_indices(np.asarray([[0, 10]]))),
        ValueError,
        ["10"],
    ),
    "a state that is no state": (
        lambda: fitting.run(loss_fn, START, num_steps=1),
        TypeError,
        ["run: `state` must be a FitState"],
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_wrong_call(name):
    call, error, words = CALLS[name]
    with pytest.raises(error) as caught:
        call()
    message = str(caught.value)
    for word in words:
        assert word in message
    sentence = message.split("\n----")[0]
    assert "\n" not in sentence
    assert len(sentence) < 420


COUNTS = {
    "num_steps": {"record": ()},
    "num_epochs": {"num_steps": None, "record": ()},
    "record_every": {},
}


@pytest.mark.parametrize("call", [phihat.fit, phihat.train])
@pytest.mark.parametrize("number", [2**31 - 1, 2**40, 2**70])
@pytest.mark.parametrize("name", COUNTS)
def test_counts_without_bound_are_refused(name, number, call):
    options = {"num_steps": 3} | COUNTS[name] | {name: number}
    with pytest.raises(ValueError, match=f"^{call.__name__}: `{name}` must be <= 2,0"):
        call(loss_fn, START, phihat.adam(0.1), (X, Y), **options)


@pytest.mark.parametrize("call", [phihat.fit, phihat.train])
def test_a_history_larger_than_the_memory_is_refused(call, monkeypatch):
    monkeypatch.setattr(placement, "machine_memory", lambda: 10**6)
    settings = {"num_steps": 10**6, "tolerance": 1e-3}
    arguments = (lambda p: p**2, 1.0, phihat.adam(0.1))
    with pytest.raises(ValueError, match=r"asks for 1,000,000 rows .* `record=\(\)`"):
        call(*arguments, **settings)
    for sparing in ({"record": ()}, {"record_every": 1000}):
        assert call(*arguments, **settings, **sparing).status == Status.CONVERGED


def deleted():
    array = jnp.ones(10)
    array.delete()
    return array


ODD_DATA = {
    "a deleted array": (deleted, "it has been deleted"),
    "a matrix": (lambda: np.ones((10, 1)).view(np.matrix), "with `np.asarray`"),
    "longdouble": (lambda: X.astype(np.longdouble), "is not numeric|`.astype"),
    "bytes of no kind": (lambda: np.zeros(10, "V4"), "is not numeric"),
    "a huge integer": (lambda: 2**70, "too large for an integer"),
}


@pytest.mark.parametrize("kind", ODD_DATA)
def test_odd_arrays_are_refused_by_a_sentence(kind):
    make, message = ODD_DATA[kind]
    with pytest.raises(TypeError, match=f"^fit: `data` must be .*({message})"):
        fit(data=(make(), Y))


@pytest.mark.parametrize("leaf", [deleted(), np.longdouble(1.0)], ids=["deleted", "g"])
def test_odd_params_are_refused_by_a_sentence(leaf):
    with pytest.raises(TypeError, match=r"^fit: `params` must have .* at \['w'\]; "):
        fit(params={"w": leaf, "b": 0.0})


def test_epochs_of_too_many_steps_are_refused():
    with pytest.raises(ValueError, match="`num_epochs` must make at most 2,000,000,0"):
        fit(num_steps=None, num_epochs=10**9, batch_size=2, key=KEY, record=())


@pytest.mark.parametrize(
    "optimizer",
    [
        optax.GradientTransformation(
            lambda params: {}, lambda grads, state, params=None: (grads, {"new": grads})
        ),
        optax.GradientTransformation(
            lambda params: jnp.zeros(1),
            lambda grads, state, params=None: (grads, jnp.zeros(2)),
        ),
    ],
    ids=["structure", "shape"],
)
def test_an_optimizer_whose_state_drifts_is_named(optimizer):
    with pytest.raises(TypeError, match="no compiled loop can carry it"):
        fit(loss=lambda params, batch: params["w"] ** 2, optimizer=optimizer)


def test_unhashable_code_is_refused_by_its_path():
    class Unhashable:
        __hash__ = None

        def __call__(self, params, batch):
            return params["w"] ** 2

    with pytest.raises(TypeError, match=r"Unhashable.*cannot be hashed"):
        fit(loss=Unhashable())


def test_checks_are_silent_on_tracers():
    fit_rate = functools.partial(
        phihat.fit, lambda x: x**2, jnp.asarray(1.0), num_steps=2
    )
    result = jax.jit(lambda rate: fit_rate(optimizer=phihat.adam(rate, b1=rate)))(0.5)
    assert result.status == phihat.Status.COMPLETED
