"""The data sets against the reference numbers and scikit-learn; scaling and splits."""

import json
import pathlib
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.datasets

from phihat import datasets

EPS = np.finfo(np.float64).eps
REFERENCE = json.loads(
    (pathlib.Path(__file__).parent / "reference.json").read_text(encoding="utf-8")
)
RNG = np.random.default_rng(0)


@pytest.mark.parametrize("name", ["linear_regression", "gabor"])
def test_the_chapters_data_are_the_chapters(name):
    x, y = getattr(datasets, name)()
    expected = REFERENCE["data"][name]
    assert x.tolist() == expected["x"]
    assert y.tolist() == expected["y"]
    assert x.dtype == y.dtype == jnp.float64


@pytest.mark.parametrize(
    ("name", "x_shape", "y_shape", "y_dtype"),
    [
        ("diabetes", (442, 10), (442,), "float64"),
        ("linnerud", (20, 3), (20, 3), "float64"),
        ("breast_cancer", (569, 30), (569,), "int32"),
        ("digits", (1797, 64), (1797,), "int32"),
    ],
)
def test_real_data_are_scikit_learns(name, x_shape, y_shape, y_dtype):
    x, y = getattr(datasets, name)()
    assert (x.shape, y.shape) == (x_shape, y_shape)
    assert (x.dtype, y.dtype) == ("float64", y_dtype)
    peer = getattr(sklearn.datasets, f"load_{name}")()
    np.testing.assert_array_equal(y, peer.target)
    if name == "diabetes":  # scikit-learn scales each column to the norm 1
        x = datasets.standardize(x) / np.sqrt(442)
        np.testing.assert_allclose(x, peer.data, rtol=1e4 * EPS, atol=64 * EPS)
    else:
        np.testing.assert_array_equal(x, peer.data)


@pytest.mark.usefixtures("float32")
def test_the_default_dtype_is_float32_without_x64():
    assert datasets.gabor()[0].dtype == jnp.float32
    assert datasets.linnerud()[1].dtype == jnp.float32


@pytest.mark.parametrize("name", ["diabetes", "linnerud", "breast_cancer", "digits"])
def test_a_missing_extra_says_what_to_install(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    sentence = f'datasets.{name}: .* `pip install "phihat\\[examples\\]"`'
    with pytest.raises(ImportError, match=sentence):
        getattr(datasets, name)()


def test_standardize_gives_mean_zero_and_deviation_one():
    x = RNG.normal(size=(50, 4)) * [1e-6, 1.0, 1e6, 3.0] + [1.0, 0.0, -1e6, 1e3]
    z = np.asarray(datasets.standardize(x))
    np.testing.assert_allclose(z.mean(0), 0.0, atol=1e-9)
    np.testing.assert_allclose(z.std(0), 1.0, rtol=1e-9)
    np.testing.assert_allclose(z, (x - x.mean(0)) / x.std(0), atol=1e-9)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e8 / 3])
def test_a_constant_column_becomes_zero(value):
    x = np.full((7, 2), value)
    x[:, 1] = np.arange(7)
    z = datasets.standardize(x)
    assert (z[:, 0] == 0.0).all()
    assert jnp.isfinite(z).all()
    other = datasets.standardize(np.array([[value + 2.0, 3.0]]), reference=x)
    np.testing.assert_allclose(other, [[2.0, 0.0]], rtol=1e8 * EPS)


def test_held_out_rows_are_scaled_as_the_training_rows():
    x = RNG.normal(size=(20, 3))
    both = datasets.standardize(x, reference=x[:15])
    np.testing.assert_allclose(both[:15], datasets.standardize(x[:15]), rtol=8 * EPS)
    np.testing.assert_allclose(both, (x - x[:15].mean(0)) / x[:15].std(0), rtol=1e-12)


def test_standardize_keeps_floats_and_widens_integers():
    for dtype, expected in [
        ("bfloat16", "bfloat16"),
        ("float32", "float32"),
        ("int32", "float64"),
        ("bool", "float64"),
    ]:
        x = jnp.asarray([[0, 1], [1, 0], [1, 1]], dtype)
        assert datasets.standardize(x).dtype == expected
    assert datasets.standardize([1.0, 3.0]).tolist() == [-1.0, 1.0]


def test_standardize_has_a_derivative_even_where_a_column_is_constant():
    x = jnp.array([[1.0, 2.0], [1.0, 5.0], [1.0, 3.0]])
    grad = jax.grad(lambda x: (datasets.standardize(x) ** 3).sum())(x)
    assert jnp.isfinite(grad).all()


def test_split_deals_every_row_once():
    data = {"x": np.arange(40.0).reshape(20, 2), "y": np.arange(20)}
    train, held_out = datasets.split(data, jax.random.key(0), held_out=0.3)
    assert train["x"].shape == (14, 2)
    assert held_out["y"].shape == (6,)
    rows = np.concatenate([train["y"], held_out["y"]])
    assert sorted(rows.tolist()) == list(range(20))
    for part in (train, held_out):
        np.testing.assert_array_equal(part["x"][:, 0], 2.0 * np.asarray(part["y"]))


def test_split_depends_on_the_key_alone():
    data = datasets.gabor()
    one = datasets.split(data, jax.random.key(1))
    same = jax.jit(datasets.split)(data, jax.random.key(1))
    other = datasets.split(data, jax.random.key(2))
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), one, same))
    assert not (one[0][0] == other[0][0]).all()


def test_split_is_fair():
    # Each row is held out with probability 1/4: over 400 keys 100 times, sd 8.7.
    keys = jax.random.split(jax.random.key(3), 400)
    held_out = jax.vmap(
        lambda key: datasets.split(jnp.arange(8), key, held_out=0.25)[1]
    )(keys)
    counts = np.bincount(np.asarray(held_out).ravel(), minlength=8)
    assert counts.sum() == 800
    assert abs(counts - 100).max() < 5 * 8.7


@pytest.mark.parametrize(
    ("rows", "fraction", "expected"), [(2, 0.01, 1), (2, 0.99, 1), (10, 0.25, 2)]
)
def test_split_leaves_a_row_on_either_side(rows, fraction, expected):
    train, held_out = datasets.split(
        np.zeros(rows), jax.random.key(0), held_out=fraction
    )
    assert (len(train), len(held_out)) == (rows - expected, expected)


KEY = jax.random.key(0)
WRONG = [
    (
        lambda: datasets.split((np.ones(12), np.ones((11, 2))), KEY),
        "split: `data[0]` has 12 rows but `data[1]` has 11; every leaf needs the same "
        "number.",
    ),
    (
        lambda: datasets.split({"x": np.ones(3), "y": 1.0}, KEY),
        "split: `data['y']` is a scalar: it has no rows; "
        "make arrays of lists, with `np.asarray`.",
    ),
    (lambda: datasets.split((), KEY), "split: `data` has no arrays in it."),
    (
        lambda: datasets.split(np.ones(1), KEY),
        "split: `data` must have at least 2 rows, got 1.",
    ),
    (
        lambda: datasets.split(np.ones(9), KEY, held_out=0.0),
        "split: `held_out` must lie in (0, 1), got 0.0.",
    ),
    (
        lambda: datasets.split(np.ones(9), KEY, held_out=3),
        "split: `held_out` must lie in (0, 1), got 3.",
    ),
    (
        lambda: datasets.standardize(np.ones((0, 3))),
        "standardize: `reference` must have at least one row.",
    ),
    (
        lambda: datasets.standardize(np.ones((2, 3)), reference=np.ones((2, 4))),
        "standardize: `x` and `reference` must have the same columns, got shapes "
        "[2, 3] and [2, 4].",
    ),
    (
        lambda: datasets.standardize(1.0),
        "standardize: `reference` is a scalar: it has no rows.",
    ),
]


@pytest.mark.parametrize(("call", "sentence"), WRONG)
def test_a_wrong_call_is_one_sentence(call, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        call()


@pytest.mark.parametrize("key", [None, 0, jax.random.PRNGKey(0)])
def test_split_wants_a_typed_key(key):
    with pytest.raises(TypeError, match="split: `key` must be one typed key"):
        datasets.split(np.ones(9), key)
