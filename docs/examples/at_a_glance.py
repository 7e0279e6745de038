"""All at a glance: a curve, three optimizers, a thousand fits.

Left, a curve is fitted to counts with errors. In the middle, three optimizers descend
the loss of the Gabor model from one start. On the right, 1,024 fits in one program show
which minimum each start reaches.
"""

import sys

import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

import phihat
from phihat import Box, datasets, losses, models, plot

# A decay over a floor, with the error of each count.
generator = np.random.default_rng(0)
time = np.linspace(0.0, 10.0, 25)
clean = 100.0 * np.exp(-time / 2.5) + 8.0
sigma = np.sqrt(clean)
counts = clean + sigma * generator.standard_normal(25)


def decay(params, time):
    return params["height"] * jnp.exp(-time / params["lifetime"]) + params["floor"]


loss_fn = losses.least_squares(decay, weights=1 / sigma**2)
start = {"height": 50.0, "lifetime": 1.0, "floor": 0.0}
curve = phihat.fit(
    loss_fn, start, phihat.levenberg_marquardt(), (time, counts), num_steps=50
)
errors = phihat.confidence_intervals(
    loss_fn, curve, (time, counts), absolute_sigma=True
)
print(errors)

# Three optimizers on the Gabor model of the book: u^2 / 32.
gabor = losses.least_squares(Partial(models.gabor, envelope_width=4.0))
window = Box([-6.0, 4.0], [6.0, 20.0])
optimizers = {
    "gradient descent": phihat.gradient_descent(0.05),
    "momentum": phihat.momentum(0.1, 0.9),
    "Adam": phihat.adam(0.3),
}
paths = {
    name: phihat.fit(
        gabor,
        jnp.array([1.5, 6.0]),
        optimizer,
        datasets.gabor(),
        num_steps=150,
        record=("loss", "params"),
    )
    for name, optimizer in optimizers.items()
}
for name, path in paths.items():
    print(f"{name}: loss {path.history['loss'][0]:.2f} -> {path.loss:.3f}")

basins = phihat.basins(
    gabor,
    window,
    phihat.adam(0.1),
    datasets.gabor(),
    shape=(32, 32),
    num_steps=256,
    tolerance=1e-2,
)
print(f"1,024 fits: {basins.optima.share[0]:.0%} reach the best minimum")

if len(sys.argv) > 1:
    left, middle, right = plot.make_axes(1, 3, size=(15.0, 5.2)).ravel()
    plot.fitted_model(decay, curve, (time, counts), axes=left)
    left.errorbar(time, counts, sigma, fmt="none", ecolor="0.4", zorder=1)
    left.set(xlabel="time", ylabel="counts", title="A curve through counts with errors")
    surface = plot.evaluate_surface(gabor, window, datasets.gabor())
    plot.loss_surface(surface, paths, axes=middle)
    middle.title.set_text("Three optimizers, every step on record")
    plot.basins(basins, num_shown=4, axes=right)
    right.title.set_text("The minimum that each start reaches")
    left.figure.savefig(f"{sys.argv[1]}/picture.png")
    plot.animate_descent(surface, paths, f"{sys.argv[1]}/descent.gif", num_frames=26)
