"""Random losses whose curvature hangs on machine integers, judged by their own values.

A program computes with integers and booleans of all widths, known ones and ones that
come from comparisons of x, lets them wrap, and weighs convex functions of x with the
outcome. Branches on dtypes, draws, loops, programs inside primitives and borrowed names
occur too. Whatever is claimed is compared with the function itself, as jax runs it.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import phihat
from phihat import Box
from phihat.convexity import Verdict
from phihat.convexity.numbers.intervals import from_array
from phihat.convexity.primitives.evaluation import Undefined, Unreadable, evaluate
from phihat.convexity.program.problem import pose
from tests.convexity_foundation import KINDS

__all__ = ["random_loss", "wrong_claims"]

_DTYPES = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "bool")
_WIDE = (*_DTYPES, "int64", "uint64")
_SIZE = 5
_FOR_CONVEX = (Verdict.PROVED_CONVEX, Verdict.PROVED_AFFINE)
_FOR_CONCAVE = (Verdict.PROVED_CONCAVE, Verdict.PROVED_AFFINE)
_POINTS = np.linspace(-1.75, 2.25, 17)

Step = Callable[[list[Any], Any], Any]
"""Computes one more array from those before it, and x."""


class _Builder:
    """Draws the steps of a program."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.dtypes = _WIDE if jax.config.read("jax_enable_x64") else _DTYPES
        self.steps: list[Step] = []

    def pick(self, *choices: Any) -> Any:
        return choices[self.rng.integers(len(choices))]

    def dtype(self, *, integer: bool = False) -> str:
        kinds = [d for d in self.dtypes if d != "bool"] if integer else self.dtypes
        return self.pick(*kinds)

    def source(self) -> Step:
        dtype = self.dtype()
        kind = self.rng.integers(4)
        if dtype == "bool":
            values = self.rng.integers(0, 2, _SIZE).astype(bool)
        elif kind == 0:
            values = np.arange(_SIZE).astype(dtype)
        else:
            info = np.iinfo(dtype)
            span = self.pick(4, 120, 2**15, 2**31)
            low, high = max(info.min, -span), min(info.max, span)
            values = self.rng.integers(low, high, _SIZE, endpoint=True).astype(dtype)
        if kind < 3:
            return lambda _, x: jnp.asarray(values)
        edge = self.pick(-100.0, -100.0, 0.3)  # mostly one that x never crosses
        return lambda _, x: jnp.where(
            x > edge, jnp.asarray(values), jnp.asarray(0, dtype)
        )

    def step(self) -> Step:
        """Draw a step; it is kept only if jax accepts it for the dtypes at hand."""
        i, j = self.rng.integers(len(self.steps), size=2)
        number = int(self.rng.integers(1, 9))
        to = self.dtype()
        index = self.rng.integers(-1, _SIZE + 1, _SIZE)
        places = self.rng.integers(0, 2, _SIZE)
        same = lambda v: v[j].astype(v[i].dtype)
        return self.pick(
            lambda v, x: v[i] + same(v),
            lambda v, x: v[i] - same(v),
            lambda v, x: v[i] * same(v),
            lambda v, x: lax.max(v[i], same(v)),
            lambda v, x: lax.div(v[i], same(v) | jnp.asarray(1, v[i].dtype)),
            lambda v, x: lax.rem(v[i], same(v) | jnp.asarray(1, v[i].dtype)),
            lambda v, x: v[i] & same(v),
            lambda v, x: v[i] | same(v),
            lambda v, x: v[i] ^ same(v),
            lambda v, x: ~v[i],
            lambda v, x: -v[i],
            lambda v, x: abs(v[i]),
            lambda v, x: lax.sign(v[i]),
            lambda v, x: v[i] << jnp.asarray(number % 7, v[i].dtype),
            lambda v, x: v[i] >> jnp.asarray(number % 7, v[i].dtype),
            lambda v, x: lax.integer_pow(v[i], number % 5),
            lambda v, x: v[i].astype(to),
            lambda v, x: (v[i].astype(jnp.int8).astype(jnp.float32) / 2).astype(to),
            lambda v, x: lax.cumsum(v[i]),
            lambda v, x: lax.cumprod(v[i]),
            lambda v, x: lax.cummax(v[i], reverse=True),
            lambda v, x: jnp.sort(v[i]),
            lambda v, x: v[i][::-1],
            lambda v, x: jnp.full(_SIZE, jnp.sum(v[i], dtype=v[i].dtype)),
            lambda v, x: jnp.full(_SIZE, jnp.prod(v[i], dtype=v[i].dtype)),
            lambda v, x: jnp.full(_SIZE, jnp.dot(v[i], same(v))),
            lambda v, x: jnp.full(_SIZE, lax.reduce_and(v[i], (0,))),
            lambda v, x: jnp.full(_SIZE, lax.reduce_or(v[i], (0,))),
            lambda v, x: jnp.full(_SIZE, lax.reduce_min(v[i], (0,))),
            lambda v, x: jnp.full(_SIZE, lax.argmax(v[i], 0, jnp.dtype(jnp.int8))),
            lambda v, x: v[i].at[places].add(same(v)),
            lambda v, x: v[i].at[places].multiply(same(v)),
            lambda v, x: v[i].at[index].max(same(v)),
            lambda v, x: v[i].at[number % _SIZE].set(v[j][0].astype(v[i].dtype)),
            lambda v, x: v[i].at[number % _SIZE].apply(lambda a: a * a),
            lambda v, x: v[i][index],
            lambda v, x: v[i][v[j].astype(jnp.int32) % _SIZE],
            lambda v, x: v[i] < same(v),
            lambda v, x: v[i] == same(v),
            lambda v, x: jnp.where(v[j] > 0, v[i], v[i] + jnp.asarray(1, v[i].dtype)),
            lambda v, x: jnp.clip(v[i], 0, number),
            lambda v, x: lax.fori_loop(0, number, lambda _, c: c + c, v[i]),
            lambda v, x: lax.scan(lambda c, r: (c + r, c), v[i][0], v[i])[1],
            lambda v, x: lax.cond(v[j][0] > 0, lambda a: a + a, lambda a: a, v[i]),
            lambda v, x: lax.iota(to if to != "bool" else "uint8", 300)[-_SIZE:],
            lambda v, x: lax.population_count(v[i]),
            lambda v, x: jax.random.randint(
                jax.random.key(number), (_SIZE,), 0, 99
            ).astype(to),
        )


_TERMS: tuple[Callable[[Any], Any], ...] = (
    lambda x: x**2,
    jnp.abs,
    lambda x: jnp.exp(0.5 * x),
    jax.nn.softplus,
    lambda x: x,
    lambda x: jnp.maximum(x - 0.5, 0.0),
)


def random_loss(seed: int) -> Callable[[Any], Any]:
    """Return a loss of one number, under the flags of the moment."""
    builder = _Builder(seed)
    if builder.rng.integers(12) == 0:
        kind = builder.pick(*KINDS)
        return KINDS[kind][builder.pick(*KINDS[kind])]
    builder.steps = [builder.source() for _ in range(3)]
    for _ in range(int(builder.rng.integers(2, 9))):
        step = builder.step()
        steps = [*builder.steps, step]
        try:
            jax.eval_shape(functools.partial(_run, steps), jnp.float32(0.5))
        except TypeError:  # not of these dtypes
            continue
        builder.steps = steps
    steps = builder.steps
    count = int(builder.rng.integers(1, 4))
    uses = [
        (
            int(builder.rng.integers(len(steps) - 2, len(steps))),
            int(builder.rng.integers(_SIZE)),
            builder.pick(*_TERMS),
            builder.pick("weight", "weight", "sign", "branch"),
        )
        for _ in range(count)
    ]

    def loss(x: Any) -> Any:
        arrays = _run(steps, x)
        total = 0.0 * x
        for which, place, term, how in uses:
            number = arrays[which][place]
            if how == "weight":
                total = total + number.astype(total.dtype) * term(x)
            elif how == "sign":
                total = total + jnp.where(number > 0, 1.0, -0.5) * term(x)
            else:
                total = total + jnp.where(number > 3, term(x), -term(x))
        return total

    return loss


def _run(steps: list[Step], x: Any) -> list[Any]:
    arrays: list[Any] = []
    for step in steps:
        arrays.append(step(arrays, x))
    return arrays


def wrong_claims(
    loss: Callable[[Any], Any], *, all_parts: bool
) -> tuple[str, list[str]]:
    """Ask about a loss; return the verdict, and what its own values contradict."""
    x64 = jax.config.read("jax_enable_x64")
    dtype = np.float64 if x64 else np.float32
    at = _POINTS.astype(dtype)
    values = np.array([float(loss(jnp.asarray(x))) for x in at])
    room = (1e-11 if x64 else 3e-6) * (1.0 + np.abs(values).max())
    bends = values[:-2] - 2 * values[1:-1] + values[2:]
    is_convex, is_concave = bends.min() >= -room, bends.max() <= room
    wrong: list[str] = []
    start = dtype(0.5)
    report = phihat.prove_convexity(loss, start)
    if report.verdict in _FOR_CONVEX and not is_convex:
        wrong.append(f"{report.verdict.name}, yet a second difference is {bends.min()}")
    if report.verdict in _FOR_CONCAVE and not is_concave:
        wrong.append(f"{report.verdict.name}, yet a second difference is {bends.max()}")
    program = pose("soundness", loss, start).program
    for x, value in zip(at[::4], values[::4], strict=True):
        try:
            found = evaluate(program, {program.params[0]: from_array(x)})
        except (Undefined, Unreadable):
            break
        enclosure = found[program.output]
        if not enclosure.low - room <= value <= enclosure.high + room:
            wrong.append(f"the value {value} at {x} is not within {enclosure}")
    if not all_parts:
        return report.verdict.name, wrong
    box = Box(dtype(-1.75), dtype(2.25))
    least, most = phihat.curvature_floor(loss, box, budget=0.05)
    width = 0.25**2
    if bends.min() < least * width - 2 * room or bends.max() > most * width + 2 * room:
        wrong.append(f"curvature in {least}, {most}; seen {bends / width}")
    refuted = phihat.refute_convexity(loss, start, budget=0.3)
    if refuted.witness is not None:
        witness = refuted.witness
        ends = [float(np.asarray(end)) for end in (witness.a, witness.b)]
        middle = ends[0] + witness.t * (ends[1] - ends[0])
        for x, value in zip((ends[0], middle, ends[1]), witness.values, strict=True):
            seen = float(loss(jnp.asarray(x, dtype)))
            size = 1.0 + abs(seen) + abs(value)
            off = abs(seen - value) > (1e-9 if x64 else 1e-4) * size
            if np.isfinite(value) and np.isfinite(seen) and off:
                wrong.append(f"a witness says {value} at {x}, and the loss is {seen}")
    return report.verdict.name, wrong
