"""Programs on which the prover's claims are tried: directed at each rule, and random.

A case is a loss with its params, data and domain. `directed()` makes, for each rule,
its primitive on arguments of every sign, curvature and range; `random_case(choices)`
builds a program from a list of integers, which NumPy or hypothesis draws.
`examine(case)` asks the prover and holds what it says of *every element of every
value* against chords.
"""

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.scipy.special as special
import numpy as np

from phihat import Box
from phihat.convexity.primitives.facts.facts import Facts
from phihat.convexity.program.problem import Problem, pose
from phihat.convexity.prover import interpreter as prover
from tests import convexity_values
from tests.convexity_values import Breach, Values

__all__ = [
    "Case",
    "Finding",
    "chords",
    "directed",
    "examine",
    "facts_of",
    "judged",
    "posed",
    "random_case",
]


class Case(NamedTuple):
    name: str
    loss_fn: Any
    params: Any
    data: Any = None
    domain: Any = None


class Finding(NamedTuple):
    """What the prover said of a case, and the claims that are false.

    Attributes:
      facts: what is known of the loss; nothing where a rule ends the proof.
      false: breaches that intervals confirm, or that floats leave no doubt of.
      open: breaches that intervals neither confirm nor rule out.
    """

    facts: Facts
    false: list[Breach]
    open: list[Breach]


# ------------------------------------------------------------------------ checking


def posed(case: Case) -> Problem:
    with jax.numpy_rank_promotion("allow"):
        return pose(case.name, *case[1:4], domain=case.domain)


def facts_of(problem: Problem, module: Any = prover) -> tuple[Facts, dict[int, Any]]:
    """Return what the prover knows of the loss, and its array of each value.

    Where a rule ends the proof, the loss is unknown; but the values that do not depend
    on that step are still looked at.
    """
    lost: set[int] = set()
    kept: list[Any] = []

    class Unstoppable(module.Interpreter):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            kept.append(self)

        def apply(self, equation: Any, inputs: Any) -> Any:
            if self is not kept[0]:
                return super().apply(equation, inputs)
            if lost.isdisjoint(equation.inputs):
                try:
                    return super().apply(equation, inputs)
                except module.Undecided:
                    pass
            lost.update(equation.outputs)
            shapes = [self.program.shapes[number] for number in equation.outputs]
            nothing = module.TOP.replace(constant=True)  # which no rescue looks at
            return [module.Array.of(nothing, shape) for shape in shapes], "lost"

    original = module.Interpreter
    module.Interpreter = Unstoppable
    try:
        proof = module.prove(problem)
    finally:
        module.Interpreter = original
    known = {n: array for n, array in kept[0].values.items() if n not in lost}
    return (module.TOP if lost else proof.facts), known


def chords(problem: Problem, rng: np.random.Generator, count: int) -> Values:
    """Draw rows for all inputs, in thirds: left ends, middles and right ends.

    Ends lie on a dyadic grid, often on bounds and whole numbers, where kinks are; a
    third of the chords is short, a third moves along one coordinate.
    """
    inputs: Values = {}
    ends: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    for number, interval in zip(problem.program.params, problem.domain, strict=True):
        ends[number] = _ends(interval, rng, count)
    kind = np.arange(count) % 3
    sizes = {n: int(np.prod(left.shape[1:])) for n, (left, _) in ends.items()}
    moving = rng.integers(0, sum(sizes.values()), count)
    start = 0
    for number, (left, right) in ends.items():
        wide = (count,) + (1,) * (left.ndim - 1)
        scale = 2.0 ** -rng.integers(1, 9, wide)
        near = left + (right - left) * scale
        right = np.where((kind == 1).reshape(wide), near, right)
        places = start + np.arange(sizes[number]).reshape(1, *left.shape[1:])
        still = (kind == 2).reshape(wide) & (places != moving.reshape(wide))
        right = np.where(still, left, right)
        start += sizes[number]
        inputs[number] = np.concatenate([left, left + (right - left) / 2, right])
    for number, interval in zip(problem.program.data, problem.data, strict=True):
        if interval is None:
            continue
        low, high = interval.low, interval.high
        if np.array_equal(low, high):
            inputs[number] = low[None]
        else:
            left, _ = _ends(interval, rng, count)
            inputs[number] = np.concatenate([left] * 3)
        dtype = problem.program.dtypes[number]
        if jnp.issubdtype(dtype, jnp.integer) or dtype == np.bool_:
            inputs[number] = np.rint(inputs[number]).astype(dtype)
    return inputs


def _ends(
    interval: Any, rng: np.random.Generator, count: int
) -> tuple[np.ndarray, np.ndarray]:
    low, high = interval.low, interval.high
    shape = (2 * count, *low.shape)
    free = np.round(rng.normal(size=shape) * 2.0 ** rng.integers(-2, 3, shape), 0)
    fine = np.round(rng.normal(size=shape) * 256) / 128
    points = np.where(rng.random(shape) < 0.4, free, fine)
    with np.errstate(invalid="ignore"):
        inside = low + (high - low) * np.clip(rng.integers(-8, 73, shape), 0, 64) / 64
    points = np.where(np.isfinite(inside), inside, points)
    below = np.isfinite(low) & ~np.isfinite(high)
    points = np.where(below, low + np.abs(points), points)
    above = np.isfinite(high) & ~np.isfinite(low)
    points = np.where(above, high - np.abs(points), points)
    return points[:count], points[count:]


def examine(
    case: Case, *, count: int = 48, seed: int = 0, problem: Problem | None = None
) -> Finding:
    """Prove, and try every claim on chords."""
    problem = posed(case) if problem is None else problem
    inputs = chords(problem, np.random.default_rng(seed), count)
    values = convexity_values.values_of(problem.program, inputs)
    return judged(problem, inputs, values, *facts_of(problem))


def judged(
    problem: Problem,
    inputs: Values,
    values: Values,
    proved: Facts,
    known: dict[int, Any],
    *,
    only: Any = None,
) -> Finding:
    """Hold claims against values; confirm what they seem to break by intervals."""
    false, unclear = [], []
    program = problem.program
    found = convexity_values.breaches(program, known, values, only=only)
    for breach in itertools.islice(found, 24):
        array = known[breach.number]
        places = np.zeros(array.size, int) if array.places is None else array.places
        facts = array.classes[int(np.ravel(places)[breach.element])]
        sure = convexity_values.confirmed(program, inputs, breach, facts)
        if sure:
            false.append(breach)
        elif sure is None:
            unclear.append(breach)
    return Finding(proved, false, unclear)


# ------------------------------------------------------------------------- arguments

_Arguments = dict[str, Callable[[Any, Any], Any]]

POINT = np.array([0.5, -0.25, 1.0, 1.5])
DOMAIN = Box(np.array([-np.inf, -2.0, 0.0, 0.25]), np.array([np.inf, 1.5, 3.0, 4.0]))
RANGES = Box(np.array([-1.0, 0.0, 0.5, -2.0]), np.array([2.0, 1.0, 1.5, -0.5]))
"""x is free, b in [-2, 1.5], y >= 0 (to 3), z > 0; data of each sign are ranges."""


def _sum_of_squares(*terms: Any) -> Any:
    return functools.reduce(jnp.add, (term * term for term in terms))


AFFINE: _Arguments = {
    "x": lambda p, d: p[0],
    "-x": lambda p, d: -p[0],
    "x+b": lambda p, d: p[0] + 2.0 * p[1] - 0.5,
    "b": lambda p, d: p[1],
    "y": lambda p, d: p[2],
    "3-y": lambda p, d: 3.0 - p[2],
    "1-y": lambda p, d: 1.0 - p[2],
    "z": lambda p, d: p[3],
    "y+z": lambda p, d: p[2] + p[3],
    "-y": lambda p, d: -p[2],
    "-z": lambda p, d: -p[3],
}
CONVEX: _Arguments = {
    "exp x": lambda p, d: jnp.exp(p[0]),
    "x^2": lambda p, d: p[0] ** 2,
    "|x|": lambda p, d: jnp.abs(p[0]),
    "norm": lambda p, d: jnp.sqrt(_sum_of_squares(p[0], p[1])),
    "max(x,b)": lambda p, d: jnp.maximum(p[0], p[1]),
    "hinge": lambda p, d: jnp.maximum(1.0 - p[0], 0.0),
    "b^2-5": lambda p, d: p[1] ** 2 - 5.0,
    "b^2-1": lambda p, d: p[1] ** 2 - 1.0,
    "-sqrt y": lambda p, d: -jnp.sqrt(p[2]),
    "-log z": lambda p, d: -jnp.log(p[3]),
    "1/z": lambda p, d: 1.0 / p[3],
    "exp x^2": lambda p, d: jnp.exp(p[1] ** 2),
    "-1/(1+y)^-1": lambda p, d: -(p[2] ** 0.4),
    "y^1.4": lambda p, d: p[2] ** 1.4,
    "y^2": lambda p, d: p[2] ** 2,
    "z^-0.4": lambda p, d: p[3] ** -0.4,
    "quad": lambda p, d: _sum_of_squares(p[0], p[1], p[2]) + 0.5,
}
CONCAVE: _Arguments = {
    "sqrt y": lambda p, d: jnp.sqrt(p[2]),
    "sqrt z": lambda p, d: jnp.sqrt(p[3]),
    "sqrt yz": lambda p, d: jnp.sqrt(p[2]) * jnp.sqrt(p[3]),
    "log z": lambda p, d: jnp.log(p[3]),
    "log1p y": lambda p, d: jnp.log1p(p[2]),
    "-x^2": lambda p, d: -(p[0] ** 2),
    "-exp x": lambda p, d: -jnp.exp(p[0]),
    "-|x|": lambda p, d: -jnp.abs(p[0]),
    "min(x,b)": lambda p, d: jnp.minimum(p[0], p[1]),
    "4-b^2": lambda p, d: 4.0 - p[1] ** 2,
    "5-b^2": lambda p, d: 5.0 - p[1] ** 2,
    "y^0.4": lambda p, d: p[2] ** 0.4,
    "min(y,z)": lambda p, d: jnp.minimum(p[2], p[3]),
}
LOG_CONCAVE: _Arguments = {
    "yz": lambda p, d: p[2] * p[3],
    "sigmoid x": lambda p, d: jax.nn.sigmoid(p[0]),
    "exp -x^2": lambda p, d: jnp.exp(-(p[0] ** 2)),
}
NEITHER: _Arguments = {
    "sin x": lambda p, d: jnp.sin(p[0]),
    "x b": lambda p, d: p[0] * p[1],
    "b^3": lambda p, d: p[1] ** 3,
    "tanh x": lambda p, d: jnp.tanh(p[0]),
    "2+sin": lambda p, d: 2.0 + jnp.sin(3.0 * p[0]),
}
CONSTANT: _Arguments = {
    "0": lambda p, d: jnp.zeros(()),
    "1": lambda p, d: jnp.ones(()),
    "-1": lambda p, d: -jnp.ones(()),
    "0.4": lambda p, d: jnp.full((), 0.4),
    "-0.3": lambda p, d: jnp.full((), -0.3),
    "-0.99": lambda p, d: jnp.full((), -0.99),
    "2.5": lambda p, d: jnp.full((), 2.5),
    "[-1,2]": lambda p, d: d[0],
    "[0,1]": lambda p, d: d[1],
    "[.5,1.5]": lambda p, d: d[2],
    "[-2,-.5]": lambda p, d: d[3],
}
VARYING = {**AFFINE, **CONVEX, **CONCAVE, **LOG_CONCAVE, **NEITHER}
ARGUMENTS = {**VARYING, **CONSTANT}
_SIGNED = ("z", "-z", "y+z", "exp x", "1/z", "exp x^2", "z^-0.4", "quad", "sqrt z")
_SIGNED += ("-exp x", "5-b^2", "b^2-5", "sigmoid x", "exp -x^2", "2+sin", "1", "-1")
_SIGNED += ("0.4", "-0.3", "2.5", "[.5,1.5]", "[-2,-.5]")
"""Names of arguments that may be divided by."""


# ----------------------------------------------------------------- directed programs


_TOTAL: dict[str, Callable[[Any], Any]] = {
    "neg": lambda z: -z,
    "exp": jnp.exp,
    "exp2": jnp.exp2,
    "expm1": jnp.expm1,
    "square": jnp.square,
    "z^2": lambda z: z**2,
    "z^3": lambda z: z**3,
    "z^4": lambda z: z**4,
    "z^3.0": lambda z: jnp.power(z, 3.0),
    "z^0": lambda z: jnp.power(z, 0.0),
    "z^1.0": lambda z: jnp.power(z, 1.0),
    "2^z": lambda z: jnp.power(2.0, z),
    ".3^z": lambda z: jnp.power(0.3, z),
    "abs": jnp.abs,
    "relu": lambda z: jnp.maximum(z, 0.0),
    "cap": lambda z: jnp.minimum(z, 1.0),
    "clip": lambda z: jnp.clip(z, -1.0, 1.0),
    "clip+": lambda z: jnp.clip(z, 0.0, 1e9),
    "clamp": lambda z: jax.lax.clamp(0.25, z, 2.0),
    "logistic": jax.nn.sigmoid,
    "softplus": jax.nn.softplus,
    "log_sigmoid": jax.nn.log_sigmoid,
    "tanh": jnp.tanh,
    "erf": jax.lax.erf,
    "erfc": jax.lax.erfc,
    "log_ndtr": special.log_ndtr,
    "ndtr": special.ndtr,
    "cosh": jnp.cosh,
    "sinh": jnp.sinh,
    "sin": jnp.sin,
    "cos": jnp.cos,
    "atan": jnp.arctan,
    "asinh": jnp.arcsinh,
    "cbrt": jnp.cbrt,
    "sign": jnp.sign,
    "floor": jnp.floor,
    "ceil": jnp.ceil,
    "round": jnp.round,
    "round away": lambda z: jax.lax.round(z, jax.lax.RoundingMethod.AWAY_FROM_ZERO),
    "int": lambda z: z.astype(int).astype(float),
    "is_finite": lambda z: jnp.isfinite(z).astype(float),
    "log1p exp": lambda z: jnp.log1p(jnp.exp(z)),
    "log cosh": lambda z: jnp.log(jnp.cosh(z)),
    "logaddexp": lambda z: jnp.logaddexp(z, 0.5),
    "1-sigmoid": lambda z: 1.0 - jax.nn.sigmoid(z),
    "1-1/(1+e)": lambda z: 1.0 - 1.0 / (1.0 + jnp.exp(z)),
    "1-2/(1+e)": lambda z: 1.0 - 2.0 / (1.0 + jnp.exp(z)),
    "huber": lambda z: jnp.where(jnp.abs(z) <= 1.0, 0.5 * z**2, jnp.abs(z) - 0.5),
    "jump": lambda z: jnp.where(z > 0.5, z, z - 1.0),
    "kink": lambda z: jnp.where(z > 0.0, z, 2.0 * z),
    "z>0": lambda z: (z > 0.0).astype(float),
    "z>=0": lambda z: (z >= 0.0).astype(float),
    "z<=-5": lambda z: (z <= -5.0).astype(float),
    "z<0": lambda z: (z < 0.0).astype(float),
    "z==1": lambda z: (z == 1.0).astype(float),
    "z!=0": lambda z: (z != 0.0).astype(float),
    "z is z": lambda z: (z == z).astype(float),
    "z z": lambda z: z * z,
    "z-z": lambda z: z - z,
}
_PARTIAL: dict[str, Callable[[Any], Any]] = {
    "log": jnp.log,
    "log1p": jnp.log1p,
    "sqrt": jnp.sqrt,
    "rsqrt": jax.lax.rsqrt,
    "z^.5": lambda z: z**0.5,
    "z^1.4": lambda z: z**1.4,
    "z^2.5": lambda z: z**2.5,
    "z^-.5": lambda z: z**-0.5,
    "z^-1": lambda z: z**-1,
    "z^-2": lambda z: z**-2,
    "z^-3": lambda z: jax.lax.integer_pow(z, -3),
    "z^-1.0": lambda z: jnp.power(z, -1.0),
    "1/z": lambda z: 1.0 / z,
    "-2/z": lambda z: -2.0 / z,
    "lgamma": jax.lax.lgamma,
    "digamma": jax.lax.digamma,
    "entr": special.entr,
    "entr atom": jax.jit(special.entr),
    "z log z": lambda z: z * jnp.log(z),
    "xlogy(z,z)": lambda z: special.xlogy(z, z),
    "xlogy(2,z)": lambda z: special.xlogy(2.0, z),
    "xlog1py(-2,z)": lambda z: special.xlog1py(-2.0, z),
    "tan": jnp.tan,
    "acosh": jnp.arccosh,
    "exp -logaddexp": lambda z: jnp.exp(-jnp.logaddexp(z, 0.0)),
    "guarded root": lambda z: jnp.where(
        jnp.maximum(2.0, jnp.minimum(jnp.sqrt(z), 1.0)) > 1.0, z, 5.0 - z
    ),
    "guarded sum": lambda z: jnp.where(jnp.sqrt(z) + 1.0 > 0.5, z, 5.0 - z),
    "guarded maximum": lambda z: jnp.where(jnp.maximum(jnp.sqrt(z), 1.0) > 0.5, z, -z),
    "guarded product": lambda z: jnp.where(jnp.sqrt(z) * 0.0 == 0.0, z, 5.0 - z),
    "finite log": lambda z: jnp.where(jnp.isfinite(jnp.log(z)), z, 5.0),
    "staircase of a log": lambda z: jnp.floor(0.0 * jnp.log(z)),
    "log where": lambda z: jnp.where(z > 0.0, jnp.sqrt(z), -z),
    "log over": lambda z: jnp.log(2.0 + jnp.minimum(z, 5.0)),
    "where log": lambda z: jnp.where(z > 1.0, jnp.log(z), 0.0),
    "max(log,0)": lambda z: jnp.maximum(jnp.log(z), 0.0),
    "log(1-e^-z)": lambda z: jnp.log(1.0 - jnp.exp(-z)),
}
_BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "add": jnp.add,
    "sub": jnp.subtract,
    "mul": jnp.multiply,
    "max": jnp.maximum,
    "min": jnp.minimum,
    "logaddexp": jnp.logaddexp,
    "lt": lambda x, y: (x < y).astype(float),
    "ge": lambda x, y: (x >= y).astype(float),
    "eq": lambda x, y: (x == y).astype(float),
    "where": lambda x, y: jnp.where(x > 0.0, y, -y),
    "where both": lambda x, y: jnp.where((x > -1.0) & (y <= 2.0), x, y),
    "where either": lambda x, y: jnp.where((x > 1.0) | ~(y <= 2.0), x, y),
    "where xor": lambda x, y: jnp.where((x > 0.0) ^ (y > 0.0), x, y),
}
_BINARY_PARTIAL: dict[str, Callable[[Any, Any], Any]] = {
    "xlogy": special.xlogy,
    "xlog1py": special.xlog1py,
    "rel_entr": special.rel_entr,
    "kl_div": special.kl_div,
    "rel_entr atom": jax.jit(special.rel_entr),
    "kl_div atom": jax.jit(special.kl_div),
    "x log x/y": lambda x, y: x * jnp.log(x / y),
    "x (log x - log y)": lambda x, y: x * (jnp.log(x) - jnp.log(y)),
    "x (log y - log x)": lambda x, y: x * (jnp.log(y) - jnp.log(x)),
    "entropy difference": lambda x, y: special.xlogy(x, x) - special.xlogy(x, y),
    "ordinal": lambda x, y: jnp.log(jax.nn.sigmoid(x) - jax.nn.sigmoid(y)),
    "pow": jnp.power,
    "x^2/y": lambda x, y: x**2 / y,
    "log difference": lambda x, y: jnp.log(x - y),
}
_REDUCTIONS: dict[str, Callable[[Any], Any]] = {
    "sum": jnp.sum,
    "mean": jnp.mean,
    "max": jnp.max,
    "min": jnp.min,
    "prod": jnp.prod,
    "logsumexp": jax.nn.logsumexp,
    "softmax": jax.nn.softmax,
    "log_softmax": jax.nn.log_softmax,
    "norm": lambda v: jnp.sqrt(jnp.sum(v**2)),
    "cumsum": jnp.cumsum,
    "cumsum reversed": lambda v: jax.lax.cumsum(v, reverse=True),
    "cumprod": jnp.cumprod,
    "cummax": jax.lax.cummax,
    "cummin": jax.lax.cummin,
    "cumlogsumexp": jax.lax.cumlogsumexp,
    "sort": jnp.sort,
    "2 largest": lambda v: jnp.sum(jnp.sort(v)[-2:]),
    "2 smallest": lambda v: jnp.sum(jnp.sort(v)[:2]),
    "2 middle": lambda v: jnp.sum(jnp.sort(v)[1:3]),
    "top 2": lambda v: jnp.sum(jax.lax.top_k(v, 2)[0]),
    "second of top 2": lambda v: jax.lax.top_k(v, 2)[0][1],
    "weighted sort": lambda v: jnp.sort(v) @ jnp.asarray([0.0, 0.5, 1.0, 2.0]),
    "falling sort": lambda v: jnp.sort(v) @ jnp.asarray([2.0, 1.0, 0.5, 0.0]),
    "signed sort": lambda v: jnp.sort(v) @ jnp.asarray([-1.0, 0.0, 0.5, 1.0]),
    "median": lambda v: jnp.median(v),
    "argmax": lambda v: jnp.argmax(v).astype(float),
    "taken at argmax": lambda v: v[jnp.argmax(v)],
    "shifted": lambda v: jnp.log(jnp.sum(jnp.exp(v - jnp.max(v)))) + jnp.max(v),
    "shifted up": lambda v: jnp.log(jnp.sum(jnp.exp(v + jnp.max(v)))) - jnp.max(v),
    "shifted off": lambda v: jnp.log(jnp.sum(jnp.exp(v - jnp.max(v)))),
    "shifted stop": lambda v: (
        jnp.log(jnp.sum(jnp.exp(v - jax.lax.stop_gradient(jnp.max(v)))))
        + jax.lax.stop_gradient(jnp.max(v))
    ),
    "shifted min": lambda v: jnp.log(jnp.sum(jnp.exp(v - jnp.min(v)))) + jnp.min(v),
    "shifted twice": lambda v: (
        jnp.log(jnp.sum(jnp.exp(v - jnp.max(v)))) + 2.0 * jnp.max(v)
    ),
    "shifted sum": lambda v: jnp.sum(v - jnp.max(v)) + jnp.max(v),
    "shifted sum, n": lambda v: jnp.sum(v - jnp.max(v)) + 4.0 * jnp.max(v),
    "clip shifted": lambda v: jnp.sum(jnp.clip(v - jnp.max(v), -1.0, 0.0)) + jnp.max(v),
    "log1p shifted": lambda v: jnp.sum(jnp.log1p(jnp.exp(v - jnp.max(v)))) + jnp.max(v),
    "v @ v": lambda v: v @ v,
    "(2v) @ v": lambda v: (2.0 * v) @ v,
    "(-v) @ v": lambda v: (-0.5 * v) @ v,
    "(signs v) @ v": lambda v: (jnp.asarray([1.0, -1.0, 2.0, 0.5]) * v) @ v,
    "negated shift": lambda v: -(v - jnp.max(v)) + jnp.max(v),
    "raised twice": lambda v: (v + jnp.max(v)) + jnp.max(v),
    "ratio of shifted": lambda v: (
        jnp.log(jnp.exp(v - jnp.max(v)) / jnp.exp(v[1] - jnp.max(v))) + 2.0 * jnp.max(v)
    ),
    "ratio of shifted, back": lambda v: (
        jnp.log(jnp.exp(v - jnp.max(v)) / jnp.exp(v[1] - jnp.max(v)))
        + jnp.max(v)
        + jnp.max(v)
    ),
    "abs shifted": lambda v: jnp.sum(jnp.abs(v - jnp.max(v))) + 4.0 * jnp.max(v),
    "square shifted": lambda v: jnp.sum((v - jnp.max(v)) ** 2) + jnp.max(v),
    "exp exp shifted": lambda v: (
        jnp.log(jnp.log(jnp.sum(jnp.exp(jnp.exp(v - jnp.max(v)))))) + jnp.max(v)
    ),
    "max of shifted": lambda v: jnp.sum(jnp.maximum(v - jnp.max(v), 0.5)) + jnp.max(v),
    "max with shifted": lambda v: (
        jnp.sum(jnp.maximum(v - jnp.max(v), v)) + 4.0 * jnp.max(v)
    ),
    "shifted by rows": lambda v: (
        jnp.sum(
            jnp.log(
                jnp.sum(jnp.exp(v.reshape(2, 2) - jnp.max(v.reshape(2, 2), 0)), axis=1)
            )
        )
        + jnp.sum(jnp.max(v.reshape(2, 2), 0))
    ),
    "half shifted": lambda v: (
        jnp.sum(0.5 * (v - jnp.max(v))) + 4.0 * jnp.max(v) + jnp.sum(0.5 * v)
    ),
    "over shifted": lambda v: 1.0 / jnp.sum(jnp.exp(v - jnp.max(v))),
    "square over shifted": lambda v: (
        jnp.exp(v - jnp.max(v)) / jnp.sum(jnp.exp(v - jnp.max(v)))
    ),
    "masked shifted": lambda v: (
        jnp.log(
            jnp.sum(
                jnp.where(
                    jnp.asarray([True, False, True, True]), jnp.exp(v - jnp.max(v)), 0.5
                )
            )
        )
        + jnp.max(v)
    ),
    "cases by params": lambda v: jnp.where(v[0] > 0.5, v, -v),
    "cases by data": lambda v: jax.lax.dynamic_index_in_dim(v, 1, keepdims=False),
    "v @ rolled": lambda v: v @ jnp.roll(v, 1),
    "outer": lambda v: jnp.outer(v, v),
    "v @ weights": lambda v: v @ jnp.asarray([1.0, 0.0, 2.0, 0.5]),
    "v @ signs": lambda v: v @ jnp.asarray([1.0, -1.0, 2.0, 0.5]),
    "matrix": lambda v: v.reshape(2, 2) @ jnp.asarray([[1.0, -1.0], [0.5, 2.0]]),
    "gram": lambda v: v.reshape(2, 2).T @ v.reshape(2, 2),
    "scatter add": lambda v: jnp.zeros(3).at[jnp.asarray([0, 0, 1, 2])].add(v),
    "scatter sub": lambda v: v[:2].at[jnp.asarray([0, 1])].subtract(v[2:]),
    "scatter set": lambda v: (v**2).at[jnp.asarray([0, 2])].set(v[:2]),
    "gather": lambda v: v[jnp.asarray([3, 1, 1, 0])] + v,
    "pad": lambda v: jnp.pad(v, (1, 2), constant_values=-1.0),
    "fill": lambda v: v[::-1][1:3] - v[1:3],
    "conv": lambda v: jnp.convolve(v, jnp.asarray([1.0, -2.0, 0.5])),
    "variance": jnp.var,
    "masked": lambda v: jax.nn.logsumexp(
        jnp.where(jnp.asarray([True, False, True, True]), v, -jnp.inf)
    ),
    "masked max": lambda v: jnp.max(
        jnp.where(jnp.asarray([True, False, True, True]), v, -jnp.inf)
    ),
    "masked cumsum": lambda v: jnp.cumsum(
        jnp.where(jnp.asarray([True, False, True, True]), v, -jnp.inf)
    ),
}


def directed() -> Iterator[Case]:
    """Yield some eighty cases, whose many values make tens of thousands of claims."""
    every = tuple(ARGUMENTS)
    for names in _parts(list(_TOTAL), 8):
        yield _together(
            f"total: {', '.join(names)}",
            lambda v, names=names: [_TOTAL[name](_stack(v, every)) for name in names],
        )
    for name, fn in _PARTIAL.items():
        yield _together(
            f"partial: {name}", lambda v, fn=fn: [fn(z) for z in v.values()]
        )
    for name, fn in _BINARY.items():
        yield _together(
            f"binary: {name}",
            lambda v, fn=fn: [fn(v[key], _stack(v, every)) for key in _LEFT],
        )
    yield _together(
        "binary: div",
        lambda v: [z / _stack(v, _SIGNED) for z in v.values()],
    )
    yield _together(
        "pairs",
        lambda v: [
            fn(v[one], v[two]) for fn in _BINARY_PARTIAL.values() for one, two in _PAIRS
        ],
    )
    rng = np.random.default_rng(0)
    quadruples = [names.split("; ") for names in _QUADRUPLES]
    quadruples += [rng.choice(every, 4, replace=False).tolist() for _ in range(5)]
    for keys in quadruples:
        yield _together(
            f"reductions: {', '.join(keys)}",
            lambda v, keys=keys: [fn(_stack(v, keys)) for fn in _REDUCTIONS.values()],
            keys,
        )
    yield from _polynomials(rng)
    yield from _pieces(rng)
    yield from _loops()


_LEFT = ("x", "b", "y", "z", "-y", "-z", "exp x", "x^2", "norm", "b^2-5", "-sqrt y")
_LEFT += ("1/z", "y^1.4", "z^-0.4", "sqrt y", "sqrt z", "log z", "4-b^2", "-exp x")
_LEFT += ("yz", "sigmoid x", "sin x", "0", "2.5", "-0.3", "[-1,2]", "[.5,1.5]")
_PAIRS = [
    ("z", "y+z"), ("z", "z"), ("y", "z"), ("z", "exp x"), ("sqrt z", "z"),
    ("1", "z"), ("x", "b"), ("x", "x"), ("x", "x+b"), ("z", "-z"), ("y", "1-y"),
    ("2.5", "x"), ("x", "2.5"), ("z", "2.5"), ("z", "[-1,2]"), ("-z", "z"),
    ("exp x", "y^0.4"), ("y^1.4", "y^0.4"), ("[.5,1.5]", "z"), ("0", "z"),
    ("x^2", "sqrt z"), ("y", "y+z"), ("z", "x"), ("3-y", "1-y"), ("0.4", "b"),
    ("z", "[.5,1.5]"), ("z", "[-2,-.5]"), ("-0.3", "x"), ("[-1,2]", "x"), ("0.4", "-z"),
    ("1/z", "z"), ("z", "1/z"), ("4-b^2", "z"), ("x^2", "x^2"), ("sqrt z", "sqrt y"),
    ("exp x", "z"), ("yz", "z"), ("z", "exp x^2"), ("x^2", "z"), ("exp x^2", "exp x"),
]  # fmt: skip
_QUADRUPLES = (
    "x; b; y; z",
    "x; x; x; x",
    "exp x; x^2; |x|; norm",
    "sqrt y; log z; -x^2; 4-b^2",
    "sqrt y; sqrt z; min(y,z); y",
    "exp -x^2; sigmoid x; yz; z",
    "y; z; 1; 2.5",
    "x; 0.4; [-1,2]; b",
    "exp x; exp x^2; 1/z; z^-0.4",
    "norm; norm; |x|; y",
    "sin x; x; 1; 0",
    "-y; -z; y; z",
    "y^2; y^1.4; y; y^0.4",
    "-y; 2.5; b; x",
    "b^2-5; z; y; -1",
    "-x^2; -|x|; -exp x; -sqrt y",
    "2.5; 2.5; y; z",
)


def _together(
    name: str, fn: Callable[[dict[str, Any]], list[Any]], keys: Any = None
) -> Case:
    """Make one case of many values; the loss itself is of no interest."""

    def loss_fn(p: Any, d: Any) -> Any:
        values = {key: ARGUMENTS[key](p, d) for key in keys or ARGUMENTS}
        return _largest(fn(values))

    return Case(name, loss_fn, POINT, RANGES, DOMAIN)


def _largest(values: Sequence[Any]) -> Any:
    return jnp.max(jnp.concatenate([jnp.ravel(value) for value in values]))


def _stack(values: dict[str, Any], names: Sequence[str]) -> Any:
    return jnp.stack([values[name] for name in names])


def _parts(names: list[str], size: int) -> list[list[str]]:
    return [names[k : k + size] for k in range(0, len(names), size)]


def _polynomials(rng: np.random.Generator) -> Iterator[Case]:
    """Quadratics and quartics: definite, singular and not, multiplied out."""
    for part in range(4):
        draws = [_drawn_polynomial(rng, bool(trial % 2)) for trial in range(6)]
        yield Case(
            f"polynomials {part}",
            lambda p, draws=draws: _largest([z for fn in draws for z in fn(p)]),
            np.array([0.5, -0.25, 0.125]),
        )


def _drawn_polynomial(rng: np.random.Generator, dented: bool) -> Callable[[Any], Any]:
    root = rng.integers(-2, 3, (3, int(rng.integers(1, 4)))).astype(float)
    matrix = root @ root.T
    matrix[0, 0] -= 2.0**-10 * dented
    border = rng.integers(-1, 2, 3).astype(float)
    c, e, f = (float(v) for v in rng.integers(-2, 9, 3))

    def values(p: Any) -> list[Any]:
        quadratic = p @ jnp.asarray(matrix) @ p + p @ jnp.asarray(border) + 1.0
        plain = p @ jnp.asarray(matrix) @ p
        x, y = p[0], p[1]
        quartic = x**4 + c * x**2 * y**2 + y**4 + e * x**3 * y + f * x**2
        even = x**4 + c * x**2 * y**2 + y**4 + f * x * y
        cubic = quadratic + c * x**3
        return [
            quadratic, plain, quartic, even, cubic, -plain,
            jnp.sqrt(plain), jnp.sqrt(quadratic), quadratic**2,
        ]  # fmt: skip

    return values


def _pieces(rng: np.random.Generator) -> Iterator[Case]:
    """Piecewise polynomials, continuous or not, kinks up or down."""
    for part in range(4):
        draws = [_drawn_pieces(rng, trial) for trial in range(15)]
        at = 0.5 * part - 0.5
        for name, point, domain in (
            ("all", np.asarray(at), None),
            ("from a break", np.asarray(at), Box(at, at + 1.0)),
            ("to a break", np.asarray(at), Box(at - 1.0, at)),
        ):
            yield Case(
                f"pieces {part} {name}",
                lambda u, draws=draws: _largest([z for fn in draws for z in fn(u)]),
                point,
                None,
                domain,
            )
        yield Case(
            f"pieces {part} of a sum",
            lambda p, draws=draws: _largest(
                [z for fn in draws for z in fn(p[0] + 2.0 * p[1:])]
            ),
            np.array([0.5, -0.25, 0.125]),
        )
        yield Case(
            f"pieces {part} of a convex value",
            lambda p, draws=draws: _largest(
                [z for fn in draws for z in fn(p[0] ** 2 + jnp.exp(p[1]))]
            ),
            np.array([0.5, -0.25]),
        )


def _drawn_pieces(rng: np.random.Generator, trial: int) -> Callable[[Any], Any]:
    a, b, c, at, jump = (float(v) for v in rng.integers(-3, 4, 5) / 2)
    jump *= trial % 2 == 0
    c = a - abs(c) if trial % 4 else c

    def values(u: Any) -> list[Any]:
        below = u < at if trial % 3 else u <= at
        left = c * (u - at) + (abs(b) if trial % 5 else b) * (u - at) ** 2
        right = a * (u - at) + abs(b) * (u - at) ** 2 + jump
        return [
            jnp.where(below, left, right),
            jnp.maximum(a * u, jnp.minimum(b * u + c, at)) + abs(c) * jnp.abs(u),
            jnp.where(u == at, jump, a * (u - at)),
        ]

    return values


def _loops() -> Iterator[Case]:
    """Scans short and long, forward and back, over data and over params."""
    steps: dict[str, Callable[[Any, Any], Any]] = {
        "add": lambda carry, row: (carry + row, row),
        "logaddexp": lambda carry, row: (jnp.logaddexp(carry, row), carry),
        "max": lambda carry, row: (jnp.maximum(carry, row), carry),
        "turn": lambda carry, row: (-carry + row, carry),
        "square": lambda carry, row: (0.5 * carry**2 + row**2, carry),
        "exp": lambda carry, row: (jnp.exp(0.1 * carry - 1.0) + row, row),
        "decay": lambda carry, row: (0.5 * carry + jnp.abs(row), carry),
        "product": lambda carry, row: (carry * row, row),
        "shift": lambda carry, row: (
            jnp.log(jnp.exp(carry - jnp.maximum(carry, row))
                    + jnp.exp(row - jnp.maximum(carry, row)))
            + jnp.maximum(carry, row),
            carry,
        ),
        "stale": lambda carry, row: (carry - jnp.maximum(carry, row), carry),
    }  # fmt: skip
    for (name, step), length, reverse in itertools.product(
        steps.items(), (3, 4000), (False, True)
    ):

        def loss_fn(p: Any, step=step, length=length, reverse=reverse) -> Any:
            rows = jnp.concatenate([p, jnp.zeros(length - 2)])[:length]
            rows = rows * jnp.asarray(
                [1.0, -1.0] * (length // 2) + [1.0] * (length % 2)
            )
            carry, out = jax.lax.scan(step, p[0], rows, reverse=reverse)
            return carry + jnp.sum(out[:2])

        point = np.array([0.5, -0.25])
        yield Case(f"scan {name} {length} {reverse}", loss_fn, point)


# ------------------------------------------------------------------- random programs


class _Choices:
    """Picks by integers in turn; when they are used up, always the first option."""

    def __init__(self, numbers: Sequence[int]) -> None:
        self.numbers = iter(numbers)

    def __call__(self, options: Sequence[Any]) -> Any:
        return options[next(self.numbers, 0) % len(options)]


_NUMBERS = (1.0, 2.0, 0.5, -1.0, 0.1, -0.3, 1.4, 3.0, 0.0)
_SHIFTS = (0.0, 1.0, -1.0, 0.5, 2.0, -3.0)


@jax.custom_jvp
def _liar(x: Any) -> Any:
    """Return a concave function whose derivative rule tells of a convex one."""
    return -(x**2)


_liar.defjvp(
    lambda primals, tangents: (_liar(*primals), 2.0 * primals[0] * tangents[0])
)

_MAPS: tuple[Callable[[Any, Any], Any], ...] = (
    lambda z, c: z**2,
    lambda z, c: jnp.exp(z),
    lambda z, c: jnp.abs(z),
    lambda z, c: jnp.maximum(z, 0.0),
    lambda z, c: jax.nn.softplus(z),
    lambda z, c: -z,
    lambda z, c: c(_NUMBERS) * z + c(_SHIFTS),
    lambda z, c: jnp.sqrt(z**2 + 1.0),
    lambda z, c: jnp.log(1.0 + jnp.exp(z)),
    lambda z, c: jnp.sqrt(jnp.abs(z) + c(_SHIFTS[:2])),
    lambda z, c: jnp.log(jnp.abs(z) + 0.5),
    lambda z, c: 1.0 / (1.0 + jnp.exp(z)),
    lambda z, c: 1.0 / (0.5 + jnp.abs(z)),
    lambda z, c: jnp.minimum(z, c(_SHIFTS)),
    lambda z, c: jnp.clip(z, -1.0, 2.0),
    lambda z, c: jnp.where(jnp.abs(z) <= 1.0, 0.5 * z**2, jnp.abs(z) - 0.5),
    lambda z, c: jnp.where(z > c(_SHIFTS), z, c(_NUMBERS) * z),
    lambda z, c: jnp.abs(z) ** c((1.5, 2.0, 3.0, 0.5, 1.4)),
    lambda z, c: z ** c((3, 2, 4, 1)),
    lambda z, c: jnp.sqrt(z),
    lambda z, c: jnp.log(z),
    lambda z, c: jax.nn.sigmoid(z),
    lambda z, c: jnp.tanh(z),
    lambda z, c: jnp.exp(-(z**2)),
    lambda z, c: jnp.cosh(z),
    lambda z, c: special.log_ndtr(z),
    lambda z, c: jnp.log1p(z**2),
    lambda z, c: jnp.floor(z),
    lambda z, c: z.astype(int).astype(float),
    lambda z, c: jnp.sign(z) * z,
    lambda z, c: special.xlogy(z, z),
    lambda z, c: jax.lax.stop_gradient(z),
    lambda z, c: _liar(z),
    lambda z, c: jnp.where(jnp.isnan(z), 0.0, z),
    lambda z, c: jnp.sin(z),
    lambda z, c: 1.0 - jax.nn.sigmoid(z),
)
_JOINS: tuple[Callable[[Any, Any, Any], Any], ...] = (
    lambda x, y, c: x + y,
    lambda x, y, c: x + c(_NUMBERS) * y,
    lambda x, y, c: jnp.maximum(x, y),
    lambda x, y, c: jnp.logaddexp(x, y),
    lambda x, y, c: x - y,
    lambda x, y, c: x * y,
    lambda x, y, c: jnp.minimum(x, y),
    lambda x, y, c: x / (1.0 + jnp.abs(y)),
    lambda x, y, c: x**2 / (1.0 + jnp.exp(y)),
    lambda x, y, c: jnp.sqrt(x**2 + y**2),
    lambda x, y, c: jnp.where(x > y, x, y),
    lambda x, y, c: jnp.where(y > c(_SHIFTS), x, -x),
    lambda x, y, c: jnp.exp(x) / (jnp.exp(x) + jnp.exp(y)),
    lambda x, y, c: jnp.sqrt(jnp.abs(x)) * jnp.sqrt(jnp.abs(y)),
)
_MIXES: tuple[Callable[[Any, Any], Any], ...] = (
    lambda v, c: v[::-1],
    lambda v, c: jnp.roll(v, 1),
    lambda v, c: jnp.cumsum(v),
    lambda v, c: v - jnp.max(v),
    lambda v, c: jax.nn.log_softmax(v),
    lambda v, c: jax.nn.softmax(v),
    lambda v, c: v[jnp.asarray(c(([0, 0, 1], [2, 1, 0], [1, 1, 1])))],
    lambda v, c: v.at[c((0, 1, 2))].set(c(_SHIFTS)),
    lambda v, c: v.at[jnp.asarray([0, 0])].add(v[1:]),
    lambda v, c: jnp.asarray(c((_MATRIX, _MATRIX.T @ _MATRIX))) @ v,
    lambda v, c: jnp.where(jnp.asarray([True, False, True]), v, c(_SHIFTS)),
    lambda v, c: jnp.sort(v),
    lambda v, c: jax.lax.cummax(v),
    lambda v, c: jax.lax.cumlogsumexp(v),
    lambda v, c: jax.lax.scan(
        lambda carry, row: (jnp.maximum(carry, row) + 0.5 * row, carry), v[0], v
    )[1],
    lambda v, c: jnp.broadcast_to(v[0], (3,)),
    lambda v, c: jnp.concatenate([v[1:], v[:1]]),
    lambda v, c: v * v[0],
)
_REDUCES: tuple[Callable[[Any, Any], Any], ...] = (
    lambda v, c: jnp.sum(v),
    lambda v, c: jnp.mean(v),
    lambda v, c: jnp.max(v),
    lambda v, c: jax.nn.logsumexp(v),
    lambda v, c: jnp.min(v),
    lambda v, c: v @ v,
    lambda v, c: v @ jnp.asarray([1.0, 0.5, 0.0]),
    lambda v, c: v @ jnp.asarray([1.0, -1.0, 2.0]),
    lambda v, c: v @ (jnp.asarray(_MATRIX.T @ _MATRIX) @ v),
    lambda v, c: v @ (jnp.asarray(_MATRIX) @ v),
    lambda v, c: jnp.sum(jnp.sort(v)[1:]),
    lambda v, c: jnp.sqrt(jnp.sum(v**2)),
    lambda v, c: jnp.prod(v),
    lambda v, c: v[0],
)
_MATRIX = np.array([[1.0, 2.0, 0.0], [0.5, 1.0, -1.0], [0.0, 0.25, 1.0]])
_WRAPS: tuple[Callable[[Any], Any], ...] = (
    lambda fn: fn,
    lambda fn: fn,
    lambda fn: fn,
    jax.jit,
    jax.checkpoint,
    lambda fn: lambda z: jax.vmap(fn)(jnp.stack([z, z]))[1],
    lambda fn: lambda z: jax.lax.cond(jnp.asarray(True), fn, lambda v: -fn(v), z),
)
_DOMAINS = (
    None,
    None,
    Box(-1.5, 2.0),
    Box(0.0, np.inf),
    Box(0.25, 3.0),
    Box(np.array([-1.0, 0.0, 0.5]), np.array([0.0, 2.0, np.inf])),
)


class _Random:
    """A loss built from integers, the same at every call."""

    def __init__(self, numbers: Sequence[int]) -> None:
        self.numbers = numbers

    def __call__(self, w: Any, data: Any = None) -> Any:
        choose = _Choices(self.numbers)
        pool = [w]
        if data is not None:
            pool.append(choose((data * w, w - data, data)))
        for _ in range(choose((3, 2, 4, 5, 6))):
            pool.append(self.step(pool, choose))
        loss = _scalar(choose, pool[-1])
        for _ in range(choose((0, 1, 2))):
            other = _scalar(choose, choose(pool))
            loss = choose(_JOINS[:5])(loss, other, choose)
        return loss

    def step(self, pool: list[Any], choose: _Choices) -> Any:
        recent = pool[-3:]
        kind = choose(("map", "map", "join", "mix", "reduce", "map", "join"))
        z = choose(recent[::-1])
        if kind == "join":
            return choose(_JOINS)(z, choose(pool), choose)
        if kind == "reduce" and z.ndim:
            return choose(_REDUCES)(z, choose)
        options = _MIXES if kind == "mix" and z.ndim else _MAPS
        fn, seed = choose(options), choose(range(1 << 16))
        wrap = choose(_WRAPS)
        # The wrapped function is traced anew: it draws from a list of its own.
        own = np.random.default_rng(seed).integers(0, 1 << 16, 8).tolist()
        return wrap(lambda v: fn(v, _Choices(own)))(z)


def _scalar(choose: _Choices, z: Any) -> Any:
    return choose(_REDUCES)(z, choose) if z.ndim else z


def random_case(numbers: Sequence[int]) -> Case:
    """Build a case from integers; the first ones say where and for which data."""
    choose = _Choices(numbers)
    domain = choose(_DOMAINS)
    row = np.array([1.0, -0.5, 2.0])
    data = choose((None, row, Box(row - 0.5, row + 1.0), Box(row * 0.0, row**2)))
    start = np.array([-0.5, 0.75, 1.25])
    if domain is not None:
        low, high = np.asarray(domain.low), np.asarray(domain.high)
        start = np.clip(start, low, high)
    return Case("random", _Random(list(numbers)[2:]), start, data, domain)
