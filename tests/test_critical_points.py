"""Critical points against closed forms and the deck's list, and what is refused."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from phihat import Box, problems
from phihat.critical_points import (
    CriticalPointKind,
    classify_critical_point,
    find_critical_points,
    winding,
)

EPS = float(np.finfo(np.float64).eps)
REFERENCE = Path(__file__).with_name("reference.json")
MINIMUM, MAXIMUM, SADDLE, DEGENERATE, NOT_CRITICAL = CriticalPointKind


def _monkey(p):
    return p[0] ** 3 - 3.0 * p[0] * p[1] ** 2


def _network(p):
    """Loss of a small tanh network whose params are all zero at a saddle."""
    x = jnp.linspace(-1.0, 1.0, 7)
    hidden = jnp.tanh(x[:, None] * p["in"][None, :])
    return jnp.sum((hidden @ p["out"] - x) ** 2)


KINDS = {
    "bowl": (lambda p: p[0] ** 2 + 9.0 * p[1] ** 2, np.zeros(2), MINIMUM, 0),
    "hill": (lambda p: -jnp.sum((p - 3.0) ** 2), np.full(2, 3.0), MAXIMUM, 2),
    "saddle": (lambda p: p[0] ** 2 - p[1] ** 2 + p[2] ** 2, np.zeros(3), SADDLE, 1),
    "a step away": (lambda p: p[0] ** 2 - p[1] ** 2, np.full(2, 1e-9), SADDLE, 1),
    "a network at zero": (
        _network,
        {"in": np.zeros(1), "out": np.zeros(1)},
        SADDLE,
        1,
    ),
    "monkey saddle": (_monkey, np.zeros(2), DEGENERATE, 0),
    "beside it": (_monkey, np.array([1e-9, 0.0]), DEGENERATE, 0),
    "quartic": (lambda p: p**4, 0.0, DEGENERATE, 0),
    "beside its bottom": (lambda p: p**4, 1e-6, DEGENERATE, 0),
    "flat": (lambda p: 7.0 + 0.0 * p, 1.0, DEGENERATE, 0),
    "valley": (lambda p: (p[0] + p[1] - 1.0) ** 2, np.array([0.3, 0.7]), DEGENERATE, 0),
    "large scale": (lambda p: 1e12 * (p - 3.0) ** 2, 3.0, MINIMUM, 0),
    "small scale": (lambda p: 1e-200 * (p - 3.0) ** 2, 3.0, MINIMUM, 0),
    "weak but sure": (lambda p: p[0] ** 2 - 1e-9 * p[1] ** 2, np.zeros(2), SADDLE, 1),
    "a slope": (lambda p: p**2, 1.0, NOT_CRITICAL, 0),
    "a tail": (lambda p: jnp.exp(-p), 50.0, NOT_CRITICAL, 0),
    "a tiny slope": (lambda p: 1e-200 * (p - 3.0) ** 2, 2.0, NOT_CRITICAL, 0),
    "a slope of rounding's size": (lambda p: 1e-15 * p, 1.0, NOT_CRITICAL, 0),
    # |g|^2 is stationary at 0, where H g = 0 but g = 1.
    "flat gradient": (lambda p: p + p**4 / 4.0, 0.0, NOT_CRITICAL, 0),
    "kink": (lambda p: jnp.abs(p), 0.0, NOT_CRITICAL, 0),
    "one-sided kink": (
        lambda p: jax.nn.relu(p[0]) + p[1] ** 2,
        np.zeros(2),
        NOT_CRITICAL,
        0,
    ),
    "infinite curvature": (lambda p: p**1.5, 0.0, NOT_CRITICAL, 0),
    "not finite": (lambda p: jnp.log(p) ** 2, -1.0, NOT_CRITICAL, 0),
}


@pytest.mark.parametrize("name", KINDS)
def test_kinds(name):
    loss, params, kind, index = KINDS[name]
    point = classify_critical_point(loss, params)
    assert CriticalPointKind(int(point.kind)) == kind, point
    assert int(point.index) == index
    assert kind.name in repr(point)


def test_the_numbers_behind_a_verdict():
    loss = lambda p, x: jnp.sum(x * p["a"] ** 2) + 5.0 * p["b"] ** 2
    point = classify_critical_point(loss, {"a": 1e-8, "b": 0.0}, jnp.ones(4))
    np.testing.assert_allclose(point.eigenvalues, [8.0, 10.0], rtol=10 * EPS)
    assert float(point.grad_norm) == pytest.approx(8e-8, rel=10 * EPS)
    assert float(point.distance) == pytest.approx(1e-8, rel=10 * EPS)
    assert float(point.kink) == 0.0
    assert int(point.kind) == MINIMUM
    strict = classify_critical_point(
        loss, {"a": 1e-8, "b": 0.0}, jnp.ones(4), tolerance=1e-9
    )
    assert int(strict.kind) == NOT_CRITICAL
    assert "Newton's step is 1e-08 long" in repr(strict)


def test_kinks_and_non_finite_values_are_named():
    kink = classify_critical_point(lambda p: 3.0 * jnp.abs(p), 0.0)
    assert float(kink.kink) == pytest.approx(6.0, rel=10 * EPS)
    assert "a slope jumps by 6" in repr(kink)
    infinite = classify_critical_point(lambda p: p**1.5, 0.0)
    assert np.isnan(infinite.eigenvalues).all()
    assert "not finite" in repr(infinite)


def test_smooth_losses_have_no_kinks():
    """Also where all derivatives vanish, and where rounding is all there is."""
    losses = [
        lambda p: p**6,
        lambda p: jnp.exp(-1e3 * p**2),
        lambda p: 1e6 * (jnp.cos(p) - 1.0),
        lambda p: jnp.where(jnp.abs(p) < 1, p**2 / 2, jnp.abs(p) - 0.5),
    ]
    for loss in losses:
        assert float(classify_critical_point(loss, 0.0).kink) == 0.0


def test_classification_under_transformations():
    saddle = lambda p: p[0] ** 2 - p[1] ** 2
    points = jnp.array([[0.0, 0.0], [1.0, 0.0]])
    kinds = jax.jit(jax.vmap(lambda p: classify_critical_point(saddle, p).kind))(points)
    assert kinds.tolist() == [SADDLE, NOT_CRITICAL]
    with jax.enable_x64(False):
        point = classify_critical_point(saddle, jnp.array([1e-4, 0.0], jnp.float32))
        assert point.eigenvalues.dtype == jnp.float32
        assert int(point.kind) == SADDLE


def test_all_forty_of_the_deck():
    deck = json.loads(REFERENCE.read_text())["gabor_stationary_points_D32"]
    loss = problems.gabor(envelope_width=4.0).loss_fn
    found = find_critical_points(loss, Box([-10.0, 2.5], [10.0, 22.5]))
    assert len(found) == len(deck["points"]) == 40
    names = {"min": MINIMUM, "max": MAXIMUM, "saddle": SADDLE}
    expected = sorted(deck["points"], key=lambda point: point["loss"])
    np.testing.assert_allclose(
        found.params, [point["phi"] for point in expected], rtol=0, atol=1e-8
    )
    assert found.kind.tolist() == [names[point["type"]] for point in expected]
    np.testing.assert_allclose(
        found.eigenvalues, [point["eig"] for point in expected], rtol=0, atol=1e-8
    )
    assert found.winding == (0, 0, True)
    assert np.all(np.diff(found.loss) >= 0)


def _polynomial(coefficients, p):
    """Sum of c[i, j] x^i y^j: one program serves all losses of the next test."""
    powers = [jnp.stack([p[k] ** n for n in range(7)]) for k in range(2)]
    return powers[0] @ coefficients @ powers[1]


def _terms(text):
    """Read "2 x2y1, -3 x0y2" as coefficients [7, 7]."""
    coefficients = np.zeros((7, 7))
    for term in text.split(","):
        number, powers = term.split()
        coefficients[int(powers[1]), int(powers[3])] += float(number)
    return Partial(_polynomial, coefficients)


HIMMELBLAU = _terms(
    "1 x4y0, 1 x0y4, 2 x2y1, 2 x1y2, -21 x2y0, -13 x0y2, -14 x1y0, -22 x0y1, 170 x0y0"
)
CAMEL = _terms("4 x2y0, -2.1 x4y0, 0.3333333333333333 x6y0, 1 x1y1, -4 x0y2, 4 x0y4")
MONKEY = _terms("1 x3y0, -3 x1y2")

# Minima, maxima, saddles, degenerate points, and the winding number.
PLANE = {
    "himmelblau": (HIMMELBLAU, 6.0, (4, 1, 4, 0), 1),
    "six-hump camel": (CAMEL, 3.0, (6, 2, 7, 0), 1),
    "monkey saddle": (MONKEY, 1.0, (0, 0, 0, 1), -2),
    "quadratic": (_terms("1 x2y0, 100 x0y2"), 5.0, (1, 0, 0, 0), 1),
    "saddle": (_terms("1 x2y0, -2 x0y2"), 5.0, (0, 0, 1, 0), -1),
    "on the border": (
        _terms("1 x2y0, -2 x1y0, 1 x0y2, -2 x0y1"),
        1.0,
        (1, 0, 0, 0),
        1,
    ),
    "quartic": (_terms("1 x4y0, 1 x0y4"), 1.0, (0, 0, 0, 1), 1),
    "none": (_terms("1 x1y0, 0.1 x0y3, 1 x0y1"), 1.0, (0, 0, 0, 0), 0),
    "small scale": (_terms("1e-200 x2y0, -1e-200 x0y2"), 1.0, (0, 0, 1, 0), -1),
}


@pytest.mark.parametrize(
    ("loss", "problem"),
    [
        (HIMMELBLAU, problems.himmelblau()),
        (CAMEL, problems.six_hump_camel()),
        (MONKEY, problems.monkey_saddle()),
    ],
)
def test_the_polynomials_are_the_named_problems(loss, problem):
    for point in ([0.3, -1.2], [2.0, 0.7]):
        expected = float(problem.loss_fn(jnp.array(point)))
        assert float(loss(jnp.array(point))) == pytest.approx(expected, rel=100 * EPS)


@pytest.mark.parametrize("name", PLANE)
def test_the_plane(name):
    loss, size, counts, turns = PLANE[name]
    found = find_critical_points(loss, Box([-size, -size], [size, size]))
    kinds = found.kind.tolist()
    assert tuple(kinds.count(kind) for kind in range(4)) == counts, found
    assert found.winding == (turns, turns, True)
    assert "agrees" in repr(found)
    gradients = jax.vmap(jax.grad(loss))(found.params)
    curvature = np.abs(found.eigenvalues).max(initial=0.0)
    assert np.abs(gradients).max(initial=0.0) <= 1e3 * EPS * curvature * size


def test_himmelblau_in_closed_form():
    """One minimum is exact, (3, 2); the others to the digits that are published."""
    box = Box([-6.0, -6.0], [6.0, 6.0])
    found = find_critical_points(HIMMELBLAU, box)
    minima = np.asarray(found.params[found.kind == MINIMUM])
    published = [[3.0, 2.0], [-2.805118, 3.131312], [-3.77931, -3.283186]]
    for point in [*published, [3.584428, -1.848126]]:
        assert np.abs(minima - point).max(axis=1).min() <= 1e-6
    assert np.abs(minima - published[0]).max(axis=1).min() <= 100 * EPS
    first = found[0]
    assert first.params.shape == (2,)
    assert int(first.kind) == MINIMUM


def test_flat_sets_are_one_point_each():
    box = Box([-2.0, -2.0], [2.0, 2.0])
    flat = find_critical_points(_terms("1 x0y0"), box)
    assert flat.kind.tolist() == [DEGENERATE]
    assert int(flat.num_merged[0]) > 100
    assert flat.winding == (None, None, False)
    assert "does not confirm" in flat.summary
    ring_loss = _terms("1 x4y0, 1 x0y4, 2 x2y2, -2 x2y0, -2 x0y2, 1 x0y0")
    ring = find_critical_points(ring_loss, box)
    assert sorted(ring.kind.tolist()) == [MAXIMUM, DEGENERATE]
    assert float(jnp.linalg.norm(ring.params[0])) == pytest.approx(1.0, abs=1e-7)
    assert ring.winding == (1, None, False)


def test_three_dimensions_over_a_tree():
    loss = lambda p: jnp.sum(jnp.cos(p["a"])) + (p["b"] - 1.0) ** 2
    box = Box({"a": [-1.0, -1.0], "b": 0.0}, {"a": [4.0, 4.0], "b": 2.0})
    found = find_critical_points(loss, box, num_starts=256)
    assert found.winding is None
    assert found.params["a"].shape == (4, 2)
    assert found.params["b"].shape == (4,)
    assert found.kind.tolist() == [MINIMUM, SADDLE, SADDLE, SADDLE]
    assert found.index.tolist() == [0, 1, 1, 2]
    np.testing.assert_allclose(
        found.params["a"],
        [[np.pi, np.pi], [0.0, np.pi], [np.pi, 0.0], [0.0, 0.0]],
        atol=100 * EPS,
    )


def test_what_too_few_starts_miss_is_told():
    box = Box([-6.0, -6.0], [6.0, 6.0])
    found = find_critical_points(HIMMELBLAU, box, num_starts=1, max_rounds=1)
    assert len(found) <= 1
    assert found.winding.box == 1
    assert found.winding.agrees == (found.winding.points == 1)


@pytest.mark.parametrize("power", [-3, -1, 1, 2, 5])
def test_winding_numbers_of_powers(power):
    """The field z^n turns n times, its conjugate -n times."""

    def field(points):
        z = points[:, 0] + 1j * points[:, 1]
        z = z**power if power > 0 else np.conj(z) ** -power
        return np.stack([z.real, z.imag], axis=1)

    assert winding.winding_number(field, winding.circle([0.0, 0.0], 0.3)) == power
    off_centre = lambda points: field(points - 0.25)
    assert winding.winding_number(off_centre, winding.square(0.0)) == power
    # The zero lies within 1e-7 of the border: points are added there.
    near = lambda points: field(points - np.array([0.5, 1e-7]))
    assert winding.winding_number(near, winding.square(0.0)) == power
    on_border = lambda points: field(points - np.array([0.0, 0.0]))
    assert winding.winding_number(on_border, winding.square(0.0)) is None


UNIT = Box([0.0, 0.0], [1.0, 1.0])
BAD = [
    (
        lambda: find_critical_points(jnp.sum, Box({"a": 0.0}, {"a": 0.0})),
        ValueError,
        r"find_critical_points: `box` must have low < high in every coordinate, got "
        r"low=0.0 and high=0.0 at \['a'\]",
    ),
    (
        lambda: find_critical_points(jnp.sum, Box([0.0, -np.inf], [1.0, 1.0])),
        ValueError,
        r"find_critical_points: `box` must be bounded, got low=-inf and high=1.0",
    ),
    (
        lambda: find_critical_points(lambda p: p, UNIT),
        ValueError,
        r"find_critical_points: `loss_fn` must return a scalar float",
    ),
    (
        lambda: find_critical_points(jnp.sum, UNIT, num_starts=0),
        ValueError,
        "find_critical_points: `num_starts` must be >= 1, got 0",
    ),
    (
        lambda: find_critical_points(jnp.sum, (0.0, 1.0)),
        TypeError,
        "find_critical_points: `box` must be a `phihat.Box",
    ),
    (
        lambda: jax.jit(
            lambda width: (
                find_critical_points(lambda p: width * jnp.sum(p**2), UNIT).loss
            )
        )(1.0),
        TypeError,
        "it cannot run under jit, vmap or grad",
    ),
    (
        lambda: classify_critical_point(lambda p: p**2, jnp.ones(3)),
        ValueError,
        r"classify_critical_point: `loss_fn` must return a scalar float",
    ),
    (
        lambda: classify_critical_point(lambda p: p**2, 1.0, tolerance=-1.0),
        ValueError,
        "classify_critical_point: `tolerance` must be >= 0, got -1.0",
    ),
    (
        lambda: classify_critical_point(jnp.sum, np.zeros(10**5)),
        ValueError,
        "classify_critical_point: the dense Hessian of 100,000 params",
    ),
]


@pytest.mark.parametrize(("call", "error", "sentence"), BAD)
def test_wrong_calls(call, error, sentence):
    with pytest.raises(error, match=sentence):
        call()
