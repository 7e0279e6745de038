"""Many starts at once.

The loss of the Gabor model has many minima, and a fit from one start finds only one.
`phihat.multistart` runs many fits in one program and groups them by where they end.
`phihat.find_critical_points` looks for saddles and maxima too, and checks their number
with the winding number of the gradient.
"""

import sys

from jax.tree_util import Partial

import phihat
from phihat import Box, datasets, losses, models

book = Partial(models.gabor, envelope_width=4.0)  # the book's model: u^2 / 32
loss_fn = losses.least_squares(book)
data = datasets.gabor()
window = Box([-10.0, 2.5], [10.0, 22.5])

found = phihat.multistart(
    loss_fn,
    window,
    phihat.adam(0.2),
    data,
    num_starts=128,
    num_steps=256,
    tolerance=1e-2,
    projection=window,
    merge_distance=0.01,
)
print(f"{found.ends.status.size} starts reached {len(found.loss)} ends")
for loss, share, place in zip(found.loss[:3], found.share, found.params, strict=False):
    print(f"loss {loss:.4f} at {place.round(2)}: {share:.0%} of the starts")

points = phihat.find_critical_points(loss_fn, window, data, num_starts=512)
print(points.summary)

if len(sys.argv) > 1:
    surface = phihat.plot.evaluate_surface(loss_fn, window, data)
    axes = phihat.plot.loss_surface(surface)
    phihat.plot.critical_points(points, axes=axes)
    axes.set_title("The critical points of the Gabor model")
    axes.figure.savefig(f"{sys.argv[1]}/points.png")
