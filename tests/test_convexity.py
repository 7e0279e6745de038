"""The calls that decide convexity: verdicts, reports, ranges of data, wrong calls."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import phihat
from phihat import Box, Verdict, datasets, losses, models
from phihat.convexity import (
    certify_convexity,
    check_convexity,
    convex_blocks,
    prove_convexity,
    refute_convexity,
    replay,
)
from tests.convexity_losses import LOSSES


@pytest.mark.parametrize("name", LOSSES)
def test_the_forty_losses(name):
    """Every convex one is proved, also those of which the truth alone was known."""
    loss_fn, params, data, domain, truth = LOSSES[name]
    report = check_convexity(loss_fn, params, data, domain=domain)
    if truth == "R":
        assert report.verdict is Verdict.REFUTED
        assert report.witness.rigorous
        assert report.blame
    else:
        assert report.verdict is Verdict.PROVED_CONVEX
        assert replay(report, loss_fn, params, data, domain=domain)


# ------------------------------------------------------------ the losses of phihat

LINEAR = {"weight": jnp.zeros(3), "bias": 0.0}
MATRIX = {"weight": jnp.zeros((3, 4)), "bias": jnp.zeros(4)}
_rng = np.random.default_rng(4)
X, Y = _rng.normal(size=(12, 3)), _rng.normal(size=12)
LABELS, CLASSES = (Y > 0).astype(float), _rng.integers(0, 4, 12)

OURS = {
    "least squares": (losses.least_squares(models.linear), LINEAR, (X, Y)),
    "mean": (losses.least_squares(models.linear, reduction="mean"), LINEAR, (X, Y)),
    "weighted": (
        losses.least_squares(models.linear, weights=np.abs(Y)),
        LINEAR,
        (X, Y),
    ),
    "vector outputs": (
        losses.least_squares(models.linear),
        MATRIX,
        (X, _rng.normal(size=(12, 4))),
    ),
    "binary": (losses.binary_cross_entropy(models.linear), LINEAR, (X, LABELS)),
    "multiclass": (
        losses.multiclass_cross_entropy(models.linear),
        MATRIX,
        (X, CLASSES),
    ),
    "Gaussian": (
        losses.gaussian_negative_log_likelihood(models.linear),
        LINEAR,
        (X, Y),
    ),
    "penalised": (
        losses.with_l2(losses.binary_cross_entropy(models.linear), 0.1),
        LINEAR,
        (X, LABELS),
    ),
}


@pytest.mark.parametrize("name", OURS)
def test_our_losses_of_a_linear_model_are_convex(name):
    report = prove_convexity(*OURS[name])
    assert report.verdict is Verdict.PROVED_CONVEX


CONVEX_LOSSES_OF_OPTAX = {
    "squared_error": lambda z: optax.squared_error(z, Y),
    "l2_loss": lambda z: optax.l2_loss(z, Y),
    "huber_loss": lambda z: optax.huber_loss(z, Y, delta=0.7),
    "log_cosh": lambda z: optax.log_cosh(z, Y),
    "hinge_loss": lambda z: optax.hinge_loss(z, 2 * LABELS - 1),
    "perceptron_loss": lambda z: optax.losses.perceptron_loss(z, 2 * LABELS - 1),
    "sigmoid_binary_cross_entropy": lambda z: optax.sigmoid_binary_cross_entropy(
        z, LABELS
    ),
    "sparsemax_loss": lambda z: optax.losses.sparsemax_loss(z, LABELS.astype(int)),
}
CONVEX_LOSSES_OF_SEVERAL_LOGITS = {
    "softmax_cross_entropy": lambda z: optax.softmax_cross_entropy(
        z, jax.nn.one_hot(CLASSES, 4)
    ),
    "softmax_cross_entropy_with_integer_labels": lambda z: (
        optax.softmax_cross_entropy_with_integer_labels(z, CLASSES)
    ),
    "multiclass_hinge_loss": lambda z: optax.losses.multiclass_hinge_loss(z, CLASSES),
    "multiclass_perceptron_loss": lambda z: optax.losses.multiclass_perceptron_loss(
        z, CLASSES
    ),
    "kl_divergence": lambda z: optax.losses.kl_divergence(
        jax.nn.log_softmax(z), jax.nn.one_hot(CLASSES, 4)
    ),
    "fenchel_young": lambda z: optax.losses.make_fenchel_young_loss(jax.nn.logsumexp)(
        z, jax.nn.one_hot(CLASSES, 4)
    ),
}


@pytest.fixture
def relaxed():
    """Losses of optax mix dtypes and ranks."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.mark.usefixtures("relaxed")
@pytest.mark.parametrize("name", CONVEX_LOSSES_OF_OPTAX)
def test_convex_losses_of_optax(name):
    loss_fn = lambda w: jnp.mean(CONVEX_LOSSES_OF_OPTAX[name](X @ w))
    assert prove_convexity(loss_fn, jnp.zeros(3)).verdict is Verdict.PROVED_CONVEX


@pytest.mark.usefixtures("relaxed")
@pytest.mark.parametrize("name", CONVEX_LOSSES_OF_SEVERAL_LOGITS)
def test_convex_losses_of_optax_of_several_logits(name):
    def loss_fn(w):
        return jnp.mean(CONVEX_LOSSES_OF_SEVERAL_LOGITS[name](X @ w))

    report = prove_convexity(loss_fn, jnp.zeros((3, 4)))
    assert report.verdict is Verdict.PROVED_CONVEX


def stable_cross_entropy(z):
    return jnp.maximum(z, 0) - z * LABELS + jnp.log1p(jnp.exp(-jnp.abs(z)))


def by_hand(z):
    top = jnp.max(z)
    return jnp.log(jnp.sum(jnp.exp(z - top))) + top


HAND_WRITTEN = {
    "stable cross-entropy": lambda z: jnp.sum(stable_cross_entropy(z)),
    "log-sum-exp": by_hand,
    "naive cross-entropy": lambda z: (
        -jnp.sum(
            LABELS * jnp.log(jax.nn.sigmoid(z))
            + (1 - LABELS) * jnp.log(1 - jax.nn.sigmoid(z))
        )
    ),
    "sigmoid by hand": lambda z: (
        -jnp.sum(
            LABELS * jnp.log(1 / (1 + jnp.exp(-z)))
            + (1 - LABELS) * jnp.log(1 - 1 / (1 + jnp.exp(-z)))
        )
    ),
    "Huber by where": lambda z: jnp.sum(
        jnp.where(jnp.abs(z) <= 1, 0.5 * z**2, jnp.abs(z) - 0.5)
    ),
    "pinball by where": lambda z: jnp.sum(jnp.where(z > 0, 0.3 * z, -0.7 * z)),
    "masked log-sum-exp": lambda z: jax.nn.logsumexp(
        jnp.where(LABELS > 0, z, -jnp.inf)
    ),
    "weighted largest": lambda z: jnp.sort(z)[::-1] @ np.linspace(2.0, 0.5, 12),
    "probit": lambda z: -jnp.sum(jax.scipy.stats.norm.logcdf(z)),
    "standard deviation": jnp.std,
    "total variation": lambda z: jnp.sum(jnp.abs(jnp.diff(z))),
    "smooth, by its second derivative": lambda z: jnp.sum(z**2 + jnp.sin(z)),
}


@pytest.mark.usefixtures("relaxed")
@pytest.mark.parametrize("name", HAND_WRITTEN)
def test_convex_losses_written_by_hand(name):
    loss_fn = lambda w: HAND_WRITTEN[name](X @ w)
    assert prove_convexity(loss_fn, jnp.zeros(3)).verdict is Verdict.PROVED_CONVEX


def test_the_four_tasks_and_the_deck():
    """The verdict for each task of the deck, with its model and loss."""
    standard = datasets.standardize
    diabetes, linnerud = datasets.diabetes(), datasets.linnerud()
    cancer, digits = datasets.breast_cancer(), datasets.digits()
    perceptron = models.init_multilayer_perceptron(jax.random.key(0), (64, 8, 10))
    tasks = {
        "diabetes": (
            losses.least_squares(models.linear),
            {"weight": jnp.zeros(diabetes[0].shape[1]), "bias": 0.0},
            (standard(diabetes[0]), diabetes[1]),
        ),
        "linnerud": (
            losses.least_squares(models.linear),
            {
                "weight": jnp.zeros((linnerud[0].shape[1], linnerud[1].shape[1])),
                "bias": jnp.zeros(linnerud[1].shape[1]),
            },
            (standard(linnerud[0]), linnerud[1]),
        ),
        "breast cancer": (
            losses.binary_cross_entropy(models.linear),
            {"weight": jnp.zeros(cancer[0].shape[1]), "bias": 0.0},
            (standard(cancer[0]), cancer[1]),
        ),
        "digits": (
            losses.multiclass_cross_entropy(models.multilayer_perceptron),
            perceptron,
            (digits[0][:40], digits[1][:40]),
        ),
        "line": (
            losses.least_squares(models.linear),
            {"weight": 0.0, "bias": 0.0},
            datasets.linear_regression(),
        ),
        "Gabor": (
            losses.least_squares(models.gabor),
            jnp.array([0.0, 10.0]),
            datasets.gabor(),
        ),
    }
    verdicts = {name: check_convexity(*task).verdict for name, task in tasks.items()}
    refuted = {"digits", "Gabor"}
    assert verdicts == {
        name: Verdict.REFUTED if name in refuted else Verdict.PROVED_CONVEX
        for name in tasks
    }


# -------------------------------------------------------------- every set of data


@pytest.mark.parametrize(
    ("loss_fn", "params", "low", "high"),
    [
        (
            losses.least_squares(models.linear),
            LINEAR,
            (np.full((9, 3), -5.0), np.full(9, -7.0)),
            (np.full((9, 3), 5.0), np.full(9, 7.0)),
        ),
        (
            losses.binary_cross_entropy(models.linear),
            LINEAR,
            (np.full((9, 3), -5.0), np.zeros(9)),
            (np.full((9, 3), 5.0), np.ones(9)),
        ),
        (
            losses.multiclass_cross_entropy(models.linear),
            MATRIX,
            (np.full((9, 3), -5.0), np.zeros(9, int)),
            (np.full((9, 3), 5.0), np.full(9, 3)),
        ),
    ],
    ids=["least squares", "binary", "multiclass"],
)
def test_for_every_data_set_in_a_range(loss_fn, params, low, high):
    report = prove_convexity(loss_fn, params, Box(low, high))
    assert report.verdict is Verdict.PROVED_CONVEX
    assert "for all data in the range" in report.scope


def test_a_range_of_weights_that_holds_negative_ones_is_not_proved():
    loss_fn = lambda w, c: jnp.sum(c * w**2)
    positive, mixed = Box(np.zeros(2), np.ones(2)), Box(-np.ones(2), np.ones(2))
    assert prove_convexity(loss_fn, jnp.ones(2), positive).is_convex
    assert check_convexity(loss_fn, jnp.ones(2), mixed).verdict is Verdict.REFUTED


# ----------------------------------------------------------------- blocks and scopes


def test_matrix_factorisation_is_convex_in_each_factor():
    def loss_fn(factors):
        return jnp.sum((factors["u"] @ factors["v"] - 1.0) ** 2)

    params = {"u": jnp.ones((3, 2)), "v": jnp.ones((2, 4))}
    assert convex_blocks(loss_fn, params) == [("['u']",), ("['v']",)]
    assert prove_convexity(loss_fn, params, wrt="u").is_convex
    assert check_convexity(loss_fn, params).verdict is Verdict.REFUTED


def test_blocks_hold_for_all_values_of_the_rest_or_for_the_given_ones():
    loss_fn = lambda p: p["c"] * p["w"] ** 2
    params = {"c": jnp.asarray(2.0), "w": jnp.asarray(1.0)}
    assert convex_blocks(loss_fn, params) == [("['c']",)]
    given = convex_blocks(loss_fn, params, held="given")
    assert given == [("['c']",), ("['w']",)]


def test_a_domain_makes_a_difference():
    cube = lambda x: x**3
    assert check_convexity(cube, 1.0).verdict is Verdict.REFUTED
    report = check_convexity(cube, 1.0, domain=Box(0.0, jnp.inf))
    assert report.verdict is Verdict.PROVED_CONVEX
    assert report.scope == "on the box given in R^1"


def test_affine_and_concave_have_their_own_verdicts():
    assert prove_convexity(lambda w: 2 * w + 1, 1.0).verdict is Verdict.PROVED_AFFINE
    report = prove_convexity(lambda w: -(w**2), 1.0)
    assert report.verdict is Verdict.PROVED_CONCAVE
    assert not report.is_convex


def test_the_box_decides_where_the_rules_do_not():
    report = check_convexity(
        lambda w: jnp.sum(w**2) + 0.3 * jnp.prod(jnp.cos(w)),
        jnp.zeros(2),
        domain=Box(-jnp.ones(2), jnp.ones(2)),
    )
    assert report.verdict is Verdict.CERTIFIED_ON_BOX
    assert 0.0 < report.mu <= report.L


def test_a_summand_that_is_proved_convex_helps_the_box():
    """A stable log-sum-exp has a kink that cancels, which boxes cannot see."""
    report = check_convexity(
        lambda w: jax.nn.logsumexp(w) + jnp.sum(w**2) + 0.3 * jnp.prod(jnp.cos(w)),
        jnp.zeros(2),
        domain=Box(-jnp.ones(2), jnp.ones(2)),
    )
    assert report.verdict is Verdict.CERTIFIED_ON_BOX
    assert report.mu > 1.0


# -------------------------------------------------------------------------- the slide


def test_the_report_reads_as_a_slide():
    convex = str(check_convexity(lambda w: jnp.sum(w**2), jnp.ones(2)))
    assert convex.splitlines()[0] == "PROVED CONVEX  on all of R^2"

    def clipped(w, data):
        probability = jnp.clip(jax.nn.sigmoid(data[0] @ w), 1e-7, 1 - 1e-7)
        return -jnp.sum(data[1] * jnp.log(probability))

    report = check_convexity(clipped, jnp.zeros(3), (X, LABELS))
    shown = str(report)
    assert report.verdict is Verdict.REFUTED
    assert "REFUTED" in shown
    assert "test_convexity.py:" in shown
    assert max(map(len, shown.splitlines())) <= 80
    assert len(shown.splitlines()) <= 16


def test_unknown_primitives_are_named():
    report = prove_convexity(lambda w: jnp.linalg.det(w), jnp.eye(3))
    assert report.verdict is Verdict.UNDECIDED
    assert any("lu" in str(blame) for blame in report.blame)
    random = lambda w, key: jnp.sum(w * jax.random.normal(key, (2,)))
    report = prove_convexity(random, jnp.ones(2), jax.random.key(0))
    assert report.verdict is Verdict.UNDECIDED
    assert "random" in str(report.blame[0])


def test_a_loop_of_many_rounds_is_given_up():
    many = lambda w: jax.lax.while_loop(
        lambda c: c[0] < 60_000, lambda c: (c[0] + 1, jnp.maximum(c[1], w)), (0, w)
    )[1]
    report = check_convexity(many, 1.0)
    assert report.verdict is Verdict.UNDECIDED
    assert "more rounds than can be unrolled" in report.reason


@pytest.mark.parametrize(
    ("name", "loss_fn"),
    {
        "sort": lambda w: jnp.sum(jnp.sort(w)[1:] ** 2),
        "top_k": lambda w: jnp.sum(jax.lax.top_k(w, 2)[0] ** 2),
        "conv_general_dilated": lambda w: jnp.sum(jnp.convolve(w, jnp.ones(2)) ** 2),
        "scan": lambda w: jax.lax.fori_loop(
            0, 5000, lambda _, c: jnp.tanh(c + w[0]), w[1]
        ),
    }.items(),
)
def test_what_the_certifier_cannot_read_is_named(name, loss_fn):
    report = certify_convexity(loss_fn, Box(-np.ones(3), np.ones(3)))
    assert report.verdict is Verdict.UNDECIDED
    assert report.blame[0].primitive == name


def test_a_report_is_no_boolean():
    with pytest.raises(TypeError, match=r"report\.verdict"):
        bool(prove_convexity(lambda w: w**2, 1.0))


# --------------------------------------------------------------------------- the flag


@pytest.mark.parametrize("name", ["logistic", "Huber", "chain CRF", "Gabor"])
def test_the_task_losses_keep_their_verdict_without_x64(name):
    loss_fn, params, data, domain, verdict = LOSSES[name]
    with jax.enable_x64(False):
        report = check_convexity(loss_fn, params, data, domain=domain)
    proved = Verdict.PROVED_CONVEX if verdict == "P" else Verdict.REFUTED
    assert report.verdict is proved


# ------------------------------------------------------------------------ certificates


def test_replay_rejects_what_was_not_proved():
    loss_fn = lambda w, c: jnp.sum(c * jnp.sqrt(1.0 + w**2))
    args = (jnp.ones(2), jnp.array([1.0, 2.0]))
    report = prove_convexity(loss_fn, *args)
    assert replay(report, loss_fn, *args)
    assert not replay(report, loss_fn, jnp.ones(2), jnp.array([1.0, 3.0]))
    assert not replay(report, lambda w, c: jnp.sum(c * w), *args)
    assert not replay(report, loss_fn, *args, domain=Box(0.0, 1.0))
    for position, line in enumerate(report.certificate):
        for field, value in (
            ("rule", "trust me"),
            ("outputs", ("[] affine",)),
            ("inputs", ()),
            ("primitive", "neg"),
            ("number", -1),
        ):
            lines = list(report.certificate)
            lines[position] = line._replace(**{field: value})
            forged = dataclasses.replace(report, certificate=tuple(lines))
            assert not replay(forged, loss_fn, *args)
    shorter = dataclasses.replace(report, certificate=report.certificate[:-1])
    assert not replay(shorter, loss_fn, *args)
    other = dataclasses.replace(report, verdict=Verdict.PROVED_AFFINE)
    assert not replay(other, loss_fn, *args)


# ------------------------------------------------------------------------ wrong calls


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: check_convexity(3, 1.0), TypeError, "`loss_fn`"),
        (lambda: check_convexity(lambda w: w**2, jnp.ones(2)), ValueError, "scalar"),
        (lambda: check_convexity(lambda w: jnp.sum(w > 0), 1.0), TypeError, "dtype"),
        (lambda: check_convexity(lambda w: w, jnp.array(1)), TypeError, "`params`"),
        (
            lambda: check_convexity(jnp.sum, {"a": 1.0, "b": jnp.array(2)}),
            TypeError,
            r"\['b'\]",
        ),
        (lambda: check_convexity(jnp.sum, jnp.zeros(0)), ValueError, "at least one"),
        (lambda: check_convexity(jnp.sum, jnp.array([jnp.nan])), ValueError, "finite"),
        (
            lambda: check_convexity(lambda w: w, 1.0, domain=(0, 1)),
            TypeError,
            "`domain`",
        ),
        (
            lambda: check_convexity(
                lambda w: w["a"], {"a": 1.0}, domain=Box({"b": 0.0}, {"b": 2.0})
            ),
            ValueError,
            "structure",
        ),
        (
            lambda: check_convexity(lambda w: w, 3.0, domain=Box(0.0, 1.0)),
            ValueError,
            "within",
        ),
        (
            lambda: check_convexity(lambda w: w["a"], {"a": 1.0}, wrt="b"),
            ValueError,
            "`wrt`",
        ),
        (
            lambda: check_convexity(lambda w: w, 1.0, budget=-1.0),
            ValueError,
            "`budget`",
        ),
        (
            lambda: convex_blocks(lambda w: w, 1.0, held="some"),
            ValueError,
            "`held`",
        ),
    ],
)
def test_wrong_calls(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_a_loss_that_raises_says_who_called_it():
    def broken(w):
        raise RuntimeError("no such column")

    with pytest.raises(RuntimeError, match="no such column") as caught:
        prove_convexity(broken, 1.0)
    assert any("prove_convexity" in note for note in caught.value.__notes__)


@pytest.mark.parametrize(
    "loss_fn",
    [
        lambda w: w**2 + jnp.nan,
        lambda w: w**2 * jnp.inf,
        lambda w: jnp.log(-1.0 - w**2),
        lambda w: w**2 - jnp.log(w - 5.0),
    ],
    ids=["NaN", "infinite", "nowhere", "not at params"],
)
def test_no_vacuous_proofs(loss_fn):
    assert check_convexity(loss_fn, 1.0).verdict is Verdict.UNDECIDED


def test_a_budget_of_zero_still_proves_and_never_searches():
    assert check_convexity(lambda w: w**2, 1.0, budget=0.0).is_convex
    report = check_convexity(jnp.sin, 1.0, budget=0.0)
    assert report.verdict is Verdict.UNDECIDED
    assert refute_convexity(jnp.sin, 1.0, budget=0.0).verdict is Verdict.UNDECIDED


def test_data_with_nan_prove_nothing():
    loss_fn = losses.least_squares(models.linear)
    data = (jnp.ones((3, 3)), jnp.array([1.0, jnp.nan, 2.0]))
    assert check_convexity(loss_fn, LINEAR, data).verdict is Verdict.UNDECIDED


def test_lints_say_where_differentiation_sees_another_function():
    loss_fn = lambda w: -(w**2) + 2 * w * jax.lax.stop_gradient(w)
    report = check_convexity(loss_fn, 1.0)
    assert report.is_convex
    assert "stop_gradient" in " ".join(report.lints)
    assert phihat.convexity is not None
