r"""Intervals of real numbers that provably hold what they are said to hold.

An interval $[l, h]$ stands for the *finite* reals between its ends: an infinite end is
open, never attained. A function of intervals returns one that holds its value for every
choice of numbers in its arguments at which it is defined; where it may not be, a twin
such as `div_is_defined` says so. Ends are rounded outward, and only if they must be:
integers and dyadic fractions stay points.

What is trusted: the processor's IEEE arithmetic, NumPy's elementary functions as far as
the table `trusted.ULPS` says, and that BLAS multiplies matrices by sums of products.
Nothing else: the normal distribution and the gamma function are enclosed by series and
a continued fraction whose remainders are known.

Example:
  >>> from phihat.convexity.numbers import intervals
  >>> intervals.add(1.0, 2.0)
  Interval(low=3.0, high=3.0)
  >>> total = intervals.sub(intervals.add(-1.0, 1e16), 1e16)  # in floats: 0
  >>> total.contains(-1.0), total.is_point
  (True, False)
  >>> intervals.exp(intervals.Interval(-1.0, 0.0)).contains(0.5)
  True

References:
  Moore, Kearfott, Cloud, *Introduction to Interval Analysis*, 2009.
"""

from phihat.convexity.numbers.intervals.core import (
    Interval,
    add,
    as_interval,
    div,
    div_is_defined,
    entire,
    from_array,
    from_decimal,
    from_rational,
    mul,
    neg,
    rearrange,
    sub,
)
from phihat.convexity.numbers.intervals.elementary import (
    acos,
    acosh,
    acosh_is_defined,
    asin,
    asin_is_defined,
    asinh,
    atan,
    atanh,
    atanh_is_defined,
    cbrt,
    cosh,
    exp,
    exp2,
    expm1,
    log,
    log1p,
    log1p_is_defined,
    log2,
    log_is_defined,
    logaddexp,
    logistic,
    sinh,
    softplus,
    tanh,
)
from phihat.convexity.numbers.intervals.gamma import (
    digamma,
    lgamma,
    lgamma_is_defined,
    polygamma,
)
from phihat.convexity.numbers.intervals.normal import (
    erf,
    erfc,
    log_ndtr,
    mills_ratio,
    ndtr,
)
from phihat.convexity.numbers.intervals.order import (
    absolute,
    ceil,
    eq,
    floor,
    ge,
    gt,
    hull,
    hull_of,
    intersect,
    le,
    lt,
    maximum,
    minimum,
    ne,
    overlaps,
    reduce_max,
    reduce_min,
    round_half_away,
    round_half_even,
    sign,
    truncate,
    where,
)
from phihat.convexity.numbers.intervals.powers import (
    integer_power,
    integer_power_is_defined,
    power,
    power_is_defined,
    rsqrt,
    sqrt,
    sqrt_is_defined,
    square,
)
from phihat.convexity.numbers.intervals.sums import (
    cumsum,
    dot_general,
    matmul,
    reduce_prod,
    reduce_sum,
)
from phihat.convexity.numbers.intervals.trigonometry import (
    atan2,
    atan2_is_defined,
    cos,
    sin,
    tan,
    tan_is_defined,
)

__all__ = [
    "Interval",
    "absolute",
    "acos",
    "acosh",
    "acosh_is_defined",
    "add",
    "as_interval",
    "asin",
    "asin_is_defined",
    "asinh",
    "atan",
    "atan2",
    "atan2_is_defined",
    "atanh",
    "atanh_is_defined",
    "cbrt",
    "ceil",
    "cos",
    "cosh",
    "cumsum",
    "digamma",
    "div",
    "div_is_defined",
    "dot_general",
    "entire",
    "eq",
    "erf",
    "erfc",
    "exp",
    "exp2",
    "expm1",
    "floor",
    "from_array",
    "from_decimal",
    "from_rational",
    "ge",
    "gt",
    "hull",
    "hull_of",
    "integer_power",
    "integer_power_is_defined",
    "intersect",
    "le",
    "lgamma",
    "lgamma_is_defined",
    "log",
    "log1p",
    "log1p_is_defined",
    "log2",
    "log_is_defined",
    "log_ndtr",
    "logaddexp",
    "logistic",
    "lt",
    "matmul",
    "maximum",
    "mills_ratio",
    "minimum",
    "mul",
    "ndtr",
    "ne",
    "neg",
    "overlaps",
    "polygamma",
    "power",
    "power_is_defined",
    "rearrange",
    "reduce_max",
    "reduce_min",
    "reduce_prod",
    "reduce_sum",
    "round_half_away",
    "round_half_even",
    "rsqrt",
    "sign",
    "sin",
    "sinh",
    "softplus",
    "sqrt",
    "sqrt_is_defined",
    "square",
    "sub",
    "tan",
    "tan_is_defined",
    "tanh",
    "truncate",
    "where",
]
