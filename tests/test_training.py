"""Long fits: the numbers of `fit`, whatever happens between the chunks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import phihat
from phihat import Status
from tests.cases import gabor_problem

LOSS, DATA = gabor_problem()
START = jnp.asarray([-2.0, 12.5])
CHUNKS = (1, 7, 100, None)


def leaves_by_path(tree):
    found = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        found[jax.tree_util.keystr(path)] = (str(leaf.dtype), np.asarray(leaf))
    return found


def assert_same(one, other):
    """Every leaf of two results is the same to the bit."""
    assert jax.tree.structure(one) == jax.tree.structure(other)
    mine, yours = leaves_by_path(one), leaves_by_path(other)
    different = [
        path
        for path in mine
        if mine[path][0] != yours[path][0]
        or mine[path][1].tobytes() != yours[path][1].tobytes()
    ]
    assert different == []


FITS = {
    "plain": {"num_steps": 250},
    "minibatches, all on record": {
        "num_steps": 250,
        "batch_size": 5,
        "key": jax.random.key(0),
        "record": ("loss", "params", "grad_norm", "learning_rate"),
    },
    "rows of 30 steps": {
        "num_epochs": 42,
        "batch_size": 5,
        "key": jax.random.key(1),
        "record": ("loss", "params", "sharpness"),
        "record_every": 30,
    },
    "until it converges": {"num_steps": 2000, "tolerance": 1e-2, "record_every": 3},
    "nothing on record": {"num_steps": 9, "record": ()},
    "steps alone": {"num_steps": 9, "record": ("step",), "record_every": 2},
}


@pytest.mark.parametrize("name", FITS)
def test_train_is_fit_to_the_bit(name):
    settings = FITS[name]
    optimizer = phihat.nesterov(0.01)
    whole = phihat.fit(LOSS, START, optimizer, DATA, **settings)
    for chunk in CHUNKS:
        result = phihat.train(
            LOSS, START, optimizer, DATA, steps_per_chunk=chunk, **settings
        )
        assert_same(whole, result)


def test_a_fit_that_fails_stops_where_fit_does():
    loss_fn = lambda x: x**4
    optimizer = phihat.gradient_descent(1.0)
    settings = {"num_steps": 20, "record": ("loss", "params"), "record_every": 2}
    whole = phihat.fit(loss_fn, 9.0, optimizer, **settings)
    assert whole.status == Status.NONFINITE_LOSS
    for chunk in CHUNKS:
        result = phihat.train(
            loss_fn, 9.0, optimizer, steps_per_chunk=chunk, **settings
        )
        assert_same(whole, result)
