"""Which optimizer is better?

A comparison in which one optimizer was tuned longer says little about the optimizers.
`phihat.compare` draws the same number of trials for each from its space, picks the best
one, and measures it on seeds that the tuning never saw.
"""

import sys

import jax

import phihat
from phihat import datasets, losses, models

x, y = datasets.diabetes()
data = (datasets.standardize(x), datasets.standardize(y))
loss_fn = losses.least_squares(models.multilayer_perceptron, reduction="mean")


def start(key):
    return models.init_multilayer_perceptron(key, (10, 8, 1))


table = phihat.compare(
    loss_fn,
    start,
    {
        "momentum": (
            phihat.momentum,
            {"learning_rate": (1e-3, 1.0), "decay": (0.5, 0.99)},
        ),
        "Adam": (phihat.adam, {"learning_rate": (1e-4, 0.1)}),
    },
    (data[0], data[1][:, None]),
    num_steps=100,
    num_trials=8,
    num_seeds=4,
    key=jax.random.key(0),
)
print(table)

if len(sys.argv) > 1:
    axes = phihat.plot.comparison(table)
    axes.set(title="Two optimizers, each tuned with 8 trials")
    axes.figure.savefig(f"{sys.argv[1]}/tuned.png")
