# ruff: noqa: F403 - it hands on what its modules name
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

from phihat.convexity.numbers.intervals import (
    core,
    elementary,
    gamma,
    normal,
    order,
    powers,
    sums,
    trigonometry,
)
from phihat.convexity.numbers.intervals.core import *
from phihat.convexity.numbers.intervals.elementary import *
from phihat.convexity.numbers.intervals.gamma import *
from phihat.convexity.numbers.intervals.normal import *
from phihat.convexity.numbers.intervals.order import *
from phihat.convexity.numbers.intervals.powers import *
from phihat.convexity.numbers.intervals.sums import *
from phihat.convexity.numbers.intervals.trigonometry import *

__all__: list[str] = []
__all__ += core.__all__
__all__ += elementary.__all__
__all__ += gamma.__all__
__all__ += normal.__all__
__all__ += order.__all__
__all__ += powers.__all__
__all__ += sums.__all__
__all__ += trigonometry.__all__
