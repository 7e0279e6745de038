"""The tables over which the tests run: a new public optimizer must be in `OPTIMIZERS`.

Keys are names of public factories; a test fails where one is missing.
"""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import Partial

import phihat

REFERENCE = json.loads((Path(__file__).parent / "reference.json").read_text())

HALVING = Partial(optax.exponential_decay(0.1, 10, 0.5))


def warm_up(peak, length, step):
    """A schedule whose numbers are data: linear up to `peak`, then constant."""
    share = (step + 1) / length
    return peak * jnp.minimum(share, jnp.ones_like(share))


OPTIMIZERS = {
    "adam": lambda rate=0.05: phihat.adam(rate, b1=0.8, b2=0.95),
    "gradient_descent": lambda rate=0.05: phihat.gradient_descent(rate),
    "momentum": lambda rate=0.05: phihat.momentum(rate, decay=0.7),
    "nesterov": lambda rate=0.05: phihat.nesterov(rate, decay=0.7),
    "nesterov_slide": lambda rate=0.05: phihat.nesterov(rate, 0.7, lookahead=1.0),
    "normalized_gradient": lambda rate=0.05: phihat.normalized_gradient(rate),
}
"""Every public optimizer with a rate, with settings that are not the defaults."""


def quadratic(condition: float):
    """A quadratic bowl in four dimensions with eigenvalues from 1 / condition to 1."""
    eigenvalues = jnp.logspace(-jnp.log10(condition), 0.0, 4)
    return Partial(_quadratic, eigenvalues), jnp.asarray([1.0, -2.0, 0.5, 3.0])


def _quadratic(eigenvalues, params):
    return 0.5 * jnp.sum(eigenvalues.astype(params.dtype) * params**2)


def rosenbrock(params):
    x, y = params
    return (1 - x) ** 2 + 100 * (y - x**2) ** 2


def gabor_problem():
    """The Gabor model of the book on the deck's data."""
    data = tuple(jnp.asarray(REFERENCE["data"]["gabor"][name]) for name in "xy")
    return phihat.losses.least_squares(BOOK_GABOR), data


BOOK_GABOR = Partial(phihat.models.gabor, envelope_width=4.0)

PYTREES = {
    "scalar": 1.5,
    "vector": jnp.asarray([1.0, -2.0, 3.0]),
    "dict": {"weight": jnp.ones((2, 3)), "bias": jnp.zeros(3)},
    "nested": [{"w": jnp.ones(2)}, (jnp.zeros((1, 2)), {"b": 0.5})],
    "with None": {"a": jnp.ones(2), "absent": None},
    "empty leaf": {"a": jnp.ones((0, 3)), "b": jnp.ones(1)},
    "no leaves": {},
}


def tree_loss(params):
    """Half the sum of squared distances to 2, over any pytree."""
    leaves = [jnp.asarray(leaf) for leaf in jax.tree.leaves(params)]
    terms = [jnp.sum(0.5 * (leaf.astype(float) - 2) ** 2) for leaf in leaves]
    return sum(terms, jnp.zeros(()))


DTYPES = ("bfloat16", "float16", "float32", "float64")
