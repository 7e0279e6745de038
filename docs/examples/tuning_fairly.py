"""Which optimizer is better? Tune each by as many trials, and judge on other seeds.

A comparison in which one optimizer was tuned longer says little about the optimizers.
`phihat.compare` draws as many trials for each from its space, picks the best, and
judges that one on seeds that the tuning never saw.
"""

import sys

import jax

import phihat
from phihat import datasets, losses, models

x, y = datasets.diabetes()
data = (datasets.standardize(x), datasets.standardize(y))
loss_fn = losses.least_squares(models.multilayer_perceptron, reduction="mean")


def start(key):
    return models.init_multilayer_perceptron(key, (10, 16, 1))


decay = {"learning_rate": (1e-3, 1.0), "decay": (0.5, 0.99)}
table = phihat.compare(
    loss_fn,
    start,
    {
        "gradient descent": (phihat.gradient_descent, {"learning_rate": (1e-3, 1.0)}),
        "momentum": (phihat.momentum, decay),
        "Nesterov": (phihat.nesterov, decay),
        "Adam": (phihat.adam, {"learning_rate": (1e-4, 0.1)}),
    },
    (data[0], data[1][:, None]),
    num_steps=200,
    num_trials=16,
    num_seeds=4,
    batch_size=32,
    key=jax.random.key(0),
)
print(table)

if len(sys.argv) > 1:
    import matplotlib.pyplot as plt
    import numpy as np

    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    for name, entry in table.entries.items():
        middle = np.median(entry.loss, axis=0)
        (line,) = axes.semilogy(middle, lw=2, label=name)
        axes.fill_between(
            range(len(middle)), *np.quantile(entry.loss, [0, 1], axis=0), alpha=0.2
        )
    axes.set(xlabel="step t", ylabel="loss of the batch", title="Tuned, on new seeds")
    axes.legend()
    figure.savefig(sys.argv[1], dpi=120)
