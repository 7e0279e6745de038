"""The rules by which values are enclosed, one for each primitive.

`RULES` maps the name of a primitive, or of an atom, to its rule. To add one, write a
function of an equation and the ranges of its inputs in the module of its kind, mark
what is not defined, and enter it in that module's table.
"""

from phihat.convexity.primitives.values import (
    arithmetic,
    functions,
    logic,
    matrices,
    moving,
    ordering,
    sums,
)
from phihat.convexity.primitives.values.makers import Rule

__all__ = ["RULES", "Rule"]

RULES: dict[str, Rule] = {
    **arithmetic.RULES,
    **functions.RULES,
    **logic.RULES,
    **matrices.RULES,
    **moving.RULES,
    **ordering.RULES,
    **sums.RULES,
}
"""All rules but that of `scan`, which runs a program of its own."""
