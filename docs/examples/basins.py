"""Which minimum does each start reach?

A fit of the Gabor model starts at each point of a grid. All fits run in one program,
which drops those that have ended.
"""

import sys

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
    shape=(32, 32),
    num_steps=256,
    tolerance=1e-2,
)
best = found.optima
print(f"{len(best.loss)} ends; the best three take {best.share[:3].sum():.0%} of all")
for loss, share, place in zip(best.loss[:3], best.share, best.params, strict=False):
    print(f"loss {loss:.4f} at {place.round(2)}: {share:.0%} of the starts")
print(f"{best.ends.useful_share:.0%} of the steps belong to a fit still running")

if len(sys.argv) > 1:
    axes = phihat.plot.basins(found)
    axes.figure.savefig(f"{sys.argv[1]}/basins.png")
