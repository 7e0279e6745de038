"""Records: comparisons, logic, casts, roundings and choices."""

from collections.abc import Callable
from typing import Any

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

_COMPARISONS = {
    "eq": (iv.eq, np.equal, True),
    "ge": (iv.ge, np.greater_equal, True),
    "gt": (iv.gt, np.greater, False),
    "le": (iv.le, np.less_equal, True),
    "lt": (iv.lt, np.less, False),
    "ne": (iv.ne, np.not_equal, False),
}
"""Their two enclosures, and whether a number holds to itself."""


def _steps(name: str, value: Callable[..., Any]) -> dict[str, Primitive]:
    """Return the record of what jumps: all else follows from the rule of values."""
    rounding = 1 if name == "convert_element_type" else 0
    return {name: Primitive(settled(name), value, jets.settled, rounding)}


PAGE = {
    **{
        key: record
        for name, (enclose, in_floats, reflexive) in _COMPARISONS.items()
        for key, record in _steps(
            name, values.comparison(enclose, in_floats, reflexive)
        ).items()
    },
    **_steps("and", values.logic("and")),
    **_steps("ceil", function(iv.ceil, np.ceil)),
    **_steps("convert_element_type", values.cast),
    **_steps("floor", function(iv.floor, np.floor)),
    "is_finite": Primitive(settled("is_finite"), values.is_finite, jets.is_finite, 0),
    "le_to": Primitive(value=values.total_order(iv.le, np.less_equal)),
    "lt_to": Primitive(value=values.total_order(iv.lt, np.less)),
    **_steps("not", values.invert),
    **_steps("or", values.logic("or")),
    **_steps("round", values.rounded),
    "select_n": Primitive(
        None,
        data_movement.select_n,
        jets.select_n,
        0,
        facts_of_arrays=reductions.select_n,
        lost="a choice that depends on the params may jump or bend the wrong way",
    ),
    "shift_left": Primitive(value=values.shift),
    "shift_right_arithmetic": Primitive(value=values.shift),
    "shift_right_logical": Primitive(value=values.shift),
    **_steps("sign", function(iv.sign, np.sign)),
    **_steps("xor", values.logic("xor")),
}
