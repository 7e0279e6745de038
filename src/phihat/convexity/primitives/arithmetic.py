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

_IN_GENERAL = "of {what} is neither convex nor concave in general"
_ADD = Primitive(facts.add, values.ADD, jets.add, 1, lost=f"the sum {_IN_GENERAL}")
_MAX_LOST = (
    "the larger of {what} and another: a maximum, or a clip from below, keeps convex "
    "functions alone"
)
_MIN_LOST = (
    "the smaller of {what} and another: a minimum, or a clip from above, keeps concave "
    "functions alone"
)
_MUL_LOST = (
    "the product of {what}: factors that both vary make no convex function in general"
)
_CLAMP_LOST = "the clip of {what} is neither convex nor concave"
_ABS = function(iv.absolute, np.abs)
_MAX = function(iv.maximum, np.maximum)
_MIN = function(iv.minimum, np.minimum)
_NEG = function(iv.neg, np.negative)
_SQUARE = function(iv.square, np.square)
_WHOLE = rounding.whole_power

PAGE = {
    "abs": Primitive(facts.absolute, _ABS, jets.absolute, 0),
    "add": _ADD,
    "add_any": _ADD,
    "clamp": Primitive(facts.clamp, logic.clamp, jets.clamp, 0, lost=_CLAMP_LOST),
    "div": Primitive(powers.divide, values.divide, jets.divide, 4),
    "integer_pow": Primitive(
        powers.integer_power, values.integer_power, jets.integer_power, _WHOLE
    ),
    "max": Primitive(facts.maximum, _MAX, jets.maximum, 0, lost=_MAX_LOST),
    "min": Primitive(facts.minimum, _MIN, jets.minimum, 0, lost=_MIN_LOST),
    "mul": Primitive(facts.multiply, values.multiply, jets.multiply, 1, lost=_MUL_LOST),
    "neg": Primitive(facts.negative, _NEG, jets.negative, 0),
    "pow": Primitive(
        powers.general_power, values.power, jets.power, rounding.general_power
    ),
    "rem": Primitive(value=values.remainder),
    "square": Primitive(powers.square, _SQUARE, jets.smooth("square"), _WHOLE),
    "sub": Primitive(
        facts.subtract,
        values.subtract,
        jets.subtract,
        1,
        lost=f"the difference {_IN_GENERAL}",
    ),
}
