"""Convexity: proved, certified on a box, or refuted with a witness.

A test of points can refute convexity and never prove it. Here three parts read the flat
program of a loss: a prover that knows which operations keep convexity (`prover`), a
certifier that encloses the Hessian on a whole box (`box`), and a refuter that looks
for two points whose chord the loss rises above (`refuter`).

Its rooms, each of which imports only from those before it: `numbers` (intervals and
jets), `program` (the trace and the question), `report`, `primitives` (one record for
each, with all its rules), `prover`, `refuter`, `box`, `kernel` (the independent
checker), `api`.

Example:
  >>> import jax.numpy as jnp
  >>> from phihat.convexity import check_convexity
  >>> check_convexity(lambda w: jnp.sum(jnp.sqrt(1.0 + w**2)), jnp.zeros(2))
  ConvexityReport(PROVED_CONVEX, scope='on all of R^2')
"""

from phihat.convexity.api import check_convexity, convex_blocks, prove_convexity, replay
from phihat.convexity.box.certificates import certify_convexity
from phihat.convexity.box.curvatures import (
    certified_radius,
    curvature_floor,
    minimal_ridge,
)
from phihat.convexity.refuter.refutation import refute_convexity
from phihat.convexity.report import Blame, Cell, ConvexityReport, Verdict, Witness

__all__ = [
    "Blame",
    "Cell",
    "ConvexityReport",
    "Verdict",
    "Witness",
    "certified_radius",
    "certify_convexity",
    "check_convexity",
    "convex_blocks",
    "curvature_floor",
    "minimal_ridge",
    "prove_convexity",
    "refute_convexity",
    "replay",
]
