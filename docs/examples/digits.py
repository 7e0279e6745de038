"""A small network on handwritten digits.

An epoch is one pass over the data, in an order that the key determines. The whole fit
is one compiled program, including the shuffling.
"""

import sys

import jax
import jax.numpy as jnp

import phihat
from phihat import datasets, losses, models

train, test = datasets.split(datasets.digits(), jax.random.key(0))
x, y = train[0] / 16.0, train[1]
x_test, y_test = test[0] / 16.0, test[1]

start = models.init_multilayer_perceptron(jax.random.key(1), (64, 32, 10))
loss_fn = losses.multiclass_cross_entropy(
    models.multilayer_perceptron, reduction="mean"
)
result = phihat.fit(
    loss_fn,
    start,
    phihat.adam(0.003),
    (x, y),
    num_epochs=20,
    batch_size=32,
    key=jax.random.key(2),
    record=("loss", "grad_norm"),
)
phihat.raise_for_status(result)
print(f"{result.num_steps} steps, loss {loss_fn(result.params, (x, y)):.4f}")

logits = models.multilayer_perceptron(result.params, x_test)
guess = jnp.argmax(logits, axis=-1)
print(f"right on {(guess == y_test).mean():.1%} of {len(y_test)} digits held out")

if len(sys.argv) > 1:
    axes = phihat.plot.loss_curves(result, yscale="log")
    axes.set(ylabel="loss of the batch", title="A perceptron on digits")
    axes.figure.savefig(f"{sys.argv[1]}/digits.png")
