"""Where elements go: the kernel binds the equation itself to their numbers.

So no second reading of gather or pad can be wrong. Views are moved by NumPy.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from phihat.convexity.kernel.facts import Known, Refused, number
from phihat.convexity.kernel.values import Value, View
from phihat.convexity.numbers.intervals import Interval
from phihat.convexity.program.form import Equation
from phihat.convexity.program.structure import INDEXED, VIEWS, group_of_updates

__all__ = ["MOVES", "moved", "places_of_updates", "taken"]

MOVES = {*VIEWS, *INDEXED, "pad"}
"""The primitives that only move elements about."""


def moved(
    equation: Equation, inputs: Sequence[Value], shapes: Sequence[Sequence[int]]
) -> list[Value]:
    """Follow the elements of a primitive that moves them."""
    name = equation.primitive
    body = equation.params.get("update_jaxpr")
    body = getattr(body, "jaxpr", body)
    if body is not None and (body.eqns or body.outvars[0] is not body.invars[-1]):
        raise Refused(f"`{name}` carries a program of its own")
    indices = set(INDEXED.get(name, lambda _: range(0))(len(inputs)))
    if any(inputs[k].exact is None for k in indices):
        is_read = name in ("gather", "dynamic_slice")
        if is_read and all(inputs[k].constant for k in indices):
            return [_read_anywhere(equation, inputs, shapes[0])]
        raise Refused(f"the indices of `{name}` are not known")
    operands = [v for k, v in enumerate(inputs) if k not in indices]

    def go(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        given = iter(arrays)
        full = [v.exact if k in indices else next(given) for k, v in enumerate(inputs)]
        return _applied(equation, full)

    if name == "scatter":
        _check_unique(equation, inputs)

    @functools.cache
    def destinations() -> list[np.ndarray]:
        ends = np.cumsum([0, *(v.size for v in operands)]).astype(np.int32)
        numbers = [
            np.arange(start, stop, dtype=np.int32).reshape(v.shape)
            for start, stop, v in zip(ends, ends[1:], operands, strict=False)
        ]
        found = go(numbers)
        if any(((f < 0) | (f >= ends[-1])).any() for f in found):
            raise Refused(f"an index of `{name}` lies out of range")
        return found

    def relocate(k: int, arrays: Sequence[np.ndarray]) -> np.ndarray:
        if name in VIEWS:
            return go(arrays)[k]
        flat = [np.asarray(a).reshape(-1) for a in arrays]
        return (flat[0] if len(flat) == 1 else np.concatenate(flat))[destinations()[k]]

    if indices:
        destinations()  # raises where one lies out of range
    return [
        taken(operands, functools.partial(relocate, k), shape)
        for k, shape in enumerate(shapes)
    ]


def _applied(equation: Equation, arrays: Sequence[Any]) -> list[np.ndarray]:
    """Apply the primitive to arrays; a gather shows what is out of range as < 0."""
    name, params = equation.primitive, equation.params
    if name in VIEWS:
        results = VIEWS[name](params, *arrays)
    else:
        params = {**params, "fill_value": -1} if name == "gather" else params
        results = equation.bind(*map(jnp.asarray, arrays), **params)  # type: ignore
    results = results if isinstance(results, (list, tuple)) else [results]
    return [np.asarray(result) for result in results]


def _read_anywhere(
    equation: Equation, inputs: Sequence[Value], shape: Sequence[int]
) -> Value:
    """Each result is one element, the same for all params; it must lie within."""
    operand, params = inputs[0], equation.params
    if "FILL" in str(params.get("mode")):  # others clamp
        r = inputs[1].ranges()
        for k, axis in enumerate(params["dimension_numbers"].start_index_map):
            last = operand.shape[axis] - params["slice_sizes"][axis]
            if not ((r.low[..., k] >= 0) & (r.high[..., k] <= last)).all():
                raise Refused("an index is not known to lie within the array")
    return Value(shape, (operand.known,))


Relocate = Callable[[Sequence[np.ndarray]], np.ndarray]


def taken(operands: Sequence[Value], relocate: Relocate, shape: Sequence[int]) -> Value:
    """Return the elements of some operands that go to one output."""
    if all(v.exact is not None for v in operands):
        return Value(shape, exact=relocate([v.exact for v in operands]))
    ranges = [v.interval for v in operands if v.interval is not None]
    if len(ranges) == len(operands):
        low, high = (relocate([list(r)[side] for r in ranges]) for side in (0, 1))
        return Value(shape, interval=Interval(low, high))
    first, view, order = operands[0], None, None
    if len(operands) == 1:
        order = first.order
        if first.view is not None:
            hidden, terms, factor = first.view
            view = View(
                taken([hidden], relocate, shape),
                tuple((c, relocate([symbols])) for c, symbols in terms),
                factor,
            )
    names: dict[Known, int] = {}
    renamed = [
        np.array([names.setdefault(k, len(names)) for k in v.knowns]) for v in operands
    ]
    knowns, places = tuple(names), None
    if len(knowns) > 1:
        parts = [
            np.broadcast_to(name[0], v.shape) if v.places is None else name[v.places]
            for v, name in zip(operands, renamed, strict=True)
        ]
        used, places = np.unique(relocate(parts), return_inverse=True)
        knowns = tuple(knowns[u] for u in used) or (number(0.0),)
        places = places.reshape(tuple(shape)) if len(used) > 1 else None
    return Value(
        shape,
        knowns,
        places,
        ids=lambda: relocate([v.ids for v in operands]),
        view=view,
        anchor=all(v.anchor for v in operands),
        order=order,
    )


def places_of_updates(equation: Equation, inputs: Sequence[Value]) -> np.ndarray:
    """Return where a scatter puts each update: its place, flat, or -1 if dropped."""
    operand, indices, updates = inputs
    if indices.exact is None:
        raise Refused("the indices of a scatter are not known")
    return group_of_updates(
        equation.params, operand.shape, indices.exact, updates.shape
    )


def _check_unique(equation: Equation, inputs: Sequence[Value]) -> None:
    places = places_of_updates(equation, inputs).reshape(-1)
    places = places[places >= 0]
    if len(np.unique(places)) < len(places):
        raise Refused("two updates of a scatter meet in one place")
