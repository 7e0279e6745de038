"""Records: sums, extremes, running totals, sorts, and loops kept whole."""

import numpy as np

from phihat.convexity.numbers import intervals as iv
from phihat.convexity.numbers import jet_arithmetic as arithmetic
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

_MAX = values.extremum(np.max, MINUS_INFINITY)
_MIN = values.extremum(np.min, PLUS_INFINITY)
_ANY, _ALL = (facts.by_axes(facts.logical(*k)) for k in (("or", ZERO), ("and", ONE)))
_WINDOWS = facts.extreme_of_windows


def _array(facts_of_arrays, value, jet=None, bound=None, **more) -> Primitive:
    """Make a record whose facts are those of whole arrays."""
    return Primitive(None, value, jet, bound, None, facts_of_arrays, **more)


def _running(combine, jet=None, bound=None) -> Primitive:
    jet = None if jet is None else jets.accumulated(jet)
    return _array(facts.cumulative, values.cumulative(combine), jet, bound)


PAGE = {
    "argmax": _array(facts.position, ordering.position(True)),
    "argmin": _array(facts.position, ordering.position(False)),
    "cumlogsumexp": _running(iv.logaddexp, bound=rounding.of_sums(16)),
    "cummax": _running(iv.maximum, arithmetic.maximum, 0),
    "cummin": _running(iv.minimum, arithmetic.minimum, 0),
    "cumprod": _running(iv.mul, arithmetic.product),
    "cumsum": _running(iv.add, arithmetic.total, rounding.of_sums()),
    "reduce_and": _array(_ALL, values.logic(_MIN, np.bitwise_and)),
    "reduce_max": _array(
        facts.reduce_extreme, _MAX, jets.folded(arithmetic.maximum), 0
    ),
    "reduce_min": _array(
        facts.reduce_extreme, _MIN, jets.folded(arithmetic.minimum), 0
    ),
    "reduce_or": _array(_ANY, values.logic(_MAX, np.bitwise_or)),
    "reduce_prod": _array(
        facts.by_axes(facts.product),
        values.product,
        jets.folded(arithmetic.product),
        rounding.of_sums(2),
    ),
    "reduce_sum": _array(
        facts.reduce_sum,
        values.reduction(iv.reduce_sum),
        jets.reduce_sum,
        rounding.of_sums(),
        lost="the sum of terms of different curvature",
    ),
    "reduce_window_max": _array(_WINDOWS, values.window(np.max, -np.inf)),
    "reduce_window_min": _array(_WINDOWS, values.window(np.min, np.inf)),
    "reduce_window_sum": Primitive(value=values.window(iv.reduce_sum, 0.0)),
    "scan": Primitive(facts_of_arrays=loops.scan),
    "sort": _array(facts.sort, ordering.sort, bound=0),
    "top_k": _array(facts.sort, ordering.top_k),
}
