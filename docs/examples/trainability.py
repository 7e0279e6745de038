"""Which pairs of learning rates train a network?

Each layer of a two-layer network has its own learning rate. Every pixel of the map is a
fit, and all fits run in one program.
"""

import functools
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax

import phihat
from phihat import models, sweeps

x = jax.random.normal(jax.random.key(0), (16, 8))
y = jnp.tanh(x[:, :1] - x[:, 1:2])
start = models.init_multilayer_perceptron(jax.random.key(1), (8, 8, 1))
tanh_net = functools.partial(models.multilayer_perceptron, activation=jnp.tanh)
loss_fn = phihat.losses.least_squares(tanh_net, reduction="mean")


def by_layer(updates, state, params=None, *, first, last):
    """Descend with one rate for each layer."""
    del params
    layers = zip((first, last), updates, strict=True)
    scaled = [jax.tree.map(lambda g, r=rate: -r * g, layer) for rate, layer in layers]
    return scaled, state


def function(first, last):
    update = jax.tree_util.Partial(by_layer, first=first, last=last)
    optimizer = optax.GradientTransformation(optax.identity().init, update)
    return phihat.fit(loss_fn, start, optimizer, (x, y), num_steps=200)


first, last = np.geomspace(0.03, 300.0, 64), np.geomspace(0.03, 3.0, 64)
axes = {"first": first, "last": last}
found = sweeps.trainability(function, axes, target=0.02)
print(found)
unstable = found.outcome == sweeps.Outcome.DIVERGED
border = last[np.argmax(unstable[0])]
print(
    f"with the first layer nearly still, the last trains up to a rate of {border:.2g}"
)

if len(sys.argv) > 1:
    axes = phihat.plot.trainability(found)
    axes.set(
        xlabel="learning rate of the first layer",
        ylabel="learning rate of the last layer",
    )
    axes.figure.savefig(f"{sys.argv[1]}/trainability.png")
