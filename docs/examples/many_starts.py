"""Many starts at once: the minima of the Gabor model, and all its critical points.

A fit from one start finds one minimum. `phihat.multistart` runs many fits in one
program and merges their ends; `phihat.find_critical_points` looks for saddles and
maxima too, and checks by the winding number of the gradient that none is missing.
"""

import sys

import numpy as np
from jax.tree_util import Partial

import phihat
from phihat import Box, datasets, losses, models

book = Partial(models.gabor, envelope_width=4.0)  # the book's model: u^2 / 32
loss_fn = losses.least_squares(book)
data = datasets.gabor()
window = Box([-10.0, 2.5], [10.0, 22.5])

found = phihat.multistart(
    loss_fn, window, phihat.levenberg_marquardt(), data, num_starts=128, num_steps=64
)
print(f"{found.ends.status.size} starts reached {len(found.loss)} ends")
for loss, share, place in zip(found.loss[:3], found.share, found.params, strict=False):
    print(f"loss {loss:.4f} at {place.round(2)}: {share:.0%} of the starts")

points = phihat.find_critical_points(loss_fn, window, data)
print(points.summary)

if len(sys.argv) > 1:
    import jax
    import matplotlib.pyplot as plt

    offset, frequency = np.linspace(-10, 10, 121), np.linspace(2.5, 22.5, 121)
    grid = np.stack(np.meshgrid(offset, frequency, indexing="ij"), axis=-1)
    surface = jax.vmap(jax.vmap(lambda point: loss_fn(point, data)))(grid)
    figure, axes = plt.subplots(figsize=(6.5, 5.5), layout="constrained")
    axes.contourf(frequency, offset, surface, 24, cmap="cividis")
    marks = {"MINIMUM": "o", "SADDLE": "X", "MAXIMUM": "^"}
    for kind, mark in marks.items():
        at = points.params[points.kind == phihat.CriticalPointKind[kind]]
        axes.plot(at[:, 1], at[:, 0], mark, mec="black", label=kind.lower())
    axes.set(xlabel=r"frequency $\phi_1$", ylabel=r"offset $\phi_0$")
    axes.set_title("Critical points of the Gabor model")
    axes.legend()
    figure.savefig(sys.argv[1], dpi=120)
