"""Records: roots, exponentials, logarithms, smooth functions, entropies; the atoms."""

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.special

from phihat.convexity.numbers import intervals as iv
from phihat.convexity.numbers.extended import MINUS_INFINITY, NOT_FINITE, PLUS_INFINITY
from phihat.convexity.primitives import rounding
from phihat.convexity.primitives.facts import functions as facts
from phihat.convexity.primitives.facts import powers
from phihat.convexity.primitives.facts.interpolation import interpolation
from phihat.convexity.primitives.jets import elementwise as jets
from phihat.convexity.primitives.registry import Primitive
from phihat.convexity.primitives.values import functions as values
from phihat.convexity.primitives.values.rule_builders import function

__all__ = ["PAGE"]


def _smooth(
    known: Callable[..., Any] | None,
    enclose: Callable[..., Any],
    ieee: Callable[..., Any] | None = None,
    ulps: float | None = None,
    marks: Callable[..., Any] | None = None,
    lost: str = "",
) -> Any:
    """Make the record of a smooth function, whose derivatives are in a table.

    Its arguments are the rule of facts, the function of intervals, that of floats, the
    bound of its rounding, where it is defined, and its name in the blame.
    """

    def record(name: str) -> Primitive:
        more: dict[str, Any] = {"lost": lost} if lost else {}
        rule = facts.smooth(name) if known is facts.smooth else known
        value = function(enclose, ieee, marks)
        return Primitive(rule, value, jets.smooth(name), ulps, **more)

    return record


_WITHIN_ONE = values.within(-1.0, 1.0)
_INSIDE_ONE = values.within(-1.0, 1.0, MINUS_INFINITY, PLUS_INFINITY)
_ABOVE_ZERO = values.within(0.0, np.inf, MINUS_INFINITY)
_BENDS = "{} of {{what}} bends both ways".format
_LOG_LOST = (
    "the log of {what} is neither convex nor concave; write the loss in terms "
    "of the logits (logaddexp, logsumexp, softplus), which is convex"
)
_SMOOTH = {
    "acos": _smooth(None, iv.acos, marks=_WITHIN_ONE),
    "acosh": _smooth(None, iv.acosh, np.arccosh, marks=values.within(1.0, np.inf)),
    "asin": _smooth(None, iv.asin, marks=_WITHIN_ONE),
    "asinh": _smooth(facts.smooth, iv.asinh, np.arcsinh, 64),
    "atan": _smooth(facts.smooth, iv.atan, None, 64),
    "atanh": _smooth(None, iv.atanh, np.arctanh, marks=_INSIDE_ONE),
    "cbrt": _smooth(powers.cube_root, iv.cbrt, np.cbrt, 64),
    "cos": _smooth(facts.smooth, iv.cos, None, 64, lost=_BENDS("cos")),
    "cosh": _smooth(facts.smooth, iv.cosh, np.cosh, 64),
    "digamma": _smooth(facts.smooth, iv.digamma, marks=values.poles),
    "entr": _smooth(
        facts.entropy, values.entr, lambda x: np.where(np.isnan(x), x, -np.inf)
    ),
    "erf": _smooth(facts.smooth, iv.erf, scipy.special.erf, 256),
    "erfc": _smooth(facts.smooth, iv.erfc, scipy.special.erfc, 4096),
    "exp": _smooth(powers.exponential, iv.exp, np.exp, 16),
    "exp2": _smooth(powers.exponential_of_two, iv.exp2, np.exp2, 16),
    "expm1": _smooth(powers.exponential_minus_one, iv.expm1, np.expm1, 256),
    "lgamma": _smooth(facts.smooth, iv.lgamma, marks=values.poles),
    "log": _smooth(powers.logarithm, iv.log, np.log, 64, _ABOVE_ZERO, _LOG_LOST),
    "log1p": _smooth(
        powers.logarithm_of_one_plus,
        iv.log1p,
        np.log1p,
        512,
        values.within(-1.0, np.inf, MINUS_INFINITY),
    ),
    "log_ndtr": _smooth(facts.smooth, iv.log_ndtr),
    "logistic": _smooth(
        facts.logistic, iv.logistic, scipy.special.expit, 64, lost=_BENDS("the sigmoid")
    ),
    # At a zero it is an infinity of the sign of the zero, which is not known.
    "rsqrt": _smooth(
        powers.reciprocal_square_root,
        iv.rsqrt,
        ulps=8,
        marks=values.within(0.0, np.inf, NOT_FINITE),
    ),
    "sin": _smooth(facts.smooth, iv.sin, None, 64, lost=_BENDS("sin")),
    "sinh": _smooth(facts.smooth, iv.sinh, np.sinh, 64),
    "sqrt": _smooth(
        powers.square_root, iv.sqrt, np.sqrt, 4, values.within(0.0, np.inf)
    ),
    "tan": _smooth(None, iv.tan, marks=values.where_defined(iv.tan_is_defined)),
    "tanh": _smooth(facts.smooth, iv.tanh, np.tanh, 64, lost=_BENDS("tanh")),
}
_INTERP = Primitive(
    value=values.interpolation,
    rounding=rounding.interpolation,
    facts_of_arrays=interpolation,
)

PAGE = {
    **{name: record(name) for name, record in _SMOOTH.items()},
    "atan2": Primitive(
        value=function(iv.atan2, None, values.where_defined(iv.atan2_is_defined))
    ),
    "erf_inv": Primitive(value=function(values.erf_inv, None, _INSIDE_ONE)),
    "interp": _INTERP,
    "interp_extrapolated": _INTERP,
    "kl_div": Primitive(facts.divergence, function(values.kl_div), jets.kl_div),
    "logaddexp": Primitive(
        powers.log_add_exp, function(iv.logaddexp, np.logaddexp), jets.logaddexp, 512
    ),
    "polygamma": Primitive(value=values.polygamma),
    "rel_entr": Primitive(
        facts.relative_entropy, function(values.rel_entr), jets.rel_entr
    ),
    "xlog1py": Primitive(
        facts.x_log_one_plus_y, function(values.xlog1py), jets.times_log("log1p")
    ),
    "xlogy": Primitive(
        facts.x_log_y, function(values.xlogy), jets.times_log("log"), 66
    ),
}
