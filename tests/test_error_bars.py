"""Error bars against closed forms, SciPy, lmfit, and repeated experiments."""

import functools
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.stats

import phihat
from phihat import confidence_intervals, losses
from phihat.error_bars import ConfidenceIntervals
from phihat.error_bars.doubts import SENTENCES, entry_names, explain

EPS = float(np.finfo(float).eps)
CHI = scipy.stats.chi2.ppf(0.95, 1)


def line(params, x):
    return params["bias"] + params["weight"] * x


def decay(params, x):
    return params[0] * jnp.exp(-params[1] * x) + params[2]


def events(log_rate, count):
    """Poisson's negative log-likelihood."""
    return jnp.exp(log_rate) - count * log_rate


LINE = losses.least_squares(line)
DECAY = losses.least_squares(decay)


def line_data(size=8, noise=0.3):
    rng = np.random.default_rng(3)
    x = np.linspace(-1.0, 2.0, size)
    return x, 0.5 + 2.0 * x + noise * rng.normal(size=size)


def fit_line(x, y, weights=None):
    weights = np.ones_like(x) if weights is None else weights
    root = np.sqrt(weights)
    design = np.stack([np.ones_like(x), x], axis=1)
    params = np.linalg.lstsq(design * root[:, None], y * root)[0]
    return {"bias": jnp.asarray(params[0]), "weight": jnp.asarray(params[1])}


@functools.cache
def decay_fit():
    rng = np.random.default_rng(0)
    x = np.linspace(0.0, 3.0, 20)
    data = (x, 2.0 * np.exp(-1.2 * x) + 0.5 + 0.1 * rng.normal(size=20))
    result = phihat.fit(
        DECAY,
        jnp.array([1.0, 1.0, 0.0]),
        phihat.levenberg_marquardt(),
        data,
        num_steps=50,
        tolerance=1e-12,
    )
    return data, result


@functools.cache
def decay_profile(level=0.95, **options):
    data, result = decay_fit()
    return confidence_intervals(
        DECAY, result, data, level=level, method="profile", **options
    )


# ------------------------------------------------------------------------ closed forms


@pytest.mark.parametrize("method", ["wald", "profile"])
@pytest.mark.parametrize("level", [0.5, 0.95, 0.999])
def test_a_line_has_the_intervals_of_the_textbook(method, level):
    x, y = line_data()
    params = fit_line(x, y)
    found = confidence_intervals(LINE, params, (x, y), level=level, method=method)
    expected = scipy.stats.linregress(x, y)
    errors = found.standard_errors
    np.testing.assert_allclose(errors["weight"], expected.stderr, rtol=256 * EPS)
    np.testing.assert_allclose(
        errors["bias"], expected.intercept_stderr, rtol=256 * EPS
    )
    quantile = scipy.stats.t.ppf((1 + level) / 2, 6)
    for name in ("bias", "weight"):
        for end, sign in ((found.low, -1), (found.high, 1)):
            # The profile's root is found to the root of eps.
            np.testing.assert_allclose(
                end[name],
                params[name] + sign * quantile * errors[name],
                rtol=8 * EPS**0.5 if method == "profile" else 256 * EPS,
            )
    assert found.degrees_of_freedom == 6
    assert found.doubts == {}


@pytest.mark.parametrize("absolute_sigma", [False, True])
def test_weights_are_inverse_variances(absolute_sigma):
    x, y = line_data(noise=0.1)
    sigma = np.linspace(0.05, 0.2, 8)
    expected, covariance = scipy.optimize.curve_fit(
        lambda x, a, b: a + b * x,
        x,
        y,
        sigma=sigma,
        absolute_sigma=absolute_sigma,
        jac=lambda x, a, b: np.stack([np.ones_like(x), x], 1),
    )
    loss_fn = losses.least_squares(line, weights=1 / sigma**2)
    params = {"bias": jnp.asarray(expected[0]), "weight": jnp.asarray(expected[1])}
    found = confidence_intervals(
        loss_fn, params, (x, y), absolute_sigma=absolute_sigma, level=0.9
    )
    np.testing.assert_allclose(found.covariance, covariance, rtol=1e-9)
    law = scipy.stats.norm if absolute_sigma else scipy.stats.t(6)
    reach = law.ppf(0.95) * np.sqrt(np.diagonal(covariance))
    np.testing.assert_allclose(
        [found.high["bias"], found.high["weight"]], expected + reach, rtol=1e-9
    )
    mean = losses.least_squares(line, weights=1 / sigma**2, reduction="mean")
    if not absolute_sigma:
        same = confidence_intervals(mean, params, (x, y), level=0.9)
        np.testing.assert_allclose(same.covariance, found.covariance, rtol=1e-9)


def test_the_profile_of_a_count_is_where_the_likelihood_ratio_says():
    found = confidence_intervals(
        events, jnp.log(25.0), jnp.asarray(25.0), method="profile"
    )
    ratio = lambda rate: 2 * (rate - 25 - 25 * np.log(rate / 25)) - CHI
    expected = [scipy.optimize.brentq(ratio, *ends) for ends in ((5, 25), (25, 80))]
    np.testing.assert_allclose(
        [jnp.exp(found.low), jnp.exp(found.high)], expected, rtol=8 * EPS**0.5
    )
    np.testing.assert_allclose(found.standard_errors, 0.2, rtol=64 * EPS)
    assert found.degrees_of_freedom is None


def test_a_profile_follows_its_param_through_any_change_of_scale():
    rate = lambda rate, count: rate - count * jnp.log(rate)
    count = jnp.asarray(7.0)
    plain = confidence_intervals(rate, count, count, method="profile")
    logs = confidence_intervals(events, jnp.log(count), count, method="profile")
    for end in ("low", "high"):
        np.testing.assert_allclose(
            jnp.exp(getattr(logs, end)), getattr(plain, end), rtol=8 * EPS**0.5
        )
    assert abs(np.exp(2 * logs.evidence.wald[1, 0]) - 1) > 0.5  # unlike the covariance


# ------------------------------------------------------------------------------- peers


def test_standard_errors_are_those_of_curve_fit():
    (x, y), result = decay_fit()
    _, covariance = scipy.optimize.curve_fit(
        lambda x, *params: np.asarray(decay(params, x)), x, y, p0=result.params
    )
    found = confidence_intervals(DECAY, result, (x, y))
    # Its Jacobian is one of finite differences.
    np.testing.assert_allclose(
        found.standard_errors, np.sqrt(np.diagonal(covariance)), rtol=1e-5
    )


@pytest.mark.parametrize("low", [-jnp.inf, 0.5, 1.2, 3.0])
def test_a_profile_stays_within_the_bounds_of_the_fit(low):
    """A straight line whose bend is bounded: its profile is a parabola on each side."""
    x = jnp.linspace(-1.0, 1.0, 9)
    y = 2.0 + 0.5 * x + x**2 + 0.1 * jnp.cos(17.0 * x)
    design = jnp.stack([jnp.ones_like(x), x, x**2], axis=1)
    loss_fn = losses.least_squares(lambda params, x: design @ params)
    free = jnp.linalg.lstsq(design, y)[0]
    bend = jnp.maximum(free[2], low)

    def best(level):
        """Return the others' best and the loss, the first at its level or free."""
        held = design[:, 2] * bend
        if level is None:
            two = jnp.linalg.lstsq(design[:, :2], y - held)[0]
            params = jnp.asarray([two[0], two[1], bend])
        else:
            rest = jnp.linalg.lstsq(design[:, 1:], y - level)[0]
            if rest[1] < low:
                slope = design[:, 1] @ (y - level - design[:, 2] * low)
                rest = jnp.asarray([slope / (design[:, 1] @ design[:, 1]), low])
            params = jnp.asarray([level, *rest])
        return params, float(jnp.sum((design @ params - y) ** 2))

    start, least = best(None)
    bounds = phihat.Box(jnp.asarray([-jnp.inf, -jnp.inf, low]), jnp.inf)
    found = confidence_intervals(
        loss_fn, start, (x, y), method="profile", distribution="normal", box=bounds
    )
    assert found.low[2] >= low
    unit = least / (9 - 3)
    for end in (found.low[0], found.high[0]):
        rise = (best(float(end))[1] - least) / unit
        np.testing.assert_allclose(rise, 1.959963984540054**2, rtol=1e-6)


@pytest.mark.parametrize("level", [0.6827, 0.95])
def test_profiles_are_those_of_lmfit(level):
    lmfit = pytest.importorskip("lmfit", reason="lmfit is in the extra `peers`")
    (x, y), result = decay_fit()
    params = lmfit.Parameters()
    for name, value in zip("abc", result.params.tolist(), strict=True):
        params.add(name, value)
    minimizer = lmfit.Minimizer(
        lambda p: np.asarray(decay([p["a"].value, p["b"].value, p["c"].value], x) - y),
        params,
        fcn_kws={},
    )
    theirs = lmfit.conf_interval(minimizer, minimizer.minimize(), sigmas=[level])
    ours = decay_profile(level)
    for k, name in enumerate("abc"):
        (_, low), _, (_, high) = theirs[name]
        np.testing.assert_allclose([ours.low[k], ours.high[k]], [low, high], rtol=1e-4)


# ----------------------------------------------------------------- repeated experiments


@functools.cache
def repeated():
    """Two thousand lines through five points, and their intervals."""
    x = jnp.linspace(0.0, 1.0, 5)
    noise = jax.random.normal(jax.random.key(0), (2000, 5))

    def experiment(noise):
        data = (x, 1.0 + 3.0 * x + 0.2 * noise)
        start = {"bias": jnp.zeros(()), "weight": jnp.zeros(())}
        optimizer = phihat.newton(initial_radius=1e6)
        result = phihat.fit(LINE, start, optimizer, data, num_steps=2, record=())
        student = confidence_intervals(LINE, result, data, level=0.9)
        known = losses.least_squares(line, weights=jnp.full(5, 25.0))
        normal = confidence_intervals(
            known, result, data, level=0.9, absolute_sigma=True
        )
        return student, normal

    return jax.jit(jax.vmap(experiment))(noise)


@pytest.mark.parametrize("name", ["bias", "weight"])
def test_intervals_hold_the_true_param_as_often_as_they_say(name):
    truth = {"bias": 1.0, "weight": 3.0}[name]
    student, normal = repeated()
    spread = 4 * np.sqrt(0.9 * 0.1 / 2000)
    for found in (student, normal):
        holds = (found.low[name] <= truth) & (truth <= found.high[name])
        assert abs(np.mean(np.asarray(holds)) - 0.9) < spread
    # With three degrees of freedom the normal quantile is far too small.
    off = np.abs(student.params[name] - truth) / student.standard_errors[name]
    assert np.mean(np.asarray(off) <= scipy.stats.norm.ppf(0.95)) < 0.9 - 2 * spread


def test_a_profile_of_a_curve_covers_too():
    x = jnp.linspace(0.0, 2.0, 8)
    model = losses.least_squares(lambda p, x: jnp.exp(-p * x))
    noise = jax.random.normal(jax.random.key(1), (500, 8))

    def experiment(noise):
        data = (x, jnp.exp(-0.7 * x) + 0.15 * noise)
        result = phihat.fit(
            model, 0.5, phihat.newton(), data, num_steps=30, tolerance=1e-8, record=()
        )
        return confidence_intervals(model, result, data, level=0.8, method="profile")

    found = jax.jit(jax.vmap(experiment))(noise)
    share = np.mean(np.asarray((found.low <= 0.7) & (found.high >= 0.7)))
    assert abs(share - 0.8) < 4 * np.sqrt(0.8 * 0.2 / 500)
    assert "lanes [500]" in repr(found)
    one = jax.tree.map(lambda leaf: leaf[7], found)
    data = (x, jnp.exp(-0.7 * x) + 0.15 * noise[7])
    alone = confidence_intervals(model, one.params, data, level=0.8, method="profile")
    np.testing.assert_allclose(one.high, alone.high, rtol=1e-6)


# ------------------------------------------------------------------------- any program


def test_any_tree_keeps_its_shapes_and_names():
    params = {
        "a": jnp.asarray([[1.0, 2.0]], jnp.float32),
        "b": (jnp.asarray(0.5, jnp.bfloat16), jnp.ones((0, 2))),
    }
    loss_fn = lambda p: (
        jnp.sum((p["a"].astype(float) - 1.0) ** 2)
        + (p["b"][0].astype(float) - 0.5) ** 2
    )
    params["a"] = jnp.ones_like(params["a"])
    found = confidence_intervals(loss_fn, params)
    shapes = lambda tree: jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)
    wide = {
        "a": ((1, 2), jnp.float32),
        "b": (((), jnp.float32), ((0, 2), jnp.float64)),
    }
    assert shapes(found.low) == shapes(found.standard_errors) == wide
    np.testing.assert_allclose(found.standard_errors["a"], 0.5**0.5, rtol=1e-6)
    text = repr(found)
    for name in ("['a'][0, 0]", "['a'][0, 1]", "['b'][0]"):
        assert f"\n  {name} " in text
    many = confidence_intervals(lambda p: jnp.sum(p**2), jnp.zeros(30))
    assert "... 10 more" in repr(many)


def test_one_program_serves_every_level_and_number():
    traced = mock.Mock()  # a list that grows would be another closure

    def model(params, x):
        traced()
        return params * x

    ends = [0]

    x = jnp.arange(1.0, 6.0)
    for level, weight in ((0.9, 1.0), (0.99, 2.0), (0.5, 3.0)):
        loss_fn = losses.with_l2(losses.least_squares(model), weight)
        confidence_intervals(loss_fn, jnp.asarray(1.0), (x, x + 0.1), level=level)
        ends.append(traced.call_count)
    # Shapes are looked at anew; nothing is compiled.
    assert ends[3] - ends[2] == ends[2] - ends[1] < ends[1]


def test_under_jit_and_grad():
    x, y = line_data()
    params = fit_line(x, y)

    def high(y):
        return confidence_intervals(LINE, params, (x, y)).high["weight"]

    np.testing.assert_allclose(jax.jit(high)(y), high(y), rtol=64 * EPS)
    slope = jax.grad(high)(jnp.asarray(y))
    step = 1e-5 * np.eye(8)[2]
    np.testing.assert_allclose(
        slope[2], (high(y + step) - high(y - step)) / 2e-5, rtol=1e-6
    )
    traced = []
    jax.eval_shape(
        lambda y: traced.append(confidence_intervals(LINE, params, (x, y))), y
    )
    assert "being traced" in repr(traced[0])


def test_float32_gives_the_same_to_its_precision():
    data, result = decay_fit()
    wide = confidence_intervals(DECAY, result, data)
    count = confidence_intervals(events, np.log(9.0), 9.0, method="profile")
    with jax.enable_x64(False):
        narrow = lambda tree: jax.tree.map(np.float32, tree)
        found = confidence_intervals(DECAY, narrow(result.params), narrow(data))
        counted = confidence_intervals(events, np.log(9.0), 9.0, method="profile")
    assert found.covariance.dtype == counted.covariance.dtype == jnp.float32
    for end in ("low", "high"):
        np.testing.assert_allclose(getattr(found, end), getattr(wide, end), atol=1e-5)
        np.testing.assert_allclose(
            getattr(counted, end), getattr(count, end), atol=1e-3
        )
    assert set(found.doubts) == set(wide.doubts)


# --------------------------------------------------------------------------- doubts


def proportional(slope, x):
    return slope * x


def ask(model, params, data, **options):
    weights = options.pop("weights", None)
    loss_fn = losses.least_squares(model, weights=weights)
    return confidence_intervals(loss_fn, params, data, **options)


X, Y = line_data(12)
SLOPES = losses.least_squares(proportional)
LEVEL_AHEAD = lambda p: jnp.where(p > 0, 1 - jnp.exp(-(p**2)), p**2)
TWO_VALLEYS = lambda p: 20 * ((p**2 - 1) ** 2 + 0.3 * p)


def a_failed_fit():
    data = (jnp.ones(3), jnp.asarray([1.0, jnp.nan, 2.0]))
    result = phihat.fit(SLOPES, 1.0, phihat.adam(0.1), data, num_steps=3)
    return confidence_intervals(SLOPES, result, data)


def a_penalized_fit():
    loss_fn = losses.with_l2(SLOPES, 0.5)
    slope = jnp.asarray(X @ Y / (X @ X + 0.5))
    return confidence_intervals(loss_fn, slope, (X, Y))


CASES = {
    "a failed fit": (a_failed_fit, {"status", "not finite"}),
    "no spare residual": (
        lambda: ask(line, fit_line(X[:2], Y[:2]), (X[:2], Y[:2])),
        {"data"},
    ),
    "fewer points than params": (
        lambda: ask(line, fit_line(X[:2], Y[:2]), (X[:1], Y[:1])),
        {"data"},
    ),
    "twins": (
        lambda: ask(lambda p, x: (p[0] + p[1]) * x, jnp.ones(2), (X, Y)),
        {"singular"},
    ),
    "a saddle": (
        lambda: confidence_intervals(lambda p: p[0] ** 2 - p[1] ** 2, jnp.zeros(2)),
        {"curvature"},
    ),
    "level": (lambda: confidence_intervals(lambda p: 0.0 * p, 1.0), {"singular"}),
    "a penalty": (a_penalized_fit, {"penalty"}),
    "weights of zero": (
        lambda: ask(
            proportional,
            jnp.asarray(X[2:] @ Y[2:] / (X[2:] @ X[2:])),
            (X, Y),
            weights=np.r_[np.zeros(2), np.ones(10)],
        ),
        {"weights"},
    ),
    "no noise": (lambda: ask(proportional, jnp.asarray(3.0), (X, 3 * X)), {"exact"}),
    "too long a number": (
        lambda: confidence_intervals(
            lambda p: (p[0] - p[1]) ** 2 + 1e-13 * jnp.sum(p**2), jnp.zeros(2)
        ),
        {"condition", "correlation"},
    ),
    "not yet there": (
        lambda: ask(line, jax.tree.map(lambda p: p + 0.01, fit_line(X, Y)), (X, Y)),
        {"gradient"},
    ),
    "far from zero": (
        lambda: ask(line, fit_line(X + 2000, Y), (X + 2000, Y)),
        {"correlation"},
    ),
    "at a bound": (
        lambda: confidence_intervals(
            lambda p: 50 * (p[0] ** 2 + (p[1] - 1) ** 2),
            jnp.asarray([0.0, 1.0]),
            box=phihat.Box([0.0, 0.9], [1.0, 1.1]),
        ),
        {"bounds", "beyond"},
    ),
    "three points": (
        lambda: ask(line, fit_line(X[:3], Y[:3]), (X[:3], Y[:3])),
        {"freedom"},
    ),
    "sigmas too small": (
        lambda: ask(
            line, fit_line(X, Y), (X, Y), weights=np.full(12, 1e4), absolute_sigma=True
        ),
        {"chi square high"},
    ),
    "sigmas too large": (
        lambda: ask(
            line, fit_line(X, Y), (X, Y), weights=np.full(12, 1e-2), absolute_sigma=True
        ),
        {"chi square low"},
    ),
    "few events": (
        lambda: confidence_intervals(events, jnp.log(3.0), jnp.asarray(3.0)),
        {"parabola"},
    ),
    "few events, profiled": (
        lambda: confidence_intervals(
            events, jnp.log(3.0), jnp.asarray(3.0), method="profile"
        ),
        {"profile"},
    ),
    "open above": (
        lambda: confidence_intervals(LEVEL_AHEAD, 0.0, method="profile"),
        {"open"},
    ),
    "another valley": (
        lambda: confidence_intervals(
            TWO_VALLEYS,
            scipy.optimize.brentq(lambda p: 4 * p**3 - 4 * p + 0.3, 0.8, 1.1),
            method="profile",
            level=1 - 1e-15,
        ),
        {"lower", "profile"},
    ),
}


@functools.cache
def doubts(case):
    return CASES[case][0]()


@pytest.mark.parametrize("case", CASES)
def test_each_cause_is_told_and_no_other(case):
    found = doubts(case)
    assert set(found.doubts) == CASES[case][1]
    text = repr(found)
    for sentence in found.doubts.values():
        assert f"\n  doubt: {sentence}" in text


def test_every_reason_has_a_case():
    assert set().union(*(reasons for _, reasons in CASES.values())) == set(SENTENCES)


def test_what_is_not_determined_is_infinite_and_what_is_not_finite_is_nan():
    for case in ("no spare residual", "fewer points than params", "twins", "level"):
        found = doubts(case)
        assert np.isposinf(jax.tree.leaves(found.high)).all()
        assert np.isneginf(jax.tree.leaves(found.low)).all()
    failed = doubts("a failed fit")
    assert np.isnan([failed.low, failed.high, failed.standard_errors]).all()
    exact = doubts("no noise")
    assert exact.low == exact.params == exact.high
    opened = doubts("open above")
    assert opened.high == np.inf
    assert -3 < opened.low < 0


def test_doubts_say_which_params_and_how_far():
    told = doubts("twins").doubts["singular"]
    assert told == (
        "the data do not determine [0] and [1]: the loss does not change along them, "
        "alone or together"
    )
    told = doubts("at a bound").doubts
    assert told["bounds"].startswith("[0] ended at a bound")
    assert told["beyond"] == "part of the interval of [1] lies beyond the bounds"
    told = doubts("fewer points than params").doubts["data"]
    assert told.startswith("1 residuals cannot give errors of 2 params")
    assert "NONFINITE_LOSS" in doubts("a failed fit").doubts["status"]
    many = confidence_intervals(lambda p: 0.0 * jnp.sum(p), jnp.zeros(9))
    assert "do not determine [0], [1]" in many.doubts["singular"]
    sentence = explain(
        "singular", list(range(9)), many.evidence, entry_names(many.params)
    )
    assert "[4] and 4 more" in sentence


def test_the_correlation_is_the_scaled_covariance():
    found = decay_profile()
    assert isinstance(found, ConfidenceIntervals)
    spread = np.sqrt(np.diagonal(found.covariance))
    np.testing.assert_allclose(
        found.correlation * np.outer(spread, spread), found.covariance, rtol=8 * EPS
    )


# --------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("error", "call", "sentence"),
    [
        (
            ValueError,
            lambda: ask(line, fit_line(X, Y), (X, Y), level=1.0),
            "confidence_intervals: `level` must lie in (0, 1), got 1.0.",
        ),
        (
            ValueError,
            lambda: ask(line, fit_line(X, Y), (X, Y), level=95),
            "confidence_intervals: `level` must lie in (0, 1), got 95.",
        ),
        (
            TypeError,
            lambda: ask(line, fit_line(X, Y), (X, Y), level="95%"),
            "confidence_intervals: `level` must be a number, got '95%'.",
        ),
        (
            ValueError,
            lambda: ask(line, fit_line(X, Y), (X, Y), method="profiles"),
            "confidence_intervals: `method` must be one of ['profile', 'wald'], got "
            "'profiles'; did you mean 'profile'?",
        ),
        (
            ValueError,
            lambda: ask(line, fit_line(X, Y), (X, Y), distribution="z"),
            "confidence_intervals: `distribution` must be one of ['normal', 't'], got "
            "'z'.",
        ),
        (
            ValueError,
            lambda: confidence_intervals(lambda p: p**2, 0.0, distribution="t"),
            "confidence_intervals: `distribution` 't' needs the residuals of "
            "`losses.least_squares`; use 'normal' for a likelihood.",
        ),
        (
            ValueError,
            lambda: confidence_intervals(lambda p: p**2, 0.0, absolute_sigma=True),
            "confidence_intervals: `absolute_sigma` is for sums of squares; a negative "
            "log-likelihood has its sigmas inside.",
        ),
        (
            ValueError,
            lambda: confidence_intervals(
                losses.binary_cross_entropy(proportional, reduction="mean"),
                0.0,
                (X, np.sign(Y)),
            ),
            "confidence_intervals: `loss_fn` is the mean over the rows, which does not "
            'tell how many there are; build it with reduction="sum".',
        ),
        (
            TypeError,
            lambda: confidence_intervals(LINE, {"bias": 1, "weight": 2.0}, (X, Y)),
            "confidence_intervals: `result` must have floating-point leaves, got 1 at "
            "['bias']; convert it, for example with `jnp.asarray(leaf, float)`.",
        ),
        (
            ValueError,
            lambda: confidence_intervals(lambda p: 0.0, {}),
            "confidence_intervals: `result` has no params.",
        ),
        (
            ValueError,
            lambda: confidence_intervals(lambda p: jnp.sum(p), jnp.zeros(100_000)),
            "confidence_intervals: a covariance of 100000 params takes more than "
            "1,073,741,824 bytes; ask for fewer params, binding the others to the "
            "loss.",
        ),
        (
            ValueError,
            lambda: confidence_intervals(lambda p: p, jnp.zeros(2)),
            "confidence_intervals: `loss_fn` must return a scalar float, got float64 "
            "of shape (2,); sum or average it.",
        ),
        (
            TypeError,
            lambda: ask(line, fit_line(X, Y), (X, Y), box=(0.0, 1.0)),
            "confidence_intervals: `box` must be a Box, got (0.0, 1.0).",
        ),
        (
            ValueError,
            lambda: confidence_intervals(
                SLOPES,
                jax.vmap(
                    lambda start: phihat.fit(
                        SLOPES, start, phihat.newton(), (X, Y), num_steps=1
                    )
                )(jnp.ones(3)),
                (X, Y),
            ),
            "confidence_intervals: `result` holds lanes of shape [3]; map over them: "
            "`jax.vmap(lambda lane: confidence_intervals(loss_fn, lane, data))"
            "(result)`.",
        ),
        (
            ValueError,
            lambda: repeated()[0].doubts,
            "confidence_intervals: `doubts` are those of one fit, but these are lanes "
            "of shape [2000]; take one, by `jax.tree.map(lambda leaf: leaf[0], "
            "intervals)`.",
        ),
    ],
)
def test_wrong_calls_get_one_sentence(error, call, sentence):
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value) == sentence
