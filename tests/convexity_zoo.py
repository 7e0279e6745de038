"""Programs that look convex and are not, each beside a twin that is.

`FALSE_FRIENDS[name]` must never be proved convex, `TWINS[name]` must be. They are what
careless rules get wrong: a guard forgotten, a name believed, a symbol left over.
"""

from typing import Any

import jax
import jax.numpy as jnp
import jax.scipy.special as special
import numpy as np

from phihat import Box
from tests.convexity_further_friends import FURTHER_FRIENDS
from tests.convexity_programs import Case

__all__ = ["FALSE_FRIENDS", "PARTLY_DEFINED", "TWINS"]

_X, _V = np.asarray(0.5), np.array([0.3, -0.7, 1.1])
_POSITIVE = Box(0.0, np.inf)


@jax.custom_jvp
def _liar(x: Any) -> Any:
    return -(x**2)


_liar.defjvp(
    lambda primals, tangents: (_liar(*primals), 2.0 * primals[0] * tangents[0])
)


@jax.custom_jvp
def _modest(x: Any) -> Any:
    return x**2


_modest.defjvp(lambda x, v: (_modest(*x), -2.0 * x[0] * v[0]))


@jax.custom_vjp
def _liar_in_reverse(x: Any) -> Any:
    return -jnp.exp(x)


_liar_in_reverse.defvjp(
    lambda x: (_liar_in_reverse(x), x), lambda x, g: (g * jnp.exp(x),)
)


@jax.jit
def logaddexp(x: Any, y: Any) -> Any:
    """Bear the name of a convex function."""
    return -jnp.logaddexp(x, y)


@jax.jit
def log_ndtr(x: Any) -> Any:
    """Bear the name of a concave function."""
    return jnp.cosh(x)


def _renamed(name: str, body: Any) -> Any:
    """Return a custom_jvp function of a given name."""
    body.__name__ = name
    fn = jax.custom_jvp(body)
    fn.defjvp(lambda primals, tangents: (fn(*primals), tangents[0]))
    return fn


_impostor = _renamed("logaddexp", lambda x, y: jnp.maximum(x, y) - jnp.exp(x - y))
_swapped = _renamed(
    "logaddexp", lambda x, y: jnp.maximum(x, y) + jnp.log1p(jnp.exp(jnp.abs(x - y)))
)
_nearly = _renamed(
    "logaddexp",
    lambda x, y: jnp.maximum(x, y) + jnp.log1p(jnp.exp(-jnp.abs(x - y) * 1.0000001)),
)


def _select_turned(x: Any, y: Any) -> Any:
    """Choose as logaddexp does, between its two cases turned about."""
    top, delta = jax.lax.max(x, y), jax.lax.sub(x, y)
    is_nan, total = jax.lax.ne(delta, delta), jax.lax.add(x, y)
    smooth = jax.lax.log1p(jax.lax.exp(jax.lax.neg(jax.lax.abs(delta))))
    return jax.lax.select(is_nan, jax.lax.add(top, smooth), total)


_turned_about = _renamed("logaddexp", _select_turned)
_lower_at_zero = _renamed(
    "xlogy",
    lambda x, y: jnp.where(
        (x != 0.0) | jnp.isnan(y),
        jax.lax.mul(x, jax.lax.log(y)),
        jnp.full_like(x, -5.0),
    ),
)


def _scanned(step: Any, start: Any, rows: Any, **options: Any) -> Any:
    return jax.lax.scan(lambda c, r: (step(c, r), None), start, rows, **options)[0]


def _stale(v: Any) -> Any:
    """Subtract the maximum of this round, add that of the round before."""

    def step(carry: Any, row: Any) -> Any:
        total, previous = carry
        top = jnp.maximum(total, row)
        summed = jnp.log(jnp.exp(total - top) + jnp.exp(row - top))
        return (summed + previous, top), None

    (total, _), _ = jax.lax.scan(step, (v[0], v[0]), v[1:])
    return total


def _fresh(v: Any) -> Any:
    def step(total: Any, row: Any) -> Any:
        top = jnp.maximum(total, row)
        return jnp.log(jnp.exp(total - top) + jnp.exp(row - top)) + top, None

    return jax.lax.scan(step, v[0], v[1:])[0]


def _logsumexp(v: Any, *, axis: int = 0, top_axis: int = 0, times: int = 1) -> Any:
    top = jnp.max(v, axis=top_axis, keepdims=True)
    total = jnp.log(jnp.sum(jnp.exp(v - top), axis=axis, keepdims=True))
    for _ in range(times):
        total = total + top
    return jnp.sum(total)


def _tempered(v: Any, warm: float, cold: float) -> Any:
    top = jnp.max(v)
    return jnp.log(jnp.sum(jnp.exp((v - top) / warm))) + top / cold


def _until_small(x: Any) -> Any:
    return jax.lax.while_loop(lambda z: z > 1.0, lambda z: z / 2.0, x)


def _of_the_first_row(m: Any) -> Any:
    """Shift each row by its own maximum, and all of them back by the first."""
    top = jnp.max(m, axis=1, keepdims=True)
    return jnp.log(jnp.sum(jnp.exp(m - top))) + top[0, 0]


def _of_either(v: Any) -> Any:
    """Join values with different shifts, and undo one of them."""
    x, y = v[:2], v[1:]
    top = jnp.max(x)
    return jnp.maximum(x - top, y - jnp.max(y))[0] + top


_MATRIX = np.array([[0.3, -0.7], [1.1, 0.4]])
_SADDLE = np.array([[0.0, 1.0], [1.0, 5.0]])
_SINGULAR = np.array([[1.0, -2.0], [-2.0, 4.0]])
_ROW = np.array([1.0, 2.0, 3.0])


def _times_its_root(z: Any) -> Any:
    return z * jnp.sqrt(z)


_FALSE: dict[str, tuple[Any, ...]] = {
    # casts and steps
    "int cast": (lambda x: x.astype(int).astype(float), _X),
    "int cast under a square": (lambda x: x.astype(int).astype(float) ** 2, _X),
    "round": (lambda x: jnp.round(x) ** 2, _X),
    "floor": (lambda x: jnp.floor(x) + x**2, _X),
    "sign": (lambda x: jnp.sign(x) + x**2, _X),
    "heaviside": (lambda x: jnp.heaviside(x, 1.0), _X),
    "fp8": (
        lambda x: x.astype(jnp.float8_e4m3fn).astype(jnp.float64) ** 2, _X,
    ),
    "reduced precision": (lambda x: jax.lax.reduce_precision(x, 8, 3) ** 2, _X),
    "bitcast": (
        lambda x: jax.lax.bitcast_convert_type(
            jax.lax.bitcast_convert_type(x, jnp.int64) + 1, jnp.float64
        ) ** 2, _X,
    ),
    "an int that overflows": (
        lambda x: jnp.where(
            x.astype(jnp.int32).astype(jnp.int8) >= 0, x**2, -(x**2)
        ), np.asarray(5.0), None, Box(0.0, 1000.0),
    ),
    "unsigned": (
        lambda x: jnp.where(
            x.astype(jnp.uint32) - jnp.uint32(20) < 100, x**2, -(x**2)
        ), np.asarray(2.0), None, Box(0.0, 10.0),
    ),
    "bits": (
        lambda x: jnp.where((x.astype(int) & 2) > 1, -(x**2), x**2),
        np.asarray(2.0), None, Box(0.0, 10.0),
    ),
    "not of an int": (
        lambda x: jnp.where(~x.astype(int) < 0, -(x**2), x**2),
        np.asarray(2.0), None, Box(0.0, 10.0),
    ),
    # impostors
    "impostor by jit": (lambda v: logaddexp(v[0], v[1]), _V),
    "impostor of log_ndtr": (lambda x: -log_ndtr(x), _X),
    "impostor by custom_jvp": (lambda v: _impostor(v[0], v[1]), _V),
    "impostor with a sign turned": (lambda v: -_swapped(v[0], v[1]), _V),
    "impostor with a literal changed": (
        lambda v: _nearly(v[0], v[1]) - jnp.logaddexp(v[0], v[1]), _V,
    ),
    "impostor with its cases turned about": (
        lambda v: _turned_about(v[0], v[1]) - jnp.logaddexp(v[0], v[1]), _V,
    ),
    "impostor with another value at 0": (
        lambda x: _lower_at_zero(x, x), _X, None, Box(0.0, 5.0),
    ),
    "logsumexp with negative weights": (
        lambda v: special.logsumexp(v, b=jnp.asarray([2.0, 2.0, -0.1])),
        np.full(3, 0.5), None, Box(0.0, 1.0),
    ),
    # lies to AD
    "stop_gradient": (lambda x: -x * jax.lax.stop_gradient(x), _X),
    "convex to AD alone": (
        lambda x: -2.0 * jax.lax.stop_gradient(x) ** 2 + x**2, _X,
    ),
    "lying custom_jvp": (lambda x: _liar(x), _X),
    "lying custom_vjp": (lambda x: _liar_in_reverse(x), _X),
    "-|x| + .01 x^2": (lambda x: -jnp.abs(x) + 0.01 * x**2, _X),
    # shifts
    "stale shift": (_stale, _V),
    "shift along the wrong axis": (
        lambda m: _logsumexp(m, axis=0, top_axis=1), _MATRIX,
    ),
    "shift not undone": (lambda v: _logsumexp(v, times=0), _V),
    "shift half undone": (
        lambda v: jnp.log(jnp.sum(jnp.exp(v - jnp.max(v)))) + 0.5 * jnp.max(v), _V,
    ),
    "shift and temperature": (lambda v: _tempered(v, 0.5, 1.0), _V),
    "log1p of a shifted exp": (
        lambda v: jnp.sum(jnp.log1p(jnp.exp(v - jnp.max(v)))) + jnp.max(v), _V,
    ),
    "clip of a shift": (
        lambda v: jnp.sum(jnp.maximum(v - jnp.max(v), -1.0)) + jnp.max(v), _V,
    ),
    "softmax": (lambda v: jax.nn.softmax(v)[0], _V),
    "log_softmax": (lambda v: jax.nn.log_softmax(v)[0] + jnp.max(v) * 0.0 + v[1] ** 2
                    - 2.0 * v[1] ** 2, _V),
    "shift of the first row": (_of_the_first_row, _MATRIX),
    "shift of an exp and of a value": (
        lambda v: jnp.log(
            jnp.maximum(jnp.exp(v[0] - jnp.max(v)), jnp.exp(v[1]) - jnp.max(v))
        ) + jnp.max(v), np.array([0.0, 3.0]), None,
        Box(np.array([0.0, 2.5]), np.array([0.5, 5.0])),
    ),
    "shift of either": (_of_either, _V),
    "anchor of another array": (
        lambda v: jnp.log(jnp.sum(jnp.exp(v - jnp.max(v)))) + jnp.max(v[:2]), _V,
    ),
    "anchor rolled": (
        lambda m: jnp.sum(
            jnp.log(jnp.sum(jnp.exp(m - jnp.max(m, 1, keepdims=True)), axis=1))
            + 0.5 * jnp.roll(jnp.max(m, axis=1), 1) - 0.5 * jnp.max(m, axis=1)
        ), _MATRIX,
    ),
    # kinks and jumps
    "jump by select": (lambda x: jnp.where(x > 0.0, x + 1.0, x), _X),
    "jump down": (lambda x: jnp.where(x > 0.0, x**2, x**2 + 1.0), _X),
    "one point higher": (lambda x: jnp.where(x == 0.0, 1.0, x**2), _X),
    "one point at the end": (
        lambda x: jnp.where(x == 0.0, -1.0, x), np.asarray(0.0), None, Box(0.0, 1.0),
    ),
    "kink down": (lambda x: jnp.where(x > 0.0, x, 2.0 * x), _X),
    "Huber with the wrong constant": (
        lambda x: jnp.where(jnp.abs(x) <= 1.0, 0.5 * x**2, jnp.abs(x) - 0.6), _X,
    ),
    "min of lines": (lambda x: jnp.minimum(x, -x), _X),
    "clip": (lambda x: jnp.clip(x, 0.0, 1.0), _X),
    "capped square": (lambda x: jnp.minimum(x**2, 4.0), _X),
    "max of concave": (lambda x: jnp.maximum(-(x**2), -((x - 1.0) ** 2)), _X),
    "hinge of a concave": (lambda x: jnp.maximum(1.0 - x**2, 0.0), _X),
    "chosen by params": (
        lambda v: jnp.where(v[0] > v[1], v[0] ** 2, v[1] ** 2), _V,
    ),
    "element at argmax": (lambda v: (v**2)[jnp.argmax(v)], _V),
    "prefix maximum": (
        lambda x: jax.lax.cummax(jnp.stack([-(x**2), 5.0 + x]))[0], _X, None,
        Box(-1.0, 1.0),
    ),
    "prefix before a mask": (
        lambda x: jnp.cumsum(jnp.stack([jnp.sin(3.0 * x), -jnp.inf]))[0], _X, None,
        Box(-1.0, 1.0),
    ),
    "sorted": (lambda v: jnp.sort(v)[1], _V),
    "smallest two": (lambda v: jnp.sum(jnp.sort(v)[:2]), _V),
    "one of the largest twice": (
        lambda v: jnp.sum(jnp.sort(v)[jnp.asarray([1, 1, 2])]), _V,
    ),
    "rising weights": (lambda v: jnp.sort(v) @ jnp.asarray([3.0, 2.0, 1.0]), _V),
    "largest of concave": (lambda v: jnp.sum(jnp.sort(-(v**2))[-2:]), _V),
    # poles, roots and domains
    "1/x": (lambda x: 1.0 / x, _X),
    "x^-2": (lambda x: x**-2, _X),
    "x^-1.0": (lambda x: jnp.power(x, -1.0), _X),
    "x^3.0": (lambda x: jnp.power(x, 3.0), _X),
    "x^3": (lambda x: x**3, _X),
    "lgamma": (lambda x: jax.lax.lgamma(x), _X),
    "1/(x^2 - 1)": (lambda x: 1.0 / (x**2 - 1.0), np.asarray(3.0)),
    "sqrt(x^2 - 1)": (lambda x: jnp.sqrt(x**2 - 1.0), np.asarray(3.0)),
    "sqrt(x^2 - 1)^2": (lambda x: jnp.sqrt(x**2 - 1.0) ** 2, np.asarray(3.0)),
    "-sqrt(x y)": (lambda v: -jnp.sqrt(v[0] * v[1]), np.array([1.0, 1.0])),
    "-log(x y)": (lambda v: -jnp.log(v[0] * v[1]), np.array([1.0, 1.0])),
    "-log |x|": (lambda x: -jnp.log(jnp.abs(x)), _X),
    "-nan_to_num(log)": (lambda x: -jnp.nan_to_num(jnp.log(x)), _X),
    "where is_finite": (
        lambda x: jnp.where(jnp.isfinite(jnp.log(x)), x, 5.0), _X,
    ),
    "where the pole is finite": (
        lambda x: jnp.where(jnp.isfinite(x**-2), x, 5.0), _X,
    ),
    "where 1/x is finite": (lambda x: jnp.where(jnp.isfinite(1.0 / x), x, 5.0), _X),
    "a root times 0": (
        lambda x: 0.0 * jnp.sqrt(x**2 - 1.0) + x, np.asarray(3.0),
    ),
    "a reciprocal root times 0": (
        lambda x: 0.0 * jax.lax.rsqrt(x**2 - 1.0) + x, np.asarray(3.0),
    ),
    "a logarithm times 0": (
        lambda x: 0.0 * jnp.log(x**2 - 1.0) + x, np.asarray(3.0),
    ),
    "a constant where there is a root": (
        lambda x: jnp.where(0.0 * jnp.sqrt(x) == 0.0, x, 5.0 - x), _X,
    ),
    "a root plus 1": (
        lambda x: jnp.where(jnp.sqrt(x) + 1.0 > 0.5, x, 5.0 - x), _X,
    ),
    "a condition on the data": (
        lambda x, d: x + jnp.sqrt(d), _X, Box(np.asarray(-1.0), np.asarray(1.0)),
    ),
    "an index beyond": (
        lambda v, d: v.at[d].get(mode="fill"), _V,
        Box(np.asarray(0), np.asarray(7)),
    ),
    "a choice by data compared": (
        lambda x, d: jnp.where(
            jnp.where(d > 0.0, jnp.sqrt(x), 1.0) >= 0.0, x, 5.0 - x
        ), _X, Box(np.asarray(-1.0), np.asarray(1.0)),
    ),
    "sorted roots compared": (
        lambda v: jnp.where(jnp.sort(jnp.sqrt(v))[1] >= 0.0, v[0], 5.0 - v[0]),
        np.ones(2),
    ),
    "scatter by data": (
        lambda v, d: jnp.zeros(3).at[d].add(-(v[0] ** 2))[0], _V,
        Box(np.asarray(0), np.asarray(2)),
    ),
    "scatter times params": (lambda w: jnp.sum(w.at[0].mul(w[1])), _V),
    "scatter to one place": (
        lambda x: jnp.zeros(2).at[jnp.asarray([0, 0])].set(jnp.stack([-(x**2), x**2]))[
            0
        ], _X,
    ),
    "convolution with itself": (lambda v: jnp.convolve(v, v)[1], _V),
    "large outer product": (
        lambda v: (
            v[jnp.arange(1500) % 3][:, None] @ v[jnp.arange(1500) % 3][None, :]
        )[0, 1], _V,
    ),
    "scatter by params": (
        lambda x: jnp.zeros(3).at[x.astype(int)].add(1.0)[0], np.asarray(0.5), None,
        Box(0.0, 2.5),
    ),
    "a choice compared": (
        lambda x: jnp.where(
            jnp.where(x < 1.0, jnp.sqrt(x), 5.0) >= 0.0, x, 5.0 - x
        ), _X,
    ),
    "a staircase compared": (
        lambda x: jnp.where(
            jnp.floor(jnp.minimum(jnp.sqrt(x), 1.0)) >= 0.0, x, 5.0 - x
        ), _X,
    ),
    "where isnan": (lambda x: jnp.where(jnp.isnan(jnp.sqrt(x)), 7.0, x), _X),
    "compared with a root": (
        lambda x: jnp.where(jnp.sqrt(x) >= 0.0, x, 5.0 - x), _X,
    ),
    "sorted roots": (
        lambda v: jnp.sum(jnp.sort(jnp.sqrt(v))[-1:]) + jnp.sum(v), np.ones(2),
    ),
    "rounded root": (lambda x: jnp.floor(0.0 * jnp.sqrt(x)) + 0.0 * x - jnp.abs(x), _X),
    "xlogy of nothing": (lambda x: special.xlogy(0.0, x) - x**2, _X),
    "x log y": (
        lambda v: v[0] * jnp.log(v[1]), np.array([1.0, 1.0]), None, Box(0.1, 5.0),
    ),
    "xlogy": (
        lambda v: special.xlogy(v[0], v[1]), np.array([1.0, 1.0]), None, Box(0.1, 5.0),
    ),
    "z log z of a square": (
        lambda x: x**2 * jnp.log(x**2), np.asarray(0.5), None, Box(0.1, 1.0),
    ),
    "entropy the wrong way": (lambda x: special.entr(x), _X, None, Box(0.1, 1.0)),
    "relative entropy mixed up": (
        lambda v: v[0] * jnp.log(v[1] / v[0]), np.ones(2), None, Box(0.1, 5.0),
    ),
    "relative entropy of squares": (
        lambda v: jax.jit(special.rel_entr)(v[0] ** 2, v[1] ** 2 + 1.0), np.ones(2),
        None, Box(0.1, 5.0),
    ),
    "entropy of a square": (
        lambda x: -jax.jit(special.entr)(x**2), _X, None, Box(0.01, 1.0),
    ),
    "entropy below zero": (
        lambda v: jnp.sum(v * jnp.log(v / -2.0)), -np.ones(2), None, Box(-5.0, -0.1),
    ),
    # powers
    "a root times its own root": (
        lambda x: _times_its_root(jnp.sqrt(jnp.abs(x))), _X,
    ),
    "(sqrt x + sqrt(1-x))^2": (
        lambda x: (jnp.sqrt(x) + jnp.sqrt(1.0 - x)) ** 2, _X, None, Box(0.0, 1.0),
    ),
    "(sqrt x + sqrt y)^2": (
        lambda v: jnp.sum(jnp.sqrt(v)) ** 2, np.ones(2), None, Box(0.0, 4.0),
    ),
    "|x|^1.4 / y^.4": (
        lambda v: jnp.abs(v[0]) ** 1.4 / v[1] ** 0.4, np.ones(2), None,
        Box(0.1, 3.0),
    ),
    "|x|^1.3 / y^.4": (
        lambda v: jnp.abs(v[0]) ** 1.3 / v[1] ** 0.4, np.ones(2), None, Box(0.1, 3.0),
    ),
    "x^2 / y^2": (
        lambda v: v[0] ** 2 / v[1] ** 2, np.ones(2), None,
        Box(np.array([-3.0, 0.1]), np.array([3.0, 3.0])),
    ),
    "x / y": (lambda v: v[0] / v[1], np.ones(2), None, Box(0.1, 3.0)),
    "x y": (lambda v: v[0] * v[1], _V),
    "x y of positives": (lambda v: v[0] * v[1], np.ones(2), None, Box(0.1, 3.0)),
    "x y^2": (lambda v: v[0] * v[1] ** 2, np.ones(2), None, Box(0.1, 3.0)),
    "log x is no power": (lambda x: jnp.log(x), _X, None, Box(0.1, 3.0)),
    "log of a square": (lambda x: jnp.log(1.0 + x**2), _X),
    "sqrt of a square plus x": (
        lambda v: jnp.sqrt(v[0] ** 2 + v[1] + 5.0), _V,
    ),
    "sqrt|x|": (lambda x: jnp.sqrt(jnp.abs(x)), _X),
    "sum of log-concave": (
        lambda x: -jnp.log(jnp.exp(-(x**2)) + jnp.exp(-((x - 5.0) ** 2))), _X,
    ),
    "maximum of log-concave": (
        lambda x: -jnp.log(jnp.maximum(jnp.exp(-(x**2)), jnp.exp(-((x - 5.0) ** 2)))),
        _X,
    ),
    "exp(-x^2)": (lambda x: jnp.exp(-(x**2)), _X),
    "sigmoid": (lambda x: jax.nn.sigmoid(x), _X),
    "sigmoid of a positive": (lambda x: jax.nn.sigmoid(x), _X, None, _POSITIVE),
    "-log(1 - exp x)": (lambda x: jnp.log(1.0 - jnp.exp(x)), np.asarray(-1.0), None,
                        Box(-3.0, -0.1)),
    "tanh": (lambda x: jnp.tanh(x) ** 2, _X),
    "cos": (lambda x: -jnp.cos(x), _X, None, Box(-2.0, 2.0)),
    "cosh of a concave": (lambda x: jnp.cosh(0.1 * x**0.25), np.asarray(1.0), None,
                          Box(0.1, 3.0)),
    "square of a convex that changes sign": (lambda x: (x**2 - 1.0) ** 2, _X),
    "exp of a concave": (lambda x: jnp.exp(-jnp.abs(x)), _X),
    "affine of a range of signs": (
        lambda x, d: d * x**2, _X, Box(np.asarray(-1.0), np.asarray(1.0)),
    ),
    # elements
    "outer product": (lambda v: jnp.outer(v, v)[0, 1], _V),
    "rolled square": (
        lambda v, d: jnp.sum(d * v**2 - jnp.roll(d, 1) * v**2), _V, _ROW,
    ),
    "reversed product": (lambda v: jnp.sum(v * v[::-1]), _V),
    "gathered product": (
        lambda v: jnp.sum(v[jnp.asarray([0, 1])] * v[jnp.asarray([1, 0])]), _V,
    ),
    "product of transposes": (lambda m: jnp.sum(m * m.T), _MATRIX),
    "broadcast product": (lambda v: jnp.sum(v[:, None] * v[None, :] - v[0] ** 2), _V),
    "range minus range": (
        lambda v, d: jnp.sum(d[0] * v**2 - d[1] * v**2), _V,
        Box(np.zeros(2), np.ones(2)),
    ),
    "v @ rolled": (lambda v: v @ jnp.roll(v, 1), _V),
    "-.05 w @ w": (lambda v: -0.05 * v @ v, _V),
    "1e16": (lambda x, d: ((d + 1e16) - 1e16) * x**2 - 0.5 * x**2, _X, np.asarray(0.4)),
    "1e16 below": (
        lambda x, d: ((d + 1e16) - 1e16) * x**2, _X, np.asarray(-1.0),
    ),
    "a product of three": (lambda v: jnp.prod(v), np.ones(3), None, Box(0.5, 2.0)),
    "scatter": (
        lambda v: jnp.sum((v**2).at[0].set(-2.0 * v[1] ** 2)), _V,
    ),
    "scatter twice": (
        lambda v: jnp.sum(jnp.zeros(2).at[jnp.asarray([0, 0])].add(v[:2]) ** 2)
        - 3.0 * v[0] * v[1] * 2.0, _V,
    ),
    # quadratics
    "saddle": (lambda v: v[:2] @ jnp.asarray(_SADDLE) @ v[:2], _V),
    "nearly singular": (
        lambda v: v[:2] @ jnp.asarray(_SINGULAR - np.diag([1e-9, 0.0])) @ v[:2], _V,
    ),
    "root of a quadratic": (
        lambda v: jnp.sqrt(v[0] ** 2 + 4.0 * v[0] + 3.9), np.ones(1), None,
        Box(0.0, 2.0),
    ),
    "quartic": (lambda v: v[0] ** 4 - 1.1 * v[0] ** 2 * v[1] ** 2 + v[1] ** 4, _V),
    "quartic with a cubic": (lambda v: v[0] ** 4 + v[0] ** 3, _V),
    "asymmetric": (
        lambda v: v[:2] @ jnp.asarray([[1.0, 3.0], [0.0, 1.0]]) @ v[:2], _V,
    ),
    # loops
    "a parabola less log cosh": (
        lambda x: 0.2 * x**2 - jnp.logaddexp(x, -x), _X,
    ),
    "scan that turns": (
        lambda v: _scanned(lambda c, r: -(c**2) + r, v[0], v), _V,
    ),
    "long scan that turns": (
        lambda x: _scanned(
            lambda c, r: jnp.maximum(-c, r), x**2, jnp.zeros(4001) - 9.0
        ), _X,
    ),
    "long scan that drifts": (
        lambda x: _scanned(lambda c, r: jnp.exp(-c) + r, x, jnp.zeros(3001)), _X,
    ),
    "long scan with a stale shift": (
        lambda x: jax.lax.scan(
            lambda c, r: ((jnp.log(jnp.exp(c[0] - c[1]) + jnp.exp(r - c[1])),
                           jnp.maximum(c[0], r)), None),
            (x, x), jnp.zeros(3001) + x * 0.5)[0][0], _X,
    ),
    "a carry that is x no more": (
        lambda x: jax.lax.scan(lambda c, _: (-c, c * x), x, None, length=4001)[1][1],
        _X,
    ),
    "a long scan over weights of both signs": (
        lambda x: -_scanned(
            lambda c, r: c + r * x**2, 0.0 * x, jnp.asarray([-1.0, 3.0] * 2001)
        ), _X,
    ),
    "a sum less an exponential": (
        lambda v: v[0] ** 2 - jnp.exp(v[0]) + v[1], _V,
    ),
    "a quarter less a whole": (
        lambda v: v[0] ** 2 / 4.0 - v[0] ** 2 + jnp.exp(v[1]), _V,
    ),
    "entropies of different values": (
        lambda v: special.xlogy(v[0], v[0]) - special.xlogy(3.0 * v[0], v[1]),
        np.ones(2), None, Box(0.1, 5.0),
    ),
    "while by params": (lambda x: _until_small(x), np.asarray(3.0)),
    "cond by params": (
        lambda x: jax.lax.cond(x > 0.0, lambda z: z, lambda z: 2.0 * z, x), _X,
    ),
    "unknown": (lambda x: jax.lax.erf_inv(jnp.tanh(x)), _X),
    "atan2": (lambda v: jnp.arctan2(v[0], v[1]), _V),
    "remainder": (lambda x: jnp.remainder(x, 1.0), _X),
    "determinant": (lambda m: -jnp.linalg.slogdet(m @ m.T)[1] * -1.0, _MATRIX),
    "ordinal likelihood turned": (
        lambda v: jnp.log(jax.nn.sigmoid(v[0]) - jax.nn.sigmoid(v[1])),
        np.array([1.0, 0.0]), None,
        Box(np.array([0.5, -3.0]), np.array([3.0, 0.0])),
    ),
    "1 - sigmoid": (lambda x: jnp.log(1.0 - jax.nn.sigmoid(x)), _X),
    "2 - sigmoid": (lambda x: -jnp.log(2.0 - jax.nn.sigmoid(x)), _X),
    # derivatives as values, statistics, and more of the elements
    "minus the slope of a lying rule": (lambda x: -jax.grad(_liar)(x) * x, _X),
    "the slope of log-sum-exp": (lambda v: jax.grad(jax.nn.logsumexp)(v)[0], _V),
    "a real part": (lambda x: jnp.real((1j * x) * (1j * x)), _X),
    "a complex product": (
        lambda v: jnp.real((v[0] + 1j * v[1]) * (v[0] + 1j * v[1])), _V,
    ),
    "the square of a maximum": (lambda v: jnp.max(v) ** 2, _V),
    "logsumexp less the maximum": (lambda v: jax.nn.logsumexp(v) - jnp.max(v), _V),
    "a mean weighted by softmax": (lambda v: jax.nn.softmax(v) @ v, _V),
    "median": (lambda v: jnp.median(v), _V),
    "minus a deviation": (lambda v: -jnp.std(v), _V),
    "minus a product of three to .34": (
        lambda v: -jnp.prod(v) ** 0.34, np.ones(3), None, Box(0.0, 5.0),
    ),
    "x^2 / (y z)": (
        lambda v: v[0] ** 2 / (v[1] * v[2]), np.ones(3), None, Box(0.1, 5.0),
    ),
    "a sum over squares": (
        lambda v: jnp.sum(v) / jnp.sum(v**2), np.ones(3), None, Box(0.1, 5.0),
    ),
    "shift dot": (
        lambda v: jnp.log(jnp.exp(v - jnp.max(v)) @ jnp.asarray([1.0, 2.0, -0.1]))
        + jnp.max(v), np.full(3, 0.5), None, Box(0.0, 1.0),
    ),
    "shift of twice the size": (
        lambda v: jnp.log(jnp.sum(jnp.exp(v - jnp.max(v)) ** 2)) + jnp.max(v), _V,
    ),
    "log expm1": (lambda x: jnp.log(jnp.expm1(x)), _X, None, Box(0.1, 3.0)),
    "lgamma(x + 1) - lgamma(x)": (
        lambda x: special.gammaln(x + 1.0) - special.gammaln(x), _X, None,
        Box(0.1, 5.0),
    ),
    "leaky the wrong way": (lambda x: jax.nn.leaky_relu(x, 2.0), _X),
    "relu times relu": (lambda v: jax.nn.relu(v[0]) * jax.nn.relu(v[1]), _V),
    "two halves with a jump": (
        lambda x: jnp.where(x >= 0.0, x + 1.0, 0.0) + jnp.where(x < 0.0, -x, 0.0), _X,
    ),
    "a step at the end of the domain": (
        lambda x: jnp.where(x > 1.0, x**2, 5.0), np.asarray(1.5), None, Box(0.5, 2.0),
    ),
    "ceil at the end of the domain": (
        lambda x: jnp.ceil(x) + x**2, _X, None, Box(0.0, 1.0),
    ),
    "smallest of a segment": (
        lambda v: jnp.sum(jax.ops.segment_min(v, jnp.asarray([0, 1, 0]), 2)), _V,
    ),
    "an element multiplied": (lambda v: jnp.sum(v.at[0].multiply(v[1])), _V),
    "a windowed minimum": (
        lambda v: jnp.sum(
            jax.lax.reduce_window(v, jnp.inf, jax.lax.min, (2,), (1,), "VALID")
        ), _V,
    ),
    "unsigned differences of the data": (
        lambda x, d: (d[0] - d[1]).astype(jnp.int8) * x**2, _X,
        Box(np.array([3, 1], np.uint8), np.array([3, 4], np.uint8)),
    ),
    "one hot of a label beyond": (
        lambda v, d: jax.nn.one_hot(d, 3) @ v**2 - v[1] ** 2, _V,
        Box(np.asarray(-1), np.asarray(3)),
    ),
    "an index that wraps": (
        lambda x, d: jnp.take(jnp.asarray([-1.0, 1.0, 2.0]), d, mode="wrap") * x**2,
        _X, Box(np.asarray(1), np.asarray(5)),
    ),
    "an int8 that overflows": (
        lambda x, d: jax.lax.cumsum(d)[1] * x**2, _X,
        Box(np.array([100, 20], np.int8), np.array([100, 30], np.int8)),
    ),
}  # fmt: skip

_TRUE: dict[str, tuple[Any, ...]] = {
    "a value times its arcsinh": (
        lambda v: jnp.sum(v * jnp.arcsinh(v)), _V, None, Box(-5.0, 5.0),
    ),
    "scatter times a number": (
        lambda w: jnp.sum(jnp.exp(w.at[jnp.array([1, 1])].mul(-2.0))),
        _V,
    ),
    "stop_gradient": (lambda x: x * jax.lax.stop_gradient(x), _X),
    "modest custom_jvp": (lambda x: _modest(x), _X),
    "fresh shift": (_fresh, _V),
    "shift along the axis": (lambda m: _logsumexp(m, axis=0, top_axis=0), _MATRIX),
    "logaddexp": (lambda v: jnp.logaddexp(v[0], v[1]), _V),
    "log_ndtr": (lambda x: -special.log_ndtr(x), _X),
    "logsumexp with weights": (
        lambda v: special.logsumexp(v, b=jnp.asarray([2.0, 2.0, 0.1])), _V,
    ),
    "Huber": (
        lambda x: jnp.where(jnp.abs(x) <= 1.0, 0.5 * x**2, jnp.abs(x) - 0.5), _X,
    ),
    "kink up": (lambda x: jnp.where(x > 0.0, 2.0 * x, x), _X),
    "hinge": (lambda x: jnp.maximum(1.0 - x, 0.0), _X),
    "1/x": (lambda x: 1.0 / x, _X, None, Box(0.1, np.inf)),
    "x^-2": (lambda x: x**-2, _X, None, Box(0.1, np.inf)),
    "x^3": (lambda x: x**3, _X, None, _POSITIVE),
    "lgamma": (lambda x: jax.lax.lgamma(x), _X, None, Box(0.1, np.inf)),
    "-log": (lambda x: -jnp.log(x), _X),
    "-log(x) - log(y)": (lambda v: -jnp.sum(jnp.log(v)), np.ones(2)),
    "-sqrt(x) sqrt(y)": (lambda v: -jnp.prod(jnp.sqrt(v)), np.ones(2)),
    "x log x": (lambda x: x * jnp.log(x), _X),
    "xlogy(x, x)": (lambda x: special.xlogy(x, x), _X, None, Box(0.1, 5.0)),
    "relative entropy": (
        lambda v: v[0] * jnp.log(v[0] / v[1]), np.ones(2), None, Box(0.1, 5.0),
    ),
    "rel_entr": (
        lambda v: jax.jit(special.rel_entr)(v[0], v[1]), np.ones(2), None, _POSITIVE,
    ),
    "kl_div": (
        lambda v: jax.jit(special.kl_div)(v[0], v[1]), np.ones(2), None, _POSITIVE,
    ),
    "-entr": (lambda x: -jax.jit(special.entr)(x), _X, None, _POSITIVE),
    "(|x| + |y|)^2": (lambda v: jnp.sum(jnp.abs(v)) ** 2, _V),
    "|x|^1.5 / y^.5": (
        lambda v: jnp.abs(v[0]) ** 1.5 / v[1] ** 0.5, np.ones(2), None,
        Box(np.array([-3.0, 0.1]), np.array([3.0, 3.0])),
    ),
    "x^2 / y": (
        lambda v: v[0] ** 2 / v[1], np.ones(2), None,
        Box(np.array([-3.0, 0.1]), np.array([3.0, 3.0])),
    ),
    "1 / (x y)": (
        lambda v: 1.0 / (v[0] * v[1]), np.ones(2), None, Box(0.1, np.inf),
    ),
    "sum of log-convex": (
        lambda x: jnp.log(jnp.exp(x**2) + jnp.exp((x - 5.0) ** 2)), _X,
    ),
    "-log sigmoid": (lambda x: -jnp.log(jax.nn.sigmoid(x)), _X),
    "-log(1 - sigmoid)": (lambda x: -jnp.log(1.0 - jax.nn.sigmoid(x)), _X),
    "norm": (lambda v: jnp.sqrt(jnp.sum(v**2)), _V),
    "same element": (lambda v: jnp.sum(v * v), _V),
    "outer product, traced": (lambda v: jnp.trace(jnp.outer(v, v)), _V),
    "a range of positives": (
        lambda x, d: d * x**2, _X, Box(np.asarray(0.0), np.asarray(1.0)),
    ),
    "singular": (lambda v: v[:2] @ jnp.asarray(_SINGULAR) @ v[:2], _V),
    "quartic": (lambda v: v[0] ** 4 + v[0] ** 2 * v[1] ** 2 + v[1] ** 4, _V),
    "largest two": (lambda v: jnp.sum(jnp.sort(v)[1:]), _V),
    "falling weights": (lambda v: jnp.sort(v) @ jnp.asarray([1.0, 2.0, 3.0]), _V),
    "prefix maximum": (lambda v: jnp.sum(jax.lax.cummax(v**2)), _V),
    "scan": (lambda v: _scanned(lambda c, r: jnp.logaddexp(c, r), v[0], v), _V),
    "long scan": (
        lambda x: _scanned(
            lambda c, r: jnp.maximum(c, r) + 0.5 * jnp.abs(x), x, jnp.zeros(4001)
        ), _X,
    ),
    "cond on a constant": (
        lambda x, d: jax.lax.cond(d > 0, lambda z: z**2, lambda z: -z, x), _X,
        np.asarray(1),
    ),
    "masked logsumexp": (
        lambda v: jax.nn.logsumexp(
            jnp.where(jnp.asarray([True, False, True]), v, -jnp.inf)
        ), _V,
    ),
    "guarded": (lambda x: jnp.where(jnp.isnan(x), 0.0, x**2), _X),
    "ordinal likelihood": (
        lambda v: -jnp.log(jax.nn.sigmoid(v[0]) - jax.nn.sigmoid(v[1])),
        np.array([1.0, 0.0]), None,
        Box(np.array([0.5, -3.0]), np.array([3.0, 0.0])),
    ),
    "the slope of a lying rule": (lambda x: jax.grad(_liar)(x) * x, _X),
    "a trace of a Hessian": (
        lambda v: jnp.trace(jax.hessian(lambda u: jnp.sum(u**4))(v)), _V,
    ),
    "the square of the largest size": (lambda v: jnp.max(jnp.abs(v)) ** 2, _V),
    "logsumexp less the mean": (lambda v: jax.nn.logsumexp(v) - jnp.mean(v), _V),
    "a range of values": (lambda v: jnp.ptp(v), _V),
    "a deviation": (lambda v: jnp.std(v), _V),
    "minus a product of three to .3": (
        lambda v: -jnp.prod(v) ** 0.3, np.ones(3), None, Box(0.0, 5.0),
    ),
    "x^3 / (y z)": (
        lambda v: v[0] ** 3 / (v[1] * v[2]), np.ones(3), None, Box(0.1, 5.0),
    ),
    "squares over a sum": (
        lambda v: jnp.sum(v**2) / jnp.sum(v), np.ones(3), None, Box(0.1, 5.0),
    ),
    "shift of half the size": (
        lambda v: jnp.log(jnp.sum(jnp.exp(2.0 * (v - jnp.max(v))))) / 2 + jnp.max(v),
        _V,
    ),
    "-log expm1": (lambda x: -jnp.log(jnp.expm1(x)), _X, None, Box(0.1, 3.0)),
    "lgamma(x) - lgamma(x + 1)": (
        lambda x: special.gammaln(x) - special.gammaln(x + 1.0), _X, None,
        Box(0.1, 5.0),
    ),
    "leaky": (lambda x: jax.nn.leaky_relu(x, 0.1), _X),
    "floor within a step": (
        lambda x: jnp.floor(x) + x**2, _X, None, Box(0.0, 0.9),
    ),
    "pinball of any level": (
        lambda x, d: jnp.maximum(d * x, (d - 1.0) * x), _X,
        Box(np.asarray(0.1), np.asarray(0.9)),
    ),
    "a reversed scan": (
        lambda x: _scanned(
            lambda c, r: jnp.exp(r * c), x, jnp.asarray([1.0, -1.0]), reverse=True
        ), _X,
    ),
    "a parabola and a bump": (lambda x: x**2 + 0.55 / (1.0 + x**2), _X),
    "the cube of a norm": (lambda v: _times_its_root(v @ v), _V),
    "a parabola less half log cosh": (
        lambda x: x**2 - jnp.logaddexp(x, -x), _X,
    ),
}  # fmt: skip

_PARTLY: dict[str, tuple[Any, ...]] = {
    "log": (lambda x: -jnp.log(x), _X),
    "log1p": (lambda x: -jnp.log1p(x), _X),
    "sqrt": (lambda x: -jnp.sqrt(x), _X),
    "rsqrt": (lambda x: jax.lax.rsqrt(x), _X),
    "x^.4": (lambda x: -(x**0.4), _X),
    "x^-.5": (lambda x: x**-0.5, _X),
    "x log x": (lambda x: x * jnp.log(x), _X),
    "x log(x / 2)": (lambda v: jnp.sum(v * jnp.log(v / 2.0)), np.ones(2)),
    "xlogy": (lambda x: -special.xlogy(2.0, x), _X),
    "ordinal likelihood": (
        lambda v: -jnp.log(jax.nn.sigmoid(v[0]) - jax.nn.sigmoid(v[1])),
        np.array([1.0, 0.0]),
    ),
}  # fmt: skip

PARTLY_DEFINED = {name: Case(name, *entry) for name, entry in _PARTLY.items()}
"""Convex where they are defined, which the proof must say."""

FALSE_FRIENDS = {
    name: Case(name, *entry) for name, entry in (_FALSE | FURTHER_FRIENDS).items()
}
TWINS = {name: Case(name, *entry) for name, entry in _TRUE.items()}
