"""An optimizer of your own.

An optimizer is a pair of pure functions. If each is a `Partial` of a module-level
function, its numbers are data: a new rate does not recompile, and `jax.vmap` maps over
rates.

The example is Lion, and it is compared with optax's.
"""

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial

import phihat
from phihat import datasets, losses, models


class LionState(NamedTuple):
    mean: optax.Params


def lion(learning_rate, b1=0.9, b2=0.99):
    """Step by the sign of a mean of the gradients (Chen et al. 2023)."""
    numbers = {"learning_rate": learning_rate, "b1": b1, "b2": b2}
    return optax.GradientTransformationExtraArgs(
        Partial(_init), Partial(_update, **numbers)
    )


def _init(params):
    return LionState(mean=jax.tree.map(jnp.zeros_like, params))


def _update(updates, state, params=None, *, learning_rate, b1, b2, **extra):
    del params, extra
    blend = lambda b: jax.tree.map(  # noqa: E731
        lambda m, g: b * m + (1 - b) * g, state.mean, updates
    )
    steps = jax.tree.map(lambda m: -learning_rate * jnp.sign(m), blend(b1))
    return steps, LionState(mean=blend(b2))


# The check: the same start, the same gradients, step by step. The distance is counted
# in ulps, the spacing of float32 numbers at the size of the params.
loss_fn = losses.least_squares(models.gabor)
data = datasets.gabor()
start = jnp.array([0.5, 14.0])
paths = [
    phihat.fit(loss_fn, start, optimizer, data, num_steps=200, record=("params",))
    for optimizer in (lion(0.05), optax.lion(0.05, weight_decay=0.0))
]
ours, reference = (np.asarray(path.history["params"]) for path in paths)
ulps = np.abs(ours - reference) / np.spacing(np.abs(reference).max(axis=0))
print(f"farthest from optax.lion in 200 steps: {ulps.max():.0f} ulp")

# It can do all that phihat's own optimizers can.
# A list would not do as a counter: it is part of what the loss is, so each entry would
# make the loss another one, and compile again.
traces = itertools.count()


def counted(params, batch):
    next(traces)
    return loss_fn(params, batch)


phihat.fit(counted, start, lion(0.1), data, num_steps=100)
before = next(traces)
phihat.fit(counted, start, lion(0.02, b1=0.8), data, num_steps=100)
print(f"programs compiled for another rate: {next(traces) - before - 1}")


def final_loss(rate):
    return phihat.fit(loss_fn, start, lion(rate), data, num_steps=100).loss


rates = jnp.geomspace(1e-3, 1.0, 50)
final = jax.vmap(final_loss)(rates)
best = int(jnp.argmin(final))
print(f"best of 50 rates in one program: {rates[best]:.3f}, loss {final[best]:.2f}")
