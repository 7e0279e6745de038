"""Programs on which the layer round the calculus could go wrong, one kind at a time.

Each is a loss of one number whose curvature hangs on what jax really computes: integers
that wrap, a branch on a dtype, a draw, a program inside a primitive, a borrowed name.
`KINDS[kind][name]` is the loss. It is compared with its own values, whatever they are.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import mlir

__all__ = ["BORROWED", "KINDS"]

Loss = Callable[[Any], Any]
KINDS: dict[str, dict[str, Loss]] = {}


def _bent_by(condition: Callable[[Any], Any]) -> Loss:
    """Return x^2 where a condition holds that depends on no value of x, else -x^2."""
    return lambda x: jnp.where(condition(x), x**2, -(x**2))


def _known(value: int, dtype: Any, count: int = 1) -> Callable[[Any], Any]:
    return lambda x: jnp.full(count, value, dtype)


def _from_x(value: int, dtype: Any, count: int = 1) -> Callable[[Any], Any]:
    """The same numbers, of which the prover cannot tell that they do not change."""
    return lambda x: (
        jnp.full(count, x > -100.0).astype(dtype) * jnp.asarray(value, dtype)
    )


def _wide_integers() -> dict[str, Loss]:
    i32 = jnp.int32
    return {
        "cube": _bent_by(lambda x: jnp.arange(2000, dtype=i32)[1300] ** 3 > 0),
        "square": _bent_by(lambda x: jnp.arange(60000, dtype=i32)[50000] ** 2 > 0),
        "cumulative sum": _bent_by(
            lambda x: jnp.cumsum(jnp.arange(70000, dtype=i32))[-1] > 0
        ),
        "factorial": _bent_by(lambda x: jnp.prod(jnp.arange(1, 18, dtype=i32)) > 0),
        "dot": _bent_by(
            lambda x: jnp.full(3, 40000, i32) @ jnp.full(3, 30000, i32) > 0
        ),
        "loop": _bent_by(
            lambda x: lax.fori_loop(0, 40, lambda _, c: 3 * c, i32(1)) > 0
        ),
        "unsigned": _bent_by(lambda x: jnp.uint32(3) - jnp.uint32(5) < jnp.uint32(10)),
        "a weight": lambda x: jnp.sum(jnp.arange(1301, 1303, dtype=i32) ** 3 * x**2),
    }


def _own_configuration() -> dict[str, Loss]:
    return {
        "dtype": _bent_by(lambda x: jnp.asarray(x).dtype == jnp.float64),
        "other dtype": _bent_by(lambda x: jnp.asarray(x).dtype == jnp.float32),
        "epsilon": _bent_by(lambda x: jnp.finfo(jnp.asarray(x).dtype).eps < 1e-10),
        "integers by default": _bent_by(lambda x: jnp.arange(3).dtype == jnp.int64),
        "a literal": _bent_by(lambda x: jnp.asarray(0.1, float) == np.float32(0.1)),
        "a draw": lambda x: (
            -jnp.abs(jax.random.normal(jax.random.PRNGKey(0), ())) * x**2
        ),
        "a draw by its sign": lambda x: jax.random.normal(jax.random.key(3), ()) * x**2,
        "a coin": _bent_by(lambda x: jax.random.bernoulli(jax.random.key(0), 0.5)),
        "a permutation": lambda x: (
            (jax.random.permutation(jax.random.key(0), 3)[0] - 1.5) * x**2
        ),
        "a minibatch": lambda x: (
            -jnp.sum(
                (jax.random.choice(jax.random.key(1), jnp.arange(9.0), (4,)) * x - 1.0)
                ** 2
            )
        ),
        "x64 within": _within_x64,
    }


def _within_x64(x: Any) -> Any:
    with jax.enable_x64(True):
        wraps = jnp.asarray(np.int64(2**40)) * jnp.asarray(np.int64(2**40)) == 0
    return jnp.where(wraps, -(x**2), x**2)


def _small_integers(make: Callable[..., Callable[[Any], Any]]) -> dict[str, Loss]:
    """What wraps, of numbers that are known or that come from comparisons of x."""
    i8, u8, i32 = jnp.int8, jnp.uint8, jnp.int32
    ones, twos, two = make(1, i8, 200), make(2, i8, 8), make(2, i8)
    bits, byte = make(2, i32), make(2, u8)
    places = jnp.zeros(200, i32)
    dot = (((0,), (0,)), ((), ()))
    return {
        "sum": _bent_by(lambda x: jnp.sum(ones(x), dtype=i8) > 100),
        "dot": _bent_by(lambda x: lax.dot_general(ones(x), ones(x), dot) > 100),
        "cumsum": _bent_by(lambda x: lax.cumsum(ones(x))[-1] > 100),
        "counts": _bent_by(lambda x: jnp.zeros(2, i8).at[places].add(ones(x))[0] > 100),
        "segments": _bent_by(
            lambda x: jax.ops.segment_sum(ones(x), places, 2)[0] > 100
        ),
        "windows": _bent_by(
            lambda x: (
                lax.reduce_window(ones(x), i8(0), lax.add, (200,), (1,), "VALID")[0]
                > 100
            )
        ),
        "convolution": _bent_by(
            lambda x: (
                lax.conv_general_dilated(
                    ones(x)[None, None], ones(x)[None, None], (1,), "VALID"
                ).sum(dtype=i8)
                > 100
            )
        ),
        "product": _bent_by(lambda x: jnp.prod(twos(x), dtype=i8) != 0),
        "cumprod": _bent_by(lambda x: lax.cumprod(twos(x))[-1] != 0),
        "scattered product": _bent_by(
            lambda x: jnp.ones(1, i8).at[places[:8]].multiply(twos(x))[0] != 0
        ),
        "power": _bent_by(lambda x: lax.integer_pow(two(x)[0], 8) != 0),
        "times": _bent_by(lambda x: two(x)[0] * i8(64) > 0),
        "below zero": _bent_by(lambda x: byte(x)[0] - u8(3) < u8(9)),
        "minus": _bent_by(lambda x: -byte(x)[0] < u8(9)),
        "absolute": _bent_by(lambda x: abs(two(x)[0] - i8(127) - i8(3)) > 0),
        "not": _bent_by(lambda x: ~byte(x)[0] < u8(9)),
        "shift": _bent_by(lambda x: (two(x)[0] << i8(6)) > 0),
        "cast": _bent_by(lambda x: (bits(x)[0] * 100).astype(i8) > 0),
        "quotient": _bent_by(lambda x: lax.div(bits(x)[0], i32(3)) > 0),
        "least by minus one": _bent_by(
            lambda x: lax.div(two(x)[0] * i8(-64), i8(-1)) > 0
        ),
        "remainder": _bent_by(lambda x: lax.rem(-bits(x)[0], i32(3)) > 0),
        "and": _bent_by(lambda x: (bits(x)[0] & i32(1)) > 0),
        "or": _bent_by(lambda x: (bits(x)[0] | i32(1)) < 3),
        "xor": _bent_by(lambda x: (bits(x)[0] ^ i32(2)) > 0),
        "all bits": _bent_by(
            lambda x: lax.reduce_and(jnp.stack([bits(x)[0], i32(1)]), (0,)) > 0
        ),
        "any bit": _bent_by(
            lambda x: lax.reduce_or(jnp.stack([bits(x)[0], i32(1)]), (0,)) < 3
        ),
    }


def _places() -> dict[str, Loss]:
    values = np.where(np.arange(300) == 200, np.float32(1.0), np.float32(0.0))
    return {
        "argmax": _bent_by(lambda x: lax.argmax(values, 0, jnp.int8) >= 0),
        "argmin": _bent_by(lambda x: lax.argmin(-values, 0, jnp.int8) >= 0),
        "argmax of x": _bent_by(
            lambda x: lax.argmax(jnp.where(x > -9.0, values, values), 0, jnp.int8) >= 0
        ),
        "iota": _bent_by(lambda x: lax.iota(jnp.uint8, 70000)[69999] > 200),
        "wide iota": _bent_by(lambda x: lax.iota(jnp.uint16, 70000)[69999] > 60000),
        "plane iota": _bent_by(
            lambda x: lax.broadcasted_iota(jnp.int8, (1000, 100), 0)[999, 3] > 0
        ),
        "sorted": _bent_by(
            lambda x: jnp.sort(jnp.asarray([100, 1], jnp.int8) + jnp.int8(100))[0] > 0
        ),
        "a bit of 64": _bent_by(lambda x: _highest_bit_is_set() == 0),
        "a word of 64": _bent_by(lambda x: _highest_bit_is_set() < 9),
        "int4": _bent_by(
            lambda x: jnp.sum(jnp.full(3, 7, jnp.int4), dtype=jnp.int4) > 6
        ),
    }


def _highest_bit_is_set() -> Any:
    with jax.enable_x64(True):
        word = jnp.asarray(np.uint64(2**63))
        return word & word


# ------------------------------------------------------------ programs in primitives


def _three(x: Any) -> Any:
    return jnp.stack([x, x, x])


def _rebound(method: str, body: Callable[..., Any]) -> Loss:
    """Bind a scatter of jax with a program that is not its own."""

    def loss(x: Any) -> Any:
        x = jnp.asarray(x)
        row = jnp.stack([x, x])
        update = lambda a: getattr(a.at[jnp.array([0])], method)(a[:1])
        (*_, eqn) = [
            e for e in jax.make_jaxpr(update)(row).eqns if "scatter" in str(e.primitive)
        ]
        params = {**eqn.params, "update_jaxpr": jax.make_jaxpr(body)(x, x).jaxpr}
        index = jnp.zeros((1, 1), eqn.invars[1].aval.dtype)
        return jnp.sum(eqn.primitive.bind(row, index, row[:1], **params))

    return loss


def _inner_programs() -> dict[str, Loss]:
    bent = lambda a, b: 0.0 * b - 4.0 * a * a
    return {
        "apply": lambda x: jnp.sum(_three(x).at[1].apply(lambda v: -3.0 * v**2)),
        "apply to some": lambda x: jnp.sum(
            _three(x).at[jnp.array([0, 2])].apply(lambda v: -3.0 * v**2)
        ),
        "apply in a loop": lambda x: jnp.sum(
            lax.fori_loop(
                0, 3, lambda i, a: a.at[i].apply(lambda v: -(v**2)), _three(x)
            )
        ),
        "reduce": lambda x: lax.reduce(
            _three(x), jnp.zeros((), jnp.asarray(x).dtype), lambda a, b: a - b * b, (0,)
        ),
        "windows": lambda x: lax.reduce_window(
            _three(x),
            jnp.zeros((), jnp.asarray(x).dtype),
            lambda a, b: a - b * b,
            (3,),
            (1,),
            "VALID",
        )[0],
        "a solve that solves nothing": lambda x: lax.custom_linear_solve(
            lambda v: v, jnp.asarray(x), solve=lambda _, b: -(b**2), symmetric=True
        ),
        "a root that is none": lambda x: lax.custom_root(
            lambda v: v - x, x, lambda f, start: -(x**2), lambda g, y: y / g(1.0)
        ),
        "switch": lambda x: lax.switch(
            jnp.array(5), [lambda v: v**2, lambda v: v**2, lambda v: -(v**2)], x
        ),
        **{
            f"rebound {method}": _rebound(method, bent)
            for method in ("add", "multiply", "min", "max", "subtract", "set")
        },
        "turned difference": _rebound("subtract", lambda a, b: -jnp.abs(b - 3.0 * a)),
    }


# ------------------------------------------------------------------- signs of zeros


def _signed_zeros() -> dict[str, Loss]:
    """What hangs on the sign of a zero, which the real number does not have."""
    plus, minus, knots = np.zeros(()), -np.zeros(()), np.array([np.nan, 1.0])
    both, turned = np.array([-0.0, 0.0]), np.array([0.0, -0.0])

    def times(factor: Callable[..., Any], *given: Any) -> Loss:
        """Return x^2 times what the program makes of numbers that it is given."""
        return lambda x: jnp.sum(x**2 * jax.jit(factor)(*map(jnp.asarray, given)))

    def either(test: Callable[..., Any], *given: Any) -> Loss:
        return times(lambda *given: jnp.where(test(*given), 1.0, -1.0), *given)

    return {
        "below the cut": times(jnp.arctan2, minus, -1.0),
        "above the cut": times(lambda y: -jnp.arctan2(y, -1.0), plus),
        "on both sides": times(lambda y: jnp.arctan2(y, -1.0)[:1], both),
        "of a product": times(lambda y: jnp.arctan2(-3.0 * y, -1.0), plus),
        "of a complex number": times(jnp.angle, np.array(complex(-1.0, -0.0))),
        "of its conjugate": times(
            lambda z: jnp.angle(jnp.conj(z)), np.array(-1.0 + 0j)
        ),
        "as a sign bit": times(lambda y: 0.5 - jnp.signbit(y), minus),
        "copied": times(lambda y: jnp.copysign(1.0, -y), plus),
        "in a quotient": either(lambda y: 1.0 / y > 0.0, minus),
        "under an infinity": either(lambda y: jnp.isnan(jnp.inf / y), plus),
        "under the other": either(lambda y: jnp.isnan(-jnp.inf / y), minus),
        "under one, rounded": either(lambda y: jnp.isnan(jnp.inf // y), plus),
        "in a reciprocal root": either(lambda y: lax.rsqrt(y) > 0.0, minus),
        "in a power": either(lambda y: jnp.power(y, -1.0) > 0.0, minus),
        "in the largest": either(lambda y: lax.top_k(y, 1)[1][0] == 0, both),
        "in the smallest": either(lambda y: lax.top_k(-y, 2)[1][1] == 1, turned),
        "in places": either(lambda y: jnp.argsort(y)[0] == 1, both),
        "in bins": either(lambda y: jnp.searchsorted(y, 0.0) == 1, both),
        "NaN in bins": either(lambda y: jnp.searchsorted(y, 0.0) == 1, knots),
        "NaN in bins, turned": either(
            lambda y: jnp.searchsorted(y, 2.0, side="right") == 0, knots
        ),
        "NaN in places": either(lambda y: jnp.argsort(y)[0] == 0, knots),
        "NaN as the largest": either(lambda y: lax.top_k(y, 1)[1][0] == 1, knots),
    }


# ------------------------------------------------------------------- borrowed names


def _primitive(name: str) -> Any:
    """A primitive of our own that computes -x^2 of its first argument."""
    own = Primitive(name)
    fn = lambda x, *_, **__: -(x * x)
    own.def_impl(fn)
    own.def_abstract_eval(lambda x, *_, **__: jax.core.ShapedArray(x.shape, x.dtype))
    mlir.register_lowering(own, mlir.lower_fun(fn, multiple_results=False))
    return own


def logaddexp(x: Any, y: Any) -> Any:
    """Bear the name of an atom."""
    return _EXP.bind(x) + 0.0 * y


_EXP = _primitive("exp")
BORROWED = (
    *("abs", "cosh", "exp", "integer_pow", "log", "neg", "square", "sqrt", "erf"),
    *("logaddexp", "row", "stack", "scan", "jit", "cond", "while", "copy", "scatter"),
    *("stop_gradient", "reduce_sum", "reshape", "convert_element_type", "select_n"),
    *("custom_jvp_call", "custom_linear_solve", "add", "mul", "max", "dot_general"),
)
"""Names of primitives, of atoms and of equations that the trace writes itself."""


def _borrowed() -> dict[str, Loss]:
    def alone(name: str) -> Loss:
        own = _primitive(name)
        return lambda x: own.bind(jnp.asarray(x))

    def pair(name: str) -> Loss:
        own = _primitive(name)
        return lambda x: own.bind(jnp.asarray(x), jnp.asarray(x))

    return {
        **{name: alone(name) for name in BORROWED},
        **{f"{name} of two": pair(name) for name in ("add", "max", "logaddexp", "div")},
        "an atom": lambda x: jax.jit(logaddexp)(jnp.asarray(x), 1.0),
        "within checkpoint": lambda x: jax.checkpoint(_EXP.bind)(jnp.asarray(x)),
        "within scan": lambda x: lax.scan(
            lambda c, _: (_EXP.bind(c), None), jnp.asarray(x), None, length=1
        )[0],
        "within a long scan": lambda x: lax.scan(
            lambda c, _: (c + _EXP.bind(jnp.asarray(x)) / 20000, None),
            jnp.zeros((), jnp.asarray(x).dtype),
            None,
            length=20000,
        )[0],
        "within a branch": lambda x: lax.cond(True, _EXP.bind, jnp.abs, jnp.asarray(x)),
    }


KINDS["wide integers"] = _wide_integers()
KINDS["own configuration"] = _own_configuration()
KINDS["small integers"] = _small_integers(_known)
KINDS["small integers on a box"] = _small_integers(_from_x)
KINDS["places"] = _places()
KINDS["inner programs"] = _inner_programs()
KINDS["signs of zeros"] = _signed_zeros()
KINDS["borrowed names"] = _borrowed()
