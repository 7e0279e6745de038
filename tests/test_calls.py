"""Calls that cannot be carried out: what is said, in every public function."""

import inspect
import pickle
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

import phihat
from phihat import training
from phihat._core import calls, kinds
from tests import as_user, right_calls, wrong_calls

FUNCTIONS = right_calls.public_functions()


X = jnp.asarray([1.0, 2.0])


def loss_fn(x):
    return x**2


def test_every_public_function_has_a_row_and_explains_its_failed_calls():
    rows = {*right_calls.RIGHT_CALLS, *right_calls.NOT_CALLED}
    takes_arguments = {
        name
        for name, function in FUNCTIONS.items()
        if inspect.signature(function).parameters
    }
    assert takes_arguments - rows == set()
    assert rows - {*FUNCTIONS} == set()
    plain = [
        name
        for name, function in FUNCTIONS.items()
        if inspect.isfunction(function) and kinds.MARK not in vars(function)
    ]
    assert plain == []


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_misspelt_argument_is_answered_with_its_name(name):
    function = FUNCTIONS[name]
    for argument in inspect.signature(function).parameters:
        word = wrong_calls.misspelt(argument)
        if word in inspect.signature(function).parameters:
            continue
        with pytest.raises(TypeError, match=f"no argument `{word}`.*`{argument}`"):
            function(**{word: 1})


PEERS = {
    "lr": (lambda: phihat.adam(lr=0.1), "adam.*`lr`.*called `learning_rate`"),
    "betas": (lambda: phihat.adam(0.1, betas=(0.9, 0.999)), "`b1` and `b2`"),
    "a rate for fit": (
        lambda: phihat.fit(loss_fn, 1.0, phihat.adam(0.1), lr=0.1),
        "belongs to the optimizer",
    ),
    "epochs": (
        lambda: phihat.fit(loss_fn, 1.0, phihat.adam(0.1), epochs=3),
        "called `num_epochs`",
    ),
    "weight decay": (
        lambda: phihat.fit(loss_fn, 1.0, phihat.adam(0.1), weight_decay=3),
        "losses.with_l2",
    ),
    "p0": (lambda: phihat.fit_curve(loss_fn, 1, 2, p0=3), "called `start`"),
    "maxfev": (lambda: phihat.fit_curve(loss_fn, 1, 2, maxfev=3), "`num_steps`"),
    "xtol": (lambda: phihat.fit_curve(loss_fn, 1, 2, xtol=3), "`tolerance`"),
    "seed": (lambda: phihat.train(loss_fn, 1.0, None, seed=3), "called `key`"),
    "what train has": (
        lambda: phihat.fit(loss_fn, 1.0, None, progress=True),
        "`train`.*has `progress`",
    ),
    "a class": (lambda: phihat.Checkpoints("a", save_every=3), "called `every`"),
    "a named tuple": (lambda: phihat.Tolerance(gradientt=3), "mean `gradient`"),
    "too few": (lambda: phihat.fit(loss_fn, 1.0), "argument `optimizer` is missing"),
    "too many": (
        lambda: phihat.fit(loss_fn, 1.0, None, None, 100),
        "4 arguments by place .*got 5; give the others by name",
    ),
    "twice": (lambda: phihat.adam(0.1, learning_rate=1), "`learning_rate` is given tw"),
    "nothing near": (lambda: phihat.adam(0.1, zzz=1), "it takes `learning_rate`, `b1`"),
    "a flag": (lambda: phihat.minibatches(3, shuffle=None), "True or False, got None"),
    "a loss without a model": (
        lambda: phihat.fit(
            phihat.losses.least_squares, 1.0, phihat.adam(0.1), 1.0, num_steps=1
        ),
        "fit: `loss_fn` must be.*least_squares`, which was not called",
    ),
    "many eps in one fit": (
        lambda: phihat.fit(
            loss_fn, 1.0, phihat.adam(0.1, eps=jnp.ones(2)), num_steps=1
        ),
        r"`eps` of the optimizer must be a scalar.*\[2\]",
    ),
    "data for a loss that takes none": (
        lambda: phihat.hessian(loss_fn, 1.0, jnp.ones(3)),
        r"called as \(params, batch\), but its signature is \(x\)",
    ),
    "a number beyond floats": (
        lambda: phihat.adam(2**2000),
        r"^adam: `learning_rate` holds 1148.* \(int\); no float is as large, so",
    ),
    "data that were deleted": (
        lambda: phihat.hvp(lambda p, x: p @ x, X, X, wrong_calls.deleted(X)),
        r"^hvp: `data` holds an array of float64\[2\]; it has been deleted, by",
    ),
    "a curve of what was deleted": (
        lambda: phihat.fit_curve(
            lambda p, x: p[0] * x, X, wrong_calls.deleted(X), [1.0]
        ),
        "^fit_curve: `y` holds .* it has been deleted",
    ),
    "params that escaped": (
        lambda: phihat.hessian(
            lambda p: p["w"] @ p["w"], {"w": wrong_calls.escaped(X)}
        ),
        r"^hessian: `params` holds a tracer of f.*\[2\] at \['w'\], which escaped from",
    ),
}


@pytest.mark.parametrize("name", PEERS)
def test_what_it_is_called_here(name):
    call, words = PEERS[name]
    with pytest.raises((TypeError, ValueError), match=words) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_errors_of_the_callers_own_function_pass_unchanged():
    def broken(x):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        phihat.fit(broken, 1.0, phihat.adam(0.1), num_steps=1)


def test_functions_stay_what_they_were():
    assert next(iter(inspect.signature(phihat.adam).parameters)) == "learning_rate"
    assert pickle.loads(pickle.dumps(phihat.fit)) is phihat.fit
    rates = jnp.asarray([0.1, 0.2])
    found = jax.vmap(lambda rate: phihat.adam(rate).init(1.0).step)(rates)
    assert found.shape == (2,)


def test_a_warning_points_at_the_line_of_the_caller(tmp_path):
    checkpoint = phihat.Checkpoints(tmp_path / "run", every=1)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "stranger").touch()
    with pytest.warns(UserWarning, match="not a checkpoint") as caught:
        phihat.train(loss_fn, 1.0, phihat.adam(0.1), num_steps=1, checkpoint=checkpoint)
    assert caught[0].filename == __file__


def test_kinds_know_their_annotations():
    assert kinds.of("num_steps", int | None).accepts(None)
    assert not kinds.of("flag", bool).accepts(1)
    assert kinds.of("anything", None) is None
    assert calls.explain_arguments(training.train, (loss_fn, 1.0, phihat.adam), {})


def test_a_sample_of_the_table():
    """In a process of its own: the table is of the flags that users have."""
    names = ("phihat.adam", "minibatches", "datasets.split", "strong_wolfe", "hvp")
    ran = subprocess.run(
        [sys.executable, "-m", "tests.wrong_calls", "--only", *names],
        env=as_user.environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert "raw" not in ran.stdout, ran.stdout
    assert "silent" not in ran.stdout, ran.stdout
    assert int(ran.stdout.split()[0]) > 500
