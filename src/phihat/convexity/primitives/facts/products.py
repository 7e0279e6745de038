"""Products of arrays that are summed: matrix products and convolutions."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from phihat.convexity.numbers.extended import Extended
from phihat.convexity.primitives.evaluation import computed
from phihat.convexity.primitives.facts.arithmetic import multiply, weighted_sum
from phihat.convexity.primitives.facts.arrays import Array, Arrays
from phihat.convexity.primitives.facts.call import Call
from phihat.convexity.primitives.facts.combining import (
    elementwise,
    from_ranges,
    grouped,
    same_elements,
)
from phihat.convexity.primitives.facts.data_movement import scattered
from phihat.convexity.primitives.facts.facts import Facts, closed
from phihat.convexity.primitives.facts.powers import square
from phihat.convexity.primitives.facts.reductions import (
    largest,
    product,
    smallest,
    sum_of_sorted,
)
from phihat.convexity.program.flat_indices import contraction
from phihat.convexity.program.form import Equation

__all__ = ["convolution", "dot_general", "scatter_add", "scatter_fold"]

_MAX_EXPANDED = 2_000_000
"""Products of matrices with more terms than this are judged by their signs alone."""


def dot_general(interpreter: Any, equation: Equation, inputs: Arrays) -> Arrays:
    """Sums of products: affine where one side is constant and the other affine."""
    shape = interpreter.shape(equation)
    for constant, varying in (inputs, inputs[::-1]):
        if not _is_finite(constant):
            continue
        facts = varying.classes
        if all(f.affine for f in facts):
            template = Facts(
                convex=True, concave=True, total=all(f.total for f in facts)
            )
            if any(math.isinf(f.low) or math.isinf(f.high) for f in facts):
                return [Array.of(template, shape)]
            ranges = [array.ranges() for array in inputs]
            (total,) = computed(equation, ranges)
            return [from_ranges(template, total)]
        sorted_sum = _dot_with_sorted(constant, varying)
        if sorted_sum is not None and shape == ():
            return [Array.of(sorted_sum, shape)]
    factor, inputs = _without_multiples(interpreter, equation, inputs)
    if factor is not None:
        (rest,) = dot_general(interpreter, equation._replace(inputs=()), inputs)
        call = interpreter.call(equation)
        return [elementwise(lambda f: multiply(call, factor, f), [rest], shape)]
    numbers = equation.params["dimension_numbers"]
    terms, spreads = contraction(inputs[0].shape, inputs[1].shape, numbers)
    if math.prod(terms) > _MAX_EXPANDED:
        return [Array.of(_by_hulls(inputs), shape)]
    x, y = (z.moved(move, terms) for z, move in zip(inputs, spreads, strict=True))
    call = interpreter.call(equation)
    same = same_elements(x, y, terms)

    def function(a: Facts, b: Facts, is_same: bool = False) -> Facts:
        return square(call, a) if is_same else multiply(call, a, b)

    summands = elementwise(function, [x, y], terms, same)
    num_groups = math.prod(shape)
    groups = None
    if summands.places is not None:
        groups = np.repeat(np.arange(num_groups), terms[-1])
    return [grouped(weighted_sum, summands, groups, num_groups, shape)]


def _is_finite(array: Array) -> bool:
    """Whether an array is constant and finite; its elements are not told apart."""
    if isinstance(array.interval, Extended):
        return all(f.total for f in array.classes)
    return array.interval is not None


def _without_multiples(
    interpreter: Any, equation: Equation, inputs: Arrays
) -> tuple[Facts | None, list[Array]]:
    """Take a constant factor out of each side: (c x) @ x = c (x @ x)."""
    factor, bare = None, []
    for number, array in zip(equation.inputs, inputs, strict=False):
        source = interpreter.producers.get(number)
        if source is not None and source.primitive == "mul":
            sides = [interpreter.values[n] for n in source.inputs]
            for c, x in (sides, sides[::-1]):
                if c.is_constant and c.shape == () and x.shape == array.shape:
                    facts = c.classes[0]
                    factor = (
                        facts if factor is None else multiply(Call(), factor, facts)
                    )
                    array = x
                    break
        bare.append(array)
    return factor, bare if factor is not None else list(inputs)


def _by_hulls(inputs: Sequence[Array]) -> Facts:
    """Judge a large product by the hulls of its sides: each term has their facts."""
    x, y = (array.facts for array in inputs)
    term = multiply(Call(), x, y)
    low = 0.0 if term.nonnegative else -math.inf
    high = 0.0 if term.nonpositive else math.inf
    return closed(Facts(low, high, term.convex, term.concave, total=term.total))


def _dot_with_sorted(constant: Array, varying: Array) -> Facts | None:
    weights = constant.point
    if varying.order is None or weights is None or weights.ndim != 1:
        return None
    if weights.shape != varying.shape:
        return None
    groups = np.zeros(varying.size, np.intp)
    return sum_of_sorted(varying, groups, 1, weights.astype(np.float64))


def convolution(interpreter: Any, equation: Equation, inputs: Arrays) -> Arrays:
    """A sum of products: affine where one side is constant and the other affine."""
    sides = [array.facts for array in inputs]
    affine = any(f.constant for f in sides) and all(f.affine for f in sides)
    facts = Facts(convex=affine, concave=affine, total=all(f.total for f in sides))
    return [Array.of(facts, interpreter.shape(equation))]


def scatter_add(interpreter: Any, equation: Equation, inputs: Arrays) -> Arrays:
    """See `scattered`."""
    return [scattered(equation, inputs, interpreter.shape(equation))]


def scatter_fold(interpreter: Any, equation: Equation, inputs: Arrays) -> Arrays:
    """Each place holds the extreme, or the product, of all that meets there."""
    function = {
        "scatter-max": largest,
        "scatter-min": smallest,
        "scatter-mul": product,
    }[equation.primitive]
    return [scattered(equation, inputs, interpreter.shape(equation), function)]
