"""Second-order optimizers against closed forms, certified fits, and their promises."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.linalg
import scipy.optimize

import phihat
from benchmarks import newton_starts, pairs
from phihat import Box, losses
from phihat._linalg import dense_hessian as _dense
from phihat._linalg import small as _small
from phihat._linalg.lanczos import ritz
from phihat.second_order import covariance, levenberg_marquardt, newton, newton_cg
from phihat.second_order import subproblem as _subproblem
from phihat.second_order.truncated_newton import _conjugate_gradients
from tests import more_garbow_hillstrom, more_wild, nist
from tests.cases import gabor_problem, rosenbrock

EPS = float(np.finfo(float).eps)
STATUS = phihat.Status

ALL = (levenberg_marquardt, newton, newton_cg)


def saddle(params):
    """Saddle at zero, minima at x = 0, y = -1 and 1, of value -1/4."""
    x, y = params
    return 0.5 * x**2 - 0.5 * y**2 + 0.25 * y**4


def saddle_residuals(params):
    """Residuals whose sum of squares is `saddle` + 1/4."""
    x, y = params
    return jnp.stack([jnp.sqrt(0.5) * x, 0.5 * (1 - y**2)])


def curve(params, x):
    return params[0] * jnp.exp(-params[1] * x)


def solve(optimizer, loss_fn, start, data=None, **options):
    options = {"num_steps": 200, "tolerance": 1e-10, "record": (), **options}
    return phihat.fit(loss_fn, start, optimizer, data, **options)


def run(optimizer, start, residual_fn, *, num_steps=1000, **options):
    """Run as a loop of somebody else's does; return the point and the state."""
    start = jax.tree.map(jnp.asarray, start)
    value_fn = lambda p: sum(jnp.sum(r**2) for r in jax.tree.leaves(residual_fn(p)))

    def advance(carry):
        params, state, step = carry
        updates, state = optimizer.update(
            params, state, params, value_fn=value_fn, residual_fn=residual_fn, **options
        )
        return optax.apply_updates(params, updates), state, step + 1

    def goes_on(carry):
        return (carry[2] <= num_steps) & (carry[1].status == STATUS.RUNNING)

    carry = start, optimizer.init(start), jnp.zeros((), jnp.int32)
    _, state, _ = jax.lax.while_loop(goes_on, advance, carry)
    return state.accepted(start), state


# --------------------------------------------------------------------- few unknowns


@pytest.mark.parametrize("size", [1, 3, 8, 12, 40])
def test_small_systems_are_solved(size):
    rng = np.random.default_rng(size)
    columns = rng.normal(size=(size + 5, size))
    matrix = columns.T @ columns / np.sum(columns**2, axis=0).max()
    right = rng.normal(size=size)
    lanes = jnp.asarray([0.0, 0.3])
    solve_all = jax.jit(jax.vmap(_small.solve, (None, None, 0)))
    solutions, squares = solve_all(jnp.asarray(matrix), jnp.asarray(right), lanes)
    for i in range(2):
        damped = matrix + np.eye(size) * lanes[i]
        expected = np.linalg.solve(damped, right)
        rtol = 64 * EPS * np.linalg.cond(damped)
        atol = rtol * np.abs(expected).max()
        np.testing.assert_allclose(solutions[i], expected, atol=atol)
        square = expected @ np.linalg.solve(damped, expected)
        np.testing.assert_allclose(squares[i], square, rtol=4 * rtol)


@pytest.mark.parametrize("size", [3, 12])
def test_an_unknown_that_depends_on_others_is_zero(size):
    columns = np.random.default_rng(size).normal(size=(size + 5, size))
    columns /= np.linalg.norm(columns, axis=0)
    columns[:, 1] = columns[:, 0]
    matrix = jnp.asarray(columns.T @ columns)
    right = matrix @ jnp.ones(size)
    solution, _ = _small.solve(matrix, right, 0.0)
    assert solution[1] == 0
    np.testing.assert_allclose(matrix @ solution, right, rtol=1e5 * EPS)


# --------------------------------------------------------------------- the subproblem


@pytest.mark.parametrize("solver", ["CHOLESKY", "ABSOLUTE_SPECTRUM"])
def test_the_step_is_the_least_value_within_the_radius(solver):
    solver = getattr(_subproblem, solver)
    rng = np.random.default_rng(0)
    columns = rng.normal(size=(6, 4))
    matrix, slopes = jnp.asarray(columns.T @ columns), jnp.asarray(rng.normal(size=4))
    factors = solver.prepare(matrix, None)
    for radius in (1e-3, 0.1, 1e3):
        found = _subproblem.search_step(
            solver, factors, matrix, slopes, jnp.asarray(radius)
        )
        # (A + m) p = -b for one m >= 0, and m = 0 unless p is on the edge.
        residual = slopes + matrix @ found.step
        norm = np.linalg.norm(found.step)
        multiplier = max(-residual @ found.step / norm**2, 0.0)
        scale = np.linalg.norm(slopes)
        assert norm <= radius * (1 + 4 * EPS)
        assert np.linalg.norm(residual + multiplier * found.step) <= 0.05 * scale
        if norm < 0.9 * radius:
            assert np.linalg.norm(residual) <= 1e3 * EPS * scale
        np.testing.assert_allclose(matrix @ found.undamped, -slopes, rtol=1e-9)


def test_the_way_to_the_step_stops_at_bounds():
    rng = np.random.default_rng(1)
    columns = rng.normal(size=(200, 6, 4))
    matrices = jnp.asarray(np.einsum("nij,nik->njk", columns, columns))
    slopes = jnp.asarray(rng.normal(size=(200, 4)))
    low, high = -rng.uniform(0, 0.3, (200, 4)), rng.uniform(0, 0.3, (200, 4))
    low[:, 0] = 0.0

    @jax.jit
    @jax.vmap
    def search(matrix, slopes, low, high):
        free = ~((low >= 0) & (slopes > 0))
        return _subproblem.search_step(
            _subproblem.CHOLESKY,
            _subproblem.CHOLESKY.prepare(matrix, free),
            matrix,
            jnp.where(free, slopes, 0.0),
            jnp.asarray(1e3),
            free=free,
            step_bounds=_subproblem.Bounds(low, high),
        )

    found = search(matrices, slopes, jnp.asarray(low), jnp.asarray(high))
    step, sides = np.asarray(found.step), np.asarray(found.sides)
    assert ((step >= low) & (step <= high)).all()
    assert (step[sides < 0] == low[sides < 0]).all()
    assert (step[sides > 0] == high[sides > 0]).all()
    assert (sides != 0).any(axis=1).sum() >= 100
    value = np.einsum("ni,nij,nj->n", step, matrices, step)
    value += 2 * np.einsum("ni,ni->n", step, slopes)
    assert (value < 0).all()
    # Whoever is on no bound is at the minimum along it.
    rest = np.asarray(slopes) + np.einsum("nij,nj->ni", matrices, step)
    inside = (step > low) & (step < high)
    assert np.abs(rest[inside]).max() <= 1e-12


@pytest.mark.parametrize("size", [1, 2, 12, 30])
def test_lanczos_finds_the_lower_end(size):
    rng = np.random.default_rng(size)
    matrix = rng.normal(size=(size, size))
    matrix = matrix + matrix.T
    start = rng.normal(size=size)
    find = jax.jit(lambda start: ritz(lambda v: matrix @ v, start, min(size, 30)))
    found = jax.tree.map(np.asarray, find(start))
    value, largest = found.values[0], np.abs(found.values).max()
    vector = found.coefficients[:, 0] @ found.basis
    values = scipy.linalg.eigvalsh(matrix)
    np.testing.assert_allclose(value, values[0], rtol=1e4 * EPS)
    np.testing.assert_allclose(largest, np.abs(values).max(), rtol=1e4 * EPS)
    np.testing.assert_allclose(
        matrix @ vector, value * vector, atol=1e4 * EPS * largest
    )


def test_lanczos_survives_an_invariant_subspace():
    matrix = np.diag([2.0, 2.0, 2.0, -1.0])
    found = jax.jit(lambda start: ritz(lambda v: matrix @ v, start, 4))(np.ones(4))
    found = jax.tree.map(np.asarray, found)
    value, vector = found.values[0], found.coefficients[:, 0] @ found.basis
    np.testing.assert_allclose(value, -1.0, rtol=64 * EPS)
    np.testing.assert_allclose(np.abs(vector), [0, 0, 0, 1], atol=64 * EPS)


@pytest.mark.parametrize("lowest", [0.1, -0.5])
def test_conjugate_gradients_stop_at_the_minimum_or_at_the_edge(lowest):
    curvatures, slopes = np.asarray([lowest, 1.0, 3.0]), np.full(3, 1e-5)
    goal = 0.1 * np.linalg.norm(slopes)
    found = jax.jit(_conjugate_gradients, static_argnums=(0, 5))(
        lambda v: curvatures * v, slopes, np.zeros(3), 2.0, goal, 10
    )
    assert bool(found.is_inside) == (lowest > 0)
    if lowest < 0:
        assert abs(np.linalg.norm(found.step) - 2.0) <= 8 * EPS
    else:
        assert np.linalg.norm(slopes + curvatures * found.step) <= goal


# --------------------------------------------------------------------- how it converges


def test_newton_needs_one_step_on_a_quadratic():
    matrix = jnp.asarray([[4.0, 1.0], [1.0, 1e-3 + 0.25]])
    minimum = jnp.asarray([3.0, -7.0])
    result = solve(
        newton(initial_radius=1e6),
        lambda p: 0.5 * (p - minimum) @ matrix @ (p - minimum),
        jnp.zeros(2),
    )
    assert result.num_steps <= 2
    np.testing.assert_allclose(result.params, minimum, rtol=1e-10)


@pytest.mark.parametrize("make", [newton, newton_cg])
def test_the_last_steps_converge_quadratically(make):
    start = jnp.asarray([-1.2, 1.0])
    result = solve(make(), rosenbrock, start, record=("grad_norm",), tolerance=1e-13)
    norms = np.asarray(result.history["grad_norm"])[: int(result.num_steps)]
    norms = np.append(norms, result.grad_norm)
    last = norms[norms < 1e-2]
    # Conjugate gradients are solved to a residual of |g|^1.5 only.
    power = 2.0 if make is newton else 1.5
    assert len(last) >= 2
    assert (last[1:] <= 100 * last[:-1] ** power + 1e-12).all()
    assert result.status == STATUS.CONVERGED


def test_gradients_reach_the_precision_of_the_value():
    loss_fn, data = gabor_problem()
    result = solve(newton(), loss_fn, jnp.asarray([0.5, 15.0]), data, tolerance=None)
    # The best that adding 30 terms of size one can give.
    assert result.grad_norm <= 30 * 8 * EPS
    assert result.status == STATUS.CONVERGED
    expected = [0.0037946356, 16.0263478271]
    np.testing.assert_allclose(result.params, expected, atol=1e-9)


X = jnp.linspace(0.0, 4.0, 40)
Y = 2.0 * jnp.exp(-1.5 * X) + 0.1 * jnp.sin(9 * X)


@pytest.mark.parametrize("make", [levenberg_marquardt, newton])
def test_units_change_nothing(make):
    @jax.jit
    @jax.vmap
    def fit(units, unit):
        residual_fn = lambda p: unit * (curve(p / units, X) - Y)
        params, state = run(make(), units, residual_fn)
        return params / units, state.value / unit**2, state.status, state.step

    units = jnp.asarray([[1.0, 1.0], [1e-9, 1e6], [1e6, 1e6], [1e-9, 1.0]])
    params, value, status, steps = fit(units, jnp.asarray([1.0, 1.0, 1e-9, 1e6]))
    assert (status == STATUS.CONVERGED).all()
    np.testing.assert_allclose(params - params[:1], 0.0, atol=1e-8)
    np.testing.assert_allclose(value, np.full(4, value[0]), rtol=1e-12)
    assert np.ptp(steps) <= 1


@pytest.mark.parametrize("make", ALL)
def test_a_wall_of_nan_is_no_minimum(make):
    def walled(p):
        return jnp.where(p[0] > 1, jnp.stack([p[0] + 1, p[1]]), jnp.nan)

    tolerance = phihat.Tolerance(loss=1e-8, params=1e-8, relative=1e-8)
    fit = jax.jit(lambda start: run(make(), start, walled, tolerance=tolerance))
    params, state = fit(jnp.asarray([3.0, 1.0]))
    assert state.status == STATUS.STALLED
    assert 4.0 <= state.value < 5.0
    assert np.isfinite(params).all()


def test_the_radius_shrinks_where_the_loss_is_not_finite():
    barrier = lambda x: x - jnp.log(x)
    for make in (newton, newton_cg):
        result = solve(make(initial_radius=100.0), barrier, 40.0, record=("loss",))
        assert np.isfinite(result.history["loss"][: int(result.num_steps)]).all()
        assert result.status == STATUS.CONVERGED
        np.testing.assert_allclose(result.params, 1.0, rtol=1e-9)


def test_a_hessian_that_is_not_finite_leaves_the_slope():
    cusp = lambda x: jnp.abs(x - 1.0) ** 1.5 + (x - 1.0) ** 2
    optimizer = newton(initial_radius=0.5)
    state, params = optimizer.init(1.0), jnp.asarray(1.0)
    for _ in range(3):
        updates, state = optimizer.update(params, state, params, value_fn=cusp)
        assert updates == 0
    assert np.isfinite(state.points).all()
    assert not state.negative_curvature


# --------------------------------------------------------------------------- saddles


def start_cases():
    zero = jnp.zeros(2)
    return {
        "exactly there": zero,
        "a hair away": zero + 1e-13,
        "along": zero + 1e-13 / 3,
    }


@pytest.mark.parametrize("make", [newton, newton_cg])
@pytest.mark.parametrize("where", start_cases())
def test_a_saddle_is_left(make, where):
    start = start_cases()[where]
    result = solve(make(), saddle, start)
    assert result.status == STATUS.CONVERGED
    np.testing.assert_allclose(jnp.abs(result.params), [0.0, 1.0], atol=1e-9)


@pytest.mark.parametrize("where", start_cases())
def test_levenberg_marquardt_leaves_a_saddle_of_its_residuals(where):
    model = lambda params, x: saddle_residuals(params) + x
    data = (jnp.zeros(2), jnp.zeros(2))
    loss_fn = losses.least_squares(model)
    result = solve(levenberg_marquardt(), loss_fn, start_cases()[where], data)
    assert result.status == STATUS.CONVERGED
    np.testing.assert_allclose(jnp.abs(result.params), [0.0, 1.0], atol=1e-9)


@pytest.mark.parametrize("make", [newton, newton_cg])
@pytest.mark.parametrize(
    ("loss_fn", "is_negative"),
    [
        (saddle, True),
        (lambda p: -jnp.sum(p**2), True),
        (lambda p: jnp.sum(p**2), False),
        (lambda p: jnp.sum(p**4), False),
        (lambda p: p[0] ** 2 + 0.0 * p[1], False),
    ],
)
def test_negative_curvature_is_told(make, loss_fn, is_negative):
    optimizer, point = make(), jnp.zeros(2)
    grad = jax.grad(loss_fn)(point)
    update = jax.jit(
        lambda state: optimizer.update(grad, state, point, value_fn=loss_fn)
    )
    # The gradient is zero, so that the fit would end here.
    _, state = update(optimizer.init(point))
    assert state.curvature_checked
    assert bool(state.negative_curvature) == is_negative
    assert (state.status == STATUS.CONVERGED) != is_negative


@functools.cache
def perceptron():
    x = jnp.linspace(-2.0, 2.0, 12)[:, None]

    def model(params, x):
        return jnp.tanh(x @ params["w"] + params["b"][None]) @ params["v"]

    loss_fn = losses.with_l2(losses.least_squares(model), 1e-2)
    start = {"w": jnp.zeros((1, 3)), "b": jnp.zeros(3), "v": jnp.zeros((3, 1))}
    return loss_fn, start, (x, jnp.sin(2 * x))


@pytest.mark.parametrize("make", [newton, newton_cg, levenberg_marquardt])
def test_a_perceptron_leaves_zero(make):
    loss_fn, start, data = perceptron()
    result = solve(make(), loss_fn, start, data, num_steps=400)
    assert result.status == STATUS.CONVERGED
    flat, unflatten = jax.flatten_util.ravel_pytree(result.params)
    flat_fn = lambda vector: loss_fn(unflatten(vector), data)
    # To Levenberg and Marquardt the tolerance is a cosine.
    assert np.abs(jax.jit(jax.grad(flat_fn))(flat)).max() <= 1e-8
    spectrum = scipy.linalg.eigvalsh(jax.jit(jax.hessian(flat_fn))(flat))
    assert spectrum[0] >= -1e-9 * spectrum[-1]
    assert result.loss < 0.9 * jax.jit(loss_fn)(start, data)


@pytest.mark.parametrize(
    "name", ["Rosenbrock 2", "Rosenbrock 10", "Rosenbrock 50", "Gabor"]
)
def test_many_starts_in_one_program(name):
    loss_fn, starts = newton_starts.PROBLEMS[name]()
    starts = starts[:12]
    fit = jax.jit(lambda start: solve(newton(), loss_fn, start, num_steps=400))
    lanes = jax.vmap(fit)(starts)
    assert (lanes.status == STATUS.CONVERGED).all()
    assert np.abs(jax.jit(jax.vmap(jax.grad(loss_fn)))(lanes.params)).max() <= 1e-9
    spectra = np.linalg.eigvalsh(jax.jit(jax.vmap(jax.hessian(loss_fn)))(lanes.params))
    # Around the dips of Gabor lies a plain, flat in every digit.
    assert (spectra[:, 0] > -EPS).all()
    assert (spectra[:, 0] > 0).sum() >= 10
    alone = fit(starts[3])
    np.testing.assert_allclose(lanes.params[3], alone.params, atol=1e-6)


# --------------------------------------------------------------- certified curve fits


@functools.cache
def certified_fit(name, make):
    problem = nist.PROBLEMS[name]
    data = (jnp.asarray(problem.x), jnp.asarray(problem.y))
    residual_fn = lambda p: problem.model(p, problem.x) - problem.y
    fit = jax.jit(lambda start: run(make(), start, residual_fn, num_steps=12_000))
    found = [fit(jnp.asarray(start)) for start in problem.starts]
    return losses.least_squares(problem.model), data, found


SETS = ("BoxBOD", "DanWood", "MGH09", "MGH10", "Misra1a", "Rat43", "Thurber")


CASES = [(name, make) for make in (levenberg_marquardt, newton) for name in SETS]


# Residuals of 1e-6, with rounding of 1e-16 that hides what the last steps gain.
@pytest.mark.parametrize(("name", "make"), [*CASES, ("Lanczos2", newton)])
def test_certified_params_to_eight_digits(name, make):
    problem = nist.PROBLEMS[name]
    _, _, found = certified_fit(name, make)
    for params, state in found:
        assert nist.num_digits(params, problem.certified) >= 8
        np.testing.assert_allclose(
            state.value, problem.residual_sum_of_squares, rtol=1e-9
        )
        assert state.status == STATUS.CONVERGED
        assert state.curvature_checked


@pytest.mark.parametrize("name", SETS)
def test_certified_standard_deviations(name):
    problem = nist.PROBLEMS[name]
    loss_fn, data, found = certified_fit(name, levenberg_marquardt)
    spread = np.sqrt(np.diagonal(covariance(loss_fn, found[1][0], data)))
    np.testing.assert_allclose(spread, problem.standard_deviations, rtol=1e-6)


@pytest.mark.parametrize("name", nist.PROBLEMS)
def test_the_certified_params_give_the_certified_sum_of_squares(name):
    problem = nist.PROBLEMS[name]
    residuals = jax.jit(problem.model)(problem.certified, problem.x) - problem.y
    # Lanczos1 is data without noise, rounded params leave a visible rest.
    atol = 1e-18 if name == "Lanczos1" else 0.0
    np.testing.assert_allclose(
        residuals @ residuals, problem.residual_sum_of_squares, rtol=2e-10, atol=atol
    )


def test_weights_and_penalty_reach_levenberg_marquardt():
    x = jnp.linspace(0.0, 2.0, 15)
    y = curve(jnp.asarray([2.0, 1.5]), x) + 0.1 * jnp.sin(9 * x)
    weights = jnp.linspace(0.5, 3.0, 15)
    loss_fn = losses.with_l2(losses.least_squares(curve, weights=weights), 0.3)
    fits = [
        solve(make(), loss_fn, jnp.ones(2), (x, y))
        for make in (levenberg_marquardt, newton)
    ]
    np.testing.assert_allclose(fits[0].params, fits[1].params, rtol=1e-10)
    assert fits[0].status == fits[1].status == STATUS.CONVERGED


# ------------------------------------------------------------------------- bounds


def minimum_by_scipy(problem):
    """Return what SciPy's trust-region-reflective method finds, and its loss."""
    low, high = np.asarray(problem.low, float), np.asarray(problem.high, float)
    found = scipy.optimize.least_squares(
        jax.jit(problem.residuals),
        np.clip(problem.start, low, high),
        jac=jax.jit(jax.jacfwd(problem.residuals)),
        bounds=(low, high),
        x_scale="jac",
        max_nfev=10_000,
        **dict.fromkeys(("xtol", "ftol", "gtol"), 1e-14),
    )
    return found.x, 2 * found.cost


def bounded_cases():
    names = more_garbow_hillstrom.PROBLEMS
    others = [(newton, "Rosenbrock"), (newton, "Bard"), (newton_cg, "Bard")]
    return [(levenberg_marquardt, name) for name in names] + others


@pytest.mark.parametrize(("make", "name"), bounded_cases())
def test_bounds_that_are_active(make, name):
    problem = more_garbow_hillstrom.PROBLEMS[name]
    low, high = (np.asarray(end, float) for end in (problem.low, problem.high))
    box = Box(jnp.asarray(low), jnp.asarray(high))
    fit = jax.jit(lambda start: run(make(), start, problem.residuals, box=box))
    params, state = fit(jnp.asarray(problem.start, float))
    params = np.asarray(params)
    _, loss = minimum_by_scipy(problem)
    assert state.value <= loss * (1 + 1e-8)
    assert state.status == STATUS.CONVERGED
    assert ((params >= low) & (params <= high)).all()
    assert ((params == low) | (params == high)).any()


@pytest.mark.bits
def test_mapped_boxes_hold_to_the_last_bit():
    ends = jnp.asarray([0.5, 1.1, 1.7, 3.0, 1.2])
    highs = ends.at[4].set(1.2)
    lows = jnp.asarray([-jnp.inf, -jnp.inf, 0.1, 0.1, 1.2])

    @jax.jit
    @jax.vmap
    def fit(low, high):
        params = {"a": jnp.asarray(9.0), "rate": jnp.asarray([2.0])}
        box = Box(
            {"a": -jnp.inf, "rate": low[None]}, {"a": jnp.inf, "rate": high[None]}
        )
        residual_fn = lambda p: p["a"] * jnp.exp(-p["rate"] * X) - Y
        return run(levenberg_marquardt(), params, residual_fn, box=box)

    params, state = fit(lows, highs)
    assert (state.status == STATUS.CONVERGED).all()
    assert not state.curvature_checked.any()
    rate = params["rate"][:, 0]
    assert (rate[:3] == highs[:3])[:2].all()
    assert rate[4] == 1.2
    np.testing.assert_allclose(rate[2:4], 1.529277, atol=1e-6)
    for i in (0, 1, 4):
        shape = np.exp(-float(rate[i]) * X)
        np.testing.assert_allclose(
            params["a"][i], shape @ Y / (shape @ shape), rtol=1e-12
        )


# ------------------------------------------------------------------- how a fit ends


@pytest.mark.parametrize("make", [levenberg_marquardt, newton])
def test_a_wrong_derivative_stalls(make):
    stop = jax.lax.stop_gradient

    @jax.custom_jvp
    def wrong(p):
        return curve(p, X)

    @wrong.defjvp
    def wrong_jvp(primals, tangents):
        (p,), (t,) = primals, tangents
        return curve(p, X), jnp.exp(-p[1] * X) * t[0] + 0.3 * X * t[1]

    models = (
        lambda p: stop(p[0]) * jnp.exp(-p[1] * X) + 0.1 * p[0] * X - Y,
        lambda p: wrong(p) - Y,
    )
    for residual_fn in models:
        fit = jax.jit(lambda start, fn=residual_fn: run(make(), start, fn))
        _, state = fit(jnp.ones(2))
        assert state.status == STATUS.STALLED


def test_limits_of_a_tolerance_end_a_fit_earlier():
    @jax.jit
    @jax.vmap
    def fit(*rows):
        residual_fn = lambda p: curve(p, X) - Y
        start, tolerance = jnp.ones(2), phihat.Tolerance(*rows)
        return run(levenberg_marquardt(), start, residual_fn, tolerance=tolerance)[1]

    lanes = np.zeros((4, 5))
    lanes[0, 1] = lanes[1, 2] = 1e-3
    lanes[2, 3] = lanes[3, 4] = 1e-2
    state = fit(*jnp.asarray(lanes))
    assert (state.status == STATUS.CONVERGED).all()
    np.testing.assert_allclose(state.value, np.full(5, 0.195495417), rtol=1e-3)
    assert (state.step[1:] < state.step[0]).all()


def test_curvature_that_the_residuals_keep_makes_a_minimum():
    """J'J is zero along the second param, where the first residual holds it."""
    residual_fn = lambda p: jnp.stack([1 + p[1] ** 2 + p[0] ** 2, p[0] - 0.1])
    fit = jax.jit(lambda start: run(levenberg_marquardt(), start, residual_fn))
    params, state = fit(jnp.asarray([1.0, 1.0]))
    assert state.status == STATUS.CONVERGED
    assert abs(params[1]) < 1e-6


def test_the_sums_of_squares_of_the_literature_are_those_published():
    """Moré, Garbow and Hillstrom give the lowest sums; SciPy must find them."""
    published = {
        "linear, full rank 9": 36.0,
        "linear, rank one 7": 35 * 34 / (2 * 71),
        "linear, rank one with zeros 7": (35**2 + 3 * 35 - 6) / (2 * (2 * 35 - 3)),
        "helical valley 3": 0.0,
        "Freudenstein, Roth 2": 48.98425,
        "Bard 3": 8.214877e-3,
        "Kowalik, Osborne 4": 3.075056e-4,
        "Meyer 3": 87.94586,
        "Watson 6": 2.287670e-3,
        "Watson 9": 1.399760e-6,
        "Box 3": 0.0,
        "Jennrich, Sampson 2": 124.3622,
        "Brown, Dennis 4": 85822.20,
        "Chebyquad 7": 0.0,
        "Chebyquad 8": 3.516874e-3,
        "Osborne 1 5": 5.464895e-5,
        "Osborne 2 11": 4.013774e-2,
        "Mancino 5": 0.0,
        "Heart 8": 0.0,
        "Cube 5": 0.0,
    }
    assert len(more_wild.PROBLEMS) == 53
    for name, lowest in published.items():
        problem = more_wild.PROBLEMS[name]
        residuals = jax.jit(problem.residuals)
        jacobian = jax.jit(jax.jacfwd(problem.residuals))
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            found = scipy.optimize.least_squares(
                residuals, problem.start, jacobian, method="lm", x_scale="jac"
            )
        assert found.fun.shape == (problem.size,)
        np.testing.assert_allclose(2 * found.cost, lowest, rtol=2e-6, atol=1e-12)


def test_the_first_step_is_no_longer_than_the_params():
    """From 92 times their length it would end in another minimum, with the sum 1."""
    problem = more_wild.PROBLEMS["Brown, almost linear 10"]
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        start = jnp.asarray(problem.start)
        _, state = run(levenberg_marquardt(), start, problem.residuals)
    assert state.status == STATUS.CONVERGED
    assert state.value < 1e-20


@pytest.mark.parametrize("unit", [1e-9, 1.0, 1e9])
def test_units_beyond_the_dtype_never_look_converged(unit, float32):
    """Conjugate gradients keep the units of the params, and may not see a small one."""
    del float32
    x = jnp.linspace(0.0, 3.0, 30, dtype=jnp.float32)
    y = 3.0 * jnp.exp(-x / 1.5) + 0.05 * jnp.sin(9 * x)
    residual_fn = lambda p: p["height"] * jnp.exp(-(x * unit) / p["width"]) - y
    start = {"height": jnp.float32(1.0), "width": jnp.float32(unit)}
    _, state = run(newton_cg(), start, residual_fn)
    _, best = run(levenberg_marquardt(), start, residual_fn)
    assert best.status == STATUS.CONVERGED
    if state.status == STATUS.CONVERGED:
        np.testing.assert_allclose(state.value, best.value, rtol=1e-4)
    else:
        assert unit != 1.0


@pytest.mark.parametrize("make", ALL)
def test_params_without_leaves_are_refused(make):
    with pytest.raises(ValueError, match="`params` has no leaves"):
        run(make(), {}, lambda p: jnp.ones(3))


@pytest.mark.parametrize("make", ALL)
def test_a_start_that_is_not_finite_is_told(make):
    start, optimizer = jnp.zeros(2), make()
    for residual_fn, status in (
        (lambda p: p - jnp.nan, STATUS.NONFINITE_LOSS),
        (lambda p: 1 + jnp.sqrt(jnp.abs(p)), STATUS.NONFINITE_GRADIENT),
    ):
        value_fn = lambda p, fn=residual_fn: jnp.sum(fn(p) ** 2)
        extra = {"residual_fn": residual_fn, "value_fn": value_fn}
        update = jax.jit(functools.partial(optimizer.update, **extra))
        _, state = update(start, optimizer.init(start), start)
        assert state.status == status


# ------------------------------------------------------------------- the protocol


def measured(make, params, steps, **options):
    """Return the params and states of some updates by hand."""
    residual_fn = lambda p: curve(p, X) - Y
    extra = {
        "residual_fn": residual_fn,
        "value_fn": lambda p: jnp.sum(residual_fn(p) ** 2),
        **options,
    }
    optimizer = make()
    update = jax.jit(lambda s, p: optimizer.update(p, s, p, **extra))
    rows = [(params, optimizer.init(params))]
    for _ in range(steps):
        updates, state = update(rows[-1][1], rows[-1][0])
        rows.append((rows[-1][0] + updates, state))
    return rows, update


@pytest.mark.parametrize("make", ALL)
def test_the_first_update_measures_and_stays(make):
    start = jnp.asarray([1.0, 1.0])
    rows, update = measured(make, start, 3)
    loss_fn = lambda p: jnp.sum((curve(p, X) - Y) ** 2)
    assert (rows[1][0] == start).all()
    assert rows[1][1].step == 0
    for params, state in rows[1:]:
        assert state.measures_itself
        np.testing.assert_array_equal(state.accepted(start), params)
        np.testing.assert_allclose(state.value, loss_fn(params), rtol=8 * EPS)
        np.testing.assert_allclose(
            state.gradient, jax.grad(loss_fn)(params), rtol=1e-10, atol=1e-12
        )
    # Measured again at the same point it is the same to the last bit.
    params, state = rows[3]
    updates, again = update(state.stale(), params)
    assert (updates == 0).all()
    jax.tree.map(np.testing.assert_array_equal, state, again)
    # Params that somebody else moved are measured where they are.
    updates, moved = update(state, params + 0.25)
    assert (updates == 0).all()
    np.testing.assert_allclose(moved.value, loss_fn(params + 0.25), rtol=8 * EPS)


@pytest.mark.parametrize("make", ALL)
def test_it_runs_in_optax_wrappers(make):
    residual_fn = lambda p: curve(p, X) - Y
    value_fn = lambda p: jnp.sum(residual_fn(p) ** 2)
    wrappers = {
        levenberg_marquardt: optax.chain(make(), optax.scale(0.7)),
        newton: optax.apply_if_finite(make(), 2),
    }
    for optimizer in [wrappers[make]] if make in wrappers else []:

        def step(carry, _, optimizer=optimizer):
            params, state = carry
            updates, state = optimizer.update(
                params, state, params, value_fn=value_fn, residual_fn=residual_fn
            )
            return (optax.apply_updates(params, updates), state), None

        start = jnp.ones(2)
        carry = (start, optimizer.init(start))
        (params, _), _ = jax.lax.scan(step, carry, length=40)
        np.testing.assert_allclose(params, [2.042699, 1.529277], atol=1e-4)
    masked = optax.masked(make(), {"a": True, "b": False})
    tree = {"a": jnp.ones(2), "b": jnp.ones(2)}
    with pytest.raises(ValueError, match="hides some of the params"):
        masked.update(
            tree, masked.init(tree), tree, value_fn=value_fn, residual_fn=residual_fn
        )


@pytest.mark.parametrize(
    ("make", "dtype"),
    [
        (levenberg_marquardt, "float16"),
        (levenberg_marquardt, "float32"),
        (newton, "bfloat16"),
        (newton_cg, "float32"),
    ],
)
def test_coarse_params_keep_their_dtype(make, dtype, float32):
    del float32
    x, y = X.astype(dtype), Y.astype(dtype)
    residual_fn = lambda p: p[0] * jnp.exp(-p[1] * x) - y
    params, state = run(make(), jnp.ones(2, dtype), residual_fn)
    assert params.dtype == dtype
    assert state.value.dtype == jnp.float32
    assert state.status == STATUS.CONVERGED
    eps = float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(
        params.astype(jnp.float32), [2.042699, 1.529277], rtol=32 * eps
    )


@pytest.mark.parametrize("make", ALL)
def test_fewer_residuals_than_params(make):
    residual_fn = lambda p: jnp.stack([p[0] + p[1] * p[2] - 3.0, p[1] - p[2] ** 2])
    params, state = run(make(), jnp.ones(3), residual_fn)
    assert state.status == STATUS.CONVERGED
    np.testing.assert_allclose(residual_fn(params), 0.0, atol=1e-8)


def count(jaxpr, name):
    """Count a primitive in a program and in everything that it calls."""
    number = sum(equation.primitive.name == name for equation in jaxpr.eqns)
    for equation in jaxpr.eqns:
        for value in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda v: hasattr(v, "eqns")
        ):
            inner = getattr(value, "jaxpr", value)
            number += count(inner, name) if hasattr(inner, "eqns") else 0
    return number


def test_the_program_holds_one_copy_of_the_model():
    residual_fn = lambda p: p[0] * jnp.exp(-p[1] * X) + p[2] - Y

    def fit(start, make):
        return run(make(), start, residual_fn)[1].value

    start = jnp.ones(3)
    # A second copy looks at the curvature where the fit ends; mapped fits do without.
    for make, number in ((levenberg_marquardt, 2), (newton, 1)):
        jaxpr = jax.make_jaxpr(lambda s, make=make: fit(s, make))(start)
        assert count(jaxpr.jaxpr, "exp") == number
    text = jax.jit(lambda s: fit(s, levenberg_marquardt)).lower(start).as_text()
    assert len(text.splitlines()) <= 900

    def whole_fit(start):
        loss_fn = losses.least_squares(lambda p, x: p[0] * jnp.exp(-p[1] * x) + p[2])
        method, data = levenberg_marquardt(), (X, Y)
        result = phihat.fit(loss_fn, start, method, data, num_steps=200, record=())
        return result.params

    text = jax.jit(whole_fit).lower(start).as_text()
    assert len(text.splitlines()) <= 950
    mapped = jax.jit(jax.vmap(lambda s: fit(s, levenberg_marquardt)))
    compiled = mapped.lower(start[None]).compile().as_text()
    assert "lapack" not in compiled


# ------------------------------------------------------------------------- covariance


@pytest.mark.parametrize("absolute_sigma", [False, True])
def test_covariance_is_that_of_curve_fit(absolute_sigma):
    x = np.linspace(0.0, 2.0, 15)
    y = 2.0 * np.exp(-1.5 * x) + 0.1 * np.sin(9 * x)
    sigma = np.linspace(0.05, 0.2, 15)
    params, expected = scipy.optimize.curve_fit(
        lambda x, a, b: a * np.exp(-b * x),
        x,
        y,
        p0=[1.0, 1.0],
        sigma=sigma,
        absolute_sigma=absolute_sigma,
        ftol=1e-15,
        xtol=1e-15,
        jac=lambda x, a, b: np.stack([np.exp(-b * x), -a * x * np.exp(-b * x)], 1),
    )
    loss_fn = losses.least_squares(curve, weights=1 / sigma**2)
    found = covariance(
        loss_fn, jnp.asarray(params), (x, y), absolute_sigma=absolute_sigma
    )
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_covariance_of_a_line_in_closed_form():
    x = jnp.asarray([0.0, 1.0, 2.0, 4.0])
    y = jnp.asarray([1.0, 2.5, 2.5, 6.0])
    design = np.stack([np.ones(4), x], axis=1)
    params, rest = np.linalg.lstsq(design, y)[:2]
    expected = rest[0] / 2 * np.linalg.inv(design.T @ design)
    loss_fn = losses.least_squares(lambda p, x: p["bias"] + p["weight"] * x)
    fitted = {"bias": jnp.asarray(params[0]), "weight": jnp.asarray(params[1])}
    found = covariance(loss_fn, fitted, (x, y))
    np.testing.assert_allclose(found, expected, rtol=64 * EPS * 10)


def test_covariance_of_a_likelihood_is_the_inverse_hessian():
    # n events in unit time, rate e^p: the variance of the log-rate is 1 / n.
    negative_log_likelihood = lambda p, n: jnp.exp(p) - n * p
    events = jnp.asarray(25.0)
    result = solve(newton(), negative_log_likelihood, 0.0, events)
    found = covariance(negative_log_likelihood, result, events)
    np.testing.assert_allclose(found, [[1 / 25]], rtol=1e-9)


def test_covariance_is_infinite_where_it_is_not_determined():
    twins = losses.least_squares(lambda p, x: (p[0] + p[1]) * x)
    x = jnp.arange(1.0, 5.0)
    assert np.isposinf(covariance(twins, jnp.ones(2), (x, x))).all()
    line = losses.least_squares(lambda p, x: p[0] + p[1] * x)
    assert np.isposinf(covariance(line, jnp.ones(2), (x[:2], x[:2]))).all()
    assert np.isposinf(covariance(saddle, jnp.zeros(2))).all()


def test_covariance_of_what_is_determined_stays():
    x, y = jnp.arange(1.0, 7.0), jnp.array([1.1, 1.9, 3.2, 3.9, 5.1, 5.8])
    fitted = jnp.array([0.1, 0.97, 0.0, 0.0])
    line = losses.least_squares(lambda p, x: p[0] + p[1] * x)
    more = losses.least_squares(lambda p, x: p[0] + p[2] + p[1] * x + 0.0 * p[3])
    wanted = covariance(line, fitted[:2], (x, y), absolute_sigma=True)
    found = covariance(more, fitted, (x, y), absolute_sigma=True)
    np.testing.assert_allclose(found[1, 1], wanted[1, 1], rtol=1e-12)
    assert np.isposinf(np.diagonal(found)[jnp.array([0, 2, 3])]).all()
    # The same of a likelihood: half the curvature of the sum of squares.
    halves = lambda loss_fn: lambda p, batch: 0.5 * loss_fn(p, batch)
    likely = covariance(halves(more), fitted, (x, y))
    np.testing.assert_allclose(likely[1, 1], wanted[1, 1], rtol=1e-12)
    assert np.isposinf(np.diagonal(likely)[jnp.array([0, 2, 3])]).all()


# ---------------------------------------------------------------------- in a program


def tree_problem():
    params = {
        "a": jnp.asarray([0.5, -0.3], jnp.float32),
        "b": (jnp.asarray(1.2, jnp.float64), jnp.ones((0, 2))),
    }
    residual_fn = lambda p: {
        "first": p["a"].astype(float) ** 2 - 1,
        "second": (p["b"][0] - 3.0)[None],
    }
    value_fn = lambda p: sum(jnp.sum(r**2) for r in jax.tree.leaves(residual_fn(p)))
    return params, residual_fn, value_fn


@pytest.mark.parametrize("make", [newton, newton_cg, levenberg_marquardt])
def test_any_tree_keeps_its_avals_in_a_loop_by_hand(make):
    optimizer = make()
    params, residual_fn, value_fn = tree_problem()
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, leaf.dtype), params)

    def step(carry, _):
        params, state = carry
        value, grad = jax.value_and_grad(value_fn)(params)
        if make is levenberg_marquardt:
            extra = {"residual_fn": residual_fn}
        else:
            extra = {"value": value, "grad": grad, "value_fn": value_fn}
        updates, state = optimizer.update(grad, state, params, **extra)
        return (optax.apply_updates(params, updates), state), value

    (params, _), values = jax.lax.scan(
        step, (params, optimizer.init(params)), length=15
    )
    # The float32 leaf rounds: the loss cannot fall below the square of its error.
    assert values[-1] <= 16 * float(np.finfo(np.float32).eps) ** 2
    assert params["a"].dtype == jnp.float32


@pytest.mark.parametrize("make", [newton, newton_cg, levenberg_marquardt])
def test_float32_ends_honestly(make, float32):
    del float32
    x = jnp.linspace(0.0, 2.0, 15)
    y = curve(jnp.asarray([2.0, 1.5]), x) + 0.1 * jnp.sin(9 * x)
    result = solve(make(), losses.least_squares(curve), jnp.ones(2), (x, y))
    assert result.params.dtype == jnp.float32
    assert result.status == STATUS.CONVERGED
    assert result.grad_norm <= 1e-4


def test_the_radius_is_data():
    start = jnp.asarray([-1.2, 1.0])
    first = solve(newton(initial_radius=0.1), rosenbrock, start, num_steps=1)
    with pairs.count_compilations() as compiled:
        second = solve(newton(initial_radius=0.2), rosenbrock, start, num_steps=1)
    assert not compiled
    assert not np.array_equal(first.params, second.params)


def test_a_hessian_in_blocks_is_the_hessian():
    size = 300
    weights = jnp.linspace(1.0, 2.0, size)
    loss_fn = lambda p: jnp.sum(weights * (p - 1) ** 2) + jnp.sum(p) ** 2
    hessian = _dense.dense_hessian(jax.grad(loss_fn), jnp.zeros(size))
    np.testing.assert_allclose(
        hessian, np.diag(2 * weights) + 2.0, rtol=8 * EPS, atol=8 * EPS
    )


# --------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("error", "call", "sentence"),
    [
        (
            ValueError,
            lambda: newton(initial_radius=0.0),
            "newton: `initial_radius` must be > 0, got 0.0.",
        ),
        (
            TypeError,
            lambda: newton_cg(initial_radius=None),
            "newton_cg: `initial_radius` must be a real number or an array of them, "
            "got None.",
        ),
        (
            ValueError,
            lambda: newton_cg(max_iterations=0),
            "newton_cg: `max_iterations` must be >= 1, got 0.",
        ),
        (
            ValueError,
            lambda: jax.eval_shape(newton().init, jnp.zeros(200_000)),
            "newton: a dense Hessian of 200000 params takes 320,000,000,000 bytes, "
            "more than 1,073,741,824; use `newton_cg`, which needs only products with "
            "the Hessian.",
        ),
        (
            TypeError,
            lambda: newton().update(
                jnp.ones(2), newton().init(jnp.ones(2)), jnp.ones(2)
            ),
            "newton: `value_fn` is missing: pass `value_fn=` (params -> loss) to "
            "`update`, as `fit` does.",
        ),
        (
            TypeError,
            lambda: newton().update(
                jnp.ones(2), newton().init(jnp.ones(2)), value_fn=saddle
            ),
            "newton: `params` is missing: pass `params=` (the point to step from) to "
            "`update`, as `fit` does.",
        ),
        (
            TypeError,
            lambda: levenberg_marquardt().update(
                jnp.ones(2), levenberg_marquardt().init(jnp.ones(2)), jnp.ones(2)
            ),
            "levenberg_marquardt: `residual_fn` is missing: pass `residual_fn=` "
            "(params -> residuals) to `update`, as `fit` does.",
        ),
        (
            ValueError,
            lambda: solve(levenberg_marquardt(), saddle, jnp.ones(2)),
            "residual_fn: `loss_fn` must come from `least_squares`, perhaps in "
            "`with_l2`, got saddle: it is not a sum of squared residuals.",
        ),
        (
            TypeError,
            lambda: covariance(saddle, jnp.asarray([1, 2])),
            "covariance: `params` must have floating-point leaves, got an array of "
            "int64[2] at the only leaf; convert it, for example with "
            "`jnp.asarray(leaf, float)`.",
        ),
    ],
)
def test_wrong_calls_get_one_sentence(error, call, sentence):
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value) == sentence


WRAPPERS = {
    "chain": optax.chain,
    "a chain that clips": lambda inner: optax.chain(inner, optax.clip(10.0)),
    "apply_if_finite": lambda inner: optax.apply_if_finite(inner, 3),
    "masked": lambda inner: optax.masked(inner, {"a": True, "b": True}),
    "partition": lambda inner: optax.partition({"x": inner}, {"a": "x", "b": "x"}),
}


@pytest.mark.parametrize("name", WRAPPERS)
def test_wrapped_fits_end_where_the_optimizer_does(name):
    """Inside a wrapper it finds its residuals, ends the fit, and the loss is true."""
    x = jnp.linspace(0.0, 3.0, 30)
    y = 2.0 * jnp.exp(-1.3 * x) + 0.01 * jnp.sin(37.0 * x)
    loss_fn = losses.least_squares(lambda p, x: p["a"] * jnp.exp(-p["b"] * x))
    start = {"a": 1.0, "b": 0.5}
    plain = phihat.fit(
        loss_fn, start, phihat.levenberg_marquardt(), (x, y), num_steps=30
    )
    optimizer = WRAPPERS[name](phihat.levenberg_marquardt())
    result = phihat.fit(loss_fn, start, optimizer, (x, y), num_steps=30)
    assert result.status == phihat.Status.CONVERGED
    np.testing.assert_allclose(result.loss, loss_fn(result.params, (x, y)), rtol=1e-12)
    for key in start:
        np.testing.assert_allclose(result.params[key], plain.params[key], rtol=1e-9)


def test_a_wrapped_optimizer_ends_every_kind_of_run():
    loss_fn = lambda p: (p - 1.0) ** 2 + (p - 1.0) ** 4
    optimizer = optax.chain(phihat.newton())
    state = phihat.fitting.init(3.0, optimizer)
    step_fn = phihat.fitting.make_step(loss_fn, optimizer)
    state, _ = phihat.fitting.run(step_fn, state, num_steps=50)
    assert state.status == phihat.Status.CONVERGED
    trained = phihat.train(loss_fn, 3.0, optimizer, num_steps=50)
    assert trained.status == phihat.Status.CONVERGED
    fit = lambda start: phihat.fit(loss_fn, start, optimizer, num_steps=50)
    mapped = jax.vmap(fit)(jnp.asarray([3.0, -2.0]))
    assert (mapped.status == phihat.Status.CONVERGED).all()
    np.testing.assert_allclose(mapped.params, 1.0, rtol=1e-7)
