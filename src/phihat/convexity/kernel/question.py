"""Whether a question is about the program that runs, and about the leaves meant."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from phihat._core.types import Box
from phihat.convexity.numbers import intervals as iv
from phihat.convexity.numbers.intervals import Interval
from phihat.convexity.program.problem import Problem
from phihat.convexity.program.statement import text_of_array

__all__ = ["free_leaves", "is_the_question"]


def is_the_question(
    problem: Problem,
    loss_fn: Callable[..., Any],
    data: Any,
    domain: Box | None,
    wrt: Any,
) -> bool:
    """Whether the question is about the program that runs, and what was meant.

    The function is traced again, without anything of ours around it; the ranges must
    hold the data, and the box, as they were given.
    """
    low, high = (data.low, data.high) if isinstance(data, Box) else (data, data)
    for k, ends in enumerate(zip(*map(jax.tree.leaves, (low, high)), strict=True)):
        given = problem.program.constants.get(problem.program.data[k])
        if not all(_holds(problem.data[k], end) for end in ends):
            return False
        if given is not None and not _is_given(given, ends[0]):
            return False
    leaves = jax.tree.leaves(problem.params)
    for k, (r, free) in enumerate(zip(problem.domain, problem.varied, strict=True)):
        ends = [leaves[k]]
        if free and domain is None:
            ends = [-np.inf, np.inf]
        elif free and domain is not None:
            both = [jax.tree.leaves(end) for end in (domain.low, domain.high)]
            ends = [end[k if len(end) == len(leaves) else 0] for end in both]
        if not all(_holds(r, end) for end in ends):
            return False
    data = jax.tree.map(_between, low, high)
    args = (problem.params,) if data is None else (problem.params, data)
    leaves, tree = jax.tree.flatten(args)
    with jax.disable_jit(False):
        closed = jax.make_jaxpr(lambda *flat: loss_fn(*jax.tree.unflatten(tree, flat)))(
            *leaves
        )
    if problem.varied != free_leaves(problem.params, wrt):
        return False
    return _text(closed) == _text(problem.program.closed)


def _holds(r: Interval | None, end: Any) -> bool:
    """Whether a range holds the numbers of a leaf, rounded as jax rounds them."""
    if r is None:
        return True  # nothing is concluded from such a leaf
    if np.isinf(end).all():
        return bool((r.low <= end).all() and (r.high >= end).all())
    rounded = np.asarray(jnp.asarray(end))
    return any(
        bool((r.low <= e.high).all() and (e.low <= r.high).all())
        for e in map(iv.from_array, (np.asarray(end), rounded))
    )


def _is_given(known: np.ndarray, leaf: Any) -> bool:
    """Whether elements that are known, NaN among them, are those of a leaf."""
    rounded = np.asarray(jnp.asarray(leaf))
    return any(
        np.array_equal(known, np.asarray(e), equal_nan=True) for e in (leaf, rounded)
    )


def _between(low: Any, high: Any) -> Any:
    """Return what data are traced with: of two ends, the wider dtype."""
    kinds = [getattr(end, "dtype", type(end)) for end in (low, high)]
    if low is high or kinds[0] == kinds[1]:
        return low
    return jax.ShapeDtypeStruct(np.shape(low), jnp.result_type(low, high))


def _text(closed: Any) -> str:
    """Write a program down: primitives, dtypes and literals; no names, no rules."""
    jaxpr = getattr(closed, "jaxpr", closed)
    lines = [text_of_array(c) for c in getattr(closed, "consts", ())]
    for eqn in jaxpr.eqns:
        inputs = [
            text_of_array(v.val) if hasattr(v, "val") else str(v.aval)
            for v in eqn.invars
        ]
        inner = [
            _text(entry)
            for name, value in sorted(eqn.params.items())
            for entry in (value if isinstance(value, (tuple, list)) else (value,))
            if hasattr(entry, "eqns") or hasattr(entry, "jaxpr")
        ]
        lines.append(
            f"{id(eqn.primitive)} {inputs} {[str(v.aval) for v in eqn.outvars]}"
        )
        lines += inner
    return "\n".join(lines)


def free_leaves(params: Any, wrt: Any) -> tuple[bool, ...]:
    """Tell which leaves `wrt` names: a leaf, or a group that holds it.

    A leaf is named by its path, by a whole part of it from the first key on, or by its
    first key as it is: `"w"` names `['w']` and `['w'][0]`, never `['w_scale']`.

    Example:
      >>> free_leaves({"w": 0.0, "w_scale": 1.0}, "w")
      (True, False)
    """
    paths = [path for path, _ in jax.tree_util.tree_flatten_with_path(params)[0]]
    if wrt is None:
        return (True,) * len(paths)
    names = {wrt} if isinstance(wrt, str) else set(wrt)

    def is_named(path: Any) -> bool:
        heads = {jax.tree_util.keystr(path[:k]) for k in range(1, len(path) + 1)}
        if not path:
            return "" in names
        first = getattr(path[0], "key", getattr(path[0], "name", None))
        return bool(names & (heads | {first}))

    return tuple(map(is_named, paths))
