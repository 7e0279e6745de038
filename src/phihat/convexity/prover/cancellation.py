"""Symbols that cancel: `x - max(x)`, then exp, sum, log, and `+ max(x)` again.

The stable form of log-sum-exp subtracts a maximum and adds it back. What is subtracted
is remembered as a symbol, the number of an element with an exact coefficient, beside
what is known of the value as it stands. Nothing is concluded from this second view
until no symbol is left; then both views describe the same value, and what both know
holds.

The value is `hidden + sum c s` or `hidden * exp(sum c s)`, an identity of real numbers
that each function here keeps:

- sums of a factor view need the symbol to be one element along the summed axes;
- choices, and sums of two factor views, join only identical symbols.
"""

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from phihat.convexity.numbers import dtypes
from phihat.convexity.numbers.intervals import from_array
from phihat.convexity.primitives.facts.arrays import Array, Shift
from phihat.convexity.primitives.facts.call import Undecided
from phihat.convexity.primitives.facts.combining import elementwise, meet_arrays
from phihat.convexity.primitives.facts.facts import ZERO
from phihat.convexity.primitives.facts.powers import log_add_exp
from phihat.convexity.program.form import Equation

__all__ = ["follow"]

Terms = tuple[tuple[Fraction, np.ndarray], ...]


def follow(
    interpreter: Any, equation: Equation, inputs: Sequence[Array], plain: Array
) -> Array:
    """Return the output with a second view where the inputs have one.

    Args:
      interpreter: applies the same primitive to the hidden arrays.
      equation: the equation.
      inputs: its inputs.
      plain: its first output, as the rules know it.
    """
    follower = _FOLLOWERS.get(equation.primitive)
    has_views = any(array.shift is not None for array in inputs)
    opens = equation.primitive in _OPENING and any(a.is_anchor for a in inputs)
    opens = opens or equation.primitive == "log1p"
    passed_on = plain.shift is not None
    if follower is None or plain.is_constant or passed_on or not (has_views or opens):
        return plain
    if dtypes.is_integer(equation.dtype):
        return plain  # what cancels in the reals may have overflowed before
    try:
        view = follower(interpreter, equation, inputs)
    except Undecided:
        return plain
    if view is None:
        return plain
    if not view.terms:
        return meet_arrays(plain, view.hidden)
    return Array(
        plain.shape, plain.classes, plain.places, shift=view, is_anchor=plain.is_anchor
    )


def _without_symbols(
    interpreter: Any, equation: Equation, arrays: Sequence[Array]
) -> Array:
    """Apply the primitive to the values without their symbols."""
    computed = interpreter.computed(equation, arrays)
    if computed is not None:
        return computed[0]
    return interpreter.plain(equation, arrays)[0][0]


def _merged(shape: tuple[int, ...], *parts: tuple[int, Terms]) -> Terms:
    """Add up symbols, exactly; those that cancel are gone."""
    total: list[list[Any]] = []
    for sign, terms in parts:
        for coefficient, numbers in terms:
            spread = np.broadcast_to(numbers, shape)
            for entry in total:
                if _identical(entry[1], spread):
                    entry[0] += sign * coefficient
                    break
            else:
                total.append([sign * coefficient, spread])
    return tuple((c, numbers) for c, numbers in total if c != 0)


def _identical(x: np.ndarray, y: np.ndarray) -> bool:
    same_memory = (
        x.__array_interface__["data"] == y.__array_interface__["data"]
        and x.strides == y.strides
    )
    return same_memory or np.array_equal(x, y)


def _add(interpreter: Any, equation: Equation, inputs: Sequence[Array]) -> Shift | None:
    if all(array.shift is not None and array.shift.is_factor for array in inputs):
        return _sum_of_factors(interpreter, equation, inputs)
    sign = -1 if equation.primitive == "sub" else 1
    shape = interpreter.shape(equation)
    x, y = inputs
    views = [
        array.shift if array.shift is not None and not array.shift.is_factor else None
        for array in inputs
    ]
    if views[0] is None and views[1] is None:
        return _with_maximum_as_symbol(interpreter, equation, inputs, sign)
    hidden, terms_of = [], []
    for array, view, other in ((x, views[0], views[1]), (y, views[1], views[0])):
        if view is not None:
            hidden.append(view.hidden)
            terms_of.append(view.terms)
        elif other is not None and _is_symbol_of(array, other, shape):
            hidden.append(_zeros(array.shape))
            terms_of.append(((Fraction(1), array.numbers),))
        else:
            hidden.append(array)
            terms_of.append(())
    terms = _merged(shape, (1, terms_of[0]), (sign, terms_of[1]))
    return Shift(
        _without_symbols(interpreter, equation, hidden), terms, is_factor=False
    )


def _with_maximum_as_symbol(
    interpreter: Any, equation: Equation, inputs: Sequence[Array], sign: int
) -> Shift | None:
    """Take a maximum that is added or subtracted for a symbol."""
    x, y = inputs
    shape = interpreter.shape(equation)
    if y.is_anchor and not x.is_constant:
        terms: Terms = ((Fraction(sign), np.broadcast_to(y.numbers, shape)),)
        return Shift(_spread(x, shape), terms, is_factor=False)
    if x.is_anchor and not y.is_constant:
        terms = ((Fraction(1), np.broadcast_to(x.numbers, shape)),)
        rest = _without_symbols(interpreter, equation, [_zeros(x.shape), y])
        return Shift(rest, terms, is_factor=False)
    return None


def _softplus(
    interpreter: Any, equation: Equation, inputs: Sequence[Array]
) -> Shift | None:
    """log(1 + exp(-|z|)) = log(1 + exp(z)) - max(z, 0), the latter for a symbol."""
    producers, values = interpreter.producers, interpreter.values
    number = equation.inputs[0]
    for primitive in ("exp", "neg", "abs"):
        source = producers.get(number)
        if source is None or source.primitive != primitive:
            return None
        number = source.inputs[0]
    symbol = interpreter.numbers_of_maximum(number)
    if symbol is None or values[number].shape != inputs[0].shape:
        return None
    call = interpreter.call(equation)
    hidden = elementwise(
        lambda z: log_add_exp(call, z, ZERO),
        [values[number]],
        interpreter.shape(equation),
    )
    return Shift(hidden, ((Fraction(-1), symbol),), is_factor=False)


def _spread(array: Array, shape: tuple[int, ...]) -> Array:
    if array.shape == shape:
        return array
    return array.moved(lambda a: np.broadcast_to(a, shape), shape)


def _zeros(shape: tuple[int, ...]) -> Array:
    return Array.known(from_array(np.broadcast_to(0.0, shape)))


def _is_symbol_of(array: Array, view: Shift, shape: tuple[int, ...]) -> bool:
    """Whether an array is the very symbol that a view waits for."""
    if array.is_constant:
        return False
    spread = np.broadcast_to(array.numbers, shape)
    return any(
        _identical(np.broadcast_to(numbers, shape), spread) for _, numbers in view.terms
    )


def _negate(interpreter: Any, equation: Equation, inputs: Sequence[Array]) -> Shift:
    view = _view(inputs[0])
    terms = view.terms if view.is_factor else tuple((-c, n) for c, n in view.terms)
    return Shift(
        _without_symbols(interpreter, equation, [view.hidden]), terms, view.is_factor
    )


def _view(array: Array) -> Shift:
    assert array.shift is not None  # the caller asked
    return array.shift


def _multiply(
    interpreter: Any, equation: Equation, inputs: Sequence[Array]
) -> Shift | None:
    shape = interpreter.shape(equation)
    views = [array.shift for array in inputs]
    factors = [view for view in views if view is not None and view.is_factor]
    if factors and all(view is None or view.is_factor for view in views):
        sign = -1 if equation.primitive == "div" else 1
        hidden = [
            array if view is None else view.hidden
            for array, view in zip(inputs, views, strict=True)
        ]
        parts = [() if view is None else view.terms for view in views]
        terms = _merged(shape, (1, parts[0]), (sign, parts[1]))
        return Shift(
            _without_symbols(interpreter, equation, hidden), terms, is_factor=True
        )
    for k, view in enumerate(views):
        other = inputs[1 - k]
        if view is None or view.is_factor or views[1 - k] is not None:
            continue
        if equation.primitive == "div" and k == 1:
            continue
        c = other.classes[0]
        if len(other.classes) > 1 or not (c.constant and c.is_point) or c.low == 0:
            continue
        scale = 1 / c.exact if equation.primitive == "div" else c.exact
        hidden = [view.hidden, other] if k == 0 else [other, view.hidden]
        terms = _merged(shape, (1, tuple((scale * f, n) for f, n in view.terms)))
        return Shift(
            _without_symbols(interpreter, equation, hidden), terms, is_factor=False
        )
    return None


def _of_view(takes_factor: bool, gives_factor: bool) -> Callable[..., Shift | None]:
    """exp(h + s) = exp(h) e^s, log(h e^s) = log(h) + s, |h e^s| = |h| e^s."""

    def follow_view(
        interpreter: Any, equation: Equation, inputs: Sequence[Array]
    ) -> Shift | None:
        view = _view(inputs[0])
        if view.is_factor != takes_factor:
            return None
        hidden = _without_symbols(interpreter, equation, [view.hidden])
        return Shift(hidden, view.terms, gives_factor)

    return follow_view


def _reduce(
    interpreter: Any, equation: Equation, inputs: Sequence[Array]
) -> Shift | None:
    """Add up along axes along which each symbol is one element."""
    view = _view(inputs[0])
    axes = tuple(equation.params["axes"])
    shape = inputs[0].shape
    members = int(np.prod([shape[axis] for axis in axes], dtype=int))
    if members == 0:
        return None
    terms = []
    for coefficient, numbers in view.terms:
        spread = np.broadcast_to(numbers, shape)
        first = spread[
            tuple(slice(0, 1) if k in axes else slice(None) for k in range(len(shape)))
        ]
        if not (np.broadcast_to(first, shape) == spread).all():
            return None
        times = 1 if view.is_factor else members
        terms.append((coefficient * times, np.squeeze(first, axis=axes)))
    hidden = _without_symbols(interpreter, equation, [view.hidden])
    return Shift(hidden, tuple(terms), view.is_factor)


def _sum_of_factors(
    interpreter: Any, equation: Equation, inputs: Sequence[Array]
) -> Shift | None:
    """H e^s + k e^s = (h + k) e^s, and h e^s - k e^s likewise."""
    x, y = map(_view, inputs)
    shape = interpreter.shape(equation)
    if _merged(shape, (1, x.terms), (-1, y.terms)):
        return None
    hidden = _without_symbols(interpreter, equation, [x.hidden, y.hidden])
    return Shift(hidden, _merged(shape, (1, x.terms)), is_factor=True)


def _select(
    interpreter: Any, equation: Equation, inputs: Sequence[Array]
) -> Shift | None:
    """A choice that is known joins identical symbols; 0 exp(s) = 0, -inf + s = -inf."""
    which, cases = inputs[0], inputs[1:]
    if which.point is None:
        return None
    views = [case.shift for case in cases]
    view = next(v for v in views if v is not None)
    shape = interpreter.shape(equation)
    for case, other in zip(cases, views, strict=True):
        if other is None:
            if not all(
                f.is_infinite if not view.is_factor else f.is_point and f.low == 0.0
                for f in case.classes
            ):
                return None
        elif other.is_factor != view.is_factor or _merged(
            shape, (1, other.terms), (-1, view.terms)
        ):
            return None
    hidden = [
        case if other is None else other.hidden
        for case, other in zip(cases, views, strict=True)
    ]
    result = _without_symbols(interpreter, equation, [which, *hidden])
    return Shift(result, _merged(shape, (1, view.terms)), view.is_factor)


_OPENING = {"add", "add_any", "sub"}
_FOLLOWERS: dict[str, Callable[..., Shift | None]] = {
    "abs": _of_view(takes_factor=True, gives_factor=True),
    "add": _add,
    "add_any": _add,
    "div": _multiply,
    "exp": _of_view(takes_factor=False, gives_factor=True),
    "log": _of_view(takes_factor=True, gives_factor=False),
    "log1p": _softplus,
    "mul": _multiply,
    "neg": _negate,
    "reduce_sum": _reduce,
    "select_n": _select,
    "sub": _add,
}
"""How the second view passes a primitive; any other primitive drops it."""
