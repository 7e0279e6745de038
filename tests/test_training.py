"""Long fits: the numbers of `fit`, whatever happens between the chunks."""

import concurrent.futures
import datetime
import itertools
import json
import operator
import os
import signal
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import phihat
from benchmarks.pairs import count_compilations
from phihat import Checkpoints, Status, training
from tests.as_user import run_as_user
from tests.cases import gabor_problem

LOSS, DATA = gabor_problem()
START = jnp.asarray([-2.0, 12.5])
KEY = jax.random.key(0)
CHUNKS = (1, 7, 100, None)


def leaves_by_path(tree):
    found = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        found[jax.tree_util.keystr(path)] = (str(leaf.dtype), np.asarray(leaf))
    return found


def assert_same(one, other):
    """Every leaf of two results is the same to the bit."""
    assert jax.tree.structure(one) == jax.tree.structure(other)
    mine, yours = leaves_by_path(one), leaves_by_path(other)
    different = [
        path
        for path in mine
        if mine[path][0] != yours[path][0]
        or mine[path][1].tobytes() != yours[path][1].tobytes()
    ]
    assert different == []


FITS = {
    "plain": {"num_steps": 250},
    "minibatches, all on record": {
        "num_steps": 250,
        "batch_size": 5,
        "key": jax.random.key(0),
        "record": ("loss", "params", "grad_norm", "learning_rate"),
    },
    "rows of 30 steps": {
        "num_epochs": 42,
        "batch_size": 5,
        "key": jax.random.key(1),
        "record": ("loss", "params", "sharpness"),
        "record_every": 30,
    },
    "until it converges": {"num_steps": 2000, "tolerance": 1e-2, "record_every": 3},
    "nothing on record": {"num_steps": 9, "record": ()},
    "steps alone": {"num_steps": 9, "record": ("step",), "record_every": 2},
}


_IN_FLOAT32 = """
import jax
import optax
import phihat

line = phihat.losses.least_squares(phihat.models.linear)
data = phihat.datasets.linear_regression()
start = {"weight": 0.0, "bias": 0.0}
batches = {"batch_size": 4, "key": jax.random.key(0)}
for make in (phihat.momentum, phihat.nesterov, phihat.adam):
    for settings in (batches, {}):
        once, parts = (
            call(line, start, make(0.01), data, num_steps=10, **settings).params
            for call in (phihat.fit, phihat.train)
        )
        assert once == parts, (make, settings, once, parts)

x, y = phihat.datasets.breast_cancer()
data = (phihat.datasets.standardize(x), y)
linear = phihat.losses.binary_cross_entropy(phihat.models.linear)
cross_entropy = phihat.losses.with_l2(linear, 0.5)
start = {"weight": jax.numpy.zeros(x.shape[1]), "bias": 0.0}
optimizer = optax.chain(optax.clip_by_global_norm(1.0), phihat.momentum(1e-3))


def fit(params, num_steps, **settings):
    settings |= {"num_steps": num_steps}
    return phihat.fit(cross_entropy, params, optimizer, data, **settings)


whole = fit(start, 37).params
rest = fit(None, 26, state=fit(start, 11).state).params
assert all((whole[name] == rest[name]).all() for name in whole), (whole, rest)
"""


def test_parts_are_the_whole_to_the_bit_for_users_without_x64(tmp_path):
    script = tmp_path / "float32.py"
    script.write_text(_IN_FLOAT32)
    run_as_user(script, XLA_FLAGS="")


@pytest.mark.bits
@pytest.mark.parametrize("name", FITS)
def test_train_is_fit_to_the_bit(name):
    settings = FITS[name]
    optimizer = phihat.nesterov(0.01)
    whole = phihat.fit(LOSS, START, optimizer, DATA, **settings)
    for chunk in CHUNKS:
        result = phihat.train(
            LOSS, START, optimizer, DATA, steps_per_chunk=chunk, **settings
        )
        assert_same(whole, result)


def test_a_fit_that_fails_stops_where_fit_does():
    # No overflow in squares of the gradient: compilers choose when that is infinite.
    loss_fn = lambda x: jnp.where(jnp.abs(x) < 1e20, x**4, jnp.inf)
    optimizer = phihat.gradient_descent(1.0)
    settings = {"num_steps": 20, "record": ("loss", "params"), "record_every": 2}
    whole = phihat.fit(loss_fn, 9.0, optimizer, **settings)
    assert whole.status == Status.NONFINITE_LOSS
    for chunk in CHUNKS:
        result = phihat.train(
            loss_fn, 9.0, optimizer, steps_per_chunk=chunk, **settings
        )
        assert_same(whole, result)


# -------------------------------------------------------------- between the chunks


@pytest.mark.bits
def test_what_happens_between_chunks_changes_no_number(tmp_path, capfd):
    settings = FITS["minibatches, all on record"]
    optimizer = phihat.adam(0.1)
    whole = phihat.fit(LOSS, START, optimizer, DATA, **settings)
    seen = []
    result = phihat.train(
        LOSS,
        START,
        optimizer,
        DATA,
        **settings,
        progress=True,
        time_limit=1000,
        log_to=tmp_path / "log" / "rows.jsonl",
        callbacks=[lambda state, rows: seen.append((state, rows))],
        checkpoint=Checkpoints(tmp_path / "run", every=60, keep=2),
        steps_per_chunk=40,
    )
    assert_same(whole, result)
    assert capfd.readouterr().err == ""  # no terminal, no bar

    steps = [int(state.step) for state, _ in seen]
    assert steps == [40, 60, 80, 120, 160, 180, 200, 240, 250]
    assert Checkpoints(tmp_path / "run").steps() == [240, 250]
    losses = np.concatenate([rows["loss"] for _, rows in seen])
    np.testing.assert_array_equal(losses, whole.history["loss"])
    assert [rows["step"][0] for _, rows in seen] == [0, *steps[:-1]]
    assert all(not state.params.is_deleted() for state, _ in seen)

    lines = (tmp_path / "log" / "rows.jsonl").read_text().splitlines()
    entries = [json.loads(line) for line in lines]
    assert entries[0].items() >= {"event": "begin", "at": 0}.items()
    assert entries[-1] == {"event": "end", "at": 250, "status": "COMPLETED"}
    logged = [entry["loss"] for entry in entries if "loss" in entry]
    np.testing.assert_array_equal(logged, whole.history["loss"])


def test_the_caller_keeps_its_arrays():
    start, key = jnp.array(START), jax.random.key(0)
    settings = {"num_steps": 5, "batch_size": 4}
    first = phihat.train(LOSS, start, phihat.adam(0.1), DATA, key=key, **settings)
    second = phihat.train(
        LOSS, None, phihat.adam(0.1), DATA, state=first.state, **settings
    )
    assert second.state.step == 10
    for leaf in jax.tree.leaves((start, key, first, DATA)):
        assert not leaf.is_deleted()


def test_going_on_from_a_state_is_one_longer_fit():
    settings = {"batch_size": 4, "record_every": 5}
    whole = phihat.fit(
        LOSS, START, phihat.adam(0.1), DATA, num_steps=60, key=KEY, **settings
    )
    half = phihat.train(
        LOSS, START, phihat.adam(0.1), DATA, num_steps=25, key=KEY, **settings
    )
    rest = phihat.train(
        LOSS, None, phihat.adam(0.1), DATA, num_steps=35, state=half.state, **settings
    )
    assert_same(whole.state, rest.state)
    assert rest.num_steps == 35
    assert rest.history["step"].tolist() == list(range(25, 60, 5))


def test_a_callback_may_stop_the_fit():
    result = phihat.train(
        LOSS,
        START,
        phihat.adam(0.1),
        DATA,
        num_steps=100,
        record=("loss", "params"),
        callbacks=lambda state, rows: state.step >= 30,
        steps_per_chunk=10,
    )
    assert (int(result.status), int(result.num_steps)) == (Status.STOPPED, 30)
    assert result.history["loss"].shape == (100,)
    assert np.isnan(result.history["loss"][30:]).all()
    rest = np.asarray(result.history["params"][30:])
    assert (rest == np.asarray(result.params)).all()
    assert "STOPPED after 30 steps" in repr(result)


@pytest.mark.bits
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_ends_with_a_complete_result(name, tmp_path):
    before = signal.getsignal(getattr(signal, name))
    call = {
        "num_steps": 200,
        "steps_per_chunk": 10,
        "checkpoint": Checkpoints(tmp_path, every=1000),
    }

    def interrupt(state, rows):
        if state.step == 50:
            os.kill(os.getpid(), getattr(signal, name))

    result = phihat.train(
        LOSS, START, phihat.adam(0.1), DATA, callbacks=[interrupt], **call
    )
    assert (int(result.status), int(result.num_steps)) == (Status.INTERRUPTED, 50)
    assert np.isfinite(result.loss)
    assert signal.getsignal(getattr(signal, name)) is before
    assert Checkpoints(tmp_path).steps() == [50]
    whole = phihat.fit(LOSS, START, phihat.adam(0.1), DATA, num_steps=200)
    assert_same(whole, phihat.train(LOSS, START, phihat.adam(0.1), DATA, **call))


def test_a_second_interrupt_ends_at_once_and_is_kept(tmp_path):
    def interrupt(state, rows):
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt) as caught:
        phihat.train(
            LOSS,
            START,
            phihat.adam(0.1),
            DATA,
            num_steps=200,
            steps_per_chunk=10,
            callbacks=[interrupt],
            checkpoint=Checkpoints(tmp_path),
        )
    assert "the checkpoint of step 10 is in" in caught.value.__notes__[0]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_another_thread_installs_no_handler():
    def fit():
        return phihat.train(LOSS, START, phihat.adam(0.1), DATA, num_steps=9)

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        assert pool.submit(fit).result().status == Status.COMPLETED


def test_the_time_limit_ends_with_a_complete_result():
    result = phihat.train(
        LOSS,
        START,
        phihat.adam(0.1),
        DATA,
        num_steps=10**9,
        record_every=10**6,
        time_limit=datetime.timedelta(seconds=0.3),
    )
    assert result.status == Status.TIME_LIMIT
    assert 0 < int(result.num_steps) < 10**9
    assert result.num_steps == result.state.step


def test_held_out_data_choose_the_params():
    x, y = DATA
    train, held = (x[:14], y[:14]), (x[14:], y[14:])
    validation = training.Validation(held, every=10, patience=4)
    result = phihat.train(
        LOSS, START, phihat.adam(0.3), train, num_steps=400, validation=validation
    )
    losses = np.asarray(result.history["validation_loss"])
    best = losses.argmin()
    assert result.status == Status.STOPPED
    assert len(losses) == best + 1 + 4
    steps = result.history["validation_step"]
    assert steps.tolist() == list(range(10, 10 * len(losses) + 1, 10))
    short = phihat.fit(LOSS, START, phihat.adam(0.3), train, num_steps=int(steps[best]))
    assert_same(short.params, result.params)
    assert LOSS(result.params, held) == pytest.approx(losses[best], rel=1e-14)
    assert int(result.state.step) == steps[-1]


def test_chunks_of_any_length_are_few_programs():
    settings = {"num_steps": 300, "record_every": 7}
    phihat.train(LOSS, START, phihat.adam(0.1), DATA, **settings)
    with count_compilations() as compiled:
        for rate, chunk in ((0.1, 3), (0.2, 50), (0.3, None)):
            phihat.train(
                LOSS,
                START,
                phihat.adam(rate),
                DATA,
                steps_per_chunk=chunk,
                **settings,
            )
    assert compiled == []


# ---------------------------------------------------------------------- streams


SLOPE = phihat.losses.least_squares(phihat.models.linear, reduction="mean")
LINE = {"weight": 0.0, "bias": 0.0}


def batches(count, *, size=8, last=8, wrong=None, at=5):
    rng = np.random.default_rng(0)
    for number in range(count):
        rows = last if number == count - 1 else size
        x = rng.normal(size=rows)
        batch = (x, 3 * x - 1)
        if number == at and wrong is not None:
            batch = wrong(*batch)
        yield batch


def train_on(data, **settings):
    if "num_steps" not in settings:
        settings = {"num_epochs": 1} | settings
    return phihat.train(SLOPE, LINE, phihat.adam(0.1), data, **settings)


@pytest.mark.parametrize("last", [8, 3])
def test_a_stream_gives_the_same_whatever_the_chunks(last):
    first = train_on(batches(150, last=last), steps_per_chunk=1)
    assert (int(first.status), int(first.num_steps)) == (Status.COMPLETED, 150)
    for chunk in (7, 100, None):
        assert_same(first, train_on(batches(150, last=last), steps_per_chunk=chunk))


def test_a_stream_of_the_batches_of_fit_is_fit():
    x, y = next(batches(1, size=96, last=96))
    order = np.arange(96).reshape(12, 8)
    settings = {"num_steps": 40, "record": ("loss", "params", "grad_norm")}
    sampler = phihat.from_indices(order)
    whole = phihat.fit(
        SLOPE, LINE, phihat.adam(0.1), (x, y), sampler=sampler, **settings
    )
    loader = [(x[rows], y[rows]) for rows in order]
    result = train_on(Loader(loader), **settings)
    tolerance = 50 * np.finfo(float).eps
    mine, yours = jax.tree.leaves(result), jax.tree.leaves(whole)
    for one, other in zip(mine, yours, strict=True):
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)


class Loader:
    """Like a loader: iter begins anew."""

    def __init__(self, batches):
        self.batches = batches

    def __iter__(self):
        return iter(self.batches)


def test_epochs_of_a_loader():
    data = list(batches(10, last=3))
    result = train_on(Loader(data), num_epochs=3)
    assert (int(result.status), int(result.num_steps)) == (Status.COMPLETED, 30)
    assert_same(result, train_on(iter(data * 3)))


def test_batches_large_or_on_the_device_are_used_as_they_are():
    def wide(put):
        rng = np.random.default_rng(1)
        for _ in range(6):
            x = rng.normal(size=(64, 600))
            yield put(x), put(x @ np.ones(600))

    start = {"weight": np.zeros(600), "bias": 0.0}
    results = [
        phihat.train(SLOPE, start, phihat.adam(0.1), wide(put), num_epochs=1)
        for put in (np.asarray, jnp.asarray)
    ]
    assert_same(*results)


def test_a_stream_that_ends_early_is_said_plainly():
    with pytest.warns(UserWarning, match=r"ended after 12 batches, before the 50"):
        result = train_on(batches(12), num_steps=50)
    assert (int(result.status), int(result.num_steps)) == (Status.STOPPED, 12)
    assert result.history["loss"].shape == (50,)


def test_a_slow_stream_is_not_waited_for_in_groups():
    seen = []

    def slow():
        for batch in batches(3):
            yield batch
            while len(seen) < 1:  # goes on once the first batch was used
                time.sleep(0.01)

    result = train_on(slow(), callbacks=[lambda state, rows: seen.append(state.step)])
    assert result.num_steps == 3


def test_a_stream_that_gives_nothing_in_time():
    def late():
        time.sleep(1.0)
        yield from batches(3)

    with pytest.raises(RuntimeError, match="TIME_LIMIT, before the first batch"):
        train_on(late(), time_limit=0.2)


def explode(x, y):
    raise OSError("the disk is gone")


WRONG_BATCHES = {
    "another dtype": (
        lambda x, y: (x.astype("float32"), y),
        TypeError,
        r"batch 5 of `data` has dtype float32 at \[0\], but the first has float64; "
        r"convert it with `.astype\('float64'\)`",
    ),
    "another shape": (
        lambda x, y: (x, y[:, None]),
        ValueError,
        r"batch 5 of `data` has shape \[8, 1\] at \[1\], but the first has \[8\]",
    ),
    "more rows": (
        lambda x, y: (np.tile(x, 2), np.tile(y, 2)),
        ValueError,
        r"has shape \[16\] at \[0\], but the first has \[8\]; only a last batch may",
    ),
    "fewer rows in one leaf": (
        lambda x, y: (x, y[:3]),
        ValueError,
        r"has 8 rows at \[0\] and 3 at \[1\]",
    ),
    "another structure": (
        lambda x, y: {"x": x, "y": y},
        TypeError,
        r"batch 5 of `data` has the structure .*'x'.*, but the first has",
    ),
    "no arrays": (
        lambda x, y: (),
        ValueError,
        r"batch 5 of `data` has no arrays in it",
    ),
    "text": (
        lambda x, y: (x, "y"),
        TypeError,
        r"batch 5 of `data` holds 'y' at \[1\], which is not an array",
    ),
    "an exception": (
        explode,
        RuntimeError,
        r"`data` raised OSError at batch 5: the disk is gone",
    ),
}


@pytest.mark.parametrize("kind", WRONG_BATCHES)
def test_a_wrong_batch_is_named_and_the_fit_is_kept(kind, tmp_path):
    wrong, error, message = WRONG_BATCHES[kind]
    call = {"checkpoint": Checkpoints(tmp_path, every=100)}
    with pytest.raises(error, match=message) as caught:
        train_on(batches(20, wrong=wrong), **call)
    assert "The fit had made 5 steps" in str(caught.value)
    assert "the checkpoint of step 5 is in" in str(caught.value)
    result = getattr(caught.value, "result")  # noqa: B009
    assert_same(result.params, train_on(batches(5)).params)
    assert result.status == Status.INTERRUPTED
    assert Checkpoints(tmp_path).steps() == [5]


def test_two_shorter_sizes_are_one_too_many():
    def uneven():
        for rows in (8, 8, 5, 8, 3):
            yield np.ones(rows), np.ones(rows)

    with pytest.raises(ValueError, match=r"batch 4 .* has 3 rows, but .* one shorter"):
        train_on(uneven())


def test_nan_in_a_batch():
    result = train_on(batches(20, wrong=lambda x, y: (x * np.nan, y)))
    assert (int(result.status), int(result.num_steps)) == (Status.NONFINITE_LOSS, 5)
    with pytest.raises(phihat.FitError, match=r"step 5: .* data hold .* at \[0\]"):
        phihat.raise_for_status(result)
    again = training.replay(result, SLOPE, next(itertools.islice(batches(9), 5, None)))
    assert (again.step, again.quantity) == (5, None)  # a sound batch is no culprit


@pytest.mark.parametrize("data", [iter(()), Loader([])], ids=["iterator", "loader"])
def test_an_empty_stream(data):
    with pytest.raises(ValueError, match="empty stream"):
        train_on(data, num_steps=5)


def test_loaders_of_torch_and_grain():
    torch_data = pytest.importorskip("torch.utils.data")
    import grain
    import torch

    x, y = (np.asarray(part, np.float32) for part in next(batches(1, last=50)))
    parts = [(x[i : i + 8], y[i : i + 8]) for i in range(0, 50, 8)]
    plain = train_on(Loader(parts), num_epochs=2)
    tensors = torch_data.TensorDataset(torch.from_numpy(x), torch.from_numpy(y))
    loader = torch_data.DataLoader(tensors, batch_size=8)
    assert_same(plain.params, train_on(loader, num_epochs=2).params)
    pairs = grain.MapDataset.source(list(zip(x, y, strict=True))).batch(8)
    assert_same(plain.params, train_on(pairs.to_iter_dataset(), num_epochs=2).params)


# --------------------------------------------------------------- the flight recorder


def test_the_flight_recorder_keeps_the_last_states():
    loss_fn = lambda x: x**4
    flight = {"flight": training.flight_recorder(3)}
    settings = {"num_steps": 50, "record_every": 4}
    optimizer = phihat.momentum(0.02, decay=0.9)
    for start in (4.0, 40.0):  # goes well, and does not
        plain = phihat.fit(
            loss_fn, start, optimizer, num_steps=50, record=("loss", "params")
        )
        result = phihat.fit(loss_fn, start, optimizer, record=flight, **settings)
        states = result.history["flight"]
        last = int(plain.num_steps)
        wanted = [step if step >= 0 else -1 for step in range(last - 3, last)]
        assert states.step.tolist() == wanted
        rows = plain.history["params"][np.maximum(wanted, 0)]
        np.testing.assert_array_equal(states.params, rows)
        trained = phihat.train(
            loss_fn,
            start,
            optimizer,
            record=flight,
            steps_per_chunk=7,
            **settings,
        )
        assert_same(result, trained)
        goes_on = jax.tree.map(lambda leaf: leaf[-1], states)
        again = phihat.fit(loss_fn, None, optimizer, num_steps=1, state=goes_on)
        assert_same(again.state.params, result.state.params)


def test_replay_reproduces_the_bad_step():
    x, y = DATA
    y = y.at[11].set(jnp.nan)
    settings = {"batch_size": 4}
    result = phihat.fit(
        LOSS, START, phihat.adam(0.1), (x, y), num_steps=20, key=KEY, **settings
    )
    again = training.replay(
        result, LOSS, (x, y), optimizer=phihat.adam(0.1), **settings
    )
    assert (again.status, again.quantity) == (Status(int(result.status)), "loss")
    assert again.step == result.num_steps
    assert 11 in again.rows.tolist()
    np.testing.assert_array_equal(again.batch[1], y[again.rows])
    assert np.isnan(again.info.loss)
    assert np.isnan(again.params).all()


def test_replay_names_the_leaf_that_was_first():
    def loss_fn(params):
        return params["b"] ** 2 + jnp.sqrt(params["a"])  # no slope at a = 0

    start = {"a": 0.0, "b": 1.0}
    result = phihat.fit(loss_fn, start, phihat.gradient_descent(0.1), num_steps=5)
    again = training.replay(result, loss_fn)
    assert (again.quantity, again.path) == ("gradient", "['a']")


def test_replay_of_an_update_that_overflows():
    loss_fn = lambda params: 1e200 * params
    optimizer = phihat.gradient_descent(1e200)
    result = phihat.fit(loss_fn, 1.0, optimizer, num_steps=5)
    assert result.status == Status.NONFINITE_PARAMS
    with pytest.raises(ValueError, match="pass the `optimizer`"):
        training.replay(result, loss_fn)
    again = training.replay(result, loss_fn, optimizer=optimizer)
    assert (again.quantity, again.params) == ("params", -np.inf)


def test_flight_and_replay_under_vmap():
    loss_fn = lambda x: x**4
    rates = jnp.asarray([0.001, 1.0, 0.5])

    def fit(rate):
        return phihat.fit(
            loss_fn,
            4.0,
            phihat.gradient_descent(rate),
            num_steps=20,
            record={"flight": training.flight_recorder(2)},
        )

    lanes = jax.vmap(fit)(rates)
    for lane in range(3):
        single = fit(rates[lane])
        states = jax.tree.map(operator.itemgetter(lane), lanes.history["flight"])
        assert states.step.tolist() == single.history["flight"].step.tolist()
        np.testing.assert_allclose(
            states.params, single.history["flight"].params, rtol=1e-13
        )
    again = training.replay(lanes, loss_fn)
    assert (again.step, again.quantity) == (int(lanes.num_steps[1]), "loss")
    third = training.replay(lanes, loss_fn, lane=2)
    assert third.step == lanes.num_steps[2]
    with pytest.raises(ValueError, match="lane 0 ended with COMPLETED"):
        training.replay(lanes, loss_fn, lane=0)
    with pytest.raises(ValueError, match="`lane` must have 1 numbers"):
        training.replay(lanes, loss_fn, lane=(0, 1))


# --------------------------------------------------------------------- wrong calls


WRONG_CALLS = {
    "progress": ({"time_limit": 0.0}, ValueError, "`time_limit` must be > 0, got 0"),
    "time_limit": ({"time_limit": "1h"}, TypeError, "`time_limit` must be a real"),
    "chunk": ({"steps_per_chunk": 0}, ValueError, "`steps_per_chunk` must be >= 1"),
    "callbacks": ({"callbacks": 3}, TypeError, "`callbacks` must be functions"),
    "a callback": ({"callbacks": [3]}, TypeError, "`callbacks` must be functions"),
    "checkpoint": (
        {"checkpoint": "folder"},
        TypeError,
        r"`checkpoint` must be `Checkpoints\(path, every=...\)`, got 'folder'",
    ),
    "validation": (
        {"validation": DATA},
        TypeError,
        r"`validation` must be `training.Validation\(data, every=...\)`",
    ),
    "no budget": ({"num_steps": None}, ValueError, "give either `num_steps` or"),
    "record": ({"record": ("los",)}, ValueError, "did you mean 'loss'"),
    "key": ({"key": 0}, TypeError, "`key` must be one typed key"),
    "list of batches": (
        {"data": [DATA, DATA]},
        TypeError,
        "`data` is a list of 2 batches",
    ),
    "a stream and a batch size": (
        {"data": iter(()), "batch_size": 3},
        ValueError,
        "`batch_size` draws rows from arrays, but `data` is a stream",
    ),
    "epochs of a generator": (
        {"data": iter(()), "num_epochs": 2, "num_steps": None},
        ValueError,
        "`num_epochs` is 2, but `data` is an iterator, which can be read only once",
    ),
}


@pytest.mark.parametrize("name", WRONG_CALLS)
def test_wrong_calls(name):
    settings, error, message = WRONG_CALLS[name]
    call = {"data": DATA, "num_steps": 3} | settings
    with pytest.raises(error, match=message) as caught:
        phihat.train(LOSS, START, phihat.adam(0.1), **call)
    assert str(caught.value).startswith("train: ")


def test_the_report_gives_the_best_held_out_loss():
    validation = training.Validation(DATA, every=10)
    result = phihat.train(
        LOSS, START, phihat.adam(0.1), DATA, num_steps=30, validation=validation
    )
    lowest = float(result.history["validation_loss"].min())
    assert f"  validation {lowest:.6g} after 30 steps, the lowest" in repr(result)


def test_train_cannot_be_traced():
    fit = lambda start: phihat.train(LOSS, start, phihat.adam(0.1), DATA, num_steps=3)
    with pytest.raises(TypeError, match=r"driven from the host .* use `fit`"):
        jax.jit(fit)(START)


def test_wrong_parts():
    for make, error, message in (
        (lambda: training.Validation(None, 3), TypeError, "must be held-out data"),
        (lambda: training.Validation(DATA, 0), ValueError, "`every` must be >= 1"),
        (lambda: training.Validation(DATA, 1, 0), ValueError, "`patience` must be"),
        (lambda: training.flight_recorder(0), ValueError, "`num_states` must be >= 1"),
        (
            lambda: phihat.Checkpoints("folder", every="1h"),
            TypeError,
            "a whole number of steps or a `datetime.timedelta`, got '1h'",
        ),
        (lambda: training.replay(3, LOSS), TypeError, "must be a FitResult"),
    ):
        with pytest.raises(error, match=message):
            make()


def test_replay_of_a_fit_that_went_well():
    result = phihat.fit(LOSS, START, phihat.adam(0.1), DATA, num_steps=3)
    with pytest.raises(ValueError, match=r"no infinite or NaN number; .* COMPLETED"):
        training.replay(result, LOSS, DATA)
