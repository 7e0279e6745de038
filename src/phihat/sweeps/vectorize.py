"""Many evaluations of one program side by side, the lanes on the last axis.

`jax.vmap` puts lanes first. Where each is small the last axis is better: it is the one
that vector units and memory run along. So a function's jaxpr is evaluated here for all
lanes at once: elementwise operations, reductions, loops and small products keep lanes
last, every other operation goes through `jax.vmap`. Nothing is shared between lanes but
what was shared before, so one that meets NaN disturbs no other.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from phihat._core.jaxprs import scan_counts
from phihat.sweeps import vectorize_rules
from phihat.sweeps.vectorize_rules import Lanes, Value, by_vmap, spread

__all__ = ["evaluate_lanes_last", "prefers_lanes_last"]


def evaluate_lanes_last(
    jaxpr: Any,
    arguments: Sequence[Any],
    is_mapped: Sequence[bool],
    size: int,
    one: Any = 1.0,
) -> list[Array]:
    """Evaluate a closed jaxpr for many lanes at once.

    Args:
      jaxpr: of the function of one lane, closed, with flat arguments and results.
      arguments: one array per argument, `[..., size]` where it is mapped.
      is_mapped: which arguments differ from lane to lane.
      size: the number of lanes.
      one: the number 1, as an argument of the program that is being traced.

    Returns:
      The results, each `[..., size]`.
    """
    values = [Value(*pair) for pair in zip(arguments, is_mapped, strict=True)]
    is_host = jax.default_backend() == "cpu"
    results = _evaluate(jaxpr, values, Lanes(size, one, [], is_host=is_host))
    return [spread(value, size).array for value in results]


def prefers_lanes_last(jaxpr: Any, is_mapped: Sequence[bool]) -> bool:
    """Tell whether the lanes should be last: no lane multiplies large matrices."""
    lanes = Lanes(2, 1.0, [])
    shapes = [
        jax.ShapeDtypeStruct(aval.shape + (2,) * mapped, aval.dtype)
        for aval, mapped in zip(jaxpr.in_avals, is_mapped, strict=True)
    ]
    jax.eval_shape(_as_function(jaxpr, is_mapped, lanes, []), *shapes)
    return not lanes.wide


def _evaluate(closed: Any, arguments: Sequence[Value], lanes: Lanes) -> list[Value]:
    jaxpr = closed.jaxpr
    known: dict[Any, Value] = {}

    def read(atom: Any) -> Value:
        if hasattr(atom, "val"):
            return Value(atom.val, False)
        return known[atom]

    consts = [Value(const, False) for const in closed.consts]
    known.update(zip(jaxpr.constvars, consts, strict=True))
    known.update(zip(jaxpr.invars, arguments, strict=True))
    for equation in jaxpr.eqns:
        values = [read(atom) for atom in equation.invars]
        if any(value.is_mapped for value in values) or _has_body(equation):
            rule = _RULES.get(equation.primitive.name, by_vmap)
            results = rule(equation, values, lanes)
        else:
            results = vectorize_rules.shared(equation, values)
        known.update(zip(equation.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _has_body(equation: Any) -> bool:
    """Tell calls and loops: closures in them may be what holds mapped values."""
    return equation.primitive.name in ("scan", "jit", "pjit", "closed_call")


def _call(
    name: str, equation: Any, values: Sequence[Value], lanes: Lanes
) -> list[Value]:
    return _evaluate(equation.params[name], values, lanes)


# -------------------------------------------------------------------- loops


def _as_function(
    closed: Any,
    is_mapped: Sequence[bool],
    lanes: Lanes,
    seen: list[bool],
    far: list[Array] | None = None,
) -> Callable[..., list[Any]]:
    """Return the jaxpr as a function; `seen` gets which results are mapped."""
    inner = lanes._replace(far=far)  # tracers must not leave the body

    def run(*arrays: Any) -> list[Any]:
        pairs = zip(arrays, is_mapped, strict=True)
        results = _evaluate(closed, [Value(*pair) for pair in pairs], inner)
        seen[:] = [result.is_mapped for result in results]
        return [result.array for result in results]

    return run


def _body_function(
    closed: Any, is_mapped: Sequence[bool], lanes: Lanes, seen: list[bool]
) -> Callable[..., list[Any]]:
    """Return a loop's body with vector sines, repeated exactly for lanes far out."""
    exact = _as_function(closed, is_mapped, lanes, seen)

    def run(*arrays: Any) -> list[Any]:
        far: list[Array] = []
        fast = _as_function(closed, is_mapped, lanes, seen, far)(*arrays)
        if not far:
            return fast
        is_far = functools.reduce(jnp.logical_or, far)

        def repair() -> list[Any]:
            return [
                jnp.where(is_far, right, quick) if mapped else quick
                for right, quick, mapped in zip(exact(*arrays), fast, seen, strict=True)
            ]

        # A lane's result depends on itself alone: the others keep the quick one.
        return jax.lax.cond(jnp.any(is_far), repair, lambda: fast)

    return run


def _fixed_point(
    closed: Any,
    values: Sequence[Value],
    carried: slice,
    lanes: Lanes,
    avals: Sequence[Any],
) -> list[bool]:
    """Return which of a loop's carried values are mapped, in the end."""
    is_mapped = [value.is_mapped for value in values]
    num_carried = len(is_mapped[carried])
    while True:
        shapes = [
            jax.ShapeDtypeStruct(aval.shape + (lanes.size,) * mapped, aval.dtype)
            for aval, mapped in zip(avals, is_mapped, strict=True)
        ]
        seen: list[bool] = []
        jax.eval_shape(_as_function(closed, is_mapped, lanes, seen), *shapes)
        merged = [
            one or other
            for one, other in zip(is_mapped[carried], seen[:num_carried], strict=True)
        ]
        if merged == is_mapped[carried]:
            return is_mapped
        is_mapped[carried] = merged


def _parts(values: Sequence[Value]) -> tuple[list[Any], list[bool]]:
    return [value.array for value in values], [value.is_mapped for value in values]


def _spread_where(
    wanted: Sequence[bool], arrays: Sequence[Any], were: Sequence[bool], lanes: Lanes
) -> list[Any]:
    """Give the first arrays to every lane, where that is wanted."""
    return [
        spread(Value(array, was), lanes.size).array if mapped else array
        for mapped, array, was in zip(wanted, arrays, were, strict=False)
    ]


def _scan(equation: Any, values: Sequence[Value], lanes: Lanes) -> list[Value]:
    params = equation.params
    closed, (num_consts, num_carry) = params["jaxpr"], scan_counts(params)
    end = num_consts + num_carry
    carried = slice(num_consts, end)
    is_mapped = _fixed_point(closed, values, carried, lanes, closed.in_avals)
    seen: list[bool] = []
    run = _body_function(closed, is_mapped, lanes, seen)
    consts = [value.array for value in values[:num_consts]]
    start = _spread_where(is_mapped[carried], *_parts(values[carried]), lanes)

    def body(carry: Any, row: Any) -> tuple[Any, Any]:
        results = run(*consts, *carry, *row)
        after = _spread_where(is_mapped[carried], results, seen, lanes)
        return after, results[len(after) :]

    rows = [value.array for value in values[end:]]
    carry, stacked = jax.lax.scan(
        body,
        start,
        rows,
        length=params["length"],
        reverse=params["reverse"],
        unroll=params["unroll"],
    )
    mapped = [*is_mapped[carried], *seen[end - num_consts :]]
    return [Value(*pair) for pair in zip([*carry, *stacked], mapped, strict=True)]


def _while(equation: Any, values: Sequence[Value], lanes: Lanes) -> list[Value]:
    params = equation.params
    num_cond, num_body = params["cond_nconsts"], params["body_nconsts"]
    cond, body = params["cond_jaxpr"], params["body_jaxpr"]
    cond_consts, body_values = values[:num_cond], list(values[num_cond:])
    carried = slice(num_body, None)

    is_mapped = _fixed_point(body, body_values, carried, lanes, body.in_avals)
    asked = _predicate(cond, cond_consts, is_mapped[carried], lanes)
    if asked:  # each lane has an end of its own
        is_mapped[carried] = [True] * len(is_mapped[carried])
    run_body = _body_function(body, is_mapped, lanes, body_seen := [])
    cond_mapped = [*(v.is_mapped for v in cond_consts), *is_mapped[carried]]
    run_cond = _as_function(cond, cond_mapped, lanes, [])
    consts = [value.array for value in body_values[:num_body]]
    tests = [value.array for value in cond_consts]

    def goes_on(carry: Any) -> Any:
        return jnp.any(run_cond(*tests, *carry)[0])

    def advance(carry: Any) -> Any:
        results = run_body(*consts, *carry)
        after = _spread_where(is_mapped[carried], results, body_seen, lanes)
        if not asked:
            return after
        active = run_cond(*tests, *carry)[0]
        return [
            jax.lax.select(jnp.broadcast_to(active, new.shape), new, old)
            for new, old in zip(after, carry, strict=True)
        ]

    start = _spread_where(is_mapped[carried], *_parts(body_values[carried]), lanes)
    end = jax.lax.while_loop(goes_on, advance, start)
    return [Value(*pair) for pair in zip(end, is_mapped[carried], strict=True)]


def _predicate(
    cond: Any, consts: Sequence[Value], is_mapped: Sequence[bool], lanes: Lanes
) -> bool:
    """Tell whether a loop's condition differs from lane to lane."""
    flags = [*(value.is_mapped for value in consts), *is_mapped]
    shapes = [
        jax.ShapeDtypeStruct(aval.shape + (lanes.size,) * mapped, aval.dtype)
        for aval, mapped in zip(cond.in_avals, flags, strict=True)
    ]
    jax.eval_shape(_as_function(cond, flags, lanes, seen := []), *shapes)
    return seen[0]


def _cond(equation: Any, values: Sequence[Value], lanes: Lanes) -> list[Value]:
    chosen, *operands = values
    if chosen.is_mapped:
        return by_vmap(equation, values, lanes)
    flags = [value.is_mapped for value in operands]

    def spread_all(closed: Any) -> Callable[..., list[Any]]:
        run = _as_function(closed, flags, lanes, seen := [])

        def branch(*arrays: Any) -> list[Any]:
            results = run(*arrays)
            return [
                spread(Value(*pair), lanes.size).array
                for pair in zip(results, seen, strict=True)
            ]

        return branch

    branches = [spread_all(closed) for closed in equation.params["branches"]]
    arrays = [value.array for value in operands]
    results = jax.lax.switch(jnp.asarray(chosen.array, jnp.int32), branches, *arrays)
    return [Value(result, True) for result in results]


_RULES: dict[str, Callable[..., list[Value]]] = {
    **vectorize_rules.RULES,
    "closed_call": functools.partial(_call, "call_jaxpr"),
    "cond": _cond,
    "custom_jvp_call": functools.partial(_call, "call_jaxpr"),
    "custom_vjp_call": functools.partial(_call, "call_jaxpr"),
    "jit": functools.partial(_call, "jaxpr"),
    "pjit": functools.partial(_call, "jaxpr"),
    "scan": _scan,
    "while": _while,
}
