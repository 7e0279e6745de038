"""One curve: against SciPy, lmfit and iminuit, and what the report says."""

import decimal
import fractions
import json
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pandas
import pytest
import scipy.optimize
import xarray

from phihat import Box, fit_curve
from phihat._core import programs as _programs
from phihat.curves import CurveFit, statistics
from phihat.curves.report import with_error

RNG = np.random.default_rng(7)
T = np.linspace(0.0, 10.0, 40)
Y = 5.0 * np.exp(-T / 2.0) + 1.0 + 0.1 * RNG.normal(size=40)
SIGMA = 0.05 + 0.1 * RNG.uniform(size=40)
OUTLIERS = Y + np.where(np.arange(40) % 9 == 4, 3.0, 0.0)
START = {"tau": 1.0, "height": 3.0, "base": 0.0}
BEST = [1.0, 3.0, 0.0]


def decay(params, t):
    return params["height"] * jnp.exp(-t / params["tau"]) + params["base"]


def plain_decay(t, tau, height, base):
    """The same as SciPy and lmfit want it."""
    return height * np.exp(-t / tau) + base


def scipy_fit(y=Y, **options):
    options = {"p0": BEST, "xtol": 1e-15, "ftol": 1e-15, "gtol": 1e-15} | options
    if options.get("method", "lm") == "lm":
        options["maxfev"] = 10_000
    return scipy.optimize.curve_fit(plain_decay, T, y, **options)


def test_params_errors_and_order_are_those_of_scipy():
    fit = fit_curve(decay, T, Y, START)
    params, covariance = scipy_fit()
    assert list(fit.params) == list(fit.errors) == ["tau", "height", "base"]
    assert fit.names == ("tau", "height", "base")
    assert fit.success
    np.testing.assert_allclose(fit.values, params, rtol=1e-6)
    np.testing.assert_allclose(fit.covariance, covariance, rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(
        list(fit.errors.values()), np.sqrt(np.diagonal(covariance)), rtol=1e-6
    )
    np.testing.assert_allclose(fit.residuals, Y - plain_decay(T, *fit.values))
    assert all(type(value) is float for value in fit.params.values())


SIGMAS = {
    "one": (0.1, np.full(40, 0.1)),
    "rows": (SIGMA, SIGMA),
    "matrix": (
        np.diag(SIGMA**2) + 0.002 * np.exp(-np.abs(T[:, None] - T[None])),
        None,
    ),
}


@pytest.mark.parametrize("kind", SIGMAS)
@pytest.mark.parametrize("absolute", [True, False])
def test_sigma_is_that_of_scipy(kind, absolute):
    ours, theirs = SIGMAS[kind]
    theirs = ours if theirs is None else theirs
    fit = fit_curve(decay, T, Y, START, sigma=ours, absolute_sigma=absolute)
    params, covariance = scipy_fit(sigma=theirs, absolute_sigma=absolute)
    np.testing.assert_allclose(fit.values, params, rtol=2e-6)
    np.testing.assert_allclose(
        np.sqrt(np.diagonal(fit.covariance)),
        np.sqrt(np.diagonal(covariance)),
        rtol=2e-6,
    )


@pytest.mark.parametrize("loss", ["soft_l1", "huber", "cauchy", "arctan"])
def test_robust_losses_are_those_of_scipy(loss):
    start = {"tau": 2.0, "height": 5.0, "base": 1.0}
    fit = fit_curve(decay, T, OUTLIERS, start, loss=loss, f_scale=0.3)
    params, covariance = scipy_fit(
        OUTLIERS,
        p0=list(start.values()),
        method="trf",
        loss=loss,
        f_scale=0.3,
        x_scale="jac",
        jac=lambda t, tau, height, base: np.stack(
            [
                height * t / tau**2 * np.exp(-t / tau),
                np.exp(-t / tau),
                np.ones_like(t),
            ],
            axis=1,
        ),
    )
    np.testing.assert_allclose(fit.values, params, rtol=1e-6)
    np.testing.assert_allclose(
        list(fit.errors.values()), np.sqrt(np.diagonal(covariance)), rtol=1e-6
    )


def test_quality_and_bands_are_those_of_lmfit():
    lmfit = pytest.importorskip("lmfit")
    model = lmfit.Model(plain_decay)
    theirs = model.fit(
        Y, t=T, tau=1.0, height=3.0, base=0.0, fit_kws={"xtol": 1e-14, "ftol": 1e-14}
    )
    fit = fit_curve(decay, T, Y, START)
    for ours, name in (
        (fit.chi_square, "chisqr"),
        (fit.reduced_chi_square, "redchi"),
        (fit.aic, "aic"),
        (fit.bic, "bic"),
        (fit.r_squared, "rsquared"),
    ):
        np.testing.assert_allclose(ours, getattr(theirs, name), rtol=1e-6)
    np.testing.assert_allclose(fit.covariance, theirs.covar, rtol=1e-3, atol=1e-7)
    np.testing.assert_allclose(
        list(fit.errors.values()), [p.stderr for p in theirs.params.values()], rtol=1e-4
    )
    # lmfit's derivatives are differences: its bands are good for five digits.
    reach = theirs.eval_uncertainty(sigma=0.95)
    bands = fit.predict(level=0.95)
    np.testing.assert_allclose(bands.high - bands.value, reach, rtol=1e-4)
    np.testing.assert_allclose(bands.value - bands.low, reach, rtol=1e-4)
    wide = bands.prediction_high - bands.value
    np.testing.assert_allclose(wide, theirs.dely_predicted, rtol=1e-4)


def test_known_errors_are_those_of_iminuit():
    iminuit = pytest.importorskip("iminuit")
    cost = pytest.importorskip("iminuit.cost").LeastSquares(T, Y, SIGMA, plain_decay)
    minuit = iminuit.Minuit(cost, tau=1.0, height=3.0, base=0.0)
    minuit.strategy, minuit.tol = 2, 1e-8
    minuit.migrad().hesse()
    fit = fit_curve(decay, T, Y, START, sigma=SIGMA, absolute_sigma=True)
    np.testing.assert_allclose(fit.values, list(minuit.values), rtol=1e-6)
    np.testing.assert_allclose(
        list(fit.errors.values()), list(minuit.errors), rtol=0.02
    )  # Hesse has the Hessian, SciPy and we the Gauss-Newton matrix
    np.testing.assert_allclose(fit.chi_square, minuit.fval, rtol=1e-8)
    minuit.minos(cl=0.6826894921370859)
    wanted = {
        name: (minuit.values[name] + m.lower, minuit.values[name] + m.upper)
        for name, m in minuit.merrors.items()
    }
    found = fit.intervals(0.6826894921370859)
    for name, ends in wanted.items():
        np.testing.assert_allclose(found[name], ends, rtol=1e-6)


def test_fixed_params_leave_the_problem():
    start = START | {"base": 1.05}
    fits = [
        fit_curve(decay, T, Y, start, fixed=["base"]),
        fit_curve(decay, T, Y, start, fixed={"base": True, "tau": False}),
        fit_curve(decay, T, Y, start, bounds={"base": (1.05, 1.05)}),
    ]
    params, covariance = scipy.optimize.curve_fit(
        lambda t, tau, height: plain_decay(t, tau, height, 1.05), T, Y, BEST[:2]
    )
    for fit in fits:
        np.testing.assert_allclose(fit.values, [*params, 1.05], rtol=1e-5)
        assert fit.degrees_of_freedom == 38
        np.testing.assert_allclose(fit.covariance[:2, :2], covariance, rtol=1e-4)
        assert fit.errors["base"] == 0.0
        assert "fixed" in repr(fit)
        assert "base" not in fit.intervals(method="wald")


@pytest.mark.parametrize(
    "bounds",
    [
        {"base": (1.2, None)},
        Box(
            {"tau": -np.inf, "height": 0.0, "base": 1.2},
            {"tau": np.inf, "height": np.inf, "base": np.inf},
        ),
    ],
)
def test_a_bound_that_is_reached(bounds):
    fit = fit_curve(decay, T, Y, START | {"base": 2.0}, bounds=bounds)
    params, _ = scipy.optimize.curve_fit(
        lambda t, tau, height: plain_decay(t, tau, height, 1.2), T, Y, BEST[:2]
    )
    assert fit.params["base"] == 1.2
    np.testing.assert_allclose(fit.values[:2], params, rtol=1e-5)
    assert fit.success
    assert fit.bounds_reached == ("", "", "lower")
    assert "at its lower bound" in repr(fit)
    assert "gradient" not in fit.doubts
    assert "bounds" in fit.doubts


def test_bounds_that_are_not_reached_change_nothing():
    free = fit_curve(decay, T, Y, START)
    bounds = ([0.1, 0.0, -5.0], [50.0, 100.0, 5.0])

    def model(params, t):
        tau, height, base = params
        return decay({"tau": tau, "height": height, "base": base}, t)

    found = fit_curve(model, T, Y, BEST, bounds=bounds)
    assert found.names == ("p[0]", "p[1]", "p[2]")
    np.testing.assert_allclose(found.values, free.values, rtol=1e-6)


@pytest.mark.parametrize(
    "make",
    [
        list,
        tuple,
        pandas.Series,
        jnp.asarray,
        lambda y: xarray.DataArray(y, dims="t"),
        lambda y: y.astype(np.float32),
    ],
)
def test_all_that_people_hold_numbers_in(make, user_flags):
    fit = fit_curve(decay, make(T), make(Y), START)
    np.testing.assert_allclose(fit.values, scipy_fit()[0], rtol=1e-5)
    assert not jax.config.jax_enable_x64
    assert fit.covariance.dtype == np.float64


def test_integers_do_not_wrap(user_flags):
    x = np.arange(1, 201)
    y = 2e-9 * x.astype(float) ** 5 + 1e-3 * x
    fit = fit_curve(
        lambda p, x: p["a"] * x**5 + p["b"] * x, x, y, {"a": 1e-9, "b": 1e-3}
    )
    np.testing.assert_allclose(fit.values, [2e-9, 1e-3], rtol=1e-8)


def test_unix_time_is_not_rounded(user_flags):
    x = 1.7e9 + np.linspace(0.0, 300.0, 61)
    y = 20.0 + 5.0 * np.exp(-(x - 1.7e9) / 60.0)
    fit = fit_curve(
        lambda p, x: p["c"] + p["a"] * jnp.exp(-(x - 1.7e9) / p["tau"]),
        x,
        y,
        {"a": 3.0, "tau": 40.0, "c": 18.0},
    )
    np.testing.assert_allclose(fit.values, [5.0, 60.0, 20.0], rtol=1e-8)


def test_a_table_gives_its_columns():
    table = pandas.DataFrame({"t": T, "gain": np.where(T > 5, 2.0, 1.0)})
    y = Y * table["gain"]
    fit = fit_curve(lambda p, x: x["gain"] * decay(p, x["t"]), table, y, START)
    assert fit.params["tau"] == pytest.approx(2.0, rel=0.1)


def test_python_numbers_of_any_kind():
    x = [fractions.Fraction(k, 2) for k in range(4)]
    y = [decimal.Decimal(1), None, 3, np.float32(4)]
    line = lambda p, x: p["slope"] * x + 1
    found = fit_curve(line, x, y, {"slope": 1}, nan_policy="omit")
    assert found.num_points == 3
    np.testing.assert_allclose(found.values, [2.0], rtol=1e-14)
    with pytest.raises(ValueError, match=r"1 value is not finite in `y`.* row 1"):
        fit_curve(line, x, y, {"slope": 1})


def test_a_curve_without_scatter_has_no_r_squared():
    line = lambda p, x: p["slope"] * x + p["offset"]
    found = fit_curve(line, T, np.full(T.size, 0.1), {"slope": 1, "offset": 0})
    assert np.isnan(found.r_squared)


@pytest.mark.parametrize("where", ["x", "y"])
def test_what_is_missing_is_left_out(where):
    keep = np.arange(40) != 3
    x, y = T.copy(), Y.copy()
    (x if where == "x" else y)[3] = np.nan
    fit = fit_curve(decay, x, y, START, sigma=SIGMA, nan_policy="omit")
    fewer = fit_curve(decay, T[keep], Y[keep], START, sigma=SIGMA[keep])
    np.testing.assert_allclose(fit.values, fewer.values, rtol=1e-9)
    np.testing.assert_allclose(fit.covariance, fewer.covariance, rtol=1e-9)
    assert (fit.num_points, fit.aic) == (39, pytest.approx(fewer.aic))
    assert list(np.flatnonzero(np.isnan(fit.residuals))) == [3]
    assert fit.doubts == fewer.doubts


def test_what_is_missing_with_a_covariance():
    keep = np.arange(40) != 3
    spread = SIGMAS["matrix"][0]
    y = np.where(keep, Y, np.nan)
    fit = fit_curve(decay, T, y, START, sigma=spread, nan_policy="omit")
    inner = spread[np.ix_(keep, keep)]
    fewer = fit_curve(decay, T[keep], Y[keep], START, sigma=inner)
    np.testing.assert_allclose(fit.values, fewer.values, rtol=1e-9)


def test_nan_that_propagates_ends_the_fit():
    fit = fit_curve(decay, T, np.r_[np.nan, Y[1:]], START, nan_policy="propagate")
    assert not fit.success
    assert "not finite" in fit.status
    assert np.isnan(fit.errors["tau"])
    assert "not finite" in repr(fit)


def test_complex_data_by_their_parts():
    w = np.logspace(0.0, 3.0, 20)
    noise = 0.1 * (RNG.normal(size=20) + 1j * RNG.normal(size=20))
    y = 20.0 + 100.0 / (1.0 + 0.01j * w) + noise

    def impedance(p, w):
        real = p["s"] / (1.0 + (w * p["t"]) ** 2)
        return jax.lax.complex(p["r"] + real, -real * w * p["t"])

    start = {"r": 15.0, "s": 90.0, "t": 0.012}
    fit = fit_curve(impedance, w, y, start)
    both = lambda w, r, s, t: np.r_[
        (r + s / (1 + 1j * w * t)).real, (r + s / (1 + 1j * w * t)).imag
    ]
    wanted, covariance = scipy.optimize.curve_fit(
        both, w, np.r_[y.real, y.imag], list(start.values())
    )
    np.testing.assert_allclose(fit.values, wanted, rtol=1e-5)
    np.testing.assert_allclose(fit.covariance, covariance, rtol=1e-3, atol=1e-10)
    assert fit.num_points == 40
    assert np.iscomplexobj(fit.residuals)
    assert np.iscomplexobj(fit.predict([1.0, 2.0]).low)


def test_several_data_sets_share_params():
    shifted = 2.0 * np.exp(-T[:30] / 2.0) + 0.05 * RNG.normal(size=30)
    models = {"first": decay, "second": lambda p, t: p["gain"] * jnp.exp(-t / p["tau"])}
    fit = fit_curve(
        models,
        {"first": T, "second": T[:30]},
        {"first": Y, "second": shifted},
        START | {"gain": 1.0},
        sigma={"first": np.full(40, 0.1), "second": np.full(30, 0.05)},
    )

    def joint(t, tau, height, base, gain):
        return np.r_[plain_decay(T, tau, height, base), gain * np.exp(-T[:30] / tau)]

    params, covariance = scipy.optimize.curve_fit(
        joint,
        None,
        np.r_[Y, shifted],
        [*BEST, 1.0],
        sigma=np.r_[np.full(40, 0.1), np.full(30, 0.05)],
    )
    np.testing.assert_allclose(fit.values, params, rtol=1e-5)
    np.testing.assert_allclose(fit.covariance, covariance, rtol=1e-4, atol=1e-8)
    assert set(fit.residuals) == {"first", "second"}


def test_the_best_of_several_starts():
    def wave(p, t):
        return p["a"] * jnp.sin(p["w"] * t)

    y = 2.0 * np.sin(3.0 * T) + 0.01 * RNG.normal(size=40)
    poor = fit_curve(wave, T, y, {"a": 1.0, "w": 0.5})
    starts = [{"a": 1.0, "w": w} for w in (0.5, 2.9, 5.0)]
    best = fit_curve(wave, T, y, starts)
    assert best.params["w"] == pytest.approx(3.0, rel=1e-3)
    assert best.chi_square < poor.chi_square


def test_params_of_any_tree():
    y = 3.0 * np.exp(-T) + 2.0 * np.exp(-T / 4.0)

    def two(p, t):
        return p["heights"] @ jnp.exp(-t[None] / p["times"]["both"][:, None])

    start = {"heights": [1.0, 1.0], "times": {"both": np.array([0.5, 6.0])}}
    fit = fit_curve(
        two, T, y, start, bounds={"times": (0, None), "heights[1]": (0, 10)}
    )
    assert fit.names == (
        "heights[0]",
        "heights[1]",
        "times.both[0]",
        "times.both[1]",
    )
    np.testing.assert_allclose(fit.params["heights"], [3.0, 2.0], rtol=1e-6)
    np.testing.assert_allclose(fit.params["times"]["both"], [1.0, 4.0], rtol=1e-6)


def test_zero_residuals_are_said_and_honest_noise_is_not():
    exact = fit_curve(decay, T, plain_decay(T, 2.0, 5.0, 1.0), START)
    assert "exact" in exact.doubts

    def peak(p, x):
        return p["h"] * jnp.exp(-0.5 * ((x - p["m"]) / p["w"]) ** 2)

    x = 1e5 + np.linspace(-5.0, 5.0, 50)
    rng = np.random.default_rng(1)
    y = np.exp(-0.5 * (x - 1e5) ** 2) + 1e-10 * rng.normal(size=50)
    honest = fit_curve(peak, x, y, {"h": 0.8, "m": 1e5 + 0.3, "w": 1.3})
    assert "exact" not in honest.doubts
    # Far from the peak the model underflows: such rows have no weight of zero.
    far = fit_curve(
        peak,
        np.r_[x, x + 2000.0],
        np.r_[y, np.zeros(50)],
        {"h": 0.8, "m": 1e5 + 0.3, "w": 1.3},
    )
    assert "weights" not in far.doubts


def test_two_saddles_in_turn_are_left():
    def model(p, x):
        return p["a"] ** 2 * x + p["b"] ** 2

    found = fit_curve(model, T, 2 * T + 1, {"a": 0.0, "b": 0.0})
    assert found.success
    np.testing.assert_allclose(np.square(found.values), [2.0, 1.0], rtol=1e-8)


def test_float32_that_cannot_tell_x_apart_is_said():
    line = lambda p, x: p["slope"] * (x - 1.7e9)
    with pytest.warns(UserWarning, match="`x` lies between .* leave `dtype` out"):
        fit_curve(line, 1.7e9 + T, T, {"slope": 1.0}, dtype="float32")


# ------------------------------------------------------------------------ the report


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (6562.7895, 0.0008, "6562.7895(8)"),
        (0.00123456, 0.0000124, "0.001235(12)"),
        (12.345, 1.5, "12.3(1.5)"),
        (12345.0, 120.0, "12340(120)"),
        (12345.0, 4321.0, "12000(4000)"),
        (4e-9, 2.1e-11, "4.000(21)e-09"),
        (-0.5, 0.0996, "-0.50(10)"),
        (1.0, 0.0354, "1.000(35)"),
        (1.0, 0.0356, "1.00(4)"),
        (1e12, 2e10, "1.000(20)e+12"),
        (0.0, 0.3, "0.00(30)"),
        (1.0, 0.0, "1"),
        (1.0, np.inf, "1 (not determined)"),
        (np.nan, 1.0, "nan"),
    ],
)
def test_digits_follow_the_error(value, error, text):
    assert with_error(value, error) == text


def test_the_report_says_it_all():
    fit = fit_curve(decay, T, Y, START | {"height": 4.0}, bounds={"tau": (0, None)})
    text = repr(fit)
    for part in (
        "decay: 40 points, 3 fitted params, converged after",
        "tau",
        "height",
        " %",
        "chi-square",
        "37 degrees of freedom",
        "R^2",
        "AIC",
        "BIC",
    ):
        assert part in text
    assert text.index("tau") < text.index("height") < text.index("base")
    html = fit._repr_html_()
    assert "<table>" in html
    assert html.count("<tr>") == 4


def test_strong_correlations_are_listed():
    fit = fit_curve(
        lambda p, t: p["slope"] * t + p["offset"],
        T + 20.0,
        Y,
        {"slope": 1, "offset": 0},
    )
    assert "correlations above 0.9: slope and offset -0.9" in repr(fit)


def test_a_budget_that_ran_out_is_said():
    fit = fit_curve(decay, T, Y, START, num_steps=1)
    assert not fit.success
    assert fit.status.startswith("not converged: the budget of 1 step was used")


def line(params, t):
    return params["slope"] * t + params["level"]


def test_params_that_the_data_do_not_determine_leave_the_others_their_errors():
    def with_twins(params, t):
        return line(params, t) + params["twin"] + 0.0 * params["unused"]

    start = {"slope": 1.0, "level": 0.0}
    known = fit_curve(line, T, Y, start)
    found = fit_curve(with_twins, T, Y, start | {"twin": 0.0, "unused": 1.0})
    errors = statistics.errors_of(found.covariance)
    freedom = np.sqrt(38 / 36)  # two more params than the data determine
    np.testing.assert_allclose(errors[0], freedom * known.errors["slope"], rtol=1e-9)
    assert np.isposinf(errors[1:]).all()
    assert found.doubts["singular"].startswith(
        "the data do not determine level, twin and unused: "
    )
    assert "parabola" not in found.doubts
    # The profile of the one that is determined is that of the smaller problem.
    interval = found.intervals()["slope"]
    np.testing.assert_allclose(
        interval, found.intervals(method="wald")["slope"], rtol=1e-6
    )


def test_a_start_from_which_nothing_moves_and_an_x_far_from_zero_are_told_of():
    far = fit_curve(decay, 1e9 + T, Y, START)
    assert far.doubts["singular"].startswith(
        "tau and height stayed at the start, where the curve does not depend on them: "
    )
    assert "x lies between 1000000000 and 1000000010, a narrow" in far.doubts["offset"]
    assert "`x - x.mean()`" in repr(far)
    straight = fit_curve(line, 1e9 + T, Y, {"slope": 1.0, "level": 0.0})
    assert "offset" in straight.doubts
    assert "offset" not in fit_curve(line, T, Y, {"slope": 1.0, "level": 0.0}).doubts


@pytest.mark.parametrize("level", [0.0, 7.0])
def test_a_constant_y_is_told_of(level):
    fit = fit_curve(decay, T, np.full(40, level), START)
    assert fit.doubts["constant"].startswith("y is constant, so it shows no curve")
    assert not {"gradient", "parabola", "curvature"} & set(fit.doubts)


def test_a_robust_report_tells_its_two_sums_apart():
    options = {"loss": "soft_l1", "sigma": 0.01, "absolute_sigma": True}
    fit = fit_curve(decay, T, OUTLIERS, START, **options)
    assert f"chi-square {fit.chi_square:.6g} with outliers in full, " in repr(fit)
    assert fit.doubts["chi square high"].startswith("the sum of the soft_l1 losses is ")


def test_a_param_that_the_data_do_not_determine():
    fit = fit_curve(lambda p, t: (p["a"] + p["b"]) * t, T, Y, {"a": 1.0, "b": 1.0})
    assert np.isinf(fit.errors["a"])
    assert "not determined" in repr(fit)
    assert "singular" in fit.doubts


def test_it_becomes_a_table():
    table = fit_curve(decay, T, Y, START).to_pandas()
    assert list(table.index) == ["tau", "height", "base"]
    assert list(table.columns) == ["value", "error", "percent", "remark"]


@pytest.mark.parametrize("sigma", [None, SIGMA])
def test_saved_and_loaded(tmp_path, sigma):
    fit = fit_curve(
        decay, T, np.r_[np.nan, Y[1:]], START, sigma=sigma, nan_policy="omit"
    )
    path = tmp_path / "fit.json"
    fit.save(path)
    json.loads(path.read_text())
    plain = CurveFit.load(path)
    assert repr(plain) == repr(fit)
    assert plain.params == fit.params
    whole = CurveFit.load(path, decay)
    assert repr(whole) == repr(fit)
    np.testing.assert_array_equal(whole.residuals, fit.residuals)
    np.testing.assert_allclose(whole.predict([1.0]).high, fit.predict([1.0]).high)


def test_bands_at_new_points_and_sigmas():
    fit = fit_curve(decay, T, Y, START, sigma=SIGMA, absolute_sigma=True)
    grid = np.linspace(0.0, 12.0, 5)
    bands = fit.predict(grid, level=0.9)
    assert bands.prediction_low is None
    wide = fit.predict(grid, level=0.9, sigma=0.2)
    np.testing.assert_allclose(bands.value, plain_decay(grid, *fit.values))
    reach = 1.6448536269514722 * np.hypot(bands.error, 0.2)
    np.testing.assert_allclose(wide.prediction_high - wide.value, reach)
    assert fit.predict(level=0.9).prediction_low.shape == T.shape


def test_the_picture_has_its_parts(tmp_path):
    pytest.importorskip("matplotlib")
    fit = fit_curve(decay, T, np.r_[np.nan, Y[1:]], START, nan_policy="omit")
    panels = upper, lower = fit.plot()
    assert upper.figure is lower.figure is panels.figure
    panels.savefig(tmp_path / "fit.png")
    assert (tmp_path / "fit.png").read_bytes()[:4] == b"\x89PNG"
    labels = upper.get_legend_handles_labels()[1]
    assert {"data", "fit"} < set(labels)
    assert len(labels) == 4
    again = fit.plot(axes=(upper, lower))
    assert again[0] is upper
    assert again._repr_png_()[:4] == b"\x89PNG"


def test_float32_when_asked_for():
    fit = fit_curve(decay, T, Y, START, dtype="float32")
    np.testing.assert_allclose(fit.values, scipy_fit()[0], rtol=1e-3)


def test_ties_are_plain_python():
    y = 3.0 * np.exp(-T) + 1.5 * np.exp(-2.0 * T)
    fit = fit_curve(
        lambda p, t: (
            p["h"] * jnp.exp(-p["k"] * t) + 0.5 * p["h"] * jnp.exp(-2 * p["k"] * t)
        ),
        T,
        y,
        {"h": 1.0, "k": 0.5},
    )
    np.testing.assert_allclose(fit.values, [3.0, 1.0], rtol=1e-7)


@pytest.mark.parametrize(("num_points", "is_brief"), [(9, True), (40_000, False)])
def test_fits_of_few_points_are_compiled_without_optimizing_them(num_points, is_brief):
    x = np.linspace(0.0, 1.0, num_points)
    line = lambda p, x: p["slope"] * x
    name = "quick_start_options"
    with mock.patch.object(_programs, name, return_value=None) as asked:
        fit = fit_curve(line, x, 2 * x, {"slope": 1.0})
    assert fit.params["slope"] == pytest.approx(2.0)
    assert any(call.kwargs["runs_briefly"] for call in asked.call_args_list) == is_brief
