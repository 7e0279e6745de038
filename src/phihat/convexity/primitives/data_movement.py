"""Records: what moves elements, and what adds them up where they arrive.

Facts and rounding errors move along as the elements do: see `program/structure.py`.
"""

from phihat.convexity.numbers import intervals as iv
from phihat.convexity.primitives import rounding
from phihat.convexity.primitives.facts import products as facts
from phihat.convexity.primitives.jets import whole_arrays as jets
from phihat.convexity.primitives.registry import Primitive
from phihat.convexity.primitives.values import data_movement as values
from phihat.convexity.program.structure import STRUCTURAL

__all__ = ["PAGE"]

PAGE = {
    **{
        name: Primitive(value=values.structural, jet=jets.moved, rounding=0)
        for name in STRUCTURAL
    },
    "iota": Primitive(value=values.iota),
    "scatter-add": Primitive(
        value=values.scatter(iv.add),
        jet=jets.scatter_add,
        rounding=rounding.of_sums(),
        facts_of_arrays=facts.scatter_add,
    ),
    "scatter-max": Primitive(
        value=values.scatter(iv.maximum), facts_of_arrays=facts.scatter_fold
    ),
    "scatter-min": Primitive(
        value=values.scatter(iv.minimum), facts_of_arrays=facts.scatter_fold
    ),
    "scatter-mul": Primitive(
        value=values.scatter(iv.mul), facts_of_arrays=facts.scatter_fold
    ),
    "scatter-sub": Primitive(value=values.scatter_sub),
}
