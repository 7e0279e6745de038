"""Every wrong call of `fit_curve` and `fit_curves`: one sentence, with the cure."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from phihat import Box, fit_curve, fit_curves
from phihat.curves import CurveFit

X = np.linspace(0.0, 1.0, 10)
Y = 1.0 + 2.0 * X
MANY = np.stack([Y, 2.0 * Y, 3.0 * Y])
START = {"slope": 1.0, "offset": 0.0}


def line(params, x):
    return params["slope"] * x + params["offset"]


def one(x=X, y=Y, start=START, model=line, **options):
    return fit_curve(model, x, y, start, **options)


def many(x=X, y=MANY, start=START, model=line, **options):
    return fit_curves(model, x, y, start, **options)


def nan_at(row, values=Y):
    values = np.array(values)
    values[row] = np.nan
    return values


def with_numpy(params, x):
    return params["slope"] * np.exp(x) + params["offset"]


def with_if(params, x):
    return params["slope"] * x if params["slope"] > 0 else x


BOTH = {
    "SciPy's order": (
        lambda fit: fit(model=lambda x, slope, offset: slope * x + offset),
        ["models are (params, x)", "(x, slope, offset)", "curve_fit"],
    ),
    "SciPy's order, starred": (
        lambda fit: fit(model=lambda x, *params: x),
        ["models are (params, x)", "(x, *params)"],
    ),
    "params after x": (
        lambda fit: fit(model=lambda x, params: params["slope"] * x),
        ["models are (params, x)"],
    ),
    "one argument": (
        lambda fit: fit(model=lambda params: params["slope"]),
        ["models are (params, x)", "(params)"],
    ),
    "squares too small": (
        lambda fit: fit(y=1e-200 * (MANY if fit is many else Y)),
        ["the square of which float64 cannot hold", "other units"],
    ),
    "a model of integers": (
        lambda fit: fit(model=lambda p, x: jnp.round(line(p, x)).astype(int)),
        ["returns int64", "no derivatives"],
    ),
    "a model of comparisons": (
        lambda fit: fit(model=lambda p, x: line(p, x) > 0),
        ["returns bool", "no derivatives"],
    ),
    "a model that rounds": (
        lambda fit: fit(model=lambda p, x: line(p, x).astype(jnp.float32)),
        ["returns float32", "drop the cast"],
    ),
    "a list of numbers": (
        lambda fit: fit(model=lambda p, x: [line(p, entry) for entry in x]),
        ["one array", "`jnp.stack`"],
    ),
    "no function": (lambda fit: fit(model=3.0), ["`model` must be a function", "3.0"]),
    "NumPy in the model": (
        lambda fit: fit(model=with_numpy),
        ["written in jax", "jax.numpy"],
    ),
    "if in the model": (lambda fit: fit(model=with_if), ["jnp.where"]),
    "an unknown param in the model": (
        lambda fit: fit(model=lambda p, x: p["rate"] * x),
        ["'rate'", "slope", "offset"],
    ),
    "a result of another shape": (
        lambda fit: fit(model=lambda p, x: (p["slope"] * x)[:, None]),
        ["shape of y, [10]", "[10, 1]", "axis"],
    ),
    "a tuple as result": (
        lambda fit: fit(model=lambda p, x: (x, x)),
        ["must return what y is, one array"],
    ),
    "a complex model": (
        lambda fit: fit(model=lambda p, x: jax.lax.complex(p["slope"] * x, x)),
        ["complex", "y is real"],
    ),
    "start missing": (lambda fit: fit(start=None), ["`start` is None", "first guess"]),
    "start empty": (lambda fit: fit(start={}), ["`start` has no params"]),
    "start of text": (
        lambda fit: fit(start={"slope": "1.0", "offset": 0.0}),
        ["start['slope']", "'1.0'", "numbers"],
    ),
    "start complex": (
        lambda fit: fit(start={"slope": 1j, "offset": 0.0}),
        ["start['slope']", "complex"],
    ),
    "start not finite": (
        lambda fit: fit(start={"slope": np.inf, "offset": 0.0}),
        ["`start` is not finite", "'slope'"],
    ),
    "start outside the bounds": (
        lambda fit: fit(bounds={"slope": (2, 5)}),
        ["slope = 1", "(2, 5)", "inside"],
    ),
    "bounds that cross": (
        lambda fit: fit(bounds={"slope": (2, -5)}),
        ["'slope'", "(2, -5)", "swap"],
    ),
    "bounds of an unknown param": (
        lambda fit: fit(bounds={"slop": (0, 1)}),
        ["'slop'", "did you mean 'slope'?"],
    ),
    "bounds that are one number": (
        lambda fit: fit(bounds={"slope": 3.0}),
        ["pair (low, high)", "3.0"],
    ),
    "bounds of text": (
        lambda fit: fit(bounds={"slope": "ab"}),
        ["pair (low, high)", "'ab'"],
    ),
    "bounds of NaN": (
        lambda fit: fit(bounds={"slope": (np.nan, 1)}),
        ["low <= high", "nan"],
    ),
    "bounds that are no bounds": (lambda fit: fit(bounds=5), ["`bounds`", "dict"]),
    "a Box of other params": (
        lambda fit: fit(bounds=Box({"rate": 0.0}, {"rate": 1.0})),
        ["`bounds` must be a tree like `start`"],
    ),
    "an unknown fixed param": (
        lambda fit: fit(fixed=["offsett"]),
        ["'offsett'", "did you mean 'offset'?"],
    ),
    "all params fixed": (
        lambda fit: fit(fixed=["slope", "offset"]),
        ["all params are fixed"],
    ),
    "fixed at a value": (
        lambda fit: fit(fixed={"offset": 1.5}),
        ["`fixed` must be names, such as ['offset']", "the one in `start`"],
    ),
    "sigma negative": (lambda fit: fit(sigma=-0.1), ["`sigma` must be positive"]),
    "sigma zero in a row": (
        lambda fit: fit(sigma=np.r_[np.ones(9), 0.0]),
        ["`sigma` must be positive", "got 0", "row 9"],
    ),
    "sigma infinite": (lambda fit: fit(sigma=np.inf), ["positive and finite", "inf"]),
    "sigma of another length": (
        lambda fit: fit(sigma=np.ones(4)),
        ["`sigma` must be", "[4]"],
    ),
    "absolute_sigma without sigma": (
        lambda fit: fit(absolute_sigma=True),
        ["there is no `sigma`"],
    ),
    "absolute_sigma a number": (
        lambda fit: fit(sigma=1.0, absolute_sigma=0.1),
        ["`absolute_sigma` must be True or False", "0.1"],
    ),
    "an unknown loss": (
        lambda fit: fit(loss="hubber"),
        ["`loss` must be one of", "did you mean 'huber'?"],
    ),
    "f_scale zero": (
        lambda fit: fit(loss="huber", f_scale=0.0),
        ["`f_scale` must be > 0"],
    ),
    "f_scale of nothing": (lambda fit: fit(f_scale=0.5), ["no effect", "linear"]),
    "an unknown nan_policy": (
        lambda fit: fit(nan_policy="drop"),
        ["`nan_policy` must be one of"],
    ),
    "bounds of NumPy for a dict of params": (
        lambda fit: fit(bounds=([0, 0], [5, 5])),
        ["`bounds` must be a tree like `start`", "write `bounds={'slope': (low"],
    ),
    "start of no numbers": (lambda fit: fit(start=[]), ["`start` has no params"]),
    "names of several kinds": (
        lambda fit: fit(start={"slope": 1.0, 0: 1.0}),
        ["names in `start`", "text"],
    ),
    "a constant model": (
        lambda fit: fit(model=lambda p, x: p["slope"]),
        ["shape of y, [10]", "jnp.full_like"],
    ),
    "an iterator": (
        lambda fit: fit(x=iter(X)),
        ["`x` must hold numbers", "pass `list(x)`"],
    ),
    "no x": (lambda fit: fit(x=None), ["`x` must hold numbers", "np.arange(len(y))"]),
    "a model of (x, params), by other names": (
        lambda fit: fit(model=lambda t, q: q["slope"] * t),
        ["models are (params, x)", "exchange"],
    ),
    "no steps": (lambda fit: fit(num_steps=0), ["`num_steps` must be >= 1, got 0."]),
    "half a step": (lambda fit: fit(num_steps=1.5), ["whole number, got 1.5."]),
    "an unknown dtype": (
        lambda fit: fit(dtype="float16"),
        ["`dtype` must be float64 or float32"],
    ),
    "tolerance negative": (lambda fit: fit(tolerance=-1e-3), ["`tolerance`"]),
    "x of text": (lambda fit: fit(x=["a"] * 10), ["`x` must hold numbers", "text"]),
    "x of dates": (
        lambda fit: fit(x=np.arange(10).astype("datetime64[s]")),
        ["`x` must hold numbers", "timedelta64"],
    ),
    "x of objects": (
        lambda fit: fit(x=np.array([None] * 10)),
        ["`x` must hold numbers", "objects"],
    ),
    "x complex": (lambda fit: fit(x=X * 1j), ["`x` is complex", "only `y`"]),
    "x of another length": (lambda fit: fit(x=X[:7]), ["`x`", "7", "10"]),
    "x masked": (
        lambda fit: fit(x=np.ma.masked_greater(X, 0.5)),
        ["masked array", "filled(np.nan)"],
    ),
    "NaN in x": (
        lambda fit: fit(x=nan_at(3, X)),
        ["1 value is not finite in `x`", "row 3", "omit"],
    ),
    "too few points": (
        lambda fit: fit(x=X[:1], y=MANY[:, :1] if fit is many else Y[:1]),
        ["1 ", "2 params (slope, offset)", "fixed"],
    ),
}

ONE = {
    "NaN in y": (
        lambda: one(y=nan_at([2, 5])),
        ["2 values are not finite in `y`", "row 2", "nan_policy='omit'"],
    ),
    "infinite y": (
        lambda: one(y=np.r_[Y[:9], np.inf], nan_policy="omit"),
        ["1 value is not finite in `y`", "row 9", "(infinite)"],
    ),
    "all NaN": (lambda: one(y=nan_at(slice(None)), nan_policy="omit"), ["every row"]),
    "y masked": (lambda: one(y=np.ma.masked_greater(Y, 2.0)), ["`y` is a masked"]),
    "y of text": (lambda: one(y=["a"] * 10), ["`y` must hold numbers"]),
    "no rows": (lambda: one(x=X[:0], y=Y[:0]), ["`y` has no rows"]),
    "rows of different lengths": (
        lambda: one(y=[[1.0, 2.0], [1.0]]),
        ["`y` has rows of different lengths"],
    ),
    "curves as rows": (
        lambda: one(y=MANY),
        [
            "`x` has 10 rows but `y` has 3",
            "3 curves",
            "`fit_curves(model, x, y, start)",
        ],
    ),
    "curves as columns": (
        lambda: one(y=MANY.T),
        ["the shape of y, [10, 3], got [10]", "`fit_curves(model, x, y.T, start)`"],
    ),
    "a list for names": (
        lambda: one(start=[1.0, 0.0]),
        ["asks for an entry by its name, but `start` is [1.0, 0.0]"],
    ),
    "one number": (lambda: one(x=1.0, y=2.0), ["is one number"]),
    "real model of a complex y": (
        lambda: one(y=Y * 1j),
        ["returns real", "y is complex"],
    ),
    "a covariance that is none": (
        lambda: one(sigma=-np.eye(10)),
        ["covariance", "positive definite"],
    ),
    "models without data of their own": (
        lambda: one(model={"a": line, "b": line}),
        ["`x` must be a dict with the same entries"],
    ),
    "a fit inside jit": (
        lambda: jax.jit(lambda y: one(y=y).chi_square)(jnp.asarray(Y)),
        ["outside of jit", "phihat.fit"],
    ),
    "a table of one column": (
        lambda: one(y={"a": Y}),
        ["must return what y is", "`y['a']`"],
    ),
    "a level of 1": (lambda: one().predict(level=1.0), ["`level` must lie in (0, 1)"]),
}

MANY_ONLY = {
    "one curve": (lambda: many(y=Y), ["[N, I]", "fit_curve"]),
    "curves as columns": (lambda: many(y=MANY.T), ["`x` has shape [10]", "y.T"]),
    "no curves": (lambda: many(y=MANY[:0]), ["`y` is empty"]),
    "NaN in y": (
        lambda: many(y=np.stack([Y, nan_at(4)])),
        ["1 value is not finite in `y`", "row 1"],
    ),
    "lengths that differ": (
        lambda: many(y=[Y, Y[:5]]),
        ["curves of 5 to 10 points (5 in curve 1)", "`x` must be a list"],
    ),
    "labels": (lambda: many(labels="abc"), ["no argument `labels`", "as a dict"]),
    "a start for each of too few curves": (
        lambda: many(start={"slope": np.ones(2), "offset": 0.0}),
        ["`start['slope']` has 2 entries", "one for each of 3 curves"],
    ),
    "a mask of numbers": (
        lambda: many(mask=np.ones_like(MANY)),
        ["`mask` must be bools"],
    ),
    "several models": (lambda: many(model=[line, line]), ["one function", "fit_curve"]),
    "no room": (lambda: many(max_bytes=10), ["`max_bytes`", "one curve"]),
    "progress of text": (lambda: many(progress="yes"), ["`progress`"]),
    "no such curve": (lambda: many()[3], ["no curve 3"]),
    "a start for too few curves": (
        lambda: many(start=[START, START]),
        ["`start` is a list of 2 starts for 3 curves"],
    ),
    "bounds for too few curves": (
        lambda: many(bounds={"slope": (np.zeros(2), None)}),
        ["`bounds` of 'slope'", "one for each of 3"],
    ),
    "bounds that fix some curves": (
        lambda: many(bounds={"slope": (np.array([0, 0, 1.0]), 1.0)}),
        ["`bounds` of 'slope' agree in some curves"],
    ),
    "a start outside of one curve's bounds": (
        lambda: many(bounds={"slope": (np.array([0, 0, 2.0]), None)}),
        ["slope = 1 in curve 2", "(2, inf)"],
    ),
    "several curves at once": (lambda: many()[:2], ["one curve at a time", "fits[0]"]),
    "a curve that is not there": (
        lambda: many(y=pd.DataFrame(MANY, index=["a", "b", "c"]))["d"],
        ["no curve 'd'", "there are 3", "labelled 'a', 'b', 'c'"],
    ),
    "a map over curves": (
        lambda: jax.vmap(lambda y: many(y=y).values)(jnp.stack([MANY, MANY])),
        ["outside of jit"],
    ),
}


def check(call, name, parts):
    with pytest.raises((TypeError, ValueError, IndexError)) as caught:
        call()
    message = str(caught.value)
    assert message.startswith((name, "predict", "CurveFit")), message
    assert message.endswith((".", "?")), message
    assert "\n" not in message
    assert [part for part in parts if part not in message] == [], message


@pytest.mark.parametrize("case", BOTH)
@pytest.mark.parametrize("fit", [one, many])
def test_a_wrong_call_of_either(fit, case):
    call, parts = BOTH[case]
    check(lambda: call(fit), "fit_curve", parts)


@pytest.mark.parametrize("case", ONE)
def test_a_wrong_call_of_fit_curve(case):
    call, parts = ONE[case]
    check(call, "fit_curve", parts)


@pytest.mark.parametrize("case", MANY_ONLY)
def test_a_wrong_call_of_fit_curves(case):
    call, parts = MANY_ONLY[case]
    check(call, "fit_curves", parts)


def test_what_fails_in_the_model_says_how_it_was_called():
    with pytest.raises(TypeError) as caught:
        one(start={"slope": np.ones(4), "offset": 0.0})
    note = caught.value.__notes__[-1]
    assert "params['slope'] [4]" in note
    assert "x [10]" in note


def test_a_file_that_holds_no_fit(tmp_path):
    path = tmp_path / "fit.json"
    path.write_text("{}")
    with pytest.raises(ValueError, match="does not hold a fitted curve"):
        CurveFit.load(path)


def test_a_fit_without_its_model(tmp_path):
    one(y=Y + 0.01 * X**2).save(tmp_path / "fit.json")
    loaded = CurveFit.load(tmp_path / "fit.json")
    for call in (loaded.predict, loaded.plot, loaded.intervals):
        with pytest.raises(ValueError, match=r"CurveFit.load\(path, model\)"):
            call()
