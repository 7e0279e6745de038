"""The kernel on stable forms: a maximum is subtracted, and added again.

A second view of a value says what it would be with a symbol taken out: it is
`hidden + sum c s`, or `hidden exp(sum c s)`. Both are identities of real numbers,
whatever the symbols are; where all have cancelled, the value *is* `hidden`, and what is
known of that is known of the value.
"""

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from phihat.convexity.kernel.facts import ZERO, Ask, Refused, meet
from phihat.convexity.kernel.table import TABLE
from phihat.convexity.kernel.values import Terms, Value, View, each
from phihat.convexity.program.form import Equation

__all__ = ["follow"]


def follow(
    checker: Any, equation: Equation, inputs: Sequence[Value], plain: Value
) -> Value:
    """Return the output with its view; with what the view says, if it is closed."""
    if plain.constant or plain.view is not None:
        return plain
    try:
        view = _view(checker, equation, inputs)
    except Refused:
        return plain
    if view is None:
        return plain
    hidden, terms, factor = view
    result = Value(
        plain.shape, plain.knowns, plain.places, ids=plain._ids, order=plain.order
    )
    result.anchor = plain.anchor
    if terms:
        result.view = View(hidden, terms, factor)
        return result
    closed = each(meet, [plain, hidden], plain.shape)
    result._knowns, result._places = closed.knowns, closed.places
    return result


def _view(checker: Any, equation: Equation, inputs: Sequence[Value]) -> View | None:
    name, views = equation.primitive, [v.view for v in inputs]
    shape = checker.program.shapes[equation.outputs[0]]

    def hide(values: Sequence[Value]) -> Value:
        return checker.apply(equation, values)[0]

    if name in ("add", "add_any", "sub"):
        sign = -1 if name == "sub" else 1
        if all(v is not None and v.factor for v in views):
            return _joined(hide, views, shape)
        return _summed(hide, inputs, shape, sign)
    if name == "log1p":
        return _softplus(checker, equation)
    if all(v is None for v in views):
        return None
    if name in ("mul", "div"):
        return _multiplied(hide, inputs, shape, -1 if name == "div" else 1)
    if name in ("max", "min"):
        return _joined(hide, views, shape)
    if name == "select_n":
        return _selected(hide, inputs, shape)
    if name in ("reduce_sum", "reduce_max", "reduce_min"):
        return _reduced(hide, equation, inputs[0])
    (view, *_) = views
    if view is None:
        return None
    if name == "neg":
        terms = view.terms if view.factor else _scaled(Fraction(-1), view.terms)
        return View(hide([view.hidden]), terms, view.factor)
    if name in _THROUGH and _THROUGH[name][0] == view.factor:
        return View(hide([view.hidden]), view.terms, _THROUGH[name][1])
    return None


_THROUGH = {"exp": (False, True), "log": (True, False), "abs": (True, True)}
"""exp(h + s) = exp(h) e^s, log(h e^s) = log(h) + s, |h e^s| = |h| e^s."""


def _scaled(c: Fraction, terms: Terms) -> Terms:
    return tuple((c * k, ids) for k, ids in terms)


def _total(shape: tuple[int, ...], *parts: Terms) -> Terms:
    """Add up symbols exactly; those that cancel are gone."""
    total: list[list[Any]] = []
    for c, ids in (term for terms in parts for term in terms):
        spread = np.broadcast_to(ids, shape)
        for entry in total:
            if np.array_equal(entry[1], spread):
                entry[0] += c
                break
        else:
            total.append([c, spread])
    return tuple((c, ids) for c, ids in total if c)


def _zeros(shape: tuple[int, ...]) -> Value:
    return Value(shape, exact=np.broadcast_to(np.float64(0.0), shape))


def _summed(
    hide: Any, inputs: Sequence[Value], shape: tuple[int, ...], sign: int
) -> View | None:
    """(h + s) +- (k + t) = (h +- k) + (s +- t); a maximum may be a symbol itself."""
    views = [v.view if v.view and not v.view.factor else None for v in inputs]
    opened = views[0] is None and views[1] is None
    hidden, parts = [], []
    for k, (value, view) in enumerate(zip(inputs, views, strict=True)):
        other = views[1 - k]
        ids = None
        if view is None and not value.constant:
            if opened:
                first = not inputs[1].anchor
                ids = value.ids if value.anchor and (k == 1 or first) else None
                if inputs[1 - k].constant:
                    ids = None
            elif other is not None:
                spread = np.broadcast_to(value.ids, shape)
                waits = (np.broadcast_to(t, shape) for _, t in other.terms)
                ids = (
                    value.ids if any(np.array_equal(t, spread) for t in waits) else None
                )
        if view is not None:
            hidden.append(view.hidden)
            parts.append(view.terms)
        elif ids is not None:
            hidden.append(_zeros(value.shape))
            parts.append(((Fraction(1), ids),))
        else:
            hidden.append(value)
            parts.append(())
    if not any(parts):
        return None
    terms = _total(shape, parts[0], _scaled(Fraction(sign), parts[1]))
    return View(hide(hidden), terms, False)


def _multiplied(
    hide: Any, inputs: Sequence[Value], shape: tuple[int, ...], sign: int
) -> View | None:
    """H e^s k e^t = h k e^(s + t); c (h + s) = c h + c s for an exact c."""
    views = [v.view for v in inputs]
    if all(v is None or v.factor for v in views):
        hidden = [
            v if view is None else view.hidden
            for v, view in zip(inputs, views, strict=True)
        ]
        parts = [() if view is None else view.terms for view in views]
        terms = _total(shape, parts[0], _scaled(Fraction(sign), parts[1]))
        return View(hide(hidden), terms, True)
    for k, view in enumerate(views):
        other = inputs[1 - k]
        if view is None or view.factor or views[1 - k] is not None:
            continue
        c = other.knowns[0]
        point = len(other.knowns) == 1 and c.constant and c.is_point and c.low
        if not point or (sign < 0 and k == 1):
            continue
        factor = Fraction(c.low) if sign > 0 else 1 / Fraction(c.low)
        hidden = [view.hidden, other] if k == 0 else [other, view.hidden]
        return View(hide(hidden), _total(shape, _scaled(factor, view.terms)), False)
    return None


def _joined(hide: Any, views: Sequence[Any], shape: tuple[int, ...]) -> View | None:
    """max(h + s, k + s) = max(h, k) + s; h e^s and k e^s likewise, and their sum."""
    x, y = views
    if x is None or y is None or x.factor != y.factor:
        return None
    if _total(shape, x.terms, _scaled(Fraction(-1), y.terms)):
        return None
    return View(hide([x.hidden, y.hidden]), _total(shape, x.terms), x.factor)


def _selected(
    hide: Any, inputs: Sequence[Value], shape: tuple[int, ...]
) -> View | None:
    """A known choice of identical symbols; 0 e^s = 0, and -inf + s = -inf."""
    which, *cases = inputs
    if which.point is None:
        return None
    (first, *_) = (case.view for case in cases if case.view is not None)
    for case in cases:
        view = case.view
        if view is None:
            ok = all(
                k.is_point and k.low == 0.0 if first.factor else k.infinite
                for k in case.knowns
            )
        else:
            ok = view.factor == first.factor and not _total(
                shape, view.terms, _scaled(Fraction(-1), first.terms)
            )
        if not ok:
            return None
    hidden = [case if case.view is None else case.view.hidden for case in cases]
    return View(hide([which, *hidden]), _total(shape, first.terms), first.factor)


def _reduced(hide: Any, equation: Equation, value: Value) -> View | None:
    """Along axes along which each symbol is one element."""
    hidden, terms, factor = value.view
    axes, shape = tuple(equation.params["axes"]), value.shape
    members = math.prod(shape[k] for k in axes)
    if not members:
        return None
    found = []
    for c, ids in terms:
        spread = np.broadcast_to(ids, shape)
        place = tuple(0 if k in axes else slice(None) for k in range(len(shape)))
        first = spread[place]
        if not (np.expand_dims(first, axes) == spread).all():
            return None
        times = members if equation.primitive == "reduce_sum" and not factor else 1
        found.append((c * times, first))
    return View(hide([hidden]), tuple(found), factor)


def _softplus(checker: Any, equation: Equation) -> View | None:
    """log(1 + exp(-|z|)) = log(1 + exp(z)) - max(z, 0), the last for a symbol."""
    n = equation.inputs[0]
    for name in ("exp", "neg", "abs"):
        writer = checker.writers.get(n)
        if writer is None or writer.primitive != name:
            return None
        n = writer.inputs[0]
    symbol = checker.maximum_with_zero(n)
    z = checker.values[n]
    shape = checker.program.shapes[equation.outputs[0]]
    if symbol is None or z.shape != shape:
        return None
    rule = TABLE["logaddexp"]
    hidden = each(lambda k: rule(Ask({}), k, ZERO), [z], shape)
    return View(hidden, ((Fraction(-1), symbol),), False)
