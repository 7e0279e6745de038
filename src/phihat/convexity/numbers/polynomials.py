"""Polynomials of many variables over fractions, and arrays of them."""

import itertools
import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

import numpy as np

__all__ = [
    "NotPolynomial",
    "Polynomial",
    "Products",
    "degree",
    "each",
    "plus",
    "summed",
]

Polynomial = Mapping[tuple[int, ...], Fraction]
"""Coefficients by monomial; x0^2 x3 is (0, 0, 3)."""

_MAX_DEGREE = 4
_MAX_TERMS = 400_000
"""Products of coefficients that one program may cost."""


class NotPolynomial(Exception):
    """The value has too many terms, or is no polynomial."""


def plus(x: Polynomial, y: Polynomial, c: Fraction | int = 1) -> Polynomial:
    """Return x + c y."""
    total = dict(x)
    for monomial, coefficient in y.items():
        value = total.get(monomial, 0) + c * coefficient
        if value:
            total[monomial] = value
        else:
            total.pop(monomial, None)
    return total


def degree(x: Polynomial) -> int:
    """Return the degree; 0 for constants."""
    return max(map(len, x), default=0)


def each(function: Callable[..., Any], *arrays: np.ndarray) -> np.ndarray:
    """Apply a function to the entries of arrays that broadcast."""
    spread = np.broadcast_arrays(*arrays)
    result = np.empty(spread[0].size, object)
    for k, entries in enumerate(zip(*(s.reshape(-1) for s in spread), strict=True)):
        result[k] = function(*entries)
    return result.reshape(spread[0].shape)


def summed(x: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """Add up entries over axes."""
    kept = [n for k, n in enumerate(x.shape) if k not in axes]
    rows = np.moveaxis(x, axes, range(-len(axes), 0)) if axes else x
    rows = rows.reshape(math.prod(kept), math.prod(x.shape[k] for k in axes))
    result = np.empty(len(rows), object)
    for k, row in enumerate(rows):
        total: Polynomial = {}
        for entry in row:
            total = plus(total, entry)
        result[k] = total
    return result.reshape(kept)


class Products:
    """Products of polynomials, until they are too large or have cost too much."""

    def __init__(self) -> None:
        """Start at no cost."""
        self.cost = 0

    def charge(self, amount: int) -> None:
        """Count products of coefficients."""
        self.cost += amount
        if self.cost > _MAX_TERMS:
            raise NotPolynomial

    def product(self, x: Polynomial, y: Polynomial) -> Polynomial:
        """Return x y."""
        self.charge(len(x) * len(y))
        if degree(x) + degree(y) > _MAX_DEGREE:
            raise NotPolynomial
        total: dict[tuple[int, ...], Fraction] = {}
        for (m, a), (n, b) in itertools.product(x.items(), y.items()):
            monomial = tuple(sorted(m + n))
            total[monomial] = total.get(monomial, Fraction(0)) + a * b
        return {monomial: value for monomial, value in total.items() if value}

    def quotient(self, x: Polynomial, y: Polynomial) -> Polynomial:
        """Return x / y for a number y."""
        if set(y) != {()}:
            raise NotPolynomial
        return plus({}, x, 1 / y[()])

    def power(self, x: Polynomial, exponent: int) -> Polynomial:
        """Return x^exponent."""
        if exponent < 0 or degree(x) * exponent > _MAX_DEGREE:
            raise NotPolynomial
        result: Polynomial = {(): Fraction(1)}
        for _ in range(exponent):
            result = self.product(result, x)
        return result

    def contracted(self, x: np.ndarray, y: np.ndarray, numbers: Any) -> np.ndarray:
        """Contract two arrays as `jax.lax.dot_general` does, without batches."""
        contracts, batches = numbers
        if any(batches):
            raise NotPolynomial
        depth = math.prod(x.shape[k] for k in contracts[0])
        sides, shape = [], []
        for array, axes in zip((x, y), contracts, strict=True):
            moved = np.moveaxis(array, axes, range(-len(axes), 0))
            sides.append(moved.reshape(-1, depth))
            shape += moved.shape[: moved.ndim - len(axes)]
        result = np.empty((len(sides[0]), len(sides[1])), object)
        for (i, row), (j, column) in itertools.product(*map(enumerate, sides)):
            total: Polynomial = {}
            for a, b in zip(row, column, strict=True):
                if a and b:
                    total = plus(total, self.product(a, b))
            result[i, j] = total
        return result.reshape(shape)
