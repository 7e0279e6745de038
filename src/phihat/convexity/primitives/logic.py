"""Records: comparisons, logic, casts, roundings and choices."""

import numpy as np

from phihat.convexity.numbers import intervals as iv
from phihat.convexity.primitives import exact
from phihat.convexity.primitives.facts import comparisons as facts
from phihat.convexity.primitives.facts import reductions
from phihat.convexity.primitives.jets import choices as jets
from phihat.convexity.primitives.registry import Primitive
from phihat.convexity.primitives.values import data_movement
from phihat.convexity.primitives.values import logic as values
from phihat.convexity.primitives.values.rule_builders import function

__all__ = ["PAGE"]

_COMPARISONS = {
    "eq": (facts.equal, iv.eq, np.equal, True),
    "ge": (facts.greater_or_equal, iv.ge, np.greater_equal, True),
    "gt": (facts.greater, iv.gt, np.greater, False),
    "le": (facts.less_or_equal, iv.le, np.less_equal, True),
    "lt": (facts.less, iv.lt, np.less, False),
    "ne": (facts.not_equal, iv.ne, np.not_equal, False),
}
"""What is known of each, its two enclosures, and whether a number holds to itself."""

PAGE = {
    **{
        name: Primitive(
            known,
            values.comparison(enclose, in_floats, reflexive),
            jets.settled,
            0,
            exact.compared,
        )
        for name, (known, enclose, in_floats, reflexive) in _COMPARISONS.items()
    },
    "and": Primitive(
        facts.logical_and,
        values.logic("and"),
        jets.settled,
        0,
        exact.multiply,
    ),
    "ceil": Primitive(
        facts.step_function(iv.ceil),
        function(iv.ceil, np.ceil),
        jets.settled,
        0,
    ),
    "convert_element_type": Primitive(
        facts.cast, values.cast, jets.settled, 1, exact.cast
    ),
    "floor": Primitive(
        facts.step_function(iv.floor),
        function(iv.floor, np.floor),
        jets.settled,
        0,
    ),
    "is_finite": Primitive(facts.is_finite, values.is_finite, jets.is_finite, 0),
    "le_to": Primitive(value=values.total_order(iv.le, np.less_equal)),
    "lt_to": Primitive(value=values.total_order(iv.lt, np.less)),
    "not": Primitive(
        facts.logical_not,
        values.invert,
        jets.settled,
        0,
        exact.invert,
    ),
    "or": Primitive(
        facts.logical_or,
        values.logic("or"),
        jets.settled,
        0,
        exact.maximum,
    ),
    "round": Primitive(
        facts.rounded,
        values.rounded,
        jets.settled,
        0,
    ),
    "select_n": Primitive(
        None,
        data_movement.select_n,
        jets.select_n,
        0,
        exact.select_n,
        facts_of_arrays=reductions.select_n,
        lost="a choice that depends on the params may jump or bend the wrong way",
    ),
    "shift_left": Primitive(value=values.shift),
    "shift_right_arithmetic": Primitive(value=values.shift),
    "shift_right_logical": Primitive(value=values.shift),
    "sign": Primitive(
        facts.step_function(iv.sign),
        function(iv.sign, np.sign),
        jets.settled,
        0,
        exact.sign,
    ),
    "xor": Primitive(
        facts.exclusive_or,
        values.logic("xor"),
        jets.settled,
        0,
    ),
}
