"""Many curves at once: as each alone, and what becomes of those that fail."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas
import pytest
import scipy.stats

from phihat import Status, fit_curve, fit_curves
from phihat.curves import chunked_fits

T = np.linspace(0.0, 5.0, 25)
START = {"tau": 1.0, "height": 1.0}


def decay(params, t):
    return params["height"] * jnp.exp(-t / params["tau"])


def many_decays(num_curves=7, noise=0.02, seed=3):
    rng = np.random.default_rng(seed)
    tau = rng.uniform(0.5, 3.0, num_curves)
    height = rng.uniform(1.0, 4.0, num_curves)
    curves = height[:, None] * np.exp(-T / tau[:, None])
    return curves + noise * rng.normal(size=curves.shape), tau, height


MANY, TAU, HEIGHT = many_decays()


def expect_as_alone(fits, k, fit):
    assert fits.status[k] == Status.CONVERGED
    np.testing.assert_allclose(fits.values[k], fit.values, rtol=1e-6)
    np.testing.assert_allclose(fits.covariance[k], fit.covariance, rtol=1e-5)
    for name in ("chi_square", "reduced_chi_square", "r_squared", "aic", "bic"):
        np.testing.assert_allclose(
            getattr(fits, name)[k], getattr(fit, name), rtol=1e-7
        )
    assert fits.num_points[k] == fit.num_points


OPTIONS = {
    "plain": {},
    "sigma of rows": {"sigma": np.linspace(0.01, 0.03, 25)},
    "known sigma": {"sigma": 0.02, "absolute_sigma": True},
    "robust": {"loss": "soft_l1", "f_scale": 0.05},
    "fixed": {"fixed": ["tau"]},
    "bounds": {"bounds": {"tau": (0.1, 1.2)}},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_each_curve_is_as_alone(name):
    options = OPTIONS[name]
    fits = fit_curves(decay, T, MANY, START, **options)
    assert fits.success.all()
    for k in (0, 6):
        alone = fit_curve(decay, T, MANY[k], START, **options)
        expect_as_alone(fits, k, alone)
        assert fits[k].values == pytest.approx(alone.values)
        assert fits[k].status.startswith("converged")
    assert fits.params["tau"].shape == fits.errors["tau"].shape == (7,)


def test_each_curve_has_its_own_x_sigma_and_start():
    x = np.stack([T + 0.1 * k for k in range(7)])
    sigma = np.full(MANY.shape, 0.02) * np.arange(1, 8)[:, None]
    fits = fit_curves(decay, x, MANY, {"tau": TAU, "height": 1.0}, sigma=sigma)
    fit = fit_curve(decay, x[4], MANY[4], {"tau": TAU[4], "height": 1}, sigma=sigma[4])
    expect_as_alone(fits, 4, fit)


def test_chunks_and_rounds_change_nothing(monkeypatch):
    whole = fit_curves(decay, T, MANY, START)
    monkeypatch.setattr(chunked_fits, "_CHUNK", 3)
    monkeypatch.setattr(chunked_fits, "round_length", lambda budget: 2)
    cut = fit_curves(decay, T, MANY, START, progress=False)
    np.testing.assert_allclose(cut.values, whole.values, rtol=1e-9)
    np.testing.assert_array_equal(cut.num_steps, whole.num_steps)
    np.testing.assert_array_equal(cut.status, whole.status)


def test_curves_of_several_lengths():
    lengths = [25, 18, 9]
    x = {f"run {k}": T[:n] for k, n in enumerate(lengths)}
    y = {f"run {k}": MANY[k, :n] for k, n in enumerate(lengths)}
    fits = fit_curves(decay, x, y, START)
    for k, n in enumerate(lengths):
        expect_as_alone(fits, k, fit_curve(decay, T[:n], MANY[k, :n], START))
    assert list(fits.to_pandas().index) == list(x)
    assert fits["run 2"].num_points == 9
    listed = fit_curves(decay, list(x.values()), list(y.values()), START)
    np.testing.assert_array_equal(listed.values, fits.values)
    sigma = {name: 0.1 + 0.02 * np.arange(len(row)) for name, row in y.items()}
    weighed = fit_curves(decay, x, y, START, sigma=sigma)
    n = lengths[1]
    alone = fit_curve(decay, T[:n], MANY[1, :n], START, sigma=sigma["run 1"])
    expect_as_alone(weighed, 1, alone)


def test_masks_and_missing_points_do_not_count():
    y, mask = MANY.copy(), np.ones(MANY.shape, bool)
    y[2, 5], mask[2, 5] = np.nan, False
    kept = np.arange(25) != 5
    wanted = fit_curve(decay, T[kept], MANY[2, kept], START)
    omitted = fit_curves(decay, T, y, START, nan_policy="omit")
    masked = fit_curves(decay, T, y, START, mask=mask)
    for fits in (omitted, masked):
        expect_as_alone(fits, 2, wanted)
        expect_as_alone(fits, 0, fit_curve(decay, T, MANY[0], START))
        assert np.isnan(fits[2].residuals[5])


def test_a_curve_with_too_few_points_did_not_converge():
    y = MANY.copy()
    y[2] = np.nan
    y[4, 1:] = np.nan
    fits = fit_curves(decay, T, y, START, nan_policy="omit")
    assert np.flatnonzero(~fits.success).tolist() == [2, 4]
    assert np.isnan(fits.values[[2, 4]]).all()
    for name in ("chi_square", "reduced_chi_square", "r_squared", "aic", "bic"):
        assert np.isnan(getattr(fits, name)).nonzero()[0].tolist() == [2, 4]
    whole = fit_curves(decay, T, MANY, START)
    others = [0, 1, 3, 5, 6]
    np.testing.assert_allclose(fits.values[others], whole.values[others], rtol=1e-9)
    assert "curve 4: 1 point cannot fit 2 params" in repr(fits)
    assert "of the 5 that converged" in repr(fits)
    assert "0 points cannot fit" in repr(fits[2])


def test_doubts_are_in_the_report_and_in_the_table():
    y = np.concatenate([MANY[:2], [np.zeros(25), np.full(25, 7.0)]])
    fits = fit_curves(decay, T, y, START)
    assert fits.doubts[:2].tolist() == ["", ""]
    assert all(text.startswith("y is constant") for text in fits.doubts[2:])
    assert fits.to_pandas()["doubt"].tolist() == fits.doubts.tolist()
    assert fits.to_xarray()["doubt"].values.tolist() == fits.doubts.tolist()
    assert "  doubt: y is constant" in repr(fits)
    assert "constant" in fits[2].doubts


def test_what_is_not_determined_is_told_of_each_curve():
    def both(params, t):
        return params["a"] * t + params["b"] * t + params["c"] + 0.0 * params["d"]

    y = 2.0 * T + 1.0 + 0.01 * np.random.default_rng(0).normal(size=(3, 25))
    start = {"a": 1.0, "b": 0.0, "c": 0.0, "d": 5.0}
    fits = fit_curves(both, T, y, start)
    alone = fit_curve(both, T, y[1], start)
    np.testing.assert_allclose(fits.covariance[1], alone.covariance, rtol=1e-6)
    assert np.isfinite(fits.errors["c"]).all()
    assert set(fits.doubts) == {"a, b and d are not determined"}
    assert "doubt: a, b and d are not determined, in 3 curves (0, 1, 2)" in repr(fits)
    far = fit_curves(decay, T + 1e9, MANY, START)
    assert far.doubts[0] == "tau and height are not determined and stayed at the start"
    assert "doubt: x lies between 1000000000 and 1000000005" in repr(far)


@pytest.mark.parametrize("x", [T, [T, T, None, T[:9]], np.stack([T] * 4)])
def test_empty_curves_stop_no_others(x):
    is_shared = not isinstance(x, list)
    last = MANY[2] if is_shared else MANY[2][:9]
    for empty in ([], None, np.zeros(0)):
        fits = fit_curves(decay, x, [MANY[0], MANY[1], empty, last], START)
        assert fits.success.tolist() == [True, True, False, True]
        assert fits.num_points.tolist() == [25, 25, 0, len(last)]
    expect_as_alone(fits, 1, fit_curve(decay, T, MANY[1], START))
    assert "curve 2: 0 points cannot fit 2 params" in repr(fits)


def test_each_curve_has_its_own_bounds():
    high = np.linspace(0.6, 3.0, 7)
    start = {"tau": np.full(7, 0.55), "height": 1.0}
    fits = fit_curves(decay, T, MANY, start, bounds={"tau": (0.5, high)})
    assert fits.success.all()
    assert (fits.params["tau"] <= high).all()
    is_at = fits.params["tau"] == high
    assert is_at.any()
    assert not is_at.all()
    np.testing.assert_array_equal(fits.at_bound[:, 0], is_at)
    k = int(np.flatnonzero(is_at)[0])
    first = {"tau": 0.55, "height": 1.0}
    alone = fit_curve(decay, T, MANY[k], first, bounds={"tau": (0.5, high[k])})
    expect_as_alone(fits, k, alone)
    assert fits[k].bounds_reached == ("upper", "")


def test_starts_in_a_list_or_a_table():
    pairs = zip(TAU, HEIGHT, strict=True)
    rows = [{"tau": float(tau), "height": float(height)} for tau, height in pairs]
    expected = fit_curves(decay, T, MANY, {"tau": TAU, "height": HEIGHT})
    for start in (rows, pandas.DataFrame(rows)):
        fits = fit_curves(decay, T, MANY, start)
        assert fits.names == ("tau", "height")
        np.testing.assert_array_equal(fits.values, expected.values)


def test_a_curve_that_fails_disturbs_no_other():
    y = MANY.copy()
    y[3] = np.nan
    fits = fit_curves(decay, T, y, START, nan_policy="propagate")
    others = fit_curves(decay, T, MANY, START)
    good = np.arange(7) != 3
    np.testing.assert_allclose(fits.values[good], others.values[good], rtol=1e-9)
    assert fits.status[3] == Status.NONFINITE_LOSS
    assert np.isnan(fits.errors["tau"][3])
    assert "curve 3: failed" in repr(fits)
    assert "7 curves: 6 CONVERGED, 1 NONFINITE_LOSS" in repr(fits)


def test_a_curve_that_says_nothing_of_a_param():
    y = MANY.copy()
    y[1] = 0.0
    fits = fit_curves(decay, T, y, START)
    assert not np.isfinite(fits.errors["tau"][1])
    assert np.isfinite(fits.errors["tau"][[0, 2]]).all()


def test_tables():
    fits = fit_curves(decay, T, pandas.DataFrame(MANY, index=list("abcdefg")), START)
    table = fits.to_pandas()
    assert list(table.columns[:4]) == ["tau", "tau_error", "height", "height_error"]
    assert list(table["status"]) == ["CONVERGED"] * 7
    dataset = fits.to_xarray()
    assert dataset["value"].sel(curve="c", param="tau") == table.loc["c", "tau"]
    assert "7 curves: 7 CONVERGED" in fits._repr_html_()


def test_curves_of_several_columns_and_complex_ones():
    w = np.linspace(0.1, 3.0, 20)
    s, t = np.array([1.0, 2.0, 3.0]), np.array([0.5, 1.0, 1.5])
    response = s[:, None] / (1.0 + 1j * w * t[:, None])

    def columns(p, w):
        size = p["s"] / (1.0 + (w * p["t"]) ** 2)
        return jnp.stack([size, -size * w * p["t"]], -1)

    def response_fn(p, w):
        return jax.lax.complex(*jnp.moveaxis(columns(p, w), -1, 0))

    y = np.stack([response.real, response.imag], -1)
    for model, data in ((columns, y), (response_fn, response)):
        fits = fit_curves(model, w, data, {"s": 1.0, "t": 1.0})
        np.testing.assert_allclose(fits.params["t"], t, rtol=1e-6)
        np.testing.assert_allclose(fits.params["s"], s, rtol=1e-6)
        assert (fits.num_points == 40).all()


def test_float32_is_good_for_three_digits():
    fits = fit_curves(decay, T, MANY, START, dtype="float32")
    wanted = fit_curves(decay, T, MANY, START)
    np.testing.assert_allclose(fits.values, wanted.values, rtol=1e-3)
    np.testing.assert_allclose(fits.errors["tau"], wanted.errors["tau"], rtol=1e-2)


def test_errors_and_bands_cover_as_often_as_they_say():
    """Of 2,000 repeated experiments 95 % hold the truth, to three deviations."""
    rng = np.random.default_rng(11)
    x = np.linspace(0.0, 3.0, 12)
    truth = {"tau": 1.3, "height": 2.0}
    curve = truth["height"] * np.exp(-x / truth["tau"])
    y = curve + 0.05 * rng.normal(size=(2000, 12))
    fits = fit_curves(decay, x, y, START)
    assert fits.success.all()
    reach = scipy.stats.t.ppf(0.975, 10)
    deviation = np.sqrt(0.95 * 0.05 / 2000)
    for name, value in truth.items():
        held = np.abs(fits.params[name] - value) <= reach * fits.errors[name]
        assert held.mean() == pytest.approx(0.95, abs=3 * deviation + 0.005)
    # The band at one x, from the covariances, as `predict` has it.
    at = 0.9
    fall = np.exp(-at / fits.params["tau"])
    slope = np.stack(
        [fits.params["height"] * fall * at / fits.params["tau"] ** 2, fall], -1
    )
    error = np.sqrt(np.einsum("ni,nij,nj->n", slope, fits.covariance, slope))
    value = fits.params["height"] * fall
    true_value = truth["height"] * np.exp(-at / truth["tau"])
    held = np.abs(value - true_value) <= reach * error
    assert held.mean() == pytest.approx(0.95, abs=3 * deviation + 0.005)
    new = true_value + 0.05 * rng.normal(size=2000)
    wide = np.sqrt(error**2 + fits.reduced_chi_square)
    held = np.abs(new - value) <= reach * wide
    assert held.mean() == pytest.approx(0.95, abs=3 * deviation + 0.005)
    bands = fits[5].predict([at])
    assert bands.error[0] == pytest.approx(error[5], rel=1e-6)
    assert bands.prediction_high[0] - bands.value[0] == pytest.approx(
        reach * wide[5], rel=1e-6
    )


def test_rows_of_a_start_are_paired_by_their_labels():
    x = np.linspace(0.0, 10.0, 41)
    centres = {"a": 3.0, "b": 5.0, "c": 7.0}
    y = {name: np.exp(-((x - centre) ** 2)) for name, centre in centres.items()}

    def peak(params, x):
        return params["height"] * jnp.exp(-((x - params["centre"]) ** 2))

    turned = pandas.Series(centres)[["c", "a", "b"]] + 0.1
    table = pandas.DataFrame({"height": 0.9, "centre": turned})
    for start in ({"height": 0.9, "centre": turned}, table):
        fits = fit_curves(peak, x, y, start)
        found = fits.to_pandas()["centre"]
        np.testing.assert_allclose(found, list(centres.values()), rtol=1e-6)
    # A frame with its rows numbered has no labels that a start could have.
    numbered = pandas.DataFrame(list(y.values()))
    fits = fit_curves(peak, x, numbered, {"height": 0.9, "centre": turned.sort_index()})
    np.testing.assert_allclose(fits.to_pandas()["centre"], list(centres.values()))
    other = turned.rename({"c": "d"})
    with pytest.raises(ValueError, match="with the labels of `y`, but"):
        fit_curves(peak, x, y, {"height": 0.9, "centre": other})
    shuffled, one = pandas.Series(y["a"])[::-1], {"height": 0.9, "centre": 2.9}
    with pytest.warns(UserWarning, match="the rows of `x` and `y` have different"):
        fit_curve(peak, pandas.Series(x), shuffled, one)
