"""The table of all primitives, from its pages."""

from phihat.convexity.primitives import (
    arithmetic,
    data_movement,
    functions,
    linear_algebra,
    logic,
    reductions,
)
from phihat.convexity.primitives.registry import PRIMITIVES, enter

__all__ = ["PRIMITIVES"]

for _page in (
    arithmetic,
    data_movement,
    functions,
    linear_algebra,
    logic,
    reductions,
):
    enter(_page.PAGE)
