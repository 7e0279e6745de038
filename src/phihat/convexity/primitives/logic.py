"""Records: comparisons, logic, casts, roundings and choices."""

import numpy as np

from phihat.convexity.numbers import intervals as iv
from phihat.convexity.primitives.facts import reductions
from phihat.convexity.primitives.facts.steps import settled
from phihat.convexity.primitives.jets import choices as jets
from phihat.convexity.primitives.registry import Primitive
from phihat.convexity.primitives.values import data_movement
from phihat.convexity.primitives.values import logic as values
from phihat.convexity.primitives.values.rule_builders import function

__all__ = ["PAGE"]

_STEPS = {
    "eq": values.comparison(iv.eq, np.equal, True),
    "ge": values.comparison(iv.ge, np.greater_equal, True),
    "gt": values.comparison(iv.gt, np.greater, False),
    "le": values.comparison(iv.le, np.less_equal, True),
    "lt": values.comparison(iv.lt, np.less, False),
    "ne": values.comparison(iv.ne, np.not_equal, False),
    "and": values.logic("and"),
    "ceil": function(iv.ceil, np.ceil),
    "convert_element_type": values.cast,
    "floor": function(iv.floor, np.floor),
    "not": values.invert,
    "or": values.logic("or"),
    "round": values.rounded,
    "sign": function(iv.sign, np.sign),
    "xor": values.logic("xor"),
}
"""What jumps, with its rule of values; all else follows from that."""

_SHIFT = Primitive(value=values.shift)


def _jumping(name: str) -> Primitive:
    rounding = 1 if name == "convert_element_type" else 0
    return Primitive(settled(name), _STEPS[name], jets.settled, rounding)


PAGE = {
    **{name: _jumping(name) for name in _STEPS},
    "is_finite": Primitive(settled("is_finite"), values.is_finite, jets.is_finite, 0),
    "le_to": Primitive(value=values.total_order(iv.le, np.less_equal)),
    "lt_to": Primitive(value=values.total_order(iv.lt, np.less)),
    "select_n": Primitive(
        None,
        data_movement.select_n,
        jets.select_n,
        0,
        facts_of_arrays=reductions.select_n,
        lost="a choice that depends on the params may jump or bend the wrong way",
    ),
    "shift_left": _SHIFT,
    "shift_right_arithmetic": _SHIFT,
    "shift_right_logical": _SHIFT,
}
