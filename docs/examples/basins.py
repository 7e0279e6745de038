"""Which minimum does each start reach? The basins of the Gabor model.

Run it with a file name to save the picture: `python basins.py basins.png`.
"""

import sys

import numpy as np
from jax.tree_util import Partial

import phihat
from phihat import Box, datasets, losses, models

book = Partial(models.gabor, envelope_width=4.0)  # the book's model: u^2 / 32
loss_fn = losses.least_squares(book)
window = Box([-10.0, 2.5], [10.0, 22.5])

found = phihat.basins(
    loss_fn,
    window,
    phihat.adam(0.1),
    datasets.gabor(),
    shape=(48, 48),
    num_steps=512,
    tolerance=1e-2,
)
best = found.optima
print(f"{len(best.loss)} ends; the best three take {best.share[:3].sum():.0%} of all")
for loss, share, place in zip(best.loss[:3], best.share, best.params, strict=False):
    print(f"loss {loss:.4f} at {place.round(2)}: {share:.0%} of the starts")
print(f"{best.ends.useful_share:.0%} of the steps belong to a fit still running")

if len(sys.argv) > 1:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(10, 4.5), layout="constrained")
    labels = np.where(found.label < 8, found.label, 8)  # the rest in one colour
    extent = (*found.ticks[1][[0, -1]], *found.ticks[0][[0, -1]])
    options = {"origin": "lower", "extent": extent, "aspect": "auto"}
    axes[0].imshow(labels, cmap="tab10", **options)
    axes[0].set_title("which minimum")
    steps = axes[1].imshow(found.num_steps, cmap="viridis", **options)
    axes[1].set_title("how many steps")
    figure.colorbar(steps)
    for one in axes:
        one.set(xlabel="frequency", ylabel="offset")
        one.plot(best.params[:3, 1], best.params[:3, 0], "w*", markersize=12)
    figure.savefig(sys.argv[1], dpi=120)
