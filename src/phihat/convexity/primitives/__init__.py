"""One record for each primitive: facts, values, second derivatives, rounding errors."""

from phihat.convexity.primitives.registry import Primitive, record
from phihat.convexity.primitives.table import PRIMITIVES

__all__ = ["PRIMITIVES", "Primitive", "record"]
