"""Curvature against closed forms, dense eigen-decompositions, NumPy and SciPy."""

from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse.linalg
from jax.tree_util import Partial

from phihat import Box, curvature, problems, products

EPS = float(np.finfo(np.float64).eps)
X = np.array([0.03, 0.19, 0.34, 0.46, 0.78, 0.81, 1.08, 1.18, 1.39, 1.6, 1.65, 1.9])


def _line(params, x):
    """Sum of squares of a line through the deck's inputs; y does not matter here."""
    return jnp.sum((params["bias"] + params["weight"] * x) ** 2)


def _spectrum_loss(spectrum, params):
    """A quadratic with a prescribed spectrum, turned by a reflection."""
    normal = jnp.sin(jnp.arange(1.0, spectrum.size + 1))
    normal = normal / jnp.linalg.norm(normal)
    turned = params - 2 * normal * (normal @ params)
    return 0.5 * jnp.sum(spectrum * turned**2)


def _quadratic(spectrum):
    return Partial(_spectrum_loss, jnp.asarray(spectrum))


def _network(params, data):
    x, y = data
    hidden = jnp.tanh(x @ params["weight"] + params["bias"][None, :])
    prediction = params["scale"] * jnp.sum(hidden, axis=1)
    return jnp.sum((prediction - y) ** 2) + jnp.sum(params["empty"])


def _network_case():
    keys = jax.random.split(jax.random.key(0), 4)
    params = {
        "weight": jax.random.normal(keys[0], (3, 4)),
        "bias": jax.random.normal(keys[1], (4,)),
        "scale": 0.7,
        "empty": jnp.zeros((0, 2)),
    }
    data = jax.random.normal(keys[2], (11, 3)), jax.random.normal(keys[3], (11,))
    return params, data


def test_the_facts_of_the_deck():
    """Closed forms of the deck's linear regression: 2 X'X and what follows."""
    params = {"bias": 0.3, "weight": -1.0}
    matrix = np.array([[24.0, 2 * X.sum()], [2 * X.sum(), 2 * (X**2).sum()]])
    values = np.linalg.eigvalsh(matrix)
    tolerance = 20 * EPS * values[-1]
    dense = curvature.hessian(_line, params, X)
    np.testing.assert_allclose(dense, matrix, atol=tolerance, rtol=0)
    np.testing.assert_allclose(dense, [[24.0, 22.82], [22.82, 30.0242]], rtol=1e-12)
    np.testing.assert_allclose(
        curvature.eigenvalues(_line, params, X), values, atol=tolerance, rtol=0
    )
    determinant = float(curvature.determinant(_line, params, X))
    assert determinant == pytest.approx(199.8284, rel=100 * EPS)
    condition = float(curvature.condition_number(_line, params, X))
    assert condition == pytest.approx(12.525767105409912, rel=100 * EPS)
    sharpness = float(curvature.sharpness(_line, params, X))
    assert sharpness == pytest.approx(50.03003097587183, rel=20 * EPS)
    trace = float(curvature.hessian_trace(_line, params, X))
    assert trace == pytest.approx(54.0242, rel=20 * EPS)
    assert curvature.labels(params) == ["['bias']", "['weight']"]


def test_hessian_over_a_tree():
    params, data = _network_case()
    flat, unflatten = products.flatten(params)
    expected = jax.jit(jax.hessian(lambda v: _network(unflatten(v), data)))(flat)
    dense = curvature.hessian(_network, params, data)
    scale = float(jnp.abs(expected).max())
    np.testing.assert_allclose(dense, expected, atol=50 * EPS * scale, rtol=0)
    np.testing.assert_array_equal(dense, dense.T)
    names = curvature.labels(params)
    assert names[:2] == ["['bias'][0]", "['bias'][1]"]
    assert names[4:6] == ["['scale']", "['weight'][0, 0]"]
    assert len(names) == 17
    # A name is the place of its entry: the row of `scale` is d/dscale of the gradient.
    unit = jax.tree.map(jnp.zeros_like, params) | {"scale": jnp.ones(())}
    row = jax.jit(products.hvp, static_argnums=0)(_network, params, unit, data)
    np.testing.assert_allclose(
        dense[4], products.flatten(row)[0], atol=50 * EPS * scale, rtol=0
    )


def test_every_leaf_kind_and_no_params_at_all():
    assert curvature.hessian(lambda p: 3.0 * p["a"] ** 2, {"a": 1.0}).tolist() == [[6]]
    nothing = {"a": jnp.zeros((0, 3))}
    loss = lambda p: jnp.sum(p["a"])
    assert curvature.hessian(loss, nothing).shape == (0, 0)
    assert curvature.eigenvalues(loss, nothing).shape == (0,)
    assert float(curvature.hessian_trace(loss, nothing)) == 0.0
    with pytest.raises(ValueError, match="hold no numbers"):
        curvature.sharpness(loss, nothing)


def test_determinants_that_do_not_fit():
    spectrum = np.full(200, 1e3)
    spectrum[0] = -1e3
    loss = _quadratic(spectrum)
    sign, log_abs = curvature.log_determinant(loss, jnp.zeros(200))
    assert float(sign) == -1.0
    assert float(log_abs) == pytest.approx(200 * np.log(1e3), rel=20 * EPS)
    assert float(curvature.determinant(loss, jnp.zeros(200))) == -np.inf
    # No intermediate product may overflow where the determinant itself fits.
    spectrum = np.concatenate([np.full(100, 1e5), np.full(100, 1e-5)])
    diagonal = lambda p: 0.5 * jnp.sum(spectrum * p**2)
    value = float(curvature.determinant(diagonal, jnp.zeros(200)))
    assert value == pytest.approx(1.0, abs=200 * EPS * np.log(1e5))


def test_condition_number_of_singular_and_flat_losses():
    square = lambda p: jnp.sum(p) ** 2
    assert float(curvature.condition_number(square, jnp.ones(2))) > 1 / (100 * EPS)
    assert float(curvature.condition_number(lambda p: p[0] ** 2, jnp.ones(2))) == np.inf


SPECTRA = {
    "spread": np.linspace(-3.0, 7.0, 600),
    "decaying": 10.0 ** -np.linspace(0, 8, 600),
    "two values": np.repeat([1.0, 5.0], 300),
    "negative": -(np.linspace(1.0, 4.0, 600) ** 2),
    "flat": np.zeros(600),
    "one outlier": np.append(np.zeros(599), 100.0),
}


@pytest.mark.parametrize("name", SPECTRA)
def test_lanczos_finds_both_ends(name):
    spectrum = SPECTRA[name]
    ends = curvature.extreme_eigenvalues(
        _quadratic(spectrum), jnp.ones(600), num_iterations=100
    )
    scale = np.abs(spectrum).max()
    for value, error, expected in (
        (ends.smallest, ends.smallest_error, spectrum.min()),
        (ends.largest, ends.largest_error, spectrum.max()),
    ):
        # The promise: within the error there is an eigenvalue. Its goodness: the ends.
        nearest = np.abs(spectrum - float(value)).min()
        assert nearest <= float(error) + 100 * EPS * scale
        assert float(value) == pytest.approx(expected, abs=1e-3 * scale)
    vector = products.hvp(
        _quadratic(spectrum), jnp.ones(600), ends.largest_vector
    ) - float(ends.largest) * np.asarray(ends.largest_vector)
    assert np.linalg.norm(vector) == pytest.approx(
        float(ends.largest_error), abs=200 * EPS * scale
    )
    assert np.linalg.norm(ends.largest_vector) == pytest.approx(1.0, abs=100 * EPS)


def test_lanczos_against_scipy_and_dense_on_a_network():
    params, data = _network_case()
    dense = np.asarray(curvature.hessian(_network, params, data))
    values = np.linalg.eigvalsh(dense)
    ends = curvature.extreme_eigenvalues(
        _network, params, data, dense_size=0, num_iterations=17
    )
    scale = np.abs(values).max()
    assert float(ends.largest) == pytest.approx(values[-1], abs=200 * EPS * scale)
    assert float(ends.smallest) == pytest.approx(values[0], abs=200 * EPS * scale)
    assert jax.tree.structure(ends.largest_vector) == jax.tree.structure(params)
    top = scipy.sparse.linalg.eigsh(dense, k=1, which="LA")[0][0]
    assert float(ends.largest) == pytest.approx(top, abs=1e3 * EPS * scale)
    exact = curvature.extreme_eigenvalues(_network, params, data)
    assert float(exact.largest) == pytest.approx(values[-1], abs=50 * EPS * scale)
    assert float(exact.smallest_error) <= 100 * EPS * scale


def test_lanczos_works_for_one_parameter_and_more_steps_than_params():
    loss = lambda p: -2.0 * p**2
    ends = curvature.extreme_eigenvalues(loss, 1.0, dense_size=0, num_iterations=9)
    assert (float(ends.smallest), float(ends.largest)) == (-4.0, -4.0)


def test_a_loss_may_hold_a_function():
    """As `losses.least_squares(partial(perceptron, activation=jnp.tanh))` does."""
    loss = lambda params, function: jnp.sum(function(params))
    for function, curved in {jnp.square: 2.0, jnp.negative: 0.0}.items():
        bound = Partial(loss, function=function)
        assert float(curvature.sharpness(bound, jnp.ones(2))) == curved


def test_sharpness_has_the_derivative_of_the_eigenvalue():
    """d/dp of the largest eigenvalue of diag(12 p0^2, 2) is 24 p0."""
    loss = lambda p: p[0] ** 4 + p[1] ** 2
    for dense_size in (0, 2):
        slope = jax.grad(
            lambda p, n=dense_size: curvature.sharpness(loss, p, dense_size=n)
        )(jnp.array([1.5, 1.0]))
        np.testing.assert_allclose(slope, [36.0, 0.0], atol=100 * EPS * 36)


def test_over_lanes_and_without_a_second_program():
    points = jnp.arange(1.0, 7.0).reshape(3, 2)
    loss = lambda p: jnp.sum(p**4)
    lanes = jax.vmap(lambda p: curvature.sharpness(loss, p, dense_size=0))(points)
    np.testing.assert_allclose(lanes, 12 * points[:, 1] ** 2, rtol=100 * EPS)
    traced = mock.Mock()  # a list that grows would be another closure

    def counted(factor, params):
        traced()
        return factor * jnp.sum(params**2)

    curvature.sharpness(Partial(counted, 1.0), jnp.ones(2))
    before = traced.call_count
    assert float(curvature.sharpness(Partial(counted, 3.0), jnp.ones(2))) == 6.0
    assert traced.call_count == before


def test_traces_and_their_error_bars():
    spectrum = SPECTRA["spread"]
    exact = curvature.estimate_trace(
        _quadratic(spectrum), jnp.ones(600), dense_size=600
    )
    assert float(exact.trace) == pytest.approx(spectrum.sum(), abs=1e4 * EPS * 7)
    assert float(exact.standard_error) == 0.0
    keys = jax.random.split(jax.random.key(3), 40)
    estimate = jax.vmap(
        lambda key: curvature.estimate_trace(
            _quadratic(spectrum), jnp.ones(600), num_probes=16, key=key
        )
    )(keys)
    # Standardised errors have mean 0 and spread 1: the bars mean what they say.
    scores = (estimate.trace - spectrum.sum()) / estimate.standard_error
    assert abs(float(jnp.mean(scores))) <= 4 / 40**0.5
    assert 0.6 <= float(jnp.std(scores)) <= 1.6


def test_the_spectrum_of_few_params_is_exact():
    spectrum = np.array([-1.0, 0.5, 0.5, 4.0])
    result = curvature.spectral_density(_quadratic(spectrum), jnp.ones(4), width=0.1)
    np.testing.assert_allclose(result.nodes[0], spectrum, atol=50 * EPS)
    bells = np.exp(-0.5 * ((np.asarray(result.grid)[:, None] - spectrum) / 0.1) ** 2)
    expected = bells.mean(axis=1) / (0.1 * np.sqrt(2 * np.pi))
    np.testing.assert_allclose(result.density, expected, atol=1e4 * EPS)
    assert float(jnp.max(result.standard_error)) == 0.0


def test_the_spectrum_by_quadrature():
    spectrum = np.concatenate([np.linspace(0.0, 1.0, 900), np.linspace(4.0, 5.0, 100)])
    result = curvature.spectral_density(
        _quadratic(spectrum), jnp.ones(1000), width=0.15, num_probes=16
    )
    assert result.nodes.shape == result.weights.shape == (16, 64)
    np.testing.assert_allclose(jnp.sum(result.weights, axis=1), 1.0, atol=100 * EPS)
    bells = np.exp(-0.5 * ((np.asarray(result.grid)[:, None] - spectrum) / 0.15) ** 2)
    expected = bells.mean(axis=1) / (0.15 * np.sqrt(2 * np.pi))
    error = np.abs(np.asarray(result.density) - expected)
    bar = np.asarray(result.standard_error)
    assert np.mean(error <= 4 * bar + 1e-9) >= 0.98
    area = np.trapezoid(result.density, result.grid)
    # Three widths beyond each end hold all but 0.3 % of the outermost bells.
    assert area == pytest.approx(1.0, abs=3e-3)


def test_data_in_batches_give_the_same_curvature():
    params, data = _network_case()
    chunked = products.accumulated(_network, 4)
    whole = curvature.hessian(_network, params, data)
    np.testing.assert_allclose(
        curvature.hessian(chunked, params, data),
        whole,
        atol=50 * EPS * float(jnp.abs(whole).max()),
        rtol=0,
    )


@pytest.mark.parametrize("entry", [0.0, -1.0])  # an infinite, and a NaN curvature
def test_a_non_finite_hessian_gives_nan(entry):
    loss = lambda p: jnp.sum(p**1.5)
    point = jnp.array([entry, 1.0])
    assert np.isnan(curvature.eigenvalues(loss, point)).all()
    assert np.isnan(curvature.sharpness(loss, point, dense_size=0))
    assert np.isnan(curvature.sharpness(loss, point))


def test_float32():
    with jax.enable_x64(False):
        spectrum = jnp.linspace(-3.0, 7.0, 600, dtype=jnp.float32)
        ends = curvature.extreme_eigenvalues(_quadratic(spectrum), jnp.ones(600))
        assert ends.largest.dtype == jnp.float32
        assert float(ends.largest) == pytest.approx(7.0, abs=0.1)


def _recorded(recorder, params):
    update = jax.jit(lambda own, p: recorder.update_fn(own, _State(p), None, None))
    state = recorder.init_fn(params[0])
    values = []
    for point in params:
        state, value = update(state, point)
        values.append(float(value))
    return values


class _State:
    def __init__(self, params):
        self.params = params


def test_the_recorder_follows_the_largest_eigenvalue():
    def loss(params):
        return (
            _spectrum_loss(jnp.linspace(-3.0, 2.0, 50), params["a"]) + params["b"] ** 4
        )

    points = [{"a": jnp.ones(50), "b": jnp.asarray(b)} for b in (0.1, 0.9, 1.0, 0.2)]
    values = _recorded(curvature.sharpness_recorder(loss, tolerance=1e-6), points)
    expected = [2.0, 12 * 0.81, 12.0, 2.0]
    np.testing.assert_allclose(values, expected, rtol=1e-4)


def test_the_recorder_survives_a_non_finite_point():
    loss = lambda p: jnp.sum(p**4)
    points = [jnp.ones(3), jnp.full(3, jnp.nan), 2.0 * jnp.ones(3)]
    values = _recorded(curvature.sharpness_recorder(loss), points)
    assert values[0] == pytest.approx(12.0, rel=1e-3)
    assert np.isnan(values[1])
    assert values[2] == pytest.approx(48.0, rel=1e-3)


def test_the_determinant_misleads_on_the_gabor_plot():
    """The deck's plot: 22 % of it is a hill with a positive determinant."""
    loss = problems.gabor(envelope_width=4.0).loss_fn
    result = curvature.convexity_map(loss, Box([-10.0, 2.5], [10.0, 22.5]))
    assert result.determinant.shape == (201, 201)
    shares = list(result.shares.values())
    # The reference used another grid: agreement to the share of a grid's boundary.
    np.testing.assert_allclose(shares, [0.2443, 0.2225, 0.5332], atol=0.005)
    assert "misleads at 22." in result.text
    assert "not convex on this box" in repr(result)
    for i, j in ((0, 0), (17, 120), (200, 200)):
        point = jnp.array([result.first[i], result.second[j]])
        values = np.linalg.eigvalsh(curvature.hessian(loss, point))
        tolerance = 100 * EPS * np.abs(values).max()
        assert float(result.smallest_eigenvalue[i, j]) == pytest.approx(
            values[0], abs=tolerance
        )
        assert float(result.largest_eigenvalue[i, j]) == pytest.approx(
            values[1], abs=tolerance
        )
        assert float(result.determinant[i, j]) == pytest.approx(
            values[0] * values[1], abs=tolerance * np.abs(values).max()
        )


def test_the_convexity_map_over_a_tree():
    box = Box({"bias": -1.0, "weight": 0.0}, {"bias": 1.0, "weight": 2.0})
    result = curvature.convexity_map(_line, box, X, shape=(3, 4))
    np.testing.assert_allclose(result.determinant, 199.8284, rtol=200 * EPS)
    assert result.shares["positive definite"] == 1.0
    assert "no proof" in result.text


LARGE = {"weight": np.zeros((400, 500)), "bias": np.zeros(500)}
BAD = [
    (
        lambda: curvature.hessian(lambda p: jnp.sum(p["bias"]), LARGE),
        ValueError,
        "hessian: the dense Hessian of 200,500 params has 200,500 x 200,500 entries, "
        "321,602,000,000 bytes, above `max_bytes`=1,073,741,824; use "
        "`extreme_eigenvalues`",
    ),
    (
        lambda: curvature.eigenvalues(lambda p: p, jnp.ones(3)),
        ValueError,
        r"eigenvalues: `loss_fn` must return a scalar float, .* \(3,\)",
    ),
    (
        lambda: curvature.sharpness(jnp.sum, jnp.ones(3), num_iterations=0),
        ValueError,
        "sharpness: `num_iterations` must be >= 1, got 0",
    ),
    (
        lambda: curvature.sharpness(jnp.sum, jnp.ones(3), key=3),
        TypeError,
        r"sharpness: `key` must be one typed key, such as jax.random.key\(3\)",
    ),
    (
        lambda: curvature.estimate_trace(jnp.sum, jnp.ones(3), num_probes=1),
        ValueError,
        "estimate_trace: `num_probes` must be >= 2, got 1",
    ),
    (
        lambda: curvature.spectral_density(jnp.sum, jnp.ones(3), width=0.0),
        ValueError,
        "spectral_density: `width` must be > 0, got 0.0",
    ),
    (
        lambda: curvature.hessian(lambda p: p**2, 3),
        TypeError,
        "hessian: `params` must have floating-point leaves",
    ),
    (
        lambda: curvature.sharpness_recorder(jnp.sum, num_iterations=1),
        ValueError,
        "sharpness_recorder: `num_iterations` must be >= 2",
    ),
    (
        lambda: curvature.convexity_map(jnp.sum, Box([0.0, 1.0], [1.0, 1.0])),
        ValueError,
        r"convexity_map: `box` must have low < high in every coordinate, got low=1.0 "
        r"and high=1.0 at \[1\]",
    ),
    (
        lambda: curvature.convexity_map(jnp.sum, Box([0.0], [1.0])),
        ValueError,
        "convexity_map: `box` must have two coordinates in all, got 1",
    ),
    (
        lambda: curvature.convexity_map(jnp.sum, Box([0.0, 0.0], [1.0, np.inf])),
        ValueError,
        "convexity_map: `box` must be bounded",
    ),
    (
        lambda: curvature.convexity_map(jnp.sum, ([0.0, 0.0], [1.0, 1.0])),
        TypeError,
        "convexity_map: `box` must be a `phihat.Box",
    ),
]


@pytest.mark.parametrize(("call", "error", "sentence"), BAD)
def test_wrong_calls(call, error, sentence):
    with pytest.raises(error, match=sentence):
        call()


def test_extreme_eigenvalues_print_without_their_vectors():
    found = curvature.extreme_eigenvalues(lambda p: p @ p, jnp.ones(3))
    assert repr(found).startswith("ExtremeEigenvalues(smallest=2 +- ")
    assert "vector" not in repr(found)
