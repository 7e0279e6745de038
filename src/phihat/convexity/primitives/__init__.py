"""One record for each primitive: facts, values, second derivatives, rounding."""

import dataclasses

from phihat.convexity.primitives import (
    arithmetic,
    data_movement,
    exact,
    functions,
    linear_algebra,
    logic,
    reductions,
)
from phihat.convexity.primitives.registry import PRIMITIVES, Primitive, record

__all__ = ["PRIMITIVES", "Primitive", "record"]

for _page in (arithmetic, data_movement, functions, linear_algebra, logic, reductions):
    assert PRIMITIVES.keys().isdisjoint(_page.PAGE)
    PRIMITIVES.update(_page.PAGE)
for _name, _rule in exact.RULES.items():
    PRIMITIVES[_name] = dataclasses.replace(PRIMITIVES[_name], exact=_rule)
