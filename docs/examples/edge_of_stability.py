r"""The edge of stability: sharpness grows until it is two over the learning rate.

Gradient descent on a quadratic diverges where an eigenvalue of the Hessian exceeds
2 / rate. On a network the largest eigenvalue, the sharpness, rises to that value and
stays about there, while the loss goes on falling. `record=("loss", "sharpness")`
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

runs = {}
for rate in (0.05, 0.1, 0.2):
    result = phihat.fit(
        loss_fn,
        start,
        phihat.gradient_descent(rate),
        (x, y),
        num_steps=2000,
        record=("loss", "sharpness"),
        record_every=10,
    )
    runs[rate] = result.history
    last = result.history["sharpness"][-50:].mean()
    print(f"rate {rate}: sharpness at the end {last:5.1f}, 2 / rate {2 / rate:5.1f}")

if len(sys.argv) > 1:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    for rate, history in runs.items():
        (line,) = axes.plot(
            history["step"], history["sharpness"], label=rf"$\alpha = {rate}$"
        )
        axes.axhline(2 / rate, color=line.get_color(), ls="--", lw=1)
    axes.set(xlabel="step t", ylabel=r"sharpness $\lambda_{\max}$", ylim=(0, 60))
    axes.set_title(r"Sharpness, and $2/\alpha$ (dashed)")
    axes.legend()
    figure.savefig(sys.argv[1], dpi=120)
