"""Where the determinant misleads about convexity.

A slide says that a loss is convex where the determinant of its Hessian is positive.
With two parameters the determinant is the product of two eigenvalues, so it is positive
also where both are negative: at the top of a hill.
"""

import sys
import textwrap

from jax.tree_util import Partial

import phihat
from phihat import Box, curvature, datasets, losses, models

book = Partial(models.gabor, envelope_width=4.0)  # the book's model: u^2 / 32
loss_fn = losses.least_squares(book)
window = Box([-10.0, 2.5], [10.0, 22.5])

found = curvature.convexity_map(loss_fn, window, datasets.gabor(), shape=(101, 101))
for name, share in found.shares.items():
    print(f"{name}: {float(share):.1%}")
print(textwrap.fill(found.text, 80))

if len(sys.argv) > 1:
    axes, _ = phihat.plot.convexity_map(found)
    axes.figure.savefig(f"{sys.argv[1]}/determinant.png")
