"""What a rule of facts may ask for, and what it raises where it cannot tell."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from phihat.convexity.primitives.facts.facts import Facts

__all__ = ["Call", "Rule", "Undecided"]


class Undecided(Exception):
    """The value may not exist somewhere in the domain, or cannot be read."""


@dataclasses.dataclass
class Call:
    """What a rule may ask for besides the facts of its inputs.

    Attributes:
      params: what the primitive was bound with.
      constraints: conditions that the value implies, as pairs (relation, reason).
    """

    params: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    constraints: list[str] = dataclasses.field(default_factory=list)

    def require(self, x: Facts, relation: str, where: str) -> None:
        """Restrict the domain to where `x > 0` (or `>= 0`), which must be convex.

        The set where a concave function is positive is convex, so that the domain
        stays so. Nothing else is excused, nor a condition on the data, nor one that
        holds nowhere: the whole verdict is then undecided.
        """
        if x.high < 0.0 or (relation == "> 0" and x.high <= 0.0):
            raise Undecided(f"the argument of {where} is nowhere {relation}")
        if x.constant:
            raise Undecided(f"for some data the argument of {where} is not {relation}")
        if not x.concave:
            raise Undecided(
                f"the argument of {where} is not proved {relation}, nor proved "
                "concave, so the domain may not be convex"
            )
        self.constraints.append(f"the argument of {where} is {relation}")


Rule = Callable[..., Facts]
