"""Every problem is what it says: minimum, convexity, box, dtype, numbers as leaves."""

import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from phihat import problems
from phihat._core import tree as _tree

EPS = np.finfo(np.float64).eps
REFERENCE = json.loads(
    (pathlib.Path(__file__).parent / "reference.json").read_text(encoding="utf-8")
)
PROBLEMS = {
    **problems.standard(),
    "quadratic_6": problems.quadratic(1e6, 5),
    "quadratic_1d": problems.quadratic(3.0, 1),
    "rosenbrock_10": problems.rosenbrock(10),
    "gabor_slides": problems.gabor(2.0),
}
every_problem = pytest.mark.parametrize(
    "problem", PROBLEMS.values(), ids=PROBLEMS.keys()
)


def _flat(problem):
    """Return the loss of a flat vector, and the function that flattens params."""
    flat, unflatten = ravel_pytree(problem.start)
    return lambda vector: problem.loss_fn(unflatten(vector)), flat


@functools.cache
def _measured(name):
    """Value, gradient and Hessian at 500 points of the box, and at the minimum."""
    problem = PROBLEMS[name]
    loss_fn, _ = _flat(problem)
    low, high = (
        np.asarray(ravel_pytree(end)[0]) for end in (problem.box.low, problem.box.high)
    )
    points = np.random.default_rng(0).uniform(low, high, (501, low.size))
    if problem.minimum is not None:
        points[-1] = ravel_pytree(problem.minimum)[0]

    @jax.jit
    @jax.vmap
    def measure(point):
        value, gradient = jax.value_and_grad(loss_fn)(point)
        return value, gradient, jax.hessian(loss_fn)(point)

    return jax.tree.map(np.asarray, measure(jnp.asarray(points)))


def test_the_registry_holds_every_problem():
    makers = set(problems.__all__) - {"Problem", "standard"}
    assert set(problems.standard()) == makers
    assert all(name == problem.name for name, problem in problems.standard().items())


@pytest.mark.parametrize("name", PROBLEMS)
def test_the_minimum_is_one(name):
    problem = PROBLEMS[name]
    values, gradients, hessians = _measured(name)
    assert values[:-1].min() > problem.minimum_value
    if problem.minimum is None:
        return
    minimum = np.asarray(ravel_pytree(problem.minimum)[0])
    # Powell's is level in two directions: its fourth powers are all that bends there.
    is_level = name == "powell_singular"
    assert np.linalg.eigvalsh(hessians[-1]).min() > 0 or is_level
    # The stored minimum is rounded: off by eps / 2 of each entry, times the curvature,
    # and the gradient is a sum of terms that cancel.
    scale = np.max(np.abs(hessians[-1]) @ (1.0 + np.abs(minimum)))
    np.testing.assert_allclose(gradients[-1], 0.0, atol=16 * EPS * scale)
    np.testing.assert_allclose(
        values[-1], problem.minimum_value, rtol=64 * EPS, atol=16 * EPS
    )


@pytest.mark.parametrize("name", PROBLEMS)
def test_convexity_is_as_stated(name):
    problem = PROBLEMS[name]
    eigenvalues = np.linalg.eigvalsh(_measured(name)[2])
    scale = abs(eigenvalues).max()
    if not problem.is_convex:
        assert eigenvalues.min() < -0.01
    elif name in ("brown_dennis", "powell_singular", "variably_dimensioned"):
        assert eigenvalues.min() > -64 * EPS * scale  # fourth powers of straight lines
    else:  # each is a quadratic: one Hessian, the same everywhere
        np.testing.assert_allclose(
            eigenvalues - eigenvalues[0], 0, atol=64 * EPS * scale
        )
        assert eigenvalues.min() > 0


@every_problem
def test_the_box_holds_start_and_minimum(problem):
    low, high = ravel_pytree(problem.box.low)[0], ravel_pytree(problem.box.high)[0]
    for params in (problem.start, problem.minimum):
        if params is not None:
            flat = ravel_pytree(params)[0]
            assert flat.shape == low.shape
            assert ((low <= flat) & (flat <= high)).all()


@every_problem
def test_the_loss_is_importable_and_keeps_the_dtype(problem):
    assert _tree.is_importable(problem.loss_fn)
    hash(_tree.split(problem.loss_fn)[0])
    for dtype in ("bfloat16", "float32", "float64"):
        params = jax.tree.map(lambda leaf, to=dtype: leaf.astype(to), problem.start)
        out = jax.eval_shape(problem.loss_fn, params)
        assert out.shape == ()
        assert jnp.issubdtype(out.dtype, jnp.floating)
        assert jnp.finfo(out.dtype).bits <= max(32, jnp.finfo(dtype).bits)


@pytest.mark.usefixtures("float32")
def test_problems_are_float32_without_x64():
    for problem in problems.standard().values():
        assert jax.eval_shape(problem.loss_fn, problem.start).dtype == jnp.float32


def test_quadratics_of_one_size_share_a_program():
    (one, one_numbers), (other, other_numbers) = (
        _tree.split(problems.quadratic(condition, 3).loss_fn) for condition in (4.0, 9)
    )
    assert one == other
    assert one_numbers[0].tolist() == [1.0, 2.0, 4.0]
    assert other_numbers[0].tolist() == [1.0, 3.0, 9.0]


def test_condition_numbers_are_as_stated():
    for problem, condition in [
        (problems.quadratic(1e6, 5), 1e6),
        (problems.booth(), 9.0),
        (problems.matyas(), 25.0),
        (
            problems.linear_regression(),
            REFERENCE["linear_regression_facts"]["condition"],
        ),
    ]:
        loss_fn, start = _flat(problem)
        eigenvalues = np.linalg.eigvalsh(jax.jit(jax.hessian(loss_fn))(start))
        found = eigenvalues[-1] / eigenvalues[0]
        np.testing.assert_allclose(found, condition, rtol=1e-9)


def test_the_chapters_numbers():
    surface = REFERENCE["functions"]["adam_surface"]["at_start"]
    problem = problems.adam_surface()
    assert problem.start.tolist() == surface["phi"]
    loss, grad = jax.jit(jax.value_and_grad(problem.loss_fn))(problem.start)
    np.testing.assert_allclose(loss, surface["loss"], rtol=8 * EPS)
    np.testing.assert_allclose(grad, surface["grad"], rtol=8 * EPS)
    hessian = jax.jit(jax.hessian(problem.loss_fn))(problem.start)
    np.testing.assert_allclose(hessian, surface["hessian"], rtol=64 * EPS)
    answers = REFERENCE["notebook_answers"]["loss_gabor_start_m1p5_8p5"]
    for width, key in [(2.0, "D8"), (4.0, "D32")]:
        problem = problems.gabor(width)
        loss = problem.loss_fn(problem.start)
        np.testing.assert_allclose(loss, answers[key], rtol=8 * EPS)
    best = REFERENCE["gabor_stationary_points_D32"]["global_minimum"]["phi"]
    np.testing.assert_allclose(problem.minimum, best, rtol=1e-12)


def test_the_monkey_saddle_is_degenerate_and_unbounded():
    loss_fn = problems.monkey_saddle().loss_fn
    assert not jax.grad(loss_fn)(jnp.zeros(2)).any()
    assert not jax.hessian(loss_fn)(jnp.zeros(2)).any()
    assert loss_fn(jnp.array([-1e3, 0.0])) == -1e9


def test_himmelblau_has_four_minima():
    problem = problems.himmelblau()
    roots = [
        (3.0, 2.0),
        (-2.805118086952745, 3.131312518250573),
        (-3.779310253377747, -3.283185991286170),
        (3.584428340330492, -1.848126526964404),
    ]
    for root in roots:
        np.testing.assert_allclose(problem.loss_fn(jnp.array(root)), 0, atol=1e-26)


LITERATURE = {
    "bard": ([1.0, 1.0, 1.0], 41.68170, 8.21487e-3),
    "brown_badly_scaled": ([1.0, 1.0], 999998000003.0, 0.0),
    "brown_dennis": ([25.0, 5.0, -5.0, -1.0], 7926693.337, 85822.2),
    "freudenstein_roth": ([0.5, -2.0], 400.5, 0.0),
    "helical_valley": ([-1.0, 0.0, 0.0], 2500.0, 0.0),
    "jennrich_sampson": ([0.3, 0.4], 4171.306, 124.362),
    "kowalik_osborne": ([0.25, 0.39, 0.415, 0.39], 5.313172e-3, 3.07505e-4),
    "powell_singular": ([3.0, -1.0, 0.0, 1.0], 215.0, 0.0),
    "wood": ([-3.0, -1.0, -3.0, -1.0], 19192.0, 0.0),
    "branin": ([0.0, 0.0], 55.602113, 0.397887),
    "easom": ([0.0, 0.0], -2.675287992e-9, -1.0),
    "goldstein_price": ([1.0, 1.0], 1876.0, 3.0),
    "griewank": ([np.pi, 0.0], 2.0 + np.pi**2 / 4000, 0.0),
    "hartmann": ([0.114614, 0.555649, 0.852547], -3.86278, -3.86278),
    "levy": ([-3.0, 1.0], 1 + 10 * np.sin(1.0) ** 2, 0.0),
    "rastrigin": ([0.5, 1.0], 21.25, 0.0),
    "styblinski_tang": ([0.0, 1.0], -5.0, -78.33233),
    "three_hump_camel": ([2.0, 0.0], 8 - 16.8 + 64 / 6, 0.0),
    "variably_dimensioned": ([0.0] * 10, 10 + 55**2 + 55**4, 0.0),
}


@pytest.mark.parametrize("name", LITERATURE)
def test_values_are_those_of_the_literature(name):
    """A value as published or worked out by hand, and the published minimum."""
    point, value, least = LITERATURE[name]
    problem = PROBLEMS[name]
    found = jax.jit(problem.loss_fn)(jnp.asarray(point))
    np.testing.assert_allclose(found, value, rtol=2e-6, atol=1e-15)
    np.testing.assert_allclose(problem.minimum_value, least, rtol=2e-6)


@pytest.mark.parametrize("name", ["branin", "styblinski_tang"])
def test_equal_and_lesser_minima(name):
    places = {
        "branin": [(-np.pi, 12.275), (np.pi, 2.275), (3 * np.pi, 2.475)],
        "styblinski_tang": [(2.7468027, -2.9035340), (2.7468027, 2.7468027)],
    }
    problem = PROBLEMS[name]
    for place in places[name]:
        gradient = jax.jit(jax.grad(problem.loss_fn))(jnp.asarray(place))
        np.testing.assert_allclose(gradient, 0.0, atol=1e-5)
        value = problem.loss_fn(jnp.asarray(place))
        assert (abs(value - problem.minimum_value) < 1e-9) == (name == "branin")


def test_dimensions_repeat_the_terms():
    for maker in (problems.rastrigin, problems.styblinski_tang):
        one, three = maker(1), maker(3)
        value = one.loss_fn(jnp.asarray([0.3]))
        np.testing.assert_allclose(
            three.loss_fn(jnp.full(3, 0.3)), 3 * value, rtol=8 * EPS
        )
        assert three.minimum_value == 3 * one.minimum_value
    for maker in (problems.levy, problems.griewank, problems.variably_dimensioned):
        problem = maker(5)
        np.testing.assert_allclose(problem.loss_fn(problem.minimum), 0.0, atol=1e-30)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: problems.levy(0), "levy: `dim` must be >= 1, got 0."),
        (lambda: problems.quadratic(0.5), "quadratic: `condition` must be >= 1, got"),
        (lambda: problems.quadratic(2.0, 0), "quadratic: `dim` must be >= 1, got 0."),
        (lambda: problems.rosenbrock(1), "rosenbrock: `dim` must be >= 2, got 1."),
        (lambda: problems.gabor(3.0), "`envelope_width` must be 2.0 or 4.0"),
    ],
)
def test_a_wrong_call_is_one_sentence(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()
