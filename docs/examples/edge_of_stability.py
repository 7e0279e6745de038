r"""The edge of stability.

Gradient descent on a quadratic diverges where an eigenvalue of the Hessian exceeds
2 / rate. On a network the largest eigenvalue, the sharpness, rises to that value and
stays there, while the loss continues to fall. `record=("sharpness",)`
measures it inside the compiled loop.
"""

import functools
import sys

import jax
import jax.numpy as jnp

import phihat
from phihat import losses, models

x = jnp.linspace(-1.0, 1.0, 16)[:, None]
y = jnp.sin(4.0 * x)
tanh_net = functools.partial(models.multilayer_perceptron, activation=jnp.tanh)
loss_fn = losses.least_squares(tanh_net, reduction="mean")
start = models.init_multilayer_perceptron(jax.random.key(3), (1, 32, 32, 1))

rates = (0.03, 0.04, 0.06)
runs = {}
for rate in rates:
    result = phihat.fit(
        loss_fn,
        start,
        phihat.gradient_descent(rate),
        (x, y),
        num_steps=2000,
        record=("sharpness", "learning_rate"),
        record_every=10,
    )
    runs[f"rate {rate}"] = result
    last = result.history["sharpness"][-50:].mean()
    print(f"rate {rate}: sharpness at the end {last:5.1f}, 2 / rate {2 / rate:5.1f}")

if len(sys.argv) > 1:
    axes = phihat.plot.sharpness(runs)
    axes.figure.savefig(f"{sys.argv[1]}/sharpness.png")
