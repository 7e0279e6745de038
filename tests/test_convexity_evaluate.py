"""Values enclosed: every primitive, programs at random, infinities, scans, indices."""

import jax
import jax.numpy as jnp
import jax.scipy.special as special
import mpmath
import numpy as np
import pytest

from phihat.convexity.numbers.extended import Extended, from_constant
from phihat.convexity.numbers.intervals import Interval, from_array
from phihat.convexity.primitives import PRIMITIVES
from phihat.convexity.primitives.evaluation import (
    Undefined,
    Unreadable,
    computed,
    evaluate,
)
from phihat.convexity.program.floating import function_of
from phihat.convexity.program.form import Equation, Source
from phihat.convexity.program.problem import pose
from phihat.convexity.program.trace import trace
from tests.convexity_losses import LOSSES

_EVERY = (-3.0, 3.0)
_POSITIVE = (0.05, 4.0)
_UNIT = (-0.95, 0.95)
_PICK = np.array([2, 0, 2])
_BROKEN_LINE = np.array([[-1.0, 0.1, 0.4, 2.0], [0.5, -1.0, 3.0, 2.5]])


def _float(x):
    return x.astype(float)


def _rows(x):
    return jnp.stack([x, 2.0 * x, jnp.ones_like(x)])


# A function of an array [4] for each primitive, and the range of its argument.
FUNCTIONS = {
    "abs": (jnp.abs, _EVERY),
    "acos": (jnp.arccos, _UNIT),
    "acosh": (jnp.arccosh, (1.05, 5.0)),
    "add": (lambda x: x + x[::-1], _EVERY),
    "and": (lambda x: jnp.where((x > -1) & (x < 1), x, 0.0), _EVERY),
    "argmax": (lambda x: jnp.argmax(x).astype(float), _EVERY),
    "argmin": (lambda x: jnp.argmin(x).astype(float), _EVERY),
    "asin": (jnp.arcsin, _UNIT),
    "asinh": (jnp.arcsinh, _EVERY),
    "atan": (jnp.arctan, _EVERY),
    "atan2": (lambda x: jnp.arctan2(x, 1.5 + x[::-1] ** 2), _EVERY),
    "atanh": (jnp.arctanh, _UNIT),
    "broadcast_in_dim": (lambda x: jnp.broadcast_to(x, (2, 4)), _EVERY),
    "cbrt": (jnp.cbrt, _EVERY),
    "ceil": (jnp.ceil, _EVERY),
    "clamp": (lambda x: jax.lax.clamp(-1.0, x, 1.0), _EVERY),
    "concatenate": (lambda x: jnp.concatenate([x, x]), _EVERY),
    "conv_general_dilated": (lambda x: jnp.convolve(x, x[:2]), _EVERY),
    "convert_element_type": (lambda x: x.astype(int).astype(float), _EVERY),
    "cos": (jnp.cos, _EVERY),
    "cosh": (jnp.cosh, _EVERY),
    "cumlogsumexp": (jax.lax.cumlogsumexp, _EVERY),
    "cummax": (jax.lax.cummax, _EVERY),
    "cummin": (lambda x: jax.lax.cummin(x, reverse=True), _EVERY),
    "cumprod": (jax.lax.cumprod, _EVERY),
    "cumsum": (lambda x: jax.lax.cumsum(x, reverse=True), _EVERY),
    "digamma": (special.digamma, _POSITIVE),
    "div": (lambda x: x / (1.0 + x**2), _EVERY),
    "dot_general": (lambda x: jnp.dot(x, x[::-1]), _EVERY),
    "dynamic_slice": (lambda x: jax.lax.dynamic_slice(x, (1,), (2,)), _EVERY),
    "dynamic_update_slice": (
        lambda x: jax.lax.dynamic_update_slice(x, x[:2], (_as_index(x),)),
        _EVERY,
    ),
    "eq": (lambda x: jnp.where(jnp.floor(x) == 0.0, x, 1.0), _EVERY),
    "erf": (special.erf, _EVERY),
    "erf_inv": (special.erfinv, _UNIT),
    "erfc": (special.erfc, _EVERY),
    "exp": (jnp.exp, _EVERY),
    "exp2": (jnp.exp2, _EVERY),
    "expm1": (jnp.expm1, _EVERY),
    "floor": (jnp.floor, _EVERY),
    "gather": (lambda x: x[_PICK], _EVERY),
    "ge": (lambda x: jnp.where(x >= 0.5, x, -x), _EVERY),
    "gt": (lambda x: jnp.where(x > 0.5, x, -x), _EVERY),
    "integer_pow": (lambda x: x**3, _EVERY),
    "iota": (lambda x: x[0] * jax.lax.iota(float, 70_000)[-4:], _EVERY),
    "interp": (lambda x: jnp.interp(x, *_BROKEN_LINE), _EVERY),
    "interp_extrapolated": (
        lambda x: jnp.interp(x, *_BROKEN_LINE, left="extrapolate", right="extrapolate"),
        _EVERY,
    ),
    "is_finite": (lambda x: jnp.where(jnp.isfinite(x), x, 0.0), _EVERY),
    "le": (lambda x: jnp.where(x <= 0.5, x, -x), _EVERY),
    "le_to": (
        lambda x: jnp.searchsorted(jnp.array([0.3, 1.0]), x).astype(float),
        _EVERY,
    ),
    "lgamma": (special.gammaln, _POSITIVE),
    "log": (jnp.log, _POSITIVE),
    "log1p": (jnp.log1p, _POSITIVE),
    "log_ndtr": (special.log_ndtr, _EVERY),
    "logaddexp": (lambda x: jnp.logaddexp(x, x[::-1]), _EVERY),
    "logistic": (jax.nn.sigmoid, _EVERY),
    "lt": (lambda x: jnp.where(x < 0.5, x, -x), _EVERY),
    "lt_to": (
        lambda x: _float(jnp.searchsorted(jnp.array([0.3, 1.0]), x, side="right")),
        _EVERY,
    ),
    "max": (lambda x: jnp.maximum(x, x[::-1]), _EVERY),
    "min": (lambda x: jnp.minimum(x, 0.3), _EVERY),
    "mul": (lambda x: x * x[::-1], _EVERY),
    "ne": (lambda x: jnp.where(jnp.floor(x) != 0.0, x, 1.0), _EVERY),
    "neg": (lambda x: -x, _EVERY),
    "not": (lambda x: jnp.where(~(x > 0), x, 0.0), _EVERY),
    "or": (lambda x: jnp.where((x < -1) | (x > 1), x, 0.0), _EVERY),
    "pad": (lambda x: jnp.pad(x, 1, constant_values=2.0), _EVERY),
    "polygamma": (lambda x: special.polygamma(1, x), _POSITIVE),
    "pow": (lambda x: x**1.7, _POSITIVE),
    "reduce_and": (lambda x: jnp.where(jnp.all(x > -2.5), x, 0.0), _EVERY),
    "reduce_max": (jnp.max, _EVERY),
    "reduce_min": (jnp.min, _EVERY),
    "reduce_or": (lambda x: jnp.where(jnp.any(x > 2.0), x, 0.0), _EVERY),
    "reduce_prod": (jnp.prod, _EVERY),
    "reduce_sum": (jnp.sum, _EVERY),
    "reduce_window_max": (
        lambda x: jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (2,), (1,), "SAME"),
        _EVERY,
    ),
    "reduce_window_min": (
        lambda x: jax.lax.reduce_window(x, jnp.inf, jax.lax.min, (2,), (2,), "VALID"),
        _EVERY,
    ),
    "reduce_window_sum": (
        lambda x: jax.lax.reduce_window(
            x, 0.0, jax.lax.add, (2,), (1,), [(1, 1)], window_dilation=(2,)
        ),
        _EVERY,
    ),
    "rem": (lambda x: jnp.fmod(x, 0.7), _EVERY),
    "reshape": (lambda x: x.reshape(2, 2), _EVERY),
    "rev": (lambda x: x[::-1], _EVERY),
    "round": (jnp.round, _EVERY),
    "rsqrt": (jax.lax.rsqrt, _POSITIVE),
    "scatter": (lambda x: x.at[_PICK[:2]].set(x[:2] ** 2), _EVERY),
    "scatter-add": (lambda x: x.at[_PICK].add(x[:3]), _EVERY),
    "scatter-max": (lambda x: x.at[_PICK].max(x[:3]), _EVERY),
    "scatter-min": (lambda x: x.at[_PICK].min(x[:3]), _EVERY),
    "scatter-mul": (lambda x: x.at[_PICK].mul(x[:3]), _EVERY),
    "scatter-sub": (lambda x: x.at[_PICK].subtract(x[:3]), _EVERY),
    "select_n": (lambda x: jnp.where(x > x[::-1], x, 2.0), _EVERY),
    "shift_left": (lambda x: (x.astype(int) << 1).astype(float), _EVERY),
    "shift_right_arithmetic": (lambda x: _float(x.astype(int) >> 1), _EVERY),
    "shift_right_logical": (
        lambda x: _float(jax.lax.shift_right_logical(x.astype(int), jnp.full(4, 1))),
        _POSITIVE,
    ),
    "sign": (jnp.sign, _EVERY),
    "sin": (jnp.sin, _EVERY),
    "sinh": (jnp.sinh, _EVERY),
    "slice": (lambda x: x[1:3], _EVERY),
    "sort": (jnp.sort, _EVERY),
    "split": (lambda x: jnp.split(x, 2)[1], _EVERY),
    "sqrt": (jnp.sqrt, _POSITIVE),
    "square": (jnp.square, _EVERY),
    "squeeze": (lambda x: jnp.squeeze(x[None]), _EVERY),
    "stack": (_rows, _EVERY),
    "sub": (lambda x: x - x[::-1], _EVERY),
    "tan": (jnp.tan, (-1.4, 1.4)),
    "tanh": (jnp.tanh, _EVERY),
    "tile": (lambda x: jnp.tile(x, 2), _EVERY),
    "top_k": (lambda x: jax.lax.top_k(x, 2)[0], _EVERY),
    "transpose": (lambda x: _rows(x).T, _EVERY),
    "unstack": (lambda x: jnp.unstack(x.reshape(2, 2))[1], _EVERY),
    "xlog1py": (lambda x: special.xlog1py(x, x[::-1]), _POSITIVE),
    "xlogy": (lambda x: special.xlogy(x, x[::-1]), _POSITIVE),
    "xor": (lambda x: jnp.where((x < 0) ^ (x[::-1] < 0), x, 0.0), _EVERY),
}

# Those that need a program of their own; each has a test below.
ELSEWHERE = {
    "cholesky",
    "lu",
    "triangular_solve",
    "add_any",
    "entr",
    "expand_dims",
    "kl_div",
    "rel_entr",
    "row",
    "scan",
    "slogdet",
    "slogdet_sign",
}

# XLA's lgamma errs by hundreds of ulps, log_ndtr's body jumps by 4e-9.
SLACK = {"lgamma": 1e-12, "digamma": 1e-12, "polygamma": 1e-11, "log_ndtr": 1e-8}


def _as_index(x):
    return jnp.argmax(x) // 2


def _program(fn, *args):
    """Trace fn as if it were a loss; its first output may have any shape."""
    weights = np.asarray(jnp.zeros(jax.eval_shape(fn, *args).shape))
    program = trace(lambda *a: jnp.sum(fn(*a) * weights), *args)
    weighted = next(e for e in program.equations[::-1] if e.primitive == "mul")
    (number,) = set(weighted.inputs) - set(program.constants)
    return program, number


def _enclosed(fn, *ranges, traced=None):
    points = [jnp.asarray(x.low) for x in ranges]
    program, number = traced or _program(fn, *points)
    inputs = dict(zip((*program.params, *program.data), ranges, strict=True))
    return evaluate(program, inputs, [number])[number]


def _value(fn, *args):
    """Evaluate a scalar function of points."""
    program = trace(fn, *args)
    leaves = [from_array(np.asarray(x)) for x in jax.tree.leaves(args)]
    inputs = dict(zip((*program.params, *program.data), leaves, strict=True))
    return evaluate(program, inputs)[program.output]


def _holds(x, value, slack):
    room = slack * (1.0 + np.abs(value))
    return bool(np.all((x.low - room <= value) & (value <= x.high + room)))


def _slogdet_of(low, width, part):
    traced = trace(lambda a: jnp.linalg.slogdet(a)[part], jnp.asarray(low))
    ranges = dict(zip(traced.params, [Interval(low, low + width)], strict=True))
    return evaluate(traced, ranges, [traced.output])[traced.output]


@pytest.mark.parametrize("part", [0, 1])
def test_determinants_are_read_of_known_matrices_alone(part):
    rng = np.random.default_rng(3)
    for _ in range(20):
        square = rng.normal(size=(3, 3)) + 2.0 * np.eye(3)
        found = _slogdet_of(square, 0.0, part)
        assert found.contains(np.linalg.slogdet(square)[part])
    for low, width in ((np.eye(3), 1e-3), (np.ones((3, 3)), 0.0)):
        with pytest.raises(Unreadable):
            _slogdet_of(low, width, part)


def test_every_rule_has_a_function():
    assert set(FUNCTIONS) | ELSEWHERE == {
        "scan",
        *(name for name, rules in PRIMITIVES.items() if rules.value),
    }


@pytest.mark.parametrize("name", FUNCTIONS)
def test_points_and_ranges_hold_the_value(name):
    fn, (low, high) = FUNCTIONS[name]
    traced = _program(fn, jnp.full(4, 0.4))
    assert name in {equation.primitive for equation in traced[0].equations}
    rng = np.random.default_rng(list(FUNCTIONS).index(name))
    slack = SLACK.get(name, 1e-14)
    with jax.numpy_dtype_promotion("standard"):
        for _ in range(4):
            centre = rng.uniform(low, high, size=4)
            point = _enclosed(fn, from_array(centre), traced=traced)
            value = np.asarray(fn(jnp.asarray(centre)))
            assert point.shape == value.shape
            assert _holds(point, value, slack)
            if not name.startswith("shift"):
                assert np.all(point.width <= 1e-12 * (1.0 + np.abs(value)))
            width = 10.0 ** rng.uniform(-3.0, 0.5)
            ends = np.clip([centre - width, centre + width], low, high)
            box = _enclosed(fn, Interval(*ends), traced=traced)
            for corner in (0.0, 1.0, *rng.uniform(size=(12, 4))):
                inner = ends[0] + corner * (ends[1] - ends[0])
                inner = np.clip(inner, *ends)
                assert _holds(box, np.asarray(fn(jnp.asarray(inner))), slack)


@pytest.mark.parametrize("name", LOSSES)
def test_losses_hold_the_float_value_and_so_does_the_flat_program(name):
    loss_fn, params, data, domain, _ = LOSSES[name]
    problem = pose("check_convexity", loss_fn, params, data, domain=domain)
    program = problem.program
    inputs = dict(zip(program.params, map(from_array, problem.start), strict=True))
    inputs |= dict(zip(program.data, problem.data, strict=True))
    value = evaluate(program, inputs)[program.output]
    expected = problem.value(problem.start)
    assert _holds(value, expected, 2e-14)
    in_floats = function_of(program)(
        [*problem.start], [leaf.low for leaf in problem.data]
    )
    np.testing.assert_allclose(in_floats, expected, rtol=1e-12)
    assert value.width <= 1e-11 * (1.0 + value.magnitude)


# ------------------------------------------------------------------ random programs

_UNARY = [
    jnp.abs,
    jnp.tanh,
    jnp.sin,
    jax.nn.sigmoid,
    jax.nn.relu,
    lambda x: x**2,
    lambda x: jnp.exp(-jnp.abs(x)),
    lambda x: jnp.log1p(x**2),
    lambda x: jnp.sqrt(1.0 + x**2),
    lambda x: x[::-1],
    jnp.cumsum,
    jnp.sort,
    lambda x: x - jnp.max(x),
    jax.nn.log_softmax,
    lambda x: jnp.where(x > 0.1, x, 0.3),
    lambda x: jnp.broadcast_to(jnp.mean(x), x.shape),
    lambda x: x.at[1].multiply(-2.0),
    lambda x: jnp.roll(x, 1),
    jnp.floor,
]
_BINARY = [
    jnp.add,
    jnp.subtract,
    jnp.multiply,
    jnp.maximum,
    jnp.minimum,
    jnp.logaddexp,
    lambda x, y: x / (1.0 + y**2),
    lambda x, y: jnp.where(x < y, x, y**2),
    lambda x, y: jnp.outer(x, y) @ x,
]


def _random_function(rng):
    steps = [
        (
            rng.integers(len(_UNARY)),
            rng.integers(len(_BINARY)),
            *rng.integers(9, size=3),
        )
        for _ in range(rng.integers(2, 8))
    ]

    def fn(x):
        values = [x, jnp.asarray([0.5, -1.0, 2.0])]
        for one, two, which, i, j in steps:
            a, b = values[i % len(values)], values[j % len(values)]
            values.append(_UNARY[one](a) if which < 5 else _BINARY[two](a, b))
        return jnp.sum(jnp.clip(values[-1], -1e6, 1e6))

    return fn


@pytest.mark.parametrize("seed", range(60))
def test_random_programs_hold_their_values(seed):
    rng = np.random.default_rng(seed)
    fn = _random_function(rng)
    program = trace(fn, jnp.zeros(3))
    centre = rng.normal(size=3)
    for width in (0.0, 1e-3, 1.0):
        low, high = centre - width, centre + width
        box = Interval(low, high) if width else from_array(centre)
        value = evaluate(program, {program.params[0]: box})[program.output]
        inner = low + rng.uniform(size=(8, 3)) * (high - low)
        for point in np.clip(inner, low, high):
            assert _holds(value, float(fn(jnp.asarray(point))), 1e-12)


# ----------------------------------------------------- ideal functions, exact values


@pytest.mark.parametrize("x", [-30.0, -20.0, -19.999, -5.0, -0.1, 0.0, 3.0])
def test_log_ndtr_is_the_ideal_function(x):
    with mpmath.workprec(300):
        truth = mpmath.log(mpmath.erfc(-mpmath.mpf(x) / mpmath.sqrt(2)) / 2)
        value = _value(special.log_ndtr, x)
        assert mpmath.mpf(float(value.low)) <= truth <= mpmath.mpf(float(value.high))


def _atom(name, *xs):
    """Apply the rule of an atom: some are traced to primitives by some jax."""
    equation = Equation(name, {}, tuple(range(len(xs))), (9,), Source("", 0, ""), None)
    return computed(
        equation, [x if isinstance(x, Interval) else from_array(x) for x in xs]
    )[0]


_IDEAL = {
    "xlogy": lambda x, y: x * mpmath.log(y),
    "xlog1py": lambda x, y: x * mpmath.log1p(y),
    "rel_entr": lambda x, y: x * mpmath.log(x / y),
    "kl_div": lambda x, y: x * mpmath.log(x / y) - x + y,
    "logaddexp": lambda x, y: mpmath.log(mpmath.exp(x) + mpmath.exp(y)),
    "entr": lambda x: -x * mpmath.log(x),
}


@pytest.mark.parametrize("name", _IDEAL)
@pytest.mark.parametrize(("x", "y"), [(0.3, 2.0), (1e-300, 5.0), (7.0, 1e-9), (1, 1)])
def test_atoms_hold_200_bits(name, x, y):
    args = (x,) if name == "entr" else (x, y)
    with mpmath.workprec(200):
        truth = _IDEAL[name](*map(mpmath.mpf, args))
        value = _atom(name, *args)
        assert value.low <= truth <= value.high
        for width in (0.5, 0.999):
            box = [Interval(z * (1 - width), z * (1 + width)) for z in args]
            assert _atom(name, *box).low <= value.low
            assert _atom(name, *box).high >= value.high


def test_atoms_at_the_edge_of_their_domain():
    unit = Interval(0.0, 1.0)
    assert _atom("xlogy", 0.0, -1.0).high == 0.0
    assert _atom("entr", 0.0).low == 0.0
    assert _atom("entr", unit).low == 0.0
    assert _atom("entr", unit).high == pytest.approx(np.exp(-1))
    assert _atom("entr", -1.0).kind == -1
    assert _atom("rel_entr", 0.0, 0.0).low == 0.0
    assert _atom("rel_entr", unit, 1.0).low == pytest.approx(-np.exp(-1))
    assert _atom("rel_entr", 1.0, -1.0).kind == 1
    assert _atom("kl_div", 0.0, 2.0).low == 2.0
    assert _atom("kl_div", unit, unit + 1.0).low == 0.0
    with pytest.raises(Undefined):
        _atom("xlogy", unit, Interval(-1.0, 1.0))


@pytest.mark.parametrize("x", [-0.999999, -0.5, 0.0, 1e-20, 0.3, 0.999])
def test_inverse_error_function_holds_200_bits(x):
    with mpmath.workprec(200):
        truth = mpmath.erfinv(mpmath.mpf(x))
        value = _value(jax.lax.erf_inv, x)
        assert value.low <= truth <= value.high
        assert value.width <= 1e-12 * (1 + abs(truth))


def test_whole_numbers_stay_points():
    x = np.array([3.0, -7.0, 0.5])
    value = _value(lambda x: jnp.sum(jnp.square(2.0 * x - 1.0)[::-1]) / 4.0, x)
    assert value.low == value.high == ((2 * x - 1) ** 2).sum() / 4
    assert _value(lambda x: x @ x, x).is_point


def test_cancelled_digits_are_kept():
    value = _value(lambda x: (x + 1e16) - 1e16, -1.0)
    assert value.contains(-1.0)


def test_large_points_are_not_copied():
    x = np.ones((1000, 50))
    assert np.shares_memory(from_constant(x).low, x)
    program = trace(lambda w, x: jnp.sum(x.T[::2] * w), 1.0, x)
    moved = [e for e in program.equations if e.primitive in ("transpose", "slice")]
    inputs = {program.params[0]: from_array(1.0), program.data[0]: from_array(x)}
    assert moved
    for equation in moved:
        (number,) = equation.outputs
        assert np.shares_memory(evaluate(program, inputs, [number])[number].low, x)


def test_a_value_and_itself():
    x = Interval(-1.0, 2.0)
    assert _enclosed(lambda x: x * x, x).low == 0.0
    assert _enclosed(lambda x: x - x + 0 * x, x).contains(Interval(0.0, 0.0))
    assert _enclosed(lambda x: jnp.where(x != x, 5.0, 1.0) * x, x).high == 2.0


# ------------------------------------------------------------- infinite, undefined

_MASK = np.array([True, True, False])


@pytest.mark.parametrize(
    ("fn", "x", "expected"),
    [
        (
            lambda x: jax.nn.logsumexp(jnp.where(_MASK, x, -jnp.inf)),
            [1.0, 2.0, 9.0],
            None,
        ),
        (lambda x: jnp.max(x, initial=-jnp.inf), [1.0, 2.0, 9.0], 9.0),
        (lambda x: jnp.min(x, initial=jnp.inf), [1.0, 2.0, 9.0], 1.0),
        (lambda x: jnp.max(x, where=_MASK, initial=-jnp.inf), [1.0, 2.0, 9.0], 2.0),
        (lambda x: jnp.exp(-jnp.inf) + jnp.sum(x), [1.0, 2.0, 9.0], 12.0),
        (lambda x: jnp.sum(jnp.where(x > 0, jnp.log(x), 0.0)), [-1.0, 0.0, 1.0], 0.0),
        (lambda x: jnp.sum(jnp.where(x != 0, 1 / x, 0.0)), [-1.0, 0.0, 2.0], -0.5),
        (
            lambda x: jnp.sum(jnp.nan_to_num(jnp.log(x), posinf=3.0)),
            [-1.0, 1.0, 1.0],
            0,
        ),
        (lambda x: jnp.sum(jnp.exp(jnp.log(x))), [0.0, 0.0, 0.0], 0.0),
        (
            lambda x: jnp.sum(jnp.tanh(jnp.where(_MASK, 0 * x, jnp.inf))),
            [1.0, 2.0, 3.0],
            1,
        ),
        (
            lambda x: jnp.sum(jnp.where(jnp.isfinite(1 / x), x, 7.0)),
            [0.0, 1.0, 1.0],
            9.0,
        ),
        (lambda x: jnp.logaddexp(x[0], -jnp.inf), [1.5, 0.0, 0.0], 1.5),
        (lambda x: jnp.sum(jax.nn.softmax(x, where=_MASK)), [1.0, 2.0, 3.0], None),
    ],
)
def test_infinities_that_do_not_stay(fn, x, expected):
    x = np.asarray(x)
    value = _value(fn, x)
    if expected is None:
        expected = float(fn(jnp.asarray(x)))
        assert _holds(value, expected, 1e-14)
    else:
        assert value.low == value.high == expected


@pytest.mark.parametrize(
    ("fn", "x", "certain"),
    [
        (jnp.log, -1.0, True),
        (jnp.log, 0.0, True),
        (lambda x: 1 / x, 0.0, True),
        (lambda x: x / x, 0.0, True),
        (jnp.sqrt, -1e-300, True),
        (lambda x: x**-2, 0.0, True),
        (lambda x: x**0.5, -1.0, True),
        (jnp.arccos, 1.5, True),
        (special.gammaln, -2.0, True),
        (special.digamma, 0.0, True),
        (jax.lax.erf_inv, 1.0, True),
        (lambda x: jnp.log(x) - jnp.log(x), 0.0, True),
        (lambda x: jnp.maximum(jnp.log(x), 0.0), -1.0, True),
        (lambda x: jnp.where(x > 0, x, jnp.inf), -1.0, True),
        (lambda x: x * jnp.log(x), 0.0, True),
        (lambda x: jnp.log(0.1 * x - 0.3), 3.0, False),
        (jnp.tan, 1.5707963267948966, False),
        (lambda x: 1 / (0.1 * x - 0.3), 3.0, False),
    ],
)
def test_undefined_is_told_never_nan(fn, x, certain):
    with pytest.raises(Undefined) as raised:
        _value(fn, x)
    assert raised.value.certain == certain
    assert "finite number" in str(raised.value)


def test_half_a_range_outside_is_not_certain():
    program = trace(jnp.log, 1.0)
    with pytest.raises(Undefined) as raised:
        evaluate(program, {program.params[0]: Interval(-1.0, 1.0)})
    assert not raised.value.certain


def test_strict_rules_raise_and_pass_infinities():
    (equation,) = trace(jnp.log, 1.0).equations
    with pytest.raises(Undefined, match="log"):
        computed(equation, [from_array(-1.0)])
    (value,) = computed(equation, [from_array(0.0)])
    assert isinstance(value, Extended)
    (value,) = computed(equation._replace(primitive="exp"), [value])
    assert value.low == value.high == 0.0


@pytest.mark.parametrize(
    ("fn", "name"),
    [
        (lambda x: jnp.linalg.cholesky(-x[None, None])[0, 0], "cholesky"),
        (lambda x: jnp.linalg.qr(x[None, None])[0][0, 0], "qr"),
        (lambda x: x.astype(jnp.float8_e4m3fn).astype(float), "convert_element_type"),
        (lambda x: jax.lax.reduce_precision(x, 5, 10), "reduce_precision"),
        (lambda x: jax.lax.while_loop(lambda c: c < 9.0, lambda c: 2 * c, x), "while"),
        (lambda x: jax.random.gamma(jax.random.key(0), 2.0) * x, "random_gamma"),
        (lambda x: jnp.real(jnp.exp(x * 1j)), "exp on complex"),
    ],
)
def test_unknown_primitives_are_named(fn, name):
    with pytest.raises(Unreadable) as raised:
        _value(fn, 1.0)
    assert raised.value.primitive.startswith(name)


# ------------------------------------------------------------------ scans, indices


def test_long_scans_stay_whole_and_hold_the_value():
    def fn(w, x):
        def step(carry, row):
            carry = 0.5 * carry + jnp.tanh(w * row)
            return carry, carry**2

        last, rows = jax.lax.scan(step, jnp.zeros(()), x, reverse=True)
        return last + jnp.sum(rows[:3]) + jnp.mean(rows)

    x = np.random.default_rng(0).normal(size=3000)
    program = trace(fn, 0.7, x)
    assert "scan" in {equation.primitive for equation in program.equations}
    value = _value(fn, 0.7, x)
    assert _holds(value, float(fn(0.7, x)), 1e-12)
    assert value.width < 1e-9


def test_short_scans_are_unrolled_into_rows():
    def fn(w):
        return jax.lax.scan(lambda c, row: (c + row**2, row), 0.0, w)[0]

    program = trace(fn, jnp.ones(3))
    assert "row" in {equation.primitive for equation in program.equations}
    assert _value(fn, np.array([1.0, 2.0, 3.0])).low == 14.0


def test_unknown_indices_take_the_hull():
    x = Interval(np.array([1.0, 2.0, 5.0]), np.array([1.5, 2.0, 6.0]))
    unknown = Interval(0.0, 3.0)

    def read(x, i):
        return x[i.astype(int)]

    value = _enclosed(
        lambda x, i: jax.lax.dynamic_slice(x, (i.astype(int),), (1,)), x, unknown
    )
    assert (value.low.item(), value.high.item()) == (1.0, 6.0)
    put = _enclosed(
        lambda x, i: jax.lax.dynamic_update_slice(x, -x[:1], (i.astype(int),)),
        x,
        unknown,
    )
    assert put.contains(Interval(np.full(3, -1.5), np.array([1.5, 2.0, 6.0]))).all()
    value = _enclosed(read, x, unknown)
    assert (value.low.item(), value.high.item()) == (1.0, 6.0)


def test_reading_out_of_range_is_refused():
    fn = lambda x: x.at[7].get(mode="fill", fill_value=jnp.nan)
    with pytest.raises((Unreadable, Undefined)):
        _value(fn, np.ones(3))


def test_many_updates_meet_in_one_place():
    rng = np.random.default_rng(1)
    places, values = rng.integers(5, size=3000), rng.normal(size=3000)
    value = _enclosed(
        lambda v: jnp.zeros(7).at[places].add(v, mode="drop"), from_array(values)
    )
    exact = np.zeros(7)
    np.add.at(exact, places, values)
    assert _holds(value, exact, 1e-12)
    assert value.width.max() < 1e-10


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("padding", [[(0, 0), (0, 0)], [(2, 0), (0, 1)]])
def test_convolutions(groups, padding):
    rng = np.random.default_rng(2)
    x, kernel = rng.normal(size=(2, 6, 7, 4)), rng.normal(size=(3, 2, 4 // groups, 6))

    def fn(x, kernel):
        return jax.lax.conv_general_dilated(
            x,
            kernel,
            (1, 2),
            padding,
            lhs_dilation=(2, 1),
            rhs_dilation=(1, 2),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
        )

    value = _enclosed(fn, from_array(x), from_array(kernel))
    assert _holds(value, np.asarray(fn(x, kernel)), 1e-14)
    ranged = _enclosed(fn, Interval(x - 0.1, x + 0.1), from_array(kernel))
    assert _holds(ranged, np.asarray(fn(x + 0.05, kernel)), 1e-14)


def test_unsorted_companions_are_hulls():
    fn = lambda x: x[jnp.argsort(x)] * jnp.arange(3.0)
    apart = _enclosed(fn, Interval([0.0, 5.0, 2.0], [1.0, 6.0, 3.0]))
    assert apart.high.tolist() == [0.0, 3.0, 12.0]
    mixed = _enclosed(fn, Interval([0.0, 0.5, 2.0], [1.0, 6.0, 3.0]))
    assert mixed.contains(np.array([0.0, 1.0, 12.0])).all()


@pytest.mark.parametrize("name", ["argmax", "argmin"])
def test_of_ties_the_first_counts(name):
    fn = lambda x: getattr(jnp, name)(x).astype(float)
    tie = np.array([1.0, 2.0, 1.0, 2.0])
    assert _enclosed(fn, from_array(tie)).low == float(fn(tie))
    ranged = Interval(tie, tie.copy())
    assert _enclosed(fn, ranged).low == _enclosed(fn, ranged).high == float(fn(tie))


# ---------------------------------------------------------------------- integers


def _integer(primitive, dtype, *xs):
    equation = Equation(primitive, {}, (1, 2), (3,), Source("", 0, ""), None, dtype)
    return computed(equation, list(map(from_array, xs)))[0]


def test_integers_divide_and_overflow_as_integers():
    assert _integer("div", np.dtype(np.int32), 7.0, -2.0).low == -3.0
    assert _integer("rem", np.dtype(np.int32), -7.0, 2.0).low == -1.0
    assert _integer("add", np.dtype(np.int8), 100.0, 100.0).contains(-56.0)
    assert _integer("mul", np.dtype(np.uint8), 20.0, 20.0).contains(144.0)
    assert _integer("add", np.dtype(np.int32), 100.0, 100.0).low == 200.0
    assert _integer("not", np.dtype(np.int32), 5.0).low == -6.0
    assert _integer("not", np.dtype(bool), 1.0).low == 0.0
    assert _integer("and", np.dtype(np.int32), 6.0, 3.0).low == 2.0


def test_casts_truncate():
    value = _enclosed(lambda x: x.astype(int).astype(float), Interval(-1.7, 2.2))
    assert (value.low, value.high) == (-1.0, 2.0)
    assert _value(lambda x: (x.astype(bool)).astype(float), 0.3).low == 1.0


def test_factors_and_solutions_of_constants_hold_the_value():
    rng = np.random.default_rng(0)
    for _ in range(5):
        square = rng.normal(size=(4, 4))
        matrix = square @ square.T + 0.1 * np.eye(4)
        factor = _value(lambda a: jnp.linalg.cholesky(a)[2, 1], matrix)
        assert factor.contains(np.linalg.cholesky(matrix)[2, 1])
        pivot = _value(lambda a: jnp.linalg.cholesky(a)[3, 3], matrix)
        assert pivot.low > 0
        assert pivot.contains(np.linalg.cholesky(matrix)[3, 3])
    with pytest.raises(Unreadable):
        _value(lambda a: jnp.linalg.cholesky(a)[0, 0], np.ones((2, 2)))
