"""The four operations on the ends of intervals: arrays or scalars in, bounds out."""

from typing import Any

import numpy as np

from phihat.convexity.numbers.intervals.rounding import (
    choose,
    enclose,
    round_down,
    round_up,
    two_product,
    two_quotient,
    two_root,
    two_sum,
)

__all__ = [
    "product_between",
    "product_of_points",
    "product_with_point",
    "quotient_between",
    "quotient_of_points",
    "root_between",
    "root_of_points",
    "square_between",
    "sum_between",
    "sum_of_points",
]


def sum_of_points(x: Any, y: Any) -> tuple[Any, Any]:
    """Bound x + y."""
    return enclose(*two_sum(x, y))


def sum_between(x_low: Any, x_high: Any, y_low: Any, y_high: Any) -> tuple[Any, Any]:
    """Bound the sums: monotone in both."""
    return round_down(*two_sum(x_low, y_low)), round_up(*two_sum(x_high, y_high))


def product_of_points(x: Any, y: Any) -> tuple[Any, Any]:
    """Bound xy."""
    return enclose(*two_product(x, y))


def product_with_point(x: Any, y_low: Any, y_high: Any) -> tuple[Any, Any]:
    """Bound the multiples of x: monotone in y, by the sign of x."""
    is_negative = x < 0
    least, most = choose(is_negative, y_high, y_low), choose(is_negative, y_low, y_high)
    return round_down(*two_product(x, least)), round_up(*two_product(x, most))


def product_between(
    x_low: Any, x_high: Any, y_low: Any, y_high: Any
) -> tuple[Any, Any]:
    """Bound the products: those of either end of x bound those of all between."""
    low, high = product_with_point(x_low, y_low, y_high)
    other_low, other_high = product_with_point(x_high, y_low, y_high)
    return (
        choose(low < other_low, low, other_low),
        choose(high > other_high, high, other_high),
    )


def square_between(low: Any, high: Any) -> tuple[Any, Any]:
    """Bound the squares of numbers that are not negative."""
    return round_down(*two_product(low, low)), round_up(*two_product(high, high))


def quotient_of_points(x: Any, y: Any) -> tuple[Any, Any]:
    """Bound x / y for y other than zero."""
    return enclose(*two_quotient(x, y))


def quotient_between(
    x_low: Any, x_high: Any, y_low: Any, y_high: Any
) -> tuple[Any, Any]:
    """Bound the quotients, after turning signs so that y >= 0.

    The low end of x then bounds from below, divided by the y that leads farthest down:
    the large one if it is positive, the small one if negative. Zero divided is zero.
    """
    unknown = ((y_low < 0) & (y_high > 0)) | ((y_low == 0) & (y_high == 0))
    is_negative = y_low < 0
    least, most = (
        choose(is_negative, -x_high, x_low),
        choose(is_negative, -x_low, x_high),
    )
    near, far = choose(is_negative, y_high, y_low), choose(is_negative, -y_low, y_high)
    near = abs(near)  # a negative zero would turn the sign of an infinite quotient
    under_least = choose(least == 0, 1.0, choose(least > 0, far, near))
    under_most = choose(most == 0, 1.0, choose(most < 0, far, near))
    low = round_down(*two_quotient(least, under_least))
    high = round_up(*two_quotient(most, under_most))
    return choose(unknown, -np.inf, low), choose(unknown, np.inf, high)


def root_of_points(x: Any) -> tuple[Any, Any]:
    """Bound the root of x >= 0."""
    return enclose(*two_root(x))


def root_between(low: Any, high: Any) -> tuple[Any, Any]:
    """Bound the roots of numbers that are not negative: monotone."""
    return round_down(*two_root(low)), round_up(*two_root(high))
