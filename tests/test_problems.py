"""Every problem is what it says: minimum, convexity, box, dtype, numbers as leaves."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from phihat import _tree, problems

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


def _samples(problem, num):
    low, high = (
        np.asarray(ravel_pytree(end)[0]) for end in (problem.box.low, problem.box.high)
    )
    return jnp.asarray(np.random.default_rng(0).uniform(low, high, (num, low.size)))


def test_the_registry_holds_every_problem():
    makers = set(problems.__all__) - {"Problem", "standard"}
    assert set(problems.standard()) == makers
    assert all(name == problem.name for name, problem in problems.standard().items())


@every_problem
def test_the_minimum_is_one(problem):
    loss_fn, _ = _flat(problem)
    values = jax.vmap(loss_fn)(_samples(problem, 2000))
    assert values.min() > problem.minimum_value
    if problem.minimum is None:
        return
    minimum = ravel_pytree(problem.minimum)[0]
    hessian = jax.hessian(loss_fn)(minimum)
    curvature = np.linalg.eigvalsh(hessian)
    assert curvature.min() > 0
    # The stored minimum is rounded: off by eps / 2 of each entry, times the curvature,
    # and the gradient is a sum of terms that cancel.
    gradient = jax.grad(loss_fn)(minimum)
    scale = curvature.max() * (1.0 + abs(minimum).max())
    np.testing.assert_allclose(gradient, 0.0, atol=16 * EPS * scale)
    np.testing.assert_allclose(
        loss_fn(minimum), problem.minimum_value, rtol=64 * EPS, atol=16 * EPS
    )


@every_problem
def test_convexity_is_as_stated(problem):
    loss_fn, _ = _flat(problem)
    hessians = np.asarray(jax.vmap(jax.hessian(loss_fn))(_samples(problem, 500)))
    eigenvalues = np.linalg.eigvalsh(hessians)
    if problem.is_convex:  # each is a quadratic: one Hessian, the same everywhere
        scale = abs(eigenvalues).max()
        np.testing.assert_allclose(
            eigenvalues - eigenvalues[0], 0, atol=64 * EPS * scale
        )
        assert eigenvalues.min() > 0
    else:
        assert eigenvalues.min() < -0.01


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
        assert problem.loss_fn(problem.start).dtype == jnp.float32


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
        eigenvalues = np.linalg.eigvalsh(jax.hessian(loss_fn)(start))
        found = eigenvalues[-1] / eigenvalues[0]
        np.testing.assert_allclose(found, condition, rtol=1e-9)


def test_the_chapters_numbers():
    surface = REFERENCE["functions"]["adam_surface"]["at_start"]
    problem = problems.adam_surface()
    assert problem.start.tolist() == surface["phi"]
    loss, grad = jax.value_and_grad(problem.loss_fn)(problem.start)
    np.testing.assert_allclose(loss, surface["loss"], rtol=8 * EPS)
    np.testing.assert_allclose(grad, surface["grad"], rtol=8 * EPS)
    hessian = jax.hessian(problem.loss_fn)(problem.start)
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


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: problems.quadratic(0.5), "quadratic: `condition` must be >= 1, got"),
        (lambda: problems.quadratic(2.0, 0), "quadratic: `dim` must be >= 1, got 0."),
        (lambda: problems.rosenbrock(1), "rosenbrock: `dim` must be >= 2, got 1."),
        (lambda: problems.gabor(3.0), "`envelope_width` must be 2.0 or 4.0"),
    ],
)
def test_a_wrong_call_is_one_sentence(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()
