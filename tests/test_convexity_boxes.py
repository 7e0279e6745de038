"""The box certifier: enclosures against samples, hostile programs, and bad calls."""

import dataclasses
import functools
import time
import warnings
from collections.abc import Callable
from typing import Any

import hypothesis
import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from hypothesis import strategies as st

import phihat
from phihat import Box, datasets, losses, models
from phihat.convexity import Verdict, replay
from phihat.convexity.box import certificates as boxes
from phihat.convexity.box.curvatures import (
    certified_radius,
    curvature_floor,
    minimal_ridge,
)
from phihat.convexity.box.hessians import second_derivatives
from phihat.convexity.numbers import derivatives
from phihat.convexity.numbers.intervals import Interval
from phihat.convexity.primitives import PRIMITIVES
from phihat.convexity.primitives.jets.affine import Outline
from phihat.convexity.program.problem import pose

EPS = np.finfo(np.float64).eps
CERTIFIED = Verdict.CERTIFIED_ON_BOX


def certify(loss_fn: Any, low: Any, high: Any, data: Any = None, budget: float = 0.4):
    box = Box(np.array(low, float), np.array(high, float))
    return boxes.certify_convexity(loss_fn, box, data, budget=budget)


def normals(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


# ------------------------------------------------------------- scalar functions

IN_MPMATH = {
    "asinh": mpmath.asinh,
    "atan": mpmath.atan,
    "cbrt": lambda x: mpmath.sign(x) * mpmath.cbrt(abs(x)),
    "digamma": mpmath.digamma,
    "entr": lambda x: -x * mpmath.log(x),
    "erfc": mpmath.erfc,
    "exp2": lambda x: mpmath.mpf(2) ** x,
    "lgamma": mpmath.loggamma,
    "log1p": lambda x: mpmath.log(1 + x),
    "log2": lambda x: mpmath.log(x) / mpmath.log(2),
    "log_ndtr": lambda x: mpmath.log(mpmath.ncdf(x)),
    "logistic": lambda x: 1 / (1 + mpmath.exp(-x)),
    "rsqrt": lambda x: 1 / mpmath.sqrt(x),
    "softplus": lambda x: mpmath.log(1 + mpmath.exp(x)),
    "square": lambda x: x * x,
}


@pytest.mark.parametrize("name", sorted(derivatives.SMOOTH))
@hypothesis.given(st.integers(-250, 250), st.integers(0, 9), st.integers(0, 4))
@hypothesis.settings(max_examples=8)
def test_derivatives_enclose_those_of_mpmath(
    name: str, start: int, width: int, quarter: int
) -> None:
    ends = np.array([start, start + width]) / 64 + 1 / 128
    x = Interval(ends[0], ends[1])
    if not derivatives.is_inside(name, x):
        hypothesis.reject()
    found = derivatives.SMOOTH[name](x)
    fn = IN_MPMATH.get(name) or getattr(mpmath, name)
    at = float(ends[0] + quarter / 4 * (ends[1] - ends[0]))
    with mpmath.workprec(200):
        values = [mpmath.diff(fn, mpmath.mpf(at), order) for order in range(3)]
        for enclosure, value in zip(found, values, strict=True):
            slack = mpmath.mpf(10) ** -20 * (1 + abs(value))  # of the differences
            assert enclosure.low - slack <= mpmath.re(value) <= enclosure.high + slack


@pytest.mark.parametrize("exponent", [-2, -1, 0, 1, 2, 3, 4])
def test_whole_powers(exponent: int) -> None:
    value, first, second = derivatives.whole_power(Interval(2.0, 2.0), exponent)
    assert value.contains(2.0**exponent)
    assert first.contains(exponent * 2.0 ** (exponent - 1))
    assert second.contains(exponent * (exponent - 1) * 2.0 ** (exponent - 2))


# ------------------------------------------------------------ enclosed Hessians

X, Y = normals(7, 3), normals(7, seed=1)
A, B = X[:3], X[3:6]


def perceptron(w: Any) -> Any:
    hidden = jnp.tanh(X[:, :2] @ w.reshape(2, 2) + w[None, :2])
    return jnp.mean((hidden @ w[2:4] - Y) ** 2)


SMOOTH_LOSSES: dict[str, tuple[int, Callable[[Any], Any]]] = {
    "ridge": (3, lambda w: jnp.sum(jnp.sin(X @ w) * jnp.exp(-((X @ w) ** 2)))),
    "rosenbrock": (2, lambda w: (1 - w[0]) ** 2 + 100 * (w[1] - w[0] ** 2) ** 2),
    "perceptron": (4, perceptron),
    "factors": (6, lambda w: jnp.sum((w.reshape(3, 2) @ w.reshape(3, 2).T - A) ** 2)),
    "softmax": (3, lambda w: jax.nn.logsumexp(A @ w) - w[0] * jax.nn.sigmoid(w[1])),
    "quotient": (2, lambda w: w[0] * w[1] / (2 + jnp.cos(w[0])) + (3 + w[1]) ** -1.5),
    "norm": (3, lambda w: jnp.sqrt(1 + w @ w) * jnp.log(4 + w[0] - w[1])),
    "scan": (3, lambda w: jnp.cumsum(w**2)[1] * jnp.cumprod(w)[2]),
    "moves": (4, lambda w: jnp.sum(jnp.roll(w, 1)[::-1] ** 3 * w.at[1].set(w[0] ** 2))),
    "scatter": (3, lambda w: jnp.zeros(2).at[jnp.array([0, 1, 0])].add(w**2)[0] ** 2),
    "logaddexp": (3, lambda w: jnp.logaddexp(w[0], w[1] * w[2]) * jnp.cosh(w[0])),
    "entropies": (2, lambda w: jax.scipy.special.rel_entr(3 + w[0], 4 + w[1] ** 2)),
    "powers": (2, lambda w: (3 + w[0]) ** (w[1] + 2) + 1.5 ** (w[0] * w[1])),
    "mixture": (
        4,
        lambda w: (
            -jnp.sum(
                jax.nn.logsumexp(
                    -((Y[:, None] - w[None, :2]) ** 2) * jnp.exp(w[None, 2:]), 1
                )
            )
        ),
    ),
}


@pytest.mark.parametrize("name", sorted(SMOOTH_LOSSES))
def test_bounds_hold_along_every_direction(name: str) -> None:
    """Sample Hessians by jax; x'Hx lies between the least x'Lx and the most x'Ux."""
    size, loss_fn = SMOOTH_LOSSES[name]
    outline = Outline(pose("test", loss_fn, np.zeros(size)))
    hessian = jax.vmap(jax.hessian(loss_fn))
    if name != "scan":  # a compiled Hessian of cumprod is wrong
        hessian = jax.jit(hessian)
    for width in (0.0, 1e-6, 0.1, 1.0):
        _bounds_hold(name, size, outline, hessian, width)


def _bounds_hold(
    name: str, size: int, outline: Outline, hessian: Any, width: float
) -> None:
    rng = np.random.default_rng(3)
    low = rng.uniform(-1, 1, (3, size))
    high = low + width * rng.uniform(size=(3, size))
    known = second_derivatives(outline, low, high)
    assert known.is_decided.all()
    for box in range(3):
        share = rng.uniform(-0.3, 1.3, (20, size)).clip(0, 1)
        points = np.clip(low[box] + share * (high - low)[box], low[box], high[box])
        found = np.asarray(hessian(jnp.asarray(points)))
        slack = 1e3 * EPS * (1 + np.abs(found).max())
        for direction in rng.normal(size=(8, size)):
            outer = np.outer(direction, direction)
            curvature = np.einsum("pij,ij->p", found, outer)
            ends = [
                [np.where(outer > 0, one, other) for one, other in (pair, pair[::-1])]
                for pair in [
                    (bound.low[box], bound.high[box])
                    for bound in (known.lower, known.upper)
                ]
            ]
            least, most = np.sum(ends[0][0] * outer), np.sum(ends[1][1] * outer)
            assert least <= curvature.min() + slack
            assert most >= curvature.max() - slack
            if width == 0.0 and name != "mixture":
                assert least >= curvature.min() - 1e6 * slack


def test_every_rule_has_been_read_here() -> None:
    """No rule of the second derivative is left without a program of this module."""
    read = set(CONVEX_PRIMITIVES)
    for size, loss_fn in [
        *SMOOTH_LOSSES.values(),
        *CONVEX.values(),
        *((n, f) for n, f, *data in HOSTILE.values() if not data),
    ]:
        problem = pose("test", loss_fn, np.full(size, 0.5))
        read |= {equation.primitive for equation in problem.program.equations}
    smooth = set(derivatives.SMOOTH)  # tested against mpmath
    rare = {"scatter_add", "add_any", "dynamic_update_slice", "expand_dims", "row"}
    rare |= {"tile", "split", "unstack", "pad", "xor", "stack", "square", "scatter"}
    rare |= {"is_finite", "dynamic_slice", "kl_div", "xlog1py", "or", "not", "cummin"}
    rare |= {"rel_entr", "ne", "reduce_prod", "transpose"}
    ruled = {name for name, rules in PRIMITIVES.items() if rules.jet}
    assert ruled - smooth - rare <= read


CONVEX_PRIMITIVES = {"gather", "squeeze", "slice"}

# ------------------------------------------------------------- what is certified

CONVEX: dict[str, tuple[int, Callable[[Any], Any]]] = {
    "absolute": (2, lambda w: jnp.sum(jnp.abs(w)) + jnp.sum(w**2)),
    "hinge": (3, lambda w: jnp.sum(jnp.maximum(0, 1 - X @ w)) + 0.1 * w @ w),
    "largest": (3, lambda w: jnp.max(X @ w) - jnp.min(X @ w)),
    "relu squared": (2, lambda w: jnp.sum(jax.nn.relu(w) ** 2)),
    "pinball": (3, lambda w: jnp.sum(jnp.maximum(0.3 * (X @ w - Y), Y - X @ w))),
    "of two": (2, lambda w: jnp.maximum(w[0], w[1]) - jnp.minimum(w[0], 2 * w[1])),
    "singular": (3, lambda w: jnp.sum((X[:1] @ w) ** 2)),
    "affine": (2, lambda w: w[0] - 3 * w[1]),
    "cumulative": (3, lambda w: jnp.sum(jax.lax.cummax(w))),
    "running": (3, lambda w: jnp.sum(jnp.exp(jnp.cumsum(w)))),
    "wave": (2, lambda w: -jnp.sum(jnp.cos(w / 3))),
    "negative root": (2, lambda w: -jnp.sum(jnp.sqrt(4 + w))),
    "clipped": (2, lambda w: jnp.sum(jax.lax.clamp(-9.0, w, 9.0) ** 2)),
    "dead branch": (2, lambda w: jnp.sum(jnp.where(w > -9, w**2, -(w**2)))),
    "guarded": (2, lambda w: jnp.sum(jnp.where(w == w, w**2, 0.0))),
    "floor apart": (1, lambda w: jnp.sum(jnp.floor(w / 64 + 0.5) * w + w**2)),
    "tested": (1, lambda w: jnp.sum(w**2 * (w < 9) * (w <= 9) + (w >= -9) * w)),
}


@pytest.mark.parametrize("name", sorted(CONVEX))
def test_convex_losses_are_certified(name: str) -> None:
    size, loss_fn = CONVEX[name]
    report = certify(loss_fn, -np.ones(size), 1.5 * np.ones(size), budget=20.0)
    assert report.verdict is CERTIFIED, str(report)
    assert report.mu is not None
    assert report.mu >= 0


# ------------------------------------------------------------ what never may be

D = Box(np.array([-1.0]), np.array([1.0]))


@jax.custom_jvp
def lying(x: Any) -> Any:
    return -(x**2)


lying.defjvp(lambda x, dx: (-(x[0] ** 2), 2 * x[0] * dx[0]))

HOSTILE: dict[str, tuple[Any, ...]] = {
    # kinks, in the middle, at a face, through functions that fall
    "-|x|": (1, lambda w: jnp.sum(-jnp.abs(w) + 0.01 * w**2)),
    "-|x| at a low face": (1, lambda w: jnp.sum(-jnp.abs(w) + w**2), [0.0], [1.0]),
    "-|x| at a high face": (1, lambda w: jnp.sum(-jnp.abs(w) + w**2), [-1.0], [0.0]),
    "-|x| uneven": (1, lambda w: jnp.sum(-jnp.abs(w) + 0.01 * w**2), [-1.0], [2.0]),
    "-|x| of several": (3, lambda w: -jnp.abs(X[0] @ w) + w @ w),
    "-relu": (2, lambda w: -jnp.sum(jax.nn.relu(w)) + w @ w),
    "min": (2, lambda w: jnp.min(w) + 5 * w @ w),
    "min of two": (2, lambda w: jnp.minimum(w[0], w[1]) + w @ w),
    "(|x| - 1)^2": (1, lambda w: jnp.sum((jnp.abs(w) - 1) ** 2)),
    "exp -|x|": (1, lambda w: jnp.sum(jnp.exp(-jnp.abs(w)) + w**2)),
    "log 1+|x|": (1, lambda w: jnp.sum(jnp.log(1 + jnp.abs(w)))),
    "-sqrt x^2": (1, lambda w: -jnp.sum(jnp.sqrt(w**2)) + w @ w),
    "-sqrt x^2 at a face": (1, lambda w: w @ w - jnp.sqrt(w[0] ** 2), [0.0], [1.0]),
    "-norm": (2, lambda w: 9 * w @ w - jnp.linalg.norm(w)),
    "|x||y|": (2, lambda w: jnp.abs(w[0]) * jnp.abs(w[1]) + 0.1 * w @ w),
    "x|x|": (1, lambda w: jnp.sum(w * jnp.abs(w))),
    "clip": (1, lambda w: jnp.sum(jnp.clip(w, -0.5, 0.5))),
    "-cummax": (2, lambda w: w @ w - jnp.sum(jax.lax.cummax(w))),
    "concave root": (1, lambda w: jnp.sum(jnp.sqrt(w + 2))),
    "saddle": (2, lambda w: w[0] * w[1] + w @ w / 2.01),
    "-x^2": (1, lambda w: -1e-12 * jnp.sum(w**2)),
    # jumps
    "step": (1, lambda w: jnp.sum(jnp.where(w > 0, 1.0, 0.0) + w**2)),
    "step at a face": (1, lambda w: (w[0] > 0) * 1.0 + w @ w, [0.0], [1.0]),
    "step at a high face": (1, lambda w: (w[0] >= 1) * -1.0 + w @ w, [0.0], [1.0]),
    "sign": (1, lambda w: jnp.sum(jnp.sign(w) + w**2)),
    "floor": (1, lambda w: jnp.sum(-jnp.floor(w) + w**2)),
    "ceil": (1, lambda w: jnp.sum(jnp.ceil(w - 0.5) + w**2)),
    "round": (1, lambda w: jnp.sum(jnp.round(w) + w**2)),
    "round at a half": (1, lambda w: w @ w + jnp.round(w[0]), [-0.25], [0.5]),
    "cast": (1, lambda w: jnp.sum(w.astype(int) * 1.0 + w**2)),
    "cast to bool": (1, lambda w: jnp.sum(w.astype(bool) * -1.0 + w**2)),
    "branch": (2, lambda w: jnp.where(w[1] > 0, w[0] ** 2, -(w[0] ** 2)) + w @ w),
    "equal": (1, lambda w: jnp.sum(jnp.where(w == 0.0, 9.0, w**2))),
    "and": (1, lambda w: jnp.sum(jnp.where((w > -2) & (w < 0), 1.0, 0.0) + w**2)),
    "integers divided": (
        1,
        lambda w: (jax.lax.div(w.astype(int), 2) - 0.25) @ w**2,
        [1.2],
        [1.8],
    ),
    # domains
    "log": (1, lambda w: -jnp.sum(jnp.log(w))),
    "log at 0": (1, lambda w: -jnp.sum(jnp.log(w)), [0.0], [1.0]),
    "1/x": (1, lambda w: jnp.sum(1 / w)),
    "1/x at 0": (1, lambda w: jnp.sum(1 / w), [0.0], [1.0]),
    "x^-1": (1, lambda w: jnp.sum(w**-1.0)),
    "x^3": (1, lambda w: jnp.sum(w**3.0)),
    "x^1.5": (1, lambda w: jnp.sum(w**1.5)),
    "-sqrt(x^2-1)": (1, lambda w: -jnp.sum(jnp.sqrt(w**2 - 1))),
    "nan to num": (1, lambda w: -jnp.sum(jnp.nan_to_num(jnp.log(w)))),
    "lgamma": (1, lambda w: jnp.sum(jax.lax.lgamma(w))),
    "xlogy": (2, lambda w: jax.scipy.special.xlogy(w[0], w[1] + 2)),
    "tan": (1, lambda w: jnp.sum(jnp.tan(2 * w))),
    # what automatic differentiation does not see, and what nobody reads
    "stop_gradient": (
        1,
        lambda w: jnp.sum(jax.lax.stop_gradient(-(w**2)) + 0.1 * w**2),
    ),
    "custom_jvp": (1, lambda w: jnp.sum(lying(w) + 0.1 * w**2)),
    "sort": (2, lambda w: jnp.sort(w)[0] + w @ w),
    "argmax": (2, lambda w: w[jnp.argmax(-w)] + w @ w),
    # data
    "range": (1, lambda w, d: jnp.sum(d * w**2), None, None, D),
    "rolled": (
        2,
        lambda w, d: jnp.sum((d - d[::-1]) * w**2),
        None,
        None,
        Box(*2 * [X[0, :2]]),
    ),
    "absorbed": (
        1,
        lambda w, d: jnp.sum(((d + 1e16) - 1e16) * w**2),
        None,
        None,
        -np.ones(1),
    ),
}


def hostile(name: str) -> tuple[Any, Any, Any, Any]:
    size, loss_fn, low, high, data = (*HOSTILE[name], None, None, None)[:5]
    low = -np.ones(size) if low is None else low
    return loss_fn, low, np.ones(size) if high is None else high, data


@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_hostile_programs_are_never_certified(name: str) -> None:
    loss_fn, low, high, data = hostile(name)
    report = certify(loss_fn, low, high, data, 0.2)
    assert report.verdict in (Verdict.UNDECIDED, Verdict.REFUTED)
    assert (report.verdict is Verdict.REFUTED) == (report.witness is not None)
    assert report.reason
    assert report.mu is None
    assert report.L is None
    mu, _ = curvature_floor(
        loss_fn, Box(np.array(low, float), np.array(high, float)), data, budget=0.1
    )
    assert not mu >= 0


@pytest.mark.parametrize("name", ["-|x|", "-relu", "min", "step at a face", "log"])
def test_no_ridge_cures_a_concave_kink(name: str) -> None:
    loss_fn, low, high, data = hostile(name)
    box = Box(np.array(low, float), np.array(high, float))
    assert minimal_ridge(loss_fn, box, data, budget=0.3) is None


def test_a_kink_apart_from_the_box_does_not_matter() -> None:
    loss_fn = HOSTILE["-|x|"][1]
    assert certify(loss_fn, [1e-9], [1.0]).verdict is CERTIFIED
    assert certify(loss_fn, [-1.0], [-1e-9]).verdict is CERTIFIED
    assert certify(HOSTILE["round at a half"][1], [-0.25], [0.4999]).is_convex
    assert certify(HOSTILE["step"][1], [1e-200], [1.0]).verdict is CERTIFIED


def test_an_unknown_primitive_is_named_with_its_line() -> None:
    report = certify(HOSTILE["sort"][1], [-1.0, -1.0], [1.0, 1.0])
    assert report.blame[0].primitive == "sort"
    assert report.blame[0].source.startswith("test_convexity_boxes.py:")
    report = certify(HOSTILE["log"][1], [-1.0], [1.0])
    assert report.blame[0].primitive == "log"
    assert "domain" in report.blame[0].reason


def test_data_that_hold_no_numbers_leave_it_undecided() -> None:
    loss_fn = lambda w, d: jnp.sum(d * w**2)
    report = certify(loss_fn, [-1.0], [1.0], np.array([np.nan]))
    assert report.verdict is Verdict.UNDECIDED
    assert "finite" in report.reason
    keyed = lambda w, key: jnp.sum(w**2 + jax.random.normal(key, (1,)) * w)
    assert not certify(keyed, [-1.0], [1.0], jax.random.key(0)).is_convex


def test_every_data_set_of_a_range() -> None:
    low, high = np.array([[1.0, 0.5]]), np.array([[2.0, 0.6]])
    loss_fn = lambda w, x: jnp.sum(jnp.cosh(x @ w) - w[0] ** 2 / 20) + w @ w / 10
    assert certify(loss_fn, [-1, -1], [1, 1], Box(low, high)).verdict is CERTIFIED
    scaled = lambda w, d: jnp.sum(d * w**2)
    assert certify(scaled, [-1.0], [1.0], Box(np.zeros(1), np.ones(1))).is_convex
    assert not certify(scaled, [-1.0], [1.0], Box(-1e-9 * np.ones(1), np.ones(1))).mu


def test_least_curvature_of_data_is_found_at_the_end_of_their_range() -> None:
    box, data = Box([-1.0], [1.0]), Box(np.array([0.5]), np.array([2.0]))
    mu, L = curvature_floor(lambda w, d: jnp.sum(d * w**2), box, data, budget=0.5)
    assert mu == pytest.approx(1.0, rel=1e-6)
    assert mu <= 1.0
    assert pytest.approx(4.0, rel=1e-6) == L


def test_values_that_are_proved_convex_are_left_out() -> None:
    """A norm has no bound at 0; known as convex, it adds what is semidefinite."""
    loss_fn = lambda w: jnp.linalg.norm(w) + jnp.sum(jnp.cosh(w) - w**2 / 4)
    box = Box(-np.ones(2), np.ones(2))
    problem = pose("test", loss_fn, np.zeros(2), domain=box)
    (root,) = (e for e in problem.program.equations if e.primitive == "sqrt")
    assert not boxes.certify(problem, time.monotonic() + 0.3).is_convex
    report = boxes.certify(
        problem, time.monotonic() + 9.0, convex_values=frozenset(root.outputs)
    )
    assert report.verdict is CERTIFIED
    assert report.mu == pytest.approx(0.5, rel=1e-3)
    assert report.L is None


def test_values_that_are_proved_convex_may_be_needed() -> None:
    """Without its square the cosine is concave at 0."""
    problem = pose(
        "test",
        lambda w: jnp.sum(w**2) + jnp.sum(jnp.cos(w)),
        np.zeros(2),
        domain=Box(-np.ones(2), np.ones(2)),
    )
    (square, _) = (e for e in problem.program.equations if e.primitive == "reduce_sum")
    report = boxes.certify(
        problem, time.monotonic() + 9.0, convex_values=frozenset(square.outputs)
    )
    assert report.verdict is CERTIFIED
    assert report.mu == pytest.approx(1.0, rel=1e-3)


# -------------------------------------------------------------- random programs


def random_loss(seed: int) -> Callable[[Any], Any]:
    """Grow a program of two params from a few primitives."""
    rng = np.random.default_rng(seed)
    one = [jnp.sin, jnp.exp, jnp.tanh, jnp.abs, jnp.square, jax.nn.softplus]
    one += [jnp.negative, jax.nn.relu, jax.nn.sigmoid, lambda x: jnp.sqrt(1 + x**2)]
    two = [jnp.add, jnp.subtract, jnp.multiply, jnp.maximum, jnp.minimum, jnp.logaddexp]
    steps = []
    for place in range(rng.integers(2, 7)):
        if rng.random() < 0.5:
            steps.append((one[rng.integers(len(one))], (rng.integers(place + 3),)))
        else:
            pair = tuple(rng.integers(place + 3, size=2))
            steps.append((two[rng.integers(len(two))], pair))
    slope, ridge = rng.normal(size=2), rng.choice([0.0, 0.3, 1.0, 3.0])

    def loss_fn(w: Any) -> Any:
        values = [w[0], w[1], slope @ w]
        for fn, places in steps:
            values.append(fn(*(values[place] for place in places)))
        return values[-1] + ridge * w @ w

    return loss_fn


@hypothesis.given(st.integers(0, 10**9))
@hypothesis.settings(max_examples=40)
def test_no_chord_of_a_certified_box_lies_below_the_loss(seed: int) -> None:
    loss_fn = random_loss(seed)
    rng = np.random.default_rng(seed)
    middle = np.round(rng.normal(size=2), 1)
    low, high = middle - rng.choice([0.1, 0.5, 1.0]), middle + 0.5
    report = certify(loss_fn, low, high, budget=0.3)
    if report.verdict is not CERTIFIED:
        return
    assert report.mu is not None
    share = np.rint(4 * rng.uniform(-0.2, 1.2, (2, 400, 2))).clip(0, 4) / 4
    a, b = np.clip(low + share * (high - low), low, high)
    values = jax.jit(jax.vmap(loss_fn))
    mean, middle_value = (values(a) + values(b)) / 2, values((a + b) / 2)
    slack = 64 * EPS * (1 + np.abs(mean))
    below = mean - report.mu * np.sum((a - b) ** 2, -1) / 8
    assert np.all(middle_value <= below + slack)
    inner = certify(
        loss_fn, low + 0.1 * (high - low), high - 0.1 * (high - low), budget=20.0
    )
    assert inner.verdict is CERTIFIED  # a box within


# --------------------------------------------------------------------- figures


def test_gabor_is_convex_near_its_global_minimum() -> None:
    model = functools.partial(models.gabor, envelope_width=4.0)
    loss_fn, data = losses.least_squares(model), datasets.gabor()
    # Stationary to 1e-9; its loss is 0.64570.
    centre = np.array([0.0037946356109375586, 16.026347827141723])
    reach = np.array([1.0, 5.0])
    box = Box(centre - 0.1 * reach, centre + 0.1 * reach)
    mu, L = curvature_floor(loss_fn, box, data, budget=4.0)
    corners = np.stack(np.meshgrid(*[np.linspace(-1, 1, 9)] * 2), -1).reshape(-1, 2)
    points = jnp.asarray(centre + 0.1 * corners * reach)
    hessian = jax.jit(jax.vmap(lambda p: jax.hessian(loss_fn)(p, data)))
    found = np.linalg.eigvalsh(hessian(points))
    assert 0.079 <= mu <= found.min()
    assert found.max() <= L
    wide = Box(centre - 0.36 * reach, centre + 0.36 * reach)
    report = boxes.certify_convexity(loss_fn, wide, data, budget=20.0)
    assert report.verdict is CERTIFIED, str(report)


def test_a_sigmoid_least_squares_becomes_convex_by_a_ridge() -> None:
    x = normals(20, 2, seed=5)
    y = np.asarray(jax.nn.sigmoid(x @ np.array([1.0, -0.5])))
    loss_fn = lambda w: jnp.mean((jax.nn.sigmoid(x @ w) - y) ** 2)
    box = Box(np.full(2, -3.0), np.full(2, 3.0))
    assert (
        curvature_floor(lambda w: loss_fn(w) + 0.2 * w @ w, box, budget=1.0)[0] > 0.25
    )
    bracket = minimal_ridge(loss_fn, box, budget=2.0)
    assert bracket is not None
    assert 0 < bracket.refuted_below <= bracket.certified_at
    shifted = lambda r: lambda w: loss_fn(w) + r * w @ w
    cured = certify(shifted(bracket.certified_at * 1.05), [-3, -3], [3, 3], budget=60.0)
    assert cured.verdict is CERTIFIED
    missed = certify(shifted(bracket.refuted_below * 0.9), [-3, -3], [3, 3], budget=9.0)
    assert missed.verdict is Verdict.REFUTED


REFUTED = {
    "gabor": (
        losses.least_squares(models.gabor),
        [-10.0, 5.0],
        [10.0, 20.0],
        datasets.gabor(),
    ),
    "x^4 - x^2": (lambda w: jnp.sum(w**4 - w**2), [-1.0], [1.0], None),
    "sin": (lambda w: jnp.sum(jnp.sin(w)), [-1.0, -1.0], [1.0, 1.0], None),
    "nearly flat": (lambda w: w @ w - 1.000001 * w[0] ** 2, [-1.0], [1.0], None),
    **{
        name: hostile(name)
        for name in ("-|x|", "saddle", "round", "custom_jvp", "stop_gradient", "range")
    },
}


@pytest.mark.parametrize("name", REFUTED)
def test_negative_curvature_leads_to_a_broken_chord(name: str) -> None:
    loss_fn, low, high, data = REFUTED[name]
    report = certify(loss_fn, low, high, data, 1.0)
    assert report.verdict is Verdict.REFUTED
    assert report.witness.rigorous
    a, b = report.witness.a, report.witness.b
    assert all(np.all((low <= end) & (end <= np.array(high))) for end in (a, b))
    ends = [data] if not isinstance(data, Box) else [data.low, data.high]
    values = [
        [float(loss_fn(*((w,) if d is None else (w, d)))) for w in (a, (a + b) / 2, b)]
        for d in ends
    ]
    gap = max(middle - (left + right) / 2 for left, middle, right in values)
    assert gap > 0
    assert gap >= report.witness.gap * (1 - 1e-9)


def test_a_box_on_which_only_rounding_could_tell_stays_undecided() -> None:
    report = certify(lambda w: 1e6 + jnp.sum(w**3), [-1e-5], [1.0], budget=0.5)
    assert report.verdict is Verdict.UNDECIDED
    assert "eigenvalue" in report.reason


def test_a_bracket_is_as_tight_as_promised() -> None:
    bracket = minimal_ridge(
        lambda w: jnp.sum(jnp.cos(w)) + w[0] * w[1], Box(-np.ones(2), np.ones(2))
    )
    assert bracket is not None
    assert bracket.refuted_below <= 1.0 <= bracket.certified_at  # -1 - 1 at the origin
    assert bracket.certified_at <= bracket.refuted_below * 1.01
    spare = minimal_ridge(lambda w: 3 * w @ w, Box([-1.0], [1.0]))
    assert spare is not None
    assert spare.certified_at == pytest.approx(-3.0)


@pytest.mark.parametrize(
    ("loss_fn", "centre", "truth"),
    [
        (lambda w: jnp.sum((w**2 - 1) ** 2), np.ones(2), 1 - 3**-0.5),
        (lambda w: -jnp.sum(jnp.cos(w)), np.zeros(1), np.pi / 2),
        (lambda w: jnp.sum(jnp.log1p(w**2)), np.zeros(3), 1.0),
        (lambda w: jnp.sum(w**4 - w**3), np.zeros(1), 0.0),
        (lambda w: jnp.sum(w**2 + jnp.abs(w - 3) - jnp.abs(w - 4)), np.zeros(1), 4.0),
    ],
)
def test_radii_come_within_two_percent_of_the_truth(
    loss_fn: Any, centre: Any, truth: float
) -> None:
    radius = certified_radius(loss_fn, jnp.asarray(centre), budget=5.0)
    assert 0.98 * truth <= radius <= truth


def test_a_radius_may_have_a_scale_for_each_entry() -> None:
    loss_fn = lambda p: -jnp.cos(p["a"]) - jnp.sum(jnp.cos(p["b"]))
    params = {"a": 0.0, "b": jnp.zeros(2)}
    scale = {"a": 2.0, "b": np.array([1.0, 4.0])}
    radius = certified_radius(loss_fn, params, scale=scale)
    assert radius == pytest.approx(np.pi / 8, rel=0.01)


def test_kinks_leave_one_side_unbounded() -> None:
    box = Box([-1.0], [2.0])
    mu, L = curvature_floor(lambda w: jnp.sum(jnp.abs(w) + w**2), box)
    assert mu == pytest.approx(2.0)
    assert np.inf == L
    mu, L = curvature_floor(lambda w: jnp.sum(w**2 - jnp.abs(w)), box)
    assert mu == -np.inf
    assert pytest.approx(2.0) == L


def test_the_flags_of_jax_decide_which_program_is_certified() -> None:
    def loss_fn(w):
        is_narrow = jnp.asarray(w).dtype == jnp.float32
        return -jnp.sum(w**2) if is_narrow else jnp.sum(w**2)

    box = Box(0.1, 0.7)
    assert boxes.certify_convexity(loss_fn, box).verdict is CERTIFIED
    with jax.enable_x64(False):
        narrow = boxes.certify_convexity(loss_fn, box)
        assert curvature_floor(loss_fn, box)[0] <= -2.0
        assert certified_radius(loss_fn, 0.3) == 0.0
    assert narrow.verdict is not CERTIFIED


# ---------------------------------------------------------------------- replay


def test_replay_bounds_every_box_again_and_rejects_one_that_was_tampered_with() -> None:
    loss_fn = lambda w: jnp.sin(w[0] * w[1]) + 0.9 * jnp.sum(w**2)
    box, start = Box([-0.75, -1.0], [1.0, 0.75]), jnp.zeros(2)
    report = boxes.certify_convexity(loss_fn, box)
    assert report.verdict is CERTIFIED
    assert len(report.cells) > 2
    assert replay(report, loss_fn, start, domain=box)
    first, *others = report.cells
    for cells in (
        (),
        others,
        (first, first, *others),
        (first._replace(high=first.high * 1.001), *others),
        (first._replace(low=first.low * 0.999), *others),
        (first._replace(mu=first.mu + 1e-6), *others),
        (first._replace(L=first.L - 1e-6), *others),
    ):
        forged = dataclasses.replace(report, cells=tuple(cells))
        assert not replay(forged, loss_fn, start, domain=box)
    assert report.mu is not None
    for changes in ({"mu": report.mu + 1e-6}, {"L": 1.0}, {"statement": "0" * 64}):
        forged = dataclasses.replace(report, **changes)
        assert not replay(forged, loss_fn, start, domain=box)
    assert not replay(report, lambda w: 1.01 * loss_fn(w), start, domain=box)
    wider = Box([-0.75, -1.0], [1.0, 0.76])
    assert not replay(report, loss_fn, start, domain=wider)
    # The bounds of another box are no certificate of this one.
    other = boxes.certify_convexity(loss_fn, Box([-0.25, 0.0], [0.5, 0.75]))
    stolen = dataclasses.replace(report, cells=other.cells, mu=other.mu, L=other.L)
    assert not replay(stolen, loss_fn, start, domain=box)


# ------------------------------------------------------------------- bad calls


@pytest.mark.parametrize(
    ("box", "budget", "sentence"),
    [
        ((0.0, 1.0), 1.0, "`box` must be a `phihat.Box"),
        (Box([-np.inf], [1.0]), 1.0, "`box` must be bounded"),
        (Box([0.0], [np.inf]), 1.0, "`box` must be bounded"),
        (Box(np.zeros(0), np.zeros(0)), 1.0, "must have at least one number"),
        (Box([0.0, 0.0], 1.0), 1.0, "must have the shape of params"),
        (Box([0.0], [1.0]), -1.0, "`budget`"),
        (Box([0.0], [1.0]), np.nan, "`budget`"),
    ],
)
@pytest.mark.parametrize(
    "call", ["certify_convexity", "curvature_floor", "minimal_ridge"]
)
def test_bad_boxes_and_budgets_are_named(
    call: str, box: Any, budget: float, sentence: str
) -> None:
    with pytest.raises((TypeError, ValueError), match=sentence) as raised:
        getattr(phihat, call)(lambda w: jnp.sum(w), box, budget=budget)
    assert str(raised.value).startswith(f"{call}: ")


def test_an_inverted_box_is_refused() -> None:
    box = Box([0.0], [1.0])
    box.low, box.high = box.high, box.low
    with pytest.raises(ValueError, match="must not be empty"):
        boxes.certify_convexity(jnp.sum, box)


def test_no_budget_leaves_it_undecided() -> None:
    report = certify(lambda w: jnp.sum(w**2), [-1.0], [1.0], budget=0.0)
    assert report.verdict is Verdict.UNDECIDED
    assert "budget" in report.reason
    assert certified_radius(lambda w: w**2, jnp.ones([]), budget=0.0) == 0.0


def test_a_box_without_width_is_a_point() -> None:
    report = certify(lambda w: jnp.sum(w**4), [1.0], [1.0])
    assert report.verdict is CERTIFIED
    assert report.mu == pytest.approx(12.0)


def test_a_large_ridge_model_fits_in_memory() -> None:
    x, y = normals(2000, 20, seed=2), np.sign(normals(2000, seed=3))
    loss_fn = lambda w, d: jnp.mean(jax.nn.softplus(-d[1] * (d[0] @ w)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = certify(loss_fn, np.full(20, -0.1), np.full(20, 0.1), (x, y), 20.0)
    assert report.verdict is CERTIFIED
    assert report.mu is not None
    assert report.mu > 0.05
