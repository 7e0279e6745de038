"""The refuter: chords that the loss rises above, and the alarm that looks for them."""

from phihat.convexity.refuter.derivative_lints import lints
from phihat.convexity.refuter.refutation import refute, refute_convexity

__all__ = ["lints", "refute", "refute_convexity"]
