"""Losses against closed forms, the chapter's numbers, optax, SciPy and scikit-learn."""

import functools
import json
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats
import sklearn.metrics
from jax.tree_util import Partial

from phihat import datasets, losses, models
from phihat._core import checks as _checks
from phihat._core import tree as _tree

EPS = np.finfo(np.float64).eps
REFERENCE = json.loads(
    (pathlib.Path(__file__).parent / "reference.json").read_text(encoding="utf-8")
)
RNG = np.random.default_rng(0)
FACTORIES = {
    "least_squares": losses.least_squares,
    "binary_cross_entropy": losses.binary_cross_entropy,
    "multiclass_cross_entropy": losses.multiclass_cross_entropy,
    "gaussian_negative_log_likelihood": losses.gaussian_negative_log_likelihood,
}
every_factory = pytest.mark.parametrize("name", list(FACTORIES))


def identity(params, x):
    """Predict the params themselves."""
    del x
    return params


def dropout(params, x, *, key):
    """Predict with half of the params, at random."""
    mask = jax.random.bernoulli(key, 0.5, params.shape)
    return identity(jnp.where(mask, params, 0.0), x)


def _example(name, num_rows=6):
    """Return a prediction and a batch that the loss takes."""
    y = RNG.normal(size=num_rows)
    prediction = jnp.asarray(RNG.normal(size=num_rows))
    if name == "binary_cross_entropy":
        y = RNG.integers(0, 2, num_rows)
    if name == "multiclass_cross_entropy":
        y = RNG.integers(0, 4, num_rows)
        prediction = jnp.asarray(RNG.normal(size=(num_rows, 4)))
    return prediction, (np.zeros(num_rows), y)


# ---------------------------------------------------------------- the chapter's numbers

ANSWERS = REFERENCE["notebook_answers"]


@pytest.mark.parametrize(
    ("bias", "weight", "key"),
    [
        (0.6, -0.2, "loss_lin_0p6_m0p2"),
        (0.4, 0.2, "loss_lin_0p4_0p2"),
        (1.6, -0.8, "loss_lin_1p6_m0p8"),
        (0.82, 0.52, "loss_lin_0p82_0p52"),
        (1.6, -0.5, "loss_lin_1p6_m0p5"),
    ],
)
def test_linear_regression_losses_of_the_chapter(bias, weight, key):
    loss_fn = losses.least_squares(models.linear)
    loss = loss_fn({"bias": bias, "weight": weight}, datasets.linear_regression())
    expected = ANSWERS[key]
    expected = expected["mine"] if isinstance(expected, dict) else expected
    np.testing.assert_allclose(loss, expected, rtol=32 * EPS)


def test_linear_regression_gradient_of_the_chapter():
    loss_fn = losses.least_squares(models.linear)
    params = {"bias": 0.6, "weight": -0.2}
    grad = jax.grad(loss_fn)(params, datasets.linear_regression())
    found = [grad["bias"], grad["weight"]]
    np.testing.assert_allclose(found, ANSWERS["grad_lin_0p6_m0p2"], rtol=32 * EPS)


@pytest.mark.parametrize(("width", "key"), [(4.0, "mine_D32"), (2.0, "mine_D8")])
def test_gabor_losses_of_the_chapter(width, key):
    loss_fn = losses.least_squares(Partial(models.gabor, envelope_width=width))
    data = datasets.gabor()
    loss = loss_fn(jnp.array([0.6, -0.2]), data)
    expected = ANSWERS["loss_gabor_0p6_m0p2"][key]
    np.testing.assert_allclose(loss, expected, rtol=32 * EPS)
    grad = jax.grad(loss_fn)(jnp.array([-5.0, 25.0]), data)
    np.testing.assert_allclose(grad, ANSWERS["grad_gabor_m5_25"][key], rtol=1e-12)


CHAPTER5 = REFERENCE["data"]["chapter5"]


def _chapter5(task):
    """Return model, params and batch of one of the three losses of chapter 5."""
    network = CHAPTER5["network"]
    head = network[task]
    hidden = {
        "weight": jnp.asarray([network["hidden_weight_omega0"]]),
        "bias": jnp.asarray(network["hidden_bias_beta0"]),
    }
    last = {
        "weight": jnp.asarray(head["omega1"]).T,
        "bias": jnp.asarray(head["beta1"]),
    }
    x = jnp.asarray(CHAPTER5["x"])[:, None]
    return [hidden, last], (x, jnp.asarray(CHAPTER5[f"y_{task}"]))


def test_the_regression_of_chapter_5():
    params, batch = _chapter5("regression")
    expected = ANSWERS["chapter5"]["regression"]
    model = models.multilayer_perceptron
    sse = losses.least_squares(model)(params, batch)
    np.testing.assert_allclose(sse, expected["sse"], rtol=32 * EPS)
    loss_fn = losses.gaussian_negative_log_likelihood(model, sigma=0.2)
    np.testing.assert_allclose(loss_fn(params, batch), expected["nll"], rtol=64 * EPS)
    params[-1]["bias"] = jnp.asarray(0.27)
    loss = loss_fn(params, batch)
    np.testing.assert_allclose(loss, expected["grid_nll"], rtol=64 * EPS)
    loss_fn = losses.gaussian_negative_log_likelihood(model, sigma=0.265)
    loss = loss_fn(params, batch)
    np.testing.assert_allclose(loss, expected["grid_sigma_nll"], rtol=256 * EPS)


@pytest.mark.parametrize(
    ("task", "factory"),
    [
        ("binary", losses.binary_cross_entropy),
        ("multiclass", losses.multiclass_cross_entropy),
    ],
)
def test_the_classifications_of_chapter_5(task, factory):
    params, batch = _chapter5(task)
    loss = factory(models.multilayer_perceptron)(params, batch)
    np.testing.assert_allclose(loss, ANSWERS["chapter5"][task]["nll"], rtol=64 * EPS)


def test_the_best_spread_of_chapter_5_is_stationary():
    # With one learned spread the best one is the root of the mean squared residual.
    params, batch = _chapter5("regression")
    params[-1]["bias"] = jnp.asarray(0.27)
    expected = ANSWERS["chapter5"]["regression"]["best_sigma_given_beta1_0p27"]

    def model(log_sigma, x):
        return models.multilayer_perceptron(params, x), log_sigma

    loss_fn = losses.gaussian_negative_log_likelihood(model)
    best = jnp.log(expected)
    np.testing.assert_allclose(jax.grad(loss_fn)(best, batch), 0.0, atol=1e-13)
    fixed_fn = losses.gaussian_negative_log_likelihood(
        models.multilayer_perceptron, sigma=expected
    )
    fixed = fixed_fn(params, batch)
    np.testing.assert_allclose(loss_fn(best, batch), fixed, rtol=256 * EPS)


# ------------------------------------------------------------------ other libraries


@pytest.mark.parametrize("shape", [(6,), (6, 3)])
def test_binary_cross_entropy_is_optaxs_and_scikit_learns(shape):
    logits, y = RNG.normal(size=shape) * 5, RNG.integers(0, 2, shape)
    batch = (None, y)
    loss = losses.binary_cross_entropy(identity)(jnp.asarray(logits), batch)
    peer = optax.losses.sigmoid_binary_cross_entropy(
        jnp.asarray(logits), jnp.asarray(y, float)
    )
    np.testing.assert_allclose(loss, peer.sum(), rtol=32 * EPS)
    probability = 1 / (1 + np.exp(-logits.ravel()))
    peer = sklearn.metrics.log_loss(
        y.ravel(), probability, normalize=False, labels=[0, 1]
    )
    np.testing.assert_allclose(loss, peer, rtol=1e-12)


@pytest.mark.parametrize("logit", [-1e4, -40.0, 0.0, 40.0, 1e4])
@pytest.mark.parametrize("y", [0, 1, 0.25])
def test_binary_cross_entropy_is_accurate_for_any_logit(logit, y):
    loss_fn = losses.binary_cross_entropy(identity)
    batch = (None, jnp.asarray([y]))
    expected = y * np.logaddexp(0, -logit) + (1 - y) * np.logaddexp(0, logit)
    logits = jnp.asarray([logit])
    np.testing.assert_allclose(loss_fn(logits, batch), expected, rtol=8 * EPS)
    sigmoid = 1 / (1 + np.exp(-logit)) if logit > -700 else 0.0
    grad = jax.grad(loss_fn)(logits, batch)
    np.testing.assert_allclose(grad, [sigmoid - y], rtol=8 * EPS, atol=EPS)
    # The curvature at zero logits, where training starts, is 1/4.
    hessian = jax.hessian(loss_fn)(logits, batch)
    curvature = sigmoid * (1 - sigmoid)
    np.testing.assert_allclose(hessian[0, 0], curvature, rtol=8 * EPS, atol=EPS)


def test_multiclass_cross_entropy_is_optaxs_and_scikit_learns():
    logits, y = RNG.normal(size=(9, 4)) * 5, np.array([0, 1, 2, 3, 3, 2, 1, 0, 0])
    loss = losses.multiclass_cross_entropy(identity)(jnp.asarray(logits), (None, y))
    peer = optax.losses.softmax_cross_entropy_with_integer_labels(
        jnp.asarray(logits), jnp.asarray(y)
    )
    np.testing.assert_allclose(loss, peer.sum(), rtol=32 * EPS)
    probability = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    peer = sklearn.metrics.log_loss(y, probability, normalize=False)
    np.testing.assert_allclose(loss, peer, rtol=1e-12)


@pytest.mark.parametrize("label", [-1, 4])
def test_a_label_out_of_range_makes_the_loss_nan(label):
    logits = jnp.asarray(RNG.normal(size=(2, 4)))
    batch = (None, np.array([1, label]))
    assert jnp.isnan(losses.multiclass_cross_entropy(identity)(logits, batch))


@pytest.mark.parametrize("sigma", [(), (3,), (6, 3)])
@pytest.mark.parametrize("log_factor", [None, (), (3,), (6, 3)])
def test_gaussian_likelihood_is_scipys(sigma, log_factor):
    mean, y = RNG.normal(size=(6, 3)), RNG.normal(size=(6, 3))
    sigma = RNG.uniform(0.5, 2.0, sigma)
    params, spread = jnp.asarray(mean), sigma
    if log_factor is not None:
        factor = RNG.normal(size=log_factor)
        params, spread = (params, jnp.asarray(factor)), sigma * np.exp(factor)
    loss_fn = losses.gaussian_negative_log_likelihood(identity, sigma=sigma)
    expected = -scipy.stats.norm.logpdf(y, mean, spread).sum()
    np.testing.assert_allclose(loss_fn(params, (None, y)), expected, rtol=64 * EPS)


def test_least_squares_of_vectors_is_scikit_learns():
    y, prediction = RNG.normal(size=(2, 6, 3))
    weights = RNG.uniform(size=6)
    weights *= 6 / weights.sum()
    peer = sklearn.metrics.mean_squared_error(y, prediction, sample_weight=weights)
    loss_fn = losses.least_squares(identity, reduction="mean", weights=weights)
    loss = loss_fn(jnp.asarray(prediction), (None, y))
    np.testing.assert_allclose(loss, 3 * peer, rtol=32 * EPS)


# ---------------------------------------------------------------- reduction and weights


@every_factory
def test_mean_is_the_sum_over_the_number_of_rows(name):
    prediction, batch = _example(name)
    total = FACTORIES[name](identity)(prediction, batch)
    mean = FACTORIES[name](identity, reduction="mean")(prediction, batch)
    np.testing.assert_allclose(6 * mean, total, rtol=4 * EPS)


@every_factory
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_a_whole_weight_repeats_its_row(name, reduction):
    prediction, (x, y) = _example(name)
    weights = np.array([1, 0, 2, 1, 3, 1])
    repeated = np.repeat(np.arange(6), weights)
    factory = functools.partial(FACTORIES[name], identity, reduction=reduction)
    expected = factory()(prediction[repeated], (x[repeated], y[repeated]))
    if reduction == "mean":
        expected = expected * (8 / 6)
    bound = factory(weights=weights)(prediction, (x, y))
    np.testing.assert_allclose(bound, expected, rtol=16 * EPS)
    drawn = factory()(prediction, (x, y, weights))
    assert drawn == bound


@every_factory
def test_weighted_minibatches_add_up_to_the_full_batch(name):
    prediction, (x, y) = _example(name)
    weights = RNG.uniform(size=6)
    loss_fn = FACTORIES[name](identity)
    parts = [
        loss_fn(prediction[rows], (x[rows], y[rows], weights[rows]))
        for rows in (slice(0, 4), slice(4, 6))
    ]
    total = loss_fn(prediction, (x, y, weights))
    np.testing.assert_allclose(sum(parts), total, rtol=16 * EPS)


def test_gradients_with_respect_to_zero_weights_are_finite():
    prediction, (x, y) = _example("least_squares")

    def total(weights):
        loss_fn = losses.least_squares(identity, weights=weights)
        return (losses.residual_fn(loss_fn)(prediction, (x, y)) ** 2).sum()

    assert jnp.isfinite(jax.grad(total)(jnp.zeros(6))).all()


# ------------------------------------------------------------------ dtypes and flags


@every_factory
@pytest.mark.parametrize(
    ("dtype", "expected"),
    [("bfloat16", "float32"), ("float32", "float32"), ("float64", "float64")],
)
def test_predictions_are_reduced_in_at_least_float32(name, dtype, expected):
    prediction, batch = _example(name)
    loss_fn = losses.with_l2(FACTORIES[name](identity, weights=np.ones(6)), 0.1)
    loss = loss_fn(prediction.astype(dtype), batch)
    assert loss.dtype == expected
    wide = loss_fn(prediction.astype(dtype).astype("float64"), batch)
    np.testing.assert_allclose(
        float(loss), float(wide), rtol=64 * float(jnp.finfo(expected).eps)
    )
    assert jax.grad(loss_fn)(prediction.astype(dtype), batch).dtype == dtype


def test_a_million_bfloat16_rows_do_not_stall_the_sum():
    rows = jnp.ones(2**20, jnp.bfloat16)
    assert losses.least_squares(identity)(rows, (None, 0 * rows)) == 2**20


@every_factory
@pytest.mark.usefixtures("float32")
def test_losses_are_float32_without_x64(name):
    prediction, batch = _example(name)
    loss_fn = losses.with_l2(FACTORIES[name](identity), np.float64(0.1))
    assert loss_fn(prediction, batch).dtype == jnp.float32


@every_factory
def test_losses_jit_and_vmap(name):
    prediction, batch = _example(name)
    loss_fn = FACTORIES[name](identity)
    lanes = jnp.stack([prediction, 2.0 * prediction])
    loop = [loss_fn(lane, batch) for lane in lanes]
    mapped = jax.jit(jax.vmap(loss_fn, in_axes=(0, None)))(lanes, batch)
    np.testing.assert_allclose(mapped, loop, rtol=32 * EPS)


# ------------------------------------------------------------------ code and numbers


def test_numbers_are_leaves():
    model = functools.partial(models.gabor, envelope_width=4.0)
    loss_fn = losses.with_l2(losses.least_squares(model), 1e-3)
    key, numbers = _tree.split(loss_fn)
    assert sorted(numbers) == [1e-3, 4.0]
    assert _tree.is_importable(loss_fn)
    other = losses.with_l2(
        losses.least_squares(Partial(models.gabor, envelope_width=2.0)), 1
    )
    assert _tree.split(other)[0] == key
    _, numbers = _tree.split(
        losses.gaussian_negative_log_likelihood(models.linear, sigma=np.float32(0.5))
    )
    assert numbers == [0.5]


def test_what_shapes_the_program_is_in_its_key():
    keys = {
        _tree.split(factory(model, reduction=reduction))[0]
        for factory in FACTORIES.values()
        for model in (models.linear, models.polynomial)
        for reduction in ("sum", "mean")
    }
    assert len(keys) == 16


def test_a_penalty_and_a_width_are_differentiable():
    data = datasets.gabor()
    params = jnp.array([-1.5, 8.5])

    def loss(weight, width):
        model = Partial(models.gabor, envelope_width=width)
        return losses.with_l2(losses.least_squares(model), weight)(params, data)

    by_weight, by_width = jax.grad(loss, argnums=(0, 1))(0.1, 4.0)
    np.testing.assert_allclose(by_weight, (params**2).sum(), rtol=4 * EPS)
    difference = (loss(0.1, 4.0 + 1e-5) - loss(0.1, 4.0 - 1e-5)) / 2e-5
    np.testing.assert_allclose(by_width, difference, rtol=1e-8)


def test_data_may_be_bound():
    loss_fn = losses.least_squares(models.linear, reduction="mean")
    data = datasets.linear_regression()
    params = {"weight": 0.5, "bias": 1.0}
    bound = _tree.as_partial(functools.partial(loss_fn, batch=data), "test", "loss_fn")
    assert bound(params) == loss_fn(params, data)
    penalized = losses.with_l2(bound, 2.0)
    assert penalized(params) == loss_fn(params, data) + 2.5
    for unbound, form in [(loss_fn, bound), (losses.with_l2(loss_fn, 2.0), penalized)]:
        expected = losses.residual_fn(unbound)(params, data)
        assert (losses.residual_fn(form)(params) == expected).all()


# ------------------------------------------------------------------ the penalty


def test_the_penalty_is_the_sum_of_squares_of_every_leaf():
    params = {"a": jnp.arange(6.0).reshape(2, 3), "b": (jnp.float32(2.0), 3.0, ())}
    loss_fn = losses.with_l2(lambda params: jnp.float64(1.0) * params["b"][1], 0.5)
    np.testing.assert_allclose(loss_fn(params), 3.0 + 0.5 * (55 + 4 + 9), rtol=4 * EPS)
    grad = jax.grad(loss_fn)(params)
    np.testing.assert_allclose(grad["a"], params["a"], rtol=4 * EPS)


def test_the_penalty_keeps_aux():
    loss_fn = losses.with_l2(lambda params, batch: (params * batch, {"aux": 7}), 2.0)
    loss, aux = loss_fn(3.0, 5.0)
    assert (float(loss), aux) == (33.0, {"aux": 7})
    (loss, aux), grad = jax.value_and_grad(loss_fn, has_aux=True)(3.0, 5.0)
    assert (float(loss), float(grad), aux) == (33.0, 17.0, {"aux": 7})


def test_the_penalty_of_a_penalty_adds_up():
    once = losses.with_l2(lambda params: 0.0 * params, 5.0)
    twice = losses.with_l2(losses.with_l2(lambda params: 0.0 * params, 2.0), 3.0)
    assert once(4.0) == twice(4.0) == 80.0


# ------------------------------------------------------------------ keys


@every_factory
def test_a_model_that_takes_a_key_makes_a_loss_that_does(name):
    prediction, batch = _example(name)
    keyed = FACTORIES[name](dropout)
    plain = FACTORIES[name](identity)
    for loss_fn, plain_fn in [
        (keyed, plain),
        (losses.with_l2(keyed, 0.0), losses.with_l2(plain, 0.0)),
    ]:
        assert _checks.takes_key(loss_fn)
        assert not _checks.takes_key(plain_fn)
        assert _tree.is_importable(loss_fn)
        found = []
        for seed in (0, 1, 2):
            key = jax.random.key(seed)
            masked = dropout(prediction, None, key=key)
            found.append(loss_fn(prediction, batch, key=key))
            assert found[-1] == plain_fn(masked, batch)
        assert len(set(map(float, found))) > 1


def test_a_model_whose_key_is_bound_takes_none():
    model = functools.partial(dropout, key=jax.random.key(0))
    loss_fn = losses.least_squares(model)
    assert not _checks.takes_key(loss_fn)
    prediction, batch = _example("least_squares")
    assert loss_fn(prediction, batch).shape == ()


# ------------------------------------------------------------------ residuals


@pytest.mark.parametrize("penalty", [None, 0.0, 0.7])
@pytest.mark.parametrize("weights", [None, "bound", "drawn"])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_the_squares_of_the_residuals_are_the_loss(reduction, weights, penalty):
    layer = {
        "weight": jnp.asarray(RNG.normal(size=(3, 2))),
        "bias": jnp.asarray(RNG.normal(size=2)),
    }
    x, y = RNG.normal(size=(6, 3)), RNG.normal(size=(6, 2))
    row_weights = RNG.uniform(size=6)
    bound = row_weights if weights == "bound" else None
    batch = (x, y, row_weights) if weights == "drawn" else (x, y)
    loss_fn = losses.least_squares(models.linear, reduction=reduction, weights=bound)
    if penalty is not None:
        loss_fn = losses.with_l2(losses.with_l2(loss_fn, penalty), penalty)
    residual_fn = losses.residual_fn(loss_fn)

    @jax.jit
    def measure(layer):
        residual, pull_back = jax.vjp(lambda layer: residual_fn(layer, batch), layer)
        loss, grad = jax.value_and_grad(loss_fn)(layer, batch)
        return residual, pull_back(residual)[0], loss, grad

    residual, product, loss, grad = measure(layer)
    assert residual.shape == (12 if penalty is None else 12 + 2 * 8,)
    np.testing.assert_allclose((residual**2).sum(), loss, rtol=16 * EPS)
    # 2 J'r is the gradient.
    for found, expected in zip(*map(jax.tree.leaves, (product, grad)), strict=True):
        np.testing.assert_allclose(2 * found, expected, rtol=1e-12, atol=64 * EPS)
    assert _tree.is_importable(residual_fn)


@pytest.mark.parametrize(
    ("loss_fn", "got"),
    [
        (losses.binary_cross_entropy(identity), "binary_cross_entropy"),
        (losses.with_l2(losses.binary_cross_entropy(identity), 1.0), "binary_cross"),
        (losses.least_squares(dropout), "a loss whose model takes a `key`"),
        (_example, "_example"),
    ],
)
def test_other_losses_have_no_residuals(loss_fn, got):
    sentence = f"`loss_fn` must come from `least_squares`, perhaps .*, got {got}"
    with pytest.raises(ValueError, match=sentence):
        losses.residual_fn(loss_fn)


# ------------------------------------------------------------------ wrong calls


ROWS = np.ones(12)
LOSS_FN = losses.least_squares(identity)
WRONG = [
    (
        lambda: LOSS_FN(jnp.ones([12, 1]), (None, ROWS)),
        "least_squares: the prediction must have the shape of y, got [12, 1] against "
        "[12]; add or drop an axis, for example y[:, None] or prediction[:, 0].",
    ),
    (
        lambda: LOSS_FN(jnp.ones(11), (None, ROWS)),
        "least_squares: the prediction must have the shape of y, got [11] against "
        "[12].",
    ),
    (
        lambda: losses.binary_cross_entropy(identity)(jnp.ones([12, 1]), (None, ROWS)),
        "binary_cross_entropy: the prediction must have the shape of y, got [12, 1]",
    ),
    (
        lambda: losses.gaussian_negative_log_likelihood(identity)(1.0, (None, ROWS)),
        "gaussian_negative_log_likelihood: the prediction must have the shape of y",
    ),
    (
        lambda: losses.gaussian_negative_log_likelihood(identity)(
            (jnp.ones(12), jnp.ones([12, 1])), (None, ROWS)
        ),
        "gaussian_negative_log_likelihood: `log_sigma` must be a number, one per "
        "output or one per entry of y [12], got shape [12, 1]",
    ),
    (
        lambda: losses.gaussian_negative_log_likelihood(identity)(
            (jnp.ones(12), 0.0, 0.0), (None, ROWS)
        ),
        "the model must return the mean or the pair (mean, log_sigma), got a tuple of "
        "3.",
    ),
    (
        lambda: losses.gaussian_negative_log_likelihood(identity, sigma=0),
        "gaussian_negative_log_likelihood: `sigma` must be > 0, got 0.0.",
    ),
    (
        lambda: losses.multiclass_cross_entropy(identity)(
            jnp.ones([11, 3]), (None, np.ones(12, int))
        ),
        "multiclass_cross_entropy: logits [I, K] and labels [I] must have the same "
        "rows, but the prediction has shape [11, 3] and y [12].",
    ),
    (
        lambda: LOSS_FN(jnp.ones(12), {"x": ROWS, "y": ROWS}),
        "least_squares: the batch must be (x, y) or (x, y, weights) with y and weights "
        "arrays, got a dict with the keys ['x', 'y']; a loss is",
    ),
    (
        lambda: LOSS_FN(jnp.ones(12), [(ROWS, ROWS), (ROWS, ROWS)]),
        "arrays, got a list of 2 (tuple, tuple); a loss",
    ),
    (
        lambda: LOSS_FN(jnp.ones(12), ROWS),
        "got an array of float64[12]; a loss is called as",
    ),
    (lambda: LOSS_FN(jnp.ones(12), None), "got None; a loss is called as"),
    (
        lambda: LOSS_FN({"a": jnp.ones(12)}, (None, ROWS)),
        "least_squares: the model must return one array, got a dict with the keys "
        "['a'].",
    ),
    (
        lambda: LOSS_FN(jnp.ones(12), (None, ROWS, ROWS[:5])),
        "least_squares: `weights` must have shape [12], one for each row of the batch, "
        "got [5]; rows that are drawn in minibatches bring their weights in the data, "
        "as (x, y, weights).",
    ),
    (
        lambda: losses.least_squares(identity, weights=ROWS)(
            jnp.ones(12), (None, ROWS, ROWS)
        ),
        "least_squares: weights are both bound to the loss and the third member of the "
        "batch; keep one of them.",
    ),
    (
        lambda: losses.least_squares(identity, weights=np.array([1.0, -1.0])),
        "least_squares: `weights` must be >= 0, got -1.0.",
    ),
    (
        lambda: losses.least_squares(identity, reduction="avg"),
        "least_squares: `reduction` must be one of ['mean', 'sum'], got 'avg'",
    ),
    (
        lambda: losses.with_l2(LOSS_FN, -0.5),
        "with_l2: `weight` must be >= 0, got -0.5.",
    ),
]


@pytest.mark.parametrize(("call", "sentence"), WRONG)
def test_a_wrong_call_is_one_sentence(call, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        call()


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (
            lambda: losses.multiclass_cross_entropy(identity)(
                jnp.ones([12, 3]), (None, ROWS)
            ),
            "y must hold integer class labels [I], got an array of float64[12]; ",
        ),
        (lambda: losses.least_squares(3), "least_squares: `model` must be a function"),
        (lambda: losses.with_l2(None, 1), "with_l2: `loss_fn` must be a function"),
        (lambda: losses.with_l2(LOSS_FN, "1"), "with_l2: `weight` must be a real"),
    ],
)
def test_a_wrong_type_is_one_sentence(call, sentence):
    with pytest.raises(TypeError, match=re.escape(sentence)):
        call()
