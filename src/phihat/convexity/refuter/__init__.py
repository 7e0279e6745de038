"""The refuter: chords that the loss rises above, and the alarm that looks for them."""

from phihat.convexity.refuter.derivative_lints import lints
from phihat.convexity.refuter.refutation import refute_convexity, search

__all__ = ["lints", "refute_convexity", "search"]
