"""Programs that a careless prover would prove: what must not be said, and what must.

Each entry of `FALSE` was proved once by some version of a rule, or is one step from a
program that was. `TRUE` holds the nearest statement that a sound rule still makes, so
that no test passes because everything is refused.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.scipy.special as special
import numpy as np
from jax import lax

from phihat import Box

__all__ = ["FALSE", "PAIR", "TRIPLE", "TRUE", "Program", "box"]


class Program(NamedTuple):
    loss_fn: Any
    params: Any = 1.5
    claims: str = "convex"
    domain: Any = None
    data: Any = None


def box(low: Any, high: Any) -> Box:
    return Box(jnp.asarray(low, jnp.float64), jnp.asarray(high, jnp.float64))


def _or_minus(predicate: Any) -> Any:
    """Return w^2 where the predicate holds, and -w^2 elsewhere."""
    return lambda w, *data: jnp.where(predicate(w, *data), w**2, -(w**2))


ONE_TO_TWO = box(1.0, 1.9)
PAIR = np.array([1.2, 1.5])
TRIPLE = np.array([0.3, -0.4, 0.6])
GRID = np.arange(9.0).reshape(3, 3) / 5
SIGNED = Box(-np.ones(3), np.ones(3))


def _int(w: Any) -> Any:
    return w.astype(jnp.int32)


def _log_sum_exp(x: Any, shift: Any, back: Any, scale: float = 1.0) -> Any:
    return jnp.log(jnp.sum(jnp.exp((x - shift) * scale))) + back


def _back_and_forth(x: Any) -> Any:
    """Return 2 x, by way of a maximum."""
    top = jnp.max(jnp.stack([x, x]))
    return ((x - top) + x) + top


def _online(x: Any, scale_of: Any) -> Any:
    """Log-sum-exp in one pass; `scale_of(old, new)` rescales what was summed."""

    def step(carry: Any, value: Any) -> Any:
        top, total = carry
        new = jnp.maximum(top, value)
        return (new, total * scale_of(top, new) + jnp.exp(value - new)), None

    (top, total), _ = lax.scan(step, (x[0], jnp.ones(())), x[1:])
    return jnp.log(total) + top


def _loop(start: Any, step: Any, rounds: int = 20_001) -> Any:
    return lambda w: lax.fori_loop(0, rounds, lambda i, c: step(c, w, i), start(w))


FALSE = {
    # integers in a choice
    "a cast that truncates in a choice": Program(
        lambda w: (
            (
                jnp.where(w > 0, 1.2, 0.9)
                - 0.5 * jnp.where(w > 0, 1.2, 0.9).astype(jnp.int32)
            )
            * w
        )
    ),
    "an integer that wraps in a choice": Program(
        lambda w: (
            w
            * (jnp.where(w > 0, jnp.int8(100), jnp.int8(0)) * jnp.int8(2)).astype(float)
        )
    ),
    # literals that are infinite or NaN
    "a minimum with -inf": Program(
        _or_minus(lambda w: jnp.minimum(w, -jnp.inf) > 0), domain=ONE_TO_TWO
    ),
    "a maximum with inf": Program(
        _or_minus(lambda w: jnp.maximum(w, jnp.inf) < 5), domain=ONE_TO_TWO
    ),
    "log 0 in the data is no number": Program(
        _or_minus(lambda w, d: jnp.isfinite(w + jnp.log(d))),
        data=jnp.zeros(()),
    ),
    "log 0 in one datum": Program(
        lambda w, d: jnp.sum(jnp.where(jnp.isfinite(w + jnp.log(d)), w**2, -(w**2))),
        data=jnp.array([0.0, 0.0, 2.0]),
    ),
    "a NaN literal": Program(lambda w: jnp.exp(w * jnp.nan)),
    "an infinite literal": Program(lambda w: jnp.exp(-w * jnp.inf) + w**2),
    "a NaN in a matrix": Program(lambda w: jnp.array([1.0, jnp.nan]) @ w, PAIR),
    "a prefix before -inf": Program(
        lambda w: lax.cumsum(jnp.stack([-(w**2), jnp.asarray(-jnp.inf)]))[0],
    ),
    # integers and booleans
    "integers divide by truncation": Program(
        _or_minus(lambda w: lax.div(_int(w), jnp.int32(2)) > 0), domain=ONE_TO_TWO
    ),
    "integers of the data divide by truncation": Program(
        lambda w, n: (lax.div(n, jnp.int32(2)) - 0.25) * w**2,
        data=Box(jnp.int32(1), jnp.int32(5)),
    ),
    "bits are inverted": Program(
        _or_minus(lambda w: jnp.invert(_int(w)) >= 0), domain=ONE_TO_TWO
    ),
    "bits are combined": Program(_or_minus(lambda w: _int(w) ^ 1), domain=ONE_TO_TWO),
    "integers wrap": Program(
        _or_minus(lambda w: _int(w * 100).astype(jnp.int8) > 0),
        domain=box(1.3, 1.9),
    ),
    "the least integer has no absolute value": Program(
        lambda w, d: jnp.abs(d) * w**2, data=np.asarray(-(2**63))
    ),
    "the least integer of a range has no negative": Program(
        lambda w, d: -d * w**2, data=Box(np.asarray(-(2**63)), np.asarray(-1))
    ),
    "the greatest integer and one": Program(
        lambda w, d: (d + 1) * w**2, data=np.asarray(2**63 - 1)
    ),
    "none of an unsigned integer of no bits": Program(
        lambda w, d: (~d).astype(float) * w - 2.0**64 * w - w**2,
        data=np.asarray(0, np.uint64),
    ),
    "integers wrap before a shift cancels": Program(
        _or_minus(lambda w: _back_and_forth(w.astype(jnp.int8)) > 0),
        60.0,
        domain=box(50.0, 120.0),
    ),
    "integers of the data wrap": Program(
        lambda w, n: n.astype(jnp.int8) * w**2,
        data=Box(jnp.int32(1), jnp.int32(200)),
    ),
    "a boolean is whether it is not zero": Program(
        lambda w: jnp.where(lax.convert_element_type(w, jnp.bool_), -(w**2), w**2),
        0.5,
        domain=box(0.25, 0.75),
    ),
    "a cast to int is a staircase": Program(lambda w: w.astype(jnp.int32) * 1.0),
    # arrays
    "a scatter that applies a function": Program(
        lambda w: jnp.sum(w.at[0].apply(lambda v: -(v**2))), TRIPLE
    ),
    "a scatter that applies a constant": Program(
        lambda w: jnp.sum(w.at[0].apply(lambda _: 3.0)) + w[0] * w[1], TRIPLE
    ),
    "a running maximum before the largest": Program(
        lambda w: lax.cummax(jnp.stack([-(w**2), w + 100.0]))[0],
        domain=box(-1.0, 2.0),
    ),
    "a running maximum before a constant": Program(
        lambda w: lax.cummax(jnp.stack([-(w**2), jnp.asarray(100.0)]))[0],
        domain=box(-1.0, 2.0),
    ),
    "all of nothing": Program(
        lambda w: jnp.where(jnp.all(w[:0] > 0), -(w[0] ** 2), w[0] ** 2), PAIR
    ),
    "an outer product off its diagonal": Program(lambda w: jnp.outer(w, w)[0, 1], PAIR),
    "elements rolled": Program(lambda w: w @ jnp.roll(w, 1), np.arange(80.0) / 80),
    "elements reversed": Program(lambda w: w @ w[::-1], np.arange(80.0) / 80),
    "elements doubled": Program(
        lambda w: jnp.sum(jnp.concatenate([w, w]) * jnp.concatenate([w, w[::-1]])),
        np.arange(80.0) / 80,
    ),
    "a matrix and its transpose": Program(
        lambda w: jnp.sum(jnp.einsum("bij,bji->b", w, w)), np.ones((5, 4, 4))
    ),
    "a product of different rows": Program(
        lambda w: jnp.einsum("bik,bjk->bij", w, w)[0, 0, 1], np.ones((5, 4, 4))
    ),
    "an index from the data, twice": Program(
        lambda w, k: jnp.sum(w[k] * w), TRIPLE, data=Box(*np.int32([[0] * 3, [2] * 3]))
    ),
    "weights picked by an index": Program(
        lambda w, k: jnp.array([1.0, -1.0, 2.0])[k] * w**2,
        data=Box(jnp.int32(0), jnp.int32(2)),
    ),
    "a product of negative factors": Program(
        lambda w: jnp.prod(-w), PAIR, domain=box([0.1, 0.1], [2.0, 2.0])
    ),
    "sorted weights that do not fall": Program(
        lambda w: jnp.sort(w) @ jnp.array([0.1, 0.3, 0.2]), TRIPLE
    ),
    "the second of the two largest": Program(
        lambda w: jnp.sum(lax.top_k(w, 2)[0][1:]), TRIPLE
    ),
    "one of the sorted twice": Program(
        lambda w: jnp.sum(jnp.sort(w)[jnp.array([2, 1, 1])]), TRIPLE
    ),
    "the smallest of convex values": Program(
        lambda w: jnp.sum(jnp.sort(w**2)[:1]), TRIPLE
    ),
    # domains
    "a relative entropy of negative numbers": Program(
        lambda w: w[0] * jnp.log(w[0] / w[1]),
        -PAIR,
        domain=box([-2.0, -2.0], [-1.0, -1.0]),
    ),
    "a domain that is empty": Program(lambda w: -jnp.log(-(w**2) - 1.0)),
    "a root that is nowhere real": Program(lambda w: w + jnp.sqrt(-(w**2) - 1.0)),
    "the log of a negative constant": Program(
        lambda w, d: w**2 + jnp.log(d), data=-jnp.ones(())
    ),
    "a reciprocal on a domain that touches zero": Program(
        lambda w: 1.0 / w, domain=box(0.0, np.inf)
    ),
    # shifts
    "a shift of another scale": Program(
        lambda w: _log_sum_exp(w, jnp.max(w), jnp.max(w), 10.0), TRIPLE
    ),
    "a shift by a clip": Program(
        lambda w: (
            jnp.log(jnp.sum(jnp.exp(jnp.clip(w - jnp.max(w), -1.0, 1.0)))) + jnp.max(w)
        ),
        TRIPLE,
    ),
    "a maximum of other elements": Program(
        lambda w: -_log_sum_exp(w[0], jnp.max(w[0]), jnp.max(w[1])), GRID, "concave"
    ),
    "maxima over another axis": Program(
        lambda w: jnp.sum(
            jnp.log(jnp.sum(jnp.exp(w - jnp.max(w, 1)), 1)) + jnp.max(w, 1)
        ),
        GRID,
    ),
    "a shift that is not added back": Program(
        lambda w: _log_sum_exp(w, jnp.max(w), -jnp.max(w)), TRIPLE
    ),
    "a stale shift in a scan": Program(
        lambda w: _online(w, lambda old, new: 1.0 + 0.0 * (old - new)), TRIPLE
    ),
    "a shift turned about in a scan": Program(
        lambda w: _online(w, lambda old, new: jnp.exp(new - old)), TRIPLE
    ),
    "a softplus of the wrong element": Program(
        lambda w: jnp.sum(jnp.log1p(jnp.exp(-jnp.abs(w))) - jnp.maximum(w[::-1], 0.0)),
        TRIPLE,
    ),
    "half a softplus": Program(
        lambda w: jnp.log1p(jnp.exp(-jnp.abs(w))) + 0.4 * jnp.maximum(w, 0.0)
    ),
    "weights below zero": Program(
        lambda w: special.logsumexp(w, b=jnp.array([1.0, -0.5, 1.0])), TRIPLE
    ),
    # loops
    "a carry that changes its sign": Program(_loop(lambda w: w**2, lambda c, *_: -c)),
    "carries that change places": Program(
        lambda w: lax.fori_loop(0, 20_001, lambda _, c: (c[1], c[0]), (w**2, -(w**2)))[
            0
        ]
    ),
    "the last round is another": Program(
        _loop(lambda w: w**2, lambda c, w, i: jnp.where(i < 20_000, c, -(w**2)))
    ),
    "a counter in a factor": Program(
        lambda w: (
            lax.fori_loop(0, 20_001, lambda _, c: c - 1.0, jnp.asarray(5.0)) * w**2
        )
    ),
    "weights of a loop of both signs": Program(
        lambda w: lax.scan(
            lambda c, d: (c + d * w**2, None), 0.0 * w, jnp.linspace(-1.0, 0.5, 20_001)
        )[0],
    ),
    "rounds that depend on the params": Program(
        lambda w: lax.fori_loop(0, _int(w), lambda _, c: c + w**2, 0.0 * w)
    ),
    # impostors and wrappers
    "a lying derivative": Program(
        lambda w: _lying(w),
    ),
    "an impostor by name": Program(lambda w: jax.jit(_named("logaddexp"))(w, w)),
    "a branch of the params": Program(
        lambda w: jnp.sum(
            jax.vmap(lambda v: lax.cond(v > 0, lambda: v**2, lambda: -(v**2)))(w)
        ),
        TRIPLE,
    ),
}


@jax.custom_jvp
def _lying(w: Any) -> Any:
    return -(w**2)


_lying.defjvp(lambda primals, tangents: (primals[0] ** 2, 2 * primals[0] * tangents[0]))


def _named(name: str) -> Any:
    def impostor(x: Any, y: Any) -> Any:
        return -x * y

    impostor.__name__ = name
    return impostor


TRUE = {
    "a maximum with -inf": Program(lambda w: jnp.maximum(w**2, -jnp.inf)),
    "-inf of a mask": Program(
        lambda w, d: special.logsumexp(w * d + jnp.log(d)),
        data=jnp.array([0.0, 0.0, 2.0]),
    ),
    "a mask of many": Program(
        lambda w, d: special.logsumexp(jnp.where(d > 0, w * d, -jnp.inf)),
        data=np.linspace(-1.0, 1.0, 300),
    ),
    "log 0 is not chosen": Program(
        lambda w, d: jnp.sum(jnp.where(d > 0, jnp.log(d) + 3.0, 0.0)) * w**2,
        data=jnp.array([0.0, 1.0, 2.0]),
    ),
    "integers of the data": Program(
        lambda w, n: (n // 2) * w**2, data=Box(jnp.int32(1), jnp.int32(5))
    ),
    "booleans of the data": Program(
        lambda w, n: n.astype(jnp.bool_) * w**2, data=Box(jnp.int32(0), jnp.int32(5))
    ),
    "a running maximum": Program(lambda w: jnp.sum(lax.cummax(w)), TRIPLE),
    "a scatter": Program(lambda w: jnp.sum(w.at[0].set(w[1]) ** 2), TRIPLE),
    "an outer product": Program(lambda w: jnp.trace(jnp.outer(w, w)), np.ones(80)),
    "a gathered square": Program(
        lambda w, k: jnp.sum(w[k] * w[k]),
        TRIPLE,
        data=Box(*np.int32([[0] * 3, [2] * 3])),
    ),
    "the two largest": Program(lambda w: jnp.sum(lax.top_k(w, 2)[0]), TRIPLE),
    "sorted weights": Program(
        lambda w: jnp.sort(w) @ jnp.array([0.1, 0.2, 0.3]), TRIPLE
    ),
    "the two smallest": Program(lambda w: jnp.sum(jnp.sort(w)[:2]), TRIPLE, "concave"),
    "a relative entropy": Program(
        lambda w: w[0] * jnp.log(w[0] / w[1]),
        PAIR,
        domain=box([0.5, 1.0], [2.0, 2.0]),
    ),
    "a shift and its scale": Program(
        lambda w: 0.5 * _log_sum_exp(w, jnp.max(w), 0.0, 2.0) + jnp.max(w), TRIPLE
    ),
    "a shift by a minimum": Program(
        lambda w: _log_sum_exp(w, jnp.min(w), jnp.min(w)), TRIPLE
    ),
    "a stable softplus": Program(
        lambda w: jnp.sum(jnp.log1p(jnp.exp(-jnp.abs(w))) + jnp.maximum(w, 0.0)), TRIPLE
    ),
    "a sum in a loop": Program(_loop(lambda w: w, lambda c, w, _: c + w**2)),
    "a product in a loop": Program(
        _loop(jnp.exp, lambda c, w, _: c * jnp.exp(w)), 0.0, domain=box(-0.01, 0.01)
    ),
    "the branch of the data": Program(
        lambda w, k: lax.switch(k, [lambda: w**2, lambda: jnp.exp(w)]),
        data=Box(jnp.int32(0), jnp.int32(1)),
    ),
    "a geometric mean": Program(
        lambda w: jnp.sqrt(jnp.prod(w)), PAIR, "concave", box([0.1, 0.1], [2.0, 2.0])
    ),
}
