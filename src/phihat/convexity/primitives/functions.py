"""Records: roots, exponentials, logarithms, smooth functions, entropies; the atoms."""

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.special

from phihat.convexity.numbers import intervals as iv
from phihat.convexity.numbers.extended import (
    MINUS_INFINITY,
    NOT_FINITE,
    PLUS_INFINITY,
)
from phihat.convexity.primitives.facts import functions as facts
from phihat.convexity.primitives.facts import powers
from phihat.convexity.primitives.facts.interpolation import interpolation
from phihat.convexity.primitives.jets import elementwise as jets
from phihat.convexity.primitives.registry import Primitive
from phihat.convexity.primitives.rounding import (
    interpolation as interpolation_rounding,
)
from phihat.convexity.primitives.values import functions as values
from phihat.convexity.primitives.values.rule_builders import function

__all__ = ["PAGE"]

_BENDS = "{} of {{what}} bends both ways"


def _smooth(
    name: str,
    known: Callable[..., Any] | None,
    value: Callable[..., Any],
    rounding: float | None = None,
    **more: Any,
) -> dict[str, Primitive]:
    """Return the record of a smooth function, whose derivatives are in a table."""
    known = facts.smooth(name) if known is facts.smooth else known
    return {name: Primitive(known, value, jets.smooth(name), rounding, **more)}


_ABOVE_ZERO = values.within(0.0, np.inf, MINUS_INFINITY)
_INSIDE_ONE = values.within(-1.0, 1.0, MINUS_INFINITY, PLUS_INFINITY)
_WITHIN_ONE = values.within(-1.0, 1.0)

PAGE = {
    **dict.fromkeys(
        ("interp", "interp_extrapolated"),
        Primitive(
            value=values.interpolation,
            rounding=interpolation_rounding,
            facts_of_arrays=interpolation,
        ),
    ),
    **_smooth("acos", None, function(iv.acos, None, _WITHIN_ONE)),
    **_smooth(
        "acosh", None, function(iv.acosh, np.arccosh, values.within(1.0, np.inf))
    ),
    **_smooth("asin", None, function(iv.asin, None, _WITHIN_ONE)),
    **_smooth(
        "asinh",
        facts.smooth,
        function(iv.asinh, np.arcsinh),
        64,
    ),
    **_smooth("atan", facts.smooth, function(iv.atan), 64),
    "atan2": Primitive(
        value=function(iv.atan2, None, values.where_defined(iv.atan2_is_defined))
    ),
    **_smooth("atanh", None, function(iv.atanh, np.arctanh, _INSIDE_ONE)),
    **_smooth("cbrt", powers.cube_root, function(iv.cbrt, np.cbrt), 64),
    **_smooth(
        "cos",
        facts.smooth,
        function(iv.cos),
        64,
        lost=_BENDS.format("cos"),
    ),
    **_smooth(
        "cosh",
        facts.smooth,
        function(iv.cosh, np.cosh),
        64,
    ),
    **_smooth("digamma", facts.smooth, function(iv.digamma, None, values.poles)),
    **_smooth(
        "entr",
        facts.entropy,
        function(values.entr, lambda x: np.where(np.isnan(x), x, -np.inf)),
    ),
    **_smooth(
        "erf",
        facts.smooth,
        function(iv.erf, scipy.special.erf),
        256,
    ),
    "erf_inv": Primitive(value=function(values.erf_inv, None, _INSIDE_ONE)),
    **_smooth(
        "erfc",
        facts.smooth,
        function(iv.erfc, scipy.special.erfc),
        4096,
    ),
    **_smooth("exp", powers.exponential, function(iv.exp, np.exp), 16),
    **_smooth(
        "exp2",
        powers.exponential_of_two,
        function(iv.exp2, np.exp2),
        16,
    ),
    **_smooth(
        "expm1",
        powers.exponential_minus_one,
        function(iv.expm1, np.expm1),
        256,
    ),
    "kl_div": Primitive(facts.divergence, function(values.kl_div), jets.kl_div),
    **_smooth("lgamma", facts.smooth, function(iv.lgamma, None, values.poles)),
    **_smooth(
        "log",
        powers.logarithm,
        function(iv.log, np.log, _ABOVE_ZERO),
        64,
        lost="the log of {what} is neither convex nor concave; write the loss in terms "
        "of the logits (logaddexp, logsumexp, softplus), which is convex",
    ),
    **_smooth(
        "log1p",
        powers.logarithm_of_one_plus,
        function(iv.log1p, np.log1p, values.within(-1.0, np.inf, MINUS_INFINITY)),
        512,
    ),
    **_smooth("log_ndtr", facts.smooth, function(iv.log_ndtr)),
    "logaddexp": Primitive(
        powers.log_add_exp,
        function(iv.logaddexp, np.logaddexp),
        jets.logaddexp,
        512,
    ),
    **_smooth(
        "logistic",
        facts.logistic,
        function(iv.logistic, scipy.special.expit),
        64,
        lost=_BENDS.format("the sigmoid"),
    ),
    "polygamma": Primitive(value=values.polygamma),
    "rel_entr": Primitive(
        facts.relative_entropy, function(values.rel_entr), jets.rel_entr
    ),
    **_smooth(
        "rsqrt",
        powers.reciprocal_square_root,
        # At a zero it is an infinity of the sign of the zero, which is not known.
        function(iv.rsqrt, None, values.within(0.0, np.inf, NOT_FINITE)),
        8,
    ),
    **_smooth(
        "sin",
        facts.smooth,
        function(iv.sin),
        64,
        lost=_BENDS.format("sin"),
    ),
    **_smooth(
        "sinh",
        facts.smooth,
        function(iv.sinh, np.sinh),
        64,
    ),
    **_smooth(
        "sqrt",
        powers.square_root,
        function(iv.sqrt, np.sqrt, values.within(0.0, np.inf)),
        4,
    ),
    **_smooth(
        "tan", None, function(iv.tan, None, values.where_defined(iv.tan_is_defined))
    ),
    **_smooth(
        "tanh",
        facts.smooth,
        function(iv.tanh, np.tanh),
        64,
        lost=_BENDS.format("tanh"),
    ),
    "xlog1py": Primitive(
        facts.x_log_one_plus_y, function(values.xlog1py), jets.times_log("log1p")
    ),
    "xlogy": Primitive(
        facts.x_log_y, function(values.xlogy), jets.times_log("log"), 66
    ),
}
