"""Records: sums, products, quotients, whole powers, the larger and the smaller."""

import numpy as np

from phihat.convexity.numbers import intervals as iv
from phihat.convexity.primitives import rounding
from phihat.convexity.primitives.facts import arithmetic as facts
from phihat.convexity.primitives.facts import powers
from phihat.convexity.primitives.jets import elementwise as jets
from phihat.convexity.primitives.registry import Primitive
from phihat.convexity.primitives.values import arithmetic as values
from phihat.convexity.primitives.values import logic
from phihat.convexity.primitives.values.rule_builders import function

__all__ = ["PAGE"]

_ADD = Primitive(
    facts.add,
    values.ADD,
    jets.add,
    1,
    lost="the sum of {what} is neither convex nor concave in general",
)

PAGE = {
    "abs": Primitive(
        facts.absolute,
        function(iv.absolute, np.abs),
        jets.absolute,
        0,
    ),
    "add": _ADD,
    "add_any": _ADD,
    "clamp": Primitive(
        facts.clamp,
        logic.clamp,
        jets.clamp,
        0,
        lost="the clip of {what} is neither convex nor concave",
    ),
    "div": Primitive(powers.divide, values.divide, jets.divide, 4),
    "integer_pow": Primitive(
        powers.integer_power,
        values.integer_power,
        jets.integer_power,
        rounding.whole_power,
    ),
    "max": Primitive(
        facts.maximum,
        function(iv.maximum, np.maximum),
        jets.maximum,
        0,
        lost="the larger of {what} and another: a maximum, or a clip from below, keeps "
        "convex functions alone",
    ),
    "min": Primitive(
        facts.minimum,
        function(iv.minimum, np.minimum),
        jets.minimum,
        0,
        lost="the smaller of {what} and another: a minimum, or a clip from above, "
        "keeps concave functions alone",
    ),
    "mul": Primitive(
        facts.multiply,
        values.multiply,
        jets.multiply,
        1,
        lost="the product of {what}: factors that both vary make no convex function in "
        "general",
    ),
    "neg": Primitive(
        facts.negative,
        function(iv.neg, np.negative),
        jets.negative,
        0,
    ),
    "pow": Primitive(
        powers.general_power,
        values.power,
        jets.power,
        rounding.general_power,
    ),
    "rem": Primitive(value=values.remainder),
    "square": Primitive(
        powers.square,
        function(iv.square, np.square),
        jets.smooth("square"),
        rounding.whole_power,
    ),
    "sub": Primitive(
        facts.subtract,
        values.subtract,
        jets.subtract,
        1,
        lost="the difference of {what} is neither convex nor concave in general",
    ),
}
