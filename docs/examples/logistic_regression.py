"""Logistic regression, proved convex.

The proof reads the program of the loss and holds for all params; no point is sampled.
Since the loss is convex, any point where the gradient vanishes is a global minimum. The
smallest eigenvalue of the Hessian there is positive, so no other point is as low.
"""

import sys

import jax
import jax.numpy as jnp

import phihat
from phihat import datasets, losses, models

train, test = datasets.split(datasets.breast_cancer(), jax.random.key(0))
x, y = datasets.standardize(train[0]), train[1]
loss_fn = losses.with_l2(losses.binary_cross_entropy(models.linear), 0.5)
start = {"weight": jnp.zeros(30), "bias": 0.0}

report = phihat.check_convexity(loss_fn, start, (x, y))
print(report.verdict.name)

result = phihat.fit(
    loss_fn, start, phihat.newton(), (x, y), num_steps=50, tolerance=1e-3
)
print(result.status, f"after {result.num_steps} Newton steps")
lowest = phihat.eigenvalues(loss_fn, result.params, (x, y))[0]
print(f"the smallest eigenvalue of the Hessian there is {lowest:.2f}")

for name, (features, label) in {"train": train, "held out": test}.items():
    scaled = datasets.standardize(features, reference=train[0])
    right = (models.linear(result.params, scaled) > 0) == label
    print(f"{name}: right on {right.mean():.1%} of {len(label)}")

if len(sys.argv) > 1:
    optimizers = {
        "gradient descent": phihat.gradient_descent(0.001),
        "Nesterov": phihat.nesterov(0.001),
        "Adam": phihat.adam(0.1),
    }
    excess = {}
    for name, optimizer in optimizers.items():
        path = phihat.fit(loss_fn, start, optimizer, (x, y), num_steps=200)
        excess[name] = path.history["loss"] - result.loss
    axes = phihat.plot.loss_curves(excess, yscale="log")
    axes.set(ylabel="loss above the minimum", title="Three optimizers, one minimum")
    axes.figure.savefig(f"{sys.argv[1]}/excess.png")
