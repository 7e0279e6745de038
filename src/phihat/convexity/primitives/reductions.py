"""Records: sums, extremes, running totals, sorts, and loops kept whole."""

import numpy as np

from phihat.convexity.numbers import intervals as iv
from phihat.convexity.numbers import jet_arithmetic
from phihat.convexity.numbers.extended import MINUS_INFINITY, PLUS_INFINITY
from phihat.convexity.primitives import rounding
from phihat.convexity.primitives.facts import loops
from phihat.convexity.primitives.facts import reductions as facts
from phihat.convexity.primitives.facts.facts import ONE, ZERO
from phihat.convexity.primitives.jets import whole_arrays as jets
from phihat.convexity.primitives.registry import Primitive
from phihat.convexity.primitives.values import ordering
from phihat.convexity.primitives.values import sums as values

__all__ = ["PAGE"]

_REDUCE_MAX = values.extremum(np.max, MINUS_INFINITY)
_REDUCE_MIN = values.extremum(np.min, PLUS_INFINITY)

PAGE = {
    "argmax": Primitive(value=ordering.position(True), facts_of_arrays=facts.position),
    "argmin": Primitive(value=ordering.position(False), facts_of_arrays=facts.position),
    "cumlogsumexp": Primitive(
        None,
        values.cumulative(iv.logaddexp),
        rounding=rounding.of_sums(16),
        facts_of_arrays=facts.cumulative,
    ),
    "cummax": Primitive(
        None,
        values.cumulative(iv.maximum),
        jets.accumulated(jet_arithmetic.maximum),
        0,
        facts_of_arrays=facts.cumulative,
    ),
    "cummin": Primitive(
        None,
        values.cumulative(iv.minimum),
        jets.accumulated(jet_arithmetic.minimum),
        0,
        facts_of_arrays=facts.cumulative,
    ),
    "cumprod": Primitive(
        None,
        values.cumulative(iv.mul),
        jets.accumulated(jet_arithmetic.product),
        facts_of_arrays=facts.cumulative,
    ),
    "cumsum": Primitive(
        None,
        values.cumulative(iv.add),
        jets.accumulated(jet_arithmetic.total),
        rounding.of_sums(),
        facts_of_arrays=facts.cumulative,
    ),
    "reduce_and": Primitive(
        value=values.logic(_REDUCE_MIN, np.bitwise_and),
        facts_of_arrays=facts.by_axes(facts.logical("and", ONE)),
    ),
    "reduce_max": Primitive(
        None,
        _REDUCE_MAX,
        jets.folded(jet_arithmetic.maximum),
        0,
        facts_of_arrays=facts.reduce_extreme,
    ),
    "reduce_min": Primitive(
        None,
        _REDUCE_MIN,
        jets.folded(jet_arithmetic.minimum),
        0,
        facts_of_arrays=facts.reduce_extreme,
    ),
    "reduce_or": Primitive(
        value=values.logic(_REDUCE_MAX, np.bitwise_or),
        facts_of_arrays=facts.by_axes(facts.logical("or", ZERO)),
    ),
    "reduce_prod": Primitive(
        None,
        values.product,
        jets.folded(jet_arithmetic.product),
        rounding.of_sums(2),
        facts_of_arrays=facts.by_axes(facts.product),
    ),
    "reduce_sum": Primitive(
        None,
        values.reduction(iv.reduce_sum),
        jets.reduce_sum,
        rounding.of_sums(),
        facts_of_arrays=facts.reduce_sum,
        lost="the sum of terms of different curvature",
    ),
    "reduce_window_max": Primitive(
        value=values.window(np.max, -np.inf),
        facts_of_arrays=facts.extreme_of_windows,
    ),
    "reduce_window_min": Primitive(
        value=values.window(np.min, np.inf),
        facts_of_arrays=facts.extreme_of_windows,
    ),
    "reduce_window_sum": Primitive(value=values.window(iv.reduce_sum, 0.0)),
    "scan": Primitive(facts_of_arrays=loops.scan),
    "sort": Primitive(value=ordering.sort, rounding=0, facts_of_arrays=facts.sort),
    "top_k": Primitive(value=ordering.top_k, facts_of_arrays=facts.sort),
}
