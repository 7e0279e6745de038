r"""Rules of the primitives that sum, multiply or take extremes over many elements."""

import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from phihat.convexity.numbers import intervals as iv
from phihat.convexity.numbers.dtypes import is_integer
from phihat.convexity.numbers.extended import (
    FINITE,
    MINUS_INFINITY,
    NOT_A_NUMBER,
    NOT_FINITE,
    PLUS_INFINITY,
    UNKNOWN,
    Extended,
    extended,
    full_kind,
    kind_of,
    unknown,
)
from phihat.convexity.numbers.intervals import Interval
from phihat.convexity.primitives.values.rule_builders import Rule, anything, is_known
from phihat.convexity.program.form import Equation

__all__ = [
    "convolution",
    "cumulative",
    "dot_general",
    "extremum",
    "logic",
    "product",
    "reduction",
    "window",
]


def reduction(reduce: Callable[..., Interval]) -> Rule:
    """Make the rule of a sum."""

    def rule(equation: Equation, inputs: list[Interval]) -> list[Interval]:
        (x,) = inputs
        axes = tuple(equation.params["axes"])
        kind = kind_of(x)
        if kind is None:
            return [reduce(x, axes)]
        plain = iv.where(kind == FINITE, Interval(*x), 0.0)
        return [extended(reduce(plain, axes), _sum_kind(kind, axes))]

    return rule


def _sum_kind(kind: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """Add infinities as IEEE does: inf - inf is NaN, NaN stays."""
    nan, vague, plus, minus = (
        np.any(found, axis=axes)
        for found in (
            kind == NOT_A_NUMBER,
            kind >= NOT_FINITE,
            kind == PLUS_INFINITY,
            kind == MINUS_INFINITY,
        )
    )
    return np.select(
        [nan, vague, plus & minus, plus, minus],
        [NOT_A_NUMBER, UNKNOWN, NOT_A_NUMBER, PLUS_INFINITY, MINUS_INFINITY],
        default=FINITE,
    ).astype(np.int8)


def product(equation: Equation, inputs: list[Interval]) -> list[Interval]:
    """Of finite elements."""
    (x,) = inputs
    axes = tuple(equation.params["axes"])
    if isinstance(x, Extended):
        return [unknown(np.any(x.kind, axis=axes).shape)]
    return [iv.reduce_prod(x, axes)]


def extremum(reduce: Any, worst: int) -> Rule:
    """Make the rule of a maximum (worst: -1, minus infinity) or of a minimum."""

    def rule(equation: Equation, inputs: list[Interval]) -> list[Interval]:
        (x,) = inputs
        axes = tuple(equation.params["axes"])
        kind = full_kind(x) if isinstance(x, Extended) or not x.size else None
        if kind is None:
            return [iv.rearrange(lambda end: reduce(end, axis=axes), x)]
        start = worst * np.inf
        low, high = (
            reduce(np.where(kind == worst, start, end), axis=axes, initial=start)
            for end in x
        )
        nan, vague, top = (
            np.any(found, axis=axes)
            for found in (kind == NOT_A_NUMBER, kind >= NOT_FINITE, kind == -worst)
        )
        marks = np.select(
            [nan, vague, top, np.all(kind == worst, axis=axes)],
            [NOT_A_NUMBER, UNKNOWN, -worst, worst],
            default=FINITE,
        ).astype(np.int8)
        return [
            extended(
                Interval(
                    np.where(marks == FINITE, low, -np.inf),
                    np.where(marks == FINITE, high, np.inf),
                ),
                marks,
            )
        ]

    return rule


def cumulative(combine: Callable[[Any, Any], Interval]) -> Rule:
    """Make the rule of a running sum and its kin, by doubling strides."""

    def rule(equation: Equation, inputs: list[Interval]) -> list[Interval]:
        (x,) = inputs
        axis, reverse = equation.params["axis"], equation.params["reverse"]
        if isinstance(x, Extended):
            return [unknown(x.shape)]
        x = iv.rearrange(lambda end: np.moveaxis(end, axis, 0), x)
        x = x[::-1] if reverse else x
        stride = 1
        while stride < x.shape[0]:
            later = combine(x[stride:], x[:-stride])
            x = iv.rearrange(lambda a, b: np.concatenate([a, b]), x[:stride], later)
            stride *= 2
        x = x[::-1] if reverse else x
        return [iv.rearrange(lambda end: np.moveaxis(end, 0, axis), x)]

    return rule


def dot_general(equation: Equation, inputs: list[Interval]) -> list[Interval]:
    """Of finite elements."""
    x, y = inputs
    numbers = equation.params["dimension_numbers"]
    if any(isinstance(z, Extended) for z in inputs):
        return [
            unknown(iv.dot_general(np.zeros(x.shape), np.zeros(y.shape), numbers).shape)
        ]
    return [iv.dot_general(x, y, numbers)]


def convolution(equation: Equation, inputs: list[Interval]) -> list[Interval] | None:
    """Read the patches by their positions, and multiply them with the kernel."""
    x, kernel = inputs
    params = equation.params
    if any(isinstance(z, Extended) for z in inputs) or params["batch_group_count"] != 1:
        return None
    numbers = params["dimension_numbers"]
    out_features, in_features, *window = (
        kernel.shape[axis] for axis in numbers.rhs_spec
    )
    if (in_features * math.prod(window)) ** 2 > _MAX_PATCH:
        return None
    with jax.enable_x64(True):
        # Each patch entry is a position times 1, plus zeros: exact.
        read = jax.lax.conv_general_dilated_patches(
            jax.numpy.arange(1.0, 1.0 + x.size).reshape(x.shape),
            tuple(window),
            params["window_strides"],
            params["padding"],
            params["lhs_dilation"],
            params["rhs_dilation"],
            dimension_numbers=numbers,
            precision=jax.lax.Precision.HIGHEST,
        )
    spec = numbers.out_spec
    places = np.rint(np.asarray(read).transpose(spec)).astype(np.int64)
    batch, _, *spatial = places.shape
    groups = params["feature_group_count"]
    padded = iv.rearrange(lambda end: np.concatenate([np.zeros(1), end.reshape(-1)]), x)
    places = places.reshape(
        (batch, groups, in_features * math.prod(window), math.prod(spatial))
    )
    weights = kernel.transpose(numbers.rhs_spec).reshape(
        (groups, out_features // groups, in_features * math.prod(window))
    )
    # [groups, batch * spatial, window] @ [groups, window, features]
    patches = padded[places].transpose((1, 0, 3, 2))
    patches = patches.reshape((groups, batch * math.prod(spatial), -1))
    product = iv.matmul(patches, weights.transpose((0, 2, 1)))
    product = product.reshape((groups, batch, math.prod(spatial), -1))
    product = product.transpose((1, 0, 3, 2)).reshape((batch, out_features, *spatial))
    return [product.transpose(tuple(np.argsort(spec)))]


_MAX_PATCH = 1 << 24
"""The patches are read by an identity matrix; a larger one is not made."""


def window(reduce: Callable[..., Any], start: float) -> Rule:
    """Make the rule of a sum, maximum or minimum over sliding windows."""

    def rule(equation: Equation, inputs: list[Interval]) -> list[Interval] | None:
        (x,) = inputs
        params = equation.params
        if isinstance(x, Extended) or any(d != 1 for d in params["base_dilation"]):
            return None
        dilation = params["window_dilation"]
        span = [
            (size - 1) * step + 1
            for size, step in zip(params["window_dimensions"], dilation, strict=True)
        ]

        def windows(end: np.ndarray, filler: float) -> np.ndarray:
            padded = np.pad(end, params["padding"], constant_values=filler)
            views = np.lib.stride_tricks.sliding_window_view(padded, span)
            places = tuple(slice(None, None, s) for s in params["window_strides"])
            inner = tuple(slice(None, None, step) for step in dilation)
            views = views[places + inner]
            return views.reshape((*views.shape[: end.ndim], -1))

        if start == 0.0:
            return [reduce(iv.rearrange(lambda end: windows(end, 0.0), x), -1)]
        # A maximum starts at -inf, which no element has; a finite one stands for it.
        if not windows(np.ones(x.shape), 0.0).any(axis=-1).all():
            return None
        return [iv.rearrange(lambda end: reduce(windows(end, start), axis=-1), x)]

    return rule


def logic(of_booleans: Rule, of_bits: np.ufunc) -> Rule:
    """Make the rule of "all" or "any"; on integers they work bit by bit."""

    def rule(equation: Equation, inputs: list[Interval]) -> list[Interval] | None:
        if not is_integer(equation.dtype):
            return of_booleans(equation, inputs)
        (x,) = inputs
        axes = tuple(equation.params["axes"])
        if is_known(x):
            bits = of_bits.reduce(x.low.astype(equation.dtype), axis=axes)
            return [iv.from_array(np.asarray(bits))]
        return [anything(np.any(x.low, axis=axes).shape, equation.dtype)]

    return rule
